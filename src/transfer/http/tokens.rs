//! Bearer tokens (RFC 6750): given once, or fetched and renewed (RFC 6749).

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Answer, Call, Http, clock_skew, encoded, private_origin};
use crate::error::{Error, Kind, Result, Stage};
use crate::secret::Secret;

/// A token is renewed this long before it ends, so that none ends on the way.
const MARGIN: Duration = Duration::from_secs(60);
/// Life of a token whose server does not say.
const UNSAID: Duration = Duration::from_secs(300);

/// Where tokens come from.
pub(in crate::transfer) struct Tokens {
    source: Source,
    found: &'static str,
    current: Mutex<Option<(Arc<Secret<String>>, Instant)>>,
}

enum Source {
    Given(Arc<Secret<String>>),
    Fetched(Box<dyn Fetch>),
}

/// How a token is asked for.
pub(in crate::transfer) trait Fetch: Send + Sync {
    /// The request that a token answers, made anew for each (an assertion carries the time).
    fn call(&self) -> Result<Call>;
    /// Takes a refresh token that came with the answer, where the server replaces them (RFC 6749, 6).
    fn replaced(&self, _refresh_token: Secret<String>) {}
}

/// An answer of a token endpoint (RFC 6749, 5.1).
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<serde_json::Value>,
    refresh_token: Option<String>,
}

impl Tokens {
    /// A token that is used as it is until the store refuses it.
    pub fn given(token: Arc<Secret<String>>, found: &'static str) -> Tokens {
        Tokens { source: Source::Given(token), found, current: Mutex::default() }
    }

    /// Tokens asked for when needed.
    pub fn fetched(fetch: impl Fetch + 'static, found: &'static str) -> Tokens {
        Tokens { source: Source::Fetched(Box::new(fetch)), found, current: Mutex::default() }
    }

    /// Where the credentials were found, for people.
    pub fn found(&self) -> &'static str {
        self.found
    }

    /// `Bearer …` for an `Authorization` header.
    pub async fn authorization(&self, http: &Http) -> Result<String> {
        let token = self.token(http).await?;
        Ok(format!("Bearer {}", token.expose()))
    }

    /// Forgets the current token, after the store refused it. `false` if there is no way to another.
    pub async fn renew(&self) -> bool {
        match self.source {
            Source::Given(_) => false,
            Source::Fetched(_) => {
                // Another range may have been refused at the same moment and have forgotten it already.
                self.current.lock().await.take();
                true
            }
        }
    }

    async fn token(&self, http: &Http) -> Result<Arc<Secret<String>>> {
        let fetch = match &self.source {
            Source::Given(token) => return Ok(Arc::clone(token)),
            Source::Fetched(fetch) => fetch,
        };
        // Held while the token is fetched: ranges that start together need one token, not eight.
        let mut current = self.current.lock().await;
        if let Some((token, until)) = current.as_ref()
            && Instant::now() < *until
        {
            return Ok(Arc::clone(token));
        }
        let answer = http.send(fetch.call()?).await?;
        let status = answer.status;
        if !answer.is_success() {
            let skew = clock_skew(answer.header("date"));
            return Err(match status {
                // A refusal of the grant (RFC 6749, 5.2), whatever else 400 may mean elsewhere.
                400..=403 => skew.unwrap_or_else(|| {
                    Error::new(Kind::AccessDenied, format!("no token for these credentials ({}), status {status}", self.found))
                        .with_hint("the credentials may be revoked or expired: make new ones")
                        .at(Stage::Transfer)
                }),
                _ => answer.refused(super::Doing::Reading),
            });
        }
        let granted: Granted = answer.json().await?;
        let life = granted.expires_in.as_ref().and_then(seconds).unwrap_or(UNSAID);
        let token = Arc::new(Secret::new(granted.access_token));
        if let Some(refresh_token) = granted.refresh_token {
            fetch.replaced(Secret::new(refresh_token));
        }
        *current = Some((Arc::clone(&token), Instant::now() + life.saturating_sub(MARGIN)));
        Ok(token)
    }
}

/// Seconds as a number or, from some servers, as text; a life of years is cut to a day, because clocks overflow.
fn seconds(value: &serde_json::Value) -> Option<Duration> {
    let seconds = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    Some(Duration::from_secs(seconds.min(86_400)))
}

/// The address where tokens are asked for: the provider's, or the one in the file of credentials.
pub(in crate::transfer) fn token_endpoint(named: Option<String>, usual: &str) -> Result<String> {
    let Some(named) = named else { return Ok(usual.to_owned()) };
    private_origin("token_uri in the file of cloud.credentials_path", &named)?;
    Ok(named)
}

/// Sends a request with a token, and once more with a new one if the store does not take the first. The two clients differ where a store
/// keeps contents on another host.
pub(in crate::transfer) async fn authorized(http: &Http, by: &Http, tokens: &Tokens, call: Call) -> Result<Answer> {
    let answer = by.send(call.clone().header("authorization", tokens.authorization(http).await?)).await?;
    if answer.status != 401 || !tokens.renew().await {
        return Ok(answer);
    }
    by.send(call.header("authorization", tokens.authorization(http).await?)).await
}

/// A refresh token of an app that a person once allowed (RFC 6749, 6).
pub(in crate::transfer) struct RefreshToken {
    /// Token endpoint.
    pub url: String,
    /// Id of the app.
    pub client_id: String,
    /// Secret of the app; apps on people's own machines may have none (PKCE).
    pub client_secret: Option<Secret<String>>,
    /// The refresh token.
    pub refresh_token: Secret<String>,
    /// What the token is for, where the endpoint wants to hear it.
    pub scope: Option<String>,
}

impl Fetch for RefreshToken {
    fn call(&self) -> Result<Call> {
        let mut form = format!(
            "grant_type=refresh_token&client_id={}&refresh_token={}",
            encoded(&self.client_id),
            encoded(self.refresh_token.expose())
        );
        if let Some(secret) = &self.client_secret {
            form.push_str(&format!("&client_secret={}", encoded(secret.expose())));
        }
        if let Some(scope) = &self.scope {
            form.push_str(&format!("&scope={}", encoded(scope)));
        }
        Ok(Call::new("POST", &self.url).header("content-type", "application/x-www-form-urlencoded").body(form))
    }
}
