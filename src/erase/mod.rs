//! Erasure with honest verdicts: overwrite, rename, remove, and say what that was worth.
//!
//! What this library puts on a disk is ciphertext, so its real erasure is the destruction of keys (NIST SP 800-88r2, cryptographic
//! erase). Overwriting is offered for what users place beside it, because procedures ask for it (DoD 5220.22-M), and it is never claimed
//! to be more than it is: [`Verdict`] tells whether the file system overwrites in place at all.
//!
//! An eraser is a dangerous tool. Links are never followed, nor are mount points crossed, devices written, or folders of the system
//! touched; a folder is looked through completely before the first byte in it is changed. Every step goes by handles of folders, so
//! exchanging a folder for a link in between leads nowhere.
//!
//! ```
//! use smp::control::Control;
//! use smp::erase::erase_file;
//!
//! let path = std::env::temp_dir().join(format!("smp-erase-{}", std::process::id()));
//! std::fs::write(&path, b"a note that is no longer needed").unwrap();
//! let report = erase_file(&path, 1, &Control::new())?;
//! assert_eq!((report.files, report.bytes), (1, 31));
//! assert!(!path.exists());
//! # Ok::<(), smp::Error>(())
//! ```

mod filesystem;
mod overwrite;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use self::filesystem::FileSystem;
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};

/// Folders within folders; each open one costs a file descriptor.
const DEPTH: usize = 128;

/// Trees that belong to the system. Nothing in them is erased.
const SYSTEM_TREES: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/sbin",
    "/sys",
    "/usr",
    "/System",
    "/Library",
    "/Applications",
];

/// Memory that looks like part of a system tree.
const EXCEPTION: &str = "/dev/shm";

/// Folders whose children are people's homes.
const HOMES: &[&str] = &["/home", "/Users"];

/// What an erasure is worth on the file system it ran on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Overwritten in place on a file system that overwrites in place.
    Overwritten,
    /// Deleted; the file system or device keeps old blocks for an unknown time.
    DeletedOnly,
}

/// What was done.
///
/// What it is worth: with [`Verdict::Overwritten`] the blocks that held the contents hold something else, as far as the file system
/// decides that. It says nothing of what lies below: SSDs and SD cards remap what is written and keep old pages for an unknown time, and so
/// do snapshots of volume managers, RAID journals and images of virtual machines. It says nothing of copies that programs made, of swap,
/// or of the names of files, which linger in the blocks of folders and in journals. Where that matters, encrypt the disk and destroy the key.
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
    /// Files that had other names (hard links): their contents are gone under all names, the other names are still there.
    pub hard_linked: u64,
    /// Links, pipes and sockets removed; what a link pointed to is untouched.
    pub others: u64,
}

/// Overwrites and removes one file.
///
/// `passes`: 1 writes random bytes; 3 writes zeros, ones and random bytes (DoD 5220.22-M, 8-306); at most 35. Fails with `EraseRefused` for links,
/// devices, folders, mount points and files of the system, with `EraseFailed` when the file cannot be written or removed.
pub fn erase_file(path: &Path, passes: u32, control: &Control) -> Result<Report> {
    let patterns = overwrite::patterns(passes)?;
    let place = Place::find(path)?;
    if let Some(reason) = place.file_refusal() {
        return Err(refused(reason));
    }
    let about = place.about()?;
    match FileType::from_raw_mode(about.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(refused("a folder where a file is expected")),
        FileType::Symlink => return Err(refused("a link")),
        _ => return Err(refused("not an ordinary file")),
    }
    if filesystem::is_mount_point(place.folder.as_fd(), &place.name, &about) {
        return Err(refused("a mount point"));
    }
    let mut job = Job::new(patterns, control, filesystem::of(place.folder.as_fd()));
    job.erase_file(place.folder.as_fd(), &place.name)?;
    flush(place.folder.as_fd())?;
    Ok(job.report)
}

/// Erases a folder and all below it.
///
/// Files as [`erase_file`] does; links, pipes and sockets are removed. Fails with `EraseRefused`, and changes nothing, when the folder or anything in
/// it is a mount point or a device, or when it is the root, a home or a folder of the system. A file that cannot be erased does not keep the
/// others from it; the error then tells how many are left.
pub fn erase_directory(path: &Path, passes: u32, control: &Control) -> Result<Report> {
    let patterns = overwrite::patterns(passes)?;
    let place = Place::find(path)?;
    if let Some(reason) = place.folder_refusal() {
        return Err(refused(reason));
    }
    let about = place.about()?;
    match FileType::from_raw_mode(about.st_mode) {
        FileType::Directory => {}
        FileType::Symlink => return Err(refused("a link")),
        _ => return Err(refused("not a folder")),
    }
    if filesystem::is_mount_point(place.folder.as_fd(), &place.name, &about) {
        return Err(refused("a mount point"));
    }
    let folder = open_folder(place.folder.as_fd(), &place.name).map_err(failed)?;
    look_through(folder.as_fd(), control, 0)?;
    let mut job = Job::new(patterns, control, filesystem::of(folder.as_fd()));
    job.erase_contents(folder.as_fd(), 0)?;
    drop(folder);
    job.remove_folder(place.folder.as_fd(), &place.name)?;
    flush(place.folder.as_fd())?;
    job.finish()
}

/// A path, taken apart: the folder that holds it, opened, and its last name. Links on the way there are the caller's and followed.
struct Place {
    folder: OwnedFd,
    name: OsString,
    /// Without links, except perhaps the last name.
    path: PathBuf,
}

impl Place {
    fn find(path: &Path) -> Result<Place> {
        let absolute = std::path::absolute(path).map_err(|_| refused("an empty path"))?;
        // `..` at the end would be judged by a name that is not the folder's.
        let (Some(parent), Some(Component::Normal(name))) = (absolute.parent(), absolute.components().next_back()) else {
            return Err(refused("the root or a path that ends in dots"));
        };
        let parent = parent.canonicalize().map_err(|_| absent())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&parent, flags, Mode::empty()).map_err(failed)?;
        Ok(Place { folder, name: name.to_owned(), path: parent.join(name) })
    }

    fn about(&self) -> Result<Stat> {
        rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| match errno {
            Errno::NOENT => absent(),
            errno => failed(errno),
        })
    }

    fn file_refusal(&self) -> Option<&'static str> {
        let is_exception = self.path.starts_with(EXCEPTION) && self.path != Path::new(EXCEPTION);
        let is_system = !is_exception && SYSTEM_TREES.iter().any(|tree| self.path.starts_with(tree));
        is_system.then_some("a file or folder of the system")
    }

    fn folder_refusal(&self) -> Option<&'static str> {
        // The root's children are the system's, whatever they are called.
        if self.path.components().count() <= 2 {
            return Some("a folder at the root");
        }
        let home = std::env::home_dir().map(|home| home.canonicalize().unwrap_or(home));
        let holds_home = home.is_some_and(|home| home.starts_with(&self.path));
        if holds_home || HOMES.iter().any(|homes| self.path.parent() == Some(Path::new(homes))) {
            return Some("a home folder, or one that holds it");
        }
        self.file_refusal()
    }
}

/// What is in a folder, without `.` and `..`.
fn names(folder: BorrowedFd<'_>) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Refuses a tree for what is in it, before anything in it is changed.
fn look_through(folder: BorrowedFd<'_>, control: &Control, depth: usize) -> Result<()> {
    if depth > DEPTH {
        return Err(refused("folders nested too deep"));
    }
    for name in names(folder).map_err(failed)? {
        control.check()?;
        let about = match rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            about => about.map_err(failed)?,
        };
        let kind = FileType::from_raw_mode(about.st_mode);
        if matches!(kind, FileType::BlockDevice | FileType::CharacterDevice) {
            return Err(refused("a device is in the folder"));
        }
        if filesystem::is_mount_point(folder, &name, &about) {
            return Err(refused("a mount point is in the folder"));
        }
        if kind == FileType::Directory {
            look_through(open_folder(folder, &name).map_err(failed)?.as_fd(), control, depth + 1)?;
        }
    }
    Ok(())
}

/// One erasure under way.
struct Job<'a> {
    patterns: Vec<overwrite::Pattern>,
    control: &'a Control,
    file_system: FileSystem,
    report: Report,
    /// Entries that could not be erased, and why the first could not.
    left: u64,
    first: Option<Error>,
}

impl<'a> Job<'a> {
    fn new(patterns: Vec<overwrite::Pattern>, control: &'a Control, file_system: FileSystem) -> Job<'a> {
        let passes = u32::try_from(patterns.len()).unwrap_or(u32::MAX);
        let report = Report { passes, file_system: file_system.name.clone(), ..Report::default() };
        Job { patterns, control, file_system, report, left: 0, first: None }
    }

    /// Everything in a folder. Only a cancel ends it early.
    fn erase_contents(&mut self, folder: BorrowedFd<'_>, depth: usize) -> Result<()> {
        let names = match names(folder) {
            Ok(names) => names,
            Err(errno) => return self.note(Err(failed(errno))),
        };
        for name in names {
            self.control.check()?;
            let outcome = self.erase_entry(folder, &name, depth);
            self.note(outcome)?;
        }
        let flushed = flush(folder);
        self.note(flushed)
    }

    fn erase_entry(&mut self, folder: BorrowedFd<'_>, name: &OsStr, depth: usize) -> Result<()> {
        let about = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            about => about.map_err(failed)?,
        };
        match FileType::from_raw_mode(about.st_mode) {
            FileType::RegularFile => self.erase_file(folder, name),
            FileType::Directory => {
                // Looked through before, but somebody may mount or nest in the meantime.
                if depth >= DEPTH || filesystem::is_mount_point(folder, name, &about) {
                    return Err(refused("a mount point is in the folder"));
                }
                self.erase_contents(open_folder(folder, name).map_err(failed)?.as_fd(), depth + 1)?;
                self.remove_folder(folder, name)
            }
            FileType::BlockDevice | FileType::CharacterDevice => Err(refused("a device is in the folder")),
            _ => {
                rustix::fs::unlinkat(folder, name, AtFlags::empty()).map_err(failed)?;
                self.report.others += 1;
                Ok(())
            }
        }
    }

    /// Overwrites, renames and removes one file.
    fn erase_file(&mut self, folder: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        self.control.check()?;
        let file = open_file(folder, name).map_err(failed)?;
        let about = rustix::fs::fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
            return Err(refused("not an ordinary file"));
        }
        // Asked before the contents change, of the file itself: a flag on it may make the file system keep old blocks.
        let verdict = self.file_system.verdict(file.as_fd());
        let bytes = overwrite::overwrite(&file, &self.patterns, self.control)?;
        // The name may say more than the contents did.
        let other = random_name()?;
        let renamed = rename_new(folder, name, &other).is_ok();
        let last_name = if renamed { OsStr::new(&other) } else { name };
        rustix::fs::unlinkat(folder, last_name, AtFlags::empty()).map_err(failed)?;
        self.report.files += 1;
        self.report.bytes += bytes;
        self.report.hard_linked += u64::from(about.st_nlink > 1);
        self.report.verdict = match (self.report.verdict, verdict) {
            (None | Some(Verdict::Overwritten), verdict) => Some(verdict),
            (worst, _) => worst,
        };
        Ok(())
    }

    /// Removes an emptied folder, under another name.
    fn remove_folder(&mut self, folder: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        self.control.check()?;
        let other = random_name()?;
        let renamed = rename_new(folder, name, &other).is_ok();
        let last_name = if renamed { OsStr::new(&other) } else { name };
        match rustix::fs::unlinkat(folder, last_name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(()),
            Err(errno) => {
                // What is left in it is easier to find under its own name.
                let _ = rename_new(folder, last_name, name);
                // Left entries were counted where they are.
                if errno == Errno::NOTEMPTY && self.left > 0 { Ok(()) } else { self.note(Err(failed(errno))) }
            }
        }
    }

    /// Counts a failure and goes on; a cancel is passed on.
    fn note(&mut self, outcome: Result<()>) -> Result<()> {
        match outcome {
            Err(error) if error.kind() == Kind::Cancelled => Err(error),
            Err(error) => {
                self.left += 1;
                self.first.get_or_insert(error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn finish(self) -> Result<Report> {
        match self.first {
            None => Ok(self.report),
            Some(first) => {
                let detail = format!("{} files erased, {} entries left: {}", self.report.files, self.left, first.detail());
                Err(Error::new(Kind::EraseFailed, detail))
            }
        }
    }
}

fn open_folder(folder: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(folder, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens for writing without truncating: a truncated file would give its blocks back before they are overwritten.
fn open_file(folder: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<File> {
    // NONBLOCK, or a FIFO put in the place of the file would hold us for ever.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(folder, name, flags, Mode::empty()).map(File::from);
    match open() {
        // A read-only file of ours. The mode is changed by handle, so that no link is followed.
        Err(Errno::ACCESS) => {
            let reading = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let handle = rustix::fs::openat(folder, name, reading, Mode::empty())?;
            rustix::fs::fchmod(&handle, Mode::RUSR | Mode::WUSR)?;
            open()
        }
        other => other,
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn rename_new(folder: BorrowedFd<'_>, from: &OsStr, to: impl AsRef<OsStr>) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(folder, from, folder, to.as_ref(), rustix::fs::RenameFlags::NOREPLACE)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn rename_new(folder: BorrowedFd<'_>, from: &OsStr, to: impl AsRef<OsStr>) -> rustix::io::Result<()> {
    rustix::fs::renameat(folder, from, folder, to.as_ref())
}

fn random_name() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Error::new(Kind::Internal, "the system gives no random numbers").at(Stage::Erasure))?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

fn flush(folder: BorrowedFd<'_>) -> Result<()> {
    match rustix::fs::fsync(folder) {
        // Some network file systems do not flush folders; what is deleted there is the server's affair.
        Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

fn refused(reason: &'static str) -> Error {
    Error::new(Kind::EraseRefused, reason)
}

fn absent() -> Error {
    Error::new(Kind::EraseFailed, "there is nothing at this path")
}

fn failed(errno: Errno) -> Error {
    let detail = match errno {
        Errno::LOOP | Errno::NOTDIR => return refused("a link"),
        Errno::ACCESS | Errno::PERM => "no right to write or remove it".into(),
        Errno::ROFS => "the file system is mounted read-only".into(),
        Errno::NOSPC | Errno::DQUOT => "no space to overwrite with, as on file systems that copy what they change".into(),
        Errno::TXTBSY => "a program that is running".into(),
        other => format!("the file system answered error {}", other.raw_os_error()),
    };
    Error::new(Kind::EraseFailed, detail)
}

#[cfg(test)]
mod tests;
