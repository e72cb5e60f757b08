// The C++ binding, through a whole study: keys, sealing, functions in place of models, results, the audit log, and what goes wrong.
#include <atomic>
#include <cstdlib>
#include <iostream>
#include <sstream>

#include "smp.hpp"

#include "site.h"

// Another translation unit with the same header.
std::string other_unit(const smp::config &config);

template <typename T> constexpr bool moves_only = std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T> &&
                                                  !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;
static_assert(moves_only<smp::config> && moves_only<smp::keystore> && moves_only<smp::request> && moves_only<smp::result> && moves_only<smp::audit>);
static_assert(!std::is_copy_constructible_v<smp::pipeline> && std::is_move_constructible_v<smp::pipeline>);

namespace {

// The status with which a call throws; SMP_OK when it does not.
template <typename Call> std::int32_t thrown(Call call) {
    try {
        call();
    } catch (const smp::error &error) {
        CHECK(std::string(error.what()).size() > 0 && !error.stage().empty() && error.name() == smp_status_name(error.code()));
        return error.code();
    }
    return SMP_OK;
}

smp::request study() {
    smp::request request;
    for (int slice = 0; slice < STUDY_SLICES; slice++) {
        const struct dicom dicom = study_slice(slice);
        request.add_instance(dicom.bytes, dicom.size);
    }
    return request;
}

void errors_and_absences(const smp::config &config) {
    smp::config copy = config.clone();
    CHECK(thrown([&] { copy.set("no.such.key", "x"); }) == SMP_ERR_CONFIG_UNKNOWN_KEY);
    try {
        copy.set("devise", "cpu");
        CHECK(false);
    } catch (const smp::error &error) {
        CHECK(error.hint().find("device") != std::string::npos && !error.retryable() && error.stage() == "configuration");
    }
    copy.set("threshold", 0.25).set("inference.threads", 2).set("auto_cleanup", true).merge_json("{\"user_id\": \"somebody\"}");
    CHECK(copy.value("threshold") == "0.25" && copy.value("user_id") == "somebody" && !copy.value("cloud.access_token"));
    CHECK(config.value("threshold") == "0.5");
    copy.check();
    CHECK(smp::config_keys().size() > 40 && !smp::config_keys().front().help.empty());
    smp::config moved = std::move(copy);
    CHECK(moved.value("user_id") == "somebody" && copy.get() == nullptr);
    CHECK(thrown([&] { smp::config::load("/no/such/file.json"); }) != SMP_OK);
    CHECK(thrown([&] { smp::audit("/no/such/folder"); }) != SMP_OK);
    CHECK(smp::version() == smp_version() && smp::abi_version() == SMP_ABI_VERSION && smp::capabilities().front() == '{');
}

void a_sealed_study(struct site &site, const char *folder, smp::pipeline &pipeline, const smp::config &config) {
    study_write(check_path(folder, "study"));
    smp::keystore hospital(check_path(folder, "hospital-keys")), researcher(check_path(folder, "researcher-keys"));
    CHECK(researcher.ids().size() == 2 && researcher.has_private(site.researcher_id) && !researcher.has_private(site.hospital_id));
    CHECK(researcher.fingerprint(site.researcher_id) == hospital.fingerprint(site.researcher_id));
    CHECK(!researcher.expires(site.researcher_id) && researcher.created(site.researcher_id).back() == 'Z');
    researcher.set_expiry(site.researcher_id, "2099-12-31T23:59:59Z");
    CHECK(researcher.expires(site.researcher_id) == "2099-12-31T23:59:59Z");
    researcher.set_expiry(site.researcher_id, std::nullopt);
    CHECK(researcher.export_public(site.researcher_id).find("BEGIN PUBLIC KEY") != std::string::npos && !researcher.export_card(site.researcher_id).empty());
    CHECK(thrown([&] { researcher.confirm(site.hospital_id, "0000"); }) != SMP_OK);
    CHECK(thrown([&] { researcher.fingerprint("absent"); }) == SMP_ERR_KEY_NOT_FOUND);
    smp::seal_study(config, hospital, site.hospital_id, site.researcher_id, check_path(folder, "study"), "incoming/one");
    CHECK(smp::verify_package(config, researcher, "incoming/one").front() == '{');
    smp::unseal_study(config, researcher, "incoming/one", check_path(folder, "opened"));
    CHECK(std::filesystem::exists(std::filesystem::path(check_path(folder, "opened")) / "a"));

    std::atomic<int> told{0};
    std::string stages;
    pipeline.set_progress([&](const std::string &stage, double fraction) {
        told++;
        if (stages.find(stage) == std::string::npos) stages += stage + " ";
        return fraction >= 0.0;
    });
    const std::filesystem::path results = check_path(folder, "results");
    smp::result result = pipeline.process_study("incoming/one", "RESEARCH-001", "load,preprocess", "zero_knowledge", results);
    pipeline.set_progress({});
    CHECK(told > 8 && stages == "fetch load anonymize preprocess write ");
    CHECK(result.study_id() == "RESEARCH-001" && result.operations() == "load,anonymize,preprocess" && result.processed_at().back() == 'Z');
    CHECK(std::filesystem::exists(results / "RESEARCH-001_summary.json"));
    CHECK(!result.cancer_probability() && !result.cancer_prediction() && !result.confidence_score() && !result.mask() && result.labels().empty());
    CHECK(result.predictions().empty() && result.dicom().empty() && !result.stage_time("segment") && result.stage_time("load")->count() >= 0);
    CHECK(result.processing_time().count() > 0 && result.geometry().find("uniform") != std::string::npos && result.channels() == 1);
    const auto dims = result.dims();
    CHECK(dims.columns == STUDY_COLUMNS && dims.rows == STUDY_ROWS && dims.slices == STUDY_SLICES);
    CHECK(result.spacing_mm().rows == 0.75 && result.affine()[0] == 0.5 && result.volume().size() == STUDY_VOXELS);
    result.add_prediction("by hand 1", "cancer_probability", 0.875);
    CHECK(result.cancer_probability() == 0.875 && result.cancer_prediction() == "positive" && result.confidence_score() == 0.75);
    CHECK(result.predictions().size() == 1 && result.predictions()[0].model == "by hand 1" && result.dicom().size() == 1);
    CHECK(thrown([&] { result.save(results / "mask.npy", "mask"); }) == SMP_ERR_ABSENT);
    result.save(results / "volume.npy", "volume");
    CHECK(result.json().find("RESEARCH-001") != std::string::npos);
}

void functions_of_the_program(smp::pipeline &pipeline) {
    pipeline.set_segmenter("halves", "1", [](smp::study_case &study) {
        CHECK(study.mask() == nullptr && study.labels().empty() && study.modality() == "MR" && !study.cancelled());
        CHECK(study.voxels()[0] == static_cast<float>(study_voxel(0, 0, 0)) && study.channels() == 1 && study.affine()[5] == 0.75);
        std::vector<std::uint8_t> labels(study.dims().columns * study.dims().rows * study.dims().slices);
        for (std::size_t at = labels.size() / 2; at < labels.size(); at++) labels[at] = 4;
        study.set_mask(labels);
        study.name_label(4, "upper half");
        study.progress(1.0);
    });
    int calls = 0;
    pipeline.set_predictor("half", "2", [calls](smp::study_case &study) mutable {
        CHECK(study.mask()[STUDY_VOXELS - 1] == 4 && study.labels() == (std::vector<std::pair<std::int64_t, std::string>>{{4, "upper half"}}));
        CHECK(study.spacing_mm().slices == 2.5);
        study.add_value("cancer_probability", 0.125 * ++calls);
    });
    smp::request request = study();
    request.set("operations", "load,segment,predict").set("threshold", 0.1);
    smp::result result = pipeline.process_study(request);
    CHECK(result.cancer_probability() == 0.125 && result.cancer_prediction() == "positive");
    CHECK(result.labels().size() == 1 && result.labels()[0].name == "upper half" && result.labels()[0].value == 4);
    CHECK(std::abs(result.labels()[0].volume_ml - STUDY_VOXELS / 2 * 0.5 * 0.75 * 2.5 / 1000) < 1e-12);
    CHECK((*result.mask())[0] == 0 && result.mask()->back() == 4);
    const auto objects = result.dicom();
    CHECK(objects.size() == 2 && objects[0].size() > 132 && std::string(objects[0].begin() + 128, objects[0].begin() + 132) == "DICM");

    // A study on a thread of its own.
    std::future<smp::result> later = pipeline.process_study_async(std::move(request));
    CHECK(later.get().cancer_probability() == 0.25);

    // What a function throws comes out of process_study; what it leaves out is an error of the library's.
    struct own_exception : std::runtime_error {
        using std::runtime_error::runtime_error;
    };
    pipeline.set_segmenter("thrower", "1", [](smp::study_case &) { throw own_exception("from inside"); });
    bool caught = false;
    try {
        smp::request failing = study();
        failing.set("operations", "load,segment");
        pipeline.process_study(failing);
    } catch (const own_exception &exception) {
        caught = std::string(exception.what()) == "from inside";
    }
    CHECK(caught);
    pipeline.set_segmenter("lazy", "1", [](smp::study_case &) {});
    smp::request lazy = study();
    lazy.set("operations", "load,segment");
    CHECK(thrown([&] { pipeline.process_study(lazy); }) == SMP_ERR_MODEL_SHAPE);
    pipeline.set_progress([](const std::string &, double) { return false; });
    CHECK(thrown([&] { pipeline.process_study(lazy); }) == SMP_ERR_CANCELLED);
    pipeline.set_progress({});
    pipeline.unset_segmenter();
    pipeline.unset_predictor();
    CHECK(thrown([&] { pipeline.process_study(lazy); }) == SMP_ERR_MODEL_MISSING);
    CHECK(thrown([&] { pipeline.set_predictor("", "1", [](smp::study_case &) {}); }) == SMP_ERR_INVALID_ARGUMENT);
    CHECK(thrown([&] { pipeline.register_model("segment", "/no/such/model.onnx"); }) == SMP_ERR_MODEL_UNREADABLE);
}

void the_log_and_the_audit(const char *folder, smp::pipeline &pipeline) {
    std::mutex mutex;
    std::ostringstream heard;
    smp::log_to(SMP_LOG_WARN, [&](std::int32_t, const std::string &line) {
        const std::lock_guard<std::mutex> lock(mutex);
        heard << line << '\n';
    });
    CHECK(thrown([] { smp::erase_file("/no/such/file"); }) != SMP_OK);
    smp::log_off();
    CHECK(heard.str().find("smp::call") != std::string::npos);
    CHECK(!pipeline.cleanup_report());
    pipeline.cleanup();
    CHECK(pipeline.cleanup_report().has_value());
    CHECK(pipeline.export_audit_log(check_path(folder, "audit.json")) > 5);
    CHECK(pipeline.export_audit_log(check_path(folder, "none.json"), "1999-01-01", "1999-12-31") == 0);
    CHECK(pipeline.audit_summary().find("\"integrity_verified\":true") != std::string::npos);
    smp::audit log(check_path(folder, "audit"));
    CHECK(log.count() > 5 && !log.first_bad() && log.head().size() == 64 && log.export_to(check_path(folder, "again.json")) >= log.count() - 1);
}

} // namespace

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    {
        struct site site = site_open(argv[1]);
        smp::config config;
        for (const char *key : {"cloud.provider", "cloud.bucket", "workspace", "key_store_path", "encryption_key_path", "audit_log_path", "user_id", "device"})
            config.set(key, smp_config_get(site.config, key));
        CHECK(other_unit(config) == "local");
        errors_and_absences(config);
        smp::pipeline pipeline(config);
        a_sealed_study(site, argv[1], pipeline, config);
        functions_of_the_program(pipeline);
        the_log_and_the_audit(argv[1], pipeline);
        smp::pipeline moved = std::move(pipeline);
        moved.close();
        CHECK(thrown([&] { moved.process_study(study()); }) == SMP_ERR_CANCELLED);
        site_close(&site);
    }
    CHECK(smp::live_handles() == 0);
    return check_end(argv[0]);
}
