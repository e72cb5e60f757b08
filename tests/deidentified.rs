//! De-identification from end to end, judged by others: the MIDI-B way of scoring, regions blacked out under every transfer syntax, attributes by dciodvfy, the sealed
//! list of identifiers.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use smp::Kind;
use smp::pipeline::{Pipeline, Request, unseal_study};
use support::{Site, files, study};

/// Runs a folder of files through a pipeline that writes DICOM; answers the folder of outputs.
fn processed(site: &Site, input: &Path, name: &str, settings: &[(&str, &str)]) -> Result<PathBuf, smp::Error> {
    let mut config = site.config.clone();
    for (key, value) in [("output.formats", "dicom,json")].iter().chain(settings) {
        config.set(key, value).unwrap();
    }
    let pipeline = Pipeline::new(&config).unwrap();
    let mut request = Request::new(None);
    let output = site.path("results");
    for (key, value) in [("operations", "load,anonymize"), ("study_id", name), ("output_path", output.to_str().unwrap())] {
        request.set(key, value).unwrap();
    }
    for file in files(input) {
        request.add_instance(&std::fs::read(file).unwrap()).unwrap();
    }
    pipeline.process_study(&request)?;
    Ok(output)
}

/// Opens the sealed list of a study's identifiers, as its owner would.
fn unsealed(site: &Site, output: &Path, name: &str) -> PathBuf {
    let mut config = site.config.clone();
    config.set("cloud.bucket", output.to_str().unwrap()).unwrap();
    let folder = site.path(&format!("mapping/{name}"));
    std::fs::create_dir_all(site.path("mapping")).unwrap();
    unseal_study(&config, &site.researcher, &format!("{name}_mapping"), &folder).unwrap();
    folder
}

/// A script of tests/interop; `None` (said loudly) without Python.
fn script(name: &str, arguments: &[&Path]) -> Option<String> {
    let Some(python) = std::env::var_os("SMP_PYTHON") else {
        support::skipped(&format!("{name}; set SMP_PYTHON to a python with pydicom and SimpleITK"));
        return None;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name);
    let told = Command::new(python).arg(path).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success(), "{name} {arguments:?}: {said}\n{}", String::from_utf8_lossy(&told.stderr));
    Some(said)
}

#[test]
fn the_list_of_identifiers_is_sealed_for_its_owner() {
    let site = Site::new();
    study::write(&site.path("study"));
    let settings = [("deid.mapping", "sealed"), ("deid.options", "retain_longitudinal_modified_dates"), ("deid.date_shift", "weeks:104")];
    let output = processed(&site, &site.path("study"), "S1", &settings).unwrap();
    for identifier in [study::PATIENT_ID, "1.2.826.0.1.3680043.8.498.1.3"] {
        assert_eq!(support::any_file_holds(&output, identifier.as_bytes()), None, "nothing lies in clear");
    }
    let folder = unsealed(&site, &output, "S1");
    let table = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let rows = |text: String| -> Vec<(String, String)> {
        text.lines().map(|line| line.split_once(',').map(|(old, new)| (old.to_owned(), new.to_owned())).unwrap()).collect()
    };
    let uids = rows(table("uid_mapping.csv"));
    assert_eq!(uids[0], ("id_old".to_owned(), "id_new".to_owned()));
    let written: Vec<String> =
        files(&output.join("S1_dicom")).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(written.len(), study::SLICES);
    for slice in 1..=study::SLICES {
        let old = format!("1.2.826.0.1.3680043.8.498.1.{slice}");
        let new = &uids.iter().find(|(uid, _)| *uid == old).unwrap().1;
        assert!(written.contains(new), "{old} became {new}, which is no file");
    }
    let patients = rows(table("patient_id_mapping.csv"));
    assert!(patients.len() == 2 && patients[1].0 == study::PATIENT_ID && patients[1].1.len() == 20, "{patients:?}");
    assert_eq!(table("date_shift_mapping.csv"), format!("id_old,days_earlier\r\n{},728\r\n", study::PATIENT_ID));
    // Nobody else opens it.
    let mut hospital = site.hospital_config();
    hospital.set("cloud.bucket", output.to_str().unwrap()).unwrap();
    let error = unseal_study(&hospital, &site.hospital, "S1_mapping", &site.path("stolen")).err().unwrap();
    assert_eq!(error.kind(), Kind::NotARecipient);
    // Without being asked for there is none.
    processed(&site, &site.path("study"), "S2", &[]).unwrap();
    assert!(output.join("S2_dicom").is_dir() && !output.join("S2_mapping").exists());
}

#[test]
fn a_list_that_nobody_could_open_is_refused_before_any_work() {
    let site = Site::new();
    study::write(&site.path("study"));
    let keys = site.path("no-keys");
    let master = keys.join("master.key");
    let settings =
        [("deid.mapping", "sealed"), ("key_store_path", keys.to_str().unwrap()), ("encryption_key_path", master.to_str().unwrap())];
    let error = processed(&site, &site.path("study"), "S1", &settings).err().unwrap();
    assert!(error.kind() == Kind::KeyNotFound && error.hint().unwrap().contains("smp keys generate"), "{error}");
    assert!(!site.path("results").exists());
}

#[test]
fn regions_are_black_under_every_transfer_syntax_and_nothing_else_is() {
    let Some(data) = support::test_data() else { return };
    let site = Site::new();
    let rules = site.path("rules.json");
    std::fs::write(&rules, r#"{"rules": [{"name": "all", "when": {"Modality": ["CT", "MR", "MG"]}, "black": [[10, 20, 50, 30]]}]}"#)
        .unwrap();
    let settings = [("deid.burned_in", "blackout"), ("deid.device_rules", rules.to_str().unwrap())];
    let region = ["10", "20", "50", "30"].map(Path::new);
    let mut compared = 0;
    for (number, file) in files(&data.join("ts_ct_one_slice")).into_iter().chain(files(&data.join("mammogram"))).enumerate() {
        let alone = site.path(&format!("alone-{number}"));
        std::fs::create_dir(&alone).unwrap();
        std::fs::copy(&file, alone.join("image.dcm")).unwrap();
        let name = format!("B{number}");
        let output = processed(&site, &alone, &name, &settings).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let written = files(&output.join(format!("{name}_dicom")));
        let [one] = written.as_slice() else { panic!("{} files", written.len()) };
        let Some(said) = script("blackout.py", &[&[file.as_path(), one][..], &region].concat()) else { return };
        println!("{}: {said}", file.display());
        compared += usize::from(said.contains("values as before"));
    }
    assert!(compared >= 14, "{compared}");
}

#[test]
fn text_in_pixels_is_refused_or_allowed_for_a_recorded_reason() {
    let site = Site::new();
    study::write_with(&site.path("study"), |_, dataset| {
        let yes =
            dicom_core::DataElement::new(dicom_core::Tag(0x0028, 0x0301), dicom_core::VR::CS, dicom_core::PrimitiveValue::from("YES"));
        dataset.put(yes);
    });
    let run = |settings: &[(&str, &str)]| processed(&site, &site.path("study"), "S1", settings);
    for (settings, kind, hint) in
        [(&[][..], Kind::BurnedInText, "blackout"), (&[("deid.burned_in", "blackout")], Kind::BurnedInText, "deid.device_rules")]
    {
        let error = run(settings).err().unwrap();
        assert!(error.kind() == kind && error.hint().unwrap().contains(hint), "{error}");
    }
    let mut config = site.config.clone();
    config.set("deid.burned_in", "allow").unwrap();
    let mut request = Request::new(None);
    request.add_instance(&std::fs::read(&files(&site.path("study"))[0]).unwrap()).unwrap();
    let error = Pipeline::new(&config).unwrap().process_study(&request).err().unwrap();
    assert!(error.kind() == Kind::ConfigInvalidValue && error.detail().contains("burned_in_reason"), "{error}");
    run(&[("deid.burned_in", "allow"), ("deid.burned_in_reason", "both readers saw no text")]).unwrap();
    assert!(support::any_file_holds(&site.path("audit"), b"both readers saw no text").is_some());
}

/// `deid::iod::EVERYWHERE`, and Acquisition Duration, which dciodvfy does not know in the General Acquisition Module yet (PS3.3 C.7.10.1).
const SPARED: [&str; 12] = [
    "00189073", "00180050", "00180088", "00189087", "00189089", "00200032", "00200037", "00280008", "00280030", "00281052", "00281053",
    "00281054",
];

#[test]
fn a_strict_release_has_nothing_that_its_iod_does_not_define() {
    let Some(data) = support::test_data() else { return };
    let site = Site::new();
    let alone = |path: &str| {
        let folder = site.path(&path.replace('/', "-"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(data.join(path), folder.join("image.dcm")).unwrap();
        folder
    };
    let mut folders = vec![data.join("mr_t1_philips_mprage"), data.join("seg_sr/segmentations/ct-3slice"), alone("mammogram/GH133.dcm")];
    folders.extend(files(&data.join("enhanced_mr_braintumour")).iter().take(2).map(|path| {
        let name = path.strip_prefix(&data).unwrap().to_str().unwrap().to_owned();
        alone(&name)
    }));
    let settings = [("deid.strictness", "strict"), ("deid.options", "retain_device_identity,retain_patient_characteristics")];
    for (number, folder) in folders.iter().enumerate() {
        let name = format!("S{number}");
        let output = processed(&site, folder, &name, &settings).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let written = output.join(format!("{name}_dicom"));
        let arguments: Vec<&Path> = std::iter::once(written.as_path()).chain(SPARED.map(Path::new)).collect();
        let Some(said) = script("iod.py", &arguments) else { return };
        println!("{}: {said}", folder.display());
    }
}

#[test]
fn nothing_of_real_patients_is_left_in_any_file() {
    let Some(data) = support::test_data() else { return };
    let site = Site::new();
    let mut folders: Vec<PathBuf> = ["mr_t1_philips_mprage", "seg_sr/segmentations/ct-3slice"].iter().map(|path| data.join(path)).collect();
    // Each of these is a series of one file.
    for (number, file) in ["enhanced_mr_braintumour", "mammogram"].iter().flat_map(|folder| files(&data.join(folder))).enumerate() {
        let alone = site.path(&format!("alone-{number}"));
        std::fs::create_dir(&alone).unwrap();
        std::fs::copy(&file, alone.join("image.dcm")).unwrap();
        folders.push(alone);
    }
    let settings = [("output.formats", "dicom,json,npy,nifti,png"), ("deid.mapping", "sealed")];
    for (number, folder) in folders.iter().enumerate() {
        let output =
            processed(&site, folder, &format!("N{number}"), &settings).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let (audit, workspace) = (site.path("audit"), site.path("workspace"));
        let Some(said) = script("identifiers.py", &[folder.as_path(), &output, &audit, &workspace]) else { return };
        println!("{}: {said}", folder.display());
        std::fs::remove_dir_all(&output).unwrap();
    }
}

#[test]
fn a_patient_is_the_same_in_every_character_set() {
    let site = Site::new();
    let mut seen = std::collections::BTreeSet::new();
    for (number, charset) in ["ISO_IR 100", "ISO_IR 192", "ISO 2022 IR 100"].into_iter().enumerate() {
        let folder = site.path(&format!("study-{number}"));
        study::write_with(&folder, |_, dataset| {
            let text = |tag, vr, text: &str| dicom_core::DataElement::new(tag, vr, dicom_core::PrimitiveValue::from(text));
            dataset.put(text(dicom_core::Tag(0x0008, 0x0005), dicom_core::VR::CS, charset));
            dataset.put(text(dicom_core::Tag(0x0010, 0x0010), dicom_core::VR::PN, "Müßig^Änne"));
            dataset.put(text(dicom_core::Tag(0x0010, 0x0020), dicom_core::VR::LO, "Ü-7714203"));
            dataset.put(text(dicom_core::Tag(0x0008, 0x1030), dicom_core::VR::LO, "MR Kopf von Müßig"));
        });
        let output = processed(&site, &folder, &format!("C{number}"), &[("deid.options", "clean_descriptors")]).unwrap();
        let json = std::fs::read_to_string(output.join(format!("C{number}_summary.json"))).unwrap();
        let summary: serde_json::Value = serde_json::from_str(&json).unwrap();
        seen.insert(summary["metadata"]["00100020"]["Value"][0].as_str().unwrap().to_owned());
        let utf8 = "Müßig".as_bytes();
        let latin = [b'M', 0xFC, 0xDF, b'i', b'g'];
        assert!(support::any_file_holds(&output, utf8).is_none() && support::any_file_holds(&output, &latin).is_none(), "{charset}");
    }
    assert_eq!(seen.len(), 1, "one pseudonym");
}

/// The options that the answer key is written for.
const MIDI_B_OPTIONS: &str = "retain_longitudinal_modified_dates,clean_descriptors,retain_patient_characteristics,retain_safe_private";

#[test]
fn studies_score_in_the_manner_of_midi_b() {
    if script("midi_b.py", &[Path::new("selftest")]).is_none() {
        return;
    }
    let data = support::test_data();
    let site = Site::new();
    let studies = site.path("studies");
    let mut make = vec![Path::new("make"), studies.as_path()];
    if let Some(data) = &data {
        make.extend([Path::new("--data"), data]);
    }
    script("midi_b.py", &make).unwrap();
    let rules = site.path("rules.json");
    std::fs::write(&rules, rules_of(&studies.join("key.json"))).unwrap();
    let settings = [
        ("deid.options", MIDI_B_OPTIONS),
        ("deid.mapping", "sealed"),
        ("deid.burned_in", "blackout"),
        ("deid.device_rules", rules.to_str().unwrap()),
    ];
    let outputs = site.path("outputs");
    std::fs::create_dir(&outputs).unwrap();
    for folder in std::fs::read_dir(&studies).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let output = processed(&site, &folder, name, &settings).unwrap_or_else(|error| panic!("{name}: {error}"));
        std::fs::rename(output.join(format!("{name}_dicom")), outputs.join(name)).unwrap();
        unsealed(&site, &output, name);
    }
    let mapping = site.path("mapping");
    let said = script("midi_b.py", &[Path::new("score"), &studies, &outputs, &mapping]).unwrap();
    println!("{said}");
    let score: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert!(score["rows"].as_u64().unwrap() > 5_000, "{said}");
    assert_eq!(score["hipaa"].as_f64(), Some(1.0), "{said}");
    assert!(score["score"].as_f64().unwrap() >= 0.999, "{said}");
}

/// Rules that name the rectangles in which the key says that text was drawn.
fn rules_of(key: &Path) -> String {
    let key: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(key).unwrap()).unwrap();
    let mut boxes = std::collections::BTreeMap::<&str, Vec<[u64; 4]>>::new();
    for row in key["rows"].as_array().unwrap().iter().filter(|row| row["predicate"] == "pixels_hidden") {
        let corner = |index: usize| row["rectangle"][index].as_u64().unwrap();
        let (top, left, bottom, right) = (corner(0), corner(1), corner(2), corner(3));
        let class =
            if row["study"].as_str().unwrap().ends_with("us") { "1.2.840.10008.5.1.4.1.1.6.1" } else { "1.2.840.10008.5.1.4.1.1.7" };
        boxes.entry(class).or_default().push([left, top, right - left, bottom - top]);
    }
    let rule = |(class, black): (&str, Vec<[u64; 4]>)| serde_json::json!({"name": class, "when": {"SOPClassUID": class}, "black": black});
    serde_json::json!({"rules": boxes.into_iter().map(rule).collect::<Vec<_>>()}).to_string()
}
