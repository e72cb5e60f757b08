//! Intensities: exact percentiles, moments, clipping and scaling.
//!
//! Percentiles are order statistics of all voxels, not read off a histogram of intensities, and use numpy's default definition (linear
//! interpolation, type 7 of Hyndman and Fan 1996), so that a model trained with numpy or MONAI sees the numbers it was trained with.
//! Means and standard deviations are float64 sums over blocks of fixed size, added in order: the same bits for any number of threads.

use rayon::prelude::*;

use crate::error::{Error, Kind, Result, Stage};

/// Voxels per block. Large enough that adding the blocks' sums costs nothing, small enough to share out a single slice.
const BLOCK: usize = 1 << 16;
/// Partial sums within a block: independent chains that a processor can add side by side.
const LANES: usize = 8;

/// Which voxels count.
#[derive(Clone, Copy)]
pub enum Over<'a> {
    /// All.
    All,
    /// Those that are not 0 (skull-stripped images have a background of exact zeros).
    Nonzero,
    /// Those where the mask is not 0; as long as the volume.
    Mask(&'a [u8]),
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
    let bad: usize = voxels.par_chunks(BLOCK).map(|block| block.iter().filter(|value| !value.is_finite()).count()).sum();
    if bad > 0 {
        return Err(Error::new(Kind::VolumeInvalid, format!("{bad} voxels are nan or infinite")));
    }
    Ok(())
}

/// Smallest and largest voxel of a volume without NaN.
pub fn range(voxels: &[f32]) -> (f32, f32) {
    let ends = |block: &[f32]| block.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    voxels.par_chunks(BLOCK).map(ends).reduce(|| (f32::INFINITY, f32::NEG_INFINITY), |a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// Percentiles (0..100) by numpy's `linear` method: position q/100 * (n - 1) among the sorted voxels, interpolated between neighbours.
///
/// # Errors
/// [`Kind::VolumeInvalid`] for an empty volume or one that is not finite; [`Kind::InvalidArgument`] for a percentile outside 0..100.
pub fn percentiles(voxels: &[f32], percents: &[f64]) -> Result<Vec<f64>> {
    if percents.iter().any(|q| !(0.0..=100.0).contains(q)) {
        return Err(Error::new(Kind::InvalidArgument, "a percentile lies outside 0 to 100").at(Stage::Imaging));
    }
    check_finite(voxels)?;
    let last = voxels.len() - 1;
    let places: Vec<(usize, f64)> = percents
        .iter()
        .map(|q| {
            let place = q / 100.0 * last as f64;
            let below = (place.floor() as usize).min(last);
            (below, place - below as f64)
        })
        .collect();
    let mut ranks: Vec<usize> = places.iter().flat_map(|(below, _)| [*below, (below + 1).min(last)]).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let values = order_statistics(voxels, &ranks);
    let value_at = |rank: usize| ranks.binary_search(&rank).ok().and_then(|index| values.get(index)).copied().map_or(f64::NAN, f64::from);
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
/// mask has another length than the volume.
pub fn moments(voxels: &[f32], over: Over, ddof: usize) -> Result<Moments> {
    if let Over::Mask(mask) = over
        && mask.len() != voxels.len()
    {
        return Err(Error::new(Kind::InvalidArgument, "the mask has another size than the volume").at(Stage::Imaging));
    }
    let first = blocks(voxels, over, |value| value);
    if first.count == 0 {
        return Err(Error::new(Kind::MaskEmpty, "no voxel to take statistics from"));
    }
    // Equal extremes rather than a zero deviation: rounding of the mean leaves a constant volume a deviation just above zero.
    if first.low == first.high || first.count <= ddof {
        return Err(Error::new(Kind::VolumeConstant, format!("{} voxels of one value", first.count)));
    }
    let mean = first.sum / first.count as f64;
    let squares = blocks(voxels, over, |value| (value - mean) * (value - mean));
    let std = (squares.sum / (first.count - ddof) as f64).sqrt();
    if !(mean.is_finite() && std.is_finite() && std > 0.0) {
        return Err(Error::new(Kind::VolumeInvalid, "mean or standard deviation is not finite"));
    }
    Ok(Moments { count: first.count, mean, std })
}

/// (x - mean) / std. With [`Over::Nonzero`] zeros stay zeros; with a mask the statistics are the mask's and every voxel is scaled.
///
/// # Errors
/// As [`moments`].
pub fn zscore(voxels: &mut [f32], over: Over, ddof: usize) -> Result<Moments> {
    let measured = moments(voxels, over, ddof)?;
    let nonzero = matches!(over, Over::Nonzero);
    voxels.par_chunks_mut(BLOCK).for_each(|block| {
        for value in block {
            if !(nonzero && *value == 0.0) {
                *value = ((f64::from(*value) - measured.mean) / measured.std) as f32;
            }
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

/// Sum of something over the voxels that count, with their number and extremes.
#[derive(Clone, Copy)]
struct Sums {
    count: usize,
    sum: f64,
    low: f32,
    high: f32,
}

fn blocks(voxels: &[f32], over: Over, term: impl Fn(f64) -> f64 + Sync) -> Sums {
    let one = |index: usize, block: &[f32]| -> Sums {
        let mask = match over {
            Over::Mask(mask) => mask.get(index * BLOCK..index * BLOCK + block.len()),
            _ => None,
        };
        let mut lanes = [0.0f64; LANES];
        let mut sums = Sums { count: 0, sum: 0.0, low: f32::INFINITY, high: f32::NEG_INFINITY };
        for (position, value) in block.iter().enumerate() {
            let counts = match over {
                Over::All => true,
                Over::Nonzero => *value != 0.0,
                Over::Mask(_) => mask.is_some_and(|mask| mask[position] != 0),
            };
            if counts {
                lanes[position % LANES] += term(f64::from(*value));
                sums.count += 1;
                sums.low = sums.low.min(*value);
                sums.high = sums.high.max(*value);
            }
        }
        sums.sum = lanes.iter().sum();
        sums
    };
    // Collected in the order of the blocks and added in it: which thread was first does not matter.
    let parts: Vec<Sums> = voxels.par_chunks(BLOCK).enumerate().map(|(index, block)| one(index, block)).collect();
    parts.iter().fold(Sums { count: 0, sum: 0.0, low: f32::INFINITY, high: f32::NEG_INFINITY }, |a, b| Sums {
        count: a.count + b.count,
        sum: a.sum + b.sum,
        low: a.low.min(b.low),
        high: a.high.max(b.high),
    })
}

/// The voxels of given ranks (ascending, below the length) in sorted order, without sorting or copying: a radix selection over the bits of
/// the floats, two passes of 16 bits each, exact for every input.
fn order_statistics(voxels: &[f32], ranks: &[usize]) -> Vec<f32> {
    let high_counts = count(voxels, |key| Some((key >> 16) as usize));
    // Which value of the upper half each rank falls into, and how many voxels lie below that value.
    let places: Vec<(usize, u64)> = ranks.iter().map(|rank| find(&high_counts, *rank as u64)).collect();
    let mut low_counts: Vec<(usize, Vec<u64>)> = Vec::new();
    for (high, _) in &places {
        if low_counts.last().is_none_or(|(known, _)| known != high) {
            let wanted = *high as u32;
            low_counts.push((*high, count(voxels, |key| (key >> 16 == wanted).then_some((key & 0xffff) as usize))));
        }
    }
    ranks
        .iter()
        .zip(&places)
        .map(|(rank, (high, before))| {
            let low = low_counts.iter().find(|(known, _)| known == high).map_or(0, |(_, counts)| find(counts, *rank as u64 - before).0);
            from_key(((*high as u32) << 16) | low as u32)
        })
        .collect()
}

/// Counts voxels by 16 bits of their keys.
fn count(voxels: &[f32], digit: impl Fn(u32) -> Option<usize> + Sync) -> Vec<u64> {
    let empty = || vec![0u64; 1 << 16];
    // Whole numbers, so the order of addition is free. Large blocks: each costs half a megabyte of counters.
    voxels
        .par_chunks(BLOCK * 64)
        .map(|block| {
            let mut counts = empty();
            for value in block {
                if let Some(place) = digit(to_key(*value)) {
                    counts[place] += 1;
                }
            }
            counts
        })
        .reduce(empty, |mut a, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        })
}

/// The bin that holds a rank, and the number of voxels in the bins before it.
fn find(counts: &[u64], rank: u64) -> (usize, u64) {
    let mut before = 0;
    for (bin, count) in counts.iter().enumerate() {
        if rank < before + count {
            return (bin, before);
        }
        before += count;
    }
    (counts.len() - 1, before)
}

/// A whole number that sorts as the float does (IEEE 754: flip the sign of positives, all bits of negatives).
fn to_key(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 }
}

fn from_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & 0x7fff_ffff } else { !key })
}
