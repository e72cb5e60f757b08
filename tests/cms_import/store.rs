//! A store that does not keep still between the two passes over an object.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smp::control::Control;
use smp::package::{self, Limits};
use smp::transfer::{BoxFuture, Client, ClientSettings, ObjectInfo, ObjectStore, Replace, Upload};
use smp::{Error, Kind};

use super::hospital::{Hospital, hospital, noise};

/// Serves what the hospital sent; from one read of the encrypted object on, with a byte flipped and the version unchanged.
struct Restless {
    objects: BTreeMap<String, Vec<u8>>,
    reads: AtomicUsize,
    honest_reads: usize,
}

impl Restless {
    fn new(hospital: &Hospital, honest_reads: usize) -> Arc<Restless> {
        let objects = Hospital::files(&hospital.at("store"));
        Arc::new(Restless { objects, reads: AtomicUsize::new(0), honest_reads })
    }

    fn info(&self, name: &str) -> Result<ObjectInfo, Error> {
        let bytes = self.objects.get(name).ok_or_else(|| Error::new(Kind::ObjectNotFound, ""))?;
        Ok(ObjectInfo { name: name.to_owned(), size: bytes.len() as u64, version: "1".to_owned() })
    }
}

impl ObjectStore for Restless {
    fn describe(&self) -> String {
        "restless".to_owned()
    }
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Vec<ObjectInfo>> {
        Box::pin(async move { self.objects.keys().filter(|name| name.starts_with(prefix)).map(|name| self.info(name)).collect() })
    }
    fn head<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ObjectInfo> {
        Box::pin(async move { self.info(name) })
    }
    fn read<'a>(&'a self, name: &'a str, range: Range<u64>, _version: Option<&'a str>) -> BoxFuture<'a, Vec<u8>> {
        Box::pin(async move {
            let mut bytes = self.objects[name][range.start as usize..range.end as usize].to_vec();
            if name.ends_with(".cms") && self.reads.fetch_add(1, Ordering::SeqCst) >= self.honest_reads {
                bytes[1000] ^= 1;
            }
            Ok(bytes)
        })
    }
    fn upload<'a>(&'a self, _name: &'a str, _replace: Replace) -> BoxFuture<'a, Box<dyn Upload>> {
        Box::pin(async { Err(Error::new(Kind::StoreUnwritable, "")) })
    }
    fn delete<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async { Err(Error::new(Kind::StoreUnwritable, "")) })
    }
}

/// Reads of the object in the first pass: the envelope, and ten ranges of 1 MiB.
const FIRST_PASS: usize = 11;

fn outcome(hospital: &Hospital, store: &Arc<Restless>, settings: ClientSettings) -> (Result<(), Error>, usize) {
    let client = Client::over(Arc::clone(store) as Arc<dyn ObjectStore>, settings).unwrap();
    let mut files = 0;
    let outcome = package::open(&client, "one", &hospital.researcher, &[], &Limits::default(), &Control::new()).and_then(|package| {
        package.read(&Control::new(), &mut |_| {
            files += 1;
            Ok(())
        })
    });
    (outcome.map(|_| ()), files)
}

#[test]
fn a_store_that_exchanges_bytes_between_the_passes_is_found_out() {
    let Some(hospital) = hospital() else { return };
    hospital.study(&[("IM1", &noise(9 << 20))]);
    hospital.send();
    for honest in 1..FIRST_PASS {
        let (error, files) = outcome(&hospital, &Restless::new(&hospital, honest), ClientSettings::default());
        assert_eq!((error.unwrap_err().kind(), files), (Kind::IntegrityFailed, 0), "after {honest} reads");
    }
    for honest in FIRST_PASS..FIRST_PASS + 3 {
        let (error, files) = outcome(&hospital, &Restless::new(&hospital, honest), ClientSettings::default());
        let error = error.unwrap_err();
        assert_eq!((error.kind(), files), (Kind::IntegrityFailed, 0), "after {honest} reads");
        assert!(error.detail().starts_with("cms range "), "{error}");
    }
    assert!(outcome(&hospital, &Restless::new(&hospital, usize::MAX), ClientSettings::default()).0.is_ok());
}

#[test]
fn the_second_pass_takes_from_the_spool_what_the_first_left_there() {
    let Some(hospital) = hospital() else { return };
    hospital.study(&[("IM1", &noise(9 << 20))]);
    hospital.send();
    let spooled = |name: &str| ClientSettings { spool: Some(hospital.at(name)), ..ClientSettings::default() };
    let store = Restless::new(&hospital, FIRST_PASS);
    assert_eq!(outcome(&hospital, &store, spooled("spool")).1, 1);
    assert_eq!(store.reads.load(Ordering::SeqCst), FIRST_PASS);
    // What lies in the spool is believed no more than what comes from the store.
    let part = Hospital::files(&hospital.at("spool")).into_keys().find(|name| name.contains("0000000000400000-")).unwrap();
    let mut bytes = fs::read(hospital.at("spool").join(&part)).unwrap();
    bytes[77] ^= 1;
    fs::write(hospital.at("spool").join(&part), bytes).unwrap();
    assert_eq!(outcome(&hospital, &Restless::new(&hospital, usize::MAX), spooled("spool")).0.unwrap_err().kind(), Kind::IntegrityFailed);
}
