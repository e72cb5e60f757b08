//! Intensities of one volume made comparable with those of others.
//!
//! | Module | Method | Source | Agrees with |
//! |---|---|---|---|
//! | [`nyul`] | landmarks on a trained standard scale | Nyúl & Udupa 1999, 2000 | intensity-normalization 3.0.1 |
//! | [`white_stripe`] | mean and deviation of normal-appearing white matter | Shinohara et al. 2014 | intensity-normalization 3.0.1 |
//! | [`matching`] | quantiles of a reference volume | Nyúl, Udupa & Zhang 2000 | ITK HistogramMatchingImageFilter |
//! | [`window`] | DICOM windows | PS3.3 C.11.2.1.2, C.11.2.1.3 | pydicom apply_windowing |
//! | [`clahe`] | contrast-limited adaptive equalisation, 2-D and 3-D | Zuiderveld 1994 | skimage equalize_adapthist |
//!
//! Percentile clips, z-scores and the like are in [`normalize`](crate::imaging::normalize). All work in place on voxels (column fastest),
//! judge their input before they change it, and yield the same bits for any number of threads. The first three are for MR, whose intensities
//! have no unit; Hounsfield units want none of them but a window.

pub mod clahe;
pub mod matching;
pub mod nyul;
mod piecewise;
#[cfg(test)]
pub(crate) mod tests;
pub mod white_stripe;
pub mod window;

use crate::imaging::normalize::Over;

/// The mask's voxels, or without a mask those above 0.
fn foreground(mask: Option<&[u8]>) -> Over<'_> {
    mask.map_or(Over::Above(0.0), Over::Mask)
}
