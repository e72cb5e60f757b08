//! What a caller asks for: one study, which operations, where the results go, and what differs from the configuration.

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::secret::Plain;

/// Configuration keys that belong to the pipeline as a whole and cannot differ per study.
const PIPELINE_KEYS: &[&str] =
    &["user_id", "protocol", "workspace", "encryption_key_path", "key_store_path", "audit_log_path", "auto_cleanup"];

/// One thing that can be done to a study. The order of the variants is the order of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Fetch, verify, decrypt, read the DICOM. Always done; naming it is allowed and changes nothing.
    Load,
    /// Remove identifiers (PS3.15 Annex E).
    Anonymize,
    /// Correct, denoise, normalize, as `preprocess.*` says.
    Preprocess,
    /// Segment with `segment_model_path`.
    Segment,
    /// Predict with `model_path`.
    Predict,
}

impl Operation {
    /// Every operation, in the order of the work.
    pub const ALL: [Operation; 5] = [Operation::Load, Operation::Anonymize, Operation::Preprocess, Operation::Segment, Operation::Predict];

    /// The name that requests and results use.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Load => "load",
            Operation::Anonymize => "anonymize",
            Operation::Preprocess => "preprocess",
            Operation::Segment => "segment",
            Operation::Predict => "predict",
        }
    }

    /// Reads a comma separated list. Any subset in any order is valid; the work has one order.
    fn parse_list(list: &str) -> Result<Vec<Operation>> {
        let mut operations = vec![Operation::Load];
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let operation = Operation::ALL.into_iter().find(|operation| operation.name() == word).ok_or_else(|| {
                let names: Vec<&str> = Operation::ALL.iter().map(|operation| operation.name()).collect();
                Error::new(Kind::InvalidArgument, "unknown operation").with_hint(format!("valid operations: {}", names.join(", ")))
            })?;
            operations.push(operation);
        }
        operations.sort_unstable();
        operations.dedup();
        Ok(operations)
    }
}

/// How study objects reach the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DownloadMode {
    /// A sealed package; anything unsealed is refused.
    #[default]
    ZeroKnowledge,
    /// Ordinary DICOM objects, protected by TLS alone. Only ever used when asked for by name.
    Standard,
}

impl DownloadMode {
    /// The name that requests and results use.
    pub const fn name(self) -> &'static str {
        match self {
            DownloadMode::ZeroKnowledge => "zero_knowledge",
            DownloadMode::Standard => "standard",
        }
    }
}

/// One study to process.
///
/// ```
/// use smp::pipeline::Request;
/// let mut request = Request::new(Some("breast-mri/patient-001/"));
/// request.set("study_id", "RESEARCH-001")?;
/// request.set("operations", "load,anonymize,preprocess")?;
/// assert!(request.set("operations", "load,guess").is_err());
/// # Ok::<(), smp::Error>(())
/// ```
#[derive(Default)]
pub struct Request {
    pub(super) remote_path: Option<String>,
    pub(super) study_id: Option<String>,
    pub(super) operations: Option<Vec<Operation>>,
    pub(super) download_mode: DownloadMode,
    pub(super) output_path: Option<String>,
    pub(super) series_uid: Option<String>,
    pub(super) series_description: Option<String>,
    pub(super) overrides: Vec<(String, String)>,
    pub(super) instances: Vec<Plain>,
}

impl Request {
    /// A study at a path of the store (a folder, with or without a trailing slash); `None` when instances are added from memory.
    pub fn new(remote_path: Option<&str>) -> Request {
        Request { remote_path: remote_path.map(str::to_owned), ..Request::default() }
    }

    /// Sets `study_id`, `operations`, `download_mode`, `output_path`, `series_uid`, `series_description`, or a configuration key for
    /// this study alone.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] for a value outside its range; [`Kind::ConfigUnknownKey`] and [`Kind::ConfigInvalidValue`] as
    /// [`Config::set`] gives them; [`Kind::InvalidArgument`] for keys that belong to the whole pipeline.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "study_id" => self.study_id = Some(check_study_id(value)?),
            "operations" => self.operations = Some(Operation::parse_list(value)?),
            "download_mode" => {
                self.download_mode = match value {
                    "zero_knowledge" => DownloadMode::ZeroKnowledge,
                    "standard" => DownloadMode::Standard,
                    _ => {
                        return Err(
                            Error::new(Kind::InvalidArgument, "unknown download_mode").with_hint("valid modes: zero_knowledge, standard")
                        );
                    }
                }
            }
            "output_path" => self.output_path = Some(value.to_owned()),
            "series_uid" => self.series_uid = Some(value.to_owned()),
            "series_description" => self.series_description = Some(value.to_owned()),
            _ => {
                // A scratch configuration gives unknown keys and bad values the same errors as `Config::set`.
                Config::new().set(key, value)?;
                if PIPELINE_KEYS.contains(&key) || key.starts_with("cloud.") {
                    return Err(Error::new(Kind::InvalidArgument, format!("{key} belongs to the pipeline, not to one study")));
                }
                self.overrides.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(())
    }

    /// [`Request::set`] with a whole number.
    pub fn set_int(&mut self, key: &str, value: i64) -> Result<()> {
        self.set(key, &value.to_string())
    }

    /// [`Request::set`] with a real number.
    pub fn set_real(&mut self, key: &str, value: f64) -> Result<()> {
        if !value.is_finite() {
            return Err(Error::new(Kind::InvalidArgument, "the value is not a finite number"));
        }
        self.set(key, &value.to_string())
    }

    /// Adds a DICOM instance that is already in memory; the bytes are copied, and erased when the request is dropped.
    pub fn add_instance(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Err(Error::new(Kind::InvalidArgument, "the instance is empty"));
        }
        self.instances.push(Plain::new(bytes.to_vec()));
        Ok(())
    }

    /// The operations to do: what was asked for, or the guide's default; `anonymize` joins when the configuration says so.
    pub(super) fn operations(&self, auto_anonymize: bool) -> Vec<Operation> {
        let mut operations =
            self.operations.clone().unwrap_or_else(|| vec![Operation::Load, Operation::Preprocess, Operation::Segment, Operation::Predict]);
        if auto_anonymize && !operations.contains(&Operation::Anonymize) {
            operations.push(Operation::Anonymize);
            operations.sort_unstable();
        }
        operations
    }
}

/// A study id becomes part of file names, so it is limited to what every file system takes.
fn check_study_id(id: &str) -> Result<String> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if id.is_empty() || id.len() > 64 || id.starts_with('.') || !id.bytes().all(letters) {
        return Err(Error::new(Kind::InvalidArgument, "study_id must be 1 to 64 letters, digits, dots, dashes or underscores"));
    }
    Ok(id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(request: &Request, auto_anonymize: bool) -> Vec<&'static str> {
        request.operations(auto_anonymize).iter().map(|operation| operation.name()).collect()
    }

    #[test]
    fn the_guides_default_operations_hold() {
        let request = Request::new(None);
        assert_eq!(names(&request, true), ["load", "anonymize", "preprocess", "segment", "predict"]);
        assert_eq!(names(&request, false), ["load", "preprocess", "segment", "predict"]);
    }

    #[test]
    fn load_is_implied_and_the_work_has_one_order() -> Result<()> {
        let mut request = Request::new(None);
        request.set("operations", "predict, preprocess,predict")?;
        assert_eq!(names(&request, false), ["load", "preprocess", "predict"]);
        Ok(())
    }

    #[test]
    fn an_unknown_operation_lists_the_valid_ones() {
        let error = Request::new(None).set("operations", "load,guess").unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.hint().unwrap().contains("load, anonymize, preprocess, segment, predict"));
    }

    #[test]
    fn a_study_id_that_could_leave_the_folder_is_refused() {
        for id in ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a b", "é", &"x".repeat(65)] {
            assert_eq!(Request::new(None).set("study_id", id).unwrap_err().kind(), Kind::InvalidArgument, "{id}");
        }
        assert!(Request::new(None).set("study_id", "RESEARCH-001_a.b").is_ok());
    }

    #[test]
    fn the_mode_never_changes_by_a_misspelling() {
        let mut request = Request::new(None);
        assert!(request.set("download_mode", "Standard").is_err());
        assert_eq!(request.download_mode, DownloadMode::ZeroKnowledge);
    }
}
