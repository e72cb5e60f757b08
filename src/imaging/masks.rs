//! Foreground masks: where in a volume there is a patient, as against air.
//!
//! Steps, each of which may be left out: voxels above a threshold (Otsu's, as N. Otsu, A threshold selection method from gray-level
//! histograms, IEEE Trans. SMC 9(1), 1979, or a given one); closing with a small ball, which joins what noise parted; the largest connected
//! components, or those above a size; filling of holes, in each slice and then in the volume. The threshold is that of ITK's
//! `OtsuThresholdImageFilter` with 128 bins, components are joined by faces as in its `ConnectedComponentImageFilter`, holes are those of
//! its `BinaryFillholeImageFilter`, and the ball is that of its binary morphology.
//!
//! A threshold parts air from tissue by brightness alone. The masks do not tell organs apart: in particular [`breast_mask`] **does not cut
//! along the chest wall**; it holds chest, heart and arms as far as they are in the field of view. A table, coil or marker that touches the
//! patient stays, and so does what is bright enough and large enough.

use rayon::prelude::*;

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::components::{self, Components, Connectivity};
use crate::imaging::grid::{filled, voxel_count};
use crate::imaging::normalize;

/// Bins of Otsu's histogram, ITK's default for its threshold filters.
const OTSU_BINS: usize = 128;
/// ITK's histograms reach this part of a bin past the largest value, so that it lies inside.
const OTSU_MARGIN: f64 = 0.01;
/// Voxels per piece of work.
const BLOCK: usize = 1 << 16;
/// Largest radius of the ball: beyond it a closing joins what does not belong together.
const LARGEST_RADIUS: usize = 8;

/// Which components of the foreground stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All.
    All,
    /// So many of the largest, at least 1; of equals the first.
    Largest(usize),
    /// Those of at least so many voxels.
    AtLeast(u64),
}

/// How a mask is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// Voxels above this are foreground; `None`: Otsu's threshold over all voxels.
    pub threshold: Option<f32>,
    /// Radius in voxels, 0 to 8, of the ball with which the foreground is closed; 0 does not. Along an axis of one voxel the ball is flat.
    pub closing_radius: usize,
    /// Which components stay.
    pub keep: Keep,
    /// Whether holes are filled that are closed within a slice.
    pub fill_slices: bool,
    /// Whether holes are filled that are closed in the volume.
    pub fill_volume: bool,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters { threshold: None, closing_radius: 0, keep: Keep::Largest(1), fill_slices: true, fill_volume: true }
    }
}

/// A mask, and what is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreground {
    /// 1 inside, 0 outside.
    pub mask: Vec<u8>,
    /// Voxels above this were foreground, in the voxels' unit.
    pub threshold: f32,
    /// Components of the foreground before any were left out.
    pub components: usize,
    /// Components that stayed.
    pub kept: usize,
    /// Voxels of the mask.
    pub voxels: u64,
    /// Volume of the mask, ml.
    pub volume_ml: f64,
}

/// The foreground of a volume (column fastest, then row, then slice). Progress is that of the stage "preprocess". Takes one byte per voxel
/// for the mask, and three while it is closed.
///
/// # Errors
/// [`Kind::VolumeInvalid`] when voxels are not finite or do not fill the dimensions; [`Kind::VolumeConstant`] when Otsu has but one value to
/// part; [`Kind::InvalidArgument`] for parameters outside their ranges or a spacing that is not positive; [`Kind::MaskEmpty`] when nothing
/// stays; [`Kind::OutOfMemory`]; [`Kind::LimitExceeded`]; [`Kind::Cancelled`].
pub fn foreground(
    voxels: &[f32],
    dims: [usize; 3],
    spacing_mm: [f64; 3],
    parameters: &Parameters,
    control: &Control,
) -> Result<Foreground> {
    check(voxels, dims, spacing_mm, parameters)?;
    control.check()?;
    let threshold = match parameters.threshold {
        Some(threshold) => threshold,
        None => otsu(voxels)?,
    };
    control.progress("preprocess", 0.1);
    let mut mask = filled(voxels.len(), 0u8)?;
    mask.par_chunks_mut(BLOCK).zip(voxels.par_chunks(BLOCK)).try_for_each(|(mask, voxels)| {
        control.check()?;
        mask.iter_mut().zip(voxels).for_each(|(mask, value)| *mask = u8::from(*value > threshold));
        Ok::<(), Error>(())
    })?;
    if parameters.closing_radius > 0 {
        mask = close(&mask, dims, parameters.closing_radius, control)?;
    }
    control.progress("preprocess", 0.4);
    let (found, kept) = keep(&mut mask, dims, parameters.keep, control)?;
    control.progress("preprocess", 0.6);
    if parameters.fill_slices {
        mask.par_chunks_mut(dims[0] * dims[1]).try_for_each(|slice| {
            control.check()?;
            fill_slice(slice, [dims[0], dims[1]])
        })?;
    }
    control.progress("preprocess", 0.8);
    control.check()?;
    if parameters.fill_volume {
        components::fill_holes(&mut mask, dims, 1)?;
    }
    let count: u64 = mask.par_chunks(BLOCK).map(|block| block.iter().fold(0u64, |sum, m| sum.wrapping_add(u64::from(*m)))).sum();
    if count == 0 {
        return Err(Error::new(Kind::MaskEmpty, "no foreground is left"));
    }
    control.progress("preprocess", 1.0);
    let volume_ml = count as f64 * spacing_mm.iter().product::<f64>() / 1000.0;
    Ok(Foreground { mask, threshold, components: found, kept, voxels: count, volume_ml })
}

/// Breast as against air, in breast MR or a mammogram (one slice, dark air): Otsu's threshold, closed by two voxels, `parts` of the largest
/// components (1, or 2 where the breasts do not hang together), without holes.
///
/// It does not cut the chest wall nor the pectoral muscle (see the module). Burnt-in letters and markers of a mammogram fall away unless
/// they touch the breast.
///
/// # Errors
/// As [`foreground`].
pub fn breast_mask(voxels: &[f32], dims: [usize; 3], spacing_mm: [f64; 3], parts: usize, control: &Control) -> Result<Foreground> {
    let parameters = Parameters { closing_radius: 2, keep: Keep::Largest(parts), ..Parameters::default() };
    foreground(voxels, dims, spacing_mm, &parameters, control)
}

/// Otsu's threshold with 128 bins over all voxels, as ITK finds it: voxels above it are foreground.
///
/// # Errors
/// [`Kind::VolumeConstant`]; [`Kind::VolumeInvalid`] for no voxels or some that are not finite.
pub fn otsu(voxels: &[f32]) -> Result<f32> {
    normalize::check_finite(voxels)?;
    let (low, high) = normalize::range(voxels);
    if low >= high {
        return Err(Error::new(Kind::VolumeConstant, format!("{} voxels of one value", voxels.len())));
    }
    Ok(otsu_threshold::<OTSU_BINS>(voxels, low, high))
}

fn check(voxels: &[f32], dims: [usize; 3], spacing_mm: [f64; 3], parameters: &Parameters) -> Result<()> {
    let wrong = |detail: &'static str| Err(Error::new(Kind::InvalidArgument, detail).at(Stage::Imaging));
    if voxel_count(dims)? != voxels.len() {
        return Err(Error::new(Kind::VolumeInvalid, "the voxels do not fill the dimensions"));
    }
    normalize::check_finite(voxels)?;
    if parameters.closing_radius > LARGEST_RADIUS {
        return wrong("the radius of the ball is above 8 voxels");
    }
    if parameters.keep == Keep::Largest(0) {
        return wrong("a mask of no component");
    }
    if parameters.threshold.is_some_and(|threshold| !threshold.is_finite()) {
        return wrong("the threshold is not finite");
    }
    if spacing_mm.iter().any(|spacing| !(spacing.is_finite() && *spacing > 0.0)) {
        return wrong("a spacing is not a positive number of millimetres");
    }
    Ok(())
}

/// Sets components that do not stay to 0. Returns how many there were, and how many stay.
fn keep(mask: &mut [u8], dims: [usize; 3], keep: Keep, control: &Control) -> Result<(usize, usize)> {
    control.check()?;
    let found = Components::find(mask, dims, Connectivity::Faces, |value| value != 0)?;
    control.check()?;
    let sizes = found.sizes();
    let mut stays: Vec<bool> = match keep {
        Keep::All => vec![true; sizes.len()],
        Keep::AtLeast(least) => sizes.iter().map(|size| *size >= least).collect(),
        Keep::Largest(_) => vec![false; sizes.len()],
    };
    if let Keep::Largest(count) = keep {
        let mut order: Vec<(u64, usize)> = sizes.iter().copied().zip(0..).collect();
        order.sort_unstable_by_key(|(size, number)| (std::cmp::Reverse(*size), *number));
        for (_, number) in order.into_iter().take(count) {
            stays.iter_mut().skip(number).take(1).for_each(|stays| *stays = true);
        }
    }
    let falls = |number: usize| !stays.get(number).copied().unwrap_or(false);
    found.visit(falls, |_, range| {
        if let Some(run) = mask.get_mut(range) {
            run.fill(0);
        }
    });
    Ok((sizes.len(), stays.iter().filter(|stays| **stays).count()))
}

/// Fills what a slice encloses: background from which no path of shared edges reaches the slice's border.
fn fill_slice(slice: &mut [u8], [width, height]: [usize; 2]) -> Result<()> {
    let found = Components::find(slice, [width, height, 1], Connectivity::Faces, |value| value == 0)?;
    let is_open = |number: usize| {
        found.bounds().get(number).is_none_or(|bounds| {
            let touches = |axis: usize, len: usize| bounds.first[axis] == 0 || bounds.last[axis] + 1 == len;
            touches(0, width) || touches(1, height)
        })
    };
    found.visit(
        |number| !is_open(number),
        |_, range| {
            if let Some(run) = slice.get_mut(range) {
                run.fill(1);
            }
        },
    );
    Ok(())
}

/// Dilates with a ball and erodes with it. The mask is padded first, so that the grid's border closes nothing.
fn close(mask: &[u8], dims: [usize; 3], radius: usize, control: &Control) -> Result<Vec<u8>> {
    let pads = dims.map(|n| if n > 1 { radius } else { 0 });
    let wide: [usize; 3] = std::array::from_fn(|axis| dims[axis] + 2 * pads[axis]);
    let row = |y: usize, z: usize| ((z + pads[2]) * wide[1] + y + pads[1]) * wide[0] + pads[0];
    let mut padded = filled(voxel_count(wide)?, 0u8)?;
    for (index, line) in mask.chunks_exact(dims[0]).enumerate() {
        let start = row(index % dims[1], index / dims[1]);
        if let Some(place) = padded.get_mut(start..start + dims[0]) {
            place.copy_from_slice(line);
        }
    }
    let ball = ball(pads, radius);
    let dilated = sweep(&padded, wide, &ball, 0, |a, b| a | b, control)?;
    drop(padded);
    let eroded = sweep(&dilated, wide, &ball, 1, |a, b| a & b, control)?;
    let mut closed = filled(mask.len(), 0u8)?;
    for (index, line) in closed.chunks_exact_mut(dims[0]).enumerate() {
        let start = row(index % dims[1], index / dims[1]);
        if let Some(place) = eroded.get(start..start + dims[0]) {
            line.copy_from_slice(place);
        }
    }
    Ok(closed)
}

/// Rows of the ball: (rows away, slices away, reach along the row). Voxels whose centres lie within the radius and a half, as in ITK.
fn ball(pads: [usize; 3], radius: usize) -> Vec<(isize, isize, usize)> {
    let limit = (radius as f64 + 0.5).powi(2);
    let mut rows = Vec::new();
    let signed = |n: usize| -(n as isize)..=n as isize;
    for dz in signed(pads[2]) {
        for dy in signed(pads[1]) {
            let rest = limit - (dy * dy + dz * dz) as f64;
            if rest >= 0.0 {
                rows.push((dy, dz, (rest.sqrt() as usize).min(pads[0])));
            }
        }
    }
    rows
}

/// Joins each voxel with those under the ball around it. What lies beyond the grid is not looked at.
fn sweep(
    mask: &[u8],
    dims: [usize; 3],
    ball: &[(isize, isize, usize)],
    start: u8,
    join: impl Fn(u8, u8) -> u8 + Sync,
    control: &Control,
) -> Result<Vec<u8>> {
    let [width, height, _] = dims;
    let mut out = filled(mask.len(), start)?;
    out.par_chunks_mut(width * height).enumerate().try_for_each(|(z, slice)| {
        control.check()?;
        for (y, out) in slice.chunks_mut(width).enumerate() {
            for (dy, dz, reach) in ball {
                let (Some(y), Some(z)) = (y.checked_add_signed(*dy), z.checked_add_signed(*dz)) else { continue };
                if y >= height || z >= dims[2] {
                    continue;
                }
                let from = (z * height + y) * width;
                let row = mask.get(from..from + width).unwrap_or_default();
                join_shifted(out, row, &join);
                for shift in 1..=(*reach).min(width.saturating_sub(1)) {
                    join_shifted(out, row.get(shift..).unwrap_or_default(), &join);
                    join_shifted(out.get_mut(shift..).unwrap_or_default(), row, &join);
                }
            }
        }
        Ok(())
    })?;
    Ok(out)
}

fn join_shifted(out: &mut [u8], row: &[u8], join: &impl Fn(u8, u8) -> u8) {
    out.iter_mut().zip(row).for_each(|(out, value)| *out = join(*out, *value));
}

/// Otsu's threshold between the smallest and largest voxel: the upper edge of the bin that parts the classes best.
///
/// The number of bins is the caller's, because ITK's filter (128) and its scripts for N4 (200) choose differently.
pub(super) fn otsu_threshold<const BINS: usize>(voxels: &[f32], low: f32, high: f32) -> f32 {
    let (low, high) = (f64::from(low), f64::from(high));
    let width = (high - low) / BINS as f64;
    let width = (high + width * OTSU_MARGIN - low) / BINS as f64;
    let counts = voxels
        .par_chunks(BLOCK)
        .map(|block| {
            // Two tables take turns, so that a run of equal voxels does not wait for its own counter.
            let mut counts = [[0u64; BINS]; 2];
            for (turn, value) in block.iter().enumerate() {
                // At most BLOCK voxels: the bin of one is a small whole number, and neither it nor a count wraps.
                let bin = (((f64::from(*value) - low) / width) as u32 as usize).min(BINS - 1);
                let count = &mut counts[turn % 2][bin];
                *count = count.wrapping_add(1);
            }
            std::array::from_fn(|bin| counts[0][bin] + counts[1][bin])
        })
        .reduce(|| [0; BINS], |a, b| std::array::from_fn(|bin| a[bin] + b[bin]));
    let middle = |bin: usize| low + (bin as f64 + 0.5) * width;
    let total: f64 = counts.iter().map(|count| *count as f64).sum();
    let moment: f64 = counts.iter().enumerate().map(|(bin, count)| *count as f64 * middle(bin)).sum();
    let (mut below, mut below_moment, mut best, mut best_bin) = (0.0, 0.0, f64::NEG_INFINITY, 0);
    for (bin, count) in counts.iter().enumerate().take(BINS - 1) {
        below += *count as f64;
        below_moment += *count as f64 * middle(bin);
        let (above, above_moment) = (total - below, moment - below_moment);
        if below == 0.0 || above == 0.0 {
            continue;
        }
        let between = below_moment * below_moment / below + above_moment * above_moment / above;
        if between > best {
            (best, best_bin) = (between, bin);
        }
    }
    (low + (best_bin + 1) as f64 * width) as f32
}

#[cfg(test)]
mod tests;
