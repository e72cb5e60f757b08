/* Processes one sealed study and says how it went, one "name=value" a line: for tests that compare with other programs.
 *
 *   process_one CONFIG.json REMOTE_PATH OPERATIONS OUTPUT_PATH|- VOLUME.f32|- MASK.u8|-
 *
 * Exit status: 0 when the study was processed, 1 when the library refused, 2 when the arguments are wrong. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smp.h"

static int refused(const char *what)
{
    const char *hint = smp_last_error_hint();
    printf("failed=%s\n", what);
    printf("status=%s\n", smp_status_name(smp_last_error()));
    printf("code=%d\n", (int)smp_last_error());
    printf("stage=%s\n", smp_last_error_stage());
    printf("message=%s\n", smp_last_error_message());
    printf("hint=%s\n", hint ? hint : "");
    return 1;
}

static int write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    int ok = file != NULL && fwrite(bytes, 1, size, file) == size;
    if (file != NULL && fclose(file) != 0) ok = 0;
    return ok;
}

static int copy_out(smp_result *result, const char *volume_path, const char *mask_path)
{
    int64_t columns = 0, rows = 0, slices = 0, voxels;
    if (smp_result_dims(result, &columns, &rows, &slices) != SMP_OK) return refused("dims");
    printf("dims=%lld %lld %lld\n", (long long)columns, (long long)rows, (long long)slices);
    voxels = columns * rows * slices;
    if (strcmp(volume_path, "-") != 0) {
        float *volume = malloc((size_t)voxels * sizeof *volume);
        if (volume == NULL || smp_result_copy_volume(result, volume, voxels) != SMP_OK) return refused("copy_volume");
        if (!write_file(volume_path, volume, (size_t)voxels * sizeof *volume)) return 2;
        free(volume);
    }
    if (strcmp(mask_path, "-") != 0) {
        uint8_t *mask = malloc((size_t)voxels);
        if (mask == NULL || smp_result_copy_mask(result, mask, voxels) != SMP_OK) return refused("copy_mask");
        if (!write_file(mask_path, mask, (size_t)voxels)) return 2;
        free(mask);
    }
    return 0;
}

static int show(smp_result *result, const char *volume_path, const char *mask_path)
{
    static const char *const stages[] = {"fetch", "load", "anonymize", "preprocess", "segment", "predict", "write"};
    double affine[16], across = 0, down = 0, between = 0;
    size_t i;
    int outcome;
    printf("study_id=%s\n", smp_result_study_id(result));
    printf("operations=%s\n", smp_result_operations(result));
    printf("probability=%.17g\n", smp_result_cancer_probability(result));
    printf("seconds=%.3f\n", smp_result_processing_time_seconds(result));
    for (i = 0; i < sizeof stages / sizeof stages[0]; i++)
        printf("seconds.%s=%.3f\n", stages[i], smp_result_stage_seconds(result, stages[i]));
    if (smp_result_spacing(result, &across, &down, &between) != SMP_OK) return refused("spacing");
    printf("spacing=%.17g %.17g %.17g\n", across, down, between);
    if (smp_result_affine(result, affine, 16) != SMP_OK) return refused("affine");
    printf("affine=");
    for (i = 0; i < 16; i++) printf("%.17g%s", affine[i], i == 15 ? "\n" : " ");
    outcome = copy_out(result, volume_path, mask_path);
    if (outcome == 0) printf("status=%s\n", smp_status_name(SMP_OK));
    return outcome;
}

int main(int argc, char **argv)
{
    smp_config *config;
    smp_pipeline *pipeline;
    smp_request *request;
    smp_result *result;
    int outcome;
    if (argc != 7) {
        fprintf(stderr, "usage: process_one CONFIG REMOTE_PATH OPERATIONS OUTPUT|- VOLUME|- MASK|-\n");
        return 2;
    }
    config = smp_config_load(argv[1]);
    if (config == NULL) return refused("config");
    pipeline = smp_pipeline_new(config);
    smp_config_free(config);
    if (pipeline == NULL) return refused("pipeline");
    request = smp_request_new(argv[2]);
    if (request == NULL) return refused("request");
    if (smp_request_set(request, "operations", argv[3]) != SMP_OK) return refused("operations");
    if (smp_request_set(request, "study_id", "STUDY-1") != SMP_OK) return refused("study_id");
    if (strcmp(argv[4], "-") != 0 && smp_request_set(request, "output_path", argv[4]) != SMP_OK) return refused("output_path");
    result = smp_pipeline_process_study(pipeline, request);
    smp_request_free(request);
    if (result == NULL) {
        outcome = refused("process_study");
    } else {
        outcome = show(result, argv[5], argv[6]);
        smp_result_free(result);
    }
    smp_pipeline_free(pipeline);
    printf("live_handles=%lld\n", (long long)smp_live_handles());
    return outcome;
}
