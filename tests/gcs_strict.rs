//! The Cloud Storage store against a bucket in this process that is as strict as Google says it is, and fails when it is told to.

#[path = "support/gcs_server.rs"]
mod gcs_server;
#[path = "support/http_server.rs"]
mod http_server;
#[path = "support/store_contract.rs"]
mod store_contract;

use std::sync::Arc;
use std::time::Duration;

use gcs_server::{BUCKET, Fault, GcsServer, error};
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

fn store(server: &GcsServer) -> StoreSettings {
    StoreSettings {
        provider: "gcs".into(),
        bucket: BUCKET.into(),
        endpoint: Some(server.http.endpoint.clone()),
        access_token: token("good-token"),
        ..StoreSettings::default()
    }
}

fn client(server: &GcsServer) -> Client {
    Client::open(&store(server), settings()).unwrap()
}

fn patient(server: &GcsServer) -> Client {
    Client::open(&store(server), ClientSettings { retries: 3, ..settings() }).unwrap()
}

fn fail(server: &GcsServer, method: &'static str, part: &'static str, fault: Fault) {
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

#[test]
fn it_does_what_every_store_must_do() {
    let server = GcsServer::start();
    server.state().page = 100;
    store_contract::check(&client(&server), &Extent::default());
    assert_eq!(server.sessions(), 0, "no session is left open");
}

#[test]
fn a_refused_credential_says_what_to_do() {
    let server = GcsServer::start();
    let wrong = list_error(&StoreSettings { access_token: token("canary"), ..store(&server) });
    assert_eq!(wrong.kind(), Kind::AccessDenied);
    assert!(wrong.hint().unwrap().contains("credentials_path") && !wrong.to_string().contains("canary"), "{wrong}");
    for (reason, part) in [("insufficientPermissions", "scope"), ("forbidden", "403")] {
        fail(&server, "GET", "/o?", Fault::Answer(error(403, reason)));
        let refused = list_error(&store(&server));
        assert!(refused.kind() == Kind::AccessDenied && refused.detail().contains(part), "{refused}");
    }
    let nowhere = list_error(&StoreSettings { bucket: "elsewhere".into(), ..store(&server) });
    assert!(nowhere.kind() == Kind::ObjectNotFound && nowhere.detail().contains("cloud.bucket"), "{nowhere}");
}

#[test]
fn an_emulator_on_this_machine_is_sent_no_credentials() {
    let server = GcsServer::start();
    server.state().tokens.clear();
    let anonymous = Client::open(&StoreSettings { access_token: None, ..store(&server) }, settings()).unwrap();
    put(&anonymous, "x", b"1");
    assert_eq!(read(&anonymous, "x"), b"1");
}

#[test]
fn a_setting_that_cannot_be_used_is_refused_by_its_key() {
    let server = GcsServer::start();
    let refuse = |store: StoreSettings, key: &str| {
        let error = Client::open(&store, settings()).err().expect(key);
        assert_eq!(error.kind(), Kind::ConfigInvalidValue, "{key}");
        assert!(error.detail().starts_with(key), "{error}");
    };
    refuse(StoreSettings { region: Some("x".into()), ..store(&server) }, "cloud.region");
    refuse(StoreSettings { folder_id: Some("x".into()), ..store(&server) }, "cloud.folder_id");
    refuse(StoreSettings { endpoint: Some("http://storage.example.org".into()), ..store(&server) }, "cloud.endpoint");
    refuse(StoreSettings { is_requester_pays: true, ..store(&server) }, "cloud.requester_pays");
    for bucket in ["", "gs://studies", "studies/folder", "Studies", "st"] {
        refuse(StoreSettings { bucket: bucket.into(), ..store(&server) }, "cloud.bucket");
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused_before_anything_is_sent() {
    let server = GcsServer::start();
    let client = client(&server);
    let long = "x".repeat(1_025);
    for name in ["a/../b", "./a", "a\nb", "a\u{7f}", ".well-known/acme-challenge/x", &long] {
        assert_eq!(client.head(name, &Control::new()).unwrap_err().kind(), Kind::UnsafePath, "{name}");
        assert_eq!(client.upload(name, Replace::Never).err().unwrap().kind(), Kind::UnsafePath, "{name}");
        assert_eq!(client.delete(name).unwrap_err().kind(), Kind::UnsafePath, "{name}");
    }
    assert!(server.state().seen.is_empty());
}

#[test]
fn a_store_that_wants_to_be_left_alone_is_and_then_serves() {
    let server = GcsServer::start();
    let client = patient(&server);
    put(&client, "study/x", b"0123456789");
    for part in ["/o?", "fields=name", "alt=media"] {
        let busy = Response::builder().status(429).header("retry-after", "0").body(Bytes::new()).unwrap();
        fail(&server, "GET", part, Fault::Answer(busy));
        fail(&server, "GET", part, Fault::Answer(error(403, "rateLimitExceeded")));
    }
    assert_eq!(names(&client, "study"), ["study/x"]);
    assert_eq!(read(&client, "study/x"), b"0123456789");
    assert_eq!(client.meter().retries(), 6);
}

#[test]
fn an_upload_goes_on_where_the_store_stopped() {
    let server = GcsServer::start();
    let client = patient(&server);
    let bytes = pattern((20 << 20) + 5);
    fail(&server, "POST", "resumable", Fault::Answer(empty(503)));
    // Arrived in part; arrived and the answer did not; refused, and the question after it too; the same with the end.
    fail(&server, "PUT", "upload_id", Fault::Half(3 << 18));
    fail(&server, "PUT", "upload_id", Fault::Answer(empty(503)));
    fail(&server, "PUT", "upload_id", Fault::Lost);
    upload(&client, "large", &bytes, Replace::Never).unwrap();
    assert!(read(&client, "large") == bytes);
    assert!(server.state().faults.is_empty() && server.sessions() == 0, "all that was to go wrong did");
}

#[test]
fn an_answer_that_was_lost_does_not_turn_an_object_into_somebody_elses() {
    let server = GcsServer::start();
    let client = patient(&server);
    for (name, size) in [("small", 5), ("large", 8 << 20)] {
        let bytes = pattern(size);
        fail(&server, "POST", "multipart", Fault::Lost);
        upload(&client, name, &bytes, Replace::Never).unwrap();
        assert!(read(&client, name) == bytes);
        // A new version that replaces a certain one, likewise.
        fail(&server, "POST", "multipart", Fault::Lost);
        let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
        upload(&client, name, &other, Replace::Version(version(&client, name))).unwrap();
        assert!(read(&client, name) == other);
    }
    // Somebody else's is not taken for ours, though as long.
    fail(&server, "POST", "multipart", Fault::Answer(empty(503)));
    fail(&server, "POST", "multipart", Fault::Overtaken("race"));
    assert_eq!(upload(&client, "race", b"by nobody else..", Replace::Never).unwrap_err().kind(), Kind::ObjectExists);
}

#[test]
fn the_end_of_a_session_whose_answer_was_lost_is_found() {
    let server = GcsServer::start();
    let client = patient(&server);
    let bytes = pattern((8 << 20) + 1);
    fail(&server, "PUT", "upload_id", Fault::Lost);
    fail(&server, "PUT", "upload_id", Fault::Lost);
    upload(&client, "known", &bytes, Replace::Never).unwrap();
    assert!(read(&client, "known") == bytes);
    // The session forgot, too.
    let mut upload = client.upload("forgotten", Replace::Never).unwrap();
    upload.write(bytes.clone()).unwrap();
    fail(&server, "PUT", "upload_id", Fault::Lost);
    fail(&server, "PUT", "upload_id", Fault::Answer(error(410, "gone")));
    upload.finish().unwrap();
    assert!(read(&client, "forgotten") == bytes);
}

#[test]
fn a_session_that_ended_is_an_error_and_nothing_appears() {
    let server = GcsServer::start();
    let client = patient(&server);
    for status in [404, 410] {
        fail(&server, "PUT", "upload_id", Fault::Answer(error(status, "gone")));
        let error = upload(&client, "large", &pattern(20 << 20), Replace::Never).unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::StoreUnwritable, "the upload session has ended at the store"));
    }
    assert!(names(&client, "").is_empty());
}

#[test]
fn a_race_at_the_end_of_a_session_is_lost() {
    let server = GcsServer::start();
    let client = client(&server);
    put(&client, "header", b"first");
    let first = version(&client, "header");
    for (name, replace, kind) in [("new", Replace::Never, Kind::ObjectExists), ("header", Replace::Version(first), Kind::ObjectChanged)] {
        let mut upload = client.upload(name, replace).unwrap();
        upload.write(pattern(9 << 20)).unwrap();
        fail(&server, "PUT", "upload_id", Fault::Overtaken(name));
        assert_eq!(upload.finish().unwrap_err().kind(), kind);
        assert_eq!(read(&client, name), b"by somebody else");
    }
}

#[test]
fn an_object_that_differs_from_what_was_sent_is_removed() {
    let server = GcsServer::start();
    let client = client(&server);
    for (size, crc32c) in [("5", "AAAAAA=="), ("4", "HAyf0g==")] {
        let other = serde_json::json!({ "name": "x", "size": size, "generation": "17", "crc32c": crc32c });
        fail(&server, "POST", "multipart", Fault::Answer(json(200, &other)));
        let error = upload(&client, "x", b"12345", Replace::Never).unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::StoreUnwritable, "what the store has is not what was sent"));
        assert_eq!(server.state().seen.pop().unwrap(), "DELETE /storage/v1/b/studies/o/x?ifGenerationMatch=17");
    }
}

#[test]
fn whoever_may_only_write_can_write() {
    let server = GcsServer::start();
    let client = client(&server);
    server.state().write("taken", b"1".to_vec(), serde_json::Value::Null);
    for (name, expected) in [("free", None), ("taken", Some(Kind::ObjectExists))] {
        fail(&server, "GET", "fields=name", Fault::Answer(error(403, "forbidden")));
        assert_eq!(upload(&client, name, b"2", Replace::Never).err().map(|error| error.kind()), expected);
    }
}

#[test]
fn refusals_of_a_write_have_their_reasons() {
    let server = GcsServer::start();
    let client = client(&server);
    for (status, reason, kind) in [
        (403, "retentionPolicyNotMet", Kind::StoreUnwritable),
        (403, "quotaExceeded", Kind::StoreUnwritable),
        (403, "userRateLimitExceeded", Kind::ServerFailed),
        (403, "userProjectAccessDenied", Kind::AccessDenied),
        (403, "forbidden", Kind::AccessDenied),
        (400, "userProjectMissing", Kind::AccessDenied),
        (404, "notFound", Kind::StoreUnwritable),
        (409, "conflict", Kind::ServerFailed),
        (413, "uploadTooLarge", Kind::StoreUnwritable),
        (429, "rateLimitExceeded", Kind::ServerFailed),
        (400, "something new", Kind::StoreUnwritable),
    ] {
        fail(&server, "POST", "multipart", Fault::Answer(error(status, reason)));
        let error = upload(&client, "jones", b"1", Replace::Never).unwrap_err();
        assert_eq!(error.kind(), kind, "{reason}");
        assert!(!error.to_string().contains("jones") && !error.to_string().contains("canary"), "{error}");
    }
}

#[test]
fn bytes_of_another_range_or_version_are_not_taken() {
    let server = GcsServer::start();
    let client = client(&server);
    put_as(&client, "x", b"0123456789", Replace::Never);
    let version = version(&client, "x");
    let reply = |status: u16, range: Option<&str>, generation: Option<&str>, body: &'static str| {
        let mut answer = Response::builder().status(status);
        for (name, value) in [("content-range", range), ("x-goog-generation", generation)] {
            if let Some(value) = value {
                answer = answer.header(name, value);
            }
        }
        Fault::Answer(answer.body(Bytes::from(body)).unwrap())
    };
    for (fault, kind) in [
        (reply(200, None, Some(&version), "0123456789"), Kind::TransferInterrupted),
        (reply(200, Some("bytes 2-4/10"), Some(&version), "234"), Kind::TransferInterrupted),
        (reply(206, Some("bytes 0-2/10"), Some(&version), "012"), Kind::TransferInterrupted),
        (reply(206, Some("bytes 2-4/10"), Some(&version), "23"), Kind::TransferInterrupted),
        (reply(206, Some("bytes 2-4/10"), Some("17"), "234"), Kind::ObjectChanged),
        (reply(206, Some("bytes 2-4/10"), None, "234"), Kind::ServerFailed),
        (Fault::Answer(error(412, "conditionNotMet")), Kind::ObjectChanged),
    ] {
        fail(&server, "GET", "alt=media", fault);
        assert_eq!(fetch_one(&client, "x", &version, 2..5).unwrap_err().kind(), kind);
    }
    assert_eq!(fetch_one(&client, "x", &version, 2..5).unwrap(), b"234");
    let asked = server.state().seen.last().unwrap().clone();
    assert!(asked.ends_with(&format!("?alt=media&ifGenerationMatch={version}")), "the store decides, not we: {asked}");
}

#[test]
fn a_listing_is_not_believed_everything() {
    let item = |name: &str, size: &str, generation: &str| serde_json::json!({ "name": name, "size": size, "generation": generation });
    for (items, next, expected) in [
        (vec![item("a", "1", "7"), item("a", "1", "7")], None, None),
        (vec![item("a", "1", "7"), item("a", "1", "8")], None, Some(Kind::ServerFailed)),
        (vec![item("a", "-1", "7")], None, Some(Kind::ServerFailed)),
        (vec![item("a", "1", "x/../7")], None, Some(Kind::ServerFailed)),
        (vec![item("a", "1", "0")], None, Some(Kind::ServerFailed)),
        (vec![], Some("again"), Some(Kind::ServerFailed)),
    ] {
        let page = serde_json::json!({ "items": items, "nextPageToken": next });
        let server = HttpServer::start(move |_| json(200, &page));
        let store = StoreSettings {
            provider: "gcs".into(),
            bucket: BUCKET.into(),
            endpoint: Some(server.endpoint.clone()),
            ..StoreSettings::default()
        };
        let listed = Client::open(&store, settings()).unwrap().list("", &Control::new());
        assert_eq!(listed.as_ref().err().map(Error::kind), expected);
        assert!(listed.is_err() || listed.unwrap().len() == 1);
    }
    let page = serde_json::json!({ "items": [item("other/a", "1", "7")] });
    let server = HttpServer::start(move |_| json(200, &page));
    let endpoint = Some(server.endpoint.clone());
    let store = StoreSettings { provider: "gcs".into(), bucket: BUCKET.into(), endpoint, ..StoreSettings::default() };
    assert_eq!(list_error(&store).kind(), Kind::ServerFailed, "what was not asked for");
}

#[test]
fn the_project_of_the_credentials_pays_for_every_request() {
    let server = GcsServer::start();
    server.state().payer = Some("project-7".into());
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("person.json");
    let person = serde_json::json!({
        "type": "authorized_user", "client_id": "c", "refresh_token": "r", "quota_project_id": "project-7",
        "token_uri": format!("{}/token", server.http.endpoint),
    });
    store_contract::write_secret(&file, &person.to_string());
    let unpaid = StoreSettings { access_token: None, credentials_path: Some(file), ..store(&server) };
    let refused = list_error(&unpaid);
    assert!(refused.kind() == Kind::AccessDenied && refused.hint().unwrap().contains("cloud.requester_pays"), "{refused}");
    let paid = Client::open(&StoreSettings { is_requester_pays: true, ..unpaid }, settings()).unwrap();
    for (name, size) in [("study/x", 10), ("study/y", 9 << 20)] {
        put(&paid, name, &pattern(size));
        assert!(read(&paid, name) == pattern(size));
    }
    assert_eq!(names(&paid, "study"), ["study/x", "study/y"]);
    // A token that ends is renewed on the way.
    server.state().tokens = vec!["another".into()];
    paid.delete("study/x").unwrap();
    assert_eq!(names(&paid, "study"), ["study/y"]);
    assert_eq!(server.state().grants.len(), 3);
}
