//! Files that hold credentials: read once, whole, and only if nobody else could.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};

/// The text of the file in `cloud.credentials_path`, of at most `limit` bytes. No error quotes what it holds.
pub(super) fn read(path: &Path, limit: u64) -> Result<Zeroizing<String>> {
    let unusable = |what: &'static str| Error::new(Kind::CredentialsMissing, format!("cloud.credentials_path {what}"));
    let file = File::open(path).map_err(|_| unusable("cannot be read"))?;
    // Of the open file, so that nobody changes it between the look and the read.
    let about = file.metadata().map_err(|_| unusable("cannot be read"))?;
    if !about.is_file() {
        return Err(unusable("is not a file"));
    }
    if about.mode() & 0o077 != 0 {
        return Err(Error::new(Kind::ConfigPermissions, format!("cloud.credentials_path has mode {:04o}", about.mode() & 0o7777)));
    }
    let length =
        usize::try_from(about.len()).ok().filter(|_| about.len() <= limit).ok_or_else(|| unusable("is too large to hold credentials"))?;
    // All at once: a text that grew would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(length + 1));
    file.take(about.len()).read_to_string(&mut text).map_err(|_| unusable("is not text"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("secret");
        std::fs::write(&path, "canary").unwrap();
        for (mode, expected) in
            [(0o600, None), (0o400, None), (0o640, Some(Kind::ConfigPermissions)), (0o604, Some(Kind::ConfigPermissions))]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, 6).err().map(|error| error.kind()), expected, "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path, 6).unwrap().as_str(), "canary");
        for (path, limit) in [(path.as_path(), 5), (place.path(), 100), (&place.path().join("none"), 100)] {
            assert_eq!(read(path, limit).unwrap_err().kind(), Kind::CredentialsMissing);
        }
    }
}
