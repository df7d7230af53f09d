//! The caller's storage, as the engine uses it: failure is final by construction.
//!
//! After a write or a sync that failed it is unknown what is durable, and a later sync that succeeds
//! proves nothing. So the first failure of anything that changes the storage is kept, and every later
//! change by any caller is refused with it. The files can still be read: a read that fails says nothing
//! about the writes.

use super::{FileName, Fill, Storage};
use crate::error::Error;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// A storage that takes no change after one has failed.
pub(crate) struct Checked {
    storage: Arc<dyn Storage>,
    failure: OnceLock<Error>,
}

impl Checked {
    pub fn new(storage: Arc<dyn Storage>) -> Checked {
        Checked { storage, failure: OnceLock::new() }
    }

    /// The caller's storage itself, for files that the device can do without: whether they can be
    /// changed says nothing about the others.
    pub fn apart(&self) -> &dyn Storage {
        &*self.storage
    }

    /// The first change that failed, and why.
    pub fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    fn change(
        &self,
        doing: impl FnOnce() -> String,
        change: impl FnOnce(&dyn Storage) -> io::Result<()>,
    ) -> io::Result<()> {
        if let Some(first) = self.failure() {
            return Err(io::Error::other(format!(
                "not tried, as an earlier change failed and nothing is changed after that: {first}"
            )));
        }
        let done = change(&*self.storage);
        if let Err(error) = &done {
            // The caller has the error itself.
            let copy = match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            };
            let _ = self.failure.set(Error::storage(doing(), copy));
        }
        done
    }
}

impl Storage for Checked {
    fn create(&self, file: FileName, length: u64, fill: Fill) -> io::Result<()> {
        self.change(|| format!("creating {file}"), |s| s.create(file, length, fill))
    }

    fn length(&self, file: FileName) -> io::Result<Option<u64>> {
        self.storage.length(file)
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.storage.read(file, offset, buf)
    }

    fn write(&self, file: FileName, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        self.change(|| format!("writing at {offset} of {file}"), |s| s.write(file, offset, bufs))
    }

    fn zero(&self, file: FileName, offset: u64, length: u64) -> io::Result<()> {
        self.change(|| format!("zeroing at {offset} of {file}"), |s| s.zero(file, offset, length))
    }

    fn sync(&self, file: FileName) -> io::Result<()> {
        self.change(|| format!("syncing {file}"), |s| s.sync(file))
    }

    fn cache_identity(&self) -> Option<[u8; 32]> {
        self.storage.cache_identity()
    }

    fn grow(&self, file: FileName, length: u64) -> io::Result<()> {
        self.change(|| format!("growing {file}"), |s| s.grow(file, length))
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        self.change(|| format!("removing {file}"), |s| s.remove(file))
    }

    fn files(&self) -> io::Result<Vec<FileName>> {
        self.storage.files()
    }

    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.storage.next_data(file, offset)
    }

    fn reads_as_zeros(&self, file: FileName, range: Range<u64>) -> io::Result<bool> {
        self.storage.reads_as_zeros(file, range)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::storage::Memory;
    use std::sync::Mutex;

    /// Fails once, in the next sync of a file, and works again.
    #[derive(Default)]
    struct FailsOnce {
        memory: Memory,
        file: Mutex<Option<FileName>>,
    }

    impl Storage for FailsOnce {
        fn create(&self, file: FileName, length: u64, fill: Fill) -> io::Result<()> {
            self.memory.create(file, length, fill)
        }

        fn length(&self, file: FileName) -> io::Result<Option<u64>> {
            self.memory.length(file)
        }

        fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.memory.read(file, offset, buf)
        }

        fn write(&self, file: FileName, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
            self.memory.write(file, offset, bufs)
        }

        fn zero(&self, file: FileName, offset: u64, length: u64) -> io::Result<()> {
            self.memory.zero(file, offset, length)
        }

        fn sync(&self, file: FileName) -> io::Result<()> {
            match self.file.lock().unwrap().take_if(|fails| *fails == file) {
                Some(_) => Err(io::Error::other("no light")),
                None => self.memory.sync(file),
            }
        }

        fn grow(&self, file: FileName, length: u64) -> io::Result<()> {
            self.memory.grow(file, length)
        }

        fn remove(&self, file: FileName) -> io::Result<()> {
            self.memory.remove(file)
        }

        fn files(&self) -> io::Result<Vec<FileName>> {
            self.memory.files()
        }

        fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
            self.memory.next_data(file, offset)
        }
    }

    #[test]
    fn nothing_is_changed_after_the_first_failure() {
        let disk = Arc::new(FailsOnce::default());
        let checked = Checked::new(disk.clone());
        let (file, other) = (FileName::OwnLog, FileName::RecvLog);
        checked.create(file, 4096, Fill::Written).unwrap();
        checked.write(file, 0, &[IoSlice::new(&[1; 512])]).unwrap();
        *disk.file.lock().unwrap() = Some(file);
        assert_eq!(checked.sync(file).unwrap_err().to_string(), "no light");
        let later = [
            checked.write(file, 0, &[IoSlice::new(&[2; 512])]),
            checked.zero(file, 0, 512),
            checked.sync(file),
            checked.create(other, 4096, Fill::Sparse),
            checked.grow(other, 8192),
            checked.remove(other),
        ];
        for refused in later {
            let story = refused.expect_err("a change after a failure").to_string();
            let first = "an earlier change failed and nothing is changed after that: ";
            assert_eq!(story, format!("not tried, as {first}syncing own.log: no light"));
        }
        let mut bytes = [0; 512];
        checked.read(file, 0, &mut bytes).unwrap();
        assert_eq!((bytes, checked.files().unwrap()), ([1; 512], vec![file]));
    }
}
