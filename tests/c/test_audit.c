/* Audit: anybody can read a log, verify it and export it. */
#include <dirent.h>
#include <unistd.h>

#include "site.h"

/* The first file of log records below a folder. */
static const char *find_records(const char *folder)
{
    DIR *entries = opendir(folder);
    struct dirent *entry;
    const char *found = NULL;
    if (entries == NULL) return NULL;
    while (found == NULL && (entry = readdir(entries)) != NULL) {
        const char *path = check_path(folder, entry->d_name);
        size_t length = strlen(entry->d_name);
        if (entry->d_name[0] == '.') continue;
        if (length > 6 && strcmp(entry->d_name + length - 6, ".jsonl") == 0) found = path;
        else found = find_records(path);
    }
    closedir(entries);
    return found;
}

static void written_by_a_pipeline(const char *folder)
{
    struct site site = site_open(folder);
    smp_pipeline *pipeline = smp_pipeline_new(site.config);
    const char *logs = check_path(folder, "audit"), *json = check_path(folder, "out/deep/audit.json"), *csv = check_path(folder, "audit.csv");
    const char *records, *head;
    smp_audit *audit;
    int64_t count, first_bad = 77;
    char *text;
    CHECK(pipeline != NULL);
    smp_pipeline_free(pipeline);

    audit = smp_audit_open(logs);
    CHECK(audit != NULL);
    count = smp_audit_count(audit);
    CHECK(count >= 2); /* opened and closed, at least */
    CHECK_STATUS(smp_audit_verify(audit, &first_bad), SMP_OK);
    CHECK_COUNT(first_bad, -1);
    CHECK_STATUS(smp_audit_verify(audit, NULL), SMP_OK);
    head = smp_audit_head(audit);
    CHECK(head != NULL && strlen(head) == 64 && strspn(head, "0123456789abcdef") == 64);
    CHECK(smp_audit_head(audit) == head);

    CHECK_COUNT(smp_audit_export(audit, "json", json, NULL, NULL), count);
    text = check_read(json, NULL);
    CHECK(text != NULL && strstr(text, "pipeline.opened") != NULL && strstr(text, "researcher@university.example") != NULL);
    free(text);
    CHECK_COUNT(smp_audit_export(audit, "csv", csv, "2000-01-01", "2999-12-31T23:59:59Z"), count);
    CHECK(check_exists(csv));
    CHECK_COUNT(smp_audit_export(audit, "csv", csv, "2000-01-01", "2000-01-02"), 0);
    CHECK(smp_audit_export(audit, "xlsx", csv, NULL, NULL) < 0);
    CHECK(smp_audit_export(audit, "csv", csv, "yesterday", NULL) < 0);
    CHECK(smp_audit_export(audit, "csv", check_path(csv, "below-a-file"), NULL, NULL) < 0);
    CHECK_COUNT(smp_audit_export(audit, NULL, csv, NULL, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_COUNT(smp_audit_export(audit, "csv", NULL, NULL, NULL), SMP_ERR_NULL_ARGUMENT);
    smp_audit_free(audit);

    /* One changed character in the first record. */
    records = find_records(logs);
    CHECK(records != NULL);
    if (records != NULL) {
        FILE *file = fopen(records, "r+b");
        int byte;
        CHECK(file != NULL && fseek(file, 20, SEEK_SET) == 0);
        byte = fgetc(file);
        CHECK(fseek(file, 20, SEEK_SET) == 0 && fputc(byte == 'x' ? 'y' : 'x', file) != EOF && fclose(file) == 0);
        audit = smp_audit_open(logs);
        if (audit != NULL) {
            first_bad = 77;
            CHECK_STATUS(smp_audit_verify(audit, &first_bad), SMP_ERR_AUDIT_TAMPERED);
            CHECK(first_bad == 0 || first_bad == 1); /* the record itself, or the next one, whose link no longer fits */
            CHECK_STATUS(smp_audit_verify(audit, NULL), SMP_ERR_AUDIT_TAMPERED);
            smp_audit_free(audit);
        } else {
            CHECK_COUNT(smp_last_error(), SMP_ERR_AUDIT_TAMPERED);
        }
    }
    site_close(&site);
}

static void dead_handles(const char *folder)
{
    smp_config *config = smp_config_new();
    int64_t first_bad = 77;
    int i;
    CHECK_NULL(smp_audit_open(check_path(folder, "missing")), SMP_ERR_AUDIT_UNREADABLE);
    CHECK_NULL(smp_audit_open(NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_audit_open(""), SMP_ERR_INVALID_ARGUMENT);
    for (i = 0; i < 2 + INVENTED_HANDLES; i++) {
        smp_audit *bad = i == 0 ? NULL : i == 1 ? (smp_audit *)config : check_invented(i - 2);
        int32_t expected = i == 0 ? SMP_ERR_NULL_ARGUMENT : SMP_ERR_INVALID_HANDLE;
        CHECK_COUNT(smp_audit_count(bad), expected);
        CHECK_STATUS(smp_audit_verify(bad, &first_bad), expected);
        CHECK_COUNT(first_bad, 77);
        CHECK_NULL(smp_audit_head(bad), expected);
        CHECK_COUNT(smp_audit_export(bad, "json", check_path(folder, "x"), NULL, NULL), expected);
        smp_audit_free(bad);
    }
    smp_config_free(config);
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    dead_handles(argv[1]);
    written_by_a_pipeline(argv[1]);
    return check_end(argv[0]);
}
