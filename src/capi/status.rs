//! Status: the outcomes of calls.
//!
//! -1.. the call itself, -100.. configuration, -200.. keys and packages, -300.. transfer, -400.. DICOM, -500.. de-identification, -600..
//! imaging, -700.. inference, -800.. audit, -900.. erasure, -1000.. results.

use crate::error::Kind;

/// It worked.
pub const SMP_OK: i32 = 0;

/// The work is not finished yet. Not an error.
pub const SMP_PENDING: i32 = 1;

/// It worked, with a reservation that the function describes. Not an error.
pub const SMP_PARTIAL: i32 = 2;

/// Name and meaning of a status.
pub(super) fn describe(status: i32) -> Option<(&'static str, &'static str)> {
    match status {
        SMP_OK => Some(("SMP_OK", "it worked")),
        SMP_PENDING => Some(("SMP_PENDING", "the work is not finished yet")),
        SMP_PARTIAL => Some(("SMP_PARTIAL", "it worked, with a reservation")),
        _ => Kind::ALL.iter().find(|kind| kind.code() == status).map(|kind| (kind.name(), kind.text())),
    }
}

// From here to the end: one constant per `Kind`, in its order, because cbindgen reads plain constants only. `SMP_BLESS=1 cargo test
// --test abi` writes them; the same test fails when they differ from the table in `error.rs`.
