//! Text in pixels: what makes it likely, and where machines are known to write it.
//!
//! Pixels are not looked at. Headers tell that an image was captured from a screen or made by a machine that writes names into its images
//! ([`sign`]), and rules of devices tell where ([`DeviceRules::regions`]): conditions on the header, and rectangles of stored pixels. Rules of users come before
//! those that are built in (`tables/device-rules.json`). Where no rule speaks and an ultrasound image says which parts of it are image
//! (Sequence of Ultrasound Regions, PS3.3 section C.8.5.5), everything else of it is where text stands.

use dicom_core::header::Header as _;
use dicom_core::{Tag, VR};
use dicom_object::InMemDicomObject;

use super::device_rules::{DeviceRules, Header};
use super::value::texts;
use crate::dicom::Region;
use crate::error::{Error, Kind, Result};

/// Root of the storage SOP classes (PS3.4 B.5).
pub(crate) const STORAGE: &str = "1.2.840.10008.5.1.4.1.1";

/// Storage SOP classes whose pixels come from screens, scanners and cameras.
pub(crate) const CLASSES: &[(&str, &str)] =
    &[("3", "ultrasound"), ("6", "ultrasound"), ("7", "secondary capture"), ("77.1.1", "endoscopy"), ("77.1.4", "photography")];

/// Modalities (PS3.3 C.7.3.1.1.1) of the same kind.
pub(crate) const MODALITIES: &[&str] = &["US", "SC", "XC", "ES"];

/// What happens to images whose pixels may carry text (`deid.burned_in`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BurnedIn {
    /// The study is refused.
    #[default]
    Quarantine,
    /// The regions that a rule of devices names are overwritten; an image without a rule is refused.
    BlackOut,
    /// The study passes, for a reason that is recorded.
    Allow(String),
}

/// The longest reason, in characters.
const REASON: usize = 200;

impl BurnedIn {
    /// Reads `quarantine`, `blackout` or `allow`; the last needs a reason: at most 200 printable ASCII characters.
    pub fn from_name(name: &str, reason: &str) -> Result<BurnedIn> {
        let wrong = |key: &'static str, hint: &'static str| Err(Error::new(Kind::ConfigInvalidValue, key).with_hint(hint));
        let reason = reason.trim();
        match name {
            "quarantine" => Ok(BurnedIn::Quarantine),
            "blackout" => Ok(BurnedIn::BlackOut),
            "allow" if !reason.is_empty() && reason.len() <= REASON && reason.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
                Ok(BurnedIn::Allow(reason.to_owned()))
            }
            "allow" => wrong(
                "deid.burned_in_reason",
                "say in at most 200 printable ASCII characters who has looked at the pixels, or why they carry no text; it is written to the audit log",
            ),
            _ => wrong("deid.burned_in", "use quarantine, blackout, or allow with a deid.burned_in_reason"),
        }
    }

    /// The name in configuration and audit log.
    pub fn name(&self) -> &'static str {
        match self {
            BurnedIn::Quarantine => "quarantine",
            BurnedIn::BlackOut => "blackout",
            BurnedIn::Allow(_) => "allow",
        }
    }
}

/// The name of the condition of a rule under which an image may be nothing but text. Names are the library's or the user's, never the header's.
pub(crate) fn refusal<'a>(rules: &[&'a DeviceRules], dataset: &InMemDicomObject) -> Option<&'a str> {
    let header = Header::new(dataset);
    rules.iter().find_map(|rules| rules.refuses(&header))
}

/// Where text stands in an image's frames as far as rules know: `None` where none does, nothing where a rule says that there is none.
pub(crate) fn regions(rules: &[&DeviceRules], class: &str, dataset: &InMemDicomObject) -> Option<Vec<Region>> {
    let (rows, columns) = (number(dataset, Tag(0x0028, 0x0010))?, number(dataset, Tag(0x0028, 0x0011))?);
    let header = Header::new(dataset);
    let named = rules.iter().find_map(|rules| rules.named(&header));
    let mut regions = match named {
        Some(regions) => regions.into_iter().filter_map(|region| clipped(region, columns, rows)).collect(),
        None => beside_ultrasound(class, dataset, columns, rows)?,
    };
    regions.sort_unstable();
    regions.dedup();
    Some(regions)
}

/// The part of a region that lies in the frame.
fn clipped(region: Region, columns: u32, rows: u32) -> Option<Region> {
    let Region { left, top, width, height } = region;
    let (right, bottom) = (left.saturating_add(width).min(columns), top.saturating_add(height).min(rows));
    (left < right && top < bottom).then(|| Region { left, top, width: right - left, height: bottom - top })
}

/// Regions that an ultrasound image may have and still be believed: real ones have a handful, and the work grows with their square.
const MOST_REGIONS: usize = 64;

/// What lies beside the regions of an ultrasound image; `None` where the image does not tell, or would keep everything.
fn beside_ultrasound(class: &str, dataset: &InMemDicomObject, columns: u32, rows: u32) -> Option<Vec<Region>> {
    let rest = class.strip_prefix(STORAGE)?.strip_prefix('.')?;
    if !["3", "6"].iter().any(|number| is_under(rest, number)) {
        return None;
    }
    let items = dataset.get(Tag(0x0018, 0x6011))?.items()?;
    if items.len() > MOST_REGIONS {
        return None;
    }
    let mut images = Vec::with_capacity(items.len());
    for item in items {
        let corner = |element| number(item, Tag(0x0018, element));
        let (left, top, right, bottom) = (corner(0x6018)?, corner(0x601A)?, corner(0x601C)?, corner(0x601E)?);
        // The corners are pixels of the region.
        let (width, height) = (right.checked_sub(left)?.saturating_add(1), bottom.checked_sub(top)?.saturating_add(1));
        images.extend(clipped(Region { left, top, width, height }, columns, rows));
    }
    let beside = complement(&images, columns, rows);
    (!images.is_empty() && !beside.is_empty()).then_some(beside)
}

/// What of a frame is covered by none of some regions, in bands from top to bottom.
fn complement(regions: &[Region], columns: u32, rows: u32) -> Vec<Region> {
    let mut edges: Vec<u32> = regions.iter().flat_map(|region| [region.top, region.top + region.height]).chain([0, rows]).collect();
    edges.sort_unstable();
    edges.dedup();
    let mut beside = Vec::new();
    for band in edges.windows(2) {
        let (top, bottom) = (band[0], band[1]);
        let mut covered: Vec<(u32, u32)> = regions
            .iter()
            .filter(|region| region.top <= top && bottom <= region.top + region.height)
            .map(|region| (region.left, region.left + region.width))
            .collect();
        covered.sort_unstable();
        let mut at = 0;
        for (left, right) in covered.into_iter().chain([(columns, columns)]) {
            if left > at {
                beside.push(Region { left: at, top, width: left - at, height: bottom - top });
            }
            at = at.max(right);
        }
    }
    beside
}

/// What in the header says that text may be burned into the pixels.
pub(crate) fn sign(class: &str, dataset: &InMemDicomObject) -> Option<String> {
    let rest = class.strip_prefix(STORAGE).and_then(|rest| rest.strip_prefix('.')).unwrap_or("");
    if let Some((_, what)) = CLASSES.iter().find(|(number, _)| is_under(rest, number)) {
        return Some(format!("SOP class of {what}"));
    }
    let modality = joined(dataset, Tag(0x0008, 0x0060));
    if MODALITIES.contains(&modality.trim()) {
        return Some(format!("modality {modality}"));
    }
    sign_at_any_depth(dataset, 64)
}

/// Image Type, Frame Type and Burned In Annotation, functional groups included.
fn sign_at_any_depth(item: &InMemDicomObject, depth: usize) -> Option<String> {
    for element in item {
        if let Some(items) = element.items() {
            // Past the limit nothing is known, and the walk that follows refuses such nesting anyway.
            let found = if depth == 0 {
                Some("nested too deep to tell".to_owned())
            } else {
                items.iter().find_map(|item| sign_at_any_depth(item, depth - 1))
            };
            if found.is_some() {
                return found;
            }
            continue;
        }
        let Some(value) = element.value().primitive() else { continue };
        match element.tag() {
            Tag(0x0028, 0x0301) if texts(value).iter().any(|text| text.trim().eq_ignore_ascii_case("YES")) => {
                return Some("(0028,0301) is YES".to_owned());
            }
            Tag(0x0008, 0x0008) | Tag(0x0008, 0x9007) => {
                let types = texts(value).join("\\").to_ascii_uppercase();
                // SECONDARY is a value of its own; vendors write SCREEN SAVE, SCREENSAVE, SAVE SCREEN.
                let sign = ["SCREEN", "SAVE"].into_iter().find(|word| types.contains(word));
                let sign = sign.or_else(|| types.split('\\').any(|value| value.trim() == "SECONDARY").then_some("SECONDARY"));
                if let Some(sign) = sign {
                    return Some(format!("{} says {sign}", element.tag()));
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether a SOP class is a number beneath the root, or lies beneath it.
pub(crate) fn is_under(rest: &str, number: &str) -> bool {
    rest.strip_prefix(number).is_some_and(|tail| tail.is_empty() || tail.starts_with('.'))
}

/// The values of a text, as they are written in a file.
fn joined(dataset: &InMemDicomObject, tag: Tag) -> String {
    dataset.get(tag).and_then(|element| element.value().primitive()).map(|value| texts(value).join("\\")).unwrap_or_default()
}

/// A whole number of a header, binary or text.
fn number(item: &InMemDicomObject, tag: Tag) -> Option<u32> {
    let element = item.get(tag)?;
    match element.vr() {
        VR::SQ => None,
        _ => element.to_int::<u32>().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::header::Length;
    use dicom_core::value::{DataSetSequence, PrimitiveValue, Value};
    use dicom_core::{DataElement, VR};

    const US: &str = "1.2.840.10008.5.1.4.1.1.6.1";

    fn image(texts: &[(u16, u16, &str)], rows: u16, columns: u16) -> InMemDicomObject {
        let text = |(group, element, text): &(u16, u16, &str)| {
            let values = text.split('\\').map(str::to_owned).collect();
            DataElement::new(Tag(*group, *element), VR::LO, PrimitiveValue::Strs(values))
        };
        let size = |element, number: u16| DataElement::new(Tag(0x0028, element), VR::US, PrimitiveValue::from(number));
        InMemDicomObject::from_element_iter(texts.iter().map(text).chain([size(0x0010, rows), size(0x0011, columns)]))
    }

    fn boxes(regions: &[Region]) -> Vec<[u32; 4]> {
        regions.iter().map(|region| [region.left, region.top, region.width, region.height]).collect()
    }

    #[test]
    fn rules_hold_when_all_their_conditions_do() {
        let rules = DeviceRules::from_json(
            r#"{"rules": [
                {"name": "a", "when": {"Manufacturer": ["ACME*", "Other"], "Rows": 100}, "black": [[0, 0, 50, 10], [40, 90, 100, 100]]},
                {"name": "b", "when": {"ImageType": "*PRIMARY*", "Manufacturer": "acme inc"}, "black": [[0, 0, 50, 10], [7, 7, 1, 1]]},
                {"name": "c", "when": {"Manufacturer": "Silent"}, "black": []}],
              "refuse": [{"name": "pages", "when": {"SeriesDescription": "*report*", "PixelSpacing": ""}}]}"#,
        )
        .unwrap();
        let regions = |dataset: &InMemDicomObject| regions(&[&rules], "1.2.840.10008.5.1.4.1.1.4", dataset).map(|found| boxes(&found));
        // Clipped to the frame, united, each once.
        let acme = image(&[(0x0008, 0x0070, "Acme Inc"), (0x0008, 0x0008, "ORIGINAL\\PRIMARY")], 100, 80);
        assert_eq!(regions(&acme).unwrap(), [[0, 0, 50, 10], [7, 7, 1, 1], [40, 90, 40, 10]]);
        assert_eq!(regions(&image(&[(0x0008, 0x0070, "other")], 100, 80)).unwrap().len(), 2);
        assert!(regions(&image(&[(0x0008, 0x0070, "other")], 101, 80)).is_none());
        assert_eq!(regions(&image(&[(0x0008, 0x0070, "Silent")], 9, 9)), Some(Vec::new()));
        let page = image(&[(0x0008, 0x103E, "Dose Report")], 9, 9);
        assert_eq!(refusal(&[&rules], &page), Some("pages"));
        let spaced = image(&[(0x0008, 0x103E, "Dose Report"), (0x0028, 0x0030, "1\\1")], 9, 9);
        assert_eq!(refusal(&[&rules], &spaced), None);
    }

    /// Facts of the sources: CTP's script gives (0,0,1024,60) to the Siemens S2000 of 768 x 1024, Stanford's 56 rows to the same.
    #[test]
    fn built_in_rules_know_devices_that_were_published() {
        let rules = DeviceRules::built_in().unwrap();
        assert_eq!(rules.counts(), (257, 24));
        let s2000 = image(&[(0x0008, 0x0060, "US"), (0x0008, 0x0070, "SIEMENS"), (0x0008, 0x1090, "S2000")], 768, 1024);
        assert_eq!(boxes(&regions(&[rules], US, &s2000).unwrap()), [[0, 0, 1024, 56], [0, 0, 1024, 60]]);
        for ordinary in ["SIEMENS", "Philips Medical Systems", "GE MEDICAL SYSTEMS", "Canon Medical Systems"] {
            let head = image(&[(0x0008, 0x0060, "MR"), (0x0008, 0x0070, ordinary), (0x0008, 0x0008, "ORIGINAL\\PRIMARY\\M\\ND")], 512, 512);
            assert!(regions(&[rules], "1.2.840.10008.5.1.4.1.1.4", &head).is_none() && refusal(&[rules], &head).is_none(), "{ordinary}");
        }
    }

    #[test]
    fn an_ultrasound_image_keeps_its_regions_only() {
        let region = |corners: [u32; 4]| {
            let corner = |(at, number): (u16, u32)| DataElement::new(Tag(0x0018, 0x6018 + 2 * at), VR::UL, PrimitiveValue::from(number));
            InMemDicomObject::from_element_iter((0u16..).zip(corners).map(corner))
        };
        let with = |items: Vec<InMemDicomObject>| {
            let mut dataset = image(&[], 100, 200);
            let items = Value::Sequence(DataSetSequence::new(items, Length::UNDEFINED));
            dataset.put(DataElement::new(Tag(0x0018, 0x6011), VR::SQ, items));
            regions(&[], US, &dataset).map(|found| boxes(&found))
        };
        // Corners belong to the region: columns 10 to 99, rows 20 to 89.
        assert_eq!(with(vec![region([10, 20, 99, 89])]).unwrap(), [[0, 0, 200, 20], [0, 20, 10, 70], [0, 90, 200, 10], [100, 20, 100, 70]]);
        // Every pixel is in exactly one of what is kept and what is not.
        let kept = [[10u32, 20, 99, 59], [50, 40, 149, 89], [120, 0, 130, 10]];
        let black = with(kept.map(region).to_vec()).unwrap();
        for row in 0..100 {
            for column in 0..200 {
                let is_kept =
                    kept.iter().any(|[left, top, right, bottom]| (*left..=*right).contains(&column) && (*top..=*bottom).contains(&row));
                let covers =
                    |[left, top, width, height]: &&[u32; 4]| (*left..left + width).contains(&column) && (*top..top + height).contains(&row);
                assert_eq!(black.iter().filter(covers).count(), usize::from(!is_kept), "{column} {row}");
            }
        }
        assert!(with(vec![region([10, 20, 99, 89]); 65]).is_none(), "more regions than any machine has");
        assert!(with(vec![]).is_none() && with(vec![region([0, 0, 199, 99])]).is_none(), "nothing beside the regions says nothing");
        assert!(with(vec![region([50, 20, 10, 89])]).is_none(), "a region with its corners exchanged");
        assert!(with(vec![InMemDicomObject::new_empty()]).is_none());
        let mut mr = image(&[], 100, 200);
        mr.put(DataElement::new(
            Tag(0x0018, 0x6011),
            VR::SQ,
            Value::Sequence(DataSetSequence::new(vec![region([1, 1, 9, 9])], Length::UNDEFINED)),
        ));
        assert!(regions(&[], "1.2.840.10008.5.1.4.1.1.4", &mr).is_none());
    }
}
