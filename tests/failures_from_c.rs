//! The main job's C program through every failure: each has a status of its own, the guide's words where it has them, and leaves nothing.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use smp::pipeline;
use support::c_program::{compile, run, write_config};
use support::{Site, files, study};

const ALL: &str = "load,anonymize,preprocess,segment";

/// One run of the program; `more` changes the configuration. Checks what holds for every failure.
fn fails(site: &Site, program: &Path, operations: &str, output: &str, more: &[(&str, &str)]) -> HashMap<String, String> {
    let config = site.path("config.json");
    write_config(site, &config, more);
    let output = site.path(output);
    let arguments = [config.to_str().unwrap(), "one", operations, output.to_str().unwrap(), "-", "-"];
    let report = run(program, &arguments, &[]);
    assert_eq!(report["failed"], "process_study");
    assert_eq!(report["live_handles"], "0");
    assert!(report["code"].parse::<i32>().unwrap() < 0);
    assert_eq!(files(&site.path("results")), Vec::<PathBuf>::new(), "partial output");
    assert_eq!(files(&site.path("workspace")), Vec::<PathBuf>::new(), "something is left in the workspace");
    let audit = site.config.get("audit_log_path").unwrap().unwrap();
    let failures = files(Path::new(&audit)).iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect::<String>();
    assert!(failures.contains(&format!("\"error_code\":{}", report["code"])), "the audit log does not say {}", report["code"]);
    report
}

fn sealed(folder: &str) -> Site {
    let site = Site::new();
    study::write(&site.path("study"));
    std::fs::create_dir(site.path("notes")).unwrap();
    std::fs::write(site.path("notes/readme.dcm"), "no image, whatever its name says").unwrap();
    site.seal(&site.path(folder), "one");
    site
}

fn object(site: &Site, extension: &str) -> PathBuf {
    files(&site.path("store")).into_iter().find(|path| path.extension().is_some_and(|found| found == extension)).unwrap()
}

#[test]
fn each_failure_has_its_own_status_and_the_guides_words() {
    let scratch = tempfile::tempdir().unwrap();
    let program = compile("tests/c/process_one.c", &scratch.path().join("process_one"));
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    let mut note = |what: &'static str, report: &HashMap<String, String>, expected: &str, words: &str| {
        assert_eq!(report["status"], expected, "{what}");
        assert!(report["message"].contains(words), "{what}: {}", report["message"]);
        seen.insert(report["status"].clone(), what);
    };

    let mut site = sealed("study");
    let other = pipeline::open_key_store(Some(&site.path("other-keys")), None).unwrap();
    other.generate("somebody else").unwrap();
    support::introduce(&site.hospital, &site.hospital_id, &other, "hospital");
    drop(other);
    site.config.set("key_store_path", site.path("other-keys").to_str().unwrap()).unwrap();
    site.config.set("encryption_key_path", site.path("other-keys/master.key").to_str().unwrap()).unwrap();
    site.config.set("audit_log_path", site.path("other-audit").to_str().unwrap()).unwrap();
    note("wrong key", &fails(&site, &program, "load", "results", &[]), "SMP_ERR_NOT_A_RECIPIENT", "not sealed for any key");

    let site = sealed("study");
    site.researcher.remove(&site.hospital_id).unwrap();
    note("unknown sender", &fails(&site, &program, "load", "results", &[]), "SMP_ERR_UNKNOWN_SENDER", "unknown sender");

    for extension in ["smp", "smpm", "smpp"] {
        let site = sealed("study");
        let path = object(&site, extension);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let report = fails(&site, &program, "load", "results", &[]);
        if extension == "smp" {
            assert!(
                ["SMP_ERR_SIGNATURE_INVALID", "SMP_ERR_PACKAGE_MALFORMED"].contains(&report["status"].as_str()),
                "{}",
                report["status"]
            );
            continue;
        }
        note("flipped bit", &report, "SMP_ERR_INTEGRITY_FAILED", "Integrity verification failed");
    }

    let site = sealed("study");
    std::fs::remove_file(object(&site, "smpp")).unwrap();
    note("missing object", &fails(&site, &program, "load", "results", &[]), "SMP_ERR_PACKAGE_INCOMPLETE", "missing");

    let site = sealed("notes");
    note("no DICOM", &fails(&site, &program, "load", "results", &[]), "SMP_ERR_NO_DICOM_FILES", "No DICOM files found");

    let site = sealed("study");
    note("no model", &fails(&site, &program, ALL, "results", &[]), "SMP_ERR_MODEL_MISSING", "segment_model_path");

    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/segment.onnx");
    let settings = [("segment_model_path", model.to_str().unwrap()), ("inference.runtime_library", "/nonexistent/libonnxruntime.so")];
    let report = fails(&site, &program, ALL, "results", &settings);
    note("no runtime", &report, "SMP_ERR_RUNTIME_MISSING", "the model's runtime was not found");
    assert!(report["hint"].contains("inference.runtime_library"), "the hint names the places searched: {}", report["hint"]);

    std::fs::write(site.path("in-the-way"), b"").unwrap();
    note("unwritable output", &fails(&site, &program, "load", "in-the-way/results", &[]), "SMP_ERR_OUTPUT_UNWRITABLE", "output");

    assert_eq!(seen.len(), 8, "two failures share a status: {seen:?}");
}
