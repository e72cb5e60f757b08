//! Moments in entries, cards and headers: UTC, whole seconds, one spelling (`2031-12-31T23:59:59Z`, RFC 3339).
//!
//! One spelling, because the text is signed in cards and headers, and so that a person compares two moments at a glance. Nothing here reads
//! the clock except [`Moment::now`]; every rule about expiry takes the moment as an argument.

use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::error::{Error, Kind, Result, Stage};

/// Seconds and `Z`, nothing else.
const SPELLING: &[BorrowedFormatItem<'static>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// A second of UTC between the years 0 and 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Moment(PrimitiveDateTime);

impl Moment {
    /// The present.
    pub(crate) fn now() -> Result<Moment> {
        let now = time::OffsetDateTime::now_utc();
        let now = now.replace_nanosecond(0).map(|now| PrimitiveDateTime::new(now.date(), now.time()));
        now.map(Moment).map_err(|_| Error::new(Kind::Internal, "the system clock is out of range").at(Stage::Keys))
    }

    /// Reads the one spelling; `None` for any other.
    pub(crate) fn parse(text: &str) -> Option<Moment> {
        let moment = PrimitiveDateTime::parse(text, SPELLING).ok().map(Moment)?;
        // The parser takes a sign before the year and the like; what it took must be what would have been written.
        (moment.text().ok()? == text).then_some(moment)
    }

    /// The one spelling.
    pub(crate) fn text(self) -> Result<String> {
        self.0.format(SPELLING).map_err(|_| Error::new(Kind::Internal, "a moment could not be written").at(Stage::Keys))
    }

    /// Date and time of day.
    pub(crate) fn date_time(self) -> PrimitiveDateTime {
        self.0
    }
}

/// A moment that a caller typed.
pub(super) fn given(text: &str) -> Result<Moment> {
    Moment::parse(text).ok_or_else(|| {
        Error::new(Kind::InvalidArgument, "not a time in UTC").at(Stage::Keys).with_hint("write it like 2031-12-31T23:59:59Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_one_spelling() {
        let leap = Moment::parse("2024-02-29T23:59:59Z").unwrap();
        assert_eq!(leap.text().unwrap(), "2024-02-29T23:59:59Z");
        for other in [
            "",
            "2024-02-29",
            "2023-02-29T00:00:00Z",
            "2024-02-29T24:00:00Z",
            "2024-02-29T23:59:60Z",
            "2024-02-29T23:59:59z",
            "2024-02-29 23:59:59Z",
            "2024-02-29T23:59:59+00:00",
            "2024-02-29T23:59:59.0Z",
            "+2024-02-29T23:59:59Z",
            " 2024-02-29T23:59:59Z",
            "2024-2-29T23:59:59Z",
        ] {
            assert_eq!(Moment::parse(other), None, "{other}");
            assert_eq!(given(other).unwrap_err().kind(), Kind::InvalidArgument, "{other}");
        }
        assert!(leap < Moment::parse("2024-03-01T00:00:00Z").unwrap());
        assert!(Moment::parse(&Moment::now().unwrap().text().unwrap()).is_some());
    }
}
