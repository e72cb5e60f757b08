//! The arithmetic of grids: how one grid lies on another.
//!
//! Nearly every grid of this library is laid along the axes of the volume it came from: reordered, flipped, stretched, cropped, never
//! turned.
//! [`AlignedGrid`] says so per axis, in voxels of the grid below: index `i` of an axis lies at `start + step * i` of axis `source`. Grids
//! compose and invert, so the way back for a mask is the inverse of the way there, and no rounding accumulates over the steps between.
//!
//! Continuous indices count from the first voxel's centre (ITK's convention): voxel 0 reaches from -0.5 to 0.5.

use crate::deid::Geometry;
use crate::error::{Error, Kind, Result, Stage};
use crate::memory;

/// A spacing that differs by less than this fraction from the wanted one is left alone: over 1000 voxels it moves the last one by a tenth.
const SAME_SPACING: f64 = 1e-4;

/// One axis of a grid that lies along the axes of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxisMap {
    /// Axis of the grid below.
    pub source: usize,
    /// Where index 0 lies, in voxels of the grid below.
    pub start: f64,
    /// Voxels of the grid below per voxel; negative when the axis runs backwards, never 0.
    pub step: f64,
    /// Voxels.
    pub len: usize,
}

/// A grid that lies along the axes of another (see the module).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlignedGrid {
    /// Axes x (fastest), y, z.
    pub axes: [AxisMap; 3],
}

impl AlignedGrid {
    /// The grid itself.
    pub fn identity(dims: [usize; 3]) -> AlignedGrid {
        AlignedGrid { axes: [0, 1, 2].map(|axis| AxisMap { source: axis, start: 0.0, step: 1.0, len: dims[axis] }) }
    }

    /// The grid with other spacing and length along each axis: the first voxel centre stays, the length is the nearest whole number of
    /// voxels.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] unless every spacing is finite and positive; [`Kind::LimitExceeded`] when an axis would grow past 65,535
    /// voxels (a spacing in metres, say).
    pub fn to_spacing(dims: [usize; 3], from_mm: [f64; 3], to_mm: [f64; 3]) -> Result<AlignedGrid> {
        let mut grid = AlignedGrid::identity(dims);
        for (axis, (from, to)) in grid.axes.iter_mut().zip(from_mm.into_iter().zip(to_mm)) {
            if !(to.is_finite() && to > 0.0 && from.is_finite() && from > 0.0) {
                return Err(Error::new(Kind::InvalidArgument, "a spacing is not a positive number of millimetres").at(Stage::Imaging));
            }
            if (from / to - 1.0).abs() < SAME_SPACING {
                continue;
            }
            let len = (axis.len as f64 * from / to).round().max(1.0);
            if len > 65_535.0 {
                return Err(Error::new(Kind::LimitExceeded, "resampling makes an axis longer than 65535 voxels")
                    .with_hint("check the spacing asked for: it is in millimetres")
                    .at(Stage::Imaging));
            }
            axis.step = to / from;
            axis.len = len as usize;
        }
        Ok(grid)
    }

    /// The grid stretched to a shape: outer borders stay where they are, so index i samples at (i + 0.5) * n / shape - 0.5.
    pub fn stretched(dims: [usize; 3], shape: [usize; 3]) -> AlignedGrid {
        let mut grid = AlignedGrid::identity(dims);
        for (axis, len) in grid.axes.iter_mut().zip(shape) {
            axis.step = axis.len as f64 / len as f64;
            axis.start = 0.5 * axis.step - 0.5;
            axis.len = len;
        }
        grid
    }

    /// A window of whole voxels, from `lower` (which may be negative) and of a shape (which may reach past the end).
    pub fn window(lower: [i64; 3], shape: [usize; 3]) -> AlignedGrid {
        AlignedGrid { axes: [0, 1, 2].map(|axis| AxisMap { source: axis, start: lower[axis] as f64, step: 1.0, len: shape[axis] }) }
    }

    /// Columns, rows, slices.
    pub fn dims(&self) -> [usize; 3] {
        self.axes.map(|axis| axis.len)
    }

    /// Whether the grid is the one below.
    pub fn is_identity(&self, dims: [usize; 3]) -> bool {
        *self == AlignedGrid::identity(dims)
    }

    /// A grid that lies on this one, expressed on the grid below.
    pub fn then(&self, above: &AlignedGrid) -> AlignedGrid {
        AlignedGrid {
            axes: above.axes.map(|axis| {
                let below = self.axes[axis.source];
                let start = below.start + below.step * axis.start;
                AxisMap { source: below.source, start, step: below.step * axis.step, len: axis.len }
            }),
        }
    }

    /// The grid below (of shape `dims`), expressed on this one.
    pub fn inverse(&self, dims: [usize; 3]) -> AlignedGrid {
        let mut inverse = AlignedGrid::identity(dims);
        for (index, axis) in self.axes.iter().enumerate() {
            inverse.axes[axis.source] =
                AxisMap { source: index, start: -axis.start / axis.step, step: 1.0 / axis.step, len: dims[axis.source] };
        }
        inverse
    }

    /// Where this grid lies in the patient, given where the grid below does.
    pub fn geometry(&self, below: &Geometry) -> Geometry {
        let old = &below.affine_lps;
        let mut affine = *old;
        for row in 0..3 {
            affine[row][3] = old[row][3] + self.axes.iter().map(|axis| old[row][axis.source] * axis.start).sum::<f64>();
            for (column, axis) in self.axes.iter().enumerate() {
                affine[row][column] = old[row][axis.source] * axis.step;
            }
        }
        let spacing_mm = self.axes.map(|axis| below.spacing_mm[axis.source] * axis.step.abs());
        Geometry { dims: self.dims(), spacing_mm, affine_lps: affine, verdict: below.verdict.clone() }
    }
}

/// Checks that voxels fill a grid and that the grid has a volume.
///
/// # Errors
/// [`Kind::VolumeInvalid`].
pub fn check(geometry: &Geometry, voxels: usize) -> Result<()> {
    if voxel_count(geometry.dims)? != voxels || voxels == 0 {
        return Err(Error::new(Kind::VolumeInvalid, "the voxels do not fill the grid"));
    }
    let finite = geometry.affine_lps.iter().flatten().chain(&geometry.spacing_mm).all(|value| value.is_finite());
    if !finite || voxel_volume_mm3(geometry) <= 0.0 {
        return Err(Error::new(Kind::VolumeInvalid, "the affine is singular or not finite"));
    }
    Ok(())
}

/// Voxels of a grid.
///
/// # Errors
/// [`Kind::LimitExceeded`] when the number does not fit a machine word.
pub fn voxel_count(dims: [usize; 3]) -> Result<usize> {
    dims.iter()
        .try_fold(1usize, |product, n| product.checked_mul(*n))
        .ok_or_else(|| Error::new(Kind::LimitExceeded, "the grid has more voxels than memory has addresses").at(Stage::Imaging))
}

/// Volume of one voxel, mm3: the absolute determinant of the affine's linear part, so it holds for sheared (tilted) grids too.
pub fn voxel_volume_mm3(geometry: &Geometry) -> f64 {
    determinant(&geometry.affine_lps).abs()
}

/// The affine that takes a point of one grid to a continuous index of another: inverse(`onto`) times `from`.
///
/// # Errors
/// [`Kind::VolumeInvalid`] when `onto` is singular.
pub fn index_to_index(from: &Geometry, onto: &Geometry) -> Result<[[f64; 4]; 3]> {
    let (m, a) = (&onto.affine_lps, &from.affine_lps);
    let det = determinant(m);
    if !(det.is_finite() && det != 0.0) {
        return Err(Error::new(Kind::VolumeInvalid, "the affine is singular"));
    }
    let mut result = [[0.0; 4]; 3];
    for (row, line) in result.iter_mut().enumerate() {
        // Cofactors: row `row` of the inverse is the cross product of the other two columns, over the determinant.
        let (p, q) = ((row + 1) % 3, (row + 2) % 3);
        let inverse: [f64; 3] = std::array::from_fn(|k| {
            let (i, j) = ((k + 1) % 3, (k + 2) % 3);
            (m[i][p] * m[j][q] - m[j][p] * m[i][q]) / det
        });
        for (column, value) in line.iter_mut().enumerate() {
            *value = (0..3).map(|k| inverse[k] * if column == 3 { a[k][3] - m[k][3] } else { a[k][column] }).sum();
        }
    }
    Ok(result)
}

/// A vector of one value, or [`Kind::OutOfMemory`] instead of an abort: sizes here come from headers and contracts.
pub fn filled<T: Clone>(count: usize, value: T) -> Result<Vec<T>> {
    memory::filled(count, value).ok_or_else(|| {
        Error::new(Kind::OutOfMemory, format!("{} MiB for a volume", count.saturating_mul(size_of::<T>()) >> 20)).at(Stage::Imaging)
    })
}

fn determinant(m: &[[f64; 4]; 4]) -> f64 {
    m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deid::Verdict;

    fn oblique() -> Geometry {
        // Columns along (0.8, 0.6, 0) at 2 mm, rows along (-0.6, 0.8, 0) at 3 mm, slices along z at 5 mm.
        let affine_lps = [[1.6, -1.8, 0.0, 10.0], [1.2, 2.4, 0.0, -20.0], [0.0, 0.0, 5.0, 30.0], [0.0, 0.0, 0.0, 1.0]];
        Geometry { dims: [4, 5, 6], spacing_mm: [2.0, 3.0, 5.0], affine_lps, verdict: Verdict::Uniform }
    }

    #[test]
    fn a_voxels_volume_is_the_product_of_its_edges_when_they_are_square_to_each_other() {
        assert!((voxel_volume_mm3(&oblique()) - 30.0).abs() < 1e-12);
    }

    #[test]
    fn a_grid_and_its_inverse_cancel() {
        let there = AlignedGrid {
            axes: [
                AxisMap { source: 2, start: 5.0, step: -1.0, len: 6 },
                AxisMap { source: 0, start: -1.0, step: 0.5, len: 12 },
                AxisMap { source: 1, start: 0.25, step: 1.5, len: 3 },
            ],
        };
        let back = there.then(&there.inverse([4, 5, 6]));
        for (axis, map) in back.axes.iter().enumerate() {
            assert_eq!((map.source, map.len), (axis, [4, 5, 6][axis]));
            assert!(map.start.abs() < 1e-12 && (map.step - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn the_geometry_of_an_aligned_grid_puts_each_voxel_where_the_grid_below_has_it() {
        let below = oblique();
        let grid = AlignedGrid {
            axes: [
                AxisMap { source: 1, start: 4.0, step: -1.0, len: 5 },
                AxisMap { source: 2, start: 0.5, step: 2.0, len: 3 },
                AxisMap { source: 0, start: 0.0, step: 0.25, len: 16 },
            ],
        };
        let geometry = grid.geometry(&below);
        assert_eq!((geometry.dims, geometry.spacing_mm), ([5, 3, 16], [3.0, 10.0, 0.5]));
        // Index (1, 2, 3) above is (0.75, 3, 4.5) below.
        let map = index_to_index(&geometry, &below).unwrap();
        for (line, expected) in map.iter().zip([0.75, 3.0, 4.5]) {
            let value = line[0] + 2.0 * line[1] + 3.0 * line[2] + line[3];
            assert!((value - expected).abs() < 1e-9, "{value} {expected}");
        }
    }

    #[test]
    fn resampling_keeps_the_first_centre_and_rounds_the_length() {
        let grid = AlignedGrid::to_spacing([10, 10, 1], [1.0, 1.0, 4.0], [2.0, 3.0, 1.00005 * 4.0]).unwrap();
        assert_eq!(grid.dims(), [5, 3, 1]); // 10 / 3 = 3.33
        assert_eq!((grid.axes[0].start, grid.axes[0].step, grid.axes[2].step), (0.0, 2.0, 1.0));
        assert_eq!(AlignedGrid::to_spacing([10; 3], [1.0; 3], [0.0, 1.0, 1.0]).unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(AlignedGrid::to_spacing([10; 3], [1.0; 3], [1e-6, 1.0, 1.0]).unwrap_err().kind(), Kind::LimitExceeded);
    }

    #[test]
    fn a_grid_without_volume_is_refused() {
        let mut flat = oblique();
        flat.affine_lps[2][2] = 0.0;
        assert_eq!(check(&flat, 120).unwrap_err().kind(), Kind::VolumeInvalid);
        assert_eq!(check(&oblique(), 119).unwrap_err().kind(), Kind::VolumeInvalid);
        assert!(check(&oblique(), 120).is_ok());
        assert_eq!(voxel_count([usize::MAX, 2, 1]).unwrap_err().kind(), Kind::LimitExceeded);
    }
}
