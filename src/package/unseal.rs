//! Plaintext files on a disk: the one explicit way, all or nothing.
//!
//! Files are written into a fresh folder beside the target, which nobody else may enter, and the target's name is given to it once every file
//! proved genuine and reached the disk. Until then, and after any failure, there is nothing under the target's name.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::cms::Files;
use super::opened::open;
use super::{Limits, PackageFacts, derive};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::{KeyStore, hex};
use crate::transfer::Client;

/// The one explicit way to plaintext files.
///
/// `folder` must not exist or be empty; its parent must exist. Folders get mode 0700, files 0600.
pub fn unseal_to(
    client: &Client,
    remote_path: &str,
    folder: &Path,
    keys: &KeyStore,
    trusted: &[String],
    limits: &Limits,
    control: &Control,
) -> Result<PackageFacts> {
    check_target(folder)?;
    let package = open(client, remote_path, keys, trusted, limits, control)?;
    let mut scratch = Scratch::beside(folder)?;
    let facts = package.stream(control, &mut scratch)?;
    // Looked at again: the target may have been filled while the package was read. The rename itself refuses a folder that is not empty.
    check_target(folder)?;
    scratch.rename(folder)?;
    Ok(facts)
}

/// The target is free: nothing there, or an empty folder.
fn check_target(folder: &Path) -> Result<()> {
    let refused = |why: &'static str| Err(Error::new(Kind::InvalidArgument, why).at(Stage::Package));
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unwritable(&error)),
        Ok(found) if !found.is_dir() => refused("the target is not a folder, or a link"),
        Ok(_) => match fs::read_dir(folder).map_err(|error| unwritable(&error))?.next() {
            None => Ok(()),
            Some(_) => refused("the target folder is not empty"),
        },
    }
}

/// A private folder beside the target; removed with all it holds unless it got the target's name.
struct Scratch {
    path: PathBuf,
    /// Folders made inside, each before those in it.
    folders: Vec<PathBuf>,
    /// The file that is being written.
    file: Option<File>,
    keep: bool,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Scratch {
    fn beside(target: &Path) -> Result<Scratch> {
        let Some(name) = target.file_name() else {
            return Err(Error::new(Kind::InvalidArgument, "the target folder has no name of its own").at(Stage::Package));
        };
        // Random, and made with mkdir, which fails on anything that is there already, a link included: nobody can prepare the place.
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", hex(&derive::fresh_name()?)));
        let path = target.with_file_name(hidden);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| unwritable(&error))?;
        Ok(Scratch { path, folders: Vec::new(), file: None, keep: false })
    }

    /// Makes one file. Its path obeyed the rules of `paths`, so it cannot lead out; every folder on the way was made here.
    fn create(&mut self, path: &str) -> Result<File> {
        let mut place = self.path.clone();
        let mut components = path.split('/').peekable();
        while let Some(component) = components.next() {
            place.push(component);
            if components.peek().is_none() {
                break;
            }
            match DirBuilder::new().mode(0o700).create(&place) {
                Ok(()) => self.folders.push(place.clone()),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(unwritable(&error)),
            }
        }
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&place);
        file.map_err(|error| unwritable(&error))
    }

    fn rename(mut self, target: &Path) -> Result<()> {
        // The names of the files live in the folders: without this a power cut could leave the target with files missing.
        for folder in self.folders.iter().chain([&self.path]) {
            sync_folder(folder)?;
        }
        // rename(2) puts a folder in place of an empty one in one step and refuses a full one.
        fs::rename(&self.path, target).map_err(|error| unwritable(&error))?;
        self.keep = true;
        sync_folder(match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        })
    }
}

impl Files for Scratch {
    fn begin(&mut self, _index: usize, path: &str, _size: u64) -> Result<()> {
        self.file = Some(self.create(path)?);
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(|error| unwritable(&error)),
            None => Err(defect()),
        }
    }

    fn end(&mut self) -> Result<()> {
        let file = self.file.take().ok_or_else(defect)?;
        file.sync_all().map_err(|error| unwritable(&error))
    }
}

fn defect() -> Error {
    Error::new(Kind::Internal, "bytes of no file").at(Stage::Package)
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| unwritable(&error))
}

fn unwritable(error: &std::io::Error) -> Error {
    let detail = match error.raw_os_error() {
        Some(number) => format!("the target folder, system error {number}"),
        None => "the target folder".to_owned(),
    };
    Error::new(Kind::OutputUnwritable, detail).at(Stage::Package)
}
