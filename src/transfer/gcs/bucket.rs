//! A bucket as the JSON API shows it: requests, credentials, and what is told about objects.
//!
//! An object's name is one part of the path of a URL, slashes and all, so each of its bytes that means something there is encoded.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::attempt::Patience;
use super::super::google::credentials;
use super::super::http::{Answer, Call, Doing, Http, Tokens, authorized, encoded, private_origin};
use super::super::listing::nonsense;
use super::super::names::unsafe_name;
use super::super::{Address, ClientSettings, ObjectInfo, StoreSettings};
use super::errors::Refusal;
use crate::error::{Error, Kind, Result};

/// Where the API is.
const API: &str = "https://storage.googleapis.com";
/// Longest name of an object, bytes (*About Cloud Storage objects*).
const NAME_BYTES: usize = 1024;
/// What is asked for about an object.
const FIELDS: &str = "name,size,generation,crc32c,metadata";
/// May read and write objects, and nothing else.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

/// A bucket.
pub(super) struct Bucket {
    /// For sessions, which have addresses of their own.
    pub http: Http,
    url: String,
    name: String,
    /// `None` for an emulator, which needs none.
    tokens: Option<Tokens>,
    /// Project that pays.
    payer: Option<String>,
    pub patience: Patience,
}

/// What Cloud Storage tells about an object. Its numbers are texts, because JSON's do not reach so far.
#[derive(Deserialize)]
pub(super) struct Metadata {
    name: String,
    size: String,
    pub generation: String,
    pub crc32c: Option<String>,
    /// What whoever wrote the object said about it.
    #[serde(default)]
    pub metadata: HashMap<String, String>,
}

impl Metadata {
    /// An object, under the name that the store gives it.
    pub fn object(&self) -> Result<ObjectInfo> {
        let size = self.size.parse().map_err(|_| nonsense("an object without a size"))?;
        if !is_generation(&self.generation) {
            return Err(nonsense("an object without a generation"));
        }
        Ok(ObjectInfo { name: self.name.clone(), size, version: self.generation.clone() })
    }
}

/// Whether a text can be a generation. Zero stands for "no object".
pub(super) fn is_generation(text: &str) -> bool {
    text.parse::<u64>().is_ok_and(|number| number > 0) && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl Bucket {
    pub fn open(store: &StoreSettings, client: &ClientSettings) -> Result<Bucket> {
        let url = store.endpoint.as_deref().unwrap_or(API).trim_end_matches('/');
        private_origin("cloud.endpoint", url)?;
        check_bucket(&store.bucket)?;
        // Unencrypted can only be this machine: an emulator, which must not be sent what was found by itself.
        let is_emulator = url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
        let is_anonymous = is_emulator && store.access_token.is_none() && store.credentials_path.is_none();
        let (tokens, project) = match (is_anonymous, if is_anonymous { None } else { credentials::find(store, SCOPE)? }) {
            (true, _) => (None, None),
            (false, Some(found)) => (Some(found.tokens), found.project),
            (false, None) => return Err(credentials::missing()),
        };
        let payer = project.filter(|_| store.is_requester_pays);
        if store.is_requester_pays && payer.is_none() {
            return Err(Error::new(Kind::ConfigInvalidValue, "cloud.requester_pays needs credentials that name a project")
                .with_hint("a file of credentials names it in quota_project_id or project_id"));
        }
        Ok(Bucket {
            http: Http::open(store, url, client.timeout)?,
            url: url.to_owned(),
            name: store.bucket.clone(),
            tokens,
            payer,
            patience: Patience::new(client.retries, client.timeout),
        })
    }

    pub fn describe(&self) -> String {
        format!("gs://{}", self.name)
    }

    pub fn is_tls(&self) -> bool {
        self.http.place().is_tls()
    }

    pub fn address(&self) -> Address {
        self.http.place().address()
    }

    /// Gets a token, and says from what.
    pub async fn credentials(&self) -> Result<String> {
        match &self.tokens {
            Some(tokens) => tokens.authorization(&self.http).await.map(|_| tokens.found().to_owned()),
            None => Ok("none are sent to an emulator on this machine".to_owned()),
        }
    }

    /// Address of the objects of the bucket.
    pub fn objects(&self, query: &str) -> String {
        self.asked(format!("{}/storage/v1/b/{}/o", self.url, encoded(&self.name)), query)
    }

    /// Address of one object.
    pub fn object(&self, name: &str, query: &str) -> String {
        self.asked(format!("{}/storage/v1/b/{}/o/{}", self.url, encoded(&self.name), encoded(name)), query)
    }

    /// Address where objects are made.
    pub fn uploads(&self, query: &str) -> String {
        self.asked(format!("{}/upload/storage/v1/b/{}/o", self.url, encoded(&self.name)), query)
    }

    /// An address with its query, which says who pays.
    fn asked(&self, address: String, query: &str) -> String {
        let payer = self.payer.as_ref().map(|project| format!("userProject={}", encoded(project))).unwrap_or_default();
        let query = [query, &payer].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&");
        if query.is_empty() { address } else { format!("{address}?{query}") }
    }

    /// A request with a token.
    pub async fn send(&self, doing: Doing, call: Call) -> Result<std::result::Result<Answer, Refusal>> {
        let answer = match &self.tokens {
            Some(tokens) => authorized(&self.http, &self.http, tokens, call).await?,
            None => self.http.send(call).await?,
        };
        if answer.is_success() { Ok(Ok(answer)) } else { Ok(Err(Refusal::of(answer, doing).await)) }
    }

    /// A request whose answer is JSON.
    pub async fn ask<T: DeserializeOwned>(&self, doing: Doing, url: String) -> Result<T> {
        let answer = self.send(doing, Call::new("GET", url)).await?;
        answer.map_err(Refusal::error)?.json().await
    }

    /// The object of a name.
    pub async fn look(&self, name: &str) -> Result<Metadata> {
        check_name(name)?;
        let found: Metadata = self.ask(Doing::Reading, self.object(name, &format!("fields={FIELDS}"))).await?;
        if found.name == name { Ok(found) } else { Err(nonsense("another object than the one asked for")) }
    }
}

/// Names of buckets have no more than these characters (*Bucket naming guidelines*); what people write instead is an address.
fn check_bucket(name: &str) -> Result<()> {
    let is_meant = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if (3..=222).contains(&name.len()) && name.bytes().all(is_meant) && !name.starts_with('.') {
        return Ok(());
    }
    Err(Error::new(Kind::ConfigInvalidValue, "cloud.bucket must be the name of a bucket for provider gcs")
        .with_hint("only the name, without gs:// and without a folder, which goes into cloud.prefix"))
}

/// Refuses names that the store does not take, or that a proxy would take for another place.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES {
        return Err(unsafe_name("is empty or longer than 1024 bytes"));
    }
    if name.chars().any(char::is_control) {
        return Err(unsafe_name("has a control character"));
    }
    if name.split('/').any(|part| part == "." || part == "..") {
        return Err(unsafe_name("has a part . or .."));
    }
    if name.starts_with(".well-known/acme-challenge/") {
        return Err(unsafe_name("is one that the store does not take"));
    }
    Ok(())
}
