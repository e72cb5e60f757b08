//! Studies that are not touched at all, because no rule here could make them safe.
//!
//! Three kinds of object are refused before anything else happens: those whose identity lies in text, waveforms or documents rather
//! than in attributes (structured reports, encapsulated documents, directories, raw and private data), those whose pixels may carry
//! burned-in text (`burned_in`), and those that do not say what they are. Pixels are not looked at: the decision is by header alone.

use dicom_core::Tag;
use dicom_object::InMemDicomObject;

use super::burned_in::{self, BurnedIn, STORAGE, is_under};
use super::device_rules::DeviceRules;
use super::uids;
use super::value::texts;
use crate::dicom::{Instance, Region};
use crate::error::{Error, Kind, Result};

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

/// The SOP class of an instance that may be de-identified. `blacked_out` are the regions of its frames that were overwritten.
pub(crate) fn admit(
    number: usize,
    instance: &Instance,
    policy: &BurnedIn,
    rules: &[&DeviceRules],
    blacked_out: &[Region],
) -> Result<String> {
    let class = sop_class(number, instance)?;
    if let BurnedIn::Allow(_) = policy {
        return Ok(class);
    }
    let refuse =
        |why: String, hint: &str| Err(Error::new(Kind::BurnedInText, format!("instance {number}: {why}")).with_hint(hint.to_owned()));
    const LOOK: &str = "somebody must look at the pixels: set deid.burned_in to allow, with a reason, if they carry no text";
    const RULE: &str = "no rule says where the text stands: add one for the device to deid.device_rules";
    const CHOOSE: &str = "set deid.burned_in to blackout, or to allow with a reason when somebody has looked at the pixels";
    let dataset = &instance.dataset;
    if let Some(name) = burned_in::refusal(rules, dataset) {
        return refuse(format!("rule {name} of devices: the image may be a page of text"), LOOK);
    }
    match (policy, burned_in::regions(rules, &class, dataset), burned_in::sign(&class, dataset)) {
        (BurnedIn::BlackOut, Some(regions), _) if regions != blacked_out => {
            refuse("its regions of text were not blacked out".to_owned(), LOOK)
        }
        (BurnedIn::BlackOut, Some(_), _) => Ok(class),
        (BurnedIn::BlackOut, None, Some(sign)) => refuse(sign, RULE),
        // A rule without regions says that the device writes no text.
        (_, Some(regions), _) if regions.is_empty() => Ok(class),
        (_, _, Some(sign)) => refuse(sign, CHOOSE),
        (_, Some(_), None) => refuse("a device that is known to write text".to_owned(), CHOOSE),
        (_, None, None) => Ok(class),
    }
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

fn text(item: &InMemDicomObject, tag: Tag) -> Option<String> {
    texts(item.get(tag)?.value().primitive()?).into_iter().next().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::writer::file_meta;
    use dicom_core::value::{DataSetSequence, Value};
    use dicom_core::{DataElement, PrimitiveValue, VR, header::Length};

    fn instance(inner: &str, outer: &str) -> Instance {
        let class = DataElement::new(Tag(0x0008, 0x0016), VR::UI, PrimitiveValue::from(inner));
        Instance { meta: file_meta(outer, "1.2.3", "1.2.840.10008.1.2.1").unwrap(), dataset: InMemDicomObject::from_element_iter([class]) }
    }

    fn check(instance: &Instance, kind: Option<Kind>) {
        let rules = [DeviceRules::built_in().unwrap()];
        assert_eq!(admit(0, instance, &BurnedIn::Quarantine, &rules, &[]).err().map(|error| error.kind()), kind);
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
        let looked_at = BurnedIn::Allow("read by a radiologist".to_owned());
        assert!(admit(0, &accepted, &looked_at, &[], &[]).is_ok());
    }
}
