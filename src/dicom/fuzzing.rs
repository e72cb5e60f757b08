//! Fuzzing of the reader: what must hold of every answer to foreign bytes. See [`crate::fuzzing`].

use super::{Limits, Loader, Policy, Selection};
use crate::control::Control;
use crate::secret::Plain;

/// One file, or two slices of a study when the input begins with the length of the first.
pub(crate) fn dicom(bytes: &[u8]) {
    let mut loader = Loader::new(Limits::default(), Selection::default(), Policy::default()).keep_pixels();
    let control = Control::new();
    let (one, other) = match bytes.split_first_chunk::<2>() {
        Some((length, rest)) if usize::from(u16::from_le_bytes(*length)) < rest.len() && length != &[0, 0] => {
            rest.split_at(usize::from(u16::from_le_bytes(*length)))
        }
        _ => (bytes, &[][..]),
    };
    for (number, file) in [one, other].into_iter().filter(|file| !file.is_empty()).enumerate() {
        let _ = loader.add(number + 1, Plain::new(file.to_vec()), &control);
    }
    if let Ok(study) = loader.finish(&control) {
        let geometry = &study.geometry;
        assert!(!study.channels.is_empty() && study.frames.iter().all(|of| of.instance < study.instances.len()));
        assert_eq!(study.voxels.len(), geometry.dims.iter().product::<usize>() * study.channels.len());
        // What was kept can be written, to the last frame.
        for pixels in &study.pixels {
            assert!(pixels.write(&mut std::io::sink()).is_ok());
        }
        assert!(geometry.spacing_mm.iter().all(|spacing| *spacing > 0.0), "{:?}", geometry.spacing_mm);
        assert!(geometry.affine_lps.as_flattened().iter().all(|value| value.is_finite()));
    }
}
