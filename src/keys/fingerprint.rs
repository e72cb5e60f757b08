//! Public keys as people and packages name them: SubjectPublicKeyInfo in PEM, and SHA-256 of its DER.
//!
//! An identity shows two P-384 public keys, one to agree on package keys and one to check signatures, as two `PUBLIC KEY` blocks in that order;
//! `openssl pkey -pubin` reads the first. The fingerprint is SHA-256 over both DER encodings one after the other, so confirming it over the
//! telephone confirms both keys. A peer that has only OpenSSL shows one block; its one key then serves both purposes and its
//! fingerprint is plain SHA-256 of the one DER encoding, what `openssl pkey -pubin -outform DER | sha256sum` prints.
//!
//! A key has exactly one accepted encoding (named curve, uncompressed point), because its digest names it in package headers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p384::PublicKey;
use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{DerSignature, VerifyingKey};
use p384::pkcs8::{DecodePublicKey, EncodePublicKey};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};

/// Longest PEM text that is looked at: two keys with generous explanatory text.
const MAX_PEM: usize = 64 << 10;

/// The public half of an identity or peer.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PublicPair {
    agree: PublicKey,
    sign: PublicKey,
    /// Canonical DER of the keys as they were shown: agree and sign, or the one key for both.
    shown: Vec<Vec<u8>>,
}

impl PublicPair {
    /// The pair of an identity.
    pub(super) fn new(agree: PublicKey, sign: PublicKey) -> Result<PublicPair> {
        Ok(PublicPair { agree, sign, shown: vec![der_of(&agree)?, der_of(&sign)?] })
    }

    /// Reads one or two `PUBLIC KEY` blocks.
    pub(crate) fn from_pem(pem: &str) -> Result<PublicPair> {
        let shown = public_key_blocks(pem)?;
        match shown.as_slice() {
            [only] => {
                let only = decode(only)?;
                Ok(PublicPair { agree: only, sign: only, shown })
            }
            _ => PublicPair::from_der(shown),
        }
    }

    /// The pair in two DER encodings, agree key first.
    pub(super) fn from_der(shown: Vec<Vec<u8>>) -> Result<PublicPair> {
        let keys = shown.iter().map(|der| decode(der)).collect::<Result<Vec<PublicKey>>>()?;
        match keys.as_slice() {
            [agree, sign] if agree == sign => Err(Error::new(Kind::KeyInvalid, "both public keys are the same key")),
            [agree, sign] => Ok(PublicPair { agree: *agree, sign: *sign, shown }),
            _ => Err(Error::new(Kind::KeyInvalid, format!("{} public keys found, 1 or 2 are expected", keys.len()))),
        }
    }

    /// DER of the keys as they were shown.
    pub(super) fn shown(&self) -> &[Vec<u8>] {
        &self.shown
    }

    /// The keys as PEM, agree key first.
    pub(super) fn to_pem(&self) -> String {
        let mut pem = String::new();
        for der in &self.shown {
            pem.push_str("-----BEGIN PUBLIC KEY-----\n");
            let text = STANDARD.encode(der);
            // RFC 7468, section 2: lines of 64 characters.
            for (position, character) in text.chars().enumerate() {
                if position > 0 && position % 64 == 0 {
                    pem.push('\n');
                }
                pem.push(character);
            }
            pem.push_str("\n-----END PUBLIC KEY-----\n");
        }
        pem
    }

    /// SHA-256 over the DER of all shown keys, in order.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        self.shown.iter().for_each(|der| digest.update(der));
        digest.finalize().into()
    }

    /// Key store id: the first 16 hex digits of the fingerprint, so the same keys have the same id in every store.
    pub(crate) fn id(&self) -> String {
        let mut id = hex(&self.fingerprint());
        id.truncate(16);
        id
    }

    /// SHA-256 of the agree key's DER, which names a recipient in a package header.
    pub(crate) fn agree_digest(&self) -> [u8; 32] {
        self.shown.first().map(Sha256::digest).unwrap_or_default().into()
    }

    /// SHA-256 of the signing key's DER, which names a sender in a package header.
    pub(crate) fn sign_digest(&self) -> [u8; 32] {
        self.shown.last().map(Sha256::digest).unwrap_or_default().into()
    }

    /// The signing key.
    pub(super) fn signing_key(&self) -> VerifyingKey {
        VerifyingKey::from(&self.sign)
    }

    /// The agree key as an uncompressed point (SEC 1, 2.3.3): 97 bytes.
    pub(crate) fn agree_point(&self) -> Box<[u8]> {
        self.agree.to_sec1_bytes()
    }

    /// Whether a strict DER ECDSA signature with SHA-384 over a message is this key's.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = self.signing_key();
        DerSignature::from_bytes(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0u8; bytes.len() * 2];
    super::rest::hex_into(bytes, &mut text);
    text.into_iter().map(char::from).collect()
}

/// Bytes of lower-case hex; `None` for anything else.
pub(crate) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// A fingerprint for reading aloud: sixteen groups of four hex digits.
pub(super) fn spoken(fingerprint: &[u8; 32]) -> String {
    let groups: Vec<String> = fingerprint.chunks(2).map(hex).collect();
    groups.join(" ")
}

/// Whether a person's text is the whole fingerprint, however it is spaced, coloned or cased.
pub(super) fn is_spoken(fingerprint: &[u8; 32], text: &str) -> bool {
    let text: String = text.chars().filter(|c| !c.is_whitespace() && !matches!(c, ':' | '-')).collect();
    text.to_ascii_lowercase() == hex(fingerprint)
}

/// The label of a PEM boundary line, if it is one.
fn boundary<'a>(line: &'a str, what: &str) -> Option<&'a str> {
    line.strip_prefix("-----")?.strip_prefix(what)?.strip_prefix(' ')?.strip_suffix("-----")
}

/// DER of all blocks. Text outside blocks is explanatory (RFC 7468, section 2) and skipped; a block that is no public key is an error.
fn public_key_blocks(pem: &str) -> Result<Vec<Vec<u8>>> {
    let malformed = || Error::new(Kind::KeyInvalid, "the PEM text is malformed");
    if pem.len() > MAX_PEM {
        return Err(malformed());
    }
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in pem.lines().map(str::trim) {
        if let Some(label) = boundary(line, "BEGIN") {
            if label.ends_with("PRIVATE KEY") {
                return Err(Error::new(Kind::KeyInvalid, "the PEM text holds a private key")
                    .with_hint("a private key stays with its owner; ask for the public key, and treat this private key as lost"));
            }
            if label != "PUBLIC KEY" || open.is_some() {
                return Err(malformed());
            }
            open = Some(String::new());
        } else if boundary(line, "END").is_some() {
            let text = open.take().filter(|_| boundary(line, "END") == Some("PUBLIC KEY")).ok_or_else(malformed)?;
            blocks.push(STANDARD.decode(text).map_err(|_| malformed())?);
        } else if let Some(text) = &mut open {
            text.push_str(line);
        }
    }
    if open.is_some() || blocks.is_empty() {
        return Err(malformed());
    }
    Ok(blocks)
}

/// A P-384 public key, on the curve, in the one accepted encoding.
fn decode(der: &[u8]) -> Result<PublicKey> {
    let key = PublicKey::from_public_key_der(der).map_err(|_| Error::new(Kind::KeyInvalid, "not a P-384 public key on the curve"))?;
    if der_of(&key)? != der {
        return Err(Error::new(Kind::KeyInvalid, "the public key is not encoded as an uncompressed point on a named curve"));
    }
    Ok(key)
}

fn der_of(key: &PublicKey) -> Result<Vec<u8>> {
    let der = key.to_public_key_der().map_err(|_| Error::new(Kind::KeyInvalid, "the public key cannot be encoded"))?;
    Ok(der.into_vec())
}
