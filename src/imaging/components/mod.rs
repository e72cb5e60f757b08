//! Connected components of masks: labelling, the largest, the small ones, and holes.
//!
//! A mask becomes rows of bits; runs of bundles of rows that touch are joined in a forest (the modules `bits` and `bundles`). Memory is an
//! eighth of a byte mask, a quarter to a half of that again, and four bytes for each run. Components come numbered in the order in which a
//! reader of the volume meets them, whatever the number of threads.

mod bits;
mod bundles;

use rayon::prelude::*;

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::crop::Bounds;
use crate::imaging::grid::{filled, voxel_count};
use bits::{BitRows, WORD};
use bundles::Bundles;

/// Which voxels touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// Those that share a face (6).
    Faces,
    /// Those that share a face or an edge (18).
    Edges,
    /// Those that share a face, an edge or a corner (26).
    Corners,
}

impl Connectivity {
    /// From the number of neighbours: 6, 18 or 26.
    pub fn from_neighbours(count: u32) -> Option<Connectivity> {
        match count {
            6 => Some(Connectivity::Faces),
            18 => Some(Connectivity::Edges),
            26 => Some(Connectivity::Corners),
            _ => None,
        }
    }
}

/// The connected components of a mask, numbered from 0 in the order of their first voxels.
pub struct Components {
    dims: [usize; 3],
    bundles: Bundles,
    /// Component of each node.
    component: Vec<u32>,
    sizes: Vec<u64>,
    bounds: Vec<Bounds>,
}

impl Components {
    /// Finds the components of the voxels for which a test holds.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] when the data do not fill the grid; [`Kind::LimitExceeded`] past 4,294,967,295 runs; [`Kind::OutOfMemory`].
    pub fn find<T: Copy + Sync>(
        data: &[T],
        dims: [usize; 3],
        connectivity: Connectivity,
        inside: impl Fn(T) -> bool + Sync,
    ) -> Result<Components> {
        Components::find_with(data, dims, connectivity, inside, &Control::new())
    }

    /// [`Components::find`] that can be cancelled.
    ///
    /// # Errors
    /// As [`Components::find`]; [`Kind::Cancelled`].
    pub fn find_with<T: Copy + Sync>(
        data: &[T],
        dims: [usize; 3],
        connectivity: Connectivity,
        inside: impl Fn(T) -> bool + Sync,
        control: &Control,
    ) -> Result<Components> {
        if voxel_count(dims)? != data.len() {
            return Err(Error::new(Kind::InvalidArgument, "the mask does not fill its grid").at(Stage::Imaging));
        }
        let bundles = Bundles::new(BitRows::of(data, dims, inside, control)?, dims, connectivity, control)?;
        // A node's parent is an earlier member, which has its component already when the node asks for it.
        let mut component = bundles.joined(control)?;
        let mut count = 0u32;
        for node in 0..component.len() {
            let parent = component[node] as usize;
            component[node] = if parent == node { count } else { component[parent] };
            count += u32::from(parent == node);
        }
        let mut found = Components { dims, bundles, component, sizes: Vec::new(), bounds: Vec::new() };
        found.measure(count as usize, control)?;
        Ok(found)
    }

    /// Fills in sizes and bounds, and numbers the components in the order of their first voxels.
    fn measure(&mut self, count: usize, control: &Control) -> Result<()> {
        let (mut sizes, mut bounds) = (filled(count, 0u64)?, filled(count, Bounds::EMPTY)?);
        let mut firsts = filled(if self.bundles.are_rows() { 0 } else { count }, u64::MAX)?;
        let ([height, depth], shape, are_rows) = (self.bundles.counts(), self.bundles.shape(), self.bundles.are_rows());
        for z in 0..depth {
            control.check()?;
            for y in 0..height {
                let rows = self.bundles.rows_at(y, z);
                let (row, slice) = (y * shape[0], z * shape[1]);
                self.bundles.pieces(y, z, |piece| {
                    let number = self.component[piece.node as usize] as usize;
                    let base = piece.word * WORD;
                    let columns = (base + piece.bits.trailing_zeros() as usize, base + 63 - piece.bits.leading_zeros() as usize);
                    let (size, bound) = (&mut sizes[number], &mut bounds[number]);
                    if are_rows {
                        *size += (columns.1 - columns.0 + 1) as u64;
                        bound.grow(columns, row, slice);
                        return;
                    }
                    // Last row first, so that the first voxel is the one that stays.
                    let mut first = u64::MAX;
                    for (place, words) in rows.iter().enumerate().rev() {
                        let bits = words.map_or(0, |words| words[piece.word]) & piece.bits;
                        if bits != 0 {
                            let start = (slice + place / 2) * self.dims[1] + row + place % 2;
                            first = (start * self.dims[0] + base) as u64 + u64::from(bits.trailing_zeros());
                            *size += u64::from(bits.count_ones());
                            bound.grow(columns, row + place % 2, slice + place / 2);
                        }
                    }
                    if let Some(least) = firsts.get_mut(number) {
                        *least = first.min(*least);
                    }
                });
            }
        }
        if !firsts.is_empty() {
            let mut order = filled(count, 0u32)?;
            order.iter_mut().zip(0u32..).for_each(|(place, number)| *place = number);
            order.sort_unstable_by_key(|number| firsts[*number as usize]);
            let mut places = filled(count, 0u32)?;
            order.iter().zip(0u32..).for_each(|(number, place)| places[*number as usize] = place);
            self.component.par_iter_mut().for_each(|number| *number = places[*number as usize]);
            let (mut sorted_sizes, mut sorted_bounds) = (filled(count, 0u64)?, filled(count, Bounds::EMPTY)?);
            for ((number, size), bound) in order.iter().zip(&mut sorted_sizes).zip(&mut sorted_bounds) {
                (*size, *bound) = (sizes[*number as usize], bounds[*number as usize]);
            }
            (sizes, bounds) = (sorted_sizes, sorted_bounds);
        }
        (self.sizes, self.bounds) = (sizes, bounds);
        Ok(())
    }

    /// Voxels of each component.
    pub fn sizes(&self) -> &[u64] {
        &self.sizes
    }

    /// Box around each component.
    pub fn bounds(&self) -> &[Bounds] {
        &self.bounds
    }

    /// Number of the largest component; of equals the first.
    pub fn largest(&self) -> Option<usize> {
        // `max_by_key` keeps the last of equals, hence the reversed order.
        self.sizes.iter().enumerate().rev().max_by_key(|(_, size)| **size).map(|(number, _)| number)
    }

    /// Whether a component touches the border of the grid.
    pub fn touches_border(&self, number: usize) -> bool {
        self.bounds.get(number).is_some_and(|b| (0..3).any(|axis| b.first[axis] == 0 || b.last[axis] + 1 == self.dims[axis]))
    }

    /// Calls for every run of a chosen component with the range of its voxels, in the order of the voxels.
    pub fn visit(&self, chosen: impl Fn(usize) -> bool, mut visit: impl FnMut(usize, std::ops::Range<usize>)) {
        for row in 0..self.dims[1] * self.dims[2] {
            let start = row * self.dims[0];
            self.bundles.runs_of_row(row, |node, first, end| {
                let number = self.component[node as usize] as usize;
                if chosen(number) {
                    visit(number, start + first..start + end);
                }
            });
        }
    }

    /// A map of numbers: 0 outside, component + 1 inside.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`].
    pub fn map(&self) -> Result<Vec<u32>> {
        let mut map = filled(voxel_count(self.dims)?, 0u32)?;
        let [width, height, _] = self.dims;
        map.par_chunks_mut((width * height).max(1)).enumerate().for_each(|(slice, plane)| {
            for (y, line) in plane.chunks_mut(width.max(1)).enumerate() {
                self.bundles.runs_of_row(slice * height + y, |node, first, end| {
                    paint(line, first, end, self.component[node as usize] + 1);
                });
            }
        });
        Ok(map)
    }
}

/// Voxels that are written at once.
const BRUSH: usize = 8;

/// Writes a value over a part of a row whose rest, from `first` on, is 0 and shall stay so. Most runs of a noisy mask are shorter than a brush:
/// writing whole brushes, and zeros behind the run, needs no branch that hangs on its length.
#[inline(always)]
fn paint(line: &mut [u32], first: usize, end: usize, value: u32) {
    match line.get_mut(first..first + 2 * BRUSH) {
        Some(place) if end - first <= BRUSH => {
            let (brush, _) = place.split_at_mut(BRUSH);
            brush.fill(value);
            if let Some(behind) = line.get_mut(end..end + BRUSH) {
                behind.fill(0);
            }
        }
        _ => line[first..end].fill(value),
    }
}

/// Keeps the largest component of a label and sets its others to 0.
///
/// # Errors
/// As [`Components::find`].
pub fn keep_largest(labels: &mut [u8], dims: [usize; 3], label: u8, connectivity: Connectivity) -> Result<()> {
    let found = Components::find(labels, dims, connectivity, |value| value == label)?;
    let largest = found.largest();
    found.visit(|number| Some(number) != largest, |_, voxels| labels[voxels].fill(0));
    Ok(())
}

/// Sets the components of a label that have fewer voxels than `least` to 0.
///
/// # Errors
/// As [`Components::find`].
pub fn remove_small(labels: &mut [u8], dims: [usize; 3], label: u8, connectivity: Connectivity, least: u64) -> Result<()> {
    let found = Components::find(labels, dims, connectivity, |value| value == label)?;
    found.visit(|number| found.sizes[number] < least, |_, voxels| labels[voxels].fill(0));
    Ok(())
}

/// Gives a label the background that it encloses: voxels from which no path of shared faces reaches the border of the grid without crossing
/// the label. Voxels of other labels inside stay theirs.
///
/// # Errors
/// As [`Components::find`].
pub fn fill_holes(labels: &mut [u8], dims: [usize; 3], label: u8) -> Result<()> {
    let outside = Components::find(labels, dims, Connectivity::Faces, |value| value != label)?;
    outside.visit(
        |number| !outside.touches_border(number),
        |_, voxels| labels[voxels].iter_mut().filter(|value| **value == 0).for_each(|value| *value = label),
    );
    Ok(())
}
