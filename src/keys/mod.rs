//! Key store.
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use std::path::{Path, PathBuf};

/// How a key store is unlocked.
pub enum Unlock {
    /// By a passphrase.
    Passphrase(Secret<String>),
    /// By the 32 bytes of a key file, which is made on first use.
    KeyFile(PathBuf),
}
/// A folder of identities and pinned peers. Shared by reference between threads; every method takes `&self`.
pub struct KeyStore {}
fn stub<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "stub"))
}
impl KeyStore {
    /// Opens (or makes) a key store.
    pub fn open(_directory: &Path, _unlock: Unlock) -> Result<KeyStore> {
        stub()
    }
    /// Folder of the store.
    pub fn directory(&self) -> &Path {
        Path::new("")
    }
    /// Makes an identity; returns its key id.
    pub fn generate(&self, _purpose: &str) -> Result<String> {
        stub()
    }
    /// Imports a peer's public key(s) (PEM), unconfirmed; returns its key id.
    pub fn import(&self, _label: &str, _pem: &str) -> Result<String> {
        stub()
    }
    /// Public keys of an identity or peer as PEM (SPKI): agree key first, then signing key.
    pub fn export_public(&self, _id: &str) -> Result<String> {
        stub()
    }
    /// Fingerprint for reading over the telephone.
    pub fn fingerprint(&self, _id: &str) -> Result<String> {
        stub()
    }
    /// Confirms a peer by its fingerprint.
    pub fn confirm(&self, _id: &str, _fingerprint: &str) -> Result<()> {
        stub()
    }
    /// Ids of all entries, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        stub()
    }
    /// Whether the store holds the private keys of an entry.
    pub fn has_private(&self, _id: &str) -> Result<bool> {
        stub()
    }
    /// Makes a new identity that replaces an old one; the old one still opens.
    pub fn rotate(&self, _id: &str) -> Result<String> {
        stub()
    }
    /// Removes an entry.
    pub fn remove(&self, _id: &str) -> Result<()> {
        stub()
    }
    /// A 32-byte secret of this installation by name ("audit", "deid"), made on first use, kept encrypted in the store.
    pub fn application_key(&self, _name: &str) -> Result<Secret<[u8; 32]>> {
        stub()
    }
}
