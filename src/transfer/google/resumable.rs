//! Google's resumable uploads: a session has an address of its own, which is itself the permission to send to it.
//!
//! Pieces are multiples of 256 KiB. The answer to each is 308 with the range that the server has, or the object's description after the last. The
//! address appears in no message, and no token is sent to it.

use bytes::Bytes;

use super::super::http::{Answer, Call, Doing, Http};
use crate::error::{Error, Kind, Result};

/// Bytes of a piece: a multiple of the 256 KiB that Google asks for.
pub(in crate::transfer) const PIECE_BYTES: usize = 8 << 20;

/// What a session answers.
pub(in crate::transfer) enum Reply {
    /// It has this many bytes.
    Received(u64),
    /// The object is there, described in the answer.
    Done(Answer),
    /// It says no.
    Refused(Answer),
}

/// The address of a new session, which must be the store's own.
pub(in crate::transfer) fn session(http: &Http, answer: &Answer) -> Result<String> {
    let address = answer.header("location").unwrap_or_default();
    let is_own = super::super::http::Place::origin_of(address.split('?').next().unwrap_or_default())
        .is_some_and(|origin| origin == http.place().origin);
    if is_own { Ok(address.to_owned()) } else { Err(Error::new(Kind::ServerFailed, "the store sent the upload elsewhere")) }
}

/// Sends bytes that follow those that the session has; `total` with the last of them.
pub(in crate::transfer) async fn send(http: &Http, session: &str, offset: u64, bytes: Bytes, total: Option<u64>) -> Result<Reply> {
    let size = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    let end = offset.saturating_add(bytes.len() as u64);
    let range = match end.checked_sub(1).filter(|_| !bytes.is_empty()) {
        Some(last) => format!("bytes {offset}-{last}/{size}"),
        None => format!("bytes */{size}"),
    };
    reply(http.send(Call::new("PUT", session).header("content-range", range).body(bytes)).await?)
}

/// Asks how far the session is.
pub(in crate::transfer) async fn position(http: &Http, session: &str, total: Option<u64>) -> Result<Reply> {
    send(http, session, 0, Bytes::new(), total).await
}

/// Gives the session up. Google answers 499 to that.
pub(in crate::transfer) async fn abandon(http: &Http, session: &str) -> Result<()> {
    let answer = http.send(Call::new("DELETE", session)).await?;
    match answer.status {
        404 | 410 | 499 => Ok(()),
        _ => answer.accepted(Doing::Writing).map(drop),
    }
}

fn reply(answer: Answer) -> Result<Reply> {
    match answer.status {
        308 => received(answer.header("range")).map(Reply::Received),
        200 | 201 => Ok(Reply::Done(answer)),
        _ => Ok(Reply::Refused(answer)),
    }
}

/// The bytes out of `bytes=0-42`; no header means none.
fn received(range: Option<&str>) -> Result<u64> {
    let Some(range) = range else { return Ok(0) };
    let last = range.strip_prefix("bytes=0-").or_else(|| range.strip_prefix("0-")).and_then(|last| last.parse::<u64>().ok());
    last.and_then(|last| last.checked_add(1)).ok_or_else(|| Error::new(Kind::ServerFailed, "the store does not say which bytes it has"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_has_is_counted_from_its_range() {
        // The example of Google's documentation: a session that has 43 bytes answers `Range: bytes=0-42`.
        assert_eq!(received(Some("bytes=0-42")).unwrap(), 43);
        assert_eq!(received(None).unwrap(), 0);
        for nonsense in ["bytes=1-42", "bytes=0-", "bytes=0-18446744073709551615", "42"] {
            assert_eq!(received(Some(nonsense)).unwrap_err().kind(), Kind::ServerFailed, "{nonsense}");
        }
    }
}
