//! Identities whose private keys live in a hardware token and never leave it: what the store keeps of them, and how they come to be.
//!
//! The store keeps where the keys are (module, token, key ids) and the PIN, wrapped like a private key. Whoever unlocks the store can use the
//! token while it is plugged in, and can carry nothing away. The file of such an identity is read, shown and shared by every build; only
//! using the private keys needs the cargo feature `pkcs11`.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::backend::PrivateKeys;
use super::entry::{self, Entry};
use super::fingerprint::{PublicPair, hex, unhex};
use super::rest::StoreSecrets;
use super::{KeyStore, no_private, trust};
use crate::error::{Error, Kind, Result, Stage};
use crate::secret::Secret;

/// How a key pair on a token is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKey {
    /// By its label (CKA_LABEL).
    Label(String),
    /// By its id (CKA_ID).
    Id(Vec<u8>),
}

/// Where the private keys of an identity are, as its file says.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRecord {
    /// CKA_ID of the agree key, hex.
    agree: String,
    /// Label of the token.
    label: String,
    /// Absolute path of the PKCS #11 module.
    module: String,
    /// `EncryptedPrivateKeyInfo` DER around the PIN, base64.
    pin: String,
    /// Serial number of the token, so that another token with the same label is not taken for it.
    serial: String,
    /// CKA_ID of the signing key, hex.
    sign: String,
}

/// Keys that were found or made on a token.
pub(super) struct Found {
    pub(super) keys: PublicPair,
    pub(super) serial: String,
    pub(super) agree: Vec<u8>,
    pub(super) sign: Vec<u8>,
}

/// A token's place and what it takes to log in.
pub(super) struct Place<'a> {
    pub(super) module: &'a Path,
    pub(super) label: &'a str,
    /// `None` when the token is seen for the first time.
    #[cfg_attr(not(feature = "pkcs11"), expect(dead_code, reason = "read by the token's code only"))]
    pub(super) serial: Option<&'a str>,
    pub(super) pin: &'a Secret<String>,
}

impl KeyStore {
    /// Makes an identity inside a PKCS #11 token; returns its key id. The private keys never leave the token.
    ///
    /// `module` is the absolute path of the token's PKCS #11 module, which is loaded into the process. The PIN is kept in the store, wrapped
    /// like a private key. Needs the cargo feature `pkcs11`; without it the answer is `Unsupported`. A wrong PIN is `WrongPassphrase`; a module
    /// or token that is not there, and a token that would let the keys out, is `KeyStoreUnavailable`.
    pub fn generate_on_token(&self, module: &Path, token_label: &str, pin: &Secret<String>, purpose: &str) -> Result<String> {
        let place = Place { module, label: token_label, serial: None, pin };
        self.add_from_token(&place, purpose, || backend::generate(&place))
    }

    /// Makes an identity of two key pairs that are in a PKCS #11 token already; returns its key id.
    ///
    /// Both must be P-384, sensitive, not extractable, each with its public key object and a CKA_ID; the agree key must derive and the signing
    /// key sign. Otherwise as [`KeyStore::generate_on_token`].
    pub fn adopt_token_keys(
        &self,
        module: &Path,
        token_label: &str,
        pin: &Secret<String>,
        agree: &TokenKey,
        sign: &TokenKey,
        purpose: &str,
    ) -> Result<String> {
        let place = Place { module, label: token_label, serial: None, pin };
        self.add_from_token(&place, purpose, || backend::find(&place, agree, sign))
    }

    fn add_from_token(&self, place: &Place<'_>, purpose: &str, keys: impl FnOnce() -> Result<Found>) -> Result<String> {
        // Looked at before the token makes keys that would then belong to nobody.
        entry::check_label(purpose)?;
        let record = Unplaced::of(place, &self.secrets)?;
        let found = keys()?;
        let entry = Entry::on_token(purpose, found.keys.clone(), record.at(&found))?;
        let _guard = self.lock()?;
        self.add(entry)
    }

    /// The identity that takes the place of one on a token: two new pairs on the same token.
    pub(super) fn successor_on_token(&self, old: &Entry, record: &TokenRecord) -> Result<Entry> {
        trust::not_replaced(old)?;
        let pin = record.pin(&self.secrets)?;
        let place = Place { module: Path::new(&record.module), label: &record.label, serial: Some(&record.serial), pin: &pin };
        let unplaced = Unplaced::of(&place, &self.secrets)?;
        let found = backend::generate(&place)?;
        Entry::on_token(old.label(), found.keys.clone(), unplaced.at(&found))
    }

    /// The private keys of an entry, wherever they are.
    pub(super) fn unlock(&self, entry: &Entry) -> Result<Arc<dyn PrivateKeys>> {
        let Some(record) = entry.token() else {
            let private = entry.private(&self.secrets)?.ok_or_else(|| no_private(&entry.id()))?;
            return Ok(Arc::new(private));
        };
        let pin = record.pin(&self.secrets)?;
        let place = Place { module: Path::new(&record.module), label: &record.label, serial: Some(&record.serial), pin: &pin };
        let id = |text: &str| unhex(text.as_bytes()).ok_or_else(damaged);
        let found = Found { keys: entry.keys().clone(), serial: record.serial.clone(), agree: id(&record.agree)?, sign: id(&record.sign)? };
        backend::open(&place, found)
    }
}

/// A record that waits for its keys. Made first, so that nothing can fail once the token holds them.
struct Unplaced {
    label: String,
    module: String,
    pin: String,
}

impl Unplaced {
    fn of(place: &Place<'_>, secrets: &StoreSecrets) -> Result<Unplaced> {
        let refused = |why: &'static str| Error::new(Kind::InvalidArgument, why).at(Stage::Keys);
        // The dynamic loader would search its path for a relative name, and load what it finds first.
        let module = place.module.to_str().filter(|_| place.module.is_absolute());
        let module = module.ok_or_else(|| refused("the module's path is absolute, in UTF-8"))?.to_owned();
        if place.label.is_empty() || place.pin.expose().is_empty() {
            return Err(refused("the token's label or its PIN is empty"));
        }
        Ok(Unplaced { label: place.label.to_owned(), module, pin: STANDARD.encode(secrets.wrap(place.pin.expose().as_bytes())?) })
    }

    fn at(self, found: &Found) -> TokenRecord {
        let Unplaced { label, module, pin } = self;
        TokenRecord { agree: hex(&found.agree), label, module, pin, serial: found.serial.clone(), sign: hex(&found.sign) }
    }
}

impl TokenRecord {
    fn pin(&self, secrets: &StoreSecrets) -> Result<Secret<String>> {
        let der = STANDARD.decode(&self.pin).map_err(|_| damaged())?;
        let plain = secrets.unwrap(&der).map_err(|_| damaged())?;
        let pin = std::str::from_utf8(&plain).map_err(|_| damaged())?;
        Ok(Secret::new(pin.to_owned()))
    }
}

fn damaged() -> Error {
    Error::new(Kind::KeyStoreUnavailable, "the token's record in an entry is damaged")
}

#[cfg(feature = "pkcs11")]
use super::pkcs11 as backend;

/// What a build without tokens answers.
#[cfg(not(feature = "pkcs11"))]
mod backend {
    use super::*;

    pub(super) fn generate(_: &Place<'_>) -> Result<Found> {
        Err(unsupported())
    }

    pub(super) fn find(_: &Place<'_>, _: &TokenKey, _: &TokenKey) -> Result<Found> {
        Err(unsupported())
    }

    pub(super) fn open(_: &Place<'_>, _: Found) -> Result<Arc<dyn PrivateKeys>> {
        Err(unsupported())
    }

    fn unsupported() -> Error {
        Error::new(Kind::Unsupported, "keys in PKCS #11 tokens")
            .at(Stage::Keys)
            .with_hint("build the library with the cargo feature pkcs11")
    }
}
