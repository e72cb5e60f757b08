//! Every key and every context string of the format, in one place.
//!
//! Each use has its own label and binds the package id, so that no object, key or wrapped key of one package means anything in another:
//! ```text
//! wrapping info  "smp-package/v1 pk"  00  pkg(16)  sha256(sender SPKI)  sha256(recipient SPKI)      for HPKE
//! object key     HKDF-Expand(SHA-512, package key, "smp-package/v1 obj"  00  pkg(16)  name(16), 32)
//! context        "smp-package/v1"  00  role(0 manifest, 1 pack)  pkg(16)  name(16)                  for chunked encryption
//! ```

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use zeroize::Zeroize;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// Random number of 16 bytes that names a package or an object; 32 hex digits outside.
pub(super) type Name = [u8; 16];

/// What an object is. The role is part of the encryption context: a manifest can never pass for a pack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The encrypted list of files.
    Manifest = 0,
    /// Encrypted file contents.
    Pack = 1,
}

impl Role {
    /// Ending of the object's name in the store.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Role::Manifest => ".smpm",
            Role::Pack => ".smpp",
        }
    }
}

/// HPKE `info` for the wrapped package key of one recipient.
pub(super) fn wrapping_info(package: &Name, sender: &[u8; 32], recipient: &[u8; 32]) -> Vec<u8> {
    [b"smp-package/v1 pk\0".as_slice(), package, sender, recipient].concat()
}

/// The key of one object.
pub(super) fn object_key(package_key: &[u8; 32], package: &Name, object: &Name) -> Result<Secret<[u8; 32]>> {
    let mut key = Secret::new([0u8; 32]);
    expand::<Hmac<Sha512>>(package_key, &[b"smp-package/v1 obj\0", package, object], key.expose_mut())?;
    Ok(key)
}

/// Context of one object's chunked encryption.
pub(super) fn context(role: Role, package: &Name, object: &Name) -> Vec<u8> {
    [b"smp-package/v1\0".as_slice(), &[role as u8], package, object].concat()
}

/// HKDF-Expand (RFC 5869, 2.3) over any HMAC.
///
/// The `hkdf` crate refuses a pseudorandom key shorter than the hash, by the letter of RFC 5869; the chunked encryption asks for exactly that (32
/// bytes under SHA-512), which is the feedback-mode KDF of NIST SP 800-108 and sound for a uniform key.
pub(super) fn expand<M: Mac + KeyInit>(key: &[u8], info: &[&[u8]], output: &mut [u8]) -> Result<()> {
    let refused = || Error::new(Kind::Internal, "a key could not be derived").at(crate::error::Stage::Package);
    let mut block: Vec<u8> = Vec::new();
    let mut counter = 0u8;
    let mut rest = output;
    while !rest.is_empty() {
        // RFC 5869 allows 255 blocks; the counter is one byte.
        counter = counter.checked_add(1).ok_or_else(refused)?;
        let mut mac = <M as KeyInit>::new_from_slice(key).map_err(|_| refused())?;
        mac.update(&block);
        info.iter().for_each(|part| mac.update(part));
        mac.update(&[counter]);
        block.zeroize();
        block = mac.finalize().into_bytes().to_vec();
        let (now, later) = rest.split_at_mut(block.len().min(rest.len()));
        now.copy_from_slice(&block[..now.len()]);
        rest = later;
    }
    block.zeroize();
    Ok(())
}

/// Fills a buffer from the system's generator.
pub(super) fn fill_random(buffer: &mut [u8]) -> Result<()> {
    getrandom::fill(buffer).map_err(|_| Error::new(Kind::Internal, "the system's random generator failed").at(crate::error::Stage::Package))
}

/// A fresh name.
pub(super) fn fresh_name() -> Result<Name> {
    let mut name = Name::default();
    fill_random(&mut name).map(|()| name)
}
