//! The command line as scripts use it.

use std::process::{Command, Stdio};

/// A script that reads the first line only (`| head -n 1`) closes the pipe while the command still prints: the work is done, so the command succeeds.
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_smp"))
        .env("HOME", home.path())
        .args(["keys", "generate"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stderr, b"");
}

/// A disk that is full is one: what was to be kept is not there.
#[test]
fn a_full_disk_is_a_failure() {
    let home = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_smp")).env("HOME", home.path()).arg("capabilities").stdout(full).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("SMP_ERR_OUTPUT_UNWRITABLE"));
}
