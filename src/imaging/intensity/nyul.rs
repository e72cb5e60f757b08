//! Landmark standardisation: percentiles of a volume are moved to where they lie, on average, in a set of volumes.
//!
//! After L. G. Nyúl and J. K. Udupa, On standardizing the MR image intensity scale, Magnetic Resonance in Medicine 42(6), 1999, with the
//! decile landmarks of L. G. Nyúl, J. K. Udupa and X. Zhang, New variants of a method of MRI scale standardization, IEEE TMI 19(2), 2000,
//! as `NyulNormalizer` of the Python package intensity-normalization 3.0.1 defines it: percentiles are those of the voxels of a mask, or
//! without one of those above 0; a volume's landmarks are scaled so that its first and last percentile become the ends of the standard
//! scale, and averaged over the volumes. A volume is then mapped by straight lines between its own landmarks and the standard ones, and the
//! outermost lines go on beyond the outermost landmarks.
//!
//! Where that package divides by 0, because a volume's first or last two landmarks are equal, the nearest line with a slope goes on.

use serde::{Deserialize, Serialize};

use super::foreground;
use super::piecewise::{Knot, Line, Map};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::normalize;

/// Most landmarks of a scale.
const MOST: usize = 256;

/// A standard scale: which percentiles lie where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Landmarks {
    /// Percentiles, 0 to 100, ascending; 2 to 256.
    pub percentiles: Vec<f64>,
    /// Standard intensity of each percentile, not descending; as many.
    pub values: Vec<f64>,
}

impl Landmarks {
    /// Checks that this is a scale.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`].
    pub fn check(&self) -> Result<()> {
        check_percentiles(&self.percentiles)?;
        let ascends = self.values.windows(2).all(|pair| matches!(pair, [a, b] if a <= b));
        if self.values.len() != self.percentiles.len() || !ascends || self.values.iter().any(|value| !value.is_finite()) {
            return Err(wrong("the standard intensities do not ascend with the percentiles"));
        }
        Ok(())
    }
}

/// What a scale is trained with.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Percentiles, 0 to 100, ascending; 2 to 256.
    pub percentiles: Vec<f64>,
    /// Standard intensity of the first percentile.
    pub low: f64,
    /// Standard intensity of the last percentile, above that of the first.
    pub high: f64,
}

impl Default for Parameters {
    fn default() -> Parameters {
        let percentiles = vec![1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0];
        Parameters { percentiles, low: 1.0, high: 100.0 }
    }
}

/// Trains a standard scale from volumes, each with its mask or `None` for the voxels above 0. Volumes are looked at one after the other, so
/// an iterator may load them as it goes.
///
/// # Errors
/// [`Kind::InvalidArgument`] for parameters outside their ranges, no volume, or a mask of another size; [`Kind::MaskEmpty`] when a volume
/// has no voxel that counts; [`Kind::VolumeInvalid`] when one that counts is not finite; [`Kind::VolumeConstant`] when a volume's first and
/// last percentile are equal; [`Kind::Cancelled`]. Errors of a volume say which.
pub fn train<V: AsRef<[f32]>, M: AsRef<[u8]>>(
    volumes: impl IntoIterator<Item = (V, Option<M>)>,
    parameters: &Parameters,
    control: &Control,
) -> Result<Landmarks> {
    check_percentiles(&parameters.percentiles)?;
    if !(parameters.low.is_finite() && parameters.high.is_finite() && parameters.low < parameters.high) {
        return Err(wrong("the standard scale's ends do not ascend"));
    }
    let (mut values, mut count) = (vec![0.0; parameters.percentiles.len()], 0usize);
    for (voxels, mask) in volumes {
        control.check()?;
        let own = measure(voxels.as_ref(), mask.as_ref().map(AsRef::as_ref), &parameters.percentiles)
            .map_err(|error| error.within(&format!("volume {}", count + 1)))?;
        let (Some(from), Some(to)) = (own.first(), own.last()) else { continue };
        if from >= to {
            return Err(Error::new(Kind::VolumeConstant, format!("volume {}: its outermost percentiles are equal", count + 1)));
        }
        let slope = (parameters.high - parameters.low) / (to - from);
        values.iter_mut().zip(&own).for_each(|(value, own)| *value += parameters.low + (own - from) * slope);
        count += 1;
    }
    if count == 0 {
        return Err(wrong("no volume to train a standard scale from"));
    }
    values.iter_mut().for_each(|value| *value /= count as f64);
    Ok(Landmarks { percentiles: parameters.percentiles.clone(), values })
}

/// Moves a volume to a standard scale. Percentiles are those of the mask, or without one of the voxels above 0; every voxel is mapped.
/// Returns the volume's own landmarks. Progress is that of the stage "preprocess".
///
/// # Errors
/// [`Kind::InvalidArgument`] for landmarks that are not a scale or a mask of another size; [`Kind::MaskEmpty`]; [`Kind::VolumeInvalid`] when
/// a voxel is not finite; [`Kind::VolumeConstant`] when all landmarks of the volume are equal; [`Kind::Cancelled`], after which voxels are
/// partly mapped.
pub fn apply(voxels: &mut [f32], mask: Option<&[u8]>, landmarks: &Landmarks, control: &Control) -> Result<Vec<f64>> {
    landmarks.check()?;
    normalize::check_finite(voxels)?;
    control.check()?;
    let own = measure(voxels, mask, &landmarks.percentiles)?;
    control.check()?;
    let mut lines: Vec<Option<Line>> = own
        .windows(2)
        .zip(landmarks.values.windows(2))
        .map(|pair| match pair {
            ([x, next], [y, above]) if next > x => Some(Line { x: *x, y: *y, slope: (above - y) / (next - x) }),
            _ => None,
        })
        .collect();
    let sloped = || Error::new(Kind::VolumeConstant, "all percentiles are equal");
    let first = lines.iter().flatten().next().copied().ok_or_else(sloped)?;
    let last = lines.iter().flatten().next_back().copied().ok_or_else(sloped)?;
    // No voxel falls between equal landmarks, but those beyond the outermost take a line; hence each gap takes the one before.
    let mut before = first;
    let inner = lines.iter_mut().map(|line| {
        before = line.unwrap_or(before);
        before
    });
    let lines: Vec<Line> = [first].into_iter().chain(inner.collect::<Vec<Line>>()).chain([last]).collect();
    Map::new(&own, Knot::Below, lines).apply(voxels, control)?;
    Ok(own)
}

fn measure(voxels: &[f32], mask: Option<&[u8]>, percentiles: &[f64]) -> Result<Vec<f64>> {
    normalize::percentiles_over(voxels, foreground(mask), percentiles)
}

fn check_percentiles(percentiles: &[f64]) -> Result<()> {
    let ascends = percentiles.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
    let within = percentiles.iter().all(|q| (0.0..=100.0).contains(q));
    if !(2..=MOST).contains(&percentiles.len()) || !ascends || !within {
        return Err(wrong("the percentiles are not 2 to 256 that ascend from 0 to 100"));
    }
    Ok(())
}

fn wrong(detail: &'static str) -> Error {
    Error::new(Kind::InvalidArgument, detail).at(Stage::Imaging)
}
