//! An identity on its way out of the store or into it: two `ENCRYPTED PRIVATE KEY` blocks, agree key first.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::identity::PrivatePair;
use super::rest::{self, Stretch};
use crate::error::{Error, Kind, Result};

const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// Longest PEM text that is looked at.
const MAX_PEM: usize = 64 << 10;

/// Both private keys in PEM, each wrapped under the passphrase.
pub(super) fn write(private: &PrivatePair, passphrase: &str) -> Result<Zeroizing<String>> {
    if passphrase.is_empty() {
        return Err(Error::new(Kind::InvalidArgument, "the passphrase is empty"));
    }
    let mut pem = Zeroizing::new(String::new());
    for pkcs8 in private.to_pkcs8()? {
        let text = STANDARD.encode(rest::wrap(passphrase.as_bytes(), &pkcs8, Stretch::Export)?);
        pem.push_str(BEGIN);
        // RFC 7468, section 2: lines of 64 characters. Base64 is ASCII, so every chunk is text.
        for line in text.as_bytes().chunks(64) {
            pem.push('\n');
            pem.extend(line.iter().map(|byte| char::from(*byte)));
        }
        pem.push('\n');
        pem.push_str(END);
        pem.push('\n');
    }
    Ok(pem)
}

/// Both private keys from PEM.
pub(super) fn read(pem: &str, passphrase: &str) -> Result<PrivatePair> {
    let malformed = || Error::new(Kind::KeyInvalid, "two encrypted private keys in PEM are expected");
    let mut keys = Vec::new();
    let mut rest = if pem.len() <= MAX_PEM { pem } else { return Err(malformed()) };
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (text, after) = after.split_once(END).ok_or_else(malformed)?;
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        keys.push(STANDARD.decode(text).map_err(|_| malformed())?);
        rest = after;
    }
    let [agree, sign] = keys.as_slice() else { return Err(malformed()) };
    let open = |der: &[u8]| rest::unwrap(passphrase.as_bytes(), der);
    // A wrong passphrase that slips past the padding (1 in 256) yields noise, which is no key.
    PrivatePair::from_pkcs8(&open(agree)?, &open(sign)?).map_err(|_| Error::new(Kind::WrongPassphrase, ""))
}
