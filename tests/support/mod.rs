//! What several integration tests share: a hospital and a researcher with their keys, a store between them, and a small made-up study.

#![allow(dead_code, missing_docs)]

pub mod c_program;
pub mod s3_server;
pub mod study;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use smp::config::Config;
use smp::keys::KeyStore;
use smp::pipeline::{self, Pipeline};

/// A hospital that seals, a researcher who opens, and a folder as the store between them.
pub struct Site {
    pub root: tempfile::TempDir,
    pub hospital: Arc<KeyStore>,
    pub hospital_id: String,
    pub researcher: Arc<KeyStore>,
    pub researcher_id: String,
    pub config: Config,
}

impl Site {
    /// Keys made, exchanged and confirmed on both sides; the configuration is the researcher's.
    pub fn new() -> Site {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let hospital = pipeline::open_key_store(Some(&path("hospital-keys")), None).unwrap();
        let researcher = pipeline::open_key_store(Some(&path("researcher-keys")), None).unwrap();
        let hospital_id = hospital.generate("sealing").unwrap();
        let researcher_id = researcher.generate("hospital-data-transfer").unwrap();
        introduce(&hospital, &hospital_id, &researcher, "hospital");
        introduce(&researcher, &researcher_id, &hospital, "researcher");

        std::fs::create_dir(path("store")).unwrap();
        let mut config = Config::new();
        for (key, value) in [
            ("cloud.provider", "local"),
            ("cloud.bucket", path("store").to_str().unwrap()),
            ("user_id", "researcher@university.example"),
            ("workspace", path("workspace").to_str().unwrap()),
            ("key_store_path", path("researcher-keys").to_str().unwrap()),
            ("encryption_key_path", path("researcher-keys/master.key").to_str().unwrap()),
            ("audit_log_path", path("audit").to_str().unwrap()),
            ("device", "cpu"),
        ] {
            config.set(key, value).unwrap();
        }
        Site { root, hospital, hospital_id, researcher, researcher_id, config }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The hospital's configuration: the same store, its own audit log.
    pub fn hospital_config(&self) -> Config {
        let mut config = self.config.clone();
        config.set("audit_log_path", self.path("hospital-audit").to_str().unwrap()).unwrap();
        config.set("user_id", "imaging@hospital.example").unwrap();
        config
    }

    /// Seals a folder for the researcher.
    pub fn seal(&self, folder: &Path, remote_path: &str) {
        pipeline::seal_study(&self.hospital_config(), &self.hospital, &self.hospital_id, &[&self.researcher_id], folder, remote_path)
            .unwrap();
    }

    pub fn pipeline(&self) -> Pipeline {
        Pipeline::new(&self.config).unwrap()
    }
}

/// One side sends its public keys; the other imports them and confirms the fingerprint that was read out.
pub fn introduce(from: &KeyStore, id: &str, to: &KeyStore, label: &str) {
    let known_as = to.import(label, &from.export_public(id).unwrap()).unwrap();
    to.confirm(&known_as, &from.fingerprint(id).unwrap()).unwrap();
    assert_eq!(known_as, id, "a key has the same id on both sides");
}

/// Real data, models and vectors; `None` (said loudly) when they are not there.
pub fn test_data() -> Option<PathBuf> {
    let folder = std::env::var_os("SMP_TEST_DATA")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    if folder.is_dir() {
        return Some(folder.canonicalize().unwrap());
    }
    skipped("no real data; set SMP_TEST_DATA to the folder of test studies");
    None
}

/// ONNX Runtime as the library will find it; `None` (said loudly) when it is not there.
pub fn onnx_runtime() -> Option<PathBuf> {
    match std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from).filter(|path| path.is_file()) {
        Some(path) => Some(path),
        None => {
            skipped("no ONNX Runtime; set ORT_DYLIB_PATH to libonnxruntime.so");
            None
        }
    }
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Whether any file below a folder holds these bytes.
pub fn any_file_holds(folder: &Path, needle: &[u8]) -> Option<PathBuf> {
    files(folder).into_iter().find(|path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

/// Says what was not tested, past the capture of passing tests: a silent skip looks like a pass.
pub fn skipped(what: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}
