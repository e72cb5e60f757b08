// What processes studies.
#ifndef SMP_PIPELINE_HPP
#define SMP_PIPELINE_HPP

#include <exception>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "callbacks.hpp"
#include "config.hpp"
#include "result.hpp"

namespace smp {

// What processes studies: configured once, shared by threads.
class pipeline : public detail::handle<smp_pipeline, smp_pipeline_free> {
public:
    explicit pipeline(const config &config) : handle(smp_pipeline_new(config.get())), trap_(std::make_shared<detail::thrown>()) {}

    // Processes one study. Waits. What a function of the host threw comes out here.
    result process_study(const request &request) { return run(get(), request, *trap_); }
    // The guide's call: the study at a path of the store.
    result process_study(const std::string &remote_path, const std::optional<std::string> &study_id = std::nullopt,
                         const std::string &operations = "load,preprocess,segment,predict", const std::string &download_mode = "zero_knowledge",
                         const std::optional<std::filesystem::path> &output_path = std::nullopt) {
        request study(remote_path);
        study.set("operations", operations).set("download_mode", download_mode);
        if (study_id) study.set("study_id", *study_id);
        if (output_path) study.set("output_path", *output_path);
        return process_study(study);
    }
    // Likewise on a thread of its own. The pipeline must live until the study is done.
    std::future<result> process_study_async(request &&study) {
        return std::async(std::launch::async, [made = get(), trap = trap_, study = std::move(study)] { return run(made, study, *trap); });
    }

    // Segments or predicts with a function, from the next study on. It is called from threads of the library, for several studies at once when several are
    // processed at once.
    void set_segmenter(const std::string &name, const std::string &version, case_function segment) {
        auto own = hook(std::move(segment));
        detail::check(smp_pipeline_set_segmenter(get(), name.c_str(), version.c_str(), own.get(), detail::call_case, own->release));
        static_cast<void>(own.release());
    }
    void set_predictor(const std::string &name, const std::string &version, case_function predict) {
        auto own = hook(std::move(predict));
        detail::check(smp_pipeline_set_predictor(get(), name.c_str(), version.c_str(), own.get(), detail::call_case, own->release));
        static_cast<void>(own.release());
    }
    // Returns to the model files.
    void unset_segmenter() { detail::check(smp_pipeline_set_segmenter(get(), nullptr, nullptr, nullptr, nullptr, nullptr)); }
    void unset_predictor() { detail::check(smp_pipeline_set_predictor(get(), nullptr, nullptr, nullptr, nullptr, nullptr)); }
    // Hears of every study that begins from now on; an empty function ends it.
    void set_progress(progress_function progress) {
        if (!progress) {
            detail::check(smp_pipeline_set_progress(get(), nullptr, nullptr, nullptr));
            return;
        }
        auto own = hook(std::move(progress));
        detail::check(smp_pipeline_set_progress(get(), own.get(), detail::call_progress, own->release));
        static_cast<void>(own.release());
    }
    // task: segment or predict.
    void register_model(const std::string &task, const std::filesystem::path &path) {
        detail::check(smp_pipeline_register_model(get(), task.c_str(), path.string().c_str()));
    }
    // Number of records. Days (YYYY-MM-DD) or moments (RFC 3339), inclusive. Waits.
    std::size_t export_audit_log(const std::filesystem::path &path, const std::optional<std::string> &start = std::nullopt,
                                 const std::optional<std::string> &end = std::nullopt) {
        return detail::count(smp_pipeline_export_audit(get(), path.string().c_str(), detail::or_null(start), detail::or_null(end)));
    }
    // JSON. Waits.
    std::string audit_summary() const { return detail::text(smp_pipeline_audit_summary(get())); }
    // Erases what the workspace holds. Waits.
    void cleanup() { detail::check(smp_pipeline_cleanup(get())); }
    // JSON; empty before the first clean-up.
    std::optional<std::string> cleanup_report() const { return detail::maybe(smp_pipeline_cleanup_report(get())); }
    // Cancels what runs and waits for it.
    void close() { detail::check(smp_pipeline_close(get())); }

private:
    static result run(smp_pipeline *made, const request &request, detail::thrown &trap) {
        smp_result *processed = smp_pipeline_process_study(made, request.get());
        if (processed == nullptr) {
            const std::int32_t code = smp_last_error();
            const bool by_function = code == SMP_ERR_RUNTIME_FAILED || code == SMP_ERR_CANCELLED;
            if (const std::exception_ptr exception = by_function ? trap.take() : nullptr) std::rethrow_exception(exception);
        }
        return result(processed);
    }
    template <typename Function> std::unique_ptr<detail::hook<Function>> hook(Function function) {
        return std::make_unique<detail::hook<Function>>(detail::hook<Function>{std::move(function), trap_});
    }

    std::shared_ptr<detail::thrown> trap_;
};

} // namespace smp

#endif
