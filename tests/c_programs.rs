//! The C programs in `tests/c`, against the library as it is linked for shipping, but from this build: compiled as strict C99, run, and run
//! again under valgrind.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Folder of this test program, where cargo leaves the static library.
fn artifacts() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_path_buf()
}

fn run(program: &Path, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{} {}: {status}", program.display(), arguments.join(" "));
}

#[test]
fn the_c_programs_pass_against_the_linked_library() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    run(&root.join("tools/build-library.sh"), &[out, artifacts().join("libsmp.a").to_str().unwrap()]);
    run(&root.join("tests/c/exported_symbols.sh"), &[&format!("{out}/libsmp.so")]);
    run(&root.join("tests/c/run.sh"), &[out, "--valgrind"]);
}

#[test]
fn the_example_is_strict_c99() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I"])
        .arg(root.join("include"))
        .arg(root.join("examples/process_study/process_study.c"))
        .status()
        .unwrap();
    assert!(status.success());
}
