//! Fuzzing of model files and contracts: what must hold of every answer to foreign bytes. See [`crate::fuzzing`].

use super::contract::Contract;
use super::file::{self, Format};

/// A model file, of whatever format it is; with the contract that it may hold.
pub(crate) fn model(bytes: &[u8]) {
    let strict = file::format_of(bytes, false);
    let with_backend = file::format_of(bytes, true);
    // A backend for other formats changes nothing of those that are known, and lets in nothing that is refused by name.
    match (&strict, &with_backend) {
        (Ok(format), Ok(other)) => assert!(format == other),
        (Err(_), Ok(other)) => assert!(*other == Format::Other),
        (Err(one), Err(other)) => assert!(one.kind() == other.kind()),
        (Ok(_), Err(_)) => assert!(with_backend.is_ok(), "a backend shuts a model out"),
    }
    let file = file::ModelFile { format: Format::Onnx, bytes: bytes.to_vec(), sha256: String::new() };
    if let Some(text) = file.metadata("smp_contract") {
        contract(text);
    }
}

/// A contract, as a file and as a part of a model.
pub(crate) fn contract(bytes: &[u8]) {
    let _ = Contract::read(bytes);
    let _ = Contract::read_embedded(bytes, "");
}
