//! Dates, times and ages: what is valid, and how a patient's dates move.
//!
//! A shift is a whole number of weeks into the past, one per patient: intervals between a patient's dates, days of the week and times
//! of day stay as they were, the calendar date does not. A value with less precision than a day (PS3.5 6.2 allows that in DT) keeps
//! its precision: the middle of the month or year it names is moved, and the rest is left out again. Whatever is not a valid date is
//! not shifted at all; the caller then falls back on the Basic Profile's action, so nothing passes by being malformed.

use dicom_core::VR;
use time::{Date, Duration, Month};

/// How far a patient's dates move, in days into the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shift {
    days: i64,
}

impl Shift {
    pub(crate) fn weeks(weeks: u16) -> Shift {
        Shift { days: i64::from(weeks) * 7 }
    }

    /// The moved value of a DA, DT or TM (a time of day does not move); `None` when the value is not valid for its VR.
    pub(crate) fn apply(self, vr: VR, value: &str) -> Option<String> {
        let value = value.trim_matches([' ', '\0']);
        match vr {
            VR::DA => self.date(value),
            VR::DT => self.date_time(value),
            VR::TM => is_time(value).then(|| value.to_owned()),
            _ => None,
        }
    }

    fn date(self, value: &str) -> Option<String> {
        let (year, month, day) = parse_date(value)?;
        let moved = self.moved(year, month, day)?;
        // The dotted form is that of the old ACR-NEMA standard (PS3.5 6.2, DA, note): it stays what it was.
        let dot = if value.contains('.') { "." } else { "" };
        Some(format!("{:04}{dot}{:02}{dot}{:02}", moved.year(), u8::from(moved.month()), moved.day()))
    }

    fn date_time(self, value: &str) -> Option<String> {
        let parts = DateTime::parse(value)?;
        let moved = self.moved(parts.year, parts.month.unwrap_or(7), parts.day.unwrap_or(if parts.month.is_some() { 15 } else { 1 }))?;
        let mut text = format!("{:04}", moved.year());
        if parts.month.is_some() {
            text += &format!("{:02}", u8::from(moved.month()));
        }
        if parts.day.is_some() {
            text += &format!("{:02}", moved.day());
        }
        Some(text + parts.rest)
    }

    fn moved(self, year: i32, month: u8, day: u8) -> Option<Date> {
        let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
        date.checked_sub(Duration::days(self.days)).filter(|moved| (1..=9999).contains(&moved.year()))
    }
}

/// Whether a text is a valid DA, DT, TM or AS (PS3.5 6.2). `None` for any other VR: there is nothing to hold it against here.
pub(crate) fn is_valid(vr: VR, value: &str) -> Option<bool> {
    let value = value.trim_matches([' ', '\0']);
    match vr {
        VR::DA => Some(parse_date(value).is_some_and(|(year, month, day)| is_day(year, month, day))),
        VR::DT => Some(DateTime::parse(value).is_some_and(|at| is_day(at.year, at.month.unwrap_or(1), at.day.unwrap_or(1)))),
        VR::TM => Some(is_time(value)),
        VR::AS => Some(parse_age(value).is_some()),
        _ => None,
    }
}

/// An age as it may be released: above 89 years it is `090Y`, whatever the unit (45 CFR 164.514(b)(2)(i)(C)).
pub(crate) fn release_age(value: &str) -> Option<String> {
    let value = value.trim_matches([' ', '\0']);
    let (number, unit) = parse_age(value)?;
    // Units of a year, rounded so that no age above 89 slips through: 52 weeks and 365 days are the shortest years.
    let years = number / [1, 12, 52, 365][unit];
    Some(if years > 89 { "090Y".to_owned() } else { value.to_owned() })
}

/// `YYYYMMDD` or `YYYY.MM.DD`.
fn parse_date(value: &str) -> Option<(i32, u8, u8)> {
    let plain = match value.len() {
        8 => value.to_owned(),
        10 if value.as_bytes().get(4) == Some(&b'.') && value.as_bytes().get(7) == Some(&b'.') => value.replace('.', ""),
        _ => return None,
    };
    if plain.len() != 8 {
        return None;
    }
    Some((digits(plain.get(..4)?)?.try_into().ok()?, two(plain.get(4..6)?)?, two(plain.get(6..)?)?))
}

/// A date time with the parts that a shift needs; `rest` is time of day, fraction and zone as they stand.
struct DateTime<'a> {
    year: i32,
    month: Option<u8>,
    day: Option<u8>,
    rest: &'a str,
}

impl DateTime<'_> {
    fn parse(value: &str) -> Option<DateTime<'_>> {
        // YYYYMMDDHHMMSS.FFFFFF&ZZXX, cut off anywhere after the year between components; the zone may follow any of them.
        let zone_at = value.find(['+', '-']).unwrap_or(value.len());
        let (local, zone) = value.split_at_checked(zone_at)?;
        let zone_ok = zone.is_empty() || (zone.len() == 5 && digits(zone.get(1..)?)? <= 1400);
        let head = local.len().min(8);
        let year = digits(local.get(..4)?)?.try_into().ok()?;
        let month = if head >= 6 { Some(two(local.get(4..6)?)?) } else { None };
        let day = if head >= 8 { Some(two(local.get(6..8)?)?) } else { None };
        let time = local.get(head..)?;
        let whole = matches!(head, 4 | 6 | 8) && (time.is_empty() || is_time(time));
        (whole && zone_ok).then_some(DateTime { year, month, day, rest: value.get(head..)? })
    }
}

/// `HH[MM[SS[.F{1,6}]]]`, or with colons as ACR-NEMA wrote it.
fn is_time(value: &str) -> bool {
    let plain = value.replace(':', "");
    let (clock, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let limits = [23, 59, 60];
    let clock_ok = matches!(clock.len(), 2 | 4 | 6)
        && clock.is_ascii()
        && limits.iter().enumerate().all(|(index, limit)| match clock.get(index * 2..index * 2 + 2) {
            Some(pair) => two(pair).is_some_and(|number| number <= *limit),
            None => true,
        });
    let fraction_ok = !plain.contains('.') || (clock.len() == 6 && (1..=6).contains(&fraction.len()) && digits(fraction).is_some());
    clock_ok && fraction_ok
}

/// `nnnD`, `nnnW`, `nnnM`, `nnnY`: the number and which of Y, M, W, D.
fn parse_age(value: &str) -> Option<(u32, usize)> {
    let unit = "YMWD".find(value.get(3..)?).filter(|_| value.len() == 4)?;
    Some((digits(value.get(..3)?)?, unit))
}

fn is_day(year: i32, month: u8, day: u8) -> bool {
    Month::try_from(month).is_ok_and(|month| Date::from_calendar_date(year, month, day).is_ok())
}

fn two(text: &str) -> Option<u8> {
    digits(text)?.try_into().ok()
}

fn digits(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `datetime.date(2014, 3, 10) - datetime.timedelta(weeks=52)` and so on, in Python.
    #[test]
    fn dates_move_by_whole_weeks() {
        for (vr, weeks, before, after) in [
            (VR::DA, 52, "20140310", Some("20130311")),
            (VR::DA, 520, "20240229", Some("20140313")),
            (VR::DA, 104, "2014.03.10", Some("2012.03.12")),
            (VR::DA, 52, "20140310 ", Some("20130311")),
            (VR::DT, 52, "20140310101530.250000+0100", Some("20130311101530.250000+0100")),
            (VR::DT, 52, "2014031010", Some("2013031110")),
            // The middle of March 2014 less 52 weeks is 16 March 2013; 1 July 2014 less 52 weeks is 2 July 2013.
            (VR::DT, 52, "201403", Some("201303")),
            (VR::DT, 52, "2014", Some("2013")),
            (VR::DT, 52, "2014-0500", Some("2013-0500")),
            (VR::TM, 52, "101530.25", Some("101530.25")),
            (VR::TM, 52, "10", Some("10")),
        ] {
            assert_eq!(Shift::weeks(weeks).apply(vr, before).as_deref(), after, "{before}");
        }
    }

    #[test]
    fn what_is_no_date_does_not_pass_as_one() {
        for (vr, value) in [
            (VR::DA, "20140230"),
            (VR::DA, "2014"),
            (VR::DA, "DOE^JOHN"),
            (VR::DA, "20140310-20150310"),
            (VR::DA, "00000000"),
            (VR::DA, "٢٠١٤"),
            (VR::DT, "20141301"),
            (VR::DT, "20140310DOE"),
            (VR::DT, "20140310101530+99999"),
            (VR::DT, "201403101"),
            (VR::TM, "2560"),
            (VR::TM, "10153"),
            (VR::TM, "1015.25"),
            (VR::TM, "DOE^JOHN"),
            (VR::AS, "45"),
            (VR::AS, "DOEY"),
        ] {
            assert_eq!(Shift::weeks(52).apply(vr, value), None, "{value}");
            assert_eq!(is_valid(vr, value), Some(false), "{value}");
        }
        assert_eq!(Shift::weeks(520).apply(VR::DA, "00050101"), None);
        assert_eq!(is_valid(VR::LO, "anything"), None);
    }

    #[test]
    fn ages_above_89_become_90() {
        for (before, after) in [
            ("089Y", Some("089Y")),
            ("090Y", Some("090Y")),
            ("101Y", Some("090Y")),
            ("999M", Some("999M")),
            ("999W", Some("999W")),
            ("012D", Some("012D")),
            ("12Y", None),
        ] {
            assert_eq!(release_age(before).as_deref(), after);
        }
    }

    proptest! {
        #[test]
        fn intervals_and_days_of_the_week_are_kept(first in 700_000i32..738_000, gap in 0i32..20_000, weeks in 52u16..=520) {
            let date = |ordinal: i32| Date::from_julian_day(1_721_425 + ordinal).unwrap();
            let text = |date: Date| format!("{:04}{:02}{:02}", date.year(), u8::from(date.month()), date.day());
            let read = |text: &str| Date::from_calendar_date(
                text[..4].parse().unwrap(), Month::try_from(text[4..6].parse::<u8>().unwrap()).unwrap(), text[6..8].parse().unwrap()).unwrap();
            let (a, b) = (date(first), date(first + gap));
            let shift = Shift::weeks(weeks);
            let (moved_a, moved_b) = (read(&shift.apply(VR::DA, &text(a)).unwrap()), read(&shift.apply(VR::DA, &text(b)).unwrap()));
            prop_assert_eq!((moved_b - moved_a).whole_days(), i64::from(gap));
            prop_assert_eq!(moved_a.weekday(), a.weekday());
            prop_assert_eq!((a - moved_a).whole_weeks(), i64::from(weeks));
            let with_time = shift.apply(VR::DT, &(text(a) + "235959.999999")).unwrap();
            prop_assert_eq!(with_time, text(moved_a) + "235959.999999");
        }

        #[test]
        fn no_text_makes_a_shift_panic(value in "\\PC{0,30}") {
            for vr in [VR::DA, VR::DT, VR::TM, VR::AS] {
                let _ = (Shift::weeks(52).apply(vr, &value), is_valid(vr, &value), release_age(&value));
            }
        }
    }
}
