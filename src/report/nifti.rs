//! NIfTI-1 (`nifti1.h`, 2007): one file with a header of 348 bytes, four bytes that say "no extension", and the voxels.
//!
//! The affine goes in twice: as `sform`, which holds it as it is, and as `qform` (spacing, quaternion, handedness), which older
//! programs read. A sheared grid has no `qform`; it then carries the `sform` alone rather than an approximation.
//!
//! A compressed file is one gzip member made of independently deflated blocks that all cores work on, the way pigz does it. Its bytes
//! do not depend on the number of cores, and programs that read only the first member of a gzip file read all of it.

use std::io::{self, Write};
use std::path::Path;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use rayon::prelude::*;

use super::{Voxel, npy, write_atomically};
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::Geometry;

/// Header, and where the voxels begin.
const HEADER: usize = 348;
const VOXELS_AT: usize = 352;

/// How far from a right angle, as a cosine, two axes may be for a `qform` to hold them: a thousandth of a voxel over 512 voxels.
const SHEAR: f64 = 2e-6;

/// Voxels in a block: 1 MiB of float32. A block knows nothing of the one before, which costs a little size and frees all cores.
const BLOCK: usize = 1 << 18;

/// Writes an array on its grid, once for each channel.
pub(super) fn write<T: Voxel>(path: &Path, geometry: &Geometry, channels: usize, voxels: &[T]) -> Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let compressed = match name {
        name if name.ends_with(".nii.gz") => true,
        name if name.ends_with(".nii") => false,
        _ => return Err(Error::new(Kind::OutputUnsupported, "a NIfTI file ends in .nii or .nii.gz")),
    };
    let header = header::<T>(geometry, channels)?;
    write_atomically(path, &mut |out| {
        if compressed {
            return gzip(out, &header, voxels);
        }
        out.write_all(&header)?;
        npy::raw(out, voxels)
    })
}

fn header<T: Voxel>(geometry: &Geometry, channels: usize) -> Result<[u8; VOXELS_AT]> {
    let affine = ras(geometry)?;
    let placed = Quaternion::of(&affine);
    let mut bytes = [0u8; VOXELS_AT];
    let mut header = Fields { bytes: &mut bytes };
    header.int(0, HEADER as i32);
    header.raw(38, b"r");
    header.short(40, if channels == 1 { 3 } else { 4 });
    for (axis, length) in geometry.dims.iter().chain([&channels]).enumerate() {
        let length = i16::try_from(*length)
            .map_err(|_| Error::new(Kind::OutputUnsupported, format!("NIfTI-1 holds at most 32767 voxels along an axis, not {length}")))?;
        header.short(42 + 2 * axis, length);
        header.float(80 + 4 * axis, if axis < 3 { norm(column(&affine, axis)) } else { 1.0 });
    }
    for axis in 4..7 {
        header.short(42 + 2 * axis, 1);
        header.float(80 + 4 * axis, 1.0);
    }
    header.short(68, T::INTENT);
    header.short(70, T::NIFTI);
    header.short(72, 8 * size_of::<T>() as i16);
    header.float(76, placed.handedness);
    header.float(108, VOXELS_AT as f64);
    header.float(112, 1.0);
    // NIFTI_UNITS_MM; the fourth axis has no unit.
    header.raw(123, &[2]);
    header.raw(148, concat!("libsmp ", env!("CARGO_PKG_VERSION")).as_bytes());
    // NIFTI_XFORM_SCANNER_ANAT for both, NIFTI_XFORM_UNKNOWN for a qform that there is none of.
    header.short(252, i16::from(placed.is_exact));
    header.short(254, 1);
    for (place, value) in placed.bcd.iter().chain(&[affine[0][3], affine[1][3], affine[2][3]]).enumerate() {
        header.float(256 + 4 * place, *value);
    }
    for (place, value) in affine.iter().flatten().enumerate() {
        header.float(280 + 4 * place, *value);
    }
    header.raw(344, b"n+1\0");
    Ok(bytes)
}

/// The grid's affine in RAS: x and y point the other way than in DICOM.
fn ras(geometry: &Geometry) -> Result<[[f64; 4]; 3]> {
    let [x, y, z, _] = geometry.affine_lps;
    let affine = [x.map(|value| 0.0 - value), y.map(|value| 0.0 - value), z];
    let [a, b, c] = [0, 1, 2].map(|axis| column(&affine, axis));
    let volume = dot(a, cross(b, c));
    // A header of float32 must not turn a finite grid into an infinite one either.
    let representable = affine.iter().flatten().all(|value| value.abs() < f64::from(f32::MAX));
    if !representable || !volume.is_finite() || volume == 0.0 {
        return Err(Error::new(Kind::GeometryInconsistent, "the grid's affine has no inverse").at(Stage::Report));
    }
    Ok(affine)
}

/// A rotation as NIfTI keeps it: three of a unit quaternion's four parts, and whether the third axis is mirrored.
struct Quaternion {
    bcd: [f64; 3],
    handedness: f64,
    is_exact: bool,
}

impl Quaternion {
    fn of(affine: &[[f64; 4]; 3]) -> Quaternion {
        let [a, b, mut c] = [0, 1, 2].map(|axis| unit(column(affine, axis)));
        let is_exact = [dot(a, b), dot(b, c), dot(a, c)].iter().all(|cosine| cosine.abs() <= SHEAR);
        let handedness = if dot(a, cross(b, c)) < 0.0 { -1.0 } else { 1.0 };
        c = c.map(|part| part * handedness);
        if !is_exact {
            return Quaternion { bcd: [0.0; 3], handedness: 1.0, is_exact };
        }
        // Of the four squares, the largest is at least 1/4, and dividing by its root is safe (Shepperd 1978).
        let squares =
            [1.0 + a[0] + b[1] + c[2], 1.0 + a[0] - b[1] - c[2], 1.0 - a[0] + b[1] - c[2], 1.0 - a[0] - b[1] + c[2]].map(|part| part / 4.0);
        let (twist, mixed) = ([b[2] - c[1], c[0] - a[2], a[1] - b[0]], [a[1] + b[0], c[0] + a[2], b[2] + c[1]]);
        let largest = squares.iter().copied().fold(0.0, f64::max);
        let (root, q) = (largest.sqrt(), 4.0 * largest.sqrt());
        let whole = if largest == squares[0] {
            [root, twist[0] / q, twist[1] / q, twist[2] / q]
        } else if largest == squares[1] {
            [twist[0] / q, root, mixed[0] / q, mixed[1] / q]
        } else if largest == squares[2] {
            [twist[1] / q, mixed[0] / q, root, mixed[2] / q]
        } else {
            [twist[2] / q, mixed[1] / q, mixed[2] / q, root]
        };
        // The fourth part is taken to be positive; a quaternion and its negative are the same rotation.
        let sign = if whole[0] < 0.0 { -1.0 } else { 1.0 };
        Quaternion { bcd: [whole[1] * sign, whole[2] * sign, whole[3] * sign], handedness, is_exact }
    }
}

/// Little-endian fields at the offsets of `nifti1.h`.
struct Fields<'a> {
    bytes: &'a mut [u8; VOXELS_AT],
}

impl Fields<'_> {
    fn raw(&mut self, at: usize, value: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(at).zip(value) {
            *place = *byte;
        }
    }

    fn short(&mut self, at: usize, value: i16) {
        self.raw(at, &value.to_le_bytes());
    }

    fn int(&mut self, at: usize, value: i32) {
        self.raw(at, &value.to_le_bytes());
    }

    fn float(&mut self, at: usize, value: f64) {
        self.raw(at, &(value as f32).to_le_bytes());
    }
}

fn column(affine: &[[f64; 4]; 3], axis: usize) -> [f64; 3] {
    [affine[0][axis], affine[1][axis], affine[2][axis]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn norm(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

fn unit(a: [f64; 3]) -> [f64; 3] {
    let length = norm(a);
    a.map(|part| part / length)
}

/// Writes header and voxels as one gzip member (RFC 1952). No name and no time: both could tell more than the file should.
fn gzip<T: Voxel>(out: &mut dyn Write, header: &[u8], voxels: &[T]) -> io::Result<()> {
    out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
    let (mut crc, mut length) = (Crc::new(), 0u64);
    let mut put = |out: &mut dyn Write, block: io::Result<(Vec<u8>, Crc, u64)>| -> io::Result<()> {
        let (deflated, sum, bytes) = block?;
        crc.combine(&sum);
        length += bytes;
        out.write_all(&deflated)
    };
    put(out, deflate(header, false))?;
    let blocks = voxels.len().div_ceil(BLOCK);
    // A few blocks for each core at a time bound the memory that waits to be written.
    let group = 4 * rayon::current_num_threads().max(1);
    for first in (0..blocks).step_by(group) {
        let deflated: Vec<_> = voxels
            .chunks(BLOCK)
            .enumerate()
            .skip(first)
            .take(group)
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|(index, block)| {
                let mut bytes = Vec::with_capacity(size_of_val(block));
                T::bytes(block, &mut bytes);
                deflate(&bytes, index + 1 == blocks)
            })
            .collect();
        deflated.into_iter().try_for_each(|block| put(out, block))?;
    }
    out.write_all(&crc.sum().to_le_bytes())?;
    // RFC 1952, clause 2.3.1: the length modulo 2^32.
    out.write_all(&((length & 0xffff_ffff) as u32).to_le_bytes())
}

/// Deflates a block that ends on a byte, so that blocks can stand behind each other; the last one ends the stream.
fn deflate(bytes: &[u8], last: bool) -> io::Result<(Vec<u8>, Crc, u64)> {
    let mut crc = Crc::new();
    crc.update(bytes);
    let mut stream = Compress::new(Compression::new(3), false);
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut out = Vec::with_capacity(bytes.len() / 2 + 1024);
    loop {
        let taken = usize::try_from(stream.total_in()).unwrap_or(usize::MAX);
        let rest = bytes.get(taken..).unwrap_or_default();
        let status = stream.compress_vec(rest, &mut out, flush).map_err(|_| io::Error::from(io::ErrorKind::Other))?;
        let all_in = stream.total_in() == bytes.len() as u64;
        // A flush is through when it leaves room in the output; a stream is through when it says so.
        let done = if last { status == Status::StreamEnd } else { all_in && out.len() < out.capacity() };
        if done {
            return Ok((out, crc, bytes.len() as u64));
        }
        out.reserve(bytes.len() / 2 + 1024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::Verdict;
    use std::io::Read;

    fn grid(affine_lps: [[f64; 4]; 4]) -> Geometry {
        Geometry { dims: [3, 4, 5], spacing_mm: [1.0; 3], affine_lps, verdict: Verdict::Uniform }
    }

    fn quaternion(affine: [[f64; 3]; 3]) -> Quaternion {
        Quaternion::of(&affine.map(|[a, b, c]| [a, b, c, 0.0]))
    }

    #[test]
    fn fields_lie_where_nifti1_h_puts_them() {
        let affine = [[0.5, 0.0, 0.0, 10.0], [0.0, 0.25, 0.0, -20.0], [0.0, 0.0, 2.0, 30.0], [0.0, 0.0, 0.0, 1.0]];
        let bytes = header::<u8>(&grid(affine), 1).unwrap();
        let short = |at: usize| i16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let float = |at: usize| f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        assert_eq!(bytes[..4], 348i32.to_le_bytes());
        assert_eq!([40, 42, 44, 46, 48, 50, 52, 54].map(short), [3, 3, 4, 5, 1, 1, 1, 1]);
        assert_eq!((short(68), short(70), short(72)), (1002, 2, 8));
        assert_eq!([76, 80, 84, 88].map(float), [1.0, 0.5, 0.25, 2.0]);
        assert_eq!((float(108), float(112), float(116), bytes[123]), (352.0, 1.0, 0.0, 2));
        assert_eq!((short(252), short(254)), (1, 1));
        // LPS to RAS turns by half a turn about z: the quaternion is (0, 0, 0, 1).
        assert_eq!([256, 260, 264, 268, 272, 276].map(float), [0.0, 0.0, 1.0, -10.0, 20.0, 30.0]);
        assert_eq!([280, 284, 288, 292].map(float), [-0.5, 0.0, 0.0, -10.0]);
        assert_eq!([296, 300, 304, 308].map(float), [0.0, -0.25, 0.0, 20.0]);
        assert_eq!([312, 316, 320, 324].map(float), [0.0, 0.0, 2.0, 30.0]);
        assert_eq!(&bytes[344..352], b"n+1\0\0\0\0\0");
        assert_eq!((header::<f32>(&grid(affine), 1).unwrap()[70], header::<f32>(&grid(affine), 1).unwrap()[72]), (16, 32));
    }

    #[test]
    fn a_rotation_becomes_its_quaternion() {
        let root = 0.5f64.sqrt();
        for (affine, bcd, handedness) in [
            ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [0.0, 0.0, 0.0], 1.0),
            // Half a turn about x, y and z.
            ([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]], [1.0, 0.0, 0.0], 1.0),
            ([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]], [0.0, 1.0, 0.0], 1.0),
            ([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]], [0.0, 0.0, 1.0], 1.0),
            // A quarter turn about x: y goes to z.
            ([[3.0, 0.0, 0.0], [0.0, 0.0, -2.0], [0.0, 1.0, 0.0]], [root, 0.0, 0.0], 1.0),
            // A third of a turn about the diagonal: x to y, y to z, z to x.
            ([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [0.5, 0.5, 0.5], 1.0),
            // The mirror image of the identity in z.
            ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]], [0.0, 0.0, 0.0], -1.0),
        ] {
            let found = quaternion(affine);
            assert!(found.is_exact && found.handedness == handedness, "{affine:?}");
            assert!(found.bcd.iter().zip(bcd).all(|(found, expected)| (found - expected).abs() < 1e-12), "{affine:?} {:?}", found.bcd);
        }
    }

    #[test]
    fn a_sheared_grid_has_no_qform_and_a_flat_one_is_refused() {
        let mut affine = [[1.0, 0.0, 0.1, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]];
        let bytes = header::<u8>(&grid(affine), 1).unwrap();
        assert_eq!((bytes[252], bytes[254]), (0, 1));
        for bad in [0.0, f64::NAN, f64::INFINITY] {
            affine[2][2] = bad;
            assert_eq!(header::<u8>(&grid(affine), 1).unwrap_err().kind(), Kind::GeometryInconsistent, "{bad}");
        }
    }

    #[test]
    fn an_axis_that_the_header_cannot_count_is_refused() {
        let affine = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]];
        let giant = Geometry { dims: [32_768, 1, 1], ..grid(affine) };
        assert_eq!(header::<u8>(&giant, 1).unwrap_err().kind(), Kind::OutputUnsupported);
    }

    #[test]
    fn blocks_make_one_gzip_member_whatever_their_number() {
        for voxels in [1, BLOCK - 1, BLOCK, BLOCK + 1, 11 * BLOCK + 5] {
            // Noise from a linear congruence, so that deflate stores as well as packs.
            let noise: Vec<u8> =
                (0..voxels as u32).map(|n| (n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) >> (n % 25)) as u8).collect();
            let mut file = Vec::new();
            gzip(&mut file, b"header", &noise).unwrap();
            // GzDecoder reads one member; `read_to_end` through it must reach the end of the file.
            let mut rest = file.as_slice();
            let mut unpacked = Vec::new();
            flate2::bufread::GzDecoder::new(&mut rest).read_to_end(&mut unpacked).unwrap();
            assert!(rest.is_empty() && unpacked.starts_with(b"header") && unpacked[6..] == noise[..], "{voxels} voxels");
            let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let mut again = Vec::new();
            alone.install(|| gzip(&mut again, b"header", &noise)).unwrap();
            assert!(again == file, "{voxels} voxels: the bytes depend on the number of threads");
        }
    }
}
