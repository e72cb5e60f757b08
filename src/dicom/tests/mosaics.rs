//! Siemens mosaics as nibabel and dcm2niix read them (`tests/interop/mosaic_expected.py` writes the files and the expected values).

use std::io::Read;

use base64::Engine;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::sample::load;
use crate::dicom::{IdentifiedStudy, Mark};
use crate::error::Kind;

/// The images: name, file, what is expected.
fn images() -> Vec<(String, Vec<u8>, Json)> {
    let expected: Json = serde_json::from_str(include_str!("../../../tests/data/mosaic.json")).unwrap();
    let images = expected["images"].as_array().unwrap().clone();
    let unpack = |image: Json| {
        let packed = base64::engine::general_purpose::STANDARD.decode(image["dicom"].as_str().unwrap()).unwrap();
        let mut bytes = Vec::new();
        flate2::read::ZlibDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
        (image["name"].as_str().unwrap().to_owned(), bytes, image)
    };
    images.into_iter().map(unpack).collect()
}

fn check(name: &str, study: &IdentifiedStudy, voxels: &[f32], expected: &Json) {
    assert_eq!(serde_json::json!(study.geometry.dims), expected["dims"], "{name}");
    for (row, line) in study.geometry.affine_lps.iter().enumerate() {
        for (column, value) in line.iter().enumerate() {
            let theirs = expected["affine_lps"][row][column].as_f64().unwrap();
            // Cosines have 8 decimals; nibabel does not bring row x column to unit length.
            assert!((value - theirs).abs() < 2e-7, "{name}: {value} instead of {theirs} at {row}, {column}");
        }
    }
    let bytes: Vec<u8> = voxels.iter().flat_map(|voxel| voxel.to_le_bytes()).collect();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, expected["sha256"].as_str().unwrap(), "{name}");
}

#[test]
fn mosaics_are_read_as_others_read_them() {
    let images = images();
    assert_eq!(images.len(), 10);
    for (name, bytes, expected) in images {
        let study = load([bytes]).unwrap_or_else(|error| panic!("{name}: {error}"));
        check(&name, &study, &study.voxels, &expected);
        assert_eq!(study.frames.len(), study.geometry.dims[2], "{name}");
        assert!(study.instances.len() == 1 && study.frames.iter().all(|of| (of.instance, of.frame) == (0, 0)), "{name}");
    }
}

#[test]
fn a_series_of_mosaics_is_a_series_of_volumes() {
    let (name, bytes, expected) = images().remove(0);
    // The same volume at two times: the acquisition number is written over the instance number's value, which is as long.
    let at = |number: u8| {
        let mut bytes = bytes.clone();
        let element = [0x20, 0x00, 0x12, 0x00, b'I', b'S', 2, 0, b'0' + number, b' '];
        let before = bytes.windows(6).position(|window| window == [0x20, 0x00, 0x13, 0x00, b'I', b'S']).expect("an instance number");
        bytes.splice(before..before, element);
        bytes
    };
    let study = load([at(2), at(1)]).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(
        study.channels.iter().map(|channel| channel.marks.clone()).collect::<Vec<_>>(),
        [1.0, 2.0].map(|time| vec![("time", Mark::Number(time))])
    );
    let half = study.voxels.len() / 2;
    check(&name, &study, &study.voxels[..half], &expected);
    check(&name, &study, &study.voxels[half..], &expected);
    assert_eq!(load([bytes.clone(), bytes]).err().unwrap().kind(), Kind::SliceDoubled, "the same volume twice");
}
