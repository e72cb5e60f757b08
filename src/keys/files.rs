//! Files that hold secrets: how they are made, found fit to be read, replaced and removed.
//!
//! A folder of keys is worth what its file rules are worth, so they are strict and never mended in silence. A folder is made with mode 0700
//! and refused when anybody else may enter it. A file is made with `O_EXCL` and mode 0600 whatever the umask is, reaches the disk before
//! it gets its name, and is read only when it is a regular file with one name, owned by this user, closed to everybody else, and no larger than
//! expected. Nothing follows a symbolic link in the last component of a path; the components above it are the user's own to guard.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};

/// Mode bits by which somebody else could read, write or enter.
const OTHERS: u32 = 0o077;

/// Makes a folder (and the missing ones above it) with mode 0700, or checks that an existing one is private.
pub(super) fn private_folder(folder: &Path) -> Result<()> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| refused("the folder cannot be made", &error))?;
        }
        Err(error) => return Err(refused("the folder cannot be examined", &error)),
        Ok(_) => {}
    }
    // Looked at again after it was made: between the two somebody may have put another folder there.
    let found = fs::symlink_metadata(folder).map_err(|error| refused("the folder cannot be examined", &error))?;
    if !found.is_dir() {
        return Err(unfit("the key store's path is not a folder, or is a link to one"));
    }
    check_owner_and_mode(found.uid(), found.mode(), "the folder")
}

/// Whether something (even a dangling link) has this name.
pub(super) fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(refused("a file cannot be examined", &error)),
    }
}

/// Contents of a private file of at most `limit` bytes; `None` when there is none.
pub(super) fn read_private(path: &Path, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>> {
    // O_NONBLOCK: opening a FIFO that somebody put there must not hang.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(unfit("a file of the key store is a symbolic link")),
        Err(error) => return Err(refused("a file cannot be opened", &error)),
    };
    // The open descriptor is asked, not the name: the name may mean another file by now.
    let found = file.metadata().map_err(|error| refused("a file cannot be examined", &error))?;
    if !found.is_file() || found.nlink() != 1 {
        return Err(unfit("a file of the key store is not a regular file with one name"));
    }
    check_owner_and_mode(found.uid(), found.mode(), "a file")?;
    if found.len() > limit {
        return Err(unfit(format!("a file of the key store has {} bytes, {limit} at most are expected", found.len())));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0)));
    (&mut file).take(limit).read_to_end(&mut bytes).map_err(|error| refused("a file cannot be read", &error))?;
    Ok(Some(bytes))
}

/// Makes a private file under its own name; an existing one is an error of kind `KeyExists`.
pub(super) fn create_private(path: &Path, bytes: &[u8]) -> Result<()> {
    write_new(path, bytes)?;
    sync_parent(path)
}

/// Puts a private file in place of an old one, or of none, in one step: after a crash either the old or the new contents are there.
pub(super) fn replace_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut random = [0u8; 8];
    super::rest::fill_random(&mut random)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}.new", u64::from_be_bytes(random)));
    let temporary = Path::new(&temporary);
    write_new(temporary, bytes)?;
    if let Err(error) = fs::rename(temporary, path) {
        let _ = fs::remove_file(temporary);
        return Err(refused("a file cannot be renamed", &error));
    }
    sync_parent(path)
}

/// Removes a file; `false` when there was none.
pub(super) fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(refused("a file cannot be removed", &error)),
    }
}

/// Keeps other threads and processes from changing the store until the returned file is dropped.
pub(super) fn lock(path: &Path) -> Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
        .map_err(|error| refused("the lock file cannot be opened", &error))?;
    match file.lock() {
        Ok(()) => Ok(file),
        // A file system without locks (some network mounts): every write is still one rename, so readers never see half of anything.
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(file),
        Err(error) => Err(refused("the key store cannot be locked", &error)),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(Error::new(Kind::KeyExists, "the file exists already")),
        Err(error) => return Err(refused("a file cannot be made", &error)),
    };
    let written = file
        // The umask can only have taken bits away; a store made under umask 0777 must be readable to its owner all the same.
        .set_permissions(fs::Permissions::from_mode(0o600))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        refused("a file cannot be written", &error)
    })
}

/// Makes a new name (or its removal) survive a crash: the folder is a file too.
fn sync_parent(path: &Path) -> Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(|error| refused("the folder cannot be written to disk", &error))
}

fn check_owner_and_mode(owner: u32, mode: u32, what: &'static str) -> Result<()> {
    if owner != rustix::process::geteuid().as_raw() {
        return Err(unfit(format!("{what} belongs to user {owner}")));
    }
    if mode & OTHERS != 0 {
        return Err(unfit(format!("{what} has mode {:04o}, others could use it", mode & 0o7777)));
    }
    Ok(())
}

fn unfit(detail: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::KeyStoreUnavailable, detail)
}

/// An operating system's refusal, told by its number; its own text would quote the path.
pub(super) fn refused(what: &'static str, error: &std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(number) => unfit(format!("{what}, system error {number}")),
        None => unfit(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_made_is_closed_to_others() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        private_folder(&folder).unwrap();
        assert_eq!((mode(&place.path().join("a")), mode(&folder)), (0o700, 0o700));
        create_private(&folder.join("new"), b"1").unwrap();
        replace_private(&folder.join("new"), b"22").unwrap();
        assert_eq!(mode(&folder.join("new")), 0o600);
        assert_eq!(read_private(&folder.join("new"), 10).unwrap().unwrap().as_slice(), b"22");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_file_that_others_could_touch_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        create_private(&path, b"secret").unwrap();
        for unsafe_mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666] {
            set_mode(&path, unsafe_mode);
            assert_eq!(read_private(&path, 10).unwrap_err().kind(), Kind::KeyStoreUnavailable, "mode {unsafe_mode:o}");
        }
        set_mode(&path, 0o400);
        assert!(read_private(&path, 10).unwrap().is_some());
    }

    #[test]
    fn a_folder_that_others_could_enter_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("keys");
        private_folder(&folder).unwrap();
        for unsafe_mode in [0o750, 0o705, 0o710, 0o701, 0o755, 0o770] {
            set_mode(&folder, unsafe_mode);
            assert_eq!(private_folder(&folder).unwrap_err().kind(), Kind::KeyStoreUnavailable, "mode {unsafe_mode:o}");
        }
    }

    #[test]
    fn links_pipes_and_oversized_files_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        create_private(&at("key"), b"secret").unwrap();
        symlink(at("key"), at("link")).unwrap();
        assert_eq!(read_private(&at("link"), 10).unwrap_err().kind(), Kind::KeyStoreUnavailable);
        assert_eq!(read_private(&at("key"), 5).unwrap_err().kind(), Kind::KeyStoreUnavailable);
        fs::hard_link(at("key"), at("twin")).unwrap();
        assert_eq!(read_private(&at("key"), 10).unwrap_err().kind(), Kind::KeyStoreUnavailable);
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        set_mode(&at("pipe"), 0o600);
        assert_eq!(read_private(&at("pipe"), 10).unwrap_err().kind(), Kind::KeyStoreUnavailable);
        assert!(read_private(&at("nothing"), 10).unwrap().is_none());
        symlink(place.path(), at("folder-link")).unwrap();
        assert_eq!(private_folder(&at("folder-link")).unwrap_err().kind(), Kind::KeyStoreUnavailable);
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        create_private(&path, b"secret").unwrap();
        if std::os::unix::fs::chown(&path, Some(rustix::process::geteuid().as_raw() + 1), None).is_err() {
            eprintln!("SKIPPED: giving a file away needs CAP_CHOWN");
            return;
        }
        assert_eq!(read_private(&path, 10).unwrap_err().kind(), Kind::KeyStoreUnavailable);
    }

    #[test]
    fn a_new_file_never_replaces_one() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        create_private(&path, b"first").unwrap();
        assert_eq!(create_private(&path, b"second").unwrap_err().kind(), Kind::KeyExists);
        symlink(place.path().join("elsewhere"), place.path().join("dangling")).unwrap();
        assert_eq!(create_private(&place.path().join("dangling"), b"x").unwrap_err().kind(), Kind::KeyExists);
        assert_eq!(read_private(&path, 10).unwrap().unwrap().as_slice(), b"first");
    }

    #[test]
    fn an_errors_detail_names_no_path() {
        let error = private_folder(Path::new("/proc/version/hidden-name")).unwrap_err();
        assert!(!error.to_string().contains("hidden-name"), "{error}");
    }
}
