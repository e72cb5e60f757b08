//! Stored samples to voxels: bits, sign, and the modality transformation.
//!
//! Voxels are what the scanner meant after the modality transformation (PS3.3 section C.11.1): Hounsfield units for CT, stored values
//! where an image defines none. They are computed in `f64` and rounded once to `f32`. Nothing is windowed, and MONOCHROME1 is not
//! inverted: its voxels keep the numbers of the file, and only a viewer would show low ones bright. Pixels in colour become three volumes (`colour`).

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::attributes::{functional_group, item, number, numbers, text, words};
use super::codecs::Samples;
use super::colour::{Colour, Palette};
use super::scan::{Pixels, Scanned};
use crate::error::{Error, Kind, Result};

/// What the bits of a sample mean (PS3.5 section 8.1.1).
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Format {
    Integer {
        /// Bits Stored.
        stored: u32,
        /// High Bit.
        high: u32,
        /// Pixel Representation.
        signed: bool,
        colour: Colour,
    },
    Float,
}

impl Format {
    pub(super) fn colour(self) -> Colour {
        match self {
            Format::Integer { colour, .. } => colour,
            Format::Float => Colour::Gray,
        }
    }
}

/// From stored values to voxels.
pub(super) enum Transform {
    Linear {
        slope: f64,
        intercept: f64,
    },
    Table {
        first: i64,
        values: Vec<f32>,
    },
    /// From stored values to red, green and blue.
    Palette(Palette),
}

/// Reads an image's format and says what about it is not supported.
pub(super) fn format(file: &Scanned, dataset: &InMemDicomObject) -> Result<Format> {
    let unsupported = |what: String| Err(Error::new(Kind::PixelsUnsupported, what));
    let interpretation = text(dataset, tags::PHOTOMETRIC_INTERPRETATION);
    let interpretation = interpretation.ok_or_else(|| Error::new(Kind::DicomMalformed, "the photometric interpretation is missing"))?;
    let colour = Colour::of(&interpretation, file)?;
    if file.shape.samples as usize != colour.stored() {
        let detail = format!("{} samples per pixel, of which {} are expected", file.shape.samples, colour.stored());
        return Err(Error::new(Kind::DicomMalformed, detail));
    }
    let tag = match &file.pixels {
        Pixels::Native { tag, .. } => *tag,
        Pixels::Encapsulated { .. } => tags::PIXEL_DATA,
    };
    // Float and double pixel data have no bits stored and no sign bit of their own (PS3.3 section C.7.6.24).
    if tag != tags::PIXEL_DATA {
        return Ok(Format::Float);
    }
    let allocated = file.shape.bits;
    if !matches!(allocated, 8 | 16 | 32) {
        return unsupported(format!("{allocated} bits allocated per sample; 8, 16 and 32 are supported"));
    }
    // Both are required; files without them mean the whole of what is allocated.
    let stored = whole(dataset, tags::BITS_STORED)?.unwrap_or(allocated);
    let high = whole(dataset, tags::HIGH_BIT)?.unwrap_or(stored.saturating_sub(1));
    if stored == 0 || stored > allocated || high >= allocated || high + 1 < stored {
        let detail = format!("{stored} bits stored up to bit {high} of {allocated} bits allocated");
        return Err(Error::new(Kind::DicomMalformed, detail));
    }
    let signed = whole(dataset, tags::PIXEL_REPRESENTATION)?.unwrap_or(0) != 0;
    if colour != Colour::Gray && (allocated == 32 || signed) {
        return unsupported("pixels in colour of 32 bits or with a sign".to_owned());
    }
    Ok(Format::Integer { stored, high, signed, colour })
}

/// Reads the modality transformation of a frame: its own functional group, the shared one, or the image's (PS3.3 sections C.7.6.16.2.9,
/// C.11.1). A slope without an intercept, or the other way round, counts as 1 or 0.
pub(super) fn transform(dataset: &InMemDicomObject, frame: usize, format: Format) -> Result<Transform> {
    // The modality transformation is for one number per pixel.
    match format.colour() {
        Colour::Gray => {}
        Colour::Palette => return Palette::read(dataset, format).map(Transform::Palette),
        _ => return Ok(Transform::Linear { slope: 1.0, intercept: 0.0 }),
    }
    // An enhanced image's own groups win over attributes of its root, which converters leave behind.
    let group = functional_group(dataset, frame, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE);
    if group.is_none()
        && let Some(table) = item(dataset, tags::MODALITY_LUT_SEQUENCE, 0)
    {
        return look_up_table(table, format);
    }
    let from = group.unwrap_or(dataset);
    let slope = number(from, tags::RESCALE_SLOPE)?.unwrap_or(1.0);
    let intercept = number(from, tags::RESCALE_INTERCEPT)?.unwrap_or(0.0);
    // A slope of 0 would make every voxel the intercept.
    if slope == 0.0 {
        return Err(Error::new(Kind::DicomMalformed, "the rescale slope is 0"));
    }
    Ok(Transform::Linear { slope, intercept })
}

/// Whether a frame's transformation is a table of the image's, which is then read once: tables are large, and an image may have many small frames.
pub(super) fn shares_transform(dataset: &InMemDicomObject, frame: usize, format: Format) -> bool {
    format.colour() != Colour::Gray
        || (dataset.get(tags::MODALITY_LUT_SEQUENCE).is_some()
            && functional_group(dataset, frame, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE).is_none())
}

/// Writes the voxels of one frame of one sample per pixel.
pub(super) fn render(samples: &Samples<'_>, format: Format, transform: &Transform, voxels: &mut [f32]) -> Result<()> {
    match (format, samples.width) {
        (Format::Float, 4) => fill(samples, voxels, transform, |word: [u8; 4]| f64::from(f32::from_le_bytes(word))),
        (Format::Float, 8) => fill(samples, voxels, transform, f64::from_le_bytes),
        (Format::Integer { .. }, 1 | 2 | 4) => integers(samples, format, transform, voxels),
        _ => Err(Error::new(Kind::PixelsUnsupported, format!("samples of {} bytes", samples.width))),
    }
}

/// Integer samples of one, two or four bytes.
fn integers(samples: &Samples<'_>, format: Format, transform: &Transform, voxels: &mut [f32]) -> Result<()> {
    let unpack = unpacking(samples, format)?;
    // The width is fixed per call, so each arm becomes a loop without branches.
    let source = Source { bytes: samples.bytes(), big_endian: samples.big_endian };
    match samples.width {
        1 => source.fill(voxels, transform, |word: [u8; 1]| unpack.value(u32::from(word[0]))),
        2 => source.fill(voxels, transform, |word| unpack.value(u32::from(u16::from_le_bytes(word)))),
        _ => source.fill(voxels, transform, |word| unpack.value(u32::from_le_bytes(word))),
    }
}

/// How the bits of a stored word become its value.
#[derive(Clone, Copy)]
pub(super) struct Unpacking {
    up: u32,
    down: u32,
    signed: bool,
    /// Stored bits: the largest value of an unsigned sample is one less than two to their power.
    pub(super) bits: u32,
}

impl Unpacking {
    #[inline(always)]
    pub(super) fn value(self, raw: u32) -> f64 {
        match self.signed {
            true => f64::from((raw << self.up).cast_signed() >> self.down),
            false => f64::from((raw << self.up) >> self.down),
        }
    }
}

/// Works out which bits of a decoded sample are its value.
pub(super) fn unpacking(samples: &Samples<'_>, format: Format) -> Result<Unpacking> {
    let Format::Integer { stored, high, signed, .. } = format else { return Err(Error::new(Kind::Internal, "an integer format is lost")) };
    let (bits, high) = match samples.precision {
        None => (stored, high),
        // Where a compressed sample's bits sit is the stream's matter; a shifted high bit has no meaning there.
        Some(_) if high + 1 != stored => {
            return Err(Error::new(Kind::PixelsUnsupported, format!("compressed samples of {stored} bits below bit {high}")));
        }
        // A lossy decoder may pass the range of the stored bits a little; its samples are whole numbers of the stream's own precision.
        Some(precision) if samples.is_lossy => (precision, precision - 1),
        Some(precision) => (precision.min(stored), precision.min(stored) - 1),
    };
    // Shifting up drops what lies above the stored bits (old overlays), shifting down what lies below and brings the sign.
    Ok(Unpacking { up: 31 - high, down: 32 - bits, signed, bits })
}

/// Real numbers.
fn fill<const N: usize>(samples: &Samples<'_>, voxels: &mut [f32], transform: &Transform, value: impl Fn([u8; N]) -> f64) -> Result<()> {
    Source { bytes: samples.bytes(), big_endian: samples.big_endian }.fill(voxels, transform, value)
}

/// Words in one byte order.
struct Source<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Source<'_> {
    /// Each word of `N` little-endian bytes becomes a voxel.
    fn fill<const N: usize>(&self, voxels: &mut [f32], transform: &Transform, value: impl Fn([u8; N]) -> f64) -> Result<()> {
        let (words, _) = self.bytes.as_chunks::<N>();
        if words.len() < voxels.len() {
            return Err(Error::new(Kind::PixelsUndecodable, format!("{} samples for {} voxels", words.len(), voxels.len())));
        }
        let reversed = |mut word: [u8; N]| {
            word.reverse();
            word
        };
        // PS3.3 equation C.11.1: output = slope x stored + intercept, product and sum each rounded once as numpy does, then one rounding
        // to f32.
        match (transform, self.big_endian) {
            (Transform::Linear { slope, intercept }, false) => {
                words.iter().zip(voxels).for_each(|(word, voxel)| *voxel = (value(*word) * slope + intercept) as f32);
            }
            (Transform::Linear { slope, intercept }, true) => {
                words.iter().zip(voxels).for_each(|(word, voxel)| *voxel = (value(reversed(*word)) * slope + intercept) as f32);
            }
            (Transform::Table { first, values }, big_endian) => {
                let last = values.len().saturating_sub(1);
                for (word, voxel) in words.iter().zip(voxels) {
                    let stored = value(if big_endian { reversed(*word) } else { *word }) as i64;
                    // A value below the first takes entry 0, one above the last takes the last.
                    let index = usize::try_from(stored.saturating_sub(*first)).unwrap_or(0).min(last);
                    *voxel = values.get(index).copied().unwrap_or_default();
                }
            }
            (Transform::Palette(_), _) => return Err(Error::new(Kind::Internal, "a palette makes three volumes")),
        }
        Ok(())
    }
}

/// PS3.3 section C.11.1.1: entries (0 means 65536), first value mapped, bits per entry. Values beyond the ends take the end's entry.
fn look_up_table(table: &InMemDicomObject, format: Format) -> Result<Transform> {
    let wrong = |what: &str| Error::new(Kind::DicomMalformed, format!("the modality look-up table {what}"));
    let Format::Integer { signed, .. } = format else { return Err(wrong("belongs to an image of real numbers")) };
    let descriptor = numbers(table, tags::LUT_DESCRIPTOR)?.ok_or_else(|| wrong("has no descriptor"))?;
    let [entries, first, bits] = descriptor.as_slice() else { return Err(wrong("has a descriptor of another size than 3")) };
    // The descriptor is US or SS as the pixels are unsigned or signed, but its count is never negative.
    let entries = match (*entries as i64).rem_euclid(1 << 16) {
        0 => 1usize << 16,
        entries => entries as usize,
    };
    let first = match signed && *first > 32767.0 {
        true => *first as i64 - (1 << 16),
        false => *first as i64,
    };
    let data = words(table, tags::LUT_DATA).ok_or_else(|| wrong("has no data"))?;
    let values: Vec<f32> = match data.len() {
        count if count == entries => data.iter().map(|value| f32::from(*value)).collect(),
        // Entries of 8 bits may be packed two to a word.
        count if *bits <= 8.0 && count == entries.div_ceil(2) => {
            data.iter().flat_map(|pair| pair.to_le_bytes()).take(entries).map(f32::from).collect()
        }
        count => return Err(wrong(&format!("has {count} entries instead of {entries}"))),
    };
    Ok(Transform::Table { first, values })
}

/// A whole number that is not negative.
fn whole(dataset: &InMemDicomObject, tag: Tag) -> Result<Option<u32>> {
    Ok(number(dataset, tag)?.filter(|value| (0.0..=f64::from(u16::MAX)).contains(value)).map(|value| value as u32))
}
