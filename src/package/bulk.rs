//! The cipher for what is large: AES-256-GCM over chunks of payload, from one buffer into another.
//!
//! The implementation is AWS-LC's, through aws-lc-rs, which TLS brings along anyway; ARCHITECTURE.md ("Decisions") has the measurements. RustCrypto's
//! `aes-gcm` does the key wraps and is the second opinion: tests hold the two against each other on random messages and on forgeries, and both
//! against the published vectors.
//!
//! Out of place on purpose. Opening leaves the ciphertext as it came and puts plaintext only where it is meant to stay, so there is no second
//! buffer to overwrite. On a forged tag AWS-LC clears what it wrote, and so does [`BulkKey::open`], which relies on nobody for that.
//!
//! The expanded key lives in memory of AWS-LC, on the ordinary heap and not in the arena of [`crate::secret`]. It exists as long as one
//! object is sealed or opened, opens that object only, and is overwritten when it is freed (`OPENSSL_free` cleanses what it frees).

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize;

use crate::error::{Error, Kind, Result, Stage};

/// Bytes of a tag.
pub(super) const TAG: usize = 16;
/// Bytes of a nonce.
pub(super) const NONCE: usize = 12;

/// A key for chunks. Nonces are the caller's to choose, and to use once for sealing.
pub(super) struct BulkKey {
    key: LessSafeKey,
}

impl BulkKey {
    /// Expands a key of 32 bytes.
    pub(super) fn new(key: &[u8]) -> Result<BulkKey> {
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| defect())?;
        Ok(BulkKey { key: LessSafeKey::new(key) })
    }

    /// Seals `plain` into `sealed`, which has its length and that of a tag.
    pub(super) fn seal(&self, nonce: [u8; NONCE], plain: &[u8], sealed: &mut [u8]) -> Result<()> {
        let (body, tag) = sealed.split_at_mut_checked(plain.len()).filter(|(_, tag)| tag.len() == TAG).ok_or_else(defect)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_out_of_place_scatter(nonce, Aad::empty(), plain, body, &[], tag).map_err(|_| defect())
    }

    /// Opens `sealed` into `plain`, which has its length without the tag. What is not genuine leaves zeros and the answer `false`.
    #[must_use]
    pub(super) fn open(&self, nonce: [u8; NONCE], sealed: &[u8], plain: &mut [u8]) -> bool {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = sealed
            .split_at_checked(plain.len())
            .filter(|(_, tag)| tag.len() == TAG)
            .is_some_and(|(body, tag)| self.key.open_separate_gather(nonce, Aad::empty(), body, tag, plain).is_ok());
        if !opened {
            plain.zeroize();
        }
        opened
    }
}

fn defect() -> Error {
    Error::new(Kind::Internal, "a chunk could not be sealed").at(Stage::Package)
}

#[cfg(test)]
mod tests {
    use aes_gcm::aead::{AeadInOut, KeyInit};
    use aes_gcm::{Aes256Gcm, Tag};
    use proptest::prelude::*;

    use super::*;

    /// The other implementation: body and tag.
    fn seal_elsewhere(key: &[u8; 32], nonce: [u8; NONCE], plain: &[u8]) -> Vec<u8> {
        let mut body = plain.to_vec();
        let tag = Aes256Gcm::new(&(*key).into()).encrypt_inout_detached(&nonce.into(), &[], body.as_mut_slice().into()).unwrap();
        body.extend_from_slice(&tag);
        body
    }

    fn open_elsewhere(key: &[u8; 32], nonce: [u8; NONCE], sealed: &[u8]) -> Option<Vec<u8>> {
        let (body, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG)?)?;
        let (mut body, tag) = (body.to_vec(), Tag::try_from(tag).ok()?);
        let cipher = Aes256Gcm::new(&(*key).into());
        cipher.decrypt_inout_detached(&nonce.into(), &[], body.as_mut_slice().into(), &tag).ok().map(|()| body)
    }

    fn check(key: [u8; 32], nonce: [u8; NONCE], plain: &[u8], flip: usize) {
        let bulk = BulkKey::new(&key).unwrap();
        let mut sealed = vec![0xAA; plain.len() + TAG];
        bulk.seal(nonce, plain, &mut sealed).unwrap();
        assert_eq!(sealed, seal_elsewhere(&key, nonce, plain), "both seal alike");
        let mut opened = vec![0x55; plain.len()];
        assert!(bulk.open(nonce, &sealed, &mut opened) && opened == plain);
        assert_eq!(open_elsewhere(&key, nonce, &sealed).as_deref(), Some(plain));

        let bit = flip % (sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        opened.fill(0x55);
        assert!(!bulk.open(nonce, &sealed, &mut opened), "bit {bit} of {}", sealed.len());
        assert!(opened.iter().all(|byte| *byte == 0), "a forged chunk leaves no plaintext");
        assert_eq!(open_elsewhere(&key, nonce, &sealed), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn two_implementations_agree_on_every_length(
            key: [u8; 32], nonce: [u8; NONCE], plain in proptest::collection::vec(any::<u8>(), 0..2000), flip: usize,
        ) {
            check(key, nonce, &plain, flip);
        }
    }

    #[test]
    fn two_implementations_agree_around_the_length_of_a_chunk() {
        // Wide code paths begin and end at multiples of the block: 96, 128 and 256 bytes in the vector implementations.
        for length in [0, 1, 15, 16, 17, 95, 96, 97, 127, 128, 255, 256, 257, 4096, 16_367, 16_368, 16_383, 16_384, 16_385] {
            let plain: Vec<u8> = (0..length).map(|at| (at * 31 % 251) as u8).collect();
            check([length as u8; 32], [3; NONCE], &plain, length * 7 + 3);
        }
    }

    #[test]
    fn buffers_of_the_wrong_length_are_refused_and_left_empty() {
        let bulk = BulkKey::new(&[1; 32]).unwrap();
        assert!(bulk.seal([0; NONCE], &[1; 8], &mut [0; 8 + TAG - 1]).is_err());
        assert!(bulk.seal([0; NONCE], &[1; 8], &mut [0; 8 + TAG + 1]).is_err());
        assert!(bulk.seal([0; NONCE], &[1; 8], &mut [0; 4]).is_err());
        let mut sealed = [0; 8 + TAG];
        bulk.seal([0; NONCE], &[1; 8], &mut sealed).unwrap();
        for length in [0, 7, 9, 100] {
            let mut plain = vec![7; length];
            assert!(!bulk.open([0; NONCE], &sealed, &mut plain));
            assert!(plain.iter().all(|byte| *byte == 0), "{length}");
        }
        assert!(BulkKey::new(&[1; 31]).is_err() && BulkKey::new(&[1; 33]).is_err());
    }
}
