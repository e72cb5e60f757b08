//! Opened models, kept for the next study. A model whose file changed is opened again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::inference::{self, Inspection, Predictor, RuntimeOptions, Segmenter};

/// A task that a model can be registered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Task {
    Segment,
    Predict,
}

impl Task {
    pub(super) fn parse(name: &str) -> Result<Task> {
        match name {
            "segment" => Ok(Task::Segment),
            "predict" => Ok(Task::Predict),
            _ => Err(Error::new(Kind::InvalidArgument, "unknown task").with_hint("valid tasks: segment, predict")),
        }
    }
}

/// What makes two openings the same: the file as it is now and how it is run.
#[derive(PartialEq, Eq, Hash)]
struct Opening {
    path: PathBuf,
    modified: Option<SystemTime>,
    size: u64,
    options: String,
}

/// Models that were opened, and models that were registered in place of the configured ones.
#[derive(Default)]
pub(super) struct Models {
    segmenters: Mutex<HashMap<Opening, Arc<dyn Segmenter>>>,
    predictors: Mutex<HashMap<Opening, Arc<dyn Predictor>>>,
    registered: Mutex<HashMap<Task, PathBuf>>,
}

impl Models {
    /// Uses a model for a task from the next study on.
    pub(super) fn register(&self, task: Task, path: &Path) -> Result<()> {
        if !path.is_file() {
            return Err(Error::new(Kind::ModelUnreadable, "there is no model file at this path"));
        }
        self.registered.lock().unwrap_or_else(PoisonError::into_inner).insert(task, path.to_path_buf());
        Ok(())
    }

    /// The model of a task: registered, else configured, else [`Kind::ModelMissing`].
    pub(super) fn path(&self, task: Task, configured: Option<&PathBuf>) -> Result<PathBuf> {
        let registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner).get(&task).cloned();
        let path = registered.or_else(|| configured.cloned()).ok_or_else(|| {
            Error::new(
                Kind::ModelMissing,
                match task {
                    Task::Segment => "the operation segment needs segment_model_path",
                    Task::Predict => "the operation predict needs model_path",
                },
            )
        })?;
        // Said before anything is downloaded.
        if path.is_file() { Ok(path) } else { Err(Error::new(Kind::ModelUnreadable, "there is no model file at the configured path")) }
    }

    pub(super) fn segmenter(&self, path: &Path, options: &RuntimeOptions) -> Result<Arc<dyn Segmenter>> {
        find_or_open(&self.segmenters, path, options, || inference::open_segmenter(path, options))
    }

    pub(super) fn predictor(&self, path: &Path, options: &RuntimeOptions) -> Result<Arc<dyn Predictor>> {
        find_or_open(&self.predictors, path, options, || inference::open_predictor(path, options))
    }

    /// Gives back the memory of all opened models.
    pub(super) fn release(&self) {
        self.segmenters.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.predictors.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Tells what a model file says of itself, with the runtime and the backends that are configured.
///
/// # Errors
/// As [`inference::inspect`]; those of the configuration.
pub fn inspect_model(config: &Config, path: &Path) -> Result<Inspection> {
    inference::inspect(path, &super::settings::runtime(config)?)
}

fn find_or_open<M: ?Sized>(
    opened: &Mutex<HashMap<Opening, Arc<M>>>,
    path: &Path,
    options: &RuntimeOptions,
    open: impl FnOnce() -> Result<Box<M>>,
) -> Result<Arc<M>> {
    let file = std::fs::metadata(path).map_err(|_| Error::new(Kind::ModelUnreadable, "the model file cannot be read"))?;
    let opening = Opening { path: path.to_path_buf(), modified: file.modified().ok(), size: file.len(), options: format!("{options:?}") };
    // The lock is held while a model opens: two studies that need the same model must not open it twice.
    let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(model) = opened.get(&opening) {
        return Ok(Arc::clone(model));
    }
    // One warm session per path: a model that changed on disk replaces its old self.
    opened.retain(|other, _| other.path != opening.path);
    let model: Arc<M> = Arc::from(open()?);
    opened.insert(opening, Arc::clone(&model));
    Ok(model)
}
