//! A mask as rows of bits, 64 voxels a word: an eighth of a byte mask, and the form in which runs are found and compared a word at a time.
//!
//! Run ends are found by arithmetic on whole words: adding the lowest set bit of a word to it carries through the run that begins there
//! (Knuth, The Art of Computer Programming 4A, 7.1.3), so no voxel is looked at one by one and no branch hangs on a voxel's value.

use rayon::prelude::*;

use crate::control::Control;
use crate::error::Result;
use crate::imaging::grid::filled;

/// Voxels of a word.
pub(super) const WORD: usize = 64;
/// Multiplying eight bytes that are 0 or 1 by this moves byte i to bit 56 + i and nothing else there.
const GATHER: u64 = 0x0102_0408_1020_4080;

/// Rows of bits; the bits past the end of a row are 0.
pub(super) struct BitRows {
    words: Vec<u64>,
    /// Words of a row, at least 1.
    per_row: usize,
}

impl BitRows {
    /// The voxels for which a test holds. The data fill the grid.
    ///
    /// # Errors
    /// [`crate::error::Kind::OutOfMemory`]; [`crate::error::Kind::Cancelled`].
    pub(super) fn of<T: Copy + Sync>(
        data: &[T],
        dims: [usize; 3],
        inside: impl Fn(T) -> bool + Sync,
        control: &Control,
    ) -> Result<BitRows> {
        let [width, height, _] = dims;
        let mut rows = BitRows::empty(width, data.len() / width.max(1))?;
        let (plane, per_plane) = ((width * height).max(1), (rows.per_row * height).max(1));
        rows.words.par_chunks_mut(per_plane).zip(data.par_chunks(plane)).try_for_each(|(words, plane)| {
            control.check()?;
            for (row, line) in words.chunks_mut(width.div_ceil(WORD).max(1)).zip(plane.chunks(width.max(1))) {
                for (word, values) in row.iter_mut().zip(line.chunks(WORD)) {
                    *word = pack(values, &inside);
                }
            }
            Ok::<(), crate::error::Error>(())
        })?;
        Ok(rows)
    }

    /// Rows without a set bit.
    ///
    /// # Errors
    /// [`crate::error::Kind::OutOfMemory`].
    pub(super) fn empty(width: usize, rows: usize) -> Result<BitRows> {
        let per_row = width.div_ceil(WORD).max(1);
        // No more than the voxels, of which there are as many as addresses at most.
        Ok(BitRows { words: filled(rows * per_row, 0u64)?, per_row })
    }

    /// The words of a row; none past the last row.
    pub(super) fn row(&self, row: usize) -> &[u64] {
        let start = row * self.per_row;
        self.words.get(start..start + self.per_row).unwrap_or_default()
    }

    /// The words of all rows, `per_row` each.
    pub(super) fn all_mut(&mut self) -> (&mut [u64], usize) {
        (&mut self.words, self.per_row)
    }
}

/// Up to 64 voxels as bits.
#[inline(always)]
fn pack<T: Copy>(values: &[T], inside: &impl Fn(T) -> bool) -> u64 {
    let mut flags = [0u8; WORD];
    for (flag, value) in flags.iter_mut().zip(values) {
        *flag = u8::from(inside(*value));
    }
    let (eights, _) = flags.as_chunks::<8>();
    eights.iter().enumerate().fold(0, |word, (index, eight)| {
        let byte = u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56;
        word | byte << (8 * index)
    })
}

/// The bits of a word at which runs begin, where `before` is the word before it in its row.
#[inline(always)]
pub(super) fn starts(word: u64, before: u64) -> u64 {
    word & !(word << 1 | before >> 63)
}

/// The lowest run of a word (0 when it has none), and the word without it.
#[inline(always)]
pub(super) fn lowest_run(word: u64) -> (u64, u64) {
    let rest = word & word.wrapping_add(word & word.wrapping_neg());
    (word ^ rest, rest)
}

/// How many of some bits lie at or before the lowest bit of a word that is not 0.
#[inline(always)]
pub(super) fn rank(bits: u64, of: u64) -> u32 {
    (bits & (of ^ of.wrapping_sub(1))).count_ones()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_the_voxels() {
        for dims in [[1, 1, 1], [64, 2, 1], [65, 3, 2], [130, 1, 3], [7, 5, 4]] {
            let data: Vec<u16> = (0..dims.iter().product::<usize>()).map(|i| (i * 40_503 % 977) as u16).collect();
            let bits = BitRows::of(&data, dims, |value| value % 3 == 1, &Control::new()).unwrap();
            for (index, value) in data.iter().enumerate() {
                let (row, column) = (index / dims[0], index % dims[0]);
                assert_eq!(bits.row(row)[column / 64] >> (column % 64) & 1 == 1, value % 3 == 1);
            }
            assert!(bits.row(dims[1] * dims[2]).is_empty());
        }
    }

    #[test]
    fn runs_are_taken_off_a_word_from_below() {
        let mut word = 0xC000_0000_0000_71D1u64;
        let mut runs = Vec::new();
        while word != 0 {
            let (run, rest) = lowest_run(word);
            runs.push(run);
            word = rest;
        }
        assert_eq!(runs, [1, 0x10, 0x1C0, 0x1000 | 0x2000 | 0x4000, 0xC000_0000_0000_0000]);
        assert_eq!((starts(0b1011, 0), starts(0b1011, 1 << 63), starts(u64::MAX, 0)), (0b1001, 0b1000, 1));
        assert_eq!((rank(0b1001, 0b100), rank(0b1001, 0b1000), rank(u64::MAX, 1 << 63)), (1, 2, 64));
    }
}
