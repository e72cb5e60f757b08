//! How strong a volume's noise is.
//!
//! Each voxel is compared with the mean of its six neighbours; where the signal is smooth, what remains is noise. The method of P. Coupé
//! et al. (IEEE TMI 27(4), 2008, section III.B) as `dipy.denoise.noise_estimate.estimate_sigma` computes it: sigma² is the mean of
//! 6/7 (v - mean of the neighbours)², where 6/7 makes up for the neighbours' own noise. Edges count as noise, so a structured volume yields
//! too much: 10 to 30 % for a head.

use rayon::prelude::*;

use crate::error::{Error, Kind, Result, Stage};

/// What the noise of a magnitude image is corrected for: in air, the magnitude's deviation is less than that of the receivers' own noise.
///
/// The factors are those of C. G. Koay and P. J. Basser (J. Magn. Reson. 179, 2006, equation 18 at theta 0). They hold for volumes that are
/// mostly air.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coils {
    /// No correction: Gaussian noise, or volumes that are mostly signal.
    Uncorrected,
    /// Receivers whose signals were combined: 1 (as for SENSE), 4, 6, 8, 12, 16, 20, 24, 32 or 64.
    Combined(usize),
}

/// Which voxels count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// All.
    All,
    /// Those that are not 0: some scanners set the air to 0.
    Nonzero,
}

/// Standard deviation of the noise of a volume (column fastest, then row, then slice), in the voxels' unit. 0 for a constant volume.
///
/// Beyond its faces the volume is mirrored, the outermost voxel repeated. Sums are float64, slice by slice, and the slices are added in order:
/// the same bits for any number of threads.
///
/// # Errors
/// [`Kind::VolumeInvalid`] when the voxels do not fill the dimensions, or are NaN or infinite; [`Kind::MaskEmpty`] when no voxel counts;
/// [`Kind::InvalidArgument`] for a number of coils without a factor.
pub fn estimate_sigma(voxels: &[f32], dims: [usize; 3], coils: Coils, over: Over) -> Result<f64> {
    let factor = factor(coils)?;
    let [width, height, depth] = dims;
    let count = dims.iter().try_fold(1usize, |count, n| count.checked_mul(*n));
    if count != Some(voxels.len()) || voxels.is_empty() {
        return Err(Error::new(Kind::VolumeInvalid, "the voxels do not fill the dimensions"));
    }
    let row = |y: usize, z: usize| &voxels[(z * height + y) * width..][..width];
    let slice = |z: usize| -> (f64, usize) {
        let (before, after) = (z.saturating_sub(1), (z + 1).min(depth - 1));
        let mut sums = (0.0, 0);
        for y in 0..height {
            let around = [row(y.saturating_sub(1), z), row((y + 1).min(height - 1), z), row(y, before), row(y, after)];
            let part = row_sum(row(y, z), around, over);
            sums = (sums.0 + part.0, sums.1 + part.1);
        }
        sums
    };
    let slices: Vec<(f64, usize)> = (0..depth).into_par_iter().map(slice).collect();
    let (sum, counted) = slices.iter().fold((0.0, 0), |all, part| (all.0 + part.0, all.1 + part.1));
    if !sum.is_finite() {
        return Err(Error::new(Kind::VolumeInvalid, "voxels are nan or infinite"));
    }
    if counted == 0 {
        return Err(Error::new(Kind::MaskEmpty, "no voxel to estimate the noise from"));
    }
    Ok((6.0 / 7.0 * sum / counted as f64 / factor).sqrt())
}

/// Sum of the squares of a row's voxels less the means of their neighbours, and how many count.
fn row_sum(row: &[f32], around: [&[f32]; 4], over: Over) -> (f64, usize) {
    let [a, b, c, d] = around;
    let last = row.len().saturating_sub(1);
    let square = |x: usize, left: f32, right: f32| {
        let sum = f64::from(left) + f64::from(right) + f64::from(a[x]) + f64::from(b[x]) + f64::from(c[x]) + f64::from(d[x]);
        let rest = f64::from(row[x]) - sum / 6.0;
        rest * rest
    };
    let counts = |x: usize| over == Over::All || row[x] != 0.0;
    let mut sums = (0.0, 0);
    for x in 0..row.len() {
        if counts(x) {
            sums = (sums.0 + square(x, row[x.saturating_sub(1)], row[(x + 1).min(last)]), sums.1 + 1);
        }
    }
    sums
}

fn factor(coils: Coils) -> Result<f64> {
    Ok(match coils {
        Coils::Uncorrected => 1.0,
        Coils::Combined(1) => 0.429_203_673_205_103_66,
        Coils::Combined(4) => 0.483_494_139_360_360_9,
        Coils::Combined(6) => 0.489_175_946_854_826_9,
        Coils::Combined(8) => 0.491_954_201_358_941_75,
        Coils::Combined(12) => 0.494_686_248_254_126_3,
        Coils::Combined(16) => 0.496_033_990_812_236_4,
        Coils::Combined(20) => 0.496_836_582_371_855_7,
        Coils::Combined(24) => 0.497_369_076_508_256_57,
        Coils::Combined(32) => 0.498_031_770_525_301_45,
        Coils::Combined(64) => 0.499_019_641_762_359_36,
        Coils::Combined(_) => {
            return Err(Error::new(Kind::InvalidArgument, "no factor is known for this number of coils").at(Stage::Imaging));
        }
    })
}
