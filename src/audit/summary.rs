//! Totals of a folder of logs, in one pass over every line.

use std::collections::BTreeMap;
use std::path::Path;

use super::Summary;
use super::reader::AuditReader;
use super::verify::walk;
use crate::error::Result;

/// Reads and verifies every log of a folder.
pub(super) fn summarize(directory: &Path, actor: &str, head: String) -> Result<Summary> {
    let reader = AuditReader::open(directory)?;
    let (mut first, mut last): (Option<String>, Option<String>) = (None, None);
    let mut by_event: BTreeMap<String, u64> = BTreeMap::new();
    let verification = walk(reader.sources(), &mut |entry| {
        let Some(line) = entry.line else { return Ok(()) };
        // Logs of processes that ran side by side overlap, and clocks go back: neither the order of files nor of lines is that of time.
        if first.as_deref().is_none_or(|first| line.ts < first) {
            first = Some(line.ts.to_owned());
        }
        if last.as_deref().is_none_or(|last| line.ts > last) {
            last = Some(line.ts.to_owned());
        }
        match by_event.get_mut(line.event) {
            Some(count) => *count += 1,
            None => _ = by_event.insert(line.event.to_owned(), 1),
        }
        Ok(())
    })?;
    Ok(Summary {
        total_entries: verification.entries,
        log_path: directory.to_owned(),
        integrity_verified: verification.is_intact(),
        user_id: actor.to_owned(),
        first,
        last,
        head,
        by_event: by_event.into_iter().collect(),
    })
}
