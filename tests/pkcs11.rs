//! Identities in a PKCS #11 token, against SoftHSM2 with a token of each test's own.
//!
//! A module reads its configuration when it is initialized, once per process. So every test runs its contents in a child process of this same
//! program, with `SOFTHSM2_CONF` set for it. Without SoftHSM2 (`apt install softhsm2`) the tests say so and return.
#![cfg(feature = "pkcs11")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use smp::control::Control;
use smp::keys::{KeyStore, TokenKey, Unlock};
use smp::package::{self, Contents, Limits, Parties, SealOptions};
use smp::secret::Secret;
use smp::transfer::{Client, ClientSettings, StoreSettings};
use smp::{Kind, Result};

const PIN: &str = "5678-user";
const TOKEN: &str = "ward 3";
const MODULES: [&str; 3] =
    ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"];

fn module() -> Option<PathBuf> {
    MODULES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Runs the ignored test `name` in a child process that has one fresh token, and a folder of its own in `SMP_TEST_FOLDER`.
fn in_child(name: &str) {
    if module().is_none() || Command::new("softhsm2-util").arg("--version").output().is_err() {
        eprintln!("SKIPPED: keys in tokens, because SoftHSM2 is not installed");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let configuration = place.path().join("softhsm2.conf");
    fs::create_dir(place.path().join("tokens")).unwrap();
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", place.path().join("tokens").display());
    fs::write(&configuration, text).unwrap();
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", TOKEN, "--so-pin", "1234-officer", "--pin", PIN])
        .env("SOFTHSM2_CONF", &configuration)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("inside::{name}"), "--ignored", "--nocapture"])
        .env("SOFTHSM2_CONF", &configuration)
        .env("SMP_TEST_FOLDER", place.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

macro_rules! in_children {
    ($($name:ident)*) => { $(#[test] fn $name() { in_child(stringify!($name)); })* };
}

in_children! {
    an_identity_in_a_token_seals_opens_and_signs_like_any_other
    the_token_keeps_the_private_keys_to_itself
    a_wrong_pin_is_told_whoever_else_is_logged_in
    a_missing_token_or_module_is_told
    a_key_that_was_removed_from_the_token_is_told
    an_identity_in_a_token_is_rotated_in_the_token
    keys_that_are_in_the_token_already_are_adopted_when_they_are_fit
    many_threads_share_one_token
    a_session_that_somebody_ended_is_opened_again
    the_command_line_takes_the_pin_from_the_environment_or_a_file
}

fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os("SMP_TEST_FOLDER").unwrap())
}

fn store(name: &str) -> KeyStore {
    let folder = folder().join(name);
    KeyStore::open(&folder, Unlock::KeyFile(folder.join("master.key"))).unwrap()
}

fn pin(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn generate(keys: &KeyStore) -> String {
    keys.generate_on_token(&module().unwrap(), TOKEN, &pin(PIN), "radiology").unwrap()
}

fn kind<T>(result: Result<T>) -> Kind {
    result.err().expect("an error is expected").kind()
}

/// A store of packages, and a study of one file.
fn client() -> Client {
    let bucket = folder().join("store");
    fs::create_dir_all(&bucket).unwrap();
    fs::create_dir_all(folder().join("study")).unwrap();
    fs::write(folder().join("study/IM1"), b"slices").unwrap();
    Client::open(&StoreSettings { bucket: bucket.to_str().unwrap().to_owned(), ..StoreSettings::default() }, ClientSettings::default())
        .unwrap()
}

fn seal(client: &Client, keys: &KeyStore, from: &str, to: &str, path: &str) -> Result<()> {
    let (limits, control) = (Limits::default(), Control::new());
    let (study, options) = (folder().join("study"), SealOptions { limits, ..SealOptions::default() });
    let parties = Parties { sender_id: from, recipient_ids: &[to], purpose: "test" };
    package::seal(client, path, &Contents::Folder(&study), keys, &parties, &options, &control).map(|_| ())
}

fn open(client: &Client, keys: &KeyStore, path: &str) -> Result<String> {
    package::verify(client, path, keys, &[], &Limits::default(), &Control::new())
}

/// A session of our own, for looking at the token behind the library's back.
fn session() -> Session {
    let module = Pkcs11::new(module().unwrap()).unwrap();
    let _ = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    let slot =
        module.get_slots_with_token().unwrap().into_iter().find(|slot| module.get_token_info(*slot).unwrap().label() == TOKEN).unwrap();
    let session = module.open_rw_session(slot).unwrap();
    let _ = session.login(UserType::User, Some(&AuthPin::new(PIN.into())));
    session
}

fn introduce(here: &KeyStore, there: &KeyStore, id: &str) {
    here.import("", &there.export_card(id).unwrap()).unwrap();
    here.confirm(id, &there.fingerprint(id).unwrap()).unwrap();
}

mod inside {
    use super::*;

    #[test]
    #[ignore = "run by the test of the same name"]
    fn an_identity_in_a_token_seals_opens_and_signs_like_any_other() {
        let (token, software) = (store("token"), store("software"));
        let (id, other) = (generate(&token), software.generate("research").unwrap());
        assert!(token.has_private(&id).unwrap() && token.is_confirmed(&id).unwrap());
        introduce(&software, &token, &id);
        introduce(&token, &software, &other);
        let client = client();
        seal(&client, &software, &other, &id, "to-token").unwrap();
        assert!(open(&client, &token, "to-token").unwrap().contains("\"ok\":true"));
        seal(&client, &token, &id, &other, "from-token").unwrap();
        assert!(open(&client, &software, "from-token").unwrap().contains(&id));
        assert_eq!(kind(open(&client, &software, "to-token")), Kind::NotARecipient);
        // A store that is opened anew finds the token by what the entry says.
        drop(token);
        assert!(open(&client, &store("token"), "to-token").is_ok());

        fs::write(folder().join("certificate.pem"), store("token").export_certificate(&id).unwrap()).unwrap();
        let certificate = fs::read_to_string(folder().join("certificate.pem")).unwrap();
        fs::write(folder().join("sign.pem"), &certificate[certificate.rfind("-----BEGIN").unwrap()..]).unwrap();
        let at = |name: &str| folder().join(name).to_str().unwrap().to_owned();
        match Command::new("openssl").args(["verify", "-x509_strict", "-CAfile", &at("sign.pem"), &at("certificate.pem")]).output() {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
            Err(_) => eprintln!("SKIPPED: no openssl command on this machine"),
        }
    }

    #[test]
    #[ignore = "run by the test of the same name"]
    fn the_token_keeps_the_private_keys_to_itself() {
        let keys = store("token");
        let id = generate(&keys);
        let session = session();
        let private = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap();
        assert_eq!(private.len(), 2);
        for key in private {
            let wanted = [
                AttributeType::Sensitive,
                AttributeType::Extractable,
                AttributeType::AlwaysSensitive,
                AttributeType::NeverExtractable,
                AttributeType::Derive,
                AttributeType::Sign,
            ];
            let said = session.get_attributes(key, &wanted).unwrap();
            for expected in [
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::AlwaysSensitive(true),
                Attribute::NeverExtractable(true),
            ] {
                assert!(said.contains(&expected), "{said:?}");
            }
            assert_ne!(said.contains(&Attribute::Derive(true)), said.contains(&Attribute::Sign(true)), "one use each: {said:?}");
            assert!(
                !session
                    .get_attributes(key, &[AttributeType::Value])
                    .is_ok_and(|said| said.iter().any(|a| matches!(a, Attribute::Value(_))))
            );
        }
        let refused = keys.export_private(&id, &pin("a passphrase")).unwrap_err();
        assert!(refused.kind() == Kind::PrivateKeyMissing && refused.to_string().contains("never leave"), "{refused}");
        // Neither the PIN nor a path outside the entry's authenticated line lies in the store in clear.
        let entry = fs::read_to_string(folder().join("token").join(format!("{id}.json"))).unwrap();
        assert!(entry.contains("libsofthsm2.so") && !entry.contains(PIN));
        let edited = entry.replace("libsofthsm2.so", "libsofthsm3.so");
        fs::write(folder().join("token").join(format!("{id}.json")), edited).unwrap();
        assert_eq!(kind(keys.export_card(&id)), Kind::KeyStoreUnavailable, "no module that somebody wrote into the entry is loaded");
    }

    #[test]
    #[ignore = "run by the test of the same name"]
    fn a_wrong_pin_is_told_whoever_else_is_logged_in() {
        let keys = store("token");
        let with = |text: &str| keys.generate_on_token(&module().unwrap(), TOKEN, &pin(text), "radiology");
        assert_eq!(kind(with("0000-wrong")), Kind::WrongPassphrase);
        assert!(keys.ids().unwrap().is_empty());
        let id = generate(&keys);
        assert!(keys.export_card(&id).is_ok());
        assert_eq!(kind(with("0000-wrong")), Kind::WrongPassphrase);
        assert_eq!(kind(with("")), Kind::InvalidArgument);
        assert_eq!(keys.ids().unwrap(), [id]);
        assert_eq!(session().find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap().len(), 2, "nothing is left behind");
    }

    #[test]
    #[ignore = "run by the test of the same name"]
    fn a_missing_token_or_module_is_told() {
        let keys = store("token");
        let make = |module: &Path, label: &str| keys.generate_on_token(module, label, &pin(PIN), "radiology");
        for (module, label, detail) in [
            (module().unwrap(), "ward 4", "not plugged in"),
            (PathBuf::from("/nonexistent/module.so"), TOKEN, "module cannot be loaded"),
            (PathBuf::from("/bin/true"), TOKEN, "module cannot be loaded"),
        ] {
            let error = make(&module, label).unwrap_err();
            assert_eq!(error.kind(), Kind::KeyStoreUnavailable);
            assert!(error.to_string().contains(detail) && error.hint().is_some(), "{error}");
            assert!(!error.to_string().contains("nonexistent") && !error.to_string().contains("ward"), "{error}");
        }
        assert_eq!(kind(make(Path::new("libsofthsm2.so"), TOKEN)), Kind::InvalidArgument, "a relative path would be searched for");
        assert_eq!(kind(keys.generate_on_token(&module().unwrap(), TOKEN, &pin(PIN), "")), Kind::InvalidArgument);
        assert!(session().find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap().is_empty());
        assert!(keys.ids().unwrap().is_empty());
    }

    #[test]
    #[ignore = "run by the test of the same name"]
    fn a_key_that_was_removed_from_the_token_is_told() {
        let (token, software) = (store("token"), store("software"));
        let (id, other) = (generate(&token), software.generate("research").unwrap());
        introduce(&software, &token, &id);
        introduce(&token, &software, &other);
        let client = client();
        seal(&client, &software, &other, &id, "p").unwrap();
        assert!(open(&client, &token, "p").is_ok());
        let session = session();
        for key in session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap() {
            session.destroy_object(key).unwrap();
        }
        // Not "forged" and not "not for you": the key is what is missing.
        assert_eq!(kind(open(&client, &token, "p")), Kind::PrivateKeyMissing);
        assert_eq!(kind(seal(&client, &token, &id, &other, "q")), Kind::PrivateKeyMissing);
        assert!(token.export_public(&id).is_ok() && token.remove(&id).is_ok());
    }

    #[test]
    #[ignore = "run by the test of the same name"]
    fn an_identity_in_a_token_is_rotated_in_the_token() {
        let keys = store("token");
        let old = generate(&keys);
        let new = keys.rotate(&old).unwrap();
        assert_eq!(keys.replaced_by(&old).unwrap().as_ref(), Some(&new));
        assert!(keys.export_certificate(&new).is_ok());
        assert_eq!(kind(keys.rotate(&old)), Kind::KeyExpired);
        assert_eq!(kind(keys.export_private(&new, &pin("x"))), Kind::PrivateKeyMissing);
        assert_eq!(session().find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap().len(), 4);
    }

    #[test]
    #[ignore = "run by the test of the same name"]
    fn keys_that_are_in_the_token_already_are_adopted_when_they_are_fit() {
        let first = store("first");
        let id = generate(&first);
        let module = module().unwrap();
        let label = |text: &str| TokenKey::Label(text.to_owned());
        let second = store("second");
        let adopt = |agree: &TokenKey, sign: &TokenKey| second.adopt_token_keys(&module, TOKEN, &pin(PIN), agree, sign, "adopted");
        // The same keys are the same identity.
        assert_eq!(adopt(&label("smp agree"), &label("smp sign")).unwrap(), id);
        assert!(second.export_card(&id).is_ok());
        assert_eq!(kind(adopt(&label("smp agree"), &label("smp sign"))), Kind::KeyExists);
        assert_eq!(kind(adopt(&label("no such key"), &label("smp sign"))), Kind::PrivateKeyMissing);
        assert_eq!(kind(adopt(&label("smp agree"), &label("smp agree"))), Kind::KeyInvalid);
        // Swapped, each would have to do what the token does not let it do.
        assert_eq!(kind(adopt(&label("smp sign"), &label("smp agree"))), Kind::KeyStoreUnavailable);

        // Keys of another making: another curve, and one that the token would give out.
        let session = session();
        let make = |curve: &[u8], name: &str, extractable: bool| {
            let public = [
                Attribute::Token(true),
                Attribute::EcParams(curve.to_vec()),
                Attribute::Id(name.as_bytes().to_vec()),
                Attribute::Label(name.as_bytes().to_vec()),
            ];
            let private = [
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(!extractable),
                Attribute::Extractable(extractable),
                Attribute::Derive(true),
                Attribute::Sign(true),
                Attribute::Id(name.as_bytes().to_vec()),
                Attribute::Label(name.as_bytes().to_vec()),
            ];
            session.generate_key_pair(&cryptoki::mechanism::Mechanism::EccKeyPairGen, &public, &private).unwrap();
        };
        make(&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], "p256", false);
        make(&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], "loose", true);
        make(&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], "fit", false);
        assert_eq!(kind(adopt(&label("p256"), &label("smp sign"))), Kind::KeyInvalid);
        assert_eq!(kind(adopt(&label("loose"), &label("smp sign"))), Kind::KeyStoreUnavailable);
        assert_eq!(kind(adopt(&TokenKey::Id(b"fit".to_vec()), &label("loose"))), Kind::KeyStoreUnavailable);
        assert!(adopt(&TokenKey::Id(b"fit".to_vec()), &label("smp sign")).is_ok());
    }

    #[test]
    #[ignore = "run by the test of the same name"]
    fn many_threads_share_one_token() {
        let keys = store("token");
        let id = generate(&keys);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5).for_each(|_| drop(keys.export_card(&id).unwrap())));
            }
            scope.spawn(|| generate(&keys));
        });
        assert_eq!(keys.ids().unwrap().len(), 2);
    }

    #[test]
    #[ignore = "run by the test of the same name"]
    fn a_session_that_somebody_ended_is_opened_again() {
        let keys = store("token");
        let id = generate(&keys);
        keys.export_card(&id).unwrap();
        // Logging out logs every session of the process out (PKCS #11, 5.6), and its private keys vanish.
        session().logout().unwrap();
        assert!(keys.export_card(&id).is_ok());
    }

    #[test]
    #[ignore = "run by the test of the same name"]
    fn the_command_line_takes_the_pin_from_the_environment_or_a_file() {
        let module = module().unwrap();
        let run = |pin: Option<&str>, more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_smp"));
            command
                .env("HOME", folder())
                .env_remove("SMP_PKCS11_PIN")
                .args(["keys", "generate", "--token", TOKEN, "--module"])
                .arg(&module);
            pin.map(|pin| command.env("SMP_PKCS11_PIN", pin));
            let output = command.args(more).output().unwrap();
            (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
        };
        let (made, printed, _) = run(Some(PIN), &[]);
        let id = printed.lines().next().unwrap().to_owned();
        assert!(made && id.len() == 16, "{printed}");
        let file = folder().join("pin");
        fs::write(&file, format!("{PIN}\r\nnot the pin\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let (made, _, why) = run(None, &["--pin-file", file.to_str().unwrap()]);
        assert!(!made && why.contains("SMP_ERR_CONFIG_PERMISSIONS"), "{why}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(run(None, &["--pin-file", file.to_str().unwrap()]).0);
        let (made, _, why) = run(None, &[]);
        assert!(!made && why.contains("SMP_PKCS11_PIN"), "{why}");
        let (made, _, why) = run(Some("0000-wrong"), &[]);
        assert!(!made && why.contains("SMP_ERR_WRONG_PASSPHRASE") && !why.contains("0000"), "{why}");
        // Another command, another process: the entry says where the keys are, and the store knows the PIN.
        let card = Command::new(env!("CARGO_BIN_EXE_smp")).env("HOME", folder()).args(["keys", "card", &id]).output().unwrap();
        assert!(card.status.success() && card.stdout.starts_with(b"smp-key-card/v1\n"));
    }
}
