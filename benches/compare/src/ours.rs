//! The library: sealing a folder into a local store and opening it again, with every check that users get.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use smp::control::Control;
use smp::keys::{KeyStore, Unlock};
use smp::package::{self, Contents, Limits, Parties, SealOptions};
use smp::transfer::{Client, ClientSettings, StoreSettings};

use crate::clock::Clock;
use crate::{Row, raw};

pub const SEAL: &str = "smp seal (folder to local store)";
pub const OPEN: &str = "smp open (verify, decrypt, hash every file)";

/// Bytes of one file of the study: a slice of 512 by 512 voxels of 16 bits.
const FILE: usize = 512 * 512 * 2;

/// A hospital that seals for itself, a study, a store.
pub struct World {
    pub study: PathBuf,
    pub bytes: usize,
    place: PathBuf,
    client: Client,
    keys: KeyStore,
    id: String,
    runs: Cell<usize>,
}

impl World {
    /// A study of files full of noise.
    pub fn new(place: &Path, bytes: usize) -> World {
        let study = place.join("study");
        fs::create_dir(&study).unwrap();
        let block = raw::noise(FILE + 4096);
        for number in 0..bytes / FILE {
            fs::write(study.join(format!("slice-{number:06}.dcm")), &block[number % 4096..][..FILE]).unwrap();
        }
        World::at(place, bytes)
    }

    /// A study of files with holes, which take no room on the disk.
    pub fn sparse(place: &Path, bytes: usize) -> World {
        let study = place.join("study");
        fs::create_dir_all(&study).unwrap();
        for number in 0..bytes / FILE {
            fs::File::create(study.join(format!("slice-{number:06}.dcm"))).and_then(|file| file.set_len(FILE as u64)).unwrap();
        }
        World::at(place, bytes)
    }

    fn at(place: &Path, bytes: usize) -> World {
        let (study, store, keys) = (place.join("study"), place.join("store"), place.join("keys"));
        fs::create_dir_all(&store).unwrap();
        let bucket = store.to_str().unwrap().to_owned();
        let client = Client::open(&StoreSettings { bucket, ..StoreSettings::default() }, ClientSettings::default()).unwrap();
        let keys = KeyStore::open(&keys, Unlock::KeyFile(keys.join("master.key"))).unwrap();
        // The second process of a memory measurement finds the identity of the first.
        let known = fs::read_to_string(place.join("identity"));
        let id = known.unwrap_or_else(|_| keys.generate("benchmark").unwrap());
        fs::write(place.join("identity"), &id).unwrap();
        World { study, bytes: bytes / FILE * FILE, place: place.to_owned(), client, keys, id, runs: Cell::new(0) }
    }

    fn seal(&self) -> String {
        let path = format!("run-{}", self.runs.replace(self.runs.get() + 1));
        let recipients = [self.id.as_str()];
        let parties = Parties { sender_id: &self.id, recipient_ids: &recipients, purpose: "benchmark" };
        let (contents, options) = (Contents::Folder(&self.study), SealOptions::default());
        package::seal(&self.client, &path, &contents, &self.keys, &parties, &options, &Control::new()).unwrap();
        path
    }

    fn open(&self, path: &str) {
        let control = Control::new();
        let mut bytes = 0;
        let package = package::open(&self.client, path, &self.keys, &[], &Limits::default(), &control).unwrap();
        package
            .read(&control, &mut |file| {
                bytes += file.bytes.len();
                Ok(())
            })
            .unwrap();
        assert_eq!(bytes, self.bytes);
    }

    /// Seals or opens once and says how much memory the process had at most.
    pub fn memory(&self, word: &str) {
        let before = peak();
        match word {
            "seal" => drop(self.seal()),
            _ => self.open("run-0"),
        }
        println!("{word} {} MiB: {} MiB at most, {} MiB before it began", self.bytes >> 20, peak() >> 10, before >> 10);
    }

    fn forget(&self, path: &str) {
        fs::remove_dir_all(self.place.join("store").join(path)).unwrap();
    }
}

/// The most memory that this process ever had, in KiB: `VmHWM` of proc(5).
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

pub fn rows(world: &World) -> Vec<Row<'_>> {
    let last = std::rc::Rc::new(Cell::new(None::<String>));
    let sealed = std::rc::Rc::clone(&last);
    vec![
        Row::own(SEAL, world.bytes, move || {
            if let Some(path) = sealed.take() {
                world.forget(&path);
            }
            let clock = Clock::start();
            let path = world.seal();
            let spent = clock.stop();
            sealed.set(Some(path));
            Some(spent)
        }),
        Row::own(OPEN, world.bytes, move || {
            let path = last.take()?;
            let clock = Clock::start();
            world.open(&path);
            let spent = clock.stop();
            last.set(Some(path));
            Some(spent)
        }),
    ]
}
