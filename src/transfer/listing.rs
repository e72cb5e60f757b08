//! Listings, page by page, of servers that are distrusted: a listing ends, an object is in it once, and nothing that a server says reaches a
//! message.

use std::collections::{BTreeMap, HashSet};

use super::{LISTED_OBJECTS, ObjectInfo};
use crate::error::{Error, Kind, Result, Stage};

/// Pages without an entry after which a listing is given up: a server may send some, but not for ever.
const EMPTY_PAGES: usize = 1_000;

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
}
