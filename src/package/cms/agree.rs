//! From an ephemeral key and a wrapped one to the content key: ECDH, the X9.63 KDF, AES key unwrap.
//!
//! SEC 1, 3.6.1 (the KDF, which is that of ANSI X9.63), RFC 5753, 7.2 (what goes into it), RFC 3394 (the wrap).

use aes::Aes256;
use aes_kw::AesKw;
use aes_kw::cipher::KeyInit;
use sha1::Sha1;
use sha2::digest::{Digest, Output};
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroize;

use super::envelope::{Kdf, Recipient, shared_info};
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::KeyStore;
use crate::secret::Secret;

/// The content key, or a random one in its place, and what kept an identity from being tried.
pub(super) struct Found {
    pub(super) key: Secret<[u8; 32]>,
    /// A token that did not answer. Told where authentication fails, whether the key was found or not.
    pub(super) unavailable: Option<Error>,
}

/// The content key, by every identity of the store against every wrapped key; the check value of the wrap (64 bits) tells the right one.
///
/// When there is none, the answer is a random key, not an error. Authentication then fails exactly as it does for a content key that was
/// unwrapped from a forged object, after the same work. So whoever can put objects into the store learns nothing from it about which
/// wrapped keys open, and there is one error for every cryptographic failure.
pub(super) fn content_key(recipients: &[Recipient], keys: &KeyStore) -> Result<Found> {
    let mut content_key = Secret::new([0; 32]);
    let (mut is_ours, mut unavailable) = (false, None);
    getrandom::fill(content_key.expose_mut())
        .map_err(|_| Error::new(Kind::Internal, "the system gives no random numbers").at(Stage::Package))?;
    for private in keys.openers()? {
        let private = match private {
            Ok(private) => private,
            Err(error) => {
                unavailable.get_or_insert(error);
                continue;
            }
        };
        for recipient in recipients {
            let shared = match private.agree(&recipient.originator) {
                Ok(shared) => shared,
                Err(error) => {
                    unavailable.get_or_insert(error);
                    continue;
                }
            };
            let wrapping = wrapping_key(recipient.kdf, shared.expose(), &shared_info(recipient.ukm.as_deref()));
            for wrapped in &recipient.wrapped {
                // Goes on after a success: the store sees how long this takes, between two of its answers.
                if let Some(key) = unwrap(&wrapping, wrapped)
                    && !is_ours
                {
                    content_key = key;
                    is_ours = true;
                }
            }
        }
    }
    Ok(Found { key: content_key, unavailable })
}

fn wrapping_key(kdf: Kdf, shared: &[u8], info: &[u8]) -> Secret<[u8; 32]> {
    match kdf {
        Kdf::Sha1 => x963::<Sha1>(shared, info),
        Kdf::Sha256 => x963::<Sha256>(shared, info),
        Kdf::Sha384 => x963::<Sha384>(shared, info),
        Kdf::Sha512 => x963::<Sha512>(shared, info),
    }
}

/// Hash(shared ‖ counter ‖ info) for the counters 1, 2, .. until there are 32 bytes (SEC 1, 3.6.1).
fn x963<D: Digest>(shared: &[u8], info: &[u8]) -> Secret<[u8; 32]> {
    let mut key = Secret::new([0; 32]);
    for (counter, part) in (1u32..).zip(key.expose_mut().chunks_mut(<D as Digest>::output_size())) {
        let mut block: Output<D> = D::new().chain_update(shared).chain_update(counter.to_be_bytes()).chain_update(info).finalize();
        part.iter_mut().zip(block.iter()).for_each(|(place, byte)| *place = *byte);
        block.as_mut_slice().zeroize();
    }
    key
}

/// The key, if its check value agrees.
fn unwrap(wrapping: &Secret<[u8; 32]>, wrapped: &[u8; 40]) -> Option<Secret<[u8; 32]>> {
    let mut key = Secret::new([0; 32]);
    AesKw::<Aes256>::new(wrapping.expose().into()).unwrap_key(wrapped, key.expose_mut()).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::unhex;

    fn bytes(text: &str) -> Vec<u8> {
        unhex(text.as_bytes()).unwrap()
    }

    /// RFC 3394, 4.6.
    #[test]
    fn the_wrap_is_that_of_the_rfc() {
        let wrapping = Secret::new(bytes("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f").try_into().unwrap());
        let mut wrapped: [u8; 40] =
            bytes("28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21").try_into().unwrap();
        let expected = bytes("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f");
        assert_eq!(unwrap(&wrapping, &wrapped).unwrap().expose().as_slice(), expected);
        wrapped[39] ^= 1;
        assert!(unwrap(&wrapping, &wrapped).is_none());
    }

    /// The shared info by hand from RFC 5753, 7.2, and keys from
    /// `openssl kdf -keylen 32 -kdfopt digest:SHA384 -kdfopt hexsecret:$(printf '0b%.0s' {1..48}) -kdfopt hexinfo:INFO X963KDF`.
    #[test]
    fn keys_are_derived_as_openssl_derives_them() {
        let plain = "3015300b060960864801650304012da206040400000100";
        let ukm = "301d300b060960864801650304012da0060404aabbccdda206040400000100";
        assert_eq!(shared_info(None), bytes(plain));
        assert_eq!(shared_info(Some(&[0xaa, 0xbb, 0xcc, 0xdd])), bytes(ukm));
        for (kdf, info, expected) in [
            (Kdf::Sha1, plain, "77c54f8352a588d915912cb7669b256873bc8e2b20f26202d853fe581ca94380"),
            (Kdf::Sha256, plain, "87c8f82cd73f03f2b982ed8b470ef6fd7de3819a30f9f8e456bef5739264a13a"),
            (Kdf::Sha384, plain, "f74a16ef4db66597df7f97912c49047970c2229cbf4afe0222f5bc92a381688f"),
            (Kdf::Sha512, plain, "c421fccc1fee9f410d514513fde3cec6f05f5a904801960d5c3808e6491b3b78"),
            (Kdf::Sha384, ukm, "abc319e940fb8edec642a0a587628130f69c278ef44b5997fbfb63fdcd1b6cac"),
        ] {
            assert_eq!(wrapping_key(kdf, &[0x0b; 48], &bytes(info)).expose().as_slice(), bytes(expected), "{kdf:?}");
        }
    }
}
