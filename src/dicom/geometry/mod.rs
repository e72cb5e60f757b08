//! Where the voxels are, and whether the slices really form one regular grid.
//!
//! A volume is only as good as its grid: a lost slice, two interleaved series or a tilted gantry give images that look right and
//! measure wrong. So the positions and orientations of all slices are held against one straight, evenly spaced stack (`stack`), and a stack
//! that is none is refused with what is wrong and where, or made into one where the [`Policy`] says so (`upright`). Coordinates are the patient's (LPS: x to the left, y to the back, z to the
//! head; mm), formulas those of PS3.3 section C.7.6.2.1.1.
//!
//! Slices are numbered from 1 in the direction of the normal (row cosines x column cosines). Where each position is taken by as many slices
//! as any other, they are several volumes on one grid, and become its channels if their headers tell them apart (`channels`).

mod channels;
mod stack;
mod upright;

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};

pub use channels::{Channel, Mark};
pub(super) use channels::{Marks, Value};
pub use upright::Frames;
pub(crate) use upright::Upright;

/// What is done about a stack that is no grid (`geometry.*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The study is refused.
    Refuse,
    /// A grid is made by interpolation, and the verdict says so.
    Resample,
}

/// What is done about each fault of a stack.
#[derive(Clone, Debug)]
pub struct Policy {
    /// A tilted gantry: slices that are shifted against each other evenly.
    pub tilt: Remedy,
    /// Steps of different lengths.
    pub spacing: Remedy,
    /// Missing slices.
    pub gaps: Remedy,
    /// Whether of several stacks in one series (localizers, orientations, matrices) the largest is taken.
    pub takes_largest: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { tilt: Remedy::Resample, spacing: Remedy::Refuse, gaps: Remedy::Refuse, takes_largest: false }
    }
}

/// Why slices are no grid as they are.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Each slice lies this many degrees off the normal of the last.
    GantryTilt {
        /// Angle between the normal and the line of the slices.
        degrees: f64,
    },
    /// Slices are missing.
    Gaps {
        /// After which slice, counted from 1, and how many.
        missing: Vec<(usize, usize)>,
    },
    /// The steps differ.
    VariableSpacing {
        /// Shortest step, mm.
        least_mm: f64,
        /// Longest step, mm.
        most_mm: f64,
    },
}

/// What was made into a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Resampled {
    /// Why; at least one.
    pub findings: Vec<Finding>,
    /// Where the frames lie from which the grid was made.
    pub frames: Frames,
}

/// What the positions of the slices say about the grid.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Equal steps along the normal.
    Uniform,
    /// One slice only; its spacing is its spacing between slices, else its thickness, else 1 mm.
    SingleSlice,
    /// One multi-frame instance with equal steps.
    MultiFrame,
    /// No grid as it came; made into one by interpolation.
    Resampled(Arc<Resampled>),
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
    /// How messages call it.
    pub(super) name: Name,
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

impl Plane {
    /// Whether two slices have one orientation, or neither has any.
    pub(super) fn is_parallel_to(&self, other: &Plane) -> bool {
        match (self.orientation, other.orientation) {
            (Some(a), Some(b)) => a.iter().zip(b).all(|(a, b)| (a - b).abs() <= COSINE_TOLERANCE),
            (a, b) => a.is_none() == b.is_none(),
        }
    }

    /// Whether two slices have one pixel spacing, or neither has any.
    pub(super) fn is_spaced_as(&self, other: &Plane) -> bool {
        match (self.spacing, other.spacing) {
            (Some(a), Some(b)) => a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SPACING_TOLERANCE * a.abs()),
            (a, b) => a.is_none() == b.is_none(),
        }
    }
}

/// How a slice is called in messages: by its file, by its frame where there is one file, or by both; numbers count from 1.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) struct Name {
    pub(super) file: Option<usize>,
    pub(super) frame: Option<usize>,
}

impl Name {
    /// Two slices: `files 3 and 5`.
    fn and(self, other: Name) -> String {
        match (self, other) {
            (Name { file: Some(a), frame: None }, Name { file: Some(b), frame: None }) => format!("files {a} and {b}"),
            (Name { file: None, frame: Some(a) }, Name { file: None, frame: Some(b) }) => format!("frames {a} and {b}"),
            (a, b) => format!("{a} and {b}"),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file, self.frame) {
            (Some(file), Some(frame)) => write!(formatter, "frame {frame} of file {file}"),
            (None, Some(frame)) => write!(formatter, "frame {frame}"),
            (file, None) => write!(formatter, "file {}", file.unwrap_or_default()),
        }
    }
}

/// Largest difference of a direction cosine between slices of one orientation: scanners write 4 to 6 decimals.
const COSINE_TOLERANCE: f64 = 1e-4;
/// How far cosines may be from unit length and a right angle: a few files have 3 decimals.
const ORTHONORMAL_TOLERANCE: f64 = 2e-3;
/// Relative difference of pixel spacings that are the same number written with 5 digits.
const SPACING_TOLERANCE: f64 = 1e-4;
/// A kilometre; beyond it a coordinate is damage, and squares of such numbers might overflow.
const FARTHEST_MM: f64 = 1e6;
/// A stack that was judged.
pub(super) struct Judged {
    pub(super) geometry: Geometry,
    /// For each channel, then for each frame in slice order, the index of its plane.
    pub(super) order: Vec<usize>,
    /// What tells the channels apart; one of no marks when there is one volume.
    pub(super) channels: Vec<Channel>,
    /// How the grid is made from the frames, where they are none.
    pub(super) upright: Option<Upright>,
}

/// Judges the slices of one series. `is_one_image` says that all are frames of one instance; `marks` reads what tells slices at one position
/// apart, and is asked only where positions are shared.
pub(super) fn judge(
    planes: &[Plane],
    [rows, columns]: [usize; 2],
    is_one_image: bool,
    policy: &Policy,
    marks: &dyn Fn(usize) -> Result<Marks>,
) -> Result<Judged> {
    let Some(first) = planes.first() else { return Err(Error::new(Kind::GeometryMissing, "no slice")) };
    agree(planes)?;
    if planes.len() == 1 {
        let geometry = single(first, rows, columns)?;
        return Ok(Judged { geometry, order: vec![0], channels: vec![Channel::default()], upright: None });
    }
    let missing = |what: &str, name: Name| Error::new(Kind::GeometryMissing, format!("{what} of {name}"));
    let orientation = first.orientation.ok_or_else(|| missing("orientation", first.name))?;
    let spacing = pixel_spacing(first)?.ok_or_else(|| missing("pixel spacing", first.name))?;
    let (row, column, normal) = axes(orientation)?;
    let mut placed = Vec::with_capacity(planes.len());
    for (index, plane) in planes.iter().enumerate() {
        let position = plane.position.ok_or_else(|| missing("position", plane.name))?;
        placed.push(Placed { index, name: plane.name, position, along: dot(position, normal) });
    }
    // Equal positions stay in the order of arrival, so that the message of the check does not depend on chance.
    placed.sort_by(|a, b| a.along.total_cmp(&b.along));
    let (mut order, mut channels) = (Vec::new(), vec![Channel::default()]);
    if let Some(count) = stack::volumes(&placed, normal) {
        let positions: Vec<Vec<usize>> = placed.chunks(count).map(|shared| shared.iter().map(|slice| slice.index).collect()).collect();
        let marks: Vec<Marks> = (0..planes.len()).map(marks).collect::<Result<_>>()?;
        // Slices that nothing tells apart are a slice twice, and refused below.
        if let Some(told_apart) = channels::tell_apart(&positions, &marks) {
            order = told_apart.iter().flat_map(|(_, slices)| slices.iter().copied()).collect();
            channels = told_apart.into_iter().map(|(channel, _)| channel).collect();
            // One slice for each position; all channels share the places of the first.
            let mut is_first = vec![false; planes.len()];
            for index in order.iter().take(positions.len()) {
                is_first[*index] = true;
            }
            placed.retain(|slice| is_first[slice.index]);
        }
    }
    if order.is_empty() {
        order = placed.iter().map(|slice| slice.index).collect();
    }
    // Several volumes of one slice each.
    if let ([alone], false) = (placed.as_slice(), order.is_empty()) {
        let plane = planes.get(alone.index).unwrap_or(first);
        return Ok(Judged { geometry: single(plane, rows, columns)?, order, channels, upright: None });
    }
    let stack = stack::check(&placed, normal, policy)?;
    let origin = placed.first().map_or([0.0; 3], |slice| slice.position);
    let (per_column, per_row) = (scaled(row, spacing[1]), scaled(column, spacing[0]));
    if stack.findings.is_empty() {
        let geometry = Geometry {
            dims: [columns, rows, placed.len()],
            spacing_mm: [spacing[1], spacing[0], length(stack.step)],
            affine_lps: affine(per_column, per_row, stack.step, origin),
            verdict: if is_one_image { Verdict::MultiFrame } else { Verdict::Uniform },
        };
        return Ok(Judged { geometry, order, channels, upright: None });
    }
    // How far each frame lies from the first, within the plane, in pixels.
    let apart = |slice: &Placed| minus(slice.position, origin);
    let shifts: Vec<[f64; 2]> =
        placed.iter().map(apart).map(|apart| [dot(apart, row) / spacing[1], dot(apart, column) / spacing[0]]).collect();
    let (upright, least) = Upright::plan([columns, rows], &shifts, &stack.heights)?;
    let along = placed.last().map_or(0.0, |last| dot(apart(last), normal));
    let step = along / (upright.dims[2] - 1) as f64;
    let origins = placed.iter().map(|slice| slice.position).collect();
    let frames = Frames { dims: [columns, rows], per_column, per_row, normal, origins };
    let geometry = Geometry {
        dims: upright.dims,
        spacing_mm: [spacing[1], spacing[0], step],
        affine_lps: affine(per_column, per_row, scaled(normal, step), upright::origin(origin, least, per_column, per_row)),
        verdict: Verdict::Resampled(Arc::new(Resampled { findings: stack.findings, frames })),
    };
    Ok(Judged { geometry, order, channels, upright: Some(upright) })
}

/// A slice with its distance along the normal.
struct Placed {
    index: usize,
    name: Name,
    position: [f64; 3],
    along: f64,
}

/// One orientation, one pixel spacing.
fn agree(planes: &[Plane]) -> Result<()> {
    let Some(first) = planes.first() else { return Ok(()) };
    let differ = |what: &str, other: &Plane| {
        let error = Error::new(Kind::GeometryInconsistent, format!("{what} of {} differ", first.name.and(other.name)));
        match planes.iter().find(|plane| plane.is_localizer) {
            Some(plane) => error.with_hint(format!("{} is a localizer; leave it out of the series", plane.name)),
            None => error,
        }
    };
    for plane in planes {
        let numbers = plane.position.iter().flatten().chain(plane.spacing.iter().flatten()).chain(plane.thickness.iter());
        if numbers.into_iter().any(|value| value.is_nan() || value.abs() > FARTHEST_MM) {
            return Err(Error::new(Kind::GeometryInconsistent, format!("{} lies or reaches beyond {FARTHEST_MM} mm", plane.name)));
        }
        if !first.is_parallel_to(plane) {
            return Err(differ("orientations", plane));
        }
        if !first.is_spaced_as(plane) {
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
