//! Where the voxels are.
/// What the positions of the slices say about the grid.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Equal steps along the normal.
    Uniform,
    /// One slice only; its spacing is its thickness.
    SingleSlice,
    /// One multi-frame instance with equal steps.
    MultiFrame,
}
/// The voxel grid, in the patient's coordinates (LPS, mm).
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// Columns, rows, slices.
    pub dims: [usize; 3],
    /// Distance between voxel centres along columns' index, rows' index, slices' index, mm.
    pub spacing_mm: [f64; 3],
    /// Row-major 4x4: (column, row, slice, 1) to LPS mm.
    pub affine_lps: [[f64; 4]; 4],
    /// How the grid was judged.
    pub verdict: Verdict,
}
