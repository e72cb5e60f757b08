//! One object in ranges: fetched in parallel, checked, spooled, delivered in order.
//!
//! A few threads take the ranges in plan order. Each looks into the spool, otherwise asks the network (and waits), then runs the check
//! (hashing is the price of a range, so it is spread over these threads) and puts the range on the shelf. The calling thread takes
//! ranges off the shelf in order. A thread may start a range only while fewer than `parallel + 2` are started and not yet
//! delivered, so a slow consumer bounds the memory, and the range that everybody waits for is always among those started.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::FetchPlan;
use super::client::Inner;
use super::spool::Spool;
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};

/// How often the calling thread looks whether it was cancelled while it waits for a range.
const LOOK_UP: Duration = Duration::from_millis(25);

/// Ranges beyond those in flight that may be held: one waiting, one being delivered.
const HELD_BEYOND: usize = 2;

type Verify<'a> = &'a (dyn Fn(usize, &[u8]) -> Result<()> + Sync);

/// See [`super::Client::fetch`].
pub(super) fn fetch(
    client: &Inner,
    full_name: &str,
    plan: &FetchPlan<'_>,
    verify: Verify<'_>,
    deliver: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>,
    control: &Control,
) -> Result<()> {
    check_ranges(plan.ranges, client.settings.max_bytes)?;
    control.check()?;
    let spool = match (&client.settings.spool, plan.spool_key) {
        (Some(folder), Some(key)) => Some(Spool::open(folder, key, plan.version)?),
        _ => None,
    };
    let job = Job {
        client,
        full_name,
        plan,
        verify,
        control,
        spool,
        window: client.settings.parallel.saturating_add(HELD_BEYOND),
        stopped: AtomicBool::new(false),
        shelf: Mutex::new(Shelf::default()),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        // However this block ends, the threads are told to stop before the scope waits for them.
        let _stop = StopOnDrop(&job);
        for number in 0..client.settings.parallel.min(plan.ranges.len()) {
            let spawned = std::thread::Builder::new().name("smp-fetch".into()).spawn_scoped(scope, || job.work());
            if spawned.is_err() && number == 0 {
                return Err(Error::new(Kind::OutOfMemory, "no thread could be started").at(Stage::Transfer));
            }
        }
        job.deliver_all(deliver)
    })
}

fn check_ranges(ranges: &[Range<u64>], max_bytes: u64) -> Result<()> {
    for range in ranges {
        if range.start > range.end {
            return Err(Error::new(Kind::InvalidArgument, "a range ends before it starts").at(Stage::Transfer));
        }
        if range.end > max_bytes {
            let detail = format!("object of at least {} bytes, transfer.max_bytes is {max_bytes}", range.end);
            return Err(Error::new(Kind::LimitExceeded, detail)
                .with_hint("raise transfer.max_bytes if the sender is trusted")
                .at(Stage::Transfer));
        }
    }
    Ok(())
}

struct Job<'a> {
    client: &'a Inner,
    full_name: &'a str,
    plan: &'a FetchPlan<'a>,
    verify: Verify<'a>,
    control: &'a Control,
    spool: Option<Spool>,
    window: usize,
    stopped: AtomicBool,
    shelf: Mutex<Shelf>,
    /// Told whenever the shelf or `stopped` changes.
    changed: Condvar,
}

/// What the threads and the caller share.
#[derive(Default)]
struct Shelf {
    /// First range that nobody has started.
    next: usize,
    /// Ranges delivered.
    delivered: usize,
    ready: BTreeMap<usize, Vec<u8>>,
    failure: Option<Error>,
}

impl Job<'_> {
    /// The calling thread: ranges in order, until the last or the first failure.
    fn deliver_all(&self, deliver: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>) -> Result<()> {
        for index in 0..self.plan.ranges.len() {
            let bytes = self.take(index)?;
            deliver(index, bytes)?;
            self.shelf().delivered = index + 1;
            self.changed.notify_all();
        }
        Ok(())
    }

    fn take(&self, index: usize) -> Result<Vec<u8>> {
        let mut shelf = self.shelf();
        loop {
            self.control.check()?;
            if let Some(error) = shelf.failure.take() {
                return Err(error);
            }
            if let Some(bytes) = shelf.ready.remove(&index) {
                return Ok(bytes);
            }
            shelf = self.changed.wait_timeout(shelf, LOOK_UP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A fetching thread.
    fn work(&self) {
        let panicked = FailOnPanic(self);
        while let Some(index) = self.start_next() {
            let outcome = self.obtain(index);
            let mut shelf = self.shelf();
            match outcome {
                Ok(bytes) => drop(shelf.ready.insert(index, bytes)),
                Err(error) => {
                    // After the first failure the others are told to stop; what they then say is not the reason.
                    if !self.stopped.swap(true, Ordering::AcqRel) {
                        shelf.failure = Some(error);
                    }
                }
            }
            drop(shelf);
            self.changed.notify_all();
        }
        std::mem::forget(panicked);
    }

    /// Number of the next range to fetch, once there is room for it.
    fn start_next(&self) -> Option<usize> {
        let mut shelf = self.shelf();
        loop {
            if self.is_stopped() || shelf.next >= self.plan.ranges.len() {
                return None;
            }
            if shelf.next - shelf.delivered < self.window {
                shelf.next += 1;
                return Some(shelf.next - 1);
            }
            shelf = self.changed.wait_timeout(shelf, LOOK_UP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One range that passed its check, from the spool or the store.
    fn obtain(&self, index: usize) -> Result<Vec<u8>> {
        let range = self.plan.ranges.get(index).ok_or_else(|| Error::new(Kind::Internal, "no such range").at(Stage::Transfer))?;
        if let Some(spool) = &self.spool
            && let Some(bytes) = spool.load(range)?
            && (self.verify)(index, &bytes).is_ok()
        {
            return Ok(bytes);
        }
        let bytes = match self.fetch_checked(index, range) {
            Err((_, true)) => self.fetch_checked(index, range).map_err(|(error, _)| error)?,
            Err((error, false)) => return Err(error),
            Ok(bytes) => bytes,
        };
        if let Some(spool) = &self.spool {
            spool.store(range, &bytes)?;
        }
        Ok(bytes)
    }

    /// Fetches and checks; the flag of an error tells whether it was the check that failed.
    fn fetch_checked(&self, index: usize, range: &Range<u64>) -> std::result::Result<Vec<u8>, (Error, bool)> {
        let bytes = if range.is_empty() {
            Vec::new()
        } else {
            self.client.read(self.full_name, range.clone(), self.plan.version, &|| self.is_stopped()).map_err(|error| (error, false))?
        };
        match (self.verify)(index, &bytes) {
            Ok(()) => Ok(bytes),
            Err(error) => Err((error, true)),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire) || self.control.is_cancelled()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.changed.notify_all();
    }
}

struct StopOnDrop<'a, 'b>(&'a Job<'b>);

impl Drop for StopOnDrop<'_, '_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A check that panics must not leave the caller waiting for its range.
struct FailOnPanic<'a, 'b>(&'a Job<'b>);

impl Drop for FailOnPanic<'_, '_> {
    fn drop(&mut self) {
        self.0.shelf().failure = Some(Error::new(Kind::Internal, "a range could not be checked").at(Stage::Transfer));
        self.0.stop();
    }
}
