//! Real files against what pydicom, numpy and SimpleITK say about them (`tests/interop/dicom_expected.py` writes the expected values).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::sample::{load, load_by, refused};
use crate::dicom::geometry::{Finding, Policy, Remedy};
use crate::dicom::load::decode_image;
use crate::dicom::{IdentifiedStudy, Mark, Selection, Verdict};
use crate::error::{Kind, Result};

/// The folder of real series, or nothing where it is not available.
fn data() -> Option<PathBuf> {
    let folder = match std::env::var_os("SMP_TEST_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
    };
    if folder.is_dir() {
        return Some(folder);
    }
    println!("SKIPPED: no real DICOM series; set SMP_TEST_DATA to the folder that holds them");
    None
}

fn expected() -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dicom_expected.json");
    serde_json::from_slice(&read(&path)).expect("the expected values are JSON")
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("a file that can be read")
}

/// Every file of a folder, or the one file, in name order.
fn files(path: &Path) -> Vec<Vec<u8>> {
    if path.is_file() {
        return vec![read(path)];
    }
    let mut paths: Vec<PathBuf> = fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn digest(voxels: &[f32]) -> String {
    let mut hash = Sha256::new();
    for voxel in voxels {
        hash.update(voxel.to_le_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn numbers(json: &Json) -> Vec<f64> {
    match json {
        Json::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().expect("a number")],
    }
}

fn close(path: &str, found: &[f64], expected: &Json) {
    let expected = numbers(expected);
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-9 * b.abs().max(1.0)), "{path}: {found:?} against {expected:?}");
}

fn check(study: &IdentifiedStudy, expected: &Json) {
    let word = |key: &str| expected[key].as_str().expect("a text");
    let path = word("path");
    assert_eq!(study.modality, word("modality"), "{path}");
    assert_eq!(study.geometry.dims.map(|dim| dim as f64).to_vec(), numbers(&expected["dims"]), "{path}");
    close(path, &study.geometry.spacing_mm, &expected["spacing_mm"]);
    close(path, study.geometry.affine_lps.as_flattened(), &expected["affine_lps"]);
    assert_eq!(digest(&study.voxels), word("sha256"), "{path}");
}

#[test]
fn real_series_have_the_grid_and_the_voxels_that_pydicom_finds() {
    let Some(data) = data() else { return };
    let expected = expected();
    for group in ["series", "enhanced", "single"] {
        for entry in expected[group].as_array().unwrap() {
            let path = data.join(entry["path"].as_str().unwrap());
            let study = load(files(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            check(&study, entry);
            let types = entry["channels"].as_array().map_or(&[][..], Vec::as_slice);
            assert_eq!(study.channels.len(), types.len().max(1), "{}", path.display());
            for (channel, words) in study.channels.iter().zip(types) {
                // The one word that tells the types of the field map apart.
                let [("image_type", Mark::Word(word))] = channel.marks.as_slice() else { panic!("{channel:?}") };
                assert!(words.as_array().unwrap().iter().any(|known| known == word), "{word} of {words}");
            }
        }
    }
}

#[test]
fn the_order_of_files_does_not_matter() {
    let Some(data) = data() else { return };
    let expected = expected();
    let mut files = files(&data.join("mr_t1_philips_mprage"));
    // A fixed shuffle: 101 and 170 share no factor.
    files = (0..files.len()).map(|k| std::mem::take(&mut files[k * 101 % 170])).collect();
    check(&load(files).unwrap(), &expected["series"][0]);
}

#[test]
fn a_removed_and_a_repeated_slice_of_a_real_series_are_named() {
    let Some(data) = data() else { return };
    let series = &expected()["series"][0];
    // Place along the normal of file k of the series, both counted from 1, as numpy sorts them.
    let place = |k: u64| series["order"].as_array().unwrap().iter().position(|file| file.as_u64() == Some(k)).unwrap() + 1;
    let mut removed = files(&data.join("mr_t1_philips_mprage"));
    removed.remove(99);
    let error = refused(load(removed));
    assert_eq!((error.kind(), error.detail()), (Kind::SliceMissing, format!("1 after slice {}", place(100) - 1).as_str()));
    let mut repeated = files(&data.join("mr_t1_philips_mprage"));
    repeated.push(repeated[4].clone());
    let error = refused(load(repeated));
    let words = format!("slices {} and {} of 171 (files 5 and 171) lie at one position", place(5), place(5) + 1);
    assert_eq!((error.kind(), error.detail()), (Kind::SliceDoubled, words.as_str()));
}

#[test]
fn bad_series_are_refused_for_what_is_wrong_with_them() {
    let Some(data) = data() else { return };
    let reason = |name: &str| {
        let error = refused(load(files(&data.join(name))));
        (error.kind(), error.detail().to_owned())
    };
    // Heights 18.5, 23.5, 28.5, 38.5: one is missing before the last.
    assert_eq!(reason("bad_geometry/sliceincrement/001"), (Kind::SliceMissing, "1 after slice 3".to_owned()));
}

#[test]
fn a_tilted_series_is_what_scipy_makes_of_its_positions() {
    let Some(data) = data() else { return };
    let expected = &expected()["tilt"];
    // Its slices are thinner at the base of the skull, which is no grid either.
    let error = refused(load(files(&data.join("ct_head_ge_tilt"))));
    let [least, most] = numbers(&expected["steps_mm"])[..] else { panic!("two steps") };
    assert_eq!(error.kind(), Kind::GeometryInconsistent);
    assert!(error.detail().contains(&format!("from {least:.3} to {most:.3} mm")), "{error}");
    let policy = Policy { spacing: Remedy::Resample, ..Policy::default() };
    let study = load_by(files(&data.join("ct_head_ge_tilt")), Selection::default(), policy).unwrap();
    let Verdict::Resampled(resampled) = &study.geometry.verdict else { panic!("{:?}", study.geometry.verdict) };
    let [Finding::GantryTilt { degrees }, Finding::VariableSpacing { .. }] = resampled.findings.as_slice() else {
        panic!("{:?}", resampled.findings)
    };
    assert!((degrees - expected["degrees"].as_f64().unwrap()).abs() < 1e-4);
    assert_eq!(study.geometry.dims.map(|dim| dim as f64).to_vec(), numbers(&expected["dims"]));
    close("tilt", &study.geometry.spacing_mm, &expected["spacing_mm"]);
    close("tilt", study.geometry.affine_lps.as_flattened(), &expected["affine_lps"]);
    for (found, expected) in study.voxels.iter().step_by(4099).zip(numbers(&expected["every_4099th"])) {
        assert!((f64::from(*found) - expected).abs() < 0.02, "{found} against {expected}");
    }
    let sum: f64 = study.voxels.iter().map(|voxel| f64::from(*voxel)).sum();
    let expected_sum = expected["sum"].as_f64().unwrap();
    assert!((sum / expected_sum - 1.0).abs() < 1e-7, "{sum} against {expected_sum}");
}

#[test]
fn slices_of_two_orientations_in_one_series_are_refused() {
    let Some(data) = data() else { return };
    let error = refused(load(files(&data.join("bad_geometry/sliceorientation/001"))));
    assert_eq!(error.kind(), Kind::GeometryInconsistent, "{error}");
}

#[test]
fn transfer_syntaxes_decode_to_what_pydicom_and_dcmtk_decode() {
    let Some(data) = data() else { return };
    let mut exact = BTreeSet::new();
    let expected = expected();
    for entry in expected["syntaxes"].as_array().unwrap() {
        let (path, uid) = (entry["path"].as_str().unwrap(), entry["syntax"].as_str().unwrap());
        let outcome: Result<Vec<f32>> = decode_image(fs::read(data.join(path)).unwrap());
        let voxels = outcome.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(voxels.len() as u64, entry["voxels"].as_u64().unwrap(), "{path}");
        assert_eq!(digest(&voxels), entry["sha256"].as_str().unwrap(), "{path}");
        exact.insert(uid);
    }
    println!("equal to pydicom and dcmtk: {exact:?}");
    assert_eq!(exact.len(), 17);
}

#[test]
fn a_real_file_cut_anywhere_or_damaged_is_an_answer() {
    let Some(data) = data() else { return };
    for name in ["ts_mr_derived/htj2k_lossless.dcm", "ts_mr_derived/jxl_lossless.dcm", "seg_sr/segmentations/sparse-labelmap-ppv5.dcm"] {
        let whole = fs::read(data.join(name)).unwrap();
        for cut in (0..whole.len()).step_by(97) {
            assert!(load([whole[..cut].to_vec()]).is_err(), "{name} cut at {cut}");
        }
    }
}

#[test]
fn damaged_code_streams_never_panic() {
    let Some(data) = data() else { return };
    let names = [
        "ts_mr_derived/htj2k_lossless.dcm",
        "ts_mr_derived/jxl_lossless.dcm",
        "ts_ct_one_slice/CTImage.dcm_JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70.dcm",
        "ts_ct_one_slice/CTImage.dcm_JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50.dcm",
        "ts_ct_one_slice/CTImage.dcm_JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90.dcm",
        "ts_ct_one_slice/CTImage.dcm_RLELosslessTransferSyntax_1.2.840.10008.1.2.5.dcm",
    ];
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for name in names {
        let whole = fs::read(data.join(name)).unwrap();
        let start = whole.windows(4).rposition(|window| window == [0xE0, 0x7F, 0x10, 0x00]).unwrap();
        for round in 0..12 {
            let mut bytes = whole.clone();
            // The first rounds damage the code stream's headers, the later ones anything.
            let span = if round < 8 { 300 } else { whole.len() - start - 12 };
            for _ in 0..1 + round % 4 {
                bytes[start + 12 + random() % span] = random() as u8;
            }
            let _ = decode_image(bytes);
        }
    }
}

#[test]
fn a_dicom_folder_with_reports_and_segmentations_gives_its_images() {
    let Some(data) = data() else { return };
    let mut all = files(&data.join("seg_sr/sr-example"));
    all.extend(fs::read(data.join("seg_sr/segmentations/liver.dcm")));
    all.extend(fs::read(data.join("seg_sr/segmentations/partial_overlaps.dcm")));
    all.extend(files(&data.join("seg_sr/segmentations/ct-3slice")));
    check(&load(all).unwrap(), &expected()["series"][1]);
}
