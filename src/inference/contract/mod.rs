//! The model contract: what a model needs done to a volume before it sees it, and what its numbers mean.
//!
//! The format is described in docs/model-contract.md, with two whole examples. A contract is read once, when the model is opened, and is
//! then complete: the code that runs models asks it and decides nothing by itself. Whatever it does not know is an error.

mod read;
mod sense;

use crate::error::Result;
use crate::imaging::Operation;
use crate::imaging::components::Connectivity;
use crate::imaging::orient::Orientation;
use crate::imaging::resample::Interpolation;

/// Largest contract that is read; two hundred labels take about 16 KiB.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A label per voxel.
    Segment,
    /// Values per study.
    Predict,
}

/// A contract that was read and is consistent.
#[derive(Clone, Debug)]
pub struct Contract {
    /// What the model is for.
    pub task: Task,
    /// Name, for results and the audit log.
    pub name: String,
    /// Version, likewise.
    pub version: String,
    /// SHA-256 of the model file, lower-case hex.
    pub sha256: String,
    /// Where the model card is.
    pub card: Option<String>,
    /// The model's inputs.
    pub inputs: Vec<Input>,
    /// The grid that the model sees.
    pub grid: Grid,
    /// What is done to the volume on its own grid, in order.
    pub preprocess: Vec<Operation>,
    /// A pass that finds the box in which the model looks.
    pub locate: Option<Locate>,
    /// Other models of the same contract whose outputs are averaged with the model's.
    pub ensemble: Vec<Member>,
    /// How much the model itself counts beside its ensemble.
    pub weight: f64,
    /// Whether intensities start from the volume as it was loaded.
    pub from_raw: bool,
    /// What is done to intensities, in order.
    pub intensity: Vec<Intensity>,
    /// What the model's numbers mean.
    pub output: Output,
    /// How a mask enters (predict).
    pub mask: Option<MaskRule>,
    /// What is done to the labels, in order (segment).
    pub postprocess: Vec<Postprocess>,
    /// Modalities that the model is for; empty is any.
    pub modalities: Vec<String>,
    /// Values of Body Part Examined (0018,0015) that the model is for; empty = any.
    pub body_parts: Vec<String>,
    /// Volumes that are believed: label name, least ml, most ml.
    pub believed_ml: Vec<(String, f64, f64)>,
}

/// An input of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Name in the ONNX graph.
    pub name: String,
    /// What each channel holds.
    pub channels: Vec<Channel>,
}

/// Another model of an ensemble: a file beside the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Name of the file, without a folder.
    pub file: String,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
    /// How much it counts.
    pub weight: f64,
}

/// A pass over the whole grid that finds the box in which the model looks.
#[derive(Clone, Debug)]
pub struct Locate {
    /// Name of its model's file, without a folder.
    pub file: String,
    /// What it is done with: a segmentation on the same axes whose one label is what is looked for.
    pub contract: Box<Contract>,
    /// Which voxels of what was found touch; the largest component counts.
    pub connectivity: Connectivity,
    /// A plane belongs to the box when more than this fraction of its voxels was found.
    pub plane_fraction: f64,
    /// Fraction of the box's size that is added on each side.
    pub margin: f64,
}

/// What a channel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Intensities of the volume's only channel, or of the one with this number, from 0.
    Volume {
        /// Number of the volume's channel.
        number: Option<usize>,
        /// Slices along D beyond the one that the model looks at (slice-wise models); edges repeat.
        offset: i64,
    },
    /// 1 inside the mask, 0 outside.
    Mask,
}

/// The grid that the model sees.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Whether channels come before the spatial axes (NCDHW, NCHW) or after them (NDHWC, NHWC).
    pub channels_first: bool,
    /// Whether the model looks at slices (NCHW, NHWC): tensors have no axis D, and each slice along it is run by itself.
    pub is_slicewise: bool,
    /// Directions of x, y, z; `None` keeps columns, rows, slices.
    pub orientation: Option<Orientation>,
    /// Which of x, y, z the tensor's axes D, H, W run over.
    pub axes: [usize; 3],
    /// Spacing along x, y, z; `None` keeps it.
    pub spacing_mm: Option<[f64; 3]>,
    /// How the grid gets its size.
    pub size: Size,
}

/// How the grid gets its size. Shapes and windows are in D, H, W.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// Overlapping windows.
    Sliding {
        /// Voxels of a window.
        window: [usize; 3],
        /// Fraction by which neighbours overlap.
        overlap: f64,
        /// Whether a window counts more in its middle.
        gaussian: bool,
        /// Windows per run.
        batch: usize,
        /// Sides that the model takes are multiples of this; `None`: only `window`.
        multiple: Option<usize>,
        /// Padding where the window exceeds the grid.
        pad: f32,
        /// Windows without a voxel above this are not run; what no window saw is background.
        background: Option<f32>,
    },
    /// Everything at once, padded to a multiple.
    Whole {
        /// Sides are multiples of this.
        multiple: usize,
        /// Padding.
        pad: f32,
    },
    /// Centre crop or padding to a shape.
    Fit {
        /// Shape.
        shape: [usize; 3],
        /// Padding.
        pad: f32,
    },
    /// Stretched to a shape.
    Resize {
        /// Shape.
        shape: [usize; 3],
        /// How values between voxels are found.
        how: Interpolation,
    },
    /// A window around the mask (predict).
    Crop {
        /// Shape.
        shape: [usize; 3],
        /// Padding.
        pad: f32,
        /// What of the mask is looked at.
        around: Around,
    },
}

/// What of a mask a predictor looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Around {
    /// Its largest component.
    Largest,
    /// All of it at once.
    All,
    /// Its components one by one, largest first, at most this many.
    Each {
        /// Most components.
        most: usize,
    },
}

/// How the values of several looks (lesions, slices) become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// The largest of each.
    Max,
    /// Their mean.
    Mean,
    /// The model takes all looks as one batch and gives one answer.
    Model,
}

/// How a predictor's numbers become probabilities that can be believed.
#[derive(Clone, Debug, PartialEq)]
pub enum Calibration {
    /// Logits are divided by this before activation (Guo et al. 2017).
    Temperature(f64),
    /// Points (probability, calibrated probability), both ascending; between them a straight line (Zadrozny and Elkan 2002).
    Isotonic(Vec<[f64; 2]>),
}

/// A step of intensity on the model's grid.
#[derive(Clone, Debug, PartialEq)]
pub enum Intensity {
    /// An operation of a recipe that changes intensities.
    Operation(Operation),
    /// Clipped at the values at which the locating pass was clipped.
    ClipAsLocated,
}

/// What the model's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Probabilities already.
    None,
    /// Logits of independent channels.
    Sigmoid,
    /// Logits of exclusive channels.
    Softmax,
    /// Scores of exclusive channels; only their order counts.
    Argmax,
}

/// The output that is read.
#[derive(Clone, Debug)]
pub struct Output {
    /// Name in the ONNX graph.
    pub name: String,
    /// What its numbers are.
    pub activation: Activation,
    /// Whether windows are activated before they are averaged.
    pub activate_windows: bool,
    /// What the channels mean.
    pub labels: Vec<OutputLabel>,
    /// Probability that a label must exceed.
    pub threshold: Option<f32>,
    /// Whether, of several labels above the threshold, the last in the list wins (nested regions) and not the most probable.
    pub last_wins: bool,
    /// How probabilities are calibrated (predict).
    pub calibration: Option<Calibration>,
    /// How several looks become one (predict).
    pub reduce: Reduce,
    /// Index in `labels` of the positive class.
    pub positive: Option<usize>,
}

/// What a channel of the output means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputLabel {
    /// Channel, from 0.
    pub channel: usize,
    /// Value in the mask (segment); 0 for predictors.
    pub value: u8,
    /// Name.
    pub name: String,
    /// What it is in a terminology.
    pub code: Option<Code>,
}

/// A concept of a terminology (PS3.3 section 8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Coding scheme designator: `SCT` for SNOMED CT, `99...` for one of your own.
    pub scheme: String,
    /// Code value.
    pub value: String,
    /// Code meaning.
    pub meaning: String,
}

/// How a mask enters a predictor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskRule {
    /// Labels that make up the mask, by name.
    pub labels: Vec<String>,
    /// Whether a mask without a voxel is passed on.
    pub allow_empty: bool,
}

/// A step on labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Postprocess {
    /// Keep each label's largest component.
    LargestComponent(Connectivity),
    /// Give each label the background that it encloses.
    FillHoles,
    /// Drop components below a volume.
    MinSize {
        /// Least volume that stays.
        ml: f64,
        /// Which voxels touch.
        connectivity: Connectivity,
    },
}

impl Contract {
    /// Reads a contract.
    ///
    /// # Errors
    /// [`crate::error::Kind::ModelContract`], with the key.
    pub fn read(bytes: &[u8]) -> Result<Contract> {
        read::contract(bytes, None)
    }

    /// Reads a contract that is part of the model with this digest, and therefore holds none.
    ///
    /// # Errors
    /// As [`Contract::read`].
    pub(super) fn read_embedded(bytes: &[u8], sha256: &str) -> Result<Contract> {
        read::contract(bytes, Some(sha256))
    }

    /// Channels of the volume that the model looks at, ascending; `None` is the only one.
    pub(super) fn volume_channels(&self) -> Vec<Option<usize>> {
        let all = self.inputs.iter().flat_map(|input| &input.channels);
        let mut found: Vec<Option<usize>> =
            all.filter_map(|channel| if let Channel::Volume { number, .. } = channel { Some(*number) } else { None }).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether the model needs a mask.
    pub fn needs_mask(&self) -> bool {
        self.mask.is_some()
    }
}

#[cfg(test)]
mod tests;
