//! A prediction model behind [`Predictor`]: values for a study from its voxels and, where the contract asks for one, a mask.
//!
//! A mask comes from a segmentation on its own grid and is matched to the model's by way of the patient's coordinates, and by the names of
//! its labels, so that two models that do not belong together are an error and not a number. An empty mask is an error unless the contract
//! says that the model was trained with empty ones: "no lesion was found" must not turn into a probability of anything.

use std::path::Path;

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::components::{Components, Connectivity};
use crate::imaging::crop::{self, Bounds};
use crate::imaging::grid::{AlignedGrid, filled, voxel_count};
use crate::imaging::{Volume, resample};
use crate::inference::contract::{Around, Channel, Contract, Input, Reduce, Size};
use crate::inference::ensemble::Ensemble;
use crate::inference::file::ModelFile;
use crate::inference::frame::{self, Frame, centred, memory_order};
use crate::inference::model::Model;
use crate::inference::onnx::{After, Tensor};
use crate::inference::segmenter::tensor_shape;
use crate::inference::{ModelIdentity, Prediction, Predictor, RuntimeOptions, Segmentation, Spread, labels};

/// A prediction model, or an ensemble of them.
pub(super) struct OnnxPredictor {
    models: Ensemble,
    contract: Contract,
}

/// First voxel and sides (W, H, D) of a part of the frame that the model looks at.
type Part = ([i64; 3], [usize; 3]);

impl OnnxPredictor {
    /// Opens a model and checks it against its contract.
    ///
    /// # Errors
    /// Those of [`Ensemble::open`]; [`Kind::ModelShape`].
    pub(super) fn open(file: ModelFile, path: &Path, contract: Contract, options: &RuntimeOptions) -> Result<OnnxPredictor> {
        let models = Ensemble::open(file, path, &contract, options)?;
        models.each(|model| {
            match contract.grid.size {
                Size::Fit { shape, .. } | Size::Resize { shape, .. } | Size::Crop { shape, .. } => {
                    model.check_spatial(shape, &contract.grid)?
                }
                Size::Whole { .. } | Size::Sliding { .. } => {}
            }
            // A model that answers once for all slices may want a number of them; that is compared when they are counted.
            let once = contract.grid.is_slicewise && contract.output.reduce == Reduce::Model;
            if !once && model.fixed_batch().is_some_and(|batch| batch != 1) {
                return Err(Error::new(
                    Kind::ModelShape,
                    "the model takes several looks at once; a prediction looks at one after the other",
                ));
            }
            // What the output declares may be open; its true size is checked again after the run.
            if let Some(declared) = model.output_shape().filter(|declared| declared.iter().all(|n| *n >= 0)) {
                let count = declared.iter().try_fold(1usize, |product, n| product.checked_mul(usize::try_from(*n).ok()?));
                check_count(count.unwrap_or(0), &contract)?;
            }
            Ok(())
        })?;
        Ok(OnnxPredictor { models, contract })
    }

    /// The mask on the frame: 1 where the segmentation has one of the contract's labels. `None` when the model takes none.
    fn mask(&self, frame: &Frame, mask: Option<&Segmentation>, control: &Control) -> Result<Option<Vec<u8>>> {
        let Some(rule) = &self.contract.mask else { return Ok(None) };
        let given = mask.ok_or_else(|| {
            Error::new(Kind::MaskEmpty, "the model needs a mask and there is none")
                .with_hint("run segment before predict")
                .at(Stage::Inference)
        })?;
        let mut values = Vec::new();
        for name in &rule.labels {
            let label = given.table().iter().find(|label| label.name == *name);
            let label = label.ok_or_else(|| {
                Error::new(Kind::ModelContract, format!("mask.labels: the segmentation has no label {name}"))
                    .with_hint("the two models do not belong together: their contracts name different labels")
            })?;
            values.push(label.value);
        }
        let found = frame.mask(given.labels(), given.geometry(), &values, control)?;
        if !rule.allow_empty && !found.contains(&1) {
            return Err(Error::new(Kind::MaskEmpty, "no voxel of the labels that the model looks at").at(Stage::Inference));
        }
        Ok(Some(found))
    }

    /// The parts of the frame that the model looks at, and the padding.
    fn parts(&self, frame: &Frame, mask: Option<&[u8]>) -> Result<(Vec<Part>, f32)> {
        let dims = frame.dims();
        let grid = &self.contract.grid;
        let kept = |mut shape: [usize; 3]| {
            if grid.is_slicewise {
                shape[2] = dims[2];
            }
            shape
        };
        let one = |shape: [usize; 3]| vec![(centred(dims, shape), shape)];
        Ok(match grid.size {
            Size::Resize { .. } | Size::Sliding { .. } => (vec![([0; 3], dims)], 0.0),
            Size::Whole { multiple, pad } => {
                let shape = kept(dims.map(|side| side.div_ceil(multiple) * multiple));
                self.models.each(|model| model.check_spatial(memory_order(shape), grid))?;
                (one(shape), pad)
            }
            Size::Fit { shape, pad } => (one(kept(memory_order(shape))), pad),
            Size::Crop { shape, pad, around } => {
                let shape = memory_order(shape);
                let boxes = mask.map(|mask| boxes(mask, dims, around)).transpose()?.unwrap_or_default();
                if boxes.is_empty() {
                    return Err(Error::new(Kind::MaskEmpty, "no voxel of the labels that the model looks at").at(Stage::Inference));
                }
                // (first + last + 1) // 2 - shape // 2: the window reaches as far to both sides of the box as whole voxels allow.
                let lower = |bounds: &Bounds| {
                    std::array::from_fn(|axis| ((bounds.first[axis] + bounds.last[axis]).div_ceil(2)) as i64 - (shape[axis] / 2) as i64)
                };
                (boxes.iter().map(|bounds| (lower(bounds), shape)).collect(), pad)
            }
        })
    }

    /// The model's inputs for a part of the frame, each packed in the contract's layout; for slice-wise models, one set per slice.
    fn packed(&self, frame: &Frame, mask: Option<&[u8]>, (lower, shape): Part, pad: f32, control: &Control) -> Result<Vec<Vec<Vec<f32>>>> {
        let intensities = frame.window(lower, shape, pad, control)?;
        let inside: Vec<f32> = match mask {
            None => Vec::new(),
            Some(mask) => {
                let window = resample::nearest(mask, frame.dims(), &AlignedGrid::window(lower, shape), Some(0), control)?;
                window.iter().map(|value| f32::from(*value)).collect()
            }
        };
        let grid = &self.contract.grid;
        let (area, depth) = (shape[0] * shape[1], shape[2]);
        let looks = if grid.is_slicewise { depth } else { 1 };
        let size = voxel_count(shape)? / looks.max(1);
        let channels_at = |input: &Input, look: usize| -> Vec<&[f32]> {
            let part = |voxels: &'_ [f32], offset: i64| {
                let slice = look.saturating_add_signed(offset as isize).min(looks.saturating_sub(1));
                if grid.is_slicewise { slice * area..(slice + 1) * area } else { 0..voxels.len() }
            };
            let voxels = |channel: &Channel| match channel {
                Channel::Volume { number, offset } => {
                    let voxels = frame.place(*number).and_then(|place| intensities.get(place)).map(Vec::as_slice).unwrap_or_default();
                    voxels.get(part(voxels, *offset)).unwrap_or_default()
                }
                Channel::Mask => inside.get(part(&inside, 0)).unwrap_or_default(),
            };
            input.channels.iter().map(voxels).collect()
        };
        (0..looks)
            .map(|look| {
                control.check()?;
                self.contract.inputs.iter().map(|input| pack(&channels_at(input, look), size, grid.channels_first)).collect()
            })
            .collect()
    }

    /// Values of one member for looks of equal shape.
    fn values_of(&self, model: &Model, looks: &[Vec<Vec<f32>>], shape: [usize; 3], control: &Control) -> Result<Vec<Vec<f32>>> {
        let grid = &self.contract.grid;
        let shape = if grid.is_slicewise { [shape[0], shape[1], 1] } else { shape };
        // A model that gives one answer for all slices gets them as one batch; else each look is a run.
        let together = grid.is_slicewise && self.contract.output.reduce == Reduce::Model;
        let runs: Vec<&[Vec<Vec<f32>>]> = if together { vec![looks] } else { looks.chunks(1).collect() };
        let last = runs.len().saturating_sub(1);
        let mut answers = Vec::with_capacity(runs.len());
        for (index, run) in runs.into_iter().enumerate() {
            control.check()?;
            if let Some(batch) = model.fixed_batch().filter(|batch| *batch != run.len()) {
                return Err(Error::new(Kind::ModelShape, format!("the model takes {batch} slices, the study has {}", run.len())));
            }
            let joined: Vec<Vec<f32>> = match run {
                [] => return Err(Error::new(Kind::Internal, "a prediction without a look")),
                [_] => Vec::new(),
                several => (0..self.contract.inputs.len())
                    .map(|input| several.iter().flat_map(|look| look[input].iter().copied()).collect())
                    .collect(),
            };
            let packed = if let [one] = run { one } else { &joined };
            let tensors: Vec<Tensor> = packed
                .iter()
                .zip(&self.contract.inputs)
                .map(|(values, input)| Tensor { shape: tensor_shape(grid, run.len(), input.channels.len(), shape), values })
                .collect();
            let after = if index == last { After::Shrink } else { After::Keep };
            let mut values = model.run(&tensors, after, control, |_, values| {
                check_count(values.len(), &self.contract)?;
                Ok(values.to_vec())
            })?;
            labels::finish(&mut values, &self.contract.output);
            answers.push(values);
            control.progress("predict", (index + 1) as f64 / (last + 1) as f64);
        }
        Ok(answers)
    }

    /// Several looks as one answer.
    fn reduce(&self, answers: &[Vec<f32>]) -> Vec<f64> {
        let count = answers.iter().map(Vec::len).min().unwrap_or(0);
        let column = |index: usize| answers.iter().map(move |answer| f64::from(answer[index]));
        (0..count)
            .map(|index| match self.contract.output.reduce {
                Reduce::Max => column(index).fold(f64::NEG_INFINITY, f64::max),
                Reduce::Mean | Reduce::Model => column(index).sum::<f64>() / answers.len() as f64,
            })
            .collect()
    }

    /// Names the values of all members and says how far they are apart.
    fn read(&self, members: &[(Vec<f64>, f64)]) -> Result<Prediction> {
        let output = &self.contract.output;
        let total: f64 = members.iter().map(|(_, weight)| weight).sum();
        let mean = |of: &dyn Fn(&[f64]) -> f64| members.iter().map(|(values, weight)| of(values) * weight).sum::<f64>() / total;
        let known = members.iter().map(|(values, _)| values.len()).min().unwrap_or(0);
        let named: Vec<(String, f64)> = output
            .labels
            .iter()
            .filter(|label| label.channel < known)
            .map(|label| (label.name.clone(), mean(&|values| values[label.channel])))
            .collect();
        // The contract says which value is the probability; none is chosen when it does not.
        let probability = output.positive.and_then(|positive| named.get(positive)).map(|(_, value)| *value);
        if probability.is_some_and(|value| !(0.0..=1.0).contains(&value)) {
            return Err(Error::new(Kind::RuntimeFailed, "the positive value is no probability: it lies outside 0 to 1")
                .with_hint("output.activation in the contract may be missing: the model seems to give logits"));
        }
        let told = output.labels.get(output.positive.unwrap_or(0)).map(|label| label.channel).filter(|channel| *channel < known);
        let spread = told.filter(|_| members.len() > 1).map(|channel| {
            let centre = mean(&|values| values[channel]);
            Spread {
                members: members.iter().map(|(values, _)| values[channel]).collect(),
                std: mean(&|values| (values[channel] - centre).powi(2)).sqrt(),
            }
        });
        Ok(Prediction { probability, values: named, spread, model: self.models.identity_now() })
    }
}

impl Predictor for OnnxPredictor {
    fn identity(&self) -> &ModelIdentity {
        self.models.identity()
    }

    fn needs_mask(&self) -> bool {
        self.contract.needs_mask()
    }

    fn predict(&self, volume: &Volume, mask: Option<&Segmentation>, control: &Control) -> Result<Prediction> {
        control.progress("predict", 0.0);
        let (prepared, _) = frame::prepared(volume, &self.contract, control)?;
        let frame = Frame::new(&prepared, &self.contract, None, control)?;
        let mask = self.mask(&frame, mask, control)?;
        let (parts, pad) = self.parts(&frame, mask.as_deref())?;
        let shape = parts.first().map_or([0; 3], |part| part.1);
        let mut looks = Vec::new();
        for part in parts {
            looks.extend(self.packed(&frame, mask.as_deref(), part, pad, control)?);
        }
        let ask = || -> Result<Vec<(Vec<f64>, f64)>> {
            let members = self.models.members();
            let share = |index: usize| index as f64 / members.len() as f64;
            let answers = members.iter().enumerate().map(|(index, (model, weight))| {
                let part = control.within("predict", share(index), share(index + 1));
                Ok((self.reduce(&self.values_of(model, &looks, shape, &part)?), *weight))
            });
            answers.collect()
        };
        let members = match ask() {
            // Where `device = auto` allows it, the CPU answers when the device has too little memory; the identity says so.
            Err(error) if error.kind() == Kind::DeviceOutOfMemory && self.models.fall_back()? => ask()?,
            other => other?,
        };
        let prediction = self.read(&members)?;
        control.progress("predict", 1.0);
        Ok(prediction)
    }
}

/// Compares the number of values with the contract's labels.
fn check_count(count: usize, contract: &Contract) -> Result<()> {
    match contract.output.labels.iter().find(|label| label.channel >= count) {
        None => Ok(()),
        Some(label) => {
            let detail = format!("the output has {count} values, label {} reads channel {}", label.name, label.channel);
            Err(Error::new(Kind::ModelShape, detail))
        }
    }
}

/// The boxes around the mask, its largest component or each of its components, largest first.
fn boxes(mask: &[u8], dims: [usize; 3], around: Around) -> Result<Vec<Bounds>> {
    if around == Around::All {
        return Ok(crop::bounds(mask, dims, |value| value == 1).into_iter().collect());
    }
    let found = Components::find(mask, dims, Connectivity::Corners, |value| value == 1)?;
    let mut order: Vec<usize> = (0..found.sizes().len()).collect();
    // Of equal ones the first met comes first: the sort keeps their order.
    order.sort_by_key(|number| std::cmp::Reverse(found.sizes()[*number]));
    let most = if let Around::Each { most } = around { most } else { 1 };
    Ok(order.into_iter().take(most).filter_map(|number| found.bounds().get(number).copied()).collect())
}

/// Channels of equal size in the tensor's order: one after the other, or voxel by voxel.
fn pack(channels: &[&[f32]], size: usize, channels_first: bool) -> Result<Vec<f32>> {
    let mut values = filled(size.saturating_mul(channels.len()), 0.0f32)?;
    for (index, channel) in channels.iter().enumerate() {
        if channels_first {
            values[index * size..(index + 1) * size].copy_from_slice(channel);
        } else {
            values.iter_mut().skip(index).step_by(channels.len()).zip(*channel).for_each(|(value, from)| *value = *from);
        }
    }
    Ok(values)
}
