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
pub(super) struct Rehearsal {
    below: Arc<Directory>,
    written: Mutex<BTreeMap<(FileName, u64), [u8; SECTOR]>>,
}

impl Rehearsal {
    pub fn over(below: Arc<Directory>) -> Rehearsal {
        Rehearsal { below, written: Mutex::default() }
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<(FileName, u64), [u8; SECTOR]>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "no file is made while a device is only looked at")
}

impl Storage for Rehearsal {
    fn create(&self, _: FileName, _: u64, _: Fill) -> io::Result<()> {
        Err(unsupported())
    }

    fn length(&self, file: FileName) -> io::Result<Option<u64>> {
        self.below.length(file)
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.below.read(file, offset, buf)?;
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
        let (sectors, rest) = bytes.as_chunks::<SECTOR>();
        if !rest.is_empty() || !offset.is_multiple_of(SECTOR as u64) {
            return Err(unsupported());
        }
        let places = (offset..).step_by(SECTOR).map(|at| (file, at));
        self.written().extend(places.zip(sectors.iter().copied()));
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

    fn grow(&self, _: FileName, _: u64) -> io::Result<()> {
        Err(unsupported())
    }

    fn remove(&self, _: FileName) -> io::Result<()> {
        Err(unsupported())
    }

    fn files(&self) -> io::Result<Vec<FileName>> {
        self.below.files()
    }

    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.below.next_data(file, offset)
    }
}
