//! Pipeline: configured once, it takes studies from sealed packages to results, and keeps the record of it.

use std::ffi::c_char;
use std::sync::Arc;

use super::config::{CONFIGS, smp_config};
use super::guard::{enter, leave};
use super::handle::Noun;
use super::request::{REQUESTS, smp_request};
use super::result::{RESULTS, smp_result};
use super::slice;
use super::text::{self, Held};
use crate::pipeline::Pipeline;

/// What processes studies.
///
/// Lives from `smp_pipeline_new` until `smp_pipeline_free`. Threads may share it and process several studies at once. Results outlive it.
pub struct smp_pipeline {
    _opaque: [u8; 0],
}

pub(super) static PIPELINES: Noun<smp_pipeline, Held<Pipeline>> = Noun::new("pipeline");

/// Makes a pipeline: opens workspace, key store and audit log. The store and the models are opened when they are first needed.
///
/// @param config  Configuration, which is copied.
/// @return The pipeline, or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_pipeline_new(config: *mut smp_config) -> *mut smp_pipeline {
    enter(|| {
        let config = CONFIGS.get(config, "config")?.value.snapshot();
        PIPELINES.add(Held::new(Pipeline::new(&config)?))
    })
}

/// Cancels the studies that are being processed and waits until they have stopped. Later studies are refused; reports are not.
///
/// Blocks.
///
/// @param pipeline  Pipeline to close; closing twice is allowed.
/// @return `SMP_OK` or `SMP_ERR_INVALID_HANDLE`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_pipeline_close(pipeline: *mut smp_pipeline) -> i32 {
    enter(|| {
        PIPELINES.get(pipeline, "pipeline")?.value.close();
        Ok(())
    })
}

/// Ends a pipeline and the strings it gave out. Studies that other threads are processing with it are finished first, by those threads.
///
/// What the workspace holds stays there, encrypted; see `smp_pipeline_cleanup`.
///
/// @param pipeline  Pipeline to end; NULL and dead handles are allowed.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_pipeline_free(pipeline: *mut smp_pipeline) {
    leave(|| PIPELINES.free(pipeline))
}

/// Processes one study from its package to its result.
///
/// Blocks. A study that fails writes no output, erases what it held and is recorded in the audit log.
///
/// @param pipeline  Pipeline to use.
/// @param request   Which study, and how.
/// @return The result, or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_pipeline_process_study(pipeline: *mut smp_pipeline, request: *mut smp_request) -> *mut smp_result {
    enter(|| {
        let pipeline = PIPELINES.get(pipeline, "pipeline")?;
        let request = REQUESTS.get(request, "request")?.share();
        RESULTS.add(Held::new(Arc::new(pipeline.value.process_study(&request)?)))
    })
}

/// Exports the audit log as JSON.
///
/// Blocks while the log is verified and written. Folders are made as needed, and the file appears complete or not at all.
///
/// @param pipeline  Pipeline whose log is exported.
/// @param path      File to write.
/// @param start     First day (`YYYY-MM-DD`) or moment (RFC 3339), inclusive; NULL from the beginning.
/// @param end       Last day or moment, inclusive; NULL to the end.
/// @return Number of entries, or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_pipeline_export_audit(
    pipeline: *mut smp_pipeline,
    path: *const c_char,
    start: *const c_char,
    end: *const c_char,
) -> i64 {
    enter(|| {
        let pipeline = PIPELINES.get(pipeline, "pipeline")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let path = unsafe { text::path(path, "path") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let start = unsafe { text::optional(start, "start") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let end = unsafe { text::optional(end, "end") }?;
        let (start, end) = (start.as_ref().map(|day| day.as_str()), end.as_ref().map(|day| day.as_str()));
        slice::count(pipeline.value.export_audit(&path, start, end)?)
    })
}

/// Summarises the audit log, having verified it. Works before the first study too.
///
/// Blocks while the log is verified.
///
/// @param pipeline  Pipeline whose log is summarised.
/// @return JSON object with `total_entries`, `log_path`, `integrity_verified`, `user_id` and more, alive until the pipeline is freed; or
///         NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_pipeline_audit_summary(pipeline: *mut smp_pipeline) -> *const c_char {
    enter(|| {
        let pipeline = PIPELINES.get(pipeline, "pipeline")?;
        Ok(pipeline.texts.give(&pipeline.value.audit_summary()?))
    })
}

/// Erases what the workspace holds and gives back the models' memory. Safe at any time, and before any study.
///
/// Blocks while files are overwritten. The workspace holds ciphertext only, so forgetting this leaves nothing readable behind.
///
/// @param pipeline  Pipeline to clean up after.
/// @return `SMP_OK`, or `SMP_ERR_ERASE_FAILED` when something is left.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_pipeline_cleanup(pipeline: *mut smp_pipeline) -> i32 {
    enter(|| PIPELINES.get(pipeline, "pipeline")?.value.cleanup())
}

/// Tells what the last clean-up erased, how, and what that is worth on this file system.
///
/// @param pipeline  Pipeline that was cleaned up after.
/// @return JSON object, alive until the pipeline is freed; NULL with `SMP_ERR_ABSENT` before the first clean-up.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_pipeline_cleanup_report(pipeline: *mut smp_pipeline) -> *const c_char {
    enter(|| {
        let pipeline = PIPELINES.get(pipeline, "pipeline")?;
        Ok(pipeline.texts.give(&pipeline.value.cleanup_report()?))
    })
}

/// Sets the model of a task, from the next study on.
///
/// @param pipeline  Pipeline to change.
/// @param task      `segment` or `predict`.
/// @param path      Model file, with its contract beside it.
/// @return `SMP_OK`, or for example `SMP_ERR_MODEL_UNREADABLE`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_pipeline_register_model(pipeline: *mut smp_pipeline, task: *const c_char, path: *const c_char) -> i32 {
    enter(|| {
        let pipeline = PIPELINES.get(pipeline, "pipeline")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let task = unsafe { text::required(task, "task") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let path = unsafe { text::path(path, "path") }?;
        pipeline.value.register_model(&task, &path)
    })
}
