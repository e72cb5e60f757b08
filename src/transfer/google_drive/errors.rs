//! What Drive means by a refusal: its status and the reason beside it, of which neither text is passed on.

use serde::Deserialize;

use super::super::http::{Answer, Doing};
use crate::error::{Error, Kind};

/// A refusal, as it was said.
pub(super) struct Refusal {
    pub status: u16,
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
        Refusal { status, reasons: said.error.errors.into_iter().map(|error| error.reason).collect(), by_status }
    }

    /// In our words.
    pub fn error(self) -> Error {
        let says = |words: &[&str]| self.reasons.iter().any(|reason| words.contains(&reason.as_str()));
        let denied = |what: &'static str| Error::new(Kind::AccessDenied, what);
        match self.status {
            401 if self.by_status.hint() == Kind::AccessDenied.hint() => {
                denied("the access token has expired, was revoked or is none, status 401")
                    .with_hint("access tokens of Google live about an hour; credentials in cloud.credentials_path are renewed")
            }
            403 if says(&["rateLimitExceeded", "userRateLimitExceeded", "sharingRateLimitExceeded"]) => {
                Error::new(Kind::ServerFailed, "too many requests, status 403")
            }
            403 if says(&["storageQuotaExceeded", "quotaExceeded"]) => Error::new(Kind::StoreUnwritable, "the drive has no room")
                .with_hint("a service account has no room of its own: give it a folder of a shared drive"),
            403 if says(&["teamDriveFileLimitExceeded", "numChildrenInNonRootLimitExceeded", "teamDriveHierarchyTooDeep"]) => {
                Error::new(Kind::StoreUnwritable, "the drive or the folder has as many entries or levels as Drive allows")
            }
            403 if says(&["cannotDownloadAbusiveFile"]) => denied("Drive takes the object for malware and does not hand it out"),
            403 if says(&["downloadQuotaExceeded"]) => denied("the object was read too often; Drive hands it out again within a day"),
            403 if says(&["cannotDownloadFile", "fileNotDownloadable"]) => denied("the owner of the object does not let it be downloaded"),
            403 if says(&["dailyLimitExceeded", "dailyLimitExceededUnreg"]) => denied("the project has no requests left for today"),
            403 if says(&["accessNotConfigured"]) => denied("the Drive API is not enabled in the project of these credentials")
                .with_hint("enable the Google Drive API in the project's console"),
            403 if says(&["insufficientPermissions", "insufficientScopes"]) => denied("the credentials do not allow that, status 403")
                .with_hint("the scope of the token may be too narrow: docs/clouds/google-drive.md names the one needed"),
            409 => Error::new(Kind::ServerFailed, "the object is changed by somebody else, status 409"),
            _ => self.by_status,
        }
    }
}
