//! Values: from text, JSON or numbers to the one text form that is kept, and what is wrong with those that are not allowed.
//!
//! A value is kept as text in canonical form (`true`, `0.5`, `a,b`). An error names the key and what it takes, never the value: people
//! paste secrets into the wrong place.

use zeroize::Zeroizing;

use super::schema::{Allowed, Key, Type};
use crate::error::{Error, Kind, Result};

/// Text of a value. It may be a secret, so it is erased when dropped.
pub(super) type Text = Zeroizing<String>;

/// Longest value: a path has 4,096 bytes, a list of senders some kilobytes.
const LONGEST: usize = 64 << 10;

/// The canonical text of a value given as text. Empty text unsets a text, a path or a list.
pub(super) fn from_text(key: &Key, value: &str) -> Result<Text> {
    if value.len() > LONGEST || value.chars().any(char::is_control) {
        return Err(Error::new(Kind::ConfigInvalidValue, format!("{} is too long or holds control characters", key.name)));
    }
    let value = value.trim();
    let canonical = match key.kind {
        Type::Text | Type::Path => Some(value.to_owned()),
        Type::Integer => value.parse::<i64>().ok().map(|number| number.to_string()),
        Type::Real => value.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number.to_string()),
        Type::Flag => flag(value).map(|flag| flag.to_string()),
        Type::List => Some(items(value).collect::<Vec<_>>().join(",")),
    };
    let canonical = Text::new(canonical.ok_or_else(|| invalid(key))?);
    check(key, &canonical)?;
    Ok(canonical)
}

/// The canonical text of a whole number, for keys that are numbers or flags.
pub(super) fn from_integer(key: &Key, value: i64) -> Result<Text> {
    match key.kind {
        Type::Integer | Type::Real | Type::Flag => from_text(key, &value.to_string()),
        Type::Text | Type::Path | Type::List => Err(invalid(key)),
    }
}

/// The canonical text of a real number, for keys that are real.
pub(super) fn from_real(key: &Key, value: f64) -> Result<Text> {
    match key.kind {
        Type::Real => from_text(key, &value.to_string()),
        _ => Err(invalid(key)),
    }
}

/// Whether a canonical text is one of the values that the key takes.
pub(super) fn check(key: &Key, value: &str) -> Result<()> {
    let is_unset = value.is_empty() && matches!(key.kind, Type::Text | Type::Path | Type::List);
    if is_unset || is_allowed(key.allowed, value) { Ok(()) } else { Err(invalid(key)) }
}

fn is_allowed(allowed: Allowed, value: &str) -> bool {
    let number = || value.parse::<f64>().ok().filter(|number| number.is_finite());
    match allowed {
        Allowed::Any => true,
        Allowed::OneOf(words) => words.contains(&value),
        Allowed::SomeOf(words) => items(value).all(|item| words.contains(&item)),
        Allowed::Between(low, high) => number().is_some_and(|number| (low..=high).contains(&number)),
        Allowed::WholeBetween(low, high) => value.parse::<i64>().is_ok_and(|number| (low..=high).contains(&number)),
        Allowed::AboveZero => number().is_some_and(|number| number > 0.0),
        Allowed::Device => is_device(value),
        Allowed::Shift => {
            value == "patient" || value.strip_prefix("weeks:").is_some_and(|weeks| weeks.parse::<u16>().is_ok_and(|weeks| weeks > 0))
        }
        Allowed::Url => is_url(value),
        Allowed::Digits(count) => value.len() == count && value.bytes().all(|byte| byte.is_ascii_hexdigit()),
        Allowed::Sizes(count) => items(value).count() == count && items(value).all(|item| item.parse::<u32>().is_ok_and(|size| size > 0)),
    }
}

fn is_device(value: &str) -> bool {
    let number = value.strip_prefix("cuda:");
    matches!(value, "auto" | "cpu" | "cuda") || number.is_some_and(|number| number.len() <= 3 && number.parse::<u8>().is_ok())
}

fn is_url(value: &str) -> bool {
    let rest = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace))
}

/// Whether a value is a secret: its key says so, or it is a URL with a password in it.
pub(super) fn is_secret(key: &Key, value: &str) -> bool {
    let authority = value.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    key.secret || (key.allowed == Allowed::Url && authority.is_some_and(|authority| authority.contains('@')))
}

/// A truth value, as people write them.
pub(super) fn flag(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The items of a comma separated list, without the empty ones.
pub(super) fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// The error for a value that a key does not take.
pub(super) fn invalid(key: &Key) -> Error {
    Error::new(Kind::ConfigInvalidValue, format!("{} must be {}", key.name, takes(key)))
}

/// What a key takes, in words.
pub fn takes(key: &Key) -> String {
    let words = |words: &[&str]| words.join(", ");
    match (key.allowed, key.kind) {
        (Allowed::OneOf([word]), _) => (*word).to_owned(),
        (Allowed::OneOf(list), _) => format!("one of {}", words(list)),
        (Allowed::SomeOf(list), _) => format!("a list of {}", words(list)),
        (Allowed::Between(low, high), _) => format!("a number from {low} to {high}"),
        (Allowed::WholeBetween(low, i64::MAX), _) => format!("a whole number of at least {low}"),
        (Allowed::WholeBetween(low, high), _) => format!("a whole number from {low} to {high}"),
        (Allowed::AboveZero, _) => "a number above 0".into(),
        (Allowed::Device, _) => "auto, cpu, cuda or cuda:N".into(),
        (Allowed::Shift, _) => "patient, or weeks:N with N of at least 1".into(),
        (Allowed::Url, _) => "a URL that begins with http:// or https://".into(),
        (Allowed::Digits(count), _) => format!("{count} hex digits"),
        (Allowed::Sizes(count), _) => format!("{count} whole numbers above 0"),
        (Allowed::Any, Type::Text) => "text".into(),
        (Allowed::Any, Type::Path) => "a path".into(),
        (Allowed::Any, Type::Integer) => "a whole number".into(),
        (Allowed::Any, Type::Real) => "a number".into(),
        (Allowed::Any, Type::Flag) => "true or false".into(),
        (Allowed::Any, Type::List) => "a list".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::{KEYS, find};
    use super::*;

    #[test]
    fn every_default_is_allowed_and_canonical() {
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            assert_eq!(from_text(key, key.default).unwrap().as_str(), key.default, "{}", key.name);
        }
    }

    #[test]
    fn a_value_is_taken_or_refused_by_its_type_and_range() {
        for (name, value, expected) in [
            ("threshold", "0.25", Some("0.25")),
            ("threshold", " 1 ", Some("1")),
            ("threshold", "1.01", None),
            ("threshold", "NaN", None),
            ("threshold", "inf", None),
            ("threshold", "", None),
            ("transfer.parallel", "64", Some("64")),
            ("transfer.parallel", "0", None),
            ("transfer.parallel", "8.0", None),
            ("transfer.max_bytes", "9223372036854775808", None),
            ("auto_cleanup", "Yes", Some("true")),
            ("auto_cleanup", "0", Some("false")),
            ("auto_cleanup", "maybe", None),
            ("device", "cuda:0", Some("cuda:0")),
            ("device", "cuda:", None),
            ("device", "cuda:-1", None),
            ("device", "gpu", None),
            ("cloud.endpoint", "https://s3.example.org", Some("https://s3.example.org")),
            ("cloud.endpoint", "s3.example.org", None),
            ("cloud.endpoint", "https:///x", None),
            ("cloud.endpoint", "", Some("")),
            ("output.formats", " json , png,", Some("json,png")),
            ("output.formats", "json,jpeg", None),
            ("inference.window", "96,96,64", Some("96,96,64")),
            ("inference.window", "96,96", None),
            ("inference.window", "96,0,96", None),
            ("preprocess.spacing_mm", "0", None),
            ("deid.project_key", &"0f".repeat(32), Some(&"0f".repeat(32))),
            ("deid.project_key", &"0g".repeat(32), None),
            ("deid.date_shift", "weeks:104", Some("weeks:104")),
            ("deid.date_shift", "weeks:0", None),
            ("deid.date_shift", "104", None),
            ("user_id", "a\nb", None),
            ("workspace", "~/x y", Some("~/x y")),
        ] {
            let canonical = from_text(find(name).unwrap(), value).ok();
            assert_eq!(canonical.as_deref().map(String::as_str), expected, "{name} = {value}");
        }
    }

    #[test]
    fn an_error_names_the_key_and_what_it_takes_but_not_the_value() {
        let refusal = |name: &str| from_text(find(name).unwrap(), "canary").unwrap_err();
        assert_eq!(refusal("threshold").detail(), "threshold must be a number from 0 to 1");
        assert_eq!(refusal("device").detail(), "device must be auto, cpu, cuda or cuda:N");
        assert_eq!(refusal("deid.project_key").detail(), "deid.project_key must be 64 hex digits");
        assert_eq!(refusal("limits.slices").detail(), "limits.slices must be a whole number of at least 1");
    }

    #[test]
    fn a_number_does_not_become_a_text() {
        assert_eq!(from_integer(find("threshold").unwrap(), 1).unwrap().as_str(), "1");
        assert_eq!(from_integer(find("auto_cleanup").unwrap(), 1).unwrap().as_str(), "true");
        assert!(from_integer(find("auto_cleanup").unwrap(), 2).is_err());
        assert!(from_integer(find("user_id").unwrap(), 1).is_err());
        assert!(from_real(find("transfer.retries").unwrap(), 2.0).is_err());
        assert!(from_real(find("threshold").unwrap(), f64::NAN).is_err());
    }
}
