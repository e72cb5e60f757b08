//! Uploads to a bucket: one request for a small object, a resumable session for a large one.
//!
//! The condition on what may be replaced goes with the request that starts a session; Cloud Storage checks it when the object appears.
//! A session that is left alone is invisible and ends after a week. Its address is all that is needed to write to it, so it appears in
//! no message and no token goes there.
//!
//! Whether an answer was lost on its way is told by checksum and size: under the name lies either what we sent or something else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::super::http::{Answer, Call, Doing, encoded};
use super::super::session::{ChunkProtocol, Progress, SessionUpload};
use super::super::{BoxFuture, ObjectInfo, Replace, Upload};
use super::bucket::{Bucket, Metadata, check_name, is_generation};
use super::crc::Checksum;
use super::delete;
use super::errors::Refusal;
use crate::error::{Error, Kind, Result};

/// Bytes of a piece: a multiple of 256 KiB, and what Google recommends at least.
const PIECE_BYTES: usize = 8 << 20;

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
    let upload = ObjectUpload {
        bucket: Arc::clone(bucket),
        name: name.to_owned(),
        replace,
        checksum: Mutex::default(),
        was_tried: AtomicBool::new(false),
    };
    Ok(Box::new(SessionUpload::new(upload, bucket.patience)))
}

fn not_that_version() -> Error {
    Error::new(Kind::ObjectChanged, "the object is not the one that is to be replaced")
}

fn ended() -> Error {
    Error::new(Kind::StoreUnwritable, "the upload session has ended at the store")
}

struct ObjectUpload {
    bucket: Arc<Bucket>,
    name: String,
    replace: Replace,
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

    /// Whether an object is what was sent. `None` where the store does not say.
    fn is_ours(&self, found: &Metadata, object: &ObjectInfo) -> Option<bool> {
        let checksum = self.checksum.lock().unwrap_or_else(PoisonError::into_inner);
        if object.size != checksum.length() {
            return Some(false);
        }
        found.crc32c.as_ref().map(|said| *said == checksum.text())
    }

    /// The object that a publishing request answers, if it is what we sent.
    async fn published(&self, answer: Answer) -> Result<ObjectInfo> {
        let found: Metadata = answer.json().await?;
        let object = found.object()?;
        if object.name == self.name && self.is_ours(&found, &object) != Some(false) {
            return Ok(object);
        }
        // Nobody may use it, and the next attempt needs the name.
        let _ = delete(&self.bucket, &self.name, Some(&object.version)).await;
        Err(Error::new(Kind::StoreUnwritable, "what the store has is not what was sent"))
    }

    /// What lies under the name, if it is what we sent.
    async fn arrived(&self) -> Result<Option<ObjectInfo>> {
        match self.bucket.look(&self.name).await {
            Ok(found) => found.object().map(|object| Some(object).filter(|object| self.is_ours(&found, object) == Some(true))),
            Err(error) if matches!(error.kind(), Kind::ObjectNotFound | Kind::AccessDenied) => Ok(None),
            Err(error) => Err(error),
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

    async fn send_piece(&self, session: &str, offset: u64, bytes: Bytes, total: Option<u64>) -> Result<Progress> {
        self.absorb(offset, &bytes);
        let end = offset + bytes.len() as u64;
        let whole = total.map_or("*".to_owned(), |total| total.to_string());
        let range = match end.checked_sub(1).filter(|_| !bytes.is_empty()) {
            Some(last) => format!("bytes {offset}-{last}/{whole}"),
            None => format!("bytes */{whole}"),
        };
        let was_tried = total.is_some() && self.was_tried.swap(true, Ordering::Relaxed);
        let answer = self.bucket.send_to_session(Call::new("PUT", session).header("content-range", range).body(bytes)).await?;
        self.progress(answer, was_tried).await
    }

    /// What a session answers: so far, or done.
    async fn progress(&self, answer: std::result::Result<Answer, Refusal>, was_tried: bool) -> Result<Progress> {
        match answer {
            Ok(answer) if answer.status == 308 => received(answer.header("range")).map(Progress::Received),
            Ok(answer) => self.published(answer).await.map(Progress::Done),
            Err(refusal) if matches!(refusal.status, 404 | 410) => Err(ended()),
            Err(refusal) => self.explained(refusal, was_tried).await.map(Progress::Done),
        }
    }
}

/// How many bytes a session has, by `Range: bytes=0-last`; without one it has none.
fn received(range: Option<&str>) -> Result<u64> {
    let Some(range) = range else { return Ok(0) };
    let last = range.strip_prefix("bytes=0-").or_else(|| range.strip_prefix("0-")).and_then(|last| last.parse::<u64>().ok());
    last.and_then(|last| last.checked_add(1)).ok_or_else(|| super::nonsense("a session that does not say how far it is"))
}

impl ChunkProtocol for ObjectUpload {
    fn chunk(&self) -> usize {
        PIECE_BYTES
    }

    fn put(&self, bytes: Bytes) -> BoxFuture<'_, ObjectInfo> {
        Box::pin(async move {
            self.absorb(0, &bytes);
            let call = Call::new("POST", self.bucket.uploads(&self.query("media"))).header("content-type", "application/octet-stream");
            let was_tried = self.was_tried.swap(true, Ordering::Relaxed);
            match self.bucket.send(Doing::Writing, call.body(bytes)).await? {
                Ok(answer) => self.published(answer).await,
                Err(refusal) => self.explained(refusal, was_tried).await,
            }
        })
    }

    fn begin(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let call = Call::new("POST", self.bucket.uploads(&self.query("resumable")));
            let call = call.header("x-upload-content-type", "application/octet-stream");
            let answer = self.bucket.send(Doing::Writing, call).await?.map_err(|refusal| self.refused(refusal))?;
            self.bucket.checked_session(answer.header("location").ok_or_else(|| super::nonsense("a session without an address"))?)
        })
    }

    fn send<'a>(&'a self, session: &'a str, offset: u64, bytes: Bytes, total: Option<u64>) -> BoxFuture<'a, Progress> {
        Box::pin(self.send_piece(session, offset, bytes, total))
    }

    fn position<'a>(&'a self, session: &'a str, total: Option<u64>) -> BoxFuture<'a, Progress> {
        Box::pin(async move {
            let whole = total.map_or("*".to_owned(), |total| total.to_string());
            let call = Call::new("PUT", session).header("content-range", format!("bytes */{whole}"));
            let answer = self.bucket.send_to_session(call).await?;
            if let Err(refusal) = &answer
                && matches!(refusal.status, 404 | 410)
                && total.is_some()
                && let Some(object) = self.arrived().await?
            {
                // A session that did its work may be gone, too.
                return Ok(Progress::Done(object));
            }
            self.progress(answer, total.is_some()).await
        })
    }

    fn abandon<'a>(&'a self, session: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match self.bucket.send_to_session(Call::new("DELETE", session)).await? {
                // 499 is the answer to a session that was given up.
                Err(refusal) if !matches!(refusal.status, 404 | 410 | 499) => Err(refusal.error()),
                _ => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_says_how_far_it_is() {
        for (range, expected) in [(None, Some(0)), (Some("bytes=0-42"), Some(43)), (Some("0-42"), Some(43))] {
            assert_eq!(received(range).ok(), expected, "{range:?}");
        }
        for nonsense in ["bytes=1-42", "bytes=0-", "bytes=0-18446744073709551615", "", "42"] {
            assert_eq!(received(Some(nonsense)).unwrap_err().kind(), Kind::ServerFailed, "{nonsense}");
        }
    }
}
