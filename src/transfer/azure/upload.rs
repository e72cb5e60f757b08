//! Uploads to Azure: one request for a small blob, blocks in parallel for a large one.
//!
//! Blocks are invisible until the list of them is committed. There is nothing to abort: what was not committed is dropped by the service after
//! a week, or as soon as somebody else publishes under the same name. The ids of blocks are made by chance for each upload, so two
//! uploads of one name never commit each other's bytes.
//!
//! An answer may be lost after the service did what it was asked, and the same condition then fails when it is asked again. So each upload
//! leaves a word made by chance in the blob's metadata, and one that is refused at a further attempt looks whose blob is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::task::JoinSet;

use super::super::http::Doing;
use super::super::meter::Meter;
use super::super::{Attempt, BoxFuture, ObjectInfo, Replace, Upload};
use super::{Container, Request, checked, quoted, version_of};
use crate::error::{Error, Kind, Result, Stage};

/// Bytes per block, and the most that goes in one request.
const BLOCK_BYTES: usize = 8 << 20;
/// From this block on blocks are four times as large, so that the service's 50,000 hold 976 GiB.
const LARGER_FROM: u32 = 25_000;
/// Blocks that the service allows.
const BLOCKS: u32 = 50_000;
/// Blocks on their way at once; each is in memory.
const BLOCKS_IN_FLIGHT: usize = 4;
/// Where an upload leaves its word.
const WORD: &str = "x-ms-meta-smpupload";

/// Starts an upload. Whether its condition holds is asked first, so that nobody sends gigabytes in vain.
pub(super) async fn start(container: &Arc<Container>, name: &str, replace: Replace) -> Result<Box<dyn Upload>> {
    let name = checked(name)?.to_owned();
    match (&replace, container.head(&name).await) {
        (Replace::Allowed, _) => {}
        (Replace::Never, Ok(_)) => return Err(Error::new(Kind::ObjectExists, "")),
        (Replace::Version(version), Ok(found)) if found.version == *version => {}
        (Replace::Version(_), Ok(_)) => return Err(not_that_version()),
        (Replace::Never, Err(error)) if error.kind() == Kind::ObjectNotFound => {}
        // Who may write but not read is refused here; the condition on the write decides then.
        (Replace::Never, Err(error)) if error.kind() == Kind::AccessDenied => {}
        (Replace::Version(_), Err(error)) if error.kind() == Kind::ObjectNotFound => return Err(not_that_version()),
        (_, Err(error)) => return Err(error),
    }
    let mut chance = [0; 14];
    getrandom::fill(&mut chance).map_err(|_| Error::new(Kind::Internal, "the system has no random numbers").at(Stage::Transfer))?;
    Ok(Box::new(BlobUpload {
        container: Arc::clone(container),
        meter: Arc::clone(Attempt::current().meter()),
        name,
        replace,
        chance,
        buffer: Vec::new(),
        size: 0,
        blocks: 0,
        in_flight: JoinSet::new(),
    }))
}

fn not_that_version() -> Error {
    Error::new(Kind::ObjectChanged, "the object is not the one that is to be replaced")
}

struct BlobUpload {
    container: Arc<Container>,
    meter: Arc<Meter>,
    name: String,
    replace: Replace,
    /// What tells this upload from every other.
    chance: [u8; 14],
    /// Bytes that do not fill a block yet.
    buffer: Vec<u8>,
    /// Bytes written in all.
    size: u64,
    /// Blocks started.
    blocks: u32,
    in_flight: JoinSet<Result<()>>,
}

impl Upload for BlobUpload {
    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.size += bytes.len() as u64;
            if self.buffer.is_empty() {
                self.buffer = bytes;
            } else {
                self.buffer.extend_from_slice(&bytes);
            }
            while self.buffer.len() > self.block_bytes() {
                let rest = self.buffer.split_off(self.block_bytes());
                let block = std::mem::replace(&mut self.buffer, rest);
                self.start_block(block).await?;
            }
            Ok(())
        })
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, ObjectInfo> {
        Box::pin(async move { self.publish().await })
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.in_flight.shutdown().await;
            Ok(())
        })
    }
}

impl BlobUpload {
    fn block_bytes(&self) -> usize {
        if self.blocks >= LARGER_FROM { BLOCK_BYTES * 4 } else { BLOCK_BYTES }
    }

    /// Id of a block: 18 bytes are 24 letters of Base64 without padding, and all ids of a blob must be of one length.
    fn id(&self, number: u32) -> String {
        STANDARD.encode([&self.chance[..], &number.to_be_bytes()].concat())
    }

    fn word(&self) -> String {
        self.chance.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Sends a block on its way, once there is room.
    async fn start_block(&mut self, block: Vec<u8>) -> Result<()> {
        if self.blocks >= BLOCKS {
            return Err(Error::new(Kind::LimitExceeded, format!("an object of more than {BLOCKS} blocks")).at(Stage::Transfer));
        }
        while self.in_flight.len() >= BLOCKS_IN_FLIGHT {
            self.await_block().await?;
        }
        let request = Request::new("PUT", &self.name).query("comp", "block").query("blockid", self.id(self.blocks)).body(block);
        self.blocks += 1;
        let (container, meter) = (Arc::clone(&self.container), Arc::clone(&self.meter));
        self.in_flight.spawn(async move {
            container.patience.retry(&meter, || async { container.send(request.clone(), Doing::Writing).await.map(drop) }).await
        });
        Ok(())
    }

    async fn await_block(&mut self) -> Result<()> {
        let Some(joined) = self.in_flight.join_next().await else { return Ok(()) };
        joined.map_err(|_| Error::new(Kind::Internal, "a block ended without an answer").at(Stage::Transfer))?
    }

    /// Makes the blob visible.
    async fn publish(&mut self) -> Result<ObjectInfo> {
        let rest = std::mem::take(&mut self.buffer);
        let request = if self.blocks == 0 {
            let request = Request::new("PUT", &self.name).header("x-ms-blob-type", "BlockBlob");
            request.header("content-type", "application/octet-stream").body(rest)
        } else {
            if !rest.is_empty() {
                self.start_block(rest).await?;
            }
            while !self.in_flight.is_empty() {
                self.await_block().await?;
            }
            let request = Request::new("PUT", &self.name).query("comp", "blocklist").body(self.block_list());
            request.header("content-type", "application/xml").header("x-ms-blob-content-type", "application/octet-stream")
        };
        let request = match &self.replace {
            Replace::Allowed => request,
            Replace::Never => request.header("if-none-match", "*"),
            Replace::Version(version) => request.header("if-match", quoted(version)),
        };
        let request = request.header(WORD, self.word());
        let (container, attempts) = (&self.container, AtomicU32::new(0));
        let sent = container.patience.retry(&self.meter, || async {
            attempts.fetch_add(1, Ordering::Relaxed);
            version_of(&container.send(request.clone(), Doing::Writing).await?)
        });
        let version = match sent.await {
            Ok(version) => version,
            Err(error) => self.settle(error, attempts.into_inner() > 1).await?,
        };
        Ok(ObjectInfo { name: self.name.clone(), size: self.size, version })
    }

    /// A refusal at the end: our own blob from an attempt whose answer was lost, or the service's word in ours.
    async fn settle(&self, error: Error, was_repeated: bool) -> Result<String> {
        let is_conflict = matches!(error.kind(), Kind::ObjectExists | Kind::ObjectNotFound | Kind::StoreUnwritable);
        if !is_conflict {
            return Err(error);
        }
        let look = || async { self.container.send(Request::new("HEAD", &self.name), Doing::Reading).await };
        let there = self.container.patience.retry(&self.meter, look).await;
        match (&there, &self.replace) {
            (Ok(blob), _) if was_repeated && blob.header(WORD) == Some(self.word().as_str()) => version_of(blob),
            (Ok(_), Replace::Never) => Err(Error::new(Kind::ObjectExists, "")),
            (Ok(blob), Replace::Version(version)) if version_of(blob)? != *version => Err(not_that_version()),
            (_, Replace::Version(_)) if error.kind() != Kind::StoreUnwritable => Err(not_that_version()),
            _ => Err(error),
        }
    }

    fn block_list(&self) -> Bytes {
        let ids: String = (0..self.blocks).map(|number| format!("<Latest>{}</Latest>", self.id(number))).collect();
        Bytes::from(format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{ids}</BlockList>"))
    }
}
