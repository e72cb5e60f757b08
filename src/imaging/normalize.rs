//! Intensities: exact percentiles, moments, clipping and scaling.
//!
//! Percentiles are order statistics of the voxels that count, not read off a histogram of intensities, and use numpy's default definition
//! (linear interpolation, type 7 of Hyndman and Fan 1996), so that a model trained with numpy or MONAI sees the numbers it was trained
//! with. Means and standard deviations are float64 sums over lines of fixed size, joined in order (Chan, Golub and LeVeque 1979): the same
//! bits for any number of threads.

mod ranks;

use rayon::prelude::*;

use crate::error::{Error, Kind, Result, Stage};

/// Voxels per block. Large enough that joining the blocks' sums costs nothing, small enough to share out a single slice.
const BLOCK: usize = 1 << 16;
/// Voxels that are looked at together, while they are in the nearest cache; divides [`BLOCK`].
const LINE: usize = 4096;
/// Partial sums within a line: independent chains that a processor can add side by side.
const LANES: usize = 8;
/// The same for extremes.
const EXTREMES: usize = 16;
/// Voxels whose differences are held in float64.
const PART: usize = 1024;

/// Which voxels count.
#[derive(Clone, Copy)]
pub enum Over<'a> {
    /// All.
    All,
    /// Those that are not 0 (skull-stripped images have a background of exact zeros).
    Nonzero,
    /// Those above a value: magnitudes above 0 are what many methods take for foreground.
    Above(f32),
    /// Those where the mask is not 0; as long as the volume.
    Mask(&'a [u8]),
}

/// Of the voxels that count, those above one value and up to another.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Band {
    /// Voxels of this value do not count any more.
    pub(crate) above: f32,
    /// Voxels of this value still count.
    pub(crate) up_to: f32,
}

impl Band {
    /// Every number.
    pub(crate) const ALL: Band = Band { above: f32::NEG_INFINITY, up_to: f32::INFINITY };
}

/// What was measured over the voxels that count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Voxels that count.
    pub count: usize,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
}

/// Fails with [`Kind::VolumeInvalid`] when a voxel is NaN or infinite, or when there is none.
pub fn check_finite(voxels: &[f32]) -> Result<()> {
    if voxels.is_empty() {
        return Err(Error::new(Kind::VolumeInvalid, "no voxels"));
    }
    // Counted in 32 bits, as wide as a voxel; a block cannot overflow them, and a test for it would keep the loop from being vectorised.
    let in_block = |block: &[f32]| block.iter().fold(0u32, |count, value| count.wrapping_add(u32::from(!value.is_finite())));
    let bad: u64 = voxels.par_chunks(BLOCK).map(|block| u64::from(in_block(block))).sum();
    if bad > 0 { Err(not_finite(bad)) } else { Ok(()) }
}

/// Smallest and largest voxel of a volume without NaN.
pub fn range(voxels: &[f32]) -> (f32, f32) {
    let join = |a: (f32, f32), b: (f32, f32)| (smaller(a.0, b.0), larger(a.1, b.1));
    let nothing = (f32::INFINITY, f32::NEG_INFINITY);
    voxels.par_chunks(BLOCK).map(|block| block.chunks(LINE).map(ends).fold(nothing, join)).reduce(|| nothing, join)
}

/// Percentiles (0..100) of all voxels by numpy's `linear` method: position q/100 * (n - 1) among the sorted voxels, interpolated between
/// neighbours.
///
/// # Errors
/// [`Kind::VolumeInvalid`] for an empty volume or one that is not finite; [`Kind::InvalidArgument`] for a percentile outside 0..100.
pub fn percentiles(voxels: &[f32], percents: &[f64]) -> Result<Vec<f64>> {
    if voxels.is_empty() {
        check_percents(percents)?;
        return Err(Error::new(Kind::VolumeInvalid, "no voxels"));
    }
    percentiles_over(voxels, Over::All, percents)
}

/// Percentiles (0..100) of the voxels that count, as [`percentiles`]. Voxels that do not count are not looked at, and nothing is copied.
///
/// # Errors
/// [`Kind::MaskEmpty`] when no voxel counts; [`Kind::VolumeInvalid`] when one that counts is not finite; [`Kind::InvalidArgument`] for a
/// percentile outside 0..100, or when the mask has another length than the volume.
pub fn percentiles_over(voxels: &[f32], over: Over, percents: &[f64]) -> Result<Vec<f64>> {
    check_percents(percents)?;
    check_mask(voxels, over)?;
    let high_counts = ranks::count_high(voxels, over);
    let count: u64 = high_counts.iter().sum();
    let bad = ranks::not_finite(&high_counts);
    if bad > 0 {
        return Err(not_finite(bad));
    }
    if count == 0 {
        return Err(Error::new(Kind::MaskEmpty, "no voxel to take percentiles of"));
    }
    let last = count - 1;
    let places: Vec<(u64, f64)> = percents
        .iter()
        .map(|q| {
            let place = q / 100.0 * last as f64;
            let below = (place.floor() as u64).min(last);
            (below, place - below as f64)
        })
        .collect();
    let mut ranks: Vec<u64> = places.iter().flat_map(|(below, _)| [*below, (below + 1).min(last)]).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let values = ranks::order_statistics(voxels, over, &high_counts, &ranks);
    let value_at = |rank: u64| ranks.binary_search(&rank).ok().and_then(|index| values.get(index)).copied().map_or(f64::NAN, f64::from);
    Ok(places
        .iter()
        .map(|(below, t)| {
            let (a, b) = (value_at(*below), value_at((below + 1).min(last)));
            // numpy interpolates from the nearer end, so that t = 1 yields b exactly.
            if *t >= 0.5 { b - (b - a) * (1.0 - t) } else { a + (b - a) * t }
        })
        .collect())
}

/// Mean and standard deviation over the voxels that count; `ddof` is 0 (divide by n) or 1 (by n - 1), as in numpy.
///
/// # Errors
/// [`Kind::MaskEmpty`] when no voxel counts; [`Kind::VolumeConstant`] when all that count are equal; [`Kind::InvalidArgument`] when the
/// mask has another length than the volume; [`Kind::VolumeInvalid`] when a voxel that counts is not finite.
pub fn moments(voxels: &[f32], over: Over, ddof: usize) -> Result<Moments> {
    check_mask(voxels, over)?;
    summarize(voxels, over, Band::ALL).moments(ddof)
}

/// (x - mean) / std. With [`Over::Nonzero`] zeros stay zeros; with a mask the statistics are the mask's and every voxel is scaled.
///
/// # Errors
/// As [`moments`].
pub fn zscore(voxels: &mut [f32], over: Over, ddof: usize) -> Result<Moments> {
    let measured = moments(voxels, over, ddof)?;
    let (mean, scale, nonzero) = (measured.mean, 1.0 / measured.std, matches!(over, Over::Nonzero));
    let scaled = |value: f32| ((f64::from(value) - mean) * scale) as f32;
    voxels.par_chunks_mut(BLOCK).for_each(|block| {
        if nonzero {
            block.iter_mut().for_each(|value| *value = if *value == 0.0 { *value } else { scaled(*value) });
        } else {
            block.iter_mut().for_each(|value| *value = scaled(*value));
        }
    });
    Ok(measured)
}

/// Smallest voxel to `low`, largest to `high`, the others in proportion. Returns what smallest and largest were.
///
/// # Errors
/// [`Kind::VolumeConstant`] when they are equal.
pub fn minmax(voxels: &mut [f32], low: f64, high: f64) -> Result<(f32, f32)> {
    let (from, to) = range(voxels);
    if from >= to {
        return Err(Error::new(Kind::VolumeConstant, format!("{} voxels of one value", voxels.len())));
    }
    let (base, scale) = (f64::from(from), (high - low) / (f64::from(to) - f64::from(from)));
    voxels.par_chunks_mut(BLOCK).for_each(|block| {
        for value in block {
            *value = (low + (f64::from(*value) - base) * scale) as f32;
        }
    });
    Ok((from, to))
}

/// Limits every voxel to `low..=high`.
pub fn clamp(voxels: &mut [f32], low: f32, high: f32) {
    // `max` and `min` one after the other: f32::clamp would panic on limits in the wrong order.
    voxels.par_chunks_mut(BLOCK).for_each(|block| block.iter_mut().for_each(|value| *value = value.max(low).min(high)));
}

/// scale * x + shift.
pub fn affine(voxels: &mut [f32], scale: f64, shift: f64) {
    voxels.par_chunks_mut(BLOCK).for_each(|block| block.iter_mut().for_each(|value| *value = (scale * f64::from(*value) + shift) as f32));
}

/// Number, extremes and moments of voxels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) mean: f64,
    /// Sum of squared deviations from the mean.
    squares: f64,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl Summary {
    const EMPTY: Summary = Summary { count: 0, mean: 0.0, squares: 0.0, low: f32::INFINITY, high: f32::NEG_INFINITY };

    /// A line of at most [`LINE`] voxels.
    fn of(line: &[f32]) -> Summary {
        let Some(first) = line.first() else { return Summary::EMPTY };
        // Sums of differences from a voxel of the line lose no digits that matter: no voxel of n lies further than sqrt(n - 1) standard
        // deviations from their mean (Samuelson 1968), so at most a factor of n in the rounding of the squares: 1e-12.
        let shift = f64::from(*first);
        let (mut sums, mut squares, mut off) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f64; PART]);
        // One short loop for each thing, over what is in the nearest cache: the compiler vectorises each, but not all in one.
        for part in line.chunks(PART) {
            off.iter_mut().zip(part).for_each(|(off, value)| *off = f64::from(*value) - shift);
            let (chunks, rest) = off.get(..part.len()).unwrap_or_default().as_chunks::<LANES>();
            for chunk in chunks {
                sums.iter_mut().zip(chunk).for_each(|(sum, off)| *sum += off);
            }
            for chunk in chunks {
                squares.iter_mut().zip(chunk).for_each(|(square, off)| *square += off * off);
            }
            sums.iter_mut().zip(rest).for_each(|(sum, off)| *sum += off);
            squares.iter_mut().zip(rest).for_each(|(square, off)| *square += off * off);
        }
        let (low, high) = ends(line);
        let (n, sum) = (line.len() as f64, sums.iter().sum::<f64>());
        Summary { count: line.len(), mean: shift + sum / n, squares: (squares.iter().sum::<f64>() - sum * sum / n).max(0.0), low, high }
    }

    fn join(self, other: Summary) -> Summary {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { other } else { self };
        }
        let (n, m) = (self.count as f64, other.count as f64);
        let apart = other.mean - self.mean;
        Summary {
            count: self.count + other.count,
            mean: self.mean + apart * (m / (n + m)),
            squares: self.squares + other.squares + apart * apart * (n * m / (n + m)),
            low: smaller(self.low, other.low),
            high: larger(self.high, other.high),
        }
    }

    /// Mean and standard deviation; errors as of [`moments`].
    pub(crate) fn moments(&self, ddof: usize) -> Result<Moments> {
        if self.count == 0 {
            return Err(Error::new(Kind::MaskEmpty, "no voxel to take statistics from"));
        }
        // Equal extremes rather than a zero deviation: rounding of the mean leaves a constant volume a deviation just above zero.
        if self.low == self.high || self.count <= ddof {
            return Err(Error::new(Kind::VolumeConstant, format!("{} voxels of one value", self.count)));
        }
        let std = (self.squares / (self.count - ddof) as f64).sqrt();
        if !(self.mean.is_finite() && std.is_finite() && std > 0.0) {
            return Err(Error::new(Kind::VolumeInvalid, "mean or standard deviation is not finite"));
        }
        Ok(Moments { count: self.count, mean: self.mean, std })
    }
}

/// Summary of the voxels that count and lie in a band. The mask has been checked.
pub(crate) fn summarize(voxels: &[f32], over: Over, band: Band) -> Summary {
    // Collected in the order of the blocks and joined in it: which thread was first does not matter.
    let parts: Vec<Summary> = voxels
        .par_chunks(BLOCK)
        .enumerate()
        .map(|(index, block)| {
            let mut summary = Summary::EMPTY;
            each_line(index * BLOCK, block, over, band, |line| summary = summary.join(Summary::of(line)));
            summary
        })
        .collect();
    parts.into_iter().fold(Summary::EMPTY, Summary::join)
}

/// Fails with [`Kind::InvalidArgument`] when a mask has another length than the volume.
pub(crate) fn check_mask(voxels: &[f32], over: Over) -> Result<()> {
    match over {
        Over::Mask(mask) if mask.len() != voxels.len() => {
            Err(Error::new(Kind::InvalidArgument, "the mask has another size than the volume").at(Stage::Imaging))
        }
        _ => Ok(()),
    }
}

/// Calls for the voxels of a block that count and lie in a band, at most [`LINE`] at a time. `start` is the block's place in the volume.
pub(crate) fn each_line(start: usize, block: &[f32], over: Over, band: Band, mut call: impl FnMut(&[f32])) {
    let mut buffer = [0.0f32; LINE];
    let inside = |value: f32| (value > band.above) & (value <= band.up_to);
    for (index, line) in block.chunks(LINE).enumerate() {
        let packed = match over {
            Over::All if band == Band::ALL => line,
            Over::All => pack(line.iter().map(|value| (*value, inside(*value))), &mut buffer),
            // NaN counts, so that it is found: it is in no band, and a band that is every number is not asked.
            Over::Nonzero if band == Band::ALL => pack(line.iter().map(|value| (*value, *value != 0.0)), &mut buffer),
            Over::Nonzero => pack(line.iter().map(|value| (*value, (*value != 0.0) & inside(*value))), &mut buffer),
            Over::Above(limit) if band == Band::ALL => pack(line.iter().map(|value| (*value, above(*value, limit))), &mut buffer),
            Over::Above(limit) => pack(line.iter().map(|value| (*value, (*value > limit) & inside(*value))), &mut buffer),
            Over::Mask(mask) => {
                let from = start + index * LINE;
                let mask = mask.get(from..from + line.len()).unwrap_or_default();
                let pairs = line.iter().zip(mask);
                if band == Band::ALL {
                    pack(pairs.map(|(value, mask)| (*value, *mask != 0)), &mut buffer)
                } else {
                    pack(pairs.map(|(value, mask)| (*value, (*mask != 0) & inside(*value))), &mut buffer)
                }
            }
        };
        if !packed.is_empty() {
            call(packed);
        }
    }
}

/// Whether a value is above a limit, or NaN.
fn above(value: f32, limit: f32) -> bool {
    (value > limit) | value.is_nan()
}

/// Moves the values that are chosen together, without a branch for each.
fn pack(pairs: impl Iterator<Item = (f32, bool)>, buffer: &mut [f32; LINE]) -> &[f32] {
    let mut count = 0;
    for (value, chosen) in pairs {
        // A line has at most LINE values, so the remainder changes nothing but spares the test of the index.
        buffer[count % LINE] = value;
        count = count.wrapping_add(usize::from(chosen));
    }
    buffer.get(..count).unwrap_or_default()
}

/// Smallest and largest of a line.
fn ends(line: &[f32]) -> (f32, f32) {
    let (chunks, rest) = line.as_chunks::<EXTREMES>();
    // Two loops, as one that gathers both is not vectorised.
    let (mut low, mut high) = ([f32::INFINITY; EXTREMES], [f32::NEG_INFINITY; EXTREMES]);
    for chunk in chunks {
        low.iter_mut().zip(chunk).for_each(|(low, value)| *low = smaller(*low, *value));
    }
    for chunk in chunks {
        high.iter_mut().zip(chunk).for_each(|(high, value)| *high = larger(*high, *value));
    }
    low.iter_mut().zip(rest).for_each(|(low, value)| *low = smaller(*low, *value));
    high.iter_mut().zip(rest).for_each(|(high, value)| *high = larger(*high, *value));
    (low.into_iter().fold(f32::INFINITY, smaller), high.into_iter().fold(f32::NEG_INFINITY, larger))
}

// Unlike `f32::min` and `f32::max` these are one instruction. A NaN as second argument is passed over.
fn smaller(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

fn not_finite(bad: u64) -> Error {
    Error::new(Kind::VolumeInvalid, format!("{bad} voxels are nan or infinite"))
}

fn check_percents(percents: &[f64]) -> Result<()> {
    if percents.iter().any(|q| !(0.0..=100.0).contains(q)) {
        return Err(Error::new(Kind::InvalidArgument, "a percentile lies outside 0 to 100").at(Stage::Imaging));
    }
    Ok(())
}
