//! Models that the host program brings as code: functions in place of a file and a contract.
//!
//! What a function answers is held to what a contract would have promised: a mask fills the volume, its labels have names, values are numbers
//! and have labels. Nothing is resampled for it: it is given the volume of the pipeline and answers on the same grid.

use std::sync::Arc;

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::Volume;
use crate::inference::{ModelIdentity, PROBABILITY_LABEL, Prediction, Predictor, Segmentation, Segmenter, labels};

/// Most values of one prediction.
const MAX_VALUES: usize = 65_536;
/// Longest name of a model, a version or a label, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// A mask that a function of the host made: a label for each voxel, 0 for background, and names of labels.
pub struct OwnMask {
    /// Labels in the order of the volume's first channel.
    pub labels: Vec<u8>,
    /// Labels and their names. One that is in the mask and not here is called by its number, `label 3`.
    pub names: Vec<(u8, String)>,
}

/// Makes a mask.
pub type SegmentWork = dyn Fn(&Volume, &Control) -> Result<OwnMask> + Send + Sync;
/// Makes values with their labels, `cancer_probability` among them when it has one.
pub type PredictWork = dyn Fn(&Volume, Option<&Segmentation>, &Control) -> Result<Vec<(String, f64)>> + Send + Sync;

struct Own<W: ?Sized> {
    identity: ModelIdentity,
    work: Box<W>,
}

/// A segmenter of a function, known in results and in the audit log by name and version.
///
/// # Errors
/// [`Kind::InvalidArgument`] when name or version is empty, longer than 128 bytes or holds control characters.
pub fn own_segmenter(name: &str, version: &str, work: Box<SegmentWork>) -> Result<Arc<dyn Segmenter>> {
    Ok(Arc::new(Own { identity: identity(name, version)?, work }))
}

/// A predictor of a function, known in results and in the audit log by name and version.
///
/// # Errors
/// As [`own_segmenter`].
pub fn own_predictor(name: &str, version: &str, work: Box<PredictWork>) -> Result<Arc<dyn Predictor>> {
    Ok(Arc::new(Own { identity: identity(name, version)?, work }))
}

fn identity(name: &str, version: &str) -> Result<ModelIdentity> {
    if !is_name(name) || !is_name(version) {
        return Err(Error::new(Kind::InvalidArgument, "name and version must be 1 to 128 bytes of text"));
    }
    Ok(ModelIdentity {
        name: name.to_owned(),
        version: version.to_owned(),
        // There is no file whose digest could stand here.
        sha256: String::new(),
        members: Vec::new(),
        device: "host".to_owned(),
        runtime: "host program".to_owned(),
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control)
}

/// What the function answered does not do.
fn refused(detail: String) -> Error {
    Error::new(Kind::ModelShape, detail).at(Stage::Inference)
}

impl Segmenter for Own<SegmentWork> {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn segment(&self, volume: &Volume, control: &Control) -> Result<Segmentation> {
        let mask = (self.work)(volume, control)?;
        control.check()?;
        let (given, wanted) = (mask.labels.len(), volume.channel(0).len());
        if given != wanted {
            return Err(refused(format!("a mask of {given} voxels for a volume of {wanted}")));
        }
        let mut names: [Option<String>; 256] = std::array::from_fn(|_| None);
        for (value, name) in mask.names {
            if value == 0 || !is_name(&name) {
                return Err(refused(format!("label {value}: names are for labels from 1 and have 1 to 128 bytes of text")));
            }
            let known = names.iter().flatten().any(|other| *other == name);
            if let Some(place) = names.get_mut(usize::from(value)) {
                if known || place.is_some() {
                    return Err(refused(format!("label {value}: it has two names, or its name is another label's")));
                }
                *place = Some(name);
            }
        }
        let geometry = volume.geometry().clone();
        let table = labels::table_of(&mask.labels, &geometry, &names);
        Ok(Segmentation {
            labels: Arc::new(mask.labels),
            geometry,
            table,
            model: self.identity.clone(),
            adaptations: Vec::new(),
            steps: Vec::new(),
        })
    }
}

impl Predictor for Own<PredictWork> {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn needs_mask(&self) -> bool {
        false
    }

    fn predict(&self, volume: &Volume, mask: Option<&Segmentation>, control: &Control) -> Result<Prediction> {
        let values = (self.work)(volume, mask, control)?;
        control.check()?;
        if values.is_empty() || values.len() > MAX_VALUES {
            return Err(refused(format!("{} values were predicted; 1 to {MAX_VALUES} are taken", values.len())));
        }
        let mut probability = None;
        for (label, value) in &values {
            if !is_name(label) {
                return Err(refused("a label must be 1 to 128 bytes of text".to_owned()));
            }
            if !value.is_finite() {
                return Err(refused(format!("label {label}: the value is not a number")));
            }
            if label == PROBABILITY_LABEL {
                if !(0.0..=1.0).contains(value) || probability.is_some() {
                    return Err(refused(format!("label {label}: it stands for one number from 0 to 1")));
                }
                probability = Some(*value);
            }
        }
        Ok(Prediction { probability, values, spread: None, model: self.identity.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::{Geometry, Verdict};

    fn volume() -> Volume {
        let affine_lps = std::array::from_fn(|row| std::array::from_fn(|column| if row == column { 10.0 } else { 0.0 }));
        let geometry = Geometry { dims: [2, 3, 1], spacing_mm: [10.0, 10.0, 10.0], affine_lps, verdict: Verdict::Uniform };
        Volume::from_parts(vec![1.0; 6], geometry, "MR").unwrap()
    }

    fn segmented(labels: &[u8], names: &[(u8, &str)]) -> Result<Segmentation> {
        let (labels, names) = (labels.to_vec(), names.iter().map(|(value, name)| (*value, (*name).to_owned())).collect::<Vec<_>>());
        let work = move |_: &Volume, _: &Control| Ok(OwnMask { labels: labels.clone(), names: names.clone() });
        own_segmenter("threshold", "3", Box::new(work))?.segment(&volume(), &Control::new())
    }

    fn predicted(values: &[(&str, f64)]) -> Result<Prediction> {
        let values: Vec<(String, f64)> = values.iter().map(|(label, value)| ((*label).to_owned(), *value)).collect();
        let work = move |_: &Volume, _: Option<&Segmentation>, _: &Control| Ok(values.clone());
        own_predictor("rule", "1", Box::new(work))?.predict(&volume(), None, &Control::new())
    }

    #[test]
    fn masks_are_counted_and_held_to_the_grid() {
        let found = segmented(&[0, 2, 2, 7, 0, 2], &[(2, "tumour"), (5, "cyst")]).unwrap();
        let table: Vec<_> = found.table().iter().map(|label| (label.value, label.name.as_str(), label.voxels, label.volume_ml)).collect();
        assert_eq!(table, [(2, "tumour", 3, 3.0), (5, "cyst", 0, 0.0), (7, "label 7", 1, 1.0)]);
        assert_eq!((found.model().name.as_str(), found.model().version.as_str(), found.model().sha256.as_str()), ("threshold", "3", ""));
        for (labels, names) in [
            (&[0; 5][..], &[][..]),
            (&[0; 7], &[]),
            (&[0; 6], &[(0, "background")]),
            (&[0; 6], &[(1, "")]),
            (&[0; 6], &[(1, "a"), (1, "b")]),
            (&[0; 6], &[(1, "a"), (2, "a")]),
        ] {
            assert_eq!(segmented(labels, names).err().map(|error| error.kind()), Some(Kind::ModelShape), "{names:?}");
        }
    }

    #[test]
    fn values_are_numbers_with_labels() {
        let found = predicted(&[("age", 61.0), ("cancer_probability", 0.25)]).unwrap();
        assert_eq!((found.probability, found.values.len()), (Some(0.25), 2));
        assert_eq!(predicted(&[("age", 61.0)]).unwrap().probability, None);
        for values in [
            &[][..],
            &[("", 1.0)],
            &[("a\nb", 1.0)],
            &[("age", f64::NAN)],
            &[("age", f64::INFINITY)],
            &[("cancer_probability", 1.01)],
            &[("cancer_probability", 0.1), ("cancer_probability", 0.1)],
        ] {
            assert_eq!(predicted(values).err().map(|error| error.kind()), Some(Kind::ModelShape), "{values:?}");
        }
    }

    #[test]
    fn names_are_needed_and_a_cancelled_study_has_no_answer() {
        let nothing = || Box::new(|_: &Volume, _: Option<&Segmentation>, _: &Control| Ok(vec![("a".to_owned(), 1.0)]));
        for (name, version) in [("", "1"), ("a", ""), ("a\0", "1"), (&*"a".repeat(129), "1")] {
            assert_eq!(own_predictor(name, version, nothing()).err().map(|error| error.kind()), Some(Kind::InvalidArgument));
        }
        let control = Control::new();
        control.cancel();
        let error = own_predictor("a", "1", nothing()).unwrap().predict(&volume(), None, &control).unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled);
    }
}
