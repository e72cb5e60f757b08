//! One operation on a volume or on the voxels of one channel.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::Step;
use super::operation::{NonLocalMeans, Operation, Region};
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::imaging::filters::{self, blockwise};
use crate::imaging::intensity::{clahe, matching, nyul, white_stripe, window};
use crate::imaging::normalize::Over;
use crate::imaging::{Volume, crop, masks, n4, nlm, noise, normalize, orient, resample};

/// What is told of a step: parameters and measured values.
pub(crate) type Told = Vec<(&'static str, f64)>;

/// Runs an operation on a volume and adds what ran to the steps.
pub(super) fn run(volume: &mut Volume, operation: &Operation, steps: &mut Vec<Step>, control: &Control) -> Result<()> {
    let started = Instant::now();
    let grid_step = |told: Told| Step { name: operation.name(), parameters: told, seconds: started.elapsed().as_secs_f64() };
    match operation {
        Operation::Resample { spacing_mm, interpolation, is_antialiased } => {
            let to = |volume: &Volume| match is_antialiased {
                true => resample::to_spacing_smoothed(volume, *spacing_mm, *interpolation, control),
                false => resample::to_spacing(volume, *spacing_mm, *interpolation, control),
            };
            if let Some(resampled) = to(volume)? {
                *volume = resampled;
                let mut told = vec![("spacing_mm", spacing_mm[0])];
                if spacing_mm.iter().any(|other| *other != spacing_mm[0]) {
                    told =
                        vec![("column_spacing_mm", spacing_mm[0]), ("row_spacing_mm", spacing_mm[1]), ("slice_spacing_mm", spacing_mm[2])];
                }
                steps.push(grid_step(told.into_iter().chain(shape(volume)).collect()));
            }
            Ok(())
        }
        Operation::Reorient(orientation) => {
            let turned = orient::reorient(volume, *orientation, control)?;
            // A volume that lies as it should is not touched, and nothing is recorded.
            if turned.geometry != volume.geometry {
                *volume = turned;
                steps.push(grid_step(shape(volume)));
            }
            Ok(())
        }
        Operation::Fit { shape: wanted, pad } => {
            let dims = volume.geometry.dims;
            if *wanted != dims {
                let lower = std::array::from_fn(|axis| {
                    let (n, side) = (dims[axis] as i64, wanted[axis] as i64);
                    if side > n { -((side - n) / 2) } else { n / 2 - side / 2 }
                });
                *volume = crop::window(volume, lower, *wanted, *pad, control)?;
                steps.push(grid_step(shape(volume).into_iter().chain([("pad_value", f64::from(*pad))]).collect()));
            }
            Ok(())
        }
        _ => for_each_channel(volume, operation, steps, control),
    }
}

fn shape(volume: &Volume) -> Told {
    let [columns, rows, slices] = volume.geometry.dims.map(|n| n as f64);
    vec![("columns", columns), ("rows", rows), ("slices", slices)]
}

/// Changes the voxels of each channel by itself; of several the step says which it was.
fn for_each_channel(volume: &mut Volume, operation: &Operation, steps: &mut Vec<Step>, control: &Control) -> Result<()> {
    let count = volume.channels.len();
    let (dims, spacing) = (volume.geometry.dims, volume.geometry.spacing_mm);
    let is_mr = volume.modality == "MR";
    // Clones share voxels: the study's own stay as they were, because `make_mut` copies when somebody else holds them.
    let voxels = Arc::make_mut(&mut volume.voxels);
    let size = voxels.len() / count.max(1);
    for (channel, voxels) in voxels.chunks_mut(size.max(1)).enumerate() {
        let started = Instant::now();
        let share: Range<f64> = channel as f64 / count as f64..(channel + 1) as f64 / count as f64;
        let part = control.within("preprocess", share.start, share.end);
        let mut told = match operation {
            operation if operation.is_intensity() => change_intensities(operation, voxels, dims, &part)?,
            operation => filter(operation, voxels, dims, spacing, is_mr, &part)?,
        };
        told.extend((count > 1).then_some(("channel", channel as f64)));
        steps.push(Step { name: operation.name(), parameters: told, seconds: started.elapsed().as_secs_f64() });
    }
    Ok(())
}

/// Bias and noise.
fn filter(operation: &Operation, voxels: &mut [f32], dims: [usize; 3], spacing: [f64; 3], is_mr: bool, control: &Control) -> Result<Told> {
    Ok(match operation {
        Operation::N4(parameters) => {
            let report = n4::correct(voxels, dims, spacing, None, parameters, control)?;
            vec![
                ("levels", report.iterations.len() as f64),
                ("iterations", report.iterations.iter().sum::<usize>() as f64),
                ("convergence", report.convergence.last().copied().unwrap_or_default()),
                ("shrink", parameters.shrink as f64),
                ("mask_voxels", report.mask_voxels as f64),
            ]
        }
        Operation::NonLocalMeans(parameters) => non_local_means(parameters, voxels, dims, is_mr, control)?,
        Operation::Gaussian { sigma_mm } => {
            filters::gaussian::smooth_mm(voxels, dims, spacing, [*sigma_mm; 3], control)?;
            vec![("sigma_mm", *sigma_mm)]
        }
        Operation::Median { radius } => {
            let filtered = filters::median::filter(voxels, dims, [*radius; 3], control)?;
            voxels.copy_from_slice(&filtered);
            vec![("radius", *radius as f64)]
        }
        Operation::Diffusion { parameters, is_step_limited } => {
            let mut parameters = *parameters;
            if *is_step_limited {
                // ITK's bound of stability; fine pixels, as X-ray detectors have, lie below its usual step.
                let per_mm: f64 = dims.iter().zip(spacing).filter(|(n, _)| **n > 1).map(|(_, spacing)| 1.0 / spacing).sum();
                parameters.time_step = parameters.time_step.min(0.5 / per_mm.max(1e-9));
            }
            filters::diffusion::diffuse(voxels, dims, spacing, &parameters, control)?;
            vec![("iterations", parameters.iterations as f64), ("conductance", parameters.conductance), ("time_step", parameters.time_step)]
        }
        Operation::TotalVariation(parameters) => {
            let limits = normalize::percentiles(voxels, &[0.5, 99.5])?;
            let weight = parameters.weight * (limits[1] - limits[0]);
            // A volume of one value has no variation to take away.
            let iterations = if weight > 0.0 {
                let own = filters::total_variation::Parameters { weight, ..*parameters };
                filters::total_variation::denoise(voxels, dims, &own, control)?
            } else {
                0
            };
            vec![("weight", parameters.weight), ("weight_in_units", weight), ("iterations", iterations as f64)]
        }
        _ => return Err(Error::new(Kind::Internal, "an operation that nobody runs")),
    })
}

fn non_local_means(parameters: &NonLocalMeans, voxels: &mut [f32], dims: [usize; 3], is_mr: bool, control: &Control) -> Result<Told> {
    if normalize::range(voxels).0 < 0.0 {
        return Err(Error::new(Kind::InvalidArgument, "nlm is a filter for magnitudes, and voxels are negative")
            .with_hint("put nlm before the steps that make negative voxels, or choose another filter"));
    }
    let is_rician = parameters.is_rician.unwrap_or(is_mr);
    let (patch_radius, block_radius) = (parameters.patch_radius, parameters.block_radius);
    let sigma = if parameters.is_blockwise {
        let sigma = match parameters.sigma {
            Some(sigma) => sigma,
            None => noise::estimate_sigma(voxels, dims, noise::Coils::Uncorrected, noise::Over::All)?,
        };
        // A volume without noise stays as it is.
        if sigma > 0.0 {
            let own = blockwise::Parameters { patch_radius, block_radius, sigma, is_rician };
            let denoised = blockwise::denoise(voxels, dims, None, &own, control)?;
            voxels.copy_from_slice(&denoised);
        }
        sigma
    } else {
        let own = nlm::Parameters { patch_radius, block_radius, sigma: parameters.sigma, is_rician };
        let (denoised, report) = nlm::denoise(voxels, dims, None, &own, control)?;
        voxels.copy_from_slice(&denoised);
        report.sigma
    };
    let flag = |is: bool| f64::from(u8::from(is));
    Ok(vec![
        ("sigma", sigma),
        ("patch_radius", patch_radius as f64),
        ("block_radius", block_radius as f64),
        ("rician", flag(is_rician)),
        ("blockwise", flag(parameters.is_blockwise)),
    ])
}

/// Changes intensities of one channel ([`Operation::is_intensity`]).
///
/// # Errors
/// Those of the operation; [`Kind::Internal`] for another operation.
pub(crate) fn change_intensities(operation: &Operation, voxels: &mut [f32], dims: [usize; 3], control: &Control) -> Result<Told> {
    control.check()?;
    let mut mask = Vec::new();
    let mut over = |region: Region, voxels: &[f32]| -> Result<()> {
        if region == Region::Foreground {
            mask = masks::foreground(voxels, dims, [1.0; 3], &masks::Parameters::default(), control)?.mask;
        }
        Ok(())
    };
    fn of(region: Region, mask: &[u8]) -> Over<'_> {
        match region {
            Region::All => Over::All,
            Region::Nonzero => Over::Nonzero,
            Region::Foreground => Over::Mask(mask),
        }
    }
    Ok(match operation {
        Operation::PercentileClip { lower, upper, over: region } => {
            over(*region, voxels)?;
            let limits = normalize::percentiles_over(voxels, of(*region, &mask), &[*lower, *upper])?;
            let [low, high] = [limits[0], limits[1]];
            normalize::clamp(voxels, low as f32, high as f32);
            vec![("lower_percentile", *lower), ("upper_percentile", *upper), ("lower_value", low), ("upper_value", high)]
        }
        Operation::Zscore { over: region, ddof } => {
            over(*region, voxels)?;
            let moments = normalize::zscore(voxels, of(*region, &mask), *ddof)?;
            vec![("mean", moments.mean), ("std", moments.std)]
        }
        Operation::Minmax { low, high } => {
            let (smallest, largest) = normalize::minmax(voxels, *low, *high)?;
            vec![("low", f64::from(smallest)), ("high", f64::from(largest))]
        }
        Operation::Clamp { low, high } => {
            normalize::clamp(voxels, *low as f32, *high as f32);
            vec![("low", *low), ("high", *high)]
        }
        Operation::Affine { scale, shift } => {
            normalize::affine(voxels, *scale, *shift);
            vec![("scale", *scale), ("shift", *shift)]
        }
        Operation::Window(window) => {
            window::apply(voxels, window, control)?;
            vec![("center", window.center), ("width", window.width), ("low", window.low), ("high", window.high)]
        }
        Operation::Nyul(landmarks) => {
            nyul::apply(voxels, None, landmarks, control)?;
            vec![("landmarks", landmarks.values.len() as f64)]
        }
        Operation::WhiteStripe(parameters) => {
            let stripe = white_stripe::apply(voxels, None, parameters, control)?;
            vec![("peak", stripe.peak), ("mean", stripe.mean), ("std", stripe.std), ("stripe_voxels", stripe.count as f64)]
        }
        Operation::MatchHistogram(reference) => {
            matching::apply(voxels, reference, control)?;
            vec![("quantiles", reference.quantiles.len() as f64)]
        }
        Operation::Clahe { parameters, is_3d } => {
            match is_3d {
                true => clahe::equalize_volume(voxels, dims, parameters, control)?,
                false => clahe::equalize_slices(voxels, dims, parameters, control)?,
            }
            vec![("clip_limit", parameters.clip_limit), ("bins", parameters.bins as f64), ("volume", f64::from(u8::from(*is_3d)))]
        }
        _ => return Err(Error::new(Kind::Internal, "an operation that changes more than intensities")),
    })
}
