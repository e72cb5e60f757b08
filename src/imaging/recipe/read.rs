//! Recipes as JSON: the same steps with the same keys in `preprocess.recipe` and in a model's contract (docs/preprocessing.md).

use super::operation::{NonLocalMeans, Operation, Region};
use crate::error::{Kind, Result};
use crate::imaging::filters::{diffusion, total_variation};
use crate::imaging::intensity::{clahe, matching, nyul, white_stripe, window};
use crate::imaging::n4;
use crate::imaging::orient::Orientation;
use crate::imaging::resample::Interpolation;
use crate::json::{self, Object};

/// Most steps of a recipe.
pub(crate) const MOST_STEPS: usize = 32;
/// Any number that a float32 voxel can hold.
const ANY: std::ops::RangeInclusive<f64> = -3.4e38..=3.4e38;

/// Words for regions.
const REGIONS: [(&str, Region); 3] = [("all", Region::All), ("nonzero", Region::Nonzero), ("foreground", Region::Foreground)];

/// Reads a recipe's file: `{"recipe": 1, "steps": [...]}`.
///
/// # Errors
/// [`Kind::ConfigInvalidValue`], with the key.
pub(super) fn document(bytes: &[u8]) -> Result<Vec<Operation>> {
    let value = json::parse(bytes, Kind::ConfigInvalidValue).map_err(|error| {
        let detail = format!("preprocess.recipe: {}", error.detail());
        crate::error::Error::new(error.kind(), detail)
    })?;
    let root = Object::new("preprocess.recipe", &value, Kind::ConfigInvalidValue)?;
    if root.required("recipe")?.as_u64() != Some(1) {
        return Err(root.wrong("recipe", "1, the version of the format that this build knows"));
    }
    root.required("steps")?;
    let steps = root.objects("steps", 0, MOST_STEPS)?.iter().map(step).collect();
    root.finish()?;
    steps
}

/// Reads one step.
///
/// # Errors
/// That of the document, with the key.
pub(crate) fn step(object: &Object) -> Result<Operation> {
    let operation = match object.text("step")?.as_str() {
        "n4" => n4(object)?,
        "nlm" => non_local_means(object)?,
        "gaussian" => Operation::Gaussian { sigma_mm: object.number("sigma_mm", 0.01..=100.0, None)? },
        "median" => Operation::Median { radius: object.whole("radius", 1..=3, Some(1))? as usize },
        "gradient_diffusion" => diffusion(object, diffusion::Kind::Gradient)?,
        "curvature_diffusion" => diffusion(object, diffusion::Kind::Curvature)?,
        "total_variation" => total_variation(object)?,
        "resample" => resample(object)?,
        "reorient" => {
            let code = object.text("orientation")?;
            let wrong = |_| object.wrong("orientation", "one letter each of R or L, A or P, S or I");
            Operation::Reorient(Orientation::parse(&code).map_err(wrong)?)
        }
        "fit" => Operation::Fit { shape: object.shape("shape")?, pad: object.number("pad_value", ANY, Some(0.0))? as f32 },
        "percentile_clip" => {
            let (lower, upper) = ordered(object, 0.0..=100.0, None)?;
            Operation::PercentileClip { lower, upper, over: object.word("over", &REGIONS, Some(Region::All))? }
        }
        "zscore" => Operation::Zscore {
            over: object.word("over", &REGIONS, Some(Region::All))?,
            ddof: usize::from(object.whole("ddof", 0..=1, Some(0))? == 1),
        },
        "minmax" => {
            let (low, high) = ordered(object, ANY, Some((0.0, 1.0)))?;
            Operation::Minmax { low, high }
        }
        "clamp" => {
            let (low, high) = ordered(object, ANY, None)?;
            Operation::Clamp { low, high }
        }
        "affine" => Operation::Affine { scale: object.number("scale", ANY, None)?, shift: object.number("shift", ANY, None)? },
        "window" => window(object)?,
        "nyul" => Operation::Nyul(landmarks(object)?),
        "white_stripe" => white_stripe(object)?,
        "match_histogram" => match_histogram(object)?,
        "clahe" => clahe(object)?,
        _ => {
            let known = "one of n4, nlm, gaussian, median, gradient_diffusion, curvature_diffusion, total_variation, resample, reorient, fit, \
                         percentile_clip, zscore, minmax, clamp, affine, window, nyul, white_stripe, match_histogram, clahe";
            return Err(object.wrong("step", known));
        }
    };
    object.finish()?;
    Ok(operation)
}

fn resample(object: &Object) -> Result<Operation> {
    let words = [("nearest", Interpolation::Nearest), ("linear", Interpolation::Linear), ("bspline", Interpolation::BSpline)];
    let interpolation = object.word("interpolation", &words, Some(Interpolation::Linear))?;
    let is_antialiased = object.truth("antialias", false)?;
    if is_antialiased && interpolation == Interpolation::Nearest {
        return Err(object.wrong("antialias", "false, since nearest voxels are not smoothed"));
    }
    Ok(Operation::Resample { spacing_mm: object.per_axis("spacing_mm", 0.01..=100.0)?, interpolation, is_antialiased })
}

/// `lo` and `hi`, which must differ in this order.
fn ordered(object: &Object, range: std::ops::RangeInclusive<f64>, default: Option<(f64, f64)>) -> Result<(f64, f64)> {
    let low = object.number("lo", range.clone(), default.map(|default| default.0))?;
    let high = object.number("hi", range, default.map(|default| default.1))?;
    if low < high { Ok((low, high)) } else { Err(object.wrong("lo", "less than hi")) }
}

fn n4(object: &Object) -> Result<Operation> {
    let usual = n4::Parameters::default();
    let levels = match object.optional("levels") {
        None => usual.levels.clone(),
        Some(_) => {
            let list = object.numbers("levels", 1, 8)?;
            let whole = |number: &f64| ((0.0..=10_000.0).contains(number) && number.fract() == 0.0).then_some(*number as usize);
            let levels: Option<Vec<usize>> = list.iter().map(whole).collect();
            levels.ok_or_else(|| object.wrong("levels", "whole numbers from 0 to 10000"))?
        }
    };
    Ok(Operation::N4(n4::Parameters {
        levels,
        convergence_threshold: object.number("convergence", 0.0..=1.0, Some(usual.convergence_threshold))?,
        bins: object.whole("bins", 2..=1024, Some(usual.bins as u64))? as usize,
        wiener_noise: object.number("wiener_noise", 1e-9..=10.0, Some(usual.wiener_noise))?,
        fwhm: object.number("fwhm", 1e-3..=10.0, Some(usual.fwhm))?,
        spline_order: usual.spline_order,
        control_points: [object.whole("control_points", 4..=67, Some(4))? as usize; 3],
        shrink: object.whole("shrink", 1..=16, Some(usual.shrink as u64))? as usize,
        itk_convergence: object.truth("itk_convergence", usual.itk_convergence)?,
    }))
}

fn non_local_means(object: &Object) -> Result<Operation> {
    let usual = NonLocalMeans::default();
    let sigma = match object.optional("sigma") {
        None => None,
        Some(_) => Some(object.number("sigma", 1e-9..=1e9, None)?),
    };
    let is_rician = match object.optional("rician") {
        None => None,
        Some(_) => Some(object.truth("rician", false)?),
    };
    let parameters = NonLocalMeans {
        patch_radius: object.whole("patch_radius", 0..=8, Some(usual.patch_radius as u64))? as usize,
        block_radius: object.whole("block_radius", 1..=16, Some(usual.block_radius as u64))? as usize,
        sigma,
        is_rician,
        is_blockwise: object.word("method", &[("classic", false), ("blockwise", true)], Some(false))?,
    };
    if parameters.block_radius < parameters.patch_radius {
        return Err(object.wrong("block_radius", "at least patch_radius"));
    }
    Ok(Operation::NonLocalMeans(parameters))
}

fn diffusion(object: &Object, kind: diffusion::Kind) -> Result<Operation> {
    let usual = diffusion::Parameters::of(kind);
    let is_step_limited = object.optional("time_step").is_none();
    let parameters = diffusion::Parameters {
        iterations: object.whole("iterations", 1..=1000, Some(usual.iterations as u64))? as usize,
        conductance: object.number("conductance", 1e-3..=100.0, Some(usual.conductance))?,
        time_step: object.number("time_step", 1e-6..=1e3, Some(usual.time_step))?,
        ..usual
    };
    Ok(Operation::Diffusion { parameters, is_step_limited })
}

fn total_variation(object: &Object) -> Result<Operation> {
    let usual = total_variation::Parameters::default();
    Ok(Operation::TotalVariation(total_variation::Parameters {
        weight: object.number("weight", 1e-6..=100.0, Some(usual.weight))?,
        iterations: object.whole("iterations", 1..=10_000, Some(usual.iterations as u64))? as usize,
        tolerance: object.number("tolerance", 0.0..=1.0, Some(usual.tolerance))?,
    }))
}

fn window(object: &Object) -> Result<Operation> {
    use window::Function;
    let words = [("linear", Function::Linear), ("linear_exact", Function::LinearExact), ("sigmoid", Function::Sigmoid)];
    let function = object.word("function", &words, Some(Function::Linear))?;
    let window = window::Window {
        function,
        center: object.number("center", ANY, None)?,
        width: object.number("width", 1e-6..=3.4e38, None)?,
        low: object.number("lo", ANY, Some(0.0))?,
        high: object.number("hi", ANY, Some(1.0))?,
    };
    if function == Function::Linear && window.width < 1.0 {
        return Err(object.wrong("width", "at least 1, since the function is linear"));
    }
    Ok(Operation::Window(window))
}

/// Ascending lists of landmarks: where percentiles lie on the standard scale.
fn landmarks(object: &Object) -> Result<nyul::Landmarks> {
    let landmarks = nyul::Landmarks { percentiles: object.numbers("percentiles", 2, 256)?, values: object.numbers("landmarks", 2, 256)? };
    landmarks.check().map_err(|_| object.wrong("landmarks", "as many as percentiles, which ascend from 0 to 100, and not descending"))?;
    Ok(landmarks)
}

fn white_stripe(object: &Object) -> Result<Operation> {
    use white_stripe::Peak;
    let words = [("t1", Peak::Last), ("t2", Peak::Largest), ("flair", Peak::Largest), ("pd", Peak::First)];
    let width = object.number("width", 1e-3..=0.5, Some(0.05))?;
    Ok(Operation::WhiteStripe(white_stripe::Parameters {
        width_below: width,
        width_above: width,
        ..white_stripe::Parameters::of(object.word("contrast", &words, None)?)
    }))
}

fn match_histogram(object: &Object) -> Result<Operation> {
    let quantiles = object.numbers("quantiles", 3, 257)?;
    let reference = matching::Reference {
        parameters: matching::Parameters {
            levels: object.whole("levels", 2..=65_536, Some(1024))? as usize,
            points: quantiles.len() - 2,
            is_above_mean: object.truth("above_mean", true)?,
        },
        smallest: object.number("smallest", ANY, None)?,
        quantiles,
    };
    reference.check().map_err(|_| object.wrong("quantiles", "numbers that do not descend and lie above smallest"))?;
    Ok(Operation::MatchHistogram(reference))
}

fn clahe(object: &Object) -> Result<Operation> {
    let kernel = if object.optional("kernel").is_some() { Some(object.shape("kernel")?) } else { None };
    let parameters = clahe::Parameters {
        kernel,
        clip_limit: object.number("clip_limit", 0.0..=1.0, Some(0.01))?,
        bins: object.whole("bins", 2..=16_384, Some(256))? as usize,
    };
    let is_3d = object.word("over", &[("slices", false), ("volume", true)], Some(false))?;
    Ok(Operation::Clahe { parameters, is_3d })
}
