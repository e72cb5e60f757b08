//! One record: one line of JSON in ASCII, keys sorted, whole numbers only, at most 64 KiB.
//!
//! The line's bytes are what the chain is made of: `prev` of a record is the SHA-256 of the line before it, without its line feed.
//! Whoever has the file can recompute it with `sha256sum`; nothing needs to be parsed and printed again, so no two programs can
//! disagree on how a record is spelled. The very first record of a log has 64 zeros there.

use std::borrow::Cow;
use std::io::Write;

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::clock;
use super::files::hex;
use super::{Outcome, Value};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// Longest line without its line feed.
pub(super) const LINE_LIMIT: usize = 64 * 1024;

/// SHA-256 of a line.
pub(super) type Hash = [u8; 32];

/// What stands for the line before the first.
pub(super) const NO_LINE: Hash = [0; 32];

/// Version of the format that this module writes and reads.
pub(super) const FORMAT: i64 = 1;

/// A record before it is a line.
pub(super) struct Record<'a> {
    pub(super) seq: u64,
    pub(super) micros: i64,
    pub(super) since_boot: u64,
    pub(super) boot: &'a str,
    pub(super) pid: u32,
    pub(super) actor: &'a str,
    pub(super) protocol: &'a str,
    pub(super) event: &'a str,
    pub(super) outcome: Outcome,
    pub(super) object: Option<&'a str>,
    pub(super) detail: &'a [(&'static str, Value)],
    pub(super) prev: &'a Hash,
}

impl Record<'_> {
    /// Appends the line and its line feed; returns the line's hash. On failure nothing is appended.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<Hash> {
        let start = out.len();
        out.extend_from_slice(b"{\"actor\":");
        text(out, self.actor);
        out.extend_from_slice(b",\"boot\":");
        text(out, self.boot);
        out.extend_from_slice(b",\"detail\":{");
        for (position, (key, value)) in self.detail.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            text(out, key);
            out.push(b':');
            match value {
                Value::Integer(number) => put(out, format_args!("{number}")),
                Value::Flag(flag) => put(out, format_args!("{flag}")),
                Value::Text(words) => text(out, words),
                Value::Null => out.extend_from_slice(b"null"),
            }
        }
        out.extend_from_slice(b"},\"event\":");
        text(out, self.event);
        put(out, format_args!(",\"mono\":{},\"object\":", self.since_boot));
        match self.object {
            Some(pseudonym) => text(out, pseudonym),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"outcome\":");
        text(out, self.outcome.name());
        put(out, format_args!(",\"pid\":{},\"prev\":\"{}\",\"protocol\":", self.pid, hex(self.prev)));
        text(out, self.protocol);
        put(out, format_args!(",\"seq\":{},\"ts\":\"{}\"}}", self.seq, clock::stamp(self.micros)));
        let line = out.get(start..).unwrap_or_default();
        if line.len() > LINE_LIMIT {
            // The table of events bounds every part; this guards the format should the table ever grow past it.
            out.truncate(start);
            return Err(Error::new(Kind::Internal, "a record is longer than a line may be"));
        }
        let hash = hash(line);
        out.push(b'\n');
        Ok(hash)
    }
}

/// SHA-256 of a line without its line feed.
pub(super) fn hash(line: &[u8]) -> Hash {
    Sha256::digest(line).into()
}

/// Name under which the log knows an object: HMAC-SHA-256 under the installation's key, hex. Whoever holds the key can ask whether a
/// given study is meant; nobody else learns anything but which records speak of the same object.
pub(super) fn pseudonym(key: &Secret<[u8; 32]>, object: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes a key of any length");
    mac.update(object.as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// A line as it was read. The texts that this format never escapes are borrowed from it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a, D> {
    #[serde(borrow)]
    pub(super) actor: Cow<'a, str>,
    pub(super) boot: &'a str,
    pub(super) detail: D,
    pub(super) event: &'a str,
    pub(super) mono: u64,
    pub(super) object: Option<&'a str>,
    pub(super) outcome: &'a str,
    pub(super) pid: u32,
    pub(super) prev: &'a str,
    #[serde(borrow)]
    pub(super) protocol: Cow<'a, str>,
    pub(super) seq: u64,
    pub(super) ts: &'a str,
}

impl<'a, D: Deserialize<'a>> Line<'a, D> {
    /// Reads a line; nothing when it is no record of this format.
    pub(super) fn parse(raw: &'a [u8]) -> Option<Line<'a, D>> {
        if raw.len() > LINE_LIMIT || !raw.is_ascii() {
            return None;
        }
        let line: Line<'a, D> = serde_json::from_slice(raw).ok()?;
        // Time stamps are compared as text, which is right only for the one form that the log writes.
        let shape = b"dddd-dd-ddTdd:dd:dd.ddddddZ";
        let stamped = line.ts.len() == shape.len()
            && line.ts.bytes().zip(shape).all(|(byte, form)| if *form == b'd' { byte.is_ascii_digit() } else { byte == *form });
        stamped.then_some(line)
    }
}

/// The detail of a log's first line, as far as a reader needs it.
#[derive(Deserialize)]
pub(super) struct Opening {
    pub(super) log: Option<String>,
    pub(super) format: Option<i64>,
}

fn put(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("writing to memory cannot fail");
}

/// A JSON string in ASCII: everything else as the escapes of RFC 8259, clause 7.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push(b'\\');
                out.push(character as u8);
            }
            ' '..='~' => out.push(character as u8),
            _ => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| put(out, format_args!("\\u{unit:04x}"))),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IgnoredAny;

    fn sample<'a>(detail: &'a [(&'static str, Value)], prev: &'a Hash) -> Record<'a> {
        Record {
            seq: 7,
            micros: 1_700_000_000_000_001,
            since_boot: 12_345,
            boot: "aa-bb",
            pid: 42,
            actor: "Zo\u{eb} \"Z\"",
            protocol: "IRB 7",
            event: "study.fetched",
            outcome: Outcome::Failure,
            object: None,
            detail,
            prev,
        }
    }

    #[test]
    fn a_line_is_ascii_with_sorted_keys() {
        let detail = [("bytes", Value::Integer(-3)), ("continued", Value::Flag(true)), ("text", Value::Text("\u{1F9E0}\n".into()))];
        let mut out = Vec::new();
        let hash = sample(&detail, &[0xab; 32]).encode(&mut out).unwrap();
        // Spelled by hand from the format's description; U+1F9E0 is the surrogate pair D83E DDE0.
        let expected = concat!(
            r#"{"actor":"Zo\u00eb \"Z\"","boot":"aa-bb","detail":{"bytes":-3,"continued":true,"text":"\ud83e\udde0\u000a"},"#,
            r#""event":"study.fetched","mono":12345,"object":null,"outcome":"failure","pid":42,"#,
            r#""prev":"abababababababababababababababababababababababababababababababab","protocol":"IRB 7","#,
            r#""seq":7,"ts":"2023-11-14T22:13:20.000001Z"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
        out.pop();
        assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(&out)));
        let value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["actor"], "Zo\u{eb} \"Z\"");
        let line: Line<'_, IgnoredAny> = Line::parse(&out).unwrap();
        assert_eq!((line.seq, line.ts, line.outcome, line.pid), (7, "2023-11-14T22:13:20.000001Z", "failure", 42));
    }

    #[test]
    fn what_is_not_a_record_is_not_read_as_one() {
        let mut out = Vec::new();
        sample(&[], &NO_LINE).encode(&mut out).unwrap();
        out.pop();
        let good = String::from_utf8(out).unwrap();
        assert!(Line::<IgnoredAny>::parse(good.as_bytes()).is_some());
        for bad in [
            String::new(),
            "{}".into(),
            good.replace("\"pid\":42", "\"pid\":42,\"pid\":42"),
            good.replace("\"pid\":42", "\"pid\":42,\"extra\":1"),
            good.replace("\"pid\":42", "\"pid\":4.2"),
            good.replace("IRB 7", "IRB \u{e9}"),
            good.replace("T22:", " 22:"),
            good.replace(".000001Z", ".0001Z"),
            good.replace("IRB 7", &"x".repeat(LINE_LIMIT)),
            format!("{good} {good}"),
        ] {
            assert!(Line::<IgnoredAny>::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_pseudonym_is_hmac_sha_256() {
        // RFC 4231, test case 2. HMAC fills a short key with zeros, so "Jefe" and its 32-byte form are the same key.
        let mut key = [0u8; 32];
        key[..4].copy_from_slice(b"Jefe");
        assert_eq!(
            pseudonym(&Secret::new(key), "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
