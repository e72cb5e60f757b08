//! A local folder (or a mounted share) used as an object store: `a/b/c` is the file `c` in the folder `a/b` of the root.
//!
//! Names come from packages and callers and are not trusted. Each component is opened from the folder before it and links are never
//! followed, so no name, and nobody who plants a link in the store, leads outside the root. An upload goes to a hidden
//! temporary file in the same folder, is flushed to the disk, and appears under its name at once and whole.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::{ffi::OsStrExt, fs::MetadataExt};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{Attempt, BoxFuture, LISTED_OBJECTS, ObjectInfo, ObjectStore, Replace, Upload};
use crate::error::{Error, Kind, Result, Stage};

/// How temporary files of uploads begin. No object may be called so.
const UNFINISHED: &str = ".smp-upload-";
/// Folders in folders.
const DEPTH: usize = 64;
/// Bytes per read: large enough to be cheap, small enough to beat often on a slow share.
const READ_BYTES: usize = 1 << 20;

/// A folder as a store.
pub(super) struct LocalStore {
    folder: Arc<Folder>,
}

struct Folder {
    root: String,
    handle: OwnedFd,
}

impl LocalStore {
    /// Opens the root, which must exist; a link as the root itself is the owner's choice and followed.
    pub fn open(root: &str) -> Result<LocalStore> {
        let path = if root.is_empty() { "." } else { root };
        let handle =
            rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| match errno {
                Errno::ACCESS | Errno::PERM => Error::new(Kind::AccessDenied, "the root folder of the local store cannot be read"),
                _ => Error::new(Kind::ObjectNotFound, "the root folder of the local store does not exist")
                    .with_hint("set cloud.bucket to an existing folder"),
            })?;
        let root = std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.to_string_lossy().into_owned());
        Ok(LocalStore { folder: Arc::new(Folder { root, handle }) })
    }

    /// Runs file work where it may block.
    fn run<'a, T: Send + 'static>(&self, work: impl FnOnce(&Folder) -> Result<T> + Send + 'static) -> BoxFuture<'a, T> {
        let folder = Arc::clone(&self.folder);
        blocking(move || work(&folder))
    }
}

fn blocking<'a, T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> BoxFuture<'a, T> {
    let task = tokio::task::spawn_blocking(work);
    Box::pin(async move { task.await.unwrap_or_else(|_| Err(Error::new(Kind::Internal, "file work ended without an answer"))) })
}

impl ObjectStore for LocalStore {
    fn provider(&self) -> &'static str {
        "local"
    }

    fn describe(&self) -> String {
        format!("local:{}", self.folder.root)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Vec<ObjectInfo>> {
        let (prefix, attempt) = (prefix.to_owned(), Attempt::current());
        self.run(move |folder| folder.list(&prefix, &attempt))
    }

    fn head<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ObjectInfo> {
        let name = name.to_owned();
        self.run(move |folder| Ok(ObjectInfo { name: name.clone(), ..folder.open_object(&name)?.1 }))
    }

    fn read<'a>(&'a self, name: &'a str, range: Range<u64>, version: Option<&'a str>) -> BoxFuture<'a, Vec<u8>> {
        let (name, version, attempt) = (name.to_owned(), version.map(str::to_owned), Attempt::current());
        self.run(move |folder| folder.read(&name, range, version.as_deref(), &attempt))
    }

    fn upload<'a>(&'a self, name: &'a str, replace: Replace) -> BoxFuture<'a, Box<dyn Upload>> {
        let name = name.to_owned();
        self.run(move |folder| Ok(Box::new(LocalUpload { unfinished: Some(folder.start_upload(&name, replace)?) }) as Box<dyn Upload>))
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        let name = name.to_owned();
        self.run(move |folder| folder.delete(&name))
    }
}

impl Folder {
    fn list(&self, prefix: &str, attempt: &Attempt) -> Result<Vec<ObjectInfo>> {
        // The part up to the last slash is a folder, the rest the beginning of names in it.
        let (start, _) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        // Names wait, not handles: a store may hold more folders than a process may open.
        let mut folders = vec![start.to_owned()];
        let mut found = Vec::new();
        while let Some(name) = folders.pop() {
            attempt.beat();
            let components = if name.is_empty() { Vec::new() } else { components(&name)? };
            match self.open_folder(&components) {
                Err(error) if error.kind() == Kind::ObjectNotFound => {}
                handle => list_folder(&handle?, &name, prefix, &mut found, &mut folders)?,
            }
        }
        found.sort_by(|a: &ObjectInfo, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn read(&self, name: &str, range: Range<u64>, version: Option<&str>, attempt: &Attempt) -> Result<Vec<u8>> {
        let (file, object) = self.open_object(name)?;
        if version.is_some_and(|version| version != object.version) {
            return Err(Error::new(Kind::ObjectChanged, "the file is not the one that was listed"));
        }
        if range.end > object.size || range.start > range.end {
            return Err(Error::new(Kind::ObjectChanged, format!("the range ends past the object of {} bytes", object.size)));
        }
        let length = usize::try_from(range.end - range.start).map_err(|_| Error::new(Kind::OutOfMemory, "a range is too large"))?;
        // Reserved and not zeroed: every byte comes from the file.
        let mut bytes = Vec::with_capacity(length);
        let ended = || Error::new(Kind::TransferInterrupted, "the file ended early or cannot be read");
        (&file).seek(SeekFrom::Start(range.start)).map_err(|_| ended())?;
        while bytes.len() < length {
            let part = READ_BYTES.min(length - bytes.len());
            (&file).take(part as u64).read_to_end(&mut bytes).ok().filter(|got| *got == part).ok_or_else(ended)?;
            attempt.received_blocking(part);
        }
        // Written to while it was read: the bytes belong to no version.
        if about(&file)?.version != object.version {
            return Err(Error::new(Kind::ObjectChanged, "the file changed while it was read"));
        }
        Ok(bytes)
    }

    fn start_upload(&self, name: &str, replace: Replace) -> Result<Unfinished> {
        let components = components(name)?;
        let (last, folders) = components.split_last().ok_or_else(|| unsafe_path("the name of an object is empty"))?;
        let mut folder = self.handle.try_clone().map_err(|_| unwritable("no file descriptor is left"))?;
        for component in folders {
            match rustix::fs::mkdirat(&folder, *component, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => folder = open_folder_in(&folder, component.as_bytes())?,
                Err(errno) => return Err(cannot_write(errno)),
            }
        }
        match &replace {
            Replace::Allowed => {}
            Replace::Never if rustix::fs::statat(&folder, *last, AtFlags::SYMLINK_NOFOLLOW).is_err() => {}
            Replace::Never => return Err(Error::new(Kind::ObjectExists, "")),
            Replace::Version(version) => check_version(&folder, last, version)?,
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Error::new(Kind::Internal, "the system gives no random numbers"))?;
        let temporary = format!("{UNFINISHED}{:032x}", u128::from_le_bytes(random));
        // The umask decides who may read: a store is for sharing, and what is in it is sealed.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &temporary, flags, Mode::from_raw_mode(0o666)).map_err(cannot_write)?;
        Ok(Unfinished {
            folder,
            file: File::from(file),
            temporary,
            name: (*last).to_owned(),
            full_name: name.to_owned(),
            replace,
            is_published: false,
        })
    }

    fn delete(&self, name: &str) -> Result<()> {
        let components = components(name)?;
        let (last, folders) = components.split_last().ok_or_else(|| unsafe_path("the name of an object is empty"))?;
        let folder = match self.open_folder(folders) {
            Err(error) if error.kind() == Kind::ObjectNotFound => return Ok(()),
            other => other?,
        };
        match rustix::fs::unlinkat(&folder, *last, AtFlags::empty()) {
            // A folder of this name is no object (Linux says ISDIR, others PERM).
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
            Err(errno) => Err(cannot_write(errno)),
        }
    }

    /// Opens a file and says what it is, of the same file.
    fn open_object(&self, name: &str) -> Result<(File, ObjectInfo)> {
        let components = components(name)?;
        let (last, folders) = components.split_last().ok_or_else(|| unsafe_path("the name of an object is empty"))?;
        let folder = self.open_folder(folders)?;
        // NONBLOCK, or a planted FIFO would hold the thread for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&folder, *last, flags, Mode::empty()).map_err(failed)?);
        let object = about(&file)?;
        Ok((file, object))
    }

    fn open_folder(&self, components: &[&str]) -> Result<OwnedFd> {
        // The listing moves the position of its handle, so the root's own is never listed.
        let mut folder = open_folder_in(&self.handle, b".")?;
        for component in components {
            folder = open_folder_in(&folder, component.as_bytes())?;
        }
        Ok(folder)
    }
}

/// A file that is not an object yet.
struct Unfinished {
    folder: OwnedFd,
    file: File,
    temporary: String,
    /// Last component.
    name: String,
    full_name: String,
    replace: Replace,
    is_published: bool,
}

impl Unfinished {
    fn publish(mut self) -> Result<ObjectInfo> {
        self.file.sync_all().map_err(|_| unwritable("the disk did not take the bytes"))?;
        // Between this look and the rename another writer may come in; a folder has no way to exclude that.
        if let Replace::Version(version) = &self.replace {
            check_version(&self.folder, &self.name, version)?;
        }
        match self.replace {
            Replace::Allowed | Replace::Version(_) => {
                rustix::fs::renameat(&self.folder, &self.temporary, &self.folder, &self.name).map_err(cannot_write)?
            }
            Replace::Never => self.publish_new()?,
        }
        self.is_published = true;
        // The name must survive a power cut as the bytes do.
        rustix::fs::fsync(&self.folder).map_err(|_| unwritable("the disk did not take the name"))?;
        Ok(ObjectInfo { name: self.full_name.clone(), ..about(&self.file)? })
    }

    /// Gives the file its name unless the name is taken, in one step of the file system.
    fn publish_new(&self) -> Result<()> {
        let renamed = rename_new(&self.folder, &self.temporary, &self.name);
        // Some network file systems have no exclusive rename; a second hard link is as exclusive.
        let outcome = match renamed {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(&self.folder, &self.temporary, &self.folder, &self.name, AtFlags::empty())
                    .and_then(|()| rustix::fs::unlinkat(&self.folder, &self.temporary, AtFlags::empty()))
            }
            other => other,
        };
        outcome.map_err(|errno| match errno {
            Errno::EXIST => Error::new(Kind::ObjectExists, ""),
            other => cannot_write(other),
        })
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn rename_new(folder: &OwnedFd, from: &str, to: &str) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn rename_new(_folder: &OwnedFd, _from: &str, _to: &str) -> rustix::io::Result<()> {
    Err(Errno::NOSYS)
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_published {
            // A left-over is ciphertext that no listing shows.
            let _ = rustix::fs::unlinkat(&self.folder, &self.temporary, AtFlags::empty());
        }
    }
}

struct LocalUpload {
    /// `None` while a write is under way, or after it was dropped in the middle.
    unfinished: Option<Unfinished>,
}

impl Upload for LocalUpload {
    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        let unfinished = self.unfinished.take();
        Box::pin(async move {
            let (unfinished, outcome) = blocking(move || {
                let mut unfinished = unfinished.ok_or_else(lost)?;
                let outcome = unfinished.file.write_all(&bytes).map_err(|_| unwritable("the disk may be full"));
                Ok((unfinished, outcome))
            })
            .await?;
            self.unfinished = Some(unfinished);
            outcome
        })
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, ObjectInfo> {
        let unfinished = self.unfinished.take();
        blocking(move || unfinished.ok_or_else(lost)?.publish())
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        let unfinished = self.unfinished.take();
        blocking(move || {
            drop(unfinished);
            Ok(())
        })
    }
}

/// The objects of one folder; its folders are put on the stack. Links, devices and unfinished uploads are no objects.
fn list_folder(handle: &OwnedFd, folder: &str, prefix: &str, found: &mut Vec<ObjectInfo>, folders: &mut Vec<String>) -> Result<()> {
    for entry in rustix::fs::Dir::read_from(handle).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let raw = entry.file_name().to_bytes();
        if raw == b"." || raw == b".." || raw.starts_with(UNFINISHED.as_bytes()) {
            continue;
        }
        // Leaving a file out in silence could hide a slice of a study.
        let Ok(text) = std::str::from_utf8(raw) else { return Err(unsafe_path("a file name in the store is not UTF-8")) };
        let name = if folder.is_empty() { text.to_owned() } else { format!("{folder}/{text}") };
        if !name.starts_with(prefix) {
            continue;
        }
        let about = match rustix::fs::statat(handle, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other.map_err(failed)?,
        };
        let is_object = match FileType::from_raw_mode(about.st_mode) {
            FileType::Directory => false,
            FileType::RegularFile => true,
            _ => continue,
        };
        if found.len() + folders.len() >= LISTED_OBJECTS {
            return Err(Error::new(Kind::LimitExceeded, format!("more than {LISTED_OBJECTS} objects")).at(Stage::Transfer));
        }
        if is_object {
            let size = u64::try_from(about.st_size).unwrap_or(0);
            let version = version_text(about.st_ino, i128::from(about.st_mtime), i128::from(about.st_mtime_nsec), size);
            found.push(ObjectInfo { name, size, version });
        } else {
            folders.push(name);
        }
    }
    Ok(())
}

/// The parts of a name, none of which leads anywhere but down.
fn components(name: &str) -> Result<Vec<&str>> {
    let components: Vec<&str> = name.split('/').collect();
    for component in &components {
        let fault = match *component {
            "" => "an empty part, or begins or ends with a slash",
            "." | ".." => "a part that is a dot or two",
            part if part.len() > 255 => "a part longer than 255 bytes",
            part if part.contains('\0') => "a NUL",
            part if part.starts_with(UNFINISHED) => "a part reserved for uploads",
            _ => continue,
        };
        return Err(unsafe_path(format!("the name of an object has {fault}")));
    }
    if components.len() > DEPTH {
        return Err(unsafe_path(format!("the name of an object has more than {DEPTH} parts")));
    }
    Ok(components)
}

fn open_folder_in(folder: &OwnedFd, component: &[u8]) -> Result<OwnedFd> {
    let component = OsStr::from_bytes(component);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, component, flags, Mode::empty()).map_err(|errno| {
        // With DIRECTORY a link is answered like a file.
        let is_link = rustix::fs::statat(folder, component, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::Symlink);
        if is_link { failed(Errno::LOOP) } else { failed(errno) }
    })
}

/// Fails unless the file of this name has this version.
fn check_version(folder: &OwnedFd, name: &str, version: &str) -> Result<()> {
    let changed = || Error::new(Kind::ObjectChanged, "the object is not the one that is to be replaced");
    let about = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| changed())?;
    let size = u64::try_from(about.st_size).unwrap_or(0);
    let found = version_text(about.st_ino, i128::from(about.st_mtime), i128::from(about.st_mtime_nsec), size);
    if found == version { Ok(()) } else { Err(changed()) }
}

/// Size and version of an open file; the name is the caller's.
fn about(file: &File) -> Result<ObjectInfo> {
    let about = file.metadata().map_err(|_| Error::new(Kind::ServerFailed, "the file system gives no answer"))?;
    if !about.is_file() {
        return Err(Error::new(Kind::ObjectNotFound, "not an ordinary file"));
    }
    let version = version_text(about.ino(), i128::from(about.mtime()), i128::from(about.mtime_nsec()), about.len());
    Ok(ObjectInfo { name: String::new(), size: about.len(), version })
}

fn version_text(inode: u64, seconds: i128, nanoseconds: i128, size: u64) -> String {
    format!("{inode:x}-{:x}-{size:x}", seconds * 1_000_000_000 + nanoseconds)
}

fn failed(errno: Errno) -> Error {
    match errno {
        Errno::NOENT | Errno::NOTDIR => Error::new(Kind::ObjectNotFound, ""),
        Errno::LOOP => unsafe_path("a link in the store is not followed"),
        Errno::ACCESS | Errno::PERM => Error::new(Kind::AccessDenied, "the file or folder may not be read"),
        Errno::MFILE | Errno::NFILE => Error::new(Kind::ServerFailed, "no file descriptor is left"),
        other => Error::new(Kind::ServerFailed, format!("the file system answered error {}", other.raw_os_error())),
    }
}

fn cannot_write(errno: Errno) -> Error {
    match errno {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => unwritable("the folder may not be written"),
        Errno::NOSPC | Errno::DQUOT => unwritable("the disk is full"),
        Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY => {
            unwritable("a folder is in the place of the object, or an object in the place of a folder")
        }
        Errno::LOOP => unsafe_path("a link in the store is not followed"),
        other => unwritable(format!("the file system answered error {}", other.raw_os_error())),
    }
}

fn unwritable(detail: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::StoreUnwritable, detail)
}

fn unsafe_path(detail: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::UnsafePath, detail).at(Stage::Transfer)
}

fn lost() -> Error {
    Error::new(Kind::Internal, "the upload failed before").at(Stage::Transfer)
}

#[cfg(test)]
mod tests;
