//! Running a model over a grid that is larger than its window, as MONAI's `sliding_window_inference` does.
//!
//! Window starts, overlap and Gaussian importance follow MONAI (monai.inferers.utils and monai.data.utils), because that is what most
//! models were validated with. What differs is memory: windows come ordered by their first slice, so once a batch of windows is
//! done, the slices above the next batch are final. They leave at once, and the accumulators hold the depth of one batch, not the volume: a
//! model with a hundred channels fits where the full stack of maps would not.
//!
//! Windows of pure background may be left out. What no window saw leaves as NaN, which no model's output is.
//!
//! Axes are W (fastest), H, D throughout this file.

use rayon::prelude::*;

use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::imaging::grid::{filled, voxel_count};

/// MONAI's floor of the importance: far corners count little, never nothing.
const LEAST_IMPORTANCE: f32 = 1e-3;
/// MONAI's `sigma_scale`: the Gaussian's sigma over the window's side.
const SIGMA: f32 = 0.125;

/// How a grid is cut into windows. Made by [`Plan::sliding`] or [`Plan::whole`], which keep every window inside the grid.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// Sides of the grid; at least the window's.
    pub(super) dims: [usize; 3],
    /// Sides of a window.
    pub(super) window: [usize; 3],
    /// First voxels of the windows along each axis.
    pub(super) starts: [Vec<usize>; 3],
    /// Whether a window counts more in its middle.
    pub(super) gaussian: bool,
}

/// A channel of a network's input.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    /// Voxels of the whole grid.
    pub(super) voxels: &'a [f32],
    /// Slices beyond the one that a window is at; edges repeat.
    pub(super) offset: i64,
}

impl Layer<'_> {
    fn slice(&self, slice: usize, depth: usize) -> usize {
        slice.saturating_add_signed(self.offset as isize).min(depth.saturating_sub(1))
    }
}

/// What a stitched model is made of: windows in, values out.
pub(super) trait Network {
    /// Runs `count` windows, one after the other in `values`, each one channel after the other, and hands over the output: `count` windows by channels by voxels.
    fn run(&self, values: &[f32], count: usize, window: [usize; 3], take: &mut dyn FnMut(Maps) -> Result<()>) -> Result<()>;
}

/// The output of one run.
pub(super) struct Maps<'a> {
    /// Values of all windows of the run.
    pub(super) values: &'a [f32],
    /// Channels.
    pub(super) channels: usize,
    /// Whether a window's values are ordered by channel first.
    pub(super) channels_first: bool,
}

impl Plan {
    /// One window that holds everything.
    pub(super) fn whole(dims: [usize; 3]) -> Plan {
        Plan { dims, window: dims, starts: [vec![0], vec![0], vec![0]], gaussian: false }
    }

    /// Overlapping windows. The grid must be padded to the window's sides already.
    pub(super) fn sliding(dims: [usize; 3], window: [usize; 3], overlap: f64, gaussian: bool) -> Plan {
        let starts = std::array::from_fn(|axis| {
            let (side, step) = (window[axis], interval(dims[axis], window[axis], overlap));
            let mut starts = Vec::new();
            let mut start = 0;
            // The last window is moved back until it ends with the grid.
            while start + side < dims[axis] {
                starts.push(start);
                start += step;
            }
            starts.push(dims[axis].saturating_sub(side));
            starts
        });
        Plan { dims, window, starts, gaussian }
    }

    /// First voxels of all windows, by their first slice.
    pub(super) fn windows(&self) -> Vec<[usize; 3]> {
        let [xs, ys, zs] = &self.starts;
        zs.iter().flat_map(|z| ys.iter().flat_map(move |y| xs.iter().map(move |x| [*x, *y, *z]))).collect()
    }

    /// The windows in which a channel has a voxel above a value.
    pub(super) fn windows_above(&self, data: &[Layer], background: f32) -> Vec<[usize; 3]> {
        let ([width, height, depth], [side, rows, slices]) = (self.dims, self.window);
        let holds = |[x, y, z]: &[usize; 3]| {
            data.iter().any(|layer| {
                (*z..z + slices).any(|slice| {
                    let slice = layer.slice(slice, depth);
                    (*y..y + rows).any(|row| {
                        let start = (slice * height + row) * width + x;
                        // The maximum of a row is vector code; looking for the first voxel above is not.
                        layer.voxels[start..start + side].iter().copied().fold(f32::NEG_INFINITY, f32::max) > background
                    })
                })
            })
        };
        self.windows().into_par_iter().filter(holds).collect()
    }
}

/// Distance between windows.
fn interval(side: usize, window: usize, overlap: f64) -> usize {
    if side == window { window } else { ((window as f64 * (1.0 - overlap)) as usize).max(1) }
}

/// Weight of each voxel of a window.
pub(super) fn importance(window: [usize; 3], gaussian: bool) -> Result<Vec<f32>> {
    let mut weights = filled(voxel_count(window)?, 1.0f32)?;
    if gaussian {
        let [x, y, z] = window.map(|side| {
            let sigma = side as f32 * SIGMA;
            let place = |index: usize| index as f32 - (side as f32 - 1.0) / 2.0;
            (0..side).map(|index| (place(index) * place(index) / (-2.0 * sigma * sigma)).exp()).collect::<Vec<f32>>()
        });
        for (row, line) in weights.chunks_mut(window[0]).enumerate() {
            // MONAI multiplies slowest axis first.
            let outer = z[row / window[1]] * y[row % window[1]];
            line.iter_mut().zip(&x).for_each(|(weight, x)| *weight = outer * x);
        }
        let least = weights.iter().copied().fold(f32::INFINITY, f32::min).max(LEAST_IMPORTANCE);
        weights.iter_mut().for_each(|weight| *weight = weight.max(least));
    }
    Ok(weights)
}

/// Runs a network over windows of a grid (one layer per channel of its input) and hands out finished slices in order: their index and
/// their values, channel by channel. Slices that no window reaches are left out.
///
/// # Errors
/// Whatever the network or `sink` returns; [`Kind::ModelShape`] when a run's output has another size than its input;
/// [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub(super) fn stitch(
    data: &[Layer],
    plan: &Plan,
    windows: &[[usize; 3]],
    batch: usize,
    network: &dyn Network,
    control: &Control,
    mut sink: impl FnMut(usize, &[f32], usize) -> Result<()>,
) -> Result<()> {
    let [width, height, depth] = plan.dims;
    let area = width * height;
    let voxels = voxel_count(plan.dims)?;
    if data.is_empty() || data.iter().any(|layer| layer.voxels.len() != voxels) || (0..3).any(|axis| plan.window[axis] > plan.dims[axis]) {
        return Err(Error::new(Kind::Internal, "windows that do not fit their grid").at(crate::error::Stage::Inference));
    }
    let size = voxel_count(plan.window)?;
    control.progress("segment", 0.0);
    if plan.window == plan.dims && windows.len() == 1 && data.iter().all(|layer| layer.offset == 0) {
        return alone(data, plan, network, control, sink);
    }
    let weights = importance(plan.window, plan.gaussian)?;
    let per_window = size.saturating_mul(data.len());
    let batch = batch.clamp(1, windows.len().max(1));
    let mut input = filled(per_window.saturating_mul(batch), 0.0f32)?;
    let spread = |group: &[[usize; 3]]| group.last().zip(group.first()).map_or(0, |(last, first)| last[2] - first[2]);
    let deepest = windows.chunks(batch).map(spread).max().unwrap_or(0) + plan.window[2];
    let mut slab = Slab { sums: Vec::new(), weights: filled(area * deepest, 0.0f32)?, channels: 0, depth: deepest, area };
    let mut done = 0;
    for group in windows.chunks(batch) {
        control.check()?;
        let base = group.first().map_or(0, |first| first[2]);
        for (slot, place) in input.chunks_mut(per_window).zip(group) {
            for (layer, slot) in data.iter().zip(slot.chunks_mut(size)) {
                cut(layer, plan, *place, slot);
            }
        }
        let values = &input[..per_window * group.len()];
        network.run(values, group.len(), plan.window, &mut |maps| {
            if maps.channels == 0 || maps.values.len() != size * group.len() * maps.channels {
                return Err(wrong_size());
            }
            slab.prepare(maps.channels)?;
            for (window, [x, y, z]) in maps.values.chunks(size * maps.channels).zip(group) {
                slab.add(window, &maps, plan, &weights, [*x, *y, z - base], width);
            }
            Ok(())
        })?;
        done += group.len();
        control.progress("segment", done as f64 / windows.len() as f64);
        let next = windows.get(done).map_or(depth, |next| next[2]);
        slab.release((next - base).min(deepest), |index, values, channels| sink(base + index, values, channels))?;
    }
    Ok(())
}

/// A single window needs no sums: its weights cancel.
fn alone(
    data: &[Layer],
    plan: &Plan,
    network: &dyn Network,
    control: &Control,
    mut sink: impl FnMut(usize, &[f32], usize) -> Result<()>,
) -> Result<()> {
    let (area, size) = (plan.dims[0] * plan.dims[1], voxel_count(plan.dims)?);
    control.check()?;
    let mut together = Vec::new();
    let values = match data {
        [one] => one.voxels,
        several => {
            together.try_reserve_exact(size * several.len()).map_err(|_| Error::new(Kind::OutOfMemory, "the channels of a volume"))?;
            several.iter().for_each(|layer| together.extend_from_slice(layer.voxels));
            together.as_slice()
        }
    };
    network.run(values, 1, plan.window, &mut |maps| {
        let channels = maps.channels;
        if channels == 0 || maps.values.len() != size * channels {
            return Err(wrong_size());
        }
        let mut slice = filled(area * channels, 0.0f32)?;
        for index in 0..plan.dims[2] {
            control.check()?;
            for (channel, values) in slice.chunks_mut(area).enumerate() {
                if maps.channels_first {
                    values.copy_from_slice(&maps.values[channel * size + index * area..channel * size + (index + 1) * area]);
                } else {
                    let from = maps.values[index * area * channels..].iter().skip(channel).step_by(channels);
                    values.iter_mut().zip(from).for_each(|(value, from)| *value = *from);
                }
            }
            sink(index, &slice, channels)?;
        }
        Ok(())
    })?;
    control.progress("segment", 1.0);
    Ok(())
}

fn wrong_size() -> Error {
    Error::new(Kind::ModelShape, "the output has another size than the input")
}

/// Copies a window out of the grid.
fn cut(layer: &Layer, plan: &Plan, [x, y, z]: [usize; 3], out: &mut [f32]) {
    let [width, height, depth] = plan.dims;
    let [side, rows, _] = plan.window;
    out.par_chunks_mut(side * rows).enumerate().for_each(|(plane, out)| {
        let slice = layer.slice(z + plane, depth);
        for (row, line) in out.chunks_mut(side).enumerate() {
            let start = (slice * height + y + row) * width + x;
            line.copy_from_slice(&layer.voxels[start..start + side]);
        }
    });
}

/// Weighted sums over the depth of one batch of windows.
struct Slab {
    /// Channel, then slice, then row, then column.
    sums: Vec<f32>,
    /// Slice, then row, then column.
    weights: Vec<f32>,
    channels: usize,
    depth: usize,
    area: usize,
}

impl Slab {
    fn prepare(&mut self, channels: usize) -> Result<()> {
        if self.channels == 0 {
            let count = self.weights.len().checked_mul(channels).ok_or_else(|| Error::new(Kind::OutOfMemory, "too many channels"))?;
            self.sums = filled(count, 0.0f32)?;
            self.channels = channels;
        }
        if self.channels == channels {
            Ok(())
        } else {
            Err(Error::new(Kind::ModelShape, "the number of output channels changes from window to window"))
        }
    }

    /// Adds a window. Each slice of each channel is one thread's; within it the order is that of the windows, so sums do not depend on
    /// threads.
    fn add(&mut self, window: &[f32], maps: &Maps, plan: &Plan, weights: &[f32], [x, y, z]: [usize; 3], width: usize) {
        let [side, rows, slices] = plan.window;
        let (depth, size, area, channels) = (self.depth, side * rows * slices, side * rows, self.channels);
        let lines = |plane: &mut [f32], add: &dyn Fn(&mut [f32], std::ops::Range<usize>)| {
            for row in 0..rows {
                let to = (y + row) * width + x;
                add(&mut plane[to..to + side], row * side..(row + 1) * side);
            }
        };
        self.weights.par_chunks_mut(self.area).skip(z).zip(weights.par_chunks(area)).for_each(|(plane, weights)| {
            lines(plane, &|line, from| line.iter_mut().zip(&weights[from]).for_each(|(sum, weight)| *sum += weight));
        });
        self.sums.par_chunks_mut(self.area).enumerate().for_each(|(index, plane)| {
            let (channel, slice) = (index / depth, index % depth);
            if !(z..z + slices).contains(&slice) {
                return;
            }
            let first = (slice - z) * area;
            let weights = &weights[first..first + area];
            if maps.channels_first {
                let map = &window[channel * size + first..channel * size + first + area];
                lines(plane, &|line, from| {
                    line.iter_mut().zip(&weights[from.clone()]).zip(&map[from]).for_each(|((sum, weight), value)| *sum += weight * value);
                });
            } else {
                let map = &window[first * channels..(first + area) * channels];
                lines(plane, &|line, from| {
                    let values = map[from.start * channels..from.end * channels].iter().skip(channel).step_by(channels);
                    line.iter_mut().zip(&weights[from]).zip(values).for_each(|((sum, weight), value)| *sum += weight * value);
                });
            }
        });
    }

    /// Hands out the first `count` slices as weighted means and moves the rest up.
    fn release(&mut self, count: usize, mut sink: impl FnMut(usize, &[f32], usize) -> Result<()>) -> Result<()> {
        let (area, depth) = (self.area, self.depth);
        let mut means = filled(area * self.channels, 0.0f32)?;
        for slice in 0..count {
            let weights = &self.weights[slice * area..(slice + 1) * area];
            means.par_chunks_mut(area).enumerate().for_each(|(channel, mean)| {
                let start = (channel * depth + slice) * area;
                for ((mean, sum), weight) in mean.iter_mut().zip(&self.sums[start..start + area]).zip(weights) {
                    // Every weight is positive; 0 / 0, which is NaN, marks a voxel that no window saw.
                    *mean = sum / weight;
                }
            });
            sink(slice, &means, self.channels)?;
        }
        let shift = |values: &mut [f32]| {
            values.copy_within(count * area.., 0);
            let kept = values.len() - count * area;
            values[kept..].fill(0.0);
        };
        shift(&mut self.weights);
        self.sums.chunks_mut(depth * area).for_each(shift);
        Ok(())
    }
}

/// The next smaller window to try when memory does not suffice: the longest side halved to a multiple. `None` when it cannot shrink.
pub(super) fn smaller(window: [usize; 3], multiple: usize) -> Option<[usize; 3]> {
    let longest = (0..3).max_by_key(|axis| window[*axis])?;
    let half = window[longest] / 2 / multiple.max(1) * multiple.max(1);
    (half > 0).then(|| {
        let mut smaller = window;
        smaller[longest] = half;
        smaller
    })
}

#[cfg(test)]
mod tests;
