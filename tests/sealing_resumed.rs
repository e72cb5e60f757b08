//! A sealing whose process is killed, taken up again by the same command.

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::{Site, files};

/// Each of these fills more than half of a pack, so that every file has a pack of its own.
const FILE_BYTES: u64 = 150 << 20;
const FILES: usize = 4;

/// The hospital's side as the command line sees it.
fn command(site: &Site, arguments: &[&str]) -> Command {
    let path = |name: &str| site.path(name).to_str().unwrap().to_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_smp"));
    for (key, value) in [
        ("cloud.provider", "local".to_owned()),
        ("cloud.bucket", path("store")),
        ("workspace", path("hospital-workspace")),
        ("key_store_path", path("hospital-keys")),
        ("encryption_key_path", path("hospital-keys/master.key")),
        ("audit_log_path", path("hospital-audit")),
    ] {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    command.args(arguments).env("HOME", site.root.path());
    command
}

fn packs(site: &Site) -> BTreeSet<PathBuf> {
    files(&site.path("store")).into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "smpp")).collect()
}

fn journals(site: &Site) -> usize {
    files(&site.path("hospital-workspace")).iter().filter(|path| path.extension().is_some_and(|ending| ending == "journal")).count()
}

#[test]
fn a_killed_sealing_goes_on_where_it_was() {
    let site = Site::new();
    let study = site.path("study");
    std::fs::create_dir(&study).unwrap();
    for number in 0..FILES {
        File::create(study.join(format!("IM{number}"))).unwrap().set_len(FILE_BYTES + number as u64).unwrap();
    }
    let (study, from, to) = (study.to_str().unwrap(), site.hospital_id.as_str(), site.researcher_id.as_str());
    let seal = ["seal", study, "incoming/one", "--from", from, "--to", to];
    let mut first = command(&site, &seal).stdout(Stdio::null()).spawn().unwrap();
    // The journal is written when the first pack is in the store; then the process is killed (SIGKILL) amid the second.
    while journals(&site) == 0 {
        assert!(first.try_wait().unwrap().is_none(), "the sealing ended before its first journal");
        std::thread::yield_now();
    }
    first.kill().unwrap();
    first.wait().unwrap();
    let kept = packs(&site);
    assert!(!kept.is_empty() && kept.len() < FILES, "{} packs", kept.len());
    assert!(!site.path("store/incoming/one/header.smp").exists(), "nothing is published by halves");

    let output = command(&site, &seal).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all = packs(&site);
    assert_eq!(all.len(), FILES);
    assert_eq!(kept.difference(&all).count(), 0, "what was there is part of the package");
    assert_eq!(journals(&site), 0);
    let report = smp::pipeline::verify_package(&site.config, &site.researcher, "incoming/one").unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((report["files"].as_u64(), report["bytes"].as_u64()), (Some(4), Some(4 * FILE_BYTES + 6)));
}
