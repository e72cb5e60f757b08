//! What goes wrong on the way of one range, and what must come of it: the right bytes or the fault's own kind of error, whoever the provider is.
#![allow(dead_code)]

use std::time::Duration;

use smp::error::Kind;

use crate::fault_proxy::{Answer, Fault};

/// Ranges of the object that is fetched.
pub const RANGES: usize = 6;
/// Bytes of each.
pub const RANGE: usize = 64 << 10;
/// The range whose answers are spoiled.
pub const SPOILED: usize = 2;

/// The case of a network that wants to be logged in to.
pub const PORTAL: &str = "a portal's page in place of the store";

/// One line of the table.
pub struct Case {
    pub what: &'static str,
    pub fault: Fault,
    /// Outcome when the first answer is spoiled and the others are not; `None` means the right bytes.
    pub once: Option<Kind>,
    /// Outcome when all answers for the range are spoiled.
    pub always: Option<Kind>,
    /// What the error says after so many attempts in vain.
    pub says: &'static str,
    /// Whether only a time limit ends it.
    pub is_silent: bool,
}

impl Case {
    /// Time without progress after which an attempt is given up: short where nothing else ends it, long where a busy machine must not.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(if self.is_silent { 300 } else { 20_000 })
    }
}

/// A fault that another attempt mends.
fn passing(what: &'static str, fault: Fault, kind: Kind, says: &'static str) -> Case {
    Case { what, fault, once: None, always: Some(kind), says, is_silent: kind == Kind::TransferTimeout }
}

/// A fault that no other attempt mends.
fn lasting(what: &'static str, fault: Fault, kind: Kind, says: &'static str) -> Case {
    Case { once: Some(kind), ..passing(what, fault, kind, says) }
}

/// Something unusual that is none.
fn harmless(what: &'static str, fault: Fault) -> Case {
    Case { what, fault, once: None, always: None, says: "", is_silent: false }
}

fn body(change: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> Fault {
    Fault::change(move |mut answer| {
        change(&mut answer.body);
        answer.measured()
    })
}

fn header(name: &'static str, value: &'static str) -> Fault {
    Fault::change(move |answer| answer.with(name, value))
}

/// What can happen to any answer over HTTP.
pub fn on_the_line() -> Vec<Case> {
    use Kind::{IntegrityFailed, ServerFailed, TransferInterrupted, TransferTimeout};
    let (begun, last) = (SPOILED * RANGE, (SPOILED + 1) * RANGE - 1);
    let whole: Vec<u8> = pattern();
    let again = whole.clone();
    vec![
        harmless("nothing", Fault::change(|answer| answer)),
        passing("the body ends early", Fault::Cut(1_000), TransferInterrupted, "1000 bytes"),
        passing("the body never begins", Fault::Cut(0), TransferInterrupted, "0 bytes"),
        passing("a reset amid the body", Fault::Reset(Some(1_000)), TransferInterrupted, "the connection ended after"),
        passing("a reset before the head", Fault::Reset(None), TransferInterrupted, ""),
        passing("an end before the head", Fault::Raw(Vec::new()), TransferInterrupted, ""),
        passing("an end amid the head", Fault::Raw(b"HTTP/1.1 206 Partial Con".to_vec()), TransferInterrupted, ""),
        passing("what is not HTTP", Fault::Raw(b"220 mail.example ESMTP\r\n".to_vec()), TransferInterrupted, ""),
        passing("a head without an end", Fault::Raw(endless_head()), TransferInterrupted, ""),
        passing(
            "less than asked for, and announced",
            body(|body| body.truncate(1_000)),
            TransferInterrupted,
            "1000 bytes came where 65536",
        ),
        passing("nothing, and announced", body(Vec::clear), TransferInterrupted, "0 bytes came where 65536"),
        passing("more than asked for, and announced", body(|body| body.push(0)), TransferInterrupted, "more than the 65536 bytes"),
        passing("more than asked for, by far", body(|body| body.resize(4 << 20, 0)), TransferInterrupted, "more than the 65536 bytes"),
        harmless(
            "more than announced",
            Fault::change(|mut answer| {
                answer.body.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
                answer
            }),
        ),
        passing(
            "chunks without the last one",
            Fault::change(|answer| {
                let answer = answer.without("content-length").with("transfer-encoding", "chunked");
                Answer { body: [b"10000\r\n", answer.body.as_slice(), b"\r\n"].concat(), ..answer }
            }),
            TransferInterrupted,
            "",
        ),
        passing("silence", Fault::Silent(None), TransferTimeout, "nothing arrived for 300 ms"),
        passing("silence after the head", Fault::Silent(Some(0)), TransferTimeout, "nothing arrived for 300 ms"),
        passing("silence amid the body", Fault::Silent(Some(1_000)), TransferTimeout, "nothing arrived for 300 ms"),
        passing("a byte now and then", Fault::Dribble, TransferTimeout, "nothing arrived for 300 ms"),
        passing("a bit that flips", body(|body| body[1_234] ^= 4), IntegrityFailed, "expected"),
        passing("the last bit flips", body(|body| *body.last_mut().unwrap() ^= 1), IntegrityFailed, "expected"),
        passing("another range's bytes", body(move |body| body.copy_from_slice(&whole[..RANGE])), IntegrityFailed, "expected"),
        passing("zeros", body(|body| body.fill(0)), IntegrityFailed, "expected"),
        passing(
            "the whole object in place of the range",
            Fault::change(move |answer| Answer { status: 200, body: again.clone(), ..answer.without("content-range") }.measured()),
            TransferInterrupted,
            "another range",
        ),
        passing(
            "a range that says nothing of itself",
            Fault::change(|answer| answer.without("content-range")),
            TransferInterrupted,
            "another range",
        ),
        passing("another range by its header", header("content-range", "bytes 0-65535/393216"), TransferInterrupted, "another range"),
        passing(
            "a shorter range by its header",
            Fault::change(move |answer| answer.with("content-range", &format!("bytes {begun}-{}/393216", last - 1))),
            TransferInterrupted,
            "another range",
        ),
        lasting(
            "a range of a shorter object",
            Fault::change(move |answer| answer.with("content-range", &format!("bytes {begun}-{}/{last}", last - 1))),
            Kind::ObjectChanged,
            "the range ends past the object",
        ),
        passing(PORTAL, Fault::reply(200, &[("content-type", "text/html")], "<html>Log in, please"), TransferInterrupted, "another range"),
        passing("a pause asked for in seconds", Fault::reply(503, &[("retry-after", "0")], "canary"), ServerFailed, "status 503"),
        passing(
            "a pause asked for until a date",
            // A date of another day would be taken for a clock that is wrong.
            Fault::change(|answer| {
                let now = answer.header("date").expect("the server knows the time");
                Answer::new(503, &[("retry-after", now), ("date", now)], "canary")
            }),
            ServerFailed,
            "status 503",
        ),
        passing("too many requests", Fault::reply(429, &[], "canary"), ServerFailed, "status 429"),
        passing("a failure of the server's own", Fault::reply(500, &[], "canary"), ServerFailed, "status 500"),
        passing("a gateway's failure", Fault::reply(502, &[("content-type", "text/html")], "<html>canary"), ServerFailed, "status 502"),
        passing("a gateway's time limit", Fault::reply(504, &[], ""), ServerFailed, "status 504"),
        lasting("a range past the object", Fault::reply(416, &[("content-range", "bytes */7")], "canary"), Kind::ObjectChanged, ""),
        lasting("no rights", Fault::reply(403, &[], "canary"), Kind::AccessDenied, "status 403"),
    ]
}

/// What only S3 and its relatives say.
pub fn of_s3() -> Vec<Case> {
    use Kind::{AccessDenied, ObjectChanged};
    vec![
        lasting("another version by its ETag", header("etag", "\"0123456789abcdef\""), ObjectChanged, ""),
        lasting("no version", Fault::change(|answer| answer.without("etag")), ObjectChanged, ""),
        lasting("a condition that does not hold", Fault::s3(412, "PreconditionFailed"), ObjectChanged, ""),
        lasting("an object that went away", Fault::s3(404, "NoSuchKey"), Kind::ObjectNotFound, ""),
        lasting("a bucket that went away", Fault::s3(404, "NoSuchBucket"), Kind::ObjectNotFound, "the bucket does not exist"),
        lasting("no rights, said by S3", Fault::s3(403, "AccessDenied"), AccessDenied, "status 403"),
        lasting("a clock that is wrong", Fault::s3(403, "RequestTimeTooSkewed"), AccessDenied, "this computer's clock is wrong"),
        lasting("a session that is over", Fault::s3(400, "ExpiredToken"), AccessDenied, "the session token has expired"),
        lasting("another secret key", Fault::s3(403, "SignatureDoesNotMatch"), AccessDenied, "the secret key does not fit"),
        lasting("another region", Fault::s3(301, "PermanentRedirect"), Kind::ConfigInvalidValue, "another region"),
        passing("too fast", Fault::s3(503, "SlowDown"), Kind::ServerFailed, "status 503"),
        passing("too slow", Fault::s3(400, "RequestTimeout"), Kind::ServerFailed, "status 400"),
        passing("an error that is no XML", Fault::reply(503, &[("content-type", "application/xml")], "<Error><Co"), Kind::ServerFailed, ""),
        harmless("a body that is said to be compressed", header("content-encoding", "gzip")),
    ]
}

/// What only Dropbox says.
pub fn of_dropbox() -> Vec<Case> {
    let metadata = |answer: &Answer| answer.header("dropbox-api-result").expect("an answer says what it is of").to_owned();
    let other = Fault::change(move |answer| {
        let text = metadata(&answer).replacen("\"rev\":\"", "\"rev\":\"0f", 1);
        answer.with("dropbox-api-result", &text)
    });
    vec![
        lasting("another version by its rev", other, Kind::ObjectChanged, ""),
        passing(
            "bytes of nothing",
            Fault::change(|answer| answer.without("dropbox-api-result")),
            Kind::ServerFailed,
            "without saying of what",
        ),
        passing("too many requests, said by Dropbox", Fault::reply(429, &[("retry-after", "0")], "{}"), Kind::ServerFailed, "status 429"),
        lasting("a token that is over", Fault::reply(401, &[], "{\"error_summary\": \"expired_access_token/\"}"), Kind::AccessDenied, ""),
    ]
}

/// The object that is fetched.
pub fn pattern() -> Vec<u8> {
    (0..(RANGES * RANGE) as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn endless_head() -> Vec<u8> {
    let mut head = b"HTTP/1.1 206 Partial Content\r\n".to_vec();
    for _ in 0..1 << 16 {
        head.extend_from_slice(b"x-more: canary canary canary\r\n");
    }
    head
}
