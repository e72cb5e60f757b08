//! What a compressed frame says about itself, read before a decoder sees it.
//!
//! A decoder allocates what the code stream's own header asks for, whatever the DICOM header says. So the two are compared first:
//! size, components and precision, and for JPEG 2000 the partition into tiles and precincts, each of which costs a decoder memory
//! however little is in it.

use crate::error::{Error, Kind, Result};

/// Size and samples of a code stream.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Header {
    pub(super) columns: u32,
    pub(super) rows: u32,
    pub(super) components: u32,
    /// Bits per sample.
    pub(super) precision: u32,
    /// JPEG only: the process is lossless (SOF3), so more than 8 bits can be decoded.
    pub(super) is_lossless_jpeg: bool,
}

/// Reads the frame header of a JPEG stream (ITU-T T.81 annex B).
pub(super) fn jpeg(stream: &[u8]) -> Result<Header> {
    // Each turn moves on by one byte at least, so the walk ends with the stream.
    let mut at = 2;
    if !stream.starts_with(&[0xFF, 0xD8]) {
        return Err(wrong("is no jpeg stream"));
    }
    loop {
        let Some([0xFF, marker]) = stream.get(at..).and_then(|rest| rest.first_chunk::<2>()).copied() else {
            return Err(wrong("has no jpeg frame header"));
        };
        at += match marker {
            // Fill bytes, and markers without parameters (table B.1).
            0xFF => 1,
            0x01 | 0xD0..=0xD7 => 2,
            // Frame headers are SOF0 to SOF15; C4, C8 and CC are other segments.
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                let Some([_, _, precision, y1, y0, x1, x0, components]) =
                    stream.get(at + 2..).and_then(|rest| rest.first_chunk::<8>()).copied()
                else {
                    return Err(wrong("has no jpeg frame header"));
                };
                return Ok(Header {
                    columns: u32::from(u16::from_be_bytes([x1, x0])),
                    rows: u32::from(u16::from_be_bytes([y1, y0])),
                    components: components.into(),
                    precision: precision.into(),
                    is_lossless_jpeg: marker == 0xC3,
                });
            }
            // Scan data or the end before a frame header.
            0xD9 | 0xDA => return Err(wrong("has no jpeg frame header")),
            _ => match word(stream, at + 2) {
                Some(length) if length >= 2 => 2 + length as usize,
                _ => return Err(wrong("has a broken jpeg segment")),
            },
        };
    }
}

/// Precincts and code blocks smaller than this cost a decoder more memory than the samples in them (ITU-T T.800 section A.6.1 allows
/// 1 x 1). Encoders use 32768 (no partition), 256 or 128.
const LEAST_PRECINCT_EXPONENT: u8 = 4;
/// Samples per tile below which a partition has no use but to exhaust memory.
const LEAST_TILE: u64 = 1024;

/// Reads the main header and the tile-part headers of a JPEG 2000 or HTJ2K stream (ITU-T T.800 annex A), with or without a JP2 box.
pub(super) fn jpeg2000(frame: &[u8]) -> Result<Header> {
    let stream = unboxed(frame)?;
    if word(stream, 0) != Some(0xFF4F) || word(stream, 2) != Some(0xFF51) {
        return Err(wrong("is no jpeg 2000 stream"));
    }
    let cut = || wrong("has a jpeg 2000 header that is cut short");
    // SIZ (section A.5.1): capabilities, then eight 32-bit fields from offset 8, the number of components, and three bytes for each.
    let field = |index: usize| long(stream, 8 + 4 * index).ok_or_else(cut);
    let (x1, y1, x0, y0) = (field(0)?, field(1)?, field(2)?, field(3)?);
    let (tile_x, tile_y, tile_x0, tile_y0) = (field(4)?, field(5)?, field(6)?, field(7)?);
    let components = word(stream, 40).ok_or_else(cut)?;
    let depth = *stream.get(42).ok_or_else(cut)?;
    let (columns, rows) = (x1.checked_sub(x0).ok_or_else(cut)?, y1.checked_sub(y0).ok_or_else(cut)?);
    if tile_x == 0 || tile_y == 0 || tile_x0 > x0 || tile_y0 > y0 {
        return Err(wrong("has impossible jpeg 2000 tiles"));
    }
    // Equation B-5: tiles across and down, counted from the tile grid's own origin.
    let tiles = u64::from((x1 - tile_x0).div_ceil(tile_x)) * u64::from((y1 - tile_y0).div_ceil(tile_y));
    if tiles > 64 && tiles.saturating_mul(LEAST_TILE) > u64::from(columns) * u64::from(rows) {
        return Err(Error::new(Kind::DicomHostile, format!("a frame is cut into {tiles} jpeg 2000 tiles")));
    }
    if stream.get(43..45) != Some(&[1, 1]) {
        return Err(Error::new(Kind::PixelsUnsupported, "a jpeg 2000 component is subsampled"));
    }
    partition(stream)?;
    Ok(Header { columns, rows, components, precision: u32::from(depth & 0x7F) + 1, is_lossless_jpeg: false })
}

/// Walks all headers and looks at each COD and COC (T.800 sections A.6.1, A.6.2), in the main header and in tile-part headers.
fn partition(stream: &[u8]) -> Result<()> {
    let mut at = 2;
    let mut tile_part_end = None;
    loop {
        let (Some(marker), Some(length)) = (word(stream, at), word(stream, at + 2)) else {
            // A stream that ends without its end marker is for the decoder to judge.
            return Ok(());
        };
        let segment = stream.get(at + 4..).and_then(|rest| rest.get(..(length as usize).saturating_sub(2))).unwrap_or_default();
        match marker {
            0xFF52 => precincts(segment.first(), segment.get(5..).unwrap_or_default())?,
            0xFF53 => precincts(segment.get(1), segment.get(2..).unwrap_or_default())?,
            // SOT: tile index, length of the tile-part counted from this marker; 0 means until the end of the stream.
            0xFF90 => {
                let part = long(stream, at + 6).unwrap_or_default() as usize;
                tile_part_end = (part >= 12).then(|| at.saturating_add(part));
            }
            0xFF93 => match tile_part_end.take() {
                Some(end) if end > at => {
                    at = end;
                    continue;
                }
                _ => return Ok(()),
            },
            0xFFD9 => return Ok(()),
            _ => {}
        }
        if length < 2 {
            return Err(wrong("has a broken jpeg 2000 segment"));
        }
        at += 2 + length as usize;
    }
}

/// `parameters` are SPcod or SPcoc: levels, code block width and height, style, transformation, then precinct sizes if the style says so.
fn precincts(style: Option<&u8>, parameters: &[u8]) -> Result<()> {
    let levels = usize::from(parameters.first().copied().unwrap_or_default());
    if style.is_none_or(|style| style & 1 == 0) {
        return Ok(());
    }
    let sizes = parameters.get(5..).unwrap_or_default().iter().take(levels + 1);
    if sizes.clone().any(|size| size & 0x0F < LEAST_PRECINCT_EXPONENT || size >> 4 < LEAST_PRECINCT_EXPONENT) {
        return Err(Error::new(Kind::DicomHostile, "a frame is cut into jpeg 2000 precincts of less than 16 samples"));
    }
    Ok(())
}

/// The code stream inside a JP2 file (T.800 annex I); DICOM forbids the boxes, some writers keep them.
fn unboxed(frame: &[u8]) -> Result<&[u8]> {
    if !frame.starts_with(&[0, 0, 0, 12, b'j', b'P']) {
        return Ok(frame);
    }
    let mut rest = frame;
    loop {
        let (Some(length), Some(kind)) = (long(rest, 0), rest.get(4..8)) else { return Err(wrong("has no code stream in its jp2 boxes")) };
        let length = match length {
            0 => rest.len(),
            // A 64-bit length; a frame never needs one.
            1..8 => return Err(wrong("has a broken jp2 box")),
            length => length as usize,
        };
        if kind == b"jp2c" {
            return Ok(rest.get(8..length.min(rest.len())).unwrap_or_default());
        }
        rest = rest.get(length..).ok_or_else(|| wrong("has no code stream in its jp2 boxes"))?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from(u16::from_be_bytes(*word)))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

fn wrong(what: &str) -> Error {
    Error::new(Kind::PixelsUndecodable, format!("a frame {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg_stream(sof: u8) -> Vec<u8> {
        let mut stream = vec![0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2, 0xFF, 0xFF];
        stream.extend([sof, 0, 11, 12, 0x02, 0x00, 0x01, 0x80, 1, 1, 0x11, 0]);
        stream
    }

    #[test]
    fn a_jpeg_header_is_read_behind_other_segments() {
        let expected = Header { columns: 384, rows: 512, components: 1, precision: 12, is_lossless_jpeg: false };
        assert_eq!(jpeg(&jpeg_stream(0xC1)).unwrap(), expected);
        assert!(jpeg(&jpeg_stream(0xC3)).unwrap().is_lossless_jpeg);
    }

    /// 64 x 32 samples of 12 bits, one tile, default precincts unless given.
    fn jpeg2000_stream(tile: u32, precinct: Option<u8>) -> Vec<u8> {
        let mut stream = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
        for value in [64u32, 32, 0, 0, tile, tile, 0, 0] {
            stream.extend(value.to_be_bytes());
        }
        stream.extend([0, 1, 11, 1, 1]);
        stream.extend([0xFF, 0x52, 0, 12 + u8::from(precinct.is_some()), u8::from(precinct.is_some()), 0, 0, 1, 0, 0, 4, 4, 0, 1]);
        stream.extend(precinct);
        stream.extend([0xFF, 0xD9]);
        stream
    }

    #[test]
    fn a_jpeg_2000_header_is_read_with_and_without_boxes() {
        let expected = Header { columns: 64, rows: 32, components: 1, precision: 12, is_lossless_jpeg: false };
        let stream = jpeg2000_stream(64, Some(0xFF));
        assert_eq!(jpeg2000(&stream).unwrap(), expected);
        let mut boxed = vec![0, 0, 0, 12, b'j', b'P', b' ', b' ', 0x0D, 0x0A, 0x87, 0x0A, 0, 0, 0, 0];
        boxed.extend(b"jp2c");
        boxed.extend(stream);
        assert_eq!(jpeg2000(&boxed).unwrap(), expected);
    }

    #[test]
    fn partitions_that_only_cost_memory_are_refused() {
        assert_eq!(jpeg2000(&jpeg2000_stream(1, None)).unwrap_err().kind(), Kind::DicomHostile);
        assert_eq!(jpeg2000(&jpeg2000_stream(64, Some(0x00))).unwrap_err().kind(), Kind::DicomHostile);
        assert_eq!(jpeg2000(&jpeg2000_stream(64, Some(0xF1))).unwrap_err().kind(), Kind::DicomHostile);
    }

    #[test]
    fn cut_headers_are_errors_or_nothing() {
        let (jpeg_whole, jpeg2000_whole) = (jpeg_stream(0xC0), jpeg2000_stream(64, Some(0xFF)));
        for cut in 0..18 {
            assert_eq!(jpeg(&jpeg_whole[..cut]).unwrap_err().kind(), Kind::PixelsUndecodable);
        }
        for cut in 0..45 {
            assert!(jpeg2000(&jpeg2000_whole[..cut]).is_err(), "{cut}");
        }
    }
}
