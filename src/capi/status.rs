//! Status: the outcomes of calls.
//!
//! -1.. the call itself, -100.. configuration, -200.. keys and packages, -300.. transfer, -400.. DICOM, -500.. de-identification, -600..
//! imaging, -700.. inference, -800.. audit, -900.. erasure, -1000.. results.

use crate::error::Kind;

/// It worked.
pub const SMP_OK: i32 = 0;

/// The work is not finished yet. Not an error.
pub const SMP_PENDING: i32 = 1;

/// It worked, with a reservation that the function describes. Not an error.
pub const SMP_PARTIAL: i32 = 2;

/// Name and meaning of a status.
pub(super) fn describe(status: i32) -> Option<(&'static str, &'static str)> {
    match status {
        SMP_OK => Some(("SMP_OK", "it worked")),
        SMP_PENDING => Some(("SMP_PENDING", "the work is not finished yet")),
        SMP_PARTIAL => Some(("SMP_PARTIAL", "it worked, with a reservation")),
        _ => Kind::ALL.iter().find(|kind| kind.code() == status).map(|kind| (kind.name(), kind.text())),
    }
}

// From here to the end: one constant per `Kind`, in its order, because cbindgen reads plain constants only. `SMP_BLESS=1 cargo test
// --test abi` writes them; the same test fails when they differ from the table in `error.rs`.

/// An argument is outside its range.
pub const SMP_ERR_INVALID_ARGUMENT: i32 = -1;

/// A required argument is NULL.
pub const SMP_ERR_NULL_ARGUMENT: i32 = -2;

/// The handle is not live: freed, foreign or of another type.
pub const SMP_ERR_INVALID_HANDLE: i32 = -3;

/// The text is not valid UTF-8.
pub const SMP_ERR_INVALID_TEXT: i32 = -4;

/// The buffer is too small; nothing was written.
pub const SMP_ERR_BUFFER_TOO_SMALL: i32 = -5;

/// Not supported by this build.
pub const SMP_ERR_UNSUPPORTED: i32 = -6;

/// Cancelled by the caller.
pub const SMP_ERR_CANCELLED: i32 = -7;

/// Internal error: a defect of the library.
pub const SMP_ERR_INTERNAL: i32 = -8;

/// A configured limit was exceeded.
pub const SMP_ERR_LIMIT_EXCEEDED: i32 = -9;

/// The index is past the end.
pub const SMP_ERR_OUT_OF_RANGE: i32 = -10;

/// The value is absent.
pub const SMP_ERR_ABSENT: i32 = -11;

/// Not enough memory.
pub const SMP_ERR_OUT_OF_MEMORY: i32 = -12;

/// A local file cannot be read.
pub const SMP_ERR_FILE_UNREADABLE: i32 = -13;

/// Unknown configuration key.
pub const SMP_ERR_CONFIG_UNKNOWN_KEY: i32 = -100;

/// A configuration value is not valid.
pub const SMP_ERR_CONFIG_INVALID_VALUE: i32 = -101;

/// The configuration file cannot be read.
pub const SMP_ERR_CONFIG_UNREADABLE: i32 = -102;

/// A file that holds secrets is readable by others.
pub const SMP_ERR_CONFIG_PERMISSIONS: i32 = -103;

/// The key store cannot be used.
pub const SMP_ERR_KEY_STORE_UNAVAILABLE: i32 = -200;

/// The passphrase or wrapping key does not open the key store.
pub const SMP_ERR_WRONG_PASSPHRASE: i32 = -201;

/// No such key.
pub const SMP_ERR_KEY_NOT_FOUND: i32 = -202;

/// The key is malformed, off the curve or of another type.
pub const SMP_ERR_KEY_INVALID: i32 = -203;

/// The fingerprint does not match the key.
pub const SMP_ERR_FINGERPRINT_MISMATCH: i32 = -204;

/// The peer's key has not been confirmed.
pub const SMP_ERR_KEY_UNCONFIRMED: i32 = -205;

/// The key has expired.
pub const SMP_ERR_KEY_EXPIRED: i32 = -206;

/// The store holds no private key for this id.
pub const SMP_ERR_PRIVATE_KEY_MISSING: i32 = -207;

/// The key is already in the store.
pub const SMP_ERR_KEY_EXISTS: i32 = -208;

/// The package is malformed.
pub const SMP_ERR_PACKAGE_MALFORMED: i32 = -220;

/// The package was signed by an unknown sender.
pub const SMP_ERR_UNKNOWN_SENDER: i32 = -221;

/// The package is not sealed for any key of this store.
pub const SMP_ERR_NOT_A_RECIPIENT: i32 = -222;

/// The sender's signature does not verify.
pub const SMP_ERR_SIGNATURE_INVALID: i32 = -223;

/// Integrity verification failed.
pub const SMP_ERR_INTEGRITY_FAILED: i32 = -224;

/// An object of the package is missing.
pub const SMP_ERR_PACKAGE_INCOMPLETE: i32 = -225;

/// No sealed package at this path, and zero_knowledge refuses anything unsealed.
pub const SMP_ERR_NOT_SEALED: i32 = -226;

/// A file name is not safe to use.
pub const SMP_ERR_UNSAFE_PATH: i32 = -227;

/// A source file changed while it was sealed.
pub const SMP_ERR_SOURCE_CHANGED: i32 = -228;

/// There is already a package at this path.
pub const SMP_ERR_PACKAGE_EXISTS: i32 = -229;

/// The source folder holds no files.
pub const SMP_ERR_NOTHING_TO_SEAL: i32 = -230;

/// The study is encrypted in a way that is not accepted.
pub const SMP_ERR_CRYPTOGRAPHY_REFUSED: i32 = -231;

/// Connection refused.
pub const SMP_ERR_CONNECTION_REFUSED: i32 = -300;

/// No usable credentials were found.
pub const SMP_ERR_CREDENTIALS_MISSING: i32 = -301;

/// The store denied access.
pub const SMP_ERR_ACCESS_DENIED: i32 = -302;

/// No such object, folder or bucket in the store.
pub const SMP_ERR_OBJECT_NOT_FOUND: i32 = -303;

/// The store did not answer in time.
pub const SMP_ERR_TRANSFER_TIMEOUT: i32 = -304;

/// The TLS connection was refused.
pub const SMP_ERR_TLS_FAILED: i32 = -305;

/// The store reported a failure of its own.
pub const SMP_ERR_SERVER_FAILED: i32 = -306;

/// The object changed while it was read.
pub const SMP_ERR_OBJECT_CHANGED: i32 = -307;

/// The store sent less than it announced.
pub const SMP_ERR_TRANSFER_INTERRUPTED: i32 = -308;

/// The object exists already.
pub const SMP_ERR_OBJECT_EXISTS: i32 = -309;

/// The store cannot be written.
pub const SMP_ERR_STORE_UNWRITABLE: i32 = -310;

/// The workspace cannot be written.
pub const SMP_ERR_SPOOL_UNWRITABLE: i32 = -311;

/// No DICOM files found.
pub const SMP_ERR_NO_DICOM_FILES: i32 = -400;

/// A DICOM file is malformed.
pub const SMP_ERR_DICOM_MALFORMED: i32 = -401;

/// A DICOM file exceeds the limits for its structure.
pub const SMP_ERR_DICOM_HOSTILE: i32 = -402;

/// There is no decoder for the transfer syntax.
pub const SMP_ERR_TRANSFER_SYNTAX_UNSUPPORTED: i32 = -403;

/// The pixel format is not supported.
pub const SMP_ERR_PIXELS_UNSUPPORTED: i32 = -404;

/// The pixel data cannot be decoded.
pub const SMP_ERR_PIXELS_UNDECODABLE: i32 = -405;

/// Slices are missing from the series.
pub const SMP_ERR_SLICE_MISSING: i32 = -406;

/// Two slices lie at the same position.
pub const SMP_ERR_SLICE_DOUBLED: i32 = -407;

/// The slices do not form one regular grid.
pub const SMP_ERR_GEOMETRY_INCONSISTENT: i32 = -408;

/// Position, orientation or spacing is missing.
pub const SMP_ERR_GEOMETRY_MISSING: i32 = -409;

/// The study has no such series.
pub const SMP_ERR_SERIES_NOT_FOUND: i32 = -410;

/// The patient id is missing, so no consistent pseudonym can be made.
pub const SMP_ERR_PATIENT_ID_MISSING: i32 = -500;

/// An object of this SOP class cannot be de-identified.
pub const SMP_ERR_SOP_CLASS_QUARANTINED: i32 = -501;

/// The pixels may carry burned-in identifiers.
pub const SMP_ERR_BURNED_IN_TEXT: i32 = -502;

/// An identifier of the input was found in the output; nothing was released.
pub const SMP_ERR_RESIDUAL_IDENTIFIER: i32 = -503;

/// The project key is not available.
pub const SMP_ERR_PROJECT_KEY_MISSING: i32 = -504;

/// The volume holds NaN or infinite voxels, or none.
pub const SMP_ERR_VOLUME_INVALID: i32 = -600;

/// All voxels are equal, so the volume cannot be normalized.
pub const SMP_ERR_VOLUME_CONSTANT: i32 = -601;

/// The mask is empty.
pub const SMP_ERR_MASK_EMPTY: i32 = -602;

/// No model is configured for this operation.
pub const SMP_ERR_MODEL_MISSING: i32 = -700;

/// The model cannot be read.
pub const SMP_ERR_MODEL_UNREADABLE: i32 = -701;

/// The model's contract is missing or not valid.
pub const SMP_ERR_MODEL_CONTRACT: i32 = -702;

/// The model differs from the one its contract describes.
pub const SMP_ERR_MODEL_DIGEST: i32 = -703;

/// The model's runtime was not found.
pub const SMP_ERR_RUNTIME_MISSING: i32 = -704;

/// The model's runtime failed.
pub const SMP_ERR_RUNTIME_FAILED: i32 = -705;

/// The requested device is not available.
pub const SMP_ERR_DEVICE_UNAVAILABLE: i32 = -706;

/// CUDA out of memory.
pub const SMP_ERR_DEVICE_OUT_OF_MEMORY: i32 = -707;

/// The model's inputs or outputs do not fit its contract.
pub const SMP_ERR_MODEL_SHAPE: i32 = -708;

/// A pickled model is refused: loading it would execute its code.
pub const SMP_ERR_MODEL_PICKLE: i32 = -709;

/// The study is outside what the model is for.
pub const SMP_ERR_INPUT_IMPLAUSIBLE: i32 = -710;

/// The audit log cannot be written, so nothing was processed.
pub const SMP_ERR_AUDIT_UNWRITABLE: i32 = -800;

/// The audit log does not verify.
pub const SMP_ERR_AUDIT_TAMPERED: i32 = -801;

/// There is no audit log at this path.
pub const SMP_ERR_AUDIT_UNREADABLE: i32 = -802;

/// Not everything could be erased.
pub const SMP_ERR_ERASE_FAILED: i32 = -900;

/// The path must not be erased.
pub const SMP_ERR_ERASE_REFUSED: i32 = -901;

/// The output cannot be written.
pub const SMP_ERR_OUTPUT_UNWRITABLE: i32 = -1000;

/// No such output format.
pub const SMP_ERR_OUTPUT_UNSUPPORTED: i32 = -1001;
