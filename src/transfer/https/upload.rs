//! Uploads by a link: one request, from memory, because a signed link is for one request.
//!
//! The condition goes along as `If-None-Match` or `If-Match`, which signatures need not cover, and is also asked beforehand where there is a link to
//! look with: not every server knows conditional writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use url::Url;
use zeroize::Zeroizing;

use super::super::http::{Call, Doing};
use super::super::meter::Meter;
use super::super::{Attempt, BoxFuture, ObjectInfo, Replace, Upload};
use super::{Web, condition, refusal, version_of};
use crate::error::{Error, Kind, Result, Stage};

/// Largest object that is sent by a link.
const LARGEST: usize = 64 << 20;

/// Starts an upload.
pub(super) async fn start(web: &Arc<Web>, name: &str, replace: Replace) -> Result<Box<dyn Upload>> {
    let link = match web.links.of(name) {
        Err(error) if error.kind() == Kind::ObjectNotFound => return Err(no_link()),
        link => link?,
    };
    let Some(put) = link.put else { return Err(no_link()) };
    let can_look = link.get.is_some() || link.head.is_some();
    if can_look && replace != Replace::Allowed {
        match (&replace, web.head(name).await) {
            (Replace::Never, Ok(_)) => return Err(Error::new(Kind::ObjectExists, "")),
            (Replace::Version(version), Ok(found)) if found.version != *version => return Err(not_that_version()),
            (Replace::Version(_), Err(error)) if error.kind() == Kind::ObjectNotFound => return Err(not_that_version()),
            (Replace::Never, Err(error)) if matches!(error.kind(), Kind::ObjectNotFound | Kind::AccessDenied) => {}
            (_, Err(error)) => return Err(error),
            (_, Ok(_)) => {}
        }
    }
    let meter = Arc::clone(Attempt::current().meter());
    Ok(Box::new(LinkUpload { web: Arc::clone(web), meter, name: name.to_owned(), put, can_look, replace, bytes: Vec::new() }))
}

fn no_link() -> Error {
    Error::new(Kind::StoreUnwritable, "there is no link to write this object with")
        .with_hint("ask for a link for PUT, or upload through the provider itself")
}

fn not_that_version() -> Error {
    Error::new(Kind::ObjectChanged, "the object is not the one that is to be replaced")
}

struct LinkUpload {
    web: Arc<Web>,
    meter: Arc<Meter>,
    name: String,
    put: Zeroizing<String>,
    can_look: bool,
    replace: Replace,
    bytes: Vec<u8>,
}

impl Upload for LinkUpload {
    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if bytes.len() > LARGEST - self.bytes.len() {
                let detail = format!("an object of more than {LARGEST} bytes cannot be sent by a link");
                return Err(Error::new(Kind::LimitExceeded, detail).at(Stage::Transfer).with_hint("upload through the provider itself"));
            }
            self.bytes.extend_from_slice(&bytes);
            Ok(())
        })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, ObjectInfo> {
        Box::pin(async move { self.publish().await })
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async { Ok(()) })
    }
}

impl LinkUpload {
    async fn publish(mut self) -> Result<ObjectInfo> {
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let call = Call::new("PUT", self.put.as_str()).body(bytes.clone());
        let call = match &self.replace {
            Replace::Allowed => call,
            Replace::Never => call.header("if-none-match", "*"),
            Replace::Version(version) => call.header_if("if-match", condition(version)),
        };
        // Azure asks for the kind of blob, in a header that its signatures do not cover.
        let call = if is_sas(&self.put) { call.header("x-ms-blob-type", "BlockBlob") } else { call };
        let (web, attempts) = (&self.web, AtomicU32::new(0));
        let sent = web.patience.retry(&self.meter, || async {
            attempts.fetch_add(1, Ordering::Relaxed);
            let answer = web.send(call.clone()).await?;
            if answer.is_success() { Ok(version_of(&answer, bytes.len() as u64).ok()) } else { Err(refusal(&answer, Doing::Writing)) }
        });
        let version = match sent.await {
            Ok(version) => version,
            Err(error) if error.kind() != Kind::ObjectExists => return Err(error),
            // An answer may be lost after the object was written; then what is there is what was sent.
            Err(_) if attempts.into_inner() > 1 && self.is_there(&bytes).await => None,
            Err(_) if matches!(self.replace, Replace::Version(_)) => return Err(not_that_version()),
            Err(error) => return Err(error),
        };
        let size = bytes.len() as u64;
        // What a look says counts: writing and reading may go by different servers.
        if self.can_look {
            let found = web.patience.retry(&self.meter, || web.head(&self.name)).await?;
            if found.size != size {
                return Err(Error::new(Kind::StoreUnwritable, format!("the store has {} bytes where {size} were sent", found.size)));
            }
            return Ok(found);
        }
        Ok(ObjectInfo { name: self.name.clone(), size, version: version.unwrap_or_default() })
    }

    async fn is_there(&self, bytes: &Bytes) -> bool {
        let read = || self.web.read(&self.name, 0..bytes.len() as u64, None);
        self.can_look && self.web.patience.retry(&self.meter, read).await.is_ok_and(|found| found == *bytes)
    }
}

/// Whether a link is signed the way Azure does.
fn is_sas(link: &str) -> bool {
    let Ok(url) = Url::parse(link) else { return false };
    let has = |wanted: &str| url.query_pairs().any(|(name, _)| name == wanted);
    has("sv") && has("sr") && has("sig")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn azures_signature_is_known_from_others() {
        assert!(is_sas("https://acc.blob.core.windows.net/c/x?sv=2021-12-02&sr=b&sp=cw&sig=abc"));
        for other in ["https://s3.example/x?X-Amz-Signature=abc", "https://x.example/sv/sr/sig", "sv sr sig"] {
            assert!(!is_sas(other), "{other}");
        }
    }
}
