//! A segmentation model behind [`Segmenter`]: a contract, a session, and the road there and back.
//!
//! Everything that the configuration may change about a model (`inference.window`, `overlap`, `batch`) is checked against the contract when
//! the model is opened, so a study never fails late for a setting. When a device runs out of memory the same windows are tried fewer at
//! once, and then, where the contract allows other windows, smaller ones; the labels then differ a little, as they would between two
//! settings.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::Volume;
use crate::imaging::grid::{filled, voxel_count};
use crate::inference::contract::{Activation, Channel, Contract, Grid, Size};
use crate::inference::ensemble::{Ensemble, beside};
use crate::inference::file::{self, ModelFile};
use crate::inference::frame::{self, Frame, Located, centred, memory_order};
use crate::inference::model::Model;
use crate::inference::onnx::{After, Tensor};
use crate::inference::sliding::{self, Layer, Maps, Network, Plan};
use crate::inference::{ModelIdentity, RuntimeOptions, Segmentation, Segmenter, labels, locate};

/// A segmentation model, or an ensemble of them, with the model of its locating pass.
pub(super) struct OnnxSegmenter {
    models: Ensemble,
    contract: Contract,
    windows: Windows,
    locator: Option<Box<OnnxSegmenter>>,
}

/// Labels on a contract's frame.
pub(super) struct OnFrame {
    pub(super) frame: Frame,
    /// Labels of a window of the frame: its first voxel and its sides.
    pub(super) labels: Vec<u8>,
    pub(super) lower: [i64; 3],
    pub(super) shape: [usize; 3],
    /// What had to be done for want of memory.
    adaptations: Vec<String>,
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
    /// Opens a model and checks it against its contract.
    ///
    /// # Errors
    /// Those of [`Ensemble::open`]; [`Kind::ModelShape`]; [`Kind::ConfigInvalidValue`] for an `inference.*` value that the contract does not
    /// allow.
    pub(super) fn open(file: ModelFile, path: &Path, contract: Contract, options: &RuntimeOptions) -> Result<OnnxSegmenter> {
        let windows = windows(&contract, options)?;
        let mut models = Ensemble::open(file, path, &contract, options)?;
        let locator = match &contract.locate {
            None => None,
            Some(locate) => {
                let named = |error: Error| Error::new(error.kind(), format!("locate: {}", error.detail()));
                let place = beside(path, &locate.file);
                // Windows are configured for the model itself.
                let own = RuntimeOptions { window: None, overlap: None, batch: None, ..options.clone() };
                let file = file::read(&place, options).map_err(named)?;
                models.add_part(&file.sha256);
                Some(Box::new(OnnxSegmenter::open(file, &place, (*locate.contract).clone(), &own).map_err(named)?))
            }
        };
        models.each(|model| check_model(model, &contract, &windows))?;
        Ok(OnnxSegmenter { models, contract, windows, locator })
    }

    /// Labels on the frame of a volume that was prepared.
    ///
    /// # Errors
    /// Those of [`Frame::new`] and of the model's runs.
    pub(super) fn on_frame(&self, volume: &Volume, located: Option<&Located>, control: &Control) -> Result<OnFrame> {
        let frame = Frame::new(volume, &self.contract, located, control)?;
        let dims = frame.dims();
        let grid = &self.contract.grid;
        // Slice-wise models leave the axis D as it is.
        let kept = |mut shape: [usize; 3]| {
            if grid.is_slicewise {
                shape[2] = dims[2];
            }
            shape
        };
        let (shape, pad) = match grid.size {
            Size::Sliding { pad, .. } => (std::array::from_fn(|axis| dims[axis].max(self.windows.window[axis])), pad),
            Size::Whole { multiple, pad } => (kept(dims.map(|side| side.div_ceil(multiple) * multiple)), pad),
            Size::Fit { shape, pad } => (kept(memory_order(shape)), pad),
            Size::Resize { .. } | Size::Crop { .. } => (dims, 0.0),
        };
        let lower = centred(dims, shape);
        if matches!(grid.size, Size::Whole { .. }) {
            self.models.each(|model| model.check_spatial(memory_order(shape), grid))?;
        }
        // A frame that needs neither padding nor cropping goes as it is: at 256 x 256 x 256 a copy is 64 MiB.
        let windows = match shape == dims && lower == [0; 3] {
            true => None,
            false => Some(frame.window(lower, shape, pad, control)?),
        };
        // In the order of the tensor's channels, of which one may be named twice.
        let channels = self.contract.inputs.iter().flat_map(|input| &input.channels);
        let data: Option<Vec<Layer>> = channels
            .map(|channel| {
                let Channel::Volume { number, offset } = channel else { return None };
                let place = frame.place(*number)?;
                let voxels = match &windows {
                    Some(windows) => windows.get(place).map(Vec::as_slice),
                    None => frame.channels.get(place).map(|(_, voxels)| voxels.as_slice()),
                };
                voxels.map(|voxels| Layer { voxels, offset: *offset })
            })
            .collect();
        let data = data.ok_or_else(|| Error::new(Kind::Internal, "a channel of the model is lost").at(Stage::Inference))?;
        let (labels, adaptations) = self.stitch(&data, shape, control)?;
        Ok(OnFrame { frame, labels, lower, shape, adaptations })
    }

    /// Labels of a padded or cropped frame, by windows that fit the device's memory, and what had to be done for that.
    fn stitch(&self, data: &[Layer], dims: [usize; 3], control: &Control) -> Result<(Vec<u8>, Vec<String>)> {
        let mut windows = self.windows;
        let mut adaptations = Vec::new();
        let size = self.contract.grid.size;
        let sliding = matches!(size, Size::Sliding { .. });
        loop {
            let plan = match (sliding, self.contract.grid.is_slicewise) {
                (true, _) => Plan::sliding(dims, windows.window, windows.overlap, windows.gaussian),
                (false, true) => Plan::sliding(dims, [dims[0], dims[1], 1], 0.0, false),
                (false, false) => Plan::whole(dims),
            };
            let places = match size {
                Size::Sliding { background: Some(background), .. } => plan.windows_above(data, background),
                _ => plan.windows(),
            };
            let network = Windowed { models: &self.models, contract: &self.contract, control, left: Cell::new(places.len()) };
            let mut found = filled(voxel_count(dims)?, 0u8)?;
            let area = dims[0] * dims[1];
            // Slices are decided as they become final: the maps of all channels never exist for the whole volume.
            let result = sliding::stitch(data, &plan, &places, windows.batch, &network, control, |slice, maps, channels| {
                let labels = &mut found[slice * area..(slice + 1) * area];
                labels::decide(maps, channels, &self.contract.output, self.contract.output.activate_windows, labels);
                Ok(())
            });
            match result {
                Ok(()) => return Ok((found, adaptations)),
                Err(error) if error.kind() == Kind::DeviceOutOfMemory => match windows.less(sliding) {
                    Some(less) => {
                        windows = less;
                        let [w, h, d] = if sliding { windows.window } else { plan.window };
                        adaptations.push(format!("device memory: {} windows of {d} x {h} x {w} at once", windows.batch));
                    }
                    // The smallest windows did not fit either. On the CPU the contract's own windows are run.
                    None if self.models.fall_back()? => {
                        windows = self.windows;
                        adaptations.push("device memory: the cpu instead".to_owned());
                    }
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }
}

impl Segmenter for OnnxSegmenter {
    fn identity(&self) -> &ModelIdentity {
        self.models.identity()
    }

    fn segment(&self, volume: &Volume, control: &Control) -> Result<Segmentation> {
        let (prepared, steps) = frame::prepared(volume, &self.contract, control)?;
        let (located, mut adaptations, rest) = match (&self.locator, &self.contract.locate) {
            (Some(locator), Some(rule)) => {
                let located = locate::locate(&prepared, locator, rule, &control.within("segment", 0.0, 0.3))?;
                (Some(located), Vec::new(), control.within("segment", 0.3, 1.0))
            }
            _ => (None, Vec::new(), control.clone()),
        };
        let found = self.on_frame(&prepared, located.as_ref(), &rest)?;
        adaptations.extend(found.adaptations);
        let geometry = volume.geometry().clone();
        let mut labels = found.frame.labels_back(&found.labels, found.lower, found.shape, &geometry, control)?;
        control.check()?;
        labels::postprocess(&mut labels, &geometry, &self.contract)?;
        let table = labels::table(&labels, &geometry, &self.contract.output);
        labels::check_volumes(&table, &self.contract)?;
        Ok(Segmentation { labels: Arc::new(labels), geometry, table, model: self.models.identity_now(), adaptations, steps })
    }
}

impl Windows {
    /// What to try when memory did not suffice: fewer windows at once, then smaller ones, where the contract allows it.
    fn less(self, sliding: bool) -> Option<Windows> {
        if self.batch > 1 {
            return Some(Windows { batch: self.batch / 2, ..self });
        }
        sliding::smaller(self.window, self.multiple.filter(|_| sliding)?).map(|window| Windows { window, ..self })
    }
}

/// The contract's windows with what the configuration changes.
fn windows(contract: &Contract, options: &RuntimeOptions) -> Result<Windows> {
    let invalid = |key: &'static str, hint: String| Error::new(Kind::ConfigInvalidValue, key).with_hint(hint).at(Stage::Inference);
    let Size::Sliding { window, overlap, gaussian, batch, multiple, .. } = contract.grid.size else {
        if options.window.is_some() {
            return Err(invalid("inference.window", "the model is not run in windows".into()));
        }
        // Slices are windows, too, and may be run several at once.
        let batch = if contract.grid.is_slicewise { options.batch.unwrap_or(1).clamp(1, 1024) } else { 1 };
        return Ok(Windows { window: [1; 3], overlap: 0.0, gaussian: false, batch, multiple: None });
    };
    let asked = options.window.unwrap_or(window);
    if asked != window {
        let is_slicewise = contract.grid.is_slicewise;
        let fits = |multiple: usize| {
            let varied = asked.iter().skip(usize::from(is_slicewise));
            varied.clone().all(|side| (1..=4096).contains(side) && side % multiple == 0) && (!is_slicewise || asked[0] == 1)
        };
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

/// Checks what a model declares against its contract.
fn check_model(model: &Model, contract: &Contract, windows: &Windows) -> Result<()> {
    let grid = &contract.grid;
    match grid.size {
        Size::Sliding { .. } => model.check_spatial(memory_order(windows.window), grid)?,
        Size::Fit { shape, .. } | Size::Resize { shape, .. } => model.check_spatial(shape, grid)?,
        Size::Whole { .. } | Size::Crop { .. } => {}
    }
    let rank = if grid.is_slicewise { 4 } else { 5 };
    // What a model leaves open is checked with each run's output.
    let Some(shape) = model.output_shape() else { return Ok(()) };
    if shape.len() != rank {
        return Err(Error::new(Kind::ModelShape, format!("the output has {} dimensions, a segmentation has {rank}", shape.len())));
    }
    if let Ok(channels) = usize::try_from(shape[if grid.channels_first { 1 } else { rank - 1 }])
        && channels > 0
    {
        check_channels(channels, contract)?;
    }
    Ok(())
}

/// The models as [`sliding`] sees them.
struct Windowed<'a> {
    models: &'a Ensemble,
    contract: &'a Contract,
    control: &'a Control,
    /// Windows that are still to come, this run's included.
    left: Cell<usize>,
}

impl Network for Windowed<'_> {
    fn run(&self, values: &[f32], count: usize, window: [usize; 3], take: &mut dyn FnMut(Maps) -> Result<()>) -> Result<()> {
        let size = voxel_count(window)?;
        let inputs = values.len() / (size * count).max(1);
        // A model with a fixed batch gets empty windows to fill it, and runs several times when it holds less.
        let batch = self.models.first().fixed_batch().unwrap_or(count);
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
        let grid = &self.contract.grid;
        let interleaved;
        let values = if grid.channels_first || inputs == 1 {
            values
        } else {
            interleaved = interleave(values, inputs, size)?;
            interleaved.as_slice()
        };
        let tensor = Tensor { shape: tensor_shape(grid, batch, inputs, window), values };
        let rest = self.left.get().saturating_sub(count);
        self.left.set(rest);
        // What the runs took beyond the model itself goes back with the last one.
        let after = if rest == 0 { After::Shrink } else { After::Keep };
        let (first, total) = (grid.channels_first, self.models.members().iter().map(|(_, weight)| weight).sum::<f64>());
        let mut mean: Option<(Vec<f32>, usize)> = None;
        for (model, weight) in self.models.members() {
            model.run(std::slice::from_ref(&tensor), after, self.control, |shape, values| {
                let channels = self.channels_of(shape, batch, window, values.len())?;
                let values = &values[..size * count * channels];
                let mut active;
                let values = if self.contract.output.activate_windows {
                    active = values.to_vec();
                    active.chunks_mut(size * channels).for_each(|window| {
                        labels::activate_maps(window, channels, first, self.contract.output.activation);
                    });
                    active.as_slice()
                } else {
                    values
                };
                if self.models.members().len() == 1 {
                    return take(Maps { values, channels, channels_first: first });
                }
                let share = (weight / total) as f32;
                match &mut mean {
                    None => mean = Some((values.iter().map(|value| value * share).collect(), channels)),
                    Some((mean, known)) if *known == channels => {
                        mean.iter_mut().zip(values).for_each(|(mean, value)| *mean += value * share);
                    }
                    Some(_) => return Err(Error::new(Kind::ModelShape, "members of the ensemble have different numbers of channels")),
                }
                Ok(())
            })?;
        }
        match &mean {
            Some((values, channels)) => take(Maps { values, channels: *channels, channels_first: first }),
            None => Ok(()),
        }
    }
}

impl Windowed<'_> {
    /// Checks an output's shape against the input's and the contract, and tells its channels.
    fn channels_of(&self, shape: &[i64], batch: usize, window: [usize; 3], values: usize) -> Result<usize> {
        let grid = &self.contract.grid;
        let place = if grid.channels_first { 1 } else { shape.len().saturating_sub(1) };
        let channels = shape.get(place).and_then(|channels| usize::try_from(*channels).ok()).unwrap_or(0);
        if shape.len() != if grid.is_slicewise { 4 } else { 5 } {
            return Err(Error::new(Kind::ModelShape, "the output's shape differs from the contract's layout"));
        }
        let size: usize = window.iter().product();
        if channels == 0 || shape != tensor_shape(grid, batch, channels, window) || values != size * batch * channels {
            return Err(Error::new(Kind::ModelShape, "the output has another size than the input"));
        }
        check_channels(channels, self.contract)?;
        Ok(channels)
    }
}

/// Shape of a tensor of windows in the contract's layout.
pub(super) fn tensor_shape(grid: &Grid, batch: usize, channels: usize, window: [usize; 3]) -> Vec<i64> {
    let [w, h, d] = window.map(|side| side as i64);
    let (n, c) = (batch as i64, channels as i64);
    match (grid.is_slicewise, grid.channels_first) {
        (false, true) => vec![n, c, d, h, w],
        (false, false) => vec![n, d, h, w, c],
        // Slices along D are looks of their own.
        (true, true) => vec![n * d, c, h, w],
        (true, false) => vec![n * d, h, w, c],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_memory_leads_to_fewer_and_then_to_smaller_windows() {
        let mut windows = Windows { window: [64, 64, 32], overlap: 0.25, gaussian: true, batch: 3, multiple: Some(16) };
        let mut tried = Vec::new();
        while let Some(less) = windows.less(true) {
            windows = less;
            tried.push((less.batch, less.window));
        }
        assert_eq!(
            tried,
            [(1, [64, 64, 32]), (1, [64, 32, 32]), (1, [32, 32, 32]), (1, [32, 32, 16]), (1, [32, 16, 16]), (1, [16, 16, 16])]
        );
        assert!(Windows { batch: 1, multiple: None, ..windows }.less(true).is_none(), "only the contract allows other windows");
    }
}
