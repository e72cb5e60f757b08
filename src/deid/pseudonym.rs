//! One name for one patient, made from the project key alone.
//!
//! Everything that must be the same for a patient in every study and unknown to anybody else comes from HMAC-SHA-256 under the
//! project key (NIST SP 800-107r1, 5.3): the pseudonym, the shift of the dates, the substitute of an AE title. No table of patients
//! is kept anywhere; whoever holds the key can repeat the mapping, nobody can invert it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::{Error, Kind, Result};

/// Separates the fields of a message. It cannot occur in a Patient ID: LO allows no control character (PS3.5 6.2).
const SEPARATOR: &[u8] = &[0x1F];

/// 20 characters of 5 bits: 100 bits, so that a collision among a million patients has probability 2^-61.
const PSEUDONYM_LENGTH: usize = 20;

/// HMAC-SHA-256 of the fields, joined by the separator.
pub(crate) fn digest(key: &[u8; 32], fields: &[&[u8]]) -> [u8; 32] {
    // HMAC takes a key of any length (RFC 2104, 2), so this cannot fail.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            mac.update(SEPARATOR);
        }
        mac.update(field);
    }
    mac.finalize().into_bytes().into()
}

/// Who a study is about, to this module: an identifier and who issued it.
pub(crate) struct Patient<'a> {
    issuer: &'a str,
    id: &'a str,
}

impl<'a> Patient<'a> {
    /// Fails when there is no identifier: a pseudonym of nothing would be shared by every patient without one.
    pub(crate) fn new(issuer: &'a str, id: &'a str) -> Result<Patient<'a>> {
        let trim = |text: &'a str| text.trim_matches([' ', '\0']);
        let patient = Patient { issuer: trim(issuer), id: trim(id) };
        if patient.id.is_empty() { Err(Error::new(Kind::PatientIdMissing, "(0010,0020) is empty or absent")) } else { Ok(patient) }
    }

    /// The pseudonym: 20 letters and digits of base32.
    pub(crate) fn pseudonym(&self, key: &[u8; 32]) -> String {
        base32(&digest(key, &[self.issuer.as_bytes(), self.id.as_bytes()]), PSEUDONYM_LENGTH)
    }

    /// Weeks by which the patient's dates move into the past: 52 to 520, equally likely but for one part in 2^54.
    pub(crate) fn weeks(&self, key: &[u8; 32]) -> u16 {
        let hash = digest(key, &[b"date shift", self.issuer.as_bytes(), self.id.as_bytes()]);
        let mut head = [0u8; 8];
        head.copy_from_slice(&hash[..8]);
        // The remainder is below 469, so it fits.
        52 + (u64::from_be_bytes(head) % 469) as u16
    }
}

/// A substitute for an AE title, at most 16 characters (PS3.5 6.2): the same title gets the same substitute.
pub(crate) fn ae_title(key: &[u8; 32], title: &str) -> String {
    format!("AE{}", base32(&digest(key, &[b"ae title", title.trim().as_bytes()]), 12))
}

/// The first characters of the base32 form of a hash (RFC 4648, 6; no padding).
fn base32(hash: &[u8; 32], characters: usize) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut head = [0u8; 16];
    head.copy_from_slice(&hash[..16]);
    let bits = u128::from_be_bytes(head);
    (0..characters.min(25)).map(|index| char::from(ALPHABET[(bits >> (123 - 5 * index)) as usize & 31])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> [u8; 32] {
        std::array::from_fn(|index| index as u8)
    }

    /// ```python
    /// import hmac, hashlib, base64
    /// key = bytes(range(32))
    /// mac = lambda *f: hmac.new(key, b'\x1f'.join(f), hashlib.sha256).digest()
    /// base64.b32encode(mac(b'HOSP', b'12345678')).decode()[:20]
    /// 52 + int.from_bytes(mac(b'date shift', b'HOSP', b'12345678')[:8], 'big') % 469
    /// 'AE' + base64.b32encode(mac(b'ae title', b'STORESCP')).decode()[:12]
    /// ```
    #[test]
    fn pseudonyms_are_frozen() {
        for (issuer, id, pseudonym, weeks) in
            [("HOSP", "12345678", "RD2PKFKWWYYEMR5WAKQI", 299), ("", "12345678", "7JXCM7FN4Q3NHW7FWRBJ", 69)]
        {
            let patient = Patient::new(issuer, id).unwrap();
            assert_eq!((patient.pseudonym(&key()).as_str(), patient.weeks(&key())), (pseudonym, weeks));
        }
        assert_eq!(ae_title(&key(), "STORESCP"), "AE7YKXUO5VBUF3");
    }

    #[test]
    fn padding_does_not_make_another_patient() {
        let name = |issuer, id| Patient::new(issuer, id).unwrap().pseudonym(&key());
        assert_eq!(name("HOSP ", " 12345678 "), name("HOSP", "12345678"));
        assert_ne!(name("HOSP", "12345678"), name("HOSQ", "12345678"));
    }

    #[test]
    fn a_patient_without_an_id_has_no_pseudonym() {
        for id in ["", "   ", "\0"] {
            assert_eq!(Patient::new("HOSP", id).err().unwrap().kind(), Kind::PatientIdMissing);
        }
    }
}
