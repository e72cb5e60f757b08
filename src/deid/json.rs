//! The DICOM JSON Model (PS3.18 Annex F) of a data set.

use base64::Engine;
use dicom_core::header::Header;
use dicom_core::value::{PrimitiveValue, Value};
use dicom_core::{Tag, VR};
use dicom_object::InMemDicomObject;
use serde_json::{Map, Number, Value as Json, json};

use super::value::{self, texts};

/// The object of F.2.2. Pixel data is left out: it is not metadata.
pub(crate) fn dataset(dataset: &InMemDicomObject) -> Json {
    let elements = dataset.iter().filter(|element| element.tag().group() != 0x7FE0);
    Json::Object(elements.map(|element| (key(element.tag()), attribute(element.vr(), element.value()))).collect())
}

fn key(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

fn attribute(vr: VR, value: &value::ElementValue) -> Json {
    let mut object = Map::new();
    object.insert("vr".to_owned(), json!(vr.to_string()));
    match value {
        // F.2.5: an empty value is left out.
        _ if value::is_empty(value) => {}
        Value::Sequence(sequence) => {
            object.insert("Value".to_owned(), sequence.items().iter().map(dataset).collect());
        }
        Value::Primitive(primitive) if matches!(vr, VR::OB | VR::OW | VR::OD | VR::OF | VR::OL | VR::OV | VR::UN) => {
            // F.2.7: bytes of the little endian form.
            object.insert("InlineBinary".to_owned(), json!(base64::engine::general_purpose::STANDARD.encode(little_endian(primitive))));
        }
        Value::Primitive(primitive) => {
            object.insert("Value".to_owned(), Json::Array(values(vr, primitive)));
        }
        Value::PixelSequence(_) => {}
    }
    Json::Object(object)
}

/// Table F.2.3-1: numbers where the VR is numeric, name components for PN, text otherwise.
fn values(vr: VR, primitive: &PrimitiveValue) -> Vec<Json> {
    let real = |number: f64| Number::from_f64(number).map_or_else(|| json!(number.to_string()), Json::Number);
    match primitive {
        PrimitiveValue::U8(numbers) if !value::is_text(vr) => numbers.iter().map(|number| json!(number)).collect(),
        PrimitiveValue::U16(numbers) => numbers.iter().map(|number| json!(number)).collect(),
        PrimitiveValue::I16(numbers) => numbers.iter().map(|number| json!(number)).collect(),
        PrimitiveValue::U32(numbers) => numbers.iter().map(|number| json!(number)).collect(),
        PrimitiveValue::I32(numbers) => numbers.iter().map(|number| json!(number)).collect(),
        PrimitiveValue::U64(numbers) => numbers.iter().map(|number| json!(number)).collect(),
        PrimitiveValue::I64(numbers) => numbers.iter().map(|number| json!(number)).collect(),
        PrimitiveValue::F32(numbers) => numbers.iter().map(|number| real(f64::from(*number))).collect(),
        PrimitiveValue::F64(numbers) => numbers.iter().map(|number| real(*number)).collect(),
        PrimitiveValue::Tags(tags) => tags.iter().map(|tag| json!(key(*tag))).collect(),
        _ => texts(primitive).iter().map(|text| text_value(vr, text)).collect(),
    }
}

fn text_value(vr: VR, text: &str) -> Json {
    match vr {
        // F.2.5: an empty value among others is null.
        _ if text.is_empty() => Json::Null,
        VR::PN => {
            let groups = ["Alphabetic", "Ideographic", "Phonetic"].into_iter().zip(text.split('='));
            Json::Object(groups.filter(|(_, group)| !group.is_empty()).map(|(name, group)| (name.to_owned(), json!(group))).collect())
        }
        VR::IS => text.trim().parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
        VR::DS => text.trim().parse::<f64>().ok().and_then(Number::from_f64).map_or_else(|| json!(text), Json::Number),
        _ => json!(text),
    }
}

fn little_endian(primitive: &PrimitiveValue) -> Vec<u8> {
    match primitive {
        PrimitiveValue::U8(bytes) => bytes.to_vec(),
        PrimitiveValue::U16(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        PrimitiveValue::I16(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        PrimitiveValue::U32(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        PrimitiveValue::I32(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        PrimitiveValue::U64(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        PrimitiveValue::I64(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        PrimitiveValue::F32(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        PrimitiveValue::F64(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        other => texts(other).join("\\").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::value::DataSetSequence;
    use dicom_core::{DataElement, dicom_value, header::Length};

    /// Forms of PS3.18 F.2.2 to F.2.7 and the example of F.2.1.1.2.
    #[test]
    fn every_kind_of_value_has_the_form_of_annex_f() {
        let inner = InMemDicomObject::from_element_iter([DataElement::new(Tag(0x0008, 0x0100), VR::SH, dicom_value!(Str, "T-1"))]);
        let object = InMemDicomObject::from_element_iter([
            DataElement::new(Tag(0x0008, 0x0008), VR::CS, Value::Primitive(dicom_value!(Strs, ["ORIGINAL", "", "AXIAL"]))),
            DataElement::new(Tag(0x0008, 0x0020), VR::DA, Value::Primitive(PrimitiveValue::Empty)),
            DataElement::new(Tag(0x0008, 0x1140), VR::SQ, Value::Sequence(DataSetSequence::new(vec![inner], Length::UNDEFINED))),
            DataElement::new(Tag(0x0010, 0x0010), VR::PN, Value::Primitive(dicom_value!(Str, "Wang^XiaoDong=王^小东"))),
            DataElement::new(Tag(0x0018, 0x0050), VR::DS, Value::Primitive(dicom_value!(Str, "1.50"))),
            DataElement::new(Tag(0x0020, 0x0013), VR::IS, Value::Primitive(dicom_value!(Str, "7 "))),
            DataElement::new(Tag(0x0020, 0x9165), VR::AT, Value::Primitive(dicom_value!(Tags, [Tag(0x0018, 0x9087)]))),
            DataElement::new(Tag(0x0028, 0x0010), VR::US, Value::Primitive(dicom_value!(U16, [512]))),
            DataElement::new(Tag(0x0028, 0x1201), VR::OW, Value::Primitive(dicom_value!(U16, [0x0102]))),
        ]);
        assert_eq!(
            dataset(&object),
            json!({
                "00080008": {"vr": "CS", "Value": ["ORIGINAL", null, "AXIAL"]},
                "00080020": {"vr": "DA"},
                "00081140": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["T-1"]}}]},
                "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}]},
                "00180050": {"vr": "DS", "Value": [1.5]},
                "00200013": {"vr": "IS", "Value": [7]},
                "00209165": {"vr": "AT", "Value": ["00189087"]},
                "00280010": {"vr": "US", "Value": [512]},
                "00281201": {"vr": "OW", "InlineBinary": "AgE="},
            })
        );
    }
}
