//! Pixels in colour against pydicom and dcmtk (`tests/interop/colour_expected.py` writes the files and the expected samples).

use std::io::Read;

use base64::Engine;
use serde_json::Value as Json;

use super::sample::*;
use crate::dicom::{Mark, Verdict};
use crate::error::Kind;

#[test]
fn pixels_in_colour_are_what_pydicom_and_dcmtk_make_of_them() {
    let expected: Json = serde_json::from_str(include_str!("../../../tests/data/colour.json")).unwrap();
    let images = expected["images"].as_array().unwrap();
    assert_eq!(images.len(), 18);
    for image in images {
        let name = image["name"].as_str().unwrap();
        let packed = base64::engine::general_purpose::STANDARD.decode(image["dicom"].as_str().unwrap()).unwrap();
        let mut bytes = Vec::new();
        flate2::read::ZlibDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
        let study = load([bytes]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((study.geometry.dims, study.geometry.verdict.clone()), ([12, 7, 1], Verdict::SingleSlice), "{name}");
        let colours: Vec<_> = study.channels.iter().map(|channel| channel.marks.clone()).collect();
        assert_eq!(colours, ["red", "green", "blue"].map(|colour| vec![("colour", Mark::Word(colour))]), "{name}");
        let rgb = image["rgb"].as_array().unwrap();
        assert_eq!(study.voxels.len(), rgb.len(), "{name}");
        let tolerance = image["tolerance"].as_f64().unwrap();
        for (index, (found, expected)) in study.voxels.iter().zip(rgb).enumerate() {
            let expected = expected.as_f64().unwrap();
            assert!((f64::from(*found) - expected).abs() <= tolerance, "{name}: {found} instead of {expected} at {index}");
        }
    }
}

/// A slice of 2 rows and 3 columns in colour, samples counting up.
fn coloured(z: f64, planar: u16) -> Vec<Element> {
    let image = with(with(slice(z, 0), text((0x0028, 0x0004), "CS", "RGB")), word((0x0028, 0x0002), 3));
    let image = with(image, word((0x0028, 0x0006), planar));
    with(image, pixels(Value::Words((0..18).collect())))
}

#[test]
fn a_stack_in_colour_is_three_volumes() {
    let study = load([explicit(&coloured(2.0, 1)), explicit(&coloured(0.0, 0))]).unwrap();
    assert_eq!((study.geometry.dims, study.channels.len(), study.frames.len()), ([3, 2, 2], 3, 2));
    // The slice at 0 has its colours pixel by pixel, the one at 2 plane by plane.
    let by_pixel = |colour: usize| (0..6).map(move |pixel| (3 * pixel + colour) as f32);
    let by_plane = |colour: usize| (0..6).map(move |pixel| (6 * colour + pixel) as f32);
    let voxels: Vec<f32> = (0..3).flat_map(|colour| by_pixel(colour).chain(by_plane(colour))).collect();
    assert_eq!(*study.voxels, voxels);
}

#[test]
fn broken_palettes_and_mixtures_are_refused() {
    let palette = |elements: Vec<Element>| {
        let mut image = with(slice(0.0, 0), text((0x0028, 0x0004), "CS", "PALETTE COLOR"));
        elements.into_iter().for_each(|element| image = with(image.clone(), element));
        refused(load([explicit(&image)]))
    };
    let words = |tag, words: Vec<u16>| Element { tag, vr: "US", value: Value::Words(words) };
    let table = |element, values: Vec<u16>| Element { tag: (0x0028, element), vr: "OW", value: Value::Words(values) };
    let error = palette(vec![]);
    assert!(error.kind() == Kind::DicomMalformed && error.detail().contains("a palette has no descriptor"), "{error}");
    let described = |first| (0x1101..0x1104).map(|element| words((0x0028, element), vec![4, first, 16])).collect::<Vec<_>>();
    let error = palette(described(0));
    assert!(error.kind() == Kind::DicomMalformed && error.detail().contains("a palette has no data"), "{error}");
    let filled: Vec<Element> = (0x1201..0x1204).map(|element| table(element, vec![1, 2, 3])).collect();
    let error = palette([described(0), filled].concat());
    assert!(error.detail().contains("a palette has 3 entries instead of 4"), "{error}");
    // Gray and colour in one series are no volume.
    let error = refused(load([explicit(&coloured(0.0, 0)), explicit(&slice(2.0, 0))]));
    assert!(
        error.kind() == Kind::GeometryInconsistent && error.detail().contains("samples per pixel differ: 3 in file 1, 1 in file 2"),
        "{error}"
    );
}
