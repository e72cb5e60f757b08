//! What a file is, before anything is believed: recognition by content, file meta information, structure, and the arithmetic of
//! the pixels.
//!
//! A file passes here before any of its lengths is used for an allocation. The scan touches every element once, iteratively, and
//! answers one of four things: not DICOM, a directory (DICOMDIR), DICOM without pixels, or an image whose pixel data lie in known
//! byte ranges and fit Rows x Columns x Frames x Samples x Bits. Paths that a DICOMDIR names are never followed.

use std::ops::Range;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::transfer_syntax::{Codec, TransferSyntax, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::Limits;
use super::inflate::inflate;
use super::walk::{Encoding, Event, Walker, shown};
use crate::error::{Error, Kind, Result};
use crate::secret::Plain;

/// What a file turned out to be.
pub(super) enum Found {
    /// Not DICOM.
    Foreign,
    /// A DICOMDIR.
    Directory,
    /// DICOM without pixel data: a report, a presentation state, a plan.
    WithoutPixels,
    /// An image.
    Image(Scanned),
}

/// A file whose structure is sound.
pub(super) struct Scanned {
    /// The bytes that all ranges refer to: the file, or what its data set inflated to.
    pub(super) bytes: Plain,
    /// File meta elements as text.
    pub(super) meta: Vec<(Tag, String)>,
    /// The transfer syntax; `None` when the standard has no such syntax.
    pub(super) syntax: Option<&'static TransferSyntax>,
    /// Where the data set begins and how it is written.
    pub(super) start: usize,
    pub(super) encoding: Encoding,
    pub(super) pixels: Pixels,
    pub(super) shape: Shape,
}

/// Where the pixel data lie.
pub(super) enum Pixels {
    /// One value.
    Native { tag: Tag, vr: VR, value: Range<usize> },
    /// Fragments behind an offset table; the extended table is empty unless the file has one.
    Encapsulated { table: Range<usize>, extended: Range<usize>, fragments: Vec<Range<usize>> },
}

/// The attributes that size the pixel data.
#[derive(Clone, Copy, Default)]
pub(super) struct Shape {
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) frames: u32,
    pub(super) samples: u32,
    /// Bits Allocated.
    pub(super) bits: u32,
    /// Planar Configuration: each sample of a pixel lies in a plane of its own.
    pub(super) is_planar: bool,
}

/// Explicit VR Big Endian: retired in 2004, still met in archives.
pub(super) const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// JPEG syntaxes that were retired in 2001 (PS3.6 table A-1). The registry does not know them; two are decoded, all can be named.
pub(super) static RETIRED: [TransferSyntax; 14] = [
    retired("1.2.840.10008.1.2.4.52", "JPEG Extended (Process 3 & 5)"),
    retired("1.2.840.10008.1.2.4.53", "JPEG Spectral Selection, Non-Hierarchical (Process 6 & 8)"),
    retired("1.2.840.10008.1.2.4.54", "JPEG Spectral Selection, Non-Hierarchical (Process 7 & 9)"),
    retired("1.2.840.10008.1.2.4.55", "JPEG Full Progression, Non-Hierarchical (Process 10 & 12)"),
    retired("1.2.840.10008.1.2.4.56", "JPEG Full Progression, Non-Hierarchical (Process 11 & 13)"),
    retired("1.2.840.10008.1.2.4.58", "JPEG Lossless, Non-Hierarchical (Process 15)"),
    retired("1.2.840.10008.1.2.4.59", "JPEG Extended, Hierarchical (Process 16 & 18)"),
    retired("1.2.840.10008.1.2.4.60", "JPEG Extended, Hierarchical (Process 17 & 19)"),
    retired("1.2.840.10008.1.2.4.61", "JPEG Spectral Selection, Hierarchical (Process 20 & 22)"),
    retired("1.2.840.10008.1.2.4.62", "JPEG Spectral Selection, Hierarchical (Process 21 & 23)"),
    retired("1.2.840.10008.1.2.4.63", "JPEG Full Progression, Hierarchical (Process 24 & 26)"),
    retired("1.2.840.10008.1.2.4.64", "JPEG Full Progression, Hierarchical (Process 25 & 27)"),
    retired("1.2.840.10008.1.2.4.65", "JPEG Lossless, Hierarchical (Process 28)"),
    retired("1.2.840.10008.1.2.4.66", "JPEG Lossless, Hierarchical (Process 29)"),
];

const fn retired(uid: &'static str, name: &'static str) -> TransferSyntax {
    TransferSyntax::new_ele(uid, name, Codec::EncapsulatedPixelData(None, None))
}

/// Tags of a root that hold pixels (PS3.3 section C.7.6.3, C.7.6.24, C.7.6.25).
const PIXEL_TAGS: [Tag; 3] = [tags::PIXEL_DATA, tags::FLOAT_PIXEL_DATA, tags::DOUBLE_FLOAT_PIXEL_DATA];

/// Scans one file.
pub(super) fn scan(bytes: Plain, limits: &Limits) -> Result<Found> {
    // The steps below read a few elements at most until `walk`, which reads all of them once.
    let Some(start) = recognise(&bytes, limits) else { return Ok(Found::Foreign) };
    let (meta, start) = file_meta(&bytes, start, limits)?;
    if text(&meta, tags::MEDIA_STORAGE_SOP_CLASS_UID) == uids::MEDIA_STORAGE_DIRECTORY_STORAGE {
        return Ok(Found::Directory);
    }
    let declared = text(&meta, tags::TRANSFER_SYNTAX_UID);
    let syntax = match declared {
        "" => TransferSyntaxRegistry.get(guessed_syntax(bytes.get(start..).unwrap_or_default())),
        uid => TransferSyntaxRegistry.get(uid).or_else(|| RETIRED.iter().find(|syntax| syntax.uid() == uid)),
    };
    let (bytes, start) = match syntax.map(TransferSyntax::codec) {
        Some(Codec::Dataset(_)) => (
            inflate(bytes.get(start..).unwrap_or_default(), limits.inflate_ratio, limits.volume_bytes.saturating_add(HEADER_ALLOWANCE))?,
            0,
        ),
        _ => (bytes, start),
    };
    let encoding = encoding_of(syntax, bytes.get(start..).unwrap_or_default());
    let scanned = walk(&bytes, start, encoding, syntax, limits).map_err(|error| match (syntax, error.kind()) {
        // A private syntax may be written in any way, so failing to read it proves no damage.
        (None, Kind::DicomMalformed) => Error::new(Kind::TransferSyntaxUnsupported, "a transfer syntax outside the standard"),
        _ => error,
    })?;
    Ok(match scanned {
        None => Found::WithoutPixels,
        Some((pixels, shape)) => Found::Image(Scanned { bytes, meta, syntax, start, encoding, pixels, shape }),
    })
}

/// The value of a file meta element, or nothing.
pub(super) fn text(meta: &[(Tag, String)], tag: Tag) -> &str {
    meta.iter().find(|(known, _)| *known == tag).map_or("", |(_, value)| value.as_str())
}

/// Headers beside the voxels that an inflated data set may have.
const HEADER_ALLOWANCE: u64 = 256 << 20;

/// Offset of the file meta information, or of the data set where there is none. PS3.10 section 7.1 puts `DICM` behind a preamble of
/// 128 bytes; files from before 1993, and some exports, begin with the magic or with the first element.
fn recognise(bytes: &[u8], limits: &Limits) -> Option<usize> {
    if bytes.get(128..132) == Some(b"DICM") {
        return Some(132);
    }
    if bytes.starts_with(b"DICM") {
        return Some(4);
    }
    [Encoding::EXPLICIT, Encoding::IMPLICIT, Encoding::EXPLICIT_BIG]
        .iter()
        .any(|encoding| is_plausible(bytes, *encoding, limits))
        .then_some(0)
}

/// Whether a file without magic begins like a data set: three elements, ascending, the first in group 0002 or 0008.
fn is_plausible(bytes: &[u8], encoding: Encoding, limits: &Limits) -> bool {
    let mut walker = Walker::new(bytes, 0, encoding, false, limits);
    let mut last: Option<Tag> = None;
    let mut met = 0;
    while met < 3 {
        let at_root = walker.at_root();
        let tag = match walker.next() {
            Ok(Some(Event::Element { tag, .. } | Event::SequenceStart { tag })) => tag,
            Ok(Some(_)) => continue,
            Ok(None) | Err(_) => return false,
        };
        if !at_root {
            continue;
        }
        let in_order = match last {
            // Group 0008 opens every image; its first elements (length, character set, image type) are low.
            None => (tag.0 == 0x0002 || tag.0 == 0x0008) && tag.1 < 0x0100,
            Some(last) => last < tag && (tag.0 <= 0x0010),
        };
        if !in_order {
            return false;
        }
        last = Some(tag);
        met += 1;
    }
    true
}

/// File meta elements (group 0002, always explicit little endian: PS3.10 section 7.1) and where they end. The group's own length field
/// is not used: writers get it wrong, and the first element of another group ends the meta information all the same.
fn file_meta(bytes: &[u8], start: usize, limits: &Limits) -> Result<(Vec<(Tag, String)>, usize)> {
    let mut meta = Vec::new();
    let mut at = start;
    while bytes.get(at..at.saturating_add(2)) == Some(&[0x02, 0x00]) {
        let Some(Event::Element { tag, value, .. }) = Walker::new(bytes, at, Encoding::EXPLICIT, false, limits).next()? else {
            return Err(Error::new(Kind::DicomMalformed, format!("a sequence in the file meta information at offset {at}")));
        };
        at = value.end;
        if at - start > limits.meta_bytes {
            let detail = format!("file meta information of more than {} bytes (limits.meta_bytes)", limits.meta_bytes);
            return Err(Error::new(Kind::DicomHostile, detail));
        }
        // Private information and other binary elements are not carried on.
        let content = bytes.get(value).unwrap_or_default();
        if content.is_ascii() {
            let text = String::from_utf8_lossy(content);
            meta.push((tag, text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()));
        }
    }
    Ok((meta, at))
}

/// UID of the syntax that a data set without file meta information is written in.
fn guessed_syntax(dataset: &[u8]) -> &'static str {
    // In implicit VR these two bytes are the low half of a length of at least 16705, which no first element of a data set has.
    let is_explicit = dataset.get(4..6).and_then(|code| <[u8; 2]>::try_from(code).ok()).is_some_and(|code| VR::from_binary(code).is_some());
    match (is_explicit, dataset.first()) {
        // The first group is below 0100, so its high byte is the zero one.
        (true, Some(0)) => EXPLICIT_VR_BIG_ENDIAN,
        (true, _) => uids::EXPLICIT_VR_LITTLE_ENDIAN,
        (false, _) => uids::IMPLICIT_VR_LITTLE_ENDIAN,
    }
}

/// Encoding of a syntax, corrected by the first element: implicit data sets that are labelled explicit are a known fault of writers.
fn encoding_of(syntax: Option<&TransferSyntax>, dataset: &[u8]) -> Encoding {
    let declared = match syntax.map_or("", TransferSyntax::uid) {
        uids::IMPLICIT_VR_LITTLE_ENDIAN => Encoding::IMPLICIT,
        EXPLICIT_VR_BIG_ENDIAN => Encoding::EXPLICIT_BIG,
        _ => Encoding::EXPLICIT,
    };
    match (declared, guessed_syntax(dataset)) {
        (Encoding::EXPLICIT, uids::IMPLICIT_VR_LITTLE_ENDIAN) => Encoding::IMPLICIT,
        (Encoding::IMPLICIT, uids::EXPLICIT_VR_LITTLE_ENDIAN) => Encoding::EXPLICIT,
        _ => declared,
    }
}

/// Walks the whole data set. `None` when its root has no pixel data.
fn walk(
    bytes: &[u8],
    start: usize,
    encoding: Encoding,
    syntax: Option<&TransferSyntax>,
    limits: &Limits,
) -> Result<Option<(Pixels, Shape)>> {
    // A syntax that nobody knows may hold anything, so its pixels may be fragments too.
    let encapsulated = syntax.is_none_or(TransferSyntax::is_encapsulated_pixel_data);
    let mut walker = Walker::new(bytes, start, encoding, encapsulated, limits);
    let mut shape = Shape { frames: 1, samples: 1, ..Shape::default() };
    let mut extended = 0..0;
    let mut pixels: Option<Pixels> = None;
    loop {
        let at_root = walker.at_root();
        let Some(event) = walker.next()? else { break };
        // Icons and referenced images inside sequences have rows and pixels of their own, which are not the image's.
        if !at_root {
            continue;
        }
        let found = match event {
            Event::Element { tag, vr, value, .. } if PIXEL_TAGS.contains(&tag) => Pixels::Native { tag, vr, value },
            Event::Element { tag: tags::EXTENDED_OFFSET_TABLE, value, .. } => {
                extended = value;
                continue;
            }
            Event::Element { tag, value, encoding, .. } => {
                shape.take(tag, bytes.get(value).unwrap_or_default(), encoding)?;
                continue;
            }
            Event::Fragments { table, fragments, .. } => Pixels::Encapsulated { table, extended: extended.clone(), fragments },
            _ => continue,
        };
        if pixels.replace(found).is_some() {
            return Err(Error::new(Kind::DicomMalformed, "pixel data twice"));
        }
    }
    let Some(pixels) = pixels else { return Ok(None) };
    shape.check(&pixels, encapsulated, limits)?;
    Ok(Some((pixels, shape)))
}

impl Shape {
    /// Takes an attribute of the root over if it is one of these.
    fn take(&mut self, tag: Tag, value: &[u8], encoding: Encoding) -> Result<()> {
        let wrong = || Error::new(Kind::DicomMalformed, format!("{} is not a number of the kind it must be", shown(tag)));
        let field = match tag {
            tags::ROWS => &mut self.rows,
            tags::COLUMNS => &mut self.columns,
            tags::SAMPLES_PER_PIXEL => &mut self.samples,
            tags::BITS_ALLOCATED => &mut self.bits,
            // It matters for pixels in colour only, and some writers leave it empty in others.
            tags::PLANAR_CONFIGURATION => {
                self.is_planar = value.len() == 2 && encoding.u16(value) == 1;
                return Ok(());
            }
            tags::NUMBER_OF_FRAMES => {
                let text = std::str::from_utf8(value).map_err(|_| wrong())?.trim_matches(|c: char| c.is_whitespace() || c == '\0');
                // Some writers put an empty value or 0 into single-frame images; both mean one frame.
                self.frames = if text.is_empty() { 1 } else { text.parse::<u32>().map_err(|_| wrong())?.max(1) };
                return Ok(());
            }
            _ => return Ok(()),
        };
        *field = match value.len() {
            2 => u32::from(encoding.u16(value)),
            _ => return Err(wrong()),
        };
        Ok(())
    }

    /// Voxels of one frame, all samples.
    pub(super) fn frame_samples(&self) -> u64 {
        u64::from(self.rows) * u64::from(self.columns) * u64::from(self.samples)
    }

    /// Bytes that pixel data of this shape fill uncompressed, if that is a number.
    fn uncompressed(&self) -> Option<u64> {
        let bits = u64::from(self.rows).checked_mul(self.columns.into())?.checked_mul(self.frames.into())?;
        Some(bits.checked_mul(self.samples.into())?.checked_mul(self.bits.into())?.div_ceil(8))
    }

    /// The arithmetic that everything after relies on.
    fn check(&mut self, pixels: &Pixels, encapsulated: bool, limits: &Limits) -> Result<()> {
        match pixels {
            Pixels::Native { tag: tags::FLOAT_PIXEL_DATA, .. } => self.bits = 32,
            Pixels::Native { tag: tags::DOUBLE_FLOAT_PIXEL_DATA, .. } => self.bits = 64,
            _ => {}
        }
        for (value, name) in
            [(self.rows, "rows"), (self.columns, "columns"), (self.samples, "samples per pixel"), (self.bits, "bits allocated")]
        {
            if value == 0 {
                return Err(Error::new(Kind::DicomMalformed, format!("pixel data without {name}")));
            }
        }
        // Each product is checked: four numbers of 16 bits and one of 32 pass 64 bits together.
        if self.frames as usize > limits.slices {
            return Err(Error::new(Kind::DicomHostile, format!("{} frames, more than {} (limits.slices)", self.frames, limits.slices)));
        }
        let overflow = || Error::new(Kind::DicomHostile, "pixel data of more than 2^64 bytes (limits.volume_bytes)");
        let voxels = self.frame_samples().checked_mul(self.frames.into()).ok_or_else(overflow)?;
        let decoded = voxels.checked_mul(size_of::<f32>() as u64).ok_or_else(overflow)?;
        let uncompressed = self.uncompressed().ok_or_else(overflow)?;
        if decoded > limits.volume_bytes {
            let detail = format!("{decoded} bytes of voxels, more than {} (limits.volume_bytes)", limits.volume_bytes);
            return Err(Error::new(Kind::DicomHostile, detail));
        }
        match pixels {
            Pixels::Native { .. } if encapsulated => {
                Err(Error::new(Kind::DicomMalformed, "native pixel data in a transfer syntax of compressed ones"))
            }
            Pixels::Native { value, .. } => self.check_native(value.len() as u64, uncompressed),
            Pixels::Encapsulated { fragments, .. } => {
                // A file that names a huge image and holds next to nothing must not size a buffer. Blank images of a few megabytes do
                // compress a thousandfold; above that, real images stay far below the ratio.
                let compressed: u64 = fragments.iter().map(|fragment| fragment.len() as u64).sum();
                if uncompressed > HARMLESS && uncompressed / limits.inflate_ratio.max(1) > compressed {
                    let detail = format!("{compressed} bytes claim to hold {uncompressed} (limits.inflate_ratio)");
                    return Err(Error::new(Kind::DicomHostile, detail));
                }
                Ok(())
            }
        }
    }

    /// Native pixel data fill their value to the byte; one byte pads it to even length (PS3.5 section 8.1.1).
    fn check_native(&self, length: u64, uncompressed: u64) -> Result<()> {
        let is_whole = |bytes: u64| length == bytes || (bytes % 2 == 1 && length == bytes + 1);
        // YBR_FULL_422 stores two samples per pixel, not three (PS3.3 section C.7.6.3.1.2).
        if is_whole(uncompressed) || (self.samples == 3 && is_whole(uncompressed / 3 * 2)) {
            return Ok(());
        }
        // Longer values are refused like shorter ones: one of the five attributes is then not that of these pixels.
        let Shape { rows, columns, frames, samples, bits, .. } = self;
        let product = format!("{rows} rows x {columns} columns x {frames} frames x {samples} samples x {bits} bits");
        Err(Error::new(Kind::DicomMalformed, format!("{product} make {uncompressed} bytes, the pixel data have {length}")))
    }
}

/// Decoded pixel data up to this size are not measured against their compressed size.
const HARMLESS: u64 = 16 << 20;
