//! A storage in memory that does something, once, when it is called, and counts what is read of logs.

use afterimage::Device;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::Geometry;
use afterimage::internal::storage::{FileName, Fill, Memory, Storage};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// Which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Create,
    Look,
    Read,
    Sync,
    Write,
}

type Hook = (Call, FileName, Box<dyn FnOnce() + Send>);

#[derive(Default)]
pub struct Hooked {
    memory: Memory,
    /// Bytes read of the logs.
    pub read: AtomicU64,
    /// Files take memory where they were written only, whatever their maker asks for.
    pub is_sparse: AtomicBool,
    hook: Mutex<Option<Hook>>,
}

impl Hooked {
    /// That of a device with journals of 64 GiB, which take memory where they were written only.
    #[allow(dead_code)]
    pub fn with_large_journals() -> (Arc<Hooked>, Geometry) {
        let storage = Arc::new(Hooked::default());
        storage.is_sparse.store(true, SeqCst);
        let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 30 }];
        let geometry = Geometry { journal_bytes: 64 << 30, ..Geometry::new(1, 1, volumes) };
        Device::create(&*storage, &geometry, true).unwrap();
        (storage, geometry)
    }

    /// Runs `hook` in the next `call` on `file`, before it is done.
    pub fn when(&self, call: Call, file: FileName, hook: impl FnOnce() + Send + 'static) {
        *self.hook.lock().unwrap() = Some((call, file, Box::new(hook)));
    }

    pub fn has_happened(&self) -> bool {
        self.hook.lock().unwrap().is_none()
    }

    fn called(&self, call: Call, file: FileName) {
        let hook = self.hook.lock().unwrap().take_if(|hook| (hook.0, hook.1) == (call, file));
        hook.into_iter().for_each(|hook| (hook.2)());
    }
}

impl Storage for Hooked {
    fn create(&self, file: FileName, length: u64, fill: Fill) -> io::Result<()> {
        self.called(Call::Create, file);
        let fill = if self.is_sparse.load(SeqCst) { Fill::Sparse } else { fill };
        self.memory.create(file, length, fill)
    }

    fn length(&self, file: FileName) -> io::Result<Option<u64>> {
        self.memory.length(file)
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.called(Call::Read, file);
        if matches!(file, FileName::OwnLog | FileName::RecvLog) {
            self.read.fetch_add(buf.len() as u64, SeqCst);
        }
        self.memory.read(file, offset, buf)
    }

    fn write(&self, file: FileName, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        self.called(Call::Write, file);
        self.memory.write(file, offset, bufs)
    }

    fn zero(&self, file: FileName, offset: u64, length: u64) -> io::Result<()> {
        self.memory.zero(file, offset, length)
    }

    fn sync(&self, file: FileName) -> io::Result<()> {
        self.called(Call::Sync, file);
        self.memory.sync(file)
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

    fn reads_as_zeros(&self, file: FileName, range: Range<u64>) -> io::Result<bool> {
        self.called(Call::Look, file);
        self.memory.reads_as_zeros(file, range)
    }
}
