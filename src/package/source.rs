//! The folder that is to be sealed: what lies in it, in what order, and whether it stays as it was.
//!
//! Every regular file is taken, whatever its name; nothing is left out in silence. A symbolic link, device or pipe is an error: following
//! a link could seal something from elsewhere, and skipping it could lose a slice.

use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use super::header::MAX_PACK;
use super::paths::Taken;
use super::{Limits, over_limit};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};

/// One file to seal.
pub(super) struct Source {
    path: PathBuf,
    /// Path inside the package: relative, `/` separated, NFC.
    pub(super) name: String,
    /// Size when the folder was walked.
    pub(super) size: u64,
    seen: Seen,
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

impl Source {
    /// Opens the file and checks that it is the one that was walked over.
    pub(super) fn open(&self, number: usize) -> Result<File> {
        // O_NONBLOCK: a pipe that took the file's place must not hang the sealing.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&self.path).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ELOOP | libc::ENOTDIR) => changed(number),
            _ => unreadable(&error),
        })?;
        self.check(&file, number)?;
        Ok(file)
    }

    /// Checks that an open file is still as it was when it was walked over.
    pub(super) fn check(&self, file: &File, number: usize) -> Result<()> {
        let found = file.metadata().map_err(|error| unreadable(&error))?;
        if Seen::of(&found) == self.seen { Ok(()) } else { Err(changed(number)) }
    }
}

/// Every file below a folder, sorted by the bytes of its name in the package.
pub(super) fn walk(folder: &Path, limits: &Limits, control: &Control) -> Result<Vec<Source>> {
    // The folder itself may be named through a link; what lies in it may not be one.
    let found = fs::metadata(folder).map_err(|error| unreadable(&error))?;
    if !found.is_dir() {
        return Err(Error::new(Kind::InvalidArgument, "what is to be sealed is not a folder").at(Stage::Package));
    }
    let mut files = Vec::new();
    let mut total = 0u64;
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
                if files.len() as u64 >= limits.files {
                    return Err(over_limit("package_files", limits.files));
                }
                total = total.saturating_add(found.size());
                if total > limits.study_bytes {
                    return Err(over_limit("study_bytes", limits.study_bytes));
                }
                if found.size() > MAX_PACK {
                    return Err(Error::new(Kind::LimitExceeded, format!("a file of {} bytes, the format takes 1 GiB", found.size()))
                        .with_hint("split the file: no file of a package can be larger than one pack")
                        .at(Stage::Package));
                }
                files.push(Source { path: item.path(), name, size: found.size(), seen: Seen::of(&found) });
            } else {
                return Err(refused("the source folder holds a symbolic link, device or pipe"));
            }
        }
    }
    if files.is_empty() {
        return Err(Error::new(Kind::NothingToSeal, ""));
    }
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut taken = Taken::default();
    files.iter().enumerate().try_for_each(|(number, file)| taken.claim(number, &file.name))?;
    Ok(files)
}

/// The file is not the one that was walked over, or not any more.
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
