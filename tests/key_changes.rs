//! Every change of trust has its line in the audit log, or is not made.

mod support;

use smp::Kind;
use smp::audit::AuditReader;
use smp::pipeline::RecordedKeyStore;
use support::Site;

/// Exported records of a log whose event begins with `keys.`: event, outcome, detail.
fn key_events(site: &Site, log: &str) -> Vec<(String, String, serde_json::Value)> {
    let out = site.path("export.json");
    let reader = AuditReader::open(&site.path(log)).unwrap();
    assert!(reader.verify().first_bad.is_none());
    reader.export("json", &out, None, None).unwrap();
    let text = std::fs::read_to_string(&out).unwrap();
    let exported: serde_json::Value = serde_json::from_str(&text).unwrap();
    let records =
        exported.as_array().or_else(|| exported["records"].as_array()).or_else(|| exported["entries"].as_array()).expect("records");
    let field = |record: &serde_json::Value, name: &str| record[name].as_str().unwrap().to_owned();
    let keys = records.iter().filter(|record| record["event"].as_str().unwrap().starts_with("keys."));
    keys.map(|record| (field(record, "event"), field(record, "outcome"), record["detail"].clone())).collect()
}

#[test]
fn each_change_is_recorded_with_the_key_it_was_about() {
    let site = Site::new();
    let mut config = site.config.clone();
    config.set("key_store_path", site.path("fresh-keys").to_str().unwrap()).unwrap();
    config.set("encryption_key_path", site.path("fresh-keys/master.key").to_str().unwrap()).unwrap();
    config.set("audit_log_path", site.path("key-log").to_str().unwrap()).unwrap();
    let keys = RecordedKeyStore::configured(&config).unwrap();
    let own = keys.generate("Mrs Smith's study").unwrap();
    let peer = keys.import("Dr Jones", &site.hospital.export_card(&site.hospital_id).unwrap()).unwrap();
    assert_eq!(keys.confirm(&peer, "0000").unwrap_err().kind(), Kind::FingerprintMismatch);
    keys.confirm(&peer, &site.hospital.fingerprint(&peer).unwrap()).unwrap();
    keys.set_expiry(&peer, Some("2999-12-31T23:59:59Z")).unwrap();
    assert_eq!(keys.set_expiry(&peer, Some("/home/jones")).unwrap_err().kind(), Kind::InvalidArgument);
    keys.set_expiry(&peer, None).unwrap();
    let new = keys.rotate(&own).unwrap();
    keys.remove(&own).unwrap();
    assert_eq!(keys.remove("../jones").unwrap_err().kind(), Kind::KeyNotFound);
    assert_eq!(keys.import("Dr Jones", "no pem").unwrap_err().kind(), Kind::KeyInvalid);

    let events = key_events(&site, "key-log");
    let expected = [
        ("keys.generated", "success", own.as_str()),
        ("keys.imported", "success", &peer),
        ("keys.confirmed", "failure", &peer),
        ("keys.confirmed", "success", &peer),
        ("keys.expiry_set", "success", &peer),
        ("keys.expiry_set", "failure", &peer),
        ("keys.expiry_set", "success", &peer),
        ("keys.rotated", "success", &new),
        ("keys.removed", "success", &own),
        ("keys.removed", "failure", ""),
        ("keys.imported", "failure", ""),
    ];
    assert_eq!(events.len(), expected.len(), "{events:?}");
    for ((event, outcome, detail), (name, ended, key)) in events.iter().zip(expected) {
        assert_eq!((event.as_str(), outcome.as_str(), detail["key"].as_str().unwrap_or_default()), (name, ended, key));
        assert_eq!(detail["error_code"].is_null(), ended == "success");
    }
    assert_eq!(events[3].2["fingerprint"].as_str().unwrap(), site.hospital.fingerprint(&peer).unwrap());
    assert_eq!((&events[4].2["expires"], &events[6].2["expires"]), (&"2999-12-31T23:59:59Z".into(), &"never".into()));
    assert_eq!(events[7].2["previous"].as_str().unwrap(), own);
    let everything = format!("{events:?}");
    assert!(!everything.contains("Smith") && !everything.contains("ones"), "purposes and labels may name people");
}

#[test]
fn a_change_goes_to_the_log_of_a_pipeline_with_the_same_keys() {
    let site = Site::new();
    let keys = RecordedKeyStore::open(Some(site.researcher.directory()), None).unwrap();
    keys.generate("before").unwrap();
    let pipeline = site.pipeline();
    let id = keys.generate("while").unwrap();
    drop(pipeline);
    let log = site.config.get("audit_log_path").unwrap().unwrap();
    let name = std::path::Path::new(&log).file_name().unwrap().to_str().unwrap().to_owned();
    let events = key_events(&site, &name);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].2["key"].as_str().unwrap(), id);
    let beside = AuditReader::open(&site.researcher.directory().join("audit")).unwrap();
    assert!(beside.count() >= 2 && beside.verify().first_bad.is_none());
}

#[test]
fn a_change_that_cannot_be_recorded_is_not_made() {
    let site = Site::new();
    let mut config = site.config.clone();
    std::fs::write(site.path("file"), b"").unwrap();
    config.set("audit_log_path", site.path("file/log").to_str().unwrap()).unwrap();
    let keys = RecordedKeyStore::configured(&config).unwrap();
    let before = keys.ids().unwrap();
    assert_eq!(keys.generate("x").unwrap_err().kind(), Kind::AuditUnwritable);
    assert_eq!(keys.remove(&before[0]).unwrap_err().kind(), Kind::AuditUnwritable);
    assert_eq!(keys.ids().unwrap(), before);
}
