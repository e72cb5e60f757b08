//! The passes over one open file.
//!
//! Only regions that hold data are written: a hole has no blocks to overwrite, and filling one would need the space that it saves. Each pass is
//! flushed before the next begins, otherwise the disk would see the last one only.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};

/// Bytes per write, and between two looks at the cancel flag.
const PIECE: usize = 1 << 20;
/// More passes than any procedure asks for (Gutmann 1996).
const MOST_PASSES: u32 = 35;

/// What one pass writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Zeros,
    Ones,
    Random,
}

/// The passes: zeros and ones by turns, random bytes last. One pass is random; three are those of DoD 5220.22-M.
pub(super) fn patterns(passes: u32) -> Result<Vec<Pattern>> {
    if passes == 0 || passes > MOST_PASSES {
        return Err(Error::new(Kind::InvalidArgument, format!("passes must be 1 to {MOST_PASSES}")).at(Stage::Erasure));
    }
    let fixed = (1..passes).map(|pass| if pass % 2 == 1 { Pattern::Zeros } else { Pattern::Ones });
    Ok(fixed.chain([Pattern::Random]).collect())
}

/// Overwrites a file and cuts it to nothing; its size before is returned.
pub(super) fn overwrite(file: &File, patterns: &[Pattern], control: &Control) -> Result<u64> {
    let size = file.metadata().map_err(|_| failed("its size is not known"))?.len();
    let regions = data_regions(file, size);
    let mut piece = vec![0; PIECE];
    for pattern in patterns {
        piece.fill(if *pattern == Pattern::Ones { 0xff } else { 0 });
        for region in &regions {
            write_region(file, region, *pattern, &mut piece, control)?;
        }
        file.sync_all().map_err(|_| failed("the disk did not take a pass"))?;
    }
    // The length of a study's file may tell what it was.
    file.set_len(0).map_err(|_| failed("it cannot be cut"))?;
    file.sync_all().map_err(|_| failed("the disk did not take the cut"))?;
    Ok(size)
}

fn write_region(file: &File, region: &Range<u64>, pattern: Pattern, piece: &mut [u8], control: &Control) -> Result<()> {
    let mut offset = region.start;
    while offset < region.end {
        control.check()?;
        let length = usize::try_from(region.end - offset).map_or(piece.len(), |left| left.min(piece.len()));
        let part = piece.get_mut(..length).unwrap_or_default();
        if pattern == Pattern::Random {
            getrandom::fill(part).map_err(|_| failed("the system gives no random numbers"))?;
        }
        file.write_all_at(part, offset).map_err(|_| failed("it cannot be overwritten, the disk may be full"))?;
        offset += length as u64;
    }
    Ok(())
}

/// The parts of a file that are not holes; the whole file where the file system does not tell.
fn data_regions(file: &File, size: u64) -> Vec<Range<u64>> {
    let (mut regions, mut offset) = (Vec::new(), 0);
    while offset < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            // No data from here to the end.
            Err(rustix::io::Errno::NXIO) => return regions,
            Err(_) => return std::iter::once(0..size).collect(),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(size).min(size);
        if end <= start {
            break;
        }
        regions.push(start..end);
        offset = end;
    }
    regions
}

fn failed(detail: &'static str) -> Error {
    Error::new(Kind::EraseFailed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn three_passes_are_zeros_ones_and_random() {
        use Pattern::{Ones, Random, Zeros};
        for (passes, expected) in [(1, vec![Random]), (2, vec![Zeros, Random]), (3, vec![Zeros, Ones, Random])] {
            assert_eq!(patterns(passes).unwrap(), expected);
        }
        assert_eq!(patterns(35).unwrap().len(), 35);
        for passes in [0, 36, u32::MAX] {
            assert_eq!(patterns(passes).unwrap_err().kind(), Kind::InvalidArgument);
        }
    }

    #[test]
    fn a_pass_reaches_every_byte() {
        let mut file = tempfile::tempfile().unwrap();
        let length = 2 * PIECE + 17;
        file.write_all(&vec![b'c'; length]).unwrap();
        for (pattern, is_right) in [
            (Pattern::Ones, (|bytes| bytes.iter().all(|byte| *byte == 0xff)) as fn(&[u8]) -> bool),
            (Pattern::Zeros, |bytes| bytes.iter().all(|byte| *byte == 0)),
            // Runs of 64 equal random bytes do not happen.
            (Pattern::Random, |bytes| bytes.chunks(64).all(|chunk| chunk.len() < 64 || chunk.windows(2).any(|pair| pair[0] != pair[1]))),
        ] {
            let mut piece = vec![if pattern == Pattern::Ones { 0xff } else { 0 }; PIECE];
            write_region(&file, &(0..length as u64), pattern, &mut piece, &Control::new()).unwrap();
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            assert!(bytes.len() == length && is_right(&bytes), "{pattern:?}");
        }
    }

    #[test]
    fn a_hole_is_not_filled() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        file.write_all_at(b"canary", 1 << 39).unwrap();
        let regions = data_regions(&file, 1 << 40);
        let total: u64 = regions.iter().map(|region| region.end - region.start).sum();
        // File systems that do not tell holes answer with the whole file; none that tests run on does.
        assert!(regions.iter().any(|region| region.contains(&(1 << 39))) && total < 1 << 30, "{regions:?}");
        assert_eq!(overwrite(&file, &[Pattern::Random], &Control::new()).unwrap(), 1 << 40);
    }

    #[test]
    fn a_cancelled_pass_stops() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let control = Control::new();
        control.cancel();
        assert_eq!(overwrite(&file, &[Pattern::Zeros], &control).unwrap_err().kind(), Kind::Cancelled);
    }
}
