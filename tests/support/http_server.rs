//! An HTTP server of the tests' own on a free port of 127.0.0.1: every request, whole, goes to one function. It stops when it is dropped.
#![allow(dead_code)]

use std::sync::Arc;
use std::thread::JoinHandle;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// What answers a request. Called from several threads at once.
pub type Handler = dyn Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync;

/// A running server.
pub struct HttpServer {
    /// `http://127.0.0.1:port`
    pub endpoint: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Starts a server.
    pub fn start(handler: impl Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static) -> HttpServer {
        let handler: Arc<Handler> = Arc::new(handler);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads can be started");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let (stop, mut stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                loop {
                    let (socket, _) = tokio::select! {
                        accepted = listener.accept() => match accepted { Ok(accepted) => accepted, Err(_) => continue },
                        _ = &mut stopped => break,
                    };
                    let handler = Arc::clone(&handler);
                    tokio::spawn(async move {
                        let service = service_fn(move |request: Request<Incoming>| {
                            let handler = Arc::clone(&handler);
                            async move {
                                let (head, body) = request.into_parts();
                                let body = body.collect().await?.to_bytes();
                                let answer = tokio::task::spawn_blocking(move || handler(Request::from_parts(head, body))).await;
                                Ok::<_, hyper::Error>(answer.expect("a handler does not panic").map(Full::new))
                            }
                        });
                        // A client that hangs up is its own affair.
                        let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                    });
                }
            });
            runtime.shutdown_background();
        });
        HttpServer { endpoint, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An answer with a status and a JSON body.
pub fn json(status: u16, value: &serde_json::Value) -> Response<Bytes> {
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.body(Bytes::from(value.to_string())).expect("a status and a header make an answer")
}

/// An answer with a status and nothing else.
pub fn empty(status: u16) -> Response<Bytes> {
    Response::builder().status(status).body(Bytes::new()).expect("a status makes an answer")
}

/// The bytes that `Range: bytes=first-last` asks for, answered as RFC 9110 says; without the header the whole object.
pub fn ranged(request: &Request<Bytes>, object: &[u8]) -> hyper::http::response::Builder {
    match range_of(request, object.len()) {
        None => Response::builder().status(200),
        Some(Err(())) => Response::builder().status(416).header("content-range", format!("bytes */{}", object.len())),
        Some(Ok(range)) => {
            let text = format!("bytes {}-{}/{}", range.start, range.end - 1, object.len());
            Response::builder().status(206).header("content-range", text)
        }
    }
}

/// The body that goes with [`ranged`].
pub fn ranged_body(request: &Request<Bytes>, object: &[u8]) -> Bytes {
    match range_of(request, object.len()) {
        None => Bytes::copy_from_slice(object),
        Some(Err(())) => Bytes::new(),
        Some(Ok(range)) => Bytes::copy_from_slice(&object[range]),
    }
}

fn range_of(request: &Request<Bytes>, length: usize) -> Option<Result<std::ops::Range<usize>, ()>> {
    let (first, last) = request.headers().get("range")?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    Some(if first >= length || last < first { Err(()) } else { Ok(first..(last + 1).min(length)) })
}
