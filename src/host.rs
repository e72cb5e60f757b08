//! What the library asks of the process that hosts it: a log file, and memory that others cannot read.
//!
//! The log takes events of this crate only. The libraries underneath log as well, and their lines may hold object names, headers or
//! credentials, so they are dropped before they are formatted. What this crate logs holds kinds, sizes, numbers and status names.
//!
//! Hardening concerns the whole process, so it happens on request only and never by itself.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, span};

use crate::error::{Error, Kind, Result, Stage};

/// How much is logged; each level holds the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Failures that end a piece of work.
    Error,
    /// Failed calls.
    Warn,
    /// What begins and ends.
    Info,
    /// Steps.
    Debug,
    /// Everything.
    Trace,
}

/// What [`harden_process`] does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hardening {
    /// No debugger of the same user may attach, and the memory is in no core dump.
    pub no_dump: bool,
    /// A crash writes no core file.
    pub no_core: bool,
    /// No page goes to swap.
    pub lock_memory: bool,
}

/// Appends the log of the whole process to a file from now on; a second call changes file and level.
///
/// # Errors
/// [`Kind::OutputUnwritable`] when the file cannot be opened, is a link or no regular file, or belongs to somebody else;
/// [`Kind::Unsupported`] when the host program has a log of its own (a Rust program with its own `tracing` subscriber).
pub fn log_to_file(path: &Path, level: LogLevel) -> Result<()> {
    log_to(Sink { level, target: Target::File(file_of(path)?) })
}

/// Gives each line of the log of the whole process to a function from now on, in place of a file. It is called from any thread, several at
/// once, and must neither log nor fail.
///
/// # Errors
/// [`Kind::Unsupported`] as for [`log_to_file`].
pub fn log_to_listener(level: LogLevel, listener: Arc<LogListener>) -> Result<()> {
    log_to(Sink { level, target: Target::Listener(listener) })
}

fn log_to(sink: Sink) -> Result<()> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    if !INSTALLED.get_or_init(|| tracing::dispatcher::set_global_default(Dispatch::new(&LOG)).is_ok()) {
        return Err(Error::new(Kind::Unsupported, "the host program keeps a log of its own"));
    }
    LOG.set(Some(sink));
    Ok(())
}

/// Stops the log, closes its file and lets its listener go.
pub fn stop_log() -> Result<()> {
    LOG.set(None);
    Ok(())
}

/// Asks the system to keep the memory of this process from other eyes. It cannot be undone.
///
/// # Errors
/// [`Kind::Unsupported`] with the system's error number. What was done before the refusal stays in force.
pub fn harden_process(hardening: Hardening) -> Result<()> {
    let refused = |what: &str, number: i32| Error::new(Kind::Unsupported, format!("the system refused {what}, os error {number}"));
    if hardening.no_core {
        system::forbid_core_files().map_err(|number| refused("to forbid core files", number))?;
    }
    if hardening.no_dump {
        system::forbid_dumps().map_err(|number| refused("to forbid dumps", number))?;
    }
    if hardening.lock_memory {
        // With a limit in force, locking all future memory makes an allocation fail once the limit is reached, and with it the host.
        if !may_lock_memory() {
            return Err(Error::new(Kind::Unsupported, "the process may lock only a part of its memory")
                .with_hint("give the process CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK (ulimit -l)"));
        }
        system::lock_memory().map_err(|number| refused("to lock the memory", number))?;
    }
    Ok(())
}

/// Opens a file to append to, which nobody else can read.
fn file_of(path: &Path) -> Result<File> {
    let refused = |detail: String| {
        Error::new(Kind::OutputUnwritable, detail).at(Stage::Call).with_hint("name a file of your own in a folder that you can write to")
    };
    let system = |error: std::io::Error| refused(format!("log file, os error {}", error.raw_os_error().unwrap_or(0)));
    // A link could be somebody else's, and a pipe would block until it is read.
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path).map_err(system)?;
    let metadata = file.metadata().map_err(system)?;
    if !metadata.is_file() {
        return Err(refused("the log file is not a regular file".to_owned()));
    }
    if metadata.uid() != system::user() {
        return Err(refused("the log file belongs to another user".to_owned()));
    }
    if metadata.mode() & 0o077 != 0 {
        file.set_permissions(PermissionsExt::from_mode(0o600)).map_err(system)?;
    }
    Ok(file)
}

/// Whether the limit on locked memory does not bind this process.
fn may_lock_memory() -> bool {
    // proc(5): CapEff is the set of effective capabilities in hexadecimal; capabilities(7): CAP_IPC_LOCK is number 14.
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    effective & CAP_IPC_LOCK != 0 || system::is_locking_unlimited()
}

/// Hears the lines of the log.
pub type LogListener = dyn Fn(LogLevel, &str) + Send + Sync;

struct Sink {
    level: LogLevel,
    target: Target,
}

enum Target {
    File(File),
    Listener(Arc<LogListener>),
}

/// The process's log: nothing until a file is set.
struct Log {
    sink: RwLock<Option<Sink>>,
    spans: AtomicU64,
}

static LOG: Log = Log { sink: RwLock::new(None), spans: AtomicU64::new(1) };

impl Log {
    fn set(&self, sink: Option<Sink>) {
        // What was there ends outside of the lock: a listener's end is the host's code.
        let before = std::mem::replace(&mut *self.sink.write().unwrap_or_else(PoisonError::into_inner), sink);
        drop(before);
        // Callers remember whether anybody listens to them.
        tracing::callsite::rebuild_interest_cache();
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let sink = self.sink.read().unwrap_or_else(PoisonError::into_inner);
        is_ours(metadata) && sink.as_ref().is_some_and(|sink| level(metadata.level()) <= sink.level)
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target() == "smp" || metadata.target().starts_with("smp::")
}

fn level(level: &Level) -> LogLevel {
    match *level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    }
}

impl Subscriber for &'static Log {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.wants(metadata)
    }

    fn new_span(&self, _attributes: &span::Attributes<'_>) -> span::Id {
        // Spans are not written; they only need names of their own. Zero is not allowed.
        span::Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed).max(1))
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        if !self.wants(metadata) {
            return;
        }
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let mut line = format!("{now} {:5} {}", metadata.level(), metadata.target());
        event.record(&mut Fields(&mut line));
        // One event is one line, whatever is in its fields.
        let mut line = line.replace(char::is_control, " ");
        let listener = match self.sink.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|sink| &sink.target) {
            None => return,
            Some(Target::File(file)) => {
                line.push('\n');
                // One write per line: O_APPEND keeps lines of several threads apart. A full disk loses lines and fails no study.
                let mut file = file;
                let _ = file.write_all(line.as_bytes());
                return;
            }
            Some(Target::Listener(listener)) => Arc::clone(listener),
        };
        // Without the lock, so that a listener may change the log.
        listener(level(metadata.level()), &line);
    }

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}
}

/// Writes an event's fields behind its target: the message bare, the others by name.
struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

/// The one place that asks the system for limits and locks.
#[allow(unsafe_code)]
mod system {
    /// RLIMIT_CORE 0 for now and for ever: the hard limit goes down with the soft one (setrlimit(2)).
    pub(super) fn forbid_core_files() -> Result<(), i32> {
        let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: setrlimit reads one rlimit, which is a live local.
        succeeded(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) })
    }

    /// prctl(2), PR_SET_DUMPABLE: no core dump, no ptrace by the same user, and /proc/self belongs to root.
    pub(super) fn forbid_dumps() -> Result<(), i32> {
        // SAFETY: PR_SET_DUMPABLE takes one number and no address.
        succeeded(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })
    }

    /// Locks pages when they are first touched, those of the future too; untouched reservations cost nothing (mlock(2)).
    pub(super) fn lock_memory() -> Result<(), i32> {
        // SAFETY: mlockall takes flags and no address.
        succeeded(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) })
    }

    pub(super) fn is_locking_unlimited() -> bool {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: getrlimit writes one rlimit, which is a live local.
        let outcome = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
        outcome == 0 && limit.rlim_cur == libc::RLIM_INFINITY
    }

    pub(super) fn user() -> u32 {
        // SAFETY: geteuid takes nothing and cannot fail.
        unsafe { libc::geteuid() }
    }

    fn succeeded(outcome: i32) -> Result<(), i32> {
        if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test, because the log is the process's.
    #[test]
    fn the_log_holds_this_crates_lines_up_to_its_level_in_a_private_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("smp.log");
        std::fs::write(&path, "before\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        log_to_file(&path, LogLevel::Warn).unwrap();
        tracing::warn!(target: "smp::test", slices = 28, word = "uniform", "two\nlines");
        tracing::info!(target: "smp::test", "too fine");
        tracing::error!(target: "hyper::proto", "authorization: secret");
        tracing::error!(target: "smpx", "not ours");
        let text = std::fs::read_to_string(&path).unwrap();
        let ours: Vec<&str> = text.lines().filter(|line| line.contains("smp::test")).collect();
        assert_eq!(ours.len(), 1, "{text}");
        assert!(ours[0].ends_with("WARN  smp::test two lines slices=28 word=uniform"), "{text}");
        assert!(text.starts_with("before\n") && !text.contains("secret") && !text.contains("not ours"), "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        log_to_listener(LogLevel::Warn, Arc::new(move |level, line: &str| ear.lock().unwrap().push((level, line.to_owned())))).unwrap();
        tracing::warn!(target: "smp::test", slices = 29, "to a listener");
        tracing::info!(target: "smp::test", "too fine");
        let ours = heard.lock().unwrap().iter().filter(|(_, line)| line.contains("smp::test")).cloned().collect::<Vec<_>>();
        assert_eq!((ours.len(), ours[0].0), (1, LogLevel::Warn));
        assert!(ours[0].1.ends_with("WARN  smp::test to a listener slices=29"), "{ours:?}");

        let finer = folder.path().join("finer.log");
        log_to_file(&finer, LogLevel::Info).unwrap();
        tracing::info!(target: "smp::test", "fine now");
        stop_log().unwrap();
        tracing::error!(target: "smp::test", "after the end");
        let text = std::fs::read_to_string(&finer).unwrap();
        assert!(text.contains("fine now") && !text.contains("after the end"), "{text}");
    }

    #[test]
    fn a_link_a_folder_and_a_pipe_are_no_log_files() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::fs::write(&target, "").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        for path in [link.as_path(), folder.path(), &folder.path().join("missing/smp.log"), Path::new("/dev/null")] {
            assert_eq!(log_to_file(path, LogLevel::Error).unwrap_err().kind(), Kind::OutputUnwritable);
        }
    }
}
