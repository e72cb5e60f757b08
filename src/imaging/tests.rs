//! Our arithmetic against numpy, SimpleITK and scipy: `tests/interop/imaging_expected.py` wrote the expected values.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::grid::AlignedGrid;
use super::resample::Interpolation;
use super::{components, normalize, resample, *};
use crate::control::Control;

/// The formula of the generator: exact in float32.
fn noise(count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| (((i * 2_654_435_761) % (1 << 32)) >> 12) as f32 / 1024.0 - 300.0).collect()
}

fn expected(part: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/expected/imaging.json");
    let mut all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    all[part].take()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn geometry(value: &Value) -> Geometry {
    let (dims, spacing) = (numbers(&value["dims"]), numbers(&value["spacing"]));
    Geometry {
        dims: std::array::from_fn(|i| dims[i] as usize),
        spacing_mm: std::array::from_fn(|i| spacing[i]),
        affine_lps: std::array::from_fn(|row| {
            let row = numbers(&value["affine"][row]);
            std::array::from_fn(|column| row[column])
        }),
        verdict: Verdict::Uniform,
    }
}

fn volume(dims: [usize; 3], voxels: Vec<f32>) -> Volume {
    let mut affine_lps = [[0.0; 4]; 4];
    (0..4).for_each(|i| affine_lps[i][i] = 1.0);
    Volume::from_parts(voxels, Geometry { dims, spacing_mm: [1.0; 3], affine_lps, verdict: Verdict::Uniform }, "MR").unwrap()
}

fn chosen(choices: Choices) -> Recipe {
    Recipe::of(&choices).unwrap()
}

fn recipe(normalize: &str) -> Recipe {
    chosen(Choices { normalize: normalize.into(), ..Choices::default() })
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn percentiles_are_numpys() {
    for case in expected("percentiles").as_array().unwrap() {
        let found = normalize::percentiles(&noise(case["count"].as_u64().unwrap() as usize), &numbers(&case["percents"])).unwrap();
        for (found, expected) in found.iter().zip(numbers(&case["values"])) {
            assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} {expected}");
        }
    }
}

#[test]
fn percentiles_of_signed_zeros_and_extremes_are_exact() {
    let values = [0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, -1e-45, 1e-45];
    let found = normalize::percentiles(&values, &[0.0, 50.0, 100.0]).unwrap();
    assert_eq!(found, [f64::from(f32::MIN), 0.0, f64::from(f32::MAX)]);
    assert_eq!(normalize::percentiles(&values, &[100.1]).unwrap_err().kind(), Kind::InvalidArgument);
}

#[test]
fn zscores_are_numpys() {
    for case in expected("zscores").as_array().unwrap() {
        let count = case["count"].as_u64().unwrap() as usize;
        let mut voxels = noise(count);
        voxels.iter_mut().step_by(3).for_each(|value| *value = 0.0);
        let mask: Vec<u8> = (0..count).map(|i| u8::from(i % 5 < 2)).collect();
        let over = match case["over"].as_str().unwrap() {
            "all" => normalize::Over::All,
            "nonzero" => normalize::Over::Nonzero,
            _ => normalize::Over::Mask(&mask),
        };
        let moments = normalize::zscore(&mut voxels, over, case["ddof"].as_u64().unwrap() as usize).unwrap();
        assert!((moments.mean - case["mean"].as_f64().unwrap()).abs() < 1e-9);
        assert!((moments.std / case["std"].as_f64().unwrap() - 1.0).abs() < 1e-12);
        for (found, expected) in voxels.iter().step_by(count / 10).zip(numbers(&case["some"])) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}

/// How, and how far from SimpleITK on values from -300 to 724.
fn interpolation(how: &str) -> (Interpolation, f64) {
    match how {
        "linear" => (Interpolation::Linear, 5e-4),
        "nearest" => (Interpolation::Nearest, 0.0),
        _ => (Interpolation::BSpline, 5e-3),
    }
}

#[test]
fn resampling_to_a_spacing_is_simpleitks() {
    for case in expected("resampling")["spacing"].as_array().unwrap() {
        let (from, onto) = (geometry(&case["from"]), geometry(&case["onto"]));
        let source = Volume::from_parts(noise(from.dims.iter().product()), from.clone(), "MR").unwrap();
        let (how, bound) = interpolation(case["how"].as_str().unwrap());
        let made = resample::to_spacing(&source, onto.spacing_mm, how, &Control::new()).unwrap().unwrap();
        assert_eq!(made.geometry().dims, onto.dims);
        for (ours, theirs) in made.geometry().affine_lps.iter().flatten().zip(onto.affine_lps.iter().flatten()) {
            assert!((ours - theirs).abs() < 1e-9);
        }
        let [width, height, _] = onto.dims;
        let mut compared = 0;
        for (index, (ours, theirs)) in made.voxels().iter().zip(numbers(&case["values"])).enumerate() {
            let place = [index % width, index / width % height, index / width / height];
            // SimpleITK writes its default value further than half a voxel outside; there our rule, the edge value, is ours alone.
            if (0..3).any(|a| place[a] as f64 * onto.spacing_mm[a] / from.spacing_mm[a] > from.dims[a] as f64 - 0.5 - 1e-9) {
                continue;
            }
            compared += 1;
            assert!((f64::from(*ours) - theirs).abs() <= bound, "{index}: {ours} {theirs}");
        }
        assert!(compared * 10 > made.voxels().len() * 7);
    }
}

#[test]
fn resampling_to_a_turned_grid_is_simpleitks() {
    for case in expected("resampling")["grid"].as_array().unwrap() {
        let (from, onto) = (geometry(&case["from"]), geometry(&case["onto"]));
        let source = Volume::from_parts(noise(from.dims.iter().product()), from, "MR").unwrap();
        let (how, bound) = interpolation(case["how"].as_str().unwrap());
        let made = resample::to_grid(&source, &onto, how, -1000.0, &Control::new()).unwrap();
        let mut inside = 0;
        for (ours, theirs) in made.voxels().iter().zip(numbers(&case["values"])) {
            inside += usize::from(theirs > -1000.0);
            assert!((f64::from(*ours) - theirs).abs() <= bound, "{ours} {theirs}");
        }
        assert!(inside > 150);
    }
}

#[test]
fn masks_keep_their_labels_on_any_grid() {
    let case = &expected("resampling")["grid"][1];
    let (from, onto) = (geometry(&case["from"]), geometry(&case["onto"]));
    let labels: Vec<u8> = (0..from.dims.iter().product::<usize>()).map(|i| if i % 7 == 0 { 200 } else { 3 }).collect();
    let made = resample::labels_to_grid(&labels, &from, &onto, &Control::new()).unwrap();
    assert!(made.iter().all(|label| [0, 3, 200].contains(label)));
    assert!(made.contains(&0) && made.contains(&3) && made.contains(&200));
    assert!(resample::labels_to_grid(&labels[1..], &from, &onto, &Control::new()).is_err());
}

#[test]
fn stretching_beyond_the_last_centre_holds_the_edge() {
    // Two voxels at 1 mm on a grid of 0.25 mm: 8 voxels from 0 to 1.75, the last three past the last centre at 1.
    let made = resample::to_spacing(&volume([2, 1, 1], vec![0.0, 8.0]), [0.25, 1.0, 1.0], Interpolation::Linear, &Control::new());
    assert_eq!(made.unwrap().unwrap().voxels(), [0.0, 2.0, 4.0, 6.0, 8.0, 8.0, 8.0, 8.0]);
}

#[test]
fn stretching_to_a_shape_is_pytorchs_without_aligned_corners() {
    // torch.nn.functional.interpolate(x, size=4, mode="linear", align_corners=False) of [0, 8]: positions -0.25, 0.25, 0.75, 1.25.
    let grid = AlignedGrid::stretched([2, 1, 1], [4, 1, 1]);
    assert_eq!(resample::linear(&[0.0, 8.0], [2, 1, 1], &grid, &Control::new()).unwrap(), [0.0, 2.0, 6.0, 8.0]);
    // "nearest-exact" of five voxels to three: floor((i + 0.5) * 5 / 3) = 0, 2, 4.
    let grid = AlignedGrid::stretched([5, 1, 1], [3, 1, 1]);
    assert_eq!(resample::nearest(&[0u8, 1, 2, 3, 4], [5, 1, 1], &grid, None, &Control::new()).unwrap(), [0, 2, 4]);
}

#[test]
fn components_partition_as_scipys_do() {
    let all = expected("components");
    let dims: [usize; 3] = std::array::from_fn(|i| all["dims"][i].as_u64().unwrap() as usize);
    let values = noise(dims.iter().product());
    let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for case in all["cases"].as_array().unwrap() {
        let mask: Vec<u8> = values.iter().map(|v| u8::from(f64::from(*v) < case["below"].as_f64().unwrap())).collect();
        let connectivity = components::Connectivity::from_neighbours(case["neighbours"].as_u64().unwrap() as u32).unwrap();
        let found = components::Components::find(&mask, dims, connectivity, |v| v == 1).unwrap();
        assert_eq!(found.sizes().len() as u64, case["count"].as_u64().unwrap());
        let bytes: Vec<u8> = found.map().unwrap().iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(hex(&bytes), case["partition"].as_str().unwrap());

        let mut largest = mask.clone();
        components::keep_largest(&mut largest, dims, 1, connectivity).unwrap();
        assert_eq!(largest.iter().map(|v| u64::from(*v)).sum::<u64>(), case["largest"].as_u64().unwrap());
        let mut large = mask.clone();
        components::remove_small(&mut large, dims, 1, connectivity, 3).unwrap();
        assert_eq!(hex(&large), case["at_least_3"].as_str().unwrap());
        let mut filled = mask;
        components::fill_holes(&mut filled, dims, 1).unwrap();
        assert_eq!(hex(&filled), case["filled"].as_str().unwrap());
    }
    let empty = components::Components::find(&[0u8; 8], [2; 3], components::Connectivity::Faces, |v| v == 1).unwrap();
    assert_eq!((empty.sizes().len(), empty.largest()), (0, None));
    assert!(components::Components::find(&[0u8; 7], [2; 3], components::Connectivity::Faces, |v| v == 1).is_err());
}

#[test]
fn filling_a_hole_leaves_other_labels_in_it() {
    let mut labels = vec![1u8; 125];
    labels[62] = 2; // the middle of 5 x 5 x 5
    labels[63] = 0;
    components::fill_holes(&mut labels, [5; 3], 1).unwrap();
    assert_eq!((labels[62], labels[63]), (2, 1));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let run = |threads| {
        in_pool(threads, || {
            let all = chosen(Choices { normalize: "zscore".into(), spacing_mm: Some(0.7), ..Choices::default() });
            let (made, steps) = preprocess(volume([97, 61, 53], noise(97 * 61 * 53)), &all, &Control::new()).unwrap();
            let bits: Vec<u32> = made.voxels().iter().map(|v| v.to_bits()).collect();
            let values: Vec<u64> = steps.iter().flat_map(|s| s.parameters.iter().map(|p| p.1.to_bits())).collect();
            (bits, values)
        })
    };
    let one = run(1);
    assert!(run(2) == one && run(5) == one);
}

#[test]
fn a_step_is_recorded_only_when_it_ran() {
    let names = |recipe: &Recipe| -> Vec<&str> {
        preprocess(volume([5, 4, 3], noise(60)), recipe, &Control::new()).unwrap().1.iter().map(|step| step.name).collect()
    };
    assert_eq!(names(&recipe("none")), [""; 0]);
    assert_eq!(names(&recipe("zscore")), ["percentile_clip", "zscore"]);
    assert_eq!(names(&recipe("minmax")), ["percentile_clip", "minmax"]);
    let (scaled, _) = preprocess(volume([5, 4, 3], noise(60)), &recipe("minmax"), &Control::new()).unwrap();
    assert_eq!(normalize::range(scaled.voxels()), (0.0, 1.0));
    // The spacing that it has.
    let mut all = Choices { normalize: "zscore".into(), spacing_mm: Some(1.0), ..Choices::default() };
    assert_eq!(names(&chosen(all.clone())), ["percentile_clip", "zscore"]);
    all.spacing_mm = Some(2.0);
    assert_eq!(names(&chosen(all.clone())), ["resample", "percentile_clip", "zscore"]);
    let positive = volume([9, 8, 7], noise(504).iter().map(|value| value + 301.0).collect());
    let all = Choices { denoise: "nlm".into(), noise_sigma: Some(20.0), bias_correction: "n4".into(), ..all };
    let steps = preprocess(positive, &chosen(all), &Control::new()).unwrap().1;
    let names: Vec<&str> = steps.iter().map(|step| step.name).collect();
    assert_eq!(names, ["n4", "nlm", "resample", "percentile_clip", "zscore"]);
    assert!(steps[1].parameters.contains(&("sigma", 20.0)) && steps[1].parameters.contains(&("rician", 1.0)));
}

#[test]
fn preprocessing_keeps_the_voxels_as_they_were_loaded() {
    let loaded = volume([5, 4, 3], noise(60));
    let (made, _) = preprocess(loaded.clone(), &recipe("zscore"), &Control::new()).unwrap();
    assert_ne!(made.voxels(), loaded.voxels());
    assert_eq!(made.raw().voxels(), noise(60));
    assert_eq!(loaded.voxels(), noise(60));
    let mean = made.voxels().iter().map(|v| f64::from(*v)).sum::<f64>() / 60.0;
    assert!(mean.abs() < 1e-6);
}

#[test]
fn what_cannot_be_done_is_an_error_before_any_work() {
    let kind = |volume: Volume, recipe: &Recipe| preprocess(volume, recipe, &Control::new()).map(|_| ()).unwrap_err().kind();
    let good = || volume([5, 4, 3], noise(60));
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut voxels = noise(60);
        voxels[59] = value;
        assert_eq!(kind(volume([5, 4, 3], voxels), &recipe("none")), Kind::VolumeInvalid);
    }
    assert_eq!(kind(volume([5, 4, 3], vec![7.25; 60]), &recipe("zscore")), Kind::VolumeConstant);
    for wrong in [
        Choices { normalize: "whitestripe".into(), ..Choices::default() },
        Choices { denoise: "fast".into(), ..Choices::default() },
        Choices { bias_correction: "N4".into(), ..Choices::default() },
        Choices { region: "brain".into(), ..Choices::default() },
    ] {
        assert_eq!(Recipe::of(&wrong).unwrap_err().kind(), Kind::ConfigInvalidValue);
    }
    // Noise reaches below 0 in the sample volume, and N4 is for MR only.
    let nlm = chosen(Choices { denoise: "nlm".into(), ..Choices::default() });
    assert_eq!(kind(good(), &nlm), Kind::InvalidArgument);
    let n4 = chosen(Choices { bias_correction: "n4".into(), ..Choices::default() });
    let ct = Volume::from_parts(noise(60), good().geometry.clone(), "CT").unwrap();
    assert_eq!(kind(ct, &n4), Kind::InvalidArgument);
    for spacing in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let asked = chosen(Choices { spacing_mm: Some(spacing), ..Choices::default() });
        assert_eq!(kind(good(), &asked), Kind::InvalidArgument);
    }
    let empty = normalize::moments(&noise(8), normalize::Over::Mask(&[0; 8]), 0);
    assert_eq!(empty.unwrap_err().kind(), Kind::MaskEmpty);
    assert_eq!(normalize::moments(&noise(8), normalize::Over::Mask(&[1; 7]), 0).unwrap_err().kind(), Kind::InvalidArgument);
    assert_eq!(normalize::minmax(&mut [3.0; 4], 0.0, 1.0).unwrap_err().kind(), Kind::VolumeConstant);
}

#[test]
fn a_cancelled_study_is_not_preprocessed() {
    let control = Control::new();
    control.cancel();
    assert_eq!(preprocess(volume([5, 4, 3], noise(60)), &recipe("zscore"), &control).map(|_| ()).unwrap_err().kind(), Kind::Cancelled);
    let asked = Interpolation::Linear;
    assert_eq!(
        resample::to_spacing(&volume([5, 4, 3], noise(60)), [2.0; 3], asked, &control).map(|_| ()).unwrap_err().kind(),
        Kind::Cancelled
    );
}
