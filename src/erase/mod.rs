//! Erasure with honest verdicts.
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use std::path::Path;
/// What an erasure is worth on the file system it ran on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Overwritten in place on a file system that overwrites in place.
    Overwritten,
    /// Deleted; the file system or device keeps old blocks for an unknown time.
    DeletedOnly,
}
/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Files erased.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Overwriting passes.
    pub passes: u32,
    /// Name of the file system (`ext4`, `btrfs`, ...).
    pub file_system: String,
    /// Worst verdict of all files; `None` when there was nothing to erase.
    pub verdict: Option<Verdict>,
}
fn stub<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "stub"))
}
/// Overwrites and removes one file.
pub fn erase_file(_path: &Path, _passes: u32, _control: &Control) -> Result<Report> {
    stub()
}
/// Erases a folder and all below it.
pub fn erase_directory(_path: &Path, _passes: u32, _control: &Control) -> Result<Report> {
    stub()
}
