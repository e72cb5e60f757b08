//! Listings of a Dropbox, whose names have one meaning in any case but several spellings.
//!
//! Dropbox finds a path whatever its case, and promises the right case for the last part of `path_display` only. So a name is put together
//! from the listing itself: each folder's own entry says how the folder is written. What comes before is written as it was asked for, so
//! that nothing of a folder is lost because its owner wrote it otherwise.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::json;

use super::super::http::Doing;
use super::super::listing::{Found, Pages, nonsense};
use super::super::{Attempt, ObjectInfo};
use super::account::{Account, Metadata};
use crate::error::Result;

/// Entries of a page: the most that Dropbox gives.
const PAGE: u32 = 2_000;

#[derive(Deserialize)]
struct Page {
    entries: Vec<Metadata>,
    cursor: String,
    has_more: bool,
}

/// All objects whose name begins with a text.
pub(super) async fn list(account: &Account, prefix: &str) -> Result<Vec<ObjectInfo>> {
    let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = account.path(folder).await?;
    let first = json!({
        "path": path, "recursive": true, "include_deleted": false, "include_mounted_folders": true,
        "include_non_downloadable_files": false, "limit": PAGE,
    });
    let (mut tree, mut pages) = (Tree::default(), Pages::default());
    let mut page: Page = match account.ask(Doing::Listing, "files/list_folder", &first).await? {
        Ok(page) => page,
        // A folder that is not there has no objects, and neither has a file.
        Err(refusal) if !folder.is_empty() && (refusal.says("path/not_found") || refusal.says("path/not_folder")) => return Ok(Vec::new()),
        Err(refusal) => return Err(refusal.error()),
    };
    loop {
        Attempt::current().beat();
        pages.turn(page.entries.len(), page.has_more.then_some(page.cursor.as_str()))?;
        for entry in page.entries {
            tree.add(entry)?;
        }
        if !page.has_more {
            break;
        }
        let next = account.ask(Doing::Listing, "files/list_folder/continue", &json!({ "cursor": page.cursor })).await?;
        page = next.map_err(|refusal| refusal.error())?;
    }
    tree.objects(folder, parts(&path).count(), prefix)
}

/// What a listing says, by paths in lower case.
#[derive(Default)]
struct Tree {
    /// How folders are written, the last part only.
    folders: HashMap<String, String>,
    files: BTreeMap<String, Metadata>,
}

impl Tree {
    /// Takes an entry as Dropbox says (`list_folder`): a deletion undoes what was said before.
    fn add(&mut self, entry: Metadata) -> Result<()> {
        let path = entry.path_lower.clone().filter(|path| path.starts_with('/')).ok_or_else(|| nonsense("an entry without a path"))?;
        match entry.tag.as_deref() {
            Some("folder") => _ = self.folders.insert(path, entry.name),
            Some("deleted") => {
                let below = format!("{path}/");
                self.files.retain(|file, _| *file != path && !file.starts_with(&below));
            }
            Some("file") => match self.files.get(&path) {
                Some(known) if known.rev != entry.rev => return Err(nonsense("two versions of one object")),
                _ => _ = self.files.insert(path, entry),
            },
            _ => {}
        }
        Ok(())
    }

    /// The files as objects: those below `depth` parts, which are written as `folder`.
    fn objects(&self, folder: &str, depth: usize, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let mut found = Found::default();
        for (path, file) in &self.files {
            let mut name = folder.to_owned();
            let mut lower = String::new();
            let count = parts(path).count();
            if count <= depth || file.name.is_empty() {
                return Err(nonsense("an entry from elsewhere"));
            }
            let mut shown = parts(file.path_display.as_deref().unwrap_or(path));
            for (at, part) in parts(path).enumerate() {
                lower.push('/');
                lower.push_str(part);
                let shown = shown.next().unwrap_or(part);
                if at < depth {
                    continue;
                }
                if !name.is_empty() {
                    name.push('/');
                }
                let written = if at + 1 == count { Some(&file.name) } else { self.folders.get(&lower) };
                name.push_str(written.map_or(shown, String::as_str));
            }
            if name.starts_with(prefix) {
                let object = file.object(&name)?;
                found.add(object)?;
            }
        }
        Ok(found.sorted())
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: &str, path: &str, rev: &str) -> Metadata {
        Metadata {
            tag: Some(tag.into()),
            name: path.rsplit('/').next().unwrap().into(),
            path_lower: Some(path.to_lowercase()),
            path_display: Some(path.into()),
            rev: Some(rev.into()),
            size: Some(1),
            content_hash: None,
        }
    }

    fn tree(entries: Vec<Metadata>) -> Result<Tree> {
        let mut tree = Tree::default();
        for entry in entries {
            tree.add(entry)?;
        }
        Ok(tree)
    }

    fn names(tree: &Tree, folder: &str, depth: usize, prefix: &str) -> Vec<String> {
        tree.objects(folder, depth, prefix).unwrap().into_iter().map(|object| object.name).collect()
    }

    #[test]
    fn names_are_written_as_asked_and_then_as_their_folders_say() {
        let tree = tree(vec![
            entry("folder", "/Site/Study/Series", "1"),
            // The parents' case in a file's own path is not to be relied on.
            entry("file", "/SITE/study/SERIES/X.smpp", "1"),
            entry("file", "/site/study/y", "1"),
        ])
        .unwrap();
        assert_eq!(names(&tree, "site/STUDY", 2, "site/STUDY/"), ["site/STUDY/Series/X.smpp", "site/STUDY/y"]);
        assert_eq!(names(&tree, "", 2, ""), ["Series/X.smpp", "y"], "the root is a folder of two parts");
        assert_eq!(names(&tree, "site/STUDY", 2, "site/STUDY/S"), ["site/STUDY/Series/X.smpp"]);
        assert!(tree.objects("a/b/c", 3, "").is_err(), "an entry that is not below the folder asked for");
    }

    #[test]
    fn a_change_on_the_way_is_noticed() {
        assert!(tree(vec![entry("file", "/a", "1"), entry("file", "/A", "2")]).is_err());
        let kept = tree(vec![entry("file", "/a", "1"), entry("file", "/a", "1"), entry("file", "/b/c", "1"), entry("deleted", "/B", "")]);
        assert_eq!(names(&kept.unwrap(), "", 0, ""), ["a"]);
    }
}
