//! Objects in ranges: fetched in parallel, checked, spooled, delivered in order.
//!
//! A few threads take the ranges in plan order, of one object or of several one after the other. Each looks into the spool, otherwise asks the network (and waits), then runs the check
//! (hashing is the price of a range, so it is spread over these threads) and puts the range on the shelf. The calling thread takes
//! ranges off the shelf in order. A thread may start a range only while fewer than `parallel + 2` are started and not yet
//! delivered, so a slow consumer bounds the memory, and the range that everybody waits for is always among those started. How many of them are asked of
//! the store at once is the [`Window`]'s to say.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::FetchPlan;
use super::client::Inner;
use super::spool::Spool;
use super::window::Window;
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};

/// How often the calling thread looks whether it was cancelled while it waits for a range.
const LOOK_UP: Duration = Duration::from_millis(25);

/// Ranges beyond those in flight that may be held: one waiting, one being delivered.
const HELD_BEYOND: usize = 2;

type Verify<'a> = &'a (dyn Fn(usize, &[u8]) -> Result<()> + Sync);

/// See [`super::Client::fetch`] and [`super::Client::fetch_all`].
pub(super) fn fetch(
    client: &Inner,
    plans: &[(String, &FetchPlan<'_>)],
    verify: Verify<'_>,
    deliver: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>,
    control: &Control,
) -> Result<()> {
    control.check()?;
    let mut parts = Vec::new();
    let mut spools = Vec::new();
    for (object, (full_name, plan)) in plans.iter().enumerate() {
        check_ranges(plan.ranges, client.settings.max_bytes)?;
        spools.push(match (&client.settings.spool, plan.spool_key) {
            (Some(folder), Some(key)) => Some(Spool::open(folder, key, plan.version)?),
            _ => None,
        });
        parts.extend(plan.ranges.iter().map(|range| Part { object, full_name, version: plan.version, range }));
    }
    let parallel = client.settings.parallel;
    let job = Job {
        client,
        parts,
        verify,
        control,
        spools,
        held: parallel.saturating_add(HELD_BEYOND),
        stopped: AtomicBool::new(false),
        shelf: Mutex::new(Shelf {
            next: 0,
            delivered: 0,
            in_flight: 0,
            ready: BTreeMap::new(),
            failure: None,
            window: Window::new(parallel, Instant::now()),
        }),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        // However this block ends, the threads are told to stop before the scope waits for them.
        let _stop = StopOnDrop(&job);
        for number in 0..parallel.min(job.parts.len()) {
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

/// One range of one object.
struct Part<'a> {
    /// Number of the object among those of the job.
    object: usize,
    full_name: &'a str,
    version: &'a str,
    range: &'a Range<u64>,
}

struct Job<'a> {
    client: &'a Inner,
    parts: Vec<Part<'a>>,
    verify: Verify<'a>,
    control: &'a Control,
    /// By object.
    spools: Vec<Option<Spool>>,
    /// Ranges that may be started and not yet delivered.
    held: usize,
    stopped: AtomicBool,
    shelf: Mutex<Shelf>,
    /// Told whenever the shelf or `stopped` changes.
    changed: Condvar,
}

/// What the threads and the caller share.
struct Shelf {
    /// First range that nobody has started.
    next: usize,
    /// Ranges delivered.
    delivered: usize,
    /// Ranges that are being asked of the store at this moment.
    in_flight: usize,
    ready: BTreeMap<usize, Vec<u8>>,
    failure: Option<Error>,
    window: Window,
}

impl Job<'_> {
    /// The calling thread: ranges in order, until the last or the first failure.
    fn deliver_all(&self, deliver: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>) -> Result<()> {
        for index in 0..self.parts.len() {
            let bytes = self.take(index)?;
            self.control.transferred(bytes.len() as u64);
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
            if self.is_stopped() || shelf.next >= self.parts.len() {
                return None;
            }
            if shelf.next - shelf.delivered < self.held {
                shelf.next += 1;
                return Some(shelf.next - 1);
            }
            shelf = self.changed.wait_timeout(shelf, LOOK_UP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One range that passed its check, from the spool or the store.
    fn obtain(&self, index: usize) -> Result<Vec<u8>> {
        let part = self.parts.get(index).ok_or_else(|| Error::new(Kind::Internal, "no such range").at(Stage::Transfer))?;
        let spool = self.spools.get(part.object).and_then(Option::as_ref);
        if let Some(spool) = spool
            && let Some(bytes) = spool.load(part.range)?
            && (self.verify)(index, &bytes).is_ok()
        {
            self.client.meter.count_spooled(bytes.len());
            return Ok(bytes);
        }
        let bytes = match self.fetch_checked(index, part) {
            Err((_, true)) => self.fetch_checked(index, part).map_err(|(error, _)| error)?,
            Err((error, false)) => return Err(error),
            Ok(bytes) => bytes,
        };
        if let Some(spool) = spool {
            spool.store(part.range, &bytes)?;
        }
        Ok(bytes)
    }

    /// Fetches and checks; the flag of an error tells whether it was the check that failed.
    fn fetch_checked(&self, index: usize, part: &Part<'_>) -> std::result::Result<Vec<u8>, (Error, bool)> {
        let bytes = if part.range.is_empty() { Vec::new() } else { self.ask(part).map_err(|error| (self.located(part, error), false))? };
        match (self.verify)(index, &bytes) {
            Ok(()) => Ok(bytes),
            Err(error) => Err((error, true)),
        }
    }

    /// Asks the store for a range, once the window has room for it.
    fn ask(&self, part: &Part<'_>) -> Result<Vec<u8>> {
        let mut shelf = self.shelf();
        while shelf.in_flight >= shelf.window.width() {
            if self.is_stopped() {
                return Err(Error::new(Kind::Cancelled, ""));
            }
            shelf = self.changed.wait_timeout(shelf, LOOK_UP).unwrap_or_else(PoisonError::into_inner).0;
        }
        shelf.in_flight += 1;
        drop(shelf);
        let retries = self.client.meter.retries();
        let answer = self.client.read(part.full_name, part.range.clone(), part.version, &|| self.is_stopped());
        let mut shelf = self.shelf();
        shelf.in_flight -= 1;
        if self.client.meter.retries() > retries {
            shelf.window.refused(Instant::now());
        } else if let Ok(bytes) = &answer {
            shelf.window.arrived(bytes.len(), Instant::now());
        }
        drop(shelf);
        self.changed.notify_all();
        answer
    }

    /// Says which range it was, where that helps to find what is wrong: a cut that is always at the same place has its reason there.
    fn located(&self, part: &Part<'_>, error: Error) -> Error {
        if !matches!(error.kind(), Kind::TransferInterrupted | Kind::TransferTimeout | Kind::ServerFailed | Kind::ObjectChanged) {
            return error;
        }
        // Ranges are numbered by where they lie, not by when they were asked for; objects have names, which are not told.
        let of_object = || self.parts.iter().filter(|other| other.object == part.object);
        let number = of_object().filter(|other| other.range.start < part.range.start).count();
        let Range { start, end } = part.range;
        let object = if self.spools.len() > 1 { format!("object {} of {}, ", part.object, self.spools.len()) } else { String::new() };
        error.within(&format!("{object}range {number} ({start}-{end}) of {}", of_object().count()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::{Attempt, BoxFuture, Client, ClientSettings, ObjectInfo, ObjectStore, Replace, Upload};
    use std::collections::HashMap;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    /// How a read goes wrong.
    #[derive(Clone, Copy, Debug)]
    enum Fault {
        Fails(Kind),
        Short,
        Long,
        Damaged,
        Hangs,
        Panics,
    }

    /// A store of one object whose reads fail as a test says, once per entry.
    #[derive(Default)]
    struct Script {
        object: Vec<u8>,
        /// By start of the range; the last first.
        faults: Mutex<HashMap<u64, Vec<Fault>>>,
        reads: Mutex<Vec<u64>>,
        in_flight: AtomicUsize,
        most_in_flight: AtomicUsize,
        /// Reads wait for each other here.
        barrier: Option<tokio::sync::Barrier>,
    }

    impl ObjectStore for Script {
        fn describe(&self) -> String {
            "script".into()
        }
        fn list<'a>(&'a self, _prefix: &'a str) -> BoxFuture<'a, Vec<ObjectInfo>> {
            unreachable!()
        }
        fn head<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, ObjectInfo> {
            unreachable!()
        }
        fn upload<'a>(&'a self, _name: &'a str, _replace: Replace) -> BoxFuture<'a, Box<dyn Upload>> {
            unreachable!()
        }
        fn delete<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, ()> {
            unreachable!()
        }
        fn read<'a>(&'a self, _name: &'a str, range: Range<u64>, version: Option<&'a str>) -> BoxFuture<'a, Vec<u8>> {
            Box::pin(async move {
                assert_eq!(version, Some("v1"));
                self.reads.lock().unwrap().push(range.start);
                let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
                self.most_in_flight.fetch_max(now, Ordering::SeqCst);
                if let Some(barrier) = &self.barrier {
                    barrier.wait().await;
                }
                Attempt::current().beat();
                let mut bytes = self.object[range.start as usize..range.end as usize].to_vec();
                let fault = self.faults.lock().unwrap().get_mut(&range.start).and_then(Vec::pop);
                self.in_flight.fetch_sub(1, Ordering::SeqCst);
                match fault {
                    None => {}
                    Some(Fault::Fails(kind)) => return Err(Error::new(kind, "scripted")),
                    Some(Fault::Short) => drop(bytes.pop()),
                    Some(Fault::Long) => bytes.push(0),
                    Some(Fault::Damaged) => bytes[0] ^= 1,
                    Some(Fault::Hangs) => std::future::pending().await,
                    Some(Fault::Panics) => panic!("on purpose"),
                }
                Ok(bytes)
            })
        }
    }

    const RANGE: u64 = 100;

    fn script(ranges: u64) -> Script {
        Script { object: (0..ranges * RANGE).map(|at| (at % 251) as u8).collect(), ..Script::default() }
    }

    fn script_with(ranges: u64, faults: &[(u64, &[Fault])]) -> Script {
        let faults = faults.iter().map(|(range, faults)| (range * RANGE, faults.to_vec())).collect();
        Script { faults: Mutex::new(faults), ..script(ranges) }
    }

    fn settings() -> ClientSettings {
        ClientSettings { parallel: 4, retries: 2, ..ClientSettings::default() }
    }

    /// Fetches all ranges, the last first as packages do; returns what was delivered.
    fn fetch_all(script: &Arc<Script>, settings: ClientSettings, control: &Control) -> Result<Vec<(usize, Vec<u8>)>> {
        let store: Arc<dyn ObjectStore> = Arc::clone(script) as _;
        let client = Client::over(store, settings).unwrap().without_pauses();
        let ranges = plan_of(script);
        let plan = FetchPlan { name: "pack", version: "v1", ranges: &ranges, spool_key: Some("key") };
        let check = |index: usize, bytes: &[u8]| {
            let range = &ranges[index];
            let good = bytes == &script.object[range.start as usize..range.end as usize];
            if good { Ok(()) } else { Err(Error::new(Kind::IntegrityFailed, format!("range {index}"))) }
        };
        let mut delivered = Vec::new();
        let mut deliver = |index, bytes| {
            delivered.push((index, bytes));
            Ok(())
        };
        client.fetch(&plan, &check, &mut deliver, control)?;
        Ok(delivered)
    }

    fn plan_of(script: &Script) -> Vec<Range<u64>> {
        let count = script.object.len() as u64 / RANGE;
        std::iter::once(count - 1).chain(0..count - 1).map(|range| range * RANGE..(range + 1) * RANGE).collect()
    }

    fn is_whole(script: &Script, delivered: &[(usize, Vec<u8>)]) -> bool {
        let expected = plan_of(script).into_iter().map(|range| script.object[range.start as usize..range.end as usize].to_vec());
        delivered.iter().cloned().eq(expected.enumerate())
    }

    #[test]
    fn ranges_arrive_in_plan_order_whatever_fails_on_the_way() {
        let script = Arc::new(script_with(
            20,
            &[
                (0, &[Fault::Fails(Kind::ServerFailed), Fault::Fails(Kind::ConnectionRefused)]),
                (3, &[Fault::Short]),
                (4, &[Fault::Long, Fault::Short]),
                (7, &[Fault::Damaged]),
                (8, &[Fault::Fails(Kind::TransferTimeout), Fault::Damaged]),
                (19, &[Fault::Fails(Kind::TransferInterrupted)]),
            ],
        ));
        let delivered = fetch_all(&script, settings(), &Control::new()).unwrap();
        assert!(is_whole(&script, &delivered));
        assert_eq!(script.reads.lock().unwrap().len(), 20 + 9, "one read per range and one per fault");
    }

    #[test]
    fn what_cannot_be_helped_is_returned_with_its_kind() {
        for (faults, expected, reads) in [
            ([Fault::Short; 9], Kind::TransferInterrupted, 3),
            ([Fault::Long; 9], Kind::TransferInterrupted, 3),
            ([Fault::Fails(Kind::ServerFailed); 9], Kind::ServerFailed, 3),
            ([Fault::Fails(Kind::AccessDenied); 9], Kind::AccessDenied, 1),
            ([Fault::Fails(Kind::ObjectChanged); 9], Kind::ObjectChanged, 1),
            ([Fault::Damaged; 9], Kind::IntegrityFailed, 2),
            ([Fault::Panics; 9], Kind::Internal, 1),
        ] {
            let script = Arc::new(script_with(3, &[(1, &faults)]));
            let error = fetch_all(&script, settings(), &Control::new()).unwrap_err();
            assert_eq!(error.kind(), expected);
            assert_eq!(script.reads.lock().unwrap().iter().filter(|start| **start == RANGE).count(), reads, "{expected:?}");
        }
    }

    #[test]
    fn a_range_that_failed_for_good_is_named_with_what_came_of_it() {
        let script = Arc::new(script_with(3, &[(1, &[Fault::Short; 9])]));
        let error = fetch_all(&script, settings(), &Control::new()).unwrap_err();
        let came = "99 bytes came where 100 were asked for; gave up after 3 attempts";
        assert_eq!(error.detail(), format!("range 1 (100-200) of 3: {came}"));
        let script = Arc::new(script_with(3, &[(0, &[Fault::Fails(Kind::AccessDenied)])]));
        let error = fetch_all(&script, settings(), &Control::new()).unwrap_err();
        assert_eq!(error.detail(), "scripted", "no fault of the range");
    }

    #[test]
    fn a_range_that_stops_arriving_is_fetched_again() {
        let script = Arc::new(script_with(3, &[(1, &[Fault::Hangs])]));
        let settings = ClientSettings { timeout: Duration::from_millis(30), ..settings() };
        assert!(is_whole(&script, &fetch_all(&script, settings, &Control::new()).unwrap()));
    }

    #[test]
    fn a_cancelled_fetch_returns_though_the_store_hangs() {
        let control = Control::new();
        let script = Arc::new(script_with(3, &[(1, &[Fault::Hangs])]));
        let settings = ClientSettings { timeout: Duration::from_secs(3600), ..settings() };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while script.reads.lock().unwrap().len() < 3 {
                    std::thread::yield_now();
                }
                control.cancel();
            });
            assert_eq!(fetch_all(&script, settings, &control).unwrap_err().kind(), Kind::Cancelled);
        });
    }

    #[test]
    fn as_many_ranges_are_in_flight_as_asked_for_and_no_more() {
        // Nobody passes the barrier until two reads wait at it: fewer in flight would hang here. Wider windows are the window's own tests.
        let script = Arc::new(Script { barrier: Some(tokio::sync::Barrier::new(2)), ..script(12) });
        let settings = ClientSettings { parallel: 2, ..settings() };
        assert!(is_whole(&script, &fetch_all(&script, settings, &Control::new()).unwrap()));
        assert_eq!(script.most_in_flight.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_slow_consumer_bounds_what_is_held() {
        let script = Arc::new(script(40));
        let client = Client::over(Arc::clone(&script) as _, settings()).unwrap();
        let ranges = plan_of(&script);
        let plan = FetchPlan { name: "pack", version: "v1", ranges: &ranges, spool_key: None };
        let mut most = 0;
        let mut deliver = |index: usize, _: Vec<u8>| {
            // Given every chance to run ahead, the threads stop at parallel + 2, the one being delivered included.
            for _ in 0..2_000 {
                std::thread::yield_now();
            }
            most = most.max(script.reads.lock().unwrap().len() - index);
            Ok(())
        };
        client.fetch(&plan, &|_, _| Ok(()), &mut deliver, &Control::new()).unwrap();
        assert!((2..=4 + HELD_BEYOND).contains(&most), "{most}");
    }

    #[test]
    fn an_error_of_the_consumer_ends_the_fetch() {
        let script = Arc::new(script(40));
        let client = Client::over(Arc::clone(&script) as _, settings()).unwrap();
        let ranges = plan_of(&script);
        let plan = FetchPlan { name: "pack", version: "v1", ranges: &ranges, spool_key: None };
        let mut deliver = |index: usize, _: Vec<u8>| if index == 2 { Err(Error::new(Kind::OutOfMemory, "")) } else { Ok(()) };
        assert_eq!(client.fetch(&plan, &|_, _| Ok(()), &mut deliver, &Control::new()).unwrap_err().kind(), Kind::OutOfMemory);
        assert!(script.reads.lock().unwrap().len() <= 3 + 4 + HELD_BEYOND);
    }

    #[test]
    fn a_check_that_panics_is_passed_on_and_holds_nobody_up() {
        let script = Arc::new(script(6));
        let client = Client::over(Arc::clone(&script) as _, settings()).unwrap();
        let ranges = plan_of(&script);
        let plan = FetchPlan { name: "pack", version: "v1", ranges: &ranges, spool_key: None };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            client.fetch(&plan, &|_, _| panic!("on purpose"), &mut |_, _| Ok(()), &Control::new())
        }));
        assert!(outcome.is_err() || outcome.unwrap().is_err());
    }

    fn spooled(folder: &Path) -> ClientSettings {
        ClientSettings { spool: Some(folder.join("spool")), ..settings() }
    }

    #[test]
    fn an_interrupted_fetch_goes_on_where_it_stopped() {
        let place = tempfile::tempdir().unwrap();
        let broken = Arc::new(script_with(10, &[(8, &[Fault::Fails(Kind::AccessDenied)])]));
        let settings = ClientSettings { parallel: 1, ..spooled(place.path()) };
        assert_eq!(fetch_all(&broken, settings.clone(), &Control::new()).unwrap_err().kind(), Kind::AccessDenied);
        let mended = Arc::new(script(10));
        assert!(is_whole(&mended, &fetch_all(&mended, settings, &Control::new()).unwrap()));
        // Order of the plan: 9, 0, 1, .., 8; the first nine were spooled.
        assert_eq!(*mended.reads.lock().unwrap(), [8 * RANGE]);
    }

    #[test]
    fn a_spooled_range_that_was_changed_is_fetched_again() {
        let place = tempfile::tempdir().unwrap();
        let first = Arc::new(script(5));
        fetch_all(&first, spooled(place.path()), &Control::new()).unwrap();
        let object = std::fs::read_dir(place.path().join("spool")).unwrap().next().unwrap().unwrap().path();
        std::fs::write(object.join(format!("{:016x}-{:016x}", 2 * RANGE, 3 * RANGE)), [0; RANGE as usize]).unwrap();
        let second = Arc::new(script(5));
        assert!(is_whole(&second, &fetch_all(&second, spooled(place.path()), &Control::new()).unwrap()));
        assert_eq!(*second.reads.lock().unwrap(), [2 * RANGE]);
    }

    #[test]
    fn an_object_beyond_the_limit_is_not_begun() {
        let script = Arc::new(script(3));
        let settings = ClientSettings { max_bytes: 3 * RANGE - 1, ..settings() };
        let error = fetch_all(&script, settings, &Control::new()).unwrap_err();
        assert_eq!(error.kind(), Kind::LimitExceeded);
        assert!(error.detail().contains("transfer.max_bytes"));
        assert!(script.reads.lock().unwrap().is_empty());
    }
}
