//! The spool: ciphertext ranges on disk, so that an interrupted transfer goes on where it stopped.
//!
//! One folder per object, named by the hash of an unguessable key, one file per range, and the version of the object that they are
//! ranges of. A range is written under a temporary name and renamed, so a file is whole or not there; it is not flushed, because every
//! range is checked again before it is used and a lost one is only fetched again. The spool holds what the store held, never
//! plaintext, and is still kept from others (0700, 0600): who sees it learns when and how much was received.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};

/// File that holds the version of the object.
const VERSION_FILE: &str = "version";
/// Ending of a file that is being written.
const UNFINISHED: &str = ".part";

/// Makes the folder of all spools, for its owner only.
pub(super) fn prepare(folder: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|_| unwritable("the folder cannot be made"))?;
    let about = fs::metadata(folder).map_err(|_| unwritable("the folder cannot be read"))?;
    // A folder made by somebody else could be changed under our feet.
    if about.uid() != rustix::process::geteuid().as_raw() && rustix::process::geteuid().as_raw() != 0 {
        return Err(unwritable("the folder belongs to another user"));
    }
    // Also finds a read-only file system before the first range was paid for.
    let probe = folder.join(format!(".probe-{}{UNFINISHED}", random_name()?));
    create_new(&probe)?;
    fs::remove_file(&probe).map_err(|_| unwritable("a file cannot be removed"))
}

/// The spooled ranges of one version of one object.
pub(super) struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// Opens the spool of an object; ranges of another version are discarded.
    pub fn open(spools: &Path, key: &str, version: &str) -> Result<Spool> {
        let folder = spools.join(hex(&Sha256::digest(key.as_bytes())));
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(unwritable("the folder of an object cannot be made")),
            _ => {}
        }
        // A link planted here would send ciphertext elsewhere and our deletions too.
        if !fs::symlink_metadata(&folder).is_ok_and(|about| about.is_dir()) {
            return Err(unwritable("the place of an object's folder is taken"));
        }
        let spool = Spool { folder };
        if spool.read(VERSION_FILE, version.len())?.as_deref() != Some(version.as_bytes()) {
            spool.discard()?;
            spool.write(VERSION_FILE, version.as_bytes())?;
        }
        Ok(spool)
    }

    /// A range, if it is there with the right length. Its contents are not proved.
    pub fn load(&self, range: &Range<u64>) -> Result<Option<Vec<u8>>> {
        match usize::try_from(range.end.saturating_sub(range.start)) {
            Ok(length) if length > 0 => self.read(&file_name(range), length),
            _ => Ok(None),
        }
    }

    /// Keeps a range.
    pub fn store(&self, range: &Range<u64>, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() { Ok(()) } else { self.write(&file_name(range), bytes) }
    }

    /// A file of exactly this length; `None` if there is no such file.
    fn read(&self, name: &str, length: usize) -> Result<Option<Vec<u8>>> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let Ok(mut file) = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(self.folder.join(name)) else {
            return Ok(None);
        };
        let is_whole = file.metadata().is_ok_and(|about| about.is_file() && usize::try_from(about.len()) == Ok(length));
        if !is_whole {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        // Another process may have replaced the file meanwhile; then the range is simply fetched.
        Ok(file.read_exact(&mut bytes).ok().map(|()| bytes))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let unfinished = self.folder.join(format!("{}{UNFINISHED}", random_name()?));
        let written = create_new(&unfinished).and_then(|mut file| {
            file.write_all(bytes).map_err(|_| unwritable("a range cannot be written, the disk may be full"))?;
            fs::rename(&unfinished, self.folder.join(name)).map_err(|_| unwritable("a range cannot be renamed"))
        });
        if written.is_err() {
            // Nothing more can be done about a left-over than to try.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn discard(&self) -> Result<()> {
        let failed = || unwritable("old ranges cannot be removed");
        for entry in fs::read_dir(&self.folder).map_err(|_| failed())? {
            match fs::remove_file(entry.map_err(|_| failed())?.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn create_new(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|_| unwritable("a file cannot be made"))
}

fn file_name(range: &Range<u64>) -> String {
    format!("{:016x}-{:016x}", range.start, range.end)
}

fn random_name() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Error::new(Kind::Internal, "the system gives no random numbers"))?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unwritable(detail: &'static str) -> Error {
    Error::new(Kind::SpoolUnwritable, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_range_comes_back_only_for_the_version_it_belongs_to() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::open(place.path(), "key", "v1").unwrap();
        spool.store(&(0..4), b"abcd").unwrap();
        let again = |key: &str, version: &str| Spool::open(place.path(), key, version).unwrap().load(&(0..4)).unwrap();
        assert_eq!(again("key", "v1").as_deref(), Some(b"abcd".as_slice()));
        assert_eq!(again("other", "v1"), None);
        assert_eq!(again("key", "v2"), None);
        assert_eq!(again("key", "v1"), None, "the range of the first version was discarded, not hidden");
    }

    #[test]
    fn a_shortened_file_is_no_range() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::open(place.path(), "key", "v1").unwrap();
        spool.store(&(8..12), b"abcd").unwrap();
        fs::write(spool.folder.join(file_name(&(8..12))), b"abc").unwrap();
        assert_eq!(spool.load(&(8..12)).unwrap(), None);
    }

    #[test]
    fn nobody_else_may_read_the_spool() {
        let place = tempfile::tempdir().unwrap();
        let spools = place.path().join("workspace/spool");
        prepare(&spools).unwrap();
        let spool = Spool::open(&spools, "key", "v1").unwrap();
        spool.store(&(0..1), b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&spools), mode(&spool.folder), mode(&spool.folder.join(file_name(&(0..1))))), (0o700, 0o700, 0o600));
        // sha256("key"), from sha256sum
        assert!(spool.folder.ends_with("2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"));
    }

    #[test]
    fn a_link_in_place_of_the_folder_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), place.path().join(hex(&Sha256::digest(b"key")))).unwrap();
        assert_eq!(Spool::open(place.path(), "key", "v1").err().unwrap().kind(), Kind::SpoolUnwritable);
    }

    #[test]
    fn a_workspace_that_cannot_be_written_says_so() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, b"").unwrap();
        assert_eq!(prepare(&file.join("spool")).err().unwrap().kind(), Kind::SpoolUnwritable);
    }
}
