//! Siemens mosaics: a volume whose slices are the tiles of one image.
//!
//! [`layout`] knows how the tiles lie in the image and in the patient, [`csa`] reads the maker's own header, in which the number of slices
//! and their direction stand.

mod csa;
mod layout;

use dicom_core::value::PrimitiveValue;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::attributes::{has_value, private, private_numbers};
use super::geometry::Plane;
use super::scan::Shape;
use crate::error::Result;

pub(super) use layout::{Mosaic, Place};

/// The mosaic that an image is, if it is one.
pub(super) fn read(dataset: &InMemDicomObject, shape: &Shape) -> Result<Option<Mosaic>> {
    if shape.frames != 1 || !has_value(dataset, tags::IMAGE_TYPE, "MOSAIC") {
        return Ok(None);
    }
    let in_csa = shadow(dataset, "NumberOfImagesInMosaic")?;
    let count = layout::count(
        in_csa.as_deref(),
        private_numbers(dataset, 0x0019, "SIEMENS MR HEADER", 0x0A).and_then(|values| values.first().copied()),
    )?;
    Mosaic::new(shape.columns as usize, shape.rows as usize, count).map(Some)
}

/// Where a mosaic lies: what its header says of the whole image, and the direction of its slices.
pub(super) fn place(dataset: &InMemDicomObject, whole: &Plane) -> Result<Place> {
    let Plane { position, orientation, spacing, thickness, .. } = *whole;
    let in_csa = shadow(dataset, "SliceNormalVector")?;
    Ok(Place { position, orientation, spacing, thickness, normal: layout::normal(in_csa.as_deref())? })
}

/// Values of CSA Image Header Info, (0029,xx10) of the block SIEMENS CSA HEADER.
fn shadow(dataset: &InMemDicomObject, wanted: &str) -> Result<Option<Vec<String>>> {
    let element = private(dataset, 0x0029, "SIEMENS CSA HEADER", 0x10);
    match element.and_then(|element| element.value().primitive()) {
        Some(PrimitiveValue::U8(bytes)) => csa::read(bytes, wanted),
        _ => Ok(None),
    }
}
