/* Checks for the C programs: each prints where it failed and goes on. One program tests one noun:
 *
 *   test_NOUN SCRATCH_FOLDER DATA_FOLDER|-
 *
 * The scratch folder is empty and the program's own. With SMP_CHECK_QUICK set (under valgrind) what is slow is left out. */
#ifndef CHECK_H
#define CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "smp.h"

static int check_failures = 0;
static long check_count = 0;

static void check_that(int holds, const char *claim, const char *file, int line)
{
    check_count++;
    if (!holds) {
        check_failures++;
        fprintf(stderr, "%s:%d: %s\n", file, line, claim);
        fprintf(stderr, "    last error: %s: %s\n", smp_status_name(smp_last_error()), smp_last_error_message());
    }
}

static void check_status(int32_t found, int32_t expected, const char *call, const char *file, int line)
{
    check_that(found == expected, call, file, line);
    if (found != expected)
        fprintf(stderr, "    found %s, expected %s\n", smp_status_name(found), smp_status_name(expected));
    else if (expected < 0)
        check_that(smp_last_error() == expected, "the last error is the status", file, line);
}

static void check_text(const char *found, const char *expected, const char *call, const char *file, int line)
{
    int same = found != NULL && strcmp(found, expected) == 0;
    check_that(same, call, file, line);
    if (!same) fprintf(stderr, "    found \"%s\", expected \"%s\"\n", found != NULL ? found : "(NULL)", expected);
}

/* The claim holds. */
#define CHECK(claim) check_that((claim) ? 1 : 0, #claim, __FILE__, __LINE__)
/* The call answers this status; a failure is also the last error. */
#define CHECK_STATUS(call, expected) check_status((call), (expected), #call, __FILE__, __LINE__)
/* The call answers this text. */
#define CHECK_TEXT(call, expected) check_text((call), (expected), #call, __FILE__, __LINE__)
/* The call answers NULL, and the last error says why. */
#define CHECK_NULL(call, expected) \
    do { \
        check_that((call) == NULL, #call " is NULL", __FILE__, __LINE__); \
        check_status(smp_last_error(), (expected), #call, __FILE__, __LINE__); \
    } while (0)
/* The call answers NaN, and the last error says why. */
#define CHECK_NAN(call, expected) \
    do { \
        check_that(isnan(call) != 0, #call " is NaN", __FILE__, __LINE__); \
        check_status(smp_last_error(), (expected), #call, __FILE__, __LINE__); \
    } while (0)
/* The call answers this count, or the negative status as a count. */
#define CHECK_COUNT(call, expected) \
    do { \
        long long found_ = (long long)(call), expected_ = (long long)(expected); \
        check_that(found_ == expected_, #call, __FILE__, __LINE__); \
        if (found_ != expected_) fprintf(stderr, "    found %lld, expected %lld\n", found_, expected_); \
    } while (0)

/* Values that were never a handle. */
#define INVENTED_HANDLES 5
static void *check_invented(int which)
{
    static const uintptr_t values[INVENTED_HANDLES] = {1, 8, 0x7fffffffe000u, 0x123456789abcdef1u, UINTPTR_MAX};
    return (void *)values[which];
}

static int check_is_quick(void)
{
    return getenv("SMP_CHECK_QUICK") != NULL;
}

/* FOLDER/NAME, in a buffer that lives until the program ends. */
static const char *check_path(const char *folder, const char *name)
{
    static char paths[256][1024];
    static int next = 0;
    char *path = paths[next++ % 256];
    if (snprintf(path, sizeof paths[0], "%s/%s", folder, name) >= (int)sizeof paths[0]) abort();
    return path;
}

static void check_write(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) {
        perror(path);
        exit(2);
    }
}

/* The file's bytes, NUL-terminated, to be freed; NULL when it cannot be read. */
static char *check_read(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *bytes = NULL;
    long length;
    if (file == NULL) return NULL;
    if (fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0
        && (bytes = (char *)malloc((size_t)length + 1)) != NULL) {
        if (fread(bytes, 1, (size_t)length, file) != (size_t)length) abort();
        bytes[length] = 0;
        if (size != NULL) *size = (size_t)length;
    }
    fclose(file);
    return bytes;
}

static int check_exists(const char *path)
{
    struct stat facts;
    return lstat(path, &facts) == 0;
}

static void check_mkdir(const char *path)
{
    if (mkdir(path, 0700) != 0) {
        perror(path);
        exit(2);
    }
}

/* The handles that are left, and the verdict. */
static int check_end(const char *program)
{
    CHECK_COUNT(smp_live_handles(), 0);
    printf("%s: %ld checks, %d failed\n", program, check_count, check_failures);
    return check_failures == 0 ? 0 : 1;
}

/* Not every program uses every helper. */
static void check_unused(void) __attribute__((unused));
static void check_unused(void)
{
    (void)check_text; (void)check_invented; (void)check_is_quick; (void)check_path; (void)check_write; (void)check_read;
    (void)check_exists; (void)check_mkdir; (void)check_end; (void)check_status; (void)check_unused;
}

#endif
