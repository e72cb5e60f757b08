//! Google Drive in memory, after Google's public description of version 3 of its API: strict where the real one is, and failing where a test
//! asks for it.
#![allow(dead_code, clippy::result_large_err)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::body::Bytes;
use hyper::{Request, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http_server::{HttpServer, empty, json as answer, ranged, ranged_body};

/// Type of folders.
pub const FOLDER: &str = "application/vnd.google-apps.folder";
/// What a file is unless a test says otherwise.
pub const BINARY: &str = "application/octet-stream";

/// The service, with one person's drive and what others share.
pub struct GoogleDriveServer {
    pub http: HttpServer,
    state: Arc<Mutex<State>>,
}

/// What lies in the drive, and what is to go wrong.
#[derive(Default)]
pub struct State {
    /// By id.
    pub files: BTreeMap<String, Stored>,
    sessions: BTreeMap<String, Session>,
    pages: BTreeMap<String, Vec<Value>>,
    ids: Vec<String>,
    count: u64,
    /// Tokens that are good.
    pub tokens: Vec<String>,
    /// Public key of the service account that is known.
    pub public_key: Vec<u8>,
    /// Refresh token that is good.
    pub refresh: String,
    /// By method and part of the address, decoded: what happens to the next request of it.
    pub faults: VecDeque<(&'static str, &'static str, Fault)>,
    /// Method and address of each request.
    pub seen: Vec<String>,
    /// How often a token was asked for.
    pub grants: usize,
    /// Entries of a page.
    pub page: usize,
    /// Whether listings say that something is missing.
    pub is_incomplete: bool,
    /// The token of every next page, if it is always the same.
    pub next_page: Option<String>,
    /// Fields that the service never tells.
    pub untold: Vec<&'static str>,
    url: String,
}

/// A file or a folder.
#[derive(Clone)]
pub struct Stored {
    pub name: String,
    pub parent: String,
    pub mime: String,
    /// Empty for what has none.
    pub bytes: Vec<u8>,
    pub revision: u64,
    pub trashed: bool,
    /// Shared drive that it belongs to.
    pub drive: Option<String>,
}

struct Session {
    /// The file that gets new content; a new one has its description.
    id: Option<String>,
    about: Value,
    bytes: Vec<u8>,
    done: Option<Value>,
}

/// What goes wrong.
pub enum Fault {
    /// The request is answered so and does nothing.
    Answer(Response<Bytes>),
    /// The request does its work, and its answer is lost to a 500.
    Lost,
    /// A file gets other content before the request is answered.
    Overtaken(&'static str),
    /// A file of that path appears before the request is answered.
    Appears(&'static str),
    /// A session takes this much of what it is sent, and says so.
    Partial(usize),
    /// What is stored is not what was sent.
    Garbled,
}

/// An error as Google says it.
pub fn error(status: u16, reason: &str) -> Response<Bytes> {
    let errors = json!([{ "domain": "global", "reason": reason, "message": "canary" }]);
    answer(status, &json!({ "error": { "code": status, "message": "canary", "errors": errors } }))
}

type Outcome = Result<Response<Bytes>, Response<Bytes>>;

fn invalid() -> Response<Bytes> {
    error(400, "invalid")
}

fn missing() -> Response<Bytes> {
    error(404, "notFound")
}

impl GoogleDriveServer {
    pub fn start() -> GoogleDriveServer {
        let state = State { tokens: vec!["good-token".into()], page: 1_000, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let served = Arc::clone(&state);
        let http = HttpServer::start(move |request| served.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).serve(request));
        let server = GoogleDriveServer { http, state };
        server.state().url = server.http.endpoint.clone();
        let root = Stored {
            name: "My Drive".into(),
            parent: String::new(),
            mime: FOLDER.into(),
            bytes: Vec::new(),
            revision: 0,
            trashed: false,
            drive: None,
        };
        server.state().files.insert("0AROOT".into(), root);
        server
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Upload sessions that are open.
    pub fn sessions(&self) -> usize {
        self.state().sessions.values().filter(|session| session.done.is_none()).count()
    }
}

/// What tests do and see, beside the service.
impl State {
    /// Adds an entry to a folder, whatever is there already; answers its id.
    pub fn add(&mut self, parent: &str, name: &str, mime: &str, bytes: &[u8]) -> String {
        self.count += 1;
        let id = format!("id-{:05}", self.count);
        let drive = self.files.get(parent).and_then(|folder| folder.drive.clone());
        let entry = Stored {
            name: name.into(),
            parent: parent.into(),
            mime: mime.into(),
            bytes: bytes.to_vec(),
            revision: self.count,
            trashed: false,
            drive,
        };
        self.files.insert(id.clone(), entry);
        id
    }

    /// Adds a shared drive; answers its id, which is its root's too.
    pub fn add_drive(&mut self, id: &str) {
        let root = Stored { drive: Some(id.into()), name: "Drive".into(), ..self.files["0AROOT"].clone() };
        self.files.insert(id.into(), root);
    }

    /// Adds a file by its path below a folder, with the folders on the way; answers its id.
    pub fn write(&mut self, root: &str, path: &str, bytes: &[u8]) -> String {
        let (mut at, mut rest) = (root.to_owned(), path);
        while let Some((part, below)) = rest.split_once('/') {
            let found = self.files.iter().find(|(_, file)| file.parent == at && file.name == part && !file.trashed && file.mime == FOLDER);
            at = match found {
                Some((id, _)) => id.clone(),
                None => self.add(&at.clone(), part, FOLDER, b""),
            };
            rest = below;
        }
        self.add(&at, rest, BINARY, bytes)
    }

    /// Ids of the files of a name that are not in the bin.
    pub fn named(&self, name: &str) -> Vec<String> {
        self.files.iter().filter(|(_, file)| file.name == name && !file.trashed).map(|(id, _)| id.clone()).collect()
    }

    /// Gives a file other content, as another program would.
    pub fn overwrite(&mut self, id: &str, bytes: &[u8]) {
        self.count += 1;
        let revision = self.count;
        let file = self.files.get_mut(id).unwrap();
        (file.bytes, file.revision) = (bytes.to_vec(), revision);
    }

    /// Whether an entry or a folder above it is in the bin.
    fn is_trashed(&self, id: &str) -> bool {
        self.files.get(id).is_some_and(|file| file.trashed || self.is_trashed(&file.parent))
    }

    fn shown(&self, id: &str, fields: &str) -> Value {
        let file = &self.files[id];
        let mut shown = json!({ "id": id, "name": file.name, "mimeType": file.mime, "trashed": self.is_trashed(id) });
        if let Some(drive) = &file.drive {
            shown["driveId"] = json!(drive);
        }
        if !file.mime.starts_with("application/vnd.google-apps.") {
            shown["size"] = json!(file.bytes.len().to_string());
            shown["headRevisionId"] = json!(format!("rev-{}", file.revision));
            shown["md5Checksum"] = json!(format!("sum-{}", file.revision));
            shown["sha256Checksum"] = json!(Sha256::digest(&file.bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
        let object = shown.as_object_mut().unwrap();
        object.retain(|key, _| fields.split(',').any(|field| field == key) && !self.untold.contains(&key.as_str()));
        shown
    }
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

/// The value between the quotes at the beginning, and what follows.
fn unquoted(text: &str) -> Result<(String, &str), Response<Bytes>> {
    let mut value = String::new();
    let mut rest = text.strip_prefix('\'').ok_or_else(invalid)?.char_indices();
    while let Some((at, character)) = rest.next() {
        match character {
            '\'' => return Ok((value, &text[at + 2..])),
            '\\' => match rest.next() {
                Some((_, escaped @ ('\\' | '\''))) => value.push(escaped),
                _ => return Err(invalid()),
            },
            character => value.push(character),
        }
    }
    Err(invalid())
}

struct Query(BTreeMap<String, String>);

impl Query {
    fn of(request: &Request<Bytes>) -> Result<Query, Response<Bytes>> {
        let pairs = request.uri().query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs: Option<_> = pairs.map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), decoded(value)))).collect();
        pairs.map(Query).ok_or_else(invalid)
    }

    /// Google refuses parameters that it does not know.
    fn only(&self, known: &[&str]) -> Result<(), Response<Bytes>> {
        if self.0.keys().all(|key| known.contains(&key.as_str())) { Ok(()) } else { Err(error(400, "invalidParameter")) }
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }
}

/// The service.
impl State {
    fn serve(&mut self, request: Request<Bytes>) -> Response<Bytes> {
        let (method, target) = (request.method().to_string(), decoded(&request.uri().to_string()));
        if target == "/token" {
            return self.grant(&request);
        }
        self.seen.push(format!("{method} {target}"));
        let is_meant = |(of, part, _): &(&str, &str, Fault)| *of == method && target.contains(part);
        let fault = self.faults.iter().position(is_meant).and_then(|at| self.faults.remove(at));
        let mut request = request;
        match fault {
            Some((_, _, Fault::Answer(answer))) => return answer,
            Some((_, _, Fault::Overtaken(name))) => {
                for id in self.named(name) {
                    self.overwrite(&id, b"by somebody else");
                }
            }
            Some((_, _, Fault::Appears(path))) => {
                self.write("0AROOT", path, b"by somebody else");
            }
            Some((_, _, Fault::Lost)) => {
                let _ = self.route(&request);
                return empty(500);
            }
            Some((_, _, Fault::Partial(taken))) => {
                let range = request.headers()["content-range"].to_str().unwrap().to_owned();
                let first: usize = range.trim_start_matches("bytes ").split('-').next().unwrap().parse().unwrap();
                let range = format!("bytes {first}-{}/*", first + taken - 1);
                request.headers_mut().insert("content-range", range.parse().unwrap());
                *request.body_mut() = request.body().slice(..taken);
            }
            Some((_, _, Fault::Garbled)) => {
                let mut body = request.body().to_vec();
                let at = body.len() / 2;
                body[at] ^= 1;
                *request.body_mut() = body.into();
            }
            None => {}
        }
        self.route(&request).unwrap_or_else(|refusal| refusal)
    }

    /// The token endpoint: a person's refresh token, or an assertion whose signature, audience and times are checked.
    fn grant(&mut self, request: &Request<Bytes>) -> Response<Bytes> {
        assert_eq!(request.headers()["content-type"], "application/x-www-form-urlencoded");
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        let field = |name: &str| body.split('&').find_map(|field| field.strip_prefix(&format!("{name}="))).map(decoded);
        let is_good = match field("grant_type").as_deref() {
            Some("refresh_token") => {
                field("refresh_token").as_ref() == Some(&self.refresh) && field("client_secret").as_deref() == Some("good=secret")
            }
            Some("urn:ietf:params:oauth:grant-type:jwt-bearer") => field("assertion").is_some_and(|text| self.is_assertion(&text)),
            _ => false,
        };
        if !is_good {
            return answer(400, &json!({ "error": "invalid_grant", "error_description": "canary" }));
        }
        self.grants += 1;
        self.tokens = vec![format!("fetched-{}", self.grants)];
        answer(200, &json!({ "access_token": self.tokens[0], "token_type": "Bearer", "expires_in": 3_599 }))
    }

    fn is_assertion(&self, text: &str) -> bool {
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key);
        let (header, claims) = signed.split_once('.').unwrap();
        let header: Value = serde_json::from_slice(&bytes(header)).unwrap();
        let claims: Value = serde_json::from_slice(&bytes(claims)).unwrap();
        key.verify(signed.as_bytes(), &bytes(signature)).is_ok()
            && header["alg"] == "RS256"
            && claims["aud"] == format!("{}/token", self.url)
            && claims["scope"] == "https://www.googleapis.com/auth/drive"
            && claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 3_600
    }

    fn route(&mut self, request: &Request<Bytes>) -> Outcome {
        let (method, path, query) = (request.method().as_str(), request.uri().path().to_owned(), Query::of(request)?);
        if path == "/upload/session" {
            return self.session(request, query.get("upload_id"));
        }
        let token = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !token.strip_prefix("Bearer ").is_some_and(|token| self.tokens.iter().any(|good| good == token)) {
            return Err(error(401, "authError"));
        }
        if let Some(id) = path.strip_prefix("/upload/drive/v3/files") {
            query.only(&["uploadType", "supportsAllDrives", "fields"])?;
            return match (method, id.strip_prefix('/')) {
                ("POST", None) => self.upload(request, &query, None),
                ("PATCH", Some(id)) => {
                    let id = self.resolved(id, &query)?;
                    self.upload(request, &query, Some(id))
                }
                _ => Err(invalid()),
            };
        }
        let id = path.strip_prefix("/drive/v3/files").ok_or_else(missing)?;
        match (method, id.trim_start_matches('/')) {
            ("GET", "") => self.list(&query),
            ("POST", "") => {
                query.only(&["supportsAllDrives", "fields"])?;
                let about: Value = serde_json::from_slice(request.body()).map_err(|_| invalid())?;
                let id = self.create(&about, Vec::new(), &query)?;
                Ok(answer(200, &self.shown(&id, query.get("fields"))))
            }
            ("GET", "generateIds") => {
                query.only(&["count", "space", "type"])?;
                let count: usize = query.get("count").parse().map_err(|_| invalid())?;
                let fresh: Vec<String> = (0..count.min(1_000)).map(|_| self.next("made")).collect();
                self.ids.extend(fresh.clone());
                Ok(answer(200, &json!({ "ids": fresh, "space": "drive", "kind": "drive#generatedIds" })))
            }
            ("GET", id) => {
                query.only(&["supportsAllDrives", "fields", "alt"])?;
                let id = self.resolved(id, &query)?;
                if query.get("alt") != "media" {
                    return Ok(answer(200, &self.shown(&id, query.get("fields"))));
                }
                let file = &self.files[&id];
                if file.mime.starts_with("application/vnd.google-apps.") {
                    return Err(error(403, "fileNotDownloadable"));
                }
                Ok(ranged(request, &file.bytes).body(ranged_body(request, &file.bytes)).unwrap())
            }
            ("PATCH", id) => {
                query.only(&["supportsAllDrives", "fields"])?;
                let id = self.resolved(id, &query)?;
                let about: Value = serde_json::from_slice(request.body()).map_err(|_| invalid())?;
                self.files.get_mut(&id).unwrap().trashed = about["trashed"].as_bool().ok_or_else(invalid)?;
                Ok(answer(200, &self.shown(&id, query.get("fields"))))
            }
            _ => Err(invalid()),
        }
    }

    fn next(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}-{:05}", self.count)
    }

    /// A file that exists and that the query may see.
    fn resolved(&self, id: &str, query: &Query) -> Result<String, Response<Bytes>> {
        let id = if id == "root" { "0AROOT" } else { id };
        let file = self.files.get(id).ok_or_else(missing)?;
        let is_seen = file.drive.is_none() || query.get("supportsAllDrives") == "true";
        if is_seen { Ok(id.to_owned()) } else { Err(missing()) }
    }

    /// Puts a new file into its folder.
    fn create(&mut self, about: &Value, bytes: Vec<u8>, query: &Query) -> Result<String, Response<Bytes>> {
        let parent = match about["parents"].as_array().map(Vec::as_slice) {
            Some([parent]) => parent.as_str().ok_or_else(invalid)?,
            _ => return Err(invalid()),
        };
        let parent = self.resolved(parent, query)?;
        let id = match about["id"].as_str() {
            Some(id) if self.files.contains_key(id) => return Err(error(409, "fileIdInUse")),
            Some(id) if !self.ids.iter().any(|given| given == id) => return Err(invalid()),
            Some(id) => id.to_owned(),
            None => self.next("id"),
        };
        let (name, mime) = (about["name"].as_str().ok_or_else(invalid)?, about["mimeType"].as_str().ok_or_else(invalid)?);
        let drive = self.files[&parent].drive.clone();
        self.count += 1;
        let file = Stored { name: name.into(), parent, mime: mime.into(), bytes, revision: self.count, trashed: false, drive };
        self.files.insert(id.clone(), file);
        Ok(id)
    }

    /// `'ID' in parents and [name = '…' and mimeType = '…' and ]trashed = false`: what the driver asks, strictly.
    fn list(&mut self, query: &Query) -> Outcome {
        let known =
            ["q", "fields", "pageSize", "pageToken", "spaces", "corpora", "driveId", "supportsAllDrives", "includeItemsFromAllDrives"];
        query.only(&known)?;
        let (parent, rest) = unquoted(query.get("q"))?;
        let mut rest = rest.strip_prefix(" in parents and ").ok_or_else(invalid)?;
        let mut named = None;
        if let Some(text) = rest.strip_prefix("name = ") {
            let (name, text) = unquoted(text)?;
            let text = text.strip_prefix(" and mimeType ").ok_or_else(invalid)?;
            let (is_equal, text) = text
                .strip_prefix("= ")
                .map(|text| (true, text))
                .or_else(|| Some((false, text.strip_prefix("!= ")?)))
                .ok_or_else(invalid)?;
            let (mime, text) = unquoted(text)?;
            named = Some((name, is_equal, mime));
            rest = text.strip_prefix(" and ").ok_or_else(invalid)?;
        }
        if rest != "trashed = false" || query.get("spaces") != "drive" {
            return Err(invalid());
        }
        let parent = self.resolved(&parent, query)?;
        // What a member of a shared drive did not open is not in the corpus of a person.
        let drive = self.files[&parent].drive.clone();
        let is_seen = drive.as_deref().is_none_or(|drive| {
            query.get("corpora") == "drive" && query.get("driveId") == drive && query.get("includeItemsFromAllDrives") == "true"
        });
        let fields = query.get("fields").split_once("files(").and_then(|(_, fields)| fields.split(')').next()).ok_or_else(invalid)?;
        let entries: Vec<Value> = match query.get("pageToken") {
            "" => {
                // Names are compared without regard to case, as a question may; whoever asks must look.
                let is_meant = |file: &Stored| match &named {
                    Some((name, is_equal, mime)) => file.name.to_lowercase() == name.to_lowercase() && (file.mime == *mime) == *is_equal,
                    None => true,
                };
                let meant = |(id, file): &(&String, &Stored)| file.parent == parent && is_meant(file) && !self.is_trashed(id) && is_seen;
                self.files.iter().filter(meant).map(|(id, _)| self.shown(id, fields)).collect()
            }
            token => self.pages.get(token).cloned().ok_or_else(invalid)?,
        };
        let size = self.page.min(query.get("pageSize").parse().map_err(|_| invalid())?);
        let (page, rest) = entries.split_at(size.min(entries.len()));
        let mut shown = json!({ "files": page, "incompleteSearch": self.is_incomplete });
        if !rest.is_empty() {
            let token = self.next_page.clone().unwrap_or_else(|| self.next("page/&="));
            shown["nextPageToken"] = json!(token);
            self.pages.insert(token, rest.to_vec());
        }
        Ok(answer(200, &shown))
    }
}

/// Uploads.
impl State {
    fn publish(&mut self, id: Option<&str>, about: &Value, bytes: Vec<u8>, query: &Query) -> Result<String, Response<Bytes>> {
        match id {
            None => self.create(about, bytes, query),
            Some(id) => {
                self.overwrite(id, &bytes);
                Ok(id.to_owned())
            }
        }
    }

    fn upload(&mut self, request: &Request<Bytes>, query: &Query, id: Option<String>) -> Outcome {
        let kind = request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        match query.get("uploadType") {
            "multipart" => {
                if request.body().len() > 5_000_000 {
                    return Err(error(413, "uploadTooLarge"));
                }
                let boundary = kind.strip_prefix("multipart/related; boundary=").ok_or_else(invalid)?;
                let body = request.body();
                let find = |needle: &str, from: usize| {
                    let at = body[from..].windows(needle.len()).position(|window| window == needle.as_bytes());
                    at.map(|at| from + at).ok_or_else(invalid)
                };
                let opening = format!("--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n");
                if find(&opening, 0)? != 0 {
                    return Err(invalid());
                }
                let middle = format!("\r\n--{boundary}\r\ncontent-type: application/octet-stream\r\n\r\n");
                let end = find(&middle, 0)?;
                let about: Value = serde_json::from_slice(&body[opening.len()..end]).map_err(|_| invalid())?;
                let start = end + middle.len();
                let end = find(&format!("\r\n--{boundary}--\r\n"), start)?;
                let id = self.publish(id.as_deref(), &about, body[start..end].to_vec(), query)?;
                Ok(answer(200, &self.shown(&id, query.get("fields"))))
            }
            "resumable" => {
                if kind != "application/json" && !kind.starts_with("application/json;") {
                    return Err(invalid());
                }
                let about: Value = serde_json::from_slice(request.body()).map_err(|_| invalid())?;
                if about["id"].as_str().is_some_and(|id| self.files.contains_key(id)) {
                    return Err(error(409, "fileIdInUse"));
                }
                let name = self.next("upload");
                self.sessions.insert(name.clone(), Session { id, about, bytes: Vec::new(), done: None });
                let url = format!("{}/upload/session?upload_id={name}&permission=canary", self.url);
                Ok(Response::builder().status(200).header("location", url).body(Bytes::new()).unwrap())
            }
            _ => Err(invalid()),
        }
    }

    fn session(&mut self, request: &Request<Bytes>, name: &str) -> Outcome {
        let session = self.sessions.get_mut(name).ok_or_else(missing)?;
        match request.method().as_str() {
            "DELETE" => {
                self.sessions.remove(name);
                return Ok(empty(499));
            }
            "PUT" => {}
            _ => return Err(invalid()),
        }
        if let Some(done) = &session.done {
            return Ok(answer(200, done));
        }
        let (range, body) = (request.headers().get("content-range"), request.body());
        let range = range.and_then(|range| range.to_str().ok()?.strip_prefix("bytes ")).ok_or_else(invalid)?;
        let (range, total) = range.split_once('/').ok_or_else(invalid)?;
        let total: Option<usize> = if total == "*" { None } else { Some(total.parse().map_err(|_| invalid())?) };
        if range != "*" {
            let (first, last) = range.split_once('-').ok_or_else(invalid)?;
            let (first, last): (usize, usize) = (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?);
            // Real ones answer 503 to a piece that does not follow.
            if first != session.bytes.len() {
                return Err(empty(503));
            }
            let is_last = total == Some(last + 1);
            if body.len() != last + 1 - first || !(is_last || body.len().is_multiple_of(256 << 10)) {
                return Err(invalid());
            }
            session.bytes.extend_from_slice(body);
        }
        if total != Some(session.bytes.len()) {
            let more = Response::builder().status(308);
            let more = if session.bytes.is_empty() { more } else { more.header("range", format!("bytes=0-{}", session.bytes.len() - 1)) };
            return Ok(more.body(Bytes::new()).unwrap());
        }
        let (id, about, bytes) = (session.id.clone(), session.about.clone(), session.bytes.clone());
        let all = Query([("supportsAllDrives".to_owned(), "true".to_owned())].into());
        let id = self.publish(id.as_deref(), &about, bytes, &all)?;
        let done = self.shown(&id, "id,name,mimeType,size,headRevisionId,md5Checksum,sha256Checksum,trashed,driveId");
        self.sessions.get_mut(name).unwrap().done = Some(done.clone());
        Ok(answer(200, &done))
    }
}
