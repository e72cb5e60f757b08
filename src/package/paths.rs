//! File names inside a package: what may be written to any file system without surprise, and nothing else.
//!
//! A name comes from a sender and may end in `create`, so the rules are those of the strictest receiver: relative, UTF-8 in NFC, no way up or out,
//! nothing that Windows treats as a device or a stream, no two names that a case-blind file system would take for one. They hold when a
//! package is sealed and again when it is opened, because a hostile sender writes manifests by hand.

use std::collections::HashSet;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::error::{Error, Kind, Result};

/// Longest path and longest component, in bytes of UTF-8.
const MAX_PATH: usize = 1024;
const MAX_COMPONENT: usize = 255;

/// Names that Windows keeps for devices, with any ending (learn.microsoft.com, "Naming Files, Paths, and Namespaces"); COM and LPT also take
/// a digit, including the superscripts of Latin-1.
const RESERVED: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];
const NUMBERED: [&str; 2] = ["com", "lpt"];

/// Paths already used in a package, as a case-blind file system sees them.
#[derive(Default)]
pub(super) struct Taken {
    files: HashSet<String>,
    folders: HashSet<String>,
}

impl Taken {
    /// Checks one path against the rules and against all paths before it. The error names the file by its number, never by its name.
    pub(super) fn claim(&mut self, number: usize, path: &str) -> Result<()> {
        let unsafe_path = |why: &str| Error::new(Kind::UnsafePath, format!("file {number}: {why}"));
        if let Some(why) = objection(path) {
            return Err(unsafe_path(why));
        }
        let folded = fold(path);
        for (end, _) in folded.match_indices('/') {
            let folder = &folded[..end];
            if self.files.contains(folder) {
                return Err(unsafe_path("a folder of its path is a file of the package"));
            }
            self.folders.insert(folder.to_owned());
        }
        if self.folders.contains(&folded) || !self.files.insert(folded) {
            return Err(unsafe_path("the name is used twice, at most in other case"));
        }
        Ok(())
    }
}

/// Why a path is not allowed, if it is not.
pub(super) fn objection(path: &str) -> Option<&'static str> {
    if path.len() > MAX_PATH {
        return Some("the path is longer than 1024 bytes");
    }
    if !is_nfc(path) {
        return Some("the path is not in Unicode NFC");
    }
    path.split('/').find_map(|component| match component {
        "" => Some("a component is empty"),
        "." | ".." => Some("a component is . or .."),
        _ if component.len() > MAX_COMPONENT => Some("a component is longer than 255 bytes"),
        _ if component.chars().any(char::is_control) => Some("a component has a control character"),
        _ if component.contains(['\\', ':']) => Some("a component has a backslash or a colon"),
        _ if is_reserved(component) => Some("a component is a device name of Windows"),
        _ => None,
    })
}

/// How a case-blind file system would see a path: upper case, then lower case, then NFC. By way of upper case, because "ß" and "SS" or the
/// three sigmas only meet there.
fn fold(path: &str) -> String {
    path.to_uppercase().to_lowercase().nfc().collect()
}

fn is_reserved(component: &str) -> bool {
    let stem = component.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    let numbered = NUMBERED.iter().filter_map(|device| stem.strip_prefix(device)).any(|rest| {
        let mut digits = rest.chars();
        matches!((digits.next(), digits.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
    });
    numbered || RESERVED.contains(&stem.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_surprise_a_file_system_are_refused() {
        let long = "x".repeat(256);
        let deep = "abc/".repeat(256) + "d";
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "a//b",
            "a/",
            ".",
            "..",
            "a/../b",
            "./a",
            "a/.",
            "a\\b",
            "C:x",
            "a:b",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "a\u{85}",
            "e\u{301}",
            "CON",
            "con",
            "a/NUL",
            "aux.dcm",
            "Com1",
            "lpt9.x.y",
            "COM¹.txt",
            "CONIN$",
            "con .txt",
            &long,
            &deep,
        ] {
            assert!(objection(bad).is_some(), "{bad:?}");
        }
        let longest = format!("{}/{}", "y".repeat(255), "z".repeat(255));
        for good in
            ["IM0001", "DICOM/ser 1/im.dcm", "\u{e9}", "...", "a..b", ".hidden", "CONTROL", "com", "com10", "console.dcm", "名前", &longest]
        {
            assert_eq!(objection(good), None, "{good:?}");
        }
        assert_eq!(objection(&"abc/".repeat(256)[..1024]), Some("a component is empty"));
        assert_eq!(objection(&("abc/".repeat(255) + "abcd")), None, "1024 bytes are allowed");
    }

    #[test]
    fn names_that_differ_in_case_only_are_one_name() {
        for (first, second) in [
            ("a", "a"),
            ("a", "A"),
            ("straße", "STRASSE"),
            ("σ", "ς"),
            ("é", "É"),
            ("dir", "DIR/file"),
            ("dir/file", "Dir"),
            ("a/b", "A/B"),
        ] {
            let mut taken = Taken::default();
            taken.claim(0, first).unwrap();
            assert_eq!(taken.claim(1, second).unwrap_err().kind(), Kind::UnsafePath, "{first} {second}");
        }
        let mut taken = Taken::default();
        for (number, path) in ["a/b", "a/c", "b", "ab", "a b", "c/a/b"].iter().enumerate() {
            taken.claim(number, path).unwrap();
        }
    }

    #[test]
    fn an_error_names_the_file_by_number() {
        let error = Taken::default().claim(7, "Doe^Jane/..").unwrap_err();
        assert_eq!(error.detail(), "file 7: a component is . or ..");
    }
}
