//! A hospital that has only OpenSSL, and a researcher who has this library. Whatever the hospital does is a command line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use smp::Error;
use smp::control::Control;
use smp::keys::{KeyStore, Unlock};
use smp::package::{self, Limits, PackageFacts};
use smp::secret::Secret;
use smp::transfer::{Client, ClientSettings, StoreSettings};

/// The commands of docs/cms-import.md, in a folder that holds `STUDY/`, the certificate and the key.
pub const TAR: &str = "tar -cf study.tar STUDY/";
pub const ENCRYPT: &str = "openssl cms -encrypt -binary -stream -aes-256-gcm -outform DER -in study.tar -out store/one/study.cms \
                           -recip researcher.pem -keyopt ecdh_kdf_md:sha384";
pub const SIGN: &str = "cd store/one && sha256sum study.cms > SHA256SUMS && \
                        openssl dgst -sha384 -sign ../../hospital.key -out SHA256SUMS.sig SHA256SUMS";

/// What reading gave: kind and text of an error with the number of files that had come out before it.
pub type Failure = (Error, usize);

pub struct Hospital {
    pub place: tempfile::TempDir,
    pub client: Client,
    pub researcher: KeyStore,
    pub researcher_id: String,
    pub hospital_id: String,
}

/// The two parties; `None`, said loudly, on a machine without OpenSSL.
pub fn hospital() -> Option<Hospital> {
    if !Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no openssl command on this machine, so no study in CMS was opened");
        return None;
    }
    let place = tempfile::tempdir().unwrap();
    fs::create_dir_all(place.path().join("store/one")).unwrap();
    let bucket = place.path().join("store").to_str().unwrap().to_owned();
    let client = Client::open(&StoreSettings { bucket, ..StoreSettings::default() }, ClientSettings::default()).unwrap();
    let researcher = key_store(&place.path().join("researcher"));
    let researcher_id = researcher.generate("research").unwrap();
    let mut hospital = Hospital { place, client, researcher, researcher_id, hospital_id: String::new() };
    hospital.certificate("researcher");
    hospital.run("openssl ecparam -name secp384r1 -genkey -noout -out hospital.key");
    hospital.hospital_id = hospital.import("hospital.key");
    hospital.researcher.confirm(&hospital.hospital_id, &hospital.researcher.fingerprint(&hospital.hospital_id).unwrap()).unwrap();
    Some(hospital)
}

pub fn key_store(folder: &Path) -> KeyStore {
    KeyStore::open(folder, Unlock::KeyFile(folder.join("master.key"))).unwrap()
}

impl Hospital {
    pub fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Runs a command line in the hospital's folder.
    pub fn run(&self, command: &str) {
        let output = Command::new("bash").args(["-euc", command]).current_dir(self.place.path()).output().unwrap();
        assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Writes `NAME.pem`, a certificate for the agree key of the researcher's identity.
    pub fn certificate(&self, name: &str) {
        let private = self.researcher.export_private(&self.researcher_id, &Secret::new("for a test".to_owned())).unwrap();
        fs::write(self.at(&format!("{name}.key")), private.as_bytes()).unwrap();
        self.run(&format!("openssl req -x509 -key {name}.key -passin 'pass:for a test' -subj /CN={name} -days 30 -out {name}.pem"));
    }

    /// Makes the public half of a key file known to the researcher, unconfirmed.
    pub fn import(&self, key: &str) -> String {
        self.run(&format!("openssl pkey -in {key} -pubout -out {key}.pub"));
        self.researcher.import("hospital", &fs::read_to_string(self.at(&format!("{key}.pub"))).unwrap()).unwrap()
    }

    /// Writes `STUDY/` and packs it.
    pub fn study(&self, files: &[(&str, &[u8])]) {
        let _ = fs::remove_dir_all(self.at("STUDY"));
        for (name, bytes) in files {
            let path = self.at("STUDY").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        self.run(TAR);
    }

    /// Encrypts and signs what is packed, as documented.
    pub fn send(&self) {
        self.run(ENCRYPT);
        self.run(SIGN);
    }

    /// A small study, sent.
    pub fn send_small(&self) {
        self.study(&[("IM1", &[1; 5000]), ("IM2", &[2; 7000])]);
        self.send();
    }

    pub fn object(&self) -> Vec<u8> {
        fs::read(self.at("store/one/study.cms")).unwrap()
    }

    pub fn put(&self, bytes: &[u8]) {
        fs::write(self.at("store/one/study.cms"), bytes).unwrap();
    }

    pub fn open(&self, limits: &Limits) -> Result<package::Package, Error> {
        package::open(&self.client, "one", &self.researcher, &[], limits, &Control::new())
    }

    /// All files in order, with the facts.
    pub fn read_with(&self, limits: &Limits) -> Result<(PackageFacts, Vec<Vec<u8>>), Failure> {
        let mut files = Vec::new();
        let outcome = self.open(limits).and_then(|package| {
            package.read(&Control::new(), &mut |file| {
                assert_eq!(file.index, files.len());
                files.push(file.bytes.to_vec());
                Ok(())
            })
        });
        match outcome {
            Ok(facts) => Ok((facts, files)),
            Err(error) => Err((error, files.len())),
        }
    }

    pub fn read(&self) -> Result<(PackageFacts, Vec<Vec<u8>>), Failure> {
        self.read_with(&Limits::default())
    }

    /// The error of a study of which nothing may come out.
    pub fn refused(&self) -> Error {
        let (error, files) = self.read().expect_err("the study was opened");
        assert_eq!(files, 0, "a file came out before {error}");
        let target = self.at("refused");
        assert!(self.unseal(&target).is_err() && !target.exists());
        error
    }

    pub fn unseal(&self, target: &Path) -> Result<PackageFacts, Error> {
        package::unseal_to(&self.client, "one", target, &self.researcher, &[], &Limits::default(), &Control::new())
    }

    /// Files of a folder by path.
    pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, fs::read(path).unwrap());
                }
            }
        }
        found
    }
}

/// Bytes without a pattern that a mistake could hide in.
pub fn noise(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}
