//! Files in, one series out.
//!
//! A [`Loader`] takes files in any order. Each is scanned, its header is built, and its bytes wait in erasable memory until the series
//! is known; files of other series then go at once. [`Loader::finish`] decodes frames in parallel, each straight into its place in the
//! volume, and drops a file's bytes as soon as its pixels are voxels.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dicom_core::DataElement;
use dicom_core::header::Header;
use dicom_core::value::Value;
use dicom_dictionary_std::tags;
use dicom_encoding::transfer_syntax::TransferSyntax;
use dicom_object::InMemDicomObject;
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::attributes::text;
use super::codecs::{decode, unsupported};
use super::geometry::{Judged, Policy};
use super::pixels::{Format, format, render, transform};
use super::scan::{Found, Shape, scan};
use super::series::{arrange, choose, is_wanted, largest};
use super::source::Frames;
use super::{Counts, IdentifiedStudy, Instance, Limits, Selection, dataset};
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::secret::Plain;

/// An image that may belong to the series: its header, and its pixels as they were stored.
pub(super) struct Candidate {
    pub(super) number: usize,
    pub(super) instance: Instance,
    pub(super) shape: Shape,
    syntax: Option<&'static TransferSyntax>,
    /// What keeps the pixels from being used, if the series turns out to be this one.
    format: Result<Format>,
    frames: Frames,
}

/// Collects instances as they arrive, then makes the series.
pub struct Loader {
    limits: Limits,
    selection: Selection,
    policy: Policy,
    counts: Counts,
    /// Images of the wanted series, or of all series while none is named.
    candidates: Vec<Candidate>,
}

impl Loader {
    /// An empty loader.
    pub fn new(limits: Limits, selection: Selection, policy: Policy) -> Loader {
        Loader { limits, selection, policy, counts: Counts::default(), candidates: Vec::new() }
    }

    /// Takes one file. A file that is not DICOM is counted and dropped, so is DICOM without pixels; a malformed DICOM file, or one beyond
    /// the limits, is an error that names `number`. Nothing of a refused file is kept.
    pub fn add(&mut self, number: usize, bytes: Plain, control: &Control) -> Result<()> {
        control.check()?;
        let file = match scan(bytes, &self.limits).map_err(|error| in_file(number, error))? {
            Found::Image(file) => file,
            Found::Foreign => {
                self.counts.foreign += 1;
                return Ok(());
            }
            Found::Directory => {
                self.counts.directories += 1;
                return Ok(());
            }
            Found::WithoutPixels => {
                self.counts.without_pixels += 1;
                return Ok(());
            }
        };
        // Counted before the selection, so that "no such series" and "no image at all" are told apart.
        self.counts.images += 1;
        let header = dataset::header(&file, &self.limits).map_err(|error| in_file(number, error))?;
        // With a named series the bytes of all others end here, in `file`'s drop.
        if !is_wanted(&self.selection, &header) {
            return Ok(());
        }
        let meta = dataset::file_meta(&file, &header).map_err(|error| in_file(number, error))?;
        let (shape, syntax, format) = (file.shape, file.syntax, format(&file, &header));
        // The format may be unsupported; that matters only if this becomes the chosen series.
        let frames = Frames::new(file).map_err(|error| in_file(number, error))?;
        self.candidates.push(Candidate { number, instance: Instance { meta, dataset: header }, shape, syntax, format, frames });
        Ok(())
    }

    /// What the files turned out to be, so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Picks the series, checks its geometry, decodes its pixels.
    pub fn finish(self, control: &Control) -> Result<IdentifiedStudy> {
        control.check()?;
        let Loader { limits, candidates, counts, policy, .. } = self;
        if candidates.is_empty() {
            return Err(nothing_found(counts));
        }
        // The bytes of the series that were not chosen are overwritten and freed when `choose` returns.
        let (members, left_out) = largest(choose(candidates), &policy)?;
        if let Some(error) = members.iter().find_map(obstacle) {
            return Err(error);
        }
        let Judged { geometry, order, upright } = arrange(&members, &limits, &policy)?;
        let modality = members.first().map(|member| modality(&member.instance.dataset)).unwrap_or_default();
        // Until all is decoded, what is there is overwritten if anything fails.
        let [columns, rows] = members.first().map_or([0; 2], |member| [member.shape.columns as usize, member.shape.rows as usize]);
        let mut voxels = Zeroizing::new(allocate(&[columns, rows, order.len()], &limits)?);
        let instances = match <[Candidate; 1]>::try_from(members) {
            Ok([alone]) => decode_frames(alone, &order, &mut voxels, &limits, control)?,
            Err(members) => decode_files(members, &order, &mut voxels, &limits, control)?,
        };
        if let Some(upright) = upright {
            let mut grid = Zeroizing::new(allocate(&geometry.dims, &limits)?);
            upright.resample(&voxels, &mut grid, control)?;
            voxels = grid;
        }
        Ok(IdentifiedStudy { instances, voxels: Arc::new(std::mem::take(&mut *voxels)), geometry, modality, left_out })
    }
}

/// Puts a file's number before what is wrong with it.
fn in_file(number: usize, error: Error) -> Error {
    let named = Error::new(error.kind(), format!("file {number}: {}", error.detail()));
    match error.hint() {
        Some(hint) => named.with_hint(hint.to_owned()),
        None => named,
    }
}

/// Tells an empty folder from one with the wrong files, and both from a series that is not there.
fn nothing_found(counts: Counts) -> Error {
    let Counts { images, without_pixels, directories, foreign } = counts;
    if images > 0 {
        return Error::new(Kind::SeriesNotFound, format!("none of {images} images belongs to it"));
    }
    let found = format!("{foreign} files are not DICOM, {without_pixels} are DICOM without pixels, {directories} are directories of media");
    Error::new(Kind::NoDicomFiles, found)
}

/// Why an image of the chosen series cannot become voxels, known before its geometry is looked at.
fn obstacle(member: &Candidate) -> Option<Error> {
    let error = match &member.format {
        Err(error) => Some(Error::new(error.kind(), error.detail().to_owned())),
        Ok(_) => unsupported(member.syntax),
    };
    error.map(|error| in_file(member.number, error))
}

/// Modality as one of the standard's defined terms (PS3.3 section C.7.3.1.1.1); anything else is `OT`, because this value leaves the module
/// as it is.
fn modality(dataset: &InMemDicomObject) -> String {
    const TERMS: [&str; 31] = [
        "CR", "CT", "DX", "ES", "IO", "IVOCT", "IVUS", "KER", "MG", "MR", "NM", "OCT", "OP", "OPT", "OT", "PT", "PX", "RF", "RG", "RTDOSE",
        "RTIMAGE", "SC", "SEG", "SM", "TG", "US", "VL", "XA", "XC", "BI", "DG",
    ];
    let found = text(dataset, tags::MODALITY).unwrap_or_default();
    TERMS.iter().find(|term| **term == found).map_or("OT", |term| term).to_owned()
}

/// Zeroed voxels. The size is checked against the limit and asked for once before, so that a refusal is an error and not the end of
/// the process; zeroed pages come untouched from the system and are first written by the threads that decode.
fn allocate(dims: &[usize; 3], limits: &Limits) -> Result<Vec<f32>> {
    let voxels = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
    let bytes = voxels.and_then(|voxels| voxels.checked_mul(size_of::<f32>())).map_or(u64::MAX, |bytes| bytes as u64);
    let (Some(voxels), true) = (voxels, bytes <= limits.volume_bytes) else {
        let detail = format!("{bytes} bytes of voxels, more than {} (limits.volume_bytes)", limits.volume_bytes);
        return Err(Error::new(Kind::LimitExceeded, detail));
    };
    Vec::<f32>::new().try_reserve_exact(voxels).map_err(|_| Error::new(Kind::OutOfMemory, format!("{bytes} bytes of voxels")))?;
    Ok(vec![0.0; voxels])
}

/// Decodes the frames of one instance, and puts its functional groups into the order of the slices.
fn decode_frames(mut member: Candidate, order: &[usize], voxels: &mut [f32], limits: &Limits, control: &Control) -> Result<Vec<Instance>> {
    let done = AtomicUsize::new(0);
    let slice = voxels.len() / order.len().max(1);
    // Every thread writes its own slices and reads shared bytes, so the result does not depend on how many there are.
    let decoded: Result<()> = voxels.par_chunks_mut(slice.max(1)).zip(order.par_iter()).try_for_each(|(voxels, frame)| {
        control.check()?;
        decode_into(&member, *frame, voxels, limits)?;
        report(&done, order.len(), control);
        Ok(())
    });
    decoded?;
    reorder_functional_groups(&mut member.instance.dataset, order);
    Ok(vec![member.instance])
}

/// Decodes a file per slice; each file's bytes end with its decoding.
fn decode_files(members: Vec<Candidate>, order: &[usize], voxels: &mut [f32], limits: &Limits, control: &Control) -> Result<Vec<Instance>> {
    let done = AtomicUsize::new(0);
    let slice = voxels.len() / order.len().max(1);
    // Candidates move into the order of the slices and from there into the closure that drops each after its last use.
    let mut waiting: Vec<Option<Candidate>> = members.into_iter().map(Some).collect();
    let sorted: Vec<Candidate> = order.iter().filter_map(|index| waiting.get_mut(*index).and_then(Option::take)).collect();
    voxels
        .par_chunks_mut(slice.max(1))
        .zip(sorted.into_par_iter())
        .map(|(voxels, member)| {
            control.check()?;
            decode_into(&member, 0, voxels, limits)?;
            report(&done, order.len(), control);
            Ok(member.instance)
        })
        .collect()
}

/// Progress over slices; the counter carries no result.
fn report(done: &AtomicUsize, total: usize, control: &Control) {
    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
    control.progress("load", done as f64 / total.max(1) as f64);
}

/// One frame from its stored bytes to its voxels.
fn decode_into(member: &Candidate, frame: usize, voxels: &mut [f32], limits: &Limits) -> Result<()> {
    let format = match &member.format {
        Ok(format) => *format,
        Err(error) => return Err(Error::new(error.kind(), error.detail().to_owned())),
    };
    let decoded = transform(&member.instance.dataset, frame, format).and_then(|transform| {
        let samples = decode(member.frames.frame(frame)?, &member.shape, member.syntax, limits.inflate_ratio)?;
        render(&samples, format, &transform, voxels)
    });
    decoded.map_err(|error| in_file(member.number, error))
}

/// Item k of the per-frame functional groups becomes the one of slice k, so that header and voxels keep one order.
fn reorder_functional_groups(dataset: &mut InMemDicomObject, order: &[usize]) {
    let Some(element) = dataset.take(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE) else { return };
    let (tag, vr) = (element.tag(), element.vr());
    let Value::Sequence(sequence) = element.into_value() else { return };
    let mut items: Vec<Option<InMemDicomObject>> = sequence.into_items().into_iter().map(Some).collect();
    let sorted: Vec<InMemDicomObject> = order.iter().filter_map(|index| items.get_mut(*index).and_then(Option::take)).collect();
    dataset.put(DataElement::new(tag, vr, Value::Sequence(sorted.into())));
}

/// Decodes every frame of one image in file order, without any geometry: what the tests of decoders compare.
#[cfg(test)]
pub(super) fn decode_image(bytes: Vec<u8>) -> Result<Vec<f32>> {
    let limits = Limits::default();
    let mut loader = Loader::new(limits.clone(), Selection::default(), Policy::default());
    loader.add(1, Plain::new(bytes), &Control::new())?;
    let member = loader.candidates.pop().ok_or_else(|| Error::new(Kind::NoDicomFiles, ""))?;
    if let Some(error) = obstacle(&member) {
        return Err(error);
    }
    let slice = (member.shape.rows * member.shape.columns) as usize;
    let mut voxels = vec![0.0; slice * member.shape.frames as usize];
    for (frame, voxels) in voxels.chunks_mut(slice).enumerate() {
        decode_into(&member, frame, voxels, &limits)?;
    }
    Ok(voxels)
}
