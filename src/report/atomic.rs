//! The one way in which this library writes a result: beside its target, made durable, renamed.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// Writes a file by way of a temporary one beside it.
///
/// `fill` gets a buffered writer. Missing folders are made (0700), the file is 0600, whatever was at the path before is replaced in
/// one step, and when this returns the file and its name are durable. On failure the old file is untouched, and neither the temporary
/// file nor a folder that was made for it is left. Fails with [`Kind::OutputUnwritable`].
pub fn write_atomically(path: &Path, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let name = path.file_name().unwrap_or(OsStr::new(""));
    if name.is_empty() {
        return Err(Error::new(Kind::OutputUnwritable, "the path names no file"));
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = make_folders(folder).map_err(|error| unwritable("a folder cannot be made", &error))?;
    let outcome = temporary_name(folder).and_then(|temporary| {
        write_and_rename(&temporary, path, fill).inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })
    });
    match outcome {
        Ok(()) => made.iter().map(PathBuf::as_path).chain([folder]).try_for_each(|folder| {
            // A new folder's name lies in its parent, so that is what must be durable; the parents of all made ones are among these.
            sync_folder(folder).map_err(|error| unwritable("the folder cannot be made durable", &error))
        }),
        Err(error) => {
            // Deepest first; a folder that somebody else has put something into meanwhile stays.
            for folder in made.iter().rev() {
                let _ = std::fs::remove_dir(folder);
            }
            Err(unwritable("the file cannot be written", &error))
        }
    }
}

/// Makes a folder with its parents; returns the ones that were missing, outermost first. On failure none of them is left.
fn make_folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> =
        folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).map(Path::to_owned).collect();
    let made: Vec<PathBuf> = missing.into_iter().rev().collect();
    let outcome = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    if outcome.is_err() {
        for folder in made.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }
    outcome.map(|()| made)
}

/// A name that nobody can have guessed, and that is short whatever the target is called.
fn temporary_name(folder: &Path) -> io::Result<PathBuf> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|_| io::Error::from(io::ErrorKind::Other))?;
    Ok(folder.join(format!(".smp-{:016x}", u64::from_le_bytes(random))))
}

fn write_and_rename(temporary: &Path, path: &Path, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(temporary)?;
    let mut buffered = BufWriter::with_capacity(1 << 18, file);
    fill(&mut buffered)?;
    buffered.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(temporary, path)
}

/// Makes names in a folder durable, where the file system can: some network shares know no such thing, and a folder without the right
/// to read cannot be opened. The file itself is complete and synced by then.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error)
            if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// A system error by its number: its text may quote a path.
fn unwritable(what: &'static str, error: &io::Error) -> Error {
    let detail = match error.raw_os_error() {
        Some(number) => format!("{what} (system error {number})"),
        None => what.to_owned(),
    };
    Error::new(Kind::OutputUnwritable, detail)
}
