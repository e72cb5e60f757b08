//! The blocking client: what the rest of the crate sees of object stores.
//!
//! Callers are ordinary threads. Each call runs on the network's own threads, is retried there, and can be cancelled from anywhere. Names
//! go out with the configured prefix in front and come back without it.

use std::path::Path;
use std::sync::Arc;

use super::attempt::{Attempt, Patience};
use super::meter::Meter;
use super::runtime::Runtime;
use super::{
    Address, ClientSettings, FetchPlan, LISTED_OBJECTS, ObjectInfo, ObjectStore, Replace, StoreSettings, Upload, fetch, open_store, spool,
};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};

/// Longest name of an object, in bytes: S3's limit, and shorter than any file system's.
const NAME_BYTES: usize = 1024;

/// Blocking client over a store; owns (a share of) the network runtime. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub store: Arc<dyn ObjectStore>,
    pub settings: ClientSettings,
    pub patience: Patience,
    pub meter: Arc<Meter>,
    /// Empty, or ends with a slash.
    prefix: String,
    // Last, so that the store's connections are gone before the threads that drive them.
    pub runtime: Arc<Runtime>,
}

impl Client {
    /// Opens the configured store.
    pub fn open(store: &StoreSettings, settings: ClientSettings) -> Result<Client> {
        let prefix = match store.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        // Held, so that what opening the store starts lives on in the client's own share.
        let _runtime = Runtime::shared()?;
        Client::with(open_store(store, &settings)?, settings, prefix)
    }

    /// A client over a store made elsewhere (tests, plug-ins).
    pub fn over(store: Arc<dyn ObjectStore>, settings: ClientSettings) -> Result<Client> {
        Client::with(store, settings, String::new())
    }

    fn with(store: Arc<dyn ObjectStore>, settings: ClientSettings, prefix: String) -> Result<Client> {
        if settings.parallel == 0 || settings.timeout.is_zero() {
            return Err(Error::new(Kind::InvalidArgument, "transfer.parallel and transfer.timeout_s must be above 0").at(Stage::Transfer));
        }
        if let Some(folder) = &settings.spool {
            spool::prepare(folder)?;
        }
        let patience = Patience::new(settings.retries, settings.timeout);
        let meter = Arc::new(Meter::new(settings.bytes_per_second));
        Ok(Client { inner: Arc::new(Inner { store, settings, patience, meter, prefix, runtime: Runtime::shared()? }) })
    }

    /// The same store for another study: its ciphertext has a folder of its own (or none), and its traffic is counted from 0.
    pub fn with_spool(&self, spool: Option<std::path::PathBuf>) -> Result<Client> {
        if let Some(folder) = &spool {
            spool::prepare(folder)?;
        }
        let inner = &self.inner;
        Ok(Client {
            inner: Arc::new(Inner {
                store: Arc::clone(&inner.store),
                settings: ClientSettings { spool, ..inner.settings.clone() },
                patience: inner.patience,
                meter: Arc::new(inner.meter.another()),
                prefix: inner.prefix.clone(),
                runtime: Arc::clone(&inner.runtime),
            }),
        })
    }

    /// See [`ObjectStore::describe`].
    pub fn describe(&self) -> String {
        self.inner.store.describe()
    }

    /// Name of the provider, as configurations give it.
    pub fn provider(&self) -> &'static str {
        self.inner.store.provider()
    }

    /// What went over the line so far, through this client and its clones.
    pub fn meter(&self) -> &Meter {
        &self.inner.meter
    }

    /// See [`ObjectStore::is_encrypted_in_transit`].
    pub fn is_encrypted_in_transit(&self) -> bool {
        self.inner.store.is_encrypted_in_transit()
    }

    /// See [`ObjectStore::address`].
    pub fn address(&self) -> Option<Address> {
        self.inner.store.address()
    }

    /// See [`ObjectStore::credentials`].
    pub fn credentials(&self, control: &Control) -> Result<String> {
        self.call(control, |store| async move { store.credentials().await })
    }

    /// All objects of a folder (with or without trailing slash), sorted by name; twins such as `a/bc` for `a/b` are not in it. The
    /// empty folder is the whole store. A folder that does not exist has no objects.
    pub fn list(&self, folder: &str, control: &Control) -> Result<Vec<ObjectInfo>> {
        let folder = folder.trim_end_matches('/');
        let prefix = match folder {
            "" => self.inner.prefix.clone(),
            folder => format!("{}/", self.full_name(folder)?),
        };
        let asked = prefix.clone();
        let found = self.call(control, move |store| {
            let prefix = asked.clone();
            async move { store.list(&prefix).await }
        })?;
        if found.len() > LISTED_OBJECTS {
            return Err(Error::new(Kind::LimitExceeded, format!("a folder of more than {LISTED_OBJECTS} objects")).at(Stage::Transfer));
        }
        // Stores match text, not folders. Names that end with a slash are the empty place holders that web consoles leave.
        let mut objects: Vec<ObjectInfo> = found
            .into_iter()
            .filter(|object| object.name.starts_with(&prefix) && !object.name.ends_with('/'))
            .map(|object| ObjectInfo { name: object.name.get(self.inner.prefix.len()..).unwrap_or_default().to_owned(), ..object })
            .collect();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// Size and version.
    pub fn head(&self, name: &str, control: &Control) -> Result<ObjectInfo> {
        let full = self.full_name(name)?;
        let object = self.call(control, move |store| {
            let full = full.clone();
            async move { store.head(&full).await }
        })?;
        Ok(ObjectInfo { name: name.to_owned(), ..object })
    }

    /// A whole small object of at most `limit` bytes.
    pub fn read_small(&self, name: &str, limit: u64, control: &Control) -> Result<Vec<u8>> {
        self.read_object(name, limit, control).map(|(_, bytes)| bytes)
    }

    /// A whole small object of at most `limit` bytes, and the version that the bytes are.
    pub fn read_object(&self, name: &str, limit: u64, control: &Control) -> Result<(ObjectInfo, Vec<u8>)> {
        let object = self.head(name, control)?;
        if object.size > limit {
            let detail = format!("object of {} bytes where at most {limit} are expected", object.size);
            return Err(Error::new(Kind::LimitExceeded, detail).at(Stage::Transfer));
        }
        if object.size == 0 {
            return Ok((object, Vec::new()));
        }
        let bytes = self.inner.read(&self.full_name(name)?, 0..object.size, &object.version, &|| control.is_cancelled())?;
        Ok((object, bytes))
    }

    /// Fetches ranges in parallel with retries. Each is checked by `verify` (range index, bytes) before it is spooled or delivered; a
    /// range that fails the check is fetched again once, then the error of `verify` is returned. `deliver` gets the ranges in plan order, on the
    /// calling thread. Ranges found valid in the spool are not fetched again.
    ///
    /// At most `parallel + 2` ranges are in memory, the one being delivered included. Once an error is returned, what was delivered
    /// before it must be thrown away by the caller.
    pub fn fetch(
        &self,
        plan: &FetchPlan<'_>,
        verify: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync),
        deliver: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>,
        control: &Control,
    ) -> Result<()> {
        let full = self.full_name(plan.name)?;
        fetch::fetch(&self.inner, &[(full, plan)], verify, deliver, control)
    }

    /// Fetches the ranges of several objects, as [`Client::fetch`] does those of one: the next object begins before the last has arrived.
    /// `deliver` gets the ranges of the first object, then those of the second, and so on; their numbers go through.
    pub fn fetch_all(
        &self,
        plans: &[FetchPlan<'_>],
        deliver: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>,
        control: &Control,
    ) -> Result<()> {
        let plans = plans.iter().map(|plan| Ok((self.full_name(plan.name)?, plan))).collect::<Result<Vec<_>>>()?;
        fetch::fetch(&self.inner, &plans, &|_, _| Ok(()), deliver, control)
    }

    /// Starts a blocking upload.
    pub fn upload(&self, name: &str, replace: Replace) -> Result<BlockingUpload> {
        let full = self.full_name(name)?;
        let upload = self.call(&Control::new(), move |store| {
            let (full, replace) = (full.clone(), replace.clone());
            async move { store.upload(&full, replace).await }
        })?;
        Ok(BlockingUpload {
            upload: Some(upload),
            name: name.to_owned(),
            meter: Arc::clone(&self.inner.meter),
            control: Control::new(),
            runtime: Arc::clone(&self.inner.runtime),
        })
    }

    /// Removes an object.
    pub fn delete(&self, name: &str) -> Result<()> {
        let full = self.full_name(name)?;
        self.call(&Control::new(), move |store| {
            let full = full.clone();
            async move { store.delete(&full).await }
        })
    }

    /// Folder of the spool.
    pub fn spool(&self) -> Option<&Path> {
        self.inner.settings.spool.as_deref()
    }

    /// The same client without pauses between retries.
    #[cfg(test)]
    pub(super) fn without_pauses(self) -> Client {
        let mut inner = Arc::into_inner(self.inner).expect("a fresh client is not shared");
        inner.patience.backoff = std::time::Duration::ZERO;
        Client { inner: Arc::new(inner) }
    }

    /// The name in the store. Stores have their own rules; these hold for all.
    fn full_name(&self, name: &str) -> Result<String> {
        let full = format!("{}{name}", self.inner.prefix);
        let fault = match () {
            () if name.is_empty() => "is empty",
            () if name.starts_with('/') => "starts with a slash",
            () if name.ends_with('/') => "ends with a slash",
            () if full.len() > NAME_BYTES => "is longer than 1024 bytes",
            () if full.chars().any(char::is_control) => "holds a control character",
            () => return Ok(full),
        };
        Err(Error::new(Kind::UnsafePath, format!("the name of an object {fault}")).at(Stage::Transfer))
    }

    /// Runs one operation with retries.
    fn call<T, F>(&self, control: &Control, mut operation: impl FnMut(Arc<dyn ObjectStore>) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (store, patience, meter) = (Arc::clone(&self.inner.store), self.inner.patience, Arc::clone(&self.inner.meter));
        let retried = async move { patience.retry(&meter, || operation(Arc::clone(&store))).await };
        self.inner.runtime.run(&|| control.is_cancelled(), retried)
    }
}

impl Inner {
    /// Reads one range with retries; the answer has exactly the length asked for.
    pub fn read(&self, name: &str, range: std::ops::Range<u64>, version: &str, stop: &dyn Fn() -> bool) -> Result<Vec<u8>> {
        let (store, patience, meter) = (Arc::clone(&self.store), self.patience, Arc::clone(&self.meter));
        let (name, version) = (name.to_owned(), version.to_owned());
        let length = range.end.saturating_sub(range.start);
        self.runtime.run(stop, async move {
            patience
                .retry(&meter, || async {
                    let bytes = store.read(&name, range.clone(), Some(&version)).await?;
                    if u64::try_from(bytes.len()) == Ok(length) {
                        return Ok(bytes);
                    }
                    Err(Error::new(Kind::TransferInterrupted, format!("{} bytes came where {length} were asked for", bytes.len())))
                })
                .await
        })
    }
}

/// An upload driven from ordinary threads. Dropping it unfinished aborts it.
pub struct BlockingUpload {
    /// `None` once finished, aborted or lost to a failure inside the store.
    upload: Option<Box<dyn Upload>>,
    name: String,
    meter: Arc<Meter>,
    control: Control,
    runtime: Arc<Runtime>,
}

impl BlockingUpload {
    /// The same upload, which a cancel ends at once.
    pub fn watched_by(mut self, control: &Control) -> BlockingUpload {
        self.control = control.clone();
        self
    }

    /// The same upload, of exactly so many bytes; said before the first write, so that no store must hold the object in memory.
    pub fn of_size(mut self, size: u64) -> BlockingUpload {
        if let Some(upload) = &mut self.upload {
            upload.expect(size);
        }
        self
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        let mut upload = self.upload.take().ok_or_else(lost)?;
        let meter = Arc::clone(&self.meter);
        // The upload travels to the network's threads and back, together with how it fared.
        let (upload, outcome) = self.runtime.run(&|| self.control.is_cancelled(), async move {
            let outcome = Attempt::metered(&meter, upload.write(bytes)).await;
            Ok((upload, outcome))
        })?;
        self.upload = Some(upload);
        outcome
    }

    /// Publishes the object.
    pub fn finish(mut self) -> Result<ObjectInfo> {
        let upload = self.upload.take().ok_or_else(lost)?;
        let meter = Arc::clone(&self.meter);
        let object = self.runtime.run(&|| self.control.is_cancelled(), async move { Attempt::metered(&meter, upload.finish()).await })?;
        Ok(ObjectInfo { name: std::mem::take(&mut self.name), ..object })
    }
}

impl Drop for BlockingUpload {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            // What cannot be aborted now is left to the store's own rule for unfinished uploads; it is invisible and encrypted.
            let _ = self.runtime.run(&|| false, async move { upload.abort().await });
        }
    }
}

fn lost() -> Error {
    Error::new(Kind::Internal, "the upload failed before").at(Stage::Transfer)
}
