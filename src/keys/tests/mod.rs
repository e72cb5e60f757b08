//! The key store as its callers see it, and side by side with the OpenSSL command line.

mod card;
mod certificate;
mod expiry;

use super::*;
use p384::pkcs8::DecodePrivateKey;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

fn store(place: &tempfile::TempDir) -> KeyStore {
    let folder = place.path().join("keys");
    let key_file = folder.join("master.key");
    KeyStore::open(&folder, Unlock::KeyFile(key_file)).unwrap()
}

fn passphrase(text: &str) -> Unlock {
    Unlock::Passphrase(Secret::new(text.to_owned()))
}

fn kind<T>(result: Result<T>) -> Kind {
    result.err().expect("an error is expected").kind()
}

/// Runs OpenSSL on some input; `None`, loudly, where there is none.
fn openssl(arguments: &[&str], input: &[u8]) -> Option<(bool, Vec<u8>)> {
    let child = Command::new("openssl").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else {
        eprintln!("SKIPPED: no openssl command on this machine");
        return None;
    };
    // A command that refuses its arguments may leave before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Some((output.status.success(), output.stdout))
}

#[test]
fn a_store_opens_again_with_the_same_key_file_only() {
    let place = tempfile::tempdir().unwrap();
    let id = store(&place).generate("transfer").unwrap();
    let again = store(&place);
    assert_eq!(again.ids().unwrap(), std::slice::from_ref(&id));
    assert!(again.has_private(&id).unwrap());
    assert!(again.private(&id).unwrap().sign(b"message").is_ok());

    let folder = place.path().join("keys");
    let other = place.path().join("other.key");
    files::create_private(&other, &[9; 32]).unwrap();
    assert_eq!(kind(KeyStore::open(&folder, Unlock::KeyFile(other))), Kind::WrongPassphrase);
    assert_eq!(kind(KeyStore::open(&folder, passphrase("any"))), Kind::WrongPassphrase);
    let missing = place.path().join("missing.key");
    assert_eq!(kind(KeyStore::open(&folder, Unlock::KeyFile(missing.clone()))), Kind::KeyStoreUnavailable);
    assert!(!missing.exists(), "a key file is made for a new store only");
}

#[test]
fn a_wrong_passphrase_is_told_at_opening() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("keys");
    let id = KeyStore::open(&folder, passphrase("correct horse")).unwrap().generate("transfer").unwrap();
    assert_eq!(kind(KeyStore::open(&folder, passphrase("correct house"))), Kind::WrongPassphrase);
    assert_eq!(kind(KeyStore::open(&folder, passphrase(""))), Kind::InvalidArgument);
    let keys = KeyStore::open(&folder, passphrase("correct horse")).unwrap();
    assert!(keys.private(&id).is_ok());
}

#[test]
fn a_peer_is_confirmed_by_its_whole_fingerprint_only() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (hospital, researcher) = (store(&here), store(&there));
    let id = hospital.generate("radiology").unwrap();
    let peer = researcher.import("St Elsewhere", &hospital.export_public(&id).unwrap()).unwrap();
    assert_eq!(peer, id, "the same keys have the same id in every store");
    assert!(!researcher.has_private(&peer).unwrap());
    assert_eq!(kind(researcher.recipient(&peer)), Kind::KeyUnconfirmed);
    let digest = hospital.entry(&id).unwrap().keys().sign_digest();
    assert_eq!(kind(researcher.sender(&digest)), Kind::KeyUnconfirmed);

    let spoken = hospital.fingerprint(&id).unwrap();
    assert_eq!(spoken.len(), 16 * 4 + 15);
    for wrong in ["", &spoken[..4], &spoken[..74], &format!("{spoken} 00"), &spoken.replace(|c: char| c.is_ascii_digit(), "0"), "zz"] {
        assert_eq!(kind(researcher.confirm(&peer, wrong)), Kind::FingerprintMismatch);
        assert!(!researcher.is_confirmed(&peer).unwrap());
    }
    let coloned = spoken.replace(' ', ":").to_uppercase();
    researcher.confirm(&peer, &coloned).unwrap();
    researcher.confirm(&peer, &spoken.replace(' ', "")).unwrap();
    assert!(researcher.recipient(&peer).is_ok());
    assert_eq!(researcher.sender(&digest).unwrap().id, peer);
    assert_eq!(kind(researcher.sender(&[0; 32])), Kind::UnknownSender);
    assert_eq!(kind(researcher.import("again", &hospital.export_public(&id).unwrap())), Kind::KeyExists);
    assert_eq!(kind(hospital.import("myself", &hospital.export_public(&id).unwrap())), Kind::KeyExists);
}

#[test]
fn a_rotated_identity_still_opens_and_no_longer_seals() {
    let place = tempfile::tempdir().unwrap();
    let keys = store(&place);
    let old = keys.generate("transfer").unwrap();
    let new = keys.rotate(&old).unwrap();
    assert_ne!(old, new);
    assert_eq!(keys.replaced_by(&old).unwrap(), Some(new.clone()));
    assert_eq!(keys.label(&new).unwrap(), "transfer");
    assert_eq!(kind(keys.signer(&old)), Kind::KeyExpired);
    assert_eq!(kind(keys.recipient(&old)), Kind::KeyExpired);
    assert_eq!(kind(keys.rotate(&old)), Kind::KeyExpired);
    assert!(keys.signer(&new).is_ok() && keys.recipient(&new).is_ok());
    let old_digest = keys.entry(&old).unwrap().keys().agree_digest();
    assert_eq!(keys.opener(&[[0; 32], old_digest]).unwrap().0, 1);
    assert_eq!(kind(keys.opener(&[[0; 32]])), Kind::NotARecipient);
    let peer_place = tempfile::tempdir().unwrap();
    let peer = store(&peer_place).import("peer", &keys.export_public(&new).unwrap()).unwrap();
    assert_eq!(kind(store(&peer_place).rotate(&peer)), Kind::PrivateKeyMissing);
    assert_eq!(kind(store(&peer_place).signer(&peer)), Kind::PrivateKeyMissing);
}

#[test]
fn a_removed_entry_is_gone_from_memory_and_disk() {
    let place = tempfile::tempdir().unwrap();
    let keys = store(&place);
    let id = keys.generate("transfer").unwrap();
    keys.private(&id).unwrap();
    keys.remove(&id).unwrap();
    assert_eq!(kind(keys.private(&id)), Kind::KeyNotFound);
    assert_eq!(kind(keys.remove(&id)), Kind::KeyNotFound);
    assert!(keys.ids().unwrap().is_empty());
    for strange in ["", "../keys/store", "0123456789ABCDEF", "0123456789abcde", "store"] {
        assert_eq!(kind(keys.remove(strange)), Kind::KeyNotFound);
        assert_eq!(kind(keys.export_public(strange)), Kind::KeyNotFound);
    }
    assert!(place.path().join("keys/store.json").exists());
}

#[test]
fn an_edited_entry_is_refused() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keys = store(&here);
    let peer = keys.import("peer", &store(&there).export_public(&store(&there).generate("x").unwrap()).unwrap()).unwrap();
    let path = here.path().join("keys").join(format!("{peer}.json"));
    let genuine = fs::read_to_string(&path).unwrap();
    let confirmed = genuine.replace("\"confirmed\":null", "\"confirmed\":\"2024-01-01T00:00:00Z\"");
    assert_ne!(confirmed, genuine);
    fs::write(&path, confirmed).unwrap();
    assert_eq!(kind(keys.is_confirmed(&peer)), Kind::KeyStoreUnavailable);
    assert_eq!(kind(keys.ids()), Kind::KeyStoreUnavailable);
    fs::write(&path, &genuine).unwrap();
    assert!(!keys.is_confirmed(&peer).unwrap());
    // A genuine file of one store is a stranger in another.
    let other = tempfile::tempdir().unwrap();
    let elsewhere = store(&other);
    files::create_private(&other.path().join("keys").join(format!("{peer}.json")), genuine.as_bytes()).unwrap();
    assert_eq!(kind(elsewhere.entry(&peer).map(|_| ())), Kind::KeyStoreUnavailable);
}

#[test]
fn keys_without_their_master_secret_do_not_become_a_new_store() {
    let place = tempfile::tempdir().unwrap();
    store(&place).generate("transfer").unwrap();
    let folder = place.path().join("keys");
    fs::remove_file(folder.join("store.json")).unwrap();
    assert_eq!(kind(KeyStore::open(&folder, Unlock::KeyFile(folder.join("master.key")))), Kind::KeyStoreUnavailable);
}

#[test]
fn files_open_to_others_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let id = store(&place).generate("transfer").unwrap();
    let folder = place.path().join("keys");
    let open = || KeyStore::open(&folder, Unlock::KeyFile(folder.join("master.key")));
    let chmod = |name: &str, mode| fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    for name in ["master.key", "store.json"] {
        chmod(name, 0o640);
        assert_eq!(kind(open()), Kind::KeyStoreUnavailable, "{name}");
        chmod(name, 0o600);
    }
    let entry = format!("{id}.json");
    chmod(&entry, 0o604);
    assert_eq!(kind(open().unwrap().private(&id)), Kind::KeyStoreUnavailable);
    chmod(&entry, 0o600);
    for item in fs::read_dir(&folder).unwrap() {
        assert_eq!(item.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!(kind(open()), Kind::KeyStoreUnavailable);
}

#[test]
fn no_private_key_lies_in_clear_in_the_folder() {
    let place = tempfile::tempdir().unwrap();
    let keys = store(&place);
    let id = keys.generate("transfer").unwrap();
    let application = keys.application_key("audit").unwrap();
    let private = keys.entry(&id).unwrap().private(&keys.secrets).unwrap().unwrap();
    let scalar = |der: &[u8]| p384::SecretKey::from_pkcs8_der(der).unwrap().to_bytes().to_vec();
    let mut needles: Vec<Vec<u8>> = private.to_pkcs8().unwrap().iter().map(|der| scalar(der)).collect();
    needles.push(application.expose().to_vec());
    needles.extend(private.to_pkcs8().unwrap().iter().map(|der| der[der.len() / 4..der.len() / 4 + 24].to_vec()));
    for item in fs::read_dir(place.path().join("keys")).unwrap() {
        let bytes = fs::read(item.unwrap().path()).unwrap();
        for needle in &needles {
            let text = hex(needle);
            assert!(!bytes.windows(needle.len()).any(|window| window == needle.as_slice()));
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()));
        }
    }
}

#[test]
fn an_application_key_is_made_once_per_name() {
    let place = tempfile::tempdir().unwrap();
    let first = *store(&place).application_key("audit").unwrap().expose();
    assert_eq!(*store(&place).application_key("audit").unwrap().expose(), first);
    assert_ne!(*store(&place).application_key("deid").unwrap().expose(), first);
    for name in ["", "../audit", "Audit", "a.b", &"x".repeat(33)] {
        assert_eq!(kind(store(&place).application_key(name)), Kind::InvalidArgument);
    }
    let path = place.path().join("keys/app.audit.json");
    fs::copy(place.path().join("keys/app.deid.json"), &path).unwrap();
    assert_eq!(kind(store(&place).application_key("audit")), Kind::KeyStoreUnavailable);
}

#[test]
fn many_threads_may_change_one_store() {
    let place = tempfile::tempdir().unwrap();
    let keys = store(&place);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..3).for_each(|_| drop(keys.generate("transfer").unwrap())));
            scope.spawn(|| assert!(keys.ids().is_ok()));
        }
        let first: Vec<_> = (0..4).map(|_| scope.spawn(|| *keys.application_key("audit").unwrap().expose())).collect();
        let made: Vec<_> = first.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(made.windows(2).all(|pair| pair[0] == pair[1]));
    });
    assert_eq!(keys.ids().unwrap().len(), 12);
}

#[test]
fn openssl_reads_what_we_export() {
    let place = tempfile::tempdir().unwrap();
    let keys = store(&place);
    let id = keys.generate("transfer").unwrap();
    let pem = keys.export_public(&id).unwrap();
    let Some((accepted, der)) = openssl(&["pkey", "-pubin", "-outform", "DER"], pem.as_bytes()) else { return };
    assert!(accepted);
    let pair = keys.entry(&id).unwrap().keys().clone();
    let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&der).into();
    assert_eq!(digest, pair.agree_digest(), "the first block is the agree key");

    // The second block is the signing key: OpenSSL checks a signature of ours with it.
    let second = pem.find("-----BEGIN").and_then(|first| pem[first + 1..].find("-----BEGIN").map(|at| first + 1 + at)).unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("sign.pem"), &pem[second..]).unwrap();
    fs::write(at("signature"), keys.private(&id).unwrap().sign(b"the message").unwrap()).unwrap();
    let check = ["dgst", "-sha384", "-verify", &at("sign.pem"), "-signature", &at("signature")];
    assert!(openssl(&check, b"the message").unwrap().0);
    assert!(!openssl(&check, b"another message").unwrap().0);

    // Exported private keys: OpenSSL decrypts them and derives the same public keys.
    let private = keys.export_private(&id, &Secret::new("a passphrase".to_owned())).unwrap();
    let (accepted, public) = openssl(&["pkey", "-passin", "pass:a passphrase", "-pubout"], private.as_bytes()).unwrap();
    assert!(accepted && pem.as_bytes().starts_with(&public));
    assert!(!openssl(&["pkey", "-passin", "pass:wrong", "-pubout"], private.as_bytes()).unwrap().0);
}

#[test]
fn an_exported_identity_comes_back_the_same() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = store(&here).generate("transfer").unwrap();
    let secret = |text: &str| Secret::new(text.to_owned());
    let pem = store(&here).export_private(&id, &secret("one")).unwrap();
    let other = store(&there);
    assert_eq!(kind(other.import_private("moved", &pem, &secret("two"))), Kind::WrongPassphrase);
    assert_eq!(other.import_private("moved", &pem, &secret("one")).unwrap(), id);
    assert_eq!(other.export_public(&id).unwrap(), store(&here).export_public(&id).unwrap());
    assert_eq!(kind(other.import_private("moved", &pem, &secret("one"))), Kind::KeyExists);
    assert_eq!(kind(other.import_private("moved", "no pem", &secret("one"))), Kind::KeyInvalid);
    assert_eq!(kind(store(&here).export_private(&id, &secret(""))), Kind::InvalidArgument);
}

#[test]
fn an_openssl_key_is_imported_with_the_fingerprint_that_openssl_prints() {
    let place = tempfile::tempdir().unwrap();
    let keys = store(&place);
    let generate = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
    let Some((_, private)) = openssl(&generate, b"") else { return };
    let (_, public) = openssl(&["pkey", "-pubout"], &private).unwrap();
    let (_, der) = openssl(&["pkey", "-pubin", "-outform", "DER"], &public).unwrap();
    let (_, printed) = openssl(&["dgst", "-sha256", "-r"], &der).unwrap();
    let printed = String::from_utf8(printed).unwrap();
    let public = String::from_utf8(public).unwrap();
    let id = keys.import("hospital", &format!("our key, as agreed:\r\n{}", public.replace('\n', "\r\n"))).unwrap();
    assert_eq!(keys.fingerprint(&id).unwrap().replace(' ', ""), printed[..64]);
    keys.confirm(&id, &printed[..64]).unwrap();
    assert_eq!(keys.export_public(&id).unwrap(), public);

    // The one key checks signatures too.
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("key.pem"), &private).unwrap();
    let (_, signature) = openssl(&["dgst", "-sha384", "-sign", &at("key.pem")], b"sums").unwrap();
    let pair = keys.sender(&keys.entry(&id).unwrap().keys().sign_digest()).unwrap().keys;
    assert!(pair.verifies(b"sums", &signature) && !pair.verifies(b"sum", &signature));
}

#[test]
fn keys_of_another_kind_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let keys = store(&place);
    let refused = |pem: &str| assert_eq!(kind(keys.import("peer", pem)), Kind::KeyInvalid, "{pem}");
    let Some((_, p256)) = openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], b"") else { return };
    let public = |private: &[u8]| String::from_utf8(openssl(&["pkey", "-pubout"], private).unwrap().1).unwrap();
    refused(&public(&p256));
    refused(&public(&openssl(&["genpkey", "-algorithm", "ED25519"], b"").unwrap().1));
    let generate = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
    let (_, private) = openssl(&generate, b"").unwrap();
    refused(std::str::from_utf8(&private).unwrap());
    let (_, compressed) = openssl(&["ec", "-pubout", "-conv_form", "compressed"], &private).unwrap();
    refused(std::str::from_utf8(&compressed).unwrap());
    let (_, explicit) = openssl(&["ec", "-pubout", "-param_enc", "explicit"], &private).unwrap();
    refused(std::str::from_utf8(&explicit).unwrap());

    let good = public(&private);
    refused(&format!("{good}{good}"));
    refused(&good.replace("PUBLIC", "RSA PUBLIC"));
    refused(&good.replace("-----END PUBLIC KEY-----\n", ""));
    refused(&good[..good.len() / 2]);
    refused("");
    // Off the curve: the last digit of y differs.
    let mut off = pkcs8::Document::from_pem(&good).unwrap().1.into_vec();
    *off.last_mut().unwrap() ^= 1;
    refused(&pkcs8::Document::try_from(off).unwrap().to_pem("PUBLIC KEY", pkcs8::LineEnding::LF).unwrap());
    assert!(keys.ids().unwrap().is_empty());
}

#[test]
fn labels_are_short_and_printable() {
    let place = tempfile::tempdir().unwrap();
    let keys = store(&place);
    for bad in ["", "line\nbreak", "nul\0", &"x".repeat(129)] {
        assert_eq!(kind(keys.generate(bad)), Kind::InvalidArgument);
    }
    assert!(keys.generate(&"ü".repeat(128)).is_ok());
}
