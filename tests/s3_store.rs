//! The S3 store against a real S3 server in this process, over a socket, with signatures.

#[path = "support/large_object.rs"]
mod large_object;
#[path = "support/s3_server.rs"]
mod s3_server;
#[path = "support/store_contract.rs"]
mod store_contract;

use std::path::Path;
use std::time::Duration;

use s3_server::S3Server;
use smp::control::Control;
use smp::error::Kind;
use smp::transfer::{Client, ClientSettings, Replace, StoreSettings};
use store_contract::{Extent, fetch, fetch_one, names, pattern, put};

struct Bench {
    place: tempfile::TempDir,
    server: S3Server,
}

impl Bench {
    fn new() -> Bench {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("root")).unwrap();
        let server = S3Server::start(&place.path().join("root"), &["studies"]);
        Bench { place, server }
    }

    fn store(&self) -> StoreSettings {
        StoreSettings {
            provider: "s3".into(),
            bucket: "studies".into(),
            region: Some("us-east-1".into()),
            endpoint: Some(self.server.endpoint.clone()),
            credentials_path: Some(self.server.credentials_file(self.place.path())),
            ..StoreSettings::default()
        }
    }

    fn client(&self) -> Client {
        Client::open(&self.store(), settings()).unwrap()
    }

    /// The object as it lies on the server's disk.
    fn on_disk(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join("root/studies").join(name)
    }
}

fn settings() -> ClientSettings {
    ClientSettings { retries: 0, timeout: Duration::from_secs(20), ..ClientSettings::default() }
}

#[test]
fn it_does_what_every_store_must_do() {
    let bench = Bench::new();
    store_contract::check(&bench.client(), &Extent::default());
}

#[test]
fn the_prefix_is_put_before_and_taken_off() {
    let bench = Bench::new();
    let inside = Client::open(&StoreSettings { prefix: "site-7/in".into(), ..bench.store() }, settings()).unwrap();
    put(&inside, "study/x", b"1");
    assert_eq!(names(&inside, "study"), ["study/x"]);
    assert_eq!(names(&bench.client(), ""), ["site-7/in/study/x"]);
}

#[test]
fn twenty_mebibytes_in_parts_come_back_in_ranges() {
    let bench = Bench::new();
    let client = bench.client();
    let bytes = pattern(20 << 20);
    let mut upload = client.upload("study/pack", Replace::Never).unwrap();
    // Pieces that fit no part.
    for piece in bytes.chunks(3_000_001) {
        upload.write(piece.to_vec()).unwrap();
    }
    assert!(!bench.on_disk("study/pack").exists(), "nothing is visible before the end");
    let object = upload.finish().unwrap();
    assert_eq!(object.size, bytes.len() as u64);
    assert!(std::fs::read(bench.on_disk("study/pack")).unwrap() == bytes);
    // Three parts of at most 8 MiB: the ETag of a multipart object ends with their number.
    assert!(object.version.ends_with("-3"), "{}", object.version);
    let end = object.size;
    let ranges = [end - 7..end, 0..1, 1..5_000_000, 5_000_000..5_000_000, 5_000_000..end - 7];
    let expected: Vec<u8> = ranges.iter().flat_map(|range| bytes[range.start as usize..range.end as usize].to_vec()).collect();
    assert!(fetch(&client, "study/pack", &object.version, &ranges).unwrap() == expected);
}

#[test]
#[ignore = "by itself, because its peak of memory is that of the process"]
fn a_gibibyte_passes_through_little_memory() {
    let bench = Bench::new();
    let settings = ClientSettings { parallel: 4, ..settings() };
    let peak = large_object::there_and_back(&Client::open(&bench.store(), settings).unwrap(), 1 << 30, 8 << 20);
    println!("1 GiB: {} MiB beyond what was held before, the server's share included", peak >> 20);
    assert!(peak < 256 << 20, "{} MiB", peak >> 20);
}

#[test]
fn a_dropped_upload_leaves_nothing_at_the_server() {
    let bench = Bench::new();
    let before = files_below(bench.place.path());
    let client = bench.client();
    let mut upload = client.upload("study/pack", Replace::Never).unwrap();
    upload.write(pattern(9 << 20)).unwrap();
    assert!(files_below(bench.place.path()) > before, "a part or its register lies at the server");
    drop(upload);
    assert!(names(&client, "").is_empty());
    // The credentials file is the one that the client itself brought.
    assert_eq!(files_below(bench.place.path()), before + 1);
}

fn files_below(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

#[test]
fn a_changed_object_is_noticed() {
    let bench = Bench::new();
    let client = bench.client();
    put(&client, "x", b"0123456789");
    let (before, listed) =
        (client.head("x", &Control::new()).unwrap().version, client.list("", &Control::new()).unwrap().remove(0).version);
    for version in [&before, &listed] {
        assert_eq!(fetch_one(&client, "x", version, 2..5).unwrap(), b"234");
    }
    let mut replacing = client.upload("x", Replace::Allowed).unwrap();
    replacing.write(b"9876543210!".to_vec()).unwrap();
    replacing.finish().unwrap();
    for version in [&before, &listed] {
        assert_eq!(fetch_one(&client, "x", version, 2..5).unwrap_err().kind(), Kind::ObjectChanged);
    }
    let now = client.head("x", &Control::new()).unwrap().version;
    assert_eq!(fetch_one(&client, "x", &now, 2..12).unwrap_err().kind(), Kind::ObjectChanged, "the range ends past the object");
}

#[test]
fn what_is_missing_is_named_without_its_name() {
    let bench = Bench::new();
    let client = bench.client();
    let missing = client.head("patient-jones/x", &Control::new()).unwrap_err();
    assert_eq!(missing.kind(), Kind::ObjectNotFound);
    assert!(!missing.to_string().contains("jones"));
    assert_eq!(client.read_small("x", 10, &Control::new()).unwrap_err().kind(), Kind::ObjectNotFound);
    let elsewhere = Client::open(&StoreSettings { bucket: "nobucket".into(), ..bench.store() }, settings()).unwrap();
    let error = elsewhere.list("", &Control::new()).unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::ObjectNotFound, "the bucket does not exist"));
}

#[test]
fn wrong_credentials_are_told_from_none() {
    let bench = Bench::new();
    let file = bench.place.path().join("other");
    let open = |text: String| {
        store_contract::write_secret(&file, &text);
        let store = StoreSettings { credentials_path: Some(file.clone()), ..bench.store() };
        Client::open(&store, settings()).unwrap().list("", &Control::new()).unwrap_err()
    };
    let key = &bench.server.access_key;
    let wrong = open(format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = wrong-canary\n"));
    assert_eq!((wrong.kind(), wrong.detail()), (Kind::AccessDenied, "the secret key does not fit the access key"));
    let unknown = open("[default]\naws_access_key_id = UNKNOWN\naws_secret_access_key = wrong-canary\n".into());
    assert_eq!(unknown.kind(), Kind::AccessDenied);
    let none = open("[somebody]\naws_access_key_id = UNKNOWN\naws_secret_access_key = wrong-canary\n".into());
    assert_eq!(none.kind(), Kind::CredentialsMissing);
    for error in [wrong, unknown, none] {
        assert!(!error.to_string().contains("canary"));
    }
    let absent = StoreSettings { credentials_path: Some(bench.place.path().join("none")), ..bench.store() };
    assert_eq!(Client::open(&absent, settings()).err().unwrap().kind(), Kind::CredentialsMissing);
}

#[test]
fn a_refused_connection_names_the_endpoint_and_the_proxy() {
    let bench = Bench::new();
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let direct = StoreSettings { endpoint: Some(format!("http://{free}")), ..bench.store() };
    let error = Client::open(&direct, settings()).unwrap().list("", &Control::new()).unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::ConnectionRefused, free.to_string().as_str()));
    assert!(error.to_string().starts_with("Connection refused: 127.0.0.1:"));
    let endpoint = "http://store.example.org:9000".to_owned();
    let by_proxy = StoreSettings { endpoint: Some(endpoint), proxy: Some(format!("http://user:canary@{free}")), ..bench.store() };
    let error = Client::open(&by_proxy, settings()).unwrap().list("", &Control::new()).unwrap_err();
    assert_eq!(error.kind(), Kind::ConnectionRefused);
    assert_eq!(error.detail(), format!("store.example.org:9000 by way of proxy {free}"));
}

#[test]
fn a_server_that_speaks_no_tls_is_a_tls_failure() {
    let bench = Bench::new();
    let store = StoreSettings { endpoint: Some(bench.server.endpoint.replace("http:", "https:")), ..bench.store() };
    let client = Client::open(&store, settings()).unwrap();
    assert!(client.is_encrypted_in_transit() && !bench.client().is_encrypted_in_transit());
    assert_eq!(client.list("", &Control::new()).unwrap_err().kind(), Kind::TlsFailed);
}

#[test]
fn a_server_that_never_answers_is_given_up_and_can_be_cancelled() {
    let bench = Bench::new();
    // Accepts by the kernel's backlog and says nothing.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let store = StoreSettings { endpoint: Some(format!("http://{}", silent.local_addr().unwrap())), ..bench.store() };
    let impatient = ClientSettings { timeout: Duration::from_millis(200), ..settings() };
    let error = Client::open(&store, impatient).unwrap().head("x", &Control::new()).unwrap_err();
    assert_eq!(error.kind(), Kind::TransferTimeout);
    let control = Control::new();
    let patient = Client::open(&store, ClientSettings { timeout: Duration::from_secs(3_600), ..settings() }).unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let connection = silent.accept().unwrap();
            control.cancel();
            connection
        });
        assert_eq!(patient.head("x", &control).unwrap_err().kind(), Kind::Cancelled);
        drop(server.join());
    });
}

#[test]
fn an_upload_to_a_server_that_never_answers_can_be_cancelled() {
    use std::io::{Read, Write};
    let bench = Bench::new();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let store = StoreSettings { endpoint: Some(format!("http://{}", listener.local_addr().unwrap())), ..bench.store() };
    let patient = Client::open(&store, ClientSettings { timeout: Duration::from_secs(3_600), ..settings() }).unwrap();
    let control = Control::new();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            // The name is free, so the upload begins; then silence.
            let (mut socket, _) = listener.accept().unwrap();
            assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
            socket.write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n").unwrap();
            drop(socket);
            let silent = listener.accept().unwrap();
            control.cancel();
            silent
        });
        let mut upload = patient.upload("x", Replace::Never).unwrap().watched_by(&control);
        upload.write(b"abc".to_vec()).unwrap();
        assert_eq!(upload.finish().unwrap_err().kind(), Kind::Cancelled);
        // Held until here: a closed connection would be another error.
        drop(server.join());
    });
}

#[test]
fn a_setting_that_cannot_be_used_is_refused_by_its_key() {
    let bench = Bench::new();
    let refuse = |store: StoreSettings, detail: &str| {
        let error = Client::open(&store, settings()).err().expect(detail);
        assert_eq!((error.kind(), error.detail()), (Kind::ConfigInvalidValue, detail));
    };
    refuse(StoreSettings { bucket: String::new(), ..bench.store() }, "provider s3 needs cloud.bucket");
    refuse(StoreSettings { endpoint: Some("host:9000".into()), ..bench.store() }, "cloud.endpoint must be http(s)://host[:port]");
    refuse(StoreSettings { ca_bundle: Some("/nowhere/ca.pem".into()), ..bench.store() }, "cloud.ca_bundle cannot be read");
    refuse(
        StoreSettings { proxy: Some("proxy:3128".into()), ..bench.store() },
        "cloud.proxy must be http(s)://[user:password@]host[:port]",
    );
}

/// A server that gives these answers in turn, one per connection, and returns the requests' heads.
fn scripted(answers: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let mut heads = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let start = head.len();
                reader.read_line(&mut head).unwrap();
                if let Some(value) = head[start..].to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            socket.write_all(answer.as_bytes()).unwrap();
            heads.push(head.to_ascii_lowercase());
        }
        heads
    });
    (endpoint, thread)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn code(status: &str, code: &str) -> String {
    answer(status, "", &format!("<Error><Code>{code}</Code><Message>canary</Message></Error>"))
}

fn range_of(total: usize, body: &str) -> String {
    answer("206 Partial Content", &format!("ETag: \"v\"\r\nContent-Range: bytes 0-3/{total}\r\n"), body)
}

#[test]
fn a_read_is_tried_again_until_the_whole_range_came() {
    let bench = Bench::new();
    let cut = range_of(9, "abcd").replace("abcd", "ab");
    let whole_object = answer("200 OK", "ETag: \"v\"\r\n", "abcdefghi");
    let busy = answer("503 Slow Down", "Retry-After: 0\r\n", "<Error><Code>SlowDown</Code></Error>");
    let (endpoint, server) = scripted(vec![cut, whole_object, busy, code("500 Oops", "InternalError"), range_of(9, "abcd")]);
    let store = StoreSettings { endpoint: Some(endpoint), ..bench.store() };
    let client = Client::open(&store, ClientSettings { retries: 4, ..settings() }).unwrap();
    assert_eq!(fetch_one(&client, "x", "v", 0..4).unwrap(), b"abcd");
    for head in server.join().unwrap() {
        assert!(head.contains("range: bytes=0-3") && head.contains("if-match: \"v\""), "{head}");
    }
}

#[test]
fn a_server_that_ignores_conditions_does_not_deceive_us() {
    let bench = Bench::new();
    let other = range_of(9, "abcd").replace("\"v\"", "\"w\"");
    let (endpoint, _server) = scripted(vec![other]);
    let client = Client::open(&StoreSettings { endpoint: Some(endpoint), ..bench.store() }, settings()).unwrap();
    assert_eq!(fetch_one(&client, "x", "v", 0..4).unwrap_err().kind(), Kind::ObjectChanged);
}

#[test]
fn a_server_without_conditional_writes_is_asked_whether_the_name_is_free() {
    let bench = Bench::new();
    let missing = || "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n".to_owned();
    let there = || answer("200 OK", "ETag: \"v\"\r\n", "");
    let unknown = || code("501 Not Implemented", "NotImplemented");
    for (second_look, expected) in [(missing(), Ok(())), (there(), Err(Kind::ObjectExists))] {
        let answers = vec![missing(), unknown(), second_look, there()];
        let (endpoint, server) = scripted(answers.into_iter().take(if expected.is_ok() { 4 } else { 3 }).collect());
        let client = Client::open(&StoreSettings { endpoint: Some(endpoint), ..bench.store() }, settings()).unwrap();
        let mut upload = client.upload("x", Replace::Never).unwrap();
        upload.write(b"abc".to_vec()).unwrap();
        assert_eq!(upload.finish().map(drop).map_err(|error| error.kind()), expected);
        let heads = server.join().unwrap();
        assert!(heads[0].starts_with("head ") && heads[2].starts_with("head "));
        assert!(heads[1].starts_with("put ") && heads[1].contains("if-none-match: *"));
        // SHA-256 of "abc", FIPS 180-4 example: what is signed is what arrives.
        assert!(heads[1].contains("x-amz-content-sha256: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
        assert!(heads.get(3).is_none_or(|head| head.starts_with("put ") && !head.contains("if-none-match")));
    }
}

#[test]
fn a_proxy_is_used_and_no_answer_is_quoted() {
    let bench = Bench::new();
    let (proxy, server) = scripted(vec![code("403 Forbidden", "AccessDenied")]);
    let endpoint = Some("http://store.example.org:9000".to_owned());
    let store = StoreSettings { endpoint, proxy: Some(proxy), ..bench.store() };
    let error = Client::open(&store, settings()).unwrap().list("patient-jones", &Control::new()).unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::AccessDenied, "status 403"));
    let heads = server.join().unwrap();
    assert!(heads[0].starts_with("get http://store.example.org:9000/studies"), "{}", heads[0]);
}
