//! One model in ONNX Runtime: opened from checked bytes, compared with its contract, run.
//!
//! Runs are deterministic on the CPU: one stream of operators, the runtime's deterministic kernels, a fixed number of threads. A model is
//! run by one caller at a time (its own threads share one run), and a run ends soon after the study is cancelled, not only between runs.

mod bound;
mod session;

use std::sync::{Mutex, MutexGuard, PoisonError};

use ort::session::{RunOptions, Session};
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};

use self::bound::Bound;
pub(super) use self::session::Device;
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::inference::contract::{Contract, Grid};
use crate::inference::inspect::Port;
use crate::inference::runtime;
use crate::inference::{RuntimeOptions, file, watch};

/// A session with what was set up for its last run.
struct Warm {
    session: Session,
    /// Buffers of a CUDA session for inputs of one shape; made by the second run of a shape.
    bound: Option<Bound>,
    /// Number of the CUDA device; `None` is the CPU.
    cuda: Option<i32>,
}

/// A model that is ready to run.
pub(super) struct Model {
    warm: Mutex<Warm>,
    /// The model's bytes and options, where `device = auto` may need them for the CPU.
    fallback: Option<(file::ModelFile, RuntimeOptions)>,
    /// Dimensions of each input in the contract's order; -1 is open.
    input_shapes: Vec<Vec<i64>>,
    /// Dimensions of the output that is read; -1 is open.
    output_shape: Vec<i64>,
    names: Vec<String>,
    output: String,
    runtime: String,
}

/// What happens to the memory that a run took for its own use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It stays for the next run.
    Keep,
    /// It is given back.
    Shrink,
}

/// A tensor for one input: shape and values.
pub(super) struct Tensor<'a> {
    pub(super) shape: Vec<i64>,
    pub(super) values: &'a [f32],
}

impl Model {
    /// Opens a model.
    ///
    /// # Errors
    /// [`Kind::RuntimeMissing`]; [`Kind::DeviceUnavailable`]; [`Kind::ModelUnreadable`]; [`Kind::ModelShape`].
    pub(super) fn open(file: file::ModelFile, contract: &Contract, options: &RuntimeOptions) -> Result<Model> {
        let device = Device::parse(&options.device)?;
        let runtime = runtime::load(options.runtime_library.as_deref())?;
        let (session, cuda) = session::open(&runtime, &file.bytes, device, options)?;
        let fallback = (device == Device::Auto && cuda.is_some()).then(|| (file, options.clone()));
        Model::check(Warm { session, bound: None, cuda }, fallback, contract, format!("onnxruntime {}", runtime.version))
    }

    fn check(warm: Warm, fallback: Option<(file::ModelFile, RuntimeOptions)>, contract: &Contract, runtime: String) -> Result<Model> {
        let session = &warm.session;
        let names: Vec<String> = contract.inputs.iter().map(|input| input.name.clone()).collect();
        let mut input_shapes = Vec::new();
        for (name, input) in names.iter().zip(&contract.inputs) {
            let shape = float_shape(session.inputs(), name, "input")?;
            let rank = if contract.grid.is_slicewise { 4 } else { 5 };
            let channel_axis = if contract.grid.channels_first { 1 } else { rank - 1 };
            if shape.len() != rank {
                return Err(wrong(name, format!("has {} dimensions, the layout has {rank}", shape.len())));
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
        Ok(Model { warm: Mutex::new(warm), fallback, input_shapes, output_shape, names, output, runtime })
    }

    /// The runtime and its version.
    pub(super) fn runtime(&self) -> String {
        self.runtime.clone()
    }

    /// The device that the model runs on now.
    pub(super) fn device_now(&self) -> String {
        device_name(self.warm().cuda)
    }

    /// Goes on on the CPU, where `device = auto` allows it; says whether it did.
    ///
    /// # Errors
    /// Those of opening.
    pub(super) fn fall_back(&self) -> Result<bool> {
        let Some((file, options)) = &self.fallback else { return Ok(false) };
        let mut warm = self.warm();
        if warm.cuda.is_none() {
            return Ok(false);
        }
        let runtime = runtime::load(options.runtime_library.as_deref())?;
        let (session, cuda) = session::open(&runtime, &file.bytes, Device::Cpu, options)?;
        *warm = Warm { session, bound: None, cuda };
        Ok(true)
    }

    /// A model that panicked elsewhere left nothing behind in the session: each run stands alone.
    fn warm(&self) -> MutexGuard<'_, Warm> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(super) fn check_spatial(&self, shape: [usize; 3], grid: &Grid) -> Result<()> {
        let first = if grid.channels_first { 2 } else { 1 };
        let skipped = usize::from(grid.is_slicewise);
        for (name, dims) in self.names.iter().zip(&self.input_shapes) {
            for (axis, side) in shape.iter().enumerate().skip(skipped) {
                let wanted = dims.get(first + axis - skipped).copied().unwrap_or(-1);
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
    pub(super) fn run<T>(
        &self,
        inputs: &[Tensor],
        after: After,
        control: &Control,
        read: impl FnOnce(&[i64], &[f32]) -> Result<T>,
    ) -> Result<T> {
        control.check()?;
        let mut warm = self.warm();
        let on_cuda = warm.cuda.is_some();
        let failed = |error: ort::Error| runtime::failure(&error, "run", on_cuda);
        let mut options = RunOptions::new().map_err(failed)?;
        if after == After::Shrink {
            let arenas = warm.cuda.map_or_else(|| "cpu:0".to_owned(), |number| format!("cpu:0;gpu:{number}"));
            options.set("memory.enable_memory_arena_shrinkage", arenas).map_err(failed)?;
        }
        let Warm { session, bound, cuda } = &mut *warm;
        if let Some(bound) = bound.as_mut().filter(|bound| bound.fits(inputs)) {
            return bound.run(session, inputs, &self.names, &self.output, control, &options, |shape, values| {
                check_finite(values)?;
                read(shape, values)
            });
        }
        *bound = None;
        let mut values = Vec::with_capacity(inputs.len());
        for (name, tensor) in self.names.iter().zip(inputs) {
            let value = TensorRef::from_array_view((tensor.shape.clone(), tensor.values)).map_err(failed)?;
            values.push((std::borrow::Cow::Borrowed(name.as_str()), ort::session::SessionInputValue::from(value)));
        }
        let outputs = watched(control, &options, || session.run_with_options(values, &options));
        control.check()?;
        let outputs = outputs.map_err(failed)?;
        let output = outputs.get(&self.output).ok_or_else(|| Error::new(Kind::RuntimeFailed, "the run gave no such output"))?;
        let (shape, values) = output.try_extract_tensor::<f32>().map_err(failed)?;
        check_finite(values)?;
        let answer = read(shape, values);
        drop(outputs);
        // Windows of one shape follow one another: from the second on they go through memory that stays. Without it they still run.
        if let Some(device) = *cuda {
            *bound = Bound::new(session, device, inputs, &self.output).ok();
        }
        answer
    }
}

/// What a file says of itself.
#[derive(Default)]
pub(super) struct Declared {
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    pub(super) metadata: Vec<(String, String)>,
}

/// Opens a model on the CPU to see what it declares.
///
/// # Errors
/// Those of opening.
pub(super) fn declared(bytes: &[u8], options: &RuntimeOptions) -> Result<Declared> {
    let runtime = runtime::load(options.runtime_library.as_deref())?;
    let (session, _) = session::open(&runtime, bytes, Device::Cpu, options)?;
    let port = |outlet: &Outlet| match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => Port { name: plain(outlet.name()), element: element_name(*ty), shape: shape.to_vec() },
        _ => Port { name: plain(outlet.name()), element: "not a tensor".to_owned(), shape: Vec::new() },
    };
    let metadata = session.metadata().map(|metadata| {
        let keys = metadata.custom_keys().unwrap_or_default();
        keys.into_iter().filter_map(|key| metadata.custom(&key).map(|value| (key, value))).collect()
    });
    let metadata = metadata.unwrap_or_default();
    Ok(Declared { inputs: session.inputs().iter().map(port).collect(), outputs: session.outputs().iter().map(port).collect(), metadata })
}

fn element_name(element: TensorElementType) -> String {
    match element {
        TensorElementType::Float32 => "float32",
        TensorElementType::Float64 => "float64",
        TensorElementType::Float16 => "float16",
        TensorElementType::Bfloat16 => "bfloat16",
        TensorElementType::Int64 => "int64",
        TensorElementType::Int32 => "int32",
        TensorElementType::Uint8 => "uint8",
        TensorElementType::Int8 => "int8",
        TensorElementType::Bool => "bool",
        _ => "another type",
    }
    .to_owned()
}

fn device_name(cuda: Option<i32>) -> String {
    cuda.map_or_else(|| "cpu".to_owned(), |number| format!("cuda:{number}"))
}

/// Checked before anything is made of an output: NaN compares as neither more nor less, and would look like background.
fn check_finite(values: &[f32]) -> Result<()> {
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    Err(Error::new(Kind::RuntimeFailed, "the model's output is not finite"))
}

/// Runs a closure that ends soon after the study is cancelled. When the runtime cannot be told, the run goes to its end, and the check
/// after it stops the study.
fn watched<T>(control: &Control, options: &RunOptions, run: impl FnOnce() -> T) -> T {
    watch::watched(control, || drop(options.terminate()), run)
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
