//! A study of some gibibytes through the importer, with the memory it took. Ignored by default; tools/test.sh runs it by itself, because the
//! peak is that of the whole process.

use std::fs;
use std::process::Command;
use std::time::Instant;

use smp::control::Control;
use smp::package::{self, Limits};
use smp::transfer::{Client, ClientSettings, StoreSettings};

use super::hospital::{ENCRYPT, SIGN, hospital};

/// Plaintext in MiB, in files of 512; `SMP_LARGE_MIB` changes it.
const MEBIBYTES: u64 = 3072;
const FILE_MEBIBYTES: u64 = 512;
/// What the process may hold at its peak, in MiB, whatever the size of the study.
const MOST_RESIDENT: u64 = 64;

/// Peak of this process's resident memory in KiB, from the kernel.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes that are free where temporary files go.
fn free_bytes() -> u64 {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(std::env::temp_dir()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().last().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[test]
#[ignore = "needs disk space and half a minute"]
fn a_study_of_gibibytes_passes_through_little_memory() {
    let Some(hospital) = hospital() else { return };
    let mebibytes = std::env::var("SMP_LARGE_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(MEBIBYTES);
    let needed = (mebibytes << 20) * 9 / 4;
    if free_bytes() < needed {
        eprintln!("SKIPPED: the large study in CMS needs {} MiB of free disk in {}", needed >> 20, std::env::temp_dir().display());
        return;
    }
    // Holes cost no disk, and tar and OpenSSL read them as zeros. The archive itself is never written.
    let files = mebibytes.div_ceil(FILE_MEBIBYTES);
    hospital.run(&format!("mkdir STUDY && for n in $(seq {files}); do truncate -s {FILE_MEBIBYTES}M STUDY/IM$n; done"));
    let started = Instant::now();
    hospital.run(&format!("tar -cf - STUDY/ | {}", ENCRYPT.replace("-in study.tar", "-in /dev/stdin")));
    hospital.run(SIGN);
    let size = fs::metadata(hospital.at("store/one/study.cms")).unwrap().len();
    println!("large study: {} MiB in CMS, made by openssl in {:.1} s", size >> 20, started.elapsed().as_secs_f64());

    let before = peak_kib();
    let bucket = hospital.at("store").to_str().unwrap().to_owned();
    let client = Client::open(&StoreSettings { bucket, ..StoreSettings::default() }, ClientSettings::default()).unwrap();
    let (limits, control) = (Limits::default(), Control::new());
    let started = Instant::now();
    let report = package::verify(&client, "one", &hospital.researcher, &[], &limits, &control).unwrap();
    let (seconds, verified) = (started.elapsed().as_secs_f64(), peak_kib());
    println!("large study: verified in {seconds:.1} s, peak resident memory {} MiB (before: {} MiB)", verified >> 10, before >> 10);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["files"], &report["bytes"]), (&files.into(), &((files * FILE_MEBIBYTES) << 20).into()));

    let started = Instant::now();
    package::unseal_to(&client, "one", &hospital.at("out"), &hospital.researcher, &[], &limits, &control).unwrap();
    let (seconds, unsealed) = (started.elapsed().as_secs_f64(), peak_kib());
    println!("large study: unsealed in {seconds:.1} s, peak resident memory {} MiB", unsealed >> 10);
    hospital.run("cmp STUDY/IM1 out/STUDY/IM1");
    assert!(unsealed >> 10 < MOST_RESIDENT, "{} MiB", unsealed >> 10);
}
