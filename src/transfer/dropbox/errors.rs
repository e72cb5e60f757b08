//! What Dropbox means by a refusal: the words of `error_summary`, of which none is passed on.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::super::Attempt;
use super::super::http::{Answer, Doing};
use super::super::names::unsafe_name;
use crate::error::{Error, Kind};

/// A refusal, as it was said.
pub(super) struct Refusal {
    status: u16,
    /// `/path/not_found/../`, so that a word can be looked for whole.
    words: String,
    /// How far an upload session is, where the offset was the fault.
    pub correct_offset: Option<u64>,
    by_status: Error,
    doing: Doing,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    error_summary: String,
    #[serde(default)]
    error: Value,
}

impl Refusal {
    /// Reads what an answer says.
    pub async fn of(answer: Answer, doing: Doing) -> Refusal {
        let (status, by_status) = (answer.status, answer.refused(doing));
        let has_pause = answer.header("retry-after").is_some();
        // Errors of requests that are malformed are plain text, which says nothing to us.
        let said = answer.bytes().await.ok().and_then(|body| serde_json::from_slice::<Said>(&body).ok());
        let said = said.unwrap_or(Said { error_summary: String::new(), error: Value::Null });
        if let Some(seconds) = said.error.get("retry_after").and_then(Value::as_u64).filter(|_| !has_pause) {
            Attempt::current().ask_pause(Duration::from_secs(seconds));
        }
        let offset = said.error.get("correct_offset").or_else(|| said.error.get("lookup_failed")?.get("correct_offset"));
        let correct_offset = offset.and_then(Value::as_u64);
        Refusal { status, words: format!("/{}/", said.error_summary), correct_offset, by_status, doing }
    }

    /// Whether these words, divided by slashes, are among those said.
    pub fn says(&self, words: &str) -> bool {
        self.words.contains(&format!("/{words}/"))
    }

    /// In our words.
    pub fn error(self) -> Error {
        match self.status {
            401 if self.says("missing_scope") => Error::new(Kind::AccessDenied, "the access token lacks a scope, status 401")
                .with_hint("give the app the scopes that docs/clouds/dropbox.md names, then allow it anew"),
            401 if self.by_status.hint() == Kind::AccessDenied.hint() => {
                Error::new(Kind::AccessDenied, "the access token has expired, was revoked or is none, status 401")
                    .with_hint("access tokens of Dropbox live four hours; a refresh token in cloud.credentials_path does not expire")
            }
            422 => Error::new(Kind::AccessDenied, "no access to the namespace of cloud.folder_id, status 422"),
            409 => self.conflict(),
            _ => self.by_status,
        }
    }

    /// 409 is Dropbox's status for all that can go wrong with a request that it understood.
    fn conflict(self) -> Error {
        let writable = |what: &'static str| Error::new(Kind::StoreUnwritable, what);
        match () {
            () if self.says("conflict/file") => Error::new(Kind::ObjectExists, ""),
            () if self.says("conflict/folder") => writable("there is a folder of that name"),
            () if self.says("conflict/file_ancestor") => writable("a part of the path is a file"),
            () if self.says("not_found") || self.says("not_file") => Error::new(Kind::ObjectNotFound, ""),
            () if self.says("insufficient_space") => writable("the Dropbox has no room"),
            () if self.says("malformed_path") || self.says("disallowed_name") => unsafe_name("is one that Dropbox does not take"),
            () if self.says("restricted_content") => Error::new(Kind::AccessDenied, "Dropbox does not hand out the object"),
            () if ["no_write_permission", "access_restricted", "operation_suppressed", "team_folder"]
                .iter()
                .any(|word| self.says(word)) =>
            {
                Error::new(Kind::AccessDenied, "no right to write there")
            }
            () if self.says("too_many_write_operations") => Error::new(Kind::ServerFailed, "too many writes at the same time"),
            () if self.says("locked") => Error::new(Kind::ServerFailed, "the object is locked"),
            () if self.says("reset") => Error::new(Kind::ServerFailed, "the listing was cut off"),
            () if self.says("content_hash_mismatch") => {
                Error::new(Kind::TransferInterrupted, "what arrived at the store is not what was sent")
            }
            () if self.says("too_large") || self.says("payload_too_large") => writable("the object is too large for Dropbox"),
            () if self.doing == Doing::Writing => writable("status 409"),
            () => Error::new(Kind::AccessDenied, "the store refused the request, status 409"),
        }
    }
}
