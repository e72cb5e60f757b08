//! What leaves the library, written atomically.
use crate::error::{Error, Kind, Result};
use crate::imaging::Volume;
use crate::inference::Segmentation;
use std::path::Path;
fn stub<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "stub"))
}
/// Writes a file by way of a temporary one beside it; folders are made (0700); on failure nothing is left.
pub fn write_atomically(_path: &Path, _fill: &mut dyn FnMut(&mut dyn std::io::Write) -> std::io::Result<()>) -> Result<()> {
    stub()
}
/// `.npy` of the volume: float32, C order, shape (slices, rows, columns).
pub fn write_volume_npy(_path: &Path, _volume: &Volume) -> Result<()> {
    stub()
}
/// `.npy` of the mask: uint8, C order, shape (slices, rows, columns).
pub fn write_mask_npy(_path: &Path, _mask: &Segmentation) -> Result<()> {
    stub()
}
/// NIfTI-1 (`.nii` or `.nii.gz` by extension) of the volume, float32.
pub fn write_volume_nifti(_path: &Path, _volume: &Volume) -> Result<()> {
    stub()
}
/// NIfTI-1 of the mask, uint8.
pub fn write_mask_nifti(_path: &Path, _mask: &Segmentation) -> Result<()> {
    stub()
}
/// PNG: mid slices (or those with most mask) in three planes, mask outlined.
pub fn write_preview_png(_path: &Path, _volume: &Volume, _mask: Option<&Segmentation>, _caption: &str) -> Result<()> {
    stub()
}
/// Text file (JSON).
pub fn write_text(_path: &Path, _text: &str) -> Result<()> {
    stub()
}
