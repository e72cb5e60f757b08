// The main job from C++: a hospital seals a study for a researcher, the researcher processes it.
//
//   process_study STUDY_FOLDER WORK_FOLDER SEGMENT_MODEL PREDICT_MODEL [KEY=VALUE ...]
//
// Both sides live in one program here, and the object store between them is a local folder. With cloud.provider=s3 and cloud.bucket=NAME
// behind the other arguments, the same program uses a bucket. Any configuration key can be given that way.
//
//   c++ -std=c++17 -Iinclude examples/process_study/process_study.cpp -Lbuild/lib -lsmp -Wl,-rpath,build/lib -o process_study
#include <cstdlib>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <string>

#include "smp.hpp"

namespace {

// One side sends its public keys; the other imports them, and confirms the fingerprint that was read out over the telephone.
void introduce(const smp::keystore &from, const std::string &id, smp::keystore &to, const std::string &label) {
    const std::string known_as = to.import(label, from.export_public(id)), read_out = from.fingerprint(id);
    std::cout << "Fingerprint of the " << label << ": " << read_out << '\n';
    to.confirm(known_as, read_out);
}

// Where things are: everything below the work folder unless KEY=VALUE says otherwise.
smp::config configure(const std::filesystem::path &work, char **overrides, int count) {
    smp::config config;
    config.set("cloud.provider", "local").set("cloud.bucket", work / "store").set("workspace", work / "workspace");
    config.set("audit_log_path", work / "audit").set("key_store_path", work / "researcher-keys");
    config.set("encryption_key_path", work / "researcher-keys/master.key").set("user_id", "researcher@university.example");
    for (int at = 0; at < count; at++) {
        const std::string pair = overrides[at];
        const std::size_t equals = pair.find('=');
        if (equals == std::string::npos) throw std::invalid_argument(pair + ": KEY=VALUE is expected");
        config.set(pair.substr(0, equals), pair.substr(equals + 1));
    }
    config.check();
    return config;
}

void show(const smp::result &result) {
    std::cout << std::fixed << std::setprecision(2) << "Study: " << result.study_id() << '\n';
    if (const auto probability = result.cancer_probability()) {
        std::cout << "Cancer Probability: " << *probability * 100 << "%\n";
        std::cout << "Prediction: " << result.cancer_prediction().value_or("none") << '\n';
        std::cout << "Confidence: " << *result.confidence_score() * 100 << "%\n";
    }
    for (const smp::label &label : result.labels()) std::cout << "Volume of " << label.name << ": " << label.volume_ml << " ml\n";
    std::cout << "Processing Time: " << result.processing_time().count() << "s\n";
    std::cout << "Operations: " << result.operations() << '\n';
}

} // namespace

int main(int argc, char **argv) try {
    if (argc < 5) {
        std::cerr << "usage: process_study STUDY_FOLDER WORK_FOLDER SEGMENT_MODEL PREDICT_MODEL [KEY=VALUE ...]\n";
        return 2;
    }
    const std::filesystem::path work = argv[2];
    std::filesystem::create_directories(work / "store");
    const smp::config config = configure(work, argv + 5, argc - 5);

    // 1. Each side makes its keys once, and keeps the private ones to itself.
    smp::keystore hospital(work / "hospital-keys"), researcher(work / "researcher-keys");
    const std::string hospital_id = hospital.generate("sealing"), researcher_id = researcher.generate("hospital-data-transfer");

    // 2. They send each other their public keys, and compare the fingerprints over the telephone.
    introduce(hospital, hospital_id, researcher, "hospital");
    introduce(researcher, researcher_id, hospital, "researcher");

    // 3. The hospital seals the study for the researcher. The store sees sealed objects only.
    smp::seal_study(config, hospital, hospital_id, researcher_id, argv[1], "incoming/study-001");

    // 4. The researcher processes it.
    smp::pipeline pipeline(config);
    pipeline.register_model("segment", argv[3]);
    pipeline.register_model("predict", argv[4]);
    show(pipeline.process_study("incoming/study-001", "RESEARCH-001", "load,anonymize,preprocess,segment,predict", "zero_knowledge", work / "results"));

    // 5. The record for the review board, and the end of what was fetched.
    const std::filesystem::path report = work / "audit_report.json";
    std::cout << "Exported " << pipeline.export_audit_log(report) << " audit entries to " << report.string() << '\n';
    const bool is_intact = pipeline.audit_summary().find("\"integrity_verified\":true") != std::string::npos;
    std::cout << "Integrity verified: " << std::boolalpha << is_intact << '\n';
    pipeline.cleanup();
    std::cout << "Cleanup: " << pipeline.cleanup_report().value_or("none") << '\n';
    return 0;
} catch (const smp::error &error) {
    std::cerr << error.stage() << ": " << error.what() << '\n';
    if (!error.hint().empty()) std::cerr << "  " << error.hint() << '\n';
    return 1;
} catch (const std::exception &exception) {
    std::cerr << exception.what() << '\n';
    return 1;
}
