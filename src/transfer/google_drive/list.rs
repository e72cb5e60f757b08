//! Listings of a drive, folder by folder and page by page.
//!
//! Documents of Google's own, shortcuts and what has a slash in its name are left out: they have no bytes, or no name here.

use std::collections::HashSet;

use super::super::ObjectInfo;
use super::super::listing::{Found, Pages, nonsense};
use super::account::{Account, ambiguous, check};
use crate::error::Result;

/// Folders in each other; Drive allows 100.
const DEPTH: usize = 128;

/// All objects whose name begins with a text.
pub(super) async fn list(account: &Account, prefix: &str) -> Result<Vec<ObjectInfo>> {
    let path = prefix.rsplit_once('/').map_or("", |(path, _)| path);
    if !path.is_empty() {
        check(path)?;
    }
    let (mut found, mut pages, mut seen, mut names) = (Found::default(), Pages::default(), HashSet::new(), HashSet::new());
    let mut folders: Vec<_> = account.folders(path).await?.into_iter().map(|id| (id, path.to_owned(), 0)).collect();
    while let Some((id, path, depth)) = folders.pop() {
        if depth > DEPTH || !seen.insert(id.clone()) {
            return Err(nonsense("folders without an end"));
        }
        for item in account.children(&id, "", &mut pages).await? {
            let name = if path.is_empty() { item.name.clone() } else { format!("{path}/{}", item.name) };
            if item.name.contains('/') || check(&name).is_err() {
                continue;
            }
            if item.is_folder() {
                if name.starts_with(prefix) {
                    folders.push((item.id, name, depth + 1));
                }
            } else if item.is_file() && name.starts_with(prefix) {
                if seen.insert(item.id.clone()) && !names.insert(name.clone()) {
                    return Err(ambiguous());
                }
                account.know(&name, &item);
                found.add(item.object(&name)?)?;
            }
        }
    }
    Ok(found.sorted())
}
