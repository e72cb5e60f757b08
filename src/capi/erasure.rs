//! Erasure: files of the caller's own, overwritten and removed, with an honest verdict.
//!
//! Overwriting reaches the old bytes only where the file system and the device write in place. SSDs and copy-on-write file systems do
//! not. What really protects is that the library never writes plaintext to a disk.

use std::ffi::c_char;

use super::guard::{Status, enter};
use super::status::{SMP_OK, SMP_PARTIAL};
use super::text;
use crate::control::Control;
use crate::erase::{self, Report, Verdict};
use crate::error::{Error, Kind, Result};

/// Overwrites a file and removes it.
///
/// Blocks. A symbolic link, a device or a file of the system is refused.
///
/// @param path    File to erase.
/// @param passes  How often it is overwritten; 3 is what DoD 5220.22-M asked for.
/// @return `SMP_OK` when the old bytes were overwritten in place; `SMP_PARTIAL` when the file is gone but its storage may keep old bytes
///         for some time; `SMP_ERR_ERASE_FAILED` or `SMP_ERR_ERASE_REFUSED`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_erase_file(path: *const c_char, passes: i32) -> i32 {
    enter(|| {
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let path = unsafe { text::path(path, "path") }?;
        Ok(verdict(&erase::erase_file(&path, checked(passes)?, &Control::new())?))
    })
}

/// Overwrites and removes every file in a folder and below it, and the folder.
///
/// Blocks. Symbolic links are removed and never followed; a mount point or a folder of the system is refused.
///
/// @param path    Folder to erase.
/// @param passes  How often each file is overwritten.
/// @return As `smp_erase_file`, for the worst of all files.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_erase_directory(path: *const c_char, passes: i32) -> i32 {
    enter(|| {
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let path = unsafe { text::path(path, "path") }?;
        Ok(verdict(&erase::erase_directory(&path, checked(passes)?, &Control::new())?))
    })
}

fn checked(passes: i32) -> Result<u32> {
    u32::try_from(passes).map_err(|_| Error::new(Kind::InvalidArgument, format!("passes is {passes}")))
}

fn verdict(report: &Report) -> Status {
    match report.verdict {
        None | Some(Verdict::Overwritten) => Status(SMP_OK),
        Some(Verdict::DeletedOnly) => Status(SMP_PARTIAL),
    }
}
