//! Result: everything known of one processed study.
//!
//! A value that no operation made is absent: a number is then NaN, a string NULL, a count `SMP_ERR_ABSENT`. 0.0 is a value.

use std::ffi::c_char;
use std::sync::Arc;

use super::guard::{enter, leave};
use super::handle::Noun;
use super::slice;
use super::text::{self, Held};
use crate::error::{Error, Kind, Result};
use crate::pipeline::StudyResult;

/// What processing one study yielded.
///
/// Lives from `smp_pipeline_process_study` until `smp_result_free`, also when pipeline and request are freed first. Threads may share it.
pub struct smp_result {
    _opaque: [u8; 0],
}

const NOT_SEGMENTED: &str = "the study was not segmented";
const NOT_PREDICTED: &str = "no probability was predicted";

pub(super) static RESULTS: Noun<smp_result, Held<Arc<StudyResult>>> = Noun::new("result");

/// Ends a result, its voxels and the strings it gave out.
///
/// @param result  Result to end; NULL and dead handles are allowed.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_free(result: *mut smp_result) {
    leave(|| RESULTS.free(result))
}

/// Tells everything below as one JSON object, and more: models, preprocessing, de-identification, package.
///
/// @param result  Result to ask.
/// @return JSON, alive until the result is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_json(result: *mut smp_result) -> *const c_char {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        Ok(result.texts.give(&result.value.json()?))
    })
}

/// Tells the id of the study: the request's, or one that was made for it.
///
/// @param result  Result to ask.
/// @return Study id, alive until the result is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_study_id(result: *mut smp_result) -> *const c_char {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        Ok(result.texts.give(result.value.study_id()))
    })
}

/// Tells when the study was processed.
///
/// @param result  Result to ask.
/// @return RFC 3339, UTC, alive until the result is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_processed_at(result: *mut smp_result) -> *const c_char {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        Ok(result.texts.give(result.value.processed_at()))
    })
}

/// Tells which operations were really done, in their order.
///
/// @param result  Result to ask.
/// @return Names separated by commas, alive until the result is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_operations(result: *mut smp_result) -> *const c_char {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        Ok(result.texts.give(&result.value.operations().join(",")))
    })
}

/// Tells on which side of `threshold` the probability lies.
///
/// @param result  Result to ask.
/// @return `positive`, `negative` or, within `uncertain_band`, `uncertain`; lives for ever. NULL with `SMP_ERR_ABSENT` without a prediction.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_cancer_prediction(result: *mut smp_result) -> *const c_char {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        Ok(text::forever(present(result.value.cancer_prediction(), NOT_PREDICTED)?))
    })
}

/// Tells the probability of the positive class, 0 to 1.
///
/// @param result  Result to ask.
/// @return Probability; NaN without a prediction.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_cancer_probability(result: *mut smp_result) -> f64 {
    enter(|| present(RESULTS.get(result, "result")?.value.cancer_probability(), NOT_PREDICTED))
}

/// Tells how far the probability is from 0.5: `abs(p - 0.5) * 2`, 0 to 1. It is a distance and not a calibrated confidence.
///
/// @param result  Result to ask.
/// @return Score; NaN without a prediction.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_confidence_score(result: *mut smp_result) -> f64 {
    enter(|| present(RESULTS.get(result, "result")?.value.confidence_score(), NOT_PREDICTED))
}

/// Tells how long the study took, from the call to the result.
///
/// @param result  Result to ask.
/// @return Seconds, or NaN.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_processing_time_seconds(result: *mut smp_result) -> f64 {
    enter(|| Ok(RESULTS.get(result, "result")?.value.processing_time_seconds()))
}

/// Tells the size of the volume, and of the mask. The number of voxels is the product, once for each channel of the volume
/// (`smp_result_channel_count`).
///
/// @param result   Result to ask.
/// @param columns  Receives the number of columns.
/// @param rows     Receives the number of rows.
/// @param slices   Receives the number of slices.
/// @return `SMP_OK` or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_dims(result: *mut smp_result, columns: *mut i64, rows: *mut i64, slices: *mut i64) -> i32 {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        let [c, r, s] = result.value.volume().geometry().dims;
        let dims = [slice::count(c)?, slice::count(r)?, slice::count(s)?];
        // SAFETY: the C caller passes NULL or addresses of one writable value each.
        unsafe { slice::write_all(dims, [columns, rows, slices], ["columns", "rows", "slices"]) }
    })
}

/// Counts the channels of the volume: 1, or the time points, echoes, b-values or colours that the series holds on one grid. `channels` in
/// `smp_result_json` tells what each is.
///
/// @param result  Result to ask.
/// @return Number of channels, or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_channel_count(result: *mut smp_result) -> i64 {
    enter(|| slice::count(RESULTS.get(result, "result")?.value.volume().channels().len()))
}

/// Tells the distances between the centres of neighbouring voxels, in mm.
///
/// @param result   Result to ask.
/// @param columns  Receives the distance from column to column.
/// @param rows     Receives the distance from row to row.
/// @param slices   Receives the distance from slice to slice.
/// @return `SMP_OK` or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_spacing(result: *mut smp_result, columns: *mut f64, rows: *mut f64, slices: *mut f64) -> i32 {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        let spacing_mm = result.value.volume().geometry().spacing_mm;
        // SAFETY: the C caller passes NULL or addresses of one writable value each.
        unsafe { slice::write_all(spacing_mm, [columns, rows, slices], ["columns", "rows", "slices"]) }
    })
}

/// Tells where the voxels are: the 4 by 4 matrix that takes (column, row, slice, 1) to DICOM patient coordinates (LPS, mm).
///
/// @param result    Result to ask.
/// @param sixteen   Receives the matrix, row by row.
/// @param capacity  Elements that `sixteen` has room for, at least 16.
/// @return `SMP_OK` or `SMP_ERR_BUFFER_TOO_SMALL`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_affine(result: *mut smp_result, sixteen: *mut f64, capacity: i64) -> i32 {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        let affine = result.value.volume().geometry().affine_lps;
        // SAFETY: the C caller passes NULL or `capacity` writable elements.
        unsafe { slice::copy_out(affine.as_flattened(), sixteen, capacity, "sixteen") }
    })
}

/// Copies the voxels, preprocessed when that was asked for; column fastest, then row, then slice, then channel.
///
/// @param result    Result to ask.
/// @param out       Receives the voxels.
/// @param capacity  Elements that `out` has room for: columns times rows times slices times channels, at least.
/// @return `SMP_OK` or `SMP_ERR_BUFFER_TOO_SMALL`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_copy_volume(result: *mut smp_result, out: *mut f32, capacity: i64) -> i32 {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        // SAFETY: the C caller passes NULL or `capacity` writable elements.
        unsafe { slice::copy_out(result.value.volume().voxels(), out, capacity, "out") }
    })
}

/// Copies the mask: the label of each voxel, 0 for background, in the order of one channel of the volume.
///
/// @param result    Result to ask.
/// @param out       Receives the labels.
/// @param capacity  Elements that `out` has room for.
/// @return `SMP_OK`, `SMP_ERR_BUFFER_TOO_SMALL`, or `SMP_ERR_ABSENT` when the study was not segmented.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_copy_mask(result: *mut smp_result, out: *mut u8, capacity: i64) -> i32 {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        // SAFETY: the C caller passes NULL or `capacity` writable elements.
        unsafe { slice::copy_out(present(result.value.mask(), NOT_SEGMENTED)?.labels(), out, capacity, "out") }
    })
}

/// Counts the labels of the mask, background aside.
///
/// @param result  Result to ask.
/// @return Number of labels, or `SMP_ERR_ABSENT` when the study was not segmented.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_label_count(result: *mut smp_result) -> i64 {
    enter(|| slice::count(present(RESULTS.get(result, "result")?.value.mask(), NOT_SEGMENTED)?.table().len()))
}

/// Tells the value that a label has in the mask.
///
/// @param result  Result to ask.
/// @param index   0 to `smp_result_label_count` - 1.
/// @return 1 to 255, or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_label_value(result: *mut smp_result, index: i64) -> i64 {
    enter(|| label(&RESULTS.get(result, "result")?.value, index, |value, _, _| i64::from(value)))
}

/// Tells the name of a label, from the model's contract.
///
/// @param result  Result to ask.
/// @param index   0 to `smp_result_label_count` - 1.
/// @return Name, alive until the result is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_label_name(result: *mut smp_result, index: i64) -> *const c_char {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        label(&result.value, index, |_, name, _| result.texts.give(name))
    })
}

/// Tells the volume that a label fills, in ml. A label that was not found fills 0.0.
///
/// @param result  Result to ask.
/// @param index   0 to `smp_result_label_count` - 1.
/// @return Millilitres, or NaN.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_label_volume_ml(result: *mut smp_result, index: i64) -> f64 {
    enter(|| label(&RESULTS.get(result, "result")?.value, index, |_, _, volume_ml| volume_ml))
}

/// Counts the predicted values: all outputs of the model, then those that were added.
///
/// @param result  Result to ask.
/// @return Number of values, or a negative status. 0 without a prediction.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_prediction_count(result: *mut smp_result) -> i64 {
    enter(|| slice::count(RESULTS.get(result, "result")?.value.predictions().len()))
}

/// Tells what a predicted value stands for.
///
/// @param result  Result to ask.
/// @param index   0 to `smp_result_prediction_count` - 1.
/// @return Label, alive until the result is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_prediction_label(result: *mut smp_result, index: i64) -> *const c_char {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        let (_, label, _) = prediction(&result.value, index)?;
        Ok(result.texts.give(&label))
    })
}

/// Tells which model made a predicted value.
///
/// @param result  Result to ask.
/// @param index   0 to `smp_result_prediction_count` - 1.
/// @return Name of the model, alive until the result is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_prediction_model(result: *mut smp_result, index: i64) -> *const c_char {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        let (model, _, _) = prediction(&result.value, index)?;
        Ok(result.texts.give(&model))
    })
}

/// Tells a predicted value.
///
/// @param result  Result to ask.
/// @param index   0 to `smp_result_prediction_count` - 1.
/// @return Value, or NaN.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_prediction_value(result: *mut smp_result, index: i64) -> f64 {
    enter(|| {
        let (_, _, value) = prediction(&RESULTS.get(result, "result")?.value, index)?;
        Ok(value)
    })
}

/// Adds a value that the host language predicted, from the volume and mask of this result. It lands in the result and in the audit log.
///
/// The label `cancer_probability` stands for the probability of the positive class when no model of the pipeline has predicted one.
///
/// @param result  Result to add to.
/// @param model   Name of what predicted it, 1 to 128 bytes.
/// @param label   What it stands for, 1 to 128 bytes.
/// @param value   Value, finite.
/// @return `SMP_OK` or `SMP_ERR_INVALID_ARGUMENT`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_add_prediction(result: *mut smp_result, model: *const c_char, label: *const c_char, value: f64) -> i32 {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let model = unsafe { text::required(model, "model") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let label = unsafe { text::required(label, "label") }?;
        result.value.add_prediction(&model, &label, value)
    })
}

/// Tells how the slices were judged to form one grid: `dims`, `spacing_mm`, `affine_lps` (row-major 4x4, voxel index to LPS mm), `verdict`, `resampled`,
/// and what was remedied; docs/dicom.md has all of it.
///
/// @param result  Result to ask.
/// @return JSON object, alive until the result is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_geometry(result: *mut smp_result) -> *const c_char {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        Ok(result.texts.give(&result.value.geometry_json()?))
    })
}

/// Tells how long a stage took.
///
/// @param result  Result to ask.
/// @param stage   `fetch`, `load`, `anonymize`, `preprocess`, `segment`, `predict` or `write`.
/// @return Seconds; NaN for a stage that did not run.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_stage_seconds(result: *mut smp_result, stage: *const c_char) -> f64 {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let stage = unsafe { text::required(stage, "stage") }?;
        present(result.value.stage_seconds(&stage), "no such stage ran")
    })
}

/// Writes one product to a file; the extension says in which format. Folders are made as needed, and the file appears complete or not at
/// all.
///
/// Blocks while the file is written.
///
/// @param result  Result to write from.
/// @param path    File to write.
/// @param what    `volume` or `mask` (`.npy`, `.nii`, `.nii.gz`), `seg` or `sr` (`.dcm`), `summary` (`.json`) or `preview` (`.png`).
/// @return `SMP_OK`, `SMP_ERR_OUTPUT_UNSUPPORTED`, `SMP_ERR_OUTPUT_UNWRITABLE` or `SMP_ERR_ABSENT`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_save(result: *mut smp_result, path: *const c_char, what: *const c_char) -> i32 {
    enter(|| {
        let result = RESULTS.get(result, "result")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let path = unsafe { text::path(path, "path") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let what = unsafe { text::required(what, "what") }?;
        result.value.save(&path, &what)
    })
}

/// Counts the DICOM objects that hold results, for programs that store them without files: the segmentation, when there is a mask,
/// then the structured report, when there is a mask or a prediction.
///
/// @param result  Result to ask.
/// @return Number of objects, or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_dicom_count(result: *mut smp_result) -> i64 {
    enter(|| slice::count(RESULTS.get(result, "result")?.value.dicom_count()))
}

/// Tells the size of a DICOM object, as a file. The object is made by the first call that asks for it, a report anew after
/// `smp_result_add_prediction`.
///
/// @param result  Result to ask.
/// @param index   0 to `smp_result_dicom_count` - 1.
/// @return Number of bytes, or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_dicom_size(result: *mut smp_result, index: i64) -> i64 {
    enter(|| slice::count(object(&*RESULTS.get(result, "result")?, index)?.len()))
}

/// Copies a DICOM object, as the bytes of a file (PS3.10), explicit VR, little endian.
///
/// @param result    Result to ask.
/// @param index     0 to `smp_result_dicom_count` - 1.
/// @param out       Receives the bytes.
/// @param capacity  Bytes that `out` has room for: `smp_result_dicom_size`, at least.
/// @return `SMP_OK` or `SMP_ERR_BUFFER_TOO_SMALL`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_result_dicom_copy(result: *mut smp_result, index: i64, out: *mut u8, capacity: i64) -> i32 {
    enter(|| {
        let bytes = object(&*RESULTS.get(result, "result")?, index)?;
        // SAFETY: the C caller passes NULL or `capacity` writable elements.
        unsafe { slice::copy_out(&bytes, out, capacity, "out") }
    })
}

/// A DICOM object by the index that C gave.
fn object(result: &Held<Arc<StudyResult>>, index: i64) -> Result<Arc<Vec<u8>>> {
    let index = usize::try_from(index).map_err(|_| Error::new(Kind::OutOfRange, format!("object {index}")))?;
    result.value.dicom(index)
}

fn present<T>(value: Option<T>, why_absent: &'static str) -> Result<T> {
    value.ok_or_else(|| Error::new(Kind::Absent, why_absent))
}

/// Reads a label's value, name and volume.
fn label<T>(result: &StudyResult, index: i64, read: impl FnOnce(u8, &str, f64) -> T) -> Result<T> {
    let label = slice::at(present(result.mask(), NOT_SEGMENTED)?.table(), index, "label")?;
    Ok(read(label.value, &label.name, label.volume_ml))
}

fn prediction(result: &StudyResult, index: i64) -> Result<(String, String, f64)> {
    slice::at(&result.predictions(), index, "prediction").cloned()
}
