//! Windows of whole voxels: cutting out, padding around, and finding where something is.

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::Volume;
use crate::imaging::grid::AlignedGrid;
use crate::imaging::resample;

/// First and last index per axis (both inclusive) of a box of voxels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First index: column, row, slice.
    pub first: [usize; 3],
    /// Last index: column, row, slice.
    pub last: [usize; 3],
}

impl Bounds {
    /// The box around nothing; growing it by any voxel makes it that voxel.
    pub(crate) const EMPTY: Bounds = Bounds { first: [usize::MAX; 3], last: [0; 3] };

    /// Grows the box until it holds a run of a row.
    pub(crate) fn grow(&mut self, columns: (usize, usize), row: usize, slice: usize) {
        for (axis, (low, high)) in [columns, (row, row), (slice, slice)].into_iter().enumerate() {
            self.first[axis] = self.first[axis].min(low);
            self.last[axis] = self.last[axis].max(high);
        }
    }
}

/// The smallest box around the voxels for which a test holds, or `None` when it holds for none.
pub fn bounds<T: Copy>(data: &[T], dims: [usize; 3], inside: impl Fn(T) -> bool) -> Option<Bounds> {
    let mut found = Bounds::EMPTY;
    for (index, line) in data.chunks(dims[0].max(1)).enumerate() {
        let Some(low) = line.iter().position(|value| inside(*value)) else { continue };
        let high = line.iter().rposition(|value| inside(*value)).unwrap_or(low);
        found.grow((low, high), index % dims[1].max(1), index / dims[1].max(1));
    }
    (found.first[0] != usize::MAX).then_some(found)
}

/// A window of a volume; it may begin before the first voxel and end after the last, where `pad` stands.
///
/// # Errors
/// [`Kind::InvalidArgument`] when the window has no voxel; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn window(volume: &Volume, lower: [i64; 3], shape: [usize; 3], pad: f32, control: &Control) -> Result<Volume> {
    if shape.contains(&0) {
        return Err(Error::new(Kind::InvalidArgument, "a window without voxels").at(Stage::Imaging));
    }
    let grid = AlignedGrid::window(lower, shape);
    let dims = volume.geometry.dims;
    volume.moved(grid.geometry(&volume.geometry), |data| resample::nearest(data, dims, &grid, Some(pad), control))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deid::{Geometry, Verdict};

    #[test]
    fn a_window_past_the_edges_is_padded_and_stays_in_place() {
        let affine_lps = [[2.0, 0.0, 0.0, 10.0], [0.0, 2.0, 0.0, 20.0], [0.0, 0.0, 4.0, 30.0], [0.0, 0.0, 0.0, 1.0]];
        let geometry = Geometry { dims: [3, 2, 1], spacing_mm: [2.0, 2.0, 4.0], affine_lps, verdict: Verdict::Uniform };
        let volume = Volume::from_parts(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], geometry, "MR").unwrap();
        let cut = window(&volume, [-1, 1, 0], [3, 2, 1], -7.0, &Control::new()).unwrap();
        assert_eq!(cut.voxels(), [-7.0, 4.0, 5.0, -7.0, -7.0, -7.0]);
        let m = cut.geometry().affine_lps;
        assert_eq!([m[0][3], m[1][3], m[2][3]], [8.0, 22.0, 30.0]);
        assert_eq!(window(&volume, [1, 0, 0], [2, 2, 1], 0.0, &Control::new()).unwrap().voxels(), [2.0, 3.0, 5.0, 6.0]);
        assert!(window(&volume, [0; 3], [0, 1, 1], 0.0, &Control::new()).is_err());
    }

    #[test]
    fn bounds_hold_every_voxel_and_no_more() {
        let mut data = [0u8; 60];
        data[(2 * 4 + 1) * 3 + 2] = 5; // column 2, row 1, slice 2
        data[(3 * 4 + 3) * 3] = 5; // column 0, row 3, slice 3
        assert_eq!(bounds(&data, [3, 4, 5], |v| v == 5), Some(Bounds { first: [0, 1, 2], last: [2, 3, 3] }));
        assert_eq!(bounds(&data, [3, 4, 5], |v| v == 6), None);
    }
}
