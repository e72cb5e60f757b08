//! A stack that is no grid, made into one: tilt sheared out, uneven steps made even.
//!
//! Slices stay what they are; only where they lie on the new grid differs. The new grid has the slices' own directions and pixel spacing, its
//! third axis is their normal. A slice of it is interpolated linearly between the two slices next to it, and within a slice between
//! pixels, where the slice lies between them. With a tilt alone, each slice is one slice of the original, moved. Voxels that no slice
//! reaches take the lowest value of the volume, which is air or nothing in every modality that has tilted gantries.
//!
//! Where the frames lay is kept ([`Frames`]), so a mask on the new grid returns to each of them by its nearest voxel. Moving by whole pixels is
//! exact there and back.

use rayon::prelude::*;

use super::{Geometry, Verdict, affine, scaled};
use crate::control::Control;
use crate::error::{Error, Kind, Result};

/// Parts of a pixel that are rounding of positions, not a movement.
const SAME_PIXEL: f64 = 1e-3;

/// Parts of a slice that are rounding of sums.
const SAME_SLICE: f64 = 1e-9;

/// Where the original frames lie, in slice order.
#[derive(Clone, Debug, PartialEq)]
pub struct Frames {
    /// Columns, rows.
    pub dims: [usize; 2],
    /// Patient coordinates (LPS, mm) from column to column.
    pub per_column: [f64; 3],
    /// From row to row.
    pub per_row: [f64; 3],
    /// Unit normal.
    pub normal: [f64; 3],
    /// First voxel of each frame.
    pub origins: Vec<[f64; 3]>,
}

impl Frames {
    /// Grid of one frame, a slice of 1 mm, for whoever resamples a mask back onto it.
    pub fn grid(&self, frame: usize) -> Option<Geometry> {
        let origin = *self.origins.get(frame)?;
        let [columns, rows] = self.dims;
        Some(Geometry {
            dims: [columns, rows, 1],
            spacing_mm: [super::length(self.per_column), super::length(self.per_row), 1.0],
            affine_lps: affine(self.per_column, self.per_row, self.normal, origin),
            verdict: Verdict::SingleSlice,
        })
    }
}

/// Where each frame lies on the grid to come.
pub(crate) struct Upright {
    /// Of a frame.
    pub(super) from: [usize; 2],
    /// Of the grid.
    pub(super) dims: [usize; 3],
    /// Column, row and slice of each frame's first voxel on the grid.
    pub(super) places: Vec<[f64; 3]>,
}

impl Upright {
    /// Lays out the grid: how far the frames are moved within their planes, in pixels, and how high they lie, in slices. Also answers the
    /// column and row of the first frame at which the grid begins.
    pub(super) fn plan(from: [usize; 2], shifts: &[[f64; 2]], heights: &[f64]) -> Result<(Upright, [f64; 2])> {
        let too_large = || Error::new(Kind::LimitExceeded, "the upright grid is too large");
        let (mut least, mut sizes) = ([0.0f64; 2], [0usize; 2]);
        for axis in 0..2 {
            let moved = |shift: &[f64; 2]| snapped(shift.get(axis).copied().unwrap_or_default());
            let (low, high) = shifts.iter().map(moved).fold((0.0f64, 0.0f64), |(low, high), shift| (low.min(shift), high.max(shift)));
            let (low, high) = (low.floor(), high.ceil());
            let (Some(low_slot), Some(size)) = (least.get_mut(axis), sizes.get_mut(axis)) else { return Err(too_large()) };
            // Scanned pixels are at most 65535 a side; a grid of many times that has positions that mean nothing.
            if !(high - low).is_finite() || high - low > 65_535.0 {
                return Err(too_large());
            }
            *low_slot = low;
            *size = from.get(axis).copied().unwrap_or_default() + (high - low) as usize;
        }
        let [left, top] = least;
        let places = shifts.iter().zip(heights).map(|([u, v], height)| [snapped(*u) - left, snapped(*v) - top, *height]).collect();
        let ([columns, rows], highest) = (sizes, heights.last().copied().unwrap_or_default());
        Ok((Upright { from, dims: [columns, rows, highest.round() as usize + 1], places }, least))
    }

    /// The voxels of the grid from those of the frames in slice order. `upright` is as large as the grid.
    pub(crate) fn resample(&self, frames: &[f32], upright: &mut [f32], control: &Control) -> Result<()> {
        let [columns, rows, _] = self.dims;
        let (size, frame_size) = (columns * rows, self.from.iter().product::<usize>());
        if size == 0 || frame_size == 0 || frames.len() != frame_size * self.places.len() || upright.len() != size * self.dims[2] {
            return Err(Error::new(Kind::Internal, "an upright grid of another size"));
        }
        let air = frames.iter().copied().fold(f32::INFINITY, f32::min);
        upright.par_chunks_mut(size).enumerate().try_for_each(|(slice, voxels)| {
            control.check()?;
            let mut sum = vec![0.0f64; size];
            for (frame, weight) in self.neighbours(slice) {
                let pixels = frames.get(frame * frame_size..(frame + 1) * frame_size).unwrap_or_default();
                self.add(pixels, frame, weight, f64::from(air), &mut sum);
            }
            voxels.iter_mut().zip(&sum).for_each(|(voxel, sum)| *voxel = *sum as f32);
            Ok(())
        })
    }

    /// The frames that a slice is made of, and how much of each.
    fn neighbours(&self, slice: usize) -> Vec<(usize, f64)> {
        let at = slice as f64;
        let height = |frame: usize| self.places.get(frame).map_or(0.0, |place| place[2]);
        // The first frame that is not below the slice.
        let above = self.places.partition_point(|place| place[2] < at - SAME_SLICE).min(self.places.len() - 1);
        if above == 0 || (height(above) - at).abs() <= SAME_SLICE {
            return vec![(above, 1.0)];
        }
        let (low, high) = (height(above - 1), height(above));
        let part = ((at - low) / (high - low)).clamp(0.0, 1.0);
        vec![(above - 1, 1.0 - part), (above, part)]
    }

    /// Adds a frame, moved to its place, to a slice.
    fn add(&self, pixels: &[f32], frame: usize, weight: f64, air: f64, sum: &mut [f64]) {
        let Some([left, top, _]) = self.places.get(frame).copied() else { return };
        let [columns, rows] = self.from;
        let mut line = vec![air; self.dims[0]];
        for (row, sum) in sum.chunks_exact_mut(self.dims[0]).enumerate() {
            // Row of the frame, which may lie between two.
            let Some((above, below, part)) = between(row as f64 - top, rows) else {
                sum.iter_mut().for_each(|sum| *sum += weight * air);
                continue;
            };
            let of = |row: usize| pixels.get(row * columns..(row + 1) * columns).unwrap_or_default();
            let (above, below) = (of(above), of(below));
            for (column, value) in line.iter_mut().enumerate() {
                *value = match between(column as f64 - left, columns) {
                    None => air,
                    Some((a, b, across)) => {
                        let mix = |row: &[f32]| {
                            let (a, b) = (f64::from(row[a]), f64::from(row[b]));
                            a + (b - a) * across
                        };
                        let (a, b) = (mix(above), mix(below));
                        a + (b - a) * part
                    }
                };
            }
            sum.iter_mut().zip(&line).for_each(|(sum, value)| *sum += weight * value);
        }
    }
}

/// The two samples that a place lies between and the part of the way to the second; nothing outside of the samples.
fn between(place: f64, count: usize) -> Option<(usize, usize, f64)> {
    let place = snapped(place);
    let first = place.floor();
    if first < 0.0 || place > (count - 1) as f64 {
        return None;
    }
    let index = first as usize;
    Some((index, (index + 1).min(count - 1), place - first))
}

/// A place on a pixel, where it is one but for rounding.
fn snapped(place: f64) -> f64 {
    let whole = place.round();
    if (place - whole).abs() <= SAME_PIXEL { whole } else { place }
}

/// Patient coordinates of the grid's first voxel.
pub(super) fn origin(first: [f64; 3], least: [f64; 2], per_column: [f64; 3], per_row: [f64; 3]) -> [f64; 3] {
    let ([x, y, z], [a, b, c], [d, e, f]) = (first, scaled(per_column, least[0]), scaled(per_row, least[1]));
    [x + a + d, y + b + e, z + c + f]
}
