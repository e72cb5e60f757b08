//! The pass before the pass: a coarse model over the whole grid finds the box in which the fine model looks.
//!
//! The box is that of the largest component of what was found, without planes in which next to nothing was found, grown by a margin: the
//! rule of deepbet (Fisch et al. 2024), written down in docs/model-contract.md under "Locating".

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::components;
use crate::imaging::grid::AlignedGrid;
use crate::imaging::{Volume, resample};
use crate::inference::contract::Locate;
use crate::inference::frame::Located;
use crate::inference::segmenter::OnnxSegmenter;

/// Finds the box.
///
/// # Errors
/// [`Kind::InputImplausible`] when nothing was found; those of the model.
pub(super) fn locate(volume: &Volume, model: &OnnxSegmenter, rule: &Locate, control: &Control) -> Result<Located> {
    let found = model.on_frame(volume, None, control)?;
    let dims = found.frame.dims();
    let whole = AlignedGrid::window(found.lower, found.shape).inverse(dims);
    let mut mask = resample::nearest(&found.labels, found.shape, &whole, Some(0), control)?;
    components::keep_largest(&mut mask, dims, 1, rule.connectivity)?;
    let laid = found.frame.laid_dims();
    let (mut lower, mut shape) = ([0; 3], [0; 3]);
    for axis in 0..3 {
        let (first, last) = planes(&mask, dims, axis, rule.plane_fraction).ok_or_else(|| {
            Error::new(Kind::InputImplausible, "the locating pass found nothing to look at")
                .with_hint("is this a study of the body part that the model is for?")
                .at(Stage::Inference)
        })?;
        (lower[axis], shape[axis]) = grown(first, last, dims[axis], laid[axis], rule.margin);
        if shape[axis] == 0 {
            return Err(Error::new(Kind::InputImplausible, "the box of the locating pass holds no voxel").at(Stage::Inference));
        }
    }
    Ok(Located { lower, shape, clipped: found.frame.clipped })
}

/// First and last plane across an axis of which more than a fraction was found.
fn planes(mask: &[u8], dims: [usize; 3], axis: usize, fraction: f64) -> Option<(usize, usize)> {
    let mut counts = vec![0u64; dims[axis]];
    for (row, line) in mask.chunks(dims[0].max(1)).enumerate() {
        let place = [0, row % dims[1].max(1), row / dims[1].max(1)];
        if axis == 0 {
            counts.iter_mut().zip(line).for_each(|(count, value)| *count += u64::from(*value));
        } else {
            counts[place[axis]] += line.iter().map(|value| u64::from(*value)).sum::<u64>();
        }
    }
    let area = dims.iter().product::<usize>() / dims[axis].max(1);
    let holds = |count: &u64| *count as f64 / area as f64 > fraction;
    Some((counts.iter().position(holds)?, counts.iter().rposition(holds)?))
}

/// The planes `first..=last` of `n`, on an axis of `full` voxels, with the margin: start and length.
fn grown(first: usize, last: usize, n: usize, full: usize, margin: f64) -> (usize, usize) {
    // In float32 and with halves to even, as PyTorch computes it: a box one voxel off moves every voxel of the second pass.
    let scale = full as f32 / n as f32;
    let centre = (scale * ((last + 1 + first) as f32 / 2.0)).round_ties_even();
    let size = ((1.0 + 2.0 * margin as f32) * (scale * (last + 1 - first) as f32)).round_ties_even();
    let start = (centre - size / 2.0).trunc().max(0.0) as usize;
    let end = ((centre + size / 2.0).trunc().max(0.0) as usize).min(full);
    (start, end.saturating_sub(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_with_next_to_nothing_in_them_do_not_count() {
        // 4 x 3 x 2; one stray voxel in column 3.
        let mut mask = [0u8; 24];
        for index in [0, 1, 4, 5, 12, 13] {
            mask[index] = 1;
        }
        mask[23] = 1;
        assert_eq!(planes(&mask, [4, 3, 2], 0, 0.2), Some((0, 1)));
        assert_eq!(planes(&mask, [4, 3, 2], 0, 0.0), Some((0, 3)));
        assert_eq!(planes(&mask, [4, 3, 2], 2, 0.0), Some((0, 1)));
        assert_eq!(planes(&mask, [4, 3, 2], 1, 0.9), None);
    }

    /// Worked by hand from deepbet's `get_bbox_with_margin`.
    #[test]
    fn boxes_grow_as_in_deepbet() {
        // 128 planes for 170 voxels, planes 20..=99: centre 60 * 1.328125 = 79.6875 -> 80, size 80 * 1.328125 * 1.2 = 127.5 -> 128.
        assert_eq!(grown(20, 99, 128, 170, 0.1), (16, 128));
        // Clipped at both ends, and an odd size: 100 planes of 100 for 101 voxels: centre 50.5 -> 50, size 121.2 -> 121: -10.5 .. 110.5.
        assert_eq!(grown(0, 99, 100, 101, 0.1), (0, 101));
    }
}
