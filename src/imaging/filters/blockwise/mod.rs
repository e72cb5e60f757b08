//! Blockwise non-local means: whole blocks become means of those nearby that look like them, and a voxel the mean of the blocks it lies in.
//!
//! After
//!
//! * P. Coupé et al., An optimized blockwise nonlocal means denoising filter for 3-D magnetic resonance images, IEEE TMI 27(4), 2008;
//! * J. V. Manjón et al., Adaptive non-local means denoising of MR images with spatially varying noise levels, JMRI 31(1), 2010;
//!
//! with the conventions of `dipy.denoise.nlmeans.nlmeans(method="blockwise")`, dipy 1.12. Blocks of (2 B + 1)³ voxels stand around every second
//! voxel along each axis, beginning with the first. Such a block, around c, is compared with those around the other voxels n of the
//! (2 P + 1)³ around c whose mean over 3 x 3 x 3 voxels differs by less than 5 % and whose variance by less than half. The weight of n is
//! exp(-d / sigma²), d being the mean squared difference of the blocks. The block's estimate is the root of the weighted mean of squares,
//! from which 2 sigma² is taken first when the noise is Rician; where the mean or the variance around c is not above 1e-5, it is
//! the block itself. A voxel that no block reaches keeps its value.
//!
//! dipy's names are kept, though its patch radius is the reach of the search here and its block radius that of the patches.
//! So are its edges: blocks that are compared are mirrored in the outermost voxel at the low faces and repeat it at the high ones; in
//! a mean, what lies outside counts as the block's centre. Along an axis of one voxel it is repeated (dipy reads outside its memory there).
//!
//! dipy computes in float64 and in an order that depends on its threads. Here means and variances are float64, since thresholds hang on
//! them, and the rest float32; the tests allow 0.05 on a scale of 1000. Tiles of the result are computed from the volume alone.

mod rows;

use rayon::prelude::*;

use super::{Progress, check_volume, pieces, wrong, zeros};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::normalize;
use rows::{add, add_alternate, finish, lessen, moments, multiply, multiply_by, raise, refuse, square_differences};

/// Largest radii, of search and of blocks.
pub const LARGEST_RADIUS: usize = 5;
/// Columns, rows and slices of a tile of the result; even, so that every tile sees the blocks' centres at the same places.
const TILE: [usize; 3] = [64, 16, 16];
/// Means and variances up to this are taken for nothing (dipy's epsilon).
const NOTHING: f64 = 1e-5;
/// Least ratio of means, and of variances (dipy's).
const MEANS: f64 = 0.95;
const VARIANCES: f64 = 0.5 + 1e-7;

/// What the result depends on, besides the voxels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// P: how far from a block's centre the centres lie that it is compared with, 1 to 5.
    pub patch_radius: usize,
    /// B: blocks have 2 B + 1 voxels along each axis, 1 to 5. Dimensions must be larger, or 1.
    pub block_radius: usize,
    /// Standard deviation of the noise, in the voxels' unit, 1e-15 to 1e15.
    pub sigma: f64,
    /// Whether the noise is that of magnitudes (MR) and its bias is to be taken away, or Gaussian.
    pub is_rician: bool,
}

/// A volume without its noise. Voxels where the mask is 0 become 0, and blocks around them are left out.
///
/// Takes the memory of the result and a few megabytes per thread.
///
/// # Errors
/// [`Kind::VolumeInvalid`] when voxels are NaN, infinite or beyond 1e15, or do not fill the dimensions; [`Kind::MaskEmpty`];
/// [`Kind::InvalidArgument`] for parameters outside their ranges, a dimension above 1 but not above the block radius, or a mask of another
/// size; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn denoise(voxels: &[f32], dims: [usize; 3], mask: Option<&[u8]>, parameters: &Parameters, control: &Control) -> Result<Vec<f32>> {
    let Parameters { patch_radius, block_radius, sigma, .. } = *parameters;
    if ![patch_radius, block_radius].iter().all(|radius| (1..=LARGEST_RADIUS).contains(radius)) {
        return wrong("a radius lies outside 1 to 5 voxels");
    }
    if !(1e-15..=1e15).contains(&sigma) {
        return wrong("sigma lies outside 1e-15 to 1e15");
    }
    check_volume(voxels, dims)?;
    let (low, high) = normalize::range(voxels);
    if high.max(-low) > 1e15 {
        return Err(Error::new(Kind::VolumeInvalid, "a voxel lies beyond 1e15"));
    }
    if dims.iter().any(|n| *n > 1 && *n <= block_radius) {
        return wrong("a dimension is not above the block radius");
    }
    if mask.is_some_and(|mask| mask.len() != voxels.len()) {
        return wrong("the mask has another size than the volume");
    }
    if mask.is_some_and(|mask| mask.iter().all(|m| *m == 0)) {
        return Err(Error::new(Kind::MaskEmpty, "no voxel to denoise"));
    }
    let mut out = zeros(voxels.len())?;
    let counts: [usize; 3] = std::array::from_fn(|axis| dims[axis].div_ceil(TILE[axis]));
    let tile_of = |[x, y, z]: [usize; 3]| ((z / TILE[2]) * counts[1] + y / TILE[1]) * counts[0] + x / TILE[0];
    let parts = pieces(&mut out, dims, TILE[0], counts.iter().product(), tile_of)?;
    let progress = Progress::new(control, parts.len())?;
    let volume = Volume { voxels, dims, mask, parameters };
    parts.into_par_iter().enumerate().with_max_len(1).try_for_each_init(Scratch::default, |scratch, (tile, mut rows)| {
        let start = [tile % counts[0] * TILE[0], tile / counts[0] % counts[1] * TILE[1], tile / counts[0] / counts[1] * TILE[2]];
        let size: [usize; 3] = std::array::from_fn(|axis| TILE[axis].min(dims[axis] - start[axis]));
        if volume.has_work(start, size) {
            let frame = Frame::new(dims, start, size, patch_radius, block_radius);
            scratch.fill(&volume, &frame)?;
            scratch.weigh(&volume, &frame, control)?;
            scratch.estimate(&volume, &frame, control)?;
            scratch.write(&volume, &frame, &mut rows);
        }
        progress.step()
    })?;
    control.progress("preprocess", 1.0);
    Ok(out)
}

/// What all tiles read.
struct Volume<'a> {
    voxels: &'a [f32],
    dims: [usize; 3],
    mask: Option<&'a [u8]>,
    parameters: &'a Parameters,
}

impl Volume<'_> {
    fn index(&self, [x, y, z]: [usize; 3]) -> usize {
        (z * self.dims[1] + y) * self.dims[0] + x
    }

    /// Whether a place lies in the volume and in the mask.
    fn counts(&self, place: [isize; 3]) -> bool {
        let inside = (0..3).all(|axis| (0..self.dims[axis] as isize).contains(&place[axis]));
        inside && self.mask.is_none_or(|mask| mask[self.index(place.map(|p| p as usize))] != 0)
    }

    fn has_work(&self, start: [usize; 3], size: [usize; 3]) -> bool {
        let Some(mask) = self.mask else { return true };
        (0..size[2]).any(|z| {
            (0..size[1]).any(|y| {
                let from = self.index([start[0], start[1] + y, start[2] + z]);
                mask[from..from + size[0]].iter().any(|m| *m != 0)
            })
        })
    }
}

/// Where a tile and what it needs lie.
struct Frame {
    start: [usize; 3],
    size: [usize; 3],
    search: usize,
    block: usize,
    /// First centre of a block that reaches the tile, and their number along each axis; centres lie two voxels apart.
    first: [usize; 3],
    centres: [usize; 3],
    /// Where the copy of the voxels begins, and its size; even along x from the first centre.
    origin: [isize; 3],
    whole: [usize; 3],
}

impl Frame {
    fn new(dims: [usize; 3], start: [usize; 3], size: [usize; 3], search: usize, block: usize) -> Frame {
        let first = start.map(|start| start.saturating_sub(block).next_multiple_of(2));
        let last: [usize; 3] = std::array::from_fn(|axis| (start[axis] + size[axis] - 1 + block).min(dims[axis] - 1));
        let centres = std::array::from_fn(|axis| (last[axis] - first[axis]) / 2 + 1);
        let margin = (search + block).next_multiple_of(2);
        Frame {
            start,
            size,
            search,
            block,
            first,
            centres,
            origin: first.map(|first| first as isize - margin as isize),
            whole: std::array::from_fn(|axis| 2 * centres[axis] + 2 * margin),
        }
    }

    /// Where a row of the copy begins; y and z in voxels of the volume.
    fn row(&self, y: isize, z: isize) -> usize {
        ((z - self.origin[2]) as usize * self.whole[1] + (y - self.origin[1]) as usize) * self.whole[0]
    }

    /// Voxels from the origin to the first centre.
    fn margin(&self) -> usize {
        (self.first[0] as isize - self.origin[0]) as usize
    }

    /// Offsets of the search, its centre among them.
    fn offsets(&self) -> impl Iterator<Item = [isize; 3]> {
        let reach = self.search as isize;
        (-reach..=reach).flat_map(move |z| (-reach..=reach).flat_map(move |y| (-reach..=reach).map(move |x| [x, y, z])))
    }
}

/// What a thread needs for its tiles.
#[derive(Default)]
struct Scratch {
    /// Voxels of the frame, mirrored; then their squares, even columns of each row before odd ones.
    voxels: Vec<f32>,
    squares: Vec<f32>,
    /// Mean and variance of the 27 voxels around each voxel of the frame; a mean of -1 where it does not count.
    means: Vec<f64>,
    variances: Vec<f64>,
    /// Per offset and centre: distances, then weights that add up to 1.
    weights: Vec<f32>,
    /// Per centre: 1 when it has an estimate.
    active: Vec<f32>,
    /// Squared differences of a slice; their sums along y for all slices; along z as well for a row.
    differences: Vec<f32>,
    sums: Vec<f32>,
    /// Sums of estimates and their number, even columns of each row before odd ones.
    totals: Vec<f32>,
    counts: Vec<f32>,
    block: Vec<f32>,
}

fn fill<T: Clone>(list: &mut Vec<T>, count: usize, value: T) -> Result<()> {
    list.clear();
    list.try_reserve(count).map_err(|_| Error::new(Kind::OutOfMemory, "no memory for a tile").at(Stage::Imaging))?;
    list.resize(count, value);
    Ok(())
}

/// The voxel that a place outside stands for: -1 is 1 and n is n - 1; the nearest where that leads outside again.
fn mirrored(place: isize, count: usize) -> usize {
    let count = count as isize;
    let place = if place < 0 { -place } else { place };
    let place = if place >= count { 2 * count - place - 1 } else { place };
    place.clamp(0, count - 1) as usize
}

impl Scratch {
    /// Copies the voxels of a frame and takes the statistics around each.
    fn fill(&mut self, volume: &Volume, frame: &Frame) -> Result<()> {
        let [width, height, depth] = frame.whole;
        let count = width * height * depth;
        fill(&mut self.voxels, count, 0.0)?;
        fill(&mut self.squares, count, 0.0)?;
        fill(&mut self.means, count, -1.0)?;
        fill(&mut self.variances, count, 0.0)?;
        let mut lines = self.voxels.chunks_exact_mut(width).zip(self.squares.chunks_exact_mut(width));
        for z in 0..depth {
            for y in 0..height {
                let Some((line, squares)) = lines.next() else { break };
                let (y, z) = (frame.origin[1] + y as isize, frame.origin[2] + z as isize);
                let from = volume.index([0, mirrored(y, volume.dims[1]), mirrored(z, volume.dims[2])]);
                let row = &volume.voxels[from..from + volume.dims[0]];
                for (x, value) in line.iter_mut().enumerate() {
                    *value = row[mirrored(frame.origin[0] + x as isize, row.len())];
                }
                let (even, odd) = squares.split_at_mut(width / 2);
                for ((pair, even), odd) in line.chunks_exact(2).zip(even).zip(odd) {
                    (*even, *odd) = (pair[0] * pair[0], pair[1] * pair[1]);
                }
            }
        }
        // Statistics are asked for as far from a centre as the search reaches.
        let margin = frame.margin() - frame.search;
        for z in margin..depth - margin {
            for y in margin..height - margin {
                let around: [&[f32]; 9] = std::array::from_fn(|i| {
                    let from = ((z + i / 3 - 1) * height + y + i % 3 - 1) * width;
                    &self.voxels[from..from + width]
                });
                let span = (z * height + y) * width + 1..(z * height + y + 1) * width - 1;
                moments(&mut self.means[span.clone()], &mut self.variances[span], around);
                for x in 0..width {
                    let place = [x, y, z].map(|n| n as isize);
                    if !volume.counts(std::array::from_fn(|axis| frame.origin[axis] + place[axis])) {
                        self.means[(z * height + y) * width + x] = -1.0;
                    }
                }
            }
        }
        Ok(())
    }

    /// Weights of all pairs of centres.
    fn weigh(&mut self, volume: &Volume, frame: &Frame, control: &Control) -> Result<()> {
        let [across, down, deep] = frame.centres;
        let count = across * down * deep;
        fill(&mut self.weights, (2 * frame.search + 1).pow(3) * count, f32::INFINITY)?;
        fill(&mut self.active, count, 0.0)?;
        let mut weights = std::mem::take(&mut self.weights);
        for (offset, distances) in frame.offsets().zip(weights.chunks_exact_mut(count)) {
            control.check()?;
            if offset != [0; 3] {
                self.distances(frame, offset, distances)?;
                self.refuse_unlike(frame, offset, distances);
            }
        }
        let variance = volume.parameters.sigma * volume.parameters.sigma;
        let size = (2 * frame.block + 1).pow(3) as f64;
        let rate = (-std::f64::consts::LOG2_E / (variance * size)).max(-1e30) as f32;
        // Below exp(-745) a float64 is 0, and dipy finds no block alike.
        let farthest = (745.0 * variance * size).min(1e38) as f32;
        let own = frame.offsets().position(|offset| offset == [0; 3]).unwrap_or(0);
        fill(&mut self.block, 2 * count, f32::INFINITY)?;
        let (nearest, totals) = self.block.split_at_mut(count);
        weights.chunks_exact(count).for_each(|distances| lessen(nearest, distances));
        for (centre, active) in self.active.iter_mut().enumerate() {
            let place = [centre % across, centre / across % down, centre / across / down];
            let at: [isize; 3] = std::array::from_fn(|axis| (frame.first[axis] + 2 * place[axis]) as isize);
            let index = frame.row(at[1], at[2]) + (at[0] - frame.origin[0]) as usize;
            let is_flat = self.means[index] <= NOTHING || self.variances[index] <= NOTHING;
            *active = f32::from(u8::from(volume.counts(at) && (is_flat || nearest[centre] <= farthest)));
            if is_flat {
                // Its own distance is 0, those to all others do not count.
                (centre..weights.len()).step_by(count).for_each(|i| weights[i] = f32::INFINITY);
                weights[own * count + centre] = 0.0;
                nearest[centre] = 0.0;
            } else if nearest[centre] == f32::INFINITY {
                nearest[centre] = 0.0;
            }
        }
        totals.fill(0.0);
        weights.chunks_exact_mut(count).for_each(|weights| raise(weights, totals, nearest, rate));
        totals.iter_mut().zip(&self.active).for_each(|(total, active)| *total = if *total > 0.0 { active / *total } else { 0.0 });
        weights.chunks_exact_mut(count).for_each(|weights| multiply_by(weights, totals));
        self.weights = weights;
        Ok(())
    }

    /// Sums of squared differences of the blocks around centres and around their neighbours at an offset.
    fn distances(&mut self, frame: &Frame, offset: [isize; 3], out: &mut [f32]) -> Result<()> {
        let [across, down, deep] = frame.centres;
        let length = 2 * frame.block + 1;
        let [width, height, depth] = frame.centres.map(|n| 2 * n - 2 + length);
        fill(&mut self.differences, width * height, 0.0)?;
        fill(&mut self.sums, width * down * (depth + 1), 0.0)?;
        let lead = frame.block as isize;
        let begin: [isize; 3] = frame.first.map(|first| first as isize - lead);
        let column = (begin[0] - frame.origin[0]) as usize;
        let (sums, line) = self.sums.split_at_mut(width * down * depth);
        for (z, sums) in sums.chunks_exact_mut(width * down).enumerate() {
            for (y, row) in self.differences.chunks_exact_mut(width).enumerate() {
                let (y, z) = (begin[1] + y as isize, begin[2] + z as isize);
                let here = frame.row(y, z) + column;
                let there = (frame.row(y + offset[1], z + offset[2]) + column).wrapping_add_signed(offset[0]);
                square_differences(row, &self.voxels[here..here + width], &self.voxels[there..there + width]);
            }
            for (y, sum) in sums.chunks_exact_mut(width).enumerate() {
                self.differences.chunks_exact(width).skip(2 * y).take(length).for_each(|row| add(sum, row));
            }
        }
        let line = &mut line[..width];
        for (row, out) in out.chunks_exact_mut(across).enumerate() {
            let (y, z) = (row % down, row / down);
            debug_assert!(z < deep);
            line.fill(0.0);
            (0..length).for_each(|k| add(line, &sums[((2 * z + k) * down + y) * width..][..width]));
            out.fill(0.0);
            (0..length).for_each(|k| add_alternate(out, &line[k..]));
        }
        Ok(())
    }

    /// Makes infinite the distances to neighbours that do not count, or whose statistics are unlike.
    fn refuse_unlike(&self, frame: &Frame, offset: [isize; 3], distances: &mut [f32]) {
        let [across, down, _] = frame.centres;
        for (line, distances) in distances.chunks_exact_mut(across).enumerate() {
            let y = (frame.first[1] + 2 * (line % down)) as isize;
            let z = (frame.first[2] + 2 * (line / down)) as isize;
            let here = frame.row(y, z) + frame.margin();
            let there = (frame.row(y + offset[1], z + offset[2]) + frame.margin()).wrapping_add_signed(offset[0]);
            let (here, there) = (here..here + 2 * across, there..there + 2 * across);
            refuse(distances, [&self.means[here.clone()], &self.variances[here], &self.means[there.clone()], &self.variances[there]]);
        }
    }

    /// Adds up the estimates of all blocks that reach the tile, block by block row.
    fn estimate(&mut self, volume: &Volume, frame: &Frame, control: &Control) -> Result<()> {
        let [across, down, deep] = frame.centres;
        let [width, height, depth] = frame.size;
        let half = width.div_ceil(2);
        let length = 2 * frame.block + 1;
        fill(&mut self.totals, 2 * half * height * depth, 0.0)?;
        fill(&mut self.counts, 2 * half * height * depth, 0.0)?;
        fill(&mut self.block, across * length, 0.0)?;
        let bias = if volume.parameters.is_rician { 2.0 * volume.parameters.sigma * volume.parameters.sigma } else { 0.0 };
        let reach = frame.block as isize;
        let mut likely = Vec::new();
        for row in 0..down * deep {
            control.check()?;
            let at = [frame.first[1] + 2 * (row % down), frame.first[2] + 2 * (row / down)].map(|n| n as isize);
            let active = &self.active[row * across..(row + 1) * across];
            if active.iter().all(|active| *active == 0.0) {
                continue;
            }
            // Neighbours that any centre of the row gives weight to.
            likely.clear();
            for (offset, weights) in frame.offsets().zip(self.weights.chunks_exact(across * down * deep)) {
                let weights = &weights[row * across..(row + 1) * across];
                if weights.iter().any(|weight| *weight > 0.0) {
                    likely.push((offset, weights));
                }
            }
            for (oy, oz) in (-reach..=reach).flat_map(|oz| (-reach..=reach).map(move |oy| (oy, oz))) {
                let (y, z) = (at[0] + oy - frame.start[1] as isize, at[1] + oz - frame.start[2] as isize);
                if !(0..height as isize).contains(&y) || !(0..depth as isize).contains(&z) {
                    continue;
                }
                self.block.fill(0.0);
                for (offset, weights) in &likely {
                    let centre = frame.row(at[0] + offset[1], at[1] + offset[2]);
                    let (ny, nz) = (at[0] + oy + offset[1], at[1] + oz + offset[2]);
                    let is_inside = (0..volume.dims[1] as isize).contains(&ny) && (0..volume.dims[2] as isize).contains(&nz);
                    let source = is_inside.then(|| frame.row(ny, nz));
                    for (ox, sums) in (-reach..=reach).zip(self.block.chunks_exact_mut(across)) {
                        gather(sums, weights, &self.squares, frame, volume.dims[0], (source, centre), ox, offset[0]);
                    }
                }
                let line = (z as usize * height + y as usize) * 2 * half;
                for (ox, sums) in (-reach..=reach).zip(self.block.chunks_exact(across)) {
                    // Column of the first centre's voxel in the tile, and its half.
                    let column = frame.first[0] as isize + ox - frame.start[0] as isize;
                    let (parity, place) = (column.rem_euclid(2) as usize, column.div_euclid(2));
                    let skip = (-place).max(0) as usize;
                    let begin = place.max(0) as usize;
                    let room = (width + 1 - parity) / 2;
                    let count = room.saturating_sub(begin).min(across.saturating_sub(skip));
                    let span = line + parity * half + begin..line + parity * half + begin + count;
                    let from = skip.min(across)..skip.min(across) + count;
                    finish(&mut self.totals[span.clone()], &mut self.counts[span], &sums[from.clone()], &active[from], bias as f32);
                }
            }
        }
        Ok(())
    }

    /// Means of the estimates, into the rows of the result.
    fn write(&self, volume: &Volume, frame: &Frame, rows: &mut [&mut [f32]]) {
        let half = frame.size[0].div_ceil(2);
        for (line, row) in rows.iter_mut().enumerate() {
            let place = [frame.start[0], frame.start[1] + line % frame.size[1], frame.start[2] + line / frame.size[1]];
            let from = volume.index(place);
            for (x, value) in row.iter_mut().enumerate() {
                let at = (line * 2 + x % 2) * half + x / 2;
                if volume.mask.is_none_or(|mask| mask[from + x] != 0) {
                    *value = if self.counts[at] > 0.0 { self.totals[at] / self.counts[at] } else { volume.voxels[from + x] };
                }
            }
        }
    }
}

/// sums[k] += weight of centre k times the square that its neighbour at an offset has at column `ox` of its block, where the row is `source`, or
/// times that of the neighbour itself where this lies outside.
#[allow(clippy::too_many_arguments)]
fn gather(
    sums: &mut [f32],
    weights: &[f32],
    squares: &[f32],
    frame: &Frame,
    columns: usize,
    (source, centre): (Option<usize>, usize),
    ox: isize,
    dx: isize,
) {
    let half = frame.whole[0] / 2;
    let at = |row: usize, shift: isize| {
        let column = frame.margin() as isize + shift;
        row + column.rem_euclid(2) as usize * half + column.div_euclid(2) as usize
    };
    let own = at(centre, dx);
    // Centres whose voxel lies inside: 0 <= first + 2 k + ox + dx < columns.
    let begin = frame.first[0] as isize + ox + dx;
    let count = sums.len() as isize;
    let low = (-begin).max(0).unsigned_abs().div_ceil(2).min(sums.len());
    let high = ((columns as isize - begin + 1).div_euclid(2)).clamp(low as isize, count) as usize;
    let (low, high) = if source.is_some() { (low, high) } else { (0, 0) };
    if let Some(source) = source {
        let from = at(source, ox + dx);
        multiply(&mut sums[low..high], &weights[low..high], &squares[from + low..from + high]);
    }
    if low > 0 {
        multiply(&mut sums[..low], &weights[..low], &squares[own..own + low]);
    }
    if high < sums.len() {
        multiply(&mut sums[high..], &weights[high..], &squares[own + high..own + count as usize]);
    }
}
