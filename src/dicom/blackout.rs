//! Regions of frames whose stored values are overwritten before anything is made of them: text that a machine burned into the pixels.
//!
//! Which regions those are is for others to say ([`RegionsOf`]); here they are filled, in every frame of an image and before its voxels are
//! computed, so a volume and a file of the same image cannot differ. Gray pixels get the darkest value of their frame, which adds no value that was not there
//! (the largest where MONOCHROME1 shows large values dark), pixels in colour get black.

use std::sync::Arc;

use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::attributes::text;
use super::codecs::Samples;
use super::colour::{Colour, Palette};
use super::pixels::{Format, unpacking};
use super::scan::Shape;
use crate::error::{Error, Kind, Result};

/// A rectangle of stored pixels; what lies beyond the frame is no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region {
    /// First column, from 0.
    pub left: u32,
    /// First row, from 0.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Says by an image's header which regions of its frames are overwritten.
pub type RegionsOf = Arc<dyn Fn(&InMemDicomObject) -> Vec<Region> + Send + Sync>;

/// What is overwritten in an image, and with what.
#[derive(Clone, Default)]
pub(super) struct Blackout {
    pub(super) regions: Vec<Region>,
    dark: Dark,
}

/// Where black is found.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
enum Dark {
    #[default]
    Lowest,
    Highest,
    /// A stored value: the palette's darkest colour.
    Value(u32),
    Rgb,
    Ybr,
}

impl Blackout {
    /// Works out what black is in an image; nothing where no region is asked for.
    pub(super) fn new(regions: Vec<Region>, dataset: &InMemDicomObject, format: Format) -> Result<Blackout> {
        if regions.is_empty() {
            return Ok(Blackout::default());
        }
        let dark = match format.colour() {
            Colour::Gray if text(dataset, tags::PHOTOMETRIC_INTERPRETATION).as_deref() == Some("MONOCHROME1") => Dark::Highest,
            Colour::Gray => Dark::Lowest,
            Colour::Palette => Dark::Value(Palette::read(dataset, format)?.darkest()),
            Colour::Rgb => Dark::Rgb,
            Colour::Ybr => Dark::Ybr,
        };
        Ok(Blackout { regions, dark })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The samples of a frame without what stood in the regions.
    pub(super) fn apply<'a>(&self, samples: Samples<'a>, shape: &Shape, format: Format) -> Result<Samples<'a>> {
        if self.is_empty() {
            return Ok(samples);
        }
        let width = samples.width;
        let columns = shape.columns as usize;
        let pixels = columns * shape.rows as usize;
        let black = self.black(&samples, format)?;
        let (planar, subsampled) = (samples.is_planar, samples.is_subsampled);
        Ok(samples.changed(|bytes| {
            let mut put = |sample: usize, value: &[u8]| {
                if let Some(place) = bytes.get_mut(sample * width..(sample + 1) * width) {
                    place.copy_from_slice(value);
                }
            };
            for row in self.regions.iter().flat_map(|region| rows(region, shape)) {
                for pixel in row {
                    match black.as_slice() {
                        [gray] => put(pixel, gray),
                        // Two pixels share four samples: both luminances, then the two differences of colour.
                        [luminance, blue, red] if subsampled => {
                            let pair = pixel / 2 * 4;
                            [luminance, luminance, blue, red].into_iter().enumerate().for_each(|(at, value)| put(pair + at, value));
                        }
                        colours => {
                            for (colour, value) in colours.iter().enumerate() {
                                put(if planar { colour * pixels + pixel } else { pixel * colours.len() + colour }, value);
                            }
                        }
                    }
                }
            }
        }))
    }

    /// The bytes of black, one sample after the other.
    fn black(&self, samples: &Samples<'_>, format: Format) -> Result<Vec<Vec<u8>>> {
        let encoded = |value: u32| {
            let mut bytes = value.to_le_bytes().get(..samples.width).unwrap_or_default().to_vec();
            if samples.big_endian {
                bytes.reverse();
            }
            bytes
        };
        Ok(match self.dark {
            Dark::Lowest => vec![extreme(samples, format, 1.0)?],
            Dark::Highest => vec![extreme(samples, format, -1.0)?],
            Dark::Value(index) => vec![encoded(index)],
            Dark::Rgb => vec![encoded(0); 3],
            // Differences of colour are counted from the middle (PS3.3 section C.7.6.3.1.2).
            Dark::Ybr => {
                let middle = encoded(1 << unpacking(samples, format)?.bits.saturating_sub(1).min(31));
                vec![encoded(0), middle.clone(), middle]
            }
        })
    }
}

/// The stored bytes of the smallest sample of a frame, or with a sign of -1 of the largest.
fn extreme(samples: &Samples<'_>, format: Format, sign: f64) -> Result<Vec<u8>> {
    let unpack = match format {
        Format::Integer { .. } => Some(unpacking(samples, format)?),
        Format::Float => None,
    };
    let value = |sample: &[u8]| -> f64 {
        let mut word = [0u8; 8];
        for (place, byte) in word.iter_mut().zip(sample) {
            *place = *byte;
        }
        if samples.big_endian {
            word.get_mut(..sample.len()).unwrap_or_default().reverse();
        }
        let number = u64::from_le_bytes(word);
        match unpack {
            Some(unpack) => unpack.value(number as u32),
            None if sample.len() == 4 => f64::from(f32::from_bits(number as u32)),
            None => f64::from_bits(number),
        }
    };
    let numbers = samples.bytes().chunks_exact(samples.width.max(1)).filter(|sample| value(sample).is_finite());
    let darkest = numbers.min_by(|a, b| (sign * value(a)).total_cmp(&(sign * value(b))));
    darkest.map(<[u8]>::to_vec).ok_or_else(|| Error::new(Kind::PixelsUndecodable, "a frame without a number"))
}

/// Pixels of a region, row by row, as far as they lie in the frame.
fn rows(region: &Region, shape: &Shape) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let Region { left, top, width, height } = *region;
    let columns = shape.columns;
    let (left, right) = (left.min(columns) as usize, left.saturating_add(width).min(columns) as usize);
    (top.min(shape.rows)..top.saturating_add(height).min(shape.rows)).map(move |row| {
        let start = row as usize * columns as usize;
        start + left..start + right
    })
}
