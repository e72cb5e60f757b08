//! Typed configuration: one table of keys, four places where values come from, and no value that is silently ignored.
//!
//! The later of these wins: default, file, environment (`SMP_*`), [`Config::set`]. The environment is read when a [`Config`] is made, so that
//! a configuration does not change under a running study. An unknown key is an error with the nearest name as hint; a value that its key
//! does not take is an error that names what it takes. Secrets go in and never come out again, except to the parts of this crate that
//! need them.
//!
//! ```
//! use smp::config::Config;
//!
//! let mut config = Config::new();
//! config.merge_json(r#"{"cloud": {"provider": "s3", "bucket": "hospital-encrypted-data", "region": "us-east-1"}}"#)?;
//! config.set("threshold", "0.6")?;
//! assert_eq!(config.get("cloud.bucket")?.as_deref(), Some("hospital-encrypted-data"));
//! let error = config.set("cloud.buket", "x").unwrap_err();
//! assert_eq!(error.hint(), Some("did you mean cloud.bucket?"));
//! # Ok::<(), smp::Error>(())
//! ```

mod expand;
mod file;
pub mod schema;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use self::expand::expand;
use self::schema::{KEYS, Key, Type};
pub use self::value::takes;
use self::value::{Text, check, flag, from_integer, from_real, from_text, items};
use crate::error::{Error, Kind, Result};

/// Where the file is when nobody says.
const DEFAULT_FILE: &str = "~/.smp/config.json";

/// Values of one place, by key.
type Layer = BTreeMap<&'static str, Text>;

/// Settings by dotted key, as `smp.h` and the JSON file name them. The default value has the defaults only, not the environment.
#[derive(Clone, Default)]
pub struct Config {
    set: Layer,
    environment: Layer,
    file: Layer,
    /// Variables of the environment whose values their keys do not take. A `Config` can always be made, so these wait for
    /// [`Config::check`]; a key that was set since is not in question any more.
    refused: BTreeMap<&'static str, String>,
}

impl Config {
    /// Defaults and environment only.
    pub fn new() -> Config {
        Config::with_environment(std::env::vars_os())
    }

    /// Reads a JSON file; `None` is `~/.smp/config.json`, which need not exist. A file that holds secrets must be its owner's alone (0600).
    pub fn load(path: Option<&Path>) -> Result<Config> {
        Config::load_with(path, std::env::vars_os())
    }

    fn with_environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Config {
        let mut config = Config::default();
        for (variable, value) in variables {
            let Some(key) = variable.to_str().filter(|name| name.starts_with("SMP_")).and_then(key_of_variable) else { continue };
            match value.to_str().map(|value| from_text(key, value)) {
                // `SMP_X= command` is how a shell unsets for one command.
                _ if value.is_empty() => {}
                Some(Ok(text)) => drop(config.environment.insert(key.name, text)),
                Some(Err(error)) => drop(config.refused.insert(key.name, error.detail().to_owned())),
                None => drop(config.refused.insert(key.name, format!("{} is not UTF-8", key.name))),
            }
        }
        config
    }

    fn load_with(path: Option<&Path>, variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Config> {
        let mut config = Config::with_environment(variables);
        let file = match path {
            Some(path) => {
                let path = path.to_str().map_or_else(|| Ok(path.to_owned()), expand)?;
                file::read(&path)?.ok_or_else(|| Error::new(Kind::ConfigUnreadable, "there is no such file"))?
            }
            // No home, no file in it.
            None => expand(DEFAULT_FILE).ok().map_or(Ok(None), |path| file::read(&path))?.unwrap_or_default(),
        };
        config.file = file;
        Ok(config)
    }

    /// Sets a key from text (parsed by the key's type). Empty text unsets a text, a path or a list, its default included.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let key = known(key)?;
        self.put(key, from_text(key, value)?);
        Ok(())
    }

    /// Sets a whole-number key, a real key, or a truth value by 0 and 1.
    pub fn set_int(&mut self, key: &str, value: i64) -> Result<()> {
        let key = known(key)?;
        self.put(key, from_integer(key, value)?);
        Ok(())
    }

    /// Sets a real key.
    pub fn set_real(&mut self, key: &str, value: f64) -> Result<()> {
        let key = known(key)?;
        self.put(key, from_real(key, value)?);
        Ok(())
    }

    /// Merges a JSON object (nested or dotted keys), as if each key had been set. On an error nothing is changed.
    pub fn merge_json(&mut self, json: &str) -> Result<()> {
        for (name, text) in file::parse(json)? {
            self.put(known(name)?, text);
        }
        Ok(())
    }

    /// The effective value as text; `None` when unset or secret.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let key = known(key)?;
        Ok(self.effective(key).filter(|value| !value::is_secret(key, value)).map(str::to_owned))
    }

    /// Checks all values, alone and against each other.
    pub fn check(&self) -> Result<()> {
        if let Some((name, detail)) = self.refused.iter().find(|(name, _)| !self.set.contains_key(*name)) {
            let hint = schema::find(name).map(|key| format!("look at {} in the environment", key.variable()));
            return Err(Error::new(Kind::ConfigInvalidValue, detail.clone()).with_hint(hint.unwrap_or_default()));
        }
        for key in KEYS {
            let Some(value) = self.effective(key) else { continue };
            check(key, value)?;
            if key.kind == Type::Path {
                expand(value).map_err(|error| of_key(key, &error))?;
            }
        }
        self.check_store()
    }

    fn check_store(&self) -> Result<()> {
        let provider = self.text("cloud.provider").unwrap_or_default();
        let bucket = self.text("cloud.bucket");
        if matches!(provider.as_str(), "s3" | "gcs" | "azure") && bucket.is_none() {
            return Err(Error::new(Kind::ConfigInvalidValue, format!("cloud.provider {provider} needs cloud.bucket")));
        }
        if provider == "local"
            && let Some(bucket) = bucket
        {
            expand(&bucket).map_err(|error| Error::new(Kind::ConfigInvalidValue, format!("cloud.bucket: {}", error.detail())))?;
        }
        Ok(())
    }

    /// Effective text of a known key; secrets included (crate use only); `~` and `$VAR` not yet expanded.
    pub(crate) fn text(&self, key: &'static str) -> Option<String> {
        schema::find(key).and_then(|key| self.effective(key)).map(str::to_owned)
    }

    /// Effective path of a known key, expanded (`~`, `$VAR`); `None` when unset.
    pub(crate) fn path(&self, key: &'static str) -> Result<Option<PathBuf>> {
        let key = known(key)?;
        self.effective(key).map(|text| expand(text).map_err(|error| of_key(key, &error))).transpose()
    }

    /// Effective whole number of a known key.
    pub(crate) fn integer(&self, key: &'static str) -> Result<Option<i64>> {
        let key = known(key)?;
        self.effective(key).map(|text| text.parse().map_err(|_| value::invalid(key))).transpose()
    }

    /// Effective real of a known key.
    pub(crate) fn real(&self, key: &'static str) -> Result<Option<f64>> {
        let key = known(key)?;
        self.effective(key).map(|text| text.parse().map_err(|_| value::invalid(key))).transpose()
    }

    /// Effective truth value of a known key.
    pub(crate) fn flag(&self, key: &'static str) -> Result<bool> {
        let key = known(key)?;
        self.effective(key).and_then(flag).ok_or_else(|| value::invalid(key))
    }

    /// Effective list (comma separated text or JSON array) of a known key.
    pub(crate) fn list(&self, key: &'static str) -> Result<Vec<String>> {
        let key = known(key)?;
        Ok(self.effective(key).map(|text| items(text).map(str::to_owned).collect()).unwrap_or_default())
    }

    fn put(&mut self, key: &'static Key, text: Text) {
        self.set.insert(key.name, text);
    }

    /// The value that counts; empty is unset.
    fn effective(&self, key: &Key) -> Option<&str> {
        let layers = [&self.set, &self.environment, &self.file];
        let value = layers.iter().find_map(|layer| layer.get(key.name)).map_or(key.default, |text| text.as_str());
        (!value.is_empty()).then_some(value)
    }
}

fn key_of_variable(variable: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.variable() == variable)
}

/// The key of a name, or an error that hints at the nearest one.
fn known(name: &str) -> Result<&'static Key> {
    schema::find(name).ok_or_else(|| {
        // A name may be a secret or a patient in the wrong place; only what looks like a key is repeated.
        let is_plain = !name.is_empty() && name.len() <= 48 && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte));
        let error =
            Error::new(Kind::ConfigUnknownKey, if is_plain { name.to_owned() } else { "a name that is none of the keys".to_owned() });
        match nearest(name) {
            Some(key) => error.with_hint(format!("did you mean {}?", key.name)),
            None => error.with_hint("docs/configuration.md lists the keys"),
        }
    })
}

/// The key that a mistyped name probably meant.
fn nearest(name: &str) -> Option<&'static Key> {
    let name: String = name.chars().take(64).collect::<String>().to_ascii_lowercase().replace('-', "_");
    // `bucket` for `cloud.bucket`.
    let last_part = |key: &&Key| key.name.rsplit('.').next() == Some(name.as_str());
    if let Some(key) = KEYS.iter().find(last_part) {
        return Some(key);
    }
    let closest = KEYS.iter().map(|key| (distance(&name, key.name), key)).min_by_key(|(distance, _)| *distance)?;
    (closest.0 <= 2.max(name.chars().count() / 4)).then_some(closest.1)
}

/// Insertions, deletions and substitutions between two texts (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            left = (left + 1).min(above + 1).min(diagonal + usize::from(letter != *other));
            (diagonal, *cell) = (above, left);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// An error about a path, with its key.
fn of_key(key: &Key, error: &Error) -> Error {
    Error::new(error.kind(), format!("{}: {}", key.name, error.detail()))
}

#[cfg(test)]
mod tests;
