//! The road from a volume to what a model sees, and back: steps 1 to 6 and 8 of docs/model-contract.md.
//!
//! A [`Frame`] is the grid that a contract describes, laid on one volume, in the memory order of the model's tensor (W fastest, then H,
//! then D). It keeps how it lies on the volume's grid, so labels return by its inverse and a mask takes the same road as the voxels.

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::grid::{AlignedGrid, AxisMap};
use crate::imaging::resample;
use crate::imaging::{Geometry, Volume, grid, normalize};
use crate::inference::contract::{Contract, Intensity, Size};

/// A volume on the grid that a contract describes, with the contract's intensities, before any cropping or padding.
pub(super) struct Frame {
    /// Grid of the volume that the frame was laid on.
    pub(super) below: Geometry,
    /// The frame on that grid.
    pub(super) grid: AlignedGrid,
    /// Intensities of each channel that the contract names, in the order of [`Contract::volume_channels`].
    pub(super) channels: Vec<(Option<usize>, Vec<f32>)>,
}

impl Frame {
    /// Lays a contract's grid on a volume.
    ///
    /// # Errors
    /// [`Kind::InputImplausible`] for another modality; [`Kind::VolumeInvalid`]; [`Kind::VolumeConstant`]; [`Kind::OutOfMemory`];
    /// [`Kind::Cancelled`].
    pub(super) fn new(volume: &Volume, contract: &Contract, control: &Control) -> Result<Frame> {
        let volume = if contract.from_raw { volume.raw() } else { volume };
        // The modality's own text is not repeated: it comes from a header.
        if !contract.modalities.is_empty() && !contract.modalities.iter().any(|modality| modality == volume.modality()) {
            let detail = format!("the model is for modality {}", contract.modalities.join(", "));
            return Err(Error::new(Kind::InputImplausible, detail));
        }
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
        let stretched = match contract.grid.size {
            Size::Resize { shape, how } => Some((AlignedGrid::stretched(laid.dims(), memory_order(shape)), how)),
            _ => None,
        };
        let mut channels = Vec::with_capacity(wanted.len());
        for number in wanted {
            let mut voxels = resample::linear(volume.channel(number.unwrap_or(0)), below.dims, &laid, control)?;
            voxels = match &stretched {
                Some((grid, how)) => resample::aligned(&voxels, laid.dims(), grid, *how, control)?,
                None => voxels,
            };
            for step in &contract.intensity {
                control.check()?;
                apply(&mut voxels, *step)?;
            }
            // Scaling by a contract's numbers may leave the range of float32.
            normalize::check_finite(&voxels)?;
            channels.push((number, voxels));
        }
        let grid = stretched.map_or(laid, |(grid, _)| laid.then(&grid));
        Ok(Frame { below, grid, channels })
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
        let back = self.grid.inverse(self.below.dims);
        let on_volume = resample::nearest(&on_frame, self.dims(), &back, None, control)?;
        if *onto == self.below { Ok(on_volume) } else { resample::labels_to_grid(&on_volume, &self.below, onto, control) }
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

fn apply(voxels: &mut [f32], step: Intensity) -> Result<()> {
    match step {
        Intensity::Zscore { nonzero, ddof } => {
            let over = if nonzero { normalize::Over::Nonzero } else { normalize::Over::All };
            normalize::zscore(voxels, over, ddof)?;
        }
        Intensity::Minmax { lo, hi } => {
            normalize::minmax(voxels, lo, hi)?;
        }
        Intensity::PercentileClip { lo, hi } => {
            if let [lo, hi] = normalize::percentiles(voxels, &[lo, hi])?[..] {
                normalize::clamp(voxels, lo as f32, hi as f32);
            }
        }
        Intensity::Clamp { lo, hi } => normalize::clamp(voxels, lo as f32, hi as f32),
        Intensity::Affine { scale, shift } => normalize::affine(voxels, scale, shift),
    }
    Ok(())
}
