//! Library: its version, what it can do, and what it asks of the process that hosts it.

use std::ffi::c_char;

use super::guard::enter;
use super::{handle, slice, status, text};
use crate::error::{Error, Kind, Result};
use crate::host::{self, Hardening, LogLevel};
use crate::pipeline;

/// Version of the ABI that this header describes; compare it with `smp_abi_version`.
pub const SMP_ABI_VERSION: i32 = 1;

/// Writes no log.
pub const SMP_LOG_OFF: i32 = 0;

/// Logs failures that end a piece of work.
pub const SMP_LOG_ERROR: i32 = 1;

/// Logs failed calls too.
pub const SMP_LOG_WARN: i32 = 2;

/// Logs what begins and ends too.
pub const SMP_LOG_INFO: i32 = 3;

/// Logs the steps of each piece of work too.
pub const SMP_LOG_DEBUG: i32 = 4;

/// Logs everything.
pub const SMP_LOG_TRACE: i32 = 5;

/// No debugger of the same user may attach, and the memory is in no core dump (`PR_SET_DUMPABLE` 0).
pub const SMP_HARDEN_NO_DUMP: i32 = 1;

/// A crash writes no core file, and no child process can allow one again (`RLIMIT_CORE` 0).
pub const SMP_HARDEN_NO_CORE: i32 = 2;

/// No page of the process goes to swap (`mlockall`). Needs `CAP_IPC_LOCK` or an unlimited `RLIMIT_MEMLOCK`.
pub const SMP_HARDEN_LOCK_MEMORY: i32 = 4;

/// Tells the version of the library.
///
/// @return `major.minor.patch`; lives for ever, never NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_version() -> *const c_char {
    enter(|| Ok(text::forever(env!("CARGO_PKG_VERSION"))))
}

/// Tells the version of the ABI that the loaded library keeps.
///
/// @return The library's `SMP_ABI_VERSION`. If it differs from the header's, the two do not belong together.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_abi_version() -> i32 {
    SMP_ABI_VERSION
}

/// Tells what this build can do on this machine.
///
/// Looks for ONNX Runtime and for devices each time, so it may be asked again after one was installed.
///
/// @return JSON object: features, providers, decoders, devices, ONNX Runtime's version or why it is absent. Lives for ever.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_capabilities() -> *const c_char {
    enter(|| Ok(text::forever(&pipeline::capabilities())))
}

/// Tells the name of a status, as this header spells it.
///
/// @param status  Any number.
/// @return Such as `SMP_ERR_KEY_NOT_FOUND`; `unknown` for a number that is no status. Lives for ever, never NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_status_name(status: i32) -> *const c_char {
    enter(|| Ok(text::forever(status::describe(status).map_or("unknown", |(name, _)| name))))
}

/// Tells what a status means, in one sentence.
///
/// @param status  Any number.
/// @return The sentence; `unknown status` for a number that is no status. Lives for ever, never NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_status_text(status: i32) -> *const c_char {
    enter(|| Ok(text::forever(status::describe(status).map_or("unknown status", |(_, text)| text))))
}

/// Counts the handles that have not been freed, of all types and threads. For tests of what owns them.
///
/// @return Number of live handles.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_live_handles() -> i64 {
    enter(|| slice::count(handle::live()))
}

/// Writes the library's log to a file, from now on, for the whole process.
///
/// One line per event: time (UTC), level, part of the library, message. The lines hold kinds, sizes, numbers and status names;
/// never patient data, file names or secrets, and nothing that the libraries underneath would log. The file is made with mode
/// 0600, lines are appended, and a symbolic link is refused. A second call changes file and level; `SMP_LOG_OFF` stops.
///
/// @param path   File to append to; may be NULL with `SMP_LOG_OFF`.
/// @param level  `SMP_LOG_OFF` to `SMP_LOG_TRACE`.
/// @return `SMP_OK`, `SMP_ERR_INVALID_ARGUMENT` for another level, or `SMP_ERR_OUTPUT_UNWRITABLE`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_log_to_file(path: *const c_char, level: i32) -> i32 {
    enter(|| {
        let Some(level) = log_level(level)? else { return host::stop_log() };
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let path = unsafe { text::path(path, "path") }?;
        host::log_to_file(&path, level)
    })
}

/// The level of a number; `None` for off.
pub(super) fn log_level(level: i32) -> Result<Option<LogLevel>> {
    Ok(Some(match level {
        SMP_LOG_OFF => return Ok(None),
        SMP_LOG_ERROR => LogLevel::Error,
        SMP_LOG_WARN => LogLevel::Warn,
        SMP_LOG_INFO => LogLevel::Info,
        SMP_LOG_DEBUG => LogLevel::Debug,
        SMP_LOG_TRACE => LogLevel::Trace,
        _ => {
            let unknown = Error::new(Kind::InvalidArgument, format!("log level {level}"));
            return Err(unknown.with_hint("levels go from 0 (off) to 5 (trace)"));
        }
    }))
}

/// Asks the system to keep this process's memory from other eyes. It concerns the whole host application and cannot be undone.
///
/// The library locks and erases its keys without it. What it adds: decrypted voxels cannot be read out of a core dump, by a debugger,
/// or from a swap partition. Call it first, before any study is in memory.
///
/// @param flags  Sum of `SMP_HARDEN_*`.
/// @return `SMP_OK` when all that was asked for is in force; `SMP_ERR_UNSUPPORTED` when the system refused, with the reason in the
///         message; `SMP_ERR_INVALID_ARGUMENT` for an unknown flag, and then nothing was done.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_harden_process(flags: i32) -> i32 {
    enter(|| {
        let known = SMP_HARDEN_NO_DUMP | SMP_HARDEN_NO_CORE | SMP_HARDEN_LOCK_MEMORY;
        if flags & !known != 0 {
            return Err(Error::new(Kind::InvalidArgument, format!("flags {flags}")).with_hint("flags are a sum of SMP_HARDEN_*"));
        }
        host::harden_process(Hardening {
            no_dump: flags & SMP_HARDEN_NO_DUMP != 0,
            no_core: flags & SMP_HARDEN_NO_CORE != 0,
            lock_memory: flags & SMP_HARDEN_LOCK_MEMORY != 0,
        })
    })
}
