//! Listings of a drive, folder by folder and page by page.
//!
//! Graph lists the children of one folder; folders below are listed in turn. A shortcut to a folder of another drive is left out: what is
//! behind it cannot be addressed by its path. Such a folder is named by `cloud.bucket` and `cloud.folder_id`.

use std::collections::HashSet;

use serde::Deserialize;

use super::super::http::Doing;
use super::super::listing::{Found, Pages, nonsense};
use super::super::{Attempt, ObjectInfo};
use super::graph::{Drive, Item};
use super::names;
use crate::error::{Error, Kind, Result};

/// What is asked about each child.
const FIELDS: &str = "$top=1000&$select=id,name,size,cTag,eTag,file,folder";
/// Folders in each other. OneDrive's paths have 400 characters, so there are fewer.
const DEPTH: usize = 400;

#[derive(Deserialize)]
struct Page {
    value: Vec<Item>,
    #[serde(rename = "@odata.nextLink")]
    next: Option<String>,
}

/// All objects whose name begins with a text.
pub(super) async fn list(drive: &Drive, prefix: &str) -> Result<Vec<ObjectInfo>> {
    let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    if !folder.is_empty() {
        names::check(folder)?;
    }
    let item = match drive.ask::<Item>(Doing::Listing, &format!("{}?$select=id,folder", drive.item(folder))).await? {
        Some(item) => item,
        None if folder.is_empty() => {
            return Err(Error::new(Kind::ObjectNotFound, "there is no drive or folder of the id in cloud.bucket or cloud.folder_id"));
        }
        None => return Ok(Vec::new()),
    };
    let (mut found, mut pages, mut seen) = (Found::default(), Pages::default(), HashSet::new());
    let mut folders = Vec::new();
    if item.folder.is_some() {
        folders.push((item.id, folder.to_owned(), 0));
    }
    while let Some((id, folder, depth)) = folders.pop() {
        if id.is_empty() || depth > DEPTH || !seen.insert(id.clone()) {
            return Err(nonsense("folders without an end"));
        }
        let mut next = Some(format!("{}/children?{FIELDS}", drive.by_id(&id)));
        while let Some(url) = next.take() {
            let page = drive.ask::<Page>(Doing::Listing, &url).await?;
            // The folder went away while its turn came.
            let Some(page) = page else { break };
            Attempt::current().beat();
            pages.turn(page.value.len(), page.next.as_deref())?;
            for item in page.value {
                let name = child(&folder, &item.name)?;
                if item.folder.is_some() {
                    folders.push((item.id, name, depth + 1));
                } else if item.file.is_some() && name.starts_with(prefix) {
                    found.add(item.object(&name)?)?;
                }
            }
            next = page.next.map(|url| drive.checked_page(url)).transpose()?;
        }
    }
    Ok(found.sorted())
}

fn child(folder: &str, name: &str) -> Result<String> {
    match name {
        "" | "." | ".." => Err(nonsense("an entry without a name")),
        name if name.contains('/') => Err(nonsense("an entry from elsewhere")),
        name if folder.is_empty() => Ok(name.to_owned()),
        name => Ok(format!("{folder}/{name}")),
    }
}
