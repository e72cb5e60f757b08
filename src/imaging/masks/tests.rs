//! Comparisons with SimpleITK on the phantoms of tests/interop/intensity_expected.py, and what follows on paper.

use super::*;
use crate::imaging::intensity::tests::{DIMS, crc, expected, mix, volumes};

const SPACING_MM: [f64; 3] = [1.0, 0.5, 4.0];

/// The generator's volumes, and the one with slits and specks.
fn phantoms() -> Vec<Vec<f32>> {
    let mut all: Vec<Vec<f32>> = volumes().into_iter().map(|(voxels, _)| voxels).collect();
    let pierced = |(index, value): (u32, &f32)| match (mix(index + 99) % 9, mix(index + 77) % 97) {
        _ if index % 40 == 15 && index / 40 % 36 == 15 => 0.0,
        (_, 0) => 800.0,
        (0, _) => 0.0,
        _ => *value,
    };
    all.push((0..).zip(&all[0]).map(pierced).collect());
    all
}

fn plain(closing_radius: usize, keep: Keep) -> Parameters {
    Parameters { threshold: None, closing_radius, keep, fill_slices: false, fill_volume: false }
}

#[test]
fn masks_equal_simpleitks() {
    let phantoms = phantoms();
    for case in expected()["foregrounds"].as_array().unwrap() {
        let whole = |key: &str| case[key].as_u64().unwrap();
        let (voxels, radius) = (&phantoms[whole("volume") as usize], whole("radius") as usize);
        let made = |parameters: Parameters| foreground(voxels, DIMS, SPACING_MM, &parameters, &Control::new()).unwrap();
        let check = |parameters: Parameters, key: &str| {
            let found = made(parameters);
            assert_eq!(crc(found.mask.iter().copied()), whole(key), "{parameters:?} {key}, volume {}", whole("volume"));
            found
        };
        let found = check(plain(0, Keep::All), "foreground");
        assert_eq!((Some(f64::from(found.threshold)), found.components as u64), (case["threshold"].as_f64(), whole("unclosed")));
        let found = check(plain(radius, Keep::All), "closed");
        assert_eq!((found.components as u64, found.kept), (whole("components"), found.components));
        assert_eq!(check(plain(radius, Keep::Largest(1)), "largest").kept, 1);
        check(plain(radius, Keep::AtLeast(5)), "least");
        check(Parameters { fill_slices: true, ..plain(radius, Keep::Largest(1)) }, "slices");
        check(Parameters { fill_volume: true, ..plain(radius, Keep::Largest(1)) }, "filled");
        let found = check(Parameters { fill_slices: true, fill_volume: true, ..plain(radius, Keep::Largest(1)) }, "both");
        assert_eq!((found.voxels, found.volume_ml), (whole("count"), whole("count") as f64 * 2.0 / 1000.0));
        if radius == 2 {
            assert_eq!(breast_mask(voxels, DIMS, SPACING_MM, 1, &Control::new()).unwrap(), found);
        }
    }
}

#[test]
fn the_largest_parts_stay() {
    // Three bars of 2, 5 and 3 voxels in one slice, as a mammogram has them.
    let voxels: Vec<f32> = "..aa..aaaaa.aaa.".bytes().map(|c| if c == b'a' { 9.0 } else { 0.0 }).collect();
    for (parts, expected) in [(1, "......aaaaa....."), (2, "......aaaaa.aaa."), (9, "..aa..aaaaa.aaa.")] {
        let found = foreground(&voxels, [16, 1, 1], [1.0; 3], &plain(0, Keep::Largest(parts)), &Control::new()).unwrap();
        let text: String = found.mask.iter().map(|m| if *m == 1 { 'a' } else { '.' }).collect();
        assert_eq!((text.as_str(), found.components, found.kept), (expected, 3, parts.min(3)));
    }
    let given = Parameters { threshold: Some(-1.0), ..plain(0, Keep::All) };
    assert_eq!(foreground(&voxels, [16, 1, 1], [1.0; 3], &given, &Control::new()).unwrap().voxels, 16);
}

#[test]
fn any_number_of_threads_yields_the_same_mask() {
    let voxels = phantoms().pop().unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| breast_mask(&voxels, DIMS, SPACING_MM, 2, &Control::new())).unwrap()
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5));
}

#[test]
fn every_wrong_call_has_its_error() {
    let mut voxels = phantoms().swap_remove(0);
    let kind = |voxels: &[f32], dims, spacing_mm, parameters| {
        foreground(voxels, dims, spacing_mm, &parameters, &Control::new()).unwrap_err().kind()
    };
    let good = Parameters::default();
    assert_eq!(kind(&voxels, [40, 36, 23], SPACING_MM, good), Kind::VolumeInvalid);
    assert_eq!(kind(&voxels, [usize::MAX, 2, 2], SPACING_MM, good), Kind::LimitExceeded);
    assert_eq!(kind(&[], [0, 36, 24], SPACING_MM, good), Kind::VolumeInvalid);
    assert_eq!(kind(&voxels, DIMS, [1.0, 0.0, 1.0], good), Kind::InvalidArgument);
    assert_eq!(kind(&voxels, DIMS, SPACING_MM, Parameters { closing_radius: 9, ..good }), Kind::InvalidArgument);
    assert_eq!(kind(&voxels, DIMS, SPACING_MM, Parameters { keep: Keep::Largest(0), ..good }), Kind::InvalidArgument);
    assert_eq!(kind(&voxels, DIMS, SPACING_MM, Parameters { threshold: Some(f32::NAN), ..good }), Kind::InvalidArgument);
    assert_eq!(kind(&voxels, DIMS, SPACING_MM, Parameters { threshold: Some(1e9), ..good }), Kind::MaskEmpty);
    assert_eq!(kind(&voxels, DIMS, SPACING_MM, Parameters { keep: Keep::AtLeast(u64::MAX), ..good }), Kind::MaskEmpty);
    assert_eq!(kind(&[4.0; 34_560], DIMS, SPACING_MM, good), Kind::VolumeConstant);
    let cancelled = Control::new();
    cancelled.cancel();
    assert_eq!(foreground(&voxels, DIMS, SPACING_MM, &good, &cancelled).unwrap_err().kind(), Kind::Cancelled);
    voxels[5] = f32::NAN;
    assert_eq!(kind(&voxels, DIMS, SPACING_MM, good), Kind::VolumeInvalid);
}
