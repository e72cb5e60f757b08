/* Pipeline: a sealed study goes in, a result comes out, and the record says so. */
#include <pthread.h>

#include "site.h"

static smp_request *load_request(const char *remote_path, const char *study_id)
{
    smp_request *request = smp_request_new(remote_path);
    CHECK(request != NULL);
    CHECK_STATUS(smp_request_set(request, "operations", "load"), SMP_OK);
    CHECK_STATUS(smp_request_set(request, "study_id", study_id), SMP_OK);
    return request;
}

static void from_seal_to_cleanup(const char *folder)
{
    struct site site = site_open(folder);
    smp_pipeline *pipeline;
    smp_request *request, *missing;
    smp_result *result;
    const char *summary, *results = check_path(folder, "results/deep");
    int64_t entries, columns = 0, rows = 0, slices = 0;
    char *text;
    study_write(check_path(folder, "study"));
    CHECK_STATUS(smp_seal_study(site.config, site.hospital, site.hospital_id, site.researcher_id, check_path(folder, "study"), "incoming/001"), SMP_OK);

    pipeline = smp_pipeline_new(site.config);
    CHECK(pipeline != NULL);
    summary = smp_pipeline_audit_summary(pipeline); /* before the first study */
    CHECK(summary != NULL && strstr(summary, "\"integrity_verified\":true") != NULL);
    CHECK_NULL(smp_pipeline_cleanup_report(pipeline), SMP_ERR_ABSENT);
    CHECK_STATUS(smp_pipeline_cleanup(pipeline), SMP_OK);

    request = load_request("incoming/001", "RESEARCH-001");
    CHECK_STATUS(smp_request_set(request, "output_path", results), SMP_OK);
    result = smp_pipeline_process_study(pipeline, request);
    CHECK(result != NULL);
    CHECK_STATUS(smp_result_dims(result, &columns, &rows, &slices), SMP_OK);
    CHECK(columns == STUDY_COLUMNS && rows == STUDY_ROWS && slices == STUDY_SLICES);
    text = check_read(check_path(results, "RESEARCH-001_summary.json"), NULL);
    CHECK(text != NULL && strstr(text, "RESEARCH-001") != NULL && strstr(text, "Doe") == NULL && strstr(text, "MRN-0042") == NULL);
    free(text);
    CHECK(check_exists(check_path(results, "RESEARCH-001_preprocessed.npy")));
    smp_result_free(result);

    /* What cannot be done says why, and leaves nothing. */
    missing = load_request("incoming/nothing-here", "RESEARCH-002");
    CHECK_NULL(smp_pipeline_process_study(pipeline, missing), SMP_ERR_NOT_SEALED);
    CHECK_STATUS(smp_request_set(missing, "operations", "load,segment"), SMP_OK);
    CHECK_NULL(smp_pipeline_process_study(pipeline, missing), SMP_ERR_MODEL_MISSING);
    CHECK_STATUS(smp_pipeline_register_model(pipeline, "guess", "x.onnx"), SMP_ERR_INVALID_ARGUMENT);
    CHECK(strlen(smp_last_error_hint()) > 0);
    smp_request_free(missing);

    entries = smp_pipeline_export_audit(pipeline, check_path(folder, "compliance/audit.json"), NULL, NULL);
    CHECK(entries > 5);
    text = check_read(check_path(folder, "compliance/audit.json"), NULL);
    CHECK(text != NULL && strstr(text, "study.loaded") != NULL && strstr(text, "Doe") == NULL && strstr(text, "incoming/001") == NULL);
    free(text);
    CHECK_COUNT(smp_pipeline_export_audit(pipeline, check_path(folder, "none.json"), "2000-01-01", "2000-01-01"), 0);
    CHECK(smp_pipeline_export_audit(pipeline, check_path(folder, "none.json"), "soon", NULL) < 0);
    CHECK(strstr(smp_pipeline_audit_summary(pipeline), "\"integrity_verified\":true") != NULL);
    CHECK(strstr(smp_pipeline_audit_summary(pipeline), "researcher@university.example") != NULL);
    CHECK_STATUS(smp_pipeline_cleanup(pipeline), SMP_OK);
    CHECK(smp_pipeline_cleanup_report(pipeline) != NULL && smp_pipeline_cleanup_report(pipeline)[0] == '{');

    /* After closing, reports and no studies. */
    CHECK_STATUS(smp_pipeline_close(pipeline), SMP_OK);
    CHECK_STATUS(smp_pipeline_close(pipeline), SMP_OK);
    CHECK_NULL(smp_pipeline_process_study(pipeline, request), SMP_ERR_CANCELLED);
    CHECK(smp_pipeline_audit_summary(pipeline) != NULL);
    CHECK(strstr(summary, "\"integrity_verified\":true") != NULL); /* the first string still lives */
    smp_request_free(request);
    smp_pipeline_free(pipeline);
    site_close(&site);
}

struct shared_work {
    smp_pipeline *pipeline;
    smp_request *request;
    smp_result *result;
};

static void *process(void *argument)
{
    struct shared_work *work = argument;
    work->result = smp_pipeline_process_study(work->pipeline, work->request);
    return NULL;
}

/* A study from memory, several at once, everything else freed first. */
static void from_memory_in_threads(const char *folder)
{
    smp_config *config = site_config(folder);
    smp_pipeline *pipeline = smp_pipeline_new(config);
    smp_request *request = load_request(NULL, "MEMORY-1"), *empty = load_request(NULL, "EMPTY-1");
    struct shared_work work[4];
    pthread_t threads[4];
    float voxels[STUDY_VOXELS];
    int i;
    smp_config_free(config);
    CHECK(pipeline != NULL);
    CHECK_NULL(smp_pipeline_process_study(pipeline, empty), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_request_add_instance(empty, (const uint8_t *)"this is no DICOM file", 21), SMP_OK);
    CHECK_NULL(smp_pipeline_process_study(pipeline, empty), SMP_ERR_NO_DICOM_FILES);
    CHECK(strstr(smp_last_error_message(), "No DICOM files found") != NULL);
    smp_request_free(empty);
    for (i = STUDY_SLICES - 1; i >= 0; i--) {
        struct dicom dicom = study_slice(i);
        CHECK_STATUS(smp_request_add_instance(request, dicom.bytes, (int64_t)dicom.size), SMP_OK);
    }
    for (i = 0; i < 4; i++) {
        work[i].pipeline = pipeline;
        work[i].request = request;
        CHECK(pthread_create(&threads[i], NULL, process, &work[i]) == 0);
    }
    for (i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    smp_pipeline_free(pipeline);
    smp_request_free(request);
    for (i = 0; i < 4; i++) {
        CHECK(work[i].result != NULL);
        CHECK_STATUS(smp_result_copy_volume(work[i].result, voxels, STUDY_VOXELS), SMP_OK);
        CHECK(voxels[0] == (float)study_voxel(0, 0, 0) && voxels[STUDY_VOXELS - 1] == (float)study_voxel(STUDY_COLUMNS - 1, STUDY_ROWS - 1, STUDY_SLICES - 1));
        smp_result_free(work[i].result);
    }
}

static void real_study(const char *folder, const char *data)
{
    struct site site;
    smp_pipeline *pipeline;
    smp_request *request;
    smp_result *result;
    int64_t columns = 0, rows = 0, slices = 0;
    if (strcmp(data, "-") == 0 || check_is_quick()) return;
    site = site_open(folder);
    CHECK_STATUS(smp_seal_study(site.config, site.hospital, site.hospital_id, site.researcher_id, check_path(data, "mr_t1_philips_mprage"), "incoming/real"), SMP_OK);
    CHECK(smp_verify_package(site.config, site.researcher, "incoming/real") != NULL);
    pipeline = smp_pipeline_new(site.config);
    request = load_request("incoming/real/", "REAL-1");
    result = smp_pipeline_process_study(pipeline, request);
    CHECK(result != NULL);
    CHECK_TEXT(smp_result_operations(result), "load,anonymize");
    CHECK_STATUS(smp_result_dims(result, &columns, &rows, &slices), SMP_OK);
    CHECK(columns == 256 && rows == 256 && slices == 170); /* the data set's manifest */
    CHECK(smp_result_json(result) != NULL && strstr(smp_result_json(result), "\"deidentified\": true") != NULL);
    smp_result_free(result);
    smp_request_free(request);
    smp_pipeline_free(pipeline);
    site_close(&site);
}

static void dead_handles_and_nulls(const char *folder)
{
    smp_config *config = site_config(folder);
    smp_pipeline *pipeline = smp_pipeline_new(config), *dead;
    smp_request *request = smp_request_new("x");
    int i;
    CHECK(pipeline != NULL);
    CHECK_NULL(smp_pipeline_new(NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_pipeline_new((smp_config *)pipeline), SMP_ERR_INVALID_HANDLE);
    CHECK_NULL(smp_pipeline_process_study(pipeline, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_pipeline_process_study(pipeline, (smp_request *)config), SMP_ERR_INVALID_HANDLE);
    CHECK_COUNT(smp_pipeline_export_audit(pipeline, NULL, NULL, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_pipeline_register_model(pipeline, NULL, "x"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_pipeline_register_model(pipeline, "segment", NULL), SMP_ERR_NULL_ARGUMENT);
    dead = pipeline;
    smp_pipeline_free(pipeline);
    for (i = 0; i < 3 + INVENTED_HANDLES; i++) {
        smp_pipeline *bad = i == 0 ? NULL : i == 1 ? dead : i == 2 ? (smp_pipeline *)config : check_invented(i - 3);
        int32_t expected = i == 0 ? SMP_ERR_NULL_ARGUMENT : SMP_ERR_INVALID_HANDLE;
        CHECK_STATUS(smp_pipeline_close(bad), expected);
        CHECK_NULL(smp_pipeline_process_study(bad, request), expected);
        CHECK_COUNT(smp_pipeline_export_audit(bad, check_path(folder, "x"), NULL, NULL), expected);
        CHECK_NULL(smp_pipeline_audit_summary(bad), expected);
        CHECK_STATUS(smp_pipeline_cleanup(bad), expected);
        CHECK_NULL(smp_pipeline_cleanup_report(bad), expected);
        CHECK_STATUS(smp_pipeline_register_model(bad, "segment", "x"), expected);
        smp_pipeline_free(bad);
    }
    smp_request_free(request);
    smp_config_free(config);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    int i;
    if (argc != 3) return 2;
    for (i = 0; i < 4; i++) check_mkdir(check_path(argv[1], names[i]));
    dead_handles_and_nulls(check_path(argv[1], "a"));
    from_seal_to_cleanup(check_path(argv[1], "b"));
    from_memory_in_threads(check_path(argv[1], "c"));
    real_study(check_path(argv[1], "d"), argv[2]);
    return check_end(argv[0]);
}
