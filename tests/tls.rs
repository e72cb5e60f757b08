//! Certificates that must not be believed: each is refused before anything is sent, by the SDK's driver of S3 and by our own HTTP client.
//!
//! `SMP_PYTHON` names a Python that has PyPI `cryptography`, which makes the certificates. Without it the test says so and returns.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use smp::control::Control;
use smp::error::{Error, Kind};
use smp::secret::Secret;
use smp::transfer::{Client, ClientSettings, StoreSettings};

/// A server that answers 404 to everything, over TLS with a certificate, or without TLS.
struct Server {
    port: u16,
    requests: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(certificate: Option<(&Path, &str)>) -> Server {
        let config = certificate.map(|(folder, name)| {
            let chain = CertificateDer::pem_file_iter(folder.join(format!("{name}.pem"))).unwrap().map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
        });
        let listener = TcpListener::bind(("localhost", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&requests), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                match &config {
                    Some(config) => {
                        answer(rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone()).unwrap(), socket), &counted)
                    }
                    None => answer(socket, &counted),
                }
            }
        });
        Server { port, requests, is_over, thread: Some(thread) }
    }
}

/// Answers one request, which is counted before its answer can be seen; nothing if the client hangs up before it.
fn answer(mut stream: impl Read + Write, counted: &AtomicUsize) {
    let mut head = [0; 4096];
    let Ok(length) = stream.read(&mut head) else { return };
    let is_request = head[..length].windows(9).any(|window| window == b" HTTP/1.1");
    counted.fetch_add(usize::from(is_request), Ordering::SeqCst);
    let body = "<Error><Code>NoSuchBucket</Code></Error>";
    let text = format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let _ = stream.write_all(text.as_bytes());
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("localhost", self.port));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Asks a store for something that it does not have.
fn ask(provider: &str, port: u16, ca_bundle: Option<&Path>, credentials: &Path) -> Error {
    let endpoint = Some(format!("https://localhost:{port}"));
    let common = StoreSettings { endpoint, ca_bundle: ca_bundle.map(Path::to_path_buf), ..StoreSettings::default() };
    let store = match provider {
        "s3" => StoreSettings {
            bucket: "studies".into(),
            region: Some("us-east-1".into()),
            credentials_path: Some(credentials.to_path_buf()),
            ..common
        },
        "https" => common,
        _ => StoreSettings { access_token: Some(Arc::new(Secret::new("canary".to_owned()))), ..common },
    };
    let store = StoreSettings { provider: provider.into(), ..store };
    let settings = ClientSettings { retries: 0, timeout: Duration::from_secs(20), ..ClientSettings::default() };
    Client::open(&store, settings).unwrap().head("study/x", &Control::new()).unwrap_err()
}

#[test]
fn a_server_that_cannot_prove_its_name_is_sent_nothing() {
    let Some(python) = std::env::var_os("SMP_PYTHON") else {
        eprintln!("SKIPPED: set SMP_PYTHON to a python with cryptography>=50 to test certificates that are wrong");
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/tls_certificates.py");
    assert!(std::process::Command::new(python).arg(script).arg(folder).status().unwrap().success());
    let credentials = folder.join("credentials");
    std::fs::write(&credentials, "[default]\naws_access_key_id = canary\naws_secret_access_key = canary\n").unwrap();
    std::fs::set_permissions(&credentials, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let authority = folder.join("ca.pem");
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for provider in ["s3", "https", "dropbox", "google_drive"] {
            let (wrong, authority, credentials) = (&wrong, &authority, &credentials);
            scope.spawn(move || {
                for (what, certificate, is_named, expected) in [
                    ("a good one", Some("good"), true, Kind::ObjectNotFound),
                    ("an authority that is not named", Some("good"), false, Kind::TlsFailed),
                    ("another authority than the one named", Some("other_authority"), true, Kind::TlsFailed),
                    ("another name", Some("other_name"), true, Kind::TlsFailed),
                    ("an expired one", Some("expired"), true, Kind::TlsFailed),
                    ("one that is not valid yet", Some("not_yet"), true, Kind::TlsFailed),
                    ("none, since the server speaks without TLS", None, true, Kind::TlsFailed),
                ] {
                    let server = Server::start(certificate.map(|name| (folder, name)));
                    let error = ask(provider, server.port, is_named.then_some(authority.as_path()), credentials);
                    let requests = server.requests.load(Ordering::SeqCst);
                    let is_fine = error.kind() == expected && (requests > 0) == (expected != Kind::TlsFailed);
                    let is_helpful = expected != Kind::TlsFailed || error.hint().is_some_and(|hint| hint.contains("cloud.ca_bundle"));
                    let is_discreet = !error.to_string().contains("canary") && !error.to_string().contains("study");
                    if !is_fine || !is_helpful || !is_discreet {
                        wrong.lock().unwrap().push(format!("{provider}, {what}: {:?} after {requests} requests, {error}", error.kind()));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
