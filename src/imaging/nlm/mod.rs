//! Non-local means: every voxel becomes a mean of those nearby whose surroundings look like its own, so that noise goes and edges stay.
//!
//! The voxelwise method with dipy's conventions, those of `dipy.denoise.nlmeans.nlmeans(method="classic")`, after
//!
//! * P. Coupé et al., An optimized blockwise nonlocal means denoising filter for 3-D magnetic resonance images, IEEE TMI 27(4), 2008;
//! * M. Descoteaux et al., Impact of Rician adapted non-local means filtering on HARDI, MICCAI 2008.
//!
//! With patch radius P and block radius B, a voxel v is compared with the (2 (B - P) + 1)³ voxels u around it. The weight of u is
//! exp(-d / (sqrt(2) sigma²)), where d is the mean of the squared differences of the (2 P + 1)³ voxels around v and around u; v itself has
//! weight 1. The result is the root of the weighted mean of the squares u², from which 2 sigma² is taken first when the noise is Rician (the
//! mean square of a magnitude is the signal's square plus 2 sigma²); what falls below 0 becomes 0. Beyond its faces the volume is mirrored in
//! its outermost voxels. Voxels outside the mask become 0; as neighbours they count like all others.
//!
//! Because of the root the result is never negative, Rician or not: this is a filter for magnitude images, not for Hounsfield units.
//!
//! dipy computes in float64, this module in float32; the tests allow 0.05 on a scale of 1000. Results are the same bits for any number of
//! threads and with any instruction set, and a voxel's value does not depend on the mask that it lies in.

mod plan;
mod rows;
#[cfg(test)]
mod tests;
mod tile;

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::{noise, normalize};
use crate::memory;
use plan::Plan;
use tile::Scratch;

/// Largest block radius. A window of 33³ voxels takes 200 times as long as the default; a larger one is a mistake.
const LARGEST_BLOCK: usize = 16;

/// What the result depends on, besides the voxels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// P: patches have 2 P + 1 voxels along each axis.
    pub patch_radius: usize,
    /// B: how far from a voxel the patches reach that its own is compared with, from P to 16. All three dimensions must be larger.
    pub block_radius: usize,
    /// Standard deviation of the noise, in the voxels' unit, above 0. `None`: as [`noise::estimate_sigma`] finds it over all voxels without
    /// a correction for coils.
    pub sigma: Option<f64>,
    /// Whether the noise is that of magnitudes (MR) and its bias is to be taken away, or Gaussian.
    pub is_rician: bool,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters { patch_radius: 1, block_radius: 3, sigma: None, is_rician: false }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Standard deviation of the noise that was used, in the voxels' unit; 0 when it was estimated and the volume has none.
    pub sigma: f64,
}

/// A volume (column fastest, then row, then slice) without its noise. Voxels where the mask is 0 become 0. Progress is that of the stage
/// "denoise".
///
/// Takes the memory of the result and one to two megabytes per thread, up to six for the largest blocks. A volume whose noise is estimated
/// as 0 is returned as it is.
///
/// # Errors
/// [`Kind::VolumeInvalid`] when voxels are NaN or infinite, or do not fill the dimensions; [`Kind::MaskEmpty`];
/// [`Kind::InvalidArgument`] for a sigma that is not above 0 and finite, radii outside their range, a dimension not above the block radius
/// (so for single slices), or a mask of another size; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn denoise(
    voxels: &[f32],
    dims: [usize; 3],
    mask: Option<&[u8]>,
    parameters: &Parameters,
    control: &Control,
) -> Result<(Vec<f32>, Report)> {
    check(voxels, dims, mask, parameters)?;
    control.check()?;
    control.progress("denoise", 0.0);
    let sigma = match parameters.sigma {
        Some(sigma) => sigma,
        None => noise::estimate_sigma(voxels, dims, noise::Coils::Uncorrected, noise::Over::All)?,
    };
    let mut out = memory::zeros(voxels.len()).ok_or_else(|| {
        Error::new(Kind::OutOfMemory, format!("{} MiB for a volume", voxels.len().saturating_mul(size_of::<f32>()) >> 20))
            .at(Stage::Imaging)
    })?;
    if sigma > 0.0 {
        let (low, high) = normalize::range(voxels);
        let search = parameters.block_radius - parameters.patch_radius;
        let plan = Plan::new(dims, parameters.patch_radius, search, sigma, parameters.is_rician, high.max(-low));
        by_tiles(&plan, voxels, mask, &mut out, control)?;
    } else {
        for (index, (value, voxel)) in out.iter_mut().zip(voxels).enumerate() {
            *value = if mask.is_none_or(|mask| mask[index] != 0) { *voxel } else { 0.0 };
        }
    }
    control.progress("denoise", 1.0);
    Ok((out, Report { sigma }))
}

fn check(voxels: &[f32], dims: [usize; 3], mask: Option<&[u8]>, parameters: &Parameters) -> Result<()> {
    let wrong = |detail: &'static str| Err(Error::new(Kind::InvalidArgument, detail).at(Stage::Imaging));
    let (patch, block) = (parameters.patch_radius, parameters.block_radius);
    let count = dims.iter().try_fold(1usize, |count, n| count.checked_mul(*n));
    if count != Some(voxels.len()) {
        return Err(Error::new(Kind::VolumeInvalid, "the voxels do not fill the dimensions"));
    }
    normalize::check_finite(voxels)?;
    if block > LARGEST_BLOCK || patch > block {
        return wrong("the block radius lies outside the patch radius to 16");
    }
    if dims.iter().any(|n| *n <= block) {
        return wrong("a dimension is not above the block radius");
    }
    if parameters.sigma.is_some_and(|sigma| !(sigma.is_finite() && sigma > 0.0)) {
        return wrong("sigma is not above 0");
    }
    if let Some(mask) = mask {
        if mask.len() != voxels.len() {
            return wrong("the mask has another size than the volume");
        }
        if mask.iter().all(|m| *m == 0) {
            return Err(Error::new(Kind::MaskEmpty, "no voxel to denoise"));
        }
    }
    Ok(())
}

/// Shares the tiles out. Which thread takes which does not matter: a tile is computed from the input alone.
fn by_tiles(plan: &Plan, voxels: &[f32], mask: Option<&[u8]>, out: &mut [f32], control: &Control) -> Result<()> {
    let tiles = plan.tiles(mask);
    // The part of the result that belongs to each tile: pieces of rows, along y and then z, as the rows of the result themselves go.
    let mut parts: Vec<Vec<&mut [f32]>> = tiles.iter().map(|_| Vec::new()).collect();
    let [width, height, _] = plan.dims;
    // Tiles that share a row come from left to right.
    let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(width).collect();
    for (tile, part) in tiles.iter().zip(&mut parts) {
        for z in tile.start[2]..tile.start[2] + tile.size[2] {
            for y in tile.start[1]..tile.start[1] + tile.size[1] {
                let Some(row) = rows.get_mut(z * height + y) else { continue };
                let left = std::mem::take(row);
                let skipped = (tile.start[0] + left.len()).saturating_sub(width).min(left.len());
                let (_, left) = left.split_at_mut(skipped);
                let (own, right) = left.split_at_mut(tile.size[0].min(left.len()));
                *row = right;
                part.push(own);
            }
        }
    }
    let done = AtomicUsize::new(0);
    tiles.par_iter().zip(parts).with_max_len(1).try_for_each_init(Scratch::default, |scratch, (tile, mut part)| {
        tile::denoise(plan, *tile, voxels, mask, scratch, &mut part, control)?;
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        control.progress("denoise", done as f64 / tiles.len() as f64);
        Ok(())
    })
}
