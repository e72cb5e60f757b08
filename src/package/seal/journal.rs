//! What a sealing that was cut off leaves behind on the sender's machine, so that the next one goes on where it stopped.
//!
//! A pack that reached the store whole is entered here; a pack that did not is sealed again under a new name, so no key stream is ever
//! used twice. The journal holds the package key, wrapped for the sender itself, and under a key derived from it the digests of the files that
//! are done. The sender's signature covers all of it: whoever can write the folder can make a sealing start anew, but cannot make it sign
//! packs that it did not seal.
//!
//! ```text
//! smp-seal-journal/v1
//! {"ct":b64,"enc":b64,"pkg":hex,"sender":hex}     package key by HPKE, as in a header, for the sender's own key to agree with
//! b64                                             chunked encryption of the JSON below
//! b64                                             ECDSA signature over the three lines above
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::super::chunked::{self, Chunks};
use super::super::derive::{self, Name};
use super::super::header::{ObjectRef, fixed_base64, fixed_hex};
use super::super::tree::Hash;
use super::super::wrap;
use crate::error::{Error, Kind, Result};
use crate::keys::{PrivateKeys, PublicPair, hex};
use crate::secret::Secret;

const FORMAT: &str = "smp-seal-journal/v1";
/// Largest journal that is looked at: that of a study at the limits of files and bytes has about 10 MiB.
const MAX_BYTES: u64 = 64 << 20;

/// A sealing under way: its package and the packs that are in the store.
pub(super) struct Progress {
    pub(super) package: Name,
    pub(super) key: Secret<[u8; 32]>,
    pub(super) packs: Vec<FinishedPack>,
}

/// A pack that the store holds.
pub(super) struct FinishedPack {
    pub(super) object: ObjectRef,
    /// Version that the store told.
    pub(super) version: String,
    pub(super) leaves: Vec<Hash>,
    /// SHA-256 of its files, in order.
    pub(super) digests: Vec<Hash>,
}

/// What a journal says of the sealing that is about to begin.
pub(super) enum Found {
    /// Nothing usable.
    Nothing,
    /// The same sealing was begun before.
    Same(Progress),
    /// Another sealing for this place, of other files or for other recipients, was begun before.
    Other(Progress),
}

/// The sender's keys, both halves.
pub(super) struct Sender<'a> {
    pub(super) public: &'a PublicPair,
    pub(super) private: &'a dyn PrivateKeys,
}

/// The journal of one place in one store, held by one sealing at a time.
pub(super) struct Journal {
    path: PathBuf,
    lock_path: PathBuf,
    /// Dropping the file releases the lock.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonHead {
    ct: String,
    enc: String,
    pkg: String,
    sender: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonBody {
    packs: Vec<JsonPack>,
    terms: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonPack {
    digests: Vec<String>,
    leaves: Vec<String>,
    mth: String,
    name: String,
    size: u64,
    version: String,
}

impl Journal {
    /// Opens the journal of a place (store and path in it). `None` while another sealing for the same place holds it.
    pub(super) fn open(folder: &Path, place: &str) -> Result<Option<Journal>> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|_| unwritable("its folder cannot be made"))?;
        // Named by a digest: paths in a store may hold a patient's name.
        let name = hex(Sha256::digest(place.as_bytes()).get(..16).unwrap_or_default());
        let lock_path = folder.join(format!("{name}.lock"));
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&lock_path);
        let lock = lock.map_err(|_| unwritable("its lock cannot be made"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Journal { path: folder.join(format!("{name}.journal")), lock_path, _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(_)) => Err(unwritable("its lock cannot be taken")),
        }
    }

    /// What was begun here before, if this sender began it. Anything that is not exactly what [`Journal::keep`] wrote counts for nothing.
    pub(super) fn find(&self, sender: &Sender<'_>, terms: &Hash) -> Found {
        let Some((progress, found)) = self.read().and_then(|bytes| parse(&bytes, sender)) else { return Found::Nothing };
        if found == *terms { Found::Same(progress) } else { Found::Other(progress) }
    }

    /// Writes the state of a sealing, in place of an older one, so that it survives a crash.
    pub(super) fn keep(&self, progress: &Progress, sender: &Sender<'_>, terms: &Hash) -> Result<()> {
        let text = write(progress, sender, terms)?;
        let unfinished = self.path.with_extension("new");
        let _ = fs::remove_file(&unfinished);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&unfinished);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.and_then(|()| fs::rename(&unfinished, &self.path)).map_err(|_| unwritable("it cannot be written"))
    }

    /// Removes the journal: the package is complete, or will not be.
    pub(super) fn forget(&self) {
        // What stays when this fails is encrypted, and useless once the header is there.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }

    fn read(&self) -> Option<Vec<u8>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&self.path).ok()?;
        let about = file.metadata().ok().filter(|about| about.is_file() && about.len() <= MAX_BYTES)?;
        let mut bytes = Vec::with_capacity(usize::try_from(about.len()).ok()?);
        file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// HPKE `info` of a journal's wrapped key. Another first word than a header's: neither opens in place of the other.
fn wrapping_info(package: &Name, sender: &PublicPair) -> Vec<u8> {
    [b"smp-seal-journal/v1 pk\0".as_slice(), package, &sender.sign_digest(), &sender.agree_digest()].concat()
}

fn context(package: &Name) -> Vec<u8> {
    [b"smp-seal-journal/v1\0".as_slice(), package].concat()
}

/// The body has a key of its own, derived like an object's, under a name that is no object's: all zeros.
fn body_key(key: &Secret<[u8; 32]>, package: &Name) -> Result<Secret<[u8; 32]>> {
    derive::object_key(key.expose(), package, &Name::default())
}

fn write(progress: &Progress, sender: &Sender<'_>, terms: &Hash) -> Result<String> {
    let defect = || Error::new(Kind::Internal, "the journal could not be written").at(crate::error::Stage::Package);
    let (encapsulated, wrapped) = wrap::wrap(progress.key.expose(), sender.public, &wrapping_info(&progress.package, sender.public))?;
    let head = JsonHead {
        ct: STANDARD.encode(wrapped),
        enc: STANDARD.encode(encapsulated),
        pkg: hex(&progress.package),
        sender: hex(&sender.public.sign_digest()),
    };
    let pack = |pack: &FinishedPack| JsonPack {
        digests: pack.digests.iter().map(|digest| hex(digest)).collect(),
        leaves: pack.leaves.iter().map(|leaf| STANDARD.encode(leaf)).collect(),
        mth: STANDARD.encode(pack.object.root),
        name: hex(&pack.object.name),
        size: pack.object.size,
        version: pack.version.clone(),
    };
    let body = JsonBody { packs: progress.packs.iter().map(pack).collect(), terms: hex(terms) };
    let plain = Zeroizing::new(serde_json::to_vec(&body).map_err(|_| defect())?);
    let (chunks, prefix) = Chunks::begin(body_key(&progress.key, &progress.package)?.expose(), &context(&progress.package))?;
    let mut sealed = vec![0u8; chunked::run_len(plain.len(), true).ok_or_else(defect)?];
    chunks.seal_run(0, &plain, true, &mut sealed)?;
    let head = serde_json::to_string(&head).map_err(|_| defect())?;
    let message = format!("{FORMAT}\n{head}\n{}\n", STANDARD.encode([prefix.as_slice(), &sealed].concat()));
    let signature = sender.private.sign(message.as_bytes())?;
    Ok(format!("{message}{}\n", STANDARD.encode(signature)))
}

fn parse(bytes: &[u8], sender: &Sender<'_>) -> Option<(Progress, Hash)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (message, signature) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let message = text.get(..message.len() + 1)?;
    // Nothing of the journal is looked at before this holds.
    if !sender.public.verifies(message.as_bytes(), &STANDARD.decode(signature).ok()?) {
        return None;
    }
    let mut lines = message.lines();
    let (format, head, body, None) = (lines.next()?, lines.next()?, lines.next()?, lines.next()) else { return None };
    if format != FORMAT {
        return None;
    }
    let head: JsonHead = serde_json::from_str(head).ok()?;
    let package: Name = fixed_hex(&head.pkg).ok()?;
    let (encapsulated, wrapped) =
        (fixed_base64::<{ wrap::ENCAPSULATED }>(&head.enc).ok()?, fixed_base64::<{ wrap::WRAPPED }>(&head.ct).ok()?);
    let key = wrap::unwrap(sender.private, sender.public, &encapsulated, &wrapped, &wrapping_info(&package, sender.public)).ok()?;
    let sealed = STANDARD.decode(body).ok()?;
    let plain = chunked::open_message(body_key(&key, &package).ok()?.expose(), &context(&package), &sealed).ok()?;
    let body: JsonBody = serde_json::from_slice(&plain).ok()?;
    let packs = body.packs.into_iter().map(pack).collect::<Option<Vec<FinishedPack>>>()?;
    Some((Progress { package, key, packs }, fixed_hex(&body.terms).ok()?))
}

fn pack(json: JsonPack) -> Option<FinishedPack> {
    let object = ObjectRef { root: fixed_base64(&json.mth).ok()?, name: fixed_hex(&json.name).ok()?, size: json.size };
    let leaves = json.leaves.iter().map(|leaf| fixed_base64(leaf)).collect::<Result<_>>().ok()?;
    let digests = json.digests.iter().map(|digest| fixed_hex(digest)).collect::<Result<_>>().ok()?;
    Some(FinishedPack { object, version: json.version, leaves, digests })
}

fn unwritable(detail: &'static str) -> Error {
    Error::new(Kind::SpoolUnwritable, format!("the journal of a sealing: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::world::{World, key_store};
    use super::*;

    fn progress() -> Progress {
        let pack = |byte: u8| FinishedPack {
            object: ObjectRef { root: [byte; 32], name: [byte; 16], size: 72 },
            version: "\"etag\"".to_owned(),
            leaves: vec![[byte; 32]],
            digests: vec![[byte; 32], [byte + 1; 32]],
        };
        Progress { package: [9; 16], key: Secret::new([7; 32]), packs: vec![pack(1), pack(3)] }
    }

    #[test]
    fn only_its_own_writer_reads_a_journal_and_only_as_it_was_written() {
        let world = World::new();
        let keys = world.hospital.signer(&world.hospital_id).unwrap();
        let sender = Sender { public: &keys.0, private: &*keys.1 };
        let text = write(&progress(), &sender, &[5; 32]).unwrap();
        let (read, terms) = parse(text.as_bytes(), &sender).unwrap();
        assert!(read.package == [9; 16] && *read.key.expose() == [7; 32] && terms == [5; 32]);
        assert!(read.packs[1].digests == [[3; 32], [4; 32]] && read.packs[1].version == "\"etag\"" && read.packs[1].object.size == 72);
        assert!(!text.contains("etag"), "the body is encrypted");
        for position in 0..text.len() {
            let mut edited = text.clone().into_bytes();
            edited[position] ^= 1;
            assert!(parse(&edited, &sender).is_none(), "byte {position}");
        }
        for length in [0, 1, text.len() / 2, text.len() - 1] {
            assert!(parse(&text.as_bytes()[..length], &sender).is_none());
        }
        // Somebody else's journal, however genuine, starts nothing.
        let other = key_store(world.place.path().join("other"));
        let other_keys = other.signer(&other.generate("x").unwrap()).unwrap();
        let stranger = Sender { public: &other_keys.0, private: &*other_keys.1 };
        assert!(parse(write(&progress(), &stranger, &[5; 32]).unwrap().as_bytes(), &sender).is_none());
    }

    #[test]
    fn a_journal_is_private_and_held_by_one() {
        use std::os::unix::fs::PermissionsExt;
        let world = World::new();
        let keys = world.hospital.signer(&world.hospital_id).unwrap();
        let sender = Sender { public: &keys.0, private: &*keys.1 };
        let folder = world.place.path().join("journals");
        let journal = Journal::open(&folder, "memory\0Doe^Jane").unwrap().unwrap();
        assert!(matches!(journal.find(&sender, &[5; 32]), Found::Nothing));
        assert!(Journal::open(&folder, "memory\0Doe^Jane").unwrap().is_none());
        assert!(Journal::open(&folder, "memory\0other").unwrap().is_some());
        journal.keep(&progress(), &sender, &[5; 32]).unwrap();
        journal.keep(&progress(), &sender, &[5; 32]).unwrap();
        assert!(matches!(journal.find(&sender, &[5; 32]), Found::Same(_)));
        assert!(matches!(journal.find(&sender, &[6; 32]), Found::Other(_)));
        assert_eq!(fs::metadata(&journal.path).unwrap().permissions().mode() & 0o777, 0o600);
        journal.forget();
        assert!(matches!(journal.find(&sender, &[5; 32]), Found::Nothing));
        assert!(fs::read_dir(&folder).unwrap().all(|item| !item.unwrap().file_name().to_str().unwrap().contains("Doe")));
    }
}
