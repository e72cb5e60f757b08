//! Reading BER, as little of it as CMS needs: one tag after the other out of a slice, without recursion.
//!
//! X.690 allows many spellings of one value; this reader takes one. Tags have one byte, lengths their shortest form, and an indefinite length is
//! taken only where [`Reader::open`] asks for a container that a streaming writer may leave open. A length is compared with what is left
//! before anything is done with it, so nothing is ever allocated or skipped on a sender's word. There is no nesting to follow: the caller
//! names each tag that it expects, and what it did not name is an error.

use super::malformed;
use crate::error::Result;

/// Universal tags (X.690, 8), and the class and form bits of context tags.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_ID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
/// `[n]`, primitive: the content of an implicitly tagged string.
pub(super) const fn context(number: u8) -> u8 {
    0x80 | number
}
/// `[n]`, constructed: a container.
pub(super) const fn context_container(number: u8) -> u8 {
    0xa0 | number
}

/// Bytes of the longest tag and length that are read: one, and one that announces eight.
pub(super) const LONGEST_HEAD: usize = 10;

/// A length as it stands in front of a value (X.690, 8.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// So many bytes.
    Definite(u64),
    /// Until an end-of-contents mark.
    Indefinite,
}

/// Reads a tag and a length from the beginning of some bytes: tag, length, and how many bytes they took. `None` asks for more bytes.
pub(super) fn head(bytes: &[u8]) -> Result<Option<(u8, Length, usize)>> {
    let (&tag, rest) = match bytes.split_first() {
        Some(split) => split,
        None => return Ok(None),
    };
    // X.690, 8.1.2.4: all ones announce a tag number of several bytes. CMS has none.
    if tag & 0x1f == 0x1f {
        return Err(malformed("a tag of several bytes"));
    }
    let (&first, rest) = match rest.split_first() {
        Some(split) => split,
        None => return Ok(None),
    };
    match first {
        0..=0x7f => Ok(Some((tag, Length::Definite(first.into()), 2))),
        0x80 => Ok(Some((tag, Length::Indefinite, 2))),
        0x81..=0x88 => {
            let count = usize::from(first & 0x7f);
            let Some(digits) = rest.get(..count) else { return Ok(None) };
            let length = digits.iter().fold(0u64, |length, digit| length << 8 | u64::from(*digit));
            // X.690, 10.1: the shortest form. A leading zero, or a length that fits into one byte, has a shorter one.
            if digits.first() == Some(&0) || length < 0x80 {
                return Err(malformed("a length that is not in its shortest form"));
            }
            Ok(Some((tag, Length::Definite(length), 2 + count)))
        }
        _ => Err(malformed("a length beyond 64 bits")),
    }
}

/// A place in a slice from which values are read one after the other.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the beginning.
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The tag that comes next.
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Nothing may be left.
    pub(super) fn finish(&self, what: &'static str) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(malformed(what)) }
    }

    /// Enters a container of any size, which may lie beyond the slice: only its tag and length are read.
    pub(super) fn open(&mut self, tag: u8, what: &'static str) -> Result<Length> {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        match head(left)? {
            Some((found, length, used)) if found == tag => {
                self.at += used;
                Ok(length)
            }
            _ => Err(malformed(what)),
        }
    }

    /// A whole value: the bytes behind its tag and definite length, all of them in the slice.
    pub(super) fn value(&mut self, tag: u8, what: &'static str) -> Result<&'a [u8]> {
        let Length::Definite(length) = self.open(tag, what)? else { return Err(malformed(what)) };
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        let value = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| malformed(what))?;
        self.at += value.len();
        Ok(value)
    }

    /// A whole container, to be read from inside.
    pub(super) fn container(&mut self, tag: u8, what: &'static str) -> Result<Reader<'a>> {
        self.value(tag, what).map(Reader::new)
    }

    /// A value that must be exactly these bytes.
    pub(super) fn exactly(&mut self, tag: u8, expected: &[u8], what: &'static str) -> Result<()> {
        if self.value(tag, what)? == expected { Ok(()) } else { Err(malformed(what)) }
    }
}

/// Writes a value with its tag and shortest length, for what goes into a key derivation.
pub(super) fn write(tag: u8, value: &[u8]) -> Vec<u8> {
    let digits = value.len().to_be_bytes();
    let significant: &[u8] = digits.iter().position(|digit| *digit != 0).and_then(|first| digits.get(first..)).unwrap_or_default();
    let mut written = vec![tag];
    match (significant, u8::try_from(significant.len())) {
        ([], _) => written.push(0),
        ([only @ 0..=0x7f], _) => written.push(*only),
        (_, count) => {
            written.push(0x80 | count.unwrap_or(8));
            written.extend_from_slice(significant);
        }
    }
    written.extend_from_slice(value);
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// X.690, 8.1.3, worked by hand.
    #[test]
    fn lengths_are_read_in_their_shortest_form_only() {
        let check = |bytes: &[u8], expected: Option<(Length, usize)>| {
            let found = head(bytes).unwrap().map(|(tag, length, used)| {
                assert_eq!(tag, bytes[0]);
                (length, used)
            });
            assert_eq!(found, expected, "{bytes:02x?}");
        };
        check(&[0x30, 0x00], Some((Length::Definite(0), 2)));
        check(&[0x30, 0x7f], Some((Length::Definite(127), 2)));
        check(&[0x30, 0x80], Some((Length::Indefinite, 2)));
        check(&[0x30, 0x81, 0x80], Some((Length::Definite(128), 3)));
        check(&[0x04, 0x82, 0x10, 0x00, 0xaa], Some((Length::Definite(4096), 4)));
        check(&[0x04, 0x88, 1, 2, 3, 4, 5, 6, 7, 8], Some((Length::Definite(0x0102_0304_0506_0708), 10)));
        for short in [&[][..], &[0x30], &[0x30, 0x81], &[0x30, 0x82, 1], &[0x30, 0x88, 1, 2, 3, 4, 5, 6, 7]] {
            check(short, None);
        }
        for bad in [
            &[0x30, 0x81, 0x7f][..],
            &[0x30, 0x81, 0x00],
            &[0x30, 0x82, 0x00, 0x80],
            &[0x30, 0x83, 0x00, 0x01, 0x00],
            &[0x30, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x30, 0xff, 1],
            &[0x1f, 0x01],
            &[0x7f, 0x81, 0x01, 0x00],
            &[0xbf],
        ] {
            assert_eq!(head(bad).unwrap_err().kind(), Kind::PackageMalformed, "{bad:02x?}");
        }
    }

    #[test]
    fn a_value_that_is_longer_than_what_is_left_is_refused() {
        for bytes in [
            &[0x04, 0x02, 0xaa][..],
            &[0x04, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x04, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x04, 0x80, 0x00, 0x00],
            &[0x04],
            &[],
        ] {
            let error = Reader::new(bytes).value(OCTET_STRING, "a test").unwrap_err();
            assert_eq!(error.kind(), Kind::PackageMalformed, "{bytes:02x?}");
        }
    }

    #[test]
    fn values_are_read_in_order_and_nothing_may_be_left() {
        let bytes = [0x30, 0x06, 0x02, 0x01, 0x03, 0x04, 0x01, 0xee, 0x05];
        let mut outer = Reader::new(&bytes);
        let mut inner = outer.container(SEQUENCE, "outer").unwrap();
        inner.exactly(INTEGER, &[3], "version").unwrap();
        assert_eq!(inner.peek(), Some(OCTET_STRING));
        assert!(inner.exactly(INTEGER, &[3], "another").is_err());
        assert!(inner.finish("rest").is_err());
        assert_eq!(inner.value(OCTET_STRING, "string").unwrap(), [0xee]);
        inner.finish("rest").unwrap();
        assert_eq!((outer.position(), outer.peek()), (8, Some(5)));
        assert!(outer.finish("rest").is_err());
    }

    #[test]
    fn what_is_written_is_in_the_shortest_form() {
        assert_eq!(write(OCTET_STRING, &[]), [4, 0]);
        assert_eq!(write(OCTET_STRING, &[9; 127])[..2], [4, 127]);
        assert_eq!(write(OCTET_STRING, &[9; 128])[..4], [4, 0x81, 128, 9]);
        assert_eq!(write(OCTET_STRING, &[9; 256])[..5], [4, 0x82, 1, 0, 9]);
    }
}
