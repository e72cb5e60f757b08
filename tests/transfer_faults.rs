//! Transfers over a line that spoils answers: each ends with the right bytes or with an error of the fault's own kind, and none hangs.

#[path = "support/dropbox_server.rs"]
mod dropbox_server;
#[path = "support/fault_proxy.rs"]
mod fault_proxy;
#[path = "support/fault_table.rs"]
mod fault_table;
#[path = "support/http_server.rs"]
mod http_server;
#[path = "support/s3_server.rs"]
mod s3_server;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fault_proxy::{Asked, Fault, FaultProxy};
use fault_table::{Case, RANGE, RANGES, SPOILED, pattern};
use s3_server::S3Server;
use sha2::{Digest, Sha256};
use smp::control::Control;
use smp::error::{Error, Kind};
use smp::secret::Secret;
use smp::transfer::{Client, ClientSettings, FetchPlan, Replace, StoreSettings};

/// Attempts after the first.
const RETRIES: u32 = 2;
const NAME: &str = "incoming/patient-jones/pack";

struct Bench {
    _place: tempfile::TempDir,
    server: S3Server,
    credentials: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("root")).unwrap();
        let server = S3Server::start(&place.path().join("root"), &["studies"]);
        let credentials = server.credentials_file(place.path());
        let bench = Bench { _place: place, server, credentials };
        bench.put(NAME, &pattern());
        bench
    }

    fn store(&self, endpoint: &str) -> StoreSettings {
        StoreSettings {
            provider: "s3".into(),
            bucket: "studies".into(),
            region: Some("us-east-1".into()),
            endpoint: Some(endpoint.into()),
            credentials_path: Some(self.credentials.clone()),
            ..StoreSettings::default()
        }
    }

    fn client(&self, endpoint: &str, timeout: Duration) -> Client {
        Client::open(&self.store(endpoint), settings(timeout)).unwrap()
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        put(&self.client(&self.server.endpoint, LONG), name, bytes);
    }
}

fn settings(timeout: Duration) -> ClientSettings {
    ClientSettings { retries: RETRIES, timeout, parallel: 3, ..ClientSettings::default() }
}

fn put(client: &Client, name: &str, bytes: &[u8]) {
    let mut upload = client.upload(name, Replace::Never).unwrap();
    upload.write(bytes.to_vec()).unwrap();
    upload.finish().unwrap();
}

/// Longer than any answer of a server in this process takes.
const LONG: Duration = Duration::from_secs(20);

fn ranges() -> Vec<Range<u64>> {
    // The last first, as packages are read.
    let start = |number: usize| (number * RANGE) as u64;
    [RANGES - 1].into_iter().chain(0..RANGES - 1).map(|number| start(number)..start(number + 1)).collect()
}

/// Fetches the object with the check that packages make, range by range.
fn fetch(client: &Client, version: &str) -> smp::Result<Vec<u8>> {
    let (object, ranges) = (pattern(), ranges());
    let place = |index: usize| ranges[index].start as usize..ranges[index].end as usize;
    let plan = FetchPlan { name: NAME, version, ranges: &ranges, spool_key: None };
    let verify = |index: usize, bytes: &[u8]| {
        let (expected, found) = (Sha256::digest(&object[place(index)]), Sha256::digest(bytes));
        if expected == found {
            return Ok(());
        }
        Err(Error::new(Kind::IntegrityFailed, format!("expected {:02x}.., found {:02x}..", expected[0], found[0])))
    };
    let mut all = vec![0; object.len()];
    let mut deliver = |index: usize, bytes: Vec<u8>| {
        all[place(index)].copy_from_slice(&bytes);
        Ok(())
    };
    client.fetch(&plan, &verify, &mut deliver, &Control::new())?;
    Ok(all)
}

/// Whether a request is the one for the range to spoil.
fn is_spoiled(asked: &Asked) -> bool {
    let range = format!("bytes={}-{}", SPOILED * RANGE, (SPOILED + 1) * RANGE - 1);
    // Some read by GET, Dropbox by POST.
    asked.header("range") == Some(&range)
}

/// Every case, once and always; a few at a time, because most of them wait.
fn run(cases: Vec<Case>, upstream: &str, client: &(dyn Fn(&str, Duration) -> Client + Sync)) {
    let version = client(upstream, LONG).head(NAME, &Control::new()).unwrap().version;
    let cases = std::sync::Mutex::new(cases);
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some(case) = cases.lock().unwrap().pop() else { return };
                    for is_always in [false, true] {
                        let fault = case.fault.clone();
                        let proxy = FaultProxy::start(upstream, move |asked| {
                            (is_spoiled(asked) && (is_always || asked.before == 0)).then(|| fault.clone())
                        });
                        let outcome = fetch(&client(&proxy.endpoint, case.timeout()), &version);
                        assert!(proxy.asked().iter().any(is_spoiled), "{}: no answer was spoiled", case.what);
                        if let Err(why) = judge(&case, is_always, outcome) {
                            wrong.lock().unwrap().push(format!("{} ({}): {why}", case.what, if is_always { "always" } else { "once" }));
                        }
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn judge(case: &Case, is_always: bool, outcome: smp::Result<Vec<u8>>) -> Result<(), String> {
    let expected = if is_always { case.always } else { case.once };
    match outcome {
        Ok(bytes) if bytes != pattern() => Err("wrong bytes were delivered".into()),
        Ok(_) if expected.is_none() => Ok(()),
        Ok(_) => Err("it succeeded".into()),
        Err(error) if Some(error.kind()) != expected => Err(format!("{:?}: {}", error.kind(), error.detail())),
        Err(error) if !error.detail().contains(case.says) => Err(format!("says {}", error.detail())),
        Err(error) if is_of_a_range(error.kind()) && !error.detail().starts_with("range 2 (131072-196608) of 6") => {
            Err(format!("does not say where: {}", error.detail()))
        }
        Err(error) if ["canary", "jones", "http"].iter().any(|word| error.to_string().contains(word)) => Err(format!("quotes: {error}")),
        Err(_) => Ok(()),
    }
}

/// Whether an error says which range it is about. That credentials or rights are missing concerns all of them.
fn is_of_a_range(kind: Kind) -> bool {
    [Kind::TransferInterrupted, Kind::TransferTimeout, Kind::ServerFailed, Kind::ObjectChanged].contains(&kind)
}

#[test]
fn a_spoiled_range_is_mended_or_named() {
    let bench = Bench::new();
    let cases = fault_table::on_the_line().into_iter().chain(fault_table::of_s3()).collect();
    run(cases, &bench.server.endpoint, &|endpoint, timeout| bench.client(endpoint, timeout));
}

/// The same through the HTTP client of our own, which all stores but S3 share.
#[test]
fn a_spoiled_range_of_dropbox_is_mended_or_named() {
    let server = dropbox_server::DropboxServer::start();
    let client = |endpoint: &str, timeout: Duration| {
        let token = Some(Arc::new(Secret::new("good-token".to_owned())));
        let endpoint = Some(endpoint.to_owned());
        let store = StoreSettings { provider: "dropbox".into(), endpoint, access_token: token, ..StoreSettings::default() };
        Client::open(&store, settings(timeout)).unwrap()
    };
    put(&client(&server.http.endpoint, LONG), NAME, &pattern());
    let cases = fault_table::on_the_line().into_iter().chain(fault_table::of_dropbox()).map(|case| match case.what {
        // Every answer of Dropbox says what it is of, and this one does not.
        fault_table::PORTAL => Case { always: Some(Kind::ServerFailed), says: "bytes without saying of what", ..case },
        _ => case,
    });
    run(cases.collect(), &server.http.endpoint, &client);
}

/// Lists three objects through a script; their names.
fn list(script: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> smp::Result<Vec<String>> {
    let bench = Bench::new();
    for name in ["study/a", "study/b", "study/c"] {
        bench.put(name, name.as_bytes());
    }
    let proxy = FaultProxy::start(&bench.server.endpoint, script);
    let objects = bench.client(&proxy.endpoint, LONG).list("study", &Control::new())?;
    Ok(objects.into_iter().map(|object| object.name).collect())
}

/// A page of a listing.
fn page(names: &[(&str, &str)], next: Option<&str>) -> Fault {
    let mut body = format!("<ListBucketResult><IsTruncated>{}</IsTruncated>", next.is_some());
    if let Some(token) = next.filter(|token| !token.is_empty()) {
        body.push_str(&format!("<NextContinuationToken>{token}</NextContinuationToken>"));
    }
    for (name, e_tag) in names {
        body.push_str(&format!("<Contents><Key>{name}</Key><ETag>{e_tag}</ETag><Size>7</Size></Contents>"));
    }
    Fault::reply(200, &[("content-type", "application/xml")], &(body + "</ListBucketResult>"))
}

#[test]
fn a_spoiled_listing_is_mended_or_named() {
    let whole = ["study/a", "study/b", "study/c"];
    let check = |what: &str, outcome: smp::Result<Vec<String>>, expected: Option<(Kind, &str)>| match (outcome, expected) {
        (Ok(names), None) => assert_eq!(names, whole, "{what}"),
        (Err(error), Some((kind, says))) => {
            assert_eq!(error.kind(), kind, "{what}: {}", error.detail());
            assert!(error.detail().contains(says) && !error.to_string().contains("study"), "{what}: {error}");
        }
        (outcome, _) => panic!("{what}: {outcome:?}"),
    };
    check("nothing", list(|_| None), None);
    let cut = |asked: &Asked| (asked.before == 0).then_some(Fault::Cut(100));
    check("a page that ends early, once", list(cut), None);
    check("a page that ends early", list(|_| Some(Fault::Cut(100))), Some((Kind::ServerFailed, "no answer of S3")));
    let torn = || {
        Fault::change(|mut answer| {
            answer.body.truncate(answer.body.len() / 2);
            answer.measured()
        })
    };
    check("half a page, announced", list(move |_| Some(torn())), Some((Kind::ServerFailed, "cannot be read")));
    check(
        "a page that is none",
        list(|_| Some(Fault::reply(200, &[], "<html>Log in</html>"))),
        Some((Kind::ServerFailed, "cannot be read")),
    );
    let first = [("study/a", "1"), ("study/b", "1")];
    check("more to come, but not where", list(move |_| Some(page(&first, Some("")))), Some((Kind::ServerFailed, "without an end")));
    check("the same page again and again", list(move |_| Some(page(&first, Some("t")))), Some((Kind::ServerFailed, "without an end")));
    let doubled = move |asked: &Asked| {
        let is_first = !asked.target.contains("continuation-token");
        let names: &[_] = if is_first { &first } else { &[("study/b", "1"), ("study/c", "1")] };
        Some(page(names, is_first.then_some("t")))
    };
    check("an object on two pages", list(doubled), None);
    let changed = [("study/a", "1"), ("study/a", "2")];
    check("two versions of an object", list(move |_| Some(page(&changed, None))), Some((Kind::ServerFailed, "two versions")));
}

#[test]
fn a_redirect_takes_no_credentials_along() {
    let bench = Bench::new();
    let version = bench.client(&bench.server.endpoint, LONG).head(NAME, &Control::new()).unwrap().version;
    for (status, kind) in [
        (301, Kind::ConfigInvalidValue),
        (302, Kind::ServerFailed),
        (303, Kind::ServerFailed),
        (307, Kind::ConfigInvalidValue),
        (308, Kind::ServerFailed),
    ] {
        let elsewhere = FaultProxy::start(&bench.server.endpoint, |_| Some(Fault::s3(403, "AccessDenied")));
        let location = format!("{}/studies/stolen", elsewhere.endpoint);
        let proxy = FaultProxy::start(&bench.server.endpoint, move |_| Some(Fault::reply(status, &[("location", &location)], "")));
        let error = fetch(&bench.client(&proxy.endpoint, LONG), &version).unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {}", error.detail());
        assert!(proxy.asked().iter().all(|asked| asked.header("authorization").is_some()));
        assert_eq!(elsewhere.asked().len(), 0, "{status}: the SDK follows nothing");
    }
}
