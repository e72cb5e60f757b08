//! The signed list of checksums: what ties an encrypted object to the hospital that sent it.
//!
//! `SHA256SUMS` is what `sha256sum` prints, one line per file: 64 hex digits, two spaces (or a space and a star), the name. `SHA256SUMS.sig` is
//! the DER signature over it that `openssl dgst -sha384 -sign` makes with the hospital's P-384 key.
//!
//! The limit of this: what is signed is ciphertext. The signature proves that a confirmed sender vouched for these very bytes, not that it
//! made them. A second confirmed sender who can read the store could take another's object, sign a list of its own over it and so claim the study as sent by
//! itself; it learns nothing by that, and the study that comes out is the one that was encrypted. Where this matters, `trusted_senders` narrows
//! a project to one hospital, and a sealed package, whose signed header names sender and recipients, does not have the problem.

use crate::error::{Error, Kind, Result};
use crate::keys::{KeyStore, PublicPair, hex, unhex};
use crate::package::tree::Hash;

/// Names of the two objects.
pub(super) const LIST: &str = "SHA256SUMS";
pub(super) const SIGNATURE: &str = "SHA256SUMS.sig";
/// Largest list that is read.
pub(super) const MAX_LIST: u64 = 64 << 10;
/// Largest signature: two integers of 49 bytes and their tags need 104.
pub(super) const MAX_SIGNATURE: u64 = 256;

/// Who signed a list: key id and digest of the signing key.
pub(super) struct Signer {
    pub(super) id: String,
    pub(super) digest: Hash,
}

/// Finds the confirmed key that signed the list; `trusted` narrows to these key ids when not empty.
pub(super) fn signer(list: &[u8], signature: &[u8], keys: &KeyStore, trusted: &[String]) -> Result<Signer> {
    let signers: Vec<(String, PublicPair)> = keys.signers()?.into_iter().filter(|(_, keys)| keys.verifies(list, signature)).collect();
    // One key may be in several entries (shown alone and with an agree key); any trusted one speaks for it.
    let is_trusted = |id: &String| trusted.is_empty() || trusted.contains(id);
    if let Some((id, keys)) = signers.iter().find(|(id, _)| is_trusted(id)) {
        return Ok(Signer { id: id.clone(), digest: keys.sign_digest() });
    }
    if let Some((id, _)) = signers.first() {
        let error = Error::new(Kind::UnknownSender, format!("key {id} is not among trusted_senders"));
        return Err(error.with_hint("add the key id to trusted_senders if studies of this sender may be processed here"));
    }
    // Nobody who counts. If it was somebody whose fingerprint only waits to be compared, that is what a person has to know.
    for id in keys.ids()? {
        if !keys.is_confirmed(&id)? && PublicPair::from_pem(&keys.export_public(&id)?)?.verifies(list, signature) {
            return Err(Error::new(Kind::KeyUnconfirmed, format!("key {id}")));
        }
    }
    let error = Error::new(Kind::SignatureInvalid, "SHA256SUMS.sig is of no confirmed key over SHA256SUMS");
    Err(error.with_hint(
        "import and confirm the hospital's P-384 public key; it signs with: openssl dgst -sha384 -sign hospital.key -out SHA256SUMS.sig SHA256SUMS",
    ))
}

/// The one digest that a list gives for a name.
pub(super) fn digest_of(list: &[u8], name: &str) -> Result<Hash> {
    let text = std::str::from_utf8(list).map_err(|_| unusable("is not UTF-8"))?;
    let lines = text.strip_suffix('\n').ok_or_else(|| unusable("does not end with a line feed"))?;
    let mut found = None;
    for line in lines.split('\n') {
        let (digits, rest) = line.split_at_checked(64).ok_or_else(|| unusable("has a line that sha256sum does not write"))?;
        let digest = unhex(digits.as_bytes()).and_then(|digest| Hash::try_from(digest).ok());
        let listed = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *"));
        let (Some(digest), Some(listed)) = (digest, listed) else {
            return Err(unusable("has a line that sha256sum does not write"));
        };
        if listed == name && found.replace(digest).is_some() {
            return Err(unusable("names the object twice"));
        }
    }
    found.ok_or_else(|| unusable("does not name the object"))
}

/// What the facts of a study call the list: its own digest.
pub(super) fn digest(list: &[u8]) -> String {
    hex(&<sha2::Sha256 as sha2::Digest>::digest(list))
}

fn unusable(why: &'static str) -> Error {
    Error::new(Kind::PackageMalformed, format!("SHA256SUMS {why}"))
        .with_hint("write the list in the folder of the object, with: sha256sum study.cms > SHA256SUMS")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The SHA-256 of "abc", FIPS 180-4.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn lines_are_those_of_sha256sum() {
        let check = |list: String, expected: bool| assert_eq!(digest_of(list.as_bytes(), "a b.cms").is_ok(), expected, "{list:?}");
        let zero = "0".repeat(64);
        check(format!("{ABC}  a b.cms\n"), true);
        check(format!("{ABC} *a b.cms\n"), true);
        check(format!("{zero}  other\n{ABC} *a b.cms\n{zero}  third\n"), true);
        check(String::new(), false);
        check("\n".to_owned(), false);
        check(format!("{ABC}  a b.cms"), false);
        check(format!("{ABC}  a b.cms\r\n"), false);
        check(format!("{ABC} a b.cms\n"), false);
        check(format!("{ABC}   a b.cms\n"), false);
        check(format!("{ABC}  ./a b.cms\n"), false);
        check(format!("{ABC}  A b.cms\n"), false);
        check(format!("\\{ABC}  a b.cms\n"), false);
        check(format!("{}  a b.cms\n", ABC.to_uppercase()), false);
        check(format!("{}  a b.cms\n", &ABC[1..]), false);
        check(format!("{ABC}  a b.cms\n{ABC}  a b.cms\n"), false);
        check(format!("{zero}  a b.cms\n{ABC} *a b.cms\n"), false);
        check(format!("{ABC}  a b.cms\n\n"), false);
        check(format!("{ABC}  a b.cms\nrubbish\n"), false);
        check(format!("{}\u{e9}  a b.cms\n", &ABC[1..]), false);
        check(format!("SHA256 (a b.cms) = {ABC}\n"), false);
        assert_eq!(hex(&digest_of(format!("{ABC}  x\n").as_bytes(), "x").unwrap()), ABC);
    }
}
