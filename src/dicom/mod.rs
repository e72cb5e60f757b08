//! DICOM instances to one series with a trustworthy geometry.
//!
//! A [`Loader`] is handed files as bytes, in any order and from anybody; it knows no package, no store and no key. What comes out is one
//! [`IdentifiedStudy`]: the headers of one series without pixels, its voxels after the modality transformation, and a grid that was
//! checked slice by slice. It still carries its identifiers, so it has no `Debug`, no `Display`, no `Serialize` and no public
//! constructor; `deid` takes it by value.
//!
//! The order of work, and what each step promises:
//!
//! 1. `scan` recognises DICOM by content and walks its structure under [`Limits`] before anything is allocated by a length in the file.
//!    Nesting, element counts, lengths and the arithmetic of the pixels are settled here. DICOMDIR paths are never followed.
//! 2. `dataset` makes the header a dicom-rs object, on the same walk.
//! 3. `series` picks one series, `slices` lists its frames and requires that they agree.
//! 4. `geometry` requires one evenly spaced, unsheared stack, or makes one where the policy allows it, and tells several volumes on one grid
//!    apart by their `marks`.
//! 5. `volume` decodes: `source`, `codecs`, `pixels` and `colour` are a frame's bytes, its samples, its voxels; `blackout` overwrites regions of the
//!    samples where it is asked to; `mosaic` cuts frames into slices.
//!
//! Every refusal says what is wrong with which file by number, and quotes nothing that a header says about a person. Bytes of files are
//! overwritten when they are dropped. What dicom-rs, JPEG, JPEG 2000 and JPEG XL decoders copy on their own heap while they work is
//! freed without being overwritten; the header objects likewise.

mod attributes;
mod blackout;
mod blank;
mod codecs;
mod colour;
mod dataset;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
pub mod geometry;
mod inflate;
mod load;
mod marks;
mod mosaic;
mod pixels;
mod scan;
mod series;
mod slices;
mod source;
mod stored;
#[cfg(test)]
mod tests;
mod volume;
mod walk;
pub(crate) mod writer;

use std::sync::Arc;

use dicom_object::{FileMetaTable, InMemDicomObject};

pub use blackout::{Region, RegionsOf};
pub use geometry::{Channel, Geometry, Mark, Policy, Verdict};
pub use load::Loader;
pub use stored::StoredPixels;

/// Limits that hold before any parser sees a byte (`limits.*`).
#[derive(Clone, Debug)]
pub struct Limits {
    /// Nesting depth of sequences.
    pub depth: usize,
    /// Elements per file, all depths, with items, fragments and the further values of texts.
    pub elements: usize,
    /// Bytes of file meta information.
    pub meta_bytes: usize,
    /// Inflated size over deflated size; also decoded over compressed size of large images.
    pub inflate_ratio: u64,
    /// Slices of a series.
    pub slices: usize,
    /// Bytes of the decoded volume.
    pub volume_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { depth: 32, elements: 1_000_000, meta_bytes: 64 << 10, inflate_ratio: 100, slices: 65_536, volume_bytes: 16 << 30 }
    }
}

/// Which series of a study is wanted; empty means the rule decides (most slices, then lowest series number, then UID).
#[derive(Clone, Default)]
pub struct Selection {
    /// Series Instance UID as in the (identified) input.
    pub series_uid: Option<String>,
    /// Series Description, exact.
    pub series_description: Option<String>,
}

/// What the files of a study turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Images, of any series.
    pub images: usize,
    /// DICOM without pixels: reports, presentation states, plans.
    pub without_pixels: usize,
    /// DICOMDIR files.
    pub directories: usize,
    /// Files that are not DICOM.
    pub foreign: usize,
}

/// One instance without its pixels.
pub struct Instance {
    pub(crate) meta: FileMetaTable,
    pub(crate) dataset: InMemDicomObject,
}

/// Where a slice is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameOf {
    /// Index of its instance.
    pub instance: usize,
    /// Its frame there, from 0; of a mosaic, whose slices share a frame, always 0.
    pub frame: usize,
}

/// A series that still carries its identifiers: no `Debug`, no `Display`, no `Serialize`, no public constructor.
pub struct IdentifiedStudy {
    /// Headers, in the order in which the volume meets them.
    pub(crate) instances: Vec<Instance>,
    /// For each channel, then for each slice that came, where it is stored. Colours of one frame count once.
    pub(crate) frames: Vec<FrameOf>,
    /// For each instance, the regions of its frames that were overwritten ([`Loader::black_out`]).
    pub(crate) blacked_out: Vec<Vec<Region>>,
    /// Pixels of the instances as they came; none unless they were asked for.
    pub(crate) pixels: Vec<StoredPixels>,
    /// Rescaled voxels: column fastest, then row, then slice, then channel.
    pub(crate) voxels: Arc<Vec<f32>>,
    /// What the channels are; at least one.
    pub(crate) channels: Vec<Channel>,
    pub(crate) geometry: Geometry,
    pub(crate) modality: String,
    /// Body Part Examined as the header has it: free text, to be compared and never told.
    pub(crate) body_part: String,
    /// Images of the series that lie in other stacks than the one taken.
    pub(crate) left_out: usize,
}

/// Transfer syntaxes that this build decodes: (UID, name).
pub fn decoders() -> Vec<(String, String)> {
    codecs::decoders()
}
