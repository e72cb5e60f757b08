//! What a model file tells of itself, and what its contract still has to say.

use serde_json::{Map, Value, json};

use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::inference::backend::{self, Backend};
use crate::inference::contract::{Contract, Task};
use crate::inference::file::Format;
use crate::inference::onnx::Declared;
use crate::inference::{RuntimeOptions, file, onnx};

/// Most metadata entries and characters of each that are told.
const MOST_ENTRIES: usize = 64;
const MOST_CHARACTERS: usize = 256;

/// A tensor that a model takes or gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type, as ONNX names it (`float32`).
    pub element: String,
    /// Dimensions; -1 is open.
    pub shape: Vec<i64>,
}

/// What is known of a model.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// `onnx`, `torchscript` or `other`.
    pub format: &'static str,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Inputs, in the model's order.
    pub inputs: Vec<Port>,
    /// Outputs, in the model's order.
    pub outputs: Vec<Port>,
    /// `metadata_props` of the file, shortened.
    pub metadata: Vec<(String, String)>,
    /// The contract beside the file or in it, or what is wrong with it.
    pub contract: std::result::Result<Contract, String>,
    /// A contract to start from: what the file tells is filled in.
    pub draft: Value,
    /// Keys of the draft that only whoever trained the model can answer.
    pub unknown: Vec<&'static str>,
}

/// Looks at a model; the session is opened on the CPU.
///
/// # Errors
/// Those of the file and of the runtime; a contract that is missing or wrong is told in the answer.
pub fn inspect(path: &Path, options: &RuntimeOptions) -> Result<Inspection> {
    let model = file::read(path, options)?;
    let (sha256, bytes) = (model.sha256.clone(), model.bytes.len() as u64);
    let contract = super::contract_of(path, &model).map_err(|error| error.to_string());
    let (format, declared) = match model.format {
        Format::Onnx => ("onnx", onnx::declared(&model.bytes, options)?),
        Format::TorchScript => ("torchscript", named(&backend::torchscript(options.torchscript_library.as_deref())?, &model.bytes)?),
        Format::Other => match &options.backend_library {
            Some(library) => ("other", named(&Backend::load(library)?, &model.bytes)?),
            None => ("other", Declared::default()),
        },
    };
    let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(MOST_CHARACTERS).collect::<String>();
    let metadata = declared.metadata.iter().take(MOST_ENTRIES).map(|(key, value)| (short(key), short(value))).collect();
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("model");
    let (draft, unknown) = draft(stem, &sha256, &declared);
    Ok(Inspection { format, sha256, bytes, inputs: declared.inputs, outputs: declared.outputs, metadata, contract, draft, unknown })
}

impl Inspection {
    /// The answer as JSON.
    pub fn to_json(&self) -> Value {
        let port = |port: &Port| json!({"name": port.name, "type": port.element, "shape": port.shape});
        let metadata: Map<String, Value> = self.metadata.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
        let contract = match &self.contract {
            Ok(contract) => json!({"name": contract.name, "version": contract.version, "task": match contract.task {
                Task::Segment => "segment",
                Task::Predict => "predict",
            }}),
            Err(why) => json!({"error": why}),
        };
        json!({
            "format": self.format,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "inputs": self.inputs.iter().map(port).collect::<Vec<_>>(),
            "outputs": self.outputs.iter().map(port).collect::<Vec<_>>(),
            "metadata": metadata,
            "contract": contract,
            "draft": self.draft,
            "to_be_answered": self.unknown,
        })
    }
}

/// The names that a backend's model has; what its tensors are shows when it runs.
fn named(backend: &Backend, bytes: &[u8]) -> Result<Declared> {
    let model = backend.open(bytes, "cpu", 1)?;
    let ports = |names: Option<&[String]>| -> Vec<Port> {
        let port = |name: &String| Port { name: name.clone(), element: "float32".to_owned(), shape: Vec::new() };
        names.unwrap_or_default().iter().map(port).collect()
    };
    Ok(Declared { inputs: ports(model.inputs()), outputs: ports(model.outputs()), metadata: Vec::new() })
}

/// A contract with what the file tells. What it cannot tell is null and listed: no default is invented for it.
fn draft(name: &str, sha256: &str, declared: &Declared) -> (Value, Vec<&'static str>) {
    let output = declared.outputs.first();
    let rank = declared.inputs.first().map_or(0, |input| input.shape.len());
    let same_rank = output.is_some_and(|output| output.shape.len() == rank);
    let task = if same_rank && rank >= 4 { "segment" } else { "predict" };
    let shape = declared.inputs.first().map(|input| input.shape.as_slice()).unwrap_or_default();
    // Channels first or last: whichever end holds a small fixed number. Where both do, one channel is told from a short side; else only
    // people know.
    let few = |index: usize| shape.get(index).copied().filter(|n| (1..=16).contains(n));
    let first = match (few(1), few(rank.saturating_sub(1))) {
        (Some(1), Some(last)) if last > 1 => Some(true),
        (Some(first), Some(1)) if first > 1 => Some(false),
        (Some(_), None) => Some(true),
        (None, Some(_)) => Some(false),
        _ => None,
    };
    let layout = match (rank, first) {
        (5, Some(true)) => json!("NCDHW"),
        (5, Some(false)) => json!("NDHWC"),
        (4, Some(true)) => json!("NCHW"),
        (4, Some(false)) => json!("NHWC"),
        _ => Value::Null,
    };
    let channels_first = layout.as_str().is_none_or(|layout| layout.starts_with("NC"));
    let spatial: Vec<i64> = match (rank >= 4, channels_first) {
        (true, true) => shape[2..].to_vec(),
        (true, false) => shape[1..rank - 1].to_vec(),
        _ => Vec::new(),
    };
    let fixed = !spatial.is_empty() && spatial.iter().all(|side| *side > 0);
    let size = match (task, fixed) {
        ("segment", true) => json!({"rule": "sliding", "window": spatial, "overlap": 0.25}),
        (_, true) => json!({"rule": "fit", "shape": spatial}),
        _ => Value::Null,
    };
    let inputs: Vec<Value> = declared
        .inputs
        .iter()
        .map(|input| {
            let place = if channels_first { 1 } else { rank.saturating_sub(1) };
            let count = input.shape.get(place).copied().filter(|n| (1..=64).contains(n));
            let channels = match count {
                Some(1) => json!(["volume"]),
                Some(count) => json!((0..count).map(|index| format!("volume:{index}")).collect::<Vec<_>>()),
                None => Value::Null,
            };
            json!({"name": input.name, "channels": channels})
        })
        .collect();
    let mut unknown = vec!["version", "inputs[].channels", "grid.orientation", "grid.axes", "grid.spacing_mm"];
    unknown.extend(layout.is_null().then_some("grid.layout"));
    unknown.extend(size.is_null().then_some("grid.size"));
    unknown.extend(["intensity.steps", "output.activation", "output.labels", "plausibility"]);
    let draft = json!({
        "contract": 1,
        "task": task,
        "name": name,
        "version": null,
        "sha256": sha256,
        "inputs": inputs,
        "grid": {"layout": layout, "orientation": null, "axes": null, "spacing_mm": null, "size": size},
        "intensity": {"steps": null},
        "output": {"name": output.map(|output| output.name.clone()), "activation": null, "labels": null},
        "plausibility": null,
    });
    (draft, unknown)
}

/// Says which line is missing, for a model without a contract.
pub(super) fn no_contract(why: &str) -> Error {
    Error::new(Kind::ModelContract, format!("the json file beside the model: {why}"))
        .with_hint("smp models inspect MODEL writes a contract to start from and says which of its lines only you can answer")
}
