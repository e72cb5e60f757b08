/* Callbacks: a segmenter, a predictor, progress and the log as functions of this program. */
#include "site.h"

#include "smp_callbacks.h"

/* What a function saw, and what it shall do. */
struct host {
    int calls, releases;
    int32_t answer;
    smp_case *seen;
    double least, most;
    char stages[256];
};

static void release(void *user_data)
{
    ((struct host *)user_data)->releases++;
}

/* Marks the second half of the slices as label 2, the first voxel as label 9. */
static int32_t segment(void *user_data, smp_case *study)
{
    struct host *host = user_data;
    uint8_t mask[STUDY_VOXELS];
    int64_t columns = 0, rows = 0, slices = 0;
    double dx = 0, dy = 0, dz = 0, affine[16];
    const float *voxels = smp_case_voxels(study);
    int at;
    host->calls++;
    host->seen = study;
    CHECK_STATUS(smp_case_dims(study, &columns, &rows, &slices), SMP_OK);
    CHECK(columns == STUDY_COLUMNS && rows == STUDY_ROWS && slices == STUDY_SLICES);
    CHECK_STATUS(smp_case_spacing(study, &dx, &dy, &dz), SMP_OK);
    CHECK(dx == 0.5 && dy == 0.75 && dz == 2.5);
    CHECK_STATUS(smp_case_affine(study, affine, 15), SMP_ERR_BUFFER_TOO_SMALL);
    CHECK_STATUS(smp_case_affine(study, affine, 16), SMP_OK);
    CHECK(affine[0] == 0.5 && affine[5] == 0.75 && affine[10] == 2.5 && affine[3] == -10.0 && affine[11] == 30.0);
    CHECK_COUNT(smp_case_channel_count(study), 1);
    CHECK_TEXT(smp_case_modality(study), "MR");
    CHECK(smp_case_mask(study) == NULL && smp_last_error() == SMP_ERR_ABSENT);
    CHECK_COUNT(smp_case_label_count(study), SMP_ERR_ABSENT);
    CHECK(voxels != NULL && voxels[0] == (float)study_voxel(0, 0, 0));
    CHECK(voxels != NULL && voxels[STUDY_VOXELS - 1] == (float)study_voxel(STUDY_COLUMNS - 1, STUDY_ROWS - 1, STUDY_SLICES - 1));
    CHECK_STATUS(smp_case_is_cancelled(study), 0);
    CHECK_STATUS(smp_case_progress(study, 0.5), SMP_OK);
    CHECK_STATUS(smp_case_progress(study, 1.5), SMP_ERR_INVALID_ARGUMENT);
    for (at = 0; at < STUDY_VOXELS; at++) mask[at] = at >= STUDY_VOXELS / 2 ? 2 : 0;
    mask[0] = 9;
    CHECK_STATUS(smp_case_set_mask(study, mask, STUDY_VOXELS - 1), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_case_set_mask(study, NULL, STUDY_VOXELS), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_case_set_mask(study, mask, STUDY_VOXELS), SMP_OK);
    CHECK_STATUS(smp_case_name_label(study, 0, "background"), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_case_name_label(study, 256, "beyond"), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_case_name_label(study, 2, "upper half"), SMP_OK);
    CHECK_STATUS(smp_case_add_value(study, "cancer_probability", 0.5), SMP_ERR_INVALID_ARGUMENT);
    return host->answer;
}

/* The mean of the marked voxels over 2000 is the probability. */
static int32_t predict(void *user_data, smp_case *study)
{
    struct host *host = user_data;
    const uint8_t *mask = smp_case_mask(study);
    const float *voxels = smp_case_voxels(study);
    double sum = 0.0;
    int at, marked = 0;
    host->calls++;
    host->seen = study;
    CHECK(voxels != NULL);
    if (mask == NULL) {
        CHECK(smp_last_error() == SMP_ERR_ABSENT);
        CHECK_STATUS(smp_case_add_value(study, "age", host->most), SMP_OK);
        return host->answer;
    }
    CHECK_COUNT(smp_case_label_count(study), 2);
    CHECK_TEXT(smp_case_label_name(study, 0), "upper half");
    CHECK_COUNT(smp_case_label_value(study, 0), 2);
    CHECK_TEXT(smp_case_label_name(study, 1), "label 9");
    CHECK_COUNT(smp_case_label_value(study, 1), 9);
    CHECK_NULL(smp_case_label_name(study, 2), SMP_ERR_OUT_OF_RANGE);
    CHECK_STATUS(smp_case_name_label(study, 1, "late"), SMP_ERR_INVALID_ARGUMENT);
    for (at = 0; at < STUDY_VOXELS; at++) {
        if (mask[at] == 2) {
            sum += voxels[at];
            marked++;
        }
    }
    CHECK(marked == STUDY_VOXELS / 2);
    CHECK_STATUS(smp_case_add_value(study, "cancer_probability", sum / marked / 2000.0), SMP_OK);
    CHECK_STATUS(smp_case_add_value(study, "voxels", marked), SMP_OK);
    return host->answer;
}

static int32_t progress(void *user_data, const char *stage, double fraction)
{
    struct host *host = user_data;
    host->calls++;
    if (fraction < host->least) host->least = fraction;
    if (fraction > host->most) host->most = fraction;
    if (strstr(host->stages, stage) == NULL && strlen(host->stages) + strlen(stage) + 2 < sizeof host->stages) {
        strcat(host->stages, stage);
        strcat(host->stages, " ");
    }
    return host->answer;
}

static smp_result *process(smp_pipeline *pipeline, const char *operations)
{
    smp_request *request = smp_request_new(NULL);
    smp_result *result;
    int slice;
    CHECK_STATUS(smp_request_set(request, "operations", operations), SMP_OK);
    for (slice = 0; slice < STUDY_SLICES; slice++) {
        struct dicom dicom = study_slice(slice);
        CHECK_STATUS(smp_request_add_instance(request, dicom.bytes, (int64_t)dicom.size), SMP_OK);
    }
    result = smp_pipeline_process_study(pipeline, request);
    smp_request_free(request);
    return result;
}

static void functions_in_place_of_models(smp_pipeline *pipeline)
{
    struct host segmenter = {0}, predictor = {0};
    double columns, rows, slices, mean = 0.0;
    uint8_t mask[STUDY_VOXELS], *object;
    int64_t size;
    const char *json;
    smp_result *result;
    int at;
    CHECK_STATUS(smp_pipeline_set_segmenter(pipeline, "halves", "1.0", &segmenter, segment, release), SMP_OK);
    CHECK_STATUS(smp_pipeline_set_predictor(pipeline, "mean", "2.1", &predictor, predict, release), SMP_OK);
    result = process(pipeline, "load,segment,predict");
    CHECK(result != NULL && segmenter.calls == 1 && predictor.calls == 1);
    for (at = STUDY_VOXELS / 2; at < STUDY_VOXELS; at++)
        mean += study_voxel(at % STUDY_COLUMNS, at / STUDY_COLUMNS % STUDY_ROWS, at / STUDY_COLUMNS / STUDY_ROWS);
    mean /= STUDY_VOXELS / 2;
    CHECK(fabs(smp_result_cancer_probability(result) - mean / 2000.0) < 1e-12);
    CHECK_COUNT(smp_result_prediction_count(result), 2);
    CHECK_TEXT(smp_result_prediction_model(result, 1), "mean");
    CHECK_TEXT(smp_result_prediction_label(result, 1), "voxels");
    CHECK_COUNT(smp_result_label_count(result), 2);
    CHECK_STATUS(smp_result_copy_mask(result, mask, sizeof mask), SMP_OK);
    CHECK(mask[0] == 9 && mask[1] == 0 && mask[STUDY_VOXELS - 1] == 2);
    /* The mask as a DICOM object, in memory. */
    CHECK_COUNT(smp_result_dicom_count(result), 2);
    CHECK(smp_result_dicom_size(result, 1) > 132);
    CHECK_COUNT(smp_result_dicom_size(result, 2), SMP_ERR_OUT_OF_RANGE);
    CHECK_COUNT(smp_result_dicom_size(result, -1), SMP_ERR_OUT_OF_RANGE);
    size = smp_result_dicom_size(result, 0);
    CHECK(size > 132);
    object = malloc(size > 0 ? (size_t)size : 1);
    CHECK_STATUS(smp_result_dicom_copy(result, 0, object, size - 1), SMP_ERR_BUFFER_TOO_SMALL);
    CHECK_STATUS(smp_result_dicom_copy(result, 0, NULL, size), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_result_dicom_copy(result, 0, object, size), SMP_OK);
    CHECK(memcmp(object + 128, "DICM", 4) == 0);
    free(object);
    CHECK_STATUS(smp_result_spacing(result, &columns, &rows, &slices), SMP_OK);
    CHECK(fabs(smp_result_label_volume_ml(result, 0) - STUDY_VOXELS / 2 * columns * rows * slices / 1000.0) < 1e-12);
    json = smp_result_json(result);
    CHECK(json != NULL && strstr(json, "\"halves\"") != NULL && strstr(json, "\"2.1\"") != NULL && strstr(json, "\"host program\"") != NULL);
    smp_result_free(result);
    /* A case is dead when its function has returned. */
    CHECK_COUNT(smp_case_channel_count(segmenter.seen), SMP_ERR_INVALID_HANDLE);
    CHECK(smp_case_voxels(predictor.seen) == NULL && smp_last_error() == SMP_ERR_INVALID_HANDLE);
    CHECK(segmenter.releases == 0 && predictor.releases == 0);

    /* A function that fails, one that cancels, and one whose value no model may answer. */
    segmenter.answer = 77;
    CHECK(process(pipeline, "load,segment") == NULL && smp_last_error() == SMP_ERR_RUNTIME_FAILED);
    CHECK(strstr(smp_last_error_message(), "77") != NULL);
    segmenter.answer = SMP_ERR_CANCELLED;
    CHECK(process(pipeline, "load,segment") == NULL && smp_last_error() == SMP_ERR_CANCELLED);
    predictor.most = NAN;
    CHECK(process(pipeline, "load,predict") == NULL && smp_last_error() == SMP_ERR_MODEL_SHAPE);
    predictor.most = 57.0;
    result = process(pipeline, "load,predict");
    CHECK_NAN(smp_result_cancer_probability(result), SMP_ERR_ABSENT);
    CHECK(smp_result_prediction_value(result, 0) == 57.0);
    smp_result_free(result);

    /* Data goes back when a function is replaced, by a file or by nothing; not when setting one fails. */
    CHECK_STATUS(smp_pipeline_set_segmenter(pipeline, "", "1.0", &segmenter, segment, release), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_pipeline_set_segmenter(pipeline, NULL, "1.0", &segmenter, segment, release), SMP_ERR_NULL_ARGUMENT);
    CHECK(segmenter.releases == 0);
    CHECK_STATUS(smp_pipeline_register_model(pipeline, "segment", "models/bright.onnx"), SMP_OK);
    CHECK(segmenter.releases == 1);
    CHECK_STATUS(smp_pipeline_set_predictor(pipeline, NULL, NULL, NULL, NULL, NULL), SMP_OK);
    CHECK(predictor.releases == 1);
    CHECK(process(pipeline, "load,predict") == NULL && smp_last_error() == SMP_ERR_MODEL_MISSING);
}

static void progress_is_heard_and_stops(smp_pipeline *pipeline)
{
    struct host host = {0}, stop = {0};
    smp_result *result;
    host.least = 1.0;
    CHECK_STATUS(smp_pipeline_set_progress(pipeline, &host, progress, release), SMP_OK);
    result = process(pipeline, "load,anonymize,preprocess");
    CHECK(result != NULL && host.calls >= 8 && host.least == 0.0 && host.most == 1.0);
    CHECK_TEXT(host.stages, "fetch load anonymize preprocess ");
    smp_result_free(result);
    stop.answer = 1;
    CHECK_STATUS(smp_pipeline_set_progress(pipeline, &stop, progress, release), SMP_OK);
    CHECK(host.releases == 1);
    CHECK(process(pipeline, "load") == NULL && smp_last_error() == SMP_ERR_CANCELLED);
    CHECK_STATUS(smp_pipeline_set_progress(pipeline, NULL, NULL, NULL), SMP_OK);
    CHECK(stop.releases == 1 && stop.calls >= 1);
}

static void hear(void *user_data, int32_t level, const char *line)
{
    struct host *host = user_data;
    host->calls++;
    CHECK(level == SMP_LOG_ERROR || level == SMP_LOG_WARN);
    CHECK(strchr(line, '\n') == NULL);
    if (strstr(line, "SMP_ERR_NULL_ARGUMENT") != NULL) host->answer = 1;
}

static void the_log_is_heard(void)
{
    struct host host = {0};
    CHECK_STATUS(smp_log_to_callback(SMP_LOG_WARN, &host, NULL, release), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_log_to_callback(6, &host, hear, release), SMP_ERR_INVALID_ARGUMENT);
    CHECK(host.releases == 0);
    CHECK_STATUS(smp_log_to_callback(SMP_LOG_WARN, &host, hear, release), SMP_OK);
    CHECK(smp_pipeline_new(NULL) == NULL);
    CHECK(host.calls == 1 && host.answer == 1);
    CHECK_STATUS(smp_log_to_callback(SMP_LOG_OFF, NULL, NULL, NULL), SMP_OK);
    CHECK(host.releases == 1);
    CHECK(smp_pipeline_new(NULL) == NULL);
    CHECK(host.calls == 1);
}

int main(int argc, char **argv)
{
    smp_config *config;
    smp_pipeline *pipeline;
    struct host last = {0};
    int which;
    if (argc < 2) return 2;
    config = site_config(argv[1]);
    pipeline = smp_pipeline_new(config);
    CHECK(pipeline != NULL);
    for (which = 0; which < INVENTED_HANDLES; which++) {
        CHECK_STATUS(smp_pipeline_set_segmenter(check_invented(which), "a", "1", NULL, segment, NULL), SMP_ERR_INVALID_HANDLE);
        CHECK_COUNT(smp_case_channel_count(check_invented(which)), SMP_ERR_INVALID_HANDLE);
        CHECK_STATUS(smp_case_set_mask(check_invented(which), NULL, 0), SMP_ERR_INVALID_HANDLE);
    }
    functions_in_place_of_models(pipeline);
    progress_is_heard_and_stops(pipeline);
    the_log_is_heard();
    CHECK_STATUS(smp_pipeline_set_predictor(pipeline, "last", "1", &last, predict, release), SMP_OK);
    smp_pipeline_free(pipeline);
    CHECK(last.releases == 1);
    smp_config_free(config);
    return check_end(argv[0]);
}
