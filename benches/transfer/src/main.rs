//! The Rust half of the transfer benchmark; `run.py` drives it and measures every process from outside.
//!
//! - `serve FOLDER BYTES_PER_SECOND`: every file below the folder as an object of bucket `b`, out of memory, over the part of the S3 protocol
//!   that its clients use (listing, HEAD, GET with ranges); no signature is checked. Prints its port. 0 = as fast as it can.
//! - `seal STUDY STORE KEYS`: seals a folder into `STORE/sealed`.
//! - `open PORT KEYS`: fetches, verifies and decrypts `sealed`, every file in memory, as the library does for its users.
//! - `get PORT PREFIX CONNECTIONS`: bare ranged GETs of the same bytes over several connections, thrown away.

mod get;
mod serve;

use std::path::Path;

use smp::control::Control;
use smp::keys::{KeyStore, Unlock};
use smp::package::{self, Contents, Limits, Parties, SealOptions};
use smp::transfer::{Client, ClientSettings, StoreSettings};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", folder, rate] => serve::serve(Path::new(folder), rate.parse().expect("bytes per second")),
        ["seal", study, store, keys] => seal(Path::new(study), store, Path::new(keys)),
        ["open", port, keys] => open(port, Path::new(keys)),
        ["get", port, prefix, connections] => get::get(port.parse().expect("a port"), prefix, connections.parse().expect("a number")),
        _ => panic!("serve FOLDER RATE | seal STUDY STORE KEYS | open PORT KEYS | get PORT PREFIX CONNECTIONS"),
    }
}

fn key_store(folder: &Path) -> KeyStore {
    KeyStore::open(folder, Unlock::KeyFile(folder.join("master.key"))).unwrap()
}

fn seal(study: &Path, store: &str, keys: &Path) {
    let client = Client::open(&StoreSettings { bucket: store.into(), ..StoreSettings::default() }, ClientSettings::default()).unwrap();
    let keys = key_store(keys);
    let id = keys.generate("benchmark").unwrap();
    let recipients = [id.as_str()];
    let parties = Parties { sender_id: &id, recipient_ids: &recipients, purpose: "benchmark" };
    package::seal(&client, "sealed", &Contents::Folder(study), &keys, &parties, &SealOptions::default(), &Control::new()).unwrap();
}

fn open(port: &str, keys: &Path) {
    let store = StoreSettings {
        provider: "s3".into(),
        bucket: "b".into(),
        region: Some("us-east-1".into()),
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        ..StoreSettings::default()
    };
    let began = std::time::Instant::now();
    let client = Client::open(&store, ClientSettings::default()).unwrap();
    let connected = began.elapsed();
    let control = Control::new();
    let package = package::open(&client, "sealed", &key_store(keys), &[], &Limits::default(), &control).unwrap();
    let opened = began.elapsed();
    let (mut files, mut bytes) = (0, 0);
    package
        .read(&control, &mut |file| {
            files += 1;
            bytes += file.bytes.len();
            Ok(())
        })
        .unwrap();
    println!("{files} files, {bytes} bytes; settings {connected:.3?}, header and manifest {opened:.3?}, all {:.3?}", began.elapsed());
}
