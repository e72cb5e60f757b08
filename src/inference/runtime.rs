//! ONNX Runtime: found at run time, loaded once.
//!
//! The library does not ship ONNX Runtime, because hospitals choose between builds (CPU, CUDA, a distribution's own). It is searched for,
//! in this order: `inference.runtime_library`, the environment variable ORT_DYLIB_PATH, the folder of this library, the dynamic linker's
//! own search, the usual folders. The first two are statements of a person: when one of them names something that does not work, that is an
//! error and nothing else is tried.
//!
//! A process has one runtime with one environment, without telemetry and without a log of its own: its messages quote names and values
//! out of models. **Invariant:** no text of ONNX Runtime reaches an error, a log or the audit trail; an error says its code's name.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider, TensorRT};

use crate::error::{Error, Kind, Result};
use crate::inference::loaded;

#[cfg(target_os = "macos")]
const NAMES: [&str; 2] = ["libonnxruntime.dylib", "libonnxruntime.1.dylib"];
#[cfg(not(target_os = "macos"))]
const NAMES: [&str; 2] = ["libonnxruntime.so", "libonnxruntime.so.1"];

/// Where packages and installers put shared libraries.
const FOLDERS: [&str; 7] = [
    "/usr/local/lib",
    #[cfg(target_arch = "aarch64")]
    "/usr/lib/aarch64-linux-gnu",
    #[cfg(not(target_arch = "aarch64"))]
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/opt/onnxruntime/lib",
    "/usr/local/onnxruntime/lib",
    "/opt/homebrew/lib",
];

/// The runtime of this process.
#[derive(Clone)]
pub(super) struct Runtime {
    pub(super) environment: Environment,
    /// The file that was loaded.
    pub(super) path: PathBuf,
    /// Version, as the library says.
    pub(super) version: String,
    /// What was asked for when it was loaded.
    asked: Option<PathBuf>,
}

/// The environment lives as long as the process: sessions may be used by other threads when `main` returns.
static LOADED: Mutex<Option<Arc<Runtime>>> = Mutex::new(None);

/// The runtime, loaded by the first call. A failed call may be repeated after the cause was removed.
///
/// # Errors
/// [`Kind::RuntimeMissing`], with the places searched; [`Kind::RuntimeFailed`] when another runtime than the one asked for is loaded
/// already.
pub(super) fn load(library: Option<&Path>) -> Result<Arc<Runtime>> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = loaded.as_ref() {
        let same = |asked: &Path| {
            runtime.asked.as_deref() == Some(asked) || library_in(asked).canonicalize().is_ok_and(|path| path == runtime.path)
        };
        if !library.is_none_or(same) {
            return Err(Error::new(Kind::RuntimeFailed, "this process has loaded another onnx runtime already")
                .with_hint("a process holds one ONNX Runtime: set inference.runtime_library before the first model is opened"));
        }
        return Ok(Arc::clone(runtime));
    }
    let runtime = Arc::new(Runtime { asked: library.map(Path::to_path_buf), ..search(library)? });
    *loaded = Some(Arc::clone(&runtime));
    Ok(runtime)
}

/// Devices that the loaded runtime was built for.
pub(super) fn has_cuda(_runtime: &Runtime) -> bool {
    CUDA::is_available().unwrap_or(false)
}

/// Whether the loaded runtime was built with TensorRT.
pub(super) fn has_tensorrt(_runtime: &Runtime) -> bool {
    TensorRT::is_available().unwrap_or(false)
}

/// The providers of the loaded runtime that this library uses, for people.
pub(super) fn known(runtime: &Runtime) -> String {
    let mut names = vec!["cpu"];
    names.extend(has_cuda(runtime).then_some("cuda"));
    names.extend(has_tensorrt(runtime).then_some("tensorrt"));
    names.join(", ")
}

/// A place that was tried: its name for people, and what was found there.
type Tried = (String, &'static str);

fn search(library: Option<&Path>) -> Result<Runtime> {
    if let Some(path) = library {
        return open(&library_in(path)).map_err(|why| missing(&[("inference.runtime_library".into(), why)]));
    }
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return open(&library_in(Path::new(&path))).map_err(|why| missing(&[("ORT_DYLIB_PATH".into(), why)]));
    }
    let mut tried: Vec<Tried> = vec![("inference.runtime_library".into(), "not set"), ("ORT_DYLIB_PATH".into(), "not set")];
    if let Some(folder) = loaded::own_folder() {
        match open_in(&folder) {
            Ok(runtime) => return Ok(runtime),
            Err(why) => tried.push(("the folder of this library".into(), why)),
        }
    }
    for name in NAMES {
        match open(Path::new(name)) {
            Ok(runtime) => return Ok(runtime),
            Err(why) => tried.push((format!("{name} by the dynamic linker"), why)),
        }
    }
    for folder in FOLDERS {
        match open_in(Path::new(folder)) {
            Ok(runtime) => return Ok(runtime),
            Err(why) => tried.push((folder.into(), why)),
        }
    }
    Err(missing(&tried))
}

fn missing(tried: &[Tried]) -> Error {
    let list = tried.iter().map(|(place, why)| format!("{place} ({why})")).collect::<Vec<_>>().join(", ");
    let detail = match tried {
        [(place, why)] => format!("{place}: {why}"),
        _ => format!("{} places searched", tried.len()),
    };
    Error::new(Kind::RuntimeMissing, detail).with_hint(format!(
        "install ONNX Runtime 1.17 or newer and set inference.runtime_library or ORT_DYLIB_PATH to its shared library; searched: {list}"
    ))
}

/// A person may name the folder instead of the file.
fn library_in(path: &Path) -> PathBuf {
    if path.is_dir() { candidates(path).into_iter().next().unwrap_or_else(|| path.join(NAMES[0])) } else { path.to_path_buf() }
}

fn open_in(folder: &Path) -> Result<Runtime, &'static str> {
    let mut reason = "absent";
    for path in candidates(folder) {
        match open(&path) {
            Ok(runtime) => return Ok(runtime),
            Err(why) => reason = why,
        }
    }
    Err(reason)
}

/// The runtime's files in a folder: the plain names, then names with a full version (the wheels from PyPI have nothing else), newest first.
fn candidates(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = NAMES.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect();
    let mut versions: Vec<(Vec<u32>, PathBuf)> = Vec::new();
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        let version =
            name.to_str().and_then(|name| name.strip_prefix("libonnxruntime.so.").or_else(|| name.strip_prefix("libonnxruntime.")));
        let parts = version.map(|text| text.trim_end_matches(".dylib").split('.').map(str::parse::<u32>).collect::<Result<Vec<_>, _>>());
        if let Some(Ok(parts)) = parts
            && parts.len() > 1
        {
            versions.push((parts, entry.path()));
        }
    }
    versions.sort();
    found.extend(versions.into_iter().rev().map(|(_, path)| path));
    found
}

/// Loads one library. `ort` must see this call before any other of its functions, which would panic.
fn open(path: &Path) -> Result<Runtime, &'static str> {
    use ort::LoadDynamicError as Load;
    // With a folder in its name a library is a file; without, the dynamic linker searches (and never in the current folder).
    let is_file = path.components().count() > 1;
    if is_file && !path.is_file() {
        return Err("absent");
    }
    let absolute = if is_file { path.canonicalize().map_err(|_| "unreadable")? } else { path.to_path_buf() };
    let builder = ort::init_from(&absolute).map_err(|error| match error {
        Load::Dlopen { .. } if is_file => "not loadable: no shared library for this machine, or one that it needs is missing",
        Load::Dlopen { .. } => "absent",
        Load::MissingApi { .. } => "not onnx runtime",
        Load::BadVersion { .. } => "older than 1.17",
        Load::InvalidVersionString => "without a version",
    })?;
    let (path, version) = loaded::onnx_runtime(&absolute).ok_or("without a version")?;
    // Whoever loads the runtime first decides for the process: its environment cannot be made twice, nor the library unloaded safely.
    // The sink swallows every message; the level keeps the runtime from composing them.
    let environment = builder
        .with_name("smp")
        .with_telemetry(false)
        .with_logger(Arc::new(|_, _, _, _, _| {}))
        .build()
        .map_err(|_| "found, but its environment cannot be made")?;
    environment.set_log_level(ort::logging::LogLevel::Fatal);
    Ok(Runtime { environment, path, version, asked: None })
}

/// An error of ONNX Runtime as one of ours: the name of its code, never its text.
pub(super) fn failure<R>(error: &ort::Error<R>, what: &'static str, on_cuda: bool) -> Error {
    // The runtime has no code for a want of memory; only its text tells it from other failures.
    if let Some(detail) = out_of_memory(error.message()) {
        let kind = if on_cuda { Kind::DeviceOutOfMemory } else { Kind::OutOfMemory };
        return Error::new(kind, detail).at(crate::error::Stage::Inference);
    }
    Error::new(Kind::RuntimeFailed, format!("{what}: onnx runtime code {}", code_name(error.code())))
}

fn code_name(code: ort::ErrorCode) -> &'static str {
    use ort::ErrorCode as Code;
    match code {
        Code::InvalidArgument => "invalid argument",
        Code::NoSuchFile => "no such file",
        Code::NoModel => "no model",
        Code::EngineError => "engine error",
        Code::RuntimeException => "runtime exception",
        Code::InvalidProtobuf => "invalid protobuf",
        Code::NotImplemented => "not implemented",
        Code::InvalidGraph => "invalid graph",
        Code::ExecutionProviderFailure => "execution provider failure",
        _ => "generic failure",
    }
}

/// Recognises a want of memory by the runtime's phrases, and takes nothing but the two numbers out of them.
fn out_of_memory(message: &str) -> Option<String> {
    const PHRASES: [&str; 8] = [
        "out of memory",
        "OUT_OF_MEMORY",
        "Failed to allocate memory",
        "ALLOC_FAILED",
        "cudaErrorMemoryAllocation",
        "bad_alloc",
        "bad allocation",
        "Available memory of ",
    ];
    PHRASES.iter().any(|phrase| message.contains(phrase)).then(|| {
        let after = |phrase: &str| -> Option<u64> {
            let digits: String = message.split(phrase).nth(1)?.chars().take_while(char::is_ascii_digit).take(19).collect();
            digits.parse::<u64>().ok().map(|bytes| bytes >> 20)
        };
        let needed = after("requested bytes of ").or_else(|| after("requested buffer of size "));
        match (needed, after("Available memory of ")) {
            (Some(needed), Some(available)) => format!("needed {needed} MiB more, available {available} MiB"),
            (Some(needed), None) => format!("needed {needed} MiB more"),
            _ => "the runtime names no size".to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_memory_is_recognised_and_only_its_sizes_are_told() {
        for (message, expected) in [
            (
                "bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested buffer of size 8589934592",
                Some("needed 8192 MiB more"),
            ),
            (
                "Available memory of 1073741824 is smaller than requested bytes of 2147483648",
                Some("needed 2048 MiB more, available 1024 MiB"),
            ),
            (
                "CUDA failure 2: out of memory ; GPU=0 ; hostname=ward-7 ; expr=cudaMalloc((void**)&p, size);",
                Some("the runtime names no size"),
            ),
            ("CUDNN_STATUS_ALLOC_FAILED", Some("the runtime names no size")),
            ("Got invalid dimensions for input: volume", None),
        ] {
            assert_eq!(out_of_memory(message).as_deref(), expected);
        }
    }

    #[test]
    fn versions_in_file_names_are_compared_as_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.32.0", "libonnxruntime.so.1.32.0.bak", "libonnxruntime_providers_shared.so"]
        {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        let found: Vec<_> = candidates(folder.path()).iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(found, ["libonnxruntime.so.1.32.0", "libonnxruntime.so.1.9.0"]);
    }

    #[test]
    fn a_runtime_that_was_named_and_does_not_work_is_an_error_that_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("libonnxruntime.so");
        std::fs::write(&text, "no library").unwrap();
        let mut cases = vec![(folder.path().join("absent.so"), "absent"), (text, "not loadable")];
        // Once the process has a runtime, `ort` asks no second library.
        if LOADED.lock().unwrap().is_none() && std::env::var_os("ORT_DYLIB_PATH").is_none() {
            cases.push((PathBuf::from("libm.so.6"), "not onnx runtime"));
        }
        for (path, expected) in cases {
            let error = search(Some(&path)).err().unwrap();
            assert_eq!(error.kind(), Kind::RuntimeMissing);
            // Another test of this process may have loaded a runtime meanwhile.
            let second = error.detail() == "inference.runtime_library: without a version" && LOADED.lock().unwrap().is_some();
            assert!(second || error.detail().starts_with(&format!("inference.runtime_library: {expected}")), "{error}");
            assert!(error.hint().unwrap().contains("ORT_DYLIB_PATH"));
        }
    }

    #[test]
    fn a_machine_without_a_runtime_says_where_it_was_searched() {
        if std::env::var_os("ORT_DYLIB_PATH").is_some() {
            eprintln!("SKIPPED: ORT_DYLIB_PATH is set, so nothing is searched");
            return;
        }
        match search(None) {
            Ok(runtime) => eprintln!("SKIPPED: this machine has ONNX Runtime {} in a usual place", runtime.version),
            Err(error) => {
                assert_eq!(error.kind(), Kind::RuntimeMissing);
                for place in [
                    "inference.runtime_library (not set)",
                    "the folder of this library (absent)",
                    "libonnxruntime.so.1",
                    "/usr/local/lib (absent)",
                ] {
                    assert!(error.hint().unwrap().contains(place), "{place}");
                }
            }
        }
    }
}
