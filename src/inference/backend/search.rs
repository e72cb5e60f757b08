//! Where the TorchScript backend is searched.
//!
//! In this order: `inference.torchscript_library`, the environment variable SMP_TORCHSCRIPT_LIBRARY, the folder of this library, the dynamic
//! linker's own search. The first two are statements of a person: when one of them names something that does not work, that is an error and
//! nothing else is tried. The current folder is never searched.

use std::path::{Path, PathBuf};

use super::Backend;
use crate::error::{Error, Kind, Result};
use crate::inference::loaded;

#[cfg(target_os = "macos")]
const NAME: &str = "libsmp_torchscript.dylib";
#[cfg(not(target_os = "macos"))]
const NAME: &str = "libsmp_torchscript.so";

/// The name that the TorchScript backend gives itself.
const BACKEND: &str = "torchscript";
const VARIABLE: &str = "SMP_TORCHSCRIPT_LIBRARY";

/// A place that was tried: its name for people, and what was found there.
type Tried = (String, &'static str);

/// The TorchScript backend.
///
/// # Errors
/// [`Kind::RuntimeMissing`], with the places searched.
pub(in crate::inference) fn torchscript(library: Option<&Path>) -> Result<Backend> {
    search(library, std::env::var_os(VARIABLE).map(PathBuf::from).as_deref())
}

/// `variable` is what the environment says.
pub(super) fn search(library: Option<&Path>, variable: Option<&Path>) -> Result<Backend> {
    for (place, path) in [("inference.torchscript_library", library), (VARIABLE, variable)] {
        if let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) {
            // A person may name the folder instead of the file.
            let file = if path.is_dir() { path.join(NAME) } else { path.to_path_buf() };
            return open(&file).map_err(|why| missing(&[(place.into(), why)]));
        }
    }
    let mut tried: Vec<Tried> = vec![("inference.torchscript_library".into(), "not set"), (VARIABLE.into(), "not set")];
    if let Some(folder) = loaded::own_folder() {
        match open(&folder.join(NAME)) {
            Ok(backend) => return Ok(backend),
            Err(why) => tried.push(("the folder of this library".into(), why)),
        }
    }
    match open(Path::new(NAME)) {
        Ok(backend) => Ok(backend),
        Err(why) => {
            tried.push((format!("{NAME} by the dynamic linker"), why));
            Err(missing(&tried))
        }
    }
}

fn missing(tried: &[Tried]) -> Error {
    let list = tried.iter().map(|(place, why)| format!("{place} ({why})")).collect::<Vec<_>>().join(", ");
    let detail = match tried {
        [(place, why)] => format!("the torchscript backend, {place}: {why}"),
        _ => format!("the torchscript backend, {} places searched", tried.len()),
    };
    Error::new(Kind::RuntimeMissing, detail).with_hint(format!(
        "build it with make torchscript LIBTORCH=<folder of libtorch> and set inference.torchscript_library or {VARIABLE} to {NAME}, or export \
         the model to ONNX (torch.onnx.export, docs/model-contract.md); searched: {list}"
    ))
}

fn open(path: &Path) -> Result<Backend, &'static str> {
    let backend = Backend::open_library(path)?;
    if backend.name() == BACKEND { Ok(backend) } else { Err("a backend for other models") }
}
