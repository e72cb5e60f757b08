//! Non-local means of one tile: a box of voxels small enough that everything about it stays in the processor's own cache.
//!
//! For each offset the whole tile is done before the next offset: squared differences of the rows, sums of them over the patch (along y over
//! a ring of rows, along z over a ring of planes, along x last), weights, and weighted sums. The patches of a voxel and of its neighbour differ
//! by as much as those of the neighbour and the voxel, so only half of the offsets are visited and each weight counts for both voxels of its
//! pair. Pairs with one voxel outside of the tile count for the other alone; the tile beside computes them again, and no tile waits for
//! another or adds to its voxels. In a tile of 16 by 16 rows and a search radius of 2 that is one pair in eight, and the sums keep their order.
//!
//! What is summed for a voxel v is weight * (u² - v²) rather than weight * u²: smaller numbers, hence less rounding, and the same product
//! serves both voxels of a pair, with opposite signs.

use std::ops::Range;

use super::plan::Plan;
use super::rows::Rows;
use crate::control::Control;
use crate::error::Result;

/// A box of the volume: first voxel and size, both column, row, slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// First voxel.
    pub(super) start: [usize; 3],
    /// Voxels along each axis; all at least 1.
    pub(super) size: [usize; 3],
}

/// Arrays of a thread, kept from tile to tile.
#[derive(Default)]
pub(super) struct Scratch {
    /// The tile's voxels and those around it that are searched.
    voxels: Vec<f32>,
    /// Sums of weights, and of weights times what they move, for the tile's rows; each row goes on at both ends as far as offsets reach.
    total: Vec<f32>,
    moved: Vec<f32>,
    /// Whether a row of the tile has voxels to compute.
    wanted: Vec<bool>,
    /// Squared differences of as many rows as a patch has; their sums along y, of as many planes; the sum of those along z; that along x;
    /// weights; moves.
    squares: Vec<f32>,
    ring: Vec<f32>,
    column: Vec<f32>,
    sums: Vec<f32>,
    weights: Vec<f32>,
    moves: Vec<f32>,
}

/// Which pairs one offset makes, and where their voxels and sums lie. Coordinates are the tile's, and may lie outside of it.
struct Pass {
    offset: [isize; 3],
    size: [isize; 3],
    halo: isize,
    search: isize,
    /// First voxels of pairs: those of the tile, and those whose partner is one. Of the columns, the first and how many.
    first: isize,
    count: usize,
    rows: Range<isize>,
    planes: Range<isize>,
}

impl Pass {
    fn new(plan: &Plan, tile: Tile, offset: [isize; 3]) -> Pass {
        let size = tile.size.map(|n| n as isize);
        let reach = |axis: usize| (-offset[axis]).min(0)..size[axis] + (-offset[axis]).max(0);
        let (search, columns) = (plan.search as isize, reach(0));
        Pass {
            offset,
            size,
            halo: search + plan.patch as isize,
            search,
            first: columns.start,
            count: (columns.end - columns.start) as usize,
            rows: reach(1),
            planes: reach(2),
        }
    }

    /// Where a voxel lies among those that were loaded.
    #[inline]
    fn voxel(&self, x: isize, y: isize, z: isize) -> usize {
        let [width, height, _] = self.size.map(|n| n + 2 * self.halo);
        (((z + self.halo) * height + y + self.halo) * width + x + self.halo) as usize
    }

    /// The tile's row that a voxel lies in, and where its sums lie; `None` outside of the tile's rows.
    fn place(&self, x: isize, y: isize, z: isize) -> Option<(usize, usize)> {
        let [width, height, depth] = self.size;
        let line = ((0..height).contains(&y) && (0..depth).contains(&z)).then_some(z * height + y)?;
        Some((line as usize, (line * (width + 2 * self.search) + x + self.search) as usize))
    }
}

/// Half of the offsets of a search window, such that each offset or its opposite is there, without 0: column, row, slice.
pub(super) fn half_offsets(radius: usize) -> Vec<[isize; 3]> {
    let radius = radius as isize;
    let axis = || -radius..=radius;
    let all = axis().flat_map(|z| axis().flat_map(move |y| axis().map(move |x| [x, y, z])));
    all.filter(|[x, y, z]| (*z, *y, *x) > (0, 0, 0)).collect()
}

/// Computes a tile and writes it over its rows in the result, in their order (rows, then slices). Voxels outside the mask are left alone.
///
/// # Errors
/// [`crate::error::Kind::Cancelled`].
pub(super) fn denoise(
    plan: &Plan,
    tile: Tile,
    voxels: &[f32],
    mask: Option<&[u8]>,
    scratch: &mut Scratch,
    out: &mut [&mut [f32]],
    control: &Control,
) -> Result<()> {
    scratch.load(plan, tile, voxels, mask);
    for offset in &plan.offsets {
        control.check()?;
        scratch.offset(plan, tile, *offset);
    }
    scratch.store(plan, tile, mask, out);
    Ok(())
}

/// The voxel that a place stands for: places before the first and after the last are mirrored in them, without repeating them.
fn mirrored(place: isize, count: usize) -> usize {
    let last = count as isize - 1;
    let place = if place > last { 2 * last - place } else { place };
    place.unsigned_abs()
}

/// Grows an array where it is too short. Sizes are bounded by the tile's, which [`Plan`] keeps small.
fn at_least(array: &mut Vec<f32>, count: usize) {
    if array.len() < count {
        array.resize(count, 0.0);
    }
}

impl Scratch {
    fn load(&mut self, plan: &Plan, tile: Tile, voxels: &[f32], mask: Option<&[u8]>) {
        let halo = plan.patch + plan.search;
        let [width, height, depth] = tile.size.map(|n| n + 2 * halo);
        at_least(&mut self.voxels, width * height * depth);
        let place = |axis: usize, index: usize| mirrored((tile.start[axis] + index) as isize - halo as isize, plan.dims[axis]);
        // The part of a row that need not be mirrored.
        let inside = halo.saturating_sub(tile.start[0])..(plan.dims[0] + halo - tile.start[0]).min(width);
        let first = tile.start[0] + inside.start - halo;
        for (line, row) in self.voxels[..width * height * depth].chunks_exact_mut(width).enumerate() {
            let from = plan.row(place(1, line % height), place(2, line / height));
            let source = &voxels[from..from + plan.dims[0]];
            for (value, voxel) in row[inside.clone()].iter_mut().zip(&source[first..]) {
                *value = voxel * plan.scale;
            }
            for index in (0..inside.start).chain(inside.end..width) {
                row[index] = source[place(0, index)] * plan.scale;
            }
        }
        let count = tile.size[1] * tile.size[2];
        let length = tile.size[0] + 2 * plan.search;
        for array in [&mut self.total, &mut self.moved] {
            array.clear();
            array.resize(count * length, 0.0);
        }
        self.wanted.clear();
        self.wanted.extend((0..count).map(|line| mask.is_none_or(|mask| tile.mask_row(plan, line, mask).iter().any(|m| *m != 0))));
        let (reach, taps) = (tile.size[1] + plan.search, 2 * plan.patch + 1);
        let longest = length + 2 * plan.patch;
        at_least(&mut self.squares, taps * longest);
        at_least(&mut self.ring, taps * reach * longest);
        for array in [&mut self.column, &mut self.sums, &mut self.weights, &mut self.moves] {
            at_least(array, longest);
        }
    }

    /// One offset and its opposite.
    fn offset(&mut self, plan: &Plan, tile: Tile, offset: [isize; 3]) {
        let pass = Pass::new(plan, tile, offset);
        let (patch, taps) = (plan.patch as isize, 2 * plan.patch + 1);
        let [dx, dy, dz] = offset;
        let long = pass.count + 2 * plan.patch;
        let reach = (pass.rows.end - pass.rows.start) as usize;
        for z in pass.planes.start - patch..pass.planes.end + patch {
            // Planes count from the first one that is needed, so that the ring is full when the first sum is taken.
            let slot = (z - pass.planes.start + patch) as usize % taps;
            let is_full = z >= pass.planes.start + patch;
            for (index, y) in (pass.rows.start - patch..pass.rows.end + patch).enumerate() {
                let a = pass.voxel(pass.first - patch, y, z);
                let b = pass.voxel(pass.first - patch + dx, y + dy, z + dz);
                let (a, b) = (&self.voxels[a..a + long], &self.voxels[b..b + long]);
                // Rows and planes from the oldest, so that the order of the sums does not depend on where the tile begins.
                let squares = |tap: usize| ((index + tap) % taps * long)..((index + tap) % taps + 1) * long;
                if index + 1 < taps {
                    plan.rows.squared_differences(&mut self.squares[squares(0)], a, b);
                    continue;
                }
                let row = index + 1 - taps;
                let ring = |tap: usize| (((slot + tap) % taps * reach + row) * long)..(((slot + tap) % taps * reach + row) + 1) * long;
                let column = &mut self.column[..long];
                if taps == 3
                    && let Ok([new, first, second]) = self.squares.get_disjoint_mut([squares(0), squares(1), squares(2)])
                    && let Ok([sum, before, last]) = self.ring.get_disjoint_mut([ring(0), ring(1), ring(2)])
                {
                    plan.rows.next_of_three(new, sum, column, first, second, before, last, a, b);
                } else {
                    plan.rows.squared_differences(&mut self.squares[squares(0)], a, b);
                    add_up(plan.rows, &mut self.ring[ring(0)], (1..taps + 1).map(|tap| &self.squares[squares(tap)]));
                    add_up(plan.rows, column, (1..taps + 1).map(|tap| &self.ring[ring(tap)]));
                }
                if is_full {
                    self.row(plan, &pass, pass.rows.start + row as isize, z - patch);
                }
            }
        }
    }

    /// The pairs whose first voxels lie in a row, once the sums of their differences along y and z are there.
    fn row(&mut self, plan: &Plan, pass: &Pass, y: isize, z: isize) {
        let [dx, dy, dz] = pass.offset;
        let (count, taps) = (pass.count, 2 * plan.patch + 1);
        let place = |x: isize, y: isize, z: isize| pass.place(x, y, z).filter(|(line, _)| self.wanted[*line]).map(|(_, place)| place);
        let left = place(pass.first, y, z).map(|place| place..place + count);
        let right = place(pass.first + dx, y + dy, z + dz).map(|place| place..place + count);
        if left.is_none() && right.is_none() {
            return;
        }
        let (a, b) = (pass.voxel(pass.first, y, z), pass.voxel(pass.first + dx, y + dy, z + dz));
        let (a, b) = (&self.voxels[a..a + count], &self.voxels[b..b + count]);
        let column = &self.column[..count + 2 * plan.patch];
        if taps != 3 {
            let (sums, weights, moves) = (&mut self.sums[..count], &mut self.weights[..count], &mut self.moves[..count]);
            add_up(plan.rows, sums, (0..taps).map(|tap| &column[tap..tap + count]));
            plan.rows.weights_of_sums(weights, moves, sums, plan.rate, a, b);
            if let Some(place) = left {
                plan.rows.gather(&mut self.total[place.clone()], &mut self.moved[place], weights, moves);
            }
            if let Some(place) = right {
                plan.rows.gather_back(&mut self.total[place.clone()], &mut self.moved[place], weights, moves);
            }
            return;
        }
        // The usual case: both voxels of the pairs lie in the tile, and in different rows.
        if let (Some(left), Some(right)) = (&left, &right)
            && let Ok([total, other]) = self.total.get_disjoint_mut([left.clone(), right.clone()])
            && let Ok([moved, back]) = self.moved.get_disjoint_mut([left.clone(), right.clone()])
        {
            plan.rows.pairs_of_three(total, moved, other, back, column, plan.rate, a, b);
            return;
        }
        // Along a row the two places overlap, and the weights are computed for each; at the tile's faces there is but one.
        if let Some(place) = left {
            plan.rows.side_of_three(&mut self.total[place.clone()], &mut self.moved[place], column, plan.rate, a, b);
        }
        if let Some(place) = right {
            plan.rows.side_of_three(&mut self.total[place.clone()], &mut self.moved[place], column, plan.rate, b, a);
        }
    }

    fn store(&self, plan: &Plan, tile: Tile, mask: Option<&[u8]>, out: &mut [&mut [f32]]) {
        let halo = plan.patch + plan.search;
        let [width, height, _] = tile.size;
        let (stride, plane) = (width + 2 * halo, (width + 2 * halo) * (height + 2 * halo));
        let length = width + 2 * plan.search;
        for (line, row) in out.iter_mut().enumerate() {
            if !self.wanted[line] {
                continue;
            }
            let from = (line / height + halo) * plane + (line % height + halo) * stride + halo;
            let (voxels, place) = (&self.voxels[from..from + width], line * length + plan.search);
            let (total, moved) = (&self.total[place..place + width], &self.moved[place..place + width]);
            let mask = mask.map(|mask| tile.mask_row(plan, line, mask));
            for (index, value) in row.iter_mut().enumerate() {
                if mask.is_none_or(|mask| mask[index] != 0) {
                    // A voxel's own weight is 1 and moves nothing.
                    let square = voxels[index] * voxels[index] + moved[index] / (1.0 + total[index]) - plan.bias;
                    *value = square.max(0.0).sqrt() / plan.scale;
                }
            }
        }
    }
}

impl Tile {
    /// A row of the mask, of the tile's width.
    fn mask_row<'a>(&self, plan: &Plan, line: usize, mask: &'a [u8]) -> &'a [u8] {
        let height = self.size[1];
        let from = plan.row(self.start[1] + line % height, self.start[2] + line / height) + self.start[0];
        &mask[from..from + self.size[0]]
    }
}

/// out = the sum of some rows, in their order.
fn add_up<'a>(rows: Rows, out: &mut [f32], taken: impl Iterator<Item = &'a [f32]>) {
    out.fill(0.0);
    taken.for_each(|row| rows.add(out, row));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_outside_are_mirrored_without_repeating_the_edge() {
        let places: Vec<usize> = (-3..8).map(|place| mirrored(place, 5)).collect();
        assert_eq!(places, [3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]);
    }

    #[test]
    fn half_of_the_offsets_and_their_opposites_are_the_window() {
        for radius in 0..4usize {
            let half = half_offsets(radius);
            let mut all: Vec<[isize; 3]> = half.iter().flat_map(|o| [*o, o.map(|n| -n)]).chain([[0; 3]]).collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), (2 * radius + 1).pow(3));
            assert_eq!(all.len(), 2 * half.len() + 1);
        }
    }
}
