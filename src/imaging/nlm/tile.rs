//! Non-local means of one tile: a box of voxels small enough that everything about it stays in the processor's own cache.
//!
//! For each group of offsets that differ along the row only, the whole tile is done before the next group, so that both rows of its pairs
//! stay in the nearest cache: sums over the patch of the squared differences of a strip of rows (along y over the strip, along z over a ring of
//! planes, along x last), weights, and weighted sums, which all offsets of a group are added to at once. The patches of a voxel and of its
//! neighbour differ by as much as those of the neighbour and the voxel, so only half of the offsets are visited and each weight counts for
//! both voxels of its pair. Pairs with one voxel outside of the tile count for the other alone; the tile beside computes them again, and no
//! tile waits for another or adds to its voxels. In a tile of 16 by 16 rows and a search radius of 2 that is one pair in eight, and the sums
//! keep their order.
//!
//! Rows are worked on in whole registers, and a row's first voxel is the same for all offsets: what is computed beyond the pairs that
//! count, from voxels of the next row, is never added to a voxel of the tile.
//!
//! What is summed for a voxel v is weight * (u² - v²) rather than weight * u²: smaller numbers, hence less rounding, and 0 among
//! equal voxels.

use std::ops::Range;

use super::plan::Plan;
use super::rows::{LANES, MOST_OFFSETS, Rows, STRIDE, STRIP, first_rows, first_rows_mut};
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
    /// Sums of weights, and of weights times what they move, for the tile's rows.
    total: Vec<f32>,
    moved: Vec<f32>,
    /// Whether a row of the tile has voxels to compute.
    wanted: Vec<bool>,
    /// For each offset along the row: sums of squared differences along y, of as many planes as a patch has; weights of a strip.
    ring: Vec<f32>,
    weights: Vec<f32>,
    /// The sums of a strip's differences along y and z, and that of a row along x.
    columns: Vec<f32>,
    sums: Vec<f32>,
}

/// Which rows of a plane of pairs are worked on, and for which offset along the row.
#[derive(Clone, Copy)]
struct Strip {
    /// Place of the offset in its group.
    order: usize,
    /// Place of the plane in the ring.
    slot: usize,
    /// Rows of a plane.
    reach: usize,
    /// First row.
    row: usize,
    /// Rows: [`STRIP`] or 1.
    count: usize,
}

impl Strip {
    /// Where its sums lie in the ring of so many planes: of the one that is being made for 0, then from the oldest.
    fn ring(&self, tap: usize, taps: usize) -> Range<usize> {
        let from = (self.order * taps + (self.slot + tap) % taps) * self.reach + self.row;
        from * STRIDE..(from + self.count) * STRIDE
    }
}

/// Offsets that differ along the row only: their pairs join the same two rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Offset along y and z.
    dy: isize,
    dz: isize,
    /// Offsets along x.
    dx: Range<isize>,
}

/// Where a tile's voxels and sums lie in the arrays. Coordinates are the tile's, and may lie outside of it.
#[derive(Clone, Copy)]
struct Layout {
    size: [isize; 3],
    /// How far around the tile voxels are loaded.
    halo: isize,
    /// Registers of a row of pairs, with all that their patches reach.
    long: usize,
    /// Registers of a tile's row.
    short: usize,
}

impl Layout {
    fn new(plan: &Plan, tile: Tile) -> Layout {
        let halo = plan.search + plan.patch;
        Layout {
            size: tile.size.map(|n| n as isize),
            halo: halo as isize,
            long: (tile.size[0] + 2 * halo).div_ceil(LANES),
            short: tile.size[0].div_ceil(LANES),
        }
    }

    /// Where a voxel lies among those that were loaded. Before the first and after the last row one more is allocated: rows are read with an
    /// offset.
    #[inline]
    fn voxel(&self, x: isize, y: isize, z: isize) -> usize {
        let height = self.size[1] + 2 * self.halo;
        let row = (z + self.halo) * height + y + self.halo + 1;
        (row * STRIDE as isize + x + self.halo) as usize
    }

    /// The tile's row at a place; `None` outside of the tile.
    fn line(&self, y: isize, z: isize) -> Option<usize> {
        let [_, height, depth] = self.size;
        ((0..height).contains(&y) && (0..depth).contains(&z)).then_some((z * height + y) as usize)
    }
}

/// Half of the offsets of a search window, such that each offset or its opposite is there, without 0.
pub(super) fn half_offsets(radius: usize) -> Vec<Group> {
    let radius = radius as isize;
    let axis = || -radius..=radius;
    let all = axis().flat_map(|dz| axis().map(move |dy| (dz, dy)));
    let group = |(dz, dy)| Group { dy, dz, dx: if (dz, dy) == (0, 0) { 1..radius + 1 } else { -radius..radius + 1 } };
    all.filter(|place| *place >= (0, 0)).map(group).filter(|group| !group.dx.is_empty()).collect()
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
    for group in &plan.groups {
        control.check()?;
        scratch.group(plan, tile, group);
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
        at_least(&mut self.voxels, (height * depth + 2) * STRIDE);
        let place = |axis: usize, index: usize| mirrored((tile.start[axis] + index) as isize - halo as isize, plan.dims[axis]);
        // The part of a row that need not be mirrored.
        let inside = halo.saturating_sub(tile.start[0])..(plan.dims[0] + halo - tile.start[0]).min(width);
        let first = tile.start[0] + inside.start - halo;
        for (line, row) in self.voxels[STRIDE..].chunks_exact_mut(STRIDE).take(height * depth).enumerate() {
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
        for array in [&mut self.total, &mut self.moved] {
            array.clear();
            array.resize(count * STRIDE, 0.0);
        }
        self.wanted.clear();
        self.wanted.extend((0..count).map(|line| mask.is_none_or(|mask| tile.mask_row(plan, line, mask).iter().any(|m| *m != 0))));
        let (reach, taps, offsets) = (tile.size[1] + plan.search, 2 * plan.patch + 1, 2 * plan.search + 1);
        at_least(&mut self.ring, offsets * taps * reach * STRIDE);
        at_least(&mut self.weights, (offsets + MOST_OFFSETS) * STRIP * STRIDE);
        at_least(&mut self.columns, (STRIP + 1) * STRIDE);
        at_least(&mut self.sums, STRIDE);
    }

    /// A group of offsets and their opposites.
    fn group(&mut self, plan: &Plan, tile: Tile, group: &Group) {
        let layout = Layout::new(plan, tile);
        let reach = |offset: isize, size: isize| (-offset).min(0)..size + (-offset).max(0);
        let (rows, planes) = (reach(group.dy, layout.size[1]), reach(group.dz, layout.size[2]));
        let (patch, taps) = (plan.patch as isize, 2 * plan.patch + 1);
        let strip = if taps == 3 { STRIP as isize } else { 1 };
        for z in planes.start - patch..planes.end + patch {
            // Planes count from the first one that is needed, so that the ring is full when the first sum is taken.
            let slot = (z - planes.start + patch) as usize % taps;
            let centre = z - patch;
            let is_full = centre >= planes.start;
            let mut y = rows.start;
            while y < rows.end {
                let count = if rows.end - y >= strip { strip } else { 1 };
                let line = |y: isize, z: isize| layout.line(y, z).filter(|line| is_full && self.wanted[*line]);
                let mut sides = [[None; 2]; STRIP];
                for (sides, y) in sides.iter_mut().zip(y..y + count) {
                    *sides = [line(y, centre), line(y + group.dy, centre + group.dz)];
                }
                for (order, dx) in group.dx.clone().enumerate() {
                    let strip = Strip {
                        order,
                        slot,
                        reach: (rows.end - rows.start) as usize,
                        row: (y - rows.start) as usize,
                        count: count as usize,
                    };
                    let a = layout.voxel(-layout.halo, y - patch, z);
                    let b = layout.voxel(-layout.halo + dx, y - patch + group.dy, z + group.dz);
                    if taps == 3 {
                        self.add_planes(plan, &layout, strip, a, b);
                    } else {
                        self.add_planes_of(plan, &layout, strip, a, b);
                    }
                    if sides.as_flattened().iter().any(Option::is_some) {
                        self.weigh(plan, &layout, strip);
                    }
                }
                for (row, [left, right]) in sides.into_iter().enumerate().take(count as usize) {
                    let (first, second) = ([y + row as isize, centre], [y + row as isize + group.dy, centre + group.dz]);
                    if let Some(line) = left {
                        self.gather(plan, &layout, group, [row, line], first, second, 1);
                    }
                    if let Some(line) = right {
                        self.gather(plan, &layout, group, [row, line], second, first, -1);
                    }
                }
                y += count;
            }
        }
    }

    /// The usual patch: sums of a strip's squared differences along y and z.
    fn add_planes(&mut self, plan: &Plan, layout: &Layout, strip: Strip, a: usize, b: usize) {
        let (a, b) = (&self.voxels[a..], &self.voxels[b..]);
        // From the oldest, so that the order of the sums does not depend on where the tile begins.
        let Ok([sums, before, last]) = self.ring.get_disjoint_mut([0, 1, 2].map(|tap| strip.ring(tap, 3))) else { return };
        if strip.count == STRIP {
            if let (Some(sums), Some(columns)) = (first_rows_mut(sums), first_rows_mut(&mut self.columns))
                && let (Some(before), Some(last)) = (first_rows(before), first_rows(last))
                && let (Some(a), Some(b)) = (first_rows(a), first_rows(b))
            {
                plan.rows.box_of_four(sums, columns, before, last, a, b, layout.long);
            }
        } else if let (Some(sums), Some(columns)) = (first_rows_mut(sums), first_rows_mut(&mut self.columns))
            && let (Some(before), Some(last)) = (first_rows(before), first_rows(last))
            && let (Some(a), Some(b)) = (first_rows(a), first_rows(b))
        {
            plan.rows.box_of_one(sums, columns, before, last, a, b, layout.long);
        }
    }

    /// Any patch, for a strip of one row.
    fn add_planes_of(&mut self, plan: &Plan, layout: &Layout, strip: Strip, a: usize, b: usize) {
        let taps = 2 * plan.patch + 1;
        if let Some([sum]) = first_rows_mut(&mut self.ring[strip.ring(0, taps)]) {
            sum.iter_mut().for_each(|lanes| lanes.fill(0.0));
            for row in 0..taps {
                let voxels = |from: usize| first_rows(&self.voxels[from + row * STRIDE..]);
                if let (Some([a]), Some([b])) = (voxels(a), voxels(b)) {
                    plan.rows.add_squared_differences(sum, a, b, layout.long);
                }
            }
        }
        // From the oldest, so that the order of the sums does not depend on where the tile begins.
        add_up(plan.rows, &mut self.columns, (1..taps + 1).map(|tap| &self.ring[strip.ring(tap, taps)]), layout.long);
    }

    /// Weights of the pairs of a strip, for one offset along the row.
    fn weigh(&mut self, plan: &Plan, layout: &Layout, strip: Strip) {
        let taps = 2 * plan.patch + 1;
        let count = (layout.size[0] as usize + 2 * plan.search).div_ceil(LANES);
        let weights = &mut self.weights[strip.order * STRIP * STRIDE..];
        if taps != 3 {
            add_up(plan.rows, &mut self.sums, (0..taps).map(|tap| &self.columns[tap..tap + STRIDE]), count);
            if let (Some([weights]), Some([sums])) = (first_rows_mut(weights), first_rows(&self.sums)) {
                plan.rows.weights_of_sums(weights, sums, plan.rate, count);
            }
        } else if let Some(columns) = self.columns.first_chunk() {
            if strip.count == STRIP {
                if let Some(weights) = first_rows_mut(weights) {
                    plan.rows.weights_of_four(weights, columns, plan.rate, count);
                }
            } else if let Some(weights) = first_rows_mut(weights) {
                plan.rows.weights_of_one(weights, columns, plan.rate, count);
            }
        }
    }

    /// Adds the pairs of a row to the sums of one side: of the first voxels for the sign 1, of the second ones for -1. `own` and `other` are
    /// the places (y, z) of that side's row and of the other's.
    #[allow(clippy::too_many_arguments)]
    fn gather(
        &mut self,
        plan: &Plan,
        layout: &Layout,
        group: &Group,
        [row, line]: [usize; 2],
        own: [isize; 2],
        other: [isize; 2],
        sign: isize,
    ) {
        let (Some([total]), Some([moved])) =
            (first_rows_mut(&mut self.total[line * STRIDE..]), first_rows_mut(&mut self.moved[line * STRIDE..]))
        else {
            return;
        };
        let Some([voxels]) = first_rows(&self.voxels[layout.voxel(0, own[0], own[1])..]) else { return };
        // The weight of a pair stands where its first voxel is.
        let first = row * STRIDE + plan.search;
        let (mut order, offsets) = (0, group.dx.clone().count());
        while order < offsets {
            let count = match offsets - order {
                5.. => 5,
                3.. => 3,
                n => n,
            };
            let dx = group.dx.start + order as isize;
            let from = first + order * STRIP * STRIDE;
            let (from, x) = if sign > 0 { (from, dx) } else { (from.wrapping_add_signed(-dx), 1 - dx - count as isize) };
            let others = self.voxels[layout.voxel(x, other[0], other[1])..].first_chunk();
            if let (Some(weights), Some(others)) = (self.weights[from..].first_chunk(), others) {
                if sign > 0 {
                    plan.rows.gather(total, moved, voxels, weights, others, count, layout.short);
                } else {
                    plan.rows.gather_back(total, moved, voxels, weights, others, count, layout.short);
                }
            }
            order += count;
        }
    }

    fn store(&self, plan: &Plan, tile: Tile, mask: Option<&[u8]>, out: &mut [&mut [f32]]) {
        let layout = Layout::new(plan, tile);
        let [width, height, _] = tile.size;
        for (line, row) in out.iter_mut().enumerate() {
            if !self.wanted[line] {
                continue;
            }
            let from = layout.voxel(0, (line % height) as isize, (line / height) as isize);
            let (voxels, place) = (&self.voxels[from..from + width], line * STRIDE);
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
fn add_up<'a>(rows: Rows, out: &mut [f32], taken: impl Iterator<Item = &'a [f32]>, count: usize) {
    let Some([out]) = first_rows_mut(out) else { return };
    out.iter_mut().for_each(|lanes| lanes.fill(0.0));
    taken.filter_map(first_rows).for_each(|[row]| rows.add(out, row, count));
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
            let half: Vec<[isize; 3]> = half.iter().flat_map(|g| g.dx.clone().map(|dx| [dx, g.dy, g.dz])).collect();
            let mut all: Vec<[isize; 3]> = half.iter().flat_map(|o| [*o, o.map(|n| -n)]).chain([[0; 3]]).collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), (2 * radius + 1).pow(3));
            assert_eq!(all.len(), 2 * half.len() + 1);
        }
    }
}
