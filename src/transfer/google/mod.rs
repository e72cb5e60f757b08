//! What Google's stores share: credentials, and uploads in resumable sessions.

pub(super) mod credentials;
pub(super) mod resumable;
