//! The filters against scipy, SimpleITK, scikit-image and dipy: `tests/interop/filters_expected.py` wrote the expected values.

use serde_json::Value;

use super::*;

fn expected() -> Value {
    serde_json::from_str(include_str!("../../../tests/data/expected/filters.json")).unwrap()
}

fn dims_of(shape: &str) -> [usize; 3] {
    if shape == "volume" { [23, 17, 13] } else { [41, 37, 1] }
}

/// The formula of the generator, in whole numbers: a bright ball in a cuboid, with noise, and a mask.
fn phantom(dims: [usize; 3]) -> (Vec<f32>, Vec<u8>) {
    let [nx, ny, nz] = dims.map(|n| n as i32);
    let place = |index: u32| (index as i32 % nx, index as i32 / nx % ny, index as i32 / (nx * ny));
    let voxel = |index: u32| {
        let (x, y, z) = place(index);
        let key = index.wrapping_mul(2_654_435_761).wrapping_add(12_345);
        let key = (key ^ (key >> 15)).wrapping_mul(2_246_822_519);
        let key = (key ^ (key >> 13)).wrapping_mul(3_266_489_917);
        let noise = ((key >> 16) % 161) as i32 - 80;
        let in_ball = (x - 12).pow(2) + (y - 9).pow(2) + (z - nz / 2).pow(2) < 25;
        let in_cuboid = (3..nx - 3).contains(&x) && (2..ny - 4).contains(&y) && (nz == 1 || (2..nz - 1).contains(&z));
        let value = if in_ball { 850 } else { 60 + 360 * i32::from(in_cuboid) };
        (value + noise).clamp(0, 1000) as f32
    };
    let masked = |index: u32| {
        let (x, y, z) = place(index);
        u8::from(2 * (x - 11).pow(2) + 3 * (y - 8).pow(2) + 4 * (z - nz / 2).pow(2) < 200)
    };
    let count = (nx * ny * nz) as u32;
    ((0..count).map(voxel).collect(), (0..count).map(masked).collect())
}

fn numbers<const N: usize>(value: &Value) -> [f64; N] {
    let list: Vec<f64> = value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    list.try_into().unwrap()
}

/// Runs a filter's cases; a voxel may differ by `most`, sums by their share of `most` in 1000. Returns how many cases there were.
fn check(filter: &str, most: f64, run: impl Fn(&Value, Vec<f32>, &[u8], [usize; 3]) -> Vec<f32>) -> usize {
    let mut count = 0;
    for case in expected()["cases"].as_array().unwrap().iter().filter(|case| case["filter"] == filter) {
        let dims = dims_of(case["shape"].as_str().unwrap());
        let (voxels, mask) = phantom(dims);
        let out = run(case, voxels, &mask, dims);
        let reference: Vec<f64> = case["voxels"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let chosen: Vec<f64> = out.iter().step_by(29).map(|v| f64::from(*v)).collect();
        assert_eq!(chosen.len(), reference.len());
        let largest = chosen.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let sum: f64 = out.iter().map(|v| f64::from(*v)).sum();
        let squares: f64 = out.iter().map(|v| f64::from(*v).powi(2)).sum();
        let off = |value: f64, name: &str| (value / case[name].as_f64().unwrap() - 1.0).abs();
        let mut told = case.clone();
        told.as_object_mut().unwrap().remove("voxels");
        println!("{told}: {largest:.5} {:.1e} {:.1e}", off(sum, "sum"), off(squares, "squares"));
        // The expected voxels are rounded to three digits.
        assert!(largest <= most + 5e-4, "{told}: {largest}");
        assert!(off(sum, "sum") <= 1e-6 + most * 1e-4 && off(squares, "squares") <= 1e-6 + most * 1e-4, "{told}: {sum} {squares}");
        count += 1;
    }
    count
}

/// The same bits for 1, 2 and 5 threads.
fn same_for_any_threads(run: impl Fn() -> Vec<f32> + Sync) {
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&run).into_iter().map(f32::to_bits).collect::<Vec<u32>>()
    };
    let one = bits(1);
    assert_eq!(one, bits(2));
    assert_eq!(one, bits(5));
}

/// Progress begins at 0 and ends at 1, never falls, and a cancel is heard at the first step.
fn reports_and_stops(run: impl Fn(&Control) -> Result<()> + Sync) {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = std::sync::Arc::clone(&seen);
    let control = Control::with_listener(move |stage, fraction| sink.lock().unwrap().push((stage, fraction)));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| run(&control)).unwrap();
    {
        let seen = seen.lock().unwrap();
        assert_eq!((seen.first(), seen.last()), (Some(&("preprocess", 0.0)), Some(&("preprocess", 1.0))));
        assert!(seen.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{seen:?}");
        assert!(seen.len() > 3);
    }
    control.cancel();
    assert_eq!(run(&control).unwrap_err().kind(), Kind::Cancelled);
    // While the work is under way: the listener itself cancels.
    let slot: std::sync::Arc<std::sync::OnceLock<Control>> = std::sync::Arc::default();
    let inner = std::sync::Arc::clone(&slot);
    let control = Control::with_listener(move |_, fraction| {
        if fraction > 0.0 {
            inner.get().into_iter().for_each(Control::cancel);
        }
    });
    slot.set(control.clone()).ok();
    assert_eq!(run(&control).unwrap_err().kind(), Kind::Cancelled);
}

/// NaN, infinities, empty volumes and dimensions that are not filled.
fn refuses_bad_volumes(run: impl Fn(&[f32], [usize; 3]) -> Result<()>) {
    let (good, _) = phantom([23, 17, 13]);
    assert!(run(&good, [23, 17, 13]).is_ok());
    let kind = |voxels: &[f32], dims| run(voxels, dims).unwrap_err().kind();
    for dims in [[23, 17, 14], [usize::MAX, 2, 2], [0, 17, 13], [23, 0, 13]] {
        assert_eq!(kind(&good, dims), Kind::VolumeInvalid);
    }
    assert_eq!(kind(&[], [0, 17, 13]), Kind::VolumeInvalid);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut voxels = good.clone();
        voxels[77] = bad;
        assert_eq!(kind(&voxels, [23, 17, 13]), Kind::VolumeInvalid);
    }
}

#[test]
fn the_phantoms_are_the_generators() {
    let expected = expected();
    assert_eq!(expected["step"], 29);
    for shape in ["volume", "slice"] {
        let total: f64 = phantom(dims_of(shape)).0.iter().map(|v| f64::from(*v)).sum();
        assert_eq!(Some(total), expected["totals"][shape].as_f64());
        assert_eq!(expected["dims"][shape], serde_json::json!(dims_of(shape)));
    }
}

mod smoothing {
    use super::*;

    #[test]
    fn it_equals_scipys() {
        let count = check("gaussian", 1e-3, |case, mut voxels, _, dims| {
            gaussian::smooth(&mut voxels, dims, numbers(&case["sigma"]), &Control::new()).unwrap();
            voxels
        });
        assert_eq!(count, 4);
    }

    #[test]
    fn millimetres_are_voxels_times_spacing() {
        let (mut a, _) = phantom([23, 17, 13]);
        let mut b = a.clone();
        gaussian::smooth_mm(&mut a, [23, 17, 13], [0.5, 2.0, 4.0], [0.5, 1.0, 6.0], &Control::new()).unwrap();
        gaussian::smooth(&mut b, [23, 17, 13], [1.0, 0.5, 1.5], &Control::new()).unwrap();
        assert_eq!(a, b);
    }

    #[test]
    fn a_constant_stays_and_no_sigma_changes_nothing() {
        for dims in [[1, 1, 1], [90, 1, 1], [1, 70, 1], [1, 1, 8], [40, 3, 1]] {
            let mut voxels = vec![7.25f32; dims.iter().product()];
            gaussian::smooth(&mut voxels, dims, [2.0, 30.0, 256.0], &Control::new()).unwrap();
            assert!(voxels.iter().all(|v| (v / 7.25 - 1.0).abs() < 2e-6));
        }
        let (before, _) = phantom([23, 17, 13]);
        let mut after = before.clone();
        gaussian::smooth(&mut after, [23, 17, 13], [0.0; 3], &Control::new()).unwrap();
        assert_eq!(before, after);
    }

    #[test]
    fn any_number_of_threads_yields_the_same_bits() {
        same_for_any_threads(|| {
            let (mut voxels, _) = phantom([150, 17, 13]);
            gaussian::smooth(&mut voxels, [150, 17, 13], [1.0, 2.0, 3.0], &Control::new()).unwrap();
            voxels
        });
    }

    #[test]
    fn wrong_calls_have_their_errors() {
        refuses_bad_volumes(|voxels, dims| gaussian::smooth(&mut voxels.to_vec(), dims, [1.0; 3], &Control::new()));
        let kind = |sigma, spacing| gaussian::smooth_mm(&mut [1.0; 8], [2; 3], spacing, sigma, &Control::new()).unwrap_err().kind();
        for bad in [-1.0, 300.0, f64::NAN, f64::INFINITY] {
            assert_eq!(kind([1.0, bad, 1.0], [1.0; 3]), Kind::InvalidArgument);
        }
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(kind([1.0; 3], [1.0, 1.0, bad]), Kind::InvalidArgument);
        }
        assert_eq!(gaussian::smooth(&mut [3e38; 8], [2; 3], [1.0; 3], &Control::new()).unwrap_err().kind(), Kind::VolumeInvalid);
        let (voxels, _) = phantom([23, 17, 13]);
        reports_and_stops(|control| gaussian::smooth(&mut voxels.clone(), [23, 17, 13], [1.0; 3], control));
    }
}

mod medians {
    use super::*;

    #[test]
    fn they_equal_simpleitks() {
        let count = check("median", 0.0, |case, voxels, _, dims| {
            median::filter(&voxels, dims, numbers(&case["radius"]).map(|r: f64| r as usize), &Control::new()).unwrap()
        });
        assert_eq!(count, 8);
    }

    /// By sorting, with the nearest voxel beyond the faces.
    fn plain(voxels: &[f32], dims: [usize; 3], radius: [usize; 3]) -> Vec<f32> {
        let place = |base: usize, axis: usize, by: usize| (base + by).saturating_sub(radius[axis]).min(dims[axis] - 1);
        let span = |axis: usize| 0..=2 * radius[axis];
        let mut out = Vec::new();
        for (z, y, x) in (0..dims[2]).flat_map(|z| (0..dims[1]).flat_map(move |y| (0..dims[0]).map(move |x| (z, y, x)))) {
            let mut window = Vec::new();
            for (c, b, a) in span(2).flat_map(|c| span(1).flat_map(move |b| span(0).map(move |a| (c, b, a)))) {
                window.push(voxels[(place(z, 2, c) * dims[1] + place(y, 1, b)) * dims[0] + place(x, 0, a)]);
            }
            window.sort_by(f32::total_cmp);
            out.push(window[window.len() / 2]);
        }
        out
    }

    #[test]
    fn they_are_those_of_a_sort_for_any_shape_and_radius() {
        for dims in [[1, 1, 1], [70, 3, 2], [5, 40, 1], [1, 1, 33], [130, 30, 26], [1, 27, 25]] {
            // Negative numbers and fractions as well.
            let voxels: Vec<f32> = phantom(dims).0.iter().map(|v| (v - 300.0) / 7.0).collect();
            for radius in [[1, 1, 1], [2, 2, 2], [3, 1, 2], [0, 1, 0], [0, 0, 3]] {
                assert_eq!(
                    median::filter(&voxels, dims, radius, &Control::new()).unwrap(),
                    plain(&voxels, dims, radius),
                    "{dims:?} {radius:?}"
                );
            }
        }
    }

    #[test]
    fn any_number_of_threads_yields_the_same_bits() {
        let (voxels, _) = phantom([80, 50, 30]);
        for radius in [[1; 3], [2; 3]] {
            same_for_any_threads(|| median::filter(&voxels, [80, 50, 30], radius, &Control::new()).unwrap());
        }
    }

    #[test]
    fn wrong_calls_have_their_errors() {
        for radius in [[1; 3], [3, 2, 1]] {
            refuses_bad_volumes(|voxels, dims| median::filter(voxels, dims, radius, &Control::new()).map(drop));
            let (voxels, _) = phantom([80, 50, 30]);
            reports_and_stops(|control| median::filter(&voxels, [80, 50, 30], radius, control).map(drop));
        }
        for radius in [[0; 3], [4, 1, 1], [1, usize::MAX, 1]] {
            assert_eq!(median::filter(&[1.0; 8], [2; 3], radius, &Control::new()).unwrap_err().kind(), Kind::InvalidArgument);
        }
    }
}

mod diffusing {
    use super::*;
    use diffusion::{Kind as Flow, Parameters, diffuse};

    fn check_kind(name: &str, kind: Flow) {
        let count = check(name, 1e-3, |case, mut voxels, _, dims| {
            let parameters = Parameters {
                kind,
                iterations: case["iterations"].as_u64().unwrap() as usize,
                conductance: case["conductance"].as_f64().unwrap(),
                time_step: case["step"].as_f64().unwrap(),
            };
            diffuse(&mut voxels, dims, numbers(&case["spacing"]), &parameters, &Control::new()).unwrap();
            voxels
        });
        assert_eq!(count, 7);
    }

    #[test]
    fn along_the_gradient_it_equals_simpleitks() {
        check_kind("gradient", Flow::Gradient);
    }

    #[test]
    fn by_curvature_it_equals_simpleitks() {
        check_kind("curvature", Flow::Curvature);
    }

    #[test]
    fn a_constant_and_any_shape_are_diffused() {
        for kind in [Flow::Gradient, Flow::Curvature] {
            for dims in [[1, 1, 1], [2, 1, 1], [1, 2, 1], [1, 1, 9], [40, 3, 1], [3, 2, 2]] {
                let mut voxels = vec![7.25f32; dims.iter().product()];
                diffuse(&mut voxels, dims, [1.0; 3], &Parameters::of(kind), &Control::new()).unwrap();
                assert!(voxels.iter().all(|v| *v == 7.25));
                let (before, _) = phantom(dims);
                let mut after = before.clone();
                diffuse(&mut after, dims, [1.0; 3], &Parameters::of(kind), &Control::new()).unwrap();
                let spread = |v: &[f32]| v.iter().fold(0f32, |a, b| a.max(*b)) - v.iter().fold(9e9f32, |a, b| a.min(*b));
                assert!(spread(&after) <= spread(&before));
            }
        }
    }

    #[test]
    fn axes_may_be_swapped() {
        let (voxels, _) = phantom([23, 17, 13]);
        let swap = |v: &[f32], [nx, ny, nz]: [usize; 3]| -> Vec<f32> {
            (0..v.len()).map(|i| v[(i % nz * ny + i / nz % ny) * nx + i / (nz * ny)]).collect()
        };
        for kind in [Flow::Gradient, Flow::Curvature] {
            let mut plain = voxels.clone();
            diffuse(&mut plain, [23, 17, 13], [1.0, 1.5, 2.0], &Parameters::of(kind), &Control::new()).unwrap();
            let mut swapped = swap(&voxels, [23, 17, 13]);
            diffuse(&mut swapped, [13, 17, 23], [2.0, 1.5, 1.0], &Parameters::of(kind), &Control::new()).unwrap();
            let back = swap(&swapped, [13, 17, 23]);
            assert!(plain.iter().zip(&back).all(|(a, b)| (a - b).abs() < 2e-3));
        }
    }

    #[test]
    fn a_scaled_volume_is_diffused_alike() {
        let (voxels, _) = phantom([23, 17, 13]);
        let run = |by: f32| {
            let mut voxels: Vec<f32> = voxels.iter().map(|v| v * by).collect();
            diffuse(&mut voxels, [23, 17, 13], [1.0; 3], &Parameters::of(Flow::Gradient), &Control::new()).unwrap();
            voxels
        };
        let plain = run(1.0);
        for power in [-90, 110] {
            let by = 2f32.powi(power);
            assert!(run(by).iter().zip(&plain).all(|(a, b)| (a / by - b).abs() < 1e-3), "2^{power}");
        }
    }

    #[test]
    fn any_number_of_threads_yields_the_same_bits() {
        for kind in [Flow::Gradient, Flow::Curvature] {
            same_for_any_threads(|| {
                let (mut voxels, _) = phantom([40, 50, 30]);
                diffuse(&mut voxels, [40, 50, 30], [1.0; 3], &Parameters::of(kind), &Control::new()).unwrap();
                voxels
            });
        }
    }

    #[test]
    fn wrong_calls_have_their_errors() {
        let good = Parameters::of(Flow::Gradient);
        refuses_bad_volumes(|voxels, dims| diffuse(&mut voxels.to_vec(), dims, [1.0; 3], &good, &Control::new()));
        let (voxels, _) = phantom([23, 17, 13]);
        reports_and_stops(|control| diffuse(&mut voxels.clone(), [23, 17, 13], [1.0; 3], &good, control));
        let kind =
            |parameters, spacing| diffuse(&mut voxels.clone(), [23, 17, 13], spacing, &parameters, &Control::new()).unwrap_err().kind();
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(kind(Parameters { time_step: bad, ..good }, [1.0; 3]), Kind::InvalidArgument);
            assert_eq!(kind(Parameters { conductance: bad, ..good }, [1.0; 3]), Kind::InvalidArgument);
            assert_eq!(kind(good, [1.0, bad, 1.0]), Kind::InvalidArgument);
        }
        assert_eq!(kind(Parameters { time_step: 0.17, ..good }, [1.0; 3]), Kind::InvalidArgument);
        assert_eq!(kind(good, [0.3; 3]), Kind::InvalidArgument);
        assert_eq!(kind(Parameters { iterations: 0, ..good }, [1.0; 3]), Kind::InvalidArgument);
        assert_eq!(kind(Parameters { iterations: 1001, ..good }, [1.0; 3]), Kind::InvalidArgument);
    }
}

mod variation {
    use super::*;
    use total_variation::{Parameters, denoise};

    #[test]
    fn it_equals_scikit_images() {
        let count = check("total_variation", 0.05, |case, mut voxels, _, dims| {
            let parameters = Parameters {
                weight: case["weight"].as_f64().unwrap(),
                iterations: case["most"].as_u64().unwrap() as usize,
                tolerance: case["eps"].as_f64().unwrap(),
            };
            denoise(&mut voxels, dims, &parameters, &Control::new()).unwrap();
            voxels
        });
        assert_eq!(count, 5);
    }

    const MILD: Parameters = Parameters { weight: 40.0, iterations: 200, tolerance: 2e-4 };

    #[test]
    fn an_end_that_was_not_foreseen_is_found_again() {
        // With half of the first energy the second iteration is the last.
        let (voxels, _) = phantom([23, 17, 13]);
        let mut early = voxels.clone();
        assert_eq!(denoise(&mut early, [23, 17, 13], &Parameters { tolerance: 0.9, ..MILD }, &Control::new()).unwrap(), 2);
        let mut two = voxels.clone();
        assert_eq!(denoise(&mut two, [23, 17, 13], &Parameters { iterations: 2, ..MILD }, &Control::new()).unwrap(), 2);
        assert_eq!(early, two);
        let mut one = voxels.clone();
        assert_eq!(denoise(&mut one, [23, 17, 13], &Parameters { iterations: 1, ..MILD }, &Control::new()).unwrap(), 1);
        assert_eq!(one, voxels);
    }

    #[test]
    fn axes_of_one_voxel_do_not_matter() {
        let (voxels, _) = phantom([41, 37, 1]);
        let run = |dims| {
            let mut voxels = voxels.clone();
            denoise(&mut voxels, dims, &MILD, &Control::new()).unwrap();
            voxels
        };
        assert_eq!(run([41, 37, 1]), run([41, 1, 37]));
        assert_eq!(run([41, 37, 1]), run([1, 41, 37]));
        for dims in [[1, 1, 1], [9, 1, 1], [1, 1, 300], [1, 2, 1]] {
            let mut flat = vec![7.25f32; dims.iter().product()];
            denoise(&mut flat, dims, &MILD, &Control::new()).unwrap();
            assert!(flat.iter().all(|v| *v == 7.25));
        }
    }

    #[test]
    fn a_scaled_volume_is_denoised_alike() {
        let (voxels, _) = phantom([23, 17, 13]);
        let run = |by: f32| {
            let mut voxels: Vec<f32> = voxels.iter().map(|v| v * by).collect();
            denoise(&mut voxels, [23, 17, 13], &Parameters { weight: 40.0 * f64::from(by), ..MILD }, &Control::new()).unwrap();
            voxels
        };
        let plain = run(1.0);
        for power in [-90, 110] {
            let by = 2f32.powi(power);
            assert!(run(by).iter().zip(&plain).all(|(a, b)| (a / by - b).abs() < 1e-2), "2^{power}");
        }
    }

    #[test]
    fn any_number_of_threads_yields_the_same_bits() {
        for dims in [[40, 50, 30], [400, 900, 1]] {
            same_for_any_threads(|| {
                let (mut voxels, _) = phantom(dims);
                denoise(&mut voxels, dims, &Parameters { iterations: 12, ..MILD }, &Control::new()).unwrap();
                voxels
            });
        }
    }

    #[test]
    fn wrong_calls_have_their_errors() {
        refuses_bad_volumes(|voxels, dims| denoise(&mut voxels.to_vec(), dims, &MILD, &Control::new()).map(drop));
        let (voxels, _) = phantom([23, 17, 13]);
        reports_and_stops(|control| {
            denoise(&mut voxels.clone(), [23, 17, 13], &Parameters { tolerance: 0.0, iterations: 20, ..MILD }, control).map(drop)
        });
        let kind = |parameters| denoise(&mut voxels.clone(), [23, 17, 13], &parameters, &Control::new()).unwrap_err().kind();
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(kind(Parameters { weight: bad, ..MILD }), Kind::InvalidArgument);
        }
        for bad in [1.5, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(kind(Parameters { tolerance: bad, ..MILD }), Kind::InvalidArgument);
        }
        assert_eq!(kind(Parameters { iterations: 0, ..MILD }), Kind::InvalidArgument);
        assert_eq!(kind(Parameters { iterations: 100_001, ..MILD }), Kind::InvalidArgument);
    }
}

mod blocks {
    use super::*;
    use blockwise::{Parameters, denoise};

    const GOOD: Parameters = Parameters { patch_radius: 1, block_radius: 1, sigma: 60.0, is_rician: true };

    #[test]
    fn they_equal_dipys() {
        let count = check("blockwise", 0.05, |case, voxels, mask, dims| {
            let parameters = Parameters {
                patch_radius: case["search"].as_u64().unwrap() as usize,
                block_radius: case["block"].as_u64().unwrap() as usize,
                sigma: case["sigma"].as_f64().unwrap(),
                is_rician: case["rician"].as_bool().unwrap(),
            };
            denoise(&voxels, dims, case["masked"].as_bool().unwrap().then_some(mask), &parameters, &Control::new()).unwrap()
        });
        assert_eq!(count, 12);
    }

    #[test]
    fn a_constant_and_any_shape_are_denoised() {
        for dims in [[1, 1, 1], [1, 9, 1], [70, 40, 1], [2, 2, 2], [1, 20, 33]] {
            let flat = vec![7.25f32; dims.iter().product()];
            let out = denoise(&flat, dims, None, &Parameters { is_rician: false, ..GOOD }, &Control::new()).unwrap();
            assert!(out.iter().all(|v| (v - 7.25).abs() < 1e-5));
            let (voxels, _) = phantom(dims);
            let out = denoise(&voxels, dims, None, &GOOD, &Control::new()).unwrap();
            assert!(out.iter().all(|v| (0.0..=1000.5).contains(v)));
        }
    }

    #[test]
    fn tiles_do_not_show() {
        // The same picture at the edge of a tile and within one: voxels far from faces agree.
        let (small, _) = phantom([30, 24, 24]);
        let mut large = vec![300.0f32; 90 * 40 * 40];
        for (line, row) in small.chunks_exact(30).enumerate() {
            let from = ((line / 24 + 8) * 40 + line % 24 + 8) * 90 + 50;
            large[from..from + 30].copy_from_slice(row);
        }
        for block_radius in [1, 2, 4] {
            let parameters = Parameters { block_radius, ..GOOD };
            let a = denoise(&small, [30, 24, 24], None, &parameters, &Control::new()).unwrap();
            let b = denoise(&large, [90, 40, 40], None, &parameters, &Control::new()).unwrap();
            let reach = 2 * block_radius + 3;
            for (z, y, x) in
                (reach..24 - reach).flat_map(|z| (reach..24 - reach).flat_map(move |y| (reach..30 - reach).map(move |x| (z, y, x))))
            {
                let (p, q) = (a[(z * 24 + y) * 30 + x], b[((z + 8) * 40 + y + 8) * 90 + x + 50]);
                assert!((p - q).abs() < 2e-3, "{block_radius} {x} {y} {z}: {p} {q}");
            }
        }
    }

    #[test]
    fn any_number_of_threads_yields_the_same_bits() {
        let (voxels, mask) = phantom([80, 40, 36]);
        same_for_any_threads(|| denoise(&voxels, [80, 40, 36], Some(&mask), &GOOD, &Control::new()).unwrap());
        same_for_any_threads(|| denoise(&voxels, [80, 40, 36], None, &Parameters { block_radius: 3, ..GOOD }, &Control::new()).unwrap());
    }

    #[test]
    fn wrong_calls_have_their_errors() {
        refuses_bad_volumes(|voxels, dims| denoise(voxels, dims, None, &GOOD, &Control::new()).map(drop));
        let (voxels, _) = phantom([80, 40, 36]);
        reports_and_stops(|control| denoise(&voxels, [80, 40, 36], None, &GOOD, control).map(drop));
        let (voxels, mask) = phantom([23, 17, 13]);
        let kind = |dims, mask: Option<&[u8]>, parameters| denoise(&voxels, dims, mask, &parameters, &Control::new()).unwrap_err().kind();
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(kind([23, 17, 13], None, Parameters { sigma: bad, ..GOOD }), Kind::InvalidArgument);
        }
        for bad in [0, 6, usize::MAX] {
            assert_eq!(kind([23, 17, 13], None, Parameters { patch_radius: bad, ..GOOD }), Kind::InvalidArgument);
            assert_eq!(kind([23, 17, 13], None, Parameters { block_radius: bad, ..GOOD }), Kind::InvalidArgument);
        }
        assert_eq!(kind([23, 17, 13], Some(&mask[1..]), GOOD), Kind::InvalidArgument);
        assert_eq!(kind([23, 17, 13], Some(&[0; 5083]), GOOD), Kind::MaskEmpty);
        let thin = denoise(&voxels[..1000], [2, 50, 10], None, &Parameters { block_radius: 2, ..GOOD }, &Control::new());
        assert_eq!(thin.unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(denoise(&[1e16; 27], [3; 3], None, &GOOD, &Control::new()).unwrap_err().kind(), Kind::VolumeInvalid);
    }
}
