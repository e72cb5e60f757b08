//! Opened models, kept for the next study. A model whose file changed is opened again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::inference::{self, Inspection, Predictor, RuntimeOptions, Segmenter};
use crate::pipeline::lock;

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

/// The model of a task for one study: known from its start, opened when it is needed.
pub(super) enum Choice<M: ?Sized> {
    /// A function of the host program.
    Own(Arc<M>),
    /// A file.
    File(PathBuf),
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
    own_segmenter: Mutex<Option<Arc<dyn Segmenter>>>,
    own_predictor: Mutex<Option<Arc<dyn Predictor>>>,
}

impl Models {
    /// Uses a model for a task from the next study on.
    pub(super) fn register(&self, task: Task, path: &Path) -> Result<()> {
        if !path.is_file() {
            return Err(Error::new(Kind::ModelUnreadable, "there is no model file at this path"));
        }
        lock(&self.registered).insert(task, path.to_path_buf());
        match task {
            Task::Segment => self.bring_segmenter(None),
            Task::Predict => self.bring_predictor(None),
        }
        Ok(())
    }

    /// Uses a function of the host program from the next study on; `None` returns to the files.
    pub(super) fn bring_segmenter(&self, own: Option<Arc<dyn Segmenter>>) {
        // What was there before ends outside of the lock: its end is the host's code.
        let before = std::mem::replace(&mut *lock(&self.own_segmenter), own);
        drop(before);
    }

    /// As [`Models::bring_segmenter`].
    pub(super) fn bring_predictor(&self, own: Option<Arc<dyn Predictor>>) {
        let before = std::mem::replace(&mut *lock(&self.own_predictor), own);
        drop(before);
    }

    /// What segments: the host's function, else the registered file, else the configured one, else [`Kind::ModelMissing`].
    pub(super) fn choose_segmenter(&self, configured: Option<&PathBuf>) -> Result<Choice<dyn Segmenter>> {
        match lock(&self.own_segmenter).clone() {
            Some(own) => Ok(Choice::Own(own)),
            None => self.path(Task::Segment, configured).map(Choice::File),
        }
    }

    /// What predicts, likewise.
    pub(super) fn choose_predictor(&self, configured: Option<&PathBuf>) -> Result<Choice<dyn Predictor>> {
        match lock(&self.own_predictor).clone() {
            Some(own) => Ok(Choice::Own(own)),
            None => self.path(Task::Predict, configured).map(Choice::File),
        }
    }

    /// The model file of a task: registered, else configured, else [`Kind::ModelMissing`].
    fn path(&self, task: Task, configured: Option<&PathBuf>) -> Result<PathBuf> {
        let registered = lock(&self.registered).get(&task).cloned();
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

    pub(super) fn segmenter(&self, choice: &Choice<dyn Segmenter>, options: &RuntimeOptions) -> Result<Arc<dyn Segmenter>> {
        match choice {
            Choice::Own(own) => Ok(Arc::clone(own)),
            Choice::File(path) => find_or_open(&self.segmenters, path, options, || inference::open_segmenter(path, options)),
        }
    }

    pub(super) fn predictor(&self, choice: &Choice<dyn Predictor>, options: &RuntimeOptions) -> Result<Arc<dyn Predictor>> {
        match choice {
            Choice::Own(own) => Ok(Arc::clone(own)),
            Choice::File(path) => find_or_open(&self.predictors, path, options, || inference::open_predictor(path, options)),
        }
    }

    /// Gives back the memory of all opened models.
    pub(super) fn release(&self) {
        lock(&self.segmenters).clear();
        lock(&self.predictors).clear();
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
    let mut opened = lock(opened);
    if let Some(model) = opened.get(&opening) {
        return Ok(Arc::clone(model));
    }
    // One warm session per path: a model that changed on disk replaces its old self.
    opened.retain(|other, _| other.path != opening.path);
    let model: Arc<M> = Arc::from(open()?);
    opened.insert(opening, Arc::clone(&model));
    Ok(model)
}
