//! The header of a package: three lines of text that anybody can read and only the sender can write.
//!
//! Line 1 names the format, line 2 is JSON in exactly one spelling (ASCII, keys sorted, no spaces, integers and strings only), line 3 is the
//! sender's ECDSA signature over lines 1 and 2 with their line feeds, in base64 of strict DER. "Exactly one spelling" is enforced by writing the
//! parsed header again and comparing bytes: duplicate keys, other key orders, escapes, spaces and number forms all fail there.
//!
//! Parsing trusts nothing and promises nothing: until the signature was checked, the one field to be used is `sender`, to find the key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::chunked;
use super::derive::{Name, Role};
use super::tree::Hash;
use super::wrap::{ENCAPSULATED, WRAPPED};
use crate::error::{Error, Kind, Result};
use crate::keys::{hex, unhex};

/// Name of the header object in the package's folder.
pub(super) const OBJECT: &str = "header.smp";
/// Largest header of the format, in bytes.
pub(super) const MAX_BYTES: u64 = 1 << 20;
/// Plaintext bytes of a pack, at most.
pub(super) const MAX_PACK: u64 = 1 << 30;
/// Recipients, at most.
pub(super) const MAX_RECIPIENTS: usize = 64;

/// First line of a header.
pub(super) const FORMAT: &str = "smp-package/v1";
const MAX_PURPOSE: usize = 128;
/// Seconds and `Z`: one spelling of a time.
const TIME: &[BorrowedFormatItem<'static>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// An encrypted object as the header lists it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ObjectRef {
    /// Root of the tree hash.
    pub(super) root: Hash,
    /// Random name.
    pub(super) name: Name,
    /// Sealed size in bytes.
    pub(super) size: u64,
}

impl ObjectRef {
    /// Name of the object in the package's folder.
    pub(super) fn file_name(&self, role: Role) -> String {
        format!("{}{}", hex(&self.name), role.ending())
    }
}

/// The package key wrapped for one recipient.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Recipient {
    /// HPKE ciphertext.
    pub(super) wrapped: [u8; WRAPPED],
    /// HPKE encapsulated key.
    pub(super) encapsulated: [u8; ENCAPSULATED],
    /// SHA-256 of the recipient's agree key (SPKI DER).
    pub(super) digest: [u8; 32],
}

/// The parsed line 2.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) created: String,
    pub(super) manifest: ObjectRef,
    pub(super) packs: Vec<ObjectRef>,
    pub(super) package: Name,
    pub(super) purpose: String,
    /// Sorted by digest, 1 to 64.
    pub(super) recipients: Vec<Recipient>,
    /// SHA-256 of the sender's signing key (SPKI DER).
    pub(super) sender: [u8; 32],
}

/// A parsed header with the bytes that are signed and the signature, not yet checked.
pub(super) struct Signed<'a> {
    pub(super) header: Header,
    pub(super) message: &'a [u8],
    pub(super) signature: Vec<u8>,
}

impl Header {
    /// Lines 1 and 2, ready to be signed.
    pub(super) fn message(&self) -> Result<String> {
        let defect = |_| Error::new(Kind::Internal, "the header could not be written").at(crate::error::Stage::Package);
        Ok(format!("{FORMAT}\n{}\n", serde_json::to_string(&Json::from(self)).map_err(defect)?))
    }
}

/// The header object: message and signature.
pub(super) fn write(message: &str, signature: &[u8]) -> Vec<u8> {
    format!("{message}{}\n", STANDARD.encode(signature)).into_bytes()
}

/// The present, as `created` spells it.
pub(super) fn now() -> Result<String> {
    let now = time::OffsetDateTime::now_utc().format(TIME);
    now.map_err(|_| Error::new(Kind::Internal, "the system clock is out of range").at(crate::error::Stage::Package))
}

/// Whether a purpose can stand in a header: at most 128 printable ASCII characters.
pub(super) fn is_purpose(text: &str) -> bool {
    text.len() <= MAX_PURPOSE && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
}

/// Parses a header object strictly. What is returned is not yet known to be the sender's.
pub(super) fn parse(bytes: &[u8]) -> Result<Signed<'_>> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).ok_or_else(|| malformed("not ASCII"))?;
    let mut lines = text.split('\n');
    let (Some(format), Some(json), Some(signature), Some(""), None) =
        (lines.next(), lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return Err(malformed("three lines are expected, each ended by a line feed"));
    };
    if format != FORMAT {
        return Err(malformed("not a package of version 1"));
    }
    // serde_json's limits of depth and the typed fields bound what a hostile line can cost.
    let parsed: Json = serde_json::from_str(json).map_err(|_| malformed("line 2 has other fields than expected"))?;
    if serde_json::to_string(&parsed).ok().as_deref() != Some(json) {
        return Err(malformed("line 2 is not in canonical spelling"));
    }
    let message = bytes.get(..format.len() + json.len() + 2).ok_or_else(|| malformed("three lines are expected"))?;
    // The engine refuses missing padding and stray bits, so a signature too has one spelling.
    let signature = STANDARD.decode(signature).map_err(|_| malformed("line 3 is not base64"))?;
    Ok(Signed { header: parsed.try_into()?, message, signature })
}

/// Line 2, field for field, in the order in which it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    created: String,
    manifest: JsonObject,
    packs: Vec<JsonObject>,
    pkg: String,
    purpose: String,
    recipients: Vec<JsonRecipient>,
    sender: String,
    v: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonObject {
    mth: String,
    name: String,
    size: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRecipient {
    ct: String,
    enc: String,
    kid: String,
}

impl From<&Header> for Json {
    fn from(header: &Header) -> Json {
        let object = |object: &ObjectRef| JsonObject { mth: STANDARD.encode(object.root), name: hex(&object.name), size: object.size };
        let recipient = |recipient: &Recipient| JsonRecipient {
            ct: STANDARD.encode(recipient.wrapped),
            enc: STANDARD.encode(recipient.encapsulated),
            kid: hex(&recipient.digest),
        };
        Json {
            created: header.created.clone(),
            manifest: object(&header.manifest),
            packs: header.packs.iter().map(object).collect(),
            pkg: hex(&header.package),
            purpose: header.purpose.clone(),
            recipients: header.recipients.iter().map(recipient).collect(),
            sender: hex(&header.sender),
            v: 1,
        }
    }
}

impl TryFrom<Json> for Header {
    type Error = Error;

    fn try_from(json: Json) -> Result<Header> {
        if json.v != 1 {
            return Err(malformed("not a package of version 1"));
        }
        if time::PrimitiveDateTime::parse(&json.created, TIME).is_err() {
            return Err(malformed("created is not a time in UTC"));
        }
        if !is_purpose(&json.purpose) {
            return Err(malformed("purpose is too long or not printable"));
        }
        let manifest = object(json.manifest)?;
        let packs = json.packs.into_iter().map(object).collect::<Result<Vec<_>>>()?;
        if packs.is_empty() || packs.iter().any(|pack| chunked::plain_len(pack.size).is_none_or(|plain| plain > MAX_PACK)) {
            return Err(malformed("no pack, or one beyond 1 GiB"));
        }
        let mut names: Vec<&Name> = packs.iter().map(|pack| &pack.name).chain([&manifest.name]).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(malformed("two objects have the same name"));
        }
        let recipients = json.recipients.into_iter().map(recipient).collect::<Result<Vec<_>>>()?;
        if recipients.is_empty() || recipients.len() > MAX_RECIPIENTS || !recipients.is_sorted_by(|a, b| a.digest < b.digest) {
            return Err(malformed("1 to 64 recipients, sorted and each once, are expected"));
        }
        let (package, sender) = (fixed_hex(&json.pkg)?, fixed_hex(&json.sender)?);
        Ok(Header { created: json.created, manifest, packs, package, purpose: json.purpose, recipients, sender })
    }
}

fn object(json: JsonObject) -> Result<ObjectRef> {
    if chunked::plain_len(json.size).is_none() {
        return Err(malformed("an object has a size that sealing cannot produce"));
    }
    Ok(ObjectRef { root: fixed_base64(&json.mth)?, name: fixed_hex(&json.name)?, size: json.size })
}

fn recipient(json: JsonRecipient) -> Result<Recipient> {
    Ok(Recipient { wrapped: fixed_base64(&json.ct)?, encapsulated: fixed_base64(&json.enc)?, digest: fixed_hex(&json.kid)? })
}

/// Bytes of base64 of a fixed length.
pub(super) fn fixed_base64<const N: usize>(text: &str) -> Result<[u8; N]> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| malformed("a base64 value has the wrong form or length"))
}

/// Bytes of lower-case hex of a fixed length.
pub(super) fn fixed_hex<const N: usize>(text: &str) -> Result<[u8; N]> {
    let bytes = unhex(text.as_bytes()).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| malformed("a hex value has the wrong form or length"))
}

fn malformed(detail: &'static str) -> Error {
    Error::new(Kind::PackageMalformed, format!("header: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        let object = |byte: u8| ObjectRef { root: [byte; 32], name: [byte; 16], size: chunked::sealed_len(1000) };
        let recipient = |byte: u8| Recipient { wrapped: [byte; WRAPPED], encapsulated: [byte; ENCAPSULATED], digest: [byte; 32] };
        Header {
            created: "2024-02-29T23:59:59Z".to_owned(),
            manifest: object(1),
            packs: vec![object(3), object(2)],
            package: [9; 16],
            purpose: "say \"breast\" \\ MRI".to_owned(),
            recipients: vec![recipient(4), recipient(5)],
            sender: [7; 32],
        }
    }

    fn refused(text: &str) {
        assert_eq!(parse(text.as_bytes()).err().expect(text).kind(), Kind::PackageMalformed, "{text}");
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let header = sample();
        let message = header.message().unwrap();
        let bytes = write(&message, b"signature");
        let signed = parse(&bytes).unwrap();
        assert!(signed.header == header);
        assert_eq!((signed.message, signed.signature.as_slice()), (message.as_bytes(), b"signature".as_slice()));
    }

    /// Written by hand from the format's description, so that a slip in writer and reader alike would show.
    #[test]
    fn the_spelling_is_that_of_the_format() {
        let mut header = sample();
        header.packs.truncate(1);
        header.recipients.truncate(1);
        header.purpose = "test".to_owned();
        let b64 = |byte: u8, length: usize| STANDARD.encode(vec![byte; length]);
        let h = |pair: &str, count: usize| pair.repeat(count);
        let expected = format!(
            "smp-package/v1\n{{\"created\":\"2024-02-29T23:59:59Z\",\"manifest\":{{\"mth\":\"{}\",\"name\":\"{}\",\"size\":1072}},\
             \"packs\":[{{\"mth\":\"{}\",\"name\":\"{}\",\"size\":1072}}],\"pkg\":\"{}\",\"purpose\":\"test\",\
             \"recipients\":[{{\"ct\":\"{}\",\"enc\":\"{}\",\"kid\":\"{}\"}}],\"sender\":\"{}\",\"v\":1}}\n",
            b64(1, 32),
            h("01", 16),
            b64(3, 32),
            h("03", 16),
            h("09", 16),
            b64(4, 48),
            b64(4, 97),
            h("04", 32),
            h("07", 32)
        );
        assert_eq!(header.message().unwrap(), expected);
    }

    #[test]
    fn another_spelling_of_the_same_header_is_refused() {
        let good = String::from_utf8(write(&sample().message().unwrap(), b"signature")).unwrap();
        parse(good.as_bytes()).unwrap();
        refused("");
        refused(&good[..good.len() - 1]);
        refused(&format!("{good}\n"));
        refused(&good.replace('\n', "\r\n"));
        refused(&good.replace("v1\n", "v2\n"));
        refused(&good.replace("\"v\":1", "\"v\":2"));
        refused(&good.replace("\"v\":1", "\"v\":1.0"));
        refused(&good.replace("\"v\":1", "\"v\":01"));
        refused(&good.replace("\"v\":1", "\"v\": 1"));
        refused(&good.replace("\"v\":1", "\"v\":1,\"v\":1"));
        refused(&good.replace("\"v\":1", "\"v\":1,\"w\":1"));
        refused(&good.replace("MRI", "\\u004dRI"));
        refused(&good.replace("MRI", "MR\u{ced}"));
        refused(&good.replace("MRI", &"x".repeat(120)));
        refused(&good.replace("2024-02-29", "2023-02-29"));
        refused(&good.replace("59Z", "59+00:00"));
        refused(&good.replace("0909", "09AA"));
        refused(&good.replace("0909", "09"));
        refused(&good.replace("\"size\":1072", "\"size\":71"));
        refused(&good.replace("\"size\":1072", "\"size\":16456"));
        refused(&good.replace("\"size\":1072", "\"size\":-1"));
        refused(&good.replace("\"size\":1072", "\"size\":18446744073709551615"));
        refused(&good.replace(&"03".repeat(16), &"01".repeat(16)));
        refused(&good.replace(&"05".repeat(32), &"04".repeat(32)));
        refused(&good.replace(&"05".repeat(32), &"03".repeat(32)));
        refused(&good.replace("c2lnbmF0dXJl", "c2lnbmF0dXJ"));
        let swapped = good.replacen("\"manifest\"", "\"packs\"", 1);
        refused(&swapped);
        refused(&format!("smp-package/v1\n{}\nAAAA\n", "[".repeat(100_000)));
    }

    #[test]
    fn packs_and_recipients_have_their_limits() {
        let refused_header = |change: &dyn Fn(&mut Header)| {
            let mut header = sample();
            change(&mut header);
            refused(std::str::from_utf8(&write(&header.message().unwrap(), b"s")).unwrap());
        };
        refused_header(&|header| header.packs.clear());
        refused_header(&|header| header.packs[0].size = chunked::sealed_len(MAX_PACK + 1));
        refused_header(&|header| header.recipients.clear());
        refused_header(&|header| {
            let one = header.recipients[0].clone();
            header.recipients = (0..65).map(|byte| Recipient { digest: [byte; 32], ..one.clone() }).collect();
        });
        let mut header = sample();
        header.packs[0].size = chunked::sealed_len(MAX_PACK);
        assert!(parse(&write(&header.message().unwrap(), b"s")).is_ok());
    }
}
