//! The examination of a store: which step fails first, and that no step tells a secret.

#[path = "support/s3_server.rs"]
mod s3_server;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use s3_server::S3Server;
use smp::Kind;
use smp::control::Control;
use smp::transfer::{Checkup, Client, ClientSettings, Outcome, Replace, StoreSettings, examine};

fn settings() -> ClientSettings {
    ClientSettings { timeout: std::time::Duration::from_secs(20), ..ClientSettings::default() }
}

fn steps(checkup: &Checkup) -> Vec<(&'static str, Outcome)> {
    checkup.steps.iter().map(|check| (check.step, check.outcome)).collect()
}

/// The step that failed, how, and that it was the last.
fn failure(store: &StoreSettings) -> (&'static str, Kind) {
    let checkup = examine(store, &settings(), "", false, &Control::new());
    assert!(!checkup.is_well());
    let last = checkup.steps.last().unwrap();
    assert_eq!(last.outcome, Outcome::Failed, "{}", checkup.json());
    assert!(checkup.steps.iter().rev().skip(1).all(|check| check.outcome != Outcome::Failed));
    assert!(!checkup.json().contains("canary"), "{}", checkup.json());
    (last.step, last.kind.unwrap())
}

fn s3(place: &Path, server: &S3Server) -> StoreSettings {
    StoreSettings {
        provider: "s3".into(),
        bucket: "studies".into(),
        region: Some("us-east-1".into()),
        endpoint: Some(server.endpoint.clone()),
        credentials_path: Some(server.credentials_file(place)),
        ..StoreSettings::default()
    }
}

#[test]
fn a_store_that_works_passes_every_step() {
    let place = tempfile::tempdir().unwrap();
    let server = S3Server::start(&place.path().join("root"), &["studies"]);
    let store = s3(place.path(), &server);
    let client = Client::open(&store, settings()).unwrap();
    let mut upload = client.upload("patient-canary/pack", Replace::Never).unwrap();
    upload.write(vec![7; 1_000]).unwrap();
    upload.finish().unwrap();
    let checkup = examine(&store, &settings(), "patient-canary/", true, &Control::new());
    use Outcome::{Passed, Skipped};
    let expected = [
        ("settings", Passed),
        ("name", Passed),
        ("connection", Passed),
        ("tls", Skipped),
        ("credentials", Passed),
        ("list", Passed),
        ("read", Passed),
        ("write", Passed),
    ];
    assert_eq!(steps(&checkup), expected, "{}", checkup.json());
    let json: serde_json::Value = serde_json::from_str(&checkup.json()).unwrap();
    assert_eq!((&json["well"], &json["schema"]), (&true.into(), &"smp-checkup/1".into()));
    assert_eq!(json["steps"][4]["detail"], "cloud.credentials_path");
    assert_eq!(json["steps"][5]["detail"], "1 objects, 1000 bytes");
    for secret in ["canary", server.secret_key.as_str(), server.access_key.as_str()] {
        assert!(!checkup.json().contains(secret), "{secret}");
    }
    assert_eq!(client.list("", &Control::new()).unwrap().len(), 1, "the trial object is gone");
}

#[test]
fn the_step_that_fails_is_named_and_is_the_last() {
    let place = tempfile::tempdir().unwrap();
    let server = S3Server::start(&place.path().join("root"), &["studies"]);
    let store = s3(place.path(), &server);
    let write_secret = |path: &Path, text: &str| {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let wrong_key = place.path().join("wrong");
    write_secret(&wrong_key, "[default]\naws_access_key_id = canary\naws_secret_access_key = canary\n");
    let no_key = place.path().join("none");
    write_secret(&no_key, "[other]\naws_access_key_id = canary\naws_secret_access_key = canary\n");
    let endpoint = |url: String| StoreSettings { endpoint: Some(url), ..store.clone() };
    for (store, step, kind) in [
        (StoreSettings { bucket: String::new(), ..store.clone() }, "settings", Kind::ConfigInvalidValue),
        // RFC 6761, 6.4: this name never resolves.
        (endpoint("http://store.invalid:9000".into()), "name", Kind::ConnectionRefused),
        (endpoint(format!("http://{free}")), "connection", Kind::ConnectionRefused),
        (StoreSettings { proxy: Some(format!("http://user:canary@{free}")), ..store.clone() }, "connection", Kind::ConnectionRefused),
        (endpoint(server.endpoint.replace("http:", "https:")), "tls", Kind::TlsFailed),
        (StoreSettings { credentials_path: Some(no_key), ..store.clone() }, "credentials", Kind::CredentialsMissing),
        (StoreSettings { credentials_path: Some(wrong_key), ..store.clone() }, "list", Kind::AccessDenied),
        (StoreSettings { bucket: "nobucket".into(), ..store.clone() }, "list", Kind::ObjectNotFound),
    ] {
        assert_eq!(failure(&store), (step, kind));
    }
}

#[test]
fn a_folder_has_no_network_and_is_written_only_when_allowed() {
    let place = tempfile::tempdir().unwrap();
    let store = StoreSettings { bucket: place.path().to_str().unwrap().to_owned(), ..StoreSettings::default() };
    for (may_write, last) in [(false, Outcome::Skipped), (true, Outcome::Passed)] {
        let checkup = examine(&store, &settings(), "", may_write, &Control::new());
        assert!(checkup.is_well(), "{}", checkup.json());
        assert_eq!(checkup.steps.iter().filter(|check| check.outcome == Outcome::Skipped).count(), if may_write { 4 } else { 5 });
        assert_eq!(checkup.steps.last().unwrap().outcome, last);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
