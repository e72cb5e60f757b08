//! AES-256-GCM over content that is too large to hold: the tag in one pass, the plaintext in another (NIST SP 800-38D, 7.2).
//!
//! An AEAD crate takes a message whole, so here its parts are put together: GHASH and counter mode of the same RustCrypto crates that the `aes-gcm`
//! crate is made of. The two halves are two types, and the second can be had from a tag that agreed only: [`Mac::verified`] gives the
//! [`Keystream`]. All of it runs in constant time for a given length, and erases its keys when dropped.

use aes::Aes256;
use ctr::cipher::{BlockCipherEncrypt, KeyInit, KeyIvInit, StreamCipher};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Longest content: 2^39 - 256 bits (SP 800-38D, 5.2.1.1).
const MAX_CONTENT: u64 = (1 << 36) - 32;

const BLOCK: usize = 16;

/// The tag of ciphertext that comes in pieces.
pub(super) struct Mac {
    ghash: GHash,
    /// The beginning of a block whose rest has not come.
    partial: Zeroizing<[u8; BLOCK]>,
    have: usize,
    length: u64,
    /// What the tag is masked with: the first block of the key stream.
    mask: Zeroizing<[u8; BLOCK]>,
}

impl Mac {
    pub(super) fn new(key: &[u8; 32], nonce: &[u8; 12]) -> Mac {
        let cipher = Aes256::new(key.into());
        let mut subkey = ghash::Key::default();
        cipher.encrypt_block(&mut subkey);
        let ghash = GHash::new(&subkey);
        subkey.zeroize();
        let mut mask = ghash::Block::from(counter_block(nonce, 1));
        cipher.encrypt_block(&mut mask);
        let mac = Mac { ghash, partial: Zeroizing::default(), have: 0, length: 0, mask: Zeroizing::new(mask.into()) };
        mask.zeroize();
        mac
    }

    /// Takes the next ciphertext.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.have > 0 {
            let (filling, rest) = bytes.split_at(bytes.len().min(BLOCK - self.have));
            for (place, byte) in self.partial.iter_mut().skip(self.have).zip(filling) {
                *place = *byte;
            }
            self.have += filling.len();
            bytes = rest;
            if self.have < BLOCK {
                return;
            }
            self.ghash.update(&[(*self.partial).into()]);
            self.have = 0;
        }
        let (whole, tail) = bytes.split_at(bytes.len() - bytes.len() % BLOCK);
        // Whole blocks, so nothing is padded here.
        self.ghash.update_padded(whole);
        for (place, byte) in self.partial.iter_mut().zip(tail) {
            *place = *byte;
        }
        self.have = tail.len();
    }

    /// Whether this is the tag of what was taken; compared in constant time, and never where the length is beyond that of the mode.
    pub(super) fn verified(mut self, tag: &[u8; BLOCK]) -> bool {
        if let Some(rest) = self.partial.get(..self.have) {
            self.ghash.update_padded(rest);
        }
        let mut lengths = [0; BLOCK];
        let (_, content_bits) = lengths.split_at_mut(8);
        content_bits.copy_from_slice(&self.length.saturating_mul(8).to_be_bytes());
        self.ghash.update(&[lengths.into()]);
        let mut found = self.ghash.finalize();
        for (byte, mask) in found.iter_mut().zip(self.mask.iter()) {
            *byte ^= mask;
        }
        let agrees = found.as_slice().ct_eq(tag);
        found.zeroize();
        bool::from(agrees) && self.length <= MAX_CONTENT
    }
}

/// The key stream from the beginning of the content. To be made after the tag agreed.
pub(super) struct Keystream {
    stream: ctr::Ctr32BE<Aes256>,
}

impl Keystream {
    pub(super) fn new(key: &[u8; 32], nonce: &[u8; 12]) -> Keystream {
        Keystream { stream: ctr::Ctr32BE::new(key.into(), &counter_block(nonce, 2).into()) }
    }

    /// Decrypts the next ciphertext in place. `false`, with nothing done, when the counter has come round.
    #[must_use]
    pub(super) fn apply(&mut self, bytes: &mut [u8]) -> bool {
        self.stream.try_apply_keystream(bytes).is_ok()
    }
}

/// J0 for a nonce of 12 bytes is counter 1; content starts at counter 2 (SP 800-38D, 7.1).
fn counter_block(nonce: &[u8; 12], counter: u32) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    for (place, byte) in block.iter_mut().zip(nonce.iter().copied().chain(counter.to_be_bytes())) {
        *place = byte;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes_gcm::Aes256Gcm;
    use aes_gcm::aead::Aead;

    fn unhex(text: &str) -> Vec<u8> {
        crate::keys::unhex(text.as_bytes()).unwrap()
    }

    fn check(key: &[u8; 32], nonce: &[u8; 12], sealed: &[u8], plain: &[u8]) {
        let (content, tag) = sealed.split_at(sealed.len() - 16);
        let tag: [u8; 16] = tag.try_into().unwrap();
        for piece in [1, 3, 15, 16, 17, 4096] {
            let mut mac = Mac::new(key, nonce);
            content.chunks(piece).for_each(|bytes| mac.update(bytes));
            assert!(mac.verified(&tag), "{} bytes by {piece}", content.len());
            let mut stream = Keystream::new(key, nonce);
            let mut bytes = content.to_vec();
            bytes.chunks_mut(piece).for_each(|bytes| assert!(stream.apply(bytes)));
            assert_eq!(bytes, plain);
        }
        for bit in 0..128 {
            let mut wrong = tag;
            wrong[bit / 8] ^= 1 << (bit % 8);
            let mut mac = Mac::new(key, nonce);
            mac.update(content);
            assert!(!mac.verified(&wrong));
        }
    }

    /// McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13 to 15.
    #[test]
    fn the_published_vectors_agree() {
        let zero = ([0u8; 32], [0u8; 12]);
        check(&zero.0, &zero.1, &unhex("530f8afbc74536b9a963b4f1c4cb738b"), &[]);
        check(&zero.0, &zero.1, &unhex("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"), &[0; 16]);
        let key = unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308").try_into().unwrap();
        let nonce = unhex("cafebabefacedbaddecaf888").try_into().unwrap();
        let plain = unhex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        );
        let sealed = unhex(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad\
             b094dac5d93471bdec1a502270e3cc6c",
        );
        check(&key, &nonce, &sealed, &plain);
    }

    #[test]
    fn another_implementation_of_the_mode_agrees_at_every_length() {
        let (key, nonce) = ([0x42; 32], [0x17; 12]);
        let cipher = <Aes256Gcm as aes_gcm::KeyInit>::new(&key.into());
        for length in (0..70).chain([4095, 4096, 4097, 100_000]) {
            let plain: Vec<u8> = (0..length).map(|at: u32| (at % 251) as u8).collect();
            check(&key, &nonce, &cipher.encrypt(&nonce.into(), plain.as_slice()).unwrap(), &plain);
        }
    }
}
