//! What is to be sealed: the files of a folder or instances in memory, in what order, and whether they stay as they were.
//!
//! Of a folder every regular file is taken, whatever its name; nothing is left out in silence. A symbolic link, device or pipe is an error:
//! following a link could seal something from elsewhere, and skipping it could lose a slice.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use super::super::header::MAX_PACK;
use super::super::paths::Taken;
use super::super::{Limits, over_limit};
use super::{Contents, Instance};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};

/// One file to seal.
pub(super) struct Source<'a> {
    place: Place<'a>,
    /// Path inside the package: relative, `/` separated, NFC.
    pub(super) name: String,
    /// Size when the contents were listed.
    pub(super) size: u64,
}

/// Where the bytes are.
enum Place<'a> {
    Disk { path: PathBuf, seen: Seen },
    Memory(&'a [u8]),
}

/// What must not change while a file is sealed: identity, size and both times (a writer that sets mtime back cannot set ctime back).
#[derive(PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(found: &Metadata) -> Seen {
        Seen {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// An open source.
pub(super) enum Reader<'a> {
    /// A file on a disk.
    File(File),
    /// What is left of an instance in memory.
    Memory(&'a [u8]),
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Reader::File(file) => file.read(buffer),
            Reader::Memory(bytes) => bytes.read(buffer),
        }
    }
}

impl Source<'_> {
    /// Opens the source and checks that it is the one that was listed.
    pub(super) fn open(&self, number: usize) -> Result<Reader<'_>> {
        match &self.place {
            Place::Memory(bytes) => Ok(Reader::Memory(bytes)),
            Place::Disk { path, seen } => {
                // O_NONBLOCK: a pipe that took the file's place must not hang the sealing.
                let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
                let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| match error.raw_os_error() {
                    Some(libc::ENOENT | libc::ELOOP | libc::ENOTDIR) => changed(number),
                    _ => unreadable(&error),
                })?;
                let found = file.metadata().map_err(|error| unreadable(&error))?;
                if Seen::of(&found) == *seen { Ok(Reader::File(file)) } else { Err(changed(number)) }
            }
        }
    }

    /// Checks that the source is still as it was when it was listed.
    pub(super) fn check(&self, number: usize) -> Result<()> {
        match &self.place {
            Place::Memory(_) => Ok(()),
            Place::Disk { path, seen } => match fs::symlink_metadata(path) {
                Ok(found) if Seen::of(&found) == *seen => Ok(()),
                Ok(_) => Err(changed(number)),
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Err(changed(number)),
                Err(error) => Err(unreadable(&error)),
            },
        }
    }

    /// Adds to a digest everything by which a later run can tell that this is the same file in the same state; `false` when there is
    /// nothing of that kind, because the bytes are in memory only.
    pub(super) fn describe(&self, digest: &mut Sha256) -> bool {
        let Place::Disk { seen, .. } = &self.place else { return false };
        digest.update((self.name.len() as u64).to_be_bytes());
        digest.update(self.name.as_bytes());
        for number in [seen.device, seen.inode, seen.size] {
            digest.update(number.to_be_bytes());
        }
        for number in [seen.modified.0, seen.modified.1, seen.changed.0, seen.changed.1] {
            digest.update(number.to_be_bytes());
        }
        true
    }
}

/// Every file of the contents, sorted by the bytes of its name in the package.
pub(super) fn list<'a>(contents: &Contents<'a>, limits: &Limits, control: &Control) -> Result<Vec<Source<'a>>> {
    let mut sources = match contents {
        Contents::Folder(folder) => walk(folder, limits, control)?,
        Contents::Instances(instances) => in_memory(instances, limits)?,
    };
    if sources.is_empty() {
        return Err(Error::new(Kind::NothingToSeal, ""));
    }
    sources.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut taken = Taken::default();
    sources.iter().enumerate().try_for_each(|(number, source)| taken.claim(number, &source.name))?;
    Ok(sources)
}

fn in_memory<'a>(instances: &[Instance<'a>], limits: &Limits) -> Result<Vec<Source<'a>>> {
    let mut tally = Tally { limits, files: 0, bytes: 0 };
    let source = |instance: &Instance<'a>| {
        let size = instance.bytes.len() as u64;
        tally.add(size)?;
        Ok(Source { place: Place::Memory(instance.bytes), name: instance.name.nfc().collect(), size })
    };
    instances.iter().map(source).collect()
}

fn walk(folder: &Path, limits: &Limits, control: &Control) -> Result<Vec<Source<'static>>> {
    // The folder itself may be named through a link; what lies in it may not be one.
    let found = fs::metadata(folder).map_err(|error| unreadable(&error))?;
    if !found.is_dir() {
        return Err(Error::new(Kind::InvalidArgument, "what is to be sealed is not a folder").at(Stage::Package));
    }
    let mut files = Vec::new();
    let mut tally = Tally { limits, files: 0, bytes: 0 };
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for item in fs::read_dir(&folder).map_err(|error| unreadable(&error))? {
            control.check()?;
            let item = item.map_err(|error| unreadable(&error))?;
            let found = item.path().symlink_metadata().map_err(|error| unreadable(&error))?;
            let refused = |why: &'static str| Error::new(Kind::UnsafePath, why);
            let name = item.file_name();
            let name = name.to_str().ok_or_else(|| refused("a file name in the source folder is not UTF-8"))?;
            // macOS hands out decomposed names; the package has one form.
            let name: String = prefix.chars().chain(name.chars()).nfc().collect();
            if found.is_dir() {
                folders.push((item.path(), format!("{name}/")));
            } else if found.is_file() {
                tally.add(found.size())?;
                files.push(Source { place: Place::Disk { path: item.path(), seen: Seen::of(&found) }, name, size: found.size() });
            } else {
                return Err(refused("the source folder holds a symbolic link, device or pipe"));
            }
        }
    }
    Ok(files)
}

/// Holds the contents against the limits while they are listed.
struct Tally<'a> {
    limits: &'a Limits,
    files: u64,
    bytes: u64,
}

impl Tally<'_> {
    fn add(&mut self, size: u64) -> Result<()> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        if self.files > self.limits.files {
            return Err(over_limit("package_files", self.limits.files));
        }
        if self.bytes > self.limits.study_bytes {
            return Err(over_limit("study_bytes", self.limits.study_bytes));
        }
        if size > MAX_PACK {
            return Err(Error::new(Kind::LimitExceeded, format!("a file of {size} bytes, the format takes 1 GiB"))
                .with_hint("split the file: no file of a package can be larger than one pack")
                .at(Stage::Package));
        }
        Ok(())
    }
}

/// The file is not the one that was listed, or not any more.
pub(super) fn changed(number: usize) -> Error {
    Error::new(Kind::SourceChanged, format!("file {number} in the order of names"))
}

/// A local file that cannot be read, told by the system's number: the path may name a patient.
pub(super) fn unreadable(error: &std::io::Error) -> Error {
    let detail = match error.raw_os_error() {
        Some(number) => format!("in the source folder, system error {number}"),
        None => "in the source folder".to_owned(),
    };
    Error::new(Kind::FileUnreadable, detail).at(Stage::Package)
}
