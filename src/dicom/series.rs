//! From instances to one series: which one is meant.
//!
//! A study holds scouts, several sequences, screenshots, reports. The caller may name the series; otherwise a rule decides, always the
//! same for the same files in whatever order they come. Whether the images of the series belong together is the matter of `slices`.

use std::collections::BTreeMap;

use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;

use super::Selection;
use super::attributes::{number, text};
use super::load::Candidate;

/// Whether an instance is of the series that a selection names; true when it names none.
pub(super) fn is_wanted(selection: &Selection, dataset: &InMemDicomObject) -> bool {
    let is = |wanted: &Option<String>, tag| wanted.as_ref().is_none_or(|wanted| text(dataset, tag).unwrap_or_default() == wanted.trim());
    is(&selection.series_uid, tags::SERIES_INSTANCE_UID) && is(&selection.series_description, tags::SERIES_DESCRIPTION)
}

/// Picks one series: most slices, then lowest series number, then UID. Segmentations and dose grids are results about a series, not
/// the series, and are picked only when nothing else is there or when they are named.
pub(super) fn choose(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut series: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        let uid = text(&candidate.instance.dataset, tags::SERIES_INSTANCE_UID).unwrap_or_default();
        series.entry(uid).or_default().push(candidate);
    }
    // Slices are counted in frames, so that an enhanced instance competes with a folder of single ones.
    let rank = |members: &[Candidate]| {
        let slices: usize = members.iter().map(Candidate::slices).sum();
        let first = members.first();
        let is_derived = first.is_some_and(|member| is_derived_object(&member.instance.dataset));
        let number = first.and_then(|member| number(&member.instance.dataset, tags::SERIES_NUMBER).ok().flatten()).unwrap_or(f64::MAX);
        (is_derived, std::cmp::Reverse(slices), number)
    };
    // A map keeps its keys in order, and the first of equals wins: the lowest UID.
    let best = series.into_values().min_by(|a, b| {
        let ((a_derived, a_slices, a_number), (b_derived, b_slices, b_number)) = (rank(a), rank(b));
        a_derived.cmp(&b_derived).then(a_slices.cmp(&b_slices)).then(a_number.total_cmp(&b_number))
    });
    best.unwrap_or_default()
}

/// SOP classes whose pixels are labels or dose on the grid of another series.
fn is_derived_object(dataset: &InMemDicomObject) -> bool {
    const DERIVED: [&str; 4] =
        [uids::SEGMENTATION_STORAGE, uids::LABEL_MAP_SEGMENTATION_STORAGE, uids::HEIGHT_MAP_SEGMENTATION_STORAGE, uids::RT_DOSE_STORAGE];
    text(dataset, tags::SOP_CLASS_UID).is_some_and(|class| DERIVED.contains(&class.as_str()))
}
