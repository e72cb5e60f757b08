//! CRC-32C (Castagnoli), the checksum that Cloud Storage has of every object.
//!
//! It guards against accidents on the way, not against people: packages carry their own signatures for those.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, Digest};

/// A checksum of bytes that come in order, some of them more than once.
pub(super) struct Checksum {
    digest: Digest,
    length: u64,
}

impl Default for Checksum {
    fn default() -> Checksum {
        // iSCSI's (RFC 3720) is the one with Castagnoli's polynomial.
        Checksum { digest: Digest::new(CrcAlgorithm::Crc32Iscsi), length: 0 }
    }
}

impl Checksum {
    /// The checksum of bytes that are all there.
    pub fn of(bytes: &[u8]) -> String {
        let mut checksum = Checksum::default();
        checksum.absorb(0, bytes);
        checksum.text()
    }

    /// Adds bytes that begin at an offset; those that were added before are passed over.
    pub fn absorb(&mut self, offset: u64, bytes: &[u8]) {
        let known = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let fresh = bytes.get(known..).unwrap_or_default();
        self.digest.update(fresh);
        self.length += fresh.len() as u64;
    }

    /// Bytes added.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// As Cloud Storage writes it: big-endian, in Base64.
    pub fn text(&self) -> String {
        // A sum of 32 bits in the low half of 64.
        let [.., a, b, c, d] = self.digest.finalize().to_be_bytes();
        STANDARD.encode([a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_examples_come_out() {
        // RFC 3720, B.4, and the check value of the algorithm.
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, expected) in [
            (&[0u8; 32][..], 0x8a91_36aa_u32),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(Checksum::of(bytes), STANDARD.encode(expected.to_be_bytes()));
        }
    }

    #[test]
    fn bytes_that_come_again_count_once() {
        let mut checksum = Checksum::default();
        for (offset, bytes) in [(0, &b"1234"[..]), (0, b"1234"), (2, b"34567"), (7, b""), (5, b"6"), (7, b"89")] {
            checksum.absorb(offset, bytes);
        }
        assert_eq!((checksum.text(), checksum.length()), (Checksum::of(b"123456789"), 9));
    }
}
