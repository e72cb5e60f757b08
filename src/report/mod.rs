//! What leaves the library: files that hold results.
//!
//! Every file is written beside its target, made durable and renamed, so a reader sees the whole file or none, and a failure (a full
//! disk, a missing right) leaves neither a part nor a temporary file. New folders are 0700 and files 0600: a mask of somebody's tumour
//! is nobody else's business even without a name on it.
//!
//! Arrays keep their order in memory: column fastest, then row, then slice. NumPy sees that as shape `(slices, rows, columns)` in C
//! order, NIfTI as `(columns, rows, slices)`. Positions are LPS millimetres inside the library and RAS millimetres in NIfTI.
//!
//! Rooms: `atomic` (the one way to write a file), `npy`, `nifti`, `objects` (DICOM objects), `preview` (the picture) over `view` (planes, directions, sampling),
//! `canvas` (pixels and lines) and `font`.

mod atomic;
mod canvas;
mod font;
mod nifti;
mod npy;
mod objects;
mod preview;
mod view;

use std::path::Path;

use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::{Geometry, Volume};
use crate::inference::Segmentation;

pub use atomic::write_atomically;
pub use objects::{Origin, Planes, Predicted, SegKind, SourceFrame, segmentation, structured_report};

/// Writes the volume as `.npy`: float32, C order, shape `(slices, rows, columns)`, of several channels `(channels, slices, rows, columns)`.
pub fn write_volume_npy(path: &Path, volume: &Volume) -> Result<()> {
    volume.check()?;
    npy::write(path, volume.geometry().dims, volume.channels().len(), volume.voxels())
}

/// Writes the mask as `.npy`: uint8, C order, shape `(slices, rows, columns)`.
pub fn write_mask_npy(path: &Path, mask: &Segmentation) -> Result<()> {
    check(mask.geometry(), mask.labels().len())?;
    npy::write(path, mask.geometry().dims, 1, mask.labels())
}

/// Writes the volume as NIfTI-1, float32; compressed when the path ends in `.nii.gz`, plain when it ends in `.nii`.
///
/// Channels are the fourth axis. Both transforms are set, in RAS millimetres. Fails with [`Kind::OutputUnsupported`] for another ending and for a grid that the
/// format cannot hold.
pub fn write_volume_nifti(path: &Path, volume: &Volume) -> Result<()> {
    volume.check()?;
    nifti::write(path, volume.geometry(), volume.channels().len(), volume.voxels())
}

/// Writes the mask as NIfTI-1, uint8, with the intent "label". As [`write_volume_nifti`] otherwise.
pub fn write_mask_nifti(path: &Path, mask: &Segmentation) -> Result<()> {
    check(mask.geometry(), mask.labels().len())?;
    nifti::write(path, mask.geometry(), 1, mask.labels())
}

/// Writes a picture of the study as PNG: three planes at one scale, through the slices with most mask (or the middle ones), seen as
/// radiologists do, the mask outlined; of several channels the first. The caption must not identify anybody.
pub fn write_preview_png(path: &Path, volume: &Volume, mask: Option<&Segmentation>, caption: &str) -> Result<()> {
    volume.check()?;
    if let Some(mask) = mask {
        check(mask.geometry(), mask.labels().len())?;
        if mask.geometry().dims != volume.geometry().dims {
            return Err(Error::new(Kind::Internal, "the mask is not on the volume's grid").at(Stage::Report));
        }
    }
    preview::write(path, volume, mask, caption)
}

/// Writes a text (JSON) as it is.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, &mut |out| out.write_all(text.as_bytes()))
}

/// Whether an array fills its grid, and the grid is one that can be written.
fn check(geometry: &Geometry, voxels: usize) -> Result<()> {
    let [columns, rows, slices] = geometry.dims;
    let expected = columns.checked_mul(rows).and_then(|plane| plane.checked_mul(slices));
    if voxels == 0 || expected != Some(voxels) {
        return Err(
            Error::new(Kind::Internal, format!("{voxels} voxels do not fill a grid of {columns} x {rows} x {slices}")).at(Stage::Report)
        );
    }
    Ok(())
}

/// A kind of voxel that files can hold.
trait Voxel: Copy + Send + Sync {
    /// NumPy's name of the type.
    const NPY: &'static str;
    /// NIfTI-1's code of the type (`DT_FLOAT32` 16, `DT_UINT8` 2).
    const NIFTI: i16;
    /// NIfTI-1's code of what the values mean (`NIFTI_INTENT_LABEL` 1002, `NIFTI_INTENT_NONE` 0).
    const INTENT: i16;

    /// Appends the little-endian bytes of voxels.
    fn bytes(voxels: &[Self], out: &mut Vec<u8>);
}

impl Voxel for f32 {
    const NPY: &'static str = "<f4";
    const NIFTI: i16 = 16;
    const INTENT: i16 = 0;

    fn bytes(voxels: &[f32], out: &mut Vec<u8>) {
        out.extend(voxels.iter().flat_map(|voxel| voxel.to_le_bytes()));
    }
}

impl Voxel for u8 {
    const NPY: &'static str = "|u1";
    const NIFTI: i16 = 2;
    const INTENT: i16 = 1002;

    fn bytes(voxels: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(voxels);
    }
}

#[cfg(test)]
mod tests;
