//! WhiteStripe: intensities in standard deviations of normal-appearing white matter, whose peak is found in a smoothed histogram.
//!
//! After R. T. Shinohara et al., Statistical normalization techniques for magnetic resonance imaging, NeuroImage: Clinical 6, 2014, as
//! `WhiteStripeNormalizer` of the Python package intensity-normalization 3.0.1 defines it. The density of the foreground (the mask's voxels,
//! or without a mask those above 0) is estimated with Gaussian kernels of Scott's width at 80 places from the smallest to the largest
//! intensity. White matter is the last peak of a T1-weighted volume after the brightest 4 % were left out, the largest of a T2-weighted or
//! FLAIR one, the first of a proton-density one after the brightest 1 % were left out. The stripe is what lies within 5 % of the voxels
//! below and above the peak, its ends excluded; the result is (x - mean of the stripe) / standard deviation of the stripe.
//!
//! The kernels are summed over the counts of a fine histogram instead of all voxels; bins are a 64th of the kernel's width, which moves the
//! density by less than 1e-4. With a mask only masked voxels are in the stripe, where that package also takes unmasked ones if the stripe
//! reaches across 0.

use rayon::prelude::*;

use super::foreground;
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::normalize::{self, Band, Over, Summary};

/// Places at which the density is estimated.
const GRID: usize = 80;
/// Bins of the histogram per kernel width, and most in all.
const BINS_PER_WIDTH: f64 = 64.0;
const MOST_BINS: f64 = 1_048_576.0;
/// Fewest bins.
const FEWEST_BINS: f64 = 4096.0;
/// Kernel widths beyond which a float64 kernel is 0: exp(-39² / 2) underflows.
const REACH: f64 = 39.0;
/// Voxels per piece of work.
const BLOCK: usize = 1 << 16;
/// Voxels that share counters.
const PIECE: usize = BLOCK * 64;

/// Which peak of the density is white matter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peak {
    /// The last, without the brightest 4 %: T1-weighted.
    Last,
    /// The largest: T2-weighted, FLAIR.
    Largest,
    /// The first, without the brightest 1 %: proton density.
    First,
}

/// How the stripe is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// Which peak.
    pub peak: Peak,
    /// Fraction of the foreground below the peak that is in the stripe, above 0, at most 0.5.
    pub width_below: f64,
    /// The same above the peak.
    pub width_above: f64,
}

impl Parameters {
    /// For a peak, with the widths of the paper: 0.05.
    pub fn of(peak: Peak) -> Parameters {
        Parameters { peak, width_below: 0.05, width_above: 0.05 }
    }
}

/// What was found; intensities in the voxels' unit before the change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stripe {
    /// Peak of white matter.
    pub peak: f64,
    /// The stripe lies above this.
    pub low: f64,
    /// The stripe lies below this.
    pub high: f64,
    /// Voxels of the stripe.
    pub count: usize,
    /// Mean of the stripe.
    pub mean: f64,
    /// Standard deviation of the stripe (divided by n).
    pub std: f64,
}

/// Finds the stripe.
///
/// # Errors
/// [`Kind::InvalidArgument`] for widths outside their ranges or a mask of another size; [`Kind::MaskEmpty`] without foreground or with an
/// empty stripe; [`Kind::VolumeInvalid`] when a voxel is not finite; [`Kind::VolumeConstant`] when the foreground or the stripe is of one
/// value; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn measure(voxels: &[f32], mask: Option<&[u8]>, parameters: &Parameters, control: &Control) -> Result<Stripe> {
    let over = foreground(mask);
    let fits = |width: f64| width > 0.0 && width <= 0.5;
    if !(fits(parameters.width_below) && fits(parameters.width_above)) {
        return Err(Error::new(Kind::InvalidArgument, "a width of the stripe lies outside 0 to 0.5").at(Stage::Imaging));
    }
    normalize::check_mask(voxels, over)?;
    normalize::check_finite(voxels)?;
    let count = normalize::moments(voxels, over, 1)?.count;
    control.check()?;
    let up_to = match parameters.peak {
        Peak::Last => tail(voxels, over, 96.0)?,
        Peak::First => tail(voxels, over, 99.0)?,
        Peak::Largest => f32::INFINITY,
    };
    control.check()?;
    let (grid, density) = density(voxels, over, Band { above: f32::NEG_INFINITY, up_to }, control)?;
    let peak = find_peak(&grid, &density, parameters.peak).ok_or_else(|| Error::new(Kind::VolumeInvalid, "the density has no peak"))?;
    control.check()?;
    let below = normalize::summarize(voxels, over, Band { above: f32::NEG_INFINITY, up_to: largest_below(peak) }).count;
    let quantile = below as f64 / count as f64;
    control.check()?;
    let ends = [(quantile - parameters.width_below).max(0.0) * 100.0, (quantile + parameters.width_above).min(1.0) * 100.0];
    let [low, high] = normalize::percentiles_over(voxels, over, &ends)?[..] else {
        return Err(Error::new(Kind::Internal, "two percentiles were asked for").at(Stage::Imaging));
    };
    control.check()?;
    let above = if f64::from(low as f32) > low { (low as f32).next_down() } else { low as f32 };
    let stripe = normalize::summarize(voxels, over, Band { above, up_to: largest_below(high) });
    if stripe.count == 0 {
        return Err(Error::new(Kind::MaskEmpty, "no voxel lies in the white stripe"));
    }
    let moments = stripe.moments(0)?;
    Ok(Stripe { peak, low, high, count: moments.count, mean: moments.mean, std: moments.std })
}

/// Scales a volume by its white stripe: every voxel becomes (x - mean) / std. Errors as of [`measure`], before voxels change. Progress is
/// that of the stage "preprocess".
pub fn apply(voxels: &mut [f32], mask: Option<&[u8]>, parameters: &Parameters, control: &Control) -> Result<Stripe> {
    let stripe = measure(voxels, mask, parameters, control)?;
    control.progress("preprocess", 0.9);
    normalize::affine(voxels, 1.0 / stripe.std, -stripe.mean / stripe.std);
    control.progress("preprocess", 1.0);
    Ok(stripe)
}

/// The largest float that does not exceed a percentile of the foreground.
fn tail(voxels: &[f32], over: Over, percent: f64) -> Result<f32> {
    let limit = normalize::percentiles_over(voxels, over, &[percent])?.first().copied().unwrap_or(f64::INFINITY);
    let nearest = limit as f32;
    Ok(if f64::from(nearest) > limit { nearest.next_down() } else { nearest })
}

/// The largest float below a number.
fn largest_below(limit: f64) -> f32 {
    let nearest = limit as f32;
    if f64::from(nearest) >= limit { nearest.next_down() } else { nearest }
}

/// Estimated density (without its constant factor) at places from the smallest to the largest voxel.
fn density(voxels: &[f32], over: Over, band: Band, control: &Control) -> Result<(Vec<f64>, Vec<f64>)> {
    let summary = normalize::summarize(voxels, over, band);
    let moments = summary.moments(1)?;
    // Scott 1992: n^(-1/5) standard deviations.
    let width = moments.std * (moments.count as f64).powf(-0.2);
    let (low, high) = (f64::from(summary.low), f64::from(summary.high));
    let bins = ((high - low) / width * BINS_PER_WIDTH).clamp(FEWEST_BINS, MOST_BINS).ceil() as usize;
    let counts = histogram(voxels, over, band, &summary, bins, control)?;
    let step = (high - low) / bins as f64;
    let grid: Vec<f64> = (0..GRID).map(|place| low + (high - low) * place as f64 / (GRID - 1) as f64).collect();
    let at = |place: &f64| {
        let near = |off: f64| (((place + off - low) / step).max(0.0) as usize).min(bins);
        let (first, last) = (near(-REACH * width), (near(REACH * width) + 1).min(bins));
        let chosen = counts.get(first..last).unwrap_or_default();
        chosen
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bin, count)| {
                let off = (low + ((first + bin) as f64 + 0.5) * step - place) / width;
                *count as f64 * (-0.5 * off * off).exp()
            })
            .sum::<f64>()
    };
    let density = grid.par_iter().map(at).collect();
    Ok((grid, density))
}

/// Counts the voxels of a band by bins of equal width from the smallest to the largest.
fn histogram(voxels: &[f32], over: Over, band: Band, summary: &Summary, bins: usize, control: &Control) -> Result<Vec<u64>> {
    let (low, scale) = (f64::from(summary.low), bins as f64 / (f64::from(summary.high) - f64::from(summary.low)));
    // Whole numbers, so the order of addition is free.
    voxels
        .par_chunks(PIECE)
        .enumerate()
        .map(|(index, piece)| {
            let mut counts = crate::imaging::grid::filled(bins, 0u64)?;
            for (block, part) in piece.chunks(BLOCK).enumerate() {
                control.check()?;
                normalize::each_line(index * PIECE + block * BLOCK, part, over, band, |line| {
                    for value in line {
                        let bin = (((f64::from(*value) - low) * scale) as usize).min(bins - 1);
                        if let Some(count) = counts.get_mut(bin) {
                            *count = count.wrapping_add(1);
                        }
                    }
                });
            }
            Ok(counts)
        })
        .try_reduce(Vec::new, |mut a, b| {
            if a.is_empty() {
                return Ok(b);
            }
            a.iter_mut().zip(&b).for_each(|(a, b)| *a = a.wrapping_add(*b));
            Ok(a)
        })
}

/// The place of a peak: a value strictly above both neighbours, or the largest value where there is none.
fn find_peak(grid: &[f64], density: &[f64], peak: Peak) -> Option<f64> {
    let is_peak = |window: &[f64]| matches!(window, [a, b, c] if b > a && b > c);
    let found = match peak {
        Peak::Last => density.windows(3).rposition(is_peak).map(|before| before + 1),
        Peak::First => density.windows(3).position(is_peak).map(|before| before + 1),
        Peak::Largest => None,
    };
    // `max_by` keeps the last of equals, hence the reversed order.
    let largest = || density.iter().enumerate().rev().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(place, _)| place);
    grid.get(found.or_else(largest)?).copied()
}
