//! Windows and stitching against a numpy transcription of MONAI's rule (`tests/interop/inference_expected.py`).

use serde_json::Value;

use super::*;
use crate::error::Kind;

/// The generator's noise, and its factors and summands.
fn noise(hashed: u64) -> f32 {
    ((hashed % (1 << 32)) >> 12) as f32 / 1024.0 - 300.0
}

fn maps(count: usize, skip: u64) -> Vec<f32> {
    (skip..skip + count as u64).map(|i| noise((i * i).wrapping_mul(2_654_435_761)) / 512.0).collect()
}

/// logits = x * A + B, different at each position of the window, so that a window one voxel off shows.
struct Positional {
    channels: usize,
    channels_first: bool,
}

impl Network for Positional {
    fn run(&self, values: &[f32], count: usize, window: [usize; 3], take: &mut dyn FnMut(Maps) -> Result<()>) -> Result<()> {
        let size: usize = window.iter().product();
        let (a, b) = (maps(size * self.channels, 0), maps(size * self.channels, 5000));
        let mut out = vec![0.0; size * count * self.channels];
        for (index, x) in values.iter().take(size * count).enumerate() {
            let (item, voxel) = (index / size, index % size);
            for channel in 0..self.channels {
                let (map, base) = (channel * size + voxel, item * size * self.channels);
                let place = if self.channels_first { map } else { voxel * self.channels + channel };
                out[base + place] = x * a[map] + b[map];
            }
        }
        take(Maps { values: &out, channels: self.channels, channels_first: self.channels_first })
    }
}

fn expected() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/expected/inference.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    all["stitching"].as_array().unwrap().clone()
}

/// D, H, W of the generator as W, H, D.
fn sides(value: &Value) -> [usize; 3] {
    let side = |axis: usize| value[axis].as_u64().unwrap() as usize;
    [side(2), side(1), side(0)]
}

fn layer(voxels: &[f32]) -> Layer<'_> {
    Layer { voxels, offset: 0 }
}

fn stitched(case: &Value, batch: usize, channels_first: bool) -> Vec<f32> {
    let (dims, window) = (sides(&case["image"]), sides(&case["window"]));
    let data: Vec<f32> = (0..dims.iter().product::<usize>() as u64).map(|i| noise(i * 2_654_435_761) / 100.0).collect();
    let plan = Plan::sliding(dims, window, case["overlap"].as_f64().unwrap(), case["blend"] == "gaussian");
    let (area, depth) = (dims[0] * dims[1], dims[2]);
    let mut found = vec![f32::NAN; area * depth * 2];
    let mut next = 0;
    stitch(
        &[layer(&data)],
        &plan,
        &plan.windows(),
        batch,
        &Positional { channels: 2, channels_first },
        &Control::new(),
        |slice, values, channels| {
            assert_eq!((slice, channels), (next, 2), "slices come in order, each once");
            next += 1;
            for (channel, map) in values.chunks(area).enumerate() {
                found[(channel * depth + slice) * area..][..area].copy_from_slice(map);
            }
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(next, depth);
    found
}

#[test]
fn blended_maps_are_monais() {
    for case in expected() {
        let values: Vec<f64> = case["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let found = stitched(&case, 1, true);
        assert_eq!(found.len(), values.len());
        for (ours, theirs) in found.iter().zip(&values) {
            assert!((f64::from(*ours) - theirs).abs() < 1e-5, "{ours} {theirs}");
        }
    }
}

#[test]
fn batches_layouts_and_threads_change_no_bit() {
    for case in expected() {
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let first = bits(stitched(&case, 1, true));
        for (batch, channels_first, threads) in [(2, true, 1), (5, true, 3), (64, true, 2), (1, false, 1), (3, false, 4)] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(bits(pool.install(|| stitched(&case, batch, channels_first))) == first, "{batch} {channels_first} {threads}");
        }
    }
}

#[test]
fn window_starts_are_monais() {
    // dense_patch_slices((10,), (4,), scan_interval): int(4 * 0.75) = 3 gives 0 3 6; int(4 * 0.5) = 2 gives 0 2 4 6.
    for (side, window, overlap, starts) in [
        (10, 4, 0.25, vec![0, 3, 6]),
        (10, 4, 0.5, vec![0, 2, 4, 6]),
        (11, 4, 0.25, vec![0, 3, 6, 7]),
        (4, 4, 0.9, vec![0]),
        (5, 4, 0.95, vec![0, 1]),
        (12, 4, 0.0, vec![0, 4, 8]),
    ] {
        assert_eq!(Plan::sliding([side, 8, 8], [window, 8, 8], overlap, true).starts[0], starts);
    }
}

#[test]
fn importance_has_its_peak_in_the_middle_and_a_floor() {
    let weights = importance([16, 16, 16], true).unwrap();
    assert_eq!(weights.iter().copied().fold(f32::INFINITY, f32::min), 1e-3);
    // Two voxels share the middle of an even side: exp(-0.25 / (2 * 2^2)) per axis.
    let middle = weights[(7 * 16 + 7) * 16 + 7];
    assert!((middle - (-0.25f32 * 3.0 / 8.0).exp()).abs() < 1e-6);
    assert_eq!(importance([3, 2, 1], false).unwrap(), [1.0; 6]);
}

#[test]
fn a_network_that_gives_another_size_is_an_error() {
    struct Short;
    impl Network for Short {
        fn run(&self, values: &[f32], _: usize, _: [usize; 3], take: &mut dyn FnMut(Maps) -> Result<()>) -> Result<()> {
            take(Maps { values: &values[1..], channels: 1, channels_first: true })
        }
    }
    for plan in [Plan::whole([4; 3]), Plan::sliding([4; 3], [2; 3], 0.0, true)] {
        let error = stitch(&[layer(&[0.0; 64])], &plan, &plan.windows(), 1, &Short, &Control::new(), |_, _, _| Ok(())).unwrap_err();
        assert_eq!(error.kind(), Kind::ModelShape);
    }
    let plan = Plan::sliding([2; 3], [4; 3], 0.0, true);
    assert_eq!(
        stitch(&[layer(&[0.0; 8])], &plan, &plan.windows(), 1, &Short, &Control::new(), |_, _, _| Ok(())).unwrap_err().kind(),
        Kind::Internal
    );
}

#[test]
fn cancelling_stops_before_the_next_window() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    struct Counting<'a>(&'a AtomicUsize, Control);
    impl Network for Counting<'_> {
        fn run(&self, values: &[f32], _: usize, _: [usize; 3], take: &mut dyn FnMut(Maps) -> Result<()>) -> Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            self.1.cancel();
            take(Maps { values, channels: 1, channels_first: true })
        }
    }
    let (runs, control) = (AtomicUsize::new(0), Control::new());
    let plan = Plan::sliding([8; 3], [2; 3], 0.0, true);
    let error = stitch(&[layer(&[0.0; 512])], &plan, &plan.windows(), 1, &Counting(&runs, control.clone()), &control, |_, _, _| Ok(()))
        .unwrap_err();
    assert_eq!((error.kind(), runs.load(Ordering::Relaxed)), (Kind::Cancelled, 1));
}

/// Each channel of the output is a channel of the input.
struct Echo(usize);

impl Network for Echo {
    fn run(&self, values: &[f32], _: usize, _: [usize; 3], take: &mut dyn FnMut(Maps) -> Result<()>) -> Result<()> {
        take(Maps { values, channels: self.0, channels_first: true })
    }
}

#[test]
fn windows_of_background_are_not_run_and_their_voxels_are_marked() {
    // One bright voxel at (5, 1, 6) in 8 x 4 x 8: windows of 2 x 2 x 2 without overlap leave only the one that holds it.
    let mut data = vec![0.5; 8 * 4 * 8];
    data[(6 * 4 + 1) * 8 + 5] = 3.0;
    let plan = Plan::sliding([8, 4, 8], [2, 2, 2], 0.0, false);
    let windows = plan.windows_above(&[layer(&data)], 0.5);
    assert_eq!(windows, [[4, 0, 6]]);
    assert_eq!(plan.windows_above(&[layer(&data)], 0.4).len(), 4 * 2 * 4);
    assert!(plan.windows_above(&[layer(&data)], 3.0).is_empty());
    let mut seen = Vec::new();
    stitch(&[layer(&data)], &plan, &windows, 4, &Echo(1), &Control::new(), |slice, values, _| {
        seen.push((slice, values.to_vec()));
        Ok(())
    })
    .unwrap();
    assert_eq!(seen.iter().map(|(slice, _)| *slice).collect::<Vec<_>>(), [6, 7]);
    for (slice, values) in seen {
        for (index, value) in values.iter().enumerate() {
            let inside = (4..6).contains(&(index % 8)) && index / 8 < 2;
            assert_eq!(value.is_nan(), !inside, "{slice} {index}");
            if inside {
                assert_eq!(*value, data[slice * 32 + index]);
            }
        }
    }
    // Nothing to run is nothing to hand out.
    stitch(&[layer(&data)], &plan, &[], 4, &Echo(1), &Control::new(), |_, _, _| panic!("a slice that no window reached")).unwrap();
}

#[test]
fn neighbouring_slices_are_channels_and_edges_repeat() {
    let data: Vec<f32> = (0..3 * 2 * 4).map(|index| index as f32).collect();
    let layers: Vec<Layer> = [-1, 0, 2].map(|offset| Layer { voxels: &data, offset }).to_vec();
    let plan = Plan::sliding([3, 2, 4], [3, 2, 1], 0.0, false);
    for batch in [1, 3] {
        let mut next = 0;
        stitch(&layers, &plan, &plan.windows(), batch, &Echo(3), &Control::new(), |slice, values, channels| {
            assert_eq!((slice, channels), (next, 3));
            next += 1;
            for (channel, from) in [slice.saturating_sub(1), slice, (slice + 2).min(3)].into_iter().enumerate() {
                assert_eq!(values[channel * 6..][..6], data[from * 6..][..6]);
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(next, 4);
    }
}

#[test]
fn windows_shrink_by_halves_to_multiples() {
    assert_eq!(smaller([96, 64, 64], 16), Some([48, 64, 64]));
    assert_eq!(smaller([48, 48, 16], 16), Some([48, 16, 16]));
    assert_eq!(smaller([16, 16, 16], 16), None);
}
