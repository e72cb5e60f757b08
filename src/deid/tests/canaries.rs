//! A recognisable value in every concrete attribute of Table E.1-1, at three depths, and in every place that is no attribute at all.
//!
//! What must survive under which option is worked out here from the table's own file, not by the code under test.

use super::*;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_dictionary_std::StandardDataDictionary;
use serde_json::Value as Json;
use time::{Date, Duration, Month};

/// A row as its file has it.
struct Row {
    number: usize,
    tag: Tag,
    vr: VR,
    options: serde_json::Map<String, Json>,
}

impl Row {
    fn letter(&self, option: &str) -> &str {
        self.options.get(option).and_then(Json::as_str).unwrap_or("")
    }
}

/// Rows with one tag and one VR. Groups 0000, 0002 and 0004 have no place in a data set and are tested apart.
fn rows() -> Vec<Row> {
    let file: Json = serde_json::from_str(include_str!("../tables/e1-1.json")).unwrap();
    let rows: Vec<Row> = file["rows"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .filter_map(|(number, row)| {
            let tag = table::tag_of(row[0].as_str()?)?;
            let vr = row[3].as_str()?.parse().ok()?;
            Some(Row { number, tag, vr, options: row[5].as_object()?.clone() })
        })
        .filter(|row| !matches!(row.tag.group(), 0x0000 | 0x0002 | 0x0004))
        .collect();
    // 657 rows, less 50xx, two of 60xx, the private row, and (0000,1000) (0000,1001) (0002,0003) (0004,1511).
    assert_eq!(rows.len(), 657 - 4 - 4);
    rows
}

const DEPTHS: usize = 3;

fn marker(row: &Row, depth: usize) -> String {
    format!("CNRY{:04}{}", row.number, ["A", "B", "C"][depth])
}

fn date(row: &Row, depth: usize) -> String {
    let date = Date::from_calendar_date(1951, Month::January, 1).unwrap() + Duration::days((row.number * DEPTHS + depth) as i64);
    format!("{:04}{:02}{:02}", date.year(), u8::from(date.month()), date.day())
}

/// The canary of a row at a depth: valid for its VR and unlike any other.
fn canary(row: &Row, depth: usize) -> InMemElement {
    let serial = row.number * DEPTHS + depth;
    let tag = (row.tag.0, row.tag.1);
    match row.vr {
        VR::SQ => {
            let inside = object([
                text((0x0010, 0x0010), VR::PN, &marker(row, depth)),
                text((0x0008, 0x0100), VR::SH, &marker(row, depth)),
                text((0x0008, 0x0102), VR::SH, "99LOCAL"),
                text((0x0008, 0x0104), VR::LO, &marker(row, depth)),
                text((0x0040, 0xA160), VR::UT, &marker(row, depth)),
            ]);
            sequence(tag, vec![inside])
        }
        VR::DA => text(tag, VR::DA, &date(row, depth)),
        VR::TM => text(tag, VR::TM, &format!("101112.9{serial:05}")),
        VR::DT => text(tag, VR::DT, &format!("{}101112.9{serial:05}", date(row, depth))),
        VR::UI => text(tag, VR::UI, &format!("1.2.826.0.1.999.{serial}.7")),
        VR::AS => text(tag, VR::AS, "077Y"),
        VR::DS | VR::IS => text(tag, row.vr, &format!("9{serial}")),
        VR::US => DataElement::new(row.tag, VR::US, PrimitiveValue::from(40_000 + serial as u16)),
        VR::OB | VR::UN => DataElement::new(row.tag, row.vr, PrimitiveValue::U8(format!("{} ", marker(row, depth)).into_bytes().into())),
        // Timezone Offset From UTC has a form of its own.
        _ if row.tag == Tag(0x0008, 0x0201) => text(tag, row.vr, "+0130"),
        _ => text(tag, row.vr, &marker(row, depth)),
    }
}

/// Canaries at the top, in a shared functional group, and in a sequence of that group.
fn harness(class: &str, canary: impl Fn(&Row, usize) -> InMemElement) -> Vec<Instance> {
    let rows = rows();
    let at = |depth: usize| rows.iter().map(|row| canary(row, depth)).collect::<Vec<_>>();
    let mut inner = object(at(2));
    // These say to the rules what an item is; at depth a canary there would turn the item into a code of a local scheme.
    let mut shared = object(at(1));
    shared.put(sequence((0x0020, 0x9111), vec![std::mem::replace(&mut inner, InMemDicomObject::new_empty())]));
    let mut instance = instance(class, 1);
    for element in at(0) {
        instance.dataset.put(element);
    }
    instance.dataset.put(sequence((0x5200, 0x9229), vec![shared]));
    vec![instance]
}

/// The items at the three depths of a released harness.
fn depths(study: &ReleasedStudy) -> [&InMemDicomObject; DEPTHS] {
    let top = &study.instances[0].dataset;
    let shared = &top.get(Tag(0x5200, 0x9229)).unwrap().items().unwrap()[0];
    [top, shared, &shared.get(Tag(0x0020, 0x9111)).unwrap().items().unwrap()[0]]
}

/// Whether the value of an input element stands unchanged in an output item.
fn survives(item: &InMemDicomObject, input: &InMemElement) -> bool {
    let Some(output) = item.get(dicom_core::header::Header::tag(input)) else { return false };
    match (input.value(), output.value()) {
        (Value::Primitive(before), Value::Primitive(after)) => value::texts(before) == value::texts(after) && after.multiplicity() > 0,
        (Value::Sequence(_), Value::Sequence(after)) => !after.items().is_empty(),
        _ => false,
    }
}

#[test]
fn no_canary_survives_the_basic_profile() {
    for class in [MR, ENHANCED_MR, "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4.999"] {
        let released = run(harness(class, canary), &[]).unwrap();
        let output = bytes(&released);
        assert!(!holds(&output, b"CNRY"), "{class}");
        let mut survivors = Vec::new();
        for row in rows().iter().filter(|row| row.vr != VR::SQ) {
            for (depth, item) in depths(&released).into_iter().enumerate() {
                let element = canary(row, depth);
                let raw = element.to_str().map(|text| text.into_owned()).unwrap_or_default();
                // Ages and short numbers are not unlike everything else, so they are compared in place only.
                let in_bytes = raw.len() >= 8 && holds(&output, raw.as_bytes());
                if survives(item, &element) || in_bytes {
                    survivors.push((row.tag, depth));
                }
            }
        }
        assert_eq!(survivors, [], "{class}");
    }
}

/// The reading of K and C for each VR, as docs/de-identification.md states it.
#[test]
fn each_option_lets_exactly_its_rows_survive() {
    for option in Options::names() {
        let cleanable = |row: &Row, depth: usize| match (row.letter(option), row.vr) {
            ("C", VR::LO | VR::SH | VR::ST | VR::LT | VR::UT) if row.tag != Tag(0x0008, 0x0201) => {
                text((row.tag.0, row.tag.1), row.vr, &format!("BRAIN {}", marker(row, depth)))
            }
            ("C", VR::CS) => text((row.tag.0, row.tag.1), row.vr, "CORRECT"),
            _ => canary(row, depth),
        };
        let released = run(harness(MR, cleanable), &[option]).unwrap();
        let output = bytes(&released);
        let mut shifts = std::collections::BTreeSet::new();
        for row in rows() {
            for (depth, item) in depths(&released).into_iter().enumerate() {
                let input = cleanable(&row, depth);
                let what = format!("{option}: {} at depth {depth}", row.tag);
                let after = texts_at(item, (row.tag.0, row.tag.1)).unwrap_or_default();
                match (row.letter(option), row.vr) {
                    // A sequence that is kept or cleaned is there, and what names somebody inside is not.
                    ("K" | "C", VR::SQ) => assert!(survives(item, &input), "{what}"),
                    ("K", _) => assert!(survives(item, &input), "{what}"),
                    ("C", VR::DA | VR::DT) => {
                        let read = |text: &str| {
                            let month = Month::try_from(text[4..6].parse::<u8>().unwrap()).unwrap();
                            Date::from_calendar_date(text[..4].parse().unwrap(), month, text[6..8].parse().unwrap()).unwrap()
                        };
                        let before = input.to_str().unwrap().into_owned();
                        assert_eq!(after[0][8..], before[8..], "{what}");
                        shifts.insert((read(&before) - read(&after[0])).whole_days());
                    }
                    ("C", VR::TM) => assert!(survives(item, &input), "{what}"),
                    ("C", VR::AE) => assert!(after[0].starts_with("AE") && after[0].len() == 14, "{what}"),
                    ("C", VR::OB) => assert!(!survives(item, &input), "{what}"),
                    ("C", VR::CS) => assert_eq!(after, ["CORRECT"], "{what}"),
                    ("C", _) if row.tag == Tag(0x0008, 0x0201) => assert_eq!(after, ["+0130"], "{what}"),
                    ("C", _) => assert_eq!(after, ["BRAIN"], "{what}"),
                    // The Basic Profile may leave a sequence with nothing but dummies; its canary is looked for in the bytes below.
                    ("", VR::SQ) => {}
                    _ => assert!(!survives(item, &input), "{what}"),
                }
                // A marker in text or bytes stands in the output exactly where the table says K.
                let marked = holds(&output, marker(&row, depth).as_bytes());
                let expected = row.letter(option) == "K"
                    && !matches!(row.vr, VR::SQ | VR::DA | VR::TM | VR::DT | VR::UI | VR::AS | VR::DS | VR::IS | VR::US)
                    && row.tag != Tag(0x0008, 0x0201);
                assert_eq!(marked, expected, "{what}");
            }
        }
        if option == "retain_longitudinal_modified_dates" {
            let days = *shifts.first().unwrap();
            assert_eq!(shifts.len(), 1, "one patient, one shift");
            assert!(days % 7 == 0 && (52..=520).contains(&(days / 7)));
        }
    }
}

#[test]
fn repeating_groups_private_blocks_and_file_meta_hold_no_canary() {
    let mut canaried = instance(MR, 1);
    let bytes_of = |tag: (u16, u16), vr| DataElement::new(Tag(tag.0, tag.1), vr, PrimitiveValue::U8(b"CNRY9999 ".to_vec().into()));
    let places = || {
        [
            text((0x0009, 0x0010), VR::LO, "CNRY9990"),
            text((0x0009, 0x1001), VR::LO, "CNRY9991"),
            bytes_of((0x0009, 0x1002), VR::OB),
            bytes_of((0x0009, 0x1003), VR::UN),
            sequence((0x0009, 0x1004), vec![object([text((0x0010, 0x0020), VR::LO, "CNRY9992")])]),
            text((0x0009, 0x0001), VR::LO, "CNRY9993"),
            text((0x0011, 0x1001), VR::LO, "CNRY9994"),
            text((0x5000, 0x0022), VR::LO, "CNRY9995"),
            bytes_of((0x5002, 0x3000), VR::OB),
            text((0x6000, 0x0040), VR::CS, "G"),
            bytes_of((0x6000, 0x3000), VR::OB),
            text((0x6000, 0x4000), VR::LT, "CNRY9996"),
            text((0x60FE, 0x1500), VR::LO, "CNRY9997"),
            bytes_of((0x6002, 0x3000), VR::OB),
        ]
    };
    let nested = object(places());
    places().into_iter().for_each(|element| drop(canaried.dataset.put(element)));
    canaried.dataset.put(sequence((0x5200, 0x9230), vec![nested]));
    for tag in [(0x0000, 0x1000), (0x0000, 0x1001), (0x0002, 0x0016), (0x0004, 0x1511)] {
        canaried.dataset.put(text(tag, VR::UI, "CNRY9998"));
    }
    canaried.meta.source_application_entity_title = Some("CNRYAE1".to_owned());
    canaried.meta.sending_application_entity_title = Some("CNRYAE2".to_owned());
    canaried.meta.receiving_application_entity_title = Some("CNRYAE3".to_owned());
    canaried.meta.implementation_version_name = Some("CNRYIMPL".to_owned());
    canaried.meta.private_information_creator_uid = Some("1.2.826.0.1.31337".to_owned());
    canaried.meta.private_information = Some(b"CNRY".to_vec());
    let instance = Instance { meta: canaried.meta.clone(), dataset: canaried.dataset.clone() };
    let output = bytes(&run(vec![instance], &[]).unwrap());
    assert!(!holds(&output, b"CNRY") && !holds(&output, b"31337"));
    assert!(output[..128].iter().all(|byte| *byte == 0));
    for option in Options::names() {
        let instance = Instance { meta: canaried.meta.clone(), dataset: canaried.dataset.clone() };
        assert!(!holds(&bytes(&run(vec![instance], &[option]).unwrap()), b"CNRY"), "{option}");
    }
}

/// Every text attribute of the public dictionary that neither the table nor our lists name.
#[test]
fn text_that_no_table_names_goes() {
    let tables = tables().unwrap();
    let listed = |tag: Tag| {
        let key = (tag.0, tag.1);
        lists::TECHNICAL_TEXTS.contains(&key)
            || lists::VOCABULARY_TEXTS.iter().any(|(listed, _)| *listed == key)
            || matches!(tag, Tag(0x0008, 0x0100..=0x0104 | 0x0119))
    };
    let mut unlisted = Vec::new();
    for group in
        (0x0008..=0x0088u16).step_by(2).chain([0x0400, 0x2000, 0x2100, 0x2200, 0x3002, 0x3006, 0x3008, 0x300A, 0x3010, 0x4008, 0x4010])
    {
        for element in 1..=u16::MAX {
            let tag = Tag(group, element);
            let Some(VirtualVr::Exact(vr)) = StandardDataDictionary.by_tag(tag).map(|entry| entry.vr()) else { continue };
            let is_free = matches!(vr, VR::LO | VR::SH | VR::ST | VR::LT | VR::UT | VR::UC | VR::UR | VR::AE | VR::PN | VR::OB | VR::UN);
            if is_free && tables.row(tag).is_none() && !listed(tag) {
                unlisted.push((tag, vr));
            }
        }
    }
    // The public dictionary of pydicom 3.0.1 has 396 such attributes in these groups; ours is a little newer.
    assert!(unlisted.len() > 350, "{}", unlisted.len());
    let elements = || {
        unlisted.iter().map(|(tag, vr)| match vr {
            VR::OB | VR::UN => DataElement::new(*tag, *vr, PrimitiveValue::U8(b"CNRY".to_vec().into())),
            _ => text((tag.0, tag.1), *vr, "CNRYxxx"),
        })
    };
    let mut instance = instance(MR, 1);
    instance.dataset.put(sequence((0x5200, 0x9229), vec![object(elements())]));
    elements().for_each(|element| drop(instance.dataset.put(element)));
    for names in
        [&[][..], &["clean_descriptors", "retain_device_identity", "retain_institution_identity", "retain_patient_characteristics"]]
    {
        let copy = Instance { meta: instance.meta.clone(), dataset: instance.dataset.clone() };
        assert!(!holds(&bytes(&run(vec![copy], names).unwrap()), b"CNRY"));
    }
}
