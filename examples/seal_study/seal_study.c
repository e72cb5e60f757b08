/* The hospital's side in C: seals a study folder for a researcher, and later for a second one.
 *
 *   seal_study STUDY_FOLDER WORK_FOLDER RESEARCHER.pem FINGERPRINT REMOTE_PATH [KEY=VALUE ...]
 *
 * RESEARCHER.pem came by mail; FINGERPRINT is what the researcher read out over the telephone. The store is the folder WORK_FOLDER/store unless
 * KEY=VALUE says otherwise, for example cloud.provider=s3 cloud.bucket=NAME. The hospital's own public keys, which the researcher needs, are
 * written to WORK_FOLDER/hospital.pem.
 *
 *   cc -std=c99 -Iinclude examples/seal_study/seal_study.c -Lbuild/lib -lsmp -Wl,-rpath,build/lib -o seal_study */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smp.h"

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, smp_last_error_message());
    if (smp_last_error_hint()[0] != 0) fprintf(stderr, "  %s\n", smp_last_error_hint());
    if (smp_last_error_retryable()) fprintf(stderr, "  the same command goes on where this one stopped\n");
    return 0;
}

static int set_path(smp_config *config, const char *key, const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return smp_config_set(config, key, path) == SMP_OK || failed(key);
}

static smp_config *configure(const char *work, char **overrides, int count)
{
    smp_config *config = smp_config_new();
    int i, ok = config != NULL && set_path(config, "cloud.bucket", work, "store") && set_path(config, "workspace", work, "workspace")
        && set_path(config, "audit_log_path", work, "audit");
    ok = ok && (smp_config_set(config, "user_id", "imaging@hospital.example") == SMP_OK || failed("user_id"));
    for (i = 0; ok && i < count; i++) {
        char *value = strchr(overrides[i], '=');
        ok = value != NULL;
        if (!ok) fprintf(stderr, "%s is not KEY=VALUE\n", overrides[i]);
        if (ok) *value = 0;
        ok = ok && (smp_config_set(config, overrides[i], value + 1) == SMP_OK || failed(overrides[i]));
    }
    if (!ok) smp_config_free(config);
    return ok ? config : NULL;
}

/* The whole text of a small file, or NULL. */
static char *read_text(const char *path)
{
    static char text[65536];
    FILE *file = fopen(path, "rb");
    size_t size = file != NULL ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file != NULL) fclose(file);
    text[size] = 0;
    if (size == 0) perror(path);
    return size > 0 ? text : NULL;
}

/* An identity made on the first run, used on every later one; its public keys for the researcher. */
static const char *own_identity(smp_keystore *keys, const char *work)
{
    const char *id = NULL, *pem;
    char path[4096];
    int64_t i;
    FILE *file;
    for (i = 0; id == NULL && i < smp_keystore_count(keys); i++) {
        const char *candidate = smp_keystore_key_id(keys, i);
        if (candidate != NULL && smp_keystore_has_private(keys, candidate) == 1) id = candidate;
    }
    if (id == NULL) id = smp_keystore_generate(keys, SMP_KEY_ECDH_P384, "sealing studies");
    pem = id != NULL ? smp_keystore_export_public(keys, id) : NULL;
    if (pem == NULL) {
        failed("the hospital's identity");
        return NULL;
    }
    snprintf(path, sizeof path, "%s/hospital.pem", work);
    file = fopen(path, "w");
    if (file == NULL || fputs(pem, file) == EOF || fclose(file) != 0) {
        perror(path);
        return NULL;
    }
    printf("Our fingerprint, to be read out: %s\n", smp_keystore_fingerprint(keys, id));
    return id;
}

/* Takes the researcher's keys in, and believes them only because of the fingerprint. A second run finds them known already. */
static const char *know(smp_keystore *keys, const char *pem_path, const char *fingerprint)
{
    char *pem = read_text(pem_path);
    const char *id = pem != NULL ? smp_keystore_import(keys, "researcher", pem) : NULL;
    int64_t i;
    if (pem != NULL && id == NULL && smp_last_error() == SMP_ERR_KEY_EXISTS) {
        for (i = 0; id == NULL && i < smp_keystore_count(keys); i++) {
            const char *known = smp_keystore_key_id(keys, i);
            if (known != NULL && strcmp(smp_keystore_export_public(keys, known), pem) == 0) id = known;
        }
    }
    if (id == NULL || smp_keystore_confirm(keys, id, fingerprint) != SMP_OK) {
        failed("the researcher's keys");
        return NULL;
    }
    return id;
}

int main(int argc, char **argv)
{
    smp_config *config;
    smp_keystore *keys;
    char keys_folder[4096], recipients[256];
    const char *sender, *researcher;
    int ok;
    if (argc < 6) {
        fprintf(stderr, "usage: %s STUDY_FOLDER WORK_FOLDER RESEARCHER.pem FINGERPRINT REMOTE_PATH [KEY=VALUE ...]\n", argv[0]);
        return 2;
    }
    config = configure(argv[2], argv + 6, argc - 6);
    snprintf(keys_folder, sizeof keys_folder, "%s/hospital-keys", argv[2]);
    keys = smp_keystore_open(keys_folder, NULL);
    if (config == NULL || keys == NULL) return failed("opening") ? 0 : 1;
    sender = own_identity(keys, argv[2]);
    researcher = sender != NULL ? know(keys, argv[3], argv[4]) : NULL;
    ok = researcher != NULL;
    if (ok) {
        /* The sender seals for itself too: it can check what it sent, and grant the study to somebody else later (smp_grant_study). */
        snprintf(recipients, sizeof recipients, "%s,%s", researcher, sender);
        ok = smp_seal_study(config, keys, sender, recipients, argv[1], argv[5]) == SMP_OK || failed("sealing");
    }
    if (ok) {
        const char *report = smp_verify_package(config, keys, argv[5]);
        ok = report != NULL || failed("checking what was sealed");
        if (ok) printf("Sealed and verified: %s\n", report);
    }
    smp_keystore_free(keys);
    smp_config_free(config);
    return ok ? 0 : 1;
}
