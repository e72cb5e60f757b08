//! What the options do beyond the table's letters, what is refused, and what the output says.

use super::*;

#[test]
fn unknown_and_contradicting_options_are_refused_with_the_valid_names() {
    for names in [&["retain_everything"][..], &["retain_longitudinal_full_dates", "retain_longitudinal_modified_dates"]] {
        let error = run(vec![instance(MR, 1)], names).err().unwrap();
        assert_eq!(error.kind(), Kind::ConfigInvalidValue);
    }
    let error = options(&["clean_pixel_data"]).check().unwrap_err();
    for name in Options::names() {
        assert!(error.hint().unwrap().contains(name));
    }
    assert_eq!(Options::names().count(), 10);
    for (name, shift) in
        [("patient", Some(DateShift::Patient)), ("weeks:104", Some(DateShift::Weeks(104))), ("weeks:0", None), ("days:3", None)]
    {
        assert_eq!(DateShift::from_name(name).ok(), shift);
    }
    for (name, reason, policy) in [
        ("quarantine", "", Some(BurnedIn::Quarantine)),
        ("blackout", "", Some(BurnedIn::BlackOut)),
        ("allow", "seen by two readers ", Some(BurnedIn::Allow("seen by two readers".to_owned()))),
        ("allow", " ", None),
        ("allow", "line\nbreak", None),
        ("", "", None),
    ] {
        assert_eq!(BurnedIn::from_name(name, reason).ok(), policy);
    }
}

#[test]
fn a_study_without_a_patient_or_a_key_is_refused() {
    for id in ["", "  "] {
        let mut nameless = instance(MR, 1);
        nameless.dataset.put(text((0x0010, 0x0020), VR::LO, id));
        assert_eq!(run(vec![nameless], &[]).err().unwrap().kind(), Kind::PatientIdMissing);
    }
    let mut other = instance(MR, 2);
    other.dataset.put(text((0x0010, 0x0020), VR::LO, "SOMEBODY-ELSE"));
    assert_eq!(run(vec![instance(MR, 1), other], &[]).err().unwrap().kind(), Kind::DicomMalformed);
    let unset = Secret::new([0; 32]);
    let result = deidentify(study(vec![instance(MR, 1)]), &Options::default(), &unset, &Control::new());
    assert_eq!(result.err().unwrap().kind(), Kind::ProjectKeyMissing);
}

#[test]
fn cancelling_releases_nothing() {
    let control = Control::new();
    control.cancel();
    let result = deidentify(study(vec![instance(MR, 1)]), &Options::default(), &key(), &control);
    assert_eq!(result.err().unwrap().kind(), Kind::Cancelled);
}

#[test]
fn an_identifier_in_a_kept_attribute_stops_the_study() {
    for (tag, vr, value, stops) in [
        ((0x0018, 0x0015), VR::CS, "QUUXFELD", true),
        ((0x0018, 0x0022), VR::CS, "OF ZAPHIRA", true),
        ((0x0018, 0x0022), VR::CS, "PID-998877", true),
        // A date inside a longer word is a number: the rule says that it must stand alone.
        ((0x0018, 0x0022), VR::CS, "X19610307", false),
    ] {
        let mut leaking = instance(MR, 1);
        leaking.dataset.put(text((0x0010, 0x0030), VR::DA, "19610307"));
        leaking.dataset.put(text(tag, vr, value));
        let result = run(vec![instance(MR, 2), leaking], &[]);
        assert_eq!(result.is_err(), stops, "{value}");
        let Some(error) = result.err() else { continue };
        assert_eq!(error.kind(), Kind::ResidualIdentifier);
        assert!(error.detail().contains("(0010,00") && error.detail().contains("instance 1"), "{error}");
        assert!(!error.to_string().to_uppercase().contains("ZAPHIRA") && !error.to_string().contains("998877"));
    }
}

#[test]
fn an_identifier_in_a_technical_text_costs_the_text() {
    for (tag, vr, value, expected) in [
        ((0x0008, 0x0070), VR::LO, "Scanner of Zaphira", "ANONYMIZED"),
        ((0x0018, 0x1020), VR::LO, "5.1 pid-998877", "ANONYMIZED"),
        ((0x0018, 0x0024), VR::SH, "*tfl3d1_16ns", "*tfl3d1_16ns"),
    ] {
        let mut leaking = instance(MR, 1);
        let nested = object([text(tag, vr, value)]);
        leaking.dataset.put(text(tag, vr, value));
        leaking.dataset.put(sequence((0x5200, 0x9229), vec![nested]));
        let released = run(vec![leaking, instance(MR, 2)], &[]).unwrap();
        let dataset = &released.instances[0].dataset;
        assert_eq!(texts_at(dataset, tag).unwrap(), [expected]);
        assert_eq!(texts_at(&dataset.get(Tag(0x5200, 0x9229)).unwrap().items().unwrap()[0], tag).unwrap(), [expected]);
    }
}

#[test]
fn what_analysis_needs_is_still_there() {
    let released = run(vec![instance(MR, 7)], &[]).unwrap();
    let dataset = &released.instances[0].dataset;
    for tag in [
        (0x0008, 0x0008),
        (0x0008, 0x0060),
        (0x0008, 0x0070),
        (0x0018, 0x0050),
        (0x0020, 0x0013),
        (0x0020, 0x0032),
        (0x0020, 0x0037),
        (0x0028, 0x0010),
        (0x0028, 0x0030),
    ] {
        assert_eq!(texts_at(dataset, tag), texts_at(&instance(MR, 7).dataset, tag), "{tag:04X?}");
    }
    assert_eq!(texts_at(dataset, (0x0008, 0x0016)).unwrap(), [MR]);
    let report = released.report();
    assert!(report.deidentified && report.codes == ["113100"]);
    assert_eq!(texts_at(dataset, (0x0010, 0x0020)).unwrap(), std::slice::from_ref(&report.pseudonym));
    assert_eq!(texts_at(dataset, (0x0010, 0x0010)).unwrap(), std::slice::from_ref(&report.pseudonym));
    assert_eq!(
        released.instances[0].meta.media_storage_sop_instance_uid.trim_end_matches('\0'),
        texts_at(dataset, (0x0008, 0x0018)).unwrap()[0]
    );
}

#[test]
fn the_metadata_is_that_of_the_released_study_only() {
    let released = run(vec![instance(MR, 7)], &[]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&released.metadata_json().unwrap()).unwrap();
    assert_eq!(json["00120062"]["Value"][0], "YES");
    assert_eq!(json["00100020"]["Value"][0], released.report().pseudonym);
    assert_eq!(json["00280010"], serde_json::json!({"vr": "US", "Value": [256]}));
    let identified = release_identified(study(vec![instance(MR, 7)]));
    assert!(!identified.report().deidentified);
    assert_eq!(identified.metadata_json().unwrap(), r#"{"00120062":{"Value":["NO"],"vr":"CS"}}"#);
}

#[test]
fn ages_above_89_are_cut_where_ages_are_kept() {
    for (before, after) in [("093Y", "090Y"), ("045Y", "045Y")] {
        let mut aged = instance(MR, 1);
        aged.dataset.put(text((0x0010, 0x1010), VR::AS, before));
        let released = run(vec![aged], &["retain_patient_characteristics"]).unwrap();
        assert_eq!(texts_at(&released.instances[0].dataset, (0x0010, 0x1010)).unwrap(), [after]);
    }
}

/// Rows of Table E.3.10-1: (2005,xx0D) and (2005,xx0E) of "Philips MR Imaging DD 001", (2001,xx5F) SQ and (2001,xx03) FL of
/// "Philips Imaging DD 001", (0099,xx02) UI of "NQHeader".
#[test]
fn safe_private_elements_keep_their_creators_and_are_looked_into() {
    let item = |elements: &[((u16, u16), &[u8])]| {
        let mut bytes = Vec::new();
        for ((group, element), value) in elements {
            bytes.extend([group.to_le_bytes(), element.to_le_bytes()].concat());
            bytes.extend((value.len() as u32).to_le_bytes());
            bytes.extend(*value);
        }
        let length = (bytes.len() as u32).to_le_bytes();
        [&[0xFE, 0xFF, 0x00, 0xE0], &length[..], &bytes].concat()
    };
    let unknown = |tag: (u16, u16), bytes: Vec<u8>| DataElement::new(Tag(tag.0, tag.1), VR::UN, PrimitiveValue::U8(bytes.into()));
    let stack = item(&[
        ((0x0010, 0x0010), b"Quuxfeld"),
        ((0x2001, 0x0010), b"Philips Imaging DD 001"),
        ((0x2001, 0x1003), &1000f32.to_le_bytes()),
        ((0x2001, 0x1099), b"a secret"),
    ]);
    let mut vendor = instance(MR, 1);
    for element in [
        text((0x2001, 0x0010), VR::LO, "Philips Imaging DD 001"),
        unknown((0x2001, 0x105F), stack),
        text((0x2005, 0x0013), VR::LO, "Philips MR Imaging DD 001"),
        DataElement::new(Tag(0x2005, 0x130E), VR::FL, PrimitiveValue::from(0.5f32)),
        text((0x2005, 0x1301), VR::LO, "not on the list"),
        text((0x2005, 0x0014), VR::LO, "Philips MR Imaging DD 005"),
        text((0x2005, 0x1401), VR::LO, "not on the list either"),
        text((0x0099, 0x0010), VR::LO, "NQHeader"),
        text((0x0099, 0x1002), VR::UI, "1.2.826.0.1.999.5"),
        // The list says DS: text under that tag is not what was called safe.
        text((0x2001, 0x1023), VR::LO, "Quuxfeld"),
    ] {
        vendor.dataset.put(element);
    }
    let released = run(vec![vendor], &["retain_safe_private"]).unwrap();
    let dataset = &released.instances[0].dataset;
    assert_eq!(texts_at(dataset, (0x2005, 0x0013)).unwrap(), ["Philips MR Imaging DD 001"]);
    assert_eq!(dataset.get(Tag(0x2005, 0x130E)).unwrap().to_float32().unwrap(), 0.5);
    for gone in [(0x2005, 0x1301), (0x2005, 0x0014), (0x2005, 0x1401), (0x2001, 0x1023)] {
        assert!(dataset.get(Tag(gone.0, gone.1)).is_none(), "{gone:04X?}");
    }
    assert!(texts_at(dataset, (0x0099, 0x1002)).unwrap()[0].starts_with("2.25."));
    let items = dataset.get(Tag(0x2001, 0x105F)).unwrap().items().unwrap();
    assert_eq!(items[0].get(Tag(0x2001, 0x1003)).unwrap().to_float32().unwrap(), 1000.0);
    assert_eq!(texts_at(&items[0], (0x2001, 0x0010)).unwrap(), ["Philips Imaging DD 001"]);
    assert!(items[0].get(Tag(0x2001, 0x1099)).is_none());
    assert!(items[0].get(Tag(0x0010, 0x0010)).unwrap().to_str().unwrap().is_empty());
}

#[test]
fn regions_of_interest_are_the_only_overlays_that_clean_graphics_keeps() {
    for (kind, names, kept) in [("R", &["clean_graphics"][..], true), ("G", &["clean_graphics"], false), ("R", &[], false)] {
        let mut drawn = instance(MR, 1);
        drawn.dataset.put(text((0x6000, 0x0040), VR::CS, kind));
        drawn.dataset.put(DataElement::new(Tag(0x6000, 0x0010), VR::US, PrimitiveValue::from(256u16)));
        drawn.dataset.put(DataElement::new(Tag(0x6000, 0x3000), VR::OW, PrimitiveValue::U16(vec![0x5555; 8].into())));
        drawn.dataset.put(text((0x6000, 0x4000), VR::LT, "lesion of Zaphira"));
        let released = run(vec![drawn], names).unwrap();
        let dataset = &released.instances[0].dataset;
        for element in [0x0010, 0x0040, 0x3000, 0x4000] {
            assert_eq!(dataset.get(Tag(0x6000, element)).is_some(), kept, "{kind} {element:04X}");
        }
        assert_eq!(texts_at(dataset, (0x6000, 0x4000)), kept.then(|| vec!["lesion".to_owned()]));
    }
}

#[test]
fn codes_of_public_schemes_stay_and_local_ones_are_replaced() {
    let region = |scheme: &str| {
        sequence(
            (0x0008, 0x2218),
            vec![object([
                text((0x0008, 0x0100), VR::SH, "12738006"),
                text((0x0008, 0x0102), VR::SH, scheme),
                text((0x0008, 0x0104), VR::LO, "Brain"),
            ])],
        )
    };
    for (scheme, code) in [("SCT", "12738006"), ("99STMARY", "ANONYMIZED")] {
        let mut coded = instance(MR, 1);
        coded.dataset.put(region(scheme));
        let released = run(vec![coded], &[]).unwrap();
        let item = &released.instances[0].dataset.get(Tag(0x0008, 0x2218)).unwrap().items().unwrap()[0];
        assert_eq!(texts_at(item, (0x0008, 0x0100)).unwrap(), [code]);
    }
}

#[test]
fn structured_content_keeps_what_can_be_judged() {
    let item = |kind: &str, code: &str, value: InMemElement| {
        let name =
            object([text((0x0008, 0x0100), VR::SH, code), text((0x0008, 0x0102), VR::SH, "DCM"), text((0x0008, 0x0104), VR::LO, "Name")]);
        object([text((0x0040, 0xA040), VR::CS, kind), sequence((0x0040, 0xA043), vec![name]), value])
    };
    let build = || {
        let mut described = instance(MR, 1);
        described.dataset.put(sequence(
            (0x0040, 0x0555),
            vec![
                item("NUM", "122709", text((0x0040, 0xA30A), VR::DS, "37.5")),
                item("TEXT", "121022", text((0x0040, 0xA160), VR::UT, "ACC-4711-Z")),
                item("TEXT", "125203", text((0x0040, 0xA160), VR::UT, "brain of Zaphira")),
                item("PNAME", "121152", text((0x0040, 0xA123), VR::PN, "Writer^Some")),
            ],
        ));
        described
    };
    let items = |names: &[&str]| {
        let released = run(vec![build()], names).unwrap();
        released.instances[0].dataset.get(Tag(0x0040, 0x0555)).map(|element| element.items().unwrap().to_vec())
    };
    // X/Z in an IOD that does not define it: removed.
    assert!(items(&[]).is_none());
    let cleaned = items(&["clean_structured_content"]).unwrap();
    assert_eq!(cleaned.len(), 1);
    assert_eq!(texts_at(&cleaned[0], (0x0040, 0xA30A)).unwrap(), ["37.5"]);
    let with_words = items(&["clean_structured_content", "clean_descriptors"]).unwrap();
    assert_eq!(with_words.len(), 2);
    assert_eq!(texts_at(&with_words[1], (0x0040, 0xA160)).unwrap(), ["brain"]);
}

#[test]
fn fixed_weeks_are_the_same_for_every_patient() {
    let options = Options { date_shift: DateShift::Weeks(104), ..options(&["retain_longitudinal_modified_dates"]) };
    for id in ["A-00001", "B-00002"] {
        let mut dated = instance(MR, 1);
        dated.dataset.put(text((0x0010, 0x0020), VR::LO, id));
        dated.dataset.put(text((0x0008, 0x0020), VR::DA, "20140310"));
        let released = deidentify(study(vec![dated]), &options, &key(), &Control::new()).unwrap();
        // date(2014, 3, 10) - timedelta(weeks=104)
        assert_eq!(texts_at(&released.instances[0].dataset, (0x0008, 0x0020)).unwrap(), ["20120312"]);
        assert_eq!(texts_at(&released.instances[0].dataset, (0x0028, 0x0303)).unwrap(), ["MODIFIED"]);
    }
}

#[test]
fn text_of_any_character_set_is_written_as_unicode() {
    let mut latin = instance(MR, 1);
    latin.dataset.put(text((0x0008, 0x0005), VR::CS, "ISO_IR 100"));
    latin.dataset.put(text((0x0008, 0x0070), VR::LO, "Müller Gerätebau"));
    let released = run(vec![latin], &[]).unwrap();
    assert_eq!(texts_at(&released.instances[0].dataset, (0x0008, 0x0005)).unwrap(), ["ISO_IR 192"]);
    assert!(holds(&bytes(&released), "Müller Gerätebau".as_bytes()));
}

/// PS3.3 Table A.4-1: MR Image has no KVP; Table A.36-2: Enhanced MR has the echo time in a functional group only.
#[test]
fn attributes_of_other_iods_go_where_only_the_own_may_stay() {
    let build = || {
        let mut odd = instance(MR, 1);
        for element in [
            text((0x0018, 0x0060), VR::DS, "120"),
            text((0x0018, 0x0081), VR::DS, "3.5"),
            text((0x0028, 0x1053), VR::DS, "2"),
            text((0x0020, 0x000D), VR::UI, "1.2.3.4"),
        ] {
            odd.dataset.put(element);
        }
        odd
    };
    let release =
        |strictness| deidentify(study(vec![build()]), &Options { strictness, ..Options::default() }, &key(), &Control::new()).unwrap();
    let (standard, strict) = (release(Strictness::Standard), release(Strictness::Strict));
    let has = |study: &ReleasedStudy, tag: (u16, u16)| study.instances[0].dataset.get(Tag(tag.0, tag.1)).is_some();
    assert!(has(&standard, (0x0018, 0x0060)) && !has(&strict, (0x0018, 0x0060)));
    for tag in
        [(0x0018, 0x0081), (0x0028, 0x1053), (0x0010, 0x0010), (0x0012, 0x0062), (0x0012, 0x0064), (0x0028, 0x0303), (0x0020, 0x000D)]
    {
        assert!(has(&strict, tag), "{tag:04X?}");
    }
    assert_eq!(strict.report().by_rule["not_in_iod"].removed, 1);
    assert_eq!(standard.report().by_rule.get("not_in_iod"), None);
    // An object of an unknown kind has no list of its own.
    let unknown = Options { strictness: Strictness::Strict, ..Options::default() };
    let error = deidentify(study(vec![instance("1.2.840.10008.5.1.4.1.1.4.999", 1)]), &unknown, &key(), &Control::new()).err().unwrap();
    assert_eq!(error.kind(), Kind::SopClassQuarantined);
}

#[test]
fn icons_go_with_what_they_show() {
    let mut pictured = instance(MR, 1);
    let icon = object([
        DataElement::new(Tag(0x0028, 0x0010), VR::US, PrimitiveValue::from(2u16)),
        DataElement::new(Tag(0x7FE0, 0x0010), VR::OB, PrimitiveValue::U8(b"CNRYICON".to_vec().into())),
    ]);
    // Also in a sequence that stays.
    pictured.dataset.put(sequence((0x5200, 0x9229), vec![object([sequence((0x0088, 0x0200), vec![icon.clone()])])]));
    pictured.dataset.put(sequence((0x0088, 0x0200), vec![icon]));
    for names in [&[][..], &["clean_graphics", "retain_device_identity"]] {
        let copy = Instance { meta: pictured.meta.clone(), dataset: pictured.dataset.clone() };
        assert!(!holds(&bytes(&run(vec![copy], names).unwrap()), b"CNRYICON"));
    }
}

#[test]
fn the_list_of_identifiers_is_kept_only_when_asked_for() {
    let build = || {
        let mut nested = instance(MR, 1);
        nested.dataset.put(sequence((0x0040, 0x0275), vec![object([text((0x0008, 0x1155), VR::UI, "1.2.826.0.1.3680043.10.999.77")])]));
        nested.dataset.put(sequence((0x5200, 0x9229), vec![object([text((0x0020, 0x9161), VR::UI, "1.2.826.0.1.3680043.10.999.78")])]));
        nested
    };
    assert!(run(vec![build()], &[]).unwrap().mapping().is_none());
    let kept = Options { keeps_mapping: true, ..Options::default() };
    let released = deidentify(study(vec![build()]), &kept, &key(), &Control::new()).unwrap();
    let files = released.mapping().unwrap().files();
    let table = |index: usize| std::str::from_utf8(&files[index].1).unwrap();
    assert_eq!(table(0), format!("id_old,id_new\r\nPID-998877,{}\r\n", released.report().pseudonym));
    for uid in ["1.2.826.0.1.3680043.10.999.1", "1.2.826.0.1.3680043.10.999.78"] {
        assert!(table(1).contains(&format!("\r\n{uid},{}\r\n", uids::remap(key().expose(), uid))), "{uid}");
    }
}
