/* The library itself: versions, names of statuses, capabilities, log, hardening. */
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"

static void versions(void)
{
    CHECK_COUNT(smp_abi_version(), SMP_ABI_VERSION);
    CHECK(strchr(smp_version(), '.') != NULL);
    CHECK(smp_version() == smp_version());
    CHECK(strstr(smp_capabilities(), "\"version\"") != NULL);
    CHECK(strstr(smp_capabilities(), smp_version()) != NULL);
    CHECK(smp_capabilities()[0] == '{');
}

static void statuses(void)
{
    CHECK_TEXT(smp_status_name(SMP_OK), "SMP_OK");
    CHECK_TEXT(smp_status_name(SMP_PENDING), "SMP_PENDING");
    CHECK_TEXT(smp_status_name(SMP_PARTIAL), "SMP_PARTIAL");
    CHECK_TEXT(smp_status_name(SMP_ERR_INTEGRITY_FAILED), "SMP_ERR_INTEGRITY_FAILED");
    CHECK_TEXT(smp_status_text(SMP_ERR_INTEGRITY_FAILED), "Integrity verification failed");
    CHECK_TEXT(smp_status_text(SMP_ERR_NO_DICOM_FILES), "No DICOM files found");
    CHECK_TEXT(smp_status_text(SMP_ERR_CONNECTION_REFUSED), "Connection refused");
    CHECK_TEXT(smp_status_text(SMP_ERR_DEVICE_OUT_OF_MEMORY), "CUDA out of memory");
    CHECK_TEXT(smp_status_name(12345), "unknown");
    CHECK_TEXT(smp_status_name(INT32_MIN), "unknown");
    CHECK_TEXT(smp_status_text(INT32_MAX), "unknown status");
}

static void log_file(const char *folder)
{
    const char *path = check_path(folder, "smp.log"), *link = check_path(folder, "link.log");
    struct stat facts;
    char *text;
    CHECK_STATUS(smp_log_to_file(path, SMP_LOG_WARN), SMP_OK);
    CHECK_STATUS(smp_config_check(NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_log_to_file(NULL, SMP_LOG_OFF), SMP_OK);
    CHECK_STATUS(smp_config_check(check_invented(1)), SMP_ERR_INVALID_HANDLE);
    text = check_read(path, NULL);
    CHECK(text != NULL && strstr(text, "SMP_ERR_NULL_ARGUMENT") != NULL);
    CHECK(text != NULL && strstr(text, "SMP_ERR_INVALID_HANDLE") == NULL);
    free(text);
    CHECK(stat(path, &facts) == 0 && (facts.st_mode & 0777) == 0600);
    CHECK_STATUS(smp_log_to_file(path, 6), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_log_to_file(path, -1), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_log_to_file(NULL, SMP_LOG_INFO), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_log_to_file("", SMP_LOG_INFO), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_log_to_file(check_path(folder, "missing/smp.log"), SMP_LOG_INFO), SMP_ERR_OUTPUT_UNWRITABLE);
    CHECK_STATUS(smp_log_to_file(folder, SMP_LOG_INFO), SMP_ERR_OUTPUT_UNWRITABLE);
    if (symlink(path, link) == 0) CHECK_STATUS(smp_log_to_file(link, SMP_LOG_INFO), SMP_ERR_OUTPUT_UNWRITABLE);
}

/* Last, because it cannot be undone. */
static void hardening(void)
{
    struct rlimit limit;
    CHECK_STATUS(smp_harden_process(8), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_harden_process(-1), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_harden_process(0), SMP_OK);
    CHECK_STATUS(smp_harden_process(SMP_HARDEN_NO_DUMP | SMP_HARDEN_NO_CORE), SMP_OK);
    CHECK(getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur == 0 && limit.rlim_max == 0);
    CHECK(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
    if (!check_is_quick()) {
        /* Allowed or not, depending on the machine; in any case the answer is one of these two. */
        int32_t locked = smp_harden_process(SMP_HARDEN_LOCK_MEMORY);
        CHECK(locked == SMP_OK || locked == SMP_ERR_UNSUPPORTED);
        if (locked == SMP_ERR_UNSUPPORTED) CHECK(strlen(smp_last_error_message()) > 0);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    CHECK_COUNT(smp_live_handles(), 0);
    versions();
    statuses();
    log_file(argv[1]);
    hardening();
    return check_end(argv[0]);
}
