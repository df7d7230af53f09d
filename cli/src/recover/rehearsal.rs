//! A storage whose changes stay in memory: what an opening would do to a device is found out without
//! changing it.

use afterimage::internal::storage::{Directory, FileName, Fill, Storage};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Files below that were removed here; they may have been made anew.
    removed: Mutex<BTreeSet<FileName>>,
}

impl Rehearsal {
    pub fn over(below: Arc<Directory>) -> Rehearsal {
        let (written, grown, removed) = Default::default();
        Rehearsal { below, written, grown, removed }
    }

    /// The length of the file below, unless it was removed here.
    fn below(&self, file: FileName) -> io::Result<Option<u64>> {
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if removed.contains(&file) { Ok(None) } else { self.below.length(file) }
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
        "no space is given back while a device is only looked at",
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
        if grown.is_some() { Ok(grown) } else { self.below(file) }
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        // A file reads as zeros where it has grown.
        let has_grown = self.grown().contains_key(&file);
        let below = match has_grown {
            true => self.below(file)?.unwrap_or(0),
            false => match self.length(file)? {
                Some(_) => u64::MAX,
                None => return Err(io::ErrorKind::NotFound.into()),
            },
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

    fn remove(&self, file: FileName) -> io::Result<()> {
        if self.length(file)?.is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).insert(file);
        self.grown().remove(&file);
        self.written().retain(|(of, _), _| *of != file);
        Ok(())
    }

    fn files(&self) -> io::Result<Vec<FileName>> {
        let mut files = self.below.files()?;
        files.extend(self.grown().keys());
        files.sort_unstable();
        files.dedup();
        let is_there = |file: &FileName| self.length(*file).is_ok_and(|length| length.is_some());
        files.retain(is_there);
        Ok(files)
    }

    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.below.next_data(file, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afterimage::internal::storage::SideKind;

    /// A file is removed, made anew and written, and the one below stays as it is.
    #[test]
    fn what_is_removed_here_stays_below() {
        let folder = tempfile::tempdir().unwrap();
        let below = Arc::new(Directory::create(folder.path().join("d")).unwrap());
        let file = FileName::Side { kind: SideKind::new("told").unwrap(), number: 0 };
        below.create(file, 1024, Fill::Sparse).unwrap();
        below.write(file, 0, &[IoSlice::new(&[7; 1024])]).unwrap();
        let over = Rehearsal::over(below.clone());
        over.write(file, 512, &[IoSlice::new(&[8; 512])]).unwrap();
        over.remove(file).unwrap();
        assert_eq!((over.length(file).unwrap(), over.files().unwrap()), (None, vec![]));
        assert_eq!(over.remove(file).unwrap_err().kind(), io::ErrorKind::NotFound);
        over.create(file, 2048, Fill::Sparse).unwrap();
        over.write(file, 0, &[IoSlice::new(&[9; 512])]).unwrap();
        let mut found = [1; 2048];
        over.read(file, 0, &mut found).unwrap();
        assert!(found[..512] == [9; 512] && found[512..] == [0; 1536]);
        assert_eq!(over.files().unwrap(), [file]);
        let mut kept = [0; 1024];
        below.read(file, 0, &mut kept).unwrap();
        assert_eq!((kept, below.length(file).unwrap()), ([7; 1024], Some(1024)));
    }
}
