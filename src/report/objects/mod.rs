//! DICOM objects that hold results: what they have in common.
//!
//! An object belongs to the patient and study of the series that was looked at, as they stand in the released study: pseudonyms and new UIDs after
//! de-identification, the patient's own otherwise. It forms a series of its own and refers to the images by their UIDs.

mod seg;
mod sr;

use std::io::{self, Write};

use dicom_core::header::Length;
use dicom_core::value::{DataSetSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Tag, VR};
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN;

use crate::dicom::writer::file_meta;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::{Frames, Geometry};

pub use seg::{SegKind, segmentation};
pub use sr::{Predicted, structured_report};

/// An image, or a frame of one, that was looked at.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceFrame {
    /// SOP class.
    pub class: String,
    /// SOP instance.
    pub instance: String,
    /// Number of the frame, from 1, of an instance of several.
    pub frame: Option<u32>,
}

/// Where the frames of the series lie.
pub enum Planes {
    /// One after the other on a grid, slice by slice.
    Grid(Geometry),
    /// Each at its own place: tilted, unevenly spaced or with gaps, as they came.
    Each(Frames),
}

/// The series that was looked at.
pub struct Origin {
    header: InMemDicomObject,
    frames: Vec<SourceFrame>,
    planes: Planes,
    /// UIDs of the objects to come, so that each is written under the same ones however often.
    seg: Identity,
    sr_series: String,
    /// Content date and time.
    moment: [String; 2],
}

/// Series and instance of an object.
struct Identity {
    series: String,
    instance: String,
}

/// Attributes of the patient, the study and their de-identification that every object carries, when the series has them; the first ones
/// empty when it has not (PS3.3 C.7.1.1, C.7.2.1, type 2).
const CARRIED: [(Tag, VR, bool); 22] = [
    (Tag(0x0010, 0x0010), VR::PN, true),
    (Tag(0x0010, 0x0020), VR::LO, true),
    (Tag(0x0010, 0x0030), VR::DA, true),
    (Tag(0x0010, 0x0040), VR::CS, true),
    (Tag(0x0008, 0x0020), VR::DA, true),
    (Tag(0x0008, 0x0030), VR::TM, true),
    (Tag(0x0008, 0x0050), VR::SH, true),
    (Tag(0x0008, 0x0090), VR::PN, true),
    (Tag(0x0020, 0x0010), VR::SH, true),
    (Tag(0x0020, 0x000D), VR::UI, false),
    (Tag(0x0008, 0x1030), VR::LO, false),
    (Tag(0x0010, 0x0021), VR::LO, false),
    (Tag(0x0010, 0x1010), VR::AS, false),
    (Tag(0x0010, 0x1020), VR::DS, false),
    (Tag(0x0010, 0x1030), VR::DS, false),
    (Tag(0x0012, 0x0062), VR::CS, false),
    (Tag(0x0012, 0x0063), VR::LO, false),
    (Tag(0x0012, 0x0064), VR::SQ, false),
    (Tag(0x0028, 0x0303), VR::CS, false),
    (Tag(0x0012, 0x0010), VR::LO, false),
    (Tag(0x0012, 0x0020), VR::LO, false),
    (Tag(0x0012, 0x0040), VR::LO, false),
];
/// Further attributes that are looked at: frame of reference, orientation of projections, slice thickness, lossy compression.
const LOOKED_AT: [Tag; 8] = [
    SERIES,
    FRAME_OF_REFERENCE,
    Tag(0x0020, 0x1040),
    PATIENT_ORIENTATION,
    Tag(0x0018, 0x0050),
    Tag(0x0028, 0x2110),
    Tag(0x0028, 0x2112),
    Tag(0x0028, 0x2114),
];
const SERIES: Tag = Tag(0x0020, 0x000E);
const PATIENT_ORIENTATION: Tag = Tag(0x0020, 0x0020);
const FRAME_OF_REFERENCE: Tag = Tag(0x0020, 0x0052);
/// Longest LO, in characters.
const LONG_STRING: usize = 64;

impl Origin {
    /// Of the header of any instance of the series, its frames in the order of the slices, and their places. `moment` is when the results were made,
    /// RFC 3339, UTC.
    ///
    /// # Errors
    /// [`Kind::Internal`] when the system gives no random bytes.
    pub fn new(header: &InMemDicomObject, frames: Vec<SourceFrame>, planes: Planes, moment: &str) -> Result<Origin> {
        let wanted = CARRIED.iter().map(|(tag, ..)| *tag).chain(LOOKED_AT);
        let header = InMemDicomObject::from_element_iter(wanted.filter_map(|tag| header.get(tag).cloned()));
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        let (date, time) = moment.split_once('T').unwrap_or_default();
        let seg = Identity { series: uid()?, instance: uid()? };
        Ok(Origin { header, frames, planes, seg, sr_series: uid()?, moment: [digits(date), digits(time.get(..8).unwrap_or_default())] })
    }

    /// Text of the series' header; empty when there is none.
    fn text(&self, tag: Tag) -> String {
        let found = self.header.get(tag).and_then(|element| element.to_str().ok());
        found.map(|text| text.trim_end_matches(['\0', ' ']).to_owned()).unwrap_or_default()
    }

    /// The modules of patient, study, series, equipment and SOP instance.
    fn begin(&self, class: &str, identity: &Identity, modality: &str, description: &str) -> Draft {
        let mut draft = Draft(InMemDicomObject::new_empty());
        for (tag, vr, is_needed) in CARRIED {
            // A date that is none would make the object invalid, too.
            let text = self.text(tag);
            let is_sound = match vr {
                VR::SQ => true,
                VR::DA => is_date(&text),
                _ => !text.is_empty(),
            };
            match self.header.get(tag).filter(|_| is_sound) {
                Some(element) => _ = draft.0.put(element.clone()),
                None if is_needed => draft.text(tag, vr, ""),
                None => {}
            }
        }
        // Who says that the identity was removed says how (PS3.3 table C.7-1); what the sources leave out is not made up here.
        if [Tag(0x0012, 0x0063), Tag(0x0012, 0x0064)].iter().all(|tag| draft.0.get(*tag).is_none()) {
            draft.0.remove_element(Tag(0x0012, 0x0062));
        }
        let [date, time] = &self.moment;
        for (tag, vr, text) in [
            // Texts were decoded when they were read.
            (Tag(0x0008, 0x0005), VR::CS, "ISO_IR 192"),
            (Tag(0x0008, 0x0016), VR::UI, class),
            (Tag(0x0008, 0x0018), VR::UI, &identity.instance),
            (Tag(0x0008, 0x0023), VR::DA, date),
            (Tag(0x0008, 0x0033), VR::TM, time),
            (Tag(0x0008, 0x0060), VR::CS, modality),
            (Tag(0x0008, 0x103E), VR::LO, description),
            (SERIES, VR::UI, &identity.series),
            (Tag(0x0020, 0x0013), VR::IS, "1"),
            (Tag(0x0008, 0x0070), VR::LO, "Secure Media Processor"),
            (Tag(0x0008, 0x1090), VR::LO, "libsmp"),
            (Tag(0x0018, 0x1000), VR::LO, "software"),
            (Tag(0x0018, 0x1020), VR::LO, env!("CARGO_PKG_VERSION")),
        ] {
            draft.text(tag, vr, text);
        }
        draft
    }

    /// The instances of the series, each once.
    fn references(&self) -> Vec<Draft> {
        let mut known = std::collections::HashSet::new();
        self.frames.iter().filter(|frame| known.insert(frame.instance.as_str())).map(SourceFrame::reference).collect()
    }

    /// The series with its instances (PS3.3 C.12.2).
    fn referenced_series(&self) -> Draft {
        let instances = self.references();
        let mut series = Draft::new();
        series.text(SERIES, VR::UI, &self.text(SERIES));
        series.items(Tag(0x0008, 0x114A), instances);
        series
    }
}

impl SourceFrame {
    /// Its SOP class and instance.
    fn reference(&self) -> Draft {
        let mut item = Draft::new();
        item.text(Tag(0x0008, 0x1150), VR::UI, &self.class);
        item.text(Tag(0x0008, 0x1155), VR::UI, &self.instance);
        item
    }
}

/// A data set in the making.
struct Draft(InMemDicomObject);

impl Draft {
    fn new() -> Draft {
        Draft(InMemDicomObject::new_empty())
    }

    fn text(&mut self, tag: Tag, vr: VR, text: &str) {
        let value = if text.is_empty() { PrimitiveValue::Empty } else { PrimitiveValue::from(text) };
        self.0.put(DataElement::new(tag, vr, value));
    }

    fn number(&mut self, tag: Tag, number: u16) {
        self.0.put(DataElement::new(tag, VR::US, PrimitiveValue::from(number)));
    }

    /// Decimal strings.
    fn decimals(&mut self, tag: Tag, numbers: &[f64]) {
        let texts: Vec<String> = numbers.iter().map(|number| decimal(*number)).collect();
        self.0.put(DataElement::new(tag, VR::DS, PrimitiveValue::Strs(texts.into())));
    }

    fn items(&mut self, tag: Tag, items: Vec<Draft>) {
        let items: Vec<InMemDicomObject> = items.into_iter().map(|item| item.0).collect();
        self.0.put(DataElement::new(tag, VR::SQ, Value::Sequence(DataSetSequence::new(items, Length::UNDEFINED))));
    }

    fn item(&mut self, tag: Tag, fill: impl FnOnce(&mut Draft)) {
        let mut item = Draft::new();
        fill(&mut item);
        self.items(tag, vec![item]);
    }

    /// A code: value, scheme, meaning (PS3.3 table 8.8-1).
    fn code(&mut self, tag: Tag, [value, scheme, meaning]: [&str; 3]) {
        self.item(tag, |item| {
            // A value of more than 16 characters stands in its long form.
            let is_long = value.chars().count() > 16;
            let (place, vr) = if is_long { (Tag(0x0008, 0x0119), VR::UC) } else { (Tag(0x0008, 0x0100), VR::SH) };
            item.text(place, vr, value);
            item.text(Tag(0x0008, 0x0102), VR::SH, scheme);
            item.text(Tag(0x0008, 0x0104), VR::LO, &cut(meaning));
        });
    }

    /// A file: preamble, meta information, data set, uncompressed.
    fn write(&self, class: &str, instance: &str, out: &mut dyn Write) -> io::Result<()> {
        let meta = file_meta(class, instance, "1.2.840.10008.1.2.1").map_err(|error| io::Error::other(error.detail().to_owned()))?;
        let mut head = vec![0; 128];
        head.extend_from_slice(b"DICM");
        meta.write(&mut head).map_err(io::Error::other)?;
        out.write_all(&head)?;
        self.0.write_dataset_with_ts(out, &EXPLICIT_VR_LITTLE_ENDIAN.erased()).map_err(io::Error::other)
    }
}

/// A decimal string of at most 16 characters, as exact as that allows (PS3.5 section 6.2).
fn decimal(number: f64) -> String {
    let shortest = format!("{number}");
    if shortest.len() <= 16 {
        return shortest;
    }
    (0..=14).rev().map(|digits| format!("{number:.digits$e}")).find(|text| text.len() <= 16).unwrap_or_else(|| "0".to_owned())
}

/// Whether a text is a date as PS3.5 section 6.2 has them, so far as a look at month and day tells.
fn is_date(text: &str) -> bool {
    let part = |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<u8>().ok()).unwrap_or_default();
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit()) && (1..=12).contains(&part(4, 6)) && (1..=31).contains(&part(6, 8))
}

/// A long string of the length that the standard allows.
fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && *c != '\\').take(LONG_STRING).collect()
}

/// A new UID: one of random 128 bits in the arc of UUIDs (PS3.5 section B.2).
fn uid() -> Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|_| Error::new(Kind::Internal, "the system gives no random bytes").at(Stage::Report))?;
    // Version 4, variant 1 (RFC 9562 section 5.4).
    let number = u128::from_be_bytes(bytes) & !(0xF << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    Ok(format!("2.25.{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_as_exact_as_sixteen_characters_allow() {
        for (number, text) in [
            (0.5, "0.5"),
            (-10.0, "-10"),
            (1.0 / 3.0, "3.3333333333e-1"),
            (-123.456_789_012_345_67, "-1.234567890e2"),
            (1e-7, "0.0000001"),
            (5e-324, "5e-324"),
        ] {
            let found = decimal(number);
            assert!(found.len() <= 16, "{found}");
            let (found, expected): (f64, f64) = (found.parse().unwrap(), text.parse().unwrap());
            assert!((found - number).abs() <= (expected - number).abs() + number.abs() * 1e-15, "{number}: {found}");
        }
    }

    #[test]
    fn dates_are_told_from_what_is_none() {
        assert!(is_date("20240229") && is_date("19000101"));
        for text in ["00000000", "20241301", "20240200", "2024", "2024.2.9", "2024 229", "202402299"] {
            assert!(!is_date(text), "{text}");
        }
    }

    #[test]
    fn uids_are_uuids_and_differ() {
        let (one, other) = (uid().unwrap(), uid().unwrap());
        assert!(one != other && one.len() <= 64);
        let number: u128 = one.strip_prefix("2.25.").unwrap().parse().unwrap();
        assert_eq!((number >> 76 & 0xF, number >> 62 & 0x3), (4, 2));
    }
}
