// What processing a study yielded.
#ifndef SMP_RESULT_HPP
#define SMP_RESULT_HPP

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "error.hpp"

namespace smp {

// Columns, rows, slices, or the distances between them.
template <typename T> struct triple {
    T columns{}, rows{}, slices{};
};

struct label {
    std::int64_t value;
    std::string name;
    double volume_ml;
};

struct prediction {
    std::string model, label;
    double value;
};

// What processing one study yielded. Voxels come column fastest, then row, then slice, then channel.
class result : public detail::handle<smp_result, smp_result_free> {
public:
    explicit result(smp_result *made) : handle(made) {}

    // Everything as one JSON object.
    std::string json() const { return detail::text(smp_result_json(get())); }
    std::string study_id() const { return detail::text(smp_result_study_id(get())); }
    // RFC 3339, UTC.
    std::string processed_at() const { return detail::text(smp_result_processed_at(get())); }
    // Names with commas, in the order in which they were done.
    std::string operations() const { return detail::text(smp_result_operations(get())); }
    // positive, negative or uncertain.
    std::optional<std::string> cancer_prediction() const { return detail::maybe(smp_result_cancer_prediction(get())); }
    // 0 to 1.
    std::optional<double> cancer_probability() const { return detail::maybe(smp_result_cancer_probability(get())); }
    // Distance of the probability from 0.5, 0 to 1; not a calibrated confidence.
    std::optional<double> confidence_score() const { return detail::maybe(smp_result_confidence_score(get())); }
    std::chrono::duration<double> processing_time() const {
        return std::chrono::duration<double>(detail::number(smp_result_processing_time_seconds(get())));
    }
    // Of fetch, load, anonymize, preprocess, segment, predict or write; empty when it did not run.
    std::optional<std::chrono::duration<double>> stage_time(const std::string &stage) const {
        const std::optional<double> seconds = detail::maybe(smp_result_stage_seconds(get(), stage.c_str()));
        return seconds ? std::optional<std::chrono::duration<double>>(*seconds) : std::nullopt;
    }
    triple<std::size_t> dims() const {
        std::int64_t columns = 0, rows = 0, slices = 0;
        detail::check(smp_result_dims(get(), &columns, &rows, &slices));
        return {detail::count(columns), detail::count(rows), detail::count(slices)};
    }
    std::size_t channels() const { return detail::count(smp_result_channel_count(get())); }
    triple<double> spacing_mm() const {
        triple<double> mm;
        detail::check(smp_result_spacing(get(), &mm.columns, &mm.rows, &mm.slices));
        return mm;
    }
    // Row by row: (column, row, slice, 1) to DICOM patient coordinates (LPS, mm).
    std::array<double, 16> affine() const {
        std::array<double, 16> affine{};
        detail::check(smp_result_affine(get(), affine.data(), 16));
        return affine;
    }
    // Verdict on the geometry: JSON.
    std::string geometry() const { return detail::text(smp_result_geometry(get())); }
    std::vector<float> volume() const {
        std::vector<float> voxels(voxels_of_a_channel() * channels());
        detail::check(smp_result_copy_volume(get(), voxels.data(), detail::index(voxels.size())));
        return voxels;
    }
    // Labels, 0 for background; empty when the study was not segmented.
    std::optional<std::vector<std::uint8_t>> mask() const {
        std::vector<std::uint8_t> labels(voxels_of_a_channel());
        const std::int32_t status = smp_result_copy_mask(get(), labels.data(), detail::index(labels.size()));
        if (status == SMP_ERR_ABSENT) return std::nullopt;
        detail::check(status);
        return labels;
    }
    // Empty when the study was not segmented.
    std::vector<label> labels() const {
        const std::int64_t found = smp_result_label_count(get());
        std::vector<label> labels(found == SMP_ERR_ABSENT ? 0 : detail::count(found));
        for (std::size_t at = 0; at < labels.size(); at++) {
            const std::int64_t index = detail::index(at);
            labels[at] = {static_cast<std::int64_t>(detail::count(smp_result_label_value(get(), index))),
                          detail::text(smp_result_label_name(get(), index)), detail::number(smp_result_label_volume_ml(get(), index))};
        }
        return labels;
    }
    std::vector<prediction> predictions() const {
        std::vector<prediction> all(detail::count(smp_result_prediction_count(get())));
        for (std::size_t at = 0; at < all.size(); at++) {
            const std::int64_t index = detail::index(at);
            all[at] = {detail::text(smp_result_prediction_model(get(), index)), detail::text(smp_result_prediction_label(get(), index)),
                       detail::number(smp_result_prediction_value(get(), index))};
        }
        return all;
    }
    // Adds what the host program predicted; it lands in the result and in the audit log.
    void add_prediction(const std::string &model, const std::string &label, double value) {
        detail::check(smp_result_add_prediction(get(), model.c_str(), label.c_str(), value));
    }
    // volume, mask, seg, sr, summary or preview; the extension is the format. Waits.
    void save(const std::filesystem::path &path, const std::string &what) const {
        detail::check(smp_result_save(get(), path.string().c_str(), what.c_str()));
    }
    // The results as DICOM files in memory: the segmentation, then the structured report. Waits.
    std::vector<std::vector<std::uint8_t>> dicom() const {
        std::vector<std::vector<std::uint8_t>> objects(detail::count(smp_result_dicom_count(get())));
        for (std::size_t at = 0; at < objects.size(); at++) {
            objects[at].resize(detail::count(smp_result_dicom_size(get(), detail::index(at))));
            detail::check(smp_result_dicom_copy(get(), detail::index(at), objects[at].data(), detail::index(objects[at].size())));
        }
        return objects;
    }

private:
    std::size_t voxels_of_a_channel() const {
        const triple<std::size_t> side = dims();
        return side.columns * side.rows * side.slices;
    }
};

} // namespace smp

#endif
