//! Certificates, as OpenSSL sees them: read, verified, sealed for.

use super::super::dates::Moment;
use super::*;

const NOW: &str = "2099-01-01T00:00:00Z";

fn exported(keys: &KeyStore, id: &str) -> String {
    keys.export_certificate_at(id, Moment::parse(NOW).unwrap()).unwrap()
}

#[test]
fn openssl_reads_two_certificates_with_one_use_each() {
    let place = tempfile::tempdir().unwrap();
    let keys = store(&place);
    let id = keys.generate("transfer").unwrap();
    keys.set_expiry(&id, Some("2099-06-30T12:00:00Z")).unwrap();
    let pem = exported(&keys, &id);
    assert_eq!(pem, exported(&keys, &id), "nothing in it is left to chance");
    let (agree, sign) = pem.split_at(pem.rfind("-----BEGIN").unwrap());
    let pair = keys.entry(&id).unwrap().keys().clone();
    let grouped = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    let text =
        |pem: &str| openssl(&["x509", "-noout", "-text"], pem.as_bytes()).map(|(read, text)| (read, String::from_utf8(text).unwrap()));
    let Some((true, agree_text)) = text(agree) else { return assert!(text(agree).is_none()) };
    let (_, sign_text) = text(sign).unwrap();
    for (text, shown) in [
        (&agree_text, format!("Issuer: CN = smp {id} sign")),
        (&agree_text, format!("Subject: CN = smp {id} agree")),
        (&agree_text, "X509v3 Key Usage: critical\n                Key Agreement\n".to_owned()),
        (&agree_text, "X509v3 Basic Constraints: critical\n                CA:FALSE".to_owned()),
        (&agree_text, format!("X509v3 Subject Key Identifier: \n                {}", grouped(&pair.agree_digest()))),
        (&agree_text, format!("X509v3 Authority Key Identifier: \n                {}", grouped(&pair.sign_digest()))),
        (&agree_text, "Not After : Jun 30 12:00:00 2099 GMT".to_owned()),
        (&sign_text, format!("Issuer: CN = smp {id} sign")),
        (&sign_text, format!("Subject: CN = smp {id} sign")),
        (&sign_text, "Digital Signature, Certificate Sign\n".to_owned()),
        (&sign_text, "CA:TRUE, pathlen:0".to_owned()),
        (&sign_text, "Signature Algorithm: ecdsa-with-SHA384".to_owned()),
    ] {
        // OpenSSL 3.2 and later print names without spaces.
        let plain = |text: &str| text.replace(" = ", "=").replace(' ', "");
        assert!(plain(text).contains(&plain(&shown)), "{shown} is not in\n{text}");
    }
    let public = |pem: &str| openssl(&["x509", "-noout", "-pubkey"], pem.as_bytes()).unwrap().1;
    assert_eq!([public(agree), public(sign)].concat(), keys.export_public(&id).unwrap().into_bytes());

    // Another expiry is another certificate with another serial number; without one it ends never.
    let serial = |pem: &str| openssl(&["x509", "-noout", "-serial"], pem.as_bytes()).unwrap().1;
    keys.set_expiry(&id, None).unwrap();
    let endless = exported(&keys, &id);
    assert_ne!(serial(&endless), serial(&pem));
    assert_ne!(serial(agree), serial(sign));
    assert!(text(&endless).unwrap().1.contains("Not After : Dec 31 23:59:59 9999 GMT"));
}

#[test]
fn openssl_verifies_the_agree_key_under_the_signing_key_and_under_no_other() {
    let place = tempfile::tempdir().unwrap();
    let keys = store(&place);
    let (id, stranger) = (keys.generate("transfer").unwrap(), keys.generate("stranger").unwrap());
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, id: &str| {
        let pem = exported(&keys, id);
        let (agree, sign) = pem.split_at(pem.rfind("-----BEGIN").unwrap());
        fs::write(at(&format!("{name}-agree.pem")), agree).unwrap();
        fs::write(at(&format!("{name}-sign.pem")), sign).unwrap();
    };
    write("own", &id);
    write("other", &stranger);
    let verify = |authority: &str, leaf: &str| openssl(&["verify", "-x509_strict", "-CAfile", &at(authority), &at(leaf)], b"");
    let Some((verified, _)) = verify("own-sign.pem", "own-agree.pem") else { return };
    assert!(verified);
    assert!(verify("own-sign.pem", "own-sign.pem").unwrap().0);
    assert!(!verify("other-sign.pem", "own-agree.pem").unwrap().0);
    assert!(!verify("own-sign.pem", "other-agree.pem").unwrap().0);
}

#[test]
fn openssl_seals_for_the_certificate_and_the_exported_private_key_opens() {
    let place = tempfile::tempdir().unwrap();
    let keys = store(&place);
    let id = keys.generate("transfer").unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("recipient.pem"), exported(&keys, &id)).unwrap();
    let private = keys.export_private(&id, &Secret::new("pass".to_owned())).unwrap();
    fs::write(at("private.pem"), private.as_bytes()).unwrap();
    fs::write(at("study.tar"), b"slices").unwrap();
    let (recipient, study, sealed, key) = (at("recipient.pem"), at("study.tar"), at("study.cms"), at("private.pem"));
    for by_key in [&[][..], &["-keyid"]] {
        let mut seal = vec!["cms", "-encrypt", "-binary", "-stream", "-aes-256-gcm", "-outform", "DER", "-in", &study, "-out", &sealed];
        seal.extend(["-recip", &recipient]);
        seal.extend(["-keyopt", "ecdh_kdf_md:sha384"]);
        seal.extend(by_key);
        let Some((done, _)) = openssl(&seal, b"") else { return };
        assert!(done);
        let open = ["cms", "-decrypt", "-inform", "DER", "-in", &sealed, "-recip", &recipient, "-inkey", &key, "-passin", "pass:pass"];
        assert_eq!(openssl(&open, b"").unwrap(), (true, b"slices".to_vec()));
    }
}

#[test]
fn only_an_identity_that_is_sealed_for_has_a_certificate() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (keys, other) = (store(&here), store(&there));
    let id = keys.generate("transfer").unwrap();
    let peer = other.import("peer", &keys.export_public(&id).unwrap()).unwrap();
    assert_eq!(kind(other.export_certificate(&peer)), Kind::PrivateKeyMissing);
    assert_eq!(kind(keys.export_certificate("0123456789abcdef")), Kind::KeyNotFound);
    keys.set_expiry(&id, Some("2098-12-31T23:59:59Z")).unwrap();
    assert_eq!(kind(keys.export_certificate_at(&id, Moment::parse(NOW).unwrap())), Kind::KeyExpired);
    keys.set_expiry(&id, None).unwrap();
    keys.rotate(&id).unwrap();
    assert_eq!(kind(keys.export_certificate(&id)), Kind::KeyExpired);
}
