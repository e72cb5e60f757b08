//! Packages end to end: sealed by one key store, opened by another, over a store in memory that a test can tamper with.

mod mutations;
mod sealing;
pub(super) mod world;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::*;
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::keys::{KeyStore, hex};
use crate::transfer::{Client, ClientSettings};
use world::{Shared, World, befriend, info, key_store};

fn kind<T>(result: Result<T>) -> Kind {
    result.err().expect("an error is expected").kind()
}

/// Bytes that do not repeat at the distances of this format.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}

#[test]
fn a_sealed_study_comes_back_byte_for_byte() {
    let world = World::new();
    let large = noise(20 << 20);
    let files: [(&str, &[u8]); 5] = [("b/IM2", &large), ("a", b"first"), ("b/IM1", &large[5..20_000]), ("empty", b""), ("z", b"last")];
    let facts = world.seal("/studies/one/", &files).unwrap();
    let expected: Vec<Vec<u8>> = vec![b"first".to_vec(), large[5..20_000].to_vec(), large.clone(), vec![], b"last".to_vec()];
    assert!(world.read("studies/one").unwrap() == expected);
    assert_eq!((facts.files, facts.bytes, facts.purpose.as_str()), (5, (20 << 20) + 19_995 + 9, "test"));
    let package = world.open("studies/one/").unwrap();
    assert_eq!(package.facts(), &PackageFacts { sender_id: facts.sender_id.clone(), ..facts.clone() });
    assert_eq!(facts.header_sha256, info("", &world.bytes("studies/one/header.smp")).version);
    // The store sees a header, and objects under random names whose sizes are padded: 20.02 MiB becomes a multiple of 2^19.
    assert_eq!(world.names().len(), 3);
    let pack = world.bytes(&world.name("studies/one", ".smpp")).len() as u64;
    assert_eq!(chunked::plain_len(pack).unwrap() % (1 << 19), 0);
    let header = String::from_utf8(world.bytes("studies/one/header.smp")).unwrap();
    assert!(!header.contains("IM1") && !header.contains("empty"));
}

#[test]
fn each_recipient_opens_and_nobody_else_does() {
    let world = World::new();
    let second = key_store(world.place.path().join("second"));
    let second_id = second.generate("oncology").unwrap();
    befriend(&world.hospital, &second, &second_id);
    befriend(&second, &world.hospital, &world.hospital_id);
    let recipients = [world.researcher_id.as_str(), &second_id, &world.hospital_id, &second_id];
    world.seal_for("for-three", &[("a", b"x")], &recipients, &Control::new(), 1 << 30).unwrap();
    for keys in [&world.researcher, &second, &world.hospital] {
        assert!(open(&world.client, "for-three", keys, &[], &Limits::default(), &Control::new()).is_ok());
    }
    world.seal("for-one", &[("a", b"x")]).unwrap();
    for keys in [&second, &world.hospital] {
        let outcome = open(&world.client, "for-one", keys, &[], &Limits::default(), &Control::new());
        assert_eq!(kind(outcome), Kind::NotARecipient);
    }
    assert_eq!(kind(world.seal_for("p", &[("a", b"x")], &[], &Control::new(), 1 << 30)), Kind::InvalidArgument);
    assert_eq!(kind(world.seal_for("p", &[("a", b"x")], &["0123456789abcdef"], &Control::new(), 1 << 30)), Kind::KeyNotFound);
}

#[test]
fn a_sender_counts_only_when_known_confirmed_and_trusted() {
    let world = World::new();
    world.seal("p", &[("a", b"x")]).unwrap();
    let with = |keys: &KeyStore, trusted: &[String]| open(&world.client, "p", keys, trusted, &Limits::default(), &Control::new());
    assert!(with(&world.researcher, std::slice::from_ref(&world.hospital_id)).is_ok());
    assert_eq!(kind(with(&world.researcher, std::slice::from_ref(&world.researcher_id))), Kind::UnknownSender);
    world.researcher.remove(&world.hospital_id).unwrap();
    assert_eq!(kind(with(&world.researcher, &[])), Kind::UnknownSender);
    world.researcher.import("hospital", &world.hospital.export_public(&world.hospital_id).unwrap()).unwrap();
    assert_eq!(kind(with(&world.researcher, &[])), Kind::KeyUnconfirmed);
    world.researcher.confirm(&world.hospital_id, &world.hospital.fingerprint(&world.hospital_id).unwrap()).unwrap();
    assert!(with(&world.researcher, &[]).is_ok());

    let stranger = key_store(world.place.path().join("stranger"));
    let stranger_id = stranger.generate("x").unwrap();
    world.hospital.import("unconfirmed", &stranger.export_public(&stranger_id).unwrap()).unwrap();
    assert_eq!(kind(world.seal_for("q", &[("a", b"x")], &[&stranger_id], &Control::new(), 1 << 30)), Kind::KeyUnconfirmed);
}

#[test]
fn a_package_made_after_its_senders_expiry_is_refused_and_an_expired_recipient_still_opens() {
    let world = World::new();
    world.seal("p", &[("a", b"x")]).unwrap();
    world.researcher.set_expiry(&world.researcher_id, Some(&world.researcher.created(&world.researcher_id).unwrap())).unwrap();
    world.researcher.set_expiry(&world.hospital_id, Some("9999-12-31T23:59:59Z")).unwrap();
    assert!(world.read("p").is_ok());
    world.researcher.set_expiry(&world.hospital_id, Some("2001-01-01T00:00:00Z")).unwrap();
    assert_eq!(world.read("p").unwrap_err().0, Kind::KeyExpired);
    // The hospital's side: a peer whose keys have expired is not sealed for.
    world.hospital.set_expiry(&world.researcher_id, Some("2001-01-01T00:00:00Z")).unwrap();
    assert_eq!(kind(world.seal("q", &[("a", b"x")])), Kind::KeyExpired);
}

#[test]
fn what_was_sealed_for_a_rotated_key_still_opens() {
    let world = World::new();
    world.seal("before", &[("a", b"x")]).unwrap();
    let new = world.researcher.rotate(&world.researcher_id).unwrap();
    let sender = world.hospital.rotate(&world.hospital_id).unwrap();
    assert!(world.read("before").is_ok(), "old recipient key and old, still confirmed sender key");
    assert_eq!(kind(world.seal("after", &[("a", b"x")])), Kind::KeyExpired);
    befriend(&world.hospital, &world.researcher, &new);
    befriend(&world.researcher, &world.hospital, &sender);
    let folder = world.study(&[("a", b"y")]);
    let parties = Parties { sender_id: &sender, recipient_ids: &[&new], purpose: "" };
    let options = SealOptions::default();
    seal(&world.client, "after", &Contents::Folder(&folder), &world.hospital, &parties, &options, &Control::new()).unwrap();
    assert!(world.read("after").unwrap() == [b"y".to_vec()]);
    world.researcher.remove(&world.researcher_id).unwrap();
    assert_eq!(world.read("before").unwrap_err().0, Kind::NotARecipient);
}

/// What errors call the first pack, of which `name` is the name in the store.
fn pack_0(name: &str) -> String {
    format!("pack 0 ({}..)", &name[2..10])
}

#[test]
fn each_flipped_byte_is_refused_and_yields_no_plaintext() {
    let world = World::new();
    world.seal("p", &[("IM1", b"one file"), ("IM2", b"another file")]).unwrap();
    let mut seen = std::collections::HashSet::new();
    for (ending, step) in [("header.smp", 1), (".smpp", 1), (".smpm", 97)] {
        let name = world.name("p", ending);
        let good = world.bytes(&name);
        for position in (0..good.len()).step_by(step) {
            let mut bad = good.clone();
            bad[position] ^= 1 << (position % 8);
            world.put(&name, bad);
            let (kind, detail, files) = world.read("p").err().unwrap_or_else(|| panic!("{ending} byte {position} was accepted"));
            assert!(files.is_empty(), "{ending} byte {position}");
            match ending {
                ".smpp" => {
                    assert!(kind == Kind::IntegrityFailed && detail.starts_with(&format!("{} range 0 of 1: ", pack_0(&name))), "{detail}")
                }
                ".smpm" => assert!((kind, &detail[..16]) == (Kind::IntegrityFailed, "manifest range 0"), "{detail}"),
                _ => assert!(matches!(kind, Kind::PackageMalformed | Kind::SignatureInvalid | Kind::UnknownSender), "{kind:?} {detail}"),
            }
            seen.insert(kind);
        }
        world.put(&name, good);
        assert!(world.read("p").is_ok());
    }
    assert_eq!(seen.len(), 4, "each of the four refusals was provoked");
}

#[test]
fn a_damaged_range_is_named_with_both_digests() {
    let world = World::new();
    let large = noise(30 << 20);
    world.seal("p", &[("a", b"small"), ("b", &large)]).unwrap();
    let name = world.name("p", ".smpp");
    let good = world.bytes(&name);
    let ranges = tree::ranges(good.len() as u64);
    assert_eq!(ranges.len(), 4);
    for (number, range) in ranges.iter().enumerate() {
        let mut bad = good.clone();
        bad[(range.start + range.end) as usize / 2] ^= 0x80;
        let short = |bytes: &[u8]| hex(&tree::leaf(&bytes[range.start as usize..range.end as usize])[..8]);
        let differ = format!("sha-256 differs, expected {}.., found {}..", short(&good), short(&bad));
        let expected = format!("{} range {number} of 4: {differ}", pack_0(&name));
        world.put(&name, bad);
        let (kind, detail, files) = world.read("p").unwrap_err();
        assert_eq!((kind, detail), (Kind::IntegrityFailed, expected));
        assert!(files.iter().all(|file| *file == b"small"), "only files that are whole and genuine were delivered");
    }
}

#[test]
fn cut_extended_and_missing_objects_are_refused() {
    let world = World::new();
    world.seal("p", &[("a", &noise(40_000))]).unwrap();
    for ending in [".smpp", ".smpm"] {
        let name = world.name("p", ending);
        let label = if ending == ".smpp" { pack_0(&name) } else { "manifest".to_owned() };
        let good = world.bytes(&name);
        let sizes = [0, 56, 72, 56 + 16_400, good.len() - 1, good.len() + 1, good.len() + 16_400];
        for size in sizes {
            let mut bad = good.clone();
            bad.resize(size, 0);
            world.put(&name, bad);
            let (kind, detail, files) = world.read("p").unwrap_err();
            assert_eq!((kind, detail), (Kind::IntegrityFailed, format!("{label}: expected {} bytes, found {size}", good.len())));
            assert!(files.is_empty());
        }
        world.store.objects.lock().unwrap().remove(&name);
        let (kind, detail, _) = world.read("p").unwrap_err();
        assert_eq!((kind, detail), (Kind::PackageIncomplete, label));
        world.put(&name, good);
    }
    let header = world.bytes("p/header.smp");
    for size in [0, 1, header.len() - 1, header.len() / 2] {
        world.put("p/header.smp", header[..size].to_vec());
        assert_eq!(world.read("p").unwrap_err().0, Kind::PackageMalformed);
    }
    world.put("p/header.smp", vec![b'x'; (1 << 20) + 1]);
    assert_eq!(world.read("p").unwrap_err().0, Kind::LimitExceeded);
    world.store.objects.lock().unwrap().remove("p/header.smp");
    assert_eq!(world.read("p").unwrap_err().0, Kind::NotSealed);
    assert_eq!(world.read("q").unwrap_err().0, Kind::ObjectNotFound);
}

#[test]
fn objects_of_another_package_do_not_pass() {
    let world = World::new();
    // Equal sizes everywhere, so only the hashes and keys can tell.
    world.seal("p", &[("a", &noise(9000))]).unwrap();
    world.seal("q", &[("a", &noise(9001)[1..])]).unwrap();
    for ending in [".smpp", ".smpm"] {
        let (here, there) = (world.name("p", ending), world.name("q", ending));
        let good = world.bytes(&here);
        assert_eq!(good.len(), world.bytes(&there).len());
        world.put(&here, world.bytes(&there));
        assert_eq!(world.read("p").unwrap_err().0, Kind::IntegrityFailed);
        world.put(&here, good);
    }
    let header = world.bytes("p/header.smp");
    world.put("p/header.smp", world.bytes("q/header.smp"));
    assert_eq!(world.read("p").unwrap_err().0, Kind::PackageIncomplete);
    world.put("p/header.smp", header);
    // Below the hashes: another role, name or package is another key.
    let (sealed, _) = seal::writer_tests::seal_message(&[1; 32], &derive::context(derive::Role::Pack, &[2; 16], &[3; 16]), b"plain", 9);
    let open = |role, package: u8, name: u8| {
        let context = derive::context(role, &[package; 16], &[name; 16]);
        chunked::open_message(&[1; 32], &context, &sealed).err()
    };
    assert_eq!(open(derive::Role::Pack, 2, 3), None);
    for (role, package, name) in [(derive::Role::Manifest, 2, 3), (derive::Role::Pack, 9, 3), (derive::Role::Pack, 2, 9)] {
        assert_eq!(open(role, package, name), Some(chunked::Fault::Commitment));
    }
}

#[test]
fn a_header_signed_by_somebody_else_does_not_pass() {
    let world = World::new();
    world.seal("p", &[("a", b"x")]).unwrap();
    let good = world.bytes("p/header.smp");
    let mallory = key_store(world.place.path().join("mallory"));
    let mallory_id = mallory.generate("x").unwrap();
    let (public, private) = mallory.signer(&mallory_id).unwrap();
    let parsed = header::parse(&good).unwrap();
    let signed = |message: &str| header::write(message, &private.sign(message.as_bytes()).unwrap());

    // In the hospital's name.
    world.put("p/header.smp", signed(std::str::from_utf8(parsed.message).unwrap()));
    assert_eq!(world.read("p").unwrap_err().0, Kind::SignatureInvalid);
    // In her own name: unknown at first; once she is a confirmed peer, the wrapped key still names the hospital as its sender.
    let mut stolen = parsed.header.clone();
    stolen.sender = public.sign_digest();
    world.put("p/header.smp", signed(&stolen.message().unwrap()));
    assert_eq!(world.read("p").unwrap_err().0, Kind::UnknownSender);
    befriend(&world.researcher, &mallory, &mallory_id);
    let (kind, detail, _) = world.read("p").unwrap_err();
    assert_eq!((kind, detail.as_str()), (Kind::IntegrityFailed, "header: the wrapped package key does not open"));
}

#[test]
fn a_changed_object_is_noticed_while_it_is_read() {
    let world = World::new();
    world.seal("p", &[("a", b"x")]).unwrap();
    let package = world.open("p").unwrap();
    let name = world.name("p", ".smpp");
    let mut other = world.bytes(&name);
    other[60] ^= 1;
    world.put(&name, other);
    assert_eq!(kind(package.read(&Control::new(), &mut |_| panic!("nothing may come out"))), Kind::ObjectChanged);
}

#[test]
fn limits_of_the_receiver_hold() {
    let world = World::new();
    world.seal("p", &[("a", &noise(3 << 20)), ("b", b"x")]).unwrap();
    let with = |limits: Limits| open(&world.client, "p", &world.researcher, &[], &limits, &Control::new());
    let defaults = Limits::default;
    assert_eq!(kind(with(Limits { files: 1, ..defaults() })), Kind::LimitExceeded);
    assert_eq!(kind(with(Limits { study_bytes: 3 << 20, ..defaults() })), Kind::LimitExceeded);
    assert_eq!(kind(with(Limits { study_bytes: 1 << 20, ..defaults() })), Kind::LimitExceeded);
    assert_eq!(kind(with(Limits { header_bytes: 100, ..defaults() })), Kind::LimitExceeded);
    assert!(with(Limits { files: 2, study_bytes: (3 << 20) + 1, header_bytes: 4096, ..defaults() }).is_ok());
}

#[test]
fn unsealing_writes_private_files_or_nothing() {
    let world = World::new();
    let files: [(&str, &[u8]); 3] = [("DICOM/s1/IM1", b"one"), ("DICOM/s2/IM1", b"two"), ("readme", b"")];
    world.seal("p", &files).unwrap();
    let target = world.place.path().join("out");
    let unseal = || unseal_to(&world.client, "p", &target, &world.researcher, &[], &Limits::default(), &Control::new());
    let siblings = || fs::read_dir(world.place.path()).unwrap().count();
    let before = siblings();

    let pack = world.name("p", ".smpp");
    let good = world.bytes(&pack);
    let mut bad = good.clone();
    bad[60] ^= 1;
    world.put(&pack, bad);
    assert_eq!(kind(unseal()), Kind::IntegrityFailed);
    assert!(!target.exists() && siblings() == before, "a failure leaves neither target nor scratch folder");
    world.put(&pack, good);

    fs::create_dir(&target).unwrap();
    assert_eq!(unseal().unwrap().files, 3);
    assert_eq!(siblings(), before + 1);
    for (name, bytes) in files {
        let path = target.join(name);
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    }
    assert_eq!(kind(unseal()), Kind::InvalidArgument, "the target is not empty any more");
    fs::remove_dir_all(&target).unwrap();
    std::os::unix::fs::symlink(world.place.path().join("elsewhere"), &target).unwrap();
    assert_eq!(kind(unseal()), Kind::InvalidArgument, "a link is not followed");
}

#[test]
fn cancelling_stops_a_reader() {
    let world = World::new();
    world.seal("p", &[("a", b"1"), ("b", b"2"), ("c", b"3")]).unwrap();
    let package = world.open("p").unwrap();
    let control = Control::new();
    let mut delivered = 0;
    let outcome = package.read(&control, &mut |_| {
        delivered += 1;
        control.cancel();
        Ok(())
    });
    assert_eq!((kind(outcome), delivered), (Kind::Cancelled, 1));
    assert_eq!(kind(package.read(&Control::new(), &mut |_| Err(Error::new(Kind::DicomMalformed, "")))), Kind::DicomMalformed);
}

#[test]
fn a_resumed_read_uses_the_spool_and_checks_it() {
    let world = World::new();
    let spool = world.place.path().join("spool");
    let settings = ClientSettings { retries: 0, spool: Some(spool.clone()), ..ClientSettings::default() };
    let client = Client::over(Arc::new(Shared(Arc::clone(&world.store))), settings).unwrap();
    let large = noise(20 << 20);
    world.seal("p", &[("a", &large)]).unwrap();
    let read = || {
        let mut files = Vec::new();
        let package = open(&client, "p", &world.researcher, &[], &Limits::default(), &Control::new()).unwrap();
        package
            .read(&Control::new(), &mut |file| {
                files.push(file.bytes.to_vec());
                Ok(())
            })
            .map(|_| files)
    };
    assert!(read().unwrap() == [large.clone()]);
    // What lies in the spool is the store's ciphertext: no 32 bytes of the study are in it.
    let mut folders = vec![spool];
    let mut spooled = Vec::new();
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() { folders.push(path) } else { spooled.push(path) }
        }
    }
    let needle = &large[1000..1032];
    for path in &spooled {
        assert!(!fs::read(path).unwrap().windows(32).any(|window| window == needle));
        // Damage to the spool costs a fetch, never a wrong byte.
        let mut bytes = fs::read(path).unwrap();
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
        }
        fs::write(path, bytes).unwrap();
    }
    assert!(!spooled.is_empty());
    assert!(read().unwrap() == [large]);
}
