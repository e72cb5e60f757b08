//! N4 bias field correction (Tustison, Avants, Cook et al. 2010), with the parameters and the results of ITK's filter.
//!
//! A coil's sensitivity multiplies an MR volume by a smooth field. N4 finds it: it sharpens the histogram of the log image, takes what
//! that changes at each voxel as a residual, fits a cubic B-spline to the residuals, subtracts it, and repeats; then it halves the spans
//! and goes on. The corrected volume is the input divided by the field's exponential.
//!
//! The mathematics is ITK's. What differs is the order of summation: ITK treats voxels as scattered points, this code as a grid, whose
//! B-spline sums factor into one table per axis (`lattice`), and it sums in float64 or in whole numbers where ITK sums in float32. The
//! field is within 1e-4 (natural log) of ITK's on shrunk volumes and 1e-3 at full resolution, for equal iterations. Fast enough that
//! shrinking is not needed.
//!
//! It leaves to the caller which channel to correct, and says nothing about units: a bias field has none.

mod lattice;
mod mask;
mod sharpen;

use rayon::prelude::*;

use self::lattice::{Axis, TAPS, evaluate, row_cubics};
use self::sharpen::{Bins, MOST_BINS, Residual};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::masks;

pub use self::lattice::Lattice;

/// Bins of Otsu's threshold, as ITK's examples for N4 have it.
const OTSU_BINS: usize = 200;
/// Voxels per block when the volume is checked.
const BLOCK: usize = 1 << 16;
/// Most control points along an axis at the last level. A field that needs more is not smooth.
const MOST_POINTS: usize = 515;

/// How the field is found. Defaults are ITK's.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Most iterations at each level (ITK's `MaximumNumberOfIterations`); one to eight levels, spans halve from one to the next.
    pub levels: Vec<usize>,
    /// A level ends when the coefficient of variation of exp(old field - new field) is not above this; 0 runs all iterations.
    pub convergence_threshold: f64,
    /// Bins of the histogram, 2 to 1024.
    pub bins: usize,
    /// Noise of the Wiener filter, above 0.
    pub wiener_noise: f64,
    /// Full width at half maximum of the bias histogram's Gaussian, natural log, above 0.
    pub fwhm: f64,
    /// Order of the spline. Only 3 is supported.
    pub spline_order: usize,
    /// Control points of the first level along column, row and slice: 4 (one span) to 67.
    pub control_points: [usize; 3],
    /// Every how many voxels one is looked at, along each axis; 1, the default, looks at all.
    pub shrink: usize,
    /// Measures convergence as ITK does, in running float32 sums. Above some 100,000 voxels their rounding exceeds the threshold and ITK
    /// iterates longer, to no better field. For comparisons; slower.
    pub itk_convergence: bool,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters {
            levels: vec![50; 4],
            convergence_threshold: 0.001,
            bins: 200,
            wiener_noise: 0.01,
            fwhm: 0.15,
            spline_order: 3,
            control_points: [4; 3],
            shrink: 1,
            itk_convergence: false,
        }
    }
}

impl Parameters {
    fn check(&self) -> Result<()> {
        let is_positive = |value: f64| value.is_finite() && value > 0.0;
        let last = |points: usize| ((points - 3) << (self.levels.len() - 1)) + 3;
        let complaint = if !(1..=8).contains(&self.levels.len()) {
            "n4 takes one to eight levels"
        } else if !(self.convergence_threshold.is_finite() && self.convergence_threshold >= 0.0) {
            "n4's convergence threshold is not a number from 0"
        } else if !(2..=MOST_BINS).contains(&self.bins) {
            "n4 takes 2 to 1024 bins"
        } else if !is_positive(self.wiener_noise) || !is_positive(self.fwhm) {
            "n4's wiener noise and fwhm must be above 0"
        } else if self.spline_order != 3 {
            "n4 is built with cubic splines only"
        } else if self.control_points.iter().any(|points| !(4..=67).contains(points) || last(*points) > MOST_POINTS) {
            "n4 takes 4 to 67 control points along an axis, and at most 515 at the last level"
        } else if self.shrink == 0 {
            "n4's shrink factor must be at least 1"
        } else {
            return Ok(());
        };
        Err(invalid(complaint))
    }
}

/// A bias field, as the logarithm by which it multiplies.
#[derive(Clone, Debug)]
pub struct Field {
    lattice: Lattice,
    iterations: Vec<usize>,
    convergence: Vec<f64>,
    mask_voxels: usize,
}

impl Field {
    /// The control lattice.
    pub fn lattice(&self) -> &Lattice {
        &self.lattice
    }

    /// Iterations that ran at each level.
    pub fn iterations(&self) -> &[usize] {
        &self.iterations
    }

    /// The last convergence measure of each level; 0 for a level that ran no iteration.
    pub fn convergence(&self) -> &[f64] {
        &self.convergence
    }

    /// Voxels that were looked at, after shrinking.
    pub fn mask_voxels(&self) -> usize {
        self.mask_voxels
    }

    /// The log field on a grid of this many columns, rows and slices (each at least 2), stretched from the first voxel to the last:
    /// column fastest.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] for a shorter axis; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
    pub fn evaluate(&self, dims: [usize; 3], control: &Control) -> Result<Vec<f32>> {
        let count = voxel_count(dims)?;
        let mut out = Vec::new();
        out.try_reserve_exact(count).map_err(|_| Error::new(Kind::OutOfMemory, "n4's field").at(Stage::Imaging))?;
        out.resize(count, 0.0f32);
        self.rows(&mut out, dims, control, |out, field| out.copy_from_slice(field))?;
        Ok(out)
    }

    /// Calls `each` with every row of a volume and the log field there.
    fn rows(&self, volume: &mut [f32], dims: [usize; 3], control: &Control, each: impl Fn(&mut [f32], &[f32]) + Sync) -> Result<()> {
        let axes = axes(dims, self.lattice.size());
        volume.par_chunks_mut(dims[0] * dims[1]).enumerate().try_for_each(|(z, slice)| {
            control.check()?;
            let plane = self.lattice.plane(&axes[2], z);
            let (mut cubics, mut field): (Vec<[f32; TAPS]>, _) = (Vec::new(), vec![0.0f32; dims[0]]);
            for (y, row) in slice.chunks_mut(dims[0]).enumerate() {
                row_cubics(&plane, &axes[1], y, &mut cubics);
                for span in &axes[0].runs {
                    evaluate(&cubics[span.first], &axes[0].local[span.start..span.end], &mut field[span.start..span.end]);
                }
                each(row, &field);
            }
            Ok(())
        })
    }
}

/// What [`correct`] did.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Iterations that ran at each level.
    pub iterations: Vec<usize>,
    /// The last convergence measure of each level.
    pub convergence: Vec<f64>,
    /// Voxels that were looked at, after shrinking.
    pub mask_voxels: usize,
}

/// Finds the bias field of a volume: column fastest, then row, then slice; `dims` counts columns, rows, slices; spacing in mm.
///
/// Where the mask is not 0 voxels count. Without one those above Otsu's threshold count (ITK's `OtsuThresholdImageFilter`, 200 bins).
/// Masked voxels at or below 0 have no logarithm; as in ITK they stand for themselves, a 0 like a 1: leave them out of the mask where
/// they are many. Spacing only decides which voxels a shrunk volume keeps. Progress is told as stage `n4`.
///
/// # Errors
/// [`Kind::InvalidArgument`] for parameters outside their range, an axis of less than two voxels (after shrinking), a spacing that is not
/// positive, and lengths that do not fit; [`Kind::VolumeInvalid`] for NaN or infinite voxels and when no masked voxel is above 0;
/// [`Kind::VolumeConstant`] when all voxels, or all masked ones, are equal; [`Kind::MaskEmpty`]; [`Kind::OutOfMemory`];
/// [`Kind::Cancelled`].
pub fn log_field(
    voxels: &[f32],
    dims: [usize; 3],
    spacing_mm: [f64; 3],
    mask: Option<&[u8]>,
    parameters: &Parameters,
    control: &Control,
) -> Result<Field> {
    parameters.check()?;
    if spacing_mm.iter().any(|mm| !(mm.is_finite() && *mm > 0.0)) {
        return Err(invalid("a spacing is not a positive number of millimetres"));
    }
    let count = voxel_count(dims)?;
    if voxels.len() != count || mask.is_some_and(|mask| mask.len() != count) {
        return Err(invalid("voxels or mask do not fill the grid"));
    }
    let (low, high) = finite_range(voxels)?;
    if low == high {
        return Err(Error::new(Kind::VolumeConstant, "n4"));
    }
    control.progress("n4", 0.0);
    let shrink = parameters.shrink;
    let mut masked = match mask {
        Some(mask) => mask::pack(voxels, dims, spacing_mm, |index| mask[index] != 0, shrink, control),
        None => {
            let threshold = masks::otsu_threshold::<OTSU_BINS>(voxels, low, high);
            mask::pack(voxels, dims, spacing_mm, |index| voxels[index] > threshold, shrink, control)
        }
    }?;
    if masked.range.0 == masked.range.1 {
        return Err(Error::new(Kind::VolumeConstant, "n4: all voxels within the mask are equal"));
    }
    let field = iterate(&mut masked, parameters, control)?;
    control.progress("n4", 1.0);
    Ok(field)
}

/// Divides a volume by its bias field, every voxel of it, those outside the mask too. Arguments and errors as for [`log_field`]; the
/// volume is unchanged after an error, unless that is [`Kind::Cancelled`].
pub fn correct(
    voxels: &mut [f32],
    dims: [usize; 3],
    spacing_mm: [f64; 3],
    mask: Option<&[u8]>,
    parameters: &Parameters,
    control: &Control,
) -> Result<Report> {
    let field = log_field(voxels, dims, spacing_mm, mask, parameters, control)?;
    field.rows(voxels, dims, control, |row, field| {
        for (voxel, log) in row.iter_mut().zip(field) {
            *voxel *= exp(-log);
        }
    })?;
    Ok(Report { iterations: field.iterations, convergence: field.convergence, mask_voxels: field.mask_voxels })
}

/// The levels and their iterations.
fn iterate(masked: &mut mask::Masked, parameters: &Parameters, control: &Control) -> Result<Field> {
    let mut lattice = Lattice::new(parameters.control_points);
    let (mut iterations, mut convergence) = (Vec::new(), Vec::new());
    let levels = &parameters.levels;
    for (level, most) in levels.iter().enumerate() {
        if level > 0 {
            lattice = lattice.refined();
        }
        let axes = axes(masked.dims, lattice.size());
        let denominators = masked.denominators(&axes);
        let (mut done, mut measure) = (0, f64::INFINITY);
        while done < *most && measure > parameters.convergence_threshold {
            control.check()?;
            // A field that flattens the image altogether leaves nothing to sharpen.
            let Some(bins) = Bins::new(masked.range.0, masked.range.1, parameters.bins) else { break };
            let counts = masked.histogram(&bins);
            let residual = Residual::new(bins, &counts, parameters.wiener_noise, parameters.fwhm);
            control.check()?;
            lattice.add_quotient(&masked.numerators(&axes, &residual), &denominators);
            control.check()?;
            let before = parameters.itk_convergence.then(|| masked.current());
            measure = masked.advance(&axes, &lattice);
            control.check()?;
            if let Some(before) = before {
                measure = masked.itk_variation(&before);
            }
            done += 1;
            control.progress("n4", (level as f64 + done as f64 / *most as f64) / levels.len() as f64);
        }
        iterations.push(done);
        convergence.push(if done == 0 { 0.0 } else { measure });
    }
    Ok(Field { lattice, iterations, convergence, mask_voxels: masked.count })
}

fn axes(dims: [usize; 3], points: [usize; 3]) -> [Axis; 3] {
    std::array::from_fn(|axis| Axis::new(dims[axis], points[axis]))
}

fn voxel_count(dims: [usize; 3]) -> Result<usize> {
    if dims.iter().any(|n| *n < 2) {
        return Err(invalid("n4 needs two voxels along each axis"));
    }
    dims.iter().try_fold(1usize, |count, n| count.checked_mul(*n)).ok_or_else(|| invalid("the grid has more voxels than can be counted"))
}

/// Smallest and largest voxel.
fn finite_range(voxels: &[f32]) -> Result<(f32, f32)> {
    let ends = |block: &[f32]| {
        // NaN and infinity are the values that leave something when multiplied by 0.
        let mut ends = (f32::INFINITY, f32::NEG_INFINITY, 0.0f32);
        for value in block {
            ends.0 = if *value < ends.0 { *value } else { ends.0 };
            ends.1 = if *value > ends.1 { *value } else { ends.1 };
            ends.2 += value * 0.0;
        }
        ends
    };
    let (low, high, rest) = voxels
        .par_chunks(BLOCK)
        .map(ends)
        .reduce(|| (f32::INFINITY, f32::NEG_INFINITY, 0.0), |a, b| (a.0.min(b.0), a.1.max(b.1), a.2 + b.2));
    if rest == 0.0 { Ok((low, high)) } else { Err(Error::new(Kind::VolumeInvalid, "n4: voxels are nan or infinite")) }
}

/// exp(x) within 3e-7 relative, for |x| up to 80; written out so that a row of it is vectorised.
fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-80.0, 80.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    // ln 2 in two parts, so that the product with a whole number is exact (Cody and Waite 1980).
    let r = (x - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let series = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    series * power
}

fn invalid(detail: &'static str) -> Error {
    Error::new(Kind::InvalidArgument, detail).at(Stage::Imaging)
}

#[cfg(test)]
mod tests;
