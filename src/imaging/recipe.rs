//! The recipe of preprocessing (`preprocess.*`): which steps, in which order, and what is told about them.
//!
//! Bias and noise belong to the grid on which the scanner measured, so they go first; resampling follows; intensities come last, so that their statistics are those
//! of the voxels that leave. Each channel is treated by itself.

use std::sync::Arc;
use std::time::Instant;

use super::resample::{self, Interpolation};
use super::{Volume, normalize};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};

/// Percentiles between which intensities are clipped before they are scaled: a few very bright voxels (vessels, metal, noise at the coil) must not set the scale.
const CLIP_PERCENTILES: [f64; 2] = [0.5, 99.5];

/// How intensities are scaled (`preprocess.normalize`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalization {
    /// Not at all.
    #[default]
    None,
    /// Clipped to the 0.5 and 99.5 percentiles, then to mean 0 and standard deviation 1.
    Zscore,
    /// Clipped to the 0.5 and 99.5 percentiles, then to 0 to 1.
    Minmax,
}

impl Normalization {
    /// Reads `none`, `zscore` or `minmax`.
    ///
    /// # Errors
    /// [`Kind::ConfigInvalidValue`] for another word.
    pub fn from_name(name: &str) -> Result<Normalization> {
        match name {
            "none" => Ok(Normalization::None),
            "zscore" => Ok(Normalization::Zscore),
            "minmax" => Ok(Normalization::Minmax),
            _ => Err(wrong("preprocess.normalize", "none, zscore or minmax")),
        }
    }
}

/// Preprocessing as configured (`preprocess.*`).
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How intensities are scaled.
    pub normalize: Normalization,
    /// `none`; others are a clear error until they exist.
    pub denoise: String,
    /// `none`; `n4` is a clear error until it exists.
    pub bias_correction: String,
    /// Isotropic spacing to resample to, mm; `None` keeps the grid.
    pub spacing_mm: Option<f64>,
    /// How values between voxels are found.
    pub interpolation: Interpolation,
}

impl Default for Recipe {
    /// Nothing is changed.
    fn default() -> Recipe {
        Recipe {
            normalize: Normalization::None,
            denoise: "none".to_owned(),
            bias_correction: "none".to_owned(),
            spacing_mm: None,
            interpolation: Interpolation::Linear,
        }
    }
}

/// One step that really ran.
#[derive(Clone, Debug)]
pub struct Step {
    /// Name (`percentile_clip`, `zscore`, `minmax`, `resample`).
    pub name: &'static str,
    /// Parameters and measured values; `channel`, from 0, where there are several.
    pub parameters: Vec<(&'static str, f64)>,
    /// Seconds.
    pub seconds: f64,
}

/// Runs a recipe.
///
/// Returns the volume and the steps that really ran. A resampling to the spacing that the volume has already does nothing and is not
/// recorded.
///
/// # Errors
/// [`Kind::VolumeInvalid`] for an empty volume or one with NaN or infinite voxels, whatever the recipe; [`Kind::VolumeConstant`] when there
/// is nothing to normalize; [`Kind::ConfigInvalidValue`] for an unknown word; [`Kind::Unsupported`] for a step that this build lacks.
pub fn preprocess(volume: Volume, recipe: &Recipe, control: &Control) -> Result<(Volume, Vec<Step>)> {
    // The whole recipe is judged before the first voxel changes: an error must not come after minutes of work.
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
        if let Some(resampled) = resample::to_spacing(&volume, [spacing_mm; 3], recipe.interpolation, control)? {
            volume = resampled;
            let [columns, rows, slices] = volume.geometry.dims.map(|n| n as f64);
            let parameters = vec![("spacing_mm", spacing_mm), ("columns", columns), ("rows", rows), ("slices", slices)];
            steps.push(Step { name: "resample", parameters, seconds: started.elapsed().as_secs_f64() });
        }
    }
    control.progress("preprocess", 0.5);
    if recipe.normalize != Normalization::None {
        for_each_channel(&mut volume, |channel, voxels| {
            steps.extend(clip_and_scale(voxels, recipe.normalize, channel, control)?);
            Ok(())
        })?;
    }
    if !steps.is_empty() {
        volume.raw = Some(Arc::new(original));
    }
    control.progress("preprocess", 1.0);
    Ok((volume, steps))
}

/// Changes the voxels of each channel; its number is told where there are several.
fn for_each_channel(volume: &mut Volume, mut change: impl FnMut(Option<(&'static str, f64)>, &mut [f32]) -> Result<()>) -> Result<()> {
    let count = volume.channels.len();
    // Clones share voxels: the study's own stay as they were, because `make_mut` copies when somebody else holds them.
    let voxels = Arc::make_mut(&mut volume.voxels);
    let size = voxels.len() / count.max(1);
    for (channel, voxels) in voxels.chunks_mut(size.max(1)).enumerate() {
        change((count > 1).then_some(("channel", channel as f64)), voxels)?;
    }
    Ok(())
}

/// `none` passes; the one known method is not there yet; anything else is a misspelling.
fn refuse_missing(word: &str, known: &str, key: &'static str, missing: &'static str) -> Result<()> {
    match word {
        "none" => Ok(()),
        word if word == known => Err(Error::new(Kind::Unsupported, missing).with_hint("set the key to none").at(Stage::Imaging)),
        _ => Err(wrong(key, "none is the only value in this build")),
    }
}

fn wrong(key: &'static str, hint: &'static str) -> Error {
    Error::new(Kind::ConfigInvalidValue, key).with_hint(hint).at(Stage::Imaging)
}

/// Each channel has a scale of its own; of several the step says which it was.
fn clip_and_scale(voxels: &mut [f32], how: Normalization, channel: Option<(&'static str, f64)>, control: &Control) -> Result<[Step; 2]> {
    let step = |name, parameters: &[(&'static str, f64)], started: Instant| Step {
        name,
        parameters: parameters.iter().copied().chain(channel).collect(),
        seconds: started.elapsed().as_secs_f64(),
    };
    let started = Instant::now();
    let limits = normalize::percentiles(voxels, &CLIP_PERCENTILES)?;
    let [low, high] = [limits[0], limits[1]];
    normalize::clamp(voxels, low as f32, high as f32);
    let [lower, upper] = CLIP_PERCENTILES;
    let clipped = [("lower_percentile", lower), ("upper_percentile", upper), ("lower_value", low), ("upper_value", high)];
    let clip = step("percentile_clip", &clipped, started);
    control.check()?;
    let started = Instant::now();
    let scale = match how {
        Normalization::Minmax => {
            let (low, high) = normalize::minmax(voxels, 0.0, 1.0)?;
            step("minmax", &[("low", f64::from(low)), ("high", f64::from(high))], started)
        }
        _ => {
            let moments = normalize::zscore(voxels, normalize::Over::All, 0)?;
            step("zscore", &[("mean", moments.mean), ("std", moments.std)], started)
        }
    };
    Ok([clip, scale])
}
