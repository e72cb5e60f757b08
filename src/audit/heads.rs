//! The newest known head of each log, kept outside the log's own folder.
//!
//! A hash chain alone cannot tell that its end was cut off: what is left is a perfect shorter chain. So the position and the hash of
//! the newest line are also kept in `heads/<log id>.json`, and a log that is shorter than that, or has another line there, does not
//! verify. A [`Keeper`] writes the file behind the writer's back, at the latest a second or 1,024 records after the line became
//! durable, and once more when the log is closed; an append never waits for it.
//!
//! Whoever can write into both folders can still roll both back together. Against that help only copies elsewhere and signatures,
//! for which this file is the place.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::files::{self, hex, unreadable, unwritable};
use super::record::Hash;
use crate::error::{Error, Kind, Result};

/// Name of the folder of heads beside the logs.
pub(super) const FOLDER: &str = "heads";

/// Longest file that can be a head.
const LIMIT: u64 = 4096;

/// The newest line of a log that is known to have been durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its sequence number.
    pub(super) seq: u64,
    /// Its hash.
    pub(super) hash: Hash,
}

/// What is known of a log's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The file says this.
    Head(Head),
    /// There is no file.
    Nothing,
    /// There is one, and it is damaged.
    Damaged,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored<'a> {
    entries: u64,
    head: &'a str,
    log: &'a str,
    seq: u64,
}

/// Path of a log's head, given the folder of all logs.
pub(super) fn path(directory: &Path, log: &str) -> PathBuf {
    directory.join(FOLDER).join(format!("{log}.json"))
}

/// Writes a head durably.
pub(super) fn write(directory: &Path, log: &str, head: &Head) -> io::Result<()> {
    let text =
        format!("{{\"entries\":{},\"head\":\"{}\",\"log\":\"{log}\",\"seq\":{}}}\n", head.seq.saturating_add(1), hex(&head.hash), head.seq);
    files::replace(&path(directory, log), &mut |out| out.write_all(text.as_bytes()))
}

/// Reads one log's head.
pub(super) fn read(directory: &Path, log: &str) -> Known {
    match files::read(&path(directory, log)) {
        Ok(file) => {
            let mut text = Vec::new();
            let whole = file.take(LIMIT).read_to_end(&mut text).is_ok();
            whole.then(|| parse(&text, log)).flatten().map_or(Known::Damaged, Known::Head)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Known::Nothing,
        Err(_) => Known::Damaged,
    }
}

/// Reads every head of a folder of logs.
pub(super) fn read_all(directory: &Path) -> Result<BTreeMap<String, Known>> {
    let folder = directory.join(FOLDER);
    match std::fs::symlink_metadata(&folder) {
        Ok(facts) if facts.is_dir() => {}
        Ok(_) => return Err(Error::new(Kind::AuditTampered, "the folder of heads is a link or no folder")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unreadable("the folder of heads cannot be read", &error)),
    }
    let mut heads = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).map_err(|error| unreadable("the folder of heads cannot be read", &error))? {
        let name = entry.map_err(|error| unreadable("the folder of heads cannot be read", &error))?.file_name();
        if let Some(log) = name.to_str().and_then(|name| name.strip_suffix(".json")).filter(|log| super::layout::is_log_id(log)) {
            heads.insert(log.to_owned(), read(directory, log));
        }
    }
    Ok(heads)
}

fn parse(text: &[u8], log: &str) -> Option<Head> {
    let stored: Stored<'_> = serde_json::from_slice(text).ok()?;
    if stored.log != log || stored.seq.checked_add(1) != Some(stored.entries) || stored.head.len() != 64 {
        return None;
    }
    let mut hash = Hash::default();
    for (byte, digits) in hash.iter_mut().zip(stored.head.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    (hex(&hash) == stored.head).then_some(Head { seq: stored.seq, hash })
}

/// How far the kept head may lag behind the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lag {
    /// Records.
    pub(super) records: u64,
    /// Time.
    pub(super) time: Duration,
}

/// Keeps a log's head up to date from a thread of its own.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    directory: PathBuf,
    log: String,
    lag: Lag,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    newest: Head,
    kept: Head,
    idle: bool,
    stop: bool,
}

impl Keeper {
    /// Writes the first head at once, then keeps it.
    pub(super) fn start(directory: &Path, log: &str, head: Head, lag: Lag) -> Result<Keeper> {
        write(directory, log, &head).map_err(|error| unwritable("the head of the log cannot be written", &error))?;
        let shared = Arc::new(Shared {
            directory: directory.to_owned(),
            log: log.to_owned(),
            lag,
            state: Mutex::new(State { newest: head.clone(), kept: head, idle: false, stop: false }),
            changed: Condvar::new(),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("smp-audit-heads".into())
            .spawn(move || worker.run())
            .map_err(|error| unwritable("the keeper of the log's head cannot be started", &error))?;
        Ok(Keeper { shared, thread: Some(thread) })
    }

    /// Tells of a newer line that is durable.
    pub(super) fn advance(&self, head: Head) {
        let mut state = self.shared.lock();
        // A follower may report after a later leader did.
        if head.seq <= state.newest.seq {
            return;
        }
        state.newest = head;
        // The thread is woken when it sleeps without a date or when it must not wait for its date; else it wakes by itself.
        if state.idle || state.newest.seq - state.kept.seq >= self.shared.lag.records {
            self.shared.changed.notify_all();
        }
    }

    /// Ends the thread and writes the newest head.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        let _ = thread.join();
        let head = self.shared.lock().newest.clone();
        write(&self.shared.directory, &self.shared.log, &head)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        let mut last = Instant::now();
        while !state.stop {
            let behind = state.newest.seq - state.kept.seq;
            let rest = self.lag.time.saturating_sub(last.elapsed());
            if behind == 0 {
                state.idle = true;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle = false;
            } else if behind < self.lag.records && !rest.is_zero() {
                state = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
            } else {
                let head = state.newest.clone();
                drop(state);
                let outcome = write(&self.directory, &self.log, &head);
                last = Instant::now();
                state = self.lock();
                if outcome.is_ok() {
                    state.kept = head;
                } else {
                    // Nobody waits for this write, and a full disk is reported by the next append. It is tried again in a while.
                    state = self.changed.wait_timeout(state, self.lag.time).unwrap_or_else(PoisonError::into_inner).0;
                }
                self.changed.notify_all();
            }
        }
    }

    /// Waits until the file says at least this.
    #[cfg(test)]
    fn wait_for(&self, seq: u64) {
        let mut state = self.lock();
        while state.kept.seq < seq {
            state = self.changed.wait(state).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "20250102T030405Z-0123456789abcdef";

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files::make_folder(&folder.path().join(FOLDER)).unwrap();
        folder
    }

    fn head(seq: u64) -> Head {
        Head { seq, hash: [seq as u8; 32] }
    }

    #[test]
    fn a_head_is_read_as_it_was_written_and_a_damaged_one_is_not() {
        let folder = folder();
        assert_eq!(read(folder.path(), LOG), Known::Nothing);
        write(folder.path(), LOG, &head(7)).unwrap();
        let text = std::fs::read_to_string(path(folder.path(), LOG)).unwrap();
        assert_eq!(text, format!("{{\"entries\":8,\"head\":\"{}\",\"log\":\"{LOG}\",\"seq\":7}}\n", "07".repeat(32)));
        assert_eq!(read_all(folder.path()).unwrap(), BTreeMap::from([(LOG.to_owned(), Known::Head(head(7)))]));
        for bad in [
            text.replace(":8", ":9"),
            text.replace("0707", "07zz"),
            text.replace("0707", "+7+7"),
            text.replace(LOG, "other"),
            "{".into(),
            String::new(),
        ] {
            std::fs::write(path(folder.path(), LOG), bad).unwrap();
            assert_eq!(read(folder.path(), LOG), Known::Damaged);
        }
    }

    #[test]
    fn the_kept_head_follows_the_log_by_number_and_by_time() {
        let folder = folder();
        for lag in [Lag { records: 3, time: Duration::from_secs(1 << 40) }, Lag { records: u64::MAX, time: Duration::from_millis(1) }] {
            let keeper = Keeper::start(folder.path(), LOG, head(0), lag).unwrap();
            assert_eq!(read(folder.path(), LOG), Known::Head(head(0)));
            keeper.advance(head(1));
            keeper.advance(head(3));
            keeper.advance(head(2));
            keeper.shared.wait_for(3);
            assert_eq!(read(folder.path(), LOG), Known::Head(head(3)));
        }
    }

    #[test]
    fn a_keeper_that_ends_leaves_the_newest_head() {
        let folder = folder();
        let lag = Lag { records: u64::MAX, time: Duration::from_secs(1 << 40) };
        let keeper = Keeper::start(folder.path(), LOG, head(0), lag).unwrap();
        keeper.advance(head(9));
        drop(keeper);
        assert_eq!(read(folder.path(), LOG), Known::Head(head(9)));
    }
}
