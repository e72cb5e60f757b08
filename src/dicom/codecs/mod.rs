//! One stored frame to stored samples, through the decoder of its transfer syntax.
//!
//! JPEG 2000 goes through the transfer syntax registry of dicom-rs, JPEG XL through jxl-oxide itself (the registry's adapter scales 12-bit
//! samples to 16 bits and cannot limit memory), JPEG with the cosine transform and without loss, JPEG-LS, RLE, deflated and uncompressed
//! frames through this crate. Decoders are written by others for images that are what they say, so each frame's own header is compared with the DICOM header first
//! ([`codestream`]), and a decoder that panics is an undecodable frame, not the end of the process.

mod codestream;
mod jpeg_dct;
mod jpeg_lossless;
mod jpeg_ls;
mod jpeg_markers;
mod rle;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_core::value::C;
use dicom_dictionary_std::uids;
use dicom_encoding::adapters::{PixelDataObject, RawPixelData};
use dicom_encoding::transfer_syntax::{Codec as RegistryCodec, TransferSyntax};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use zeroize::Zeroizing;

use self::codestream::Header;
use super::inflate::inflate;
use super::scan::{EXPLICIT_VR_BIG_ENDIAN, RETIRED, Shape};
use super::source::Stored;
use crate::error::{Error, Kind, Result};
use crate::secret::Plain;

/// Samples of a frame as they were stored.
pub(super) struct Samples<'a> {
    stored: Stored<'a>,
    /// Bytes per sample.
    pub(super) width: usize,
    /// Numbers are big endian.
    pub(super) big_endian: bool,
    /// Bits per sample that the compressed stream declares; `None` when nothing was compressed.
    pub(super) precision: Option<u32>,
    /// Whether values may differ from what the scanner wrote.
    pub(super) is_lossy: bool,
    /// Of several samples per pixel, whether each has a plane of its own.
    pub(super) is_planar: bool,
    /// Two pixels share their differences of colour (YBR_FULL_422, not compressed).
    pub(super) is_subsampled: bool,
}

impl Samples<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        self.stored.bytes()
    }

    /// The same samples with other bytes, of the same length; lent ones are copied.
    pub(super) fn changed(mut self, change: impl FnOnce(&mut [u8])) -> Self {
        if let Stored::Lent(bytes) = &self.stored {
            self.stored = Stored::Joined(Plain::new(bytes.to_vec()));
        }
        if let Stored::Joined(bytes) = &mut self.stored {
            change(bytes);
        }
        self
    }
}

/// How a transfer syntax is decoded.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Codec {
    Native,
    /// Uncompressed in fragments (PS3.5 section A.4.11).
    Raw,
    /// Each frame deflated (PS3.5 section A.4.13).
    Deflated,
    Rle,
    Jpeg,
    JpegLs,
    Jpeg2000,
    JpegXl,
}

/// Transfer syntaxes that this build decodes, with their standard names, in the order of their UIDs.
pub(super) fn decoders() -> Vec<(String, String)> {
    let mut known: Vec<(String, String)> = TransferSyntaxRegistry
        .iter()
        .chain(&RETIRED)
        .filter(|syntax| codec(syntax).is_some())
        .map(|syntax| (syntax.uid().to_owned(), syntax.name().to_owned()))
        .collect();
    known.sort_by_cached_key(|(uid, _)| uid.split('.').map(|arc| arc.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>());
    known
}

/// What the UIDs of compressed syntaxes begin with.
const JPEG_UIDS: &str = "1.2.840.10008.1.2.4.";

/// The codec of a syntax, `None` when there is none. The registry is the one list of what was compiled into dicom-rs.
fn codec(syntax: &TransferSyntax) -> Option<Codec> {
    // Decoders of our own need no entry in the registry.
    match syntax.uid().strip_prefix(JPEG_UIDS) {
        Some("50" | "51" | "53" | "55" | "57" | "70") => return Some(Codec::Jpeg),
        Some("80" | "81") => return Some(Codec::JpegLs),
        _ => {}
    }
    match syntax.codec() {
        RegistryCodec::None => Some(Codec::Native),
        // The JPIP syntaxes deflate the data set too, but their pixels are behind a URL that nobody here follows.
        RegistryCodec::Dataset(Some(_)) if syntax.uid() == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN => Some(Codec::Native),
        RegistryCodec::EncapsulatedPixelData(Some(_), _) => match syntax.uid() {
            uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN => Some(Codec::Raw),
            uids::DEFLATED_IMAGE_FRAME_COMPRESSION => Some(Codec::Deflated),
            uids::RLE_LOSSLESS => Some(Codec::Rle),
            uids::JPEGXL_LOSSLESS | uids::JPEGXLJPEG_RECOMPRESSION | uids::JPEGXL => Some(Codec::JpegXl),
            uid if is_jpeg2000(uid) => Some(Codec::Jpeg2000),
            _ => Some(Codec::Jpeg),
        },
        _ => None,
    }
}

/// JPEG 2000 (PS3.5 section A.4.4) and High-Throughput JPEG 2000 (A.4.12).
fn is_jpeg2000(uid: &str) -> bool {
    uid.strip_prefix(JPEG_UIDS).is_some_and(|last| matches!(last, "90" | "91" | "92" | "93" | "201" | "202" | "203"))
}

/// Syntaxes that keep every bit; the others may differ from what was scanned.
fn is_lossless(uid: &str, codec: Codec) -> bool {
    match codec {
        Codec::Native | Codec::Raw | Codec::Deflated | Codec::Rle => true,
        Codec::Jpeg => matches!(uid, uids::JPEG_LOSSLESS | uids::JPEG_LOSSLESS_SV1),
        _ => uid.strip_prefix(JPEG_UIDS).is_some_and(|last| matches!(last, "80" | "90" | "92" | "110" | "201" | "202")),
    }
}

/// What is wrong with a transfer syntax that has no decoder here; `None` when it has one.
pub(super) fn unsupported(syntax: Option<&TransferSyntax>) -> Option<Error> {
    match syntax {
        None => Some(Error::new(Kind::TransferSyntaxUnsupported, "a transfer syntax outside the standard")),
        Some(syntax) if codec(syntax).is_none() => Some(without_decoder(syntax, "")),
        Some(_) => None,
    }
}

/// Names a syntax of the standard; `addition` says which part of it is not decoded.
fn without_decoder(syntax: &TransferSyntax, addition: &str) -> Error {
    Error::new(Kind::TransferSyntaxUnsupported, format!("{} {}{addition}", syntax.uid(), syntax.name()))
}

/// Decodes one frame.
///
/// What comes out has exactly the samples of the shape. Whatever a code stream claims is compared with the shape before a buffer is
/// sized by it; `ratio` bounds what a deflated frame may grow to.
pub(super) fn decode<'a>(stored: Stored<'a>, shape: &Shape, syntax: Option<&TransferSyntax>, ratio: u64) -> Result<Samples<'a>> {
    let (Some(syntax), None) = (syntax, unsupported(syntax)) else {
        return Err(unsupported(syntax).unwrap_or_else(|| Error::new(Kind::Internal, "a transfer syntax is lost")));
    };
    let codec = codec(syntax).unwrap_or(Codec::Native);
    let is_lossy = !is_lossless(syntax.uid(), codec);
    let width = shape.bits.div_ceil(8) as usize;
    let pixels = usize::try_from(shape.frame_samples()).map_err(|_| Error::new(Kind::OutOfMemory, "a frame"))?;
    let uncoded = |stored: Stored<'a>| {
        let is_subsampled = shape.samples == 3 && is_shared_colour(stored.bytes().len(), pixels * width);
        let big_endian = syntax.uid() == EXPLICIT_VR_BIG_ENDIAN;
        Samples { stored, width, big_endian, precision: None, is_lossy, is_planar: shape.is_planar, is_subsampled }
    };
    let (samples, precision) = match codec {
        Codec::Native => return whole(uncoded(stored), pixels),
        Codec::Raw => return whole(uncoded(stored), pixels),
        Codec::Deflated => {
            let most = (pixels * width) as u64 + 1;
            let inflated =
                inflate(stored.bytes(), ratio, most).map_err(|_| Error::new(Kind::PixelsUndecodable, "a deflated frame is damaged"))?;
            return whole(uncoded(Stored::Joined(inflated)), pixels);
        }
        Codec::Rle => {
            let samples = shape.samples as usize;
            let decoded = rle::decode(stored.bytes(), pixels / samples.max(1), width, samples)?;
            return whole(Samples { is_planar: true, ..uncoded(Stored::Joined(decoded)) }, pixels);
        }
        Codec::Jpeg => {
            let header = agreeing(codestream::jpeg(stored.bytes())?, shape)?;
            // By the stream's own process, whatever the syntax says: archives have baseline frames under the extended syntax.
            if header.is_lossless_jpeg {
                let decoded = jpeg_lossless::decode(stored.bytes(), shape.columns, shape.rows, shape.samples)?;
                (decoded.samples, decoded.precision)
            } else {
                let decoded = jpeg_dct::decode(stored.bytes(), shape.columns, shape.rows, shape.samples)?;
                (decoded.samples, decoded.precision)
            }
        }
        Codec::JpegLs if shape.samples != 1 => return Err(without_decoder(syntax, " in colour")),
        Codec::JpegLs => {
            let decoded = jpeg_ls::decode(stored.bytes(), shape.columns, shape.rows)?;
            (decoded.samples, decoded.precision)
        }
        Codec::Jpeg2000 => {
            let header = agreeing(codestream::jpeg2000(stored.bytes())?, shape)?;
            (registry(&stored, shape, syntax, header)?, header.precision)
        }
        Codec::JpegXl => jpeg_xl(stored.bytes(), shape)?,
    };
    // A stream of 8 bits in an image of 16 bits allocated decodes to single bytes.
    let width = if precision <= 8 { 1 } else { 2 };
    let stored = Stored::Joined(samples);
    whole(
        Samples { stored, width, big_endian: false, precision: Some(precision), is_lossy, is_planar: false, is_subsampled: false },
        pixels,
    )
}

/// Checks that a frame has all its samples; one byte may pad it to even length.
fn whole(samples: Samples<'_>, pixels: usize) -> Result<Samples<'_>> {
    let (due, there) = (pixels.saturating_mul(samples.width), samples.bytes().len());
    if there == due || there == due.saturating_add(1) || samples.is_subsampled {
        return Ok(samples);
    }
    Err(Error::new(Kind::PixelsUndecodable, format!("a frame decodes to {there} bytes instead of {due}")))
}

/// Whether a frame of three samples per pixel has the bytes of two: YBR_FULL_422 (PS3.3 section C.7.6.3.1.2).
pub(super) fn is_shared_colour(there: usize, due: usize) -> bool {
    let shared = due / 3 * 2;
    due.is_multiple_of(3) && (there == shared || (shared % 2 == 1 && there == shared + 1))
}

/// A code stream must be the image that the DICOM header describes.
fn agreeing(header: Header, shape: &Shape) -> Result<Header> {
    if (header.rows, header.columns, header.components) != (shape.rows, shape.columns, shape.samples) {
        let Header { rows, columns, components, .. } = header;
        let detail =
            format!("a frame is {columns} x {rows} x {components}, its header says {} x {} x {}", shape.columns, shape.rows, shape.samples);
        return Err(Error::new(Kind::PixelsUndecodable, detail));
    }
    if !(1..=16).contains(&header.precision) {
        return Err(Error::new(Kind::PixelsUnsupported, format!("compressed samples of {} bits", header.precision)));
    }
    Ok(header)
}

/// Decodes through the registry, which sees the frame as an image of its own.
fn registry(stored: &Stored<'_>, shape: &Shape, syntax: &TransferSyntax, header: Header) -> Result<Plain> {
    let reader = syntax.pixel_data_reader().ok_or_else(|| without_decoder(syntax, ""))?;
    let bits = if header.precision <= 8 { 8 } else { 16 };
    let (rows, columns, samples) = (narrow(shape.rows)?, narrow(shape.columns)?, narrow(shape.samples)?);
    let frame = OneFrame { bytes: stored.bytes(), syntax: syntax.uid(), rows, columns, samples, bits };
    let mut samples = Plain::default();
    // A known panic on damaged streams: openjp2 counts past u32::MAX in a tag tree (seconds of work, ended by the overflow check that release builds keep). `samples` is dropped on each of them.
    let outcome = catch_unwind(AssertUnwindSafe(|| reader.decode_frame(&frame, 0, &mut samples)));
    match outcome {
        Ok(Ok(())) => Ok(samples),
        // A decoder's own text may quote what it met.
        Ok(Err(_)) => Err(Error::new(Kind::PixelsUndecodable, "a frame is damaged")),
        Err(_) => Err(Error::new(Kind::PixelsUndecodable, "a frame is damaged beyond what its decoder expects")),
    }
}

/// Rows and columns are 16-bit numbers in DICOM; the scan has read them as such.
fn narrow(size: u32) -> Result<u16> {
    u16::try_from(size).map_err(|_| Error::new(Kind::DicomMalformed, "rows or columns beyond 65535"))
}

/// JPEG XL (ISO/IEC 18181), to samples of the depth that the stream declares.
fn jpeg_xl(frame: &[u8], shape: &Shape) -> Result<(Plain, u32)> {
    let damaged = || Error::new(Kind::PixelsUndecodable, "a jpeg xl frame is damaged");
    let pixels = usize::try_from(shape.frame_samples()).map_err(|_| damaged())?;
    // Several float planes of the image's size, and tables; a stream that needs more is not an image of this size.
    let budget = pixels.saturating_mul(64).saturating_add(64 << 20);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let tracker = jxl_oxide::AllocTracker::with_limit(budget);
        let image = jxl_oxide::JxlImage::builder().alloc_tracker(tracker).read(frame).map_err(|_| damaged())?;
        // Reading parses headers only; nothing of the image's size is allocated before the comparison.
        let header = Header {
            columns: image.width(),
            rows: image.height(),
            components: image.pixel_format().channels() as u32,
            precision: image.image_header().metadata.bit_depth.bits_per_sample(),
            is_lossless_jpeg: false,
        };
        let header = agreeing(header, shape)?;
        let render = image.render_frame(0).map_err(|_| damaged())?;
        let mut fractions = Zeroizing::new(vec![0f32; pixels]);
        if render.stream().write_to_buffer(&mut fractions) != pixels {
            return Err(damaged());
        }
        let top = f32::from(u16::MAX >> (16 - header.precision));
        // Samples come as fractions of the top value, exact to 24 bits, so rounding gives the integers back.
        let integers = fractions.iter().map(|fraction| (fraction * top).round().clamp(0.0, top) as u16);
        let mut samples = Plain::new(Vec::with_capacity(pixels * 2));
        match header.precision {
            ..=8 => samples.extend(integers.map(|value| value.to_le_bytes()[0])),
            _ => samples.extend(integers.flat_map(u16::to_le_bytes)),
        }
        Ok((samples, header.precision))
    }));
    outcome.unwrap_or_else(|_| Err(damaged()))
}

/// A frame as the registry's decoders want to see it: the only frame of an image with one fragment.
struct OneFrame<'a> {
    bytes: &'a [u8],
    syntax: &'static str,
    rows: u16,
    columns: u16,
    samples: u16,
    bits: u16,
}

impl PixelDataObject for OneFrame<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.syntax
    }
    fn rows(&self) -> Option<u16> {
        Some(self.rows)
    }
    fn cols(&self) -> Option<u16> {
        Some(self.columns)
    }
    fn samples_per_pixel(&self) -> Option<u16> {
        Some(self.samples)
    }
    // The stream's own depth, rounded up to bytes, so that an adapter neither pads nor cuts samples.
    fn bits_allocated(&self) -> Option<u16> {
        Some(self.bits)
    }
    fn bits_stored(&self) -> Option<u16> {
        Some(self.bits)
    }
    // No colour transformation may be applied to components beyond that of the stream itself.
    fn photometric_interpretation(&self) -> Option<&str> {
        Some(if self.samples == 1 { "MONOCHROME2" } else { "RGB" })
    }
    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }
    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }
    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(self.bytes))
    }
    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        Some(Cow::Borrowed(&[]))
    }
    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData { fragments: C::from_iter([self.bytes.to_vec()]), offset_table: C::new() })
    }
}
