//! A segmentation model behind [`Segmenter`]: a contract, a session, and the road there and back.
//!
//! Everything that the configuration may change about a model (`inference.window`, `overlap`, `batch`) is checked against the contract when
//! the model is opened, so a study never fails late for a setting. When a device runs out of memory the same windows are tried fewer at
//! once, and then, where the contract allows other windows, smaller ones; the labels then differ a little, as they would between two
//! settings.

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::Volume;
use crate::imaging::grid::{filled, voxel_count};
use crate::inference::contract::{Activation, Channel, Contract, Size};
use crate::inference::frame::{Frame, centred, memory_order};
use crate::inference::onnx::{Model, Tensor};
use crate::inference::sliding::{self, Maps, Network, Plan};
use crate::inference::{ModelIdentity, RuntimeOptions, Segmentation, Segmenter, labels};

/// A segmentation model.
pub(super) struct OnnxSegmenter {
    model: Model,
    contract: Contract,
    windows: Windows,
}

/// What was configured over the contract's sliding window; sides in W, H, D.
#[derive(Clone, Copy, Debug)]
struct Windows {
    window: [usize; 3],
    overlap: f64,
    gaussian: bool,
    batch: usize,
    multiple: Option<usize>,
}

impl OnnxSegmenter {
    /// Checks a model against its contract.
    ///
    /// # Errors
    /// [`Kind::ModelShape`]; [`Kind::ConfigInvalidValue`] for an `inference.*` value that the contract does not allow.
    pub(super) fn new(model: Model, contract: Contract, options: &RuntimeOptions) -> Result<OnnxSegmenter> {
        let windows = windows(&contract, options)?;
        let channels_first = contract.grid.channels_first;
        match contract.grid.size {
            Size::Sliding { .. } => model.check_spatial(memory_order(windows.window), channels_first)?,
            Size::Fit { shape, .. } | Size::Resize { shape, .. } => model.check_spatial(shape, channels_first)?,
            Size::Whole { .. } | Size::Crop { .. } => {}
        }
        let shape = model.output_shape();
        if shape.len() != 5 {
            return Err(Error::new(Kind::ModelShape, format!("the output has {} dimensions, a segmentation has 5", shape.len())));
        }
        // A model may leave the number of channels open; then each run's output is checked instead.
        if let Ok(channels) = usize::try_from(shape[if channels_first { 1 } else { 4 }])
            && channels > 0
        {
            check_channels(channels, &contract)?;
        }
        Ok(OnnxSegmenter { model, contract, windows })
    }

    /// Labels of a padded or cropped frame, by windows that fit the device's memory.
    fn stitch(&self, data: &[&[f32]], dims: [usize; 3], control: &Control) -> Result<Vec<u8>> {
        let network = Windowed { model: &self.model, contract: &self.contract, control };
        let mut windows = self.windows;
        let sliding = matches!(self.contract.grid.size, Size::Sliding { .. });
        loop {
            let plan = if sliding { Plan::sliding(dims, windows.window, windows.overlap, windows.gaussian) } else { Plan::whole(dims) };
            let mut found = filled(voxel_count(dims)?, 0u8)?;
            let area = dims[0] * dims[1];
            // Slices are decided as they become final: the maps of all channels never exist for the whole volume.
            let result = sliding::stitch(data, &plan, windows.batch, &network, control, |slice, maps, channels| {
                let labels = &mut found[slice * area..(slice + 1) * area];
                labels::decide(maps, channels, &self.contract.output, self.contract.output.activate_windows, labels);
                Ok(())
            });
            match result {
                Ok(()) => return Ok(found),
                Err(error) if error.kind() == Kind::DeviceOutOfMemory && sliding => windows = windows.less().ok_or(error)?,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Segmenter for OnnxSegmenter {
    fn identity(&self) -> &ModelIdentity {
        &self.model.identity
    }

    fn segment(&self, volume: &Volume, control: &Control) -> Result<Segmentation> {
        let frame = Frame::new(volume, &self.contract, control)?;
        let dims = frame.dims();
        let (lower, shape, pad) = match self.contract.grid.size {
            Size::Sliding { pad, .. } => {
                let shape: [usize; 3] = std::array::from_fn(|axis| dims[axis].max(self.windows.window[axis]));
                (centred(dims, shape), shape, pad)
            }
            Size::Whole { multiple, pad } => {
                let shape = dims.map(|side| side.div_ceil(multiple) * multiple);
                (centred(dims, shape), shape, pad)
            }
            Size::Fit { shape, pad } => (centred(dims, memory_order(shape)), memory_order(shape), pad),
            Size::Resize { .. } | Size::Crop { .. } => ([0; 3], dims, 0.0),
        };
        if matches!(self.contract.grid.size, Size::Whole { .. }) {
            self.model.check_spatial(memory_order(shape), self.contract.grid.channels_first)?;
        }
        // A frame that needs neither padding nor cropping goes as it is: at 256 x 256 x 256 a copy is 64 MiB.
        let windows = match shape == dims && lower == [0; 3] {
            true => None,
            false => Some(frame.window(lower, shape, pad, control)?),
        };
        // In the order of the tensor's channels, of which one may be named twice.
        let channels = self.contract.inputs.iter().flat_map(|input| &input.channels);
        let data: Option<Vec<&[f32]>> = channels
            .map(|channel| {
                let Channel::Volume(number) = channel else { return None };
                let place = frame.place(*number)?;
                match &windows {
                    Some(windows) => windows.get(place).map(Vec::as_slice),
                    None => frame.channels.get(place).map(|(_, voxels)| voxels.as_slice()),
                }
            })
            .collect();
        let data = data.ok_or_else(|| Error::new(Kind::Internal, "a channel of the model is lost").at(Stage::Inference))?;
        let found = self.stitch(&data, shape, control)?;
        let geometry = volume.geometry().clone();
        let mut labels = frame.labels_back(&found, lower, shape, &geometry, control)?;
        control.check()?;
        labels::postprocess(&mut labels, &geometry, &self.contract)?;
        let table = labels::table(&labels, &geometry, &self.contract.output);
        labels::check_volumes(&table, &self.contract)?;
        Ok(Segmentation { labels, geometry, table, model: self.model.identity.clone() })
    }
}

impl Windows {
    /// What to try when memory did not suffice: fewer windows at once, then smaller ones, where the contract allows it.
    fn less(self) -> Option<Windows> {
        if self.batch > 1 {
            return Some(Windows { batch: self.batch / 2, ..self });
        }
        sliding::smaller(self.window, self.multiple?).map(|window| Windows { window, ..self })
    }
}

/// The contract's windows with what the configuration changes.
fn windows(contract: &Contract, options: &RuntimeOptions) -> Result<Windows> {
    let invalid = |key: &'static str, hint: String| Error::new(Kind::ConfigInvalidValue, key).with_hint(hint).at(Stage::Inference);
    let Size::Sliding { window, overlap, gaussian, batch, multiple, .. } = contract.grid.size else {
        if options.window.is_some() {
            return Err(invalid("inference.window", "the model is not run in windows".into()));
        }
        return Ok(Windows { window: [1; 3], overlap: 0.0, gaussian: false, batch: 1, multiple: None });
    };
    let asked = options.window.unwrap_or(window);
    if asked != window {
        let fits = |multiple: usize| asked.iter().all(|side| (1..=4096).contains(side) && side % multiple == 0);
        match multiple {
            None => return Err(invalid("inference.window", "the model's contract names no other window that it takes".into())),
            Some(multiple) if !fits(multiple) => {
                return Err(invalid("inference.window", format!("the model takes multiples of {multiple}")));
            }
            Some(_) => {}
        }
    }
    let overlap = options.overlap.unwrap_or(overlap);
    if !(0.0..=0.95).contains(&overlap) {
        return Err(invalid("inference.overlap", "from 0 to 0.95".into()));
    }
    let batch = options.batch.unwrap_or(batch);
    if !(1..=1024).contains(&batch) {
        return Err(invalid("inference.batch", "from 1 to 1024".into()));
    }
    Ok(Windows { window: memory_order(asked), overlap, gaussian, batch, multiple })
}

/// Windows with one channel after the other to windows with one voxel after the other.
fn interleave(values: &[f32], channels: usize, size: usize) -> Result<Vec<f32>> {
    let mut out = filled(values.len(), 0.0f32)?;
    for (window, out) in values.chunks_exact(channels * size).zip(out.chunks_exact_mut(channels * size)) {
        for (channel, values) in window.chunks_exact(size).enumerate() {
            out.iter_mut().skip(channel).step_by(channels).zip(values).for_each(|(out, value)| *out = *value);
        }
    }
    Ok(out)
}

/// Compares the number of channels with the contract's labels.
fn check_channels(channels: usize, contract: &Contract) -> Result<()> {
    let output = &contract.output;
    if let Some(label) = output.labels.iter().find(|label| label.channel >= channels) {
        let detail = format!("the output has {channels} channels, label {} reads channel {}", label.name, label.channel);
        return Err(Error::new(Kind::ModelShape, detail));
    }
    let exclusive = matches!(output.activation, Activation::Softmax | Activation::Argmax) || output.threshold.is_none();
    if exclusive && channels < 2 {
        return Err(Error::new(
            Kind::ModelShape,
            "the output has one channel, which wins over nothing: use sigmoid, or none with a threshold",
        ));
    }
    Ok(())
}

/// The model as [`sliding`] sees it.
struct Windowed<'a> {
    model: &'a Model,
    contract: &'a Contract,
    control: &'a Control,
}

impl Network for Windowed<'_> {
    fn run(&self, values: &[f32], count: usize, window: [usize; 3], take: &mut dyn FnMut(Maps) -> Result<()>) -> Result<()> {
        let size = voxel_count(window)?;
        let inputs = values.len() / (size * count).max(1);
        // A model with a fixed batch gets empty windows to fill it, and runs several times when it holds less.
        let batch = self.model.fixed_batch().unwrap_or(count);
        if batch < count {
            return Err(Error::new(Kind::ConfigInvalidValue, "inference.batch")
                .with_hint(format!("the model takes {batch} windows at once"))
                .at(Stage::Inference));
        }
        let padded;
        let values = if batch > count {
            let mut longer = filled(size.saturating_mul(batch).saturating_mul(inputs), 0.0f32)?;
            longer[..values.len()].copy_from_slice(values);
            padded = longer;
            padded.as_slice()
        } else {
            values
        };
        let first = self.contract.grid.channels_first;
        let [w, h, d] = window.map(|side| side as i64);
        let (shape, interleaved);
        let values = if first || inputs == 1 {
            shape = if first { vec![batch as i64, inputs as i64, d, h, w] } else { vec![batch as i64, d, h, w, 1] };
            values
        } else {
            shape = vec![batch as i64, d, h, w, inputs as i64];
            interleaved = interleave(values, inputs, size)?;
            interleaved.as_slice()
        };
        self.model.run(&[Tensor { shape, values }], self.control, |shape, values| {
            let (spatial, channels) = match shape {
                [n, c, a, b, e] if *n == batch as i64 && first => ([*a, *b, *e], *c),
                [n, a, b, e, c] if *n == batch as i64 => ([*a, *b, *e], *c),
                _ => return Err(Error::new(Kind::ModelShape, "the output's shape differs from the contract's layout")),
            };
            let channels = usize::try_from(channels).unwrap_or(0);
            if spatial != [d, h, w] || channels == 0 || values.len() != size * batch * channels {
                return Err(Error::new(Kind::ModelShape, "the output has another size than the input"));
            }
            check_channels(channels, self.contract)?;
            let values = &values[..size * count * channels];
            if !self.contract.output.activate_windows {
                return take(Maps { values, channels, channels_first: first });
            }
            let mut active = values.to_vec();
            active.chunks_mut(size * channels).for_each(|window| {
                labels::activate_maps(window, channels, first, self.contract.output.activation);
            });
            take(Maps { values: &active, channels, channels_first: first })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_memory_leads_to_fewer_and_then_to_smaller_windows() {
        let mut windows = Windows { window: [64, 64, 32], overlap: 0.25, gaussian: true, batch: 3, multiple: Some(16) };
        let mut tried = Vec::new();
        while let Some(less) = windows.less() {
            windows = less;
            tried.push((less.batch, less.window));
        }
        assert_eq!(
            tried,
            [(1, [64, 64, 32]), (1, [64, 32, 32]), (1, [32, 32, 32]), (1, [32, 32, 16]), (1, [32, 16, 16]), (1, [16, 16, 16])]
        );
        assert!(Windows { batch: 1, multiple: None, ..windows }.less().is_none(), "only the contract allows other windows");
    }
}
