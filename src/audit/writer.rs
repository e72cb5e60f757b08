//! The log that this process writes.
//!
//! An append returns when its line is on the disk. One `write` and one `fdatasync` serve everybody who waits: whoever finds no write
//! under way becomes the leader, takes all lines that have gathered, writes them and wakes the others, while the next lines gather.
//! Under load the disk's latency is shared; alone, an append costs what the disk costs.
//!
//! A write that fails (a full disk) is taken back to the last durable line, everybody whose line was in it or built on it gets the
//! error, and the log can go on when there is room again. A sync that fails is final: the system no longer says what is on the disk
//! (and says so once only), so the log refuses every further line until it is opened and read again.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::clock::{self, Clock};
use super::events;
use super::files::{self, Locked, hex, unwritable};
use super::heads::{Head, Keeper, Lag};
use super::layout;
use super::open::{self, Opened};
use super::record::{self, FORMAT, Hash, NO_LINE, Record};
use super::summary::summarize;
use super::{Event, Outcome, Settings, Summary, Value};
use crate::error::{Error, Kind, Result};

/// Longest actor and protocol, in bytes.
const NAME_LIMIT: usize = 256;

/// How a log is kept; fixed outside tests.
pub(super) struct Options {
    /// Size at which the next batch goes to a new file. One file is what opening a log reads again.
    pub(super) rotate_bytes: u64,
    pub(super) lag: Lag,
    pub(super) clock: Clock,
    /// Whether a detail that is not in the table is refused rather than left out.
    pub(super) strict: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            rotate_bytes: 16 << 20,
            lag: Lag { records: 1024, time: Duration::from_secs(1) },
            clock: Box::new(clock::system),
            strict: cfg!(debug_assertions),
        }
    }
}

/// The log this process writes. Shared by reference between threads.
///
/// ```no_run
/// use smp::audit::{AuditLog, Event, Outcome, Settings, Value};
/// # fn settings() -> Settings { unimplemented!() }
/// let log = AuditLog::open(settings())?;
/// let seq = log.append(&Event {
///     event: "study.fetched",
///     outcome: Outcome::Success,
///     object: Some("study-0001".into()),
///     detail: vec![("bytes", Value::Integer(1_048_576))],
/// })?;
/// // The record is on the disk.
/// assert!(seq > 0);
/// # Ok::<(), smp::Error>(())
/// ```
pub struct AuditLog {
    settings: Settings,
    id: String,
    boot: String,
    pid: u32,
    clock: Clock,
    strict: bool,
    state: Mutex<State>,
    written: Condvar,
    disk: Mutex<Disk>,
    keeper: Option<Keeper>,
    lock: Option<Locked>,
}

/// Where the chain stands.
struct State {
    /// Lines that wait for the next write, and what will become of them.
    pending: Vec<u8>,
    batch: Arc<Batch>,
    /// Next sequence number and the hash it will quote.
    next: u64,
    chain: Hash,
    /// Next sequence number as far as the disk is concerned, and the hash of the newest durable line.
    durable: u64,
    durable_hash: Hash,
    /// Time stamps of the newest line and of the newest durable one.
    micros: i64,
    durable_micros: i64,
    /// Whether somebody writes.
    busy: bool,
    /// Why nothing may be written any more.
    dead: Option<Failure>,
}

/// The fate of lines that are written together: nothing yet, durable, or lost.
type Batch = OnceLock<Result<(), Failure>>;

/// The newest file.
struct Disk {
    folder: PathBuf,
    file: File,
    number: u32,
    bytes: u64,
    rotate_bytes: u64,
}

/// A write that failed, for everybody who waited for it.
#[derive(Clone)]
struct Failure {
    reason: String,
    is_final: bool,
}

impl AuditLog {
    /// Opens this process's log in the folder: the youngest one that nobody writes, or a new one.
    ///
    /// Fails with [`Kind::AuditUnwritable`] when the folder cannot be used and with [`Kind::AuditTampered`] when the log that would
    /// be continued does not verify.
    pub fn open(settings: Settings) -> Result<AuditLog> {
        AuditLog::open_with(settings, Options::default())
    }

    pub(super) fn open_with(settings: Settings, options: Options) -> Result<AuditLog> {
        if settings.actor.len() > NAME_LIMIT || settings.protocol.len() > NAME_LIMIT {
            return Err(Error::new(Kind::InvalidArgument, "user_id or protocol is longer than 256 bytes"));
        }
        let boot = clock::boot_id();
        let pid = std::process::id();
        let now = (options.clock)();
        let policy = format!(
            "hash=sha-256 objects=hmac-sha-256 durability=fdatasync rotate_bytes={} head_records={} head_ms={} signature=none",
            options.rotate_bytes,
            options.lag.records,
            options.lag.time.as_millis()
        );
        let first_line = |id: &str| -> Result<(Vec<u8>, Hash)> {
            let random = files::random().map_err(|error| unwritable("the system has no random numbers", &error))?;
            let detail = [
                ("format", Value::Integer(FORMAT)),
                ("log", Value::Text(id.to_owned())),
                ("policy", Value::Text(policy.clone())),
                ("public_key", Value::Null),
                ("random", Value::Text(hex(&random))),
                ("version", Value::Text(env!("CARGO_PKG_VERSION").to_owned())),
            ];
            let record = Record {
                seq: 0,
                micros: now.micros,
                since_boot: now.since_boot,
                boot: &boot,
                pid,
                actor: &settings.actor,
                protocol: &settings.protocol,
                event: "log.opened",
                outcome: Outcome::Success,
                object: None,
                detail: &events::admit("log.opened", &detail, true)?,
                prev: &NO_LINE,
            };
            let mut line = Vec::new();
            let hash = record.encode(&mut line)?;
            Ok((line, hash))
        };
        let opened = open::choose(&settings.directory, now.micros, &first_line)?;
        let keeper =
            Keeper::start(&settings.directory, &opened.id, Head { seq: opened.seq.saturating_sub(1), hash: opened.prev }, options.lag)?;
        let Opened { id, folder, lock, file, number, bytes, seq, prev, micros, is_new, torn } = opened;
        let log = AuditLog {
            id,
            boot,
            pid,
            clock: options.clock,
            strict: options.strict,
            state: Mutex::new(State {
                pending: Vec::new(),
                batch: Arc::default(),
                next: seq,
                chain: prev,
                durable: seq,
                durable_hash: prev,
                micros,
                durable_micros: micros,
                busy: false,
                dead: None,
            }),
            written: Condvar::new(),
            disk: Mutex::new(Disk { folder, file, number, bytes, rotate_bytes: options.rotate_bytes }),
            keeper: Some(keeper),
            lock: Some(lock),
            settings,
        };
        if !is_new {
            log.say_what_was_found(seq, torn)?;
        }
        Ok(log)
    }

    /// Appends one event; durable when it returns. Returns its sequence number.
    ///
    /// The object is written as a pseudonym, and details only as the table of events allows. Fails with [`Kind::AuditUnwritable`]
    /// when the record could not be made durable; it is then not in the log.
    pub fn append(&self, event: &Event) -> Result<u64> {
        let detail = events::admit(event.event, &event.detail, self.strict)?;
        let object = event.object.as_deref().map(|object| record::pseudonym(&self.settings.pseudonym_key, object));
        // A process that forked shares the lock with its child, and two writers would tear the chain.
        if std::process::id() != self.pid {
            return Err(Error::new(Kind::AuditUnwritable, "the log was opened by another process"));
        }
        let mut state = self.state();
        if let Some(failure) = &state.dead {
            return Err(failure.error());
        }
        let seq = self.enqueue(&mut state, event.event, event.outcome, object.as_deref(), detail)?;
        self.settle(state)?;
        Ok(seq)
    }

    /// Hash of the newest durable line, hex.
    pub fn head(&self) -> String {
        hex(&self.state().durable_hash)
    }

    /// Id of this process's log.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Totals over all logs of the folder, every one of them verified on the way.
    pub fn summary(&self) -> Result<Summary> {
        summarize(&self.settings.directory, &self.settings.actor, self.head())
    }

    /// Folder of all logs.
    pub fn directory(&self) -> &Path {
        &self.settings.directory
    }

    /// A log that goes on says so, and says first what a crash had left.
    fn say_what_was_found(&self, seq: u64, torn: Option<Vec<(&'static str, Value)>>) -> Result<()> {
        let event = |event, detail| Event { event, outcome: Outcome::Success, object: None, detail };
        if let Some(detail) = torn {
            self.append(&Event { outcome: Outcome::Failure, ..event("log.torn_tail", detail) })?;
        }
        let detail = vec![
            ("continued", Value::Flag(true)),
            ("entries", Value::Integer(i64::try_from(seq).unwrap_or(i64::MAX))),
            ("format", Value::Integer(FORMAT)),
            ("log", Value::Text(self.id.clone())),
            ("version", Value::Text(env!("CARGO_PKG_VERSION").to_owned())),
        ];
        self.append(&event("log.opened", detail)).map(|_| ())
    }

    /// Adds a line to those that wait.
    fn enqueue(
        &self,
        state: &mut State,
        event: &str,
        outcome: Outcome,
        object: Option<&str>,
        mut detail: Vec<(&'static str, Value)>,
    ) -> Result<u64> {
        let now = (self.clock)();
        if now.micros < state.micros {
            // Written as the clock says, and said by how much it went back: a corrected time would be an invented one.
            let at = detail.partition_point(|(key, _)| *key < "clock_back_us");
            detail.insert(at, ("clock_back_us", Value::Integer(state.micros - now.micros)));
        }
        let seq = state.next;
        let record = Record {
            seq,
            micros: now.micros,
            since_boot: now.since_boot,
            boot: &self.boot,
            pid: self.pid,
            actor: &self.settings.actor,
            protocol: &self.settings.protocol,
            event,
            outcome,
            object,
            detail: &detail,
            prev: &state.chain,
        };
        let hash = record.encode(&mut state.pending)?;
        (state.next, state.chain, state.micros) = (seq + 1, hash, now.micros);
        Ok(seq)
    }

    /// Waits until the newest line is durable, writing it and all others that wait when nobody else does.
    fn settle<'a>(&'a self, mut state: MutexGuard<'a, State>) -> Result<()> {
        let batch = Arc::clone(&state.batch);
        loop {
            if let Some(fate) = batch.get() {
                return fate.as_ref().map_err(Failure::error).copied();
            }
            if state.busy {
                state = self.written.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // Nobody writes and this line's fate is open, so its batch is the one that gathers: this thread leads.
            state.busy = true;
            state.batch = Arc::default();
            let lines = std::mem::take(&mut state.pending);
            let (next, hash, micros) = (state.next, state.chain, state.micros);
            drop(state);
            let outcome = self.disk.lock().unwrap_or_else(PoisonError::into_inner).write(&lines);
            state = self.state();
            state.busy = false;
            match &outcome {
                Ok(()) => {
                    (state.durable, state.durable_hash, state.durable_micros) = (next, hash, micros);
                    if let Some(keeper) = &self.keeper {
                        keeper.advance(Head { seq: next.saturating_sub(1), hash });
                    }
                }
                Err(failure) => {
                    // Lines that gathered meanwhile quote lines that are not there, so they share the fate.
                    state.pending.clear();
                    let _ = std::mem::take(&mut state.batch).set(Err(failure.clone()));
                    (state.next, state.chain, state.micros) = (state.durable, state.durable_hash, state.durable_micros);
                    state.dead = failure.is_final.then(|| failure.clone());
                }
            }
            let _ = batch.set(outcome);
            self.written.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        if std::process::id() != self.pid {
            // A forked child has no keeper thread to join, and must not touch its parent's log or end the lock that both hold.
            std::mem::forget((self.keeper.take(), self.lock.take()));
            return;
        }
        let entries = i64::try_from(self.state().next.saturating_add(1)).unwrap_or(i64::MAX);
        let detail = vec![("entries", Value::Integer(entries))];
        // A log that cannot take this line is complete without it. The keeper then writes the last head, while the lock is still held.
        let _ = self.append(&Event { event: "log.closed", outcome: Outcome::Success, object: None, detail });
        drop(self.keeper.take());
    }
}

impl Failure {
    fn new(what: &'static str, error: &io::Error, is_final: bool) -> Failure {
        Failure { reason: unwritable(what, error).detail().to_owned(), is_final }
    }

    fn error(&self) -> Error {
        let error = Error::new(Kind::AuditUnwritable, self.reason.clone());
        if self.is_final { error.with_hint("close the pipeline and open it again; the log is then checked") } else { error }
    }
}

impl Disk {
    /// Makes lines durable, all or none.
    fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        if self.bytes >= self.rotate_bytes {
            self.rotate().map_err(|error| Failure::new("the next file of the log cannot be made", &error, false))?;
        }
        if let Err(error) = self.file.write_all(lines) {
            let taken_back = self.file.set_len(self.bytes).and_then(|()| self.file.sync_all());
            return Err(Failure::new("a record cannot be written", &error, taken_back.is_err()));
        }
        self.file.sync_data().map_err(|error| Failure::new("a record cannot be made durable", &error, true))?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let number = self.number + 1;
        if number > layout::LAST_FILE {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let path = layout::segment(&self.folder, number);
        let file = files::create(&path)?;
        if let Err(error) = files::sync_folder(&self.folder) {
            // The name may or may not last; without it the next attempt can make the file again.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        (self.file, self.number, self.bytes) = (file, number, 0);
        Ok(())
    }
}
