//! Values of Siemens' shadow header (CSA Image Header Info, (0029,xx10) of the block `SIEMENS CSA HEADER`), of which mosaics need two.
//!
//! The format is unpublished. What is known of it is what its readers share: SPM (`spm_dicom_headers`), nibabel (`nicom.csareader`
//! and its page "Siemens format DICOM with CSA header"), GDCM (`gdcmCSAHeader`), dcm2niix (`readCSAImageHeader`), csa_header. It is a
//! list of tags, each with a list of items, each a text; always little endian; without an index, so it is read from the front.
//! CSA2 begins with `SV10` and four more bytes, CSA1 with the list at once.
//!
//! Before each item stand four numbers, the second of which is its length; all readers agree on that for CSA2, and GDCM reads CSA1 so
//! as well, where it finds the first and the fourth number to be the same. SPM takes "the first number less the first tag's number of
//! items" in CSA1 and then pads by 1 to 4 bytes. Where that number of items is 1 this leaves out a value's closing zero byte and comes to
//! the same place; no other case makes sense of an empty item. So there is one rule here, and a CSA1 header whose numbers differ is
//! refused, not guessed at. (nibabel's own CSA1 branch fails on every header with an item, nibabel issue 817.)
//!
//! Every length is held against the bytes that are left before anything is done with it, and what is kept is bounded by [`MOST_ITEMS`]
//! and by the size of the header.

use crate::error::{Error, Kind, Result};

/// Most tags of a header: the bound of SPM and dcm2niix. MR images have 80 to 110.
const MOST_TAGS: u32 = 128;
/// Most items of a tag: nibabel's bound. One per slice is the most that is met.
const MOST_ITEMS: u32 = 1000;
/// What the last number of a tag's head is; anything else means that the place in the header was lost.
const CHECKS: [u32; 2] = [77, 205];
/// Padding of a value.
const PADDING: &[char] = &[' ', '\0', '\t', '\r', '\n'];

/// The values of the first tag of a name, without padding, up to the first empty one, because writers fill a tag up with empty items.
/// `None` when the header is empty, was blanked, or has no such tag; a tag without values gives an empty list.
pub(super) fn read(bytes: &[u8], wanted: &str) -> Result<Option<Vec<String>>> {
    // De-identification by overwriting leaves zeros.
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (is_first, mut rest) = match bytes.strip_prefix(b"SV10") {
        // The next four bytes are 4, 3, 2, 1 in every known file and mean nothing.
        Some(rest) => (false, Rest(rest.get(4..).unwrap_or_default())),
        None => (true, Rest(bytes)),
    };
    let [tags, _] = rest.numbers()?;
    if tags == 0 || tags > MOST_TAGS {
        return Err(malformed(format!("announces {tags} tags, of which 1 to {MOST_TAGS} are read")));
    }
    for _ in 0..tags {
        // Behind its zero byte a name is followed by whatever the writer's memory held.
        let name = until_zero(rest.take(64)?);
        let [multiplicity, _representation, _syngo, items, check] = rest.numbers()?;
        if !CHECKS.contains(&check) {
            return Err(malformed("has a tag that does not begin where the last one ends"));
        }
        if items > MOST_ITEMS {
            return Err(malformed(format!("announces {items} items of one tag, of which up to {MOST_ITEMS} are read")));
        }
        let is_wanted = name == wanted.as_bytes();
        let (mut values, mut goes_on) = (Vec::new(), is_wanted);
        for index in 0..items {
            let [whole, length, _, _] = rest.numbers()?;
            if is_first && whole != length {
                return Err(malformed("has an item of two lengths"));
            }
            let value = rest.padded(length)?;
            // A multiplicity of 0 stands for as many values as there are items.
            goes_on = goes_on && (multiplicity == 0 || index < multiplicity);
            if goes_on {
                let text = String::from_utf8_lossy(until_zero(value));
                let text = text.trim_matches(PADDING);
                goes_on = !text.is_empty();
                if goes_on {
                    values.push(text.to_owned());
                }
            }
        }
        if is_wanted {
            return Ok(Some(values));
        }
    }
    Ok(None)
}

/// What is left of the header.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| malformed("ends inside a tag"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// A value and the bytes that fill it up to a multiple of four; the last value may do without them.
    fn padded(&mut self, length: u32) -> Result<&'a [u8]> {
        let length = usize::try_from(length).map_err(|_| malformed("ends inside a tag"))?;
        let value = self.take(length)?;
        // What was taken is no longer than the header, so the next multiple of four exists.
        self.0 = self.0.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        Ok(value)
    }

    fn numbers<const N: usize>(&mut self) -> Result<[u32; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            let (word, rest) = self.0.split_first_chunk().ok_or_else(|| malformed("ends inside a tag"))?;
            *number = u32::from_le_bytes(*word);
            self.0 = rest;
        }
        Ok(numbers)
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn malformed(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::DicomMalformed, format!("the CSA header {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One tag: its name, multiplicity, and items.
    type Tag<'a> = (&'a str, u32, &'a [&'a str]);

    fn header(mark: &[u8], tags: &[Tag<'_>]) -> Vec<u8> {
        let mut bytes = mark.to_vec();
        let put = |bytes: &mut Vec<u8>, numbers: &[usize]| numbers.iter().for_each(|n| bytes.extend((*n as u32).to_le_bytes()));
        put(&mut bytes, &[tags.len(), 77]);
        for (name, multiplicity, items) in tags {
            let mut field = [0xA5; 64];
            field[..name.len()].copy_from_slice(name.as_bytes());
            field[name.len()] = 0;
            bytes.extend(field);
            put(&mut bytes, &[*multiplicity as usize]);
            bytes.extend(b"FD\0\0");
            put(&mut bytes, &[4, items.len(), 77]);
            for item in *items {
                put(&mut bytes, &[item.len(), item.len(), 205, item.len()]);
                bytes.extend(item.as_bytes());
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        bytes
    }

    const TAGS: &[Tag<'static>] = &[
        ("Nothing", 1, &[]),
        ("NumberOfImagesInMosaic", 1, &["13      \0", "", "", "", "", ""]),
        ("SliceNormalVector", 3, &["0.00000000\0", "-0.6", " 0.8 \0garbage", "7", ""]),
        ("Any", 0, &["a", "b", "", "c"]),
    ];

    #[test]
    fn both_versions_are_read() {
        for mark in [b"SV10\x04\x03\x02\x01".as_slice(), b""] {
            let bytes = header(mark, TAGS);
            let values = |wanted| read(&bytes, wanted).unwrap();
            let list = |values: &[&str]| Some(values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>());
            assert_eq!(values("Nothing"), list(&[]));
            assert_eq!(values("NumberOfImagesInMosaic"), list(&["13"]));
            assert_eq!(values("SliceNormalVector"), list(&["0.00000000", "-0.6", "0.8"]));
            assert_eq!(values("Any"), list(&["a", "b"]));
            assert_eq!(values("Absent"), None);
        }
    }

    #[test]
    fn what_was_blanked_holds_nothing() {
        assert_eq!(read(b"", "Any").unwrap(), None);
        assert_eq!(read(&[0; 500], "Any").unwrap(), None);
    }

    #[test]
    fn damage_is_an_error() {
        let whole = header(b"SV10\x04\x03\x02\x01", TAGS);
        let broken = |at: usize, bytes: &[u8]| {
            let mut broken = whole.clone();
            broken[at..at + bytes.len()].copy_from_slice(bytes);
            read(&broken, "Absent").unwrap_err()
        };
        for error in [
            broken(8, &[0; 4]),
            broken(8, &129u32.to_le_bytes()),
            broken(8, &5u32.to_le_bytes()),
            broken(16 + 76, &1001u32.to_le_bytes()),
            broken(16 + 76, &(-1i32).to_le_bytes()),
            broken(16 + 80, &78u32.to_le_bytes()),
            // The length of the second tag's first item.
            broken(16 + 84 + 84 + 4, &u32::MAX.to_le_bytes()),
            broken(16 + 84 + 84 + 4, &13u32.to_le_bytes()),
            broken(0, b"VS01"),
        ] {
            assert_eq!(error.kind(), Kind::DicomMalformed);
        }
        // All ends of the header but those in the last value's padding.
        for length in 1..whole.len() - 3 {
            assert!(read(&whole[..length], "Absent").is_err(), "{length}");
        }
        let mut first = header(b"", TAGS);
        first[8 + 84 + 84] = 1;
        assert_eq!(read(&first, "Absent").unwrap_err().detail(), "the CSA header has an item of two lengths");
    }

    #[test]
    fn no_mutation_panics() {
        // xorshift64*, so that a failure comes again.
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = |below: usize| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % below
        };
        let seeds = [header(b"SV10\x04\x03\x02\x01", TAGS), header(b"", TAGS)];
        let numbers = [0, 1, 3, 4, 77, 128, 129, 205, 1000, 1001, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFC, u32::MAX];
        let mut read_well = 0;
        for round in 0..200_000 {
            let mut bytes = seeds[round % 2].clone();
            for _ in 0..=next(4) {
                let at = next(bytes.len());
                match next(5) {
                    0 => bytes[at] ^= 1 << next(8),
                    1 => bytes[at] = next(256) as u8,
                    2 => {
                        let number = numbers[next(numbers.len())].to_le_bytes();
                        let at = at & !3;
                        let end = bytes.len().min(at + 4);
                        bytes[at..end].copy_from_slice(&number[..end - at]);
                    }
                    3 => bytes.truncate(at.max(1)),
                    _ => {
                        let tail = bytes.split_off(at);
                        bytes.extend((0..next(9)).map(|_| next(256) as u8).collect::<Vec<_>>());
                        bytes.extend(tail);
                    }
                }
            }
            for wanted in ["NumberOfImagesInMosaic", "SliceNormalVector", "Absent"] {
                match read(&bytes, wanted) {
                    Ok(values) => {
                        read_well += 1;
                        assert!(values.unwrap_or_default().iter().map(String::len).sum::<usize>() <= 3 * bytes.len());
                    }
                    Err(error) => assert_eq!(error.kind(), Kind::DicomMalformed),
                }
            }
        }
        // The mutations reach behind the first check as well as failing it.
        assert!((60_000..540_000).contains(&read_well), "{read_well}");
    }
}
