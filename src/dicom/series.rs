//! From instances to one series: which one is meant, and whether its instances belong together.
//!
//! A study holds scouts, several sequences, screenshots, reports. The caller may name the series; otherwise a rule decides, always the
//! same for the same files in whatever order they come. Inside the series all instances must agree, because a volume of mixed
//! matrices, directions or frames of reference would be wrong without looking wrong: nothing is dropped in silence to make it fit.

use std::collections::BTreeMap;

use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;

use super::attributes::{array, functional_group, has_value, item, number, text};
use super::geometry::{Judged, Plane, Policy, Source, judge};
use super::load::Candidate;
use super::{Limits, Selection};
use crate::error::{Error, Kind, Result};

/// Whether an instance is of the series that a selection names; true when it names none.
pub(super) fn is_wanted(selection: &Selection, dataset: &InMemDicomObject) -> bool {
    let is = |wanted: &Option<String>, tag| wanted.as_ref().is_none_or(|wanted| text(dataset, tag).unwrap_or_default() == wanted.trim());
    is(&selection.series_uid, tags::SERIES_INSTANCE_UID) && is(&selection.series_description, tags::SERIES_DESCRIPTION)
}

/// Picks one series: most slices, then lowest series number, then UID. Segmentations and dose grids are results about a series, not
/// the series, and are picked only when nothing else is there or when they are named.
pub(super) fn choose(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut series: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        let uid = text(&candidate.instance.dataset, tags::SERIES_INSTANCE_UID).unwrap_or_default();
        series.entry(uid).or_default().push(candidate);
    }
    // Slices are counted in frames, so that an enhanced instance competes with a folder of single ones.
    let rank = |members: &[Candidate]| {
        let slices: u64 = members.iter().map(|member| u64::from(member.shape.frames)).sum();
        let first = members.first();
        let is_derived = first.is_some_and(|member| is_derived_object(&member.instance.dataset));
        let number = first.and_then(|member| number(&member.instance.dataset, tags::SERIES_NUMBER).ok().flatten()).unwrap_or(f64::MAX);
        (is_derived, std::cmp::Reverse(slices), number)
    };
    // A map keeps its keys in order, and the first of equals wins: the lowest UID.
    let best = series.into_values().min_by(|a, b| {
        let ((a_derived, a_slices, a_number), (b_derived, b_slices, b_number)) = (rank(a), rank(b));
        a_derived.cmp(&b_derived).then(a_slices.cmp(&b_slices)).then(a_number.total_cmp(&b_number))
    });
    best.unwrap_or_default()
}

/// SOP classes whose pixels are labels or dose on the grid of another series.
fn is_derived_object(dataset: &InMemDicomObject) -> bool {
    const DERIVED: [&str; 4] =
        [uids::SEGMENTATION_STORAGE, uids::LABEL_MAP_SEGMENTATION_STORAGE, uids::HEIGHT_MAP_SEGMENTATION_STORAGE, uids::RT_DOSE_STORAGE];
    text(dataset, tags::SOP_CLASS_UID).is_some_and(|class| DERIVED.contains(&class.as_str()))
}

/// The stacks that a series is made of, apart: orientation, matrix, pixel spacing, frame of reference, localizers, each multi-frame file. Where
/// the policy says so the largest is taken, of equals the one with the lowest instance number; answers it and how many images were left.
pub(super) fn largest(members: Vec<Candidate>, policy: &Policy) -> Result<(Vec<Candidate>, usize)> {
    if !policy.takes_largest {
        return Ok((members, 0));
    }
    let total = members.len();
    let mut stacks: Vec<(Plane, Vec<Candidate>)> = Vec::new();
    for member in members {
        let plane = plane(&member.instance.dataset, None, member.number)?;
        let belongs = |(of, others): &(Plane, Vec<Candidate>)| {
            let is_one = others.first().is_some_and(|other| {
                let shape = |member: &Candidate| (member.shape.rows, member.shape.columns, member.shape.samples, member.shape.frames);
                let reference = |member: &Candidate| text(&member.instance.dataset, tags::FRAME_OF_REFERENCE_UID);
                shape(other) == shape(&member) && member.shape.frames == 1 && reference(other) == reference(&member)
            });
            is_one && of.is_localizer == plane.is_localizer && of.is_parallel_to(&plane) && of.is_spaced_as(&plane)
        };
        match stacks.iter_mut().find(|stack| belongs(stack)) {
            Some((_, others)) => others.push(member),
            None => stacks.push((plane, vec![member])),
        }
    }
    let lowest = |members: &[Candidate]| {
        let numbers =
            members.iter().map(|member| number(&member.instance.dataset, tags::INSTANCE_NUMBER).ok().flatten().unwrap_or(f64::MAX));
        numbers.fold(f64::MAX, f64::min)
    };
    let slices = |members: &[Candidate]| members.iter().map(|member| u64::from(member.shape.frames)).sum::<u64>();
    let best =
        stacks.into_iter().map(|(_, members)| members).min_by(|a, b| slices(b).cmp(&slices(a)).then(lowest(a).total_cmp(&lowest(b))));
    let best = best.unwrap_or_default();
    let left = total - best.len();
    Ok((best, left))
}

/// The grid of a series and the order of its slices: for each slice the index of its instance, or of its frame when there is one
/// instance with several.
pub(super) fn arrange(members: &[Candidate], limits: &Limits, policy: &Policy) -> Result<Judged> {
    let Some(first) = members.first() else { return Err(Error::new(Kind::SeriesNotFound, "")) };
    agree(members)?;
    // Several multi-frame files are several stacks, or one stack cut by rules of the vendor; neither is guessed at.
    let multi_frame = members.iter().find(|member| member.shape.frames > 1);
    if let (Some(member), true) = (multi_frame, members.len() > 1) {
        let detail =
            format!("the series has {} files, of which file {} alone holds {} frames", members.len(), member.number, member.shape.frames);
        return Err(Error::new(Kind::GeometryInconsistent, detail));
    }
    if members.len() > limits.slices {
        return Err(Error::new(Kind::LimitExceeded, format!("{} slices, more than {} (limits.slices)", members.len(), limits.slices)));
    }
    let (rows, columns) = (first.shape.rows as usize, first.shape.columns as usize);
    match multi_frame {
        Some(member) => {
            let dataset = &member.instance.dataset;
            check_functional_groups(dataset, member.shape.frames as usize)?;
            let planes: Result<Vec<Plane>> =
                (0..member.shape.frames as usize).map(|frame| plane(dataset, Some(frame), frame + 1)).collect();
            judge(&planes?, rows, columns, Source::Frames, policy)
        }
        None => {
            let planes: Result<Vec<Plane>> = members.iter().map(|member| plane(&member.instance.dataset, None, member.number)).collect();
            let planes = planes?;
            // One radiograph needs no place; one slice of a body does, or its side and level would be unknown.
            if let [alone] = planes.as_slice()
                && alone.position.is_none()
                && is_cross_sectional(&first.instance.dataset)
            {
                return Err(Error::new(Kind::GeometryMissing, format!("position of file {}", alone.number)));
            }
            judge(&planes, rows, columns, Source::Files, policy)
        }
    }
}

/// Modalities whose slices have a place in the patient; only radiographs may lack one.
fn is_cross_sectional(dataset: &InMemDicomObject) -> bool {
    text(dataset, tags::MODALITY).is_some_and(|modality| matches!(modality.as_str(), "CT" | "MR" | "PT"))
}

/// One matrix size, one kind of sample, one frame of reference.
fn agree(members: &[Candidate]) -> Result<()> {
    let Some(first) = members.first() else { return Ok(()) };
    let frame_of_reference = |member: &Candidate| text(&member.instance.dataset, tags::FRAME_OF_REFERENCE_UID);
    let reference = frame_of_reference(first);
    for member in members {
        let differing = |what: &str, a: u32, b: u32| {
            let detail = format!("{what} differ: {a} in file {}, {b} in file {}", first.number, member.number);
            Err(Error::new(Kind::GeometryInconsistent, detail))
        };
        let (a, b) = (first.shape, member.shape);
        if a.rows != b.rows {
            return differing("rows", a.rows, b.rows);
        }
        if a.columns != b.columns {
            return differing("columns", a.columns, b.columns);
        }
        if a.samples != b.samples {
            return differing("samples per pixel", a.samples, b.samples);
        }
        // Positions of different frames of reference are coordinates of different origins (PS3.3 section C.7.4.1).
        if frame_of_reference(member) != reference {
            let detail = format!("files {} and {} have different frames of reference", first.number, member.number);
            return Err(Error::new(Kind::GeometryInconsistent, detail));
        }
    }
    Ok(())
}

/// What a slice says about its place: in its functional groups (PS3.3 section C.7.6.16.2) or in the image's own attributes.
fn plane(dataset: &InMemDicomObject, frame: Option<usize>, number: usize) -> Result<Plane> {
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
    let between = positive(self::number(measures, tags::SPACING_BETWEEN_SLICES)?);
    Ok(Plane {
        number,
        position,
        orientation: array(group(tags::PLANE_ORIENTATION_SEQUENCE).unwrap_or(dataset), tags::IMAGE_ORIENTATION_PATIENT)?,
        spacing,
        thickness: between.or(positive(self::number(measures, tags::SLICE_THICKNESS)?)),
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
