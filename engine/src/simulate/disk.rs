//! A disk with two images: what reads see, and what is durable; between them the writes that no
//! sync has covered, any sectors of which a power cut may keep or lose.

use super::payload::SECTOR;
use super::random::Random;
use super::tape::{Sort, Tape};
use super::{NAMES, Side};
use crate::journal::lock;
use crate::storage::{FileName, Fill, Storage};
use crate::sync::{AtomicBool, Ordering::Relaxed};
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// What a power cut leaves of the writes that no sync has covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    Nothing,
    All,
    /// Each write wholly or not at all, whatever their order: lost and late writes.
    Writes,
    /// Each sector by itself: torn writes.
    Sectors,
}

/// What is going to happen to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The process dies in the middle of an operation.
    Death,
    /// A write fails; any part of it may have happened.
    BadWrite,
    /// A sync fails; what it should have covered is durable or not. What is not stays readable, but
    /// no later sync covers it unless it is written again: its pages count as clean.
    BadSync,
    /// There is no space left for what was never written.
    Full,
}

struct File {
    name: FileName,
    fill: Fill,
    volatile: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

struct State {
    files: Vec<File>,
    /// Trouble comes at the first fitting operation after so many.
    armed: Option<(u64, Trouble)>,
    /// Syncs say that all is well and do nothing.
    lies: bool,
    /// The next write of a volume goes astray.
    astray: bool,
    random: Random,
}

pub(super) struct Disk {
    side: Side,
    tape: Arc<Tape>,
    state: Mutex<State>,
}

/// A disk in the hands of one process.
pub(super) struct Process {
    disk: Arc<Disk>,
    /// It has died: it does nothing more.
    pub dead: Arc<AtomicBool>,
    /// A write or sync of its has failed: it must write nothing more.
    failed: AtomicBool,
    /// But a step that was under way when that happened comes to its end.
    pub ending: AtomicBool,
}

impl Disk {
    pub fn new(side: Side, tape: Arc<Tape>) -> Disk {
        let (files, random) = (Vec::new(), Random::new(0));
        let state = State { files, armed: None, lies: false, astray: false, random };
        Disk { side, tape, state: Mutex::new(state) }
    }

    /// Trouble comes at the first fitting operation after `after` others.
    pub fn arm(&self, after: u64, trouble: Trouble, seed: u64) {
        let mut state = lock(&self.state);
        state.armed = Some((after, trouble));
        state.random = Random::new(seed);
    }

    /// No trouble is going to come any more.
    pub fn disarm(&self) {
        lock(&self.state).armed = None;
    }

    /// Syncs lie from now on, until the power fails.
    pub fn lie(&self) {
        lock(&self.state).lies = true;
    }

    /// A sector of a log or of the superblock changes: a bit, all of it, or it is another's; or a
    /// write that belonged elsewhere has hit a sector or a page of it.
    /// What it did, if there was anything to change.
    pub fn rot(&self, random: &mut Random) -> Option<String> {
        let mut state = lock(&self.state);
        if state.lies {
            // It would make durable what a liar holds back: two faults, and no promise is left.
            return None;
        }
        let fixed = [FileName::OwnLog, FileName::RecvLog, FileName::Superblock];
        let name = random.pick(&fixed);
        let file = state.files.iter_mut().find(|f| f.name == name)?;
        let is_used = |sector: &&[u8]| sector.iter().any(|&byte| byte != 0);
        let how = random.below(4);
        let size = if how == 3 && random.once_in(2) { 4096 } else { SECTOR };
        let used: Vec<usize> = (0..)
            .zip(file.volatile.chunks_exact(size))
            .filter(|(_, sector)| is_used(sector))
            .map(|(at, _)| at * size)
            .collect();
        if used.is_empty() {
            return None;
        }
        let (at, from) = (random.pick(&used), random.pick(&used));
        let bit = random.below(SECTOR * 8);
        let mut astray = file.volatile[from..from + size].to_vec();
        if how == 3 {
            let other = random.pick(&fixed);
            let other = state.files.iter().find(|f| f.name == other)?;
            let from = random.below(other.volatile.len() / size) * size;
            astray.copy_from_slice(&other.volatile[from..from + size]);
        }
        let file = state.files.iter_mut().find(|f| f.name == name)?;
        for image in [&mut file.volatile, &mut file.durable] {
            match how {
                0 => image[at + bit / 8] ^= 1 << (bit % 8),
                1 => image[at..at + size].fill(0),
                _ => image[at..at + size].copy_from_slice(&astray),
            }
        }
        let how = ["has another bit", "is zeros", "is another's", "was hit by another's"][how];
        Some(format!("{size} bytes at {at} of {name} of {}: {how}", NAMES[self.side]))
    }

    /// The next write of a volume goes astray.
    pub fn send_astray(&self, seed: u64) {
        let mut state = lock(&self.state);
        state.astray = true;
        state.random = Random::new(seed);
    }

    /// A sector of a volume changes: a bit, all of it, or it is another's. What it did, if there
    /// was anything to change.
    pub fn rot_volume(&self, random: &mut Random) -> Option<String> {
        let mut state = lock(&self.state);
        let is_volume = |f: &&mut File| matches!(f.name, FileName::Segment { .. });
        let mut volumes: Vec<&mut File> = state.files.iter_mut().filter(is_volume).collect();
        if volumes.is_empty() {
            return None;
        }
        let at = random.below(volumes.len());
        let file = &mut *volumes[at];
        let sectors = file.volatile.len() / SECTOR;
        let (at, from) = (random.below(sectors) * SECTOR, random.below(sectors) * SECTOR);
        let how = random.below(3);
        match how {
            0 => file.volatile[at] ^= 1,
            1 => file.volatile[at..at + SECTOR].fill(0),
            _ => file.volatile.copy_within(from..from + SECTOR, at),
        }
        let how = ["has another bit", "is zeros", "is another's"][how];
        Some(format!("the sector at {at} of {} of {} {how}", file.name, NAMES[self.side]))
    }

    /// A process takes the disk into use.
    pub fn begin(self: &Arc<Disk>) -> Arc<Process> {
        self.disarm();
        let (failed, ending) = Default::default();
        Arc::new(Process { disk: self.clone(), dead: Arc::default(), failed, ending })
    }

    /// The power fails; whether anything was lost that had been called durable.
    pub fn cut(&self, leaves: Leaves, random: &mut Random) -> bool {
        let mut state = lock(&self.state);
        let lied = std::mem::take(&mut state.lies);
        // A cache that was never written out is gone as a whole.
        let leaves = if lied { Leaves::Nothing } else { leaves };
        for file in &mut state.files {
            for (offset, bytes) in std::mem::take(&mut file.pending) {
                let whole = match leaves {
                    Leaves::Nothing => continue,
                    Leaves::All | Leaves::Sectors => true,
                    Leaves::Writes => random.once_in(2),
                };
                for (at, sector) in (offset..).step_by(SECTOR).zip(bytes.chunks(SECTOR)) {
                    if whole && (leaves != Leaves::Sectors || random.once_in(2)) {
                        file.durable[at..at + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            file.volatile.copy_from_slice(&file.durable);
        }
        lied
    }

    /// What reads would see, past the process and all trouble; `None` if there is no such file.
    pub fn peek(&self, file: FileName, offset: usize, buf: &mut [u8]) -> Option<()> {
        let state = lock(&self.state);
        let file = state.files.iter().find(|f| f.name == file)?;
        buf.copy_from_slice(&file.volatile[offset..offset + buf.len()]);
        Some(())
    }
}

impl Process {
    pub fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// Counts an operation; `Some`: trouble comes in it.
    fn operate(&self, state: &mut State, fits: &[Trouble]) -> io::Result<Option<Trouble>> {
        if self.is_dead() {
            return Err(gone());
        }
        let Some((after, trouble)) = &mut state.armed else { return Ok(None) };
        if *after > 0 {
            *after -= 1;
            return Ok(None);
        }
        let trouble = *trouble;
        if !fits.contains(&trouble) {
            return Ok(None);
        }
        state.armed = None;
        let name = NAMES[self.disk.side];
        self.disk.tape.event(Sort::Fault, format_args!("{name} {trouble:?}"));
        self.disk.tape.count(match trouble {
            Trouble::Death => "deaths in an operation",
            Trouble::BadWrite => "failed writes",
            Trouble::BadSync => "failed syncs",
            Trouble::Full => "full disks",
        });
        match trouble {
            Trouble::Death => self.dead.store(true, Relaxed),
            _ => self.failed.store(true, Relaxed),
        }
        Ok(Some(trouble))
    }

    fn check_final(&self, file: FileName) {
        if self.has_failed() && !self.is_dead() && !self.ending.load(Relaxed) {
            let story = format!("{} wrote or synced {file} after a failure", NAMES[self.disk.side]);
            self.disk.tape.broken("a failed write or sync stops the device for good", story);
        }
    }

    fn put(&self, name: FileName, offset: u64, bytes: Vec<u8>, what: &str) -> io::Result<()> {
        let mut guard = lock(&self.disk.state);
        let state = &mut *guard;
        self.check_final(name);
        let at = find(state, name)?;
        let sparse = state.files[at].fill == Fill::Sparse;
        let fits = [Trouble::Death, Trouble::BadWrite, Trouble::Full];
        let trouble = self.operate(state, &fits[..if sparse { 3 } else { 2 }])?;
        let file = &mut state.files[at];
        let (offset, mut bytes) = (offset as usize, bytes);
        if offset + bytes.len() > file.volatile.len() {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("{name} is shorter")));
        }
        let device = NAMES[self.disk.side];
        let length = bytes.len();
        let mut offset = offset;
        if state.astray && sparse {
            state.astray = false;
            offset = state.random.below((file.volatile.len() - length) / SECTOR + 1) * SECTOR;
        }
        if trouble.is_some() {
            let sectors = state.random.below(length / SECTOR + 1);
            bytes.truncate(sectors * SECTOR);
        }
        file.volatile[offset..offset + bytes.len()].copy_from_slice(&bytes);
        file.pending.push((offset, bytes));
        self.disk
            .tape
            .event(Sort::Disk, format_args!("{device} {what} {name} {length} at {offset}"));
        match trouble {
            None => Ok(()),
            Some(Trouble::Death) => Err(gone()),
            Some(Trouble::Full) => Err(io::Error::new(ErrorKind::StorageFull, "simulated")),
            Some(_) => Err(io::Error::other("a simulated failure")),
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("this process is dead")
}

fn find(state: &State, name: FileName) -> io::Result<usize> {
    let missing = || io::Error::new(ErrorKind::NotFound, format!("there is no {name}"));
    state.files.iter().position(|f| f.name == name).ok_or_else(missing)
}

impl Storage for Process {
    fn create(&self, file: FileName, length: u64, fill: Fill) -> io::Result<()> {
        let mut guard = lock(&self.disk.state);
        let state = &mut *guard;
        self.check_final(file);
        if find(state, file).is_ok() {
            return Err(io::Error::new(ErrorKind::AlreadyExists, format!("{file} exists")));
        }
        let trouble = self.operate(state, &[Trouble::Death, Trouble::BadWrite, Trouble::Full])?;
        if trouble.is_none() || state.random.once_in(2) {
            let zeros = || vec![0; length as usize];
            let (volatile, durable) = (zeros(), zeros());
            let pending = Vec::new();
            state.files.push(File { name: file, fill, volatile, durable, pending });
        }
        self.disk
            .tape
            .event(Sort::Disk, format_args!("{} makes {file} {length}", NAMES[self.disk.side]));
        match trouble {
            None => Ok(()),
            Some(Trouble::Full) => Err(io::Error::new(ErrorKind::StorageFull, "simulated")),
            Some(_) => Err(gone()),
        }
    }

    fn length(&self, file: FileName) -> io::Result<Option<u64>> {
        let state = lock(&self.disk.state);
        Ok(state.files.iter().find(|f| f.name == file).map(|f| f.volatile.len() as u64))
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.is_dead() {
            return Err(gone());
        }
        let state = lock(&self.disk.state);
        let file = &state.files[find(&state, file)?];
        let offset = offset as usize;
        let bytes = file.volatile.get(offset..offset + buf.len());
        buf.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, file: FileName, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        let mut all = Vec::with_capacity(bufs.iter().map(|b| b.len()).sum());
        bufs.iter().for_each(|buf| all.extend_from_slice(buf));
        self.put(file, offset, all, "writes")
    }

    fn zero(&self, file: FileName, offset: u64, length: u64) -> io::Result<()> {
        self.put(file, offset, vec![0; length as usize], "zeroes")
    }

    fn sync(&self, file: FileName) -> io::Result<()> {
        let mut guard = lock(&self.disk.state);
        let state = &mut *guard;
        self.check_final(file);
        let at = find(state, file)?;
        let trouble = self.operate(state, &[Trouble::Death, Trouble::BadSync])?;
        let name = NAMES[self.disk.side];
        self.disk.tape.event(Sort::Disk, format_args!("{name} syncs {file}"));
        let (file, random) = (&mut state.files[at], &mut state.random);
        let covered = if state.lies { Vec::new() } else { std::mem::take(&mut file.pending) };
        for (offset, bytes) in covered {
            // A sync that fails has covered what it liked; what it has not is lost, and is still
            // read. One that the process dies in leaves the rest for a later one.
            if trouble.is_none() || random.once_in(2) {
                file.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
            } else if trouble == Some(Trouble::Death) {
                file.pending.push((offset, bytes));
            }
        }
        match trouble {
            None => Ok(()),
            Some(Trouble::Death) => Err(gone()),
            Some(_) => Err(io::Error::other("a simulated failure")),
        }
    }

    fn files(&self) -> io::Result<Vec<FileName>> {
        Ok(lock(&self.disk.state).files.iter().map(|f| f.name).collect())
    }

    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
        let length = self.length(file)?.ok_or(ErrorKind::NotFound)?;
        Ok((offset < length).then_some(offset..length))
    }
}
