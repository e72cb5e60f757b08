//! Reading logs: for anybody who has the files, with no key and no writer.
//!
//! A reader is a snapshot. It notes which files there are and how long they are when it is opened, and everything it says later is
//! about those bytes, also while a writer appends. Nothing is held in memory but one line.

use std::path::{Path, PathBuf};

use super::export;
use super::files::{self, unreadable};
use super::heads::{self, Known};
use super::layout;
use super::record;
use super::verify::{Fault, Segment, Source, Verification, walk};
use crate::error::{Error, Kind, Result};

/// Logs read by anybody: verification and export.
///
/// ```no_run
/// use smp::audit::AuditReader;
/// let reader = AuditReader::open(std::path::Path::new("/var/lib/smp/audit"))?;
/// let verification = reader.verify();
/// println!("{} entries, first bad one: {:?}", verification.entries, verification.first_bad);
/// # Ok::<(), smp::Error>(())
/// ```
pub struct AuditReader {
    sources: Vec<Source>,
    entries: u64,
    head: String,
}

impl AuditReader {
    /// Opens a folder of logs (`audit_log_path`), the folder of one log, or one file of a log.
    ///
    /// What can be verified follows from what is opened: of one file, the chain inside it; of one log, everything, and its end when
    /// the folder beside it holds its head; of a folder of logs, also that no log is missing. Fails with
    /// [`Kind::AuditUnreadable`] when there is no log.
    pub fn open(path: &Path) -> Result<AuditReader> {
        let facts = std::fs::symlink_metadata(path).map_err(|error| unreadable("the path cannot be examined", &error))?;
        let sources = if facts.is_dir() {
            let name = path.file_name().and_then(|name| name.to_str()).filter(|name| layout::is_log_id(name));
            if name.is_some() || layout::segment(path, 1).symlink_metadata().is_ok() { vec![one_log(path, name)?] } else { all_logs(path)? }
        } else {
            vec![one_file(path)?]
        };
        if sources.is_empty() {
            return Err(Error::new(Kind::AuditUnreadable, "the folder holds no log"));
        }
        AuditReader::of(sources)
    }

    fn of(sources: Vec<Source>) -> Result<AuditReader> {
        let mut entries = 0;
        let mut newest = None;
        for segment in sources.iter().flat_map(|source| &source.segments) {
            // A file that cannot be read has no entries; verification says that it is there.
            entries += layout::count_lines(&segment.path, segment.bytes).unwrap_or(0);
            newest = layout::last_line(&segment.path, segment.bytes).ok().flatten().or(newest);
        }
        Ok(AuditReader { sources, entries, head: files::hex(&newest.map_or(record::NO_LINE, |line| record::hash(&line))) })
    }

    /// Number of entries.
    pub fn count(&self) -> u64 {
        self.entries
    }

    /// Checks every chain, from its first line to its head. Reads every byte: a million entries take about a second.
    pub fn verify(&self) -> Verification {
        walk(&self.sources, &mut |_| Ok(())).expect("a visitor that cannot fail does not")
    }

    /// SHA-256 of the newest line of the youngest log, hex.
    pub fn head(&self) -> String {
        self.head.clone()
    }

    /// Writes the entries between two dates as `json` or `csv`, atomically, and returns their number.
    ///
    /// Dates are inclusive: `YYYY-MM-DD` means the whole day in UTC, RFC 3339 the exact moment. Folders are made. Fails with
    /// [`Kind::InvalidArgument`] for a date that is none, [`Kind::OutputUnsupported`] for another format and
    /// [`Kind::OutputUnwritable`] when the file cannot be written. A log that does not verify is exported too, and the JSON says so.
    pub fn export(&self, format: &str, path: &Path, start: Option<&str>, end: Option<&str>) -> Result<u64> {
        export::export(&self.sources, format, path, start, end)
    }

    /// The logs, for a walk of its own.
    pub(super) fn sources(&self) -> &[Source] {
        &self.sources
    }
}

fn all_logs(directory: &Path) -> Result<Vec<Source>> {
    // Heads first: a log only grows, so a head that was read before the log cannot be ahead of it.
    let mut heads = heads::read_all(directory)?;
    let mut sources = Vec::new();
    for id in layout::logs(directory)? {
        let head = heads.remove(&id);
        // A log that was begun after the heads were read has its head by now, and none that could be compared with.
        let head_required = head.is_none() && heads::read(directory, &id) == Known::Nothing;
        sources.push(source(&directory.join(&id), Some(id), head.unwrap_or(Known::Nothing), head_required));
    }
    let missing = heads.into_iter().map(|(id, head)| Source {
        id: Some(id),
        segments: Vec::new(),
        head,
        head_required: true,
        fragment: false,
        fault: Some(Fault::LogMissing),
    });
    sources.extend(missing);
    sources.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(sources)
}

fn one_log(folder: &Path, id: Option<&str>) -> Result<Source> {
    let directory: PathBuf = match folder.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => folder.to_owned(),
    };
    let head = id.map_or(Known::Nothing, |id| heads::read(&directory, id));
    // A log that was copied somewhere for inspection comes without heads.
    let head_required = id.is_some() && directory.join(heads::FOLDER).is_dir();
    Ok(source(folder, id.map(str::to_owned), head, head_required))
}

fn source(folder: &Path, id: Option<String>, head: Known, head_required: bool) -> Source {
    let mut source = Source { id, segments: Vec::new(), head, head_required, fragment: false, fault: None };
    match layout::segments(folder) {
        Ok(numbers) => {
            for number in numbers {
                let path = layout::segment(folder, number);
                let bytes = std::fs::symlink_metadata(&path).map_or(0, |facts| facts.len());
                source.segments.push(Segment { path, number, bytes });
            }
        }
        Err(_) => source.fault = Some(Fault::Unreadable),
    }
    source
}

fn one_file(path: &Path) -> Result<Source> {
    let file = files::read(path).map_err(|error| unreadable("the file cannot be read", &error))?;
    let bytes = file.metadata().map_err(|error| unreadable("the file cannot be examined", &error))?.len();
    let number = path.file_name().and_then(|name| name.to_str()).and_then(layout::segment_number).unwrap_or(0);
    let first = layout::Lines::open(path, bytes).ok().and_then(|mut lines| match lines.next() {
        Ok(layout::Piece::Line(raw)) => Some(record::Line::<serde::de::IgnoredAny>::parse(raw).is_some()),
        _ => None,
    });
    if first != Some(true) {
        return Err(Error::new(Kind::AuditUnreadable, "the file does not begin with a record"));
    }
    let segments = vec![Segment { path: path.to_owned(), number, bytes }];
    Ok(Source { id: None, segments, head: Known::Nothing, head_required: false, fragment: true, fault: None })
}
