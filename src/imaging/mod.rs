//! Volumes and their arithmetic: what happens to voxels between de-identification and a model.
//!
//! A [`Volume`] is float32 voxels with a grid in the patient's coordinates, of one or several channels: time points, echoes, colours. It is made from a released study and from nothing else, so
//! whatever is computed here was de-identified first (or its study says that it was not). [`preprocess`] runs the recipe of the
//! configuration; the modules hold the arithmetic, which works on plain slices so that masks and model inputs take the same roads.
//!
//! **Invariant:** results are bit-identical for any number of threads. Work is cut at fixed places, and sums are added in a fixed order.
//!
//! **Invariant:** a step is recorded if and only if it ran. A step that does not exist yet is an error, never a silent copy.

pub mod components;
pub mod crop;
pub mod filters;
pub mod grid;
pub mod intensity;
pub mod masks;
pub mod n4;
pub mod nlm;
pub mod noise;
pub mod normalize;
pub mod orient;
pub(crate) mod recipe;
pub mod resample;

use std::sync::Arc;

use crate::deid::ReleasedStudy;
pub use crate::deid::{Channel, Finding, Frames, Geometry, Mark, Verdict};
use crate::error::{Error, Kind, Result, Stage};
pub use recipe::{Choices, NonLocalMeans, Operation, Recipe, Region, Step, preprocess};

/// Voxels on a grid: column fastest, then row, then slice, then channel. Clones share the voxels until one writes.
#[derive(Clone)]
pub struct Volume {
    pub(crate) voxels: Arc<Vec<f32>>,
    /// What each channel is; at least one.
    pub(crate) channels: Arc<[Channel]>,
    pub(crate) geometry: Geometry,
    pub(crate) modality: String,
    /// Free text of the header, upper case: what models are chosen by, never told.
    pub(crate) body_part: String,
    /// The volume before preprocessing, when that changed anything: some models want Hounsfield units whatever else was asked for.
    pub(crate) raw: Option<Arc<Volume>>,
}

impl Volume {
    /// The volume of a released study; shares its voxels.
    pub fn from_study(study: &ReleasedStudy) -> Volume {
        Volume {
            voxels: Arc::clone(&study.voxels),
            channels: Arc::from(study.channels.as_slice()),
            geometry: study.geometry.clone(),
            modality: study.modality.clone(),
            body_part: study.body_part.trim().to_ascii_uppercase(),
            raw: None,
        }
    }

    /// A volume of its parts, one channel. Crate-private: outside, a volume comes from a released study.
    ///
    /// # Errors
    /// [`Kind::VolumeInvalid`] when the voxels do not fill the grid or the grid has no volume.
    #[cfg(test)]
    pub(crate) fn from_parts(voxels: Vec<f32>, geometry: Geometry, modality: &str) -> Result<Volume> {
        Volume::with_channels(voxels, Arc::from([Channel::default()]), geometry, modality)
    }

    /// A volume of its parts.
    ///
    /// # Errors
    /// As [`Volume::check`].
    pub(crate) fn with_channels(voxels: Vec<f32>, channels: Arc<[Channel]>, geometry: Geometry, modality: &str) -> Result<Volume> {
        let volume =
            Volume { voxels: Arc::new(voxels), channels, geometry, modality: modality.to_owned(), body_part: String::new(), raw: None };
        volume.check()?;
        Ok(volume)
    }

    /// The volume on another grid: each channel after one and the same change.
    ///
    /// # Errors
    /// Those of the change; as [`Volume::check`]; [`Kind::OutOfMemory`].
    pub(crate) fn moved(&self, geometry: Geometry, change: impl Fn(&[f32]) -> Result<Vec<f32>>) -> Result<Volume> {
        self.check()?;
        let mut voxels = change(self.channel(0))?;
        let count = self.channels.len();
        if count > 1 {
            let out_of_memory = |_| Error::new(Kind::OutOfMemory, "the channels of a volume").at(Stage::Imaging);
            voxels.try_reserve_exact(voxels.len().saturating_mul(count - 1)).map_err(out_of_memory)?;
        }
        for channel in 1..count {
            voxels.extend_from_slice(&change(self.channel(channel))?);
        }
        let moved = Volume::with_channels(voxels, Arc::clone(&self.channels), geometry, &self.modality)?;
        Ok(Volume { body_part: self.body_part.clone(), ..moved })
    }

    /// Checks that the voxels fill the grid once for each channel.
    ///
    /// # Errors
    /// [`Kind::VolumeInvalid`] when they do not, or when the grid has no volume.
    pub(crate) fn check(&self) -> Result<()> {
        let count = self.channels.len();
        if count == 0 || !self.voxels.len().is_multiple_of(count) {
            return Err(Error::new(Kind::VolumeInvalid, "the voxels do not fill the channels"));
        }
        grid::check(&self.geometry, self.voxels.len() / count)
    }

    /// All voxels: column fastest, then row, then slice, then channel.
    pub fn voxels(&self) -> &[f32] {
        &self.voxels
    }

    /// What each channel is; one without marks for a plain volume.
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// Voxels of a channel: column fastest, then row, then slice; none beyond the last channel.
    pub fn channel(&self, index: usize) -> &[f32] {
        let size = self.voxels.len() / self.channels.len().max(1);
        self.voxels.get(index * size..(index + 1) * size).unwrap_or_default()
    }

    /// Grid.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Modality (MR, CT, ...).
    pub fn modality(&self) -> &str {
        &self.modality
    }

    /// The volume as it was loaded: itself, unless [`preprocess`] changed it.
    pub fn raw(&self) -> &Volume {
        self.raw.as_deref().unwrap_or(self)
    }
}

#[cfg(test)]
mod resample_tests;
#[cfg(test)]
mod tests;
