//! The sealed study package, version 1.
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::keys::KeyStore;
use crate::transfer::Client;
use std::path::Path;
use zeroize::Zeroizing;

/// Limits on what is opened or sealed.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Files in one package.
    pub files: u64,
    /// Plaintext bytes of one study.
    pub study_bytes: u64,
    /// Bytes of the header (format limit 1 MiB).
    pub header_bytes: u64,
}
impl Default for Limits {
    fn default() -> Limits {
        Limits { files: 100_000, study_bytes: 64 << 30, header_bytes: 1 << 20 }
    }
}
/// One decrypted file whose SHA-256 agreed with the manifest. Its name may identify a person and stays behind.
pub struct PlainFile {
    /// Number in the manifest, from 0.
    pub index: usize,
    /// Contents, erased on drop.
    pub bytes: Zeroizing<Vec<u8>>,
}
/// What is known of a package once its header and manifest proved genuine.
pub struct Package {}
/// Facts for the result and the audit log; nothing secret, nothing that identifies a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFacts {
    /// Package id, 32 hex digits.
    pub id: String,
    /// Sender: SHA-256 of the signing key's SPKI, hex.
    pub sender: String,
    /// Key store id of the sender.
    pub sender_id: String,
    /// Time of sealing as the sender wrote it (RFC 3339).
    pub created: String,
    /// Purpose as the sender wrote it.
    pub purpose: String,
    /// Number of files.
    pub files: usize,
    /// Plaintext bytes, without padding.
    pub bytes: u64,
    /// SHA-256 of the header object, hex.
    pub header_sha256: String,
}
fn stub<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "stub"))
}
/// Seals a folder for recipients and uploads it; the header is written last.
pub fn seal_folder(
    _client: &Client,
    _remote_path: &str,
    _folder: &Path,
    _keys: &KeyStore,
    _sender_id: &str,
    _recipient_ids: &[&str],
    _purpose: &str,
    _limits: &Limits,
    _control: &Control,
) -> Result<PackageFacts> {
    stub()
}
/// Opens header and manifest: signature, sender (pinned; `trusted` narrows to these key ids when not empty), recipient, manifest.
pub fn open(
    _client: &Client,
    _remote_path: &str,
    _keys: &KeyStore,
    _trusted: &[String],
    _limits: &Limits,
    _control: &Control,
) -> Result<Package> {
    stub()
}
impl Package {
    /// Facts of the package.
    pub fn facts(&self) -> &PackageFacts {
        unreachable!()
    }
    /// Decrypts every file, in manifest order, each delivered once its own digest agreed. The tail of each pack is authenticated first.
    /// Callers must throw away what they were given if this returns an error.
    pub fn read(&self, _control: &Control, _deliver: &mut dyn FnMut(PlainFile) -> Result<()>) -> Result<()> {
        stub()
    }
}
/// Checks signature and every range; writes nothing. Returns a JSON report.
pub fn verify(
    _client: &Client,
    _remote_path: &str,
    _keys: &KeyStore,
    _trusted: &[String],
    _limits: &Limits,
    _control: &Control,
) -> Result<String> {
    stub()
}
/// The one explicit way to plaintext files.
pub fn unseal_to(
    _client: &Client,
    _remote_path: &str,
    _folder: &Path,
    _keys: &KeyStore,
    _trusted: &[String],
    _limits: &Limits,
    _control: &Control,
) -> Result<PackageFacts> {
    stub()
}
