//! Uploads in one session, piece after piece: what Google, Dropbox and Microsoft call resumable.
//!
//! A small object goes in one request. A larger one is sent in pieces of [`ChunkProtocol::chunk`] bytes, of which one is in memory; when a
//! piece fails, the server is asked how far it got and the rest of the piece is sent from there. Nothing is visible before the last piece.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::attempt::Patience;
use super::meter::Meter;
use super::{Attempt, BoxFuture, ObjectInfo, Upload};
use crate::error::{Error, Kind, Result, Stage};

/// How far a session is.
pub(super) enum Progress {
    /// The server has this many bytes.
    Received(u64),
    /// The object is there.
    Done(ObjectInfo),
}

/// One provider's way of sending one object. Methods do one request each and do not retry.
pub(super) trait ChunkProtocol: Send + Sync + 'static {
    /// Bytes of a piece; a multiple of what the provider asks for.
    fn chunk(&self) -> usize;
    /// Sends a whole object of at most one piece.
    fn put(&self, bytes: Bytes) -> BoxFuture<'_, ObjectInfo>;
    /// Starts a session; answers its name or address.
    fn begin(&self) -> BoxFuture<'_, String>;
    /// Sends bytes that follow those the server has. `total` is the size of the object, with its last bytes only.
    fn send<'a>(&'a self, session: &'a str, offset: u64, bytes: Bytes, total: Option<u64>) -> BoxFuture<'a, Progress>;
    /// Asks how far the session is, after a piece failed.
    fn position<'a>(&'a self, session: &'a str, total: Option<u64>) -> BoxFuture<'a, Progress>;
    /// Gives the session up.
    fn abandon<'a>(&'a self, session: &'a str) -> BoxFuture<'a, ()>;
}

/// An upload by a [`ChunkProtocol`].
pub(super) struct SessionUpload<P> {
    protocol: Arc<P>,
    patience: Patience,
    meter: Arc<Meter>,
    /// Bytes not sent yet; never more than a piece after a write.
    buffer: Vec<u8>,
    /// Bytes sent.
    sent: u64,
    session: Option<String>,
}

impl<P: ChunkProtocol> SessionUpload<P> {
    /// An upload of which nothing is sent yet.
    pub fn new(protocol: P, patience: Patience) -> SessionUpload<P> {
        let meter = Arc::clone(Attempt::current().meter());
        SessionUpload { protocol: Arc::new(protocol), patience, meter, buffer: Vec::new(), sent: 0, session: None }
    }

    async fn session(&mut self) -> Result<String> {
        if let Some(session) = &self.session {
            return Ok(session.clone());
        }
        let session = self.patience.retry(&self.meter, || self.protocol.begin()).await?;
        self.session = Some(session.clone());
        Ok(session)
    }

    /// Sends one piece, in as many attempts as it takes.
    async fn send(&mut self, piece: Bytes, total: Option<u64>) -> Result<Progress> {
        let session = self.session().await?;
        let (start, end) = (self.sent, self.sent + piece.len() as u64);
        let position = AtomicU64::new(start);
        let first = std::sync::atomic::AtomicBool::new(true);
        let sent = self.patience.retry(&self.meter, || async {
            if !first.swap(false, Ordering::Relaxed) {
                match self.protocol.position(&session, total).await? {
                    Progress::Done(object) => return Ok(Progress::Done(object)),
                    Progress::Received(at) => position.store(at, Ordering::Relaxed),
                }
            }
            loop {
                let at = position.load(Ordering::Relaxed);
                if at < start || at > end {
                    return Err(Error::new(Kind::StoreUnwritable, "the store lost bytes that it had received"));
                }
                if at == end && total.is_none() {
                    return Ok(Progress::Received(end));
                }
                let rest = piece.slice(usize::try_from(at - start).unwrap_or(usize::MAX).min(piece.len())..);
                match self.protocol.send(&session, at, rest, total).await? {
                    Progress::Done(object) => return Ok(Progress::Done(object)),
                    // A server may take less than it was sent; one that takes nothing would be asked for ever.
                    Progress::Received(reached) if reached > at => position.store(reached, Ordering::Relaxed),
                    Progress::Received(_) => return Err(Error::new(Kind::TransferInterrupted, "the store took nothing of what was sent")),
                }
            }
        });
        let progress = sent.await?;
        self.sent = end;
        Ok(progress)
    }

    async fn send_full_pieces(&mut self) -> Result<()> {
        let chunk = self.protocol.chunk();
        // One byte stays behind, so that there is something to send with the end.
        while self.buffer.len() > chunk {
            let rest = self.buffer.split_off(chunk);
            let piece = Bytes::from(std::mem::replace(&mut self.buffer, rest));
            self.send(piece, None).await?;
        }
        Ok(())
    }

    async fn publish(&mut self) -> Result<ObjectInfo> {
        let rest = Bytes::from(std::mem::take(&mut self.buffer));
        if self.session.is_none() {
            return self.patience.retry(&self.meter, || self.protocol.put(rest.clone())).await;
        }
        let total = self.sent + rest.len() as u64;
        match self.send(rest, Some(total)).await? {
            Progress::Done(object) => {
                self.session = None;
                if object.size == total {
                    return Ok(object);
                }
                Err(Error::new(Kind::StoreUnwritable, format!("the store has {} bytes where {total} were sent", object.size)))
            }
            Progress::Received(_) => Err(Error::new(Kind::StoreUnwritable, "the store did not finish the object").at(Stage::Transfer)),
        }
    }
}

impl<P: ChunkProtocol> Upload for SessionUpload<P> {
    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        self.buffer.extend_from_slice(&bytes);
        Box::pin(self.send_full_pieces())
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, ObjectInfo> {
        Box::pin(async move {
            let published = self.publish().await;
            if published.is_err() {
                self.give_up().await;
            }
            published
        })
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.give_up().await;
            Ok(())
        })
    }
}

impl<P: ChunkProtocol> SessionUpload<P> {
    /// An abandoned session is invisible and ends by itself, so a failure here costs nobody anything.
    async fn give_up(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = self.patience.retry(&self.meter, || self.protocol.abandon(&session)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A server in memory that fails as it is told.
    struct Script {
        object: Arc<Mutex<Vec<u8>>>,
        /// By number of the request: how many bytes are taken before it fails.
        failures: Mutex<Vec<Option<usize>>>,
    }

    impl Script {
        fn done(&self) -> ObjectInfo {
            ObjectInfo { name: "x".into(), size: self.object.lock().unwrap().len() as u64, version: "1".into() }
        }
    }

    impl ChunkProtocol for Script {
        fn chunk(&self) -> usize {
            10
        }
        fn put(&self, bytes: Bytes) -> BoxFuture<'_, ObjectInfo> {
            *self.object.lock().unwrap() = bytes.to_vec();
            Box::pin(async { Ok(self.done()) })
        }
        fn begin(&self) -> BoxFuture<'_, String> {
            Box::pin(async { Ok("session".to_owned()) })
        }
        fn send<'a>(&'a self, session: &'a str, offset: u64, bytes: Bytes, total: Option<u64>) -> BoxFuture<'a, Progress> {
            Box::pin(async move {
                assert_eq!(session, "session");
                let mut object = self.object.lock().unwrap();
                assert_eq!(offset, object.len() as u64, "no byte is sent twice and none is left out");
                let failure = self.failures.lock().unwrap().pop().flatten();
                object.extend_from_slice(&bytes[..failure.unwrap_or(bytes.len())]);
                if failure.is_some() {
                    return Err(Error::new(Kind::ServerFailed, "scripted"));
                }
                let size = object.len() as u64;
                drop(object);
                Ok(if total == Some(size) { Progress::Done(self.done()) } else { Progress::Received(size) })
            })
        }
        fn position<'a>(&'a self, _session: &'a str, total: Option<u64>) -> BoxFuture<'a, Progress> {
            let size = self.object.lock().unwrap().len() as u64;
            Box::pin(async move { Ok(if total == Some(size) { Progress::Done(self.done()) } else { Progress::Received(size) }) })
        }
        fn abandon<'a>(&'a self, _session: &'a str) -> BoxFuture<'a, ()> {
            self.object.lock().unwrap().clear();
            Box::pin(async { Ok(()) })
        }
    }

    fn upload(length: usize, failures: &[Option<usize>]) -> (Result<ObjectInfo>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let patience = Patience { backoff: std::time::Duration::ZERO, ..Patience::new(2, std::time::Duration::from_secs(30)) };
        let object = Arc::new(Mutex::new(Vec::new()));
        let failures = Mutex::new(failures.iter().rev().copied().collect());
        let mut upload = Box::new(SessionUpload::new(Script { object: Arc::clone(&object), failures }, patience));
        let outcome = runtime.block_on(async {
            for part in pattern(length).chunks(7) {
                upload.write(part.to_vec()).await?;
            }
            upload.finish().await
        });
        let found = object.lock().unwrap().clone();
        (outcome, found)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| at as u8).collect()
    }

    #[test]
    fn objects_of_every_size_arrive_whole() {
        for length in [0, 1, 9, 10, 11, 20, 21, 100, 101] {
            let (outcome, found) = upload(length, &[]);
            assert_eq!((outcome.unwrap().size, found), (length as u64, pattern(length)), "{length}");
        }
    }

    #[test]
    fn a_piece_goes_on_where_the_server_stopped() {
        let failures = [Some(3), None, Some(0), Some(9), None, Some(10), None, Some(4)];
        let (outcome, found) = upload(45, &failures);
        assert_eq!((outcome.unwrap().size, found), (45, pattern(45)));
        // The last piece arrived whole, and its answer was lost.
        let (outcome, found) = upload(25, &[None, None, Some(5)]);
        assert_eq!((outcome.unwrap().size, found), (25, pattern(25)));
    }

    #[test]
    fn an_upload_that_cannot_go_on_is_abandoned() {
        let (outcome, found) = upload(20, &[None, Some(1), Some(0), Some(0)]);
        assert_eq!(outcome.unwrap_err().kind(), Kind::ServerFailed);
        assert!(found.is_empty());
    }
}
