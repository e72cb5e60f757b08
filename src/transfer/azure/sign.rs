//! Shared Key: how a request is signed with the key of a storage account.
//!
//! HMAC-SHA256 over a text made of the method, the standard headers, the `x-ms-` headers and the resource, as "Authorize with Shared Key"
//! of Azure's REST reference describes it for versions since 2015-02-21, in which a length of 0 is an empty line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use time::OffsetDateTime;
use time::macros::format_description;

use super::Request;
use crate::error::{Error, Kind, Result, Stage};
use crate::secret::Secret;

/// Standard headers in the order in which they are signed. `Date` stays empty, since `x-ms-date` takes its place.
const SIGNED: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// The key of a storage account.
pub(super) struct AccountKey {
    account: String,
    key: Secret<Vec<u8>>,
}

impl AccountKey {
    /// Takes the key as the portal shows it, in Base64.
    pub fn new(account: &str, base64: &str) -> Option<AccountKey> {
        let key = STANDARD.decode(base64.trim()).ok().filter(|key| !key.is_empty())?;
        Some(AccountKey { account: account.to_owned(), key: Secret::new(key) })
    }

    /// The value of `Authorization`. `path` is the request's path as it is sent, encoded.
    pub fn authorization(&self, request: &Request, path: &str) -> Result<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose())
            .map_err(|_| Error::new(Kind::Internal, "a key cannot be used for a signature").at(Stage::Transfer))?;
        mac.update(text_to_sign(&self.account, request, path).as_bytes());
        Ok(format!("SharedKey {}:{}", self.account, STANDARD.encode(mac.finalize().into_bytes())))
    }
}

fn text_to_sign(account: &str, request: &Request, path: &str) -> String {
    let mut text = format!("{}\n", request.method);
    for name in SIGNED {
        let value = request.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str());
        match (name, value) {
            ("content-length", _) if !request.body.is_empty() => text.push_str(&request.body.len().to_string()),
            (_, value) => text.push_str(value.unwrap_or_default()),
        }
        text.push('\n');
    }
    // The names here are letters and hyphens, for which the service's own order is that of bytes.
    let mut own: Vec<_> = request.headers.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
    own.sort();
    for (name, value) in own {
        text.push_str(&format!("{name}:{}\n", value.trim()));
    }
    text.push_str(&format!("/{account}{path}"));
    let mut query: Vec<_> = request.query.iter().collect();
    query.sort();
    for (name, value) in query {
        text.push_str(&format!("\n{name}:{value}"));
    }
    text
}

/// A moment as HTTP writes it (RFC 9110, 5.6.7).
pub(super) fn http_date(moment: OffsetDateTime) -> Result<String> {
    let format = format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    moment.to_offset(time::UtcOffset::UTC).format(format).map_err(|_| Error::new(Kind::Internal, "no date of today").at(Stage::Transfer))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The public key of the emulator's account.
    const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    fn signed(request: Request, path: &str) -> String {
        let request = request.header("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT").header("x-ms-version", "2021-12-02");
        AccountKey::new("account1", KEY).unwrap().authorization(&request, path).unwrap()
    }

    #[test]
    fn signatures_are_those_of_microsofts_own_library() {
        // SharedKeyCredentialPolicy of the Python package azure-storage-blob 12.31.1, for the same requests.
        let list =
            Request::new("GET", "").query("restype", "container").query("comp", "list").query("prefix", "a/b ä").query("marker", "x==");
        assert_eq!(signed(list, "/studies"), "SharedKey account1:5FJVWRGFfLHb3YXl+LNjiQ6GFO4Gt87qjAu/H8ntuMI=");
        let put = Request::new("PUT", "a b/ä+.smpp")
            .header("x-ms-blob-type", "BlockBlob")
            .header("content-type", "application/octet-stream")
            .header("if-none-match", "*")
            .body(&b"hello world"[..]);
        assert_eq!(signed(put, "/studies/a%20b/%C3%A4%2B.smpp"), "SharedKey account1:uQ2M0ndHzwl2w2ON84zN3xle51Z11Wq09mD5xF5BlqA=");
        // An emulator has the account in its path, and so twice in the text.
        let commit = Request::new("PUT", "x").query("comp", "blocklist");
        assert_eq!(signed(commit, "/account1/studies/x"), "SharedKey account1:tN+AFaztFu7Oux+vCQM7HKVNyisJqCWvRZuhK15NW/U=");
    }

    #[test]
    fn a_range_is_signed_as_documented() {
        // That library signs `x-ms-range` instead. openssl dgst -sha256 -mac HMAC over the text of the reference: method, seven empty lines,
        // If-Match, two empty lines, Range, the two headers, the resource.
        let read = Request::new("GET", "x").header("range", "bytes=0-9").header("if-match", "\"0x8D\"");
        assert_eq!(signed(read, "/studies/x"), "SharedKey account1:kLPkQa2oeUtDdwnWhz42GjsjajRcJ3ubjO1zO8UxYEA=");
    }

    #[test]
    fn a_date_is_written_as_http_does() {
        // The example of RFC 9110, 5.6.7.
        assert_eq!(http_date(OffsetDateTime::from_unix_timestamp(784_111_777).unwrap()).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn a_key_is_base64() {
        for wrong in ["", "not base64!", "Eby8vdM0="] {
            assert!(AccountKey::new("a", wrong).is_none(), "{wrong}");
        }
    }
}
