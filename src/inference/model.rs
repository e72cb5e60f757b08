//! One model, whoever runs it: ONNX Runtime, or a backend that is a plug-in.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::inference::backend::{self, Backend, BackendModel};
use crate::inference::contract::{Contract, Grid};
use crate::inference::file::{Format, ModelFile};
use crate::inference::onnx::{self, After, Device, Tensor};
use crate::inference::{ModelIdentity, RuntimeOptions};

/// A model that is ready to run.
pub(super) struct Model {
    engine: Engine,
    pub(super) identity: ModelIdentity,
}

enum Engine {
    Onnx(Box<onnx::Model>),
    Plugin(Box<Plugin>),
}

/// A model in a backend.
struct Plugin {
    now: Mutex<Opened>,
    /// Names of the contract's inputs, in their order.
    names: Vec<String>,
    output: String,
    /// Where `device = auto` may need it for the CPU.
    fallback: Option<(Backend, ModelFile, usize)>,
}

struct Opened {
    model: BackendModel,
    device: String,
}

impl Model {
    /// Opens a model whose bytes are the ones that the contract describes.
    ///
    /// # Errors
    /// [`Kind::ModelDigest`]; [`Kind::RuntimeMissing`]; [`Kind::DeviceUnavailable`]; [`Kind::ModelUnreadable`]; [`Kind::ModelShape`].
    pub(super) fn open(file: ModelFile, contract: &Contract, options: &RuntimeOptions) -> Result<Model> {
        if file.sha256 != contract.sha256 {
            let start = |digest: &str| digest.chars().take(12).collect::<String>();
            let detail = format!("sha256 {}..., the contract says {}...", start(&file.sha256), start(&contract.sha256));
            return Err(Error::new(Kind::ModelDigest, detail));
        }
        let mut identity = ModelIdentity {
            name: contract.name.clone(),
            version: contract.version.clone(),
            sha256: file.sha256.clone(),
            members: Vec::new(),
            device: String::new(),
            runtime: String::new(),
        };
        let engine = match file.format {
            Format::Onnx => {
                let model = onnx::Model::open(file, contract, options)?;
                identity.runtime = model.runtime();
                Engine::Onnx(Box::new(model))
            }
            Format::TorchScript => Engine::Plugin(Box::new(Plugin::open(
                backend::torchscript(options.torchscript_library.as_deref())?,
                file,
                contract,
                options,
                &mut identity,
            )?)),
            Format::Other => {
                let library = options.backend_library.as_deref().ok_or_else(|| Error::new(Kind::ModelUnreadable, "not an onnx file"))?;
                Engine::Plugin(Box::new(Plugin::open(Backend::load(library)?, file, contract, options, &mut identity)?))
            }
        };
        let model = Model { engine, identity };
        Ok(Model { identity: ModelIdentity { device: model.device_now(), ..model.identity }, engine: model.engine })
    }

    /// The device that the model runs on now.
    pub(super) fn device_now(&self) -> String {
        match &self.engine {
            Engine::Onnx(model) => model.device_now(),
            Engine::Plugin(plugin) => plugin.now().device.clone(),
        }
    }

    /// Goes on on the CPU, where `device = auto` allows it; says whether it did.
    ///
    /// # Errors
    /// Those of opening.
    pub(super) fn fall_back(&self) -> Result<bool> {
        match &self.engine {
            Engine::Onnx(model) => model.fall_back(),
            Engine::Plugin(plugin) => plugin.fall_back(),
        }
    }

    /// Dimensions of the output as the model declares them, -1 is open; `None` when it declares none.
    pub(super) fn output_shape(&self) -> Option<&[i64]> {
        match &self.engine {
            Engine::Onnx(model) => Some(model.output_shape()),
            Engine::Plugin(_) => None,
        }
    }

    /// Number of studies or windows that every run must hold, when the model fixes it.
    pub(super) fn fixed_batch(&self) -> Option<usize> {
        match &self.engine {
            Engine::Onnx(model) => model.fixed_batch(),
            Engine::Plugin(_) => None,
        }
    }

    /// Checks that the model takes spatial dimensions D, H, W, so far as it declares them.
    ///
    /// # Errors
    /// [`Kind::ModelShape`].
    pub(super) fn check_spatial(&self, shape: [usize; 3], grid: &Grid) -> Result<()> {
        match &self.engine {
            Engine::Onnx(model) => model.check_spatial(shape, grid),
            Engine::Plugin(_) => Ok(()),
        }
    }

    /// Runs the model and hands the output's shape and values to `read`.
    ///
    /// The values stay the runtime's until `read` returns: the output of a whole-volume model is too large to copy for nothing.
    ///
    /// # Errors
    /// [`Kind::RuntimeFailed`]; [`Kind::DeviceOutOfMemory`]; [`Kind::OutOfMemory`]; [`Kind::ModelShape`]; [`Kind::Cancelled`].
    pub(super) fn run<T>(
        &self,
        inputs: &[Tensor],
        after: After,
        control: &Control,
        read: impl FnOnce(&[i64], &[f32]) -> Result<T>,
    ) -> Result<T> {
        match &self.engine {
            Engine::Onnx(model) => model.run(inputs, after, control, read),
            Engine::Plugin(plugin) => {
                let named = plugin.names.iter().zip(inputs);
                let tensors: Vec<backend::Tensor> =
                    named.map(|(name, tensor)| backend::Tensor { name, shape: tensor.shape.clone(), values: tensor.values }).collect();
                plugin.now().model.run(&tensors, &plugin.output, control, read)
            }
        }
    }
}

impl Plugin {
    fn open(
        backend: Backend,
        file: ModelFile,
        contract: &Contract,
        options: &RuntimeOptions,
        identity: &mut ModelIdentity,
    ) -> Result<Plugin> {
        let asked = Device::parse(&options.device)?;
        // Only `auto` may end up on another device than the one asked for, and the identity says which it was.
        let device = match asked {
            Device::Auto if backend.has_device("cuda:0") => "cuda:0".to_owned(),
            Device::Auto | Device::Cpu => "cpu".to_owned(),
            Device::Cuda(number) => format!("cuda:{number}"),
        };
        if device != "cpu" && !backend.has_device(&device) {
            return Err(Error::new(Kind::DeviceUnavailable, format!("{device}: the backend {} has no such device", backend.name()))
                .with_hint("set device to auto or cpu, or build the backend against a library with CUDA"));
        }
        let model = backend.open(&file.bytes, &device, options.threads)?;
        identity.runtime = format!("{} {}", backend.name(), backend.version());
        let fallback = (asked == Device::Auto && device != "cpu").then_some((backend, file, options.threads));
        Ok(Plugin {
            now: Mutex::new(Opened { model, device }),
            names: contract.inputs.iter().map(|input| input.name.clone()).collect(),
            output: contract.output.name.clone(),
            fallback,
        })
    }

    fn now(&self) -> MutexGuard<'_, Opened> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fall_back(&self) -> Result<bool> {
        let Some((backend, file, threads)) = &self.fallback else { return Ok(false) };
        let mut now = self.now();
        if now.device == "cpu" {
            return Ok(false);
        }
        *now = Opened { model: backend.open(&file.bytes, "cpu", *threads)?, device: "cpu".to_owned() };
        Ok(true)
    }
}
