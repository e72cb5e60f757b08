//! A prediction model behind [`Predictor`]: values for a study from its voxels and, where the contract asks for one, a mask.
//!
//! A mask comes from a segmentation on its own grid and is matched to the model's by way of the patient's coordinates, and by the names of
//! its labels, so that two models that do not belong together are an error and not a number. An empty mask is an error unless the contract
//! says that the model was trained with empty ones: "no lesion was found" must not turn into a probability of anything.

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::components::{Components, Connectivity};
use crate::imaging::crop::{self, Bounds};
use crate::imaging::grid::{AlignedGrid, filled, voxel_count};
use crate::imaging::{Volume, resample};
use crate::inference::contract::{Channel, Contract, Size};
use crate::inference::frame::{Frame, centred, memory_order};
use crate::inference::onnx::{Model, Tensor};
use crate::inference::{ModelIdentity, Prediction, Predictor, Segmentation, labels};

/// A prediction model.
pub(super) struct OnnxPredictor {
    model: Model,
    contract: Contract,
}

impl OnnxPredictor {
    /// Checks a model against its contract.
    ///
    /// # Errors
    /// [`Kind::ModelShape`].
    pub(super) fn new(model: Model, contract: Contract) -> Result<OnnxPredictor> {
        match contract.grid.size {
            Size::Fit { shape, .. } | Size::Resize { shape, .. } | Size::Crop { shape, .. } => {
                model.check_spatial(shape, contract.grid.channels_first)?;
            }
            Size::Whole { .. } | Size::Sliding { .. } => {}
        }
        if model.fixed_batch().is_some_and(|batch| batch != 1) {
            return Err(Error::new(Kind::ModelShape, "the model takes several studies at once; a prediction is for one"));
        }
        // What the output declares may be open; its true size is checked again after the run.
        let declared = model.output_shape();
        if declared.iter().all(|n| *n >= 0) {
            let count = declared.iter().try_fold(1usize, |product, n| product.checked_mul(usize::try_from(*n).ok()?));
            check_count(count.unwrap_or(0), &contract)?;
        }
        Ok(OnnxPredictor { model, contract })
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

    /// First voxel and sides (W, H, D) of the part of the frame that the model sees, and the padding.
    fn part(&self, frame: &Frame, mask: Option<&[u8]>) -> Result<([i64; 3], [usize; 3], f32)> {
        let dims = frame.dims();
        Ok(match self.contract.grid.size {
            Size::Resize { .. } | Size::Sliding { .. } => ([0; 3], dims, 0.0),
            Size::Whole { multiple, pad } => {
                let shape = dims.map(|side| side.div_ceil(multiple) * multiple);
                self.model.check_spatial(memory_order(shape), self.contract.grid.channels_first)?;
                (centred(dims, shape), shape, pad)
            }
            Size::Fit { shape, pad } => (centred(dims, memory_order(shape)), memory_order(shape), pad),
            Size::Crop { shape, pad, largest } => {
                let shape = memory_order(shape);
                let bounds = mask.map(|mask| bounds(mask, dims, largest)).transpose()?.flatten();
                let bounds = bounds
                    .ok_or_else(|| Error::new(Kind::MaskEmpty, "no voxel of the labels that the model looks at").at(Stage::Inference))?;
                // (first + last + 1) // 2 - shape // 2: the window reaches as far to both sides of the box as whole voxels allow.
                let lower =
                    std::array::from_fn(|axis| ((bounds.first[axis] + bounds.last[axis]).div_ceil(2)) as i64 - (shape[axis] / 2) as i64);
                (lower, shape, pad)
            }
        })
    }
}

impl Predictor for OnnxPredictor {
    fn identity(&self) -> &ModelIdentity {
        &self.model.identity
    }

    fn needs_mask(&self) -> bool {
        self.contract.needs_mask()
    }

    fn predict(&self, volume: &Volume, mask: Option<&Segmentation>, control: &Control) -> Result<Prediction> {
        control.progress("predict", 0.0);
        let frame = Frame::new(volume, &self.contract, control)?;
        let mask = self.mask(&frame, mask, control)?;
        let (lower, shape, pad) = self.part(&frame, mask.as_deref())?;
        let intensities = frame.window(lower, shape, pad, control)?;
        let inside: Vec<f32> = match &mask {
            None => Vec::new(),
            Some(mask) => {
                let window = resample::nearest(mask, frame.dims(), &AlignedGrid::window(lower, shape), Some(0), control)?;
                window.iter().map(|value| f32::from(*value)).collect()
            }
        };
        let first = self.contract.grid.channels_first;
        let mut packed = Vec::new();
        for input in &self.contract.inputs {
            let channels: Vec<&[f32]> = input
                .channels
                .iter()
                .map(|channel| match channel {
                    Channel::Volume(number) => {
                        frame.place(*number).and_then(|place| intensities.get(place)).map(Vec::as_slice).unwrap_or_default()
                    }
                    Channel::Mask => inside.as_slice(),
                })
                .collect();
            packed.push(pack(&channels, voxel_count(shape)?, first)?);
        }
        let [w, h, d] = shape.map(|side| side as i64);
        let tensors: Vec<Tensor> = packed
            .iter()
            .zip(&self.contract.inputs)
            .map(|(values, input)| {
                let c = input.channels.len() as i64;
                Tensor { shape: if first { vec![1, c, d, h, w] } else { vec![1, d, h, w, c] }, values }
            })
            .collect();
        let values = self.model.run(&tensors, control, |_, values| {
            check_count(values.len(), &self.contract)?;
            Ok(values.to_vec())
        })?;
        let prediction = self.read(values)?;
        control.progress("predict", 1.0);
        Ok(prediction)
    }
}

impl OnnxPredictor {
    /// Activates the model's numbers and names them.
    fn read(&self, mut values: Vec<f32>) -> Result<Prediction> {
        let output = &self.contract.output;
        labels::activate(&mut values, output.activation);
        let named: Vec<(String, f64)> = output
            .labels
            .iter()
            .filter_map(|label| values.get(label.channel).map(|value| (label.name.clone(), f64::from(*value))))
            .collect();
        // The contract says which value is the probability; none is chosen when it does not.
        let probability = output.positive.and_then(|positive| named.get(positive)).map(|(_, value)| *value);
        if probability.is_some_and(|value| !(0.0..=1.0).contains(&value)) {
            return Err(Error::new(Kind::RuntimeFailed, "the positive value is no probability: it lies outside 0 to 1")
                .with_hint("output.activation in the contract may be missing: the model seems to give logits"));
        }
        Ok(Prediction { probability, values: named, model: self.model.identity.clone() })
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

/// The box around the mask, or around its largest component.
fn bounds(mask: &[u8], dims: [usize; 3], largest: bool) -> Result<Option<Bounds>> {
    if !largest {
        return Ok(crop::bounds(mask, dims, |value| value == 1));
    }
    let found = Components::find(mask, dims, Connectivity::Corners, |value| value == 1)?;
    Ok(found.largest().and_then(|number| found.bounds().get(number)).copied())
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
