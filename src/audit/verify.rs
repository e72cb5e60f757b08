//! Whether a log is what was written: every line read in order, each one checked against its neighbour and the end against its head.
//!
//! A line is vouched for by the hash in the line after it, and the last line by the head kept outside the log's folder. So an edited
//! line is reported itself, although it is its successor that tells. What cannot be told is written in `docs/audit-log.md`: whoever
//! rewrites a log and its head together leaves nothing to compare with.

use std::fmt;
use std::path::PathBuf;

use serde::de::IgnoredAny;

use super::heads::Known;
use super::layout::{Lines, Piece};
use super::record::{self, FORMAT, Hash, Line, NO_LINE, Opening};
use crate::error::Result;

/// What is wrong with an entry, or with the place where one should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The line is no record: not the format, or too long.
    Malformed,
    /// The sequence number is not the next one: a line was cut out, moved or doubled.
    OutOfSequence,
    /// The line after it, which quotes its hash, quotes another: the line was changed.
    Changed,
    /// The first line does not begin a log.
    NoBeginning,
    /// The log's folder bears another name than the one the log was begun under.
    Renamed,
    /// A file of the log is missing.
    FileMissing,
    /// A line that is not the last one ends without a line feed.
    Unfinished,
    /// The kept head names another line at this position: the log was rewritten.
    HeadDiffers,
    /// The log ends before its kept head: its end was cut off.
    ShorterThanHead,
    /// The log's kept head is missing or damaged.
    HeadLost,
    /// A head is kept of a log that is not there.
    LogMissing,
    /// A file or folder cannot be read, or is a link.
    Unreadable,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Malformed => "the line is no record",
            Fault::OutOfSequence => "the sequence number is not the next one",
            Fault::Changed => "the line is not the one whose hash was recorded",
            Fault::NoBeginning => "the first line does not begin a log",
            Fault::Renamed => "the log was begun under another name",
            Fault::FileMissing => "a file of the log is missing",
            Fault::Unfinished => "a line ends without a line feed",
            Fault::HeadDiffers => "the kept head names another line",
            Fault::ShorterThanHead => "the log is shorter than its kept head",
            Fault::HeadLost => "the kept head is missing or damaged",
            Fault::LogMissing => "a head is kept of a log that is missing",
            Fault::Unreadable => "a file cannot be read",
        })
    }
}

/// Where the first fault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Id of the log; empty when a file of unknown origin was opened.
    pub log: String,
    /// Number of the file, from 1; 0 when the log as a whole is meant.
    pub file: u32,
    /// Line in the file, from 1; one past the last when an entry is missing there.
    pub line: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// Outcome of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Entries read.
    pub entries: u64,
    /// Position (0-based, over all logs in order) of the first entry that does not verify. Where an entry is missing, its position.
    pub first_bad: Option<u64>,
    /// What is wrong there.
    pub finding: Option<Finding>,
}

/// One file of a log as it was found.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) number: u32,
    pub(super) bytes: u64,
}

/// One log as it was found.
pub(super) struct Source {
    /// Its id, when the name of its folder is one.
    pub(super) id: Option<String>,
    /// Its files in order.
    pub(super) segments: Vec<Segment>,
    /// What is known of its end.
    pub(super) head: Known,
    /// Whether a log of more than one entry must have a head.
    pub(super) head_required: bool,
    /// Whether it is one file out of a log, which begins and ends anywhere.
    pub(super) fragment: bool,
    /// What was wrong before the first line was read.
    pub(super) fault: Option<Fault>,
}

/// One line on a walk.
pub(super) struct Entry<'a> {
    pub(super) log: &'a str,
    pub(super) raw: &'a [u8],
    /// Nothing when the line is no record.
    pub(super) line: Option<&'a Line<'a, IgnoredAny>>,
}

/// Checks one chain, line by line.
pub(super) struct Chain {
    /// Next sequence number; nothing at the beginning of a fragment.
    pub(super) seq: Option<u64>,
    /// Hash that the next line must quote.
    pub(super) prev: Hash,
}

impl Chain {
    /// A chain from its first line.
    pub(super) fn new() -> Chain {
        Chain { seq: Some(0), prev: NO_LINE }
    }

    /// Takes the next line, whatever it is, and says what is wrong.
    pub(super) fn take(&mut self, raw: &[u8], line: Option<&Line<'_, IgnoredAny>>) -> Option<Fault> {
        let Some(line) = line else {
            self.seq = self.seq.map(|seq| seq.saturating_add(1));
            self.prev = record::hash(raw);
            return Some(Fault::Malformed);
        };
        let fault = match self.seq {
            Some(seq) if line.seq != seq => Some(Fault::OutOfSequence),
            Some(seq) if !quotes(line.prev, &self.prev) => Some(if seq == 0 { Fault::NoBeginning } else { Fault::Changed }),
            _ => None,
        };
        // After a fault the chain goes on from the line that is there, so that one fault is not reported again and again.
        self.seq = Some(line.seq.saturating_add(1));
        self.prev = record::hash(raw);
        fault
    }
}

/// Whether a `prev` spells this hash.
fn quotes(prev: &str, hash: &Hash) -> bool {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let prev = prev.as_bytes();
    prev.len() == 64 && prev.chunks_exact(2).zip(hash).all(|(pair, byte)| pair == [digit(byte >> 4), digit(byte & 15)])
}

/// What the first line of a log says about it.
pub(super) fn begins(raw: &[u8], id: Option<&str>) -> Option<Fault> {
    let opening = Line::<Opening>::parse(raw).filter(|line| line.event == "log.opened").map(|line| line.detail);
    match opening {
        Some(Opening { log: Some(log), format: Some(FORMAT) }) => (id.is_some_and(|id| id != log)).then_some(Fault::Renamed),
        _ => Some(Fault::NoBeginning),
    }
}

/// Reads logs in order, shows every line to a visitor, and reports the first fault. Fails only when the visitor does.
pub(super) fn walk(sources: &[Source], visit: &mut dyn FnMut(&Entry<'_>) -> Result<()>) -> Result<Verification> {
    let mut report = Verification { entries: 0, first_bad: None, finding: None };
    for source in sources {
        walk_log(source, &mut report, visit)?;
    }
    Ok(report)
}

fn walk_log(source: &Source, report: &mut Verification, visit: &mut dyn FnMut(&Entry<'_>) -> Result<()>) -> Result<()> {
    let log = source.id.as_deref().unwrap_or_default();
    let mut chain = if source.fragment { Chain { seq: None, prev: NO_LINE } } else { Chain::new() };
    let begun = report.entries;
    let (mut place, mut before) = ((0, 0), (0, 0));
    let mut confirmed = None;
    if let Some(fault) = source.fault {
        report.note(log, report.entries, place, fault);
    }
    for (index, segment) in source.segments.iter().enumerate() {
        if !source.fragment && u32::try_from(index + 1) != Ok(segment.number) {
            report.note(log, report.entries, (segment.number, 0), Fault::FileMissing);
        }
        place = (segment.number, 0);
        let mut lines = match Lines::open(&segment.path, segment.bytes) {
            Ok(lines) => lines,
            Err(_) => {
                report.note(log, report.entries, place, Fault::Unreadable);
                continue;
            }
        };
        loop {
            let raw = match lines.next() {
                Ok(Piece::Line(raw)) => raw,
                Ok(Piece::TooLong) => &[],
                Ok(Piece::End) => break,
                Ok(Piece::Torn) => {
                    // In the newest file this is a record that was never acknowledged, or one that is being written just now.
                    if index + 1 < source.segments.len() {
                        report.note(log, report.entries, (place.0, place.1 + 1), Fault::Unfinished);
                    }
                    break;
                }
                Err(_) => {
                    report.note(log, report.entries, place, Fault::Unreadable);
                    break;
                }
            };
            let position = report.entries;
            let first = position == begun && !source.fragment;
            place.1 += 1;
            report.entries += 1;
            let line = Line::parse(raw);
            match chain.take(raw, line.as_ref()) {
                Some(Fault::Changed) if position > begun => report.note(log, position - 1, before, Fault::Changed),
                Some(fault) => report.note(log, position, place, fault),
                None => {}
            }
            if let Some(fault) = if first { begins(raw, source.id.as_deref()) } else { None } {
                report.note(log, position, place, fault);
            }
            if let (Some(line), Known::Head(head)) = (&line, &source.head)
                && line.seq == head.seq
                && confirmed != Some(true)
            {
                confirmed = Some(chain.prev == head.hash);
                if confirmed == Some(false) {
                    report.note(log, position, place, Fault::HeadDiffers);
                }
            }
            before = place;
            visit(&Entry { log, raw, line: line.as_ref() })?;
        }
    }
    let fault = match &source.head {
        _ if source.fragment || source.fault == Some(Fault::LogMissing) => None,
        Known::Head(_) if confirmed.is_none() => Some(Fault::ShorterThanHead),
        Known::Damaged => Some(Fault::HeadLost),
        Known::Nothing if source.head_required && report.entries - begun > 1 => Some(Fault::HeadLost),
        _ if report.entries == begun => Some(Fault::NoBeginning),
        _ => None,
    };
    if let Some(fault) = fault {
        report.note(log, report.entries, (place.0, place.1 + 1), fault);
    }
    Ok(())
}

impl Verification {
    /// Whether everything verifies.
    pub fn is_intact(&self) -> bool {
        self.first_bad.is_none()
    }

    /// Keeps the first fault. Faults of one log come in order, except that a change is told by the line after it.
    fn note(&mut self, log: &str, position: u64, (file, line): (u32, u64), fault: Fault) {
        if self.first_bad.is_none_or(|first| position < first) {
            self.first_bad = Some(position);
            self.finding = Some(Finding { log: log.to_owned(), file, line, fault });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_is_the_lower_case_hash_and_nothing_else() {
        let hash: Hash = std::array::from_fn(|at| (at * 8 + 1) as u8);
        let spelled = super::super::files::hex(&hash);
        assert!(quotes(&spelled, &hash));
        for bad in [spelled.to_uppercase(), spelled[..62].to_owned(), format!("{spelled}00"), spelled.replacen('1', "2", 1), String::new()]
        {
            assert!(!quotes(&bad, &hash), "{bad}");
        }
    }
}
