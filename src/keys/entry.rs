//! One entry of the store: an identity of ours or a peer, as the file `<id>.json`.
//!
//! The file decides who is trusted, so it is one line of JSON under the store's HMAC (see `rest`): somebody who can write the folder can
//! remove an entry or put an older state of it back, but cannot confirm a peer, exchange a key or make an identity.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::fingerprint::PublicPair;
use super::identity::PrivatePair;
use super::rest::StoreSecrets;
use crate::error::{Error, Kind, Result};

/// Longest purpose or label, in characters.
const MAX_LABEL: usize = 128;

/// An entry with its public keys decoded. Private keys stay wrapped until they are used.
pub(super) struct Entry {
    record: Record,
    keys: PublicPair,
}

/// The JSON line. Fields in alphabetical order, as everywhere in this format family.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    confirmed: Option<String>,
    created: String,
    label: String,
    private: Option<Wrapped>,
    public: String,
    replaced_by: Option<String>,
    v: u32,
}

/// Both private keys as `EncryptedPrivateKeyInfo` DER in base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    agree: String,
    sign: String,
}

impl Entry {
    /// An identity of ours, confirmed by nature.
    pub(super) fn identity(purpose: &str, private: &PrivatePair, secrets: &StoreSecrets) -> Result<Entry> {
        let [agree, sign] = private.to_pkcs8()?;
        let wrapped = Wrapped { agree: STANDARD.encode(secrets.wrap(&agree)?), sign: STANDARD.encode(secrets.wrap(&sign)?) };
        let now = now()?;
        Entry::new(private.public()?, purpose, Some(wrapped), Some(now.clone()), now)
    }

    /// A peer, not yet confirmed.
    pub(super) fn peer(label: &str, keys: PublicPair) -> Result<Entry> {
        Entry::new(keys, label, None, None, now()?)
    }

    fn new(keys: PublicPair, label: &str, private: Option<Wrapped>, confirmed: Option<String>, created: String) -> Result<Entry> {
        if label.is_empty() || label.chars().count() > MAX_LABEL || label.chars().any(char::is_control) {
            return Err(Error::new(Kind::InvalidArgument, format!("a purpose or label has 1 to {MAX_LABEL} printable characters")));
        }
        let public = keys.to_pem();
        let record = Record { confirmed, created, label: label.to_owned(), private, public, replaced_by: None, v: 1 };
        Ok(Entry { record, keys })
    }

    /// Reads an entry's file and checks that it is this store's and that the keys in it are the ones its name promises.
    pub(super) fn read(id: &str, file: &[u8], secrets: &StoreSecrets) -> Result<Entry> {
        let damaged = || Error::new(Kind::KeyStoreUnavailable, format!("entry {id} was edited, damaged or written by another store"));
        let line = secrets.checked(&file_name(id), file).ok_or_else(damaged)?;
        let record: Record = serde_json::from_slice(line).map_err(|_| damaged())?;
        let keys = PublicPair::from_pem(&record.public).map_err(|_| damaged())?;
        if record.v != 1 || keys.id() != id {
            return Err(damaged());
        }
        Ok(Entry { record, keys })
    }

    /// The entry's file.
    pub(super) fn write(&self, secrets: &StoreSecrets) -> Result<Vec<u8>> {
        let line = serde_json::to_string(&self.record).map_err(|_| Error::new(Kind::Internal, "an entry could not be encoded"))?;
        secrets.protect(&file_name(&self.id()), &line)
    }

    /// Id of the entry.
    pub(super) fn id(&self) -> String {
        self.keys.id()
    }

    /// Public keys.
    pub(super) fn keys(&self) -> &PublicPair {
        &self.keys
    }

    /// Purpose of an identity, label of a peer.
    pub(super) fn label(&self) -> &str {
        &self.record.label
    }

    /// Whether the private keys are here.
    pub(super) fn is_own(&self) -> bool {
        self.record.private.is_some()
    }

    /// Whether the keys may be used: identities of ours, and peers whose fingerprint was confirmed.
    pub(super) fn is_confirmed(&self) -> bool {
        self.record.confirmed.is_some()
    }

    /// Id of the identity that replaced this one.
    pub(super) fn replaced_by(&self) -> Option<&str> {
        self.record.replaced_by.as_deref()
    }

    /// Marks a peer as confirmed, now; the first confirmation keeps its time.
    pub(super) fn confirm(&mut self) -> Result<()> {
        if self.record.confirmed.is_none() {
            self.record.confirmed = Some(now()?);
        }
        Ok(())
    }

    /// Marks an identity as replaced.
    pub(super) fn replace_by(&mut self, id: &str) {
        self.record.replaced_by = Some(id.to_owned());
    }

    /// The private keys; `None` for a peer.
    pub(super) fn private(&self, secrets: &StoreSecrets) -> Result<Option<PrivatePair>> {
        let Some(wrapped) = &self.record.private else { return Ok(None) };
        // The HMAC held, so whatever fails from here on was written like this: a defect or a foreign hand with the store's secret.
        let damaged = |_| Error::new(Kind::KeyStoreUnavailable, format!("the private keys of entry {} are damaged", self.id()));
        let open = |text: &str| secrets.unwrap(&STANDARD.decode(text).map_err(|_| Error::new(Kind::KeyInvalid, ""))?);
        let pair = PrivatePair::from_pkcs8(&open(&wrapped.agree).map_err(damaged)?, &open(&wrapped.sign).map_err(damaged)?);
        let pair = pair.map_err(damaged)?;
        // A private key that is not the public key's would sign or open in another's name.
        if pair.public()? != self.keys {
            return Err(damaged(Error::new(Kind::KeyInvalid, "")));
        }
        Ok(Some(pair))
    }
}

/// Name of an entry's file.
pub(super) fn file_name(id: &str) -> String {
    format!("{id}.json")
}

/// Whether a text is an entry's id: 16 lower-case hex digits, hence never a path.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 16 && super::fingerprint::unhex(text.as_bytes()).is_some()
}

/// The present, RFC 3339 in UTC, whole seconds.
fn now() -> Result<String> {
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0).ok();
    now.and_then(|now| now.format(&time::format_description::well_known::Rfc3339).ok())
        .ok_or_else(|| Error::new(Kind::Internal, "the system clock is out of range"))
}
