//! Whose keys may be used for what, and until when: the rules that sealing and opening ask.
//!
//! | an entry is | sealed for | signs | opens | its signatures count |
//! |---|---|---|---|---|
//! | an identity | yes | yes | yes | yes |
//! | an identity, replaced | no | no | yes | yes |
//! | an identity, expired | no | no | yes | those made before |
//! | a peer, unconfirmed | no | | | no |
//! | a peer, confirmed | yes | | | yes |
//! | a peer, confirmed, expired | no | | | those made before |
//!
//! When a signature was made is what its signer says: the header's `created`. A thief of an expired key can write an early date into a new
//! header, so an expiry limits mistakes and routine; a stolen key is removed.

use std::sync::Arc;

use super::dates::Moment;
use super::entry::Entry;
use super::{KeyStore, PrivateKeys, PublicPair, hex};
use crate::error::{Error, Kind, Result};

/// A trusted sender, found by the digest of its signing key.
pub(crate) struct Sender {
    /// Key store id.
    pub(crate) id: String,
    /// Public keys.
    pub(crate) keys: PublicPair,
    expires: Option<Moment>,
}

impl Sender {
    /// Refuses what was sealed after the sender's keys had expired. To be asked once the signature over `created` was checked.
    pub(crate) fn check_created(&self, created: &str) -> Result<()> {
        let Some(expires) = self.expires else { return Ok(()) };
        match Moment::parse(created) {
            Some(created) if created <= expires => Ok(()),
            _ => Err(Error::new(Kind::KeyExpired, format!("sender {} expired {}, sealed {created}", self.id, expires.text()?))
                .with_hint("ask the sender for the new public key, confirm it, and have the study sealed again")),
        }
    }
}

impl KeyStore {
    /// The keys to seal for: a confirmed entry that was not replaced and has not expired.
    pub(crate) fn recipient(&self, id: &str) -> Result<PublicPair> {
        self.recipient_at(id, Moment::now()?)
    }

    pub(super) fn recipient_at(&self, id: &str, now: Moment) -> Result<PublicPair> {
        let entry = self.entry(id)?;
        confirmed(&entry)?;
        current(&entry, now)?;
        Ok(entry.keys().clone())
    }

    /// The keys to sign with: an identity of this store that was not replaced and has not expired.
    pub(crate) fn signer(&self, id: &str) -> Result<(PublicPair, Arc<dyn PrivateKeys>)> {
        self.signer_at(id, Moment::now()?)
    }

    pub(super) fn signer_at(&self, id: &str, now: Moment) -> Result<(PublicPair, Arc<dyn PrivateKeys>)> {
        let entry = self.entry(id)?;
        current(&entry, now)?;
        Ok((entry.keys().clone(), self.private(id)?))
    }

    /// The trusted entry whose signing key has this digest. A key that is here but unconfirmed is `KeyUnconfirmed`, a strange one `UnknownSender`.
    ///
    /// Its keys may have expired: [`Sender::check_created`] says whether a signature of theirs was made in time.
    pub(crate) fn sender(&self, digest: &[u8; 32]) -> Result<Sender> {
        let entries = self.entries()?;
        // One signing key may be in several entries (shown alone and with an agree key); any confirmed one speaks for it, and the one that
        // expires first counts: whoever ended the key's life in one entry meant the key.
        let known: Vec<&Entry> = entries.iter().filter(|entry| entry.keys().sign_digest() == *digest).collect();
        let trusted: Vec<&Entry> = known.iter().copied().filter(|entry| entry.is_confirmed()).collect();
        let Some(entry) = trusted.first().or(known.first()) else {
            return Err(Error::new(Kind::UnknownSender, format!("signing key sha-256 {}", hex(digest))));
        };
        confirmed(entry)?;
        let expires = trusted.iter().filter_map(|entry| entry.expires()).min();
        Ok(Sender { id: entry.id(), keys: entry.keys().clone(), expires })
    }

    /// The first of some agree keys that this store holds the private key of, replaced identities included: position, public and private keys.
    pub(crate) fn opener(&self, digests: &[[u8; 32]]) -> Result<(usize, PublicPair, Arc<dyn PrivateKeys>)> {
        for entry in self.entries()?.iter().filter(|entry| entry.is_own()) {
            if let Some(position) = digests.iter().position(|digest| entry.keys().agree_digest() == *digest) {
                return Ok((position, entry.keys().clone(), self.private(&entry.id())?));
            }
        }
        Err(Error::new(Kind::NotARecipient, format!("{} recipients, none of them here", digests.len())))
    }

    /// Every identity of this store, replaced ones included: what may open something that does not name its recipient's key. Each is unlocked
    /// by itself, because a token that is not plugged in must not keep the others from opening.
    pub(crate) fn openers(&self) -> Result<Vec<Result<Arc<dyn PrivateKeys>>>> {
        let own = self.entries()?.into_iter().filter(Entry::is_own);
        Ok(own.map(|entry| self.private(&entry.id())).collect())
    }

    /// Every entry whose signature counts where nothing says when it was made: identities of this store and confirmed peers, none expired.
    pub(crate) fn signers(&self) -> Result<Vec<(String, PublicPair)>> {
        self.signers_at(Moment::now()?)
    }

    pub(super) fn signers_at(&self, now: Moment) -> Result<Vec<(String, PublicPair)>> {
        let counts = |entry: &Entry| entry.is_confirmed() && not_expired(entry, now).is_ok();
        Ok(self.entries()?.into_iter().filter(counts).map(|entry| (entry.id(), entry.keys().clone())).collect())
    }
}

fn confirmed(entry: &Entry) -> Result<()> {
    if entry.is_confirmed() { Ok(()) } else { Err(Error::new(Kind::KeyUnconfirmed, format!("key {}", entry.id()))) }
}

/// Refuses what was replaced or has expired.
fn current(entry: &Entry, now: Moment) -> Result<()> {
    not_replaced(entry)?;
    not_expired(entry, now)
}

fn not_expired(entry: &Entry, now: Moment) -> Result<()> {
    match entry.expires() {
        Some(expires) if now > expires => {
            let error = Error::new(Kind::KeyExpired, format!("key {} expired {}", entry.id(), expires.text()?));
            Err(if entry.is_own() { error } else { error.with_hint("ask its owner for the new public key and confirm it") })
        }
        _ => Ok(()),
    }
}

/// Refuses what was replaced by rotation.
pub(super) fn not_replaced(entry: &Entry) -> Result<()> {
    match entry.replaced_by() {
        None => Ok(()),
        Some(new) => Err(Error::new(Kind::KeyExpired, format!("key {} was replaced by {new}", entry.id()))
            .with_hint("use the new key, and send its public half to those who seal for it or open what it sealed")),
    }
}
