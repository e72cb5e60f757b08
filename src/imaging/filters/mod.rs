//! Denoising filters beside non-local means ([`crate::imaging::nlm`] in the library), for volumes of any shape, single slices among them.
//!
//! | filter | keeps edges | parameters in | source | agrees with |
//! |---|---|---|---|---|
//! | [`gaussian`] | no | mm or voxels | separable Gaussian, cut off at 4 sigma | scipy.ndimage.gaussian_filter |
//! | [`median`] | yes | voxels | J. W. Tukey, Exploratory Data Analysis, 1977 | SimpleITK.Median |
//! | [`diffusion`], gradient | yes | mm | P. Perona and J. Malik, IEEE TPAMI 12(7), 1990 | SimpleITK.GradientAnisotropicDiffusion |
//! | [`diffusion`], curvature | yes | mm | R. Whitaker and X. Xue, ICIP 2001 | SimpleITK.CurvatureAnisotropicDiffusion |
//! | [`total_variation`] | yes | voxels | L. Rudin, S. Osher and E. Fatemi, Physica D 60, 1992; A. Chambolle, JMIV 20, 2004 | skimage.restoration.denoise_tv_chambolle |
//! | [`blockwise`] | yes | voxels | P. Coupé et al., IEEE TMI 27(4), 2008; J. V. Manjón et al., JMRI 31(1), 2010 | dipy.denoise.nlmeans, method blockwise |
//!
//! All take float32 voxels with the column fastest, then the row, then the slice; all work in float32 except for sums over a volume, which
//! are float64 over fixed pieces in a fixed order. Results are the same bits for any number of threads. Progress is that of the stage
//! "preprocess". A volume is judged before it is touched: one with NaN or infinite voxels, or that does not fill its dimensions, is refused
//! as [`Kind::VolumeInvalid`], a parameter outside its range as [`Kind::InvalidArgument`].

pub mod blockwise;
pub mod diffusion;
pub mod gaussian;
pub mod median;
pub mod total_variation;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::normalize;
use crate::memory;

/// Refuses a volume that is not finite or does not fill its dimensions.
fn check_volume(voxels: &[f32], dims: [usize; 3]) -> Result<()> {
    let count = dims.iter().try_fold(1usize, |count, n| count.checked_mul(*n));
    if count != Some(voxels.len()) {
        return Err(Error::new(Kind::VolumeInvalid, "the voxels do not fill the dimensions"));
    }
    normalize::check_finite(voxels)
}

/// Refuses spacings that are not lengths.
fn check_spacing(spacing_mm: [f64; 3]) -> Result<()> {
    // Far wider than any scanner's: these bounds keep squares and reciprocals finite.
    if spacing_mm.iter().all(|spacing| (1e-6..=1e6).contains(spacing)) { Ok(()) } else { wrong("a spacing lies outside 1e-6 to 1e6 mm") }
}

fn wrong<T>(detail: &'static str) -> Result<T> {
    Err(Error::new(Kind::InvalidArgument, detail).at(Stage::Imaging))
}

/// A volume of zeros.
fn zeros(count: usize) -> Result<Vec<f32>> {
    memory::zeros(count).ok_or_else(|| {
        let detail = format!("{} MiB for a volume", count.saturating_mul(size_of::<f32>()) >> 20);
        Error::new(Kind::OutOfMemory, detail).at(Stage::Imaging)
    })
}

/// A power of two that brings volumes of extreme magnitude near 1, so that squares neither overflow nor vanish; 1 for all others.
/// Multiplying by it and by its reciprocal is exact.
fn scale_of(voxels: &[f32]) -> f32 {
    let (low, high) = normalize::range(voxels);
    let largest = f64::from(high.max(-low));
    if largest == 0.0 || (1e-3..=1e9).contains(&largest) {
        return 1.0;
    }
    // Within 2^-120 to 2^120 the reciprocal is an ordinary float too.
    (-largest.log2().floor().clamp(-120.0, 120.0)).exp2() as f32
}

/// 2^y for y up to 0; relative error below 4e-6, and 0 is not reached (2^-60 is the least).
#[inline(always)]
fn exp2(y: f32) -> f32 {
    // Adding this rounds to a whole number and leaves it in the lowest bits (1.5 * 2^23).
    const ROUNDER: f32 = 12_582_912.0;
    // 2^f for f in -0.5..=0.5, interpolated at Chebyshev's nodes.
    const POWERS: [f32; 5] = [1.0, 0.693_121, 0.240_223_5, 0.055_921_976, 0.009_666_368];
    let y = if y < -60.0 { -60.0 } else { y };
    let shifted = y + ROUNDER;
    let f = y - (shifted - ROUNDER);
    let square = f * f;
    let power = (POWERS[0] + f * POWERS[1]) + square * ((POWERS[2] + f * POWERS[3]) + square * POWERS[4]);
    power * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// Sum of a short row: float32 in sixteen chains over 256 voxels, float64 beyond.
#[inline(never)]
fn sum_of(row: &[f32]) -> f64 {
    row.chunks(256)
        .map(|part| {
            let mut sums = [0.0f32; 16];
            let lines = part.chunks_exact(16);
            let rest: f64 = lines.remainder().iter().map(|value| f64::from(*value)).sum();
            lines.for_each(|line| sums.iter_mut().zip(line).for_each(|(sum, value)| *sum += value));
            sums.iter().map(|sum| f64::from(*sum)).sum::<f64>() + rest
        })
        .sum()
}

/// Cuts a volume's rows into pieces of a width and gives each group its own: `group` names the group of the piece that begins at column x
/// of row y in slice z. Within a group, pieces stand in the order of the volume.
fn pieces(
    voxels: &mut [f32],
    dims: [usize; 3],
    width: usize,
    groups: usize,
    group: impl Fn([usize; 3]) -> usize,
) -> Result<Vec<Vec<&mut [f32]>>> {
    let count = dims[1] * dims[2] * dims[0].div_ceil(width) / groups.max(1) + 1;
    let mut parts: Vec<Vec<&mut [f32]>> = Vec::new();
    let short = |_| Error::new(Kind::OutOfMemory, "no memory for a list of rows").at(Stage::Imaging);
    parts.try_reserve_exact(groups).map_err(short)?;
    for _ in 0..groups {
        let mut part = Vec::new();
        part.try_reserve(count).map_err(short)?;
        parts.push(part);
    }
    for (line, row) in voxels.chunks_exact_mut(dims[0]).enumerate() {
        for (index, piece) in row.chunks_mut(width).enumerate() {
            if let Some(part) = parts.get_mut(group([index * width, line % dims[1], line / dims[1]])) {
                part.push(piece);
            }
        }
    }
    Ok(parts)
}

/// Counts finished pieces of work and tells of them.
struct Progress<'a> {
    control: &'a Control,
    done: AtomicUsize,
    total: usize,
}

impl<'a> Progress<'a> {
    fn new(control: &'a Control, total: usize) -> Result<Progress<'a>> {
        control.check()?;
        control.progress("preprocess", 0.0);
        Ok(Progress { control, done: AtomicUsize::new(0), total: total.max(1) })
    }

    /// One piece is done; fails when somebody asked the work to stop.
    fn step(&self) -> Result<()> {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        self.control.progress("preprocess", done as f64 / self.total as f64);
        self.control.check()
    }
}
