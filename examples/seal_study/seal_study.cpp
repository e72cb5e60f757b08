// The hospital's side in C++: seals a study folder for a researcher.
//
//   seal_study STUDY_FOLDER WORK_FOLDER RESEARCHER.pem FINGERPRINT REMOTE_PATH [KEY=VALUE ...]
//
// The same program as seal_study.c beside it; handles end by themselves and failures are exceptions.
//
//   c++ -std=c++11 -Iinclude examples/seal_study/seal_study.cpp -Lbuild/lib -lsmp -Wl,-rpath,build/lib -o seal_study
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

#include "smp.h"

namespace {

/// What the library said of the last failure on this thread.
struct Failure : std::runtime_error {
    explicit Failure(const std::string &what) : std::runtime_error(what + ": " + smp_last_error_message() + "\n  " + smp_last_error_hint()) {}
};

void check(int32_t status, const std::string &what)
{
    if (status != SMP_OK) throw Failure(what);
}

std::string text(const char *value, const std::string &what)
{
    if (value == nullptr) throw Failure(what);
    return value;
}

template <typename T> using Handle = std::unique_ptr<T, void (*)(T *)>;

template <typename T> Handle<T> own(T *handle, void (*free)(T *), const std::string &what)
{
    if (handle == nullptr) throw Failure(what);
    return Handle<T>(handle, free);
}

/// The identity that seals: made on the first run, used on every later one.
std::string own_identity(smp_keystore *keys)
{
    for (int64_t i = 0; i < smp_keystore_count(keys); ++i) {
        const std::string id = text(smp_keystore_key_id(keys, i), "listing keys");
        if (smp_keystore_has_private(keys, id.c_str()) == 1) return id;
    }
    return text(smp_keystore_generate(keys, SMP_KEY_ECDH_P384, "sealing studies"), "making an identity");
}

/// The researcher's key id: imported on the first run, known on every later one, and believed because of the fingerprint alone.
std::string know(smp_keystore *keys, const std::string &pem, const std::string &fingerprint)
{
    std::string id;
    if (const char *imported = smp_keystore_import(keys, "researcher", pem.c_str())) {
        id = imported;
    } else if (smp_last_error() == SMP_ERR_KEY_EXISTS) {
        for (int64_t i = 0; id.empty() && i < smp_keystore_count(keys); ++i) {
            const std::string known = text(smp_keystore_key_id(keys, i), "listing keys");
            if (text(smp_keystore_export_public(keys, known.c_str()), "a public key") == pem) id = known;
        }
    }
    if (id.empty()) throw Failure("importing the researcher's keys");
    check(smp_keystore_confirm(keys, id.c_str(), fingerprint.c_str()), "confirming the researcher's fingerprint");
    return id;
}

void run(const std::string &study, const std::string &work, const std::string &pem_path, const std::string &fingerprint,
         const std::string &remote_path, char **overrides, int count)
{
    auto config = own(smp_config_new(), smp_config_free, "configuration");
    auto set = [&](const std::string &key, const std::string &value) { check(smp_config_set(config.get(), key.c_str(), value.c_str()), key); };
    set("cloud.bucket", work + "/store");
    set("workspace", work + "/workspace");
    set("audit_log_path", work + "/audit");
    set("user_id", "imaging@hospital.example");
    for (int i = 0; i < count; ++i) {
        const std::string pair = overrides[i];
        const auto equals = pair.find('=');
        if (equals == std::string::npos) throw std::runtime_error(pair + " is not KEY=VALUE");
        set(pair.substr(0, equals), pair.substr(equals + 1));
    }
    auto keys = own(smp_keystore_open((work + "/hospital-keys").c_str(), nullptr), smp_keystore_free, "opening the key store");
    const std::string sender = own_identity(keys.get());
    std::ofstream(work + "/hospital.pem") << text(smp_keystore_export_public(keys.get(), sender.c_str()), "our public keys");
    std::cout << "Our fingerprint, to be read out: " << text(smp_keystore_fingerprint(keys.get(), sender.c_str()), "our fingerprint") << '\n';

    std::ostringstream pem;
    pem << std::ifstream(pem_path).rdbuf();
    const std::string researcher = know(keys.get(), pem.str(), fingerprint);
    // The sender seals for itself too: it can check what it sent, and grant the study to somebody else later (smp_grant_study).
    const std::string recipients = researcher + "," + sender;
    check(smp_seal_study(config.get(), keys.get(), sender.c_str(), recipients.c_str(), study.c_str(), remote_path.c_str()), "sealing");
    std::cout << "Sealed and verified: " << text(smp_verify_package(config.get(), keys.get(), remote_path.c_str()), "checking") << '\n';
}

} // namespace

int main(int argc, char **argv)
{
    if (argc < 6) {
        std::cerr << "usage: " << argv[0] << " STUDY_FOLDER WORK_FOLDER RESEARCHER.pem FINGERPRINT REMOTE_PATH [KEY=VALUE ...]\n";
        return 2;
    }
    try {
        run(argv[1], argv[2], argv[3], argv[4], argv[5], argv + 6, argc - 6);
        return 0;
    } catch (const std::exception &failure) {
        std::cerr << failure.what() << '\n';
        return 1;
    }
}
