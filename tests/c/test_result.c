/* Result: every getter, on a study whose voxels are known by arithmetic. */
#include "site.h"

static smp_result *process(const char *folder, const char *operations)
{
    smp_config *config = site_config(folder);
    smp_pipeline *pipeline = smp_pipeline_new(config);
    smp_request *request = smp_request_new(NULL);
    smp_result *result;
    int slice;
    CHECK_STATUS(smp_request_set(request, "operations", operations), SMP_OK);
    CHECK_STATUS(smp_pipeline_register_model(pipeline, "segment", "models/bright.onnx"), SMP_OK);
    CHECK_STATUS(smp_pipeline_register_model(pipeline, "predict", "models/share.onnx"), SMP_OK);
    CHECK_STATUS(smp_request_set(request, "study_id", "RESEARCH-001"), SMP_OK);
    for (slice = 0; slice < STUDY_SLICES; slice++) {
        struct dicom dicom = study_slice((slice + 2) % STUDY_SLICES);
        CHECK_STATUS(smp_request_add_instance(request, dicom.bytes, (int64_t)dicom.size), SMP_OK);
    }
    result = smp_pipeline_process_study(pipeline, request);
    CHECK(result != NULL);
    smp_request_free(request);
    smp_pipeline_free(pipeline); /* a result outlives what made it */
    smp_config_free(config);
    return result;
}

static void facts(smp_result *result)
{
    const char *when = smp_result_processed_at(result), *json = smp_result_json(result);
    CHECK_TEXT(smp_result_study_id(result), "RESEARCH-001");
    CHECK(smp_result_study_id(result) == smp_result_study_id(result));
    CHECK_TEXT(smp_result_operations(result), "load,anonymize");
    CHECK(when != NULL && strlen(when) >= 20 && when[4] == '-' && when[10] == 'T' && when[strlen(when) - 1] == 'Z');
    CHECK(smp_result_processing_time_seconds(result) > 0.0);
    CHECK(smp_result_stage_seconds(result, "load") >= 0.0);
    CHECK_NAN(smp_result_stage_seconds(result, "segment"), SMP_ERR_ABSENT);
    CHECK_NAN(smp_result_stage_seconds(result, "guess"), SMP_ERR_ABSENT);
    CHECK(smp_result_geometry(result) != NULL && strstr(smp_result_geometry(result), "uniform") != NULL);
    CHECK(json != NULL && strstr(json, "\"RESEARCH-001\"") != NULL && strstr(json, "\"deidentified\": true") != NULL);
    CHECK(json != NULL && strstr(json, "Doe") == NULL && strstr(json, "MRN-0042") == NULL && strstr(json, "19570401") == NULL);
}

static void absences(smp_result *result)
{
    uint8_t mask[STUDY_VOXELS];
    CHECK_NAN(smp_result_cancer_probability(result), SMP_ERR_ABSENT);
    CHECK_NAN(smp_result_confidence_score(result), SMP_ERR_ABSENT);
    CHECK_NULL(smp_result_cancer_prediction(result), SMP_ERR_ABSENT);
    CHECK_COUNT(smp_result_prediction_count(result), 0);
    CHECK_NULL(smp_result_prediction_label(result, 0), SMP_ERR_OUT_OF_RANGE);
    CHECK_NULL(smp_result_prediction_model(result, 0), SMP_ERR_OUT_OF_RANGE);
    CHECK_NAN(smp_result_prediction_value(result, 0), SMP_ERR_OUT_OF_RANGE);
    CHECK_COUNT(smp_result_label_count(result), SMP_ERR_ABSENT);
    CHECK_COUNT(smp_result_label_value(result, 0), SMP_ERR_ABSENT);
    CHECK_NULL(smp_result_label_name(result, 0), SMP_ERR_ABSENT);
    CHECK_NAN(smp_result_label_volume_ml(result, 0), SMP_ERR_ABSENT);
    CHECK_STATUS(smp_result_copy_mask(result, mask, sizeof mask), SMP_ERR_ABSENT);
    CHECK(strlen(smp_last_error_hint()) > 0);
}

static void voxels(smp_result *result)
{
    /* (column, row, slice, 1) to LPS: steps of 0.5, 0.75 and 2.5 mm from the first position. */
    static const double expected[16] = {0.5, 0, 0, -10, 0, 0.75, 0, -20, 0, 0, 2.5, 30, 0, 0, 0, 1};
    int64_t columns = -1, rows = -1, slices = -1;
    double across = -1, down = -1, between = -1, affine[17];
    float volume[STUDY_VOXELS + 1], before = -7;
    int column, row, slice, wrong = 0, i;
    CHECK_STATUS(smp_result_dims(result, &columns, &rows, &slices), SMP_OK);
    CHECK(columns == STUDY_COLUMNS && rows == STUDY_ROWS && slices == STUDY_SLICES);
    CHECK_COUNT(smp_result_channel_count(result), 1);
    CHECK(strstr(smp_result_json(result), "\"channels\"") == NULL);
    CHECK_STATUS(smp_result_spacing(result, &across, &down, &between), SMP_OK);
    CHECK(fabs(across - 0.5) < 1e-9 && fabs(down - 0.75) < 1e-9 && fabs(between - 2.5) < 1e-9);
    affine[16] = -7;
    CHECK_STATUS(smp_result_affine(result, affine, 16), SMP_OK);
    for (i = 0; i < 16; i++) wrong += fabs(affine[i] - expected[i]) > 1e-9;
    CHECK_COUNT(wrong, 0);
    CHECK(affine[16] == -7);
    volume[STUDY_VOXELS] = before;
    CHECK_STATUS(smp_result_copy_volume(result, volume, STUDY_VOXELS), SMP_OK);
    for (slice = 0; slice < STUDY_SLICES; slice++)
        for (row = 0; row < STUDY_ROWS; row++)
            for (column = 0; column < STUDY_COLUMNS; column++)
                wrong += volume[(slice * STUDY_ROWS + row) * STUDY_COLUMNS + column] != (float)study_voxel(column, row, slice);
    CHECK_COUNT(wrong, 0);
    CHECK(volume[STUDY_VOXELS] == before);

    /* All or nothing. */
    volume[0] = before;
    columns = rows = -1;
    affine[0] = -7;
    CHECK_STATUS(smp_result_copy_volume(result, volume, STUDY_VOXELS - 1), SMP_ERR_BUFFER_TOO_SMALL);
    CHECK_STATUS(smp_result_copy_volume(result, volume, 0), SMP_ERR_BUFFER_TOO_SMALL);
    CHECK_STATUS(smp_result_copy_volume(result, volume, -1), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_result_copy_volume(result, NULL, STUDY_VOXELS), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_result_affine(result, affine, 15), SMP_ERR_BUFFER_TOO_SMALL);
    CHECK_STATUS(smp_result_affine(result, NULL, 16), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_result_dims(result, &columns, &rows, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_result_dims(result, NULL, &rows, &slices), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_result_spacing(result, &across, NULL, &between), SMP_ERR_NULL_ARGUMENT);
    CHECK(volume[0] == before && affine[0] == -7 && columns == -1 && rows == -1);
    CHECK_STATUS(smp_result_copy_volume(result, volume, INT64_MAX), SMP_OK); /* more room than needed is fine */
}

/* Two echoes of the study are two channels of one volume, the shorter first. */
static void channels(const char *folder)
{
    smp_config *config = site_config(folder);
    smp_pipeline *pipeline = smp_pipeline_new(config);
    smp_request *request = smp_request_new(NULL);
    static float volume[2 * STUDY_VOXELS];
    smp_result *result;
    const char *json;
    int slice, echo, i, wrong = 0;
    CHECK_STATUS(smp_request_set(request, "operations", "load"), SMP_OK);
    for (slice = 0; slice < STUDY_SLICES; slice++) {
        for (echo = 2; echo > 0; echo--) {
            struct dicom dicom = study_echo(slice, echo);
            CHECK_STATUS(smp_request_add_instance(request, dicom.bytes, (int64_t)dicom.size), SMP_OK);
        }
    }
    result = smp_pipeline_process_study(pipeline, request);
    CHECK_COUNT(smp_result_channel_count(result), 2);
    CHECK_STATUS(smp_result_copy_volume(result, volume, 2 * STUDY_VOXELS - 1), SMP_ERR_BUFFER_TOO_SMALL);
    CHECK_STATUS(smp_result_copy_volume(result, volume, 2 * STUDY_VOXELS), SMP_OK);
    CHECK(volume[0] == (float)study_voxel(0, 0, 0));
    for (i = 0; i < STUDY_VOXELS; i++) wrong += volume[STUDY_VOXELS + i] != volume[i] + 1000;
    CHECK_COUNT(wrong, 0);
    json = smp_result_json(result);
    CHECK(json != NULL && strstr(json, "\"echo_time_ms\": 10.0") != NULL && strstr(json, "\"echo_time_ms\": 25.5") != NULL);
    smp_result_free(result);
    smp_request_free(request);
    smp_pipeline_free(pipeline);
    smp_config_free(config);
}

static void predictions(smp_result *result)
{
    CHECK_STATUS(smp_result_add_prediction(result, "my-matlab-model", "malignancy", 3.5), SMP_OK);
    CHECK_COUNT(smp_result_prediction_count(result), 1);
    CHECK_TEXT(smp_result_prediction_label(result, 0), "malignancy");
    CHECK_TEXT(smp_result_prediction_model(result, 0), "my-matlab-model");
    CHECK(smp_result_prediction_value(result, 0) == 3.5);
    CHECK_NAN(smp_result_prediction_value(result, 1), SMP_ERR_OUT_OF_RANGE);
    CHECK_NAN(smp_result_prediction_value(result, -1), SMP_ERR_OUT_OF_RANGE);
    CHECK_NAN(smp_result_cancer_probability(result), SMP_ERR_ABSENT);
    CHECK_STATUS(smp_result_add_prediction(result, "m", "l", NAN), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_result_add_prediction(result, "m", "cancer_probability", 1.5), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_result_add_prediction(result, "", "l", 1), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_result_add_prediction(result, "m", NULL, 1), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_result_add_prediction(result, NULL, "l", 1), SMP_ERR_NULL_ARGUMENT);
    CHECK_COUNT(smp_result_prediction_count(result), 1);

    /* 0.0 is a value. */
    CHECK_STATUS(smp_result_add_prediction(result, "my-matlab-model", "cancer_probability", 0.0), SMP_OK);
    CHECK(smp_result_cancer_probability(result) == 0.0);
    CHECK_TEXT(smp_result_cancer_prediction(result), "negative");
    CHECK(smp_result_confidence_score(result) == 1.0);
    CHECK(strstr(smp_result_json(result), "my-matlab-model") != NULL);
}

/* With models whose outputs are arithmetic: models/make.py. */
static void mask_and_prediction(const char *folder)
{
    /* Above 1200.5 lie slices 2 and 3 but for the voxel of 1200: 2 * 48 - 1 of 192, each 0.5 * 0.75 * 2.5 mm3. */
    const int bright = 2 * STUDY_COLUMNS * STUDY_ROWS - 1;
    const double share = bright / (double)STUDY_VOXELS;
    uint8_t mask[STUDY_VOXELS + 1];
    smp_result *result;
    int i, wrong = 0;
    if (check_is_quick()) return;
    if (getenv("ORT_DYLIB_PATH") == NULL) {
        printf("SKIPPED: mask and prediction, because ORT_DYLIB_PATH does not name ONNX Runtime\n");
        return;
    }
    result = process(folder, "load,segment,predict");
    if (result == NULL) return;
    CHECK_TEXT(smp_result_operations(result), "load,anonymize,segment,predict");
    CHECK_COUNT(smp_result_label_count(result), 1);
    CHECK_TEXT(smp_result_label_name(result, 0), "bright");
    CHECK_COUNT(smp_result_label_value(result, 0), 3);
    CHECK(fabs(smp_result_label_volume_ml(result, 0) - bright * 0.5 * 0.75 * 2.5 / 1000) < 1e-9);
    CHECK_NULL(smp_result_label_name(result, 1), SMP_ERR_OUT_OF_RANGE);
    CHECK_COUNT(smp_result_label_value(result, -1), SMP_ERR_OUT_OF_RANGE);
    CHECK_NAN(smp_result_label_volume_ml(result, INT64_MAX), SMP_ERR_OUT_OF_RANGE);
    memset(mask, 77, sizeof mask);
    CHECK_STATUS(smp_result_copy_mask(result, mask, STUDY_VOXELS - 1), SMP_ERR_BUFFER_TOO_SMALL);
    CHECK_STATUS(smp_result_copy_mask(result, mask, -1), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_result_copy_mask(result, NULL, STUDY_VOXELS), SMP_ERR_NULL_ARGUMENT);
    CHECK(mask[0] == 77);
    CHECK_STATUS(smp_result_copy_mask(result, mask, STUDY_VOXELS), SMP_OK);
    for (i = 0; i < STUDY_VOXELS; i++) wrong += mask[i] != (i > STUDY_VOXELS / 2 ? 3 : 0);
    CHECK_COUNT(wrong, 0);
    CHECK(mask[STUDY_VOXELS] == 77);

    CHECK(fabs(smp_result_cancer_probability(result) - share) < 1e-6);
    CHECK(fabs(smp_result_confidence_score(result) - fabs(share - 0.5) * 2) < 1e-6);
    CHECK_TEXT(smp_result_cancer_prediction(result), "negative");
    CHECK_COUNT(smp_result_prediction_count(result), 1);
    CHECK_TEXT(smp_result_prediction_label(result, 0), "bright_share");
    CHECK_TEXT(smp_result_prediction_model(result, 0), "share");
    CHECK(fabs(smp_result_prediction_value(result, 0) - share) < 1e-6);
    CHECK(smp_result_stage_seconds(result, "segment") >= 0 && smp_result_stage_seconds(result, "predict") >= 0);
    CHECK_STATUS(smp_result_save(result, check_path(folder, "mask.nii.gz"), "mask"), SMP_OK);
    CHECK_STATUS(smp_result_save(result, check_path(folder, "mask.npy"), "mask"), SMP_OK);
    smp_result_free(result);
}

static void files(smp_result *result, const char *folder)
{
    static const char *const good[][2] = {{"volume", "v/a.npy"}, {"volume", "v/a.nii"}, {"volume", "v/a.nii.gz"}, {"summary", "v/a.json"}, {"preview", "v/a.png"}};
    size_t i;
    for (i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK_STATUS(smp_result_save(result, check_path(folder, good[i][1]), good[i][0]), SMP_OK);
        CHECK(check_exists(check_path(folder, good[i][1])));
    }
    CHECK_STATUS(smp_result_save(result, check_path(folder, "x.xlsx"), "volume"), SMP_ERR_OUTPUT_UNSUPPORTED);
    CHECK_STATUS(smp_result_save(result, check_path(folder, "x.npy"), "everything"), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_result_save(result, check_path(folder, "x.npy"), "mask"), SMP_ERR_ABSENT);
    CHECK_STATUS(smp_result_save(result, check_path(folder, "x.npy"), "seg"), SMP_ERR_OUTPUT_UNSUPPORTED);
    CHECK_STATUS(smp_result_save(result, check_path(folder, "x.dcm"), "seg"), SMP_ERR_ABSENT);
    /* The report of the predictions that were added; there is no mask. */
    CHECK_COUNT(smp_result_dicom_count(result), 1);
    CHECK(smp_result_dicom_size(result, 0) > 132);
    CHECK_COUNT(smp_result_dicom_size(result, 1), SMP_ERR_OUT_OF_RANGE);
    CHECK_STATUS(smp_result_save(result, check_path(folder, "v/a.dcm"), "sr"), SMP_OK);
    CHECK(!check_exists(check_path(folder, "x.xlsx")) && !check_exists(check_path(folder, "x.npy")));
    CHECK_STATUS(smp_result_save(result, check_path(folder, "v/a.npy/below-a-file.npy"), "volume"), SMP_ERR_OUTPUT_UNWRITABLE);
    CHECK_STATUS(smp_result_save(result, NULL, "volume"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_result_save(result, "x.npy", NULL), SMP_ERR_NULL_ARGUMENT);
}

static void dead_handles(smp_result *dead)
{
    smp_config *config = smp_config_new();
    int64_t l = 0;
    double d = 0, affine[16];
    float voxel;
    uint8_t label;
    int i;
    for (i = 0; i < 3 + INVENTED_HANDLES; i++) {
        smp_result *bad = i == 0 ? NULL : i == 1 ? dead : i == 2 ? (smp_result *)config : check_invented(i - 3);
        int32_t expected = i == 0 ? SMP_ERR_NULL_ARGUMENT : SMP_ERR_INVALID_HANDLE;
        CHECK_NULL(smp_result_json(bad), expected);
        CHECK_NULL(smp_result_study_id(bad), expected);
        CHECK_NULL(smp_result_processed_at(bad), expected);
        CHECK_NULL(smp_result_operations(bad), expected);
        CHECK_NULL(smp_result_cancer_prediction(bad), expected);
        CHECK_NAN(smp_result_cancer_probability(bad), expected);
        CHECK_NAN(smp_result_confidence_score(bad), expected);
        CHECK_NAN(smp_result_processing_time_seconds(bad), expected);
        CHECK_STATUS(smp_result_dims(bad, &l, &l, &l), expected);
        CHECK_COUNT(smp_result_channel_count(bad), expected);
        CHECK_STATUS(smp_result_spacing(bad, &d, &d, &d), expected);
        CHECK_STATUS(smp_result_affine(bad, affine, 16), expected);
        CHECK_STATUS(smp_result_copy_volume(bad, &voxel, 1), expected);
        CHECK_STATUS(smp_result_copy_mask(bad, &label, 1), expected);
        CHECK_COUNT(smp_result_label_count(bad), expected);
        CHECK_COUNT(smp_result_label_value(bad, 0), expected);
        CHECK_NULL(smp_result_label_name(bad, 0), expected);
        CHECK_NAN(smp_result_label_volume_ml(bad, 0), expected);
        CHECK_COUNT(smp_result_prediction_count(bad), expected);
        CHECK_NULL(smp_result_prediction_label(bad, 0), expected);
        CHECK_NULL(smp_result_prediction_model(bad, 0), expected);
        CHECK_NAN(smp_result_prediction_value(bad, 0), expected);
        CHECK_STATUS(smp_result_add_prediction(bad, "m", "l", 0), expected);
        CHECK_NULL(smp_result_geometry(bad), expected);
        CHECK_NAN(smp_result_stage_seconds(bad, "load"), expected);
        CHECK_STATUS(smp_result_save(bad, "x.npy", "volume"), expected);
        smp_result_free(bad);
    }
    smp_config_free(config);
}

int main(int argc, char **argv)
{
    smp_result *result;
    if (argc != 3) return 2;
    check_mkdir(check_path(argv[1], "models"));
    mask_and_prediction(check_path(argv[1], "models"));
    check_mkdir(check_path(argv[1], "channels"));
    channels(check_path(argv[1], "channels"));
    result = process(argv[1], "load");
    if (result != NULL) {
        facts(result);
        absences(result);
        voxels(result);
        predictions(result);
        files(result, argv[1]);
        CHECK_NAN(smp_result_stage_seconds(result, NULL), SMP_ERR_NULL_ARGUMENT);
        smp_result_free(result);
        dead_handles(result);
    }
    return check_end(argv[0]);
}
