//! When something happened: wall-clock time for people, time since boot for order.
//!
//! The wall clock can be set back; the clock of the running system cannot. A record carries both, with the id of the boot that the
//! second one counts from, so a reader can tell how far two records of one boot lay apart whatever the wall clock did.

use std::time::{SystemTime, UNIX_EPOCH};

use time::{Date, OffsetDateTime, Time, UtcOffset};

/// Length of a time stamp: `2025-11-23T09:48:09.123456Z`.
pub(super) const STAMP_LENGTH: usize = 27;

/// Last microsecond of the year 9999, the last one that RFC 3339 can write.
const LATEST: i64 = 253_402_300_799_999_999;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Microseconds since 1970-01-01 UTC by the wall clock.
    pub(super) micros: i64,
    /// Nanoseconds since boot.
    pub(super) since_boot: u64,
}

/// What tells the time; replaced in tests.
pub(super) type Clock = Box<dyn Fn() -> Moment + Send + Sync>;

/// The system's clocks.
pub(super) fn system() -> Moment {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(LATEST));
    Moment { micros: micros.min(LATEST), since_boot: boottime::nanoseconds() }
}

/// Id of the running boot, or nothing where the system has none.
pub(super) fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id = id.trim();
    let plain = id.len() <= 64 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if plain { id.to_owned() } else { String::new() }
}

/// Time stamp of RFC 3339 in UTC with microseconds. Always as long as any other, so stamps compare as text.
pub(super) fn stamp(micros: i64) -> String {
    let nanos = i128::from(micros.clamp(0, LATEST)) * 1000;
    let when = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (when.year(), u8::from(when.month()), when.day());
    let (hour, minute, second, micro) = (when.hour(), when.minute(), when.second(), when.microsecond());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z")
}

/// Microseconds of a stamp that [`stamp`] wrote; nothing for any other text.
pub(super) fn parse_stamp(text: &str) -> Option<i64> {
    let micros = parse_instant(text)?;
    (text.len() == STAMP_LENGTH && stamp(micros) == text).then_some(micros)
}

/// Microseconds of a date and time of RFC 3339, with any offset.
pub(super) fn parse_instant(text: &str) -> Option<i64> {
    let when = OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?.to_offset(UtcOffset::UTC);
    let micros = i64::try_from(when.unix_timestamp_nanos().div_euclid(1000)).ok()?;
    (0..=LATEST).contains(&micros).then_some(micros)
}

/// First and last microsecond of a day `YYYY-MM-DD` in UTC.
pub(super) fn parse_day(text: &str) -> Option<(i64, i64)> {
    const DAY: i64 = 86_400_000_000;
    let format = time::macros::format_description!("[year]-[month]-[day]");
    // The description accepts a signed year; the length keeps to the four digits that were promised.
    let date = (text.len() == 10).then(|| Date::parse(text, format).ok()).flatten()?;
    let first = date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp().checked_mul(1_000_000)?;
    (0..=LATEST).contains(&first).then(|| (first, first + DAY - 1))
}

/// The one place that asks the system for its running clock, which std hides inside `Instant`.
#[allow(unsafe_code)]
mod boottime {
    /// Linux counts the time that a machine slept as well; elsewhere the plain monotonic clock must do.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

    pub(super) fn nanoseconds() -> u64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is a live timespec of this frame, and the call writes nothing else.
        let status = unsafe { libc::clock_gettime(CLOCK, &raw mut now) };
        if status != 0 {
            return 0;
        }
        // The field's type differs between systems, so the conversion is spelled out although it is the identity on 64-bit Linux.
        #[allow(clippy::useless_conversion)]
        let (seconds, nanos) = (i64::from(now.tv_sec), i64::from(now.tv_nsec));
        u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(u64::try_from(nanos).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_rfc_3339_in_utc_with_microseconds() {
        // `date -u -d @1700000000` says 2023-11-14 22:13:20; `date -u -d @951782400` says 2000-02-29 00:00:00.
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_700_000_000_000_001, "2023-11-14T22:13:20.000001Z"),
            (951_782_400_999_999, "2000-02-29T00:00:00.999999Z"),
            (LATEST, "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(stamp(micros), text);
            assert_eq!(text.len(), STAMP_LENGTH);
            assert_eq!(parse_stamp(text), Some(micros));
        }
        assert_eq!((stamp(-1), stamp(i64::MAX)), (stamp(0), stamp(LATEST)));
    }

    #[test]
    fn only_the_log_s_own_form_counts_as_a_stamp() {
        for text in ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000001+00:00", "2023-11-14t22:13:20.000001Z", "yesterday", ""] {
            assert_eq!(parse_stamp(text), None, "{text}");
        }
        assert_eq!(parse_instant("2023-11-14T23:13:20+01:00"), Some(1_700_000_000_000_000));
    }

    #[test]
    fn a_day_ends_one_microsecond_before_the_next() {
        let (first, last) = parse_day("2000-02-29").unwrap();
        assert_eq!((stamp(first), stamp(last)), ("2000-02-29T00:00:00.000000Z".into(), "2000-02-29T23:59:59.999999Z".into()));
        for text in ["2001-02-29", "2001-2-3", "20010203", "+2001-02-03", "2001-02-03Z", ""] {
            assert_eq!(parse_day(text), None, "{text}");
        }
    }

    #[test]
    fn the_running_clock_never_goes_back() {
        let (first, second) = (system(), system());
        assert!(first.since_boot > 0 && second.since_boot >= first.since_boot);
    }
}
