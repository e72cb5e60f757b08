//! A small made-up MR study, written as DICOM by dicom-object, with identifiers to look for afterwards.

use std::path::Path;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

/// Identifiers that must not survive anywhere.
pub const PATIENT_NAME: &str = "Canary^Quetzal";
pub const PATIENT_ID: &str = "MRN-7714203";
pub const INSTITUTION: &str = "Sankt Beispiel Klinikum";

pub const COLUMNS: usize = 24;
pub const ROWS: usize = 20;
pub const SLICES: usize = 12;

/// Stored value of a voxel: a bright blob in the middle of a ramp.
pub fn stored(column: usize, row: usize, slice: usize) -> u16 {
    let distance = column.abs_diff(COLUMNS / 2) + row.abs_diff(ROWS / 2) + slice.abs_diff(SLICES / 2);
    let blob = if distance < 5 { 900 } else { 0 };
    (100 + 3 * column + 5 * row + 7 * slice + blob) as u16
}

/// Writes the study; the names of the files tell nothing of their order.
pub fn write(folder: &Path) {
    write_with(folder, |_, _| {});
}

/// Writes the study, after a change to each slice's dataset.
pub fn write_with(folder: &Path, change: impl Fn(usize, &mut InMemDicomObject)) {
    std::fs::create_dir_all(folder).unwrap();
    for slice in 0..SLICES {
        let mut dataset = dataset(slice);
        change(slice, &mut dataset);
        let object = dataset
            .with_meta(
                FileMetaTableBuilder::new().transfer_syntax("1.2.840.10008.1.2.1").media_storage_sop_class_uid("1.2.840.10008.5.1.4.1.1.4"),
            )
            .unwrap();
        object.write_to_file(folder.join(format!("{:04x}", (slice * 7 + 3) % SLICES + 100))).unwrap();
    }
}

fn dataset(slice: usize) -> InMemDicomObject {
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
    let number = |tag, value: usize| DataElement::new(tag, VR::US, PrimitiveValue::from(u16::try_from(value).unwrap()));
    let mut pixels = Vec::with_capacity(ROWS * COLUMNS);
    for row in 0..ROWS {
        for column in 0..COLUMNS {
            pixels.push(stored(column, row, slice));
        }
    }
    let position = format!("-12\\-10\\{}", slice as f64 * 2.5 - 15.0);
    InMemDicomObject::from_element_iter([
        text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192"),
        text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\M"),
        text(tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.4"),
        text(tags::SOP_INSTANCE_UID, VR::UI, &format!("1.2.826.0.1.3680043.8.498.1.{}", slice + 1)),
        text(tags::STUDY_DATE, VR::DA, "20240229"),
        text(tags::STUDY_TIME, VR::TM, "101530"),
        text(tags::ACCESSION_NUMBER, VR::SH, "ACC-99120"),
        text(tags::MODALITY, VR::CS, "MR"),
        text(tags::MANUFACTURER, VR::LO, "Example Scanners"),
        text(tags::INSTITUTION_NAME, VR::LO, INSTITUTION),
        text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, "Weatherwax^Esmerelda"),
        text(tags::PATIENT_NAME, VR::PN, PATIENT_NAME),
        text(tags::PATIENT_ID, VR::LO, PATIENT_ID),
        text(tags::PATIENT_BIRTH_DATE, VR::DA, "19610317"),
        text(tags::PATIENT_SEX, VR::CS, "F"),
        text(tags::SLICE_THICKNESS, VR::DS, "2.5"),
        text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.826.0.1.3680043.8.498.2"),
        text(tags::SERIES_INSTANCE_UID, VR::UI, "1.2.826.0.1.3680043.8.498.3"),
        text(tags::FRAME_OF_REFERENCE_UID, VR::UI, "1.2.826.0.1.3680043.8.498.4"),
        text(tags::SERIES_NUMBER, VR::IS, "4"),
        text(tags::INSTANCE_NUMBER, VR::IS, &(slice + 1).to_string()),
        text(tags::IMAGE_POSITION_PATIENT, VR::DS, &position),
        text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0"),
        text(tags::PIXEL_SPACING, VR::DS, "1.5\\1.25"),
        number(tags::SAMPLES_PER_PIXEL, 1),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        number(tags::ROWS, ROWS),
        number(tags::COLUMNS, COLUMNS),
        number(tags::BITS_ALLOCATED, 16),
        number(tags::BITS_STORED, 12),
        number(tags::HIGH_BIT, 11),
        number(tags::PIXEL_REPRESENTATION, 0),
        text(tags::RESCALE_INTERCEPT, VR::DS, "-10"),
        text(tags::RESCALE_SLOPE, VR::DS, "2"),
        DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into())),
    ])
}
