//! DICOM instances to one series with a trustworthy geometry.
pub mod geometry;
pub use geometry::{Geometry, Verdict};

use crate::control::Control;
use crate::error::{Error, Kind, Result};
use dicom_object::{FileMetaTable, InMemDicomObject};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Limits that hold before any parser sees a byte (`limits.*`).
#[derive(Clone, Debug)]
pub struct Limits {
    /// Nesting depth of sequences.
    pub depth: usize,
    /// Elements per file, all depths.
    pub elements: usize,
    /// Bytes of file meta information.
    pub meta_bytes: usize,
    /// Inflated size over deflated size.
    pub inflate_ratio: u64,
    /// Slices of a series.
    pub slices: usize,
    /// Bytes of the decoded volume.
    pub volume_bytes: u64,
}
impl Default for Limits {
    fn default() -> Limits {
        Limits { depth: 32, elements: 1_000_000, meta_bytes: 64 << 10, inflate_ratio: 100, slices: 65_536, volume_bytes: 16 << 30 }
    }
}
/// Which series of a study is wanted; empty means the rule decides (most slices, then lowest series number, then UID).
#[derive(Clone, Default)]
pub struct Selection {
    /// Series Instance UID as in the (identified) input.
    pub series_uid: Option<String>,
    /// Series Description, exact.
    pub series_description: Option<String>,
}
/// One instance without its pixels.
pub struct Instance {
    pub(crate) meta: FileMetaTable,
    pub(crate) dataset: InMemDicomObject,
}
/// A series that still carries its identifiers: no `Debug`, no `Display`, no `Serialize`, no public constructor.
pub struct IdentifiedStudy {
    /// Headers in slice order (one for all slices when multi-frame).
    pub(crate) instances: Vec<Instance>,
    /// Rescaled voxels: column fastest, then row, then slice.
    pub(crate) voxels: Arc<Vec<f32>>,
    pub(crate) geometry: Geometry,
    pub(crate) modality: String,
}
/// Collects instances as they arrive, then makes the series.
pub struct Loader {}
fn stub<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "stub"))
}
impl Loader {
    /// An empty loader.
    pub fn new(_limits: Limits, _selection: Selection) -> Loader {
        Loader {}
    }
    /// Takes one file. A file that is not DICOM is counted and dropped; a malformed DICOM file is an error that names `number`.
    pub fn add(&mut self, _number: usize, _bytes: Zeroizing<Vec<u8>>, _control: &Control) -> Result<()> {
        stub()
    }
    /// Picks the series, checks its geometry, decodes its pixels.
    pub fn finish(self, _control: &Control) -> Result<IdentifiedStudy> {
        stub()
    }
}
/// Transfer syntaxes that this build decodes: (UID, name).
pub fn decoders() -> Vec<(String, String)> {
    Vec::new()
}
