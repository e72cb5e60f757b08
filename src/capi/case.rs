//! Case: the study in hand while a segmenter or predictor of the host program runs. Only such a function is given one, and the handle ends
//! when the function returns. Addresses of voxels that it gave out are good until then.

use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};

use super::guard::enter;
use super::handle::Noun;
use super::slice;
use super::text::{self, Held};
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::pipeline::{OwnMask, Segmentation, Volume};

/// A study for a function of the host program.
///
/// Lives from the call of a `smp_case_fn` until that call returns. Threads may share it.
pub struct smp_case {
    _opaque: [u8; 0],
}

/// What a function of the host sees and answers.
pub(super) struct Case {
    volume: Volume,
    mask: Option<Segmentation>,
    control: Control,
    stage: &'static str,
    answer: Mutex<Answer>,
}

/// What it has answered until now.
#[derive(Default)]
pub(super) struct Answer {
    /// A mask with its names, when one was set.
    pub(super) mask: Option<Vec<u8>>,
    pub(super) names: Vec<(u8, String)>,
    pub(super) values: Vec<(String, f64)>,
}

/// Most values that one case takes; each may be as long as a text.
const MAX_VALUES: usize = 65_536;

pub(super) static CASES: Noun<smp_case, Held<Case>> = Noun::new("case");

impl Case {
    /// A study for a segmenter (`stage` is `segment`) or a predictor (`predict`).
    pub(super) fn new(volume: &Volume, mask: Option<&Segmentation>, control: &Control, stage: &'static str) -> Case {
        Case { volume: volume.clone(), mask: mask.cloned(), control: control.clone(), stage, answer: Mutex::default() }
    }

    /// Takes what was answered.
    pub(super) fn answer(&self) -> Answer {
        std::mem::take(&mut *self.answer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn mask(&self) -> Result<&Segmentation> {
        self.mask.as_ref().ok_or_else(|| Error::new(Kind::Absent, "the study was not segmented"))
    }

    fn add(&self, stage: &'static str, add: impl FnOnce(&mut Answer) -> Result<()>) -> Result<()> {
        if self.stage != stage {
            return Err(Error::new(Kind::InvalidArgument, format!("this belongs to a function that does {stage}")));
        }
        add(&mut self.answer.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Answer {
    /// The mask, or what to say when the function set none.
    pub(super) fn into_mask(self) -> Result<OwnMask> {
        let labels = self.mask.ok_or_else(|| Error::new(Kind::ModelShape, "the segmenter set no mask"))?;
        Ok(OwnMask { labels, names: self.names })
    }
}

/// Tells the size of the volume, and of the mask. The number of voxels is the product, once for each channel of the volume.
///
/// @param study    Case to ask.
/// @param columns  Receives the number of columns.
/// @param rows     Receives the number of rows.
/// @param slices   Receives the number of slices.
/// @return `SMP_OK` or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_dims(study: *mut smp_case, columns: *mut i64, rows: *mut i64, slices: *mut i64) -> i32 {
    enter(|| {
        let case = CASES.get(study, "study")?;
        let [c, r, s] = case.value.volume.geometry().dims;
        let dims = [slice::count(c)?, slice::count(r)?, slice::count(s)?];
        // SAFETY: the C caller passes NULL or addresses of one writable value each.
        unsafe { slice::write_all(dims, [columns, rows, slices], ["columns", "rows", "slices"]) }
    })
}

/// Tells the distances between the centres of neighbouring voxels, in mm.
///
/// @param study    Case to ask.
/// @param columns  Receives the distance from column to column.
/// @param rows     Receives the distance from row to row.
/// @param slices   Receives the distance from slice to slice.
/// @return `SMP_OK` or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_spacing(study: *mut smp_case, columns: *mut f64, rows: *mut f64, slices: *mut f64) -> i32 {
    enter(|| {
        let case = CASES.get(study, "study")?;
        let spacing_mm = case.value.volume.geometry().spacing_mm;
        // SAFETY: the C caller passes NULL or addresses of one writable value each.
        unsafe { slice::write_all(spacing_mm, [columns, rows, slices], ["columns", "rows", "slices"]) }
    })
}

/// Tells where the voxels are: the 4 by 4 matrix that takes (column, row, slice, 1) to DICOM patient coordinates (LPS, mm).
///
/// @param study     Case to ask.
/// @param sixteen   Receives the matrix, row by row.
/// @param capacity  Elements that `sixteen` has room for, at least 16.
/// @return `SMP_OK` or `SMP_ERR_BUFFER_TOO_SMALL`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_affine(study: *mut smp_case, sixteen: *mut f64, capacity: i64) -> i32 {
    enter(|| {
        let case = CASES.get(study, "study")?;
        let affine = case.value.volume.geometry().affine_lps;
        // SAFETY: the C caller passes NULL or `capacity` writable elements.
        unsafe { slice::copy_out(affine.as_flattened(), sixteen, capacity, "sixteen") }
    })
}

/// Counts the channels of the volume; 1 for a plain one.
///
/// @param study  Case to ask.
/// @return Number of channels, or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_channel_count(study: *mut smp_case) -> i64 {
    enter(|| slice::count(CASES.get(study, "study")?.value.volume.channels().len()))
}

/// Tells the modality of the series.
///
/// @param study  Case to ask.
/// @return `MR`, `CT` and so on, alive until the function returns; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_modality(study: *mut smp_case) -> *const c_char {
    enter(|| {
        let case = CASES.get(study, "study")?;
        Ok(case.texts.give(case.value.volume.modality()))
    })
}

/// Gives the voxels, preprocessed when that was asked for; column fastest, then row, then slice, then channel. They are not copied.
///
/// @param study  Case to ask.
/// @return The voxels, to be read until the function returns; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_voxels(study: *mut smp_case) -> *const f32 {
    enter(|| Ok(CASES.get(study, "study")?.value.volume.voxels().as_ptr()))
}

/// Gives the mask, for a predictor: a label for each voxel, 0 for background, column fastest. It is not copied.
///
/// @param study  Case to ask.
/// @return The labels, to be read until the function returns; NULL with `SMP_ERR_ABSENT` when the study was not segmented.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_mask(study: *mut smp_case) -> *const u8 {
    enter(|| Ok(CASES.get(study, "study")?.value.mask()?.labels().as_ptr()))
}

/// Counts the labels of the mask.
///
/// @param study  Case to ask.
/// @return Number of labels, or a negative status: `SMP_ERR_ABSENT` when the study was not segmented.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_label_count(study: *mut smp_case) -> i64 {
    enter(|| slice::count(CASES.get(study, "study")?.value.mask()?.table().len()))
}

/// Tells the name of a label.
///
/// @param study  Case to ask.
/// @param index  0 to `smp_case_label_count` - 1.
/// @return Name, alive until the function returns; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_label_name(study: *mut smp_case, index: i64) -> *const c_char {
    enter(|| {
        let case = CASES.get(study, "study")?;
        Ok(case.texts.give(&slice::at(case.value.mask()?.table(), index, "label")?.name))
    })
}

/// Tells the value that a label has in the mask.
///
/// @param study  Case to ask.
/// @param index  0 to `smp_case_label_count` - 1.
/// @return 1 to 255, or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_label_value(study: *mut smp_case, index: i64) -> i64 {
    enter(|| {
        let case = CASES.get(study, "study")?;
        Ok(i64::from(slice::at(case.value.mask()?.table(), index, "label")?.value))
    })
}

/// Tells whether the study is to stop. A function that works for more than a moment asks now and then, and returns.
///
/// @param study  Case to ask.
/// @return 1 or 0, or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_is_cancelled(study: *mut smp_case) -> i32 {
    enter(|| Ok(CASES.get(study, "study")?.value.control.is_cancelled()))
}

/// Tells how much of the work is done.
///
/// @param study     Case that is worked on.
/// @param fraction  0 to 1.
/// @return `SMP_OK` or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_progress(study: *mut smp_case, fraction: f64) -> i32 {
    enter(|| {
        let case = CASES.get(study, "study")?;
        if !(0.0..=1.0).contains(&fraction) {
            return Err(Error::new(Kind::InvalidArgument, "a fraction is 0 to 1"));
        }
        case.value.control.progress(case.value.stage, fraction);
        Ok(())
    })
}

/// Answers a segmenter's mask, which is copied. A second one takes the place of the first.
///
/// @param study   Case that is segmented.
/// @param labels  A label for each voxel, 0 for background; column fastest, then row, then slice.
/// @param count   Number of labels: columns times rows times slices.
/// @return `SMP_OK`; `SMP_ERR_INVALID_ARGUMENT` for another number, or in a predictor.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_set_mask(study: *mut smp_case, labels: *const u8, count: i64) -> i32 {
    enter(|| {
        let case = CASES.get(study, "study")?;
        let wanted = case.value.volume.channel(0).len();
        if u64::try_from(count).ok() != u64::try_from(wanted).ok() {
            return Err(Error::new(Kind::InvalidArgument, format!("{count} labels for {wanted} voxels")));
        }
        // SAFETY: the C caller passes NULL or `count` readable bytes.
        let labels = unsafe { slice::bytes(labels, count, "labels") }?;
        case.value.add("segment", |answer| {
            let mut mask = Vec::new();
            mask.try_reserve_exact(labels.len()).map_err(|_| Error::new(Kind::OutOfMemory, "a mask"))?;
            mask.extend_from_slice(labels);
            answer.mask = Some(mask);
            Ok(())
        })
    })
}

/// Names a label of a segmenter's mask. One without a name is called by its number, `label 3`.
///
/// @param study  Case that is segmented.
/// @param value  1 to 255.
/// @param name   1 to 128 bytes, a name of its own.
/// @return `SMP_OK`; `SMP_ERR_INVALID_ARGUMENT` for another value, or in a predictor.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_name_label(study: *mut smp_case, value: i64, name: *const c_char) -> i32 {
    enter(|| {
        let case = CASES.get(study, "study")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let name = unsafe { text::required(name, "name") }?;
        let value = u8::try_from(value).ok().filter(|value| *value > 0);
        let value = value.ok_or_else(|| Error::new(Kind::InvalidArgument, "a label is 1 to 255"))?;
        case.value.add("segment", |answer| {
            answer.names.retain(|(other, _)| *other != value);
            answer.names.push((value, name.as_str().to_owned()));
            Ok(())
        })
    })
}

/// Answers a predictor's value. `cancer_probability` is the label of the probability of the positive class.
///
/// @param study  Case that is predicted.
/// @param label  What the value stands for, 1 to 128 bytes.
/// @param value  A finite number; 0 to 1 for `cancer_probability`.
/// @return `SMP_OK`; `SMP_ERR_INVALID_ARGUMENT` in a segmenter. A value that does not fit fails the study when the function has returned.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_case_add_value(study: *mut smp_case, label: *const c_char, value: f64) -> i32 {
    enter(|| {
        let case = CASES.get(study, "study")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let label = unsafe { text::required(label, "label") }?;
        case.value.add("predict", |answer| {
            if answer.values.len() >= MAX_VALUES {
                return Err(Error::new(Kind::InvalidArgument, format!("more than {MAX_VALUES} values")));
            }
            answer.values.push((label.as_str().to_owned(), value));
            Ok(())
        })
    })
}
