//! Regions that are blacked out: in volumes and in kept pixels, for every layout of samples. Expected values are laid out on the page, or pydicom's.

use std::io::Read;
use std::sync::Arc;

use base64::Engine;
use serde_json::Value as Json;

use super::sample::*;
use crate::control::Control;
use crate::dicom::{IdentifiedStudy, Limits, Loader, Policy, Region, Selection};
use crate::error::Result;
use crate::secret::Plain;

fn blacked_out(files: Vec<Vec<u8>>, regions: &'static [Region]) -> Result<IdentifiedStudy> {
    let loader = Loader::new(Limits::default(), Selection::default(), Policy::default());
    let mut loader = loader.keep_pixels().black_out(Arc::new(|_| regions.to_vec()));
    for (number, file) in files.into_iter().enumerate() {
        loader.add(number, Plain::new(file), &Control::new())?;
    }
    loader.finish(&Control::new())
}

/// The value of the pixel data that are written, in explicit little endian.
fn value(study: &IdentifiedStudy) -> Vec<u8> {
    let mut out = Vec::new();
    study.pixels[0].write(&mut out).unwrap();
    out.split_off(12)
}

fn le(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The second and third pixel of the first row, and what lies beyond the frame.
const PART: &[Region] = &[Region { left: 1, top: 0, width: 9, height: 1 }];

#[test]
fn gray_pixels_get_the_darkest_value_of_their_frame() {
    let image = |interpretation: &str, signed: u16, values: [u16; 6]| {
        let image = with(with(slice(0.0, 0), text((0x0028, 0x0004), "CS", interpretation)), word((0x0028, 0x0103), signed));
        with(image, pixels(Value::Words(values.to_vec())))
    };
    let check = |interpretation, signed, values: [u16; 6], expected: [u16; 6], voxels: [f32; 6]| {
        let elements = image(interpretation, signed, values);
        for (syntax, form) in [(EXPLICIT, Form::Explicit), (IMPLICIT, Form::Implicit), (BIG, Form::Big)] {
            let study = blacked_out(vec![file(syntax, &write(&elements, form))], PART).unwrap();
            assert_eq!(value(&study), le(&expected), "{syntax} {interpretation}");
            // Slope and intercept of the sample are 1 and 0, see `values`.
            assert_eq!(*study.voxels, voxels, "{syntax} {interpretation}");
            assert_eq!(study.blacked_out, [PART.to_vec()]);
        }
    };
    let transform = |value: u16| f32::from(value.cast_signed());
    let shown = |values: [u16; 6]| values.map(transform);
    let plain = load([explicit(&image("MONOCHROME2", 1, [0, 1, 2, 3, 4, 5]))]).unwrap();
    let (slope, intercept) = (plain.voxels[1] - plain.voxels[0], plain.voxels[0]);
    let voxels = |values: [u16; 6]| shown(values).map(|value| value * slope + intercept);
    check("MONOCHROME2", 0, [9, 70, 80, 12, 7, 30], [9, 7, 7, 12, 7, 30], voxels([9, 7, 7, 12, 7, 30]));
    check("MONOCHROME1", 0, [9, 70, 80, 12, 7, 30], [9, 80, 80, 12, 7, 30], voxels([9, 80, 80, 12, 7, 30]));
    // -3 is the lowest of signed values.
    check("MONOCHROME2", 1, [9, 70, 80, 12, 0xFFFD, 30], [9, 0xFFFD, 0xFFFD, 12, 0xFFFD, 30], voxels([9, 0xFFFD, 0xFFFD, 12, 0xFFFD, 30]));
}

#[test]
fn nothing_is_touched_without_regions() {
    let study = blacked_out(vec![explicit(&slice(0.0, 258))], &[]).unwrap();
    assert_eq!(value(&study), le(&[258, 259, 260, 261, 262, 263]));
    assert_eq!(study.blacked_out, [Vec::new()]);
}

#[test]
fn every_frame_of_every_file_is_blacked_out() {
    let place = |z: f64| vec![items((0x0020, 0x9113), vec![vec![text((0x0020, 0x0032), "DS", &format!("0\\0\\{z}"))]])];
    let frames = with(slice(0.0, 0), items((0x5200, 0x9230), vec![place(0.0), place(2.0)]));
    let frames = with(without(frames, (0x0020, 0x0032)), text((0x0028, 0x0008), "IS", "2"));
    let frames = with(frames, pixels(Value::Words((100..112).rev().collect())));
    let study = blacked_out(vec![explicit(&frames)], PART).unwrap();
    // Each frame has a darkest value of its own.
    assert_eq!(value(&study), le(&[111, 106, 106, 108, 107, 106, 105, 100, 100, 102, 101, 100]));
    let stack = blacked_out(vec![explicit(&slice(0.0, 10)), explicit(&slice(2.0, 20))], PART).unwrap();
    assert_eq!(stack.blacked_out, [PART.to_vec(), PART.to_vec()]);
    let (first, second) = stack.voxels.split_at(6);
    assert!([first, second].iter().all(|slice| slice[1] == slice[0] && slice[2] == slice[0] && slice[3] > slice[0]));
}

/// The files of `colours`, whose red, green and blue pydicom knows.
#[test]
fn pixels_in_colour_get_black_and_are_written_as_their_header_says() {
    const BOX: &[Region] = &[Region { left: 2, top: 1, width: 6, height: 3 }];
    let expected: Json = serde_json::from_str(include_str!("../../../tests/data/colour.json")).unwrap();
    let mut decoded = 0;
    for image in expected["images"].as_array().unwrap() {
        let name = image["name"].as_str().unwrap();
        let packed = base64::engine::general_purpose::STANDARD.decode(image["dicom"].as_str().unwrap()).unwrap();
        let mut bytes = Vec::new();
        flate2::read::ZlibDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
        let rgb: Vec<f64> = image["rgb"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
        let tolerance = image["tolerance"].as_f64().unwrap();
        let study = blacked_out(vec![bytes.clone()], BOX).unwrap_or_else(|error| panic!("{name}: {error}"));
        let check = |study: &IdentifiedStudy, how: &str| {
            let is_palette = name.contains("palette");
            let mut inside = std::collections::BTreeSet::new();
            for (index, (found, expected)) in study.voxels.iter().zip(&rgb).enumerate() {
                let (colour, row, column) = (index / 84, index % 84 / 12, index % 12);
                if (2..8).contains(&column) && (1..4).contains(&row) {
                    inside.insert((colour, found.to_bits()));
                    assert!(is_palette || *found == 0.0, "{name} {how}: {found} in the region, at {index}");
                } else {
                    assert!((f64::from(*found) - expected).abs() <= tolerance, "{name} {how}: {found} instead of {expected} at {index}");
                }
            }
            assert_eq!(inside.len(), 3, "{name}: one colour");
        };
        check(&study, "decoded");
        // What is written is read again, with a header that says what it is.
        let pixels = &study.pixels[0];
        let mut dataset = study.instances[0].dataset.clone();
        pixels.describe(&mut dataset);
        let syntax = pixels.transfer_syntax();
        let mut header = Vec::new();
        dataset.write_dataset_with_ts(&mut header, &dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN.erased()).unwrap();
        pixels.write(&mut header).unwrap();
        assert_eq!(syntax, EXPLICIT, "{name}");
        check(&load([file(syntax, &header)]).unwrap_or_else(|error| panic!("{name} again: {error}")), "written");
        decoded += usize::from(study.instances[0].meta.transfer_syntax().starts_with("1.2.840.10008.1.2.4."));
    }
    assert!(decoded >= 5, "{decoded}");
}
