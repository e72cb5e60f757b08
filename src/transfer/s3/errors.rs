//! What the SDK's errors mean to us.
//!
//! The SDK's texts may quote names of objects and headers, so none is copied: an error is recognised by its code, its HTTP status or
//! its type, and described in our own words.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::super::Attempt;
use super::super::http::{Doing, Place, causes, retry_after};
use crate::error::{Error, Kind, Stage};

/// Where the SDK looked for credentials when no file was named.
pub(super) const SOURCES: &str = "looked in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile in ~/.aws/config and ~/.aws/credentials, \
                       web identity, container and instance metadata";

/// What is said of a credentials file without credentials.
pub(super) const NOT_IN_FILE: &str = "cloud.credentials_path holds none for this profile";

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
    let wait = error.raw_response().and_then(|answer| retry_after(answer.headers().get("retry-after"), answer.headers().get("date")));
    if let Some(wait) = wait {
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
        // The SDK follows no redirect, and rightly: it would take the signature along.
        (_, 300..=399) => Error::new(Kind::ServerFailed, format!("the store sent the request elsewhere, status {status}")),
        ("SlowDown" | "RequestTimeout" | "InternalError" | "ServiceUnavailable", _) | (_, 408 | 429 | 500..=599) => {
            Error::new(Kind::ServerFailed, format!("status {status}"))
        }
        ("NoSuchUpload", _) => Error::new(Kind::TransferInterrupted, "the store gave the upload up"),
        ("NoSuchKey" | "NotFound", _) | (_, 404) => Error::new(Kind::ObjectNotFound, ""),
        ("InvalidRange", _) | (_, 416) => Error::new(Kind::ObjectChanged, "the range ends past the object"),
        (_, 401 | 403) => Error::new(Kind::AccessDenied, format!("status {status}")),
        ("", 200..=299) => Error::new(Kind::ServerFailed, "the store's answer cannot be read"),
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
    if causes(error).iter().any(|cause| cause.is::<CredentialsError>()) {
        let detail = if place.has_credentials_file { NOT_IN_FILE } else { SOURCES };
        return Error::new(Kind::CredentialsMissing, detail);
    }
    super::super::http::unsent(place, error)
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
            (Doing::Reading, None, 302, Kind::ServerFailed),
            (Doing::Listing, None, 200, Kind::ServerFailed),
        ] {
            assert_eq!(answered(doing, code, status).kind(), expected, "{code:?} {status}");
        }
    }
}
