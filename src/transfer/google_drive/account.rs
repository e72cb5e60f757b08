//! A drive as version 3 of Google's API shows it: files and folders with ids, found by questions.
//!
//! Drive has no paths, and names in a folder need not differ. A name of an object is walked from the root, folder by folder. Two folders of one
//! name count as one, because two programs that make a folder at the same moment make two; two files of one name are an error, never a
//! choice.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::OnceCell;

use super::super::attempt::Patience;
use super::super::google::credentials;
use super::super::http::{Answer, Call, Doing, Http, Tokens, authorized, encoded, private_origin};
use super::super::listing::{Pages, nonsense};
use super::super::names::{check_parts, unsafe_name};
use super::super::{Address, Attempt, ClientSettings, ObjectInfo, StoreSettings};
use super::errors::Refusal;
use crate::error::{Error, Kind, Result};

/// Google's own address.
const GOOGLE: &str = "https://www.googleapis.com";
/// A narrower scope knows only what the same app made; what is shared with an account limits it better.
const SCOPE: &str = "https://www.googleapis.com/auth/drive";
/// What is asked about each file.
pub(super) const FIELDS: &str = "id,name,mimeType,size,headRevisionId,md5Checksum,sha256Checksum,trashed,driveId";
/// Type of folders.
pub(super) const FOLDER: &str = "application/vnd.google-apps.folder";
/// Types of what has no bytes: documents of Google's own, shortcuts.
const NATIVE: &str = "application/vnd.google-apps.";
/// Folders of one name in one place. More than a few are no accident.
const TWINS: usize = 20;
/// Files whose ids are remembered.
const KNOWN: usize = 100_000;
/// Ids that are asked for at once.
const IDS: usize = 16;

/// A folder of a drive.
pub(super) struct Account {
    pub http: Http,
    tokens: Tokens,
    pub patience: Patience,
    base: String,
    folder: String,
    root: OnceCell<Root>,
    /// Ids for files to come.
    ids: Mutex<Vec<String>>,
    /// Files by name, so that each range need not walk to its file.
    known: Mutex<HashMap<String, Item>>,
    /// Held by whoever makes folders.
    making: tokio::sync::Mutex<()>,
}

/// The folder that is the root.
struct Root {
    id: String,
    /// The shared drive that it belongs to.
    drive: Option<String>,
}

/// What Drive tells about a file or a folder.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    mime_type: String,
    size: Option<String>,
    head_revision_id: Option<String>,
    md5_checksum: Option<String>,
    sha256_checksum: Option<String>,
    #[serde(default)]
    pub trashed: bool,
    drive_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    files: Vec<Item>,
    next_page_token: Option<String>,
    #[serde(default)]
    incomplete_search: bool,
}

#[derive(Deserialize)]
struct Ids {
    ids: Vec<String>,
}

impl Item {
    pub fn is_folder(&self) -> bool {
        self.mime_type == FOLDER
    }

    /// Whether it has bytes.
    pub fn is_file(&self) -> bool {
        !self.mime_type.starts_with(NATIVE)
    }

    pub fn size(&self) -> Option<u64> {
        self.size.as_deref()?.parse().ok()
    }

    /// SHA-256 of the content in hexadecimal digits, where Drive tells it.
    pub fn hash(&self) -> Option<&str> {
        self.sha256_checksum.as_deref()
    }

    /// The head revision, which changes with the content only. Where Drive does not tell it, the content's own sum.
    pub fn version(&self) -> Option<String> {
        match (&self.head_revision_id, &self.md5_checksum, &self.size) {
            (Some(revision), ..) if !revision.is_empty() => Some(revision.clone()),
            (_, Some(sum), Some(size)) => Some(format!("{sum}-{size}")),
            _ => None,
        }
    }

    /// An object, under the name that it was found by.
    pub fn object(&self, name: &str) -> Result<ObjectInfo> {
        let version = self.version().ok_or_else(|| nonsense("an object without a version"))?;
        let size = self.size().ok_or_else(|| nonsense("an object without a size"))?;
        Ok(ObjectInfo { name: name.to_owned(), size, version })
    }
}

/// Ids go into questions and addresses, so they are nothing but letters, digits, `-` and `_`.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A text as questions quote it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Refuses names that cannot be walked to.
pub(super) fn check(name: &str) -> Result<()> {
    check_parts(name)?;
    if name.chars().any(char::is_control) { Err(unsafe_name("has a control character")) } else { Ok(()) }
}

/// Several files of one name. Another attempt may find one that is on its way out gone.
pub(super) fn ambiguous() -> Error {
    Error::new(Kind::ServerFailed, "several files have the name of one object")
        .with_hint("Drive allows that; remove all but one of them in Drive")
}

impl Account {
    pub fn open(store: &StoreSettings, client: &ClientSettings) -> Result<Account> {
        let base = store.endpoint.as_deref().unwrap_or(GOOGLE).trim_end_matches('/');
        private_origin("cloud.endpoint", base)?;
        let folder = store.folder_id.as_deref().unwrap_or("root");
        if !is_id(folder) {
            return Err(Error::new(Kind::ConfigInvalidValue, "cloud.folder_id must be the id of a folder for provider google_drive")
                .with_hint("the id is the last part of the folder's address in a browser"));
        }
        Ok(Account {
            http: Http::open(store, base, client.timeout)?,
            tokens: credentials::find(store, SCOPE)?.ok_or_else(credentials::missing)?.tokens,
            patience: Patience::new(client.retries, client.timeout),
            base: base.to_owned(),
            folder: folder.to_owned(),
            root: OnceCell::new(),
            ids: Mutex::default(),
            known: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        })
    }

    pub fn is_tls(&self) -> bool {
        self.http.place().is_tls()
    }

    pub fn address(&self) -> Address {
        self.http.place().address()
    }

    /// Gets a token, and says from what.
    pub async fn credentials(&self) -> Result<String> {
        self.tokens.authorization(&self.http).await.map(|_| self.tokens.found().to_owned())
    }

    /// Sends a request with a token.
    pub async fn send(&self, doing: Doing, call: Call) -> Result<std::result::Result<Answer, Refusal>> {
        let answer = authorized(&self.http, &self.http, &self.tokens, call).await?;
        if answer.is_success() { Ok(Ok(answer)) } else { Ok(Err(Refusal::of(answer, doing).await)) }
    }

    /// Sends a request and reads its answer; a refusal is an error.
    pub async fn ask<T: DeserializeOwned>(&self, doing: Doing, call: Call) -> Result<T> {
        match self.send(doing, call).await? {
            Ok(answer) => answer.json().await,
            Err(refusal) => Err(refusal.error()),
        }
    }

    /// Address of a file by its id.
    pub fn file(&self, id: &str, query: &str) -> String {
        format!("{}/drive/v3/files/{id}?supportsAllDrives=true&{query}", self.base)
    }

    /// Address where content is sent to: of a file that is there, or of a new one.
    pub fn upload(&self, id: Option<&str>, kind: &str) -> String {
        let id = id.map(|id| format!("/{id}")).unwrap_or_default();
        format!("{}/upload/drive/v3/files{id}?uploadType={kind}&supportsAllDrives=true&fields={FIELDS}", self.base)
    }

    /// What Drive says about an id now.
    pub async fn look(&self, doing: Doing, id: &str) -> Result<Item> {
        self.ask(doing, Call::new("GET", self.file(id, &format!("fields={FIELDS}")))).await
    }

    async fn root(&self) -> Result<&Root> {
        let found = self.root.get_or_try_init(|| async {
            let item = self.look(Doing::Listing, &self.folder).await?;
            if !item.is_folder() || item.trashed || !is_id(&item.id) {
                return Err(Error::new(Kind::ObjectNotFound, ""));
            }
            Ok(Root { id: item.id, drive: item.drive_id.filter(|id| is_id(id)) })
        });
        found.await.map_err(|error| match error.kind() {
            Kind::ObjectNotFound => Error::new(Kind::ObjectNotFound, "there is no folder of the id in cloud.folder_id")
                .with_hint("the folder must be shared with the account of these credentials"),
            _ => error,
        })
    }

    /// The entries of a folder that a question is about, page by page.
    pub async fn children(&self, folder: &str, question: &str, pages: &mut Pages) -> Result<Vec<Item>> {
        let root = self.root().await?;
        let question = format!("{} in parents and {question}trashed = false", quoted(folder));
        // What a member of a shared drive never opened is missing in the answer unless the drive is named.
        let corpus = root.drive.as_ref().map(|drive| format!("&corpora=drive&driveId={drive}")).unwrap_or_default();
        let base = format!(
            "{}/drive/v3/files?supportsAllDrives=true&includeItemsFromAllDrives=true&pageSize=1000&spaces=drive{corpus}\
             &fields=nextPageToken,incompleteSearch,files({FIELDS})&q={}",
            self.base,
            encoded(&question)
        );
        let (mut found, mut token) = (Vec::new(), None::<String>);
        loop {
            let next = token.take().map(|token| format!("&pageToken={}", encoded(&token))).unwrap_or_default();
            let page: Page = match self.ask(Doing::Listing, Call::new("GET", format!("{base}{next}"))).await {
                // The folder went away while its turn came. The root may not.
                Err(error) if error.kind() == Kind::ObjectNotFound && folder != root.id => return Ok(found),
                page => page?,
            };
            Attempt::current().beat();
            if page.incomplete_search {
                return Err(nonsense("a listing of which it says that something is missing"));
            }
            if page.files.iter().any(|item| !is_id(&item.id)) {
                return Err(nonsense("an entry without an id"));
            }
            pages.turn(page.files.len(), page.next_page_token.as_deref())?;
            found.extend(page.files);
            token = page.next_page_token;
            if token.is_none() {
                return Ok(found);
            }
        }
    }
}

/// Walking.
impl Account {
    /// The entries of some folders that have a name: exactly this one, of which Drive's questions are not always so sure.
    async fn named(&self, folders: &[String], name: &str, kind: &str) -> Result<Vec<Item>> {
        let mut found = Vec::new();
        for folder in folders {
            let question = format!("name = {} and mimeType {kind} {} and ", quoted(name), quoted(FOLDER));
            found.extend(self.children(folder, &question, &mut Pages::default()).await?.into_iter().filter(|item| item.name == name));
        }
        Ok(found)
    }

    /// Ids of the folders of one name in some folders, the least first.
    async fn folders_in(&self, folders: &[String], name: &str) -> Result<Vec<String>> {
        let found = self.named(folders, name, "=").await?;
        let mut ids: Vec<String> = found.into_iter().filter(Item::is_folder).map(|item| item.id).collect();
        ids.sort();
        ids.dedup();
        if ids.len() > TWINS { Err(nonsense("too many folders of one name")) } else { Ok(ids) }
    }

    /// Ids of the folders of a path, none if there is none. The empty path is the root.
    pub async fn folders(&self, path: &str) -> Result<Vec<String>> {
        let mut ids = vec![self.root().await?.id.clone()];
        for part in path.split('/').filter(|_| !path.is_empty()) {
            ids = self.folders_in(&ids, part).await?;
        }
        Ok(ids)
    }

    /// The folder that new files of a path go into, made where there is none.
    pub async fn make_folders(&self, path: &str) -> Result<String> {
        // Uploads that begin together would make twins.
        let _turn = self.making.lock().await;
        let mut at = self.root().await?.id.clone();
        let mut ids = vec![at.clone()];
        for part in path.split('/').filter(|_| !path.is_empty()) {
            ids = self.folders_in(&ids, part).await?;
            at = match ids.first() {
                Some(id) => id.clone(),
                None => self.make_folder(&at, part).await?,
            };
            if ids.is_empty() {
                ids.push(at.clone());
            }
        }
        Ok(at)
    }

    async fn make_folder(&self, parent: &str, name: &str) -> Result<String> {
        let folder = json!({ "name": name, "mimeType": FOLDER, "parents": [parent] });
        let url = format!("{}/drive/v3/files?supportsAllDrives=true&fields={FIELDS}", self.base);
        let made: Item = self.ask(Doing::Writing, Call::new("POST", url).json(&folder)).await?;
        if is_id(&made.id) { Ok(made.id) } else { Err(nonsense("a folder without an id")) }
    }

    /// All files of a name.
    pub async fn find_all(&self, name: &str) -> Result<Vec<Item>> {
        check(name)?;
        let (path, last) = name.rsplit_once('/').unwrap_or(("", name));
        let folders = self.folders(path).await?;
        let mut found = self.named(&folders, last, "!=").await?;
        found.retain(Item::is_file);
        found.sort_by(|one, other| one.id.cmp(&other.id));
        found.dedup_by(|one, other| one.id == other.id);
        Ok(found)
    }

    /// The file of a name, if there is one.
    pub async fn find(&self, name: &str) -> Result<Option<Item>> {
        let mut found = self.find_all(name).await?;
        match (found.pop(), found.is_empty()) {
            (Some(_), false) => Err(ambiguous()),
            (Some(item), true) => {
                self.know(name, &item);
                Ok(Some(item))
            }
            (None, _) => Ok(None),
        }
    }

    /// Remembers which file has a name.
    pub fn know(&self, name: &str, item: &Item) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(name.to_owned(), item.clone());
    }

    /// The file that had a name and a version when it was last seen.
    pub fn known(&self, name: &str, version: &str) -> Option<Item> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).filter(|item| item.version().as_deref() == Some(version)).cloned()
    }

    pub fn forget(&self, name: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// An id for a new file, so that sending it twice makes one file.
    pub async fn new_id(&self) -> Result<String> {
        let taken = self.ids.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(id) = taken {
            return Ok(id);
        }
        let url = format!("{}/drive/v3/files/generateIds?count={IDS}&space=drive&type=files", self.base);
        let mut fresh: Ids = self.ask(Doing::Writing, Call::new("GET", url)).await?;
        fresh.ids.truncate(IDS);
        let id = fresh.ids.pop().filter(|id| is_id(id) && fresh.ids.iter().all(|id| is_id(id)));
        let id = id.ok_or_else(|| nonsense("no ids for new files"))?;
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).append(&mut fresh.ids);
        Ok(id)
    }

    /// Moves a file into the bin. Removing it for good takes rights in shared drives that writers do not have.
    pub async fn trash(&self, id: &str) -> Result<()> {
        let call = Call::new("PATCH", self.file(id, "fields=id")).json(&json!({ "trashed": true }));
        match self.send(Doing::Writing, call).await? {
            Err(refusal) if refusal.status != 404 => Err(refusal.error()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_within_its_quotes() {
        // The examples of Google's "Search query terms and operators": a quote and a backslash are escaped.
        assert_eq!(quoted("Valentine's Day"), r"'Valentine\'s Day'");
        assert_eq!(quoted(r"quinn's paper\essay"), r"'quinn\'s paper\\essay'");
    }

    #[test]
    fn an_id_is_nothing_else() {
        assert!(is_id("root") && is_id("1dyUEebJaFnWa3Z4n0BFMVAXQ7mfUH11g") && is_id("0AH-_9PVA"));
        for id in ["", "a/b", "a'", "a?b", "ä", "a b"] {
            assert!(!is_id(id), "{id}");
        }
    }

    #[test]
    fn the_version_is_the_revision_or_the_sum_of_the_content() {
        let item = |text: &str| serde_json::from_str::<Item>(text).unwrap();
        assert_eq!(item(r#"{"id":"i","headRevisionId":"r","md5Checksum":"m","size":"3"}"#).version().as_deref(), Some("r"));
        assert_eq!(item(r#"{"id":"i","md5Checksum":"m","size":"3"}"#).version().as_deref(), Some("m-3"));
        assert!(
            item(r#"{"id":"i","size":"3"}"#).object("x").is_err() && item(r#"{"headRevisionId":"r","size":"-3"}"#).object("x").is_err()
        );
    }
}
