//! Google Cloud Storage, by version 1 of its JSON API.
//!
//! The version of an object is its generation, a number that every write changes. A read asks for it as a condition, so a replaced object
//! is refused and not served; and the answer says which generation its bytes are of, for gateways that know no conditions. (By
//! `generation=` a bucket with versioning would go on to serve what was replaced, and nobody would learn of the change.)
//!
//! There are no folders: a name is a text that happens to have slashes.

mod bucket;
mod crc;
mod errors;
mod upload;

use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;

use self::bucket::{Bucket, Metadata, check_name, is_generation};
use self::errors::Refusal;
use super::http::{Call, Doing, encoded, range_header, total_of};
use super::listing::{Found, Pages, nonsense};
use super::{Address, BoxFuture, ClientSettings, ObjectInfo, ObjectStore, Replace, StoreSettings, Upload};
use crate::error::{Error, Kind, Result};

/// Objects of a page, the most that the API recommends.
const PAGE: u32 = 1_000;

/// A bucket.
pub(super) struct GcsStore {
    bucket: Arc<Bucket>,
}

impl GcsStore {
    /// Reads the credentials. Nothing is sent yet.
    pub fn open(store: &StoreSettings, client: &ClientSettings) -> Result<GcsStore> {
        Ok(GcsStore { bucket: Arc::new(Bucket::open(store, client)?) })
    }
}

impl ObjectStore for GcsStore {
    fn provider(&self) -> &'static str {
        "gcs"
    }

    fn describe(&self) -> String {
        self.bucket.describe()
    }

    fn is_encrypted_in_transit(&self) -> bool {
        self.bucket.is_tls()
    }

    fn address(&self) -> Option<Address> {
        Some(self.bucket.address())
    }

    fn credentials(&self) -> BoxFuture<'_, String> {
        Box::pin(self.bucket.credentials())
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Vec<ObjectInfo>> {
        Box::pin(list(&self.bucket, prefix))
    }

    fn head<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ObjectInfo> {
        Box::pin(async move { self.bucket.look(name).await?.object() })
    }

    fn read<'a>(&'a self, name: &'a str, range: Range<u64>, version: Option<&'a str>) -> BoxFuture<'a, Vec<u8>> {
        Box::pin(read(&self.bucket, name, range, version))
    }

    fn upload<'a>(&'a self, name: &'a str, replace: Replace) -> BoxFuture<'a, Box<dyn Upload>> {
        Box::pin(upload::start(&self.bucket, name, replace))
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(delete(&self.bucket, name, None))
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    items: Vec<Metadata>,
    #[serde(rename = "nextPageToken")]
    next: Option<String>,
}

async fn list(bucket: &Bucket, prefix: &str) -> Result<Vec<ObjectInfo>> {
    let query = format!("prefix={}&maxResults={PAGE}&fields=items(name,size,generation),nextPageToken", encoded(prefix));
    let (mut pages, mut found, mut next) = (Pages::default(), Found::default(), None::<String>);
    loop {
        let turned = next.map(|token| format!("&pageToken={}", encoded(&token))).unwrap_or_default();
        let page: Page = bucket.ask(Doing::Listing, bucket.objects(&format!("{query}{turned}"))).await?;
        pages.turn(page.items.len(), page.next.as_deref())?;
        for item in &page.items {
            let object = item.object()?;
            if !object.name.starts_with(prefix) {
                return Err(nonsense("an object that was not asked for"));
            }
            found.add(object)?;
        }
        match page.next {
            Some(token) => next = Some(token),
            None => return Ok(found.sorted()),
        }
    }
}

async fn read(bucket: &Bucket, name: &str, range: Range<u64>, version: Option<&str>) -> Result<Vec<u8>> {
    check_name(name)?;
    let Some(header) = range_header(&range) else { return Ok(Vec::new()) };
    // What is no generation was none of an object here, so it is not asked for but compared.
    let condition = version.filter(|version| is_generation(version));
    let query = condition.map_or("alt=media".to_owned(), |version| format!("alt=media&ifGenerationMatch={version}"));
    // An object that is kept compressed is served as it is kept: unpacked by the store, it would have no ranges.
    let call = Call::new("GET", bucket.object(name, &query)).header("range", header).header("accept-encoding", "gzip");
    let answer = bucket.send(Doing::Reading, call).await?.map_err(Refusal::error)?;
    let generation = answer.header("x-goog-generation").ok_or_else(|| nonsense("bytes without saying of what"))?;
    if version.is_some_and(|version| version != generation) {
        return Err(Error::new(Kind::ObjectChanged, ""));
    }
    total_of(answer.header("content-range").unwrap_or_default(), &range)?;
    if answer.status != 206 {
        return Err(Error::new(Kind::TransferInterrupted, "the store sent another range than it was asked for"));
    }
    answer.range(range.end - range.start).await
}

/// Removes an object; of a certain generation only, where one is given.
async fn delete(bucket: &Bucket, name: &str, generation: Option<&str>) -> Result<()> {
    check_name(name)?;
    let query = generation.map(|generation| format!("ifGenerationMatch={generation}")).unwrap_or_default();
    match bucket.send(Doing::Writing, Call::new("DELETE", bucket.object(name, &query))).await? {
        Ok(_) => Ok(()),
        Err(refusal) if refusal.status == 404 => Ok(()),
        Err(refusal) if refusal.is_condition() => Err(Error::new(Kind::ServerFailed, "somebody else writes the object")),
        Err(refusal) => Err(refusal.error()),
    }
}
