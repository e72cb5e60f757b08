//! Verifying a package without keeping anything of it.
//!
//! Everything that reading checks is checked: signature, sender, sizes, every range, every chunk tag and every file's digest. The plaintext
//! exists for as long as its digest takes, and nothing is written.

use serde::Serialize;

use super::open::{Object, open};
use super::{Limits, tree};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::{KeyStore, hex};
use crate::transfer::Client;

/// The report. Field names are those of the C API's JSON.
#[derive(Serialize)]
struct Report<'a> {
    package: &'a str,
    sender: &'a str,
    sender_id: &'a str,
    created: &'a str,
    purpose: &'a str,
    files: usize,
    bytes: u64,
    header_sha256: &'a str,
    objects: Vec<ObjectReport>,
    ok: bool,
}

#[derive(Serialize)]
struct ObjectReport {
    /// `manifest` or `pack`.
    kind: &'static str,
    name: String,
    size: u64,
    ranges: u64,
    ok: bool,
}

/// Checks signature and every range; writes nothing. Returns a JSON report, or the first failure as an error.
pub fn verify(
    client: &Client,
    remote_path: &str,
    keys: &KeyStore,
    trusted: &[String],
    limits: &Limits,
    control: &Control,
) -> Result<String> {
    let package = open(client, remote_path, keys, trusted, limits, control)?;
    let mut files = 0;
    package.read(control, &mut |_| {
        files += 1;
        Ok(())
    })?;
    let facts = package.facts();
    let report = Report {
        package: &facts.id,
        sender: &facts.sender,
        sender_id: &facts.sender_id,
        created: &facts.created,
        purpose: &facts.purpose,
        files,
        bytes: facts.bytes,
        header_sha256: &facts.header_sha256,
        objects: [("manifest", &package.manifest_object)]
            .into_iter()
            .chain(package.packs.iter().map(|pack| ("pack", pack)))
            .map(|(kind, object)| describe(kind, object))
            .collect(),
        // Whatever failed is an error above, so a report is a report of success.
        ok: true,
    };
    serde_json::to_string(&report).map_err(|_| Error::new(Kind::Internal, "the report could not be written").at(Stage::Package))
}

fn describe(kind: &'static str, object: &Object) -> ObjectReport {
    let size = object.signed.size;
    ObjectReport { kind, name: hex(&object.signed.name), size, ranges: tree::range_count(size), ok: true }
}
