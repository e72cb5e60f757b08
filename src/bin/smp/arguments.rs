//! The command line, as types.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Sealed medical imaging studies: open, de-identify, segment, predict, audit, erase.
#[derive(Parser)]
#[command(name = "smp", version, propagate_version = true)]
pub struct Arguments {
    /// Configuration file (default: ~/.smp/config.json).
    #[arg(long, global = true)]
    pub config: Option<PathBuf>,
    /// Configuration value that overrides the file, as KEY=VALUE; may be repeated.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub values: Vec<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Keys: make, show, exchange, confirm.
    #[command(subcommand)]
    Keys(Keys),
    /// Seal a folder for recipients and upload it (the hospital's side).
    Seal {
        /// Folder with the study's files.
        folder: PathBuf,
        /// Where the package goes in the store.
        remote_path: String,
        /// Key id of the sender.
        #[arg(long)]
        from: String,
        /// Key ids of the recipients, comma separated.
        #[arg(long, value_delimiter = ',', required = true)]
        to: Vec<String>,
    },
    /// Add recipients to a package that was sealed here, also for its sender; the data are not touched.
    Grant {
        /// Where the package is in the store.
        remote_path: String,
        /// Key ids of the new recipients, comma separated.
        #[arg(long, value_delimiter = ',', required = true)]
        to: Vec<String>,
    },
    /// Check a package's signature and every range of it.
    Verify {
        /// Where the package is in the store.
        remote_path: String,
    },
    /// Write a package's plaintext files to a folder. The one way to plaintext on a disk; recorded in the audit log.
    Unseal {
        /// Where the package is in the store.
        remote_path: String,
        /// Folder to write to; must be new or empty.
        folder: PathBuf,
    },
    /// Process one study.
    Process(Process),
    /// Examine the configured store step by step: name, connection, TLS, credentials, list, read, write.
    Doctor {
        /// Where the store is listed and read; all of it when left out.
        #[arg(default_value = "")]
        remote_path: String,
        /// Also write a small object there, read it back and delete it.
        #[arg(long)]
        write: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Models: what a file says of itself, and what its contract has to say.
    #[command(subcommand)]
    Models(Models),
    /// The audit log: totals, verification, export.
    #[command(subcommand)]
    Audit(Audit),
    /// Erase what the workspace holds.
    Cleanup,
    /// What this build can do on this machine, as JSON.
    Capabilities,
    /// Every configuration key with its default and meaning.
    Settings,
}

/// Models.
#[derive(Subcommand)]
pub enum Models {
    /// Tell, as JSON, a model's inputs, outputs and metadata, its contract or what is wrong with it, and a contract to start from.
    Inspect {
        /// The model's file.
        model: PathBuf,
    },
}

/// Keys: make, show, exchange, confirm.
#[derive(Subcommand)]
pub enum Keys {
    /// Make an identity (two P-384 key pairs).
    Generate {
        /// What it is for.
        #[arg(long, default_value = "study transfer")]
        purpose: String,
        /// Label of a PKCS #11 token: the private keys are made there and never leave it. The PIN comes from SMP_PKCS11_PIN or --pin-file.
        #[arg(long, requires = "module")]
        token: Option<String>,
        /// Absolute path of the token's PKCS #11 module.
        #[arg(long, requires = "token")]
        module: Option<PathBuf>,
        /// File whose first line is the token's PIN; nobody else may read it (chmod 600).
        #[arg(long, requires = "token")]
        pin_file: Option<PathBuf>,
    },
    /// List identities and peers with their fingerprints and expiry.
    List,
    /// Print the public keys of an identity, as PEM.
    Export {
        /// Key id.
        id: String,
    },
    /// Print an identity's key card: public keys, label and dates, signed, to be sent by mail.
    Card {
        /// Key id.
        id: String,
    },
    /// Print an identity's certificates, for `openssl cms -encrypt -recip`.
    Certificate {
        /// Key id.
        id: String,
    },
    /// Set the last second in which keys are good.
    Expire {
        /// Key id.
        id: String,
        /// Moment in UTC, such as 2031-12-31T23:59:59Z, or `never`.
        time: String,
    },
    /// Import a peer's public keys; they are unusable until confirmed.
    Import {
        /// Name for people; with a key card, an empty one takes the peer's own.
        label: String,
        /// PEM file or key card.
        file: PathBuf,
    },
    /// Confirm a peer's keys by the fingerprint that the peer read out.
    Confirm {
        /// Key id.
        id: String,
        /// Fingerprint, with or without spaces.
        fingerprint: String,
    },
    /// Replace an identity; the old one still opens what was sealed for it.
    Rotate {
        /// Key id.
        id: String,
    },
    /// Remove an identity or a peer.
    Remove {
        /// Key id.
        id: String,
    },
}

/// Process one study.
#[derive(Args)]
pub struct Process {
    /// Where the study is in the store.
    pub remote_path: String,
    /// Id in results; made up when absent.
    #[arg(long)]
    pub study_id: Option<String>,
    /// Comma separated: load, anonymize, preprocess, segment, predict.
    #[arg(long)]
    pub operations: Option<String>,
    /// zero_knowledge or standard.
    #[arg(long)]
    pub mode: Option<String>,
    /// Folder for the results.
    #[arg(long)]
    pub output: Option<String>,
}

/// The audit log: totals, verification, export.
#[derive(Subcommand)]
pub enum Audit {
    /// Totals, as JSON.
    Summary,
    /// Check every chain of the logs in a folder; fails when one does not verify.
    Verify {
        /// Folder, log or file (default: audit_log_path).
        path: Option<PathBuf>,
    },
    /// Export records between two dates.
    Export {
        /// File to write.
        path: PathBuf,
        /// json or csv.
        #[arg(long, default_value = "json")]
        format: String,
        /// First day, YYYY-MM-DD or RFC 3339.
        #[arg(long)]
        start: Option<String>,
        /// Last day, inclusive.
        #[arg(long)]
        end: Option<String>,
    },
}
