//! The open files of a directory: a bounded number of descriptors for any number of files, and
//! the memory of what was synced.
//!
//! # Rules
//! - The superblock and the logs stay open once they were used; segments and side files are closed
//!   again, oldest use first, so that at most the bound is open, plus one for each thread at work in here.
//! - Only a descriptor that no call holds is closed.
//! - **A descriptor with unsynced writes is synced before it is closed.** The kernel reports a
//!   failed write-back to the descriptors that were open when it happened. Once they are closed
//!   and the file's inode has left memory, the failure is reported to none, and a sync through a fresh
//!   descriptor would succeed though data is lost.
//! - **A failed sync is never tried again.** The kernel drops the pages it could not write, or
//!   calls them clean, so that a second fsync succeeds without the data. The first failure is
//!   remembered by name and is the answer to every later sync of that file, whether the
//!   descriptor was closed in between or not.
//! - **Nothing is durable in a file that is gone.** A sync that finds its file deleted or of another
//!   length has failed.
//! - A file that was not synced since this process first opened it may hold what an earlier
//!   process wrote and never synced. Its first sync is a real one; after that, only what was
//!   written through here counts. Per file, a name is remembered for this, and nothing else.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Advice, AtFlags, StatxFlags};

use super::super::FileName;
use crate::sync::{AtomicU64, Ordering};

/// Nothing is unsynced.
const CLEAN: u64 = 0;
/// Writes of an earlier process may be unsynced.
const UNPROVEN: u64 = 1;
/// Something written through this descriptor is unsynced.
const WRITTEN: u64 = 2;

/// One open file.
pub(super) struct Open {
    file: File,
    /// The length in bytes; only a side file's changes, under `syncing`.
    length: AtomicU64,
    /// The most that may be unsynced: [`CLEAN`], [`UNPROVEN`] or [`WRITTEN`]. Set after a write
    /// and before its caller knows of it; cleared by a sync before it begins.
    unsynced: AtomicU64,
    /// One sync at a time, so that a caller that finds nothing to sync knows that everything *is*
    /// durable, and not just about to be.
    syncing: Mutex<()>,
    live: Arc<AtomicU64>,
}

impl Open {
    /// Notes that this file was written, completely or not, before the caller is told.
    pub(super) fn wrote(&self) {
        self.unsynced.store(WRITTEN, Ordering::Release);
    }

    pub(super) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// Makes the file `length` bytes long, unless it is longer; returns how long it was.
    pub(super) fn grow(&self, length: u64) -> io::Result<u64> {
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.length();
        if found < length {
            self.file.set_len(length)?;
            self.length.store(length, Ordering::Release);
            self.wrote();
        }
        Ok(found)
    }

    /// Whether the file is still what was opened: what goes into a deleted one is never seen again.
    fn must_be_whole(&self) -> io::Result<()> {
        // Its times are not asked for: where a file system has been, the next write changes them
        // in the inode, and the sync after it waits for that (Linux 6.13).
        let asked = StatxFlags::SIZE | StatxFlags::NLINK;
        let now = rustix::fs::statx(&self.file, "", AtFlags::EMPTY_PATH, asked)?;
        if now.stx_nlink == 0 {
            let story = "the file was deleted while the device had it open";
            return Err(io::Error::new(io::ErrorKind::NotFound, story));
        }
        if now.stx_size != self.length() {
            let story = format!(
                "the file has {} bytes, not {}: another program changed it while the device had it open",
                now.stx_size,
                self.length()
            );
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, story));
        }
        Ok(())
    }
}

impl AsFd for Open {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A descriptor in the table, and when it was last asked for.
struct Slot {
    open: Arc<Open>,
    used: u64,
}

#[derive(Default)]
struct Table {
    open: HashMap<FileName, Slot>,
    /// Files with nothing unsynced but what the flag of their descriptor, if open, tells of.
    proven: HashSet<FileName>,
    /// Files whose sync failed once: for good.
    failed: HashMap<FileName, (io::ErrorKind, String)>,
    /// Counts the uses.
    now: u64,
}

impl Table {
    fn failure(&self, name: FileName) -> io::Result<()> {
        match self.failed.get(&name) {
            None => Ok(()),
            Some((kind, story)) => Err(io::Error::new(*kind, story.clone())),
        }
    }

    /// The segment or side file that no call holds and whose last use is the oldest.
    fn oldest_idle(&mut self) -> Option<(FileName, &mut Arc<Open>)> {
        let many =
            |name: &FileName| matches!(name, FileName::Segment { .. } | FileName::Side { .. });
        self.open
            .iter_mut()
            .filter(|(name, slot)| many(name) && Arc::strong_count(&slot.open) == 1)
            .min_by_key(|(_, slot)| slot.used)
            .map(|(name, slot)| (*name, &mut slot.open))
    }
}

/// The open files of one directory.
pub(super) struct Descriptors {
    table: Mutex<Table>,
    bound: usize,
    writable: bool,
    live: Arc<AtomicU64>,
}

impl Descriptors {
    /// A table without an open file, which will hold about `bound` at most.
    pub(super) fn new(bound: usize, writable: bool) -> Descriptors {
        let live = Arc::new(AtomicU64::new(0));
        Descriptors { table: Mutex::default(), bound, writable, live }
    }

    /// How many descriptors are open now.
    pub(super) fn open_now(&self) -> usize {
        self.live.load(Ordering::Relaxed) as usize
    }

    /// A quarter of what the process may open, so that links and clients find some too.
    pub(super) fn default_bound() -> usize {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current.map_or(256, |limit| (limit / 4).clamp(16, 256) as usize)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is a single insertion or removal: a panic leaves it whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that all of `name` is durable, as it was just created and synced.
    pub(super) fn created(&self, name: FileName) {
        self.table().proven.insert(name);
    }

    /// Forgets `name`, which was removed: a file made under that name is another.
    pub(super) fn removed(&self, name: FileName) {
        let mut table = self.table();
        table.open.remove(&name);
        table.proven.remove(&name);
        table.failed.remove(&name);
    }

    /// The open file `name`, which lies at `path`.
    pub(super) fn get(&self, name: FileName, path: &Path) -> io::Result<Arc<Open>> {
        let found = |table: &mut Table| {
            table.now += 1;
            let now = table.now;
            let slot = table.open.get_mut(&name)?;
            slot.used = now;
            Some(slot.open.clone())
        };
        let mut table = self.table();
        if let Some(open) = found(&mut table) {
            return Ok(open);
        }
        // Opened outside the lock, as it may wait for the disk. Two threads may open the same
        // file; the second one's descriptor is dropped before anything is done with it.
        drop(self.make_room(table));
        let opened = OpenOptions::new().read(true).write(self.writable).open(path);
        let file =
            opened.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        self.live.fetch_add(1, Ordering::Relaxed);
        let mut open = Open {
            file,
            length: AtomicU64::new(0),
            unsynced: AtomicU64::new(UNPROVEN),
            syncing: Mutex::default(),
            live: self.live.clone(),
        };
        open.length = AtomicU64::new(open.file.metadata()?.len());
        if matches!(name, FileName::Segment { .. }) {
            // Blocks are read and written here and there. Brought in by read-ahead, they would
            // come in large folios, which make later small writes slow. Advice may be refused.
            let _ = rustix::fs::fadvise(&open.file, 0, None, Advice::Random);
        }
        let mut table = self.table();
        if let Some(open) = found(&mut table) {
            return Ok(open);
        }
        if table.proven.contains(&name) {
            open.unsynced.store(CLEAN, Ordering::Relaxed);
        }
        let open = Arc::new(open);
        let used = table.now;
        table.open.insert(name, Slot { open: open.clone(), used });
        Ok(open)
    }

    /// Closes the oldest segments until there is room for one more descriptor, or all are in use.
    fn make_room<'a>(&'a self, mut table: MutexGuard<'a, Table>) -> MutexGuard<'a, Table> {
        // Others may take up again what was chosen; after some attempts, live with it.
        for _ in 0..4 * self.bound {
            if table.open.len() < self.bound {
                break;
            }
            let Some((name, shared)) = table.oldest_idle() else { break };
            // The table's share is the only one, and others get theirs under this lock only.
            // `get_mut`, unlike the count, also makes visible what the last holder did before it
            // let go: its note that it wrote.
            let Some(alone) = Arc::get_mut(shared) else { continue };
            if alone.unsynced.load(Ordering::Acquire) != WRITTEN {
                table.open.remove(&name);
                continue;
            }
            let open = shared.clone();
            // While it is synced it stays in the table, so that a write or sync of this file
            // meets this very descriptor. A failure is remembered by name.
            drop(table);
            let _remembered = self.sync_open(name, &open);
            drop(open);
            table = self.table();
        }
        table
    }

    /// Makes durable what was written to `name`, which lies at `path`.
    pub(super) fn sync(&self, name: FileName, path: &Path) -> io::Result<()> {
        let table = self.table();
        table.failure(name)?;
        if !table.open.contains_key(&name) && table.proven.contains(&name) {
            return Ok(());
        }
        drop(table);
        let open = self.get(name, path)?;
        self.sync_open(name, &open)
    }

    fn sync_open(&self, name: FileName, open: &Open) -> io::Result<()> {
        let _turn = open.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.table().failure(name)?;
        // Cleared before the sync: a write that comes meanwhile sets it again.
        if open.unsynced.swap(CLEAN, Ordering::AcqRel) == CLEAN {
            return Ok(());
        }
        let outcome = open.file.sync_data().and_then(|()| open.must_be_whole());
        let mut table = self.table();
        match outcome {
            Ok(()) => {
                table.proven.insert(name);
                Ok(())
            }
            Err(error) => {
                let story = format!(
                    "{name} could not be synced, and is not tried again, as a second try may succeed \
                     without the data: {error}"
                );
                table.failed.insert(name, (error.kind(), story));
                table.failure(name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn segment(index: u32) -> FileName {
        FileName::Segment { volume: 0, index }
    }

    /// Descriptors over `count` files, and the path of each.
    fn over(count: u32, bound: usize) -> (tempfile::TempDir, Descriptors) {
        let directory = tempfile::tempdir().unwrap();
        for index in 0..count {
            std::fs::write(directory.path().join(index.to_string()), [0; 100]).unwrap();
        }
        (directory, Descriptors::new(bound, true))
    }

    fn get(directory: &tempfile::TempDir, all: &Descriptors, index: u32) -> Arc<Open> {
        all.get(segment(index), &directory.path().join(index.to_string())).unwrap()
    }

    #[test]
    fn closes_the_oldest_and_nothing_in_use() {
        let (directory, all) = over(10, 3);
        let held = get(&directory, &all, 0);
        for index in 1..10 {
            get(&directory, &all, index);
            assert!(all.open_now() <= 3);
        }
        assert!(Arc::ptr_eq(&held, &get(&directory, &all, 0)));
        let names: HashSet<_> = all.table().open.keys().copied().collect();
        assert_eq!(names, HashSet::from([segment(0), segment(8), segment(9)]));
    }

    #[test]
    fn a_written_file_is_synced_before_it_is_closed() {
        let (directory, all) = over(3, 1);
        let open = get(&directory, &all, 0);
        open.file.write_all_at(&[1], 0).unwrap();
        open.wrote();
        drop(open);
        get(&directory, &all, 1);
        assert!(all.table().proven.contains(&segment(0)));
        assert!(!all.table().proven.contains(&segment(1)));
        // Nothing to do any more, so that the file need not even be there.
        all.sync(segment(0), Path::new("/nowhere")).unwrap();
    }

    #[test]
    fn the_first_sync_is_real_and_the_next_without_writes_is_not() {
        let (directory, all) = over(1, 1);
        let open = get(&directory, &all, 0);
        assert_eq!(open.unsynced.load(Ordering::Relaxed), UNPROVEN);
        all.sync_open(segment(0), &open).unwrap();
        assert_eq!(open.unsynced.load(Ordering::Relaxed), CLEAN);
        open.wrote();
        assert_eq!(open.unsynced.load(Ordering::Relaxed), WRITTEN);
        all.sync_open(segment(0), &open).unwrap();
        assert_eq!(open.unsynced.load(Ordering::Relaxed), CLEAN);
    }

    #[test]
    fn a_failed_sync_stays_failed_after_the_descriptor_is_gone() {
        let (directory, all) = over(3, 1);
        // A pipe cannot be synced: EINVAL, as good a failure as any.
        let (reader, _writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        all.live.fetch_add(1, Ordering::Relaxed);
        let open = Open {
            file,
            length: AtomicU64::new(100),
            unsynced: AtomicU64::new(WRITTEN),
            syncing: Mutex::default(),
            live: all.live.clone(),
        };
        all.table().open.insert(segment(0), Slot { open: Arc::new(open), used: 0 });
        get(&directory, &all, 1);
        assert!(!all.table().open.contains_key(&segment(0)));
        for _ in 0..2 {
            let path = directory.path().join("0");
            let error = all.sync(segment(0), &path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with("volumes/0.0 could not be synced"), "{error}");
            get(&directory, &all, 0);
        }
    }
}
