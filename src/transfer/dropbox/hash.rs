//! Dropbox's content hash: SHA-256 over the SHA-256 of each block of 4 MiB.
//!
//! It is said with every piece, so that the server refuses one that changed on the way, and compared with what the server has at the end.

use sha2::{Digest, Sha256};

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 4 << 20;

/// A content hash of bytes that come in order, some of them more than once.
#[derive(Clone, Default)]
pub(super) struct ContentHash {
    blocks: Sha256,
    block: Sha256,
    in_block: usize,
    length: u64,
}

impl ContentHash {
    /// The hash of bytes that are all there.
    pub fn of(bytes: &[u8]) -> String {
        let mut hash = ContentHash::default();
        hash.absorb(0, bytes);
        hash.text()
    }

    /// Adds bytes that begin at an offset; those that were added before are passed over.
    pub fn absorb(&mut self, offset: u64, bytes: &[u8]) {
        let known = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut rest = bytes.get(known..).unwrap_or_default();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK_BYTES - self.in_block));
            self.block.update(now);
            self.in_block += now.len();
            self.length += now.len() as u64;
            if self.in_block == BLOCK_BYTES {
                self.blocks.update(std::mem::take(&mut self.block).finalize());
                self.in_block = 0;
            }
            rest = later;
        }
    }

    /// The hash so far, in hexadecimal as Dropbox writes it.
    pub fn text(&self) -> String {
        let mut blocks = self.blocks.clone();
        if self.in_block > 0 {
            blocks.update(self.block.clone().finalize());
        }
        blocks.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha256(bytes: &[u8]) -> Vec<u8> {
        Sha256::digest(bytes).to_vec()
    }

    fn hexadecimal(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn nothing_has_the_hash_of_the_api_description() {
        // The example of FileMetadata in Dropbox's API description is an empty file's, SHA-256 of nothing (FIPS 180-4).
        assert_eq!(ContentHash::of(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn blocks_are_hashed_and_their_hashes_are_hashed() {
        // SHA-256 of "abc" is FIPS 180-4's example; the content hash of one short block is the hash of that.
        assert_eq!(hexadecimal(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(ContentHash::of(b"abc"), hexadecimal(&sha256(&sha256(b"abc"))));
        let bytes: Vec<u8> = (0..BLOCK_BYTES + 5).map(|at| at as u8).collect();
        for length in [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, BLOCK_BYTES + 5] {
            let hashes: Vec<u8> = bytes[..length].chunks(BLOCK_BYTES).flat_map(sha256).collect();
            assert_eq!(ContentHash::of(&bytes[..length]), hexadecimal(&sha256(&hashes)), "{length}");
        }
    }

    #[test]
    fn bytes_that_come_again_count_once() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut hash = ContentHash::default();
        for (from, to) in [(0, 40), (0, 40), (20, 40), (20, 70), (70, 70), (70, 100), (60, 100)] {
            hash.absorb(from as u64, &bytes[from..to]);
        }
        assert_eq!(hash.text(), ContentHash::of(&bytes));
    }
}
