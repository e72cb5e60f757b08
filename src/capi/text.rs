//! Strings, both ways.
//!
//! In: NUL-terminated UTF-8, copied before anything else happens, and erased when the call ends, because the text may be a
//! passphrase or a token. Out: borrowed by the caller and owned here, by a [`Texts`] that lives as long as its handle. A text that
//! was given out before is given out again, so asking a handle the same question for ever needs no more memory than asking once.

use std::collections::HashSet;
use std::ffi::{CString, c_char};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::config;
use crate::error::{Error, Kind, Result};

/// Longest text that is taken, in bytes. The longest that anybody has reason to pass is a configuration in JSON; the limit ends
/// the search for a NUL that the caller forgot.
pub(super) const MAX_TEXT_BYTES: usize = 16 << 20;

/// Texts that were given out, each once; they keep their addresses until this is dropped.
#[derive(Default)]
pub(super) struct Texts {
    given: Mutex<HashSet<CString>>,
}

/// An object behind a handle, with the texts that were given out for it.
pub(super) struct Held<T> {
    /// The object.
    pub(super) value: T,
    /// Its texts.
    pub(super) texts: Texts,
}

impl<T> Held<T> {
    /// An object that has given out no text yet.
    pub(super) fn new(value: T) -> Held<T> {
        Held { value, texts: Texts::default() }
    }
}

impl Texts {
    /// The address of a text that stays until the owner is dropped.
    pub(super) fn give(&self, text: &str) -> *const c_char {
        let text = c_string(text);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = given.get(&text) {
            return old.as_ptr();
        }
        // A CString's bytes are on the heap, so they stay where they are when the set moves the CString.
        let address = text.as_ptr();
        given.insert(text);
        address
    }
}

/// The address of a text that stays for ever. For the library's own texts, which are few.
pub(super) fn forever(text: &str) -> *const c_char {
    static TEXTS: LazyLock<Texts> = LazyLock::new(Texts::default);
    TEXTS.give(text)
}

/// A C string; a NUL inside, which C would take for the end, becomes U+FFFD.
pub(super) fn c_string(text: &str) -> CString {
    let clean = if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() };
    CString::new(clean).unwrap_or_default()
}

/// A text that must be there.
///
/// # Safety
/// `text` is NULL or points to bytes that are readable up to and including the first NUL, and that nobody changes meanwhile.
pub(super) unsafe fn required(text: *const c_char, parameter: &str) -> Result<Zeroizing<String>> {
    // SAFETY: the caller's promise is this function's own.
    unsafe { optional(text, parameter) }?.ok_or_else(|| Error::new(Kind::NullArgument, parameter.to_owned()))
}

/// A text that may be NULL.
///
/// # Safety
/// As for [`required`].
pub(super) unsafe fn optional(text: *const c_char, parameter: &str) -> Result<Option<Zeroizing<String>>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: strnlen reads up to the first NUL, which the caller promises to be there, and no further than the limit.
    let length = unsafe { libc::strnlen(text, MAX_TEXT_BYTES + 1) };
    if length > MAX_TEXT_BYTES {
        return Err(Error::new(Kind::InvalidArgument, format!("{parameter} is longer than {MAX_TEXT_BYTES} bytes")));
    }
    // SAFETY: the `length` bytes were read just now, and the caller promises that they stay as they are.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
        Err(error) => Err(Error::new(Kind::InvalidText, format!("{parameter}, byte {}", error.valid_up_to()))),
    }
}

/// A path that must be there; `~` and `$VAR` are expanded.
///
/// # Safety
/// As for [`required`].
pub(super) unsafe fn path(text: *const c_char, parameter: &str) -> Result<PathBuf> {
    // SAFETY: the caller's promise is this function's own.
    let text = unsafe { required(text, parameter) }?;
    if text.is_empty() {
        return Err(Error::new(Kind::InvalidArgument, format!("{parameter} is empty")));
    }
    config::expand(&text)
}

/// A path that may be NULL; `~` and `$VAR` are expanded.
///
/// # Safety
/// As for [`required`].
pub(super) unsafe fn optional_path(text: *const c_char, parameter: &str) -> Result<Option<PathBuf>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise is this function's own.
    unsafe { path(text, parameter) }.map(Some)
}

/// A text of this library, for tests of the shims.
#[cfg(test)]
pub(super) fn read(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: every text that the library gives out is NUL-terminated and lives while its owner does.
    Some(unsafe { std::ffi::CStr::from_ptr(text) }.to_str().unwrap().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(bytes: &[u8]) -> Result<Zeroizing<String>> {
        // SAFETY: every caller below passes bytes that end with a NUL.
        unsafe { required(bytes.as_ptr().cast(), "name") }
    }

    #[test]
    fn text_comes_in_as_it_is() {
        assert_eq!(take(b"\0").unwrap().as_str(), "");
        assert_eq!(take("Grüße, 研究\0".as_bytes()).unwrap().as_str(), "Grüße, 研究");
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_and_not_quoted() {
        let error = take(b"ab\xff\xfe\0").unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::InvalidText, "name, byte 2"));
    }

    #[test]
    fn null_is_absent_or_an_error() {
        // SAFETY: NULL is allowed.
        assert!(unsafe { optional(std::ptr::null(), "name") }.unwrap().is_none());
        // SAFETY: NULL is allowed.
        let error = unsafe { required(std::ptr::null(), "name") }.unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::NullArgument, "name"));
    }

    #[test]
    fn text_at_the_limit_is_taken_and_one_byte_more_is_not() {
        let mut bytes = vec![b'x'; MAX_TEXT_BYTES];
        bytes.push(0);
        assert_eq!(take(&bytes).unwrap().len(), MAX_TEXT_BYTES);
        *bytes.last_mut().unwrap() = b'x';
        bytes.push(0);
        assert_eq!(take(&bytes).unwrap_err().kind(), Kind::InvalidArgument);
    }

    #[test]
    fn a_text_is_given_out_at_one_address() {
        let texts = Texts::default();
        let first = texts.give("study-1");
        let others: HashSet<_> = (0..1_000).map(|n| texts.give(&format!("other {n}"))).collect();
        assert!(others.len() == 1_000 && !others.contains(&first));
        assert_eq!(texts.give("study-1"), first);
        assert_eq!(read(first).as_deref(), Some("study-1"));
        assert_eq!(texts.given.lock().unwrap().len(), 1_001);
    }

    #[test]
    fn a_nul_inside_does_not_cut_a_text() {
        assert_eq!(c_string("a\0b").to_str(), Ok("a\u{fffd}b"));
    }
}
