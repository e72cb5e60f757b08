//! Request: which study to process, and how it differs from what the pipeline does by default.

use std::ffi::c_char;
use std::sync::{Arc, Mutex, PoisonError};

use super::guard::{enter, leave};
use super::handle::Noun;
use super::{slice, text};
use crate::error::{Error, Kind, Result};
use crate::pipeline::Request;

/// One study to process.
///
/// Lives from `smp_request_new` until `smp_request_free`. Threads may share it, and it may be processed more than once; while it is being
/// processed it cannot be changed.
pub struct smp_request {
    _opaque: [u8; 0],
}

pub(super) static REQUESTS: Noun<smp_request, Order> = Noun::new("request");

/// A request that is shared while it is being processed and changed only when it is not.
pub(super) struct Order(Mutex<Arc<Request>>);

impl Order {
    /// The request, to be processed.
    pub(super) fn share(&self) -> Arc<Request> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Request) -> Result<()>) -> Result<()> {
        let mut request = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(request) = Arc::get_mut(&mut request) else {
            return Err(Error::new(Kind::InvalidArgument, "the request is being processed").with_hint("make a request for each study"));
        };
        change(request)
    }
}

/// Makes a request for a study.
///
/// @param remote_path  Folder of the study in the store; NULL when its files are added by `smp_request_add_instance`.
/// @return The request, or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_request_new(remote_path: *const c_char) -> *mut smp_request {
    enter(|| {
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let remote_path = unsafe { text::optional(remote_path, "remote_path") }?;
        let request = Request::new(remote_path.as_ref().map(|path| path.as_str()));
        REQUESTS.add(Order(Mutex::new(Arc::new(request))))
    })
}

/// Ends a request.
///
/// @param request  Request to end; NULL and dead handles are allowed.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_request_free(request: *mut smp_request) {
    leave(|| REQUESTS.free(request))
}

/// Sets something for this study from text.
///
/// The keys are `study_id` (default `study-` and 8 hexadecimal digits), `operations` (of `load,anonymize,preprocess,segment,predict`;
/// default all), `download_mode` (`zero_knowledge`, the default, or `standard`), `output_path` (default: no files), `series_uid` and
/// `series_description` (which series of several), and the configuration keys that can differ from study to study, such as `threshold`.
///
/// @param request  Request to change.
/// @param key      Name.
/// @param value    Value as text.
/// @return `SMP_OK`, `SMP_ERR_INVALID_ARGUMENT`, `SMP_ERR_CONFIG_UNKNOWN_KEY` or `SMP_ERR_CONFIG_INVALID_VALUE`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_request_set(request: *mut smp_request, key: *const c_char, value: *const c_char) -> i32 {
    enter(|| {
        let request = REQUESTS.get(request, "request")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let key = unsafe { text::required(key, "key") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let value = unsafe { text::required(value, "value") }?;
        request.change(|request| request.set(&key, &value))
    })
}

/// Sets something for this study to a whole number; see `smp_request_set`.
///
/// @param request  Request to change.
/// @param key      Name.
/// @param value    Value.
/// @return As `smp_request_set`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_request_set_int(request: *mut smp_request, key: *const c_char, value: i64) -> i32 {
    enter(|| {
        let request = REQUESTS.get(request, "request")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let key = unsafe { text::required(key, "key") }?;
        request.change(|request| request.set_int(&key, value))
    })
}

/// Sets something for this study to a real number; see `smp_request_set`.
///
/// @param request  Request to change.
/// @param key      Name.
/// @param value    Value; NaN and infinities are refused.
/// @return As `smp_request_set`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_request_set_real(request: *mut smp_request, key: *const c_char, value: f64) -> i32 {
    enter(|| {
        let request = REQUESTS.get(request, "request")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let key = unsafe { text::required(key, "key") }?;
        request.change(|request| request.set_real(&key, value))
    })
}

/// Adds a DICOM file that is in memory already, as in a PACS plug-in; then nothing is fetched.
///
/// The bytes are copied, and the copy is erased with the request.
///
/// @param request  Request to add to, made with a NULL path.
/// @param bytes    The file, preamble and all.
/// @param length   Number of bytes.
/// @return `SMP_OK` or `SMP_ERR_INVALID_ARGUMENT`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_request_add_instance(request: *mut smp_request, bytes: *const u8, length: i64) -> i32 {
    enter(|| {
        let request = REQUESTS.get(request, "request")?;
        // SAFETY: the C caller passes NULL or `length` readable bytes.
        let bytes = unsafe { slice::bytes(bytes, length, "bytes") }?;
        request.change(|request| request.add_instance(bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_being_processed_cannot_be_changed() {
        let order = Order(Mutex::new(Arc::new(Request::new(Some("studies/a")))));
        let processing = order.share();
        let error = order.change(|request| request.set("study_id", "A")).unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::InvalidArgument, "the request is being processed"));
        drop(processing);
        assert!(order.change(|request| request.set("study_id", "A")).is_ok());
    }
}
