//! Content items: name, value type and value of a statement, as acquisition contexts and specimen preparations hold them.
//!
//! With Clean Structured Content chosen, the sequences that Table E.1-1 marks for it keep those items that can be judged by their
//! concept name (Table E.3.4-1) and value type: measurements and codes stay, what people wrote or signed goes, dates and references
//! follow their own options. Without the option the sequences themselves get the Basic Profile's action.

use dicom_core::Tag;
use dicom_object::InMemDicomObject;

use super::lists::PUBLIC_SCHEMES;
use super::rules::{Choices, Rules, Scheme};
use super::table::{Choice, Code, Relief};
use super::value::texts;

/// What is done with one item of a cleaned sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The item goes.
    Drop,
    /// The item stays; a text in it goes.
    Admit,
    /// The item stays with its text, because an option says so.
    AdmitText(Relief),
}

/// Judges an item of a cleaned sequence. Items without a concept name are containers and are judged element by element.
pub(crate) fn judge(rules: &Rules, item: &InMemDicomObject) -> Verdict {
    let Some(name) = item.get(Tag(0x0040, 0xA043)).and_then(|element| element.items()).and_then(|items| items.first()) else {
        return Verdict::Admit;
    };
    let kind = text(item, Tag(0x0040, 0xA040)).unwrap_or_default();
    let concept = text(name, Tag(0x0008, 0x0102)).zip(text(name, Tag(0x0008, 0x0100)));
    if let Some(concept) = concept.and_then(|(scheme, code)| rules.tables.concept(&scheme, &code)) {
        let mut reliefs = concept.reliefs.iter().filter(|(choice, _)| rules.choices.has(*choice)).map(|(_, relief)| *relief);
        // As for attributes: where one option keeps and another cleans, cleaning is done. U would remap, which admitting does.
        return match (reliefs.clone().any(|relief| relief == Relief::Clean), reliefs.next()) {
            (true, _) => Verdict::AdmitText(Relief::Clean),
            (false, Some(_)) => Verdict::AdmitText(Relief::Keep),
            (false, None) if concept.basic == Code::U => Verdict::Admit,
            (false, None) => Verdict::Drop,
        };
    }
    match kind.as_str() {
        "NUM" | "CODE" | "CONTAINER" | "UIDREF" | "IMAGE" | "COMPOSITE" | "WAVEFORM" => Verdict::Admit,
        "DATE" | "TIME" | "DATETIME" if has_dates(rules.choices) => Verdict::Admit,
        _ => Verdict::Drop,
    }
}

/// What the code triplet of an item can be trusted with.
pub(crate) fn scheme_of(item: &InMemDicomObject) -> Scheme {
    let has_code = [Tag(0x0008, 0x0100), Tag(0x0008, 0x0119), Tag(0x0008, 0x0120)].iter().any(|tag| item.get(*tag).is_some());
    match text(item, Tag(0x0008, 0x0102)) {
        Some(designator) if PUBLIC_SCHEMES.contains(&designator.as_str()) => Scheme::Public,
        Some(_) => Scheme::Local,
        None if has_code => Scheme::Local,
        None => Scheme::None,
    }
}

fn has_dates(choices: Choices) -> bool {
    choices.has(Choice::FullDates) || choices.has(Choice::ModifiedDates)
}

fn text(item: &InMemDicomObject, tag: Tag) -> Option<String> {
    texts(item.get(tag)?.value().primitive()?).into_iter().next().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deid::table::tables;
    use dicom_core::value::{DataSetSequence, Value};
    use dicom_core::{DataElement, PrimitiveValue, VR, header::Length};

    fn item(kind: &str, scheme: &str, code: &str) -> InMemDicomObject {
        let text = |tag, vr, text: &str| DataElement::new(tag, vr, PrimitiveValue::from(text));
        let name = InMemDicomObject::from_element_iter([
            text(Tag(0x0008, 0x0100), VR::SH, code),
            text(Tag(0x0008, 0x0102), VR::SH, scheme),
            text(Tag(0x0008, 0x0104), VR::LO, "meaning"),
        ]);
        let name = Value::Sequence(DataSetSequence::new(vec![name], Length::UNDEFINED));
        InMemDicomObject::from_element_iter([text(Tag(0x0040, 0xA040), VR::CS, kind), DataElement::new(Tag(0x0040, 0xA043), VR::SQ, name)])
    }

    /// Rows of Table E.3.4-1: 121022 Accession Number X; 125203 Acquisition Protocol X, C with Clean Descriptors; 126201 Acquisition
    /// Date X, K and C with the date options.
    #[test]
    fn items_are_judged_by_concept_and_value_type() {
        let check = |choices: &[Choice], kind, scheme, code, verdict| {
            let choices = choices.iter().fold(Choices::default(), |all, choice| all.with(*choice));
            let rules = Rules { tables: tables().unwrap(), choices };
            assert_eq!(judge(&rules, &item(kind, scheme, code)), verdict, "{kind} {code}");
        };
        check(&[], "TEXT", "DCM", "121022", Verdict::Drop);
        check(&[], "TEXT", "DCM", "125203", Verdict::Drop);
        check(&[Choice::Descriptors], "TEXT", "DCM", "125203", Verdict::AdmitText(Relief::Clean));
        check(&[Choice::FullDates], "DATE", "DCM", "126201", Verdict::AdmitText(Relief::Keep));
        check(&[], "DATE", "DCM", "126201", Verdict::Drop);
        check(&[], "NUM", "SCT", "no row", Verdict::Admit);
        check(&[], "TEXT", "SCT", "no row", Verdict::Drop);
        check(&[], "PNAME", "SCT", "no row", Verdict::Drop);
    }

    #[test]
    fn only_published_coding_schemes_are_trusted() {
        let scheme = |designator: &str| {
            let element = DataElement::new(Tag(0x0008, 0x0102), VR::SH, PrimitiveValue::from(designator));
            scheme_of(&InMemDicomObject::from_element_iter([element]))
        };
        assert_eq!(scheme("SCT "), Scheme::Public);
        assert_eq!(scheme("99STMARYS"), Scheme::Local);
        assert_eq!(scheme_of(&InMemDicomObject::new_empty()), Scheme::None);
    }
}
