//! Uploads to Dropbox: one request for a small file, a session for a large one.
//!
//! A session has no request that asks how far it is; instead each piece says where it begins, and Dropbox answers a wrong beginning with the
//! right one. A session that is left alone is invisible and ends after seven days.
//!
//! Whether an answer was lost on its way is told by content: under the name lies either what we sent or something else.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::http::{Answer, Doing};
use super::super::names::check_parts;
use super::super::session::{ChunkProtocol, Progress, SessionUpload};
use super::super::{BoxFuture, ObjectInfo, Replace, Upload};
use super::account::{Account, Content, Metadata};
use super::errors::Refusal;
use super::hash::{BLOCK_BYTES, ContentHash};
use super::{delete, look};
use crate::error::{Error, Kind, Result};

/// Bytes of a piece: whole blocks, well below the 150 MiB that Dropbox takes in one request.
const PIECE_BYTES: usize = 2 * BLOCK_BYTES;

/// Starts an upload. Whether the name is free is asked first, so that nobody sends an hour's bytes in vain.
pub(super) async fn start(account: &Arc<Account>, name: &str, replace: Replace) -> Result<Box<dyn Upload>> {
    check_parts(name)?;
    match (look(account, name).await, &replace) {
        (_, Replace::Allowed) => {}
        (Ok(_), Replace::Never) => return Err(Error::new(Kind::ObjectExists, "")),
        (Ok(found), Replace::Version(version)) if found.rev.as_deref() == Some(version) => {}
        (Err(error), Replace::Never) if error.kind() == Kind::ObjectNotFound => {}
        (Err(error), Replace::Never) => return Err(error),
        (Err(error), Replace::Version(_)) if error.kind() != Kind::ObjectNotFound => return Err(error),
        (_, Replace::Version(_)) => return Err(not_that_version()),
    }
    let upload = FileUpload {
        account: Arc::clone(account),
        path: account.path(name).await?,
        name: name.to_owned(),
        replace,
        hash: Mutex::default(),
        reached: AtomicU64::new(0),
        was_tried: AtomicBool::new(false),
    };
    Ok(Box::new(SessionUpload::new(upload, account.patience)))
}

fn not_that_version() -> Error {
    Error::new(Kind::ObjectChanged, "the object is not the one that is to be replaced")
}

struct FileUpload {
    account: Arc<Account>,
    path: String,
    name: String,
    replace: Replace,
    /// Of all that was sent.
    hash: Mutex<ContentHash>,
    /// Bytes that Dropbox said it has.
    reached: AtomicU64,
    /// Whether a request that publishes was sent before, so that it may have done its work unheard.
    was_tried: AtomicBool,
}

#[derive(Deserialize)]
struct Session {
    session_id: String,
}

impl FileUpload {
    /// How and where a file is to appear (`CommitInfo`). Without strict conflicts, a file of the same content would count as free.
    fn commit(&self) -> Value {
        let mode = match &self.replace {
            Replace::Never => json!("add"),
            Replace::Allowed => json!("overwrite"),
            Replace::Version(rev) => json!({ ".tag": "update", "update": rev }),
        };
        json!({ "path": self.path, "mode": mode, "autorename": false, "mute": true, "strict_conflict": true })
    }

    /// The file that a publishing request answers, if it is what we sent.
    async fn published(&self, answer: Answer, hash: &str) -> Result<ObjectInfo> {
        let metadata: Metadata = answer.json().await?;
        let object = metadata.object(&self.name)?;
        if metadata.content_hash.as_deref() == Some(hash) {
            return Ok(object);
        }
        // Nobody may use it, and the next attempt needs the name.
        let _ = delete(&self.account, &self.name, &metadata).await;
        Err(Error::new(Kind::StoreUnwritable, "what the store has is not what was sent"))
    }

    /// What lies under the name, if it is what we sent.
    async fn arrived(&self, hash: &str) -> Result<Option<ObjectInfo>> {
        match look(&self.account, &self.name).await {
            Ok(found) if found.content_hash.as_deref() == Some(hash) => found.object(&self.name).map(Some),
            Err(error) if error.kind() != Kind::ObjectNotFound => Err(error),
            _ => Ok(None),
        }
    }

    /// Why a publishing request was refused. After one whose answer was lost, the file in the way may be our own.
    async fn explained(&self, refusal: Refusal, hash: &str, was_tried: bool) -> Result<ObjectInfo> {
        if was_tried
            && refusal.says("conflict/file")
            && let Some(object) = self.arrived(hash).await?
        {
            return Ok(object);
        }
        Err(match (&self.replace, refusal.error()) {
            (Replace::Version(_), error) if error.kind() == Kind::ObjectExists => not_that_version(),
            (_, error) => error,
        })
    }

    /// The hash of all that was sent, after these bytes were.
    fn hash(&self, offset: u64, bytes: &[u8]) -> String {
        let mut hash = self.hash.lock().unwrap_or_else(PoisonError::into_inner);
        hash.absorb(offset, bytes);
        hash.text()
    }

    async fn send_piece(&self, session: &str, offset: u64, bytes: Bytes) -> Result<Progress> {
        self.hash(offset, &bytes);
        let end = offset + bytes.len() as u64;
        let argument = json!({
            "cursor": { "session_id": session, "offset": offset }, "close": false, "content_hash": ContentHash::of(&bytes),
        });
        let answer = self.account.transfer(Doing::Writing, "files/upload_session/append_v2", &argument, Content::Sent(bytes)).await?;
        match answer {
            Ok(_) => Ok(self.received(end)),
            Err(refusal) => self.misplaced(refusal, offset),
        }
    }

    async fn send_last(&self, session: &str, offset: u64, bytes: Bytes) -> Result<Progress> {
        let hash = self.hash(offset, &bytes);
        let argument = json!({
            "cursor": { "session_id": session, "offset": offset }, "commit": self.commit(), "content_hash": ContentHash::of(&bytes),
        });
        let was_tried = self.was_tried.swap(true, Ordering::Relaxed);
        let answer = self.account.transfer(Doing::Writing, "files/upload_session/finish", &argument, Content::Sent(bytes)).await?;
        match answer {
            Ok(answer) => self.published(answer, &hash).await.map(Progress::Done),
            Err(refusal) if refusal.says("lookup_failed") => self.misplaced(refusal, offset),
            Err(refusal) => self.explained(refusal, &hash, was_tried).await.map(Progress::Done),
        }
    }

    fn received(&self, end: u64) -> Progress {
        self.reached.store(end, Ordering::Relaxed);
        Progress::Received(end)
    }

    /// A piece whose beginning was wrong: Dropbox has more than it could tell us.
    fn misplaced(&self, refusal: Refusal, offset: u64) -> Result<Progress> {
        match refusal.correct_offset {
            Some(right) if right > offset => Ok(self.received(right)),
            Some(_) => Err(Error::new(Kind::StoreUnwritable, "the store lost bytes that it had received")),
            None if refusal.says("not_found") || refusal.says("closed") => {
                Err(Error::new(Kind::StoreUnwritable, "the upload session has ended at the store"))
            }
            None => Err(refusal.error()),
        }
    }
}

impl ChunkProtocol for FileUpload {
    fn chunk(&self) -> usize {
        PIECE_BYTES
    }

    fn put(&self, bytes: Bytes) -> BoxFuture<'_, ObjectInfo> {
        Box::pin(async move {
            let hash = ContentHash::of(&bytes);
            let mut argument = self.commit();
            if let Some(fields) = argument.as_object_mut() {
                fields.insert("content_hash".to_owned(), json!(hash));
            }
            let was_tried = self.was_tried.swap(true, Ordering::Relaxed);
            match self.account.transfer(Doing::Writing, "files/upload", &argument, Content::Sent(bytes)).await? {
                Ok(answer) => self.published(answer, &hash).await,
                Err(refusal) => self.explained(refusal, &hash, was_tried).await,
            }
        })
    }

    fn begin(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let argument = json!({ "close": false });
            let answer =
                self.account.transfer(Doing::Writing, "files/upload_session/start", &argument, Content::Sent(Bytes::new())).await?;
            let session: Session = answer.map_err(|refusal| refusal.error())?.json().await?;
            Ok(session.session_id)
        })
    }

    fn send<'a>(&'a self, session: &'a str, offset: u64, bytes: Bytes, total: Option<u64>) -> BoxFuture<'a, Progress> {
        match total {
            None => Box::pin(self.send_piece(session, offset, bytes)),
            Some(_) => Box::pin(self.send_last(session, offset, bytes)),
        }
    }

    fn position<'a>(&'a self, _session: &'a str, total: Option<u64>) -> BoxFuture<'a, Progress> {
        Box::pin(async move {
            if total.is_some() {
                let hash = self.hash(u64::MAX, &[]);
                if let Some(object) = self.arrived(&hash).await? {
                    return Ok(Progress::Done(object));
                }
            }
            Ok(Progress::Received(self.reached.load(Ordering::Relaxed)))
        })
    }

    fn abandon<'a>(&'a self, _session: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}
