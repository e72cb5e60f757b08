//! The one reading of a DICOM data set's structure: iterative, bounded, and without an allocation that the file can size.
//!
//! A [`Walker`] steps through a data set and reports elements, sequences, items and fragments as byte ranges of the file. Its stack is
//! a `Vec` whose depth `limits.depth` caps, every length is compared with the bytes that are left in the innermost container before
//! anything is done with it, and everything that a parser would have to allocate for is counted against `limits.elements`.
//!
//! Both the check of a file ([`super::scan`]) and the building of its header ([`super::dataset`]) run on this walker, so they cannot
//! disagree about where a value ends. That is why dicom-rs' own reader is not used: it recurses per nesting level, allocates what a
//! length field says, and loses its place in the file when a numeric value has a length that is no multiple of its unit.

use std::ops::Range;

use dicom_core::dictionary::VirtualVr;
use dicom_core::{DataDictionary, Tag, VR, dictionary::DataDictionaryEntry};
use dicom_dictionary_std::{StandardDataDictionary, tags};

use super::Limits;
use crate::error::{Error, Kind, Result};

/// How elements are written (PS3.5 section 7.1.2, 7.1.3, annex A).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Encoding {
    /// Elements carry their value representation.
    pub(super) explicit: bool,
    /// Numbers are big endian (retired, still met in archives).
    pub(super) big_endian: bool,
}

impl Encoding {
    pub(super) const IMPLICIT: Encoding = Encoding { explicit: false, big_endian: false };
    pub(super) const EXPLICIT: Encoding = Encoding { explicit: true, big_endian: false };
    pub(super) const EXPLICIT_BIG: Encoding = Encoding { explicit: true, big_endian: true };

    /// A 16-bit number of the first two bytes; 0 when there are none, so callers check lengths first.
    pub(super) fn u16(self, bytes: &[u8]) -> u16 {
        match bytes.first_chunk() {
            Some(word) if self.big_endian => u16::from_be_bytes(*word),
            Some(word) => u16::from_le_bytes(*word),
            None => 0,
        }
    }

    /// A 32-bit number of the first four bytes; 0 when there are none.
    pub(super) fn u32(self, bytes: &[u8]) -> u32 {
        match bytes.first_chunk() {
            Some(word) if self.big_endian => u32::from_be_bytes(*word),
            Some(word) => u32::from_le_bytes(*word),
            None => 0,
        }
    }

    /// Group and element, each in the encoding's byte order.
    fn tag(self, bytes: &[u8]) -> Tag {
        Tag(self.u16(bytes), self.u16(bytes.get(2..).unwrap_or_default()))
    }
}

/// What the walker meets next.
pub(super) enum Event {
    /// A value of known length.
    Element { tag: Tag, vr: VR, value: Range<usize>, encoding: Encoding },
    /// A sequence begins; its items follow.
    SequenceStart { tag: Tag },
    /// An item of the innermost sequence begins.
    ItemStart,
    /// The innermost item ends.
    ItemEnd,
    /// The innermost sequence ends.
    SequenceEnd,
    /// Encapsulated pixel data, whole (PS3.5 section A.4).
    Fragments { table: Range<usize>, fragments: Vec<Range<usize>> },
}

/// What a frame of the stack stands for.
#[derive(PartialEq)]
enum Container {
    Sequence,
    Item,
}

struct Frame {
    container: Container,
    /// Where a container of defined length ends.
    end: Option<usize>,
    /// The end of the innermost container of defined length, itself included: nothing inside may cross it.
    bound: usize,
    encoding: Encoding,
}

/// Length field of an undefined length (PS3.5 section 7.1.1).
const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

/// A position in a data set and the containers around it.
pub(super) struct Walker<'a> {
    bytes: &'a [u8],
    position: usize,
    encoding: Encoding,
    /// Whether pixel data of the root may have an undefined length.
    encapsulated: bool,
    limits: &'a Limits,
    frames: Vec<Frame>,
    counted: usize,
    /// Pixel Representation as last seen; it decides between US and SS in implicit VR.
    signed: bool,
}

impl<'a> Walker<'a> {
    /// A walker at the first element of a data set that lasts until the end of the bytes.
    pub(super) fn new(bytes: &'a [u8], start: usize, encoding: Encoding, encapsulated: bool, limits: &'a Limits) -> Walker<'a> {
        Walker { bytes, position: start, encoding, encapsulated, limits, frames: Vec::new(), counted: 0, signed: false }
    }

    /// Whether the next element belongs to the root of the data set.
    pub(super) fn at_root(&self) -> bool {
        self.frames.is_empty()
    }

    /// The next event; `None` at the end of the data set.
    pub(super) fn next(&mut self) -> Result<Option<Event>> {
        match self.frames.last() {
            Some(frame) if frame.end == Some(self.position) => Ok(Some(self.leave())),
            Some(frame) if frame.container == Container::Sequence => self.item().map(Some),
            _ => self.element(),
        }
    }

    /// Ends the innermost container.
    fn leave(&mut self) -> Event {
        match self.frames.pop() {
            Some(Frame { container: Container::Sequence, .. }) => Event::SequenceEnd,
            _ => Event::ItemEnd,
        }
    }

    /// Encoding and bound of the innermost container.
    fn surroundings(&self) -> (Encoding, usize) {
        self.frames.last().map_or((self.encoding, self.bytes.len()), |frame| (frame.encoding, frame.bound))
    }

    /// The next bytes, if the innermost container holds that many.
    fn peek(&self, length: usize) -> Option<&'a [u8]> {
        let (_, bound) = self.surroundings();
        let end = self.position.checked_add(length).filter(|end| *end <= bound)?;
        self.bytes.get(self.position..end)
    }

    /// The range of a value that begins here, if the innermost container holds it.
    fn value(&self, length: u32) -> Option<Range<usize>> {
        let (_, bound) = self.surroundings();
        let end = self.position.checked_add(usize::try_from(length).ok()?)?;
        (end <= bound).then_some(self.position..end)
    }

    /// Counts what will cost a parser memory. A megabyte of empty elements becomes tens of megabytes of
    /// objects.
    fn count(&mut self, more: usize) -> Result<()> {
        self.counted = self.counted.saturating_add(more);
        if self.counted > self.limits.elements {
            return Err(Error::new(
                Kind::DicomHostile,
                format!("more than {} elements, items and values (limits.elements)", self.limits.elements),
            ));
        }
        Ok(())
    }

    /// The file, or the container, stops in the middle of a header.
    fn truncated(&self) -> Error {
        Error::new(Kind::DicomMalformed, format!("ends inside an element at offset {}", self.position))
    }

    /// In a sequence: an item header, or the delimiter of a sequence of undefined length.
    fn item(&mut self) -> Result<Event> {
        let header = self.peek(8).ok_or_else(|| self.truncated())?;
        let (encoding, bound) = self.surroundings();
        let (tag, length) = (encoding.tag(header), encoding.u32(header.get(4..).unwrap_or_default()));
        let offset = self.position;
        self.position += 8;
        match tag {
            ITEM => {
                self.count(1)?;
                let end = match length {
                    UNDEFINED => None,
                    _ => Some(self.value(length).ok_or_else(|| too_long(tag, length, offset))?.end),
                };
                self.frames.push(Frame { container: Container::Item, end, bound: end.unwrap_or(bound), encoding });
                Ok(Event::ItemStart)
            }
            // Only a sequence of undefined length has a delimiter (PS3.5 section 7.5).
            SEQUENCE_END if self.frames.last().is_some_and(|frame| frame.end.is_none()) => Ok(self.leave()),
            _ => Err(Error::new(Kind::DicomMalformed, format!("{} where an item is due, at offset {offset}", shown(tag)))),
        }
    }

    /// In an item or the root: an element header, or the delimiter of an item of undefined length.
    fn element(&mut self) -> Result<Option<Event>> {
        if self.frames.is_empty() && self.only_padding_follows() {
            return Ok(None);
        }
        let header = self.peek(8).ok_or_else(|| self.truncated())?;
        let (encoding, _) = self.surroundings();
        let (tag, offset) = (encoding.tag(header), self.position);
        // Delimiters have no VR in any encoding (PS3.5 section 7.5).
        if tag.0 == 0xFFFE {
            let closes = tag == ITEM_END && self.frames.last().is_some_and(|frame| frame.end.is_none());
            self.position += 8;
            return match closes {
                true => Ok(Some(self.leave())),
                false => Err(Error::new(Kind::DicomMalformed, format!("stray {} at offset {offset}", shown(tag)))),
            };
        }
        self.count(1)?;
        let (vr, length) =
            if encoding.explicit { self.explicit_header(header, encoding)? } else { self.implicit_header(tag, header, encoding) };
        if length == UNDEFINED {
            return self.undefined(tag, vr, offset).map(Some);
        }
        let value = self.value(length).ok_or_else(|| too_long(tag, length, offset))?;
        // A converter that did not know an element wrote it as UN, in the bytes of implicit VR little endian (PS3.5 section 6.2.2). The
        // dictionary knows it, and identifiers inside must not stay hidden from de-identification.
        let (vr, encoding) = match vr {
            VR::UN if encoding.explicit => (implicit_vr(tag, self.signed), Encoding::IMPLICIT),
            vr => (vr, encoding),
        };
        if vr == VR::SQ {
            self.enter_sequence(Some(value.end), encoding)?;
            return Ok(Some(Event::SequenceStart { tag }));
        }
        self.position = value.end;
        let content = self.bytes.get(value.clone()).unwrap_or_default();
        if is_split_text(vr) {
            // Each part becomes a string of its own in memory, many times the size of its backslash.
            self.count(content.iter().filter(|byte| **byte == b'\\').count())?;
        }
        if tag == tags::PIXEL_REPRESENTATION && content.len() >= 2 {
            self.signed = encoding.u16(content) != 0;
        }
        Ok(Some(Event::Element { tag, vr, value, encoding }))
    }

    /// Some writers fill the file's last block with zeros; no element begins with eight of them.
    fn only_padding_follows(&self) -> bool {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        rest.is_empty() || (rest.iter().take(8).all(|byte| *byte == 0) && rest.iter().all(|byte| *byte == 0))
    }

    /// PS3.5 section 7.1.2. A VR that the standard may yet add has the long form; two bytes that are no letters are damage.
    fn explicit_header(&mut self, header: &[u8], encoding: Encoding) -> Result<(VR, u32)> {
        let code = header.get(4..6).and_then(|code| <[u8; 2]>::try_from(code).ok()).unwrap_or_default();
        let vr = match VR::from_binary(code) {
            Some(vr) => vr,
            None if code.iter().all(u8::is_ascii_uppercase) => VR::UN,
            None => return Err(Error::new(Kind::DicomMalformed, format!("no value representation at offset {}", self.position))),
        };
        if has_short_length(vr) {
            let length = u32::from(encoding.u16(header.get(6..).unwrap_or_default()));
            self.position += 8;
            return Ok((vr, length));
        }
        let header = self.peek(12).ok_or_else(|| self.truncated())?;
        let length = encoding.u32(header.get(8..).unwrap_or_default());
        self.position += 12;
        Ok((vr, length))
    }

    /// PS3.5 section 7.1.3: the dictionary knows the VR.
    fn implicit_header(&mut self, tag: Tag, header: &[u8], encoding: Encoding) -> (VR, u32) {
        self.position += 8;
        (implicit_vr(tag, self.signed), encoding.u32(header.get(4..).unwrap_or_default()))
    }

    /// Undefined length is for sequences, for UN that hides one, and for encapsulated pixel data (PS3.5 section 7.1.1, A.4).
    fn undefined(&mut self, tag: Tag, vr: VR, offset: usize) -> Result<Event> {
        let (encoding, _) = self.surroundings();
        if tag == tags::PIXEL_DATA && (self.encapsulated || !self.frames.is_empty()) {
            return self.fragments();
        }
        match vr {
            VR::SQ => self.enter_sequence(None, encoding)?,
            // PS3.5 section 6.2.2: such a sequence is written in implicit VR little endian, whatever surrounds it.
            VR::UN => self.enter_sequence(None, Encoding::IMPLICIT)?,
            _ => return Err(Error::new(Kind::DicomMalformed, format!("{} has an undefined length at offset {offset}", shown(tag)))),
        }
        Ok(Event::SequenceStart { tag })
    }

    /// Opens a sequence, if there may be one more.
    fn enter_sequence(&mut self, end: Option<usize>, encoding: Encoding) -> Result<()> {
        // The stack alternates sequences and items and is never longer than twice the limit, so counting is cheap.
        let depth = self.frames.iter().filter(|frame| frame.container == Container::Sequence).count();
        if depth >= self.limits.depth {
            return Err(Error::new(Kind::DicomHostile, format!("sequences nest deeper than {} (limits.depth)", self.limits.depth)));
        }
        let (_, bound) = self.surroundings();
        self.frames.push(Frame { container: Container::Sequence, end, bound: end.unwrap_or(bound), encoding });
        Ok(())
    }

    /// PS3.5 section A.4: an offset table (which may be empty), fragments of defined length, a sequence delimiter.
    fn fragments(&mut self) -> Result<Event> {
        let mut items: Vec<Range<usize>> = Vec::new();
        loop {
            let header = self.peek(8).ok_or_else(|| self.truncated())?;
            let (mark, length) = (Encoding::EXPLICIT.tag(header), Encoding::EXPLICIT.u32(header.get(4..).unwrap_or_default()));
            let offset = self.position;
            self.position += 8;
            match mark {
                ITEM => {
                    self.count(1)?;
                    let value = self.value(length).ok_or_else(|| too_long(mark, length, offset))?;
                    self.position = value.end;
                    items.push(value);
                }
                SEQUENCE_END => break,
                _ => return Err(Error::new(Kind::DicomMalformed, format!("{} among the fragments at offset {offset}", shown(mark)))),
            }
        }
        if items.is_empty() {
            return Err(Error::new(Kind::DicomMalformed, "encapsulated pixel data without an offset table"));
        }
        let fragments = items.split_off(1);
        let table = items.pop().unwrap_or_default();
        Ok(Event::Fragments { table, fragments })
    }
}

/// A tag as people write it; it names a place in the standard, never a person.
pub(super) fn shown(tag: Tag) -> String {
    format!("({:04X},{:04X})", tag.0, tag.1)
}

fn too_long(tag: Tag, length: u32, offset: usize) -> Error {
    Error::new(Kind::DicomMalformed, format!("{} at offset {offset} claims {length} bytes, more than there are", shown(tag)))
}

/// VRs with a 16-bit length field (PS3.5 table 7.1-2).
fn has_short_length(vr: VR) -> bool {
    use VR::*;
    matches!(vr, AE | AS | AT | CS | DA | DS | DT | FL | FD | IS | LO | LT | PN | SH | SL | SS | ST | TM | UI | UL | US)
}

/// VRs whose value is split at backslashes (PS3.5 section 6.4).
pub(super) fn is_split_text(vr: VR) -> bool {
    use VR::*;
    matches!(vr, AE | AS | CS | DA | DS | DT | IS | LO | PN | SH | TM | UC | UI)
}

/// The VR that the dictionary gives a tag; the ambiguous ones follow PS3.5 section A.1.
fn implicit_vr(tag: Tag, signed: bool) -> VR {
    // Repeating overlay and curve groups are not listed one by one.
    if tag == tags::PIXEL_DATA || (tag.0 >> 8 == 0x60 && tag.1 == 0x3000) {
        return VR::OW;
    }
    match StandardDataDictionary.by_tag(tag).map(|entry| entry.vr()) {
        Some(VirtualVr::Exact(vr)) => vr,
        Some(VirtualVr::Xs) if signed => VR::SS,
        Some(VirtualVr::Xs) => VR::US,
        Some(VirtualVr::Ox | VirtualVr::Px | VirtualVr::Lt) => VR::OW,
        _ => VR::UN,
    }
}
