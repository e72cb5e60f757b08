//! Values as they come out of a file, held against the VR that they ought to have.
//!
//! A rule that says "a decimal string cannot name a person" is worth something only if what is kept under that rule really is a
//! decimal string. Files carry values under other VRs than the dictionary's (by mistake, or as UN), so every value is first brought
//! into the form of its proper VR, and what cannot be brought there is not kept.

use dicom_core::value::{C, PrimitiveValue, Value};
use dicom_core::{Tag, VR};
use dicom_object::InMemDicomObject;

use super::{dates, private, uids};

/// A value of an element in memory.
pub(crate) type ElementValue = Value<InMemDicomObject, Vec<u8>>;

/// The texts of a value, one per value of the multiplicity, without padding. Bytes are read as UTF-8, or else as Latin-1.
pub(crate) fn texts(value: &PrimitiveValue) -> Vec<String> {
    let trim = |text: &str| text.trim_end_matches([' ', '\0']).to_owned();
    match value {
        PrimitiveValue::Empty => Vec::new(),
        PrimitiveValue::Str(text) => vec![trim(text)],
        PrimitiveValue::Strs(texts) => texts.iter().map(|text| trim(text)).collect(),
        PrimitiveValue::U8(bytes) => {
            let text = match std::str::from_utf8(bytes) {
                Ok(text) => text.to_owned(),
                Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
            };
            text.split('\\').map(trim).collect()
        }
        PrimitiveValue::Date(dates) => dates.iter().map(|date| date.to_encoded()).collect(),
        PrimitiveValue::DateTime(times) => times.iter().map(|time| time.to_encoded()).collect(),
        PrimitiveValue::Time(times) => times.iter().map(|time| time.to_encoded()).collect(),
        other => other.to_multi_str().iter().map(|text| trim(text)).collect(),
    }
}

/// A text value for a VR: one string for the VRs that have no multiplicity (PS3.5 6.2), a list for the others.
pub(crate) fn text_value(vr: VR, texts: Vec<String>) -> ElementValue {
    Value::Primitive(match vr {
        _ if texts.iter().all(String::is_empty) => PrimitiveValue::Empty,
        VR::LT | VR::ST | VR::UT | VR::UR => PrimitiveValue::Str(texts.join("\\")),
        _ => PrimitiveValue::Strs(texts.into_iter().collect()),
    })
}

/// Whether a VR holds characters.
pub(crate) fn is_text(vr: VR) -> bool {
    use VR::*;
    matches!(vr, AE | AS | CS | DA | DS | DT | IS | LO | LT | PN | SH | ST | TM | UC | UI | UR | UT)
}

/// Whether a value has length zero.
pub(crate) fn is_empty(value: &ElementValue) -> bool {
    match value {
        Value::Primitive(PrimitiveValue::Empty) => true,
        Value::Primitive(PrimitiveValue::Str(text)) => text.trim_end_matches([' ', '\0']).is_empty(),
        Value::Primitive(PrimitiveValue::Strs(texts)) => texts.iter().all(|text| text.trim_end_matches([' ', '\0']).is_empty()),
        Value::Primitive(value) => value.multiplicity() == 0,
        Value::Sequence(sequence) => sequence.items().is_empty(),
        Value::PixelSequence(_) => false,
    }
}

/// The value under the VR that its element ought to have, or `None` when it cannot be read that way.
pub(crate) fn conform(ought: VR, found: VR, value: ElementValue) -> Option<(VR, ElementValue)> {
    let primitive = match value {
        Value::Sequence(_) => return matches!(ought, VR::SQ | VR::UN).then_some((VR::SQ, value)),
        Value::PixelSequence(_) => return matches!(ought, VR::OB | VR::OW | VR::UN).then_some((found, value)),
        Value::Primitive(primitive) => primitive,
    };
    if matches!(primitive, PrimitiveValue::Empty) {
        return Some((ought, Value::Primitive(PrimitiveValue::Empty)));
    }
    match ought {
        VR::SQ => match primitive {
            // UN of defined length is a sequence in implicit VR, little endian (PS3.5 6.2.2, note 2).
            PrimitiveValue::U8(bytes) if found == VR::UN => Some((VR::SQ, private::parse_items(&bytes)?)),
            _ => None,
        },
        _ if is_text(ought) => match primitive {
            PrimitiveValue::U8(_) if found != VR::UN => None,
            PrimitiveValue::F64(_) | PrimitiveValue::F32(_) | PrimitiveValue::I32(_) if matches!(ought, VR::DS | VR::IS) => {
                Some((ought, Value::Primitive(primitive)))
            }
            other => Some((ought, text_value(ought, texts(&other)))),
        },
        VR::OB | VR::OW | VR::OD | VR::OF | VR::OL | VR::OV | VR::UN => (!is_text(found)).then_some((found, Value::Primitive(primitive))),
        _ => match primitive {
            PrimitiveValue::U8(bytes) if found == VR::UN => Some((ought, Value::Primitive(little_endian(ought, &bytes)?))),
            PrimitiveValue::U8(_) | PrimitiveValue::Str(_) | PrimitiveValue::Strs(_) => None,
            other => (!is_text(found) && found != VR::UN).then_some((found, Value::Primitive(other))),
        },
    }
}

/// Whether texts are what their VR promises. Only VRs with a grammar are checked; for the others control characters are refused.
pub(crate) fn is_valid(vr: VR, texts: &[String]) -> bool {
    texts.iter().filter(|text| !text.is_empty()).all(|text| {
        let trimmed = text.trim();
        match vr {
            VR::DA | VR::DT | VR::TM | VR::AS => dates::is_valid(vr, text) == Some(true),
            // PS3.5 allows 16 characters; equipment in the field writes up to twice that, and lower case.
            VR::CS => text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" _.+/-".contains(&byte)),
            VR::DS => text.len() <= 32 && trimmed.parse::<f64>().is_ok_and(f64::is_finite),
            VR::IS => text.len() <= 16 && trimmed.parse::<i64>().is_ok(),
            VR::UI => uids::is_uid(trimmed),
            VR::LT | VR::ST | VR::UT => text.chars().all(|letter| !letter.is_control() || "\r\n\t\u{c}".contains(letter)),
            _ => text.chars().all(|letter| !letter.is_control()),
        }
    })
}

/// A dummy value for a VR. None of them is a word or number that stands for a person.
pub(crate) fn dummy(vr: VR) -> PrimitiveValue {
    let text = |text: &str| PrimitiveValue::Str(text.to_owned());
    match vr {
        VR::DA => text(DUMMY_DATE),
        VR::TM => text("000000"),
        VR::DT => text(DUMMY_DATE_TIME),
        VR::AS => text("000Y"),
        VR::DS | VR::IS => text("0"),
        VR::UR => text("about:blank"),
        VR::US => PrimitiveValue::U16(C::from_elem(0, 1)),
        VR::SS => PrimitiveValue::I16(C::from_elem(0, 1)),
        VR::UL => PrimitiveValue::U32(C::from_elem(0, 1)),
        VR::SL => PrimitiveValue::I32(C::from_elem(0, 1)),
        VR::UV => PrimitiveValue::U64(C::from_elem(0, 1)),
        VR::SV => PrimitiveValue::I64(C::from_elem(0, 1)),
        VR::FL | VR::OF => PrimitiveValue::F32(C::from_elem(0.0, 1)),
        VR::FD | VR::OD => PrimitiveValue::F64(C::from_elem(0.0, 1)),
        VR::AT => PrimitiveValue::Tags(C::from_elem(Tag(0, 0), 1)),
        VR::OB | VR::UN => PrimitiveValue::U8(C::from_elem(0, 2)),
        VR::OW => PrimitiveValue::U16(C::from_elem(0, 1)),
        VR::OL => PrimitiveValue::U32(C::from_elem(0, 1)),
        VR::OV => PrimitiveValue::U64(C::from_elem(0, 1)),
        VR::SQ => PrimitiveValue::Empty,
        _ => text(DUMMY_TEXT),
    }
}

/// Dummy of every VR that holds words.
pub(crate) const DUMMY_TEXT: &str = "ANONYMIZED";
/// Dummy of DA.
pub(crate) const DUMMY_DATE: &str = "19000101";
/// Dummy of DT.
pub(crate) const DUMMY_DATE_TIME: &str = "19000101000000";

/// Numbers of a VR from bytes in little endian; `None` when the bytes are no whole number of them.
pub(crate) fn little_endian(vr: VR, bytes: &[u8]) -> Option<PrimitiveValue> {
    macro_rules! numbers {
        ($variant:ident, $number:ty) => {{
            const SIZE: usize = size_of::<$number>();
            let (chunks, rest) = bytes.as_chunks::<SIZE>();
            rest.is_empty().then(|| PrimitiveValue::$variant(chunks.iter().map(|chunk| <$number>::from_le_bytes(*chunk)).collect()))
        }};
    }
    match vr {
        VR::US => numbers!(U16, u16),
        VR::SS => numbers!(I16, i16),
        VR::UL => numbers!(U32, u32),
        VR::SL => numbers!(I32, i32),
        VR::UV => numbers!(U64, u64),
        VR::SV => numbers!(I64, i64),
        VR::FL => numbers!(F32, f32),
        VR::FD => numbers!(F64, f64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::dicom_value;

    #[test]
    fn text_under_a_numeric_vr_is_not_kept_as_a_number() {
        let name = || Value::Primitive(PrimitiveValue::from("DOE^JOHN"));
        assert!(conform(VR::US, VR::LO, name()).is_none());
        assert!(conform(VR::FD, VR::UT, name()).is_none());
        assert!(conform(VR::SQ, VR::LO, name()).is_none());
        // DS is text itself: the value gets there and fails the grammar.
        let (vr, value) = conform(VR::DS, VR::LO, name()).unwrap();
        assert!(!is_valid(vr, &texts(value.primitive().unwrap())));
    }

    #[test]
    fn unknown_vrs_become_the_proper_ones() {
        let bytes = |bytes: &[u8]| Value::Primitive(PrimitiveValue::U8(bytes.iter().copied().collect()));
        assert_eq!(conform(VR::US, VR::UN, bytes(&[1, 2, 3, 4])), Some((VR::US, Value::Primitive(dicom_value!(U16, [0x0201, 0x0403])))));
        assert_eq!(conform(VR::US, VR::UN, bytes(&[1, 2, 3])), None);
        assert_eq!(conform(VR::DS, VR::UN, bytes(b"1.5\\2 ")), Some((VR::DS, Value::Primitive(dicom_value!(Strs, ["1.5", "2"])))));
        assert_eq!(conform(VR::DS, VR::OB, bytes(b"1.5 ")), None);
    }

    #[test]
    fn a_grammar_is_a_promise() {
        for (vr, text, valid) in [
            (VR::CS, "ORIGINAL", true),
            (VR::CS, "M_FFE", true),
            (VR::CS, "DOE^JOHN", false),
            (VR::DS, " -1.5e-3", true),
            (VR::DS, "1.5 mm", false),
            (VR::DS, "nan", false),
            (VR::IS, "12", true),
            (VR::IS, "12.5", false),
            (VR::UI, "1.2.840.10008.1", true),
            (VR::UI, "DOE", false),
            (VR::LO, "Philips \u{1}", false),
        ] {
            assert_eq!(is_valid(vr, &[text.to_owned()]), valid, "{text}");
        }
    }

    #[test]
    fn a_dummy_is_valid_for_its_vr() {
        use VR::*;
        for vr in [AE, AS, CS, DA, DS, DT, IS, LO, LT, PN, SH, ST, TM, UC, UR, UT] {
            let dummy = dummy(vr);
            assert!(is_valid(vr, &texts(&dummy)) && dummy.calculate_byte_len() > 0, "{vr:?}");
        }
        for vr in [US, SS, UL, SL, UV, SV, FL, FD, OB, OW, OF, OD, OL, OV, UN, AT] {
            assert!(dummy(vr).calculate_byte_len() > 0, "{vr:?}");
        }
    }
}
