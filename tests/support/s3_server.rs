//! A real S3 server in this process: `s3s` over a folder, on a free port of 127.0.0.1, with credentials. It stops when it is dropped.
//!
//! ```ignore
//! #[path = "support/s3_server.rs"]
//! mod s3_server;
//!
//! let place = tempfile::tempdir().unwrap();
//! let server = s3_server::S3Server::start(place.path(), &["bucket"]);
//! let settings = StoreSettings {
//!     provider: "s3".into(),
//!     bucket: "bucket".into(),
//!     endpoint: Some(server.endpoint.clone()),
//!     region: Some("us-east-1".into()),
//!     credentials_path: Some(server.credentials_file(place.path())),
//!     ..StoreSettings::default()
//! };
//! ```
#![allow(dead_code)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A running server.
pub struct S3Server {
    /// `http://127.0.0.1:port`
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Serves the folder `root`; its sub-folders `buckets` are made and are the buckets.
    pub fn start(root: &Path, buckets: &[&str]) -> S3Server {
        for bucket in buckets {
            std::fs::create_dir_all(root.join(bucket)).expect("a bucket can be made");
        }
        let (access_key, secret_key) = ("AKIDTESTONLY".to_owned(), "a secret for tests only".to_owned());
        let service = {
            let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).expect("the root is a folder"));
            builder.set_auth(SimpleAuth::from_single(access_key.as_str(), secret_key.as_str()));
            builder.build()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads can be started");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).expect("a port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let (stop, mut stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                loop {
                    let (socket, _) = tokio::select! {
                        accepted = listener.accept() => match accepted { Ok(accepted) => accepted, Err(_) => continue },
                        _ = &mut stopped => break,
                    };
                    let service = service.clone();
                    tokio::spawn(async move {
                        // A client that hangs up is its own affair.
                        let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                    });
                }
            });
            runtime.shutdown_background();
        });
        S3Server { endpoint: format!("http://127.0.0.1:{port}"), access_key, secret_key, stop: Some(stop), thread: Some(thread) }
    }

    /// Writes a shared credentials file with this server's keys.
    pub fn credentials_file(&self, folder: &Path) -> PathBuf {
        let path = folder.join("s3-credentials");
        let text = format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n", self.access_key, self.secret_key);
        std::fs::write(&path, text).expect("the file can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("the mode can be set");
        path
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
