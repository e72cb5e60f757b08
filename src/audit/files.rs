//! Files of the log: private, never a link, made durable, and owned by one writer at a time.
//!
//! Folders are 0700 and files 0600. No file is opened through a link in its last component, since a link could make the log write
//! into another file or read a forged one. The lock is an *open file description* lock (fcntl, `F_OFD_SETLK`): the kernel ends it
//! when its holder ends, however that happens, and unlike the older POSIX lock it also holds between two logs of one process and is
//! not lost when some library opens and closes the same file.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// A system error as an error of the audit log: the number only, since a system's text may quote a path.
pub(super) fn unwritable(what: &'static str, error: &io::Error) -> Error {
    Error::new(Kind::AuditUnwritable, describe(what, error))
}

/// A system error while the log is read.
pub(super) fn unreadable(what: &'static str, error: &io::Error) -> Error {
    Error::new(Kind::AuditUnreadable, describe(what, error))
}

fn describe(what: &'static str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{what} (system error {number})"),
        None => what.to_owned(),
    }
}

/// Makes sure that a folder is there, is no link, and that nobody else may change what is in it.
///
/// A new folder gets 0700, and so does an empty one that the caller owns: it was made for the log.
pub(super) fn own_folder(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(path).map_err(|error| unwritable("the folder of the log cannot be made", &error))?;
            if let Some(parent) = path.parent() {
                // Best effort: the parent may be a folder that this user can write into but not open.
                let _ = sync_folder(parent);
            }
        }
        Err(error) => return Err(unwritable("the folder of the log cannot be examined", &error)),
    }
    let facts = std::fs::symlink_metadata(path).map_err(|error| unwritable("the folder of the log cannot be examined", &error))?;
    if !facts.is_dir() {
        return Err(Error::new(Kind::AuditUnwritable, "the folder of the log is a link or no folder"));
    }
    if facts.mode() & 0o022 != 0 {
        let empty = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if !empty || std::fs::set_permissions(path, Permissions::from_mode(0o700)).is_err() {
            return Err(Error::new(Kind::AuditUnwritable, "others may write into the folder of the log")
                .with_hint("run chmod 700 on the folder of audit_log_path"));
        }
    }
    Ok(())
}

/// Makes one new folder, 0700.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Makes a new file for appending, 0600; fails when there is one.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Opens a regular file for appending, making it (0600) when `make` says so.
pub(super) fn append(path: &Path, make: bool) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).append(true).create(make).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    regular(file)
}

/// Opens a regular file for reading.
pub(super) fn read(path: &Path) -> io::Result<File> {
    // O_NONBLOCK keeps a FIFO that took the file's place from stopping the reader; it means nothing for a regular file.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    regular(file)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::from(io::ErrorKind::InvalidInput)) }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a file by way of a temporary one beside it: readers see the old content or the new, never a part. On failure the
/// temporary file is gone again.
pub(super) fn replace(path: &Path, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Short whatever the target is called: names end at 255 bytes.
    let temporary = folder.join(format!(".smp-{}", hex(random()?.get(..8).unwrap_or_default())));
    let outcome = write_and_rename(&temporary, path, fill);
    if outcome.is_err() {
        let _ = std::fs::remove_file(&temporary);
        return outcome;
    }
    match sync_folder(folder) {
        // Some network shares cannot sync a folder; the file itself is on them.
        Err(error)
            if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn write_and_rename(temporary: &Path, path: &Path, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut buffered = io::BufWriter::with_capacity(1 << 18, create(temporary)?);
    fill(&mut buffered)?;
    buffered.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(temporary, path)
}

/// 32 random bytes of the system.
pub(super) fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|_| io::Error::from(io::ErrorKind::Other))?;
    Ok(bytes)
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// A file that is locked for one writer. Dropping it ends the lock at once, even while a child process between fork and exec still
/// holds a copy of the descriptor.
pub(super) struct Locked {
    file: File,
}

impl Locked {
    /// Locks a file that is open for writing; nothing when somebody else holds it.
    pub(super) fn try_new(file: File) -> io::Result<Option<Locked>> {
        Ok(if ofd::lock(&file)? { Some(Locked { file }) } else { None })
    }

    /// Whether a path still names the locked file: a lock on a file that was moved away protects nothing.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        match (self.file.metadata(), std::fs::symlink_metadata(path)) {
            (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }

    /// The locked file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        ofd::unlock(&self.file);
    }
}

/// The one place that asks for open file description locks, which std does not offer.
#[allow(unsafe_code)]
mod ofd {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;

    /// Asks for a write lock on the whole file without waiting; false when another open file description holds one.
    pub(super) fn lock(file: &File) -> io::Result<bool> {
        match set(file, libc::F_WRLCK as libc::c_short) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the lock back. Cannot fail for a lock that is held; for one that is not, it does nothing.
    pub(super) fn unlock(file: &File) {
        let _ = set(file, libc::F_UNLCK as libc::c_short);
    }

    fn set(file: &File, kind: libc::c_short) -> io::Result<()> {
        // l_start = l_len = 0: the whole file, however it grows; l_pid must be 0 for this kind of lock.
        // SAFETY: flock is a plain C struct of integers, for which all zeros is a valid value.
        let mut range: libc::flock = unsafe { std::mem::zeroed() };
        range.l_type = kind;
        range.l_whence = libc::SEEK_SET as libc::c_short;
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and `range` is a live flock that the call only reads.
        let status = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
        if status == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_lock_holds_against_a_second_open_of_the_same_process_and_ends_with_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let held = Locked::try_new(create(&path).unwrap()).unwrap().unwrap();
        assert!(Locked::try_new(append(&path, false).unwrap()).unwrap().is_none());
        assert!(held.is_at(&path));
        std::fs::rename(&path, folder.path().join("b")).unwrap();
        assert!(!held.is_at(&path));
        drop(held);
        assert!(Locked::try_new(append(&folder.path().join("b"), false).unwrap()).unwrap().is_some());
    }

    #[test]
    fn no_file_is_opened_through_a_link_and_no_device_is_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, b"x").unwrap();
        symlink(&target, &link).unwrap();
        assert!(read(&link).is_err() && append(&link, false).is_err() && append(&link, true).is_err() && create(&link).is_err());
        assert!(read(&target).is_ok());
        assert!(read(folder.path()).is_err() && read(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn a_folder_that_others_may_change_is_refused_unless_it_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/deeper");
        own_folder(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o700, 0o700));
        std::fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        own_folder(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        std::fs::write(path.join("x"), b"x").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o770)).unwrap();
        assert_eq!(own_folder(&path).unwrap_err().kind(), Kind::AuditUnwritable);
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(own_folder(&link).unwrap_err().kind(), Kind::AuditUnwritable);
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        replace(&path, &mut |out| out.write_all(b"old")).unwrap();
        let failed = replace(&path, &mut |out| out.write_all(b"new").and(Err(io::Error::from(io::ErrorKind::StorageFull))));
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
