//! Google Drive: a person's drive, folders that somebody shared, shared drives; by version 3 of Drive's API.
//!
//! An object is a file; its version is the file's head revision. Revisions can be read by writers only, so a reader gets what the file
//! is at that moment: each range is followed by a look at the file, and if the version is still the one asked for, the bytes are its bytes.
//!
//! Drive has no conditions. Whether a name is free is looked at before and after an upload; a file that turns out to be the second of its name
//! goes into the bin again.

mod account;
mod errors;
mod list;
mod upload;

use std::ops::Range;
use std::sync::Arc;

use self::account::{Account, Item, check};
use super::http::{Call, Doing, range_header, total_of};
use super::{Address, BoxFuture, ClientSettings, ObjectInfo, ObjectStore, Replace, StoreSettings, Upload};
use crate::error::{Error, Kind, Result};

/// A folder of a drive.
pub(super) struct GoogleDriveStore {
    account: Arc<Account>,
}

impl GoogleDriveStore {
    /// Reads the credentials. Nothing is sent yet.
    pub fn open(store: &StoreSettings, client: &ClientSettings) -> Result<GoogleDriveStore> {
        Ok(GoogleDriveStore { account: Arc::new(Account::open(store, client)?) })
    }
}

impl ObjectStore for GoogleDriveStore {
    fn provider(&self) -> &'static str {
        "google_drive"
    }

    fn describe(&self) -> String {
        "google_drive".to_owned()
    }

    fn is_encrypted_in_transit(&self) -> bool {
        self.account.is_tls()
    }

    fn address(&self) -> Option<Address> {
        Some(self.account.address())
    }

    fn credentials(&self) -> BoxFuture<'_, String> {
        Box::pin(self.account.credentials())
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Vec<ObjectInfo>> {
        Box::pin(list::list(&self.account, prefix))
    }

    fn head<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ObjectInfo> {
        Box::pin(async move { find(&self.account, name).await?.object(name) })
    }

    fn read<'a>(&'a self, name: &'a str, range: Range<u64>, version: Option<&'a str>) -> BoxFuture<'a, Vec<u8>> {
        Box::pin(async move {
            let read = read(&self.account, name, range, version).await;
            // Where the file is may have changed with it.
            if read.is_err() {
                self.account.forget(name);
            }
            read
        })
    }

    fn upload<'a>(&'a self, name: &'a str, replace: Replace) -> BoxFuture<'a, Box<dyn Upload>> {
        Box::pin(upload::start(&self.account, name, replace))
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.account.forget(name);
            match self.account.find(name).await? {
                Some(item) => self.account.trash(&item.id).await,
                None => Ok(()),
            }
        })
    }
}

/// The file of a name.
async fn find(account: &Account, name: &str) -> Result<Item> {
    account.find(name).await?.ok_or_else(|| Error::new(Kind::ObjectNotFound, ""))
}

async fn read(account: &Account, name: &str, range: Range<u64>, version: Option<&str>) -> Result<Vec<u8>> {
    check(name)?;
    let Some(header) = range_header(&range) else { return Ok(Vec::new()) };
    let changed = || Error::new(Kind::ObjectChanged, "");
    let item = match version.and_then(|version| account.known(name, version)) {
        Some(item) => item,
        None => find(account, name).await?,
    };
    let object = item.object(name)?;
    if version.is_some_and(|version| version != object.version) {
        return Err(changed());
    }
    if range.end > object.size {
        return Err(Error::new(Kind::ObjectChanged, format!("the range ends past the object of {} bytes", object.size)));
    }
    let call = Call::new("GET", account.file(&item.id, "alt=media")).header("range", header);
    let answer = account.send(Doing::Reading, call).await?.map_err(|refusal| refusal.error())?;
    let total = total_of(answer.header("content-range").unwrap_or_default(), &range)?;
    if answer.status != 206 {
        return Err(Error::new(Kind::TransferInterrupted, "the store sent another range than it was asked for"));
    }
    let bytes = answer.range(range.end - range.start).await?;
    let now = account.look(Doing::Reading, &item.id).await?;
    if total != object.size || now.trashed || now.version().as_deref() != Some(object.version.as_str()) {
        return Err(changed());
    }
    Ok(bytes)
}
