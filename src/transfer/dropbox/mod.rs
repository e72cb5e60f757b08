//! Dropbox, by version 2 of its API.
//!
//! An object is a file; its version is Dropbox's `rev`, which changes with every write. A range is read by path and comes with the file's
//! metadata in a header, so one answer says which version its bytes are. (By `rev:` Dropbox would go on to serve a version that was
//! replaced, and nobody would learn of the change.)
//!
//! Dropbox takes no account of case in names. Two objects whose names differ in case only are one object there.

mod account;
mod errors;
mod hash;
mod list;
mod upload;

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Value, json};

use self::account::{Account, Content, Metadata};
use super::http::{Doing, range_header, total_of};
use super::listing::nonsense;
use super::names::check_parts;
use super::{Address, BoxFuture, ClientSettings, ObjectInfo, ObjectStore, Replace, StoreSettings, Upload};
use crate::error::{Error, Kind, Result};

/// A Dropbox, or a folder of one.
pub(super) struct DropboxStore {
    account: Arc<Account>,
}

impl DropboxStore {
    /// Reads the credentials. Nothing is sent yet.
    pub fn open(store: &StoreSettings, client: &ClientSettings) -> Result<DropboxStore> {
        Ok(DropboxStore { account: Arc::new(Account::open(store, client)?) })
    }
}

impl ObjectStore for DropboxStore {
    fn provider(&self) -> &'static str {
        "dropbox"
    }

    fn describe(&self) -> String {
        "dropbox".to_owned()
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
        Box::pin(async move {
            if let Some((folder, _)) = prefix.rsplit_once('/') {
                check_parts(folder)?;
            }
            list::list(&self.account, prefix).await
        })
    }

    fn head<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ObjectInfo> {
        Box::pin(async move { look(&self.account, name).await?.object(name) })
    }

    fn read<'a>(&'a self, name: &'a str, range: Range<u64>, version: Option<&'a str>) -> BoxFuture<'a, Vec<u8>> {
        Box::pin(read(&self.account, name, range, version))
    }

    fn upload<'a>(&'a self, name: &'a str, replace: Replace) -> BoxFuture<'a, Box<dyn Upload>> {
        Box::pin(upload::start(&self.account, name, replace))
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match look(&self.account, name).await {
                Ok(found) => delete(&self.account, name, &found).await,
                Err(error) if error.kind() == Kind::ObjectNotFound => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}

/// The file of a name. A folder is no object.
async fn look(account: &Account, name: &str) -> Result<Metadata> {
    check_parts(name)?;
    let path = account.path(name).await?;
    let found = account.ask::<Metadata>(Doing::Reading, "files/get_metadata", &json!({ "path": path })).await?;
    match found.map_err(|refusal| refusal.error())? {
        found if found.tag.as_deref() == Some("file") => Ok(found),
        _ => Err(Error::new(Kind::ObjectNotFound, "")),
    }
}

async fn read(account: &Account, name: &str, range: Range<u64>, version: Option<&str>) -> Result<Vec<u8>> {
    check_parts(name)?;
    let Some(header) = range_header(&range) else { return Ok(Vec::new()) };
    let argument = json!({ "path": account.path(name).await? });
    let answer = account.transfer(Doing::Reading, "files/download", &argument, Content::Asked(header)).await?;
    let answer = answer.map_err(|refusal| refusal.error())?;
    let metadata = answer.header("dropbox-api-result").and_then(|text| serde_json::from_str::<Metadata>(text).ok());
    let object = metadata.ok_or_else(|| nonsense("bytes without saying of what"))?.object(name)?;
    if version.is_some_and(|version| version != object.version) {
        return Err(Error::new(Kind::ObjectChanged, ""));
    }
    let total = total_of(answer.header("content-range").unwrap_or_default(), &range)?;
    if answer.status != 206 || total != object.size {
        return Err(Error::new(Kind::TransferInterrupted, "the store sent another range than it was asked for"));
    }
    answer.range(range.end - range.start).await
}

/// Removes a file if it is still the one that was seen. By its path alone Dropbox would remove a folder too, with all that is in it.
async fn delete(account: &Account, name: &str, found: &Metadata) -> Result<()> {
    let argument = json!({ "path": account.path(name).await?, "parent_rev": found.rev });
    match account.ask::<Value>(Doing::Writing, "files/delete_v2", &argument).await? {
        Ok(_) => Ok(()),
        Err(refusal) if refusal.says("path_lookup/not_found") => Ok(()),
        Err(refusal) if refusal.says("path_write/conflict") => Err(Error::new(Kind::ServerFailed, "somebody else writes the object")),
        Err(refusal) => Err(refusal.error()),
    }
}
