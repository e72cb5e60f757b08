//! What may be written into the log: the one table of events and of the details each of them may carry.
//!
//! An audit log is read by more people than the study it speaks of, so it is closed by default. An event that is not in [`EVENTS`],
//! a detail that is not listed for its event, or a value that does not have its key's [`Shape`] is a defect of the caller. Builds
//! with debug assertions refuse such an event, so tests find it. Production builds write the event without the offending detail and
//! say how many were left out: losing the record of a failure because of a stray detail would be the worse harm.
//!
//! Words never hold a path separator: a path often holds a name. Free text exists in one place, the `text` of a `note`, and is there
//! on the caller's responsibility.

use super::Value;
use crate::error::{Error, Kind, Result};

/// Longest escaped text of one detail, in bytes. Every event has fewer than 32 keys, so that a record stays under 64 KiB.
pub(super) const TEXT_LIMIT: usize = 1024;

/// What the value of a detail must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A whole number.
    Integer,
    /// True or false.
    Flag,
    /// 64 lower-case hexadecimal digits, or null where there is none yet.
    Digest,
    /// Printable ASCII without path separators: words from code, ids, versions, lists of them.
    Words,
    /// A number of things, or their ids.
    NumberOrWords,
    /// Anything a person typed.
    Text,
}

use Shape::{Digest, Flag, Integer, NumberOrWords, Text, Words};

/// Every detail key with its shape, sorted. Probabilities are parts per million: the log has no floats, because two readers may
/// print one float in two ways.
const KEYS: &[(&str, Shape)] = &[
    ("blacked_out", Integer),
    ("burned_in", Words),
    ("burned_in_reason", Text),
    ("bytes", Integer),
    ("channels", Integer),
    ("clock_back_us", Integer),
    ("columns", Integer),
    ("confidence_ppm", Integer),
    ("continued", Flag),
    ("dates", Integer),
    ("details_dropped", Integer),
    ("device", Words),
    ("download_mode", Words),
    ("emptied", Integer),
    ("end", Words),
    ("entries", Integer),
    ("error_code", Integer),
    ("error_stage", Words),
    ("expires", Words),
    ("file", Integer),
    ("files", Integer),
    ("fingerprint", Words),
    ("format", Integer),
    ("formats", Words),
    ("head", Digest),
    ("header_sha256", Digest),
    ("key", Words),
    ("label", Words),
    ("labels", NumberOrWords),
    ("left_out", Integer),
    ("log", Words),
    ("mapping", Flag),
    ("milliseconds", Integer),
    ("modality", Words),
    ("model", Words),
    ("model_sha256", Digest),
    ("model_version", Words),
    ("name", Words),
    ("objects", Integer),
    ("objects_sha256", Digest),
    ("on_token", Flag),
    ("operations", NumberOrWords),
    ("options", Words),
    ("package", Words),
    ("passes", Integer),
    ("policy", Words),
    ("prediction", Words),
    ("previous", Words),
    ("private", Integer),
    ("probability_ppm", Integer),
    ("profile", Words),
    ("public_key", Words),
    ("purpose", Text),
    ("quarantined", Integer),
    ("random", Digest),
    ("recipients", NumberOrWords),
    ("removed", Integer),
    ("replaced", Integer),
    ("resumed_bytes", Integer),
    ("retries", Integer),
    ("rows", Integer),
    ("runtime", Words),
    ("sender", Words),
    ("sha256", Digest),
    ("slices", Integer),
    ("start", Words),
    ("steps", NumberOrWords),
    ("strictness", Words),
    ("studies", Integer),
    ("text", Text),
    ("uids", Integer),
    ("value_ppm", Integer),
    ("verdict", Words),
    ("version", Words),
    ("voxels", Integer),
];

/// Keys that any event may carry: how long it took, how it failed, and what the writer itself adds.
const COMMON: &[&str] = &["milliseconds", "error_code", "error_stage", "clock_back_us", "details_dropped"];

/// Every event with the details it may carry besides [`COMMON`].
const EVENTS: &[(&str, &[&str])] = &[
    ("log.opened", &["log", "format", "policy", "public_key", "random", "version", "continued", "entries"]),
    ("log.closed", &["entries"]),
    ("log.torn_tail", &["bytes", "file", "sha256"]),
    ("keys.generated", &["key", "fingerprint", "on_token", "purpose"]),
    ("keys.imported", &["key", "fingerprint"]),
    ("keys.confirmed", &["key", "fingerprint"]),
    ("keys.expiry_set", &["key", "fingerprint", "expires"]),
    ("keys.rotated", &["key", "previous", "fingerprint"]),
    ("keys.removed", &["key", "fingerprint"]),
    ("study.started", &["operations", "download_mode", "formats", "device", "profile", "options", "version", "files", "bytes"]),
    ("study.fetched", &["bytes", "files", "objects", "package", "sender", "download_mode", "retries", "resumed_bytes", "objects_sha256"]),
    ("study.opened", &["package", "sender", "recipients", "header_sha256", "files", "bytes", "objects", "download_mode", "verdict"]),
    ("study.loaded", &["slices", "channels", "rows", "columns", "files", "bytes", "modality", "verdict", "left_out", "quarantined"]),
    ("study.released_identified", &["slices", "files", "bytes", "options", "profile"]),
    (
        "study.deidentified",
        &[
            "profile",
            "options",
            "strictness",
            "burned_in",
            "burned_in_reason",
            "blacked_out",
            "removed",
            "emptied",
            "replaced",
            "uids",
            "dates",
            "private",
            "files",
            "bytes",
            "slices",
            "quarantined",
            "verdict",
        ],
    ),
    ("study.preprocessed", &["steps", "slices", "rows", "columns", "options"]),
    ("study.segmented", &["model", "model_version", "model_sha256", "device", "runtime", "labels", "voxels", "verdict"]),
    (
        "study.predicted",
        &[
            "model",
            "model_version",
            "model_sha256",
            "device",
            "runtime",
            "label",
            "labels",
            "probability_ppm",
            "confidence_ppm",
            "prediction",
        ],
    ),
    ("study.prediction_added", &["model", "model_version", "label", "probability_ppm", "value_ppm", "prediction"]),
    ("study.written", &["files", "formats", "mapping", "bytes", "sha256"]),
    ("study.finished", &["operations", "files", "bytes", "slices", "formats", "prediction", "probability_ppm", "device", "verdict"]),
    ("study.failed", &["operations", "files", "bytes", "retries", "verdict"]),
    ("study.unsealed", &["package", "sender", "header_sha256", "files", "bytes"]),
    ("study.sealed", &["package", "sender", "recipients", "header_sha256", "files", "bytes", "objects"]),
    ("study.granted", &["package", "sender", "recipients", "header_sha256", "files", "bytes"]),
    ("package.verified", &["package", "sender", "recipients", "header_sha256", "files", "bytes", "objects", "verdict"]),
    ("workspace.cleaned", &["files", "bytes", "passes", "verdict"]),
    ("audit.exported", &["entries", "start", "end", "formats", "head"]),
    ("pipeline.opened", &["version", "device", "download_mode", "profile", "options", "model", "model_sha256", "operations"]),
    ("pipeline.closed", &["studies", "entries"]),
    ("note", &["name", "text"]),
];

/// Details of an event in the order in which they are written, with those left out that may not be written.
///
/// `strict` refuses the event instead of leaving anything out.
pub(super) fn admit(event: &str, detail: &[(&'static str, Value)], strict: bool) -> Result<Vec<(&'static str, Value)>> {
    let listed = EVENTS.iter().find(|(name, _)| *name == event).map(|(_, keys)| *keys);
    if listed.is_none() && (strict || !is_event_name(event)) {
        return Err(Error::new(Kind::Internal, "the event is not in the table of events"));
    }
    let mut admitted: Vec<(&'static str, Value)> = Vec::with_capacity(detail.len() + 1);
    let mut dropped = 0i64;
    for (key, value) in detail {
        let known = COMMON.contains(key) || listed.is_some_and(|keys| keys.contains(key));
        let unique = admitted.iter().all(|(other, _)| other != key);
        match if known && unique { shaped(key, value) } else { None } {
            Some(value) => admitted.push((key, value)),
            None if strict => return Err(Error::new(Kind::Internal, format!("event {event} cannot carry this value of detail {key}"))),
            None => dropped += 1,
        }
    }
    if dropped > 0 {
        admitted.push(("details_dropped", Value::Integer(dropped)));
    }
    admitted.sort_by_key(|(key, _)| *key);
    Ok(admitted)
}

/// The value when it has its key's shape; a text that is too long is cut and ends in three dots.
fn shaped(key: &str, value: &Value) -> Option<Value> {
    let shape = KEYS.binary_search_by_key(&key, |(name, _)| name).ok().and_then(|at| KEYS.get(at)).map(|(_, shape)| *shape)?;
    match (shape, value) {
        (Integer | NumberOrWords, Value::Integer(_)) | (Flag, Value::Flag(_)) | (Digest | Words, Value::Null) => Some(value.clone()),
        (Digest, Value::Text(text)) => {
            let hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            hex.then(|| value.clone())
        }
        (Words | NumberOrWords, Value::Text(text)) => {
            let plain = text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'/' && b != b'\\');
            plain.then(|| Value::Text(cut(text)))
        }
        (Text, Value::Text(text)) => Some(Value::Text(cut(text))),
        _ => None,
    }
}

/// A text that needs at most [`TEXT_LIMIT`] bytes once escaped.
fn cut(text: &str) -> String {
    const MARK: &str = "...";
    if escaped(text) <= TEXT_LIMIT {
        return text.to_owned();
    }
    let mut length = MARK.len();
    let mut short = String::new();
    for character in text.chars() {
        length += escaped(character.encode_utf8(&mut [0; 4]));
        if length > TEXT_LIMIT {
            break;
        }
        short.push(character);
    }
    short + MARK
}

/// Upper bound of a text's length in ASCII JSON: six bytes for each UTF-16 unit that needs an escape.
pub(super) fn escaped(text: &str) -> usize {
    text.chars().map(|c| if (' '..='~').contains(&c) && c != '"' && c != '\\' { 1 } else { 6 * c.len_utf16() }).sum()
}

/// Whether a name reads like `study.opened`.
fn is_event_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'.' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn lenient(event: &str, detail: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
        admit(event, detail, false).unwrap()
    }

    #[test]
    fn the_table_is_sorted_and_every_listed_key_has_a_shape() {
        assert!(KEYS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let known = |key: &&str| KEYS.binary_search_by_key(key, |(name, _)| name).is_ok();
        assert!(COMMON.iter().all(known));
        for (event, keys) in EVENTS {
            assert!(is_event_name(event), "{event}");
            assert!(keys.iter().all(known), "{event}");
            // 31 texts of TEXT_LIMIT bytes leave half of a record's 64 KiB for the rest.
            assert!(keys.len() + COMMON.len() < 32, "{event}");
        }
    }

    #[test]
    fn an_unlisted_event_or_detail_is_refused_where_defects_are_looked_for() {
        assert_eq!(admit("study.exploded", &[], true).unwrap_err().kind(), Kind::Internal);
        assert_eq!(admit("note", &[("bytes", Value::Integer(1))], true).unwrap_err().kind(), Kind::Internal);
        assert_eq!(admit("study.fetched", &[("bytes", text("many"))], true).unwrap_err().kind(), Kind::Internal);
        let twice = [("bytes", Value::Integer(1)), ("bytes", Value::Integer(2))];
        assert_eq!(admit("study.fetched", &twice, true).unwrap_err().kind(), Kind::Internal);
        assert!(admit("study.fetched", &twice[..1], true).is_ok());
    }

    #[test]
    fn in_production_the_event_is_kept_and_the_stray_detail_is_counted() {
        let detail = [("bytes", Value::Integer(9)), ("model", text("x")), ("package", text("wards/3/Smith")), ("files", Value::Flag(true))];
        assert_eq!(lenient("study.fetched", &detail), [("bytes", Value::Integer(9)), ("details_dropped", Value::Integer(3))]);
        assert_eq!(lenient("study.exploded", &[("bytes", Value::Integer(9))]), [("details_dropped", Value::Integer(1))]);
        assert_eq!(admit("Study Smith", &[], false).unwrap_err().kind(), Kind::Internal);
    }

    #[test]
    fn words_hold_no_path_and_a_digest_is_a_digest() {
        for (key, value, fits) in [
            ("device", text("cuda:0"), true),
            ("device", text("C:\\Smith"), false),
            ("device", text("a/b"), false),
            ("device", text("Jos\u{e9}"), false),
            ("device", text("two\nlines"), false),
            ("sha256", text(&"0a".repeat(32)), true),
            ("sha256", text(&"0A".repeat(32)), false),
            ("sha256", text("0a"), false),
            ("public_key", Value::Null, true),
            ("bytes", Value::Null, false),
            ("recipients", Value::Integer(3), true),
            ("recipients", text("ab12,cd34"), true),
        ] {
            assert_eq!(shaped(key, &value).is_some(), fits, "{key} {value:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_to_what_a_record_can_hold() {
        for long in ["x".repeat(5000), "\u{1F9E0}".repeat(500), "\"".repeat(2000)] {
            let Some(Value::Text(short)) = shaped("text", &text(&long)) else { panic!("dropped") };
            assert!(escaped(&short) <= TEXT_LIMIT && short.ends_with("..."));
            assert!(long.starts_with(short.trim_end_matches('.')));
        }
        assert_eq!(shaped("text", &text(&"x".repeat(TEXT_LIMIT))), Some(text(&"x".repeat(TEXT_LIMIT))));
    }
}
