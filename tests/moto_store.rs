//! The S3 store against a second implementation of the protocol, so that the first one's peculiarities are not taken for S3.

#[path = "support/large_object.rs"]
mod large_object;
#[path = "support/moto.rs"]
mod moto;
#[path = "support/store_contract.rs"]
mod store_contract;

use std::sync::Mutex;
use std::time::Duration;

use moto::Moto;
use smp::transfer::{Client, ClientSettings, StoreSettings};
use store_contract::Extent;

/// The peak of memory is that of the process, so one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn client(moto: &Moto, place: &std::path::Path) -> Client {
    let store = StoreSettings {
        provider: "s3".into(),
        bucket: "studies".into(),
        region: Some("us-east-1".into()),
        endpoint: Some(moto.endpoint.clone()),
        credentials_path: Some(moto.credentials_file(place)),
        ..StoreSettings::default()
    };
    Client::open(&store, ClientSettings { parallel: 2, timeout: Duration::from_secs(60), ..ClientSettings::default() }).unwrap()
}

#[test]
fn it_does_what_every_store_must_do() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(moto) = Moto::start(&["studies"]) else { return };
    let place = tempfile::tempdir().unwrap();
    store_contract::check(&client(&moto, place.path()), &Extent { many: 1_234, large: 20 << 20, ..Extent::default() });
}

#[test]
fn a_large_object_passes_through_little_memory() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(moto) = Moto::start(&["studies"]) else { return };
    let place = tempfile::tempdir().unwrap();
    // The server copies the whole object for each range: few and large ranges, and not a gibibyte, which is for the other server.
    let peak = large_object::there_and_back(&client(&moto, place.path()), 256 << 20, 16 << 20);
    println!("256 MiB: {} MiB beyond what was held before", peak >> 20);
    assert!(peak < 160 << 20, "{} MiB", peak >> 20);
}
