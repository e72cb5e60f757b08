//! OneDrive and the libraries of SharePoint, by version 1.0 of Microsoft Graph.
//!
//! An object is a file; its version is Graph's `cTag`, which changes with the content and not when somebody shares or moves the file.
//! Graph serves contents from other hosts, under addresses that say nothing about versions. So a range is read between two looks at the
//! file: if the version is the same after the bytes came, they are its bytes.
//!
//! OneDrive takes no account of case in names. Two objects whose names differ in case only are one object there.

mod errors;
mod graph;
mod hash;
mod list;
mod names;
mod upload;

use std::ops::Range;
use std::sync::Arc;

use self::graph::{Drive, Item};
use super::http::{Call, Doing, range_header, total_of};
use super::listing::nonsense;
use super::{Address, BoxFuture, ClientSettings, ObjectInfo, ObjectStore, Replace, StoreSettings, Upload};
use crate::error::{Error, Kind, Result};

/// A drive, or a folder of one.
pub(super) struct OneDriveStore {
    drive: Arc<Drive>,
}

impl OneDriveStore {
    /// Reads the credentials. Nothing is sent yet.
    pub fn open(store: &StoreSettings, client: &ClientSettings) -> Result<OneDriveStore> {
        Ok(OneDriveStore { drive: Arc::new(Drive::open(store, client)?) })
    }
}

impl ObjectStore for OneDriveStore {
    fn provider(&self) -> &'static str {
        "onedrive"
    }

    fn describe(&self) -> String {
        "onedrive".to_owned()
    }

    fn is_encrypted_in_transit(&self) -> bool {
        self.drive.is_tls()
    }

    fn address(&self) -> Option<Address> {
        Some(self.drive.address())
    }

    fn credentials(&self) -> BoxFuture<'_, String> {
        Box::pin(self.drive.credentials())
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Vec<ObjectInfo>> {
        Box::pin(list::list(&self.drive, prefix))
    }

    fn head<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ObjectInfo> {
        Box::pin(async move { look(&self.drive, name).await?.object(name) })
    }

    fn read<'a>(&'a self, name: &'a str, range: Range<u64>, version: Option<&'a str>) -> BoxFuture<'a, Vec<u8>> {
        Box::pin(read(&self.drive, name, range, version))
    }

    fn upload<'a>(&'a self, name: &'a str, replace: Replace) -> BoxFuture<'a, Box<dyn Upload>> {
        Box::pin(upload::start(&self.drive, name, replace))
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match look(&self.drive, name).await {
                Ok(found) => delete(&self.drive, &found).await,
                Err(error) if error.kind() == Kind::ObjectNotFound => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}

/// The file of a name. A folder is no object.
async fn look(drive: &Drive, name: &str) -> Result<Item> {
    names::check(name)?;
    // All fields: the address of the content is told only where nothing is picked.
    let found = drive.ask::<Item>(Doing::Reading, &drive.item(name)).await?;
    found.filter(|item| item.file.is_some()).ok_or_else(|| Error::new(Kind::ObjectNotFound, ""))
}

async fn read(drive: &Drive, name: &str, range: Range<u64>, version: Option<&str>) -> Result<Vec<u8>> {
    let Some(header) = range_header(&range) else { return Ok(Vec::new()) };
    let changed = || Error::new(Kind::ObjectChanged, "");
    let item = look(drive, name).await?;
    let object = item.object(name)?;
    if version.is_some_and(|version| version != object.version) {
        return Err(changed());
    }
    if range.end > object.size {
        return Err(Error::new(Kind::ObjectChanged, format!("the range ends past the object of {} bytes", object.size)));
    }
    let link = drive.checked_link(item.download_url.ok_or_else(|| nonsense("an object without the address of its content"))?)?;
    let answer = drive.send_openly(Doing::Reading, Call::new("GET", link).header("range", header)).await?;
    let answer = answer.map_err(|refusal| refusal.error())?;
    let total = total_of(answer.header("content-range").unwrap_or_default(), &range)?;
    if answer.status != 206 {
        return Err(Error::new(Kind::TransferInterrupted, "the store sent another range than it was asked for"));
    }
    let bytes = answer.range(range.end - range.start).await?;
    if total != object.size || look(drive, name).await?.version() != Some(object.version.as_str()) {
        return Err(changed());
    }
    Ok(bytes)
}

/// Removes a file if it is still the one that was seen. By its name alone Graph would remove a folder too, with all that is in it.
async fn delete(drive: &Drive, item: &Item) -> Result<()> {
    if item.id.is_empty() {
        return Err(nonsense("an object without an id"));
    }
    let call = Call::new("DELETE", drive.by_id(&item.id)).header_if("if-match", item.version());
    match drive.send(Doing::Writing, call).await? {
        Ok(_) => Ok(()),
        Err(refusal) if refusal.status == 404 => Ok(()),
        Err(refusal) if refusal.status == 412 => Err(Error::new(Kind::ServerFailed, "somebody else writes the object")),
        Err(refusal) => Err(refusal.error()),
    }
}
