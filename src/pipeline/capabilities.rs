//! What this build can do on this machine.

use serde_json::{Value, json};

use crate::{dicom, inference};

/// JSON: version, features, store providers, pixel decoders, devices, and ONNX Runtime's version and place or why it is absent.
pub fn capabilities() -> String {
    let runtime = match inference::runtime_facts(None) {
        Ok((version, path)) => json!({"available": true, "version": version, "path": path.display().to_string()}),
        Err(error) => json!({"available": false, "reason": error.to_string(), "hint": error.hint()}),
    };
    let decoders: Vec<Value> = dicom::decoders().into_iter().map(|(uid, name)| json!({"transfer_syntax": uid, "name": name})).collect();
    json!({
        "schema": "smp-capabilities/1",
        "version": env!("CARGO_PKG_VERSION"),
        "features": if cfg!(feature = "pkcs11") { vec!["pkcs11"] } else { Vec::new() },
        "providers": ["local", "s3"],
        "download_modes": ["zero_knowledge", "standard"],
        "operations": ["load", "anonymize", "preprocess", "segment", "predict"],
        "preprocessing": {"normalize": ["none", "zscore"], "denoise": ["none"], "bias_correction": ["none"]},
        "decoders": decoders,
        "devices": inference::providers(None),
        "onnx_runtime": runtime,
        "output_formats": ["json", "npy", "nifti", "png"],
    })
    .to_string()
}
