//! What Azure's refusals mean: by the code in `x-ms-error-code`, because one status has many, and by the status where there is none.

use super::super::http::{Answer, Doing, clock_skew};
use crate::error::{Error, Kind, Stage};

/// Where the service puts its code.
const CODE: &str = "x-ms-error-code";

/// The code of a refusal.
pub(super) fn code(answer: &Answer) -> &str {
    answer.header(CODE).unwrap_or_default()
}

/// Our error for a refusal.
pub(super) fn translate(answer: &Answer, doing: Doing) -> Error {
    // The code for a signature out of its time is the same as for a wrong key.
    let skew = if matches!(answer.status, 400 | 401 | 403) { clock_skew(answer.header("date")) } else { None };
    skew.or_else(|| by_code(code(answer), answer.status, doing)).unwrap_or_else(|| answer.refused(doing))
}

/// Codes of the Blob service ("Blob Storage error codes" and "Common REST API error codes" of the REST reference).
fn by_code(code: &str, status: u16, doing: Doing) -> Option<Error> {
    let denied = |what: &'static str| Error::new(Kind::AccessDenied, what);
    let unwritable = |what: &'static str| Error::new(Kind::StoreUnwritable, what);
    Some(match code {
        "ContainerNotFound" => Error::new(Kind::ObjectNotFound, "the container does not exist"),
        "ContainerBeingDeleted" | "ContainerDisabled" => Error::new(Kind::ObjectNotFound, "the container is being deleted"),
        "BlobNotFound" | "ResourceNotFound" => Error::new(Kind::ObjectNotFound, ""),
        "AuthenticationFailed" | "InvalidAuthenticationInfo" => denied("the store does not accept the key, the SAS or the token")
            .with_hint("a SAS or token may have expired, or the key was replaced: ask for a new one"),
        "NoAuthenticationInformation" => denied("the store wants credentials and got none that it knows"),
        "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions" => denied("the credentials lack the right for this")
            .with_hint(
                "reading needs Storage Blob Data Reader, or a SAS with r and l; writing Storage Blob Data Contributor, or c, w and d",
            ),
        "AuthorizationFailure" => denied("the store refused: a missing right, or a rule of the account's network")
            .with_hint("ask the owner whether the account's firewall lets this computer in"),
        "AuthorizationSourceIPMismatch" => denied("the SAS is not for this computer's address"),
        "AuthorizationProtocolMismatch" => denied("the SAS is for https only"),
        "AuthorizationResourceTypeMismatch" | "AuthorizationServiceMismatch" => denied("the SAS is for something else")
            .with_hint("a SAS for the container is needed (sr=c), or for the account with the resource types c and o"),
        "KeyBasedAuthenticationNotPermitted" => denied("the account accepts no keys").with_hint("sign in with Entra ID instead"),
        "PublicAccessNotPermitted" => denied("the account is not public, and no credentials were given"),
        "AccountIsDisabled" => denied("the account is disabled"),
        "BlobArchived" | "BlobBeingRehydrated" => {
            denied("the object is archived").with_hint("its owner must move it to the hot or cool tier first, which takes hours")
        }
        // A SAS that may create but not replace.
        "BlobAlreadyExists" | "UnauthorizedBlobOverwrite" => Error::new(Kind::ObjectExists, ""),
        "ConditionNotMet" | "TargetConditionNotMet" if doing == Doing::Writing => Error::new(Kind::ObjectExists, ""),
        "ConditionNotMet" => Error::new(Kind::ObjectChanged, ""),
        "InvalidRange" => Error::new(Kind::ObjectChanged, "the range ends past the object"),
        "LeaseIdMissing" | "LeaseIdMismatchWithBlobOperation" | "LeaseLost" => unwritable("somebody holds a lease on the object"),
        "BlobImmutableDueToPolicy" => unwritable("a retention policy protects the object"),
        "SnapshotsPresent" => unwritable("the object has snapshots"),
        "InvalidBlobType" => unwritable("the object is no block blob and cannot be replaced by one"),
        // Whoever publishes under a name drops the blocks that others have sent for it.
        "InvalidBlockList" => unwritable("somebody else wrote the object meanwhile"),
        "InvalidBlobOrBlock" | "InvalidBlockId" => unwritable("another program left an unfinished upload under this name")
            .with_hint("choose another name; what is unfinished vanishes after a week"),
        "RequestBodyTooLarge" | "BlockCountExceedsLimit" | "BlockListTooLong" => unwritable("the object is too large for the store"),
        "OutOfRangeInput" | "InvalidResourceName" | "InvalidUri" => {
            Error::new(Kind::UnsafePath, "the store does not take this name").at(Stage::Transfer)
        }
        "ServerBusy" | "InternalError" | "OperationTimedOut" | "AccountBeingCreated" => {
            Error::new(Kind::ServerFailed, format!("status {status}"))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_means_what_was_being_done() {
        for (doing, code, status, expected) in [
            (Doing::Listing, "ContainerNotFound", 404, Kind::ObjectNotFound),
            (Doing::Reading, "BlobNotFound", 404, Kind::ObjectNotFound),
            (Doing::Reading, "AuthenticationFailed", 403, Kind::AccessDenied),
            (Doing::Reading, "AuthorizationFailure", 403, Kind::AccessDenied),
            (Doing::Reading, "ConditionNotMet", 412, Kind::ObjectChanged),
            (Doing::Writing, "ConditionNotMet", 412, Kind::ObjectExists),
            (Doing::Writing, "BlobAlreadyExists", 409, Kind::ObjectExists),
            (Doing::Writing, "UnauthorizedBlobOverwrite", 403, Kind::ObjectExists),
            (Doing::Writing, "LeaseIdMissing", 412, Kind::StoreUnwritable),
            (Doing::Writing, "InvalidBlockList", 400, Kind::StoreUnwritable),
            (Doing::Reading, "InvalidRange", 416, Kind::ObjectChanged),
            (Doing::Reading, "ServerBusy", 503, Kind::ServerFailed),
            (Doing::Reading, "BlobArchived", 409, Kind::AccessDenied),
            (Doing::Writing, "OutOfRangeInput", 400, Kind::UnsafePath),
        ] {
            assert_eq!(by_code(code, status, doing).unwrap().kind(), expected, "{code}");
        }
        assert!(by_code("SomethingNew", 400, Doing::Reading).is_none() && by_code("", 404, Doing::Reading).is_none());
    }
}
