//! Uploads to S3: one request for a small object, parts in parallel for a large one.
//!
//! A multipart upload is invisible until it is completed, and costs money until it is aborted, so it is aborted on every way out that
//! is not success, even when the upload is merely dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use tokio::task::JoinSet;

use super::super::attempt::Patience;
use super::super::http::Doing;
use super::super::meter::Meter;
use super::super::{Attempt, BoxFuture, ObjectInfo, Replace, Upload};
use super::errors::{is_not_implemented, translate};
use super::{Bucket, version_of};
use crate::error::{Error, Kind, Result, Stage};

/// Bytes per part, well above S3's smallest of 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// From this part on parts are twice as large, so that S3's 10,000 parts hold 117 GiB.
const LARGER_FROM: i32 = 5_001;
/// Parts that S3 allows.
const PARTS: i32 = 10_000;
/// Parts on their way at once; each is in memory.
const PARTS_IN_FLIGHT: usize = 4;
/// Slowest line worth waiting for, bytes per second. The SDK does not tell how much of a part has left, so a part gets this time on top.
const SLOWEST: u64 = 32 << 10;

/// Starts an upload. Whether the name is free is asked first, since not every server knows conditional writes.
pub(super) async fn start(bucket: &Arc<Bucket>, name: &str, replace: Replace) -> Result<Box<dyn Upload>> {
    check_condition(bucket, name, &replace).await?;
    Ok(Box::new(S3Upload {
        bucket: Arc::clone(bucket),
        meter: Arc::clone(Attempt::current().meter()),
        name: name.to_owned(),
        replace,
        buffer: Vec::new(),
        size: 0,
        id: None,
        parts: BTreeMap::new(),
        started: 0,
        in_flight: JoinSet::new(),
    }))
}

/// Asks whether the condition of a write holds now.
async fn check_condition(bucket: &Bucket, name: &str, replace: &Replace) -> Result<()> {
    let expected = match replace {
        Replace::Allowed => return Ok(()),
        Replace::Never => None,
        Replace::Version(version) => Some(version.as_str()),
    };
    match (bucket.head(name).await, expected) {
        (Ok(_), None) => Err(Error::new(Kind::ObjectExists, "")),
        (Ok(found), Some(version)) if found.version == version => Ok(()),
        (Ok(_), Some(_)) => Err(not_that_version()),
        (Err(error), None) if error.kind() == Kind::ObjectNotFound => Ok(()),
        (Err(error), Some(_)) if error.kind() == Kind::ObjectNotFound => Err(not_that_version()),
        // Who may write but not list is told 403 for a name that is free; the condition on the write decides then.
        (Err(error), None) if error.kind() == Kind::AccessDenied => Ok(()),
        (Err(error), _) => Err(error),
    }
}

fn not_that_version() -> Error {
    Error::new(Kind::ObjectChanged, "the object is not the one that is to be replaced")
}

/// Conditions as HTTP puts them: `If-None-Match`, `If-Match`.
#[derive(Default)]
struct Condition {
    free: Option<String>,
    version: Option<String>,
}

impl Condition {
    /// Goes on without; `false` when there was none.
    fn drop_it(&mut self) -> bool {
        self.free.take().is_some() | self.version.take().is_some()
    }
}

struct S3Upload {
    bucket: Arc<Bucket>,
    meter: Arc<Meter>,
    name: String,
    replace: Replace,
    /// Bytes that do not fill a part yet.
    buffer: Vec<u8>,
    /// Bytes written in all.
    size: u64,
    /// Of the multipart upload, once there is one. Taken when it is completed or aborted.
    id: Option<String>,
    parts: BTreeMap<i32, String>,
    /// Parts started.
    started: i32,
    in_flight: JoinSet<Result<(i32, String)>>,
}

impl Upload for S3Upload {
    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.size += bytes.len() as u64;
            if self.buffer.is_empty() {
                self.buffer = bytes;
            } else {
                self.buffer.extend_from_slice(&bytes);
            }
            while self.buffer.len() > self.part_bytes() {
                let rest = self.buffer.split_off(self.part_bytes());
                let part = std::mem::replace(&mut self.buffer, rest);
                self.start_part(part).await?;
            }
            Ok(())
        })
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, ObjectInfo> {
        Box::pin(async move {
            let finished = self.publish().await;
            if finished.is_err() {
                // The error that stopped us is worth more than one of tidying up.
                let _ = self.give_up().await;
            }
            let e_tag = finished?;
            match e_tag {
                Some(e_tag) => {
                    Ok(ObjectInfo { name: self.name.clone(), size: self.size, version: version_of(Some(&e_tag), self.size, None) })
                }
                None => self.bucket.patience.retry(&self.meter, || self.bucket.head(&self.name)).await,
            }
        })
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.give_up().await })
    }
}

impl S3Upload {
    fn part_bytes(&self) -> usize {
        if self.started >= LARGER_FROM - 1 { PART_BYTES * 2 } else { PART_BYTES }
    }

    /// Sends a part on its way, once there is room.
    async fn start_part(&mut self, part: Vec<u8>) -> Result<()> {
        if self.started >= PARTS {
            return Err(Error::new(Kind::LimitExceeded, format!("an object of more than {PARTS} parts")).at(Stage::Transfer));
        }
        let id = match &self.id {
            Some(id) => id.clone(),
            None => self.start_parts().await?,
        };
        while self.in_flight.len() >= PARTS_IN_FLIGHT {
            self.await_part().await?;
        }
        self.started += 1;
        let (number, bucket, name, patience) = (self.started, Arc::clone(&self.bucket), self.name.clone(), self.patience_for(part.len()));
        let meter = Arc::clone(&self.meter);
        let body = SdkBody::from(part);
        self.in_flight.spawn(async move {
            let sent = patience.retry(&meter, || async {
                Attempt::current().sending(body.bytes().map_or(0, <[u8]>::len)).await;
                let request = bucket
                    .client
                    .upload_part()
                    .set_request_payer(bucket.payer.clone())
                    .bucket(&bucket.name)
                    .key(&name)
                    .upload_id(&id)
                    .part_number(number);
                request.body(again(&body)?).send().await.map_err(|error| translate(&bucket.place, Doing::Writing, error))
            });
            let e_tag = sent.await?.e_tag.ok_or_else(|| Error::new(Kind::ServerFailed, "a part was answered without an ETag"))?;
            Ok((number, e_tag))
        });
        Ok(())
    }

    async fn start_parts(&mut self) -> Result<String> {
        let bucket = &self.bucket;
        let started = bucket.patience.retry(&self.meter, || async {
            let request = bucket.client.create_multipart_upload().bucket(&bucket.name).key(&self.name);
            let request = request.set_request_payer(bucket.payer.clone());
            request.send().await.map_err(|error| translate(&bucket.place, Doing::Writing, error))
        });
        let id = started.await?.upload_id.ok_or_else(|| Error::new(Kind::ServerFailed, "an upload was started without an id"))?;
        self.id = Some(id.clone());
        Ok(id)
    }

    async fn await_part(&mut self) -> Result<()> {
        let Some(joined) = self.in_flight.join_next().await else { return Ok(()) };
        let (number, e_tag) = joined.map_err(|_| Error::new(Kind::Internal, "a part ended without an answer").at(Stage::Transfer))??;
        self.parts.insert(number, e_tag);
        Ok(())
    }

    /// Makes the object visible; its ETag where the server tells.
    async fn publish(&mut self) -> Result<Option<String>> {
        let buffer = std::mem::take(&mut self.buffer);
        if self.id.is_none() {
            return self.publish_whole(SdkBody::from(buffer)).await;
        }
        if !buffer.is_empty() {
            self.start_part(buffer).await?;
        }
        while !self.in_flight.is_empty() {
            self.await_part().await?;
        }
        let e_tag = self.publish_parts().await?;
        self.id = None;
        Ok(e_tag)
    }

    async fn publish_whole(&self, body: SdkBody) -> Result<Option<String>> {
        let (bucket, mut condition) = (&self.bucket, self.condition());
        let patience = self.patience_for(body.bytes().map_or(0, <[u8]>::len));
        loop {
            let is_unknown = AtomicBool::new(false);
            let sent = patience.retry(&self.meter, || async {
                Attempt::current().sending(body.bytes().map_or(0, <[u8]>::len)).await;
                let request = bucket
                    .client
                    .put_object()
                    .set_request_payer(bucket.payer.clone())
                    .bucket(&bucket.name)
                    .key(&self.name)
                    .set_if_none_match(condition.free.clone());
                let request = request.set_if_match(condition.version.clone());
                request.body(again(&body)?).send().await.map_err(|error| {
                    is_unknown.store(is_not_implemented(&error), Ordering::Relaxed);
                    refused(translate(&bucket.place, Doing::Writing, error), is_unknown.load(Ordering::Relaxed))
                })
            });
            match sent.await {
                Err(_) if is_unknown.load(Ordering::Relaxed) && condition.drop_it() => {
                    check_condition(bucket, &self.name, &self.replace).await?
                }
                sent => return Ok(sent.map_err(|error| self.explained(error))?.e_tag),
            }
        }
    }

    async fn publish_parts(&self) -> Result<Option<String>> {
        let (bucket, mut condition) = (&self.bucket, self.condition());
        let part = |(number, e_tag): (&i32, &String)| CompletedPart::builder().part_number(*number).e_tag(e_tag).build();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.iter().map(part).collect())).build();
        // Joining the parts may take a server minutes.
        let patience = self.patience_for(PART_BYTES);
        loop {
            let is_unknown = AtomicBool::new(false);
            let sent = patience.retry(&self.meter, || async {
                let request = bucket
                    .client
                    .complete_multipart_upload()
                    .set_request_payer(bucket.payer.clone())
                    .bucket(&bucket.name)
                    .key(&self.name)
                    .set_upload_id(self.id.clone());
                let request = request.multipart_upload(parts.clone()).set_if_none_match(condition.free.clone());
                let request = request.set_if_match(condition.version.clone());
                request.send().await.map_err(|error| {
                    is_unknown.store(is_not_implemented(&error), Ordering::Relaxed);
                    refused(translate(&bucket.place, Doing::Writing, error), is_unknown.load(Ordering::Relaxed))
                })
            });
            match sent.await {
                Err(_) if is_unknown.load(Ordering::Relaxed) && condition.drop_it() => {
                    check_condition(bucket, &self.name, &self.replace).await?
                }
                sent => return Ok(sent.map_err(|error| self.explained(error))?.e_tag),
            }
        }
    }

    fn condition(&self) -> Condition {
        match &self.replace {
            Replace::Allowed => Condition::default(),
            Replace::Never => Condition { free: Some("*".to_owned()), version: None },
            Replace::Version(version) => Condition { free: None, version: super::condition(version) },
        }
    }

    /// The store's word for a condition that does not hold, in ours.
    fn explained(&self, error: Error) -> Error {
        match (&self.replace, error.kind()) {
            (Replace::Version(_), Kind::ObjectExists | Kind::ObjectNotFound) => not_that_version(),
            _ => error,
        }
    }

    /// Drops the parts, here and at the server.
    async fn give_up(&mut self) -> Result<()> {
        self.in_flight.shutdown().await;
        match self.id.take() {
            Some(id) => abort(Arc::clone(&self.bucket), self.name.clone(), id).await,
            None => Ok(()),
        }
    }

    fn patience_for(&self, bytes: usize) -> Patience {
        let patience = self.bucket.patience;
        Patience { timeout: patience.timeout + Duration::from_secs(bytes as u64 / SLOWEST), ..patience }
    }
}

impl Drop for S3Upload {
    fn drop(&mut self) {
        // Nobody waits any more; the network's threads still can.
        if let (Some(id), Ok(threads)) = (self.id.take(), tokio::runtime::Handle::try_current()) {
            drop(threads.spawn(abort(Arc::clone(&self.bucket), self.name.clone(), id)));
        }
    }
}

async fn abort(bucket: Arc<Bucket>, name: String, id: String) -> Result<()> {
    let meter = Arc::default();
    let sent = bucket.patience.retry(&meter, || async {
        let request =
            bucket.client.abort_multipart_upload().set_request_payer(bucket.payer.clone()).bucket(&bucket.name).key(&name).upload_id(&id);
        request.send().await.map(drop).map_err(|error| translate(&bucket.place, Doing::Writing, error))
    });
    sent.await
}

/// A server without conditional writes will not learn them: not worth another attempt.
fn refused(error: Error, is_unknown: bool) -> Error {
    if is_unknown { Error::new(Kind::StoreUnwritable, "the store does not know conditional writes") } else { error }
}

/// The same body for another attempt; it is in memory and shared.
fn again(body: &SdkBody) -> Result<ByteStream> {
    let body = body.try_clone().ok_or_else(|| Error::new(Kind::Internal, "a part cannot be sent again").at(Stage::Transfer))?;
    Ok(ByteStream::new(body))
}
