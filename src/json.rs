//! A strict reader of JSON objects: every error names the key, and nothing is ignored.
//!
//! serde's own errors quote what they met and lose the place inside tagged objects, so a document (a model's contract, a recipe) is first read as a plain value (with
//! doubled keys refused: JSON parsers disagree about which one counts) and then taken apart key by key. What was not asked for in the end
//! is an unknown key.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Kind, Result};

/// Nesting that is worth reading; contracts need four levels.
const DEPTH: usize = 16;

/// Reads JSON text in which no object has a key twice.
///
/// # Errors
/// The given kind, with the line.
pub(crate) fn parse(bytes: &[u8], kind: Kind) -> Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: DEPTH }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| Error::new(kind, format!("not valid json, or a key stands twice, at line {}", error.line())))?;
    Ok(value)
}

/// An error that names a key.
pub(crate) fn wrong(kind: Kind, key: &str, expected: &str) -> Error {
    Error::new(kind, format!("{key}: expected {expected}"))
}

/// One object of a document, with the place where it stands.
pub(crate) struct Object<'a> {
    /// What its errors are.
    kind: Kind,
    path: String,
    map: &'a Map<String, Value>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Object<'a> {
    /// A whole document, which errors call by this name.
    pub(crate) fn root(name: &str, value: &'a Value, kind: Kind) -> Result<Object<'a>> {
        Ok(Object { path: String::new(), ..Object::new(name, value, kind)? })
    }

    /// The object at a place; an error names the place and is of the given kind.
    pub(crate) fn new(path: &str, value: &'a Value, kind: Kind) -> Result<Object<'a>> {
        let map = value.as_object().ok_or_else(|| wrong(kind, path, "an object"))?;
        Ok(Object { kind, path: path.to_owned(), map, asked: RefCell::default() })
    }

    /// An error that names one of the object's keys.
    pub(crate) fn wrong(&self, key: &str, expected: &str) -> Error {
        wrong(self.kind, &self.name(key), expected)
    }

    /// Full name of a key.
    pub(crate) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A value that may be absent.
    pub(crate) fn optional(&self, key: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key);
        self.map.get(key)
    }

    /// A value that must be there.
    pub(crate) fn required(&self, key: &'static str) -> Result<&'a Value> {
        self.optional(key).ok_or_else(|| Error::new(self.kind, format!("{}: the key is missing", self.name(key))))
    }

    /// A nested object that must be there.
    pub(crate) fn object(&self, key: &'static str) -> Result<Object<'a>> {
        Object::new(&self.name(key), self.required(key)?, self.kind)
    }

    /// A nested object that may be absent.
    pub(crate) fn optional_object(&self, key: &'static str) -> Result<Option<Object<'a>>> {
        self.optional(key).map(|value| Object::new(&self.name(key), value, self.kind)).transpose()
    }

    /// A list of objects; absent is empty when `least` is 0.
    pub(crate) fn objects(&self, key: &'static str, least: usize, most: usize) -> Result<Vec<Object<'a>>> {
        let list = match self.optional(key) {
            None if least == 0 => return Ok(Vec::new()),
            None => return Err(Error::new(self.kind, format!("{}: the key is missing", self.name(key)))),
            Some(value) => value.as_array(),
        };
        let list = list
            .filter(|list| (least..=most).contains(&list.len()))
            .ok_or_else(|| self.wrong(key, &format!("a list of {least} to {most} objects")))?;
        list.iter().enumerate().map(|(index, value)| Object::new(&format!("{}[{index}]", self.name(key)), value, self.kind)).collect()
    }

    /// Text of 1 to 128 characters without control characters: it ends up in results and in the audit log.
    pub(crate) fn text(&self, key: &'static str) -> Result<String> {
        text(&self.name(key), self.required(key)?, self.kind)
    }

    /// One of several words.
    pub(crate) fn word<T: Copy>(&self, key: &'static str, words: &[(&str, T)], default: Option<T>) -> Result<T> {
        let value = match (self.optional(key), default) {
            (None, Some(default)) => return Ok(default),
            (None, None) => self.required(key)?,
            (Some(value), _) => value,
        };
        let found = value.as_str().and_then(|word| words.iter().find(|(name, _)| *name == word));
        let list = || words.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found.map(|(_, meaning)| *meaning).ok_or_else(|| self.wrong(key, &format!("one of {}", list())))
    }

    /// A finite number in a range.
    pub(crate) fn number(&self, key: &'static str, range: std::ops::RangeInclusive<f64>, default: Option<f64>) -> Result<f64> {
        let value = match (self.optional(key), default) {
            (None, Some(default)) => return Ok(default),
            (None, None) => self.required(key)?,
            (Some(value), _) => value,
        };
        value.as_f64().filter(|number| number.is_finite() && range.contains(number)).ok_or_else(|| {
            let expected =
                if *range.end() == f64::MAX { "a number".into() } else { format!("a number from {} to {}", range.start(), range.end()) };
            self.wrong(key, &expected)
        })
    }

    /// A whole number in a range.
    pub(crate) fn whole(&self, key: &'static str, range: std::ops::RangeInclusive<u64>, default: Option<u64>) -> Result<u64> {
        let value = match (self.optional(key), default) {
            (None, Some(default)) => return Ok(default),
            (None, None) => self.required(key)?,
            (Some(value), _) => value,
        };
        let expected = || self.wrong(key, &format!("a whole number from {} to {}", range.start(), range.end()));
        value.as_u64().filter(|number| range.contains(number)).ok_or_else(expected)
    }

    /// Three whole numbers from 1 to 4096: a shape.
    pub(crate) fn shape(&self, key: &'static str) -> Result<[usize; 3]> {
        let expected = || self.wrong(key, "three whole numbers from 1 to 4096");
        let list = self.required(key)?.as_array().filter(|list| list.len() == 3).ok_or_else(expected)?;
        let mut shape = [0; 3];
        for (slot, value) in shape.iter_mut().zip(list) {
            *slot = value.as_u64().filter(|n| (1..=4096).contains(n)).and_then(|n| usize::try_from(n).ok()).ok_or_else(expected)?;
        }
        Ok(shape)
    }

    /// A number for all three axes, or three.
    pub(crate) fn per_axis(&self, key: &'static str, range: std::ops::RangeInclusive<f64>) -> Result<[f64; 3]> {
        let expected = || self.wrong(key, &format!("a number or three, each from {} to {}", range.start(), range.end()));
        let number = |value: &Value| value.as_f64().filter(|number| range.contains(number)).ok_or_else(expected);
        match self.required(key)? {
            Value::Array(list) if list.len() == 3 => Ok([number(&list[0])?, number(&list[1])?, number(&list[2])?]),
            value => Ok([number(value)?; 3]),
        }
    }

    /// A list of finite numbers.
    pub(crate) fn numbers(&self, key: &'static str, least: usize, most: usize) -> Result<Vec<f64>> {
        let expected = || self.wrong(key, &format!("a list of {least} to {most} numbers"));
        let list = self.required(key)?.as_array().filter(|list| (least..=most).contains(&list.len())).ok_or_else(expected)?;
        list.iter().map(|value| value.as_f64().filter(|number| number.is_finite()).ok_or_else(expected)).collect()
    }

    /// True or false.
    pub(crate) fn truth(&self, key: &'static str, default: bool) -> Result<bool> {
        self.optional(key).map_or(Ok(default), |value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false")))
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &'static str, least: usize, most: usize) -> Result<Vec<String>> {
        let name = self.name(key);
        let list = self.required(key)?.as_array().filter(|list| (least..=most).contains(&list.len()));
        list.ok_or_else(|| wrong(self.kind, &name, &format!("a list of {least} to {most} texts")))?
            .iter()
            .map(|value| text(&name, value, self.kind))
            .collect()
    }

    /// Fails when the object has a key that nobody asked for.
    pub(crate) fn finish(&self) -> Result<()> {
        let asked = self.asked.borrow();
        match self.map.keys().find(|key| !asked.contains(key.as_str())) {
            None => Ok(()),
            Some(unknown) => {
                let plain: String = unknown.chars().filter(|c| !c.is_control()).take(64).collect();
                let known = asked.iter().copied().collect::<Vec<_>>().join(", ");
                Err(Error::new(self.kind, format!("{}: unknown key", self.name(&plain))).with_hint(format!("known here: {known}")))
            }
        }
    }
}

fn text(name: &str, value: &Value, kind: Kind) -> Result<String> {
    let fits = |text: &&str| (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    value.as_str().filter(fits).map(str::to_owned).ok_or_else(|| wrong(kind, name, "text of 1 to 128 characters"))
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
