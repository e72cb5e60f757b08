//! Audit: the tamper-evident log, read by anybody, without a pipeline and without a secret.

use std::ffi::c_char;

use super::guard::{enter, leave};
use super::handle::Noun;
use super::slice;
use super::text::{self, Held};
use crate::audit::AuditReader;
use crate::error::{Error, Kind};

/// An audit log, or a folder of them, as it was when it was opened.
///
/// Lives from `smp_audit_open` until `smp_audit_free`. Threads may share it.
pub struct smp_audit {
    _opaque: [u8; 0],
}

pub(super) static AUDITS: Noun<smp_audit, Held<AuditReader>> = Noun::new("audit");

/// Opens a folder of logs, one log, or one file of a log.
///
/// Blocks while the log is read.
///
/// @param path  Folder or file, such as the value of `audit_log_path`.
/// @return The log, or NULL with `SMP_ERR_AUDIT_UNREADABLE`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_audit_open(path: *const c_char) -> *mut smp_audit {
    enter(|| {
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let path = unsafe { text::path(path, "path") }?;
        AUDITS.add(Held::new(AuditReader::open(&path)?))
    })
}

/// Ends a log handle and the strings it gave out. The log's files stay.
///
/// @param audit  Log to end; NULL and dead handles are allowed.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_audit_free(audit: *mut smp_audit) {
    leave(|| AUDITS.free(audit))
}

/// Counts the entries.
///
/// @param audit  Log to ask.
/// @return Number of entries, or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_audit_count(audit: *mut smp_audit) -> i64 {
    enter(|| slice::count(AUDITS.get(audit, "audit")?.value.count()))
}

/// Verifies every chain of the log.
///
/// Blocks while the log is read.
///
/// @param audit      Log to verify.
/// @param first_bad  Receives -1 with `SMP_OK`, and with `SMP_ERR_AUDIT_TAMPERED` the position, from 0, of the first entry that does not
///                   verify; untouched with any other status. May be NULL.
/// @return `SMP_OK` when everything verifies, `SMP_ERR_AUDIT_TAMPERED` when something does not.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_audit_verify(audit: *mut smp_audit, first_bad: *mut i64) -> i32 {
    enter(|| {
        let verification = AUDITS.get(audit, "audit")?.value.verify();
        let position = verification.first_bad.map_or(Ok(-1), slice::count)?;
        // SAFETY: the C caller passes NULL or the address of one writable value.
        unsafe { slice::write_if_wanted(position, first_bad) };
        match verification.first_bad {
            None => Ok(()),
            Some(position) => Err(Error::new(Kind::AuditTampered, format!("entry {position} of {}", verification.entries))),
        }
    })
}

/// Tells the hash of the newest entry. Who keeps it elsewhere can show later that nothing before it was changed.
///
/// @param audit  Log to ask.
/// @return SHA-256 in hexadecimal, alive until the log handle is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_audit_head(audit: *mut smp_audit) -> *const c_char {
    enter(|| {
        let audit = AUDITS.get(audit, "audit")?;
        Ok(audit.texts.give(&audit.value.head()))
    })
}

/// Exports the entries of a period.
///
/// Blocks while the file is written. Folders are made as needed, and the file appears complete or not at all.
///
/// @param audit   Log to export.
/// @param format  `json` or `csv`.
/// @param path    File to write.
/// @param start   First day (`YYYY-MM-DD`) or moment (RFC 3339), inclusive; NULL from the beginning.
/// @param end     Last day or moment, inclusive; NULL to the end.
/// @return Number of entries, or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_audit_export(
    audit: *mut smp_audit,
    format: *const c_char,
    path: *const c_char,
    start: *const c_char,
    end: *const c_char,
) -> i64 {
    enter(|| {
        let audit = AUDITS.get(audit, "audit")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let format = unsafe { text::required(format, "format") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let path = unsafe { text::path(path, "path") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let start = unsafe { text::optional(start, "start") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let end = unsafe { text::optional(end, "end") }?;
        let (start, end) = (start.as_ref().map(|day| day.as_str()), end.as_ref().map(|day| day.as_str()));
        slice::count(audit.value.export(&format, &path, start, end)?)
    })
}
