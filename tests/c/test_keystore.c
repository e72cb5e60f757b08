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

/* A text that begins and ends like this; for what is signed, and hence differs each time. */
static int is_framed(const char *text, const char *begin, const char *end)
{
    size_t length = text == NULL ? 0 : strlen(text);
    return length > strlen(begin) + strlen(end) && strncmp(text, begin, strlen(begin)) == 0
        && strcmp(text + length - strlen(end), end) == 0;
}

static void dates(const char *folder)
{
    smp_keystore *store = smp_keystore_open(check_path(folder, "dates"), NULL);
    const char *id = smp_keystore_generate(store, SMP_KEY_ECDH_P384, "x");
    const char *created = smp_keystore_created(store, id);
    CHECK(created != NULL && strlen(created) == 20 && created[19] == 'Z');
    CHECK_TEXT(smp_keystore_expires(store, id), "");
    CHECK_STATUS(smp_keystore_set_expiry(store, id, "2999-12-31T23:59:59Z"), SMP_OK);
    CHECK_TEXT(smp_keystore_expires(store, id), "2999-12-31T23:59:59Z");
    CHECK_STATUS(smp_keystore_set_expiry(store, id, "2999-12-31"), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_keystore_set_expiry(store, id, "2001-01-01T00:00:00Z"), SMP_ERR_INVALID_ARGUMENT);
    CHECK_TEXT(smp_keystore_expires(store, id), "2999-12-31T23:59:59Z");
    CHECK_STATUS(smp_keystore_set_expiry(store, id, ""), SMP_OK);
    CHECK_TEXT(smp_keystore_expires(store, id), "");
    CHECK_STATUS(smp_keystore_set_expiry(store, id, "2999-12-31T23:59:59Z"), SMP_OK);
    CHECK_STATUS(smp_keystore_set_expiry(store, id, NULL), SMP_OK);
    CHECK_TEXT(smp_keystore_expires(store, id), "");
    CHECK_STATUS(smp_keystore_set_expiry(store, "no-such-id", NULL), SMP_ERR_KEY_NOT_FOUND);
    CHECK_NULL(smp_keystore_expires(store, "no-such-id"), SMP_ERR_KEY_NOT_FOUND);
    CHECK_NULL(smp_keystore_created(store, "no-such-id"), SMP_ERR_KEY_NOT_FOUND);
    smp_keystore_free(store);
}

static void cards_and_certificates(const char *folder)
{
    smp_keystore *mine = smp_keystore_open(check_path(folder, "cards"), NULL);
    smp_keystore *theirs = smp_keystore_open(check_path(folder, "cards-of-others"), NULL);
    const char *id = smp_keystore_generate(mine, SMP_KEY_ECDH_P384, "radiology");
    const char *card, *peer;
    CHECK_STATUS(smp_keystore_set_expiry(mine, id, "2999-12-31T23:59:59Z"), SMP_OK);
    card = smp_keystore_export_card(mine, id);
    CHECK(is_framed(card, "smp-key-card/v1\n{\"agree\":\"", "\n"));
    CHECK(card != NULL && strstr(card, "\"expires\":\"2999-12-31T23:59:59Z\",\"label\":\"radiology\"") != NULL);
    peer = smp_keystore_import(theirs, "", card);
    CHECK_TEXT(peer, id);
    CHECK_TEXT(smp_keystore_expires(theirs, peer), "2999-12-31T23:59:59Z");
    CHECK_TEXT(smp_keystore_fingerprint(theirs, peer), smp_keystore_fingerprint(mine, id));
    CHECK_NULL(smp_keystore_export_card(theirs, peer), SMP_ERR_PRIVATE_KEY_MISSING);
    CHECK_NULL(smp_keystore_export_card(mine, "no-such-id"), SMP_ERR_KEY_NOT_FOUND);
    CHECK_NULL(smp_keystore_import(theirs, "", "smp-key-card/v1\n{}\nAAAA\n"), SMP_ERR_KEY_INVALID);
    CHECK(is_framed(smp_keystore_export_certificate(mine, id), "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n"));
    CHECK_NULL(smp_keystore_export_certificate(theirs, peer), SMP_ERR_PRIVATE_KEY_MISSING);
    CHECK(smp_keystore_rotate(mine, id) != NULL);
    CHECK_NULL(smp_keystore_export_certificate(mine, id), SMP_ERR_KEY_EXPIRED);
    smp_keystore_free(mine);
    smp_keystore_free(theirs);
}

/* With the feature `pkcs11` there is no module at this path; without it there are no tokens at all. */
static void tokens(const char *folder)
{
    smp_keystore *store = smp_keystore_open(check_path(folder, "tokens"), NULL);
    int32_t code;
    CHECK(smp_keystore_generate_on_token(store, "/nonexistent/module.so", "ward", "1234", "x") == NULL);
    code = smp_last_error();
    CHECK(code == SMP_ERR_UNSUPPORTED || code == SMP_ERR_KEY_STORE_UNAVAILABLE);
    CHECK(smp_last_error_hint() != NULL);
    CHECK_NULL(smp_keystore_generate_on_token(store, "relative.so", "ward", "1234", "x"), SMP_ERR_INVALID_ARGUMENT);
    CHECK_NULL(smp_keystore_generate_on_token(store, "/nonexistent/module.so", "ward", "", "x"), SMP_ERR_INVALID_ARGUMENT);
    CHECK_NULL(smp_keystore_generate_on_token(store, "/nonexistent/module.so", "ward", "1234", ""), SMP_ERR_INVALID_ARGUMENT);
    CHECK_COUNT(smp_keystore_count(store), 0);
    smp_keystore_free(store);
}

/* Every change of the keys has its line in the audit log beside them, failures included. */
static void recorded(const char *folder)
{
    smp_keystore *mine = smp_keystore_open(check_path(folder, "recorded"), NULL);
    smp_keystore *theirs = smp_keystore_open(check_path(folder, "recorded-elsewhere"), NULL);
    const char *id = smp_keystore_generate(theirs, SMP_KEY_ECDH_P384, "x");
    const char *own = smp_keystore_generate(mine, SMP_KEY_ECDH_P384, "y");
    static const char *events[] = { "keys.generated", "keys.imported", "keys.confirmed", "keys.expiry_set", "keys.rotated", "keys.removed" };
    smp_audit *log;
    char *text;
    size_t i;
    CHECK(smp_keystore_import(mine, "peer", smp_keystore_export_public(theirs, id)) != NULL);
    CHECK_STATUS(smp_keystore_confirm(mine, id, "0000"), SMP_ERR_FINGERPRINT_MISMATCH);
    CHECK_STATUS(smp_keystore_confirm(mine, id, smp_keystore_fingerprint(theirs, id)), SMP_OK);
    CHECK_STATUS(smp_keystore_set_expiry(mine, id, "2999-12-31T23:59:59Z"), SMP_OK);
    CHECK(smp_keystore_rotate(mine, own) != NULL);
    CHECK_STATUS(smp_keystore_remove(mine, own), SMP_OK);
    smp_keystore_free(mine);
    smp_keystore_free(theirs);

    log = smp_audit_open(check_path(folder, "recorded/audit"));
    CHECK(log != NULL);
    CHECK_STATUS(smp_audit_verify(log, NULL), SMP_OK);
    CHECK(smp_audit_export(log, "json", check_path(folder, "recorded.json"), NULL, NULL) >= 7);
    smp_audit_free(log);
    text = check_read(check_path(folder, "recorded.json"), NULL);
    for (i = 0; i < sizeof events / sizeof *events; i++) CHECK(text != NULL && strstr(text, events[i]) != NULL);
    CHECK(text != NULL && strstr(text, "failure") != NULL && strstr(text, "-204") != NULL);
    free(text);
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
    CHECK_STATUS(smp_keystore_set_expiry(store, NULL, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_expires(store, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_created(store, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_export_card(store, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_export_certificate(store, NULL), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_generate_on_token(store, NULL, "x", "x", "x"), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_generate_on_token(store, "/x", NULL, "x", "x"), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_generate_on_token(store, "/x", "x", NULL, "x"), SMP_ERR_NULL_ARGUMENT);
    CHECK_NULL(smp_keystore_generate_on_token(store, "/x", "x", "x", NULL), SMP_ERR_NULL_ARGUMENT);
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
        CHECK_STATUS(smp_keystore_set_expiry(bad, "x", NULL), expected);
        CHECK_NULL(smp_keystore_expires(bad, "x"), expected);
        CHECK_NULL(smp_keystore_created(bad, "x"), expected);
        CHECK_NULL(smp_keystore_export_card(bad, "x"), expected);
        CHECK_NULL(smp_keystore_export_certificate(bad, "x"), expected);
        CHECK_NULL(smp_keystore_generate_on_token(bad, "/x", "x", "x", "x"), expected);
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
    dates(argv[1]);
    cards_and_certificates(argv[1]);
    tokens(argv[1]);
    recorded(argv[1]);
    passphrase(argv[1]);
    dead_handles_and_nulls(argv[1]);
    return check_end(argv[0]);
}
