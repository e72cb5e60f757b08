//! Sealing a study and uploading it.
//!
//! One pass over the files in bounded memory: packs first, then the manifest, the header last and never over another one, so a package is
//! there as a whole or not at all. Each file is hashed as it is sealed, and before the header is written every file is looked at once more:
//! what the sender signs is one state of the study.
//!
//! What was uploaded before a failure is deleted again, best effort; without a header it is noise under random names. After an
//! interruption (the network, a cancelled call, a killed process) finished packs stay, and with a journal the next call for the same files,
//! recipients and place goes on behind them.

mod journal;
mod source;
mod writer;

use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::chunked::{self, Chunks};
use super::derive::{self, Name, Role};
use super::header::{self, Header, MAX_PACK, MAX_RECIPIENTS, ObjectRef, Recipient};
use super::manifest::{FileEntry, Manifest};
use super::tree::{self, Hash};
use super::{Folder, Limits, PackageFacts, over_limit, pad, wrap};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::{KeyStore, PrivateKeys, PublicPair};
use crate::secret::Secret;
use crate::transfer::{Client, Replace};
use journal::{FinishedPack, Found, Journal, Progress, Sender};
use source::Source;
#[cfg(test)]
pub(super) use writer::tests as writer_tests;
use writer::{Writer, seal_stream};

/// Bytes read from a file at a time.
const READ: usize = 1 << 20;

/// Plaintext bytes after which a pack is closed. The format allows 1 GiB, for one large file; smaller packs lose less to an interruption.
const PACK: u64 = 256 << 20;

/// What is sealed.
pub enum Contents<'a> {
    /// Every file of a folder and of the folders below it.
    Folder(&'a Path),
    /// Files that are in memory only.
    Instances(&'a [Instance<'a>]),
}

/// One file in memory.
pub struct Instance<'a> {
    /// Path in the package: relative, `/` separated.
    pub name: &'a str,
    /// Contents.
    pub bytes: &'a [u8],
}

/// Who seals for whom, and what for.
pub struct Parties<'a> {
    /// Key id of an identity of the store.
    pub sender_id: &'a str,
    /// Key ids of 1 to 64 confirmed peers or identities.
    pub recipient_ids: &'a [&'a str],
    /// At most 128 printable ASCII characters, readable by everybody.
    pub purpose: &'a str,
}

/// How a study is sealed.
#[derive(Clone, Debug)]
pub struct SealOptions {
    /// Limits on files and bytes.
    pub limits: Limits,
    /// Folder for journals, by which an interrupted sealing of a folder is resumed; `None` starts anew each time.
    pub journals: Option<PathBuf>,
    /// Plaintext bytes after which a pack is closed, at most 1 GiB.
    pub pack_bytes: u64,
}

impl Default for SealOptions {
    fn default() -> SealOptions {
        SealOptions { limits: Limits::default(), journals: None, pack_bytes: PACK }
    }
}

/// Seals a study for its recipients and uploads it; the header is written last.
///
/// The sender is an identity of the store, each recipient a confirmed peer or an identity; none may have been replaced by rotation or have
/// expired. The sender cannot open the package afterwards, nor [grant](super::grant) it to others, unless it is among the recipients.
///
/// # Errors
/// `PackageExists` when the path is taken, `SourceChanged` when a file is not what it was at the beginning. After a retryable error or
/// `Cancelled` the journal stays and the same call resumes; after any other nothing is left in the store.
pub fn seal(
    client: &Client,
    remote_path: &str,
    contents: &Contents<'_>,
    keys: &KeyStore,
    parties: &Parties<'_>,
    options: &SealOptions,
    control: &Control,
) -> Result<PackageFacts> {
    Job { client, remote: Folder::new(remote_path), keys, options, control }.seal(contents, parties)
}

/// What does not change while a package is sealed.
struct Job<'a> {
    client: &'a Client,
    remote: Folder,
    keys: &'a KeyStore,
    options: &'a SealOptions,
    control: &'a Control,
}

impl Job<'_> {
    fn seal(&self, contents: &Contents<'_>, parties: &Parties<'_>) -> Result<PackageFacts> {
        let refused = |why: &'static str| Error::new(Kind::InvalidArgument, why).at(Stage::Package);
        if !header::is_purpose(parties.purpose) {
            return Err(refused("a purpose has at most 128 printable ASCII characters"));
        }
        let recipients = recipients(self.keys, parties.recipient_ids)?;
        let (sender, signer) = self.keys.signer(parties.sender_id)?;
        let sender = Sender { public: &sender, private: &*signer };
        let sources = source::list(contents, &self.options.limits, self.control)?;
        let journal = self.journal()?;
        let header_name = self.remote.object(header::OBJECT);
        match self.client.head(&header_name, self.control) {
            Err(error) if error.kind() == Kind::ObjectNotFound => {}
            Err(error) => return Err(error),
            Ok(_) => {
                // Whatever a journal says was begun here, the packs may be those of this header: they are nobody's to delete.
                journal.inspect(Journal::forget);
                return Err(Error::new(Kind::PackageExists, ""));
            }
        }
        let terms = self.terms(parties, &recipients, &sources);
        let mut sealing = match journal.as_ref().zip(terms) {
            Some((journal, terms)) => self.resume(journal, &sender, &terms, &sources)?,
            None => Sealing::new(self, None, begin()?),
        };
        let outcome = sealing.finish(&sources, parties, &recipients, &sender, &header_name);
        if let Err(error) = &outcome {
            let resumable = sealing.journal.is_some() && (error.is_retryable() || error.kind() == Kind::Cancelled);
            sealing.give_up(resumable);
        }
        outcome
    }

    fn journal(&self) -> Result<Option<Journal>> {
        let Some(folder) = &self.options.journals else { return Ok(None) };
        Journal::open(folder, &self.place())
    }

    /// Store and path in it.
    fn place(&self) -> String {
        format!("{}\0{}", self.client.describe(), self.remote.path)
    }

    /// Digest of all that two runs must have in common for the second to go on with the first; `None` when the files are in memory only.
    fn terms(&self, parties: &Parties<'_>, recipients: &[PublicPair], sources: &[Source<'_>]) -> Option<Hash> {
        let mut digest = Sha256::new();
        // The journal's name stands for the place too, but whoever can write its folder can rename it.
        let place = self.place();
        digest.update((place.len() as u64).to_be_bytes());
        digest.update(place.as_bytes());
        recipients.iter().for_each(|recipient| digest.update(recipient.agree_digest()));
        digest.update((recipients.len() as u64).to_be_bytes());
        digest.update((parties.purpose.len() as u64).to_be_bytes());
        digest.update(parties.purpose.as_bytes());
        digest.update(self.options.pack_bytes.to_be_bytes());
        sources.iter().all(|source| source.describe(&mut digest)).then(|| digest.finalize().into())
    }

    /// Goes on with what the journal says was begun, as far as the store still has it; what was begun on other terms is deleted.
    fn resume<'s>(&'s self, journal: &'s Journal, sender: &'s Sender<'s>, terms: &Hash, sources: &[Source<'_>]) -> Result<Sealing<'s>> {
        let lane = Some(Lane { journal, sender, terms: *terms });
        match journal.find(sender, terms) {
            Found::Nothing => Ok(Sealing::new(self, lane, begin()?)),
            Found::Other(other) => {
                for pack in &other.packs {
                    let _ = self.client.delete(&self.remote.object(&pack.object.file_name(Role::Pack)));
                }
                journal.forget();
                Ok(Sealing::new(self, lane, begin()?))
            }
            Found::Same(mut progress) => {
                let plan = plan(sources.iter().map(|source| source.size), self.options.pack_bytes);
                // The padded last pack is journalled too, so the plan and the journal count alike.
                let mut kept = 0;
                for (pack, files) in progress.packs.iter().zip(&plan) {
                    let name = self.remote.object(&pack.object.file_name(Role::Pack));
                    let there = match self.client.head(&name, self.control) {
                        Ok(found) => found.size == pack.object.size && found.version == pack.version,
                        Err(error) if error.kind() == Kind::ObjectNotFound => false,
                        Err(error) => return Err(error),
                    };
                    if !there || pack.digests.len() != *files {
                        break;
                    }
                    kept += 1;
                }
                for pack in progress.packs.drain(kept..) {
                    let _ = self.client.delete(&self.remote.object(&pack.object.file_name(Role::Pack)));
                }
                Ok(Sealing::new(self, lane, progress))
            }
        }
    }
}

/// The recipients as the header lists them: each once, sorted by digest.
pub(super) fn recipients(keys: &KeyStore, ids: &[&str]) -> Result<Vec<PublicPair>> {
    let mut recipients = ids.iter().map(|id| keys.recipient(id)).collect::<Result<Vec<PublicPair>>>()?;
    recipients.sort_by_key(PublicPair::agree_digest);
    recipients.dedup_by_key(|keys| keys.agree_digest());
    if recipients.is_empty() || recipients.len() > MAX_RECIPIENTS {
        return Err(Error::new(Kind::InvalidArgument, "1 to 64 recipients are expected").at(Stage::Package));
    }
    Ok(recipients)
}

/// The package key wrapped for one recipient.
pub(super) fn wrap_for(recipient: &PublicPair, key: &Secret<[u8; 32]>, package: &Name, sender: &[u8; 32]) -> Result<Recipient> {
    let digest = recipient.agree_digest();
    let info = derive::wrapping_info(package, sender, &digest);
    let (encapsulated, wrapped) = wrap::wrap(key.expose(), recipient, &info)?;
    Ok(Recipient { wrapped, encapsulated, digest })
}

/// The header object, signed.
pub(super) fn sign(header: &Header, signer: &dyn PrivateKeys, limits: &Limits) -> Result<Vec<u8>> {
    let message = header.message()?;
    let bytes = header::write(&message, &signer.sign(message.as_bytes())?);
    let limit = limits.header_bytes.min(header::MAX_BYTES);
    if bytes.len() as u64 > limit {
        return Err(over_limit("header_bytes", limit));
    }
    Ok(bytes)
}

/// Uploads a header under a condition: never over another one, or only over the one that was read.
pub(super) fn publish(client: &Client, name: &str, bytes: &[u8], replace: Replace) -> Result<()> {
    let upload = || {
        let mut upload = client.upload(name, replace)?;
        upload.write(bytes.to_vec())?;
        upload.finish()
    };
    let Err(error) = upload() else { return Ok(()) };
    // An answer may get lost after the store has published the header: what is there decides, because deleting the packs of a
    // published header would leave a broken package behind.
    match client.read_small(name, header::MAX_BYTES, &Control::new()) {
        Ok(there) if there == bytes => Ok(()),
        _ => Err(error),
    }
}

/// A new package: its id and key, nothing sealed.
fn begin() -> Result<Progress> {
    let mut key = Secret::new([0u8; 32]);
    derive::fill_random(key.expose_mut())?;
    Ok(Progress { package: derive::fresh_name()?, key, packs: Vec::new() })
}

/// What keeps the journal.
struct Lane<'a> {
    journal: &'a Journal,
    sender: &'a Sender<'a>,
    terms: Hash,
}

/// One package on its way to the store. Dropped before its header is published, it deletes what it uploaded since the last pack.
struct Sealing<'a> {
    job: &'a Job<'a>,
    journal: Option<Lane<'a>>,
    progress: Progress,
    /// Objects that are neither part of a published package nor kept for resuming.
    loose: Vec<String>,
}

impl Drop for Sealing<'_> {
    fn drop(&mut self) {
        for name in &self.loose {
            let _ = self.job.client.delete(name);
        }
    }
}

impl<'a> Sealing<'a> {
    fn new(job: &'a Job<'a>, journal: Option<Lane<'a>>, progress: Progress) -> Sealing<'a> {
        Sealing { job, journal, progress, loose: Vec::new() }
    }

    /// Packs, manifest, header.
    fn finish(
        &mut self,
        sources: &[Source<'_>],
        parties: &Parties<'_>,
        recipients: &[PublicPair],
        sender: &Sender<'_>,
        header_name: &str,
    ) -> Result<PackageFacts> {
        let limits = &self.job.options.limits;
        let manifest = self.packs(sources)?;
        let plain = manifest.write()?;
        let (manifest_ref, _, _, ()) = self.object(Role::Manifest, plain.len() as u64, |writer| writer.write(&plain))?;
        let sender_digest = sender.public.sign_digest();
        let (key, package) = (&self.progress.key, self.progress.package);
        let wrapped = recipients.iter().map(|recipient| wrap_for(recipient, key, &package, &sender_digest)).collect::<Result<_>>()?;
        let header = Header {
            created: header::now()?,
            manifest: manifest_ref,
            packs: self.progress.packs.iter().map(|pack| pack.object.clone()).collect(),
            package,
            purpose: parties.purpose.to_owned(),
            recipients: wrapped,
            sender: sender_digest,
        };
        let bytes = sign(&header, sender.private, limits)?;
        // The signature speaks for one state of the study, not for files of different hours.
        sources.iter().enumerate().try_for_each(|(number, source)| source.check(number))?;
        self.job.control.check()?;
        publish(self.job.client, header_name, &bytes, Replace::Never).map_err(|error| match error.kind() {
            Kind::ObjectExists => Error::new(Kind::PackageExists, "a header was written meanwhile"),
            _ => error,
        })?;
        // From here on the package is complete and what was uploaded is part of it.
        self.loose.clear();
        if let Some(lane) = self.journal.take() {
            lane.journal.forget();
        }
        Ok(PackageFacts::of(header, parties.sender_id, &manifest, &bytes))
    }

    /// After a failure: what may be resumed stays, anything else goes.
    fn give_up(&mut self, resumable: bool) {
        if resumable {
            return;
        }
        let packs = self.progress.packs.iter().map(|pack| self.job.remote.object(&pack.object.file_name(Role::Pack)));
        self.loose.extend(packs);
        if let Some(lane) = &self.journal {
            lane.journal.forget();
        }
    }

    /// Seals all files into packs, behind those that are there already; the last is padded.
    fn packs(&mut self, sources: &[Source<'_>]) -> Result<Manifest> {
        let total: u64 = sources.iter().map(|source| source.size).sum();
        let plan = plan(sources.iter().map(|source| source.size), self.job.options.pack_bytes);
        let mut files = Vec::with_capacity(sources.len());
        let (mut number, mut sealed) = (0, 0);
        for (pack, count) in plan.iter().enumerate() {
            let members = sources.get(number..number + count).unwrap_or_default();
            let used: u64 = members.iter().map(|source| source.size).sum();
            let length = if pack + 1 == plan.len() { pad::padme(used) } else { used };
            if self.progress.packs.len() <= pack {
                let control = self.job.control;
                let progress = |done: u64| control.progress("seal", (sealed + done) as f64 / total.max(1) as f64);
                self.pack(members, number, length, &progress)?;
            }
            let digests = self.progress.packs.get(pack).map(|pack| pack.digests.as_slice()).unwrap_or_default();
            let mut offset = 0;
            for (source, sha256) in members.iter().zip(digests) {
                files.push(FileEntry { pack, offset, size: source.size, sha256: *sha256, path: Zeroizing::new(source.name.clone()) });
                offset += source.size;
            }
            number += count;
            sealed += used;
        }
        let leaves = self.progress.packs.iter().map(|pack| pack.leaves.clone()).collect();
        Ok(Manifest { leaves, files })
    }

    /// Seals one pack and enters it in the journal.
    fn pack(&mut self, members: &[Source<'_>], first: usize, length: u64, progress: &dyn Fn(u64)) -> Result<()> {
        let control = self.job.control;
        let fill = |writer: &mut Writer| {
            let (mut digests, mut offset) = (Vec::with_capacity(members.len()), 0);
            for (position, source) in members.iter().enumerate() {
                digests.push(stream(source, first + position, writer, control)?);
                offset += source.size;
                progress(offset);
            }
            writer.zeros(length - offset)?;
            Ok(digests)
        };
        let (object, version, leaves, digests) = self.object(Role::Pack, length, fill)?;
        self.progress.packs.push(FinishedPack { object, version, leaves, digests });
        if let Some(lane) = &self.journal {
            lane.journal.keep(&self.progress, lane.sender, &lane.terms)?;
            self.loose.clear();
        }
        Ok(())
    }

    /// Seals and uploads one object of a known plaintext length: how the header lists it, its version in the store, its leaves, and what
    /// `fill` returned.
    fn object<T>(
        &mut self,
        role: Role,
        length: u64,
        fill: impl FnOnce(&mut Writer) -> Result<T>,
    ) -> Result<(ObjectRef, String, Vec<Hash>, T)> {
        let (name, package) = (derive::fresh_name()?, &self.progress.package);
        let key = derive::object_key(self.progress.key.expose(), package, &name)?;
        let (chunks, prefix) = Chunks::begin(key.expose(), &derive::context(role, package, &name))?;
        let mut object = ObjectRef { root: Hash::default(), name, size: chunked::sealed_len(length) };
        let remote = self.job.remote.object(&object.file_name(role));
        let mut upload = self.job.client.upload(&remote, Replace::Never)?.watched_by(self.job.control).of_size(object.size);
        // Entered before it is finished: the answer to `finish` may get lost after the object was published.
        self.loose.push(remote);
        let control = self.job.control;
        let mut send = |bytes| {
            control.check()?;
            upload.write(bytes)
        };
        let (value, written) = seal_stream(chunks, prefix, fill, &mut send)?;
        let finished = upload.finish()?;
        if written.size != object.size || finished.size != object.size {
            let detail = format!("an object of {} bytes arrived as {}", object.size, finished.size);
            return Err(Error::new(Kind::TransferInterrupted, detail).at(Stage::Package));
        }
        object.root = tree::root(&written.leaves);
        Ok((object, finished.version, written.leaves, value))
    }
}

/// How many files go into each pack, in order, so that none passes the limit. There is always a first pack. A file beyond `pack_bytes` has
/// a pack of its own.
fn plan(sizes: impl Iterator<Item = u64>, pack_bytes: u64) -> Vec<usize> {
    let limit = pack_bytes.min(MAX_PACK);
    let (mut packs, mut count, mut used) = (Vec::new(), 0, 0);
    for size in sizes {
        if count > 0 && used + size > limit {
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
fn stream(source: &Source<'_>, number: usize, writer: &mut Writer, control: &Control) -> Result<Hash> {
    let mut reader = source.open(number)?;
    let mut digest = Sha256::new();
    let mut buffer = Zeroizing::new(vec![0u8; READ.min(usize::try_from(source.size).unwrap_or(READ)).max(1)]);
    let mut left = source.size;
    loop {
        control.check()?;
        let got = match reader.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(source::unreadable(&error)),
            Ok(0) => break,
            Ok(got) => got,
        };
        let bytes = buffer.get(..got).unwrap_or_default();
        // More bytes than the listing showed would push all later files out of place.
        left = left.checked_sub(bytes.len() as u64).ok_or_else(|| source::changed(number))?;
        digest.update(bytes);
        writer.write(bytes)?;
    }
    if left != 0 {
        return Err(source::changed(number));
    }
    source.check(number)?;
    Ok(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_packed_in_order_up_to_the_limit() {
        let check = |sizes: &[u64], expected: &[usize]| assert_eq!(plan(sizes.iter().copied(), 10), expected, "{sizes:?}");
        check(&[4, 6, 1], &[2, 1]);
        check(&[10, 10, 0, 10], &[1, 2, 1]);
        check(&[0, 0], &[2]);
        check(&[3, 3, 3, 3, 9], &[3, 1, 1]);
        check(&[1, 40, 1], &[1, 1, 1]);
        // 1 GiB and no byte more (the format's limit of a pack).
        assert_eq!(plan([MAX_PACK - 1, 1, 1].into_iter(), u64::MAX), [2, 1]);
    }
}
