//! The commands. Logic here would mean that the library lacks a function.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use smp::audit::AuditReader;
use smp::config::{self, Config, schema};
use smp::control::Control;
use smp::pipeline::{self, CheckOutcome, Pipeline, RecordedKeyStore, Request};
use smp::secret::Secret;
use smp::{Error, Kind, Result};
use zeroize::Zeroize;

use crate::arguments::{Arguments, Audit, Command, Keys, Models, Process};
use crate::output::{out, outln};

/// Runs the command that was given.
pub fn run(arguments: &Arguments) -> Result<()> {
    let config = configuration(arguments)?;
    match &arguments.command {
        Command::Keys(command) => keys(&config, command),
        Command::Seal { folder, remote_path, from, to } => {
            let keys = pipeline::open_configured_key_store(&config)?;
            let recipients: Vec<&str> = to.iter().map(String::as_str).collect();
            pipeline::seal_study(&config, &keys, from, &recipients, folder, remote_path)?;
            outln!("sealed for {} recipient(s)", recipients.len())?;
            Ok(())
        }
        Command::Grant { remote_path, to } => {
            let keys = pipeline::open_configured_key_store(&config)?;
            let recipients: Vec<&str> = to.iter().map(String::as_str).collect();
            pipeline::grant_study(&config, &keys, &recipients, remote_path)
        }
        Command::Verify { remote_path } => {
            let keys = pipeline::open_configured_key_store(&config)?;
            outln!("{}", pipeline::verify_package(&config, &keys, remote_path)?)?;
            Ok(())
        }
        Command::Unseal { remote_path, folder } => {
            let keys = pipeline::open_configured_key_store(&config)?;
            pipeline::unseal_study(&config, &keys, remote_path, folder)
        }
        Command::Process(command) => process(&config, command),
        Command::Doctor { remote_path, write, json } => doctor(&config, remote_path, *write, *json),
        Command::Models(Models::Inspect { model }) => {
            let found = pipeline::inspect_model(&config, model)?;
            outln!("{}", found.to_json())?;
            Ok(())
        }
        Command::Audit(command) => audit(&config, command),
        Command::Cleanup => {
            let pipeline = Pipeline::new(&config)?;
            let outcome = pipeline.cleanup();
            outln!("{}", pipeline.cleanup_report()?)?;
            outcome
        }
        Command::Capabilities => {
            outln!("{}", pipeline::capabilities())?;
            Ok(())
        }
        Command::Settings => {
            for key in schema::KEYS {
                outln!("{:<28} {:<28} {}", key.name, if key.default.is_empty() { "-" } else { key.default }, key.help)?;
            }
            Ok(())
        }
    }
}

/// The file, then `--set`.
fn configuration(arguments: &Arguments) -> Result<Config> {
    let mut config = Config::load(arguments.config.as_deref())?;
    for value in &arguments.values {
        let (key, value) = value.split_once('=').ok_or_else(|| Error::new(Kind::InvalidArgument, "--set needs KEY=VALUE"))?;
        config.set(key, value)?;
    }
    Ok(config)
}

fn keys(config: &Config, command: &Keys) -> Result<()> {
    let keys = RecordedKeyStore::configured(config)?;
    match command {
        Keys::Generate { purpose, token, module, pin_file } => {
            let id = match (token, module) {
                (Some(token), Some(module)) => keys.generate_on_token(module, token, &pin(pin_file.as_deref())?, purpose)?,
                _ => keys.generate(purpose)?,
            };
            outln!("{id}\n{}", keys.fingerprint(&id)?)?;
        }
        Keys::List => {
            for id in keys.ids()? {
                let kind = if keys.has_private(&id)? { "identity" } else { "peer" };
                let expires = keys.expires(&id)?.map(|time| format!("  expires {time}")).unwrap_or_default();
                outln!("{id}  {kind:<8}  {}{expires}", keys.fingerprint(&id)?)?;
            }
        }
        Keys::Export { id } => out!("{}", keys.export_public(id)?)?,
        Keys::Card { id } => out!("{}", keys.export_card(id)?)?,
        Keys::Certificate { id } => out!("{}", keys.export_certificate(id)?)?,
        Keys::Expire { id, time } => keys.set_expiry(id, Some(time.as_str()).filter(|time| *time != "never"))?,
        Keys::Import { label, file } => {
            let text = std::fs::read_to_string(file).map_err(|_| Error::new(Kind::FileUnreadable, "the file with the public keys"))?;
            let id = keys.import(label, &text)?;
            outln!("{id}\n{}", keys.fingerprint(&id)?)?;
            outln!("not usable yet: compare the fingerprint with its owner, then run `smp keys confirm`")?;
        }
        Keys::Confirm { id, fingerprint } => keys.confirm(id, fingerprint)?,
        Keys::Rotate { id } => outln!("{}", keys.rotate(id)?)?,
        Keys::Remove { id } => keys.remove(id)?,
    }
    Ok(())
}

/// The PIN of a token: from a file or the environment, because every process of the machine can read a command line.
fn pin(file: Option<&Path>) -> Result<Secret<String>> {
    let Some(file) = file else {
        let pin = std::env::var("SMP_PKCS11_PIN").map_err(|_| Error::new(Kind::InvalidArgument, "the token's PIN is missing"));
        return pin.map(Secret::new).map_err(|error| error.with_hint("set SMP_PKCS11_PIN, or name a file with --pin-file"));
    };
    let unreadable = |_| Error::new(Kind::FileUnreadable, "the PIN file");
    if std::fs::metadata(file).map_err(unreadable)?.permissions().mode() & 0o077 != 0 {
        return Err(Error::new(Kind::ConfigPermissions, "the PIN file"));
    }
    let mut text = std::fs::read_to_string(file).map_err(unreadable)?;
    let end = text.find(['\r', '\n']).unwrap_or(text.len());
    let pin = Secret::new(text[..end].to_owned());
    text.zeroize();
    Ok(pin)
}

fn process(config: &Config, command: &Process) -> Result<()> {
    let pipeline = Pipeline::new(config)?;
    let mut request = Request::new(Some(&command.remote_path));
    let settings = [
        ("study_id", &command.study_id),
        ("operations", &command.operations),
        ("download_mode", &command.mode),
        ("output_path", &command.output),
    ];
    for (key, value) in settings {
        if let Some(value) = value {
            request.set(key, value)?;
        }
    }
    outln!("{}", pipeline.process_study(&request)?.json()?)?;
    Ok(())
}

fn doctor(config: &Config, remote_path: &str, may_write: bool, as_json: bool) -> Result<()> {
    let checkup = pipeline::examine_store(config, remote_path, may_write, &Control::new())?;
    if as_json {
        outln!("{}", checkup.json())?;
    } else {
        for check in &checkup.steps {
            let mark = match check.outcome {
                CheckOutcome::Passed => "ok",
                CheckOutcome::Failed => "FAILED",
                CheckOutcome::Skipped => "-",
            };
            outln!("{mark:<7} {:<12} {}", check.step, check.detail)?;
            if let Some(hint) = &check.hint {
                outln!("{:20} {hint}", "")?;
            }
        }
    }
    match checkup.steps.iter().find_map(|check| check.kind.map(|kind| (kind, check.step))) {
        Some((kind, step)) => Err(Error::new(kind, format!("step {step}"))),
        None => Ok(()),
    }
}

fn audit(config: &Config, command: &Audit) -> Result<()> {
    match command {
        Audit::Summary => outln!("{}", Pipeline::new(config)?.audit_summary()?)?,
        Audit::Verify { path } => {
            let path = match path {
                Some(path) => path.clone(),
                None => log_path(config)?,
            };
            let verification = AuditReader::open(&path)?.verify();
            if let Some(position) = verification.first_bad {
                return Err(Error::new(Kind::AuditTampered, format!("record {position} of {}", verification.entries)));
            }
            outln!("{} records verify", verification.entries)?;
        }
        Audit::Export { path, format, start, end } => {
            let entries = AuditReader::open(&log_path(config)?)?.export(format, path, start.as_deref(), end.as_deref())?;
            outln!("{entries} records exported")?;
        }
    }
    Ok(())
}

fn log_path(config: &Config) -> Result<PathBuf> {
    config::expand(&config.get("audit_log_path")?.unwrap_or_default())
}
