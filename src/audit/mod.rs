//! The audit log: who did what with which study, in a form that shows when somebody changed it later.
//!
//! Each record is one line of JSON that quotes the SHA-256 of the line before it; `docs/audit-log.md` describes the format and how a
//! stranger checks it with `sha256sum`. This module promises that
//!
//! - an acknowledged record is durable, and survives the death of the process at any moment;
//! - a record that was changed, cut out, moved, doubled or renamed is found, and so is a log whose end was cut off or that was taken
//!   away, as long as its kept head is untouched;
//! - nothing that identifies a patient is written: objects are HMAC pseudonyms, details come from one closed table, errors are codes.
//!
//! It does not know what it records: stages hand it an [`Event`]. Whoever can rewrite a log and its head together is not found by this
//! module alone; signed checkpoints are to close that gap, and the first line of a log already has the place for their public key.
//!
//! Rooms: `record` (a line), `events` (what may be in it), `writer` (group commit), `open` (which log to continue, and when not),
//! `heads` (the newest line, kept elsewhere), `reader`, `verify`, `export`, `summary`; `files`, `layout` and `clock` below them.

mod clock;
mod events;
mod export;
mod files;
mod heads;
mod layout;
mod open;
mod reader;
mod record;
mod summary;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use crate::secret::Secret;

pub use reader::AuditReader;
pub use verify::{Fault, Finding, Verification};
pub use writer::AuditLog;

/// Where and for whom a log is kept.
pub struct Settings {
    /// `audit_log_path`: a folder; each log has a folder of its own in it.
    pub directory: PathBuf,
    /// `user_id`, at most 256 bytes.
    pub actor: String,
    /// `protocol` (IRB protocol), may be empty, at most 256 bytes.
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

impl Outcome {
    /// As records spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
        }
    }
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
    /// Known to be absent.
    Null,
}

/// Something that happened. `event` is a dotted lower-case name such as `study.opened`; the table in `events.rs` lists every one with
/// the details it may carry.
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
    /// Earliest time stamp.
    pub first: Option<String>,
    /// Latest time stamp.
    pub last: Option<String>,
    /// Head of this process's log: hash of its newest line.
    pub head: String,
    /// Entries by event name, sorted by name.
    pub by_event: Vec<(String, u64)>,
}
