//! One model in ONNX Runtime: opened from checked bytes, compared with its contract, run.
//!
//! Runs are deterministic on the CPU: one stream of operators, the runtime's deterministic kernels, a fixed number of threads. A model is
//! run by one caller at a time (its own threads share one run), and a run ends soon after the study is cancelled, not only between runs.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use ort::ep::CUDA;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session};
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};

use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::inference::contract::Contract;
use crate::inference::runtime::{self, Runtime};
use crate::inference::{ModelIdentity, RuntimeOptions, file};

/// How often a run looks whether it was cancelled.
const WATCH_EVERY: Duration = Duration::from_millis(25);

/// A model that is ready to run.
pub(super) struct Model {
    session: Mutex<Session>,
    /// Dimensions of each input in the contract's order; -1 is open.
    input_shapes: Vec<Vec<i64>>,
    /// Dimensions of the output that is read; -1 is open.
    output_shape: Vec<i64>,
    names: Vec<String>,
    output: String,
    on_cuda: bool,
    pub(super) identity: ModelIdentity,
}

/// A tensor for one input: shape and values.
pub(super) struct Tensor<'a> {
    pub(super) shape: Vec<i64>,
    pub(super) values: &'a [f32],
}

/// A device as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Auto,
    Cpu,
    Cuda(i32),
}

impl Model {
    /// Opens a model whose bytes are the ones that the contract describes.
    ///
    /// # Errors
    /// [`Kind::ModelDigest`]; [`Kind::RuntimeMissing`]; [`Kind::DeviceUnavailable`]; [`Kind::ModelUnreadable`]; [`Kind::ModelShape`].
    pub(super) fn open(file: file::ModelFile, contract: &Contract, options: &RuntimeOptions) -> Result<Model> {
        if file.sha256 != contract.sha256 {
            let start = |digest: &str| digest.chars().take(12).collect::<String>();
            let detail = format!("sha256 {}..., the contract says {}...", start(&file.sha256), start(&contract.sha256));
            return Err(Error::new(Kind::ModelDigest, detail));
        }
        let device = Device::parse(&options.device)?;
        let runtime = runtime::load(options.runtime_library.as_deref())?;
        let (session, device_name) = open_session(&runtime, &file.bytes, device, options.threads)?;
        let identity = ModelIdentity {
            name: contract.name.clone(),
            version: contract.version.clone(),
            sha256: file.sha256,
            device: device_name,
            runtime: format!("onnxruntime {}", runtime.version),
        };
        Model::check(session, contract, identity)
    }

    fn check(session: Session, contract: &Contract, identity: ModelIdentity) -> Result<Model> {
        let names: Vec<String> = contract.inputs.iter().map(|input| input.name.clone()).collect();
        let mut input_shapes = Vec::new();
        for (name, input) in names.iter().zip(&contract.inputs) {
            let shape = float_shape(session.inputs(), name, "input")?;
            let channel_axis = if contract.grid.channels_first { 1 } else { 4 };
            if shape.len() != 5 {
                return Err(wrong(name, format!("has {} dimensions, the layout has 5", shape.len())));
            }
            let channels = shape[channel_axis];
            if channels > 0 && channels != input.channels.len() as i64 {
                return Err(wrong(name, format!("takes {channels} channels, the contract gives {}", input.channels.len())));
            }
            input_shapes.push(shape);
        }
        // Names decide which tensor goes where, never the order in which a converter wrote them.
        // An input that the contract does not know would have to be made up.
        if session.inputs().len() != names.len() {
            let detail = format!("the model has {} inputs, the contract {}", session.inputs().len(), names.len());
            return Err(Error::new(Kind::ModelShape, detail));
        }
        let output = contract.output.name.clone();
        let output_shape = float_shape(session.outputs(), &output, "output")?;
        let on_cuda = identity.device != "cpu";
        Ok(Model { session: Mutex::new(session), input_shapes, output_shape, names, output, on_cuda, identity })
    }

    /// Dimensions of the output as the model declares them; -1 is open.
    pub(super) fn output_shape(&self) -> &[i64] {
        &self.output_shape
    }

    /// Number of studies or windows that every run must hold, when the model fixes it.
    pub(super) fn fixed_batch(&self) -> Option<usize> {
        self.input_shapes.iter().filter_map(|shape| shape.first()).find(|n| **n > 0).and_then(|n| usize::try_from(*n).ok())
    }

    /// Checks that the model takes spatial dimensions D, H, W.
    ///
    /// # Errors
    /// [`Kind::ModelShape`].
    pub(super) fn check_spatial(&self, shape: [usize; 3], channels_first: bool) -> Result<()> {
        let first = if channels_first { 2 } else { 1 };
        for (name, dims) in self.names.iter().zip(&self.input_shapes) {
            for (axis, side) in shape.iter().enumerate() {
                let wanted = dims.get(first + axis).copied().unwrap_or(-1);
                if wanted > 0 && wanted as u64 != *side as u64 {
                    let letter = ['D', 'H', 'W'][axis];
                    return Err(wrong(name, format!("takes {wanted} voxels along {letter}, it would get {side}")));
                }
            }
        }
        Ok(())
    }

    /// Runs the model and hands the output's shape and values to `read`.
    ///
    /// The values stay the runtime's until `read` returns: the output of a whole-volume model is too large to copy for nothing.
    ///
    /// # Errors
    /// [`Kind::RuntimeFailed`]; [`Kind::DeviceOutOfMemory`]; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
    pub(super) fn run<T>(&self, inputs: &[Tensor], control: &Control, read: impl FnOnce(&[i64], &[f32]) -> Result<T>) -> Result<T> {
        control.check()?;
        let failed = |error: ort::Error| runtime::failure(&error, "run", self.on_cuda);
        let mut values = Vec::with_capacity(inputs.len());
        for (name, tensor) in self.names.iter().zip(inputs) {
            let value = TensorRef::from_array_view((tensor.shape.clone(), tensor.values)).map_err(failed)?;
            values.push((std::borrow::Cow::Borrowed(name.as_str()), ort::session::SessionInputValue::from(value)));
        }
        let options = RunOptions::new().map_err(failed)?;
        // A model that panicked elsewhere left nothing behind in the session: each run stands alone.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = watched(control, &options, || session.run_with_options(values, &options));
        control.check()?;
        let outputs = outputs.map_err(failed)?;
        let output = outputs.get(&self.output).ok_or_else(|| Error::new(Kind::RuntimeFailed, "the run gave no such output"))?;
        let (shape, values) = output.try_extract_tensor::<f32>().map_err(failed)?;
        // Checked before anything is made of it: NaN compares as neither more nor less, and would look like background.
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Error::new(Kind::RuntimeFailed, "the model's output is not finite"));
        }
        read(shape, values)
    }
}

/// Runs a closure while a second thread tells the runtime to stop as soon as the study is cancelled.
fn watched<T>(control: &Control, options: &RunOptions, run: impl FnOnce() -> T) -> T {
    let done = (Mutex::new(false), Condvar::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut finished = done.0.lock().unwrap_or_else(PoisonError::into_inner);
            while !*finished {
                if control.is_cancelled() {
                    // When this fails the run goes to its end, and the check after it stops the study.
                    let _ = options.terminate();
                    return;
                }
                finished = done.1.wait_timeout(finished, WATCH_EVERY).unwrap_or_else(PoisonError::into_inner).0;
            }
        });
        // The watcher must end however the run does, or the scope would wait for ever.
        let guard = Finish(&done);
        let result = run();
        drop(guard);
        result
    })
}

struct Finish<'a>(&'a (Mutex<bool>, Condvar));

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

impl Device {
    fn parse(text: &str) -> Result<Device> {
        let wrong = || Error::new(Kind::ConfigInvalidValue, "device").with_hint("auto, cpu, cuda or cuda:N").at(Stage::Inference);
        match text {
            "" | "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            _ => {
                let digits = text.strip_prefix("cuda:").filter(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
                digits.and_then(|digits| digits.parse().ok()).map(Device::Cuda).ok_or_else(wrong)
            }
        }
    }
}

fn open_session(runtime: &Arc<Runtime>, bytes: &[u8], device: Device, threads: usize) -> Result<(Session, String)> {
    let on_cpu = || Ok((commit(builder(runtime, threads)?, bytes, false)?, "cpu".to_owned()));
    let on_cuda = |number: i32| -> Result<(Session, String)> {
        if !runtime::has_cuda(runtime) {
            return Err(Error::new(Kind::DeviceUnavailable, "cuda: this onnx runtime was built without it (it has: cpu)")
                .with_hint("install ONNX Runtime's GPU build and point inference.runtime_library to it, or set device to auto or cpu"));
        }
        let provider = CUDA::default().with_device_id(number).build().error_on_failure();
        let with_cuda = builder(runtime, threads)?.with_execution_providers([provider]).map_err(|_| {
            Error::new(
                Kind::DeviceUnavailable,
                format!("cuda:{number}: the provider cannot start: no such device, or cuda, cudnn or the driver is missing"),
            )
        })?;
        Ok((commit(with_cuda, bytes, true)?, format!("cuda:{number}")))
    };
    match device {
        Device::Cpu => on_cpu(),
        Device::Cuda(number) => on_cuda(number),
        // Only `auto` may end up on another device than the one asked for, and the identity says which it was.
        Device::Auto => match on_cuda(0) {
            Err(error) if error.kind() == Kind::DeviceUnavailable => on_cpu(),
            result => result,
        },
    }
}

fn builder(runtime: &Runtime, threads: usize) -> Result<SessionBuilder> {
    let failed = |error: ort::Error<SessionBuilder>| runtime::failure(&error, "session options", false);
    let all = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if threads == 0 { all() } else { threads.min(1024) };
    // One operator after the other, each on all threads: the order of floating-point sums is then fixed, and a 3-D network has no
    // branches worth running side by side.
    Session::builder(&runtime.environment)
        .map_err(|error| runtime::failure(&error, "session options", false))?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(failed)?
        .with_intra_threads(threads)
        .map_err(failed)?
        .with_inter_threads(1)
        .map_err(failed)?
        .with_parallel_execution(false)
        .map_err(failed)?
        .with_deterministic_compute(true)
        .map_err(failed)
}

fn commit(mut builder: SessionBuilder, bytes: &[u8], on_cuda: bool) -> Result<Session> {
    builder.commit_from_memory(bytes).map_err(|error| {
        // A model that the runtime cannot build is the file's fault; want of memory or a dead device is not.
        let mapped = runtime::failure(&error, "model", on_cuda);
        match error.code() {
            ort::ErrorCode::ExecutionProviderFailure if on_cuda => {
                Error::new(Kind::DeviceUnavailable, "cuda: the device failed at the model's start")
            }
            _ if mapped.kind() == Kind::RuntimeFailed => Error::new(Kind::ModelUnreadable, mapped.detail().to_owned()),
            _ => mapped,
        }
    })
}

/// Dimensions of a float32 tensor among the model's inputs or outputs.
fn float_shape(outlets: &[Outlet], name: &str, what: &'static str) -> Result<Vec<i64>> {
    let outlet = outlets.iter().find(|outlet| outlet.name() == name);
    let outlet = outlet.ok_or_else(|| {
        let names: Vec<String> = outlets.iter().take(8).map(|outlet| plain(outlet.name())).collect();
        Error::new(Kind::ModelShape, format!("the model has no {what} {}", plain(name))).with_hint(format!("it has: {}", names.join(", ")))
    })?;
    match outlet.dtype() {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => Ok(shape.to_vec()),
        _ => Err(wrong(name, "is not a float32 tensor".to_owned())),
    }
}

fn wrong(name: &str, what: String) -> Error {
    Error::new(Kind::ModelShape, format!("{} {what}", plain(name)))
}

/// A name out of a model file, fit for one line.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_or_refused() {
        for (text, expected) in [
            ("", Some(Device::Auto)),
            ("auto", Some(Device::Auto)),
            ("cpu", Some(Device::Cpu)),
            ("cuda", Some(Device::Cuda(0))),
            ("cuda:3", Some(Device::Cuda(3))),
            ("cuda:", None),
            ("cuda:-1", None),
            ("cuda:99999999999", None),
            ("CUDA", None),
            ("gpu", None),
        ] {
            match (Device::parse(text), expected) {
                (Ok(found), Some(expected)) => assert_eq!(found, expected),
                (Err(error), None) => assert_eq!(error.kind(), Kind::ConfigInvalidValue),
                _ => panic!("{text}"),
            }
        }
    }
}
