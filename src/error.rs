//! What can go wrong, as one type and one table.
//!
//! Every fallible function of the crate returns [`Error`]: a [`Kind`] (which fixes the status code that C callers see), the
//! [`Stage`] that failed, and a detail in one lower-case line. The detail is built from static text and from values that cannot
//! identify a person: sizes, offsets, tags, object numbers, key ids, HTTP status codes. The text of a foreign error may quote a
//! birth date out of a damaged header, so it is never copied into a detail; callers map foreign errors to a kind instead.

use std::borrow::Cow;
use std::fmt;

/// Result of every fallible function of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The part of the library in which an error arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Arguments, handles and the library itself.
    Call,
    /// Configuration keys, values and files.
    Configuration,
    /// The key store.
    Keys,
    /// The sealed study package.
    Package,
    /// Object stores and the network.
    Transfer,
    /// DICOM parsing, series and geometry.
    Dicom,
    /// De-identification.
    Deidentification,
    /// Image arithmetic.
    Imaging,
    /// Models and their runtime.
    Inference,
    /// The audit log.
    Audit,
    /// Erasure.
    Erasure,
    /// Files that hold results.
    Report,
}

impl Stage {
    /// Lower-case name, as `smp_last_error_stage` gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Call => "call",
            Stage::Configuration => "configuration",
            Stage::Keys => "keys",
            Stage::Package => "package",
            Stage::Transfer => "transfer",
            Stage::Dicom => "dicom",
            Stage::Deidentification => "deidentification",
            Stage::Imaging => "imaging",
            Stage::Inference => "inference",
            Stage::Audit => "audit",
            Stage::Erasure => "erasure",
            Stage::Report => "report",
        }
    }
}

/// Declares [`Kind`] and its table: variant, status code, C name, stage, whether a retry can help, text, hint ("" = none).
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $stage:ident, $retry:literal, $text:literal, $hint:literal;)*) => {
        /// What went wrong. Each kind has one status code, and a number is never given to another kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Kind { $(#[doc = $text] $variant,)* }

        impl Kind {
            /// Every kind, in the order of the codes' groups.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)*];

            /// Status code of the kind: negative, stable.
            pub const fn code(self) -> i32 { match self { $(Kind::$variant => $code,)* } }

            /// Name of the status constant in `smp.h`.
            pub const fn name(self) -> &'static str { match self { $(Kind::$variant => $name,)* } }

            /// Stage in which the kind arises unless the error says otherwise.
            pub const fn stage(self) -> Stage { match self { $(Kind::$variant => Stage::$stage,)* } }

            /// One sentence for people.
            pub const fn text(self) -> &'static str { match self { $(Kind::$variant => $text,)* } }

            /// What a person can do about it, when there is something.
            pub const fn hint(self) -> Option<&'static str> {
                let hint = match self { $(Kind::$variant => $hint,)* };
                if hint.is_empty() { None } else { Some(hint) }
            }

            /// Whether the same call may succeed later without any change by the caller.
            pub const fn is_transient(self) -> bool { match self { $(Kind::$variant => $retry,)* } }
        }
    };
}

kinds! {
    // -1..: the call itself
    InvalidArgument = -1, "SMP_ERR_INVALID_ARGUMENT", Call, false, "an argument is outside its range", "";
    NullArgument = -2, "SMP_ERR_NULL_ARGUMENT", Call, false, "a required argument is NULL", "";
    InvalidHandle = -3, "SMP_ERR_INVALID_HANDLE", Call, false, "the handle is not live: freed, foreign or of another type", "create the object first and free it last";
    InvalidText = -4, "SMP_ERR_INVALID_TEXT", Call, false, "the text is not valid UTF-8", "";
    BufferTooSmall = -5, "SMP_ERR_BUFFER_TOO_SMALL", Call, false, "the buffer is too small; nothing was written", "ask for the size first";
    Unsupported = -6, "SMP_ERR_UNSUPPORTED", Call, false, "not supported by this build", "smp_capabilities lists what this build can do";
    Cancelled = -7, "SMP_ERR_CANCELLED", Call, false, "cancelled by the caller", "";
    Internal = -8, "SMP_ERR_INTERNAL", Call, false, "internal error: a defect of the library", "please report it with the message";
    LimitExceeded = -9, "SMP_ERR_LIMIT_EXCEEDED", Call, false, "a configured limit was exceeded", "raise the named limits.* key if the input is trusted";
    OutOfRange = -10, "SMP_ERR_OUT_OF_RANGE", Call, false, "the index is past the end", "";
    Absent = -11, "SMP_ERR_ABSENT", Call, false, "the value is absent", "add the operation that makes it to the request";
    OutOfMemory = -12, "SMP_ERR_OUT_OF_MEMORY", Call, false, "not enough memory", "";
    FileUnreadable = -13, "SMP_ERR_FILE_UNREADABLE", Call, false, "a local file cannot be read", "";
    // -100..: configuration
    ConfigUnknownKey = -100, "SMP_ERR_CONFIG_UNKNOWN_KEY", Configuration, false, "unknown configuration key", "";
    ConfigInvalidValue = -101, "SMP_ERR_CONFIG_INVALID_VALUE", Configuration, false, "a configuration value is not valid", "";
    ConfigUnreadable = -102, "SMP_ERR_CONFIG_UNREADABLE", Configuration, false, "the configuration file cannot be read", "";
    ConfigPermissions = -103, "SMP_ERR_CONFIG_PERMISSIONS", Configuration, false, "a file that holds secrets is readable by others", "run chmod 600 on the file";
    // -200..: keys
    KeyStoreUnavailable = -200, "SMP_ERR_KEY_STORE_UNAVAILABLE", Keys, false, "the key store cannot be used", "the folder must be yours, with mode 0700, and its files 0600";
    WrongPassphrase = -201, "SMP_ERR_WRONG_PASSPHRASE", Keys, false, "the passphrase or wrapping key does not open the key store", "";
    KeyNotFound = -202, "SMP_ERR_KEY_NOT_FOUND", Keys, false, "no such key", "";
    KeyInvalid = -203, "SMP_ERR_KEY_INVALID", Keys, false, "the key is malformed, off the curve or of another type", "a P-384 public key in PEM (SubjectPublicKeyInfo) is expected";
    FingerprintMismatch = -204, "SMP_ERR_FINGERPRINT_MISMATCH", Keys, false, "the fingerprint does not match the key", "compare it again with the owner over the telephone";
    KeyUnconfirmed = -205, "SMP_ERR_KEY_UNCONFIRMED", Keys, false, "the peer's key has not been confirmed", "compare the fingerprint out of band, then confirm it";
    KeyExpired = -206, "SMP_ERR_KEY_EXPIRED", Keys, false, "the key has expired", "rotate the key and send the new public key";
    PrivateKeyMissing = -207, "SMP_ERR_PRIVATE_KEY_MISSING", Keys, false, "the store holds no private key for this id", "";
    KeyExists = -208, "SMP_ERR_KEY_EXISTS", Keys, false, "the key is already in the store", "";
    // -220..: packages
    PackageMalformed = -220, "SMP_ERR_PACKAGE_MALFORMED", Package, false, "the package is malformed", "";
    UnknownSender = -221, "SMP_ERR_UNKNOWN_SENDER", Package, false, "the package was signed by an unknown sender", "import the sender's public key and confirm its fingerprint";
    NotARecipient = -222, "SMP_ERR_NOT_A_RECIPIENT", Package, false, "the package is not sealed for any key of this store", "send your public key to the sender and ask for the study to be sealed for it";
    SignatureInvalid = -223, "SMP_ERR_SIGNATURE_INVALID", Package, false, "the sender's signature does not verify", "ask the sender to upload the package again";
    IntegrityFailed = -224, "SMP_ERR_INTEGRITY_FAILED", Package, false, "Integrity verification failed", "the object differs from what the sender signed; ask the sender to upload it again";
    PackageIncomplete = -225, "SMP_ERR_PACKAGE_INCOMPLETE", Package, false, "an object of the package is missing", "ask the sender whether the upload finished";
    NotSealed = -226, "SMP_ERR_NOT_SEALED", Package, false, "no sealed package at this path, and zero_knowledge refuses anything unsealed", "check remote_path; unsealed data need download_mode standard, asked for explicitly";
    UnsafePath = -227, "SMP_ERR_UNSAFE_PATH", Package, false, "a file name is not safe to use", "";
    SourceChanged = -228, "SMP_ERR_SOURCE_CHANGED", Package, false, "a source file changed while it was sealed", "seal the study again when nothing writes to it";
    PackageExists = -229, "SMP_ERR_PACKAGE_EXISTS", Package, false, "there is already a package at this path", "choose another remote_path";
    NothingToSeal = -230, "SMP_ERR_NOTHING_TO_SEAL", Package, false, "the source folder holds no files", "";
    CryptographyRefused = -231, "SMP_ERR_CRYPTOGRAPHY_REFUSED", Package, false, "the study is encrypted in a way that is not accepted", "docs/cms-import.md has the commands for the hospital";
    // -300..: transfer
    ConnectionRefused = -300, "SMP_ERR_CONNECTION_REFUSED", Transfer, true, "Connection refused", "check cloud.endpoint, the network and the proxy";
    CredentialsMissing = -301, "SMP_ERR_CREDENTIALS_MISSING", Transfer, false, "no usable credentials were found", "set the provider's usual environment variables or credentials file";
    AccessDenied = -302, "SMP_ERR_ACCESS_DENIED", Transfer, false, "the store denied access", "check the credentials and their rights on the bucket";
    ObjectNotFound = -303, "SMP_ERR_OBJECT_NOT_FOUND", Transfer, false, "no such object, folder or bucket in the store", "check cloud.bucket and remote_path";
    TransferTimeout = -304, "SMP_ERR_TRANSFER_TIMEOUT", Transfer, true, "the store did not answer in time", "";
    TlsFailed = -305, "SMP_ERR_TLS_FAILED", Transfer, false, "the TLS connection was refused", "behind an inspecting proxy, set cloud.ca_bundle to its certificate authority";
    ServerFailed = -306, "SMP_ERR_SERVER_FAILED", Transfer, true, "the store reported a failure of its own", "";
    ObjectChanged = -307, "SMP_ERR_OBJECT_CHANGED", Transfer, false, "the object changed while it was read", "start the study again";
    TransferInterrupted = -308, "SMP_ERR_TRANSFER_INTERRUPTED", Transfer, true, "the store sent less than it announced", "";
    ObjectExists = -309, "SMP_ERR_OBJECT_EXISTS", Transfer, false, "the object exists already", "";
    StoreUnwritable = -310, "SMP_ERR_STORE_UNWRITABLE", Transfer, false, "the store cannot be written", "";
    SpoolUnwritable = -311, "SMP_ERR_SPOOL_UNWRITABLE", Transfer, false, "the workspace cannot be written", "check the rights and the free space of workspace";
    // -400..: DICOM
    NoDicomFiles = -400, "SMP_ERR_NO_DICOM_FILES", Dicom, false, "No DICOM files found", "files are recognised by content, so no renaming is needed; check what the folder holds";
    DicomMalformed = -401, "SMP_ERR_DICOM_MALFORMED", Dicom, false, "a DICOM file is malformed", "";
    DicomHostile = -402, "SMP_ERR_DICOM_HOSTILE", Dicom, false, "a DICOM file exceeds the limits for its structure", "raise the named limits.* key only if the sender is trusted";
    TransferSyntaxUnsupported = -403, "SMP_ERR_TRANSFER_SYNTAX_UNSUPPORTED", Dicom, false, "there is no decoder for the transfer syntax", "smp_capabilities lists the decoders; convert with dcmdjpeg or gdcmconv";
    PixelsUnsupported = -404, "SMP_ERR_PIXELS_UNSUPPORTED", Dicom, false, "the pixel format is not supported", "";
    PixelsUndecodable = -405, "SMP_ERR_PIXELS_UNDECODABLE", Dicom, false, "the pixel data cannot be decoded", "";
    SliceMissing = -406, "SMP_ERR_SLICE_MISSING", Dicom, false, "slices are missing from the series", "ask the sender for the complete series";
    SliceDoubled = -407, "SMP_ERR_SLICE_DOUBLED", Dicom, false, "two slices lie at the same position", "name one series with series_uid";
    GeometryInconsistent = -408, "SMP_ERR_GEOMETRY_INCONSISTENT", Dicom, false, "the slices do not form one regular grid", "";
    GeometryMissing = -409, "SMP_ERR_GEOMETRY_MISSING", Dicom, false, "position, orientation or spacing is missing", "";
    SeriesNotFound = -410, "SMP_ERR_SERIES_NOT_FOUND", Dicom, false, "the study has no such series", "";
    // -500..: de-identification
    PatientIdMissing = -500, "SMP_ERR_PATIENT_ID_MISSING", Deidentification, false, "the patient id is missing, so no consistent pseudonym can be made", "ask the sender to fill (0010,0020)";
    SopClassQuarantined = -501, "SMP_ERR_SOP_CLASS_QUARANTINED", Deidentification, false, "an object of this SOP class cannot be de-identified", "leave such objects out of the study";
    BurnedInText = -502, "SMP_ERR_BURNED_IN_TEXT", Deidentification, false, "the pixels may carry burned-in identifiers", "leave secondary captures out of the study";
    ResidualIdentifier = -503, "SMP_ERR_RESIDUAL_IDENTIFIER", Deidentification, false, "an identifier of the input was found in the output; nothing was released", "";
    ProjectKeyMissing = -504, "SMP_ERR_PROJECT_KEY_MISSING", Deidentification, false, "the project key is not available", "";
    // -600..: imaging
    VolumeInvalid = -600, "SMP_ERR_VOLUME_INVALID", Imaging, false, "the volume holds NaN or infinite voxels, or none", "";
    VolumeConstant = -601, "SMP_ERR_VOLUME_CONSTANT", Imaging, false, "all voxels are equal, so the volume cannot be normalized", "";
    MaskEmpty = -602, "SMP_ERR_MASK_EMPTY", Imaging, false, "the mask is empty", "";
    // -700..: inference
    ModelMissing = -700, "SMP_ERR_MODEL_MISSING", Inference, false, "no model is configured for this operation", "set model_path (predict) or segment_model_path (segment), or leave the operation out";
    ModelUnreadable = -701, "SMP_ERR_MODEL_UNREADABLE", Inference, false, "the model cannot be read", "";
    ModelContract = -702, "SMP_ERR_MODEL_CONTRACT", Inference, false, "the model's contract is missing or not valid", "the contract is a JSON file beside the model, described in docs/model-contract.md";
    ModelDigest = -703, "SMP_ERR_MODEL_DIGEST", Inference, false, "the model differs from the one its contract describes", "update sha256 in the contract if the change was intended";
    RuntimeMissing = -704, "SMP_ERR_RUNTIME_MISSING", Inference, false, "the model's runtime was not found", "install ONNX Runtime and set inference.runtime_library or ORT_DYLIB_PATH to the shared library";
    RuntimeFailed = -705, "SMP_ERR_RUNTIME_FAILED", Inference, false, "the model's runtime failed", "";
    DeviceUnavailable = -706, "SMP_ERR_DEVICE_UNAVAILABLE", Inference, false, "the requested device is not available", "set device to auto or cpu";
    DeviceOutOfMemory = -707, "SMP_ERR_DEVICE_OUT_OF_MEMORY", Inference, true, "CUDA out of memory", "use a smaller inference.window or inference.batch, or device cpu";
    ModelShape = -708, "SMP_ERR_MODEL_SHAPE", Inference, false, "the model's inputs or outputs do not fit its contract", "";
    ModelPickle = -709, "SMP_ERR_MODEL_PICKLE", Inference, false, "a pickled model is refused: loading it would execute its code", "export the model to ONNX";
    InputImplausible = -710, "SMP_ERR_INPUT_IMPLAUSIBLE", Inference, false, "the study is outside what the model is for", "";
    // -800..: audit
    AuditUnwritable = -800, "SMP_ERR_AUDIT_UNWRITABLE", Audit, false, "the audit log cannot be written, so nothing was processed", "check the rights and the free space of audit_log_path";
    AuditTampered = -801, "SMP_ERR_AUDIT_TAMPERED", Audit, false, "the audit log does not verify", "keep the files as they are and compare them with the last known checkpoint";
    AuditUnreadable = -802, "SMP_ERR_AUDIT_UNREADABLE", Audit, false, "there is no audit log at this path", "";
    // -900..: erasure
    EraseFailed = -900, "SMP_ERR_ERASE_FAILED", Erasure, false, "not everything could be erased", "smp_pipeline_cleanup_report names what is left";
    EraseRefused = -901, "SMP_ERR_ERASE_REFUSED", Erasure, false, "the path must not be erased", "a link, a device, a mount point or a folder of the system is never erased";
    // -1000..: results
    OutputUnwritable = -1000, "SMP_ERR_OUTPUT_UNWRITABLE", Report, false, "the output cannot be written", "check the rights and the free space of output_path";
    OutputUnsupported = -1001, "SMP_ERR_OUTPUT_UNSUPPORTED", Report, false, "no such output format", "";
}

/// An error: what, where, why, and what to do about it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    stage: Stage,
    detail: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    retry: bool,
    source: Option<Box<Error>>,
}

impl Error {
    /// An error of a kind with a detail: one line, lower case, no full stop, nothing that identifies a person.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Error {
        Error { kind, stage: kind.stage(), detail: detail.into(), hint: None, retry: kind.is_transient(), source: None }
    }

    /// Says that the error arose in another stage than its kind suggests.
    pub fn at(mut self, stage: Stage) -> Error {
        self.stage = stage;
        self
    }

    /// Says more exactly where: the place stands before what the detail says already.
    pub(crate) fn within(mut self, place: &str) -> Error {
        self.detail = if self.detail.is_empty() { place.to_owned() } else { format!("{place}: {}", self.detail) }.into();
        self
    }

    /// Replaces the kind's hint.
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps the error that led to this one.
    pub fn caused_by(mut self, source: Error) -> Error {
        self.source = Some(Box::new(source));
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Status code, as C callers see it.
    pub fn code(&self) -> i32 {
        self.kind.code()
    }

    /// Where it went wrong.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The detail alone, without the kind's text.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref().or(self.kind.hint())
    }

    /// Whether the same call may succeed later without any change by the caller.
    pub fn is_retryable(&self) -> bool {
        self.retry
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.text())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_code_belongs_to_one_kind() {
        let mut codes: Vec<i32> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Kind::ALL.len());
        assert!(codes.iter().all(|code| *code < 0));
    }

    #[test]
    fn the_guides_words_are_the_kinds_texts() {
        for (kind, words) in [
            (Kind::NoDicomFiles, "No DICOM files found"),
            (Kind::DeviceOutOfMemory, "CUDA out of memory"),
            (Kind::ConnectionRefused, "Connection refused"),
            (Kind::IntegrityFailed, "Integrity verification failed"),
        ] {
            assert_eq!(Error::new(kind, "").to_string(), words);
            assert!(kind.hint().is_some());
        }
    }

    #[test]
    fn a_message_is_the_text_and_the_detail() {
        let error = Error::new(Kind::IntegrityFailed, "pack 3 range 17: hash differs");
        assert_eq!(error.to_string(), "Integrity verification failed: pack 3 range 17: hash differs");
        assert_eq!((error.code(), error.stage()), (-224, Stage::Package));
    }
}
