//! Plain HTTPS: for who is given links instead of an account.
//!
//! Either all objects lie below one URL (a web server's folder; a bucket behind a CDN; a container with a SAS), or each has a signed link of its own
//! in a file. Nothing is asked that a signature for reading does not allow: only `GET` with a range and, where it works, `HEAD`. A folder cannot be
//! listed, links list what they are.
//!
//! Version of an object is its ETag, else its time of change with its size. A strong ETag is a condition of each read; whatever the version, the answer
//! is compared with it, because servers and caches on the way need not know conditions.

mod links;
mod upload;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use self::links::{Links, origin};
use super::attempt::Patience;
use super::http::{Answer, Call, Doing, Http, range_header, refused, total_of};
use super::{Address, Attempt, BoxFuture, ClientSettings, ObjectInfo, ObjectStore, Replace, StoreSettings, Upload};
use crate::error::{Error, Kind, Result, Stage};

/// Objects looked at together when links are listed.
const LOOKS_IN_FLIGHT: usize = 8;
/// How versions made of time and size begin; no ETag does, since each begins with a quote or `W/`.
const DATED: &str = "date/";

/// Links, or a folder.
pub(super) struct HttpsStore {
    web: Arc<Web>,
}

/// What all operations share.
struct Web {
    links: Links,
    /// One client for each server, by origin.
    servers: BTreeMap<String, Http>,
    patience: Patience,
    /// Whether the server was seen to refuse `HEAD`: a signature covers the method.
    refuses_head: AtomicBool,
}

impl HttpsStore {
    /// Reads the links. Nothing is sent yet.
    pub fn open(store: &StoreSettings, client: &ClientSettings) -> Result<HttpsStore> {
        let links = match (&store.endpoint, &store.credentials_path) {
            (Some(endpoint), None) => Links::folder("cloud.endpoint", endpoint)?,
            (None, Some(path)) => Links::read(path)?,
            (Some(_), Some(_)) => {
                return Err(Error::new(
                    Kind::ConfigInvalidValue,
                    "provider https takes cloud.endpoint or cloud.credentials_path, not both",
                ));
            }
            (None, None) => {
                let detail = "provider https needs cloud.endpoint, or links in cloud.credentials_path";
                return Err(Error::new(Kind::ConfigInvalidValue, detail));
            }
        };
        let servers = links.origins().into_iter().map(|origin| {
            let http = Http::open(store, &origin, client.timeout)?;
            Ok((origin, http))
        });
        let servers = servers.collect::<Result<_>>()?;
        let patience = Patience::new(client.retries, client.timeout);
        Ok(HttpsStore { web: Arc::new(Web { links, servers, patience, refuses_head: AtomicBool::new(false) }) })
    }
}

impl ObjectStore for HttpsStore {
    fn provider(&self) -> &'static str {
        "https"
    }

    fn describe(&self) -> String {
        match &self.web.links {
            Links::Folder { base, .. } => base.clone(),
            Links::Each(each) => {
                let servers: Vec<&str> = self.web.servers.keys().map(String::as_str).collect();
                format!("{} links to {}", each.len(), servers.join(", "))
            }
        }
    }

    fn is_encrypted_in_transit(&self) -> bool {
        self.web.servers.values().all(|http| http.place().is_tls())
    }

    fn address(&self) -> Option<Address> {
        self.web.servers.values().next().map(|http| http.place().address())
    }

    fn credentials(&self) -> BoxFuture<'_, String> {
        let found = match &self.web.links {
            Links::Folder { query: None, .. } => "none are needed",
            Links::Folder { query: Some(_), .. } => "the query of the folder's URL",
            Links::Each(_) => "links in cloud.credentials_path",
        };
        Box::pin(async move { Ok(found.to_owned()) })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Vec<ObjectInfo>> {
        Box::pin(list(&self.web, prefix))
    }

    fn head<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ObjectInfo> {
        Box::pin(self.web.head(name))
    }

    fn read<'a>(&'a self, name: &'a str, range: Range<u64>, version: Option<&'a str>) -> BoxFuture<'a, Vec<u8>> {
        Box::pin(self.web.read(name, range, version))
    }

    fn upload<'a>(&'a self, name: &'a str, replace: Replace) -> BoxFuture<'a, Box<dyn Upload>> {
        Box::pin(upload::start(&self.web, name, replace))
    }

    fn delete<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async { Err(unsupported("plain HTTPS cannot delete")) })
    }
}

/// Looks at each object that there is a link to. One that is gone is not listed, as anywhere else.
async fn list(web: &Arc<Web>, prefix: &str) -> Result<Vec<ObjectInfo>> {
    let Links::Each(each) = &web.links else { return Err(unsupported("a folder on a web server cannot be listed")) };
    let attempt = Attempt::current();
    let mut names = each.iter().filter(|(name, link)| name.starts_with(prefix) && (link.get.is_some() || link.head.is_some()));
    let (mut looks, mut found) = (JoinSet::new(), Vec::new());
    loop {
        while looks.len() < LOOKS_IN_FLIGHT
            && let Some((name, _)) = names.next()
        {
            let (web, name) = (Arc::clone(web), name.clone());
            looks.spawn(async move { web.head(&name).await });
        }
        let Some(look) = looks.join_next().await else { break };
        // The looks are tasks of their own; each that ends is a sign of life of the whole.
        attempt.beat();
        match look.map_err(|_| Error::new(Kind::Internal, "a look at an object ended without an answer").at(Stage::Transfer))? {
            Ok(object) => found.push(object),
            Err(error) if error.kind() == Kind::ObjectNotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

impl Web {
    /// By `HEAD` where that is allowed, otherwise by the first byte.
    async fn head(&self, name: &str) -> Result<ObjectInfo> {
        let link = self.links.of(name)?;
        if let Some(url) = &link.head
            && !self.refuses_head.load(Ordering::Relaxed)
        {
            let answer = self.send(Call::new("HEAD", url.as_str())).await?;
            match (answer.status, &link.get) {
                (200, _) => {
                    let size = length_of(&answer).ok_or_else(|| nonsense("an object without a size"))?;
                    return Ok(ObjectInfo { name: name.to_owned(), size, version: version_of(&answer, size)? });
                }
                // Refused, or not known; a refusal of the object itself will be said again below.
                (400 | 401 | 403 | 405 | 501, Some(_)) => {}
                _ => return Err(refusal(&answer, Doing::Reading)),
            }
        }
        let Some(url) = &link.get else { return Err(unsupported("there is no link to read this object with")) };
        let answer = self.send(Call::new("GET", url.as_str()).header("range", "bytes=0-0")).await?;
        let size = match (answer.status, answer.header("content-range").unwrap_or_default()) {
            (206, range) => total_of(range, &(0..1))?,
            (416, "bytes */0") => 0,
            // Some servers have no range to refuse in an empty object.
            (200, _) if length_of(&answer) == Some(0) => 0,
            (200, _) => return Err(whole_objects_only()),
            _ => return Err(refusal(&answer, Doing::Reading)),
        };
        if link.head.is_some() {
            self.refuses_head.store(true, Ordering::Relaxed);
        }
        Ok(ObjectInfo { name: name.to_owned(), size, version: version_of(&answer, size)? })
    }

    async fn read(&self, name: &str, range: Range<u64>, version: Option<&str>) -> Result<Vec<u8>> {
        let Some(header) = range_header(&range) else { return Ok(Vec::new()) };
        let link = self.links.of(name)?;
        let Some(url) = &link.get else { return Err(unsupported("there is no link to read this object with")) };
        let call = Call::new("GET", url.as_str()).header("range", header).header_if("if-match", version.and_then(condition));
        let answer = self.send(call).await?;
        let total = match answer.status {
            206 => total_of(answer.header("content-range").unwrap_or_default(), &range)?,
            // The whole object where all of it was asked for is the range that was asked for.
            200 if range.start == 0 && length_of(&answer) == Some(range.end) => range.end,
            200 => return Err(whole_objects_only()),
            _ => return Err(refusal(&answer, Doing::Reading)),
        };
        if answer.header("content-encoding").is_some_and(|encoding| encoding != "identity") {
            return Err(unsupported("the server compresses what it sends"));
        }
        if let Some(version) = version
            && version_of(&answer, total)? != version
        {
            return Err(Error::new(Kind::ObjectChanged, ""));
        }
        answer.range(range.end - range.start).await
    }

    /// Sends a request by the client of its server.
    async fn send(&self, call: Call) -> Result<Answer> {
        let http = origin(call.url()).and_then(|origin| self.servers.get(&origin));
        let http = http.ok_or_else(|| Error::new(Kind::Internal, "a link to an unknown server").at(Stage::Transfer))?;
        // Ranges of a compressed object would be ranges of something else.
        http.send(call.header("accept-encoding", "identity")).await
    }
}

/// The version that an answer is about: `"etag"`, `W/"etag"`, or time and size.
fn version_of(answer: &Answer, size: u64) -> Result<String> {
    let e_tag = answer.header("etag").map(str::trim).filter(|e_tag| e_tag.len() > 2);
    match (e_tag, answer.header("last-modified")) {
        (Some(e_tag), _) => Ok(e_tag.to_owned()),
        (None, Some(modified)) => Ok(format!("{DATED}{}/{size}", modified.trim())),
        (None, None) => Err(unsupported("the server sends neither ETag nor Last-Modified, so a change would go unnoticed")),
    }
}

/// `If-Match` for a strong ETag. A weak one never matches (RFC 9110, 13.1.1), so it is compared afterwards only.
fn condition(version: &str) -> Option<String> {
    version.starts_with('"').then(|| version.to_owned())
}

fn length_of(answer: &Answer) -> Option<u64> {
    answer.header("content-length")?.trim().parse().ok()
}

/// A refusal. Where the right is in the link, a refused link is mostly one that has expired (Amazon answers 403 and, when the
/// credentials behind the signature expired, 400; Azure and Google 403 and 400).
fn refusal(answer: &Answer, doing: Doing) -> Error {
    match answer.status {
        400 | 401 | 403 => {
            Error::new(Kind::AccessDenied, format!("status {}", answer.status)).with_hint("the link may have expired: ask for a new one")
        }
        status => refused(doing, status),
    }
}

fn whole_objects_only() -> Error {
    unsupported("the server sends whole objects only, no ranges")
}

fn unsupported(what: &'static str) -> Error {
    Error::new(Kind::Unsupported, what).at(Stage::Transfer).with_hint("docs/clouds/https.md says what plain HTTPS can do")
}

fn nonsense(what: &str) -> Error {
    Error::new(Kind::ServerFailed, format!("the store sent {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_strong_etag_is_a_condition() {
        assert_eq!(condition("\"abc\"").as_deref(), Some("\"abc\""));
        for version in ["W/\"abc\"", "date/Sun, 06 Nov 1994 08:49:37 GMT/7", "abc"] {
            assert_eq!(condition(version), None, "{version}");
        }
    }
}
