//! The door between C and Rust: every shim runs inside [`enter`].
//!
//! What it promises: no panic crosses into C, every failure has a status code, and the thread that failed can ask why. A panic
//! becomes `SMP_ERR_INTERNAL` with the place in the source and nothing else, because a panic's text may quote what was being
//! parsed. The last failure is kept per thread, so two threads never read each other's errors; a call that succeeds leaves it
//! alone. Nothing here holds a lock or a borrow while foreign code runs, so calls may nest (a callback that calls the library).

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use super::text;
use crate::error::{Error, Kind, Result};

/// What a shim answers: how a Rust value becomes a C value, and what C receives instead when there is none (convention 2).
pub(super) trait Reply {
    /// Type of the C function's result.
    type C;
    /// The C value of a success.
    fn done(self) -> Self::C;
    /// The C value of a failure.
    fn failed(status: i32) -> Self::C;
}

/// A status other than `SMP_OK` that is not an error.
pub(super) struct Status(pub(super) i32);

impl Reply for Status {
    type C = i32;
    fn done(self) -> i32 {
        self.0
    }
    fn failed(status: i32) -> i32 {
        status
    }
}

impl Reply for () {
    type C = i32;
    fn done(self) -> i32 {
        super::status::SMP_OK
    }
    fn failed(status: i32) -> i32 {
        status
    }
}

/// A claim: 1 or 0, and the negative status when it could not be decided.
impl Reply for bool {
    type C = i32;
    fn done(self) -> i32 {
        self.into()
    }
    fn failed(status: i32) -> i32 {
        status
    }
}

/// A count: never negative unless it failed, and then the status.
impl Reply for i64 {
    type C = i64;
    fn done(self) -> i64 {
        self
    }
    fn failed(status: i32) -> i64 {
        status.into()
    }
}

impl Reply for f64 {
    type C = f64;
    fn done(self) -> f64 {
        self
    }
    fn failed(_status: i32) -> f64 {
        f64::NAN
    }
}

impl<T> Reply for *const T {
    type C = *const T;
    fn done(self) -> *const T {
        self
    }
    fn failed(_status: i32) -> *const T {
        std::ptr::null()
    }
}

impl<T> Reply for *mut T {
    type C = *mut T;
    fn done(self) -> *mut T {
        self
    }
    fn failed(_status: i32) -> *mut T {
        std::ptr::null_mut()
    }
}

/// What the last failed call of a thread said.
struct Failure {
    status: i32,
    message: CString,
    hint: CString,
    stage: CString,
    is_retryable: bool,
}

thread_local! {
    static LAST: RefCell<Option<Failure>> = const { RefCell::new(None) };
    /// How many shims this thread is inside of.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where this thread panicked last: a file of source code and a line.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs one call: panics and errors become the C value of a failure and are remembered for this thread.
pub(super) fn enter<R: Reply>(call: impl FnOnce() -> Result<R>) -> R::C {
    hush_panics();
    let _inside = Inside::step();
    // A shim holds nothing across the call that a panic could leave half done: objects guard their own state with locks.
    let error = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(reply)) => return reply.done(),
        Ok(Err(error)) => error,
        Err(payload) => {
            // Dropping a payload runs its destructor, which may panic in turn, here outside of the guard. A few bytes are lost instead.
            std::mem::forget(payload);
            let place = PLACE.try_with(|place| std::mem::take(&mut *place.borrow_mut())).unwrap_or_default();
            Error::new(Kind::Internal, place)
        }
    };
    remember(&error);
    R::failed(error.code())
}

/// Ends an object's life in silence: `free` reports nothing, not even a destructor that panics.
pub(super) fn leave(end: impl FnOnce()) {
    hush_panics();
    let _inside = Inside::step();
    if let Err(payload) = catch_unwind(AssertUnwindSafe(end)) {
        std::mem::forget(payload);
    }
}

/// Status of the last failed call of this thread; 0 when none failed.
pub(super) fn last_status() -> i32 {
    last(|failure| failure.status).unwrap_or(super::status::SMP_OK)
}

/// Message of the last failed call of this thread.
pub(super) fn last_message() -> *const c_char {
    last(|failure| failure.message.as_ptr()).unwrap_or(EMPTY.as_ptr())
}

/// What a person can do about it; empty when there is nothing.
pub(super) fn last_hint() -> *const c_char {
    last(|failure| failure.hint.as_ptr()).unwrap_or(EMPTY.as_ptr())
}

/// Name of the part of the library that failed.
pub(super) fn last_stage() -> *const c_char {
    last(|failure| failure.stage.as_ptr()).unwrap_or(EMPTY.as_ptr())
}

/// Whether the same call may succeed later.
pub(super) fn last_is_retryable() -> bool {
    last(|failure| failure.is_retryable).unwrap_or(false)
}

const EMPTY: &CStr = c"";

/// Reads the last failure. A call from a destructor at the end of a thread finds the store gone and answers as if nothing failed.
fn last<T>(read: impl FnOnce(&Failure) -> T) -> Option<T> {
    LAST.try_with(|last| last.borrow().as_ref().map(read)).ok().flatten()
}

fn remember(error: &Error) {
    let message = message(error);
    tracing::warn!(target: "smp::call", status = error.kind().name(), stage = error.stage().name(), "{message}");
    let failure = Failure {
        status: error.code(),
        message: text::c_string(&message),
        hint: text::c_string(error.hint().unwrap_or_default()),
        stage: text::c_string(error.stage().name()),
        is_retryable: error.is_retryable(),
    };
    // The old texts are dropped after the borrow has ended.
    let _old = LAST.try_with(|last| last.borrow_mut().replace(failure));
}

/// The error and what led to it, in one line.
fn message(error: &Error) -> String {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        message.push_str("; ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    message
}

/// Counts the shims a thread is inside of, so that the panic hook knows whose panic it sees.
struct Inside;

impl Inside {
    fn step() -> Inside {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get().saturating_add(1)));
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}

/// Replaces Rust's habit of printing a panic's text to the terminal: the text may quote a header, and the terminal is MATLAB's.
fn hush_panics() {
    static ONCE: Once = Once::new();
    // The hook cannot be changed while this thread panics (a destructor that calls the library); the next call will do it.
    if ONCE.is_completed() || std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_inside = DEPTH.try_with(|depth| depth.get() > 0).unwrap_or(true);
            let _ = PLACE.try_with(|place| *place.borrow_mut() = self::place(info));
            // Worker threads panic outside of any shim; in a release build they are silent too. A debug build prints their text,
            // because there the panicking thread may be a test.
            if cfg!(debug_assertions) && !is_inside {
                previous(info);
            }
        }));
    });
}

/// Where a panic arose: the last parts of the source file's path, which name no folder of the machine that built the library.
fn place(info: &PanicHookInfo<'_>) -> String {
    let Some(location) = info.location() else { return String::new() };
    let parts: Vec<&str> = location.file().split(['/', '\\']).collect();
    let tail = parts.get(parts.len().saturating_sub(3)..).unwrap_or_default().join("/");
    format!("panic at {tail}:{}", location.line())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stage;

    fn message_text() -> String {
        // SAFETY: the pointer is a NUL-terminated text of this thread that lives until the next failed call.
        unsafe { CStr::from_ptr(last_message()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_is_an_internal_error_without_its_text() {
        let status = enter::<()>(|| panic!("DOE^JANE 19570401"));
        assert_eq!(status, Kind::Internal.code());
        assert_eq!(last_status(), Kind::Internal.code());
        let text = message_text();
        assert!(!text.contains("DOE") && !text.contains("1957"), "{text}");
        assert!(text.contains("src/capi/guard.rs:"), "{text}");
    }

    #[test]
    fn a_payload_that_panics_when_dropped_stays_inside() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(enter::<()>(|| std::panic::panic_any(Bomb)), Kind::Internal.code());
    }

    #[test]
    fn every_type_of_result_has_its_failure() {
        let fail = |kind| Error::new(kind, "");
        assert_eq!(enter::<()>(|| Err(fail(Kind::KeyNotFound))), -202);
        assert_eq!(enter::<bool>(|| Err(fail(Kind::KeyNotFound))), -202);
        assert_eq!(enter::<i64>(|| Err(fail(Kind::KeyNotFound))), -202);
        assert!(enter::<f64>(|| Err(fail(Kind::Absent))).is_nan());
        assert!(enter::<*const c_char>(|| Err(fail(Kind::Absent))).is_null());
        assert!(enter::<*mut u8>(|| Err(fail(Kind::Absent))).is_null());
        assert_eq!(enter::<bool>(|| Ok(true)), 1);
        assert_eq!(enter::<Status>(|| Ok(Status(2))), 2);
    }

    #[test]
    fn the_last_error_is_the_threads_own_and_survives_success() {
        let error = Error::new(Kind::ConnectionRefused, "port 1").at(Stage::Transfer).caused_by(Error::new(Kind::TlsFailed, "alert 40"));
        enter::<()>(|| Err(error));
        std::thread::spawn(|| {
            assert_eq!(last_status(), 0);
            assert_eq!(message_text(), "");
            enter::<()>(|| Err(Error::new(Kind::MaskEmpty, "")));
            assert_eq!(last_status(), Kind::MaskEmpty.code());
        })
        .join()
        .unwrap();
        enter::<()>(|| Ok(()));
        assert_eq!(last_status(), Kind::ConnectionRefused.code());
        assert_eq!(message_text(), "Connection refused: port 1; the TLS connection was refused: alert 40");
        assert!(last_is_retryable());
    }

    #[test]
    fn a_call_inside_a_call_and_inside_a_panic_works() {
        struct CallsWhileUnwinding;
        impl Drop for CallsWhileUnwinding {
            fn drop(&mut self) {
                assert_eq!(enter::<()>(|| panic!("inner")), Kind::Internal.code());
            }
        }
        let status = enter::<()>(|| {
            assert_eq!(enter::<()>(|| Err(Error::new(Kind::MaskEmpty, ""))), Kind::MaskEmpty.code());
            let _guard = CallsWhileUnwinding;
            panic!("outer");
        });
        assert_eq!(status, Kind::Internal.code());
    }

    #[test]
    fn leaving_swallows_a_panic_and_remembers_nothing() {
        std::thread::spawn(|| {
            leave(|| panic!("in a destructor"));
            assert_eq!(last_status(), 0);
        })
        .join()
        .unwrap();
    }
}
