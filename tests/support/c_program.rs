//! C programs, compiled against the library of this build and run; what they print as `name=value` comes back by name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Site;

/// Compiles a C program against the library of this build; `cargo test` leaves it beside the test programs.
pub fn compile(source: &str, program: &Path) -> PathBuf {
    let library = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(root.join("include"))
        .arg(root.join(source))
        .arg("-o")
        .arg(program)
        .arg("-L")
        .arg(&library)
        .arg("-lsmp")
        .arg(format!("-Wl,-rpath,{}", library.display()))
        .status()
        .unwrap();
    assert!(status.success());
    program.to_path_buf()
}

/// What the program printed, by name. The environment is the test's own without ONNX Runtime, plus what is given.
pub fn run(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> HashMap<String, String> {
    let output = Command::new(program).args(arguments).env_remove("ORT_DYLIB_PATH").envs(environment.iter().copied()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    eprintln!("{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Writes the site's configuration as a file, with more or other values.
pub fn write_config(site: &Site, path: &Path, more: &[(&str, &str)]) {
    let mut json = serde_json::Map::new();
    for key in
        ["cloud.provider", "cloud.bucket", "user_id", "workspace", "key_store_path", "encryption_key_path", "audit_log_path", "device"]
    {
        json.insert(key.to_owned(), site.config.get(key).unwrap().unwrap().into());
    }
    for (key, value) in more {
        json.insert((*key).to_owned(), (*value).into());
    }
    std::fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
}
