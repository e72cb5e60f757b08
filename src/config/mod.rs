//! Typed configuration.
pub mod schema;

use crate::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// Settings by dotted key, as `smp.h` and the JSON file name them.
#[derive(Clone, Default)]
pub struct Config {}

fn stub<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "stub"))
}
impl Config {
    /// Defaults and environment only.
    pub fn new() -> Config {
        Config {}
    }
    /// Reads a JSON file; `None` is `~/.smp/config.json`.
    pub fn load(_path: Option<&Path>) -> Result<Config> {
        stub()
    }
    /// Sets a key from text (parsed by the key's type).
    pub fn set(&mut self, _key: &str, _value: &str) -> Result<()> {
        stub()
    }
    /// Sets a whole-number key.
    pub fn set_int(&mut self, _key: &str, _value: i64) -> Result<()> {
        stub()
    }
    /// Sets a real key.
    pub fn set_real(&mut self, _key: &str, _value: f64) -> Result<()> {
        stub()
    }
    /// Merges a JSON object (nested or dotted keys).
    pub fn merge_json(&mut self, _json: &str) -> Result<()> {
        stub()
    }
    /// The effective value as text; `None` when unset or secret.
    pub fn get(&self, _key: &str) -> Result<Option<String>> {
        stub()
    }
    /// Checks all values against each other.
    pub fn check(&self) -> Result<()> {
        stub()
    }
    /// Effective text of a known key; secrets included (crate use only); `~` and `$VAR` not yet expanded.
    pub(crate) fn text(&self, _key: &'static str) -> Option<String> {
        None
    }
    /// Effective path of a known key, expanded (`~`, `$VAR`); `None` when unset.
    pub(crate) fn path(&self, _key: &'static str) -> Result<Option<PathBuf>> {
        stub()
    }
    /// Effective whole number of a known key.
    pub(crate) fn integer(&self, _key: &'static str) -> Result<Option<i64>> {
        stub()
    }
    /// Effective real of a known key.
    pub(crate) fn real(&self, _key: &'static str) -> Result<Option<f64>> {
        stub()
    }
    /// Effective truth value of a known key.
    pub(crate) fn flag(&self, _key: &'static str) -> Result<bool> {
        stub()
    }
    /// Effective list (comma separated text or JSON array) of a known key.
    pub(crate) fn list(&self, _key: &'static str) -> Result<Vec<String>> {
        stub()
    }
}
/// Expands `~` and `$VAR` in a path.
pub fn expand(_path: &str) -> Result<PathBuf> {
    stub()
}
