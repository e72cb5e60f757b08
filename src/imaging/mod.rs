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
pub mod grid;
pub mod normalize;
pub mod orient;
pub mod resample;

use std::sync::Arc;
use std::time::Instant;

use crate::control::Control;
use crate::deid::ReleasedStudy;
pub use crate::deid::{Channel, Finding, Frames, Geometry, Mark, Verdict};
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::resample::Interpolation;

/// Percentiles between which `zscore` clips first: a few very bright voxels (vessels, metal, noise at the coil) must not set the scale.
const CLIP_PERCENTILES: [f64; 2] = [0.5, 99.5];

/// Voxels on a grid: column fastest, then row, then slice, then channel. Clones share the voxels until one writes.
#[derive(Clone)]
pub struct Volume {
    pub(crate) voxels: Arc<Vec<f32>>,
    /// What each channel is; at least one.
    pub(crate) channels: Arc<[Channel]>,
    pub(crate) geometry: Geometry,
    pub(crate) modality: String,
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
        let volume = Volume { voxels: Arc::new(voxels), channels, geometry, modality: modality.to_owned(), raw: None };
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
        Volume::with_channels(voxels, Arc::clone(&self.channels), geometry, &self.modality)
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

/// Preprocessing as configured (`preprocess.*`).
#[derive(Clone, Debug)]
pub struct Recipe {
    /// `none` or `zscore` (after clipping to the 0.5 and 99.5 percentiles).
    pub normalize: String,
    /// `none`; others are a clear error until they exist.
    pub denoise: String,
    /// `none`; `n4` is a clear error until it exists.
    pub bias_correction: String,
    /// Isotropic spacing to resample to, mm; `None` keeps the grid.
    pub spacing_mm: Option<f64>,
}

/// One step that really ran.
#[derive(Clone, Debug)]
pub struct Step {
    /// Name (`percentile_clip`, `zscore`, `resample`).
    pub name: &'static str,
    /// Parameters and measured values; `channel`, from 0, where there are several.
    pub parameters: Vec<(&'static str, f64)>,
    /// Seconds.
    pub seconds: f64,
}

/// Runs a recipe: resampling first, intensities last, so that their statistics are those of the voxels that leave.
///
/// Returns the volume and the steps that really ran. A resampling to the spacing that the volume has already does nothing and is not
/// recorded.
///
/// # Errors
/// [`Kind::VolumeInvalid`] for an empty volume or one with NaN or infinite voxels, whatever the recipe; [`Kind::VolumeConstant`] when there
/// is nothing to normalize; [`Kind::ConfigInvalidValue`] for an unknown word; [`Kind::Unsupported`] for a step that this build lacks.
pub fn preprocess(volume: Volume, recipe: &Recipe, control: &Control) -> Result<(Volume, Vec<Step>)> {
    // The whole recipe is judged before the first voxel changes: an error must not come after minutes of work.
    let zscore = match recipe.normalize.as_str() {
        "none" => false,
        "zscore" => true,
        _ => return Err(Error::new(Kind::ConfigInvalidValue, "preprocess.normalize").with_hint("none or zscore").at(Stage::Imaging)),
    };
    refuse_missing(&recipe.denoise, "nlm", "preprocess.denoise", "preprocess.denoise nlm is not built in")?;
    refuse_missing(&recipe.bias_correction, "n4", "preprocess.bias_correction", "preprocess.bias_correction n4 is not built in")?;
    volume.check()?;
    normalize::check_finite(&volume.voxels)?;
    control.check()?;

    let original = volume.clone();
    let mut volume = volume;
    let mut steps = Vec::new();
    control.progress("preprocess", 0.0);
    if let Some(spacing_mm) = recipe.spacing_mm {
        let started = Instant::now();
        if let Some(resampled) = resample::to_spacing(&volume, [spacing_mm; 3], Interpolation::Linear, control)? {
            volume = resampled;
            let [columns, rows, slices] = volume.geometry.dims.map(|n| n as f64);
            let parameters = vec![("spacing_mm", spacing_mm), ("columns", columns), ("rows", rows), ("slices", slices)];
            steps.push(Step { name: "resample", parameters, seconds: started.elapsed().as_secs_f64() });
        }
    }
    control.progress("preprocess", 0.5);
    if zscore {
        let count = volume.channels.len();
        // Clones share voxels: the study's own stay as they were, because `make_mut` copies when somebody else holds them.
        let voxels = Arc::make_mut(&mut volume.voxels);
        let size = voxels.len() / count;
        for (channel, voxels) in voxels.chunks_mut(size.max(1)).enumerate() {
            // Each channel has a scale of its own; of several the step says which it was.
            steps.extend(clip_and_zscore(voxels, (count > 1).then_some(channel), control)?);
        }
    }
    if !steps.is_empty() {
        volume.raw = Some(Arc::new(original));
    }
    control.progress("preprocess", 1.0);
    Ok((volume, steps))
}

/// `none` passes; the one known method is not there yet; anything else is a misspelling.
fn refuse_missing(word: &str, known: &str, key: &'static str, missing: &'static str) -> Result<()> {
    match word {
        "none" => Ok(()),
        word if word == known => Err(Error::new(Kind::Unsupported, missing).with_hint("set the key to none").at(Stage::Imaging)),
        _ => Err(Error::new(Kind::ConfigInvalidValue, key).with_hint("none is the only value in this build").at(Stage::Imaging)),
    }
}

fn clip_and_zscore(voxels: &mut [f32], channel: Option<usize>, control: &Control) -> Result<[Step; 2]> {
    let started = Instant::now();
    let limits = normalize::percentiles(voxels, &CLIP_PERCENTILES)?;
    let [low, high] = [limits[0], limits[1]];
    let channel = channel.map(|channel| ("channel", channel as f64));
    normalize::clamp(voxels, low as f32, high as f32);
    let clip = Step {
        name: "percentile_clip",
        parameters: vec![
            ("lower_percentile", CLIP_PERCENTILES[0]),
            ("upper_percentile", CLIP_PERCENTILES[1]),
            ("lower_value", low),
            ("upper_value", high),
        ]
        .into_iter()
        .chain(channel)
        .collect(),
        seconds: started.elapsed().as_secs_f64(),
    };
    control.check()?;
    let started = Instant::now();
    let moments = normalize::zscore(voxels, normalize::Over::All, 0)?;
    let parameters = [("mean", moments.mean), ("std", moments.std)].into_iter().chain(channel).collect();
    let zscore = Step { name: "zscore", parameters, seconds: started.elapsed().as_secs_f64() };
    Ok([clip, zscore])
}

#[cfg(test)]
mod tests;
