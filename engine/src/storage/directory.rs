//! A directory of the operating system as the storage of one device.
//!
//! ```text
//! <path>/lock                      empty; the process that has it locked has the device open
//! <path>/superblock own.log recv.log
//! <path>/volumes/<volume>.<index>
//! <path>/side/<kind>.<number>      side files
//! <path>/….new                     a file being created; removed at the next opening
//! ```
//!
//! # Rules
//! - **One process**: an exclusive lock (`flock`) is held from opening to dropping. An inspector
//!   opens read-only, without the lock, and changes nothing, not even by creating the lock.
//! - **Created or not there**: a file is filled and synced under a temporary name and then
//!   renamed, so that neither a failure nor a crash leaves half a file under its own name.
//! - **Writes by `pwritev`**, whose failure is an error of the call, **reads through mappings**
//!   ([`mapped`](super::mapped)), which see the same page cache and cost less than a call
//!   (`benches`, `reads`). Another program's change of a mapped file is an error, not the end of the
//!   process; see there for the signal handler that this takes, and
//!   [`Directory::without_mappings`] for doing without.
//! - **Bounded**: open files ([`descriptors`]) and mapped windows, whatever the number and size of
//!   the volumes.

mod cache;
mod descriptors;

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::Errno;

use super::mapped::{Windows, past_end, read_by_call};
use super::memory::{within, would_extend};
use super::{FileName, Fill, SideKind, Storage, must_be_side, would_shrink};
use descriptors::{Descriptors, Open};

/// How much is written at once where zeros are.
const ZEROS_BYTES: usize = 1 << 20;

/// The mode of a device's files: they are the hosts' data, and who can read the lock's can take it.
const MODE: u32 = 0o600;

/// Mapped windows unless told otherwise: half a terabyte of address space, and far below the
/// 65,530 mappings that the kernel gives a process.
const WINDOWS: usize = 512;

/// Fewer descriptors than this would make every access open a file.
const DESCRIPTORS_MIN: usize = 4;

/// The end of the name of a file that is being created.
const TEMPORARY: &str = ".new";

/// A storage in a directory of the operating system.
pub struct Directory {
    path: PathBuf,
    /// Unlocked when closed; `None` if opened read-only.
    lock: Option<File>,
    descriptors: Descriptors,
    /// `None`: read by calls.
    windows: Option<Windows>,
    /// One creation at a time: two of the same file would share its temporary name.
    creating: Mutex<()>,
}

impl Directory {
    /// Makes the directory, which must not hold a device yet, and locks it.
    ///
    /// An existing directory without a device's files in it will do.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if it holds a device's files, [`io::ErrorKind::WouldBlock`]
    /// if it is open elsewhere; the operating system's.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Directory> {
        let path = path.into();
        make_directory(&path, 0o777)?;
        let directory = Directory::locked(path)?;
        if let Some(file) = directory.files()?.first() {
            let story = format!("{} holds a device already: {file}", directory.path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, story));
        }
        Ok(directory)
    }

    /// Opens and locks an existing directory.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if it is open elsewhere, [`io::ErrorKind::NotFound`] if there
    /// is none; the operating system's.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Directory> {
        Directory::locked(path.into())
    }

    /// Opens an existing directory for looking only: without the lock, also while it is open
    /// elsewhere, in whatever state it is. Every change is refused with
    /// [`io::ErrorKind::PermissionDenied`].
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none; the operating system's.
    pub fn open_read_only(path: impl Into<PathBuf>) -> io::Result<Directory> {
        let path = path.into();
        fs::read_dir(&path)?;
        Ok(Directory::over(path, None))
    }

    /// The same directory with at most `descriptors` files open and `windows` mapped, in place of
    /// what was derived from the process's limits. The superblock and the logs are among the
    /// files. A thread at work may add one of each for the moment.
    pub fn with_bounds(mut self, descriptors: usize, windows: usize) -> Directory {
        let descriptors = descriptors.max(DESCRIPTORS_MIN);
        self.descriptors = Descriptors::new(descriptors, self.lock.is_some());
        self.windows = self.windows.map(|_| Windows::new(windows));
        self
    }

    /// The same directory read by calls instead of mappings: at half the speed from the page cache
    /// (`benches`, `reads`), and without the handler of SIGBUS that mappings need, which is the
    /// whole process's. For programs that want to have no such handler, or theirs alone.
    pub fn without_mappings(mut self) -> Directory {
        self.windows = None;
        self
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many files are open now; for tests.
    #[doc(hidden)]
    pub fn open_descriptors(&self) -> usize {
        self.descriptors.open_now()
    }

    /// How many windows are mapped now; for tests.
    #[doc(hidden)]
    pub fn mapped_windows(&self) -> usize {
        self.windows.as_ref().map_or(0, Windows::mapped)
    }

    fn over(path: PathBuf, lock: Option<File>) -> Directory {
        let descriptors = Descriptors::new(Descriptors::default_bound(), lock.is_some());
        let windows = Some(Windows::new(WINDOWS));
        Directory { path, lock, descriptors, windows, creating: Mutex::default() }
    }

    fn locked(path: PathBuf) -> io::Result<Directory> {
        let name = path.join("lock");
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(name)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => (),
            Err(Errno::WOULDBLOCK) => {
                let story = format!("{} is open elsewhere: close it there first", path.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, story));
            }
            Err(error) => return Err(error.into()),
        }
        let directory = Directory::over(path, Some(lock));
        directory.for_each_name(|path, name| {
            let half_made = name.strip_suffix(TEMPORARY).and_then(parse);
            half_made.map_or(Ok(()), |_| fs::remove_file(path))
        })?;
        // An earlier process may have renamed a file and died before this.
        sync_directory(&directory.path)?;
        for folder in ["volumes", "side"] {
            match sync_directory(&directory.path.join(folder)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(directory)
    }

    /// Calls `act` with the path and the name, relative to the directory, of all that could be a
    /// file of ours.
    fn for_each_name(&self, mut act: impl FnMut(&Path, &str) -> io::Result<()>) -> io::Result<()> {
        for prefix in ["", "volumes/", "side/"] {
            let under = self.path.join(prefix);
            let entries = match fs::read_dir(&under).map_err(|error| (error.kind(), error)) {
                Ok(entries) => entries,
                // No file was created there yet, or there is something else in its place: damage.
                // `inspect` has to get past it, and an opening reports it at the first file.
                Err((io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _))
                    if !prefix.is_empty() =>
                {
                    continue;
                }
                Err((_, error)) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                if let Some(name) = entry.file_name().to_str() {
                    act(&entry.path(), &format!("{prefix}{name}"))?;
                }
            }
        }
        Ok(())
    }

    fn path_of(&self, file: FileName) -> PathBuf {
        self.path.join(file.to_string())
    }

    fn open_file(&self, file: FileName) -> io::Result<Arc<Open>> {
        self.descriptors.get(file, &self.path_of(file))
    }

    fn must_be_writable(&self) -> io::Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        let story = format!("{} was opened for reading only", self.path.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, story))
    }

    /// The file open for a change of `length` bytes at `offset`, if it is as long as that.
    fn open_for_change(&self, file: FileName, offset: u64, length: u64) -> io::Result<Arc<Open>> {
        self.must_be_writable()?;
        let open = self.open_file(file)?;
        if !within(offset, length, open.length()) {
            return Err(would_extend(offset, length, open.length()));
        }
        Ok(open)
    }

    /// Makes `file` at `path` by way of `temporary`, and its existence durable.
    fn make(&self, path: &Path, temporary: &Path, length: u64, fill: Fill) -> io::Result<()> {
        let under = parent(path);
        if under != self.path {
            make_directory(under, 0o700)?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(temporary)?;
        match fill {
            Fill::Sparse => file.set_len(length)?,
            Fill::Written => fill_with_zeros(&file, length)?,
        }
        file.sync_all()?;
        fs::rename(temporary, path)?;
        sync_directory(under).inspect_err(|_| {
            // The file is whole, but a crash may take it: after an error there must be none.
            let _ = fs::remove_file(path);
        })
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Storage for Directory {
    fn create(&self, file: FileName, length: u64, fill: Fill) -> io::Result<()> {
        self.must_be_writable()?;
        let _alone = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path_of(file);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(error),
            Ok(_) => {
                let story = format!("{} exists already", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, story));
            }
        }
        let temporary = self.path.join(format!("{file}{TEMPORARY}"));
        self.make(&path, &temporary, length, fill).inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
        self.descriptors.created(file);
        Ok(())
    }

    fn length(&self, file: FileName) -> io::Result<Option<u64>> {
        match fs::metadata(self.path_of(file)) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if buf.is_empty() {
            // No window will be looked at, so that nothing else would notice.
            let open = self.open_file(file)?;
            return if offset <= open.length() { Ok(()) } else { Err(past_end(file, offset)) };
        }
        // A file that may grow is not mapped: a window is as long as its file was.
        match self.windows.as_ref().filter(|_| must_be_side(file).is_err()) {
            Some(windows) => windows.read(file, offset, buf, || self.open_file(file)),
            None => read_by_call(&*self.open_file(file)?, file, offset, buf),
        }
    }

    fn write(&self, file: FileName, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        let length = bufs.iter().map(|buf| buf.len() as u64).sum();
        let open = self.open_for_change(file, offset, length)?;
        let outcome = write_all(&open, offset, length, bufs);
        open.wrote();
        outcome
    }

    fn zero(&self, file: FileName, offset: u64, length: u64) -> io::Result<()> {
        let open = self.open_for_change(file, offset, length)?;
        if length == 0 {
            return Ok(());
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let outcome = match retry(|| rustix::fs::fallocate(&*open, hole, offset, length)) {
            Err(Errno::OPNOTSUPP) => write_zeros(&*open, offset, length),
            outcome => outcome.map_err(io::Error::from),
        };
        open.wrote();
        outcome
    }

    fn sync(&self, file: FileName) -> io::Result<()> {
        if self.lock.is_none() {
            // Nothing was written, and looking must not cause any writing either.
            return self.open_file(file).map(|_| ());
        }
        self.descriptors.sync(file, &self.path_of(file))
    }

    /// The boot of the machine, and which files the logs are; see `directory/cache.rs`.
    fn cache_identity(&self) -> Option<[u8; 32]> {
        cache::identity([FileName::OwnLog, FileName::RecvLog].map(|log| self.path_of(log)))
    }

    fn grow(&self, file: FileName, length: u64) -> io::Result<()> {
        must_be_side(file)?;
        self.must_be_writable()?;
        let open = self.open_file(file)?;
        match open.grow(length)? {
            found if found > length => Err(would_shrink(file, length, found)),
            _ => Ok(()),
        }
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        must_be_side(file)?;
        self.must_be_writable()?;
        let _alone = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path_of(file);
        fs::remove_file(&path)?;
        self.descriptors.removed(file);
        sync_directory(parent(&path))
    }

    fn files(&self) -> io::Result<Vec<FileName>> {
        let mut files = Vec::new();
        self.for_each_name(|_, name| {
            files.extend(parse(name));
            Ok(())
        })?;
        Ok(files)
    }

    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
        let open = self.open_file(file)?;
        let mut at = offset;
        // The descriptor's own position, which this moves, is used by nobody.
        while at < open.length() {
            let start = match rustix::fs::seek(&*open, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => return Ok(None),
                Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(at..open.length())),
                Err(error) => return Err(error.into()),
            };
            let end = match rustix::fs::seek(&*open, SeekFrom::Hole(start)) {
                Ok(end) => end.min(open.length()),
                Err(Errno::NXIO) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if start < end {
                return Ok(Some(start..end));
            }
            // Zeroed by someone between the two questions: go on from there.
            at = start + 1;
        }
        Ok(None)
    }

    fn reads_as_zeros(&self, file: FileName, range: Range<u64>) -> io::Result<bool> {
        let open = self.open_file(file)?;
        match rustix::fs::seek(&*open, SeekFrom::Data(range.start)) {
            Ok(start) => Ok(start >= range.end),
            Err(Errno::NXIO) => Ok(range.end <= open.length()),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The file of that name, if it is one of ours, written exactly as we do.
fn parse(name: &str) -> Option<FileName> {
    let file = match name {
        "superblock" => FileName::Superblock,
        "own.log" => FileName::OwnLog,
        "recv.log" => FileName::RecvLog,
        _ => {
            let (folder, name) = name.split_once('/')?;
            let (of, number) = name.split_once('.')?;
            let number = number.parse().ok()?;
            match folder {
                "volumes" => FileName::Segment { volume: of.parse().ok()?, index: number },
                "side" => FileName::Side { kind: SideKind::new(of)?, number },
                _ => return None,
            }
        }
    };
    (file.to_string() == name).then_some(file)
}

/// The directory that `path` is in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the directory at `path` if there is none, with this `mode` as far as the process's mask lets it, and its
/// existence durable. Syncs one that was
/// there, too: a process may have died after making it and before the rest.
fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_directory(parent(path)),
    }
}

/// Makes durable which files are in the directory at `path`.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn retry<T>(call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    rustix::io::retry_on_intr(call)
}

/// Writes zeros over all of a new file, after taking its space in one piece.
fn fill_with_zeros(file: &File, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    match retry(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length)) {
        Ok(()) => (),
        // Without it the file is only less contiguous.
        Err(Errno::OPNOTSUPP) => file.set_len(length)?,
        Err(error) => return Err(error.into()),
    }
    // Writing into space that is only taken costs metadata at each first write.
    write_zeros(file, 0, length)
}

fn write_zeros(file: impl std::os::fd::AsFd, offset: u64, length: u64) -> io::Result<()> {
    let zeros = vec![0; length.min(ZEROS_BYTES as u64) as usize];
    let mut at = offset;
    let mut left = length;
    while left > 0 {
        let now = left.min(zeros.len() as u64);
        write_all(&file, at, now, &[IoSlice::new(&zeros[..now as usize])])?;
        at += now;
        left -= now;
    }
    Ok(())
}

/// Writes all of `bufs`, which are `length` bytes together, at `offset`.
fn write_all(
    file: impl std::os::fd::AsFd,
    offset: u64,
    length: u64,
    bufs: &[IoSlice<'_>],
) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    // One call is enough as a rule, and needs no copy of the list.
    let mut done = retry(|| rustix::io::pwritev(&file, bufs, offset))? as u64;
    if done == length {
        return Ok(());
    }
    let mut copy = bufs.to_vec();
    let mut rest = &mut copy[..];
    IoSlice::advance_slices(&mut rest, done as usize);
    while done < length {
        let now = retry(|| rustix::io::pwritev(&file, rest, offset + done))?;
        if now == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, now);
        done += now as u64;
    }
    Ok(())
}
