//! One HTTP client for every store that has no SDK: requests from memory, bodies in pieces, redirects by our own rules.
//!
//! - A body in either direction tells the [`Attempt`] that something moves, so a slow line is waited for and a dead one is not.
//! - `Retry-After` reaches the pause before the next attempt.
//! - A redirect is followed for reads only, at most [`REDIRECTS`] times, never from `https` to `http`. To another host only the headers go
//!   that say which bytes are wanted: no credential, no cookie, nothing of the provider's own.
//! - Nothing here retries; the client's patience does, for all stores alike.

mod connect;
mod errors;
mod place;
mod range;
mod tokens;

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use url::Url;

pub(super) use self::connect::{CONNECT, proxy_of, sdk_client};
pub(super) use self::errors::{Doing, causes, clock_skew, refused, retry_after, unsent};
pub(super) use self::place::{Place, checked_origin, keeps_credentials, private_origin};
pub(super) use self::range::{range_header, total_of};
pub(super) use self::tokens::{Fetch, RefreshToken, Tokens, authorized, token_endpoint};
use super::{Attempt, StoreSettings};
use crate::error::{Error, Kind, Result, Stage};

/// Redirects that are followed for one request.
const REDIRECTS: usize = 5;
/// Longest answer that is not an object: a page of a listing, an error.
const ANSWER_BYTES: usize = 16 << 20;
/// What may go to another host: which bytes are wanted, and nothing about who asks.
const HARMLESS: &[&str] = &["accept", "range", "if-match", "if-none-match", "user-agent"];
/// Pieces in which a body is sent; each is a sign of life.
const PIECE_BYTES: usize = 64 << 10;

/// Sends requests to one store and whoever it refers to.
pub(super) struct Http {
    connector: SharedHttpConnector,
    place: Place,
}

/// A request.
#[derive(Clone)]
pub(super) struct Call {
    method: &'static str,
    url: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Call {
    /// A request without a body; the URL is absolute and encoded.
    pub fn new(method: &'static str, url: impl Into<String>) -> Call {
        Call { method, url: url.into(), headers: Vec::new(), body: Bytes::new() }
    }

    /// Where the request goes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Adds a header; the name is in lower case.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a header if there is a value.
    pub fn header_if(self, name: &'static str, value: Option<impl Into<String>>) -> Call {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Call {
        self.body = body.into();
        self
    }

    /// Sets a body in JSON.
    pub fn json(self, value: &serde_json::Value) -> Call {
        self.header("content-type", "application/json").body(value.to_string())
    }
}

impl Http {
    /// A client for an endpoint, of which only the origin counts here.
    pub fn open(store: &StoreSettings, endpoint: &str, timeout: Duration) -> Result<Http> {
        let origin = checked_origin("cloud.endpoint", endpoint)?;
        Ok(Http { connector: connect::connector(store, timeout)?, place: connect::place(store, origin)? })
    }

    /// Where requests go, for messages.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Sends a request and waits for the head of its answer, whatever its status.
    pub async fn send(&self, call: Call) -> Result<Answer> {
        let mut call = call;
        let may_follow = matches!(call.method, "GET" | "HEAD");
        for _ in 0..=REDIRECTS {
            let answer = self.send_once(&call).await?;
            if !may_follow || !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let Some(location) = answer.header("location") else { return Ok(answer) };
            call = redirected(call, location)?;
        }
        Err(Error::new(Kind::ServerFailed, format!("the store sent the request elsewhere more than {REDIRECTS} times")))
    }

    async fn send_once(&self, call: &Call) -> Result<Answer> {
        let attempt = Attempt::current();
        if !call.body.is_empty() {
            attempt.sending(call.body.len()).await;
        }
        let mut request = http::Request::builder().method(call.method).uri(&call.url);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if !call.body.is_empty() || matches!(call.method, "POST" | "PUT" | "PATCH") {
            request = request.header("content-length", call.body.len());
        }
        let body = if call.body.is_empty() {
            SdkBody::empty()
        } else {
            SdkBody::from_body_1_x(Pieces { rest: call.body.clone(), attempt: attempt.clone() })
        };
        let request = request
            .body(body)
            .map_err(|_| Error::new(Kind::ConfigInvalidValue, "a request cannot be put into HTTP").at(Stage::Transfer))?;
        let request = HttpRequest::try_from(request)
            .map_err(|_| Error::new(Kind::Internal, "a request cannot be put into HTTP").at(Stage::Transfer))?;
        let answer = self.connector.call(request).await.map_err(|error| unsent(&self.place.at(&call.url), &error))?;
        attempt.beat();
        let answer = Answer { status: answer.status().as_u16(), answer };
        if let Some(pause) = retry_after(answer.header("retry-after"), answer.header("date")) {
            attempt.ask_pause(pause);
        }
        Ok(answer)
    }
}

/// The head of an answer, and its body as it comes.
pub(super) struct Answer {
    /// HTTP status.
    pub status: u16,
    answer: aws_smithy_runtime_api::client::orchestrator::HttpResponse,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &'static str) -> Option<&str> {
        self.answer.headers().get(name)
    }

    /// Whether the status is one of success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Our error for a refusal. Where credentials are refused and the clocks disagree, the clocks are the reason.
    pub fn refused(&self, doing: Doing) -> Error {
        let skew = if matches!(self.status, 400 | 401 | 403) { clock_skew(self.header("date")) } else { None };
        skew.unwrap_or_else(|| refused(doing, self.status))
    }

    /// The answer if it is one of success.
    pub fn accepted(self, doing: Doing) -> Result<Answer> {
        if self.is_success() { Ok(self) } else { Err(self.refused(doing)) }
    }

    /// The body of an answer that is no object.
    pub async fn bytes(self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut body = ByteStream::new(self.answer.into_body());
        let attempt = Attempt::current();
        while let Some(part) = body.next().await {
            let part = part.map_err(|_| interrupted(bytes.len()))?;
            if part.len() > ANSWER_BYTES - bytes.len() {
                return Err(Error::new(Kind::ServerFailed, "the store's answer is too long"));
            }
            bytes.extend_from_slice(&part);
            attempt.beat();
        }
        Ok(bytes)
    }

    /// The body as JSON.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T> {
        // The message of the parser quotes the text, which may name objects.
        serde_json::from_slice(&self.bytes().await?)
            .map_err(|_| Error::new(Kind::ServerFailed, "the store's answer is not the JSON expected"))
    }

    /// The body of a ranged read: exactly `expected` bytes, or an error.
    pub async fn range(self, expected: u64) -> Result<Vec<u8>> {
        read_body(ByteStream::new(self.answer.into_body()), expected).await
    }
}

/// Exactly `expected` bytes of a body.
pub(super) async fn read_body(mut body: ByteStream, expected: u64) -> Result<Vec<u8>> {
    let attempt = Attempt::current();
    let expected = usize::try_from(expected).map_err(|_| Error::new(Kind::OutOfMemory, "a range is too large"))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(expected).map_err(|_| Error::new(Kind::OutOfMemory, "a range is too large"))?;
    while let Some(part) = body.next().await {
        let part = part.map_err(|_| interrupted(bytes.len()))?;
        if part.len() > expected - bytes.len() {
            return Err(Error::new(Kind::TransferInterrupted, format!("more than the {expected} bytes asked for came")));
        }
        bytes.extend_from_slice(&part);
        attempt.received(part.len()).await;
    }
    if bytes.len() != expected {
        return Err(Error::new(Kind::TransferInterrupted, format!("{} bytes came where {expected} were asked for", bytes.len())));
    }
    Ok(bytes)
}

fn interrupted(after: usize) -> Error {
    Error::new(Kind::TransferInterrupted, format!("the connection ended after {after} bytes"))
}

/// The same request to where the answer points.
fn redirected(call: Call, location: &str) -> Result<Call> {
    let astray = |what: &str| Error::new(Kind::ServerFailed, format!("the store sent the request {what}"));
    let from = Url::parse(&call.url).map_err(|_| astray("nowhere"))?;
    let to = from.join(location).map_err(|_| astray("nowhere"))?;
    if !matches!(to.scheme(), "https" | "http") || (from.scheme() == "https" && to.scheme() == "http") {
        return Err(Error::new(Kind::TlsFailed, "the store sent the request to where it would not be encrypted"));
    }
    let mut call = Call { url: to.to_string(), ..call };
    if from.origin() != to.origin() {
        call.headers.retain(|(name, _)| HARMLESS.contains(name));
    }
    Ok(call)
}

/// A body in pieces.
struct Pieces {
    rest: Bytes,
    attempt: std::sync::Arc<Attempt>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::result::Result<http_body::Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            return std::task::Poll::Ready(None);
        }
        // Asked for the next piece: the line took the one before.
        this.attempt.beat();
        let piece = this.rest.split_to(PIECE_BYTES.min(this.rest.len()));
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// Percent-encodes one part of a path or the value of a query (RFC 3986: all but unreserved characters).
pub(super) fn encoded(text: &str) -> String {
    const UNRESERVED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(text, UNRESERVED).to_string()
}

/// Percent-encodes a path, whose slashes stay.
pub(super) fn encoded_path(path: &str) -> String {
    path.split('/').map(encoded).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call::new("GET", "https://store.example/a/b")
            .header("authorization", "Bearer word")
            .header("x-ms-version", "1")
            .header("range", "bytes=0-1")
    }

    #[test]
    fn another_host_gets_no_credentials() {
        for location in ["https://cdn.example/x?sig=1", "//cdn.example/x", "https://store.example:8443/x", "https://sub.store.example/x"] {
            let call = redirected(call(), location).unwrap();
            assert_eq!(call.headers, [("range", "bytes=0-1".to_owned())], "{location}");
        }
        let same = redirected(call(), "/c?d").unwrap();
        assert_eq!((same.url.as_str(), same.headers.len()), ("https://store.example/c?d", 3));
    }

    #[test]
    fn a_redirect_does_not_lead_out_of_tls() {
        for location in ["http://store.example/x", "ftp://store.example/x", "file:///etc/passwd"] {
            assert_eq!(redirected(call(), location).err().unwrap().kind(), Kind::TlsFailed, "{location}");
        }
    }

    #[test]
    fn a_name_is_encoded_part_by_part() {
        // Percent-encodings of RFC 3986, 2.1.
        assert_eq!(encoded_path("a b/ä?#%&+/脳"), "a%20b/%C3%A4%3F%23%25%26%2B/%E8%84%B3");
        assert_eq!(encoded("a/b"), "a%2Fb");
    }
}
