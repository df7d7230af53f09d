//! Whether data that was written and not synced outlives a process, and until when: the page cache of
//! the kernel keeps it until the machine stops, for file systems that are the kernel's own and on its
//! own disks. The identity promises nothing else: if a disk loses power by itself, or a log is moved to
//! another machine, the loss goes unnoticed.

use crate::format::data_checksum;
use rustix::fs::{Stat, stat, statfs};
use std::fs;
use std::path::{Path, PathBuf};

/// The magic numbers of the file systems that are known to keep it: ext2 to ext4, XFS, btrfs, F2FS,
/// bcachefs, tmpfs. A network's or a user's own (NFS, FUSE) may lose it with another machine or
/// process; any other is taken for one that does.
const KEPT: [u64; 6] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0xca45_1a4e, 0x0102_1994];

/// The boot's id, then a digest of device and inode for each log. `None` on a file system that is not
/// in [`KEPT`].
pub(super) fn identity(logs: [PathBuf; 2]) -> Option<[u8; 32]> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = u128::from_str_radix(&boot.trim().replace('-', ""), 16).ok()?;
    let mut identity = [0; 32];
    identity[..16].copy_from_slice(&boot.to_be_bytes());
    for (into, log) in identity[16..].chunks_exact_mut(8).zip(&logs) {
        into.copy_from_slice(&file(log)?.to_le_bytes());
    }
    Some(identity)
}

fn file(log: &Path) -> Option<u64> {
    if !KEPT.contains(&(statfs(log).ok()?.f_type as u64)) {
        return None;
    }
    let Stat { st_dev, st_ino, .. } = stat(log).ok()?;
    Some(data_checksum(&[st_dev.to_le_bytes(), st_ino.to_le_bytes()].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_for_the_same_files_only() {
        let under = std::env::temp_dir().join(format!("afterimage-cache-{}", std::process::id()));
        fs::create_dir_all(&under).unwrap();
        let logs = ["own.log", "recv.log"].map(|name| under.join(name));
        assert_eq!(identity(logs.clone()), None, "there are no files");
        logs.iter().for_each(|log| fs::write(log, "x").unwrap());
        let first = identity(logs.clone());
        assert_eq!(identity(logs.clone()), first);
        if let Some(first) = first {
            let (a, b) = first.split_at(16);
            assert!(a != [0; 16] && b[..8] != b[8..]);
            // Another file of that name, as in a copy.
            fs::write(under.join("new"), "x").unwrap();
            fs::rename(under.join("new"), &logs[0]).unwrap();
            let other = identity(logs.clone()).unwrap();
            assert!(other[..16] == first[..16] && other[16..24] != first[16..24]);
        }
        let proc = ["/proc/self/status", "/proc/self/maps"].map(PathBuf::from);
        assert_eq!(identity(proc), None, "an unknown file system");
        fs::remove_dir_all(&under).unwrap();
    }
}
