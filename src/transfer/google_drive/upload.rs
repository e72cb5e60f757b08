//! Uploads to a drive: one request for a small file, a resumable session for a large one.
//!
//! A new file gets its id beforehand, so that a request that is sent twice makes one file, and so that we know our own. A file that is to be
//! replaced keeps its id and gets a new revision. The SHA-256 that Drive tells is compared with what was sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::super::google::resumable::{self, PIECE_BYTES, Reply};
use super::super::http::{Call, Doing};
use super::super::listing::nonsense;
use super::super::session::{ChunkProtocol, Progress, SessionUpload};
use super::super::{BoxFuture, ObjectInfo, Replace, Upload};
use super::account::{Account, Item};
use super::errors::Refusal;
use crate::error::{Error, Kind, Result};

/// Largest file that goes in one request; Drive takes 5 MB in it, with what goes around it.
const SMALL_BYTES: usize = 4 << 20;

/// Starts an upload. Whether its condition holds is asked first, so that nobody sends gibibytes in vain.
pub(super) async fn start(account: &Arc<Account>, name: &str, replace: Replace) -> Result<Box<dyn Upload>> {
    account.forget(name);
    let found = account.find(name).await.map_err(without_folder)?;
    match (&replace, &found) {
        (Replace::Never, Some(_)) => return Err(Error::new(Kind::ObjectExists, "")),
        (Replace::Version(version), found) if found.as_ref().and_then(Item::version).as_ref() != Some(version) => {
            return Err(not_that_version());
        }
        _ => {}
    }
    let hash = Arc::new(Mutex::new(Sha256::new()));
    let file = FileUpload {
        account: Arc::clone(account),
        name: name.to_owned(),
        replace,
        replaced: found.map(|item| item.id),
        made: OnceCell::new(),
        hash: Arc::clone(&hash),
        was_tried: AtomicBool::new(false),
    };
    Ok(Box::new(Hashed { hash, upload: Box::new(SessionUpload::new(file, account.patience)) }))
}

fn not_that_version() -> Error {
    Error::new(Kind::ObjectChanged, "the object is not the one that is to be replaced")
}

/// What is missing when something is written is the place, not the object.
fn without_folder(error: Error) -> Error {
    match error.kind() {
        Kind::ObjectNotFound => Error::new(Kind::StoreUnwritable, "there is no folder of the id in cloud.folder_id, or it was removed"),
        _ => error,
    }
}

/// An upload whose bytes are hashed as they come.
struct Hashed {
    hash: Arc<Mutex<Sha256>>,
    upload: Box<SessionUpload<FileUpload>>,
}

impl Upload for Hashed {
    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        self.hash.lock().unwrap_or_else(PoisonError::into_inner).update(&bytes);
        self.upload.write(bytes)
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, ObjectInfo> {
        self.upload.finish()
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, ()> {
        self.upload.abort()
    }
}

/// Where a new file goes.
struct Made {
    id: String,
    parent: String,
}

struct FileUpload {
    account: Arc<Account>,
    name: String,
    replace: Replace,
    /// The file that gets new content; none if a file is made.
    replaced: Option<String>,
    made: OnceCell<Made>,
    /// SHA-256 of what was written so far; of the whole, once the last piece goes.
    hash: Arc<Mutex<Sha256>>,
    /// Whether a request that publishes was sent before, so that it may have done its work unheard.
    was_tried: AtomicBool,
}

impl FileUpload {
    fn hash(&self) -> String {
        let hash = self.hash.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The id of a new file and the folder that it goes into, which is made only now that there is something to go into it.
    async fn made(&self) -> Result<&Made> {
        let making = || async {
            let path = self.name.rsplit_once('/').map_or("", |(path, _)| path);
            let parent = self.account.make_folders(path).await.map_err(without_folder)?;
            Ok(Made { id: self.account.new_id().await?, parent })
        };
        self.made.get_or_try_init(making).await
    }

    /// Id of the file, the method that sends its content, and what is said about it.
    async fn target(&self) -> Result<(&str, &'static str, Value)> {
        if let Some(id) = &self.replaced {
            return Ok((id, "PATCH", json!({})));
        }
        let made = self.made().await?;
        let name = self.name.rsplit_once('/').map_or(self.name.as_str(), |(_, name)| name);
        let about = json!({ "id": made.id, "name": name, "parents": [made.parent], "mimeType": "application/octet-stream" });
        Ok((&made.id, "POST", about))
    }

    /// The last look before a file gets new content, since Drive has no condition for that.
    async fn still_that_version(&self) -> Result<()> {
        let (Replace::Version(version), Some(id)) = (&self.replace, &self.replaced) else { return Ok(()) };
        match self.account.look(Doing::Reading, id).await {
            Ok(item) if !item.trashed && item.version().as_ref() == Some(version) => Ok(()),
            Err(error) if error.kind() != Kind::ObjectNotFound => Err(error),
            _ => Err(not_that_version()),
        }
    }

    async fn put_whole(&self, bytes: Bytes) -> Result<ObjectInfo> {
        if let Some(object) = self.before_publishing().await? {
            return Ok(object);
        }
        let (id, method, about) = self.target().await?;
        let boundary = format!("smp{}", self.hash());
        let mut body = format!("--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{about}\r\n").into_bytes();
        body.extend_from_slice(format!("--{boundary}\r\ncontent-type: application/octet-stream\r\n\r\n").as_bytes());
        body.extend_from_slice(&bytes);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let url = self.account.upload(self.replaced.as_deref().map(|_| id), "multipart");
        let call = Call::new(method, url).header("content-type", format!("multipart/related; boundary={boundary}")).body(body);
        match self.account.send(Doing::Writing, call).await? {
            Ok(answer) => self.published(answer.json().await?).await,
            Err(refusal) => Err(refused(refusal)),
        }
    }

    async fn begin_session(&self) -> Result<String> {
        let (id, method, about) = self.target().await?;
        let call = Call::new(method, self.account.upload(self.replaced.as_deref().map(|_| id), "resumable"));
        match self.account.send(Doing::Writing, call.json(&about).header("x-upload-content-type", "application/octet-stream")).await? {
            Ok(answer) => resumable::session(&self.account.http, &answer),
            Err(refusal) => Err(refused(refusal)),
        }
    }

    /// Checks the condition before a request that publishes; after one whose answer was lost, answers the object if it is there.
    async fn before_publishing(&self) -> Result<Option<ObjectInfo>> {
        if self.was_tried.swap(true, Ordering::Relaxed)
            && let Some(object) = self.arrived().await?
        {
            return Ok(Some(object));
        }
        self.still_that_version().await.map(|()| None)
    }

    /// The object that a request published whose answer was lost.
    async fn arrived(&self) -> Result<Option<ObjectInfo>> {
        let (id, ..) = self.target().await?;
        let item = match self.account.look(Doing::Reading, id).await {
            Ok(item) => item,
            Err(error) if error.kind() == Kind::ObjectNotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // The id of a new file is proof enough, whose content is compared next. A file that was there has ours or another's.
        if !item.trashed && (self.replaced.is_none() || item.hash() == Some(self.hash().as_str())) {
            return self.published(item).await.map(Some);
        }
        Ok(None)
    }

    /// The object that a publishing request answers, if it is what we sent and the only one of its name.
    async fn published(&self, item: Item) -> Result<ObjectInfo> {
        let (id, ..) = self.target().await?;
        if item.id != id {
            return Err(nonsense("the id of another file"));
        }
        if item.hash().is_some_and(|hash| !hash.eq_ignore_ascii_case(&self.hash())) {
            // Nobody may use it, and the next attempt needs the name.
            self.account.trash(id).await?;
            return Err(Error::new(Kind::StoreUnwritable, "what the store has is not what was sent"));
        }
        if item.trashed {
            return Err(Error::new(Kind::StoreUnwritable, "the object, or the folder that it is in, was moved into the bin"));
        }
        if self.replaced.is_none() && self.account.find_all(&self.name).await?.iter().any(|found| found.id != id) {
            self.account.trash(id).await?;
            return Err(match self.replace {
                Replace::Never => Error::new(Kind::ObjectExists, ""),
                _ => Error::new(Kind::StoreUnwritable, "somebody else made an object of that name at the same time"),
            });
        }
        self.account.know(&self.name, &item);
        item.object(&self.name)
    }

    async fn progress(&self, reply: Reply, total: Option<u64>) -> Result<Progress> {
        match reply {
            Reply::Received(bytes) => Ok(Progress::Received(bytes)),
            Reply::Done(answer) => self.published(answer.json().await?).await.map(Progress::Done),
            Reply::Refused(answer) => {
                let refusal = Refusal::of(answer, Doing::Writing).await;
                // A session that did its work may be gone.
                if total.is_some()
                    && matches!(refusal.status, 404 | 410)
                    && let Some(object) = self.arrived().await?
                {
                    return Ok(Progress::Done(object));
                }
                Err(match refusal.status {
                    404 | 410 => Error::new(Kind::StoreUnwritable, "the upload session has ended at the store"),
                    _ => refused(refusal),
                })
            }
        }
    }

    async fn send_piece(&self, session: &str, offset: u64, bytes: Bytes, total: Option<u64>) -> Result<Progress> {
        if total.is_some()
            && let Some(object) = self.before_publishing().await?
        {
            return Ok(Progress::Done(object));
        }
        self.progress(resumable::send(&self.account.http, session, offset, bytes, total).await?, total).await
    }
}

fn refused(refusal: Refusal) -> Error {
    without_folder(refusal.error())
}

impl ChunkProtocol for FileUpload {
    fn chunk(&self) -> usize {
        PIECE_BYTES
    }

    fn put(&self, bytes: Bytes) -> BoxFuture<'_, ObjectInfo> {
        Box::pin(async move {
            if bytes.len() <= SMALL_BYTES {
                return self.put_whole(bytes).await;
            }
            // Before a session is begun in vain: the one before may have done its work unheard.
            if self.was_tried.load(Ordering::Relaxed)
                && let Some(object) = self.arrived().await?
            {
                return Ok(object);
            }
            let session = self.begin_session().await?;
            let total = bytes.len() as u64;
            let sent = match self.send_piece(&session, 0, bytes, Some(total)).await {
                Ok(Progress::Done(object)) => return Ok(object),
                Ok(Progress::Received(_)) => Err(Error::new(Kind::TransferInterrupted, "the store did not take all that was sent")),
                Err(error) => Err(error),
            };
            let _ = resumable::abandon(&self.account.http, &session).await;
            sent
        })
    }

    fn begin(&self) -> BoxFuture<'_, String> {
        Box::pin(self.begin_session())
    }

    fn send<'a>(&'a self, session: &'a str, offset: u64, bytes: Bytes, total: Option<u64>) -> BoxFuture<'a, Progress> {
        Box::pin(self.send_piece(session, offset, bytes, total))
    }

    fn position<'a>(&'a self, session: &'a str, total: Option<u64>) -> BoxFuture<'a, Progress> {
        Box::pin(async move { self.progress(resumable::position(&self.account.http, session, total).await?, total).await })
    }

    fn abandon<'a>(&'a self, session: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(resumable::abandon(&self.account.http, session))
    }
}
