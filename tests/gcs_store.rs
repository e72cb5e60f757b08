//! The store of Google Cloud Storage: against fake-gcs-server, and against servers of the tests' own where a fault or a credential counts.

#[path = "support/fake_gcs.rs"]
mod fake_gcs;
#[path = "support/http_server.rs"]
mod http_server;
#[path = "support/store_contract.rs"]
mod store_contract;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fake_gcs::FakeGcs;
use http_server::{HttpServer, empty, json};
use hyper::body::Bytes;
use hyper::{Request, Response};
use serde_json::{Value, json};
use smp::control::Control;
use smp::error::Kind;
use smp::secret::Secret;
use smp::transfer::{Client, ClientSettings, Replace, StoreSettings};
use store_contract::{Extent, fetch_one, names};

fn settings() -> ClientSettings {
    ClientSettings { retries: 0, timeout: Duration::from_secs(20), ..ClientSettings::default() }
}

fn store(endpoint: &str) -> StoreSettings {
    StoreSettings { provider: "gcs".into(), bucket: "studies".into(), endpoint: Some(endpoint.into()), ..StoreSettings::default() }
}

fn with_token(endpoint: &str) -> StoreSettings {
    StoreSettings { access_token: Some(Arc::new(Secret::new("good-token".to_owned()))), ..store(endpoint) }
}

fn client(store: &StoreSettings) -> Client {
    Client::open(store, settings()).unwrap()
}

#[test]
fn it_does_what_every_store_must_do() {
    let Some(server) = FakeGcs::start() else { return };
    store_contract::check(
        &client(&with_token(&server.endpoint)),
        // The stand-in looks at the condition of a session when it begins, and not again.
        &Extent { many: 1_234, large: 20 << 20, refuses_late: false, ..Extent::default() },
    );
    let client = client(&with_token(&server.endpoint));
    let mut late = client.upload("race", Replace::Never).unwrap();
    late.write(b"late".to_vec()).unwrap();
    store_contract::put(&client, "race", b"early");
    assert_eq!(late.finish().unwrap_err().kind(), Kind::ObjectExists, "in one request the condition holds");
    assert_eq!(store_contract::read(&client, "race"), b"early");
}

#[test]
fn a_bucket_that_is_not_there_is_said() {
    let Some(server) = FakeGcs::start() else { return };
    let elsewhere = StoreSettings { bucket: "nobucket".into(), ..with_token(&server.endpoint) };
    assert_eq!(client(&elsewhere).list("", &Control::new()).unwrap_err().kind(), Kind::ObjectNotFound);
}

/// A server that gives these answers in turn and keeps the requests.
fn scripted(answers: Vec<Response<Bytes>>) -> (HttpServer, Arc<Mutex<Vec<Request<Bytes>>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (kept, answers) = (Arc::clone(&requests), Mutex::new(answers.into_iter()));
    let server = HttpServer::start(move |request| {
        kept.lock().unwrap().push(request);
        answers.lock().unwrap().next().unwrap_or_else(|| empty(500))
    });
    (server, requests)
}

fn page(items: &[(&str, &str)], next: Option<&str>) -> Response<Bytes> {
    let items: Vec<Value> = items.iter().map(|(name, generation)| json!({"name": name, "size": "1", "generation": generation})).collect();
    json_answer(&json!({"items": items, "nextPageToken": next}))
}

fn json_answer(value: &Value) -> Response<Bytes> {
    json(200, value)
}

fn openssl(folder: &Path, arguments: &[&str]) -> bool {
    Command::new("openssl").args(arguments).current_dir(folder).output().is_ok_and(|output| output.status.success())
}

/// A service account whose key OpenSSL made; `None`, said loudly, without OpenSSL.
fn service_account(folder: &Path, token_uri: &str) -> Option<PathBuf> {
    if !openssl(folder, &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem"]) {
        println!("SKIPPED: no openssl to make an RSA key with");
        return None;
    }
    assert!(openssl(folder, &["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]));
    let file = json!({
        "type": "service_account", "project_id": "project-7", "private_key_id": "key-1", "client_email": "smp@project-7.example",
        "private_key": std::fs::read_to_string(folder.join("key.pem")).unwrap(), "token_uri": token_uri,
    });
    let path = folder.join("account.json");
    store_contract::write_secret(&path, &file.to_string());
    Some(path)
}

#[test]
fn a_service_account_signs_what_openssl_verifies() {
    let place = tempfile::tempdir().unwrap();
    let granted = |token: &str| json_answer(&json!({"access_token": token, "expires_in": 3600, "token_type": "Bearer"}));
    let answers = vec![granted("first"), empty(401), granted("second"), page(&[("a", "1")], None)];
    let (server, requests) = scripted(answers);
    let Some(account) = service_account(place.path(), &format!("{}/token", server.endpoint)) else { return };
    let payer = StoreSettings { credentials_path: Some(account), is_requester_pays: true, ..store(&server.endpoint) };
    assert_eq!(names(&client(&payer), ""), ["a"], "a token that is refused is renewed once");
    let requests = requests.lock().unwrap();
    assert_eq!(requests[1].headers()["authorization"], "Bearer first");
    assert_eq!(requests[3].headers()["authorization"], "Bearer second");
    assert!(requests[3].uri().query().unwrap().contains("userProject=project-7"));
    let form = std::str::from_utf8(requests[0].body()).unwrap();
    let assertion = form.strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=").unwrap();
    let (text, signature) = assertion.rsplit_once('.').unwrap();
    std::fs::write(place.path().join("text"), text).unwrap();
    std::fs::write(place.path().join("signature"), URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    assert!(openssl(place.path(), &["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "text"]));
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text.split_once('.').unwrap().1).unwrap()).unwrap();
    assert_eq!(claims["iss"], "smp@project-7.example");
    assert_eq!(claims["aud"], format!("{}/token", server.endpoint));
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/devstorage.read_write");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3_600);
}

#[test]
fn credentials_that_do_not_serve_are_told_apart() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("file.json");
    let open = |text: &str| {
        store_contract::write_secret(&path, text);
        let store = StoreSettings { credentials_path: Some(path.clone()), ..store("https://storage.example") };
        let error = Client::open(&store, settings()).err().unwrap();
        assert!(!error.to_string().contains("canary"), "{error}");
        error.kind()
    };
    assert_eq!(open("canary"), Kind::CredentialsMissing);
    assert_eq!(open(r#"{"type": "canary"}"#), Kind::CredentialsMissing);
    assert_eq!(open(r#"{"type": "service_account", "private_key": "canary", "client_email": "x"}"#), Kind::CredentialsMissing);
    assert_eq!(open(r#"{"type": "authorized_user", "client_id": "canary"}"#), Kind::CredentialsMissing);
    assert_eq!(open(r#"{"type": "external_account"}"#), Kind::Unsupported);
    let plain = r#"{"type": "authorized_user", "client_id": "c", "refresh_token": "canary", "token_uri": "http://login.example/token"}"#;
    assert_eq!(open(plain), Kind::ConfigInvalidValue);
    // A permission that was withdrawn.
    let (server, _) = scripted(vec![json(400, &json!({"error": "invalid_grant", "error_description": "canary"}))]);
    let user = json!({"type": "authorized_user", "client_id": "c", "refresh_token": "r", "token_uri": format!("{}/t", server.endpoint)});
    store_contract::write_secret(&path, &user.to_string());
    let error = client(&StoreSettings { credentials_path: Some(path), ..store(&server.endpoint) }).list("", &Control::new()).unwrap_err();
    assert_eq!(error.kind(), Kind::AccessDenied);
    assert!(!error.to_string().contains("canary"));
}

#[test]
fn a_listing_of_nonsense_is_an_error_and_ends() {
    let list = |answers| {
        let (server, _) = scripted(answers);
        client(&with_token(&server.endpoint)).list("", &Control::new()).map_err(|error| error.kind())
    };
    let names = |found: Result<Vec<smp::transfer::ObjectInfo>, Kind>| found.map(|found| found.len());
    assert_eq!(names(list(vec![page(&[("a", "1")], Some("x")), page(&[("b", "1")], None)])), Ok(2));
    assert_eq!(names(list(vec![page(&[("a", "1")], Some("x")), page(&[("a", "1"), ("b", "1")], None)])), Ok(2), "a page that comes twice");
    assert_eq!(list(vec![page(&[("a", "1")], Some("x")), page(&[("b", "1")], Some("x"))]).unwrap_err(), Kind::ServerFailed);
    assert_eq!(list(vec![page(&[("a", "1")], Some("x")), page(&[("a", "2")], None)]).unwrap_err(), Kind::ServerFailed);
    assert_eq!(list(vec![json(200, &json!({"items": [{"name": "a"}]}))]).unwrap_err(), Kind::ServerFailed);
}

#[test]
fn bytes_are_of_the_generation_asked_for_or_none() {
    let answer = |status: u16, range: &str, generation: &str, body: &'static str| {
        let answer = Response::builder().status(status).header("content-range", range).header("x-goog-generation", generation);
        answer.body(Bytes::from_static(body.as_bytes())).unwrap()
    };
    for (answer, expected) in [
        (answer(206, "bytes 2-4/9", "7", "cde"), Ok(b"cde".to_vec())),
        (answer(206, "bytes 2-4/9", "8", "cde"), Err(Kind::ObjectChanged)),
        (empty(412), Err(Kind::ObjectChanged)),
        (empty(416), Err(Kind::ObjectChanged)),
        (answer(200, "", "7", "abcdefghi"), Err(Kind::TransferInterrupted)),
        (answer(206, "bytes 0-2/9", "7", "abc"), Err(Kind::TransferInterrupted)),
        (answer(206, "bytes 2-4/9", "7", "cd"), Err(Kind::TransferInterrupted)),
        (answer(206, "bytes 2-4/9", "7", "cdef"), Err(Kind::TransferInterrupted)),
        (empty(403), Err(Kind::AccessDenied)),
        (empty(503), Err(Kind::ServerFailed)),
    ] {
        let (server, requests) = scripted(vec![answer]);
        let found = fetch_one(&client(&with_token(&server.endpoint)), "patient/x", "7", 2..5).map_err(|error| error.kind());
        assert_eq!(found, expected);
        let requests = requests.lock().unwrap();
        assert_eq!(requests[0].uri().path(), "/storage/v1/b/studies/o/patient%2Fx");
        assert!(requests[0].uri().query().unwrap().contains("ifGenerationMatch=7"));
    }
}

#[test]
fn an_upload_is_sent_to_nobody_else() {
    let away = Response::builder().status(200).header("location", "http://127.0.0.1:1/session").body(Bytes::new()).unwrap();
    let (server, _) = scripted(vec![empty(404), away]);
    let mut upload = client(&with_token(&server.endpoint)).upload("x", Replace::Never).unwrap();
    let error = upload.write(vec![0; 9 << 20]).unwrap_err();
    assert_eq!(error.kind(), Kind::ServerFailed);
    assert!(!error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[test]
fn a_setting_that_cannot_be_used_is_refused_by_its_key() {
    for (store, detail) in [
        (
            StoreSettings { bucket: String::new(), ..with_token("https://storage.example") },
            "cloud.bucket must be the name of a bucket for provider gcs",
        ),
        (with_token("http://storage.example"), "cloud.endpoint must be https, because credentials travel there"),
        (
            StoreSettings { is_requester_pays: true, ..with_token("https://storage.example") },
            "cloud.requester_pays needs credentials that name a project",
        ),
        (
            StoreSettings { folder_id: Some("x".into()), ..with_token("https://storage.example") },
            "cloud.folder_id means nothing to provider gcs",
        ),
    ] {
        let error = Client::open(&store, settings()).err().expect(detail);
        assert_eq!((error.kind(), error.detail()), (Kind::ConfigInvalidValue, detail));
    }
}
