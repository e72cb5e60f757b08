//! The envelope of a CMS object: everything that stands before the first encrypted byte, and where the rest lies.
//!
//! RFC 5083 (AuthEnvelopedData), RFC 5652 (its parts), RFC 5753 (ECDH), RFC 5084 (AES-GCM):
//! ```text
//! ContentInfo SEQUENCE { id-ct-authEnvelopedData, [0] {
//!   AuthEnvelopedData SEQUENCE { 0, RecipientInfos SET,
//!     SEQUENCE { id-data, SEQUENCE { aes256-GCM, SEQUENCE { nonce, 16 } }, [0] encrypted bytes },
//!     mac OCTET STRING } } }
//! ```
//! Accepted is what OpenSSL 3 writes with the options in docs/cms-import.md and nothing else. **Every** recipient must be of the one accepted
//! suite, other people's too: a study is as secret as its weakest recipient makes it, and a list that has to be understood only in part is
//! where two readers begin to differ.
//!
//! The whole size of the object is known beforehand, so the lengths of the containers around the content (each definite or open) fix
//! where content and tag lie before a byte of them has come: attributes, trailing bytes and shortened objects cannot fit.

use std::ops::Range;

use p384::PublicKey;

use super::ber::{self, BIT_STRING, INTEGER, Length, OBJECT_ID, OCTET_STRING, Reader, SEQUENCE, SET, context, context_container};
use super::malformed;
use crate::error::{Error, Kind, Result};

/// The envelope lies within so many bytes of the beginning: room for 64 recipients with long names.
pub(super) const MAX_ENVELOPE: usize = 64 << 10;
/// Wrapped keys in one object, at most.
const MAX_RECIPIENTS: usize = 64;
/// Bytes of the authentication tag, with its tag and length.
const TAG: u64 = 16;
const TAG_VALUE: u64 = 2 + TAG;

// Object identifiers, the bytes behind tag and length, each with its source.
/// id-ct-authEnvelopedData, RFC 5083, 2
const AUTH_ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x17];
/// id-envelopedData, RFC 5652, 6.1
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
/// id-data, RFC 5652, 4
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// id-aes256-GCM, RFC 5084, 3.2
const AES_256_GCM: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2e];
/// id-aes256-wrap, RFC 3565, 2.3.2
pub(super) const AES_256_WRAP: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2d];
/// id-ecPublicKey, RFC 5480, 2.1.1
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// secp384r1, RFC 5480, 2.1.1.1
const SECP384R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
/// dhSinglePass-stdDH-sha1kdf-scheme, RFC 5753, 7.1.4
const KDF_SHA1: &[u8] = &[0x2b, 0x81, 0x05, 0x10, 0x86, 0x48, 0x3f, 0x00, 0x02];
/// dhSinglePass-stdDH-sha256kdf-scheme, sha384 and sha512, RFC 5753, 7.1.4
const KDF_SHA256: &[u8] = &[0x2b, 0x81, 0x04, 0x01, 0x0b, 0x01];
const KDF_SHA384: &[u8] = &[0x2b, 0x81, 0x04, 0x01, 0x0b, 0x02];
const KDF_SHA512: &[u8] = &[0x2b, 0x81, 0x04, 0x01, 0x0b, 0x03];

/// Hash of the key derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kdf {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// One ephemeral key and the content key wrapped under it, for one recipient or several.
pub(super) struct Recipient {
    /// Uncompressed point, known to lie on P-384.
    pub(super) originator: [u8; 97],
    /// User keying material (RFC 5753, 7.2), when there is some.
    pub(super) ukm: Option<Vec<u8>>,
    pub(super) kdf: Kdf,
    pub(super) wrapped: Vec<[u8; 40]>,
}

/// What stands before the content.
pub(super) struct Envelope {
    pub(super) recipients: Vec<Recipient>,
    pub(super) nonce: [u8; 12],
    pub(super) layout: Layout,
}

/// Where content and tag lie in the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The bytes inside the content's own tag and length.
    pub(super) content: Range<u64>,
    /// Whether these are OCTET STRINGs with a part each, or the encrypted bytes themselves.
    pub(super) segmented: bool,
    /// Bytes that must follow the content, with sixteen bytes of tag in the place of `tag`.
    pub(super) trailer: Vec<u8>,
    /// Where in the trailer the tag lies.
    pub(super) tag: Range<usize>,
}

impl Envelope {
    /// Parses the beginning of an object of `size` bytes: `bytes` are its first [`MAX_ENVELOPE`], or all of it. Nothing that it yields is
    /// authenticated yet.
    pub(super) fn parse(bytes: &[u8], size: u64, allow_sha1: bool) -> Result<Envelope> {
        let mut reader = Reader::new(bytes.get(..MAX_ENVELOPE).unwrap_or(bytes));
        let around = |length, reader: &Reader<'_>| Around { length, start: reader.position() as u64 };

        let length = reader.open(SEQUENCE, "not a CMS object in DER or BER")?;
        let content_info = around(length, &reader);
        content_type(reader.value(OBJECT_ID, "not a CMS object in DER or BER")?)?;
        let length = reader.open(context_container(0), "the content info holds nothing")?;
        let explicit = around(length, &reader);
        let length = reader.open(SEQUENCE, "the authenticated envelope is missing")?;
        let enveloped = around(length, &reader);
        reader.exactly(INTEGER, &[0], "the version of the envelope is not 0")?;
        if reader.peek() == Some(context_container(0)) {
            return Err(malformed("originator info, which is not accepted"));
        }
        let recipients = recipients(reader.container(SET, "the recipients are not one set of definite length within 64 KiB")?, allow_sha1)?;

        let length = reader.open(SEQUENCE, "the encrypted content is missing")?;
        let encrypted = around(length, &reader);
        reader.exactly(OBJECT_ID, DATA, "the content is not plain data")?;
        let nonce = gcm_nonce(reader.container(SEQUENCE, "the content's algorithm is missing")?)?;
        let segmented = match reader.peek() {
            Some(tag) if tag == context(0) => false,
            Some(tag) if tag == context_container(0) => true,
            _ => return Err(malformed("the encrypted bytes are missing")),
        };
        let tag = if segmented { context_container(0) } else { context(0) };
        let length = reader.open(tag, "the encrypted bytes are missing")?;
        if !segmented && length == Length::Indefinite {
            return Err(malformed("encrypted bytes without a length"));
        }
        let content = around(length, &reader);
        Ok(Envelope { recipients, nonce, layout: layout(size, &[content_info, explicit, enveloped], encrypted, content, segmented)? })
    }
}

/// A container that ends after the envelope: where its inside begins, and how long it says that is.
struct Around {
    length: Length,
    start: u64,
}

impl Around {
    /// Where the inside ends, for a container that ends at `end`; the end-of-contents mark of an open one stands before that.
    fn inside_end(&self, end: u64, trailer: &mut Vec<u8>) -> Result<u64> {
        let inside = match self.length {
            Length::Definite(length) => self.start.checked_add(length).filter(|inside| *inside == end),
            Length::Indefinite => end.checked_sub(2),
        };
        if self.length == Length::Indefinite {
            trailer.extend([0, 0]);
        }
        inside.filter(|inside| *inside >= self.start).ok_or_else(|| malformed("the lengths do not add up to the size of the object"))
    }
}

/// Works inwards from the end of the object. What must stand between the content and the end is known by then, byte for byte.
fn layout(size: u64, outer: &[Around], encrypted: Around, content: Around, segmented: bool) -> Result<Layout> {
    let mut behind_tag = Vec::new();
    let mut end = size;
    for container in outer {
        end = container.inside_end(end, &mut behind_tag)?;
    }
    let tag_value = end.checked_sub(TAG_VALUE).ok_or_else(|| malformed("the object is too short for a tag"))?;
    let mut trailer = Vec::new();
    let encrypted_end = encrypted.inside_end(tag_value, &mut trailer)?;
    let content_end = content.inside_end(encrypted_end, &mut trailer)?;
    trailer.extend([OCTET_STRING, TAG as u8]);
    let tag = trailer.len()..trailer.len() + TAG as usize;
    trailer.extend([0; TAG as usize]);
    trailer.extend(behind_tag);
    Ok(Layout { content: content.start..content_end, segmented, trailer, tag })
}

/// The type of the whole object. The one common mistake, CBC instead of GCM, has a text of its own.
fn content_type(found: &[u8]) -> Result<()> {
    match found {
        AUTH_ENVELOPED_DATA => Ok(()),
        ENVELOPED_DATA => Err(unsupported("encrypted without authentication").with_hint("encrypt with openssl cms -encrypt -aes-256-gcm")),
        _ => Err(unsupported("not an authenticated envelope").with_hint("encrypt with openssl cms -encrypt -aes-256-gcm")),
    }
}

/// AlgorithmIdentifier of the content: AES-256-GCM with a nonce of 12 bytes and a tag of 16 (RFC 5084, 3.2).
fn gcm_nonce(mut algorithm: Reader<'_>) -> Result<[u8; 12]> {
    if algorithm.value(OBJECT_ID, "the content's algorithm is missing")? != AES_256_GCM {
        return Err(
            unsupported("the content is not encrypted with AES-256-GCM").with_hint("encrypt with openssl cms -encrypt -aes-256-gcm")
        );
    }
    let mut parameters = algorithm.container(SEQUENCE, "the parameters of AES-GCM are missing")?;
    algorithm.finish("something follows the parameters of AES-GCM")?;
    let nonce = parameters.value(OCTET_STRING, "the nonce is missing")?;
    let nonce = nonce.try_into().map_err(|_| malformed("the nonce has not 12 bytes"))?;
    // A length that is left out means 12 bytes, which is too short to be accepted.
    parameters.exactly(INTEGER, &[TAG as u8], "the authentication tag has not 16 bytes")?;
    parameters.finish("something follows the length of the tag")?;
    Ok(nonce)
}

/// RecipientInfos: 1 to 64 wrapped keys, all by key agreement.
fn recipients(mut set: Reader<'_>, allow_sha1: bool) -> Result<Vec<Recipient>> {
    let (mut recipients, mut keys) = (Vec::new(), 0);
    while !set.is_empty() {
        // RFC 5652, 6.2: a plain SEQUENCE is a key transported by RSA, [2] to [4] are shared keys, passwords and others.
        if set.peek() != Some(context_container(1)) {
            return Err(unsupported("a recipient without key agreement: an RSA key, a password or another shared secret")
                .with_hint("encrypt for certificates of P-384 keys only"));
        }
        let recipient = recipient(set.container(context_container(1), "a recipient is cut short")?, allow_sha1)?;
        keys += recipient.wrapped.len();
        if keys > MAX_RECIPIENTS {
            return Err(malformed("more than 64 recipients"));
        }
        recipients.push(recipient);
    }
    if recipients.is_empty() { Err(malformed("no recipient")) } else { Ok(recipients) }
}

/// KeyAgreeRecipientInfo (RFC 5652, 6.2.2).
fn recipient(mut info: Reader<'_>, allow_sha1: bool) -> Result<Recipient> {
    info.exactly(INTEGER, &[3], "the version of a recipient is not 3")?;
    let mut originator = info.container(context_container(0), "a recipient has no originator")?;
    if originator.peek() != Some(context_container(1)) {
        return Err(unsupported("the sender's key is named and not ephemeral"));
    }
    let originator_key = originator.container(context_container(1), "the originator's key is cut short")?;
    originator.finish("something follows the originator's key")?;
    let originator = point(originator_key)?;
    let ukm = match info.peek() {
        Some(tag) if tag == context_container(1) => {
            let mut explicit = info.container(context_container(1), "the keying material is cut short")?;
            let ukm = explicit.value(OCTET_STRING, "the keying material is not a string")?.to_vec();
            explicit.finish("something follows the keying material")?;
            Some(ukm)
        }
        _ => None,
    };
    let kdf = key_encryption(info.container(SEQUENCE, "a recipient has no algorithm")?, allow_sha1)?;
    let mut keys = info.container(SEQUENCE, "a recipient has no wrapped key")?;
    info.finish("something follows the wrapped keys")?;
    let mut wrapped = Vec::new();
    while !keys.is_empty() {
        let mut key = keys.container(SEQUENCE, "a wrapped key is cut short")?;
        // Who it is for, by certificate or key identifier. Not read: every own key is tried, so any certificate for the key serves.
        match key.peek() {
            Some(SEQUENCE) => key.value(SEQUENCE, "a recipient's name is cut short")?,
            _ => key.value(context_container(0), "a recipient has no name")?,
        };
        let value = key.value(OCTET_STRING, "a wrapped key is missing")?;
        key.finish("something follows a wrapped key")?;
        if wrapped.len() >= MAX_RECIPIENTS {
            return Err(malformed("more than 64 recipients"));
        }
        wrapped.push(value.try_into().map_err(|_| malformed("a wrapped key has not 40 bytes"))?);
    }
    if wrapped.is_empty() {
        return Err(malformed("a recipient has no wrapped key"));
    }
    Ok(Recipient { originator, ukm, kdf, wrapped })
}

/// OriginatorPublicKey (RFC 5753, 3.1.1): a point of P-384, uncompressed.
fn point(mut key: Reader<'_>) -> Result<[u8; 97]> {
    let other_curve = || {
        unsupported("a recipient whose key is not on the curve P-384").with_hint("every recipient's certificate must be for a P-384 key")
    };
    let mut algorithm = key.container(SEQUENCE, "the originator's key has no algorithm")?;
    algorithm.exactly(OBJECT_ID, EC_PUBLIC_KEY, "the originator's key is not of an elliptic curve")?;
    if !algorithm.is_empty() && algorithm.value(OBJECT_ID, "the originator's curve is not named")? != SECP384R1 {
        return Err(other_curve());
    }
    algorithm.finish("something follows the originator's curve")?;
    let bits = key.value(BIT_STRING, "the originator's point is missing")?;
    key.finish("something follows the originator's point")?;
    // The first byte of a BIT STRING counts unused bits. The curve follows from the length: OpenSSL leaves the parameters out.
    let Some((0, point)) = bits.split_first() else { return Err(malformed("the originator's point is cut short")) };
    let point: [u8; 97] = match (point.first(), <[u8; 97]>::try_from(point)) {
        (Some(4), Ok(point)) => point,
        (Some(4), Err(_)) => return Err(other_curve()),
        _ => return Err(malformed("the originator's point is not uncompressed")),
    };
    // A point off the curve could draw a private key out bit by bit; none ever reaches a key.
    PublicKey::from_sec1_bytes(&point).map_err(|_| malformed("the originator's point is not on the curve"))?;
    Ok(point)
}

/// KeyEncryptionAlgorithmIdentifier (RFC 5753, 7.1.4): one-pass Diffie-Hellman with a KDF, around AES-256 key wrap.
fn key_encryption(mut algorithm: Reader<'_>, allow_sha1: bool) -> Result<Kdf> {
    let kdf = match algorithm.value(OBJECT_ID, "a recipient's algorithm is missing")? {
        KDF_SHA256 => Kdf::Sha256,
        KDF_SHA384 => Kdf::Sha384,
        KDF_SHA512 => Kdf::Sha512,
        KDF_SHA1 if allow_sha1 => Kdf::Sha1,
        KDF_SHA1 => {
            let error = unsupported("a key derived with SHA-1, the default of openssl cms");
            return Err(error.with_hint("give openssl cms the option -keyopt ecdh_kdf_md:sha384 after every -recip"));
        }
        _ => return Err(unsupported("a key agreement other than dhSinglePass-stdDH with SHA-2")),
    };
    let mut wrap = algorithm.container(SEQUENCE, "a recipient's key wrap is missing")?;
    algorithm.finish("something follows a recipient's key wrap")?;
    if wrap.value(OBJECT_ID, "a recipient's key wrap is missing")? != AES_256_WRAP {
        return Err(unsupported("a key wrap other than AES-256")
            .with_hint("openssl cms -aes-256-gcm chooses AES-256 for the wrap too; -aes256-wrap asks for it by name"));
    }
    // RFC 3565, 2.3.2: parameters must be absent.
    wrap.finish("a recipient's key wrap has parameters")?;
    Ok(kdf)
}

/// ECC-CMS-SharedInfo (RFC 5753, 7.2), in DER: which cipher the derived key is for, the keying material, the key's length in bits.
pub(super) fn shared_info(ukm: Option<&[u8]>) -> Vec<u8> {
    let key_info = ber::write(SEQUENCE, &ber::write(OBJECT_ID, AES_256_WRAP));
    let entity = ukm.map(|ukm| ber::write(context_container(0), &ber::write(OCTET_STRING, ukm))).unwrap_or_default();
    let bits = ber::write(context_container(2), &ber::write(OCTET_STRING, &256u32.to_be_bytes()));
    ber::write(SEQUENCE, &[key_info, entity, bits].concat())
}

/// Genuine CMS perhaps, but not of the one accepted suite.
fn unsupported(detail: &'static str) -> Error {
    Error::new(Kind::CryptographyRefused, format!("cms: {detail}"))
}
