//! What every object store must do, whoever its provider is. A provider's test opens a client on an empty store and calls [`check`].
#![allow(dead_code)]

use std::ops::Range;

use smp::control::Control;
use smp::error::Kind;
use smp::transfer::{Client, FetchPlan, Replace};

/// Writes a file of credentials as it must be: its owner's alone.
pub fn write_secret(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Sizes and counts, so that a slow stand-in is not asked for more than it can do.
pub struct Extent {
    /// Objects in the folder whose listing must have more than one page.
    pub many: usize,
    /// Bytes of an object that takes more than one piece or part to upload.
    pub large: usize,
    /// Whether `Replace::Never` is checked by the store itself at the end of an upload too (a race is lost, not won).
    pub refuses_late: bool,
    /// A name of what people and their programs put into names; without what the store refuses by its own rules.
    pub strange: &'static str,
}

impl Default for Extent {
    fn default() -> Extent {
        Extent { many: 1_234, large: 20 << 20, refuses_late: true, strange: "a/b/Schädel MRT + ä&=%20?#'(1)/脳 😀.smpp" }
    }
}

/// Runs all checks.
pub fn check(client: &Client, extent: &Extent) {
    folders_and_names(client, extent.strange);
    empty_objects(client);
    large_objects(client, extent.large);
    replacing(client, extent);
    changed_objects(client);
    missing_objects(client);
    dropped_uploads(client, extent.large);
    long_listings(client, extent.many);
}

/// Uploads an object in one piece.
pub fn put(client: &Client, name: &str, bytes: &[u8]) {
    put_as(client, name, bytes, Replace::Never);
}

/// Uploads an object in one piece, under a condition.
pub fn put_as(client: &Client, name: &str, bytes: &[u8], replace: Replace) {
    let mut upload = client.upload(name, replace).unwrap();
    upload.write(bytes.to_vec()).unwrap();
    let object = upload.finish().unwrap();
    assert_eq!((object.name.as_str(), object.size), (name, bytes.len() as u64));
    assert_eq!(client.head(name, &Control::new()).unwrap(), object, "an upload answers what a look at the object does");
}

/// Names in a folder, as listed.
pub fn names(client: &Client, folder: &str) -> Vec<String> {
    client.list(folder, &Control::new()).unwrap().into_iter().map(|object| object.name).collect()
}

/// A whole small object.
pub fn read(client: &Client, name: &str) -> Vec<u8> {
    client.read_small(name, 64 << 20, &Control::new()).unwrap()
}

/// Ranges of an object, one after the other.
pub fn fetch(client: &Client, name: &str, version: &str, ranges: &[Range<u64>]) -> smp::Result<Vec<u8>> {
    let plan = FetchPlan { name, version, ranges, spool_key: None };
    let mut all = Vec::new();
    let mut deliver = |_, bytes: Vec<u8>| {
        all.extend(bytes);
        Ok(())
    };
    client.fetch(&plan, &|_, _| Ok(()), &mut deliver, &Control::new())?;
    Ok(all)
}

/// Bytes that differ at every offset of every part.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// One range.
pub fn fetch_one(client: &Client, name: &str, version: &str, range: Range<u64>) -> smp::Result<Vec<u8>> {
    fetch(client, name, version, std::slice::from_ref(&range))
}

fn folders_and_names(client: &Client, strange: &str) {
    for name in ["a/b/x", "a/bc/x", "a/b.x", strange] {
        put(client, name, name.as_bytes());
    }
    assert_eq!(names(client, "a/b"), [strange, "a/b/x"], "twins are elsewhere");
    assert_eq!(names(client, "a/b/"), [strange, "a/b/x"], "with or without a slash");
    assert_eq!(read(client, strange), strange.as_bytes());
    assert_eq!(client.head(strange, &Control::new()).unwrap().size, strange.len() as u64);
    assert_eq!(names(client, "").len(), 4, "all of the store");
    assert!(names(client, "nowhere").is_empty() && names(client, "a/b/x").is_empty());
    for object in client.list("a/b", &Control::new()).unwrap() {
        // A version out of a listing serves to read.
        assert_eq!(fetch_one(client, &object.name, &object.version, 0..object.size).unwrap(), object.name.as_bytes());
    }
}

fn empty_objects(client: &Client) {
    put(client, "empty", b"");
    assert_eq!(client.head("empty", &Control::new()).unwrap().size, 0);
    assert_eq!(client.read_small("empty", 0, &Control::new()).unwrap(), b"");
    client.delete("empty").unwrap();
    client.delete("empty").unwrap();
    assert_eq!(client.head("empty", &Control::new()).unwrap_err().kind(), Kind::ObjectNotFound);
    assert!(!names(client, "").contains(&"empty".to_owned()));
}

fn large_objects(client: &Client, size: usize) {
    let bytes = pattern(size);
    let mut upload = client.upload("large/pack", Replace::Never).unwrap();
    // Pieces that fit no part.
    for piece in bytes.chunks(3_000_001) {
        upload.write(piece.to_vec()).unwrap();
    }
    assert!(names(client, "large").is_empty(), "nothing is visible before the end");
    let object = upload.finish().unwrap();
    assert_eq!(object.size, size as u64);
    let (end, third) = (object.size, object.size / 3);
    let ranges = [end - 7..end, 0..1, 1..third, third..third, third..end - 7];
    let expected: Vec<u8> = ranges.iter().flat_map(|range| bytes[range.start as usize..range.end as usize].to_vec()).collect();
    assert!(fetch(client, "large/pack", &object.version, &ranges).unwrap() == expected);
    client.delete("large/pack").unwrap();
}

fn replacing(client: &Client, extent: &Extent) {
    for size in [5, extent.large] {
        let name = format!("object-{size}");
        let mut late = client.upload(&name, Replace::Never).unwrap();
        late.write(vec![1; size]).unwrap();
        put(client, &name, b"early");
        assert_eq!(client.upload(&name, Replace::Never).err().unwrap().kind(), Kind::ObjectExists);
        if extent.refuses_late {
            assert_eq!(late.finish().unwrap_err().kind(), Kind::ObjectExists, "the race, {size} bytes");
        } else {
            drop(late);
        }
        assert_eq!(read(client, &name), b"early");
        put_as(client, &name, &vec![2; size], Replace::Allowed);
        assert!(read(client, &name) == vec![2; size]);
        client.delete(&name).unwrap();
    }
    put(client, "header", b"first");
    let seen = client.head("header", &Control::new()).unwrap().version;
    put_as(client, "header", b"second", Replace::Version(seen.clone()));
    for name in ["header", "nothing"] {
        assert_eq!(client.upload(name, Replace::Version(seen.clone())).err().unwrap().kind(), Kind::ObjectChanged, "{name}");
    }
    assert_eq!(read(client, "header"), b"second");
    client.delete("header").unwrap();
}

fn changed_objects(client: &Client) {
    put(client, "changing", b"0123456789");
    let before = client.head("changing", &Control::new()).unwrap().version;
    assert_eq!(fetch_one(client, "changing", &before, 2..5).unwrap(), b"234");
    put_as(client, "changing", b"9876543210!", Replace::Allowed);
    assert_eq!(fetch_one(client, "changing", &before, 2..5).unwrap_err().kind(), Kind::ObjectChanged);
    let now = client.head("changing", &Control::new()).unwrap().version;
    assert_eq!(fetch_one(client, "changing", &now, 2..12).unwrap_err().kind(), Kind::ObjectChanged, "the range ends past the object");
    assert_eq!(fetch_one(client, "changing", &now, 10..11).unwrap(), b"!");
    client.delete("changing").unwrap();
}

fn missing_objects(client: &Client) {
    let missing = client.head("patient-jones/x", &Control::new()).unwrap_err();
    assert_eq!(missing.kind(), Kind::ObjectNotFound);
    assert!(!missing.to_string().contains("jones"));
    assert_eq!(client.read_small("x", 10, &Control::new()).unwrap_err().kind(), Kind::ObjectNotFound);
    assert_eq!(fetch_one(client, "x/y", "version", 0..1).unwrap_err().kind(), Kind::ObjectNotFound);
}

fn dropped_uploads(client: &Client, size: usize) {
    for size in [1, size] {
        let mut upload = client.upload("dropped/pack", Replace::Never).unwrap();
        upload.write(pattern(size)).unwrap();
        drop(upload);
        assert!(names(client, "dropped").is_empty());
    }
}

fn long_listings(client: &Client, count: usize) {
    let expected: Vec<String> = (0..count).map(|number| format!("many/{number:05}.smpp")).collect();
    for name in &expected {
        let mut upload = client.upload(name, Replace::Allowed).unwrap();
        upload.write(vec![b'x']).unwrap();
        upload.finish().unwrap();
    }
    assert_eq!(names(client, "many"), expected);
}
