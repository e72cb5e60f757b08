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
//! | `inspect` | what a model file tells of itself |
//! | `model` | one model, whoever runs it |
//! | `runtime`, `loaded` | ONNX Runtime, found and loaded |
//! | `onnx` | one session of ONNX Runtime |
//! | `backend`, `torch_file` | plug-ins for other formats, TorchScript among them |
//! | `ensemble` | the models of one contract |
//! | `watch` | runs that end when the study is cancelled |
//! | `frame` | from a volume to the model's grid, and back |
//! | `locate` | the box in which a model looks |
//! | `sliding` | windows, stitched |
//! | `labels` | from numbers to labels |
//! | `segmenter`, `predictor` | the two kinds of models |
//! | `own` | models that are functions of the host program |

mod backend;
pub mod contract;
mod ensemble;
mod file;
mod frame;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod inspect;
mod labels;
mod loaded;
mod locate;
mod model;
mod onnx;
mod own;
mod predictor;
mod runtime;
mod segmenter;
mod sliding;
mod torch_file;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::imaging::{Geometry, Step, Volume};
use crate::inference::contract::{Code, Contract, Task};
pub use inspect::{Inspection, Port, inspect};
pub use own::{OwnMask, PredictWork, SegmentWork, own_predictor, own_segmenter};

/// Label of a value that stands for the probability of the positive class, whoever predicted it.
pub const PROBABILITY_LABEL: &str = "cancer_probability";

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
    /// Most memory that a model may take on a CUDA device, MiB; `None` = all.
    pub device_memory_mib: Option<u64>,
    /// The TorchScript backend's shared library; `None` = search.
    pub torchscript_library: Option<PathBuf>,
    /// A backend for model files of another format (`smp_backend.h`).
    pub backend_library: Option<PathBuf>,
    /// Providers of a CUDA device before `cuda`: `tensorrt`.
    pub providers: Vec<String>,
}

/// What identifies a model in results and the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelIdentity {
    /// Name from the contract.
    pub name: String,
    /// Version from the contract.
    pub version: String,
    /// SHA-256 of the model file, hex; empty for a function of the host program.
    pub sha256: String,
    /// SHA-256 of the other files that take part, hex: members of an ensemble, the model of a locating pass.
    pub members: Vec<String>,
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
    /// What it is in a terminology, where the contract says so.
    pub code: Option<Code>,
}

/// A mask on the grid of the volume it was made from. Clones share the labels.
#[derive(Clone)]
pub struct Segmentation {
    pub(crate) labels: Arc<Vec<u8>>,
    pub(crate) geometry: Geometry,
    pub(crate) table: Vec<Label>,
    pub(crate) model: ModelIdentity,
    pub(crate) adaptations: Vec<String>,
    pub(crate) steps: Vec<Step>,
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
    /// What was done because the device's memory did not suffice: fewer windows at once, smaller ones, the CPU. Empty: nothing.
    pub fn adaptations(&self) -> &[String] {
        &self.adaptations
    }
    /// Steps of preprocessing that the contract asked for and that ran for this model alone.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// What a predictor said.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Probability of the positive class, 0..1, when the contract names one.
    pub probability: Option<f64>,
    /// Every output by label.
    pub values: Vec<(String, f64)>,
    /// How far the members of an ensemble are apart, and what each look at the study said.
    pub spread: Option<Spread>,
    /// Model that made it.
    pub model: ModelIdentity,
}

/// How far apart the parts of a prediction are.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// What each member of the ensemble said: of the positive class, or of the first label where the contract names none.
    pub members: Vec<f64>,
    /// Their standard deviation, by the members' weights.
    pub std: f64,
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
    let (file, contract) = read(model, Task::Segment, options)?;
    Ok(Box::new(segmenter::OnnxSegmenter::open(file, model, contract, options)?))
}

/// Opens a prediction model with the contract beside it.
///
/// # Errors
/// As [`open_segmenter`].
pub fn open_predictor(model: &Path, options: &RuntimeOptions) -> Result<Box<dyn Predictor>> {
    let (file, contract) = read(model, Task::Predict, options)?;
    Ok(Box::new(predictor::OnnxPredictor::open(file, model, contract, options)?))
}

/// Reads the contract of a model: the file with the same stem and extension `json` in the same folder, else the model's own
/// `metadata_props` entry `smp_contract`.
///
/// # Errors
/// [`Kind::ModelContract`]; those of the model's file when it has to be read.
pub fn read_contract(model: &Path, options: &RuntimeOptions) -> Result<Contract> {
    match contract_beside(model)? {
        Some(contract) => Ok(contract),
        None => contract_of(model, &file::read(model, options)?),
    }
}

/// The contract beside a model; `None` when there is no such file.
fn contract_beside(model: &Path) -> Result<Option<Contract>> {
    let path = model.with_extension("json");
    if !path.exists() {
        return Ok(None);
    }
    let bytes = file::read_limited(&path, contract::MAX_BYTES).map_err(|why| inspect::no_contract(&why))?;
    Contract::read(&bytes).map(Some)
}

/// The contract of a model that was read.
fn contract_of(path: &Path, file: &file::ModelFile) -> Result<Contract> {
    match (contract_beside(path)?, file.metadata("smp_contract")) {
        (Some(contract), _) => Ok(contract),
        // The file that holds it is the file that it is for; a digest of itself it cannot hold.
        (None, Some(text)) => Contract::read_embedded(text, &file.sha256),
        (None, None) => Err(inspect::no_contract("no such file")),
    }
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
fn read(path: &Path, task: Task, options: &RuntimeOptions) -> Result<(file::ModelFile, Contract)> {
    let file = file::read(path, options)?;
    let contract = contract_of(path, &file)?;
    if contract.task != task {
        let (is, wanted) = if task == Task::Segment { ("predict", "segment") } else { ("segment", "predict") };
        return Err(Error::new(Kind::ModelContract, format!("task: the model is for {is}, asked to {wanted}")));
    }
    Ok((file, contract))
}

#[cfg(test)]
mod looks_tests;
#[cfg(test)]
mod tests;
