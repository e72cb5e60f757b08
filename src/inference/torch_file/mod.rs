//! PyTorch's files, told apart by content without executing anything of them.
//!
//! `torch.save` writes pickles, alone or in a zip archive, and to open a pickle is to run what it says; they are refused by name with the
//! recipe for a file that can be run. `torch.jit.save` writes an archive with code of a small language of its own, TorchScript, and tensors:
//! that is given to the TorchScript backend. `torch.export` writes an archive that libtorch alone cannot run.
//!
//! | in the archive, below its one folder | what it is |
//! |---|---|
//! | `constants.pkl`, `data.pkl`, `code/…` | TorchScript |
//! | `data.pkl` without code | a state dict or a pickled module |
//! | `archive_format`, `serialized_exported_program.json` | torch.export (`.pt2`) |
//! | `.data/extern_modules` | torch.package, pickles again |

mod zip;

use crate::error::{Error, Kind, Result};

/// Recipe for somebody who has weights and the Python code of their network.
const EXPORT: &str = "in the Python where the network was trained: torch.jit.script(model.eval()).save(\"model.pt\") (or torch.jit.trace with an \
                      example), or torch.onnx.export(model.eval(), example, \"model.onnx\", input_names=[...], output_names=[...]); then \
                      write its contract (docs/model-contract.md)";

/// Whether bytes are one of PyTorch's files, to be looked at by [`check`], and not ONNX.
pub(super) fn is_torch(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || pickle(bytes).is_some()
}

/// Checks that bytes are a whole TorchScript archive and nothing else.
///
/// # Errors
/// [`Kind::ModelUnreadable`]; [`Kind::ModelPickle`]; [`Kind::Unsupported`] for torch.export archives.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    if let Some(what) = pickle(bytes) {
        return Err(Error::new(Kind::ModelPickle, what).with_hint(EXPORT));
    }
    if !bytes.starts_with(b"PK") {
        return Err(Error::new(Kind::ModelUnreadable, "not a torchscript archive"));
    }
    let names = zip::names(bytes).map_err(|why| Error::new(Kind::ModelUnreadable, why))?;
    let exported = |name: &&str| {
        let file = name.rsplit('/').next().unwrap_or_default();
        ["archive_format", "serialized_exported_program.json"].contains(&file) || name.ends_with("models/model.json")
    };
    if names.iter().any(exported) {
        return Err(Error::new(Kind::Unsupported, "a torch.export archive (.pt2), which libtorch cannot run by itself").with_hint(EXPORT));
    }
    // Every file of PyTorch's own lies below one folder, named after the file it was first saved as.
    let root = names.first().and_then(|name| name.split_once('/')).map(|(root, _)| root).unwrap_or_default();
    let below: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix(root)?.strip_prefix('/')).collect();
    if root.is_empty() || below.len() != names.len() {
        return Err(Error::new(Kind::ModelUnreadable, "a zip archive, not a model"));
    }
    let has = |wanted: &str| below.contains(&wanted);
    let code = below.iter().any(|name| name.starts_with("code/"));
    match (has("data.pkl"), has("constants.pkl"), code) {
        (true, true, true) => Ok(()),
        (true, _, false) => {
            Err(Error::new(Kind::ModelPickle, "pytorch weights or a pickled module, without code to run").with_hint(EXPORT))
        }
        _ if has(".data/extern_modules") => {
            Err(Error::new(Kind::ModelPickle, "a torch.package archive, which holds pickles").with_hint(EXPORT))
        }
        _ => Err(Error::new(Kind::ModelUnreadable, "a zip archive, not a torchscript model")),
    }
}

/// What a pickle or another of PyTorch's old formats is, by its first bytes.
fn pickle(bytes: &[u8]) -> Option<&'static str> {
    // torch.save before PyTorch 1.6: a pickled number, 0x1950a86a20f9469cfc6c, then pickles and raw tensors.
    if bytes.starts_with(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") {
        return Some("pytorch weights in the format before 1.6, a pickle");
    }
    // Protocols 2 to 5 begin with their number; no zip archive and no onnx file does.
    if let [0x80, 2..=5, ..] = bytes {
        return Some("a pickle");
    }
    // Protocols 0 and 1 are text: a mark and an empty list or dict, or a global, at the start, and always a full stop at the end.
    let text = [&b"(dp"[..], b"(lp", b"(ip", b"}q", b"]q", b"ctorch", b"ccollections\n", b"c__builtin__\n", b"c__main__\n", b"ccopy_reg\n"];
    if text.iter().any(|start| bytes.starts_with(start)) && bytes.trim_ascii_end().ends_with(b".") {
        return Some("a pickle");
    }
    // Before PyTorch 0.1.10: a tar archive of pickles.
    if bytes.get(257..262) == Some(b"ustar") {
        return Some("a tar archive, as pytorch wrote pickles in its first versions");
    }
    None
}

#[cfg(test)]
mod tests;
