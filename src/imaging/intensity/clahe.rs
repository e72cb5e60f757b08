//! CLAHE, contrast-limited adaptive histogram equalisation: local contrast brought out without blowing up noise.
//!
//! After K. Zuiderveld, Contrast limited adaptive histogram equalization, in Graphics Gems IV, 1994, with the conventions of
//! `skimage.exposure.equalize_adapthist`, in two and in three dimensions. Intensities, spread over 0 to 1, are rounded to 16 and then to 14
//! bits and counted in bins, separately in each region of the kernel's size; what a histogram holds above the clip limit is shared out
//! among its other bins; its running sum is the region's map; and a voxel's value is the multilinear mean of the maps of the regions
//! around it. At the end of an axis the volume is mirrored in its outermost voxels. The result is spread over 0 to 1.
//!
//! What skimage rounds is rounded here, in the same order, so that results are equal to float32's rounding.

use rayon::prelude::*;

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::grid::{filled, voxel_count};
use crate::imaging::normalize;

/// Grey levels of the method.
const LEVELS: usize = 1 << 14;
/// Largest 16-bit grey value.
const LARGEST: f64 = 65_535.0;
/// Entries of all maps together that are always allowed; above that, four for each voxel.
const MAP_ENTRIES: usize = 1 << 24;
/// Rows that are worked on together.
const ROWS: usize = 16;

/// How contrast is limited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// Columns, rows and slices of a region, each at least 1 and at most the volume's; `None`: an eighth of each, at least 1. Slices are
    /// not looked at where slices are equalised singly.
    pub kernel: Option<[usize; 3]>,
    /// Part of a region's voxels that a bin may hold, 0 to 1; more yields more contrast. 0 does not limit.
    pub clip_limit: f64,
    /// Bins of the histograms, 2 to 16,384.
    pub bins: usize,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters { kernel: None, clip_limit: 0.01, bins: 256 }
    }
}

/// Equalises each slice by itself, each from its own smallest and largest voxel to 0 to 1. A constant slice of a volume becomes 0.
/// Progress is that of the stage "preprocess".
///
/// # Errors
/// [`Kind::InvalidArgument`] for parameters outside their ranges, or regions so small that their maps outgrow the volume;
/// [`Kind::VolumeInvalid`] when voxels are not finite or do not fill the dimensions; [`Kind::VolumeConstant`] when all are equal;
/// [`Kind::OutOfMemory`]; [`Kind::Cancelled`], after which the volume is partly equalised.
pub fn equalize_slices(voxels: &mut [f32], dims: [usize; 3], parameters: &Parameters, control: &Control) -> Result<()> {
    let [width, height, depth] = dims;
    let kernel = parameters.kernel.map(|[x, y, _]| [x, y, 1]);
    check(voxels, dims, [width, height, 1], kernel, parameters)?;
    let done = std::sync::atomic::AtomicUsize::new(0);
    voxels.par_chunks_mut(width * height).try_for_each(|slice| {
        control.check()?;
        equalize(slice, [width, height, 1], kernel, parameters, control)?;
        let done = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        control.progress("preprocess", done as f64 / depth as f64);
        Ok(())
    })
}

/// Equalises a volume in three dimensions, from its smallest and largest voxel to 0 to 1. Progress is that of the stage "preprocess".
///
/// # Errors
/// As [`equalize_slices`].
pub fn equalize_volume(voxels: &mut [f32], dims: [usize; 3], parameters: &Parameters, control: &Control) -> Result<()> {
    check(voxels, dims, dims, parameters.kernel, parameters)?;
    equalize(voxels, dims, parameters.kernel, parameters, control)?;
    control.progress("preprocess", 1.0);
    Ok(())
}

/// Judges a volume of which images of a shape are to be equalised.
fn check(voxels: &[f32], dims: [usize; 3], shape: [usize; 3], kernel: Option<[usize; 3]>, parameters: &Parameters) -> Result<()> {
    let wrong = |detail: &'static str| Err(Error::new(Kind::InvalidArgument, detail).at(Stage::Imaging));
    if voxel_count(dims)? != voxels.len() {
        return Err(Error::new(Kind::VolumeInvalid, "the voxels do not fill the dimensions"));
    }
    normalize::check_finite(voxels)?;
    if !(0.0..=1.0).contains(&parameters.clip_limit) || !(2..=LEVELS).contains(&parameters.bins) {
        return wrong("the clip limit lies outside 0 to 1, or the bins outside 2 to 16384");
    }
    let kernel = kernel.unwrap_or_else(|| default_kernel(shape));
    if kernel.iter().zip(shape).any(|(k, n)| *k == 0 || *k > n) {
        return wrong("a region has no voxel along an axis, or more than the volume");
    }
    let regions = kernel.iter().zip(shape).fold(1usize, |product, (k, n)| product.saturating_mul(n.div_ceil(*k)));
    if regions.saturating_mul(parameters.bins) > MAP_ENTRIES.max(shape.iter().product::<usize>().saturating_mul(4)) {
        return wrong("the regions are too small: their maps would outgrow the volume");
    }
    let (low, high) = normalize::range(voxels);
    if low == high {
        return Err(Error::new(Kind::VolumeConstant, format!("{} voxels of one value", voxels.len())));
    }
    Ok(())
}

fn default_kernel(dims: [usize; 3]) -> [usize; 3] {
    dims.map(|n| (n / 8).max(1))
}

/// An axis cut into regions.
struct Axis {
    kernel: usize,
    regions: usize,
    /// Voxel at each place of the regions, which may reach past the end.
    places: Vec<usize>,
    /// For each voxel the regions before and after it, and how far it is from the one to the other, 0 to 1.
    around: Vec<(usize, usize, f64)>,
}

impl Axis {
    fn new(len: usize, kernel: usize) -> Axis {
        let regions = len.div_ceil(kernel);
        let period = (2 * len).saturating_sub(2).max(1);
        // Mirrored in the outermost voxel, as often as need be.
        let mirrored = |place: usize| (place % period).min(period - place % period) % len;
        let around = |index: usize| {
            let (block, off) = ((index + kernel / 2) / kernel, (index + kernel / 2) % kernel);
            (block.saturating_sub(1), block.min(regions - 1), off as f64 / kernel as f64)
        };
        Axis { kernel, regions, places: (0..regions * kernel).map(mirrored).collect(), around: (0..len).map(around).collect() }
    }

    /// Voxels of a region.
    fn region(&self, number: usize) -> &[usize] {
        self.places.get(number * self.kernel..(number + 1) * self.kernel).unwrap_or_default()
    }
}

fn equalize(voxels: &mut [f32], dims: [usize; 3], kernel: Option<[usize; 3]>, parameters: &Parameters, control: &Control) -> Result<()> {
    let (low, high) = normalize::range(voxels);
    if low >= high {
        voxels.fill(0.0);
        return Ok(());
    }
    let kernel = kernel.unwrap_or_else(|| default_kernel(dims));
    let axes: [Axis; 3] = std::array::from_fn(|axis| Axis::new(dims[axis], kernel[axis]));
    let binned = bins_of(voxels, low, high, parameters.bins, control)?;
    let maps = maps(&binned, dims, &axes, parameters, control)?;
    let rows_at_once = ROWS.min(dims[1]);
    let extremes = voxels
        .par_chunks_mut(dims[0] * rows_at_once)
        .zip(binned.par_chunks(dims[0] * rows_at_once))
        .enumerate()
        .map(|(piece, (out, binned))| {
            control.check()?;
            for (row, (out, binned)) in out.chunks_mut(dims[0]).zip(binned.chunks(dims[0])).enumerate() {
                let row = piece * rows_at_once + row;
                mix_row(&axes, &maps, parameters.bins, (row % dims[1], row / dims[1]), binned, out);
            }
            Ok(normalize::range(out))
        })
        .try_reduce(|| (f32::INFINITY, f32::NEG_INFINITY), |a, b| Ok((a.0.min(b.0), a.1.max(b.1))))?;
    let (from, to) = (f64::from(extremes.0), f64::from(extremes.1));
    if from < to {
        normalize::minmax(voxels, 0.0, 1.0)?;
    } else {
        // skimage limits instead of spreading where there is nothing to spread.
        normalize::clamp(voxels, 0.0, 1.0);
    }
    Ok(())
}

/// Bin of each voxel.
fn bins_of(voxels: &[f32], low: f32, high: f32, bins: usize, control: &Control) -> Result<Vec<u16>> {
    let width = 1 + LEVELS / bins;
    let bin_of: Vec<u16> = (0..=u16::MAX)
        .map(|grey| {
            let level = (f64::from(grey) / LARGEST * (LEVELS - 1) as f64).round_ties_even() as usize;
            (level / width) as u16
        })
        .collect();
    let (low, range) = (f64::from(low), f64::from(high) - f64::from(low));
    let mut binned = filled(voxels.len(), 0u16)?;
    binned.par_chunks_mut(1 << 16).zip(voxels.par_chunks(1 << 16)).try_for_each(|(binned, voxels)| {
        control.check()?;
        for (bin, value) in binned.iter_mut().zip(voxels) {
            let grey = ((f64::from(*value) - low) / range * LARGEST).round_ties_even() as u16;
            *bin = bin_of.get(usize::from(grey)).copied().unwrap_or_default();
        }
        Ok(())
    })?;
    Ok(binned)
}

/// The maps of all regions, one after the other: the grey level of each bin.
fn maps(binned: &[u16], dims: [usize; 3], axes: &[Axis; 3], parameters: &Parameters, control: &Control) -> Result<Vec<u16>> {
    let regions: usize = axes.iter().map(|axis| axis.regions).product();
    let size: usize = axes.iter().map(|axis| axis.kernel).product();
    let limit = if parameters.clip_limit > 0.0 { ((parameters.clip_limit * size as f64) as i64).max(1) } else { size as i64 };
    let mut maps = filled(regions * parameters.bins, 0u16)?;
    maps.par_chunks_mut(parameters.bins).enumerate().try_for_each(|(region, map)| {
        control.check()?;
        let [nx, ny, _] = axes.each_ref().map(|axis| axis.regions);
        let mut counts = vec![0i64; parameters.bins];
        for z in axes[2].region(region / nx / ny) {
            for y in axes[1].region(region / nx % ny) {
                let start = (z * dims[1] + y) * dims[0];
                let row = binned.get(start..start + dims[0]).unwrap_or_default();
                for x in axes[0].region(region % nx) {
                    let bin = row.get(*x).copied().unwrap_or_default();
                    if let Some(count) = counts.get_mut(usize::from(bin)) {
                        *count += 1;
                    }
                }
            }
        }
        clip(&mut counts, limit);
        let scale = (LEVELS - 1) as f64 / size as f64;
        let mut sum = 0;
        for (entry, count) in map.iter_mut().zip(&counts) {
            sum += count;
            *entry = (sum as f64 * scale).min((LEVELS - 1) as f64) as u16;
        }
        Ok(())
    })?;
    Ok(maps)
}

/// Cuts a histogram off at a limit and shares the excess out: equally first, then one by one among the bins that are below the limit.
fn clip(counts: &mut [i64], limit: i64) {
    let bins = counts.len() as i64;
    let mut excess: i64 = counts.iter().map(|count| (count - limit).max(0)).sum();
    counts.iter_mut().for_each(|count| *count = (*count).min(limit));
    let share = excess / bins.max(1);
    let upper = limit - share;
    for count in counts.iter_mut().filter(|count| **count < upper) {
        *count += share;
        excess -= share;
    }
    // Those that the share has just brought here are filled up too, as in skimage; the excess may become negative by that.
    for count in counts.iter_mut().filter(|count| (upper..limit).contains(*count)) {
        excess -= limit - *count;
        *count = limit;
    }
    while excess > 0 {
        let before = excess;
        for first in 0..counts.len() {
            let below = counts.iter().filter(|count| **count < limit).count() as i64;
            let step = (below / excess).max(1) as usize;
            for count in counts.iter_mut().skip(first).step_by(step).filter(|count| **count < limit) {
                *count += 1;
                excess -= 1;
            }
            if excess <= 0 {
                break;
            }
        }
        if before == excess {
            break;
        }
    }
}

/// A row of the result, before it is spread: grey levels.
fn mix_row(axes: &[Axis; 3], maps: &[u16], bins: usize, (y, z): (usize, usize), binned: &[u16], out: &mut [f32]) {
    let (Some((y0, y1, ty)), Some((z0, z1, tz))) = (axes[1].around.get(y).copied(), axes[2].around.get(z).copied()) else { return };
    let map = |x: usize, y: usize, z: usize| {
        let start = ((z * axes[1].regions + y) * axes[0].regions + x) * bins;
        maps.get(start..start + bins).unwrap_or_default()
    };
    // Slices with the weight 0 add nothing: those of single slices, for one.
    let corners = if tz == 0.0 { 2 } else { 4 };
    let rows = [(y0, z0, 1.0 - ty, 1.0 - tz), (y1, z0, ty, 1.0 - tz), (y0, z1, 1.0 - ty, tz), (y1, z1, ty, tz)];
    let (mut first, around) = (0, axes[0].around.as_slice());
    // Runs of voxels between the same two regions.
    while let Some((x0, x1, _)) = around.get(first).copied() {
        let after = around.iter().skip(first).take_while(|(a, b, _)| (*a, *b) == (x0, x1)).count() + first;
        let pairs = rows.map(|(y, z, _, _)| (map(x0, y, z), map(x1, y, z)));
        let (Some(out), Some(binned), Some(around)) = (out.get_mut(first..after), binned.get(first..after), around.get(first..after))
        else {
            return;
        };
        for ((out, bin), (_, _, tx)) in out.iter_mut().zip(binned).zip(around) {
            let (bin, mut sum) = (usize::from(*bin), 0.0f32);
            for ((near, far), (_, _, wy, wz)) in pairs.iter().zip(&rows).take(corners) {
                let level = |map: &[u16]| map.get(bin).copied().map_or(0.0, f64::from);
                // Products in float64 and sums in float32, as skimage has them: the sum is cut to a whole number.
                sum += (level(near) * ((1.0 - tx) * wy * wz)) as f32;
                sum += (level(far) * (tx * wy * wz)) as f32;
            }
            *out = sum.trunc();
        }
        first = after;
    }
}
