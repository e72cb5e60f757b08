//! Moto, a second implementation of S3's protocol (in Python), on a free port of 127.0.0.1 with everything in memory. It is stopped when it is dropped.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running server.
pub struct Moto {
    /// `http://127.0.0.1:port`
    pub endpoint: String,
    process: Child,
}

impl Moto {
    /// Starts a server with these buckets; `None`, said loudly, where it is not installed.
    pub fn start(buckets: &[&str]) -> Option<Moto> {
        let Some(program) = program() else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: no moto_server beside SMP_PYTHON; tools/setup.sh test installs it");
            return None;
        };
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", "0"]).env("PYTHONUNBUFFERED", "1");
        // What it says goes into one stream, of which the first lines tell where it listens.
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("moto can be started");
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| Some(line.split_once("Running on ")?.1.trim().to_owned()));
        // Whoever stops reading makes the server wait for ever: it writes a line for each request.
        std::thread::spawn(move || lines.for_each(drop));
        let moto = Moto { endpoint: address.expect("moto ended before it listened"), process };
        for bucket in buckets {
            moto.make_bucket(bucket);
        }
        Some(moto)
    }

    /// Writes a credentials file; the server takes any key.
    pub fn credentials_file(&self, folder: &Path) -> PathBuf {
        let path = folder.join("moto-credentials");
        std::fs::write(&path, "[default]\naws_access_key_id = key\naws_secret_access_key = secret\n").expect("the file can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("the mode can be set");
        path
    }

    fn make_bucket(&self, bucket: &str) {
        let host = self.endpoint.trim_start_matches("http://");
        let mut socket = TcpStream::connect(host).expect("moto listens");
        // The host name of us-east-1, whose buckets need no further word.
        let request = format!("PUT /{bucket} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("moto takes a request");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("moto answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Option<PathBuf> {
    let python = std::env::var_os("SMP_PYTHON").map(PathBuf::from);
    let python = python.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("build/test-venv/bin/python"));
    let program = python.parent()?.join("moto_server");
    program.is_file().then_some(program)
}
