//! A storage in two places, so that one stage can be measured on disk with the others free.

use afterimage::internal::storage::{Directory, FileName, Fill, Memory, Storage};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Some files on disk, the others in memory, or the volumes nowhere.
pub struct Split {
    volumes: bool,
    logs: OnceLock<u8>,
    on_disk: Vec<FileName>,
    disk: Directory,
    memory: Memory,
}

impl Split {
    /// `on_disk` in a new directory, everything else in memory.
    ///
    /// # Errors
    /// As [`Directory::create`].
    pub fn create(path: PathBuf, on_disk: &[FileName]) -> io::Result<Split> {
        let on_disk = on_disk.to_vec();
        let disk = Directory::create(path)?;
        Ok(Split { volumes: true, logs: OnceLock::new(), on_disk, disk, memory: Memory::new() })
    }

    /// The same, and what is written to the volumes is forgotten: for what never looks at them.
    pub fn without_volumes(self) -> Split {
        Split { volumes: false, ..self }
    }

    /// From now on what is written to the logs is forgotten, and each of their bytes is `byte`, as is each of
    /// volumes that are nowhere: for records that hold nothing else.
    ///
    /// # Panics
    /// The second time.
    pub fn forget_logs(&self, byte: u8) {
        self.logs.set(byte).expect("once");
    }

    fn log_byte(&self, file: FileName) -> Option<u8> {
        self.logs.get().copied().filter(|_| matches!(file, FileName::OwnLog | FileName::RecvLog))
    }

    fn is_nowhere(&self, file: FileName) -> bool {
        !self.volumes && matches!(file, FileName::Segment { .. })
    }

    fn of(&self, file: FileName) -> &dyn Storage {
        if self.on_disk.contains(&file) { &self.disk } else { &self.memory }
    }
}

impl Storage for Split {
    fn create(&self, file: FileName, length: u64, fill: Fill) -> io::Result<()> {
        if self.is_nowhere(file) {
            return Ok(());
        }
        if matches!(file, FileName::OwnLog | FileName::RecvLog) && !self.on_disk.contains(&file) {
            // In memory, what is not written takes none.
            return self.memory.create(file, length, Fill::Sparse);
        }
        self.of(file).create(file, length, fill)
    }
    fn length(&self, file: FileName) -> io::Result<Option<u64>> {
        self.of(file).length(file)
    }
    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.is_nowhere(file) {
            buf.fill(self.logs.get().copied().unwrap_or(0));
            return Ok(());
        }
        if let Some(byte) = self.log_byte(file) {
            buf.fill(byte);
            return Ok(());
        }
        self.of(file).read(file, offset, buf)
    }
    fn write(&self, file: FileName, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        if self.is_nowhere(file) || self.log_byte(file).is_some() {
            return Ok(());
        }
        self.of(file).write(file, offset, bufs)
    }
    fn zero(&self, file: FileName, offset: u64, length: u64) -> io::Result<()> {
        if self.is_nowhere(file) {
            return Ok(());
        }
        self.of(file).zero(file, offset, length)
    }
    fn sync(&self, file: FileName) -> io::Result<()> {
        if self.is_nowhere(file) {
            return Ok(());
        }
        self.of(file).sync(file)
    }
    fn grow(&self, file: FileName, length: u64) -> io::Result<()> {
        self.of(file).grow(file, length)
    }
    fn remove(&self, file: FileName) -> io::Result<()> {
        self.of(file).remove(file)
    }
    fn files(&self) -> io::Result<Vec<FileName>> {
        let mut files = self.disk.files()?;
        files.extend(self.memory.files()?);
        Ok(files)
    }
    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.of(file).next_data(file, offset)
    }
    fn reads_as_zeros(&self, file: FileName, range: Range<u64>) -> io::Result<bool> {
        if self.is_nowhere(file) {
            return Ok(false);
        }
        self.of(file).reads_as_zeros(file, range)
    }
}
