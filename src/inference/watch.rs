//! A run of somebody else's code that ends soon after the study is cancelled, and not only between runs.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::control::Control;

/// How often a run looks whether it was cancelled.
const WATCH_EVERY: Duration = Duration::from_millis(25);

/// Runs a closure while a second thread calls `stop`, once, as soon as the study is cancelled.
pub(super) fn watched<T>(control: &Control, stop: impl Fn() + Sync, run: impl FnOnce() -> T) -> T {
    let done = (Mutex::new(false), Condvar::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut finished = done.0.lock().unwrap_or_else(PoisonError::into_inner);
            while !*finished {
                if control.is_cancelled() {
                    stop();
                    return;
                }
                finished = done.1.wait_timeout(finished, WATCH_EVERY).unwrap_or_else(PoisonError::into_inner).0;
            }
        });
        // The watcher must end however the run does, or the scope would wait for ever.
        let guard = Finish(&done);
        let result = run();
        drop(guard);
        result
    })
}

struct Finish<'a>(&'a (Mutex<bool>, Condvar));

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}
