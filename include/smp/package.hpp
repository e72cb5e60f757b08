// Packages and their audit: sealing, verifying, opening; the log.
#ifndef SMP_PACKAGE_HPP
#define SMP_PACKAGE_HPP

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "config.hpp"

namespace smp {

// An audit log, to be verified and exported.
class audit : public detail::handle<smp_audit, smp_audit_free> {
public:
    explicit audit(const std::filesystem::path &path) : handle(smp_audit_open(path.string().c_str())) {}

    std::size_t count() const { return detail::count(smp_audit_count(get())); }
    // Empty when the log is intact, else the index of the first record that is not.
    std::optional<std::size_t> first_bad() const {
        std::int64_t bad = -1;
        const std::int32_t status = smp_audit_verify(get(), &bad);
        if (status >= 0) return std::nullopt;
        if (bad < 0) throw error::last();
        return static_cast<std::size_t>(bad);
    }
    std::string head() const { return detail::text(smp_audit_head(get())); }
    std::size_t export_to(const std::filesystem::path &path, const std::string &format = "json", const std::optional<std::string> &start = std::nullopt,
                          const std::optional<std::string> &end = std::nullopt) const {
        return detail::count(smp_audit_export(get(), format.c_str(), path.string().c_str(), detail::or_null(start), detail::or_null(end)));
    }
};

// The hospital's side, and packages. All wait.
inline void seal_study(const config &config, const keystore &keys, const std::string &sender, const std::string &recipients,
                       const std::filesystem::path &folder, const std::string &remote_path) {
    detail::check(smp_seal_study(config.get(), keys.get(), sender.c_str(), recipients.c_str(), folder.string().c_str(), remote_path.c_str()));
}
inline void seal_instances(const config &config, const keystore &keys, const std::string &sender, const std::string &recipients, const request &instances,
                           const std::string &remote_path) {
    detail::check(smp_seal_instances(config.get(), keys.get(), sender.c_str(), recipients.c_str(), instances.get(), remote_path.c_str()));
}
inline void grant_study(const config &config, const keystore &keys, const std::string &recipients, const std::string &remote_path) {
    detail::check(smp_grant_study(config.get(), keys.get(), recipients.c_str(), remote_path.c_str()));
}
// JSON.
inline std::string verify_package(const config &config, const keystore &keys, const std::string &remote_path) {
    return detail::text(smp_verify_package(config.get(), keys.get(), remote_path.c_str()));
}
inline void unseal_study(const config &config, const keystore &keys, const std::string &remote_path, const std::filesystem::path &folder) {
    detail::check(smp_unseal_study(config.get(), keys.get(), remote_path.c_str(), folder.string().c_str()));
}

} // namespace smp

#endif
