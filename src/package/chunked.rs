//! Chunked encryption of one object: c2sp.org/chunked-encryption with SHA-512 and AES-256-GCM ("Cobblestone-256").
//!
//! A sealed object is `salt(24) commitment(32) chunk*`. A chunk is 16,384 bytes and a 16-byte tag; the last one is always shorter and may be
//! empty, so the end of the message is authenticated by its shape and no flag is needed. Key, base nonce and commitment come from HKDF-Expand over
//! object key, salt and context; the nonce of a chunk is the base nonce XOR its number, so a chunk in another place does not open.
//!
//! [`Chunks::open_run`] opens any run of whole chunks, which serves both whole messages and ranges fetched on their own, and spreads them over
//! the rayon pool. Each chunk goes straight to its own place, so that a file's bytes are written once, where they stay. It gives out all of a
//! run or nothing: on a bad tag every place is wiped first (NIST SP 800-38D, 7.2).

use hmac::Hmac;
use rayon::prelude::*;
use sha2::Sha512;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::bulk::{BulkKey, NONCE};
use super::derive;
use crate::error::{Error, Kind, Result};

pub(super) use super::bulk::TAG;

/// Plaintext bytes of a full chunk.
pub(super) const CHUNK: usize = 16_384;
/// Bytes of a full chunk with its tag.
pub(super) const SEALED_CHUNK: usize = CHUNK + TAG;
/// Salt and commitment.
pub(super) const PREFIX: usize = SALT + COMMITMENT;

const SALT: usize = 24;
const COMMITMENT: usize = 32;
const KEY: usize = 32;

/// Chunks of one message, at most (c2sp.org/chunked-encryption, "Message chunking").
const MAX_CHUNKS: u64 = 1 << 38;

/// Chunks that one rayon task handles at least: 16 take about 100 µs, far above the cost of handing a task over.
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
    cipher: BulkKey,
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
        let cipher = BulkKey::new(key)?;
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
            let start = position * CHUNK;
            let end = start + piece.len().checked_sub(TAG).ok_or_else(defect)?;
            let nonce = self.nonce(first.saturating_add(position as u64)).ok_or_else(defect)?;
            self.cipher.seal(nonce, plain.get(start..end).ok_or_else(defect)?, piece)
        };
        sealed.par_chunks_mut(SEALED_CHUNK).enumerate().with_min_len(CHUNKS_PER_TASK).try_for_each(seal)
    }

    /// Opens a run of sealed chunks that starts with chunk `first`. `places` is where their plaintext goes: one slice of the right length for each
    /// chunk, wherever it lies. With `last` the run ends the message. On a fault all places are wiped.
    pub(super) fn open_run(&self, first: u64, sealed: &[u8], last: bool, places: &mut [&mut [u8]]) -> Result<(), Fault> {
        let outcome = self.try_open_run(first, sealed, last, places);
        if outcome.is_err() {
            places.iter_mut().for_each(|place| place.zeroize());
        }
        outcome
    }

    fn try_open_run(&self, first: u64, sealed: &[u8], last: bool, places: &mut [&mut [u8]]) -> Result<(), Fault> {
        // A last chunk shorter than a tag, or a message that ends with a full chunk, was cut.
        let rest = sealed.len() % SEALED_CHUNK;
        if if last { rest < TAG } else { rest != 0 } || sealed.len().div_ceil(SEALED_CHUNK) != places.len() {
            return Err(Fault::Length);
        }
        let open = |(position, (piece, place)): (usize, (&[u8], &mut &mut [u8]))| {
            let number = first.saturating_add(position as u64);
            let opened = self.nonce(number).is_some_and(|nonce| self.cipher.open(nonce, piece, place));
            if opened { None } else { Some(number) }
        };
        let pieces = sealed.par_chunks(SEALED_CHUNK).zip(places).enumerate().with_min_len(CHUNKS_PER_TASK);
        pieces.filter_map(open).min().map_or(Ok(()), |number| Err(Fault::Chunk(number)))
    }

    /// Base nonce XOR chunk number, big-endian; `None` past the format's last chunk.
    fn nonce(&self, number: u64) -> Option<[u8; NONCE]> {
        if number >= MAX_CHUNKS {
            return None;
        }
        let mut nonce = self.base_nonce;
        for (byte, counter) in nonce[NONCE - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= counter;
        }
        Some(nonce)
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

/// Plaintext bytes of a sealed run of chunks; a piece at the end that is shorter than a tag counts for nothing.
pub(super) fn opened_len(sealed: usize) -> usize {
    sealed / SEALED_CHUNK * CHUNK + (sealed % SEALED_CHUNK).saturating_sub(TAG)
}

/// Opens a whole message. Its length is authenticated with the last chunk; nothing comes out unless everything was genuine.
pub(super) fn open_message(key: &[u8], context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let (prefix, body) = sealed.split_at_checked(PREFIX).ok_or(Fault::Commitment)?;
    Chunks::resume(key, prefix, context)?.open_whole_run(0, body, true)
}

impl Chunks {
    /// Opens a run into one buffer.
    pub(super) fn open_whole_run(&self, first: u64, sealed: &[u8], last: bool) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let mut plain = Zeroizing::new(vec![0u8; opened_len(sealed.len())]);
        let mut places: Vec<&mut [u8]> = plain.chunks_mut(CHUNK).collect();
        // An end mark without plaintext has a place too.
        places.resize_with(sealed.len().div_ceil(SEALED_CHUNK), Default::default);
        self.open_run(first, sealed, last, &mut places)?;
        Ok(plain)
    }
}
