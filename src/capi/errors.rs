//! Errors: why the last failed call of this thread failed.
//!
//! These functions never fail and change nothing. Their texts live until the next failed call of the same thread.

use std::ffi::c_char;

use super::guard;

/// Tells the status of the last failed call of this thread.
///
/// @return A negative status; `SMP_OK` when no call of this thread has failed.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_last_error() -> i32 {
    guard::last_status()
}

/// Tells what went wrong in the last failed call of this thread, in one line without patient data.
///
/// @return The message; empty when no call has failed. Never NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_last_error_message() -> *const c_char {
    guard::last_message()
}

/// Tells what a person can do about the last failure of this thread.
///
/// @return The hint; empty when there is none. Never NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_last_error_hint() -> *const c_char {
    guard::last_hint()
}

/// Tells which part of the library the last failure of this thread arose in.
///
/// @return Such as `transfer` or `dicom`; empty when no call has failed. Never NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_last_error_stage() -> *const c_char {
    guard::last_stage()
}

/// Tells whether the call that failed last on this thread may succeed later, unchanged.
///
/// @return 1 for failures that pass (a network, a busy server), otherwise 0.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_last_error_retryable() -> i32 {
    guard::last_is_retryable().into()
}
