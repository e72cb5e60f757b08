//! Histogram matching: quantiles of a volume's brighter half are moved to those of a reference.
//!
//! As ITK's `HistogramMatchingImageFilter` does it (after L. G. Nyúl, J. K. Udupa and X. Zhang, New variants of a method of MRI scale
//! standardization, IEEE TMI 19(2), 2000). Voxels at or above the mean (or, if so asked, all) are counted in bins of equal width up to the
//! largest; quantiles at equal distances are read off the histogram by linear interpolation within a bin. Straight lines lead from the
//! volume's quantiles to the reference's, and one from the part below the threshold to that of the reference.
//!
//! Bin borders are float32 numbers, computed as ITK computes them, and the first and last bin reach to the smallest and largest voxel, so
//! results are ITK's to the rounding of float32. A reference is measured once and kept as a few numbers ([`Reference`]).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::piecewise::{Knot, Line, Map};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::normalize::{self, Band, Over};

/// Most histogram levels, and most match points.
const MOST_LEVELS: usize = 65_536;
const MOST_POINTS: usize = 255;
/// Voxels per piece of work.
const BLOCK: usize = 1 << 16;
/// Voxels that share counters.
const PIECE: usize = BLOCK * 64;

/// How quantiles are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// Bins of the histogram, 2 to 65,536.
    pub levels: usize,
    /// Quantiles that are matched, 1 to 255, besides the threshold and the largest voxel.
    pub points: usize,
    /// Whether voxels below the mean are left out of the histogram; they are mostly background.
    pub is_above_mean: bool,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters { levels: 1024, points: 7, is_above_mean: true }
    }
}

/// What a volume is matched to, and all that needs to be kept of the reference volume. Intensities in its unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// How it was measured, and how a volume will be that is matched to it.
    pub parameters: Parameters,
    /// Smallest voxel.
    pub smallest: f64,
    /// The threshold, the quantiles and the largest voxel, not descending: two more than match points.
    pub quantiles: Vec<f64>,
}

impl Reference {
    /// Measures a reference volume.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] for parameters outside their ranges; [`Kind::VolumeInvalid`] for no voxels or some that are not finite;
    /// [`Kind::VolumeConstant`]; [`Kind::Cancelled`].
    pub fn measure(voxels: &[f32], parameters: Parameters, control: &Control) -> Result<Reference> {
        check(parameters)?;
        normalize::check_finite(voxels)?;
        control.check()?;
        let summary = normalize::summarize(voxels, Over::All, Band::ALL);
        summary.moments(0)?;
        let threshold = if parameters.is_above_mean { summary.mean as f32 } else { summary.low };
        let bins = Bins::new(threshold, summary.low, summary.high, parameters.levels);
        let counts = bins.count(voxels, control)?;
        let step = 1.0 / (parameters.points as f64 + 1.0);
        let mut quantiles = vec![f64::from(threshold)];
        quantiles.extend((1..=parameters.points).map(|point| bins.quantile(&counts, point as f64 * step)));
        quantiles.push(f64::from(summary.high));
        Ok(Reference { parameters, smallest: f64::from(summary.low), quantiles })
    }

    /// Fails with [`Kind::InvalidArgument`] when the numbers, read from a file say, are not those of a reference.
    pub fn check(&self) -> Result<()> {
        check(self.parameters)?;
        let ascends = self.quantiles.windows(2).all(|pair| matches!(pair, [a, b] if a <= b));
        let finite = self.smallest.is_finite() && self.quantiles.iter().all(|value| value.is_finite());
        let starts = self.quantiles.first().is_some_and(|threshold| self.smallest <= *threshold);
        if self.quantiles.len() != self.parameters.points + 2 || !ascends || !finite || !starts {
            return Err(wrong("the quantiles of the reference do not ascend or are not as many as its match points ask for"));
        }
        Ok(())
    }
}

/// Matches a volume to a reference; every voxel is mapped. Progress is that of the stage "preprocess".
///
/// # Errors
/// As [`Reference::check`] and, for the volume, [`Reference::measure`]; after [`Kind::Cancelled`] voxels may be partly mapped.
pub fn apply(voxels: &mut [f32], reference: &Reference, control: &Control) -> Result<()> {
    reference.check()?;
    let own = Reference::measure(voxels, reference.parameters, control)?;
    let line = |x: f64, to_x: f64, y: f64, to_y: f64| {
        let run = to_x - x;
        // ITK's map is level where two quantiles of the volume are equal.
        Line { x, y, slope: if run.abs() > f64::EPSILON * 0.1 { (to_y - y) / run } else { 0.0 } }
    };
    let (Some(threshold), Some(target)) = (own.quantiles.first(), reference.quantiles.first()) else {
        return Err(wrong("the reference has no quantiles"));
    };
    let mut lines = vec![line(own.smallest, *threshold, reference.smallest, *target)];
    lines.extend(own.quantiles.windows(2).zip(reference.quantiles.windows(2)).map(|pairs| match pairs {
        ([x, to_x], [y, to_y]) => line(*x, *to_x, *y, *to_y),
        _ => Line { x: 0.0, y: 0.0, slope: 1.0 },
    }));
    if let (Some(x), Some(y)) = (own.quantiles.last(), reference.quantiles.last()) {
        lines.push(Line { x: *x, y: *y, slope: 0.0 });
    }
    Map::new(&own.quantiles, Knot::Above, lines).apply(voxels, control)
}

/// The bins of a histogram: `borders[n]..borders[n + 1]` each, the last with its end.
struct Bins {
    threshold: f32,
    /// One more than bins.
    borders: Vec<f32>,
    smallest: f32,
    scale: f32,
}

impl Bins {
    fn new(threshold: f32, smallest: f32, largest: f32, levels: usize) -> Bins {
        let step = (largest - threshold) / levels as f32;
        let borders = (0..levels).map(|bin| threshold + bin as f32 * step).chain([largest]).collect();
        Bins { threshold, borders, smallest, scale: if step > 0.0 { 1.0 / step } else { 0.0 } }
    }

    /// Voxels in each bin, of those at or above the threshold.
    fn count(&self, voxels: &[f32], control: &Control) -> Result<Vec<u64>> {
        let levels = self.borders.len() - 1;
        let bin_of = |value: f32| {
            let mut bin = (((value - self.threshold) * self.scale) as usize).min(levels - 1);
            // The quotient is rounded: what decides is the border.
            while bin > 0 && self.borders.get(bin).is_some_and(|border| value < *border) {
                bin -= 1;
            }
            while bin + 1 < levels && self.borders.get(bin + 1).is_some_and(|border| value >= *border) {
                bin += 1;
            }
            bin
        };
        let over = Over::Above(self.threshold.next_down());
        // Whole numbers, so the order of addition is free.
        let add = |mut a: Vec<u64>, b: Vec<u64>| {
            a.iter_mut().zip(&b).for_each(|(a, b)| *a = a.wrapping_add(*b));
            a
        };
        let piece = |(index, piece): (usize, &[f32])| {
            let mut counts = vec![0u64; levels];
            for (block, part) in piece.chunks(BLOCK).enumerate() {
                control.check()?;
                normalize::each_line(index * PIECE + block * BLOCK, part, over, Band::ALL, |line| {
                    for value in line {
                        if let Some(count) = counts.get_mut(bin_of(*value)) {
                            *count = count.wrapping_add(1);
                        }
                    }
                });
            }
            Ok(counts)
        };
        voxels.par_chunks(PIECE).enumerate().map(piece).try_reduce(|| vec![0u64; levels], |a, b| Ok(add(a, b)))
    }

    /// Quantile (0..1) by linear interpolation within its bin, from the nearer end of the histogram as in ITK.
    fn quantile(&self, counts: &[u64], p: f64) -> f64 {
        let total = counts.iter().sum::<u64>() as f64;
        let (mut sum, levels) = (0.0, counts.len());
        let edge = |bin: usize| self.borders.get(bin).copied().map_or(0.0, f64::from);
        let ends = |bin: usize| (if bin == 0 { f64::from(self.smallest) } else { edge(bin) }, edge(bin + 1));
        if p < 0.5 {
            let mut reached = 0.0;
            for (bin, count) in counts.iter().enumerate() {
                let before = reached;
                sum += *count as f64;
                reached = sum / total;
                if reached >= p || bin + 1 == levels {
                    let (low, high) = ends(bin);
                    return low + (p - before) / (*count as f64 / total) * (high - low);
                }
            }
        } else {
            let mut reached = 1.0;
            for (bin, count) in counts.iter().enumerate().rev() {
                let before = reached;
                sum += *count as f64;
                reached = 1.0 - sum / total;
                if reached <= p || bin == 0 {
                    let (low, high) = ends(bin);
                    return high - (before - p) / (*count as f64 / total) * (high - low);
                }
            }
        }
        f64::from(self.threshold)
    }
}

fn check(parameters: Parameters) -> Result<()> {
    if !(2..=MOST_LEVELS).contains(&parameters.levels) || !(1..=MOST_POINTS).contains(&parameters.points) {
        return Err(wrong("histogram levels are 2 to 65536, match points 1 to 255"));
    }
    Ok(())
}

fn wrong(detail: &'static str) -> Error {
    Error::new(Kind::InvalidArgument, detail).at(Stage::Imaging)
}
