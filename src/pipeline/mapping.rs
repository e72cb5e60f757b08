//! The list of old and new identifiers of a study (`deid.mapping`), sealed for the researcher's own identities: a package like any other, in a folder beside the
//! results, that `smp unseal` opens. It never lies on a disk in clear.

use std::path::Path;
use std::time::Duration;

use crate::control::Control;
use crate::deid::Mapping;
use crate::error::{Error, Kind, Result};
use crate::keys::KeyStore;
use crate::package::{self, Contents, Instance, Parties, SealOptions};
use crate::transfer::{Client, ClientSettings, StoreSettings};

/// Seals a mapping into a folder of `root`, for every identity that may be sealed for.
///
/// # Errors
/// [`Kind::KeyNotFound`] where there is none, or none that signs.
pub(super) fn seal(mapping: &Mapping, root: &Path, folder: &str, keys: &KeyStore, control: &Control) -> Result<()> {
    let ids = identities(keys)?;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let sender_id = ids.iter().find(|id| keys.signer(id).is_ok()).ok_or_else(without_identity)?;
    let root = root.to_str().ok_or_else(|| Error::new(Kind::OutputUnwritable, "output_path is not valid UTF-8"))?;
    let store = StoreSettings { provider: "local".to_owned(), bucket: root.to_owned(), ..StoreSettings::default() };
    let client = Client::open(&store, ClientSettings { timeout: Duration::from_secs(30), ..ClientSettings::default() })?;
    let files = mapping.files();
    let instances: Vec<Instance<'_>> = files.iter().map(|(name, bytes)| Instance { name, bytes }).collect();
    let parties = Parties { sender_id, recipient_ids: &ids, purpose: "mapping of identifiers" };
    package::seal(&client, folder, &Contents::Instances(&instances), keys, &parties, &SealOptions::default(), control).map(|_| ())
}

/// Refuses before any work what could not be sealed after it.
pub(super) fn check(keys: &KeyStore) -> Result<()> {
    if identities(keys)?.is_empty() { Err(without_identity()) } else { Ok(()) }
}

fn without_identity() -> Error {
    Error::new(Kind::KeyNotFound, "deid.mapping seals for an identity, and the key store has none")
        .with_hint("make one with smp keys generate")
}

/// Own identities that are neither replaced nor expired.
fn identities(keys: &KeyStore) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for id in keys.ids()? {
        if keys.has_private(&id)? && keys.replaced_by(&id)?.is_none() && keys.recipient(&id).is_ok() {
            ids.push(id);
        }
    }
    Ok(ids)
}
