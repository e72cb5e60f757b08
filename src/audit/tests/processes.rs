//! Claims that need a second process: the test binary runs itself with one of the ignored tests below and a folder in the environment.

use super::*;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

/// Names the folder that a child writes into.
const FOLDER: &str = "SMP_AUDIT_CHILD_FOLDER";

fn child(test: &str, directory: &Path, through_shell: Option<&str>) -> Child {
    let program = std::env::current_exe().unwrap();
    let test = format!("audit::tests::processes::{test}");
    let arguments = ["--exact", &test, "--ignored", "--nocapture", "--test-threads=1"];
    let mut command = match through_shell {
        Some(preparation) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{preparation}; exec \"$0\" \"$@\"")]).arg(program);
            shell
        }
        None => Command::new(program),
    };
    command.args(arguments).env(FOLDER, directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The folder that a child was given; nothing, and loudly so, when the test was started by hand.
fn folder_of_child() -> Option<PathBuf> {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from);
    if folder.is_none() {
        println!("SKIPPED: this is a child process of other tests");
    }
    folder
}

/// Sequence numbers that a line of a child's output acknowledges.
fn acknowledged(line: &str) -> Option<u64> {
    line.split_once("acknowledged ").and_then(|(_, number)| number.trim().parse().ok())
}

#[test]
#[ignore = "run by other tests, as a child process"]
fn child_that_appends_until_it_is_killed() {
    let Some(directory) = folder_of_child() else { return };
    let log = AuditLog::open_with(settings(&directory), options(20_000)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    println!("acknowledged {}", log.append(&event(1)).unwrap());
                }
            });
        }
    });
}

#[test]
#[ignore = "run by other tests, as a child process"]
fn child_that_fills_the_disk() {
    let Some(directory) = folder_of_child() else { return };
    let log = AuditLog::open_with(settings(&directory), options(1 << 30)).unwrap();
    let error = loop {
        match log.append(&event(1)) {
            Ok(seq) => println!("acknowledged {seq}"),
            Err(error) => break error,
        }
    };
    println!("refused {} {}", error.code(), log.head());
    // The next attempt fails as well and changes nothing.
    let before = log.head();
    assert!(log.append(&event(1)).is_err());
    assert_eq!(log.head(), before);
}

#[test]
fn killing_the_process_loses_no_acknowledged_record() {
    let folder = tempfile::tempdir().unwrap();
    // SMP_KILLS=1000 makes it the long run.
    let kills: u64 = std::env::var("SMP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(8);
    let mut before = 0;
    for kill in 0..kills {
        let mut child = child("child_that_appends_until_it_is_killed", folder.path(), None);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (mut newest, mut seen) = (0, 0);
        let mut line = String::new();
        while output.read_line(&mut line).unwrap() > 0 {
            if let Some(seq) = acknowledged(&line) {
                newest = newest.max(seq);
                seen += 1;
                // A different moment each time.
                if seen == 20 + 7 * (kill % 11) {
                    child.kill().unwrap();
                }
            }
            line.clear();
        }
        child.wait().unwrap();
        assert!(seen >= 20, "the child wrote nothing");
        let reader = AuditReader::open(folder.path()).unwrap();
        assert_eq!(reader.verify().first_bad, None);
        assert!(reader.count() > newest && newest > before, "entry {newest} of {}", reader.count());
        before = newest;
    }
    // All runs went on with one log, and a new process still does.
    assert_eq!(layout::logs(folder.path()).unwrap().len(), 1);
    run(folder.path(), 1, 20_000);
    assert!(verify(folder.path()).is_intact());
}

#[test]
fn a_full_disk_refuses_the_record_and_leaves_a_log_that_verifies() {
    let folder = tempfile::tempdir().unwrap();
    // A limit on the size of files stands for the disk: the write fails half way, as it does when space runs out. Without the trap
    // the system would end the process.
    let mut child = child("child_that_fills_the_disk", folder.path(), Some("trap '' XFSZ; ulimit -f 60"));
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success(), "{output}");
    let newest = output.lines().filter_map(acknowledged).max().unwrap();
    let refused: Vec<&str> = output.lines().find_map(|line| line.split_once("refused ")).unwrap().1.split(' ').collect();
    assert_eq!(refused[0], Kind::AuditUnwritable.code().to_string());
    let reader = AuditReader::open(folder.path()).unwrap();
    assert!(reader.verify().is_intact());
    // What is there is what was acknowledged; a closing line may have found room at the end.
    let id = layout::logs(folder.path()).unwrap().remove(0);
    let written = lines(&file(&folder.path().join(id), 1));
    let last = written.iter().rfind(|line| field(line, "event") == "study.fetched").unwrap();
    assert_eq!(field(last, "seq"), newest);
    assert_eq!(hex(&Sha256::digest(last.as_bytes())), refused[1]);
    // With room again, the log goes on.
    run(folder.path(), 1, 1 << 30);
    assert!(verify(folder.path()).is_intact());
}

#[test]
fn another_process_gets_another_log_while_this_one_writes() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open_with(settings(folder.path()), options(1 << 20)).unwrap();
    let mut child = child("child_that_appends_until_it_is_killed", folder.path(), None);
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(output.any(|line| acknowledged(&line.unwrap()).is_some()));
    log.append(&event(1)).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(layout::logs(folder.path()).unwrap().len(), 2);
    assert!(verify(folder.path()).is_intact());
}

#[test]
fn a_stranger_verifies_with_the_ten_lines_of_the_documentation() {
    let page = include_str!("../../../docs/audit-log.md");
    let script = page.split_once("```python\n").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
    let folder = tempfile::tempdir().unwrap();
    let log = run(folder.path(), 30, 2_000);
    let program = folder.path().join("verify.py");
    std::fs::write(&program, script).unwrap();
    let python = |log: &Path| Command::new("python3").arg(&program).arg(log).output();
    let Ok(good) = python(&log) else {
        println!("SKIPPED: there is no python3, so the documented script was not run");
        return;
    };
    let told = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(good.status.success(), "{told}{}", String::from_utf8_lossy(&good.stderr));
    assert!(told.contains("32 entries") && told.contains(&AuditReader::open(&log).unwrap().head()), "{told}");
    let path = file(&log, 2);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("success", "failure", 1)).unwrap();
    assert!(!python(&log).unwrap().status.success());
    std::fs::write(&path, text).unwrap();
    let last = file(&log, *layout::segments(&log).unwrap().last().unwrap());
    let text = std::fs::read_to_string(&last).unwrap();
    let cut = text.trim_end().rfind('\n').map_or(0, |at| at + 1);
    std::fs::write(&last, &text[..cut]).unwrap();
    assert!(!python(&log).unwrap().status.success());
}
