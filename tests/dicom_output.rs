//! The de-identified series as DICOM files (`output.formats = dicom`), against pydicom, SimpleITK and dciodvfy.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use smp::Kind;
use smp::pipeline::Request;
use support::{Site, files, study};

/// Runs a folder of files through a pipeline that writes nothing but DICOM; answers the folder of the files.
fn written(site: &Site, input: &Path, name: &str) -> Result<PathBuf, smp::Error> {
    let mut config = site.config.clone();
    config.set("output.formats", "dicom").unwrap();
    let pipeline = smp::pipeline::Pipeline::new(&config).unwrap();
    let mut request = Request::new(None);
    let output = site.path(&format!("results-{name}"));
    for (key, value) in [("operations", "load,anonymize"), ("study_id", name), ("output_path", output.to_str().unwrap())] {
        request.set(key, value).unwrap();
    }
    for file in files(input) {
        request.add_instance(&std::fs::read(file).unwrap()).unwrap();
    }
    pipeline.process_study(&request)?;
    Ok(output.join(format!("{name}_dicom")))
}

/// Compares with the files that went in; says what was compared.
fn compare(input: &Path, output: &Path) {
    let Some(python) = std::env::var_os("SMP_PYTHON") else {
        return support::skipped("comparison of DICOM files; set SMP_PYTHON to a python with pydicom and SimpleITK");
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/dicom_output.py");
    let told = Command::new(python).arg(script).arg(input).arg(output).output().unwrap();
    assert!(told.status.success(), "{}: {}", input.display(), String::from_utf8_lossy(&told.stderr));
    println!("{}: {}", input.display(), String::from_utf8_lossy(&told.stdout));
}

#[test]
fn a_made_up_series_comes_out_as_files_without_its_identifiers() {
    let site = Site::new();
    study::write(&site.path("study"));
    let output = written(&site, &site.path("study"), "MADE").unwrap();
    let files = files(&output);
    assert_eq!(files.len(), study::SLICES);
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        for identifier in [study::PATIENT_NAME, study::PATIENT_ID, study::INSTITUTION] {
            assert!(!bytes.windows(identifier.len()).any(|window| window == identifier.as_bytes()), "{identifier} in {}", file.display());
        }
    }
    compare(&site.path("study"), &output);
}

#[test]
fn files_are_written_of_deidentified_studies_only() {
    let site = Site::new();
    study::write(&site.path("study"));
    let mut config = site.config.clone();
    config.set("output.formats", "dicom").unwrap();
    config.set("auto_anonymize", "false").unwrap();
    let pipeline = smp::pipeline::Pipeline::new(&config).unwrap();
    let mut request = Request::new(None);
    request.set("operations", "load").unwrap();
    request.set("output_path", site.path("results").to_str().unwrap()).unwrap();
    for file in files(&site.path("study")) {
        request.add_instance(&std::fs::read(file).unwrap()).unwrap();
    }
    let error = pipeline.process_study(&request).err().expect("an identified study is not written");
    assert!(error.kind() == Kind::OutputUnsupported && error.hint().unwrap().contains("anonymize"), "{error}");
    assert!(!site.path("results").exists());
}

#[test]
fn real_series_of_every_syntax_come_out_as_they_went_in() {
    let Some(data) = support::test_data() else { return };
    let site = Site::new();
    let mut compared = 0;
    let mut check = |input: &Path, name: &str| {
        let output = written(&site, input, name).unwrap_or_else(|error| panic!("{}: {error}", input.display()));
        compare(input, &output);
        compared += 1;
    };
    for series in ["mr_t1_philips_mprage", "seg_sr/segmentations/ct-3slice"] {
        check(&data.join(series), &series.replace('/', "-"));
    }
    // Each of these is a series of one file.
    for folder in ["ts_ct_one_slice", "ts_mr_derived", "mammogram", "enhanced_mr_braintumour"] {
        for (number, file) in files(&data.join(folder)).into_iter().enumerate() {
            let alone = site.path(&format!("alone-{folder}-{number}"));
            std::fs::create_dir(&alone).unwrap();
            std::fs::copy(&file, alone.join("image.dcm")).unwrap();
            check(&alone, &format!("{folder}-{number}"));
        }
    }
    assert!(compared > 20, "{compared}");
}
