//! Questions to the dynamic linker: in which folder this library lies, and where and which version of ONNX Runtime was loaded.
//!
//! The one file of this module with unsafe code. It asks and changes nothing: no library is loaded here that is not loaded already.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Folder of the library (or program) that this code is part of.
pub(super) fn own_folder() -> Option<PathBuf> {
    // Any address of ours will do.
    let address = own_folder as fn() -> Option<PathBuf> as *const libc::c_void;
    // For a program the linker gives the name it was called by, which may be relative. Reading that from the current folder would let
    // whoever fills that folder choose what is loaded; the kernel knows the program's true file.
    let file = match file_of(address) {
        Some(file) if file.is_absolute() => file,
        _ => std::env::current_exe().ok()?,
    };
    file.canonicalize().ok()?.parent().map(Path::to_path_buf)
}

/// File and version of an ONNX Runtime that was loaded under a name or path.
pub(super) fn onnx_runtime(name: &Path) -> Option<(PathBuf, String)> {
    let name = CString::new(name.as_os_str().as_bytes()).ok()?;
    // SAFETY: `name` is NUL-terminated and lives through the call; with RTLD_NOLOAD no code of a library is run.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return None;
    }
    // SAFETY: `handle` is a live handle of dlopen and the symbol's name is NUL-terminated.
    let symbol = unsafe { libc::dlsym(handle, c"OrtGetApiBase".as_ptr()) };
    // The handle is kept: ONNX Runtime stays loaded for the life of the process anyway, since it cannot be unloaded safely.
    if symbol.is_null() {
        return None;
    }
    type Getter = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: ONNX Runtime's header declares OrtGetApiBase with exactly this signature, and `ort` has called it through the same type.
    let getter = unsafe { std::mem::transmute::<*mut libc::c_void, Getter>(symbol) };
    // SAFETY: the function has no arguments and no preconditions.
    let base = unsafe { getter() };
    // SAFETY: the pointer is null or points to a constant of the loaded library, which stays loaded.
    let base = unsafe { base.as_ref() }?;
    // SAFETY: the function has no arguments and no preconditions.
    let version = unsafe { (base.GetVersionString)() };
    if version.is_null() {
        return None;
    }
    // SAFETY: ONNX Runtime returns a NUL-terminated constant.
    let version = unsafe { CStr::from_ptr(version) };
    let plain: String = version.to_str().ok()?.chars().filter(|c| c.is_ascii_alphanumeric() || ".-+".contains(*c)).take(32).collect();
    let file = file_of(symbol)?;
    Some((file.canonicalize().unwrap_or(file), plain))
}

/// The file that an address was loaded from.
fn file_of(address: *const libc::c_void) -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr takes any address and writes only to `info`, which is large enough.
    let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    if found == 0 {
        return None;
    }
    // SAFETY: all-zero is a valid Dl_info (null pointers and zero addresses), and dladdr overwrote it with a valid one.
    let info = unsafe { info.assume_init() };
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the linker's file names are NUL-terminated and live as long as the object is loaded, which outlives this call.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_folder_is_the_test_programs() {
        let program = std::env::current_exe().unwrap().canonicalize().unwrap();
        assert_eq!(own_folder().as_deref(), program.parent());
    }

    #[test]
    fn a_library_that_is_not_loaded_or_is_something_else_is_no_runtime() {
        assert!(onnx_runtime(Path::new("libonnxruntime_absent.so.9")).is_none());
        assert!(onnx_runtime(Path::new("libc.so.6")).is_none());
        assert!(onnx_runtime(Path::new("with\0nul")).is_none());
    }
}
