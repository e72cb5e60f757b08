//! A Dropbox in memory, after Dropbox's public API description: strict where the real one is, and failing where a test asks for it.
#![allow(dead_code, clippy::result_large_err)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use hyper::body::Bytes;
use hyper::{Request, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http_server::{HttpServer, json as answer, ranged, ranged_body};

/// A server with one account.
pub struct DropboxServer {
    pub http: HttpServer,
    state: Arc<Mutex<State>>,
}

/// What lies in the account, and what is to go wrong.
#[derive(Default)]
pub struct State {
    /// By path in lower case.
    pub files: BTreeMap<String, File>,
    /// Path in lower case, to path as written.
    pub folders: BTreeMap<String, String>,
    sessions: BTreeMap<String, Vec<u8>>,
    /// Pages still to come, by cursor.
    cursors: BTreeMap<String, Vec<Value>>,
    count: u64,
    /// Tokens that are good.
    pub tokens: Vec<String>,
    /// By part of the route: what happens to the next request of it.
    pub faults: VecDeque<(&'static str, Fault)>,
    /// Route and argument of each request.
    pub seen: Vec<(String, Value)>,
    /// Bodies of requests for tokens.
    pub grants: Vec<String>,
    /// Namespace that a `Dropbox-API-Path-Root` may name, and the path where it lies.
    pub namespace: Option<(String, String)>,
    /// Files that are not published although all their bytes are there, because there are too many writes.
    pub busy: usize,
    /// Entries of a page.
    pub page: usize,
    /// Answers list folders' paths in the wrong case but for their last part, as Dropbox sometimes does.
    pub shouts: bool,
}

/// A file.
#[derive(Clone)]
pub struct File {
    pub written: String,
    pub bytes: Vec<u8>,
    pub rev: String,
}

/// What goes wrong.
pub enum Fault {
    /// The request is answered so and does nothing.
    Answer(Response<Bytes>),
    /// The request does its work, and its answer is lost to a 500.
    Lost,
    /// The body of an answer or a request is changed on its way.
    Bent,
}

impl DropboxServer {
    pub fn start() -> DropboxServer {
        let state = State { tokens: vec!["good-token".into()], page: 500, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let served = Arc::clone(&state);
        let http = HttpServer::start(move |request| served.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).serve(request));
        DropboxServer { http, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Requests whose route has this part.
    pub fn count(&self, route: &str) -> usize {
        self.state().seen.iter().filter(|(seen, _)| seen.contains(route)).count()
    }
}

/// An error as Dropbox says it.
pub fn error(status: u16, summary: &str) -> Response<Bytes> {
    answer(status, &json!({ "error_summary": format!("{summary}/.."), "error": { ".tag": summary.split('/').next() } }))
}

fn plain(why: &str) -> Response<Bytes> {
    Response::builder().status(400).body(Bytes::from(format!("Error in call to API function: {why}"))).unwrap()
}

fn content_hash(bytes: &[u8]) -> String {
    let blocks: Vec<u8> = bytes.chunks(4 << 20).flat_map(|block| Sha256::digest(block).to_vec()).collect();
    Sha256::digest(&blocks).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fails unless all fields of an argument are known.
fn known(argument: &Value, fields: &[&str]) -> Result<(), Response<Bytes>> {
    let Some(object) = argument.as_object() else { return Err(plain("the argument is no object")) };
    match object.keys().find(|key| !fields.contains(&key.as_str())) {
        Some(key) => Err(plain(&format!("unknown field '{key}'"))),
        None => Ok(()),
    }
}

type Outcome = Result<Response<Bytes>, Response<Bytes>>;

impl State {
    fn serve(&mut self, request: Request<Bytes>) -> Response<Bytes> {
        let route = request.uri().path().to_owned();
        if route == "/oauth2/token" {
            return self.grant(&request);
        }
        let fault = self.faults.iter().position(|(part, _)| route.contains(part)).and_then(|at| self.faults.remove(at));
        match fault {
            Some((_, Fault::Answer(answer))) => answer,
            Some((_, Fault::Lost)) => {
                let _ = self.answer(&route, &request, false);
                Response::builder().status(500).body(Bytes::new()).unwrap()
            }
            fault => self.answer(&route, &request, fault.is_some()).unwrap_or_else(|refusal| refusal),
        }
    }

    fn grant(&mut self, request: &Request<Bytes>) -> Response<Bytes> {
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        assert_eq!(request.headers()["content-type"], "application/x-www-form-urlencoded");
        self.grants.push(body.clone());
        if !body.contains("grant_type=refresh_token") || !body.contains("refresh_token=good-refresh") || !body.contains("client_id=app-key")
        {
            return answer(400, &json!({ "error": "invalid_grant", "error_description": "canary" }));
        }
        self.count += 1;
        let token = format!("fetched-{}", self.count);
        self.tokens = vec![token.clone()];
        answer(200, &json!({ "access_token": token, "token_type": "bearer", "expires_in": 14_400 }))
    }

    fn answer(&mut self, route: &str, request: &Request<Bytes>, is_bent: bool) -> Outcome {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().expect("headers are visible ASCII").to_owned());
        if request.method() != "POST" {
            return Err(plain("the method"));
        }
        let token = header("authorization").and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
        if !token.is_some_and(|token| self.tokens.contains(&token)) {
            return Err(error(401, "expired_access_token"));
        }
        let root = match header("dropbox-api-path-root").map(|text| serde_json::from_str::<Value>(&text).unwrap()) {
            None => String::new(),
            Some(root) => match &self.namespace {
                Some((id, path)) if root == json!({ ".tag": "namespace_id", "namespace_id": id }) => path.clone(),
                _ => return Err(error(422, "no_permission")),
            },
        };
        let content = [
            "/2/files/download",
            "/2/files/upload",
            "/2/files/upload_session/start",
            "/2/files/upload_session/append_v2",
            "/2/files/upload_session/finish",
        ];
        let argument = if content.contains(&route) {
            let is_download = route == "/2/files/download";
            if header("content-type").as_deref() != (!is_download).then_some("application/octet-stream") {
                return Err(plain("the content type"));
            }
            header("dropbox-api-arg").ok_or_else(|| plain("no argument"))?
        } else {
            if header("content-type").as_deref() != Some("application/json") {
                return Err(plain("the content type"));
            }
            String::from_utf8(request.body().to_vec()).map_err(|_| plain("the body"))?
        };
        let argument: Value = serde_json::from_str(&argument).map_err(|_| plain("the argument"))?;
        self.seen.push((route.to_owned(), argument.clone()));
        let body = request.body();
        match route {
            "/2/files/get_metadata" => self.get_metadata(&argument, &root),
            "/2/files/list_folder" => self.list_folder(&argument, &root),
            "/2/files/list_folder/continue" => {
                known(&argument, &["cursor"])?;
                let rest = self.cursors.remove(argument["cursor"].as_str().unwrap_or_default()).ok_or_else(|| error(409, "reset"))?;
                Ok(self.page_of(rest))
            }
            "/2/files/download" => self.download(&argument, &root, request),
            "/2/files/upload" => {
                known(&argument, &["path", "mode", "autorename", "mute", "strict_conflict", "content_hash"])?;
                self.check_hash(&argument, body, is_bent)?;
                // `UploadError.path` has the reason one level further down, but not its summary.
                self.commit(&argument, &root, body.to_vec())
            }
            "/2/files/upload_session/start" => {
                known(&argument, &["close", "session_type", "content_hash"])?;
                self.count += 1;
                let id = format!("session-{}", self.count);
                self.sessions.insert(id.clone(), body.to_vec());
                Ok(answer(200, &json!({ "session_id": id })))
            }
            "/2/files/upload_session/append_v2" => {
                known(&argument, &["cursor", "close", "content_hash"])?;
                self.append(&argument, body, is_bent, "")?;
                Ok(answer(200, &Value::Null))
            }
            "/2/files/upload_session/finish" => {
                known(&argument, &["cursor", "commit", "content_hash"])?;
                known(&argument["commit"], &["path", "mode", "autorename", "mute", "strict_conflict"])?;
                self.append(&argument, body, is_bent, "lookup_failed/")?;
                let id = argument["cursor"]["session_id"].as_str().unwrap_or_default().to_owned();
                let done = self.commit(&argument["commit"], &root, self.sessions[&id].clone());
                if done.is_ok() {
                    self.sessions.remove(&id);
                }
                done
            }
            "/2/files/delete_v2" => self.delete(&argument, &root),
            _ => Err(plain("no such route")),
        }
    }

    /// The path of an argument, in lower case, and as written.
    fn path(&self, argument: &Value, root: &str) -> Result<(String, String), Response<Bytes>> {
        let path = argument["path"].as_str().ok_or_else(|| plain("no path"))?;
        if let Some(id) = path.strip_prefix("id:") {
            let found = self.folders.iter().find(|(lower, _)| folder_id(lower) == format!("id:{id}"));
            return found.map(|(lower, written)| (lower.clone(), written.clone())).ok_or_else(|| error(409, "path/not_found"));
        }
        if !(path.is_empty() || path.starts_with('/')) || path.ends_with('/') || path.contains("//") {
            return Err(error(409, "path/malformed_path"));
        }
        Ok((format!("{root}{path}").to_lowercase(), format!("{root}{path}")))
    }

    fn entry(&self, tag: &str, lower: &str, root: &str) -> Value {
        let (written, file) = match self.files.get(lower) {
            Some(file) => (file.written.clone(), Some(file)),
            None => (self.folders[lower].clone(), None),
        };
        let name = written.rsplit('/').next().unwrap().to_owned();
        let shown = if self.shouts { format!("{}{name}", written[..written.len() - name.len()].to_uppercase()) } else { written };
        let mut entry = json!({ ".tag": tag, "name": name, "path_lower": lower[root.len()..], "path_display": shown[root.len()..] });
        let more = match file {
            Some(file) => {
                json!({ "id": "id:file", "rev": file.rev, "size": file.bytes.len(), "is_downloadable": true, "content_hash": content_hash(&file.bytes) })
            }
            None => json!({ "id": folder_id(lower) }),
        };
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    }

    fn get_metadata(&self, argument: &Value, root: &str) -> Outcome {
        known(argument, &["path", "include_deleted"])?;
        let (lower, _) = self.path(argument, root)?;
        match () {
            () if self.files.contains_key(&lower) => Ok(answer(200, &self.entry("file", &lower, root))),
            () if self.folders.contains_key(&lower) => Ok(answer(200, &self.entry("folder", &lower, root))),
            () => Err(error(409, "path/not_found")),
        }
    }

    fn list_folder(&mut self, argument: &Value, root: &str) -> Outcome {
        let fields = ["path", "recursive", "include_deleted", "include_mounted_folders", "include_non_downloadable_files", "limit"];
        known(argument, &fields)?;
        let (lower, _) = self.path(argument, root)?;
        if self.files.contains_key(&lower) {
            return Err(error(409, "path/not_folder"));
        }
        if lower != root && !self.folders.contains_key(&lower) {
            return Err(error(409, "path/not_found"));
        }
        let below = format!("{lower}/");
        let inside = |path: &&String| path.starts_with(&below) && argument["recursive"] == true;
        let mut entries: Vec<Value> = self.folders.keys().filter(inside).map(|path| self.entry("folder", path, root)).collect();
        entries.extend(self.files.keys().filter(inside).map(|path| self.entry("file", path, root)));
        Ok(self.page_of(entries))
    }

    fn page_of(&mut self, mut entries: Vec<Value>) -> Response<Bytes> {
        let rest = entries.split_off(self.page.min(entries.len()));
        self.count += 1;
        let cursor = format!("cursor-{}", self.count);
        let has_more = !rest.is_empty();
        self.cursors.insert(cursor.clone(), rest);
        answer(200, &json!({ "entries": entries, "cursor": cursor, "has_more": has_more }))
    }

    fn download(&self, argument: &Value, root: &str, request: &Request<Bytes>) -> Outcome {
        known(argument, &["path"])?;
        let (lower, _) = self.path(argument, root)?;
        let Some(file) = self.files.get(&lower) else {
            return Err(error(409, if self.folders.contains_key(&lower) { "path/not_file" } else { "path/not_found" }));
        };
        let mut about = String::new();
        for unit in self.entry("file", &lower, root).to_string().encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte < 0x7f => about.push(char::from(byte)),
                _ => about.push_str(&format!("\\u{unit:04x}")),
            }
        }
        Ok(ranged(request, &file.bytes).header("dropbox-api-result", about).body(ranged_body(request, &file.bytes)).unwrap())
    }

    fn check_hash(&self, argument: &Value, body: &[u8], is_bent: bool) -> Result<(), Response<Bytes>> {
        let expected = argument["content_hash"].as_str().ok_or_else(|| plain("these tests expect a hash with each piece"))?;
        let mut arrived = body.to_vec();
        if is_bent && let Some(byte) = arrived.first_mut() {
            *byte ^= 1;
        }
        if content_hash(&arrived) == expected { Ok(()) } else { Err(error(409, "content_hash_mismatch")) }
    }

    fn append(&mut self, argument: &Value, body: &[u8], is_bent: bool, place: &str) -> Result<(), Response<Bytes>> {
        known(&argument["cursor"], &["session_id", "offset"])?;
        self.check_hash(argument, body, is_bent)?;
        let id = argument["cursor"]["session_id"].as_str().unwrap_or_default();
        let Some(session) = self.sessions.get_mut(id) else { return Err(error(409, &format!("{place}not_found"))) };
        let offset = argument["cursor"]["offset"].as_u64().ok_or_else(|| plain("no offset"))?;
        if offset != session.len() as u64 {
            let wrong = json!({ ".tag": "incorrect_offset", "correct_offset": session.len() });
            let wrong = if place.is_empty() { wrong } else { json!({ ".tag": "lookup_failed", "lookup_failed": wrong }) };
            return Err(answer(409, &json!({ "error_summary": format!("{place}incorrect_offset/.."), "error": wrong })));
        }
        session.extend_from_slice(body);
        Ok(())
    }

    fn commit(&mut self, commit: &Value, root: &str, bytes: Vec<u8>) -> Outcome {
        let (lower, written) = self.path(commit, root)?;
        if self.busy > 0 {
            self.busy -= 1;
            return Err(error(409, "too_many_write_operations"));
        }
        let there = self.files.get(&lower).map(|file| file.rev.clone());
        let mode = &commit["mode"];
        let is_free = match (mode.as_str().or(mode[".tag"].as_str()), &there) {
            (Some("add"), there) => there.is_none(),
            (Some("overwrite"), _) => true,
            (Some("update"), there) => there.as_deref() == mode["update"].as_str(),
            _ => return Err(plain("the mode")),
        };
        if commit["autorename"] != false || commit["strict_conflict"] != true {
            return Err(plain("these tests expect no other names and strict conflicts"));
        }
        if !is_free {
            return Err(error(409, "path/conflict/file"));
        }
        if self.folders.contains_key(&lower) {
            return Err(error(409, "path/conflict/folder"));
        }
        if self.ancestors(&written).any(|(lower, _)| self.files.contains_key(&lower)) {
            return Err(error(409, "path/conflict/file_ancestor"));
        }
        self.write(&written, bytes);
        let mut entry = self.entry("file", &lower, root);
        entry.as_object_mut().unwrap().remove(".tag");
        Ok(answer(200, &entry))
    }

    /// Puts a file there, as another program of the account would.
    pub fn write(&mut self, written: &str, bytes: Vec<u8>) {
        self.count += 1;
        for (lower, written) in self.ancestors(written).collect::<Vec<_>>() {
            self.folders.entry(lower).or_insert(written);
        }
        let rev = format!("{:09x}", 0x1_0000_0000u64 + self.count);
        self.files.insert(written.to_lowercase(), File { written: written.to_owned(), bytes, rev });
    }

    fn ancestors<'a>(&self, written: &'a str) -> impl Iterator<Item = (String, String)> + use<'a> {
        written.match_indices('/').skip(1).map(|(at, _)| (written[..at].to_lowercase(), written[..at].to_owned()))
    }

    fn delete(&mut self, argument: &Value, root: &str) -> Outcome {
        known(argument, &["path", "parent_rev"])?;
        let (lower, _) = self.path(argument, root)?;
        let Some(file) = self.files.get(&lower) else { return Err(error(409, "path_lookup/not_found")) };
        if argument["parent_rev"].as_str().is_some_and(|rev| rev != file.rev) {
            return Err(error(409, "path_write/conflict/file"));
        }
        let entry = self.entry("file", &lower, root);
        self.files.remove(&lower);
        Ok(answer(200, &json!({ "metadata": entry })))
    }
}

/// The id that a folder has here.
pub fn folder_id(lower: &str) -> String {
    let digits: String = Sha256::digest(lower.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("id:{digits}")
}
