//! The key store: who this installation is, whom it trusts, and how that is kept.
//!
//! An **identity** is two P-384 key pairs, one to agree on package keys (ECDH) and one to sign (ECDSA), shown to others as one PEM text. A
//! **peer** is somebody else's public half. Both have an id, the first 16 hex digits of their fingerprint, so an id means the same keys in every
//! store. A peer is good for nothing until [`KeyStore::confirm`] was given its whole fingerprint, which two people compare over a channel
//! that the sender of the PEM does not control; there is no trust on first use.
//!
//! The store is a folder with mode 0700:
//! ```text
//! store.json         the master secret, wrapped by the passphrase or the key file
//! <id>.json          one identity or peer: public keys, label, confirmation, wrapped private keys
//! app.<name>.json    one wrapped secret of this installation (audit pseudonyms, de-identification)
//! .lock              taken while the store is changed
//! ```
//! Every JSON file is one line plus an HMAC under a key derived from the master, bound to the file's name. Each change is one rename, so a
//! crash leaves the old state or the new one. What the store cannot notice is an older, genuine state put back by somebody who can write the
//! folder; that can remove trust or bring back trust once given, never invent it.
//!
//! Private keys are decrypted when first used and stay in locked memory until the [`KeyStore`] is dropped.
//! Nothing here writes to the audit log: the caller of `confirm`, `rotate` and `remove` does.
//!
//! ```
//! use smp::keys::{KeyStore, Unlock};
//! # let place = tempfile::tempdir().unwrap();
//! # let folder = place.path().join("keys");
//! let keys = KeyStore::open(&folder, Unlock::KeyFile(folder.join("master.key")))?;
//! let id = keys.generate("hospital-data-transfer")?;
//! let pem = keys.export_public(&id)?; // for the hospital
//! assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"));
//! # Ok::<(), smp::Error>(())
//! ```

mod entry;
mod files;
mod fingerprint;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod identity;
mod private_pem;
mod rest;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use entry::Entry;
pub(crate) use fingerprint::{PublicPair, hex, unhex};
pub(crate) use identity::PrivatePair;
use rest::StoreSecrets;

/// How a key store is unlocked.
pub enum Unlock {
    /// By a passphrase.
    Passphrase(Secret<String>),
    /// By the 32 bytes of a key file, which is made on first use.
    KeyFile(PathBuf),
}

/// A folder of identities and pinned peers. Shared by reference between threads; every method takes `&self`.
pub struct KeyStore {
    directory: PathBuf,
    secrets: StoreSecrets,
    /// Private keys already decrypted, by id.
    unlocked: Mutex<HashMap<String, Arc<PrivatePair>>>,
}

impl KeyStore {
    /// Opens (or makes) a key store.
    ///
    /// With a passphrase this takes some tenths of a second and 128 MiB, by intent. Fails with `WrongPassphrase` when the passphrase or key
    /// file is not the one the store was made with, and with `KeyStoreUnavailable` when folder or files are open to others.
    pub fn open(directory: &Path, unlock: Unlock) -> Result<KeyStore> {
        let secrets = store::open(directory, &unlock)?;
        Ok(KeyStore { directory: directory.to_owned(), secrets, unlocked: Mutex::default() })
    }

    /// Folder of the store.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes an identity; returns its key id. The purpose is for people: 1 to 128 printable characters.
    pub fn generate(&self, purpose: &str) -> Result<String> {
        let _guard = self.lock()?;
        self.add(Entry::identity(purpose, &PrivatePair::generate()?, &self.secrets)?)
    }

    /// Imports a peer's public key(s) (PEM), unconfirmed; returns its key id. Keys already here are `KeyExists`.
    pub fn import(&self, label: &str, pem: &str) -> Result<String> {
        let _guard = self.lock()?;
        self.add(Entry::peer(label, PublicPair::from_pem(pem)?)?)
    }

    /// Public keys of an identity or peer as PEM (SPKI): agree key first, then signing key.
    pub fn export_public(&self, id: &str) -> Result<String> {
        Ok(self.entry(id)?.keys().to_pem())
    }

    /// Private keys of an identity as two encrypted PKCS#8 blocks in PEM, agree key first, for a backup or for OpenSSL.
    ///
    /// Wrapped under a passphrase of its own by PBES2 with PBKDF2-HMAC-SHA-384, 600,000 rounds, and AES-256-CBC.
    pub fn export_private(&self, id: &str, passphrase: &Secret<String>) -> Result<Zeroizing<String>> {
        private_pem::write(&*self.private(id)?, passphrase.expose())
    }

    /// Takes an identity from [`KeyStore::export_private`]'s form; returns its key id.
    pub fn import_private(&self, purpose: &str, pem: &str, passphrase: &Secret<String>) -> Result<String> {
        let private = private_pem::read(pem, passphrase.expose())?;
        let _guard = self.lock()?;
        self.add(Entry::identity(purpose, &private, &self.secrets)?)
    }

    /// Fingerprint for reading over the telephone: sixteen groups of four hex digits.
    pub fn fingerprint(&self, id: &str) -> Result<String> {
        Ok(fingerprint::spoken(&self.entry(id)?.keys().fingerprint()))
    }

    /// Purpose of an identity or label of a peer, as it was given.
    pub fn label(&self, id: &str) -> Result<String> {
        Ok(self.entry(id)?.label().to_owned())
    }

    /// Confirms a peer by its whole fingerprint, with or without spaces and colons, in either case.
    pub fn confirm(&self, id: &str, fingerprint: &str) -> Result<()> {
        let _guard = self.lock()?;
        let mut entry = self.entry(id)?;
        if !fingerprint::is_spoken(&entry.keys().fingerprint(), fingerprint) {
            return Err(Error::new(Kind::FingerprintMismatch, format!("key {id}")));
        }
        entry.confirm()?;
        self.write(&entry)
    }

    /// Whether an entry may be used: an identity of this store, or a peer whose fingerprint was confirmed.
    pub fn is_confirmed(&self, id: &str) -> Result<bool> {
        Ok(self.entry(id)?.is_confirmed())
    }

    /// Ids of all entries, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        Ok(self.entries()?.iter().map(Entry::id).collect())
    }

    /// Whether the store holds the private keys of an entry.
    pub fn has_private(&self, id: &str) -> Result<bool> {
        Ok(self.entry(id)?.is_own())
    }

    /// Id of the identity that replaced an entry, if it was rotated.
    pub fn replaced_by(&self, id: &str) -> Result<Option<String>> {
        Ok(self.entry(id)?.replaced_by().map(str::to_owned))
    }

    /// Makes a new identity that replaces an old one; the old one still opens what was sealed for it, and no longer seals.
    pub fn rotate(&self, id: &str) -> Result<String> {
        let _guard = self.lock()?;
        let mut old = self.entry(id)?;
        if !old.is_own() {
            return Err(Error::new(Kind::PrivateKeyMissing, format!("key {id} is a peer's")));
        }
        not_replaced(&old)?;
        let new = Entry::identity(old.label(), &PrivatePair::generate()?, &self.secrets)?;
        // The new one first: a crash in between leaves one identity too many, never one that points to nothing.
        let new_id = self.add(new)?;
        old.replace_by(&new_id);
        self.write(&old)?;
        Ok(new_id)
    }

    /// Removes an entry, private keys included. What was sealed for a removed identity cannot be opened any more.
    pub fn remove(&self, id: &str) -> Result<()> {
        let _guard = self.lock()?;
        self.unlocked().remove(id);
        if entry::is_id(id) && files::remove(&self.directory.join(entry::file_name(id)))? {
            return Ok(());
        }
        Err(not_found(id))
    }

    /// A 32-byte secret of this installation by name ("audit", "deid"), made on first use, kept encrypted in the store.
    pub fn application_key(&self, name: &str) -> Result<Secret<[u8; 32]>> {
        let _guard = self.lock()?;
        store::application_key(&self.directory, name, &self.secrets)
    }

    /// The keys to seal for: a confirmed entry that was not replaced.
    pub(crate) fn recipient(&self, id: &str) -> Result<PublicPair> {
        let entry = self.entry(id)?;
        confirmed(&entry)?;
        not_replaced(&entry)?;
        Ok(entry.keys().clone())
    }

    /// The keys to sign with: an identity of this store that was not replaced.
    pub(crate) fn signer(&self, id: &str) -> Result<(PublicPair, Arc<PrivatePair>)> {
        let entry = self.entry(id)?;
        not_replaced(&entry)?;
        Ok((entry.keys().clone(), self.private(id)?))
    }

    /// The trusted entry whose signing key has this digest. A key that is here but unconfirmed is `KeyUnconfirmed`, a strange one `UnknownSender`.
    pub(crate) fn sender(&self, digest: &[u8; 32]) -> Result<(String, PublicPair)> {
        let entries = self.entries()?;
        // One signing key may be in several entries (shown alone and with an agree key); any confirmed one speaks for it.
        let known: Vec<&Entry> = entries.iter().filter(|entry| entry.keys().sign_digest() == *digest).collect();
        match known.iter().find(|entry| entry.is_confirmed()).or(known.first()) {
            None => Err(Error::new(Kind::UnknownSender, format!("signing key sha-256 {}", hex(digest)))),
            Some(entry) => confirmed(entry).map(|()| (entry.id(), entry.keys().clone())),
        }
    }

    /// The first of some agree keys that this store holds the private key of, replaced identities included: position, public and private keys.
    pub(crate) fn opener(&self, digests: &[[u8; 32]]) -> Result<(usize, PublicPair, Arc<PrivatePair>)> {
        for entry in self.entries()?.iter().filter(|entry| entry.is_own()) {
            if let Some(position) = digests.iter().position(|digest| entry.keys().agree_digest() == *digest) {
                return Ok((position, entry.keys().clone(), self.private(&entry.id())?));
            }
        }
        Err(Error::new(Kind::NotARecipient, format!("{} recipients, none of them here", digests.len())))
    }

    /// Every identity of this store, replaced ones included: what may open something that does not name its recipient's key.
    pub(crate) fn openers(&self) -> Result<Vec<(String, Arc<PrivatePair>)>> {
        let own = self.entries()?.into_iter().filter(Entry::is_own);
        own.map(|entry| Ok((entry.id(), self.private(&entry.id())?))).collect()
    }

    /// Every entry whose signature counts: identities of this store and confirmed peers.
    pub(crate) fn signers(&self) -> Result<Vec<(String, PublicPair)>> {
        let confirmed = self.entries()?.into_iter().filter(Entry::is_confirmed);
        Ok(confirmed.map(|entry| (entry.id(), entry.keys().clone())).collect())
    }

    /// Private keys of an identity, decrypted once.
    fn private(&self, id: &str) -> Result<Arc<PrivatePair>> {
        if let Some(private) = self.unlocked().get(id) {
            return Ok(Arc::clone(private));
        }
        let private = self.entry(id)?.private(&self.secrets)?;
        let private = Arc::new(private.ok_or_else(|| Error::new(Kind::PrivateKeyMissing, format!("key {id} is a peer's")))?);
        self.unlocked().insert(id.to_owned(), Arc::clone(&private));
        Ok(private)
    }

    fn unlocked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<PrivatePair>>> {
        // The map is whole after every operation, so a panic elsewhere while it was held does no harm.
        self.unlocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps other threads and processes from changing the store while the guard lives.
    fn lock(&self) -> Result<std::fs::File> {
        files::lock(&self.directory.join(store::LOCK))
    }

    fn add(&self, entry: Entry) -> Result<String> {
        let id = entry.id();
        if files::exists(&self.directory.join(entry::file_name(&id)))? {
            return Err(Error::new(Kind::KeyExists, format!("key {id}")));
        }
        self.write(&entry)?;
        Ok(id)
    }

    fn write(&self, entry: &Entry) -> Result<()> {
        files::replace_private(&self.directory.join(entry::file_name(&entry.id())), &entry.write(&self.secrets)?)
    }

    fn entry(&self, id: &str) -> Result<Entry> {
        if !entry::is_id(id) {
            return Err(Error::new(Kind::KeyNotFound, "an id has 16 lower-case hex digits"));
        }
        let file = files::read_private(&self.directory.join(entry::file_name(id)), store::MAX_FILE)?.ok_or_else(|| not_found(id))?;
        Entry::read(id, &file, &self.secrets)
    }

    /// All entries, sorted by id. One that does not verify fails them all: an unreadable peer may be the one that matters.
    fn entries(&self) -> Result<Vec<Entry>> {
        store::entry_ids(&self.directory)?.iter().map(|id| self.entry(id)).collect()
    }
}

fn confirmed(entry: &Entry) -> Result<()> {
    if entry.is_confirmed() { Ok(()) } else { Err(Error::new(Kind::KeyUnconfirmed, format!("key {}", entry.id()))) }
}

fn not_replaced(entry: &Entry) -> Result<()> {
    match entry.replaced_by() {
        None => Ok(()),
        Some(new) => Err(Error::new(Kind::KeyExpired, format!("key {} was replaced by {new}", entry.id()))
            .with_hint("use the new key, and send its public half to those who seal for it or open what it sealed")),
    }
}

fn not_found(id: &str) -> Error {
    // Only something that is shaped like an id is repeated: a caller's slip may have put anything there.
    Error::new(Kind::KeyNotFound, if entry::is_id(id) { format!("key {id}") } else { String::new() })
}
