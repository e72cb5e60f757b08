//! Piecewise linear maps of intensities, applied to whole volumes: what standardisation and histogram matching end in.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::control::Control;
use crate::error::Result;

/// Voxels per piece of work.
const BLOCK: usize = 1 << 16;
/// Voxels whose pieces are looked up together.
const LANES: usize = 8;

/// A line through (x, y).
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) slope: f64,
}

/// To which piece a voxel belongs that lies on a knot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knot {
    /// The one below.
    Below,
    /// The one above.
    Above,
}

/// Lines that take turns at knots.
pub(super) struct Map {
    /// A voxel belongs to the line of its number of limits below it.
    limits: Vec<f32>,
    lines: Vec<Line>,
}

impl Map {
    /// `lines` are one more than `knots`, which ascend.
    pub(super) fn new(knots: &[f64], at: Knot, lines: Vec<Line>) -> Map {
        // A float is above a knot if it is above the largest float that is not, so comparisons need no float64.
        let limit = |knot: f64| {
            let nearest = knot as f32;
            let is_above = |value: f32| if at == Knot::Below { f64::from(value) > knot } else { f64::from(value) >= knot };
            if is_above(nearest) { nearest.next_down() } else { nearest }
        };
        Map { limits: knots.iter().map(|knot| limit(*knot)).collect(), lines }
    }

    /// Maps every voxel. Progress is that of the stage "preprocess".
    pub(super) fn apply(&self, voxels: &mut [f32], control: &Control) -> Result<()> {
        let (blocks, done) = (voxels.len().div_ceil(BLOCK), AtomicUsize::new(0));
        voxels.par_chunks_mut(BLOCK).try_for_each(|block| {
            control.check()?;
            self.apply_block(block);
            control.progress("preprocess", (done.fetch_add(1, Ordering::Relaxed) + 1) as f64 / blocks as f64);
            Ok(())
        })
    }

    fn apply_block(&self, block: &mut [f32]) {
        let (chunks, rest) = block.as_chunks_mut::<LANES>();
        for chunk in chunks {
            let mut pieces = [0u32; LANES];
            for limit in &self.limits {
                for (piece, value) in pieces.iter_mut().zip(chunk.iter()) {
                    *piece = piece.wrapping_add(u32::from(*value > *limit));
                }
            }
            for (value, piece) in chunk.iter_mut().zip(pieces) {
                self.map(value, piece as usize);
            }
        }
        for value in rest {
            let piece = self.limits.iter().filter(|limit| *value > **limit).count();
            self.map(value, piece);
        }
    }

    fn map(&self, value: &mut f32, piece: usize) {
        if let Some(line) = self.lines.get(piece) {
            *value = (line.y + (f64::from(*value) - line.x) * line.slope) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voxel_on_a_knot_belongs_to_the_side_asked_for() {
        let lines = || (0..3).map(|n| Line { x: 0.0, y: f64::from(n), slope: 0.0 }).collect::<Vec<Line>>();
        // 0.1 is no float32: the nearest lies above it.
        for (at, expected) in [(Knot::Below, [0.0, 0.0, 1.0, 1.0, 2.0]), (Knot::Above, [0.0, 1.0, 1.0, 2.0, 2.0])] {
            let mut voxels = vec![-1.0, -0.5, 0.1, 2.0, 2.5];
            Map::new(&[-0.5, 2.0], at, lines()).apply(&mut voxels, &Control::new()).unwrap();
            assert_eq!(voxels, expected);
            let mut voxels = [0.1f32.next_down(), 0.1].repeat(8);
            Map::new(&[0.1, 9.0], at, lines()).apply(&mut voxels, &Control::new()).unwrap();
            assert_eq!(voxels, [0.0, 1.0].repeat(8));
        }
    }
}
