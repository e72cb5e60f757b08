//! What the SDK's errors mean to us.
//!
//! The SDK's texts may quote names of objects and headers, so none is copied: an error is recognised by its code, its HTTP status or
//! its type, and described in our own words.

use std::error::Error as StdError;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::super::Attempt;
use crate::error::{Error, Kind, Result, Stage};

/// Where the SDK looked for credentials when no file was named.
const SOURCES: &str = "looked in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile in ~/.aws/config and ~/.aws/credentials, \
                       web identity, container and instance metadata";

/// What was being done, where the same answer means different things.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Listing,
    Reading,
    Writing,
}

/// Where requests go, for messages.
pub(super) struct Place {
    /// `https://host:port`, nothing else of the endpoint.
    pub origin: String,
    /// `host:port` of the proxy, without its password.
    pub proxy: Option<String>,
    /// Whether the credentials come from the file in `cloud.credentials_path` alone.
    pub has_credentials_file: bool,
}

impl Place {
    /// Splits a URL; `None` unless it is `http(s)://host[:port]` with at most a path, and no user.
    pub fn origin_of(url: &str) -> Option<String> {
        let (scheme, rest) = url.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let host = rest.split('/').next().filter(|host| !host.is_empty() && !host.contains(['@', '?', '#', ' ']))?;
        // An IPv6 address has colons of its own, in brackets.
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
        Some(if has_port { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{default_port}") })
    }

    /// Whether requests are encrypted on the way.
    pub fn is_tls(&self) -> bool {
        self.origin.starts_with("https://")
    }

    fn describe(&self) -> String {
        let host = self.origin.split_once("://").map_or(self.origin.as_str(), |(_, host)| host);
        match &self.proxy {
            Some(proxy) => format!("{host} by way of proxy {proxy}"),
            None => host.to_owned(),
        }
    }
}

/// The code of a service's error (`NoSuchKey`).
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// Whether the server does not know a condition that we put on a request.
pub(super) fn is_not_implemented<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    code(error) == Some("NotImplemented") || error.raw_response().is_some_and(|answer| answer.status().as_u16() == 501)
}

/// Our error for the SDK's.
pub(super) fn translate<E>(place: &Place, doing: Doing, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    if let Some(wait) = error.raw_response().and_then(retry_after) {
        Attempt::current().ask_pause(wait);
    }
    match &error {
        SdkError::ServiceError(answer) => answered(doing, answer.err().code(), answer.raw().status().as_u16()),
        SdkError::ResponseError(answer) => {
            Error::new(Kind::ServerFailed, format!("{} sent no answer of S3, status {}", place.describe(), answer.raw().status().as_u16()))
        }
        SdkError::TimeoutError(_) => Error::new(Kind::TransferTimeout, place.describe()),
        other => unsent(place, other),
    }
}

/// The server's own refusals, by code first because one status has many.
fn answered(doing: Doing, code: Option<&str>, status: u16) -> Error {
    match (code.unwrap_or_default(), status) {
        ("NoSuchBucket", _) => Error::new(Kind::ObjectNotFound, "the bucket does not exist"),
        ("InvalidAccessKeyId", _) => Error::new(Kind::AccessDenied, "the store does not know the access key"),
        ("SignatureDoesNotMatch", _) => Error::new(Kind::AccessDenied, "the secret key does not fit the access key"),
        ("ExpiredToken" | "TokenRefreshRequired", _) => Error::new(Kind::AccessDenied, "the session token has expired"),
        ("RequestTimeTooSkewed", _) => Error::new(Kind::AccessDenied, "this computer's clock is wrong").with_hint("set the clock"),
        ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _) | (_, 301 | 307) => {
            Error::new(Kind::ConfigInvalidValue, "the bucket is in another region than cloud.region").at(Stage::Transfer)
        }
        ("SlowDown" | "RequestTimeout" | "InternalError" | "ServiceUnavailable", _) | (_, 408 | 429 | 500..=599) => {
            Error::new(Kind::ServerFailed, format!("status {status}"))
        }
        ("NoSuchUpload", _) => Error::new(Kind::TransferInterrupted, "the store gave the upload up"),
        ("NoSuchKey" | "NotFound", _) | (_, 404) => Error::new(Kind::ObjectNotFound, ""),
        ("InvalidRange", _) | (_, 416) => Error::new(Kind::ObjectChanged, "the range ends past the object"),
        (_, 401 | 403) => Error::new(Kind::AccessDenied, format!("status {status}")),
        // Another writer at the same moment; what it will leave behind is not known yet.
        ("ConditionalRequestConflict", _) | (_, 409) => Error::new(Kind::ServerFailed, "somebody else writes the object"),
        (_, 412) if doing == Doing::Writing => Error::new(Kind::ObjectExists, ""),
        (_, 412) => Error::new(Kind::ObjectChanged, ""),
        (_, 400..=499) if doing == Doing::Writing => Error::new(Kind::StoreUnwritable, format!("status {status}")),
        _ => Error::new(Kind::AccessDenied, format!("the store refused the request, status {status}")),
    }
}

/// Requests that never reached the server, or whose answer never came.
fn unsent(place: &Place, error: &(dyn StdError + 'static)) -> Error {
    let causes = causes(error);
    let has_type = |check: fn(&(dyn StdError + 'static)) -> bool| causes.iter().any(|cause| check(*cause));
    let io = causes.iter().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind).next_back();
    if has_type(|cause| cause.is::<CredentialsError>()) {
        let detail = if place.has_credentials_file { "cloud.credentials_path holds none for this profile" } else { SOURCES };
        return Error::new(Kind::CredentialsMissing, detail);
    }
    if has_type(|cause| cause.is::<rustls::Error>()) {
        return Error::new(Kind::TlsFailed, place.describe());
    }
    let is_timeout = has_type(|cause| cause.downcast_ref().is_some_and(aws_sdk_s3::error::ConnectorError::is_timeout));
    match io {
        Some(std::io::ErrorKind::TimedOut) => Error::new(Kind::TransferTimeout, place.describe()),
        _ if is_timeout => Error::new(Kind::TransferTimeout, place.describe()),
        Some(std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::UnexpectedEof) => {
            Error::new(Kind::TransferInterrupted, "the connection was closed")
        }
        Some(std::io::ErrorKind::ConnectionRefused) => Error::new(Kind::ConnectionRefused, place.describe()),
        // Among others: the name does not resolve, no route, the proxy says no.
        Some(_) => Error::new(Kind::ConnectionRefused, format!("{} cannot be reached", place.describe())),
        None => Error::new(Kind::TransferInterrupted, "the request did not get through"),
    }
}

/// The error and all that caused it; an `io::Error` hides one that its `source` leaves out.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut causes = Vec::new();
    let mut next = Some(error);
    // The bound is for a chain that bites its tail.
    while let Some(error) = next.filter(|_| causes.len() < 64) {
        causes.push(error);
        let hidden = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = hidden.map(|hidden| hidden as &(dyn StdError + 'static)).or(error.source());
    }
    causes
}

/// `Retry-After` in seconds; its other form, a date, is not worth trusting two clocks for.
fn retry_after(answer: &HttpResponse) -> Option<Duration> {
    answer.headers().get("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs)
}

/// Checks an endpoint or proxy URL; `key` names the configuration key, never the value, which may hold a password.
pub(super) fn checked_origin(key: &str, url: &str) -> Result<String> {
    Place::origin_of(url).ok_or_else(|| Error::new(Kind::ConfigInvalidValue, format!("{key} must be http(s)://host[:port]")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_means_what_was_being_done() {
        for (doing, code, status, expected) in [
            (Doing::Reading, Some("NoSuchKey"), 404, Kind::ObjectNotFound),
            (Doing::Reading, None, 404, Kind::ObjectNotFound),
            (Doing::Listing, Some("NoSuchBucket"), 404, Kind::ObjectNotFound),
            (Doing::Listing, Some("AccessDenied"), 403, Kind::AccessDenied),
            (Doing::Listing, Some("SignatureDoesNotMatch"), 403, Kind::AccessDenied),
            (Doing::Reading, Some("PreconditionFailed"), 412, Kind::ObjectChanged),
            (Doing::Writing, Some("PreconditionFailed"), 412, Kind::ObjectExists),
            (Doing::Reading, Some("InvalidRange"), 416, Kind::ObjectChanged),
            (Doing::Reading, Some("SlowDown"), 503, Kind::ServerFailed),
            (Doing::Reading, Some("RequestTimeout"), 400, Kind::ServerFailed),
            (Doing::Writing, Some("InternalError"), 500, Kind::ServerFailed),
            (Doing::Writing, None, 502, Kind::ServerFailed),
            (Doing::Reading, None, 429, Kind::ServerFailed),
            (Doing::Writing, Some("EntityTooLarge"), 400, Kind::StoreUnwritable),
            (Doing::Writing, Some("NoSuchUpload"), 404, Kind::TransferInterrupted),
            (Doing::Listing, Some("PermanentRedirect"), 301, Kind::ConfigInvalidValue),
        ] {
            assert_eq!(answered(doing, code, status).kind(), expected, "{code:?} {status}");
        }
    }

    #[test]
    fn an_origin_has_no_path_and_always_a_port() {
        for (url, expected) in [
            ("https://s3.example.org", Some("https://s3.example.org:443")),
            ("http://127.0.0.1:9000/", Some("http://127.0.0.1:9000")),
            ("HTTPS://[::1]:9000/x/y", Some("https://[::1]:9000")),
            ("https://[2001:db8::1]", Some("https://[2001:db8::1]:443")),
            ("https://user:word@host", None),
            ("ftp://host", None),
            ("host:9000", None),
            ("https://", None),
            ("https://host?x", None),
        ] {
            assert_eq!(Place::origin_of(url).as_deref(), expected, "{url}");
        }
    }
}
