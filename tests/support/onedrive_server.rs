//! A drive of Microsoft Graph in memory, after Microsoft's public API description: strict where the real one is, and failing where a test
//! asks for it. As there, contents and upload sessions live on another host, whose addresses need no token and get none.
#![allow(dead_code, clippy::result_large_err)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use hyper::body::Bytes;
use hyper::{Request, Response};
use serde_json::{Value, json};

use crate::http_server::{HttpServer, empty, json as answer, ranged, ranged_body};

/// Two hosts: Graph, and where contents are.
pub struct OneDriveServer {
    pub graph: HttpServer,
    pub contents: HttpServer,
    state: Arc<Mutex<State>>,
}

/// What lies in the drive, and what is to go wrong.
#[derive(Default)]
pub struct State {
    /// By path in lower case, no leading slash; the empty path is the root.
    pub items: BTreeMap<String, Stored>,
    sessions: BTreeMap<String, Session>,
    pages: BTreeMap<String, Vec<Value>>,
    count: u64,
    graph_url: String,
    contents_url: String,
    /// Address of the drive below the version: `me/drive`, `drives/b%21x`.
    pub drive: String,
    /// Tokens that are good.
    pub tokens: Vec<String>,
    /// Refresh token that is good; each grant replaces it.
    pub refresh: String,
    /// By method and part of the address: what happens to the next request of it.
    pub faults: VecDeque<(&'static str, &'static str, Fault)>,
    /// Method and address of each request.
    pub seen: Vec<String>,
    /// Bodies of requests for tokens.
    pub grants: Vec<String>,
    /// Entries of a page.
    pub page: usize,
    /// Answers to uploads that tell only what the documentation's example shows.
    pub is_terse: bool,
    /// What else a listing has.
    pub extra: Vec<Value>,
    /// Where the next page of a listing is said to be.
    pub next_page: Option<String>,
}

/// A file or a folder.
#[derive(Clone)]
pub struct Stored {
    pub id: String,
    pub written: String,
    /// `None` is a folder.
    pub bytes: Option<Vec<u8>>,
    pub version: u64,
}

struct Session {
    path: String,
    behaviour: String,
    bytes: Vec<u8>,
    total: Option<u64>,
}

/// What goes wrong.
pub enum Fault {
    /// The request is answered so and does nothing.
    Answer(Response<Bytes>),
    /// The request does its work, and its answer is lost to a 500.
    Lost,
    /// A file is replaced by somebody else before the request is answered.
    Overtaken(&'static str),
}

impl OneDriveServer {
    pub fn start() -> OneDriveServer {
        let state = State { drive: "me/drive".into(), tokens: vec!["good-token".into()], page: 500, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let lock = |state: &Arc<Mutex<State>>| Arc::clone(state);
        let (served, opened) = (lock(&state), lock(&state));
        let guard = |state: &Arc<Mutex<State>>, request: Request<Bytes>, is_graph: bool| {
            state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).serve(request, is_graph)
        };
        let graph = HttpServer::start(move |request| guard(&served, request, true));
        let contents = HttpServer::start(move |request| guard(&opened, request, false));
        let server = OneDriveServer { graph, contents, state };
        server.state().graph_url = server.graph.endpoint.clone();
        server.state().contents_url = server.contents.endpoint.clone();
        let root = Stored { id: "root!1".into(), written: String::new(), bytes: None, version: 0 };
        server.state().items.insert(String::new(), root);
        server
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Upload sessions that are open.
    pub fn sessions(&self) -> usize {
        self.state().sessions.len()
    }
}

/// An error as Graph says it.
pub fn error(status: u16, code: &str) -> Response<Bytes> {
    answer(status, &json!({ "error": { "code": code, "message": "canary", "innerError": {} } }))
}

type Outcome = Result<Response<Bytes>, Response<Bytes>>;

/// QuickXorHash bit by bit, as its description puts it.
fn quick_xor(bytes: &[u8]) -> String {
    let mut folded = [0u8; 160];
    bytes.iter().enumerate().for_each(|(at, byte)| folded[at % 160] ^= byte);
    let mut bits = [false; 160];
    for (number, byte) in folded.iter().enumerate() {
        (0..8).for_each(|bit| bits[(number * 11 + bit) % 160] ^= byte >> bit & 1 == 1);
    }
    let mut hash = [0u8; 20];
    bits.iter().enumerate().for_each(|(at, bit)| hash[at / 8] |= u8::from(*bit) << (at % 8));
    (bytes.len() as u64).to_le_bytes().iter().enumerate().for_each(|(at, byte)| hash[12 + at] ^= byte);
    base64::engine::general_purpose::STANDARD.encode(hash)
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

impl State {
    fn serve(&mut self, request: Request<Bytes>, is_graph: bool) -> Response<Bytes> {
        let (method, target) = (request.method().to_string(), request.uri().to_string());
        if target.contains("/oauth2/v2.0/token") {
            return self.grant(&request);
        }
        self.seen.push(format!("{method} {target}"));
        let is_meant = |(of, part, _): &(&str, &str, Fault)| *of == method && target.contains(part);
        let fault = self.faults.iter().position(is_meant).and_then(|at| self.faults.remove(at));
        match fault {
            Some((_, _, Fault::Answer(answer))) => return answer,
            Some((_, _, Fault::Overtaken(path))) => self.write(path, Some(b"by somebody else".to_vec())),
            Some((_, _, Fault::Lost)) => {
                let _ = if is_graph { self.graph(&request) } else { self.contents(&request) };
                return empty(500);
            }
            None => {}
        }
        let answered = if is_graph { self.graph(&request) } else { self.contents(&request) };
        answered.unwrap_or_else(|refusal| refusal)
    }

    fn grant(&mut self, request: &Request<Bytes>) -> Response<Bytes> {
        assert_eq!(request.headers()["content-type"], "application/x-www-form-urlencoded");
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        self.grants.push(body.clone());
        let field = |name: &str| body.split('&').find_map(|field| field.strip_prefix(&format!("{name}="))).map(decoded);
        let is_good = match field("grant_type").as_deref() {
            Some("refresh_token") => field("refresh_token").as_ref() == Some(&self.refresh),
            Some("client_credentials") => {
                field("scope").is_some_and(|scope| scope.ends_with("/.default")) && field("client_secret").as_deref() == Some("good=secret")
            }
            _ => false,
        };
        if !is_good {
            return answer(400, &json!({ "error": "invalid_grant", "error_description": "canary" }));
        }
        self.count += 1;
        let token = format!("fetched-{}", self.count);
        self.tokens = vec![token.clone()];
        let mut granted = json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3_599 });
        if field("grant_type").as_deref() == Some("refresh_token") {
            self.refresh = format!("refresh-{}", self.count);
            granted["refresh_token"] = json!(self.refresh);
        }
        answer(200, &granted)
    }

    /// Splits an address into the path of an item in lower case, as written, and what is wanted of it.
    fn place(&self, target: &str) -> Result<(String, String, String), Response<Bytes>> {
        let missing = || error(404, "itemNotFound");
        let rest = target.strip_prefix(&format!("/v1.0/{}/", self.drive)).ok_or_else(missing)?;
        let (base, rest) = match rest.strip_prefix("root") {
            Some(rest) => (String::new(), rest.to_owned()),
            None => {
                let rest = rest.strip_prefix("items/").ok_or_else(missing)?;
                let end = rest.find(['/', ':']).unwrap_or(rest.len());
                let id = decoded(&rest[..end]);
                let item = self.items.values().find(|item| item.id == id).ok_or_else(missing)?;
                (item.written.clone(), rest[end..].to_owned())
            }
        };
        let (path, wanted) = match rest.strip_prefix(":/") {
            Some(path) => path.split_once(":/").unwrap_or((path, "")),
            None => ("", rest.trim_start_matches('/')),
        };
        let path = decoded(path);
        if path.chars().any(|character| "\"*:<>?\\|".contains(character)) {
            return Err(error(400, "invalidRequest"));
        }
        let written = [base.as_str(), path.as_str()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        Ok((written.to_lowercase(), written, wanted.to_owned()))
    }

    fn graph(&mut self, request: &Request<Bytes>) -> Outcome {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let token = header("authorization").and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
        if !token.is_some_and(|token| self.tokens.contains(&token)) {
            return Err(error(401, "InvalidAuthenticationToken"));
        }
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default().to_owned());
        if let Some(page) = query.strip_prefix("$skiptoken=") {
            let rest = self.pages.remove(page).ok_or_else(|| error(400, "invalidRequest"))?;
            return Ok(self.page_of(rest));
        }
        let (lower, written, wanted) = self.place(path)?;
        let found = self.items.get(&lower).cloned();
        if header("if-match").is_some_and(|tag| found.as_ref().is_none_or(|item| tag != c_tag(item) && tag != e_tag(item))) {
            return Err(error(412, "resourceModified"));
        }
        match (request.method().as_str(), wanted.as_str()) {
            ("GET", "") => {
                let item = found.ok_or_else(|| error(404, "itemNotFound"))?;
                let mut shown = self.shown(&item);
                if let Some(fields) = query.strip_prefix("$select=") {
                    let object = shown.as_object_mut().unwrap();
                    object.retain(|key, _| fields.split(',').any(|field| field == key));
                }
                Ok(answer(200, &shown))
            }
            ("GET", "children") => {
                let item = found.filter(|item| item.bytes.is_none()).ok_or_else(|| error(404, "itemNotFound"))?;
                let below = if item.written.is_empty() { String::new() } else { format!("{}/", item.written.to_lowercase()) };
                let is_child = |path: &&String| !path.is_empty() && path.strip_prefix(&below).is_some_and(|rest| !rest.contains('/'));
                let mut children: Vec<Value> = self.items.keys().filter(is_child).map(|path| self.shown(&self.items[path])).collect();
                children.append(&mut self.extra.clone());
                Ok(self.page_of(children))
            }
            ("PUT", "content") => {
                let behaviour = query.strip_prefix("@microsoft.graph.conflictBehavior=").ok_or_else(|| error(400, "invalidRequest"))?;
                if request.body().len() > 4 << 20 {
                    return Err(error(413, "requestTooLarge"));
                }
                self.publish(&written, behaviour, request.body().to_vec())
            }
            ("POST", "createUploadSession") => {
                let body: Value = serde_json::from_slice(request.body()).map_err(|_| error(400, "invalidRequest"))?;
                let behaviour = body["item"]["@microsoft.graph.conflictBehavior"].as_str().ok_or_else(|| error(400, "invalidRequest"))?;
                if behaviour == "fail" && found.is_some() {
                    return Err(error(409, "nameAlreadyExists"));
                }
                self.count += 1;
                let id = format!("upload-{}", self.count);
                let session = Session { path: written, behaviour: behaviour.to_owned(), bytes: Vec::new(), total: None };
                self.sessions.insert(id.clone(), session);
                let url = format!("{}/{id}?permission=canary", self.contents_url);
                Ok(answer(200, &json!({ "uploadUrl": url, "expirationDateTime": "2030-01-01T00:00:00Z" })))
            }
            ("DELETE", "") => {
                found.ok_or_else(|| error(404, "itemNotFound"))?;
                let below = format!("{lower}/");
                self.items.retain(|path, _| *path != lower && !path.starts_with(&below));
                Ok(empty(204))
            }
            _ => Err(error(400, "invalidRequest")),
        }
    }

    fn shown(&self, item: &Stored) -> Value {
        let name = item.written.rsplit('/').next().unwrap();
        let mut shown = json!({ "id": item.id, "name": name, "eTag": e_tag(item) });
        match &item.bytes {
            None => shown["folder"] = json!({ "childCount": 0 }),
            Some(bytes) => {
                shown["size"] = json!(bytes.len());
                shown["cTag"] = json!(c_tag(item));
                shown["file"] = json!({ "hashes": { "quickXorHash": quick_xor(bytes) } });
                shown["@microsoft.graph.downloadUrl"] = json!(format!("{}/download?id={}&permission=canary", self.contents_url, item.id));
            }
        }
        shown
    }

    fn page_of(&mut self, mut entries: Vec<Value>) -> Response<Bytes> {
        let rest = entries.split_off(self.page.min(entries.len()));
        let mut page = json!({ "value": entries });
        if !rest.is_empty() {
            self.count += 1;
            let token = format!("page-{}", self.count);
            let usual = format!("{}/v1.0/page?$skiptoken={token}", self.graph_url);
            page["@odata.nextLink"] = json!(self.next_page.clone().unwrap_or(usual));
            self.pages.insert(token, rest);
        }
        answer(200, &page)
    }

    fn publish(&mut self, written: &str, behaviour: &str, bytes: Vec<u8>) -> Outcome {
        let there = self.items.get(&written.to_lowercase());
        if there.is_some_and(|item| item.bytes.is_none() || behaviour != "replace") {
            return Err(error(409, "nameAlreadyExists"));
        }
        let status = if there.is_some() { 200 } else { 201 };
        self.write(written, Some(bytes));
        let shown = self.shown(&self.items[&written.to_lowercase()]);
        if self.is_terse {
            return Ok(answer(status, &json!({ "id": shown["id"], "name": shown["name"], "size": shown["size"], "file": {} })));
        }
        Ok(answer(status, &shown))
    }

    /// Puts an item there, as another program would.
    pub fn write(&mut self, written: &str, bytes: Option<Vec<u8>>) {
        for (at, _) in written.match_indices('/') {
            if !self.items.contains_key(&written[..at].to_lowercase()) {
                self.write(&written[..at], None);
            }
        }
        self.count += 1;
        let (lower, version) = (written.to_lowercase(), self.count);
        let (id, written) = match self.items.get(&lower) {
            Some(item) => (item.id.clone(), item.written.clone()),
            None => (format!("item!{version}"), written.to_owned()),
        };
        self.items.insert(lower, Stored { id, written, bytes, version });
    }

    /// The host that needs no token. Real ones answer 401 to requests that bring one.
    fn contents(&mut self, request: &Request<Bytes>) -> Outcome {
        if request.headers().contains_key("authorization") {
            return Err(error(401, "unauthenticated"));
        }
        let query = request.uri().query().unwrap_or_default();
        if let Some(query) = query.strip_prefix("id=") {
            let id = decoded(query.split('&').next().unwrap());
            let bytes = self.items.values().find(|item| item.id == id).and_then(|item| item.bytes.clone());
            let bytes = bytes.ok_or_else(|| error(404, "itemNotFound"))?;
            return Ok(ranged(request, &bytes).body(ranged_body(request, &bytes)).unwrap());
        }
        let id = request.uri().path().trim_start_matches('/').to_owned();
        let session = self.sessions.get_mut(&id).ok_or_else(|| error(404, "itemNotFound"))?;
        let position = |session: &Session| json!({ "expirationDateTime": "2030-01-01T00:00:00Z", "nextExpectedRanges": [format!("{}-", session.bytes.len())] });
        match request.method().as_str() {
            "GET" => return Ok(answer(200, &position(session))),
            "DELETE" => {
                self.sessions.remove(&id);
                return Ok(empty(204));
            }
            "PUT" => {}
            _ => return Err(error(400, "invalidRequest")),
        }
        let range = request.headers().get("content-range").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (range, total) =
            range.strip_prefix("bytes ").and_then(|rest| rest.split_once('/')).ok_or_else(|| error(400, "invalidRange"))?;
        let (first, last) = range.split_once('-').ok_or_else(|| error(400, "invalidRange"))?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| error(400, "invalidRange"));
        let (first, last, total) = (number(first)?, number(last)?, number(total)?);
        let body = request.body();
        let is_whole = body.len() as u64 == last + 1 - first && (body.len().is_multiple_of(320 << 10) || last + 1 == total);
        if !is_whole || body.len() >= 60 << 20 || *session.total.get_or_insert(total) != total {
            return Err(error(400, "invalidRange"));
        }
        if first != session.bytes.len() as u64 {
            return Err(error(416, "invalidRange"));
        }
        session.bytes.extend_from_slice(body);
        if (session.bytes.len() as u64) < total {
            return Ok(answer(202, &position(session)));
        }
        let (path, behaviour, bytes) = (session.path.clone(), session.behaviour.clone(), session.bytes.clone());
        let done = self.publish(&path, &behaviour, bytes);
        if done.is_ok() {
            self.sessions.remove(&id);
        }
        done
    }
}

fn c_tag(item: &Stored) -> String {
    format!("\"c:{{{}}},{}\"", item.id, item.version)
}

fn e_tag(item: &Stored) -> String {
    format!("\"{{{}}},{}\"", item.id, item.version)
}
