//! What Cloud Storage means by a refusal: its status and its reason, of which nothing is passed on.

use serde::Deserialize;

use super::super::http::{Answer, Doing};
use crate::error::{Error, Kind};

/// A refusal, as it was said.
pub(super) struct Refusal {
    pub status: u16,
    doing: Doing,
    reasons: Vec<String>,
    by_status: Error,
}

#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    error: Details,
}

#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
}

impl Refusal {
    /// Reads what an answer says.
    pub async fn of(answer: Answer, doing: Doing) -> Refusal {
        let (status, by_status) = (answer.status, answer.refused(doing));
        let said = answer.bytes().await.ok().and_then(|body| serde_json::from_slice::<Said>(&body).ok()).unwrap_or_default();
        Refusal { status, doing, reasons: said.error.errors.into_iter().map(|error| error.reason).collect(), by_status }
    }

    /// Whether the condition on the version did not hold.
    pub fn is_condition(&self) -> bool {
        self.status == 412
    }

    /// In our words.
    pub fn error(self) -> Error {
        let denied = |what: &'static str| Error::new(Kind::AccessDenied, what);
        match self.status {
            // The clocks disagree, which explains everything.
            400..=403 if self.by_status.hint() != self.by_status.kind().hint() => self.by_status,
            401 => denied("the access token has expired, was revoked or is none, status 401")
                .with_hint("access tokens of Google live an hour; credentials in cloud.credentials_path are renewed"),
            // Google's front ends answer both ways.
            403 if self.says("rateLimitExceeded") || self.says("userRateLimitExceeded") => {
                Error::new(Kind::ServerFailed, "the store asks for fewer requests, status 403")
            }
            403 if self.says("quotaExceeded") && self.doing == Doing::Writing => {
                Error::new(Kind::StoreUnwritable, "a quota of the project is used up")
            }
            403 if self.says("retentionPolicyNotMet") || self.says("objectUnderActiveHold") => {
                Error::new(Kind::StoreUnwritable, "the bucket keeps its objects for a time that has not passed")
            }
            // The documentation of requester pays writes it both ways.
            403 if self.reasons.iter().any(|reason| reason.eq_ignore_ascii_case("userProjectAccessDenied")) => {
                denied("the project that is to pay does not allow it, status 403")
            }
            403 if self.says("insufficientPermissions") => denied("the access token lacks a scope, status 403"),
            400 if self.says("required") || self.says("userProjectMissing") => denied("whoever asks must pay for this bucket")
                .with_hint("set cloud.requester_pays and name the project in the file of cloud.credentials_path"),
            403 => denied("status 403").with_hint(match self.doing {
                Doing::Listing => "listing needs storage.objects.list on the bucket, as in roles/storage.objectViewer",
                Doing::Reading => "reading needs storage.objects.get on the bucket, as in roles/storage.objectViewer",
                Doing::Writing => "writing needs storage.objects.create, replacing and deleting storage.objects.delete on the bucket",
            }),
            // Two requests at one object; who was first is not known yet.
            409 => Error::new(Kind::ServerFailed, "the object is changed by somebody else, status 409"),
            404 if self.doing == Doing::Listing => Error::new(Kind::ObjectNotFound, "there is no bucket of the name in cloud.bucket"),
            404 | 410 if self.doing == Doing::Writing => {
                Error::new(Kind::StoreUnwritable, "there is no bucket of the name in cloud.bucket, or the upload session has ended")
            }
            _ => self.by_status,
        }
    }

    fn says(&self, reason: &str) -> bool {
        self.reasons.iter().any(|said| said == reason)
    }
}
