//! The private half of an identity: one P-384 key to agree, one to sign.
//!
//! Two keys, because a key that both decrypts and signs turns every weakness of one use into a weakness of the other, and because a lost signing key
//! must not force old studies to be sealed again. The scalars live in one locked block of memory; the arithmetic types are made for a
//! single operation and erase themselves.

use p384::SecretKey;
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{DerSignature, SigningKey};
use p384::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use zeroize::{Zeroize, Zeroizing};

use super::backend::{COORDINATE as SCALAR, PrivateKeys, uncompressed_point};
use super::fingerprint::PublicPair;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// The private keys of an identity.
pub(crate) struct PrivatePair {
    agree: Secret<[u8; SCALAR]>,
    sign: Secret<[u8; SCALAR]>,
}

impl PrivatePair {
    /// Two fresh keys.
    pub(super) fn generate() -> Result<PrivatePair> {
        Ok(PrivatePair { agree: fresh_scalar()?, sign: fresh_scalar()? })
    }

    /// Reads both keys from their PKCS#8 DER.
    pub(super) fn from_pkcs8(agree: &[u8], sign: &[u8]) -> Result<PrivatePair> {
        Ok(PrivatePair { agree: scalar_of(agree)?, sign: scalar_of(sign)? })
    }

    /// Both keys as PKCS#8 DER, agree key first.
    pub(super) fn to_pkcs8(&self) -> Result<[Zeroizing<Vec<u8>>; 2]> {
        let encode = |scalar: &Secret<[u8; SCALAR]>| {
            let document = key(scalar)?.to_pkcs8_der().map_err(|_| defect())?;
            Ok(Zeroizing::new(document.as_bytes().to_vec()))
        };
        Ok([encode(&self.agree)?, encode(&self.sign)?])
    }

    /// The public half.
    pub(super) fn public(&self) -> Result<PublicPair> {
        PublicPair::new(key(&self.agree)?.public_key(), key(&self.sign)?.public_key())
    }

    /// A pair with a given agree key, as test vectors have it.
    #[cfg(test)]
    pub(crate) fn of_agree_scalar(scalar: &[u8]) -> PrivatePair {
        PrivatePair { agree: Secret::new(scalar.try_into().unwrap()), sign: fresh_scalar().unwrap() }
    }
}

impl PrivateKeys for PrivatePair {
    fn agree(&self, point: &[u8]) -> Result<Secret<[u8; SCALAR]>> {
        let public = uncompressed_point(point)?;
        let mut shared = Secret::new([0u8; SCALAR]);
        shared.expose_mut().copy_from_slice(key(&self.agree)?.diffie_hellman(&public).raw_secret_bytes());
        Ok(shared)
    }

    /// Deterministic (RFC 6979), so a weak generator cannot give the key away.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let signature: DerSignature = SigningKey::from(key(&self.sign)?).try_sign(message).map_err(|_| defect())?;
        Ok(signature.as_bytes().to_vec())
    }
}

/// A uniform scalar by rejection (FIPS 186-5, A.2.2): random bytes are drawn again while they are zero or not below the group order.
fn fresh_scalar() -> Result<Secret<[u8; SCALAR]>> {
    let mut scalar = Secret::new([0u8; SCALAR]);
    loop {
        super::rest::fill_random(scalar.expose_mut())?;
        // The order of P-384 is so close to 2^384 that a second draw happens once in 2^190 times.
        if SecretKey::from_slice(scalar.expose()).is_ok() {
            return Ok(scalar);
        }
    }
}

fn scalar_of(pkcs8: &[u8]) -> Result<Secret<[u8; SCALAR]>> {
    let key = SecretKey::from_pkcs8_der(pkcs8).map_err(|_| Error::new(Kind::KeyInvalid, "not a P-384 private key"))?;
    let mut bytes = key.to_bytes();
    let mut scalar = Secret::new([0u8; SCALAR]);
    scalar.expose_mut().copy_from_slice(&bytes);
    bytes.zeroize();
    Ok(scalar)
}

fn key(scalar: &Secret<[u8; SCALAR]>) -> Result<SecretKey> {
    SecretKey::from_slice(scalar.expose()).map_err(|_| defect())
}

fn defect() -> Error {
    Error::new(Kind::Internal, "a private key could not be used").at(crate::error::Stage::Keys)
}
