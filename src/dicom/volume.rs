//! The voxels of a series: every stored frame decoded once, in parallel, straight into its places in the volume.
//!
//! A stored frame fills one slice, or three where it is in colour, or all slices of a volume where it is a mosaic. A file's bytes are dropped as
//! soon as the last of its frames is decoded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::blackout::{Blackout, Region};
use super::codecs::{Samples, decode};
use super::geometry::{Channel, Geometry, Judged, Mark};
use super::load::{Candidate, Reading, in_file};
use super::pixels::{Transform, render, shares_transform, transform};
use super::scan::Shape;
use super::slices::Slice;
use super::source::Frames;
use super::stored::StoredPixels;
use super::{FrameOf, Instance, Limits, colour};
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::memory;
use dicom_encoding::transfer_syntax::TransferSyntax;

/// What a series becomes.
pub(super) struct Assembled {
    pub(super) instances: Vec<Instance>,
    pub(super) frames: Vec<FrameOf>,
    pub(super) blacked_out: Vec<Vec<Region>>,
    pub(super) voxels: Arc<Vec<f32>>,
    pub(super) channels: Vec<Channel>,
    pub(super) geometry: Geometry,
    pub(super) pixels: Vec<StoredPixels>,
}

/// The colours of pixels in colour, in the order of their channels.
const COLOURS: [&str; 3] = ["red", "green", "blue"];

/// The pixels of a file while its frames are decoded, and longer where they are kept.
pub(super) struct Stored {
    number: usize,
    pub(super) shape: Shape,
    pub(super) syntax: Option<&'static TransferSyntax>,
    pub(super) reading: Reading,
    pub(super) frames: Frames,
    pub(super) blackout: Blackout,
    inflate_ratio: u64,
}

impl Stored {
    /// The samples of a frame, without what is blacked out.
    pub(super) fn samples(&self, frame: usize) -> Result<Samples<'_>> {
        let samples = decode(self.frames.frame(frame)?, &self.shape, self.syntax, self.inflate_ratio)?;
        self.blackout.apply(samples, &self.shape, self.reading.format)
    }
}

/// One stored frame and where it goes.
struct Job<'a> {
    stored: Arc<Stored>,
    frame: usize,
    transform: Arc<Transform>,
    places: Vec<Place<'a>>,
}

/// A slice to be filled.
struct Place<'a> {
    /// Tile of a mosaic.
    tile: usize,
    /// Red, green or blue.
    colour: usize,
    voxels: &'a mut [f32],
}

/// Decodes the slices of a series, which was judged, into its volume.
pub(super) fn assemble(
    members: Vec<Candidate>,
    slices: &[Slice],
    judged: Judged,
    keeps_pixels: bool,
    limits: &Limits,
    control: &Control,
) -> Result<Assembled> {
    let Judged { geometry, order, channels, upright } = judged;
    let [columns, rows] = members.first().map_or([0; 2], Candidate::slice_dims);
    let colours = members.first().map_or(1, Candidate::samples);
    let channels = coloured(channels, colours);
    let per_channel = order.len() * colours / channels.len().max(1);
    // Until all is decoded, what is there is overwritten if anything fails.
    let mut voxels = Zeroizing::new(allocate(&[columns, rows, per_channel, channels.len()], limits)?);
    let wanted = Wanted { slices, order: &order, per_channel, colours, keeps_pixels };
    let Filled { instances, frames, blacked_out, pixels } = fill(members, &wanted, &mut voxels, limits, control)?;
    if let Some(upright) = upright {
        let [columns, rows, slices] = geometry.dims;
        let mut grids = Zeroizing::new(allocate(&[columns, rows, slices, channels.len()], limits)?);
        let (from, to) = (voxels.len() / channels.len().max(1), grids.len() / channels.len().max(1));
        for (frames, grid) in voxels.chunks(from.max(1)).zip(grids.chunks_mut(to.max(1))) {
            upright.resample(frames, grid, control)?;
        }
        voxels = grids;
    }
    Ok(Assembled { instances, frames, blacked_out, voxels: Arc::new(std::mem::take(&mut *voxels)), channels, geometry, pixels })
}

/// Each channel of pixels in colour is three, one after the other.
fn coloured(channels: Vec<Channel>, colours: usize) -> Vec<Channel> {
    if colours == 1 {
        return channels;
    }
    let each = |channel: Channel| {
        COLOURS.map(|colour| {
            let mut channel = channel.clone();
            channel.marks.push(("colour", Mark::Word(colour)));
            channel
        })
    };
    channels.into_iter().flat_map(each).collect()
}

/// Which slices are wanted, and where.
struct Wanted<'a> {
    slices: &'a [Slice],
    /// Index of each slice, slices of a channel after one another.
    order: &'a [usize],
    per_channel: usize,
    colours: usize,
    keeps_pixels: bool,
}

/// What is left of the files when their frames are decoded.
struct Filled {
    instances: Vec<Instance>,
    frames: Vec<FrameOf>,
    blacked_out: Vec<Vec<Region>>,
    pixels: Vec<StoredPixels>,
}

/// Decodes all frames, and answers the headers in the order in which the volume meets them, and for each slice of it which frame it is.
fn fill(members: Vec<Candidate>, wanted: &Wanted<'_>, voxels: &mut [f32], limits: &Limits, control: &Control) -> Result<Filled> {
    let Wanted { slices, order, per_channel, colours, keeps_pixels } = *wanted;
    let lost = || Error::new(Kind::Internal, "a slice is lost");
    let size = voxels.len() / (order.len() * colours).max(1);
    let mut chunks: Vec<Option<&mut [f32]>> = voxels.chunks_mut(size.max(1)).map(Some).collect();
    let mut places_of: BTreeMap<(usize, usize), Vec<Place<'_>>> = BTreeMap::new();
    let mut met: Vec<usize> = Vec::new();
    let mut instance_of: Vec<Option<usize>> = vec![None; members.len()];
    let mut frames = Vec::with_capacity(order.len());
    for (place, index) in order.iter().enumerate() {
        let slice = slices.get(*index).ok_or_else(lost)?;
        let instance = *instance_of.get_mut(slice.member).ok_or_else(lost)?.get_or_insert_with(|| {
            met.push(slice.member);
            met.len() - 1
        });
        frames.push(FrameOf { instance, frame: slice.frame });
        for colour in 0..colours {
            // Channels change slowest, then colours, then slices.
            let (channel, height) = (place / per_channel.max(1), place % per_channel.max(1));
            let chunk = chunks.get_mut((channel * colours + colour) * per_channel + height).and_then(Option::take).ok_or_else(lost)?;
            let places = places_of.entry((slice.member, slice.frame)).or_default();
            places.push(Place { tile: slice.tile.unwrap_or(0), colour, voxels: chunk });
        }
    }
    let parts = members.into_iter().map(|member| split(member, limits)).collect::<Result<Vec<_>>>()?;
    let (stored, mut instances): (Vec<Arc<Stored>>, Vec<Option<Instance>>) =
        parts.into_iter().map(|(stored, instance)| (stored, Some(instance))).unzip();
    let mut jobs = Vec::with_capacity(places_of.len());
    let mut shared: BTreeMap<usize, Arc<Transform>> = BTreeMap::new();
    for ((member, frame), places) in places_of {
        let stored = stored.get(member).ok_or_else(lost)?;
        let header = instances.get(member).and_then(Option::as_ref).ok_or_else(lost)?;
        let is_shared = shares_transform(&header.dataset, frame, stored.reading.format);
        let transform = match shared.get(&member).filter(|_| is_shared) {
            Some(transform) => Arc::clone(transform),
            None => Arc::new(transform(&header.dataset, frame, stored.reading.format).map_err(|error| in_file(stored.number, error))?),
        };
        if is_shared {
            shared.entry(member).or_insert_with(|| Arc::clone(&transform));
        }
        jobs.push(Job { stored: Arc::clone(stored), frame, transform, places });
    }
    // From here on the jobs alone hold the files' bytes, unless they are kept.
    let kept = if keeps_pixels { met.iter().filter_map(|member| stored.get(*member)).map(Arc::clone).collect() } else { Vec::new() };
    let blacked_out = met.iter().filter_map(|member| stored.get(*member)).map(|stored| stored.blackout.regions.clone()).collect();
    drop(stored);
    let (done, total) = (AtomicUsize::new(0), jobs.len());
    // Every thread writes its own slices and reads shared bytes, so the result does not depend on how many there are.
    jobs.into_par_iter().try_for_each(|mut job| {
        control.check()?;
        decode_into(&job.stored, job.frame, &job.transform, &mut job.places).map_err(|error| in_file(job.stored.number, error))?;
        // The counter carries no result.
        control.progress("load", (done.fetch_add(1, Ordering::Relaxed) + 1) as f64 / total as f64);
        Ok::<(), Error>(())
    })?;
    let instances = met.into_iter().filter_map(|member| instances.get_mut(member).and_then(Option::take)).collect();
    let keep = |stored: Arc<Stored>| {
        let number = stored.number;
        StoredPixels::new(stored).map_err(|error| in_file(number, error))
    };
    let pixels = kept.into_iter().map(keep).collect::<Result<_>>()?;
    Ok(Filled { instances, frames, blacked_out, pixels })
}

/// A file's pixels and its header, apart.
fn split(member: Candidate, limits: &Limits) -> Result<(Arc<Stored>, Instance)> {
    let Candidate { number, instance, shape, syntax, reading, frames, regions } = member;
    let reading = reading.map_err(|error| in_file(number, error))?;
    let blackout = Blackout::new(regions, &instance.dataset, reading.format).map_err(|error| in_file(number, error))?;
    Ok((Arc::new(Stored { number, shape, syntax, reading, frames, blackout, inflate_ratio: limits.inflate_ratio }), instance))
}

/// One frame from its stored bytes to its voxels.
fn decode_into(stored: &Stored, frame: usize, transform: &Transform, places: &mut [Place<'_>]) -> Result<()> {
    let Stored { shape, reading, .. } = stored;
    let samples = stored.samples(frame)?;
    let Reading { format, mosaic } = reading;
    let volumes = format.colour().volumes();
    match (mosaic, places) {
        (None, [Place { voxels, .. }]) if volumes == 1 => render(&samples, *format, transform, voxels),
        // Places of one slice come in the order of the colours.
        (None, [red, green, blue]) if volumes == 3 => {
            colour::render(&samples, *format, transform, [&mut *red.voxels, &mut *green.voxels, &mut *blue.voxels])
        }
        (Some(mosaic), places) => {
            let pixels = shape.rows as usize * shape.columns as usize;
            let mut whole = Zeroizing::new(vec![0f32; pixels * volumes]);
            match (volumes, whole.as_mut_slice()) {
                (1, whole) => render(&samples, *format, transform, whole)?,
                (_, whole) => {
                    let (red, rest) = whole.split_at_mut(pixels);
                    let (green, blue) = rest.split_at_mut(pixels);
                    colour::render(&samples, *format, transform, [red, green, blue])?;
                }
            }
            for place in places {
                let plane = whole.get(place.colour * pixels..(place.colour + 1) * pixels).unwrap_or_default();
                mosaic.cut(plane, place.tile, place.voxels)?;
            }
            Ok(())
        }
        _ => Err(Error::new(Kind::Internal, "a frame has more places than slices")),
    }
}

/// Zeroed voxels, of a size that is within the limit.
fn allocate(dims: &[usize], limits: &Limits) -> Result<Vec<f32>> {
    let voxels = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
    let bytes = voxels.and_then(|voxels| voxels.checked_mul(size_of::<f32>())).map_or(u64::MAX, |bytes| bytes as u64);
    let (Some(voxels), true) = (voxels, bytes <= limits.volume_bytes) else {
        let detail = format!("{bytes} bytes of voxels, more than {} (limits.volume_bytes)", limits.volume_bytes);
        return Err(Error::new(Kind::LimitExceeded, detail));
    };
    memory::zeros(voxels).ok_or_else(|| Error::new(Kind::OutOfMemory, format!("{bytes} bytes of voxels")))
}

/// All frames of one image in file order.
#[cfg(test)]
pub(super) fn decode_all(member: Candidate, limits: &Limits) -> Result<Vec<f32>> {
    let (frames, colours) = (member.shape.frames as usize, member.samples());
    let plane = (member.shape.rows * member.shape.columns) as usize;
    let (stored, instance) = split(member, limits)?;
    let mut voxels = vec![0.0; plane * frames * colours];
    for frame in 0..frames {
        let transform = transform(&instance.dataset, frame, stored.reading.format)?;
        let chunks = voxels.chunks_mut(plane).enumerate().filter(|(chunk, _)| chunk % frames == frame);
        let mut places: Vec<Place<'_>> = chunks.map(|(chunk, voxels)| Place { tile: 0, colour: chunk / frames, voxels }).collect();
        decode_into(&stored, frame, &transform, &mut places)?;
    }
    Ok(voxels)
}
