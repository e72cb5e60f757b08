//! Inputs of a CUDA session in page-locked memory that stays from run to run, and its output bound to the host's.
//!
//! A window is copied into memory that the card reads by itself; nothing is allocated for it between runs. Page-locked memory belongs to
//! the device in the runtime's eyes, so its checked accessors refuse it although the processor may write it: hence the pointer below. The
//! output comes back into the host's ordinary memory: ONNX Runtime 1.31 refuses page-locked outputs (it copies them onto themselves).

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, NoSelectedOutputs, RunOptions, Session};
use ort::value::Tensor as OrtTensor;

use super::{Tensor, watched};
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::inference::runtime;

/// Buffers for inputs of one shape.
pub(super) struct Bound {
    /// Before its memory, so that it is dropped first.
    binding: IoBinding,
    inputs: Vec<OrtTensor<f32>>,
    shapes: Vec<Vec<i64>>,
}

impl Bound {
    /// Buffers for a session on a device, for inputs like these.
    pub(super) fn new(session: &Session, device: i32, inputs: &[Tensor], output: &str) -> Result<Bound> {
        let failed = |error: ort::Error| runtime::failure(&error, "page-locked memory", true);
        let memory =
            MemoryInfo::new(AllocationDevice::CUDA_PINNED, device, AllocatorType::Device, MemoryType::CPUOutput).map_err(failed)?;
        let allocator = Allocator::new(session, memory).map_err(failed)?;
        let shapes: Vec<Vec<i64>> = inputs.iter().map(|input| input.shape.clone()).collect();
        let inputs = shapes
            .iter()
            .map(|shape| OrtTensor::<f32>::new(&allocator, shape.clone()))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(failed)?;
        let mut binding = session.create_binding().map_err(failed)?;
        let host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default).map_err(failed)?;
        binding.bind_output_to_device(output, &host).map_err(failed)?;
        Ok(Bound { binding, inputs, shapes })
    }

    /// Whether the buffers are for inputs like these.
    pub(super) fn fits(&self, inputs: &[Tensor]) -> bool {
        self.shapes.len() == inputs.len() && self.shapes.iter().zip(inputs).all(|(shape, input)| *shape == input.shape)
    }

    /// Runs the session on inputs that fit.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn run<T>(
        &mut self,
        session: &mut Session,
        inputs: &[Tensor],
        names: &[String],
        output: &str,
        control: &Control,
        options: &RunOptions<NoSelectedOutputs>,
        read: impl FnOnce(&[i64], &[f32]) -> Result<T>,
    ) -> Result<T> {
        let failed = |error: ort::Error| runtime::failure(&error, "run", true);
        for ((name, buffer), input) in names.iter().zip(&mut self.inputs).zip(inputs) {
            fill(buffer, input)?;
            self.binding.bind_input(name, &*buffer).map_err(failed)?;
        }
        let outputs = watched(control, options, || session.run_binding_with_options(&self.binding, options));
        control.check()?;
        let outputs = outputs.map_err(failed)?;
        let value = outputs.get(output).ok_or_else(|| Error::new(Kind::RuntimeFailed, "the run gave no such output"))?;
        let (shape, values) = value.try_extract_tensor::<f32>().map_err(failed)?;
        read(shape, values)
    }
}

/// Copies a window into its page-locked buffer.
fn fill(buffer: &mut OrtTensor<f32>, input: &Tensor) -> Result<()> {
    let count = input.shape.iter().try_fold(1usize, |all, side| all.checked_mul(usize::try_from(*side).ok()?));
    let pointer = buffer.data_ptr_mut().cast::<f32>();
    if count != Some(input.values.len()) || pointer.is_null() {
        return Err(Error::new(Kind::Internal, "a window does not fill its buffer"));
    }
    // SAFETY: the buffer was made for the input's shape, whose number of values was compared above; it is page-locked memory of the host,
    // and nobody else holds it while it is borrowed mutably.
    #[allow(unsafe_code)]
    unsafe {
        std::ptr::copy_nonoverlapping(input.values.as_ptr(), pointer, input.values.len());
    }
    Ok(())
}
