//! The network's threads: one small tokio runtime, shared by all clients of the process while there are any.
//!
//! Callers are ordinary threads and may themselves be workers of somebody else's tokio runtime, where `block_on` panics. So nothing
//! is ever run on the calling thread: work is spawned here, and the caller waits on a channel, looking up every few
//! milliseconds whether it has been cancelled. When the last client goes the threads go, so that a host can unload the library.

use std::future::Future;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// Threads that drive sockets. They copy and encrypt (TLS) but never hash, so two feed several Gbit/s.
const THREADS: usize = 2;
/// How often a waiting caller looks whether it was cancelled.
const LOOK_UP: Duration = Duration::from_millis(25);
/// How long the last client waits for the threads to end; a name resolution that hangs is left behind.
const FAREWELL: Duration = Duration::from_secs(2);

static SHARED: Mutex<Weak<Runtime>> = Mutex::new(Weak::new());

/// A share of the process's network threads.
pub(super) struct Runtime {
    /// `Some` until dropped.
    tokio: Option<tokio::runtime::Runtime>,
}

impl Runtime {
    /// The runtime of the process, made now if no client holds one.
    pub fn shared() -> Result<Arc<Runtime>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = shared.upgrade() {
            return Ok(runtime);
        }
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("smp-transfer")
            .enable_all()
            .build()
            .map_err(|_| Error::new(Kind::Internal, "the network threads cannot be started"))?;
        let runtime = Arc::new(Runtime { tokio: Some(tokio) });
        *shared = Arc::downgrade(&runtime);
        Ok(runtime)
    }

    /// Runs a future to its end while the caller waits. `stop` ends the wait with `Cancelled` and drops the future.
    pub fn run<T: Send + 'static>(&self, stop: &dyn Fn() -> bool, future: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        if stop() {
            return Err(Error::new(Kind::Cancelled, ""));
        }
        let Some(tokio) = &self.tokio else { return Err(Error::new(Kind::Internal, "the network threads have ended")) };
        let (answer, wait) = sync_channel(1);
        let task = tokio.spawn(async move {
            // The receiver is gone only if the caller was cancelled.
            let _ = answer.send(future.await);
        });
        loop {
            match wait.recv_timeout(LOOK_UP) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) if stop() => {
                    task.abort();
                    return Err(Error::new(Kind::Cancelled, ""));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::new(Kind::Internal, "a transfer ended without an answer")),
            }
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let Some(tokio) = self.tokio.take() else { return };
        // Waiting inside another runtime would panic; there the threads end by themselves.
        if tokio::runtime::Handle::try_current().is_ok() {
            tokio.shutdown_background();
        } else {
            tokio.shutdown_timeout(FAREWELL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_caller_inside_another_runtime_may_wait() {
        let outer = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = outer.block_on(async { Runtime::shared().unwrap().run(&|| false, async { Ok(7) }) });
        assert_eq!(answer.unwrap(), 7);
    }

    #[test]
    fn a_stopped_wait_drops_its_future() {
        struct Dropped(Arc<AtomicBool>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let gone = Arc::new(AtomicBool::new(false));
        let witness = Dropped(Arc::clone(&gone));
        let (started, is_started) = sync_channel(1);
        let begun = AtomicBool::new(false);
        let runtime = Runtime::shared().unwrap();
        let stop = || begun.load(Ordering::SeqCst) || is_started.try_recv().map(|()| begun.store(true, Ordering::SeqCst)).is_ok();
        let answer: Result<()> = runtime.run(&stop, async move {
            let _witness = witness;
            started.send(()).unwrap();
            std::future::pending().await
        });
        assert_eq!(answer.unwrap_err().kind(), Kind::Cancelled);
        drop(runtime);
        while !gone.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_panicking_task_is_an_error_and_not_a_hang() {
        let answer: Result<()> = Runtime::shared().unwrap().run(&|| false, async { panic!("on purpose") });
        assert_eq!(answer.unwrap_err().kind(), Kind::Internal);
    }
}
