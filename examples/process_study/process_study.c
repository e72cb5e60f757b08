/* The main job from C: a hospital seals a study for a researcher, the researcher processes it.
 *
 *   process_study STUDY_FOLDER WORK_FOLDER SEGMENT_MODEL PREDICT_MODEL [KEY=VALUE ...]
 *
 * Both sides live in one program here, and the object store between them is a local folder. With cloud.provider=s3 and cloud.bucket=NAME
 * behind the other arguments, the same program uses a bucket. Any configuration key can be given that way.
 *
 *   cc -std=c99 -Iinclude examples/process_study/process_study.c -Lbuild/lib -lsmp -Wl,-rpath,build/lib -o process_study */
#define _POSIX_C_SOURCE 200809L /* mkdir */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "smp.h"

/* Says what failed and what can be done about it. */
static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, smp_last_error_message());
    if (smp_last_error_hint()[0] != 0) fprintf(stderr, "  %s\n", smp_last_error_hint());
    if (smp_last_error_retryable()) fprintf(stderr, "  trying again later may help\n");
    return 0;
}

/* WORK_FOLDER/NAME, to be freed. */
static char *below(const char *folder, const char *name)
{
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path == NULL) {
        fprintf(stderr, "not enough memory\n");
        exit(1);
    }
    snprintf(path, size, "%s/%s", folder, name);
    return path;
}

static int set_path(smp_config *config, const char *key, const char *folder, const char *name)
{
    char *path = below(folder, name);
    int ok = smp_config_set(config, key, path) == SMP_OK || failed(key);
    free(path);
    return ok;
}

/* The folder that stands in for the bucket. */
static int make_store(const char *work)
{
    char *store = below(work, "store");
    int ok = (mkdir(work, 0700) == 0 || errno == EEXIST) && (mkdir(store, 0700) == 0 || errno == EEXIST);
    if (!ok) perror(store);
    free(store);
    return ok;
}

static smp_keystore *open_keys(const char *folder, const char *name)
{
    char *path = below(folder, name);
    smp_keystore *keys = smp_keystore_open(path, NULL);
    if (keys == NULL) failed(path);
    free(path);
    return keys;
}

/* One side sends its public keys; the other imports them, and confirms the fingerprint that was read out over the telephone. */
static int introduce(smp_keystore *from, const char *id, smp_keystore *to, const char *label)
{
    const char *pem = smp_keystore_export_public(from, id);
    const char *known_as = pem != NULL ? smp_keystore_import(to, label, pem) : NULL;
    const char *read_out = smp_keystore_fingerprint(from, id);
    if (known_as == NULL || read_out == NULL) return failed("exchanging public keys");
    printf("Fingerprint of the %s: %s\n", label, read_out);
    return smp_keystore_confirm(to, known_as, read_out) == SMP_OK || failed("confirming a fingerprint");
}

/* Where things are: everything below WORK_FOLDER unless KEY=VALUE says otherwise. */
static smp_config *configure(const char *work, char **overrides, int count)
{
    smp_config *config = smp_config_new();
    int i, ok = config != NULL;
    ok = ok && (smp_config_set(config, "cloud.provider", "local") == SMP_OK || failed("cloud.provider"));
    ok = ok && set_path(config, "cloud.bucket", work, "store");
    ok = ok && set_path(config, "workspace", work, "workspace");
    ok = ok && set_path(config, "audit_log_path", work, "audit");
    ok = ok && set_path(config, "key_store_path", work, "researcher-keys");
    ok = ok && set_path(config, "encryption_key_path", work, "researcher-keys/master.key");
    ok = ok && (smp_config_set(config, "user_id", "researcher@university.example") == SMP_OK || failed("user_id"));
    for (i = 0; ok && i < count; i++) {
        char *value = strchr(overrides[i], '=');
        if (value == NULL) {
            fprintf(stderr, "%s: KEY=VALUE is expected\n", overrides[i]);
            ok = 0;
        } else {
            *value = 0;
            ok = smp_config_set(config, overrides[i], value + 1) == SMP_OK || failed(overrides[i]);
        }
    }
    ok = ok && (smp_config_check(config) == SMP_OK || failed("checking the configuration"));
    if (!ok) {
        smp_config_free(config);
        return NULL;
    }
    return config;
}

static void show(smp_result *result)
{
    double probability = smp_result_cancer_probability(result);
    const char *prediction = smp_result_cancer_prediction(result);
    const char *operation = smp_result_operations(result);
    int64_t i, labels = smp_result_label_count(result);
    printf("Study: %s\n", smp_result_study_id(result));
    if (!isnan(probability)) {
        printf("Cancer Probability: %.2f%%\n", probability * 100.0);
        printf("Prediction: %s\n", prediction != NULL ? prediction : "none");
        printf("Confidence: %.2f%%\n", smp_result_confidence_score(result) * 100.0);
    }
    for (i = 0; i < labels; i++)
        printf("Volume of %s: %.2f ml\n", smp_result_label_name(result, i), smp_result_label_volume_ml(result, i));
    printf("Processing Time: %.2fs\n", smp_result_processing_time_seconds(result));
    printf("Operations: ");
    for (; operation != NULL && *operation != 0; operation++) {
        if (*operation == ',') printf(", ");
        else putchar(*operation);
    }
    putchar('\n');
}

/* The researcher's side: one study, from the store to the results. */
static int process(smp_pipeline *pipeline, const char *work)
{
    smp_request *request = smp_request_new("incoming/study-001");
    smp_result *result = NULL;
    char *results = below(work, "results");
    int ok = request != NULL
        && smp_request_set(request, "study_id", "RESEARCH-001") == SMP_OK
        && smp_request_set(request, "operations", "load,anonymize,preprocess,segment,predict") == SMP_OK
        && smp_request_set(request, "download_mode", "zero_knowledge") == SMP_OK
        && smp_request_set(request, "output_path", results) == SMP_OK;
    if (ok) result = smp_pipeline_process_study(pipeline, request);
    if (result != NULL) show(result);
    else failed("processing the study");
    smp_result_free(result);
    smp_request_free(request);
    free(results);
    return result != NULL;
}

/* The record for the review board, and the end of what was fetched. Also after a failure, which is recorded too. */
static int report(smp_pipeline *pipeline, const char *work)
{
    char *path = below(work, "audit_report.json");
    int64_t entries = smp_pipeline_export_audit(pipeline, path, NULL, NULL);
    const char *summary = smp_pipeline_audit_summary(pipeline);
    int ok = 1;
    if (entries >= 0) printf("Exported %lld audit entries to %s\n", (long long)entries, path);
    else ok = failed("exporting the audit log");
    if (summary != NULL) printf("Integrity verified: %s\n", strstr(summary, "\"integrity_verified\":true") != NULL ? "true" : "false");
    else ok = failed("verifying the audit log");
    if (smp_pipeline_cleanup(pipeline) != SMP_OK) ok = failed("cleaning up");
    if (smp_pipeline_cleanup_report(pipeline) != NULL) printf("Cleanup: %s\n", smp_pipeline_cleanup_report(pipeline));
    free(path);
    return ok;
}

int main(int argc, char **argv)
{
    smp_config *config;
    smp_keystore *hospital, *researcher;
    smp_pipeline *pipeline = NULL;
    const char *hospital_id, *researcher_id;
    int ok;
    if (argc < 5) {
        fprintf(stderr, "usage: process_study STUDY_FOLDER WORK_FOLDER SEGMENT_MODEL PREDICT_MODEL [KEY=VALUE ...]\n");
        return 2;
    }

    /* 1. Each side makes its keys once, and keeps the private ones to itself. */
    if (!make_store(argv[2])) return 1;
    config = configure(argv[2], argv + 5, argc - 5);
    if (config == NULL) return 1;
    hospital = open_keys(argv[2], "hospital-keys");
    researcher = open_keys(argv[2], "researcher-keys");
    hospital_id = smp_keystore_generate(hospital, SMP_KEY_ECDH_P384, "sealing");
    researcher_id = smp_keystore_generate(researcher, SMP_KEY_ECDH_P384, "hospital-data-transfer");
    ok = (hospital_id != NULL && researcher_id != NULL) || failed("making keys");

    /* 2. They send each other their public keys, and compare the fingerprints over the telephone. */
    ok = ok && introduce(hospital, hospital_id, researcher, "hospital");
    ok = ok && introduce(researcher, researcher_id, hospital, "researcher");

    /* 3. The hospital seals the study for the researcher. The store sees sealed objects only. */
    if (ok && smp_seal_study(config, hospital, hospital_id, researcher_id, argv[1], "incoming/study-001") != SMP_OK)
        ok = failed("sealing the study");

    /* 4. The researcher processes it. */
    if (ok) {
        ok = (smp_config_set(config, "segment_model_path", argv[3]) == SMP_OK && smp_config_set(config, "model_path", argv[4]) == SMP_OK)
            || failed("setting the models");
    }
    if (ok) {
        pipeline = smp_pipeline_new(config);
        ok = pipeline != NULL || failed("making the pipeline");
    }
    if (ok) {
        ok = process(pipeline, argv[2]);
        ok = report(pipeline, argv[2]) && ok;
    }

    smp_pipeline_free(pipeline);
    smp_keystore_free(hospital);
    smp_keystore_free(researcher);
    smp_config_free(config);
    if (ok) printf("All sensitive data securely deleted\n");
    return ok ? 0 : 1;
}
