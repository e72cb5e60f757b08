//! What stores for people have in common: a file with the credentials of an app, names that are parts of a path, listings page by page.
//!
//! Listings of S3 are kept in bounds here, too. Everything here distrusts the server: a listing ends, an object is in it once, and nothing that it says reaches a message.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::de::DeserializeOwned;

use super::http::{Call, Http, Tokens, private_origin};
use super::{LISTED_OBJECTS, ObjectInfo};
use crate::error::{Error, Kind, Result, Stage};

/// Pages without an entry after which a listing is given up: a server may send some, but not for ever.
const EMPTY_PAGES: usize = 1_000;
/// A file of credentials is a kilobyte.
const CREDENTIALS_BYTES: u64 = 64 << 10;

/// The credentials that an app was given, in JSON. The text of a parser's complaint may quote them, so it is dropped.
pub(super) fn credentials<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let unreadable = || Error::new(Kind::CredentialsMissing, "cloud.credentials_path cannot be read");
    let size = std::fs::metadata(path).map_err(|_| unreadable())?.len();
    if size > CREDENTIALS_BYTES {
        return Err(Error::new(Kind::CredentialsMissing, "the file of cloud.credentials_path is too large to hold credentials"));
    }
    let text = zeroize::Zeroizing::new(std::fs::read(path).map_err(|_| unreadable())?);
    serde_json::from_slice(&text).map_err(|_| {
        Error::new(Kind::CredentialsMissing, "the file of cloud.credentials_path is not the JSON that this provider needs")
            .with_hint("docs/clouds describes the file for each provider")
    })
}

/// The address where tokens are asked for: the provider's, or the one in the file of credentials.
pub(super) fn token_endpoint(named: Option<String>, usual: &str) -> Result<String> {
    let Some(named) = named else { return Ok(usual.to_owned()) };
    private_origin("token_uri in the file of cloud.credentials_path", &named)?;
    Ok(named)
}

/// Sends a request with a token, and once more with a new one if the store does not take the first.
pub(super) async fn authorized(http: &Http, by: &Http, tokens: &Tokens, call: Call) -> Result<super::http::Answer> {
    let answer = by.send(call.clone().header("authorization", tokens.authorization(http).await?)).await?;
    if answer.status != 401 || !tokens.renew().await {
        return Ok(answer);
    }
    by.send(call.header("authorization", tokens.authorization(http).await?)).await
}

/// Refuses names that a drive, a proxy or a URL would take for another place.
pub(super) fn check_parts(name: &str) -> Result<()> {
    if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(unsafe_name("has an empty part, . or .."));
    }
    Ok(())
}

/// An error for a name that the drive does not take.
pub(super) fn unsafe_name(fault: &str) -> Error {
    Error::new(Kind::UnsafePath, format!("the name of an object {fault}")).at(Stage::Transfer)
}

/// A server that says what it cannot mean.
pub(super) fn nonsense(what: &str) -> Error {
    Error::new(Kind::ServerFailed, format!("the store sent {what}"))
}

/// Counts what a listing brings, so that it ends.
#[derive(Default)]
pub(super) struct Pages {
    entries: usize,
    empty: usize,
    seen: HashSet<String>,
}

impl Pages {
    /// Counts a page and checks where the next one is said to be.
    pub fn turn(&mut self, entries: usize, next: Option<&str>) -> Result<()> {
        self.entries = self.entries.saturating_add(entries);
        if self.entries > LISTED_OBJECTS {
            return Err(Error::new(Kind::LimitExceeded, format!("more than {LISTED_OBJECTS} objects")).at(Stage::Transfer));
        }
        self.empty += usize::from(entries == 0 && next.is_some());
        match next {
            Some(next) if self.empty > EMPTY_PAGES || !self.seen.insert(next.to_owned()) => Err(nonsense("a listing without an end")),
            _ => Ok(()),
        }
    }
}

/// The objects of a listing, each of them once.
#[derive(Default)]
pub(super) struct Found(BTreeMap<String, ObjectInfo>);

impl Found {
    /// Adds an object. Two versions under one name are a listing that was overtaken by a change, which another attempt may mend.
    pub fn add(&mut self, object: ObjectInfo) -> Result<()> {
        match self.0.get(&object.name) {
            Some(known) if known.version != object.version => Err(nonsense("two versions of one object")),
            Some(_) => Ok(()),
            None => {
                self.0.insert(object.name.clone(), object);
                Ok(())
            }
        }
    }

    /// All of them, sorted by name.
    pub fn sorted(self) -> Vec<ObjectInfo> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, version: &str) -> ObjectInfo {
        ObjectInfo { name: name.into(), size: 1, version: version.into() }
    }

    #[test]
    fn an_object_is_listed_once() {
        let mut found = Found::default();
        for (name, version) in [("b", "1"), ("a", "1"), ("b", "1")] {
            found.add(object(name, version)).unwrap();
        }
        assert_eq!(found.add(object("a", "2")).unwrap_err().kind(), Kind::ServerFailed);
        assert_eq!(found.sorted(), [object("a", "1"), object("b", "1")]);
    }

    #[test]
    fn a_listing_ends() {
        let mut pages = Pages::default();
        for next in ["a", "b"] {
            pages.turn(1, Some(next)).unwrap();
        }
        assert_eq!(pages.turn(1, Some("a")).unwrap_err().kind(), Kind::ServerFailed, "a page that was there before");
        assert_eq!(pages.turn(LISTED_OBJECTS, None).unwrap_err().kind(), Kind::LimitExceeded);
        let mut pages = Pages::default();
        let turned = (0..2 * EMPTY_PAGES).find_map(|number| pages.turn(0, Some(&number.to_string())).err());
        assert_eq!(turned.unwrap().kind(), Kind::ServerFailed);
        assert!(Pages::default().turn(0, None).is_ok());
    }

    #[test]
    fn a_name_does_not_lead_elsewhere() {
        for name in ["a/../b", ".", "a//b", "/a", "a/", "./a", ""] {
            assert_eq!(check_parts(name).unwrap_err().kind(), Kind::UnsafePath, "{name}");
        }
        for name in ["a", "a/b.c", "..a/b..", "..."] {
            assert!(check_parts(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn credentials_are_read_and_never_quoted() {
        #[derive(serde::Deserialize)]
        struct File {
            client_id: String,
        }
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("app.json");
        for text in ["{\"client_id\": canary}", "{\"canary\": 1}", ""] {
            std::fs::write(&path, text).unwrap();
            let error = credentials::<File>(&path).err().unwrap();
            assert_eq!(error.kind(), Kind::CredentialsMissing);
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        std::fs::write(&path, "{\"client_id\": \"app\", \"else\": 1}").unwrap();
        assert_eq!(credentials::<File>(&path).unwrap().client_id, "app");
        assert_eq!(credentials::<File>(&place.path().join("none")).err().unwrap().kind(), Kind::CredentialsMissing);
    }
}
