//! A directory whose volumes only know where they have data, and which counts what its logs take.

use afterimage::internal::storage::{Directory, FileName, Fill, Storage};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ranges of a file that hold data: start → end, apart from each other.
#[derive(Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Takes `range` out.
    fn clear(&mut self, range: Range<u64>) {
        while let Some((&start, &end)) = self.0.range(..range.end).next_back()
            && end > range.start
        {
            self.0.remove(&start);
            if start < range.start {
                self.0.insert(start, range.start);
            }
            if end > range.end {
                self.0.insert(range.end, end);
            }
        }
    }

    fn set(&mut self, mut range: Range<u64>) {
        self.clear(range.clone());
        if let Some((&start, &end)) = self.0.range(..range.start).next_back()
            && end == range.start
        {
            range.start = start;
        }
        if let Some(end) = self.0.remove(&range.end) {
            range.end = end;
        }
        self.0.insert(range.start, range.end);
    }

    /// The first range that ends behind `at`.
    fn next(&self, at: u64) -> Option<Range<u64>> {
        let before = self.0.range(..=at).next_back().filter(|(_, end)| **end > at);
        let found = before.or_else(|| self.0.range(at..).next());
        found.map(|(&start, &end)| start.max(at)..end)
    }
}

/// Logs and superblock in a directory. The volumes are there too, or nowhere: then each byte that was
/// written and not zeroed since is [`Sketch::BYTE`].
pub struct Sketch {
    directory: Directory,
    volumes: Option<Mutex<HashMap<FileName, Ranges>>>,
    log_bytes: AtomicU64,
}

impl Sketch {
    /// Each byte of the volumes where they hold data.
    pub const BYTE: u8 = 7;

    /// A new directory at `path`; `on_disk`: the volumes, too.
    ///
    /// # Errors
    /// As [`Directory::create`].
    pub fn create(path: PathBuf, on_disk: bool) -> io::Result<Sketch> {
        let directory = Directory::create(path)?;
        let volumes = (!on_disk).then(Mutex::default);
        Ok(Sketch { directory, volumes, log_bytes: AtomicU64::new(0) })
    }

    /// Bytes that were written to the logs since they were made.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    /// Whether all volumes read as zeros everywhere.
    ///
    /// # Errors
    /// The directory's.
    pub fn is_zero(&self) -> io::Result<bool> {
        if let Some(files) = &self.volumes {
            let files = files.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(files.values().all(|ranges| ranges.0.is_empty()));
        }
        for file in self.directory.files()? {
            if matches!(file, FileName::Segment { .. })
                && self.directory.next_data(file, 0)?.is_some()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The volumes' ranges if `file` is one that is nowhere.
    fn sketched(&self, file: FileName) -> Option<MutexGuard<'_, HashMap<FileName, Ranges>>> {
        let volumes = self.volumes.as_ref()?;
        matches!(file, FileName::Segment { .. })
            .then(|| volumes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Storage for Sketch {
    fn create(&self, file: FileName, length: u64, fill: Fill) -> io::Result<()> {
        if let Some(mut files) = self.sketched(file) {
            files.entry(file).or_default();
            return Ok(());
        }
        self.directory.create(file, length, fill)
    }

    fn length(&self, file: FileName) -> io::Result<Option<u64>> {
        self.directory.length(file)
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if let Some(files) = self.sketched(file) {
            buf.fill(0);
            let (mut at, end) = (offset, offset + buf.len() as u64);
            while let Some(data) = files.get(&file).and_then(|ranges| ranges.next(at))
                && data.start < end
            {
                let to = data.end.min(end);
                buf[(data.start - offset) as usize..(to - offset) as usize].fill(Sketch::BYTE);
                at = to;
            }
            return Ok(());
        }
        self.directory.read(file, offset, buf)
    }

    fn write(&self, file: FileName, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        let length = bufs.iter().map(|buf| buf.len() as u64).sum::<u64>();
        if let Some(mut files) = self.sketched(file) {
            files.entry(file).or_default().set(offset..offset + length);
            return Ok(());
        }
        if matches!(file, FileName::OwnLog | FileName::RecvLog) {
            self.log_bytes.fetch_add(length, Ordering::Relaxed);
        }
        self.directory.write(file, offset, bufs)
    }

    fn zero(&self, file: FileName, offset: u64, length: u64) -> io::Result<()> {
        if let Some(mut files) = self.sketched(file) {
            files.entry(file).or_default().clear(offset..offset + length);
            return Ok(());
        }
        self.directory.zero(file, offset, length)
    }

    fn sync(&self, file: FileName) -> io::Result<()> {
        match self.sketched(file) {
            Some(_) => Ok(()),
            None => self.directory.sync(file),
        }
    }

    fn grow(&self, file: FileName, length: u64) -> io::Result<()> {
        self.directory.grow(file, length)
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        self.directory.remove(file)
    }

    fn files(&self) -> io::Result<Vec<FileName>> {
        self.directory.files()
    }

    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
        match self.sketched(file) {
            Some(files) => Ok(files.get(&file).and_then(|ranges| ranges.next(offset))),
            None => self.directory.next_data(file, offset),
        }
    }

    fn reads_as_zeros(&self, file: FileName, range: Range<u64>) -> io::Result<bool> {
        match self.sketched(file) {
            Some(files) => {
                let next = files.get(&file).and_then(|ranges| ranges.next(range.start));
                Ok(next.is_none_or(|data| data.start >= range.end))
            }
            None => self.directory.reads_as_zeros(file, range),
        }
    }
}
