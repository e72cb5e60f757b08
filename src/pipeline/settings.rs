//! From configuration to what each stage takes. The stages know nothing of keys and files; this is the only place that does.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::pipeline::request::Request;
use crate::report::SegKind;
use crate::{deid, dicom, imaging, inference, package, transfer};

/// Everything one study's run depends on, read once at its start.
pub(super) struct StudySettings {
    pub(super) package_limits: package::Limits,
    /// Largest ordinary object, bytes.
    pub(super) object_bytes: u64,
    pub(super) dicom_limits: dicom::Limits,
    pub(super) selection: dicom::Selection,
    pub(super) geometry: dicom::Policy,
    pub(super) trusted_senders: Vec<String>,
    pub(super) deid: deid::Options,
    pub(super) recipe: imaging::Recipe,
    pub(super) runtime: inference::RuntimeOptions,
    pub(super) segment_model: Option<PathBuf>,
    pub(super) predict_model: Option<PathBuf>,
    pub(super) threshold: f64,
    pub(super) uncertain_band: f64,
    pub(super) high_risk_threshold: f64,
    pub(super) formats: Vec<String>,
    pub(super) seg_kind: SegKind,
    pub(super) auto_anonymize: bool,
}

impl StudySettings {
    /// Settings of a request: its overrides over the pipeline's configuration.
    pub(super) fn new(config: &Config, request: &Request) -> Result<StudySettings> {
        let mut config = config.clone();
        for (key, value) in &request.overrides {
            config.set(key, value)?;
        }
        config.check()?;
        Ok(StudySettings {
            package_limits: package_limits(&config)?,
            object_bytes: whole(&config, "limits.object_bytes", 4 << 30)?,
            dicom_limits: dicom_limits(&config)?,
            selection: dicom::Selection { series_uid: request.series_uid.clone(), series_description: request.series_description.clone() },
            geometry: geometry_policy(&config),
            trusted_senders: config.list("trusted_senders")?,
            deid: deid_options(&config)?,
            recipe: recipe(&config)?,
            runtime: runtime(&config)?,
            segment_model: config.path("segment_model_path")?,
            predict_model: config.path("model_path")?,
            threshold: config.real("threshold")?.unwrap_or(0.5),
            uncertain_band: config.real("uncertain_band")?.unwrap_or(0.0),
            high_risk_threshold: config.real("high_risk_threshold")?.unwrap_or(0.7),
            formats: config.list("output.formats")?,
            seg_kind: if config.text("output.segmentation").as_deref() == Some("labelmap") { SegKind::LabelMap } else { SegKind::Binary },
            auto_anonymize: config.flag("auto_anonymize")?,
        })
    }
}

/// The store that `cloud.*` names. With no provider, and with `local` and no bucket, the store is a folder of the workspace's user.
pub(super) fn store(config: &Config) -> Result<transfer::StoreSettings> {
    let provider = config.text("cloud.provider").unwrap_or_default();
    let mut bucket = config.text("cloud.bucket").unwrap_or_default();
    if provider.is_empty() || provider == "local" {
        // A local "bucket" is a folder, so `~` and variables expand in it.
        let folder = if bucket.is_empty() { PathBuf::from(".") } else { crate::config::expand(&bucket)? };
        bucket = folder
            .to_str()
            .ok_or_else(|| Error::new(Kind::ConfigInvalidValue, "cloud.bucket is not valid UTF-8 after expansion"))?
            .to_owned();
    }
    Ok(transfer::StoreSettings {
        provider,
        bucket,
        region: config.text("cloud.region"),
        endpoint: config.text("cloud.endpoint"),
        folder_id: config.text("cloud.folder_id"),
        access_token: config.text("cloud.access_token").map(|token| std::sync::Arc::new(crate::secret::Secret::new(token))),
        is_requester_pays: config.flag("cloud.requester_pays")?,
        prefix: config.text("cloud.prefix").unwrap_or_default(),
        credentials_path: config.path("cloud.credentials_path")?,
        ca_bundle: config.path("cloud.ca_bundle")?,
        proxy: config.text("cloud.proxy"),
    })
}

/// How transfers behave; the spool is added per study.
pub(super) fn client(config: &Config) -> Result<transfer::ClientSettings> {
    Ok(transfer::ClientSettings {
        parallel: whole(config, "transfer.parallel", 8)?,
        timeout: Duration::from_secs_f64(config.real("transfer.timeout_s")?.unwrap_or(30.0)),
        retries: whole(config, "transfer.retries", 5)?,
        max_bytes: whole(config, "transfer.max_bytes", 64 << 30)?,
        bytes_per_second: whole(config, "transfer.max_bytes_per_second", 0)?,
        spool: None,
    })
}

/// Limits on packages.
pub(super) fn package_limits(config: &Config) -> Result<package::Limits> {
    let default = package::Limits::default();
    Ok(package::Limits {
        files: whole(config, "limits.package_files", default.files)?,
        study_bytes: whole(config, "limits.study_bytes", default.study_bytes)?,
        header_bytes: whole(config, "limits.header_bytes", default.header_bytes)?,
        allow_sha1_kdf: config.flag("package.allow_sha1_kdf")?,
    })
}

fn dicom_limits(config: &Config) -> Result<dicom::Limits> {
    let default = dicom::Limits::default();
    Ok(dicom::Limits {
        depth: whole(config, "limits.dicom_depth", default.depth)?,
        elements: whole(config, "limits.dicom_elements", default.elements)?,
        meta_bytes: whole(config, "limits.dicom_meta_bytes", default.meta_bytes)?,
        inflate_ratio: whole(config, "limits.inflate_ratio", default.inflate_ratio)?,
        slices: whole(config, "limits.slices", default.slices)?,
        volume_bytes: whole(config, "limits.volume_bytes", default.volume_bytes)?,
    })
}

fn geometry_policy(config: &Config) -> dicom::Policy {
    let is = |key: &'static str, word: &str| config.text(key).is_some_and(|text| text == word);
    let remedy = |key| if is(key, "resample") { dicom::geometry::Remedy::Resample } else { dicom::geometry::Remedy::Refuse };
    dicom::Policy {
        tilt: remedy("geometry.tilt"),
        spacing: remedy("geometry.spacing"),
        gaps: remedy("geometry.gaps"),
        takes_largest: is("geometry.mixed", "split"),
    }
}

fn deid_options(config: &Config) -> Result<deid::Options> {
    let profile = config.text("deid.profile").unwrap_or_default();
    if !profile.is_empty() && profile != "basic" {
        return Err(Error::new(Kind::ConfigInvalidValue, "deid.profile").with_hint("valid profiles: basic; deid.options adds to it"));
    }
    let named = |key, default: &str| config.text(key).filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned());
    let date_shift = deid::DateShift::from_name(named("deid.date_shift", "patient").trim())?;
    let reason = config.text("deid.burned_in_reason").unwrap_or_default();
    let burned_in = deid::BurnedIn::from_name(named("deid.burned_in", "quarantine").trim(), &reason)?;
    let device_rules = config.path("deid.device_rules")?.map(|path| device_rules(&path)).transpose()?;
    let strictness = deid::Strictness::from_name(named("deid.strictness", "standard").trim())?;
    let keeps_mapping = config.text("deid.mapping").is_some_and(|text| text == "sealed");
    let options = deid::Options { options: config.list("deid.options")?, date_shift, burned_in, strictness, keeps_mapping, device_rules };
    options.check()?;
    Ok(options)
}

/// A file of rules may have this many bytes.
const RULES_BYTES: u64 = 4 << 20;

fn device_rules(path: &Path) -> Result<Arc<deid::DeviceRules>> {
    let unreadable = |_| Error::new(Kind::ConfigInvalidValue, "deid.device_rules names a file that cannot be read");
    let mut text = String::new();
    File::open(path).map_err(unreadable)?.take(RULES_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    deid::DeviceRules::from_json(&text).map(Arc::new)
}

/// Largest recipe that is read, one byte more than [`imaging::Recipe::from_json`] accepts.
const RECIPE_BYTES: u64 = (1 << 20) + 1;

/// The recipe of a file, or of the simple keys.
fn recipe(config: &Config) -> Result<imaging::Recipe> {
    if let Some(path) = config.path("preprocess.recipe")? {
        let unreadable = |_| Error::new(Kind::ConfigInvalidValue, "preprocess.recipe names a file that cannot be read");
        let mut bytes = Vec::new();
        File::open(path).map_err(unreadable)?.take(RECIPE_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
        return imaging::Recipe::from_json(&bytes);
    }
    let choice = |key| config.text(key).unwrap_or_else(|| "none".to_owned());
    imaging::Recipe::of(&imaging::Choices {
        bias_correction: choice("preprocess.bias_correction"),
        denoise: choice("preprocess.denoise"),
        noise_sigma: config.real("preprocess.noise_sigma")?,
        spacing_mm: config.real("preprocess.spacing_mm")?,
        interpolation: imaging::resample::Interpolation::from_name(&config.text("preprocess.interpolation").unwrap_or_default())?,
        antialias: config.flag("preprocess.antialias")?,
        normalize: choice("preprocess.normalize"),
        region: config.text("preprocess.region").unwrap_or_else(|| "all".to_owned()),
    })
}

pub(super) fn runtime(config: &Config) -> Result<inference::RuntimeOptions> {
    let window = match config.list("inference.window")?.as_slice() {
        [] => None,
        [a, b, c] => Some([window_side(a)?, window_side(b)?, window_side(c)?]),
        _ => return Err(Error::new(Kind::ConfigInvalidValue, "inference.window needs three sizes")),
    };
    let batch: usize = whole(config, "inference.batch", 0)?;
    Ok(inference::RuntimeOptions {
        device: config.text("device").unwrap_or_else(|| "auto".to_owned()),
        runtime_library: config.path("inference.runtime_library")?,
        threads: whole(config, "inference.threads", 0)?,
        window,
        overlap: config.real("inference.overlap")?,
        batch: (batch > 0).then_some(batch),
        torchscript_library: config.path("inference.torchscript_library")?,
        backend_library: config.path("inference.backend_library")?,
        device_memory_mib: config.integer("inference.device_memory_mib")?.and_then(|mib| u64::try_from(mib).ok()),
        providers: config.list("inference.providers")?,
    })
}

fn window_side(text: &str) -> Result<usize> {
    text.trim().parse().map_err(|_| Error::new(Kind::ConfigInvalidValue, "inference.window holds something that is not a size"))
}

/// A whole number of the configuration, as the type its user needs.
pub(super) fn whole<T: TryFrom<i64>>(config: &Config, key: &'static str, default: T) -> Result<T> {
    match config.integer(key)? {
        None => Ok(default),
        Some(value) => T::try_from(value).map_err(|_| Error::new(Kind::ConfigInvalidValue, format!("{key} is out of range"))),
    }
}
