//! How keys lie on disk: PKCS#8 `EncryptedPrivateKeyInfo` under PBES2, and what is derived from the store's master secret.
//!
//! A store has one master secret of 32 random bytes. Only the master is wrapped by what a person (or a key file) supplies, so opening a store
//! costs one scrypt run however many keys it holds. From the master, HKDF-SHA-384 derives one key per use: the password of the
//! private keys' own PKCS#8 wrapping, and the key of the HMAC that covers every file of the store.
//!
//! Three stretchings, all PBES2 (RFC 8018) with AES-256-CBC and each with fresh salt and IV:
//! - [`Stretch::Passphrase`]: scrypt N=2^17, r=8, p=1 (128 MiB), for what a person chose;
//! - [`Stretch::Random`]: scrypt N=2^10, for passwords that are 256 random bits in hex. Stretching makes guessing dearer, and nobody guesses
//!   256 random bits, so a larger N would buy delay and nothing else;
//! - [`Stretch::Export`]: PBKDF2-HMAC-SHA-384 with 600,000 rounds, because the OpenSSL command line refuses scrypt beyond 32 MiB.
//!
//! CBC does not authenticate. Inside the store the HMAC does; for an imported file the key's own structure has to (a damaged one does not parse).

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::{Decode, Encode};
use pkcs8::pkcs5::EncryptionScheme as Scheme;
use pkcs8::pkcs5::pbes2::{EncryptionScheme, Kdf, Parameters, Pbkdf2Params, Pbkdf2Prf, Salt, ScryptParams};
use pkcs8::{EncryptedPrivateKeyInfo, EncryptedPrivateKeyInfoRef};
use sha2::Sha384;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// How much work it takes to try one password.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stretch {
    /// A passphrase: scrypt N=2^17, r=8, p=1.
    Passphrase,
    /// 256 random bits in hex: scrypt N=2^10, r=8, p=1.
    Random,
    /// A passphrase, in the form that the OpenSSL command line reads: PBKDF2-HMAC-SHA-384.
    Export,
}

/// Rounds of the export form; OWASP's floor for a SHA-256 based PBKDF2, and SHA-384 costs an attacker more per round.
const EXPORT_ROUNDS: u32 = 600_000;

/// The most work a file may ask for before its password is known to be right.
///
/// Fuzzing looks for faults in the reading and not for patience.
const MAX_ROUNDS: u32 = if cfg!(fuzzing) { 100 } else { 10_000_000 };
const MAX_SCRYPT_COST: u64 = if cfg!(fuzzing) { 16 } else { 1 << 17 };

/// Fills a buffer from the system's generator.
pub(super) fn fill_random(buffer: &mut [u8]) -> Result<()> {
    getrandom::fill(buffer).map_err(|_| Error::new(Kind::Internal, "the system's random generator failed").at(crate::error::Stage::Keys))
}

/// DER of an `EncryptedPrivateKeyInfo` around `plain`.
pub(super) fn wrap(password: &[u8], plain: &[u8], stretch: Stretch) -> Result<Vec<u8>> {
    let mut random = [0u8; 32];
    fill_random(&mut random)?;
    let (salt, iv) = random.split_at(16);
    let salt = Salt::new(salt).map_err(|_| defect())?;
    let iv: [u8; 16] = iv.try_into().map_err(|_| defect())?;
    let scrypt = |cost| Kdf::Scrypt(ScryptParams { salt, cost_parameter: cost, block_size: 8, parallelization: 1, key_length: None });
    let kdf = match stretch {
        Stretch::Passphrase => scrypt(1 << 17),
        Stretch::Random => scrypt(1 << 10),
        Stretch::Export => {
            Kdf::Pbkdf2(Pbkdf2Params { salt, iteration_count: EXPORT_ROUNDS, key_length: None, prf: Pbkdf2Prf::HmacWithSha384 })
        }
    };
    let parameters = Parameters { kdf, encryption: EncryptionScheme::Aes256Cbc { iv } };
    let encrypted = parameters.encrypt(password, plain).map_err(|_| defect())?;
    let info = EncryptedPrivateKeyInfo {
        encryption_algorithm: Scheme::from(parameters),
        encrypted_data: OctetStringRef::new(&encrypted).map_err(|_| defect())?,
    };
    info.to_der().map_err(|_| defect())
}

/// What [`wrap`] wrapped. A wrong password is `WrongPassphrase`; one in 256 wrong ones decrypts to noise instead, which the caller must notice.
pub(super) fn unwrap(password: &[u8], der: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let malformed = || Error::new(Kind::KeyInvalid, "the encrypted key is malformed or of an unknown scheme");
    let info = EncryptedPrivateKeyInfoRef::from_der(der).map_err(|_| malformed())?;
    // The costs come from the file: without a ceiling a crafted one could take all memory before anything is authenticated.
    match info.encryption_algorithm.pbes2().map(|parameters| &parameters.kdf) {
        Some(Kdf::Scrypt(scrypt))
            if scrypt.cost_parameter.is_power_of_two()
                && scrypt.cost_parameter <= MAX_SCRYPT_COST
                && scrypt.block_size == 8
                && scrypt.parallelization == 1 => {}
        Some(Kdf::Pbkdf2(pbkdf2)) if pbkdf2.iteration_count <= MAX_ROUNDS => {}
        _ => return Err(malformed()),
    }
    let plain = info.encryption_algorithm.decrypt(password, info.encrypted_data.as_bytes());
    plain.map(Zeroizing::new).map_err(|_| Error::new(Kind::WrongPassphrase, ""))
}

/// What a store can do once it is unlocked.
pub(super) struct StoreSecrets {
    password: Secret<[u8; 64]>,
    mac: Secret<[u8; 48]>,
}

impl StoreSecrets {
    /// Derives the keys of a store from its master secret.
    pub(super) fn derive(master: &[u8]) -> Result<StoreSecrets> {
        let hkdf = Hkdf::<Sha384>::new(None, master);
        let mut raw = Zeroizing::new([0u8; 32]);
        hkdf.expand(b"smp-keystore/v1 private keys", raw.as_mut()).map_err(|_| defect())?;
        let mut password = Secret::new([0u8; 64]);
        hex_into(raw.as_ref(), password.expose_mut());
        let mut mac = Secret::new([0u8; 48]);
        hkdf.expand(b"smp-keystore/v1 files", mac.expose_mut()).map_err(|_| defect())?;
        Ok(StoreSecrets { password, mac })
    }

    /// DER of an `EncryptedPrivateKeyInfo` under the store's own password.
    pub(super) fn wrap(&self, plain: &[u8]) -> Result<Vec<u8>> {
        wrap(self.password.expose(), plain, Stretch::Random)
    }

    /// What [`StoreSecrets::wrap`] wrapped.
    pub(super) fn unwrap(&self, der: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        unwrap(self.password.expose(), der)
    }

    /// A file of the store: a line of JSON and the HMAC over the file's name and that line, so that neither can be exchanged.
    pub(super) fn protect(&self, name: &str, line: &str) -> Result<Vec<u8>> {
        let code = self.hmac(name, line.as_bytes())?.finalize().into_bytes();
        Ok(format!("{line}\n{}\n", super::fingerprint::hex(&code)).into_bytes())
    }

    /// The line of a file that [`StoreSecrets::protect`] made under the same name.
    pub(super) fn checked<'a>(&self, name: &str, file: &'a [u8]) -> Option<&'a [u8]> {
        let mut lines = file.split(|byte| *byte == b'\n');
        let (line, code, rest) = (lines.next()?, lines.next()?, lines.next()?);
        let code = super::fingerprint::unhex(code)?;
        // verify_slice compares in constant time.
        let genuine = rest.is_empty() && lines.next().is_none() && self.hmac(name, line).ok()?.verify_slice(&code).is_ok();
        genuine.then_some(line)
    }

    fn hmac(&self, name: &str, line: &[u8]) -> Result<Hmac<Sha384>> {
        let mut hmac = Hmac::<Sha384>::new_from_slice(self.mac.expose()).map_err(|_| defect())?;
        hmac.update(name.as_bytes());
        // A name holds no zero byte, so name and line cannot run into each other.
        hmac.update(&[0]);
        hmac.update(line);
        Ok(hmac)
    }
}

/// Lower-case hex into a buffer of twice the length, without a copy that would need erasing.
pub(super) fn hex_into(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        for (digit, nibble) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = DIGITS[usize::from(nibble)];
        }
    }
}

fn defect() -> Error {
    Error::new(Kind::Internal, "a key could not be encoded").at(crate::error::Stage::Keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrypt_cost(der: &[u8]) -> u64 {
        let info = EncryptedPrivateKeyInfoRef::from_der(der).unwrap();
        match &info.encryption_algorithm.pbes2().unwrap().kdf {
            Kdf::Scrypt(scrypt) => scrypt.cost_parameter,
            _ => panic!("scrypt expected"),
        }
    }

    #[test]
    fn each_password_opens_what_it_closed() {
        for (stretch, cost) in [(Stretch::Passphrase, Some(1 << 17)), (Stretch::Random, Some(1 << 10)), (Stretch::Export, None)] {
            let der = wrap(b"right", b"sixteen byte key", stretch).unwrap();
            assert_eq!(cost.unwrap_or(0), if cost.is_some() { scrypt_cost(&der) } else { 0 });
            assert_eq!(unwrap(b"right", &der).unwrap().as_slice(), b"sixteen byte key");
            // One in 256 wrong passwords gets past the CBC padding; the contents are then noise.
            assert!(unwrap(b"wrong", &der).map_or(true, |noise| noise.as_slice() != b"sixteen byte key"));
        }
    }

    #[test]
    fn a_file_cannot_ask_for_endless_work() {
        let salt = Salt::new([1u8; 16]).unwrap();
        let greedy = [
            Kdf::Scrypt(ScryptParams { salt, cost_parameter: 1 << 30, block_size: 8, parallelization: 1, key_length: None }),
            Kdf::Scrypt(ScryptParams { salt, cost_parameter: 1 << 10, block_size: 60_000, parallelization: 1, key_length: None }),
            Kdf::Scrypt(ScryptParams { salt, cost_parameter: 1 << 10, block_size: 8, parallelization: 60_000, key_length: None }),
            Kdf::Pbkdf2(Pbkdf2Params { salt, iteration_count: 90_000_000, key_length: None, prf: Pbkdf2Prf::HmacWithSha384 }),
        ];
        for kdf in greedy {
            let parameters = Parameters { kdf, encryption: EncryptionScheme::Aes256Cbc { iv: [0; 16] } };
            let info = EncryptedPrivateKeyInfo {
                encryption_algorithm: Scheme::from(parameters),
                encrypted_data: OctetStringRef::new(&[0u8; 32]).unwrap(),
            };
            assert_eq!(unwrap(b"any", &info.to_der().unwrap()).unwrap_err().kind(), Kind::KeyInvalid);
        }
    }

    #[test]
    fn a_line_moved_to_another_name_or_edited_is_not_genuine() {
        let secrets = StoreSecrets::derive(&[7; 32]).unwrap();
        let file = secrets.protect("one.json", "{\"v\":1}").unwrap();
        assert_eq!(secrets.checked("one.json", &file), Some(b"{\"v\":1}".as_slice()));
        assert_eq!(secrets.checked("two.json", &file), None);
        assert_eq!(StoreSecrets::derive(&[8; 32]).unwrap().checked("one.json", &file), None);
        for position in 0..file.len() {
            let mut edited = file.clone();
            edited[position] ^= 1;
            assert_eq!(secrets.checked("one.json", &edited), None, "byte {position}");
        }
        assert_eq!(secrets.checked("one.json", &file[..file.len() - 1]), None);
        assert_eq!(secrets.checked("one.json", &[file.as_slice(), b"x"].concat()), None);
    }

    #[test]
    fn hex_is_lower_case_and_most_significant_digit_first() {
        let mut text = [0u8; 6];
        hex_into(&[0x00, 0x9a, 0xff], &mut text);
        assert_eq!(&text, b"009aff");
    }
}
