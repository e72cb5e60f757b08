//! Uploads to a bucket: one request for a small object, a resumable session for a large one.
//!
//! The condition on what may be replaced goes with the request that begins; Cloud Storage checks it when the object appears. The checksum of
//! a small object is said beforehand, so the store refuses what changed on the way; that of a large one is known at its end only, so what
//! the store answers is compared, and an object that differs is removed.
//!
//! Whether an answer was lost on its way is told by a random word in the object's own metadata.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::json;

use super::super::google::resumable::{self, PIECE_BYTES, Reply};
use super::super::http::{Answer, Call, Doing, encoded};
use super::super::session::{ChunkProtocol, Progress, SessionUpload};
use super::super::{BoxFuture, ObjectInfo, Replace, Upload};
use super::bucket::{Bucket, Metadata, check_name, is_generation};
use super::crc::Checksum;
use super::delete;
use super::errors::Refusal;
use crate::error::{Error, Kind, Result};

/// Key of the word by which an upload knows its own object.
const WORD: &str = "smp-upload";

/// Starts an upload. Whether the name is free is asked first, so that nobody sends an hour's bytes in vain.
pub(super) async fn start(bucket: &Arc<Bucket>, name: &str, replace: Replace) -> Result<Box<dyn Upload>> {
    check_name(name)?;
    match &replace {
        Replace::Allowed => {}
        Replace::Never => match bucket.look(name).await {
            Ok(_) => return Err(Error::new(Kind::ObjectExists, "")),
            // Who may write need not be one who may read; the condition holds all the same.
            Err(error) if matches!(error.kind(), Kind::ObjectNotFound | Kind::AccessDenied) => {}
            Err(error) => return Err(error),
        },
        Replace::Version(version) => match bucket.look(name).await {
            Ok(found) if found.generation == *version && is_generation(version) => {}
            Err(error) if error.kind() != Kind::ObjectNotFound => return Err(error),
            _ => return Err(not_that_version()),
        },
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| Error::new(Kind::Internal, "the system gives no random numbers"))?;
    let upload = ObjectUpload {
        bucket: Arc::clone(bucket),
        name: name.to_owned(),
        replace,
        word: format!("{:032x}", u128::from_le_bytes(random)),
        checksum: Mutex::default(),
        was_tried: AtomicBool::new(false),
    };
    Ok(Box::new(SessionUpload::new(upload, bucket.patience)))
}

fn not_that_version() -> Error {
    Error::new(Kind::ObjectChanged, "the object is not the one that is to be replaced")
}

struct ObjectUpload {
    bucket: Arc<Bucket>,
    name: String,
    replace: Replace,
    word: String,
    /// Of all that was sent.
    checksum: Mutex<Checksum>,
    /// Whether a request that publishes was sent before, so that it may have done its work unheard.
    was_tried: AtomicBool,
}

impl ObjectUpload {
    fn query(&self, kind: &str) -> String {
        let condition = match &self.replace {
            Replace::Never => "&ifGenerationMatch=0".to_owned(),
            Replace::Allowed => String::new(),
            Replace::Version(version) => format!("&ifGenerationMatch={version}"),
        };
        format!("uploadType={kind}&name={}{condition}", encoded(&self.name))
    }

    /// Counts bytes that are sent.
    fn absorb(&self, offset: u64, bytes: &[u8]) {
        self.checksum.lock().unwrap_or_else(PoisonError::into_inner).absorb(offset, bytes);
    }

    /// What is said about the object before its bytes are sent.
    fn described(&self, checksum: Option<String>) -> String {
        let mut about = json!({ "name": self.name, "contentType": "application/octet-stream", "metadata": { WORD: self.word } });
        if let (Some(fields), Some(checksum)) = (about.as_object_mut(), checksum) {
            fields.insert("crc32c".to_owned(), json!(checksum));
        }
        about.to_string()
    }

    /// Whether an object has the bytes that were sent; a gateway may know no checksums.
    fn is_whole(&self, found: &Metadata, object: &ObjectInfo) -> bool {
        let checksum = self.checksum.lock().unwrap_or_else(PoisonError::into_inner);
        object.size == checksum.length() && found.crc32c.as_ref().is_none_or(|said| *said == checksum.text())
    }

    /// The object that the store says to have published, if it is what we sent.
    async fn checked(&self, found: Metadata) -> Result<ObjectInfo> {
        let object = found.object()?;
        if object.name == self.name && self.is_whole(&found, &object) {
            return Ok(object);
        }
        // Nobody may use it, and the next attempt needs the name.
        let _ = delete(&self.bucket, &self.name, Some(&object.version)).await;
        Err(Error::new(Kind::StoreUnwritable, "what the store has is not what was sent"))
    }

    /// What lies under the name, if it is our own.
    async fn arrived(&self) -> Result<Option<ObjectInfo>> {
        match self.bucket.look(&self.name).await {
            Ok(found) if found.metadata.get(WORD) == Some(&self.word) => self.checked(found).await.map(Some),
            Err(error) if !matches!(error.kind(), Kind::ObjectNotFound | Kind::AccessDenied) => Err(error),
            _ => Ok(None),
        }
    }

    /// Why a publishing request was refused. After one whose answer was lost, the object in the way may be our own.
    async fn explained(&self, refusal: Refusal, was_tried: bool) -> Result<ObjectInfo> {
        if was_tried
            && refusal.is_condition()
            && let Some(object) = self.arrived().await?
        {
            return Ok(object);
        }
        Err(self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match self.replace {
            Replace::Version(_) if refusal.is_condition() => not_that_version(),
            _ => refusal.error(),
        }
    }

    async fn put_whole(&self, bytes: Bytes) -> Result<ObjectInfo> {
        self.absorb(0, &bytes);
        let boundary = format!("smp{}", self.word);
        let about = self.described(Some(Checksum::of(&bytes)));
        let mut body = format!("--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{about}\r\n").into_bytes();
        body.extend_from_slice(format!("--{boundary}\r\ncontent-type: application/octet-stream\r\n\r\n").as_bytes());
        body.extend_from_slice(&bytes);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let call = Call::new("POST", self.bucket.uploads(&self.query("multipart")));
        let call = call.header("content-type", format!("multipart/related; boundary={boundary}")).body(body);
        let was_tried = self.was_tried.swap(true, Ordering::Relaxed);
        match self.bucket.send(Doing::Writing, call).await? {
            Ok(answer) => self.checked(answer.json().await?).await,
            Err(refusal) => self.explained(refusal, was_tried).await,
        }
    }

    async fn begin_session(&self) -> Result<String> {
        let call = Call::new("POST", self.bucket.uploads(&self.query("resumable")));
        let call = call.header("content-type", "application/json; charset=UTF-8").body(self.described(None));
        let call = call.header("x-upload-content-type", "application/octet-stream");
        let answer = self.bucket.send(Doing::Writing, call).await?.map_err(|refusal| self.refused(refusal))?;
        resumable::session(&self.bucket.http, &answer)
    }

    /// What a session answers: so far, or done.
    async fn progress(&self, reply: Reply, was_tried: bool) -> Result<Progress> {
        match reply {
            Reply::Received(bytes) => Ok(Progress::Received(bytes)),
            Reply::Done(answer) => self.checked(answer.json().await?).await.map(Progress::Done),
            Reply::Refused(answer) => self.ended(answer, was_tried).await.map(Progress::Done),
        }
    }

    /// A session that says no. One that did its work may be gone, too.
    async fn ended(&self, answer: Answer, was_tried: bool) -> Result<ObjectInfo> {
        if !matches!(answer.status, 404 | 410) {
            return self.explained(Refusal::of(answer, Doing::Writing).await, was_tried).await;
        }
        let arrived = if was_tried { self.arrived().await? } else { None };
        arrived.ok_or_else(|| Error::new(Kind::StoreUnwritable, "the upload session has ended at the store"))
    }
}

impl ChunkProtocol for ObjectUpload {
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
            self.absorb(offset, &bytes);
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
