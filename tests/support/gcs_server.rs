//! A bucket of Cloud Storage in memory, after Google's public description of the JSON API: strict where the real one is, and failing where
//! a test asks for it. As there, an upload session's address is its credential, and a token beside it is a mistake of the client.
#![allow(dead_code, clippy::result_large_err)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use hyper::body::Bytes;
use hyper::{Request, Response};
use serde_json::{Value, json};

use crate::http_server::{HttpServer, empty, json as answer, ranged, ranged_body};

/// A running server with one bucket.
pub struct GcsServer {
    pub http: HttpServer,
    state: Arc<Mutex<State>>,
}

/// What lies in the bucket, and what is to go wrong.
#[derive(Default)]
pub struct State {
    pub objects: BTreeMap<String, Stored>,
    sessions: BTreeMap<String, Session>,
    count: u64,
    url: String,
    /// Tokens that are good; none means that nobody is asked.
    pub tokens: Vec<String>,
    /// Bodies of requests for tokens; each is granted.
    pub grants: Vec<String>,
    /// Project that must be named as the one that pays.
    pub payer: Option<String>,
    /// By method and part of the address: what happens to the next request of it.
    pub faults: VecDeque<(&'static str, &'static str, Fault)>,
    /// Method and address of each request.
    pub seen: Vec<String>,
    /// Objects of a page, at most.
    pub page: usize,
    /// Where a session is said to be, if not here.
    pub session_url: Option<String>,
}

/// An object.
#[derive(Clone)]
pub struct Stored {
    pub bytes: Vec<u8>,
    pub generation: u64,
    /// What its writer said about it.
    pub metadata: Value,
}

struct Session {
    name: String,
    condition: Option<u64>,
    metadata: Value,
    bytes: Vec<u8>,
    done: Option<Value>,
}

/// What goes wrong.
pub enum Fault {
    /// The request is answered so and does nothing.
    Answer(Response<Bytes>),
    /// The request does its work, and its answer is lost to a 500.
    Lost,
    /// Of what a session is sent, only so many bytes are kept before a 503.
    Half(usize),
    /// An object is replaced by somebody else before the request is answered.
    Overtaken(&'static str),
}

type Outcome = Result<Response<Bytes>, Response<Bytes>>;

/// The name of the bucket.
pub const BUCKET: &str = "studies";

/// An error as Cloud Storage says it.
pub fn error(status: u16, reason: &str) -> Response<Bytes> {
    let errors = json!([{ "domain": "global", "reason": reason, "message": "canary" }]);
    answer(status, &json!({ "error": { "code": status, "message": "canary", "errors": errors } }))
}

fn bad(what: &str) -> Response<Bytes> {
    eprintln!("the server was sent what Google would refuse: {what}");
    error(400, "invalid")
}

/// CRC-32C bit by bit.
fn crc32c(bytes: &[u8]) -> String {
    let shift = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    let crc = bytes.iter().fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)));
    base64::engine::general_purpose::STANDARD.encode((!crc).to_be_bytes())
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

/// The description and the bytes of an upload in one request (RFC 2387).
fn multipart(request: &Request<Bytes>) -> Option<(Value, Vec<u8>)> {
    let boundary = request.headers().get("content-type")?.to_str().ok()?.strip_prefix("multipart/related; boundary=")?;
    let body = request.body().strip_prefix(format!("--{boundary}\r\n").as_bytes())?;
    let body = body.strip_suffix(format!("\r\n--{boundary}--\r\n").as_bytes())?;
    let cut = |bytes: &[u8], at: &str| bytes.windows(at.len()).position(|window| window == at.as_bytes());
    let next = format!("\r\n--{boundary}\r\n");
    let end = cut(body, &next)?;
    let content = |part: &[u8]| Some(part[cut(part, "\r\n\r\n")? + 4..].to_vec());
    Some((serde_json::from_slice(&content(&body[..end])?).ok()?, content(&body[end + next.len()..])?))
}

/// The parameters of a query.
fn parameters(request: &Request<Bytes>) -> BTreeMap<String, String> {
    let query = request.uri().query().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(key, value)| (key.to_owned(), decoded(value))).collect()
}

impl GcsServer {
    pub fn start() -> GcsServer {
        let state = Arc::new(Mutex::new(State { tokens: vec!["good-token".into()], page: 1_000, ..State::default() }));
        let served = Arc::clone(&state);
        let http = HttpServer::start(move |request| served.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).serve(&request));
        let server = GcsServer { http, state };
        server.state().url = server.http.endpoint.clone();
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

impl State {
    fn serve(&mut self, request: &Request<Bytes>) -> Response<Bytes> {
        let (method, target) = (request.method().to_string(), request.uri().to_string());
        if target == "/token" {
            self.grants.push(String::from_utf8(request.body().to_vec()).unwrap());
            let token = format!("fetched-{}", self.grants.len());
            self.tokens = vec![token.clone()];
            return answer(200, &json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3_599 }));
        }
        self.seen.push(format!("{method} {target}"));
        let is_meant = |(of, part, _): &(&str, &str, Fault)| *of == method && target.contains(part);
        let fault = self.faults.iter().position(is_meant).and_then(|at| self.faults.remove(at));
        match fault {
            Some((_, _, Fault::Answer(answer))) => return answer,
            Some((_, _, Fault::Overtaken(name))) => drop(self.write(name, b"by somebody else".to_vec(), Value::Null)),
            Some((_, _, Fault::Lost)) => {
                let _ = self.answered(request);
                return empty(500);
            }
            Some((_, _, Fault::Half(length))) => {
                let id = parameters(request).remove("upload_id").unwrap();
                self.sessions.get_mut(&id).unwrap().bytes.extend_from_slice(&request.body()[..length]);
                return empty(503);
            }
            None => {}
        }
        self.answered(request).unwrap_or_else(|refusal| refusal)
    }

    /// Puts an object there, as another program would.
    pub fn write(&mut self, name: &str, bytes: Vec<u8>, metadata: Value) -> Value {
        self.count += 1;
        let generation = 1_700_000_000_000_000 + self.count;
        self.objects.insert(name.to_owned(), Stored { bytes, generation, metadata });
        self.shown(name)
    }

    fn shown(&self, name: &str) -> Value {
        let object = &self.objects[name];
        let mut shown = json!({
            "kind": "storage#object", "name": name, "bucket": BUCKET, "size": object.bytes.len().to_string(),
            "generation": object.generation.to_string(), "metageneration": "1", "crc32c": crc32c(&object.bytes),
        });
        if !object.metadata.is_null() {
            shown["metadata"] = object.metadata.clone();
        }
        shown
    }

    /// What is told where only some fields are asked for.
    fn picked(shown: &Value, fields: &str) -> Value {
        let keys = fields.split(',').map(|field| (field.to_owned(), shown[field].clone()));
        Value::Object(keys.filter(|(_, value)| !value.is_null()).collect())
    }

    fn answered(&mut self, request: &Request<Bytes>) -> Outcome {
        let mut asked = parameters(request);
        let method = request.method().as_str();
        let path = request.uri().path();
        if let Some(id) = asked.get("upload_id") {
            return self.session(request, id);
        }
        let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        if !self.tokens.is_empty() {
            let token = authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
            if !token.is_some_and(|token| self.tokens.iter().any(|good| good == token)) {
                return Err(error(401, "authError"));
            }
        } else if authorization.is_some() {
            return Err(bad("a token that nobody asked for"));
        }
        match (&self.payer, asked.remove("userProject")) {
            (Some(_), None) => return Err(error(400, "required")),
            (payer, said) if *payer != said => return Err(error(403, "userProjectAccessDenied")),
            _ => {}
        }
        let condition = match asked.remove("ifGenerationMatch") {
            Some(text) => Some(text.parse::<u64>().map_err(|_| bad("a generation"))?),
            None => None,
        };
        let rest = path.strip_prefix("/storage/v1/b/").or_else(|| path.strip_prefix("/upload/storage/v1/b/"));
        let rest = rest.ok_or_else(|| error(404, "notFound"))?;
        let rest = rest.strip_prefix(BUCKET).ok_or_else(|| error(404, "notFound"))?;
        if path.starts_with("/upload") {
            return if method == "POST" && rest == "/o" { self.upload(request, asked, condition) } else { Err(bad("an upload")) };
        }
        let Some(name) = rest.strip_prefix("/o/") else {
            return if method == "GET" && rest == "/o" { self.page(asked) } else { Err(bad("a listing")) };
        };
        if name.contains('/') {
            return Err(bad("a slash that is not encoded"));
        }
        let name = decoded(name);
        let found = self.objects.get(&name).cloned().ok_or_else(|| error(404, "notFound"))?;
        if condition.is_some_and(|condition| condition != found.generation) {
            return Err(error(412, "conditionNotMet"));
        }
        match (method, asked.remove("alt").as_deref()) {
            ("GET", Some("media")) => {
                let answer = ranged(request, &found.bytes).header("x-goog-generation", found.generation);
                Ok(answer.body(ranged_body(request, &found.bytes)).unwrap())
            }
            ("GET", None) => Ok(answer(200, &State::picked(&self.shown(&name), &asked["fields"]))),
            ("DELETE", None) => {
                self.objects.remove(&name);
                Ok(empty(204))
            }
            _ => Err(bad("a request for an object")),
        }
    }

    fn page(&mut self, asked: BTreeMap<String, String>) -> Outcome {
        let fields = asked["fields"].strip_prefix("items(").and_then(|fields| fields.strip_suffix("),nextPageToken"));
        let fields = fields.ok_or_else(|| bad("a selection of fields"))?;
        let most: usize = asked["maxResults"].parse().map_err(|_| bad("a number of results"))?;
        let prefix = asked.get("prefix").cloned().unwrap_or_default();
        let after = asked.get("pageToken").map(|token| token.strip_prefix("after+/").expect("a token of ours").to_owned());
        let is_meant = |name: &&String| name.starts_with(&prefix) && after.as_ref().is_none_or(|after| *name > after);
        let names: Vec<&String> = self.objects.keys().filter(is_meant).collect();
        let (now, later) = names.split_at(names.len().min(most).min(self.page));
        let mut page = json!({});
        if !now.is_empty() {
            // An empty page has no list.
            page["items"] = now.iter().map(|name| State::picked(&self.shown(name), fields)).collect();
        }
        if !later.is_empty() {
            page["nextPageToken"] = json!(format!("after+/{}", now.last().map_or("", |name| name.as_str())));
        }
        Ok(answer(200, &page))
    }

    /// Whether an object may appear.
    fn check(&self, name: &str, condition: Option<u64>) -> Result<(), Response<Bytes>> {
        let there = self.objects.get(name).map_or(0, |object| object.generation);
        if condition.is_some_and(|condition| condition != there) { Err(error(412, "conditionNotMet")) } else { Ok(()) }
    }

    fn upload(&mut self, request: &Request<Bytes>, asked: BTreeMap<String, String>, condition: Option<u64>) -> Outcome {
        let name = asked.get("name").filter(|name| !name.is_empty()).cloned().ok_or_else(|| error(400, "required"))?;
        match asked.get("uploadType").map(String::as_str) {
            Some("multipart") => {
                let (about, bytes) = multipart(request).ok_or_else(|| bad("a body of two parts"))?;
                self.check(&name, condition)?;
                let said = about["crc32c"].as_str();
                if about["name"] != name.as_str() || said.is_some_and(|said| said != crc32c(&bytes)) {
                    return Err(bad("a description that does not fit"));
                }
                Ok(answer(200, &self.write(&name, bytes, about["metadata"].clone())))
            }
            Some("resumable") => {
                let about: Value = serde_json::from_slice(request.body()).map_err(|_| bad("a description"))?;
                self.check(&name, condition)?;
                self.count += 1;
                let id = format!("canary-{}", self.count);
                let session = Session { name, condition, metadata: about["metadata"].clone(), bytes: Vec::new(), done: None };
                self.sessions.insert(id.clone(), session);
                let usual = format!("{}/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable&upload_id={id}", self.url);
                let location = self.session_url.clone().unwrap_or(usual);
                Ok(Response::builder().status(200).header("location", location).body(Bytes::new()).unwrap())
            }
            _ => Err(bad("a type of upload")),
        }
    }

    fn session(&mut self, request: &Request<Bytes>, id: &str) -> Outcome {
        if request.headers().contains_key("authorization") {
            return Err(bad("a token for a session"));
        }
        if request.method() == "DELETE" {
            return Err(if self.sessions.remove(id).is_some() { empty(499) } else { error(404, "notFound") });
        }
        let session = self.sessions.get_mut(id).ok_or_else(|| error(410, "gone"))?;
        if let Some(done) = &session.done {
            return Ok(answer(200, done));
        }
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let range = header("content-range").and_then(|text| text.strip_prefix("bytes ")).and_then(|text| text.split_once('/'));
        let (range, total) = range.ok_or_else(|| bad("a range"))?;
        let total: Option<u64> = if total == "*" { None } else { Some(total.parse().map_err(|_| bad("a total"))?) };
        let body = request.body();
        if range != "*" {
            let (first, last) = range.split_once('-').ok_or_else(|| bad("a range"))?;
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            if body.len() as u64 != last + 1 - first || total.is_none() && !body.len().is_multiple_of(256 << 10) {
                return Err(bad("a piece that is no multiple of 256 KiB"));
            }
            if first > session.bytes.len() as u64 {
                return Err(error(503, "backendError"));
            }
            session.bytes.truncate(usize::try_from(first).unwrap());
            session.bytes.extend_from_slice(body);
        } else if !body.is_empty() {
            return Err(bad("a question with a body"));
        }
        if total != Some(session.bytes.len() as u64) {
            let far = Response::builder().status(308);
            let far = if session.bytes.is_empty() { far } else { far.header("range", format!("bytes=0-{}", session.bytes.len() - 1)) };
            return Ok(far.body(Bytes::new()).unwrap());
        }
        let (name, condition, bytes) = (session.name.clone(), session.condition, session.bytes.clone());
        let metadata = session.metadata.clone();
        self.check(&name, condition)?;
        let done = self.write(&name, bytes, metadata);
        self.sessions.get_mut(id).unwrap().done = Some(done.clone());
        Ok(answer(200, &done))
    }
}
