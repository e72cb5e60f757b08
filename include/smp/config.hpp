// What a program sets: configuration, keys, requests.
#ifndef SMP_CONFIG_HPP
#define SMP_CONFIG_HPP

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "error.hpp"

namespace smp {

// A configuration key: name, help, default.
struct key {
    std::string name, help, standard;
};

// Every key that a configuration has.
inline std::vector<key> config_keys() {
    std::vector<key> keys(detail::count(smp_config_key_count()));
    for (std::size_t at = 0; at < keys.size(); at++) {
        const std::int64_t index = detail::index(at);
        keys[at] = {detail::text(smp_config_key_name(index)), detail::text(smp_config_key_help(index)),
                    detail::text(smp_config_key_default(index))};
    }
    return keys;
}

// Settings by their dotted names.
class config : public detail::handle<smp_config, smp_config_free> {
public:
    // The defaults.
    config() : handle(smp_config_new()) {}
    // A JSON file.
    static config load(const std::filesystem::path &path) { return config(smp_config_load(path.string().c_str())); }
    // ~/.smp/config.json.
    static config load() { return config(smp_config_load(nullptr)); }
    config clone() const { return config(smp_config_clone(get())); }

    config &set(const std::string &key, const std::string &value) {
        detail::check(smp_config_set(get(), key.c_str(), value.c_str()));
        return *this;
    }
    config &set(const std::string &key, const char *value) { return set(key, std::string(value)); }
    config &set(const std::string &key, bool value) { return set(key, std::string(value ? "true" : "false")); }
    config &set(const std::string &key, int value) { return set(key, static_cast<std::int64_t>(value)); }
    config &set(const std::string &key, std::int64_t value) {
        detail::check(smp_config_set_int(get(), key.c_str(), value));
        return *this;
    }
    config &set(const std::string &key, double value) {
        detail::check(smp_config_set_real(get(), key.c_str(), value));
        return *this;
    }
    config &set(const std::string &key, const std::filesystem::path &value) { return set(key, value.string()); }
    config &merge_json(const std::string &json) {
        detail::check(smp_config_merge_json(get(), json.c_str()));
        return *this;
    }
    // A value; empty for a secret, and for a key that has none.
    std::optional<std::string> value(const std::string &key) const { return detail::maybe(smp_config_get(get(), key.c_str())); }
    // Throws when values do not fit together.
    void check() const { detail::check(smp_config_check(get())); }

private:
    explicit config(smp_config *made) : handle(made) {}
};

// Keys of this researcher or hospital, and of its peers.
class keystore : public detail::handle<smp_keystore, smp_keystore_free> {
public:
    explicit keystore(const std::filesystem::path &directory, const std::optional<std::string> &passphrase = std::nullopt)
        : handle(smp_keystore_open(directory.string().c_str(), detail::or_null(passphrase))) {}
    // The configured or usual folder.
    keystore() : handle(smp_keystore_open(nullptr, nullptr)) {}

    std::string generate(const std::string &purpose, std::int32_t key_type = SMP_KEY_ECDH_P384) {
        return detail::text(smp_keystore_generate(get(), key_type, purpose.c_str()));
    }
    std::string generate_on_token(const std::filesystem::path &module, const std::string &token, const std::string &pin, const std::string &purpose) {
        return detail::text(smp_keystore_generate_on_token(get(), module.string().c_str(), token.c_str(), pin.c_str(), purpose.c_str()));
    }
    std::string import(const std::string &label, const std::string &pem) { return detail::text(smp_keystore_import(get(), label.c_str(), pem.c_str())); }
    std::string export_public(const std::string &id) const { return detail::text(smp_keystore_export_public(get(), id.c_str())); }
    std::string export_card(const std::string &id) const { return detail::text(smp_keystore_export_card(get(), id.c_str())); }
    std::string export_certificate(const std::string &id) const { return detail::text(smp_keystore_export_certificate(get(), id.c_str())); }
    std::string fingerprint(const std::string &id) const { return detail::text(smp_keystore_fingerprint(get(), id.c_str())); }
    void confirm(const std::string &id, const std::string &fingerprint) { detail::check(smp_keystore_confirm(get(), id.c_str(), fingerprint.c_str())); }
    // RFC 3339; nothing: never.
    void set_expiry(const std::string &id, const std::optional<std::string> &time) {
        detail::check(smp_keystore_set_expiry(get(), id.c_str(), detail::or_null(time)));
    }
    // RFC 3339; empty when the keys do not expire.
    std::optional<std::string> expires(const std::string &id) const {
        const std::string time = detail::text(smp_keystore_expires(get(), id.c_str()));
        return time.empty() ? std::nullopt : std::optional<std::string>(time);
    }
    std::string created(const std::string &id) const { return detail::text(smp_keystore_created(get(), id.c_str())); }
    // Ids of all keys.
    std::vector<std::string> ids() const {
        std::vector<std::string> ids(detail::count(smp_keystore_count(get())));
        for (std::size_t at = 0; at < ids.size(); at++) ids[at] = detail::text(smp_keystore_key_id(get(), detail::index(at)));
        return ids;
    }
    bool has_private(const std::string &id) const { return detail::check(smp_keystore_has_private(get(), id.c_str())) == 1; }
    std::string rotate(const std::string &id) { return detail::text(smp_keystore_rotate(get(), id.c_str())); }
    void remove(const std::string &id) { detail::check(smp_keystore_remove(get(), id.c_str())); }
};

// Which study, and how it is processed.
class request : public detail::handle<smp_request, smp_request_free> {
public:
    explicit request(const std::string &remote_path) : handle(smp_request_new(remote_path.c_str())) {}
    // Of instances in memory.
    request() : handle(smp_request_new(nullptr)) {}

    request &set(const std::string &key, const std::string &value) {
        detail::check(smp_request_set(get(), key.c_str(), value.c_str()));
        return *this;
    }
    request &set(const std::string &key, const char *value) { return set(key, std::string(value)); }
    request &set(const std::string &key, bool value) { return set(key, std::string(value ? "true" : "false")); }
    request &set(const std::string &key, int value) { return set(key, static_cast<std::int64_t>(value)); }
    request &set(const std::string &key, std::int64_t value) {
        detail::check(smp_request_set_int(get(), key.c_str(), value));
        return *this;
    }
    request &set(const std::string &key, double value) {
        detail::check(smp_request_set_real(get(), key.c_str(), value));
        return *this;
    }
    request &set(const std::string &key, const std::filesystem::path &value) { return set(key, value.string()); }
    // A DICOM file in memory, which is copied.
    request &add_instance(const void *bytes, std::size_t length) {
        detail::check(smp_request_add_instance(get(), static_cast<const std::uint8_t *>(bytes), detail::index(length)));
        return *this;
    }
    request &add_instance(const std::vector<std::uint8_t> &bytes) { return add_instance(bytes.data(), bytes.size()); }
};

} // namespace smp

#endif
