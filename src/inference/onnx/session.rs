//! Opening a session: which device, with which settings of its provider.
//!
//! A device that was asked for by name is used or the call fails; only `auto` may end on another. Settings of the CUDA provider are chosen
//! for a library in somebody else's process: memory is taken as it is needed and not by doubling, convolutions are chosen by rule instead
//! of by a benchmark (whose first run takes seconds and whose winner changes from run to run), and float32 is computed in float32, since a
//! mask should not depend on the card's generation.

use std::sync::Arc;

use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProviderDispatch, TensorRT, cuda::ConvAlgorithmSearch};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use crate::error::{Error, Kind, Result, Stage};
use crate::inference::RuntimeOptions;
use crate::inference::runtime::{self, Runtime};

/// A device as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inference) enum Device {
    Auto,
    Cpu,
    Cuda(i32),
}

impl Device {
    pub(in crate::inference) fn parse(text: &str) -> Result<Device> {
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

/// Opens a model on a device; also tells which it was.
///
/// # Errors
/// [`Kind::DeviceUnavailable`]; [`Kind::ModelUnreadable`]; [`Kind::DeviceOutOfMemory`]; [`Kind::OutOfMemory`]; [`Kind::RuntimeFailed`].
pub(super) fn open(runtime: &Arc<Runtime>, bytes: &[u8], device: Device, options: &RuntimeOptions) -> Result<(Session, Option<i32>)> {
    let on_cpu = || Ok((commit(builder(runtime, options.threads)?, bytes, false)?, None));
    let on_cuda = |number: i32| -> Result<(Session, Option<i32>)> {
        let providers = providers(runtime, number, options)?;
        let with_cuda = builder(runtime, options.threads)?.with_execution_providers(providers).map_err(|_| {
            Error::new(
                Kind::DeviceUnavailable,
                format!("cuda:{number}: the provider cannot start: no such device, or cuda, cudnn or the driver is missing"),
            )
        })?;
        Ok((commit(with_cuda, bytes, true)?, Some(number)))
    };
    match device {
        Device::Cpu => on_cpu(),
        Device::Cuda(number) => on_cuda(number),
        // Only `auto` may end up on another device than the one asked for, and the identity says which it was.
        Device::Auto => match on_cuda(0) {
            Err(error) if matches!(error.kind(), Kind::DeviceUnavailable | Kind::DeviceOutOfMemory) => on_cpu(),
            result => result,
        },
    }
}

/// The providers of a CUDA device, in the order in which they are offered the graph.
fn providers(runtime: &Arc<Runtime>, number: i32, options: &RuntimeOptions) -> Result<Vec<ExecutionProviderDispatch>> {
    let absent = |name: &str| {
        Error::new(Kind::DeviceUnavailable, format!("{name}: this onnx runtime was built without it (it has: {})", runtime::known(runtime)))
            .with_hint("install ONNX Runtime's GPU build and point inference.runtime_library to it, or set device to auto or cpu")
    };
    if !runtime::has_cuda(runtime) {
        return Err(absent("cuda"));
    }
    let limit = options.device_memory_mib.and_then(|mib| usize::try_from(mib).ok()).map(|mib| mib.saturating_mul(1 << 20));
    let mut cuda = CUDA::default()
        .with_device_id(number)
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        .with_tf32(false);
    if let Some(limit) = limit {
        cuda = cuda.with_memory_limit(limit);
    }
    let mut providers = Vec::new();
    for name in &options.providers {
        match name.as_str() {
            "cuda" => {}
            "tensorrt" if runtime::has_tensorrt(runtime) => {
                providers.push(TensorRT::default().with_device_id(number).build().error_on_failure());
            }
            "tensorrt" => return Err(absent("tensorrt")),
            _ => {
                return Err(Error::new(Kind::ConfigInvalidValue, "inference.providers").with_hint("tensorrt, cuda").at(Stage::Inference));
            }
        }
    }
    providers.push(cuda.build().error_on_failure());
    Ok(providers)
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

/// Builds the session.
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
