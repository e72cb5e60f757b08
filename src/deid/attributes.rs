//! What a released instance says about itself: that it was de-identified, how, and who wrote the file.
//!
//! PS3.15 E.1.1 asks for Patient Identity Removed, the method in words or codes (CID 7050), and the state of the dates; E.2 and
//! PS3.10 7.1 for a preamble and file meta information of the writer's own. Whatever the input said in these places is gone
//! by then: an earlier party's words are free text like any other.

use dicom_core::header::Length;
use dicom_core::value::{DataSetSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Tag, VR};
use dicom_object::InMemDicomObject;

use super::rules::Rules;
use super::table::{Choice, MethodCode};
use crate::dicom::writer::IMPLEMENTATION_VERSION_NAME;

/// The CID 7050 codes of what was done: the Basic Profile, each option, and Clean Pixel Data where regions were blacked out.
pub(crate) fn codes(rules: &Rules, is_blacked_out: bool) -> Vec<&'static MethodCode> {
    let options = rules.choices.iter().map(Choice::name).chain(is_blacked_out.then_some(PIXELS));
    std::iter::once("basic").chain(options).filter_map(|key| rules.tables.code(key)).collect()
}

/// The key of Clean Pixel Data (113101) in the table of codes.
const PIXELS: &str = "clean_pixel_data";

/// De-identification Method. LO, at most 64 characters a value: the edition here, the names in the codes.
pub(crate) fn method(rules: &Rules) -> String {
    format!("DICOM PS3.15 {} Annex E; {}", rules.tables.edition, IMPLEMENTATION_VERSION_NAME)
}

/// Writes the attributes that every released data set carries.
pub(crate) fn declare(dataset: &mut InMemDicomObject, rules: &Rules, is_blacked_out: bool) {
    let codes = codes(rules, is_blacked_out);
    if is_blacked_out {
        // PS3.15 E.3.1: what was burned in is removed.
        dataset.put(DataElement::new(Tag(0x0028, 0x0301), VR::CS, PrimitiveValue::from("NO")));
    }
    let method = method(rules);
    let dates = if rules.choices.has(Choice::ModifiedDates) {
        "MODIFIED"
    } else if rules.choices.has(Choice::FullDates) {
        "UNMODIFIED"
    } else {
        "REMOVED"
    };
    // Text that stays is written as Unicode, whatever it was read as: one character set for every reader and for the residual check.
    for (tag, vr, text) in [
        (Tag(0x0008, 0x0005), VR::CS, "ISO_IR 192"),
        (Tag(0x0012, 0x0062), VR::CS, "YES"),
        (Tag(0x0012, 0x0063), VR::LO, method.as_str()),
        (Tag(0x0028, 0x0303), VR::CS, dates),
    ] {
        dataset.put(DataElement::new(tag, vr, PrimitiveValue::from(text)));
    }
    let items = codes.iter().map(|code| {
        let text = |element, vr, text: &str| DataElement::new(Tag(0x0008, element), vr, PrimitiveValue::from(text));
        InMemDicomObject::from_element_iter([
            text(0x0100, VR::SH, &code.value),
            text(0x0102, VR::SH, "DCM"),
            text(0x0104, VR::LO, &code.meaning),
        ])
    });
    let items = Value::Sequence(DataSetSequence::new(items.collect::<Vec<_>>(), Length::UNDEFINED));
    dataset.put(DataElement::new(Tag(0x0012, 0x0064), VR::SQ, items));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deid::rules::Choices;
    use crate::deid::table::tables;
    use crate::deid::value::texts;

    fn declared(choices: &[Choice]) -> InMemDicomObject {
        let choices = choices.iter().fold(Choices::default(), |all, choice| all.with(*choice));
        let mut dataset = InMemDicomObject::new_empty();
        declare(&mut dataset, &Rules { tables: tables().unwrap(), choices }, false);
        dataset
    }

    /// Codes of PS3.16 CID 7050; terms of PS3.15 E.3.6 and PS3.3 C.7.6.3.1.9.
    #[test]
    fn a_released_data_set_says_what_was_done() {
        for (choices, expected_codes, dates) in [
            (&[][..], &["113100"][..], "REMOVED"),
            (&[Choice::FullDates], &["113100", "113106"], "UNMODIFIED"),
            (&[Choice::Uids, Choice::ModifiedDates], &["113100", "113110", "113107"], "MODIFIED"),
        ] {
            let dataset = declared(choices);
            let items = dataset.get(Tag(0x0012, 0x0064)).unwrap().items().unwrap();
            let codes: Vec<String> = items.iter().map(|item| item.get(Tag(0x0008, 0x0100)).unwrap().to_str().unwrap().into()).collect();
            assert_eq!(codes, expected_codes);
            assert_eq!(dataset.get(Tag(0x0028, 0x0303)).unwrap().to_str().unwrap(), dates);
            assert_eq!(dataset.get(Tag(0x0012, 0x0062)).unwrap().to_str().unwrap(), "YES");
        }
        let method = declared(&Choice::ALL);
        let method = texts(method.get(Tag(0x0012, 0x0063)).unwrap().value().primitive().unwrap());
        assert!(method.iter().all(|text| text.len() <= 64));
        assert!(IMPLEMENTATION_VERSION_NAME.len() <= 16);
    }
}
