//! One entry of the store: an identity of ours or a peer, as the file `<id>.json`.
//!
//! The file decides who is trusted, so it is one line of JSON under the store's HMAC (see `rest`): somebody who can write the folder can
//! remove an entry or put an older state of it back, but cannot confirm a peer, exchange a key or make an identity.
//!
//! `expires` and `token` stand in the line only when there is one. So every entry of an earlier version is a valid entry of this one, and an
//! earlier version refuses an entry with either, as it refuses any field it does not know, instead of overlooking it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::dates::Moment;
use super::fingerprint::PublicPair;
use super::identity::PrivatePair;
use super::rest::StoreSecrets;
use super::token::TokenRecord;
use crate::error::{Error, Kind, Result};

/// Longest purpose or label, in characters.
const MAX_LABEL: usize = 128;

/// An entry with its public keys decoded. Private keys stay wrapped until they are used.
pub(super) struct Entry {
    record: Record,
    keys: PublicPair,
    expires: Option<Moment>,
}

/// The JSON line. Fields in alphabetical order, as everywhere in this format family.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    confirmed: Option<String>,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    label: String,
    private: Option<Wrapped>,
    public: String,
    replaced_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<TokenRecord>,
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
        let now = Moment::now()?.text()?;
        Entry::new(private.public()?, purpose, Some(wrapped), Some(now.clone()), now)
    }

    /// An identity of ours whose private keys are in a token.
    pub(super) fn on_token(purpose: &str, keys: PublicPair, token: TokenRecord) -> Result<Entry> {
        let now = Moment::now()?.text()?;
        let mut entry = Entry::new(keys, purpose, None, Some(now.clone()), now)?;
        entry.record.token = Some(token);
        Ok(entry)
    }

    /// A peer, not yet confirmed.
    pub(super) fn peer(label: &str, keys: PublicPair) -> Result<Entry> {
        Entry::new(keys, label, None, None, Moment::now()?.text()?)
    }

    fn new(keys: PublicPair, label: &str, private: Option<Wrapped>, confirmed: Option<String>, created: String) -> Result<Entry> {
        check_label(label)?;
        let public = keys.to_pem();
        let record =
            Record { confirmed, created, expires: None, label: label.to_owned(), private, public, replaced_by: None, token: None, v: 1 };
        Ok(Entry { record, keys, expires: None })
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
        let expires = record.expires.as_deref().map(|text| Moment::parse(text).ok_or_else(damaged)).transpose()?;
        Ok(Entry { record, keys, expires })
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

    /// When the entry was made.
    pub(super) fn created(&self) -> &str {
        &self.record.created
    }

    /// The last second in which the keys are good; `None` when they do not expire.
    pub(super) fn expires(&self) -> Option<Moment> {
        self.expires
    }

    /// Sets or takes away the expiry.
    pub(super) fn set_expiry(&mut self, expires: Option<Moment>) -> Result<()> {
        self.record.expires = expires.map(Moment::text).transpose()?;
        self.expires = expires;
        Ok(())
    }

    /// Where the private keys are, when they are in a token.
    pub(super) fn token(&self) -> Option<&TokenRecord> {
        self.record.token.as_ref()
    }

    /// Whether the private keys are here or in a token of ours.
    pub(super) fn is_own(&self) -> bool {
        self.record.private.is_some() || self.record.token.is_some()
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
            self.record.confirmed = Some(Moment::now()?.text()?);
        }
        Ok(())
    }

    /// Marks an identity as replaced.
    pub(super) fn replace_by(&mut self, id: &str) {
        self.record.replaced_by = Some(id.to_owned());
    }

    /// The private keys; `None` for a peer, and for an identity in a token.
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

/// Whether a text may be a purpose or a label.
pub(super) fn is_label(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= MAX_LABEL && !text.chars().any(char::is_control)
}

pub(super) fn check_label(text: &str) -> Result<()> {
    let refused = || Error::new(Kind::InvalidArgument, format!("a purpose or label has 1 to {MAX_LABEL} printable characters"));
    if is_label(text) { Ok(()) } else { Err(refused()) }
}
