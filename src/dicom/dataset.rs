//! A scanned file's header as a dicom-rs object, without its pixels.
//!
//! The walker gives the structure; here values become numbers and strings. Sequences are built with a stack of our own, values take
//! memory in proportion to their bytes, and pixel data are passed over without a copy.

use dicom_core::value::{C, DataSetSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Length, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};
use dicom_object::mem::InMemElement;
use dicom_object::{FileMetaTable, FileMetaTableBuilder, InMemDicomObject};

use super::Limits;
use super::scan::{Pixels, Scanned, text};
use super::walk::{Encoding, Event, Walker, is_split_text};
use crate::error::{Error, Kind, Result};

/// An item, or the root, while its elements arrive.
struct Open {
    elements: Vec<InMemElement>,
    charset: SpecificCharacterSet,
}

/// A sequence while its items arrive.
struct OpenSequence {
    tag: Tag,
    items: C<InMemDicomObject>,
}

/// Builds the header of a scanned file.
pub(super) fn header(file: &Scanned, limits: &Limits) -> Result<InMemDicomObject> {
    // The same question as the scan's, by its answer: encapsulated pixel data were found only where the syntax has them.
    let encapsulated = matches!(file.pixels, Pixels::Encapsulated { .. });
    let mut walker = Walker::new(&file.bytes, file.start, file.encoding, encapsulated, limits);
    let mut open = vec![Open { elements: Vec::new(), charset: SpecificCharacterSet::default() }];
    let mut sequences: Vec<OpenSequence> = Vec::new();
    while let Some(event) = walker.next()? {
        match event {
            Event::Element { tag, vr, value, encoding } => {
                let Some(innermost) = open.last_mut() else { break };
                let content = file.bytes.get(value).unwrap_or_default();
                // It is the first text of a data set by its tag, so it governs all that follow it (PS3.3 section C.12.1.1.2).
                if tag == tags::SPECIFIC_CHARACTER_SET {
                    innermost.charset = charset(content);
                }
                if is_kept(tag) {
                    let value = primitive(vr, content, encoding, &innermost.charset);
                    innermost.elements.push(DataElement::new(tag, vr, value));
                }
            }
            Event::SequenceStart { tag } => sequences.push(OpenSequence { tag, items: C::new() }),
            Event::ItemStart => {
                // An item inherits the character set unless it names its own (PS3.3 section C.12.1.1.2).
                let charset = open.last().map(|outer| outer.charset.clone()).unwrap_or_default();
                open.push(Open { elements: Vec::new(), charset });
            }
            Event::ItemEnd => {
                if let (Some(item), Some(sequence)) = (open.pop(), sequences.last_mut()) {
                    sequence.items.push(InMemDicomObject::from_element_iter(item.elements));
                }
            }
            Event::SequenceEnd => {
                if let (Some(sequence), Some(innermost)) = (sequences.pop(), open.last_mut()) {
                    // Lengths are left undefined: they were the file's, and the header has lost its pixels.
                    let items = Value::Sequence(DataSetSequence::new(sequence.items, Length::UNDEFINED));
                    innermost.elements.push(DataElement::new(sequence.tag, VR::SQ, items));
                }
            }
            // Pixels, the data set's own or an icon's, are not part of a header.
            Event::Fragments { .. } => {}
        }
    }
    Ok(InMemDicomObject::from_element_iter(open.pop().map(|root| root.elements).unwrap_or_default()))
}

/// The file meta information as dicom-rs holds it. What a file without it lacks is taken from the data set.
pub(super) fn file_meta(file: &Scanned, dataset: &InMemDicomObject) -> Result<FileMetaTable> {
    let from_dataset =
        |tag: Tag| dataset.get(tag).and_then(|element| element.to_str().ok()).map(|value| value.into_owned()).unwrap_or_default();
    let or_else = |own: Tag, other: Tag| match text(&file.meta, own) {
        "" => from_dataset(other),
        value => value.to_owned(),
    };
    // The syntax is that of the file as it came, also where the data set has been inflated.
    let syntax = file.syntax.map_or_else(|| text(&file.meta, tags::TRANSFER_SYNTAX_UID).to_owned(), |syntax| syntax.uid().to_owned());
    let mut table = FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(or_else(tags::MEDIA_STORAGE_SOP_CLASS_UID, tags::SOP_CLASS_UID))
        .media_storage_sop_instance_uid(or_else(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, tags::SOP_INSTANCE_UID))
        .transfer_syntax(syntax);
    for (tag, value) in &file.meta {
        table = match *tag {
            tags::IMPLEMENTATION_CLASS_UID => table.implementation_class_uid(value),
            tags::IMPLEMENTATION_VERSION_NAME => table.implementation_version_name(value),
            tags::SOURCE_APPLICATION_ENTITY_TITLE => table.source_application_entity_title(value),
            _ => table,
        };
    }
    table.build().map_err(|_| Error::new(Kind::DicomMalformed, "the file meta information is incomplete"))
}

/// What is left out: pixels and their tables (group 7FE0), padding, and group lengths, which would no longer be true.
fn is_kept(tag: Tag) -> bool {
    tag.0 != 0x7FE0 && tag.1 != 0x0000 && tag != tags::DATA_SET_TRAILING_PADDING
}

/// The character set of a value of (0008,0005). Of several, the last known one: it is a superset of ASCII in every combination that
/// the standard allows, and the first is often empty. An unknown one is read as Latin-1, in which no byte is lost.
fn charset(content: &[u8]) -> SpecificCharacterSet {
    let terms = content.split(|byte| *byte == b'\\').filter_map(|term| std::str::from_utf8(term).ok());
    terms.filter_map(|term| SpecificCharacterSet::from_code(term.trim())).next_back().unwrap_or_default()
}

/// A value as dicom-rs holds it. A number cut short by its length keeps its bytes as they are.
fn primitive(vr: VR, content: &[u8], encoding: Encoding, charset: &SpecificCharacterSet) -> PrimitiveValue {
    use PrimitiveValue as P;
    if content.is_empty() {
        return P::Empty;
    }
    let decode = |bytes: &[u8]| charset.decode(bytes).unwrap_or_else(|_| bytes.iter().map(|byte| char::from(*byte)).collect());
    if is_split_text(vr) {
        return P::Strs(content.split(|byte| *byte == b'\\').map(decode).collect());
    }
    let big = encoding.big_endian;
    // The guards keep values whose length is no multiple of the unit out of the arms; they fall to the last one.
    match vr {
        // One text each, in which a backslash is a character (PS3.5 table 6.2-1).
        VR::LT | VR::ST | VR::UT | VR::UR => P::Str(decode(content)),
        VR::AT if content.len().is_multiple_of(4) => {
            P::Tags(content.chunks_exact(4).map(|tag| Tag(encoding.u16(tag), encoding.u16(tag.get(2..).unwrap_or_default()))).collect())
        }
        VR::US | VR::OW if content.len().is_multiple_of(2) => P::U16(numbers(content, big, u16::from_le_bytes)),
        VR::SS if content.len().is_multiple_of(2) => P::I16(numbers(content, big, i16::from_le_bytes)),
        VR::UL | VR::OL if content.len().is_multiple_of(4) => P::U32(numbers(content, big, u32::from_le_bytes)),
        VR::SL if content.len().is_multiple_of(4) => P::I32(numbers(content, big, i32::from_le_bytes)),
        VR::FL | VR::OF if content.len().is_multiple_of(4) => P::F32(numbers(content, big, f32::from_le_bytes)),
        VR::FD | VR::OD if content.len().is_multiple_of(8) => P::F64(numbers(content, big, f64::from_le_bytes)),
        VR::UV | VR::OV if content.len().is_multiple_of(8) => P::U64(numbers(content, big, u64::from_le_bytes)),
        VR::SV if content.len().is_multiple_of(8) => P::I64(numbers(content, big, i64::from_le_bytes)),
        _ => P::U8(C::from_slice(content)),
    }
}

/// Numbers of `N` bytes each.
fn numbers<T, const N: usize>(content: &[u8], big_endian: bool, from: impl Fn([u8; N]) -> T) -> C<T> {
    let (words, _) = content.as_chunks::<N>();
    words
        .iter()
        .map(|word| {
            let mut word = *word;
            if big_endian {
                word.reverse();
            }
            from(word)
        })
        .collect()
}
