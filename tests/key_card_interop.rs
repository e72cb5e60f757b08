//! Key cards against another implementation: Python's `cryptography`, by a script written from docs/keys.md.
//!
//! `SMP_PYTHON` names a Python that has PyPI `cryptography`. Without it the test says so and returns.

use std::fs;
use std::path::Path;
use std::process::Command;

use smp::keys::{KeyStore, Unlock};

#[test]
fn python_reads_a_card_and_refuses_an_altered_one() {
    let Some(python) = std::env::var_os("SMP_PYTHON") else {
        eprintln!("SKIPPED: set SMP_PYTHON to a python with cryptography>=50 to test key cards against it");
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let keys = KeyStore::open(&place.path().join("keys"), Unlock::KeyFile(place.path().join("keys/master.key"))).unwrap();
    let label = "Universit\u{e4}tsklinik, MR \"3\" \\ \u{1f9e0}";
    let id = keys.generate(label).unwrap();
    keys.set_expiry(&id, Some("2099-06-30T12:00:00Z")).unwrap();
    let card = keys.export_card(&id).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/key_card.py");
    let read = |text: &str| {
        fs::write(place.path().join("card.txt"), text).unwrap();
        Command::new(&python).arg(&script).arg(place.path().join("card.txt")).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap()
    };
    let output = read(&card);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["label"], &said["expires"]), (&label.into(), &"2099-06-30T12:00:00Z".into()));
    assert_eq!(said["created"].as_str().unwrap(), keys.created(&id).unwrap());
    assert_eq!(said["fingerprint"].as_str().unwrap(), keys.fingerprint(&id).unwrap().replace(' ', ""));
    assert!(!read(&card.replace("2099-06", "2199-06")).status.success());
}
