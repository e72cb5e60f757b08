//! How a study's objects come from the store to the DICOM loader: a sealed package, or ordinary objects under TLS alone.
//!
//! Whichever it is, instances are scanned and parsed while later ones are still on the line, and what went over the line is kept for the
//! result. A request for a sealed study is never answered with ordinary objects.

use std::time::Instant;

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::audit::Value;
use crate::control::Control;
use crate::dicom::Loader;
use crate::error::{Error, Kind, Result, Stage};
use crate::package::{self, PackageFacts};
use crate::pipeline::settings::StudySettings;
use crate::pipeline::stages::{Recorder, integer};
use crate::pipeline::workspace::SpoolLease;
use crate::pipeline::{Inner, new_id};
use crate::secret::Plain;
use crate::transfer::{Client, FetchPlan, ObjectInfo};

/// Bytes of a range of an ordinary object, as in a package.
const RANGE_BYTES: u64 = 8 << 20;

/// What went over the line for a study.
pub(super) struct TransferReport {
    id: String,
    store: &'static str,
    bytes: u64,
    /// Size and SHA-256 of each ordinary object, in order of delivery; empty for a package, whose manifest has the digests.
    objects: Vec<(u64, String)>,
    object_count: usize,
    received: u64,
    spooled: u64,
    retries: u64,
    seconds: f64,
}

impl TransferReport {
    /// `transfer` of the result. Objects have no names here, because people put patients into names.
    pub(super) fn json(&self) -> Json {
        let mut json = json!({
            "id": self.id,
            "store": self.store,
            "objects": self.object_count,
            "bytes": self.bytes,
            "bytes_received": self.received,
            "bytes_from_spool": self.spooled,
            "retries": self.retries,
            "seconds": self.seconds,
        });
        if !self.objects.is_empty() {
            let checksums: Vec<Json> = self.objects.iter().map(|(bytes, sha256)| json!({"bytes": bytes, "sha256": sha256})).collect();
            json["checksums"] = checksums.into();
        }
        json
    }

    fn new(client: &Client, started: Instant, bytes: u64, object_count: usize, objects: Vec<(u64, String)>) -> Result<TransferReport> {
        let meter = client.meter();
        Ok(TransferReport {
            id: new_id("transfer")?,
            store: client.provider(),
            bytes,
            objects,
            object_count,
            received: meter.received(),
            spooled: meter.spooled(),
            retries: meter.retries(),
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// One study's download.
pub(super) struct Download<'a> {
    pub(super) inner: &'a Inner,
    pub(super) settings: &'a StudySettings,
    pub(super) recorder: &'a Recorder<'a>,
    pub(super) control: &'a Control,
}

impl Download<'_> {
    /// A sealed package. `lease` holds its spool afterwards, also when this fails.
    pub(super) fn sealed(
        &self,
        remote_path: &str,
        lease: &mut Option<SpoolLease>,
        loader: &mut Loader,
    ) -> Result<(PackageFacts, TransferReport)> {
        let started = Instant::now();
        let client = self.inner.client()?;
        *lease = self.inner.workspace.lease(&client.describe(), remote_path)?;
        let client = client.with_spool(lease.as_ref().map(|spool| spool.folder().to_path_buf()))?;
        let settings = self.settings;
        let package =
            package::open(&client, remote_path, &self.inner.keys, &settings.trusted_senders, &settings.package_limits, self.control)?;
        let facts = package.facts();
        let mut detail = vec![
            ("package", Value::Text(facts.id.clone())),
            ("sender", Value::Text(facts.sender.clone())),
            ("header_sha256", Value::Text(facts.header_sha256.clone())),
        ];
        if package.is_counted() {
            detail.push(("files", integer(facts.files)));
        }
        self.recorder.success("study.opened", detail)?;
        let facts = package.read(self.control, &mut |file| loader.add(file.index, file.bytes, self.control))?;
        self.recorder.success("study.fetched", vec![("bytes", integer(facts.bytes)), ("files", integer(facts.files))])?;
        let objects = self.control.transfer().map_or(0, |progress| usize::try_from(progress.objects).unwrap_or(usize::MAX));
        let report = TransferReport::new(&client, started, facts.bytes, objects, Vec::new())?;
        Ok((facts, report))
    }

    /// Ordinary objects: nothing but TLS protects them, so nothing of them is spooled.
    pub(super) fn ordinary(&self, remote_path: &str, loader: &mut Loader) -> Result<TransferReport> {
        let started = Instant::now();
        let client = self.inner.client()?.with_spool(None)?;
        if !client.is_encrypted_in_transit() {
            return Err(Error::new(Kind::TlsFailed, "download_mode standard needs an https endpoint"));
        }
        let objects = client.list(remote_path, self.control)?;
        if objects.is_empty() {
            return Err(Error::new(Kind::ObjectNotFound, "nothing is stored under remote_path"));
        }
        let bytes = self.checked_total(&objects)?;
        self.control.begin_transfer(bytes, objects.len() as u64);
        let ranges: Vec<Vec<_>> = objects.iter().map(|object| ranges(object.size)).collect();
        let plans: Vec<FetchPlan<'_>> = objects
            .iter()
            .zip(&ranges)
            .map(|(object, ranges)| FetchPlan { name: &object.name, version: &object.version, ranges, spool_key: None })
            .collect();
        let mut collector = Collector { objects: &objects, next: 0, whole: Plain::default(), digests: Vec::new() };
        let mut done = 0_u64;
        let mut finish = |number: usize, whole: Plain| {
            done += whole.len() as u64;
            self.control.progress("fetch", done as f64 / bytes.max(1) as f64);
            self.control.object_transferred();
            loader.add(number, whole, self.control)
        };
        client.fetch_all(&plans, &mut |_, part| collector.accept(Plain::new(part), &mut finish), self.control)?;
        collector.accept_empty(&mut finish)?;
        let digests = collector.digests;
        if digests.len() != objects.len() {
            return Err(Error::new(Kind::Internal, "an object was not delivered").at(Stage::Transfer));
        }
        let mut all = Sha256::new();
        let mut checksums = Vec::with_capacity(digests.len());
        for (object, digest) in objects.iter().zip(&digests) {
            all.update(digest);
            checksums.push((object.size, hex(digest)));
        }
        self.recorder.success(
            "study.fetched",
            vec![("bytes", integer(bytes)), ("files", integer(objects.len())), ("objects_sha256", Value::Text(hex(&all.finalize())))],
        )?;
        TransferReport::new(&client, started, bytes, objects.len(), checksums)
    }

    /// Bytes of all objects, none of which nor their sum exceeds its limit.
    fn checked_total(&self, objects: &[ObjectInfo]) -> Result<u64> {
        let too_large = |key| Error::new(Kind::LimitExceeded, key).at(Stage::Transfer);
        let mut total = 0_u64;
        for object in objects {
            if object.size > self.settings.object_bytes {
                return Err(too_large("limits.object_bytes"));
            }
            total = total.saturating_add(object.size);
        }
        if total > self.settings.package_limits.study_bytes {
            return Err(too_large("limits.study_bytes"));
        }
        Ok(total)
    }
}

type Finish<'a> = &'a mut dyn FnMut(usize, Plain) -> Result<()>;

/// Puts ranges together to objects, in the order of the listing.
struct Collector<'a> {
    objects: &'a [ObjectInfo],
    next: usize,
    whole: Plain,
    digests: Vec<[u8; 32]>,
}

impl Collector<'_> {
    /// Takes the next range of the next object that has any.
    fn accept(&mut self, part: Plain, finish: Finish<'_>) -> Result<()> {
        self.accept_empty(finish)?;
        let object = self.objects.get(self.next).ok_or_else(|| Error::new(Kind::Internal, "a range of no object").at(Stage::Transfer))?;
        let size = usize::try_from(object.size).map_err(|_| out_of_memory())?;
        if part.len() == size {
            self.whole = part;
        } else {
            if self.whole.is_empty() {
                // All at once: a vector that grew would leave copies behind.
                self.whole.try_reserve_exact(size).map_err(|_| out_of_memory())?;
            }
            self.whole.extend_from_slice(&part);
        }
        if self.whole.len() == size { self.finish(finish) } else { Ok(()) }
    }

    /// Objects of no bytes have no range that could arrive.
    fn accept_empty(&mut self, finish: Finish<'_>) -> Result<()> {
        while self.whole.is_empty() && self.objects.get(self.next).is_some_and(|object| object.size == 0) {
            self.finish(finish)?;
        }
        Ok(())
    }

    fn finish(&mut self, finish: Finish<'_>) -> Result<()> {
        let whole = std::mem::take(&mut self.whole);
        self.digests.push(Sha256::digest(whole.as_slice()).into());
        finish(self.next, whole)?;
        self.next += 1;
        Ok(())
    }
}

fn ranges(size: u64) -> Vec<std::ops::Range<u64>> {
    (0..size.div_ceil(RANGE_BYTES)).map(|number| number * RANGE_BYTES..((number + 1) * RANGE_BYTES).min(size)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn out_of_memory() -> Error {
    Error::new(Kind::OutOfMemory, "an object does not fit into memory").at(Stage::Transfer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_put_together_and_empty_objects_keep_their_place() {
        let sizes = [0_u64, 3, 0, 0, 5, 2, 0];
        let objects: Vec<ObjectInfo> =
            sizes.iter().map(|size| ObjectInfo { name: String::new(), size: *size, version: String::new() }).collect();
        let mut collector = Collector { objects: &objects, next: 0, whole: Plain::default(), digests: Vec::new() };
        let mut finished = Vec::new();
        let mut finish = |number: usize, whole: Plain| {
            finished.push((number, whole.to_vec()));
            Ok(())
        };
        for part in [&b"abc"[..], b"de", b"fgh", b"ij"] {
            collector.accept(Plain::new(part.to_vec()), &mut finish).unwrap();
        }
        collector.accept_empty(&mut finish).unwrap();
        let contents: Vec<(usize, &[u8])> = finished.iter().map(|(number, whole)| (*number, whole.as_slice())).collect();
        assert_eq!(contents, [(0, &b""[..]), (1, b"abc"), (2, b""), (3, b""), (4, b"defgh"), (5, b"ij"), (6, b"")]);
        // FIPS 180-4, example of one block.
        assert_eq!(hex(&collector.digests[1]), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(collector.accept(Plain::new(vec![1]), &mut |_, _| Ok(())).is_err(), "more than was listed");
    }

    #[test]
    fn ranges_cover_an_object_once() {
        assert!(ranges(0).is_empty());
        assert_eq!(ranges(RANGE_BYTES), vec![0..RANGE_BYTES; 1]);
        assert_eq!(ranges(RANGE_BYTES + 1), [0..RANGE_BYTES, RANGE_BYTES..RANGE_BYTES + 1]);
    }
}
