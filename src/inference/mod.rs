//! The researcher's own models.
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::imaging::{Geometry, Volume};
use std::path::{Path, PathBuf};

/// How models are run. The pipeline fills it from `inference.*` and `device`.
#[derive(Clone, Debug, Default)]
pub struct RuntimeOptions {
    /// `auto`, `cpu`, `cuda`, `cuda:N`.
    pub device: String,
    /// ONNX Runtime's shared library; `None` = search.
    pub runtime_library: Option<PathBuf>,
    /// Threads; 0 = all.
    pub threads: usize,
    /// Window override, voxels (model axis order); `None` = the contract's.
    pub window: Option<[usize; 3]>,
    /// Overlap override, 0..0.95.
    pub overlap: Option<f64>,
    /// Windows per run override.
    pub batch: Option<usize>,
}
/// What identifies a model in results and the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelIdentity {
    /// Name from the contract.
    pub name: String,
    /// Version from the contract.
    pub version: String,
    /// SHA-256 of the model file, hex.
    pub sha256: String,
    /// Device that runs it (`cpu`, `cuda:0`).
    pub device: String,
    /// Runtime and version (`onnxruntime 1.23.0`).
    pub runtime: String,
}
/// One label of a segmentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Value in the mask, 1..255.
    pub value: u8,
    /// Name from the contract.
    pub name: String,
    /// Volume, ml.
    pub volume_ml: f64,
    /// Voxels.
    pub voxels: u64,
}
/// A mask on the grid of the volume it was made from.
#[derive(Clone)]
pub struct Segmentation {
    pub(crate) labels: Vec<u8>,
    pub(crate) geometry: Geometry,
    pub(crate) table: Vec<Label>,
    pub(crate) model: ModelIdentity,
}
impl Segmentation {
    /// Label per voxel, 0 = background; same order as the volume.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }
    /// Grid.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }
    /// Labels with their volumes.
    pub fn table(&self) -> &[Label] {
        &self.table
    }
    /// Model that made it.
    pub fn model(&self) -> &ModelIdentity {
        &self.model
    }
}
/// What a predictor said.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Probability of the positive class, 0..1, when the contract names one.
    pub probability: Option<f64>,
    /// Every output by label.
    pub values: Vec<(String, f64)>,
    /// Model that made it.
    pub model: ModelIdentity,
}
/// Segments a volume.
pub trait Segmenter: Send + Sync {
    /// Identity of the model.
    fn identity(&self) -> &ModelIdentity;
    /// Mask on the volume's own grid.
    fn segment(&self, volume: &Volume, control: &Control) -> Result<Segmentation>;
}
/// Predicts from a volume and, where the contract asks for one, a mask.
pub trait Predictor: Send + Sync {
    /// Identity of the model.
    fn identity(&self) -> &ModelIdentity;
    /// Whether a mask is required.
    fn needs_mask(&self) -> bool;
    /// Prediction.
    fn predict(&self, volume: &Volume, mask: Option<&Segmentation>, control: &Control) -> Result<Prediction>;
}
fn stub<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "stub"))
}
/// Opens a segmentation model with the contract beside it.
pub fn open_segmenter(_model: &Path, _options: &RuntimeOptions) -> Result<Box<dyn Segmenter>> {
    stub()
}
/// Opens a prediction model with the contract beside it.
pub fn open_predictor(_model: &Path, _options: &RuntimeOptions) -> Result<Box<dyn Predictor>> {
    stub()
}
/// ONNX Runtime's version and path, or why it is absent (for `smp_capabilities`).
pub fn runtime_facts(_library: Option<&Path>) -> Result<(String, PathBuf)> {
    stub()
}
/// Execution providers of the loaded runtime (`cpu`, `cuda`).
pub fn providers(_library: Option<&Path>) -> Vec<String> {
    Vec::new()
}
