/* Why a call failed: per thread, until the next failure, and never NULL. */
#include <pthread.h>

#include "check.h"

static void *other_thread(void *unused)
{
    (void)unused;
    CHECK_COUNT(smp_last_error(), SMP_OK);
    CHECK_TEXT(smp_last_error_message(), "");
    CHECK_TEXT(smp_last_error_hint(), "");
    CHECK_TEXT(smp_last_error_stage(), "");
    CHECK_COUNT(smp_last_error_retryable(), 0);
    CHECK_NULL(smp_config_key_name(-1), SMP_ERR_OUT_OF_RANGE);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    smp_config *config;
    const char *message;
    if (argc != 3) return 2;
    other_thread(NULL); /* nothing has failed yet */

    CHECK_STATUS(smp_config_check(check_invented(0)), SMP_ERR_INVALID_HANDLE);
    CHECK_TEXT(smp_last_error_stage(), "call");
    CHECK(strlen(smp_last_error_hint()) > 0);
    CHECK_COUNT(smp_last_error_retryable(), 0);
    CHECK(strstr(smp_last_error_message(), "config") != NULL);

    /* Success leaves the last failure alone, and so does another thread. */
    message = smp_last_error_message();
    config = smp_config_new();
    CHECK(config != NULL);
    CHECK(smp_last_error() == SMP_ERR_INVALID_HANDLE && smp_last_error_message() == message);
    CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(smp_last_error() == SMP_ERR_INVALID_HANDLE && smp_last_error_message() == message);

    /* The message names the argument, and never quotes what was in it. */
    CHECK_STATUS(smp_config_set(config, "threshold", "Doe^Jane"), SMP_ERR_CONFIG_INVALID_VALUE);
    CHECK(strstr(smp_last_error_message(), "threshold") != NULL && strstr(smp_last_error_message(), "Doe") == NULL);
    CHECK_TEXT(smp_last_error_stage(), "configuration");
    CHECK_STATUS(smp_config_set(config, "\xff\xfe", "x"), SMP_ERR_INVALID_TEXT);
    CHECK_STATUS(smp_config_set(config, NULL, "x"), SMP_ERR_NULL_ARGUMENT);
    CHECK(strstr(smp_last_error_message(), "key") != NULL);

    /* Ending things reports nothing. */
    smp_config_free(config);
    smp_config_free(config);
    smp_config_free(NULL);
    smp_config_free(check_invented(2));
    CHECK(smp_last_error() == SMP_ERR_NULL_ARGUMENT);
    return check_end(argv[0]);
}
