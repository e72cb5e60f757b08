//! What Microsoft Graph means by a refusal: its status and its code, of which nothing is passed on.

use serde::Deserialize;

use super::super::http::{Answer, Doing};
use crate::error::{Error, Kind};

/// A refusal, as it was said.
pub(super) struct Refusal {
    pub status: u16,
    code: String,
    by_status: Error,
}

#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    error: Code,
}

#[derive(Default, Deserialize)]
struct Code {
    #[serde(default)]
    code: String,
}

impl Refusal {
    /// Reads what an answer says.
    pub async fn of(answer: Answer, doing: Doing) -> Refusal {
        let (status, by_status) = (answer.status, answer.refused(doing));
        let said = answer.bytes().await.ok().and_then(|body| serde_json::from_slice::<Said>(&body).ok()).unwrap_or_default();
        Refusal { status, code: said.error.code, by_status }
    }

    /// Whether the name is taken.
    pub fn is_conflict(&self) -> bool {
        self.status == 409 && self.says("nameAlreadyExists")
    }

    /// In our words.
    pub fn error(self) -> Error {
        let full = || Error::new(Kind::StoreUnwritable, "the drive has no room");
        match self.status {
            401 if self.by_status.hint() == Kind::AccessDenied.hint() => {
                Error::new(Kind::AccessDenied, "the access token has expired, was revoked or is none, status 401")
                    .with_hint("access tokens of Microsoft live about an hour; credentials in cloud.credentials_path are renewed")
            }
            _ if self.says("malwareDetected") => Error::new(Kind::AccessDenied, "the store says that the object is malware"),
            507 => full(),
            _ if self.says("quotaLimitReached") => full(),
            423 => Error::new(Kind::ServerFailed, "the object is locked, status 423"),
            409 if self.is_conflict() => Error::new(Kind::ObjectExists, ""),
            409 => Error::new(Kind::ServerFailed, "the object is changed by somebody else, status 409"),
            // What was addressed is a name in a folder; no condition was asked for that could mean "exists".
            412 => Error::new(Kind::ObjectChanged, "the object is not the one that is to be replaced"),
            _ => self.by_status,
        }
    }

    /// Codes are compared without regard to case, because national clouds write some of them otherwise.
    fn says(&self, code: &str) -> bool {
        self.code.eq_ignore_ascii_case(code)
    }
}
