//! Plain HTTPS, here without the S because it does not leave this machine: a folder of a web server, and links that somebody signed.

#[path = "support/http_server.rs"]
mod http_server;
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_server::{HttpServer, empty, ranged, ranged_body};
use hyper::body::Bytes;
use hyper::{Request, Response};
use smp::control::Control;
use smp::error::Kind;
use smp::pipeline::{Pipeline, Request as StudyRequest};
use smp::transfer::{Client, ClientSettings, FetchPlan, Replace, StoreSettings};
use support::{Site, files, study};

/// How a web server of the tests behaves.
#[derive(Clone, Copy, Default)]
struct Manners {
    /// The signature in the links covers `GET` alone.
    refuses_head: bool,
    /// It wants `sig=word` in the query.
    is_signed: bool,
}

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Serves objects by their path without the first slash; stores what is put.
fn serve(objects: &Objects, manners: Manners) -> HttpServer {
    let objects = Arc::clone(objects);
    HttpServer::start(move |request| {
        if manners.is_signed && request.uri().query() != Some("expires=2999&sig=word%2B") {
            return empty(403);
        }
        let name = decoded(&request.uri().path()[1..]);
        let mut objects = objects.lock().unwrap();
        match (request.method().as_str(), objects.get(&name)) {
            ("PUT", found) => {
                let is_free = request.headers().get("if-none-match").is_none_or(|value| value == "*" && found.is_none());
                let is_that = request.headers().get("if-match").is_none_or(|value| found.is_some_and(|found| *value == *e_tag(found)));
                if !is_free || !is_that {
                    return empty(412);
                }
                objects.insert(name, request.body().to_vec());
                empty(201)
            }
            ("HEAD", _) if manners.refuses_head => empty(403),
            ("HEAD", Some(object)) => {
                Response::builder().header("etag", e_tag(object)).header("content-length", object.len()).body(Bytes::new()).unwrap()
            }
            ("GET", Some(object)) => {
                if request.headers().get("if-match").is_some_and(|value| *value != *e_tag(object)) {
                    return empty(412);
                }
                ranged(&request, object).header("etag", e_tag(object)).body(ranged_body(&request, object)).unwrap()
            }
            _ => empty(404),
        }
    })
}

/// FNV-1a: any function of the bytes will do.
fn e_tag(object: &[u8]) -> String {
    let hash = object.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("\"{hash:x}\"")
}

fn decoded(path: &str) -> String {
    percent_encoding::percent_decode_str(path).decode_utf8().unwrap().into_owned()
}

fn objects(list: &[(&str, &[u8])]) -> Objects {
    Arc::new(Mutex::new(list.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()))
}

/// What lies below a folder, as objects with a prefix.
fn objects_below(folder: &Path, prefix: &str) -> Objects {
    let all = files(folder);
    let name = |path: &PathBuf| format!("{prefix}{}", path.strip_prefix(folder).unwrap().to_str().unwrap());
    Arc::new(Mutex::new(all.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()))
}

fn settings() -> ClientSettings {
    ClientSettings { retries: 0, timeout: Duration::from_secs(20), ..ClientSettings::default() }
}

fn folder(endpoint: String) -> StoreSettings {
    StoreSettings { provider: "https".into(), endpoint: Some(endpoint), ..StoreSettings::default() }
}

/// Settings for a file of links, which lies in the folder.
fn links(place: &Path, links: &serde_json::Value) -> StoreSettings {
    let path = place.join("links.json");
    std::fs::write(&path, serde_json::json!({ "objects": links }).to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    StoreSettings { provider: "https".into(), credentials_path: Some(path), ..StoreSettings::default() }
}

fn open(store: &StoreSettings) -> Client {
    Client::open(store, settings()).unwrap()
}

fn fetch(client: &Client, name: &str, version: &str, range: std::ops::Range<u64>) -> smp::Result<Vec<u8>> {
    let plan = FetchPlan { name, version, ranges: std::slice::from_ref(&range), spool_key: None };
    let mut all = Vec::new();
    let mut deliver = |_, bytes: Vec<u8>| {
        all.extend(bytes);
        Ok(())
    };
    client.fetch(&plan, &|_, _| Ok(()), &mut deliver, &Control::new())?;
    Ok(all)
}

fn load(site: &Site, settings: &[(&str, &str)], remote_path: &str) -> smp::Result<usize> {
    let mut config = site.config.clone();
    config.set("cloud.bucket", "").unwrap();
    config.set("cloud.provider", "https").unwrap();
    for (key, value) in settings {
        config.set(key, value).unwrap();
    }
    let mut request = StudyRequest::new(Some(remote_path));
    request.set("operations", "load,anonymize").unwrap();
    Ok(Pipeline::new(&config)?.process_study(&request)?.volume().voxels().len())
}

const VOXELS: usize = study::COLUMNS * study::ROWS * study::SLICES;

#[test]
fn a_sealed_study_opens_from_a_folder_of_a_web_server() {
    let site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "incoming/one");
    for manners in [Manners::default(), Manners { refuses_head: true, is_signed: true }] {
        let server = serve(&objects_below(&site.path("store"), "public/"), manners);
        let endpoint = format!("{}/public/?expires=2999&sig=word%2B", server.endpoint);
        assert_eq!(load(&site, &[("cloud.endpoint", &endpoint)], "incoming/one").unwrap(), VOXELS);
        let missing = load(&site, &[("cloud.endpoint", &endpoint)], "incoming/two").unwrap_err();
        assert_eq!(missing.kind(), Kind::ObjectNotFound);
    }
}

#[test]
fn a_sealed_study_opens_by_links() {
    let site = Site::new();
    study::write(&site.path("study"));
    site.seal(&site.path("study"), "incoming/one");
    let stored = objects_below(&site.path("store"), "");
    let server = serve(&stored, Manners { refuses_head: true, is_signed: true });
    let signed = stored
        .lock()
        .unwrap()
        .keys()
        .map(|name| (name.clone(), format!("{}/{name}?expires=2999&sig=word%2B", server.endpoint).into()))
        .collect();
    let store = links(site.root.path(), &serde_json::Value::Object(signed));
    let path = store.credentials_path.clone().unwrap();
    let settings = [("cloud.credentials_path", path.to_str().unwrap())];
    assert_eq!(load(&site, &settings, "incoming/one").unwrap(), VOXELS);
    let missing = load(&site, &settings, "incoming/two").unwrap_err();
    assert_eq!(missing.kind(), Kind::ObjectNotFound);
    // One link short: a pack that is in the store and has no link.
    let stored = stored.lock().unwrap();
    let pack = stored.keys().find(|name| !name.ends_with("header.smp")).unwrap();
    let rest = stored
        .keys()
        .filter(|name| *name != pack)
        .map(|name| (name.clone(), format!("{}/{name}?expires=2999&sig=word%2B", server.endpoint).into()))
        .collect();
    drop(stored);
    links(site.root.path(), &serde_json::Value::Object(rest));
    assert_eq!(load(&site, &settings, "incoming/one").unwrap_err().kind(), Kind::PackageIncomplete);
}

#[test]
fn a_study_in_cms_is_found_by_its_usual_name_where_nothing_can_be_listed() {
    let site = Site::new();
    let server = serve(&objects(&[("one/study.cms", b"x")]), Manners::default());
    let error = load(&site, &[("cloud.endpoint", &server.endpoint)], "one").unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::PackageIncomplete, "SHA256SUMS, so the sender is not known"));
}

#[test]
fn an_expired_link_is_told_with_what_helps() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&objects(&[("jones", b"0123456789")]), Manners { is_signed: true, ..Manners::default() });
    let old = format!("{}/jones?expires=1999&sig=canary", server.endpoint);
    for store in
        [links(place.path(), &serde_json::json!({ "jones": old })), folder(format!("{}/?expires=1999&sig=canary", server.endpoint))]
    {
        let client = open(&store);
        for error in [client.head("jones", &Control::new()).unwrap_err(), fetch(&client, "jones", "\"x\"", 0..2).unwrap_err()] {
            assert_eq!((error.kind(), error.hint()), (Kind::AccessDenied, Some("the link may have expired: ask for a new one")));
            assert!(!error.to_string().contains("canary") && !error.to_string().contains("jones"));
        }
        assert!(!client.describe().contains("canary") && !client.credentials(&Control::new()).unwrap().contains("canary"));
    }
}

#[test]
fn links_list_what_is_there_and_a_folder_lists_nothing() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&objects(&[("1", b"one"), ("2", b""), ("3", b"three")]), Manners { refuses_head: true, ..Manners::default() });
    let url = |path: &str| format!("{}/{path}", server.endpoint);
    let store = links(
        place.path(),
        &serde_json::json!({"s/a b": url("1"), "s/ä": {"get": url("2"), "put": url("2")}, "t/c": url("3"), "s/gone": url("4"), "s/new": {"put": url("5")}}),
    );
    let client = open(&store);
    let listed: Vec<_> = client.list("s", &Control::new()).unwrap().into_iter().map(|object| (object.name, object.size)).collect();
    assert_eq!(listed, [("s/a b".to_owned(), 3), ("s/ä".to_owned(), 0)]);
    assert_eq!(client.list("", &Control::new()).unwrap().len(), 3);
    assert_eq!(client.read_small("s/a b", 10, &Control::new()).unwrap(), b"one");
    assert_eq!(client.read_small("s/ä", 10, &Control::new()).unwrap(), b"");
    assert_eq!(client.head("s/none", &Control::new()).unwrap_err().kind(), Kind::ObjectNotFound);
    assert_eq!(open(&folder(server.endpoint.clone())).list("", &Control::new()).unwrap_err().kind(), Kind::Unsupported);
    // Folders may have any name but those that mean another.
    assert_eq!(open(&folder(server.endpoint.clone())).head("a/../1", &Control::new()).unwrap_err().kind(), Kind::UnsafePath);
}

#[test]
fn a_changed_object_is_noticed_whatever_its_version_is_made_of() {
    type Answer = fn(&'static [u8], bool) -> hyper::http::response::Builder;
    let strong: Answer = |_, is_new| Response::builder().header("etag", if is_new { "\"2\"" } else { "\"1\"" });
    let weak: Answer = |_, is_new| Response::builder().header("etag", if is_new { "W/\"2\"" } else { "W/\"1\"" });
    let dated: Answer = |_, is_new| {
        let second = if is_new { 38 } else { 37 };
        Response::builder().header("last-modified", format!("Sun, 06 Nov 1994 08:49:{second} GMT"))
    };
    for version in [strong, weak, dated] {
        let is_new = Arc::new(Mutex::new(false));
        let switch = Arc::clone(&is_new);
        let server = HttpServer::start(move |request| {
            let object = b"0123456789";
            // It knows ranges and no conditions.
            let with = ranged(&request, object);
            let headers = version(object, *switch.lock().unwrap()).body(()).unwrap().headers().clone();
            let mut answer = with.body(ranged_body(&request, object)).unwrap();
            answer.headers_mut().extend(headers);
            answer
        });
        let client = open(&folder(server.endpoint.clone()));
        let before = client.head("x", &Control::new()).unwrap();
        assert_eq!(before.size, 10);
        assert_eq!(fetch(&client, "x", &before.version, 2..5).unwrap(), b"234");
        *is_new.lock().unwrap() = true;
        assert_eq!(fetch(&client, "x", &before.version, 2..5).unwrap_err().kind(), Kind::ObjectChanged);
        let now = client.head("x", &Control::new()).unwrap().version;
        assert_eq!(fetch(&client, "x", &now, 2..5).unwrap(), b"234");
        assert_eq!(fetch(&client, "x", &now, 8..12).unwrap_err().kind(), Kind::ObjectChanged, "the range ends past the object");
    }
}

#[test]
fn servers_without_ranges_or_versions_are_refused() {
    let whole = |with_version: bool| {
        HttpServer::start(move |_| {
            let answer = if with_version { Response::builder().header("etag", "\"1\"") } else { Response::builder() };
            answer.body(Bytes::from("0123456789")).unwrap()
        })
    };
    let (server, unversioned) = (whole(true), whole(false));
    let client = open(&folder(server.endpoint.clone()));
    assert_eq!(fetch(&client, "x", "\"1\"", 2..5).unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(fetch(&client, "x", "\"1\"", 0..5).unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(fetch(&client, "x", "\"1\"", 0..10).unwrap(), b"0123456789", "all of it is the range that was asked for");
    assert_eq!(open(&folder(unversioned.endpoint.clone())).head("x", &Control::new()).unwrap_err().kind(), Kind::Unsupported);
    let compressed = HttpServer::start(|request| {
        assert_eq!(request.headers()["accept-encoding"], "identity");
        let answer = Response::builder().status(206).header("etag", "\"1\"").header("content-encoding", "gzip");
        answer.header("content-range", "bytes 0-1/10").body(Bytes::from("zz")).unwrap()
    });
    assert_eq!(fetch(&open(&folder(compressed.endpoint.clone())), "x", "\"1\"", 0..2).unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn a_link_may_lead_to_another_server() {
    let place = tempfile::tempdir().unwrap();
    let store = serve(&objects(&[("deep/x", b"0123456789")]), Manners::default());
    let target = format!("{}/deep/x", store.endpoint);
    let door = HttpServer::start(move |_| Response::builder().status(302).header("location", &target).body(Bytes::new()).unwrap());
    let client = open(&links(place.path(), &serde_json::json!({ "x": format!("{}/share/abc", door.endpoint) })));
    assert_eq!(client.read_small("x", 10, &Control::new()).unwrap(), b"0123456789");
}

#[test]
fn an_object_is_written_by_the_link_for_it() {
    let place = tempfile::tempdir().unwrap();
    let stored = objects(&[]);
    let server = serve(&stored, Manners { refuses_head: true, ..Manners::default() });
    let url = format!("{}/1", server.endpoint);
    let store = links(place.path(), &serde_json::json!({"x": {"get": url, "put": url}, "blind": {"put": url}, "only": url}));
    let client = open(&store);
    let write = |name: &str, bytes: &[u8], replace: Replace| {
        let mut upload = client.upload(name, replace)?;
        upload.write(bytes.to_vec())?;
        upload.finish()
    };
    let first = write("x", b"first", Replace::Never).unwrap();
    assert_eq!(client.head("x", &Control::new()).unwrap(), first);
    assert_eq!(write("x", b"again", Replace::Never).unwrap_err().kind(), Kind::ObjectExists);
    assert_eq!(write("blind", b"again", Replace::Never).unwrap_err().kind(), Kind::ObjectExists, "told by the condition alone");
    write("x", b"second", Replace::Version(first.version.clone())).unwrap();
    assert_eq!(write("x", b"third", Replace::Version(first.version)).unwrap_err().kind(), Kind::ObjectChanged);
    write("x", b"", Replace::Allowed).unwrap();
    assert_eq!(stored.lock().unwrap()["1"], b"");
    for name in ["only", "unknown"] {
        assert_eq!(client.upload(name, Replace::Never).err().unwrap().kind(), Kind::StoreUnwritable, "{name}");
    }
    assert_eq!(open(&folder(server.endpoint.clone())).upload("y", Replace::Never).err().unwrap().kind(), Kind::StoreUnwritable);
    assert_eq!(client.delete("x").unwrap_err().kind(), Kind::Unsupported);
    let mut large = client.upload("x", Replace::Allowed).unwrap();
    let refused = (0..65).find_map(|_| large.write(vec![0; 1 << 20]).err()).unwrap();
    assert_eq!(refused.kind(), Kind::LimitExceeded);
}

#[test]
fn a_link_of_azures_says_what_kind_of_blob_it_writes() {
    let place = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kinds = Arc::clone(&seen);
    let server = HttpServer::start(move |request: Request<Bytes>| {
        kinds.lock().unwrap().push(request.headers().get("x-ms-blob-type").map(|value| value.to_str().unwrap().to_owned()));
        empty(201)
    });
    let links = links(
        place.path(),
        &serde_json::json!({"a": {"put": format!("{}/a?sv=1&sr=b&sig=x", server.endpoint)}, "b": {"put": format!("{}/b?X-Amz-Signature=x", server.endpoint)}}),
    );
    for name in ["a", "b"] {
        open(&links).upload(name, Replace::Allowed).unwrap().finish().unwrap();
    }
    assert_eq!(*seen.lock().unwrap(), [Some("BlockBlob".to_owned()), None]);
}

#[test]
fn settings_that_cannot_be_used_are_refused_by_their_key() {
    let place = tempfile::tempdir().unwrap();
    let server = "https://files.example/x".to_owned();
    let file = links(place.path(), &serde_json::json!({ "x": "https://files.example/x" }));
    for (store, detail) in [
        (StoreSettings { bucket: "b".into(), ..folder(server.clone()) }, "cloud.bucket means nothing to provider https"),
        (StoreSettings { region: Some("r".into()), ..folder(server.clone()) }, "cloud.region means nothing to provider https"),
        (
            StoreSettings { endpoint: None, ..folder(server.clone()) },
            "provider https needs cloud.endpoint, or links in cloud.credentials_path",
        ),
        (
            StoreSettings { endpoint: Some(server.clone()), ..file.clone() },
            "provider https takes cloud.endpoint or cloud.credentials_path, not both",
        ),
        (folder("http://files.example/x".into()), "cloud.endpoint must be the https URL of a folder"),
    ] {
        let error = Client::open(&store, settings()).err().expect(detail);
        assert_eq!((error.kind(), error.detail()), (Kind::ConfigInvalidValue, detail));
    }
    std::fs::set_permissions(file.credentials_path.as_ref().unwrap(), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(Client::open(&file, settings()).err().unwrap().kind(), Kind::ConfigPermissions);
}
