/* Request: what can be asked of one study. */
#include "check.h"

int main(int argc, char **argv)
{
    smp_request *request = smp_request_new("studies/a"), *memory = smp_request_new(NULL);
    smp_config *config = smp_config_new();
    uint8_t bytes[200] = {0};
    int i;
    if (argc != 3) return 2;
    CHECK(request != NULL && memory != NULL);
    CHECK_NULL(smp_request_new("\xff"), SMP_ERR_INVALID_TEXT);

    CHECK_STATUS(smp_request_set(request, "study_id", "RESEARCH-001"), SMP_OK);
    CHECK_STATUS(smp_request_set(request, "operations", "load,anonymize,preprocess,segment,predict"), SMP_OK);
    CHECK_STATUS(smp_request_set(request, "operations", "predict, load"), SMP_OK);
    CHECK_STATUS(smp_request_set(request, "download_mode", "standard"), SMP_OK);
    CHECK_STATUS(smp_request_set(request, "download_mode", "zero_knowledge"), SMP_OK);
    CHECK_STATUS(smp_request_set(request, "output_path", check_path(argv[1], "results")), SMP_OK);
    CHECK_STATUS(smp_request_set(request, "threshold", "0.6"), SMP_OK);
    CHECK_STATUS(smp_request_set_real(request, "threshold", 0.6), SMP_OK);
    CHECK_STATUS(smp_request_set_int(request, "inference.batch", 2), SMP_OK);

    CHECK_STATUS(smp_request_set(request, "operations", "load,guess"), SMP_ERR_INVALID_ARGUMENT);
    CHECK(strstr(smp_last_error_hint(), "load, anonymize, preprocess, segment, predict") != NULL);
    CHECK_STATUS(smp_request_set(request, "download_mode", "faster"), SMP_ERR_INVALID_ARGUMENT);
    CHECK(strstr(smp_last_error_hint(), "zero_knowledge") != NULL);
    CHECK_STATUS(smp_request_set(request, "study_id", "../../etc"), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_request_set(request, "no_such_key", "x"), SMP_ERR_CONFIG_UNKNOWN_KEY);
    CHECK_STATUS(smp_request_set_real(request, "threshold", NAN), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_request_set(request, "cloud.bucket", "x"), SMP_ERR_INVALID_ARGUMENT);

    CHECK_STATUS(smp_request_add_instance(memory, bytes, sizeof bytes), SMP_OK);
    CHECK_STATUS(smp_request_add_instance(memory, bytes, 0), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_request_add_instance(memory, bytes, -1), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_request_add_instance(memory, bytes, INT64_MIN), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_request_add_instance(memory, bytes, INT64_MAX), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_request_add_instance(memory, NULL, 10), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_request_add_instance(memory, NULL, 0), SMP_ERR_NULL_ARGUMENT);

    CHECK_STATUS(smp_request_set(request, NULL, "x"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_request_set(request, "study_id", NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_request_set_int(request, NULL, 1), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_request_set_real(request, NULL, 1), SMP_ERR_NULL_ARGUMENT);
    smp_request_free(request);
    smp_request_free(memory);
    smp_request_free(request);
    for (i = 0; i < 3 + INVENTED_HANDLES; i++) {
        smp_request *bad = i == 0 ? NULL : i == 1 ? request : i == 2 ? (smp_request *)config : check_invented(i - 3);
        int32_t expected = i == 0 ? SMP_ERR_NULL_ARGUMENT : SMP_ERR_INVALID_HANDLE;
        CHECK_STATUS(smp_request_set(bad, "study_id", "A"), expected);
        CHECK_STATUS(smp_request_set_int(bad, "inference.batch", 1), expected);
        CHECK_STATUS(smp_request_set_real(bad, "threshold", 0.5), expected);
        CHECK_STATUS(smp_request_add_instance(bad, bytes, sizeof bytes), expected);
        smp_request_free(bad);
    }
    smp_config_free(config);
    return check_end(argv[0]);
}
