//! A drive as Microsoft Graph shows it: requests, credentials, and addresses that need none.
//!
//! Graph hands out addresses of other hosts that carry their own permission (to download, to upload). Whoever has one has the object, so
//! they are as secret as a token: they go into no message, are used encrypted only, and no token is sent to them.

use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::super::attempt::Patience;
use super::super::http::{
    Answer, Call, Doing, Fetch, Http, Tokens, authorized, encoded, encoded_path, keeps_credentials, private_origin, token_endpoint,
};
use super::super::listing::nonsense;
use super::super::secret_file;
use super::super::{ClientSettings, ObjectInfo, StoreSettings};
use super::errors::Refusal;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// Graph outside of the national clouds.
const GRAPH: &str = "https://graph.microsoft.com/v1.0";
/// Where tokens are asked for, outside of the national clouds.
const LOGIN: &str = "https://login.microsoftonline.com";

/// A drive, or a folder of one.
pub(super) struct Drive {
    http: Http,
    tokens: Tokens,
    pub patience: Patience,
    /// `…/me/drive` or `…/drives/{id}`.
    drive: String,
    /// `root` or `items/{id}`.
    root: String,
}

/// What Graph tells about a file or a folder.
#[derive(Deserialize)]
pub(super) struct Item {
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub name: String,
    size: Option<u64>,
    #[serde(rename = "cTag")]
    c_tag: Option<String>,
    #[serde(rename = "eTag")]
    e_tag: Option<String>,
    pub file: Option<File>,
    pub folder: Option<serde::de::IgnoredAny>,
    #[serde(rename = "@microsoft.graph.downloadUrl")]
    pub download_url: Option<String>,
}

/// What makes an item a file.
#[derive(Default, Deserialize)]
pub(super) struct File {
    hashes: Option<Hashes>,
}

#[derive(Deserialize)]
struct Hashes {
    #[serde(rename = "quickXorHash")]
    quick_xor: Option<String>,
}

impl Item {
    /// The version: the `cTag`, which changes with the content only. A drive that has none is left with the `eTag`.
    pub fn version(&self) -> Option<&str> {
        self.c_tag.as_deref().or(self.e_tag.as_deref()).filter(|tag| !tag.is_empty())
    }

    /// Whether the answer told the tag that versions are made of; answers to uploads may leave it out.
    pub fn has_version(&self) -> bool {
        self.c_tag.as_deref().is_some_and(|tag| !tag.is_empty()) && self.size.is_some()
    }

    /// An object, under the name that it was asked for by.
    pub fn object(&self, name: &str) -> Result<ObjectInfo> {
        let version = self.version().ok_or_else(|| nonsense("an object without a version"))?.to_owned();
        let size = self.size.ok_or_else(|| nonsense("an object without a size"))?;
        Ok(ObjectInfo { name: name.to_owned(), size, version })
    }

    /// QuickXorHash of the content, where Graph tells it.
    pub fn hash(&self) -> Option<&str> {
        self.file.as_ref()?.hashes.as_ref()?.quick_xor.as_deref()
    }
}

impl Drive {
    pub fn open(store: &StoreSettings, client: &ClientSettings) -> Result<Drive> {
        let base = store.endpoint.as_deref().unwrap_or(GRAPH).trim_end_matches('/');
        let origin = private_origin("cloud.endpoint", base)?;
        let url = Url::parse(base).map_err(|_| Error::new(Kind::ConfigInvalidValue, "cloud.endpoint is not a URL"))?;
        let version = if url.path() == "/" { "/v1.0" } else { "" };
        let drive = match store.bucket.as_str() {
            "" => "me/drive".to_owned(),
            id => format!("drives/{}", encoded(id)),
        };
        let root = match store.folder_id.as_deref() {
            None => "root".to_owned(),
            Some(id) if id.trim().is_empty() || id.contains('/') => {
                return Err(Error::new(Kind::ConfigInvalidValue, "cloud.folder_id must be the id of a folder for provider onedrive"));
            }
            Some(id) => format!("items/{}", encoded(id)),
        };
        Ok(Drive {
            http: Http::open(store, base, client.timeout)?,
            tokens: tokens(store, &origin)?,
            patience: Patience::new(client.retries, client.timeout),
            drive: format!("{base}{version}/{drive}"),
            root,
        })
    }

    pub fn is_tls(&self) -> bool {
        self.http.place().is_tls()
    }

    pub fn address(&self) -> super::super::Address {
        self.http.place().address()
    }

    /// Gets a token, and says from what.
    pub async fn credentials(&self) -> Result<String> {
        self.tokens.authorization(&self.http).await.map(|_| self.tokens.found().to_owned())
    }

    /// Address of an item by its name; the empty name is the root.
    pub fn item(&self, name: &str) -> String {
        match name {
            "" => format!("{}/{}", self.drive, self.root),
            name => format!("{}/{}:/{}", self.drive, self.root, encoded_path(name)),
        }
    }

    /// Address of what belongs to a named item: its content, a session.
    pub fn part(&self, name: &str, part: &str) -> String {
        format!("{}:/{part}", self.item(name))
    }

    /// Address of an item by its id.
    pub fn by_id(&self, id: &str) -> String {
        format!("{}/items/{}", self.drive, encoded(id))
    }

    /// Sends a request with a token.
    pub async fn send(&self, doing: Doing, call: Call) -> Result<std::result::Result<Answer, Refusal>> {
        let answer = authorized(&self.http, &self.http, &self.tokens, call).await?;
        if answer.is_success() { Ok(Ok(answer)) } else { Ok(Err(Refusal::of(answer, doing).await)) }
    }

    /// What lies at an address, if there is something.
    pub async fn ask<T: DeserializeOwned>(&self, doing: Doing, url: &str) -> Result<Option<T>> {
        match self.send(doing, Call::new("GET", url)).await? {
            Ok(answer) => answer.json().await.map(Some),
            Err(refusal) if refusal.status == 404 => Ok(None),
            Err(refusal) => Err(refusal.error()),
        }
    }

    /// Sends a request to an address that carries its own permission: without a token.
    pub async fn send_openly(&self, doing: Doing, call: Call) -> Result<std::result::Result<Answer, Refusal>> {
        let answer = self.http.send(call).await?;
        if answer.is_success() { Ok(Ok(answer)) } else { Ok(Err(Refusal::of(answer, doing).await)) }
    }

    /// Checks an address that carries its own permission. Only a drive on this machine may hand out one that is not encrypted.
    pub fn checked_link(&self, url: String) -> Result<String> {
        if url.starts_with("https://") || (!self.is_tls() && keeps_credentials(&url)) {
            return Ok(url);
        }
        Err(Error::new(Kind::TlsFailed, "the store sent the request to where it would not be encrypted"))
    }

    /// Checks where a listing goes on: the token goes along, so it may not lead to another host.
    pub fn checked_page(&self, url: String) -> Result<String> {
        let origin = |url: &str| Url::parse(url).ok().map(|url| url.origin()).filter(url::Origin::is_tuple);
        match (origin(&url), origin(&self.drive)) {
            (Some(page), Some(drive)) if page == drive => Ok(url),
            _ => Err(nonsense("a listing that goes on at another host")),
        }
    }
}

/// What `cloud.credentials_path` holds.
#[derive(Deserialize)]
struct App {
    tenant: String,
    client_id: String,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    token_uri: Option<String>,
    scope: Option<String>,
}

/// From the token in the configuration, or from the file that it names.
fn tokens(store: &StoreSettings, origin: &str) -> Result<Tokens> {
    if let Some(token) = &store.access_token {
        return Ok(Tokens::given(token.clone(), "cloud.access_token"));
    }
    let Some(path) = &store.credentials_path else {
        return Err(Error::new(Kind::CredentialsMissing, "provider onedrive needs cloud.credentials_path or cloud.access_token")
            .with_hint("docs/clouds/onedrive.md says how to get credentials"));
    };
    let app: App = secret_file::app(path, secret_file::SETTING)?;
    let url = token_endpoint(app.token_uri, &format!("{LOGIN}/{}/oauth2/v2.0/token", encoded(&app.tenant)))?;
    let scope = match (&app.refresh_token, app.scope) {
        (_, Some(scope)) => Some(scope),
        // What a person allowed is what the refresh token is for.
        (Some(_), None) => None,
        (None, None) if origin.starts_with("https://") => Some(format!("{}/.default", origin.trim_end_matches(":443"))),
        (None, None) => Some("https://graph.microsoft.com/.default".to_owned()),
    };
    if app.refresh_token.is_none() && app.client_secret.is_none() {
        return Err(Error::new(Kind::CredentialsMissing, "the file of cloud.credentials_path has neither refresh_token nor client_secret"));
    }
    if app.refresh_token.is_none() && store.bucket.is_empty() {
        return Err(Error::new(
            Kind::ConfigInvalidValue,
            "an app that signs in by itself has no drive of its own: set cloud.bucket to a drive id",
        ));
    }
    let grant = Grant {
        url,
        client_id: app.client_id,
        client_secret: app.client_secret.map(Secret::new),
        refresh_token: Mutex::new(app.refresh_token.map(Secret::new)),
        scope,
    };
    Ok(Tokens::fetched(grant, "cloud.credentials_path"))
}

/// A person's permission, renewed with each token (RFC 6749, 6), or that of the app itself (4.4).
struct Grant {
    url: String,
    client_id: String,
    client_secret: Option<Secret<String>>,
    /// The newest: Microsoft replaces it with each answer, and the file's own stays good until it is 90 days old.
    refresh_token: Mutex<Option<Secret<String>>>,
    scope: Option<String>,
}

impl Fetch for Grant {
    fn call(&self) -> Result<Call> {
        let mut form = format!("client_id={}", encoded(&self.client_id));
        match self.refresh_token.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(token) => form.push_str(&format!("&grant_type=refresh_token&refresh_token={}", encoded(token.expose()))),
            None => form.push_str("&grant_type=client_credentials"),
        }
        if let Some(secret) = &self.client_secret {
            form.push_str(&format!("&client_secret={}", encoded(secret.expose())));
        }
        if let Some(scope) = &self.scope {
            form.push_str(&format!("&scope={}", encoded(scope)));
        }
        Ok(Call::new("POST", &self.url).header("content-type", "application/x-www-form-urlencoded").body(form))
    }

    fn replaced(&self, refresh_token: Secret<String>) {
        let mut current = self.refresh_token.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_some() {
            *current = Some(refresh_token);
        }
    }
}
