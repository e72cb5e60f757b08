//! A strict reader of JSON objects: every error names the key, and nothing is ignored.
//!
//! serde's own errors quote what they met and lose the place inside tagged objects, so a contract is first read as a plain value (with
//! doubled keys refused: JSON parsers disagree about which one counts) and then taken apart key by key. What was not asked for in the end
//! is an unknown key.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Kind, Result};

/// Nesting of a contract that is worth reading; the format itself needs four levels.
const DEPTH: usize = 16;

/// Reads JSON text in which no object has a key twice.
///
/// # Errors
/// [`Kind::ModelContract`] with the line.
pub(super) fn parse(bytes: &[u8]) -> Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: DEPTH }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| Error::new(Kind::ModelContract, format!("not valid json, or a key stands twice, at line {}", error.line())))?;
    Ok(value)
}

/// An error that names a key.
pub(super) fn wrong(key: &str, expected: &str) -> Error {
    Error::new(Kind::ModelContract, format!("{key}: expected {expected}"))
}

/// One object of the contract, with the place where it stands.
pub(super) struct Object<'a> {
    path: String,
    map: &'a Map<String, Value>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Object<'a> {
    /// The object at a place; an error names the place.
    pub(super) fn new(path: &str, value: &'a Value) -> Result<Object<'a>> {
        let map = value.as_object().ok_or_else(|| wrong(if path.is_empty() { "contract" } else { path }, "an object"))?;
        Ok(Object { path: path.to_owned(), map, asked: RefCell::default() })
    }

    /// Full name of a key.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A value that may be absent.
    pub(super) fn optional(&self, key: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key);
        self.map.get(key)
    }

    /// A value that must be there.
    pub(super) fn required(&self, key: &'static str) -> Result<&'a Value> {
        self.optional(key).ok_or_else(|| Error::new(Kind::ModelContract, format!("{}: the key is missing", self.name(key))))
    }

    /// A nested object that must be there.
    pub(super) fn object(&self, key: &'static str) -> Result<Object<'a>> {
        Object::new(&self.name(key), self.required(key)?)
    }

    /// A nested object that may be absent.
    pub(super) fn optional_object(&self, key: &'static str) -> Result<Option<Object<'a>>> {
        self.optional(key).map(|value| Object::new(&self.name(key), value)).transpose()
    }

    /// A list of objects; absent is empty when `least` is 0.
    pub(super) fn objects(&self, key: &'static str, least: usize, most: usize) -> Result<Vec<Object<'a>>> {
        let list = match self.optional(key) {
            None if least == 0 => return Ok(Vec::new()),
            None => return Err(Error::new(Kind::ModelContract, format!("{}: the key is missing", self.name(key)))),
            Some(value) => value.as_array(),
        };
        let list = list
            .filter(|list| (least..=most).contains(&list.len()))
            .ok_or_else(|| wrong(&self.name(key), &format!("a list of {least} to {most} objects")))?;
        list.iter().enumerate().map(|(index, value)| Object::new(&format!("{}[{index}]", self.name(key)), value)).collect()
    }

    /// Text of 1 to 128 characters without control characters: it ends up in results and in the audit log.
    pub(super) fn text(&self, key: &'static str) -> Result<String> {
        text(&self.name(key), self.required(key)?)
    }

    /// One of several words.
    pub(super) fn word<T: Copy>(&self, key: &'static str, words: &[(&str, T)], default: Option<T>) -> Result<T> {
        let value = match (self.optional(key), default) {
            (None, Some(default)) => return Ok(default),
            (None, None) => self.required(key)?,
            (Some(value), _) => value,
        };
        let found = value.as_str().and_then(|word| words.iter().find(|(name, _)| *name == word));
        let list = || words.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found.map(|(_, meaning)| *meaning).ok_or_else(|| wrong(&self.name(key), &format!("one of {}", list())))
    }

    /// A finite number in a range.
    pub(super) fn number(&self, key: &'static str, range: std::ops::RangeInclusive<f64>, default: Option<f64>) -> Result<f64> {
        let value = match (self.optional(key), default) {
            (None, Some(default)) => return Ok(default),
            (None, None) => self.required(key)?,
            (Some(value), _) => value,
        };
        value.as_f64().filter(|number| number.is_finite() && range.contains(number)).ok_or_else(|| {
            let expected =
                if *range.end() == f64::MAX { "a number".into() } else { format!("a number from {} to {}", range.start(), range.end()) };
            wrong(&self.name(key), &expected)
        })
    }

    /// A whole number in a range.
    pub(super) fn whole(&self, key: &'static str, range: std::ops::RangeInclusive<u64>, default: Option<u64>) -> Result<u64> {
        let value = match (self.optional(key), default) {
            (None, Some(default)) => return Ok(default),
            (None, None) => self.required(key)?,
            (Some(value), _) => value,
        };
        let expected = || wrong(&self.name(key), &format!("a whole number from {} to {}", range.start(), range.end()));
        value.as_u64().filter(|number| range.contains(number)).ok_or_else(expected)
    }

    /// Three whole numbers from 1 to 4096: a shape.
    pub(super) fn shape(&self, key: &'static str) -> Result<[usize; 3]> {
        let expected = || wrong(&self.name(key), "three whole numbers from 1 to 4096");
        let list = self.required(key)?.as_array().filter(|list| list.len() == 3).ok_or_else(expected)?;
        let mut shape = [0; 3];
        for (slot, value) in shape.iter_mut().zip(list) {
            *slot = value.as_u64().filter(|n| (1..=4096).contains(n)).and_then(|n| usize::try_from(n).ok()).ok_or_else(expected)?;
        }
        Ok(shape)
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &'static str, least: usize, most: usize) -> Result<Vec<String>> {
        let name = self.name(key);
        let list = self.required(key)?.as_array().filter(|list| (least..=most).contains(&list.len()));
        list.ok_or_else(|| wrong(&name, &format!("a list of {least} to {most} texts")))?.iter().map(|value| text(&name, value)).collect()
    }

    /// Fails when the object has a key that nobody asked for.
    pub(super) fn finish(&self) -> Result<()> {
        let asked = self.asked.borrow();
        match self.map.keys().find(|key| !asked.contains(key.as_str())) {
            None => Ok(()),
            Some(unknown) => {
                let plain: String = unknown.chars().filter(|c| !c.is_control()).take(64).collect();
                let known = asked.iter().copied().collect::<Vec<_>>().join(", ");
                Err(Error::new(Kind::ModelContract, format!("{}: unknown key", self.name(&plain)))
                    .with_hint(format!("known here: {known}")))
            }
        }
    }
}

fn text(name: &str, value: &Value) -> Result<String> {
    let fits = |text: &&str| (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    value.as_str().filter(fits).map(str::to_owned).ok_or_else(|| wrong(name, "text of 1 to 128 characters"))
}

/// Deserializes a value and refuses doubled keys and deep nesting.
struct Strict {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("json")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> std::result::Result<Value, A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom("depth"))?;
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(Strict { depth })? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Value, A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom("depth"))?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(Strict { depth })?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("doubled key"));
            }
        }
        Ok(Value::Object(map))
    }
}
