//! Deflated data sets and frames, inflated under limits.
//!
//! Inflating runs twice: once into a small buffer that is thrown away, to learn the size while the limits are watched, then into a
//! buffer of exactly that size. A bomb is refused before memory is spent on it, and no plaintext is left behind by a growing buffer.

use flate2::{Decompress, FlushDecompress, Status};

use crate::error::{Error, Kind, Result};
use crate::secret::Plain;

/// Below this an absurd ratio harms nobody; a blank image of this size deflates a thousandfold.
const HARMLESS: u64 = 16 << 20;

/// Inflates a raw deflate stream (RFC 1951, as PS3.5 section A.5 prescribes) whose size must stay within `ratio` times its own and
/// within `most` bytes. Bytes after the stream's end (padding to even length) are ignored.
pub(super) fn inflate(deflated: &[u8], ratio: u64, most: u64) -> Result<Plain> {
    let size = measure(deflated, ratio, most)?;
    let mut inflated = Plain::default();
    inflated.try_reserve_exact(size).map_err(|_| Error::new(Kind::OutOfMemory, format!("{size} bytes for an inflated data set")))?;
    let mut stream = Decompress::new(false);
    // The capacity is exact, so the vector never moves; the first pass proved that the stream is whole.
    stream.decompress_vec(deflated, &mut inflated, FlushDecompress::Finish).map_err(|_| broken())?;
    if inflated.len() == size { Ok(inflated) } else { Err(broken()) }
}

/// Size of the inflated stream, or why it must not be inflated.
fn measure(deflated: &[u8], ratio: u64, most: u64) -> Result<usize> {
    let allowed_by_ratio = (deflated.len() as u64).saturating_mul(ratio).max(HARMLESS);
    let mut scratch = Plain::new(vec![0u8; 32 << 10]);
    let mut stream = Decompress::new(false);
    loop {
        let rest = usize::try_from(stream.total_in()).ok().and_then(|read| deflated.get(read..)).unwrap_or_default();
        let before = (stream.total_in(), stream.total_out());
        let status = stream.decompress(rest, &mut scratch, FlushDecompress::None).map_err(|_| broken())?;
        if stream.total_out() > allowed_by_ratio {
            return Err(Error::new(Kind::DicomHostile, format!("inflates more than {ratio} times its size (limits.inflate_ratio)")));
        }
        if stream.total_out() > most {
            return Err(Error::new(Kind::DicomHostile, format!("inflates to more than {most} bytes (limits.volume_bytes)")));
        }
        if matches!(status, Status::StreamEnd) {
            return usize::try_from(stream.total_out()).map_err(|_| Error::new(Kind::OutOfMemory, "the inflated data set"));
        }
        // No progress means that the stream stops before its end marker.
        if (stream.total_in(), stream.total_out()) == before {
            return Err(broken());
        }
    }
}

fn broken() -> Error {
    Error::new(Kind::DicomMalformed, "the deflated data set is damaged or cut short")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_deflated_comes_back() {
        let plain: Vec<u8> = (0..300_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        let mut deflated = deflate(&plain);
        deflated.push(0);
        assert_eq!(*inflate(&deflated, 100, 1 << 30).unwrap(), plain);
    }

    #[test]
    fn a_bomb_is_refused_by_its_ratio_and_by_its_size() {
        let bomb = deflate(&vec![0u8; 64 << 20]);
        let refused = |ratio, most| inflate(&bomb, ratio, most).err().unwrap();
        assert_eq!(refused(100, 1 << 40).kind(), Kind::DicomHostile);
        assert!(refused(100, 1 << 40).detail().contains("limits.inflate_ratio"));
        assert!(refused(10_000, 1 << 20).detail().contains("limits.volume_bytes"));
    }

    #[test]
    fn a_cut_stream_is_malformed() {
        let deflated = deflate(&(0..100_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect::<Vec<_>>());
        for cut in [0, 1, deflated.len() / 2, deflated.len() - 1] {
            assert_eq!(inflate(&deflated[..cut], 100, 1 << 30).err().unwrap().kind(), Kind::DicomMalformed);
        }
    }
}
