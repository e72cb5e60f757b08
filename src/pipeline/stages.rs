//! The order of the work, in one screenful, and the rules that hold for every stage: it is watched, timed, recorded and cleaned up after.
//!
//! This is the only place in the crate that writes study events to the audit log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crate::audit::{self, AuditLog, Value};
use crate::control::Control;
use crate::deid::{self, ReleasedStudy};
use crate::dicom::Loader;
use crate::error::{Error, Kind, Result};
use crate::imaging::{self, Volume};
use crate::package::PackageFacts;
use crate::pipeline::download::{Download, TransferReport};
use crate::pipeline::mapping;
use crate::pipeline::origin::origin;
use crate::pipeline::outputs::Staging;
use crate::pipeline::request::{DownloadMode, Operation, Request};
use crate::pipeline::result::{Findings, StudyResult, ppm, verdict_name, words};
use crate::pipeline::settings::StudySettings;
use crate::pipeline::workspace::SpoolLease;
use crate::pipeline::{Inner, now, project_key};
use crate::secret::Plain;

/// Runs one study from its first audit record to its last. Whatever happens in between, the record says how it ended, and a study that
/// failed for good leaves nothing in the workspace.
pub(super) fn run(inner: &Inner, request: &Request, study_id: &str, control: &Control) -> Result<StudyResult> {
    let started = Instant::now();
    let settings = StudySettings::new(&inner.config, request)?;
    let operations = request.operations(settings.auto_anonymize);
    let recorder = Recorder { audit: &inner.audit, study_id };
    recorder.success(
        "study.started",
        vec![
            ("operations", Value::Text(names(&operations).join(","))),
            ("download_mode", Value::Text(request.download_mode.name().to_owned())),
        ],
    )?;
    let mut run = Run { inner, request, settings, operations, recorder, control, timings: Vec::new(), spool: None, transfer: None };
    // A panic is a defect, but even then the spool is erased and the log says that the study failed.
    let outcome = catch_unwind(AssertUnwindSafe(|| run.stages(study_id, started)))
        .unwrap_or_else(|_| Err(Error::new(Kind::Internal, "a stage stopped unexpectedly")));
    if let Some(spool) = run.spool.take() {
        // An interrupted transfer is resumed from its spool. Anything else that failed will fail again.
        let resumable = outcome.as_ref().err().is_some_and(|error| error.is_retryable() || error.kind() == Kind::Cancelled);
        if outcome.is_err()
            && !resumable
            && let Err(error) = spool.erase()
        {
            // What is left is ciphertext, and the study's own error is the one that helps.
            run.recorder.failure("workspace.cleaned", &error)?;
        }
    }
    match &outcome {
        Ok(_) => run.recorder.success("study.finished", vec![("milliseconds", milliseconds(started))])?,
        Err(error) => run.recorder.failure("study.failed", error)?,
    }
    outcome
}

/// One study's run.
struct Run<'a> {
    inner: &'a Inner,
    request: &'a Request,
    settings: StudySettings,
    operations: Vec<Operation>,
    recorder: Recorder<'a>,
    control: &'a Control,
    timings: Vec<(&'static str, f64)>,
    spool: Option<SpoolLease>,
    transfer: Option<TransferReport>,
}

impl Run<'_> {
    /// The order of the work.
    fn stages(&mut self, study_id: &str, started: Instant) -> Result<StudyResult> {
        // What can be refused at once is refused before a byte is fetched.
        let staging = self.request.output_path.as_deref().map(|path| Staging::begin(path, study_id, &self.settings.formats)).transpose()?;
        if self.writes_dicom() && !self.does(Operation::Anonymize) {
            return Err(Error::new(Kind::OutputUnsupported, "dicom files are written of de-identified studies only")
                .with_hint("add the operation anonymize, or take dicom out of output.formats"));
        }
        if self.settings.deid.keeps_mapping && staging.is_some() && self.does(Operation::Anonymize) {
            mapping::check(&self.inner.keys)?;
        }
        let models = &self.inner.models;
        let segmenter = self.does(Operation::Segment).then(|| models.choose_segmenter(self.settings.segment_model.as_ref())).transpose()?;
        let predictor = self.does(Operation::Predict).then(|| models.choose_predictor(self.settings.predict_model.as_ref())).transpose()?;

        // Models open while the study is on its way: neither waits for the other, and a model that cannot be opened is told before any pixel
        // is looked at.
        let (inner, options) = (self.inner, self.settings.runtime.clone());
        let (fetched, opened) = std::thread::scope(|scope| {
            let opening = scope.spawn(|| -> Result<()> {
                segmenter.as_ref().map(|choice| inner.models.segmenter(choice, &options)).transpose()?;
                predictor.as_ref().map(|choice| inner.models.predictor(choice, &options)).transpose()?;
                Ok(())
            });
            let fetched = self.stage("fetch", |run| run.fetch());
            (fetched, opening.join())
        });
        let (loader, package) = fetched?;
        opened.map_err(|_| Error::new(Kind::Internal, "a model's opening panicked"))??;
        let identified = self.stage("load", |run| loader.finish(run.control))?;
        self.recorder.success(
            "study.loaded",
            vec![
                ("slices", integer(identified.geometry.dims[2])),
                ("channels", integer(identified.channels.len())),
                ("verdict", Value::Text(verdict_name(&identified.geometry.verdict).to_owned())),
                ("left_out", integer(identified.left_out)),
            ],
        )?;
        let released = if self.does(Operation::Anonymize) {
            let key = project_key(&self.inner.config, &self.inner.keys)?;
            self.stage("anonymize", |run| deid::deidentify(identified, &run.settings.deid, &key, run.control))?
        } else {
            deid::release_identified(identified)
        };
        self.record_release(&released)?;
        let (mut volume, mut steps) = (Volume::from_study(&released), Vec::new());
        if self.does(Operation::Preprocess) {
            (volume, steps) = self.stage("preprocess", |run| imaging::preprocess(volume, &run.settings.recipe, run.control))?;
            let done: Vec<&str> = steps.iter().map(|step| step.name).collect();
            self.recorder.success("study.preprocessed", vec![("steps", Value::Text(done.join(",")))])?;
        }
        let mask = match segmenter {
            Some(choice) => Some(
                self.stage("segment", |run| run.inner.models.segmenter(&choice, &run.settings.runtime)?.segment(&volume, run.control))?,
            ),
            None => None,
        };
        if let Some(mask) = &mask {
            self.recorder.success("study.segmented", model_detail(mask.model()))?;
        }
        let prediction = match predictor {
            Some(choice) => Some(self.stage("predict", |run| {
                let predictor = run.inner.models.predictor(&choice, &run.settings.runtime)?;
                if predictor.needs_mask() && mask.is_none() {
                    return Err(
                        Error::new(Kind::InvalidArgument, "this prediction model needs a mask").with_hint("add the operation segment")
                    );
                }
                predictor.predict(&volume, mask.as_ref(), run.control)
            })?),
            None => None,
        };
        if let Some(prediction) = &prediction {
            let mut detail = model_detail(&prediction.model);
            detail.extend(prediction.probability.map(|probability| ("probability_ppm", Value::Integer(ppm(probability)))));
            self.recorder.success("study.predicted", detail)?;
        }
        let processed_at = now()?;
        let findings = Findings {
            study_id: study_id.to_owned(),
            origin: origin(&released, &processed_at)?,
            seg_kind: self.settings.seg_kind,
            processed_at,
            operations: names(&self.operations).into_iter().map(str::to_owned).collect(),
            download_mode: self.request.download_mode.name(),
            seconds: started.elapsed().as_secs_f64(),
            stage_seconds: self.timings.clone(),
            metadata: metadata(&released)?,
            deid: released.report().clone(),
            volume,
            steps,
            mask,
            prediction,
            package,
            transfer: self.transfer.take(),
            threshold: self.settings.threshold,
            uncertain_band: self.settings.uncertain_band,
            high_risk_threshold: self.settings.high_risk_threshold,
            audit_head: self.inner.audit.head(),
        };
        let mut result = StudyResult::new(findings, Arc::clone(&self.inner.audit));
        if let Some(staging) = staging {
            let files = self.stage("write", |run| staging.write(&result, &released, &run.inner.keys, run.control)?.publish())?;
            self.recorder.success(
                "study.written",
                vec![
                    ("files", integer(files)),
                    ("formats", Value::Text(self.settings.formats.join(","))),
                    ("mapping", Value::Flag(released.mapping().is_some())),
                ],
            )?;
        }
        let findings = result.findings_mut();
        findings.seconds = started.elapsed().as_secs_f64();
        findings.stage_seconds = self.timings.clone();
        findings.audit_head = self.inner.audit.head();
        Ok(result)
    }

    /// Runs one stage: nothing starts after a cancel, and its seconds are kept.
    fn stage<T>(&mut self, name: &'static str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.control.check()?;
        self.control.progress(name, 0.0);
        let started = Instant::now();
        let outcome = work(self);
        self.timings.push((name, started.elapsed().as_secs_f64()));
        if outcome.is_ok() {
            self.control.progress(name, 1.0);
        }
        outcome
    }

    /// Instances from wherever the request says, scanned and parsed but not yet a series.
    fn fetch(&mut self) -> Result<(Loader, Option<PackageFacts>)> {
        let mut loader = Loader::new(self.settings.dicom_limits.clone(), self.settings.selection.clone(), self.settings.geometry.clone());
        if self.writes_dicom() {
            loader = loader.keep_pixels();
        }
        if let Some(regions_of) = self.settings.deid.regions_of()?.filter(|_| self.does(Operation::Anonymize)) {
            loader = loader.black_out(regions_of);
        }
        for (number, bytes) in self.request.instances.iter().enumerate() {
            loader.add(number, Plain::new(bytes.to_vec()), self.control)?;
        }
        let Some(remote_path) = &self.request.remote_path else {
            if self.request.instances.is_empty() {
                return Err(Error::new(Kind::InvalidArgument, "the request names no study and holds no instance"));
            }
            return Ok((loader, None));
        };
        let download = Download { inner: self.inner, settings: &self.settings, recorder: &self.recorder, control: self.control };
        let package = match self.request.download_mode {
            DownloadMode::ZeroKnowledge => {
                let (package, transfer) = download.sealed(remote_path, &mut self.spool, &mut loader)?;
                self.transfer = Some(transfer);
                Some(package)
            }
            DownloadMode::Standard => {
                self.transfer = Some(download.ordinary(remote_path, &mut loader)?);
                None
            }
        };
        Ok((loader, package))
    }

    fn record_release(&self, released: &ReleasedStudy) -> Result<()> {
        let report = released.report();
        if !report.deidentified {
            return self.recorder.success("study.released_identified", Vec::new());
        }
        let options = &self.settings.deid;
        let mut detail = vec![
            ("profile", Value::Text("basic".to_owned())),
            ("options", Value::Text(options.options.join(","))),
            ("strictness", Value::Text(options.strictness.name().to_owned())),
            ("burned_in", Value::Text(options.burned_in.name().to_owned())),
            ("blacked_out", integer(report.blacked_out)),
            ("removed", integer(report.total.removed)),
            ("emptied", integer(report.total.emptied)),
            ("replaced", integer(report.total.replaced)),
            ("uids", integer(report.total.uids)),
        ];
        if let deid::BurnedIn::Allow(reason) = &options.burned_in {
            detail.push(("burned_in_reason", Value::Text(reason.clone())));
        }
        self.recorder.success("study.deidentified", detail)
    }

    fn writes_dicom(&self) -> bool {
        self.request.output_path.is_some() && self.settings.formats.iter().any(|format| format == "dicom")
    }

    fn does(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
    }
}

/// Writes a study's events; the study itself appears as a pseudonym only.
pub(super) struct Recorder<'a> {
    audit: &'a AuditLog,
    study_id: &'a str,
}

impl Recorder<'_> {
    pub(super) fn success(&self, event: &'static str, detail: Vec<(&'static str, Value)>) -> Result<()> {
        self.append(event, audit::Outcome::Success, detail)
    }

    fn failure(&self, event: &'static str, error: &Error) -> Result<()> {
        let detail =
            vec![("error_code", Value::Integer(error.code().into())), ("error_stage", Value::Text(error.stage().name().to_owned()))];
        self.append(event, audit::Outcome::Failure, detail)
    }

    fn append(&self, event: &'static str, outcome: audit::Outcome, detail: Vec<(&'static str, Value)>) -> Result<()> {
        self.audit.append(&audit::Event { event, outcome, object: Some(self.study_id.to_owned()), detail })?;
        Ok(())
    }
}

/// De-identified metadata for the result; a study that was released identified shows none.
fn metadata(released: &ReleasedStudy) -> Result<Option<serde_json::Value>> {
    if !released.report().deidentified {
        return Ok(None);
    }
    let text = released.metadata_json()?;
    serde_json::from_str(&text).map(Some).map_err(|_| Error::new(Kind::Internal, "the metadata is not valid json"))
}

fn names(operations: &[Operation]) -> Vec<&'static str> {
    operations.iter().map(|operation| operation.name()).collect()
}

fn model_detail(model: &crate::inference::ModelIdentity) -> Vec<(&'static str, Value)> {
    let mut detail = vec![
        ("model", Value::Text(words(&model.name))),
        ("model_version", Value::Text(words(&model.version))),
        ("device", Value::Text(model.device.clone())),
        ("runtime", Value::Text(words(&model.runtime))),
    ];
    // A function of the host program has no file.
    if !model.sha256.is_empty() {
        detail.push(("model_sha256", Value::Text(model.sha256.clone())));
    }
    detail
}

pub(super) fn integer(value: impl TryInto<i64>) -> Value {
    Value::Integer(value.try_into().unwrap_or(i64::MAX))
}

fn milliseconds(since: Instant) -> Value {
    integer(since.elapsed().as_millis())
}
