//! Pixels as they came, kept for a de-identified file of the same image.
//!
//! A compressed frame stays compressed, so nothing of the image is lost; what a code stream says beside the image is blanked (`blank`). Pixels without
//! compression are written in little endian, their bits above and below the stored ones cleared: overlays and remains of other images lie there
//! (PS3.5 section 8.1.1). Compressed frames of which regions are blacked out are written without compression, and the header says so ([`StoredPixels::describe`]).
//! Frames are written one by one; none is copied unless it must be changed.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;

use super::blank::{self, Coding};
use super::codecs::Samples;
use super::colour::Colour;
use super::pixels::{Format, unpacking};
use super::scan::EXPLICIT_VR_BIG_ENDIAN;
use super::volume::Stored;
use crate::error::{Error, Kind, Result};

/// The pixel data of one instance. No `Debug`: they are patient data.
pub struct StoredPixels {
    stored: Arc<Stored>,
    written: Written,
}

/// How the pixels are written.
enum Written {
    /// Compressed as they came: for each frame what is blanked.
    Encapsulated(Vec<Vec<Range<usize>>>),
    /// Without compression, as they came.
    Native,
    /// Without compression although they came with it.
    Decoded { bits: u32, is_planar: bool },
}

/// The longest value that a length of 32 bits holds, an even number.
const LONGEST: u64 = 0xFFFF_FFFE;

impl StoredPixels {
    /// Takes the pixels of a file; what must be blanked is looked up at once, so that a stream that cannot be read is an error before anything is written.
    pub(super) fn new(stored: Arc<Stored>) -> Result<StoredPixels> {
        let written = match (stored.frames.is_encapsulated(), stored.blackout.is_empty()) {
            (false, _) => Written::Native,
            (true, true) => {
                let coding = Coding::of(stored.syntax.map_or("", |syntax| syntax.uid()));
                let blanked: Result<Vec<_>> =
                    (0..stored.shape.frames as usize).map(|frame| blank::ranges(coding, stored.frames.frame(frame)?.bytes())).collect();
                Written::Encapsulated(blanked?)
            }
            (true, false) => {
                let first = stored.samples(0)?;
                let bits = match stored.reading.format {
                    Format::Integer { .. } => unpacking(&first, stored.reading.format)?.bits,
                    Format::Float => stored.shape.bits,
                };
                Written::Decoded { bits, is_planar: first.is_planar }
            }
        };
        let pixels = StoredPixels { stored, written };
        if !matches!(pixels.written, Written::Encapsulated(_)) && pixels.native_length()?.0 > LONGEST {
            return Err(Error::new(Kind::OutputUnsupported, "pixel data of more than 4 GiB without compression"));
        }
        Ok(pixels)
    }

    /// Transfer syntax of a file with these pixels: that of the compressed frames, or explicit little endian.
    pub(crate) fn transfer_syntax(&self) -> &'static str {
        match (&self.written, self.stored.syntax) {
            (Written::Encapsulated(_), Some(syntax)) => syntax.uid(),
            _ => uids::EXPLICIT_VR_LITTLE_ENDIAN,
        }
    }

    /// Puts into a header what is true of the pixels as they are written, where that is not what it was.
    pub(crate) fn describe(&self, dataset: &mut InMemDicomObject) {
        let Written::Decoded { bits, is_planar } = self.written else { return };
        let mut put = |tag, number: u32| drop(dataset.put(DataElement::new(tag, VR::US, PrimitiveValue::from(number as u16))));
        if let Format::Integer { .. } = self.stored.reading.format {
            put(tags::BITS_STORED, bits);
            put(tags::HIGH_BIT, bits.saturating_sub(1));
        }
        // Colours that two pixels shared have been shared out, and a transformation of the code stream is undone.
        let interpretation = match self.stored.reading.format.colour() {
            Colour::Gray | Colour::Palette => return,
            Colour::Rgb => "RGB",
            Colour::Ybr => "YBR_FULL",
        };
        put(tags::PLANAR_CONFIGURATION, u32::from(is_planar));
        dataset.put(DataElement::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, PrimitiveValue::from(interpretation)));
    }

    /// Tag of the element that [`StoredPixels::write`] writes.
    pub(crate) fn tag(&self) -> Tag {
        match (self.stored.reading.format, self.stored.shape.bits) {
            (Format::Float, 64) => tags::DOUBLE_FLOAT_PIXEL_DATA,
            (Format::Float, _) => tags::FLOAT_PIXEL_DATA,
            _ => tags::PIXEL_DATA,
        }
    }

    /// Writes the element of the pixel data in explicit little endian, behind its offsets where those need elements of their own.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.written {
            Written::Encapsulated(blanked) => self.write_encapsulated(blanked, out),
            Written::Native | Written::Decoded { .. } => self.write_native(out),
        }
    }

    /// One fragment for each frame behind a table of their offsets (PS3.5 section A.4).
    fn write_encapsulated(&self, blanked: &[Vec<Range<usize>>], out: &mut dyn Write) -> io::Result<()> {
        let mut sizes = Vec::with_capacity(blanked.len());
        for frame in 0..blanked.len() {
            let size = self.frame(frame)?.bytes().len() as u64;
            sizes.push(size + size % 2);
        }
        let Offsets { basic, extended } = Offsets::of(&sizes);
        if let Some((offsets, lengths)) = extended {
            for (tag, table) in [(tags::EXTENDED_OFFSET_TABLE, offsets), (tags::EXTENDED_OFFSET_TABLE_LENGTHS, lengths)] {
                header(tag, b"OV", u32::try_from(table.len()).map_err(|_| too_long())?, out)?;
                out.write_all(&table)?;
            }
        }
        header(self.tag(), b"OB", u32::MAX, out)?;
        let item = |length: u64, out: &mut dyn Write| {
            out.write_all(&[0xFE, 0xFF, 0x00, 0xE0])?;
            out.write_all(&u32::try_from(length).map_err(|_| too_long())?.to_le_bytes())
        };
        item(basic.len() as u64, out)?;
        out.write_all(&basic)?;
        for (frame, (ranges, size)) in blanked.iter().zip(sizes).enumerate() {
            let stored = self.frame(frame)?;
            let bytes = stored.bytes();
            item(size, out)?;
            let mut at = 0;
            for range in ranges {
                out.write_all(bytes.get(at..range.start).ok_or_else(too_long)?)?;
                io::copy(&mut io::Read::take(io::repeat(0), range.len() as u64), out)?;
                at = range.end;
            }
            out.write_all(bytes.get(at..).ok_or_else(too_long)?)?;
            if bytes.len() % 2 == 1 {
                out.write_all(&[0])?;
            }
        }
        out.write_all(&[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0])
    }

    /// All frames in one value.
    fn write_native(&self, out: &mut dyn Write) -> io::Result<()> {
        let Stored { shape, reading, blackout, .. } = &*self.stored;
        let (length, pad) = self.native_length().map_err(|_| too_long())?;
        let width = shape.bits.div_ceil(8) as usize;
        let vr = match (reading.format, width) {
            (Format::Float, 8) => b"OD",
            (Format::Float, _) => b"OF",
            (_, 1) => b"OB",
            _ => b"OW",
        };
        header(self.tag(), vr, u32::try_from(length + pad).map_err(|_| too_long())?, out)?;
        for frame in 0..shape.frames as usize {
            match (&self.written, blackout.is_empty()) {
                (Written::Decoded { .. }, _) => self.write_values(&self.samples(frame)?, width, out)?,
                (_, true) => self.write_words(self.frame(frame)?.bytes(), width, out)?,
                (_, false) => self.write_words(self.samples(frame)?.bytes(), width, out)?,
            }
        }
        out.write_all(if pad == 1 { &[0] } else { &[] })
    }

    /// Stored words of a frame, turned and cleaned where they need it.
    fn write_words(&self, bytes: &[u8], width: usize, out: &mut dyn Write) -> io::Result<()> {
        let is_big = self.stored.syntax.is_some_and(|syntax| syntax.uid() == EXPLICIT_VR_BIG_ENDIAN);
        let unit = if is_big { width } else { 1 };
        let clean = Cleaning::of(self.stored.reading.format, width);
        // Most images have nothing beside their stored bits: looking is much cheaper than copying.
        if unit == 1 && clean.as_ref().is_none_or(|clean| clean.is_clean(bytes)) {
            return out.write_all(bytes);
        }
        let mut buffer = zeroize::Zeroizing::new(Vec::with_capacity(PIECE));
        for piece in bytes.chunks(PIECE) {
            buffer.clear();
            buffer.extend_from_slice(piece);
            if unit > 1 {
                buffer.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
            }
            if let Some(clean) = &clean {
                clean.apply(&mut buffer);
            }
            out.write_all(&buffer)?;
        }
        Ok(())
    }

    /// Decoded samples of a frame as words of the width that the header names.
    fn write_values(&self, samples: &Samples<'_>, width: usize, out: &mut dyn Write) -> io::Result<()> {
        let unpack = unpacking(samples, self.stored.reading.format).map_err(|_| too_long())?;
        let mut buffer = zeroize::Zeroizing::new(Vec::with_capacity(PIECE));
        // A frame may end in a byte of padding.
        let due = usize::try_from(self.stored.shape.frame_samples()).map_err(|_| too_long())?.saturating_mul(samples.width);
        for piece in samples.bytes().get(..due).ok_or_else(too_long)?.chunks(PIECE / 4 * samples.width) {
            buffer.clear();
            for sample in piece.chunks_exact(samples.width) {
                let mut word = [0u8; 4];
                word.iter_mut().zip(sample).for_each(|(place, byte)| *place = *byte);
                if samples.big_endian {
                    word.get_mut(..samples.width).unwrap_or_default().reverse();
                }
                let value = unpack.value(u32::from_le_bytes(word)) as i64;
                buffer.extend_from_slice(value.to_le_bytes().get(..width).unwrap_or_default());
            }
            out.write_all(&buffer)?;
        }
        Ok(())
    }

    fn frame(&self, index: usize) -> io::Result<super::source::Stored<'_>> {
        // Every frame was decoded before.
        self.stored.frames.frame(index).map_err(|_| too_long())
    }

    fn samples(&self, index: usize) -> io::Result<Samples<'_>> {
        self.stored.samples(index).map_err(|_| too_long())
    }

    /// Bytes of all frames without compression, and the padding to an even number.
    fn native_length(&self) -> Result<(u64, u64)> {
        let shape = &self.stored.shape;
        let one = match self.written {
            Written::Decoded { .. } => shape.frame_samples().saturating_mul(shape.bits.div_ceil(8).into()),
            _ => self.stored.frames.frame(0)?.bytes().len() as u64,
        };
        let length = one.saturating_mul(shape.frames.into());
        Ok((length, length % 2))
    }
}

/// Bytes that are changed at a time, a multiple of every width.
const PIECE: usize = 1 << 16;

fn header(Tag(group, element): Tag, vr: &[u8; 2], length: u32, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&group.to_le_bytes())?;
    out.write_all(&element.to_le_bytes())?;
    out.write_all(vr)?;
    out.write_all(&[0, 0])?;
    out.write_all(&length.to_le_bytes())
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "pixel data that no longer are what they were")
}

/// Where the frames lie behind the first of them.
struct Offsets {
    /// The Basic Offset Table; empty for one frame, and where the other table is needed.
    basic: Vec<u8>,
    /// Extended Offset Table and its lengths (PS3.3 section C.7.6.3.1.8), for frames beyond 4 GiB.
    extended: Option<(Vec<u8>, Vec<u8>)>,
}

impl Offsets {
    /// Works out the tables by the sizes of the frames, which are even.
    fn of(sizes: &[u64]) -> Offsets {
        let offsets = || {
            sizes.iter().scan(0u64, |at, size| {
                let offset = *at;
                *at += 8 + size;
                Some(offset)
            })
        };
        let basic: Option<Vec<u32>> = offsets().map(|offset| u32::try_from(offset).ok()).collect();
        match basic {
            Some(basic) if sizes.len() > 1 => Offsets { basic: basic.into_iter().flat_map(u32::to_le_bytes).collect(), extended: None },
            Some(_) => Offsets { basic: Vec::new(), extended: None },
            None => {
                let lengths = sizes.iter().copied().flat_map(u64::to_le_bytes).collect();
                Offsets { basic: Vec::new(), extended: Some((offsets().flat_map(u64::to_le_bytes).collect(), lengths)) }
            }
        }
    }
}

/// Clears what lies beside the stored bits of a sample.
struct Cleaning {
    width: usize,
    stored: u32,
    high: u32,
    signed: bool,
}

impl Cleaning {
    /// Nothing where all bits are stored ones.
    fn of(format: Format, width: usize) -> Option<Cleaning> {
        match format {
            Format::Integer { stored, high, signed, .. } if (stored as usize) < 8 * width => Some(Cleaning { width, stored, high, signed }),
            _ => None,
        }
    }

    fn apply(&self, bytes: &mut [u8]) {
        let Cleaning { width, signed, .. } = *self;
        match (width, signed) {
            (1, _) => bytes.iter_mut().for_each(|byte| *byte = self.word(u32::from(*byte), 8) as u8),
            (2, true) => words(bytes, |word| self.signed_16(word)),
            (2, false) => words(bytes, |word| word & self.mask() as u16),
            _ => bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|word| *word = self.word(u32::from_le_bytes(*word), 32).to_le_bytes()),
        }
    }

    /// Whether nothing would change.
    fn is_clean(&self, bytes: &[u8]) -> bool {
        let differing = |clean: &dyn Fn(&[u8]) -> bool| bytes.chunks(PIECE).all(clean);
        match (self.width, self.signed) {
            (1, _) => differing(&|piece| piece.iter().all(|byte| self.word(u32::from(*byte), 8) as u8 == *byte)),
            // Without a branch for each word, so that many are looked at together.
            (2, true) => differing(&|piece| bits(piece, |word| word ^ self.signed_16(word)) == 0),
            (2, false) => {
                let beside = !self.mask() as u16;
                differing(&|piece| bits(piece, |word| word & beside) == 0)
            }
            _ => differing(&|piece| {
                piece.as_chunks::<4>().0.iter().all(|word| self.word(u32::from_le_bytes(*word), 32).to_le_bytes() == *word)
            }),
        }
    }

    fn low(&self) -> u32 {
        self.high + 1 - self.stored
    }

    /// The stored bits in their place.
    fn mask(&self) -> u32 {
        (u32::MAX >> (32 - self.stored)) << self.low()
    }

    /// The sign of a signed sample goes on to the top, as its writer must have done (PS3.5 section 8.1.1).
    #[inline(always)]
    fn signed_16(&self, word: u16) -> u16 {
        let (up, down) = (15 - self.high, 16 - self.stored);
        (word.wrapping_shl(up).cast_signed().wrapping_shr(down)).cast_unsigned().wrapping_shl(self.low())
    }

    fn word(&self, raw: u32, width: u32) -> u32 {
        let (up, down) = (31 - self.high, 32 - self.stored);
        let value = match self.signed {
            true => (((raw << up).cast_signed() >> down).cast_unsigned()) << self.low(),
            false => ((raw << up) >> down) << self.low(),
        };
        value & (u32::MAX >> (32 - width))
    }
}

/// All bits that `of` finds in some word of 16 bits.
#[inline(always)]
fn bits(bytes: &[u8], of: impl Fn(u16) -> u16) -> u16 {
    bytes.as_chunks::<2>().0.iter().fold(0, |all, word| all | of(u16::from_le_bytes(*word)))
}

/// Changes every word of 16 bits.
#[inline(always)]
fn words(bytes: &mut [u8], change: impl Fn(u16) -> u16) {
    bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|word| *word = change(u16::from_le_bytes(*word)).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_beyond_4_gib_get_an_extended_table() {
        let small = Offsets::of(&[10, 20, 30]);
        // Each fragment has a head of 8 bytes.
        assert_eq!(small.basic, [0u32, 18, 46].into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        assert!(small.extended.is_none() && Offsets::of(&[10]).basic.is_empty());
        let large = Offsets::of(&[0xFFFF_FF00, 0xFFFF_FF00, 2]);
        let (offsets, lengths) = large.extended.unwrap();
        assert!(large.basic.is_empty());
        assert_eq!(offsets, [0u64, 0xFFFF_FF08, 0x1_FFFF_FE10].into_iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>());
        assert_eq!(lengths, [0xFFFF_FF00u64, 0xFFFF_FF00, 2].into_iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>());
    }
}
