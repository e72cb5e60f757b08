//! The hospital's side in Rust: seals a study folder for a researcher.
//!
//! ```sh
//! seal_study STUDY_FOLDER WORK_FOLDER RESEARCHER.pem FINGERPRINT REMOTE_PATH [KEY=VALUE ...]
//! ```
//!
//! The same program as `seal_study.c` beside it: `RESEARCHER.pem` came by mail, `FINGERPRINT` was read out over the telephone, the hospital's
//! own public keys are written to `WORK_FOLDER/hospital.pem`.

use std::path::Path;
use std::process::ExitCode;

use smp::config::Config;
use smp::keys::KeyStore;
use smp::pipeline;
use smp::{Error, Kind, Result};

/// The identity that seals: made on the first run, used on every later one.
fn own_identity(keys: &KeyStore) -> Result<String> {
    for id in keys.ids()? {
        if keys.has_private(&id)? {
            return Ok(id);
        }
    }
    keys.generate("sealing studies")
}

/// The researcher's key id: imported on the first run, known on every later one, and believed because of the fingerprint alone.
fn know(keys: &KeyStore, pem: &str, fingerprint: &str) -> Result<String> {
    let id = match keys.import("researcher", pem) {
        Err(error) if error.kind() == Kind::KeyExists => {
            let mut known = keys.ids()?.into_iter();
            known.find(|id| keys.export_public(id).is_ok_and(|known| known == pem)).ok_or(error)?
        }
        imported => imported?,
    };
    keys.confirm(&id, fingerprint)?;
    Ok(id)
}

fn seal(study: &Path, work: &str, pem: &Path, fingerprint: &str, remote_path: &str, overrides: &[String]) -> Result<()> {
    let mut config = Config::new();
    config.set("cloud.bucket", &format!("{work}/store"))?;
    config.set("workspace", &format!("{work}/workspace"))?;
    config.set("audit_log_path", &format!("{work}/audit"))?;
    config.set("user_id", "imaging@hospital.example")?;
    for pair in overrides {
        let (key, value) = pair.split_once('=').ok_or_else(|| Error::new(Kind::InvalidArgument, "KEY=VALUE is expected"))?;
        config.set(key, value)?;
    }
    let unreadable = |_| Error::new(Kind::FileUnreadable, "a file of public keys");
    let keys = pipeline::open_key_store(Some(&Path::new(work).join("hospital-keys")), None)?;
    let sender = own_identity(&keys)?;
    std::fs::write(Path::new(work).join("hospital.pem"), keys.export_public(&sender)?).map_err(unreadable)?;
    println!("Our fingerprint, to be read out: {}", keys.fingerprint(&sender)?);

    let researcher = know(&keys, &std::fs::read_to_string(pem).map_err(unreadable)?, fingerprint)?;
    // The sender seals for itself too: it can check what it sent, and grant the study to somebody else later (`pipeline::grant_study`).
    pipeline::seal_study(&config, &keys, &sender, &[&researcher, &sender], study, remote_path)?;
    println!("Sealed and verified: {}", pipeline::verify_package(&config, &keys, remote_path)?);
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [study, work, pem, fingerprint, remote_path, overrides @ ..] = arguments.as_slice() else {
        eprintln!("usage: seal_study STUDY_FOLDER WORK_FOLDER RESEARCHER.pem FINGERPRINT REMOTE_PATH [KEY=VALUE ...]");
        return ExitCode::from(2);
    };
    match seal(Path::new(study), work, Path::new(pem), fingerprint, remote_path, overrides) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("seal_study: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("  {hint}");
            }
            ExitCode::FAILURE
        }
    }
}
