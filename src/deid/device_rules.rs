//! Rules of devices: conditions on the header of an image, and the rectangles of stored pixels in which such a device writes text.
//!
//! Rules are JSON, built in (`tables/device-rules.json`, facts that others have published) or a user's own; docs/de-identification.md says how they are
//! written. What is done with them is said in `burned_in`.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;
use dicom_object::InMemDicomObject;
use serde::Deserialize;

use crate::dicom::Region;
use crate::error::{Error, Kind, Result};

/// Rules that say which devices write text into pixels, and where.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRules {
    /// Where the rules come from; for readers.
    #[serde(default)]
    #[allow(dead_code)]
    provenance: String,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    refuse: Vec<Refusal>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[allow(dead_code)]
    name: String,
    #[serde(default)]
    #[allow(dead_code)]
    source: String,
    when: When,
    /// Left, top, width, height. None at all says that the device writes no text.
    black: Vec<[u32; 4]>,
}

/// A condition under which the whole image may be text: a report, a photographed form, a scanned film.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    name: String,
    #[serde(default)]
    #[allow(dead_code)]
    source: String,
    when: When,
}

/// Patterns of attributes, all of which must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "BTreeMap<String, Pattern>")]
struct When(Vec<(Tag, Vec<String>)>);

/// What a rule says about an attribute: a number, a pattern, or several of which one must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Pattern {
    Number(u32),
    Text(String),
    Texts(Vec<String>),
}

impl TryFrom<BTreeMap<String, Pattern>> for When {
    type Error = &'static str;

    fn try_from(patterns: BTreeMap<String, Pattern>) -> std::result::Result<When, &'static str> {
        if patterns.is_empty() {
            // It would speak for every image.
            return Err("no condition");
        }
        let each = patterns.into_iter().map(|(keyword, pattern)| {
            let tag = StandardDataDictionary.by_name(&keyword).map(|entry| entry.tag()).ok_or("an unknown keyword")?;
            let texts = match pattern {
                Pattern::Number(number) => vec![number.to_string()],
                Pattern::Text(text) => vec![text],
                Pattern::Texts(texts) => texts,
            };
            Ok((tag, texts.into_iter().map(|text| text.trim().to_lowercase()).collect()))
        });
        each.collect::<std::result::Result<_, _>>().map(When)
    }
}

impl When {
    fn holds(&self, header: &Header<'_>) -> bool {
        self.0.iter().all(|(tag, patterns)| header.with(*tag, |text| patterns.iter().any(|pattern| is_like(text, pattern))))
    }
}

/// A header as rules see it: lower-case texts, each worked out once, for there are many rules.
pub(super) struct Header<'a> {
    dataset: &'a InMemDicomObject,
    texts: RefCell<HashMap<Tag, String>>,
}

impl<'a> Header<'a> {
    pub(super) fn new(dataset: &'a InMemDicomObject) -> Header<'a> {
        Header { dataset, texts: RefCell::default() }
    }

    fn with<T>(&self, tag: Tag, use_text: impl FnOnce(&str) -> T) -> T {
        let mut texts = self.texts.borrow_mut();
        use_text(texts.entry(tag).or_insert_with(|| shown(self.dataset, tag).trim().to_lowercase()))
    }
}

/// Whether a text is what a pattern says, in which `*` stands for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let (Some(first), last) = (parts.next(), parts.next_back()) else { return false };
    let (Some(mut rest), Some(last)) = (text.strip_prefix(first), last) else { return text == pattern };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

impl DeviceRules {
    /// Reads rules from JSON (docs/de-identification.md says how they are written).
    pub fn from_json(text: &str) -> Result<DeviceRules> {
        let wrong = |what: String| Error::new(Kind::ConfigInvalidValue, format!("the rules of devices {what}"));
        // A list would be read as the fields in their order.
        if !text.trim_start().starts_with('{') {
            return Err(wrong("are no object".to_owned()));
        }
        // The parser's own message may quote the file.
        serde_json::from_str(text).map_err(|error| wrong(format!("do not parse at line {}, column {}", error.line(), error.column())))
    }

    /// The rules that are built in.
    pub(crate) fn built_in() -> Result<&'static DeviceRules> {
        static RULES: OnceLock<Option<DeviceRules>> = OnceLock::new();
        RULES
            .get_or_init(|| DeviceRules::from_json(include_str!("tables/device-rules.json")).ok())
            .as_ref()
            .ok_or_else(|| Error::new(Kind::Internal, "the built-in rules of devices do not parse"))
    }

    /// Number of rules with regions, and of conditions under which an image is refused.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.rules.len(), self.refuse.len())
    }

    /// The regions that the rules for an image name, `None` where no rule speaks of it.
    pub(super) fn named(&self, header: &Header<'_>) -> Option<Vec<Region>> {
        let mut rules = self.rules.iter().filter(|rule| rule.when.holds(header)).peekable();
        rules.peek()?;
        let region = |[left, top, width, height]: &[u32; 4]| Region { left: *left, top: *top, width: *width, height: *height };
        Some(rules.flat_map(|rule| &rule.black).map(region).collect())
    }

    /// The name of a condition under which the image is refused.
    pub(super) fn refuses(&self, header: &Header<'_>) -> Option<&str> {
        self.refuse.iter().find(|refusal| refusal.when.holds(header)).map(|refusal| refusal.name.as_str())
    }
}

/// The values of an attribute as they are written in a file; of a sequence only whether there are items.
fn shown(dataset: &InMemDicomObject, tag: Tag) -> String {
    let Some(element) = dataset.get(tag) else { return String::new() };
    match element.items() {
        Some(items) => if items.is_empty() { "" } else { "present" }.to_owned(),
        None => element.to_str().map(|text| text.into_owned()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_matched_like_names_of_files() {
        for (text, pattern, holds) in [
            ("siemens", "siemens", true),
            ("siemens healthineers", "siemens", false),
            ("siemens healthineers", "siemens*", true),
            ("ge medical systems", "*medical*", true),
            ("ge medical systems", "*s*s", true),
            ("ab", "ab*b", false),
            ("abb", "a*b*b", true),
            ("", "", true),
            ("x", "", false),
            ("", "*", true),
            ("derived\\primary", "*derived*secondary*", false),
        ] {
            assert_eq!(is_like(text, pattern), holds, "{text} {pattern}");
        }
    }

    #[test]
    fn rules_that_say_nothing_or_something_else_are_refused() {
        for text in [
            "",
            "[]",
            r#"{"rules": [{"name": "a", "when": {}, "black": []}]}"#,
            r#"{"rules": [{"name": "a", "when": {"Manufactuer": "X"}, "black": []}]}"#,
            r#"{"rules": [{"name": "a", "when": {"Manufacturer": "X"}, "black": [[1, 2, 3]]}]}"#,
            r#"{"rules": [{"name": "a", "when": {"Manufacturer": "X"}, "black": [[-1, 2, 3, 4]]}]}"#,
            r#"{"rules": [{"name": "a", "when": {"Manufacturer": "X"}, "blank": []}]}"#,
            r#"{"suspects": []}"#,
        ] {
            let error = DeviceRules::from_json(text).err().unwrap();
            assert!(error.kind() == Kind::ConfigInvalidValue && !error.detail().contains("Manufact"), "{text}: {error}");
        }
    }
}
