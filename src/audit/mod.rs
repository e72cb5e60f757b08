//! Hash-chained audit log.
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use std::path::{Path, PathBuf};

/// Where and for whom a log is kept.
pub struct Settings {
    /// `audit_log_path`: a folder; each log has a folder of its own in it.
    pub directory: PathBuf,
    /// `user_id`.
    pub actor: String,
    /// `protocol` (IRB protocol), may be empty.
    pub protocol: String,
    /// Key of the HMAC pseudonyms of objects.
    pub pseudonym_key: Secret<[u8; 32]>,
}
/// How an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Success,
    /// It failed.
    Failure,
}
/// A typed value of an event's detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Whole number.
    Integer(i64),
    /// Text from code, a digest, a key id or an allow-listed word; never a file name or a message.
    Text(String),
    /// Truth value.
    Flag(bool),
}
/// Something that happened. `event` is a dotted lower-case name such as `study.opened`.
#[derive(Clone, Debug)]
pub struct Event {
    /// Name.
    pub event: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What it was about, in clear; written as HMAC pseudonym only.
    pub object: Option<String>,
    /// Details by key.
    pub detail: Vec<(&'static str, Value)>,
}
/// Totals for `smp_pipeline_audit_summary`.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Entries in all logs of the folder.
    pub total_entries: u64,
    /// Folder.
    pub log_path: PathBuf,
    /// Whether every log verifies.
    pub integrity_verified: bool,
    /// The actor.
    pub user_id: String,
    /// First and last time stamps.
    pub first: Option<String>,
    /// Last time stamp.
    pub last: Option<String>,
    /// Head of this process's log: hash of its newest line.
    pub head: String,
    /// Entries by event name.
    pub by_event: Vec<(String, u64)>,
}
/// The log this process writes.
pub struct AuditLog {}
/// Logs read by anybody: verification and export.
pub struct AuditReader {}
/// First entry that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Entries read.
    pub entries: u64,
    /// Position (0-based, over all logs in order) of the first entry that does not verify.
    pub first_bad: Option<u64>,
}
fn stub<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "stub"))
}
impl AuditLog {
    /// Opens (or makes) this process's log in the folder.
    pub fn open(_settings: Settings) -> Result<AuditLog> {
        stub()
    }
    /// Appends one event; durable when it returns. Returns its sequence number.
    pub fn append(&self, _event: &Event) -> Result<u64> {
        stub()
    }
    /// Hash of the newest line, hex.
    pub fn head(&self) -> String {
        String::new()
    }
    /// Totals over all logs of the folder.
    pub fn summary(&self) -> Result<Summary> {
        stub()
    }
    /// Folder of all logs.
    pub fn directory(&self) -> &Path {
        Path::new("")
    }
}
impl AuditReader {
    /// Opens a folder of logs, one log, or one file.
    pub fn open(_path: &Path) -> Result<AuditReader> {
        stub()
    }
    /// Entries.
    pub fn count(&self) -> u64 {
        0
    }
    /// Checks every chain.
    pub fn verify(&self) -> Verification {
        Verification { entries: 0, first_bad: None }
    }
    /// Hash of the newest line, hex.
    pub fn head(&self) -> String {
        String::new()
    }
    /// Writes entries between two dates (inclusive; `YYYY-MM-DD` or RFC 3339) as `json` or `csv`; returns their number.
    pub fn export(&self, _format: &str, _path: &Path, _start: Option<&str>, _end: Option<&str>) -> Result<u64> {
        stub()
    }
}
