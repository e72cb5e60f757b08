//! The manifest: which files a package holds, where they lie in its packs, and the leaf hashes of the packs.
//!
//! JSON Lines: one line about the package, one per file, then line feeds up to a multiple of 64 KiB. It is encrypted as an object of its
//! own, because names and numbers of files tell of a patient. Like the header it has exactly one spelling.
//!
//! Files stand in the order in which they lie: by pack, then by offset, without overlap, so a package is read in one pass in bounded memory.
//! Gaps between files are allowed and hold nothing. A file lies in one pack.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Limits;
use super::chunked;
use super::header::{Header, fixed_base64, fixed_hex};
use super::pad::{MANIFEST_UNIT, manifest_len};
use super::paths::Taken;
use super::tree::{self, Hash};
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::hex;

/// One file.
pub(super) struct FileEntry {
    /// Number of the pack, from 0, in the order of the header.
    pub(super) pack: usize,
    /// First byte in the pack's plaintext.
    pub(super) offset: u64,
    /// Length in bytes.
    pub(super) size: u64,
    /// Digest of the contents.
    pub(super) sha256: Hash,
    /// Path by the rules of `paths`; may identify a person.
    pub(super) path: Zeroizing<String>,
}

/// The list of files and the leaf hashes of every pack.
pub(super) struct Manifest {
    pub(super) leaves: Vec<Vec<Hash>>,
    pub(super) files: Vec<FileEntry>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonHead {
    files: u64,
    /// By decimal number of the pack; keys sorted as text.
    leaves: BTreeMap<String, Vec<String>>,
    v: u64,
}

/// The line of a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonFile {
    offset: u64,
    pack: u64,
    #[serde(serialize_with = "write_path", deserialize_with = "read_path")]
    path: Zeroizing<String>,
    sha256: String,
    size: u64,
}

/// Plaintext bytes that a manifest within the limits can have, for a check before it is fetched.
pub(super) fn max_bytes(limits: &Limits) -> u64 {
    // A line has at most 1,024 bytes of path, twice that where quotes are escaped, and about 150 around them; a leaf has 47.
    let files = limits.files.saturating_mul(2200);
    let leaves = (limits.study_bytes >> 23).saturating_mul(60);
    files.saturating_add(leaves).saturating_add(2 * MANIFEST_UNIT as u64)
}

impl Manifest {
    /// The padded plaintext.
    pub(super) fn write(&self) -> Result<Zeroizing<Vec<u8>>> {
        let defect = |_| Error::new(Kind::Internal, "the manifest could not be written").at(Stage::Package);
        let leaves = self.leaves.iter().enumerate();
        let leaves = leaves.map(|(pack, leaves)| (pack.to_string(), leaves.iter().map(|leaf| STANDARD.encode(leaf)).collect())).collect();
        let head = JsonHead { files: self.files.len() as u64, leaves, v: 1 };
        let mut plain = Zeroizing::new(serde_json::to_vec(&head).map_err(defect)?);
        plain.push(b'\n');
        for file in &self.files {
            let line = JsonFile {
                offset: file.offset,
                pack: file.pack as u64,
                path: file.path.clone(),
                sha256: hex(&file.sha256),
                size: file.size,
            };
            plain.extend_from_slice(&Zeroizing::new(serde_json::to_vec(&line).map_err(defect)?));
            plain.push(b'\n');
        }
        let padded = manifest_len(plain.len());
        plain.resize(padded, b'\n');
        Ok(plain)
    }

    /// Parses a manifest and holds it against the header and the limits.
    pub(super) fn parse(plain: &[u8], header: &Header, limits: &Limits) -> Result<Manifest> {
        if !plain.len().is_multiple_of(MANIFEST_UNIT) {
            return Err(malformed("the length is not a multiple of 64 KiB"));
        }
        let text = std::str::from_utf8(plain).map_err(|_| malformed("not UTF-8"))?;
        let mut lines = text.split('\n');
        let head: JsonHead = canonical(lines.next().unwrap_or_default())?;
        if head.v != 1 {
            return Err(malformed("not version 1"));
        }
        if head.files > limits.files {
            return Err(Error::new(Kind::LimitExceeded, format!("limits.package_files: {} files, {} at most", head.files, limits.files))
                .at(Stage::Package));
        }
        let leaves = leaves(&head, header)?;
        let mut files = Vec::new();
        let mut place = Placement::new(header, limits);
        for number in 0..head.files {
            let file: JsonFile = canonical(lines.next().filter(|line| !line.is_empty()).ok_or_else(|| malformed("a file is missing"))?)?;
            let pack = usize::try_from(file.pack).unwrap_or(usize::MAX);
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            place.next(number, pack, file.offset, file.size, &file.path)?;
            files.push(FileEntry { pack, offset: file.offset, size: file.size, sha256: fixed_hex(&file.sha256)?, path: file.path });
        }
        if lines.any(|line| !line.is_empty()) {
            return Err(malformed("something follows the last file"));
        }
        Ok(Manifest { leaves, files })
    }

    /// Bytes of all files together.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Leaf hashes by pack, which must be complete and add up to the roots in the signed header.
fn leaves(head: &JsonHead, header: &Header) -> Result<Vec<Vec<Hash>>> {
    if head.leaves.len() != header.packs.len() {
        return Err(malformed("the leaves of some pack are missing or too many"));
    }
    let mut all = Vec::with_capacity(header.packs.len());
    for (number, pack) in header.packs.iter().enumerate() {
        let leaves = head.leaves.get(&number.to_string()).ok_or_else(|| malformed("the leaves of some pack are missing"))?;
        let leaves = leaves.iter().map(|leaf| fixed_base64(leaf)).collect::<Result<Vec<Hash>>>()?;
        if leaves.len() as u64 != tree::range_count(pack.size) || tree::root(&leaves) != pack.root {
            return Err(Error::new(Kind::PackageMalformed, format!("manifest: the leaves of pack {number} do not give the signed root")));
        }
        all.push(leaves);
    }
    Ok(all)
}

/// Walks over the files and sees that each lies behind the one before it, inside its pack, under a name of its own.
struct Placement<'a> {
    header: &'a Header,
    limits: &'a Limits,
    taken: Taken,
    pack: usize,
    end: u64,
    total: u64,
}

impl<'a> Placement<'a> {
    fn new(header: &'a Header, limits: &'a Limits) -> Placement<'a> {
        Placement { header, limits, taken: Taken::default(), pack: 0, end: 0, total: 0 }
    }

    fn next(&mut self, number: usize, pack: usize, offset: u64, size: u64, path: &str) -> Result<()> {
        let misplaced = |why: &str| Error::new(Kind::PackageMalformed, format!("manifest: file {number} {why}"));
        let room = self.header.packs.get(pack).and_then(|pack| chunked::plain_len(pack.size));
        let end = offset.checked_add(size).filter(|end| room.is_some_and(|room| *end <= room));
        let end = end.ok_or_else(|| misplaced("lies outside its pack"))?;
        if (pack, offset) < (self.pack, self.end) {
            return Err(misplaced("lies before or across the file in front of it"));
        }
        (self.pack, self.end) = (pack, end);
        self.total = self.total.saturating_add(size);
        if self.total > self.limits.study_bytes {
            return Err(Error::new(Kind::LimitExceeded, format!("limits.study_bytes: more than {} bytes", self.limits.study_bytes))
                .at(Stage::Package));
        }
        self.taken.claim(number, path)
    }
}

fn write_path<S: serde::Serializer>(path: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(path)
}

fn read_path<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

/// A line in its one spelling.
fn canonical<T: Serialize + for<'de> Deserialize<'de>>(line: &str) -> Result<T> {
    let value: T = serde_json::from_str(line).map_err(|_| malformed("a line has other fields than expected"))?;
    let again = Zeroizing::new(serde_json::to_vec(&value).map_err(|_| malformed("a line cannot be written again"))?);
    if again.as_slice() == line.as_bytes() { Ok(value) } else { Err(malformed("a line is not in canonical spelling")) }
}

fn malformed(detail: &'static str) -> Error {
    Error::new(Kind::PackageMalformed, format!("manifest: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::super::header::{ObjectRef, Recipient};
    use super::*;

    /// Two packs of 1,000 and 500 bytes of plaintext, one range each.
    fn header() -> Header {
        let pack = |byte: u8, plain: u64| ObjectRef { root: [byte; 32], name: [byte; 16], size: chunked::sealed_len(plain) };
        Header {
            created: "2024-01-01T00:00:00Z".to_owned(),
            manifest: pack(9, 65_536),
            packs: vec![pack(1, 1000), pack(2, 500)],
            package: [0; 16],
            purpose: String::new(),
            recipients: vec![Recipient { wrapped: [0; 48], encapsulated: [0; 97], digest: [0; 32] }],
            sender: [0; 32],
        }
    }

    fn entry(pack: usize, offset: u64, size: u64, path: &str) -> FileEntry {
        FileEntry { pack, offset, size, sha256: [5; 32], path: Zeroizing::new(path.to_owned()) }
    }

    fn manifest(files: Vec<FileEntry>) -> Manifest {
        // One leaf is its own root.
        Manifest { leaves: vec![vec![[1; 32]], vec![[2; 32]]], files }
    }

    fn outcome(files: Vec<FileEntry>) -> Result<Manifest> {
        Manifest::parse(&manifest(files).write().unwrap(), &header(), &Limits::default())
    }

    fn kind(result: Result<Manifest>) -> Kind {
        result.err().expect("an error is expected").kind()
    }

    #[test]
    fn a_manifest_reads_back_as_it_was_written() {
        let files =
            || vec![entry(0, 0, 10, "a \"quoted\" name"), entry(0, 10, 0, "empty"), entry(0, 500, 500, "später/b"), entry(1, 0, 500, "c")];
        let plain = manifest(files()).write().unwrap();
        assert_eq!(plain.len(), 65_536);
        let read = Manifest::parse(&plain, &header(), &Limits::default()).unwrap();
        assert_eq!(read.bytes(), 1010);
        for (read, written) in read.files.iter().zip(files()) {
            assert!((read.pack, read.offset, read.size, &*read.path) == (written.pack, written.offset, written.size, &*written.path));
        }
        assert_eq!(read.leaves, [[[1; 32]], [[2; 32]]]);
    }

    /// Written by hand from the format's description.
    #[test]
    fn the_spelling_is_that_of_the_format() {
        let plain = manifest(vec![entry(1, 7, 3, "ü/x")]).write().unwrap();
        let expected = format!(
            "{{\"files\":1,\"leaves\":{{\"0\":[\"{}\"],\"1\":[\"{}\"]}},\"v\":1}}\n{{\"offset\":7,\"pack\":1,\"path\":\"ü/x\",\"sha256\":\"{}\",\"size\":3}}\n",
            STANDARD.encode([1; 32]),
            STANDARD.encode([2; 32]),
            "05".repeat(32)
        );
        assert_eq!(std::str::from_utf8(&plain).unwrap().trim_end_matches('\n'), expected.trim_end());
    }

    #[test]
    fn files_outside_their_pack_or_across_each_other_are_refused() {
        assert!(outcome(vec![entry(0, 0, 1000, "a"), entry(0, 1000, 0, "b"), entry(1, 0, 1, "c")]).is_ok());
        for files in [
            vec![entry(0, 0, 1001, "a")],
            vec![entry(0, 1001, 0, "a")],
            vec![entry(2, 0, 0, "a")],
            vec![entry(0, u64::MAX, 2, "a")],
            vec![entry(0, 0, 10, "a"), entry(0, 9, 1, "b")],
            vec![entry(0, 10, 10, "a"), entry(0, 0, 5, "b")],
            vec![entry(1, 0, 10, "a"), entry(0, 0, 5, "b")],
        ] {
            assert_eq!(kind(outcome(files)), Kind::PackageMalformed);
        }
    }

    #[test]
    fn unsafe_and_doubled_names_are_refused() {
        assert_eq!(kind(outcome(vec![entry(0, 0, 1, "../a")])), Kind::UnsafePath);
        assert_eq!(kind(outcome(vec![entry(0, 0, 1, "a"), entry(0, 1, 1, "A")])), Kind::UnsafePath);
        assert_eq!(kind(outcome(vec![entry(0, 0, 1, "a"), entry(0, 1, 1, "a/b")])), Kind::UnsafePath);
    }

    #[test]
    fn limits_hold_before_anything_is_allocated() {
        let files = || vec![entry(0, 0, 600, "a"), entry(0, 600, 400, "b")];
        let plain = manifest(files()).write().unwrap();
        let with = |files, study_bytes| Manifest::parse(&plain, &header(), &Limits { files, study_bytes, ..Limits::default() });
        assert!(with(2, 1000).is_ok());
        assert_eq!(kind(with(1, 1000)), Kind::LimitExceeded);
        assert_eq!(kind(with(2, 999)), Kind::LimitExceeded);
        let many = String::from_utf8(plain.to_vec()).unwrap().replacen("\"files\":2", "\"files\":18446744073709551615", 1);
        let mut many = many.into_bytes();
        many.truncate(65_536);
        assert_eq!(kind(Manifest::parse(&many, &header(), &Limits::default())), Kind::LimitExceeded);
    }

    #[test]
    fn another_spelling_of_the_same_manifest_is_refused() {
        let good = String::from_utf8(manifest(vec![entry(0, 0, 1, "a"), entry(0, 1, 1, "b")]).write().unwrap().to_vec()).unwrap();
        let refused = |from: &str, to: &str| {
            let mut text = good.replacen(from, to, 1).trim_end().to_owned();
            assert_ne!(text, good.trim_end(), "{from}");
            text.push_str(&"\n".repeat(65_536 - text.len()));
            assert_eq!(kind(Manifest::parse(text.as_bytes(), &header(), &Limits::default())), Kind::PackageMalformed, "{from} -> {to}");
        };
        refused("\"files\":2", "\"files\":1");
        refused("\"files\":2", "\"files\":3");
        refused("\"v\":1", "\"v\":2");
        refused("\"v\":1", "\"v\":1,\"v\":1");
        refused("\"0\":", "\"0\":[],\"0\":");
        refused("\"0\":", "\"00\":");
        refused("\"0\":", "\"2\":");
        refused("\"path\":\"a\"", "\"path\":\"\\u0061\"");
        refused("\"path\":\"a\"", "\"path\": \"a\"");
        refused("\"size\":1}", "\"size\":1,\"x\":1}");
        refused("0505", "05AA");
        refused("\n{", "\n\n{");
        refused(&STANDARD.encode([1; 32]), &STANDARD.encode([3; 32]));
        let mut short = good.clone();
        short.pop();
        assert_eq!(kind(Manifest::parse(short.as_bytes(), &header(), &Limits::default())), Kind::PackageMalformed);
        let mut trailing = good.into_bytes();
        *trailing.last_mut().unwrap() = b'x';
        assert_eq!(kind(Manifest::parse(&trailing, &header(), &Limits::default())), Kind::PackageMalformed);
        assert_eq!(kind(Manifest::parse(&[], &header(), &Limits::default())), Kind::PackageMalformed);
    }
}
