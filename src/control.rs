//! How long work is watched and stopped: one cancel flag and one progress report, shared by everybody who works on a study.
//!
//! A [`Control`] is cheap to clone and is checked per chunk, file, slab and window. Cancelling never waits; the work notices at
//! its next check and returns [`Kind::Cancelled`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Kind, Result};

/// What listens to progress: a stage's name and the fraction of it that is done, 0 to 1.
pub type Listener = dyn Fn(&'static str, f64) + Send + Sync;

/// A cancel token with an optional progress listener. Clones share both.
#[derive(Clone, Default)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    listener: Option<Box<Listener>>,
}

impl Control {
    /// A control that nobody listens to.
    pub fn new() -> Control {
        Control::default()
    }

    /// A control whose progress goes to a listener. The listener is called from worker threads and must be quick.
    pub fn with_listener(listener: impl Fn(&'static str, f64) + Send + Sync + 'static) -> Control {
        Control { shared: Arc::new(Shared { cancelled: AtomicBool::new(false), listener: Some(Box::new(listener)) }) }
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
        if let Some(listener) = &self.shared.listener {
            listener(stage, fraction.clamp(0.0, 1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

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
}
