//! The main job from Rust: a hospital seals a study for a researcher, the researcher processes it.
//!
//! ```text
//! cargo run --release --example process_study -- STUDY_FOLDER WORK_FOLDER SEGMENT_MODEL PREDICT_MODEL
//! ```
//! Both sides live in one process here, and the object store between them is a local folder. With `cloud.provider` set to `s3` the same
//! program uses a bucket.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use smp::config::Config;
use smp::keys::KeyStore;
use smp::pipeline::{self, Pipeline, Request};

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [study, work, segment_model, predict_model] = arguments.as_slice() else {
        eprintln!("usage: process_study STUDY_FOLDER WORK_FOLDER SEGMENT_MODEL PREDICT_MODEL");
        return ExitCode::from(2);
    };
    match run(study, work, segment_model, predict_model) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            if let Some(hint) = error.hint() {
                eprintln!("{hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(study: &Path, work: &Path, segment_model: &Path, predict_model: &Path) -> smp::Result<()> {
    // 1. Each side makes its keys once, and keeps the private ones to itself.
    let hospital = pipeline::open_key_store(Some(&work.join("hospital-keys")), None)?;
    let researcher = pipeline::open_key_store(Some(&work.join("researcher-keys")), None)?;
    let hospital_id = hospital.generate("sealing")?;
    let researcher_id = researcher.generate("hospital-data-transfer")?;

    // 2. They send each other their public keys, and compare the fingerprints over the telephone.
    introduce(&hospital, &hospital_id, &researcher)?;
    introduce(&researcher, &researcher_id, &hospital)?;

    // 3. The store between them sees sealed objects only.
    let store = work.join("store");
    std::fs::create_dir_all(&store).map_err(|_| smp::Error::new(smp::Kind::StoreUnwritable, "the store folder"))?;
    let mut config = Config::new();
    config.set("cloud.provider", "local")?;
    for (key, path) in [
        ("cloud.bucket", store),
        ("workspace", work.join("workspace")),
        ("key_store_path", work.join("researcher-keys")),
        ("audit_log_path", work.join("audit")),
        ("segment_model_path", segment_model.to_path_buf()),
        ("model_path", predict_model.to_path_buf()),
    ] {
        config.set(key, &path.to_string_lossy())?;
    }
    config.set("user_id", "researcher@university.example")?;

    // 4. The hospital seals the study for the researcher.
    pipeline::seal_study(&config, &hospital, &hospital_id, &[&researcher_id], study, "incoming/study-001")?;

    // 5. The researcher processes it.
    let pipeline = Pipeline::new(&config)?;
    let mut request = Request::new(Some("incoming/study-001"));
    request.set("study_id", "RESEARCH-001")?;
    request.set("operations", "load,anonymize,preprocess,segment,predict")?;
    request.set("output_path", &work.join("results").to_string_lossy())?;
    let result = pipeline.process_study(&request)?;

    println!("Study: {}", result.study_id());
    if let Some(probability) = result.cancer_probability() {
        println!("Cancer Probability: {:.2}%", probability * 100.0);
    }
    println!("Prediction: {}", result.cancer_prediction().unwrap_or("none"));
    if let Some(confidence) = result.confidence_score() {
        println!("Confidence: {:.2}%", confidence * 100.0);
    }
    println!("Operations: {}", result.operations().join(", "));
    println!("Processing Time: {:.2}s", result.processing_time_seconds());

    // 6. The record for the review board, and the end of what was fetched.
    let entries = pipeline.export_audit(&work.join("audit_report.json"), None, None)?;
    println!("Exported {entries} audit entries");
    println!("Audit summary: {}", pipeline.audit_summary()?);
    pipeline.cleanup()?;
    println!("Cleanup: {}", pipeline.cleanup_report()?);
    Ok(())
}

fn introduce(from: &KeyStore, id: &str, to: &KeyStore) -> smp::Result<()> {
    let known_as = to.import("peer", &from.export_public(id)?)?;
    to.confirm(&known_as, &from.fingerprint(id)?)
}
