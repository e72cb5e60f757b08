//! New UIDs for old ones: the same everywhere, reversible by nobody, remembered nowhere.
//!
//! A UID becomes `2.25.` and the decimal value of a UUID (PS3.5 B.2). The UUID is of version 8 (RFC 9562, 5.8: bits chosen by the
//! application): the first 128 bits of HMAC-SHA-256(project key, old UID) with version and variant set. The same UID therefore gets
//! the same successor in every instance, study, batch and machine of a project, references stay whole, and two projects cannot be
//! joined. UIDs of the standard's own registry name classes, syntaxes and frames of reference, not patients, and stay.

use super::pseudonym::digest;

/// Root of the UIDs that the standard itself assigns (PS3.6 Annex A).
const REGISTRY: &str = "1.2.840.10008.";

/// Whether a UID is one of the standard's own.
pub(crate) fn is_registered(uid: &str) -> bool {
    uid.starts_with(REGISTRY) && is_uid(uid)
}

/// Whether a text is a UID by PS3.5 9.1: digits and dots, no empty component, at most 64 characters.
pub(crate) fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The successor of a UID. Registered and empty ones are their own; text that is no UID gets a successor all the same.
pub(crate) fn remap(key: &[u8; 32], uid: &str) -> String {
    let uid = uid.trim_matches([' ', '\0']);
    if uid.is_empty() || is_registered(uid) {
        return uid.to_owned();
    }
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest(key, &[uid.as_bytes()])[..16]);
    bytes[6] = (bytes[6] & 0x0F) | 0x80;
    bytes[8] = (bytes[8] & 0x3F) | 0x80;
    format!("2.25.{}", u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> [u8; 32] {
        std::array::from_fn(|index| index as u8)
    }

    /// ```python
    /// import hmac, hashlib
    /// def remap(uid, key=bytes(range(32))):
    ///     b = bytearray(hmac.new(key, uid.encode(), hashlib.sha256).digest()[:16])
    ///     b[6] = b[6] & 0x0f | 0x80; b[8] = b[8] & 0x3f | 0x80
    ///     return '2.25.' + str(int.from_bytes(b, 'big'))
    /// ```
    #[test]
    fn the_mapping_is_frozen() {
        for (old, new) in [
            ("1.2.826.0.1.3680043.8.498.1", "2.25.78506895658433357659031664176273606016"),
            ("1.3.12.2.1107.5.2.32.35131.2014031013000000000000000", "2.25.44510400581225255348733193841174907717"),
        ] {
            assert_eq!(remap(&key(), old), new);
            assert_eq!(remap(&key(), &format!("{old}\0")), new, "padding is not part of a UID");
            assert!(is_uid(new) && new.len() <= 64);
        }
    }

    #[test]
    fn registered_uids_stay() {
        for uid in ["1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.4.1.1", ""] {
            assert_eq!(remap(&key(), uid), uid);
        }
        // Beside the registry, or text behind its root: not the registry.
        for uid in ["1.2.840.100081.2", "1.2.840.10008", "1.2.840.10008.DOE^JOHN"] {
            assert!(remap(&key(), uid).starts_with("2.25."));
        }
    }

    #[test]
    fn another_project_has_other_uids() {
        assert_ne!(remap(&key(), "1.2.3.4"), remap(&[9; 32], "1.2.3.4"));
    }
}
