// What went wrong, and objects that own a handle.
#ifndef SMP_ERROR_HPP
#define SMP_ERROR_HPP

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "../smp.h"

namespace smp {

// A call that failed: what() is its message, which never holds patient data.
class error : public std::runtime_error {
public:
    // The last failure of this thread.
    static error last() { return error(smp_last_error()); }

    // Status, one of SMP_ERR_*.
    std::int32_t code() const noexcept { return code_; }
    // Name of the status, SMP_ERR_KEY_NOT_FOUND for example.
    std::string name() const { return smp_status_name(code_); }
    // What a person can do about it; empty when there is nothing.
    const std::string &hint() const noexcept { return hint_; }
    // Part of the library that failed.
    const std::string &stage() const noexcept { return stage_; }
    // Whether the same call may succeed later.
    bool retryable() const noexcept { return retryable_; }

private:
    explicit error(std::int32_t code)
        : std::runtime_error(smp_last_error_message()), code_(code), hint_(smp_last_error_hint()), stage_(smp_last_error_stage()),
          retryable_(smp_last_error_retryable() == 1) {}

    std::int32_t code_;
    std::string hint_, stage_;
    bool retryable_;
};

namespace detail {

// The status, unless it is an error.
inline std::int32_t check(std::int32_t status) {
    if (status < 0) throw error::last();
    return status;
}

// The count, unless it is an error.
inline std::size_t count(std::int64_t number) {
    if (number < 0) throw error::last();
    return static_cast<std::size_t>(number);
}

inline std::string text(const char *text) {
    if (text == nullptr) throw error::last();
    return text;
}

// Absent is no error here.
inline std::optional<std::string> maybe(const char *text) {
    if (text != nullptr) return std::string(text);
    if (smp_last_error() != SMP_ERR_ABSENT) throw error::last();
    return std::nullopt;
}

inline std::optional<double> maybe(double number) {
    if (!std::isnan(number)) return number;
    if (smp_last_error() != SMP_ERR_ABSENT) throw error::last();
    return std::nullopt;
}

inline double number(double number) {
    if (std::isnan(number)) throw error::last();
    return number;
}

inline std::int64_t index(std::size_t index) { return static_cast<std::int64_t>(index); }

inline const char *or_null(const std::optional<std::string> &text) { return text ? text->c_str() : nullptr; }

// A handle and its end.
template <typename T, void (*End)(T *)> class handle {
public:
    // Takes over what a constructor of the C API answered.
    explicit handle(T *made) : made_(made) {
        if (made == nullptr) throw error::last();
    }
    handle(handle &&other) noexcept : made_(std::exchange(other.made_, nullptr)) {}
    handle &operator=(handle &&other) noexcept {
        if (this != &other) {
            End(made_);
            made_ = std::exchange(other.made_, nullptr);
        }
        return *this;
    }
    handle(const handle &) = delete;
    handle &operator=(const handle &) = delete;
    ~handle() { End(made_); }

    // The handle itself, for functions of the C API; it stays this object's.
    T *get() const noexcept { return made_; }

private:
    T *made_;
};

} // namespace detail

} // namespace smp

#endif
