//! Erasure on real files, and on real disks where the system lets us mount one.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn kind_of(outcome: Result<Report>) -> Kind {
    outcome.unwrap_err().kind()
}

#[test]
fn a_folder_goes_with_all_below_it() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("study");
    for number in 0..20 {
        file(&folder, &format!("a/{number}/x"), &vec![7; 1000 * number]);
    }
    let read_only = file(&folder, "b/read-only", b"abc");
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o400)).unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    let report = erase_directory(&folder, 3, &Control::new()).unwrap();
    // 1000 (0 + 1 + .. + 19) + 3
    assert_eq!((report.files, report.bytes, report.passes), (21, 190_003, 3));
    assert!(report.verdict.is_some() && !report.file_system.is_empty());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn an_empty_folder_has_no_verdict() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("x")).unwrap();
    assert_eq!(erase_directory(&place.path().join("x/"), 1, &Control::new()).unwrap().verdict, None);
    assert!(!place.path().join("x").exists());
}

#[test]
fn a_link_is_never_followed() {
    let place = tempfile::tempdir().unwrap();
    let kept = file(place.path(), "kept/file", b"canary");
    let folder = place.path().join("study");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&kept, folder.join("to-file")).unwrap();
    std::os::unix::fs::symlink(kept.parent().unwrap(), folder.join("to-folder")).unwrap();
    std::os::unix::fs::symlink(&folder, place.path().join("to-study")).unwrap();
    for path in [folder.join("to-file"), place.path().join("to-study")] {
        assert_eq!(kind_of(erase_file(&path, 1, &Control::new())), Kind::EraseRefused);
        assert_eq!(kind_of(erase_directory(&path, 1, &Control::new())), Kind::EraseRefused);
    }
    assert_eq!(erase_directory(&folder, 1, &Control::new()).unwrap().others, 2);
    assert_eq!(fs::read(&kept).unwrap(), b"canary");
    assert!(!folder.exists());
}

#[test]
fn folders_of_the_system_and_of_people_are_refused() {
    // Cancelled before it begins: should a refusal ever be lost, this test must fail and not erase the machine that it runs on.
    let harmless = Control::new();
    harmless.cancel();
    let home = std::env::home_dir().unwrap();
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("x")).unwrap();
    let up = place.path().join("x/..");
    for path in
        ["/", "/tmp", "/etc", "/usr/share", "/dev", "/proc/self", "/home", "/..", ""].map(Path::new).into_iter().chain([&*home, &up])
    {
        assert_eq!(kind_of(erase_directory(path, 1, &harmless)), Kind::EraseRefused, "{path:?}");
    }
    for path in ["/dev/null", "/proc/self/mem", "/etc/hostname", "/usr/bin/env", "/tmp"].map(Path::new) {
        assert_eq!(kind_of(erase_file(path, 1, &harmless)), Kind::EraseRefused, "{path:?}");
    }
    assert!(place.path().join("x").exists() && Path::new("/etc/hostname").exists());
}

#[test]
fn nothing_and_too_many_passes_are_errors() {
    let place = tempfile::tempdir().unwrap();
    assert_eq!(kind_of(erase_file(&place.path().join("none"), 1, &Control::new())), Kind::EraseFailed);
    assert_eq!(kind_of(erase_directory(&place.path().join("none/none"), 1, &Control::new())), Kind::EraseFailed);
    let kept = file(place.path(), "kept", b"canary");
    assert_eq!(kind_of(erase_file(&kept, 0, &Control::new())), Kind::InvalidArgument);
    assert_eq!(kind_of(erase_directory(&kept, 1, &Control::new())), Kind::EraseRefused);
    assert_eq!(kind_of(erase_file(place.path(), 1, &Control::new())), Kind::EraseRefused);
    assert_eq!(fs::read(&kept).unwrap(), b"canary");
}

#[test]
fn a_hard_linked_file_is_overwritten_under_all_names_and_reported() {
    let place = tempfile::tempdir().unwrap();
    let first = file(place.path(), "first", b"canary");
    let second = place.path().join("second");
    fs::hard_link(&first, &second).unwrap();
    assert_eq!(erase_file(&first, 1, &Control::new()).unwrap().hard_linked, 1);
    assert!(!first.exists());
    assert_eq!(fs::read(&second).unwrap(), b"");
}

#[test]
fn a_cancelled_erasure_stops_before_the_next_file() {
    let place = tempfile::tempdir().unwrap();
    let kept = file(place.path(), "study/file", b"canary");
    let control = Control::new();
    control.cancel();
    assert_eq!(kind_of(erase_directory(&place.path().join("study"), 1, &control)), Kind::Cancelled);
    assert_eq!(fs::read(&kept).unwrap(), b"canary");
}

#[test]
fn a_pipe_is_removed_without_waiting_for_its_other_end() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("study");
    fs::create_dir(&folder).unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap().success());
    assert_eq!(kind_of(erase_file(&folder.join("pipe"), 1, &Control::new())), Kind::EraseRefused);
    assert_eq!(erase_directory(&folder, 1, &Control::new()).unwrap().others, 1);
}

#[test]
fn memory_is_no_disk_to_overwrite() {
    let Ok(place) = tempfile::tempdir_in("/dev/shm") else {
        println!("SKIPPED: /dev/shm is not there");
        return;
    };
    let report = erase_file(&file(place.path(), "x", b"abc"), 1, &Control::new()).unwrap();
    assert_eq!((report.file_system.as_str(), report.verdict), ("tmpfs", Some(Verdict::DeletedOnly)));
}

/// An image with a file system of its own, mounted; unmounted when dropped.
struct Mounted {
    place: tempfile::TempDir,
}

impl Mounted {
    /// `None`, loudly, where the system does not let us: not root, no loop devices, no such file system.
    fn new(make: &[&str], mount_options: &str) -> Option<Mounted> {
        let place = tempfile::tempdir().unwrap();
        fs::File::create(place.path().join("image")).unwrap().set_len(64 << 20).unwrap();
        fs::create_dir(place.path().join("mounted")).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            Command::new(program).args(arguments).current_dir(place.path()).output().is_ok_and(|output| output.status.success())
        };
        let made = run(make[0], &[&make[1..], &["image"]].concat());
        let options = format!("loop,{mount_options}");
        if !made || !run("mount", &["-o", options.trim_end_matches(','), "image", "mounted"]) {
            println!("SKIPPED: {} cannot be made or mounted here (needs root and loop devices)", make[0]);
            return None;
        }
        Some(Mounted { place })
    }

    fn path(&self) -> PathBuf {
        self.place.path().join("mounted")
    }

    /// How often the bytes are on the raw disk, after everything is flushed.
    fn count_on_disk(&self, bytes: &[u8]) -> usize {
        assert!(Command::new("sync").arg("-f").arg(self.path()).status().unwrap().success());
        let image = fs::read(self.place.path().join("image")).unwrap();
        let starts = image.iter().enumerate().filter(|(_, byte)| **byte == bytes[0]);
        starts.filter(|(at, _)| image[*at..].starts_with(bytes)).count()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// 64 files that are full of a text found nowhere else; returns the text.
fn write_canaries(folder: &Path) -> Vec<u8> {
    let canary = format!("canary-{}", random_name().unwrap()).into_bytes();
    for number in 0..64 {
        let path = file(folder, &format!("{}/{number}", number % 8), &canary.repeat(400));
        fs::File::open(path).unwrap().sync_all().unwrap();
    }
    canary
}

#[test]
fn nothing_of_the_contents_is_left_on_a_raw_ext4_disk() {
    let Some(disk) = Mounted::new(&["mkfs.ext4", "-q", "-F"], "") else { return };
    let deleted = write_canaries(&disk.path().join("deleted"));
    let erased = write_canaries(&disk.path().join("erased"));
    assert!(disk.count_on_disk(&deleted) > 20_000 && disk.count_on_disk(&erased) > 20_000, "the search finds what is there");
    fs::remove_dir_all(disk.path().join("deleted")).unwrap();
    assert!(disk.count_on_disk(&deleted) > 20_000, "deleting alone leaves it all");
    for passes in [1, 3] {
        let canary = if passes == 1 { erased.clone() } else { write_canaries(&disk.path().join("erased")) };
        let report = erase_directory(&disk.path().join("erased"), passes, &Control::new()).unwrap();
        assert_eq!((report.file_system.as_str(), report.verdict, report.files), ("ext4", Some(Verdict::Overwritten), 64));
        assert_eq!(disk.count_on_disk(&canary), 0, "{passes} passes");
    }
}

#[test]
fn a_journal_of_contents_is_a_copy_and_the_verdict_says_so() {
    let Some(disk) = Mounted::new(&["mkfs.ext4", "-q", "-F"], "data=journal") else { return };
    let canary = write_canaries(&disk.path().join("study"));
    let report = erase_directory(&disk.path().join("study"), 1, &Control::new()).unwrap();
    assert_eq!((report.file_system.as_str(), report.verdict), ("ext4", Some(Verdict::DeletedOnly)));
    assert!(disk.count_on_disk(&canary) > 0, "the journal still has some, which is why");
}

#[test]
fn a_file_that_journals_its_contents_is_not_called_overwritten() {
    let Some(disk) = Mounted::new(&["mkfs.ext4", "-q", "-F"], "") else { return };
    let journaled = file(&disk.path(), "x", b"abc");
    if !Command::new("chattr").arg("+j").arg(&journaled).status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: chattr +j does not work here");
        return;
    }
    assert_eq!(erase_file(&journaled, 1, &Control::new()).unwrap().verdict, Some(Verdict::DeletedOnly));
}

#[test]
fn a_mount_point_is_refused_and_everything_stays() {
    let Some(disk) = Mounted::new(&["mkfs.ext4", "-q", "-F"], "") else { return };
    let inside = file(&disk.path(), "x", b"canary");
    // The temporary folder holds the mount point.
    let beside = file(disk.place.path(), "y", b"canary");
    for path in [&disk.path(), disk.place.path()] {
        assert_eq!(kind_of(erase_directory(path, 1, &Control::new())), Kind::EraseRefused);
    }
    assert_eq!((fs::read(&inside).unwrap(), fs::read(&beside).unwrap()), (b"canary".to_vec(), b"canary".to_vec()));
    // A bind mount is of the same device as its parent.
    let (bound, source) = (disk.path().join("a/b"), disk.path().join("c"));
    fs::create_dir_all(&bound).unwrap();
    fs::create_dir(&source).unwrap();
    if !Command::new("mount").arg("--bind").arg(&source).arg(&bound).status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: bind mounts do not work here");
        return;
    }
    let refusal = erase_directory(&disk.path().join("a"), 1, &Control::new());
    let _ = Command::new("umount").arg(&bound).status();
    assert_eq!(kind_of(refusal), Kind::EraseRefused);
}
