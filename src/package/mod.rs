//! The sealed study package, version 1: how a study crosses somebody else's storage.
//!
//! What it promises (docs/package-format.md has every byte): the store learns sizes and nothing else; the receiver is given no byte that
//! was not authenticated; truncation, extension, exchange, repetition and substitution fail with an error that names object and range; any range of
//! about 8 MiB can be fetched, checked and decrypted on its own; the sender is known, was confirmed beforehand, and cannot deny it.
//!
//! Layers, from the inside out:
//! - `bulk` is the cipher for what is large, `chunked` encrypts one object with it, `tree` hashes it range by range, `wrap` carries the key to a
//!   recipient, `derive` makes every key;
//! - `header` and `manifest` are the two texts, each with exactly one spelling; `paths` and `pad` hold their rules;
//! - `cms` is the other form: what a hospital that has only OpenSSL encrypted, opened like a package;
//! - [`seal()`] writes a package and [`grant()`] opens it to further recipients; [`open()`] proves one genuine, [`Package::read`] decrypts it, [`verify()`]
//!   and [`unseal_to`] are its two other readers.
//!
//! Order of trust when opening: nothing in the header counts before the signature, nothing in the manifest before its tree hash stood in the signed
//! header, nothing in a pack before its range's leaf stood in the manifest. Plaintext lives in erased-on-drop buffers; only [`unseal_to`]
//! writes it anywhere.

mod bulk;
mod chunked;
mod cms;
mod derive;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod grant;
mod header;
mod hpke_open;
mod manifest;
mod open;
mod opened;
mod pad;
mod paths;
mod read;
mod seal;
#[cfg(test)]
mod tests;
mod tree;
mod unseal;
#[cfg(test)]
mod vectors;
mod verify;
mod wrap;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use cms::{parse_archive, parse_envelope};
pub use grant::grant;
pub use opened::{Package, open};
pub use seal::{Contents, Instance, Parties, SealOptions, seal};
pub use unseal::unseal_to;
pub use verify::verify;

use crate::error::{Error, Kind};
use crate::secret::Plain;

/// Limits on what is opened or sealed, and what is accepted beyond the default.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Files in one package.
    pub files: u64,
    /// Plaintext bytes of one study.
    pub study_bytes: u64,
    /// Bytes of the header (format limit 1 MiB).
    pub header_bytes: u64,
    /// Whether a study in CMS may derive its key with SHA-1, which OpenSSL does unless it is told otherwise.
    pub allow_sha1_kdf: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { files: 100_000, study_bytes: 64 << 30, header_bytes: header::MAX_BYTES, allow_sha1_kdf: false }
    }
}

/// One decrypted file whose SHA-256 agreed with the manifest, or out of an archive that was authenticated. Its name may identify a person and stays behind.
pub struct PlainFile {
    /// Number in manifest or archive, from 0.
    pub index: usize,
    /// Contents, erased on drop.
    pub bytes: Plain,
}

/// Facts for the result and the audit log; nothing secret, nothing that identifies a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFacts {
    /// Package id, 32 hex digits; of a study in CMS the first half of the object's SHA-256.
    pub id: String,
    /// Sender: SHA-256 of the signing key's SPKI, hex.
    pub sender: String,
    /// Key store id of the sender.
    pub sender_id: String,
    /// Time of sealing as the sender wrote it (RFC 3339); empty for a study in CMS, which tells none.
    pub created: String,
    /// Purpose as the sender wrote it; empty for a study in CMS.
    pub purpose: String,
    /// Number of files.
    pub files: usize,
    /// Plaintext bytes, without padding.
    pub bytes: u64,
    /// SHA-256 of what the sender signed, hex: the header object, or the list of checksums.
    pub header_sha256: String,
    /// `smp-package/v1` or `cms`.
    pub format: &'static str,
}

/// A package's folder in the store.
#[derive(Clone)]
struct Folder {
    /// Without slashes at either end; empty is the top of the store.
    path: String,
}

impl Folder {
    fn new(remote_path: &str) -> Folder {
        Folder { path: remote_path.trim_matches('/').to_owned() }
    }

    /// Full name of an object of the package.
    fn object(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) }
    }
}

/// Two digests that should be one, told by their beginnings: enough to compare over the telephone, and one line.
fn digests_differ(what: &str, expected: &tree::Hash, found: &tree::Hash) -> Error {
    let short = |hash: &tree::Hash| crate::keys::hex(&hash[..8]);
    Error::new(Kind::IntegrityFailed, format!("{what}: sha-256 differs, expected {}.., found {}..", short(expected), short(found)))
}

/// A limit of the configuration, named as the configuration names it.
fn over_limit(key: &'static str, limit: u64) -> Error {
    Error::new(Kind::LimitExceeded, format!("limits.{key} is {limit}")).at(crate::error::Stage::Package)
}
