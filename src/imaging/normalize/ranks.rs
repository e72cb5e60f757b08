//! Order statistics of voxels without sorting or copying them: a radix selection over the bits of the floats, two halves of 16 bits.
//!
//! The bits of a float, after a change of sign bits, sort as the float does (IEEE 754), so counting the upper halves tells in which value of
//! the upper half each rank lies, and counting the lower halves of the voxels that have it tells the rest: exact for every input, in time
//! that grows with the voxels alone.

use rayon::prelude::*;

use super::{BLOCK, Band, LINE, Over, each_line};

/// Values of half a key.
const HALF: usize = 1 << 16;
/// Tables that take turns in counting, so that a run of equal voxels does not wait for its own counter.
const TURNS: usize = 4;
/// Values of the upper half that one pass resolves: their tables together take 8 MiB.
const GROUP: usize = 8;
/// Voxels that share tables, a multiple of [`BLOCK`]: fewer would spend more time on the tables than on the voxels.
const PIECE: usize = BLOCK * 64;

/// The voxels of given ranks (ascending, below their number) in sorted order; `high_counts` is what [`count_high`] counted.
pub(super) fn order_statistics(voxels: &[f32], over: Over, high_counts: &[u64], ranks: &[u64]) -> Vec<f32> {
    // Which value of the upper half each rank falls into, and how many voxels lie below that value.
    let places: Vec<(usize, u64)> = ranks.iter().map(|rank| find(high_counts, *rank)).collect();
    let mut highs: Vec<usize> = places.iter().map(|(high, _)| *high).collect();
    highs.dedup();
    let low_counts: Vec<Vec<u64>> = highs.chunks(GROUP).flat_map(|group| count_low(voxels, over, group)).collect();
    ranks
        .iter()
        .zip(&places)
        .map(|(rank, (high, before))| {
            let counts = highs.binary_search(high).ok().and_then(|index| low_counts.get(index));
            let low = counts.map_or(0, |counts| find(counts, *rank - before).0);
            from_key(((*high as u32) << 16) | low as u32)
        })
        .collect()
}

/// Voxels that are infinite or NaN, of those that [`count_high`] counted.
pub(super) fn not_finite(high_counts: &[u64]) -> u64 {
    // Their exponents are all ones, and the upper half of a key holds the exponent.
    [0..0x80, 0xff80..HALF].into_iter().filter_map(|ends| high_counts.get(ends)).flatten().sum()
}

/// Counts voxels by the upper half of their keys.
pub(super) fn count_high(voxels: &[f32], over: Over) -> Vec<u64> {
    let counts = count(voxels, over, 1, |line, tables| {
        let [a, b, c, d] = tables else { return };
        let (chunks, rest) = line.as_chunks::<TURNS>();
        let place = |value: f32| (to_key(value) >> 16) as usize;
        for chunk in chunks {
            bump(&mut a[place(chunk[0])]);
            bump(&mut b[place(chunk[1])]);
            bump(&mut c[place(chunk[2])]);
            bump(&mut d[place(chunk[3])]);
        }
        rest.iter().for_each(|value| bump(&mut a[place(*value)]));
    });
    counts.into_iter().next().unwrap_or_default()
}

/// For each of at most [`GROUP`] values of the upper half of a key, counts the voxels that have it by the lower half.
fn count_low(voxels: &[f32], over: Over, highs: &[usize]) -> Vec<Vec<u64>> {
    let mut number_of = vec![u8::MAX; HALF];
    for (number, high) in (0u8..).zip(highs) {
        number_of.iter_mut().skip(*high).take(1).for_each(|entry| *entry = number);
    }
    let Some(number_of) = number_of.first_chunk::<HALF>() else { return Vec::new() };
    count(voxels, over, highs.len(), |line, tables| {
        // Packed first: few voxels are looked for, and where they lie is not to be predicted.
        let (mut keys, mut chosen) = ([0u32; LINE], 0usize);
        for value in line {
            let key = to_key(*value);
            keys[chosen % LINE] = key;
            chosen = chosen.wrapping_add(usize::from(number_of[(key >> 16) as usize] != u8::MAX));
        }
        for (turn, key) in keys.iter().take(chosen).enumerate() {
            let number = usize::from(number_of[(*key >> 16) as usize]);
            if let Some(table) = tables.get_mut(number * TURNS + turn % TURNS) {
                bump(&mut table[(*key & 0xffff) as usize]);
            }
        }
    })
}

/// Adds one. Pieces have fewer voxels than 32 bits count, so that nothing wraps.
fn bump(counter: &mut u32) {
    *counter = counter.wrapping_add(1);
}

/// Fills tables of 32-bit counters line by line, [`TURNS`] that take turns for each that is asked for, and adds them up.
fn count(voxels: &[f32], over: Over, tables: usize, add: impl Fn(&[f32], &mut [[u32; HALF]]) + Sync) -> Vec<Vec<u64>> {
    let sum = |counts: &[[u32; HALF]], sums: &mut [Vec<u64>]| {
        for (turns, sums) in counts.chunks(TURNS).zip(sums) {
            turns.iter().for_each(|turn| sums.iter_mut().zip(turn).for_each(|(sum, count)| *sum = sum.wrapping_add(u64::from(*count))));
        }
    };
    // Whole numbers, so the order of addition is free. Large pieces, as each costs its tables.
    voxels
        .par_chunks(PIECE)
        .enumerate()
        .map(|(index, piece)| {
            let mut counts = vec![0u32; tables * TURNS * HALF];
            let (counts, _) = counts.as_chunks_mut::<HALF>();
            each_line(index * PIECE, piece, over, Band::ALL, |line| add(line, counts));
            let mut sums = vec![vec![0u64; HALF]; tables];
            sum(counts, &mut sums);
            sums
        })
        .reduce(
            || vec![vec![0u64; HALF]; tables],
            |mut a, b| {
                a.iter_mut().flatten().zip(b.iter().flatten()).for_each(|(a, b)| *a = a.wrapping_add(*b));
                a
            },
        )
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
    (counts.len().saturating_sub(1), before)
}

/// A whole number that sorts as the float does (IEEE 754: flip the sign of positives, all bits of negatives).
fn to_key(value: f32) -> u32 {
    // The sign spread over all bits: without a branch, which noise around 0 would mispredict.
    let bits = value.to_bits();
    bits ^ (((bits as i32 >> 31) as u32) | 0x8000_0000)
}

fn from_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & 0x7fff_ffff } else { !key })
}
