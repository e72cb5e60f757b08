//! A proxy of the tests' own between a client and a server on 127.0.0.1, which spoils the answers that a test names.
//!
//! One request per connection and one thread per connection: what happens is plain to see. A request goes on with the `Host` that the client signed;
//! its answer is read whole, spoiled if the script says so, and sent. The proxy stops when it is dropped.
#![allow(dead_code)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A request, as the script sees it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers in lower case, one per line.
    pub head: String,
    /// How often the same method, target and range were asked for before.
    pub before: usize,
}

impl Asked {
    /// A header's value in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer of the proxy's own.
    pub fn new(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Answer { status, headers, body: body.as_bytes().to_vec() }.measured()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Takes a header away.
    pub fn without(mut self, name: &str) -> Answer {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// Sets a header.
    pub fn with(mut self, name: &str, value: &str) -> Answer {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Announces the body's own length.
    pub fn measured(self) -> Answer {
        let length = self.body.len().to_string();
        self.with("content-length", &length)
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Spoiled\r\nconnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "\r\n"
    }
}

/// What is done to one answer.
#[derive(Clone)]
pub enum Fault {
    /// Changes the answer of the server, or replaces it.
    Change(Arc<dyn Fn(Answer) -> Answer + Send + Sync>),
    /// The head, so many bytes of the body, and the connection ends.
    Cut(usize),
    /// The same with a reset (RST) in place of an orderly end; `None` resets before the head.
    Reset(Option<usize>),
    /// The same, and then silence until the client hangs up; `None` is silent from the start.
    Silent(Option<usize>),
    /// A byte of the body now and then, for ever.
    Dribble,
    /// Bytes that need not be HTTP.
    Raw(Vec<u8>),
}

impl Fault {
    /// See [`Fault::Change`].
    pub fn change(change: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Fault {
        Fault::Change(Arc::new(change))
    }

    /// An answer that the server never gave.
    pub fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Fault {
        let answer = Answer::new(status, headers, body);
        Fault::change(move |_| answer.clone())
    }

    /// An error of S3.
    pub fn s3(status: u16, code: &str) -> Fault {
        let body = format!("<Error><Code>{code}</Code><Message>canary of the server</Message></Error>");
        Fault::reply(status, &[("content-type", "application/xml")], &body)
    }
}

type Script = dyn Fn(&Asked) -> Option<Fault> + Send + Sync;

struct Shared {
    /// `host:port` of the server.
    upstream: String,
    script: Box<Script>,
    asked: Mutex<Vec<Asked>>,
    /// Connections of clients, so that all end with the proxy.
    open: Mutex<HashMap<usize, TcpStream>>,
    is_stopped: AtomicBool,
}

/// A running proxy.
pub struct FaultProxy {
    /// `http://127.0.0.1:port`
    pub endpoint: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Goes between clients and the server at `http://host:port`; the script says for each request whether something is wrong with its answer.
    pub fn start(upstream: &str, script: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> FaultProxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let upstream = upstream.strip_prefix("http://").expect("the server speaks http").to_owned();
        let (asked, open, is_stopped) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { upstream, script: Box::new(script), asked, open, is_stopped });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut threads = Vec::new();
            for number in 0.. {
                let Ok((socket, _)) = listener.accept() else { break };
                if accepting.is_stopped.load(Ordering::Acquire) {
                    break;
                }
                accepting.open.lock().unwrap().extend(socket.try_clone().map(|copy| (number, copy)));
                let shared = Arc::clone(&accepting);
                threads.push(std::thread::spawn(move || {
                    // A client that hangs up is its own affair.
                    let _ = shared.serve(&socket);
                    // A connection ends with the last of its copies.
                    shared.open.lock().unwrap().remove(&number);
                }));
            }
            for thread in threads {
                thread.join().expect("a script does not panic");
            }
        });
        FaultProxy { endpoint, shared, thread: Some(thread) }
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        for socket in self.shared.open.lock().unwrap().values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        let _ = TcpStream::connect(self.endpoint.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the script of a fault proxy panicked");
        }
    }
}

impl Shared {
    fn serve(&self, mut client: &TcpStream) -> std::io::Result<()> {
        // The last byte of the head stays unread for now: a socket that is closed before all was read sends a reset.
        let head = read_head(&mut client)?;
        let asked = self.note(&head);
        let fault = (self.script)(&asked);
        if matches!(fault, Some(Fault::Reset(None))) {
            return Ok(());
        }
        if !matches!(fault, Some(Fault::Reset(_))) {
            client.read_exact(&mut [0])?;
        }
        match &fault {
            Some(Fault::Silent(None)) => return until_gone(client),
            Some(Fault::Raw(bytes)) => return client.write_all(bytes),
            _ => {}
        }
        let length = asked.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if !matches!(fault, Some(Fault::Reset(_))) {
            client.read_exact(&mut body)?;
        }
        let answer = self.forward(&head, &body, asked.method == "HEAD")?;
        let answer = match &fault {
            Some(Fault::Change(change)) => change(answer),
            _ => answer,
        };
        client.write_all(answer.head().as_bytes())?;
        let first = |length: usize| &answer.body[..length.min(answer.body.len())];
        match fault {
            Some(Fault::Cut(length) | Fault::Reset(Some(length))) => client.write_all(first(length)),
            Some(Fault::Silent(Some(length))) => {
                client.write_all(first(length))?;
                until_gone(client)
            }
            Some(Fault::Dribble) => {
                client.set_read_timeout(Some(Duration::from_millis(5)))?;
                for byte in &answer.body {
                    client.write_all(&[*byte])?;
                    // Waits for the client to hang up, a moment.
                    if client.read(&mut [0]).is_ok() {
                        return Ok(());
                    }
                }
                until_gone(client)
            }
            _ if asked.method == "HEAD" => Ok(()),
            _ => client.write_all(&answer.body),
        }
    }

    fn note(&self, head: &str) -> Asked {
        let (first, rest) = head.split_once("\r\n").unwrap_or((head, ""));
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let mut asked = Asked { method, target, head: rest.to_ascii_lowercase(), before: 0 };
        let same =
            |other: &&Asked| other.method == asked.method && other.target == asked.target && other.header("range") == asked.header("range");
        let mut all = self.asked.lock().unwrap();
        asked.before = all.iter().filter(same).count();
        all.push(asked.clone());
        asked
    }

    /// The server's own answer.
    fn forward(&self, head: &str, body: &[u8], is_head: bool) -> std::io::Result<Answer> {
        let mut server = TcpStream::connect(&self.upstream)?;
        let lines = head.trim_end().split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let head = lines.collect::<Vec<_>>().join("\r\n") + "\r\nconnection: close\r\n\r\n";
        server.write_all(head.as_bytes())?;
        server.write_all(body)?;
        let head = read_head(&mut server)?;
        let mut body = Vec::new();
        server.read_exact(&mut [0])?;
        server.read_to_end(&mut body)?;
        let (first, rest) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("the server speaks HTTP");
        let headers = rest.lines().filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        let mut answer = Answer { status, headers: headers.collect(), body }.without("connection");
        if answer.header("transfer-encoding").is_some() {
            answer.body = joined(&answer.body);
            answer = answer.without("transfer-encoding");
        }
        Ok(if is_head { answer } else { answer.measured() })
    }
}

/// A head up to its empty line, of which the last byte is left in the socket.
fn read_head(socket: &mut impl Read) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r") {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head[..head.len() - 1]).into_owned())
}

/// The bytes of a chunked body (RFC 9112, 7.1).
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(end) = body.windows(2).position(|pair| pair == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).ok().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let size = size.expect("the server sends chunks");
        if size == 0 {
            break;
        }
        all.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
    all
}

/// Waits for the client to hang up, or for the proxy to end.
fn until_gone(mut client: &TcpStream) -> std::io::Result<()> {
    let mut rest = [0; 4096];
    while client.read(&mut rest)? > 0 {}
    Ok(())
}
