/* Key store: identities, peers, confirmation. */
#include "check.h"

/* Groups of four hexadecimal digits, 64 in all: a SHA-256. */
static int is_fingerprint(const char *text)
{
    int digits = 0;
    if (text == NULL) return 0;
    for (; *text != 0; text++) {
        if (strchr("0123456789abcdefABCDEF", *text) != NULL) digits++;
        else if (strchr(" :-", *text) == NULL || digits % 4 != 0) return 0;
    }
    return digits == 64;
}

static void own_keys_and_peers(const char *folder)
{
    smp_keystore *mine = smp_keystore_open(check_path(folder, "mine"), NULL);
    smp_keystore *theirs = smp_keystore_open(check_path(folder, "theirs"), NULL);
    smp_keystore *again;
    const char *id, *pem, *second, *peer;
    CHECK(mine != NULL && theirs != NULL);
    CHECK_COUNT(smp_keystore_count(mine), 0);
    CHECK_NULL(smp_keystore_key_id(mine, 0), SMP_ERR_OUT_OF_RANGE);

    id = smp_keystore_generate(mine, SMP_KEY_ECDH_P384, "hospital-data-transfer");
    CHECK(id != NULL && strlen(id) > 0);
    CHECK_COUNT(smp_keystore_count(mine), 1);
    CHECK_TEXT(smp_keystore_key_id(mine, 0), id);
    CHECK_NULL(smp_keystore_key_id(mine, -1), SMP_ERR_OUT_OF_RANGE);
    CHECK_COUNT(smp_keystore_has_private(mine, id), 1);
    CHECK(is_fingerprint(smp_keystore_fingerprint(mine, id)));
    pem = smp_keystore_export_public(mine, id);
    CHECK(pem != NULL && strstr(pem, "-----BEGIN PUBLIC KEY-----") == pem);
    CHECK(pem != NULL && strstr(pem + 1, "-----BEGIN PUBLIC KEY-----") != NULL);
    CHECK(pem != NULL && strstr(pem, "PRIVATE") == NULL);
    CHECK(smp_keystore_export_public(mine, id) == pem);

    peer = smp_keystore_import(theirs, "dr smith", pem);
    CHECK_TEXT(peer, id);
    CHECK_COUNT(smp_keystore_has_private(theirs, peer), 0);
    CHECK_TEXT(smp_keystore_fingerprint(theirs, peer), smp_keystore_fingerprint(mine, id));
    CHECK_STATUS(smp_keystore_confirm(theirs, peer, "0000 0000"), SMP_ERR_FINGERPRINT_MISMATCH);
    CHECK_STATUS(smp_keystore_confirm(theirs, peer, ""), SMP_ERR_FINGERPRINT_MISMATCH);
    CHECK_STATUS(smp_keystore_confirm(theirs, peer, smp_keystore_fingerprint(mine, id)), SMP_OK);

    second = smp_keystore_rotate(mine, id);
    CHECK(second != NULL && strcmp(second, id) != 0);
    CHECK_COUNT(smp_keystore_count(mine), 2);
    CHECK_COUNT(smp_keystore_has_private(mine, id), 1);

    /* Another handle to the folder sees the same store, and outlives the first. */
    again = smp_keystore_open(check_path(folder, "mine"), NULL);
    CHECK(again != NULL && again != mine);
    CHECK_STATUS(smp_keystore_remove(again, second), SMP_OK);
    smp_keystore_free(mine); /* and with it the strings `id`, `pem` and `second` */
    CHECK_COUNT(smp_keystore_count(again), 1);
    smp_keystore_free(again);
    smp_keystore_free(theirs);
}

static void refusals(const char *folder)
{
    smp_keystore *store = smp_keystore_open(check_path(folder, "refusals"), NULL);
    const char *id = smp_keystore_generate(store, SMP_KEY_ECDH_P384, "x");
    CHECK_NULL(smp_keystore_generate(store, 0, "x"), SMP_ERR_INVALID_ARGUMENT);
    CHECK_NULL(smp_keystore_generate(store, 2, "x"), SMP_ERR_INVALID_ARGUMENT);
    CHECK_NULL(smp_keystore_import(store, "peer", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), SMP_ERR_KEY_INVALID);
    CHECK_NULL(smp_keystore_import(store, "peer", ""), SMP_ERR_KEY_INVALID);
    CHECK_NULL(smp_keystore_export_public(store, "no-such-id"), SMP_ERR_KEY_NOT_FOUND);
    CHECK_NULL(smp_keystore_fingerprint(store, "no-such-id"), SMP_ERR_KEY_NOT_FOUND);
    CHECK_STATUS(smp_keystore_confirm(store, "no-such-id", "0000"), SMP_ERR_KEY_NOT_FOUND);
    CHECK_STATUS(smp_keystore_has_private(store, "../../etc/passwd"), SMP_ERR_KEY_NOT_FOUND);
    CHECK_NULL(smp_keystore_rotate(store, "no-such-id"), SMP_ERR_KEY_NOT_FOUND);
    CHECK_STATUS(smp_keystore_remove(store, "no-such-id"), SMP_ERR_KEY_NOT_FOUND);
    CHECK_STATUS(smp_keystore_remove(store, id), SMP_OK);
    CHECK_COUNT(smp_keystore_count(store), 0);
    smp_keystore_free(store);

    check_write(check_path(folder, "file"), "x", 1);
    CHECK_NULL(smp_keystore_open(check_path(folder, "file"), NULL), SMP_ERR_KEY_STORE_UNAVAILABLE);
}

static void passphrase(const char *folder)
{
    const char *path = check_path(folder, "locked");
    smp_keystore *store;
    if (check_is_quick()) return; /* scrypt is meant to be slow, and under valgrind it takes minutes */
    store = smp_keystore_open(path, "correct horse battery staple");
    CHECK(store != NULL);
    CHECK(smp_keystore_generate(store, SMP_KEY_ECDH_P384, "x") != NULL);
    CHECK_NULL(smp_keystore_open(path, "wrong"), SMP_ERR_WRONG_PASSPHRASE);
    smp_keystore_free(store);
    CHECK_NULL(smp_keystore_open(path, "wrong"), SMP_ERR_WRONG_PASSPHRASE);
    store = smp_keystore_open(path, "correct horse battery staple");
    CHECK_COUNT(smp_keystore_count(store), 1);
    smp_keystore_free(store);
}

static void dead_handles_and_nulls(const char *folder)
{
    smp_keystore *store = smp_keystore_open(check_path(folder, "dead"), NULL);
    smp_config *config = smp_config_new();
    int i;
    CHECK_NULL(smp_keystore_generate(store, SMP_KEY_ECDH_P384, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_import(store, NULL, "x"), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_import(store, "x", NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_export_public(store, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_fingerprint(store, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_keystore_confirm(store, NULL, "x"), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_keystore_confirm(store, "x", NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_keystore_has_private(store, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_rotate(store, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_keystore_remove(store, NULL), SMP_ERR_NULL_ARGUMENT);
    smp_keystore_free(store);
    for (i = 0; i < 3 + INVENTED_HANDLES; i++) {
        smp_keystore *bad = i == 0 ? NULL : i == 1 ? store : i == 2 ? (smp_keystore *)config : check_invented(i - 3);
        int32_t expected = i == 0 ? SMP_ERR_NULL_ARGUMENT : SMP_ERR_INVALID_HANDLE;
        CHECK_NULL(smp_keystore_generate(bad, SMP_KEY_ECDH_P384, "x"), expected);
        CHECK_NULL(smp_keystore_import(bad, "x", "x"), expected);
        CHECK_NULL(smp_keystore_export_public(bad, "x"), expected);
        CHECK_NULL(smp_keystore_fingerprint(bad, "x"), expected);
        CHECK_STATUS(smp_keystore_confirm(bad, "x", "x"), expected);
        CHECK_COUNT(smp_keystore_count(bad), expected);
        CHECK_NULL(smp_keystore_key_id(bad, 0), expected);
        CHECK_STATUS(smp_keystore_has_private(bad, "x"), expected);
        CHECK_NULL(smp_keystore_rotate(bad, "x"), expected);
        CHECK_STATUS(smp_keystore_remove(bad, "x"), expected);
        smp_keystore_free(bad);
    }
    CHECK_STATUS(smp_config_check(config), SMP_OK);
    smp_config_free(config);
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    own_keys_and_peers(argv[1]);
    refusals(argv[1]);
    passphrase(argv[1]);
    dead_handles_and_nulls(argv[1]);
    return check_end(argv[0]);
}
