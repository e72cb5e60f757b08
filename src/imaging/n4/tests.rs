//! N4 against SimpleITK's (`tests/interop/n4_expected.py` wrote the expected fields) and against a field that is known.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::*;

fn expected() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/expected/n4.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

const DIMS: [usize; 3] = [48, 40, 32];
const SPACING_MM: [f64; 3] = [0.9375, 0.9375, 1.5];

struct Phantom {
    voxels: Vec<f32>,
    mask: Vec<u8>,
    tissue: Vec<f64>,
    bias: Vec<f64>,
}

/// The generator's formula, operation by operation.
fn phantom() -> Phantom {
    let [nx, ny, nz] = DIMS;
    let mut made = Phantom { voxels: Vec::new(), mask: Vec::new(), tissue: Vec::new(), bias: Vec::new() };
    for index in 0..nx * ny * nz {
        let (x, y, z) = (index % nx, index / nx % ny, index / (nx * ny));
        let (u, v, w) = ((x as f64 - 23.5) / 24.0, (y as f64 - 19.5) / 20.0, (z as f64 - 15.5) / 16.0);
        let r = u * u + v * v + w * w;
        let tissue = [(0.3, 450.0), (0.65, 330.0), (0.9, 150.0)].iter().find(|(end, _)| r < *end).map_or(0.0, |(_, value)| *value);
        let hashed = ((index as u64 * 2_654_435_761) % (1 << 32)) >> 12;
        let bias = 1.0 + 0.3 * u - 0.2 * v * w + 0.15 * u * u + 0.1 * w;
        made.voxels.push(((tissue + 24.0 * (hashed as f64 / 1_048_576.0)) * bias + 1.0) as f32);
        made.mask.push(u8::from(r < 0.9));
        made.tissue.push(tissue);
        made.bias.push(bias);
    }
    made
}

fn found(voxels: &[f32], mask: Option<&[u8]>, parameters: &Parameters) -> Result<Field> {
    log_field(voxels, DIMS, SPACING_MM, mask, parameters, &Control::new())
}

fn kind(result: Result<Field>) -> Kind {
    result.unwrap_err().kind()
}

#[test]
fn log_fields_are_simpleitks() {
    let expected = expected();
    let phantom = phantom();
    assert_eq!(phantom.voxels.iter().map(|v| f64::from(*v)).sum::<f64>(), expected["sum"].as_f64().unwrap());
    let everywhere = vec![1; phantom.mask.len()];
    let mut holes: Vec<f32> = phantom.voxels.iter().zip(&phantom.mask).map(|(v, inside)| if *inside > 0 { *v } else { 0.0 }).collect();
    holes[(16 * 40 + 20) * 48 + 20..][..4].fill(-2.0);
    for case in expected["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (voxels, mask) = match case["mask"].as_str().unwrap() {
            "otsu" => (&phantom.voxels, None),
            "holes" => (&holes, Some(everywhere.as_slice())),
            _ => (&phantom.voxels, Some(phantom.mask.as_slice())),
        };
        let parameters = Parameters {
            levels: numbers(&case["levels"]).iter().map(|n| *n as usize).collect(),
            shrink: case["shrink"].as_u64().unwrap() as usize,
            convergence_threshold: case["threshold"].as_f64().unwrap(),
            ..Parameters::default()
        };
        let field = found(voxels, mask, &parameters).unwrap();
        assert_eq!(field.mask_voxels() as u64, case["mask_voxels"].as_u64().unwrap(), "{name}");
        assert_eq!(field.iterations().iter().map(|n| *n as f64).collect::<Vec<f64>>(), numbers(&case["iterations"]), "{name}");
        for (found, expected) in field.convergence().iter().zip(numbers(&case["convergence"])) {
            // ITK adds up in float32, one voxel after the other, and is off by as much.
            assert!((found - expected).abs() < 1e-5 + 0.04 * expected, "{name}: {found} {expected}");
        }
        let (step, bound) = (case["step"].as_u64().unwrap() as usize, case["bound"].as_f64().unwrap());
        let logs = field.evaluate(DIMS, &Control::new()).unwrap();
        let worst = logs.iter().step_by(step).zip(numbers(&case["field"])).map(|(f, e)| (f64::from(*f) - e).abs()).fold(0.0, f64::max);
        println!("{name}: {worst:.1e}");
        assert!(worst < bound, "{name}: {worst}");

        let mut corrected = voxels.clone();
        let report = correct(&mut corrected, DIMS, SPACING_MM, mask, &parameters, &Control::new()).unwrap();
        assert_eq!(report.iterations, field.iterations());
        for (found, expected) in corrected.iter().step_by(step).zip(numbers(&case["corrected"])) {
            assert!((f64::from(*found) - expected).abs() <= 2.0 * bound * expected.abs(), "{name}: {found} {expected}");
        }
    }
}

#[test]
fn itks_running_sums_stop_where_itk_stops() {
    let phantom = phantom();
    let expected = expected();
    let case = expected["cases"].as_array().unwrap().iter().find(|case| case["name"] == "stopped").unwrap();
    let parameters = Parameters { itk_convergence: true, ..Parameters::default() };
    let field = found(&phantom.voxels, Some(&phantom.mask), &parameters).unwrap();
    assert_eq!(field.iterations().iter().map(|n| *n as f64).collect::<Vec<f64>>(), numbers(&case["iterations"]));
    for (found, expected) in field.convergence().iter().zip(numbers(&case["convergence"])) {
        assert!((found - expected).abs() < 1e-5 + 0.01 * expected, "{found} {expected}");
    }
}

#[test]
fn a_known_field_is_taken_away() {
    let phantom = phantom();
    let variation = |voxels: &[f32], tissue: f64| {
        let of: Vec<f64> = voxels.iter().zip(&phantom.tissue).filter(|(_, t)| **t == tissue).map(|(v, _)| f64::from(*v)).collect();
        let mean = of.iter().sum::<f64>() / of.len() as f64;
        (of.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / of.len() as f64).sqrt() / mean
    };
    let mut voxels = phantom.voxels.clone();
    correct(&mut voxels, DIMS, SPACING_MM, Some(&phantom.mask), &Parameters::default(), &Control::new()).unwrap();
    for tissue in [450.0, 330.0] {
        let (before, after) = (variation(&phantom.voxels, tissue), variation(&voxels, tissue));
        println!("{tissue}: {before:.4} {after:.4}");
        // Noise alone is 24/sqrt(12) of the tissue's value: 0.015 and 0.020.
        assert!(before > 0.07 && after < 0.025, "{before} {after}");
    }
    // The field itself, up to a factor, which no method can know.
    let field = found(&phantom.voxels, Some(&phantom.mask), &Parameters::default()).unwrap().evaluate(DIMS, &Control::new()).unwrap();
    let inside = || field.iter().zip(&phantom.bias).zip(&phantom.mask).filter(|(_, inside)| **inside > 0);
    let errors: Vec<f64> = inside().map(|((found, bias), _)| f64::from(*found) - bias.ln()).collect();
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    let rms = (errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / errors.len() as f64).sqrt();
    println!("rms {rms:.4}");
    assert!(rms < 0.03, "{rms}");
}

#[test]
fn any_number_of_threads_finds_the_same_bits() {
    let phantom = phantom();
    let parameters = Parameters { levels: vec![5, 4], ..Parameters::default() };
    for mask in [None, Some(phantom.mask.as_slice())] {
        let run = |threads| {
            in_pool(threads, || {
                let field = found(&phantom.voxels, mask, &parameters).unwrap();
                let lattice: Vec<u64> = field.lattice().values().iter().map(|v| v.to_bits()).collect();
                let mut voxels = phantom.voxels.clone();
                correct(&mut voxels, DIMS, SPACING_MM, mask, &parameters, &Control::new()).unwrap();
                (lattice, voxels.iter().map(|v| v.to_bits()).collect::<Vec<u32>>(), field.convergence().to_vec())
            })
        };
        let one = run(1);
        assert!(one == run(3) && one == run(8));
    }
}

#[test]
fn halving_the_spans_leaves_the_function() {
    let mut coarse = Lattice::new([4, 5, 6]);
    let numerators: Vec<f64> = (0..120).map(|i| f64::from((i * 37) % 23) - 11.0).collect();
    coarse.add_quotient(&numerators, &[1.0; 120]);
    let fine = coarse.refined();
    assert_eq!(fine.size(), [5, 7, 9]);
    let values = |lattice: Lattice| {
        let field = Field { lattice, iterations: Vec::new(), convergence: Vec::new(), mask_voxels: 0 };
        field.evaluate([13, 11, 9], &Control::new()).unwrap()
    };
    // The last voxel is moved by a thousandth of a voxel on either lattice, so values agree to rounding.
    for (a, b) in values(coarse).iter().zip(values(fine)) {
        assert!((a - b).abs() < 2e-5, "{a} {b}");
    }
}

#[test]
fn control_points_that_no_voxel_reaches_stay() {
    let mut lattice = Lattice::new([4; 3]);
    lattice.add_quotient(&[1.0; 64], &[0.0; 64]);
    assert!(lattice.values().iter().all(|value| *value == 0.0));
}

#[test]
fn the_written_out_exponential_is_one() {
    for step in -800..=800 {
        let x = step as f32 * 0.01;
        let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
        assert!((found / expected - 1.0).abs() < 4e-7, "{x}: {found} {expected}");
    }
}

#[test]
fn nonsense_is_refused() {
    let Phantom { voxels, mask, .. } = phantom();
    let good = Parameters { levels: vec![1], ..Parameters::default() };
    let with = |change: fn(&mut Parameters)| {
        let mut parameters = good.clone();
        change(&mut parameters);
        kind(found(&voxels, Some(&mask), &parameters))
    };
    let changes: [fn(&mut Parameters); 15] = [
        |p| p.levels = vec![],
        |p| p.levels = vec![1; 9],
        |p| p.convergence_threshold = f64::NAN,
        |p| p.convergence_threshold = -1.0,
        |p| p.bins = 1,
        |p| p.bins = 1025,
        |p| p.wiener_noise = 0.0,
        |p| p.fwhm = f64::INFINITY,
        |p| p.fwhm = 0.0,
        |p| p.spline_order = 2,
        |p| p.control_points = [3, 4, 4],
        |p| p.control_points = [4, 4, 68],
        |p| p.shrink = 0,
        |p| p.shrink = 17,
        |p| (p.control_points, p.levels) = ([67; 3], vec![1; 8]),
    ];
    assert!(changes.into_iter().all(|change| with(change) == Kind::InvalidArgument));

    let run =
        |voxels: &[f32], dims, spacing_mm, mask: Option<&[u8]>| kind(log_field(voxels, dims, spacing_mm, mask, &good, &Control::new()));
    assert_eq!(run(&voxels, [48, 40, 31], SPACING_MM, None), Kind::InvalidArgument);
    assert_eq!(run(&voxels, [48 * 40, 32, 1], SPACING_MM, None), Kind::InvalidArgument);
    assert_eq!(run(&[], [0, 40, 32], SPACING_MM, None), Kind::InvalidArgument);
    assert_eq!(run(&voxels, [usize::MAX; 3], SPACING_MM, None), Kind::InvalidArgument);
    assert_eq!(run(&voxels, DIMS, [1.0, 0.0, 1.0], None), Kind::InvalidArgument);
    assert_eq!(run(&voxels, DIMS, [1.0, f64::NAN, 1.0], None), Kind::InvalidArgument);
    assert_eq!(run(&voxels, DIMS, SPACING_MM, Some(&mask[1..])), Kind::InvalidArgument);
    assert_eq!(run(&voxels, DIMS, SPACING_MM, Some(&vec![0; mask.len()])), Kind::MaskEmpty);
    assert_eq!(run(&vec![7.0; mask.len()], DIMS, SPACING_MM, Some(&mask)), Kind::VolumeConstant);
    let flat: Vec<f32> = voxels.iter().zip(&mask).map(|(v, inside)| if *inside > 0 { 7.0 } else { *v }).collect();
    assert_eq!(run(&flat, DIMS, SPACING_MM, Some(&mask)), Kind::VolumeConstant);
    let below: Vec<f32> = voxels.iter().map(|v| -v).collect();
    assert_eq!(run(&below, DIMS, SPACING_MM, Some(&mask)), Kind::VolumeInvalid);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut voxels = voxels.clone();
        voxels[100] = bad;
        assert_eq!(run(&voxels, DIMS, SPACING_MM, Some(&mask)), Kind::VolumeInvalid);
    }
}

#[test]
fn other_bins_and_lattices_work() {
    let Phantom { voxels, mask, .. } = phantom();
    for (bins, control_points) in [(2, [4; 3]), (64, [5, 4, 6]), (256, [4; 3]), (1024, [7, 7, 7])] {
        let parameters = Parameters { levels: vec![3, 2], bins, control_points, ..Parameters::default() };
        let field = found(&voxels, Some(&mask), &parameters).unwrap();
        assert_eq!(field.lattice().size(), control_points.map(|n| 2 * n - 3));
        assert!(field.lattice().values().iter().all(|value| value.abs() < 3.0));
    }
    // A level without iterations passes its lattice on.
    let field = found(&voxels, Some(&mask), &Parameters { levels: vec![0, 2], ..Parameters::default() }).unwrap();
    assert_eq!((field.iterations(), field.convergence()[0]), (&[0, 2][..], 0.0));
}

#[test]
fn progress_is_told_and_cancelling_stops() {
    let Phantom { voxels, mask, .. } = phantom();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let control = Control::with_listener(move |stage, fraction| sink.lock().unwrap().push((stage, fraction)));
    log_field(&voxels, DIMS, SPACING_MM, Some(&mask), &Parameters { levels: vec![2, 2], ..Parameters::default() }, &control).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(stage, _)| *stage == "n4") && seen.is_sorted_by(|a, b| a.1 <= b.1));
    assert_eq!((seen.first(), seen.last()), (Some(&("n4", 0.0)), Some(&("n4", 1.0))));

    let control = Control::new();
    control.cancel();
    let mut corrected = voxels.clone();
    let error = correct(&mut corrected, DIMS, SPACING_MM, Some(&mask), &Parameters::default(), &control).unwrap_err();
    assert_eq!((error.kind(), corrected == voxels), (Kind::Cancelled, true));
}
