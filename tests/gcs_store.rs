//! The Cloud Storage store against a bucket in this process, over a socket, and against an emulator that others wrote.

#[path = "support/gcs_server.rs"]
mod gcs_server;
#[path = "support/http_server.rs"]
mod http_server;
#[path = "support/store_contract.rs"]
mod store_contract;

use std::sync::Arc;
use std::time::Duration;

use gcs_server::{BUCKET, Fault, GcsServer, error};
use http_server::{HttpServer, empty, json};
use hyper::Response;
use hyper::body::Bytes;
use smp::control::Control;
use smp::error::{Error, Kind};
use smp::secret::Secret;
use smp::transfer::{Client, ClientSettings, Replace, StoreSettings};
use store_contract::{Extent, fetch_one, names, pattern, put, put_as, read};

fn settings() -> ClientSettings {
    ClientSettings { retries: 0, timeout: Duration::from_secs(20), ..ClientSettings::default() }
}

fn token(text: &str) -> Option<Arc<Secret<String>>> {
    Some(Arc::new(Secret::new(text.to_owned())))
}

fn store(server: &GcsServer) -> StoreSettings {
    StoreSettings {
        provider: "gcs".into(),
        bucket: BUCKET.into(),
        endpoint: Some(server.http.endpoint.clone()),
        access_token: token("good-token"),
        ..StoreSettings::default()
    }
}

fn client(server: &GcsServer) -> Client {
    Client::open(&store(server), settings()).unwrap()
}

fn patient(server: &GcsServer) -> Client {
    Client::open(&store(server), ClientSettings { retries: 3, ..settings() }).unwrap()
}

fn fail(server: &GcsServer, method: &'static str, part: &'static str, fault: Fault) {
    server.state().faults.push_back((method, part, fault));
}

fn upload(client: &Client, name: &str, bytes: &[u8], replace: Replace) -> smp::Result<()> {
    let mut upload = client.upload(name, replace)?;
    upload.write(bytes.to_vec())?;
    upload.finish().map(drop)
}

fn version(client: &Client, name: &str) -> String {
    client.head(name, &Control::new()).unwrap().version
}

fn list_error(store: &StoreSettings) -> Error {
    Client::open(store, settings()).unwrap().list("study", &Control::new()).unwrap_err()
}

#[test]
fn it_does_what_every_store_must_do() {
    let server = GcsServer::start();
    server.state().page = 100;
    store_contract::check(&client(&server), &Extent::default());
    assert_eq!(server.sessions(), 0, "no session is left open");
}
