//! A published two-pass model runs by its contract alone, and refuses what is no head.
//!
//! deepbet 1.0.2 (MIT) on the real T1 study of `SMP_TEST_DATA`; the expected mask is what deepbet itself made of it.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use smp::error::Kind;
use smp::pipeline;
use support::Site;

const STUDY: &str = "mr_t1_philips_mprage";

/// Models and contract in the site's folder; the model's path.
fn install(site: &Site, models: &Path) -> PathBuf {
    for name in ["deepbet_model.onnx", "deepbet_bbox.onnx"] {
        std::fs::copy(models.join(name), site.path(name)).unwrap();
    }
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/contracts/deepbet_model.json");
    std::fs::copy(contract, site.path("deepbet_model.json")).unwrap();
    site.path("deepbet_model.onnx")
}

/// A researcher with the model.
fn site_with_model() -> Option<(Site, PathBuf)> {
    let (Some(data), Some(runtime)) = (support::test_data(), support::onnx_runtime()) else { return None };
    let mut site = Site::new();
    let model = install(&site, &data.parent().unwrap().join("models"));
    site.config.set("segment_model_path", model.to_str().unwrap()).unwrap();
    site.config.set("inference.runtime_library", runtime.to_str().unwrap()).unwrap();
    Some((site, data))
}

#[test]
fn deepbet_finds_the_brain_that_deepbet_found() {
    let Some((mut site, data)) = site_with_model() else { return };
    let Some(python) = std::env::var_os("SMP_PYTHON") else {
        return support::skipped("SMP_PYTHON is not set, so no second reader can compare the masks");
    };
    site.seal(&data.join(STUDY), "studies/head");
    site.config.set("output.formats", "json,nifti").unwrap();
    let mut request = pipeline::Request::new(Some("studies/head"));
    request.set("study_id", "HEAD").unwrap();
    request.set("operations", "load,anonymize,preprocess,segment").unwrap();
    request.set("output_path", site.path("results").to_str().unwrap()).unwrap();
    let result = site.pipeline().process_study(&request).unwrap();
    let answer = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/same_mask.py"))
        .arg(site.path("results/HEAD_segmentation.nii.gz"))
        .arg(data.join("../models/expected_deepbet_philips_mask_RAS.nii.gz"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(answer.status.success(), "{text}{}", String::from_utf8_lossy(&answer.stderr));
    let dice: f64 = text.lines().find_map(|line| line.strip_prefix("dice ")).unwrap().parse().unwrap();
    println!("{text}");
    assert!(dice >= 0.995, "{dice}");
    // Both files took part, and the result says so.
    let json: serde_json::Value = serde_json::from_str(&result.json().unwrap()).unwrap();
    let model = &json["segmentation"]["model"];
    assert_eq!(model["members"].as_array().map(Vec::len), Some(1), "{model}");
}

/// A ball of 18 cm with a bright rind, fibres and seeds: what a fruit on the scanner's table looks like.
fn fruit(column: usize, row: usize, slice: usize) -> u16 {
    let place = [column as f64 - 11.5, row as f64 - 9.5, slice as f64 - 5.5];
    let radius = (place.iter().map(|p| p * p).sum::<f64>()).sqrt();
    let fibres = 60.0 * ((place[0] * 2.1).sin() * (place[1] * 1.7).cos() + (place[2] * 1.3).sin());
    match radius {
        r if r > 5.4 => 12 + ((column * 7 + row * 13 + slice * 5) % 9) as u16,
        r if r > 4.4 => 900,
        r if r > 2.0 => (350.0 + fibres) as u16,
        _ => 120,
    }
}

#[test]
fn a_fruit_is_no_head() {
    let Some((site, _)) = site_with_model() else { return };
    let folder = site.path("fruit");
    support::study::write_with(&folder, |slice, dataset| {
        let pixels: Vec<u16> =
            (0..support::study::ROWS).flat_map(|row| (0..support::study::COLUMNS).map(move |column| fruit(column, row, slice))).collect();
        dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into())));
        for (tag, text) in [
            (tags::PIXEL_SPACING, "16.7\\16.7".to_owned()),
            (tags::SLICE_THICKNESS, "16.7".to_owned()),
            (tags::IMAGE_POSITION_PATIENT, format!("-200\\-160\\{}", slice as f64 * 16.7 - 90.0)),
        ] {
            dataset.put(DataElement::new(tag, VR::DS, PrimitiveValue::from(text)));
        }
    });
    site.seal(&folder, "studies/fruit");
    let mut request = pipeline::Request::new(Some("studies/fruit"));
    request.set("operations", "load,anonymize,preprocess,segment").unwrap();
    let error = site.pipeline().process_study(&request).err().expect("no brain in a fruit");
    assert_eq!(error.kind(), Kind::InputImplausible, "{error}");
}
