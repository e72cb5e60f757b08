//! Pixels in colour to three volumes: red, green and blue.
//!
//! Colour spaces and their equations are those of PS3.3 section C.7.6.3.1.2, palettes those of sections C.7.6.3.1.5, C.7.6.3.1.6 and C.7.9. Values are
//! the stored ones, or the entries of the palette; converted ones are rounded to whole numbers and kept within the range of the stored bits, as viewers do.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::attributes::{numbers, words};
use super::codecs::Samples;
use super::pixels::{Format, Transform, Unpacking, unpacking};
use super::scan::{Pixels, Scanned};
use crate::error::{Error, Kind, Result};

/// What the samples of a pixel mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Colour {
    /// One number.
    Gray,
    /// One number that stands for a colour.
    Palette,
    Rgb,
    /// Luminance and two differences of colour, of full range.
    Ybr,
}

impl Colour {
    /// Reads the photometric interpretation. A compressed stream with a colour transformation of its own (YBR_ICT, YBR_RCT) comes as RGB from its decoder.
    pub(super) fn of(interpretation: &str, file: &Scanned) -> Result<Colour> {
        let is_compressed = matches!(file.pixels, Pixels::Encapsulated { .. });
        match interpretation {
            "MONOCHROME1" | "MONOCHROME2" => Ok(Colour::Gray),
            "PALETTE COLOR" => Ok(Colour::Palette),
            "RGB" => Ok(Colour::Rgb),
            "YBR_ICT" | "YBR_RCT" if is_compressed => Ok(Colour::Rgb),
            "YBR_FULL" | "YBR_FULL_422" => Ok(Colour::Ybr),
            other => Err(Error::new(Kind::PixelsUnsupported, format!("{} pixels", known(other)))),
        }
    }

    /// Samples per stored pixel.
    pub(super) fn stored(self) -> usize {
        if matches!(self, Colour::Gray | Colour::Palette) { 1 } else { 3 }
    }

    /// Volumes that the pixels make.
    pub(super) fn volumes(self) -> usize {
        if self == Colour::Gray { 1 } else { 3 }
    }
}

/// A photometric interpretation of PS3.3 section C.7.6.3.1.2; anything else in its place is not repeated.
fn known(interpretation: &str) -> &'static str {
    const KNOWN: [&str; 8] = ["YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "HSV", "ARGB", "CMYK", "XYB"];
    KNOWN.into_iter().find(|known| *known == interpretation).unwrap_or("unknown")
}

/// The three tables of a palette.
pub(super) struct Palette {
    /// Stored value of the first entry.
    first: i64,
    tables: [Vec<f32>; 3],
}

/// Descriptor, data and segmented data of one colour.
const TABLES: [[Tag; 3]; 3] = [
    [
        tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
        tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    ],
    [
        tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
        tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        tags::SEGMENTED_GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    ],
    [
        tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
        tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        tags::SEGMENTED_BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    ],
];

fn wrong(what: &str) -> Error {
    Error::new(Kind::DicomMalformed, format!("a palette {what}"))
}

impl Palette {
    /// Reads the palette of an image.
    pub(super) fn read(dataset: &InMemDicomObject, format: Format) -> Result<Palette> {
        let Format::Integer { .. } = format else { return Err(wrong("belongs to an image of real numbers")) };
        let mut firsts = Vec::with_capacity(3);
        let mut tables: [Vec<f32>; 3] = Default::default();
        for (table, [descriptor, data, segmented]) in tables.iter_mut().zip(TABLES) {
            let described = numbers(dataset, descriptor)?.ok_or_else(|| wrong("has no descriptor"))?;
            let [entries, first, bits] = described.as_slice() else { return Err(wrong("has a descriptor of another size than 3")) };
            // Numbers of 16 bits; 0 means 65536.
            let entries = match (*entries as i64).rem_euclid(1 << 16) {
                0 => 1usize << 16,
                entries => entries as usize,
            };
            firsts.push((*first as i64).rem_euclid(1 << 16));
            let values = match (words(dataset, data), words(dataset, segmented)) {
                (Some(data), _) => data,
                (None, Some(segments)) => expand(&segments, entries)?,
                (None, None) => return Err(wrong("has no data")),
            };
            *table = match values.len() {
                count if count == entries => values.iter().map(|value| f32::from(*value)).collect(),
                // Entries of 8 bits may be packed two to a word.
                count if *bits <= 8.0 && count == entries.div_ceil(2) => {
                    values.iter().flat_map(|pair| pair.to_le_bytes()).take(entries).map(f32::from).collect()
                }
                count => return Err(wrong(&format!("has {count} entries instead of {entries}"))),
            };
        }
        match firsts.as_slice() {
            [a, b, c] if a == b && b == c => Ok(Palette { first: *a, tables }),
            _ => Err(wrong("has tables that begin at different values")),
        }
    }
}

impl Palette {
    /// The stored value of the darkest colour, the first of several.
    pub(super) fn darkest(&self) -> u32 {
        let [red, green, blue] = &self.tables;
        let light = |entry: &usize| [red, green, blue].iter().filter_map(|table| table.get(*entry)).sum::<f32>();
        let entry = (0..red.len()).min_by(|a, b| light(a).total_cmp(&light(b))).unwrap_or(0);
        (self.first + entry as i64) as u32
    }
}

/// A segmented table (PS3.3 section C.7.9.2): discrete entries, straight lines, and copies of segments before. It makes at most as many entries as described.
fn expand(segments: &[u16], entries: usize) -> Result<Vec<u16>> {
    let cut = || wrong("has a segment that is cut short");
    let mut out: Vec<u16> = Vec::new();
    // A line begins at the entry before it.
    let one = |at: usize, out: &mut Vec<u16>| -> Result<usize> {
        let (Some(kind), Some(count)) = (segments.get(at), segments.get(at + 1)) else { return Err(cut()) };
        let count = usize::from(*count);
        if out.len() + count > entries {
            return Err(wrong("has segments of more entries than its descriptor says"));
        }
        match kind {
            0 => {
                out.extend(segments.get(at + 2..at + 2 + count).ok_or_else(cut)?);
                Ok(at + 2 + count)
            }
            1 => {
                let end = *segments.get(at + 2).ok_or_else(cut)?;
                let start = *out.last().ok_or_else(|| wrong("begins with a line"))?;
                let (from, to) = (f64::from(start), f64::from(end));
                out.extend((1..=count).map(|step| (from + (to - from) * step as f64 / count as f64).round() as u16));
                Ok(at + 3)
            }
            _ => Err(wrong("has a segment of an unknown kind")),
        }
    };
    let mut at = 0;
    while at < segments.len() && out.len() < entries {
        if segments[at] != 2 {
            at = one(at, &mut out)?;
            continue;
        }
        // Indirect: so many segments from a byte offset, in two words, low one first; they are never indirect themselves.
        let (Some(count), Some([low, high])) = (segments.get(at + 1), segments.get(at + 2..at + 4)) else { return Err(cut()) };
        let mut from = ((usize::from(*high) << 16) | usize::from(*low)) / 2;
        for _ in 0..*count {
            from = one(from, &mut out)?;
        }
        at += 4;
    }
    Ok(out)
}

/// Writes the red, green and blue voxels of one frame.
pub(super) fn render(samples: &Samples<'_>, format: Format, transform: &Transform, volumes: [&mut [f32]; 3]) -> Result<()> {
    let Format::Integer { colour, .. } = format else { return Err(Error::new(Kind::Internal, "colours are whole numbers")) };
    let unpack = unpacking(samples, format)?;
    let bytes = samples.bytes();
    let source = Pixel3 { samples, colour, unpack, transform };
    match samples.width {
        1 => source.each(bytes.as_chunks::<1>().0, |[byte]| u32::from(byte), volumes),
        2 if samples.big_endian => source.each(bytes.as_chunks::<2>().0, |word| u32::from(u16::from_be_bytes(word)), volumes),
        2 => source.each(bytes.as_chunks::<2>().0, |word| u32::from(u16::from_le_bytes(word)), volumes),
        width => Err(Error::new(Kind::PixelsUnsupported, format!("samples in colour of {width} bytes"))),
    }
}

/// What is known of the pixels of a frame.
struct Pixel3<'a> {
    samples: &'a Samples<'a>,
    colour: Colour,
    unpack: Unpacking,
    transform: &'a Transform,
}

impl Pixel3<'_> {
    fn each<W: Copy>(&self, words: &[W], raw: impl Fn(W) -> u32, [red, green, blue]: [&mut [f32]; 3]) -> Result<()> {
        let (pixels, unpack) = (red.len(), self.unpack);
        let too_few = || Error::new(Kind::PixelsUndecodable, format!("{} samples for {pixels} pixels in colour", words.len()));
        let value = |word: W| unpack.value(raw(word));
        let voxels = red.iter_mut().zip(green.iter_mut()).zip(blue.iter_mut());
        if let (Colour::Palette, Transform::Palette(palette)) = (self.colour, self.transform) {
            let words = words.get(..pixels).ok_or_else(too_few)?;
            for (word, ((red, green), blue)) in words.iter().zip(voxels) {
                let offset = (value(*word) as i64).saturating_sub(palette.first).max(0) as usize;
                for (voxel, table) in [red, green, blue].into_iter().zip(&palette.tables) {
                    // A value beyond the ends takes the end's entry.
                    *voxel = table.get(offset.min(table.len().saturating_sub(1))).copied().unwrap_or_default();
                }
            }
            return Ok(());
        }
        let most = f64::from(u32::MAX >> (32 - unpack.bits.clamp(1, 32)));
        let middle = ((most + 1.0) / 2.0).floor();
        let convert = |[a, b, c]: [f64; 3]| match self.colour {
            // PS3.3 section C.7.6.3.1.2, solved for red, green and blue.
            Colour::Ybr => {
                let (cb, cr) = (b - middle, c - middle);
                [a + 1.402 * cr, a - 0.344_136 * cb - 0.714_136 * cr, a + 1.772 * cb].map(|value| value.round().clamp(0.0, most))
            }
            _ => [a, b, c],
        };
        let put = |((red, green), blue): ((&mut f32, &mut f32), &mut f32), samples: [f64; 3]| {
            let [r, g, b] = convert(samples);
            (*red, *green, *blue) = (r as f32, g as f32, b as f32);
        };
        if self.samples.is_subsampled {
            // Two pixels share their differences of colour: Y, Y, Cb, Cr.
            let pairs = words.get(..pixels * 2).ok_or_else(too_few)?.as_chunks::<4>().0;
            let pairs = pairs.iter().flat_map(|[y, other, cb, cr]| [[*y, *cb, *cr], [*other, *cb, *cr]]);
            voxels.zip(pairs).for_each(|(voxel, samples)| put(voxel, samples.map(value)));
        } else if self.samples.is_planar {
            let planes = words.get(..pixels * 3).ok_or_else(too_few)?;
            let ((a, rest), count) = (planes.split_at(pixels), pixels);
            let (b, c) = rest.split_at(count);
            voxels.zip(a.iter().zip(b).zip(c)).for_each(|(voxel, ((a, b), c))| put(voxel, [*a, *b, *c].map(value)));
        } else {
            let triples = words.get(..pixels * 3).ok_or_else(too_few)?.as_chunks::<3>().0;
            voxels.zip(triples).for_each(|(voxel, samples)| put(voxel, samples.map(value)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PS3.3 section C.7.9.2.3 gives no numbers; these follow from its words: discrete 5 6, a line of 4 to 10, then both again.
    #[test]
    fn segments_expand_to_what_their_words_say() {
        let segments = [0, 2, 5, 6, 1, 4, 10, 2, 2, 0, 0];
        assert_eq!(expand(&segments, 12).unwrap(), [5, 6, 7, 8, 9, 10, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn broken_segments_are_refused() {
        for segments in [&[1, 4, 10][..], &[0, 5, 1], &[7, 1, 1], &[0, 1, 1, 2, 1, 99, 0], &[2, 1, 0, 0], &[0, 1, 1, 1, 60_000, 9]] {
            assert!(expand(segments, 256).is_err(), "{segments:?}");
        }
    }
}
