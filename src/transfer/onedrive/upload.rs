//! Uploads to a drive: one request for a small file, a session for a large one.
//!
//! Graph must be told how long a file is with its first piece. Sealing says it beforehand, so its objects go as they come; an object of
//! unknown size is held in memory until all of it is there.
//!
//! Whether an answer was lost on its way is told by content: under the name lies either what we sent or something else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::super::http::{Call, Doing};
use super::super::session::{ChunkProtocol, Progress, SessionUpload};
use super::super::{BoxFuture, ObjectInfo, Replace, Upload};
use super::errors::Refusal;
use super::graph::{Drive, Item};
use super::hash::QuickXorHash;
use super::{delete, look, names};
use crate::error::{Error, Kind, Result, Stage};

/// Bytes of a piece: a multiple of the 320 KiB that Graph asks for, below the 60 MiB that it takes in one request.
const PIECE_BYTES: usize = 32 * (320 << 10);
/// Largest file that goes in one request, by the limit of every kind of drive.
const SMALL_BYTES: usize = 4 << 20;
/// Largest object that is held: the largest pack of the format with its tags.
const OBJECT_BYTES: u64 = (1 << 30) + (64 << 20);

/// Starts an upload. Whether the name is free is asked first, so that nobody prepares an object in vain.
pub(super) async fn start(drive: &Arc<Drive>, name: &str, replace: Replace) -> Result<Box<dyn Upload>> {
    names::check(name)?;
    match (look(drive, name).await, &replace) {
        (_, Replace::Allowed) => {}
        (Ok(_), Replace::Never) => return Err(Error::new(Kind::ObjectExists, "")),
        (Ok(found), Replace::Version(version)) if found.version() == Some(version) => {}
        (Err(error), Replace::Never) if error.kind() == Kind::ObjectNotFound => {}
        (Err(error), Replace::Never) => return Err(error),
        (Err(error), Replace::Version(_)) if error.kind() != Kind::ObjectNotFound => return Err(error),
        (_, Replace::Version(_)) => return Err(not_that_version()),
    }
    let file = FileUpload {
        drive: Arc::clone(drive),
        name: name.to_owned(),
        replace,
        total: 0,
        hash: Arc::new(Mutex::new(QuickXorHash::new())),
        was_tried: AtomicBool::new(false),
    };
    Ok(Box::new(DriveUpload { hash: Arc::clone(&file.hash), size: 0, way: Way::Held(file, Vec::new()) }))
}

fn not_that_version() -> Error {
    Error::new(Kind::ObjectChanged, "the object is not the one that is to be replaced")
}

/// An upload whose bytes are hashed as they come.
struct DriveUpload {
    hash: Arc<Mutex<QuickXorHash>>,
    /// Bytes written.
    size: u64,
    way: Way,
}

/// How an object goes.
enum Way {
    /// Nobody said how large it becomes, so it waits in memory.
    Held(FileUpload, Vec<Vec<u8>>),
    /// It goes as it comes; so many bytes were promised.
    Sent(u64, Box<SessionUpload<FileUpload>>),
    /// It failed.
    Lost,
}

impl DriveUpload {
    async fn write_now(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        self.hash.lock().unwrap_or_else(PoisonError::into_inner).update(&bytes);
        match &mut self.way {
            Way::Sent(promised, _) if self.size > *promised => Err(Error::new(Kind::Internal, "an object is larger than was said")),
            Way::Sent(_, upload) => upload.write(bytes).await,
            Way::Held(_, pieces) if self.size <= OBJECT_BYTES => {
                pieces.push(bytes);
                Ok(())
            }
            way => {
                *way = Way::Lost;
                Err(Error::new(Kind::LimitExceeded, format!("an object of more than {OBJECT_BYTES} bytes")).at(Stage::Transfer))
            }
        }
    }
}

impl Upload for DriveUpload {
    fn expect(&mut self, size: u64) {
        if let Way::Held(_, pieces) = &self.way
            && pieces.is_empty()
            && let Way::Held(file, _) = std::mem::replace(&mut self.way, Way::Lost)
        {
            let patience = file.drive.patience;
            self.way = Way::Sent(size, Box::new(SessionUpload::new(FileUpload { total: size, ..file }, patience)));
        }
    }

    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        Box::pin(self.write_now(bytes))
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, ObjectInfo> {
        Box::pin(async move {
            if let Way::Held(_, pieces) = &mut self.way {
                let pieces = std::mem::take(pieces);
                self.expect(self.size);
                for piece in pieces {
                    if let Way::Sent(_, upload) = &mut self.way
                        && let Err(error) = upload.write(piece).await
                    {
                        let _ = self.abort().await;
                        return Err(error);
                    }
                }
            }
            match self.way {
                Way::Sent(promised, upload) if promised == self.size => upload.finish().await,
                way => {
                    if let Way::Sent(_, upload) = way {
                        let _ = upload.abort().await;
                    }
                    Err(Error::new(Kind::Internal, "an object is not as large as was said").at(Stage::Transfer))
                }
            }
        })
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async {
            match self.way {
                Way::Sent(_, upload) => upload.abort().await,
                Way::Held(..) | Way::Lost => Ok(()),
            }
        })
    }
}

struct FileUpload {
    drive: Arc<Drive>,
    name: String,
    replace: Replace,
    /// Bytes of the whole.
    total: u64,
    /// QuickXorHash of what was written so far; of the whole, once the last piece goes.
    hash: Arc<Mutex<QuickXorHash>>,
    /// Whether a request that publishes was sent before, so that it may have done its work unheard.
    was_tried: AtomicBool,
}

#[derive(Deserialize)]
struct Session {
    #[serde(rename = "uploadUrl")]
    upload_url: String,
}

/// How far a session is, in ranges that are missing: `["26-"]`.
#[derive(Deserialize)]
struct Missing {
    #[serde(rename = "nextExpectedRanges", default)]
    ranges: Vec<String>,
}

impl Missing {
    /// Where the first missing byte is.
    fn first(&self) -> Option<u64> {
        self.ranges.first()?.split('-').next()?.parse().ok()
    }
}

impl FileUpload {
    fn hash(&self) -> String {
        self.hash.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    fn behaviour(&self) -> &'static str {
        if self.replace == Replace::Never { "fail" } else { "replace" }
    }

    fn condition(&self) -> Option<&str> {
        match &self.replace {
            Replace::Version(version) => Some(version),
            _ => None,
        }
    }

    async fn put_whole(&self, bytes: Bytes) -> Result<ObjectInfo> {
        let url = format!("{}?@microsoft.graph.conflictBehavior={}", self.drive.part(&self.name, "content"), self.behaviour());
        let call = Call::new("PUT", url).header("content-type", "application/octet-stream").header_if("if-match", self.condition());
        let was_tried = self.was_tried.swap(true, Ordering::Relaxed);
        match self.drive.send(Doing::Writing, call.body(bytes)).await? {
            Ok(answer) => self.published(answer.json().await?).await,
            Err(refusal) => self.explained(refusal, was_tried).await,
        }
    }

    /// The file that a publishing request answers, if it is what we sent.
    async fn published(&self, mut item: Item) -> Result<ObjectInfo> {
        if !item.has_version() {
            item = look(&self.drive, &self.name).await?;
        }
        let object = item.object(&self.name)?;
        if object.size == self.total && item.hash().is_none_or(|hash| hash == self.hash()) {
            return Ok(object);
        }
        // Nobody may use it, and the next attempt needs the name.
        let _ = delete(&self.drive, &item).await;
        Err(Error::new(Kind::StoreUnwritable, "what the store has is not what was sent"))
    }

    /// What lies under the name, if it is what we sent.
    async fn arrived(&self) -> Result<Option<ObjectInfo>> {
        match look(&self.drive, &self.name).await {
            Ok(found) if found.hash() == Some(self.hash().as_str()) => {
                found.object(&self.name).map(|object| Some(object).filter(|object| object.size == self.total))
            }
            Err(error) if error.kind() != Kind::ObjectNotFound => Err(error),
            _ => Ok(None),
        }
    }

    /// Why a publishing request was refused. After one whose answer was lost, the file in the way may be our own.
    async fn explained(&self, refusal: Refusal, was_tried: bool) -> Result<ObjectInfo> {
        if was_tried
            && (refusal.is_conflict() || refusal.status == 412)
            && let Some(object) = self.arrived().await?
        {
            return Ok(object);
        }
        Err(self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match (&self.replace, refusal.error()) {
            (Replace::Version(_), error) if error.kind() == Kind::ObjectExists => not_that_version(),
            (_, error) if error.kind() == Kind::ObjectNotFound => {
                Error::new(Kind::StoreUnwritable, "there is no drive or folder of the id in cloud.bucket or cloud.folder_id")
            }
            (_, error) => error,
        }
    }

    async fn send_piece(&self, session: &str, offset: u64, bytes: Bytes) -> Result<Progress> {
        let end = offset + bytes.len() as u64;
        let Some(last) = end.checked_sub(1).filter(|_| !bytes.is_empty()) else {
            // All of it is there and nothing came of it.
            let arrived = self.arrived().await?.map(Progress::Done);
            return arrived.ok_or_else(|| Error::new(Kind::StoreUnwritable, "the store did not finish the object"));
        };
        let was_tried = end == self.total && self.was_tried.swap(true, Ordering::Relaxed);
        let call = Call::new("PUT", session).header("content-range", format!("bytes {offset}-{last}/{}", self.total)).body(bytes);
        match self.drive.send_openly(Doing::Writing, call).await? {
            Ok(answer) if answer.status == 202 => Ok(Progress::Received(answer.json::<Missing>().await?.first().unwrap_or(end))),
            Ok(answer) => self.published(answer.json().await?).await.map(Progress::Done),
            Err(refusal) if refusal.status == 404 => Err(ended()),
            // The server has these bytes already; where it is will be asked.
            Err(refusal) if refusal.status == 416 => Err(Error::new(Kind::TransferInterrupted, "the store has these bytes already")),
            Err(refusal) => self.explained(refusal, was_tried).await.map(Progress::Done),
        }
    }

    async fn begin_session(&self) -> Result<String> {
        let item = json!({ "item": { "@microsoft.graph.conflictBehavior": self.behaviour() } });
        let call = Call::new("POST", self.drive.part(&self.name, "createUploadSession")).json(&item);
        match self.drive.send(Doing::Writing, call.header_if("if-match", self.condition())).await? {
            Ok(answer) => self.drive.checked_link(answer.json::<Session>().await?.upload_url),
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    async fn abandon_session(&self, session: &str) -> Result<()> {
        match self.drive.send_openly(Doing::Writing, Call::new("DELETE", session)).await? {
            Err(refusal) if refusal.status != 404 => Err(refusal.error()),
            _ => Ok(()),
        }
    }
}

fn ended() -> Error {
    Error::new(Kind::StoreUnwritable, "the upload session has ended at the store")
}

impl ChunkProtocol for FileUpload {
    fn chunk(&self) -> usize {
        PIECE_BYTES
    }

    fn put(&self, bytes: Bytes) -> BoxFuture<'_, ObjectInfo> {
        Box::pin(async move {
            // Conditions on a version are promised for sessions alone; a session cannot be of nothing.
            let is_small = bytes.len() <= SMALL_BYTES && self.condition().is_none();
            if is_small || bytes.is_empty() {
                return self.put_whole(bytes).await;
            }
            if self.was_tried.load(Ordering::Relaxed)
                && let Some(object) = self.arrived().await?
            {
                return Ok(object);
            }
            let session = self.begin_session().await?;
            let sent = match self.send_piece(&session, 0, bytes).await {
                Ok(Progress::Done(object)) => return Ok(object),
                Ok(Progress::Received(_)) => Err(Error::new(Kind::TransferInterrupted, "the store did not take all that was sent")),
                Err(error) => Err(error),
            };
            let _ = self.abandon_session(&session).await;
            sent
        })
    }

    fn begin(&self) -> BoxFuture<'_, String> {
        Box::pin(self.begin_session())
    }

    fn send<'a>(&'a self, session: &'a str, offset: u64, bytes: Bytes, _total: Option<u64>) -> BoxFuture<'a, Progress> {
        Box::pin(self.send_piece(session, offset, bytes))
    }

    fn position<'a>(&'a self, session: &'a str, total: Option<u64>) -> BoxFuture<'a, Progress> {
        Box::pin(async move {
            match self.drive.send_openly(Doing::Reading, Call::new("GET", session)).await? {
                Ok(answer) => Ok(Progress::Received(answer.json::<Missing>().await?.first().unwrap_or(self.total))),
                // A session that did its work is gone, too.
                Err(refusal) if refusal.status == 404 => {
                    let arrived = if total.is_some() { self.arrived().await? } else { None };
                    arrived.map(Progress::Done).ok_or_else(ended)
                }
                Err(refusal) => Err(refusal.error()),
            }
        })
    }

    fn abandon<'a>(&'a self, session: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.abandon_session(session))
    }
}
