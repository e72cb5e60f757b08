//! A key card: an identity's public keys, label and dates as a signed text, for exchange by mail.
//!
//! Three lines, each ended by a line feed, like the header of a package:
//! ```text
//! smp-key-card/v1
//! {"agree":"<SPKI DER, base64>","created":"…Z","expires":"…Z or empty","label":"…","sign":"<SPKI DER, base64>","v":1}
//! <base64 of the strict DER ECDSA P-384/SHA-384 signature by the key `sign` over lines 1 and 2 with their line feeds>
//! ```
//! The signature shows that whoever owns the signing key named this agree key, these dates and this label, so nobody can pair another's
//! signing key with an agree key of his own, and no mail server can move the expiry. It does not show who that is: a card is confirmed like
//! any other public key, by its fingerprint. Line 2 has one spelling (ASCII, keys sorted, no spaces; see `docs/keys.md`), enforced by writing
//! it again and comparing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::backend::PrivateKeys;
use super::dates::Moment;
use super::entry;
use super::fingerprint::PublicPair;
use crate::error::{Error, Kind, Result, Stage};

/// Line 1.
const FORMAT: &str = "smp-key-card/v1";

/// What line 1 of every version begins with.
const FAMILY: &str = "smp-key-card/";

/// Longest card that is looked at; 128 characters of label take at most 1,536 bytes.
const MAX_BYTES: usize = 8 << 10;

/// What a card says.
pub(super) struct Card {
    /// Both public keys.
    pub(super) keys: PublicPair,
    /// When the owner made the identity.
    pub(super) created: Moment,
    /// The last second in which the keys are good.
    pub(super) expires: Option<Moment>,
    /// What the owner calls the identity.
    pub(super) label: String,
}

/// Line 2, field for field, in the order in which it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    agree: String,
    created: String,
    expires: String,
    label: String,
    sign: String,
    v: u64,
}

/// Whether a text is meant to be a card, of whatever version.
pub(super) fn is_card(text: &str) -> bool {
    text.starts_with(FAMILY)
}

impl Card {
    /// The card as text, signed by the identity's own signing key.
    pub(super) fn write(&self, private: &dyn PrivateKeys) -> Result<String> {
        let [agree, sign] = self.keys.shown() else {
            return Err(Error::new(Kind::KeyInvalid, "a card shows two keys"));
        };
        let json = Json {
            agree: STANDARD.encode(agree),
            created: self.created.text()?,
            expires: self.expires.map(Moment::text).transpose()?.unwrap_or_default(),
            label: self.label.clone(),
            sign: STANDARD.encode(sign),
            v: 1,
        };
        let message = format!("{FORMAT}\n{}\n", line(&json)?);
        let signature = private.sign(message.as_bytes())?;
        Ok(format!("{message}{}\n", STANDARD.encode(signature)))
    }

    /// Reads a card strictly and checks its signature. Mail may have turned line feeds into CR LF, all of them; nothing else is forgiven.
    pub(super) fn read(text: &str) -> Result<Card> {
        if text.len() > MAX_BYTES {
            return Err(malformed("it is too long"));
        }
        let text = if text.matches("\r\n").count() == 3 { text.replace("\r\n", "\n") } else { text.to_owned() };
        let mut lines = text.split('\n');
        let (Some(format), Some(json), Some(signature), Some(""), None) =
            (lines.next(), lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(malformed("three lines are expected, each ended by a line feed"));
        };
        if format != FORMAT {
            return Err(malformed("not a card of version 1"));
        }
        let parsed: Json = serde_json::from_str(json).map_err(|_| malformed("line 2 has other fields than expected"))?;
        if line(&parsed)? != json || parsed.v != 1 {
            return Err(malformed("line 2 is not in canonical spelling"));
        }
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| malformed("a value is not base64"));
        let keys = PublicPair::from_der(vec![decode(&parsed.agree)?, decode(&parsed.sign)?])?;
        let message = text.get(..format.len() + json.len() + 2).ok_or_else(|| malformed("three lines are expected"))?;
        // The engine refuses missing padding and stray bits, and the decoder any DER but the strict one, so a card has one signature text per
        // signature.
        if !keys.verifies(message.as_bytes(), &decode(signature)?) {
            return Err(malformed("its signature does not verify"));
        }
        let moment = |text: &str| Moment::parse(text).ok_or_else(|| malformed("a date is not a time in UTC"));
        let created = moment(&parsed.created)?;
        let expires = if parsed.expires.is_empty() { None } else { Some(moment(&parsed.expires)?) };
        if expires.is_some_and(|expires| expires < created) {
            return Err(malformed("it expires before it was made"));
        }
        if !entry::is_label(&parsed.label) {
            return Err(malformed("its label is empty, too long or not printable"));
        }
        Ok(Card { keys, created, expires, label: parsed.label })
    }
}

/// Line 2 in its one spelling: what serde_json writes, with everything beyond ASCII as `\uXXXX`, so that no mail server has anything to
/// convert.
fn line(json: &Json) -> Result<String> {
    let utf8 = serde_json::to_string(json).map_err(|_| Error::new(Kind::Internal, "a card could not be written").at(Stage::Keys))?;
    let mut ascii = String::with_capacity(utf8.len());
    for character in utf8.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            // Outside of strings JSON is ASCII, so this stands in the label.
            for unit in character.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Ok(ascii)
}

fn malformed(detail: &'static str) -> Error {
    Error::new(Kind::KeyInvalid, format!("key card: {detail}")).with_hint("ask its owner to send the key card again, as an attachment")
}
