//! The series that a study's results refer to, as it was released.

use crate::deid::ReleasedStudy;
use crate::error::{Error, Kind, Result};
use crate::imaging::Verdict;
use crate::report::{Origin, Planes, SourceFrame};

/// Number of Frames.
const NUMBER_OF_FRAMES: dicom_core::Tag = dicom_core::Tag(0x0028, 0x0008);

/// What the objects of a study that was processed at a moment (RFC 3339) belong to.
pub(super) fn origin(released: &ReleasedStudy, moment: &str) -> Result<Origin> {
    let (planes, count) = match &released.geometry().verdict {
        Verdict::Resampled(resampled) => (Planes::Each(resampled.frames.clone()), resampled.frames.origins.len()),
        _ => (Planes::Grid(released.geometry().clone()), released.geometry().dims[2]),
    };
    let lost = || Error::new(Kind::Internal, "a slice without its instance");
    let uid = |text: &str| text.trim_end_matches(['\0', ' ']).to_owned();
    // The first channel stands for all: time points, echoes and colours lie on one grid.
    let frames = released.frames().iter().take(count).map(|place| {
        let instance = released.instances.get(place.instance).ok_or_else(lost)?;
        let several =
            instance.dataset.get(NUMBER_OF_FRAMES).and_then(|number| number.to_int::<u32>().ok()).is_some_and(|number| number > 1);
        Ok(SourceFrame {
            class: uid(&instance.meta.media_storage_sop_class_uid),
            instance: uid(&instance.meta.media_storage_sop_instance_uid),
            frame: several.then(|| u32::try_from(place.frame).unwrap_or(u32::MAX - 1) + 1),
        })
    });
    let frames = frames.collect::<Result<Vec<_>>>()?;
    let first = released.instances.first().ok_or_else(lost)?;
    Origin::new(&first.dataset, frames, planes, moment)
}
