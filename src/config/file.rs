//! The JSON file: read once, checked completely, with no key ignored.
//!
//! Keys may be nested (`{"cloud": {"bucket": "x"}}`), dotted (`{"cloud.bucket": "x"}`) or both. A key that comes twice, in whichever way, is
//! an error, because two readers would pick different ones. `null` leaves a key as it was.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::schema::{KEYS, Key, Type};
use super::value::{Text, from_integer, from_real, from_text, invalid, is_secret};
use super::{Layer, known};
use crate::error::{Error, Kind, Result};

/// Largest configuration file.
const FILE_BYTES: u64 = 1 << 20;

/// Reads a file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Layer>> {
    let unreadable = |detail: &'static str| Error::new(Kind::ConfigUnreadable, detail);
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|_| unreadable("the file cannot be opened"))?,
    };
    // Of the open file, so that nobody changes it between the look and the read.
    let about = file.metadata().map_err(|_| unreadable("the file cannot be looked at"))?;
    if !about.is_file() {
        return Err(unreadable("not a file"));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(|_| unreadable("the file is not UTF-8"))?;
    if text.len() as u64 > FILE_BYTES {
        return Err(unreadable("the file is larger than 1 MiB"));
    }
    let layer = parse(&text)?;
    let has_secrets = KEYS.iter().any(|key| layer.get(key.name).is_some_and(|value| is_secret(key, value)));
    if has_secrets && about.mode() & 0o077 != 0 {
        return Err(Error::new(Kind::ConfigPermissions, format!("mode {:04o}", about.mode() & 0o7777)));
    }
    Ok(Some(layer))
}

/// The settings of a JSON object.
pub(super) fn parse(text: &str) -> Result<Layer> {
    // The parser's own text may quote a value; the position tells enough.
    let node: Node = serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)).map_err(|error| {
        Error::new(Kind::ConfigUnreadable, format!("not valid JSON at line {} column {}", error.line(), error.column()))
    })?;
    let Node::Object(members) = node else { return Err(Error::new(Kind::ConfigUnreadable, "not a JSON object")) };
    let mut layer = Layer::new();
    add_members("", members, &mut layer)?;
    Ok(layer)
}

fn add_members(prefix: &str, members: Vec<(String, Node)>, layer: &mut Layer) -> Result<()> {
    for (name, node) in members {
        let name = format!("{prefix}{name}");
        let is_section = KEYS.iter().any(|key| key.name.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.')));
        match node {
            Node::Object(members) if is_section => add_members(&format!("{name}."), members, layer)?,
            _ if is_section => return Err(Error::new(Kind::ConfigInvalidValue, format!("{name} must be an object of its keys"))),
            node => {
                let key = known(&name)?;
                if let Some(text) = text_of(key, node)?
                    && layer.insert(key.name, text).is_some()
                {
                    return Err(Error::new(Kind::ConfigInvalidValue, format!("{} is set twice", key.name)));
                }
            }
        }
    }
    Ok(())
}

/// The canonical text of a JSON value of the key's type.
fn text_of(key: &'static Key, node: Node) -> Result<Option<Text>> {
    let text = match (key.kind, node) {
        (_, Node::Null) => return Ok(None),
        (Type::Text | Type::Path | Type::List, Node::Text(text)) => from_text(key, &text)?,
        (Type::Flag, Node::Flag(flag)) => from_text(key, if flag { "true" } else { "false" })?,
        (Type::Integer | Type::Real, Node::Whole(number)) => from_integer(key, number)?,
        (Type::Real, Node::Real(number)) => from_real(key, number)?,
        (Type::List, Node::List(nodes)) => {
            let items = nodes.into_iter().map(|node| match node {
                Node::Text(text) if !text.contains(',') => Ok(text),
                Node::Whole(number) => Ok(Text::new(number.to_string())),
                _ => Err(invalid(key)),
            });
            let items: Vec<Text> = items.collect::<Result<_>>()?;
            let items: Vec<&str> = items.iter().map(|item| item.as_str()).collect();
            from_text(key, &items.join(","))?
        }
        _ => return Err(invalid(key)),
    };
    Ok(Some(text))
}

/// JSON that remembers double keys, and erases its texts.
enum Node {
    Null,
    Flag(bool),
    Whole(i64),
    Real(f64),
    Text(Text),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> std::result::Result<Node, E> {
        Ok(Node::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> std::result::Result<Node, E> {
        Ok(Node::Whole(number))
    }

    fn visit_u64<E>(self, number: u64) -> std::result::Result<Node, E> {
        // Too large for any whole key; as a real number it is refused there.
        Ok(i64::try_from(number).map_or(Node::Real(f64::INFINITY), Node::Whole))
    }

    fn visit_f64<E>(self, number: f64) -> std::result::Result<Node, E> {
        Ok(Node::Real(number))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Node, E> {
        Ok(Node::Text(Text::new(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> std::result::Result<Node, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Node::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn parsed(text: &str) -> std::result::Result<Vec<(&'static str, String)>, (Kind, String)> {
        let layer = parse(text).map_err(|error| (error.kind(), error.detail().to_owned()))?;
        Ok(layer.iter().map(|(name, value)| (*name, value.to_string())).collect())
    }

    #[test]
    fn nested_and_dotted_keys_are_the_same() {
        let expected = Ok(vec![("cloud.bucket", "b".to_owned()), ("cloud.region", "r".to_owned()), ("threshold", "0.25".to_owned())]);
        for text in [
            r#"{"cloud": {"bucket": "b", "region": "r"}, "threshold": 0.25}"#,
            r#"{"cloud.bucket": "b", "cloud.region": "r", "threshold": 0.25}"#,
            r#"{"cloud": {"bucket": "b"}, "cloud.region": "r", "threshold": 0.25, "user_id": null}"#,
        ] {
            assert_eq!(parsed(text), expected);
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_an_error_whichever_way() {
        for text in [
            r#"{"user_id": "a", "user_id": "a"}"#,
            r#"{"cloud": {"bucket": "a", "bucket": "b"}}"#,
            r#"{"cloud": {"bucket": "a"}, "cloud.bucket": "b"}"#,
            r#"{"cloud": {"bucket": "a"}, "cloud": {"bucket": "b"}}"#,
        ] {
            assert!(matches!(parsed(text), Err((Kind::ConfigInvalidValue, detail)) if detail.ends_with("is set twice")), "{text}");
        }
    }

    #[test]
    fn a_value_must_have_the_type_of_its_key() {
        for (text, detail) in [
            (r#"{"threshold": "0.5"}"#, "threshold must be a number from 0 to 1"),
            (r#"{"threshold": 1e999}"#, ""),
            (r#"{"transfer": {"parallel": 8.5}}"#, "transfer.parallel must be a whole number from 1 to 64"),
            (r#"{"transfer": {"parallel": true}}"#, "transfer.parallel must be a whole number from 1 to 64"),
            (r#"{"transfer.max_bytes": 18446744073709551615}"#, "transfer.max_bytes must be a whole number of at least 1"),
            (r#"{"auto_cleanup": 1}"#, "auto_cleanup must be true or false"),
            (r#"{"user_id": 7}"#, "user_id must be text"),
            (r#"{"user_id": {"x": 7}}"#, "user_id must be text"),
            (r#"{"cloud": "s3"}"#, "cloud must be an object of its keys"),
            (r#"{"output.formats": ["json,npy"]}"#, "output.formats must be a list of json, npy, nifti, png, seg, sr, dicom"),
            (r#"{"inference.window": [96, 96]}"#, "inference.window must be 3 whole numbers above 0"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(detail.is_empty() || error == (Kind::ConfigInvalidValue, detail.to_owned()), "{error:?}");
        }
        assert_eq!(parsed(r#"{"inference.window": [96, 96, 64]}"#).unwrap(), [("inference.window", "96,96,64".to_owned())]);
        assert_eq!(parsed(r#"{"output": {"formats": ["json", "png"]}}"#).unwrap(), [("output.formats", "json,png".to_owned())]);
    }

    #[test]
    fn broken_json_is_located_and_not_quoted() {
        for text in
            ["{\n\"cloud.access_token\": \"canary", "{\"user_id\": canary}", "[]", "\"canary\"", "", "{} canary", &"[".repeat(100_000)]
        {
            let (kind, detail) = parsed(text).unwrap_err();
            assert_eq!(kind, Kind::ConfigUnreadable);
            assert!(!detail.contains("canary"), "{detail}");
        }
        assert_eq!(parsed("{\n\"x\" 1}").unwrap_err().1, "not valid JSON at line 2 column 5");
    }

    #[test]
    fn a_file_with_secrets_is_for_its_owner_only() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("config.json");
        let read_with = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read(&path).map(|layer| layer.unwrap().len()).map_err(|error| (error.kind(), error.detail().to_owned()))
        };
        let secret = format!(r#"{{"deid": {{"project_key": "{}"}}}}"#, "ab".repeat(32));
        assert_eq!(read_with(&secret, 0o600), Ok(1));
        for mode in [0o640, 0o604, 0o644] {
            assert_eq!(read_with(&secret, mode), Err((Kind::ConfigPermissions, format!("mode {mode:04o}"))));
        }
        assert_eq!(read_with(r#"{"user_id": "me", "cloud.proxy": "http://proxy:3128/@"}"#, 0o644), Ok(2));
        assert_eq!(read_with(r#"{"cloud.proxy": "http://me:word@proxy:3128"}"#, 0o644).unwrap_err().0, Kind::ConfigPermissions);
        assert_eq!(read(place.path()).unwrap_err().kind(), Kind::ConfigUnreadable);
        assert!(read(&place.path().join("none")).unwrap().is_none());
    }
}
