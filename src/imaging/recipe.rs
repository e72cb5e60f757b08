//! The recipe of preprocessing (`preprocess.*`): which steps, in which order, and what is told about them.
//!
//! Bias and noise belong to the grid on which the scanner measured, so they go first; resampling follows; intensities come last, so that their statistics are those
//! of the voxels that leave. Each channel is treated by itself.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::resample::{self, Interpolation};
use super::{Volume, n4, nlm, normalize};
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

/// How noise is taken away (`preprocess.denoise`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Denoising {
    /// Not at all.
    #[default]
    None,
    /// Non-local means, of magnitudes: volumes without negative voxels. The noise of MR counts as Rician.
    Nlm {
        /// Standard deviation of the noise, in the voxels' unit; `None` estimates it.
        sigma: Option<f64>,
    },
}

impl Denoising {
    /// Reads `none` or `nlm`.
    ///
    /// # Errors
    /// [`Kind::ConfigInvalidValue`] for another word.
    pub fn from_name(name: &str, sigma: Option<f64>) -> Result<Denoising> {
        match name {
            "none" => Ok(Denoising::None),
            "nlm" => Ok(Denoising::Nlm { sigma }),
            _ => Err(wrong("preprocess.denoise", "none or nlm")),
        }
    }
}

/// How the coils' sensitivity is taken out of MR volumes (`preprocess.bias_correction`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BiasCorrection {
    /// Not at all.
    #[default]
    None,
    /// N4 at full resolution with ITK's parameters, over the voxels above Otsu's threshold.
    N4,
}

impl BiasCorrection {
    /// Reads `none` or `n4`.
    ///
    /// # Errors
    /// [`Kind::ConfigInvalidValue`] for another word.
    pub fn from_name(name: &str) -> Result<BiasCorrection> {
        match name {
            "none" => Ok(BiasCorrection::None),
            "n4" => Ok(BiasCorrection::N4),
            _ => Err(wrong("preprocess.bias_correction", "none or n4")),
        }
    }
}

/// Preprocessing as configured (`preprocess.*`). The default changes nothing.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How the coils' sensitivity is taken out.
    pub bias_correction: BiasCorrection,
    /// How noise is taken away.
    pub denoise: Denoising,
    /// Isotropic spacing to resample to, mm; `None` keeps the grid.
    pub spacing_mm: Option<f64>,
    /// How values between voxels are found.
    pub interpolation: Interpolation,
    /// How intensities are scaled.
    pub normalize: Normalization,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            bias_correction: BiasCorrection::None,
            denoise: Denoising::None,
            spacing_mm: None,
            interpolation: Interpolation::Linear,
            normalize: Normalization::None,
        }
    }
}

/// One step that really ran.
#[derive(Clone, Debug)]
pub struct Step {
    /// Name (`n4`, `nlm`, `resample`, `percentile_clip`, `zscore`, `minmax`).
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
/// is nothing to normalize or to correct; [`Kind::InvalidArgument`] for a step that the volume is not made for: n4 of anything but MR, nlm of
/// negative voxels or of fewer than four voxels along an axis.
pub fn preprocess(volume: Volume, recipe: &Recipe, control: &Control) -> Result<(Volume, Vec<Step>)> {
    // The whole recipe is judged before the first voxel changes: an error must not come after minutes of work.
    volume.check()?;
    normalize::check_finite(&volume.voxels)?;
    refuse_unfit(&volume, recipe)?;
    control.check()?;

    let original = volume.clone();
    let mut volume = volume;
    let mut steps = Vec::new();
    control.progress("preprocess", 0.0);
    let (dims, spacing) = (volume.geometry.dims, volume.geometry.spacing_mm);
    if recipe.bias_correction == BiasCorrection::N4 {
        for_each_channel(&mut volume, |share, channel, voxels| {
            let started = Instant::now();
            let part = control.within("preprocess", 0.4 * share.start, 0.4 * share.end);
            let report = n4::correct(voxels, dims, spacing, None, &n4::Parameters::default(), &part)?;
            let iterations = report.iterations.iter().sum::<usize>() as f64;
            let parameters = [
                ("levels", report.iterations.len() as f64),
                ("iterations", iterations),
                ("convergence", report.convergence.last().copied().unwrap_or_default()),
                ("mask_voxels", report.mask_voxels as f64),
            ];
            steps.push(step("n4", &parameters, channel, started));
            Ok(())
        })?;
    }
    if let Denoising::Nlm { sigma } = recipe.denoise {
        let parameters = nlm::Parameters { sigma, is_rician: volume.modality == "MR", ..nlm::Parameters::default() };
        for_each_channel(&mut volume, |share, channel, voxels| {
            let started = Instant::now();
            let part = control.within("preprocess", 0.4 + 0.4 * share.start, 0.4 + 0.4 * share.end);
            let (denoised, report) = nlm::denoise(voxels, dims, None, &parameters, &part)?;
            voxels.copy_from_slice(&denoised);
            let told = [
                ("sigma", report.sigma),
                ("patch_radius", parameters.patch_radius as f64),
                ("block_radius", parameters.block_radius as f64),
                ("rician", f64::from(u8::from(parameters.is_rician))),
            ];
            steps.push(step("nlm", &told, channel, started));
            Ok(())
        })?;
    }
    if let Some(spacing_mm) = recipe.spacing_mm {
        let started = Instant::now();
        if let Some(resampled) = resample::to_spacing(&volume, [spacing_mm; 3], recipe.interpolation, control)? {
            volume = resampled;
            let [columns, rows, slices] = volume.geometry.dims.map(|n| n as f64);
            let parameters = vec![("spacing_mm", spacing_mm), ("columns", columns), ("rows", rows), ("slices", slices)];
            steps.push(Step { name: "resample", parameters, seconds: started.elapsed().as_secs_f64() });
        }
    }
    control.progress("preprocess", 0.9);
    if recipe.normalize != Normalization::None {
        for_each_channel(&mut volume, |_, channel, voxels| {
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

/// Changes the voxels of each channel: its share of the step, its number where there are several, its voxels.
fn for_each_channel(
    volume: &mut Volume,
    mut change: impl FnMut(Range<f64>, Option<(&'static str, f64)>, &mut [f32]) -> Result<()>,
) -> Result<()> {
    let count = volume.channels.len();
    // Clones share voxels: the study's own stay as they were, because `make_mut` copies when somebody else holds them.
    let voxels = Arc::make_mut(&mut volume.voxels);
    let size = voxels.len() / count.max(1);
    for (channel, voxels) in voxels.chunks_mut(size.max(1)).enumerate() {
        let share = channel as f64 / count as f64..(channel + 1) as f64 / count as f64;
        change(share, (count > 1).then_some(("channel", channel as f64)), voxels)?;
    }
    Ok(())
}

/// Says at once what would only fail, or do harm, after other steps.
fn refuse_unfit(volume: &Volume, recipe: &Recipe) -> Result<()> {
    let unfit =
        |detail: &'static str, hint: &'static str| Err(Error::new(Kind::InvalidArgument, detail).with_hint(hint).at(Stage::Imaging));
    if recipe.bias_correction == BiasCorrection::N4 && volume.modality != "MR" {
        return unfit("n4 corrects the bias field of mr volumes, and this is none", "set preprocess.bias_correction to none");
    }
    if recipe.denoise != Denoising::None && normalize::range(&volume.voxels).0 < 0.0 {
        return unfit("nlm is a filter for magnitudes, and voxels are negative", "set preprocess.denoise to none");
    }
    Ok(())
}

fn wrong(key: &'static str, hint: &'static str) -> Error {
    Error::new(Kind::ConfigInvalidValue, key).with_hint(hint).at(Stage::Imaging)
}

/// What is told of a step; of several channels also which it was.
fn step(name: &'static str, parameters: &[(&'static str, f64)], channel: Option<(&'static str, f64)>, started: Instant) -> Step {
    Step { name, parameters: parameters.iter().copied().chain(channel).collect(), seconds: started.elapsed().as_secs_f64() }
}

/// Each channel has a scale of its own; of several the step says which it was.
fn clip_and_scale(voxels: &mut [f32], how: Normalization, channel: Option<(&'static str, f64)>, control: &Control) -> Result<[Step; 2]> {
    let started = Instant::now();
    let limits = normalize::percentiles(voxels, &CLIP_PERCENTILES)?;
    let [low, high] = [limits[0], limits[1]];
    normalize::clamp(voxels, low as f32, high as f32);
    let [lower, upper] = CLIP_PERCENTILES;
    let clipped = [("lower_percentile", lower), ("upper_percentile", upper), ("lower_value", low), ("upper_value", high)];
    let clip = step("percentile_clip", &clipped, channel, started);
    control.check()?;
    let started = Instant::now();
    let scale = match how {
        Normalization::Minmax => {
            let (low, high) = normalize::minmax(voxels, 0.0, 1.0)?;
            step("minmax", &[("low", f64::from(low)), ("high", f64::from(high))], channel, started)
        }
        _ => {
            let moments = normalize::zscore(voxels, normalize::Over::All, 0)?;
            step("zscore", &[("mean", moments.mean), ("std", moments.std)], channel, started)
        }
    };
    Ok([clip, scale])
}
