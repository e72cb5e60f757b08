//! Recipes of preprocessing: which operations, in which order, with which parameters, and what is told about them.
//!
//! A recipe comes from the keys `preprocess.*` ([`Choices`], in a fixed order), from a file (`preprocess.recipe`) or from a model's contract;
//! the last two share one JSON form (`read`). Bias and noise belong to the grid on which the scanner measured, so the fixed order has them
//! first; resampling follows; intensities come last, so that their statistics are those of the voxels that leave. Each channel is treated by
//! itself.

mod operation;
mod read;
mod run;

use std::sync::Arc;

use super::resample::Interpolation;
use super::{Volume, n4, normalize};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::filters::{diffusion, total_variation};
use crate::imaging::intensity::white_stripe;
pub use operation::{NonLocalMeans, Operation, Region};
pub(crate) use read::{MOST_STEPS, step};
pub(crate) use run::change_intensities;

/// Percentiles between which intensities are clipped before they are scaled: a few very bright voxels (vessels, metal, noise at the coil) must not set the scale.
const CLIP_PERCENTILES: [f64; 2] = [0.5, 99.5];
/// Standard deviation of `preprocess.denoise = gaussian`, mm: about one voxel of a clinical volume.
const GAUSSIAN_MM: f64 = 1.0;
/// Largest recipe that is read.
const MAX_BYTES: usize = 1 << 20;

/// Operations in their order. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recipe {
    /// The operations.
    pub operations: Vec<Operation>,
}

/// The simple choices (`preprocess.*`), by their names. The default changes nothing.
#[derive(Clone, Debug)]
pub struct Choices {
    /// `none` or `n4`.
    pub bias_correction: String,
    /// `none`, `nlm`, `nlm_blockwise`, `gaussian`, `median`, `gradient_diffusion`, `curvature_diffusion` or `total_variation`.
    pub denoise: String,
    /// Standard deviation of the noise for nlm; `None` estimates it.
    pub noise_sigma: Option<f64>,
    /// Isotropic spacing to resample to, mm; `None` keeps the grid.
    pub spacing_mm: Option<f64>,
    /// How values between voxels are found.
    pub interpolation: Interpolation,
    /// Whether axes that shrink are smoothed first.
    pub antialias: bool,
    /// `none`, `zscore`, `minmax` or `white_stripe`.
    pub normalize: String,
    /// Voxels that the statistics of `normalize` are taken from: `all`, `nonzero` or `foreground`.
    pub region: String,
}

impl Default for Choices {
    fn default() -> Choices {
        let none = || "none".to_owned();
        Choices {
            bias_correction: none(),
            denoise: none(),
            noise_sigma: None,
            spacing_mm: None,
            interpolation: Interpolation::Linear,
            antialias: false,
            normalize: none(),
            region: "all".to_owned(),
        }
    }
}

impl Recipe {
    /// The recipe of simple choices: bias, noise, spacing, intensities.
    ///
    /// # Errors
    /// [`Kind::ConfigInvalidValue`], with the key, for a word that is none of the choices.
    pub fn of(choices: &Choices) -> Result<Recipe> {
        let mut operations = Vec::new();
        match choices.bias_correction.as_str() {
            "none" => {}
            "n4" => operations.push(Operation::N4(n4::Parameters::default())),
            _ => return Err(wrong("preprocess.bias_correction", "none or n4")),
        }
        let nlm = |is_blockwise| NonLocalMeans { sigma: choices.noise_sigma, is_blockwise, ..NonLocalMeans::default() };
        let diffused = |kind| Operation::Diffusion { parameters: diffusion::Parameters::of(kind), is_step_limited: true };
        match choices.denoise.as_str() {
            "none" => {}
            "nlm" => operations.push(Operation::NonLocalMeans(nlm(false))),
            "nlm_blockwise" => operations.push(Operation::NonLocalMeans(nlm(true))),
            "gaussian" => operations.push(Operation::Gaussian { sigma_mm: GAUSSIAN_MM }),
            "median" => operations.push(Operation::Median { radius: 1 }),
            "gradient_diffusion" => operations.push(diffused(diffusion::Kind::Gradient)),
            "curvature_diffusion" => operations.push(diffused(diffusion::Kind::Curvature)),
            "total_variation" => operations.push(Operation::TotalVariation(total_variation::Parameters::default())),
            _ => {
                let known = "none, nlm, nlm_blockwise, gaussian, median, gradient_diffusion, curvature_diffusion or total_variation";
                return Err(wrong("preprocess.denoise", known));
            }
        }
        if let Some(spacing_mm) = choices.spacing_mm {
            let (interpolation, is_antialiased) = (choices.interpolation, choices.antialias);
            if is_antialiased && interpolation == Interpolation::Nearest {
                return Err(wrong("preprocess.antialias", "false with preprocess.interpolation nearest, which is not smoothed"));
            }
            operations.push(Operation::Resample { spacing_mm: [spacing_mm; 3], interpolation, is_antialiased });
        }
        let over = match choices.region.as_str() {
            "all" => Region::All,
            "nonzero" => Region::Nonzero,
            "foreground" => Region::Foreground,
            _ => return Err(wrong("preprocess.region", "all, nonzero or foreground")),
        };
        let [lower, upper] = CLIP_PERCENTILES;
        let clip = Operation::PercentileClip { lower, upper, over };
        match choices.normalize.as_str() {
            "none" => {}
            "zscore" => operations.extend([clip, Operation::Zscore { over, ddof: 0 }]),
            "minmax" => operations.extend([clip, Operation::Minmax { low: 0.0, high: 1.0 }]),
            "white_stripe" => operations.push(Operation::WhiteStripe(white_stripe::Parameters::of(white_stripe::Peak::Last))),
            _ => return Err(wrong("preprocess.normalize", "none, zscore, minmax or white_stripe")),
        }
        Ok(Recipe { operations })
    }

    /// Reads a recipe's JSON (docs/preprocessing.md): `{"recipe": 1, "steps": [{"step": "n4"}, ...]}`.
    ///
    /// # Errors
    /// [`Kind::ConfigInvalidValue`], with the key.
    pub fn from_json(bytes: &[u8]) -> Result<Recipe> {
        if bytes.len() > MAX_BYTES {
            return Err(wrong("preprocess.recipe", "a file of at most 1 MiB"));
        }
        Ok(Recipe { operations: read::document(bytes)? })
    }
}

/// One step that really ran.
#[derive(Clone, Debug)]
pub struct Step {
    /// Name of the operation ([`Operation::name`]).
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
/// is nothing to normalize or to correct; [`Kind::MaskEmpty`] when a region holds no voxel; [`Kind::InvalidArgument`] for a step that the
/// volume is not made for: n4 of anything but MR, nlm of negative voxels or of fewer than four voxels along an axis.
pub fn preprocess(volume: Volume, recipe: &Recipe, control: &Control) -> Result<(Volume, Vec<Step>)> {
    // The whole recipe is judged before the first voxel changes: an error must not come after minutes of work.
    volume.check()?;
    normalize::check_finite(&volume.voxels)?;
    operation::refuse_unfit(&volume, &recipe.operations)?;
    control.check()?;

    let original = volume.clone();
    let mut volume = volume;
    let mut steps = Vec::new();
    control.progress("preprocess", 0.0);
    let total: f64 = recipe.operations.iter().map(Operation::weight).sum();
    let mut before = 0.0;
    for operation in &recipe.operations {
        control.check()?;
        let after = before + operation.weight();
        run::run(&mut volume, operation, &mut steps, &control.within("preprocess", before / total, after / total))?;
        before = after;
    }
    // Numbers of a recipe can leave the range of float32; what leaves this function is finite.
    if !steps.is_empty() {
        normalize::check_finite(&volume.voxels)?;
        volume.raw = Some(Arc::new(original));
    }
    control.progress("preprocess", 1.0);
    Ok((volume, steps))
}

fn wrong(key: &'static str, hint: &'static str) -> Error {
    Error::new(Kind::ConfigInvalidValue, key).with_hint(hint).at(Stage::Imaging)
}
