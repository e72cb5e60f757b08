//! DICOM windows: the intensities of interest spread over an output range (PS3.3 C.11.2.1.2 and C.11.2.1.3).
//!
//! Formulas and the order of their arithmetic are the standard's, computed in float64 and rounded once to float32, as in
//! `pydicom.pixels.apply_windowing`. Voxels are those after the modality transformation: Hounsfield units for CT.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::normalize;

/// Voxels per piece of work.
const BLOCK: usize = 1 << 16;

/// VOI LUT Function (0028,1056).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// LINEAR, the default: PS3.3 C.11.2.1.2.1. The width counts grey levels, so its ends are half a level inside.
    Linear,
    /// LINEAR_EXACT: PS3.3 C.11.2.1.3.2.
    LinearExact,
    /// SIGMOID: PS3.3 C.11.2.1.3.1.
    Sigmoid,
}

impl Function {
    /// From the value of the attribute, in upper case without padding.
    pub fn from_name(name: &str) -> Option<Function> {
        match name {
            "LINEAR" => Some(Function::Linear),
            "LINEAR_EXACT" => Some(Function::LinearExact),
            "SIGMOID" => Some(Function::Sigmoid),
            _ => None,
        }
    }
}

/// A window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Function.
    pub function: Function,
    /// Window Center (0028,1050), in the voxels' unit.
    pub center: f64,
    /// Window Width (0028,1051), in the voxels' unit: at least 1 for [`Function::Linear`], else above 0.
    pub width: f64,
    /// Output for voxels below the window.
    pub low: f64,
    /// Output for voxels above the window; may be the smaller one, which inverts.
    pub high: f64,
}

/// Applies a window to every voxel. Progress is that of the stage "preprocess".
///
/// # Errors
/// [`Kind::InvalidArgument`] for a width outside its range or numbers that are not finite; [`Kind::VolumeInvalid`] for no voxels or some
/// that are NaN or infinite; [`Kind::Cancelled`], after which voxels are partly changed.
pub fn apply(voxels: &mut [f32], window: &Window, control: &Control) -> Result<()> {
    let least_fits = if window.function == Function::Linear { window.width >= 1.0 } else { window.width > 0.0 };
    let finite = [window.center, window.width, window.low, window.high].iter().all(|value| value.is_finite());
    if !(least_fits && finite && (window.high - window.low).is_finite()) {
        return Err(Error::new(Kind::InvalidArgument, "a window's width is too small, or a number of it not finite").at(Stage::Imaging));
    }
    normalize::check_finite(voxels)?;
    let (low, range) = (window.low, window.high - window.low);
    match window.function {
        Function::Linear => linear(voxels, window.center - 0.5, window.width - 1.0, window, control),
        Function::LinearExact => linear(voxels, window.center, window.width, window, control),
        Function::Sigmoid => {
            let (center, width) = (window.center, window.width);
            each(voxels, control, |x| range / (1.0 + (-4.0 * (x - center) / width).exp()) + low)
        }
    }
}

fn linear(voxels: &mut [f32], center: f64, width: f64, window: &Window, control: &Control) -> Result<()> {
    let (from, to) = (center - width / 2.0, center + width / 2.0);
    let (low, high, range) = (window.low, window.high, window.high - window.low);
    // A width of 0 leaves nothing between: the quotient, infinite or NaN, is then never chosen.
    each(voxels, control, |x| {
        let between = ((x - center) / width + 0.5) * range + low;
        let upper = if x > to { high } else { between };
        if x <= from { low } else { upper }
    })
}

fn each(voxels: &mut [f32], control: &Control, map: impl Fn(f64) -> f64 + Sync) -> Result<()> {
    let (blocks, done) = (voxels.len().div_ceil(BLOCK), AtomicUsize::new(0));
    voxels.par_chunks_mut(BLOCK).try_for_each(|block| {
        control.check()?;
        block.iter_mut().for_each(|value| *value = map(f64::from(*value)) as f32);
        control.progress("preprocess", (done.fetch_add(1, Ordering::Relaxed) + 1) as f64 / blocks as f64);
        Ok(())
    })
}
