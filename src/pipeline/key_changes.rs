//! A key store whose changes leave a line in the audit log: who was trusted, when, and by whom.
//!
//! The key store itself knows no log. Callers that change keys for a person (the C API, the command line) do it through [`RecordedKeyStore`],
//! which opens the log first, so that nothing changes when it cannot be recorded, and then writes how the change ended, failures included.
//!
//! The log is, in this order:
//! 1. the log that a pipeline or a call of this process writes with the same key store, while it is open;
//! 2. with a configuration: the log that it names;
//! 3. without one: the log of the default configuration (`~/.smp/config.json`, `SMP_AUDIT_LOG_PATH`) for the default key store, and for any
//!    other whenever that configuration names a log;
//! 4. otherwise the folder `audit` inside the key store, so that a store opened by its path alone never writes anywhere else.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::sealing::failure;
use super::shared;
use crate::audit::{AuditLog, Event, Outcome, Value};
use crate::config::Config;
use crate::error::Result;
use crate::keys::KeyStore;
use crate::secret::Secret;

/// Folder of the log inside a key store that nobody configured another log for.
const BESIDE_THE_KEYS: &str = "audit";

/// A key store whose changes are recorded. Everything that changes nothing is asked of the [`KeyStore`] itself.
pub struct RecordedKeyStore {
    keys: Arc<KeyStore>,
    config: Config,
    /// Folder of the log when no configuration names one.
    beside: Option<PathBuf>,
    /// Opened at the first change and kept, so that a handle's changes are one stretch of one log.
    log: Mutex<Option<Arc<AuditLog>>>,
}

impl Deref for RecordedKeyStore {
    type Target = KeyStore;

    fn deref(&self) -> &KeyStore {
        &self.keys
    }
}

impl RecordedKeyStore {
    /// Opens a key store by its folder, as [`open_key_store`](super::open_key_store) does.
    pub fn open(directory: Option<&Path>, passphrase: Option<&str>) -> Result<RecordedKeyStore> {
        let keys = shared::open_key_store(directory, passphrase)?;
        let config = Config::load(None)?;
        let is_named = config.get("audit_log_path")? != Config::default().get("audit_log_path")?;
        let beside = (directory.is_some() && !is_named).then(|| keys.directory().join(BESIDE_THE_KEYS));
        Ok(RecordedKeyStore { keys, config, beside, log: Mutex::default() })
    }

    /// Opens the configured key store, as [`open_configured_key_store`](super::open_configured_key_store) does.
    pub fn configured(config: &Config) -> Result<RecordedKeyStore> {
        let keys = shared::open_configured_key_store(config)?;
        Ok(RecordedKeyStore { keys, config: config.clone(), beside: None, log: Mutex::default() })
    }

    /// [`KeyStore::generate`], recorded as `keys.generated`.
    pub fn generate(&self, purpose: &str) -> Result<String> {
        self.made("keys.generated", Vec::new(), || self.keys.generate(purpose))
    }

    /// [`KeyStore::generate_on_token`], recorded as `keys.generated`.
    pub fn generate_on_token(&self, module: &Path, token_label: &str, pin: &Secret<String>, purpose: &str) -> Result<String> {
        self.made("keys.generated", vec![("on_token", Value::Flag(true))], || {
            self.keys.generate_on_token(module, token_label, pin, purpose)
        })
    }

    /// [`KeyStore::import`], recorded as `keys.imported`.
    pub fn import(&self, label: &str, text: &str) -> Result<String> {
        self.made("keys.imported", Vec::new(), || self.keys.import(label, text))
    }

    /// [`KeyStore::confirm`], recorded as `keys.confirmed`.
    pub fn confirm(&self, id: &str, fingerprint: &str) -> Result<()> {
        self.changed("keys.confirmed", id, Vec::new(), || self.keys.confirm(id, fingerprint))
    }

    /// [`KeyStore::set_expiry`], recorded as `keys.expiry_set`.
    pub fn set_expiry(&self, id: &str, expires: Option<&str>) -> Result<()> {
        let detail = |expires: &str| vec![("expires", Value::Text(expires.to_owned()))];
        // What a caller typed is written only once the key store took it for a time.
        let log = self.log()?;
        let facts = self.facts(id);
        let outcome = self.keys.set_expiry(id, expires);
        let detail = if outcome.is_ok() { detail(expires.unwrap_or("never")) } else { Vec::new() };
        append(&log, "keys.expiry_set", [facts, detail].concat(), outcome)
    }

    /// [`KeyStore::rotate`], recorded as `keys.rotated`.
    pub fn rotate(&self, id: &str) -> Result<String> {
        let previous = self.facts(id).into_iter().filter(|(key, _)| *key == "key").map(|(_, value)| ("previous", value)).collect();
        self.made("keys.rotated", previous, || self.keys.rotate(id))
    }

    /// [`KeyStore::remove`], recorded as `keys.removed`.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.changed("keys.removed", id, Vec::new(), || self.keys.remove(id))
    }

    /// A change that yields an entry.
    fn made(&self, event: &'static str, detail: Vec<(&'static str, Value)>, change: impl FnOnce() -> Result<String>) -> Result<String> {
        let log = self.log()?;
        let outcome = change();
        let facts = outcome.as_deref().map(|id| self.facts(id)).unwrap_or_default();
        append(&log, event, [facts, detail].concat(), outcome)
    }

    /// A change of an entry, or its end.
    fn changed(
        &self,
        event: &'static str,
        id: &str,
        detail: Vec<(&'static str, Value)>,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let log = self.log()?;
        // Asked before: a removed entry has no fingerprint any more.
        let facts = self.facts(id);
        let outcome = change();
        append(&log, event, [facts, detail].concat(), outcome)
    }

    /// Id and fingerprint of an entry; nothing for a text that names none, which may be anything.
    fn facts(&self, id: &str) -> Vec<(&'static str, Value)> {
        let fingerprint = self.keys.fingerprint(id);
        fingerprint.map(|text| vec![("key", Value::Text(id.to_owned())), ("fingerprint", Value::Text(text))]).unwrap_or_default()
    }

    fn log(&self) -> Result<Arc<AuditLog>> {
        if let Some(log) = shared::audit_log_of(self.keys.directory()) {
            return Ok(log);
        }
        let mut kept = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = &*kept {
            return Ok(Arc::clone(log));
        }
        let log = match &self.beside {
            Some(folder) => shared::audit_log_in(folder.clone(), &self.config, &self.keys)?,
            None => shared::configured_audit_log(&self.config, &self.keys)?,
        };
        *kept = Some(Arc::clone(&log));
        Ok(log)
    }
}

/// Writes how a change ended. A change that could not be recorded is an error even if it was made.
fn append<T>(log: &AuditLog, event: &'static str, mut detail: Vec<(&'static str, Value)>, outcome: Result<T>) -> Result<T> {
    let ended = match &outcome {
        Ok(_) => Outcome::Success,
        Err(error) => {
            detail.extend(failure(error));
            Outcome::Failure
        }
    };
    log.append(&Event { event, outcome: ended, object: None, detail })?;
    outcome
}
