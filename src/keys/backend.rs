//! Where private keys are and what is asked of them: to agree and to sign, and nothing else.
//!
//! Everything above the key store works with this trait, so a key in locked memory and a key inside a hardware token take one path. There is
//! no way to ask for the key itself.

use p384::PublicKey;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// Bytes of a P-384 coordinate, hence of a shared secret.
pub(crate) const COORDINATE: usize = 48;

/// The private half of an identity.
pub(crate) trait PrivateKeys: Send + Sync {
    /// ECDH (SEC 1, 3.3.1) with an uncompressed point of 97 bytes: the x coordinate of the shared point.
    ///
    /// A point off the curve or at infinity is `KeyInvalid`, so the exchange cannot be steered into a small group. Any other kind speaks
    /// of the place where the key is: a token that is not there, for example.
    fn agree(&self, point: &[u8]) -> Result<Secret<[u8; COORDINATE]>>;

    /// Strict DER ECDSA signature with SHA-384 over a message.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>>;
}

/// A peer's point, on the curve, in its uncompressed form (SEC 1, 2.3.3): the only one that is agreed with.
pub(super) fn uncompressed_point(point: &[u8]) -> Result<PublicKey> {
    let refused = || Error::new(Kind::KeyInvalid, "not an uncompressed point of P-384");
    if point.len() != 2 * COORDINATE + 1 {
        return Err(refused());
    }
    PublicKey::from_sec1_bytes(point).map_err(|_| refused())
}
