//! The stored bytes of one frame: a slice of native pixel data, or the fragments that make up a compressed frame.
//!
//! Fragments belong to frames by the offset tables where there are any (PS3.5 section A.4, PS3.3 section C.7.6.3.1.8); a table that does
//! not point at fragments is an error, never a guess. Without tables, one frame owns all fragments, as many fragments as frames
//! are one each, and otherwise a frame ends with the fragment that carries its code stream's end marker.

use std::ops::Range;

use dicom_core::VR;

use super::codecs::is_shared_colour;
use super::scan::{Pixels, Scanned, Shape};
use crate::error::{Error, Kind, Result};
use crate::secret::Plain;

/// Where an image's frames lie in its bytes.
pub(super) struct Frames {
    bytes: Plain,
    layout: Layout,
}

enum Layout {
    /// Where the value lies and how long each frame is.
    Native { value: Range<usize>, frame_bytes: usize },
    /// The fragments of each frame.
    Encapsulated(Vec<Vec<Range<usize>>>),
}

impl Frames {
    /// Lays out the frames of a scanned file and takes its bytes over.
    pub(super) fn new(file: Scanned) -> Result<Frames> {
        let Scanned { mut bytes, pixels, shape, encoding, .. } = file;
        // 8-bit samples that big-endian writers stored as 16-bit words are two to a word in the wrong order (PS3.5 section A.3). A word may hold the last sample
        // of a frame and the first of the next, so all are turned at once.
        if let Pixels::Native { vr: VR::OW, value, .. } = &pixels
            && encoding.big_endian
            && shape.bits == 8
        {
            bytes.get_mut(value.clone()).unwrap_or_default().as_chunks_mut::<2>().0.iter_mut().for_each(|word| word.reverse());
        }
        let layout = match pixels {
            Pixels::Native { value, .. } => {
                let frame_bytes = native_frame_bytes(&shape, value.len());
                Layout::Native { value, frame_bytes }
            }
            Pixels::Encapsulated { table, extended, fragments } => {
                Layout::Encapsulated(group(&bytes, shape.frames as usize, table, extended, fragments)?)
            }
        };
        Ok(Frames { bytes, layout })
    }

    /// Whether frames are fragments, hence compressed or at least wrapped.
    pub(super) fn is_encapsulated(&self) -> bool {
        matches!(self.layout, Layout::Encapsulated(_))
    }

    /// Stored bytes of a frame, counted from 0. Several fragments are joined, one is lent.
    pub(super) fn frame(&self, index: usize) -> Result<Stored<'_>> {
        let missing = || Error::new(Kind::DicomMalformed, format!("frame {} has no pixel data", index + 1));
        match &self.layout {
            Layout::Native { value, frame_bytes } => {
                let start = frame_bytes.checked_mul(index).and_then(|skip| value.start.checked_add(skip)).ok_or_else(missing)?;
                let end = start.checked_add(*frame_bytes).filter(|end| *end <= value.end).ok_or_else(missing)?;
                self.bytes.get(start..end).map(Stored::Lent).ok_or_else(missing)
            }
            Layout::Encapsulated(frames) => match frames.get(index).ok_or_else(missing)?.as_slice() {
                [] => Err(missing()),
                [one] => self.bytes.get(one.clone()).map(Stored::Lent).ok_or_else(missing),
                several => {
                    let mut joined = Plain::new(Vec::with_capacity(several.iter().map(ExactSizeIterator::len).sum()));
                    for fragment in several {
                        joined.extend_from_slice(self.bytes.get(fragment.clone()).ok_or_else(missing)?);
                    }
                    Ok(Stored::Joined(joined))
                }
            },
        }
    }
}

/// Bytes of a frame, lent or joined. Joined ones are plaintext of their own and are overwritten when dropped.
pub(super) enum Stored<'a> {
    Lent(&'a [u8]),
    Joined(Plain),
}

impl Stored<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Stored::Lent(bytes) => bytes,
            Stored::Joined(bytes) => bytes,
        }
    }
}

/// Whole bytes per sample only; packed bits are refused before they are decoded. Where two pixels share their colour a frame is shorter.
fn native_frame_bytes(shape: &Shape, value: usize) -> usize {
    let whole = usize::try_from(shape.frame_samples() * u64::from(shape.bits.div_ceil(8))).unwrap_or(usize::MAX);
    match shape.samples == 3 && is_shared_colour(value, whole.saturating_mul(shape.frames as usize)) {
        true => whole / 3 * 2,
        false => whole,
    }
}

/// Shares fragments out among frames; every fragment belongs to exactly one.
fn group(
    bytes: &[u8],
    frames: usize,
    table: Range<usize>,
    extended: Range<usize>,
    fragments: Vec<Range<usize>>,
) -> Result<Vec<Vec<Range<usize>>>> {
    let basic: Vec<u64> = words(bytes.get(table).unwrap_or_default(), u32::from_le_bytes).map(u64::from).collect();
    let extended: Vec<u64> = words(bytes.get(extended).unwrap_or_default(), u64::from_le_bytes).collect();
    // A frame has one fragment at least, so a frame count cannot size a buffer that the file does not pay for.
    if fragments.len() < frames {
        return Err(Error::new(Kind::DicomMalformed, format!("{} fragments for {frames} frames", fragments.len())));
    }
    // With one frame there is nothing to look up; writers put anything into its table.
    if frames == 1 {
        return Ok(vec![fragments]);
    }
    // The basic table wins: PS3.5 section A.4 requires it to be empty where an extended one is used.
    match (basic.is_empty(), extended.is_empty()) {
        (false, _) => by_offsets(&basic, frames, &fragments),
        (true, false) => by_offsets(&extended, frames, &fragments),
        (true, true) if fragments.len() == frames => Ok(fragments.into_iter().map(|fragment| vec![fragment]).collect()),
        (true, true) => by_end_markers(bytes, frames, fragments),
    }
}

/// Little-endian numbers; encapsulated data sets are always little endian (PS3.5 section A.4).
fn words<T, const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    bytes.as_chunks::<N>().0.iter().map(move |word| from(*word))
}

/// Offsets count from the item tag of the first fragment (PS3.5 section A.4); an item header is 8 bytes.
fn by_offsets(offsets: &[u64], frames: usize, fragments: &[Range<usize>]) -> Result<Vec<Vec<Range<usize>>>> {
    let wrong = |what: String| Error::new(Kind::DicomMalformed, format!("the offset table {what}"));
    if offsets.len() != frames {
        return Err(wrong(format!("has {} entries for {frames} frames", offsets.len())));
    }
    // Fragments and entries both ascend, so one pass pairs them; an entry that is passed over is never met again.
    let base = fragments.first().map_or(0, |first| first.start);
    let mut grouped: Vec<Vec<Range<usize>>> = Vec::with_capacity(frames);
    let mut next = offsets.iter();
    let mut due = next.next().copied();
    for fragment in fragments {
        let offset = (fragment.start - base) as u64;
        if due == Some(offset) {
            grouped.push(Vec::new());
            due = next.next().copied();
        }
        match grouped.last_mut() {
            Some(frame) => frame.push(fragment.clone()),
            None => return Err(wrong("does not begin with the first fragment".to_owned())),
        }
    }
    if grouped.len() == frames { Ok(grouped) } else { Err(wrong(format!("points beside the fragments at entry {}", grouped.len() + 1))) }
}

/// JPEG, JPEG-LS and JPEG 2000 end with FF D9, behind which a writer may pad a little.
fn by_end_markers(bytes: &[u8], frames: usize, fragments: Vec<Range<usize>>) -> Result<Vec<Vec<Range<usize>>>> {
    let count = fragments.len();
    let mut grouped: Vec<Vec<Range<usize>>> = Vec::new();
    let mut current = Vec::new();
    for fragment in fragments {
        let content = bytes.get(fragment.clone()).unwrap_or_default();
        let tail = content.get(content.len().saturating_sub(10)..).unwrap_or_default();
        let ends = tail.windows(2).any(|pair| pair == [0xFF, 0xD9]);
        current.push(fragment);
        if ends {
            grouped.push(std::mem::take(&mut current));
        }
    }
    if !current.is_empty() {
        grouped.push(current);
    }
    if grouped.len() == frames {
        return Ok(grouped);
    }
    Err(Error::new(Kind::DicomMalformed, format!("{count} fragments without an offset table cannot be shared among {frames} frames")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three fragments of 4, 6 and 2 bytes, as they lie behind an empty offset table; offsets 0, 12 and 26.
    fn fragments() -> Vec<Range<usize>> {
        vec![8..12, 20..26, 34..36]
    }

    fn sizes(grouped: Vec<Vec<Range<usize>>>) -> Vec<Vec<usize>> {
        grouped.iter().map(|frame| frame.iter().map(ExactSizeIterator::len).collect()).collect()
    }

    #[test]
    fn offsets_share_the_fragments_out() {
        assert_eq!(sizes(by_offsets(&[0, 26], 2, &fragments()).unwrap()), [vec![4, 6], vec![2]]);
        assert_eq!(sizes(by_offsets(&[0, 12], 2, &fragments()).unwrap()), [vec![4], vec![6, 2]]);
    }

    #[test]
    fn an_offset_table_that_points_elsewhere_is_refused() {
        for offsets in [&[4, 26][..], &[0, 13], &[0, 4_000_000_000], &[26, 0], &[0, 0], &[0], &[0, 12, 26]] {
            assert_eq!(by_offsets(offsets, 2, &fragments()).unwrap_err().kind(), Kind::DicomMalformed, "{offsets:?}");
        }
    }

    #[test]
    fn end_markers_share_the_fragments_out_when_there_is_no_table() {
        let mut bytes = vec![0u8; 40];
        bytes[24..26].copy_from_slice(&[0xFF, 0xD9]);
        bytes[34..36].copy_from_slice(&[0xFF, 0xD9]);
        assert_eq!(sizes(by_end_markers(&bytes, 2, fragments()).unwrap()), [vec![4, 6], vec![2]]);
        assert!(by_end_markers(&bytes, 3, fragments()).is_err());
    }
}
