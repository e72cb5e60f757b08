//! Which account, and by which right: what the settings, a file and the environment say.
//!
//! The first source that says anything is used and no other is asked, so that credentials left in an environment are not used in the place of
//! those that were meant. Managed identities are not asked for: outside of Azure the question costs seconds, and answers for the machine rather
//! than for whoever works on it.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use url::{Host, Url};

use super::super::StoreSettings;
use super::super::http::{Call, Fetch, Http, Tokens, encoded, keeps_credentials, private_origin};
use super::super::secret_file;
use super::sign::AccountKey;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// Where credentials were looked for.
const SOURCES: &str = "looked in cloud.access_token, cloud.credentials_path, AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_ACCOUNT with \
                       AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, and AZURE_TENANT_ID with AZURE_CLIENT_ID and AZURE_CLIENT_SECRET";
/// What helps who has an account but no credentials in a file.
const SIGN_IN: &str =
    "after az login: az account get-access-token --resource https://storage.azure.com/ prints a token for cloud.access_token";
/// Largest file of credentials.
const FILE_BYTES: u64 = 64 << 10;
/// Where Entra ID answers, unless a file names another place (sovereign clouds).
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// What tokens are for.
const SCOPE: &str = "https://storage.azure.com/.default";
/// Where accounts are, unless a connection string names another place.
const SUFFIX: &str = "core.windows.net";

/// What opens the container.
pub(super) enum Grant {
    /// The account's key signs each request.
    Key(AccountKey),
    /// A shared access signature, without question mark, goes with each request.
    Sas(Secret<String>),
    /// A bearer token goes with each request; fetched through a client of its own, since it comes from another place.
    Tokens(Tokens, Option<Http>),
}

/// Where requests go and what opens it.
pub(super) struct Access {
    /// URL of the account, without a slash at its end.
    pub base: String,
    /// Name of the container.
    pub container: String,
    pub grant: Grant,
    /// Where the credentials were found, for people.
    pub found: &'static str,
}

/// What one source says; an account, an address or a container only if it names them.
struct Said {
    account: Option<String>,
    endpoint: Option<String>,
    container: Option<String>,
    grant: Grant,
    found: &'static str,
}

/// Looks through the sources.
pub(super) fn find(store: &StoreSettings, timeout: Duration, environment: &dyn Fn(&str) -> Option<String>) -> Result<Access> {
    // The address first: a token must not go to a wrong one, and its owner should hear of it before anything else.
    let endpoint = store.endpoint.as_deref().map(|url| base_of("cloud.endpoint", url, None)).transpose()?;
    let said = sources(store, timeout, environment)?;
    let account = said.account.or_else(|| environment("AZURE_STORAGE_ACCOUNT"));
    let base = match (&store.endpoint, endpoint, &said.endpoint, &account) {
        (Some(url), Some(_), _, _) => base_of("cloud.endpoint", url, account.as_deref())?,
        (_, _, Some(url), _) => base_of("the address in the credentials", url, account.as_deref())?,
        (_, _, _, Some(account)) => account_url(account, SUFFIX)?,
        _ => {
            let detail = "provider azure needs cloud.endpoint, https://ACCOUNT.blob.core.windows.net";
            return Err(Error::new(Kind::ConfigInvalidValue, detail));
        }
    };
    let container = match (store.bucket.as_str(), said.container) {
        ("", Some(container)) => container,
        ("", None) => return Err(Error::new(Kind::ConfigInvalidValue, "provider azure needs cloud.bucket, the name of the container")),
        (bucket, _) => bucket.to_owned(),
    };
    // "Naming and Referencing Containers" of the REST reference; $root and $web are containers too.
    if container.len() > 63 || !container.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-$".contains(&byte)) {
        return Err(Error::new(Kind::ConfigInvalidValue, "cloud.bucket is no name of a container: lower-case letters, digits and hyphens"));
    }
    Ok(Access { base, container, grant: said.grant, found: said.found })
}

fn sources(store: &StoreSettings, timeout: Duration, environment: &dyn Fn(&str) -> Option<String>) -> Result<Said> {
    let environment = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
    let of_account = |grant, found| Said { account: None, endpoint: None, container: None, grant, found };
    if let Some(token) = &store.access_token {
        let found = "cloud.access_token";
        return Ok(match sas_of(token.expose()) {
            Some(sas) => of_account(Grant::Sas(sas), found),
            None => of_account(Grant::Tokens(Tokens::given(std::sync::Arc::clone(token), found), None), found),
        });
    }
    if let Some(path) = &store.credentials_path {
        return of_file(store, path, timeout);
    }
    if let Some(text) = environment("AZURE_STORAGE_CONNECTION_STRING") {
        return of_connection_string(&text, "AZURE_STORAGE_CONNECTION_STRING");
    }
    if let (Some(account), Some(key)) = (environment("AZURE_STORAGE_ACCOUNT"), environment("AZURE_STORAGE_KEY")) {
        let found = "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY";
        let grant = Grant::Key(AccountKey::new(&account, &key).ok_or_else(|| unusable(found, "the key is not Base64"))?);
        return Ok(Said { account: Some(account), ..of_account(grant, found) });
    }
    if let Some(sas) = environment("AZURE_STORAGE_SAS_TOKEN") {
        let found = "AZURE_STORAGE_SAS_TOKEN";
        return Ok(of_account(Grant::Sas(sas_of(&sas).ok_or_else(|| unusable(found, "is no SAS"))?), found));
    }
    match (environment("AZURE_TENANT_ID"), environment("AZURE_CLIENT_ID"), environment("AZURE_CLIENT_SECRET")) {
        (Some(tenant), Some(client_id), Some(client_secret)) => {
            let app = App { tenant, client_id, client_secret, token_uri: None, account: None };
            app.said(store, timeout, "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET")
        }
        _ => Err(Error::new(Kind::CredentialsMissing, SOURCES).with_hint(SIGN_IN)),
    }
}

/// A connection string, the URL of a container with a SAS, a SAS alone, or an app of Entra ID in JSON.
fn of_file(store: &StoreSettings, path: &Path, timeout: Duration) -> Result<Said> {
    let found = "cloud.credentials_path";
    let text = secret_file::read(path, secret_file::SETTING, FILE_BYTES)?;
    let text = text.trim();
    if text.starts_with('{') {
        // The parser's complaint may quote the secret.
        let app: App = serde_json::from_str(text).map_err(|_| unusable(found, "is JSON without tenant, client_id and client_secret"))?;
        return app.said(store, timeout, found);
    }
    if text.starts_with("https://") || text.starts_with("http://") {
        return of_sas_url(text, found);
    }
    match sas_of(text).filter(|_| !text.contains(';')) {
        Some(sas) => Ok(Said { account: None, endpoint: None, container: None, grant: Grant::Sas(sas), found }),
        None => of_connection_string(text, found),
    }
}

/// `https://ACCOUNT.blob.core.windows.net/CONTAINER?sv=...&sig=...`, as the portal and Storage Explorer give it out.
fn of_sas_url(text: &str, found: &'static str) -> Result<Said> {
    let wrong = || unusable(found, "is a URL without container or SAS");
    let mut url = Url::parse(text).map_err(|_| wrong())?;
    let sas = url.query().and_then(sas_of).ok_or_else(wrong)?;
    url.set_query(None);
    let path = url.path().trim_matches('/').to_owned();
    // An emulator has the account before the container.
    let (account, container) = path.rsplit_once('/').unwrap_or(("", &path));
    url.set_path(account);
    let container = Some(container.to_owned()).filter(|container| !container.is_empty());
    Ok(Said { account: None, endpoint: Some(url.to_string()), container, grant: Grant::Sas(sas), found })
}

/// `AccountName=...;AccountKey=...;EndpointSuffix=...`, or `BlobEndpoint=...;SharedAccessSignature=...`.
fn of_connection_string(text: &str, found: &'static str) -> Result<Said> {
    let value = |wanted: &str| {
        let mut pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, value)| name.trim().eq_ignore_ascii_case(wanted) && !value.is_empty()).map(|(_, value)| value.trim())
    };
    let account = value("AccountName").map(str::to_owned);
    let grant = match (value("SharedAccessSignature"), &account, value("AccountKey")) {
        (Some(sas), _, _) => Grant::Sas(sas_of(sas).ok_or_else(|| unusable(found, "holds something that is no SAS"))?),
        (None, Some(account), Some(key)) => {
            Grant::Key(AccountKey::new(account, key).ok_or_else(|| unusable(found, "holds an account key that is not Base64"))?)
        }
        _ => return Err(unusable(found, "is no connection string with AccountName and AccountKey, or with SharedAccessSignature")),
    };
    let endpoint = match (value("BlobEndpoint"), &account) {
        (Some(url), _) => Some(url.to_owned()),
        (None, Some(account)) => Some(account_url(account, value("EndpointSuffix").unwrap_or(SUFFIX))?),
        (None, None) => None,
    };
    Ok(Said { account, endpoint, container: None, grant, found })
}

/// An app of Entra ID with a secret (client credentials, RFC 6749, 4.4).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct App {
    tenant: String,
    client_id: String,
    client_secret: String,
    token_uri: Option<String>,
    account: Option<String>,
}

impl App {
    fn said(self, store: &StoreSettings, timeout: Duration, found: &'static str) -> Result<Said> {
        let url = match self.token_uri {
            Some(url) => url,
            None => format!("{AUTHORITY}/{}/oauth2/v2.0/token", encoded(&self.tenant)),
        };
        let http = Http::open(store, &private_origin("token_uri in cloud.credentials_path", &url)?, timeout)?;
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope={}",
            encoded(&self.client_id),
            encoded(Secret::new(self.client_secret).expose()),
            encoded(SCOPE)
        );
        let tokens = Tokens::fetched(TokenRequest { url, form: Secret::new(form) }, found);
        Ok(Said { account: self.account, endpoint: None, container: None, grant: Grant::Tokens(tokens, Some(http)), found })
    }
}

struct TokenRequest {
    url: String,
    form: Secret<String>,
}

impl Fetch for TokenRequest {
    fn call(&self) -> Result<Call> {
        let call = Call::new("POST", &self.url).header("content-type", "application/x-www-form-urlencoded");
        Ok(call.body(self.form.expose().to_owned()))
    }
}

fn unusable(found: &str, what: &str) -> Error {
    Error::new(Kind::CredentialsMissing, format!("{found}: {what}"))
}

/// A shared access signature, without the question mark it is often given with; `None` for what is none.
fn sas_of(text: &str) -> Option<Secret<String>> {
    let text = text.trim();
    let text = text.strip_prefix('?').unwrap_or(text);
    let is_sas = text.split('&').any(|pair| pair.starts_with("sig="))
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%&=:+/,!$'()*;@".contains(&byte));
    is_sas.then(|| Secret::new(text.to_owned()))
}

fn account_url(account: &str, suffix: &str) -> Result<String> {
    let is_name =
        |text: &str, also: &[u8]| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte));
    if is_name(account, b"-") && is_name(suffix, b"-.") {
        return Ok(format!("https://{account}.blob.{suffix}"));
    }
    Err(Error::new(Kind::ConfigInvalidValue, "the name of the storage account is not one"))
}

/// The account's URL as a base for others. An address without a name of its own has the account in its path, as emulators do.
fn base_of(key: &str, url: &str, account: Option<&str>) -> Result<String> {
    let wrong = |what: &str| Error::new(Kind::ConfigInvalidValue, format!("{key} {what}"));
    let parsed = Url::parse(url).map_err(|_| wrong("must be https://ACCOUNT.blob.core.windows.net or the like"))?;
    if parsed.query().is_some() {
        return Err(wrong("must not hold a query")
            .with_hint("a SAS belongs into cloud.access_token, or into a file named by cloud.credentials_path"));
    }
    if parsed.fragment().is_some() || !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(wrong("must be https://ACCOUNT.blob.core.windows.net or the like"));
    }
    if !keeps_credentials(url) {
        return Err(wrong("must be https, because credentials travel there"));
    }
    let path = parsed.path().trim_end_matches('/');
    let is_nameless = matches!(parsed.host(), Some(Host::Ipv4(_) | Host::Ipv6(_))) || parsed.host_str() == Some("localhost");
    let account = account.filter(|_| path.is_empty() && is_nameless).map(|account| format!("/{}", encoded(account)));
    Ok(format!("{}{path}{}", parsed.origin().ascii_serialization(), account.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const SAS: &str = "sv=2021-12-02&sr=c&sp=rl&sig=canary%2B%3D";

    fn settings(endpoint: Option<&str>, bucket: &str) -> StoreSettings {
        StoreSettings { endpoint: endpoint.map(str::to_owned), bucket: bucket.into(), ..StoreSettings::default() }
    }

    fn with(store: &StoreSettings, variables: &[(&str, &str)]) -> Result<(String, &'static str, &'static str)> {
        let environment = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let access = find(store, Duration::from_secs(1), &environment)?;
        let grant = match access.grant {
            Grant::Key(_) => "key",
            Grant::Sas(_) => "sas",
            Grant::Tokens(..) => "tokens",
        };
        Ok((format!("{}/{}", access.base, access.container), grant, access.found))
    }

    fn in_file(store: StoreSettings, text: &str) -> Result<(String, &'static str, &'static str)> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("credentials");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        with(&StoreSettings { credentials_path: Some(path), ..store }, &[])
    }

    fn token(text: &str) -> StoreSettings {
        let token = std::sync::Arc::new(Secret::new(text.to_owned()));
        StoreSettings { access_token: Some(token), ..settings(Some("https://acc.blob.core.windows.net/"), "c") }
    }

    #[test]
    fn the_first_source_that_says_anything_is_used() {
        let connection = (
            "AZURE_STORAGE_CONNECTION_STRING",
            "DefaultEndpointsProtocol=https;AccountName=one;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn",
        );
        let (account, key) = (("AZURE_STORAGE_ACCOUNT", "two"), ("AZURE_STORAGE_KEY", "a2V5"));
        let sas = ("AZURE_STORAGE_SAS_TOKEN", SAS);
        let app = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "i"), ("AZURE_CLIENT_SECRET", "s")];
        let none = settings(None, "c");
        for (store, variables, expected) in [
            (&none, vec![connection, account, key, sas], ("https://one.blob.core.chinacloudapi.cn/c", "key", connection.0)),
            (&none, vec![account, key, sas], ("https://two.blob.core.windows.net/c", "key", "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY")),
            (&none, vec![account, sas], ("https://two.blob.core.windows.net/c", "sas", sas.0)),
            (
                &none,
                [&[account], &app[..]].concat(),
                ("https://two.blob.core.windows.net/c", "tokens", "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"),
            ),
            (&token("eyJ0"), vec![connection], ("https://acc.blob.core.windows.net/c", "tokens", "cloud.access_token")),
            (&token(&format!("?{SAS}")), vec![connection], ("https://acc.blob.core.windows.net/c", "sas", "cloud.access_token")),
        ] {
            let (url, grant, found) = with(store, &variables).unwrap();
            assert_eq!((url.as_str(), grant, found), expected);
        }
        let missing = with(&none, &[account]).unwrap_err();
        assert_eq!(missing.kind(), Kind::CredentialsMissing);
        assert!(missing.detail().contains("AZURE_STORAGE_KEY") && missing.hint().unwrap().contains("az login"));
    }

    #[test]
    fn a_file_holds_what_people_are_given() {
        let emulator = "AccountName=devstoreaccount1;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;";
        for (store, text, expected) in [
            (settings(None, "c"), emulator.to_owned(), ("http://127.0.0.1:10000/devstoreaccount1/c", "key")),
            (settings(Some("http://127.0.0.1:1"), "c"), emulator.to_owned(), ("http://127.0.0.1:1/devstoreaccount1/c", "key")),
            (
                settings(None, "c"),
                format!("BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature={SAS}\n"),
                ("https://acc.blob.core.windows.net/c", "sas"),
            ),
            (
                settings(None, ""),
                format!("https://acc.blob.core.windows.net/theirs?{SAS}"),
                ("https://acc.blob.core.windows.net/theirs", "sas"),
            ),
            (
                settings(None, ""),
                format!("http://127.0.0.1:10000/devstoreaccount1/theirs?{SAS}"),
                ("http://127.0.0.1:10000/devstoreaccount1/theirs", "sas"),
            ),
            (settings(Some("https://acc.blob.core.windows.net"), "c"), SAS.to_owned(), ("https://acc.blob.core.windows.net/c", "sas")),
            (
                settings(None, "c"),
                r#"{"tenant":"t","client_id":"i","client_secret":"s","account":"acc"}"#.to_owned(),
                ("https://acc.blob.core.windows.net/c", "tokens"),
            ),
        ] {
            let (url, grant, found) = in_file(store, &text).unwrap();
            assert_eq!((url.as_str(), grant, found), (expected.0, expected.1, "cloud.credentials_path"), "{text}");
        }
        for text in ["", "canary", "{\"canary\":1}", "AccountName=a;AccountKey=%canary", "https://acc.blob.core.windows.net/canary"] {
            let error = in_file(settings(Some("https://acc.blob.core.windows.net"), "c"), text).unwrap_err();
            assert_eq!(error.kind(), Kind::CredentialsMissing, "{text}");
            assert!(!error.to_string().contains("canary"));
        }
    }

    #[test]
    fn credentials_go_nowhere_in_the_clear() {
        for url in
            ["http://acc.blob.core.windows.net", "https://user:canary@acc.example", "https://acc.example/?sig=canary", "ftp://acc.example"]
        {
            let store = StoreSettings { endpoint: Some(url.into()), ..token("t") };
            let error = with(&store, &[]).unwrap_err();
            assert_eq!(error.kind(), Kind::ConfigInvalidValue, "{url}");
            assert!(!error.to_string().contains("canary"));
        }
        let plain = r#"{"tenant":"t","client_id":"i","client_secret":"s","account":"acc","token_uri":"http://login.example/token"}"#;
        assert_eq!(in_file(settings(None, "c"), plain).unwrap_err().kind(), Kind::ConfigInvalidValue);
        let url = format!("http://acc.example/c?{SAS}");
        assert_eq!(in_file(settings(None, ""), &url).unwrap_err().kind(), Kind::ConfigInvalidValue);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (store, detail) in [
            (StoreSettings { endpoint: None, ..token("t") }, "provider azure needs cloud.endpoint, https://ACCOUNT.blob.core.windows.net"),
            (StoreSettings { bucket: String::new(), ..token("t") }, "provider azure needs cloud.bucket, the name of the container"),
            (
                StoreSettings { bucket: "A/b".into(), ..token("t") },
                "cloud.bucket is no name of a container: lower-case letters, digits and hyphens",
            ),
        ] {
            let error = with(&store, &[]).unwrap_err();
            assert_eq!((error.kind(), error.detail()), (Kind::ConfigInvalidValue, detail));
        }
    }
}
