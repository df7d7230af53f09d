//! A storage whose changes stay in memory: what an opening would do to a device is found out without
//! changing it.

use afterimage::internal::storage::{Directory, FileName, Fill, Storage};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a sector: the engine's offsets and lengths are multiples of it.
const SECTOR: usize = 512;

/// A directory as it is, under the sectors that were written to it here. An opening and a hello
/// write superblocks and what of the logs was not synced, which a geometry bounds.
pub(crate) struct Rehearsal {
    below: Arc<Directory>,
    written: Mutex<BTreeMap<(FileName, u64), [u8; SECTOR]>>,
    /// Lengths of files that were made or grew here.
    grown: Mutex<BTreeMap<FileName, u64>>,
}

impl Rehearsal {
    pub fn over(below: Arc<Directory>) -> Rehearsal {
        Rehearsal { below, written: Mutex::default(), grown: Mutex::default() }
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<(FileName, u64), [u8; SECTOR]>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grown(&self) -> MutexGuard<'_, BTreeMap<FileName, u64>> {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unsupported() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "no space is given back, and no file removed, while a device is only looked at",
    )
}

impl Storage for Rehearsal {
    fn create(&self, file: FileName, length: u64, _: Fill) -> io::Result<()> {
        match self.length(file)? {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => {
                self.grown().insert(file, length);
                Ok(())
            }
        }
    }

    fn length(&self, file: FileName) -> io::Result<Option<u64>> {
        let grown = self.grown().get(&file).copied();
        if grown.is_some() { Ok(grown) } else { self.below.length(file) }
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        // A file reads as zeros where it has grown.
        let below = match self.grown().contains_key(&file) {
            true => self.below.length(file)?.unwrap_or(0),
            false => u64::MAX,
        };
        let from_below = below.saturating_sub(offset).min(buf.len() as u64) as usize;
        if from_below > 0 {
            self.below.read(file, offset, &mut buf[..from_below])?;
        }
        buf[from_below..].fill(0);
        let end = offset + buf.len() as u64;
        let first = offset / SECTOR as u64 * SECTOR as u64;
        for (&(_, at), sector) in self.written().range((file, first)..(file, end)) {
            let (from, to) = (at.max(offset), (at + SECTOR as u64).min(end));
            let into = &mut buf[(from - offset) as usize..(to - offset) as usize];
            into.copy_from_slice(&sector[(from - at) as usize..(to - at) as usize]);
        }
        Ok(())
    }

    fn write(&self, file: FileName, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        // Whole sectors are kept: what a part of one does not write stays.
        let first = offset / SECTOR as u64 * SECTOR as u64;
        let end = (offset + bytes.len() as u64).next_multiple_of(SECTOR as u64);
        let mut whole = vec![0; (end - first) as usize];
        if whole.len() != bytes.len() {
            self.read(file, first, &mut whole)?;
        }
        let within = (offset - first) as usize;
        whole[within..within + bytes.len()].copy_from_slice(&bytes);
        let places = (first..).step_by(SECTOR).map(|at| (file, at));
        self.written().extend(places.zip(whole.as_chunks::<SECTOR>().0.iter().copied()));
        Ok(())
    }

    fn zero(&self, _: FileName, _: u64, _: u64) -> io::Result<()> {
        Err(unsupported())
    }

    fn cache_identity(&self) -> Option<[u8; 32]> {
        self.below.cache_identity()
    }

    fn sync(&self, _: FileName) -> io::Result<()> {
        Ok(())
    }

    fn grow(&self, file: FileName, length: u64) -> io::Result<()> {
        self.grown().insert(file, length);
        Ok(())
    }

    fn remove(&self, _: FileName) -> io::Result<()> {
        Err(unsupported())
    }

    fn files(&self) -> io::Result<Vec<FileName>> {
        let mut files = self.below.files()?;
        files.extend(self.grown().keys());
        files.sort_unstable();
        files.dedup();
        Ok(files)
    }

    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.below.next_data(file, offset)
    }
}
