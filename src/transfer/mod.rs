//! Object stores behind one trait, and the blocking client that the rest of the crate uses.
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// An existing object is an error (`If-None-Match: *` where the store can).
    Never,
    /// An existing object is replaced.
    Allowed,
}
/// An object store.
pub trait ObjectStore: Send + Sync {
    /// Kind and place, without secrets: `s3://bucket`, `local:/srv/store`.
    fn describe(&self) -> String;
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
    /// `local` or `s3` (others follow); empty = local.
    pub provider: String,
    /// Bucket; for `local` the root folder.
    pub bucket: String,
    /// Region.
    pub region: Option<String>,
    /// Endpoint URL.
    pub endpoint: Option<String>,
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
    /// Ranges in flight.
    pub parallel: usize,
    /// Time without progress after which a range is given up and retried.
    pub timeout: Duration,
    /// Retries per range.
    pub retries: u32,
    /// Largest object accepted, bytes.
    pub max_bytes: u64,
    /// Folder for the ciphertext spool; `None` = no spool.
    pub spool: Option<PathBuf>,
}
/// Blocking client over a store; owns (a share of) the network runtime. Cheap to clone.
#[derive(Clone)]
pub struct Client {}
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
fn stub<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "stub"))
}
impl Client {
    /// Opens the configured store.
    pub fn open(_store: &StoreSettings, _settings: ClientSettings) -> Result<Client> {
        stub()
    }
    /// A client over a store made elsewhere (tests, plug-ins).
    pub fn over(_store: Arc<dyn ObjectStore>, _settings: ClientSettings) -> Result<Client> {
        stub()
    }
    /// See [`ObjectStore::describe`].
    pub fn describe(&self) -> String {
        String::new()
    }
    /// All objects of a folder (with or without trailing slash); twins such as `a/bc` for `a/b` are not in it.
    pub fn list(&self, _folder: &str, _control: &Control) -> Result<Vec<ObjectInfo>> {
        stub()
    }
    /// Size and version.
    pub fn head(&self, _name: &str, _control: &Control) -> Result<ObjectInfo> {
        stub()
    }
    /// A whole small object of at most `limit` bytes.
    pub fn read_small(&self, _name: &str, _limit: u64, _control: &Control) -> Result<Vec<u8>> {
        stub()
    }
    /// Fetches ranges in parallel with retries. Each is checked by `verify` (range index, bytes) before it is spooled or delivered; a
    /// range that fails the check is fetched again once, then the error of `verify` is returned. `deliver` gets the ranges in plan order, on the
    /// calling thread. Ranges found valid in the spool are not fetched again.
    pub fn fetch(
        &self,
        _plan: &FetchPlan<'_>,
        _verify: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync),
        _deliver: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>,
        _control: &Control,
    ) -> Result<()> {
        stub()
    }
    /// Starts a blocking upload.
    pub fn upload(&self, _name: &str, _replace: Replace) -> Result<BlockingUpload> {
        stub()
    }
    /// Removes an object.
    pub fn delete(&self, _name: &str) -> Result<()> {
        stub()
    }
    /// Folder of the spool.
    pub fn spool(&self) -> Option<&Path> {
        None
    }
}
/// An upload driven from ordinary threads. Dropping it unfinished aborts it.
pub struct BlockingUpload {}
impl BlockingUpload {
    /// Appends bytes.
    pub fn write(&mut self, _bytes: Vec<u8>) -> Result<()> {
        stub()
    }
    /// Publishes the object.
    pub fn finish(self) -> Result<ObjectInfo> {
        stub()
    }
}
