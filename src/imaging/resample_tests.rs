//! Resampling and components against scipy, SimpleITK and cc3d (`interop/resample_expected.py` wrote the expected values), and their edges.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::components::{self, Components, Connectivity};
use super::grid::{AlignedGrid, AxisMap};
use super::resample::{self, Interpolation};
use super::{Geometry, Verdict, Volume};
use crate::control::Control;
use crate::error::Kind;

/// The formulas of the generator.
fn noise(count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| (((i * 2_654_435_761) % (1 << 32)) >> 12) as f32 / 1024.0 - 300.0).collect()
}

fn mask(count: usize, below: u64) -> Vec<u8> {
    let spread = |i: u64| {
        let value = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (value ^ value >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40
    };
    (1..=count as u64).map(|i| u8::from(spread(i) < below)).collect()
}

fn expected(part: &str) -> Vec<Value> {
    let mut all: Value = serde_json::from_str(include_str!("../../tests/data/expected/resample.json")).unwrap();
    all[part].take().as_array().unwrap().clone()
}

fn three(value: &Value) -> [f64; 3] {
    std::array::from_fn(|axis| value[axis].as_f64().unwrap())
}

fn digest(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes.as_ref()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn volume(dims: [usize; 3], spacing_mm: [f64; 3], voxels: Vec<f32>) -> Volume {
    let mut affine_lps = [[0.0; 4]; 4];
    (0..3).for_each(|i| affine_lps[i][i] = spacing_mm[i]);
    affine_lps[3][3] = 1.0;
    Volume::from_parts(voxels, Geometry { dims, spacing_mm, affine_lps, verdict: Verdict::Uniform }, "MR").unwrap()
}

#[test]
fn smoothed_shrinking_is_scipys_gaussian_and_simpleitks_interpolation() {
    for case in expected("smoothed") {
        let dims = three(&case["dims"]).map(|n| n as usize);
        let source = volume(dims, three(&case["spacing"]), noise(dims.iter().product()));
        let (how, bound) = if case["how"] == "linear" { (Interpolation::Linear, 5e-4) } else { (Interpolation::BSpline, 5e-3) };
        let made = resample::to_spacing_smoothed(&source, three(&case["wanted"]), how, &Control::new()).unwrap().unwrap();
        assert_eq!(made.geometry().dims, three(&case["size"]).map(|n| n as usize));
        let mut compared = 0;
        for (ours, theirs) in made.voxels().iter().zip(case["values"].as_array().unwrap()) {
            let theirs = theirs.as_f64().unwrap();
            // SimpleITK's value further than half a voxel outside.
            if theirs != -1000.0 {
                compared += 1;
                assert!((f64::from(*ours) - theirs).abs() <= bound, "{ours} {theirs}");
            }
        }
        assert!(compared * 10 > made.voxels().len() * 7);
    }
}

#[test]
fn smoothing_is_only_for_what_shrinks_and_is_no_label() {
    let (data, control) = (noise(210), Control::new());
    let grid = AlignedGrid::stretched([7, 6, 5], [9, 12, 5]);
    let plain = resample::aligned(&data, [7, 6, 5], &grid, Interpolation::Linear, &control).unwrap();
    assert_eq!(resample::aligned_smoothed(&data, [7, 6, 5], &grid, Interpolation::Linear, &control).unwrap(), plain);
    let kind = |data: &[f32], grid: &AlignedGrid, how| resample::aligned_smoothed(data, [7, 6, 5], grid, how, &control).unwrap_err().kind();
    assert_eq!(kind(&data, &grid, Interpolation::Nearest), Kind::InvalidArgument);
    let mut grid = AlignedGrid::stretched([7, 6, 5], [2, 6, 5]);
    let mut broken = data.clone();
    broken[17] = f32::NAN;
    assert_eq!(kind(&broken, &grid, Interpolation::Linear), Kind::VolumeInvalid);
    grid.axes[0].step = 514.0;
    assert_eq!(kind(&data, &grid, Interpolation::Linear), Kind::InvalidArgument);
    for how in [Interpolation::Linear, Interpolation::BSpline] {
        let made = resample::aligned(&data[1..], [7, 6, 5], &grid, how, &control);
        assert_eq!(made.unwrap_err().kind(), Kind::VolumeInvalid);
    }
    control.cancel();
    grid.axes[0].step = 3.0;
    assert_eq!(kind(&data, &grid, Interpolation::Linear), Kind::Cancelled);
}

#[test]
fn components_are_those_of_cc3d() {
    for case in expected("components") {
        let dims = three(&case["dims"]).map(|n| n as usize);
        let mask = mask(dims.iter().product(), case["below"].as_u64().unwrap());
        let connectivity = Connectivity::from_neighbours(case["neighbours"].as_u64().unwrap() as u32).unwrap();
        let found = Components::find(&mask, dims, connectivity, |value| value != 0).unwrap();
        let what = format!("{dims:?} {connectivity:?} {}", case["below"]);
        assert_eq!(found.sizes().len() as u64, case["count"].as_u64().unwrap(), "{what}");
        let map: Vec<u8> = found.map().unwrap().iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(digest(map), case["map"], "{what}");
        assert_eq!(digest(found.sizes().iter().flat_map(|size| size.to_le_bytes()).collect::<Vec<u8>>()), case["sizes"], "{what}");
        let boxes = found.bounds().iter().flat_map(|b| (0..3).flat_map(|a| [b.first[a] as u32, b.last[a] as u32].map(u32::to_le_bytes)));
        assert_eq!(digest(boxes.flatten().collect::<Vec<u8>>()), case["boxes"], "{what}");
        let mut visited = vec![0u8; mask.len()];
        let mut end = 0;
        found.visit(
            |_| true,
            |_, voxels| {
                assert!(voxels.start >= end && !voxels.is_empty());
                end = voxels.end;
                visited[voxels].fill(1);
            },
        );
        assert_eq!(visited, mask, "{what}");
        let mut large = mask.clone();
        components::remove_small(&mut large, dims, 1, connectivity, 4).unwrap();
        assert_eq!(digest(&large), case["at_least_4"], "{what}");
        let mut filled = mask;
        components::fill_holes(&mut filled, dims, 1).unwrap();
        assert_eq!(digest(&filled), case["filled"], "{what}");
    }
}

#[test]
fn a_grid_without_voxels_has_no_components() {
    for dims in [[0, 0, 0], [0, 4, 3], [5, 0, 2], [5, 3, 0]] {
        let found = Components::find(&[0u8; 0], dims, Connectivity::Corners, |value| value == 0).unwrap();
        assert!(found.sizes().is_empty() && found.largest().is_none() && found.map().unwrap().is_empty());
        found.visit(|_| true, |_, _| panic!("there is nothing to visit"));
    }
}

#[test]
fn results_are_the_same_for_any_number_of_threads() {
    let (dims, control) = ([67, 45, 39], Control::new());
    let count = dims.iter().product();
    let (data, mask) = (noise(count), mask(count, 6 << 20));
    // A turned, a flipped and a stretched axis, and bands of several rows.
    let axes = [
        AxisMap { source: 1, start: 44.0, step: -0.6, len: 71 },
        AxisMap { source: 2, start: 0.3, step: 0.37, len: 105 },
        AxisMap { source: 0, start: -0.4, step: 1.9, len: 36 },
    ];
    let run = |threads| {
        in_pool(threads, || {
            let values = |how| resample::aligned_smoothed(&data, dims, &AlignedGrid { axes }, how, &control).unwrap();
            let bits =
                [Interpolation::Linear, Interpolation::BSpline].map(|how| values(how).iter().map(|v| v.to_bits()).collect::<Vec<u32>>());
            let maps = [6, 18, 26].map(|neighbours| {
                let connectivity = Connectivity::from_neighbours(neighbours).unwrap();
                let found = Components::find(&mask, dims, connectivity, |value| value == 1).unwrap();
                (found.map().unwrap(), found.sizes().to_vec(), found.bounds().to_vec())
            });
            (bits, maps)
        })
    };
    let one = run(1);
    assert!(run(2) == one && run(5) == one);
}

#[test]
fn what_is_cancelled_stops() {
    let control = Control::new();
    control.cancel();
    let found = Components::find_with(&[1u8; 60], [5, 4, 3], Connectivity::Faces, |value| value == 1, &control);
    assert_eq!(found.map(|_| ()).unwrap_err().kind(), Kind::Cancelled);
    for how in [Interpolation::Nearest, Interpolation::Linear, Interpolation::BSpline] {
        let made = resample::aligned(&noise(60), [5, 4, 3], &AlignedGrid::stretched([5, 4, 3], [7, 7, 7]), how, &control);
        assert_eq!(made.unwrap_err().kind(), Kind::Cancelled);
    }
}
