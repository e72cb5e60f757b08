//! The workspace: ciphertext that was fetched and journals of sealings, both for resuming, and nothing else.
//!
//! Each remote path has a spool folder of its own, named by a digest, and a lock file beside it. A study holds the lock while it runs;
//! a second run of the same path goes without a spool rather than sharing one. What is found unlocked belongs to no living run.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::control::Control;
use crate::erase;
use crate::error::{Error, Kind, Result};

/// Folder of the journals of interrupted sealings.
pub(super) const JOURNALS: &str = "sealing";

/// The folder that `workspace` names.
pub(super) struct Workspace {
    spools: PathBuf,
    journals: PathBuf,
}

/// A spool folder, held by one run of one study.
pub(super) struct SpoolLease {
    folder: PathBuf,
    lock_path: PathBuf,
    /// Dropping the file releases the lock.
    _lock: File,
}

impl Workspace {
    /// Opens the workspace; its folders are made with mode 0700.
    pub(super) fn open(folder: &Path) -> Result<Workspace> {
        let spools = folder.join("spool");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&spools)
            .map_err(|_| Error::new(Kind::SpoolUnwritable, "the workspace folder cannot be made"))?;
        Ok(Workspace { spools, journals: folder.join(JOURNALS) })
    }

    /// The spool of a remote path, unless another run holds it.
    pub(super) fn lease(&self, store: &str, remote_path: &str) -> Result<Option<SpoolLease>> {
        // The name tells nothing of the study: remote paths may hold a patient's name.
        let mut hash = Sha256::new();
        hash.update(store.as_bytes());
        hash.update([0]);
        hash.update(remote_path.trim_end_matches('/').as_bytes());
        let name: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let lock_path = self.spools.join(format!("{name}.lock"));
        let unwritable = || Error::new(Kind::SpoolUnwritable, "the spool folder cannot be made");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&lock_path)
            .map_err(|_| unwritable())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(_)) => return Err(unwritable()),
        }
        // A cleanup may have removed the file between opening and locking it; a lock on a file without a name keeps nobody out.
        if !is_same_file(&lock, &lock_path) {
            return Ok(None);
        }
        let folder = self.spools.join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|_| unwritable())?;
        Ok(Some(SpoolLease { folder, lock_path, _lock: lock }))
    }

    /// Erases every spool and every journal that no run holds. Returns what was done, as JSON for people and programs.
    pub(super) fn clean(&self, control: &Control) -> Result<Value> {
        let mut total = erase::Report::default();
        let mut in_use = 0;
        let mut left = 0;
        let mut paths = paths_in(&self.spools)?;
        if self.journals.is_dir() {
            paths.extend(paths_in(&self.journals)?);
        }
        for path in paths {
            if path.extension().is_some_and(|extension| extension == "lock") {
                continue;
            }
            let lock_path = path.with_extension("lock");
            // A missing lock file means that no run can hold this folder.
            let lock = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(&lock_path).ok();
            if lock.as_ref().is_some_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock))) {
                in_use += 1;
                continue;
            }
            let erased = if path.is_dir() { erase::erase_directory(&path, 1, control) } else { erase::erase_file(&path, 1, control) };
            match erased {
                Ok(report) => {
                    merge(&mut total, report);
                    // The lock is still held here, so no run can have begun to use the folder again.
                    let _ = fs::remove_file(&lock_path);
                }
                Err(error) if error.kind() == Kind::Cancelled => return Err(error),
                Err(_) => left += 1,
            }
        }
        Ok(json!({
            "schema": "smp-cleanup/1",
            "files_erased": total.files,
            "bytes_erased": total.bytes,
            "passes": total.passes,
            "file_system": total.file_system,
            "verdict": verdict(total.verdict),
            "content": "ciphertext; the plaintext of a study is never written to a disk",
            "spools_in_use": in_use,
            "spools_left": left,
        }))
    }
}

impl SpoolLease {
    /// Folder for this run's ciphertext.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Erases the spool now, because the run will not be resumed.
    pub(super) fn erase(self) -> Result<erase::Report> {
        // Erasure is not cancelled with the study that it cleans up after.
        let report = erase::erase_directory(&self.folder, 1, &Control::new())?;
        let _ = fs::remove_file(&self.lock_path);
        Ok(report)
    }
}

fn paths_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|_| Error::new(Kind::EraseFailed, "the workspace cannot be read"))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn is_same_file(file: &File, path: &Path) -> bool {
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (opened, named) = (file.metadata().map(place), fs::symlink_metadata(path).map(place));
    matches!((opened, named), (Ok(opened), Ok(named)) if opened == named)
}

fn merge(total: &mut erase::Report, report: erase::Report) {
    total.files += report.files;
    total.bytes += report.bytes;
    total.passes = total.passes.max(report.passes);
    if total.file_system.is_empty() {
        total.file_system = report.file_system;
    }
    // The worst verdict speaks for all.
    total.verdict = match (total.verdict, report.verdict) {
        (Some(erase::Verdict::DeletedOnly), _) | (_, Some(erase::Verdict::DeletedOnly)) => Some(erase::Verdict::DeletedOnly),
        (earlier, later) => later.or(earlier),
    };
}

fn verdict(verdict: Option<erase::Verdict>) -> &'static str {
    match verdict {
        None => "nothing to erase",
        Some(erase::Verdict::Overwritten) => "overwritten in place",
        Some(erase::Verdict::DeletedOnly) => "deleted; this file system may keep the old blocks",
    }
}
