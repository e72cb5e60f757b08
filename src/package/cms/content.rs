//! The encrypted bytes of a CMS object as they stream by: which of the bytes that come are content, and the tag at the end.
//!
//! A streaming writer cuts the content into OCTET STRINGs (OpenSSL: 4,096 bytes each) until an end-of-contents mark; another writes one string.
//! [`Walker`] takes the object's bytes in order, in pieces of any size, and tells where in each piece content lies. It holds a few bytes at
//! most, and it allocates nothing. Where content must end is known from the envelope's layout, so a segment that reaches beyond it is refused
//! when its length is read.

use std::ops::Range;

use super::ber::{self, LONGEST_HEAD, Length, OCTET_STRING};
use super::envelope::Layout;
use super::malformed;
use crate::error::Result;

/// What comes next.
#[derive(Clone, Copy)]
enum Expect {
    /// Bytes before the content, which the envelope's parser has read.
    Envelope(u64),
    /// Tag and length of a segment, or the end of the content.
    Segment,
    /// So many bytes of content.
    Content(u64),
    /// The trailer from this byte on.
    Trailer(usize),
}

/// Goes through an object once, from its first byte to its last.
pub(super) struct Walker<'a> {
    layout: &'a Layout,
    expect: Expect,
    /// Bytes of content not yet accounted for, segment heads included.
    left: u64,
    /// A segment's head that is not complete, in its first bytes.
    head: [u8; LONGEST_HEAD],
    have: usize,
    /// Bytes of content found.
    total: u64,
    tag: [u8; 16],
}

impl<'a> Walker<'a> {
    /// Starts at the first byte of the object.
    pub(super) fn new(layout: &'a Layout) -> Walker<'a> {
        let left = layout.content.end.saturating_sub(layout.content.start);
        let expect = Expect::Envelope(layout.content.start);
        Walker { layout, expect, left, head: [0; LONGEST_HEAD], have: 0, total: 0, tag: [0; 16] }
    }

    /// Goes on in a piece from `at`: where the next stretch of content in it lies, or `None` when the piece has no more. Moves `at`.
    pub(super) fn next(&mut self, piece: &[u8], at: &mut usize) -> Result<Option<Range<usize>>> {
        loop {
            let rest = piece.get(*at..).unwrap_or_default();
            match self.expect {
                Expect::Envelope(0) if self.layout.segmented => self.expect = Expect::Segment,
                Expect::Envelope(0) => {
                    self.expect = Expect::Content(self.left);
                    self.left = 0;
                }
                Expect::Content(0) if self.layout.segmented => self.expect = Expect::Segment,
                Expect::Content(0) => self.expect = Expect::Trailer(0),
                Expect::Segment if self.left == 0 => self.expect = Expect::Trailer(0),
                _ if rest.is_empty() => return Ok(None),
                Expect::Envelope(left) => {
                    let taken = shorter(rest.len(), left);
                    *at += taken;
                    self.expect = Expect::Envelope(left - taken as u64);
                }
                Expect::Content(left) => {
                    let found = *at..*at + shorter(rest.len(), left);
                    *at = found.end;
                    self.expect = Expect::Content(left - found.len() as u64);
                    self.total += found.len() as u64;
                    return Ok(Some(found));
                }
                Expect::Segment => self.segment_byte(rest, at)?,
                Expect::Trailer(done) => {
                    let taken = self.trailer(done, rest)?;
                    *at += taken;
                    self.expect = Expect::Trailer(done + taken);
                }
            }
        }
    }

    /// Takes one more byte of a segment's tag and length; both may be cut by the end of a piece.
    fn segment_byte(&mut self, rest: &[u8], at: &mut usize) -> Result<()> {
        let (Some(byte), Some(place)) = (rest.first(), self.head.get_mut(self.have)) else {
            return Err(malformed("a part of the content has no length"));
        };
        *place = *byte;
        self.have += 1;
        *at += 1;
        match ber::head(self.head.get(..self.have).unwrap_or_default())? {
            None => Ok(()),
            Some((OCTET_STRING, Length::Definite(length), used)) => {
                let after_head = self.left.checked_sub(used as u64).and_then(|left| left.checked_sub(length));
                self.left = after_head.ok_or_else(|| malformed("a part of the content reaches beyond its end"))?;
                self.have = 0;
                self.expect = Expect::Content(length);
                Ok(())
            }
            // Strings inside of strings are allowed by X.690 and written by nobody: there is nothing to descend into.
            Some(_) => Err(malformed("a part of the content is not a plain octet string")),
        }
    }

    /// Compares what follows the content with what must follow it, and takes the tag out.
    fn trailer(&mut self, done: usize, rest: &[u8]) -> Result<usize> {
        let expected = self.layout.trailer.get(done..).unwrap_or_default();
        if expected.is_empty() {
            return Err(malformed("bytes behind the end of the object"));
        }
        for (place, (found, expected)) in (done..).zip(rest.iter().zip(expected)) {
            if self.layout.tag.contains(&place) {
                if let Some(byte) = self.tag.get_mut(place - self.layout.tag.start) {
                    *byte = *found;
                }
            } else if found != expected {
                return Err(malformed("the content is not followed by a tag of 16 bytes and the end"));
            }
        }
        Ok(rest.len().min(expected.len()))
    }

    /// Ends the walk: bytes of content and the tag, if the object was whole.
    pub(super) fn finish(self) -> Result<(u64, [u8; 16])> {
        match self.expect {
            Expect::Trailer(done) if done == self.layout.trailer.len() => Ok((self.total, self.tag)),
            _ => Err(malformed("the object is cut short")),
        }
    }
}

/// The smaller of a length in memory and one in the object.
fn shorter(here: usize, there: u64) -> usize {
    usize::try_from(there).map_or(here, |there| here.min(there))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content and tag of an object that is handed over in pieces of a size.
    fn walk(layout: &Layout, object: &[u8], piece: usize) -> Result<(Vec<u8>, [u8; 16])> {
        let mut walker = Walker::new(layout);
        let mut content = Vec::new();
        for piece in object.chunks(piece) {
            let mut at = 0;
            while let Some(found) = walker.next(piece, &mut at)? {
                content.extend_from_slice(&piece[found]);
            }
        }
        let (total, tag) = walker.finish()?;
        assert_eq!(total, content.len() as u64);
        Ok((content, tag))
    }

    fn layout(envelope: u64, content: u64, segmented: bool) -> Layout {
        let trailer = [&[0, 0, OCTET_STRING, 16][..], &[0; 16], &[0, 0]].concat();
        Layout { content: envelope..envelope + content, segmented, trailer, tag: 4..20 }
    }

    fn object(content: &[u8]) -> Vec<u8> {
        [&[0xee; 5][..], content, &[0, 0, 4, 16], &[7; 16], &[0, 0]].concat()
    }

    #[test]
    fn segments_are_found_however_the_object_is_cut() {
        let long = [3u8; 300];
        let content = [&[4, 2, 1, 2][..], &[4, 0], &[4, 0x82, 0x01, 0x2c], &long, &[4, 1, 9]].concat();
        let (layout, object) = (layout(5, content.len() as u64, true), object(&content));
        for piece in 1..object.len() + 1 {
            let (found, tag) = walk(&layout, &object, piece).unwrap();
            assert_eq!((found, tag), ([&[1, 2][..], &long, &[9]].concat(), [7; 16]));
        }
    }

    #[test]
    fn one_string_is_found_however_the_object_is_cut() {
        for length in [0, 1, 16, 33] {
            let content = vec![0x24; length];
            let (layout, object) = (layout(5, length as u64, false), object(&content));
            for piece in 1..object.len() + 1 {
                assert_eq!(walk(&layout, &object, piece).unwrap(), (content.clone(), [7; 16]));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |content: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
            let mut object = object(content);
            change(&mut object);
            assert!(walk(&layout(5, content.len() as u64, true), &object, 7).is_err());
        };
        let good = [4, 1, 9];
        refused(&good, &|object| object.truncate(object.len() - 1));
        refused(&good, &|object| object.push(0));
        refused(&good, &|object| object[8] = 1);
        refused(&good, &|object| object[11] = 12);
        refused(&good, &|object| *object.last_mut().unwrap() = 1);
        for bad in [
            &[4, 2, 9][..],
            &[4],
            &[4, 0x81],
            &[4, 0x80, 0, 0],
            &[0x24, 3, 4, 1, 9],
            &[5, 1, 9],
            &[0, 0],
            &[4, 1, 9, 0, 0],
            &[4, 0x81, 1, 9],
            &[4, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 9],
        ] {
            refused(bad, &|_| {});
        }
    }
}
