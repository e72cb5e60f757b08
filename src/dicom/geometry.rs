//! Where the voxels are, and whether the slices really form one regular grid.
//!
//! A volume is only as good as its grid: a lost slice, two interleaved series or a tilted gantry give images that look right and
//! measure wrong. So the positions and orientations of all slices are held against one straight, evenly spaced stack, and a stack
//! that is none is refused with what is wrong and where. Coordinates are the patient's (LPS: x to the left, y to the back, z to the
//! head; mm), formulas those of PS3.3 section C.7.6.2.1.1.
//!
//! Slices are numbered from 1 in the direction of the normal (row cosines x column cosines).

use crate::error::{Error, Kind, Result};

/// What the positions of the slices say about the grid.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Equal steps along the normal.
    Uniform,
    /// One slice only; its spacing is its spacing between slices, else its thickness, else 1 mm.
    SingleSlice,
    /// One multi-frame instance with equal steps.
    MultiFrame,
}

/// The voxel grid, in the patient's coordinates (LPS, mm).
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// Columns, rows, slices.
    pub dims: [usize; 3],
    /// Distance between voxel centres along columns' index, rows' index, slices' index, mm.
    pub spacing_mm: [f64; 3],
    /// Row-major 4x4: (column, row, slice, 1) to LPS mm.
    pub affine_lps: [[f64; 4]; 4],
    /// How the grid was judged.
    pub verdict: Verdict,
}

/// What one slice says about itself.
#[derive(Clone, Default)]
pub(super) struct Plane {
    /// Number of its file, or of its frame.
    pub(super) number: usize,
    /// Image Position (Patient).
    pub(super) position: Option<[f64; 3]>,
    /// Image Orientation (Patient): row cosines, column cosines.
    pub(super) orientation: Option<[f64; 6]>,
    /// Pixel Spacing: between rows, between columns.
    pub(super) spacing: Option<[f64; 2]>,
    /// Spacing Between Slices, else Slice Thickness.
    pub(super) thickness: Option<f64>,
    /// Image Type says LOCALIZER.
    pub(super) is_localizer: bool,
}

/// How slices are called in messages.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Source {
    Files,
    Frames,
}

impl Source {
    fn one(self) -> &'static str {
        match self {
            Source::Files => "file",
            Source::Frames => "frame",
        }
    }
}

/// Largest difference of a direction cosine between slices of one orientation: scanners write 4 to 6 decimals.
const COSINE_TOLERANCE: f64 = 1e-4;
/// How far cosines may be from unit length and a right angle: a few files have 3 decimals.
const ORTHONORMAL_TOLERANCE: f64 = 2e-3;
/// Relative difference of pixel spacings that are the same number written with 5 digits.
const SPACING_TOLERANCE: f64 = 1e-4;
/// Positions are compared to 1 % of the step but never finer than 0.01 mm, because scanners round Image Position (Patient) to 2 decimals
/// or more.
const STEP_TOLERANCE: f64 = 0.01;
const POSITION_TOLERANCE_MM: f64 = 0.01;
/// A kilometre; beyond it a coordinate is damage, and squares of such numbers might overflow.
const FARTHEST_MM: f64 = 1e6;
/// Sideways drift per step beyond which a stack is sheared: 0.1 degrees, ten times what rounded cosines of 4 decimals make.
const TILT_TOLERANCE: f64 = 1.7e-3;

/// Judges a stack. Returns its grid and, for each slice of the grid, the index of its plane.
pub(super) fn judge(planes: &[Plane], rows: usize, columns: usize, source: Source) -> Result<(Geometry, Vec<usize>)> {
    let Some(first) = planes.first() else { return Err(Error::new(Kind::GeometryMissing, "no slice")) };
    agree(planes, source)?;
    if planes.len() == 1 {
        return single(first, rows, columns).map(|geometry| (geometry, vec![0]));
    }
    let missing = |what: &str, number: usize| Error::new(Kind::GeometryMissing, format!("{what} of {} {number}", source.one()));
    let orientation = first.orientation.ok_or_else(|| missing("orientation", first.number))?;
    let spacing = pixel_spacing(first)?.ok_or_else(|| missing("pixel spacing", first.number))?;
    let (row, column, normal) = axes(orientation)?;
    let mut placed = Vec::with_capacity(planes.len());
    for (index, plane) in planes.iter().enumerate() {
        let position = plane.position.ok_or_else(|| missing("position", plane.number))?;
        placed.push(Placed { index, number: plane.number, position, along: dot(position, normal) });
    }
    // Equal positions stay in the order of arrival, so that the message below does not depend on chance.
    placed.sort_by(|a, b| a.along.total_cmp(&b.along));
    let step = check_stack(&placed, normal, source)?;
    // The step is taken over the whole stack: rounding of single positions averages out.
    let origin = placed.first().map_or([0.0; 3], |slice| slice.position);
    let geometry = Geometry {
        dims: [columns, rows, placed.len()],
        spacing_mm: [spacing[1], spacing[0], length(step)],
        affine_lps: affine(scaled(row, spacing[1]), scaled(column, spacing[0]), step, origin),
        verdict: if source == Source::Frames { Verdict::MultiFrame } else { Verdict::Uniform },
    };
    Ok((geometry, placed.iter().map(|slice| slice.index).collect()))
}

/// A slice with its distance along the normal.
struct Placed {
    index: usize,
    number: usize,
    position: [f64; 3],
    along: f64,
}

/// One orientation, one pixel spacing.
fn agree(planes: &[Plane], source: Source) -> Result<()> {
    let Some(first) = planes.first() else { return Ok(()) };
    let differ = |what: &str, other: &Plane| {
        let detail = format!("{what} of {} {} and {} differ", source.one(), first.number, other.number);
        let error = Error::new(Kind::GeometryInconsistent, detail);
        match planes.iter().find(|plane| plane.is_localizer) {
            Some(plane) => error.with_hint(format!("{} {} is a localizer; leave it out of the series", source.one(), plane.number)),
            None => error,
        }
    };
    for plane in planes {
        let numbers = plane.position.iter().flatten().chain(plane.spacing.iter().flatten()).chain(plane.thickness.iter());
        if numbers.into_iter().any(|value| value.is_nan() || value.abs() > FARTHEST_MM) {
            let detail = format!("{} {} lies or reaches beyond {FARTHEST_MM} mm", source.one(), plane.number);
            return Err(Error::new(Kind::GeometryInconsistent, detail));
        }
        let same_direction = match (first.orientation, plane.orientation) {
            (Some(a), Some(b)) => a.iter().zip(b).all(|(a, b)| (a - b).abs() <= COSINE_TOLERANCE),
            (a, b) => a.is_none() == b.is_none(),
        };
        if !same_direction {
            return Err(differ("orientations", plane));
        }
        let same_spacing = match (first.spacing, plane.spacing) {
            (Some(a), Some(b)) => a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SPACING_TOLERANCE * a.abs()),
            (a, b) => a.is_none() == b.is_none(),
        };
        if !same_spacing {
            return Err(differ("pixel spacings", plane));
        }
    }
    Ok(())
}

/// The pixel spacing, if it is two positive numbers.
fn pixel_spacing(plane: &Plane) -> Result<Option<[f64; 2]>> {
    match plane.spacing {
        Some(spacing) if spacing.iter().any(|value| *value <= 0.0) => {
            Err(Error::new(Kind::GeometryInconsistent, "a pixel spacing is not positive"))
        }
        spacing => Ok(spacing),
    }
}

/// Row direction, column direction and normal, of unit length.
fn axes(orientation: [f64; 6]) -> Result<([f64; 3], [f64; 3], [f64; 3])> {
    let [a, b, c, d, e, f] = orientation;
    let (row, column) = ([a, b, c], [d, e, f]);
    // All zeros, and a row direction given twice, are the usual damage.
    let off = (length(row) - 1.0).abs().max((length(column) - 1.0).abs()).max(dot(row, column).abs());
    if off.is_nan() || off > ORTHONORMAL_TOLERANCE {
        return Err(Error::new(Kind::GeometryInconsistent, "the direction cosines are not two perpendicular directions"));
    }
    let normal = cross(row, column);
    Ok((row, column, scaled(normal, 1.0 / length(normal))))
}

/// Checks that slices sorted along the normal are evenly spaced on a line along it; returns the step from slice to slice.
fn check_stack(slices: &[Placed], normal: [f64; 3], source: Source) -> Result<[f64; 3]> {
    let (Some(first), Some(last)) = (slices.first(), slices.last()) else { return Err(Error::new(Kind::GeometryMissing, "no slice")) };
    let count = slices.len();
    let steps: Vec<f64> = slices.iter().zip(slices.iter().skip(1)).map(|(a, b)| b.along - a.along).collect();
    let median = typical(&steps);
    let tolerance = (STEP_TOLERANCE * median).max(POSITION_TOLERANCE_MM);
    doubled(slices, &steps, normal, tolerance, source)?;
    let step = scaled(minus(last.position, first.position), 1.0 / (count - 1) as f64);
    let sideways = length(minus(step, scaled(normal, dot(step, normal))));
    let tilt = sideways.atan2(dot(step, normal));
    // The drift must also exceed what rounded positions make, or a short stack of thin slices would look tilted.
    if tilt > TILT_TOLERANCE && sideways * (count - 1) as f64 > 2.0 * POSITION_TOLERANCE_MM {
        let detail =
            format!("the stack is sheared: each slice lies {:.1} degrees off the normal of the last (gantry tilt)", tilt.to_degrees());
        return Err(Error::new(Kind::GeometryInconsistent, detail).with_hint("resample the series to an upright grid at the sender"));
    }
    gaps(&steps, median, tolerance)?;
    // Two positions with an error of one tolerance each.
    let (least, most) = steps.iter().fold((f64::MAX, f64::MIN), |(least, most), step| (least.min(*step), most.max(*step)));
    if most - least > 2.0 * tolerance {
        return Err(Error::new(Kind::GeometryInconsistent, format!("steps between slices range from {least:.3} to {most:.3} mm")));
    }
    for (k, slice) in slices.iter().enumerate() {
        let off = length(minus(minus(slice.position, first.position), scaled(step, k as f64)));
        if off > tolerance {
            let detail = format!("slice {} ({} {}) lies {off:.3} mm off the line of the others", k + 1, source.one(), slice.number);
            return Err(Error::new(Kind::GeometryInconsistent, detail));
        }
    }
    Ok(step)
}

/// The lower median of the steps that are steps at all: with half of the slices lost or doubled it is still a real step.
fn typical(steps: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = steps.iter().copied().filter(|step| *step > POSITION_TOLERANCE_MM).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// Refuses slices that share a position, and slices that share a plane.
fn doubled(slices: &[Placed], steps: &[f64], normal: [f64; 3], tolerance: f64, source: Source) -> Result<()> {
    let pairs: Vec<(usize, &Placed, &Placed)> = steps
        .iter()
        .zip(slices.iter().zip(slices.iter().skip(1)))
        .enumerate()
        .filter(|(_, (step, _))| **step <= tolerance)
        .map(|(k, (_, (a, b)))| (k + 1, a, b))
        .collect();
    let Some((k, a, b)) = pairs.first() else { return Ok(()) };
    let apart = minus(b.position, a.position);
    let sideways = length(minus(apart, scaled(normal, dot(apart, normal))));
    let (total, kind) = (slices.len(), source.one());
    if sideways > tolerance {
        let detail = format!("slices {k} and {} ({kind}s {} and {}) lie in one plane, {sideways:.3} mm apart", k + 1, a.number, b.number);
        return Err(Error::new(Kind::GeometryInconsistent, detail));
    }
    let more = match pairs.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more pairs"),
    };
    let detail = format!("slices {k} and {} of {total} ({kind}s {} and {}) lie at one position{more}", k + 1, a.number, b.number);
    // Every position taken the same number of times is not an accident but several volumes in one series.
    let positions = total - pairs.len();
    let error = Error::new(Kind::SliceDoubled, detail);
    Err(match total.is_multiple_of(positions) {
        true if total / positions > 1 => {
            error.with_hint(format!("the series holds {} volumes (time points, echoes or b-values); send one of them", total / positions))
        }
        _ => error,
    })
}

/// Refuses steps that are whole multiples of the usual one: the slices between are missing.
fn gaps(steps: &[f64], median: f64, tolerance: f64) -> Result<()> {
    let mut missing = 0usize;
    let mut places = Vec::new();
    for (k, step) in steps.iter().enumerate() {
        let multiple = (step / median).round();
        if multiple >= 2.0 && (step - multiple * median).abs() <= tolerance * multiple {
            let lost = (multiple as usize).saturating_sub(1);
            missing = missing.saturating_add(lost);
            places.push(format!("{lost} after slice {}", k + 1));
        }
    }
    if missing == 0 {
        return Ok(());
    }
    // A message stays one line.
    let more = places.len().saturating_sub(4);
    places.truncate(4);
    let tail = if more > 0 { format!(", and {more} more gaps") } else { String::new() };
    Err(Error::new(Kind::SliceMissing, format!("{}{tail}", places.join(", "))))
}

/// One slice. Without a position or an orientation (radiographs) it lies at the origin, rows along x and columns along y.
fn single(plane: &Plane, rows: usize, columns: usize) -> Result<Geometry> {
    let spacing = pixel_spacing(plane)?.ok_or_else(|| Error::new(Kind::GeometryMissing, "pixel spacing"))?;
    let (row, column, normal) = axes(plane.orientation.unwrap_or([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))?;
    let thickness = plane.thickness.map(f64::abs).filter(|thickness| *thickness > 0.0).unwrap_or(1.0);
    let origin = plane.position.unwrap_or_default();
    Ok(Geometry {
        dims: [columns, rows, 1],
        spacing_mm: [spacing[1], spacing[0], thickness],
        affine_lps: affine(scaled(row, spacing[1]), scaled(column, spacing[0]), scaled(normal, thickness), origin),
        verdict: Verdict::SingleSlice,
    })
}

/// PS3.3 equation C.7.6.2.1-1: the column index runs along the row direction, the row index along the column direction.
fn affine(per_column: [f64; 3], per_row: [f64; 3], per_slice: [f64; 3], origin: [f64; 3]) -> [[f64; 4]; 4] {
    let [[a, b, c], [d, e, f], [g, h, i], [x, y, z]] = [per_column, per_row, per_slice, origin];
    [[a, d, g, x], [b, e, h, y], [c, f, i, z], [0.0, 0.0, 0.0, 1.0]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cross([a, b, c]: [f64; 3], [d, e, f]: [f64; 3]) -> [f64; 3] {
    [b * f - c * e, c * d - a * f, a * e - b * d]
}

fn length(vector: [f64; 3]) -> f64 {
    dot(vector, vector).sqrt()
}

fn scaled(vector: [f64; 3], factor: f64) -> [f64; 3] {
    vector.map(|value| value * factor)
}

fn minus([a, b, c]: [f64; 3], [d, e, f]: [f64; 3]) -> [f64; 3] {
    [a - d, b - e, c - f]
}
