//! Azure Blob Storage: a container as a store, over the REST API alone.
//!
//! A request carries an account key's signature, a shared access signature or a bearer token; `access` finds which. Reads are conditional
//! on the ETag, which the service changes with every write, so a version is its ETag without quotes. Block blobs are written in one request, or
//! in blocks that nobody sees before the list of them is committed.

mod access;
mod errors;
mod listing;
mod sign;
mod upload;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use time::OffsetDateTime;

use self::access::{Access, Grant};
use self::errors::translate;
use super::attempt::Patience;
use super::http::{Answer, Call, Doing, Http, encoded, encoded_path, range_header, total_of};
use super::{Address, BoxFuture, ClientSettings, LISTED_OBJECTS, ObjectInfo, ObjectStore, Replace, StoreSettings, Upload};
use crate::error::{Error, Kind, Result, Stage};

/// Version of the REST API. It knows blocks of 4,000 MiB, names that XML cannot hold, and folders in listings.
const VERSION: &str = "2021-12-02";
/// Blobs in a page: names and properties of so many stay below the longest answer that is taken.
const PAGE: &str = "1000";
/// Pages without a blob after which a listing is given up: the service sends some, but not for ever.
const EMPTY_PAGES: usize = 1_000;

/// A container.
pub(super) struct AzureStore {
    container: Arc<Container>,
}

/// What all operations and uploads of a container share.
struct Container {
    http: Http,
    access: Access,
    patience: Patience,
}

/// A request before it is signed: Shared Key wants the parts of the query as they mean, not as they are sent.
#[derive(Clone)]
struct Request {
    method: &'static str,
    /// Name of the blob; empty for the container itself.
    name: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Request {
    fn new(method: &'static str, name: &str) -> Request {
        Request { method, name: name.to_owned(), query: Vec::new(), headers: Vec::new(), body: Bytes::new() }
    }

    fn query(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.query.push((name, value.into()));
        self
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.headers.push((name, value.into()));
        self
    }

    fn header_if(self, name: &'static str, value: Option<String>) -> Request {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    fn body(mut self, body: impl Into<Bytes>) -> Request {
        self.body = body.into();
        self
    }
}

impl AzureStore {
    /// Looks for the account and its credentials. Nothing is sent yet.
    pub fn open(store: &StoreSettings, client: &ClientSettings) -> Result<AzureStore> {
        let access = access::find(store, client.timeout, &|name| std::env::var(name).ok())?;
        let http = Http::open(store, &access.base, client.timeout)?;
        let patience = Patience::new(client.retries, client.timeout);
        Ok(AzureStore { container: Arc::new(Container { http, access, patience }) })
    }
}

impl ObjectStore for AzureStore {
    fn provider(&self) -> &'static str {
        "azure"
    }

    fn describe(&self) -> String {
        let Access { base, container, .. } = &self.container.access;
        format!("azure://{}/{container}", base.split_once("://").map_or(base.as_str(), |(_, rest)| rest))
    }

    fn is_encrypted_in_transit(&self) -> bool {
        self.container.http.place().is_tls()
    }

    fn address(&self) -> Option<Address> {
        Some(self.container.http.place().address())
    }

    fn credentials(&self) -> BoxFuture<'_, String> {
        Box::pin(self.container.credentials())
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Vec<ObjectInfo>> {
        Box::pin(self.container.list(prefix))
    }

    fn head<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ObjectInfo> {
        Box::pin(self.container.head(name))
    }

    fn read<'a>(&'a self, name: &'a str, range: Range<u64>, version: Option<&'a str>) -> BoxFuture<'a, Vec<u8>> {
        Box::pin(self.container.read(name, range, version))
    }

    fn upload<'a>(&'a self, name: &'a str, replace: Replace) -> BoxFuture<'a, Box<dyn Upload>> {
        Box::pin(upload::start(&self.container, name, replace))
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.container.delete(name))
    }
}

impl Container {
    /// Where the credentials were found; tokens are asked for, as the first request would.
    async fn credentials(&self) -> Result<String> {
        if let Grant::Tokens(tokens, by) = &self.access.grant {
            tokens.authorization(by.as_ref().unwrap_or(&self.http)).await?;
        }
        let what = match &self.access.grant {
            Grant::Key(_) => "an account key",
            Grant::Sas(_) => "a SAS",
            Grant::Tokens(..) => "a token",
        };
        Ok(format!("{what}, {}", self.access.found))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let (mut found, mut marker, mut empty_pages) = (Vec::new(), None::<String>, 0);
        loop {
            let mut request = Request::new("GET", "").query("restype", "container").query("comp", "list").query("maxresults", PAGE);
            if !prefix.is_empty() {
                request = request.query("prefix", prefix);
            }
            if let Some(marker) = &marker {
                request = request.query("marker", marker);
            }
            let page = listing::parse(&self.send(request, Doing::Listing).await?.bytes().await?)?;
            empty_pages += usize::from(page.objects.is_empty());
            found.extend(page.objects);
            if found.len() > LISTED_OBJECTS {
                return Err(Error::new(Kind::LimitExceeded, format!("more than {LISTED_OBJECTS} objects")).at(Stage::Transfer));
            }
            match page.next {
                None => return listing::without_twins(found),
                next if next == marker || empty_pages > EMPTY_PAGES => return Err(nonsense("a listing without an end")),
                next => marker = next,
            }
        }
    }

    async fn head(&self, name: &str) -> Result<ObjectInfo> {
        let answer = self.send(Request::new("HEAD", checked(name)?), Doing::Reading).await?;
        // An account with a hierarchical namespace answers for its folders too.
        if answer.header("x-ms-resource-type") == Some("directory") {
            return Err(Error::new(Kind::ObjectNotFound, ""));
        }
        let size =
            answer.header("content-length").and_then(|size| size.parse().ok()).ok_or_else(|| nonsense("an object without a size"))?;
        Ok(ObjectInfo { name: name.to_owned(), size, version: version_of(&answer)? })
    }

    async fn read(&self, name: &str, range: Range<u64>, version: Option<&str>) -> Result<Vec<u8>> {
        let Some(header) = range_header(&range) else { return Ok(Vec::new()) };
        let request = Request::new("GET", checked(name)?).header("range", header).header_if("if-match", version.map(quoted));
        let answer = self.answer(&request).await?;
        if !answer.is_success() {
            let error = translate(&answer, Doing::Reading);
            // A condition fails for what is not there, too.
            if error.kind() == Kind::ObjectChanged
                && let Err(missing) = self.head(name).await
                && missing.kind() == Kind::ObjectNotFound
            {
                return Err(missing);
            }
            return Err(error);
        }
        total_of(answer.header("content-range").unwrap_or_default(), &range)?;
        // A proxy may have an older answer at hand.
        if version.is_some() && version_of(&answer).ok().as_deref() != version {
            return Err(Error::new(Kind::ObjectChanged, ""));
        }
        answer.range(range.end - range.start).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let answer = self.answer(&Request::new("DELETE", checked(name)?)).await?;
        match (answer.is_success(), errors::code(&answer)) {
            (true, _) | (_, "BlobNotFound") => Ok(()),
            _ => Err(translate(&answer, Doing::Writing)),
        }
    }

    /// Sends a request; a refusal is an error.
    async fn send(&self, request: Request, doing: Doing) -> Result<Answer> {
        let answer = self.answer(&request).await?;
        if answer.is_success() { Ok(answer) } else { Err(translate(&answer, doing)) }
    }

    /// Sends a request, once more if a token that can be renewed was refused.
    async fn answer(&self, request: &Request) -> Result<Answer> {
        let answer = self.http.send(self.call(request).await?).await?;
        match &self.access.grant {
            Grant::Tokens(tokens, _) if answer.status == 401 && tokens.renew().await => self.http.send(self.call(request).await?).await,
            _ => Ok(answer),
        }
    }

    /// A request with what opens the container.
    async fn call(&self, request: &Request) -> Result<Call> {
        let Access { base, container, grant, .. } = &self.access;
        let request = request.clone().header("x-ms-version", VERSION).header("x-ms-date", sign::http_date(OffsetDateTime::now_utc())?);
        let mut url = format!("{base}/{container}");
        if !request.name.is_empty() {
            url = format!("{url}/{}", encoded_path(&request.name));
        }
        let path = url.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default();
        let mut query: Vec<String> = request.query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let mut authorization = None;
        match grant {
            Grant::Key(key) => authorization = Some(key.authorization(&request, &path)?),
            Grant::Sas(sas) => query.push(sas.expose().to_owned()),
            Grant::Tokens(tokens, by) => authorization = Some(tokens.authorization(by.as_ref().unwrap_or(&self.http)).await?),
        }
        if !query.is_empty() {
            url = format!("{url}?{}", query.join("&"));
        }
        let call = request.headers.into_iter().fold(Call::new(request.method, url), |call, (name, value)| call.header(name, value));
        Ok(call.header_if("authorization", authorization).body(request.body))
    }
}

/// Names that the service, or a proxy on the way, would take for another: "Naming and Referencing Containers, Blobs, and Metadata".
fn checked(name: &str) -> Result<&str> {
    // Dots at the end of a part are dropped, so `.` and `..` are among these.
    if name.split('/').any(|part| part.ends_with('.')) {
        return Err(Error::new(Kind::UnsafePath, "the name of an object has a part that ends with a dot").at(Stage::Transfer));
    }
    Ok(name)
}

/// The version that an answer is about.
fn version_of(answer: &Answer) -> Result<String> {
    let e_tag = answer.header("etag").map(unquoted).filter(|e_tag| !e_tag.is_empty());
    e_tag.map(str::to_owned).ok_or_else(|| nonsense("an object without an ETag"))
}

fn unquoted(e_tag: &str) -> &str {
    e_tag.strip_prefix('"').and_then(|e_tag| e_tag.strip_suffix('"')).unwrap_or(e_tag)
}

fn quoted(version: &str) -> String {
    format!("\"{version}\"")
}

fn nonsense(what: &str) -> Error {
    Error::new(Kind::ServerFailed, format!("the store sent {what}"))
}
