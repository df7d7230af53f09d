//! Reading files through memory: the only file that maps anything.
//!
//! Files are seen through *windows*: read-only mappings of at most [`WINDOW_BYTES`] each, made when
//! first needed and kept in a cache of bounded size, so that neither address space nor mappings
//! grow with the number or size of the volumes.
//!
//! # Rules
//! - **No reference into a mapping, ever.** Others write the same files by `pwrite` at the same
//!   time; a `&[u8]` would promise the compiler that the bytes stay. Bytes are copied out by raw
//!   pointer and only the copy is looked at. A copy that races with a write is any mixture of old
//!   and new, as the storage's contract says; the engine checks and repeats.
//! - **Never beyond the file.** A window covers what the file held when it was mapped, by an
//!   `fstat` at that moment, and a copy is checked against the window. Only side files change
//!   their length, and they are not mapped, so nothing inside a window is ever beyond the end.
//! - **Eviction never unmaps under a reader**: windows are shared as [`Arc`]; an evicted one dies
//!   with its last reader. So at most the bound plus one for each thread inside a read is mapped.
//! - **A hit takes one shared lock**, on one of [`SHARDS`] shards, and clones an `Arc`.
//! - **Eviction is second chance**: windows leave in the order they came, but one that was used
//!   since it was last looked at goes round again. That is the oldest used, to within one round,
//!   without a write to shared memory for each hit.
//!
//! - **A window that loses a page is dropped.** Someone else cuts the file short, or the medium
//!   cannot read a page back: [`fault`] turns the signal into a mark. The bytes are then read
//!   by a call, which says what is wrong, or gives them if they were not the ones lost.
//!
//! Reading by calls alone would need none of this. It was measured (`benches`, `reads`): `pread`
//! of 4 KiB or 64 KiB that are cached takes about twice as long, on one thread or two.

mod fault;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::FileName;
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::unit::SECTOR;
use fault::Guard;

/// The most address space one window takes: few enough windows for a volume of terabytes, small
/// enough that a thousand of them are a hundredth of the 128 TiB a process has.
pub(super) const WINDOW_BYTES: u64 = 1 << 30;

/// How many parts the cache's index is cut into, so that readers do not meet on one lock.
const SHARDS: usize = 16;

/// A window's name: the file, and which window of it, from 0.
type Key = (FileName, u64);

/// One mapping, alive for as long as somebody holds it.
struct Window {
    guard: Guard,
    map: MmapRaw,
    /// Set by every hit, cleared when eviction passes by.
    used: AtomicBool,
    /// Counts the windows mapped, for [`Windows::mapped`].
    live: Arc<AtomicU64>,
}

impl Window {
    /// Maps window `index` of `file`, as far as the file goes.
    fn map(
        (name, index): Key,
        bytes: u64,
        file: &impl AsFd,
        live: &Arc<AtomicU64>,
    ) -> io::Result<Window> {
        // The length as it is now, not as it was remembered: a file that was cut short by someone
        // else is found here, as a rule, and not by a signal later.
        let length = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
        let start = index.checked_mul(bytes).filter(|&start| start < length);
        let start = start.ok_or_else(|| past_end(name, length))?;
        let size = usize::try_from(bytes.min(length - start)).map_err(io::Error::other)?;
        let map = MmapOptions::new()
            .offset(start)
            .len(size)
            .map_raw_read_only(file.as_fd().as_raw_fd())?;
        if matches!(name, FileName::Segment { .. }) {
            // Volumes are read block by block: reading around a fault only fills the cache, and
            // with large folios, into which later small writes are slow. Advice may be refused.
            let _ = map.advise(Advice::Random);
        }
        let guard = Guard::new(map.as_mut_ptr(), map.len())?;
        live.fetch_add(1, Ordering::Relaxed);
        Ok(Window { guard, map, used: AtomicBool::new(false), live: live.clone() })
    }

    /// Copies what the window holds from byte `at` of it into `buf`; `false` if it is not that
    /// long, or has lost a page: only a call can tell.
    fn copy(&self, at: usize, buf: &mut [u8]) -> bool {
        at.checked_add(buf.len()).is_some_and(|end| end <= self.map.len()) && {
            // SAFETY: `at + buf.len() <= self.map.len()` was just checked; the guard was made of
            // this mapping, which is whole, read-only, and mapped while `self` is borrowed. No
            // reference into a mapping exists anywhere.
            unsafe { self.guard.copy(at, buf) }
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A bounded cache of windows over any number of files.
pub(super) struct Windows {
    shards: [RwLock<HashMap<Key, Arc<Window>>>; SHARDS],
    /// Every window of the cache, in the order in which eviction looks at them. The lock is held
    /// while the cache changes, so that two misses never map the same window twice.
    order: Mutex<VecDeque<(Key, Arc<Window>)>>,
    bound: usize,
    bytes: u64,
    live: Arc<AtomicU64>,
}

impl Windows {
    /// An empty cache of at most `bound` windows, but at least one.
    pub(super) fn new(bound: usize) -> Windows {
        Windows::with_window_bytes(bound, WINDOW_BYTES)
    }

    /// The same with windows of `bytes` each.
    fn with_window_bytes(bound: usize, bytes: u64) -> Windows {
        Windows {
            shards: std::array::from_fn(|_| RwLock::default()),
            order: Mutex::default(),
            bound: bound.max(1),
            bytes,
            live: Arc::new(AtomicU64::new(0)),
        }
    }

    /// How many windows are mapped now, evicted ones that are still being read included.
    pub(super) fn mapped(&self) -> usize {
        self.live.load(Ordering::Relaxed) as usize
    }

    /// Fills `buf` with the bytes of `file` from `offset`. `open` gives the file where a window
    /// must be mapped first. On an error, `buf` may have been filled in part.
    pub(super) fn read<F: AsFd>(
        &self,
        file: FileName,
        offset: u64,
        buf: &mut [u8],
        open: impl Fn() -> io::Result<F>,
    ) -> io::Result<()> {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let within = at % self.bytes;
            let take = (self.bytes - within).min(rest.len() as u64);
            let (now, later) = rest.split_at_mut(take as usize);
            let key = (file, at / self.bytes);
            let window = self.window(key, &open)?;
            if !window.copy(within as usize, now) {
                self.forget(key, &window);
                read_by_call(open()?, file, at, now)?;
            } else if now[now.len().saturating_sub(SECTOR as usize)..].iter().all(|&byte| byte == 0)
            {
                // Within the page of a file's end a mapping goes on with zeros, and nobody hears
                // of it when the file was cut short there: only a call tells.
                read_by_call(open()?, file, at, now)?;
            }
            at = at.checked_add(take).ok_or_else(|| past_end(file, at))?;
            rest = later;
        }
        Ok(())
    }

    /// The window named `key`, from the cache or newly mapped.
    fn window<F: AsFd>(
        &self,
        key: Key,
        open: &impl Fn() -> io::Result<F>,
    ) -> io::Result<Arc<Window>> {
        if let Some(window) = self.cached(key) {
            return Ok(window);
        }
        // Before the lock: opening may have to wait for another file to be synced.
        let file = open()?;
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = self.cached(key) {
            return Ok(window);
        }
        while order.len() >= self.bound {
            self.evict(&mut order);
        }
        let window = Arc::new(Window::map(key, self.bytes, &file, &self.live)?);
        order.push_back((key, window.clone()));
        let mut shard = self.shard(key).write().unwrap_or_else(PoisonError::into_inner);
        shard.insert(key, window.clone());
        Ok(window)
    }

    /// The window named `key` if it is in the cache, marked as used.
    fn cached(&self, key: Key) -> Option<Arc<Window>> {
        let shard = self.shard(key).read().unwrap_or_else(PoisonError::into_inner);
        let window = shard.get(&key)?;
        // Looked at first: a store by each of several readers would pass the line to and fro.
        if !window.used.load(Ordering::Relaxed) {
            window.used.store(true, Ordering::Relaxed);
        }
        Some(window.clone())
    }

    /// Takes one window out of the cache: the first that was not used since it was last looked
    /// at. After two rounds any will do, as readers may mark them as fast as we look.
    fn evict(&self, order: &mut VecDeque<(Key, Arc<Window>)>) {
        let mut looks = 2 * order.len();
        while let Some((key, window)) = order.pop_front() {
            if looks > 0 && window.used.swap(false, Ordering::Relaxed) {
                order.push_back((key, window));
                looks -= 1;
                continue;
            }
            let mut shard = self.shard(key).write().unwrap_or_else(PoisonError::into_inner);
            shard.remove(&key);
            return;
        }
    }

    /// Takes `window`, which does not hold what it should, out of the cache.
    fn forget(&self, key: Key, window: &Arc<Window>) {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.retain(|(_, other)| !Arc::ptr_eq(other, window));
        let mut shard = self.shard(key).write().unwrap_or_else(PoisonError::into_inner);
        if shard.get(&key).is_some_and(|now| Arc::ptr_eq(now, window)) {
            shard.remove(&key);
        }
    }

    /// The part of the index that `key` belongs to.
    fn shard(&self, (file, index): Key) -> &RwLock<HashMap<Key, Arc<Window>>> {
        let file = match file {
            FileName::Superblock => 0,
            FileName::OwnLog => 1,
            FileName::RecvLog => 2,
            FileName::Segment { volume, index } => {
                3 + u64::from(volume).wrapping_mul(31) + u64::from(index).wrapping_mul(7)
            }
            FileName::Side { .. } => unreachable!("what may grow is not mapped"),
        };
        &self.shards[(file.wrapping_add(index) % SHARDS as u64) as usize]
    }
}

/// Fills `buf` with the bytes of `file`, open as `fd`, from `offset`, by calls.
pub(super) fn read_by_call(
    fd: impl AsFd,
    file: FileName,
    offset: u64,
    buf: &mut [u8],
) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset.checked_add(done as u64).ok_or_else(|| past_end(file, offset))?;
        match rustix::io::retry_on_intr(|| rustix::io::pread(&fd, &mut buf[done..], at)) {
            Ok(0) => return Err(past_end(file, at)),
            Ok(count) => done += count,
            // The kernel's word for an offset beyond what any file can have.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OVERFLOW) => {
                return Err(past_end(file, at));
            }
            Err(error) => {
                let error = io::Error::from(error);
                return Err(io::Error::new(error.kind(), format!("{file} at byte {at}: {error}")));
            }
        }
    }
    Ok(())
}

/// The error for what is beyond a file's end. The engine never reads there of a file that is whole.
pub(super) fn past_end(file: FileName, at: u64) -> io::Error {
    let story = format!(
        "{file} has no byte {at}, which should be there: something else has cut it short; \
         stop the device and compare it with the other one"
    );
    io::Error::new(io::ErrorKind::UnexpectedEof, story)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    const PAGE: u64 = 4096;

    fn file_of(pages: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        for page in 0..pages {
            file.write_all_at(&[page as u8 + 1; PAGE as usize], page * PAGE).unwrap();
        }
        file
    }

    fn at(windows: &Windows, file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut buf = vec![0; length];
        windows.read(FileName::OwnLog, offset, &mut buf, || Ok(file))?;
        Ok(buf)
    }

    #[test]
    fn reads_across_windows_and_keeps_the_bound() {
        let file = file_of(32);
        let windows = Windows::with_window_bytes(3, PAGE);
        for page in 0..31 {
            let got = at(&windows, &file, page * PAGE + 100, PAGE as usize).unwrap();
            assert_eq!(got[0], page as u8 + 1);
            assert_eq!(got[PAGE as usize - 101], page as u8 + 1);
            assert_eq!(got[PAGE as usize - 100], page as u8 + 2);
            assert!(windows.mapped() <= 3);
        }
        assert_eq!(windows.mapped(), 3);
    }

    #[test]
    fn a_window_in_use_goes_round_again() {
        let file = file_of(8);
        let windows = Windows::with_window_bytes(2, PAGE);
        for page in 1..8 {
            at(&windows, &file, 0, 1).unwrap();
            at(&windows, &file, 0, 1).unwrap();
            at(&windows, &file, page * PAGE, 1).unwrap();
            let opened = || -> io::Result<&File> { panic!("window 0 was evicted") };
            windows.read(FileName::OwnLog, 5, &mut [0], opened).unwrap();
        }
    }

    #[test]
    fn nothing_beyond_the_end() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE + 10).unwrap();
        let windows = Windows::with_window_bytes(4, PAGE);
        assert!(at(&windows, &file, PAGE, 10).is_ok());
        for (offset, length) in [(PAGE, 11), (PAGE + 10, 1), (0, 2 * PAGE as usize), (u64::MAX, 2)]
        {
            let error = at(&windows, &file, offset, length).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{offset} {length}");
        }
    }

    #[test]
    fn a_file_cut_short_is_an_error_mapped_or_not() {
        let file = file_of(8);
        // Windows of two pages: one that loses both, one that loses the second, and whole ones.
        let windows = Windows::with_window_bytes(4, 2 * PAGE);
        for page in 0..6 {
            assert_eq!(at(&windows, &file, page * PAGE, 1).unwrap(), [page as u8 + 1]);
        }
        file.set_len(3 * PAGE).unwrap();
        for _ in 0..2 {
            for page in 0..3 {
                assert_eq!(at(&windows, &file, page * PAGE, 2).unwrap(), [page as u8 + 1; 2]);
            }
            for page in 3..8 {
                let error = at(&windows, &file, page * PAGE + 9, 3).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                assert!(error.to_string().starts_with("own.log has no byte"), "{error}");
            }
        }
        // Nothing of the lost windows stays.
        file.set_len(8 * PAGE).unwrap();
        file.write_all_at(&[77], 5 * PAGE).unwrap();
        assert_eq!(at(&windows, &file, 5 * PAGE, 2).unwrap(), [77, 0]);
        assert_eq!(windows.mapped(), 2);
    }

    /// While one thread cuts the file and restores it, readers get the truth or an error, and never
    /// the zeros that the handler puts there.
    #[test]
    fn readers_of_a_window_that_is_lost_never_see_zeros() {
        let file = file_of(16);
        let windows = Windows::with_window_bytes(4, 8 * PAGE);
        std::thread::scope(|scope| {
            for thread in 0..2u64 {
                let (file, windows) = (&file, &windows);
                scope.spawn(move || {
                    for step in 0..20_000 {
                        // Only the upper half of each window is ever cut off.
                        let page = step % 4 + 8 * thread;
                        let got = at(windows, file, page * PAGE, PAGE as usize);
                        assert!(got.unwrap() == [page as u8 + 1; PAGE as usize]);
                    }
                });
            }
            for _ in 0..300 {
                at(&windows, &file, 15 * PAGE, 1).unwrap();
                file.set_len(12 * PAGE).unwrap();
                let error = at(&windows, &file, 15 * PAGE, 1).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                file.set_len(16 * PAGE).unwrap();
            }
        });
    }

    #[test]
    fn readers_of_evicted_windows_finish() {
        let file = file_of(16);
        let windows = Windows::with_window_bytes(2, PAGE);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (file, windows) = (&file, &windows);
                scope.spawn(move || {
                    for step in 0..4000u64 {
                        let page = (step * (2 * thread + 1) + thread) % 16;
                        let got = at(windows, file, page * PAGE, PAGE as usize).unwrap();
                        assert!(got == [page as u8 + 1; PAGE as usize]);
                    }
                });
            }
        });
        assert!(windows.mapped() <= 2);
    }

    #[test]
    fn sees_what_was_written_after_mapping() {
        let file = file_of(1);
        let windows = Windows::new(1);
        assert_eq!(at(&windows, &file, 7, 2).unwrap(), [1, 1]);
        file.write_all_at(&[9], 8).unwrap();
        assert_eq!(at(&windows, &file, 7, 2).unwrap(), [1, 9]);
    }
}
