//! Comparisons with the packages that the modules name, on a phantom that both sides make (tests/interop/intensity_expected.py); threads,
//! cancelling and errors.

use super::clahe::{self, equalize_slices, equalize_volume};
use super::matching::{self, Reference};
use super::nyul::{self, Landmarks};
use super::white_stripe::{self, Peak};
use super::window::{self, Function, Window};
use crate::control::Control;
use crate::error::Kind;
use crate::imaging::normalize::{Over, moments, percentiles_over, range, zscore};

pub(crate) const DIMS: [usize; 3] = [40, 36, 24];
const T1: [i64; 3] = [250, 500, 750];
const PD: [i64; 3] = [820, 700, 520];
const FLAIR: [i64; 3] = [120, 560, 430];

pub(crate) fn expected() -> serde_json::Value {
    serde_json::from_str(include_str!("../../../tests/data/expected/intensity.json")).unwrap()
}

pub(crate) fn mix(key: u32) -> u32 {
    let key = key.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let key = (key ^ (key >> 15)).wrapping_mul(2_246_822_519);
    let key = (key ^ (key >> 13)).wrapping_mul(3_266_489_917);
    key >> 16
}

/// The generator's phantom, in whole numbers.
pub(crate) fn phantom(tissues: [i64; 3], seed: u32, air: i64) -> (Vec<f32>, Vec<u8>) {
    let voxel = |index: u32| {
        let (x, y, z) = (i64::from(index % 40), i64::from(index / 40 % 36), i64::from(index / 1440));
        let d = 4 * (x - 20).pow(2) + 5 * (y - 18).pow(2) + 9 * (z - 12).pow(2);
        let (a, b) = (mix(index + seed), mix(index + seed + 1_000_003));
        let tissue = match d {
            i64::MIN..40 => tissues[0],
            40..600 => tissues[2],
            600..950 => tissues[1],
            _ => tissues[0],
        };
        let inside = tissue + i64::from(a % 61) + i64::from(b % 61) - 60;
        let value = if d < 1200 { inside } else { i64::from(a % 25) * air };
        let vessel = (x - 30).abs() < 2 && (y - 18).abs() < 2 && d < 1100;
        ((value + 600 * i64::from(vessel)) as f32, u8::from(d < 1100))
    };
    (0..34_560).map(voxel).unzip()
}

/// The generator's four volumes, with their masks.
pub(crate) fn volumes() -> Vec<(Vec<f32>, Vec<u8>)> {
    let sets = [(T1, 1, 0), (T1, 2, 1), (PD, 3, 0), (FLAIR, 4, 1)];
    let scale = |n: usize| 1.0 + n as f32 / 4.0;
    let made = sets.into_iter().map(|(tissues, seed, air)| phantom(tissues, seed, air)).enumerate();
    made.map(|(n, (voxels, mask))| (voxels.iter().map(|v| v * scale(n)).collect(), mask)).collect()
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Largest difference of every `step`th voxel from what is expected.
fn difference(voxels: &[f32], step: usize, expected: &serde_json::Value) -> f64 {
    let expected = numbers(expected);
    let chosen: Vec<f64> = voxels.iter().step_by(397).step_by(step).map(|v| f64::from(*v)).collect();
    assert_eq!(chosen.len(), expected.len());
    chosen.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

pub(crate) fn crc(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    u64::from(!bytes.into_iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(byte), step)))
}

fn kernel_of(case: &serde_json::Value) -> Option<[usize; 3]> {
    case["kernel"].as_array().map(|k| [0, 1, 2].map(|axis: usize| k[axis].as_u64().unwrap() as usize))
}

fn check_near(actual: f64, expected: &serde_json::Value, relative: f64, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((actual - expected).abs() <= relative * expected.abs(), "{what}: {actual} {expected}");
}

#[test]
fn the_phantoms_are_the_generators() {
    let totals: Vec<f64> = volumes().iter().map(|(voxels, _)| voxels.iter().map(|v| f64::from(*v)).sum()).collect();
    assert_eq!(totals, numbers(&expected()["totals"]));
}

#[test]
fn moments_and_percentiles_equal_numpys() {
    let (voxels, mask) = volumes().swap_remove(0);
    for case in expected()["statistics"].as_array().unwrap() {
        let over = match case["over"].as_str().unwrap() {
            "all" => Over::All,
            "nonzero" => Over::Nonzero,
            "above" => Over::Above(300.0),
            _ => Over::Mask(&mask),
        };
        let measured = moments(&voxels, over, 0).unwrap();
        assert_eq!(Some(measured.count as u64), case["count"].as_u64());
        check_near(measured.mean, &case["mean"], 1e-12, "mean");
        check_near(measured.std, &case["std"], 1e-12, "std");
        check_near(moments(&voxels, over, 1).unwrap().std, &case["std1"], 1e-12, "std1");
        let measured = percentiles_over(&voxels, over, &numbers(&case["percents"])).unwrap();
        for (measured, expected) in measured.into_iter().zip(case["percentiles"].as_array().unwrap()) {
            check_near(measured, expected, 1e-12, "percentile");
        }
    }
}

#[test]
fn a_far_offset_costs_the_deviation_no_digits() {
    // Halves of n at 1e6 - 0.5 and 1e6 + 0.5, but for one voxel far away: mean and deviation follow on paper.
    let mut voxels: Vec<f32> = (0..100_000).map(|n| 1e6 + if n % 2 == 0 { -0.5 } else { 0.5 }).collect();
    let measured = moments(&voxels, Over::All, 0).unwrap();
    assert!((measured.mean - 1e6).abs() < 1e-6 && (measured.std - 0.5).abs() < 1e-9, "{measured:?}");
    voxels[0] = -1e6;
    voxels[1] = 1e6;
    let measured = moments(&voxels, Over::All, 0).unwrap();
    let exact: f64 = voxels.iter().map(|v| f64::from(*v)).sum::<f64>() / 1e5;
    let squares: f64 = voxels.iter().map(|v| (f64::from(*v) - exact).powi(2)).sum::<f64>() / 1e5;
    assert!((measured.mean / exact - 1.0).abs() < 1e-12 && (measured.std / squares.sqrt() - 1.0).abs() < 1e-9, "{measured:?}");
}

#[test]
fn selection_equals_sorting() {
    // Signs, zeros of both signs, denormal numbers, runs of equal values, and enough of them for several passes.
    let voxel = |n: u32| match mix(n) % 5 {
        0 => 0.0,
        1 => -0.0,
        2 => f32::from_bits(mix(n + 7) << 3),
        3 => -(mix(n + 9) as f32) * 1e30,
        _ => (mix(n + 5) % 50) as f32,
    };
    let voxels: Vec<f32> = (0..30_011).map(voxel).collect();
    let mask: Vec<u8> = (0..30_011).map(|n| (mix(n + 3) % 3) as u8).collect();
    let percents: Vec<f64> = (0..=200).map(|n| f64::from(n) / 2.0).collect();
    let mut sorted: Vec<f32> = voxels.iter().zip(&mask).filter(|(_, m)| **m != 0).map(|(v, _)| *v).collect();
    sorted.sort_by(f32::total_cmp);
    for (percent, value) in percents.iter().zip(percentiles_over(&voxels, Over::Mask(&mask), &percents).unwrap()) {
        let place = percent / 100.0 * (sorted.len() - 1) as f64;
        let (a, b) = (f64::from(sorted[place.floor() as usize]), f64::from(sorted[place.ceil() as usize]));
        let exact = a + (b - a) * place.fract();
        assert!((value - exact).abs() <= 1e-9 * a.abs().max(b.abs()), "{percent}: {value} {exact}");
    }
}

#[test]
fn what_does_not_count_is_not_looked_at() {
    let (mut voxels, mut mask) = volumes().swap_remove(0);
    voxels[100] = f32::NAN;
    mask[100] = 0;
    assert!(percentiles_over(&voxels, Over::Mask(&mask), &[50.0]).is_ok() && moments(&voxels, Over::Mask(&mask), 0).is_ok());
    mask[100] = 1;
    for over in [Over::Mask(&mask), Over::Nonzero, Over::All, Over::Above(10.0)] {
        assert_eq!(percentiles_over(&voxels, over, &[50.0]).unwrap_err().kind(), Kind::VolumeInvalid);
        assert_eq!(moments(&voxels, over, 0).unwrap_err().kind(), Kind::VolumeInvalid);
    }
    let kind = |over, percent| percentiles_over(&[1.0, 2.0], over, &[percent]).unwrap_err().kind();
    assert_eq!(kind(Over::Mask(&[0, 0]), 50.0), Kind::MaskEmpty);
    assert_eq!(kind(Over::Above(2.0), 50.0), Kind::MaskEmpty);
    assert_eq!(kind(Over::Mask(&[1]), 50.0), Kind::InvalidArgument);
    assert_eq!(kind(Over::All, 100.5), Kind::InvalidArgument);
}

#[test]
fn landmark_standardisation_equals_intensity_normalization() {
    let volumes = volumes();
    for case in expected()["nyul"].as_array().unwrap() {
        let masked = case["masked"].as_bool().unwrap();
        let [low, high] = ["low", "high"].map(|key| case[key].as_f64().unwrap());
        let parameters = nyul::Parameters { percentiles: numbers(&case["percentiles"]), low, high };
        let training = volumes[..3].iter().map(|(voxels, mask)| (voxels, masked.then_some(mask)));
        let landmarks = nyul::train(training, &parameters, &Control::new()).unwrap();
        for (value, scale) in landmarks.values.iter().zip(numbers(&case["scale"])) {
            assert!((value - scale).abs() < 1e-5 * (high - low), "{value} {scale}");
        }
        // A scale survives being written down.
        let landmarks: Landmarks = serde_json::from_str(&serde_json::to_string(&landmarks).unwrap()).unwrap();
        for ((voxels, mask), expected) in volumes.iter().zip(case["voxels"].as_array().unwrap()) {
            let mut out = voxels.clone();
            nyul::apply(&mut out, masked.then_some(mask), &landmarks, &Control::new()).unwrap();
            let off = difference(&out, 1, expected);
            assert!(off < 1e-5 * (high - low), "masked {masked}: {off}");
        }
    }
    assert_eq!(nyul::Parameters::default().percentiles, numbers(&expected()["nyul"][0]["percentiles"]));
}

#[test]
fn equal_landmarks_stop_no_standardisation() {
    // Half of the foreground is one value: the lower landmarks are equal. 1 to 11 in hundredths, so that the map is on paper.
    let mut voxels: Vec<f32> = (0..200).map(|n| if n < 120 { 5.0 } else { (n - 100) as f32 }).collect();
    let landmarks = Landmarks { percentiles: vec![0.0, 25.0, 50.0, 100.0], values: vec![0.0, 1.0, 2.0, 10.0] };
    let own = nyul::apply(&mut voxels, None, &landmarks, &Control::new()).unwrap();
    assert_eq!(own, [5.0, 5.0, 5.0, 99.0]);
    assert!(voxels.iter().all(|v| v.is_finite()));
    assert_eq!((voxels[0], voxels[199]), (2.0, 10.0));
}

#[test]
fn white_stripes_equal_intensity_normalizations() {
    let (_, mask) = phantom(T1, 7, 0);
    for case in expected()["stripes"].as_array().unwrap() {
        let tissues = [0, 1, 2].map(|n: usize| case["tissues"][n].as_i64().unwrap());
        let peak = match case["peak"].as_str().unwrap() {
            "last" => Peak::Last,
            "largest" => Peak::Largest,
            _ => Peak::First,
        };
        let width = case["width"].as_f64().unwrap();
        let parameters = white_stripe::Parameters { peak, width_below: width, width_above: width };
        let (mut voxels, _) = phantom(tissues, 7, 0);
        let chosen = case["masked"].as_bool().unwrap().then_some(mask.as_slice());
        let stripe = white_stripe::apply(&mut voxels, chosen, &parameters, &Control::new()).unwrap();
        assert_eq!(Some(stripe.count as u64), case["count"].as_u64(), "{peak:?}");
        check_near(stripe.peak, &case["mode"], 1e-9, "peak");
        // The package adds up in float32.
        check_near(stripe.mean, &case["mean"], 1e-6, "mean");
        check_near(stripe.std, &case["std"], 1e-6, "std");
        let off = difference(&voxels, 3, &case["voxels"]);
        assert!(off < 1e-4, "{peak:?}: {off}");
    }
}

#[test]
fn histogram_matching_equals_itks() {
    let volumes = volumes();
    for case in expected()["matches"].as_array().unwrap() {
        let whole = |key: &str| case[key].as_u64().unwrap() as usize;
        let parameters =
            matching::Parameters { levels: whole("levels"), points: whole("points"), is_above_mean: case["above"].as_bool().unwrap() };
        let reference = Reference::measure(&volumes[whole("target")].0, parameters, &Control::new()).unwrap();
        let reference: Reference = serde_json::from_str(&serde_json::to_string(&reference).unwrap()).unwrap();
        let mut out = volumes[whole("source")].0.clone();
        matching::apply(&mut out, &reference, &Control::new()).unwrap();
        let off = difference(&out, 2, &case["voxels"]);
        assert!(off < 1e-3, "{parameters:?} {} to {}: {off}", whole("source"), whole("target"));
    }
}

#[test]
fn windows_equal_pydicoms() {
    let expected = &expected()["windows"];
    for case in expected["cases"].as_array().unwrap() {
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        let function = Function::from_name(case["function"].as_str().unwrap()).unwrap();
        let (center, width) = (number(&case["center"]), number(&case["width"]));
        let window = Window { function, center, width, low: number(&expected["low"]), high: number(&expected["high"]) };
        let mut voxels: Vec<f32> = (0..722).map(|n| n as f32 * 3.5 - 1024.0).collect();
        window::apply(&mut voxels, &window, &Control::new()).unwrap();
        for (voxel, expected) in voxels.iter().step_by(12).zip(numbers(&case["voxels"])) {
            assert_eq!(*voxel, expected as f32, "{window:?}");
        }
        assert_eq!(Some(crc(voxels.iter().flat_map(|v| v.to_le_bytes()))), case["crc"].as_u64(), "{window:?}");
    }
    assert_eq!(Function::from_name("CUBIC"), None);
}

#[test]
fn equalisation_equals_skimages() {
    let (voxels, _) = volumes().swap_remove(1);
    for case in expected()["clahes"].as_array().unwrap() {
        let clip_limit = case["clip"].as_f64().unwrap();
        let parameters = clahe::Parameters { kernel: kernel_of(case), clip_limit, bins: case["bins"].as_u64().unwrap() as usize };
        let mut out = voxels.clone();
        equalize_slices(&mut out, DIMS, &parameters, &Control::new()).unwrap();
        let off = difference(&out, 3, &case["slices"]);
        assert!(off < 1e-6, "slices, {parameters:?}: {off}");
        let mut out = voxels.clone();
        equalize_volume(&mut out, DIMS, &parameters, &Control::new()).unwrap();
        let off = difference(&out, 3, &case["volume"]);
        assert!(off < 1e-6, "volume, {parameters:?}: {off}");
        assert_eq!(range(&out), (0.0, 1.0));
    }
}

#[test]
fn constant_images_are_not_divided_by_zero() {
    let mut voxels = vec![3.0f32; 64];
    let parameters = clahe::Parameters::default();
    for equalize in [equalize_slices, equalize_volume] {
        assert_eq!(equalize(&mut voxels, [4, 4, 4], &parameters, &Control::new()).unwrap_err().kind(), Kind::VolumeConstant);
    }
    // One slice that is not constant among those that are.
    (0..16).for_each(|n| voxels[16 + n] = n as f32);
    equalize_slices(&mut voxels, [4, 4, 4], &parameters, &Control::new()).unwrap();
    assert!(voxels[..16].iter().chain(&voxels[32..]).all(|v| *v == 0.0) && range(&voxels) == (0.0, 1.0));
    let mut line = vec![0.0, 1.0, 5.0];
    equalize_volume(&mut line, [3, 1, 1], &parameters, &Control::new()).unwrap();
    assert!(line.iter().all(|v| (0.0..=1.0).contains(v)));
}

/// A change of a volume.
type Change = dyn Fn(&mut [f32], Option<&[u8]>, &Control) -> crate::error::Result<()> + Sync;

fn changes() -> Vec<(&'static str, Box<Change>)> {
    let landmarks = Landmarks { percentiles: vec![1.0, 50.0, 99.0], values: vec![1.0, 40.0, 100.0] };
    let volumes = volumes();
    let reference = Reference::measure(&volumes[3].0, matching::Parameters::default(), &Control::new()).unwrap();
    let soft = Window { function: Function::Sigmoid, center: 400.0, width: 350.0, low: 0.0, high: 1.0 };
    let stripe = white_stripe::Parameters::of(Peak::Last);
    let whole = clahe::Parameters::default();
    vec![
        ("nyul", Box::new(move |voxels, mask, control| nyul::apply(voxels, mask, &landmarks, control).map(drop))),
        ("stripe", Box::new(move |voxels, mask, control| white_stripe::apply(voxels, mask, &stripe, control).map(drop))),
        ("matching", Box::new(move |voxels, _, control| matching::apply(voxels, &reference, control))),
        ("window", Box::new(move |voxels, _, control| window::apply(voxels, &soft, control))),
        ("slices", Box::new(move |voxels, _, control| equalize_slices(voxels, DIMS, &whole, control))),
        ("volume", Box::new(move |voxels, _, control| equalize_volume(voxels, DIMS, &whole, control))),
        ("zscore", Box::new(|voxels, mask, control| control.check().and_then(|()| zscore(voxels, super::foreground(mask), 0).map(drop)))),
    ]
}

#[test]
fn any_number_of_threads_yields_the_same_bits() {
    let (voxels, mask) = volumes().swap_remove(1);
    // Odd voxels are moved off the whole numbers, so that sums are rounded.
    let voxels: Vec<f32> = voxels.iter().enumerate().map(|(n, v)| v + (n % 7) as f32 * 0.137).collect();
    for (name, change) in changes() {
        for mask in [None, Some(mask.as_slice())] {
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut out = voxels.clone();
                pool.install(|| change(&mut out, mask, &Control::new())).unwrap();
                out.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
            };
            let one = run(1);
            assert!(one == run(2) && one == run(5), "{name}");
        }
    }
}

#[test]
fn bad_volumes_and_cancelled_work_leave_voxels_alone() {
    let (voxels, mask) = volumes().swap_remove(0);
    for (name, change) in changes() {
        let kind = |voxels: &[f32], mask: Option<&[u8]>, cancelled: bool| {
            let control = Control::new();
            if cancelled {
                control.cancel();
            }
            let mut out = voxels.to_vec();
            let kind = change(&mut out, mask, &control).unwrap_err().kind();
            assert!(out.iter().zip(voxels).all(|(a, b)| a.to_bits() == b.to_bits()), "{name} {kind:?}");
            kind
        };
        assert_eq!(kind(&voxels, None, true), Kind::Cancelled, "{name}");
        for bad in [f32::NAN, f32::INFINITY] {
            let mut voxels = voxels.clone();
            voxels[20_000] = bad;
            assert_eq!(kind(&voxels, None, false), Kind::VolumeInvalid, "{name}");
        }
        if name != "window" {
            assert_eq!(kind(&[7.0; 34_560], None, false), Kind::VolumeConstant, "{name}");
        }
        if ["nyul", "stripe", "zscore"].contains(&name) {
            assert_eq!(kind(&voxels, Some(&mask[1..]), false), Kind::InvalidArgument, "{name}");
            assert_eq!(kind(&voxels, Some(&vec![0; 34_560]), false), Kind::MaskEmpty, "{name}");
        }
    }
}

#[test]
fn wrong_parameters_have_their_errors() {
    let (voxels, _) = volumes().swap_remove(0);
    let control = Control::new();
    let train = |percentiles: &[f64], low, high, count: usize| {
        let parameters = nyul::Parameters { percentiles: percentiles.to_vec(), low, high };
        nyul::train((0..count).map(|_| (&voxels, None::<Vec<u8>>)), &parameters, &control).unwrap_err().kind()
    };
    assert_eq!(train(&[1.0], 0.0, 1.0, 1), Kind::InvalidArgument);
    assert_eq!(train(&[1.0, 1.0], 0.0, 1.0, 1), Kind::InvalidArgument);
    assert_eq!(train(&[1.0, 101.0], 0.0, 1.0, 1), Kind::InvalidArgument);
    assert_eq!(train(&[1.0, f64::NAN], 0.0, 1.0, 1), Kind::InvalidArgument);
    assert_eq!(train(&[1.0, 99.0], 1.0, 1.0, 1), Kind::InvalidArgument);
    assert_eq!(train(&[1.0, 99.0], 0.0, 1.0, 0), Kind::InvalidArgument);
    let flat = nyul::train([(vec![5.0f32; 9], None::<Vec<u8>>)], &nyul::Parameters::default(), &control).unwrap_err();
    assert_eq!((flat.kind(), flat.detail()), (Kind::VolumeConstant, "volume 1: its outermost percentiles are equal"));
    for values in [vec![1.0], vec![2.0, 1.0], vec![0.0, f64::INFINITY]] {
        let landmarks = Landmarks { percentiles: vec![1.0, 99.0], values };
        assert_eq!(nyul::apply(&mut voxels.clone(), None, &landmarks, &control).unwrap_err().kind(), Kind::InvalidArgument);
    }
    for width in [0.0, 0.6, f64::NAN] {
        let parameters = white_stripe::Parameters { width_below: width, ..white_stripe::Parameters::of(Peak::Last) };
        assert_eq!(white_stripe::measure(&voxels, None, &parameters, &control).unwrap_err().kind(), Kind::InvalidArgument);
    }
    for (levels, points) in [(1, 7), (1024, 0), (1024, 256), (65_537, 7)] {
        let parameters = matching::Parameters { levels, points, is_above_mean: true };
        assert_eq!(Reference::measure(&voxels, parameters, &control).unwrap_err().kind(), Kind::InvalidArgument);
    }
    let good = Reference::measure(&voxels, matching::Parameters::default(), &control).unwrap();
    assert!(good.check().is_ok());
    let mut short = good.clone();
    short.quantiles.pop();
    let falling = Reference { quantiles: good.quantiles.iter().rev().copied().collect(), ..good.clone() };
    for bad in [short, falling, Reference { smallest: f64::NAN, ..good }] {
        assert_eq!(matching::apply(&mut voxels.clone(), &bad, &control).unwrap_err().kind(), Kind::InvalidArgument);
    }
    for (function, width) in
        [(Function::Linear, 0.5), (Function::LinearExact, 0.0), (Function::Sigmoid, -1.0), (Function::Linear, f64::NAN)]
    {
        let window = Window { function, center: 0.0, width, low: 0.0, high: 1.0 };
        assert_eq!(window::apply(&mut voxels.clone(), &window, &control).unwrap_err().kind(), Kind::InvalidArgument);
    }
    let plain = clahe::Parameters::default();
    for parameters in [
        clahe::Parameters { clip_limit: 1.5, ..plain },
        clahe::Parameters { bins: 1, ..plain },
        clahe::Parameters { kernel: Some([0, 3, 3]), ..plain },
        clahe::Parameters { kernel: Some([41, 3, 3]), ..plain },
        clahe::Parameters { kernel: Some([1, 1, 1]), bins: 16_384, ..plain },
    ] {
        assert_eq!(equalize_volume(&mut voxels.clone(), DIMS, &parameters, &control).unwrap_err().kind(), Kind::InvalidArgument);
    }
    assert_eq!(equalize_slices(&mut voxels.clone(), [40, 36, 23], &plain, &control).unwrap_err().kind(), Kind::VolumeInvalid);
    assert_eq!(equalize_volume(&mut [], [0, 0, 0], &plain, &control).unwrap_err().kind(), Kind::VolumeInvalid);
}
