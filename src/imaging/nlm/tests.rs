//! Denoising and the estimate of noise against dipy: `tests/interop/nlm_expected.py` wrote the expected values.

use serde_json::Value;

use super::*;
use crate::imaging::noise::{Coils, Over, estimate_sigma};

const DIMS: [usize; 3] = [20, 18, 14];

fn expected() -> Value {
    serde_json::from_str(include_str!("../../../tests/data/expected/nlm.json")).unwrap()
}

/// The formula of the generator, in whole numbers: a bright ball in a cuboid, with noise, and a mask.
fn phantom() -> (Vec<f32>, Vec<u8>) {
    let voxel = |index: u32| {
        let (x, y, z) = place(index);
        let key = index.wrapping_mul(2_654_435_761).wrapping_add(12_345);
        let key = (key ^ (key >> 15)).wrapping_mul(2_246_822_519);
        let key = (key ^ (key >> 13)).wrapping_mul(3_266_489_917);
        let noise = ((key >> 16) % 161) as i32 - 80;
        let in_ball = (x - 11).pow(2) + (y - 9).pow(2) + (z - 7).pow(2) < 21;
        let in_cuboid = (3..17).contains(&x) && (2..16).contains(&y) && (2..12).contains(&z);
        let value = if in_ball { 850 } else { 60 + 360 * i32::from(in_cuboid) };
        (value + noise).clamp(0, 1000) as f32
    };
    let masked = |index: u32| {
        let (x, y, z) = place(index);
        u8::from(2 * (x - 9).pow(2) + 3 * (y - 8).pow(2) + 4 * (z - 7).pow(2) < 160)
    };
    ((0..5040).map(voxel).collect(), (0..5040).map(masked).collect())
}

fn place(index: u32) -> (i32, i32, i32) {
    ((index % 20) as i32, (index / 20 % 18) as i32, (index / 360) as i32)
}

fn with(patch_radius: usize, block_radius: usize, is_rician: bool) -> Parameters {
    Parameters { patch_radius, block_radius, sigma: Some(40.0), is_rician }
}

#[test]
fn the_phantom_is_the_generators() {
    let expected = expected();
    let total: f64 = phantom().0.iter().map(|v| f64::from(*v)).sum();
    assert_eq!(Some(total), expected["total"].as_f64());
    assert_eq!(expected["dims"], serde_json::json!(DIMS));
    assert_eq!(expected["sigma"].as_f64(), Some(40.0));
}

#[test]
fn denoising_equals_dipy() {
    let (voxels, mask) = phantom();
    let expected = expected();
    let cases = expected["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 20);
    for case in cases {
        let parameters =
            with(case["patch"].as_u64().unwrap() as usize, case["block"].as_u64().unwrap() as usize, case["rician"].as_bool().unwrap());
        let mask = case["masked"].as_bool().unwrap().then_some(mask.as_slice());
        let (out, report) = denoise(&voxels, DIMS, mask, &parameters, &Control::new()).unwrap();
        assert_eq!(report.sigma, 40.0);
        let chosen: Vec<f64> = out.iter().step_by(7).map(|v| f64::from(*v)).collect();
        let reference: Vec<f64> = case["voxels"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert_eq!(chosen.len(), reference.len());
        let errors: Vec<f64> = chosen.iter().zip(&reference).map(|(a, b)| (a - b).abs()).collect();
        let largest = errors.iter().copied().fold(0.0, f64::max);
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        // The expected voxels are rounded to 4 digits, which is 2.5e-5 of the mean.
        assert!(largest < 0.05 && mean < 1e-4, "{parameters:?} masked {}: {largest} {mean}", mask.is_some());
        let sum: f64 = out.iter().map(|v| f64::from(*v)).sum();
        let squares: f64 = out.iter().map(|v| f64::from(*v).powi(2)).sum();
        assert!((sum / case["sum"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{parameters:?}: {sum}");
        assert!((squares / case["squares"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{parameters:?}: {squares}");
    }
}

#[test]
fn estimated_noise_equals_dipys() {
    let (voxels, mask) = phantom();
    let holes: Vec<f32> = voxels.iter().zip(&mask).map(|(v, m)| v * f32::from(*m)).collect();
    for case in expected()["sigmas"].as_array().unwrap() {
        let coils = match case["coils"].as_u64().unwrap() {
            0 => Coils::Uncorrected,
            n => Coils::Combined(n as usize),
        };
        let over = if case["nonzero"].as_bool().unwrap() { Over::Nonzero } else { Over::All };
        let sigma = estimate_sigma(&holes, DIMS, coils, over).unwrap();
        // dipy rounds its result to float32.
        assert!((sigma / case["sigma"].as_f64().unwrap() - 1.0).abs() < 1e-7, "{coils:?} {over:?}: {sigma}");
    }
}

#[test]
fn the_noise_is_estimated_when_it_is_not_given() {
    let (voxels, _) = phantom();
    let sigma = estimate_sigma(&voxels, DIMS, Coils::Uncorrected, Over::All).unwrap();
    let estimated = denoise(&voxels, DIMS, None, &Parameters::default(), &Control::new()).unwrap();
    let given = denoise(&voxels, DIMS, None, &Parameters { sigma: Some(sigma), ..Parameters::default() }, &Control::new()).unwrap();
    assert_eq!(estimated, given);
}

#[test]
fn any_number_of_threads_yields_the_same_bits() {
    let (voxels, mask) = phantom();
    let run = |threads: usize, mask: Option<&[u8]>| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let parameters = Parameters { is_rician: true, ..Parameters::default() };
        let (out, report) = pool.install(|| denoise(&voxels, DIMS, mask, &parameters, &Control::new())).unwrap();
        (out.into_iter().map(f32::to_bits).collect::<Vec<u32>>(), report.sigma.to_bits())
    };
    assert_eq!(run(1, None), run(3, None));
    assert_eq!(run(1, Some(&mask)), run(3, Some(&mask)));
}

#[test]
fn a_voxel_does_not_depend_on_its_mask_and_is_0_outside() {
    let (voxels, mask) = phantom();
    let whole = denoise(&voxels, DIMS, None, &with(1, 3, false), &Control::new()).unwrap().0;
    let within = denoise(&voxels, DIMS, Some(&mask), &with(1, 3, false), &Control::new()).unwrap().0;
    for ((whole, within), mask) in whole.iter().zip(&within).zip(&mask) {
        assert_eq!(within.to_bits(), if *mask != 0 { whole.to_bits() } else { 0 });
    }
}

#[test]
fn a_constant_volume_stays_as_it_is() {
    let voxels = vec![7.3f32; 5040];
    let (out, report) = denoise(&voxels, DIMS, None, &Parameters::default(), &Control::new()).unwrap();
    assert_eq!((out == voxels, report.sigma), (true, 0.0));
    let (out, _) = denoise(&voxels, DIMS, None, &with(1, 3, false), &Control::new()).unwrap();
    assert_eq!(out, voxels);
    let (_, mask) = phantom();
    let (out, _) = denoise(&voxels, DIMS, Some(&mask), &Parameters::default(), &Control::new()).unwrap();
    assert!(out.iter().zip(&mask).all(|(v, m)| *v == 7.3 * f32::from(*m)));
}

#[test]
fn a_scaled_volume_is_denoised_alike() {
    let (voxels, _) = phantom();
    let plain = denoise(&voxels, DIMS, None, &with(1, 2, false), &Control::new()).unwrap().0;
    for power in [-90, 110] {
        let by = 2f32.powi(power);
        let scaled: Vec<f32> = voxels.iter().map(|v| v * by).collect();
        let parameters = Parameters { sigma: Some(40.0 * f64::from(by)), ..with(1, 2, false) };
        let out = denoise(&scaled, DIMS, None, &parameters, &Control::new()).unwrap().0;
        assert!(out.iter().zip(&plain).all(|(a, b)| *a == b * by), "2^{power}");
    }
}

#[test]
fn every_wrong_call_has_its_error() {
    let (mut voxels, mask) = phantom();
    let kind = |voxels: &[f32], dims, mask: Option<&[u8]>, parameters| {
        denoise(voxels, dims, mask, &parameters, &Control::new()).unwrap_err().kind()
    };
    let good = with(1, 3, true);
    for sigma in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(kind(&voxels, DIMS, None, Parameters { sigma: Some(sigma), ..good }), Kind::InvalidArgument);
    }
    assert_eq!(kind(&voxels, DIMS, None, with(3, 2, true)), Kind::InvalidArgument);
    assert_eq!(kind(&voxels, DIMS, None, with(1, 17, true)), Kind::InvalidArgument);
    assert_eq!(kind(&voxels, DIMS, None, with(1, 14, true)), Kind::InvalidArgument);
    assert_eq!(kind(&voxels, [5040, 1, 1], None, good), Kind::InvalidArgument);
    assert_eq!(kind(&voxels, DIMS, Some(&mask[1..]), good), Kind::InvalidArgument);
    assert_eq!(kind(&voxels, DIMS, Some(&[0; 5040]), good), Kind::MaskEmpty);
    assert_eq!(kind(&voxels, [20, 18, 15], None, good), Kind::VolumeInvalid);
    assert_eq!(kind(&voxels, [usize::MAX, 2, 2], None, good), Kind::VolumeInvalid);
    assert_eq!(kind(&[], [0, 18, 14], None, good), Kind::VolumeInvalid);
    for bad in [f32::NAN, f32::INFINITY] {
        voxels[77] = bad;
        assert_eq!(kind(&voxels, DIMS, None, good), Kind::VolumeInvalid);
        assert_eq!(estimate_sigma(&voxels, DIMS, Coils::Uncorrected, Over::All).unwrap_err().kind(), Kind::VolumeInvalid);
    }
    let sigma = |voxels: &[f32], dims, coils| estimate_sigma(voxels, dims, coils, Over::Nonzero).unwrap_err().kind();
    assert_eq!(sigma(&[0.0; 27], [3, 3, 3], Coils::Uncorrected), Kind::MaskEmpty);
    assert_eq!(sigma(&[1.0; 27], [3, 3, 3], Coils::Combined(3)), Kind::InvalidArgument);
    assert_eq!(sigma(&[1.0; 27], [3, 3, 4], Coils::Uncorrected), Kind::VolumeInvalid);
    assert_eq!(sigma(&[], [0, 3, 3], Coils::Uncorrected), Kind::VolumeInvalid);
}

#[test]
fn progress_reaches_1_and_cancelling_stops() {
    let (voxels, _) = phantom();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = std::sync::Arc::clone(&seen);
    let control = Control::with_listener(move |stage, fraction| sink.lock().unwrap().push((stage, fraction)));
    denoise(&voxels, DIMS, None, &with(1, 3, true), &control).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!((seen.first(), seen.last()), (Some(&("denoise", 0.0)), Some(&("denoise", 1.0))));
    control.cancel();
    assert_eq!(denoise(&voxels, DIMS, None, &with(1, 3, true), &control).unwrap_err().kind(), Kind::Cancelled);
}
