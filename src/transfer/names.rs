//! Names of objects that are parts of a path at the store.

use crate::error::{Error, Kind, Result, Stage};

/// Refuses names that a drive, a proxy or a URL would take for another place.
pub(super) fn check_parts(name: &str) -> Result<()> {
    if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(unsafe_name("has an empty part, . or .."));
    }
    Ok(())
}

/// An error for a name that the drive does not take.
pub(super) fn unsafe_name(fault: &str) -> Error {
    Error::new(Kind::UnsafePath, format!("the name of an object {fault}")).at(Stage::Transfer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_lead_elsewhere() {
        for name in ["a/../b", ".", "a//b", "/a", "a/", "./a", ""] {
            assert_eq!(check_parts(name).unwrap_err().kind(), Kind::UnsafePath, "{name}");
        }
        for name in ["a", "a/b.c", "..a/b..", "..."] {
            assert!(check_parts(name).is_ok(), "{name}");
        }
    }
}
