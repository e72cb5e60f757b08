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
//! Private keys are decrypted when first used and stay in locked memory until the [`KeyStore`] is dropped, or they live in a hardware token and
//! never leave it. Either way the rest of the library holds a `PrivateKeys`, which agrees and signs.
//! Nothing here writes to the audit log; `pipeline::RecordedKeyStore` does. `docs/keys.md` has the formats.
//!
//! Rooms: `entry` (a file), `store` (the folder), `rest` and `files` (encryption and file rules), `fingerprint`, `identity` and `token`
//! (public keys, private keys in memory and in tokens, with `pkcs11` behind), `trust` (who may do what until when), `card`, `certificate`
//! and `private_pem` (what goes out).
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

mod backend;
mod card;
mod certificate;
mod dates;
mod entry;
mod files;
mod fingerprint;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod identity;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod private_pem;
mod rest;
mod store;
#[cfg(test)]
mod tests;
mod token;
mod trust;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result, Stage};
use crate::secret::Secret;
pub(crate) use backend::PrivateKeys;
use card::Card;
use entry::Entry;
pub(crate) use fingerprint::{PublicPair, hex, unhex};
#[cfg(test)]
pub(crate) use identity::PrivatePair;
#[cfg(not(test))]
use identity::PrivatePair;
use rest::StoreSecrets;
pub use token::TokenKey;

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
    /// Private keys already unlocked, by id.
    unlocked: Mutex<HashMap<String, Arc<dyn PrivateKeys>>>,
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

    /// Imports a peer's public keys, unconfirmed; returns its key id. Keys already here are `KeyExists`.
    ///
    /// The text is PEM ([`KeyStore::export_public`]) or a key card ([`KeyStore::export_card`]). From a card come the expiry, and the label if
    /// none is given.
    pub fn import(&self, label: &str, text: &str) -> Result<String> {
        let (label, keys, expires) = if card::is_card(text) {
            let Card { keys, expires, label: own, .. } = Card::read(text)?;
            (if label.is_empty() { own } else { label.to_owned() }, keys, expires)
        } else {
            (label.to_owned(), PublicPair::from_pem(text)?, None)
        };
        let mut entry = Entry::peer(&label, keys)?;
        entry.set_expiry(expires)?;
        let _guard = self.lock()?;
        self.add(entry)
    }

    /// Public keys of an identity or peer as PEM (SPKI): agree key first, then signing key.
    pub fn export_public(&self, id: &str) -> Result<String> {
        Ok(self.entry(id)?.keys().to_pem())
    }

    /// Public keys, label and dates of an identity as a key card: three lines of text, signed by the identity, to be sent by mail.
    pub fn export_card(&self, id: &str) -> Result<String> {
        let entry = self.entry(id)?;
        let private = self.private(id)?;
        let created = dates::Moment::parse(entry.created())
            .ok_or_else(|| Error::new(Kind::KeyStoreUnavailable, format!("entry {id} has no date")))?;
        let card = Card { keys: entry.keys().clone(), created, expires: entry.expires(), label: entry.label().to_owned() };
        card.write(&*private)
    }

    /// Certificates of an identity in PEM, for `openssl cms -encrypt -recip`: first the agree key's, issued by the signing key, then the
    /// signing key's own. An identity that was replaced or has expired is not sealed for, so it has none (`KeyExpired`).
    pub fn export_certificate(&self, id: &str) -> Result<String> {
        self.export_certificate_at(id, dates::Moment::now()?)
    }

    fn export_certificate_at(&self, id: &str, now: dates::Moment) -> Result<String> {
        let entry = self.entry(id)?;
        let (keys, private) = self.signer_at(id, now)?;
        certificate::write(&keys, &*private, entry.created(), entry.expires())
    }

    /// Private keys of an identity as two encrypted PKCS#8 blocks in PEM, agree key first, for a backup or for OpenSSL.
    ///
    /// Private keys in a token are `PrivateKeyMissing`. Wrapped under a passphrase of its own by PBES2 with PBKDF2-HMAC-SHA-384, 600,000 rounds, and AES-256-CBC.
    pub fn export_private(&self, id: &str, passphrase: &Secret<String>) -> Result<Zeroizing<String>> {
        let entry = self.entry(id)?;
        if entry.token().is_some() {
            return Err(Error::new(Kind::PrivateKeyMissing, format!("the private keys of {id} are in a token and never leave it"))
                .with_hint("make backups with the token's own means, or rotate"));
        }
        private_pem::write(&entry.private(&self.secrets)?.ok_or_else(|| no_private(id))?, passphrase.expose())
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

    /// When an entry was made here, in UTC, like `2024-02-29T23:59:59Z`.
    pub fn created(&self, id: &str) -> Result<String> {
        Ok(self.entry(id)?.created().to_owned())
    }

    /// The last second in which an entry's keys are good, in UTC, like `2031-12-31T23:59:59Z`; `None` when they do not expire.
    pub fn expires(&self, id: &str) -> Result<Option<String>> {
        self.entry(id)?.expires().map(dates::Moment::text).transpose()
    }

    /// Sets the last second in which an entry's keys are good, or takes the expiry away.
    ///
    /// From the next second on the keys are not sealed for and an identity signs nothing more. What was sealed for an expired identity still
    /// opens, and what an expired peer sealed before it expired still opens. The moment may lie in the past, which ends the keys at once; an
    /// identity cannot expire before it was made.
    pub fn set_expiry(&self, id: &str, expires: Option<&str>) -> Result<()> {
        let expires = expires.map(dates::given).transpose()?;
        let _guard = self.lock()?;
        let mut entry = self.entry(id)?;
        let too_early =
            entry.is_own() && expires.is_some_and(|expires| dates::Moment::parse(entry.created()).is_some_and(|made| expires < made));
        if too_early {
            return Err(Error::new(Kind::InvalidArgument, format!("key {id} was made after that")).at(Stage::Keys));
        }
        entry.set_expiry(expires)?;
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
    ///
    /// An expired identity may be rotated too. The new one has no expiry until one is set. The successor of an identity in a token is made in
    /// the same token.
    pub fn rotate(&self, id: &str) -> Result<String> {
        let _guard = self.lock()?;
        let mut old = self.entry(id)?;
        if !old.is_own() {
            return Err(no_private(id));
        }
        trust::not_replaced(&old)?;
        let new = match old.token() {
            Some(token) => self.successor_on_token(&old, token)?,
            None => Entry::identity(old.label(), &PrivatePair::generate()?, &self.secrets)?,
        };
        // The new one first: a crash in between leaves one identity too many, never one that points to nothing.
        let new_id = self.add(new)?;
        old.replace_by(&new_id);
        self.write(&old)?;
        Ok(new_id)
    }

    /// Removes an entry, private keys included. What was sealed for a removed identity cannot be opened any more.
    ///
    /// Private keys in a token stay there, unused; the token's own tool removes them.
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

    /// Private keys of an identity, unlocked once.
    fn private(&self, id: &str) -> Result<Arc<dyn PrivateKeys>> {
        if let Some(private) = self.unlocked().get(id) {
            return Ok(Arc::clone(private));
        }
        let private = self.unlock(&self.entry(id)?)?;
        self.unlocked().insert(id.to_owned(), Arc::clone(&private));
        Ok(private)
    }

    fn unlocked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<dyn PrivateKeys>>> {
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

fn no_private(id: &str) -> Error {
    Error::new(Kind::PrivateKeyMissing, format!("key {id} is a peer's"))
}

fn not_found(id: &str) -> Error {
    // Only something that is shaped like an id is repeated: a caller's slip may have put anything there.
    Error::new(Kind::KeyNotFound, if entry::is_id(id) { format!("key {id}") } else { String::new() })
}
