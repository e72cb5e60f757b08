//! Sealing a folder and uploading it.
//!
//! One pass over the files in bounded memory: a range of 512 chunks is filled, encrypted on the rayon pool, hashed, uploaded and
//! forgotten. Packs first, then the manifest, the header last and never over another one, so a package is there as a whole or not at all.
//! What was uploaded before a failure is deleted again, best effort; without a header it is noise under random names.

use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::chunked::{self, CHUNK, Chunks, PREFIX};
use super::derive::{self, Name, Role};
use super::header::{self, Header, MAX_PACK, MAX_RECIPIENTS, ObjectRef, Recipient};
use super::manifest::{FileEntry, Manifest};
use super::source::{self, Source};
use super::tree::{self, Hash, RANGE_CHUNKS};
use super::{Folder, Limits, PackageFacts, over_limit, pad, wrap};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::{KeyStore, PrivatePair, PublicPair, hex};
use crate::secret::Secret;
use crate::transfer::{Client, Replace};

/// Bytes read from a file at a time.
const READ: usize = 1 << 20;

/// Seals a folder for recipients and uploads it; the header is written last.
///
/// The sender is an identity of the store, each recipient a confirmed peer or an identity; neither may have been replaced by rotation. The
/// sender cannot open the package afterwards unless it is among the recipients.
#[allow(clippy::too_many_arguments)] // the public signature is what C callers pass, argument by argument
pub fn seal_folder(
    client: &Client,
    remote_path: &str,
    folder: &Path,
    keys: &KeyStore,
    sender_id: &str,
    recipient_ids: &[&str],
    purpose: &str,
    limits: &Limits,
    control: &Control,
) -> Result<PackageFacts> {
    let job = Job { client, remote: Folder::new(remote_path), folder, keys, limits, control, max_pack: MAX_PACK };
    job.seal(sender_id, recipient_ids, purpose)
}

/// What does not change while a package is sealed.
pub(super) struct Job<'a> {
    pub(super) client: &'a Client,
    pub(super) remote: Folder,
    pub(super) folder: &'a Path,
    pub(super) keys: &'a KeyStore,
    pub(super) limits: &'a Limits,
    pub(super) control: &'a Control,
    /// Plaintext bytes of a pack; the format's 1 GiB, or less in tests.
    pub(super) max_pack: u64,
}

impl Job<'_> {
    /// See [`seal_folder`].
    pub(super) fn seal(&self, sender_id: &str, recipient_ids: &[&str], purpose: &str) -> Result<PackageFacts> {
        let refused = |why: &'static str| Error::new(Kind::InvalidArgument, why).at(Stage::Package);
        if !header::is_purpose(purpose) {
            return Err(refused("a purpose has at most 128 printable ASCII characters"));
        }
        let mut recipients = recipient_ids.iter().map(|id| self.keys.recipient(id)).collect::<Result<Vec<PublicPair>>>()?;
        // The header lists each once, sorted by digest.
        recipients.sort_by_key(PublicPair::agree_digest);
        recipients.dedup_by_key(|keys| keys.agree_digest());
        if recipients.is_empty() || recipients.len() > MAX_RECIPIENTS {
            return Err(refused("1 to 64 recipients are expected"));
        }
        let (sender, signer) = self.keys.signer(sender_id)?;

        let sources = source::walk(self.folder, self.limits, self.control)?;
        let header_name = self.remote.object(header::OBJECT);
        match self.client.head(&header_name, self.control) {
            Err(error) if error.kind() == Kind::ObjectNotFound => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(Error::new(Kind::PackageExists, "")),
        }

        let mut key = Secret::new([0u8; 32]);
        derive::fill_random(key.expose_mut())?;
        let package = derive::fresh_name()?;
        let mut sealing = Sealing { job: self, package, key: &key, uploaded: Vec::new() };
        let (packs, manifest) = sealing.packs(&sources)?;
        let plain = manifest.write()?;
        let (manifest_ref, _) = sealing.object(Role::Manifest, plain.len() as u64, &mut |writer| writer.write(&plain))?;

        let sender_digest = sender.sign_digest();
        let wrapped = recipients.iter().map(|recipient| wrap_for(recipient, &key, &package, &sender_digest)).collect::<Result<_>>()?;
        let header = Header {
            created: header::now()?,
            manifest: manifest_ref,
            packs,
            package,
            purpose: purpose.to_owned(),
            recipients: wrapped,
            sender: sender_digest,
        };
        let bytes = sign(&header, &signer, self.limits)?;
        self.control.check()?;
        publish(self.client, &header_name, &bytes)?;
        // From here on the package is complete and what was uploaded is part of it.
        sealing.uploaded.clear();
        Ok(PackageFacts {
            id: hex(&package),
            sender: hex(&sender_digest),
            sender_id: sender_id.to_owned(),
            created: header.created,
            purpose: header.purpose,
            files: manifest.files.len(),
            bytes: manifest.bytes(),
            header_sha256: hex(&Sha256::digest(&bytes)),
            format: header::FORMAT,
        })
    }
}

fn wrap_for(recipient: &PublicPair, key: &Secret<[u8; 32]>, package: &Name, sender: &[u8; 32]) -> Result<Recipient> {
    let digest = recipient.agree_digest();
    let info = derive::wrapping_info(package, sender, &digest);
    let (encapsulated, wrapped) = wrap::wrap(key.expose(), recipient, &info)?;
    Ok(Recipient { wrapped, encapsulated, digest })
}

fn sign(header: &Header, signer: &PrivatePair, limits: &Limits) -> Result<Vec<u8>> {
    let message = header.message()?;
    let bytes = header::write(&message, &signer.sign(message.as_bytes())?);
    let limit = limits.header_bytes.min(header::MAX_BYTES);
    if bytes.len() as u64 > limit {
        return Err(over_limit("header_bytes", limit));
    }
    Ok(bytes)
}

/// Uploads the header without replacing one.
fn publish(client: &Client, name: &str, bytes: &[u8]) -> Result<()> {
    let upload = || {
        let mut upload = client.upload(name, Replace::Never)?;
        upload.write(bytes.to_vec())?;
        upload.finish()
    };
    let Err(error) = upload() else { return Ok(()) };
    // An answer may get lost after the store has published the header: what is there decides, because deleting the packs of a
    // published header would leave a broken package behind.
    match client.read_small(name, header::MAX_BYTES, &Control::new()) {
        Ok(there) if there == bytes => Ok(()),
        Ok(_) => Err(Error::new(Kind::PackageExists, "another header was written meanwhile")),
        Err(_) if error.kind() == Kind::ObjectExists => Err(Error::new(Kind::PackageExists, "")),
        Err(_) => Err(error),
    }
}

/// One package on its way to the store. Dropped before its header is published, it deletes what it uploaded.
struct Sealing<'a> {
    job: &'a Job<'a>,
    package: Name,
    key: &'a Secret<[u8; 32]>,
    uploaded: Vec<String>,
}

impl Drop for Sealing<'_> {
    fn drop(&mut self) {
        for name in &self.uploaded {
            let _ = self.job.client.delete(name);
        }
    }
}

impl Sealing<'_> {
    /// Seals all files into packs of at most 1 GiB; the last is padded.
    fn packs(&mut self, sources: &[Source]) -> Result<(Vec<ObjectRef>, Manifest)> {
        let total: u64 = sources.iter().map(|source| source.size).sum();
        let plan = plan(sources.iter().map(|source| source.size), self.job.max_pack);
        let (mut packs, mut leaves, mut files) = (Vec::new(), Vec::new(), Vec::new());
        let (mut number, mut sealed) = (0, 0);
        for (pack, count) in plan.iter().enumerate() {
            let (first, control) = (number, self.job.control);
            let members = sources.get(first..first + count).unwrap_or_default();
            let used: u64 = members.iter().map(|source| source.size).sum();
            let length = if pack + 1 == plan.len() { pad::padme(used) } else { used };
            let (object, hashes) = self.object(Role::Pack, length, &mut |writer| {
                let mut offset = 0;
                for source in members {
                    let sha256 = stream(source, number, writer, control)?;
                    let path = Zeroizing::new(source.name.clone());
                    files.push(FileEntry { pack, offset, size: source.size, sha256, path });
                    offset += source.size;
                    number += 1;
                    control.progress("seal", (sealed + offset) as f64 / total.max(1) as f64);
                }
                writer.zeros(length - used)
            })?;
            sealed += used;
            packs.push(object);
            leaves.push(hashes);
        }
        Ok((packs, Manifest { leaves, files }))
    }

    /// Seals and uploads one object of a known plaintext length.
    fn object(&mut self, role: Role, length: u64, fill: &mut dyn FnMut(&mut Writer<'_>) -> Result<()>) -> Result<(ObjectRef, Vec<Hash>)> {
        let name = derive::fresh_name()?;
        let key = derive::object_key(self.key.expose(), &self.package, &name)?;
        let (chunks, prefix) = Chunks::begin(key.expose(), &derive::context(role, &self.package, &name))?;
        let mut object = ObjectRef { root: Hash::default(), name, size: chunked::sealed_len(length) };
        let remote = self.job.remote.object(&object.file_name(role));
        let mut upload = self.job.client.upload(&remote, Replace::Never)?;
        // Entered before it is finished: the answer to `finish` may get lost after the object was published.
        self.uploaded.push(remote);
        let control = self.job.control;
        let mut send = |bytes| {
            control.check()?;
            upload.write(bytes)
        };
        let mut writer = Writer::new(chunks, prefix, &mut send);
        fill(&mut writer)?;
        let (written, leaves) = writer.finish()?;
        let finished = upload.finish()?;
        if written != object.size || finished.size != object.size {
            let detail = format!("an object of {} bytes arrived as {}", object.size, finished.size);
            return Err(Error::new(Kind::TransferInterrupted, detail).at(Stage::Package));
        }
        object.root = tree::root(&leaves);
        Ok((object, leaves))
    }
}

/// How many files go into each pack, in order, so that none passes the limit. There is always a first pack.
fn plan(sizes: impl Iterator<Item = u64>, max_pack: u64) -> Vec<usize> {
    let (mut packs, mut count, mut used) = (Vec::new(), 0, 0);
    for size in sizes {
        if count > 0 && used + size > max_pack {
            packs.push(count);
            (count, used) = (0, 0);
        }
        count += 1;
        used += size;
    }
    packs.push(count);
    packs
}

/// Streams one file into a writer; its digest is that of the bytes that were sealed, and the file was the same before and after.
fn stream(source: &Source, number: usize, writer: &mut Writer<'_>, control: &Control) -> Result<Hash> {
    let mut file = source.open(number)?;
    let mut digest = Sha256::new();
    let mut buffer = Zeroizing::new(vec![0u8; READ.min(usize::try_from(source.size).unwrap_or(READ)).max(1)]);
    let mut left = source.size;
    loop {
        control.check()?;
        let got = match file.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(source::unreadable(&error)),
            Ok(0) => break,
            Ok(got) => got,
        };
        let bytes = buffer.get(..got).unwrap_or_default();
        // More bytes than the folder showed would push all later files out of place.
        left = left.checked_sub(bytes.len() as u64).ok_or_else(|| source::changed(number))?;
        digest.update(bytes);
        writer.write(bytes)?;
    }
    if left != 0 {
        return Err(source::changed(number));
    }
    source.check(&file, number)?;
    Ok(digest.finalize().into())
}

/// Turns plaintext into sealed ranges as it comes.
struct Writer<'a> {
    chunks: Chunks,
    /// Goes in front of the first range.
    prefix: Option<[u8; PREFIX]>,
    /// Plaintext of the range being filled, never more than 512 chunks.
    plain: Zeroizing<Vec<u8>>,
    next_chunk: u64,
    leaves: Vec<Hash>,
    written: u64,
    send: &'a mut dyn FnMut(Vec<u8>) -> Result<()>,
}

impl<'a> Writer<'a> {
    fn new(chunks: Chunks, prefix: [u8; PREFIX], send: &'a mut dyn FnMut(Vec<u8>) -> Result<()>) -> Writer<'a> {
        // Reserved at once: a buffer that grows leaves copies of plaintext behind.
        let plain = Zeroizing::new(Vec::with_capacity(RANGE_CHUNKS * CHUNK));
        Writer { chunks, prefix: Some(prefix), plain, next_chunk: 0, leaves: Vec::new(), written: 0, send }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = RANGE_CHUNKS * CHUNK - self.plain.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.plain.extend_from_slice(now);
            bytes = later;
            if self.plain.len() == RANGE_CHUNKS * CHUNK {
                self.flush(false)?;
            }
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<()> {
        let zeros = [0u8; CHUNK];
        while count > 0 {
            let now = count.min(CHUNK as u64);
            self.write(zeros.get(..usize::try_from(now).unwrap_or(CHUNK)).unwrap_or_default())?;
            count -= now;
        }
        Ok(())
    }

    /// Ends the message: sealed length and leaf hashes.
    fn finish(mut self) -> Result<(u64, Vec<Hash>)> {
        self.flush(true)?;
        Ok((self.written, self.leaves))
    }

    fn flush(&mut self, last: bool) -> Result<()> {
        let defect = || Error::new(Kind::Internal, "a range has the wrong length").at(Stage::Package);
        let prefix = self.prefix.take();
        let start = prefix.map_or(0, |prefix| prefix.len());
        let length = start + chunked::run_len(self.plain.len(), last).ok_or_else(defect)?;
        let mut range = vec![0u8; length];
        let (front, body) = range.split_at_mut(start);
        if let Some(prefix) = prefix {
            front.copy_from_slice(&prefix);
        }
        self.chunks.seal_run(self.next_chunk, &self.plain, last, body)?;
        self.next_chunk += (self.plain.len() / CHUNK) as u64;
        self.plain.clear();
        self.leaves.push(tree::leaf(&range));
        self.written += range.len() as u64;
        (self.send)(range)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Seals a message in memory as an upload would: sealed bytes and leaf hashes.
    pub(in crate::package) fn seal_message(key: &[u8; 32], context: &[u8], plain: &[u8], step: usize) -> (Vec<u8>, Vec<Hash>) {
        let (chunks, prefix) = Chunks::begin(key, context).unwrap();
        let mut sealed = Vec::new();
        let mut send = |bytes: Vec<u8>| {
            sealed.extend(bytes);
            Ok(())
        };
        let mut writer = Writer::new(chunks, prefix, &mut send);
        plain.chunks(step).for_each(|part| writer.write(part).unwrap());
        let (written, leaves) = writer.finish().unwrap();
        assert_eq!(written, sealed.len() as u64);
        (sealed, leaves)
    }

    #[test]
    fn a_streamed_message_opens_whole_whatever_its_length() {
        let range = RANGE_CHUNKS * CHUNK;
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, range - 1, range, range + 1, 2 * range + CHUNK] {
            let plain: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let (sealed, leaves) = seal_message(&[1; 32], b"context", &plain, 1_000_003);
            assert_eq!(sealed.len() as u64, chunked::sealed_len(length as u64));
            assert_eq!(chunked::plain_len(sealed.len() as u64), Some(length as u64));
            let ranges = tree::ranges(sealed.len() as u64);
            let hashes: Vec<Hash> = ranges.iter().map(|r| tree::leaf(&sealed[r.start as usize..r.end as usize])).collect();
            assert!(hashes == leaves, "{length}");
            let opened = chunked::open_message(&[1; 32], b"context", Zeroizing::new(sealed)).unwrap();
            assert!(*opened == plain, "{length}");
        }
    }

    #[test]
    fn files_are_packed_in_order_up_to_the_limit() {
        let check = |sizes: &[u64], expected: &[usize]| assert_eq!(plan(sizes.iter().copied(), 10), expected, "{sizes:?}");
        check(&[4, 6, 1], &[2, 1]);
        check(&[10, 10, 0, 10], &[1, 2, 1]);
        check(&[0, 0], &[2]);
        check(&[3, 3, 3, 3, 9], &[3, 1, 1]);
        // 1 GiB and no byte more (the format's limit of a pack).
        assert_eq!(plan([MAX_PACK - 1, 1, 1].into_iter(), MAX_PACK), [2, 1]);
    }

    #[test]
    fn plaintext_is_not_kept_after_its_range_was_sent() {
        let (chunks, prefix) = Chunks::begin(&[1; 32], b"").unwrap();
        let mut ranges = 0;
        let mut send = |_| {
            ranges += 1;
            Ok(())
        };
        let mut writer = Writer::new(chunks, prefix, &mut send);
        let capacity = writer.plain.capacity();
        for _ in 0..40 {
            writer.write(&[7; 1 << 20]).unwrap();
            assert_eq!(writer.plain.capacity(), capacity, "the buffer never grows");
        }
        writer.finish().unwrap();
        assert_eq!(ranges, 6, "40 MiB are five full ranges and the end");
    }
}
