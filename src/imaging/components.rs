//! Connected components of masks: labelling, the largest, the small ones, and holes.
//!
//! Rows are cut into runs, and runs of neighbouring rows that touch are joined in a forest whose roots are the runs met first. Memory and
//! time follow the number of runs, not of voxels, and components come numbered in the order in which a reader of the volume meets them.

use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::crop::Bounds;
use crate::imaging::grid::{filled, voxel_count};

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

    /// Earlier rows that can touch a row, as (rows before, slices before, reach): runs touch when they overlap after one is widened by the
    /// reach.
    fn earlier_rows(self) -> &'static [(i64, i64, usize)] {
        match self {
            Connectivity::Faces => &[(1, 0, 0), (0, 1, 0)],
            Connectivity::Edges => &[(1, 0, 1), (0, 1, 1), (1, 1, 0), (-1, 1, 0)],
            Connectivity::Corners => &[(1, 0, 1), (0, 1, 1), (1, 1, 1), (-1, 1, 1)],
        }
    }
}

/// A run of voxels along a row.
#[derive(Clone, Copy)]
struct Run {
    /// Row, counted over all slices.
    row: usize,
    /// First column.
    first: usize,
    /// Last column, inclusive.
    last: usize,
}

/// The connected components of a mask, numbered from 0 in the order of their first voxels.
pub struct Components {
    dims: [usize; 3],
    runs: Vec<Run>,
    /// Component of each run.
    component: Vec<u32>,
    sizes: Vec<u64>,
    bounds: Vec<Bounds>,
}

impl Components {
    /// Finds the components of the voxels for which a test holds.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] when the data do not fill the grid; [`Kind::LimitExceeded`] past 4,294,967,295 runs.
    pub fn find<T: Copy>(data: &[T], dims: [usize; 3], connectivity: Connectivity, inside: impl Fn(T) -> bool) -> Result<Components> {
        if voxel_count(dims)? != data.len() {
            return Err(Error::new(Kind::InvalidArgument, "the mask does not fill its grid").at(Stage::Imaging));
        }
        let (runs, row_starts) = runs(data, dims, inside);
        if u32::try_from(runs.len()).is_err() {
            return Err(Error::new(Kind::LimitExceeded, "the mask has too many runs").at(Stage::Imaging));
        }
        let mut forest = Forest { parent: (0..runs.len()).map(|index| index as u32).collect() };
        let (height, rows) = (dims[1] as i64, (dims[1] * dims[2]) as i64);
        for row in 0..rows {
            let (y, z) = (row % height, row / height);
            for (rows_before, slices_before, reach) in connectivity.earlier_rows() {
                let (other_y, other_z) = (y - rows_before, z - slices_before);
                if other_z >= 0 && (0..height).contains(&other_y) {
                    let other = (other_z * height + other_y) as usize;
                    join(&mut forest, &runs, bounds_of(&row_starts, row as usize), bounds_of(&row_starts, other), *reach);
                }
            }
        }
        let mut found = Components { dims, component: vec![0; runs.len()], runs, sizes: Vec::new(), bounds: Vec::new() };
        for index in 0..found.runs.len() {
            let (run, root) = (found.runs[index], forest.root(index as u32) as usize);
            // A root is the first run of its component, so it has its number when the others ask for it.
            let number = if root == index {
                found.sizes.push(0);
                found.bounds.push(Bounds::EMPTY);
                found.sizes.len() - 1
            } else {
                found.component[root] as usize
            };
            found.component[index] = number as u32;
            found.sizes[number] += (run.last - run.first + 1) as u64;
            found.bounds[number].grow((run.first, run.last), run.row % dims[1], run.row / dims[1]);
        }
        Ok(found)
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

    /// Calls for every run of a chosen component with the range of its voxels.
    pub fn visit(&self, chosen: impl Fn(usize) -> bool, mut visit: impl FnMut(usize, std::ops::Range<usize>)) {
        for (run, number) in self.runs.iter().zip(&self.component) {
            if chosen(*number as usize) {
                let start = run.row * self.dims[0];
                visit(*number as usize, start + run.first..start + run.last + 1);
            }
        }
    }

    /// A map of numbers: 0 outside, component + 1 inside.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`].
    pub fn map(&self) -> Result<Vec<u32>> {
        let mut map = filled(voxel_count(self.dims)?, 0u32)?;
        self.visit(|_| true, |number, voxels| map[voxels].fill(number as u32 + 1));
        Ok(map)
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

/// The runs of a mask, and for each row where its runs begin (one entry more than rows).
fn runs<T: Copy>(data: &[T], dims: [usize; 3], inside: impl Fn(T) -> bool) -> (Vec<Run>, Vec<usize>) {
    let mut runs = Vec::new();
    let mut row_starts = Vec::with_capacity(dims[1] * dims[2] + 1);
    for (row, line) in data.chunks(dims[0].max(1)).enumerate() {
        row_starts.push(runs.len());
        let mut open = None;
        for (column, value) in line.iter().enumerate() {
            match (inside(*value), open) {
                (true, None) => open = Some(column),
                (false, Some(first)) => {
                    runs.push(Run { row, first, last: column - 1 });
                    open = None;
                }
                _ => {}
            }
        }
        if let Some(first) = open {
            runs.push(Run { row, first, last: line.len() - 1 });
        }
    }
    row_starts.push(runs.len());
    (runs, row_starts)
}

fn bounds_of(row_starts: &[usize], row: usize) -> std::ops::Range<usize> {
    match (row_starts.get(row), row_starts.get(row + 1)) {
        (Some(start), Some(end)) => *start..*end,
        _ => 0..0,
    }
}

/// Joins the runs of two rows that touch: both rows are sorted, so one walk along both finds all pairs.
fn join(forest: &mut Forest, runs: &[Run], row: std::ops::Range<usize>, other: std::ops::Range<usize>, reach: usize) {
    let (mut a, mut b) = (row.start, other.start);
    while a < row.end && b < other.end {
        let (left, right) = (runs[a], runs[b]);
        if left.first <= right.last + reach && right.first <= left.last + reach {
            forest.join(a as u32, b as u32);
        }
        // The run that ends first cannot touch anything further on.
        if left.last < right.last { a += 1 } else { b += 1 }
    }
}

/// Disjoint sets of runs; the smallest index of a set is its root.
struct Forest {
    parent: Vec<u32>,
}

impl Forest {
    fn root(&mut self, index: u32) -> u32 {
        let mut index = index;
        while self.parent[index as usize] != index {
            // Halving: every second link skips its parent, which keeps paths short without recursion.
            let grand = self.parent[self.parent[index as usize] as usize];
            self.parent[index as usize] = grand;
            index = grand;
        }
        index
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b) as usize] = a.min(b);
    }
}
