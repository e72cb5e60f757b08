//! Sealing: what becomes of files, folders and memory, of interruptions and of failures, and granting what was sealed.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::*;
use super::world::{World, befriend, key_store};
use super::{kind, noise};
use crate::control::Control;
use crate::error::Kind;

#[test]
fn packs_end_where_the_next_file_would_not_fit() {
    let world = World::new();
    let part = noise(100_000);
    let files: Vec<(String, &[u8])> = (0..7).map(|n| (format!("f{n}"), &part[n * 100..n * 10_000 + 3000])).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    world.seal_for("p", &files, &[&world.researcher_id], &Control::new(), 70_000).unwrap();
    // 3,000 + 12,900 + 22,800 fit; then 32,700, 42,600, 52,500 and 62,400 are each too much beside their neighbour.
    assert_eq!(world.names().iter().filter(|name| name.ends_with(".smpp")).count(), 5);
    let expected: Vec<Vec<u8>> = files.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    assert!(world.read("p").unwrap() == expected);
    let report: serde_json::Value =
        serde_json::from_str(&verify(&world.client, "p", &world.researcher, &[], &Limits::default(), &Control::new()).unwrap()).unwrap();
    assert_eq!((report["ok"].as_bool(), report["files"].as_u64()), (Some(true), Some(7)));
    assert_eq!(report["objects"].as_array().unwrap().len(), 6);
}

#[test]
fn the_header_comes_last_and_never_over_another() {
    let world = World::new();
    world.seal("p", &[("a", b"x")]).unwrap();
    let published = world.store.published.lock().unwrap().clone();
    assert!(published[0].ends_with(".smpp") && published[1].ends_with(".smpm") && published[2] == "p/header.smp", "{published:?}");
    let before = world.names();
    assert_eq!(kind(world.seal("p", &[("a", b"x")])), Kind::PackageExists);
    assert_eq!(world.names(), before, "nothing was uploaded");
    assert!(world.read("p").is_ok());
}

#[test]
fn a_failed_sealing_leaves_nothing_behind() {
    let world = World::new();
    for ending in [".smpp", ".smpm", "header.smp"] {
        *world.store.fail.lock().unwrap() = Some((ending, Kind::StoreUnwritable));
        assert_eq!(kind(world.seal("p", &[("a", b"x")])), Kind::StoreUnwritable);
        assert!(world.names().is_empty(), "{ending}");
    }
    *world.store.fail.lock().unwrap() = None;
    // Cancelled by its own listener after the first pack was uploaded and the second begun.
    let handle = Arc::new(std::sync::OnceLock::<Control>::new());
    let cancel = Arc::clone(&handle);
    let control = Control::with_listener(move |_, done| {
        if done > 0.6 {
            cancel.get().unwrap().cancel();
        }
    });
    assert!(handle.set(control.clone()).is_ok());
    let files: [(&str, &[u8]); 3] = [("a", b"111"), ("b", b"222"), ("c", b"333")];
    assert_eq!(kind(world.seal_for("p", &files, &[&world.researcher_id], &control, 3)), Kind::Cancelled);
    assert!(!world.store.published.lock().unwrap().is_empty(), "something was uploaded before");
    assert!(world.names().is_empty(), "and deleted again");
}

#[test]
fn a_published_header_whose_answer_got_lost_counts() {
    let world = World::new();
    *world.store.lose_answer.lock().unwrap() = Some("header.smp");
    world.seal("p", &[("a", b"x")]).unwrap();
    assert!(world.read("p").is_ok());
    *world.store.lose_answer.lock().unwrap() = Some(".smpp");
    assert_eq!(kind(world.seal("q", &[("a", b"x")])), Kind::StoreUnwritable);
    assert!(world.names().iter().all(|name| name.starts_with("p/")), "the pack that was published all the same is deleted");
}

#[test]
fn a_file_that_changes_while_it_is_sealed_is_an_error() {
    let changes: [fn(&Path); 4] = [
        |file| fs::write(file, b"longer than before").unwrap(),
        |file| fs::write(file, b"").unwrap(),
        |file| fs::remove_file(file).unwrap(),
        |file| {
            fs::remove_file(file).unwrap();
            std::os::unix::fs::symlink("/etc/hostname", file).unwrap();
        },
    ];
    for change in changes {
        let world = World::new();
        let victim = world.place.path().join("study/b");
        // Progress is reported after each file: the second one changes once the first is sealed.
        let control = Control::with_listener(move |_, done| {
            if done < 1.0 {
                change(&victim)
            }
        });
        let outcome = world.seal_for("p", &[("a", b"first"), ("b", b"second")], &[&world.researcher_id], &control, 1 << 30);
        assert_eq!(kind(outcome), Kind::SourceChanged);
        assert!(world.names().is_empty());
    }
}

#[test]
fn what_cannot_be_sealed_is_refused_before_anything_is_uploaded() {
    let world = World::new();
    let refused = |expected: Kind, limits: Limits, prepare: &dyn Fn(&Path)| {
        let folder = world.study(&[("a/b", b"12345"), ("c", b"67890")]);
        prepare(&folder);
        let options = SealOptions { limits, ..SealOptions::default() };
        let outcome = world.seal_as("p", &Contents::Folder(&folder), &[&world.researcher_id], &options, &Control::new());
        assert_eq!(kind(outcome), expected);
        assert!(world.names().is_empty());
    };
    let defaults = Limits::default;
    refused(Kind::NothingToSeal, defaults(), &|folder| {
        fs::remove_file(folder.join("a/b")).unwrap();
        fs::remove_file(folder.join("c")).unwrap();
    });
    refused(Kind::UnsafePath, defaults(), &|folder| std::os::unix::fs::symlink("c", folder.join("link")).unwrap());
    refused(Kind::UnsafePath, defaults(), &|folder| std::os::unix::fs::symlink("/etc", folder.join("a/link")).unwrap());
    refused(Kind::UnsafePath, defaults(), &|folder| fs::write(folder.join("C"), b"").unwrap());
    refused(Kind::UnsafePath, defaults(), &|folder| fs::write(folder.join("aux.dcm"), b"").unwrap());
    refused(Kind::UnsafePath, defaults(), &|folder| {
        use std::os::unix::ffi::OsStrExt;
        fs::write(folder.join(std::ffi::OsStr::from_bytes(b"\xff")), b"").unwrap();
    });
    refused(Kind::LimitExceeded, Limits { files: 1, ..defaults() }, &|_| {});
    refused(Kind::LimitExceeded, Limits { study_bytes: 9, ..defaults() }, &|_| {});
    refused(Kind::LimitExceeded, defaults(), &|folder| {
        fs::File::create(folder.join("huge")).unwrap().set_len((1 << 30) + 1).unwrap();
    });
    refused(Kind::FileUnreadable, defaults(), &|folder| fs::remove_dir_all(folder).unwrap());
    let purpose = "x".repeat(129);
    let folder = world.study(&[("a", b"x")]);
    let seal = |sender: &str, purpose: &str| {
        let parties = Parties { sender_id: sender, recipient_ids: &[&world.researcher_id], purpose };
        seal(&world.client, "p", &Contents::Folder(&folder), &world.hospital, &parties, &SealOptions::default(), &Control::new())
    };
    assert_eq!(kind(seal(&world.hospital_id, &purpose)), Kind::InvalidArgument);
    assert_eq!(kind(seal(&world.hospital_id, "Brust-MRT für alle")), Kind::InvalidArgument);
    assert_eq!(kind(seal(&world.researcher_id, "")), Kind::PrivateKeyMissing, "the researcher is a peer of the hospital's store");
}

#[test]
fn a_decomposed_name_is_sealed_in_composed_form() {
    let world = World::new();
    world.seal("p", &[("e\u{301}tude/a", b"x")]).unwrap();
    assert_eq!(world.path_of_first("p").as_str(), "\u{e9}tude/a");
}

#[test]
fn a_file_that_changes_after_it_was_sealed_stops_the_signature() {
    let world = World::new();
    let victim = world.place.path().join("study/a");
    // The last progress is reported when all files are sealed and nothing is signed.
    let control = Control::with_listener(move |_, done| {
        if done >= 1.0 {
            fs::write(&victim, b"later").unwrap();
        }
    });
    let outcome = world.seal_for("p", &[("a", b"first"), ("b", b"second")], &[&world.researcher_id], &control, 1 << 30);
    assert_eq!(kind(outcome), Kind::SourceChanged);
    assert!(world.names().is_empty());
}

#[test]
fn instances_in_memory_are_sealed_like_files() {
    let world = World::new();
    let large = noise(9 << 20);
    let instances = [Instance { name: "b/2", bytes: &large }, Instance { name: "a", bytes: b"one" }, Instance { name: "b/1", bytes: b"" }];
    let seal_all = |path: &str, instances: &[Instance<'_>]| {
        world.seal_as(path, &Contents::Instances(instances), &[&world.researcher_id], &SealOptions::default(), &Control::new())
    };
    assert_eq!(seal_all("p", &instances).unwrap().files, 3);
    assert!(world.read("p").unwrap() == [b"one".to_vec(), vec![], large.clone()]);
    assert_eq!(kind(seal_all("q", &[])), Kind::NothingToSeal);
    for name in ["", "/a", "../a", "a/../b", "CON"] {
        assert_eq!(kind(seal_all("q", &[Instance { name, bytes: b"x" }])), Kind::UnsafePath, "{name}");
    }
    assert_eq!(kind(seal_all("q", &[Instance { name: "a", bytes: b"x" }, Instance { name: "A", bytes: b"y" }])), Kind::UnsafePath);
    assert!(world.names().iter().all(|name| name.starts_with("p/")));
}

/// Five files of which each fills a pack, so that a sealing can be cut off between packs.
const FIVE: [(&str, &[u8]); 5] = [("a", b"1111"), ("b", b"2222"), ("c", b"3333"), ("d", b"4444"), ("e", b"5555")];

fn contents_of_five() -> Vec<Vec<u8>> {
    FIVE.iter().map(|(_, bytes)| bytes.to_vec()).collect()
}

/// A sealing of [`FIVE`] with a journal, over a store whose next pack fails once `packs` are there.
struct Cut<'a> {
    world: &'a World,
    options: SealOptions,
    folder: std::path::PathBuf,
}

impl<'a> Cut<'a> {
    fn new(world: &'a World) -> Cut<'a> {
        let options = SealOptions { pack_bytes: 4, journals: Some(world.place.path().join("journals")), ..SealOptions::default() };
        Cut { world, options, folder: world.study(&FIVE) }
    }

    fn seal(&self, recipients: &[&str]) -> Result<PackageFacts, Error> {
        self.world.seal_as("p", &Contents::Folder(&self.folder), recipients, &self.options, &Control::new())
    }

    /// Seals until `packs` packs are there, then fails like this.
    fn fail(&self, packs: usize, kind: Kind) -> Kind {
        let published = self.world.store.published.lock().unwrap().len();
        self.world.store.fail_after.store(published + packs, Ordering::Relaxed);
        *self.world.store.fail.lock().unwrap() = Some((".smpp", kind));
        let failed = self.seal(&[&self.world.researcher_id]).unwrap_err().kind();
        *self.world.store.fail.lock().unwrap() = None;
        failed
    }

    fn journals(&self) -> usize {
        let journals = fs::read_dir(self.world.place.path().join("journals")).unwrap();
        journals.filter(|item| item.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "journal")).count()
    }
}

#[test]
fn an_interrupted_sealing_goes_on_behind_the_packs_that_are_there() {
    let world = World::new();
    let cut = Cut::new(&world);
    assert_eq!(cut.fail(3, Kind::TransferTimeout), Kind::TransferTimeout);
    let before = world.names();
    assert_eq!((before.len(), cut.journals()), (3, 1), "three packs wait, the fourth is gone");
    let published = world.store.published.lock().unwrap().len();
    cut.seal(&[&world.researcher_id]).unwrap();
    assert_eq!(world.store.published.lock().unwrap().len() - published, 4, "two packs, the manifest, the header");
    assert!(before.iter().all(|name| world.names().contains(name)) && cut.journals() == 0);
    assert!(world.read("p").unwrap() == contents_of_five());
    assert_eq!(kind(cut.seal(&[&world.researcher_id])), Kind::PackageExists);
    assert!(world.read("p").is_ok(), "and what is published is not touched");
}

#[test]
fn a_cancelled_sealing_can_be_taken_up_again() {
    let world = World::new();
    let cut = Cut::new(&world);
    let handle = Arc::new(std::sync::OnceLock::<Control>::new());
    let cancel = Arc::clone(&handle);
    let control = Control::with_listener(move |_, done| {
        if done > 0.5 {
            cancel.get().unwrap().cancel();
        }
    });
    assert!(handle.set(control.clone()).is_ok());
    let outcome = world.seal_as("p", &Contents::Folder(&cut.folder), &[&world.researcher_id], &cut.options, &control);
    assert_eq!((kind(outcome), world.names().len()), (Kind::Cancelled, 2));
    cut.seal(&[&world.researcher_id]).unwrap();
    assert!(world.read("p").unwrap() == contents_of_five());
    assert_eq!(world.names().len(), 7);
}

#[test]
fn a_failure_that_no_retry_mends_leaves_nothing_to_resume() {
    let world = World::new();
    let cut = Cut::new(&world);
    assert_eq!(cut.fail(3, Kind::StoreUnwritable), Kind::StoreUnwritable);
    assert_eq!((world.names().len(), cut.journals()), (0, 0));
    assert_eq!(cut.fail(2, Kind::ServerFailed), Kind::ServerFailed);
    assert_eq!(cut.fail(1, Kind::StoreUnwritable), Kind::StoreUnwritable);
    assert_eq!((world.names().len(), cut.journals()), (0, 0), "packs of the first run too");
}

#[test]
fn a_study_that_changed_meanwhile_is_sealed_anew() {
    let world = World::new();
    let cut = Cut::new(&world);
    cut.fail(3, Kind::TransferTimeout);
    let before = world.names();
    // Same size, same name, and a writer that sets the time back: the change time tells.
    let victim = cut.folder.join("a");
    let modified = fs::metadata(&victim).unwrap().modified().unwrap();
    fs::write(&victim, b"9999").unwrap();
    fs::File::options().write(true).open(&victim).unwrap().set_modified(modified).unwrap();
    cut.seal(&[&world.researcher_id]).unwrap();
    assert!(before.iter().all(|name| !world.names().contains(name)), "the old packs are deleted");
    assert!(world.read("p").unwrap()[0] == b"9999" && world.names().len() == 7);
}

#[test]
fn a_sealing_for_others_does_not_go_on_with_the_old_key() {
    let world = World::new();
    let cut = Cut::new(&world);
    cut.fail(3, Kind::TransferTimeout);
    let before = world.names();
    cut.seal(&[&world.researcher_id, &world.hospital_id]).unwrap();
    assert!(before.iter().all(|name| !world.names().contains(name)));
    assert!(world.read("p").unwrap() == contents_of_five());
}

#[test]
fn what_the_store_lost_or_changed_meanwhile_is_sealed_again() {
    for change in [0, 1] {
        let world = World::new();
        let cut = Cut::new(&world);
        cut.fail(4, Kind::TransferTimeout);
        let second = world.store.published.lock().unwrap()[1].clone();
        match change {
            0 => drop(world.store.objects.lock().unwrap().remove(&second)),
            _ => {
                let mut bytes = world.bytes(&second);
                bytes[60] ^= 1;
                world.put(&second, bytes);
            }
        }
        cut.seal(&[&world.researcher_id]).unwrap();
        assert!(world.read("p").unwrap() == contents_of_five());
        assert_eq!(world.names().len(), 7, "nothing loose is left");
    }
}

#[test]
fn a_newcomer_is_granted_a_package_without_touching_its_data() {
    let world = World::new();
    let newcomer = key_store(world.place.path().join("newcomer"));
    let newcomer_id = newcomer.generate("oncology").unwrap();
    let granting = |path: &str, ids: &[&str]| grant(&world.client, path, &world.hospital, ids, &Limits::default(), &Control::new());
    let opens = |path: &str| {
        let package = open(&world.client, path, &newcomer, &[], &Limits::default(), &Control::new())?;
        let mut files = Vec::new();
        package.read(&Control::new(), &mut |file| {
            files.push(file.bytes.to_vec());
            Ok(())
        })?;
        Ok::<_, Error>(files)
    };
    world.seal_for("p", &FIVE, &[&world.researcher_id, &world.hospital_id], &Control::new(), 8).unwrap();
    befriend(&newcomer, &world.hospital, &world.hospital_id);
    assert_eq!(kind(opens("p")), Kind::NotARecipient);
    assert_eq!(kind(granting("p", &[&newcomer_id])), Kind::KeyNotFound);
    world.hospital.import("oncology", &newcomer.export_public(&newcomer_id).unwrap()).unwrap();
    assert_eq!(kind(granting("p", &[&newcomer_id])), Kind::KeyUnconfirmed);
    world.hospital.confirm(&newcomer_id, &newcomer.fingerprint(&newcomer_id).unwrap()).unwrap();

    let data = |world: &World| {
        let objects = world.store.objects.lock().unwrap();
        objects
            .iter()
            .filter(|(name, _)| !name.ends_with("header.smp"))
            .map(|(name, bytes)| (name.clone(), bytes.clone()))
            .collect::<Vec<_>>()
    };
    let before = data(&world);
    let facts = granting("p", &[&newcomer_id, &world.researcher_id]).unwrap();
    assert!(data(&world) == before);
    assert_eq!((facts.files, facts.bytes), (5, 20));
    assert!(opens("p").unwrap() == contents_of_five() && world.read("p").unwrap() == contents_of_five());
    assert_eq!(world.open("p").unwrap().facts().header_sha256, facts.header_sha256);

    // Only a sender that sealed for itself too can grant, and only what it sealed.
    world.seal("for-one", &[("a", b"x")]).unwrap();
    assert_eq!(kind(granting("for-one", &[&newcomer_id])), Kind::NotARecipient);
    let by_researcher = grant(&world.client, "p", &world.researcher, &[&world.researcher_id], &Limits::default(), &Control::new());
    assert_eq!(kind(by_researcher), Kind::PrivateKeyMissing);
    assert_eq!(kind(granting("nowhere", &[&newcomer_id])), Kind::ObjectNotFound);
    world.hospital.rotate(&world.hospital_id).unwrap();
    assert_eq!(kind(granting("p", &[&newcomer_id])), Kind::KeyExpired);
}

#[test]
fn a_header_that_somebody_else_wrote_meanwhile_is_not_replaced() {
    let world = World::new();
    world.seal_for("p", &FIVE, &[&world.hospital_id], &Control::new(), 1 << 30).unwrap();
    let (before, old) = world.client.read_object("p/header.smp", 1 << 20, &Control::new()).unwrap();
    let newer = [old.as_slice(), b"x"].concat();
    world.put("p/header.smp", newer.clone());
    let outcome = seal::publish(&world.client, "p/header.smp", &old[..old.len() - 1], crate::transfer::Replace::Version(before.version));
    assert_eq!(kind(outcome), Kind::ObjectChanged);
    assert!(world.bytes("p/header.smp") == newer);
}
