//! Object stores behind one trait, and the blocking client that the rest of the crate uses.
//!
//! A store knows five things: list, head, read a range, upload, delete. Everything that makes a transfer dependable is written once,
//! in [`Client`]: ranges in parallel, retries with growing pauses, time limits, resuming from the spool, cancelling, checking each
//! range before anybody sees it. What is fetched is ciphertext; nothing in this module can decrypt it, and the spool on disk holds
//! only what the store held.
//!
//! Names of objects may name a patient (people choose them), so no error of this module quotes one.
//!
//! ```
//! use smp::control::Control;
//! use smp::transfer::{Client, ClientSettings, Replace, StoreSettings};
//!
//! let folder = std::env::temp_dir().join(format!("smp-example-{}", std::process::id()));
//! std::fs::create_dir_all(&folder).unwrap();
//! let store = StoreSettings { bucket: folder.to_string_lossy().into_owned(), ..StoreSettings::default() };
//! let client = Client::open(&store, ClientSettings::default())?;
//! let mut upload = client.upload("study/pack", Replace::Never)?;
//! upload.write(b"ciphertext".to_vec())?;
//! upload.finish()?;
//! assert_eq!(client.read_small("study/pack", 1024, &Control::new())?, b"ciphertext");
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok::<(), smp::Error>(())
//! ```

mod attempt;
mod azure;
mod client;
mod doctor;
mod dropbox;
mod fetch;
mod gcs;
mod google;
mod google_drive;
mod http;
mod https;
mod listing;
mod local;
mod meter;
mod names;
mod onedrive;
mod runtime;
mod s3;
mod secret_file;
mod session;
mod spool;
mod window;

use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use attempt::Attempt;
pub use client::{BlockingUpload, Client};
pub use doctor::{Address, Check, Checkup, Outcome, examine};
pub use meter::Meter;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// Providers that this build can talk to.
pub const PROVIDERS: &[&str] = &["local", "s3", "google_drive", "dropbox", "gcs", "azure", "onedrive", "https"];

/// Objects in one listing. A study has thousands at most; a listing past this is a mistaken path or a hostile server.
const LISTED_OBJECTS: usize = 1_000_000;

/// A boxed future, so that the trait below is dyn-compatible.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// What a store tells about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Full name in the store, `/` separated, no leading slash.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// ETag, generation or (local) inode+mtime+size: changes when the object does.
    pub version: String,
}

/// When an upload may replace an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replace {
    /// An existing object is an error (`If-None-Match: *` where the store can).
    Never,
    /// An existing object is replaced.
    Allowed,
    /// The object is replaced if it has this version (`If-Match` where the store can); otherwise the upload is `ObjectChanged`.
    Version(String),
}

/// An object store. Its futures run on the client's tokio runtime; they report progress through [`Attempt::current`] and do not retry.
pub trait ObjectStore: Send + Sync {
    /// Name of the provider, as configurations give it; a store that is none has its own.
    fn provider(&self) -> &'static str {
        "other"
    }
    /// Kind and place, without secrets: `s3://bucket`, `local:/srv/store`.
    fn describe(&self) -> String;
    /// Whether nobody on the way can read what is transferred. Sealed packages need not care; anything else must not travel otherwise.
    fn is_encrypted_in_transit(&self) -> bool {
        true
    }
    /// Where the store is on the network; `None` for one that is not.
    fn address(&self) -> Option<Address> {
        None
    }
    /// Looks for credentials and says where they were found, never what they are.
    fn credentials(&self) -> BoxFuture<'_, String> {
        Box::pin(async { Ok("none are needed".to_owned()) })
    }
    /// Objects whose name starts with `prefix`, all pages, sorted by name.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Vec<ObjectInfo>>;
    /// Size and version of one object.
    fn head<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ObjectInfo>;
    /// Bytes of a range, exactly; fails with `ObjectChanged` if `version` is given and differs.
    fn read<'a>(&'a self, name: &'a str, range: Range<u64>, version: Option<&'a str>) -> BoxFuture<'a, Vec<u8>>;
    /// Starts an upload. Nothing is visible under `name` before `finish`.
    fn upload<'a>(&'a self, name: &'a str, replace: Replace) -> BoxFuture<'a, Box<dyn Upload>>;
    /// Removes an object; absent is not an error.
    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()>;
}

/// An upload in progress.
pub trait Upload: Send {
    /// Told before the first write how many bytes there will be, where that is known: some stores must hear it first.
    fn expect(&mut self, _size: u64) {}
    /// Appends bytes (any size; the store cuts its own parts).
    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, ()>;
    /// Publishes the object.
    fn finish(self: Box<Self>) -> BoxFuture<'static, ObjectInfo>;
    /// Drops the object.
    fn abort(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Which store, from the `cloud.*` section. The pipeline fills it from the configuration.
#[derive(Clone, Default)]
pub struct StoreSettings {
    /// One of [`PROVIDERS`]; empty = local.
    pub provider: String,
    /// Bucket; for `local` the root folder (empty = the current folder).
    pub bucket: String,
    /// Region.
    pub region: Option<String>,
    /// Endpoint URL; unset means the provider's own.
    pub endpoint: Option<String>,
    /// Id of the folder that is the root, for drives that have ids.
    pub folder_id: Option<String>,
    /// Access token, for providers that take one.
    pub access_token: Option<Arc<Secret<String>>>,
    /// Whether whoever reads pays (S3).
    pub is_requester_pays: bool,
    /// Prefix put before every name.
    pub prefix: String,
    /// Provider's credentials file.
    pub credentials_path: Option<PathBuf>,
    /// Certificate authorities (PEM) for inspecting proxies.
    pub ca_bundle: Option<PathBuf>,
    /// Proxy URL.
    pub proxy: Option<String>,
}

/// How the client behaves.
#[derive(Clone)]
pub struct ClientSettings {
    /// Most ranges in flight; fewer are, where more bring nothing.
    pub parallel: usize,
    /// Time without progress after which a range is given up and retried.
    pub timeout: Duration,
    /// Retries per range.
    pub retries: u32,
    /// Largest object accepted, bytes.
    pub max_bytes: u64,
    /// Most bytes per second, both ways together; 0 = no limit.
    pub bytes_per_second: u64,
    /// Folder for the ciphertext spool; `None` = no spool.
    pub spool: Option<PathBuf>,
}

impl Default for ClientSettings {
    /// The defaults of `transfer.*`, without a spool.
    fn default() -> ClientSettings {
        ClientSettings { parallel: 8, timeout: Duration::from_secs(30), retries: 5, max_bytes: 64 << 30, bytes_per_second: 0, spool: None }
    }
}

/// One object to fetch in ranges.
pub struct FetchPlan<'a> {
    /// Name in the store.
    pub name: &'a str,
    /// Version that all ranges must have.
    pub version: &'a str,
    /// Ranges, in order of delivery; need not start at 0.
    pub ranges: &'a [Range<u64>],
    /// Key of the object in the spool (unguessable, for example package id + object name); `None` = not spooled.
    pub spool_key: Option<&'a str>,
}

/// Opens the store that the settings name.
fn open_store(store: &StoreSettings, client: &ClientSettings) -> Result<Arc<dyn ObjectStore>> {
    match store.provider.as_str() {
        "" | "local" => {
            refuse_unused(store, "local", &["cloud.bucket"])?;
            Ok(Arc::new(local::LocalStore::open(&store.bucket)?))
        }
        "s3" => {
            let used = ["cloud.bucket", "cloud.endpoint", "cloud.region", "cloud.credentials_path", "cloud.requester_pays", "cloud.proxy"];
            refuse_unused(store, "s3", &used)?;
            Ok(Arc::new(s3::S3Store::open(store, client)?))
        }
        "dropbox" => {
            let used = ["cloud.endpoint", "cloud.folder_id", "cloud.access_token", "cloud.credentials_path", "cloud.proxy"];
            refuse_unused(store, "dropbox", &used)?;
            Ok(Arc::new(dropbox::DropboxStore::open(store, client)?))
        }
        "onedrive" => {
            let used = ["cloud.bucket", "cloud.endpoint", "cloud.folder_id", "cloud.access_token", "cloud.credentials_path", "cloud.proxy"];
            refuse_unused(store, "onedrive", &used)?;
            Ok(Arc::new(onedrive::OneDriveStore::open(store, client)?))
        }
        "google_drive" => {
            let used = ["cloud.endpoint", "cloud.folder_id", "cloud.access_token", "cloud.credentials_path", "cloud.proxy"];
            refuse_unused(store, "google_drive", &used)?;
            Ok(Arc::new(google_drive::GoogleDriveStore::open(store, client)?))
        }
        "gcs" => {
            let used =
                ["cloud.bucket", "cloud.endpoint", "cloud.access_token", "cloud.credentials_path", "cloud.requester_pays", "cloud.proxy"];
            refuse_unused(store, "gcs", &used)?;
            Ok(Arc::new(gcs::GcsStore::open(store, client)?))
        }
        "azure" => {
            let used = ["cloud.bucket", "cloud.endpoint", "cloud.access_token", "cloud.credentials_path", "cloud.proxy"];
            refuse_unused(store, "azure", &used)?;
            Ok(Arc::new(azure::AzureStore::open(store, client)?))
        }
        "https" => {
            refuse_unused(store, "https", &["cloud.endpoint", "cloud.credentials_path", "cloud.proxy"])?;
            Ok(Arc::new(https::HttpsStore::open(store, client)?))
        }
        _ => Err(Error::new(Kind::ConfigInvalidValue, format!("cloud.provider must be one of {}", PROVIDERS.join(", ")))),
    }
}

/// A setting that the provider has no use for is an error: its owner believes that it does something.
fn refuse_unused(store: &StoreSettings, provider: &str, used: &[&str]) -> Result<()> {
    let present = [
        ("cloud.bucket", !store.bucket.is_empty()),
        ("cloud.region", store.region.is_some()),
        ("cloud.endpoint", store.endpoint.is_some()),
        ("cloud.folder_id", store.folder_id.is_some()),
        ("cloud.access_token", store.access_token.is_some()),
        ("cloud.credentials_path", store.credentials_path.is_some()),
        ("cloud.requester_pays", store.is_requester_pays),
        ("cloud.proxy", store.proxy.is_some()),
    ];
    match present.iter().find(|(key, is_present)| *is_present && !used.contains(key)) {
        Some((key, _)) => Err(Error::new(Kind::ConfigInvalidValue, format!("{key} means nothing to provider {provider}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(provider: &str) -> (Kind, String) {
        let settings = StoreSettings { provider: provider.into(), ..StoreSettings::default() };
        let error = Client::open(&settings, ClientSettings::default()).err().expect("must fail");
        (error.kind(), error.detail().to_owned())
    }

    #[test]
    fn an_unknown_provider_is_answered_with_the_known_ones() {
        let (kind, detail) = kind_of("s4");
        assert_eq!(kind, Kind::ConfigInvalidValue);
        for provider in ["local", "s3", "google_drive", "dropbox", "gcs", "azure", "onedrive", "https"] {
            assert!(detail.contains(provider), "{detail}");
        }
        assert!(!detail.contains("s4"), "a mistyped value may be a secret in the wrong place");
    }
}
