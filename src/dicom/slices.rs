//! The slices of a series: every frame of every file, where it lies, and which of them belong together.

use std::cmp::Ordering;

use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::attributes::{array, functional_group, has_value, item, number, text};
use super::geometry::{Judged, Name, Plane, Policy, judge};
use super::load::Candidate;
use super::mosaic::{self, Mosaic};
use super::{Limits, marks};
use crate::error::{Error, Kind, Result};

/// One slice to be: a frame of a file, or a tile of a mosaic.
pub(super) struct Slice {
    /// Index of its file among the members of the series.
    pub(super) member: usize,
    /// Stored frame, from 0.
    pub(super) frame: usize,
    /// Tile of a mosaic.
    pub(super) tile: Option<usize>,
    pub(super) plane: Plane,
}

/// The slices of all members, in the order of the files.
pub(super) fn slices(members: &[Candidate], limits: &Limits) -> Result<Vec<Slice>> {
    let count = |member: &Candidate| member.mosaic().map_or(member.shape.frames as usize, Mosaic::count);
    let total: usize = members.iter().map(count).fold(0, usize::saturating_add);
    if total > limits.slices {
        return Err(Error::new(Kind::LimitExceeded, format!("{total} slices, more than {} (limits.slices)", limits.slices)));
    }
    let mut slices = Vec::with_capacity(total);
    for (index, member) in members.iter().enumerate() {
        let dataset = &member.instance.dataset;
        let frames = member.shape.frames as usize;
        let file = Some(member.number);
        if let Some(mosaic) = member.mosaic() {
            let whole = plane(dataset, None, Name { file, frame: None })?;
            let line = mosaic.line(&mosaic::place(dataset, &whole)?)?;
            for tile in 0..mosaic.count() {
                let plane = Plane { name: Name { file, frame: Some(tile + 1) }, position: Some(line.at(tile)), ..whole.clone() };
                slices.push(Slice { member: index, frame: 0, tile: Some(tile), plane });
            }
        } else if frames > 1 {
            check_functional_groups(dataset, frames)?;
            for frame in 0..frames {
                let name = Name { file: file.filter(|_| members.len() > 1), frame: Some(frame + 1) };
                slices.push(Slice { member: index, frame, tile: None, plane: plane(dataset, Some(frame), name)? });
            }
        } else {
            slices.push(Slice { member: index, frame: 0, tile: None, plane: plane(dataset, None, Name { file, frame: None })? });
        }
    }
    Ok(slices)
}

/// Of the stacks that a series is made of (orientation, matrix, pixel spacing, frame of reference, localizers), the largest, of equals the one
/// with the lowest instance number; answers the slices and how many were left out. Without the policy for it, all slices.
pub(super) fn largest(members: &[Candidate], slices: Vec<Slice>, policy: &Policy) -> (Vec<Slice>, usize) {
    if !policy.takes_largest {
        return (slices, 0);
    }
    let total = slices.len();
    let mut stacks: Vec<Vec<Slice>> = Vec::new();
    for slice in slices {
        match stacks.iter_mut().find(|stack| stack.first().is_some_and(|first| is_one_stack(members, first, &slice))) {
            Some(stack) => stack.push(slice),
            None => stacks.push(vec![slice]),
        }
    }
    let lowest = |stack: &[Slice]| {
        let numbers = stack.iter().map(|slice| {
            let dataset = members.get(slice.member).map(|member| &member.instance.dataset);
            dataset.and_then(|dataset| number(dataset, tags::INSTANCE_NUMBER).ok().flatten()).unwrap_or(f64::MAX)
        });
        numbers.fold(f64::MAX, f64::min)
    };
    let best = stacks.into_iter().min_by(|a, b| b.len().cmp(&a.len()).then_with(|| lowest(a).total_cmp(&lowest(b)))).unwrap_or_default();
    let left = total - best.len();
    (best, left)
}

fn is_one_stack(members: &[Candidate], a: &Slice, b: &Slice) -> bool {
    let of_one_series = a.member == b.member
        || match (members.get(a.member), members.get(b.member)) {
            (Some(a), Some(b)) => difference(a, b).is_none(),
            _ => false,
        };
    of_one_series && a.plane.is_localizer == b.plane.is_localizer && a.plane.is_parallel_to(&b.plane) && a.plane.is_spaced_as(&b.plane)
}

/// The grid of the slices and their order in it.
pub(super) fn arrange(members: &[Candidate], slices: &[Slice], policy: &Policy) -> Result<Judged> {
    let first = slices.first().and_then(|slice| members.get(slice.member));
    let first = first.ok_or_else(|| Error::new(Kind::SeriesNotFound, ""))?;
    for member in members {
        if let Some(difference) = difference(first, member) {
            return Err(Error::new(Kind::GeometryInconsistent, difference));
        }
    }
    // One radiograph needs no place; one slice of a body does, or its side and level would be unknown.
    if let [alone] = slices
        && alone.plane.position.is_none()
        && is_cross_sectional(&first.instance.dataset)
    {
        return Err(Error::new(Kind::GeometryMissing, format!("position of {}", alone.plane.name)));
    }
    let planes: Vec<Plane> = slices.iter().map(|slice| slice.plane.clone()).collect();
    let marks = |index: usize| {
        let slice = slices.get(index).ok_or_else(|| Error::new(Kind::Internal, "a slice is lost"))?;
        let member = members.get(slice.member).ok_or_else(|| Error::new(Kind::Internal, "a file is lost"))?;
        let frame = (member.shape.frames > 1).then_some(slice.frame);
        marks::read(&member.instance.dataset, frame)
    };
    let [columns, rows] = first.slice_dims();
    judge(&planes, [rows, columns], members.len() == 1 && first.shape.frames > 1, policy, &marks)
}

/// Modalities whose slices have a place in the patient; only radiographs may lack one.
fn is_cross_sectional(dataset: &InMemDicomObject) -> bool {
    text(dataset, tags::MODALITY).is_some_and(|modality| matches!(modality.as_str(), "CT" | "MR" | "PT"))
}

/// What keeps two files from being slices of one volume: one matrix size, one kind of sample, one frame of reference.
fn difference(first: &Candidate, member: &Candidate) -> Option<String> {
    let differing =
        |what: &str, a: usize, b: usize| Some(format!("{what} differ: {a} in file {}, {b} in file {}", first.number, member.number));
    let ([columns, rows], [other_columns, other_rows]) = (first.slice_dims(), member.slice_dims());
    if rows != other_rows {
        return differing("rows", rows, other_rows);
    }
    if columns != other_columns {
        return differing("columns", columns, other_columns);
    }
    if first.samples() != member.samples() {
        return differing("samples per pixel", first.samples(), member.samples());
    }
    // Positions of different frames of reference are coordinates of different origins (PS3.3 section C.7.4.1).
    let frame_of_reference = |member: &Candidate| text(&member.instance.dataset, tags::FRAME_OF_REFERENCE_UID);
    match frame_of_reference(first).cmp(&frame_of_reference(member)) {
        Ordering::Equal => None,
        _ => Some(format!("files {} and {} have different frames of reference", first.number, member.number)),
    }
}

/// What a slice says about its place: in its functional groups (PS3.3 section C.7.6.16.2) or in the image's own attributes.
fn plane(dataset: &InMemDicomObject, frame: Option<usize>, name: Name) -> Result<Plane> {
    let group = |tag| functional_group(dataset, frame.unwrap_or(0), tag);
    let own_position = match group(tags::PLANE_POSITION_SEQUENCE) {
        Some(position) => array(position, tags::IMAGE_POSITION_PATIENT)?,
        None => None,
    };
    // The image's own position would put all of its frames at one place, so it counts for an image of one frame only.
    let position = match frame {
        None if own_position.is_none() => array(dataset, tags::IMAGE_POSITION_PATIENT)?,
        _ => own_position,
    };
    let measures = group(tags::PIXEL_MEASURES_SEQUENCE).unwrap_or(dataset);
    let mut spacing = array(measures, tags::PIXEL_SPACING)?;
    if spacing.is_none() && position.is_none() {
        // A projection's spacing at the detector; at the patient it is smaller by an unknown magnification (PS3.3 section 10.7.1.3).
        spacing = array(dataset, tags::IMAGER_PIXEL_SPACING)?.or(array(dataset, tags::NOMINAL_SCANNED_PIXEL_SPACING)?);
    }
    // Some writers give Spacing Between Slices a sign for the direction; the direction is the positions' matter.
    let positive = |value: Option<f64>| value.map(f64::abs).filter(|value| *value > 0.0);
    let between = positive(number(measures, tags::SPACING_BETWEEN_SLICES)?);
    Ok(Plane {
        name,
        position,
        orientation: array(group(tags::PLANE_ORIENTATION_SEQUENCE).unwrap_or(dataset), tags::IMAGE_ORIENTATION_PATIENT)?,
        spacing,
        thickness: between.or(positive(number(measures, tags::SLICE_THICKNESS)?)),
        is_localizer: has_value(dataset, tags::IMAGE_TYPE, "LOCALIZER"),
    })
}

/// Functional groups come one per frame or not at all (PS3.3 section C.7.6.16).
fn check_functional_groups(dataset: &InMemDicomObject, frames: usize) -> Result<()> {
    match dataset.get(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).and_then(|groups| groups.items()).map(<[_]>::len) {
        Some(count) if count != frames => Err(Error::new(Kind::DicomMalformed, format!("{count} functional groups for {frames} frames"))),
        _ if item(dataset, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 1).is_some() => {
            Err(Error::new(Kind::DicomMalformed, "the shared functional groups have more than one item"))
        }
        _ => Ok(()),
    }
}
