//! Which log a process writes, and what must be true of a log before a line is added to it.
//!
//! A process continues the youngest log that nobody else writes, and begins one only when there is none. So the runs of a year hang
//! on one chain: taking out a run breaks it, whereas a folder of many short logs would depend on its heads alone. Processes that run
//! at the same time get a log each; a chain has one writer, and no process ever waits for another one's disk.
//!
//! Before a log is continued its end is read again: from the file that holds its kept head (or the last file) every line must chain,
//! and the head must be in it. A log that fails is never continued, and no other is taken instead: nothing is processed until a
//! person has looked. Bytes after the last line feed are not tampering but a crash. They were never acknowledged; they are moved to
//! `NNNNNN.torn`, and the log says so.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use super::files::{self, Locked, hex, unreadable, unwritable};
use super::heads::{self, Known};
use super::layout::{self, Lines, Piece};
use super::record::{FORMAT, Hash, Line, NO_LINE, Opening};
use super::verify::{Chain, Fault, begins};
use super::{Value, clock};
use crate::error::{Error, Kind, Result};

/// How long a process waits for others that are choosing their logs. Choosing takes milliseconds; a day's last file, a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prefix of a log that is being made. A crash leaves such a folder; it holds nothing that was acknowledged.
const UNBORN: &str = ".new-";

/// Makes the line that begins a log, given its id; returns it with its line feed, and its hash.
pub(super) type FirstLine<'a> = dyn Fn(&str) -> Result<(Vec<u8>, Hash)> + 'a;

/// A log that this process may write, and where its chain stands.
pub(super) struct Opened {
    pub(super) id: String,
    pub(super) folder: PathBuf,
    /// The log's first file, locked for life.
    pub(super) lock: Locked,
    /// The newest file, open for appending.
    pub(super) file: File,
    pub(super) number: u32,
    pub(super) bytes: u64,
    /// Next sequence number, 0 in a new log.
    pub(super) seq: u64,
    pub(super) prev: Hash,
    /// Newest time stamp.
    pub(super) micros: i64,
    /// Whether the log was begun just now.
    pub(super) is_new: bool,
    /// What was moved out of the way: its details as an event.
    pub(super) torn: Option<Vec<(&'static str, Value)>>,
}

/// Chooses this process's log. A new one begins with `first_line`.
pub(super) fn choose(directory: &Path, micros: i64, first_line: &FirstLine<'_>) -> Result<Opened> {
    files::own_folder(directory)?;
    files::own_folder(&directory.join(heads::FOLDER))?;
    let _gate = gate(&directory.join(layout::GATE))?;
    sweep(directory);
    let ids = layout::logs(directory)?;
    if heads::read_all(directory)?.keys().any(|id| ids.binary_search(id).is_err()) {
        return Err(Error::new(Kind::AuditTampered, "a head is kept of a log that is missing"));
    }
    for id in ids.iter().rev() {
        if let Some(opened) = resume(directory, id)? {
            return Ok(opened);
        }
    }
    begin(directory, micros, first_line)
}

/// Holds the right to choose a log; others wait.
fn gate(path: &Path) -> Result<Locked> {
    let failed = |error: io::Error| unwritable("the lock of the audit log cannot be taken", &error);
    let begun = Instant::now();
    loop {
        if let Some(lock) = Locked::try_new(files::append(path, true).map_err(failed)?).map_err(failed)? {
            return Ok(lock);
        }
        if begun.elapsed() > PATIENCE {
            return Err(Error::new(Kind::AuditUnwritable, "another process has been opening the log for 30 s"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes what a crash left half made. Nobody else is making a log while the gate is held.
fn sweep(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().and_then(|name| name.strip_prefix(UNBORN)).is_some_and(layout::is_log_id) {
            let _ = std::fs::remove_file(layout::segment(&entry.path(), 1));
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// Begins a log. It gets its name only when its first line is durable, so whoever sees a log sees a beginning.
fn begin(directory: &Path, micros: i64, first_line: &FirstLine<'_>) -> Result<Opened> {
    let failed = |error: io::Error| unwritable("a new log cannot be made", &error);
    let id = layout::new_log_id(micros, &files::random().map_err(failed)?);
    let (line, hash) = first_line(&id)?;
    let (unborn, folder) = (directory.join(format!("{UNBORN}{id}")), directory.join(&id));
    files::make_folder(&unborn).map_err(failed)?;
    let made = || -> io::Result<(File, Locked)> {
        let mut file = files::create(&layout::segment(&unborn, 1))?;
        let lock = Locked::try_new(file.try_clone()?)?.ok_or(io::ErrorKind::WouldBlock)?;
        file.write_all(&line)?;
        file.sync_all()?;
        files::sync_folder(&unborn)?;
        std::fs::rename(&unborn, &folder)?;
        files::sync_folder(directory)?;
        Ok((file, lock))
    };
    let (file, lock) = made().map_err(|error| {
        sweep(directory);
        failed(error)
    })?;
    Ok(Opened { id, folder, lock, file, number: 1, bytes: line.len() as u64, seq: 1, prev: hash, micros, is_new: true, torn: None })
}

/// Takes over a log; nothing when somebody writes it or when a newer version of the library made it.
fn resume(directory: &Path, id: &str) -> Result<Option<Opened>> {
    let failed = |error: io::Error| unwritable("a log cannot be opened", &error);
    let folder = directory.join(id);
    let numbers = layout::segments(&folder)?;
    let first = layout::segment(&folder, 1);
    if !layout::is_complete(&numbers) {
        return Err(tampered(0, 0, Fault::FileMissing));
    }
    let Some(lock) = Locked::try_new(files::append(&first, false).map_err(failed)?).map_err(failed)? else { return Ok(None) };
    // Only now is nobody else adding files.
    let numbers = layout::segments(&folder)?;
    if !layout::is_complete(&numbers) || !lock.is_at(&first) {
        return Err(tampered(0, 0, Fault::FileMissing));
    }
    if !is_ours(lock.file(), &first, id)? {
        return Ok(None);
    }
    let tail = examine(&folder, &numbers, &heads::read(directory, id))?;
    let mut file = files::append(&layout::segment(&folder, tail.number), false).map_err(failed)?;
    let torn = set_aside(&folder, &mut file, &tail).map_err(|error| unwritable("torn bytes cannot be moved out of the log", &error))?;
    Ok(Some(Opened {
        id: id.to_owned(),
        folder,
        lock,
        file,
        number: tail.number,
        bytes: tail.complete,
        seq: tail.seq,
        prev: tail.prev,
        micros: tail.micros,
        is_new: false,
        torn,
    }))
}

/// Whether the first line begins this very log in a format that this version may continue.
fn is_ours(file: &File, path: &Path, id: &str) -> Result<bool> {
    let failed = |error: io::Error| unreadable("a log cannot be read", &error);
    let bytes = file.metadata().map_err(failed)?.len();
    let mut lines = Lines::open(path, bytes).map_err(failed)?;
    let Piece::Line(raw) = lines.next().map_err(failed)? else { return Err(tampered(1, 1, Fault::NoBeginning)) };
    let format = Line::<Opening>::parse(raw).and_then(|line| line.detail.format);
    match begins(raw, Some(id)) {
        None => Ok(true),
        Some(Fault::NoBeginning) if format.is_some_and(|format| format > FORMAT) => Ok(false),
        Some(fault) => Err(tampered(1, 1, fault)),
    }
}

/// The end of a log.
struct Tail {
    number: u32,
    complete: u64,
    torn: u64,
    seq: u64,
    prev: Hash,
    micros: i64,
}

/// Reads the end of a log again, from the file that holds its head on.
fn examine(folder: &Path, numbers: &[u32], head: &Known) -> Result<Tail> {
    let failed = |error: io::Error| unreadable("a log cannot be read", &error);
    let sizes: Vec<(u32, PathBuf, u64)> = numbers
        .iter()
        .map(|number| {
            let path = layout::segment(folder, *number);
            let bytes = files::read(&path)?.metadata()?.len();
            Ok((*number, path, bytes))
        })
        .collect::<io::Result<_>>()
        .map_err(failed)?;
    let head_seq = if let Known::Head(head) = head { head.seq } else { u64::MAX };
    let mut from = sizes.len().saturating_sub(1);
    while let Some((_, path, bytes)) = sizes.get(from).filter(|_| from > 0) {
        // A file without a line was made right before a crash.
        let first = Lines::open(path, *bytes).and_then(|mut lines| Ok(seq_of(lines.next()?))).map_err(failed)?;
        if first.is_some_and(|seq| seq <= head_seq) {
            break;
        }
        from -= 1;
    }
    let mut chain = Chain::new();
    if let Some((number, path, bytes)) = from.checked_sub(1).and_then(|before| sizes.get(before)) {
        let line = layout::last_line(path, *bytes).map_err(failed)?;
        let seq = line.as_deref().and_then(Line::<IgnoredAny>::parse).map(|line| line.seq);
        let (Some(line), Some(seq)) = (line, seq) else { return Err(tampered(*number, 0, Fault::Malformed)) };
        chain = Chain { seq: seq.checked_add(1), prev: super::record::hash(&line) };
    }
    let mut tail = Tail { number: 0, complete: 0, torn: 0, seq: 0, prev: NO_LINE, micros: 0 };
    let mut confirmed = false;
    let last = sizes.len().saturating_sub(1);
    for (index, (number, path, bytes)) in sizes.iter().enumerate().skip(from) {
        let mut lines = Lines::open(path, *bytes).map_err(failed)?;
        let mut count = 0u64;
        loop {
            let raw = match lines.next().map_err(failed)? {
                Piece::Line(raw) => raw,
                Piece::TooLong => return Err(tampered(*number, count + 1, Fault::Malformed)),
                Piece::Torn if index < last => return Err(tampered(*number, count + 1, Fault::Unfinished)),
                Piece::Torn | Piece::End => break,
            };
            count += 1;
            let line = Line::parse(raw);
            if let Some(fault) = chain.take(raw, line.as_ref()) {
                return Err(tampered(*number, count, fault));
            }
            if let Some(line) = &line {
                tail.micros = clock::parse_stamp(line.ts).ok_or_else(|| tampered(*number, count, Fault::Malformed))?;
                if let Known::Head(head) = head {
                    if line.seq == head.seq && chain.prev != head.hash {
                        return Err(tampered(*number, count, Fault::HeadDiffers));
                    }
                    confirmed |= line.seq == head.seq;
                }
            }
        }
        (tail.number, tail.complete, tail.torn) = (*number, lines.complete(), bytes.saturating_sub(lines.complete()));
    }
    (tail.seq, tail.prev) = (chain.seq.unwrap_or(0), chain.prev);
    match head {
        Known::Head(_) if !confirmed => Err(tampered(tail.number, 0, Fault::ShorterThanHead)),
        Known::Damaged => Err(tampered(0, 0, Fault::HeadLost)),
        // One entry without a head is a crash between the log's first line and its first head.
        Known::Nothing if tail.seq > 1 => Err(tampered(0, 0, Fault::HeadLost)),
        _ => Ok(tail),
    }
}

fn seq_of(piece: Piece<'_>) -> Option<u64> {
    match piece {
        Piece::Line(raw) => Line::<IgnoredAny>::parse(raw).map(|line| line.seq),
        _ => None,
    }
}

/// Moves the bytes after the last line feed into `NNNNNN.torn`; says how many and which.
fn set_aside(folder: &Path, file: &mut File, tail: &Tail) -> io::Result<Option<Vec<(&'static str, Value)>>> {
    if tail.torn == 0 {
        return Ok(None);
    }
    let mut kept = files::append(&folder.join(format!("{:06}.torn", tail.number)), true)?;
    let mut digest = Sha256::new();
    file.seek(SeekFrom::Start(tail.complete))?;
    let mut piece = vec![0u8; 1 << 16];
    loop {
        let read = file.read(&mut piece)?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        digest.update(bytes);
        kept.write_all(bytes)?;
    }
    // Kept before it is cut: a crash in between keeps it twice and loses nothing.
    kept.sync_all()?;
    files::sync_folder(folder)?;
    file.set_len(tail.complete)?;
    file.sync_all()?;
    Ok(Some(vec![
        ("bytes", Value::Integer(i64::try_from(tail.torn).unwrap_or(i64::MAX))),
        ("file", Value::Integer(i64::from(tail.number))),
        ("sha256", Value::Text(hex(&digest.finalize()))),
    ]))
}

fn tampered(file: u32, line: u64, fault: Fault) -> Error {
    let place = if file == 0 { String::new() } else { format!("file {file} line {line}: ") };
    Error::new(Kind::AuditTampered, format!("{place}{fault}"))
}
