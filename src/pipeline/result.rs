//! Everything known of one processed study.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use crate::audit::{self, AuditLog};
use crate::control::Control;
use crate::deid;
use crate::error::{Error, Kind, Result};
use crate::imaging::{Channel, Finding, Geometry, Mark, Step, Verdict, Volume};
use crate::inference::{ModelIdentity, PROBABILITY_LABEL, Prediction, Segmentation};
use crate::package::PackageFacts;
use crate::pipeline::download::TransferReport;
use crate::report::{self, Origin, Predicted, SegKind};

/// What the stages found, in one piece, before anybody looks at it.
pub(super) struct Findings {
    pub(super) study_id: String,
    pub(super) origin: Origin,
    pub(super) seg_kind: SegKind,
    pub(super) processed_at: String,
    pub(super) operations: Vec<String>,
    pub(super) download_mode: &'static str,
    pub(super) seconds: f64,
    pub(super) stage_seconds: Vec<(&'static str, f64)>,
    pub(super) volume: Volume,
    pub(super) steps: Vec<Step>,
    pub(super) mask: Option<Segmentation>,
    pub(super) prediction: Option<Prediction>,
    pub(super) deid: deid::Report,
    pub(super) metadata: Option<Value>,
    pub(super) package: Option<PackageFacts>,
    pub(super) transfer: Option<TransferReport>,
    pub(super) threshold: f64,
    pub(super) uncertain_band: f64,
    pub(super) high_risk_threshold: f64,
    pub(super) audit_head: String,
}

/// Everything known of one processed study. Shared between threads; [`StudyResult::add_prediction`] is the only change.
pub struct StudyResult {
    findings: Findings,
    audit: Arc<AuditLog>,
    /// Predictions that the host program made from the volume and the mask: model, label, value.
    added: Mutex<Vec<(String, String, f64)>>,
    /// The mask as a DICOM object, once somebody has asked for it.
    seg: Mutex<Option<Arc<Vec<u8>>>>,
    /// The report, with the number of added predictions that it holds.
    sr: Mutex<Option<(usize, Arc<Vec<u8>>)>>,
}

impl StudyResult {
    pub(super) fn new(findings: Findings, audit: Arc<AuditLog>) -> StudyResult {
        StudyResult { findings, audit, added: Mutex::new(Vec::new()), seg: Mutex::new(None), sr: Mutex::new(None) }
    }

    /// Everything below as JSON: schema `smp-result/1`. Absent values are left out; 0.0 is a value.
    pub fn json(&self) -> Result<String> {
        let findings = &self.findings;
        let mut json = Map::new();
        json.insert("schema".into(), "smp-result/1".into());
        json.insert("library_version".into(), env!("CARGO_PKG_VERSION").into());
        json.insert("study_id".into(), findings.study_id.clone().into());
        json.insert("processed_at".into(), findings.processed_at.clone().into());
        json.insert("operations_performed".into(), findings.operations.clone().into());
        json.insert("download_mode".into(), findings.download_mode.into());
        json.insert("processing_time_seconds".into(), findings.seconds.into());
        let stage_seconds: Map<String, Value> =
            findings.stage_seconds.iter().map(|(stage, seconds)| ((*stage).to_owned(), Value::from(*seconds))).collect();
        json.insert("stage_seconds".into(), stage_seconds.into());
        if let Some(probability) = self.cancer_probability() {
            json.insert("cancer_probability".into(), probability.into());
            json.insert("cancer_prediction".into(), self.cancer_prediction().into());
            json.insert("confidence_score".into(), self.confidence_score().into());
            json.insert("threshold".into(), findings.threshold.into());
            json.insert("uncertain_band".into(), findings.uncertain_band.into());
            json.insert("high_risk".into(), (probability > findings.high_risk_threshold).into());
        }
        let predictions: Vec<Value> =
            self.predictions().into_iter().map(|(model, label, value)| json!({"model": model, "label": label, "value": value})).collect();
        if !predictions.is_empty() {
            json.insert("predictions".into(), predictions.into());
        }
        if let Some(prediction) = &findings.prediction {
            json.insert("prediction_model".into(), identity(&prediction.model));
            if let Some(spread) = &prediction.spread {
                json.insert("prediction_spread".into(), json!({"members": spread.members, "std": spread.std}));
            }
        }
        json.insert("geometry".into(), geometry(findings.volume.geometry()));
        json.insert("modality".into(), findings.volume.modality().into());
        if findings.volume.channels().len() > 1 {
            json.insert("channels".into(), findings.volume.channels().iter().map(channel).collect());
        }
        json.insert("preprocessing".into(), findings.steps.iter().map(step).collect());
        if let Some(mask) = &findings.mask {
            let labels: Vec<Value> = mask
                .table()
                .iter()
                .map(|label| json!({"value": label.value, "name": label.name, "voxels": label.voxels, "volume_ml": label.volume_ml}))
                .collect();
            json.insert(
                "segmentation".into(),
                json!({"labels": labels, "model": identity(mask.model()), "adaptations": mask.adaptations(),
                    "preprocessing": mask.steps().iter().map(step).collect::<Vec<_>>()}),
            );
        }
        json.insert("deidentification".into(), deidentification(&findings.deid));
        if let Some(metadata) = &findings.metadata {
            json.insert("metadata".into(), metadata.clone());
        }
        if let Some(package) = &findings.package {
            json.insert(
                "package".into(),
                json!({"id": package.id, "sender": package.sender, "created": package.created, "files": package.files,
                    "bytes": package.bytes, "header_sha256": package.header_sha256, "format": package.format}),
            );
        }
        if let Some(transfer) = &findings.transfer {
            json.insert("transfer".into(), transfer.json());
        }
        json.insert("audit_head".into(), findings.audit_head.clone().into());
        serde_json::to_string_pretty(&Value::Object(json))
            .map_err(|_| Error::new(Kind::Internal, "the result is not representable as json"))
    }

    /// Id of the study, as requested or made.
    pub fn study_id(&self) -> &str {
        &self.findings.study_id
    }

    /// When the study was finished: RFC 3339, UTC.
    pub fn processed_at(&self) -> &str {
        &self.findings.processed_at
    }

    /// Operations that were really done, in order.
    pub fn operations(&self) -> &[String] {
        &self.findings.operations
    }

    /// Probability of the positive class, 0 to 1: the predictor's, or the one that the host program added as `cancer_probability`.
    pub fn cancer_probability(&self) -> Option<f64> {
        let predicted = self.findings.prediction.as_ref().and_then(|prediction| prediction.probability);
        predicted.or_else(|| {
            let added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
            added.iter().rev().find(|(_, label, _)| label == PROBABILITY_LABEL).map(|(_, _, value)| *value)
        })
    }

    /// `positive`, `negative`, or `uncertain` when the probability lies within `uncertain_band` of `threshold`.
    pub fn cancer_prediction(&self) -> Option<&'static str> {
        let probability = self.cancer_probability()?;
        Some(classify(probability, self.findings.threshold, self.findings.uncertain_band))
    }

    /// Distance of the probability from one half, scaled to 0..1: `abs(p - 0.5) * 2`. Not a calibration.
    pub fn confidence_score(&self) -> Option<f64> {
        self.cancer_probability().map(|probability| (probability - 0.5).abs() * 2.0)
    }

    /// Wall-clock seconds from the call to the last byte written.
    pub fn processing_time_seconds(&self) -> f64 {
        self.findings.seconds
    }

    /// The volume, preprocessed when that was asked for.
    pub fn volume(&self) -> &Volume {
        &self.findings.volume
    }

    /// The mask, on the volume's grid.
    pub fn mask(&self) -> Option<&Segmentation> {
        self.findings.mask.as_ref()
    }

    /// Every prediction: model, label, value.
    pub fn predictions(&self) -> Vec<(String, String, f64)> {
        let mut predictions = Vec::new();
        if let Some(prediction) = &self.findings.prediction {
            let model = &prediction.model.name;
            predictions.extend(prediction.values.iter().map(|(label, value)| (model.clone(), label.clone(), *value)));
        }
        predictions.extend(self.added.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        predictions
    }

    /// Adds a prediction that the host program made; it lands in the result and in the audit log.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] when the name or the label is empty or longer than 128 bytes, when the value is not finite, or when a
    /// `cancer_probability` is outside 0..1; [`Kind::AuditUnwritable`] when the addition cannot be recorded, and then it is not made.
    pub fn add_prediction(&self, model: &str, label: &str, value: f64) -> Result<()> {
        let named = |text: &str| !text.is_empty() && text.len() <= 128 && !text.chars().any(char::is_control);
        if !named(model) || !named(label) {
            return Err(Error::new(Kind::InvalidArgument, "model and label must be 1 to 128 bytes of text"));
        }
        if !value.is_finite() || (label == PROBABILITY_LABEL && !(0.0..=1.0).contains(&value)) {
            return Err(Error::new(Kind::InvalidArgument, "the value is not a number in its range"));
        }
        self.audit.append(&audit::Event {
            event: "study.prediction_added",
            outcome: audit::Outcome::Success,
            object: Some(self.findings.study_id.clone()),
            detail: vec![
                ("model", audit::Value::Text(words(model))),
                ("label", audit::Value::Text(words(label))),
                ("value_ppm", audit::Value::Integer(ppm(value))),
            ],
        })?;
        self.added.lock().unwrap_or_else(PoisonError::into_inner).push((model.to_owned(), label.to_owned(), value));
        Ok(())
    }

    /// DICOM objects that [`StudyResult::dicom`] makes: the segmentation, when there is a mask, and the structured report, when there is a mask or a
    /// prediction.
    pub fn dicom_count(&self) -> usize {
        usize::from(self.mask().is_some()) + usize::from(self.mask().is_some() || !self.predictions().is_empty())
    }

    /// A DICOM object, as the bytes of a file: the segmentation first, then the report. However often it is asked for, it is the same; a report changes with
    /// a prediction that is added.
    ///
    /// # Errors
    /// [`Kind::OutOfRange`] beyond [`StudyResult::dicom_count`]; those of [`report::segmentation`].
    pub fn dicom(&self, index: usize) -> Result<Arc<Vec<u8>>> {
        match (self.mask(), index) {
            _ if index >= self.dicom_count() => Err(Error::new(Kind::OutOfRange, "the result has no such object")),
            (Some(mask), 0) => self.seg(mask),
            _ => self.sr(),
        }
    }

    /// The structured report; made anew when a prediction was added.
    fn sr(&self) -> Result<Arc<Vec<u8>>> {
        let mut predicted = Vec::new();
        if let Some(prediction) = &self.findings.prediction {
            predicted.extend(prediction.values.iter().map(|(label, value)| Predicted {
                model: prediction.model.name.clone(),
                version: prediction.model.version.clone(),
                label: label.clone(),
                value: *value,
            }));
            // A contract calls the probability of the positive class by that class's name.
            let is_named = predicted.iter().any(|predicted| predicted.label == PROBABILITY_LABEL);
            if let Some(value) = prediction.probability.filter(|_| !is_named) {
                let ModelIdentity { name, version, .. } = prediction.model.clone();
                predicted.insert(0, Predicted { model: name, version, label: PROBABILITY_LABEL.to_owned(), value });
            }
        }
        let added = self.added.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let count = added.len();
        let of_host = |(model, label, value)| Predicted { model, version: String::new(), label, value };
        predicted.extend(added.into_iter().map(of_host));
        let mut sr = self.sr.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = sr.as_ref().filter(|(made_of, _)| *made_of == count) {
            return Ok(Arc::clone(bytes));
        }
        let bytes = Arc::new(report::structured_report(self.mask(), &predicted, &self.findings.origin, self.findings.seg_kind)?);
        *sr = Some((count, Arc::clone(&bytes)));
        Ok(bytes)
    }

    fn seg(&self, mask: &Segmentation) -> Result<Arc<Vec<u8>>> {
        let mut seg = self.seg.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = seg.as_ref() {
            return Ok(Arc::clone(bytes));
        }
        let bytes = Arc::new(report::segmentation(mask, &self.findings.origin, self.findings.seg_kind, &Control::new())?);
        *seg = Some(Arc::clone(&bytes));
        Ok(bytes)
    }

    /// Verdict on the geometry, with the grid: JSON.
    pub fn geometry_json(&self) -> Result<String> {
        Ok(geometry(self.findings.volume.geometry()).to_string())
    }

    /// Seconds of a stage: `fetch`, `load`, `anonymize`, `preprocess`, `segment`, `predict`, `write`. `None` when it did not run.
    pub fn stage_seconds(&self, stage: &str) -> Option<f64> {
        self.findings.stage_seconds.iter().find(|(name, _)| *name == stage).map(|(_, seconds)| *seconds)
    }

    /// Writes one product to a file, atomically. `what` is `volume`, `mask`, `seg` (a DICOM Segmentation object), `sr` (a DICOM structured report), `summary` or `preview`; the
    /// extension is the format: `.npy`, `.nii`, `.nii.gz`, `.dcm`, `.json`, `.png`.
    ///
    /// # Errors
    /// [`Kind::Absent`] for a mask that was never made; [`Kind::OutputUnsupported`] for a format that the product does not have;
    /// [`Kind::OutputUnwritable`].
    pub fn save(&self, path: &Path, what: &str) -> Result<()> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
        let is = |extension: &str| name.ends_with(extension);
        let nifti = is(".nii") || is(".nii.gz");
        let mask = || self.mask().ok_or_else(|| Error::new(Kind::Absent, "the study was not segmented"));
        match what {
            "volume" if is(".npy") => report::write_volume_npy(path, self.volume()),
            "volume" if nifti => report::write_volume_nifti(path, self.volume()),
            "mask" if is(".npy") => report::write_mask_npy(path, mask()?),
            "mask" if nifti => report::write_mask_nifti(path, mask()?),
            "seg" if is(".dcm") => {
                let bytes = self.seg(mask()?)?;
                report::write_atomically(path, &mut |out| out.write_all(&bytes))
            }
            "sr" if is(".dcm") => {
                let bytes = self.sr()?;
                report::write_atomically(path, &mut |out| out.write_all(&bytes))
            }
            "summary" if is(".json") => report::write_text(path, &self.json()?),
            "preview" if is(".png") => report::write_preview_png(path, self.volume(), self.mask(), &self.caption()),
            "volume" | "mask" | "summary" | "preview" | "seg" | "sr" => {
                Err(Error::new(Kind::OutputUnsupported, format!("{what} has no such format"))
                    .with_hint("volume and mask: .npy, .nii, .nii.gz; seg and sr: .dcm; summary: .json; preview: .png"))
            }
            _ => {
                Err(Error::new(Kind::InvalidArgument, "unknown product")
                    .with_hint("valid products: volume, mask, seg, sr, summary, preview"))
            }
        }
    }

    /// One line under the preview.
    fn caption(&self) -> String {
        match self.cancer_probability() {
            Some(probability) => format!("{}  p = {probability:.3}", self.study_id()),
            None => self.study_id().to_owned(),
        }
    }

    pub(super) fn findings_mut(&mut self) -> &mut Findings {
        &mut self.findings
    }
}

/// `positive` from the threshold on; `uncertain` strictly within the band around it.
fn classify(probability: f64, threshold: f64, band: f64) -> &'static str {
    if (probability - threshold).abs() < band {
        "uncertain"
    } else if probability >= threshold {
        "positive"
    } else {
        "negative"
    }
}

/// Parts per million: the audit log holds no floating point numbers.
pub(super) fn ppm(value: f64) -> i64 {
    // `as` saturates, which is what a value far outside the range of probabilities deserves.
    (value * 1e6).round() as i64
}

/// A name in the form the audit log takes: printable ASCII, no path separators, everything else an underscore.
pub(super) fn words(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') && c != '/' && c != '\\' { c } else { '_' }).collect()
}

/// What was done to the headers, by action and by the rule that asked for it.
fn deidentification(report: &deid::Report) -> Value {
    let counts = |counts: &deid::Counts| -> Map<String, Value> {
        counts.named().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect()
    };
    let mut json = counts(&report.total);
    json.insert("deidentified".into(), report.deidentified.into());
    if report.deidentified {
        let by_rule: Map<String, Value> = report.by_rule.iter().map(|(rule, part)| ((*rule).to_owned(), counts(part).into())).collect();
        json.insert("by_rule".into(), by_rule.into());
        json.insert("blacked_out".into(), report.blacked_out.into());
        json.insert("codes".into(), report.codes.clone().into());
    }
    json.into()
}

fn identity(model: &ModelIdentity) -> Value {
    let mut json = json!({
        "name": model.name, "version": model.version, "members": model.members, "device": model.device, "runtime": model.runtime,
    });
    // A function of the host program has no file whose digest could be told.
    if !model.sha256.is_empty() {
        json["sha256"] = model.sha256.clone().into();
    }
    json
}

/// What tells a channel from the others.
fn channel(channel: &Channel) -> Value {
    let mark = |(name, mark): &(&'static str, Mark)| {
        let value = match mark {
            Mark::Number(number) => Value::from(*number),
            Mark::Word(word) => Value::from(*word),
        };
        ((*name).to_owned(), value)
    };
    channel.marks.iter().map(mark).collect::<Map<String, Value>>().into()
}

fn step(step: &Step) -> Value {
    let parameters: Map<String, Value> = step.parameters.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    json!({"name": step.name, "parameters": parameters, "seconds": step.seconds})
}

fn geometry(geometry: &Geometry) -> Value {
    let mut json = json!({
        "dims": geometry.dims,
        "spacing_mm": geometry.spacing_mm,
        "affine_lps": geometry.affine_lps,
        "verdict": verdict_name(&geometry.verdict),
        "resampled": matches!(geometry.verdict, Verdict::Resampled(_)),
    });
    if let (Verdict::Resampled(resampled), Value::Object(json)) = (&geometry.verdict, &mut json) {
        json.insert("frames".into(), resampled.frames.origins.len().into());
        for finding in &resampled.findings {
            let (key, value) = match finding {
                Finding::GantryTilt { degrees } => ("tilt_degrees", json!(degrees)),
                Finding::Gaps { missing } => {
                    ("gaps", missing.iter().map(|(after, slices)| json!({"after_slice": after, "slices": slices})).collect())
                }
                Finding::VariableSpacing { least_mm, most_mm } => ("steps_mm", json!([least_mm, most_mm])),
            };
            json.insert(key.into(), value);
        }
    }
    json
}

/// Name of a geometry verdict in results and the audit log. Of several findings the first speaks.
pub(super) fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Uniform => "uniform",
        Verdict::SingleSlice => "single slice",
        Verdict::MultiFrame => "multi-frame",
        Verdict::Resampled(resampled) => match resampled.findings.first() {
            Some(Finding::GantryTilt { .. }) => "gantry tilt",
            Some(Finding::Gaps { .. }) => "gap",
            Some(Finding::VariableSpacing { .. }) | None => "variable spacing",
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{classify, geometry};
    use crate::dicom::geometry::{Finding, Frames, Geometry, Resampled, Verdict};

    #[test]
    fn a_grid_that_was_made_says_of_what() {
        let frames = Frames { dims: [1, 1], per_column: [1.0; 3], per_row: [1.0; 3], normal: [1.0; 3], origins: vec![[0.0; 3]; 7] };
        let findings = vec![Finding::GantryTilt { degrees: 18.5 }, Finding::Gaps { missing: vec![(2, 1)] }];
        let verdict = Verdict::Resampled(Arc::new(Resampled { findings, frames }));
        let json = geometry(&Geometry { dims: [1, 1, 8], spacing_mm: [1.0; 3], affine_lps: [[0.0; 4]; 4], verdict });
        assert_eq!(
            (json["verdict"].as_str(), json["resampled"].as_bool(), json["frames"].as_u64()),
            (Some("gantry tilt"), Some(true), Some(7))
        );
        assert_eq!((json["tilt_degrees"].as_f64(), json["gaps"].to_string().as_str()), (Some(18.5), r#"[{"after_slice":2,"slices":1}]"#));
    }

    #[test]
    fn the_threshold_itself_is_positive_and_the_band_is_uncertain() {
        for (probability, threshold, band, expected) in [
            (0.5, 0.5, 0.0, "positive"),
            (0.499_999, 0.5, 0.0, "negative"),
            (0.0, 0.5, 0.0, "negative"),
            (0.55, 0.5, 0.1, "uncertain"),
            (0.45, 0.5, 0.1, "uncertain"),
            (0.75, 0.5, 0.25, "positive"),
            (0.25, 0.5, 0.25, "negative"),
        ] {
            assert_eq!(classify(probability, threshold, band), expected, "{probability} {threshold} {band}");
        }
    }
}
