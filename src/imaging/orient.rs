//! Anatomical orientation: which way each axis of a grid runs.
//!
//! A code of three letters names the directions that columns' index, rows' index and slices' index run *toward*: `RAS` is toward the
//! patient's right, front and head (the convention of nibabel and FreeSurfer for axis codes; ITK's older codes name where an axis comes
//! *from* and read the other way round). A tilted or oblique grid has the code of its nearest axes. Reordering moves voxels and never
//! changes one, so it is exactly invertible, for masks above all.

use crate::control::Control;
use crate::deid::Geometry;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::Volume;
use crate::imaging::grid::{AlignedGrid, AxisMap};
use crate::imaging::resample;

/// Letters toward the positive and the negative end of the patient's axes x, y, z (DICOM: L, P and S are positive).
const LETTERS: [[char; 2]; 3] = [['L', 'R'], ['P', 'A'], ['S', 'I']];

/// An anatomical code: for each axis of a grid, an axis of the patient and whether it runs toward its positive end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orientation {
    axes: [(usize, bool); 3],
}

impl Orientation {
    /// Reads a code such as `RAS`, `LPS` or `LIA`.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] unless it has one letter of each pair L/R, P/A, S/I.
    pub fn parse(code: &str) -> Result<Orientation> {
        let wrong = || {
            Error::new(Kind::InvalidArgument, "an orientation code has one letter each of r or l, a or p, s or i, in capitals")
                .at(Stage::Imaging)
        };
        let mut axes = [(3, false); 3];
        let mut letters = code.chars();
        for slot in &mut axes {
            let letter = letters.next().ok_or_else(wrong)?;
            let axis = LETTERS.iter().position(|pair| pair.contains(&letter)).ok_or_else(wrong)?;
            *slot = (axis, LETTERS[axis][0] == letter);
        }
        let complete = (0..3).all(|axis| axes.iter().any(|(found, _)| *found == axis));
        if letters.next().is_some() || !complete { Err(wrong()) } else { Ok(Orientation { axes }) }
    }

    /// The orientation of a grid: the assignment of its axes to the patient's that agrees best with their directions.
    pub fn of(geometry: &Geometry) -> Orientation {
        let m = &geometry.affine_lps;
        // Cosine between patient axis `row` and grid axis `column`.
        let cosine = |row: usize, column: usize| {
            let length = (0..3).map(|k| m[k][column] * m[k][column]).sum::<f64>().sqrt();
            if length > 0.0 { m[row][column] / length } else { 0.0 }
        };
        const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let agreement = |order: &[usize; 3]| (0..3).map(|column| cosine(order[column], column).abs()).sum::<f64>();
        let mut best = ORDERS[0];
        for order in &ORDERS[1..] {
            if agreement(order) > agreement(&best) {
                best = *order;
            }
        }
        Orientation { axes: std::array::from_fn(|column| (best[column], cosine(best[column], column) >= 0.0)) }
    }

    /// The code's three letters.
    pub fn code(&self) -> String {
        self.axes.iter().map(|(axis, positive)| LETTERS[*axis][usize::from(!positive)]).collect()
    }

    /// The grid in this orientation: the grid below with its axes reordered and flipped.
    pub fn grid(&self, below: &Geometry) -> AlignedGrid {
        let now = Orientation::of(below);
        AlignedGrid {
            axes: self.axes.map(|(axis, positive)| {
                // `of` and `parse` hold each axis once, so the position exists.
                let source = now.axes.iter().position(|(other, _)| *other == axis).unwrap_or(axis);
                let len = below.dims[source];
                if now.axes[source].1 == positive {
                    AxisMap { source, start: 0.0, step: 1.0, len }
                } else {
                    AxisMap { source, start: len as f64 - 1.0, step: -1.0, len }
                }
            }),
        }
    }
}

/// A volume with its axes reordered and flipped to an orientation; every voxel keeps its value and its place in the patient.
///
/// # Errors
/// [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn reorient(volume: &Volume, orientation: Orientation, control: &Control) -> Result<Volume> {
    let grid = orientation.grid(&volume.geometry);
    if grid.is_identity(volume.geometry.dims) {
        return Ok(volume.clone());
    }
    let dims = volume.geometry.dims;
    volume.moved(grid.geometry(&volume.geometry), |data| resample::nearest(data, dims, &grid, None, control))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deid::Verdict;

    fn geometry(affine: [[f64; 4]; 4]) -> Geometry {
        let length = |c: usize| (0..3).map(|r| affine[r][c] * affine[r][c]).sum::<f64>().sqrt();
        Geometry { dims: [3, 4, 5], spacing_mm: [length(0), length(1), length(2)], affine_lps: affine, verdict: Verdict::Uniform }
    }

    /// A sagittal series as scanners write it: columns toward the back, rows toward the feet, slices toward the left; slightly turned.
    fn sagittal() -> Geometry {
        geometry([[0.05, 0.02, 1.2, -80.0], [1.0, 0.1, -0.06, -120.0], [0.1, -1.0, 0.0, 130.0], [0.0, 0.0, 0.0, 1.0]])
    }

    #[test]
    fn a_code_reads_off_the_affine() {
        assert_eq!(Orientation::of(&sagittal()).code(), "PIL");
        let axial = geometry([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 1.0]]);
        assert_eq!(Orientation::of(&axial).code(), "LPS");
    }

    #[test]
    fn only_complete_codes_are_read() {
        for code in ["RAS", "LPS", "LIA", "SAR"] {
            assert_eq!(Orientation::parse(code).unwrap().code(), code);
        }
        for code in ["", "RA", "RASS", "RLS", "ras", "XYZ", "RÄS"] {
            assert_eq!(Orientation::parse(code).err().map(|error| error.kind()), Some(Kind::InvalidArgument), "{code}");
        }
    }

    #[test]
    fn a_reordered_voxel_keeps_its_place_and_returns_exactly() {
        let geometry = sagittal();
        let voxels: Vec<f32> = (0..60).map(|n| n as f32).collect();
        let volume = Volume::from_parts(voxels.clone(), geometry.clone(), "MR").unwrap();
        for code in ["RAS", "LPS", "LIA", "SAR", "PIL", "ASL"] {
            let turned = reorient(&volume, Orientation::parse(code).unwrap(), &Control::new()).unwrap();
            assert_eq!(Orientation::of(turned.geometry()).code(), code);
            // Each voxel of the turned volume, by way of the patient's coordinates, is the same voxel of the first.
            let map = crate::imaging::grid::index_to_index(turned.geometry(), &geometry).unwrap();
            let [width, height, depth] = turned.geometry().dims;
            for (index, value) in turned.voxels().iter().enumerate() {
                let (x, y, z) = (index % width, index / width % height, index / width / height);
                assert!(z < depth);
                let p = map.map(|m| (m[0] * x as f64 + m[1] * y as f64 + m[2] * z as f64 + m[3]).round() as usize);
                assert_eq!(*value, voxels[(p[2] * 4 + p[1]) * 3 + p[0]], "{code} {index}");
            }
            let grid = Orientation::parse(code).unwrap().grid(&geometry);
            let back = resample::nearest(turned.voxels(), grid.dims(), &grid.inverse(geometry.dims), None, &Control::new()).unwrap();
            assert_eq!(back, voxels, "{code}");
        }
    }
}
