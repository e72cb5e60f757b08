//! The researcher's own models: segmentation and prediction, each described by a contract beside its file.
//!
//! Opening checks everything that can be checked without a study: the contract is complete, the file is the one that it describes
//! (SHA-256), the file holds a whole ONNX model and nothing that would be executed, the runtime and the asked-for device are there, inputs
//! and outputs fit. Running then follows the contract from the volume to the model's grid and back, and says which model ran on what.
//!
//! There is no default model and there are no random weights: without a model these functions are errors. What the contract format means is
//! written in docs/model-contract.md.
//!
//! | file | what |
//! |---|---|
//! | `contract` | the contract, read and checked |
//! | `file` | the model's bytes: read, hashed, looked at |
//! | `runtime`, `loaded` | ONNX Runtime, found and loaded |
//! | `onnx` | one session |
//! | `frame` | from a volume to the model's grid, and back |
//! | `sliding` | windows, stitched |
//! | `labels` | from numbers to labels |
//! | `segmenter`, `predictor` | the two kinds of models |

pub mod contract;
mod file;
mod frame;
mod labels;
mod loaded;
mod onnx;
mod predictor;
mod runtime;
mod segmenter;
mod sliding;

use std::path::{Path, PathBuf};

use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::imaging::{Geometry, Volume};
use crate::inference::contract::{Contract, Task};

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

/// Opens a segmentation model with the contract beside it.
///
/// # Errors
/// [`Kind::ModelUnreadable`], [`Kind::ModelPickle`] and [`Kind::Unsupported`] for the file; [`Kind::ModelContract`] and
/// [`Kind::ModelDigest`] for the contract; [`Kind::RuntimeMissing`] and [`Kind::DeviceUnavailable`] for the machine; [`Kind::ModelShape`]
/// when model and contract do not fit; [`Kind::ConfigInvalidValue`] for options that the contract does not allow.
pub fn open_segmenter(model: &Path, options: &RuntimeOptions) -> Result<Box<dyn Segmenter>> {
    let (model, contract) = open(model, Task::Segment, options)?;
    Ok(Box::new(segmenter::OnnxSegmenter::new(model, contract, options)?))
}

/// Opens a prediction model with the contract beside it.
///
/// # Errors
/// As [`open_segmenter`].
pub fn open_predictor(model: &Path, options: &RuntimeOptions) -> Result<Box<dyn Predictor>> {
    let (model, contract) = open(model, Task::Predict, options)?;
    Ok(Box::new(predictor::OnnxPredictor::new(model, contract)?))
}

/// Reads the contract beside a model: same folder, same stem, extension `json`.
///
/// # Errors
/// [`Kind::ModelContract`].
pub fn read_contract(model: &Path) -> Result<Contract> {
    let bytes = file::read_limited(&model.with_extension("json"), contract::MAX_BYTES)
        .map_err(|why| Error::new(Kind::ModelContract, format!("the json file beside the model: {why}")))?;
    Contract::read(&bytes)
}

/// ONNX Runtime's version and path, or why it is absent (for `smp_capabilities`).
///
/// # Errors
/// [`Kind::RuntimeMissing`]; [`Kind::RuntimeFailed`] when the process holds another runtime than the one asked for.
pub fn runtime_facts(library: Option<&Path>) -> Result<(String, PathBuf)> {
    let runtime = runtime::load(library)?;
    Ok((runtime.version.clone(), runtime.path.clone()))
}

/// Execution providers of the loaded runtime (`cpu`, `cuda`) that this library uses; none without a runtime.
///
/// `cuda` means that the runtime was built for it. Whether a device and its driver are there shows when a model is opened on it.
pub fn providers(library: Option<&Path>) -> Vec<String> {
    match runtime::load(library) {
        Err(_) => Vec::new(),
        Ok(runtime) if runtime::has_cuda(&runtime) => vec!["cpu".to_owned(), "cuda".to_owned()],
        Ok(_) => vec!["cpu".to_owned()],
    }
}

/// The file first: somebody who points at a pickle should learn that, not that it has no contract.
fn open(path: &Path, task: Task, options: &RuntimeOptions) -> Result<(onnx::Model, Contract)> {
    let file = file::read(path)?;
    let contract = read_contract(path)?;
    if contract.task != task {
        let (is, wanted) = if task == Task::Segment { ("predict", "segment") } else { ("segment", "predict") };
        return Err(Error::new(Kind::ModelContract, format!("task: the model is for {is}, asked to {wanted}")));
    }
    let model = onnx::Model::open(file, &contract, options)?;
    Ok((model, contract))
}

#[cfg(test)]
mod tests;
