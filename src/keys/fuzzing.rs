//! Fuzzing of keys: what must hold of every answer to a foreign PEM text. See [`crate::fuzzing`].

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
