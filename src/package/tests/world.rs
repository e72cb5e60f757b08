//! A hospital and a researcher with a store between them, kept in memory so that a test can tamper with it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::*;
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::keys::{KeyStore, Unlock, hex};
use crate::transfer::{BoxFuture, Client, ClientSettings, ObjectInfo, ObjectStore, Replace, Upload};

/// What a reading yields: all files, or kind and detail of the error with what had been delivered before it.
pub(super) type Outcome = std::result::Result<Vec<Vec<u8>>, (Kind, String, Vec<Vec<u8>>)>;

/// Objects by name, the order in which they were published, and a name ending whose publication loses its answer.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) objects: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(super) published: Mutex<Vec<String>>,
    pub(super) lose_answer: Mutex<Option<&'static str>>,
    /// Ending of the names whose publication fails, and how, once so many objects were published.
    pub(super) fail: Mutex<Option<(&'static str, Kind)>>,
    pub(super) fail_after: AtomicUsize,
}

struct MemoryUpload {
    store: Arc<Memory>,
    name: String,
    replace: Replace,
    bytes: Vec<u8>,
}

/// The store as the client sees it.
pub(super) struct Shared(pub(super) Arc<Memory>);

pub(super) fn info(name: &str, bytes: &[u8]) -> ObjectInfo {
    // The digest as version: a changed object has another one, as an ETag would.
    let version = hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes));
    ObjectInfo { name: name.to_owned(), size: bytes.len() as u64, version }
}

fn not_found() -> Error {
    Error::new(Kind::ObjectNotFound, "")
}

impl ObjectStore for Shared {
    fn describe(&self) -> String {
        "memory".to_owned()
    }
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Vec<ObjectInfo>> {
        Box::pin(async move {
            let objects = self.0.objects.lock().unwrap();
            Ok(objects.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(name, bytes)| info(name, bytes)).collect())
        })
    }
    fn head<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ObjectInfo> {
        Box::pin(async move { self.0.objects.lock().unwrap().get(name).map(|bytes| info(name, bytes)).ok_or_else(not_found) })
    }
    fn read<'a>(&'a self, name: &'a str, range: Range<u64>, version: Option<&'a str>) -> BoxFuture<'a, Vec<u8>> {
        Box::pin(async move {
            let objects = self.0.objects.lock().unwrap();
            let bytes = objects.get(name).ok_or_else(not_found)?;
            if version.is_some_and(|version| version != info(name, bytes).version) {
                return Err(Error::new(Kind::ObjectChanged, ""));
            }
            Ok(bytes[range.start as usize..range.end as usize].to_vec())
        })
    }
    fn upload<'a>(&'a self, name: &'a str, replace: Replace) -> BoxFuture<'a, Box<dyn Upload>> {
        let upload = MemoryUpload { store: Arc::clone(&self.0), name: name.to_owned(), replace, bytes: Vec::new() };
        Box::pin(async move { Ok(Box::new(upload) as Box<dyn Upload>) })
    }
    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.0.objects.lock().unwrap().remove(name);
            Ok(())
        })
    }
}

impl Upload for MemoryUpload {
    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        self.bytes.extend(bytes);
        Box::pin(async { Ok(()) })
    }
    fn finish(self: Box<Self>) -> BoxFuture<'static, ObjectInfo> {
        Box::pin(async move {
            if let Some((ending, kind)) = *self.store.fail.lock().unwrap()
                && self.name.ends_with(ending)
                && self.store.published.lock().unwrap().len() >= self.store.fail_after.load(Ordering::Relaxed)
            {
                return Err(Error::new(kind, ""));
            }
            let mut objects = self.store.objects.lock().unwrap();
            match (&self.replace, objects.get(&self.name)) {
                (Replace::Never, Some(_)) => return Err(Error::new(Kind::ObjectExists, "")),
                (Replace::Version(version), found) if found.is_none_or(|bytes| info("", bytes).version != *version) => {
                    return Err(Error::new(Kind::ObjectChanged, ""));
                }
                _ => {}
            }
            let info = info(&self.name, &self.bytes);
            objects.insert(self.name.clone(), self.bytes);
            self.store.published.lock().unwrap().push(self.name.clone());
            if self.store.lose_answer.lock().unwrap().is_some_and(|ending| self.name.ends_with(ending)) {
                return Err(Error::new(Kind::StoreUnwritable, ""));
            }
            Ok(info)
        })
    }
    fn abort(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A hospital, a researcher who confirmed each other, a store between them, and a study.
pub(in crate::package) struct World {
    pub(in crate::package) place: tempfile::TempDir,
    pub(super) store: Arc<Memory>,
    pub(super) client: Client,
    pub(in crate::package) hospital: KeyStore,
    pub(in crate::package) hospital_id: String,
    pub(super) researcher: KeyStore,
    pub(super) researcher_id: String,
}

pub(in crate::package) fn key_store(folder: PathBuf) -> KeyStore {
    let key_file = folder.join("master.key");
    KeyStore::open(&folder, Unlock::KeyFile(key_file)).unwrap()
}

/// Makes `there`'s key known and confirmed `here`.
pub(super) fn befriend(here: &KeyStore, there: &KeyStore, id: &str) {
    let peer = here.import("peer", &there.export_public(id).unwrap()).unwrap();
    here.confirm(&peer, &there.fingerprint(id).unwrap()).unwrap();
}

impl World {
    pub(in crate::package) fn new() -> World {
        let place = tempfile::tempdir().unwrap();
        let store = Arc::<Memory>::default();
        let settings = ClientSettings { parallel: 3, timeout: Duration::from_secs(30), retries: 0, ..ClientSettings::default() };
        let client = Client::over(Arc::new(Shared(Arc::clone(&store))), settings).unwrap();
        let hospital = key_store(place.path().join("hospital"));
        let researcher = key_store(place.path().join("researcher"));
        let hospital_id = hospital.generate("radiology").unwrap();
        let researcher_id = researcher.generate("breast MRI").unwrap();
        befriend(&hospital, &researcher, &researcher_id);
        befriend(&researcher, &hospital, &hospital_id);
        World { place, store, client, hospital, hospital_id, researcher, researcher_id }
    }

    pub(super) fn study(&self, files: &[(&str, &[u8])]) -> PathBuf {
        let folder = self.place.path().join("study");
        let _ = fs::remove_dir_all(&folder);
        for (name, bytes) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    pub(super) fn seal(&self, path: &str, files: &[(&str, &[u8])]) -> Result<PackageFacts> {
        self.seal_for(path, files, &[&self.researcher_id], &Control::new(), 1 << 30)
    }

    pub(super) fn seal_for(
        &self,
        path: &str,
        files: &[(&str, &[u8])],
        recipients: &[&str],
        control: &Control,
        pack_bytes: u64,
    ) -> Result<PackageFacts> {
        let folder = self.study(files);
        let options = SealOptions { pack_bytes, ..SealOptions::default() };
        self.seal_as(path, &Contents::Folder(&folder), recipients, &options, control)
    }

    pub(super) fn seal_as(
        &self,
        path: &str,
        contents: &Contents<'_>,
        recipient_ids: &[&str],
        options: &SealOptions,
        control: &Control,
    ) -> Result<PackageFacts> {
        let parties = Parties { sender_id: &self.hospital_id, recipient_ids, purpose: "test" };
        seal(&self.client, path, contents, &self.hospital, &parties, options, control)
    }

    pub(super) fn open(&self, path: &str) -> Result<Package> {
        open(&self.client, path, &self.researcher, &[], &Limits::default(), &Control::new())
    }

    /// Path of a sealed package's first file.
    pub(super) fn path_of_first(&self, path: &str) -> String {
        let super::super::opened::Form::Sealed(package) = self.open(path).unwrap().form else { panic!("not a sealed package") };
        package.files[0].path.to_string()
    }

    /// All files of a package, or the error together with what had been delivered before it.
    pub(super) fn read(&self, path: &str) -> Outcome {
        let mut files = Vec::new();
        let outcome = self.open(path).and_then(|package| {
            package.read(&Control::new(), &mut |file| {
                assert_eq!(file.index, files.len());
                files.push(file.bytes.to_vec());
                Ok(())
            })
        });
        match outcome {
            Ok(_) => Ok(files),
            Err(error) => Err((error.kind(), error.detail().to_owned(), files)),
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.store.objects.lock().unwrap().keys().cloned().collect()
    }

    /// The one name below a path with this ending.
    pub(super) fn name(&self, path: &str, ending: &str) -> String {
        self.names().into_iter().find(|name| name.starts_with(path) && name.ends_with(ending)).unwrap()
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        self.store.objects.lock().unwrap()[name].clone()
    }

    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.store.objects.lock().unwrap().insert(name.to_owned(), bytes);
    }
}
