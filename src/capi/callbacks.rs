//! Callbacks: functions of the host program that segment, predict, and hear of progress and of the log.
//!
//! `user_data` is handed to each call as it is. Functions are called from threads of the library, for several studies at once when several
//! are processed at once; those of one study never overlap with another of the same study. They may call the library, but must not wait for
//! the study that they belong to, and no exception may leave them. `release` is called once, when `user_data` is needed no more: after the
//! function was replaced or its pipeline has ended, and the studies that use it have. When setting a function fails, `release` is not
//! called.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::case::{Answer, CASES, Case, smp_case};
use super::guard::enter;
use super::library::log_level;
use super::pipeline::{PIPELINES, smp_pipeline};
use super::status::SMP_OK;
use super::text::{self, Held};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::host::{self, LogLevel};
use crate::pipeline::{Segmentation, Volume, own_predictor, own_segmenter};

/// Segments or predicts a study: reads `study`, answers by `smp_case_set_mask` or `smp_case_add_value`, and returns `SMP_OK`.
/// `SMP_ERR_CANCELLED` ends the study as cancelled, any other value as failed (`SMP_ERR_RUNTIME_FAILED`, with the number in the message).
pub type smp_case_fn = Option<unsafe extern "C" fn(user_data: *mut c_void, study: *mut smp_case) -> i32>;

/// Hears how much of a stage is done, 0 to 1, and returns `SMP_OK`; anything else cancels the study.
pub type smp_progress_fn = Option<unsafe extern "C" fn(user_data: *mut c_void, stage: *const c_char, fraction: f64) -> i32>;

/// Hears a line of the log, without its end. It must not call the library.
pub type smp_log_fn = Option<unsafe extern "C" fn(user_data: *mut c_void, level: i32, line: *const c_char)>;

/// Takes `user_data` back.
pub type smp_release_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// The host's data, given back when the last user is gone; not before it was taken over.
struct UserData {
    address: *mut c_void,
    release: smp_release_fn,
    is_ours: AtomicBool,
}

// SAFETY: the host promises that its functions may be called with its data from any thread; the library itself never looks at it.
unsafe impl Send for UserData {}
// SAFETY: likewise for several threads at once.
unsafe impl Sync for UserData {}

impl UserData {
    fn new(address: *mut c_void, release: smp_release_fn) -> Arc<UserData> {
        Arc::new(UserData { address, release, is_ours: AtomicBool::new(false) })
    }

    /// From now on the end of the last clone gives the data back.
    fn take_over(&self) {
        self.is_ours.store(true, Ordering::Release);
    }

    /// The address; a method, so that a closure takes the whole and not the pointer in it.
    fn address(&self) -> *mut c_void {
        self.address
    }
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(release) = self.release.filter(|_| self.is_ours.load(Ordering::Acquire)) {
            // SAFETY: the host gave this function for this address, and it is called once, here.
            unsafe { release(self.address) };
        }
    }
}

/// Calls a function of the host with a case for as long as the call lasts, and takes its answer.
fn call(work: unsafe extern "C" fn(*mut c_void, *mut smp_case) -> i32, data: &UserData, case: Case) -> Result<Answer> {
    let handle = CASES.add(Held::new(case))?;
    // Held until the function has returned, whatever it does with the handle: addresses that it was given stay good.
    let case = CASES.get(handle, "study")?;
    // SAFETY: the host promises a function that takes its own data and a case.
    let status = unsafe { work(data.address(), handle) };
    CASES.free(handle);
    match status {
        SMP_OK => Ok(case.value.answer()),
        _ if status == Kind::Cancelled.code() => Err(Error::new(Kind::Cancelled, "")),
        _ => Err(Error::new(Kind::RuntimeFailed, format!("the host program's function answered {status}")).at(Stage::Inference)),
    }
}

/// Segments with a function of the host program, from the next study on, in place of a model file.
///
/// @param pipeline   Pipeline to change.
/// @param name       What results and the audit log call it, 1 to 128 bytes.
/// @param version    Its version, 1 to 128 bytes.
/// @param user_data  Handed to each call; may be NULL.
/// @param segment    The function; NULL returns to the model file, and then name and version may be NULL.
/// @param release    Takes `user_data` back; may be NULL.
/// @return `SMP_OK` or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_pipeline_set_segmenter(
    pipeline: *mut smp_pipeline,
    name: *const c_char,
    version: *const c_char,
    user_data: *mut c_void,
    segment: smp_case_fn,
    release: smp_release_fn,
) -> i32 {
    enter(|| {
        let pipeline = PIPELINES.get(pipeline, "pipeline")?;
        let Some(segment) = segment else {
            pipeline.value.set_segmenter(None);
            return Ok(());
        };
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let name = unsafe { text::required(name, "name") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let version = unsafe { text::required(version, "version") }?;
        let data = UserData::new(user_data, release);
        let held = Arc::clone(&data);
        let work = move |volume: &Volume, control: &Control| call(segment, &held, Case::new(volume, None, control, "segment"))?.into_mask();
        let own = own_segmenter(&name, &version, Box::new(work))?;
        data.take_over();
        pipeline.value.set_segmenter(Some(own));
        Ok(())
    })
}

/// Predicts with a function of the host program, from the next study on, in place of a model file. It is given the mask too, when there is
/// one.
///
/// @param pipeline   Pipeline to change.
/// @param name       What results and the audit log call it, 1 to 128 bytes.
/// @param version    Its version, 1 to 128 bytes.
/// @param user_data  Handed to each call; may be NULL.
/// @param predict    The function; NULL returns to the model file, and then name and version may be NULL.
/// @param release    Takes `user_data` back; may be NULL.
/// @return `SMP_OK` or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_pipeline_set_predictor(
    pipeline: *mut smp_pipeline,
    name: *const c_char,
    version: *const c_char,
    user_data: *mut c_void,
    predict: smp_case_fn,
    release: smp_release_fn,
) -> i32 {
    enter(|| {
        let pipeline = PIPELINES.get(pipeline, "pipeline")?;
        let Some(predict) = predict else {
            pipeline.value.set_predictor(None);
            return Ok(());
        };
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let name = unsafe { text::required(name, "name") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let version = unsafe { text::required(version, "version") }?;
        let data = UserData::new(user_data, release);
        let held = Arc::clone(&data);
        let work = move |volume: &Volume, mask: Option<&Segmentation>, control: &Control| {
            Ok(call(predict, &held, Case::new(volume, mask, control, "predict"))?.values)
        };
        let own = own_predictor(&name, &version, Box::new(work))?;
        data.take_over();
        pipeline.value.set_predictor(Some(own));
        Ok(())
    })
}

/// Tells the progress of each study that begins from now on. Stages are those of `smp_result_stage_seconds`.
///
/// @param pipeline   Pipeline to watch.
/// @param user_data  Handed to each call; may be NULL.
/// @param progress   The function; NULL ends the watching.
/// @param release    Takes `user_data` back; may be NULL.
/// @return `SMP_OK` or `SMP_ERR_INVALID_HANDLE`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_pipeline_set_progress(
    pipeline: *mut smp_pipeline,
    user_data: *mut c_void,
    progress: smp_progress_fn,
    release: smp_release_fn,
) -> i32 {
    enter(|| {
        let pipeline = PIPELINES.get(pipeline, "pipeline")?;
        let Some(progress) = progress else {
            pipeline.value.set_watcher(None);
            return Ok(());
        };
        // Stages are told by several threads; the host hears one after the other.
        let data = UserData::new(user_data, release);
        data.take_over();
        let one_at_a_time = Mutex::new(data);
        pipeline.value.set_watcher(Some(Arc::new(move |stage: &'static str, fraction: f64| {
            let data = one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the host promises a function that takes its own data, a text and a number.
            let status = unsafe { progress(data.address(), text::forever(stage), fraction) };
            status == SMP_OK
        })));
        Ok(())
    })
}

/// Gives each line of the log of the whole process to a function, in place of a file; see `smp_log_to_file` for what is in it.
///
/// @param level      `SMP_LOG_ERROR` to `SMP_LOG_TRACE`; `SMP_LOG_OFF` ends the log.
/// @param user_data  Handed to each call; may be NULL.
/// @param log        The function, called from any thread, several at once. NULL with `SMP_LOG_OFF`.
/// @param release    Takes `user_data` back; may be NULL.
/// @return `SMP_OK`; `SMP_ERR_UNSUPPORTED` in a Rust program with a log of its own; `SMP_ERR_INVALID_ARGUMENT`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_log_to_callback(level: i32, user_data: *mut c_void, log: smp_log_fn, release: smp_release_fn) -> i32 {
    enter(|| {
        let Some(level) = log_level(level)? else { return host::stop_log() };
        let log = log.ok_or_else(|| Error::new(Kind::NullArgument, "log"))?;
        let data = UserData::new(user_data, release);
        let held = Arc::clone(&data);
        host::log_to_listener(
            level,
            Arc::new(move |level: LogLevel, line: &str| {
                let line = text::c_string(line);
                // SAFETY: the host promises a function that takes its own data, a number and a text, which lives until it returns.
                unsafe { log(held.address(), level as i32 + 1, line.as_ptr()) };
            }),
        )?;
        data.take_over();
        Ok(())
    })
}
