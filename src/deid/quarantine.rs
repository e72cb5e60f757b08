//! Studies that are not touched at all, because no rule here could make them safe.
//!
//! Three kinds of object are refused before anything else happens: those whose identity lies in text, waveforms or documents rather
//! than in attributes (structured reports, encapsulated documents, directories, raw and private data), those whose pixels may carry
//! burned-in text, and those that do not say what they are. Pixels are not looked at: the decision is by header alone.

use dicom_core::Tag;
use dicom_core::header::Header;
use dicom_object::InMemDicomObject;

use super::value::texts;
use super::{BurnedIn, uids};
use crate::dicom::Instance;
use crate::error::{Error, Kind, Result};

/// Root of the storage SOP classes (PS3.4 B.5).
const STORAGE: &str = "1.2.840.10008.5.1.4.1.1";

/// Storage SOP classes without a rule, by what follows the root. A number covers the classes beneath it.
pub(crate) const WITHOUT_RULE: &[(&str, &str)] = &[
    ("9", "waveforms and voice"),
    ("66", "raw data"),
    ("88", "structured reports"),
    ("90", "content assessments"),
    ("104", "encapsulated documents"),
    ("131", "structured displays"),
    ("200", "procedure protocols"),
    ("201", "inventories"),
];

/// Storage SOP classes whose pixels come from screens, scanners and cameras.
pub(crate) const BURNED_IN_CLASSES: &[(&str, &str)] =
    &[("3", "ultrasound"), ("6", "ultrasound"), ("7", "secondary capture"), ("77.1.1", "endoscopy"), ("77.1.4", "photography")];

/// Modalities (PS3.3 C.7.3.1.1.1) of the same kind.
pub(crate) const BURNED_IN_MODALITIES: &[&str] = &["US", "SC", "XC", "ES"];

/// The SOP class of an instance that may be de-identified.
pub(crate) fn admit(number: usize, instance: &Instance, burned_in: BurnedIn) -> Result<String> {
    let class = sop_class(number, instance)?;
    if let (BurnedIn::Quarantine, Some(sign)) = (burned_in, sign_of_burned_in_text(&class, &instance.dataset)) {
        return Err(Error::new(Kind::BurnedInText, format!("instance {number}: {sign}")));
    }
    Ok(class)
}

fn sop_class(number: usize, instance: &Instance) -> Result<String> {
    let refuse = |why: &str| Err(Error::new(Kind::SopClassQuarantined, format!("instance {number}: {why}")));
    let inner = text(&instance.dataset, Tag(0x0008, 0x0016));
    let outer = instance.meta.media_storage_sop_class_uid.trim_end_matches([' ', '\0']);
    let class = match (inner.as_deref().unwrap_or(""), outer) {
        ("", "") => return refuse("no SOP class"),
        ("", outer) => outer,
        (inner, "") => inner,
        (inner, outer) if inner == outer => inner,
        _ => return refuse("file meta information and data set name different SOP classes"),
    };
    let Some(rest) = class.strip_prefix(STORAGE).and_then(|rest| rest.strip_prefix('.')) else {
        return refuse(if uids::is_registered(class) { "not a storage SOP class" } else { "a private SOP class" });
    };
    // Classes 66.x are registrations and segmentations, which are ordinary data sets; 66 itself is raw data.
    match WITHOUT_RULE.iter().find(|(number, _)| if *number == "66" { rest == "66" } else { is_under(rest, number) }) {
        Some((_, what)) => refuse(what),
        None => Ok(class.to_owned()),
    }
}

/// What in the header says that text may be burned into the pixels.
fn sign_of_burned_in_text(class: &str, dataset: &InMemDicomObject) -> Option<String> {
    let rest = class.strip_prefix(STORAGE).and_then(|rest| rest.strip_prefix('.')).unwrap_or("");
    if let Some((_, what)) = BURNED_IN_CLASSES.iter().find(|(number, _)| is_under(rest, number)) {
        return Some(format!("SOP class of {what}"));
    }
    let modality = text(dataset, Tag(0x0008, 0x0060)).unwrap_or_default();
    if BURNED_IN_MODALITIES.contains(&modality.as_str()) {
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

fn is_under(rest: &str, number: &str) -> bool {
    rest.strip_prefix(number).is_some_and(|tail| tail.is_empty() || tail.starts_with('.'))
}

fn text(item: &InMemDicomObject, tag: Tag) -> Option<String> {
    texts(item.get(tag)?.value().primitive()?).into_iter().next().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deid::attributes::file_meta;
    use dicom_core::value::{DataSetSequence, Value};
    use dicom_core::{DataElement, PrimitiveValue, VR, header::Length};

    fn instance(inner: &str, outer: &str) -> Instance {
        let class = DataElement::new(Tag(0x0008, 0x0016), VR::UI, PrimitiveValue::from(inner));
        Instance { meta: file_meta(outer, "1.2.3", "1.2.840.10008.1.2.1").unwrap(), dataset: InMemDicomObject::from_element_iter([class]) }
    }

    fn check(instance: &Instance, kind: Option<Kind>) {
        assert_eq!(admit(0, instance, BurnedIn::Quarantine).err().map(|error| error.kind()), kind);
    }

    /// SOP classes of PS3.4 Table B.5-1.
    #[test]
    fn objects_without_a_rule_are_quarantined() {
        for (class, kind) in [
            ("1.2.840.10008.5.1.4.1.1.4", None),                                // MR
            ("1.2.840.10008.5.1.4.1.1.4.1", None),                              // Enhanced MR
            ("1.2.840.10008.5.1.4.1.1.66.4", None),                             // Segmentation
            ("1.2.840.10008.5.1.4.1.1.77.1.6", None),                           // Whole slide
            ("1.2.840.10008.5.1.4.1.1.66", Some(Kind::SopClassQuarantined)),    // Raw data
            ("1.2.840.10008.5.1.4.1.1.88.11", Some(Kind::SopClassQuarantined)), // Basic Text SR
            ("1.2.840.10008.5.1.4.1.1.88.59", Some(Kind::SopClassQuarantined)), // Key object selection
            ("1.2.840.10008.5.1.4.1.1.104.1", Some(Kind::SopClassQuarantined)), // Encapsulated PDF
            ("1.2.840.10008.5.1.4.1.1.9.4.1", Some(Kind::SopClassQuarantined)), // Voice
            ("1.2.840.10008.1.3.10", Some(Kind::SopClassQuarantined)),          // DICOMDIR
            ("1.3.46.670589.11.0.0.12.1", Some(Kind::SopClassQuarantined)),     // Philips private
            ("", Some(Kind::SopClassQuarantined)),
            ("1.2.840.10008.5.1.4.1.1.7", Some(Kind::BurnedInText)), // Secondary capture
            ("1.2.840.10008.5.1.4.1.1.7.2", Some(Kind::BurnedInText)),
            ("1.2.840.10008.5.1.4.1.1.6.1", Some(Kind::BurnedInText)), // Ultrasound
            ("1.2.840.10008.5.1.4.1.1.77.1.1", Some(Kind::BurnedInText)), // Endoscopy
            ("1.2.840.10008.5.1.4.1.1.77.1.4", Some(Kind::BurnedInText)), // Photography
        ] {
            check(&instance(class, class), kind);
        }
        check(&instance("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2"), Some(Kind::SopClassQuarantined));
        check(&instance("", "1.2.840.10008.5.1.4.1.1.2"), None);
    }

    #[test]
    fn signs_of_burned_in_text_are_found_at_any_depth() {
        let put = |tag: (u16, u16), vr, text: &str, nested: bool| {
            let mut instance = instance("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.1");
            let texts: Vec<&str> = text.split('\\').collect();
            let element =
                DataElement::new(Tag(tag.0, tag.1), vr, PrimitiveValue::Strs(texts.iter().map(|text| text.to_string()).collect()));
            if nested {
                let item = InMemDicomObject::from_element_iter([element]);
                let sequence = Value::Sequence(DataSetSequence::new(vec![item], Length::UNDEFINED));
                instance.dataset.put(DataElement::new(Tag(0x5200, 0x9229), VR::SQ, sequence));
            } else {
                instance.dataset.put(element);
            }
            instance
        };
        for nested in [false, true] {
            for (text, kind) in [
                ("ORIGINAL\\PRIMARY\\AXIAL", None),
                ("DERIVED\\SECONDARY", Some(Kind::BurnedInText)),
                ("DERIVED\\PRIMARY\\SCREEN SAVE", Some(Kind::BurnedInText)),
            ] {
                check(&put((0x0008, 0x0008), VR::CS, text, nested), kind);
            }
            check(&put((0x0028, 0x0301), VR::CS, "YES", nested), Some(Kind::BurnedInText));
            check(&put((0x0028, 0x0301), VR::CS, "NO", nested), None);
        }
        check(&put((0x0008, 0x0060), VR::CS, "US", false), Some(Kind::BurnedInText));
        let accepted = put((0x0028, 0x0301), VR::CS, "YES", false);
        assert!(admit(0, &accepted, BurnedIn::Accept).is_ok());
    }
}
