//! The pipeline façade.
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::imaging::Volume;
use crate::inference::Segmentation;
use crate::keys::KeyStore;
use std::path::Path;
use std::sync::Arc;
fn stub<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "stub"))
}
/// One study to process.
#[derive(Default)]
pub struct Request {}
impl Request {
    /// A study at a path of the store; `None` when instances are added from memory.
    pub fn new(_remote_path: Option<&str>) -> Request {
        Request {}
    }
    /// Sets `study_id`, `operations`, `download_mode`, `output_path`, `series_uid`, `series_description` or a configuration key for this study.
    pub fn set(&mut self, _key: &str, _value: &str) -> Result<()> {
        stub()
    }
    /// Whole-number form.
    pub fn set_int(&mut self, _key: &str, _value: i64) -> Result<()> {
        stub()
    }
    /// Real form.
    pub fn set_real(&mut self, _key: &str, _value: f64) -> Result<()> {
        stub()
    }
    /// Adds a DICOM instance already in memory.
    pub fn add_instance(&mut self, _bytes: &[u8]) -> Result<()> {
        stub()
    }
}
/// The pipeline: configured once, used from any thread.
pub struct Pipeline {}
impl Pipeline {
    /// Opens workspace, key store and audit log. Uses a key store opened before in this process for the same folder, if any.
    pub fn new(_config: &Config) -> Result<Pipeline> {
        stub()
    }
    /// Runs one study to its end.
    pub fn process_study(&self, _request: &Request) -> Result<StudyResult> {
        stub()
    }
    /// Exports the audit log as JSON; returns the number of entries.
    pub fn export_audit(&self, _path: &Path, _start: Option<&str>, _end: Option<&str>) -> Result<u64> {
        stub()
    }
    /// JSON with total_entries, log_path, integrity_verified, user_id, ...
    pub fn audit_summary(&self) -> Result<String> {
        stub()
    }
    /// Erases the spool.
    pub fn cleanup(&self) -> Result<()> {
        stub()
    }
    /// JSON of the last cleanup.
    pub fn cleanup_report(&self) -> Result<String> {
        stub()
    }
    /// Sets the model of a task, `segment` or `predict`.
    pub fn register_model(&self, _task: &str, _path: &Path) -> Result<()> {
        stub()
    }
    /// Cancels and waits for running studies; later calls fail. Also done on drop.
    pub fn close(&self) {}
}
/// Opens (or makes) the key store of a folder and shares it in the process. `None`: `~/.smp/keys`, and no passphrase: wrapped by the default key file.
pub fn open_key_store(_directory: Option<&Path>, _passphrase: Option<&str>) -> Result<Arc<KeyStore>> {
    stub()
}
/// Seals a folder and uploads it.
pub fn seal_study(
    _config: &Config,
    _keys: &KeyStore,
    _sender_id: &str,
    _recipient_ids: &[&str],
    _folder: &Path,
    _remote_path: &str,
) -> Result<()> {
    stub()
}
/// Verifies a package; JSON report.
pub fn verify_package(_config: &Config, _keys: &KeyStore, _remote_path: &str) -> Result<String> {
    stub()
}
/// Writes a package's plaintext files to a folder; audited.
pub fn unseal_study(_config: &Config, _keys: &KeyStore, _remote_path: &str, _folder: &Path) -> Result<()> {
    stub()
}
/// JSON: version, features, providers, codecs, devices, ONNX Runtime version or why absent.
pub fn capabilities() -> String {
    String::new()
}
/// Everything known of one processed study. Shared between threads; `add_prediction` is the only change.
pub struct StudyResult {}
impl StudyResult {
    /// Everything below as JSON, one schema.
    pub fn json(&self) -> Result<String> {
        stub()
    }
    /// Id.
    pub fn study_id(&self) -> &str {
        ""
    }
    /// RFC 3339 UTC.
    pub fn processed_at(&self) -> &str {
        ""
    }
    /// Operations done, in order.
    pub fn operations(&self) -> &[String] {
        &[]
    }
    /// Probability.
    pub fn cancer_probability(&self) -> Option<f64> {
        None
    }
    /// `positive`, `negative`, `uncertain`.
    pub fn cancer_prediction(&self) -> Option<&'static str> {
        None
    }
    /// abs(p - 0.5) * 2.
    pub fn confidence_score(&self) -> Option<f64> {
        None
    }
    /// Wall-clock seconds of the whole call.
    pub fn processing_time_seconds(&self) -> f64 {
        0.0
    }
    /// The volume (preprocessed when asked for).
    pub fn volume(&self) -> &Volume {
        unreachable!()
    }
    /// The mask.
    pub fn mask(&self) -> Option<&Segmentation> {
        None
    }
    /// Every prediction: model, label, value.
    pub fn predictions(&self) -> Vec<(String, String, f64)> {
        Vec::new()
    }
    /// Adds a prediction made by the host language; lands in result and audit.
    pub fn add_prediction(&self, _model: &str, _label: &str, _value: f64) -> Result<()> {
        stub()
    }
    /// JSON verdict of the geometry.
    pub fn geometry_json(&self) -> Result<String> {
        stub()
    }
    /// Seconds of a stage (`fetch`, `load`, `anonymize`, `preprocess`, `segment`, `predict`, `write`).
    pub fn stage_seconds(&self, _stage: &str) -> Option<f64> {
        None
    }
    /// Writes one product: `volume`, `mask`, `summary`, `preview`, by the extension of the path.
    pub fn save(&self, _path: &Path, _what: &str) -> Result<()> {
        stub()
    }
}
