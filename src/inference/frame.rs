//! The road from a volume to what a model sees, and back: steps 1 to 6 and 8 of docs/model-contract.md.
//!
//! A [`Frame`] is the grid that a contract describes, laid on one volume, in the memory order of the model's tensor (W fastest, then H,
//! then D). It keeps how it lies on the volume's grid, so labels return by its inverse and a mask takes the same road as the voxels.

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::grid::{AlignedGrid, AxisMap};
use crate::imaging::resample;
use crate::imaging::{self, Geometry, Recipe, Step, Volume, grid, normalize, recipe};
use crate::inference::contract::{Contract, Intensity, Size};

/// A volume on the grid that a contract describes, with the contract's intensities, before any cropping or padding.
pub(super) struct Frame {
    /// Grid of the volume that the frame was laid on.
    pub(super) below: Geometry,
    /// The contract's axes and spacing on that grid.
    laid: AlignedGrid,
    /// The box that was located, and what it was stretched to, on the laid grid; `None` is all of it.
    cut: Option<AlignedGrid>,
    /// The frame on the volume's grid.
    pub(super) grid: AlignedGrid,
    /// Intensities of each channel that the contract names, in the order of [`Contract::volume_channels`].
    pub(super) channels: Vec<(Option<usize>, Vec<f32>)>,
    /// Values at which each channel was clipped by percentiles for the first time.
    pub(super) clipped: Vec<Option<(f32, f32)>>,
}

/// What a locating pass found.
pub(super) struct Located {
    /// First voxel of the box on the laid grid, and its sides (W, H, D).
    pub(super) lower: [usize; 3],
    pub(super) shape: [usize; 3],
    /// [`Frame::clipped`] of its frame.
    pub(super) clipped: Vec<Option<(f32, f32)>>,
}

/// The volume that a contract wants: as loaded or preprocessed, after the contract's own steps on its grid.
///
/// # Errors
/// Those of the steps.
pub(super) fn prepared(volume: &Volume, contract: &Contract, control: &Control) -> Result<(Volume, Vec<Step>)> {
    let volume = if contract.from_raw { volume.raw() } else { volume };
    refuse_modality(volume, contract)?;
    refuse_body_part(volume, contract)?;
    if contract.preprocess.is_empty() {
        return Ok((volume.clone(), Vec::new()));
    }
    let recipe = Recipe { operations: contract.preprocess.clone() };
    imaging::preprocess(volume.clone(), &recipe, &control.silent())
}

/// A series that does not say which part of the body it shows is taken: many do not. The header's text is not repeated.
fn refuse_body_part(volume: &Volume, contract: &Contract) -> Result<()> {
    let part = volume.body_part.as_str();
    if part.is_empty() || contract.body_parts.is_empty() || contract.body_parts.iter().any(|name| name.eq_ignore_ascii_case(part)) {
        return Ok(());
    }
    let detail = format!("the model is for the body parts {}; the series says that it shows another", contract.body_parts.join(", "));
    Err(Error::new(Kind::InputImplausible, detail))
}

/// The modality's own text is not repeated: it comes from a header.
fn refuse_modality(volume: &Volume, contract: &Contract) -> Result<()> {
    if !contract.modalities.is_empty() && !contract.modalities.iter().any(|modality| modality == volume.modality()) {
        let detail = format!("the model is for modality {}", contract.modalities.join(", "));
        return Err(Error::new(Kind::InputImplausible, detail));
    }
    Ok(())
}

impl Frame {
    /// Lays a contract's grid on a volume that was [`prepared`], or on the box that was located in it.
    ///
    /// # Errors
    /// [`Kind::InputImplausible`] for a missing channel; [`Kind::VolumeInvalid`]; [`Kind::VolumeConstant`]; [`Kind::OutOfMemory`];
    /// [`Kind::Cancelled`].
    pub(super) fn new(volume: &Volume, contract: &Contract, located: Option<&Located>, control: &Control) -> Result<Frame> {
        volume.check()?;
        let below = volume.geometry().clone();
        let wanted = contract.volume_channels();
        check_channels(&wanted, volume)?;
        for channel in &wanted {
            normalize::check_finite(volume.channel(channel.unwrap_or(0)))?;
        }

        let oriented = contract.grid.orientation.map_or(AlignedGrid::identity(below.dims), |orientation| orientation.grid(&below));
        let now = oriented.geometry(&below);
        let spaced = match contract.grid.spacing_mm {
            Some(spacing_mm) => oriented.then(&AlignedGrid::to_spacing(now.dims, now.spacing_mm, spacing_mm)?),
            None => oriented,
        };
        let laid = spaced.then(&tensor_order(spaced.dims(), contract.grid.axes));
        let part = located.map(|located| AlignedGrid::window(located.lower.map(|start| start as i64), located.shape));
        let shown = part.as_ref().map_or(laid.dims(), AlignedGrid::dims);
        let stretched = match contract.grid.size {
            // Slices are stretched one by one.
            Size::Resize { shape: [_, h, w], how } if contract.grid.is_slicewise => {
                Some((AlignedGrid::stretched(shown, [w, h, shown[2]]), how))
            }
            Size::Resize { shape, how } => Some((AlignedGrid::stretched(shown, memory_order(shape)), how)),
            _ => None,
        };
        let cut = match (&part, &stretched) {
            (Some(part), Some((stretch, _))) => Some(part.then(stretch)),
            (Some(part), None) => Some(*part),
            (None, _) => None,
        };
        let mut channels = Vec::with_capacity(wanted.len());
        let mut clipped = Vec::with_capacity(wanted.len());
        for (index, number) in wanted.into_iter().enumerate() {
            let mut voxels = resample::linear(volume.channel(number.unwrap_or(0)), below.dims, &laid, control)?;
            if let Some(part) = &part {
                voxels = resample::nearest(&voxels, laid.dims(), part, None, control)?;
            }
            if let Some((grid, how)) = &stretched {
                voxels = resample::aligned(&voxels, shown, grid, *how, control)?;
            }
            let dims = stretched.as_ref().map_or(shown, |(grid, _)| grid.dims());
            let as_located = located.and_then(|located| located.clipped.get(index).copied().flatten());
            let mut limits = None;
            for step in &contract.intensity {
                control.check()?;
                let told = apply(&mut voxels, dims, step, as_located, control)?;
                limits = limits.or(told);
            }
            // Scaling by a contract's numbers may leave the range of float32.
            normalize::check_finite(&voxels)?;
            channels.push((number, voxels));
            clipped.push(limits);
        }
        let grid = match (&cut, &stretched) {
            (Some(cut), _) => laid.then(cut),
            (None, Some((stretch, _))) => laid.then(stretch),
            (None, None) => laid,
        };
        Ok(Frame { below, laid, cut, grid, channels, clipped })
    }

    /// Voxels along W, H, D of the contract's axes and spacing, before any box or stretching.
    pub(super) fn laid_dims(&self) -> [usize; 3] {
        self.laid.dims()
    }

    /// Voxels along W, H, D.
    pub(super) fn dims(&self) -> [usize; 3] {
        self.grid.dims()
    }

    /// The frame's window in each channel: whole voxels from `lower` (which may lie outside), padded.
    pub(super) fn window(&self, lower: [i64; 3], shape: [usize; 3], pad: f32, control: &Control) -> Result<Vec<Vec<f32>>> {
        let window = AlignedGrid::window(lower, shape);
        self.channels.iter().map(|(_, voxels)| resample::nearest(voxels, self.dims(), &window, Some(pad), control)).collect()
    }

    /// Where a channel of the contract lies among the frame's.
    pub(super) fn place(&self, number: Option<usize>) -> Option<usize> {
        self.channels.iter().position(|(known, _)| *known == number)
    }

    /// A mask on the frame, by nearest neighbour: 1 where a label is one of `values`.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] when the mask does not fill its grid; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
    pub(super) fn mask(&self, labels: &[u8], geometry: &Geometry, values: &[u8], control: &Control) -> Result<Vec<u8>> {
        let moved;
        let labels = if *geometry == self.below {
            grid::check(geometry, labels.len())?;
            labels
        } else {
            moved = resample::labels_to_grid(labels, geometry, &self.below, control)?;
            moved.as_slice()
        };
        let mut mask = resample::nearest(labels, self.below.dims, &self.grid, None, control)?;
        mask.iter_mut().for_each(|label| *label = u8::from(values.contains(label)));
        Ok(mask)
    }

    /// Labels of a window of the frame, on the grid of a volume that lies in the same patient; 0 where the window does not reach.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
    pub(super) fn labels_back(
        &self,
        labels: &[u8],
        lower: [i64; 3],
        shape: [usize; 3],
        onto: &Geometry,
        control: &Control,
    ) -> Result<Vec<u8>> {
        // Onto the frame first: outside the window is background, but past the frame's own edge (half a voxel, from rounding its length)
        // the nearest voxel still answers.
        let whole = AlignedGrid::window(lower, shape).inverse(self.dims());
        let on_frame = resample::nearest(labels, shape, &whole, Some(0), control)?;
        let on_volume = match &self.cut {
            None => resample::nearest(&on_frame, self.dims(), &self.grid.inverse(self.below.dims), None, control)?,
            // Outside the box is background.
            Some(cut) => {
                let laid = self.laid.dims();
                let on_laid = resample::nearest(&on_frame, self.dims(), &cut.inverse(laid), Some(0), control)?;
                resample::nearest(&on_laid, laid, &self.laid.inverse(self.below.dims), None, control)?
            }
        };
        if *onto == self.below { Ok(on_volume) } else { resample::labels_back(&on_volume, &self.below, onto, control) }
    }
}

/// A model is told which channel is which, or there is but one.
fn check_channels(wanted: &[Option<usize>], volume: &Volume) -> Result<()> {
    let count = volume.channels().len();
    let implausible =
        |detail: String, hint: &'static str| Err(Error::new(Kind::InputImplausible, detail).with_hint(hint).at(Stage::Inference));
    if count > 1 && wanted.contains(&None) {
        return implausible(
            format!("the study has {count} channels, the model takes one volume"),
            "write volume:0, volume:1 ... in inputs[].channels of the contract; the result's channels say which is which",
        );
    }
    match wanted.iter().flatten().max() {
        Some(most) if *most >= count => {
            implausible(format!("the model takes channel {most}, the study has {count}, counted from 0"), "choose a series that has them")
        }
        _ => Ok(()),
    }
}

/// Sides in the tensor's names (D, H, W) as sides in memory order (W, H, D), or the other way round.
pub(super) fn memory_order<T: Copy>([d, h, w]: [T; 3]) -> [T; 3] {
    [w, h, d]
}

/// Where a window of a shape begins when a grid is cut or padded around its middle.
pub(super) fn centred(dims: [usize; 3], shape: [usize; 3]) -> [i64; 3] {
    std::array::from_fn(|axis| {
        let (n, side) = (dims[axis] as i64, shape[axis] as i64);
        if side > n { -((side - n) / 2) } else { n / 2 - side / 2 }
    })
}

/// Axes x, y, z in the order in which the tensor has them in memory.
fn tensor_order(dims: [usize; 3], axes: [usize; 3]) -> AlignedGrid {
    AlignedGrid { axes: memory_order(axes).map(|source| AxisMap { source, start: 0.0, step: 1.0, len: dims[source] }) }
}

/// Runs a step on a channel; tells the limits of a clip at percentiles.
fn apply(
    voxels: &mut [f32],
    dims: [usize; 3],
    step: &Intensity,
    as_located: Option<(f32, f32)>,
    control: &Control,
) -> Result<Option<(f32, f32)>> {
    match step {
        Intensity::ClipAsLocated => {
            let Some((low, high)) = as_located else {
                let detail = "locate.intensity.steps: a percentile_clip is missing, since a later step clips as located";
                return Err(Error::new(Kind::ModelContract, detail));
            };
            normalize::clamp(voxels, low, high);
            Ok(None)
        }
        Intensity::Operation(operation) => {
            let told = recipe::change_intensities(operation, voxels, dims, &control.silent())?;
            let value = |name: &str| told.iter().find(|(known, _)| *known == name).map(|(_, value)| *value as f32);
            Ok(value("lower_value").zip(value("upper_value")))
        }
    }
}
