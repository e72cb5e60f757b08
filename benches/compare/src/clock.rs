//! Time by the clock, and time that processors worked for this process and for the programs it ran.

use std::time::Instant;

/// What something took, in seconds.
pub struct Spent {
    pub wall: f64,
    pub processor: f64,
}

/// A measurement that has begun.
pub struct Clock {
    wall: Instant,
    processor: f64,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { processor: processor(), wall: Instant::now() }
    }

    pub fn stop(self) -> Spent {
        Spent { wall: self.wall.elapsed().as_secs_f64(), processor: processor() - self.processor }
    }
}

/// Seconds of processor time of all threads, and of programs that were run and have ended.
fn processor() -> f64 {
    let mut own = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, which is a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut own) };
    // SAFETY: all-zero bytes are a valid rusage.
    let mut children: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes one rusage, which is a live local.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut children) };
    let micro = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    own.tv_sec as f64 + own.tv_nsec as f64 / 1e9 + micro(children.ru_utime) + micro(children.ru_stime)
}
