// Functions of the program that segment, predict and listen.
#ifndef SMP_CALLBACKS_HPP
#define SMP_CALLBACKS_HPP

#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "../smp_callbacks.h"
#include "result.hpp"

namespace smp {

// The study in hand while a segmenter or predictor runs; good until that returns.
class study_case {
public:
    explicit study_case(smp_case *study) noexcept : study_(study) {}
    smp_case *get() const noexcept { return study_; }

    triple<std::size_t> dims() const {
        std::int64_t columns = 0, rows = 0, slices = 0;
        detail::check(smp_case_dims(study_, &columns, &rows, &slices));
        return {detail::count(columns), detail::count(rows), detail::count(slices)};
    }
    triple<double> spacing_mm() const {
        triple<double> mm;
        detail::check(smp_case_spacing(study_, &mm.columns, &mm.rows, &mm.slices));
        return mm;
    }
    std::array<double, 16> affine() const {
        std::array<double, 16> affine{};
        detail::check(smp_case_affine(study_, affine.data(), 16));
        return affine;
    }
    std::size_t channels() const { return detail::count(smp_case_channel_count(study_)); }
    std::string modality() const { return detail::text(smp_case_modality(study_)); }
    // Not copied: columns times rows times slices times channels.
    const float *voxels() const {
        const float *voxels = smp_case_voxels(study_);
        if (voxels == nullptr) throw error::last();
        return voxels;
    }
    // Not copied; null when the study was not segmented.
    const std::uint8_t *mask() const {
        const std::uint8_t *mask = smp_case_mask(study_);
        if (mask == nullptr && smp_last_error() != SMP_ERR_ABSENT) throw error::last();
        return mask;
    }
    // Value and name of each label of the mask.
    std::vector<std::pair<std::int64_t, std::string>> labels() const {
        const std::int64_t found = smp_case_label_count(study_);
        std::vector<std::pair<std::int64_t, std::string>> labels(found == SMP_ERR_ABSENT ? 0 : detail::count(found));
        for (std::size_t at = 0; at < labels.size(); at++) {
            const std::int64_t index = detail::index(at);
            labels[at] = {static_cast<std::int64_t>(detail::count(smp_case_label_value(study_, index))),
                          detail::text(smp_case_label_name(study_, index))};
        }
        return labels;
    }
    bool cancelled() const { return detail::check(smp_case_is_cancelled(study_)) == 1; }
    void progress(double fraction) { detail::check(smp_case_progress(study_, fraction)); }
    // A segmenter's answer: a label for each voxel.
    void set_mask(const std::vector<std::uint8_t> &labels) {
        detail::check(smp_case_set_mask(study_, labels.data(), detail::index(labels.size())));
    }
    void name_label(std::uint8_t value, const std::string &name) { detail::check(smp_case_name_label(study_, value, name.c_str())); }
    // A predictor's answer.
    void add_value(const std::string &label, double value) { detail::check(smp_case_add_value(study_, label.c_str(), value)); }

private:
    smp_case *study_;
};

using case_function = std::function<void(study_case &)>;
// Stage and fraction of it that is done; false cancels the study.
using progress_function = std::function<bool(const std::string &stage, double fraction)>;
using log_function = std::function<void(std::int32_t level, const std::string &line)>;

namespace detail {

// What a function threw, on whichever thread, until process_study throws it on.
struct thrown {
    std::mutex mutex;
    std::exception_ptr exception;

    void keep() {
        const std::lock_guard<std::mutex> lock(mutex);
        exception = std::current_exception();
    }
    std::exception_ptr take() {
        const std::lock_guard<std::mutex> lock(mutex);
        return std::exchange(exception, nullptr);
    }
};

template <typename Function> struct hook {
    Function function;
    std::shared_ptr<thrown> trap;

    static void release(void *data) { delete static_cast<hook *>(data); }
};

inline std::int32_t call_case(void *data, smp_case *study) {
    auto *own = static_cast<hook<case_function> *>(data);
    try {
        study_case view(study);
        own->function(view);
        return SMP_OK;
    } catch (...) {
        own->trap->keep();
        return SMP_ERR_RUNTIME_FAILED;
    }
}

inline std::int32_t call_progress(void *data, const char *stage, double fraction) {
    auto *own = static_cast<hook<progress_function> *>(data);
    try {
        return own->function(stage, fraction) ? SMP_OK : SMP_ERR_CANCELLED;
    } catch (...) {
        own->trap->keep();
        return SMP_ERR_CANCELLED;
    }
}

inline void call_log(void *data, std::int32_t level, const char *line) {
    // Nobody could catch it.
    try {
        static_cast<hook<log_function> *>(data)->function(level, line);
    } catch (...) {
    }
}

} // namespace detail

// Gives each line of the log of the process to a function, from any thread. The function must not call the library.
inline void log_to(std::int32_t level, log_function log) {
    auto own = std::make_unique<detail::hook<log_function>>(detail::hook<log_function>{std::move(log), nullptr});
    detail::check(smp_log_to_callback(level, own.get(), detail::call_log, detail::hook<log_function>::release));
    static_cast<void>(own.release());
}
inline void log_off() { detail::check(smp_log_to_callback(SMP_LOG_OFF, nullptr, nullptr, nullptr)); }

} // namespace smp

#endif
