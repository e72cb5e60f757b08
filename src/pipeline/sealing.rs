//! Packages outside a study's run: sealing on the hospital's side, verification, and the one explicit way to plaintext files.

use std::path::Path;

use crate::audit::{AuditLog, Event, Outcome, Value};
use crate::config::Config;
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::keys::KeyStore;
use crate::package::{self, Contents, Instance, PackageFacts, Parties, SealOptions};
use crate::pipeline::request::Request;
use crate::pipeline::workspace::{JOURNALS, SpoolLease, Workspace};
use crate::pipeline::{settings, shared};
use crate::transfer::Client;

/// Seals a folder for recipients and uploads it to `remote_path` of the configured store. The header is written last, so a reader never
/// finds half a package. A call that was interrupted is resumed by the same call: a journal in the `workspace` says what is uploaded.
///
/// # Errors
/// As [`package::seal`]; the attempt is recorded in the configured audit log whether it succeeds or not.
pub fn seal_study(
    config: &Config,
    keys: &KeyStore,
    sender_id: &str,
    recipient_ids: &[&str],
    folder: &Path,
    remote_path: &str,
) -> Result<()> {
    seal(config, keys, sender_id, recipient_ids, &Contents::Folder(folder), remote_path)
}

/// Seals the instances that were added to a request, as [`seal_study`] seals a folder. In the package they are called
/// `instance-000001.dcm` and so on, in the order in which they were added. Nothing is resumed: the bytes are in memory only.
pub fn seal_instances(
    config: &Config,
    keys: &KeyStore,
    sender_id: &str,
    recipient_ids: &[&str],
    request: &Request,
    remote_path: &str,
) -> Result<()> {
    let names: Vec<String> = (1..=request.instances.len()).map(|number| format!("instance-{number:06}.dcm")).collect();
    let instances = names.iter().zip(&request.instances).map(|(name, bytes)| Instance { name, bytes }).collect::<Vec<_>>();
    seal(config, keys, sender_id, recipient_ids, &Contents::Instances(&instances), remote_path)
}

/// Adds recipients to a package that an identity of this key store sealed, also for itself. The data are not touched.
///
/// # Errors
/// As [`package::grant`]; the attempt is recorded.
pub fn grant_study(config: &Config, keys: &KeyStore, recipient_ids: &[&str], remote_path: &str) -> Result<()> {
    recorded(config, keys, "study.granted", remote_path, recipient_ids.len(), |client, limits, control| {
        package::grant(client, remote_path, keys, recipient_ids, limits, control)
    })
    .map(|_| ())
}

fn seal(
    config: &Config,
    keys: &KeyStore,
    sender_id: &str,
    recipient_ids: &[&str],
    contents: &Contents<'_>,
    remote_path: &str,
) -> Result<()> {
    let purpose = config.text("protocol").unwrap_or_default();
    let journals = Some(shared::required(config, "workspace")?.join(JOURNALS));
    recorded(config, keys, "study.sealed", remote_path, recipient_ids.len(), |client, limits, control| {
        let parties = Parties { sender_id, recipient_ids, purpose: &purpose };
        let options = SealOptions { limits: limits.clone(), journals, ..SealOptions::default() };
        package::seal(client, remote_path, contents, keys, &parties, &options, control)
    })
    .map(|_| ())
}

/// Checks a package without opening its contents: signature, sender, sizes and the hash of every range. Returns a report as JSON.
pub fn verify_package(config: &Config, keys: &KeyStore, remote_path: &str) -> Result<String> {
    let trusted = config.list("trusted_senders")?;
    let audit = shared::configured_audit_log(config, keys)?;
    let client = Client::open(&settings::store(config)?, settings::client(config)?)?;
    let outcome = package::verify(&client, remote_path, keys, &trusted, &settings::package_limits(config)?, &Control::new());
    match &outcome {
        Ok(_) => append(&audit, "package.verified", remote_path, Outcome::Success, Vec::new())?,
        Err(error) => append(&audit, "package.verified", remote_path, Outcome::Failure, failure(error))?,
    }
    outcome
}

/// Writes a package's plaintext files to a folder. The one explicit way to plaintext on a disk; it is recorded as such. Interrupted, it is
/// resumed by the same call, from the ciphertext in the `workspace`.
pub fn unseal_study(config: &Config, keys: &KeyStore, remote_path: &str, folder: &Path) -> Result<()> {
    let trusted = config.list("trusted_senders")?;
    let workspace = Workspace::open(&shared::required(config, "workspace")?)?;
    recorded(config, keys, "study.unsealed", remote_path, 0, |client, limits, control| {
        let lease = workspace.lease(&client.describe(), remote_path)?;
        let client = client.with_spool(lease.as_ref().map(|spool| spool.folder().to_path_buf()))?;
        let outcome = package::unseal_to(&client, remote_path, folder, keys, &trusted, limits, control);
        let resumable = outcome.as_ref().err().is_some_and(|error| error.is_retryable() || error.kind() == Kind::Cancelled);
        // With the files there, or without hope for them, the ciphertext has nothing left to do.
        match lease.filter(|_| !resumable).map(SpoolLease::erase) {
            Some(Err(error)) => outcome.and(Err(error)),
            _ => outcome,
        }
    })
    .map(|_| ())
}

/// Runs package work over the configured store and records how it ended, and for how many recipients it was (0 = for none).
fn recorded(
    config: &Config,
    keys: &KeyStore,
    event: &'static str,
    remote_path: &str,
    recipients: usize,
    work: impl FnOnce(&Client, &package::Limits, &Control) -> Result<PackageFacts>,
) -> Result<PackageFacts> {
    config.check()?;
    let audit = shared::configured_audit_log(config, keys)?;
    let client = Client::open(&settings::store(config)?, settings::client(config)?)?;
    let outcome = work(&client, &settings::package_limits(config)?, &Control::new());
    match &outcome {
        Ok(facts) => {
            let mut detail = vec![
                ("package", Value::Text(facts.id.clone())),
                ("sender", Value::Text(facts.sender.clone())),
                ("header_sha256", Value::Text(facts.header_sha256.clone())),
                ("files", Value::Integer(i64::try_from(facts.files).unwrap_or(i64::MAX))),
                ("bytes", Value::Integer(i64::try_from(facts.bytes).unwrap_or(i64::MAX))),
            ];
            if recipients > 0 {
                detail.push(("recipients", Value::Integer(i64::try_from(recipients).unwrap_or(i64::MAX))));
            }
            append(&audit, event, remote_path, Outcome::Success, detail)?;
        }
        Err(error) => append(&audit, event, remote_path, Outcome::Failure, failure(error))?,
    }
    outcome
}

fn append(audit: &AuditLog, event: &'static str, object: &str, outcome: Outcome, detail: Vec<(&'static str, Value)>) -> Result<()> {
    audit.append(&Event { event, outcome, object: Some(object.to_owned()), detail })?;
    Ok(())
}

pub(super) fn failure(error: &Error) -> Vec<(&'static str, Value)> {
    vec![("error_code", Value::Integer(error.code().into())), ("error_stage", Value::Text(error.stage().name().to_owned()))]
}
