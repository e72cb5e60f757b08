//! Calls into a backend's library: the one file of this module with unsafe code.
//!
//! A backend is code with the rights of the process, so nothing here defends against one that lies about its pointers. What it returns is
//! checked as far as can be: versions, sizes, names, ranks, products of dimensions. The library is never unloaded, because what it brought
//! with it (thread pools, registered operators) cannot be taken out of a process again.

#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::ptr;
use std::sync::atomic::AtomicI32;

use super::abi;

/// A loaded backend. The table and all that it points to are constants of a library that stays.
#[derive(Clone, Copy)]
pub(super) struct Library {
    pub(super) name: &'static str,
    version: unsafe extern "C" fn() -> *const c_char,
    device_available: unsafe extern "C" fn(*const c_char) -> i32,
    open: unsafe extern "C" fn(*const abi::Open, *mut *mut abi::Model, *mut abi::Message) -> i32,
    inputs: Option<abi::Names>,
    outputs: Option<abi::Names>,
    run: abi::Run,
    close: unsafe extern "C" fn(*mut abi::Model),
}

/// Why a backend's function failed: its status, and its reason where that is one of the known ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) status: i32,
    pub(super) reason: Option<&'static str>,
}

/// A model that the backend holds; closed when dropped.
pub(super) struct Handle {
    library: Library,
    model: *mut abi::Model,
}

// SAFETY: smp_backend.h lets any thread call the functions of the table; `run` takes the handle exclusively, so calls for one model follow
// each other.
unsafe impl Send for Handle {}

/// An input, checked by the caller: the product of `shape` is the number of values, and `shape` has at most `abi::RANK` entries.
pub(super) struct Input<'a> {
    pub(super) name: &'a CStr,
    pub(super) shape: &'a [i64],
    pub(super) values: &'a [f32],
}

impl Library {
    /// Loads a library and checks that it is a backend of this interface; the error is a reason in our words.
    pub(super) fn load(path: &Path) -> Result<Library, &'static str> {
        // SAFETY: loading runs the library's initialisers; it was named by the configuration or lies where only an administrator writes,
        // and whoever may write there may run code as this process anyway.
        let library = unsafe { libloading::Library::new(path) }
            .map_err(|_| "not loadable: no shared library for this machine, or one that it needs is missing")?;
        // SAFETY: smp_backend.h declares the symbol with exactly this signature.
        let entry = unsafe { library.get::<abi::Entry>(c"smp_backend_entry") }.map(|entry| *entry);
        // Kept for ever, loaded or refused: see above.
        std::mem::forget(library);
        let entry = entry.map_err(|_| "not a backend of this library")?;
        // SAFETY: the function takes any number.
        let table = unsafe { entry(abi::ABI) };
        // SAFETY: null, or a constant of a library that is never unloaded; its first two fields are the same in every version.
        let table = unsafe { table.as_ref() }.ok_or("a backend for another version of this library")?;
        if table.abi != abi::ABI || (table.struct_size as usize) < size_of::<abi::Table>() {
            return Err("a backend for another version of this library");
        }
        const PART: &str = "a backend of which a part is missing";
        let name = constant(table.name).filter(|name| is_name(name)).ok_or("a backend without a name")?;
        Ok(Library {
            name,
            version: table.version.ok_or(PART)?,
            device_available: table.device_available.ok_or(PART)?,
            open: table.open.ok_or(PART)?,
            inputs: table.inputs,
            outputs: table.outputs,
            run: table.run.ok_or(PART)?,
            close: table.close.ok_or(PART)?,
        })
    }

    /// What runs the models, with its version.
    pub(super) fn version(&self) -> Option<&'static str> {
        // SAFETY: the function has no arguments and no preconditions.
        constant(unsafe { (self.version)() })
    }

    pub(super) fn device_available(&self, device: &CStr) -> bool {
        // SAFETY: the text ends with NUL and lives through the call.
        unsafe { (self.device_available)(device.as_ptr()) == 1 }
    }

    /// Opens a model.
    pub(super) fn open(&self, bytes: &[u8], device: &CStr, threads: u32) -> Result<Handle, Failure> {
        let request = abi::Open {
            struct_size: size_of::<abi::Open>() as u32,
            threads,
            model: bytes.as_ptr(),
            model_length: bytes.len() as u64,
            device: device.as_ptr(),
            deterministic: 1,
            reserved: 0,
        };
        let mut model = ptr::null_mut();
        let mut why = abi::Message { text: [0; abi::MESSAGE] };
        // SAFETY: request, bytes and device live through the call; `model` and `why` are ours to write to.
        let status = unsafe { (self.open)(&request, &mut model, &mut why) };
        match status {
            abi::OK if model.is_null() => Err(Failure { status: abi::FAILED, reason: None }),
            abi::OK => Ok(Handle { library: *self, model }),
            status => Err(Failure { status, reason: known(&why) }),
        }
    }
}

impl Handle {
    /// Names of the inputs; `None` where the model does not say.
    pub(super) fn inputs(&self) -> Option<Vec<String>> {
        self.names(self.library.inputs?)
    }

    /// Names of the outputs; `None` where the model does not say.
    pub(super) fn outputs(&self) -> Option<Vec<String>> {
        self.names(self.library.outputs?)
    }

    fn names(&self, ask: abi::Names) -> Option<Vec<String>> {
        let mut count = 0;
        // SAFETY: the model is open, and `count` is ours to write to.
        let list = unsafe { ask(self.model, &mut count) };
        if list.is_null() || count as usize > abi::INPUTS {
            return None;
        }
        // SAFETY: the backend promises `count` pointers that are valid until the model is closed, which takes `self`.
        let list = unsafe { std::slice::from_raw_parts(list, count as usize) };
        list.iter().map(|name| constant(*name).map(str::to_owned)).collect()
    }

    /// Runs the model, and hands the output's shape and values to `read` once.
    ///
    /// `Ok(None)` means that the backend said it was done but handed over nothing, or something with dimensions that cannot be.
    pub(super) fn run<T, F: FnOnce(&[i64], &[f32]) -> T>(
        &mut self,
        inputs: &[Input],
        output: &CStr,
        cancelled: &AtomicI32,
        read: F,
    ) -> Result<Option<T>, Failure> {
        let tensors: Vec<abi::Tensor> = inputs.iter().map(tensor).collect();
        let mut reading = Reading { read: Some(read), result: None, panic: None };
        let context = ptr::from_mut(&mut reading).cast::<c_void>();
        let mut why = abi::Message { text: [0; abi::MESSAGE] };
        let count = tensors.len() as u32;
        // SAFETY: the model is open and, by `&mut self`, in no other call; tensors with their names and values, the output's name and the
        // flag live through the call; `receive` is made for this very type of context, which nothing else touches meanwhile.
        let status = unsafe {
            (self.library.run)(
                self.model,
                tensors.as_ptr(),
                count,
                output.as_ptr(),
                receive::<T, F>,
                context,
                cancelled.as_ptr().cast_const(),
                &mut why,
            )
        };
        if let Some(panic) = reading.panic {
            resume_unwind(panic);
        }
        if status == abi::OK { Ok(reading.result) } else { Err(Failure { status, reason: known(&why) }) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the model is open, in no call, and not used again.
        unsafe { (self.library.close)(self.model) }
    }
}

fn tensor(input: &Input) -> abi::Tensor {
    let mut shape = [0; abi::RANK];
    for (place, side) in shape.iter_mut().zip(input.shape) {
        *place = *side;
    }
    abi::Tensor {
        name: input.name.as_ptr(),
        values: input.values.as_ptr(),
        count: input.values.len() as u64,
        rank: input.shape.len().min(abi::RANK) as u32,
        reserved: 0,
        shape,
    }
}

/// What waits for the output.
struct Reading<T, F> {
    read: Option<F>,
    result: Option<T>,
    panic: Option<Box<dyn Any + Send>>,
}

/// Receives the output. A panic must not go up through the backend's frames: it waits until the call is over.
///
/// # Safety
/// `context` is a `Reading<T, F>` that nothing else uses; `shape` has `rank` entries, and `values` as many as their product.
unsafe extern "C" fn receive<T, F: FnOnce(&[i64], &[f32]) -> T>(context: *mut c_void, rank: u32, shape: *const i64, values: *const f32) {
    // SAFETY: the caller hands back what `run` gave it.
    let reading = unsafe { &mut *context.cast::<Reading<T, F>>() };
    let Some(read) = reading.read.take() else { return };
    let rank = rank as usize;
    if rank > abi::RANK || (shape.is_null() && rank > 0) {
        return;
    }
    // SAFETY: the backend promises `rank` entries; of none, no pointer is read.
    let shape = if rank == 0 { &[] } else { unsafe { std::slice::from_raw_parts(shape, rank) } };
    let Some(count) = super::product(shape) else { return };
    if values.is_null() && count > 0 {
        return;
    }
    // SAFETY: the backend promises the product of the dimensions; `product` keeps it below the largest slice.
    let values = if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(values, count) } };
    match catch_unwind(AssertUnwindSafe(|| read(shape, values))) {
        Ok(result) => reading.result = Some(result),
        Err(panic) => reading.panic = Some(panic),
    }
}

/// A text that the backend promised to keep.
fn constant(text: *const c_char) -> Option<&'static str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: smp_backend.h: texts end with NUL and are constants of the library, or live as long as the model, and are copied at once.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().ok()
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The reason in a message, when it is one of those that smp_backend.h lists. Whatever else it holds goes no further.
fn known(why: &abi::Message) -> Option<&'static str> {
    let text = why.text.split(|byte| *byte == 0).next().unwrap_or_default();
    abi::REASONS.into_iter().find(|reason| reason.as_bytes() == text)
}

/// A text for a backend; `None` for one with NUL in it.
pub(super) fn text(text: &str) -> Option<CString> {
    CString::new(text).ok()
}
