//! The local folder as a store: names that lead out, races, versions, what is left behind.

use super::*;
use crate::control::Control;
use crate::transfer::{Client, ClientSettings, StoreSettings};
use std::fs;
use std::path::Path;

fn client(root: &Path) -> Client {
    let store = StoreSettings { bucket: root.to_str().unwrap().to_owned(), ..StoreSettings::default() };
    Client::open(&store, ClientSettings { retries: 0, ..ClientSettings::default() }).unwrap()
}

fn put(client: &Client, name: &str, bytes: &[u8]) {
    let mut upload = client.upload(name, Replace::Never).unwrap();
    upload.write(bytes.to_vec()).unwrap();
    let object = upload.finish().unwrap();
    assert_eq!((object.name.as_str(), object.size), (name, bytes.len() as u64));
    assert_eq!(client.head(name, &Control::new()).unwrap(), object);
}

fn names(client: &Client, folder: &str) -> Vec<String> {
    client.list(folder, &Control::new()).unwrap().into_iter().map(|object| object.name).collect()
}

#[test]
fn what_was_uploaded_is_listed_and_read_back() {
    let root = tempfile::tempdir().unwrap();
    let client = client(root.path());
    put(&client, "a/b/Schädel-MRT ä/脳.smpp", b"ciphertext");
    put(&client, "a/b/empty", b"");
    assert_eq!(names(&client, "a/b"), ["a/b/Schädel-MRT ä/脳.smpp", "a/b/empty"]);
    assert_eq!(client.read_small("a/b/Schädel-MRT ä/脳.smpp", 10, &Control::new()).unwrap(), b"ciphertext");
    assert_eq!(client.read_small("a/b/empty", 0, &Control::new()).unwrap(), b"");
}

#[test]
fn a_twin_by_prefix_is_not_in_the_folder() {
    let root = tempfile::tempdir().unwrap();
    let client = client(root.path());
    for name in ["a/b/x", "a/bc/x", "a/b.x", "ab/x"] {
        put(&client, name, b"1");
    }
    for folder in ["a/b", "a/b/"] {
        assert_eq!(names(&client, folder), ["a/b/x"]);
    }
    assert_eq!(names(&client, ""), ["a/b.x", "a/b/x", "a/bc/x", "ab/x"]);
    assert!(names(&client, "nowhere").is_empty());
}

#[test]
fn the_prefix_is_put_before_and_taken_off() {
    let root = tempfile::tempdir().unwrap();
    let bucket = root.path().to_str().unwrap().to_owned();
    let store = StoreSettings { bucket, prefix: "/site-7/in/".into(), ..StoreSettings::default() };
    let inside = Client::open(&store, ClientSettings::default()).unwrap();
    put(&inside, "study/x", b"1");
    assert_eq!(names(&inside, ""), ["study/x"]);
    assert_eq!(names(&client(root.path()), ""), ["site-7/in/study/x"]);
}

#[test]
fn no_name_leads_out_of_the_root() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    fs::create_dir_all(root.join("in")).unwrap();
    fs::write(place.path().join("secret"), b"canary").unwrap();
    fs::create_dir(place.path().join("outside")).unwrap();
    fs::write(place.path().join("outside/secret"), b"canary").unwrap();
    std::os::unix::fs::symlink(place.path().join("secret"), root.join("in/link")).unwrap();
    std::os::unix::fs::symlink(place.path().join("outside"), root.join("in/folder")).unwrap();
    let client = client(&root);
    let control = Control::new();
    let absolute = place.path().join("secret");
    for name in [
        "../secret",
        "in/../../secret",
        "in/link",
        "in/folder/secret",
        "./in/x",
        "in//x",
        absolute.to_str().unwrap(),
        "",
        "in/",
        "in/\u{0}x",
    ] {
        let expect = |kind: Kind| assert_eq!(kind, Kind::UnsafePath, "{name}");
        expect(client.read_small(name, 100, &control).unwrap_err().kind());
        if name != "in/link" {
            expect(client.upload(name, Replace::Allowed).err().unwrap().kind());
            expect(client.delete(name).unwrap_err().kind());
        }
    }
    assert!(names(&client, "in").is_empty(), "links are not objects");
    assert_eq!(client.list("in/folder", &control).unwrap_err().kind(), Kind::UnsafePath);
    assert_eq!(client.list("../outside", &control).unwrap_err().kind(), Kind::UnsafePath);
    // Replacing or removing a link touches the link, never what it points to.
    let mut upload = client.upload("in/link", Replace::Allowed).unwrap();
    upload.write(b"new".to_vec()).unwrap();
    upload.finish().unwrap();
    client.delete("in/link").unwrap();
    assert_eq!(fs::read(place.path().join("secret")).unwrap(), b"canary");
    assert_eq!(fs::read(place.path().join("outside/secret")).unwrap(), b"canary");
}

#[test]
fn an_object_is_never_replaced_unless_that_was_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let client = client(root.path());
    let mut late = client.upload("x", Replace::Never).unwrap();
    late.write(b"late".to_vec()).unwrap();
    put(&client, "x", b"early");
    assert_eq!(client.upload("x", Replace::Never).err().unwrap().kind(), Kind::ObjectExists);
    // The race: it did not exist when the upload began.
    assert_eq!(late.finish().unwrap_err().kind(), Kind::ObjectExists);
    assert_eq!(client.read_small("x", 100, &Control::new()).unwrap(), b"early");
    let mut replacing = client.upload("x", Replace::Allowed).unwrap();
    replacing.write(b"second".to_vec()).unwrap();
    assert_eq!(client.read_small("x", 100, &Control::new()).unwrap(), b"early", "nothing is visible before the end");
    replacing.finish().unwrap();
    assert_eq!(client.read_small("x", 100, &Control::new()).unwrap(), b"second");
}

#[test]
fn a_version_is_replaced_only_by_who_has_seen_it() {
    let root = tempfile::tempdir().unwrap();
    let client = client(root.path());
    put(&client, "x", b"first");
    let seen = client.head("x", &Control::new()).unwrap().version;
    let mut early = client.upload("x", Replace::Version(seen.clone())).unwrap();
    early.write(b"second".to_vec()).unwrap();
    // The race: somebody else replaces the object after the upload began.
    let mut late = client.upload("x", Replace::Version(seen.clone())).unwrap();
    late.write(b"third".to_vec()).unwrap();
    early.finish().unwrap();
    assert_eq!(late.finish().unwrap_err().kind(), Kind::ObjectChanged);
    assert_eq!(client.upload("x", Replace::Version(seen.clone())).err().unwrap().kind(), Kind::ObjectChanged);
    assert_eq!(client.upload("nothing", Replace::Version(seen)).err().unwrap().kind(), Kind::ObjectChanged);
    assert_eq!(client.read_small("x", 100, &Control::new()).unwrap(), b"second");
}

#[test]
fn an_unfinished_upload_is_invisible_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let client = client(root.path());
    let mut upload = client.upload("a/x", Replace::Never).unwrap();
    upload.write(vec![1; 100]).unwrap();
    assert!(names(&client, "").is_empty());
    assert_eq!(fs::read_dir(root.path().join("a")).unwrap().count(), 1, "the temporary file");
    drop(upload);
    assert_eq!(fs::read_dir(root.path().join("a")).unwrap().count(), 0);
}

#[test]
fn a_range_of_another_version_or_past_the_end_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let client = client(root.path());
    put(&client, "x", b"0123456789");
    let object = client.head("x", &Control::new()).unwrap();
    let read = |range: Range<u64>, version: &str| {
        let mut got = Vec::new();
        let plan = crate::transfer::FetchPlan { name: "x", version, ranges: &[range], spool_key: None };
        let mut deliver = |_, bytes: Vec<u8>| {
            got.extend(bytes);
            Ok(())
        };
        let outcome = client.fetch(&plan, &|_, _| Ok(()), &mut deliver, &Control::new());
        outcome.map(|()| got).map_err(|error| error.kind())
    };
    assert_eq!(read(3..7, &object.version), Ok(b"3456".to_vec()));
    assert_eq!(read(3..7, "another"), Err(Kind::ObjectChanged));
    assert_eq!(read(3..11, &object.version), Err(Kind::ObjectChanged));
    fs::write(root.path().join("x"), b"0123456789!").unwrap();
    assert_eq!(read(3..7, &object.version), Err(Kind::ObjectChanged));
}

#[test]
fn what_is_not_there_is_said_not_to_be_there() {
    let root = tempfile::tempdir().unwrap();
    let client = client(root.path());
    put(&client, "a/x", b"1");
    for name in ["y", "a", "a/x/y", "b/x"] {
        assert_eq!(client.head(name, &Control::new()).unwrap_err().kind(), Kind::ObjectNotFound, "{name}");
        assert!(client.delete(name).is_ok(), "{name}");
    }
    assert_eq!(names(&client, ""), ["a/x"]);
    client.delete("a/x").unwrap();
    assert!(names(&client, "").is_empty());
    let missing = StoreSettings { bucket: root.path().join("none").to_str().unwrap().into(), ..StoreSettings::default() };
    assert_eq!(Client::open(&missing, ClientSettings::default()).err().unwrap().kind(), Kind::ObjectNotFound);
}

#[test]
fn a_pipe_in_the_store_holds_nobody_up() {
    let root = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("mkfifo").arg(root.path().join("pipe")).status().unwrap();
    assert!(status.success());
    let client = client(root.path());
    assert_eq!(client.head("pipe", &Control::new()).unwrap_err().kind(), Kind::ObjectNotFound);
    assert!(names(&client, "").is_empty());
}
