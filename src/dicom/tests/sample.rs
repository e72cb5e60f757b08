//! Small DICOM files, written by hand so that no library under test takes part.

use crate::control::Control;
use crate::dicom::{IdentifiedStudy, Limits, Loader, Policy, Selection};
use crate::error::Result;
use crate::secret::Plain;

/// How a data set is written.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    Implicit,
    Explicit,
    Big,
}

/// One element.
#[derive(Clone)]
pub struct Element {
    pub tag: (u16, u16),
    pub vr: &'static str,
    pub value: Value,
}

/// Its value.
#[derive(Clone)]
pub enum Value {
    Text(String),
    Words(Vec<u16>),
    Bytes(Vec<u8>),
    Items(Vec<Vec<Element>>),
    /// Offset table and fragments.
    Fragments(Vec<Vec<u8>>),
}

pub fn text(tag: (u16, u16), vr: &'static str, value: &str) -> Element {
    Element { tag, vr, value: Value::Text(value.to_owned()) }
}
pub fn word(tag: (u16, u16), value: u16) -> Element {
    Element { tag, vr: "US", value: Value::Words(vec![value]) }
}
pub fn items(tag: (u16, u16), items: Vec<Vec<Element>>) -> Element {
    Element { tag, vr: "SQ", value: Value::Items(items) }
}
pub fn pixels(value: Value) -> Element {
    Element { tag: (0x7FE0, 0x0010), vr: "OW", value }
}

/// A data set as bytes. Sequences and items of even tags have undefined length, of odd ones defined.
pub fn write(elements: &[Element], form: Form) -> Vec<u8> {
    let u16b = |value: u16| if form == Form::Big { value.to_be_bytes() } else { value.to_le_bytes() };
    let u32b = |value: u32| if form == Form::Big { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut out = Vec::new();
    let mut sorted: Vec<&Element> = elements.iter().collect();
    sorted.sort_by_key(|element| element.tag);
    for Element { tag, vr, value } in sorted {
        let undefined = matches!(value, Value::Fragments(_)) || (matches!(value, Value::Items(_)) && tag.1 % 2 == 0);
        let content = match value {
            Value::Text(text) => {
                let mut bytes = text.clone().into_bytes();
                if bytes.len() % 2 == 1 {
                    bytes.push(if *vr == "UI" { 0 } else { b' ' });
                }
                bytes
            }
            Value::Words(words) => words.iter().flat_map(|value| u16b(*value)).collect(),
            Value::Bytes(bytes) => bytes.clone(),
            Value::Items(items) => {
                let mut bytes = Vec::new();
                for item in items {
                    let content = write(item, form);
                    bytes.extend([u16b(0xFFFE), u16b(0xE000)].concat());
                    bytes.extend(u32b(if undefined { u32::MAX } else { content.len() as u32 }));
                    bytes.extend(content);
                    if undefined {
                        bytes.extend([u16b(0xFFFE), u16b(0xE00D), [0; 2], [0; 2]].concat());
                    }
                }
                bytes
            }
            Value::Fragments(fragments) => {
                let mut bytes = Vec::new();
                for fragment in fragments {
                    bytes.extend([0xFE, 0xFF, 0x00, 0xE0]);
                    bytes.extend((fragment.len() as u32).to_le_bytes());
                    bytes.extend(fragment);
                }
                bytes
            }
        };
        out.extend([u16b(tag.0), u16b(tag.1)].concat());
        let length = if undefined { u32::MAX } else { content.len() as u32 };
        if form == Form::Implicit {
            out.extend(u32b(length));
        } else {
            out.extend(vr.as_bytes());
            if matches!(*vr, "OB" | "OW" | "OF" | "OD" | "OV" | "SQ" | "UN" | "UT") {
                out.extend([0, 0]);
                out.extend(u32b(length));
            } else {
                out.extend(u16b(length as u16));
            }
        }
        out.extend(content);
        if undefined {
            out.extend([u16b(0xFFFE), u16b(0xE0DD), [0; 2], [0; 2]].concat());
        }
    }
    out
}

/// Preamble, magic, file meta information, data set.
pub fn file(syntax: &str, dataset: &[u8]) -> Vec<u8> {
    let meta = write(
        &[
            text((0x0002, 0x0002), "UI", "1.2.840.10008.5.1.4.1.1.2"),
            text((0x0002, 0x0003), "UI", "1.2.3.4"),
            text((0x0002, 0x0010), "UI", syntax),
            text((0x0002, 0x0012), "UI", "1.2.3"),
        ],
        Form::Explicit,
    );
    let mut out = vec![0; 128];
    out.extend(b"DICM");
    out.extend([2, 0, 0, 0, b'U', b'L', 4, 0]);
    out.extend((meta.len() as u32).to_le_bytes());
    out.extend(meta);
    out.extend(dataset);
    out
}

pub const IMPLICIT: &str = "1.2.840.10008.1.2";
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub const BIG: &str = "1.2.840.10008.1.2.2";
pub const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub const RLE: &str = "1.2.840.10008.1.2.5";
pub const JPEG_LOSSLESS: &str = "1.2.840.10008.1.2.4.70";

/// A CT slice of 2 rows and 3 columns at a height; its six values count up from `first`.
pub fn slice(z: f64, first: u16) -> Vec<Element> {
    vec![
        text((0x0008, 0x0016), "UI", "1.2.840.10008.5.1.4.1.1.2"),
        text((0x0008, 0x0018), "UI", &format!("1.2.3.{first}")),
        text((0x0008, 0x0060), "CS", "CT"),
        text((0x0010, 0x0010), "PN", "Canary^Person"),
        text((0x0018, 0x0050), "DS", "2"),
        text((0x0020, 0x000D), "UI", "1.2.1"),
        text((0x0020, 0x000E), "UI", "1.2.2"),
        text((0x0020, 0x0011), "IS", "7"),
        text((0x0020, 0x0032), "DS", &format!("-10\\-20\\{z}")),
        text((0x0020, 0x0037), "DS", "1\\0\\0\\0\\1\\0"),
        word((0x0028, 0x0002), 1),
        text((0x0028, 0x0004), "CS", "MONOCHROME2"),
        word((0x0028, 0x0010), 2),
        word((0x0028, 0x0011), 3),
        text((0x0028, 0x0030), "DS", "0.5\\0.75"),
        word((0x0028, 0x0100), 16),
        word((0x0028, 0x0101), 16),
        word((0x0028, 0x0102), 15),
        word((0x0028, 0x0103), 0),
        pixels(Value::Words((first..first + 6).collect())),
    ]
}

/// Replaces an element, or adds it.
pub fn with(mut elements: Vec<Element>, element: Element) -> Vec<Element> {
    elements.retain(|other| other.tag != element.tag);
    elements.push(element);
    elements
}

/// Leaves an element out.
pub fn without(mut elements: Vec<Element>, tag: (u16, u16)) -> Vec<Element> {
    elements.retain(|other| other.tag != tag);
    elements
}

/// An explicit little-endian file.
pub fn explicit(elements: &[Element]) -> Vec<u8> {
    file(EXPLICIT, &write(elements, Form::Explicit))
}

/// Loads files, numbered from 1, as a study.
pub fn load(files: impl IntoIterator<Item = Vec<u8>>) -> Result<IdentifiedStudy> {
    load_selected(files, Selection::default())
}

pub fn load_selected(files: impl IntoIterator<Item = Vec<u8>>, selection: Selection) -> Result<IdentifiedStudy> {
    load_by(files, selection, Policy::default())
}

pub fn load_by(files: impl IntoIterator<Item = Vec<u8>>, selection: Selection, policy: Policy) -> Result<IdentifiedStudy> {
    let mut loader = Loader::new(Limits::default(), selection, policy);
    for (index, bytes) in files.into_iter().enumerate() {
        loader.add(index + 1, Plain::new(bytes), &Control::new())?;
    }
    loader.finish(&Control::new())
}

/// The error of a load that must fail. A study has no `Debug`, on purpose.
pub fn refused(outcome: Result<IdentifiedStudy>) -> crate::error::Error {
    outcome.err().expect("this load must be refused")
}
