//! A sealed study over a line that spoils answers: every file comes out right, or none is said to be; nothing false is ever delivered.

#[path = "support/fault_proxy.rs"]
mod fault_proxy;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use fault_proxy::{Answer, Asked, Fault, FaultProxy};
use sha2::{Digest, Sha256};
use smp::control::Control;
use smp::error::Kind;
use smp::package::{self, Limits};
use smp::pipeline;
use smp::transfer::{Client, ClientSettings, StoreSettings};
use support::s3_server::S3Server;
use support::{Site, files};

const PLACE: &str = "incoming/one";
/// Bytes of a range: 512 chunks of 16 KiB, each with its tag, after a prefix of 56 bytes.
const RANGE: usize = 56 + 512 * (16_384 + 16);

struct World {
    site: Site,
    server: S3Server,
    /// SHA-256 of every file, by its number in the manifest.
    expected: Vec<Vec<u8>>,
}

impl World {
    /// A study of 20 MB, whose pack has three ranges, in a bucket.
    fn new() -> World {
        let mut site = Site::new();
        let server = S3Server::start(site.root.path(), &["store"]);
        let credentials = server.credentials_file(site.root.path());
        for (key, value) in [
            ("cloud.provider", "s3"),
            ("cloud.bucket", "store"),
            ("cloud.endpoint", server.endpoint.as_str()),
            ("cloud.region", "us-east-1"),
            ("cloud.credentials_path", credentials.to_str().unwrap()),
        ] {
            site.config.set(key, value).unwrap();
        }
        let study = site.path("study");
        std::fs::create_dir(&study).unwrap();
        let mut expected = Vec::new();
        for number in 0..5u64 {
            let content: Vec<u8> = (0..4_000_000u64).map(|at| ((at + number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
            std::fs::write(study.join(format!("IM{number}")), &content).unwrap();
            expected.push(Sha256::digest(&content).to_vec());
        }
        site.seal(&study, PLACE);
        World { site, server, expected }
    }

    fn client(&self, endpoint: &str) -> Client {
        let store = StoreSettings {
            provider: "s3".into(),
            bucket: "store".into(),
            region: Some("us-east-1".into()),
            endpoint: Some(endpoint.into()),
            credentials_path: Some(self.site.path("s3-credentials")),
            ..StoreSettings::default()
        };
        let settings = ClientSettings { retries: 1, timeout: Duration::from_secs(20), ..ClientSettings::default() };
        Client::open(&store, settings).unwrap()
    }

    /// Reads the whole study. What is delivered before an error is held against the study, too.
    fn read(&self, client: &Client) -> smp::Result<()> {
        let control = Control::new();
        let package = package::open(client, PLACE, &self.site.researcher, &[], &Limits::default(), &control)?;
        let mut seen = BTreeSet::new();
        package.read(&control, &mut |file| {
            assert_eq!(Sha256::digest(&file.bytes[..]).to_vec(), self.expected[file.index], "file {} is false", file.index);
            seen.insert(file.index);
            Ok(())
        })?;
        assert_eq!(seen.len(), self.expected.len(), "a file is missing and nobody said so");
        Ok(())
    }

    fn verify(&self, client: &Client) -> smp::Result<()> {
        package::verify(client, PLACE, &self.site.researcher, &[], &Limits::default(), &Control::new()).map(drop)
    }

    fn unseal(&self, client: &Client) -> smp::Result<()> {
        let target = self.site.path("unsealed");
        let keys = &self.site.researcher;
        let outcome = package::unseal_to(client, PLACE, &target, keys, &[], &Limits::default(), &Control::new()).map(drop);
        match &outcome {
            Ok(()) => {
                let found: Vec<_> = files(&target).iter().map(|path| Sha256::digest(std::fs::read(path).unwrap()).to_vec()).collect();
                assert_eq!(found, self.expected);
                std::fs::remove_dir_all(&target).unwrap();
            }
            Err(_) => assert!(!target.exists(), "a study that failed leaves no folder"),
        }
        outcome
    }

    /// What comes of a fault in the answers to one kind of request, the first time or always.
    fn check(&self, what: &str, is_hit: fn(&Asked) -> bool, fault: &Fault, once: Option<Kind>, always: Option<(Kind, &str)>) {
        for is_always in [false, true] {
            let fault = fault.clone();
            let proxy = FaultProxy::start(&self.server.endpoint, move |asked| {
                (is_hit(asked) && (is_always || asked.before == 0)).then(|| fault.clone())
            });
            let client = self.client(&proxy.endpoint);
            let outcome = self.read(&client);
            assert!(proxy.asked().iter().any(is_hit), "{what}: no answer was spoiled");
            let expected = if is_always { always.map(|(kind, _)| kind) } else { once };
            let found = outcome.as_ref().err().map(|error| (error.kind(), error.detail().to_owned()));
            assert_eq!(found.as_ref().map(|(kind, _)| *kind), expected, "{what} (always: {is_always}): {found:?}");
            if is_always {
                let (kind, says) = always.unzip();
                assert!(found.is_none_or(|(_, detail)| detail.contains(says.unwrap())), "{what}: {}", outcome.unwrap_err());
                assert_eq!(self.verify(&client).err().map(|error| error.kind()), kind, "{what}: verifying");
                assert_eq!(self.unseal(&client).err().map(|error| error.kind()), kind, "{what}: unsealing");
            }
        }
    }
}

fn reads(asked: &Asked, ending: &str) -> bool {
    asked.method == "GET" && asked.target.split('?').next().unwrap_or_default().ends_with(ending)
}

fn header(asked: &Asked) -> bool {
    reads(asked, "header.smp")
}

fn manifest(asked: &Asked) -> bool {
    reads(asked, ".smpm")
}

fn range_at(asked: &Asked, start: usize) -> bool {
    reads(asked, ".smpp") && asked.header("range").is_some_and(|range| range.starts_with(&format!("bytes={start}-")))
}

fn first_range(asked: &Asked) -> bool {
    range_at(asked, 0)
}

fn second_range(asked: &Asked) -> bool {
    range_at(asked, RANGE)
}

fn last_range(asked: &Asked) -> bool {
    reads(asked, ".smpp") && !first_range(asked) && !second_range(asked)
}

fn pack_head(asked: &Asked) -> bool {
    asked.method == "HEAD" && asked.target.ends_with(".smpp")
}

fn listing(asked: &Asked) -> bool {
    asked.target.contains("list-type=2")
}

fn flip(at: fn(usize) -> usize) -> Fault {
    Fault::change(move |mut answer| {
        let at = at(answer.body.len());
        answer.body[at] ^= 0x10;
        answer
    })
}

#[test]
fn no_bit_of_a_package_may_flip() {
    let world = World::new();
    world.check("nothing", first_range, &Fault::change(|answer| answer), None, None);
    let damaged = |says| Some((Kind::IntegrityFailed, says));
    let middle = flip(|length| length / 2);
    world.check("manifest", manifest, &middle, None, damaged("manifest range 0: sha-256 differs, expected"));
    world.check("first range", first_range, &flip(|_| 0), None, damaged("pack 0 range 0: sha-256 differs, expected"));
    world.check("second range", second_range, &middle, None, damaged("pack 0 range 1: sha-256 differs, expected"));
    world.check("last range", last_range, &flip(|length| length - 1), None, damaged("pack 0 range 2: sha-256 differs, expected"));
    // The header is read once: what is in it is not known before its signature is.
    let forged = Some((Kind::SignatureInvalid, "sender"));
    // The last digit of the time at which the sender sealed.
    let later = Fault::change(|mut answer| {
        let start = answer.body.windows(10).position(|text| text == b"\"created\":").expect("a header says when it was made");
        answer.body[start + 11 + "2026-01-02T03:04:0".len()] ^= 1;
        answer
    });
    world.check("header", header, &later, Some(Kind::SignatureInvalid), forged);
}

#[test]
fn no_range_stands_for_another() {
    let world = World::new();
    let client = world.client(&world.server.endpoint);
    let pack = client.list(PLACE, &Control::new()).unwrap().into_iter().find(|object| object.name.ends_with(".smpp")).unwrap();
    let bytes = client.read_small(&pack.name, 64 << 20, &Control::new()).unwrap();
    let other = bytes[..RANGE].to_vec();
    let swapped = Fault::change(move |mut answer| {
        let length = answer.body.len();
        answer.body.copy_from_slice(&other[..length]);
        answer
    });
    let whole = Fault::change(move |answer| Answer { status: 200, body: bytes.clone(), ..answer.without("content-range") }.measured());
    world.check("the first in place of the second", second_range, &swapped, None, Some((Kind::IntegrityFailed, "pack 0 range 1")));
    world.check("the first in place of the last", last_range, &swapped, None, Some((Kind::IntegrityFailed, "pack 0 range 2")));
    world.check("the whole pack", second_range, &whole, None, Some((Kind::TransferInterrupted, "another range")));
    let other = Fault::change(|answer| answer.with("etag", "\"other\""));
    world.check("another version", second_range, &other, Some(Kind::ObjectChanged), Some((Kind::ObjectChanged, "")));
}

#[test]
fn no_end_of_a_package_may_be_missing() {
    let world = World::new();
    let cut = Fault::Cut(500);
    let short = Fault::change(|mut answer| {
        answer.body.truncate(500);
        answer.measured()
    });
    let interrupted = |says| Some((Kind::TransferInterrupted, says));
    world.check("the header ends early", header, &cut, None, interrupted("500 bytes"));
    world.check("the manifest ends early", manifest, &cut, None, interrupted(""));
    world.check("a range ends early", second_range, &cut, None, interrupted("500 bytes"));
    world.check("a short range", last_range, &short, None, interrupted("500 bytes came where"));
    let gone = Fault::s3(404, "NoSuchKey");
    world.check("no pack", pack_head, &gone, Some(Kind::PackageIncomplete), Some((Kind::PackageIncomplete, "pack 0")));
    let shorter = Fault::change(|answer| answer.with("content-length", "16777216"));
    let expected = Some((Kind::IntegrityFailed, "found 16777216"));
    world.check("a pack without its end", pack_head, &shorter, Some(Kind::IntegrityFailed), expected);
}

#[test]
fn what_a_listing_leaves_out_changes_nothing() {
    let world = World::new();
    // The signed header names every object, so that none is looked for in a listing.
    let empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    let proxy = FaultProxy::start(&world.server.endpoint, move |asked| listing(asked).then(|| Fault::reply(200, &[], empty)));
    let client = world.client(&proxy.endpoint);
    assert_eq!(client.list(PLACE, &Control::new()).unwrap(), [], "the page is left out");
    world.read(&client).unwrap();
    world.verify(&client).unwrap();
    // A pack that is deleted is missed although the listing, with and without it, is a good one.
    let seen = client_objects(&world);
    let pack = seen.iter().find(|name| name.ends_with(".smpp")).unwrap();
    world.client(&world.server.endpoint).delete(pack).unwrap();
    assert_eq!(client_objects(&world).len(), seen.len() - 1);
    assert_eq!(world.read(&client).unwrap_err().kind(), Kind::PackageIncomplete);
    assert_eq!(pipeline::verify_package(&world.site.config, &world.site.researcher, PLACE).unwrap_err().kind(), Kind::PackageIncomplete);
}

fn client_objects(world: &World) -> Vec<String> {
    let objects = world.client(&world.server.endpoint).list(PLACE, &Control::new()).unwrap();
    objects.into_iter().map(|object| object.name).collect()
}
