//! Total variation: the volume nearest to the given one for the least sum of gradients, which is flat between sharp edges.
//!
//! The model is that of L. Rudin, S. Osher and E. Fatemi, Nonlinear total variation based noise removal algorithms, Physica D 60, 1992; it is
//! solved by the projection of A. Chambolle, An algorithm for total variation minimization and applications, J. Math. Imaging Vis. 20, 2004,
//! with the conventions of `skimage.restoration.denoise_tv_chambolle`: forward differences that are 0 at the far faces, voxels of unit
//! size whatever their spacing, steps of 1 / (2 axes), and an end when the energy (|out - in|² + weight * total variation) / voxels has changed by
//! less than `tolerance` times the first energy since the last iteration. Axes of one voxel do not count: a single slice is solved as a picture.
//!
//! A field of three components, p, holds all that is remembered; the volume of an iteration is the given one less the divergence of p and is
//! made row by row as it is needed. Slices are grouped into slabs; the first slice of each is made before the slabs are shared out,
//! since the slab before it looks at it.
//!
//! scikit-image computes in the type of its input; this module in float32 with energies in float64 over fixed pieces in a fixed order. The
//! tests allow 1e-4 of the range against float64.

use rayon::prelude::*;

use super::{Progress, check_volume, scale_of, sum_of, wrong, zeros};
use crate::control::Control;
use crate::error::Result;

/// Most iterations that may be asked for.
pub const MOST_ITERATIONS: usize = 100_000;
/// Voxels of a slab, about.
const SLAB: usize = 1 << 19;

/// What the result depends on, besides the voxels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// How much is smoothed, in the unit of the voxels, above 0 to 1e38: twice the weight of the variation against half the squared difference, as
    /// scikit-image counts it. About the standard deviation of the noise is a mild choice.
    pub weight: f64,
    /// Iterations at most, 1 to [`MOST_ITERATIONS`]. One returns the volume as it is.
    pub iterations: usize,
    /// Change of the energy at which the work ends, relative to the first energy; 0 for never.
    pub tolerance: f64,
}

impl Default for Parameters {
    /// scikit-image's defaults, meant for voxels between 0 and 1.
    fn default() -> Parameters {
        Parameters { weight: 0.1, iterations: 200, tolerance: 2e-4 }
    }
}

/// A problem and where its solution stands.
struct Solver<'a> {
    given: &'a [f32],
    scale: f32,
    /// Columns, rows and slices, without axes of one voxel between others.
    dims: [usize; 3],
    /// Slices of a slab.
    thick: usize,
    step: f32,
    weight: f64,
    field: [Vec<f32>; 3],
    /// First slices of the slabs.
    heads: Vec<f32>,
    nought: Vec<f32>,
}

/// Denoises a volume in place. Returns how many iterations it took.
///
/// Takes the memory of three more volumes and an eighth. After a cancel the voxels are as they were.
///
/// # Errors
/// [`Kind::VolumeInvalid`](crate::error::Kind::VolumeInvalid) when voxels are NaN or infinite or do not fill the dimensions;
/// [`Kind::InvalidArgument`](crate::error::Kind::InvalidArgument) for parameters outside their ranges;
/// [`Kind::OutOfMemory`](crate::error::Kind::OutOfMemory); [`Kind::Cancelled`](crate::error::Kind::Cancelled).
pub fn denoise(voxels: &mut [f32], dims: [usize; 3], parameters: &Parameters, control: &Control) -> Result<usize> {
    if !(parameters.weight > 0.0 && parameters.weight <= 1e38) {
        return wrong("the weight lies outside 0 to 1e38");
    }
    if !(1..=MOST_ITERATIONS).contains(&parameters.iterations) {
        return wrong("the number of iterations lies outside 1 to 100000");
    }
    if !(0.0..=1.0).contains(&parameters.tolerance) {
        return wrong("the tolerance lies outside 0 to 1");
    }
    check_volume(voxels, dims)?;
    control.check()?;
    control.progress("preprocess", 0.0);
    let axes: Vec<usize> = dims.into_iter().filter(|n| *n > 1).collect();
    // Two axes become columns and slices, so that slabs of a single slice are strips of its rows.
    let dims = match axes.as_slice() {
        [x, y, z] => [*x, *y, *z],
        [x, y] => [*x, 1, *y],
        [x] => [*x, 1, 1],
        _ => [1; 3],
    };
    let mut iterations = parameters.iterations;
    let mut tolerance = parameters.tolerance;
    let (count, field) = loop {
        let mut solver = Solver::new(voxels, dims, axes.len(), parameters.weight)?;
        match solver.solve(iterations, tolerance, control)? {
            (count, true) => break (count, solver.field),
            // The energy settled where that was not foreseen, and the field has moved on: once more up to there.
            (count, false) => (iterations, tolerance) = (count, 0.0),
        }
    };
    write(voxels, dims, &field)?;
    control.progress("preprocess", 1.0);
    Ok(count)
}

impl<'a> Solver<'a> {
    fn new(given: &'a [f32], dims: [usize; 3], axes: usize, weight: f64) -> Result<Solver<'a>> {
        let plane = dims[0] * dims[1];
        let thick = (SLAB / plane).clamp(8, 256).min(dims[2]);
        let scale = scale_of(given);
        Ok(Solver {
            given,
            scale,
            dims,
            thick,
            step: 1.0 / (2.0 * axes.max(1) as f32),
            weight: weight * f64::from(scale),
            field: [zeros(given.len())?, zeros(given.len())?, zeros(given.len())?],
            heads: zeros(plane * dims[2].div_ceil(thick))?,
            nought: zeros(dims[0])?,
        })
    }

    /// Iterates. Returns how many iterations it took and whether the field is that of the last; it is one further otherwise.
    fn solve(&mut self, iterations: usize, tolerance: f64, control: &Control) -> Result<(usize, bool)> {
        let (mut first, mut last, mut change) = (0.0, 0.0, f64::INFINITY);
        for done in 0..iterations {
            if done + 1 == iterations {
                break;
            }
            let part = control.within("preprocess", done as f64 / iterations as f64, (done + 1) as f64 / iterations as f64);
            // Changes shrink by little from one iteration to the next. When the end is near, the field stays until the energy is known.
            let is_near = done > 0 && change < 2.0 * tolerance * first;
            let energy = self.iterate(!is_near, &part)?;
            if done == 0 {
                first = energy;
            } else {
                change = (last - energy).abs();
                if change < tolerance * first {
                    self.unscale();
                    return Ok((done + 1, is_near));
                }
            }
            if is_near {
                self.iterate(true, &part)?;
            }
            last = energy;
        }
        self.unscale();
        Ok((iterations, true))
    }

    /// Brings the field to the scale of the voxels.
    fn unscale(&mut self) {
        if self.scale != 1.0 {
            let by = 1.0 / self.scale;
            self.field.iter_mut().flatten().for_each(|value| *value *= by);
        }
    }

    /// The energy of the volume as it stands; moves the field on when told so.
    fn iterate(&mut self, moves: bool, control: &Control) -> Result<f64> {
        let [width, height, depth] = self.dims;
        let (plane, thick) = (width * height, self.thick);
        let layout = Layout { given: self.given, dims: self.dims, scale: self.scale, nought: &self.nought };
        let field = [&self.field[0][..], &self.field[1][..], &self.field[2][..]];
        let head = |(slab, head): (usize, &mut [f32])| {
            control.check()?;
            let before = (slab > 0).then(|| &field[2][(slab * thick - 1) * plane..]);
            Ok(layout.slice(head, slab * thick, field.map(|part| &part[slab * thick * plane..]), before))
        };
        let squares: Vec<f64> = self.heads.par_chunks_mut(plane).enumerate().map(head).collect::<Result<_>>()?;
        let heads = &self.heads[..];
        // The limit keeps 0 times the factor at 0 for the least weight.
        let (factor, step) = ((f64::from(self.step) / self.weight).min(1e30) as f32, self.step);
        let weight = self.weight;
        let progress = Progress::new(control, depth)?;
        let [x, y, z] = &mut self.field;
        let slabs = x.par_chunks_mut(thick * plane).zip(y.par_chunks_mut(thick * plane)).zip(z.par_chunks_mut(thick * plane));
        let sweep = |scratch: &mut (Vec<f32>, Vec<f32>), (slab, ((x, y), z)): (usize, ((Part, Part), Part))| {
            let (here, next) = scratch;
            here.clear();
            here.extend_from_slice(&heads[slab * plane..(slab + 1) * plane]);
            next.resize(plane, 0.0);
            let slices = x.len() / plane;
            let mut energy = 0.0;
            for slice in 0..slices {
                let (at, after) = (slice * plane, (slice + 1) * plane);
                if slice + 1 < slices {
                    energy += layout.slice(next, slab * thick + slice + 1, [&x[after..], &y[after..], &z[after..]], Some(&z[at..]));
                } else if let Some(head) = heads.get((slab + 1) * plane..(slab + 2) * plane) {
                    next.copy_from_slice(head);
                } else {
                    next.copy_from_slice(here);
                }
                let mut variation = 0.0;
                for row in 0..height {
                    let span = row * width..(row + 1) * width;
                    let down = if row + 1 < height { span.end..span.end + width } else { span.clone() };
                    let place = at + span.start..at + span.end;
                    let parts = [&mut x[place.clone()], &mut y[place.clone()], &mut z[place]];
                    variation += row_of(&here[span.clone()], &here[down], &next[span], parts, step, factor, moves);
                }
                energy += weight * variation;
                std::mem::swap(here, next);
                progress.step()?;
            }
            Ok(energy)
        };
        let parts: Vec<f64> = slabs.enumerate().map_init(Default::default, sweep).collect::<Result<_>>()?;
        Ok((squares.iter().sum::<f64>() + parts.iter().sum::<f64>()) / self.given.len() as f64)
    }
}

/// A slab's part of a component of the field.
type Part<'a> = &'a mut [f32];

/// What slices are made from.
struct Layout<'a> {
    given: &'a [f32],
    dims: [usize; 3],
    scale: f32,
    nought: &'a [f32],
}

impl Layout<'_> {
    /// Slice z of the volume as it stands, from the field of this slice on and the third component of the slice before. Returns the sum
    /// of squared differences from the given volume.
    fn slice(&self, out: &mut [f32], z: usize, field: [&[f32]; 3], before: Option<&[f32]>) -> f64 {
        let [width, height, _] = self.dims;
        let mut sum = 0.0;
        for (y, out) in out.chunks_exact_mut(width).enumerate() {
            let span = y * width..(y + 1) * width;
            let up = if y > 0 { &field[1][span.start - width..span.start] } else { self.nought };
            let before = before.map_or(self.nought, |before| &before[span.clone()]);
            let from = (z * height + y) * width;
            sum += difference(out, field.map(|part| &part[span.clone()]), up, before);
            add_scaled(out, &self.given[from..from + width], self.scale);
        }
        sum
    }
}

fn add_scaled(out: &mut [f32], given: &[f32], scale: f32) {
    out.iter_mut().zip(given).for_each(|(out, given)| *out += given * scale);
}

/// out = minus the divergence of a row of the field; returns the sum of its squares.
fn difference(out: &mut [f32], field: [&[f32]; 3], up: &[f32], before: &[f32]) -> f64 {
    diverge(out, field, up, before);
    let mut squares = [0.0f32; 256];
    out.chunks(256)
        .map(|part| {
            let squares = &mut squares[..part.len()];
            squares.iter_mut().zip(part).for_each(|(square, value)| *square = value * value);
            sum_of(squares)
        })
        .sum()
}

#[inline(never)]
fn diverge(out: &mut [f32], [x, y, z]: [&[f32]; 3], up: &[f32], before: &[f32]) {
    let count = out.len();
    let (x, y, z, up, before) = (&x[..count], &y[..count], &z[..count], &up[..count], &before[..count]);
    out[0] = (up[0] + before[0]) - (x[0] + y[0] + z[0]);
    let (out, left) = (&mut out[1..], &x[..count - 1]);
    let (x, y, z, up, before) = (&x[1..], &y[1..], &z[1..], &up[1..], &before[1..]);
    for i in 0..out.len() {
        out[i] = (left[i] + up[i] + before[i]) - (x[i] + y[i] + z[i]);
    }
}

/// Total variation of a row; moves the field on when told so.
fn row_of(here: &[f32], down: &[f32], next: &[f32], field: [&mut [f32]; 3], step: f32, factor: f32, moves: bool) -> f64 {
    let [x, y, z] = field;
    let count = here.len();
    let mut norms = [0.0f32; 256];
    let mut sum = 0.0;
    for start in (0..count).step_by(256) {
        let end = (start + 256).min(count);
        // The last column has no neighbour to the right: a piece of one voxel whose neighbour is itself.
        let inner = end.min(count - 1);
        for (from, to, right) in [(start, inner, start + 1), (inner, end, inner)] {
            if from < to {
                let norms = &mut norms[..to - from];
                let gradient = [&here[from..to], &here[right..right + to - from], &down[from..to], &next[from..to]];
                if moves {
                    project(norms, gradient, [&mut x[from..to], &mut y[from..to], &mut z[from..to]], step, factor);
                } else {
                    measure(norms, gradient);
                }
                sum += sum_of(norms);
            }
        }
    }
    sum
}

/// Lengths of gradients.
#[inline(never)]
fn measure(norms: &mut [f32], [here, right, down, next]: [&[f32]; 4]) {
    let count = norms.len();
    let (here, right, down, next) = (&here[..count], &right[..count], &down[..count], &next[..count]);
    for i in 0..count {
        let (a, b, c) = (right[i] - here[i], down[i] - here[i], next[i] - here[i]);
        norms[i] = (a * a + b * b + c * c).sqrt();
    }
}

/// Lengths of gradients, and a step of the field against them, projected.
#[inline(never)]
fn project(norms: &mut [f32], [here, right, down, next]: [&[f32]; 4], [x, y, z]: [&mut [f32]; 3], step: f32, factor: f32) {
    let count = norms.len();
    let (here, right, down, next) = (&here[..count], &right[..count], &down[..count], &next[..count]);
    let (x, y, z) = (&mut x[..count], &mut y[..count], &mut z[..count]);
    for i in 0..count {
        let (a, b, c) = (right[i] - here[i], down[i] - here[i], next[i] - here[i]);
        let norm = (a * a + b * b + c * c).sqrt();
        norms[i] = norm;
        let by = 1.0 / (1.0 + norm * factor);
        x[i] = (x[i] - step * a) * by;
        y[i] = (y[i] - step * b) * by;
        z[i] = (z[i] - step * c) * by;
    }
}

/// The volume as the field has it, in place of the given one.
fn write(voxels: &mut [f32], dims: [usize; 3], field: &[Vec<f32>; 3]) -> Result<()> {
    let [width, height, _] = dims;
    let nought = zeros(width)?;
    voxels.par_chunks_mut(width).enumerate().for_each_init(
        || nought.clone(),
        |made, (line, row)| {
            let from = line * width;
            let up = if line % height > 0 { &field[1][from - width..from] } else { &nought };
            let before = from.checked_sub(width * height).map_or(&nought[..], |from| &field[2][from..from + width]);
            diverge(made, std::array::from_fn(|axis| &field[axis][from..from + width]), up, before);
            row.iter_mut().zip(made).for_each(|(value, made)| *value += *made);
        },
    );
    Ok(())
}
