//! The Azure store against Microsoft's own emulator, and against a server of ours for what an emulator does not do.

#[path = "support/azurite.rs"]
mod azurite;
#[path = "support/http_server.rs"]
mod http_server;
#[path = "support/store_contract.rs"]
mod store_contract;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use azurite::Azurite;
use http_server::{HttpServer, empty, json, ranged, ranged_body};
use hyper::body::Bytes;
use hyper::{Request, Response};
use smp::control::Control;
use smp::error::Kind;
use smp::secret::Secret;
use smp::transfer::{Client, ClientSettings, Replace, StoreSettings};
use store_contract::{Extent, fetch_one, names, pattern, put, put_as, read};

// Made by generate_container_sas of the Python package azure-storage-blob 12.31.1 for the emulator's account, its public key and the container
// `studies`; the last two hold until 2999 and 2021.
const SAS_READ_WRITE: &str = "st=2020-01-01T00%3A00%3A00Z&se=2999-01-01T00%3A00%3A00Z&sp=rcwdl&spr=https%2Chttp&sv=2021-12-02&sr=c&sig=%2Btp0w1kHjtBHcQR%2BHEC28%2BIHksE9MzUmU08bcR0wZYM%3D";
const SAS_READ: &str = "st=2020-01-01T00%3A00%3A00Z&se=2999-01-01T00%3A00%3A00Z&sp=rl&spr=https%2Chttp&sv=2021-12-02&sr=c&sig=1CFef37lOLfEkEvGA/A65KSCPV6PMlPmps/N24bERng%3D";
const SAS_EXPIRED: &str = "st=2020-01-01T00%3A00%3A00Z&se=2021-01-01T00%3A00%3A00Z&sp=rl&spr=https%2Chttp&sv=2021-12-02&sr=c&sig=Z7Yd%2BxiBJFnokGcDYVhmwvZyHek0q3aF%2BO0952s5YP8%3D";
/// Of the account, for making containers; by the formula of "Create an account SAS".
const SAS_OF_ACCOUNT: &str = "sv=2021-12-02&ss=b&srt=c&sp=c&st=2020-01-01T00%3A00%3A00Z&se=2999-01-01T00%3A00%3A00Z&spr=https%2Chttp&sig=gWTebprJmA3wLA44MIMfMwzuRDrzIo5zVJyU%2Fcz%2F4ew%3D";

fn settings() -> ClientSettings {
    ClientSettings { retries: 0, timeout: Duration::from_secs(20), ..ClientSettings::default() }
}

struct Bench {
    place: tempfile::TempDir,
    server: Azurite,
}

impl Bench {
    /// An emulator with the container `studies`.
    fn new() -> Option<Bench> {
        let bench = Bench { place: tempfile::tempdir().unwrap(), server: Azurite::start()? };
        let (host, path) = bench.server.endpoint.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut socket = std::net::TcpStream::connect(host).unwrap();
        let head = format!("PUT /{path}/studies?restype=container&{SAS_OF_ACCOUNT} HTTP/1.1\r\nHost: {host}\r\n");
        socket.write_all(format!("{head}x-ms-version: 2021-12-02\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        Some(bench)
    }

    fn store(&self, credentials: &str) -> StoreSettings {
        StoreSettings {
            provider: "azure".into(),
            bucket: "studies".into(),
            credentials_path: Some(secret_file(&self.place, credentials)),
            ..StoreSettings::default()
        }
    }

    fn client(&self) -> Client {
        Client::open(&self.store(&self.server.connection_string()), settings()).unwrap()
    }
}

fn secret_file(place: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = place.path().join(format!("{:x}", text.len()));
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn it_does_what_every_store_must_do_with_the_accounts_key() {
    let Some(bench) = Bench::new() else { return };
    let client = bench.client();
    assert!(client.describe().starts_with("azure://127.0.0.1:") && client.describe().ends_with("/devstoreaccount1/studies"));
    assert_eq!(client.credentials(&Control::new()).unwrap(), "an account key, cloud.credentials_path");
    store_contract::check(&client, &Extent { many: 1_234, large: 20 << 20, refuses_late: true, ..Extent::default() });
}

#[test]
fn a_shared_access_signature_opens_what_it_is_for() {
    let Some(bench) = Bench::new() else { return };
    let open = |sas: &str| Client::open(&bench.store(&format!("{}/studies?{sas}", bench.server.endpoint)), settings()).unwrap();
    let hospital = open(SAS_READ_WRITE);
    put(&hospital, "study/Schädel 1+2", b"0123456789");
    put(&hospital, "study/large", &pattern(9 << 20));
    let researcher = open(SAS_READ);
    assert_eq!(names(&researcher, "study"), ["study/Schädel 1+2", "study/large"]);
    assert_eq!(read(&researcher, "study/Schädel 1+2"), b"0123456789");
    let mut refused = vec![researcher.delete("study/large").unwrap_err()];
    let mut upload = researcher.upload("other", Replace::Never).unwrap();
    upload.write(b"x".to_vec()).unwrap();
    refused.push(upload.finish().unwrap_err());
    let expired = open(SAS_EXPIRED);
    refused.push(expired.list("", &Control::new()).unwrap_err());
    refused.push(expired.head("study/large", &Control::new()).unwrap_err());
    for error in refused {
        assert_eq!(error.kind(), Kind::AccessDenied, "{error}");
        assert!(!error.to_string().contains("sig") && !error.to_string().contains("study"), "{error}");
    }
}

#[test]
fn wrong_keys_and_missing_containers_are_told_apart() {
    let Some(bench) = Bench::new() else { return };
    let wrong = bench.server.connection_string().replace(azurite::KEY, "Y2FuYXJ5");
    let error = Client::open(&bench.store(&wrong), settings()).unwrap().list("", &Control::new()).unwrap_err();
    assert_eq!(error.kind(), Kind::AccessDenied);
    assert!(!error.to_string().contains("Y2FuYXJ5"));
    let store = StoreSettings { bucket: "nowhere".into(), ..bench.store(&bench.server.connection_string()) };
    let client = Client::open(&store, settings()).unwrap();
    let error = client.list("", &Control::new()).unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::ObjectNotFound, "the container does not exist"));
    assert_eq!(client.upload("x", Replace::Never).unwrap().finish().unwrap_err().kind(), Kind::ObjectNotFound);
}

#[test]
fn names_that_the_service_would_change_are_refused() {
    let Some(bench) = Bench::new() else { return };
    let client = bench.client();
    for name in ["a/../b", "./a", "a.", "a./b"] {
        assert_eq!(client.head(name, &Control::new()).unwrap_err().kind(), Kind::UnsafePath, "{name}");
        assert_eq!(client.upload(name, Replace::Never).err().unwrap().kind(), Kind::UnsafePath, "{name}");
    }
    for name in ["a//b", " a", "a b ", ".a", "...a", "&lt;", "%2F", "\u{202e}x", "a\\b"] {
        put(&client, name, name.as_bytes());
        assert_eq!(read(&client, name), name.as_bytes());
    }
}

#[test]
fn two_uploads_of_one_name_do_not_mix() {
    let Some(bench) = Bench::new() else { return };
    let client = bench.client();
    let size = 20 << 20;
    let mut uploads: Vec<_> = (0..2).map(|_| client.upload("x", Replace::Allowed).unwrap()).collect();
    for (number, upload) in uploads.iter_mut().enumerate() {
        upload.write(vec![number as u8; size]).unwrap();
    }
    let second = uploads.pop().unwrap();
    second.finish().unwrap();
    // The blocks of the first are gone, or they are all there.
    match uploads.pop().unwrap().finish() {
        Ok(_) => assert!(read(&client, "x") == vec![0; size]),
        Err(error) => {
            assert_eq!(error.kind(), Kind::StoreUnwritable);
            assert!(read(&client, "x") == vec![1; size]);
        }
    }
    put_as(&client, "x", b"after", Replace::Allowed);
}

/// A store of one object, `studies/x`, whose answers a test may replace.
fn stand_in(special: impl Fn(&Request<Bytes>) -> Option<Response<Bytes>> + Send + Sync + 'static) -> HttpServer {
    HttpServer::start(move |request| {
        if let Some(answer) = special(&request) {
            return answer;
        }
        let object = b"0123456789";
        let known = request.uri().path() == "/studies/x";
        match (request.method().as_str(), known) {
            ("GET", true) => ranged(&request, object).header("etag", "\"0x1\"").body(ranged_body(&request, object)).unwrap(),
            ("HEAD", true) => Response::builder().header("etag", "\"0x1\"").header("content-length", 10).body(Bytes::new()).unwrap(),
            _ => refused(404, "BlobNotFound"),
        }
    })
}

fn refused(status: u16, code: &str) -> Response<Bytes> {
    Response::builder().status(status).header("x-ms-error-code", code).body(Bytes::from("<Error>canary</Error>")).unwrap()
}

fn over(server: &HttpServer, token: &str) -> StoreSettings {
    StoreSettings {
        provider: "azure".into(),
        bucket: "studies".into(),
        endpoint: Some(server.endpoint.clone()),
        access_token: Some(Arc::new(Secret::new(token.to_owned()))),
        ..StoreSettings::default()
    }
}

#[test]
fn a_token_is_fetched_used_and_renewed_when_it_is_refused() {
    let (issued, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (count, forms) = (Arc::clone(&issued), Arc::clone(&asked));
    let server = stand_in(move |request| {
        if request.uri().path() == "/token" {
            forms.lock().unwrap().push(String::from_utf8(request.body().to_vec()).unwrap());
            let token = format!("word-{}", count.fetch_add(1, Ordering::SeqCst) + 1);
            return Some(json(200, &serde_json::json!({"access_token": token, "expires_in": 3600})));
        }
        assert!(request.headers()["x-ms-version"] == "2021-12-02" && request.headers().contains_key("x-ms-date"));
        (request.headers()["authorization"] != "Bearer word-2").then(|| refused(401, "InvalidAuthenticationInfo"))
    });
    let place = tempfile::tempdir().unwrap();
    let app = serde_json::json!({"tenant": "t", "client_id": "app", "client_secret": "s&cret", "token_uri": format!("{}/token", server.endpoint)});
    let store = StoreSettings { access_token: None, credentials_path: Some(secret_file(&place, &app.to_string())), ..over(&server, "") };
    let client = Client::open(&store, settings()).unwrap();
    assert_eq!(read(&client, "x"), b"0123456789");
    assert_eq!(read(&client, "x"), b"0123456789");
    assert_eq!(issued.load(Ordering::SeqCst), 2, "one token, and one more after the refusal");
    let expected = "grant_type=client_credentials&client_id=app&client_secret=s%26cret&scope=https%3A%2F%2Fstorage.azure.com%2F.default";
    assert_eq!(asked.lock().unwrap()[0], expected);
    // A token that was given cannot be renewed.
    let error = Client::open(&over(&server, "canary"), settings()).unwrap().head("x", &Control::new()).unwrap_err();
    assert_eq!(error.kind(), Kind::AccessDenied);
    assert!(!error.to_string().contains("canary"));
}

#[test]
fn a_busy_service_is_asked_again_after_the_pause_that_it_wants() {
    let left = AtomicUsize::new(2);
    let server = stand_in(move |_| {
        let is_busy = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        is_busy.then(|| {
            Response::builder().status(503).header("x-ms-error-code", "ServerBusy").header("retry-after", "0").body(Bytes::new()).unwrap()
        })
    });
    let client = Client::open(&over(&server, "t"), ClientSettings { retries: 2, ..settings() }).unwrap();
    assert_eq!(fetch_one(&client, "x", "0x1", 2..5).unwrap(), b"234");
    assert_eq!(client.meter().retries(), 2);
}

#[test]
fn answers_that_are_not_what_was_asked_for_are_refused() {
    type Answer = fn(&Request<Bytes>) -> Response<Bytes>;
    let whole: Answer = |_| Response::builder().header("etag", "\"0x1\"").body(Bytes::from("0123456789")).unwrap();
    let other: Answer = |_| {
        Response::builder().status(206).header("etag", "\"0x1\"").header("content-range", "bytes 0-2/10").body(Bytes::from("012")).unwrap()
    };
    let replaced: Answer = |_| {
        Response::builder().status(206).header("etag", "\"0x2\"").header("content-range", "bytes 2-4/10").body(Bytes::from("234")).unwrap()
    };
    let short: Answer = |_| {
        Response::builder().status(206).header("etag", "\"0x1\"").header("content-range", "bytes 2-4/10").body(Bytes::from("23")).unwrap()
    };
    let changed: Answer = |_| refused(412, "ConditionNotMet");
    for (answer, expected) in [
        (whole, Kind::TransferInterrupted),
        (other, Kind::TransferInterrupted),
        (replaced, Kind::ObjectChanged),
        (short, Kind::TransferInterrupted),
        (changed, Kind::ObjectChanged),
    ] {
        let server = stand_in(move |request| {
            // A condition that fails is followed by a look whether there is an object at all.
            if request.method() == "HEAD" {
                return None;
            }
            assert_eq!(request.headers()["if-match"], "\"0x1\"");
            Some(answer(request))
        });
        let error = fetch_one(&Client::open(&over(&server, "t"), settings()).unwrap(), "x", "0x1", 2..5).unwrap_err();
        assert_eq!(error.kind(), expected);
        assert!(!error.to_string().contains("canary"));
    }
}

fn page(blobs: &[(&str, &str)], next: &str) -> Response<Bytes> {
    let blobs: String = blobs
        .iter()
        .map(|(name, e_tag)| {
            format!("<Blob><Name>{name}</Name><Properties><Etag>{e_tag}</Etag><Content-Length>1</Content-Length></Properties></Blob>")
        })
        .collect();
    let text = format!("<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>");
    Response::builder().body(Bytes::from(text)).unwrap()
}

#[test]
fn a_listing_ends_and_names_each_object_once() {
    let list = |answer: fn(bool) -> Response<Bytes>| {
        let server = stand_in(move |request| Some(answer(request.uri().query().unwrap().contains("marker"))));
        Client::open(&over(&server, "t"), settings()).unwrap().list("", &Control::new())
    };
    let twice = |is_second| if is_second { page(&[("b", "1"), ("c", "1")], "") } else { page(&[("a", "1"), ("b", "1")], "m") };
    assert_eq!(list(twice).unwrap().into_iter().map(|object| object.name).collect::<Vec<_>>(), ["a", "b", "c"]);
    let changed = |is_second| if is_second { page(&[("b", "2")], "") } else { page(&[("b", "1")], "m") };
    assert_eq!(list(changed).unwrap_err().kind(), Kind::ServerFailed);
    let endless = list(|_| page(&[("a", "1")], "m")).unwrap_err();
    assert_eq!((endless.kind(), endless.detail()), (Kind::ServerFailed, "the store sent a listing without an end"));
}

#[test]
fn a_lost_answer_to_a_conditional_write_is_no_conflict() {
    for is_ours in [true, false] {
        let word = Arc::new(Mutex::new(None::<String>));
        let seen = Arc::clone(&word);
        let server = stand_in(move |request| match request.method().as_str() {
            "PUT" => {
                assert_eq!(request.headers()["if-none-match"], "*");
                let mut seen = seen.lock().unwrap();
                let is_first = seen.is_none();
                *seen = Some(request.headers()["x-ms-meta-smpupload"].to_str().unwrap().to_owned());
                Some(if is_first { refused(500, "InternalError") } else { refused(409, "BlobAlreadyExists") })
            }
            "HEAD" => {
                let Some(seen) = seen.lock().unwrap().clone() else { return Some(refused(404, "BlobNotFound")) };
                let word = if is_ours { seen } else { "0".repeat(28) };
                Some(
                    Response::builder()
                        .header("etag", "\"0x7\"")
                        .header("x-ms-meta-smpupload", word)
                        .header("content-length", 3)
                        .body(Bytes::new())
                        .unwrap(),
                )
            }
            _ => None,
        });
        let client = Client::open(&over(&server, "t"), ClientSettings { retries: 2, ..settings() }).unwrap();
        let mut upload = client.upload("x", Replace::Never).unwrap();
        upload.write(b"abc".to_vec()).unwrap();
        let outcome = upload.finish().map(|object| object.version).map_err(|error| error.kind());
        assert_eq!(outcome, if is_ours { Ok("0x7".to_owned()) } else { Err(Kind::ObjectExists) });
    }
}

#[test]
fn settings_without_meaning_are_refused_by_their_key() {
    let server = stand_in(|_| Some(empty(500)));
    for (store, detail) in [
        (StoreSettings { region: Some("r".into()), ..over(&server, "t") }, "cloud.region means nothing to provider azure"),
        (StoreSettings { folder_id: Some("f".into()), ..over(&server, "t") }, "cloud.folder_id means nothing to provider azure"),
        (StoreSettings { is_requester_pays: true, ..over(&server, "t") }, "cloud.requester_pays means nothing to provider azure"),
        (StoreSettings { bucket: String::new(), ..over(&server, "t") }, "provider azure needs cloud.bucket, the name of the container"),
    ] {
        let error = Client::open(&store, settings()).err().expect(detail);
        assert_eq!((error.kind(), error.detail()), (Kind::ConfigInvalidValue, detail));
    }
}
