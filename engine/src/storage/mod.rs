//! The disk below a device, as a trait: a vendor's disks, memory, or a simulator's.
//!
//! # The contract
//! - **Atomic unit**: 512 bytes. A write that is cut by a power loss may leave any subset of its
//!   sectors; a sector is old or new, never torn.
//! - **Alignment**: offsets and lengths need none; the engine's are multiples of 512.
//! - **`sync`**: when it returns `Ok`, every write to that file that returned before `sync` was
//!   called is durable, and so are the file's existence and length. Nothing is durable before.
//! - **Short writes** do not exist: a write is complete or an error. After an error any part of it
//!   may have happened.
//! - **Failure is final**: after a failed write, sync or creation the engine stops using the storage
//!   for writing (`storage/checked.rs`); a storage must never report a lost write as durable later.
//! - **Concurrency**: all methods may be called from several threads at once. A read that races
//!   with a write of the same bytes returns any mixture of old and new; the engine checks and
//!   repeats.
//! - **One device**: the engine opens no second device on the same `Arc`. A storage that can be
//!   reached in another way, as a directory can, refuses a second user by itself.

use std::io::{self, IoSlice};
use std::ops::Range;

/// The name of a file of a device directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FileName {
    /// Both copies of the superblock.
    Superblock,
    /// The own log: the remote unreflected volume (512/612).
    OwnLog,
    /// The received log: the local unreflected volume (511/611).
    RecvLog,
    /// A piece of a normal volume (510/610).
    Segment {
        /// The volume.
        volume: u32,
        /// Which piece of it, from 0.
        index: u32,
    },
    /// A side file: an image, what was salvaged, a table. A storage knows neither what is in
    /// it nor which kinds there are. Only side files grow, and only they are removed.
    Side {
        /// Its purpose.
        kind: SideKind,
        /// Which of its kind.
        number: u32,
    },
}

/// The purpose of a side file: a word of 1 to 8 lower-case letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SideKind([u8; 8]);

impl SideKind {
    /// The kind of that name; `None` if it is no word of 1 to 8 letters from `a` to `z`.
    pub const fn new(name: &str) -> Option<SideKind> {
        let name = name.as_bytes();
        if name.is_empty() || name.len() > 8 {
            return None;
        }
        let mut word = [0; 8];
        let mut at = 0;
        while at < name.len() {
            if !name[at].is_ascii_lowercase() {
                return None;
            }
            word[at] = name[at];
            at += 1;
        }
        Some(SideKind(word))
    }
}

impl std::fmt::Display for SideKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .iter()
            .take_while(|&&letter| letter != 0)
            .try_for_each(|&l| write!(f, "{}", l as char))
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FileName::Superblock => f.write_str("superblock"),
            FileName::OwnLog => f.write_str("own.log"),
            FileName::RecvLog => f.write_str("recv.log"),
            FileName::Segment { volume, index } => write!(f, "volumes/{volume}.{index}"),
            FileName::Side { kind, number } => write!(f, "side/{kind}.{number}"),
        }
    }
}

/// The content of a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Zeros really written, so that later writes neither allocate nor change metadata.
    Written,
    /// A hole: nothing allocated, reads as zeros.
    Sparse,
}

/// One device's files. See the module for what every method promises.
pub trait Storage: Send + Sync {
    /// Creates `file` of `length` bytes, reading as zeros, durable when this returns.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if it exists; the medium's, after which it does not exist.
    fn create(&self, file: FileName, length: u64, fill: Fill) -> io::Result<()>;

    /// The length of `file` in bytes; `None` if it does not exist.
    ///
    /// # Errors
    /// The medium's.
    fn length(&self, file: FileName) -> io::Result<Option<u64>>;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] past the end, [`io::ErrorKind::NotFound`] if the file does
    /// not exist; the medium's.
    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bufs`, one after the other, at `offset`. Never extends a file: see
    /// [`Storage::grow`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] past the end, [`io::ErrorKind::NotFound`]; the medium's.
    fn write(&self, file: FileName, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()>;

    /// Makes `length` bytes at `offset` read as zeros, giving back their space where it can.
    ///
    /// # Errors
    /// As [`Storage::write`].
    fn zero(&self, file: FileName, offset: u64, length: u64) -> io::Result<()>;

    /// Makes every write to `file` that returned before this call durable.
    ///
    /// # Errors
    /// The medium's: what is durable is unknown then, and stays so.
    fn sync(&self, file: FileName) -> io::Result<()>;

    /// Names the life of the cache that holds what was written and not synced: as long as it is the
    /// same, the next opening of the storage finds each write that returned, though its process has
    /// died ([`crate::limits::Durability::Written`]). After a power cut it is another. `None`, and all
    /// zeros: the storage makes no such promise.
    fn cache_identity(&self) -> Option<[u8; 32]> {
        None
    }

    /// Makes the side file `file` `length` bytes long, which it may be already; what is added reads
    /// as zeros. The new length is durable with the next [`Storage::sync`] of it.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if it is longer, or no side file, [`io::ErrorKind::NotFound`];
    /// the medium's, after which it has the old length or the new one.
    fn grow(&self, file: FileName, length: u64) -> io::Result<()>;

    /// Removes the side file `file`, durably when this returns. A read under way gets what it held,
    /// or an error.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if it is no side file, [`io::ErrorKind::NotFound`]; the
    /// medium's, after which it may be there or not.
    fn remove(&self, file: FileName) -> io::Result<()>;

    /// Every file there is, in no order.
    ///
    /// # Errors
    /// The medium's.
    fn files(&self) -> io::Result<Vec<FileName>>;

    /// The first range at or after `offset` that may hold anything but zeros; `None` at the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if the file does not exist; the medium's.
    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>>;

    /// Whether `range` of `file` is known to read as zeros, without reading it: a discard of it is then
    /// nothing to be done. `false`: it may, or it is not known.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if the file does not exist; the medium's.
    fn reads_as_zeros(&self, file: FileName, range: Range<u64>) -> io::Result<bool> {
        let _ = (file, range);
        Ok(false)
    }
}

/// Refuses to change the length of anything but a side file, or to remove it: mappings and the
/// engine rest on that.
pub(crate) fn must_be_side(file: FileName) -> io::Result<()> {
    match file {
        FileName::Side { .. } => Ok(()),
        _ => {
            let story = format!("{file} is no side file: its length is fixed, and it stays");
            Err(io::Error::new(io::ErrorKind::InvalidInput, story))
        }
    }
}

/// The error for a file that would become shorter.
pub(crate) fn would_shrink(file: FileName, length: u64, found: u64) -> io::Error {
    let story = format!("{file} has {found} bytes, and is never cut to {length}");
    io::Error::new(io::ErrorKind::InvalidInput, story)
}

mod checked;
mod directory;
#[allow(unsafe_code)]
mod mapped;
mod memory;
mod opened;
pub mod segments;
mod volumes;

pub(crate) use checked::Checked;
pub use directory::Directory;
pub use memory::Memory;
pub(crate) use opened::Opened;
pub use volumes::Volumes;
