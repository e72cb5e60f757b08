// The library itself: version, log, hardening, erasure.
#ifndef SMP_LIBRARY_HPP
#define SMP_LIBRARY_HPP

#include <cstdint>
#include <filesystem>
#include <string>

#include "error.hpp"

namespace smp {

// Version of the library that was loaded.
inline std::string version() { return smp_version(); }
// Version of the ABI of the library that was loaded; SMP_ABI_VERSION is that of this header.
inline std::int32_t abi_version() noexcept { return smp_abi_version(); }
// What the library can do on this machine: JSON.
inline std::string capabilities() { return detail::text(smp_capabilities()); }
inline std::string status_text(std::int32_t status) { return smp_status_text(status); }
inline std::size_t live_handles() { return detail::count(smp_live_handles()); }
// Appends the log of the process to a file; SMP_LOG_OFF ends it.
inline void log_to_file(const std::filesystem::path &path, std::int32_t level) { detail::check(smp_log_to_file(path.string().c_str(), level)); }
// Sum of SMP_HARDEN_*; concerns the whole process and cannot be undone.
inline void harden_process(std::int32_t flags) { detail::check(smp_harden_process(flags)); }
// Overwrites and removes; the status says what that is worth on the file system (SMP_OK or SMP_PARTIAL). Waits.
inline std::int32_t erase_file(const std::filesystem::path &path, std::int32_t passes = 1) {
    return detail::check(smp_erase_file(path.string().c_str(), passes));
}
inline std::int32_t erase_directory(const std::filesystem::path &path, std::int32_t passes = 1) {
    return detail::check(smp_erase_directory(path.string().c_str(), passes));
}

} // namespace smp

#endif
