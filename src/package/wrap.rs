//! The package key on its way to a recipient: single-shot HPKE (RFC 9180) in Base mode.
//!
//! Suite DHKEM(P-384, HKDF-SHA384), HKDF-SHA384, AES-256-GCM; the `info` binds package, sender and recipient (see `derive`), the aad is
//! empty. The sender's half is the `hpke` crate's, the recipient's is `hpke_open`, which works with keys in tokens too.
//!
//! Base mode says nothing about who wrapped the key; the ECDSA signature over the header does, and it can be shown to others.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha384;
use hpke::kem::DhP384HkdfSha384;
use hpke::{Deserializable, Kem, OpModeS, Serializable};

use super::hpke_open;
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::{PrivateKeys, PublicPair};
use crate::secret::Secret;

/// Bytes of an encapsulated key: an uncompressed P-384 point (RFC 9180, 7.1, Nenc).
pub(super) const ENCAPSULATED: usize = 97;
/// Bytes of a wrapped package key: 32 and a tag.
pub(super) const WRAPPED: usize = 48;

type PublicKey = <DhP384HkdfSha384 as Kem>::PublicKey;

/// Wraps a package key for a recipient: encapsulated key and ciphertext.
pub(super) fn wrap(key: &[u8; 32], recipient: &PublicPair, info: &[u8]) -> Result<([u8; ENCAPSULATED], [u8; WRAPPED])> {
    let defect = || Error::new(Kind::Internal, "the package key could not be wrapped").at(Stage::Package);
    let public = PublicKey::from_bytes(&recipient.agree_point()).map_err(|_| defect())?;
    let (encapsulated, ciphertext) =
        hpke::single_shot_seal::<AesGcm256, HkdfSha384, DhP384HkdfSha384>(&OpModeS::Base, &public, info, key, &[]).map_err(|_| defect())?;
    let encapsulated = encapsulated.to_bytes().as_slice().try_into().map_err(|_| defect())?;
    Ok((encapsulated, ciphertext.try_into().map_err(|_| defect())?))
}

/// Unwraps a package key. Whatever is wrong (point, tag, another package's key), the answer is the same; only a private key that cannot be
/// asked has an error of its own.
pub(super) fn unwrap(
    private: &dyn PrivateKeys,
    public: &PublicPair,
    encapsulated: &[u8],
    ciphertext: &[u8],
    info: &[u8],
) -> Result<Secret<[u8; 32]>> {
    let failed = || Error::new(Kind::IntegrityFailed, "header: the wrapped package key does not open");
    let plain = hpke_open::open(private, &public.agree_point(), encapsulated, ciphertext, info, &[])?.ok_or_else(failed)?;
    if plain.len() != 32 {
        return Err(failed());
    }
    let mut key = Secret::new([0u8; 32]);
    key.expose_mut().copy_from_slice(&plain);
    Ok(key)
}
