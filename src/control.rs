//! How long work is watched and stopped: one cancel flag and one progress report, shared by everybody who works on a study.
//!
//! A [`Control`] is cheap to clone and is checked per chunk, file, slab and window. Cancelling never waits; the work notices at
//! its next check and returns [`Kind::Cancelled`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

/// What listens to progress: a stage's name and the fraction of it that is done, 0 to 1.
pub type Listener = dyn Fn(&'static str, f64) + Send + Sync;
/// A [`Listener`] that can stop the work: it answers whether to go on.
pub type Watcher = dyn Fn(&'static str, f64) -> bool + Send + Sync;

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TransferProgress {
    /// Bytes that are here, checked, of those that will be.
    pub bytes: u64,
    /// Bytes of all objects.
    pub total_bytes: u64,
    /// Objects that are here.
    pub objects: u64,
    /// Objects in all.
    pub total_objects: u64,
    /// Speed over the last seconds; 0 before there is one.
    pub bytes_per_second: f64,
    /// Seconds that the rest takes at this speed; `None` before there is a speed.
    pub remaining_s: Option<f64>,
}

/// The stage of a control that tells nobody.
const SILENT: &str = "";

/// A transfer under way.
struct Line {
    progress: TransferProgress,
    measured: Instant,
    measured_bytes: u64,
}

/// Time over which a speed is measured.
const MEASURE: Duration = Duration::from_millis(500);
/// Share of the latest measurement in the speed that is told, so that it neither jumps nor lags by more than a few seconds.
const LATEST: f64 = 0.3;

/// A cancel token with an optional progress listener. Clones share both.
#[derive(Clone, Default)]
pub struct Control {
    shared: Arc<Shared>,
    /// The part of a stage that all progress told here is.
    part: Option<(&'static str, f64, f64)>,
}

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    watcher: Option<Arc<Watcher>>,
    line: Mutex<Option<Line>>,
}

impl Control {
    /// A control that nobody listens to.
    pub fn new() -> Control {
        Control::default()
    }

    /// A control whose progress goes to a listener. The listener is called from worker threads and must be quick.
    pub fn with_listener(listener: impl Fn(&'static str, f64) + Send + Sync + 'static) -> Control {
        Control::watched(Arc::new(move |stage, fraction| {
            listener(stage, fraction);
            true
        }))
    }

    /// A control that is cancelled when the watcher answers `false`. It is called from worker threads and must be quick.
    pub fn watched(watcher: Arc<Watcher>) -> Control {
        Control { shared: Arc::new(Shared { watcher: Some(watcher), ..Shared::default() }), part: None }
    }

    /// Asks the work to stop. Returns at once, from any thread.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Release);
    }

    /// Whether somebody asked the work to stop.
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Acquire)
    }

    /// Fails with [`Kind::Cancelled`] once somebody asked the work to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::new(Kind::Cancelled, "")) } else { Ok(()) }
    }

    /// Reports how much of a stage is done, 0 to 1.
    pub fn progress(&self, stage: &'static str, fraction: f64) {
        let Some(watcher) = &self.shared.watcher else { return };
        let fraction = fraction.clamp(0.0, 1.0);
        let goes_on = match self.part {
            Some((SILENT, ..)) => true,
            Some((whole, from, to)) => watcher(whole, from + (to - from) * fraction),
            None => watcher(stage, fraction),
        };
        if !goes_on {
            self.cancel();
        }
    }

    /// A control for a part of a stage: what is told to it as a whole, from 0 to 1, is told to the listener as that part of the stage. A
    /// part of a part belongs to the stage of the whole.
    pub(crate) fn within(&self, stage: &'static str, from: f64, to: f64) -> Control {
        let (stage, start, end) = self.part.unwrap_or((stage, 0.0, 1.0));
        let at = |fraction: f64| start + (end - start) * fraction;
        Control { shared: Arc::clone(&self.shared), part: Some((stage, at(from), at(to))) }
    }

    /// A control that is cancelled with this one and tells nobody how far it is.
    pub(crate) fn silent(&self) -> Control {
        Control { shared: Arc::clone(&self.shared), part: Some((SILENT, 0.0, 0.0)) }
    }

    /// How far the transfer is that is under way, or was the last one; `None` before the first. Any thread may ask at any time.
    pub fn transfer(&self) -> Option<TransferProgress> {
        self.line().as_ref().map(|line| line.progress)
    }

    /// A transfer begins, of this many bytes in this many objects.
    pub(crate) fn begin_transfer(&self, total_bytes: u64, total_objects: u64) {
        let progress = TransferProgress { total_bytes, total_objects, ..TransferProgress::default() };
        *self.line() = Some(Line { progress, measured: Instant::now(), measured_bytes: 0 });
    }

    /// Bytes of the transfer are here.
    pub(crate) fn transferred(&self, bytes: u64) {
        if let Some(line) = self.line().as_mut() {
            line.add(bytes, Instant::now());
        }
    }

    /// An object of the transfer is here, whole.
    pub(crate) fn object_transferred(&self) {
        if let Some(line) = self.line().as_mut() {
            line.progress.objects += 1;
        }
    }

    fn line(&self) -> MutexGuard<'_, Option<Line>> {
        self.shared.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn add(&mut self, bytes: u64, now: Instant) {
        let progress = &mut self.progress;
        progress.bytes += bytes;
        let time = now.saturating_duration_since(self.measured);
        if time >= MEASURE {
            let latest = (progress.bytes - self.measured_bytes) as f64 / time.as_secs_f64();
            let before = progress.bytes_per_second;
            progress.bytes_per_second = if before > 0.0 { before * (1.0 - LATEST) + latest * LATEST } else { latest };
            (self.measured, self.measured_bytes) = (now, progress.bytes);
        }
        let rest = progress.total_bytes.saturating_sub(progress.bytes) as f64;
        progress.remaining_s = (progress.bytes_per_second > 0.0).then(|| rest / progress.bytes_per_second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_part_tells_its_share_of_the_stage() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let control = {
            let told = Arc::clone(&told);
            Control::with_listener(move |stage, fraction| told.lock().unwrap().push((stage, fraction)))
        };
        let part = control.within("preprocess", 0.25, 0.75);
        part.progress("n4", 0.0);
        part.clone().progress("n4", 0.5);
        part.progress("n4", 7.0);
        assert_eq!(*told.lock().unwrap(), [("preprocess", 0.25), ("preprocess", 0.5), ("preprocess", 0.75)]);
        part.cancel();
        assert!(control.is_cancelled());
    }

    #[test]
    fn cancelling_one_clone_stops_the_others() {
        let control = Control::new();
        let worker = control.clone();
        assert!(worker.check().is_ok());
        control.cancel();
        assert_eq!(worker.check().unwrap_err().kind(), Kind::Cancelled);
    }

    #[test]
    fn progress_reaches_the_listener_within_bounds() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let control = Control::with_listener(move |stage, fraction| sink.lock().unwrap().push((stage, fraction)));
        control.progress("load", 0.5);
        control.progress("load", 7.0);
        assert_eq!(*seen.lock().unwrap(), [("load", 0.5), ("load", 1.0)]);
    }

    #[test]
    fn a_watcher_stops_the_work() {
        let control = Control::watched(Arc::new(|_, fraction| fraction < 0.5));
        control.progress("load", 0.25);
        assert!(control.check().is_ok());
        control.within("load", 0.5, 1.0).progress("load", 0.1);
        assert_eq!(control.check().unwrap_err().kind(), Kind::Cancelled);
    }

    #[test]
    fn parts_of_parts_lie_within_them_and_silence_is_kept() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let control = Control::with_listener(move |stage, fraction| sink.lock().unwrap().push((stage, fraction)));
        control.within("preprocess", 0.5, 1.0).within("other", 0.0, 0.5).progress("denoise", 0.5);
        control.silent().within("preprocess", 0.0, 1.0).progress("denoise", 0.5);
        assert_eq!(*seen.lock().unwrap(), [("preprocess", 0.625)]);
        control.silent().cancel();
        assert!(control.is_cancelled());
    }

    #[test]
    fn a_steady_transfer_tells_its_speed_and_what_is_left() {
        let control = Control::new();
        assert_eq!(control.transfer(), None);
        control.begin_transfer(10_000_000, 2);
        assert_eq!(control.transfer().unwrap().remaining_s, None);
        let start = control.line().as_ref().unwrap().measured;
        for second in 1..=4 {
            control.line().as_mut().unwrap().add(1_000_000, start + Duration::from_secs(second));
        }
        control.object_transferred();
        let progress = control.transfer().unwrap();
        assert_eq!((progress.bytes, progress.objects, progress.total_objects), (4_000_000, 1, 2));
        assert_eq!((progress.bytes_per_second, progress.remaining_s), (1e6, Some(6.0)));
    }
}
