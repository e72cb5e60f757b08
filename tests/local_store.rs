//! The local folder as a store.

#[path = "support/store_contract.rs"]
mod store_contract;

use smp::transfer::{Client, ClientSettings, StoreSettings};
use store_contract::Extent;

#[test]
fn it_does_what_every_store_must_do() {
    let place = tempfile::tempdir().unwrap();
    let store = StoreSettings { bucket: place.path().to_str().unwrap().to_owned(), ..StoreSettings::default() };
    let client = Client::open(&store, ClientSettings::default()).unwrap();
    store_contract::check(&client, &Extent::default());
}
