//! Which voxels count, and the log image of just these: rows of masked voxels, packed slice by slice.
//!
//! Everything that N4 does to voxels it does to masked ones, so nothing else is stored. A slice is the unit of work: its sums are added
//! up in the order of its rows, and slices are added in order, so results are the same bits for any number of threads.

use rayon::prelude::*;

use super::lattice::{Axis, LANES, Lattice, TAPS, Tap, evaluate, row_cubics, spread, total};
use super::sharpen::{Bins, Counts, Histogram, Residual};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};

/// Voxels that are looked at together, while they are in the nearest cache.
const LINE: usize = 512;
/// Slices that share a histogram.
const SLABS: usize = 8;

/// A row's neighbouring masked voxels.
struct Run {
    row: usize,
    start: usize,
    len: usize,
}

/// The masked voxels of one slice, run after run.
struct Slab {
    runs: Vec<Run>,
    /// Logarithms of the voxels as they came.
    log: Vec<f32>,
    /// The same less the field found so far.
    current: Vec<f32>,
}

impl Slab {
    /// Runs row by row; no row is empty.
    fn rows(&self) -> impl Iterator<Item = &[Run]> {
        self.runs.chunk_by(|a, b| a.row == b.row)
    }
}

/// From the first voxel of a row's runs to one past the last.
fn extent(runs: &[Run]) -> (usize, usize) {
    (runs.first().map_or(0, |run| run.start), runs.last().map_or(0, |run| run.start + run.len))
}

/// The masked voxels of a volume.
pub(super) struct Masked {
    /// Columns, rows and slices, after shrinking.
    pub dims: [usize; 3],
    slabs: Vec<Slab>,
    /// Smallest and largest of the log image less the field.
    pub range: (f32, f32),
    /// Voxels.
    pub count: usize,
    /// Once it is cancelled, passes skip what is left of their slices, and what they return means nothing.
    control: Control,
}

/// A volume's masked voxels, every `shrink`-th along each axis.
///
/// The places are those of ITK's shrink filter: centred, rounded in millimetres for an image whose origin is 0.
///
/// # Errors
/// [`Kind::MaskEmpty`]; [`Kind::VolumeInvalid`] when no masked voxel is above 0; [`Kind::InvalidArgument`] when shrinking leaves less than
/// two voxels along an axis; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub(super) fn pack(
    voxels: &[f32],
    dims: [usize; 3],
    spacing_mm: [f64; 3],
    inside: impl Fn(usize) -> bool + Sync,
    shrink: usize,
    control: &Control,
) -> Result<Masked> {
    let small = dims.map(|n| n / shrink);
    if small.iter().any(|n| *n < 2) {
        return Err(Error::new(Kind::InvalidArgument, "n4 needs two voxels along each axis, after shrinking").at(Stage::Imaging));
    }
    let offset = shrink_offsets(dims, small, spacing_mm, shrink);
    let [width, height, depth] = small;
    let slabs = (0..depth)
        .into_par_iter()
        .map(|z| {
            control.check()?;
            let mut slab = Slab { runs: Vec::new(), log: Vec::new(), current: Vec::new() };
            let place =
                |y: usize, x: usize| ((offset[2] + z * shrink) * dims[1] + offset[1] + y * shrink) * dims[0] + offset[0] + x * shrink;
            for y in 0..height {
                let mut x = 0;
                while x < width {
                    let start = x;
                    while x < width && inside(place(y, x)) {
                        x += 1;
                    }
                    if x > start {
                        slab.runs.push(Run { row: y, start, len: x - start });
                    }
                    x += 1;
                }
            }
            let count = slab.runs.iter().map(|run| run.len).sum();
            let reserved = slab.log.try_reserve_exact(count).and_then(|()| slab.current.try_reserve_exact(count));
            reserved.map_err(|_| Error::new(Kind::OutOfMemory, "n4's log image").at(Stage::Imaging))?;
            let mut any_above = false;
            for run in &slab.runs {
                for x in run.start..run.start + run.len {
                    let value = voxels[place(run.row, x)];
                    any_above |= value > 0.0;
                    // ITK leaves values without a logarithm as they are.
                    slab.log.push(if value > 0.0 { value.ln() } else { value });
                }
            }
            slab.current.extend_from_slice(&slab.log);
            Ok((slab, any_above))
        })
        .collect::<Result<Vec<(Slab, bool)>>>()?;
    let any_above = slabs.iter().any(|(_, above)| *above);
    let slabs: Vec<Slab> = slabs.into_iter().map(|(slab, _)| slab).collect();
    let count = slabs.iter().map(|slab| slab.log.len()).sum();
    if count == 0 {
        return Err(Error::new(Kind::MaskEmpty, "n4"));
    }
    if !any_above {
        return Err(Error::new(Kind::VolumeInvalid, "n4 takes logarithms, and no masked voxel is above 0"));
    }
    let range =
        slabs.iter().flat_map(|slab| &slab.log).fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    Ok(Masked { dims: small, slabs, range, count, control: control.clone() })
}

/// First voxel that shrinking reads, per axis.
///
/// ITK puts the shrunk grid's centre on the volume's and rounds the first voxel's place, halves upwards. With even sizes that place is an
/// exact half, so which neighbour it takes hangs on the rounding of millimetres; the arithmetic here is ITK's, in its order.
fn shrink_offsets(dims: [usize; 3], small: [usize; 3], spacing_mm: [f64; 3], shrink: usize) -> [usize; 3] {
    std::array::from_fn(|axis| {
        let spacing = spacing_mm[axis];
        let centre = (dims[axis] - 1) as f64 / 2.0 * spacing;
        let small_centre = (small[axis] - 1) as f64 / 2.0 * (spacing * shrink as f64);
        let place = (centre - small_centre) * (1.0 / spacing);
        // The bound keeps the last voxel that is read inside whatever the rounding does.
        ((place + 0.5).floor().max(0.0) as usize).min(dims[axis] - 1 - (small[axis] - 1) * shrink)
    })
}

impl Masked {
    /// Denominators of a level's control points: Σ b² over the masked voxels.
    pub fn denominators(&self, axes: &[Axis; 3]) -> Vec<f64> {
        let squares = |runs: &[Run], _: &[f32], _: &mut [f32], row: &mut [f64]| {
            runs.iter().for_each(|run| axes[0].add_squares(run.start, run.start + run.len, row));
        };
        self.contract(axes, |tap| &tap.square, |_, _| (), squares)
    }

    /// Numerators of a level's control points: Σ r b³ / Σb² over the masked voxels.
    pub fn numerators(&self, axes: &[Axis; 3], residual: &Residual) -> Vec<f64> {
        let residuals = |slab: &Slab, out: &mut Vec<f32>| {
            out.resize(slab.current.len(), 0.0);
            residual.of(&slab.current, out);
        };
        let fits = |runs: &[Run], residuals: &[f32], dense: &mut [f32], row: &mut [f64]| {
            let (start, end) = extent(runs);
            if residuals.len() == end - start {
                return axes[0].add_row(start, residuals, row);
            }
            // A ragged mask makes many short runs; one long row with zeros between them takes less time than they do.
            dense[start..end].fill(0.0);
            let mut first = 0;
            for run in runs {
                dense[run.start..run.start + run.len].copy_from_slice(&residuals[first..first + run.len]);
                first += run.len;
            }
            axes[0].add_row(start, &dense[start..end], row);
        };
        self.contract(axes, |tap| &tap.fit, residuals, fits)
    }

    /// Contracts something of the masked voxels with one weight per axis. `prepare` makes it for a slice, `add` contracts a row's
    /// runs of it (with a row to work in), `weights` are those of the other axes.
    fn contract(
        &self,
        axes: &[Axis; 3],
        weights: impl Fn(&Tap) -> &[f64; TAPS] + Sync,
        prepare: impl Fn(&Slab, &mut Vec<f32>) + Sync,
        add: impl Fn(&[Run], &[f32], &mut [f32], &mut [f64]) + Sync,
    ) -> Vec<f64> {
        let [nx, ny, nz] = axes.each_ref().map(Axis::points);
        let planes: Vec<Vec<f64>> = self
            .slabs
            .par_iter()
            .map_init(
                || (Vec::new(), vec![0.0f32; self.dims[0]]),
                |(values, dense), slab| {
                    let (mut plane, mut row, mut first) = (vec![0.0; nx * ny], vec![0.0; nx], 0);
                    if self.control.is_cancelled() {
                        return plane;
                    }
                    prepare(slab, values);
                    for runs in slab.rows() {
                        let count: usize = runs.iter().map(|run| run.len).sum();
                        add(runs, values.get(first..first + count).unwrap_or_default(), dense, &mut row);
                        first += count;
                        let tap = &axes[1].taps[runs[0].row];
                        spread(&row, tap.first, weights(tap), &mut plane);
                        row.fill(0.0);
                    }
                    plane
                },
            )
            .collect();
        let mut out = vec![0.0; nx * ny * nz];
        for (plane, tap) in planes.iter().zip(&axes[2].taps) {
            spread(plane, tap.first, weights(tap), &mut out);
        }
        out
    }

    /// Histogram of the log image less the field.
    pub fn histogram(&self, bins: &Bins) -> Counts {
        // Whole numbers: the order of merging does not matter.
        self.slabs
            .par_chunks(SLABS)
            .map(|slabs| {
                let mut histogram = Histogram::new(*bins);
                slabs.iter().take_while(|_| !self.control.is_cancelled()).for_each(|slab| histogram.add(&slab.current));
                histogram.finish()
            })
            .reduce(|| Counts::new(bins), Counts::merge)
    }

    /// Subtracts a new field from the log image. Returns the coefficient of variation of exp(old field - new field).
    pub fn advance(&mut self, axes: &[Axis; 3], lattice: &Lattice) -> f64 {
        let (width, control) = (self.dims[0], &self.control);
        let sums: Vec<Change> = self
            .slabs
            .par_iter_mut()
            .enumerate()
            .map_init(
                || (Vec::new(), vec![0.0f32; width]),
                |(field, dense), (z, slab)| {
                    let mut change = Change::new();
                    if slab.runs.is_empty() || control.is_cancelled() {
                        return change;
                    }
                    field.clear();
                    let (plane, mut cubics) = (lattice.plane(&axes[2], z), Vec::new());
                    for runs in slab.rows() {
                        let (start, end) = extent(runs);
                        row_cubics(&plane, &axes[1], runs[0].row, &mut cubics);
                        let first = field.len();
                        let row = if runs.len() == 1 {
                            field.resize(first + end - start, 0.0);
                            &mut field[first..]
                        } else {
                            &mut dense[start..end]
                        };
                        axes[0].pieces(start, end, |from, to, span| {
                            evaluate(&cubics[span], &axes[0].local[from..to], &mut row[from - start..to - start]);
                        });
                        if runs.len() > 1 {
                            runs.iter().for_each(|run| field.extend_from_slice(&dense[run.start..run.start + run.len]));
                        }
                    }
                    let blocks = field.chunks(LINE).zip(slab.log.chunks(LINE)).zip(slab.current.chunks_mut(LINE));
                    blocks.for_each(|((field, log), current)| change.subtract(log, current, field));
                    change
                },
            )
            .collect();
        let n = self.count as f64;
        let (mut sum, mut squares) = (0.0, 0.0);
        self.range = (f32::INFINITY, f32::NEG_INFINITY);
        for change in &sums {
            sum += change.sum;
            squares += change.squares;
            self.range = (self.range.0.min(change.low), self.range.1.max(change.high));
        }
        let variance = (squares - sum * sum / n).max(0.0) / (n - 1.0).max(1.0);
        variance.sqrt() / (1.0 + sum / n)
    }

    /// The log image less the field, slice by slice.
    pub fn current(&self) -> Vec<Vec<f32>> {
        self.slabs.iter().map(|slab| slab.current.clone()).collect()
    }

    /// [`Masked::advance`]'s measure as ITK sums it: a running mean and variance in float32, voxel after voxel. `before` is what
    /// [`Masked::current`] was.
    pub fn itk_variation(&self, before: &[Vec<f32>]) -> f64 {
        let (mut mean, mut variance, mut n) = (0.0f32, 0.0f32, 0.0f32);
        for (slab, before) in self.slabs.iter().zip(before) {
            for (new, old) in slab.current.iter().zip(before) {
                let ratio = (new - old).exp();
                n += 1.0;
                // ITK keeps float32 numbers, but its constants are float64, and so is what is worked out with them.
                let (exact_n, off) = (f64::from(n), ratio - mean);
                if n > 1.0 {
                    variance = (f64::from(variance) + f64::from(off * off) * (exact_n - 1.0) / exact_n) as f32;
                }
                mean = (f64::from(mean) * (1.0 - 1.0 / exact_n) + f64::from(ratio / n)) as f32;
            }
        }
        f64::from((f64::from(variance) / (f64::from(n) - 1.0)).sqrt() as f32 / mean)
    }
}

/// What a new field changed in a slice: range of the new values, sums of exp(old field - new field) - 1 and its square.
struct Change {
    low: f32,
    high: f32,
    sum: f64,
    squares: f64,
}

impl Change {
    fn new() -> Change {
        Change { low: f32::INFINITY, high: f32::NEG_INFINITY, sum: 0.0, squares: 0.0 }
    }

    /// Takes the new field from a line of the log image, and adds up its new values and its changes: at most [`LINE`] voxels in side-by-side
    /// lanes, few enough for float32 sums.
    fn subtract(&mut self, log: &[f32], current: &mut [f32], field: &[f32]) {
        let mut lanes = [[f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES], [0.0; LANES], [0.0; LANES]];
        let ((log, log_rest), (field, field_rest)) = (log.as_chunks::<LANES>(), field.as_chunks::<LANES>());
        let (current, current_rest) = current.as_chunks_mut::<LANES>();
        for ((log, field), current) in log.iter().zip(field).zip(current) {
            let value: [f32; LANES] = std::array::from_fn(|l| log[l] - field[l]);
            let change: [f32; LANES] = std::array::from_fn(|l| expm1(value[l] - current[l]));
            *current = value;
            let [low, high, sum, squares] = &mut lanes;
            for l in 0..LANES {
                low[l] = smaller(low[l], value[l]);
                high[l] = larger(high[l], value[l]);
                sum[l] += change[l];
                squares[l] += change[l] * change[l];
            }
        }
        for (l, ((log, field), current)) in log_rest.iter().zip(field_rest).zip(current_rest).enumerate() {
            let value = log - field;
            let change = expm1(value - *current);
            *current = value;
            let [low, high, sum, squares] = &mut lanes;
            (low[l], high[l]) = (smaller(low[l], value), larger(high[l], value));
            (sum[l], squares[l]) = (sum[l] + change, squares[l] + change * change);
        }
        let [low, high, sum, squares] = lanes;
        self.low = low.into_iter().fold(self.low, smaller);
        self.high = high.into_iter().fold(self.high, larger);
        self.sum += f64::from(total(sum));
        self.squares += f64::from(total(squares));
    }
}

// Unlike `f32::min` and `f32::max` these are one instruction; nothing here is NaN.
fn smaller(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// exp(x) - 1 by Taylor's series at x/2, squared: 2e-5 relative up to |x| = 1, 1e-7 where the threshold lies.
#[inline(always)]
fn expm1(x: f32) -> f32 {
    let y = x * 0.5;
    let series = y * (1.0 + y * (1.0 / 2.0 + y * (1.0 / 6.0 + y * (1.0 / 24.0 + y * (1.0 / 120.0)))));
    series * (2.0 + series)
}
