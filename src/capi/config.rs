//! Configuration: settings by dotted key, from a file, the environment and the program.
//!
//! The later of these wins: default, file, environment (`SMP_*` and the provider's own), `smp_config_set`, the request of one study.
//! An unknown key is an error whose hint names the nearest known one.

use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::guard::{enter, leave};
use super::handle::Noun;
use super::slice;
use super::text::{self, Held};
use crate::config::Config;
use crate::config::schema::{KEYS, Key};
use crate::error::{Error, Kind, Result};

/// Settings by dotted key.
///
/// Lives from `smp_config_new`, `smp_config_load` or `smp_config_clone` until `smp_config_free`. Threads may share it. Whatever is made
/// from a configuration copies it, so it may be changed or freed at once.
pub struct smp_config {
    _opaque: [u8; 0],
}

pub(super) static CONFIGS: Noun<smp_config, Held<Settings>> = Noun::new("config");

/// A configuration that threads may change.
pub(super) struct Settings(Mutex<Config>);

impl Settings {
    /// The settings of this moment.
    pub(super) fn snapshot(&self) -> Config {
        self.lock().clone()
    }

    // A value that was being set when a thread panicked is set or is not; both are sound.
    fn lock(&self) -> MutexGuard<'_, Config> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(config: Config) -> Result<*mut smp_config> {
    CONFIGS.add(Held::new(Settings(Mutex::new(config))))
}

/// Makes a configuration of defaults and environment.
///
/// @return The configuration, or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_new() -> *mut smp_config {
    enter(|| add(Config::new()))
}

/// Reads a configuration from a JSON file, over defaults and environment.
///
/// A file that holds a secret must have mode 0600.
///
/// @param path  File to read; NULL reads `~/.smp/config.json`.
/// @return The configuration, or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_load(path: *const c_char) -> *mut smp_config {
    enter(|| {
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let path = unsafe { text::optional_path(path, "path") }?;
        add(Config::load(path.as_deref())?)
    })
}

/// Copies a configuration.
///
/// @param config  Configuration to copy.
/// @return A configuration of its own, or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_clone(config: *mut smp_config) -> *mut smp_config {
    enter(|| add(CONFIGS.get(config, "config")?.value.snapshot()))
}

/// Ends a configuration and the strings it gave out.
///
/// @param config  Configuration to end; NULL and dead handles are allowed.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_free(config: *mut smp_config) {
    leave(|| CONFIGS.free(config))
}

/// Sets a key from text.
///
/// @param config  Configuration to change.
/// @param key     Dotted name, such as `cloud.bucket`.
/// @param value   Value as text: `true`, `0.5`, `a,b,c`; an empty text unsets a text, a path or a list.
/// @return `SMP_OK`, `SMP_ERR_CONFIG_UNKNOWN_KEY` or `SMP_ERR_CONFIG_INVALID_VALUE`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_set(config: *mut smp_config, key: *const c_char, value: *const c_char) -> i32 {
    enter(|| {
        let config = CONFIGS.get(config, "config")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let key = unsafe { text::required(key, "key") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let value = unsafe { text::required(value, "value") }?;
        config.value.lock().set(&key, &value)
    })
}

/// Sets a key to a whole number.
///
/// @param config  Configuration to change.
/// @param key     Dotted name, such as `transfer.parallel`.
/// @param value   Value.
/// @return `SMP_OK`, `SMP_ERR_CONFIG_UNKNOWN_KEY` or `SMP_ERR_CONFIG_INVALID_VALUE`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_set_int(config: *mut smp_config, key: *const c_char, value: i64) -> i32 {
    enter(|| {
        let config = CONFIGS.get(config, "config")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let key = unsafe { text::required(key, "key") }?;
        config.value.lock().set_int(&key, value)
    })
}

/// Sets a key to a real number.
///
/// @param config  Configuration to change.
/// @param key     Dotted name, such as `threshold`.
/// @param value   Value; NaN and infinities are refused.
/// @return `SMP_OK`, `SMP_ERR_CONFIG_UNKNOWN_KEY` or `SMP_ERR_CONFIG_INVALID_VALUE`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_set_real(config: *mut smp_config, key: *const c_char, value: f64) -> i32 {
    enter(|| {
        let config = CONFIGS.get(config, "config")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let key = unsafe { text::required(key, "key") }?;
        config.value.lock().set_real(&key, value)
    })
}

/// Sets every key that a JSON object names, nested (`{"cloud": {"bucket": "b"}}`) or dotted (`{"cloud.bucket": "b"}`).
///
/// @param config  Configuration to change.
/// @param json    JSON object.
/// @return `SMP_OK`, `SMP_ERR_CONFIG_UNKNOWN_KEY` or `SMP_ERR_CONFIG_INVALID_VALUE`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_merge_json(config: *mut smp_config, json: *const c_char) -> i32 {
    enter(|| {
        let config = CONFIGS.get(config, "config")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let json = unsafe { text::required(json, "json") }?;
        config.value.lock().merge_json(&json)
    })
}

/// Tells the value that a key has now, whichever source it came from.
///
/// @param config  Configuration to ask.
/// @param key     Dotted name.
/// @return The value as text, alive until the configuration is freed; NULL with `SMP_ERR_ABSENT` when the key is unset or holds a secret,
///         NULL with `SMP_ERR_CONFIG_UNKNOWN_KEY` when there is no such key.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_get(config: *mut smp_config, key: *const c_char) -> *const c_char {
    enter(|| {
        let config = CONFIGS.get(config, "config")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let key = unsafe { text::required(key, "key") }?;
        let value = config.value.lock().get(&key)?;
        let value = value.ok_or_else(|| {
            Error::new(Kind::Absent, "the key is unset or holds a secret").with_hint("set the key; a secret is never answered")
        })?;
        Ok(config.texts.give(&value))
    })
}

/// Checks all values against each other, before anything is made from them.
///
/// @param config  Configuration to check.
/// @return `SMP_OK`, or the status of the first contradiction, which the message names.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_check(config: *mut smp_config) -> i32 {
    enter(|| CONFIGS.get(config, "config")?.value.snapshot().check())
}

/// Counts the configuration keys that there are.
///
/// @return Number of keys.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_key_count() -> i64 {
    enter(|| slice::count(KEYS.len()))
}

/// Tells the name of a configuration key.
///
/// @param index  0 to `smp_config_key_count` - 1.
/// @return Dotted name; lives for ever. NULL past the end.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_key_name(index: i64) -> *const c_char {
    enter(|| Ok(text::forever(key_at(index)?.name)))
}

/// Tells what a configuration key is for.
///
/// @param index  0 to `smp_config_key_count` - 1.
/// @return One sentence; lives for ever. NULL past the end.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_key_help(index: i64) -> *const c_char {
    enter(|| Ok(text::forever(key_at(index)?.help)))
}

/// Tells the value that a configuration key has when nobody sets it.
///
/// @param index  0 to `smp_config_key_count` - 1.
/// @return Default as text, empty when the key is unset by default; lives for ever. NULL past the end.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_config_key_default(index: i64) -> *const c_char {
    enter(|| Ok(text::forever(key_at(index)?.default)))
}

fn key_at(index: i64) -> Result<&'static Key> {
    slice::at(KEYS, index, "key")
}
