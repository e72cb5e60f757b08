//! What one process opens once: key stores and audit logs.
//!
//! A key store unlocked by a passphrase in one call is the store that a later pipeline over the same folder uses, so the passphrase
//! is given once and kept nowhere. An audit log has one writer per process, whoever records in it.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use zeroize::Zeroizing;

use crate::audit::{self, AuditLog};
use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::keys::{KeyStore, Unlock};
use crate::secret::Secret;

/// Environment variable with the passphrase of the configured key store, for jobs that nobody watches.
const PASSPHRASE_VARIABLE: &str = "SMP_KEY_STORE_PASSPHRASE";

static KEY_STORES: LazyLock<Registry<PathBuf, KeyStore>> = LazyLock::new(Registry::default);
/// The log that was last opened with a key store, by the store's folder.
static LOGS_OF_KEYS: LazyLock<Registry<PathBuf, AuditLog>> = LazyLock::new(Registry::default);
static AUDIT_LOGS: LazyLock<Registry<(PathBuf, String, String), AuditLog>> = LazyLock::new(Registry::default);

/// Live objects by key; dead entries are dropped on the next look.
struct Registry<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Registry(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash, V> Registry<K, V> {
    fn find(&self, key: &K) -> Option<Arc<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).and_then(Weak::upgrade)
    }

    /// The live object of a key, or the one that `open` makes. Two callers never open the same key at once.
    fn find_or_open(&self, key: K, open: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, object| object.strong_count() > 0);
        if let Some(object) = live.get(&key).and_then(Weak::upgrade) {
            return Ok(object);
        }
        let object = Arc::new(open()?);
        live.insert(key, Arc::downgrade(&object));
        Ok(object)
    }
}

/// Opens (or makes) the key store of a folder and shares it in the process.
///
/// `None` for the folder is `~/.smp/keys`. With no passphrase the store is wrapped by a key file, `master.key` in the folder's
/// parent for the default store and in the folder itself for any other. A passphrase is checked even if the store is open already.
pub fn open_key_store(directory: Option<&Path>, passphrase: Option<&str>) -> Result<Arc<KeyStore>> {
    let (directory, key_file) = match directory {
        Some(directory) => {
            let text = directory.to_str().ok_or_else(|| Error::new(Kind::InvalidText, "the folder's name is not valid UTF-8"))?;
            let directory = config::expand(text)?;
            let key_file = directory.join("master.key");
            (directory, key_file)
        }
        None => (config::expand("~/.smp/keys")?, config::expand("~/.smp/keys/master.key")?),
    };
    open(&directory, passphrase.map(|text| Zeroizing::new(text.to_owned())), key_file)
}

/// Opens the key store that `key_store_path` names, as [`Pipeline::new`](super::Pipeline::new) does: a store that is open in this process
/// already, else by the passphrase in `SMP_KEY_STORE_PASSPHRASE`, else by the key file of `encryption_key_path`.
pub fn open_configured_key_store(config: &Config) -> Result<Arc<KeyStore>> {
    let directory = required(config, "key_store_path")?;
    let key_file = required(config, "encryption_key_path")?;
    if let Some(store) = KEY_STORES.find(&canonical(&directory)) {
        return Ok(store);
    }
    open(&directory, std::env::var(PASSPHRASE_VARIABLE).ok().map(Zeroizing::new), key_file)
}

/// The audit log that the configuration names, written under this user's name.
pub(super) fn configured_audit_log(config: &Config, keys: &KeyStore) -> Result<Arc<AuditLog>> {
    audit_log_in(required(config, "audit_log_path")?, config, keys)
}

/// The audit log in a folder, written under the configured user's name.
pub(super) fn audit_log_in(directory: PathBuf, config: &Config, keys: &KeyStore) -> Result<Arc<AuditLog>> {
    let actor = config.text("user_id").unwrap_or_default();
    let protocol = config.text("protocol").unwrap_or_default();
    let log = AUDIT_LOGS.find_or_open((canonical(&directory), actor.clone(), protocol.clone()), || {
        AuditLog::open(audit::Settings { directory, actor, protocol, pseudonym_key: keys.application_key("audit")? })
    })?;
    LOGS_OF_KEYS.put(canonical(keys.directory()), &log);
    Ok(log)
}

/// The log that is open in this process with the key store of a folder, if there is one.
pub(super) fn audit_log_of(key_store: &Path) -> Option<Arc<AuditLog>> {
    LOGS_OF_KEYS.find(&canonical(key_store))
}

fn open(directory: &Path, passphrase: Option<Zeroizing<String>>, key_file: PathBuf) -> Result<Arc<KeyStore>> {
    let unlock = || match &passphrase {
        Some(passphrase) => Unlock::Passphrase(Secret::new(String::clone(passphrase))),
        None => Unlock::KeyFile(key_file.clone()),
    };
    if let (Some(store), Some(_)) = (KEY_STORES.find(&canonical(directory)), &passphrase) {
        // The caller must know the passphrase even when somebody else in the process has opened the store.
        KeyStore::open(directory, unlock())?;
        return Ok(store);
    }
    if !directory.exists() {
        // The folder must exist before its canonical name can be the registry's key.
        let store = Arc::new(KeyStore::open(directory, unlock())?);
        return KEY_STORES.find_or_open_shared(canonical(directory), store);
    }
    KEY_STORES.find_or_open(canonical(directory), || KeyStore::open(directory, unlock()))
}

impl<K: Eq + Hash, V> Registry<K, V> {
    /// Registers an object in place of an older one.
    fn put(&self, key: K, object: &Arc<V>) {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, object| object.strong_count() > 0);
        live.insert(key, Arc::downgrade(object));
    }

    /// Registers an object that was just made, unless another thread was faster.
    fn find_or_open_shared(&self, key: K, object: Arc<V>) -> Result<Arc<V>> {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = live.get(&key).and_then(Weak::upgrade) {
            return Ok(earlier);
        }
        live.insert(key, Arc::downgrade(&object));
        Ok(object)
    }
}

fn canonical(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// A path that has a default and may only be absent if somebody set it to nothing.
pub(super) fn required(config: &Config, key: &'static str) -> Result<PathBuf> {
    config.path(key)?.ok_or_else(|| Error::new(Kind::ConfigInvalidValue, format!("{key} is empty")))
}
