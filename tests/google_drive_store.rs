//! The Google Drive store against a drive in this process, over sockets.

#[path = "support/google_drive_server.rs"]
mod google_drive_server;
#[path = "support/http_server.rs"]
mod http_server;
#[path = "support/store_contract.rs"]
mod store_contract;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use google_drive_server::{BINARY, FOLDER, Fault, GoogleDriveServer, error};
use http_server::empty;
use hyper::Response;
use hyper::body::Bytes;
use serde_json::json;
use smp::control::Control;
use smp::error::{Error, Kind};
use smp::secret::Secret;
use smp::transfer::{Client, ClientSettings, Replace, StoreSettings};
use store_contract::{Extent, fetch_one, names, pattern, put, read};

const ROOT: &str = "0AROOT";

fn settings() -> ClientSettings {
    ClientSettings { retries: 0, timeout: Duration::from_secs(20), ..ClientSettings::default() }
}

fn store(server: &GoogleDriveServer) -> StoreSettings {
    StoreSettings {
        provider: "google_drive".into(),
        endpoint: Some(server.http.endpoint.clone()),
        access_token: Some(Arc::new(Secret::new("good-token".to_owned()))),
        ..StoreSettings::default()
    }
}

fn client(server: &GoogleDriveServer) -> Client {
    Client::open(&store(server), settings()).unwrap()
}

fn patient(server: &GoogleDriveServer) -> Client {
    Client::open(&store(server), ClientSettings { retries: 3, ..settings() }).unwrap()
}

fn fail(server: &GoogleDriveServer, method: &'static str, part: &'static str, fault: Fault) {
    server.state().faults.push_back((method, part, fault));
}

fn upload(client: &Client, name: &str, bytes: &[u8], replace: Replace) -> smp::Result<()> {
    let mut upload = client.upload(name, replace)?;
    upload.write(bytes.to_vec())?;
    upload.finish().map(drop)
}

fn version(client: &Client, name: &str) -> String {
    client.head(name, &Control::new()).unwrap().version
}

fn list_error(client: &Client) -> Error {
    client.list("study", &Control::new()).unwrap_err()
}

fn file(place: &tempfile::TempDir, fields: &serde_json::Value) -> Option<PathBuf> {
    let file = place.path().join("google.json");
    store_contract::write_secret(&file, &fields.to_string());
    Some(file)
}

#[test]
fn it_does_what_every_store_must_do() {
    let server = GoogleDriveServer::start();
    server.state().page = 500;
    store_contract::check(&client(&server), &Extent::default());
    assert_eq!(server.sessions(), 0, "no session is left open");
}

#[test]
fn a_folder_that_somebody_shared_is_the_root() {
    let server = GoogleDriveServer::start();
    server.state().write(ROOT, "Shared/Site 7/study/x", b"x");
    let id = server.state().named("Site 7")[0].clone();
    let inside = Client::open(&StoreSettings { folder_id: Some(id), ..store(&server) }, settings()).unwrap();
    assert_eq!(names(&inside, ""), ["study/x"]);
    put(&inside, "study/y", b"y");
    put(&inside, "new/z", b"z");
    assert_eq!(names(&client(&server), "Shared").len(), 3);
    let (gone, no_folder) = ("nowhere".to_owned(), server.state().named("x")[0].clone());
    for folder_id in [gone, no_folder] {
        let nowhere = Client::open(&StoreSettings { folder_id: Some(folder_id), ..store(&server) }, settings()).unwrap();
        let error = nowhere.list("", &Control::new()).unwrap_err();
        assert!(error.kind() == Kind::ObjectNotFound && error.detail().contains("cloud.folder_id"), "{error}");
        assert_eq!(upload(&nowhere, "x", b"1", Replace::Never).unwrap_err().kind(), Kind::StoreUnwritable);
    }
}

#[test]
fn a_shared_drive_and_a_folder_in_it_serve() {
    let server = GoogleDriveServer::start();
    server.state().add_drive("0ASHARED");
    server.state().write("0ASHARED", "site/study/x", b"x");
    let site = server.state().named("site")[0].clone();
    for (folder, name) in [("0ASHARED".to_owned(), "site/study/x"), (site, "study/x")] {
        let client = Client::open(&StoreSettings { folder_id: Some(folder), ..store(&server) }, settings()).unwrap();
        assert_eq!(names(&client, ""), [name]);
        assert_eq!(read(&client, name), b"x");
        let other = format!("{name}-other");
        put(&client, &other, b"0123");
        assert_eq!(read(&client, &other), b"0123");
        client.delete(&other).unwrap();
        assert_eq!(names(&client, ""), [name]);
    }
}

#[test]
fn two_folders_of_one_name_count_as_one_and_two_files_are_an_error() {
    let server = GoogleDriveServer::start();
    let first = server.state().add(ROOT, "study", FOLDER, b"");
    let second = server.state().add(ROOT, "study", FOLDER, b"");
    server.state().add(&first, "a", BINARY, b"1");
    server.state().add(&second, "b", BINARY, b"2");
    let client = client(&server);
    assert_eq!(names(&client, "study"), ["study/a", "study/b"]);
    assert_eq!((read(&client, "study/a"), read(&client, "study/b")), (b"1".to_vec(), b"2".to_vec()));
    put(&client, "study/c", b"3");
    assert_eq!(client.upload("study/b", Replace::Never).err().unwrap().kind(), Kind::ObjectExists);
    server.state().add(&second, "a", BINARY, b"of another");
    for outcome in [
        client.head("study/a", &Control::new()).map(drop),
        client.list("study", &Control::new()).map(drop),
        client.upload("study/a", Replace::Allowed).map(drop),
        client.delete("study/a"),
    ] {
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::ServerFailed, "several files have the name of one object"));
    }
}

#[test]
fn what_has_no_bytes_or_no_name_here_is_left_out() {
    let server = GoogleDriveServer::start();
    server.state().write(ROOT, "study/x", b"1");
    let study = server.state().named("study")[0].clone();
    for (name, mime) in [
        ("notes", "application/vnd.google-apps.document"),
        ("elsewhere", "application/vnd.google-apps.shortcut"),
        ("MRT 3/4", BINARY),
        ("..", BINARY),
        ("X", BINARY),
    ] {
        server.state().add(&study, name, mime, b"2");
    }
    server.state().write(ROOT, "study/old/y", b"in the bin");
    let old = server.state().named("old")[0].clone();
    server.state().files.get_mut(&old).unwrap().trashed = true;
    let client = client(&server);
    assert_eq!(names(&client, "study"), ["study/X", "study/x"]);
    assert_eq!(read(&client, "study/x"), b"1", "case counts, though the service's questions do not heed it");
    for name in ["study/notes", "study/elsewhere", "study", "study/old/y"] {
        assert_eq!(client.head(name, &Control::new()).unwrap_err().kind(), Kind::ObjectNotFound, "{name}");
        client.delete(name).unwrap();
    }
    assert_eq!(names(&client, ""), ["study/X", "study/x"], "a folder is no object and is not removed as one");
}

#[test]
fn names_with_quotes_stay_within_the_question() {
    let server = GoogleDriveServer::start();
    let client = client(&server);
    for name in ["it's/a 'b' or name != '", "back\\slash/x\\", "a\\'b"] {
        put(&client, name, name.as_bytes());
        assert_eq!(read(&client, name), name.as_bytes());
        client.delete(name).unwrap();
    }
    let before = server.state().seen.len();
    for name in ["a/../b", "a//b", "a\u{0}b", "a/\u{7f}"] {
        assert_eq!(client.head(name, &Control::new()).unwrap_err().kind(), Kind::UnsafePath);
        assert_eq!(client.upload(name, Replace::Never).err().unwrap().kind(), Kind::UnsafePath);
        assert_eq!(fetch_one(&client, name, "v", 0..1).unwrap_err().kind(), Kind::UnsafePath);
    }
    assert_eq!(server.state().seen.len(), before);
}

#[test]
fn a_service_account_signs_for_its_tokens() {
    let server = GoogleDriveServer::start();
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    server.state().public_key = key.public_key().as_ref().to_vec();
    let pem = |key: &KeyPair| {
        let der: Pkcs8V1Der = key.as_der().unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
    };
    let place = tempfile::tempdir().unwrap();
    let mut fields = json!({
        "type": "service_account", "client_email": "robot@project.iam.gserviceaccount.com", "private_key": pem(&key),
        "private_key_id": "k1", "token_uri": format!("{}/token", server.http.endpoint),
    });
    let by_file = |fields: &serde_json::Value| {
        let store = StoreSettings { access_token: None, credentials_path: file(&place, fields), ..store(&server) };
        Client::open(&store, settings()).unwrap()
    };
    let client = by_file(&fields);
    put(&client, "study/x", b"0123456789");
    assert_eq!(read(&client, "study/x"), b"0123456789");
    assert_eq!(server.state().grants, 1, "one token for all");
    server.state().tokens.clear();
    assert_eq!(names(&client, "study"), ["study/x"]);
    assert_eq!(server.state().grants, 2);
    assert_eq!(client.credentials(&Control::new()).unwrap(), "cloud.credentials_path");
    fields["private_key"] = json!(pem(&KeyPair::generate(KeySize::Rsa2048).unwrap()));
    let error = list_error(&by_file(&fields));
    assert_eq!(error.kind(), Kind::AccessDenied);
    assert!(!error.to_string().contains("canary"), "{error}");
}

#[test]
fn a_persons_permission_is_renewed() {
    let server = GoogleDriveServer::start();
    server.state().refresh = "good&refresh".into();
    let place = tempfile::tempdir().unwrap();
    let fields = json!({
        "type": "authorized_user", "client_id": "app", "client_secret": "good=secret", "refresh_token": "good&refresh",
        "token_uri": format!("{}/token", server.http.endpoint),
    });
    let by_file = StoreSettings { access_token: None, credentials_path: file(&place, &fields), ..store(&server) };
    let client = Client::open(&by_file, settings()).unwrap();
    put(&client, "study/x", b"1");
    server.state().tokens.clear();
    assert_eq!(read(&client, "study/x"), b"1");
    assert_eq!(server.state().grants, 2);
    server.state().refresh = "revoked".into();
    server.state().tokens.clear();
    assert_eq!(list_error(&client).kind(), Kind::AccessDenied);
}

#[test]
fn credentials_and_settings_that_do_not_serve_are_told_apart() {
    let server = GoogleDriveServer::start();
    let wrong = StoreSettings { access_token: Some(Arc::new(Secret::new("canary".to_owned()))), ..store(&server) };
    let error = list_error(&Client::open(&wrong, settings()).unwrap());
    assert!(error.kind() == Kind::AccessDenied && !error.to_string().contains("canary"), "{error}");
    for store in [
        StoreSettings { bucket: "x".into(), ..store(&server) },
        StoreSettings { region: Some("x".into()), ..store(&server) },
        StoreSettings { is_requester_pays: true, ..store(&server) },
        StoreSettings { folder_id: Some("a/b".into()), ..store(&server) },
        StoreSettings { folder_id: Some("a' or '".into()), ..store(&server) },
        StoreSettings { endpoint: Some("http://drive.example.org".into()), ..store(&server) },
    ] {
        assert_eq!(Client::open(&store, settings()).err().unwrap().kind(), Kind::ConfigInvalidValue);
    }
}

#[test]
fn a_store_that_wants_to_be_left_alone_is_and_then_serves() {
    let server = GoogleDriveServer::start();
    let client = patient(&server);
    put(&client, "study/x", b"0123456789");
    for part in ["name = 'x'", "alt=media", "'0AROOT' in parents"] {
        let busy = Response::builder().status(429).header("retry-after", "0").body(Bytes::new()).unwrap();
        fail(&server, "GET", part, Fault::Answer(busy));
        for reason in ["rateLimitExceeded", "userRateLimitExceeded"] {
            fail(&server, "GET", part, Fault::Answer(error(403, reason)));
        }
        assert_eq!(names(&client, "study"), ["study/x"]);
        assert_eq!(read(&client, "study/x"), b"0123456789");
        assert!(server.state().faults.is_empty(), "{part}");
    }
    assert_eq!(client.meter().retries(), 9);
}

#[test]
fn bytes_are_of_the_version_asked_for_or_none() {
    let server = GoogleDriveServer::start();
    let client = client(&server);
    put(&client, "x", b"0123456789");
    let before = version(&client, "x");
    // Replaced just before the bytes are sent, by content in which the range exists.
    fail(&server, "GET", "alt=media", Fault::Overtaken("x"));
    assert_eq!(fetch_one(&client, "x", &before, 2..5).unwrap_err().kind(), Kind::ObjectChanged);
    // Replaced between the bytes and the look at the version.
    let between = version(&client, "x");
    fail(&server, "GET", "supportsAllDrives=true&fields=id", Fault::Overtaken("x"));
    assert_eq!(fetch_one(&client, "x", &between, 2..5).unwrap_err().kind(), Kind::ObjectChanged);
    let now = version(&client, "x");
    let reply = |status: u16, range: &str, body: &'static str| {
        Fault::Answer(Response::builder().status(status).header("content-range", range).body(Bytes::from(body)).unwrap())
    };
    for (fault, kind) in [
        (reply(200, "", "by somebody else"), Kind::TransferInterrupted),
        (reply(200, "bytes 2-4/16", " so"), Kind::TransferInterrupted),
        (reply(206, "bytes 0-2/16", "by "), Kind::TransferInterrupted),
        (reply(206, "bytes 2-4/16", " s"), Kind::TransferInterrupted),
        (reply(206, "bytes 2-4/17", " so"), Kind::ObjectChanged),
        (Fault::Answer(error(403, "cannotDownloadAbusiveFile")), Kind::AccessDenied),
        (Fault::Answer(error(403, "downloadQuotaExceeded")), Kind::AccessDenied),
    ] {
        fail(&server, "GET", "alt=media", fault);
        assert_eq!(fetch_one(&client, "x", &now, 2..5).unwrap_err().kind(), kind);
    }
    assert_eq!(fetch_one(&client, "x", &now, 2..5).unwrap(), b" so");
    // Moved away: what was known about it is looked at anew.
    let id = server.state().named("x")[0].clone();
    server.state().files.get_mut(&id).unwrap().trashed = true;
    assert_eq!(fetch_one(&client, "x", &now, 2..5).unwrap_err().kind(), Kind::ObjectChanged);
    assert_eq!(fetch_one(&client, "x", &now, 2..5).unwrap_err().kind(), Kind::ObjectNotFound);
}

#[test]
fn a_reader_who_is_not_told_of_revisions_reads_by_the_sum_of_the_content() {
    let server = GoogleDriveServer::start();
    server.state().untold = vec!["headRevisionId", "sha256Checksum"];
    let client = client(&server);
    put(&client, "x", b"0123456789");
    let before = version(&client, "x");
    assert_eq!(fetch_one(&client, "x", &before, 2..5).unwrap(), b"234");
    fail(&server, "GET", "alt=media", Fault::Overtaken("x"));
    assert_eq!(fetch_one(&client, "x", &before, 2..5).unwrap_err().kind(), Kind::ObjectChanged);
}

#[test]
fn an_upload_goes_on_where_the_store_stopped() {
    let server = GoogleDriveServer::start();
    let client = patient(&server);
    let bytes = pattern((20 << 20) + 5);
    fail(&server, "POST", "uploadType=resumable", Fault::Answer(empty(503)));
    // A piece of which half was taken; one that arrived and whose answer did not.
    fail(&server, "PUT", "session", Fault::Partial(4 << 20));
    fail(&server, "PUT", "session", Fault::Lost);
    fail(&server, "PUT", "session", Fault::Answer(error(403, "userRateLimitExceeded")));
    upload(&client, "study/large", &bytes, Replace::Never).unwrap();
    assert!(read(&client, "study/large") == bytes);
    assert!(server.state().faults.is_empty());
}

#[test]
fn an_answer_that_was_lost_makes_no_second_file() {
    let server = GoogleDriveServer::start();
    let client = patient(&server);
    for (name, size) in [("small", 5), ("middle", 5 << 20), ("large", 12 << 20)] {
        let bytes = pattern(size);
        let losing = |method: &'static str| {
            // A session loses its last piece; one with a piece before that takes it first.
            if size > 8 << 20 {
                fail(&server, "PUT", "session", Fault::Partial(8 << 20));
            }
            match size {
                5 => fail(&server, method, "multipart", Fault::Lost),
                _ => fail(&server, "PUT", "session", Fault::Lost),
            }
        };
        losing("POST");
        upload(&client, name, &bytes, Replace::Never).unwrap();
        assert!(read(&client, name) == bytes);
        let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
        losing("PATCH");
        let seen = version(&client, name);
        upload(&client, name, &other, Replace::Version(seen)).unwrap();
        assert!(read(&client, name) == other);
        assert_eq!(server.state().named(name).len(), 1);
        assert!(server.state().faults.is_empty(), "{name}: all that was to go wrong did");
    }
}

#[test]
fn a_session_that_ended_is_an_error_and_nothing_appears() {
    let server = GoogleDriveServer::start();
    let client = patient(&server);
    fail(&server, "PUT", "session", Fault::Answer(error(404, "notFound")));
    let error = upload(&client, "large", &pattern(20 << 20), Replace::Never).unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::StoreUnwritable, "the upload session has ended at the store"));
    assert!(!format!("{error:?}").contains("canary"), "the address of a session is a permission");
    assert!(names(&client, "").is_empty());
    assert_eq!(server.sessions(), 0, "given up at the server too");
}

#[test]
fn whoever_comes_second_takes_their_file_back() {
    let server = GoogleDriveServer::start();
    let client = client(&server);
    for (replace, kind) in [(Replace::Never, Kind::ObjectExists), (Replace::Allowed, Kind::StoreUnwritable)] {
        fail(&server, "POST", "multipart", Fault::Appears("study/x"));
        assert_eq!(upload(&client, "study/x", b"ours", replace).unwrap_err().kind(), kind);
        assert_eq!(read(&client, "study/x"), b"by somebody else");
        client.delete("study/x").unwrap();
    }
    put(&client, "study/x", b"first");
    let seen = version(&client, "study/x");
    let mut late = client.upload("study/x", Replace::Version(seen)).unwrap();
    late.write(b"late".to_vec()).unwrap();
    let id = server.state().named("x")[0].clone();
    server.state().overwrite(&id, b"early");
    assert_eq!(late.finish().unwrap_err().kind(), Kind::ObjectChanged);
    assert_eq!(read(&client, "study/x"), b"early");
}

#[test]
fn a_replaced_object_stays_the_same_file() {
    let server = GoogleDriveServer::start();
    let client = client(&server);
    put(&client, "x", b"first");
    let id = server.state().named("x");
    for size in [3, 5 << 20, 12 << 20] {
        upload(&client, "x", &pattern(size), Replace::Allowed).unwrap();
        assert!(read(&client, "x") == pattern(size));
    }
    assert_eq!(server.state().named("x"), id, "links to it and its shares stay good");
}

#[test]
fn an_object_that_differs_from_what_was_sent_is_removed() {
    let server = GoogleDriveServer::start();
    let client = client(&server);
    for (method, part, size) in [("POST", "multipart", 100_000), ("PUT", "session", 5 << 20)] {
        fail(&server, method, part, Fault::Garbled);
        let error = upload(&client, "x", &pattern(size), Replace::Never).unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::StoreUnwritable, "what the store has is not what was sent"));
        assert!(names(&client, "").is_empty());
    }
}

#[test]
fn refusals_of_a_write_have_their_reasons() {
    let server = GoogleDriveServer::start();
    let client = client(&server);
    for (status, reason, kind) in [
        (403, "storageQuotaExceeded", Kind::StoreUnwritable),
        (403, "teamDriveFileLimitExceeded", Kind::StoreUnwritable),
        (403, "insufficientFilePermissions", Kind::AccessDenied),
        (403, "insufficientPermissions", Kind::AccessDenied),
        (403, "accessNotConfigured", Kind::AccessDenied),
        (403, "rateLimitExceeded", Kind::ServerFailed),
        (429, "rateLimitExceeded", Kind::ServerFailed),
        (404, "notFound", Kind::StoreUnwritable),
        (409, "fileIdInUse", Kind::ServerFailed),
        (400, "invalid", Kind::StoreUnwritable),
    ] {
        fail(&server, "POST", "multipart", Fault::Answer(error(status, reason)));
        let error = upload(&client, "jones", b"1", Replace::Never).unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {reason}");
        assert!(!error.to_string().contains("canary") && !error.to_string().contains("jones"));
    }
    assert!(names(&client, "").is_empty());
}

#[test]
fn uploads_that_begin_together_make_one_folder() {
    let server = GoogleDriveServer::start();
    let client = client(&server);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let client = &client;
            scope.spawn(move || put(client, &format!("site/study/{number}"), b"1"));
        }
    });
    for folder in ["site", "study"] {
        assert_eq!(server.state().named(folder).len(), 1);
    }
    assert_eq!(names(&client, "site").len(), 4);
}

#[test]
fn a_listing_of_nonsense_is_an_error_and_ends() {
    let server = GoogleDriveServer::start();
    server.state().write(ROOT, "study/x", b"1");
    let study = server.state().named("study")[0].clone();
    let client = client(&server);
    server.state().is_incomplete = true;
    assert_eq!(list_error(&client).kind(), Kind::ServerFailed);
    server.state().is_incomplete = false;
    for (untold, kind) in [("size", Kind::ServerFailed), ("id", Kind::ServerFailed)] {
        server.state().untold = vec![untold];
        assert_eq!(list_error(&client).kind(), kind, "{untold}");
    }
    server.state().untold.clear();
    // A folder that lies in itself.
    let inner = server.state().add(&study, "inner", FOLDER, b"");
    let shown = json!({ "files": [{ "id": study, "name": "again", "mimeType": FOLDER }] });
    fail(&server, "GET", "'id-00003' in parents", Fault::Answer(http_server::json(200, &shown)));
    assert_eq!(inner, "id-00003");
    assert_eq!(list_error(&client).kind(), Kind::ServerFailed);
    assert_eq!(names(&client, "study"), ["study/x"]);
    // Pages that always have the same next one.
    server.state().page = 1;
    server.state().next_page = Some("again".into());
    for name in ["y", "z"] {
        server.state().add(&study, name, BINARY, b"2");
    }
    assert_eq!(list_error(&client).kind(), Kind::ServerFailed);
    server.state().next_page = None;
    assert_eq!(names(&client, "study"), ["study/x", "study/y", "study/z"]);
}
