//! Names that OneDrive and SharePoint refuse, so that people hear it in our words and before anything is sent.
//!
//! After "Restrictions and limitations in OneDrive and SharePoint" of Microsoft's support pages. What is not listed there is left to the
//! server.

use super::super::names::{check_parts, unsafe_name};
use crate::error::Result;

/// Names that mean a device to Windows or a file to the service, without regard to case.
const RESERVED: &[&str] = &[".lock", "con", "prn", "aux", "nul", "desktop.ini", "_vti_"];
/// Devices that have a number.
const NUMBERED: &[&str] = &["com", "lpt"];

/// Checks each part of a name.
pub(super) fn check(name: &str) -> Result<()> {
    check_parts(name)?;
    match name.split('/').find_map(fault) {
        Some(fault) => Err(unsafe_name(fault)),
        None => Ok(()),
    }
}

fn fault(part: &str) -> Option<&'static str> {
    let lower = part.to_lowercase();
    let is_numbered = NUMBERED.iter().any(|device| {
        lower.strip_prefix(device).is_some_and(|number| number.len() == 1 && number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    match () {
        () if part.contains(['"', '*', ':', '<', '>', '?', '\\', '|']) => {
            Some("has one of \" * : < > ? \\ |, which OneDrive does not take")
        }
        () if part.chars().any(char::is_control) => Some("has a control character, which OneDrive does not take"),
        () if part.starts_with(' ') || part.ends_with(' ') => Some("has a part that begins or ends with a space"),
        () if is_numbered || RESERVED.contains(&lower.as_str()) => Some("has a part that is reserved by OneDrive"),
        () if lower.contains("_vti_") || part.starts_with("~$") => Some("has a part that is reserved by OneDrive"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_the_service_refuses_is_refused_here() {
        for name in [
            "a:b",
            "a?",
            "a/b*c/d",
            "a\\b",
            "a|b",
            "<a",
            "a>",
            "\"a\"",
            " a",
            "a ",
            "a/ b",
            "CON",
            "nul",
            "a/Com1",
            "lpt9",
            ".lock",
            "Desktop.ini",
            "x_vti_y",
            "~$x",
            "a/../b",
            "a\u{7f}",
        ] {
            let error = check(name).unwrap_err();
            assert_eq!(error.kind(), Kind::UnsafePath, "{name}");
            assert!(!error.to_string().contains(name) || name.len() < 3);
        }
        for name in ["a/b.smpp", "Schädel MRT + ä&=%20#'(1)/脳 😀.smpp", "com10", "console", "a b", "~x", "..x", "header.smp"] {
            assert!(check(name).is_ok(), "{name}");
        }
    }
}
