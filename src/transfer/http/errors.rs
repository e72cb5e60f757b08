//! What a refusal means, whichever store refuses: by HTTP status, and by what kept a request from being answered.
//!
//! Texts of servers and libraries may quote names of objects and headers, so none is copied; everything is said in our own words.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::time::Duration;

use time::PrimitiveDateTime;
use time::macros::format_description;

use super::Place;
use crate::error::{Error, Kind, Stage};

/// Difference between the server's clock and ours at which signatures and tokens begin to be refused (Amazon's limit is 15 minutes, Azure's
/// too, Google allows 10 minutes in a signed assertion).
const SKEW: time::Duration = time::Duration::minutes(10);

/// What was being done, where the same answer means different things.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::transfer) enum Doing {
    Listing,
    Reading,
    Writing,
}

/// The meaning of a status alone, for stores whose answer carries no code that says more.
pub(in crate::transfer) fn refused(doing: Doing, status: u16) -> Error {
    match status {
        404 | 410 => Error::new(Kind::ObjectNotFound, ""),
        416 => Error::new(Kind::ObjectChanged, "the range ends past the object"),
        401 => Error::new(Kind::AccessDenied, "the store does not accept the credentials, status 401"),
        403 => Error::new(Kind::AccessDenied, "status 403"),
        408 | 425 | 429 | 500..=599 => Error::new(Kind::ServerFailed, format!("status {status}")),
        409 if doing == Doing::Writing => Error::new(Kind::ObjectExists, ""),
        // Another writer at the same moment; what it will leave behind is not known yet.
        409 => Error::new(Kind::ServerFailed, "somebody else writes the object"),
        412 if doing == Doing::Writing => Error::new(Kind::ObjectExists, ""),
        412 => Error::new(Kind::ObjectChanged, ""),
        300..=399 => Error::new(Kind::ServerFailed, format!("the store sent the request elsewhere, status {status}")),
        413 => Error::new(Kind::StoreUnwritable, format!("the store has no room, status {status}")),
        400..=499 if doing == Doing::Writing => Error::new(Kind::StoreUnwritable, format!("status {status}")),
        400..=499 => Error::new(Kind::AccessDenied, format!("the store refused the request, status {status}")),
        _ => Error::new(Kind::ServerFailed, format!("status {status}, which means nothing here")),
    }
}

/// A request that never reached the server, or whose answer never came.
pub(in crate::transfer) fn unsent(place: &Place, error: &(dyn StdError + 'static)) -> Error {
    let causes = causes(error);
    let io = causes.iter().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind).next_back();
    if causes.iter().any(|cause| cause.is::<rustls::Error>()) {
        return Error::new(Kind::TlsFailed, place.describe());
    }
    let is_timeout =
        causes.iter().any(|cause| cause.downcast_ref().is_some_and(aws_smithy_runtime_api::client::result::ConnectorError::is_timeout));
    match io {
        Some(ErrorKind::TimedOut) => Error::new(Kind::TransferTimeout, place.describe()),
        _ if is_timeout => Error::new(Kind::TransferTimeout, place.describe()),
        Some(ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof) => {
            Error::new(Kind::TransferInterrupted, "the connection was closed")
        }
        Some(ErrorKind::ConnectionRefused) => Error::new(Kind::ConnectionRefused, place.describe()),
        // Among others: the name does not resolve, no route, the proxy says no.
        Some(_) => Error::new(Kind::ConnectionRefused, format!("{} cannot be reached", place.describe())),
        None => Error::new(Kind::TransferInterrupted, "the request did not get through"),
    }
}

/// The error and all that caused it; an `io::Error` hides one that its `source` leaves out.
pub(in crate::transfer) fn causes<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut causes = Vec::new();
    let mut next = Some(error);
    // The bound is for a chain that bites its tail.
    while let Some(error) = next.filter(|_| causes.len() < 64) {
        causes.push(error);
        let hidden = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = hidden.map(|hidden| hidden as &(dyn StdError + 'static)).or(error.source());
    }
    causes
}

/// How long the server wants to be left alone (RFC 9110, 10.2.3). A date is taken relative to the date of the same answer, because two
/// clocks rarely agree.
pub(in crate::transfer) fn retry_after(retry_after: Option<&str>, date: Option<&str>) -> Option<Duration> {
    let text = retry_after?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let wait = http_date(text)? - http_date(date?)?;
    Some(Duration::try_from(wait).unwrap_or(Duration::ZERO))
}

/// A refusal for the sake of time: the server's date and ours are too far apart for signatures and tokens to hold.
pub(in crate::transfer) fn clock_skew(date: Option<&str>) -> Option<Error> {
    let (server, now) = (http_date(date?)?, time::OffsetDateTime::now_utc());
    let skew = (server.assume_utc() - now).abs();
    (skew > SKEW).then(|| {
        Error::new(Kind::AccessDenied, format!("this computer's clock and the store's differ by {} minutes", skew.whole_minutes()))
            .with_hint("set the clock")
            .at(Stage::Transfer)
    })
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7; the two obsolete forms are no longer sent by anybody).
fn http_date(text: &str) -> Option<PrimitiveDateTime> {
    let format = format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    PrimitiveDateTime::parse(text.trim(), format).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_means_what_was_being_done() {
        for (doing, status, expected) in [
            (Doing::Reading, 404, Kind::ObjectNotFound),
            (Doing::Reading, 412, Kind::ObjectChanged),
            (Doing::Writing, 412, Kind::ObjectExists),
            (Doing::Writing, 409, Kind::ObjectExists),
            (Doing::Listing, 401, Kind::AccessDenied),
            (Doing::Reading, 416, Kind::ObjectChanged),
            (Doing::Reading, 429, Kind::ServerFailed),
            (Doing::Writing, 507, Kind::ServerFailed),
            (Doing::Writing, 413, Kind::StoreUnwritable),
            (Doing::Writing, 400, Kind::StoreUnwritable),
            (Doing::Reading, 302, Kind::ServerFailed),
        ] {
            assert_eq!(refused(doing, status).kind(), expected, "{status}");
        }
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_by_date() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(retry_after(Some(" 7 "), None), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(Some("Sun, 06 Nov 1994 08:51:37 GMT"), date), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(Some("Sun, 06 Nov 1994 08:40:37 GMT"), date), Some(Duration::ZERO));
        for nonsense in ["soon", "-3", "Sun, 06 Nov 1994"] {
            assert_eq!(retry_after(Some(nonsense), date), None, "{nonsense}");
        }
        assert_eq!(retry_after(Some("Sun, 06 Nov 1994 08:51:37 GMT"), None), None);
    }

    #[test]
    fn clocks_that_disagree_are_named_and_small_differences_are_not() {
        assert!(clock_skew(Some("Sun, 06 Nov 1994 08:49:37 GMT")).unwrap().detail().contains("clock"));
        let format = format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
        let now = time::OffsetDateTime::now_utc().format(format).unwrap();
        assert!(clock_skew(Some(&now)).is_none());
        assert!(clock_skew(None).is_none());
    }
}
