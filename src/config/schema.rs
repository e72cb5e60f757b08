//! The one table of configuration keys: name, type, default, what is allowed, what it is for.
//!
//! The C functions that list keys, the checks, the hints and `docs/configuration.md` all come from here. A key that is not in the table
//! does not exist.

use self::Allowed::{AboveZero, Any, Between, Device, Digits, OneOf, Shift, Sizes, SomeOf, Url, WholeBetween};

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text.
    Text,
    /// Path.
    Path,
    /// Whole number.
    Integer,
    /// Real number.
    Real,
    /// Truth value.
    Flag,
    /// List of texts.
    List,
}

/// What values a key takes, beyond its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// Whatever the type allows.
    Any,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of these words.
    SomeOf(&'static [&'static str]),
    /// A number, bounds included.
    Between(f64, f64),
    /// A whole number, bounds included.
    WholeBetween(i64, i64),
    /// A number above 0.
    AboveZero,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    Device,
    /// `patient` or `weeks:N`.
    Shift,
    /// `http://` or `https://` with a host.
    Url,
    /// So many hex digits.
    Digits(usize),
    /// So many whole numbers above 0.
    Sizes(usize),
}

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted name.
    pub name: &'static str,
    /// Type of its values.
    pub kind: Type,
    /// Default as text; empty = unset.
    pub default: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Whether the value is a secret (never answered).
    pub secret: bool,
    /// What values it takes.
    pub allowed: Allowed,
}

impl Key {
    /// The environment variable of the key: `SMP_CLOUD_BUCKET` for `cloud.bucket`.
    pub fn variable(&self) -> String {
        format!("SMP_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

/// The key of a name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Providers that a configuration may name; which of them a build has is `smp_capabilities`' to tell.
const PROVIDERS: &[&str] = &["local", "s3", "google_drive", "dropbox", "gcs", "azure", "onedrive", "https"];

const fn key(name: &'static str, kind: Type, default: &'static str, allowed: Allowed, help: &'static str) -> Key {
    Key { name, kind, default, help, secret: false, allowed }
}

const fn secret(name: &'static str, allowed: Allowed, help: &'static str) -> Key {
    Key { name, kind: Type::Text, default: "", help, secret: true, allowed }
}

/// Every key, in the order of documentation.
#[rustfmt::skip] // One key per row, as a table.
pub static KEYS: &[Key] = &[
    key("cloud.provider", Type::Text, "local", OneOf(PROVIDERS), "Kind of the object store."),
    key("cloud.bucket", Type::Text, "", Any, "Bucket or container; for local the root folder, where ~ and variables expand."),
    key("cloud.region", Type::Text, "", Any, "Region of the bucket; unset takes AWS_REGION or the profile's."),
    key("cloud.endpoint", Type::Text, "", Url, "URL of the server; unset means the provider's own. For https the folder that the objects lie in."),
    key("cloud.prefix", Type::Text, "", Any, "Folder inside the bucket in which all remote paths lie."),
    key("cloud.folder_id", Type::Text, "", Any, "Id of the shared folder, for drives that have ids."),
    key("cloud.credentials_path", Type::Path, "", Any, "Credentials file of the provider (for s3 a shared credentials file); unset takes the provider's usual chain."),
    secret("cloud.access_token", Any, "Access token, for providers that take one."),
    key("cloud.ca_bundle", Type::Path, "", Any, "Further certificate authorities in PEM, for inspecting proxies."),
    key("cloud.requester_pays", Type::Flag, "false", Any, "Whether whoever reads a bucket pays for it (s3)."),
    key("cloud.proxy", Type::Text, "", Url, "URL of the proxy; unset takes HTTPS_PROXY and HTTP_PROXY."),
    key("user_id", Type::Text, "anonymous", Any, "Who works: recorded in every line of the audit log."),
    key("protocol", Type::Text, "", Any, "Study protocol or IRB number, recorded in the audit log and in summaries."),
    key("workspace", Type::Path, "~/.smp/workspace", Any, "Folder for ciphertext of interrupted transfers, journals of interrupted sealings and locks; made with mode 0700."),
    key("encryption_key_path", Type::Path, "~/.smp/keys/master.key", Any, "Key file that wraps a key store without passphrase; made on first use."),
    key("key_store_path", Type::Path, "~/.smp/keys", Any, "Folder of the key store."),
    key("trusted_senders", Type::List, "", Any, "Key ids of the senders whose packages are opened; empty means every confirmed sender."),
    key("audit_log_path", Type::Path, "~/.smp/audit", Any, "Folder of the audit log."),
    key("model_path", Type::Path, "", Any, "Prediction model (ONNX) with its contract beside it."),
    key("segment_model_path", Type::Path, "", Any, "Segmentation model (ONNX) with its contract beside it."),
    key("device", Type::Text, "auto", Device, "Where models run; only auto falls back to the processor."),
    key("auto_anonymize", Type::Flag, "true", Any, "De-identify every study before anything else; false is recorded in result and audit log."),
    key("auto_cleanup", Type::Flag, "false", Any, "Erase the ciphertext in the workspace after each study."),
    key("threshold", Type::Real, "0.5", Between(0.0, 1.0), "Probability from which a prediction is positive."),
    key("uncertain_band", Type::Real, "0", Between(0.0, 1.0), "Distance from threshold within which a prediction is called uncertain."),
    key("high_risk_threshold", Type::Real, "0.7", Between(0.0, 1.0), "Probability above which a study counts as high risk in batch summaries."),
    key("deid.profile", Type::Text, "basic", OneOf(&["basic"]), "De-identification profile (PS3.15 Annex E)."),
    key("deid.options", Type::List, "", Any, "Options of the profile, such as retain_uids; empty means the Basic Profile alone."),
    secret("deid.project_key", Digits(64), "Key of pseudonyms and date shifts, the same for all sites of a project; unset makes one in the key store."),
    key("deid.date_shift", Type::Text, "patient", Shift, "patient shifts each patient by whole weeks of their own, weeks:N all by the same."),
    key("deid.strictness", Type::Text, "standard", OneOf(&["standard", "strict"]), "strict keeps only attributes that the standard defines for the kind of image (its IOD)."),
    key("deid.burned_in", Type::Text, "quarantine", OneOf(&["quarantine", "blackout", "allow"]), "Images whose pixels may carry text: refused, blacked out where a rule of devices says so (else refused), or let through for a reason."),
    key("deid.burned_in_reason", Type::Text, "", Any, "Why such images are let through; required by allow, recorded in the audit log, at most 200 printable ASCII characters."),
    key("deid.device_rules", Type::Path, "", Any, "JSON file of rules that say where devices write text into pixels; they come before the built-in ones."),
    key("deid.mapping", Type::Text, "none", OneOf(&["none", "sealed"]), "sealed writes old and new identifiers to output_path, sealed for the identities of the key store."),
    key("geometry.tilt", Type::Text, "resample", OneOf(&["resample", "refuse"]), "Slices of a tilted gantry: made into an upright grid, or refused."),
    key("geometry.spacing", Type::Text, "refuse", OneOf(&["refuse", "resample"]), "Slices at uneven steps: refused, or made even by interpolation between slices."),
    key("geometry.gaps", Type::Text, "refuse", OneOf(&["refuse", "resample"]), "Missing slices: refused, or interpolated from their neighbours."),
    key("geometry.mixed", Type::Text, "refuse", OneOf(&["refuse", "split"]), "Several stacks in one series (localizers, orientations, matrices): refused, or the largest is taken."),
    key("preprocess.recipe", Type::Path, "", Any, "JSON file with the steps of preprocessing, in order and with parameters; the other preprocess.* keys are then not read."),
    key("preprocess.normalize", Type::Text, "zscore", OneOf(&["none", "zscore", "minmax", "white_stripe"]), "Intensities after clipping to the 0.5 and 99.5 percentiles: mean 0 and deviation 1, or 0 to 1; white_stripe is for T1-weighted MR."),
    key("preprocess.region", Type::Text, "all", OneOf(&["all", "nonzero", "foreground"]), "Voxels that the statistics of zscore and of the clipping are taken from."),
    key("preprocess.denoise", Type::Text, "none", OneOf(&["none", "nlm", "nlm_blockwise", "gaussian", "median", "gradient_diffusion", "curvature_diffusion", "total_variation"]), "Denoising; nlm is non-local means, of volumes without negative voxels."),
    key("preprocess.noise_sigma", Type::Real, "", AboveZero, "Standard deviation of the noise for nlm, in the voxels' unit; unset estimates it."),
    key("preprocess.bias_correction", Type::Text, "none", OneOf(&["none", "n4"]), "Correction of the bias field of MR images; n4 is N4ITK at full resolution."),
    key("preprocess.spacing_mm", Type::Real, "", AboveZero, "Isotropic spacing to resample to, in mm; unset keeps the grid."),
    key("preprocess.interpolation", Type::Text, "linear", OneOf(&["nearest", "linear", "bspline"]), "How values between voxels are found when resampling; masks always take the nearest."),
    key("preprocess.antialias", Type::Flag, "false", Any, "Whether axes whose spacing grows are smoothed before resampling."),
    key("inference.runtime_library", Type::Path, "", Any, "Shared library of ONNX Runtime; unset searches ORT_DYLIB_PATH and the usual places."),
    key("inference.torchscript_library", Type::Path, "", Any, "Shared library of the TorchScript backend; unset searches SMP_TORCHSCRIPT_LIBRARY and beside this library."),
    key("inference.backend_library", Type::Path, "", Any, "Shared library of a backend for model files of another format (smp_backend.h)."),
    key("inference.threads", Type::Integer, "", WholeBetween(0, 4096), "Threads of the runtime; 0 or unset means all processors."),
    key("inference.window", Type::List, "", Sizes(3), "Sliding window in voxels, in the model's axis order; unset takes the contract's."),
    key("inference.overlap", Type::Real, "", Between(0.0, 0.95), "Overlap of windows; unset takes the contract's."),
    key("inference.device_memory_mib", Type::Integer, "", WholeBetween(1, 1 << 20), "Most memory that a model may take on a CUDA device, MiB; unset means all."),
    key("inference.providers", Type::List, "", SomeOf(&["tensorrt", "cuda"]), "Execution providers that are offered the model on a CUDA device, in order; cuda is always the last."),
    key("inference.batch", Type::Integer, "", WholeBetween(1, 1024), "Windows per run of the model; unset takes the contract's."),
    key("package.allow_sha1_kdf", Type::Flag, "false", Any, "Open studies in CMS whose key was derived with SHA-1, the default of openssl cms without -keyopt ecdh_kdf_md."),
    key("transfer.parallel", Type::Integer, "8", WholeBetween(1, 64), "Ranges of an object in flight."),
    key("transfer.timeout_s", Type::Real, "30", Between(0.1, 3600.0), "Seconds without progress after which a request is given up and tried again."),
    key("transfer.retries", Type::Integer, "5", WholeBetween(0, 100), "Retries of a range after transient failures."),
    key("transfer.max_bytes_per_second", Type::Integer, "0", WholeBetween(0, i64::MAX), "Most bytes per second, both ways together; 0 sets no limit."),
    key("transfer.max_bytes", Type::Integer, "68719476736", WholeBetween(1, i64::MAX), "Largest object that is fetched, in bytes (64 GiB)."),
    key("output.formats", Type::List, "json,npy,nifti,png", SomeOf(&["json", "npy", "nifti", "png", "seg", "sr", "dicom"]), "What is written to output_path; seg is the mask and sr the numbers as DICOM objects, dicom the de-identified series."),
    key("output.segmentation", Type::Text, "binary", OneOf(&["binary", "labelmap"]), "How the DICOM object holds a mask: a bit for each label, or a byte for each pixel."),
    key("limits.object_bytes", Type::Integer, "4294967296", WholeBetween(1, i64::MAX), "Largest unsealed object that is read into memory, in bytes (4 GiB)."),
    key("limits.package_files", Type::Integer, "100000", WholeBetween(1, i64::MAX), "Files in one package."),
    key("limits.study_bytes", Type::Integer, "68719476736", WholeBetween(1, i64::MAX), "Plaintext bytes of one study (64 GiB)."),
    key("limits.header_bytes", Type::Integer, "1048576", WholeBetween(1, 1_048_576), "Bytes of a package's header; the format allows 1 MiB."),
    key("limits.dicom_depth", Type::Integer, "32", WholeBetween(1, 1024), "Nesting depth of DICOM sequences."),
    key("limits.dicom_elements", Type::Integer, "1000000", WholeBetween(1, i64::MAX), "Elements in one DICOM file, all depths."),
    key("limits.dicom_meta_bytes", Type::Integer, "65536", WholeBetween(1, i64::MAX), "Bytes of a DICOM file's meta information."),
    key("limits.inflate_ratio", Type::Integer, "100", WholeBetween(1, i64::MAX), "Inflated over deflated size."),
    key("limits.slices", Type::Integer, "65536", WholeBetween(1, i64::MAX), "Slices of one series."),
    key("limits.volume_bytes", Type::Integer, "17179869184", WholeBetween(1, i64::MAX), "Bytes of one decoded volume (16 GiB)."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The list at the end of the C API's design, which bindings and files are written against, and what was added since.
    const PROMISED: &[&str] = &[
        "cloud.provider",
        "cloud.bucket",
        "cloud.region",
        "cloud.endpoint",
        "cloud.prefix",
        "cloud.folder_id",
        "cloud.credentials_path",
        "cloud.access_token",
        "cloud.ca_bundle",
        "cloud.requester_pays",
        "cloud.proxy",
        "user_id",
        "protocol",
        "workspace",
        "encryption_key_path",
        "key_store_path",
        "trusted_senders",
        "audit_log_path",
        "model_path",
        "segment_model_path",
        "device",
        "auto_anonymize",
        "auto_cleanup",
        "threshold",
        "uncertain_band",
        "high_risk_threshold",
        "deid.profile",
        "deid.options",
        "deid.project_key",
        "deid.date_shift",
        "deid.strictness",
        "deid.burned_in",
        "deid.burned_in_reason",
        "deid.device_rules",
        "deid.mapping",
        "geometry.tilt",
        "geometry.spacing",
        "geometry.gaps",
        "geometry.mixed",
        "preprocess.recipe",
        "preprocess.normalize",
        "preprocess.region",
        "preprocess.denoise",
        "preprocess.noise_sigma",
        "preprocess.bias_correction",
        "preprocess.spacing_mm",
        "preprocess.interpolation",
        "preprocess.antialias",
        "inference.runtime_library",
        "inference.torchscript_library",
        "inference.backend_library",
        "inference.threads",
        "inference.window",
        "inference.overlap",
        "inference.device_memory_mib",
        "inference.providers",
        "inference.batch",
        "package.allow_sha1_kdf",
        "transfer.parallel",
        "transfer.timeout_s",
        "transfer.retries",
        "transfer.max_bytes_per_second",
        "transfer.max_bytes",
        "output.formats",
        "output.segmentation",
    ];

    #[test]
    fn the_keys_are_those_that_were_promised_and_limits() {
        let names: Vec<&str> = KEYS.iter().map(|key| key.name).filter(|name| !name.starts_with("limits.")).collect();
        assert_eq!(names, PROMISED);
    }

    #[test]
    fn a_name_and_a_variable_belong_to_one_key() {
        let variables: BTreeSet<String> = KEYS.iter().map(Key::variable).collect();
        let names: BTreeSet<&str> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!((variables.len(), names.len()), (KEYS.len(), KEYS.len()));
        assert_eq!(find("cloud.bucket").unwrap().variable(), "SMP_CLOUD_BUCKET");
        // A name that is also the beginning of another could not be nested in JSON.
        assert!(names.iter().all(|name| !names.iter().any(|other| other.starts_with(&format!("{name}.")))));
    }

    #[test]
    fn the_secrets_are_the_token_and_the_project_key() {
        let secrets: Vec<&str> = KEYS.iter().filter(|key| key.secret).map(|key| key.name).collect();
        assert_eq!(secrets, ["cloud.access_token", "deid.project_key"]);
    }
}
