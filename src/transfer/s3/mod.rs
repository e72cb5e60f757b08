//! Amazon S3 and everything that speaks its protocol (MinIO, Ceph, R2, ...), through Amazon's own SDK.
//!
//! The SDK signs, connects and parses. Its retries and time limits are off: those of [`super::Client`] hold for every store alike.
//! Bodies are sent from memory, so the SHA-256 of each is part of the request's signature and the server refuses what differs.

mod connect;
mod errors;
mod upload;

use std::ops::Range;
use std::sync::Arc;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::RequestPayer;

use self::errors::translate;
use super::attempt::Patience;
use super::http::{Doing, Place, range_header, read_body, total_of};
use super::listing::{Found, Pages, nonsense};
use super::{Address, Attempt, BoxFuture, ClientSettings, ObjectInfo, ObjectStore, Replace, StoreSettings, Upload};
use crate::error::{Error, Kind, Result};

/// A bucket.
pub(super) struct S3Store {
    bucket: Arc<Bucket>,
}

/// What all operations and uploads of a bucket share.
struct Bucket {
    client: Client,
    name: String,
    place: Place,
    patience: Patience,
    /// The chain, for whoever asks where credentials come from.
    credentials: Option<SharedCredentialsProvider>,
    /// Said with every request where whoever reads pays.
    payer: Option<RequestPayer>,
}

impl S3Store {
    /// Reads the credential chain's configuration. Nothing is sent to the bucket yet.
    pub fn open(store: &StoreSettings, client: &ClientSettings) -> Result<S3Store> {
        let (sdk, place, credentials) = connect::connect(store, client.timeout)?;
        let patience = Patience::new(client.retries, client.timeout);
        let payer = store.is_requester_pays.then_some(RequestPayer::Requester);
        Ok(S3Store { bucket: Arc::new(Bucket { client: sdk, name: store.bucket.clone(), place, patience, credentials, payer }) })
    }
}

impl ObjectStore for S3Store {
    fn provider(&self) -> &'static str {
        "s3"
    }

    fn describe(&self) -> String {
        format!("s3://{}", self.bucket.name)
    }

    fn is_encrypted_in_transit(&self) -> bool {
        self.bucket.place.is_tls()
    }

    fn address(&self) -> Option<Address> {
        Some(self.bucket.place.address())
    }

    fn credentials(&self) -> BoxFuture<'_, String> {
        Box::pin(self.bucket.credentials())
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Vec<ObjectInfo>> {
        Box::pin(self.bucket.list(prefix))
    }

    fn head<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ObjectInfo> {
        Box::pin(self.bucket.head(name))
    }

    fn read<'a>(&'a self, name: &'a str, range: Range<u64>, version: Option<&'a str>) -> BoxFuture<'a, Vec<u8>> {
        Box::pin(self.bucket.read(name, range, version))
    }

    fn upload<'a>(&'a self, name: &'a str, replace: Replace) -> BoxFuture<'a, Box<dyn Upload>> {
        Box::pin(upload::start(&self.bucket, name, replace))
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.bucket.delete(name))
    }
}

impl Bucket {
    /// Asks the chain as the first request would.
    async fn credentials(&self) -> Result<String> {
        let Some(provider) = &self.credentials else { return Err(Error::new(Kind::CredentialsMissing, errors::SOURCES)) };
        match provider.provide_credentials().await {
            Ok(_) if self.place.has_credentials_file => Ok("cloud.credentials_path".to_owned()),
            Ok(found) => Ok(connect::origin(&found).to_owned()),
            Err(_) if self.place.has_credentials_file => Err(Error::new(Kind::CredentialsMissing, errors::NOT_IN_FILE)),
            Err(_) => Err(Error::new(Kind::CredentialsMissing, errors::SOURCES)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let attempt = Attempt::current();
        let prefix = (!prefix.is_empty()).then(|| prefix.to_owned());
        let (mut found, mut pages, mut next_page) = (Found::default(), Pages::default(), None);
        loop {
            let request = self
                .client
                .list_objects_v2()
                .bucket(&self.name)
                .set_request_payer(self.payer.clone())
                .set_prefix(prefix.clone())
                .set_continuation_token(next_page);
            let page = request.send().await.map_err(|error| translate(&self.place, Doing::Listing, error))?;
            attempt.beat();
            for object in page.contents() {
                let Some(name) = object.key() else { return Err(nonsense("an object without a name")) };
                let size = length(object.size()).ok_or_else(|| nonsense("an object without a size"))?;
                found.add(ObjectInfo { name: name.to_owned(), size, version: version_of(object.e_tag(), size, object.last_modified()) })?;
            }
            if page.is_truncated() != Some(true) {
                pages.turn(page.contents().len(), None)?;
                return Ok(found.sorted());
            }
            next_page = page.next_continuation_token().map(str::to_owned);
            pages.turn(page.contents().len(), next_page.as_deref())?;
            if next_page.is_none() {
                return Err(nonsense("a listing without an end"));
            }
        }
    }

    async fn head(&self, name: &str) -> Result<ObjectInfo> {
        let request = self.client.head_object().bucket(&self.name).key(name).set_request_payer(self.payer.clone());
        let about = request.send().await.map_err(|error| translate(&self.place, Doing::Reading, error))?;
        let size = length(about.content_length()).ok_or_else(|| nonsense("an object without a size"))?;
        Ok(ObjectInfo { name: name.to_owned(), size, version: version_of(about.e_tag(), size, about.last_modified()) })
    }

    async fn read(&self, name: &str, range: Range<u64>, version: Option<&str>) -> Result<Vec<u8>> {
        let attempt = Attempt::current();
        let Some(header) = range_header(&range) else { return Ok(Vec::new()) };
        let request = self.client.get_object().bucket(&self.name).key(name).set_request_payer(self.payer.clone());
        let request = request.range(header).set_if_match(version.and_then(condition));
        let answer = request.send().await.map_err(|error| translate(&self.place, Doing::Reading, error))?;
        attempt.beat();
        let total = total_of(answer.content_range().unwrap_or_default(), &range)?;
        // Not every server honours If-Match.
        if version.is_some_and(|version| !is_version(version, answer.e_tag(), total, answer.last_modified())) {
            return Err(Error::new(Kind::ObjectChanged, ""));
        }
        read_body(answer.body, range.end - range.start).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        match self.client.delete_object().bucket(&self.name).key(name).set_request_payer(self.payer.clone()).send().await {
            // Amazon answers 204 for what was never there; others say so.
            Err(error) if errors::code(&error) == Some("NoSuchKey") => Ok(()),
            Err(error) => Err(translate(&self.place, Doing::Writing, error)),
            Ok(_) => Ok(()),
        }
    }
}

/// The version of an object: its ETag without quotes, or size and time where a listing (or a server) leaves the ETag out.
fn version_of(e_tag: Option<&str>, size: u64, modified: Option<&DateTime>) -> String {
    match e_tag.map(unquoted).filter(|e_tag| !e_tag.is_empty()) {
        Some(e_tag) => e_tag.to_owned(),
        None => dated(size, modified),
    }
}

/// Whether an object is of a version, whichever way the version was told.
fn is_version(version: &str, e_tag: Option<&str>, size: u64, modified: Option<&DateTime>) -> bool {
    if version.starts_with(DATED) { version == dated(size, modified) } else { e_tag.map(unquoted) == Some(version) }
}

/// How versions made of size and time begin; no ETag has a slash after four letters unless weak (`W/`).
const DATED: &str = "date/";

/// Whole seconds: a listing has milliseconds, a header has not.
fn dated(size: u64, modified: Option<&DateTime>) -> String {
    format!("{DATED}{}/{size}", modified.map_or(0, DateTime::secs))
}

/// `If-Match` for a version that is an ETag. A weak one never matches (RFC 9110, 13.1.1), so it is compared afterwards only.
fn condition(version: &str) -> Option<String> {
    (!version.starts_with(DATED) && !version.starts_with("W/")).then(|| format!("\"{version}\""))
}

fn unquoted(e_tag: &str) -> &str {
    e_tag.strip_prefix('"').and_then(|e_tag| e_tag.strip_suffix('"')).unwrap_or(e_tag)
}

fn length(length: Option<i64>) -> Option<u64> {
    u64::try_from(length?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_etag_however_it_is_quoted() {
        let time = DateTime::from_secs(1_700_000_000);
        for e_tag in ["\"9b2c\"", "9b2c"] {
            assert_eq!(version_of(Some(e_tag), 7, Some(&time)), "9b2c");
            assert!(is_version("9b2c", Some(e_tag), 7, None));
        }
        assert_eq!(condition("9b2c").as_deref(), Some("\"9b2c\""));
        assert!(!is_version("9b2c", Some("\"9b2d\""), 7, None));
        assert!(!is_version("9b2c", None, 7, None));
    }

    #[test]
    fn a_listing_without_etags_gives_versions_by_size_and_second() {
        let (listed, headed) = (DateTime::from_millis(1_700_000_000_123), DateTime::from_secs(1_700_000_000));
        let version = version_of(None, 7, Some(&listed));
        assert!(is_version(&version, Some("\"9b2c\""), 7, Some(&headed)));
        assert!(!is_version(&version, Some("\"9b2c\""), 8, Some(&headed)));
        assert!(!is_version(&version, Some("\"9b2c\""), 7, Some(&DateTime::from_secs(1_700_000_001))));
        assert_eq!(condition(&version), None);
    }
}
