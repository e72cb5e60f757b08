//! A Dropbox as its API shows it: requests, credentials, and where the root is.
//!
//! Arguments travel in JSON, in the body or, beside a content, in a header. A header is ASCII (RFC 9110, 5.5), so what is not is escaped.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::super::attempt::Patience;
use super::super::http::{Answer, Call, Doing, Http, RefreshToken, Tokens, authorized, private_origin, token_endpoint};
use super::super::listing::nonsense;
use super::super::secret_file;
use super::super::{ClientSettings, ObjectInfo, StoreSettings};
use super::errors::Refusal;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// Where arguments and answers are JSON.
const API: &str = "https://api.dropboxapi.com";
/// Where contents go and come.
const CONTENT: &str = "https://content.dropboxapi.com";
/// Where tokens are asked for (OAuth guide of Dropbox).
const TOKENS: &str = "https://api.dropboxapi.com/oauth2/token";

/// A Dropbox.
pub(super) struct Account {
    api: Http,
    content: Http,
    api_url: String,
    content_url: String,
    tokens: Tokens,
    pub patience: Patience,
    /// Namespace in which paths begin; `None` is the person's own.
    namespace: Option<String>,
    /// Id of the folder that is the root.
    folder: Option<String>,
    /// Path of that folder, once asked for; empty where the root is the root.
    root: OnceCell<String>,
}

/// What `cloud.credentials_path` holds.
#[derive(Deserialize)]
struct App {
    refresh_token: String,
    client_id: String,
    client_secret: Option<String>,
    token_uri: Option<String>,
}

/// What Dropbox tells about a file or a folder.
#[derive(Deserialize)]
pub(super) struct Metadata {
    #[serde(rename = ".tag")]
    pub tag: Option<String>,
    #[serde(default)]
    pub name: String,
    pub path_lower: Option<String>,
    pub path_display: Option<String>,
    pub rev: Option<String>,
    pub size: Option<u64>,
    pub content_hash: Option<String>,
}

impl Metadata {
    /// An object, under the name that it was asked for by.
    pub fn object(&self, name: &str) -> Result<ObjectInfo> {
        let version = self.rev.clone().filter(|rev| !rev.is_empty()).ok_or_else(|| nonsense("an object without a revision"))?;
        let size = self.size.ok_or_else(|| nonsense("an object without a size"))?;
        Ok(ObjectInfo { name: name.to_owned(), size, version })
    }
}

impl Account {
    pub fn open(store: &StoreSettings, client: &ClientSettings) -> Result<Account> {
        let url = |usual: &str| -> Result<String> {
            let url = store.endpoint.as_deref().unwrap_or(usual).trim_end_matches('/');
            private_origin("cloud.endpoint", url)?;
            Ok(url.to_owned())
        };
        let (api_url, content_url) = (url(API)?, url(CONTENT)?);
        let (namespace, folder) = root_of(store.folder_id.as_deref())?;
        let root = if folder.is_none() { OnceCell::new_with(Some(String::new())) } else { OnceCell::new() };
        Ok(Account {
            api: Http::open(store, &api_url, client.timeout)?,
            content: Http::open(store, &content_url, client.timeout)?,
            api_url,
            content_url,
            tokens: tokens(store)?,
            patience: Patience::new(client.retries, client.timeout),
            namespace,
            folder,
            root,
        })
    }

    pub fn is_tls(&self) -> bool {
        self.api.place().is_tls() && self.content.place().is_tls()
    }

    pub fn address(&self) -> super::super::Address {
        self.api.place().address()
    }

    /// Gets a token, and says from what.
    pub async fn credentials(&self) -> Result<String> {
        self.tokens.authorization(&self.api).await.map(|_| self.tokens.found().to_owned())
    }

    /// The path of an object or folder, from the root; empty for the root itself.
    pub async fn path(&self, name: &str) -> Result<String> {
        let root = self.root.get_or_try_init(|| self.ask_for_root()).await?;
        Ok(if name.is_empty() { root.clone() } else { format!("{root}/{name}") })
    }

    /// A folder is named by its id, but what is in it by paths.
    async fn ask_for_root(&self) -> Result<String> {
        let Some(folder) = &self.folder else { return Ok(String::new()) };
        let metadata = match self.ask::<Metadata>(Doing::Reading, "files/get_metadata", &json!({ "path": folder })).await? {
            Ok(metadata) => metadata,
            Err(refusal) if refusal.says("not_found") => {
                return Err(Error::new(Kind::ObjectNotFound, "there is no folder of the id in cloud.folder_id"));
            }
            Err(refusal) => return Err(refusal.error()),
        };
        if metadata.tag.as_deref() != Some("folder") {
            return Err(Error::new(Kind::ConfigInvalidValue, "cloud.folder_id is the id of something that is no folder"));
        }
        metadata.path_display.or(metadata.path_lower).filter(|path| path.starts_with('/')).ok_or_else(|| {
            Error::new(Kind::ObjectNotFound, "the folder of cloud.folder_id is not mounted in this Dropbox")
                .with_hint("add the shared folder to the Dropbox, or name it by its namespace: ns:…")
        })
    }

    /// A request whose argument and answer are JSON.
    pub async fn ask<T: DeserializeOwned>(&self, doing: Doing, route: &str, argument: &Value) -> Result<std::result::Result<T, Refusal>> {
        let call = Call::new("POST", format!("{}/2/{route}", self.api_url)).json(argument);
        let answer = authorized(&self.api, &self.api, &self.tokens, self.rooted(call)).await?;
        if answer.is_success() { Ok(Ok(answer.json().await?)) } else { Ok(Err(Refusal::of(answer, doing).await)) }
    }

    /// A request with content in its body, or in its answer.
    pub async fn transfer(
        &self,
        doing: Doing,
        route: &str,
        argument: &Value,
        content: Content,
    ) -> Result<std::result::Result<Answer, Refusal>> {
        let call = Call::new("POST", format!("{}/2/{route}", self.content_url)).header("dropbox-api-arg", ascii(argument));
        let call = match content {
            Content::Sent(bytes) => call.header("content-type", "application/octet-stream").body(bytes),
            Content::Asked(range) => call.header("range", range),
        };
        let answer = authorized(&self.api, &self.content, &self.tokens, self.rooted(call)).await?;
        if answer.is_success() { Ok(Ok(answer)) } else { Ok(Err(Refusal::of(answer, doing).await)) }
    }

    fn rooted(&self, call: Call) -> Call {
        let root = self.namespace.as_ref().map(|id| ascii(&json!({ ".tag": "namespace_id", "namespace_id": id })));
        call.header_if("dropbox-api-path-root", root)
    }
}

/// Which way a content goes.
pub(super) enum Content {
    Sent(Bytes),
    Asked(String),
}

/// The namespace or the folder that `cloud.folder_id` names.
fn root_of(folder_id: Option<&str>) -> Result<(Option<String>, Option<String>)> {
    let Some(id) = folder_id else { return Ok((None, None)) };
    let is_safe = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    match id.split_once(':') {
        Some(("ns", number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok((Some(number.to_owned()), None))
        }
        Some(("id", rest)) if is_safe(rest) => Ok((None, Some(id.to_owned()))),
        _ => {
            Err(Error::new(Kind::ConfigInvalidValue, "cloud.folder_id must be id:… (a folder) or ns:… (a namespace) for provider dropbox"))
        }
    }
}

/// From the token in the configuration, or from the file that it names. There is no variable of the environment that all tools agree on.
fn tokens(store: &StoreSettings) -> Result<Tokens> {
    if let Some(token) = &store.access_token {
        return Ok(Tokens::given(token.clone(), "cloud.access_token"));
    }
    let Some(path) = &store.credentials_path else {
        return Err(Error::new(Kind::CredentialsMissing, "provider dropbox needs cloud.credentials_path or cloud.access_token")
            .with_hint("docs/clouds/dropbox.md says how to get a refresh token"));
    };
    let app: App = secret_file::app(path, secret_file::SETTING)?;
    let refresh = RefreshToken {
        url: token_endpoint(app.token_uri, TOKENS)?,
        client_id: app.client_id,
        client_secret: app.client_secret.map(Secret::new),
        refresh_token: Secret::new(app.refresh_token),
        scope: None,
    };
    Ok(Tokens::fetched(refresh, "cloud.credentials_path"))
}

/// JSON in ASCII: what is not, and DEL, as `\uXXXX` of UTF-16 (RFC 8259, 7).
fn ascii(value: &Value) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        if (' '..='~').contains(&character) {
            text.push(character);
        } else {
            character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_ascii_and_the_same_json() {
        let value = json!({ "path": "/ä\u{7f}\u{80} 脳 😀 \"\\\n" });
        let text = ascii(&value);
        assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        // U+1F600 is D83D DE00 in UTF-16 (RFC 2781's arithmetic).
        assert!(text.contains("\\u00e4\\u007f\\u0080 \\u8133 \\ud83d\\ude00"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_root_is_a_folder_or_a_namespace() {
        assert_eq!(root_of(None).unwrap(), (None, None));
        assert_eq!(root_of(Some("ns:123")).unwrap(), (Some("123".into()), None));
        assert_eq!(root_of(Some("id:a4ayc_80_OEAAAAAAAAAXw")).unwrap(), (None, Some("id:a4ayc_80_OEAAAAAAAAAXw".into())));
        for wrong in ["", "x", "/Studies", "ns:", "ns:1x", "id:", "id:a/b", "rev:12", "id:a\nb"] {
            assert_eq!(root_of(Some(wrong)).unwrap_err().kind(), Kind::ConfigInvalidValue, "{wrong}");
        }
    }
}
