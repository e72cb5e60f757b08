//! The module as a whole: canaries in every attribute of the table, properties over generated studies, real files.

mod canaries;
mod files;
mod options;
mod properties;

use std::sync::Arc;

use dicom_core::header::Length;
use dicom_core::value::{DataSetSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Tag, VR};
use dicom_object::mem::InMemElement;
use dicom_object::{FileMetaTable, InMemDicomObject, meta::FileMetaTableBuilder};

use super::*;

const MR: &str = "1.2.840.10008.5.1.4.1.1.4";
const ENHANCED_MR: &str = "1.2.840.10008.5.1.4.1.1.4.1";

fn key() -> Secret<[u8; 32]> {
    Secret::new(std::array::from_fn(|index| index as u8))
}

fn text(tag: (u16, u16), vr: VR, text: &str) -> InMemElement {
    let texts: Vec<String> = text.split('\\').map(str::to_owned).collect();
    DataElement::new(Tag(tag.0, tag.1), vr, value::text_value(vr, texts))
}

fn sequence(tag: (u16, u16), items: Vec<InMemDicomObject>) -> InMemElement {
    DataElement::new(Tag(tag.0, tag.1), VR::SQ, Value::Sequence(DataSetSequence::new(items, Length::UNDEFINED)))
}

fn object(elements: impl IntoIterator<Item = InMemElement>) -> InMemDicomObject {
    InMemDicomObject::from_element_iter(elements)
}

fn meta(class: &str, instance: &str) -> FileMetaTable {
    FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(class)
        .media_storage_sop_instance_uid(instance)
        .transfer_syntax("1.2.840.10008.1.2.1")
        .build()
        .unwrap()
}

/// A small instance with what every image has.
fn instance(class: &str, number: u32) -> Instance {
    let uid = format!("1.2.826.0.1.3680043.10.999.{number}");
    let dataset = object([
        text((0x0008, 0x0008), VR::CS, "ORIGINAL\\PRIMARY\\M"),
        text((0x0008, 0x0016), VR::UI, class),
        text((0x0008, 0x0018), VR::UI, &uid),
        text((0x0008, 0x0060), VR::CS, "MR"),
        text((0x0008, 0x0070), VR::LO, "Philips Medical Systems"),
        text((0x0010, 0x0010), VR::PN, "Quuxfeld^Zaphira"),
        text((0x0010, 0x0020), VR::LO, "PID-998877"),
        text((0x0018, 0x0050), VR::DS, "1.25"),
        text((0x0020, 0x0013), VR::IS, &number.to_string()),
        text((0x0020, 0x0032), VR::DS, "-100.5\\-99.25\\12"),
        text((0x0020, 0x0037), VR::DS, "1\\0\\0\\0\\1\\0"),
        DataElement::new(Tag(0x0028, 0x0010), VR::US, PrimitiveValue::from(256u16)),
        DataElement::new(Tag(0x0028, 0x0011), VR::US, PrimitiveValue::from(240u16)),
        text((0x0028, 0x0030), VR::DS, "0.9375\\0.9375"),
    ]);
    Instance { meta: meta(class, &uid), dataset }
}

fn study(instances: Vec<Instance>) -> IdentifiedStudy {
    IdentifiedStudy {
        instances,
        voxels: Arc::new(vec![0.0]),
        geometry: Geometry { dims: [1, 1, 1], spacing_mm: [1.0; 3], affine_lps: [[0.0; 4]; 4], verdict: Verdict::SingleSlice },
        modality: "MR".to_owned(),
        body_part: "BREAST".to_owned(),
        left_out: 0,
        frames: Vec::new(),
        blacked_out: Vec::new(),
        pixels: Vec::new(),
        channels: vec![Default::default()],
    }
}

fn options(names: &[&str]) -> Options {
    Options { options: names.iter().map(|name| name.to_string()).collect(), ..Options::default() }
}

fn run(instances: Vec<Instance>, names: &[&str]) -> Result<ReleasedStudy> {
    deidentify(study(instances), &options(names), &key(), &Control::new())
}

fn bytes(study: &ReleasedStudy) -> Vec<u8> {
    study.instances.iter().flat_map(|instance| serialize(instance).unwrap().0).collect()
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Texts of an element of a released instance.
fn texts_at(item: &InMemDicomObject, tag: (u16, u16)) -> Option<Vec<String>> {
    Some(value::texts(item.get(Tag(tag.0, tag.1))?.value().primitive()?))
}
