//! Masks as DICOM Segmentation (PS3.3 A.51) and Label Map Segmentation (Supplement 243) objects.
//!
//! Frames are the frames of the series that was looked at: same rows, columns, positions. A mask on another grid (resampled, cropped, made upright) is brought
//! back to them, each pixel taking the label of the nearest voxel. Planes without a labelled pixel are left out. In a binary object each label is a segment of
//! its own; in a label map a pixel holds its label.

use dicom_core::{DataElement, Tag, VR, value::PrimitiveValue};
use rayon::prelude::*;
use std::borrow::Cow;

use super::{Draft, FRAME_OF_REFERENCE, Origin, PATIENT_ORIENTATION, Planes, SourceFrame, cut};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::Geometry;
use crate::imaging::resample::labels_to_grid;
use crate::inference::{Label, Segmentation};

/// How a mask is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegKind {
    /// A bit for each pixel of each segment (BINARY).
    Binary,
    /// A byte for each pixel (LABELMAP).
    LabelMap,
}

const SEGMENTATION_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.66.4";
const LABEL_MAP_SEGMENTATION_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.66.7";
/// What a segment is when its label has a code but the contract names no category: something in space, which claims neither anatomy nor disease (CID 7150).
const NEUTRAL_CATEGORY: [&str; 3] = ["309825002", "SCT", "Spatial and Relational Concept"];

/// A frame of the object: which plane, and which segment of a binary one (from 1).
struct Frame {
    plane: usize,
    segment: Option<u16>,
}

/// Planes of the series: their places and the labels in them.
struct Labelled<'a> {
    labels: Cow<'a, [u8]>,
    rows: usize,
    columns: usize,
    count: usize,
}

/// Makes a Segmentation object, as the bytes of a file.
///
/// # Errors
/// [`Kind::OutputUnsupported`] when the frames of the series and its slices do not belong together, as in objects of several channels per frame;
/// [`Kind::Cancelled`]; [`Kind::OutOfMemory`].
pub fn segmentation(mask: &Segmentation, origin: &Origin, kind: SegKind, control: &Control) -> Result<Vec<u8>> {
    let planes = labelled(mask, origin, control)?;
    let frames = frames(&planes, mask.table(), kind);
    let class = class(kind);
    let mut draft = origin.begin(class, &origin.seg, "SEG", &cut(&format!("Segmentation by {}", mask.model().name)));
    let reference = origin.text(FRAME_OF_REFERENCE);
    draft.text(Tag(0x0020, 0x0011), VR::IS, "300");
    if !reference.is_empty() {
        draft.text(FRAME_OF_REFERENCE, VR::UI, &reference);
        draft.text(Tag(0x0020, 0x1040), VR::LO, &origin.text(Tag(0x0020, 0x1040)));
    } else {
        // Images without a place in space, projections, say which way they look (PS3.3 C.7.6.1.1.1).
        match origin.header.get(PATIENT_ORIENTATION) {
            Some(element) => _ = draft.0.put(element.clone()),
            None => draft.text(PATIENT_ORIENTATION, VR::CS, ""),
        }
    }
    image(&mut draft, &planes, frames.len(), kind);
    carry_loss(&mut draft, origin);
    let segments = mask.table().iter().enumerate().map(|(index, label)| segment(mask, label, number(index, label, kind))).collect();
    draft.items(Tag(0x0062, 0x0002), segments);
    draft.items(Tag(0x0008, 0x1115), vec![origin.referenced_series()]);
    dimensions(&mut draft, kind, !reference.is_empty())?;
    let shared = shared(origin, !reference.is_empty());
    draft.items(Tag(0x5200, 0x9229), vec![shared]);
    draft.items(Tag(0x5200, 0x9230), per_frame(origin, &frames, !reference.is_empty())?);
    control.check()?;
    let mut pixels = match kind {
        SegKind::Binary => packed(&planes, &frames, mask.table()),
        SegKind::LabelMap => frames.iter().flat_map(|frame| plane(&planes, frame.plane)).copied().collect(),
    };
    if pixels.len() % 2 == 1 {
        pixels.push(0);
    }
    draft.0.put(DataElement::new(Tag(0x7FE0, 0x0010), VR::OB, PrimitiveValue::U8(pixels.into())));
    let mut file = Vec::new();
    let failed = |_| Error::new(Kind::Internal, "a segmentation object cannot be written").at(Stage::Report);
    draft.write(class, &origin.seg.instance, &mut file).map_err(failed)?;
    Ok(file)
}

/// The labels on the planes of the series.
fn labelled<'a>(mask: &'a Segmentation, origin: &Origin, control: &Control) -> Result<Labelled<'a>> {
    let (labels, [columns, rows], count) = match &origin.planes {
        Planes::Grid(grid) => {
            let [columns, rows, count] = grid.dims;
            let is_same = grid.dims == mask.geometry().dims && grid.affine_lps == mask.geometry().affine_lps;
            let labels = match is_same {
                true => Cow::Borrowed(mask.labels()),
                false => Cow::Owned(labels_to_grid(mask.labels(), mask.geometry(), grid, control)?),
            };
            (labels, [columns, rows], count)
        }
        Planes::Each(frames) => {
            let mut all = Vec::new();
            for index in 0..frames.origins.len() {
                let lost = || Error::new(Kind::Internal, "a frame without a place").at(Stage::Report);
                let grid = frames.grid(index).ok_or_else(lost)?;
                all.extend_from_slice(&labels_to_grid(mask.labels(), mask.geometry(), &grid, control)?);
            }
            (Cow::Owned(all), frames.dims, frames.origins.len())
        }
    };
    if origin.frames.len() != count {
        let detail = format!("{} frames for {count} planes", origin.frames.len());
        return Err(Error::new(Kind::OutputUnsupported, detail).at(Stage::Report));
    }
    let limit = |side: usize| u16::try_from(side).is_ok();
    if !limit(rows) || !limit(columns) {
        return Err(Error::new(Kind::OutputUnsupported, "frames of more than 65535 rows or columns").at(Stage::Report));
    }
    Ok(Labelled { labels, rows, columns, count })
}

fn plane<'a>(planes: &'a Labelled<'_>, index: usize) -> &'a [u8] {
    let area = planes.rows * planes.columns;
    planes.labels.get(index * area..(index + 1) * area).unwrap_or_default()
}

/// SOP class of a mask's object.
pub(super) fn class(kind: SegKind) -> &'static str {
    if kind == SegKind::Binary { SEGMENTATION_STORAGE } else { LABEL_MAP_SEGMENTATION_STORAGE }
}

/// Number of a label's segment.
pub(super) fn number(index: usize, label: &Label, kind: SegKind) -> u16 {
    match kind {
        // At most 255 labels.
        SegKind::Binary => index as u16 + 1,
        SegKind::LabelMap => u16::from(label.value),
    }
}

/// The frames with something in them: by segment, then by plane. An object needs one frame, so an empty mask has an empty one.
fn frames(planes: &Labelled, table: &[Label], kind: SegKind) -> Vec<Frame> {
    let present: Vec<[bool; 256]> = (0..planes.count)
        .into_par_iter()
        .map(|index| {
            let mut present = [false; 256];
            plane(planes, index).iter().for_each(|label| present[usize::from(*label)] = true);
            present
        })
        .collect();
    let mut frames: Vec<Frame> = match kind {
        SegKind::Binary => table
            .iter()
            .enumerate()
            .flat_map(|(index, label)| {
                let with = present.iter().enumerate().filter(|(_, present)| present[usize::from(label.value)]);
                with.map(move |(plane, _)| Frame { plane, segment: Some(number(index, label, kind)) })
            })
            .collect(),
        SegKind::LabelMap => {
            let with = present.iter().enumerate().filter(|(_, present)| present.iter().skip(1).any(|is| *is));
            with.map(|(plane, _)| Frame { plane, segment: None }).collect()
        }
    };
    if frames.is_empty() {
        frames.push(Frame { plane: 0, segment: (kind == SegKind::Binary).then_some(1) });
    }
    frames
}

/// The module of the image (PS3.3 C.8.20.2), but for its segments.
fn image(draft: &mut Draft, planes: &Labelled, frames: usize, kind: SegKind) {
    draft.0.put(DataElement::new(
        Tag(0x0008, 0x0008),
        VR::CS,
        PrimitiveValue::Strs(["DERIVED", "PRIMARY"].map(str::to_owned).as_slice().into()),
    ));
    let bits = if kind == SegKind::Binary { 1 } else { 8 };
    for (tag, number) in [
        (Tag(0x0028, 0x0002), 1),
        // Checked to fit.
        (Tag(0x0028, 0x0010), planes.rows as u16),
        (Tag(0x0028, 0x0011), planes.columns as u16),
        (Tag(0x0028, 0x0100), bits),
        (Tag(0x0028, 0x0101), bits),
        (Tag(0x0028, 0x0102), bits - 1),
        (Tag(0x0028, 0x0103), 0),
    ] {
        draft.number(tag, number);
    }
    if kind == SegKind::LabelMap {
        // Background.
        draft.number(Tag(0x0028, 0x0120), 0);
    }
    for (tag, vr, text) in [
        (Tag(0x0028, 0x0004), VR::CS, "MONOCHROME2"),
        (Tag(0x0028, 0x0008), VR::IS, frames.to_string().as_str()),
        (Tag(0x0062, 0x0001), VR::CS, if kind == SegKind::Binary { "BINARY" } else { "LABELMAP" }),
        (Tag(0x0062, 0x0013), VR::CS, "NO"),
        (Tag(0x0070, 0x0080), VR::CS, "SEGMENTATION"),
        (Tag(0x0070, 0x0081), VR::LO, "For research use only"),
        (Tag(0x0070, 0x0084), VR::PN, "Secure^Media Processor"),
    ] {
        draft.text(tag, vr, text);
    }
}

/// Whether the images had lost something before the mask was made of them (PS3.3 C.7.6.1.1.5).
fn carry_loss(draft: &mut Draft, origin: &Origin) {
    let is_lossy = origin.text(Tag(0x0028, 0x2110)) == "01";
    draft.text(Tag(0x0028, 0x2110), VR::CS, if is_lossy { "01" } else { "00" });
    if is_lossy {
        for tag in [Tag(0x0028, 0x2112), Tag(0x0028, 0x2114)] {
            if let Some(element) = origin.header.get(tag) {
                draft.0.put(element.clone());
            }
        }
    }
}

/// A segment: what it is and what found it.
fn segment(mask: &Segmentation, label: &Label, number: u16) -> Draft {
    let model = mask.model();
    let mut item = Draft::new();
    item.number(Tag(0x0062, 0x0004), number);
    item.text(Tag(0x0062, 0x0005), VR::LO, &cut(&label.name));
    item.text(Tag(0x0062, 0x0008), VR::CS, "AUTOMATIC");
    item.text(Tag(0x0062, 0x0009), VR::LO, &cut(&model.name));
    item.item(Tag(0x0062, 0x0007), |algorithm| {
        algorithm.code(Tag(0x0066, 0x002F), ["123109", "DCM", "Artificial Intelligence"]);
        algorithm.text(Tag(0x0066, 0x0036), VR::LO, &cut(&model.name));
        algorithm.text(Tag(0x0066, 0x0031), VR::LO, &cut(&model.version));
    });
    item.code(Tag(0x0062, 0x0003), NEUTRAL_CATEGORY);
    match &label.code {
        Some(code) => item.code(Tag(0x0062, 0x000F), [&code.value, &code.scheme, &code.meaning]),
        // A code of our own: the label's name.
        None => item.code(Tag(0x0062, 0x000F), [&format!("label-{}", label.value), "99SMP", &label.name]),
    }
    item
}

/// How the frames are ordered (PS3.3 C.7.6.17): by segment, then by place.
fn dimensions(draft: &mut Draft, kind: SegKind, has_places: bool) -> Result<()> {
    let organization = super::uid()?;
    draft.item(Tag(0x0020, 0x9221), |item| item.text(Tag(0x0020, 0x9164), VR::UI, &organization));
    let attribute = |tag: Tag| PrimitiveValue::Tags([tag].as_slice().into());
    let index = |pointer: Tag, group: Tag| {
        let mut item = Draft::new();
        item.text(Tag(0x0020, 0x9164), VR::UI, &organization);
        item.0.put(DataElement::new(Tag(0x0020, 0x9165), VR::AT, attribute(pointer)));
        item.0.put(DataElement::new(Tag(0x0020, 0x9167), VR::AT, attribute(group)));
        item
    };
    let by_segment = (kind == SegKind::Binary).then(|| index(Tag(0x0062, 0x000B), Tag(0x0062, 0x000A)));
    // Without places, the number of the plane in its stack.
    let by_place = match has_places {
        true => index(Tag(0x0020, 0x0032), Tag(0x0020, 0x9113)),
        false => index(Tag(0x0020, 0x9057), Tag(0x0020, 0x9111)),
    };
    draft.items(Tag(0x0020, 0x9222), by_segment.into_iter().chain([by_place]).collect());
    Ok(())
}

/// What holds for all frames: sizes and directions.
fn shared(origin: &Origin, has_places: bool) -> Draft {
    let mut item = Draft::new();
    let (spacing, per_column, per_row) = directions(origin);
    item.item(Tag(0x0028, 0x9110), |measures| {
        measures.decimals(Tag(0x0028, 0x0030), &[spacing[1], spacing[0]]);
        measures.decimals(Tag(0x0018, 0x0050), &[thickness(origin).unwrap_or(spacing[2])]);
        if let Planes::Grid(grid) = &origin.planes
            && grid.dims[2] > 1
        {
            measures.decimals(Tag(0x0018, 0x0088), &[spacing[2]]);
        }
    });
    if has_places {
        let cosines: Vec<f64> = per_column.into_iter().chain(per_row).collect();
        item.item(Tag(0x0020, 0x9116), |orientation| orientation.decimals(Tag(0x0020, 0x0037), &cosines));
    }
    item
}

/// Slice Thickness of the series, mm.
fn thickness(origin: &Origin) -> Option<f64> {
    origin.text(Tag(0x0018, 0x0050)).trim().parse().ok().filter(|mm: &f64| mm.is_finite() && *mm > 0.0)
}

/// Distances between columns, rows and planes; directions of a row and of a column.
fn directions(origin: &Origin) -> ([f64; 3], [f64; 3], [f64; 3]) {
    let unit = |vector: [f64; 3]| {
        let length = vector.iter().map(|part| part * part).sum::<f64>().sqrt();
        vector.map(|part| part / length)
    };
    let length = |vector: [f64; 3]| vector.iter().map(|part| part * part).sum::<f64>().sqrt();
    match &origin.planes {
        Planes::Grid(grid) => {
            let column = |index: usize| [grid.affine_lps[0][index], grid.affine_lps[1][index], grid.affine_lps[2][index]];
            (grid.spacing_mm, unit(column(0)), unit(column(1)))
        }
        Planes::Each(frames) => {
            ([length(frames.per_column), length(frames.per_row), length(frames.normal)], unit(frames.per_column), unit(frames.per_row))
        }
    }
}

/// First pixel of a plane.
fn position(origin: &Origin, plane: usize) -> Option<[f64; 3]> {
    match &origin.planes {
        Planes::Grid(Geometry { affine_lps, .. }) => {
            Some(std::array::from_fn(|axis| affine_lps[axis][3] + affine_lps[axis][2] * plane as f64))
        }
        Planes::Each(frames) => frames.origins.get(plane).copied(),
    }
}

/// What holds for one frame: segment, place, and the image that it was made of.
fn per_frame(origin: &Origin, frames: &[Frame], has_places: bool) -> Result<Vec<Draft>> {
    let lost = || Error::new(Kind::Internal, "a frame without a source").at(Stage::Report);
    frames
        .iter()
        .map(|frame| {
            let source = origin.frames.get(frame.plane).ok_or_else(lost)?;
            let place = position(origin, frame.plane).ok_or_else(lost)?;
            let mut item = Draft::new();
            item.item(Tag(0x0008, 0x9124), |derivation| {
                derivation.code(Tag(0x0008, 0x9215), ["113076", "DCM", "Segmentation"]);
                derivation.items(Tag(0x0008, 0x2112), vec![source_image(source)]);
            });
            item.item(Tag(0x0020, 0x9111), |content| {
                let index = u32::try_from(frame.plane).unwrap_or(u32::MAX - 1) + 1;
                let values: Vec<u32> = frame.segment.map(u32::from).into_iter().chain([index]).collect();
                content.0.put(DataElement::new(Tag(0x0020, 0x9157), VR::UL, PrimitiveValue::U32(values.into())));
                if !has_places {
                    content.text(Tag(0x0020, 0x9056), VR::SH, "1");
                    content.0.put(DataElement::new(Tag(0x0020, 0x9057), VR::UL, PrimitiveValue::from(index)));
                }
            });
            if has_places {
                item.item(Tag(0x0020, 0x9113), |item| item.decimals(Tag(0x0020, 0x0032), &place));
            }
            if let Some(segment) = frame.segment {
                item.item(Tag(0x0062, 0x000A), |item| item.number(Tag(0x0062, 0x000B), segment));
            }
            Ok(item)
        })
        .collect()
}

fn source_image(source: &SourceFrame) -> Draft {
    let mut item = source.reference();
    if let Some(frame) = source.frame {
        item.text(Tag(0x0008, 0x1160), VR::IS, &frame.to_string());
    }
    item.text(Tag(0x0028, 0x135A), VR::CS, "YES");
    item.code(Tag(0x0040, 0xA170), ["121322", "DCM", "Source image for image processing operation"]);
    item
}

/// Frames as bits, the first pixel in the lowest (PS3.5 section 8.1.1); a frame begins where the last one ended, also within a byte.
fn packed(planes: &Labelled, frames: &[Frame], table: &[Label]) -> Vec<u8> {
    let area = planes.rows * planes.columns;
    let value_of = |frame: &Frame| frame.segment.and_then(|segment| table.get(usize::from(segment) - 1)).map_or(0, |label| label.value);
    let wanted: Vec<(usize, u8)> = frames.iter().map(|frame| (frame.plane, value_of(frame))).collect();
    let bit = |at: usize| -> u8 {
        let (frame, pixel) = (at / area, at % area);
        let Some((index, value)) = wanted.get(frame) else { return 0 };
        u8::from(*value != 0 && plane(planes, *index).get(pixel) == Some(value))
    };
    let mut bytes = vec![0u8; (area * frames.len()).div_ceil(8)];
    if area.is_multiple_of(8) {
        bytes.par_chunks_mut((area / 8).max(1)).zip(&wanted).for_each(|(out, (index, value))| {
            let (pixels, _) = plane(planes, *index).as_chunks::<8>();
            for (out, pixels) in out.iter_mut().zip(pixels) {
                *out = pixels.iter().enumerate().map(|(bit, label)| u8::from(label == value && *value != 0) << bit).sum();
            }
        });
    } else {
        bytes.par_iter_mut().enumerate().for_each(|(at, out)| *out = (0..8).map(|place| bit(at * 8 + place) << place).sum());
    }
    bytes
}
