//! Stacks that are no grid and are made into one: expected values are arithmetic on the page; the real tilted series is in `real`.

use super::sample::*;
use crate::control::Control;
use crate::dicom::geometry::{Finding, Policy, Remedy};
use crate::dicom::{IdentifiedStudy, Selection, Verdict};
use crate::error::{Error, Kind};
use crate::imaging::resample::labels_to_grid;

/// A slice of 3 x 2 pixels of 0.75 x 0.5 mm whose first pixel lies at y, z and has a value; the others count up from it.
fn placed(y: f64, z: f64, first: u16) -> Vec<u8> {
    explicit(&with(slice(z, first), text((0x0020, 0x0032), "DS", &format!("-10\\{y}\\{z}"))))
}

fn all_remedied() -> Policy {
    Policy { tilt: Remedy::Resample, spacing: Remedy::Resample, gaps: Remedy::Resample, takes_largest: false }
}

fn load_all(files: Vec<Vec<u8>>) -> Result<IdentifiedStudy, Error> {
    load_by(files, Selection::default(), all_remedied())
}

fn findings(study: &IdentifiedStudy) -> &[Finding] {
    match &study.geometry.verdict {
        Verdict::Resampled(resampled) => &resampled.findings,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tilt_by_whole_pixels_moves_slices_and_changes_no_value() {
    // Half a millimetre, one row, towards the back for every 2 mm.
    let study = load([placed(0.0, 0.0, 10), placed(0.5, 2.0, 20), placed(1.0, 4.0, 30)]).unwrap();
    let geometry = &study.geometry;
    assert_eq!((geometry.dims, geometry.spacing_mm), ([3, 4, 3], [0.75, 0.5, 2.0]));
    assert_eq!(geometry.affine_lps, [[0.75, 0.0, 0.0, -10.0], [0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1.0]]);
    let air = [10.0; 3];
    let rows = |first: f32| [[first, first + 1.0, first + 2.0], [first + 3.0, first + 4.0, first + 5.0]];
    let ([a, b], [c, d], [e, f]) = (rows(10.0), rows(20.0), rows(30.0));
    assert_eq!(study.voxels.to_vec(), [a, b, air, air, air, c, d, air, air, air, e, f].concat());
    // 0.5 mm aside for 2 mm along the normal.
    let Finding::GantryTilt { degrees } = findings(&study)[0] else { panic!("no tilt") };
    assert!((degrees - 0.25f64.atan().to_degrees()).abs() < 1e-9);
    assert_eq!(study.instances.len(), 3, "a header for each frame that came");
}

#[test]
fn a_mask_on_the_upright_grid_returns_to_each_frame() {
    // Moved by 1.3 rows from slice to slice, so nothing but the nearest row is right.
    let study = load((0..4).map(|k| placed(0.65 * f64::from(k), 3.0 * f64::from(k), 0)).collect::<Vec<_>>()).unwrap();
    let Verdict::Resampled(resampled) = &study.geometry.verdict else { panic!("no verdict") };
    let frames = &resampled.frames;
    let [columns, rows, _] = study.geometry.dims;
    for k in 0..4 {
        // Marks the voxels of the grid that a frame's second row lies next to.
        let row = 1 + (1.3 * k as f64).round() as usize;
        let mut labels = vec![0u8; study.voxels.len()];
        labels[(k * rows + row) * columns..][..columns].copy_from_slice(&[1, 2, 3]);
        for frame in 0..4 {
            let back = labels_to_grid(&labels, &study.geometry, &frames.grid(frame).unwrap(), &Control::new()).unwrap();
            assert_eq!(back, if frame == k { [0, 0, 0, 1, 2, 3] } else { [0; 6] }, "frame {frame} of a mask in slice {k}");
        }
    }
    assert!(frames.grid(4).is_none());
}

#[test]
fn a_tilt_by_parts_of_a_pixel_is_interpolated() {
    let study = load([placed(0.0, 0.0, 0), placed(-0.125, 1.0, 100)]).unwrap();
    // A quarter of a row towards the front: rows of the grid begin one above, and the second slice's first row lies at 0.75.
    assert_eq!(study.geometry.dims, [3, 3, 2]);
    assert_eq!(study.geometry.affine_lps[1][3], -0.5);
    let middle: Vec<f32> = study.voxels[12..15].to_vec();
    // Between rows 100.. and 103.., a quarter of the way.
    assert_eq!(middle, [100.75, 101.75, 102.75]);
    assert_eq!(study.voxels[9..12], [0.0; 3], "no part of the slice reaches the first row's centres");
}

#[test]
fn uneven_steps_are_made_even_when_asked_for() {
    let stack = || [0.0, 2.0, 4.6, 6.0].map(|z: f64| placed(0.0, z, (100.0 * z).round() as u16)).to_vec();
    let error = refused(load(stack()));
    assert_eq!(error.kind(), Kind::GeometryInconsistent);
    assert!(error.hint().unwrap().contains("geometry.spacing"));
    let study = load_all(stack()).unwrap();
    assert_eq!((study.geometry.dims, study.geometry.spacing_mm[2]), ([3, 2, 4], 2.0));
    let firsts: Vec<f32> = study.voxels.chunks(6).map(|slice| slice[0]).collect();
    // The value is 100 z, which linear interpolation keeps.
    for (found, expected) in firsts.iter().zip([0.0, 200.0, 400.0, 600.0]) {
        assert!((found - expected).abs() < 1e-4, "{firsts:?}");
    }
    let [Finding::VariableSpacing { least_mm, most_mm }] = findings(&study) else { panic!("{:?}", findings(&study)) };
    assert!((least_mm - 1.4).abs() < 1e-9 && (most_mm - 2.6).abs() < 1e-9);
}

#[test]
fn missing_slices_are_made_up_only_when_asked_for() {
    let stack = || [0.0, 2.0, 6.0, 8.0].map(|z| placed(0.0, z, (100.0 * z) as u16)).to_vec();
    assert_eq!(refused(load(stack())).kind(), Kind::SliceMissing);
    let study = load_all(stack()).unwrap();
    assert_eq!(study.geometry.dims, [3, 2, 5]);
    assert_eq!(study.voxels.chunks(6).map(|slice| slice[0]).collect::<Vec<_>>(), [0.0, 200.0, 400.0, 600.0, 800.0]);
    assert_eq!(findings(&study), [Finding::Gaps { missing: vec![(2, 1)] }]);
    // A series of a few slices far apart is not a volume with gaps.
    let sparse = [0.0, 2.0, 100.0, 102.0].map(|z| placed(0.0, z, 0)).to_vec();
    assert_eq!(load_all(sparse).err().unwrap().kind(), Kind::SliceMissing);
}

#[test]
fn a_tilt_with_a_gap_and_a_crooked_stack_are_told_apart() {
    let study = load_all([0, 1, 3, 4].map(|k| placed(0.5 * f64::from(k), 2.0 * f64::from(k), 10 * k as u16)).to_vec()).unwrap();
    assert_eq!(study.geometry.dims, [3, 6, 5]);
    assert!(matches!(findings(&study), [Finding::GantryTilt { .. }, Finding::Gaps { .. }]));
    let crooked = [(0.0, 0.0), (1.0, 2.0), (0.0, 4.0), (0.0, 6.5)].map(|(y, z)| placed(y, z, 0)).to_vec();
    let error = load_all(crooked).err().unwrap();
    assert!(error.kind() == Kind::GeometryInconsistent && error.detail().contains("off the line"), "{error}");
}

#[test]
fn whoever_refuses_tilted_series_is_told_how_far_they_are() {
    let strict = Policy { tilt: Remedy::Refuse, ..Policy::default() };
    let files = [placed(0.0, 0.0, 0), placed(0.5, 2.0, 0), placed(1.0, 4.0, 0)];
    let error = load_by(files, Selection::default(), strict).err().unwrap();
    assert!(error.kind() == Kind::GeometryInconsistent && error.detail().contains("14.0 degrees"), "{error}");
    assert!(error.hint().unwrap().contains("geometry.tilt"));
}

#[test]
fn of_several_stacks_in_one_series_the_largest_is_taken_when_asked_for() {
    let upright = |z: f64| explicit(&slice(z, 0));
    let sagittal = |z| explicit(&with(slice(z, 0), text((0x0020, 0x0037), "DS", "0\\1\\0\\0\\0\\-1")));
    let scout = explicit(&with(slice(50.0, 0), text((0x0008, 0x0008), "CS", "ORIGINAL\\PRIMARY\\LOCALIZER")));
    let files = || vec![sagittal(1.0), upright(0.0), scout.clone(), upright(2.0), upright(4.0), sagittal(3.0)];
    assert_eq!(refused(load(files())).kind(), Kind::GeometryInconsistent);
    let split = Policy { takes_largest: true, ..Policy::default() };
    let study = load_by(files(), Selection::default(), split).unwrap();
    assert_eq!((study.geometry.dims, study.left_out), ([3, 2, 3], 3));
    assert_eq!(study.geometry.verdict, Verdict::Uniform);
}
