//! What compressed frames say beside the image: comments, application data, previews, names of programs. Found here, to be overwritten with zeros.
//!
//! Segments keep their lengths, so that nothing else of a stream has to be written anew. A stream whose structure cannot be followed to its end is
//! refused: what cannot be read cannot be called clean.

use std::ops::Range;

use crate::error::{Error, Kind, Result};

/// How a frame is coded, as far as it may carry texts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Coding {
    /// JPEG and JPEG-LS: segments behind markers.
    Jpeg,
    Jpeg2000,
    JpegXl,
    /// Codings that have no place for anything else.
    Other,
}

impl Coding {
    pub(super) fn of(syntax: &str) -> Coding {
        match syntax.strip_prefix("1.2.840.10008.1.2.4.").and_then(|last| last.parse::<u16>().ok()) {
            Some(50..=81) => Coding::Jpeg,
            Some(90..=93 | 201..=203) => Coding::Jpeg2000,
            Some(110..=112) => Coding::JpegXl,
            _ => Coding::Other,
        }
    }
}

/// The parts of a frame that are overwritten, in order.
pub(super) fn ranges(coding: Coding, frame: &[u8]) -> Result<Vec<Range<usize>>> {
    match coding {
        Coding::Jpeg => jpeg(frame),
        Coding::Jpeg2000 => jpeg2000(frame),
        Coding::JpegXl => jpeg_xl(frame),
        Coding::Other => Ok(Vec::new()),
    }
}

fn lost(what: &str) -> Error {
    Error::new(Kind::PixelsUndecodable, format!("the structure of a {what} frame cannot be followed"))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk::<2>().map(|word| usize::from(u16::from_be_bytes(*word)))
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk::<4>().map(|word| u32::from_be_bytes(*word) as usize)
}

/// Application segments and comments (T.81 section B.2.4.5, B.2.4.6), and what follows the end of the image. Two segments of fixed content stay, since decoders
/// look at them: JFIF without a preview, and Adobe's, which tells the colour transformation.
fn jpeg(frame: &[u8]) -> Result<Vec<Range<usize>>> {
    let lost = || lost("jpeg");
    let mut found = Vec::new();
    if !frame.starts_with(&[0xFF, 0xD8]) {
        return Err(lost());
    }
    let mut at = 2;
    loop {
        if frame.get(at) != Some(&0xFF) {
            return Err(lost());
        }
        match *frame.get(at + 1).ok_or_else(lost)? {
            0xFF => at += 1,
            0x01 | 0xD0..=0xD7 => at += 2,
            0xD9 => {
                found.extend((at + 2 < frame.len()).then_some(at + 2..frame.len()));
                return Ok(found);
            }
            marker => {
                let length = word(frame, at + 2).filter(|length| *length >= 2).ok_or_else(lost)?;
                let payload = at + 4..at + 2 + length;
                let content = frame.get(payload.clone()).ok_or_else(lost)?;
                let is_kept = match marker {
                    // Version, unit, densities, and a preview of no size.
                    0xE0 => content.len() == 14 && content.starts_with(b"JFIF\0") && content.ends_with(&[0, 0]),
                    0xEE => content.len() == 12 && content.starts_with(b"Adobe"),
                    0xE1..=0xEF | 0xFE => false,
                    _ => true,
                };
                if !is_kept && !payload.is_empty() {
                    found.push(payload.clone());
                }
                at = payload.end;
                if marker == 0xDA {
                    // Coded data end at a marker that is no restart. In JPEG a zero follows each byte of ones, in JPEG-LS a bit of zero.
                    while !matches!(frame.get(at..at + 2), Some([0xFF, 0x80..=0xCF | 0xD8..=0xFE])) {
                        at += 1;
                        if at >= frame.len() {
                            return Err(lost());
                        }
                    }
                }
            }
        }
    }
}

/// Comments of the main header and of tile-part headers (T.800 section A.9.2), what follows the code stream, and boxes of a JP2 file that are not the image's.
fn jpeg2000(frame: &[u8]) -> Result<Vec<Range<usize>>> {
    let lost = || lost("jpeg 2000");
    let mut found = Vec::new();
    let stream = match frame.starts_with(&[0, 0, 0, 12, b'j', b'P']) {
        false => 0..frame.len(),
        true => boxes(frame, &[*b"jP  ", *b"ftyp", *b"jp2h"], *b"jp2c", &mut found).ok_or_else(lost)?,
    };
    let code = frame.get(stream.clone()).ok_or_else(lost)?;
    if word(code, 0) != Some(0xFF4F) {
        return Err(lost());
    }
    let mut at = 2;
    // Where the tile-part ends whose header is read.
    let mut part_end = None;
    loop {
        match word(code, at).ok_or_else(lost)? {
            0xFFD9 => break,
            0xFF93 => at = part_end.take().filter(|end| *end > at).ok_or_else(lost)?,
            marker => {
                let length = word(code, at + 2).filter(|length| *length >= 2).ok_or_else(lost)?;
                if at + 2 + length > code.len() {
                    return Err(lost());
                }
                if marker == 0xFF90 {
                    // The length of the tile-part counts from here; 0 means until the end.
                    part_end = match long(code, at + 6).ok_or_else(lost)? {
                        0 => Some(code.len().saturating_sub(2)),
                        part => Some(at + part),
                    };
                }
                // Registration, then the comment.
                if marker == 0xFF64 && length > 4 {
                    found.push(stream.start + at + 6..stream.start + at + 2 + length);
                }
                at += 2 + length;
            }
        }
    }
    let end = stream.start + at + 2;
    found.extend((end < stream.end).then_some(end..stream.end));
    found.sort_by_key(|range| range.start);
    Ok(found)
}

/// Boxes of a JPEG XL file (ISO/IEC 18181-2) other than the image's: Exif, XMP, JUMBF. A bare code stream has none.
fn jpeg_xl(frame: &[u8]) -> Result<Vec<Range<usize>>> {
    let mut found = Vec::new();
    if frame.starts_with(&[0, 0, 0, 12, b'J', b'X', b'L', b' ']) {
        boxes(frame, &[*b"JXL ", *b"ftyp", *b"jxll", *b"jxlp", *b"jxli", *b"jbrd"], *b"jxlc", &mut found).ok_or_else(|| lost("jpeg xl"))?;
    }
    Ok(found)
}

/// Walks over boxes: a length, a kind, a content. Answers the content of the box with the image, or where several boxes share it nothing but an empty
/// range; contents of boxes that are not known go to `found`.
fn boxes(frame: &[u8], kept: &[[u8; 4]], image: [u8; 4], found: &mut Vec<Range<usize>>) -> Option<Range<usize>> {
    let (mut at, mut stream) = (0, 0..0);
    while at < frame.len() {
        // Less than a box's head is padding of the fragment.
        if frame.len() - at < 8 {
            found.push(at..frame.len());
            break;
        }
        let kind = *frame.get(at + 4..)?.first_chunk::<4>()?;
        let (head, length) = match long(frame, at)? {
            0 => (8, frame.len() - at),
            1 => (16, usize::try_from(u64::from_be_bytes(*frame.get(at + 8..)?.first_chunk::<8>()?)).ok()?),
            length => (8, length),
        };
        let end = at.checked_add(length).filter(|end| *end <= frame.len() && length >= head)?;
        if kind == image {
            stream = at + head..end;
        } else if !kept.contains(&kind) && at + head < end {
            found.push(at + head..end);
        }
        at = end;
    }
    Some(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        let length = (content.len() + 2) as u16;
        [&[0xFF, marker][..], &length.to_be_bytes(), content].concat()
    }

    #[test]
    fn texts_in_jpeg_segments_are_found_and_what_decoders_need_is_not() {
        let jfif = segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
        let adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\x01");
        let scan = [segment(0xDA, &[1, 1, 0, 0, 63, 0]), vec![1, 0xFF, 0, 2, 0xFF, 0xD3, 3, 0xFF, 0x7F, 4]].concat();
        let parts = [
            vec![0xFF, 0xD8],
            jfif,
            segment(0xE1, b"Exif Doe^Jane"),
            adobe,
            segment(0xFE, b"comment"),
            segment(0xDB, &[1, 2]),
            scan.clone(),
            scan,
        ];
        let frame = [parts.concat(), segment(0xFE, b"later"), vec![0xFF, 0xD9, b'x', b'y']].concat();
        let texts: Vec<&[u8]> = jpeg(&frame).unwrap().into_iter().map(|range| &frame[range]).collect();
        assert_eq!(texts, [&b"Exif Doe^Jane"[..], b"comment", b"later", b"xy"]);
        let preview = [&[0xFF, 0xD8][..], &segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\x01\x01rgb"), &[0xFF, 0xD9]].concat();
        assert_eq!(jpeg(&preview).unwrap().len(), 1, "a preview shows the patient");
    }

    #[test]
    fn comments_of_jpeg_2000_are_found_in_every_header() {
        let comment = |text: &[u8]| segment(0x64, &[&[0, 1][..], text].concat());
        let header = comment(b"in the tile");
        let data = [1, 2, 3, 4];
        let length = (12 + header.len() + 2 + data.len()) as u32;
        let part = [&[0xFF, 0x90, 0, 10, 0, 0][..], &length.to_be_bytes(), &[0, 1], &header, &[0xFF, 0x93], &data].concat();
        let code = [&[0xFF, 0x4F][..], &comment(b"Doe^Jane"), &part, &[0xFF, 0xD9], b"tail"].concat();
        let texts = |frame: &[u8]| jpeg2000(frame).unwrap().into_iter().map(|range| frame[range].to_vec()).collect::<Vec<_>>();
        assert_eq!(texts(&code), [&b"Doe^Jane"[..], b"in the tile", b"tail"]);
        let boxed = |kind: &[u8; 4], content: &[u8]| [&((content.len() + 8) as u32).to_be_bytes()[..], kind, content].concat();
        let file = [boxed(b"jP  ", &[13, 10, 0x87, 10]), boxed(b"xml ", b"<name/>"), boxed(b"jp2c", &code)].concat();
        assert_eq!(texts(&file), [&b"<name/>"[..], b"Doe^Jane", b"in the tile", b"tail"]);
    }

    #[test]
    fn streams_that_cannot_be_followed_are_refused() {
        let whole = [&[0xFF, 0xD8][..], &segment(0xE1, b"Exif"), &segment(0xDA, &[0; 6]), &[7, 7, 0xFF, 0xD9]].concat();
        for cut in 0..whole.len() {
            assert!(jpeg(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(jpeg(&whole).is_ok());
        assert!(jpeg2000(&[0xFF, 0x4F, 0xFF, 0x64, 0, 200]).is_err() && jpeg2000(b"").is_err());
        assert!(jpeg_xl(&[0, 0, 0, 12, b'J', b'X', b'L', b' ', 13, 10, 0x87, 10, 0, 0, 0, 99, b'E', b'x', b'i', b'f']).is_err());
    }
}
