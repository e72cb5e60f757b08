/* Any function, any thread, any time: handles shared, freed under each other's feet, and errors that stay with their thread. */
#include <pthread.h>

#include "check.h"

#define THREADS 8

static int rounds = 400;
static smp_config *shared;
static smp_config *contested[256];

/* check.h counts without locks, so threads count their own surprises. */
static void *work(void *argument)
{
    long surprises = 0;
    int thread = (int)(intptr_t)argument, round;
    char name[32];
    for (round = 0; round < rounds; round++) {
        smp_config *own = smp_config_new(), *victim = contested[(round * 7 + thread) % 256];
        const char *text;
        int32_t status;
        snprintf(name, sizeof name, "user-%d-%d", thread, round);
        surprises += own == NULL;
        surprises += smp_config_set(own, "user_id", name) != SMP_OK;
        text = smp_config_get(own, "user_id");
        surprises += text == NULL || strcmp(text, name) != 0;

        /* One configuration for all: whatever is read was written by somebody, whole. */
        surprises += smp_config_set(shared, "user_id", name) != SMP_OK;
        text = smp_config_get(shared, "user_id");
        surprises += text == NULL || strncmp(text, "user-", 5) != 0;

        /* Handles that every thread uses and frees: alive or dead, never anything else. */
        status = smp_config_set(victim, "user_id", name);
        surprises += status != SMP_OK && status != SMP_ERR_INVALID_HANDLE;
        smp_config_free(victim);
        surprises += smp_config_check(victim) != SMP_ERR_INVALID_HANDLE;

        /* The last error is this thread's. */
        surprises += smp_config_set(own, thread % 2 ? NULL : "no.such.key", "x") >= 0;
        surprises += smp_last_error() != (thread % 2 ? SMP_ERR_NULL_ARGUMENT : SMP_ERR_CONFIG_UNKNOWN_KEY);
        smp_config_free(own);
        surprises += smp_config_check(own) != SMP_ERR_INVALID_HANDLE;
    }
    return (void *)(intptr_t)surprises;
}

/* A text belongs to its handle and not to the thread that asked. */
static void *ask(void *config)
{
    return (void *)(uintptr_t)smp_config_get(config, "user_id");
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    void *outcome;
    smp_config *config;
    int i;
    if (argc != 3) return 2;
    if (check_is_quick()) rounds = 40;
    shared = smp_config_new();
    for (i = 0; i < 256; i++) contested[i] = smp_config_new();
    for (i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i) == 0);
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], &outcome) == 0);
        CHECK_COUNT((intptr_t)outcome, 0);
    }
    for (i = 0; i < 256; i++) smp_config_free(contested[i]);
    smp_config_free(shared);

    config = smp_config_new();
    CHECK(pthread_create(&threads[0], NULL, ask, config) == 0);
    CHECK(pthread_join(threads[0], &outcome) == 0);
    CHECK_TEXT((const char *)outcome, "anonymous");
    smp_config_free(config);
    return check_end(argv[0]);
}
