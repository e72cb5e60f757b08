//! The configuration put together: places, precedence, hints, secrets.

use super::*;
use std::os::unix::ffi::OsStringExt;

fn environment(pairs: &[(&str, &str)]) -> std::vec::IntoIter<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect::<Vec<_>>().into_iter()
}

fn loaded(json: &str, pairs: &[(&str, &str)]) -> Result<Config> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("config.json");
    std::fs::write(&path, json).unwrap();
    Config::load_with(Some(&path), environment(pairs))
}

#[test]
fn the_guides_example_is_read() {
    let json = r#"{
      "cloud": {
        "provider": "s3",
        "bucket": "hospital-encrypted-data",
        "region": "us-east-1"
      },
      "user_id": "researcher@university.edu",
      "workspace": "~/secure-medical-workspace"
    }"#;
    let config = loaded(json, &[]).unwrap();
    config.check().unwrap();
    for (key, value) in [
        ("cloud.provider", "s3"),
        ("cloud.bucket", "hospital-encrypted-data"),
        ("cloud.region", "us-east-1"),
        ("user_id", "researcher@university.edu"),
        ("workspace", "~/secure-medical-workspace"),
    ] {
        assert_eq!(config.get(key).unwrap().as_deref(), Some(value));
    }
    let workspace = config.path("workspace").unwrap().unwrap();
    assert_eq!(workspace, std::env::home_dir().unwrap().join("secure-medical-workspace"));
}

#[test]
fn with_nothing_said_the_defaults_hold() {
    let config = Config::default();
    config.check().unwrap();
    for (key, value) in [
        ("cloud.provider", Some("local")),
        ("cloud.bucket", None),
        ("user_id", Some("anonymous")),
        ("device", Some("auto")),
        ("auto_anonymize", Some("true")),
        ("high_risk_threshold", Some("0.7")),
        ("inference.window", None),
        ("output.formats", Some("json,npy,nifti,png")),
    ] {
        assert_eq!(config.get(key).unwrap().as_deref(), value, "{key}");
    }
    assert_eq!(config.integer("transfer.max_bytes").unwrap(), Some(64 << 30));
    assert_eq!(config.integer("inference.threads").unwrap(), None);
    assert_eq!(config.real("threshold").unwrap(), Some(0.5));
    assert_eq!((config.flag("auto_anonymize").unwrap(), config.flag("auto_cleanup").unwrap()), (true, false));
    assert_eq!(config.list("output.formats").unwrap(), ["json", "npy", "nifti", "png"]);
    assert_eq!(config.list("trusted_senders").unwrap(), Vec::<String>::new());
    assert_eq!(config.path("model_path").unwrap(), None);
}

#[test]
fn the_later_place_wins() {
    let json = r#"{"user_id": "file", "protocol": "file", "threshold": 0.1}"#;
    let mut config = loaded(json, &[("SMP_PROTOCOL", "environment"), ("SMP_THRESHOLD", "0.2")]).unwrap();
    config.set("threshold", "0.3").unwrap();
    let get = |key: &str| config.get(key).unwrap().unwrap();
    assert_eq!(
        (get("device"), get("user_id"), get("protocol"), get("threshold")),
        ("auto".into(), "file".into(), "environment".into(), "0.3".into())
    );
    let mut clone = config.clone();
    clone.set_real("threshold", 0.4).unwrap();
    assert_eq!((clone.real("threshold").unwrap(), config.real("threshold").unwrap()), (Some(0.4), Some(0.3)));
}

#[test]
fn a_variable_of_the_environment_is_a_key_in_capitals() {
    let config = Config::with_environment(environment(&[
        ("SMP_CLOUD_BUCKET", "b"),
        ("SMP_TRANSFER_TIMEOUT_S", "2.5"),
        ("SMP_DEVICE", ""),
        ("CLOUD_REGION", "not ours"),
        ("SMP_TEST_DATA", "no key"),
    ]));
    assert_eq!(config.get("cloud.bucket").unwrap().as_deref(), Some("b"));
    assert_eq!(config.real("transfer.timeout_s").unwrap(), Some(2.5));
    assert_eq!(config.get("device").unwrap().as_deref(), Some("auto"));
    assert_eq!(config.get("cloud.region").unwrap(), None);
}

#[test]
fn a_bad_variable_is_an_error_until_the_key_is_set() {
    let mut config = Config::with_environment(environment(&[("SMP_DEID_PROJECT_KEY", "canary")]));
    let error = config.check().unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::ConfigInvalidValue, "deid.project_key must be 64 hex digits"));
    assert_eq!(error.hint(), Some("look at SMP_DEID_PROJECT_KEY in the environment"));
    config.set("deid.project_key", &"0".repeat(64)).unwrap();
    config.check().unwrap();
    let latin1 = (OsString::from("SMP_USER_ID"), OsString::from_vec(vec![0xe4]));
    assert_eq!(Config::with_environment([latin1].into_iter()).check().unwrap_err().detail(), "user_id is not UTF-8");
}

#[test]
fn an_unknown_key_is_an_error_with_the_nearest_name() {
    for (name, hint) in [
        ("cloud.buket", "did you mean cloud.bucket?"),
        ("bucket", "did you mean cloud.bucket?"),
        ("Threshold", "did you mean threshold?"),
        ("auto-anonymize", "did you mean auto_anonymize?"),
        ("modelpath", "did you mean model_path?"),
        ("transfer.paralel", "did you mean transfer.parallel?"),
        ("entirely.something.else", "docs/configuration.md lists the keys"),
        ("", "docs/configuration.md lists the keys"),
    ] {
        let mut config = Config::default();
        for error in [
            config.set(name, "x").unwrap_err(),
            config.set_int(name, 1).unwrap_err(),
            config.set_real(name, 1.0).unwrap_err(),
            config.get(name).unwrap_err(),
            config.merge_json(&format!(r#"{{"{name}": 1}}"#)).unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.hint()), (Kind::ConfigUnknownKey, Some(hint)), "{name}");
        }
    }
    let error = Config::default().set("Jones^Mary 1970-01-01", "x").unwrap_err();
    assert_eq!(error.detail(), "a name that is none of the keys");
    let error = loaded(r#"{"cloud": {"buket": "x"}}"#, &[]).err().unwrap();
    assert_eq!((error.kind(), error.detail(), error.hint()), (Kind::ConfigUnknownKey, "cloud.buket", Some("did you mean cloud.bucket?")));
}

#[test]
fn a_secret_goes_in_and_does_not_come_out() {
    let mut config = Config::default();
    config.set("cloud.access_token", "canary").unwrap();
    assert_eq!(config.get("cloud.access_token").unwrap(), None);
    assert_eq!(config.text("cloud.access_token").as_deref(), Some("canary"));
    config.set("cloud.proxy", "http://me:canary@proxy:3128").unwrap();
    assert_eq!((config.get("cloud.proxy").unwrap(), config.text("cloud.proxy").is_some()), (None, true));
    let error = config.set("deid.project_key", "canary").unwrap_err();
    assert!(!error.to_string().contains("canary"));
}

#[test]
fn empty_text_unsets_what_another_place_says() {
    let mut config = loaded(r#"{"model_path": "/m.onnx", "trusted_senders": ["a", "b"]}"#, &[]).unwrap();
    assert_eq!(config.list("trusted_senders").unwrap(), ["a", "b"]);
    config.set("model_path", "").unwrap();
    config.set("trusted_senders", "").unwrap();
    assert_eq!((config.get("model_path").unwrap(), config.list("trusted_senders").unwrap().len()), (None, 0));
    assert!(config.set("threshold", "").is_err());
}

#[test]
fn json_that_is_wrong_anywhere_changes_nothing() {
    let mut config = Config::default();
    assert!(config.merge_json(r#"{"user_id": "me", "threshold": 7}"#).is_err());
    assert_eq!(config.get("user_id").unwrap().as_deref(), Some("anonymous"));
    config.merge_json(r#"{"user_id": "me", "deid": {"options": ["retain_uids"]}}"#).unwrap();
    assert_eq!((config.get("user_id").unwrap().unwrap(), config.list("deid.options").unwrap()), ("me".into(), vec!["retain_uids".into()]));
}

#[test]
fn a_store_in_the_cloud_needs_a_bucket() {
    let mut config = Config::default();
    config.set("cloud.provider", "s3").unwrap();
    assert_eq!(config.check().unwrap_err().detail(), "cloud.provider s3 needs cloud.bucket");
    config.set("cloud.bucket", "b").unwrap();
    config.check().unwrap();
    assert_eq!(config.set("cloud.provider", "s4").unwrap_err().kind(), Kind::ConfigInvalidValue);
}

#[test]
fn a_path_with_an_unset_variable_names_its_key() {
    let mut config = Config::default();
    config.set("workspace", "$SMP_NO_SUCH_VARIABLE/x").unwrap();
    for error in [config.check().unwrap_err(), config.path("workspace").unwrap_err()] {
        assert_eq!(error.detail(), "workspace: the variable SMP_NO_SUCH_VARIABLE in a path is not set");
    }
    let mut config = Config::default();
    config.set("cloud.bucket", "${SMP_NO_SUCH_VARIABLE}").unwrap();
    assert!(config.check().unwrap_err().detail().starts_with("cloud.bucket: "));
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let place = tempfile::tempdir().unwrap();
    let error = Config::load(Some(&place.path().join("none.json"))).err().unwrap();
    assert_eq!(error.kind(), Kind::ConfigUnreadable);
    assert!(!error.to_string().contains("none.json"));
}

#[test]
fn the_distance_is_levenshteins() {
    for (a, b, expected) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("same", "same", 0)] {
        assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
    }
}
