//! Sampling a volume or a mask on another grid.
//!
//! ITK's convention: continuous indices count from the first voxel's centre, the origin of a resampled volume stays at that centre, and
//! voxel n reaches half a voxel to each side. Within the outer half voxel, and on a grid that stands a little over, the edge value holds.
//! Masks are only ever sampled at the nearest voxel, so no label arises that was not there; halves round up, as in ITK.
//!
//! Grids along the volume's own axes ([`AlignedGrid`]) take a fast road: an exact reordering, then one axis after the other. Grids that are turned ([`to_grid`]) compute every position.

mod bspline;
mod separable;
mod smoothed;

use std::borrow::Cow;

use rayon::prelude::*;

use crate::control::Control;
use crate::deid::Geometry;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::Volume;
use crate::imaging::grid::{AlignedGrid, AxisMap, filled, index_to_index, voxel_count};
use separable::Axis;
pub use smoothed::{aligned_smoothed, to_spacing_smoothed};

/// How values between voxels are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest voxel; the only choice for masks.
    Nearest,
    /// Trilinear.
    Linear,
    /// Cubic B-spline: smoother, and it may pass the range of the voxels a little. Beyond the outer centres the volume is mirrored.
    BSpline,
}

impl Interpolation {
    /// Reads `nearest`, `linear` (also when empty) or `bspline`.
    ///
    /// # Errors
    /// [`Kind::ConfigInvalidValue`] for another word.
    pub fn from_name(name: &str) -> Result<Interpolation> {
        match name {
            "" | "linear" => Ok(Interpolation::Linear),
            "nearest" => Ok(Interpolation::Nearest),
            "bspline" => Ok(Interpolation::BSpline),
            _ => Err(Error::new(Kind::ConfigInvalidValue, "preprocess.interpolation")
                .with_hint("nearest, linear or bspline")
                .at(Stage::Imaging)),
        }
    }
}

/// A volume at other spacing (column, row, slice; mm), or `None` when it has that spacing already (within 0.01 %).
///
/// # Errors
/// As [`AlignedGrid::to_spacing`]; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn to_spacing(volume: &Volume, spacing_mm: [f64; 3], how: Interpolation, control: &Control) -> Result<Option<Volume>> {
    let dims = volume.geometry.dims;
    let grid = AlignedGrid::to_spacing(dims, volume.geometry.spacing_mm, spacing_mm)?;
    if grid.is_identity(dims) {
        return Ok(None);
    }
    volume.moved(grid.geometry(&volume.geometry), |data| aligned(data, dims, &grid, how, control)).map(Some)
}

/// Values on an aligned grid. Past the edge, linear interpolation and nearest voxels hold the edge's value.
///
/// # Errors
/// [`Kind::VolumeInvalid`] when the voxels do not fill the grid (where they are interpolated); [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn aligned(data: &[f32], dims: [usize; 3], grid: &AlignedGrid, how: Interpolation, control: &Control) -> Result<Vec<f32>> {
    match how {
        Interpolation::Linear => linear(data, dims, grid, control),
        Interpolation::BSpline => {
            let Straightened { data, dims, rest } = straightened(data, dims, grid, control)?;
            bspline::Coefficients::of(&data, dims, control)?.on(rest, control)
        }
        Interpolation::Nearest => nearest(data, dims, grid, None, control),
    }
}

/// A volume on any grid, turned ones too. Positions more than half a voxel outside get `outside`.
///
/// # Errors
/// [`Kind::VolumeInvalid`] for a singular affine; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn to_grid(volume: &Volume, onto: &Geometry, how: Interpolation, outside: f32, control: &Control) -> Result<Volume> {
    let dims = volume.geometry.dims;
    volume.moved(onto.clone(), |data| match how {
        Interpolation::Nearest => positions(dims, &volume.geometry, onto, outside, UNTIL_HALF, control, |p| at(data, dims, p.map(round))),
        Interpolation::Linear => positions(dims, &volume.geometry, onto, outside, UNTIL_HALF, control, |p| trilinear(data, dims, p)),
        Interpolation::BSpline => {
            let coefficients = bspline::Coefficients::of(data, dims, control)?;
            positions(dims, &volume.geometry, onto, outside, UNTIL_HALF, control, |p| coefficients.at(p))
        }
    })
}

/// A mask on any grid, by nearest neighbour; 0 outside.
///
/// # Errors
/// As [`to_grid`].
pub fn labels_to_grid(labels: &[u8], from: &Geometry, onto: &Geometry, control: &Control) -> Result<Vec<u8>> {
    crate::imaging::grid::check(from, labels.len())?;
    positions(from.dims, from, onto, 0, UNTIL_HALF, control, |p| at(labels, from.dims, p.map(round)))
}

/// A mask on the grid that its own was resampled from, by nearest neighbour. Rounding a grid's length can leave up to half of a voxel
/// beyond its last one: there the edge's label holds; further outside is 0.
///
/// # Errors
/// As [`to_grid`].
pub fn labels_back(labels: &[u8], from: &Geometry, onto: &Geometry, control: &Control) -> Result<Vec<u8>> {
    crate::imaging::grid::check(from, labels.len())?;
    positions(from.dims, from, onto, 0, UNTIL_NEXT, control, |p| at(labels, from.dims, p.map(round)))
}

/// Values on an aligned grid by linear interpolation, edges clamped.
///
/// # Errors
/// [`Kind::VolumeInvalid`] when the voxels do not fill the grid; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn linear(data: &[f32], dims: [usize; 3], grid: &AlignedGrid, control: &Control) -> Result<Vec<f32>> {
    let Straightened { data, dims, rest } = straightened(data, dims, grid, control)?;
    let axes = rest.map(|map| {
        let last = dims[map.source].saturating_sub(1);
        Axis::<2>::new(map.len, dims[map.source], |index| {
            let place = (map.start + map.step * index as f64).clamp(0.0, last as f64);
            let below = (place.floor() as usize).min(last);
            let t = place - below as f64;
            // A voxel whose weight is 0 is not read.
            ([below, if t > 0.0 { (below + 1).min(last) } else { below }], [1.0 - t, t])
        })
    });
    separable::interpolate(&data, dims, &axes, control)
}

/// Values on an aligned grid from the nearest voxel. Positions past the edge get the edge's value, or `outside` when it is given.
///
/// # Errors
/// [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn nearest<T>(data: &[T], dims: [usize; 3], grid: &AlignedGrid, outside: Option<T>, control: &Control) -> Result<Vec<T>>
where
    T: Copy + Default + Send + Sync,
{
    let strides = [1, dims[0], dims[0] * dims[1]];
    // Where each index of each axis reads, as an offset; `None` is outside.
    let tables = grid.axes.map(|map| {
        (0..map.len)
            .map(|index| {
                let (n, place) = (dims[map.source] as i64, round(map.start + map.step * index as f64));
                let inside = (0..n).contains(&place);
                (inside || outside.is_none()).then(|| place.clamp(0, (n - 1).max(0)) as usize * strides[map.source])
            })
            .collect::<Vec<Option<usize>>>()
    });
    let fill = outside.unwrap_or_default();
    let [width, height, depth] = grid.dims();
    let mut out = filled(voxel_count([width, height, depth])?, fill)?;
    let runs_along_rows = grid.axes[0].source == 0 && grid.axes[0].step == 1.0;
    out.par_chunks_mut((width * height).max(1)).zip(&tables[2]).try_for_each(|(plane, z)| {
        control.check()?;
        for (line, y) in plane.chunks_mut(width.max(1)).zip(&tables[1]) {
            let (Some(y), Some(z)) = (y, z) else { continue };
            // Rows that are read as they lie are copied whole: crops, and slices picked or repeated.
            if let (true, Some(Some(first)), Some(Some(last))) = (runs_along_rows, tables[0].first(), tables[0].last())
                && last + 1 == first + width
            {
                line.copy_from_slice(&data[z + y + first..z + y + last + 1]);
                continue;
            }
            for (value, x) in line.iter_mut().zip(&tables[0]) {
                if let Some(x) = x {
                    *value = data[z + y + x];
                }
            }
        }
        Ok(())
    })?;
    Ok(out)
}

/// A volume with the axes of a grid in their order and forwards, and what of the grid remains then.
struct Straightened<'a> {
    data: Cow<'a, [f32]>,
    dims: [usize; 3],
    rest: [AxisMap; 3],
}

/// Reorders a volume for a grid.
fn straightened<'a>(data: &'a [f32], dims: [usize; 3], grid: &AlignedGrid, control: &Control) -> Result<Straightened<'a>> {
    if voxel_count(dims)? != data.len() || data.is_empty() {
        return Err(Error::new(Kind::VolumeInvalid, "the voxels do not fill the grid"));
    }
    let straight = straighten(dims, grid);
    let (data, dims) = if straight.is_identity(dims) {
        (Cow::Borrowed(data), dims)
    } else {
        (Cow::Owned(nearest(data, dims, &straight, None, control)?), straight.dims())
    };
    let rest = std::array::from_fn(|axis| {
        let map = grid.axes[axis];
        let start = if map.step < 0.0 { dims[axis] as f64 - 1.0 - map.start } else { map.start };
        AxisMap { source: axis, start, step: map.step.abs(), len: map.len }
    });
    Ok(Straightened { data, dims, rest })
}

/// The exact part of an aligned grid: its axes in their order, backwards ones flipped, at full length and unit steps.
fn straighten(dims: [usize; 3], grid: &AlignedGrid) -> AlignedGrid {
    AlignedGrid {
        axes: grid.axes.map(|map| {
            let len = dims[map.source];
            let backwards = map.step < 0.0;
            let start = if backwards { len as f64 - 1.0 } else { 0.0 };
            AxisMap { source: map.source, start, step: if backwards { -1.0 } else { 1.0 }, len }
        }),
    }
}

/// How far beyond the last voxel's centre a grid reaches, in voxels: to that voxel's face.
const UNTIL_HALF: f64 = 0.5;
/// To where the next voxel would be, without it.
const UNTIL_NEXT: f64 = 1.0 - 1e-6;

/// Fills a grid from positions in continuous indices of another; those further than half a voxel outside get `outside`.
fn positions<T: Copy + Send + Sync>(
    dims: [usize; 3],
    from: &Geometry,
    onto: &Geometry,
    outside: T,
    beyond: f64,
    control: &Control,
    sample: impl Fn([f64; 3]) -> T + Sync,
) -> Result<Vec<T>> {
    let map = index_to_index(onto, from)?;
    let [width, height, _] = onto.dims;
    let mut out = filled(voxel_count(onto.dims)?, outside)?;
    out.par_chunks_mut((width * height).max(1)).enumerate().try_for_each(|(z, plane)| {
        control.check()?;
        for (y, line) in plane.chunks_mut(width.max(1)).enumerate() {
            for (x, value) in line.iter_mut().enumerate() {
                // Each position from its own index: adding steps along a row would let rounding pile up.
                let place = map.map(|m| m[0] * x as f64 + m[1] * y as f64 + m[2] * z as f64 + m[3]);
                let inside = place.iter().zip(dims).all(|(p, n)| *p >= -0.5 && *p < n as f64 - 1.0 + beyond);
                if inside {
                    *value = sample(place);
                }
            }
        }
        Ok(())
    })?;
    Ok(out)
}

fn trilinear(data: &[f32], dims: [usize; 3], place: [f64; 3]) -> f32 {
    let place: [f64; 3] = std::array::from_fn(|axis| place[axis].clamp(0.0, (dims[axis] - 1) as f64));
    let base = place.map(|p| p.floor() as i64);
    let t: [f64; 3] = std::array::from_fn(|axis| place[axis] - base[axis] as f64);
    let corner = |x: i64, y: i64, z: i64| f64::from(at(data, dims, [base[0] + x, base[1] + y, base[2] + z]));
    let edge = |y, z| corner(0, y, z) + (corner(1, y, z) - corner(0, y, z)) * t[0];
    let face = |z| edge(0, z) + (edge(1, z) - edge(0, z)) * t[1];
    (face(0) + (face(1) - face(0)) * t[2]) as f32
}

/// The voxel at an index, edges clamped.
fn at<T: Copy>(data: &[T], dims: [usize; 3], index: [i64; 3]) -> T {
    let [x, y, z]: [usize; 3] = std::array::from_fn(|axis| index[axis].clamp(0, dims[axis] as i64 - 1) as usize);
    data[(z * dims[1] + y) * dims[0] + x]
}

/// The nearest whole number, halves upwards. A half that rounding has made a little less is still a half: doubling and halving a grid meets
/// exact halves at every second voxel, and which neighbour they take must not hang on the last bit of an affine.
fn round(place: f64) -> i64 {
    (place + 0.5 + 1e-6).floor() as i64
}
