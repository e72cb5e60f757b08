//! The kernels of imaging alone, on all processors: `cargo bench`, or `cargo bench -- NAME` for some; two to three minutes.
//!
//! A phantom of 128 x 128 x 128 voxels, made here: an ellipsoid with a smaller one inside, a smooth bias field and Rician noise. Criterion
//! compares with the run before. For the comparison with other tools see `run.py`.

// What a result says is the program's business.
#[allow(dead_code)]
#[path = "../src/jobs.rs"]
mod jobs;

use std::time::Duration;

use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use jobs::{Data, bytes, run};
use smp::control::Control;

/// Voxels along each axis.
const SIDE: usize = 128;
/// What a voxel above it belongs to for labelling.
const THRESHOLD: f32 = 600.0;
const JOBS: [&str; 19] = [
    "n4-1",
    "nlm-b2",
    "nlm-b3",
    "blockwise",
    "linear",
    "bspline",
    "zscore",
    "percentiles",
    "label-6",
    "label-18",
    "label-26",
    "median",
    "gaussian",
    "gradient",
    "curvature",
    "tv",
    "clahe",
    "otsu",
    "foreground",
];

/// Numbers of the normal distribution, nearly: sums of twelve that are equally likely, from a generator of Lehmer's kind.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        let one = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 40) as f32 / (1u64 << 24) as f32
        };
        (0..12).map(|_| one(&mut self.0)).sum::<f32>() - 6.0
    }
}

fn phantom() -> Data {
    let mut noise = Noise(1);
    let (mut voxels, mut mask) = (Vec::new(), Vec::new());
    let place = |index: usize| (index as f32 + 0.5) / SIDE as f32 * 2.0 - 1.0;
    for index in 0..SIDE.pow(3) {
        let [x, y, z] = [index % SIDE, index / SIDE % SIDE, index / SIDE / SIDE].map(place);
        let radius = ((x / 0.7).powi(2) + (y / 0.9).powi(2) + (z / 0.8).powi(2)).sqrt();
        let folds = 0.1 * (12.0 * x).sin() * (14.0 * y).sin() * (10.0 * z).sin();
        let tissue = match radius {
            radius if radius > 1.0 => 0.0,
            radius if radius > 0.7 + folds => 600.0,
            radius if radius > 0.25 => 800.0,
            _ => 150.0,
        };
        let bias = (0.3 * x - 0.2 * y * y + 0.2 * z * x).exp();
        voxels.push((tissue * bias + 20.0 * noise.next()).hypot(20.0 * noise.next()));
        mask.push(u8::from(radius <= 1.0));
    }
    let binary = voxels.iter().map(|value| u8::from(*value > THRESHOLD)).collect();
    Data { dims: [SIDE; 3], voxels, binary, mask: Some(mask) }
}

fn kernels(criterion: &mut Criterion) {
    let (data, control) = (phantom(), Control::new());
    let mut group = criterion.benchmark_group("kernels");
    group.sampling_mode(SamplingMode::Flat);
    for job in JOBS {
        let count = data.voxels.len() as u64;
        group.throughput(bytes(job, data.dims).map_or(Throughput::Elements(count), |bytes| Throughput::Bytes(bytes as u64)));
        group.bench_function(job, |bencher| {
            bencher.iter_batched_ref(|| data.clone(), |data| run(job, data, &control).unwrap(), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group! {
    name = all;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = kernels
}
criterion_main!(all);
