//! Each way of tampering with a log, and the claim that it shows. `first_bad` is worked out by hand from the layout of the log.

use super::*;
use std::fs;

/// A log of 22 entries, four of them to a file: opening, 20 records, closing. The closing leaves a kept head.
struct Log {
    _folder: tempfile::TempDir,
    directory: PathBuf,
    folder: PathBuf,
    id: String,
}

/// Lines per file. One record has about 430 bytes and the opening about 800, so 1,500 bytes are passed by the fourth line.
const PER_FILE: usize = 4;

fn log() -> Log {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("audit");
    let log = run(&directory, 20, 1_400);
    let id = log.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(verify(&directory), Verification { entries: 22, first_bad: None, finding: None });
    Log { _folder: folder, directory, folder: log, id }
}

impl Log {
    fn read(&self) -> Vec<Vec<String>> {
        layout::segments(&self.folder).unwrap().into_iter().map(|number| lines(&file(&self.folder, number))).collect()
    }

    /// Number of the file and index of the line in it that hold an entry.
    fn place(&self, entry: usize) -> (usize, usize) {
        let mut rest = entry;
        for (number, lines) in self.read().iter().enumerate() {
            if rest < lines.len() {
                return (number, rest);
            }
            rest -= lines.len();
        }
        panic!("no such entry");
    }

    fn write(&self, files: &[Vec<String>]) {
        for (number, lines) in files.iter().enumerate() {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            fs::write(file(&self.folder, number as u32 + 1), text).unwrap();
        }
    }

    fn entries(&self) -> Vec<String> {
        self.read().concat()
    }

    /// Puts other entries in the place of the log's, file by file as long as they were.
    fn replace(&self, entries: &[String]) {
        let mut rest = entries;
        let mut files = Vec::new();
        for lines in self.read() {
            let (these, others) = rest.split_at(lines.len().min(rest.len()));
            files.push(these.to_vec());
            rest = others;
        }
        files.last_mut().unwrap().extend_from_slice(rest);
        self.write(&files);
    }

    #[track_caller]
    fn shows(&self, first_bad: u64, fault: Fault) {
        let found = verify(&self.directory);
        assert_eq!((found.first_bad, found.finding.as_ref().map(|finding| finding.fault)), (Some(first_bad), Some(fault)), "{found:?}");
        assert_eq!(found.finding.unwrap().log, self.id);
    }

    /// The tampering shows when the log is to be continued, too.
    #[track_caller]
    fn is_not_continued(&self) {
        let error = AuditLog::open_with(settings(&self.directory), options(1_400)).err().unwrap();
        assert_eq!(error.kind(), Kind::AuditTampered, "{error}");
    }
}

/// Entries that chain: each one's `prev` computed anew.
fn rehash(entries: &mut [String]) {
    for at in 1..entries.len() {
        let old = field(&entries[at], "prev").as_str().unwrap().to_owned();
        entries[at] = entries[at].replace(&old, &hex(&Sha256::digest(entries[at - 1].as_bytes())));
    }
}

#[test]
fn an_edited_line_is_found() {
    for entry in [0, 1, 3, 4, 10, 20] {
        let log = log();
        let mut entries = log.entries();
        entries[entry] = entries[entry].replace("success", "failure");
        log.replace(&entries);
        log.shows(entry as u64, Fault::Changed);
        let (file, line) = log.place(entry);
        let finding = verify(&log.directory).finding.unwrap();
        assert_eq!((finding.file as usize, finding.line as usize), (file + 1, line + 1));
    }
}

#[test]
fn an_edited_last_line_is_found_by_the_kept_head() {
    let log = log();
    let mut entries = log.entries();
    entries[21] = entries[21].replace("success", "failure");
    log.replace(&entries);
    log.shows(21, Fault::HeadDiffers);
    log.is_not_continued();
}

#[test]
fn any_changed_byte_is_found() {
    let log = log();
    for number in [1, 3] {
        let path = file(&log.folder, number);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            let found = verify(&log.directory);
            assert!(!found.is_intact(), "byte {at} of file {number}");
        }
        fs::write(&path, &good).unwrap();
    }
    assert!(verify(&log.directory).is_intact());
}

#[test]
fn a_line_that_is_no_record_is_found() {
    let log = log();
    let mut entries = log.entries();
    for bad in ["", "{}", "[1]", "\u{fffd}", &"x".repeat(100_000)] {
        entries[6] = bad.to_owned();
        log.replace(&entries);
        log.shows(6, Fault::Malformed);
    }
}

#[test]
fn lines_cut_from_the_middle_are_found() {
    for (from, to) in [(1, 2), (5, 9), (2, 18)] {
        let log = log();
        let mut entries = log.entries();
        entries.drain(from..to);
        log.replace(&entries);
        log.shows(from as u64, Fault::OutOfSequence);
    }
}

#[test]
fn a_beginning_that_was_cut_off_is_found() {
    let log = log();
    let entries = log.entries();
    log.replace(&entries[1..]);
    log.shows(0, Fault::OutOfSequence);
    log.is_not_continued();
    let mut renumbered: Vec<String> = entries[1..]
        .iter()
        .enumerate()
        .map(|(seq, line)| line.replace(&format!("\"seq\":{}", seq + 1), &format!("\"seq\":{seq}")))
        .collect();
    rehash(&mut renumbered);
    log.replace(&renumbered);
    log.shows(0, Fault::NoBeginning);
}

#[test]
fn a_cut_tail_is_found_by_the_kept_head() {
    for left in [21, 17, 2, 1] {
        let log = log();
        let entries = log.entries();
        log.replace(&entries[..left]);
        log.shows(left as u64, Fault::ShorterThanHead);
        log.is_not_continued();
    }
}

#[test]
fn a_tail_cut_inside_a_line_is_found_by_the_kept_head() {
    let log = log();
    let last = file(&log.folder, *layout::segments(&log.folder).unwrap().last().unwrap());
    let bytes = fs::read(&last).unwrap();
    fs::write(&last, &bytes[..bytes.len() - 1]).unwrap();
    log.shows(21, Fault::ShorterThanHead);
    log.is_not_continued();
}

#[test]
fn a_tail_cut_after_the_kept_head_is_not_found_and_the_documentation_says_so() {
    let log = log();
    let head = fs::read(heads::path(&log.directory, &log.id)).unwrap();
    run(&log.directory, 5, 1 << 20);
    let longer = log.entries();
    assert_eq!(longer.len(), 29);
    // As after a crash: the head is a second old.
    fs::write(heads::path(&log.directory, &log.id), &head).unwrap();
    log.replace(&longer[..25]);
    assert_eq!(verify(&log.directory), Verification { entries: 25, first_bad: None, finding: None });
    log.replace(&longer[..21]);
    log.shows(21, Fault::ShorterThanHead);
    assert!(include_str!("../../../docs/audit-log.md").contains("last second"));
}

#[test]
fn an_edit_with_all_hashes_computed_anew_is_found_by_the_kept_head() {
    let log = log();
    let mut entries = log.entries();
    entries[8] = entries[8].replace("success", "failure");
    rehash(&mut entries);
    log.replace(&entries);
    log.shows(21, Fault::HeadDiffers);
    log.is_not_continued();
}

#[test]
fn reordered_lines_are_found() {
    for at in [1, 3, 19] {
        let log = log();
        let mut entries = log.entries();
        entries.swap(at, at + 1);
        log.replace(&entries);
        log.shows(at as u64, Fault::OutOfSequence);
    }
}

#[test]
fn a_doubled_line_is_found() {
    for at in [0, 7, 21] {
        let log = log();
        let mut entries = log.entries();
        entries.insert(at, entries[at].clone());
        log.replace(&entries);
        log.shows(at as u64 + 1, Fault::OutOfSequence);
    }
}

#[test]
fn an_inserted_line_is_found() {
    let log = log();
    let mut entries = log.entries();
    let forged = entries[9].replace("\"files\":8", "\"files\":80");
    entries.insert(9, forged);
    log.replace(&entries);
    log.shows(10, Fault::OutOfSequence);
}

#[test]
fn files_that_changed_names_are_found() {
    let log = log();
    let (two, three, aside) = (file(&log.folder, 2), file(&log.folder, 3), log.folder.join("aside"));
    let before = log.read()[0].len() as u64;
    fs::rename(&two, &aside).unwrap();
    fs::rename(&three, &two).unwrap();
    fs::rename(&aside, &three).unwrap();
    log.shows(before, Fault::OutOfSequence);
}

#[test]
fn a_missing_file_is_found() {
    let log = log();
    let before = log.read()[0].len() as u64;
    fs::remove_file(file(&log.folder, 2)).unwrap();
    log.shows(before, Fault::FileMissing);
    log.is_not_continued();
    fs::remove_file(file(&log.folder, 1)).unwrap();
    log.shows(0, Fault::FileMissing);
    log.is_not_continued();
}

#[test]
fn a_renamed_log_is_found() {
    let log = log();
    let other = "20200101T000000Z-0000000000000000";
    fs::rename(&log.folder, log.directory.join(other)).unwrap();
    let head = fs::read_to_string(heads::path(&log.directory, &log.id)).unwrap().replace(&log.id, other);
    fs::remove_file(heads::path(&log.directory, &log.id)).unwrap();
    fs::write(heads::path(&log.directory, other), head).unwrap();
    Log { id: other.into(), ..log }.shows(0, Fault::Renamed);
}

#[test]
fn a_log_that_was_taken_away_is_found() {
    let log = log();
    run(&log.directory, 0, 1 << 20);
    fs::remove_dir_all(&log.folder).unwrap();
    log.shows(0, Fault::LogMissing);
    log.is_not_continued();
}

#[test]
fn a_log_that_was_put_in_place_of_an_older_copy_of_itself_is_found() {
    let log = log();
    let old = log.read();
    run(&log.directory, 4, 1_400);
    for number in layout::segments(&log.folder).unwrap() {
        fs::remove_file(file(&log.folder, number)).unwrap();
    }
    log.write(&old);
    log.shows(22, Fault::ShorterThanHead);
    log.is_not_continued();
}

#[test]
fn a_fork_is_found_even_when_it_is_longer() {
    let log = log();
    let (old, old_head) = (log.entries(), fs::read(heads::path(&log.directory, &log.id)).unwrap());
    run(&log.directory, 2, 1 << 20);
    let true_head = fs::read(heads::path(&log.directory, &log.id)).unwrap();
    // The same past with another future, written by the writer itself.
    log.replace(&old);
    fs::write(heads::path(&log.directory, &log.id), old_head).unwrap();
    run(&log.directory, 9, 1 << 20);
    fs::write(heads::path(&log.directory, &log.id), true_head).unwrap();
    // 22 entries, then opening, two records and closing: the true head is entry 25.
    log.shows(25, Fault::HeadDiffers);
    log.is_not_continued();
}

#[test]
fn a_lost_or_damaged_head_is_found() {
    let log = log();
    let path = heads::path(&log.directory, &log.id);
    let good = fs::read(&path).unwrap();
    fs::write(&path, b"{}").unwrap();
    log.shows(22, Fault::HeadLost);
    log.is_not_continued();
    fs::remove_file(&path).unwrap();
    log.shows(22, Fault::HeadLost);
    log.is_not_continued();
    fs::write(&path, good).unwrap();
    assert!(verify(&log.directory).is_intact());
}

#[test]
fn a_link_in_place_of_a_file_or_a_log_is_found() {
    let log = log();
    let (one, aside) = (file(&log.folder, 2), log.directory.join("aside"));
    fs::rename(&one, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &one).unwrap();
    assert_eq!(verify(&log.directory).first_bad, Some(log.read()[0].len() as u64));
    fs::remove_file(&one).unwrap();
    fs::rename(&aside, &one).unwrap();
    fs::rename(&log.folder, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &log.folder).unwrap();
    log.shows(0, Fault::Unreadable);
    log.is_not_continued();
}

#[test]
fn a_line_without_a_line_feed_in_the_middle_is_found() {
    let log = log();
    let first = file(&log.folder, 1);
    let count = log.read()[0].len() as u64;
    let bytes = fs::read(&first).unwrap();
    fs::write(&first, &bytes[..bytes.len() - 1]).unwrap();
    log.shows(count - 1, Fault::Unfinished);
}

#[test]
fn the_second_of_two_logs_is_counted_after_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let held = AuditLog::open_with(settings(folder.path()), options(1 << 20)).unwrap();
    run(folder.path(), 3, 1 << 20);
    held.append(&event(1)).unwrap();
    drop(held);
    let ids = layout::logs(folder.path()).unwrap();
    let first = AuditReader::open(&folder.path().join(&ids[0])).unwrap();
    let path = file(&folder.path().join(&ids[1]), 1);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("log.opened", "log.opaned", 1)).unwrap();
    let found = verify(folder.path());
    assert_eq!((found.first_bad, found.entries), (Some(first.count()), 8));
    assert!(first.verify().is_intact());
}

#[test]
fn a_tampered_log_is_exported_and_summarized_as_such() {
    let log = log();
    let mut entries = log.entries();
    entries[6] = entries[6].replace("success", "failure");
    log.replace(&entries);
    let target = log.directory.join("export.json");
    assert_eq!(AuditReader::open(&log.directory).unwrap().export("json", &target, None, None).unwrap(), 22);
    let export: serde_json::Value = serde_json::from_slice(&fs::read(&target).unwrap()).unwrap();
    assert_eq!((&export["integrity_verified"], &export["first_bad"]), (&false.into(), &6.into()));
    // The end of the log is untouched, so it can be continued; the summary says what is wrong further up.
    let open = AuditLog::open_with(settings(&log.directory), options(1_400)).unwrap();
    assert!(!open.summary().unwrap().integrity_verified);
}

#[test]
fn the_log_of_these_tests_has_several_files_of_several_lines() {
    let counts: Vec<usize> = log().read().iter().map(Vec::len).collect();
    assert!(counts.len() >= 4 && counts.iter().rev().skip(1).all(|count| (2..=PER_FILE).contains(count)), "{counts:?}");
}
