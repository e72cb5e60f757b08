//! Import: a study that a hospital encrypted with nothing but OpenSSL, opened like a package.
//!
//! A folder with no `header.smp` but exactly one `*.cms` object, `SHA256SUMS` and `SHA256SUMS.sig` is such a study; docs/cms-import.md has the
//! commands and what is accepted. Layers: `ber` reads tags and lengths, `envelope` the recipients and the layout, `content` finds the encrypted
//! bytes as they stream by, `agree` unwraps the content key, `gcm` authenticates and decrypts, `sums` knows the sender, `archive` takes the files out.
//!
//! The object is gone through twice, in constant memory, because its one tag stands at its end and no byte may be used before it agreed:
//! 1. [`Import::open`] fetches everything and computes three things at once: SHA-256 of the object, a SHA-256 leaf per range, and the tag. First the
//!    digest must be the signed one, then the tag must agree.
//! 2. [`Import::read`] fetches again (from the spool, or the same version from the store), compares every range with its leaf from the first pass, so
//!    that nothing can be exchanged between the passes, and decrypts.
//!
//! **One error for every cryptographic failure.** That no identity unwraps the content key, that a wrapped key was altered and that the tag does
//! not agree are all `NotARecipient`, told at the same moment, after the same work, and only for an object whose digest a confirmed sender
//! signed. Who only controls the store gets `IntegrityFailed` from the digest, whatever was changed, or an error of the parser, which
//! depends on public bytes alone. The price: whether a study is for us is known after the first pass, not before it.

mod agree;
mod archive;
mod ber;
mod content;
mod envelope;
mod gcm;
mod sums;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use self::archive::Unpacker;
use self::content::Walker;
use self::envelope::{Envelope, Layout};
use self::gcm::{Keystream, Mac};
use super::tree::Hash;
use super::{Folder, Limits, PackageFacts, digests_differ, over_limit};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::{KeyStore, hex};
use crate::secret::Secret;
use crate::transfer::{Client, FetchPlan, ObjectInfo};

pub(super) use self::archive::Files;

/// What the facts call this form.
pub(super) const FORMAT: &str = "cms";
/// Ending of an encrypted object's name.
const ENDING: &str = ".cms";
/// Name of the encrypted object in docs/cms-import.md.
const USUAL: &str = "study.cms";
/// Bytes of a range. `transfer.parallel` + 2 of them are in memory, so they are smaller than a sealed package's.
const RANGE: u64 = 1 << 20;

/// A study in CMS that was authenticated whole, ready to be decrypted.
pub(super) struct Import {
    client: Client,
    facts: PackageFacts,
    object: ObjectInfo,
    digest: Hash,
    /// SHA-256 of each range, from the first pass.
    leaves: Vec<Hash>,
    layout: Layout,
    nonce: [u8; 12],
    key: Secret<[u8; 32]>,
    /// Bytes of plaintext.
    content: u64,
    limits: Limits,
}

/// What a folder that cannot be listed holds of a study in CMS, if the encrypted object has the name of docs/cms-import.md.
pub(super) fn look(client: &Client, folder: &Folder, control: &Control) -> Result<Vec<ObjectInfo>> {
    let mut found = Vec::new();
    for name in [USUAL, sums::LIST, sums::SIGNATURE] {
        match client.head(&folder.object(name), control) {
            Ok(object) => found.push(object),
            Err(error) if error.kind() == Kind::ObjectNotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The one encrypted object among what a folder holds. `None`: there is none, so this is nothing of ours.
pub(super) fn find<'a>(folder: &Folder, objects: &'a [ObjectInfo]) -> Result<Option<&'a ObjectInfo>> {
    let is_encrypted = |object: &&ObjectInfo| {
        // In the folder itself, not in one below it.
        object.name.ends_with(ENDING) && object.name.rsplit('/').next().is_some_and(|name| folder.object(name) == object.name)
    };
    let encrypted: Vec<&ObjectInfo> = objects.iter().filter(is_encrypted).collect();
    let object = match encrypted.as_slice() {
        [] => return Ok(None),
        [only] => *only,
        several => {
            let error = Error::new(Kind::PackageMalformed, format!("{} objects that end in .cms", several.len()));
            return Err(error.with_hint("give each study a folder of its own"));
        }
    };
    for (name, command) in [
        (sums::LIST, "sha256sum study.cms > SHA256SUMS"),
        (sums::SIGNATURE, "openssl dgst -sha384 -sign hospital.key -out SHA256SUMS.sig SHA256SUMS"),
    ] {
        if !objects.iter().any(|object| object.name == folder.object(name)) {
            // Without the signed list anybody who can write the store could have put the object there.
            let error = Error::new(Kind::PackageIncomplete, format!("{name}, so the sender is not known"));
            return Err(error.with_hint(format!("the hospital makes it with: {command}")));
        }
    }
    match objects.len() {
        3 => Ok(Some(object)),
        // An unsealed file beside a sealed one is a mistake of the sender that must not be passed over.
        more => Err(Error::new(Kind::NotSealed, format!("{} objects beside the .cms object and its signed list", more - 3))),
    }
}

impl Import {
    /// Proves the whole object genuine: sender, digest, recipient, tag. Fetches all of it once.
    pub(super) fn open(
        client: &Client,
        folder: &Folder,
        object: &ObjectInfo,
        keys: &KeyStore,
        trusted: &[String],
        limits: &Limits,
        control: &Control,
    ) -> Result<Import> {
        let list = client.read_small(&folder.object(sums::LIST), sums::MAX_LIST, control)?;
        let signature = client.read_small(&folder.object(sums::SIGNATURE), sums::MAX_SIGNATURE, control)?;
        let signer = sums::signer(&list, &signature, keys, trusted)?;
        let digest = sums::digest_of(&list, object.name.rsplit('/').next().unwrap_or_default())?;
        // tar adds less than 1,536 bytes to a file and OpenSSL four to 4,096.
        if object.size > limits.study_bytes.saturating_add(limits.study_bytes / 8).saturating_add(1 << 20) {
            return Err(over_limit("study_bytes", limits.study_bytes));
        }
        let proved = FirstPass { client, object, digest: &digest, limits }.run(keys, control)?;
        let facts = PackageFacts {
            id: hex(digest.get(..16).unwrap_or_default()),
            sender: hex(&signer.digest),
            sender_id: signer.id,
            // Nothing in CMS says when it was made; the store's own time would be anybody's.
            created: String::new(),
            purpose: String::new(),
            files: 0,
            bytes: 0,
            header_sha256: sums::digest(&list),
            format: FORMAT,
        };
        let Proved { envelope: Envelope { layout, nonce, .. }, key, leaves, content } = proved;
        let (client, object, limits) = (client.clone(), object.clone(), limits.clone());
        Ok(Import { client, facts, object, digest, leaves, layout, nonce, key, content, limits })
    }

    /// Facts, without files and bytes: those are known after reading.
    pub(super) fn facts(&self) -> &PackageFacts {
        &self.facts
    }

    /// The encrypted object for a report: digest, size, number of ranges. Its name is the hospital's choice and may name a patient.
    pub(super) fn object(&self) -> (String, u64, u64) {
        (hex(&self.digest), self.object.size, self.leaves.len() as u64)
    }

    /// Decrypts and hands the files on as they come. What was handed on counts only once this returns the facts, now with files and bytes.
    pub(super) fn read(&self, control: &Control, files: &mut dyn Files) -> Result<PackageFacts> {
        let ranges = ranges(self.object.size);
        let check = |index: usize, bytes: &[u8]| {
            let expected = self.leaves.get(index).ok_or_else(|| defect("a range has no leaf"))?;
            let found: Hash = Sha256::digest(bytes).into();
            if found == *expected { Ok(()) } else { Err(digests_differ(&format!("cms range {index}"), expected, &found)) }
        };
        let mut walker = Walker::new(&self.layout);
        let mut stream = Keystream::new(self.key.expose(), &self.nonce);
        let mut unpacker = Unpacker::new(self.content, &self.limits);
        let mut decrypt = |index: usize, bytes: Vec<u8>| {
            control.check()?;
            let mut bytes = Zeroizing::new(bytes);
            // The parts of the content move together, so that each range is decrypted and handed on in one piece.
            let (mut at, mut filled) = (0, 0);
            while let Some(found) = walker.next(&bytes, &mut at)? {
                let length = found.len();
                bytes.copy_within(found, filled);
                filled += length;
            }
            let content = bytes.get_mut(..filled).unwrap_or_default();
            if !stream.apply(content) {
                return Err(defect("the content is longer than its tag allowed"));
            }
            unpacker.feed(content, files)?;
            control.progress("fetch", 0.5 + 0.5 * (index + 1) as f64 / ranges.len() as f64);
            Ok(())
        };
        self.client.fetch(&plan(&self.object, &ranges, &hex(&self.digest)), &check, &mut decrypt, control)?;
        control.object_transferred();
        walker.finish()?;
        let (files, bytes) = unpacker.finish()?;
        Ok(PackageFacts { files, bytes, ..self.facts.clone() })
    }
}

/// What the first pass needs.
struct FirstPass<'a> {
    client: &'a Client,
    object: &'a ObjectInfo,
    /// The signed digest.
    digest: &'a Hash,
    limits: &'a Limits,
}

/// What it proved.
struct Proved {
    envelope: Envelope,
    key: Secret<[u8; 32]>,
    leaves: Vec<Hash>,
    content: u64,
}

impl FirstPass<'_> {
    fn run(&self, keys: &KeyStore, control: &Control) -> Result<Proved> {
        let ranges = ranges(self.object.size);
        let Some(first) = ranges.first() else { return Err(malformed("the object is empty")) };
        // The envelope first, and the key from it; the ranges then all go the same way.
        let mut beginning = Vec::new();
        let head = 0..first.end.min(envelope::MAX_ENVELOPE as u64);
        let head =
            FetchPlan { name: &self.object.name, version: &self.object.version, ranges: std::slice::from_ref(&head), spool_key: None };
        let mut keep = |_: usize, bytes: Vec<u8>| {
            beginning = bytes;
            Ok(())
        };
        self.client.fetch(&head, &|_, _| Ok(()), &mut keep, control)?;
        let envelope = Envelope::parse(&beginning, self.object.size, self.limits.allow_sha1_kdf)?;
        let agree::Found { key, unavailable } = agree::content_key(&envelope.recipients, keys)?;

        let leaves = Mutex::new(vec![Hash::default(); ranges.len()]);
        let note = |index: usize, bytes: &[u8]| {
            let leaf = Sha256::digest(bytes).into();
            let mut leaves = leaves.lock().unwrap_or_else(PoisonError::into_inner);
            *leaves.get_mut(index).ok_or_else(|| defect("a range was not asked for"))? = leaf;
            Ok(())
        };
        let (mut whole, mut mac, mut walker) = (Sha256::new(), Mac::new(key.expose(), &envelope.nonce), Walker::new(&envelope.layout));
        let mut authenticate = |index: usize, bytes: Vec<u8>| {
            control.check()?;
            if index == 0 && !bytes.starts_with(&beginning) {
                // The key came out of other bytes than those that are authenticated now.
                return Err(Error::new(Kind::IntegrityFailed, "cms range 0: other bytes than a moment ago"));
            }
            let walk = || {
                let mut at = 0;
                while let Some(found) = walker.next(&bytes, &mut at)? {
                    mac.update(bytes.get(found).unwrap_or_default());
                }
                Ok(())
            };
            // Hashing is the price of this pass; it and the tag are computed side by side.
            let ((), walked) = rayon::join(|| whole.update(&bytes), walk);
            control.progress("fetch", 0.5 * (index + 1) as f64 / ranges.len() as f64);
            walked
        };
        // Both passes count: what is not in the spool after the first comes over the line again.
        control.begin_transfer(self.object.size.saturating_mul(2), 1);
        self.client.fetch(&plan(self.object, &ranges, &hex(self.digest)), &note, &mut authenticate, control)?;
        let (content, tag) = walker.finish()?;
        let found: Hash = whole.finalize().into();
        if found != *self.digest {
            return Err(digests_differ("cms object", self.digest, &found));
        }
        if !mac.verified(&tag) {
            let nobody = || {
                Error::new(Kind::NotARecipient, "cms: no identity of this store opens the object").with_hint(
                    "it is for another key, or was not made as docs/cms-import.md says; send the hospital your certificate again",
                )
            };
            return Err(unavailable.unwrap_or_else(nobody));
        }
        Ok(Proved { envelope, key, leaves: leaves.into_inner().unwrap_or_else(PoisonError::into_inner), content })
    }
}

/// How an object is fetched, in both passes. The spool's file name is made of the digest of the ciphertext, which only those who read the store know.
fn plan<'a>(object: &'a ObjectInfo, ranges: &'a [Range<u64>], spool_key: &'a str) -> FetchPlan<'a> {
    FetchPlan { name: &object.name, version: &object.version, ranges, spool_key: Some(spool_key) }
}

fn ranges(size: u64) -> Vec<Range<u64>> {
    (0..size.div_ceil(RANGE)).map(|number| number * RANGE..size.min((number + 1) * RANGE)).collect()
}

/// Parses a whole object without any key, for the fuzzer: the envelope, then every part of the content.
#[cfg(any(test, fuzzing))]
pub fn parse_envelope(bytes: &[u8]) -> Result<()> {
    let envelope = Envelope::parse(bytes, bytes.len() as u64, true)?;
    let mut walker = Walker::new(&envelope.layout);
    for piece in bytes.chunks(1000) {
        let mut at = 0;
        while walker.next(piece, &mut at)?.is_some() {}
    }
    walker.finish().map(|_| ())
}

/// Takes an archive apart, for the fuzzer: in pieces, as decryption hands them on.
#[cfg(any(test, fuzzing))]
pub fn parse_archive(bytes: &[u8]) -> Result<()> {
    let limits = Limits::default();
    let mut unpacker = Unpacker::new(bytes.len() as u64, &limits);
    bytes.chunks(700).try_for_each(|piece| unpacker.feed(piece, &mut super::verify::Nowhere))?;
    unpacker.finish().map(|_| ())
}

/// The bytes are not what OpenSSL writes. Static texts only: nothing of the object is repeated.
fn malformed(detail: &'static str) -> Error {
    Error::new(Kind::PackageMalformed, format!("cms: {detail}"))
}

fn defect(detail: &'static str) -> Error {
    Error::new(Kind::Internal, detail).at(Stage::Package)
}
