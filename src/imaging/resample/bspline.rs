//! Interpolation by cubic B-splines (Unser, Aldroubi and Eden 1993; ITK's BSplineInterpolateImageFunction of order 3, mirrored at the edges).
//!
//! Values become coefficients by a recursive filter along each axis, there and back; a value between voxels is the sum of four by four by four
//! coefficients. On a grid along the volume's own axes the sum is separable too (the module `separable`). The filter runs in float32, on many
//! lines at a time: along rows on eight that are turned into columns, across rows and planes on all columns of a band.

use rayon::prelude::*;

use super::separable::{self, Axis, LANES, turn, turn_back};
use crate::control::Control;
use crate::error::Result;
use crate::imaging::grid::{AxisMap, filled};

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
            along(plane, data, width);
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
        let axes = axes.map(|map| {
            Axis::<4>::new(map.len, dims[map.source], |index| {
                let taps = Taps::new(map.start + map.step * index as f64, dims[map.source]);
                (taps.indices, taps.weights)
            })
        });
        separable::interpolate(&self.values, dims, &axes, control)
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

/// The filter along the rows of a plane.
fn along(out: &mut [f32], data: &[f32], width: usize) {
    let block = (LANES * width).max(1);
    let mut columns = vec![[0.0f32; LANES]; width];
    for (out, data) in out.chunks_mut(block).zip(data.chunks(block)) {
        if width < 2 {
            out.copy_from_slice(data);
            continue;
        }
        turn(&mut columns, data.chunks(width));
        recurse_columns(&mut columns);
        turn_back(out.chunks_mut(width), &columns);
    }
}

/// The filter along an axis, for eight lines at once.
fn recurse_columns(columns: &mut [[f32; LANES]]) {
    let len = columns.len();
    let (pole, gain, end) = (POLE as f32, GAIN as f32, (POLE / (POLE * POLE - 1.0)) as f32);
    columns.iter_mut().flatten().for_each(|value| *value *= gain);
    let mut before: [f32; LANES] = std::array::from_fn(|lane| first(len, |index| f64::from(columns[index][lane])) as f32);
    let Some((start, rest)) = columns.split_first_mut() else { return };
    *start = before;
    let mut one_before = before;
    for column in rest.iter_mut() {
        one_before = before;
        before = std::array::from_fn(|lane| column[lane] + pole * before[lane]);
        *column = before;
    }
    let Some((last, rest)) = columns.split_last_mut() else { return };
    let mut after: [f32; LANES] = std::array::from_fn(|lane| end * (pole * one_before[lane] + before[lane]));
    *last = after;
    for column in rest.iter_mut().rev() {
        after = std::array::from_fn(|lane| pole * (after[lane] - column[lane]));
        *column = after;
    }
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
    let start: Vec<f32> = if HORIZON < len {
        // As `first` does, for all columns line by line.
        let mut sums = vec![0.0f64; width];
        for line in lines[..HORIZON].iter().rev() {
            sums.iter_mut().zip(line.iter()).for_each(|(sum, value)| *sum = *sum * POLE + f64::from(*value));
        }
        sums.into_iter().map(|sum| sum as f32).collect()
    } else {
        (0..width).map(|column| first(len, |index| f64::from(lines[index][column])) as f32).collect()
    };
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
