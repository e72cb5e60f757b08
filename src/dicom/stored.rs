//! Pixels as they came, kept for a de-identified file of the same image.
//!
//! A compressed frame stays compressed, so nothing of the image is lost; what a code stream says beside the image is blanked (`blank`). Pixels without
//! compression are written in little endian, their bits above and below the stored ones cleared: overlays and remains of other images lie there
//! (PS3.5 section 8.1.1). Frames are written one by one; none is copied unless it must be changed.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};

use super::blank::{self, Coding};
use super::pixels::Format;
use super::scan::EXPLICIT_VR_BIG_ENDIAN;
use super::volume::Stored;
use crate::error::{Error, Kind, Result};

/// The pixel data of one instance. No `Debug`: they are patient data.
pub struct StoredPixels {
    stored: Arc<Stored>,
    /// Of a compressed image: for each frame what is blanked.
    blanked: Option<Vec<Vec<Range<usize>>>>,
}

/// The longest value that a length of 32 bits holds, an even number.
const LONGEST: u64 = 0xFFFF_FFFE;

impl StoredPixels {
    /// Takes the pixels of a file; what must be blanked is looked up at once, so that a stream that cannot be read is an error before anything is written.
    pub(super) fn new(stored: Arc<Stored>) -> Result<StoredPixels> {
        let syntax = stored.syntax.map_or("", |syntax| syntax.uid());
        if !stored.frames.is_encapsulated() {
            let (length, _) = native_length(&stored)?;
            if length > LONGEST {
                return Err(Error::new(Kind::OutputUnsupported, "pixel data of more than 4 GiB without compression"));
            }
            return Ok(StoredPixels { stored, blanked: None });
        }
        let coding = Coding::of(syntax);
        let blanked: Result<Vec<_>> =
            (0..stored.shape.frames as usize).map(|frame| blank::ranges(coding, stored.frames.frame(frame)?.bytes())).collect();
        Ok(StoredPixels { blanked: Some(blanked?), stored })
    }

    /// Transfer syntax of a file with these pixels: that of the compressed frames, or explicit little endian.
    pub(crate) fn transfer_syntax(&self) -> &'static str {
        match (&self.blanked, self.stored.syntax) {
            (Some(_), Some(syntax)) => syntax.uid(),
            _ => uids::EXPLICIT_VR_LITTLE_ENDIAN,
        }
    }

    /// Tag of the element that [`StoredPixels::write`] writes.
    pub(crate) fn tag(&self) -> Tag {
        match (self.stored.reading.format, self.stored.shape.bits) {
            (Format::Float, 64) => tags::DOUBLE_FLOAT_PIXEL_DATA,
            (Format::Float, _) => tags::FLOAT_PIXEL_DATA,
            _ => tags::PIXEL_DATA,
        }
    }

    /// Writes the element of the pixel data in explicit little endian.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.blanked {
            Some(blanked) => self.write_encapsulated(blanked, out),
            None => self.write_native(out),
        }
    }

    fn header(&self, vr: &[u8; 2], length: u32, out: &mut dyn Write) -> io::Result<()> {
        let Tag(group, element) = self.tag();
        out.write_all(&group.to_le_bytes())?;
        out.write_all(&element.to_le_bytes())?;
        out.write_all(vr)?;
        out.write_all(&[0, 0])?;
        out.write_all(&length.to_le_bytes())
    }

    /// One fragment for each frame behind a table of their offsets (PS3.5 section A.4).
    fn write_encapsulated(&self, blanked: &[Vec<Range<usize>>], out: &mut dyn Write) -> io::Result<()> {
        self.header(b"OB", u32::MAX, out)?;
        let item = |length: u64, out: &mut dyn Write| {
            out.write_all(&[0xFE, 0xFF, 0x00, 0xE0])?;
            out.write_all(&u32::try_from(length).map_err(|_| too_long())?.to_le_bytes())
        };
        let mut sizes = Vec::with_capacity(blanked.len());
        for frame in 0..blanked.len() {
            let size = self.frame(frame)?.bytes().len() as u64;
            sizes.push(size + size % 2);
        }
        // The table is empty where an offset does not fit it; frames are fragments all the same.
        let offsets = sizes.iter().scan(0u64, |at, size| {
            let offset = *at;
            *at += 8 + size;
            Some(offset)
        });
        let offsets: Option<Vec<u32>> = offsets.map(|offset| u32::try_from(offset).ok()).collect();
        let table: Vec<u8> = match offsets {
            Some(offsets) if blanked.len() > 1 => offsets.into_iter().flat_map(u32::to_le_bytes).collect(),
            _ => Vec::new(),
        };
        item(table.len() as u64, out)?;
        out.write_all(&table)?;
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
        let Stored { shape, reading, syntax, .. } = &*self.stored;
        let (length, pad) = native_length(&self.stored).map_err(|_| too_long())?;
        let width = shape.bits.div_ceil(8) as usize;
        let vr = match (reading.format, width) {
            (Format::Float, 8) => b"OD",
            (Format::Float, _) => b"OF",
            (_, 1) => b"OB",
            _ => b"OW",
        };
        self.header(vr, u32::try_from(length + pad).map_err(|_| too_long())?, out)?;
        let is_big = syntax.is_some_and(|syntax| syntax.uid() == EXPLICIT_VR_BIG_ENDIAN);
        let unit = if is_big { width } else { 1 };
        let clean = Cleaning::of(reading.format, width);
        let mut buffer = zeroize::Zeroizing::new(Vec::with_capacity(1 << 16));
        for frame in 0..shape.frames as usize {
            let stored = self.frame(frame)?;
            if unit == 1 && clean.is_none() {
                out.write_all(stored.bytes())?;
                continue;
            }
            // A multiple of every unit.
            for piece in stored.bytes().chunks(1 << 16) {
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
        }
        out.write_all(if pad == 1 { &[0] } else { &[] })
    }

    fn frame(&self, index: usize) -> io::Result<super::source::Stored<'_>> {
        // Every frame was decoded before.
        self.stored.frames.frame(index).map_err(|_| too_long())
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "pixel data that no longer are what they were")
}

/// Bytes of all frames, and the padding to an even number.
fn native_length(stored: &Stored) -> Result<(u64, u64)> {
    let one = stored.frames.frame(0)?.bytes().len() as u64;
    let length = one.saturating_mul(stored.shape.frames.into());
    Ok((length, length % 2))
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
        let low = self.high + 1 - self.stored;
        // The sign of a signed sample goes on to the top, as its writer must have done (PS3.5 section 8.1.1).
        let clean = |raw: u32| {
            let (up, down) = (31 - self.high, 32 - self.stored);
            match self.signed {
                true => (((raw << up).cast_signed() >> down).cast_unsigned()) << low,
                false => ((raw << up) >> down) << low,
            }
        };
        match self.width {
            1 => bytes.iter_mut().for_each(|byte| *byte = clean(u32::from(*byte)) as u8),
            2 => bytes
                .as_chunks_mut::<2>()
                .0
                .iter_mut()
                .for_each(|word| *word = (clean(u32::from(u16::from_le_bytes(*word))) as u16).to_le_bytes()),
            _ => bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|word| *word = clean(u32::from_le_bytes(*word)).to_le_bytes()),
        }
    }
}
