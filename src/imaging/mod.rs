//! Volumes and their arithmetic.
use crate::control::Control;
use crate::deid::ReleasedStudy;
pub use crate::deid::{Geometry, Verdict};
use crate::error::{Error, Kind, Result};
use std::sync::Arc;

/// Voxels on a grid: column fastest, then row, then slice. Clones share the voxels until one writes.
#[derive(Clone)]
pub struct Volume {
    pub(crate) voxels: Arc<Vec<f32>>,
    pub(crate) geometry: Geometry,
    pub(crate) modality: String,
}
impl Volume {
    /// The volume of a released study; shares its voxels.
    pub fn from_study(study: &ReleasedStudy) -> Volume {
        Volume { voxels: Arc::clone(&study.voxels), geometry: study.geometry.clone(), modality: study.modality.clone() }
    }
    /// Voxels.
    pub fn voxels(&self) -> &[f32] {
        &self.voxels
    }
    /// Grid.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }
    /// Modality.
    pub fn modality(&self) -> &str {
        &self.modality
    }
}
/// Preprocessing as configured (`preprocess.*`).
#[derive(Clone, Debug)]
pub struct Recipe {
    /// `none` or `zscore` (after clipping to the 0.5 and 99.5 percentiles).
    pub normalize: String,
    /// `none`; others are a clear error until they exist.
    pub denoise: String,
    /// `none`; `n4` is a clear error until it exists.
    pub bias_correction: String,
    /// Isotropic spacing to resample to, mm; `None` keeps the grid.
    pub spacing_mm: Option<f64>,
}
/// One step that really ran.
#[derive(Clone, Debug)]
pub struct Step {
    /// Name (`percentile_clip`, `zscore`, `resample`).
    pub name: &'static str,
    /// Parameters and measured values.
    pub parameters: Vec<(&'static str, f64)>,
    /// Seconds.
    pub seconds: f64,
}
fn stub<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "stub"))
}
/// Runs a recipe.
pub fn preprocess(_volume: Volume, _recipe: &Recipe, _control: &Control) -> Result<(Volume, Vec<Step>)> {
    stub()
}
