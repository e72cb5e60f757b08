//! The main job on a real study, from C, over a local folder and over S3: the voxels that pydicom reads, the grid that SimpleITK finds,
//! and a mask from a model that nobody here made.

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use smp::pipeline;
use support::c_program::{compile, run, write_config};
use support::s3_server::S3Server;
use support::{Site, any_file_holds, files};

const STUDY: &str = "mr_t1_philips_mprage";

/// What pydicom and SimpleITK make of the study.
fn expected(folder: &Path) -> Option<serde_json::Value> {
    let python = std::env::var_os("SMP_PYTHON").or_else(|| {
        support::skipped("comparison with pydicom and SimpleITK; set SMP_PYTHON to a python that has them");
        None
    })?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/expected_volume.py");
    let output = Command::new(python).arg(script).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn numbers(text: &str) -> Vec<f64> {
    text.split(' ').map(|number| number.parse().unwrap()).collect()
}

fn compare(report: &HashMap<String, String>, volume: &Path, expected: &serde_json::Value) {
    let list = |name: &str| -> Vec<f64> { expected[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect() };
    assert_eq!(numbers(&report["dims"]), list("dims"));
    for (name, tolerance) in [("spacing", 1e-6), ("affine", 1e-4)] {
        let (found, wanted) = (numbers(&report[name]), list(name));
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!((found - wanted).abs() <= tolerance, "{name}: {found} instead of {wanted}");
        }
    }
    let digest: String = Sha256::digest(std::fs::read(volume).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, expected["sha256_f32_le"].as_str().unwrap(), "a voxel differs from pydicom's");
}

#[test]
fn the_volume_is_pydicoms_over_a_local_folder_and_over_s3() {
    let Some(data) = support::test_data() else { return };
    let study = data.join(STUDY);
    let expected = expected(&study);
    let site = Site::new();
    let program = compile("tests/c/process_one.c", &site.path("process_one"));

    // Over a local folder.
    site.seal(&study, "studies/real");
    let (config, volume) = (site.path("local.json"), site.path("local.f32"));
    write_config(&site, &config, &[]);
    let arguments = [config.to_str().unwrap(), "studies/real/", "load,anonymize", "-", volume.to_str().unwrap(), "-"];
    let report = run(&program, &arguments, &[]);
    assert_eq!(report["status"], "SMP_OK");
    assert_eq!(report["live_handles"], "0");
    if let Some(expected) = &expected {
        compare(&report, &volume, expected);
    }

    // Over S3: sealed straight into a bucket of a real S3 server, by the hospital's own configuration.
    let server = S3Server::start(&site.path("s3"), &["hospital"]);
    let credentials = [("AWS_ACCESS_KEY_ID", server.access_key.as_str()), ("AWS_SECRET_ACCESS_KEY", server.secret_key.as_str())];
    let s3 = [
        ("cloud.provider", "s3"),
        ("cloud.bucket", "hospital"),
        ("cloud.region", "us-east-1"),
        ("cloud.endpoint", server.endpoint.as_str()),
    ];
    let file = server.credentials_file(&site.path(""));
    let mut hospital = site.hospital_config();
    for (key, value) in s3.iter().chain(&[("cloud.credentials_path", file.to_str().unwrap())]) {
        hospital.set(key, value).unwrap();
    }
    let recipients = [site.researcher_id.as_str()];
    pipeline::seal_study(&hospital, &site.hospital, &site.hospital_id, &recipients, &study, "studies/real").unwrap();
    let (config, from_s3) = (site.path("s3.json"), site.path("s3.f32"));
    write_config(&site, &config, &s3);
    let arguments = [config.to_str().unwrap(), "studies/real", "load,anonymize", "-", from_s3.to_str().unwrap(), "-"];
    let report = run(&program, &arguments, &credentials);
    assert_eq!(report["status"], "SMP_OK");
    assert_eq!(std::fs::read(&volume).unwrap(), std::fs::read(&from_s3).unwrap(), "the store makes no difference");
}

#[test]
fn a_real_model_segments_the_real_study_by_its_contract() {
    let (Some(data), Some(runtime)) = (support::test_data(), support::onnx_runtime()) else { return };
    let models = data.parent().unwrap().join("models");
    let site = Site::new();
    let model = site.path("brainchop_meshnet5_gwm.onnx");
    std::fs::copy(models.join("brainchop_meshnet5_gwm.onnx"), &model).unwrap();
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/contracts/brainchop_meshnet5_gwm.json");
    std::fs::copy(contract, site.path("brainchop_meshnet5_gwm.json")).unwrap();
    let program = compile("tests/c/process_one.c", &site.path("process_one"));
    site.seal(&data.join(STUDY), "studies/real");
    let (config, mask) = (site.path("config.json"), site.path("mask.u8"));
    write_config(&site, &config, &[("segment_model_path", model.to_str().unwrap())]);
    let output = site.path("results");
    let operations = "load,anonymize,preprocess,segment";
    let arguments = [config.to_str().unwrap(), "studies/real", operations, output.to_str().unwrap(), "-", mask.to_str().unwrap()];
    let report = run(&program, &arguments, &[("ORT_DYLIB_PATH", runtime.to_str().unwrap())]);
    assert_eq!(report["status"], "SMP_OK");
    assert_eq!(report["operations"], operations);

    // White and grey matter of an adult brain are between 0.7 and 1.6 litres; a wrong axis order gives nothing of the kind.
    let voxel_ml: f64 = numbers(&report["spacing"]).iter().product::<f64>() / 1000.0;
    let brain = std::fs::read(&mask).unwrap().iter().filter(|label| **label != 0).count() as f64 * voxel_ml;
    assert!((700.0..1600.0).contains(&brain), "{brain} ml");
    let names: Vec<String> = files(&output).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(
        names,
        [
            "STUDY-1_preprocessed.npy",
            "STUDY-1_preview.png",
            "STUDY-1_segmentation.nii.gz",
            "STUDY-1_segmentation.npy",
            "STUDY-1_summary.json"
        ]
    );
}

#[test]
fn no_identifier_of_the_real_study_leaves_the_library() {
    let Some(data) = support::test_data() else { return };
    let site = Site::new();
    site.seal(&data.join(STUDY), "studies/real");
    let mut request = pipeline::Request::new(Some("studies/real"));
    request.set("operations", "load,anonymize,preprocess").unwrap();
    request.set("output_path", site.path("results").to_str().unwrap()).unwrap();
    let result = site.pipeline().process_study(&request).unwrap();
    std::fs::write(site.path("results/all.json"), result.json().unwrap()).unwrap();
    let uids = identifiers(&files(&data.join(STUDY))[0]);
    assert!(uids.len() >= 3, "the study has identifiers to look for");
    for identifier in uids {
        for folder in ["store", "workspace", "results", "audit"] {
            assert_eq!(any_file_holds(&site.path(folder), identifier.as_bytes()), None, "an identifier is in {folder}");
        }
    }
}

/// Values of a file that identify its patient, study or place.
fn identifiers(file: &Path) -> Vec<String> {
    use dicom_dictionary_std::tags;
    let object = dicom_object::open_file(file).unwrap();
    [
        tags::PATIENT_NAME,
        tags::PATIENT_ID,
        tags::STUDY_INSTANCE_UID,
        tags::SERIES_INSTANCE_UID,
        tags::SOP_INSTANCE_UID,
        tags::FRAME_OF_REFERENCE_UID,
        tags::INSTITUTION_NAME,
        tags::STATION_NAME,
    ]
    .into_iter()
    .filter_map(|tag| object.element_opt(tag).ok().flatten())
    .filter_map(|element| element.to_str().ok().map(|text| text.trim().to_owned()))
    .filter(|text| text.len() >= 4)
    .collect()
}
