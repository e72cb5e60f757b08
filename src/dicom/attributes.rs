//! Values of a header, read with the tolerance that real files need and no more.

use dicom_core::value::{PrimitiveValue, Value};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;

use super::walk::shown;
use crate::error::{Error, Kind, Result};

/// Padding of text values (PS3.5 section 6.2).
const PADDING: &[char] = &[' ', '\0', '\t', '\r', '\n'];

/// A text without its padding; `None` when absent or empty.
pub(super) fn text(dataset: &InMemDicomObject, tag: Tag) -> Option<String> {
    let value = dataset.get(tag)?.to_str().ok()?;
    let value = value.trim_matches(PADDING);
    (!value.is_empty()).then(|| value.to_owned())
}

/// Whether one of a text's values is the wanted one.
pub(super) fn has_value(dataset: &InMemDicomObject, tag: Tag, wanted: &str) -> bool {
    let values = dataset.get(tag).and_then(|element| element.to_multi_str().ok());
    values.is_some_and(|values| values.iter().any(|value| value.trim_matches(PADDING) == wanted))
}

/// Numbers of a value, binary or text; `None` when absent or empty, an error when they are no finite numbers.
pub(super) fn numbers(dataset: &InMemDicomObject, tag: Tag) -> Result<Option<Vec<f64>>> {
    let wrong = || Error::new(Kind::DicomMalformed, format!("{} does not hold numbers", shown(tag)));
    let Some(element) = dataset.get(tag) else { return Ok(None) };
    // Decimal and integer strings are parsed here, because writers pad them with zeros and tabs as well as spaces.
    let Value::Primitive(value) = element.value() else { return Err(wrong()) };
    let numbers: Vec<f64> = match value {
        PrimitiveValue::Empty => return Ok(None),
        PrimitiveValue::Strs(parts) if parts.iter().all(|part| part.trim_matches(PADDING).is_empty()) => return Ok(None),
        PrimitiveValue::Strs(parts) => {
            parts.iter().map(|part| part.trim_matches(PADDING).parse()).collect::<Result<_, _>>().map_err(|_| wrong())?
        }
        value => value.to_multi_float64().map_err(|_| wrong())?,
    };
    if numbers.iter().all(|number| number.is_finite()) { Ok(Some(numbers)) } else { Err(wrong()) }
}

/// The first number of a value.
pub(super) fn number(dataset: &InMemDicomObject, tag: Tag) -> Result<Option<f64>> {
    Ok(numbers(dataset, tag)?.and_then(|numbers| numbers.first().copied()))
}

/// Exactly `N` numbers; another count is an error.
pub(super) fn array<const N: usize>(dataset: &InMemDicomObject, tag: Tag) -> Result<Option<[f64; N]>> {
    let Some(numbers) = numbers(dataset, tag)? else { return Ok(None) };
    match <[f64; N]>::try_from(numbers.as_slice()) {
        Ok(array) => Ok(Some(array)),
        Err(_) => Err(Error::new(Kind::DicomMalformed, format!("{} has {} values instead of {N}", shown(tag), numbers.len()))),
    }
}

/// An item of a sequence.
pub(super) fn item(dataset: &InMemDicomObject, tag: Tag, index: usize) -> Option<&InMemDicomObject> {
    dataset.get(tag)?.items()?.get(index)
}

/// A functional group of a frame: its own, or the one that all frames share (PS3.3 section C.7.6.16).
pub(super) fn functional_group(dataset: &InMemDicomObject, frame: usize, group: Tag) -> Option<&InMemDicomObject> {
    let own = item(dataset, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frame).and_then(|groups| item(groups, group, 0));
    own.or_else(|| item(dataset, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 0).and_then(|groups| item(groups, group, 0)))
}

/// 16-bit words of a look-up table, however its VR packs them.
pub(super) fn words(dataset: &InMemDicomObject, tag: Tag) -> Option<Vec<u16>> {
    let element = dataset.get(tag)?;
    match element.value().primitive()? {
        PrimitiveValue::U16(words) => Some(words.to_vec()),
        PrimitiveValue::I16(words) => Some(words.iter().map(|word| word.cast_unsigned()).collect()),
        PrimitiveValue::U8(bytes) if element.vr() != VR::UN || bytes.len().is_multiple_of(2) => {
            Some(bytes.as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word)).collect())
        }
        _ => None,
    }
}

/// An element of a private block, found by the block's creator (PS3.5 section 7.8.1).
pub(super) fn private<'a>(dataset: &'a InMemDicomObject, group: u16, creator: &str, element: u16) -> Option<&'a InMemElement> {
    let block = (0x10..=0xFF_u16).find(|block| text(dataset, Tag(group, *block)).is_some_and(|found| found == creator))?;
    dataset.get(Tag(group, (block << 8) | element))
}

/// Numbers of a private element. In files of implicit VR its bytes come without a type: then they are a text of numbers, or doubles, or one float.
pub(super) fn private_numbers(dataset: &InMemDicomObject, group: u16, creator: &str, element: u16) -> Option<Vec<f64>> {
    let element = private(dataset, group, creator, element)?;
    let Value::Primitive(value) = element.value() else { return None };
    let parse = |text: &str| text.split('\\').map(|part| part.trim_matches(PADDING).parse().ok()).collect::<Option<Vec<f64>>>();
    let numbers = match value {
        PrimitiveValue::U8(bytes) if matches!(element.vr(), VR::UN | VR::OB) => match std::str::from_utf8(bytes).ok().and_then(parse) {
            Some(numbers) => numbers,
            None if bytes.len() % 8 == 0 => bytes.as_chunks::<8>().0.iter().map(|word| f64::from_le_bytes(*word)).collect(),
            None if bytes.len() == 4 => bytes.as_chunks::<4>().0.iter().map(|word| f64::from(f32::from_le_bytes(*word))).collect(),
            None => return None,
        },
        PrimitiveValue::Strs(_) | PrimitiveValue::Str(_) => parse(&value.to_str())?,
        value => value.to_multi_float64().ok()?,
    };
    numbers.iter().all(|number| number.is_finite()).then_some(numbers)
}
