//! The jobs: each is one call of the library on plain voxels, with the parameters that `peers.py` gives to the other tools.

use smp::Result;
use smp::control::Control;
use smp::imaging::components::{Components, Connectivity};
use smp::imaging::filters::{blockwise, diffusion, gaussian, median, total_variation};
use smp::imaging::grid::AlignedGrid;
use smp::imaging::intensity::clahe;
use smp::imaging::normalize::{self, Over};
use smp::imaging::resample::{self, Interpolation};
use smp::imaging::{masks, n4, nlm};

/// Iterations of total variation.
const TV_ITERATIONS: usize = 30;
/// Standard deviation of the phantom's noise.
const SIGMA: f64 = 20.0;

/// What a job reads. Jobs that work in place write their result into the voxels.
#[derive(Clone)]
pub struct Data {
    /// Columns, rows, slices.
    pub dims: [usize; 3],
    /// Column fastest; empty for labelling.
    pub voxels: Vec<f32>,
    /// For labelling: 0 outside, 1 inside.
    pub binary: Vec<u8>,
    /// For N4: where voxels count.
    pub mask: Option<Vec<u8>>,
}

/// What a job yields.
pub enum Output {
    /// The voxels, changed.
    InPlace,
    /// A new volume.
    Volume(Vec<f32>),
    /// A mask.
    Mask(Vec<u8>),
    /// A map of labels and how many there are.
    Labels(Vec<u32>, usize),
    /// A number.
    Number(f64),
}

impl Output {
    /// One number of the result, the same that `peers.py` tells: mean, number of labels, or the number itself.
    pub fn number(&self, data: &Data) -> f64 {
        let mean = |voxels: &[f32]| voxels.iter().map(|value| f64::from(*value)).sum::<f64>() / voxels.len() as f64;
        match self {
            Output::InPlace => mean(&data.voxels),
            Output::Volume(voxels) => mean(voxels),
            Output::Mask(mask) => mask.iter().map(|value| u64::from(*value)).sum::<u64>() as f64 / mask.len() as f64,
            Output::Labels(map, count) => {
                assert_eq!(map.iter().max().copied().unwrap_or(0) as usize, *count, "labels are numbered without gaps");
                *count as f64
            }
            Output::Number(number) => *number,
        }
    }
}

/// Runs a job once.
///
/// # Panics
/// When there is no such job.
pub fn run(job: &str, data: &mut Data, control: &Control) -> Result<Output> {
    let (dims, spacing) = (data.dims, [1.0; 3]);
    let voxels = &mut data.voxels;
    let in_place = |()| Output::InPlace;
    match job {
        "n4-1" | "n4-20" | "n4-shrink4" | "n4-full" => {
            let fixed = |iterations| n4::Parameters { levels: vec![iterations], convergence_threshold: 0.0, ..n4::Parameters::default() };
            let parameters = match job {
                "n4-1" => fixed(1),
                "n4-20" => fixed(20),
                "n4-shrink4" => n4::Parameters { shrink: 4, ..n4::Parameters::default() },
                _ => n4::Parameters::default(),
            };
            n4::correct(voxels, dims, spacing, data.mask.as_deref(), &parameters, control).map(|_| Output::InPlace)
        }
        "nlm-b2" | "nlm-b3" | "nlm-b5" => {
            let block_radius = usize::from(job.as_bytes()[job.len() - 1] - b'0');
            let parameters = nlm::Parameters { patch_radius: 1, block_radius, sigma: Some(SIGMA), is_rician: true };
            nlm::denoise(voxels, dims, None, &parameters, control).map(|(volume, _)| Output::Volume(volume))
        }
        "blockwise" => {
            let parameters = blockwise::Parameters { patch_radius: 3, block_radius: 1, sigma: SIGMA, is_rician: true };
            blockwise::denoise(voxels, dims, None, &parameters, control).map(Output::Volume)
        }
        "gaussian" => gaussian::smooth(voxels, dims, [1.5; 3], control).map(in_place),
        "median" => median::filter(voxels, dims, [1; 3], control).map(Output::Volume),
        "gradient" | "curvature" => {
            let kind = if job == "gradient" { diffusion::Kind::Gradient } else { diffusion::Kind::Curvature };
            diffusion::diffuse(voxels, dims, spacing, &diffusion::Parameters::of(kind), control).map(in_place)
        }
        "tv" => {
            let parameters = total_variation::Parameters { weight: SIGMA, iterations: TV_ITERATIONS, tolerance: 0.0 };
            total_variation::denoise(voxels, dims, &parameters, control).map(|_| Output::InPlace)
        }
        "linear" | "bspline" => {
            let how = if job == "linear" { Interpolation::Linear } else { Interpolation::BSpline };
            resample::aligned(voxels, dims, &finer(dims)?, how, control).map(Output::Volume)
        }
        "zscore" => normalize::zscore(voxels, Over::All, 0).map(|_| Output::InPlace),
        "percentiles" => normalize::percentiles(voxels, &[1.0, 99.0]).map(|limits| Output::Number(limits.iter().sum())),
        "label-6" | "label-18" | "label-26" => {
            let neighbours = job["label-".len()..].parse().ok().and_then(Connectivity::from_neighbours);
            let found = Components::find(&data.binary, dims, neighbours.expect("6, 18 or 26"), |value| value != 0)?;
            Ok(Output::Labels(found.map()?, found.sizes().len()))
        }
        "otsu" => masks::otsu(voxels).map(|threshold| Output::Number(f64::from(threshold))),
        "foreground" => {
            let parameters = masks::Parameters { fill_slices: false, ..masks::Parameters::default() };
            masks::foreground(voxels, dims, spacing, &parameters, control).map(|found| Output::Mask(found.mask))
        }
        "clahe" => clahe::equalize_volume(voxels, dims, &clahe::Parameters::default(), control).map(in_place),
        _ => panic!("no job is called {job}"),
    }
}

/// The grid of two thirds of the spacing.
fn finer(dims: [usize; 3]) -> Result<AlignedGrid> {
    AlignedGrid::to_spacing(dims, [1.0; 3], [1.0 / 1.5; 3])
}

/// Bytes that any program moves between memory and processor when nothing larger than a cache stays there: what must be read and written,
/// once for each pass that cannot begin before the one before it has ended. `None` for jobs that compute more than they move.
pub fn bytes(job: &str, dims: [usize; 3]) -> Option<usize> {
    let count: usize = dims.iter().product();
    let finer: usize = finer(dims).ok()?.dims().iter().product();
    Some(match job {
        // Read and written in place.
        "gaussian" => 8 * count,
        // Three fields read and written, the volume read; the first iteration does nothing.
        "tv" => 28 * count * (TV_ITERATIONS - 1),
        "linear" => 4 * (count + finer),
        // Read; coefficients written there and read on the way back, which the result can be made on.
        "bspline" => 12 * count + 4 * finer,
        // Read for the statistics, then read and written.
        "zscore" => 12 * count,
        "percentiles" => 4 * count,
        // Read for the range, then for the histogram.
        "otsu" => 8 * count,
        // As Otsu; read once more, and the mask written.
        "foreground" => 13 * count,
        // A mask read, a map written.
        "label-6" | "label-18" | "label-26" => 5 * count,
        _ => return None,
    })
}
