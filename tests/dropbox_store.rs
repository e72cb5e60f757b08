//! The Dropbox store against a Dropbox in this process, over a socket.

#[path = "support/dropbox_server.rs"]
mod dropbox_server;
#[path = "support/http_server.rs"]
mod http_server;
#[path = "support/store_contract.rs"]
mod store_contract;

use std::sync::Arc;
use std::time::Duration;

use dropbox_server::{DropboxServer, Fault, error, folder_id};
use http_server::{HttpServer, empty, json};
use hyper::Response;
use hyper::body::Bytes;
use smp::control::Control;
use smp::error::{Error, Kind};
use smp::secret::Secret;
use smp::transfer::{Client, ClientSettings, Replace, StoreSettings};
use store_contract::{Extent, fetch_one, names, pattern, put, put_as, read};

fn settings() -> ClientSettings {
    ClientSettings { retries: 0, timeout: Duration::from_secs(20), ..ClientSettings::default() }
}

fn token(text: &str) -> Option<Arc<Secret<String>>> {
    Some(Arc::new(Secret::new(text.to_owned())))
}

fn store(server: &DropboxServer) -> StoreSettings {
    let endpoint = Some(server.http.endpoint.clone());
    StoreSettings { provider: "dropbox".into(), endpoint, access_token: token("good-token"), ..StoreSettings::default() }
}

fn client(server: &DropboxServer) -> Client {
    Client::open(&store(server), settings()).unwrap()
}

fn patient(server: &DropboxServer) -> Client {
    Client::open(&store(server), ClientSettings { retries: 3, ..settings() }).unwrap()
}

fn fail(server: &DropboxServer, route: &'static str, fault: Fault) {
    server.state().faults.push_back((route, fault));
}

fn upload(client: &Client, name: &str, bytes: &[u8], replace: Replace) -> smp::Result<()> {
    let mut upload = client.upload(name, replace)?;
    upload.write(bytes.to_vec())?;
    upload.finish().map(drop)
}

fn list_error(store: &StoreSettings) -> Error {
    Client::open(store, settings()).unwrap().list("study", &Control::new()).unwrap_err()
}

#[test]
fn it_does_what_every_store_must_do() {
    let server = DropboxServer::start();
    store_contract::check(&client(&server), &Extent::default());
}

#[test]
fn a_folder_or_a_namespace_can_be_the_root() {
    let server = DropboxServer::start();
    server.state().write("/Shared/Site 7/study/x", b"x".to_vec());
    server.state().namespace = Some(("77".into(), "/shared".into()));
    let id = folder_id("/shared/site 7");
    for (folder, name) in [(id.as_str(), "study/x"), ("ns:77", "Site 7/study/x")] {
        let inside = Client::open(&StoreSettings { folder_id: Some(folder.into()), ..store(&server) }, settings()).unwrap();
        assert_eq!(names(&inside, ""), [name]);
        assert_eq!(read(&inside, name), b"x");
        let other = format!("{name}-2");
        put(&inside, &other, b"y");
        assert_eq!(names(&inside, ""), [name, &other]);
        inside.delete(&other).unwrap();
        assert!(names(&inside, "nowhere").is_empty());
    }
    for (folder, kind) in [("id:none", Kind::ObjectNotFound), ("ns:78", Kind::AccessDenied)] {
        let error = list_error(&StoreSettings { folder_id: Some(folder.into()), ..store(&server) });
        assert_eq!(error.kind(), kind);
        assert!(error.detail().contains("cloud.folder_id"), "{error}");
    }
}

#[test]
fn nothing_of_a_folder_is_lost_to_another_case() {
    let server = DropboxServer::start();
    for name in ["/Site/Study/Series/A.smpp", "/Site/Study/b", "/Site/Studyx"] {
        server.state().write(name, b"1".to_vec());
    }
    server.state().shouts = true;
    let client = client(&server);
    assert_eq!(names(&client, "Site/Study"), ["Site/Study/Series/A.smpp", "Site/Study/b"]);
    assert_eq!(names(&client, "site/study"), ["site/study/Series/A.smpp", "site/study/b"]);
    assert_eq!(read(&client, "site/study/series/a.smpp"), b"1");
    let error = client.upload("SITE/study/B", Replace::Never).err().unwrap();
    assert_eq!(error.kind(), Kind::ObjectExists, "a name in another case is the same name");
}

#[test]
fn a_folder_is_no_object_and_is_not_removed_as_one() {
    let server = DropboxServer::start();
    server.state().write("/study/x", b"1".to_vec());
    let client = client(&server);
    client.delete("study").unwrap();
    assert_eq!(names(&client, ""), ["study/x"]);
    assert_eq!(client.head("study", &Control::new()).unwrap_err().kind(), Kind::ObjectNotFound);
    assert_eq!(fetch_one(&client, "study", "v", 0..1).unwrap_err().kind(), Kind::ObjectNotFound);
    assert_eq!(upload(&client, "study", b"1", Replace::Allowed).unwrap_err().kind(), Kind::StoreUnwritable);
    assert_eq!(upload(&client, "study/x/y", b"1", Replace::Never).unwrap_err().kind(), Kind::StoreUnwritable);
}

#[test]
fn names_that_lead_elsewhere_are_refused_before_anything_is_sent() {
    let server = DropboxServer::start();
    let client = client(&server);
    for name in ["a/../b", "./a", "a//b"] {
        assert_eq!(client.head(name, &Control::new()).unwrap_err().kind(), Kind::UnsafePath, "{name}");
        assert_eq!(client.list(name, &Control::new()).unwrap_err().kind(), Kind::UnsafePath, "{name}");
        assert_eq!(client.upload(name, Replace::Never).err().unwrap().kind(), Kind::UnsafePath, "{name}");
        assert_eq!(client.delete(name).unwrap_err().kind(), Kind::UnsafePath, "{name}");
    }
    assert!(server.state().seen.is_empty());
}

#[test]
fn a_refresh_token_gets_tokens_and_gets_another_when_one_ends() {
    let server = DropboxServer::start();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("dropbox.json");
    let write = |refresh: &str| {
        let uri = format!("{}/oauth2/token", server.http.endpoint);
        let app = serde_json::json!({ "refresh_token": refresh, "client_id": "app-key", "client_secret": "s&=", "token_uri": uri });
        store_contract::write_secret(&file, &app.to_string());
    };
    write("good-refresh");
    let by_file = StoreSettings { access_token: None, credentials_path: Some(file.clone()), ..store(&server) };
    let client = Client::open(&by_file, settings()).unwrap();
    put(&client, "study/x", b"0123456789");
    assert_eq!(read(&client, "study/x"), b"0123456789");
    assert_eq!(server.state().grants.len(), 1, "one token for all");
    assert!(server.state().grants[0].contains("client_secret=s%26%3D"));
    for _ in 0..2 {
        server.state().tokens.clear();
        assert_eq!(names(&client, "study"), ["study/x"]);
    }
    assert_eq!(server.state().grants.len(), 3);
    write("canary");
    let error = list_error(&by_file);
    assert_eq!(error.kind(), Kind::AccessDenied);
    assert!(!error.to_string().contains("canary"));
}

#[test]
fn credentials_that_do_not_serve_are_told_apart() {
    let server = DropboxServer::start();
    let wrong = list_error(&StoreSettings { access_token: token("canary"), ..store(&server) });
    assert_eq!(wrong.kind(), Kind::AccessDenied);
    assert!(wrong.hint().unwrap().contains("refresh token") && !wrong.to_string().contains("canary"));
    fail(&server, "list_folder", Fault::Answer(error(401, "missing_scope")));
    let scope = list_error(&store(&server));
    assert!(scope.kind() == Kind::AccessDenied && scope.detail().contains("scope"), "{scope}");
    let none = StoreSettings { access_token: None, ..store(&server) };
    assert_eq!(Client::open(&none, settings()).err().unwrap().kind(), Kind::CredentialsMissing);
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("dropbox.json");
    for (text, kind) in [
        ("{}", Kind::CredentialsMissing),
        ("{\"refresh_token\": \"r\", \"client_id\": \"c\", \"token_uri\": \"http://dropbox.example.org/token\"}", Kind::ConfigInvalidValue),
    ] {
        store_contract::write_secret(&file, text);
        let by_file = StoreSettings { credentials_path: Some(file.clone()), ..none.clone() };
        assert_eq!(Client::open(&by_file, settings()).err().unwrap().kind(), kind, "{text}");
    }
}

#[test]
fn a_setting_that_cannot_be_used_is_refused_by_its_key() {
    let server = DropboxServer::start();
    let refuse = |store: StoreSettings, key: &str| {
        let error = Client::open(&store, settings()).err().expect(key);
        assert_eq!(error.kind(), Kind::ConfigInvalidValue, "{key}");
        assert!(error.detail().starts_with(key), "{error}");
    };
    refuse(StoreSettings { bucket: "x".into(), ..store(&server) }, "cloud.bucket");
    refuse(StoreSettings { region: Some("x".into()), ..store(&server) }, "cloud.region");
    refuse(StoreSettings { is_requester_pays: true, ..store(&server) }, "cloud.requester_pays");
    refuse(StoreSettings { folder_id: Some("/Studies".into()), ..store(&server) }, "cloud.folder_id");
    refuse(StoreSettings { endpoint: Some("http://dropbox.example.org".into()), ..store(&server) }, "cloud.endpoint");
}

#[test]
fn a_store_that_wants_to_be_left_alone_is_and_then_serves() {
    let server = DropboxServer::start();
    let client = patient(&server);
    put(&client, "study/x", b"0123456789");
    for route in ["list_folder", "get_metadata", "download"] {
        let busy =
            Response::builder().status(429).header("retry-after", "0").body(Bytes::from("{\"error_summary\": \"too_many_requests/..\"}"));
        fail(&server, route, Fault::Answer(busy.unwrap()));
        fail(&server, route, Fault::Answer(empty(503)));
    }
    assert_eq!(names(&client, "study"), ["study/x"]);
    assert_eq!(read(&client, "study/x"), b"0123456789");
    assert_eq!(client.meter().retries(), 6);
}

#[test]
fn an_upload_goes_on_where_the_store_stopped() {
    let server = DropboxServer::start();
    let client = patient(&server);
    let bytes = pattern((20 << 20) + 5);
    fail(&server, "upload_session/start", Fault::Answer(empty(500)));
    // Arrived, and the answer did not; refused; changed on the way; refused at the end; arrived with the end and was not published.
    fail(&server, "append_v2", Fault::Lost);
    fail(&server, "append_v2", Fault::Answer(error(409, "too_many_write_operations")));
    fail(&server, "append_v2", Fault::Bent);
    fail(&server, "finish", Fault::Answer(error(409, "too_many_write_operations")));
    server.state().busy = 1;
    upload(&client, "large", &bytes, Replace::Never).unwrap();
    assert!(read(&client, "large") == bytes);
    assert!(server.state().faults.is_empty() && server.state().busy == 0, "all that was to go wrong did");
}

#[test]
fn an_answer_that_was_lost_does_not_turn_an_object_into_somebody_elses() {
    let server = DropboxServer::start();
    let client = patient(&server);
    for (name, size, route) in [("small", 5, "files/upload"), ("large", 20 << 20, "upload_session/finish")] {
        fail(&server, route, Fault::Lost);
        let bytes = pattern(size);
        upload(&client, name, &bytes, Replace::Never).unwrap();
        assert!(read(&client, name) == bytes);
        // A new version that replaces a certain one, likewise.
        let version = client.head(name, &Control::new()).unwrap().version;
        fail(&server, route, Fault::Lost);
        let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
        upload(&client, name, &other, Replace::Version(version)).unwrap();
        assert!(read(&client, name) == other);
    }
}

#[test]
fn a_session_that_ended_is_an_error_and_nothing_appears() {
    let server = DropboxServer::start();
    let client = patient(&server);
    fail(&server, "append_v2", Fault::Answer(error(409, "not_found")));
    let error = upload(&client, "large", &pattern(20 << 20), Replace::Never).unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::StoreUnwritable, "the upload session has ended at the store"));
    assert!(names(&client, "").is_empty());
}

#[test]
fn an_object_that_differs_from_what_was_sent_is_removed() {
    let server = DropboxServer::start();
    let client = client(&server);
    let other = serde_json::json!({ "name": "x", "path_lower": "/x", "rev": "123456789", "size": 5, "content_hash": "0".repeat(64) });
    fail(&server, "files/upload", Fault::Answer(json(200, &other)));
    let error = upload(&client, "x", b"12345", Replace::Never).unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::StoreUnwritable, "what the store has is not what was sent"));
    assert_eq!(server.count("delete_v2"), 1);
}

#[test]
fn refusals_of_a_write_have_their_reasons() {
    let server = DropboxServer::start();
    let client = client(&server);
    for (summary, kind) in [
        ("path/insufficient_space", Kind::StoreUnwritable),
        ("path/disallowed_name", Kind::UnsafePath),
        ("path/malformed_path", Kind::UnsafePath),
        ("path/no_write_permission", Kind::AccessDenied),
        ("path/too_many_write_operations", Kind::ServerFailed),
        ("payload_too_large", Kind::StoreUnwritable),
        ("something/new", Kind::StoreUnwritable),
    ] {
        fail(&server, "files/upload", Fault::Answer(error(409, summary)));
        assert_eq!(upload(&client, "jones", b"1", Replace::Never).unwrap_err().kind(), kind, "{summary}");
    }
    put(&client, "x", b"1");
    fail(&server, "download", Fault::Answer(error(409, "path/restricted_content")));
    assert_eq!(client.read_small("x", 9, &Control::new()).unwrap_err().kind(), Kind::AccessDenied);
}

#[test]
fn bytes_of_another_range_or_version_are_not_taken() {
    let server = DropboxServer::start();
    let client = client(&server);
    put_as(&client, "x", b"0123456789", Replace::Never);
    let version = client.head("x", &Control::new()).unwrap().version;
    let about = |rev: &str| format!("{{\"name\": \"x\", \"rev\": \"{rev}\", \"size\": 10}}");
    let reply = |status: u16, range: Option<&str>, about: Option<String>, body: &'static str| {
        let mut answer = Response::builder().status(status);
        for (name, value) in [("content-range", range.map(str::to_owned)), ("dropbox-api-result", about)] {
            if let Some(value) = value {
                answer = answer.header(name, value);
            }
        }
        Fault::Answer(answer.body(Bytes::from(body)).unwrap())
    };
    for (fault, kind) in [
        (reply(200, None, Some(about(&version)), "2345678901"), Kind::TransferInterrupted),
        (reply(200, Some("bytes 2-4/10"), Some(about(&version)), "234"), Kind::TransferInterrupted),
        (reply(206, Some("bytes 0-2/10"), Some(about(&version)), "012"), Kind::TransferInterrupted),
        (reply(206, Some("bytes 2-4/10"), Some(about(&version)), "23"), Kind::TransferInterrupted),
        (reply(206, Some("bytes 2-4/10"), Some(about("000000000")), "234"), Kind::ObjectChanged),
        (reply(206, Some("bytes 2-4/10"), None, "234"), Kind::ServerFailed),
    ] {
        fail(&server, "download", fault);
        assert_eq!(fetch_one(&client, "x", &version, 2..5).unwrap_err().kind(), kind);
    }
    assert_eq!(fetch_one(&client, "x", &version, 2..5).unwrap(), b"234");
}

#[test]
fn a_listing_without_an_end_is_given_up() {
    let page = serde_json::json!({ "entries": [], "cursor": "again", "has_more": true });
    let server = HttpServer::start(move |_| json(200, &page));
    let endpoint = Some(server.endpoint.clone());
    let store = StoreSettings { provider: "dropbox".into(), endpoint, access_token: token("t"), ..StoreSettings::default() };
    let error = list_error(&store);
    assert_eq!((error.kind(), error.detail()), (Kind::ServerFailed, "the store sent a listing without an end"));
}
