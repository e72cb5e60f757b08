//! From the planes of the components to interleaved pixels: components that are coded at a lower resolution are brought to full size.
//!
//! T.81 leaves this step to the application. It is done as the Independent JPEG Group's library does by default, for the same
//! reason as in [`super::idct`]: halved components are interpolated with a triangle filter (3/4 of the nearer and 1/4 of the
//! farther sample), others are replicated. The 6b release, which DICOM toolkits build on, is followed: newer libraries also interpolate
//! components of which only the rows are halved.

use zeroize::Zeroizing;

use super::frame::{Component, Frame};
use super::{Decoded, zeros};
use crate::error::Result;
use crate::secret::Plain;

/// How one component comes to full size.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    /// It is of full size.
    Copy,
    /// Half the columns, interpolated.
    Columns,
    /// Half the columns and half the rows, interpolated.
    ColumnsAndRows,
    /// Whole multiples across and down, replicated.
    Replicate(usize, usize),
}

impl Method {
    fn of(frame: &Frame, component: &Component) -> Method {
        match (frame.h_max / component.h, frame.v_max / component.v) {
            (1, 1) => Method::Copy,
            // A component of one or two columns is replicated.
            (2, 1) if component.width > 2 => Method::Columns,
            (2, 2) if component.width > 2 => Method::ColumnsAndRows,
            (across, down) => Method::Replicate(across, down),
        }
    }
}

/// Writes the samples of all components, pixel by pixel.
pub(super) fn interleave(frame: &Frame) -> Result<Decoded> {
    let (columns, rows, count) = (frame.columns, frame.rows, frame.components.len());
    let width = if frame.precision > 8 { 2 } else { 1 };
    let size = columns.checked_mul(rows).and_then(|pixels| pixels.checked_mul(count * width));
    let mut samples: Zeroizing<Vec<u8>> = zeros(size)?;
    // A component's line at full size may be up to three samples longer than the frame's.
    let mut line: Zeroizing<Vec<u16>> = zeros(Some(columns + 8))?;
    let mut sums: Zeroizing<Vec<u32>> = zeros(Some(columns + 8))?;
    for (index, component) in frame.components.iter().enumerate() {
        let method = Method::of(frame, component);
        for (row, pixels) in samples.chunks_exact_mut(columns * count * width).enumerate() {
            let line = match method {
                Method::Copy => component.line(row),
                Method::Columns => {
                    let source = component.line(row);
                    sums.iter_mut().zip(source).for_each(|(sum, &sample)| *sum = u32::from(sample));
                    triangle(&sums[..component.width], &mut line, 2, [1, 2]);
                    &line[..]
                }
                Method::ColumnsAndRows => {
                    let near = component.line(row / 2);
                    // The row above for the upper half, the one below for the lower half; at the edges the row itself.
                    let other = if row % 2 == 0 { (row / 2).saturating_sub(1) } else { (row / 2 + 1).min(component.height - 1) };
                    let far = component.line(other);
                    for (sum, (&near, &far)) in sums.iter_mut().zip(near.iter().zip(far)) {
                        *sum = 3 * u32::from(near) + u32::from(far);
                    }
                    triangle(&sums[..component.width], &mut line, 4, [8, 7]);
                    &line[..]
                }
                Method::Replicate(across, down) => {
                    for (samples, &sample) in line.chunks_mut(across).zip(component.line(row / down)) {
                        samples.fill(sample);
                    }
                    &line[..]
                }
            };
            if width == 1 {
                for (pixel, &sample) in pixels.chunks_exact_mut(count).zip(line) {
                    // At most 255.
                    pixel[index] = sample as u8;
                }
            } else {
                for (pixel, &sample) in pixels.chunks_exact_mut(2 * count).zip(line) {
                    pixel[2 * index..2 * index + 2].copy_from_slice(&sample.to_le_bytes());
                }
            }
        }
    }
    Ok(Decoded { samples: Plain::new(std::mem::take(&mut *samples)), precision: frame.precision })
}

impl Component {
    /// The samples of one line.
    fn line(&self, row: usize) -> &[u16] {
        let start = row * 8 * self.stride;
        &self.plane[start..start + self.width]
    }
}

/// Doubles a line with the triangle filter: sample i gives 2i, which leans on its left neighbour, and 2i + 1, which leans on the right
/// one; at the ends the sample stands for its missing neighbour. The results are divided by 2 to the power of `bits`; what is added
/// before that differs between left and right, so that halves do not all round to the same side.
fn triangle(source: &[u32], line: &mut [u16], bits: u32, rounding: [u32; 2]) {
    let last = source.len().saturating_sub(1);
    for (index, pair) in line.chunks_mut(2).enumerate().take(source.len()) {
        let sample = source[index];
        let left = source[index.saturating_sub(1)];
        let right = source[(index + 1).min(last)];
        // At most 12 + 4 bits before the division, 12 after it.
        pair[0] = ((3 * sample + left + rounding[0]) >> bits) as u16;
        if let [_, second] = pair {
            *second = ((3 * sample + right + rounding[1]) >> bits) as u16;
        }
    }
}
