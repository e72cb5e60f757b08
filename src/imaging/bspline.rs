//! Interpolation by cubic B-splines (Unser, Aldroubi and Eden 1993; ITK's BSplineInterpolateImageFunction of order 3, mirrored at the edges).
//!
//! Values become coefficients by a recursive filter along each axis, there and back; a value between voxels is the sum of four by four by four
//! coefficients. On a grid along the volume's own axes both are separable: sixteen rows of coefficients are combined for each output row, and four of its numbers
//! for each voxel. The filter runs along rows in float64 and across rows in float32, many columns at a time.

use rayon::prelude::*;

use crate::control::Control;
use crate::error::Result;
use crate::imaging::grid::{AxisMap, filled, voxel_count};

/// The pole of the cubic B-spline's inverse filter: sqrt(3) - 2.
const POLE: f64 = -0.267_949_192_431_122_7;
/// The gain of the filter: (1 - pole)(1 - 1/pole).
const GAIN: f64 = 6.0;
/// Terms of the first coefficient's sum that still count: the pole to this power is below 1e-10.
const HORIZON: usize = 18;

/// Coefficients of a volume, on its own grid.
pub(super) struct Coefficients {
    values: Vec<f32>,
    dims: [usize; 3],
}

impl Coefficients {
    /// Works out the coefficients of a volume.
    ///
    /// # Errors
    /// [`crate::error::Kind::OutOfMemory`]; [`crate::error::Kind::Cancelled`].
    pub(super) fn of(data: &[f32], dims: [usize; 3], control: &Control) -> Result<Coefficients> {
        let [width, height, depth] = dims;
        let mut values = filled(data.len(), 0.0f32)?;
        let plane = (width * height).max(1);
        values.par_chunks_mut(plane).zip(data.par_chunks(plane)).try_for_each(|(plane, data)| {
            control.check()?;
            plane.copy_from_slice(data);
            let mut line = vec![0.0f64; width];
            for row in plane.chunks_mut(width.max(1)) {
                along(row, &mut line);
            }
            across(plane, width, height);
            Ok::<(), crate::error::Error>(())
        })?;
        control.check()?;
        if depth > 1 {
            // Across planes, a band of columns at a time: each thread reads and writes columns of its own.
            let mut bands: Vec<Vec<&mut [f32]>> = Vec::new();
            for plane in values.chunks_mut(plane) {
                for (index, band) in plane.chunks_mut(BAND).enumerate() {
                    if bands.len() <= index {
                        bands.push(Vec::with_capacity(depth));
                    }
                    bands[index].push(band);
                }
            }
            bands.into_par_iter().try_for_each(|mut rows| {
                control.check()?;
                recurse(&mut rows);
                Ok::<(), crate::error::Error>(())
            })?;
        }
        Ok(Coefficients { values, dims })
    }

    /// The value at a position in continuous indices, mirrored beyond the edges.
    pub(super) fn at(&self, place: [f64; 3]) -> f32 {
        let [width, height, _] = self.dims;
        let taps: [Taps; 3] = std::array::from_fn(|axis| Taps::new(place[axis], self.dims[axis]));
        let [x, y, z] = &taps;
        let mut sum = 0.0f64;
        for (plane, wz) in z.indices.iter().zip(z.weights) {
            for (row, wy) in y.indices.iter().zip(y.weights) {
                let start = (plane * height + row) * width;
                let along: f64 = x.indices.iter().zip(x.weights).map(|(column, wx)| f64::from(self.values[start + column]) * wx).sum();
                sum += along * wy * wz;
            }
        }
        sum as f32
    }

    /// Values on a grid along the volume's own axes, in their order.
    ///
    /// # Errors
    /// [`crate::error::Kind::OutOfMemory`]; [`crate::error::Kind::Cancelled`].
    pub(super) fn on(&self, axes: [AxisMap; 3], control: &Control) -> Result<Vec<f32>> {
        let dims = self.dims;
        let tables = axes.map(|map| -> Vec<Taps> {
            (0..map.len).map(|index| Taps::new(map.start + map.step * index as f64, dims[map.source])).collect()
        });
        let [width, height, depth] = axes.map(|map| map.len);
        let mut out = filled(voxel_count([width, height, depth])?, 0.0f32)?;
        let plane = dims[0] * dims[1];
        out.par_chunks_mut((width * height).max(1)).zip(&tables[2]).try_for_each(|(out, z)| {
            control.check()?;
            // Four planes become one, then four rows become one, then four numbers one.
            let mut combined = vec![0.0f32; plane];
            combine(&mut combined, z.indices.map(|index| &self.values[index * plane..(index + 1) * plane]), z.weights);
            let mut row = vec![0.0f32; dims[0]];
            for (line, y) in out.chunks_mut(width.max(1)).zip(&tables[1]) {
                combine(&mut row, y.indices.map(|index| &combined[index * dims[0]..(index + 1) * dims[0]]), y.weights);
                for (value, x) in line.iter_mut().zip(&tables[0]) {
                    let [a, b, c, d] = x.indices.map(|index| row[index]);
                    let [wa, wb, wc, wd] = x.weights.map(|weight| weight as f32);
                    *value = (a * wa + b * wb) + (c * wc + d * wd);
                }
            }
            Ok::<(), crate::error::Error>(())
        })?;
        Ok(out)
    }
}

/// Columns that are filtered together across planes: their coefficients of all planes stay in a cache.
const BAND: usize = 256;

/// The four coefficients that a position takes part in along an axis, and their weights.
struct Taps {
    indices: [usize; 4],
    weights: [f64; 4],
}

impl Taps {
    fn new(place: f64, len: usize) -> Taps {
        let base = place.floor();
        let t = place - base;
        let first = base as i64 - 1;
        let indices = std::array::from_fn(|tap| mirrored(first + tap as i64, len));
        let (u, t2) = (1.0 - t, t * t);
        let weights = [u * u * u / 6.0, (4.0 - 6.0 * t2 + 3.0 * t2 * t) / 6.0, (4.0 - 6.0 * u * u + 3.0 * u * u * u) / 6.0, t2 * t / 6.0];
        Taps { indices, weights }
    }
}

/// An index mirrored at the centres of the first and last voxel.
fn mirrored(index: i64, len: usize) -> usize {
    let last = len.saturating_sub(1) as i64;
    if last == 0 {
        return 0;
    }
    let folded = index.rem_euclid(2 * last);
    folded.min(2 * last - folded) as usize
}

fn combine(out: &mut [f32], rows: [&[f32]; 4], weights: [f64; 4]) {
    let [wa, wb, wc, wd] = weights.map(|weight| weight as f32);
    let [a, b, c, d] = rows;
    for ((((value, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *value = (a * wa + b * wb) + (c * wc + d * wd);
    }
}

/// The filter along one row.
fn along(row: &mut [f32], line: &mut [f64]) {
    let len = row.len();
    if len < 2 {
        return;
    }
    line.iter_mut().zip(row.iter()).for_each(|(coefficient, value)| *coefficient = f64::from(*value) * GAIN);
    line[0] = first(len, |index| line[index]);
    for index in 1..len {
        line[index] += POLE * line[index - 1];
    }
    line[len - 1] = POLE / (POLE * POLE - 1.0) * (POLE * line[len - 2] + line[len - 1]);
    for index in (0..len - 1).rev() {
        line[index] = POLE * (line[index + 1] - line[index]);
    }
    row.iter_mut().zip(line.iter()).for_each(|(value, coefficient)| *value = *coefficient as f32);
}

/// The causal filter's first coefficient of a mirrored signal.
fn first(len: usize, value: impl Fn(usize) -> f64) -> f64 {
    if HORIZON < len {
        return (0..HORIZON).rev().fold(0.0, |sum, index| sum * POLE + value(index));
    }
    // The whole mirrored period, and all its repetitions.
    let (mut sum, mut power) = (value(0), POLE);
    let end = POLE.powi(len as i32 - 1);
    sum += end * value(len - 1);
    let mut back = end * end / POLE;
    for index in 1..len - 1 {
        sum += (power + back) * value(index);
        power *= POLE;
        back /= POLE;
    }
    sum / (1.0 - end * end)
}

/// The filter across the rows of a plane.
fn across(plane: &mut [f32], width: usize, height: usize) {
    if height > 1 {
        let mut rows: Vec<&mut [f32]> = plane.chunks_mut(width.max(1)).collect();
        recurse(&mut rows);
    }
}

/// The filter across lines that lie one behind the other along an axis, for all their numbers at once.
fn recurse(lines: &mut [&mut [f32]]) {
    let len = lines.len();
    let width = lines.first().map_or(0, |line| line.len());
    for line in lines.iter_mut() {
        line.iter_mut().for_each(|value| *value *= GAIN as f32);
    }
    let start: Vec<f32> = (0..width).map(|column| first(len, |index| f64::from(lines[index][column])) as f32).collect();
    lines[0].copy_from_slice(&start);
    let pole = POLE as f32;
    for index in 1..len {
        let (before, rest) = lines.split_at_mut(index);
        for (value, before) in rest[0].iter_mut().zip(before[index - 1].iter()) {
            *value += pole * before;
        }
    }
    let end = (POLE / (POLE * POLE - 1.0)) as f32;
    let (before, last) = lines.split_at_mut(len - 1);
    for (value, before) in last[0].iter_mut().zip(before[len - 2].iter()) {
        *value = end * (pole * before + *value);
    }
    for index in (0..len - 1).rev() {
        let (rest, after) = lines.split_at_mut(index + 1);
        for (value, after) in rest[index].iter_mut().zip(after[0].iter()) {
            *value = pole * (after - *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_mirrored_at_the_centres_of_the_edges() {
        for (index, len, expected) in [(-1, 4, 1), (-3, 4, 3), (4, 4, 2), (6, 4, 0), (7, 4, 1), (-1, 1, 0), (9, 2, 1), (0, 3, 0)] {
            assert_eq!(mirrored(index, len), expected, "{index} of {len}");
        }
    }

    #[test]
    fn a_spline_passes_through_its_values() {
        for dims in [[7, 5, 3], [40, 33, 21], [1, 6, 1], [2, 2, 2], [19, 1, 20]] {
            let count = dims.iter().product::<usize>();
            let data: Vec<f32> = (0..count).map(|index| ((index * 2_654_435_761) % 1000) as f32).collect();
            let coefficients = Coefficients::of(&data, dims, &Control::new()).unwrap();
            for (index, value) in data.iter().enumerate() {
                let place = [index % dims[0], index / dims[0] % dims[1], index / dims[0] / dims[1]].map(|place| place as f64);
                assert!((coefficients.at(place) - value).abs() < 2e-3, "{dims:?} {index}: {} {value}", coefficients.at(place));
            }
        }
    }
}
