/* Package: what the sender seals is what the recipient gets, and nobody else gets anything. */
#include <dirent.h>

#include "site.h"

/* The first file below a folder whose name ends so. */
static const char *find_file(const char *folder, const char *suffix)
{
    DIR *entries = opendir(folder);
    struct dirent *entry;
    const char *found = NULL;
    if (entries == NULL) return NULL;
    while (found == NULL && (entry = readdir(entries)) != NULL) {
        size_t length = strlen(entry->d_name), tail = strlen(suffix);
        if (length >= tail && strcmp(entry->d_name + length - tail, suffix) == 0) found = check_path(folder, entry->d_name);
    }
    closedir(entries);
    return found;
}

static void flip_byte(const char *path, long at)
{
    FILE *file = fopen(path, "r+b");
    int byte;
    if (file == NULL || fseek(file, at, SEEK_SET) != 0 || (byte = fgetc(file)) == EOF || fseek(file, at, SEEK_SET) != 0
        || fputc(byte ^ 1, file) == EOF || fclose(file) != 0) {
        perror(path);
        exit(2);
    }
}

static void sealed_and_opened(const char *folder)
{
    struct site site = site_open(folder);
    smp_keystore *stranger = smp_keystore_open(check_path(folder, "stranger-keys"), NULL);
    const char *source = check_path(folder, "source"), *plain = check_path(folder, "plain"), *pack;
    const char *nobody, *report;
    char *bytes;
    size_t size = 0;
    check_mkdir(source);
    check_write(check_path(source, "one"), "first file", 10);
    check_mkdir(check_path(source, "below"));
    check_write(check_path(source, "below/two"), "", 0);

    CHECK_STATUS(smp_seal_study(site.config, site.hospital, site.hospital_id, site.researcher_id, source, "incoming/a"), SMP_OK);
    CHECK_STATUS(smp_seal_study(site.config, site.hospital, site.hospital_id, site.researcher_id, source, "incoming/a"), SMP_ERR_PACKAGE_EXISTS);
    report = smp_verify_package(site.config, site.researcher, "incoming/a/");
    CHECK(report != NULL && report[0] == '{');
    CHECK_STATUS(smp_unseal_study(site.config, site.researcher, "incoming/a", plain), SMP_OK);
    bytes = check_read(check_path(plain, "one"), &size);
    CHECK(bytes != NULL && size == 10 && memcmp(bytes, "first file", 10) == 0);
    free(bytes);
    bytes = check_read(check_path(plain, "below/two"), &size);
    CHECK(bytes != NULL && size == 0);
    free(bytes);

    /* Who is not meant cannot, and who is not confirmed is not sealed for. */
    nobody = smp_keystore_generate(stranger, SMP_KEY_ECDH_P384, "x");
    CHECK(nobody != NULL);
    CHECK_NULL(smp_verify_package(site.config, stranger, "incoming/a"), SMP_ERR_UNKNOWN_SENDER);
    CHECK_STATUS(smp_unseal_study(site.config, stranger, "incoming/a", check_path(folder, "x")), SMP_ERR_UNKNOWN_SENDER);
    site_introduce(site.hospital, site.hospital_id, stranger);
    CHECK_NULL(smp_verify_package(site.config, stranger, "incoming/a"), SMP_ERR_NOT_A_RECIPIENT);
    CHECK(!check_exists(check_path(folder, "x")));
    CHECK(smp_keystore_import(site.hospital, "stranger", smp_keystore_export_public(stranger, nobody)) != NULL);
    CHECK_STATUS(smp_seal_study(site.config, site.hospital, site.hospital_id, nobody, source, "incoming/b"), SMP_ERR_KEY_UNCONFIRMED);
    CHECK_STATUS(smp_seal_study(site.config, site.hospital, site.hospital_id, "no-such-id", source, "incoming/b"), SMP_ERR_KEY_NOT_FOUND);
    CHECK_STATUS(smp_seal_study(site.config, site.hospital, site.researcher_id, site.hospital_id, source, "incoming/b"), SMP_ERR_PRIVATE_KEY_MISSING);
    CHECK_STATUS(smp_seal_study(site.config, site.hospital, site.hospital_id, " , ", source, "incoming/b"), SMP_ERR_INVALID_ARGUMENT);
    check_mkdir(check_path(folder, "empty"));
    CHECK_STATUS(smp_seal_study(site.config, site.hospital, site.hospital_id, site.researcher_id, check_path(folder, "empty"), "incoming/b"), SMP_ERR_NOTHING_TO_SEAL);
    CHECK_NULL(smp_verify_package(site.config, site.researcher, "incoming/b"), SMP_ERR_OBJECT_NOT_FOUND);
    check_mkdir(check_path(folder, "store/bare"));
    check_write(check_path(folder, "store/bare/one"), "first file", 10);
    CHECK_NULL(smp_verify_package(site.config, site.researcher, "bare"), SMP_ERR_NOT_SEALED);

    /* One flipped bit in what the store keeps. */
    pack = find_file(check_path(folder, "store/incoming/a"), ".smpp");
    CHECK(pack != NULL);
    if (pack != NULL) {
        flip_byte(pack, 60);
        CHECK_NULL(smp_verify_package(site.config, site.researcher, "incoming/a"), SMP_ERR_INTEGRITY_FAILED);
        CHECK_STATUS(smp_unseal_study(site.config, site.researcher, "incoming/a", check_path(folder, "y")), SMP_ERR_INTEGRITY_FAILED);
        CHECK(!check_exists(check_path(folder, "y/one")));
    }
    CHECK(report[0] == '{'); /* lives with the configuration */
    smp_keystore_free(stranger);
    site_close(&site);
}

/* Instances that are in memory, sealed for the sender too, so that the package can be granted to somebody else afterwards. */
static void sealed_from_memory_and_granted(const char *folder)
{
    struct site site = site_open(folder);
    smp_keystore *newcomer = smp_keystore_open(check_path(folder, "newcomer-keys"), NULL);
    const char *newcomer_id = smp_keystore_generate(newcomer, SMP_KEY_ECDH_P384, "oncology"), *plain = check_path(folder, "plain");
    smp_request *request = smp_request_new(NULL);
    char both[128], *bytes;
    size_t size = 0;
    CHECK(newcomer_id != NULL && request != NULL);
    snprintf(both, sizeof both, "%s,%s", site.researcher_id, site.hospital_id);
    CHECK_STATUS(smp_seal_instances(site.config, site.hospital, site.hospital_id, both, request, "memory/a"), SMP_ERR_NOTHING_TO_SEAL);
    CHECK_STATUS(smp_request_add_instance(request, (const uint8_t *)"first", 5), SMP_OK);
    CHECK_STATUS(smp_request_add_instance(request, (const uint8_t *)"second", 6), SMP_OK);
    CHECK_STATUS(smp_seal_instances(site.config, site.hospital, site.hospital_id, both, request, "memory/a"), SMP_OK);
    CHECK_STATUS(smp_seal_instances(site.config, site.hospital, site.hospital_id, both, request, "memory/a"), SMP_ERR_PACKAGE_EXISTS);
    CHECK_STATUS(smp_seal_instances(site.config, site.hospital, site.hospital_id, site.researcher_id, request, "memory/b"), SMP_OK);

    site_introduce(site.hospital, site.hospital_id, newcomer);
    CHECK_NULL(smp_verify_package(site.config, newcomer, "memory/a"), SMP_ERR_NOT_A_RECIPIENT);
    CHECK_STATUS(smp_grant_study(site.config, site.hospital, newcomer_id, "memory/a"), SMP_ERR_KEY_NOT_FOUND);
    site_introduce(newcomer, newcomer_id, site.hospital);
    CHECK_STATUS(smp_grant_study(site.config, site.hospital, newcomer_id, "memory/a"), SMP_OK);
    CHECK_STATUS(smp_grant_study(site.config, site.hospital, newcomer_id, "memory/b"), SMP_ERR_NOT_A_RECIPIENT);
    CHECK_STATUS(smp_grant_study(site.config, site.researcher, site.researcher_id, "memory/a"), SMP_ERR_PRIVATE_KEY_MISSING);
    CHECK_STATUS(smp_grant_study(site.config, site.hospital, " ", "memory/a"), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_grant_study(site.config, site.hospital, newcomer_id, "memory/none"), SMP_ERR_OBJECT_NOT_FOUND);
    CHECK_STATUS(smp_unseal_study(site.config, newcomer, "memory/a", plain), SMP_OK);
    bytes = check_read(check_path(plain, "instance-000002.dcm"), &size);
    CHECK(bytes != NULL && size == 6 && memcmp(bytes, "second", 6) == 0);
    free(bytes);
    CHECK(smp_verify_package(site.config, site.researcher, "memory/a") != NULL);

    CHECK_STATUS(smp_seal_instances(NULL, site.hospital, "a", "b", request, "c"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_seal_instances(site.config, NULL, "a", "b", request, "c"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_seal_instances(site.config, site.hospital, NULL, "b", request, "c"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_seal_instances(site.config, site.hospital, "a", NULL, request, "c"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_seal_instances(site.config, site.hospital, "a", "b", NULL, "c"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_seal_instances(site.config, site.hospital, "a", "b", request, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_grant_study(NULL, site.hospital, "a", "b"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_grant_study(site.config, NULL, "a", "b"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_grant_study(site.config, site.hospital, NULL, "b"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_grant_study(site.config, site.hospital, "a", NULL), SMP_ERR_NULL_ARGUMENT);
    smp_request_free(request);
    CHECK_STATUS(smp_seal_instances(site.config, site.hospital, "a", "b", request, "c"), SMP_ERR_INVALID_HANDLE);
    smp_keystore_free(newcomer);
    site_close(&site);
}

static void dead_handles_and_nulls(const char *folder)
{
    smp_config *config = smp_config_new(), *dead = smp_config_new();
    smp_keystore *keys = smp_keystore_open(check_path(folder, "keys"), NULL), *gone = smp_keystore_open(check_path(folder, "keys"), NULL);
    smp_config_free(dead);
    smp_keystore_free(gone);
    CHECK(config != NULL && keys != NULL);
    CHECK_STATUS(smp_seal_study(NULL, keys, "a", "b", "c", "d"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_seal_study(config, NULL, "a", "b", "c", "d"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_seal_study(config, keys, NULL, "b", "c", "d"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_seal_study(config, keys, "a", NULL, "c", "d"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_seal_study(config, keys, "a", "b", NULL, "d"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_seal_study(config, keys, "a", "b", "c", NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_seal_study(dead, keys, "a", "b", "c", "d"), SMP_ERR_INVALID_HANDLE);
    CHECK_STATUS(smp_seal_study(config, gone, "a", "b", "c", "d"), SMP_ERR_INVALID_HANDLE);
    CHECK_STATUS(smp_seal_study((smp_config *)keys, keys, "a", "b", "c", "d"), SMP_ERR_INVALID_HANDLE);
    CHECK_NULL(smp_verify_package(NULL, keys, "d"), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_verify_package(config, NULL, "d"), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_verify_package(config, keys, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_verify_package(dead, keys, "d"), SMP_ERR_INVALID_HANDLE);
    CHECK_NULL(smp_verify_package(config, gone, "d"), SMP_ERR_INVALID_HANDLE);
    CHECK_STATUS(smp_unseal_study(NULL, keys, "d", "e"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_unseal_study(config, NULL, "d", "e"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_unseal_study(config, keys, NULL, "e"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_unseal_study(config, keys, "d", NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_unseal_study(dead, keys, "d", "e"), SMP_ERR_INVALID_HANDLE);
    CHECK_STATUS(smp_unseal_study(config, gone, "d", "e"), SMP_ERR_INVALID_HANDLE);
    smp_config_free(config);
    smp_keystore_free(keys);
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    dead_handles_and_nulls(argv[1]);
    sealed_and_opened(argv[1]);
    check_mkdir(check_path(argv[1], "memory-site"));
    sealed_from_memory_and_granted(check_path(argv[1], "memory-site"));
    return check_end(argv[0]);
}
