//! Uploads to a bucket: one request for a small object, a resumable session for a large one.
//!
//! The condition travels with the request that begins, and Google holds it until the end. Whether an answer was lost on its way is told by a random
//! word in the object's own metadata.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::super::google::resumable::{self, PIECE_BYTES, Reply};
use super::super::http::{Answer, Call, Doing, encoded};
use super::super::session::{ChunkProtocol, Progress, SessionUpload};
use super::super::{BoxFuture, ObjectInfo, Replace, Upload};
use super::{Bucket, Resource, is_generation};
use crate::error::{Error, Kind, Result};

/// Key of the word by which an upload knows its own object.
const WORD: &str = "smp-upload";

/// Starts an upload. Whether its condition holds is asked first, so that nobody sends gibibytes in vain.
pub(super) async fn start(bucket: &Arc<Bucket>, name: &str, replace: Replace) -> Result<Box<dyn Upload>> {
    let found = match bucket.head(name).await {
        Ok(found) => Some(found.version),
        Err(error) if error.kind() == Kind::ObjectNotFound => None,
        // Who may write but not read is told 403; the condition on the write decides then.
        Err(error) if error.kind() == Kind::AccessDenied && replace == Replace::Never => None,
        Err(error) => return Err(error),
    };
    match (&replace, found) {
        (Replace::Never, Some(_)) => return Err(Error::new(Kind::ObjectExists, "")),
        (Replace::Version(version), found) if found.as_ref() != Some(version) => return Err(not_that_version()),
        _ => {}
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| Error::new(Kind::Internal, "the system gives no random numbers"))?;
    let word = format!("{:032x}", u128::from_le_bytes(random));
    let object = Object { bucket: Arc::clone(bucket), name: name.to_owned(), replace, word, was_tried: AtomicBool::new(false) };
    Ok(Box::new(SessionUpload::new(object, bucket.patience)))
}

fn not_that_version() -> Error {
    Error::new(Kind::ObjectChanged, "the object is not the one that is to be replaced")
}

struct Object {
    bucket: Arc<Bucket>,
    name: String,
    replace: Replace,
    word: String,
    /// Whether a request that publishes was sent before, so that it may have done its work unheard.
    was_tried: AtomicBool,
}

#[derive(Deserialize)]
struct Described {
    #[serde(flatten)]
    resource: Resource,
    #[serde(default)]
    metadata: std::collections::HashMap<String, String>,
}

impl Object {
    fn condition(&self) -> String {
        match &self.replace {
            Replace::Allowed => String::new(),
            Replace::Never => "&ifGenerationMatch=0".to_owned(),
            Replace::Version(version) if is_generation(version) => format!("&ifGenerationMatch={version}"),
            // No object has it; 1 is a generation that none has either.
            Replace::Version(_) => "&ifGenerationMatch=1".to_owned(),
        }
    }

    fn url(&self, kind: &str) -> String {
        let Bucket { base, name, payer, .. } = self.bucket.as_ref();
        format!("{base}/upload/storage/v1/b/{}/o?uploadType={kind}&name={}{}{payer}", encoded(name), encoded(&self.name), self.condition())
    }

    fn metadata(&self) -> String {
        json!({ "name": self.name, "contentType": "application/octet-stream", "metadata": { WORD: self.word } }).to_string()
    }

    async fn put_whole(&self, bytes: Bytes) -> Result<ObjectInfo> {
        let boundary = format!("smp{}", self.word);
        let mut body = format!("--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{}\r\n", self.metadata()).into_bytes();
        body.extend_from_slice(format!("--{boundary}\r\ncontent-type: application/octet-stream\r\n\r\n").as_bytes());
        body.extend_from_slice(&bytes);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let call = Call::new("POST", self.url("multipart")).header("content-type", format!("multipart/related; boundary={boundary}"));
        let was_tried = self.was_tried.swap(true, Ordering::Relaxed);
        let answer = self.bucket.send(call.body(body)).await?;
        if answer.is_success() {
            return answer.json::<Resource>().await?.object(Some(&self.name));
        }
        self.explained(answer, was_tried).await
    }

    async fn begin_session(&self) -> Result<String> {
        let call = Call::new("POST", self.url("resumable")).header("content-type", "application/json; charset=UTF-8");
        let answer = self.bucket.send(call.header("x-upload-content-type", "application/octet-stream").body(self.metadata())).await?;
        if answer.is_success() { resumable::session(&self.bucket.http, &answer) } else { Err(self.refused(&answer)) }
    }

    async fn progress(&self, reply: Reply, was_tried: bool) -> Result<Progress> {
        match reply {
            Reply::Received(bytes) => Ok(Progress::Received(bytes)),
            Reply::Done(answer) => answer.json::<Resource>().await?.object(Some(&self.name)).map(Progress::Done),
            Reply::Refused(answer) => self.explained(answer, was_tried).await.map(Progress::Done),
        }
    }

    /// Why a publishing request was refused. After one whose answer was lost, the object in the way may be our own.
    async fn explained(&self, answer: Answer, was_tried: bool) -> Result<ObjectInfo> {
        if was_tried
            && matches!(answer.status, 404 | 410 | 412)
            && let Some(object) = self.arrived().await?
        {
            return Ok(object);
        }
        Err(self.refused(&answer))
    }

    async fn arrived(&self) -> Result<Option<ObjectInfo>> {
        let call = Call::new("GET", format!("{}?alt=json{}", self.bucket.object(&self.name), self.bucket.payer));
        let answer = self.bucket.send(call).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let found: Described = answer.accepted(Doing::Reading)?.json().await?;
        if found.metadata.get(WORD) == Some(&self.word) { found.resource.object(Some(&self.name)).map(Some) } else { Ok(None) }
    }

    fn refused(&self, answer: &Answer) -> Error {
        match (&self.replace, answer.status) {
            (Replace::Version(_), 412) => not_that_version(),
            (_, 404 | 410) => Error::new(Kind::StoreUnwritable, "the bucket does not exist, or the upload session has ended"),
            _ => answer.refused(Doing::Writing),
        }
    }
}

impl ChunkProtocol for Object {
    fn chunk(&self) -> usize {
        PIECE_BYTES
    }

    fn put(&self, bytes: Bytes) -> BoxFuture<'_, ObjectInfo> {
        Box::pin(self.put_whole(bytes))
    }

    fn begin(&self) -> BoxFuture<'_, String> {
        Box::pin(self.begin_session())
    }

    fn send<'a>(&'a self, session: &'a str, offset: u64, bytes: Bytes, total: Option<u64>) -> BoxFuture<'a, Progress> {
        Box::pin(async move {
            let was_tried = total.is_some() && self.was_tried.swap(true, Ordering::Relaxed);
            let reply = resumable::send(&self.bucket.http, session, offset, bytes, total).await?;
            self.progress(reply, was_tried).await
        })
    }

    fn position<'a>(&'a self, session: &'a str, total: Option<u64>) -> BoxFuture<'a, Progress> {
        Box::pin(async move {
            let reply = resumable::position(&self.bucket.http, session, total).await?;
            self.progress(reply, total.is_some()).await
        })
    }

    fn abandon<'a>(&'a self, session: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(resumable::abandon(&self.bucket.http, session))
    }
}
