//! A download whose process is killed again and again, at random moments: what was verified before is never fetched again, and the study is
//! right in the end.

#[path = "support/http_server.rs"]
mod http_server;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use http_server::{HttpServer, empty};
use hyper::body::Bytes;
use hyper::{Request, Response};
use sha2::{Digest, Sha256};
use smp::control::Control;
use smp::package::{self, Limits};
use smp::pipeline;
use smp::transfer::{Client, ClientSettings, StoreSettings};
use support::{Site, files};

const FILE_BYTES: u64 = 4 << 20;
/// Ranges of the child at a time.
const PARALLEL: usize = 4;
/// Where a killed child finds what it needs.
const CHILD: &str = "SMP_TEST_RESUMED_CHILD";

/// Which ranges of which objects were asked for, in order.
#[derive(Default)]
struct Traffic {
    asked: Mutex<Vec<(String, Range<u64>)>>,
    changed: Condvar,
}

/// A bucket `b` over a folder, which notes every ranged GET of a pack before it answers.
fn serve(folder: PathBuf, traffic: Arc<Traffic>) -> HttpServer {
    HttpServer::start(move |request: Request<Bytes>| {
        let name = request.uri().path().trim_start_matches("/b").trim_start_matches('/').to_owned();
        if name.is_empty() {
            return list(&folder, request.uri().query().unwrap_or_default());
        }
        let Ok(object) = fs::File::open(folder.join(&name)) else { return empty(404) };
        let size = object.metadata().unwrap().len();
        let answer = Response::builder().header("etag", format!("\"{size}\""));
        if request.method() == "HEAD" {
            return answer.header("content-length", size).body(Bytes::new()).unwrap();
        }
        let range = request.headers()["range"].to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let range = range.0.parse().unwrap()..range.1.parse::<u64>().unwrap() + 1;
        let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        object.read_exact_at(&mut bytes, range.start).unwrap();
        if name.ends_with(".smpp") {
            traffic.asked.lock().unwrap().push((name, range));
            traffic.changed.notify_all();
        }
        answer.status(206).header("content-range", text).body(bytes.into()).unwrap()
    })
}

fn list(folder: &Path, query: &str) -> Response<Bytes> {
    let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default().replace("%2F", "/");
    let mut text = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
    for path in files(folder) {
        let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
        if name.starts_with(&prefix) {
            let size = path.metadata().unwrap().len();
            text.push_str(&format!("<Contents><Key>{name}</Key><ETag>&quot;{size}&quot;</ETag><Size>{size}</Size></Contents>"));
        }
    }
    Response::new(Bytes::from(text + "</ListBucketResult>"))
}

/// The inside of the child: opens the study through the spool and prints the digest of every file.
#[test]
#[ignore = "run by the other tests of this file"]
fn a_child_that_downloads() {
    let words = std::env::var(CHILD).expect("started by another test");
    let [endpoint, credentials, keys, spool] = words.split('\n').collect::<Vec<_>>().try_into().unwrap();
    let store = StoreSettings {
        provider: "s3".into(),
        bucket: "b".into(),
        region: Some("us-east-1".into()),
        endpoint: Some(endpoint.into()),
        credentials_path: Some(credentials.into()),
        ..StoreSettings::default()
    };
    let settings = ClientSettings { parallel: PARALLEL, spool: Some(spool.into()), ..ClientSettings::default() };
    let (client, control) = (Client::open(&store, settings).unwrap(), Control::new());
    let keys = pipeline::open_key_store(Some(Path::new(keys)), None).unwrap();
    let package = package::open(&client, "incoming/one", &keys, &[], &Limits::default(), &control).unwrap();
    package
        .read(&control, &mut |file| {
            println!("file {} {}", file.index, hex(&Sha256::digest(&file.bytes[..])));
            Ok(())
        })
        .unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Numbers that look random and are the same in every run: a failure can be looked into.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

struct World {
    site: Site,
    traffic: Arc<Traffic>,
    server: HttpServer,
    expected: BTreeSet<String>,
}

impl World {
    fn new(study_bytes: u64) -> World {
        let site = Site::new();
        let study = site.path("study");
        fs::create_dir(&study).unwrap();
        let mut chance = Chance(study_bytes);
        let block: Vec<u8> = (0..FILE_BYTES + 4096).map(|_| chance.below(256) as u8).collect();
        let mut digests = Vec::new();
        for number in 0..study_bytes / FILE_BYTES {
            let content = &block[number as usize % 4096..][..FILE_BYTES as usize];
            fs::write(study.join(format!("IM{number:05}")), content).unwrap();
            digests.push(content);
        }
        // The manifest has the files in the order of their names.
        let expected = digests.iter().enumerate().map(|(number, content)| format!("file {number} {}", hex(&Sha256::digest(content))));
        let expected = expected.collect();
        site.seal(&study, "incoming/one");
        fs::remove_dir_all(&study).unwrap();
        fs::write(site.path("credentials"), "[default]\naws_access_key_id = x\naws_secret_access_key = x\n").unwrap();
        fs::set_permissions(site.path("credentials"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let traffic = Arc::new(Traffic::default());
        let server = serve(site.path("store"), Arc::clone(&traffic));
        World { site, traffic, server, expected }
    }

    fn start(&self) -> Child {
        let words = [
            self.server.endpoint.clone(),
            self.site.path("credentials").display().to_string(),
            self.site.path("researcher-keys").display().to_string(),
            self.site.path("spool").display().to_string(),
        ];
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "a_child_that_downloads", "--nocapture"])
            .env(CHILD, words.join("\n"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Ranges whose check has passed: they lie in the spool, whole.
    fn verified(&self) -> BTreeMap<Range0, PathBuf> {
        let found = files(&self.site.path("spool"));
        let ranges = found.into_iter().filter_map(|path| {
            let (start, end) = path.file_name()?.to_str()?.split_once('-')?;
            let folder = path.parent()?.file_name()?.to_str()?.to_owned();
            let range = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
            Some(((folder, range.0, range.1), path))
        });
        ranges.collect()
    }

    /// What is asked for from now on.
    fn asked(&self, from: usize) -> Vec<(String, Range<u64>)> {
        self.traffic.asked.lock().unwrap()[from..].to_vec()
    }
}

/// Folder of the object in the spool, start, end.
type Range0 = (String, u64, u64);

/// The folder in the spool of each pack, by its name in the store (package id and object name, hashed).
fn spool_folders(world: &World) -> BTreeMap<String, String> {
    let report = pipeline::verify_package(&world.site.config, &world.site.researcher, "incoming/one").unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let id = report["package"].as_str().unwrap();
    let packs = report["objects"].as_array().unwrap().iter().filter(|object| object["kind"] == "pack");
    packs
        .map(|pack| {
            let name = pack["name"].as_str().unwrap();
            (format!("incoming/one/{name}.smpp"), hex(&Sha256::digest(format!("{id}-{name}"))))
        })
        .collect()
}

fn killed_and_resumed(study_bytes: u64, kills: usize) {
    let world = World::new(study_bytes);
    let folders = spool_folders(&world);
    let total: u64 = study_bytes.div_ceil(512 << 14);
    let mut chance = Chance(20);
    let mut interrupted = 0;
    for _ in 0..kills {
        let before = world.verified();
        let from = world.traffic.asked.lock().unwrap().len();
        let mut child = world.start();
        // Killed when so many ranges were asked for: amid answers, checks and writes of others.
        let left = usize::try_from(total).unwrap().saturating_sub(before.len());
        let moment = from + 1 + chance.below(left.div_ceil(kills / 4));
        let mut asked = world.traffic.asked.lock().unwrap();
        while asked.len() < moment {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            asked = world.traffic.changed.wait_timeout(asked, std::time::Duration::from_millis(20)).unwrap().0;
        }
        drop(asked);
        // However the numbers fall, some blows hit at once and some a little later.
        for _ in 0..chance.below(200_000) {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        interrupted += usize::from(!child.wait().unwrap().success());
        none_twice(&world, &folders, &before, from);
    }
    assert!(interrupted > kills / 2, "{interrupted} of {kills} were killed in time");
    let (before, from) = (world.verified(), world.traffic.asked.lock().unwrap().len());
    let output = world.start().wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let digests: BTreeSet<String> = text.lines().filter_map(|line| line.find("file ").map(|at| line[at..].to_owned())).collect();
    assert!(digests == world.expected, "{} files", digests.len());
    none_twice(&world, &folders, &before, from);
    // All that was paid twice is what was on the line when the blow came.
    let paid = world.asked(0).len();
    let ranges = world.verified().len();
    println!("{interrupted} kills, {ranges} ranges, {paid} asked for");
    assert!(paid <= ranges + interrupted * (PARALLEL + 2), "{paid} of {ranges}");
}

/// None of the ranges that were verified before is among those that were asked for since.
fn none_twice(world: &World, folders: &BTreeMap<String, String>, before: &BTreeMap<Range0, PathBuf>, from: usize) {
    for (name, range) in world.asked(from) {
        let key = (folders[&name].clone(), range.start, range.end);
        assert!(!before.contains_key(&key), "{range:?} was verified before and fetched again");
    }
}

#[test]
fn what_was_verified_is_not_fetched_again() {
    killed_and_resumed(128 << 20, 8);
}

#[test]
#[ignore = "a gibibyte and twenty kills; tools/test.sh runs it by itself"]
fn what_was_verified_of_a_gibibyte_is_not_fetched_again() {
    killed_and_resumed(1 << 30, 20);
}
