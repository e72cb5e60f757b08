//! Packages against other implementations: Python's `cryptography`, by a script written from docs/package-format.md, and the OpenSSL command line.
//!
//! `SMP_PYTHON` names a Python that has PyPI `cryptography` 50 or later. Without it, or without `openssl`, the tests say so and return.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};
use smp::control::Control;
use smp::keys::{KeyStore, Unlock};
use smp::package::{self, Contents, Limits, Parties, SealOptions};
use smp::secret::Secret;
use smp::transfer::{Client, ClientSettings, StoreSettings};

const PASSPHRASE: &str = "for the interop test";

/// Two parties who confirmed each other, a folder as a store, and their keys as files for the other implementation.
struct World {
    place: tempfile::TempDir,
    client: Client,
    hospital: KeyStore,
    hospital_id: String,
    researcher: KeyStore,
    researcher_id: String,
}

impl World {
    fn new() -> World {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("store")).unwrap();
        let bucket = place.path().join("store").to_str().unwrap().to_owned();
        let client = Client::open(&StoreSettings { bucket, ..StoreSettings::default() }, ClientSettings::default()).unwrap();
        let open = |name: &str| {
            let folder = place.path().join(name);
            KeyStore::open(&folder, Unlock::KeyFile(folder.join("master.key"))).unwrap()
        };
        let (hospital, researcher) = (open("hospital"), open("researcher"));
        let (hospital_id, researcher_id) = (hospital.generate("radiology").unwrap(), researcher.generate("research").unwrap());
        for (here, there, id) in [(&hospital, &researcher, &researcher_id), (&researcher, &hospital, &hospital_id)] {
            here.import("peer", &there.export_public(id).unwrap()).unwrap();
            here.confirm(id, &there.fingerprint(id).unwrap()).unwrap();
        }
        for (keys, id, name) in [(&hospital, &hospital_id, "hospital"), (&researcher, &researcher_id, "researcher")] {
            let private = keys.export_private(id, &Secret::new(PASSPHRASE.to_owned())).unwrap();
            fs::write(place.path().join(format!("{name}.key.pem")), private.as_bytes()).unwrap();
            fs::write(place.path().join(format!("{name}.pem")), keys.export_public(id).unwrap()).unwrap();
        }
        World { place, client, hospital, hospital_id, researcher, researcher_id }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Seals a study of several ranges for the researcher; returns its files by path.
    fn seal(&self, remote_path: &str) -> BTreeMap<String, Vec<u8>> {
        let large: Vec<u8> = (0..20_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let files =
            [("DICOM/IM2", large.as_slice()), ("DICOM/IM1", &large[..16_384]), ("empty", b""), ("r\u{e9}sum\u{e9} \"1\".txt", b"text")];
        for (name, bytes) in &files {
            let path = self.at("study").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let recipients = [self.researcher_id.as_str(), self.hospital_id.as_str()];
        let (study, sender) = (self.at("study"), self.hospital_id.as_str());
        let parties = Parties { sender_id: sender, recipient_ids: &recipients, purpose: "interop" };
        let (contents, options) = (Contents::Folder(&study), SealOptions::default());
        package::seal(&self.client, remote_path, &contents, &self.hospital, &parties, &options, &Control::new()).unwrap();
        files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
    }
}

/// Runs the other implementation; `None`, loudly, without a Python for it.
fn python(command: &str, arguments: &[&OsStr]) -> Option<Output> {
    let Some(python) = std::env::var_os("SMP_PYTHON") else {
        eprintln!("SKIPPED: set SMP_PYTHON to a python with cryptography>=50 to test packages against it");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/smp_package.py");
    Some(Command::new(python).arg(script).arg(command).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap())
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn another_implementation_opens_our_package() {
    let world = World::new();
    let files = world.seal("studies/one");
    let (folder, key, sender) = (world.at("store/studies/one"), world.at("researcher.key.pem"), world.at("hospital.pem"));
    let arguments = [folder.as_os_str(), key.as_os_str(), OsStr::new(PASSPHRASE), sender.as_os_str()];
    let Some(output) = python("open", &arguments) else { return };
    succeeded(&output);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["purpose"], "interop");
    let found: BTreeMap<String, String> = serde_json::from_value(report["files"].clone()).unwrap();
    let expected: BTreeMap<String, String> = files
        .iter()
        .map(|(name, bytes)| (name.clone(), Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()))
        .collect();
    assert_eq!(found, expected);

    // It is a real check: one flipped byte of the pack and the script refuses.
    let pack = fs::read_dir(&folder).unwrap().map(|item| item.unwrap().path()).find(|path| path.extension().is_some_and(|e| e == "smpp"));
    let pack = pack.unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[12_345_678] ^= 1;
    fs::write(&pack, bytes).unwrap();
    assert!(!python("open", &arguments).unwrap().status.success());
}

#[test]
fn we_open_the_package_of_another_implementation() {
    let world = World::new();
    let files = world.seal("unused");
    let target = world.at("store/theirs");
    fs::create_dir(&target).unwrap();
    let (study, key, recipient) = (world.at("study"), world.at("hospital.key.pem"), world.at("researcher.pem"));
    let arguments = [study.as_os_str(), target.as_os_str(), key.as_os_str(), OsStr::new(PASSPHRASE), recipient.as_os_str()];
    let Some(output) = python("seal", &arguments) else { return };
    succeeded(&output);
    let (limits, control) = (Limits::default(), Control::new());
    let out = world.at("out");
    let facts = package::unseal_to(&world.client, "theirs", &out, &world.researcher, &[], &limits, &control).unwrap();
    assert_eq!((facts.files, facts.purpose.as_str(), facts.sender_id), (4, "written by python", world.hospital_id.clone()));
    for (name, bytes) in files {
        assert!(fs::read(out.join(name)).unwrap() == bytes);
    }
}

#[test]
fn openssl_verifies_the_header() {
    let world = World::new();
    world.seal("p");
    let header = fs::read_to_string(world.at("store/p/header.smp")).unwrap();
    let lines: Vec<&str> = header.lines().collect();
    let public = fs::read_to_string(world.at("hospital.pem")).unwrap();
    let second = public.rfind("-----BEGIN").unwrap();
    fs::write(world.at("sign.pem"), &public[second..]).unwrap();
    fs::write(world.at("line3"), format!("{}\n", lines[2])).unwrap();
    let run = |arguments: &[&str]| match Command::new("openssl").args(arguments).current_dir(world.place.path()).output() {
        Ok(output) => Some(output),
        Err(_) => {
            eprintln!("SKIPPED: no openssl command on this machine");
            None
        }
    };
    let Some(decoded) = run(&["base64", "-d", "-A", "-in", "line3", "-out", "signature"]) else { return };
    succeeded(&decoded);
    for (message, genuine) in [(format!("{}\n{}\n", lines[0], lines[1]), true), (format!("{}\n{} \n", lines[0], lines[1]), false)] {
        fs::write(world.at("message"), message).unwrap();
        let output = run(&["dgst", "-sha384", "-verify", "sign.pem", "-signature", "signature", "message"]).unwrap();
        assert_eq!(output.status.success(), genuine);
    }
}
