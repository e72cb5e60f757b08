//! The folder of a key store: its master secret, its listing, and the secrets of the installation.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::rest::{self, StoreSecrets, Stretch};
use super::{Unlock, entry, files};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// Name of the lock file.
pub(super) const LOCK: &str = ".lock";

/// Largest file of a store; an identity has about 2 KiB.
pub(super) const MAX_FILE: u64 = 64 << 10;

/// Name of the file with the master secret.
const MASTER: &str = "store.json";

/// Length of the master secret, of a key file, and of a secret of the installation.
const SECRET: usize = 32;

/// The JSON line of `store.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Master {
    /// `EncryptedPrivateKeyInfo` DER around 32 random bytes, base64.
    master: String,
    /// `passphrase` or `key file`.
    unlock: String,
    v: u32,
}

/// The JSON line of `app.<name>.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplicationKey {
    /// `EncryptedPrivateKeyInfo` DER around 32 random bytes, base64.
    key: String,
    v: u32,
}

/// Opens a store's folder, or makes it a store.
pub(super) fn open(directory: &Path, unlock: &Unlock) -> Result<StoreSecrets> {
    if matches!(unlock, Unlock::Passphrase(passphrase) if passphrase.expose().is_empty()) {
        return Err(Error::new(Kind::InvalidArgument, "the passphrase is empty").at(crate::error::Stage::Keys));
    }
    files::private_folder(directory)?;
    if !files::exists(&directory.join(MASTER))? {
        let _guard = files::lock(&directory.join(LOCK))?;
        // Looked at again under the lock: another process may have made the store meanwhile.
        if !files::exists(&directory.join(MASTER))? {
            return create(directory, unlock);
        }
    }
    unlock_existing(directory, unlock)
}

/// Ids of all entries in the folder, sorted. Other files are none of the store's business.
pub(super) fn entry_ids(directory: &Path) -> Result<Vec<String>> {
    let unreadable = |error: std::io::Error| files::refused("the folder cannot be listed", &error);
    let mut ids = Vec::new();
    for item in fs::read_dir(directory).map_err(unreadable)? {
        let name = item.map_err(unreadable)?.file_name();
        if let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")).filter(|id| entry::is_id(id)) {
            ids.push(id.to_owned());
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// A secret of this installation by name, made on first use. The caller holds the store's lock.
pub(super) fn application_key(directory: &Path, name: &str, secrets: &StoreSecrets) -> Result<Secret<[u8; SECRET]>> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 32 || !name.chars().all(plain) {
        return Err(Error::new(Kind::InvalidArgument, "the name of an application key has 1 to 32 of a-z, 0-9 and -"));
    }
    let file_name = format!("app.{name}.json");
    let path = directory.join(&file_name);
    let mut key = Secret::new([0u8; SECRET]);
    let Some(file) = files::read_private(&path, MAX_FILE)? else {
        rest::fill_random(key.expose_mut())?;
        let record = ApplicationKey { key: STANDARD.encode(secrets.wrap(key.expose())?), v: 1 };
        let line = serde_json::to_string(&record).map_err(|_| defect())?;
        files::replace_private(&path, &secrets.protect(&file_name, &line)?)?;
        return Ok(key);
    };
    let plain = secrets
        .checked(&file_name, &file)
        .and_then(|line| serde_json::from_slice::<ApplicationKey>(line).ok())
        .filter(|record| record.v == 1)
        .and_then(|record| STANDARD.decode(record.key).ok())
        .and_then(|der| secrets.unwrap(&der).ok())
        .filter(|plain| plain.len() == SECRET)
        .ok_or_else(|| Error::new(Kind::KeyStoreUnavailable, "an application key was edited, damaged or written by another store"))?;
    key.expose_mut().copy_from_slice(&plain);
    Ok(key)
}

fn create(directory: &Path, unlock: &Unlock) -> Result<StoreSecrets> {
    if !entry_ids(directory)?.is_empty() {
        return Err(Error::new(Kind::KeyStoreUnavailable, "the store has keys but no master secret")
            .with_hint("restore store.json from a backup of the folder"));
    }
    let mut master = Secret::new([0u8; SECRET]);
    rest::fill_random(master.expose_mut())?;
    let (der, unlock) = match unlock {
        Unlock::Passphrase(passphrase) => (rest::wrap(passphrase.expose().as_bytes(), master.expose(), Stretch::Passphrase)?, "passphrase"),
        Unlock::KeyFile(path) => {
            let password = match key_file_password(path)? {
                Some(password) => password,
                None => make_key_file(path)?,
            };
            (rest::wrap(password.expose(), master.expose(), Stretch::Random)?, "key file")
        }
    };
    let secrets = StoreSecrets::derive(master.expose())?;
    let record = Master { master: STANDARD.encode(der), unlock: unlock.to_owned(), v: 1 };
    let line = serde_json::to_string(&record).map_err(|_| defect())?;
    files::create_private(&directory.join(MASTER), &secrets.protect(MASTER, &line)?)?;
    Ok(secrets)
}

fn unlock_existing(directory: &Path, unlock: &Unlock) -> Result<StoreSecrets> {
    let damaged = || Error::new(Kind::KeyStoreUnavailable, "the store's master secret is damaged");
    let file = files::read_private(&directory.join(MASTER), MAX_FILE)?.ok_or_else(damaged)?;
    let line = file.split(|byte| *byte == b'\n').next().ok_or_else(damaged)?;
    // Not yet authenticated: parsed strictly, used only to unwrap, and checked below by the key that it yields.
    let record: Master = serde_json::from_slice(line).map_err(|_| damaged())?;
    let der = STANDARD.decode(&record.master).map_err(|_| damaged())?;
    let wrong = |detail: &'static str| Error::new(Kind::WrongPassphrase, detail);
    let master = match (unlock, record.unlock.as_str()) {
        (Unlock::Passphrase(passphrase), "passphrase") => rest::unwrap(passphrase.expose().as_bytes(), &der),
        (Unlock::KeyFile(path), "key file") => {
            // A missing key file is never made anew here: a new one could not open this store.
            let password =
                key_file_password(path)?.ok_or_else(|| Error::new(Kind::KeyStoreUnavailable, "the key file of the store is missing"))?;
            rest::unwrap(password.expose(), &der)
        }
        (_, "passphrase") => return Err(wrong("the store is locked by a passphrase, a key file was given")),
        (_, "key file") => return Err(wrong("the store is locked by a key file, a passphrase was given")),
        _ => return Err(damaged()),
    };
    let master = master.map_err(|error| if error.kind() == Kind::KeyInvalid { damaged() } else { error })?;
    let secrets = StoreSecrets::derive(&master)?;
    // CBC padding lets one wrong passphrase in 256 through; the HMAC under the derived key lets none.
    if master.len() != SECRET || record.v != 1 || secrets.checked(MASTER, &file).is_none() {
        return Err(wrong(""));
    }
    Ok(secrets)
}

/// The key file's bytes in hex, which is the password they stand for; `None` when there is no such file.
fn key_file_password(path: &Path) -> Result<Option<Secret<[u8; 2 * SECRET]>>> {
    let Some(bytes) = files::read_private(path, MAX_FILE)? else { return Ok(None) };
    if bytes.len() != SECRET {
        return Err(Error::new(Kind::KeyStoreUnavailable, format!("the key file has {} bytes, {SECRET} are expected", bytes.len())));
    }
    Ok(Some(password_of(&bytes)))
}

fn make_key_file(path: &Path) -> Result<Secret<[u8; 2 * SECRET]>> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
        && !files::exists(parent)?
    {
        files::private_folder(parent)?;
    }
    let mut bytes = Zeroizing::new([0u8; SECRET]);
    rest::fill_random(bytes.as_mut())?;
    match files::create_private(path, bytes.as_ref()) {
        Ok(()) => Ok(password_of(bytes.as_ref())),
        // Another store's first use made the same file meanwhile; theirs is as good.
        Err(error) if error.kind() == Kind::KeyExists => key_file_password(path)?.ok_or(error),
        Err(error) => Err(error),
    }
}

fn password_of(bytes: &[u8]) -> Secret<[u8; 2 * SECRET]> {
    let mut password = Secret::new([0u8; 2 * SECRET]);
    rest::hex_into(bytes, password.expose_mut());
    password
}

fn defect() -> Error {
    Error::new(Kind::Internal, "a record could not be encoded").at(crate::error::Stage::Keys)
}
