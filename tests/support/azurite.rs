//! Azurite, Microsoft's emulator of Blob Storage, on a free port of 127.0.0.1 with everything in memory. It is stopped when it is dropped.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Account and key of the emulator, which are the same everywhere and open nothing.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running emulator.
pub struct Azurite {
    /// `http://127.0.0.1:port/devstoreaccount1`
    pub endpoint: String,
    process: Child,
}

impl Azurite {
    /// Starts an emulator; `None`, said loudly, where it is not installed.
    pub fn start() -> Option<Azurite> {
        let script = program();
        if !script.is_file() || Command::new("node").arg("--version").output().is_err() {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "SKIPPED: no node or no Azurite; tools/setup.sh test installs it");
            return None;
        }
        let mut command = Command::new("node");
        command.arg(script).args(["--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", "0", "--disableTelemetry"]);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("node can be started");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        // It says where it listens, or ends.
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| Some(line.split_once("listens on ")?.1.trim().to_owned()));
        // Whoever stops reading makes the emulator wait for ever: it writes a line for each request.
        std::thread::spawn(move || lines.for_each(drop));
        let address = address.expect("Azurite ended before it listened");
        Some(Azurite { endpoint: format!("{address}/{ACCOUNT}"), process })
    }

    /// Connection string of the account.
    pub fn connection_string(&self) -> String {
        format!("DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={};", self.endpoint)
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("build/azurite/node_modules/azurite/dist/src/blob/main.js")
}
