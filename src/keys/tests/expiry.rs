//! Until when keys may be used. Every moment is given; no test asks the clock what time it is.

use super::super::dates::Moment;
use super::*;

const LAST: &str = "2099-06-30T12:00:00Z";

fn at(text: &str) -> Moment {
    Moment::parse(text).unwrap()
}

/// A hospital's store with an identity, and a researcher's in which it is a confirmed peer.
struct Two {
    _places: [tempfile::TempDir; 2],
    hospital: KeyStore,
    researcher: KeyStore,
    id: String,
}

fn two() -> Two {
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (hospital, researcher) = (store(&places[0]), store(&places[1]));
    let id = hospital.generate("transfer").unwrap();
    researcher.import("hospital", &hospital.export_public(&id).unwrap()).unwrap();
    researcher.confirm(&id, &hospital.fingerprint(&id).unwrap()).unwrap();
    Two { _places: places, hospital, researcher, id }
}

#[test]
fn keys_are_good_through_the_second_of_their_expiry_and_not_after_it() {
    let Two { hospital, researcher, id, .. } = &two();
    for keys in [hospital, researcher] {
        assert_eq!(keys.expires(id).unwrap(), None);
        keys.set_expiry(id, Some(LAST)).unwrap();
        assert_eq!(keys.expires(id).unwrap().as_deref(), Some(LAST));
        assert!(keys.recipient_at(id, at(LAST)).is_ok());
        assert_eq!(kind(keys.recipient_at(id, at("2099-06-30T12:00:01Z"))), Kind::KeyExpired);
        assert_eq!(keys.signers_at(at(LAST)).unwrap().len(), 1);
        assert_eq!(keys.signers_at(at("2099-06-30T12:00:01Z")).unwrap().len(), 0);
    }
    assert!(hospital.signer_at(id, at(LAST)).is_ok());
    assert_eq!(kind(hospital.signer_at(id, at("2099-06-30T12:00:01Z"))), Kind::KeyExpired);
    hospital.set_expiry(id, None).unwrap();
    assert!(hospital.signer_at(id, at("9999-12-31T23:59:59Z")).is_ok());
}

#[test]
fn an_expired_identity_still_opens_and_may_be_rotated() {
    let Two { hospital, id, .. } = &two();
    hospital.set_expiry(id, Some(&hospital.created(id).unwrap())).unwrap();
    assert_eq!(kind(hospital.signer_at(id, at(LAST))), Kind::KeyExpired);
    let digest = hospital.entry(id).unwrap().keys().agree_digest();
    assert!(hospital.opener(&[digest]).is_ok());
    assert_eq!(hospital.openers().unwrap().len(), 1);
    let new = hospital.rotate(id).unwrap();
    assert_eq!(hospital.expires(&new).unwrap(), None);
    assert!(hospital.expires(id).unwrap().is_some());
}

#[test]
fn a_header_counts_when_it_was_made_before_its_senders_expiry() {
    let Two { hospital, researcher, id, .. } = &two();
    let digest = hospital.entry(id).unwrap().keys().sign_digest();
    assert!(researcher.sender(&digest).unwrap().check_created("9999-12-31T23:59:59Z").is_ok());
    researcher.set_expiry(id, Some("2001-01-01T00:00:00Z")).unwrap();
    let sender = researcher.sender(&digest).unwrap();
    assert!(sender.check_created("2001-01-01T00:00:00Z").is_ok());
    assert_eq!(kind(sender.check_created("2001-01-01T00:00:01Z")), Kind::KeyExpired);
    assert_eq!(kind(sender.check_created("whenever")), Kind::KeyExpired);
}

#[test]
fn a_signing_key_in_two_entries_expires_with_the_first() {
    let Two { hospital, researcher, id, .. } = &two();
    let pem = hospital.export_public(id).unwrap();
    let second = pem[1..].find("-----BEGIN").unwrap() + 1;
    let alone = researcher.import("the same hospital", &pem[second..]).unwrap();
    let digest = hospital.entry(id).unwrap().keys().sign_digest();
    let sender = || researcher.sender(&digest).unwrap();
    // An entry that was never confirmed has no say.
    researcher.set_expiry(&alone, Some("2001-01-01T00:00:00Z")).unwrap();
    assert!(sender().check_created(LAST).is_ok());
    researcher.confirm(&alone, &researcher.fingerprint(&alone).unwrap()).unwrap();
    assert_eq!(kind(sender().check_created(LAST)), Kind::KeyExpired);
}

#[test]
fn an_expiry_is_one_spelling_of_a_time_that_makes_sense() {
    let Two { hospital, researcher, id, .. } = &two();
    for strange in ["", "tomorrow", "2031-12-31", "2031-12-31T23:59:59+01:00", "2031-02-30T00:00:00Z"] {
        assert_eq!(kind(hospital.set_expiry(id, Some(strange))), Kind::InvalidArgument, "{strange}");
    }
    assert_eq!(kind(hospital.set_expiry(id, Some("2001-01-01T00:00:00Z"))), Kind::InvalidArgument, "before it was made");
    assert!(researcher.set_expiry(id, Some("2001-01-01T00:00:00Z")).is_ok(), "a peer's keys may be older than their import");
    assert_eq!(kind(hospital.set_expiry("0123456789abcdef", None)), Kind::KeyNotFound);
    assert_eq!(at(&hospital.created(id).unwrap()).text().unwrap(), hospital.created(id).unwrap());
}

#[test]
fn an_entry_of_an_earlier_version_opens_and_its_expiry_cannot_be_edited_away() {
    let Two { researcher, id, .. } = &two();
    let path = researcher.directory().join(format!("{id}.json"));
    let before = fs::read_to_string(&path).unwrap();
    assert!(!before.contains("expires"), "an entry without expiry is spelled as before there were any");
    researcher.set_expiry(id, Some(LAST)).unwrap();
    let with = fs::read_to_string(&path).unwrap();
    assert!(with.contains(&format!("\"expires\":\"{LAST}\"")));
    for edited in [with.replace("2099", "3099"), with.replace(&format!("\"expires\":\"{LAST}\","), "")] {
        assert_ne!(edited, with);
        fs::write(&path, edited).unwrap();
        assert_eq!(kind(researcher.expires(id)), Kind::KeyStoreUnavailable);
    }
    // A line of this store whose expiry is no time is damaged, not endless.
    let (line, name) = (with.lines().next().unwrap().replace(LAST, "never"), format!("{id}.json"));
    fs::write(&path, researcher.secrets.protect(&name, &line).unwrap()).unwrap();
    assert_eq!(kind(researcher.expires(id)), Kind::KeyStoreUnavailable);
    fs::write(&path, before).unwrap();
    assert_eq!(researcher.expires(id).unwrap(), None);
}
