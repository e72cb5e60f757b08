//! What works against the configured store, step by step, and what to do about the first thing that does not.
//!
//! Each step needs those before it: settings, name, connection, TLS, credentials, listing, a ranged read, and, only if it is allowed, a
//! write. No step shows a secret, the name of an object or a text of the server's.

use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{Call, Http};
use super::runtime::Runtime;
use super::{Client, ClientSettings, ObjectInfo, Replace, StoreSettings};
use crate::control::Control;
use crate::error::{Error, Kind, Result};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// What a trial object holds.
const TRIAL: &[u8] = b"A trial of the Secure Media Processor; it may be deleted.\n";

/// Where a store is on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `https://host:port` or `http://host:port`.
    pub origin: String,
    /// `host:port` of the proxy on the way, without its password.
    pub proxy: Option<String>,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Passed,
    /// It does not, and nothing after it was tried.
    Failed,
    /// It does not apply, or was not allowed.
    Skipped,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Check {
    /// `settings`, `name`, `connection`, `tls`, `credentials`, `list`, `read`, `write`.
    pub step: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What helps, for a step that failed.
    pub hint: Option<String>,
    /// What kind of failure, for a step that failed.
    pub kind: Option<Kind>,
}

/// All steps, in order.
#[derive(Clone, Debug)]
pub struct Checkup {
    /// The steps that were tried.
    pub steps: Vec<Check>,
}

impl Checkup {
    /// Whether nothing failed.
    pub fn is_well(&self) -> bool {
        self.steps.iter().all(|check| check.outcome != Outcome::Failed)
    }

    /// Schema `smp-checkup/1`.
    pub fn json(&self) -> String {
        let step = |check: &Check| {
            let outcome = match check.outcome {
                Outcome::Passed => "passed",
                Outcome::Failed => "failed",
                Outcome::Skipped => "skipped",
            };
            let mut step = json!({"step": check.step, "outcome": outcome, "detail": check.detail});
            if let Some(hint) = &check.hint {
                step["hint"] = hint.as_str().into();
            }
            if let Some(kind) = check.kind {
                step["code"] = kind.name().into();
            }
            step
        };
        let steps: Vec<Value> = self.steps.iter().map(step).collect();
        json!({"schema": "smp-checkup/1", "well": self.is_well(), "steps": steps}).to_string()
    }
}

/// Examines a store. `folder` is where it is listed and read, empty for all of it; with `may_write` a small object is written there, read
/// back and deleted.
pub fn examine(store: &StoreSettings, settings: &ClientSettings, folder: &str, may_write: bool, control: &Control) -> Checkup {
    let mut checkup = Checkup { steps: Vec::new() };
    // The first failure ends the examination and is in the list already.
    let _ = Examination { store, settings, folder, control, checkup: &mut checkup }.run(may_write);
    checkup
}

struct Examination<'a> {
    store: &'a StoreSettings,
    settings: &'a ClientSettings,
    folder: &'a str,
    control: &'a Control,
    checkup: &'a mut Checkup,
}

/// A step's findings: what to say, and what the next steps need.
type Found<T> = Result<(String, T)>;

impl Examination<'_> {
    fn run(&mut self, may_write: bool) -> Option<()> {
        let (store, control) = (self.store, self.control);
        // One try each: somebody is waiting for the answer, and a retry would hide what fails now and then.
        let settings = ClientSettings { retries: 0, spool: None, ..self.settings.clone() };
        let client = self.step("settings", || {
            let client = Client::open(store, settings.clone())?;
            Ok((client.describe(), client))
        })?;
        match client.address() {
            Some(address) => self.network(&address)?,
            None => ["name", "connection", "tls"].map(|step| self.skip(step, "the store is a folder")).into_iter().collect(),
        }
        self.step("credentials", || client.credentials(control).map(|found| (found, ())))?;
        let folder = self.folder;
        let objects = match client.list(folder, control) {
            Err(error) if error.kind() == Kind::Unsupported => {
                self.skip("list", "this store cannot be listed");
                Vec::new()
            }
            listed => self.step("list", || {
                let objects = listed?;
                Ok((format!("{} objects, {} bytes", objects.len(), objects.iter().map(|object| object.size).sum::<u64>()), objects))
            })?,
        };
        match objects.iter().filter(|object| object.size > 0).min_by_key(|object| object.size) {
            Some(object) => self.step("read", || read(&client, object, control))?,
            None => self.skip("read", "there is no object to read"),
        }
        if !may_write {
            self.skip("write", "not asked for");
            return Some(());
        }
        self.step("write", || write(&client, folder, control))
    }

    /// Name, connection and TLS of the store, or of the proxy in front of it.
    fn network(&mut self, address: &Address) -> Option<()> {
        let host = address.origin.split_once("://").map_or("", |(_, host)| host).to_owned();
        let (next, whose) = match &address.proxy {
            Some(proxy) => (proxy.clone(), "the proxy's"),
            None => (host, "the store's"),
        };
        let addresses = self.step("name", || {
            let unknown = |_| Error::new(Kind::ConnectionRefused, format!("{next} has no address"));
            let found: Vec<_> = next.to_socket_addrs().map_err(unknown)?.collect();
            if found.is_empty() {
                return Err(Error::new(Kind::ConnectionRefused, format!("{next} has no address")));
            }
            Ok((format!("{whose} name has {} address(es)", found.len()), found))
        })?;
        let timeout = self.settings.timeout.min(CONNECT);
        self.step("connection", || {
            let started = Instant::now();
            let mut last = None;
            for address in &addresses {
                match std::net::TcpStream::connect_timeout(address, timeout) {
                    Ok(_) => return Ok((format!("{next} answers after {} ms", started.elapsed().as_millis()), ())),
                    Err(error) => last = Some(error.kind()),
                }
            }
            let kind = if last == Some(std::io::ErrorKind::TimedOut) { Kind::TransferTimeout } else { Kind::ConnectionRefused };
            Err(Error::new(kind, next.clone()))
        })?;
        if address.origin.starts_with("http://") {
            self.skip("tls", "the endpoint is not https: only sealed studies may travel");
            return Some(());
        }
        let (store, timeout) = (self.store, self.settings.timeout);
        let url = format!("{}/", address.origin);
        self.step("tls", || {
            let http = Http::open(store, &url, timeout)?;
            // Any answer will do: it came through TLS, so the certificate was accepted.
            Runtime::shared()?.run(&|| false, async move {
                let sent = tokio::time::timeout(timeout, http.send(Call::new("HEAD", url))).await;
                match sent.map_err(|_| Error::new(Kind::TransferTimeout, http.place().describe()))? {
                    Ok(_) => Ok(("the certificate is good".to_owned(), ())),
                    Err(error) => Err(error),
                }
            })
        })
    }

    fn step<T>(&mut self, step: &'static str, work: impl FnOnce() -> Found<T>) -> Option<T> {
        match self.control.check().and_then(|()| work()) {
            Ok((detail, found)) => {
                self.checkup.steps.push(Check { step, outcome: Outcome::Passed, detail, hint: None, kind: None });
                Some(found)
            }
            Err(error) => {
                self.checkup.steps.push(Check {
                    step,
                    outcome: Outcome::Failed,
                    detail: error.to_string(),
                    hint: error.hint().map(str::to_owned),
                    kind: Some(error.kind()),
                });
                None
            }
        }
    }

    fn skip(&mut self, step: &'static str, why: &str) {
        self.checkup.steps.push(Check { step, outcome: Outcome::Skipped, detail: why.to_owned(), hint: None, kind: None });
    }
}

/// The last byte of an object: what is proved is that ranges work.
fn read(client: &Client, object: &ObjectInfo, control: &Control) -> Found<()> {
    let range = object.size.saturating_sub(1)..object.size;
    let plan = super::FetchPlan { name: &object.name, version: &object.version, ranges: std::slice::from_ref(&range), spool_key: None };
    client.fetch(&plan, &|_, _| Ok(()), &mut |_, _| Ok(()), control)?;
    Ok(("a range of an object".to_owned(), ()))
}

fn write(client: &Client, folder: &str, control: &Control) -> Found<()> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| Error::new(Kind::Internal, "the system gives no random numbers"))?;
    let folder = folder.trim_end_matches('/');
    let slash = if folder.is_empty() { "" } else { "/" };
    let name = format!("{folder}{slash}smp-trial-{:016x}", u64::from_be_bytes(random));
    let mut upload = client.upload(&name, Replace::Never)?;
    upload.write(TRIAL.to_vec())?;
    upload.finish()?;
    let found = client.read_small(&name, TRIAL.len() as u64, control);
    // Whatever the reading said, the trial is over.
    client.delete(&name)?;
    if found? == TRIAL {
        Ok(("a small object was written, read and deleted".to_owned(), ()))
    } else {
        Err(Error::new(Kind::IntegrityFailed, "the store gave back other bytes than it was given"))
    }
}
