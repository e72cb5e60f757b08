//! Ranges of bytes in HTTP (RFC 9110, 14).

use std::ops::Range;

use crate::error::{Error, Kind, Result};

/// `Range` for bytes of which there is at least one.
pub(in crate::transfer) fn range_header(range: &Range<u64>) -> Option<String> {
    let last = range.end.checked_sub(1).filter(|last| *last >= range.start)?;
    Some(format!("bytes={}-{last}", range.start))
}

/// The size of the object out of `Content-Range: bytes first-last/total`, if this is the range that was asked for.
pub(in crate::transfer) fn total_of(content_range: &str, range: &Range<u64>) -> Result<u64> {
    let (first, last) = (range.start, range.end.saturating_sub(1));
    let parts = content_range.strip_prefix("bytes ").and_then(|rest| rest.split_once('/'));
    let total = parts.and_then(|(_, total)| total.parse::<u64>().ok());
    match (parts, total) {
        (Some((range, _)), Some(total)) if range == format!("{first}-{last}") => Ok(total),
        // Servers shorten a range that ends past the object (RFC 9110, 14.1.2).
        (Some(_), Some(total)) if total <= last => {
            Err(Error::new(Kind::ObjectChanged, format!("the range ends past the object of {total} bytes")))
        }
        // Among others a server that does not know ranges and sends the whole object from its start.
        _ => Err(Error::new(Kind::TransferInterrupted, "the store sent another range than it was asked for")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_range_asked_for_counts() {
        let total = |text: &str| total_of(text, &(5..10)).map_err(|error| error.kind());
        assert_eq!(total("bytes 5-9/20"), Ok(20));
        assert_eq!(total("bytes 5-8/9"), Err(Kind::ObjectChanged));
        for other in ["bytes 5-8/20", "bytes 0-9/20", "bytes 5-9/*", "5-9/20", ""] {
            assert_eq!(total(other), Err(Kind::TransferInterrupted), "{other}");
        }
    }

    #[test]
    fn an_empty_range_has_no_header() {
        assert_eq!(range_header(&(5..10)).as_deref(), Some("bytes=5-9"));
        assert_eq!(range_header(&(5..5)), None);
        assert_eq!(range_header(&(0..0)), None);
    }
}
