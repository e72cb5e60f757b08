//! De-identification, PS3.15 Annex E.
use crate::control::Control;
pub use crate::dicom::{Geometry, Verdict};
use crate::dicom::{IdentifiedStudy, Instance};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use std::sync::Arc;

/// How a study is de-identified. The pipeline fills it from `deid.*`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// PS3.15 options by the table's names (`retain_uids`, ...). Empty = Basic Profile alone.
    pub options: Vec<String>,
}
/// Counts by action; never values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether the study was de-identified (false only after `release_identified`).
    pub deidentified: bool,
    /// Elements removed.
    pub removed: u64,
    /// Elements emptied.
    pub emptied: u64,
    /// Elements given a dummy.
    pub replaced: u64,
    /// UIDs remapped.
    pub uids: u64,
    /// Elements kept.
    pub kept: u64,
    /// Pseudonym of the patient (also the new Patient ID).
    pub pseudonym: String,
}
/// A study that may leave this module: the only thing a [`crate::imaging::Volume`] can be made from.
pub struct ReleasedStudy {
    pub(crate) instances: Vec<Instance>,
    pub(crate) voxels: Arc<Vec<f32>>,
    pub(crate) geometry: Geometry,
    pub(crate) modality: String,
    pub(crate) report: Report,
}
fn stub<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "stub"))
}
/// De-identifies a study.
pub fn deidentify(
    _study: IdentifiedStudy,
    _options: &Options,
    _project_key: &Secret<[u8; 32]>,
    _control: &Control,
) -> Result<ReleasedStudy> {
    stub()
}
/// The single function that honours `auto_anonymize = false`; what it returns says that it is not de-identified.
pub fn release_identified(_study: IdentifiedStudy) -> ReleasedStudy {
    unreachable!()
}
impl ReleasedStudy {
    /// Grid of the voxels.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }
    /// Modality (MR, CT, ...).
    pub fn modality(&self) -> &str {
        &self.modality
    }
    /// What was done.
    pub fn report(&self) -> &Report {
        &self.report
    }
    /// De-identified metadata in the DICOM JSON Model (PS3.18 Annex F), of the first instance.
    pub fn metadata_json(&self) -> Result<String> {
        stub()
    }
}
