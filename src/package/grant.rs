//! Granting a sealed package to further recipients, without touching its data.
//!
//! The package key is unwrapped with the sender's own key and wrapped once more for each newcomer; header and signature are written anew, in
//! place of the header that was read and of no other. Manifest and packs stay as they are. So only a sender that is among the recipients of
//! its own package can grant it, which is a choice made when it is sealed.
//!
//! A grant cannot be taken back: who held the key once may have kept it. A store that goes on showing the old header withholds the study
//! from the newcomer and nothing else.

use super::open::{self, Found, Object};
use super::seal::{publish, recipients, sign, wrap_for};
use super::{Folder, Limits, PackageFacts, header};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::KeyStore;
use crate::transfer::{Client, Replace};

/// Adds recipients to a package that an identity of this store sealed, also for itself. Those who have it already are left as they are.
///
/// # Errors
/// `PrivateKeyMissing` when the package was sealed by somebody else, `NotARecipient` when it was not sealed for the sender too,
/// `KeyExpired` when the sender's identity was replaced or has expired, `ObjectChanged` when somebody else wrote the header meanwhile.
pub fn grant(
    client: &Client,
    remote_path: &str,
    keys: &KeyStore,
    recipient_ids: &[&str],
    limits: &Limits,
    control: &Control,
) -> Result<PackageFacts> {
    let folder = Folder::new(remote_path);
    let newcomers = recipients(keys, recipient_ids)?;
    let Found::Header(before, bytes) = open::find(client, &folder, limits, control)? else {
        return Err(Error::new(Kind::NotSealed, "a study in CMS cannot be granted to others"));
    };
    let (mut header, sender_id, key) = open::check_header(&bytes, keys, &[], limits)?;
    if !keys.has_private(&sender_id)? {
        return Err(Error::new(Kind::PrivateKeyMissing, format!("the package was sealed by {sender_id}"))
            .with_hint("only the sender of a package can grant it to others"));
    }
    let (sender, signer) = keys.signer(&sender_id)?;
    // The manifest opens with the right key only, so a newcomer is never given a wrong one.
    let manifest = Object::manifest(client, &folder, &header, control)?;
    let manifest = open::read_manifest(client, &manifest, &header, &key, limits, control)?;
    for newcomer in &newcomers {
        let digest = newcomer.agree_digest();
        if header.recipients.iter().all(|recipient| recipient.digest != digest) {
            header.recipients.push(wrap_for(newcomer, &key, &header.package, &sender.sign_digest())?);
        }
    }
    if header.recipients.len() > header::MAX_RECIPIENTS {
        return Err(Error::new(Kind::InvalidArgument, "a package has at most 64 recipients").at(Stage::Package));
    }
    header.recipients.sort_by_key(|recipient| recipient.digest);
    let bytes = sign(&header, &*signer, limits)?;
    control.check()?;
    publish(client, &folder.object(header::OBJECT), &bytes, Replace::Version(before.version))?;
    Ok(PackageFacts::of(header, &sender_id, &manifest, &bytes))
}
