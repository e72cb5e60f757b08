//! Gaussian smoothing: every voxel becomes a mean of those around it, weighted by a Gaussian, one axis after the other.
//!
//! Conventions are those of `scipy.ndimage.gaussian_filter` with its defaults. The kernel is exp(-x² / (2 sigma²)) at whole voxels out to
//! floor(4 sigma + 0.5), divided by its sum. Beyond its faces the volume is mirrored with the outermost voxel repeated (scipy's mode
//! `reflect`: c b a | a b c | c b a), as often as the kernel needs, so an axis may be shorter than the kernel.
//!
//! Weights are computed in float64 and rounded once; the sums are float32 and come within a few units in the last place of scipy's.

use rayon::prelude::*;

use super::{Progress, check_spacing, check_volume, pieces, wrong};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};

/// Largest standard deviation, in voxels. Smoothing with more is a mean over the whole image.
pub const LARGEST_SIGMA: f64 = 256.0;
/// Kernels reach so many standard deviations, as scipy's do by default.
const TRUNCATE: f64 = 4.0;
/// Floats of a piece with its surroundings: half of a second-level cache of 512 KiB.
const PIECE: usize = 1 << 16;
/// Fewest columns of a piece, so that rows are read in whole cache lines and vectors.
const NARROWEST: usize = 32;
/// Columns summed side by side in registers.
const LANES: usize = 32;

/// Smooths a volume in place; `sigma_mm` is the standard deviation along columns, rows and slices in mm, 0 for none along that axis.
///
/// # Errors
/// As [`smooth`]; [`Kind::InvalidArgument`] also for a spacing outside 1e-6 to 1e6 mm.
pub fn smooth_mm(voxels: &mut [f32], dims: [usize; 3], spacing_mm: [f64; 3], sigma_mm: [f64; 3], control: &Control) -> Result<()> {
    check_spacing(spacing_mm)?;
    smooth(voxels, dims, std::array::from_fn(|axis| sigma_mm[axis] / spacing_mm[axis]), control)
}

/// Smooths a volume in place; `sigma_voxels` is the standard deviation along columns, rows and slices in voxels, 0 for none along that axis.
///
/// Takes half a megabyte per thread. After a cancel the voxels are smoothed in part.
///
/// # Errors
/// [`Kind::VolumeInvalid`] when voxels are NaN or infinite, do not fill the dimensions, or are so large (1e38) that sums of two overflow;
/// [`Kind::InvalidArgument`] for a sigma below 0, above [`LARGEST_SIGMA`] or not a number; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn smooth(voxels: &mut [f32], dims: [usize; 3], sigma_voxels: [f64; 3], control: &Control) -> Result<()> {
    if !sigma_voxels.iter().all(|sigma| (0.0..=LARGEST_SIGMA).contains(sigma)) {
        return wrong("a sigma lies outside 0 to 256 voxels");
    }
    check_volume(voxels, dims)?;
    let (low, high) = crate::imaging::normalize::range(voxels);
    if high.max(-low) > 1e38 {
        return Err(Error::new(Kind::VolumeInvalid, "a voxel is larger than 1e38"));
    }
    // Along an axis of one voxel the mean of its copies is the voxel.
    let kernels: [Vec<f32>; 3] = std::array::from_fn(|axis| if dims[axis] > 1 { kernel(sigma_voxels[axis]) } else { vec![1.0] });
    let axes: Vec<usize> = (0..3).filter(|axis| kernels[*axis].len() > 1).collect();
    control.check()?;
    for (done, axis) in axes.iter().enumerate() {
        let part = control.within("preprocess", done as f64 / axes.len() as f64, (done + 1) as f64 / axes.len() as f64);
        if *axis == 0 { along_rows(voxels, dims, &kernels[0], &part)? } else { across_rows(voxels, dims, *axis, &kernels[*axis], &part)? }
    }
    control.progress("preprocess", 1.0);
    Ok(())
}

/// Half of a kernel: the weights at 0, 1, 2 … voxels.
fn kernel(sigma: f64) -> Vec<f32> {
    // scipy leaves an axis alone when sigma is not above 1e-15.
    if sigma <= 1e-15 {
        return vec![1.0];
    }
    let radius = (TRUNCATE * sigma + 0.5).floor() as usize;
    let weights: Vec<f64> = (0..=radius).map(|x| (-0.5 * (x as f64 / sigma).powi(2)).exp()).collect();
    let sum = weights.iter().skip(1).sum::<f64>() * 2.0 + weights.first().copied().unwrap_or(1.0);
    weights.iter().map(|weight| (weight / sum) as f32).collect()
}

/// The place within 0..count that a place outside is a copy of: mirrored with the edge repeated, with period 2 count.
fn mirrored(place: isize, count: usize) -> usize {
    let period = 2 * count as isize;
    let place = place.rem_euclid(period);
    (if place < count as isize { place } else { period - 1 - place }) as usize
}

/// Smooths along x: neighbours of a row's voxels are the row itself, shifted.
fn along_rows(voxels: &mut [f32], dims: [usize; 3], kernel: &[f32], control: &Control) -> Result<()> {
    let (width, radius) = (dims[0], kernel.len() - 1);
    let rows = (PIECE / width).max(1);
    let progress = Progress::new(control, voxels.len().div_ceil(rows * width))?;
    voxels.par_chunks_mut(rows * width).try_for_each_init(Vec::new, |padded: &mut Vec<f32>, block| {
        reserve(padded, width + 2 * radius)?;
        for row in block.chunks_exact_mut(width) {
            padded.clear();
            padded.extend((1..=radius).rev().map(|x| row[mirrored(-(x as isize), width)]));
            padded.extend_from_slice(row);
            padded.extend((0..radius).map(|x| row[mirrored((width + x) as isize, width)]));
            weigh(row, padded, radius, 1, kernel);
        }
        progress.step()
    })
}

/// Smooths along y or z: neighbours of a row's voxels are other rows.
fn across_rows(voxels: &mut [f32], dims: [usize; 3], axis: usize, kernel: &[f32], control: &Control) -> Result<()> {
    let (radius, count) = (kernel.len() - 1, dims[axis]);
    // Narrow enough for the lines that a piece needs to stay in the cache.
    let width = (PIECE / (count + 2 * radius) / NARROWEST * NARROWEST).clamp(NARROWEST, dims[0].max(NARROWEST));
    let across = dims[0].div_ceil(width);
    let others = dims[3 - axis];
    let parts = pieces(voxels, dims, width, others * across, |[x, y, z]| (if axis == 1 { z } else { y }) * across + x / width)?;
    let progress = Progress::new(control, parts.len())?;
    parts.into_par_iter().try_for_each_init(Vec::new, |padded: &mut Vec<f32>, mut rows| {
        let width = rows.first().map_or(0, |row| row.len());
        reserve(padded, (count + 2 * radius) * width)?;
        padded.clear();
        for place in -(radius as isize)..(count + radius) as isize {
            padded.extend_from_slice(rows.get(mirrored(place, count)).map_or(&[][..], |row| row));
        }
        for (index, row) in rows.iter_mut().enumerate() {
            weigh(row, padded.get(index * width..).unwrap_or_default(), radius * width, width, kernel);
        }
        progress.step()
    })
}

/// Room for so many floats.
fn reserve(padded: &mut Vec<f32>, count: usize) -> Result<()> {
    padded.clear();
    padded.try_reserve(count).map_err(|_| Error::new(Kind::OutOfMemory, "no memory for a row's surroundings").at(Stage::Imaging))
}

/// out[i] = the sum over k of kernel[|k|] * line[centre + i + k * step].
#[inline(never)]
fn weigh(out: &mut [f32], line: &[f32], centre: usize, step: usize, kernel: &[f32]) {
    let mut blocks = out.chunks_exact_mut(LANES);
    let mut start = centre;
    for block in &mut blocks {
        let mut sums = [0.0f32; LANES];
        block_of(&mut sums, line, start, step, kernel);
        block.copy_from_slice(&sums);
        start += LANES;
    }
    for out in blocks.into_remainder() {
        let mut sum = [0.0f32; 1];
        block_of(&mut sum, line, start, step, kernel);
        *out = sum[0];
        start += 1;
    }
}

/// The sums of some columns. The outermost weights come first, so that small terms are added to small sums.
#[inline(always)]
fn block_of<const N: usize>(sums: &mut [f32; N], line: &[f32], start: usize, step: usize, kernel: &[f32]) {
    for (k, weight) in kernel.iter().enumerate().skip(1).rev() {
        let before = line.get(start - k * step..).and_then(|line| line.first_chunk::<N>());
        let after = line.get(start + k * step..).and_then(|line| line.first_chunk::<N>());
        if let (Some(before), Some(after)) = (before, after) {
            for i in 0..N {
                sums[i] += weight * (before[i] + after[i]);
            }
        }
    }
    if let (Some(weight), Some(here)) = (kernel.first(), line.get(start..).and_then(|line| line.first_chunk::<N>())) {
        for i in 0..N {
            sums[i] += weight * here[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_outside_are_mirrored_with_the_edge_repeated() {
        let places: Vec<usize> = (-5..8).map(|place| mirrored(place, 3)).collect();
        assert_eq!(places, [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]);
        assert!((-9..9).all(|place| mirrored(place, 1) == 0));
    }

    #[test]
    fn a_kernel_adds_up_to_one_and_reaches_four_sigma() {
        for (sigma, radius) in [(0.0, 0), (0.1, 0), (0.125, 1), (0.5, 2), (1.0, 4), (2.6, 10), (256.0, 1024)] {
            let weights = kernel(sigma);
            let sum: f64 = weights.iter().skip(1).map(|w| 2.0 * f64::from(*w)).sum::<f64>() + f64::from(weights[0]);
            assert_eq!(weights.len(), radius + 1);
            assert!((sum - 1.0).abs() < 1e-6, "{sigma}: {sum}");
        }
    }
}
