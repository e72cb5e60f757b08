//! Interpolation on grids along a volume's own axes, one axis at a time: linear with two taps, cubic B-splines with four.
//!
//! Each row of the volume is stretched along x once, rows are combined along y once, and the combinations are combined along z as the
//! planes of the result ask for them. The result is cut into bands of rows; for each, a ring of as many planes as there are taps stays in a cache. Beyond
//! the result, memory is that of the rings.
//!
//! Along x, neighbours lie in one row, where no two voxels of the result read alike: eight rows are turned into columns of eight, so that
//! every step is one operation on all eight, and turned back.
//!
//! Every value of the result comes from its own taps by the same operations in the same order, whatever the bands and threads.

use rayon::prelude::*;

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::grid::voxel_count;
use crate::memory;

/// Rows that are turned together.
pub(super) const LANES: usize = 8;
/// Floats of a ring, about: 192 KiB, less than half of the second-level cache of most processors.
const RING: usize = 48 << 10;
/// Fewest and most rows of a band. Source rows at the border of two bands are stretched for both.
const FEWEST: usize = 8;
const MOST: usize = 64;

/// For each index of an axis: which voxels of the volume it is made of, and their weights.
pub(super) struct Axis<const TAPS: usize> {
    indices: Vec<[usize; TAPS]>,
    weights: Vec<[f32; TAPS]>,
    /// Whether every index is a voxel of its own, in order.
    is_copy: bool,
}

impl<const TAPS: usize> Axis<TAPS> {
    /// `taps` gives, for each of `count` indices, voxels of an axis of `len` and their weights. Weights of two taps are 1 - t and t.
    pub(super) fn new(count: usize, len: usize, taps: impl Fn(usize) -> ([usize; TAPS], [f64; TAPS])) -> Axis<TAPS> {
        let (indices, weights): (Vec<[usize; TAPS]>, Vec<[f64; TAPS]>) = (0..count).map(taps).unzip();
        let is_copy =
            count == len && indices.iter().zip(&weights).enumerate().all(|(at, (index, weight))| index[0] == at && weight[0] == 1.0);
        Axis { indices, weights: weights.into_iter().map(|weights| weights.map(|weight| weight as f32)).collect(), is_copy }
    }
}

/// Values on a grid; axes x, y, z. The data fill their grid, and every tap lies in it.
///
/// # Errors
/// [`Kind::OutOfMemory`]; [`Kind::LimitExceeded`]; [`Kind::Cancelled`].
pub(super) fn interpolate<const TAPS: usize>(
    data: &[f32],
    dims: [usize; 3],
    axes: &[Axis<TAPS>; 3],
    control: &Control,
) -> Result<Vec<f32>> {
    let [width, height, depth] = [0, 1, 2].map(|axis| axes[axis].indices.len());
    control.check()?;
    let count = voxel_count([width, height, depth])?;
    let mut out = memory::zeros(count).ok_or_else(|| Error::new(Kind::OutOfMemory, "the resampled volume").at(Stage::Imaging))?;
    let rows = (RING / (TAPS * width.max(1))).clamp(FEWEST, MOST);
    let mut bands: Vec<Vec<&mut [f32]>> = (0..height.div_ceil(rows)).map(|_| Vec::with_capacity(depth)).collect();
    for plane in out.chunks_mut((width * height).max(1)) {
        bands.iter_mut().zip(plane.chunks_mut(rows * width)).for_each(|(band, part)| band.push(part));
    }
    bands.into_par_iter().enumerate().try_for_each(|(index, planes)| {
        let last = ((index + 1) * rows).min(height);
        let mut ring = Ring::new(data, dims, axes, index * rows..last);
        for ((plane, taps), weights) in planes.into_iter().zip(&axes[2].indices).zip(&axes[2].weights) {
            control.check()?;
            let slots = ring.hold(taps);
            combine(plane, slots.map(|slot| ring.plane(slot)), *weights);
        }
        Ok::<(), Error>(())
    })?;
    Ok(out)
}

/// A band's planes of the volume, stretched along x and y, as many as there are taps.
struct Ring<'a, const TAPS: usize> {
    data: &'a [f32],
    dims: [usize; 3],
    x: &'a Axis<TAPS>,
    /// Rows of the volume that the band is made of, in order.
    sources: Vec<usize>,
    /// For each row of the band: its taps, as places in `sources`, and their weights.
    rows: Vec<([usize; TAPS], [f32; TAPS])>,
    /// The planes, one behind the other, and which plane of the volume each is.
    planes: Vec<f32>,
    held: [Option<usize>; TAPS],
    /// Source rows of one plane, stretched.
    stretched: Vec<f32>,
    /// Eight rows as columns, before and after they are stretched.
    turned: [Vec<[f32; LANES]>; 2],
}

impl<'a, const TAPS: usize> Ring<'a, TAPS> {
    fn new(data: &'a [f32], dims: [usize; 3], axes: &'a [Axis<TAPS>; 3], band: std::ops::Range<usize>) -> Ring<'a, TAPS> {
        let (indices, weights) = (&axes[1].indices[band.clone()], &axes[1].weights[band]);
        let mut sources: Vec<usize> = indices.iter().flatten().copied().collect();
        sources.sort_unstable();
        sources.dedup();
        let place = |row: usize| sources.partition_point(|source| *source < row);
        let rows: Vec<_> = indices.iter().map(|taps| taps.map(place)).zip(weights.iter().copied()).collect();
        let width = axes[0].indices.len();
        Ring {
            data,
            dims,
            x: &axes[0],
            planes: vec![0.0; TAPS * rows.len() * width],
            held: [None; TAPS],
            stretched: vec![0.0; if axes[0].is_copy { 0 } else { sources.len() * width }],
            turned: [vec![[0.0; LANES]; dims[0]], vec![[0.0; LANES]; width]],
            sources,
            rows,
        }
    }

    fn plane(&self, slot: usize) -> &[f32] {
        let size = self.rows.len() * self.x.indices.len();
        &self.planes[slot * size..(slot + 1) * size]
    }

    /// Sees that planes of the volume are in the ring, and says where.
    fn hold(&mut self, wanted: &[usize; TAPS]) -> [usize; TAPS] {
        wanted.map(|plane| match self.held.iter().position(|held| *held == Some(plane)) {
            Some(slot) => slot,
            None => {
                // As many slots as taps: while one is missing, a slot holds what is not wanted.
                let free = |held: &Option<usize>| held.is_none_or(|held| !wanted.contains(&held));
                let slot = self.held.iter().position(free).unwrap_or_default();
                self.fill(slot, plane);
                self.held[slot] = Some(plane);
                slot
            }
        })
    }

    fn fill(&mut self, slot: usize, plane: usize) {
        let (width, length) = (self.x.indices.len(), self.dims[0]);
        let (data, height) = (self.data, self.dims[1]);
        let source = |row: usize| &data[(plane * height + row) * length..(plane * height + row + 1) * length];
        if !self.x.is_copy {
            let [before, after] = &mut self.turned;
            for (rows, lines) in self.sources.chunks(LANES).zip(self.stretched.chunks_mut((LANES * width).max(1))) {
                turn(before, rows.iter().map(|row| source(*row)));
                for ((value, taps), weights) in after.iter_mut().zip(&self.x.indices).zip(&self.x.weights) {
                    let values = taps.map(|tap| before[tap]);
                    *value = std::array::from_fn(|lane| blend(values.map(|value| value[lane]), *weights));
                }
                turn_back(lines.chunks_mut(width.max(1)), after);
            }
        }
        let size = self.rows.len() * width;
        let lines = self.planes[slot * size..(slot + 1) * size].chunks_mut(width.max(1));
        for (line, (taps, weights)) in lines.zip(&self.rows) {
            let rows =
                taps.map(|tap| if self.x.is_copy { source(self.sources[tap]) } else { &self.stretched[tap * width..(tap + 1) * width] });
            combine(line, rows, *weights);
        }
    }
}

/// Rows, no more than [`LANES`], as columns.
#[inline(always)]
pub(super) fn turn<'a>(columns: &mut [[f32; LANES]], rows: impl Iterator<Item = &'a [f32]>) {
    for (lane, row) in (0..LANES).zip(rows) {
        columns.iter_mut().zip(row).for_each(|(column, value)| column[lane] = *value);
    }
}

/// Columns as rows again.
#[inline(always)]
pub(super) fn turn_back<'a>(rows: impl Iterator<Item = &'a mut [f32]>, columns: &[[f32; LANES]]) {
    for (lane, row) in (0..LANES).zip(rows) {
        row.iter_mut().zip(columns).for_each(|(value, column)| *value = column[lane]);
    }
}

/// The weighted sum of lines of one length.
fn combine<const TAPS: usize>(out: &mut [f32], lines: [&[f32]; TAPS], weights: [f32; TAPS]) {
    if weights[0] == 1.0 {
        out.copy_from_slice(lines[0]);
        return;
    }
    let count = out.len();
    let lines = lines.map(|line| &line[..count]);
    for (index, value) in out.iter_mut().enumerate() {
        *value = blend(lines.map(|line| line[index]), weights);
    }
}

/// The weighted sum. Of two values it is the first and a part of the way to the second: exact where they are equal.
#[inline(always)]
fn blend<const TAPS: usize>(values: [f32; TAPS], weights: [f32; TAPS]) -> f32 {
    match TAPS {
        2 => values[0] + (values[1] - values[0]) * weights[1],
        _ => (values[0] * weights[0] + values[1] * weights[1]) + (values[2] * weights[2] + values[3] * weights[3]),
    }
}
