//! Google Cloud Storage, by its JSON API.
//!
//! The version of an object is its generation. Reads carry it as a condition and compare it with the answer's; writes carry it, or 0 for a name
//! that must be free, so the store itself decides every race.

mod upload;

use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;

use super::attempt::Patience;
use super::drive::{Found, Pages, nonsense};
use super::google::credentials;
use super::http::{Answer, Call, Doing, Http, Tokens, encoded, keeps_credentials, private_origin, range_header, total_of};
use super::{Address, BoxFuture, ClientSettings, ObjectInfo, ObjectStore, Replace, StoreSettings, Upload};
use crate::error::{Error, Kind, Result, Stage};

/// Google's own server.
const ENDPOINT: &str = "https://storage.googleapis.com";
/// May read and write objects, and nothing else.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

/// A bucket.
pub(super) struct GcsStore {
    bucket: Arc<Bucket>,
}

/// What all operations and uploads of a bucket share.
struct Bucket {
    http: Http,
    base: String,
    name: String,
    /// `None` for an emulator on this machine.
    tokens: Option<Tokens>,
    /// `&userProject=…` where whoever reads pays.
    payer: String,
    patience: Patience,
}

/// What Google tells about an object. Numbers are texts in its JSON.
#[derive(Deserialize)]
struct Resource {
    name: Option<String>,
    size: Option<String>,
    generation: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    items: Vec<Resource>,
    #[serde(rename = "nextPageToken")]
    next: Option<String>,
}

impl Resource {
    fn object(self, name: Option<&str>) -> Result<ObjectInfo> {
        let name = name.map(str::to_owned).or(self.name).ok_or_else(|| nonsense("an object without a name"))?;
        let size = self.size.and_then(|size| size.parse().ok()).ok_or_else(|| nonsense("an object without a size"))?;
        let version = self.generation.filter(|text| is_generation(text)).ok_or_else(|| nonsense("an object without a generation"))?;
        Ok(ObjectInfo { name, size, version })
    }
}

/// A generation is a number; anything else is not put into a URL.
fn is_generation(text: &str) -> bool {
    !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl GcsStore {
    /// Finds the credentials. Nothing is sent yet.
    pub fn open(store: &StoreSettings, client: &ClientSettings) -> Result<GcsStore> {
        if store.bucket.is_empty() {
            return Err(Error::new(Kind::ConfigInvalidValue, "provider gcs needs cloud.bucket"));
        }
        let base = store.endpoint.as_deref().unwrap_or(ENDPOINT).trim_end_matches('/').to_owned();
        private_origin("cloud.endpoint", &base)?;
        let found = credentials::find(store, SCOPE)?;
        // An emulator on this machine needs none.
        if found.is_none() && !(base.starts_with("http://") && keeps_credentials(&base)) {
            return Err(credentials::missing());
        }
        let (tokens, project) = found.map_or((None, None), |found| (Some(found.tokens), found.project));
        let payer = match (store.is_requester_pays, project) {
            (false, _) => String::new(),
            (true, Some(project)) => format!("&userProject={}", encoded(&project)),
            (true, None) => {
                return Err(Error::new(Kind::ConfigInvalidValue, "cloud.requester_pays needs credentials that name a project"));
            }
        };
        let http = Http::open(store, &base, client.timeout)?;
        let patience = Patience::new(client.retries, client.timeout);
        Ok(GcsStore { bucket: Arc::new(Bucket { http, base, name: store.bucket.clone(), tokens, payer, patience }) })
    }
}

impl ObjectStore for GcsStore {
    fn provider(&self) -> &'static str {
        "gcs"
    }

    fn describe(&self) -> String {
        format!("gs://{}", self.bucket.name)
    }

    fn is_encrypted_in_transit(&self) -> bool {
        self.bucket.http.place().is_tls()
    }

    fn address(&self) -> Option<Address> {
        Some(self.bucket.http.place().address())
    }

    fn credentials(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            match &self.bucket.tokens {
                Some(tokens) => tokens.authorization(&self.bucket.http).await.map(|_| tokens.found().to_owned()),
                None => Ok("none: an emulator on this machine".to_owned()),
            }
        })
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
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let (mut found, mut pages, mut next) = (Found::default(), Pages::default(), None::<String>);
        loop {
            let mut url = format!("{}/storage/v1/b/{}/o?maxResults=1000&prefix={}", self.base, encoded(&self.name), encoded(prefix));
            if let Some(next) = &next {
                url.push_str(&format!("&pageToken={}", encoded(next)));
            }
            let answer = self.send(Call::new("GET", url + &self.payer)).await?;
            let page: Page = self.accepted(answer, Doing::Listing)?.json().await?;
            pages.turn(page.items.len(), page.next.as_deref())?;
            for item in page.items {
                found.add(item.object(None)?)?;
            }
            match page.next {
                Some(token) => next = Some(token),
                None => return Ok(found.sorted()),
            }
        }
    }

    async fn head(&self, name: &str) -> Result<ObjectInfo> {
        let answer = self.send(Call::new("GET", format!("{}?alt=json{}", self.object(name), self.payer))).await?;
        self.accepted(answer, Doing::Reading)?.json::<Resource>().await?.object(Some(name))
    }

    async fn read(&self, name: &str, range: Range<u64>, version: Option<&str>) -> Result<Vec<u8>> {
        let Some(header) = range_header(&range) else { return Ok(Vec::new()) };
        let mut url = format!("{}?alt=media{}", self.object(name), self.payer);
        if let Some(version) = version {
            if !is_generation(version) {
                // A version that no listing of this store can have told: who asks for it means an object of another one, if there is one.
                self.head(name).await?;
                return Err(Error::new(Kind::ObjectChanged, ""));
            }
            url.push_str(&format!("&ifGenerationMatch={version}"));
        }
        let answer = self.send(Call::new("GET", url).header("range", header)).await?;
        let answer = self.accepted(answer, Doing::Reading)?;
        // A server that does not know the condition is not believed.
        if let (Some(version), Some(found)) = (version, answer.header("x-goog-generation"))
            && version != found
        {
            return Err(Error::new(Kind::ObjectChanged, ""));
        }
        total_of(answer.header("content-range").unwrap_or_default(), &range)?;
        if answer.status != 206 {
            return Err(Error::new(Kind::TransferInterrupted, "the store sent another range than it was asked for"));
        }
        answer.range(range.end - range.start).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let answer = self.send(Call::new("DELETE", format!("{}?alt=json{}", self.object(name), self.payer))).await?;
        match answer.status {
            404 => Ok(()),
            _ => self.accepted(answer, Doing::Writing).map(drop),
        }
    }

    /// Address of an object.
    fn object(&self, name: &str) -> String {
        format!("{}/storage/v1/b/{}/o/{}", self.base, encoded(&self.name), encoded(name))
    }

    /// Sends a request with a token, and once more with a new one if the store does not take the first.
    async fn send(&self, call: Call) -> Result<Answer> {
        match &self.tokens {
            Some(tokens) => super::drive::authorized(&self.http, &self.http, tokens, call).await,
            None => self.http.send(call).await,
        }
    }

    fn accepted(&self, answer: Answer, doing: Doing) -> Result<Answer> {
        match answer.status {
            404 if doing == Doing::Listing => Err(Error::new(Kind::ObjectNotFound, "the bucket does not exist")),
            // Asked for with a project that does not pay, or without one.
            400 if answer.header("x-goog-user-project").is_some() => {
                Err(Error::new(Kind::AccessDenied, "the bucket's readers pay").at(Stage::Transfer))
            }
            _ => answer.accepted(doing),
        }
    }
}
