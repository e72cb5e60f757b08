//! Private elements: known by their creator, kept only from the list of the standard, and looked into when they are sequences.
//!
//! A private tag means nothing without the element that reserves its block (PS3.5 7.8.1), so the creator of the same item decides
//! which row of Table E.3.10-1 applies. Kept elements take their creator along; a creator that no longer reserves anything goes.
//! Private sequences often arrive as UN, that is as bytes (PS3.5 6.2.2); they are parsed here, within limits, so that the elements
//! inside can be judged one by one. Bytes that do not parse are not kept.

use dicom_core::header::Length;
use dicom_core::value::{DataSetSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Tag, VR};
use dicom_object::InMemDicomObject;

use super::rules::{Action, Decision, Reason, Rules};
use super::table::Choice;
use super::value::{self, ElementValue};

/// Nesting inside one UN value. Vendors use two or three levels; more is an attack on the stack.
const MAX_DEPTH: usize = 16;

/// Whether a tag reserves a block of private elements (PS3.5 7.8.1).
pub(crate) fn is_creator(tag: Tag) -> bool {
    tag.group() % 2 == 1 && (0x0010..=0x00FF).contains(&tag.element())
}

/// The element that reserves the block of a private element; `None` for elements outside any block.
pub(crate) fn creator_of(tag: Tag) -> Option<Tag> {
    (tag.element() >= 0x1000).then_some(Tag(tag.group(), tag.element() >> 8))
}

/// The decision for a private element and the VR that it ought to have.
pub(crate) fn decide(rules: &Rules, tag: Tag, found: VR, creator: Option<&str>) -> (Decision, VR) {
    let listed = creator.and_then(|creator| rules.tables.safe_private(tag, creator));
    match listed {
        Some(vr) if rules.choices.has(Choice::SafePrivate) => {
            let vr = vr.unwrap_or(found);
            // PS3.15 E.3.10: safe UIDs are remapped like all others, safe sequences are cleaned inside.
            let remap = vr == VR::UI && !rules.choices.has(Choice::Uids);
            let action = if remap { Action::Remap } else { Action::Keep };
            (Decision { action, otherwise: Action::Remove, reason: Reason::SafePrivate }, vr)
        }
        _ => (Decision::remove(Reason::Private), found),
    }
}

/// The items of a sequence in implicit VR, little endian.
pub(crate) fn parse_items(bytes: &[u8]) -> Option<ElementValue> {
    let mut reader = Reader { rest: bytes };
    let items = reader.items(None, MAX_DEPTH)?;
    reader.rest.is_empty().then(|| Value::Sequence(DataSetSequence::new(items, Length::UNDEFINED)))
}

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
const UNDEFINED: u32 = 0xFFFF_FFFF;

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: u32) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(head)
    }

    fn header(&mut self) -> Option<(Tag, u32)> {
        let (head, rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        let [g0, g1, e0, e1, l0, l1, l2, l3] = *head;
        Some((Tag(u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1])), u32::from_le_bytes([l0, l1, l2, l3])))
    }

    /// Items up to the end of the bytes, or up to `end`.
    fn items(&mut self, end: Option<Tag>, depth: usize) -> Option<Vec<InMemDicomObject>> {
        let depth = depth.checked_sub(1)?;
        let mut items = Vec::new();
        while !self.rest.is_empty() {
            match self.header()? {
                (ITEM, UNDEFINED) => items.push(self.elements(Some(ITEM_END), depth)?),
                (ITEM, length) => items.push(Reader { rest: self.take(length)? }.elements(None, depth)?),
                (tag, 0) if Some(tag) == end => return Some(items),
                _ => return None,
            }
        }
        end.is_none().then_some(items)
    }

    fn elements(&mut self, end: Option<Tag>, depth: usize) -> Option<InMemDicomObject> {
        let mut item = InMemDicomObject::new_empty();
        while !self.rest.is_empty() {
            let (tag, length) = self.header()?;
            if Some(tag) == end {
                return (length == 0).then_some(item);
            }
            if tag.group() == 0xFFFE {
                return None;
            }
            let value = if length == UNDEFINED {
                // Only a sequence has no length here (PS3.5 7.5, A.1).
                Value::Sequence(DataSetSequence::new(self.items(Some(SEQUENCE_END), depth)?, Length::UNDEFINED))
            } else {
                Value::Primitive(PrimitiveValue::U8(self.take(length)?.iter().copied().collect()))
            };
            // Which VR the bytes ought to have is for the rules to say; here they are unknown.
            let vr = if matches!(value, Value::Sequence(_)) { VR::SQ } else { VR::UN };
            let value = if value::is_empty(&value) && vr == VR::UN { Value::Primitive(PrimitiveValue::Empty) } else { value };
            item.put(DataElement::new(tag, vr, value));
        }
        end.is_none().then_some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(tag: (u16, u16), value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(tag.0.to_le_bytes());
        bytes.extend(tag.1.to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
        bytes.extend(value);
        bytes
    }

    #[test]
    fn a_sequence_in_bytes_is_read() {
        let inner = element((0xFFFE, 0xE000), &element((0x0010, 0x0010), b"DOE^JOHN"));
        let mut outer = element((0x2001, 0x1010), b"1 ");
        outer.extend([0x01, 0x20, 0x5F, 0x10, 0xFF, 0xFF, 0xFF, 0xFF]); // (2001,105F), undefined length
        outer.extend(inner);
        outer.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
        let value = parse_items(&element((0xFFFE, 0xE000), &outer)).unwrap();
        let item = &value.items().unwrap()[0];
        assert_eq!(item.get(Tag(0x2001, 0x1010)).unwrap().to_bytes().unwrap().as_ref(), b"1 ");
        let nested = item.get(Tag(0x2001, 0x105F)).unwrap().items().unwrap();
        assert_eq!(nested[0].get(Tag(0x0010, 0x0010)).unwrap().to_bytes().unwrap().as_ref(), b"DOE^JOHN");
    }

    #[test]
    fn what_does_not_parse_is_nothing() {
        let good = element((0xFFFE, 0xE000), &element((0x0010, 0x0010), b"DOE^JOHN"));
        assert!(parse_items(&good).is_some());
        for length in 1..good.len() {
            assert!(parse_items(&good[..length]).is_none(), "cut at {length}");
        }
        assert!(parse_items(b"free text that is no sequence").is_none());
    }

    #[test]
    fn nesting_has_a_limit() {
        let mut bytes = Vec::new();
        for _ in 0..100_000 {
            bytes.extend([0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF]);
            bytes.extend([0x01, 0x20, 0x5F, 0x10, 0xFF, 0xFF, 0xFF, 0xFF]);
        }
        assert!(parse_items(&bytes).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_items(&bytes);
        }
    }

    #[test]
    fn blocks_belong_to_creators() {
        assert!(is_creator(Tag(0x0029, 0x0010)) && !is_creator(Tag(0x0029, 0x1010)) && !is_creator(Tag(0x0028, 0x0010)));
        assert_eq!(creator_of(Tag(0x0029, 0x1034)), Some(Tag(0x0029, 0x0010)));
        assert_eq!(creator_of(Tag(0x0029, 0x0034)), None);
    }
}
