//! Every way the main job can fail: a status of its own, the guide's words where it has them, no partial output, a line in the audit log,
//! and nothing left in the workspace.

mod support;

use std::path::{Path, PathBuf};

use smp::keys::KeyStore;
use smp::pipeline::{self, Request};
use smp::{Error, Kind};
use support::{Site, files, study};

/// Processes the package at `one` with every operation and every output, and checks what holds for all failures.
fn fails(site: &Site, settings: &[(&str, &str)], expected: Kind) -> Error {
    let mut request = Request::new(Some("one"));
    request.set("study_id", "STUDY-1").unwrap();
    request.set("output_path", site.path("results/new").to_str().unwrap()).unwrap();
    request.set("operations", "load,preprocess").unwrap();
    for (key, value) in settings {
        request.set(key, value).unwrap();
    }
    let pipeline = site.pipeline();
    let audit = |event: &str| {
        let summary: serde_json::Value = serde_json::from_str(&pipeline.audit_summary().unwrap()).unwrap();
        summary["by_event"][event].as_u64().unwrap_or(0)
    };
    let before = audit("study.failed");
    let error = pipeline.process_study(&request).err().expect("the study was processed");
    assert_eq!(error.kind(), expected, "{error}");
    assert!(error.hint().is_some() || !error.detail().is_empty(), "{error} says nothing that helps");
    assert_eq!(audit("study.failed"), before + 1);
    assert_eq!(files(&site.path("results")), Vec::<PathBuf>::new(), "partial output");
    assert!(!site.path("results").exists(), "a folder is left");
    assert_eq!(files(&site.path("workspace")), Vec::<PathBuf>::new(), "something is left in the workspace");
    error
}

fn sealed() -> Site {
    let site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "one");
    site
}

fn objects(site: &Site, extension: &str) -> Vec<PathBuf> {
    files(&site.path("store")).into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn flip(path: &Path, position: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[position] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn new_keys(site: &Site, name: &str) -> std::sync::Arc<KeyStore> {
    pipeline::open_key_store(Some(&site.path(name)), None).unwrap()
}

#[test]
fn the_wrong_key() {
    let mut site = sealed();
    let other = new_keys(&site, "other-keys");
    other.generate("somebody else").unwrap();
    support::introduce(&site.hospital, &site.hospital_id, &other, "hospital");
    site.config.set("key_store_path", site.path("other-keys").to_str().unwrap()).unwrap();
    site.config.set("audit_log_path", site.path("other-audit").to_str().unwrap()).unwrap();
    fails(&site, &[], Kind::NotARecipient);
}

#[test]
fn an_unknown_sender() {
    let mut site = sealed();
    let stranger = new_keys(&site, "stranger-keys");
    let id = stranger.generate("sealing").unwrap();
    support::introduce(&site.researcher, &site.researcher_id, &stranger, "researcher");
    std::fs::remove_dir_all(site.path("store/one")).unwrap();
    site.hospital = stranger;
    site.hospital_id = id;
    site.seal(&site.path("study"), "one");
    fails(&site, &[], Kind::UnknownSender);
}

#[test]
fn a_sender_that_was_never_confirmed() {
    let mut site = sealed();
    let stranger = new_keys(&site, "stranger-keys");
    let id = stranger.generate("sealing").unwrap();
    support::introduce(&site.researcher, &site.researcher_id, &stranger, "researcher");
    site.researcher.import("stranger", &stranger.export_public(&id).unwrap()).unwrap();
    std::fs::remove_dir_all(site.path("store/one")).unwrap();
    site.hospital = stranger;
    site.hospital_id = id;
    site.seal(&site.path("study"), "one");
    fails(&site, &[], Kind::KeyUnconfirmed);
}

#[test]
fn one_flipped_bit_in_the_header() {
    let site = sealed();
    let header = site.path("store/one/header.smp");
    let size = std::fs::read(&header).unwrap().len();
    // In the sealed body of the header's JSON, past the version line and the first key.
    flip(&header, size / 2);
    let mut request = Request::new(Some("one"));
    request.set("operations", "load").unwrap();
    let error = site.pipeline().process_study(&request).err().unwrap();
    assert!(matches!(error.kind(), Kind::SignatureInvalid | Kind::PackageMalformed), "{error}");
    assert_eq!(files(&site.path("workspace")), Vec::<PathBuf>::new());
}

#[test]
fn one_flipped_bit_in_each_encrypted_object() {
    for extension in ["smpm", "smpp"] {
        let site = sealed();
        let object = objects(&site, extension).remove(0);
        let size = std::fs::read(&object).unwrap().len();
        for position in [0, 60, size / 2, size - 1] {
            flip(&object, position);
            let error = fails(&site, &[], Kind::IntegrityFailed);
            assert!(error.to_string().starts_with("Integrity verification failed"), "{error}");
            flip(&object, position);
        }
    }
}

#[test]
fn a_missing_object() {
    for extension in ["smpm", "smpp"] {
        let site = sealed();
        std::fs::remove_file(objects(&site, extension).remove(0)).unwrap();
        fails(&site, &[], Kind::PackageIncomplete);
    }
}

#[test]
fn nothing_at_the_path() {
    let site = sealed();
    std::fs::remove_dir_all(site.path("store/one")).unwrap();
    fails(&site, &[], Kind::ObjectNotFound);
}

#[test]
fn no_dicom_in_the_package() {
    let site = Site::new();
    std::fs::create_dir(site.path("notes")).unwrap();
    std::fs::write(site.path("notes/readme.dcm"), "not an image, whatever its name says").unwrap();
    site.seal(&site.path("notes"), "one");
    let error = fails(&site, &[], Kind::NoDicomFiles);
    assert!(error.to_string().starts_with("No DICOM files found"), "{error}");
}

#[test]
fn a_missing_slice_and_a_doubled_one() {
    let site = sealed();
    std::fs::remove_dir_all(site.path("store/one")).unwrap();
    // The third name is the sixth slice: one from the middle, because a stack that merely ends early cannot be told from a short one.
    let missing = files(&site.path("study")).remove(2);
    std::fs::rename(&missing, site.path("kept-aside")).unwrap();
    site.seal(&site.path("study"), "one");
    fails(&site, &[], Kind::SliceMissing);

    let site = sealed();
    std::fs::remove_dir_all(site.path("store/one")).unwrap();
    let first = files(&site.path("study")).remove(0);
    std::fs::copy(first, site.path("study/again")).unwrap();
    site.seal(&site.path("study"), "one");
    fails(&site, &[], Kind::SliceDoubled);
}

#[test]
fn no_patient_id() {
    let site = Site::new();
    study::write_with(&site.path("study"), |_, dataset| {
        dataset.remove_element(dicom_dictionary_std::tags::PATIENT_ID);
    });
    site.seal(&site.path("study"), "one");
    fails(&site, &[], Kind::PatientIdMissing);
}

#[test]
fn no_model() {
    let site = sealed();
    let error = fails(&site, &[("operations", "segment")], Kind::ModelMissing);
    assert!(error.hint().unwrap().contains("segment_model_path"));
    fails(&site, &[("operations", "predict"), ("model_path", "/nonexistent/model.onnx")], Kind::ModelUnreadable);
}

#[test]
fn a_step_that_the_volume_is_not_made_for() {
    let site = Site::new();
    let text = |tag, vr, text: &str| dicom_core::DataElement::new(tag, vr, dicom_core::PrimitiveValue::from(text));
    // Hounsfield units: no field of a coil in them, and below 0 where there is air.
    study::write_with(&site.path("study"), |_, dataset| {
        dataset.put(text(dicom_core::Tag(0x0008, 0x0060), dicom_core::VR::CS, "CT"));
        dataset.put(text(dicom_core::Tag(0x0028, 0x1052), dicom_core::VR::DS, "-1024"));
        dataset.put(text(dicom_core::Tag(0x0028, 0x1053), dicom_core::VR::DS, "1"));
    });
    site.seal(&site.path("study"), "one");
    fails(&site, &[("preprocess.bias_correction", "n4")], Kind::InvalidArgument);
    fails(&site, &[("preprocess.denoise", "nlm")], Kind::InvalidArgument);
}

#[test]
fn an_output_that_cannot_be_written() {
    let site = sealed();
    std::fs::write(site.path("file"), b"in the way").unwrap();
    let output = site.path("file/results");
    fails(&site, &[("output_path", output.to_str().unwrap())], Kind::OutputUnwritable);
}

#[test]
fn a_refused_connection_uses_the_guides_words() {
    let mut site = sealed();
    // Port 9 on loopback: nobody listens there.
    for (key, value) in
        [("cloud.provider", "s3"), ("cloud.bucket", "b"), ("cloud.region", "us-east-1"), ("cloud.endpoint", "http://127.0.0.1:9")]
    {
        site.config.set(key, value).unwrap();
    }
    site.config.set("transfer.retries", "0").unwrap();
    let credentials = site.path("credentials");
    std::fs::write(&credentials, "[default]\naws_access_key_id = key\naws_secret_access_key = secret\n").unwrap();
    std::fs::set_permissions(&credentials, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    site.config.set("cloud.credentials_path", credentials.to_str().unwrap()).unwrap();
    let mut request = Request::new(Some("one"));
    request.set("operations", "load").unwrap();
    let error = site.pipeline().process_study(&request).err().unwrap();
    assert_eq!(error.kind(), Kind::ConnectionRefused, "{error}");
    assert!(error.to_string().starts_with("Connection refused") && error.to_string().contains("127.0.0.1:9"), "{error}");
}

#[test]
fn a_log_that_cannot_be_written_stops_everything() {
    let mut site = sealed();
    std::fs::write(site.path("not-a-folder"), b"").unwrap();
    site.config.set("audit_log_path", site.path("not-a-folder").to_str().unwrap()).unwrap();
    let error = pipeline::Pipeline::new(&site.config).err().unwrap();
    assert_eq!(error.kind(), Kind::AuditUnwritable);
}
