//! Opening HPKE (RFC 9180) with a private key that cannot be had.
//!
//! The `hpke` crate wants the recipient's scalar. A key inside a token never leaves it and only answers ECDH, so the receiver's half of the one
//! suite that packages use stands here, on top of [`PrivateKeys::agree`]: DHKEM(P-384, HKDF-SHA384) `Decap`, the key schedule of Base mode and
//! the first message under AES-256-GCM. Keys in memory take the same path, so there is one to review. The sender's half stays the
//! crate's; tests hold the two against each other and against vectors of two more implementations.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::{Hkdf, HkdfExtract};
use sha2::Sha384;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Kind, Result};
use crate::keys::PrivateKeys;

/// `suite_id` of the KEM (RFC 9180, 4.1): "KEM" and kem_id 0x0011.
const KEM_SUITE: &[u8] = b"KEM\x00\x11";

/// `suite_id` of the whole (RFC 9180, 5.1): "HPKE", kem_id 0x0011, kdf_id 0x0002, aead_id 0x0002.
const SUITE: &[u8] = b"HPKE\x00\x11\x00\x02\x00\x02";

const VERSION: &[u8] = b"HPKE-v1";
const MODE_BASE: u8 = 0;
/// Nsecret and Nh: bytes of SHA-384.
const HASH: usize = 48;

/// Opens the one ciphertext of a single-shot Base mode encryption; `None` when it does not open, whatever is wrong with it.
///
/// `public` is the recipient's own public key, uncompressed. An error is the private key's own: a token that does not answer.
pub(super) fn open(
    private: &dyn PrivateKeys,
    public: &[u8],
    encapsulated: &[u8],
    ciphertext: &[u8],
    info: &[u8],
    aad: &[u8],
) -> Result<Option<Zeroizing<Vec<u8>>>> {
    // Decap (4.1). `agree` takes nothing but an uncompressed point on the curve.
    let shared = match private.agree(encapsulated) {
        Ok(shared) => shared,
        Err(error) if error.kind() == Kind::KeyInvalid => return Ok(None),
        Err(error) => return Err(error),
    };
    let prk = extract(KEM_SUITE, &[], b"eae_prk", shared.expose());
    Ok(schedule(&prk, public, encapsulated, info).and_then(|(cipher, nonce)| {
        let nonce = Nonce::try_from(nonce.as_ref()).ok()?;
        cipher.decrypt(&nonce, Payload { msg: ciphertext, aad }).ok().map(Zeroizing::new)
    }))
}

/// The rest of `ExtractAndExpand` (4.1) and `KeySchedule` of Base mode (5.1): cipher and nonce of the first message.
fn schedule(prk: &Hkdf<Sha384>, public: &[u8], encapsulated: &[u8], info: &[u8]) -> Option<(Aes256Gcm, Zeroizing<[u8; 12]>)> {
    let mut secret = Zeroizing::new([0u8; HASH]);
    expand(prk, KEM_SUITE, b"shared_secret", &[encapsulated, public], secret.as_mut())?;
    // Base mode: psk and psk_id are empty (5.1.1).
    let (psk_id_hash, info_hash) = (digest(b"psk_id_hash", b""), digest(b"info_hash", info));
    let context: [&[u8]; 3] = [&[MODE_BASE], &psk_id_hash, &info_hash];
    let prk = extract(SUITE, secret.as_ref(), b"secret", b"");
    let (mut key, mut nonce) = (Zeroizing::new([0u8; 32]), Zeroizing::new([0u8; 12]));
    expand(&prk, SUITE, b"key", &context, key.as_mut())?;
    // The sequence number of the first message is 0, so the base nonce is its nonce (5.2).
    expand(&prk, SUITE, b"base_nonce", &context, nonce.as_mut())?;
    Some((Aes256Gcm::new_from_slice(key.as_ref()).ok()?, nonce))
}

/// LabeledExtract (4), ready to be expanded.
fn extract(suite: &[u8], salt: &[u8], label: &[u8], input: &[u8]) -> Hkdf<Sha384> {
    let (mut bytes, prk) = extractor(suite, salt, label, input).finalize();
    bytes.as_mut_slice().zeroize();
    prk
}

/// LabeledExtract of something public.
fn digest(label: &[u8], input: &[u8]) -> [u8; HASH] {
    extractor(SUITE, &[], label, input).finalize().0.into()
}

fn extractor(suite: &[u8], salt: &[u8], label: &[u8], input: &[u8]) -> HkdfExtract<Sha384> {
    let mut extractor = HkdfExtract::<Sha384>::new(Some(salt));
    [VERSION, suite, label, input].iter().for_each(|part| extractor.input_ikm(part));
    extractor
}

/// LabeledExpand (4).
fn expand(prk: &Hkdf<Sha384>, suite: &[u8], label: &[u8], info: &[&[u8]], output: &mut [u8]) -> Option<()> {
    let length = u16::try_from(output.len()).ok()?.to_be_bytes();
    let parts: Vec<&[u8]> = [&length[..], VERSION, suite, label].into_iter().chain(info.iter().copied()).collect();
    prk.expand_multi_info(&parts, output).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::keys::{PrivatePair, unhex};
    use crate::secret::Secret;
    use hpke::aead::AesGcm256;
    use hpke::kdf::HkdfSha384;
    use hpke::kem::DhP384HkdfSha384;
    use hpke::{Kem, OpModeS, Serializable};
    use serde_json::Value;

    /// A recipient of the `hpke` crate's making: its key as we hold it, its public point, and the crate's public key.
    fn recipient() -> (PrivatePair, Vec<u8>, <DhP384HkdfSha384 as Kem>::PublicKey) {
        let (private, public) = DhP384HkdfSha384::gen_keypair();
        (PrivatePair::of_agree_scalar(&private.to_bytes()), public.to_bytes().to_vec(), public)
    }

    #[test]
    fn what_the_hpke_crate_seals_opens() {
        let (private, point, public) = recipient();
        for length in [0usize, 1, 15, 16, 17, 32, 47, 48, 49, 255, 4096] {
            let (plain, info, aad) = (vec![0xa5; length], vec![1; length % 97], vec![2; length % 61]);
            let (enc, ct) =
                hpke::single_shot_seal::<AesGcm256, HkdfSha384, DhP384HkdfSha384>(&OpModeS::Base, &public, &info, &plain, &aad).unwrap();
            let enc = enc.to_bytes();
            assert_eq!(*open(&private, &point, &enc, &ct, &info, &aad).unwrap().unwrap(), plain);
            let (other, other_point, _) = recipient();
            assert!(open(&other, &other_point, &enc, &ct, &info, &aad).unwrap().is_none());
            assert!(open(&private, &other_point, &enc, &ct, &info, &aad).unwrap().is_none(), "the recipient's own point is bound");
            assert!(open(&private, &point, &enc, &ct, &[&info[..], b"x"].concat(), &aad).unwrap().is_none());
            assert!(open(&private, &point, &enc, &ct, &info, &[&aad[..], b"x"].concat()).unwrap().is_none());
        }
    }

    #[test]
    fn a_private_key_that_does_not_answer_is_no_forgery() {
        struct Unplugged;
        impl PrivateKeys for Unplugged {
            fn agree(&self, _: &[u8]) -> Result<Secret<[u8; 48]>> {
                Err(Error::new(Kind::KeyStoreUnavailable, "the token is not there"))
            }
            fn sign(&self, _: &[u8]) -> Result<Vec<u8>> {
                self.agree(&[]).map(|_| Vec::new())
            }
        }
        let (_, point, _) = recipient();
        assert_eq!(open(&Unplugged, &point, &point, &[0; 48], b"", b"").unwrap_err().kind(), Kind::KeyStoreUnavailable);
    }

    /// Vectors frozen from two other implementations, by the scripts tests/interop/hpke_vectors.py and hpke_vectors.mjs.
    #[test]
    fn frozen_vectors_of_two_other_implementations_open_and_their_forgeries_do_not() {
        let files =
            [include_str!("../../tests/data/hpke/python-cryptography.json"), include_str!("../../tests/data/hpke/npm-hpke-core.json")];
        for file in files {
            let file: Value = serde_json::from_str(file).unwrap();
            assert_eq!((&file["kem_id"], &file["kdf_id"], &file["aead_id"], &file["mode"]), (&17.into(), &2.into(), &2.into(), &0.into()));
            let vectors = file["vectors"].as_array().unwrap();
            assert!(vectors.len() >= 10);
            for vector in vectors {
                let field = |name: &str| unhex(vector[name].as_str().unwrap().as_bytes()).unwrap();
                let private = PrivatePair::of_agree_scalar(&field("skR"));
                let (point, enc, ct, info, aad) = (field("pkR"), field("enc"), field("ct"), field("info"), field("aad"));
                let open = |enc: &[u8], ct: &[u8], info: &[u8], aad: &[u8]| open(&private, &point, enc, ct, info, aad).unwrap();
                assert_eq!(*open(&enc, &ct, &info, &aad).unwrap(), field("pt"));
                let flips = |bytes: &[u8]| -> Vec<Vec<u8>> {
                    let positions = [0, bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)];
                    let inside = positions.into_iter().filter(|position| *position < bytes.len());
                    inside.map(|position| bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == position)).collect()).collect()
                };
                assert!(flips(&enc).iter().all(|enc| open(enc, &ct, &info, &aad).is_none()));
                assert!(flips(&ct).iter().all(|ct| open(&enc, ct, &info, &aad).is_none()));
                assert!(flips(&info).iter().all(|info| open(&enc, &ct, info, &aad).is_none()));
                assert!(flips(&aad).iter().all(|aad| open(&enc, &ct, &info, aad).is_none()));
                assert!(open(&enc[..96], &ct, &info, &aad).is_none() && open(&enc, &ct[..ct.len() - 1], &info, &aad).is_none());
                assert!(open(&[&enc[..], &[0]].concat(), &ct, &info, &aad).is_none() && open(&enc, &ct[..15], &info, &aad).is_none());
            }
        }
    }
}
