//! The model contract: what a model needs done to a volume before it sees it, and what its numbers mean.
//!
//! The format is described in docs/model-contract.md, with two whole examples. A contract is read once, when the model is opened, and is
//! then complete: the code that runs models asks it and decides nothing by itself. Whatever it does not know is an error.

mod json;

use serde_json::Value;

use crate::error::Result;
use crate::imaging::components::Connectivity;
use crate::imaging::orient::Orientation;
use crate::imaging::resample::Interpolation;
use json::{Object, wrong};

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

/// What a channel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Intensities of the volume's only channel, or of the one with this number, from 0.
    Volume(Option<usize>),
    /// 1 inside the mask, 0 outside.
    Mask,
}

/// The grid that the model sees.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Whether channels come before the spatial axes (NCDHW) or after them (NDHWC).
    pub channels_first: bool,
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
        /// Around the largest component rather than the whole mask.
        largest: bool,
    },
}

/// A step of intensity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Intensity {
    /// (x - mean) / std.
    Zscore {
        /// Over non-zero voxels only.
        nonzero: bool,
        /// Degrees of freedom taken off.
        ddof: usize,
    },
    /// Smallest to `lo`, largest to `hi`.
    Minmax {
        /// New smallest value.
        lo: f64,
        /// New largest value.
        hi: f64,
    },
    /// Clip at percentiles.
    PercentileClip {
        /// Lower percentile.
        lo: f64,
        /// Upper percentile.
        hi: f64,
    },
    /// Clip at values.
    Clamp {
        /// Lower limit.
        lo: f64,
        /// Upper limit.
        hi: f64,
    },
    /// scale * x + shift.
    Affine {
        /// Factor.
        scale: f64,
        /// Summand.
        shift: f64,
    },
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
        let value = json::parse(bytes)?;
        let root = Object::new("", &value)?;
        if root.required("contract")?.as_u64() != Some(1) {
            return Err(wrong("contract", "1, the version of the format that this build knows"));
        }
        let task = root.word("task", &[("segment", Task::Segment), ("predict", Task::Predict)], None)?;
        let intensity = root.object("intensity")?;
        let plausibility = root.optional_object("plausibility")?;
        let contract = Contract {
            task,
            name: root.text("name")?,
            version: root.text("version")?,
            sha256: sha256(&root)?,
            card: root.optional("card").map(|_| root.text("card")).transpose()?,
            inputs: root.objects("inputs", 1, 4)?.iter().map(input).collect::<Result<_>>()?,
            grid: grid(&root.object("grid")?, task)?,
            from_raw: intensity.word("voxels", &[("preprocessed", false), ("raw", true)], Some(false))?,
            intensity: intensity.objects("steps", 0, 32)?.iter().map(intensity_step).collect::<Result<_>>()?,
            output: output(&root.object("output")?, task)?,
            mask: root.optional_object("mask")?.map(|object| mask_rule(&object)).transpose()?,
            postprocess: root.objects("postprocess", 0, 32)?.iter().map(postprocess_step).collect::<Result<_>>()?,
            modalities: match &plausibility {
                Some(object) if object.optional("modality").is_some() => object.texts("modality", 1, 32)?,
                _ => Vec::new(),
            },
            believed_ml: match &plausibility {
                Some(object) => object.objects("labels_ml", 0, 255)?.iter().map(believed).collect::<Result<_>>()?,
                None => Vec::new(),
            },
        };
        // `steps` may be empty but not absent: "nothing" is a statement about the model, too.
        intensity.required("steps")?;
        intensity.finish()?;
        plausibility.iter().try_for_each(Object::finish)?;
        root.finish()?;
        contract.check_sense()?;
        Ok(contract)
    }

    /// Channels of the volume that the model looks at, ascending; `None` is the only one.
    pub(super) fn volume_channels(&self) -> Vec<Option<usize>> {
        let all = self.inputs.iter().flat_map(|input| &input.channels);
        let mut found: Vec<Option<usize>> =
            all.filter_map(|channel| if let Channel::Volume(number) = channel { Some(*number) } else { None }).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether the model needs a mask.
    pub fn needs_mask(&self) -> bool {
        self.mask.is_some()
    }

    /// What cannot be seen from one key alone.
    fn check_sense(&self) -> Result<()> {
        let masked = self.inputs.iter().any(|input| input.channels.contains(&Channel::Mask));
        let crop = matches!(self.grid.size, Size::Crop { .. });
        match self.task {
            Task::Segment => {
                if self.inputs.len() != 1 || masked {
                    return Err(wrong("inputs", "one input whose channels are the volume's, since the task is segment"));
                }
                if self.mask.is_some() {
                    return Err(wrong("mask", "no such key, since the task is segment"));
                }
            }
            Task::Predict => {
                if !self.postprocess.is_empty() {
                    return Err(wrong("postprocess", "no such key, since the task is predict"));
                }
                if !self.believed_ml.is_empty() {
                    return Err(wrong("plausibility.labels_ml", "no such key, since the task is predict"));
                }
                if self.mask.is_none() && (masked || crop) {
                    return Err(wrong("mask", "an object, since the model takes a mask"));
                }
                if self.mask.is_some() && !masked && !crop {
                    return Err(wrong("mask", "no such key, since neither a channel nor the size rule uses a mask"));
                }
            }
        }
        let mut names: Vec<&str> = self.inputs.iter().map(|input| input.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() != self.inputs.len() {
            return Err(wrong("inputs", "names that differ"));
        }
        for (name, ..) in &self.believed_ml {
            if !self.output.labels.iter().any(|label| label.name == *name) {
                return Err(wrong("plausibility.labels_ml", "names that output.labels has"));
            }
        }
        Ok(())
    }
}

fn sha256(root: &Object) -> Result<String> {
    let text = root.text("sha256")?.to_ascii_lowercase();
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { Ok(text) } else { Err(wrong("sha256", "64 hexadecimal digits")) }
}

fn input(object: &Object) -> Result<Input> {
    let key = object.name("channels");
    let channel = |word: String| match word.as_str() {
        "volume" => Ok(Channel::Volume(None)),
        "mask" => Ok(Channel::Mask),
        word => match word.strip_prefix("volume:").and_then(|number| number.parse::<u16>().ok()) {
            Some(number) => Ok(Channel::Volume(Some(number.into()))),
            None => Err(wrong(&key, "volume, volume:N with N from 0, or mask")),
        },
    };
    let channels = object.texts("channels", 1, 16)?.into_iter().map(channel).collect::<Result<_>>()?;
    let input = Input { name: object.text("name")?, channels };
    object.finish()?;
    Ok(input)
}

fn grid(object: &Object, task: Task) -> Result<Grid> {
    let orientation = match object.required("orientation")? {
        Value::Null => None,
        Value::String(code) => {
            Some(Orientation::parse(code).map_err(|_| wrong("grid.orientation", "one letter each of R or L, A or P, S or I, or null"))?)
        }
        _ => return Err(wrong("grid.orientation", "three letters or null")),
    };
    let mut axes = [0; 3];
    let letters = object.text("axes")?;
    let expected = || wrong("grid.axes", "a permutation of xyz");
    if letters.len() != 3 || !"xyz".chars().all(|letter| letters.contains(letter)) {
        return Err(expected());
    }
    for (slot, letter) in axes.iter_mut().zip(letters.chars()) {
        *slot = "xyz".find(letter).ok_or_else(expected)?;
    }
    let expected = || wrong("grid.spacing_mm", "a number, three numbers or null, each from 0.01 to 100");
    let spacing = |value: &Value| value.as_f64().filter(|mm| (0.01..=100.0).contains(mm)).ok_or_else(expected);
    let spacing_mm = match object.required("spacing_mm")? {
        Value::Null => None,
        Value::Array(list) if list.len() == 3 => Some([spacing(&list[0])?, spacing(&list[1])?, spacing(&list[2])?]),
        value => Some([spacing(value)?; 3]),
    };
    let grid = Grid {
        channels_first: object.word("layout", &[("NCDHW", true), ("NDHWC", false)], None)?,
        orientation,
        axes,
        spacing_mm,
        size: size(&object.object("size")?, task)?,
    };
    object.finish()?;
    Ok(grid)
}

fn size(object: &Object, task: Task) -> Result<Size> {
    #[derive(Clone, Copy, PartialEq)]
    enum Rule {
        Sliding,
        Whole,
        Fit,
        Resize,
        Crop,
    }
    let words = [("sliding", Rule::Sliding), ("whole", Rule::Whole), ("fit", Rule::Fit), ("resize", Rule::Resize), ("crop", Rule::Crop)];
    let rule = object.word("rule", &words, None)?;
    if (task, rule) == (Task::Segment, Rule::Crop) || (task, rule) == (Task::Predict, Rule::Sliding) {
        return Err(wrong("grid.size.rule", "sliding only to segment, crop only to predict"));
    }
    let pad = || -> Result<f32> { Ok(object.number("pad_value", -1e30..=1e30, Some(0.0))? as f32) };
    let count = |number: u64| usize::try_from(number).map_err(|_| wrong("grid.size", "numbers that this machine can hold"));
    let size = match rule {
        Rule::Sliding => {
            let (window, multiple) = (object.shape("window")?, object.optional("multiple").is_some());
            let multiple = if multiple { Some(count(object.whole("multiple", 1..=4096, None)?)?) } else { None };
            if multiple.is_some_and(|multiple| window.iter().any(|side| side % multiple != 0)) {
                return Err(wrong("grid.size.window", "multiples of grid.size.multiple"));
            }
            Size::Sliding {
                window,
                overlap: object.number("overlap", 0.0..=0.95, Some(0.25))?,
                gaussian: object.word("blend", &[("gaussian", true), ("constant", false)], Some(true))?,
                batch: count(object.whole("batch", 1..=1024, Some(1))?)?,
                multiple,
                pad: pad()?,
            }
        }
        Rule::Whole => Size::Whole { multiple: count(object.whole("multiple", 1..=4096, Some(1))?)?, pad: pad()? },
        Rule::Fit => Size::Fit { shape: object.shape("shape")?, pad: pad()? },
        Rule::Resize => Size::Resize {
            shape: object.shape("shape")?,
            how: object.word(
                "interpolation",
                &[("nearest_exact", Interpolation::Nearest), ("linear", Interpolation::Linear), ("bspline", Interpolation::BSpline)],
                None,
            )?,
        },
        Rule::Crop => Size::Crop {
            shape: object.shape("shape")?,
            pad: pad()?,
            largest: object.word("around", &[("largest", true), ("all", false)], Some(true))?,
        },
    };
    object.finish()?;
    Ok(size)
}

fn intensity_step(object: &Object) -> Result<Intensity> {
    const ANY: std::ops::RangeInclusive<f64> = f64::MIN..=f64::MAX;
    let ordered = |lo: f64, hi: f64| if lo < hi { Ok((lo, hi)) } else { Err(wrong(&object.name("lo"), "less than hi")) };
    let step = match object.text("step")?.as_str() {
        "zscore" => Intensity::Zscore {
            nonzero: object.word("over", &[("all", false), ("nonzero", true)], Some(false))?,
            ddof: usize::from(object.whole("ddof", 0..=1, Some(0))? == 1),
        },
        "minmax" => {
            let (lo, hi) = ordered(object.number("lo", ANY, Some(0.0))?, object.number("hi", ANY, Some(1.0))?)?;
            Intensity::Minmax { lo, hi }
        }
        "percentile_clip" => {
            let (lo, hi) = ordered(object.number("lo", 0.0..=100.0, None)?, object.number("hi", 0.0..=100.0, None)?)?;
            Intensity::PercentileClip { lo, hi }
        }
        "clamp" => {
            let (lo, hi) = ordered(object.number("lo", ANY, None)?, object.number("hi", ANY, None)?)?;
            Intensity::Clamp { lo, hi }
        }
        "affine" => Intensity::Affine { scale: object.number("scale", ANY, None)?, shift: object.number("shift", ANY, None)? },
        _ => return Err(wrong(&object.name("step"), "one of zscore, minmax, percentile_clip, clamp, affine")),
    };
    object.finish()?;
    Ok(step)
}

fn output(object: &Object, task: Task) -> Result<Output> {
    let words =
        [("none", Activation::None), ("sigmoid", Activation::Sigmoid), ("softmax", Activation::Softmax), ("argmax", Activation::Argmax)];
    let activation = object.word("activation", &words, None)?;
    let labels: Vec<OutputLabel> =
        object.objects("labels", 1, 255)?.iter().map(|label| output_label(label, task)).collect::<Result<_>>()?;
    for (index, label) in labels.iter().enumerate() {
        let doubled = |other: &OutputLabel| {
            other.channel == label.channel || other.name == label.name || (task == Task::Segment && other.value == label.value)
        };
        if labels.iter().take(index).any(doubled) {
            return Err(wrong("output.labels", "channels, values and names that differ"));
        }
    }
    let mut output = Output { name: object.text("name")?, activation, activate_windows: false, labels, threshold: None, positive: None };
    match task {
        Task::Segment => {
            output.activate_windows = object.word("activate", &[("after_blending", false), ("before_blending", true)], Some(false))?;
            if object.optional("threshold").is_some() {
                output.threshold = Some(object.number("threshold", 0.0..=1.0, None)? as f32);
            }
            if activation == Activation::Argmax && (output.threshold.is_some() || output.activate_windows) {
                return Err(wrong("output.activation", "softmax, when there is a threshold or windows are activated before blending"));
            }
            if activation == Activation::Sigmoid && output.threshold.is_none() {
                output.threshold = Some(0.5);
            }
        }
        Task::Predict => {
            if activation == Activation::Argmax {
                return Err(wrong("output.activation", "none, sigmoid or softmax, since the task is predict"));
            }
            if object.optional("positive").is_some() {
                let name = object.text("positive")?;
                let place = output.labels.iter().position(|label| label.name == name);
                output.positive = Some(place.ok_or_else(|| wrong("output.positive", "a name that output.labels has"))?);
            }
        }
    }
    object.finish()?;
    Ok(output)
}

fn output_label(object: &Object, task: Task) -> Result<OutputLabel> {
    let channel = usize::try_from(object.whole("channel", 0..=65_535, None)?).map_err(|_| wrong("output.labels", "channels in range"))?;
    let value = match task {
        Task::Segment => u8::try_from(object.whole("value", 1..=255, None)?).map_err(|_| wrong("output.labels", "values in range"))?,
        Task::Predict => 0,
    };
    let label = OutputLabel { channel, value, name: object.text("name")? };
    object.finish()?;
    Ok(label)
}

fn mask_rule(object: &Object) -> Result<MaskRule> {
    let allow_empty = match object.optional("allow_empty") {
        None => false,
        Some(value) => value.as_bool().ok_or_else(|| wrong("mask.allow_empty", "true or false"))?,
    };
    let rule = MaskRule { labels: object.texts("labels", 1, 255)?, allow_empty };
    object.finish()?;
    Ok(rule)
}

fn postprocess_step(object: &Object) -> Result<Postprocess> {
    let connectivity = || {
        let value = object.required("connectivity")?.as_u64().and_then(|count| u32::try_from(count).ok());
        value.and_then(Connectivity::from_neighbours).ok_or_else(|| wrong(&object.name("connectivity"), "6, 18 or 26"))
    };
    let step = match object.text("step")?.as_str() {
        "largest_component" => Postprocess::LargestComponent(connectivity()?),
        "fill_holes" => Postprocess::FillHoles,
        "min_size" => Postprocess::MinSize { ml: object.number("ml", 0.0..=1e6, None)?, connectivity: connectivity()? },
        _ => return Err(wrong(&object.name("step"), "one of largest_component, fill_holes, min_size")),
    };
    object.finish()?;
    Ok(step)
}

fn believed(object: &Object) -> Result<(String, f64, f64)> {
    let found = (object.text("name")?, object.number("min", 0.0..=1e9, None)?, object.number("max", 0.0..=1e9, None)?);
    object.finish()?;
    if found.1 <= found.2 { Ok(found) } else { Err(wrong(&object.name("min"), "at most max")) }
}

#[cfg(test)]
mod tests;
