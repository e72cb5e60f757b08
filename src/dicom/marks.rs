//! What a header says of the volume that a slice belongs to: echo, b-value, time.
//!
//! Attributes of single-frame images, of the functional groups of enhanced ones (PS3.3 section C.7.6.16, C.8.13.5), and the private ones in which
//! scanners keep diffusion values where the standard's are missing. A value that cannot be read counts as absent: it is needed only where slices share a position, and
//! there its absence leaves them untold and the series refused.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::attributes::{array, functional_group, item, number, private_numbers, text};
use super::geometry::{Marks, Value};
use crate::error::Result;

/// Reads the marks of a file, or of one frame of it.
pub(super) fn read(dataset: &InMemDicomObject, frame: Option<usize>) -> Result<Marks> {
    let group = |tag| functional_group(dataset, frame.unwrap_or(0), tag);
    let content = group(tags::FRAME_CONTENT_SEQUENCE);
    // Of a frame's own group where there is one; an image's root otherwise.
    let of = |sequence: Tag, tag: Tag, root: Tag| match group(sequence) {
        Some(item) => single(item, tag).or_else(|| single(dataset, root)),
        None => single(dataset, root),
    };
    let in_content = |tag| content.and_then(|content| single(content, tag));
    let diffusion = diffusion(dataset, group(tags::MR_DIFFUSION_SEQUENCE));
    Ok(Marks {
        // In the order of `EXACT`.
        exact: [
            image_type(dataset, group(tags::MR_IMAGE_FRAME_TYPE_SEQUENCE).or_else(|| group(tags::CT_IMAGE_FRAME_TYPE_SEQUENCE))),
            single(dataset, tags::KVP).map(Value::Number),
            of(tags::MR_ECHO_SEQUENCE, tags::EFFECTIVE_ECHO_TIME, tags::ECHO_TIME).map(Value::Number),
            of(tags::MR_MODIFIER_SEQUENCE, tags::INVERSION_TIMES, tags::INVERSION_TIME).map(Value::Number),
            of(tags::MR_TIMING_AND_RELATED_PARAMETERS_SEQUENCE, tags::FLIP_ANGLE, tags::FLIP_ANGLE).map(Value::Number),
            diffusion.b_value.map(Value::Number),
            diffusion.direction.map(Value::Vector),
            of(
                tags::CARDIAC_SYNCHRONIZATION_SEQUENCE,
                tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE,
                tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE,
            )
            .map(Value::Number),
            in_content(tags::TEMPORAL_POSITION_INDEX).or_else(|| single(dataset, tags::TEMPORAL_POSITION_IDENTIFIER)).map(Value::Number),
        ],
        // In the order of `RANKED`.
        ranked: [
            of(tags::CARDIAC_SYNCHRONIZATION_SEQUENCE, tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME, tags::TRIGGER_TIME),
            in_content(tags::FRAME_ACQUISITION_NUMBER).or_else(|| single(dataset, tags::ACQUISITION_NUMBER)),
            content
                .and_then(|content| moment(content, tags::FRAME_ACQUISITION_DATE_TIME))
                .or_else(|| moment(dataset, tags::ACQUISITION_DATE_TIME))
                .or_else(|| date_and_time(dataset)),
            single(dataset, tags::FRAME_REFERENCE_TIME),
            content.and_then(|content| moment(content, tags::FRAME_REFERENCE_DATE_TIME)),
        ],
        number: frame.map_or_else(|| single(dataset, tags::INSTANCE_NUMBER).unwrap_or(0.0), |frame| frame as f64),
    })
}

/// The first number of a value; what cannot be read is absent.
fn single(dataset: &InMemDicomObject, tag: Tag) -> Option<f64> {
    number(dataset, tag).ok().flatten()
}

/// The image type with the component of a complex image, which some scanners tell apart from it.
fn image_type(dataset: &InMemDicomObject, frame_type: Option<&InMemDicomObject>) -> Option<Value> {
    let words = |dataset: &InMemDicomObject, tag: Tag| -> Vec<String> {
        let values = dataset.get(tag).and_then(|element| element.to_multi_str().ok());
        values.map(|values| values.iter().map(|value| value.trim().to_owned()).collect()).unwrap_or_default()
    };
    let mut found = frame_type.map(|item| words(item, tags::FRAME_TYPE)).unwrap_or_default();
    if found.is_empty() {
        found = words(dataset, tags::IMAGE_TYPE);
    }
    found.extend(frame_type.and_then(|item| text(item, tags::COMPLEX_IMAGE_COMPONENT)));
    (!found.is_empty()).then_some(Value::Words(found))
}

/// A b-value (s/mm2) and the direction of the gradient.
#[derive(Default)]
struct Diffusion {
    b_value: Option<f64>,
    direction: Option<[f64; 3]>,
}

fn diffusion(dataset: &InMemDicomObject, group: Option<&InMemDicomObject>) -> Diffusion {
    let from = group.unwrap_or(dataset);
    let gradient = item(from, tags::DIFFUSION_GRADIENT_DIRECTION_SEQUENCE, 0).unwrap_or(from);
    let standard = Diffusion {
        b_value: single(from, tags::DIFFUSION_B_VALUE),
        direction: array(gradient, tags::DIFFUSION_GRADIENT_ORIENTATION).ok().flatten(),
    };
    if standard.b_value.is_some() || group.is_some() {
        return standard;
    }
    // Published in the conformance statements of the makers: Siemens MR (0019,xx0C) and (0019,xx0E), Philips (2001,xx03) and (2005,xxB0) to
    // (2005,xxB2), GE (0043,xx39), whose first value may carry a flag of a thousand million, and (0019,xxBB) to (0019,xxBD).
    if let Some(b_value) = private_numbers(dataset, 0x0019, "SIEMENS MR HEADER", 0x0C).and_then(first) {
        let direction = private_numbers(dataset, 0x0019, "SIEMENS MR HEADER", 0x0E).and_then(|values| <[f64; 3]>::try_from(values).ok());
        return Diffusion { b_value: Some(b_value), direction };
    }
    let triple = |group: u16, creator: &str, elements: [u16; 3]| {
        let values: Vec<f64> =
            elements.iter().filter_map(|element| private_numbers(dataset, group, creator, *element).and_then(first)).collect();
        <[f64; 3]>::try_from(values).ok()
    };
    if let Some(b_value) = private_numbers(dataset, 0x2001, "Philips Imaging DD 001", 0x03).and_then(first) {
        return Diffusion { b_value: Some(b_value), direction: triple(0x2005, "Philips MR Imaging DD 001", [0xB0, 0xB1, 0xB2]) };
    }
    let flagged = match private_numbers(dataset, 0x0043, "GEMS_PARM_01", 0x39).and_then(first) {
        Some(value) if value >= 1e9 => Some(value - 1e9),
        value => value,
    };
    Diffusion { b_value: flagged, direction: triple(0x0019, "GEMS_ACQU_01", [0xBB, 0xBC, 0xBD]) }
}

fn first(values: Vec<f64>) -> Option<f64> {
    values.first().copied()
}

/// A date and time as a number that grows with it; whole seconds from a beginning of no meaning, without time zones: scanners keep one.
fn moment(dataset: &InMemDicomObject, tag: Tag) -> Option<f64> {
    let value = text(dataset, tag)?;
    let (date, time) = (value.get(..8)?, value.get(8..)?);
    seconds(date, time.split(['+', '-']).next().unwrap_or_default())
}

fn date_and_time(dataset: &InMemDicomObject) -> Option<f64> {
    let date = text(dataset, tags::ACQUISITION_DATE).or_else(|| text(dataset, tags::STUDY_DATE)).unwrap_or_else(|| "00000101".to_owned());
    seconds(&date, &text(dataset, tags::ACQUISITION_TIME)?)
}

fn seconds(date: &str, time: &str) -> Option<f64> {
    let part = |text: &str, range: std::ops::Range<usize>| text.get(range)?.parse::<u32>().ok().map(f64::from);
    // Months of 31 days keep the order, which is all that counts.
    let days = (part(date, 0..4)? * 12.0 + part(date, 4..6)?) * 31.0 + part(date, 6..8)?;
    let fraction =
        time.get(6..).filter(|rest| rest.starts_with('.')).and_then(|rest| format!("0{rest}").parse::<f64>().ok()).unwrap_or(0.0);
    let minutes = part(time, 0..2)? * 60.0 + part(time, 2..4).unwrap_or(0.0);
    Some(days * 86_400.0 + minutes * 60.0 + part(time, 4..6).unwrap_or(0.0) + fraction)
}
