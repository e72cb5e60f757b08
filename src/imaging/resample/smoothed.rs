//! Resampling to a coarser grid without aliasing: what is finer than the new grid can hold is smoothed away first.
//!
//! The rule is that of scikit-image's `transform.resize(anti_aliasing=True)`: along each axis whose voxels grow by a factor above 1, a Gaussian of
//! standard deviation (factor - 1) / 2 voxels of the old grid, cut off at 4 standard deviations, before the interpolation. Axes that keep
//! their spacing or become finer are left alone. Beyond the faces the volume is mirrored with the outermost voxel repeated (scipy's mode
//! `reflect`; scikit-image's default, scipy's `mirror`, does not repeat it, which shows within 4 standard deviations of a face).

use super::{Interpolation, aligned};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::Volume;
use crate::imaging::filters::gaussian;
use crate::imaging::grid::{AlignedGrid, filled};

/// Share of the smoothing in the progress that is told.
const SMOOTHING: f64 = 0.75;

/// [`super::to_spacing`] with a Gaussian before it along the axes that become coarser.
///
/// # Errors
/// As [`aligned_smoothed`] and [`AlignedGrid::to_spacing`].
pub fn to_spacing_smoothed(volume: &Volume, spacing_mm: [f64; 3], how: Interpolation, control: &Control) -> Result<Option<Volume>> {
    let dims = volume.geometry.dims;
    let grid = AlignedGrid::to_spacing(dims, volume.geometry.spacing_mm, spacing_mm)?;
    if grid.is_identity(dims) {
        return Ok(None);
    }
    volume.moved(grid.geometry(&volume.geometry), |data| aligned_smoothed(data, dims, &grid, how, control)).map(Some)
}

/// [`aligned`] with a Gaussian before it along the axes that become coarser. Takes one volume beside the result where there is one.
///
/// # Errors
/// [`Kind::InvalidArgument`] for nearest neighbours, which are for labels (a mean of labels is none), and for a factor above 513;
/// [`Kind::VolumeInvalid`] for NaN or infinite voxels where there is an axis to smooth; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn aligned_smoothed(data: &[f32], dims: [usize; 3], grid: &AlignedGrid, how: Interpolation, control: &Control) -> Result<Vec<f32>> {
    if how == Interpolation::Nearest {
        return Err(Error::new(Kind::InvalidArgument, "nearest neighbours cannot be smoothed").at(Stage::Imaging));
    }
    let sigmas = sigmas(grid);
    if sigmas == [0.0; 3] {
        return aligned(data, dims, grid, how, control);
    }
    let mut smooth = filled(data.len(), 0.0f32)?;
    smooth.copy_from_slice(data);
    gaussian::smooth(&mut smooth, dims, sigmas, &control.within("preprocess", 0.0, SMOOTHING))?;
    aligned(&smooth, dims, grid, how, control)
}

/// Standard deviations along the axes of the grid below, in its voxels.
fn sigmas(grid: &AlignedGrid) -> [f64; 3] {
    let mut sigmas = [0.0; 3];
    for map in grid.axes {
        if let Some(sigma) = sigmas.get_mut(map.source) {
            *sigma = ((map.step.abs() - 1.0) / 2.0).max(0.0);
        }
    }
    sigmas
}
