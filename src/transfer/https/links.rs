//! What is behind a name: a folder of a web server, or a file of links that somebody signed.
//!
//! A link opens an object to everybody who has it, so links are secrets: the file must be its owner's alone, and no message quotes one. Names are
//! secrets of another kind (people choose them), so a fault is told by the number of the link.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use url::Url;
use zeroize::Zeroizing;

use super::super::http::{encoded_path, keeps_credentials};
use super::super::{LISTED_OBJECTS, secret_file};
use crate::error::{Error, Kind, Result, Stage};

/// Largest file of links; a signed link has about a kilobyte.
const FILE_BYTES: u64 = 64 << 20;
/// Servers that the links of one file may lead to, each of which has connections of its own.
const ORIGINS: usize = 16;

/// Where objects are.
pub(super) enum Links {
    /// Below a URL, with a query that goes with every request.
    Folder { base: String, query: Option<Zeroizing<String>> },
    /// Each behind links of its own, by name.
    Each(BTreeMap<String, Link>),
}

/// The links of one object.
#[derive(Default)]
pub(super) struct Link {
    pub get: Option<Zeroizing<String>>,
    pub head: Option<Zeroizing<String>>,
    pub put: Option<Zeroizing<String>>,
}

impl Links {
    /// A folder, from `cloud.endpoint`.
    pub fn folder(key: &str, text: &str) -> Result<Links> {
        let url = checked(text).ok_or_else(|| Error::new(Kind::ConfigInvalidValue, format!("{key} must be the https URL of a folder")))?;
        let query = url.query().map(|query| Zeroizing::new(query.to_owned()));
        Ok(Links::Folder { base: format!("{}{}", url.origin().ascii_serialization(), url.path().trim_end_matches('/')), query })
    }

    /// What a file says: `{"objects": {"study/header.smp": "https://..."}}`, or `{"folder": "https://..."}`.
    pub fn read(path: &Path) -> Result<Links> {
        let text = secret_file::read(path, secret_file::SETTING, FILE_BYTES)?;
        // The parser's complaint quotes what it does not understand; the position tells enough.
        let file: LinkFile = serde_json::from_str(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Error::new(
                Kind::ConfigInvalidValue,
                format!("the file in cloud.credentials_path is no list of links, line {line} column {column}"),
            )
        })?;
        match (file.folder, file.objects) {
            (Some(folder), None) => Links::folder("folder in the file of cloud.credentials_path", &folder),
            (None, Some(objects)) => Links::each(objects.0),
            _ => Err(wrong("the file in cloud.credentials_path has either objects or folder")),
        }
    }

    fn each(objects: Vec<(String, Entry)>) -> Result<Links> {
        if objects.is_empty() || objects.len() > LISTED_OBJECTS {
            return Err(wrong("the file in cloud.credentials_path has no links, or too many"));
        }
        let mut each = BTreeMap::new();
        for (number, (name, entry)) in objects.into_iter().enumerate() {
            let fault = |what: &str| wrong(&format!("link {} in cloud.credentials_path {what}", number + 1));
            if name.is_empty() || name.starts_with('/') || name.ends_with('/') || name.chars().any(char::is_control) || !is_plain(&name) {
                return Err(fault("has a name that no object can have"));
            }
            let link = match entry {
                Entry::Get(get) => Link { get: Some(Zeroizing::new(get)), ..Link::default() },
                Entry::Each { get, head, put } => {
                    Link { get: get.map(Zeroizing::new), head: head.map(Zeroizing::new), put: put.map(Zeroizing::new) }
                }
            };
            // Sent as it stands, because a signature may cover each character.
            let is_link = |url: &str| url.bytes().all(|byte| byte.is_ascii_graphic()) && checked(url).is_some();
            if link.all().next().is_none() || !link.all().all(is_link) {
                return Err(fault("is not an https URL"));
            }
            if each.insert(name, link).is_some() {
                return Err(fault("has the name of one before it"));
            }
        }
        let links = Links::Each(each);
        if links.origins().len() > ORIGINS {
            return Err(wrong(&format!("the links in cloud.credentials_path lead to more than {ORIGINS} servers")));
        }
        Ok(links)
    }

    /// Every server that there are links to, each once.
    pub fn origins(&self) -> Vec<String> {
        let mut origins: Vec<String> = match self {
            Links::Folder { base, .. } => origin(base).into_iter().collect(),
            Links::Each(each) => each.values().flat_map(Link::all).filter_map(origin).collect(),
        };
        origins.sort();
        origins.dedup();
        origins
    }

    /// The links of an object.
    pub fn of(&self, name: &str) -> Result<Link> {
        match self {
            Links::Folder { base, query } => {
                if !is_plain(name) {
                    return Err(Error::new(Kind::UnsafePath, "the name of an object has an empty part, . or ..").at(Stage::Transfer));
                }
                let query = query.as_ref().map(|query| format!("?{}", query.as_str())).unwrap_or_default();
                let url = Zeroizing::new(format!("{base}/{}{query}", encoded_path(name)));
                Ok(Link { get: Some(url.clone()), head: Some(url), put: None })
            }
            Links::Each(each) => {
                let link = each.get(name).ok_or_else(|| Error::new(Kind::ObjectNotFound, "there is no link to it"))?;
                Ok(Link { get: link.get.clone(), head: link.head.clone(), put: link.put.clone() })
            }
        }
    }
}

impl Link {
    fn all(&self) -> impl Iterator<Item = &str> {
        [&self.get, &self.head, &self.put].into_iter().flatten().map(|url| url.as_str())
    }
}

/// `https://host:port` of a URL, as [`Url`] writes it: without the usual port.
pub(super) fn origin(url: &str) -> Option<String> {
    Url::parse(url).ok().map(|url| url.origin().ascii_serialization())
}

/// A URL that may be asked: encrypted or on this machine, without a user.
fn checked(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    let has_user = !url.username().is_empty() || url.password().is_some();
    (keeps_credentials(text.trim()) && !has_user && url.fragment().is_none()).then_some(url)
}

/// Whether no part of a name is one that servers take for another place.
fn is_plain(name: &str) -> bool {
    name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn wrong(what: &str) -> Error {
    Error::new(Kind::ConfigInvalidValue, what.to_owned()).with_hint("docs/clouds/https.md describes the file")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkFile {
    folder: Option<String>,
    objects: Option<Entries>,
}

/// Names and links in the order of the file, so that a name that comes twice is seen.
struct Entries(Vec<(String, Entry)>);

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Entry {
    Get(String),
    Each { get: Option<String>, head: Option<String>, put: Option<String> },
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Entries, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of links")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn read(text: &str) -> Result<Links> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("links.json");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Links::read(&path)
    }

    #[test]
    fn a_name_goes_before_the_query() {
        for (endpoint, expected) in [
            ("https://files.example/studies/?sv=1&sig=a%2Fb", "https://files.example/studies/a%20b/%C3%A4?sv=1&sig=a%2Fb"),
            ("https://files.example:8443", "https://files.example:8443/a%20b/%C3%A4"),
            ("http://127.0.0.1:9000/x", "http://127.0.0.1:9000/x/a%20b/%C3%A4"),
        ] {
            let links = Links::folder("cloud.endpoint", endpoint).unwrap();
            let link = links.of("a b/ä").unwrap();
            assert_eq!((link.get.unwrap().as_str(), link.head.unwrap().as_str()), (expected, expected));
            assert_eq!(links.of("a/../b").err().unwrap().kind(), Kind::UnsafePath);
        }
        for endpoint in
            ["http://files.example/x", "https://user:canary@files.example", "https://files.example/#canary", "ftp://files.example"]
        {
            let error = Links::folder("cloud.endpoint", endpoint).err().unwrap();
            assert_eq!((error.kind(), error.detail()), (Kind::ConfigInvalidValue, "cloud.endpoint must be the https URL of a folder"));
        }
    }

    #[test]
    fn a_file_lists_links() {
        let links = read(r#"{"objects": {"s/a": "https://one.example/a?sig=1", "s/b": {"get": "https://two.example/b", "put": "https://two.example/p"}}}"#).unwrap();
        assert_eq!(links.of("s/a").unwrap().get.unwrap().as_str(), "https://one.example/a?sig=1");
        assert_eq!(links.of("s/b").unwrap().put.unwrap().as_str(), "https://two.example/p");
        assert_eq!(links.of("s/c").err().unwrap().kind(), Kind::ObjectNotFound);
        assert_eq!(links.origins(), ["https://one.example", "https://two.example"]);
        let folder = read(r#"{"folder": "https://one.example/studies?sig=1"}"#).unwrap();
        assert_eq!(folder.of("x").unwrap().get.unwrap().as_str(), "https://one.example/studies/x?sig=1");
    }

    #[test]
    fn a_file_that_is_no_list_of_links_is_refused_without_quoting_it() {
        for text in [
            "canary",
            "{}",
            r#"{"objects": {}}"#,
            r#"{"objects": {"canary": "http://canary.example"}}"#,
            r#"{"objects": {"canary": "canary"}}"#,
            r#"{"objects": {"canary": " https://canary.example"}}"#,
            r#"{"objects": {"canary": {}}}"#,
            r#"{"objects": {"canary": {"get": "https://x.example", "canary": 1}}}"#,
            r#"{"objects": {"../canary": "https://x.example"}}"#,
            r#"{"objects": {"/canary": "https://x.example"}}"#,
            r#"{"objects": {"a\u0000canary": "https://x.example"}}"#,
            r#"{"objects": {"canary": "https://x.example", "canary": "https://y.example"}}"#,
            r#"{"objects": {"x": "https://x.example"}, "folder": "https://canary.example"}"#,
            r#"{"canary": 1}"#,
        ] {
            let error = read(text).err().expect(text);
            assert_eq!(error.kind(), Kind::ConfigInvalidValue, "{text}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        let many: Vec<String> = (0..17).map(|number| format!("\"{number}\": \"https://{number}.example\"")).collect();
        assert!(read(&format!("{{\"objects\": {{{}}}}}", many.join(","))).is_err());
    }
}
