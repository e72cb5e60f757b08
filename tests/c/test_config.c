/* Configuration: keys, sources, values, handles. */
#include <unistd.h>

#include "check.h"

static void keys(void)
{
    int64_t i, count = smp_config_key_count();
    int has_bucket = 0, has_threshold = 0;
    CHECK(count > 30);
    for (i = 0; i < count; i++) {
        const char *name = smp_config_key_name(i);
        CHECK(name != NULL && strlen(name) > 0);
        CHECK(smp_config_key_help(i) != NULL && strlen(smp_config_key_help(i)) > 0);
        CHECK(smp_config_key_default(i) != NULL);
        CHECK(smp_config_key_name(i) == name);
        has_bucket |= name != NULL && strcmp(name, "cloud.bucket") == 0;
        if (name != NULL && strcmp(name, "threshold") == 0) {
            has_threshold = 1;
            CHECK_TEXT(smp_config_key_default(i), "0.5");
        }
    }
    CHECK(has_bucket && has_threshold);
    CHECK_NULL(smp_config_key_name(-1), SMP_ERR_OUT_OF_RANGE);
    CHECK_NULL(smp_config_key_name(count), SMP_ERR_OUT_OF_RANGE);
    CHECK_NULL(smp_config_key_help(INT64_MAX), SMP_ERR_OUT_OF_RANGE);
    CHECK_NULL(smp_config_key_default(INT64_MIN), SMP_ERR_OUT_OF_RANGE);
}

static void values(void)
{
    smp_config *config = smp_config_new(), *copy;
    const char *bucket;
    CHECK(config != NULL);
    /* The guide's defaults. */
    CHECK_TEXT(smp_config_get(config, "user_id"), "anonymous");
    CHECK_TEXT(smp_config_get(config, "device"), "auto");
    CHECK_TEXT(smp_config_get(config, "auto_anonymize"), "true");
    CHECK_TEXT(smp_config_get(config, "auto_cleanup"), "false");
    CHECK_TEXT(smp_config_get(config, "threshold"), "0.5");
    CHECK_TEXT(smp_config_get(config, "high_risk_threshold"), "0.7");
    CHECK_NULL(smp_config_get(config, "cloud.bucket"), SMP_ERR_ABSENT);

    CHECK_STATUS(smp_config_set(config, "cloud.bucket", "hospital-a"), SMP_OK);
    bucket = smp_config_get(config, "cloud.bucket");
    CHECK_TEXT(bucket, "hospital-a");
    CHECK(smp_config_get(config, "cloud.bucket") == bucket);
    CHECK_STATUS(smp_config_set(config, "cloud.bucket", "hospital-b"), SMP_OK);
    CHECK_TEXT(smp_config_get(config, "cloud.bucket"), "hospital-b");
    CHECK_TEXT(bucket, "hospital-a"); /* strings live until their handle is freed */

    CHECK_STATUS(smp_config_set_int(config, "transfer.parallel", 4), SMP_OK);
    CHECK_TEXT(smp_config_get(config, "transfer.parallel"), "4");
    CHECK_STATUS(smp_config_set_real(config, "threshold", 0.25), SMP_OK);
    CHECK_TEXT(smp_config_get(config, "threshold"), "0.25");
    CHECK_STATUS(smp_config_merge_json(config, "{\"cloud\": {\"region\": \"eu-west-3\"}, \"deid.profile\": \"basic\", \"threshold\": 0.75}"), SMP_OK);
    CHECK_TEXT(smp_config_get(config, "cloud.region"), "eu-west-3");
    CHECK_TEXT(smp_config_get(config, "threshold"), "0.75");
    CHECK_STATUS(smp_config_check(config), SMP_OK);

    /* A copy goes its own way. */
    copy = smp_config_clone(config);
    CHECK(copy != NULL && copy != config);
    CHECK_STATUS(smp_config_set(copy, "user_id", "dr.smith@university.example"), SMP_OK);
    CHECK_TEXT(smp_config_get(config, "user_id"), "anonymous");
    smp_config_free(config);
    CHECK_TEXT(smp_config_get(copy, "cloud.bucket"), "hospital-b");
    CHECK_STATUS(smp_config_set(config, "user_id", "x"), SMP_ERR_INVALID_HANDLE);

    /* A secret is taken and never answered. */
    CHECK_STATUS(smp_config_set(copy, "cloud.access_token", "swordfish"), SMP_OK);
    CHECK_NULL(smp_config_get(copy, "cloud.access_token"), SMP_ERR_ABSENT);
    smp_config_free(copy);
}

static void refusals(void)
{
    smp_config *config = smp_config_new();
    char *huge = malloc((17u << 20) + 1);
    if (huge == NULL) exit(2);
    CHECK_STATUS(smp_config_set(config, "cloud.buckt", "x"), SMP_ERR_CONFIG_UNKNOWN_KEY);
    CHECK(strstr(smp_last_error_hint(), "cloud.bucket") != NULL);
    CHECK_STATUS(smp_config_set(config, "", "x"), SMP_ERR_CONFIG_UNKNOWN_KEY);
    CHECK_NULL(smp_config_get(config, "no.such.key"), SMP_ERR_CONFIG_UNKNOWN_KEY);
    CHECK_STATUS(smp_config_set_int(config, "no.such.key", 1), SMP_ERR_CONFIG_UNKNOWN_KEY);
    CHECK_STATUS(smp_config_set_real(config, "no.such.key", 1), SMP_ERR_CONFIG_UNKNOWN_KEY);
    CHECK_STATUS(smp_config_set(config, "threshold", "high"), SMP_ERR_CONFIG_INVALID_VALUE);
    CHECK_STATUS(smp_config_set(config, "auto_cleanup", "perhaps"), SMP_ERR_CONFIG_INVALID_VALUE);
    CHECK_STATUS(smp_config_set_real(config, "threshold", NAN), SMP_ERR_CONFIG_INVALID_VALUE);
    CHECK_STATUS(smp_config_set_real(config, "threshold", HUGE_VAL), SMP_ERR_CONFIG_INVALID_VALUE);
    CHECK(smp_config_merge_json(config, "{") < 0);
    CHECK(smp_config_merge_json(config, "[]") < 0);
    CHECK_STATUS(smp_config_merge_json(config, "{\"user_id\": \"a\", \"no_such_key\": 1}"), SMP_ERR_CONFIG_UNKNOWN_KEY);
    CHECK_STATUS(smp_config_set(config, "user_id", "\xc3"), SMP_ERR_INVALID_TEXT);
    memset(huge, 'x', 17u << 20);
    huge[17u << 20] = 0;
    CHECK_STATUS(smp_config_set(config, "user_id", huge), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_config_set(config, huge, "x"), SMP_ERR_INVALID_ARGUMENT);
    huge[1u << 20] = 0;
    CHECK_STATUS(smp_config_set(config, huge, "x"), SMP_ERR_CONFIG_UNKNOWN_KEY);
    CHECK(strlen(smp_last_error_message()) < 4096); /* what was passed is not repeated */
    free(huge);
    CHECK_TEXT(smp_config_get(config, "threshold"), "0.5"); /* nothing that was refused has stuck */
    smp_config_free(config);
}

static void files(const char *folder)
{
    static const char plain[] = "{\"cloud\": {\"provider\": \"s3\", \"bucket\": \"hospital-encrypted-data\", \"region\": \"us-east-1\"},"
                                " \"user_id\": \"researcher@university.edu\", \"workspace\": \"~/secure-medical-workspace\"}";
    static const char secret[] = "{\"cloud\": {\"provider\": \"s3\", \"access_token\": \"swordfish\"}}";
    const char *path = check_path(folder, "config.json"), *private = check_path(folder, "private.json");
    smp_config *config;
    char *home = getenv("HOME");
    check_write(path, plain, strlen(plain));
    config = smp_config_load(path);
    CHECK(config != NULL);
    CHECK_TEXT(smp_config_get(config, "cloud.bucket"), "hospital-encrypted-data");
    CHECK_TEXT(smp_config_get(config, "user_id"), "researcher@university.edu");
    smp_config_free(config);

    check_write(private, secret, strlen(secret));
    CHECK(chmod(private, 0644) == 0);
    CHECK_NULL(smp_config_load(private), SMP_ERR_CONFIG_PERMISSIONS);
    CHECK(chmod(private, 0600) == 0);
    config = smp_config_load(private);
    CHECK(config != NULL);
    smp_config_free(config);

    CHECK_NULL(smp_config_load(check_path(folder, "missing.json")), SMP_ERR_CONFIG_UNREADABLE);
    CHECK_NULL(smp_config_load(""), SMP_ERR_INVALID_ARGUMENT);
    check_write(path, "{\"user\": 1}", 11);
    CHECK_NULL(smp_config_load(path), SMP_ERR_CONFIG_UNKNOWN_KEY);

    /* NULL is the user's own file. */
    if (home != NULL && getenv("CHECK_OWN_HOME") != NULL) {
        if (!check_exists(check_path(home, ".smp"))) check_mkdir(check_path(home, ".smp"));
        check_write(check_path(home, ".smp/config.json"), plain, strlen(plain));
        config = smp_config_load(NULL);
        CHECK_TEXT(smp_config_get(config, "cloud.region"), "us-east-1");
        smp_config_free(config);
        CHECK(unlink(check_path(home, ".smp/config.json")) == 0);
    }
}

static void dead_handles(void)
{
    smp_config *config = smp_config_new();
    smp_request *request = smp_request_new("x");
    int i;
    smp_config_free(config);
    smp_config_free(config);
    for (i = 0; i < 2 + INVENTED_HANDLES; i++) {
        /* Freed, of another type, invented. */
        smp_config *bad = i == 0 ? config : i == 1 ? (smp_config *)request : check_invented(i - 2);
        CHECK_NULL(smp_config_clone(bad), SMP_ERR_INVALID_HANDLE);
        CHECK_STATUS(smp_config_set(bad, "user_id", "x"), SMP_ERR_INVALID_HANDLE);
        CHECK_STATUS(smp_config_set_int(bad, "transfer.parallel", 1), SMP_ERR_INVALID_HANDLE);
        CHECK_STATUS(smp_config_set_real(bad, "threshold", 0.5), SMP_ERR_INVALID_HANDLE);
        CHECK_STATUS(smp_config_merge_json(bad, "{}"), SMP_ERR_INVALID_HANDLE);
        CHECK_NULL(smp_config_get(bad, "user_id"), SMP_ERR_INVALID_HANDLE);
        CHECK_STATUS(smp_config_check(bad), SMP_ERR_INVALID_HANDLE);
        smp_config_free(bad);
    }
    CHECK_STATUS(smp_request_set(request, "study_id", "A"), SMP_OK); /* freeing it as a config did not end it */
    smp_request_free(request);
}

static void nulls(void)
{
    smp_config *config = smp_config_new();
    CHECK_NULL(smp_config_clone(NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_config_set(NULL, "user_id", "x"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_config_set(config, NULL, "x"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_config_set(config, "user_id", NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_config_set_int(NULL, "transfer.parallel", 1), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_config_set_int(config, NULL, 1), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_config_set_real(NULL, "threshold", 1), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_config_set_real(config, NULL, 1), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_config_merge_json(NULL, "{}"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_config_merge_json(config, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_config_get(NULL, "user_id"), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_config_get(config, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_config_check(NULL), SMP_ERR_NULL_ARGUMENT);
    smp_config_free(NULL);
    smp_config_free(config);
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    keys();
    values();
    refusals();
    files(argv[1]);
    dead_handles();
    nulls();
    return check_end(argv[0]);
}
