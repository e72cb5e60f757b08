//! The OneDrive store against a drive in this process, over sockets.

#[path = "support/http_server.rs"]
mod http_server;
#[path = "support/onedrive_server.rs"]
mod onedrive_server;
#[path = "support/store_contract.rs"]
mod store_contract;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_server::{empty, json};
use hyper::Response;
use hyper::body::Bytes;
use onedrive_server::{Fault, OneDriveServer, error};
use smp::control::Control;
use smp::error::{Error, Kind};
use smp::secret::Secret;
use smp::transfer::{Client, ClientSettings, Replace, StoreSettings};
use store_contract::{Extent, fetch_one, names, pattern, put, read};

fn settings() -> ClientSettings {
    ClientSettings { retries: 0, timeout: Duration::from_secs(20), ..ClientSettings::default() }
}

fn store(server: &OneDriveServer) -> StoreSettings {
    StoreSettings {
        provider: "onedrive".into(),
        endpoint: Some(format!("{}/v1.0", server.graph.endpoint)),
        access_token: Some(Arc::new(Secret::new("good-token".to_owned()))),
        ..StoreSettings::default()
    }
}

fn client(server: &OneDriveServer) -> Client {
    Client::open(&store(server), settings()).unwrap()
}

fn patient(server: &OneDriveServer) -> Client {
    Client::open(&store(server), ClientSettings { retries: 3, ..settings() }).unwrap()
}

fn fail(server: &OneDriveServer, method: &'static str, part: &'static str, fault: Fault) {
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

fn list_error(store: &StoreSettings) -> Error {
    Client::open(store, settings()).unwrap().list("study", &Control::new()).unwrap_err()
}

/// A file of credentials.
fn app(place: &tempfile::TempDir, fields: serde_json::Value) -> Option<PathBuf> {
    let file = place.path().join("onedrive.json");
    store_contract::write_secret(&file, &fields.to_string());
    Some(file)
}

#[test]
fn it_does_what_every_store_must_do() {
    let server = OneDriveServer::start();
    // OneDrive takes no question marks.
    store_contract::check(&client(&server), &Extent { strange: "a/b/Schädel MRT + ä&=%20#'(1)/脳 😀.smpp", ..Extent::default() });
    assert_eq!(server.sessions(), 0, "no session is left open");
}

#[test]
fn a_folder_of_a_shared_drive_can_be_the_root() {
    let server = OneDriveServer::start();
    server.state().drive = "drives/b%21x-1".into();
    server.state().write("Shared/Site 7/study/x", Some(b"x".to_vec()));
    let id = server.state().items["shared/site 7"].id.clone();
    let shared = StoreSettings { bucket: "b!x-1".into(), ..store(&server) };
    let inside = Client::open(&StoreSettings { folder_id: Some(id), ..shared.clone() }, settings()).unwrap();
    assert_eq!(names(&inside, ""), ["study/x"]);
    assert_eq!(read(&inside, "study/x"), b"x");
    put(&inside, "study/y", b"y");
    assert_eq!(names(&Client::open(&shared, settings()).unwrap(), "Shared"), ["Shared/Site 7/study/x", "Shared/Site 7/study/y"]);
    let nowhere = Client::open(&StoreSettings { folder_id: Some("none".into()), ..shared }, settings()).unwrap();
    assert_eq!(nowhere.list("", &Control::new()).unwrap_err().kind(), Kind::ObjectNotFound);
    assert_eq!(upload(&nowhere, "x", b"1", Replace::Never).unwrap_err().kind(), Kind::StoreUnwritable);
}

#[test]
fn nothing_of_a_folder_is_lost_to_another_case() {
    let server = OneDriveServer::start();
    for name in ["Site/Study/Series/A.smpp", "Site/Study/b", "Site/Studyx"] {
        server.state().write(name, Some(b"1".to_vec()));
    }
    let client = client(&server);
    assert_eq!(names(&client, "site/study"), ["site/study/Series/A.smpp", "site/study/b"]);
    assert_eq!(read(&client, "site/study/series/a.smpp"), b"1");
    assert_eq!(client.upload("SITE/study/B", Replace::Never).err().unwrap().kind(), Kind::ObjectExists);
}

#[test]
fn a_folder_is_no_object_and_is_not_removed_as_one() {
    let server = OneDriveServer::start();
    server.state().write("study/x", Some(b"1".to_vec()));
    let client = client(&server);
    client.delete("study").unwrap();
    assert_eq!(names(&client, ""), ["study/x"]);
    assert_eq!(client.head("study", &Control::new()).unwrap_err().kind(), Kind::ObjectNotFound);
    fail(&server, "DELETE", "item", Fault::Overtaken("study/x"));
    assert_eq!(client.delete("study/x").unwrap_err().kind(), Kind::ServerFailed, "what another program put there stays");
    assert_eq!(read(&client, "study/x"), b"by somebody else");
}

#[test]
fn names_that_the_service_refuses_are_refused_before_anything_is_sent() {
    let server = OneDriveServer::start();
    let client = client(&server);
    for name in ["a/../b", "a//b", "what?", "a:b/c", "study /x", "study/nul"] {
        for outcome in [
            client.head(name, &Control::new()).map(drop),
            client.list(name, &Control::new()).map(drop),
            client.upload(name, Replace::Never).map(drop),
            client.delete(name),
            fetch_one(&client, name, "v", 0..1).map(drop),
        ] {
            assert_eq!(outcome.unwrap_err().kind(), Kind::UnsafePath, "{name}");
        }
    }
    assert!(server.state().seen.is_empty());
}

#[test]
fn a_persons_permission_is_renewed_and_the_newest_refresh_token_counts() {
    let server = OneDriveServer::start();
    server.state().refresh = "good&refresh".into();
    let place = tempfile::tempdir().unwrap();
    let uri = format!("{}/contoso/oauth2/v2.0/token", server.graph.endpoint);
    let fields = serde_json::json!({ "tenant": "contoso", "client_id": "app", "refresh_token": "good&refresh", "token_uri": uri });
    let by_file = StoreSettings { access_token: None, credentials_path: app(&place, fields), ..store(&server) };
    let client = Client::open(&by_file, settings()).unwrap();
    put(&client, "study/x", b"0123456789");
    assert_eq!(read(&client, "study/x"), b"0123456789");
    assert_eq!(server.state().grants.len(), 1, "one token for all");
    for _ in 0..2 {
        server.state().tokens.clear();
        assert_eq!(names(&client, "study"), ["study/x"]);
    }
    assert_eq!(server.state().grants.len(), 3);
    server.state().refresh = "revoked".into();
    server.state().tokens.clear();
    let error = client.list("study", &Control::new()).unwrap_err();
    assert_eq!(error.kind(), Kind::AccessDenied);
    assert!(!error.to_string().contains("canary"));
}

#[test]
fn an_app_signs_in_by_itself_for_a_drive_that_is_named() {
    let server = OneDriveServer::start();
    server.state().drive = "drives/b%21x".into();
    let place = tempfile::tempdir().unwrap();
    let uri = format!("{}/contoso/oauth2/v2.0/token", server.graph.endpoint);
    let fields = serde_json::json!({ "tenant": "contoso", "client_id": "app", "client_secret": "good=secret", "token_uri": uri });
    let by_app = StoreSettings { bucket: "b!x".into(), access_token: None, credentials_path: app(&place, fields), ..store(&server) };
    let client = Client::open(&by_app, settings()).unwrap();
    put(&client, "study/x", b"1");
    server.state().tokens.clear();
    assert_eq!(read(&client, "study/x"), b"1");
    assert_eq!(server.state().grants.len(), 2);
    let error = Client::open(&StoreSettings { bucket: String::new(), ..by_app }, settings()).err().unwrap();
    assert!(error.kind() == Kind::ConfigInvalidValue && error.detail().contains("cloud.bucket"), "{error}");
}

#[test]
fn credentials_and_settings_that_do_not_serve_are_told_apart() {
    let server = OneDriveServer::start();
    let wrong = StoreSettings { access_token: Some(Arc::new(Secret::new("canary".to_owned()))), ..store(&server) };
    let error = list_error(&wrong);
    assert!(error.kind() == Kind::AccessDenied && !error.to_string().contains("canary"), "{error}");
    let place = tempfile::tempdir().unwrap();
    let open = |store: StoreSettings| Client::open(&store, settings()).err().unwrap().kind();
    let none = StoreSettings { access_token: None, ..store(&server) };
    assert_eq!(open(none.clone()), Kind::CredentialsMissing);
    for (fields, kind) in [
        (serde_json::json!({ "tenant": "t", "client_id": "c" }), Kind::CredentialsMissing),
        (serde_json::json!({ "client_id": "c", "refresh_token": "r" }), Kind::CredentialsMissing),
        (
            serde_json::json!({ "tenant": "t", "client_id": "c", "refresh_token": "r", "token_uri": "http://login.example.org/" }),
            Kind::ConfigInvalidValue,
        ),
    ] {
        assert_eq!(open(StoreSettings { credentials_path: app(&place, fields), ..none.clone() }), kind);
    }
    for store in [
        StoreSettings { region: Some("x".into()), ..store(&server) },
        StoreSettings { is_requester_pays: true, ..store(&server) },
        StoreSettings { folder_id: Some("a/b".into()), ..store(&server) },
        StoreSettings { endpoint: Some("http://graph.example.org/v1.0".into()), ..store(&server) },
    ] {
        assert_eq!(open(store), Kind::ConfigInvalidValue);
    }
}

#[test]
fn a_store_that_wants_to_be_left_alone_is_and_then_serves() {
    let server = OneDriveServer::start();
    let client = patient(&server);
    put(&client, "study/x", b"0123456789");
    for part in ["children", "root:/study/x", "download"] {
        for status in [429, 503] {
            let busy = Response::builder().status(status).header("retry-after", "0").body(Bytes::new()).unwrap();
            fail(&server, "GET", part, Fault::Answer(busy));
        }
        fail(&server, "GET", part, Fault::Answer(error(423, "resourceLocked")));
    }
    assert_eq!(names(&client, "study"), ["study/x"]);
    assert_eq!(read(&client, "study/x"), b"0123456789");
    assert_eq!(client.meter().retries(), 9);
}

#[test]
fn bytes_are_of_the_version_asked_for_or_none() {
    let server = OneDriveServer::start();
    let client = client(&server);
    put(&client, "x", b"0123456789");
    let before = version(&client, "x");
    // Replaced between the first look and the bytes, by an object in which the range exists.
    fail(&server, "GET", "download", Fault::Overtaken("x"));
    assert_eq!(fetch_one(&client, "x", &before, 2..5).unwrap_err().kind(), Kind::ObjectChanged);
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
    ] {
        fail(&server, "GET", "download", fault);
        assert_eq!(fetch_one(&client, "x", &now, 2..5).unwrap_err().kind(), kind);
    }
    assert_eq!(fetch_one(&client, "x", &now, 2..5).unwrap(), b" so");
}

#[test]
fn an_upload_goes_on_where_the_store_stopped() {
    let server = OneDriveServer::start();
    server.state().is_terse = true;
    let client = patient(&server);
    let bytes = pattern((20 << 20) + 5);
    fail(&server, "POST", "createUploadSession", Fault::Answer(empty(503)));
    // Arrived, and the answer did not; refused; known already.
    fail(&server, "PUT", "upload-", Fault::Lost);
    fail(&server, "PUT", "upload-", Fault::Answer(error(429, "activityLimitReached")));
    fail(&server, "PUT", "upload-", Fault::Answer(error(416, "invalidRange")));
    upload(&client, "large", &bytes, Replace::Never).unwrap();
    assert!(read(&client, "large") == bytes);
}

#[test]
fn an_object_of_known_size_goes_as_it_comes_and_must_be_of_that_size() {
    let server = OneDriveServer::start();
    let client = client(&server);
    let bytes = pattern(25 << 20);
    let mut upload = client.upload("study/pack", Replace::Never).unwrap().of_size(bytes.len() as u64);
    upload.write(bytes[..12 << 20].to_vec()).unwrap();
    assert_eq!(server.sessions(), 1, "the first piece is on its way before the last is known");
    upload.write(bytes[12 << 20..].to_vec()).unwrap();
    upload.finish().unwrap();
    assert!(read(&client, "study/pack") == bytes);
    for (said, written) in [(20 << 20, 12 << 20), (11 << 20, 12 << 20), (5, 4), (0, 1)] {
        let mut upload = client.upload("study/other", Replace::Never).unwrap().of_size(said);
        let outcome = upload.write(pattern(written)).and_then(|()| upload.finish());
        assert_eq!(outcome.unwrap_err().kind(), Kind::Internal, "{said} said, {written} written");
        assert_eq!((names(&client, "study").len(), server.sessions()), (1, 0));
    }
}

#[test]
fn an_answer_that_was_lost_does_not_turn_an_object_into_somebody_elses() {
    let server = OneDriveServer::start();
    let client = patient(&server);
    for (name, size) in [("small", 5), ("middle", 5 << 20), ("large", 12 << 20)] {
        let bytes = pattern(size);
        match size {
            5 => fail(&server, "PUT", "content", Fault::Lost),
            _ => {
                // The last piece of a session, which may have one before it.
                if size > 10 << 20 {
                    let next = serde_json::json!({ "nextExpectedRanges": ["0-"] });
                    fail(&server, "GET", "upload-", Fault::Answer(json(200, &next)));
                    fail(&server, "PUT", "upload-", Fault::Answer(empty(500)));
                }
                fail(&server, "PUT", "upload-", Fault::Lost);
            }
        }
        upload(&client, name, &bytes, Replace::Never).unwrap();
        assert!(read(&client, name) == bytes);
        let seen = version(&client, name);
        let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
        fail(&server, "PUT", "upload-", Fault::Lost);
        upload(&client, name, &other, Replace::Version(seen)).unwrap();
        assert!(read(&client, name) == other);
        assert!(server.state().faults.is_empty(), "{name}: all that was to go wrong did");
    }
    assert_eq!(server.sessions(), 0);
}

#[test]
fn a_session_that_ended_is_an_error_and_nothing_appears() {
    let server = OneDriveServer::start();
    let client = patient(&server);
    fail(&server, "PUT", "upload-", Fault::Answer(error(404, "itemNotFound")));
    let error = upload(&client, "large", &pattern(20 << 20), Replace::Never).unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::StoreUnwritable, "the upload session has ended at the store"));
    assert!(names(&client, "").is_empty());
    assert_eq!(server.sessions(), 0, "given up at the server too");
}

#[test]
fn an_object_that_differs_from_what_was_sent_is_removed() {
    let server = OneDriveServer::start();
    let client = client(&server);
    fail(&server, "PUT", "content", Fault::Answer(json(201, &serde_json::json!({ "id": "x", "size": 5, "file": {} }))));
    server.state().write("x", Some(b"54321".to_vec()));
    // Allowed, so that what lies there is not in the way.
    let error = upload(&client, "x", b"12345", Replace::Allowed).unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::StoreUnwritable, "what the store has is not what was sent"));
    assert!(names(&client, "").is_empty());
}

#[test]
fn refusals_of_a_write_have_their_reasons() {
    let server = OneDriveServer::start();
    let client = client(&server);
    for (status, code, kind) in [
        (507, "quotaLimitReached", Kind::StoreUnwritable),
        (403, "accessDenied", Kind::AccessDenied),
        (403, "quotaLimitReached", Kind::StoreUnwritable),
        (422, "malwareDetected", Kind::AccessDenied),
        (423, "resourceLocked", Kind::ServerFailed),
        (409, "resourceModified", Kind::ServerFailed),
        (409, "nameAlreadyExists", Kind::ObjectExists),
        (400, "invalidRequest", Kind::StoreUnwritable),
    ] {
        fail(&server, "PUT", "content", Fault::Answer(error(status, code)));
        let error = upload(&client, "jones", b"1", Replace::Never).unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {code}");
        assert!(!error.to_string().contains("canary"));
    }
}

#[test]
fn the_token_goes_to_no_other_host_and_addresses_with_permission_are_not_told() {
    let server = OneDriveServer::start();
    server.state().page = 1;
    for name in ["study/x", "study/y"] {
        server.state().write(name, Some(b"1".to_vec()));
    }
    server.state().next_page = Some(format!("{}/v1.0/page?$skiptoken=canary", server.contents.endpoint));
    let error = list_error(&store(&server));
    assert_eq!((error.kind(), error.detail()), (Kind::ServerFailed, "the store sent a listing that goes on at another host"));
    server.state().next_page = None;
    let client = client(&server);
    let link = |url: &str| {
        let item = serde_json::json!({ "id": "i", "cTag": "v", "size": 1, "file": {}, "@microsoft.graph.downloadUrl": url });
        Fault::Answer(json(200, &item))
    };
    for (url, kind) in [("http://contents.example.org/canary", Kind::TlsFailed), ("ftp://127.0.0.1/canary", Kind::TlsFailed)] {
        fail(&server, "GET", "root:/study/x", link(url));
        let error = fetch_one(&client, "study/x", "v", 0..1).unwrap_err();
        assert_eq!(error.kind(), kind, "{url}");
        assert!(!error.to_string().contains("canary"));
    }
    fail(&server, "GET", "download", Fault::Answer(onedrive_server::error(403, "canary")));
    let seen = version(&client, "study/x");
    let error = fetch_one(&client, "study/x", &seen, 0..1).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("permission"), "{error:?}");
}

#[test]
fn a_listing_of_nonsense_is_an_error_and_ends() {
    let server = OneDriveServer::start();
    server.state().write("study/x", Some(b"1".to_vec()));
    let root = server.state().items["study"].id.clone();
    let file = |name: &str, tag: &str| serde_json::json!({ "id": "f", "name": name, "size": 1, "cTag": tag, "file": {} });
    for (extra, kind) in [
        (vec![serde_json::json!({ "id": root, "name": "again", "folder": {} })], Kind::ServerFailed),
        (vec![file("../elsewhere", "1")], Kind::ServerFailed),
        (vec![file("..", "1")], Kind::ServerFailed),
        (vec![file("a", "1"), file("a", "2")], Kind::ServerFailed),
    ] {
        server.state().extra = extra;
        assert_eq!(list_error(&store(&server)).kind(), kind);
    }
    server.state().extra = vec![
        file("a", "1"),
        file("a", "1"),
        serde_json::json!({ "id": "n", "name": "notebook", "package": { "type": "oneNote" } }),
        serde_json::json!({ "id": "s", "name": "shortcut", "remoteItem": { "folder": {} } }),
    ];
    assert_eq!(names(&client(&server), "study"), ["study/a", "study/x"]);
}
