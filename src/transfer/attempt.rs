//! One attempt at one answer of a store: is it still moving, and what did the store say about trying again.
//!
//! The [`ObjectStore`](super::ObjectStore) trait has answers and errors only. What a store learns on the way (bytes arrive; the server
//! asks for a pause) travels beside the answer in an [`Attempt`], which the client puts around each call. So a slow but living
//! download is not cut, a dead one is, and a server that asks for ten seconds gets them.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::meter::Meter;
use crate::error::{Error, Kind, Result};

/// Longest pause between two attempts, whatever the store asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Longest pause that we choose ourselves.
const LONGEST_BACKOFF: Duration = Duration::from_secs(20);
/// Pause after the first failure; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);

tokio::task_local! {
    static CURRENT: Arc<Attempt>;
}

/// Slowest line worth waiting for, bytes per second: a modem's.
const SLOWEST: u64 = 1 << 10;
/// Longest sleep for the sake of a rate limit before the next sign of life.
const NAP: Duration = Duration::from_millis(50);

/// What a store tells the client beside its answer.
pub struct Attempt {
    started: Instant,
    beat_ms: AtomicU64,
    pause_ms: AtomicU64,
    /// Bytes that arrived since the last beat.
    crumbs: AtomicU64,
    /// Bytes that are worth a beat.
    worth: u64,
    meter: Arc<Meter>,
}

impl Attempt {
    /// The attempt that this task works for; one that nobody watches when there is none.
    pub fn current() -> Arc<Attempt> {
        CURRENT.try_with(Arc::clone).unwrap_or_else(|_| Arc::new(Attempt::new(Arc::default())))
    }

    /// Runs work that is neither watched nor repeated as a whole, under a meter.
    pub(super) async fn metered<T>(meter: &Arc<Meter>, work: impl Future<Output = T>) -> T {
        CURRENT.scope(Arc::new(Attempt::new(Arc::clone(meter))), work).await
    }

    /// The meter of the transfer that this attempt belongs to.
    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Says that bytes of a body arrived, and waits as long as the rate limit asks.
    pub async fn received(&self, bytes: usize) {
        // A server that sends a byte now and then is as dead as one that sends none.
        if self.crumbs.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64 >= self.worth {
            self.crumbs.store(0, Ordering::Relaxed);
            self.beat();
        }
        self.wait(self.meter.count_received(bytes)).await;
    }

    /// As [`Attempt::received`], on a thread that may block: a mounted share is a line like any other.
    pub(super) fn received_blocking(&self, bytes: usize) {
        self.beat();
        let mut time = self.meter.count_received(bytes);
        while !time.is_zero() {
            let nap = time.min(NAP);
            std::thread::sleep(nap);
            self.beat();
            time -= nap;
        }
    }

    /// Says that bytes of a body are about to be sent, and waits as long as the rate limit asks.
    pub async fn sending(&self, bytes: usize) {
        self.wait(self.meter.count_sent(bytes)).await;
        self.beat();
    }

    /// A wait of our own making is no silence of the store.
    async fn wait(&self, mut time: Duration) {
        while !time.is_zero() {
            let nap = time.min(NAP);
            tokio::time::sleep(nap).await;
            self.beat();
            time -= nap;
        }
    }

    /// Says that something arrived or was accepted: the time limit starts anew.
    pub fn beat(&self) {
        self.beat_ms.store(milliseconds(self.started.elapsed()), Ordering::Relaxed);
    }

    /// Says how long the store wants to be left alone (`Retry-After`).
    pub fn ask_pause(&self, pause: Duration) {
        self.pause_ms.store(milliseconds(pause), Ordering::Relaxed);
    }

    fn new(meter: Arc<Meter>) -> Attempt {
        Attempt {
            started: Instant::now(),
            beat_ms: AtomicU64::new(0),
            pause_ms: AtomicU64::new(0),
            crumbs: AtomicU64::new(0),
            worth: 0,
            meter,
        }
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(self.pause_ms.load(Ordering::Relaxed))
    }

    fn last_beat(&self) -> Instant {
        self.started + Duration::from_millis(self.beat_ms.load(Ordering::Relaxed))
    }
}

/// How often, how long and with what pauses something is tried.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// Further attempts after the first.
    pub retries: u32,
    /// Time without a beat after which an attempt is given up.
    pub timeout: Duration,
    /// Pause after the first failure.
    pub backoff: Duration,
}

impl Patience {
    pub fn new(retries: u32, timeout: Duration) -> Patience {
        Patience { retries, timeout, backoff: FIRST_BACKOFF }
    }

    /// Tries until an answer, an error that no retry can help, or the end of patience.
    pub async fn retry<T, F: Future<Output = Result<T>>>(&self, meter: &Arc<Meter>, mut operation: impl FnMut() -> F) -> Result<T> {
        let mut failures = 0;
        loop {
            let attempt = Arc::new(Attempt { worth: self.worth_a_beat(), ..Attempt::new(Arc::clone(meter)) });
            let error = match self.watch(&attempt, operation()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !error.kind().is_transient() {
                return Err(error);
            }
            if failures >= self.retries {
                return Err(given_up(error, failures));
            }
            tokio::time::sleep(self.pause(failures, attempt.pause())).await;
            failures += 1;
            meter.count_retry();
        }
    }

    /// Bytes that the slowest line worth waiting for brings within the time limit.
    fn worth_a_beat(&self) -> u64 {
        SLOWEST * milliseconds(self.timeout) / 1_000
    }

    /// Runs one attempt and gives it up when it stops beating.
    async fn watch<T>(&self, attempt: &Arc<Attempt>, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let mut operation = pin!(CURRENT.scope(Arc::clone(attempt), operation));
        loop {
            let deadline = attempt.last_beat() + self.timeout;
            match tokio::time::timeout_at(deadline.into(), &mut operation).await {
                Ok(answer) => return answer,
                Err(_) if attempt.last_beat() + self.timeout > deadline => continue,
                Err(_) => {
                    return Err(Error::new(Kind::TransferTimeout, format!("nothing arrived for {} ms", self.timeout.as_millis())));
                }
            }
        }
    }

    /// Doubling pauses, the upper half of each by chance, so that ranges that failed together do not come back together.
    fn pause(&self, failures: u32, asked: Duration) -> Duration {
        let whole = self.backoff.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(LONGEST_BACKOFF);
        // Without a random source the pauses merely lose their spread.
        let chance = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
        (whole / 2 + whole.mul_f64(chance / 2.0)).max(asked.min(LONGEST_PAUSE))
    }
}

/// The last error, with the number of attempts, so that a log shows that patience ended and not luck.
fn given_up(error: Error, retries: u32) -> Error {
    if retries == 0 {
        return error;
    }
    let detail = match error.detail() {
        "" => format!("gave up after {} attempts", retries + 1),
        detail => format!("{detail}; gave up after {} attempts", retries + 1),
    };
    let given_up = Error::new(error.kind(), detail).at(error.stage());
    match error.hint() {
        Some(hint) => given_up.with_hint(hint.to_owned()),
        None => given_up,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    fn meter() -> Arc<Meter> {
        Arc::default()
    }

    fn patience() -> Patience {
        Patience { retries: 3, timeout: Duration::from_secs(30), backoff: Duration::ZERO }
    }

    #[test]
    fn a_transient_failure_is_tried_again_and_a_final_one_is_not() {
        for (kind, expected) in [(Kind::ServerFailed, 4), (Kind::TransferInterrupted, 4), (Kind::AccessDenied, 1), (Kind::ObjectChanged, 1)]
        {
            let calls = Cell::new(0);
            let answer: Result<()> = run(patience().retry(&meter(), || {
                calls.set(calls.get() + 1);
                async move { Err(Error::new(kind, "status 500")) }
            }));
            assert_eq!((answer.unwrap_err().kind(), calls.get()), (kind, expected));
        }
    }

    #[test]
    fn the_last_error_says_how_often_it_was_tried() {
        let answer: Result<()> = run(patience().retry(&meter(), || async { Err(Error::new(Kind::ServerFailed, "status 503")) }));
        assert_eq!(answer.unwrap_err().detail(), "status 503; gave up after 4 attempts");
    }

    #[test]
    fn pauses_double_within_their_bounds_and_honour_what_the_store_asks() {
        let patience = Patience::new(5, Duration::from_secs(30));
        // Half to whole of 200 ms doubled per failure, at most 20 s.
        for (failures, low, high) in [(0, 100, 200), (1, 200, 400), (3, 800, 1_600), (7, 10_000, 20_000), (99, 10_000, 20_000)] {
            let pause = patience.pause(failures, Duration::ZERO).as_millis();
            assert!((low..=high).contains(&pause), "{failures}: {pause}");
        }
        assert_eq!(patience.pause(0, Duration::from_secs(7)), Duration::from_secs(7));
        assert_eq!(patience.pause(0, Duration::from_secs(86_400)), LONGEST_PAUSE);
    }

    #[test]
    fn what_the_store_asks_reaches_the_pause() {
        let asked = Cell::new(None);
        let patience = Patience { retries: 1, ..patience() };
        let _: Result<()> = run(patience.retry(&meter(), || async {
            asked.set(Some(Attempt::current()));
            Attempt::current().ask_pause(Duration::from_millis(3));
            Err(Error::new(Kind::ServerFailed, "status 503"))
        }));
        assert_eq!(asked.take().unwrap().pause(), Duration::from_millis(3));
    }

    #[test]
    fn a_call_that_stops_moving_is_given_up_and_one_that_moves_is_not() {
        let patience = Patience { retries: 0, timeout: Duration::from_millis(20), backoff: Duration::ZERO };
        let dead: Result<()> = run(patience.retry(&meter(), std::future::pending));
        assert_eq!(dead.unwrap_err().kind(), Kind::TransferTimeout);
        // Beats at every poll, for three times the limit.
        let started = Instant::now();
        let alive = run(patience.retry(&meter(), || {
            std::future::poll_fn(|context| {
                Attempt::current().beat();
                context.waker().wake_by_ref();
                if started.elapsed() > 3 * patience.timeout { std::task::Poll::Ready(Ok(())) } else { std::task::Poll::Pending }
            })
        }));
        assert!(alive.is_ok());
    }
    #[test]
    fn a_server_that_sends_a_byte_now_and_then_is_given_up() {
        // A limit of 20 ms is worth 20 bytes at 1 KiB/s.
        let patience = Patience { retries: 0, timeout: Duration::from_millis(20), backoff: Duration::ZERO };
        let meter = meter();
        let dribble: Result<()> = run(patience.retry(&meter, || async {
            loop {
                Attempt::current().received(1).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
        assert_eq!(dribble.unwrap_err().kind(), Kind::TransferTimeout);
        let count = meter.received();
        assert!(count < 20, "{count}");
    }
}
