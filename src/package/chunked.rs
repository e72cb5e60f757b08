//! Chunked encryption of one object: c2sp.org/chunked-encryption with SHA-512 and AES-256-GCM ("Cobblestone-256").
//!
//! A sealed object is `salt(24) commitment(32) chunk*`. A chunk is 16,384 bytes and a 16-byte tag; the last one is always shorter and may be
//! empty, so the end of the message is authenticated by its shape and no flag is needed. Key, base nonce and commitment come from HKDF-Expand over
//! object key, salt and context; the nonce of a chunk is the base nonce XOR its number, so a chunk in another place does not open.
//!
//! [`Chunks::open_run`] opens any run of whole chunks in place, which serves both whole messages and ranges fetched on their own, and
//! spreads them over the rayon pool. It gives out all of a run or nothing: on a bad tag the buffer is wiped first (NIST SP 800-38D, 7.2).

use aes_gcm::aead::{AeadInOut, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hmac::Hmac;
use rayon::prelude::*;
use sha2::Sha512;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::derive;
use crate::error::{Error, Kind, Result};

/// Plaintext bytes of a full chunk.
pub(super) const CHUNK: usize = 16_384;
/// Bytes of a tag.
pub(super) const TAG: usize = 16;
/// Bytes of a full chunk with its tag.
pub(super) const SEALED_CHUNK: usize = CHUNK + TAG;
/// Salt and commitment.
pub(super) const PREFIX: usize = SALT + COMMITMENT;

const SALT: usize = 24;
const COMMITMENT: usize = 32;
const KEY: usize = 32;
const NONCE: usize = 12;

/// Chunks of one message, at most (c2sp.org/chunked-encryption, "Message chunking").
const MAX_CHUNKS: u64 = 1 << 38;

/// Chunks that one rayon task handles at least: 16 take about 80 µs, far above the cost of handing a task over.
const CHUNKS_PER_TASK: usize = 16;

/// Why a sealed object does not open. Says nothing of keys, so it may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The object is shorter than its prefix, or the key is not the one it was sealed with.
    Commitment,
    /// The length is not one that sealing produces.
    Length,
    /// A chunk does not authenticate.
    Chunk(u64),
}

impl Fault {
    /// The fault as an error about a named object.
    pub(super) fn of(self, object: &str) -> Error {
        let detail = match self {
            Fault::Commitment => format!("{object}: the key commitment does not match"),
            Fault::Length => format!("{object}: truncated"),
            Fault::Chunk(number) => format!("{object} chunk {number}: authentication failed"),
        };
        Error::new(Kind::IntegrityFailed, detail)
    }
}

/// Length of the sealed form of a message.
pub(super) fn sealed_len(plain: u64) -> u64 {
    let chunk = CHUNK as u64;
    PREFIX as u64 + plain / chunk * SEALED_CHUNK as u64 + plain % chunk + TAG as u64
}

/// Length of the message in a sealed object of this length; `None` for a length that sealing cannot produce.
pub(super) fn plain_len(sealed: u64) -> Option<u64> {
    let body = sealed.checked_sub(PREFIX as u64)?;
    let last = (body % SEALED_CHUNK as u64).checked_sub(TAG as u64)?;
    Some(body / SEALED_CHUNK as u64 * CHUNK as u64 + last)
}

/// The chunk cipher of one object.
pub(super) struct Chunks {
    cipher: Aes256Gcm,
    base_nonce: [u8; NONCE],
}

impl Chunks {
    /// Starts sealing under a fresh salt; the prefix goes before the chunks.
    pub(super) fn begin(key: &[u8; KEY], context: &[u8]) -> Result<(Chunks, [u8; PREFIX])> {
        let mut prefix = [0u8; PREFIX];
        let (salt, commitment) = prefix.split_at_mut(SALT);
        derive::fill_random(salt)?;
        let (chunks, derived) = Chunks::derive(key, salt, context)?;
        commitment.copy_from_slice(&derived);
        Ok((chunks, prefix))
    }

    /// Starts opening: the commitment must match before any chunk is looked at.
    pub(super) fn resume(key: &[u8], prefix: &[u8], context: &[u8]) -> Result<Chunks, Fault> {
        if key.len() != KEY || prefix.len() != PREFIX {
            return Err(Fault::Commitment);
        }
        let (salt, commitment) = prefix.split_at(SALT);
        let (chunks, derived) = Chunks::derive(key, salt, context).map_err(|_| Fault::Commitment)?;
        if bool::from(derived.ct_eq(commitment)) { Ok(chunks) } else { Err(Fault::Commitment) }
    }

    fn derive(key: &[u8], salt: &[u8], context: &[u8]) -> Result<(Chunks, [u8; COMMITMENT])> {
        let info = [b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0".as_slice(), salt, context];
        let mut derived = Zeroizing::new([0u8; KEY + NONCE + COMMITMENT]);
        derive::expand::<Hmac<Sha512>>(key, &info, derived.as_mut())?;
        let (key, rest) = derived.split_at(KEY);
        let (nonce, commitment) = rest.split_at(NONCE);
        let defect = |_| Error::new(Kind::Internal, "a key has the wrong length");
        let cipher = Aes256Gcm::new_from_slice(key).map_err(defect)?;
        let (mut base_nonce, mut committed) = ([0u8; NONCE], [0u8; COMMITMENT]);
        base_nonce.copy_from_slice(nonce);
        committed.copy_from_slice(commitment);
        Ok((Chunks { cipher, base_nonce }, committed))
    }

    /// Seals a run of chunks that starts with chunk `first` into `sealed`, which has exactly the room. With `last` the run ends the message
    /// and its last chunk is the short one; without it the run is whole chunks.
    pub(super) fn seal_run(&self, first: u64, plain: &[u8], last: bool, sealed: &mut [u8]) -> Result<()> {
        let defect = || Error::new(Kind::Internal, "a run of chunks has the wrong length").at(crate::error::Stage::Package);
        if run_len(plain.len(), last) != Some(sealed.len()) {
            return Err(defect());
        }
        let seal = |(position, piece): (usize, &mut [u8])| {
            let (body, tag) = piece.split_at_mut(piece.len().checked_sub(TAG).ok_or_else(defect)?);
            let start = position * CHUNK;
            body.copy_from_slice(plain.get(start..start + body.len()).ok_or_else(defect)?);
            let nonce = self.nonce(first, position).ok_or_else(defect)?;
            tag.copy_from_slice(&self.cipher.encrypt_inout_detached(&nonce, &[], body.into()).map_err(|_| defect())?);
            Ok(())
        };
        sealed.par_chunks_mut(SEALED_CHUNK).enumerate().with_min_len(CHUNKS_PER_TASK).try_for_each(seal)
    }

    /// Opens a run of sealed chunks in place; [`plain_pieces`] then walks over the plaintext. With `last` the run ends the message. On a
    /// fault the whole run is wiped.
    pub(super) fn open_run(&self, first: u64, sealed: &mut [u8], last: bool) -> Result<(), Fault> {
        // A last chunk shorter than a tag, or a message that ends with a full chunk, was cut.
        let rest = sealed.len() % SEALED_CHUNK;
        if if last { rest < TAG } else { rest != 0 } {
            sealed.zeroize();
            return Err(Fault::Length);
        }
        let open = |(position, piece): (usize, &mut [u8])| {
            let number = first.saturating_add(position as u64);
            let (body, tag) = piece.split_at_mut_checked(piece.len().checked_sub(TAG)?)?;
            let (nonce, tag) = (self.nonce(first, position), Tag::try_from(&*tag).ok());
            let opened = nonce.zip(tag).map(|(nonce, tag)| self.cipher.decrypt_inout_detached(&nonce, &[], body.into(), &tag));
            if matches!(opened, Some(Ok(()))) { None } else { Some(number) }
        };
        let forged = sealed.par_chunks_mut(SEALED_CHUNK).enumerate().with_min_len(CHUNKS_PER_TASK).filter_map(open).min();
        match forged {
            None => Ok(()),
            Some(number) => {
                sealed.zeroize();
                Err(Fault::Chunk(number))
            }
        }
    }

    /// Base nonce XOR chunk number, big-endian; `None` past the format's last chunk.
    fn nonce(&self, first: u64, position: usize) -> Option<Nonce<aes_gcm::aead::consts::U12>> {
        let number = first.checked_add(position as u64).filter(|number| *number < MAX_CHUNKS)?;
        let mut nonce = self.base_nonce;
        for (byte, counter) in nonce[NONCE - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= counter;
        }
        Some(nonce.into())
    }
}

/// Sealed length of a run of chunks; `None` when the run is not whole chunks and does not end the message.
pub(super) fn run_len(plain: usize, last: bool) -> Option<usize> {
    let (full, rest) = (plain / CHUNK, plain % CHUNK);
    match (last, rest) {
        (true, _) => Some(full * SEALED_CHUNK + rest + TAG),
        (false, 0) => Some(full * SEALED_CHUNK),
        (false, _) => None,
    }
}

/// The plaintext in an opened run, chunk by chunk.
pub(super) fn plain_pieces(opened: &[u8]) -> impl Iterator<Item = &[u8]> {
    opened.chunks(SEALED_CHUNK).map(|piece| &piece[..piece.len().saturating_sub(TAG)])
}

/// Opens a whole message. Its length is authenticated with the last chunk; nothing comes out unless everything was genuine.
pub(super) fn open_message(key: &[u8], context: &[u8], mut sealed: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let (prefix, body) = sealed.split_at_mut_checked(PREFIX).ok_or(Fault::Commitment)?;
    Chunks::resume(key, prefix, context)?.open_run(0, body, true)?;
    let mut plain = Zeroizing::new(Vec::with_capacity(body.len()));
    plain_pieces(body).for_each(|piece| plain.extend_from_slice(piece));
    Ok(plain)
}
