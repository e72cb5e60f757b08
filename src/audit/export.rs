//! Exports: the entries between two dates as one file, for people and programs that do not read the log itself.
//!
//! JSON keeps every record byte for byte, so a stranger can recompute the hashes from the export alone, and says beside them which
//! range was asked for, where each log ended, and whether the logs verified. CSV is for spreadsheets (RFC 4180): a cell that a
//! spreadsheet would take for a formula begins with an apostrophe. Both are written beside their target and renamed, so a reader
//! never sees half an export.

use std::borrow::Cow;
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::clock;
use super::files::{self, hex};
use super::record::{self, Line};
use super::verify::{Entry, Source, Verification, walk};
use crate::error::{Error, Kind, Result, Stage};

/// Columns of the CSV, in order.
const COLUMNS: [&str; 13] =
    ["log", "seq", "ts", "mono", "boot", "pid", "actor", "protocol", "event", "outcome", "object", "detail", "prev"];

#[derive(Clone, Copy)]
enum Format {
    Json,
    Csv,
}

/// First and last time stamp, inclusive, as text; time stamps of the log compare as text.
struct Range {
    start: Option<String>,
    end: Option<String>,
}

/// As [`super::AuditReader::export`].
pub(super) fn export(sources: &[Source], format: &str, path: &Path, start: Option<&str>, end: Option<&str>) -> Result<u64> {
    let format = match format {
        "json" => Format::Json,
        "csv" => Format::Csv,
        _ => return Err(Error::new(Kind::OutputUnsupported, "the audit log is exported as json or csv").at(Stage::Audit)),
    };
    let range = Range::parse(start, end)?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|error| unwritable(&error))?;
    }
    let mut count = 0;
    files::replace(path, &mut |out| {
        count = match format {
            Format::Json => json(sources, &range, out)?,
            Format::Csv => csv(sources, &range, out)?,
        };
        Ok(())
    })
    .map_err(|error| unwritable(&error))?;
    Ok(count)
}

fn unwritable(error: &io::Error) -> Error {
    let detail = match error.raw_os_error() {
        Some(number) => format!("the export cannot be written (system error {number})"),
        None => "the export cannot be written".to_owned(),
    };
    Error::new(Kind::OutputUnwritable, detail).with_hint("check the rights and the free space of the folder").at(Stage::Audit)
}

impl Range {
    fn parse(start: Option<&str>, end: Option<&str>) -> Result<Range> {
        let bad =
            |what| Error::new(Kind::InvalidArgument, what).with_hint("YYYY-MM-DD, or RFC 3339 as in 2025-11-23T09:48:09Z").at(Stage::Audit);
        let moment = |text: &str, last: bool| match clock::parse_day(text) {
            Some((first, end)) => Some(clock::stamp(if last { end } else { first })),
            None => clock::parse_instant(text).map(clock::stamp),
        };
        let start = start.map(|text| moment(text, false).ok_or_else(|| bad("the start is not a date"))).transpose()?;
        let end = end.map(|text| moment(text, true).ok_or_else(|| bad("the end is not a date"))).transpose()?;
        match (&start, &end) {
            (Some(start), Some(end)) if start > end => Err(bad("the start lies after the end")),
            _ => Ok(Range { start, end }),
        }
    }

    fn holds(&self, ts: &str) -> bool {
        self.start.as_deref().is_none_or(|start| start <= ts) && self.end.as_deref().is_none_or(|end| ts <= end)
    }
}

/// Walks over the entries in range; a failure to write is carried out of the walk as it is.
fn each(sources: &[Source], range: &Range, write: &mut dyn FnMut(&Entry<'_>, bool) -> io::Result<()>) -> io::Result<(u64, Verification)> {
    let mut count = 0;
    let mut failure = None;
    let walked = walk(sources, &mut |entry| {
        let chosen = entry.line.is_some_and(|line| range.holds(line.ts));
        count += u64::from(chosen);
        write(entry, chosen).map_err(|error| {
            failure = Some(error);
            Error::new(Kind::OutputUnwritable, "")
        })
    });
    match (walked, failure) {
        (Ok(verification), _) => Ok((count, verification)),
        (Err(_), Some(error)) => Err(error),
        (Err(_), None) => Err(io::Error::from(io::ErrorKind::Other)),
    }
}

fn json(sources: &[Source], range: &Range, out: &mut dyn Write) -> io::Result<u64> {
    let mut heads: Vec<(String, u64, record::Hash)> = Vec::new();
    let mut separator = "";
    out.write_all(b"{\"records\":[")?;
    let (count, verification) = each(sources, range, &mut |entry, chosen| {
        // The head is the newest line of the whole log, in range or not: it is what a later copy is compared with.
        if let Some(line) = entry.line {
            let head = (line.seq, record::hash(entry.raw));
            match heads.last_mut() {
                Some((log, seq, hash)) if log == entry.log => (*seq, *hash) = head,
                _ => heads.push((entry.log.to_owned(), head.0, head.1)),
            }
        }
        if chosen {
            writeln!(out, "{separator}")?;
            out.write_all(entry.raw)?;
            separator = ",";
        }
        Ok(())
    })?;
    write!(out, "\n],\n\"count\":{count},\n\"range\":{{\"end\":{},\"start\":{}}},\n", quoted(&range.end), quoted(&range.start))?;
    out.write_all(b"\"heads\":[")?;
    for (position, (log, seq, hash)) in heads.iter().enumerate() {
        let comma = if position > 0 { "," } else { "" };
        write!(out, "{comma}\n{{\"head\":\"{}\",\"log\":{},\"seq\":{seq}}}", hex(hash), quoted(&Some(log.clone())))?;
    }
    let first_bad = verification.first_bad.map_or("null".to_owned(), |position| position.to_string());
    let intact = verification.is_intact();
    write!(out, "\n],\n\"integrity_verified\":{intact},\n\"first_bad\":{first_bad},\n\"entries_read\":{}}}\n", verification.entries)?;
    Ok(count)
}

/// A JSON string or null.
fn quoted(text: &Option<String>) -> String {
    let Some(text) = text else { return "null".to_owned() };
    let mut out = Vec::new();
    record::text(&mut out, text);
    String::from_utf8(out).unwrap_or_default()
}

fn csv(sources: &[Source], range: &Range, out: &mut dyn Write) -> io::Result<u64> {
    write!(out, "{}\r\n", COLUMNS.join(","))?;
    let (count, _) = each(sources, range, &mut |entry, chosen| {
        let Some(line) = entry.line.filter(|_| chosen) else { return Ok(()) };
        let detail = Line::<serde_json::Value>::parse(entry.raw).map_or(String::new(), |line| line.detail.to_string());
        let (seq, mono, pid) = (line.seq.to_string(), line.mono.to_string(), line.pid.to_string());
        let cells: [&str; COLUMNS.len()] = [
            entry.log,
            &seq,
            line.ts,
            &mono,
            line.boot,
            &pid,
            &line.actor,
            &line.protocol,
            line.event,
            line.outcome,
            line.object.unwrap_or_default(),
            &detail,
            line.prev,
        ];
        for (position, text) in cells.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            write!(out, "{comma}{}", cell(text))?;
        }
        out.write_all(b"\r\n")
    })?;
    Ok(count)
}

/// A cell of a CSV: guarded against being run as a formula, quoted when it must be (RFC 4180, clause 2).
fn cell(text: &str) -> Cow<'_, str> {
    // A spreadsheet runs a cell that begins with one of these (OWASP, CSV injection), whatever RFC 4180 says; an apostrophe makes it text.
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let quote = formula || text.contains(['"', ',', '\r', '\n']);
    match (formula, quote) {
        (_, false) => Cow::Borrowed(text),
        (formula, true) => Cow::Owned(format!("\"{}{}\"", if formula { "'" } else { "" }, text.replace('"', "\"\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_by_rfc_4180_and_never_a_formula() {
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "\"'=1+1\""),
            ("+49 30", "\"'+49 30\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\t=1\""),
            ("1=1", "1=1"),
        ] {
            assert_eq!(cell(text), expected);
        }
    }

    #[test]
    fn a_range_is_inclusive_and_a_day_is_whole() {
        let check = |start: Option<&str>, end: Option<&str>, ts: &str| Range::parse(start, end).unwrap().holds(ts);
        let (midnight, last) = ("2025-03-01T00:00:00.000000Z", "2025-03-01T23:59:59.999999Z");
        for (start, end, ts, held) in [
            (None, None, midnight, true),
            (Some("2025-03-01"), Some("2025-03-01"), midnight, true),
            (Some("2025-03-01"), Some("2025-03-01"), last, true),
            (Some("2025-03-01"), Some("2025-03-01"), "2025-03-02T00:00:00.000000Z", false),
            (Some("2025-03-01"), Some("2025-03-01"), "2025-02-28T23:59:59.999999Z", false),
            (Some("2025-03-01T00:00:00Z"), Some("2025-03-01T00:00:00Z"), midnight, true),
            (Some("2025-03-01T01:00:00+01:00"), None, midnight, true),
            (None, Some("2025-02-28T23:59:59-00:00"), midnight, false),
        ] {
            assert_eq!(check(start, end, ts), held, "{start:?} {end:?} {ts}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for (start, end) in [
            (Some("yesterday"), None),
            (None, Some("2025-13-01")),
            (Some("2025-02-29"), None),
            (Some("2025-03-01T10:00:00"), None),
            (Some(""), None),
            (Some("2025-03-02"), Some("2025-03-01")),
        ] {
            assert_eq!(Range::parse(start, end).err().map(|error| error.kind()), Some(Kind::InvalidArgument), "{start:?} {end:?}");
        }
    }
}
