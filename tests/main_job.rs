//! The main job, end to end, over the Rust API: a sealed study in, results out, and nothing left behind. The studies here are made up;
//! `real_study.rs` does the same with a real one, from C.

mod support;

use sha2::{Digest, Sha256};
use smp::Kind;
use smp::audit::AuditReader;
use smp::pipeline::{Pipeline, Request, StudyResult};
use smp::{Error, pipeline};
use support::{Site, any_file_holds, files, study};

fn request(remote_path: &str, operations: &str) -> Request {
    let mut request = Request::new(Some(remote_path));
    request.set("operations", operations).unwrap();
    request.set("study_id", "STUDY-1").unwrap();
    request
}

fn failure(outcome: Result<StudyResult, Error>) -> Error {
    match outcome {
        Ok(_) => panic!("the study was processed"),
        Err(error) => error,
    }
}

fn expected_volume() -> Vec<f32> {
    let mut voxels = Vec::new();
    for slice in 0..study::SLICES {
        for row in 0..study::ROWS {
            for column in 0..study::COLUMNS {
                voxels.push(f32::from(study::stored(column, row, slice)) * 2.0 - 10.0);
            }
        }
    }
    voxels
}

#[test]
fn a_sealed_study_comes_out_as_the_volume_that_went_in() {
    let site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "incoming/one/");
    let result = site.pipeline().process_study(&request("incoming/one", "load,anonymize")).unwrap();
    let geometry = result.volume().geometry();
    assert_eq!(geometry.dims, [study::COLUMNS, study::ROWS, study::SLICES]);
    assert_eq!(geometry.spacing_mm, [1.25, 1.5, 2.5]);
    // PS3.3 C.7.6.2.1.1: first voxel at (-12, -10, -15), columns along x, rows along y, slices along z.
    assert_eq!(geometry.affine_lps, [[1.25, 0.0, 0.0, -12.0], [0.0, 1.5, 0.0, -10.0], [0.0, 0.0, 2.5, -15.0], [0.0, 0.0, 0.0, 1.0]]);
    assert_eq!(result.volume().voxels(), expected_volume());
    assert_eq!(result.operations(), ["load", "anonymize"]);
    assert_eq!(result.cancer_probability(), None);
}

#[test]
fn no_identifier_reaches_a_store_a_workspace_a_result_or_a_log() {
    let site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "incoming/one");
    let mut request = request("incoming/one", "load,anonymize,preprocess");
    request.set("output_path", site.path("results").to_str().unwrap()).unwrap();
    let result = site.pipeline().process_study(&request).unwrap();
    std::fs::write(site.path("results/json"), result.json().unwrap()).unwrap();
    for canary in ["Quetzal", study::PATIENT_ID, "19610317", study::INSTITUTION, "Weatherwax", "ACC-99120", "1.2.826.0.1.3680043.8.498"] {
        for folder in ["store", "workspace", "results", "audit", "hospital-audit", "researcher-keys", "hospital-keys"] {
            assert_eq!(any_file_holds(&site.path(folder), canary.as_bytes()), None, "{canary} is in {folder}");
        }
    }
    // The search can find something: the study itself holds all of them.
    assert!(any_file_holds(&site.path("study"), b"Quetzal").is_some());
}

#[test]
fn the_guides_files_are_written_and_nothing_else() {
    let site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "one");
    let mut request = request("one", "load,preprocess");
    request.set("output_path", site.path("out/deep").to_str().unwrap()).unwrap();
    let result = site.pipeline().process_study(&request).unwrap();
    let names: Vec<String> = files(&site.path("out")).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["STUDY-1_preprocessed.npy", "STUDY-1_preview.png", "STUDY-1_summary.json"]);
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(site.path("out/deep/STUDY-1_summary.json")).unwrap()).unwrap();
    assert_eq!(summary["study_id"], "STUDY-1");
    assert_eq!(summary["operations_performed"], serde_json::json!(["load", "anonymize", "preprocess"]));
    assert!(summary.get("cancer_probability").is_none(), "an operation that did not run leaves no value");
    // z-score over the clipped volume: mean 0 and standard deviation 1, by definition.
    let voxels = result.volume().voxels();
    let mean = voxels.iter().map(|v| f64::from(*v)).sum::<f64>() / voxels.len() as f64;
    let variance = voxels.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / voxels.len() as f64;
    assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "{mean} {variance}");
}

#[test]
fn every_step_is_in_an_audit_log_that_verifies() {
    let site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "one");
    let pipeline = site.pipeline();
    let before: serde_json::Value = serde_json::from_str(&pipeline.audit_summary().unwrap()).unwrap();
    assert_eq!(before["integrity_verified"], true, "a log is sound before its first study");
    pipeline.process_study(&request("one", "load,anonymize,preprocess")).unwrap();
    failure(pipeline.process_study(&request("nowhere", "load")));
    let summary: serde_json::Value = serde_json::from_str(&pipeline.audit_summary().unwrap()).unwrap();
    assert_eq!(summary["integrity_verified"], true);
    assert_eq!(summary["user_id"], "researcher@university.example");
    for (event, count) in [
        ("study.started", 2),
        ("study.opened", 1),
        ("study.loaded", 1),
        ("study.deidentified", 1),
        ("study.preprocessed", 1),
        ("study.finished", 1),
        ("study.failed", 1),
    ] {
        assert_eq!(summary["by_event"][event], count, "{event}");
    }
    let path = site.path("compliance/audit.json");
    let entries = pipeline.export_audit(&path, None, None).unwrap();
    assert!(path.is_file() && entries >= 8);
    assert_eq!(pipeline.export_audit(&path, Some("1999-01-01"), Some("1999-12-31")).unwrap(), 0);
    assert_eq!(AuditReader::open(&site.path("audit")).unwrap().verify().first_bad, None);
}

#[test]
fn cleanup_erases_the_spool_and_reports_it() {
    let site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "one");
    let pipeline = site.pipeline();
    pipeline.cleanup().unwrap();
    pipeline.process_study(&request("one", "load")).unwrap();
    pipeline.cleanup().unwrap();
    let report: serde_json::Value = serde_json::from_str(&pipeline.cleanup_report().unwrap()).unwrap();
    assert!(report["files_erased"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["spools_left"], 0);
    assert_eq!(files(&site.path("workspace")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn studies_run_side_by_side_and_give_the_same_volume() {
    let site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "one");
    let pipeline = site.pipeline();
    let expected = expected_volume();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let result = pipeline.process_study(&request("one", "load")).unwrap();
                assert_eq!(result.volume().voxels(), expected);
            });
        }
    });
}

#[test]
fn a_closed_pipeline_takes_no_study() {
    let site = Site::new();
    let pipeline = site.pipeline();
    pipeline.close();
    pipeline.close();
    assert_eq!(failure(pipeline.process_study(&request("one", "load"))).kind(), Kind::Cancelled);
}

#[test]
fn a_cancelled_study_stops_and_says_so() {
    let site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "one");
    let control = smp::control::Control::new();
    control.cancel();
    let error = failure(site.pipeline().process_study_with(&request("one", "load"), &control));
    assert_eq!(error.kind(), Kind::Cancelled);
}

#[test]
fn a_panic_in_a_stage_is_an_error_that_is_recorded_and_cleaned_up_after() {
    let site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "one");
    let pipeline = site.pipeline();
    let control = smp::control::Control::with_listener(|stage, _| assert_ne!(stage, "load", "provoked"));
    let error = failure(pipeline.process_study_with(&request("one", "load"), &control));
    assert_eq!(error.kind(), Kind::Internal);
    assert!(!error.to_string().contains("provoked"), "a panic's own words may hold anything");
    let summary: serde_json::Value = serde_json::from_str(&pipeline.audit_summary().unwrap()).unwrap();
    assert_eq!(summary["by_event"]["study.failed"], 1);
    assert_eq!(files(&site.path("workspace")), Vec::<std::path::PathBuf>::new());
    pipeline.process_study(&request("one", "load")).unwrap();
}

#[test]
fn instances_in_memory_need_no_store() {
    let site = Site::new();
    study::write(&site.path("study"));
    let mut request = Request::new(None);
    request.set("operations", "load").unwrap();
    for path in files(&site.path("study")) {
        request.add_instance(&std::fs::read(path).unwrap()).unwrap();
    }
    let result = site.pipeline().process_study(&request).unwrap();
    assert_eq!(result.volume().voxels(), expected_volume());
    assert!(result.study_id().starts_with("study-") && result.study_id().len() == 14);
}

#[test]
fn standard_mode_reads_ordinary_objects_only_when_asked() {
    let site = Site::new();
    study::write(&site.path("store/plain"));
    let pipeline = site.pipeline();
    assert_eq!(failure(pipeline.process_study(&request("plain", "load"))).kind(), Kind::NotSealed);
    let mut request = request("plain/", "load");
    request.set("download_mode", "standard").unwrap();
    let result = pipeline.process_study(&request).unwrap();
    assert_eq!(result.volume().voxels(), expected_volume());
    // Every object with its SHA-256, in the order of the listing, and no name.
    let json: serde_json::Value = serde_json::from_str(&result.json().unwrap()).unwrap();
    let transfer = &json["transfer"];
    let mut expected = Vec::new();
    for path in files(&site.path("store/plain")) {
        let bytes = std::fs::read(&path).unwrap();
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        expected.push((path, serde_json::json!({"bytes": bytes.len(), "sha256": sha256})));
    }
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    let expected: Vec<serde_json::Value> = expected.into_iter().map(|(_, checksum)| checksum).collect();
    assert_eq!(transfer["checksums"], serde_json::Value::Array(expected));
    assert_eq!((&transfer["store"], &transfer["objects"]), (&"local".into(), &study::SLICES.into()));
    assert_eq!(transfer["bytes_received"], transfer["bytes"]);
    assert_eq!((&transfer["retries"], &transfer["bytes_from_spool"]), (&0.into(), &0.into()));
    assert!(transfer["id"].as_str().unwrap().starts_with("transfer-"));
}

#[test]
fn identifiers_stay_only_when_anonymization_is_switched_off_and_that_is_recorded() {
    let mut site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "one");
    site.config.set("auto_anonymize", "false").unwrap();
    let pipeline = site.pipeline();
    let result = pipeline.process_study(&request("one", "load")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&result.json().unwrap()).unwrap();
    assert_eq!(json["deidentification"]["deidentified"], false);
    assert!(!result.json().unwrap().contains("Quetzal"), "even then the result shows no metadata");
    let summary: serde_json::Value = serde_json::from_str(&pipeline.audit_summary().unwrap()).unwrap();
    assert_eq!(summary["by_event"]["study.released_identified"], 1);
}

#[test]
fn a_host_programs_prediction_lands_in_result_and_audit() {
    let site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "one");
    let pipeline = site.pipeline();
    let result = pipeline.process_study(&request("one", "load")).unwrap();
    result.add_prediction("my model 3", "cancer_probability", 0.0).unwrap();
    assert_eq!(result.cancer_probability(), Some(0.0), "0.0 is a value");
    assert_eq!(result.cancer_prediction(), Some("negative"));
    assert_eq!(result.confidence_score(), Some(1.0));
    for (model, label, value) in [("", "x", 0.1), ("m", "", 0.1), ("m", "cancer_probability", 1.5), ("m", "x", f64::NAN)] {
        assert_eq!(result.add_prediction(model, label, value).unwrap_err().kind(), Kind::InvalidArgument);
    }
    let summary: serde_json::Value = serde_json::from_str(&pipeline.audit_summary().unwrap()).unwrap();
    assert_eq!(summary["by_event"]["study.prediction_added"], 1);
}

#[test]
fn same_patient_same_pseudonym_whatever_the_study() {
    let site = Site::new();
    study::write(&site.path("a"));
    study::write(&site.path("b"));
    site.seal(&site.path("a"), "a");
    site.seal(&site.path("b"), "b");
    let pipeline = site.pipeline();
    let patient = |remote_path: &str| {
        let json = pipeline.process_study(&request(remote_path, "load")).unwrap().json().unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["metadata"]["00100020"]["Value"][0].as_str().unwrap().to_owned()
    };
    let (a, b) = (patient("a"), patient("b"));
    assert_eq!(a, b);
    assert_ne!(a, study::PATIENT_ID);
}

#[test]
fn a_pipeline_needs_no_configuration_beyond_folders() {
    let site = Site::new();
    let report: serde_json::Value = serde_json::from_str(&pipeline::capabilities()).unwrap();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    let pipeline: Pipeline = site.pipeline();
    assert_eq!(pipeline.cleanup_report().unwrap_err().kind(), Kind::Absent);
}
