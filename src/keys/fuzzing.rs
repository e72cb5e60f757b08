//! Fuzzing of keys: what must hold of every answer to a foreign PEM text. See [`crate::fuzzing`].

use super::card::Card;
use super::fingerprint::PublicPair;
use super::private_pem;

/// What was accepted shows itself in one form, which reads back as the same keys.
pub(crate) fn public_pem(text: &str) {
    if let Ok(pair) = PublicPair::from_pem(text) {
        let again = PublicPair::from_pem(&pair.to_pem()).expect("an accepted key can be shown");
        assert!(again == pair && again.fingerprint() == pair.fingerprint());
        assert_eq!(pair.id().len(), 16);
        assert!(!pair.verifies(b"message", text.as_bytes()));
    }
}

/// Encrypted private keys under a known passphrase.
pub(crate) fn private_pem(text: &str) {
    if let Ok(pair) = private_pem::read(text, "passphrase") {
        assert!(pair.public().is_ok());
    }
}

/// A card that is accepted carries keys that can be shown again. Its signature keeps a fuzzer out of most of what lies behind it; the parser
/// in front of the signature is what is tried here.
pub(crate) fn key_card(text: &str) {
    if let Ok(card) = Card::read(text) {
        assert!(PublicPair::from_pem(&card.keys.to_pem()).is_ok_and(|again| again == card.keys));
        assert!((1..=128).contains(&card.label.chars().count()));
    }
}
