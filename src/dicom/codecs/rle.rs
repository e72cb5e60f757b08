//! RLE Lossless (PS3.5 annex G), decoded into a buffer whose size the image's shape fixes.
//!
//! The registry's decoder sizes a table by a number in the file and stops the process on short segments; this one does neither.

use crate::error::{Error, Kind, Result};
use crate::secret::Plain;

/// Header: a count and fifteen offsets, 32 bits each.
const HEADER: usize = 64;

/// Decodes a frame into little-endian samples of `width` bytes; of several samples per pixel one plane after the other.
pub(super) fn decode(frame: &[u8], pixels: usize, width: usize, samples_per_pixel: usize) -> Result<Plain> {
    let segments = width * samples_per_pixel;
    let (words, _) = frame.get(..HEADER).ok_or_else(|| wrong("is shorter than its header"))?.as_chunks::<4>();
    let mut header = words.iter().map(|word| u32::from_le_bytes(*word) as usize);
    // One segment per byte of a sample, most significant first, one sample after the other (section G.2).
    if header.next() != Some(segments) || segments > 15 {
        return Err(wrong("has another number of segments than its pixels have bytes"));
    }
    let starts: Vec<usize> = header.take(segments).collect();
    let mut samples = Plain::new(vec![0u8; pixels * segments]);
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(frame.len());
        let segment = frame.get(*start..end).filter(|_| *start >= HEADER).ok_or_else(|| wrong("has a segment outside of itself"))?;
        let (sample, byte) = (index / width, width - 1 - index % width);
        let bytes = samples.get_mut(sample * pixels * width..(sample + 1) * pixels * width).unwrap_or_default();
        let mut plane = bytes.iter_mut().skip(byte).step_by(width);
        unpack(segment, &mut plane);
        if plane.next().is_some() {
            return Err(wrong("has a segment that ends before the last pixel"));
        }
    }
    Ok(samples)
}

/// PackBits (PS3.5 section G.3): 0..=127 copies n+1 bytes, 129..=255 repeats one 257-n times, 128 does nothing. A last run may pass the
/// plane's end, and a pad byte may follow it; whether the plane was filled is the caller's question.
fn unpack<'a>(segment: &[u8], plane: &mut impl Iterator<Item = &'a mut u8>) {
    let mut bytes = segment.iter().copied();
    while let Some(control) = bytes.next() {
        match control {
            0..=127 => {
                for value in bytes.by_ref().take(usize::from(control) + 1) {
                    let Some(sample) = plane.next() else { return };
                    *sample = value;
                }
            }
            128 => {}
            129..=255 => {
                let Some(value) = bytes.next() else { return };
                plane.take(257 - usize::from(control)).for_each(|sample| *sample = value);
            }
        }
    }
}

fn wrong(what: &str) -> Error {
    Error::new(Kind::PixelsUndecodable, format!("an rle frame {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(segments: &[&[u8]]) -> Vec<u8> {
        let mut header = vec![segments.len() as u32];
        let mut at = HEADER as u32;
        for segment in segments {
            header.push(at);
            at += segment.len() as u32;
        }
        header.resize(16, 0);
        header.iter().flat_map(|word| word.to_le_bytes()).chain(segments.iter().flat_map(|segment| segment.iter().copied())).collect()
    }

    #[test]
    fn runs_and_copies_make_the_bytes_that_the_standard_says() {
        // PS3.5 section G.3.1: 0xFE 0xAA repeats AA three times; 0x02 copies three bytes.
        let encoded = frame(&[&[0xFE, 0x01, 0x02, 0x0A, 0x0B, 0x0C], &[0xFB, 0x22]]);
        let decoded = decode(&encoded, 6, 2, 1).unwrap();
        assert_eq!(*decoded, [0x22, 1, 0x22, 1, 0x22, 1, 0x22, 0x0A, 0x22, 0x0B, 0x22, 0x0C]);
    }

    #[test]
    fn damaged_frames_are_errors() {
        let good = frame(&[&[0xFE, 0x01, 0x02, 0x0A, 0x0B, 0x0C], &[0xFB, 0x22]]);
        for cut in 0..good.len() {
            assert_eq!(decode(&good[..cut], 6, 2, 1).err().unwrap().kind(), Kind::PixelsUndecodable, "{cut}");
        }
        for (at, value) in [(0, 0xFF), (3, 0xFF), (4, 0), (5, 0xFF), (8, 0xFF), (11, 0xFF)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(decode(&bad, 6, 2, 1).err().unwrap().kind(), Kind::PixelsUndecodable, "{at}");
        }
    }
}
