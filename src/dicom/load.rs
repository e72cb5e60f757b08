//! Files in, one series out.
//!
//! A [`Loader`] takes files in any order. Each is scanned, its header is built, and its bytes wait in erasable memory until the series
//! is known; files of other series then go at once. Files are looked at a handful at a time, on all threads. [`Loader::finish`] picks the series, judges
//! its geometry and has it decoded (`volume`).

use std::collections::HashSet;

use dicom_dictionary_std::tags;
use dicom_encoding::transfer_syntax::TransferSyntax;
use dicom_object::InMemDicomObject;
use rayon::prelude::*;

use super::attributes::text;
use super::blackout::{Region, RegionsOf};
use super::codecs::unsupported;
use super::geometry::Policy;
use super::mosaic::{self, Mosaic};
use super::pixels::{Format, format};
use super::scan::{Found, Shape, scan};
use super::series::{choose, is_wanted};
use super::slices::{arrange, largest, slices};
use super::source::Frames;
use super::{Counts, IdentifiedStudy, Instance, Limits, Selection, dataset, volume};
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::secret::Plain;

/// Files that wait to be looked at, and their bytes: enough for every thread to have its share, few enough to be no burden.
const WAITING_FILES: usize = 32;
const WAITING_BYTES: usize = 16 << 20;

/// An image that may belong to the series: its header, and its pixels as they were stored.
pub(super) struct Candidate {
    pub(super) number: usize,
    pub(super) instance: Instance,
    pub(super) shape: Shape,
    pub(super) syntax: Option<&'static TransferSyntax>,
    /// How its pixels are read, or what keeps them from being used if the series turns out to be this one.
    pub(super) reading: Result<Reading>,
    pub(super) frames: Frames,
    /// What is overwritten in its frames.
    pub(super) regions: Vec<Region>,
}

/// How an image's pixels become slices.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    pub(super) format: Format,
    pub(super) mosaic: Option<Mosaic>,
}

impl Candidate {
    pub(super) fn mosaic(&self) -> Option<&Mosaic> {
        self.reading.as_ref().ok().and_then(|reading| reading.mosaic.as_ref())
    }

    /// Slices that the image holds.
    pub(super) fn slices(&self) -> usize {
        self.mosaic().map_or(self.shape.frames as usize, Mosaic::count)
    }

    /// Columns and rows of one slice.
    pub(super) fn slice_dims(&self) -> [usize; 2] {
        self.mosaic().map_or([self.shape.columns as usize, self.shape.rows as usize], Mosaic::tile)
    }

    /// Numbers per voxel: one, or three colours.
    pub(super) fn samples(&self) -> usize {
        self.reading.as_ref().map_or(1, |reading| reading.format.colour().volumes())
    }
}

/// Collects instances as they arrive, then makes the series.
pub struct Loader {
    limits: Limits,
    selection: Selection,
    policy: Policy,
    keeps_pixels: bool,
    regions_of: Option<RegionsOf>,
    counts: Counts,
    /// Files that nobody has looked at yet.
    waiting: Vec<(usize, Plain)>,
    /// Images of the wanted series, or of all series while none is named.
    candidates: Vec<Candidate>,
}

/// What a file turned out to be.
enum Looked {
    Foreign,
    Directory,
    WithoutPixels,
    /// An image of a series that is not wanted.
    Unwanted,
    Image(Box<Candidate>),
}

impl Loader {
    /// An empty loader.
    pub fn new(limits: Limits, selection: Selection, policy: Policy) -> Loader {
        let (waiting, candidates) = (Vec::new(), Vec::new());
        Loader { limits, selection, policy, keeps_pixels: false, regions_of: None, counts: Counts::default(), waiting, candidates }
    }

    /// Keeps the pixels of the series as they came, for files of the same images.
    pub fn keep_pixels(mut self) -> Loader {
        self.keeps_pixels = true;
        self
    }

    /// Overwrites the regions of each image's frames that `regions_of` names by its header, in the volume and in the pixels that are kept.
    pub fn black_out(mut self, regions_of: RegionsOf) -> Loader {
        self.regions_of = Some(regions_of);
        self
    }

    /// Takes one file. A file that is not DICOM is counted and dropped, so is DICOM without pixels; a malformed DICOM file, or one beyond
    /// the limits, is an error that names its number. Files are looked at together, so an error may be that of a file taken before. Nothing of a refused file is kept.
    pub fn add(&mut self, number: usize, bytes: Plain, control: &Control) -> Result<()> {
        control.check()?;
        self.waiting.push((number, bytes));
        let bytes: usize = self.waiting.iter().map(|(_, bytes)| bytes.len()).sum();
        if self.waiting.len() >= WAITING_FILES || bytes >= WAITING_BYTES {
            self.look()?;
        }
        Ok(())
    }

    /// What the files turned out to be, so far.
    ///
    /// # Errors
    /// Those of the files that nobody had looked at.
    pub fn counts(&mut self) -> Result<Counts> {
        self.look()?;
        Ok(self.counts)
    }

    /// Looks at the files that wait. Of several refused ones the first is the error, whatever the threads do.
    fn look(&mut self) -> Result<()> {
        let (limits, selection, regions_of) = (&self.limits, &self.selection, self.regions_of.as_ref());
        let looked: Vec<Result<Looked>> = std::mem::take(&mut self.waiting)
            .into_par_iter()
            .map(|(number, bytes)| look(number, bytes, limits, selection, regions_of).map_err(|error| in_file(number, error)))
            .collect();
        for found in looked {
            match found? {
                Looked::Foreign => self.counts.foreign += 1,
                Looked::Directory => self.counts.directories += 1,
                Looked::WithoutPixels => self.counts.without_pixels += 1,
                // Counted all the same, so that "no such series" and "no image at all" are told apart.
                Looked::Unwanted => self.counts.images += 1,
                Looked::Image(candidate) => {
                    self.counts.images += 1;
                    self.candidates.push(*candidate);
                }
            }
        }
        Ok(())
    }

    /// Picks the series, checks its geometry, decodes its pixels.
    pub fn finish(mut self, control: &Control) -> Result<IdentifiedStudy> {
        control.check()?;
        self.look()?;
        let Loader { limits, candidates, counts, policy, keeps_pixels, .. } = self;
        if candidates.is_empty() {
            return Err(nothing_found(counts));
        }
        // The bytes of the series that were not chosen are overwritten and freed when `choose` returns.
        let members = choose(candidates);
        if let Some(error) = members.iter().find_map(obstacle) {
            return Err(error);
        }
        let all = slices(&members, &limits)?;
        let (mut taken, left_out) = largest(&members, all, &policy);
        // Files of which no slice was taken go, and the others close up.
        let used: HashSet<usize> = taken.iter().map(|slice| slice.member).collect();
        let mut places = vec![0; members.len()];
        let mut kept = Vec::with_capacity(used.len());
        for (index, member) in members.into_iter().enumerate() {
            if used.contains(&index) {
                places[index] = kept.len();
                kept.push(member);
            }
        }
        taken.iter_mut().for_each(|slice| slice.member = places[slice.member]);
        let judged = arrange(&kept, &taken, &policy)?;
        let first = kept.first().map(|member| &member.instance.dataset);
        let modality = first.map(modality).unwrap_or_default();
        let body_part = first.and_then(|dataset| text(dataset, tags::BODY_PART_EXAMINED)).unwrap_or_default();
        volume::assemble(kept, &taken, judged, keeps_pixels, &limits, control).map(|volume| IdentifiedStudy {
            instances: volume.instances,
            frames: volume.frames,
            blacked_out: volume.blacked_out,
            pixels: volume.pixels,
            voxels: volume.voxels,
            channels: volume.channels,
            geometry: volume.geometry,
            modality,
            body_part,
            left_out,
        })
    }
}

/// Scans a file and builds its header.
fn look(number: usize, bytes: Plain, limits: &Limits, selection: &Selection, regions_of: Option<&RegionsOf>) -> Result<Looked> {
    let file = match scan(bytes, limits)? {
        Found::Image(file) => file,
        Found::Foreign => return Ok(Looked::Foreign),
        Found::Directory => return Ok(Looked::Directory),
        Found::WithoutPixels => return Ok(Looked::WithoutPixels),
    };
    let header = dataset::header(&file, limits)?;
    // With a named series the bytes of all others end here, in `file`'s drop.
    if !is_wanted(selection, &header) {
        return Ok(Looked::Unwanted);
    }
    let meta = dataset::file_meta(&file, &header)?;
    let (shape, syntax) = (file.shape, file.syntax);
    // What is not supported matters only if this becomes the chosen series.
    let reading = format(&file, &header).and_then(|format| Ok(Reading { format, mosaic: mosaic::read(&header, &shape)? }));
    let frames = Frames::new(file)?;
    let regions = regions_of.map(|regions_of| regions_of(&header)).unwrap_or_default();
    let instance = Instance { meta, dataset: header };
    Ok(Looked::Image(Box::new(Candidate { number, instance, shape, syntax, reading, frames, regions })))
}

/// Puts a file's number before what is wrong with it.
pub(super) fn in_file(number: usize, error: Error) -> Error {
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
    let error = match &member.reading {
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

/// Decodes every frame of one image in file order, without any geometry, all of red before all of green: what the tests of decoders compare.
#[cfg(test)]
pub(super) fn decode_image(bytes: Vec<u8>) -> Result<Vec<f32>> {
    let limits = Limits::default();
    let mut loader = Loader::new(limits.clone(), Selection::default(), Policy::default());
    loader.add(1, Plain::new(bytes), &Control::new())?;
    loader.look()?;
    let member = loader.candidates.pop().ok_or_else(|| Error::new(Kind::NoDicomFiles, ""))?;
    if let Some(error) = obstacle(&member) {
        return Err(error);
    }
    volume::decode_all(member, &limits)
}
