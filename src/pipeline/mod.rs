//! The pipeline: one object, configured once, that takes a study from a sealed package to its results.
//!
//! [`Pipeline`] is what every binding wraps. It owns the key store, the audit log, the workspace, the opened models and the threads;
//! the order of the work is in `stages`, and what comes out is a [`StudyResult`].
//!
//! ```no_run
//! use smp::config::Config;
//! use smp::pipeline::{Pipeline, Request};
//!
//! let mut config = Config::load(None)?;
//! config.set("user_id", "researcher@university.edu")?;
//! let pipeline = Pipeline::new(&config)?;
//! let mut request = Request::new(Some("breast-mri/patient-001/"));
//! request.set("operations", "load,anonymize,preprocess,segment,predict")?;
//! let result = pipeline.process_study(&request)?;
//! println!("{:?} {:?}", result.cancer_probability(), result.cancer_prediction());
//! pipeline.cleanup()?;
//! # Ok::<(), smp::Error>(())
//! ```

mod capabilities;
mod download;
mod key_changes;
mod mapping;
mod models;
mod origin;
mod outputs;
mod request;
mod result;
mod sealing;
mod settings;
mod shared;
mod stages;
mod workspace;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::audit::{AuditLog, AuditReader, Event, Outcome, Value};
use crate::config::Config;
use crate::control::{Control, Watcher};
use crate::error::{Error, Kind, Result};
use crate::inference::{Predictor, Segmenter};
use crate::keys::KeyStore;
use crate::secret::Secret;
use crate::transfer::{self, Client};

pub use crate::imaging::Volume;
pub use crate::inference::{OwnMask, PredictWork, SegmentWork, Segmentation, own_predictor, own_segmenter};
pub use crate::transfer::{Check, Checkup, Outcome as CheckOutcome};
pub use capabilities::capabilities;
pub use key_changes::RecordedKeyStore;
pub use models::inspect_model;
pub use request::{DownloadMode, Operation, Request};
pub use result::StudyResult;
pub use sealing::{grant_study, seal_instances, seal_study, unseal_study, verify_package};
pub use shared::{open_configured_key_store, open_key_store};

use models::{Models, Task};
use workspace::Workspace;

/// The pipeline: configured once, used from any thread. Dropping it closes it.
pub struct Pipeline {
    inner: Arc<Inner>,
}

/// What the stages of a study work with.
pub(crate) struct Inner {
    config: Config,
    keys: Arc<KeyStore>,
    audit: Arc<AuditLog>,
    workspace: Workspace,
    models: Models,
    watcher: Mutex<Option<Arc<Watcher>>>,
    /// Arithmetic of all studies of this pipeline, sized by `inference.threads`.
    threads: rayon::ThreadPool,
    client: Mutex<Option<Client>>,
    cleanup_report: Mutex<Option<serde_json::Value>>,
    running: Mutex<Running>,
    idle: Condvar,
}

/// Studies that run now.
#[derive(Default)]
struct Running {
    closed: bool,
    next: u64,
    controls: Vec<(u64, Control)>,
}

impl Pipeline {
    /// Opens workspace, key store and audit log. The store and the models are opened when they are first needed.
    ///
    /// # Errors
    /// Whatever [`Config::check`] finds; [`Kind::SpoolUnwritable`], [`Kind::KeyStoreUnavailable`], [`Kind::WrongPassphrase`],
    /// [`Kind::AuditUnwritable`].
    pub fn new(config: &Config) -> Result<Pipeline> {
        config.check()?;
        let config = config.clone();
        let keys = shared::open_configured_key_store(&config)?;
        let audit = shared::configured_audit_log(&config, &keys)?;
        let workspace = Workspace::open(&shared::required(&config, "workspace")?)?;
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(settings::whole(&config, "inference.threads", 0)?)
            .thread_name(|index| format!("smp-{index}"))
            .build()
            .map_err(|_| Error::new(Kind::Internal, "the worker threads cannot be started"))?;
        let inner = Inner {
            config,
            keys,
            audit,
            workspace,
            models: Models::default(),
            watcher: Mutex::new(None),
            threads,
            client: Mutex::new(None),
            cleanup_report: Mutex::new(None),
            running: Mutex::new(Running::default()),
            idle: Condvar::new(),
        };
        inner.record("pipeline.opened", Vec::new())?;
        Ok(Pipeline { inner: Arc::new(inner) })
    }

    /// Runs one study to its end. Blocks; any number of threads may call it at once.
    ///
    /// # Errors
    /// One kind per way to fail; the audit log says which, and a study that failed leaves no partial output. With `auto_cleanup`,
    /// [`Kind::EraseFailed`] when the study was processed (its files are written) but the workspace could not be erased.
    pub fn process_study(&self, request: &Request) -> Result<StudyResult> {
        let watcher = lock(&self.inner.watcher).clone();
        self.process_study_with(request, &watcher.map_or_else(Control::new, Control::watched))
    }

    /// [`Pipeline::process_study`], watched and stopped through a [`Control`].
    pub fn process_study_with(&self, request: &Request, control: &Control) -> Result<StudyResult> {
        let inner = &self.inner;
        let _running = inner.begin(control)?;
        let study_id = match &request.study_id {
            Some(id) => id.clone(),
            None => new_id("study")?,
        };
        let result = inner.threads.install(|| stages::run(inner, request, &study_id, control))?;
        if inner.config.flag("auto_cleanup")? {
            inner.cleanup()?;
        }
        Ok(result)
    }

    /// Exports the audit records of all logs in `audit_log_path` between two dates (inclusive; `YYYY-MM-DD` or RFC 3339) as JSON.
    /// Returns the number of records.
    pub fn export_audit(&self, path: &Path, start: Option<&str>, end: Option<&str>) -> Result<u64> {
        let entries = AuditReader::open(self.inner.audit.directory())?.export("json", path, start, end)?;
        self.inner.record("audit.exported", vec![("entries", Value::Integer(i64::try_from(entries).unwrap_or(i64::MAX)))])?;
        Ok(entries)
    }

    /// Totals of the audit log as JSON: `total_entries`, `log_path`, `integrity_verified`, `user_id`, `first`, `last`, `head`, `by_event`.
    pub fn audit_summary(&self) -> Result<String> {
        let summary = self.inner.audit.summary()?;
        let by_event: serde_json::Map<String, serde_json::Value> =
            summary.by_event.into_iter().map(|(event, count)| (event, count.into())).collect();
        Ok(serde_json::json!({
            "total_entries": summary.total_entries,
            "log_path": summary.log_path.display().to_string(),
            "integrity_verified": summary.integrity_verified,
            "user_id": summary.user_id,
            "first": summary.first,
            "last": summary.last,
            "head": summary.head,
            "by_event": by_event,
        })
        .to_string())
    }

    /// Erases what the workspace holds and gives back the models' memory. Safe at any time; a study that runs keeps its spool.
    ///
    /// # Errors
    /// [`Kind::EraseFailed`] when something is left; [`Pipeline::cleanup_report`] says how much.
    pub fn cleanup(&self) -> Result<()> {
        self.inner.cleanup()
    }

    /// What the last [`Pipeline::cleanup`] did, and what that is worth on this file system: JSON.
    ///
    /// # Errors
    /// [`Kind::Absent`] before the first cleanup.
    pub fn cleanup_report(&self) -> Result<String> {
        let report = lock(&self.inner.cleanup_report);
        report.as_ref().map(|report| report.to_string()).ok_or_else(|| Error::new(Kind::Absent, "nothing has been cleaned up yet"))
    }

    /// Uses a model for a task, `segment` or `predict`, from the next study on.
    pub fn register_model(&self, task: &str, path: &Path) -> Result<()> {
        self.inner.models.register(Task::parse(task)?, path)
    }

    /// Segments with a function of the host program from the next study on, in place of a model file; `None` returns to the files.
    pub fn set_segmenter(&self, own: Option<Arc<dyn Segmenter>>) {
        self.inner.models.bring_segmenter(own);
    }

    /// Predicts with a function of the host program from the next study on, in place of a model file; `None` returns to the files.
    pub fn set_predictor(&self, own: Option<Arc<dyn Predictor>>) {
        self.inner.models.bring_predictor(own);
    }

    /// Tells the progress of every study that [`Pipeline::process_study`] begins from now on, until the watcher says that it shall end.
    pub fn set_watcher(&self, watcher: Option<Arc<Watcher>>) {
        let before = std::mem::replace(&mut *lock(&self.inner.watcher), watcher);
        drop(before);
    }

    /// Cancels running studies and waits for them to stop. Later calls of [`Pipeline::process_study`] fail.
    pub fn close(&self) {
        let inner = &self.inner;
        let mut running = lock(&inner.running);
        let first = !running.closed;
        running.closed = true;
        for (_, control) in &running.controls {
            control.cancel();
        }
        while !running.controls.is_empty() {
            running = inner.idle.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        drop(running);
        if first {
            inner.models.release();
            // Closing cannot fail; a log that can no longer be written has already failed the studies.
            let _ = inner.record("pipeline.closed", Vec::new());
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    /// The client of the configured store, opened on first use.
    fn client(&self) -> Result<Client> {
        let mut client = lock(&self.client);
        if let Some(client) = client.as_ref() {
            return Ok(client.clone());
        }
        let opened = Client::open(&settings::store(&self.config)?, settings::client(&self.config)?)?;
        Ok(client.insert(opened).clone())
    }

    fn begin(&self, control: &Control) -> Result<RunningGuard<'_>> {
        let mut running = lock(&self.running);
        if running.closed {
            return Err(Error::new(Kind::Cancelled, "the pipeline is closed"));
        }
        let number = running.next;
        running.next += 1;
        running.controls.push((number, control.clone()));
        Ok(RunningGuard { inner: self, number })
    }

    fn cleanup(&self) -> Result<()> {
        self.models.release();
        let report = self.workspace.clean(&Control::new())?;
        let left = report["spools_left"].as_u64().unwrap_or(0);
        let detail = ["files_erased", "bytes_erased"].map(|key| report[key].as_i64().unwrap_or(i64::MAX));
        let recorded = Event {
            event: "workspace.cleaned",
            outcome: if left == 0 { Outcome::Success } else { Outcome::Failure },
            object: None,
            detail: vec![("files", Value::Integer(detail[0])), ("bytes", Value::Integer(detail[1]))],
        };
        *lock(&self.cleanup_report) = Some(report);
        self.audit.append(&recorded)?;
        if left > 0 { Err(Error::new(Kind::EraseFailed, format!("{left} spool folders are left"))) } else { Ok(()) }
    }

    fn record(&self, event: &'static str, detail: Vec<(&'static str, Value)>) -> Result<()> {
        self.audit.append(&Event { event, outcome: Outcome::Success, object: None, detail })?;
        Ok(())
    }
}

/// Takes a study off the list of running ones, however it ends.
struct RunningGuard<'a> {
    inner: &'a Inner,
    number: u64,
}

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        lock(&self.inner.running).controls.retain(|(number, _)| *number != self.number);
        self.inner.idle.notify_all();
    }
}

/// Examines the configured store, step by step. `remote_path` is where it is listed and read, empty for all of it; with `may_write` a small
/// object is written there, read back and deleted.
pub fn examine_store(config: &Config, remote_path: &str, may_write: bool, control: &Control) -> Result<Checkup> {
    config.check()?;
    Ok(transfer::examine(&settings::store(config)?, &settings::client(config)?, remote_path, may_write, control))
}

/// The key of pseudonyms, shifts and UIDs: configured, or this installation's own, kept in the key store.
fn project_key(config: &Config, keys: &KeyStore) -> Result<Secret<[u8; 32]>> {
    let Some(text) = config.text("deid.project_key") else {
        return keys.application_key("deid");
    };
    let malformed = || Error::new(Kind::ProjectKeyMissing, "deid.project_key must be 64 hex digits");
    let text = zeroize::Zeroizing::new(text);
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(malformed());
    }
    let mut key = Secret::new([0_u8; 32]);
    for (place, digits) in key.expose_mut().iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| malformed())?;
        *place = u8::from_str_radix(digits, 16).map_err(|_| malformed())?;
    }
    Ok(key)
}

/// `study-` or `transfer-` and eight hex digits.
fn new_id(kind: &str) -> Result<String> {
    let mut bytes = [0_u8; 4];
    getrandom::fill(&mut bytes).map_err(|_| Error::new(Kind::Internal, "the system gives no random bytes"))?;
    Ok(format!("{kind}-{:08x}", u32::from_be_bytes(bytes)))
}

/// Now, RFC 3339, UTC, to the second.
fn now() -> Result<String> {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or_else(|_| OffsetDateTime::now_utc());
    now.format(&Rfc3339).map_err(|_| Error::new(Kind::Internal, "the clock is outside the years 0 to 9999"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
