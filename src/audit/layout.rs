//! Where things lie: `<audit_log_path>/<log id>/000001.jsonl`, `000002.jsonl`, … and `<audit_log_path>/heads/<log id>.json`.
//!
//! A log's id is the time it was begun and 64 random bits, `20251123T094809Z-0123456789abcdef`: ids sort by age, and two processes
//! that begin at the same moment do not meet.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use super::clock;
use super::files::{self, hex, unreadable};
use super::record::LINE_LIMIT;
use crate::error::{Error, Kind, Result};

/// Name of the file that is locked while a process chooses its log.
pub(super) const GATE: &str = "open.lock";

/// Highest number that a file's six digits can hold.
pub(super) const LAST_FILE: u32 = 999_999;

/// A new id.
pub(super) fn new_log_id(micros: i64, random: &[u8; 32]) -> String {
    let stamp: String = clock::stamp(micros).chars().filter(|c| *c != '-' && *c != ':').take(15).collect();
    format!("{stamp}Z-{}", hex(random.get(..8).unwrap_or_default()))
}

/// Whether a name is a log's id.
pub(super) fn is_log_id(name: &str) -> bool {
    let form = b"ddddddddTddddddZ-xxxxxxxxxxxxxxxx";
    name.len() == form.len()
        && name.bytes().zip(form).all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            b'x' => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            other => byte == *other,
        })
}

/// Path of a file of a log.
pub(super) fn segment(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:06}.jsonl"))
}

/// Number of a file of a log.
pub(super) fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".jsonl")?;
    (digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// Ids of the logs in a folder, oldest first.
pub(super) fn logs(directory: &Path) -> Result<Vec<String>> {
    let mut ids: Vec<String> = names(directory)?.into_iter().filter(|name| is_log_id(name)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Numbers of the files of a log, ascending. A log that nobody meddled with has 1, 2, … without a gap.
pub(super) fn segments(folder: &Path) -> Result<Vec<u32>> {
    let facts = std::fs::symlink_metadata(folder).map_err(|error| unreadable("the folder of a log cannot be examined", &error))?;
    if !facts.is_dir() {
        return Err(Error::new(Kind::AuditTampered, "a log is a link or no folder"));
    }
    let mut numbers: Vec<u32> = names(folder)?.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    // A listing is no snapshot: with a writer at work it may hold file 3 and miss file 2. What is there is found by asking for it.
    let missing = (1..).zip(&numbers).find(|(expected, number)| expected != *number).map(|(expected, _)| expected);
    if let Some(from) = missing {
        let last = numbers.last().copied().unwrap_or(0);
        numbers.extend((from..last).filter(|number| segment(folder, *number).symlink_metadata().is_ok()));
        numbers.sort_unstable();
        numbers.dedup();
    }
    Ok(numbers)
}

/// Whether numbers run 1, 2, … without a gap.
pub(super) fn is_complete(numbers: &[u32]) -> bool {
    !numbers.is_empty() && (1..).zip(numbers).all(|(expected, number)| expected == *number)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let failed = |error: io::Error| unreadable("a folder of the log cannot be read", &error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        // A name that is no UTF-8 is not one of ours.
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

/// What [`Lines::next`] found.
pub(super) enum Piece<'a> {
    /// A line, without its line feed.
    Line(&'a [u8]),
    /// A line that is longer than a line may be.
    TooLong,
    /// Bytes after the last line feed.
    Torn,
    /// Nothing more.
    End,
}

/// The lines of one file, in constant memory.
pub(super) struct Lines {
    reader: BufReader<Take<File>>,
    buffer: Vec<u8>,
    complete: u64,
}

impl Lines {
    /// Lines of the first `bytes` of a file.
    pub(super) fn open(path: &Path, bytes: u64) -> io::Result<Lines> {
        let reader = BufReader::with_capacity(1 << 18, files::read(path)?.take(bytes));
        Ok(Lines { reader, buffer: Vec::with_capacity(1024), complete: 0 })
    }

    /// The next piece.
    pub(super) fn next(&mut self) -> io::Result<Piece<'_>> {
        self.buffer.clear();
        let most = LINE_LIMIT as u64 + 1;
        let read = (&mut self.reader).take(most).read_until(b'\n', &mut self.buffer)? as u64;
        if let Some((b'\n', line)) = self.buffer.split_last() {
            self.complete += read;
            return Ok(Piece::Line(line));
        }
        if read < most {
            return Ok(if read == 0 { Piece::End } else { Piece::Torn });
        }
        let mut skipped = read;
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(Piece::Torn);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(chunk.len(), |at| at + 1);
            self.reader.consume(used);
            skipped += used as u64;
            if end.is_some() {
                self.complete += skipped;
                return Ok(Piece::TooLong);
            }
        }
    }

    /// Bytes up to and including the last line feed that was passed.
    pub(super) fn complete(&self) -> u64 {
        self.complete
    }
}

/// The last complete line within the first `bytes` of a file; nothing when there is none that a record could be.
pub(super) fn last_line(path: &Path, bytes: u64) -> io::Result<Option<Vec<u8>>> {
    // Two limits: one for the line, one for what may be torn behind it.
    let window = bytes.min(2 * (LINE_LIMIT as u64 + 1));
    let mut file = files::read(path)?;
    file.seek(SeekFrom::Start(bytes - window))?;
    let mut tail = Vec::new();
    file.take(window).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
    tail.truncate(end);
    match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(start) => Ok(Some(tail.split_off(start + 1))),
        None if window == bytes => Ok(Some(tail)),
        None => Ok(None),
    }
}

/// Number of complete lines within the first `bytes` of a file.
pub(super) fn count_lines(path: &Path, bytes: u64) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 18, files::read(path)?.take(bytes));
    let mut lines = 0u64;
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(lines);
        }
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        let used = chunk.len();
        reader.consume(used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_other_names_and_sort_by_age() {
        let id = new_log_id(1_700_000_000_000_001, &[0xab; 32]);
        assert_eq!(id, "20231114T221320Z-abababababababab");
        assert!(is_log_id(&id) && new_log_id(1_700_000_001_000_000, &[0; 32]) > id);
        for name in
            ["heads", "open.lock", "..", "", "20231114T221320Z-ABABABABABABABAB", "20231114T221320Z-abababababababab/", "20231114T221320Z"]
        {
            assert!(!is_log_id(name), "{name}");
        }
    }

    #[test]
    fn files_are_told_from_other_names() {
        for (name, number) in [
            ("000001.jsonl", Some(1)),
            ("999999.jsonl", Some(999_999)),
            ("000001.torn", None),
            ("1.jsonl", None),
            ("+00001.jsonl", None),
            ("0000001.jsonl", None),
        ] {
            assert_eq!(segment_number(name), number, "{name}");
        }
        assert!(is_complete(&[1, 2, 3]) && !is_complete(&[]) && !is_complete(&[2]) && !is_complete(&[1, 3]));
    }

    #[test]
    fn lines_come_whole_and_a_giant_one_takes_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("000001.jsonl");
        let giant = "x".repeat(5 * LINE_LIMIT);
        let fits = "y".repeat(LINE_LIMIT);
        std::fs::write(&path, format!("one\n\n{giant}\n{fits}\ntail")).unwrap();
        let bytes = std::fs::metadata(&path).unwrap().len();
        let mut lines = Lines::open(&path, bytes).unwrap();
        assert!(matches!(lines.next().unwrap(), Piece::Line(b"one")));
        assert!(matches!(lines.next().unwrap(), Piece::Line(b"")));
        assert!(matches!(lines.next().unwrap(), Piece::TooLong));
        assert!(lines.buffer.capacity() <= 4 * LINE_LIMIT);
        assert!(matches!(lines.next().unwrap(), Piece::Line(line) if line == fits.as_bytes()));
        assert!(matches!(lines.next().unwrap(), Piece::Torn));
        assert_eq!(lines.complete(), bytes - 4);
        assert_eq!(count_lines(&path, bytes).unwrap(), 4);
        assert_eq!(last_line(&path, bytes).unwrap().unwrap(), fits.as_bytes());
        assert_eq!(last_line(&path, 5).unwrap().unwrap(), b"");
        assert_eq!(last_line(&path, 4).unwrap().unwrap(), b"one");
        assert_eq!(last_line(&path, 3).unwrap(), None);
        assert_eq!(last_line(&path, 5 + giant.len() as u64 + 1).unwrap(), None);
    }
}
