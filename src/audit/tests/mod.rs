//! Claims about whole logs. The rooms of the module test themselves; here a log is written, read, exported and, in `tamper`,
//! meddled with; `processes` needs more than one process.

mod processes;
mod tamper;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::clock::Moment;
use super::files::hex;
use super::heads::Lag;
use super::writer::Options;
use super::*;
use crate::error::Kind;

/// 2023-11-14T22:13:20Z.
const THEN: i64 = 1_700_000_000_000_000;

fn settings(directory: &Path) -> Settings {
    Settings {
        directory: directory.to_owned(),
        actor: "dr.o'hara".into(),
        protocol: "=IRB-2025-7".into(),
        pseudonym_key: Secret::new([7; 32]),
    }
}

/// A clock that stands still until it is set.
fn still(time: &Arc<AtomicI64>) -> clock::Clock {
    let time = Arc::clone(time);
    Box::new(move || Moment { micros: time.load(Ordering::Relaxed), since_boot: 1 })
}

/// Options with a head that is kept at open and close only.
fn options(rotate_bytes: u64) -> Options {
    Options { rotate_bytes, lag: Lag { records: u64::MAX, time: Duration::from_secs(1 << 40) }, ..Options::default() }
}

fn event(files: i64) -> Event {
    Event {
        event: "study.fetched",
        outcome: Outcome::Success,
        object: Some("CANARY^Jane".into()),
        detail: vec![("files", Value::Integer(files))],
    }
}

/// Writes one run of a log: its opening, `count` records, its closing. Returns the log's folder.
fn run(directory: &Path, count: i64, rotate_bytes: u64) -> PathBuf {
    let log = AuditLog::open_with(settings(directory), options(rotate_bytes)).unwrap();
    for number in 0..count {
        log.append(&event(number)).unwrap();
    }
    directory.join(log.id())
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

fn file(folder: &Path, number: u32) -> PathBuf {
    layout::segment(folder, number)
}

fn field(line: &str, name: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(line).unwrap()[name].clone()
}

fn verify(path: &Path) -> Verification {
    AuditReader::open(path).unwrap().verify()
}

#[test]
fn a_log_begins_with_its_identity_and_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("deep/audit");
    let log = run(&directory, 1, 1 << 20);
    let written = lines(&file(&log, 1));
    assert_eq!(written.len(), 3);
    let detail = field(&written[0], "detail");
    assert_eq!(field(&written[0], "event"), "log.opened");
    assert_eq!(field(&written[0], "prev"), "0".repeat(64));
    assert_eq!(detail["log"], log.file_name().unwrap().to_str().unwrap());
    assert_eq!((&detail["format"], &detail["public_key"]), (&1.into(), &serde_json::Value::Null));
    assert_eq!(detail["random"].as_str().unwrap().len(), 64);
    assert!(detail["policy"].as_str().unwrap().contains("signature=none"));
    assert_eq!(field(&written[2], "event"), "log.closed");
    assert_eq!(field(&written[2], "detail")["entries"], 3);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for path in [&directory, &log, &directory.join("heads")] {
        assert_eq!(mode(path), 0o700);
    }
    for path in [file(&log, 1), directory.join("open.lock"), heads::path(&directory, log.file_name().unwrap().to_str().unwrap())] {
        assert_eq!(mode(&path), 0o600);
    }
}

#[test]
fn each_line_quotes_the_sha_256_of_the_one_before_and_keys_are_sorted() {
    let folder = tempfile::tempdir().unwrap();
    let written = lines(&file(&run(folder.path(), 3, 1 << 20), 1));
    for (seq, pair) in written.windows(2).enumerate() {
        assert_eq!(field(&pair[1], "prev"), hex(&Sha256::digest(pair[0].as_bytes())));
        assert_eq!(field(&pair[1], "seq"), seq + 1);
    }
    for line in &written {
        assert!(line.is_ascii());
        let names = ["actor", "boot", "detail", "event", "mono", "object", "outcome", "pid", "prev", "protocol", "seq", "ts"];
        let places: Vec<usize> = names.iter().map(|name| line.find(&format!("\"{name}\":")).unwrap()).collect();
        assert!(places.is_sorted());
    }
}

#[test]
fn eight_threads_write_one_chain_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open_with(settings(folder.path()), options(200_000)).unwrap();
    let numbers: BTreeSet<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..1000).map(|n| log.append(&event(n)).unwrap()).collect::<Vec<u64>>())).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(numbers, (1..=8000).collect());
    let reader = AuditReader::open(folder.path()).unwrap();
    assert_eq!((reader.count(), reader.head()), (8001, log.head()));
    assert_eq!(reader.verify(), Verification { entries: 8001, first_bad: None, finding: None });
    drop(log);
    assert_eq!(verify(folder.path()), Verification { entries: 8002, first_bad: None, finding: None });
}

#[test]
fn a_returned_append_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(settings(folder.path())).unwrap();
    let seq = log.append(&event(5)).unwrap();
    let last = lines(&file(&folder.path().join(log.id()), 1)).pop().unwrap();
    assert_eq!((field(&last, "seq"), field(&last, "event")), (seq.into(), "study.fetched".into()));
    assert_eq!(log.head(), hex(&Sha256::digest(last.as_bytes())));
    assert_eq!(log.directory(), folder.path());
}

#[test]
fn objects_are_pseudonyms_that_the_key_holder_can_recompute() {
    let folder = tempfile::tempdir().unwrap();
    let log = run(folder.path(), 2, 1 << 20);
    let bytes = std::fs::read_to_string(file(&log, 1)).unwrap();
    assert!(!bytes.contains("CANARY") && !bytes.contains("Jane"));
    // printf 'CANARY^Jane' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…07 (32 bytes)
    let expected = "650b3459232befb3c9895207d47412b76deb4f2bf269bba8ac8a3f3acf5f9fc1";
    assert_eq!(field(&lines(&file(&log, 1))[1], "object"), expected);
}

#[test]
fn a_second_process_s_log_is_its_own_and_both_verify() {
    let folder = tempfile::tempdir().unwrap();
    let first = AuditLog::open_with(settings(folder.path()), options(1 << 20)).unwrap();
    let second = AuditLog::open_with(settings(folder.path()), options(1 << 20)).unwrap();
    assert_ne!(first.id(), second.id());
    assert_eq!((first.append(&event(1)).unwrap(), second.append(&event(2)).unwrap()), (1, 1));
    assert_eq!(verify(folder.path()).entries, 4);
    let ids = BTreeSet::from([first.id().to_owned(), second.id().to_owned()]);
    drop((first, second));
    // Both are free now: the youngest goes on, and no third log appears.
    let third = AuditLog::open_with(settings(folder.path()), options(1 << 20)).unwrap();
    assert_eq!(third.id(), ids.last().unwrap());
    assert_eq!(layout::logs(folder.path()).unwrap().len(), 2);
    assert!(verify(folder.path()).is_intact());
}

#[test]
fn a_log_goes_on_where_the_last_process_ended() {
    let folder = tempfile::tempdir().unwrap();
    let log = run(folder.path(), 2, 1 << 20);
    assert_eq!(run(folder.path(), 1, 1 << 20), log);
    let written = lines(&file(&log, 1));
    let events: Vec<String> = written.iter().map(|line| field(line, "event").as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["log.opened", "study.fetched", "study.fetched", "log.closed", "log.opened", "study.fetched", "log.closed"]);
    assert_eq!(field(&written[4], "detail")["entries"], 4);
    assert_eq!(field(&written[4], "detail")["continued"], true);
    assert_eq!(verify(folder.path()), Verification { entries: 7, first_bad: None, finding: None });
}

#[test]
fn files_rotate_by_size_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = run(folder.path(), 20, 1000);
    let numbers = layout::segments(&log).unwrap();
    assert!(numbers.len() >= 5 && layout::is_complete(&numbers), "{numbers:?}");
    for pair in numbers.windows(2) {
        let (before, after) = (lines(&file(&log, pair[0])), lines(&file(&log, pair[1])));
        assert_eq!(field(&after[0], "prev"), hex(&Sha256::digest(before.last().unwrap().as_bytes())));
    }
    assert_eq!(run(folder.path(), 3, 1000), log);
    assert_eq!(verify(folder.path()), Verification { entries: 27, first_bad: None, finding: None });
    // One file alone: what is in it chains, whatever came before.
    let middle = AuditReader::open(&file(&log, 2)).unwrap();
    assert!(middle.count() > 0 && middle.verify().is_intact());
}

#[test]
fn a_file_that_was_made_right_before_a_crash_is_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let log = run(folder.path(), 4, 1 << 20);
    std::fs::write(file(&log, 2), b"").unwrap();
    assert!(verify(folder.path()).is_intact());
    assert_eq!(run(folder.path(), 1, 1 << 20), log);
    assert_eq!(lines(&file(&log, 2)).len(), 3);
    assert_eq!(verify(folder.path()), Verification { entries: 9, first_bad: None, finding: None });
}

#[test]
fn torn_bytes_are_set_aside_and_the_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = run(folder.path(), 2, 1 << 20);
    let torn = b"{\"actor\":\"half a rec";
    let path = file(&log, 1);
    std::fs::write(&path, [std::fs::read(&path).unwrap().as_slice(), torn].concat()).unwrap();
    // To a reader this is a record under way, not a fault.
    assert_eq!(verify(folder.path()), Verification { entries: 4, first_bad: None, finding: None });
    assert_eq!(run(folder.path(), 0, 1 << 20), log);
    assert_eq!(std::fs::read(log.join("000001.torn")).unwrap(), torn);
    let told = &lines(&path)[4];
    assert_eq!((field(told, "event"), field(told, "outcome")), ("log.torn_tail".into(), "failure".into()));
    let detail = field(told, "detail");
    assert_eq!((&detail["bytes"], &detail["file"]), (&torn.len().into(), &1.into()));
    assert_eq!(detail["sha256"], hex(&Sha256::digest(torn)));
    assert_eq!(verify(folder.path()), Verification { entries: 7, first_bad: None, finding: None });
}

#[test]
fn a_clock_that_ran_backwards_is_written_and_flagged() {
    let folder = tempfile::tempdir().unwrap();
    let time = Arc::new(AtomicI64::new(THEN));
    let open = || AuditLog::open_with(settings(folder.path()), Options { clock: still(&time), ..options(1 << 20) }).unwrap();
    let log = open();
    for micros in [THEN + 10, THEN + 3, THEN + 4] {
        time.store(micros, Ordering::Relaxed);
        log.append(&event(0)).unwrap();
    }
    let path = file(&folder.path().join(log.id()), 1);
    drop(log);
    time.store(THEN, Ordering::Relaxed);
    drop(open());
    let back: Vec<Option<i64>> = lines(&path).iter().map(|line| field(line, "detail")["clock_back_us"].as_i64()).collect();
    assert_eq!(back, [None, None, Some(7), None, None, Some(4), None]);
    assert_eq!(field(&lines(&path)[2], "ts"), "2023-11-14T22:13:20.000003Z");
    assert!(verify(folder.path()).is_intact());
}

#[test]
fn an_unlisted_detail_is_refused_here_and_left_out_in_production() {
    let folder = tempfile::tempdir().unwrap();
    let stray = Event { detail: vec![("files", Value::Integer(1)), ("text", Value::Text("Jane".into()))], ..event(0) };
    let log = AuditLog::open_with(settings(folder.path()), options(1 << 20)).unwrap();
    assert_eq!(log.append(&stray).unwrap_err().kind(), Kind::Internal);
    let path = file(&folder.path().join(log.id()), 1);
    drop(log);
    let log = AuditLog::open_with(settings(folder.path()), Options { strict: false, ..options(1 << 20) }).unwrap();
    log.append(&stray).unwrap();
    let last = lines(&path).pop().unwrap();
    assert_eq!(field(&last, "detail"), serde_json::json!({"details_dropped": 1, "files": 1}));
}

#[test]
fn the_summary_works_before_the_first_study() {
    let folder = tempfile::tempdir().unwrap();
    let time = Arc::new(AtomicI64::new(THEN));
    let log = AuditLog::open_with(settings(folder.path()), Options { clock: still(&time), ..options(1 << 20) }).unwrap();
    let summary = log.summary().unwrap();
    assert_eq!((summary.total_entries, summary.integrity_verified, summary.user_id.as_str()), (1, true, "dr.o'hara"));
    assert_eq!((summary.log_path.as_path(), &summary.head), (folder.path(), &log.head()));
    assert_eq!(summary.first.as_deref(), Some("2023-11-14T22:13:20.000000Z"));
    time.store(THEN + 1, Ordering::Relaxed);
    log.append(&event(0)).unwrap();
    log.append(&event(0)).unwrap();
    let summary = log.summary().unwrap();
    assert_eq!(summary.last.as_deref(), Some("2023-11-14T22:13:20.000001Z"));
    assert_eq!(summary.by_event, [("log.opened".to_owned(), 1), ("study.fetched".to_owned(), 2)]);
    assert_eq!(summary.head, log.head());
}

/// A log with one record at each of these times, besides its opening and closing at the first and the last.
fn dated(directory: &Path, times: &[&str]) {
    let micros: Vec<i64> = times.iter().map(|time| clock::parse_instant(time).unwrap()).collect();
    let time = Arc::new(AtomicI64::new(micros[0]));
    let log = AuditLog::open_with(settings(directory), Options { clock: still(&time), ..options(1 << 20) }).unwrap();
    for moment in micros {
        time.store(moment, Ordering::Relaxed);
        log.append(&event(0)).unwrap();
    }
}

#[test]
fn exports_hold_exactly_the_days_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("audit");
    let times = ["2024-02-28T23:59:59.999999Z", "2024-02-29T00:00:00Z", "2024-02-29T23:59:59.999999Z", "2024-03-01T00:00:00Z"];
    dated(&directory, &times);
    let reader = AuditReader::open(&directory).unwrap();
    let target = folder.path().join("out/of/here/audit.json");
    // The opening has the first time and the closing the last one, so the ends count double.
    for (start, end, count) in [
        (None, None, 6),
        (Some("2024-02-29"), Some("2024-02-29"), 2),
        (Some("2024-02-28"), Some("2024-02-28"), 2),
        (Some("2024-03-01"), None, 2),
        (None, Some("2024-02-29"), 4),
        (Some("2024-02-29T00:00:00Z"), Some("2024-02-29T00:00:00Z"), 1),
        (Some("2024-02-29T01:00:00+01:00"), Some("2024-02-29T23:59:59Z"), 1),
        (Some("2025-01-01"), None, 0),
    ] {
        assert_eq!(reader.export("json", &target, start, end).unwrap(), count, "{start:?} {end:?}");
        let export: serde_json::Value = serde_json::from_slice(&std::fs::read(&target).unwrap()).unwrap();
        assert_eq!(export["records"].as_array().unwrap().len() as u64, count);
        assert_eq!((&export["count"], &export["integrity_verified"], &export["entries_read"]), (&count.into(), &true.into(), &6.into()));
        assert_eq!(export["heads"][0]["head"], reader.head());
    }
    assert_eq!(std::fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn an_exported_record_is_the_log_s_own_line() {
    let folder = tempfile::tempdir().unwrap();
    let log = run(&folder.path().join("audit"), 3, 1 << 20);
    let target = folder.path().join("audit.json");
    AuditReader::open(&folder.path().join("audit")).unwrap().export("json", &target, None, None).unwrap();
    let export = std::fs::read_to_string(&target).unwrap();
    for line in lines(&file(&log, 1)) {
        assert!(export.contains(&line));
    }
}

#[test]
fn a_csv_export_is_rfc_4180_and_no_cell_is_a_formula() {
    let folder = tempfile::tempdir().unwrap();
    run(&folder.path().join("audit"), 1, 1 << 20);
    let target = folder.path().join("audit.csv");
    assert_eq!(AuditReader::open(&folder.path().join("audit")).unwrap().export("csv", &target, None, None).unwrap(), 3);
    let text = std::fs::read_to_string(&target).unwrap();
    let rows: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0], "log,seq,ts,mono,boot,pid,actor,protocol,event,outcome,object,detail,prev");
    assert!(rows[2].contains(",dr.o'hara,\"'=IRB-2025-7\",study.fetched,success,"));
    assert!(rows[2].contains(",\"{\"\"files\"\":0}\","));
}

#[test]
fn an_export_that_cannot_be_made_says_why_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    run(&folder.path().join("audit"), 1, 1 << 20);
    let reader = AuditReader::open(&folder.path().join("audit")).unwrap();
    let target = folder.path().join("x.json");
    let kind = |format: &str, path: &Path, start: Option<&str>| reader.export(format, path, start, None).unwrap_err().kind();
    assert_eq!(kind("fhir", &target, None), Kind::OutputUnsupported);
    assert_eq!(kind("json", &target, Some("soon")), Kind::InvalidArgument);
    assert!(!target.exists());
    std::fs::write(folder.path().join("file"), b"").unwrap();
    assert_eq!(kind("json", &folder.path().join("file/x.json"), None), Kind::OutputUnwritable);
    std::fs::create_dir(&target).unwrap();
    assert_eq!(kind("json", &target, None), Kind::OutputUnwritable);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn what_is_no_log_is_not_opened_as_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("letter.txt"), b"Dear Sir\n").unwrap();
    for path in [folder.path().join("absent"), folder.path().to_owned(), folder.path().join("letter.txt"), PathBuf::from("/dev/null")] {
        assert_eq!(AuditReader::open(&path).err().map(|error| error.kind()), Some(Kind::AuditUnreadable), "{path:?}");
    }
    let locked = folder.path().join("letter.txt");
    assert_eq!(AuditLog::open(settings(&locked)).err().map(|error| error.kind()), Some(Kind::AuditUnwritable));
    let wordy = Settings { actor: "x".repeat(257), ..settings(&folder.path().join("audit")) };
    assert_eq!(AuditLog::open(wordy).err().map(|error| error.kind()), Some(Kind::InvalidArgument));
}
