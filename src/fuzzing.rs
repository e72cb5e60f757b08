//! What fuzz targets reach that is no public API: every parser that reads bytes of strangers, with what must hold of its answer.
//!
//! Compiled for fuzzing only (`--cfg fuzzing`, which cargo-fuzz sets). A function returns in silence whatever it is given; a panic is a finding.
//! A new parser of foreign bytes gets a function here and a target in `fuzz/`.

/// The header of a package.
pub fn header(bytes: &[u8]) {
    crate::package::fuzzing::header(bytes);
}

/// The decrypted manifest of a package.
pub fn manifest(bytes: &[u8]) {
    crate::package::fuzzing::manifest(bytes);
}

/// A sealed object, whole and in runs, as it is and as a genuine one that was tampered with.
pub fn chunks(bytes: &[u8]) {
    crate::package::fuzzing::chunks(bytes);
}

/// The arithmetic of sizes, ranges and tree hashes.
pub fn tree(bytes: &[u8]) {
    crate::package::fuzzing::tree(bytes);
}

/// Public keys in PEM.
pub fn public_pem(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        crate::keys::fuzzing::public_pem(text);
    }
}

/// Encrypted private keys in PEM.
pub fn private_pem(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        crate::keys::fuzzing::private_pem(text);
    }
}

/// Key cards.
pub fn key_card(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        crate::keys::fuzzing::key_card(text);
    }
}

/// The BER of a study in CMS, header, segments and end.
pub fn cms_envelope(bytes: &[u8]) {
    let _ = crate::package::parse_envelope(bytes);
}

/// The archive inside of a study in CMS.
pub fn archive(bytes: &[u8]) {
    let _ = crate::package::parse_archive(bytes);
}

/// A model file: ONNX, PyTorch's archives and pickles, and the contract that an ONNX file may hold.
pub fn model(bytes: &[u8]) {
    crate::inference::fuzzing::model(bytes);
}

/// A model's contract.
pub fn contract(bytes: &[u8]) {
    crate::inference::fuzzing::contract(bytes);
}

/// A recipe of preprocessing.
pub fn recipe(bytes: &[u8]) {
    let _ = crate::imaging::Recipe::from_json(bytes);
}

/// A DICOM file, to its voxels; two of them when the input begins with the length of the first.
pub fn dicom(bytes: &[u8]) {
    crate::dicom::fuzzing::dicom(bytes);
}
