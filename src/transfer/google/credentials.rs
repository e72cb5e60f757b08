//! Google's credentials: a token, a service account, or the permission that a person gave.
//!
//! Looked at in this order: `cloud.access_token`, the file of `cloud.credentials_path`, the file of `GOOGLE_APPLICATION_CREDENTIALS`, the file that
//! `gcloud auth application-default login` writes. A service account signs an assertion with its RSA key (RFC 7523) and gets a token of an
//! hour for it; a person's permission is a refresh token. The metadata server of Google's own machines is not asked: elsewhere that costs seconds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;

use super::super::http::{Call, Fetch, RefreshToken, Tokens, encoded, token_endpoint};
use super::super::{StoreSettings, secret_file};
use crate::error::{Error, Kind, Result, Stage};
use crate::secret::Secret;

/// Where tokens are asked for unless the file says otherwise.
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// Life of an assertion, in seconds: the longest that Google takes.
const LIFE_S: i64 = 3_600;

/// A file of credentials, of any type; what is missing is missed when it is needed.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "type")]
    kind: String,
    client_email: Option<String>,
    private_key: Option<String>,
    private_key_id: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    token_uri: Option<String>,
    quota_project_id: Option<String>,
    project_id: Option<String>,
}

/// Tokens, and who pays where a bucket's readers do.
pub(in crate::transfer) struct Found {
    /// Where tokens come from.
    pub tokens: Tokens,
    /// Project of the credentials.
    pub project: Option<String>,
}

/// Finds credentials for a scope; `None` where there are none.
pub(in crate::transfer) fn find(store: &StoreSettings, scope: &'static str) -> Result<Option<Found>> {
    if let Some(token) = &store.access_token {
        return Ok(Some(Found { tokens: Tokens::given(Arc::clone(token), "cloud.access_token"), project: None }));
    }
    if let Some(path) = &store.credentials_path {
        return from_file(path, secret_file::SETTING, scope).map(Some);
    }
    let variable = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS").filter(|value| !value.is_empty());
    if let Some(path) = variable {
        return from_file(Path::new(&path), "GOOGLE_APPLICATION_CREDENTIALS", scope).map(Some);
    }
    match well_known() {
        Some(path) if path.exists() => from_file(&path, "gcloud's application default credentials", scope).map(Some),
        _ => Ok(None),
    }
}

/// An error that says where was looked.
pub(in crate::transfer) fn missing() -> Error {
    Error::new(
        Kind::CredentialsMissing,
        "looked in cloud.access_token, cloud.credentials_path, GOOGLE_APPLICATION_CREDENTIALS and gcloud's application default credentials",
    )
}

/// Where gcloud keeps the credentials that programs may use.
fn well_known() -> Option<PathBuf> {
    let folder = match std::env::var_os("CLOUDSDK_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".config/gcloud"),
    };
    Some(folder.join("application_default_credentials.json"))
}

fn from_file(path: &Path, found: &'static str, scope: &'static str) -> Result<Found> {
    let unreadable = |what: &str| Error::new(Kind::CredentialsMissing, format!("the file of {found} {what}"));
    let file: File = secret_file::app(path, found)?;
    let missing = |what: &str| unreadable(&format!("has no {what}"));
    let url = token_endpoint(file.token_uri, TOKEN_URL)?;
    let project = file.quota_project_id.or(file.project_id);
    let tokens = match file.kind.as_str() {
        "service_account" => {
            let pem = Secret::new(file.private_key.ok_or_else(|| missing("private_key"))?);
            let assertion = Assertion {
                key: rsa_key(pem.expose()).ok_or_else(|| unreadable("has a private_key that is not RSA in PKCS #8"))?,
                key_id: file.private_key_id.unwrap_or_default(),
                issuer: file.client_email.ok_or_else(|| missing("client_email"))?,
                scope,
                url,
            };
            Tokens::fetched(assertion, found)
        }
        "authorized_user" => {
            let permission = RefreshToken {
                url,
                client_id: file.client_id.ok_or_else(|| missing("client_id"))?,
                client_secret: file.client_secret.map(Secret::new),
                refresh_token: Secret::new(file.refresh_token.ok_or_else(|| missing("refresh_token"))?),
                scope: None,
            };
            Tokens::fetched(permission, found)
        }
        "external_account" | "impersonated_service_account" | "external_account_authorized_user" | "gdch_service_account" => {
            return Err(Error::new(Kind::Unsupported, format!("the file of {found} is of type {}", file.kind))
                .with_hint("use a service account's key file, or give cloud.access_token")
                .at(Stage::Transfer));
        }
        _ => return Err(unreadable("is of no type of Google's")),
    };
    Ok(Found { tokens, project })
}

fn rsa_key(pem: &str) -> Option<RsaKeyPair> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
    RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()
}

/// A service account's assertion (RFC 7523, 2.1 and 3).
struct Assertion {
    key: RsaKeyPair,
    key_id: String,
    issuer: String,
    scope: &'static str,
    url: String,
}

impl Assertion {
    fn signed(&self, now: i64) -> Result<String> {
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id }));
        let claims = json!({ "iss": self.issuer, "scope": self.scope, "aud": self.url, "iat": now, "exp": now.saturating_add(LIFE_S) });
        let text = format!("{header}.{}", part(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let signed = self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature);
        signed.map_err(|_| Error::new(Kind::Internal, "an assertion cannot be signed").at(Stage::Transfer))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Fetch for Assertion {
    fn call(&self) -> Result<Call> {
        let assertion = self.signed(OffsetDateTime::now_utc().unix_timestamp())?;
        let form = format!("grant_type={}&assertion={assertion}", encoded("urn:ietf:params:oauth:grant-type:jwt-bearer"));
        Ok(Call::new("POST", &self.url).header("content-type", "application/x-www-form-urlencoded").body(form))
    }
}
