//! Anisotropic diffusion: intensities flow from voxel to voxel as heat does, but hardly across edges.
//!
//! * [`Kind::Gradient`]: P. Perona and J. Malik, Scale-space and edge detection using anisotropic diffusion, IEEE TPAMI 12(7), 1990, equation 3
//!   with the conductance exp(-(|grad| / K)²); ITK's GradientAnisotropicDiffusionImageFilter.
//! * [`Kind::Curvature`]: R. Whitaker and X. Xue, Variable-conductance, level-set curvature for image denoising, ICIP 2001: the level sets move
//!   by their curvature, which keeps fine edges better and contrast longer; ITK's CurvatureAnisotropicDiffusionImageFilter.
//!
//! Conventions are ITK's, spacing among them. Derivatives are divided by the spacing, and beyond its faces the volume is continued with its
//! outermost voxels (zero flux). Between two neighbours along axis i the squared gradient is d² + the sum over the other axes j of
//! ((c + c') / 2)², with d their difference and c, c' the central derivatives along j at the two. With the mean over the volume of the squared
//! central gradient, M, as it is before each iteration, the conductance is exp(-gradient² / (2 conductance² M)). A voxel changes in
//! an iteration by `time_step` times the difference of the flows d * conductance on its two sides, added up over the axes; for
//! curvature the flow is divided by the gradient, and the sum multiplied by the voxel's own gradient, taken upwind (S. Osher and J. Sethian,
//! J. Comp. Phys. 79, 1988).
//!
//! A flow is computed once for the two voxels that it joins. ITK computes in float64, this module in float32 with an exponential of relative
//! error 4e-6; the tests allow 1e-3 on a scale of 1000. Curvature divides by gradients that may be next to nothing, so where there is only noise a few
//! voxels in a million differ by more, up to hundredths: as ITK's own result does when its input changes in the last place.

use rayon::prelude::*;

use super::{Progress, check_spacing, check_volume, exp2, pieces, scale_of, wrong, zeros};
use crate::control::Control;
use crate::error::{Error, Kind as Fault, Result, Stage};

/// Most iterations.
pub const MOST_ITERATIONS: usize = 1000;
/// Rows of a strip, which is taken through all slices: its surroundings of three slices stay in the second-level cache.
const STRIP: usize = 16;
/// What ITK adds to a squared gradient before it divides by its root.
const LEAST_SQUARE: f64 = 1e-10;

/// Which flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Along the gradient (Perona and Malik).
    Gradient,
    /// By curvature (Whitaker and Xue).
    Curvature,
}

/// What the result depends on, besides the voxels and their spacing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// Which flow.
    pub kind: Kind,
    /// Iterations, 1 to [`MOST_ITERATIONS`].
    pub iterations: usize,
    /// Conductance relative to the mean gradient, above 0 to 100: the larger, the more is smoothed.
    pub conductance: f64,
    /// Step in time, above 0. Stable up to 1 / (2 * the sum of 1 / spacing over the axes of more than one voxel), the spacing in mm: 1/6 for
    /// voxels of 1 mm. (ITK warns above the least spacing / 16 in three dimensions.)
    pub time_step: f64,
}

impl Parameters {
    /// SimpleITK's defaults, except for its time step of 0.125, which it warns of itself in three dimensions: 0.0625.
    pub fn of(kind: Kind) -> Parameters {
        Parameters { kind, iterations: 5, conductance: 3.0, time_step: 0.0625 }
    }
}

/// Numbers of one iteration.
#[derive(Clone, Copy)]
struct Step {
    kind: Kind,
    /// 1 / spacing of each axis.
    by: [f32; 3],
    /// Binary logarithm of the conductance per squared gradient; at most 0.
    rate: f32,
    /// Added to a squared gradient before its root is divided by.
    least: f32,
    time: f32,
}

/// Diffuses a volume in place.
///
/// Takes the memory of one more volume. After a cancel the voxels are those of an earlier iteration.
///
/// # Errors
/// [`Kind::VolumeInvalid`](Fault::VolumeInvalid) when voxels are NaN or infinite or do not fill the dimensions;
/// [`Kind::InvalidArgument`](Fault::InvalidArgument) for a spacing outside 1e-6 to 1e6 mm or parameters outside their ranges, an unstable
/// time step among them; [`Kind::OutOfMemory`](Fault::OutOfMemory); [`Kind::Cancelled`](Fault::Cancelled).
pub fn diffuse(voxels: &mut [f32], dims: [usize; 3], spacing_mm: [f64; 3], parameters: &Parameters, control: &Control) -> Result<()> {
    check_spacing(spacing_mm)?;
    if !(1..=MOST_ITERATIONS).contains(&parameters.iterations) {
        return wrong("the number of iterations lies outside 1 to 1000");
    }
    if !(parameters.conductance > 0.0 && parameters.conductance <= 100.0) {
        return wrong("the conductance lies outside 0 to 100");
    }
    check_volume(voxels, dims)?;
    let per_mm: f64 = (0..3).filter(|axis| dims[*axis] > 1).map(|axis| 1.0 / spacing_mm[axis]).sum();
    // A little above the bound itself, so that 1/6 may be given as 0.16667.
    if !(parameters.time_step > 0.0 && parameters.time_step * 2.0 * per_mm <= 1.0 + 1e-3 && parameters.time_step <= 1e6) {
        return wrong("the time step is not above 0 and stable for the spacing");
    }
    control.check()?;
    let scale = scale_of(voxels);
    let mut next = zeros(voxels.len())?;
    scaled(voxels, scale);
    let (mut from, mut to): (&mut [f32], &mut [f32]) = (voxels, &mut next);
    let mut outcome = Ok(());
    let mut done = 0;
    while done < parameters.iterations && outcome.is_ok() {
        let share = |done: usize| done as f64 / parameters.iterations as f64;
        outcome = iterate(from, to, dims, spacing_mm, scale, parameters, &control.within("preprocess", share(done), share(done + 1)));
        if outcome.is_ok() {
            (from, to) = (to, from);
            done += 1;
        }
    }
    // The latest whole iteration lies in the caller's memory after an even number, in the other after an odd one.
    if done % 2 == 1 {
        to.copy_from_slice(from);
        scaled(to, 1.0 / scale);
    } else {
        scaled(from, 1.0 / scale);
    }
    outcome?;
    control.progress("preprocess", 1.0);
    Ok(())
}

fn scaled(voxels: &mut [f32], scale: f32) {
    if scale != 1.0 {
        voxels.iter_mut().for_each(|value| *value *= scale);
    }
}

fn iterate(
    from: &[f32],
    to: &mut [f32],
    dims: [usize; 3],
    spacing_mm: [f64; 3],
    scale: f32,
    parameters: &Parameters,
    control: &Control,
) -> Result<()> {
    let by = spacing_mm.map(|spacing| (1.0 / spacing) as f32);
    let mean = mean_squared_gradient(from, dims, by, control)?;
    let bound = 2.0 * mean * parameters.conductance * parameters.conductance;
    // No gradient: nothing flows (ITK sets the conductance to 0).
    if bound <= 0.0 {
        to.copy_from_slice(from);
        return Ok(());
    }
    let rate = (-std::f64::consts::LOG2_E / bound).max(-1e30) as f32;
    let least = (LEAST_SQUARE * f64::from(scale) * f64::from(scale)).clamp(1e-30, 1e30) as f32;
    let step = Step { kind: parameters.kind, by, rate, least, time: parameters.time_step as f32 };
    let strips = dims[1].div_ceil(STRIP);
    let parts = pieces(to, dims, dims[0], strips, |[_, y, _]| y / STRIP)?;
    let progress = Progress::new(control, strips * dims[2])?;
    parts.into_par_iter().enumerate().try_for_each_init(Vec::new, |scratch, (strip, mut rows)| {
        let rows_here = rows.len() / dims[2];
        let mut lines = Lines::new(scratch, dims[0], rows_here)?;
        for (z, rows) in rows.chunks_exact_mut(rows_here.max(1)).enumerate() {
            lines.slice(from, dims, &step, strip * STRIP, z, rows);
            progress.step()?;
        }
        Ok(())
    })
}

/// A row; rows outside are the nearest inside.
fn row(voxels: &[f32], dims: [usize; 3], y: usize, z: usize) -> &[f32] {
    let from = (z.min(dims[2] - 1) * dims[1] + y.min(dims[1] - 1)) * dims[0];
    voxels.get(from..from + dims[0]).unwrap_or_default()
}

/// Mean over the volume of the squared gradient by central differences, per mm².
fn mean_squared_gradient(voxels: &[f32], dims: [usize; 3], by: [f32; 3], control: &Control) -> Result<f64> {
    let halves = by.map(|by| by / 2.0);
    let strips = dims[1].div_ceil(STRIP);
    let parts: Vec<f64> = (0..strips * dims[2])
        .into_par_iter()
        .map(|index| {
            control.check()?;
            let (z, first) = (index / strips, index % strips * STRIP);
            Ok((first..(first + STRIP).min(dims[1]))
                .map(|y| {
                    let here = row(voxels, dims, y, z);
                    let (above, below) = (row(voxels, dims, y.saturating_sub(1), z), row(voxels, dims, y + 1, z));
                    row_of_squares(here, above, below, row(voxels, dims, y, z.saturating_sub(1)), row(voxels, dims, y, z + 1), halves)
                })
                .sum())
        })
        .collect::<Result<Vec<f64>>>()?;
    Ok(parts.iter().sum::<f64>() / voxels.len() as f64)
}

/// Sum of squared gradients of a row: float32 over a few hundred voxels, float64 beyond.
#[inline(never)]
fn row_of_squares(here: &[f32], up: &[f32], down: &[f32], before: &[f32], after: &[f32], by: [f32; 3]) -> f64 {
    const LANES: usize = 16;
    const LINE: usize = 512;
    let square = |x: f32, y: f32, z: f32| x * x * (by[0] * by[0]) + y * y * (by[1] * by[1]) + z * z * (by[2] * by[2]);
    let count = here.len();
    let at_end = |i: usize| {
        let x = here[(i + 1).min(count - 1)] - here[i.saturating_sub(1)];
        f64::from(square(x, down[i] - up[i], after[i] - before[i]))
    };
    if count < 3 {
        return (0..count).map(at_end).sum();
    }
    let mut sum = at_end(0) + at_end(count - 1);
    let inner = count - 2;
    let (left, right, up, down) = (&here[..inner], &here[2..], &up[1..count - 1], &down[1..count - 1]);
    let (before, after) = (&before[1..count - 1], &after[1..count - 1]);
    for start in (0..inner).step_by(LINE) {
        let end = (start + LINE).min(inner);
        let mut sums = [0.0f32; LANES];
        let whole = start + (end - start) / LANES * LANES;
        for i in (start..whole).step_by(LANES) {
            let span = i..i + LANES;
            let (l, r, u, d) = (&left[span.clone()], &right[span.clone()], &up[span.clone()], &down[span.clone()]);
            let (b, a) = (&before[span.clone()], &after[span]);
            for k in 0..LANES {
                sums[k] += square(r[k] - l[k], d[k] - u[k], a[k] - b[k]);
            }
        }
        sum += sums.iter().map(|sum| f64::from(*sum)).sum::<f64>();
        sum += (whole..end).map(|i| f64::from(square(right[i] - left[i], down[i] - up[i], after[i] - before[i]))).sum::<f64>();
    }
    sum
}

/// Rows that a strip needs while it goes through the slices.
struct Lines<'a> {
    width: usize,
    /// Per row of the strip: flow from the slice before.
    flow_z: &'a mut [f32],
    /// Rows: central derivatives of the row at hand and of the next along x and z, of the row at hand along y, of its neighbour in the next
    /// slice along x and y; flow from the row before, to the next row, to the next slice; flow along x, one longer.
    rows: &'a mut [f32],
}

/// Rows of [`Lines::rows`].
const ROWS: usize = 11;

impl<'a> Lines<'a> {
    fn new(scratch: &'a mut Vec<f32>, width: usize, rows: usize) -> Result<Lines<'a>> {
        let count = (rows + ROWS) * width + 1;
        scratch.clear();
        scratch.try_reserve(count).map_err(|_| Error::new(Fault::OutOfMemory, "no memory for a strip").at(Stage::Imaging))?;
        scratch.resize(count, 0.0);
        let (flow_z, rows) = scratch.split_at_mut(rows * width);
        Ok(Lines { width, flow_z, rows })
    }

    /// One slice of the strip. Slices come in ascending order, as each hands its flow to the next.
    fn slice(&mut self, from: &[f32], dims: [usize; 3], step: &Step, first: usize, z: usize, out: &mut [&mut [f32]]) {
        let width = self.width;
        let halves = step.by.map(|by| by / 2.0);
        let (mut x0, rest) = self.rows.split_at_mut(width);
        let (mut x1, rest) = rest.split_at_mut(width);
        let (mut z0, rest) = rest.split_at_mut(width);
        let (mut z1, rest) = rest.split_at_mut(width);
        let (y0, rest) = rest.split_at_mut(width);
        let (xn, rest) = rest.split_at_mut(width);
        let (yn, rest) = rest.split_at_mut(width);
        let (mut flow_up, rest) = rest.split_at_mut(width);
        let (mut flow_down, rest) = rest.split_at_mut(width);
        let (flow_next, flow_x) = rest.split_at_mut(width);
        let row = |y: usize, z: usize| row(from, dims, y, z);
        let (before, after) = (z.saturating_sub(1), z + 1);
        // Flow into the strip from the row above it.
        if first > 0 {
            central_along(x1, row(first - 1, z), halves[0]);
            central(z1, row(first - 1, before), row(first - 1, after), halves[2]);
        }
        central_along(x0, row(first, z), halves[0]);
        central(z0, row(first, before), row(first, after), halves[2]);
        if first > 0 {
            flow(flow_up, row(first - 1, z), row(first, z), [x1, x0, z1, z0], step, step.by[1]);
        } else {
            flow_up.fill(0.0);
        }
        for (index, (out, flow_z)) in out.iter_mut().zip(self.flow_z.chunks_exact_mut(width)).enumerate() {
            let y = first + index;
            let here = row(y, z);
            central_along(x1, row(y + 1, z), halves[0]);
            central(z1, row(y + 1, before), row(y + 1, after), halves[2]);
            central(y0, row(y.saturating_sub(1), z), row(y + 1, z), halves[1]);
            central_along(xn, row(y, after), halves[0]);
            central(yn, row(y.saturating_sub(1), after), row(y + 1, after), halves[1]);
            // Beyond a face the difference is 0, and so is the flow.
            flow(flow_down, here, row(y + 1, z), [x0, x1, z0, z1], step, step.by[1]);
            flow(flow_next, here, row(y, after), [x0, xn, y0, yn], step, step.by[2]);
            let (inner, last) = (&mut flow_x[1..], width - 1);
            flow(&mut inner[..last], &here[..last], &here[1..], [&y0[..last], &y0[1..], &z0[..last], &z0[1..]], step, step.by[0]);
            (flow_x[0], flow_x[width]) = (0.0, 0.0);
            let flows: [&[f32]; 6] = [&flow_x[..width], &flow_x[1..], flow_up, flow_down, flow_z, flow_next];
            match step.kind {
                Kind::Gradient => along_gradient(out, here, flows, step.time),
                Kind::Curvature => {
                    let around = [row(y.saturating_sub(1), z), row(y + 1, z), row(y, before), row(y, after)];
                    by_curvature(out, here, around, flows, step);
                }
            }
            flow_z.copy_from_slice(flow_next);
            std::mem::swap(&mut flow_up, &mut flow_down);
            std::mem::swap(&mut x0, &mut x1);
            std::mem::swap(&mut z0, &mut z1);
        }
    }
}

/// Central derivative along x.
fn central_along(out: &mut [f32], row: &[f32], half: f32) {
    let count = row.len();
    if count < 3 {
        (0..count).for_each(|i| out[i] = (row[(i + 1).min(count - 1)] - row[i.saturating_sub(1)]) * half);
        return;
    }
    central(&mut out[1..count - 1], &row[..count - 2], &row[2..], half);
    out[0] = (row[1] - row[0]) * half;
    out[count - 1] = (row[count - 1] - row[count - 2]) * half;
}

/// Central derivative from the rows on both sides.
#[inline(never)]
fn central(out: &mut [f32], before: &[f32], after: &[f32], half: f32) {
    for ((out, before), after) in out.iter_mut().zip(before).zip(after) {
        *out = (after - before) * half;
    }
}

/// Flow from the voxels of one row to those of another, `across` being the central derivatives along the other two axes at both.
fn flow(out: &mut [f32], a: &[f32], b: &[f32], across: [&[f32]; 4], step: &Step, by: f32) {
    match step.kind {
        Kind::Gradient => flow_of::<false>(out, a, b, across, by, step.rate, step.least),
        Kind::Curvature => flow_of::<true>(out, a, b, across, by, step.rate, step.least),
    }
}

#[inline(never)]
fn flow_of<const CURVATURE: bool>(out: &mut [f32], a: &[f32], b: &[f32], across: [&[f32]; 4], by: f32, rate: f32, least: f32) {
    let count = out.len();
    let (a, b, [p, q, r, s]) = (&a[..count], &b[..count], across.map(|row| &row[..count]));
    for i in 0..count {
        let d = (b[i] - a[i]) * by;
        let (u, v) = (p[i] + q[i], r[i] + s[i]);
        let square = d * d + 0.25 * (u * u + v * v);
        let conductance = exp2(square * rate);
        out[i] = if CURVATURE { d * conductance / (square + least).sqrt() } else { d * conductance };
    }
}

#[inline(never)]
fn along_gradient(out: &mut [f32], here: &[f32], flows: [&[f32]; 6], time: f32) {
    let count = out.len();
    let (here, [a, b, c, d, e, f]) = (&here[..count], flows.map(|row| &row[..count]));
    for i in 0..count {
        out[i] = here[i] + time * ((b[i] - a[i]) + (d[i] - c[i]) + (f[i] - e[i]));
    }
}

fn by_curvature(out: &mut [f32], here: &[f32], around: [&[f32]; 4], flows: [&[f32]; 6], step: &Step) {
    let count = here.len();
    if count < 3 {
        for i in 0..count {
            let (left, right) = (here[i.saturating_sub(1)], here[(i + 1).min(count - 1)]);
            curve(&mut out[i..=i], &here[i..=i], &[left], &[right], around.map(|row| &row[i..=i]), flows.map(|row| &row[i..=i]), step);
        }
        return;
    }
    let last = count - 1;
    for (span, left, right) in [(0..1, 0, 1), (1..last, 0, 2), (last..count, last - 1, last)] {
        let (around, flows) = (around.map(|row| &row[span.clone()]), flows.map(|row| &row[span.clone()]));
        curve(&mut out[span.clone()], &here[span.clone()], &here[left..], &here[right..], around, flows, step);
    }
}

/// Moves level sets: the sum of flows is the speed, and a voxel changes by the speed times its gradient on the side that the front comes from.
#[inline(never)]
fn curve(out: &mut [f32], here: &[f32], left: &[f32], right: &[f32], around: [&[f32]; 4], flows: [&[f32]; 6], step: &Step) {
    let count = out.len();
    let (here, left, right) = (&here[..count], &left[..count], &right[..count]);
    let ([up, down, before, after], [a, b, c, d, e, f]) = (around.map(|row| &row[..count]), flows.map(|row| &row[..count]));
    let ([bx, by, bz], time) = (step.by, step.time);
    for i in 0..count {
        let speed = (b[i] - a[i]) + (d[i] - c[i]) + (f[i] - e[i]);
        // With the sign of the speed taken out, one rule serves both directions.
        let sign = if speed > 0.0 { 1.0f32 } else { -1.0 };
        let part = |low: f32, high: f32, by: f32| {
            let (low, high) = ((here[i] - low) * by * sign, (high - here[i]) * by * sign);
            let (low, high) = (if low < 0.0 { low } else { 0.0 }, if high > 0.0 { high } else { 0.0 });
            low * low + high * high
        };
        let square = part(left[i], right[i], bx) + part(up[i], down[i], by) + part(before[i], after[i], bz);
        out[i] = here[i] + time * (square.sqrt() * speed);
    }
}
