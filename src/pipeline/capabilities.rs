//! What this build can do on this machine.

use serde_json::{Value, json};

use crate::secret::{self, Secret};
use crate::{dicom, inference, transfer};

/// JSON: version, features, store providers, pixel decoders, devices, what the system grants to the
/// memory of secrets, and ONNX Runtime's version and place or why it is absent.
pub fn capabilities() -> String {
    let runtime = match inference::runtime_facts(None) {
        Ok((version, path)) => json!({"available": true, "version": version, "path": path.display().to_string()}),
        Err(error) => json!({"available": false, "reason": error.to_string(), "hint": error.hint()}),
    };
    // With a secret alive there is a region, so the facts are those of this machine and not of an empty arena.
    let probe = Secret::new([0u8; 32]);
    let facts = secret::arena_facts();
    let secret_memory =
        json!({"locked": probe.is_locked(), "left_out_of_dumps": facts.left_out_of_dumps, "wiped_on_fork": facts.wiped_on_fork});
    let decoders: Vec<Value> = dicom::decoders().into_iter().map(|(uid, name)| json!({"transfer_syntax": uid, "name": name})).collect();
    json!({
        "schema": "smp-capabilities/1",
        "version": env!("CARGO_PKG_VERSION"),
        "features": if cfg!(feature = "pkcs11") { vec!["pkcs11"] } else { Vec::new() },
        "providers": transfer::PROVIDERS,
        "download_modes": ["zero_knowledge", "standard"],
        "operations": ["load", "anonymize", "preprocess", "segment", "predict"],
        "preprocessing": {
            "normalize": ["none", "zscore", "minmax", "white_stripe"],
            "denoise": ["none", "nlm", "nlm_blockwise", "gaussian", "median", "gradient_diffusion", "curvature_diffusion", "total_variation"],
            "bias_correction": ["none", "n4"],
        },
        "decoders": decoders,
        "devices": inference::providers(None),
        "onnx_runtime": runtime,
        "secret_memory": secret_memory,
        "output_formats": ["json", "npy", "nifti", "png", "seg", "sr", "dicom"],
    })
    .to_string()
}
