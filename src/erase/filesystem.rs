//! What the file system under a file is, and whether it overwrites in place.
//!
//! Only file systems of which that is known earn [`Verdict::Overwritten`]; copy-on-write, log-structured, layered, memory and network file
//! systems, and any that is not in the list, do not. The kernel's own table of mounts names the file system, because ext2, ext3 and
//! ext4 share one magic number and only the table knows `data=journal`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::Stat;

use super::Verdict;

/// A mounted file system.
pub(super) struct FileSystem {
    /// As the table of mounts writes it (`ext4`), or `unknown`.
    pub name: String,
    /// Whether contents go through the journal, which keeps copies.
    journals_data: bool,
}

impl FileSystem {
    /// What overwriting a file here is worth.
    pub fn verdict(&self, file: BorrowedFd<'_>) -> Verdict {
        let in_place = match self.name.as_str() {
            "ext2" | "ext3" | "ext4" => !self.journals_data && !has_journaled_data(file),
            // With reflinks, blocks may be shared and a write then goes elsewhere.
            "xfs" => lacks_reflinks(file),
            "vfat" | "msdos" | "exfat" => true,
            _ => false,
        };
        if in_place { Verdict::Overwritten } else { Verdict::DeletedOnly }
    }
}

/// The file system that a folder is on.
pub(super) fn of(folder: BorrowedFd<'_>) -> FileSystem {
    mounted(folder).unwrap_or_else(|| FileSystem { name: "unknown".into(), journals_data: false })
}

#[cfg(target_os = "linux")]
fn mounted(folder: BorrowedFd<'_>) -> Option<FileSystem> {
    use rustix::fs::{AtFlags, StatxFlags};
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let about = rustix::fs::statx(folder, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    // Before Linux 5.8 there is no mount id; the device then finds it, except on btrfs, which is no loss.
    let has_id = about.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    let (key, column) =
        if has_id { (about.stx_mnt_id.to_string(), 0) } else { (format!("{}:{}", about.stx_dev_major, about.stx_dev_minor), 2) };
    find_mount(&table, &key, column)
}

#[cfg(not(target_os = "linux"))]
fn mounted(_folder: BorrowedFd<'_>) -> Option<FileSystem> {
    None
}

/// The last line of `/proc/self/mountinfo` with this key in this column (proc_pid_mountinfo(5)): mounts may lie over each other.
#[cfg(any(target_os = "linux", test))]
fn find_mount(table: &str, key: &str, column: usize) -> Option<FileSystem> {
    let line = table.lines().rfind(|line| line.split(' ').nth(column) == Some(key))?;
    let (mount, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    let (name, _source, super_options) = (system.next()?, system.next()?, system.next().unwrap_or_default());
    let mount_options = mount.split(' ').nth(5).unwrap_or_default();
    let journals_data = mount_options.split(',').chain(super_options.split(',')).any(|option| option == "data=journal");
    Some(FileSystem { name: name.to_owned(), journals_data })
}

/// Whether the file alone is journalled (`chattr +j`), or the file system does not say.
#[cfg(target_os = "linux")]
fn has_journaled_data(file: BorrowedFd<'_>) -> bool {
    rustix::fs::ioctl_getflags(file).map_or(true, |flags| flags.contains(rustix::fs::IFlags::JOURNALING))
}

#[cfg(not(target_os = "linux"))]
fn has_journaled_data(_file: BorrowedFd<'_>) -> bool {
    true
}

/// Cloning a file onto itself changes nothing, and is answered with EOPNOTSUPP exactly where there are no reflinks.
#[cfg(target_os = "linux")]
fn lacks_reflinks(file: BorrowedFd<'_>) -> bool {
    matches!(rustix::fs::ioctl_ficlone(file, file.as_fd()), Err(rustix::io::Errno::OPNOTSUPP))
}

#[cfg(not(target_os = "linux"))]
fn lacks_reflinks(_file: BorrowedFd<'_>) -> bool {
    false
}

/// Whether something is mounted here, a bind mount of the same file system included.
pub(super) fn is_mount_point(folder: BorrowedFd<'_>, name: &OsStr, about: &Stat) -> bool {
    let is_other_device = rustix::fs::fstat(folder).map_or(true, |parent| parent.st_dev != about.st_dev);
    is_other_device || is_mount_root(folder, name)
}

#[cfg(target_os = "linux")]
fn is_mount_root(folder: BorrowedFd<'_>, name: &OsStr) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
    let about = rustix::fs::statx(folder, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::TYPE);
    about.is_ok_and(|about| about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
fn is_mount_root(_folder: BorrowedFd<'_>, _name: &OsStr) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines in the form of proc_pid_mountinfo(5).
    const TABLE: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
30 22 8:2 / /data rw,noatime shared:2 master:1 - ext4 /dev/sda2 rw,data=journal
31 22 0:40 /sub /snap rw - btrfs /dev/sdb rw,compress=zstd
32 30 0:41 / /data/net rw - nfs4 server:/x rw
";

    #[test]
    fn the_table_of_mounts_tells_name_and_journal() {
        for (key, column, name, journals_data) in [
            ("22", 0, "ext4", false),
            ("30", 0, "ext4", true),
            ("31", 0, "btrfs", false),
            ("8:2", 2, "ext4", true),
            ("32", 0, "nfs4", false),
        ] {
            let found = find_mount(TABLE, key, column).unwrap();
            assert_eq!((found.name.as_str(), found.journals_data), (name, journals_data), "{key}");
        }
        assert!(find_mount(TABLE, "99", 0).is_none());
    }

    #[test]
    fn only_file_systems_known_to_overwrite_in_place_say_so() {
        let file = tempfile::tempfile().unwrap();
        let verdict = |name: &str| FileSystem { name: name.into(), journals_data: false }.verdict(file.as_fd());
        for name in ["btrfs", "zfs", "overlay", "tmpfs", "nfs", "nfs4", "cifs", "f2fs", "bcachefs", "nilfs2", "fuse", "9p", "unknown", ""] {
            assert_eq!(verdict(name), Verdict::DeletedOnly, "{name}");
        }
        for name in ["vfat", "exfat"] {
            assert_eq!(verdict(name), Verdict::Overwritten, "{name}");
        }
        assert_eq!(FileSystem { name: "ext4".into(), journals_data: true }.verdict(file.as_fd()), Verdict::DeletedOnly);
    }
}
