//! `.npy`, format 1.0, as NumPy's own page describes it: a magic, the length of a header, a Python literal, the array.

use std::io::{self, Write};
use std::path::Path;

use super::{Voxel, write_atomically};
use crate::error::Result;

/// Voxels that are turned into bytes at a time.
const PIECE: usize = 1 << 16;

/// Writes an array of columns x rows x slices x channels, column fastest; one channel is no axis.
pub(super) fn write<T: Voxel>(path: &Path, dims: [usize; 3], channels: usize, voxels: &[T]) -> Result<()> {
    write_atomically(path, &mut |out| {
        out.write_all(&header(T::NPY, dims, channels))?;
        raw(out, voxels)
    })
}

/// Writes voxels as little-endian bytes.
pub(super) fn raw<T: Voxel>(out: &mut dyn Write, voxels: &[T]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(PIECE * size_of::<T>());
    for piece in voxels.chunks(PIECE) {
        bytes.clear();
        T::bytes(piece, &mut bytes);
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Everything before the array. The header is filled with spaces so that the array begins at a multiple of 64 bytes.
fn header(descr: &str, [columns, rows, slices]: [usize; 3], channels: usize) -> Vec<u8> {
    const FIXED: usize = 10;
    let first = if channels == 1 { String::new() } else { format!("{channels}, ") };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({first}{slices}, {rows}, {columns}), }}");
    let length = (FIXED + text.len() + 1).next_multiple_of(64) - FIXED;
    while text.len() + 1 < length {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    // Four numbers of at most 20 digits: the text stays far below 64 KiB.
    bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_format_1_0_and_aligned() {
        let bytes = header("<f4", [512, 256, 3], 1);
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        // 10 + 62 characters + line feed = 73, so 128 in all and 118 = 0x76 after the length.
        assert_eq!((bytes.len(), &bytes[8..10]), (128, &[0x76, 0][..]));
        assert!(bytes[10..].starts_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 256, 512), }   "));
        assert_eq!(bytes.last(), Some(&b'\n'));
        assert!(header("<f4", [512, 256, 3], 4).starts_with(
            &[b"\x93NUMPY\x01\x00\x76\x00".as_slice(), b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3, 256, 512), }"].concat()
        ));
        assert_eq!(header("|u1", [usize::MAX; 3], usize::MAX).len() % 64, 0);
    }

    #[test]
    fn bytes_are_little_endian_over_the_seams_of_pieces() {
        let voxels: Vec<f32> = (0..PIECE + 3).map(|n| n as f32).collect();
        let mut out = Vec::new();
        raw(&mut out, &voxels).unwrap();
        assert_eq!(out.len(), 4 * voxels.len());
        // 1.0 is 0x3f800000.
        assert_eq!(out[4..8], [0, 0, 0x80, 0x3f]);
        assert!(out.chunks_exact(4).zip(&voxels).all(|(bytes, voxel)| f32::from_le_bytes(bytes.try_into().unwrap()) == *voxel));
    }
}
