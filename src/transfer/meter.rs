//! What went over the line: counted for the report of a transfer and, where `transfer.max_bytes_per_second` asks for it, slowed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time that a line may have been idle and catch up at full speed; short, so that no neighbour on a shared line sees bursts.
const BURST: Duration = Duration::from_millis(200);

/// Counts the traffic of one transfer. The limit is shared by all transfers of a client.
#[derive(Default)]
pub struct Meter {
    received: AtomicU64,
    sent: AtomicU64,
    spooled: AtomicU64,
    retries: AtomicU64,
    throttle: Arc<Throttle>,
}

impl Meter {
    /// A meter that counts from 0 under a limit in bytes per second; 0 = none.
    pub fn new(bytes_per_second: u64) -> Meter {
        Meter { throttle: Arc::new(Throttle { bytes_per_second, free_at: Mutex::new(None) }), ..Meter::default() }
    }

    /// A meter that counts from 0 under the same limit.
    pub fn another(&self) -> Meter {
        Meter { throttle: Arc::clone(&self.throttle), ..Meter::default() }
    }

    /// Bytes of bodies that came from the store, those of failed attempts included.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that went to the store, those of failed attempts included.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that were taken from the spool instead of the store.
    pub fn spooled(&self) -> u64 {
        self.spooled.load(Ordering::Relaxed)
    }

    /// Attempts after a first one.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    pub(super) fn count_spooled(&self, bytes: usize) {
        self.spooled.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that came; answers how long to wait before asking for more.
    pub(super) fn count_received(&self, bytes: usize) -> Duration {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.throttle.reserve(bytes, Instant::now())
    }

    /// Counts bytes that are about to go; answers how long to wait before they may.
    pub(super) fn count_sent(&self, bytes: usize) -> Duration {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.throttle.reserve(bytes, Instant::now())
    }
}

/// A line of limited speed that several transfers share.
#[derive(Default)]
struct Throttle {
    /// 0 = unlimited.
    bytes_per_second: u64,
    /// When the line is free again.
    free_at: Mutex<Option<Instant>>,
}

impl Throttle {
    /// Puts bytes on the line; answers how long they keep it busy beyond the burst that is allowed.
    fn reserve(&self, bytes: usize, now: Instant) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let time = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = free_at.unwrap_or(now).max(now);
        *free_at = Some(begin + time);
        (begin + time).saturating_duration_since(now).saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_parts_keep_the_rate_that_one_large_part_keeps() {
        let start = Instant::now();
        let throttle = Throttle { bytes_per_second: 1_000_000, free_at: Mutex::new(None) };
        let waits: Vec<Duration> = (0..100).map(|_| throttle.reserve(50_000, start)).collect();
        // 5,000,000 bytes at 1,000,000 a second, less the burst.
        assert_eq!(waits[99].as_millis(), 4_800);
        assert_eq!(waits[0], Duration::ZERO);
        // A line that was idle does not save its time up.
        assert_eq!(throttle.reserve(1_000_000, start + Duration::from_secs(60)).as_millis(), 800);
    }

    #[test]
    fn no_limit_never_waits_and_counters_are_separate() {
        let first = Meter::new(0);
        assert_eq!(first.count_received(1 << 30), Duration::ZERO);
        let second = first.another();
        assert_eq!((first.received(), second.received()), (1 << 30, 0));
    }
}
