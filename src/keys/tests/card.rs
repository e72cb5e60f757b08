//! Key cards: what they say, that they say it in one way, and that OpenSSL and Python agree.

use super::super::card::Card;
use super::super::dates::Moment;
use super::*;

const LABEL: &str = "Universit\u{e4}tsklinik, MR \"3\" \\ \u{1f9e0}";

/// A store with one identity that expires, and its card.
fn with_card(place: &tempfile::TempDir) -> (KeyStore, String, String) {
    let keys = store(place);
    let id = keys.generate(LABEL).unwrap();
    keys.set_expiry(&id, Some("2099-06-30T12:00:00Z")).unwrap();
    let card = keys.export_card(&id).unwrap();
    (keys, id, card)
}

#[test]
fn a_card_brings_keys_label_and_expiry_and_no_trust() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (hospital, id, card) = with_card(&here);
    assert!(card.is_ascii() && card.starts_with("smp-key-card/v1\n{\"agree\":\"") && card.lines().count() == 3);
    let researcher = store(&there);
    assert_eq!(researcher.import("", &card).unwrap(), id);
    assert_eq!(researcher.label(&id).unwrap(), LABEL);
    assert_eq!(researcher.expires(&id).unwrap().as_deref(), Some("2099-06-30T12:00:00Z"));
    assert_eq!(researcher.fingerprint(&id).unwrap(), hospital.fingerprint(&id).unwrap());
    assert!(!researcher.is_confirmed(&id).unwrap());
    assert_eq!(kind(researcher.recipient(&id)), Kind::KeyUnconfirmed);
    assert_eq!(kind(researcher.import("", &card)), Kind::KeyExists);
    researcher.remove(&id).unwrap();
    researcher.import("radiology", &card.replace('\n', "\r\n")).unwrap();
    assert_eq!(researcher.label(&id).unwrap(), "radiology");
    assert_eq!(kind(researcher.export_card(&id)), Kind::PrivateKeyMissing);
    assert_eq!(kind(researcher.import("", &hospital.export_public(&id).unwrap())), Kind::InvalidArgument, "a PEM brings no label");
    hospital.set_expiry(&id, None).unwrap();
    assert!(hospital.export_card(&id).unwrap().contains("\"expires\":\"\""));
}

#[test]
fn a_card_with_any_byte_changed_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let (_, _, card) = with_card(&place);
    assert!(Card::read(&card).is_ok());
    for position in 0..card.len() {
        // Every single bit would take minutes; one low and one high bit of every byte reach every field.
        for bit in [0x01, 0x10] {
            let mut bytes = card.clone().into_bytes();
            bytes[position] ^= bit;
            let forged = String::from_utf8(bytes).unwrap();
            // A change that leaves no card at all is refused as PEM.
            assert!(Card::read(&forged).is_err(), "byte {position}");
        }
    }
    for forged in [
        card[..card.len() - 1].to_owned(),
        format!("{card}\n"),
        format!("{card} "),
        format!("\n{card}"),
        card.replacen('\n', "\r\n", 1),
        card.replace("\"v\":1", "\"v\":2"),
        card.replace("\"v\":1", "\"v\": 1"),
        card.replace("smp-key-card/v1", "smp-key-card/v2"),
        card.replace("\\u00e4", "\u{e4}"),
        card.replace("\\u00e4", "\\u00E4"),
        format!("{card}{}", "A".repeat(8 << 10)),
    ] {
        assert_eq!(kind(Card::read(&forged)), Kind::KeyInvalid, "{forged}");
    }
    let other = tempfile::tempdir().unwrap();
    assert_eq!(kind(store(&other).import("x", &card.replacen("2099", "2199", 1))), Kind::KeyInvalid);
    assert!(store(&other).ids().unwrap().is_empty());
}

#[test]
fn a_genuinely_signed_card_must_make_sense_too() {
    let place = tempfile::tempdir().unwrap();
    let keys = store(&place);
    let (ours, theirs) = (keys.generate("ours").unwrap(), keys.generate("theirs").unwrap());
    let private = keys.private(&ours).unwrap();
    let moment = |text: &str| Moment::parse(text);
    let signed = |of: &str, created: &str, expires: Option<&str>, label: &str| {
        let keys = keys.entry(of).unwrap().keys().clone();
        let card =
            Card { keys, created: moment(created).unwrap(), expires: expires.map(|text| moment(text).unwrap()), label: label.to_owned() };
        Card::read(&card.write(&*private).unwrap())
    };
    assert!(signed(&ours, "2024-01-01T00:00:00Z", Some("2024-01-01T00:00:00Z"), "x").is_ok());
    assert_eq!(kind(signed(&ours, "2024-01-01T00:00:01Z", Some("2024-01-01T00:00:00Z"), "x")), Kind::KeyInvalid);
    assert_eq!(kind(signed(&ours, "2024-01-01T00:00:00Z", None, "")), Kind::KeyInvalid);
    assert_eq!(kind(signed(&ours, "2024-01-01T00:00:00Z", None, "two\nlines")), Kind::KeyInvalid);
    assert_eq!(kind(signed(&theirs, "2024-01-01T00:00:00Z", None, "x")), Kind::KeyInvalid, "signed by another identity");
}

#[test]
fn openssl_checks_a_cards_signature_and_its_key() {
    let place = tempfile::tempdir().unwrap();
    let (keys, id, card) = with_card(&place);
    let lines: Vec<&str> = card.lines().collect();
    let json: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    let decode = |text: &str| base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("sign.der"), decode(json["sign"].as_str().unwrap())).unwrap();
    fs::write(at("signature"), decode(lines[2])).unwrap();
    let Some((accepted, pem)) = openssl(&["pkey", "-pubin", "-inform", "DER", "-in", &at("sign.der")], b"") else { return };
    assert!(accepted && keys.export_public(&id).unwrap().as_bytes().ends_with(&pem));
    fs::write(at("sign.pem"), pem).unwrap();
    let check = ["dgst", "-sha384", "-verify", &at("sign.pem"), "-signature", &at("signature")];
    let message = format!("{}\n{}\n", lines[0], lines[1]);
    assert!(openssl(&check, message.as_bytes()).unwrap().0);
    assert!(!openssl(&check, message.trim_end().as_bytes()).unwrap().0);
    assert_eq!(json["label"], LABEL);
    assert_eq!(json["created"].as_str().unwrap(), keys.created(&id).unwrap());
}
