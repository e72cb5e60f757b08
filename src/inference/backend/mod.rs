//! Backends: plug-in libraries that run models which ONNX Runtime does not run.
//!
//! A backend is a shared library with the small C interface of `include/smp_backend.h`. It gets the bytes that were hashed, never a path,
//! runs one window at a time, and its output is read where it lies. What holds for ONNX Runtime holds for a backend: runs repeat bit for
//! bit on the CPU, a run ends soon after the study is cancelled, and **Invariant:** no text of a backend reaches an error, a log or the
//! audit trail, but the reasons that the interface itself lists.
//!
//! | file | what |
//! |---|---|
//! | `abi` | the C interface, mirrored |
//! | `library` | loading and calling: the unsafe code |
//! | `search` | where the TorchScript backend is searched |

mod abi;
mod library;
mod search;

use std::ffi::CString;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::inference::watch::watched;

use library::{Failure, Handle, Input, Library};
pub(in crate::inference) use search::torchscript;

/// A loaded backend.
#[derive(Clone)]
pub(in crate::inference) struct Backend {
    library: Library,
    version: String,
}

/// A model that a backend holds. Dropping it closes it.
pub(in crate::inference) struct BackendModel {
    handle: Mutex<Handle>,
    inputs: Option<Vec<String>>,
    outputs: Option<Vec<String>>,
}

/// A tensor for one input: its name in the contract, shape and values, the last dimension the fastest.
pub(in crate::inference) struct Tensor<'a> {
    pub(in crate::inference) name: &'a str,
    pub(in crate::inference) shape: Vec<i64>,
    pub(in crate::inference) values: &'a [f32],
}

impl Backend {
    /// Loads a backend's library.
    ///
    /// # Errors
    /// [`Kind::RuntimeMissing`] when there is none that works.
    pub(in crate::inference) fn load(path: &Path) -> Result<Backend> {
        Backend::open_library(path).map_err(|why| {
            Error::new(Kind::RuntimeMissing, format!("the backend: {why}"))
                .with_hint("a backend is a shared library for this machine and this version, written after smp_backend.h")
        })
    }

    /// The error is a reason in our words.
    fn open_library(path: &Path) -> Result<Backend, &'static str> {
        // With a folder in its name a library is a file; without, the dynamic linker searches (and never in the current folder).
        let is_file = path.components().count() > 1;
        if is_file && !path.is_file() {
            return Err("absent");
        }
        let path = if is_file { path.canonicalize().map_err(|_| "unreadable")? } else { path.to_path_buf() };
        let library = Library::load(&path).map_err(|why| if is_file || !why.starts_with("not loadable") { why } else { "absent" })?;
        let plain = |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric() || " .-+_".contains(*c)).take(64).collect::<String>();
        let version = library.version().map(plain).filter(|version| !version.is_empty()).ok_or("a backend without a version")?;
        Ok(Backend { library, version })
    }

    /// Name of the backend (`torchscript`).
    pub(in crate::inference) fn name(&self) -> &'static str {
        self.library.name
    }

    /// What runs the models, with its version (`libtorch 1.13.1`).
    pub(in crate::inference) fn version(&self) -> &str {
        &self.version
    }

    /// Whether models can be opened on a device (`cpu`, `cuda:N`).
    pub(in crate::inference) fn has_device(&self, device: &str) -> bool {
        library::text(device).is_some_and(|device| self.library.device_available(&device))
    }

    /// Opens a model from its bytes on a device (`cpu`, `cuda:N`), with a number of threads (0 = all).
    ///
    /// # Errors
    /// [`Kind::ModelUnreadable`], [`Kind::Unsupported`], [`Kind::DeviceUnavailable`], [`Kind::DeviceOutOfMemory`],
    /// [`Kind::OutOfMemory`], [`Kind::RuntimeFailed`].
    pub(in crate::inference) fn open(&self, bytes: &[u8], device: &str, threads: usize) -> Result<BackendModel> {
        if bytes.is_empty() {
            return Err(Error::new(Kind::ModelUnreadable, "an empty file"));
        }
        let name = library::text(device).ok_or_else(|| Error::new(Kind::DeviceUnavailable, "the device's name"))?;
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        let handle = self.library.open(bytes, &name, threads).map_err(|failure| error(failure, "open"))?;
        let (inputs, outputs) = (handle.inputs(), handle.outputs());
        Ok(BackendModel { handle: Mutex::new(handle), inputs, outputs })
    }
}

impl BackendModel {
    /// Names of the inputs in the model's order, where the model says them.
    pub(in crate::inference) fn inputs(&self) -> Option<&[String]> {
        self.inputs.as_deref()
    }

    /// Names of the outputs, where the model says them.
    pub(in crate::inference) fn outputs(&self) -> Option<&[String]> {
        self.outputs.as_deref()
    }

    /// Runs the model and hands the named output's shape and values to `read`, while they are still the backend's.
    ///
    /// # Errors
    /// [`Kind::ModelShape`], [`Kind::RuntimeFailed`] (also for an output that is not finite), [`Kind::DeviceOutOfMemory`],
    /// [`Kind::OutOfMemory`], [`Kind::Unsupported`], [`Kind::Cancelled`]; those of `read`.
    pub(in crate::inference) fn run<T>(
        &self,
        tensors: &[Tensor],
        output: &str,
        control: &Control,
        read: impl FnOnce(&[i64], &[f32]) -> Result<T>,
    ) -> Result<T> {
        control.check()?;
        let shape = |detail: &'static str| Error::new(Kind::ModelShape, detail);
        if tensors.len() > abi::INPUTS {
            return Err(shape("more than 64 inputs"));
        }
        let mut names: Vec<CString> = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            if tensor.shape.len() > abi::RANK || product(&tensor.shape) != Some(tensor.values.len()) {
                return Err(shape("an input's values do not fill its dimensions"));
            }
            names.push(library::text(tensor.name).ok_or_else(|| shape("an input's name"))?);
        }
        let output = library::text(output).ok_or_else(|| shape("the output's name"))?;
        let with_name = names.iter().zip(tensors);
        let inputs: Vec<Input> = with_name.map(|(name, tensor)| Input { name, shape: &tensor.shape, values: tensor.values }).collect();
        let checked = |shape: &[i64], values: &[f32]| {
            control.check()?;
            // Checked before anything is made of it: NaN compares as neither more nor less, and would look like background.
            if !values.iter().all(|value| value.is_finite()) {
                return Err(Error::new(Kind::RuntimeFailed, "the model's output is not finite"));
            }
            read(shape, values)
        };
        let cancelled = AtomicI32::new(0);
        // A run that panicked elsewhere did so in `read`, when the backend was done: the model is whole.
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        let result = watched(control, || cancelled.store(1, Ordering::Release), || handle.run(&inputs, &output, &cancelled, checked));
        match result {
            // A result that came anyway is the caller's, who may have read it before the cancel.
            Ok(Some(result)) => result,
            Ok(None) => Err(Error::new(Kind::RuntimeFailed, "the backend gave no output")),
            Err(failure) => {
                control.check()?;
                Err(error(failure, "run"))
            }
        }
    }
}

/// Number of values of a shape; `None` when there cannot be so many.
fn product(shape: &[i64]) -> Option<usize> {
    let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(usize::try_from(*side).ok()?))?;
    // The largest slice of Rust, in float32.
    (count <= isize::MAX as usize / 4).then_some(count)
}

/// A backend's failure as one of our errors: the name of its status, and a reason out of the fixed list.
fn error(failure: Failure, what: &'static str) -> Error {
    let (kind, name) = match failure.status {
        abi::UNREADABLE => (Kind::ModelUnreadable, "not a model of this backend, or a damaged one"),
        abi::UNSUPPORTED => (Kind::Unsupported, "the model needs what the backend does not have"),
        abi::DEVICE_UNAVAILABLE => (Kind::DeviceUnavailable, "the backend has no such device"),
        abi::DEVICE_OUT_OF_MEMORY => (Kind::DeviceOutOfMemory, "the backend names no size"),
        abi::OUT_OF_MEMORY => (Kind::OutOfMemory, "the backend needs more"),
        abi::SHAPE => (Kind::ModelShape, "inputs or outputs do not fit the model"),
        abi::FAILED => (Kind::RuntimeFailed, "the backend failed"),
        abi::CANCELLED => (Kind::RuntimeFailed, "the backend stopped without being asked"),
        _ => (Kind::RuntimeFailed, "the backend gave a status that its interface does not know"),
    };
    Error::new(kind, format!("{what}: {}", failure.reason.unwrap_or(name))).at(Stage::Inference)
}

#[cfg(test)]
mod tests;
