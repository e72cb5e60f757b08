//! Files that hold credentials: read once, whole, and only if nobody else could.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};

/// The setting that names such a file.
pub(super) const SETTING: &str = "cloud.credentials_path";
/// The credentials of an app are a kilobyte or a few.
const APP_BYTES: u64 = 64 << 10;

fn unusable(found: &str, what: &str) -> Error {
    Error::new(Kind::CredentialsMissing, format!("the file of {found} {what}"))
}

/// Opens a file and looks at it: at the open file, so that nobody changes it between the look and the read.
fn open(path: &Path, found: &str) -> Result<(File, u64)> {
    let file = File::open(path).map_err(|_| unusable(found, "cannot be read"))?;
    let about = file.metadata().map_err(|_| unusable(found, "cannot be read"))?;
    if !about.is_file() {
        return Err(unusable(found, "is not a file"));
    }
    // Files that other programs share with us keep the modes that those gave them.
    if found == SETTING && about.mode() & 0o077 != 0 {
        return Err(Error::new(Kind::ConfigPermissions, format!("{SETTING} has mode {:04o}", about.mode() & 0o7777)));
    }
    Ok((file, about.len()))
}

/// Checks that the file of the setting is there and that nobody else can read it, for whoever lets a library read it.
pub(super) fn check(path: &Path) -> Result<()> {
    open(path, SETTING).map(drop)
}

/// The text of a file of at most `limit` bytes; `found` says what named it. No error quotes what it holds.
pub(super) fn read(path: &Path, found: &str, limit: u64) -> Result<Zeroizing<String>> {
    let (file, size) = open(path, found)?;
    let length = usize::try_from(size).ok().filter(|_| size <= limit);
    let length = length.ok_or_else(|| unusable(found, "is too large to hold credentials"))?;
    // All at once: a text that grew would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(length + 1));
    file.take(size).read_to_string(&mut text).map_err(|_| unusable(found, "is not text"))?;
    Ok(text)
}

/// The credentials that an app was given, in JSON. The text of a parser's complaint may quote them, so it is dropped.
pub(super) fn app<T: DeserializeOwned>(path: &Path, found: &str) -> Result<T> {
    let text = read(path, found, APP_BYTES)?;
    serde_json::from_str(&text).map_err(|_| {
        unusable(found, "is not the JSON that this provider needs").with_hint("docs/clouds describes the file for each provider")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("secret");
        std::fs::write(&path, "canary").unwrap();
        for (mode, expected) in
            [(0o600, None), (0o400, None), (0o640, Some(Kind::ConfigPermissions)), (0o604, Some(Kind::ConfigPermissions))]
        {
            set_mode(&path, mode);
            assert_eq!(read(&path, SETTING, 6).err().map(|error| error.kind()), expected, "{mode:o}");
            assert_eq!(check(&path).err().map(|error| error.kind()), expected, "{mode:o}");
            assert!(read(&path, "SOME_VARIABLE", 6).is_ok());
        }
        set_mode(&path, 0o600);
        assert_eq!(read(&path, SETTING, 6).unwrap().as_str(), "canary");
        for (path, limit) in [(path.as_path(), 5), (place.path(), 100), (&place.path().join("none"), 100)] {
            assert_eq!(read(path, SETTING, limit).unwrap_err().kind(), Kind::CredentialsMissing);
        }
    }

    #[test]
    fn credentials_are_read_and_never_quoted() {
        #[derive(serde::Deserialize)]
        struct File {
            client_id: String,
        }
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("app.json");
        for text in ["{\"client_id\": canary}", "{\"canary\": 1}", ""] {
            std::fs::write(&path, text).unwrap();
            set_mode(&path, 0o600);
            let error = app::<File>(&path, SETTING).err().unwrap();
            assert_eq!(error.kind(), Kind::CredentialsMissing);
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        std::fs::write(&path, "{\"client_id\": \"app\", \"else\": 1}").unwrap();
        assert_eq!(app::<File>(&path, SETTING).unwrap().client_id, "app");
    }
}
