/*
 * smp_callbacks: functions of a C or C++ program that take part in the work. Everything else, and the conventions, are in smp.h,
 * which MATLAB can load; this header it cannot.
 */

#ifndef SMP_CALLBACKS_H
#define SMP_CALLBACKS_H

#include "smp.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Types: all are opaque, and are handles.
 */

/**
 * A study for a function of the host program.
 *
 * Lives from the call of a `smp_case_fn` until that call returns. Threads may share it.
 */
typedef struct smp_case smp_case;

/*
 * Case: the study in hand while a segmenter or predictor of the host program runs. Only such a function is given one, and the handle ends
 * when the function returns. Addresses of voxels that it gave out are good until then.
 */

/**
 * Tells the size of the volume, and of the mask. The number of voxels is the product, once for each channel of the volume.
 *
 * @param study    Case to ask.
 * @param columns  Receives the number of columns.
 * @param rows     Receives the number of rows.
 * @param slices   Receives the number of slices.
 * @return `SMP_OK` or a negative status.
 * @since 0.1
 */
int32_t smp_case_dims(smp_case *study, int64_t *columns, int64_t *rows, int64_t *slices);

/**
 * Tells the distances between the centres of neighbouring voxels, in mm.
 *
 * @param study    Case to ask.
 * @param columns  Receives the distance from column to column.
 * @param rows     Receives the distance from row to row.
 * @param slices   Receives the distance from slice to slice.
 * @return `SMP_OK` or a negative status.
 * @since 0.1
 */
int32_t smp_case_spacing(smp_case *study, double *columns, double *rows, double *slices);

/**
 * Tells where the voxels are: the 4 by 4 matrix that takes (column, row, slice, 1) to DICOM patient coordinates (LPS, mm).
 *
 * @param study     Case to ask.
 * @param sixteen   Receives the matrix, row by row.
 * @param capacity  Elements that `sixteen` has room for, at least 16.
 * @return `SMP_OK` or `SMP_ERR_BUFFER_TOO_SMALL`.
 * @since 0.1
 */
int32_t smp_case_affine(smp_case *study, double *sixteen, int64_t capacity);

/**
 * Counts the channels of the volume; 1 for a plain one.
 *
 * @param study  Case to ask.
 * @return Number of channels, or a negative status.
 * @since 0.1
 */
int64_t smp_case_channel_count(smp_case *study);

/**
 * Tells the modality of the series.
 *
 * @param study  Case to ask.
 * @return `MR`, `CT` and so on, alive until the function returns; or NULL.
 * @since 0.1
 */
const char *smp_case_modality(smp_case *study);

/**
 * Gives the voxels, preprocessed when that was asked for; column fastest, then row, then slice, then channel. They are not copied.
 *
 * @param study  Case to ask.
 * @return The voxels, to be read until the function returns; or NULL.
 * @since 0.1
 */
const float *smp_case_voxels(smp_case *study);

/**
 * Gives the mask, for a predictor: a label for each voxel, 0 for background, column fastest. It is not copied.
 *
 * @param study  Case to ask.
 * @return The labels, to be read until the function returns; NULL with `SMP_ERR_ABSENT` when the study was not segmented.
 * @since 0.1
 */
const uint8_t *smp_case_mask(smp_case *study);

/**
 * Counts the labels of the mask.
 *
 * @param study  Case to ask.
 * @return Number of labels, or a negative status: `SMP_ERR_ABSENT` when the study was not segmented.
 * @since 0.1
 */
int64_t smp_case_label_count(smp_case *study);

/**
 * Tells the name of a label.
 *
 * @param study  Case to ask.
 * @param index  0 to `smp_case_label_count` - 1.
 * @return Name, alive until the function returns; or NULL.
 * @since 0.1
 */
const char *smp_case_label_name(smp_case *study, int64_t index);

/**
 * Tells the value that a label has in the mask.
 *
 * @param study  Case to ask.
 * @param index  0 to `smp_case_label_count` - 1.
 * @return 1 to 255, or a negative status.
 * @since 0.1
 */
int64_t smp_case_label_value(smp_case *study, int64_t index);

/**
 * Tells whether the study is to stop. A function that works for more than a moment asks now and then, and returns.
 *
 * @param study  Case to ask.
 * @return 1 or 0, or a negative status.
 * @since 0.1
 */
int32_t smp_case_is_cancelled(smp_case *study);

/**
 * Tells how much of the work is done.
 *
 * @param study     Case that is worked on.
 * @param fraction  0 to 1.
 * @return `SMP_OK` or a negative status.
 * @since 0.1
 */
int32_t smp_case_progress(smp_case *study, double fraction);

/**
 * Answers a segmenter's mask, which is copied. A second one takes the place of the first.
 *
 * @param study   Case that is segmented.
 * @param labels  A label for each voxel, 0 for background; column fastest, then row, then slice.
 * @param count   Number of labels: columns times rows times slices.
 * @return `SMP_OK`; `SMP_ERR_INVALID_ARGUMENT` for another number, or in a predictor.
 * @since 0.1
 */
int32_t smp_case_set_mask(smp_case *study, const uint8_t *labels, int64_t count);

/**
 * Names a label of a segmenter's mask. One without a name is called by its number, `label 3`.
 *
 * @param study  Case that is segmented.
 * @param value  1 to 255.
 * @param name   1 to 128 bytes, a name of its own.
 * @return `SMP_OK`; `SMP_ERR_INVALID_ARGUMENT` for another value, or in a predictor.
 * @since 0.1
 */
int32_t smp_case_name_label(smp_case *study, int64_t value, const char *name);

/**
 * Answers a predictor's value. `cancer_probability` is the label of the probability of the positive class.
 *
 * @param study  Case that is predicted.
 * @param label  What the value stands for, 1 to 128 bytes.
 * @param value  A finite number; 0 to 1 for `cancer_probability`.
 * @return `SMP_OK`; `SMP_ERR_INVALID_ARGUMENT` in a segmenter. A value that does not fit fails the study when the function has returned.
 * @since 0.1
 */
int32_t smp_case_add_value(smp_case *study, const char *label, double value);

/*
 * Callbacks: functions of the host program that segment, predict, and hear of progress and of the log.
 *
 * `user_data` is handed to each call as it is. Functions are called from threads of the library, for several studies at once when several
 * are processed at once; those of one study never overlap with another of the same study. They may call the library, but must not wait for
 * the study that they belong to, and no exception may leave them. `release` is called once, when `user_data` is needed no more: after the
 * function was replaced or its pipeline has ended, and the studies that use it have. When setting a function fails, `release` is not
 * called.
 */

/**
 * Segments or predicts a study: reads `study`, answers by `smp_case_set_mask` or `smp_case_add_value`, and returns `SMP_OK`.
 * `SMP_ERR_CANCELLED` ends the study as cancelled, any other value as failed (`SMP_ERR_RUNTIME_FAILED`, with the number in the message).
 */
typedef int32_t (*smp_case_fn)(void *user_data, smp_case *study);

/**
 * Takes `user_data` back.
 */
typedef void (*smp_release_fn)(void *user_data);

/**
 * Hears how much of a stage is done, 0 to 1, and returns `SMP_OK`; anything else cancels the study.
 */
typedef int32_t (*smp_progress_fn)(void *user_data, const char *stage, double fraction);

/**
 * Hears a line of the log, without its end. It must not call the library.
 */
typedef void (*smp_log_fn)(void *user_data, int32_t level, const char *line);

/**
 * Segments with a function of the host program, from the next study on, in place of a model file.
 *
 * @param pipeline   Pipeline to change.
 * @param name       What results and the audit log call it, 1 to 128 bytes.
 * @param version    Its version, 1 to 128 bytes.
 * @param user_data  Handed to each call; may be NULL.
 * @param segment    The function; NULL returns to the model file, and then name and version may be NULL.
 * @param release    Takes `user_data` back; may be NULL.
 * @return `SMP_OK` or a negative status.
 * @since 0.1
 */
int32_t smp_pipeline_set_segmenter(smp_pipeline *pipeline,
                                   const char *name,
                                   const char *version,
                                   void *user_data,
                                   smp_case_fn segment,
                                   smp_release_fn release);

/**
 * Predicts with a function of the host program, from the next study on, in place of a model file. It is given the mask too, when there is
 * one.
 *
 * @param pipeline   Pipeline to change.
 * @param name       What results and the audit log call it, 1 to 128 bytes.
 * @param version    Its version, 1 to 128 bytes.
 * @param user_data  Handed to each call; may be NULL.
 * @param predict    The function; NULL returns to the model file, and then name and version may be NULL.
 * @param release    Takes `user_data` back; may be NULL.
 * @return `SMP_OK` or a negative status.
 * @since 0.1
 */
int32_t smp_pipeline_set_predictor(smp_pipeline *pipeline,
                                   const char *name,
                                   const char *version,
                                   void *user_data,
                                   smp_case_fn predict,
                                   smp_release_fn release);

/**
 * Tells the progress of each study that begins from now on. Stages are those of `smp_result_stage_seconds`.
 *
 * @param pipeline   Pipeline to watch.
 * @param user_data  Handed to each call; may be NULL.
 * @param progress   The function; NULL ends the watching.
 * @param release    Takes `user_data` back; may be NULL.
 * @return `SMP_OK` or `SMP_ERR_INVALID_HANDLE`.
 * @since 0.1
 */
int32_t smp_pipeline_set_progress(smp_pipeline *pipeline, void *user_data, smp_progress_fn progress, smp_release_fn release);

/**
 * Gives each line of the log of the whole process to a function, in place of a file; see `smp_log_to_file` for what is in it.
 *
 * @param level      `SMP_LOG_ERROR` to `SMP_LOG_TRACE`; `SMP_LOG_OFF` ends the log.
 * @param user_data  Handed to each call; may be NULL.
 * @param log        The function, called from any thread, several at once. NULL with `SMP_LOG_OFF`.
 * @param release    Takes `user_data` back; may be NULL.
 * @return `SMP_OK`; `SMP_ERR_UNSUPPORTED` in a Rust program with a log of its own; `SMP_ERR_INVALID_ARGUMENT`.
 * @since 0.1
 */
int32_t smp_log_to_callback(int32_t level, void *user_data, smp_log_fn log, smp_release_fn release);

#ifdef __cplusplus
}
#endif

#endif
