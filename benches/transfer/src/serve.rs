//! A store out of memory, so that what is measured is the client.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

/// Pieces of a body: small enough for a rate to be kept, large enough to cost nothing.
const PIECE: usize = 256 << 10;

struct Store {
    objects: BTreeMap<String, Bytes>,
    line: Arc<Line>,
}

/// A line that all connections share.
struct Line {
    bytes_per_second: u64,
    free_at: Mutex<Instant>,
}

pub fn serve(folder: &Path, bytes_per_second: u64) {
    let mut objects = BTreeMap::new();
    read(folder, folder, &mut objects);
    let line = Arc::new(Line { bytes_per_second, free_at: Mutex::new(Instant::now()) });
    let store = Arc::new(Store { objects, line });
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let store = Arc::clone(&store);
                    async move { Ok::<_, Infallible>(store.answer(&request)) }
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
}

fn read(root: &Path, folder: &Path, objects: &mut BTreeMap<String, Bytes>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(root, &path, objects);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            objects.insert(name, std::fs::read(&path).unwrap().into());
        }
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl Store {
    fn answer(&self, request: &Request<Incoming>) -> Answer {
        let name = request.uri().path().trim_start_matches('/').strip_prefix('b').unwrap_or_default().trim_start_matches('/');
        if name.is_empty() {
            return self.list(request.uri().query().unwrap_or_default());
        }
        let Some(object) = self.objects.get(name) else {
            return self.body(Response::builder().status(404), Bytes::new());
        };
        let answer = Response::builder().header("etag", format!("\"{}\"", object.len())).header("accept-ranges", "bytes");
        let answer = answer.header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT").header("content-type", "application/octet-stream");
        if request.method() == "HEAD" {
            return self.body(answer.header("content-length", object.len()), Bytes::new());
        }
        let range = request.headers().get("range").and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
        match range.map(|(first, last)| (first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap_or(usize::MAX))) {
            None => self.body(answer.status(200), object.clone()),
            Some((first, last)) => {
                let end = last.saturating_add(1).min(object.len());
                let text = format!("bytes {first}-{}/{}", end - 1, object.len());
                self.body(answer.status(206).header("content-range", text), object.slice(first..end))
            }
        }
    }

    fn list(&self, query: &str) -> Answer {
        let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default().replace("%2F", "/");
        let mut text = String::from(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated><MaxKeys>1000</MaxKeys>",
        );
        for (name, object) in self.objects.iter().filter(|(name, _)| name.starts_with(&prefix)) {
            let size = object.len();
            text.push_str(&format!(
                "<Contents><Key>{name}</Key><LastModified>1994-11-06T08:49:37.000Z</LastModified><ETag>&quot;{size}&quot;</ETag><Size>{size}</Size></Contents>"
            ));
        }
        text.push_str("</ListBucketResult>");
        self.body(Response::builder().header("content-type", "application/xml"), text.into())
    }

    fn body(&self, answer: hyper::http::response::Builder, bytes: Bytes) -> Answer {
        answer.body(Pieces { rest: bytes, line: Arc::clone(&self.line), wait: None }.boxed_unsync()).unwrap()
    }
}

/// A body in pieces, as fast as the line is.
struct Pieces {
    rest: Bytes,
    line: Arc<Line>,
    wait: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(wait) = &mut self.wait {
            std::task::ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        if self.rest.is_empty() {
            return std::task::Poll::Ready(None);
        }
        let length = PIECE.min(self.rest.len());
        let piece = self.rest.split_to(length);
        if self.line.bytes_per_second > 0 {
            let mut free_at = self.line.free_at.lock().unwrap();
            *free_at = (*free_at).max(Instant::now()) + Duration::from_secs_f64(length as f64 / self.line.bytes_per_second as f64);
            let until = *free_at;
            drop(free_at);
            self.wait = Some(Box::pin(tokio::time::sleep_until(until.into())));
        }
        std::task::Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
