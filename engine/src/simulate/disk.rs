//! A disk with two images: what reads see, and what is durable; between them the writes that no
//! sync has covered, any sectors of which a power cut may keep or lose.

use super::payload::SECTOR;
use super::random::Random;
use super::tape::{Sort, Tape};
use super::{NAMES, Side};
use crate::storage::{FileName, Fill, Storage, must_be_side, would_shrink};
use crate::sync::{AtomicBool, Ordering::Relaxed, lock};
use crate::table_file;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// The rest that a power cut leaves of the writes that no sync has covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    Nothing,
    All,
    /// Each write wholly or not at all, whatever their order: lost and late writes.
    Writes,
    /// Each sector by itself: torn writes.
    Sectors,
}

/// A disk's trouble to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The process dies in the middle of an operation.
    Death,
    /// A write fails; any part of it may have happened.
    BadWrite,
    /// A sync fails; what it should have covered is durable or not. The rest stays readable, but
    /// no later sync covers it unless it is written again: its pages count as clean.
    BadSync,
    /// There is no space left for what was never written.
    Full,
}

/// The bytes on the disk, or those that reads would see.
#[derive(Clone, Default)]
struct Bytes {
    bytes: Vec<u8>,
    /// Sectors that are not what they should be, by offset, and what they should be.
    rotten: BTreeMap<usize, Vec<u8>>,
}

impl Bytes {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        if !self.rotten.is_empty() {
            self.rotten.retain(|at, _| !(offset..offset + bytes.len()).contains(at));
        }
    }

    /// As [`Bytes::put`], but this should not have come here.
    fn spoil(&mut self, offset: usize, bytes: &[u8]) {
        for (at, sector) in (offset..).step_by(SECTOR).zip(bytes.chunks(SECTOR)) {
            let held = &mut self.bytes[at..at + sector.len()];
            if held != sector {
                self.rotten.entry(at).or_insert_with(|| held.to_vec());
                held.copy_from_slice(sector);
            }
        }
    }

    /// `bytes` should have come here.
    fn miss(&mut self, offset: usize, bytes: &[u8]) {
        for (at, sector) in (offset..).step_by(SECTOR).zip(bytes.chunks(SECTOR)) {
            self.rotten.remove(&at);
            if &self.bytes[at..at + sector.len()] != sector {
                self.rotten.insert(at, sector.to_vec());
            }
        }
    }

    /// Rotten sectors are sound until this is called again.
    fn swap(&mut self) {
        for (&at, sector) in &mut self.rotten {
            self.bytes[at..at + sector.len()].swap_with_slice(sector);
        }
    }
}

struct File {
    name: FileName,
    fill: Fill,
    volatile: Bytes,
    durable: Bytes,
    pending: Vec<(usize, Vec<u8>)>,
}

impl File {
    /// Whether no write that a sync has yet to cover touches these bytes.
    fn is_quiet(&self, at: usize, length: usize) -> bool {
        self.pending.iter().all(|(from, bytes)| from + bytes.len() <= at || at + length <= *from)
    }

    /// These bytes change, whatever is said to be there.
    fn spoil(&mut self, at: usize, bytes: &[u8]) {
        self.volatile.spoil(at, bytes);
        self.durable.spoil(at, bytes);
    }

    fn is_volume(&self) -> bool {
        matches!(self.name, FileName::Segment { .. })
    }
}

/// Which write goes astray.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Astray {
    Log,
    Volume,
}

struct State {
    files: Vec<File>,
    /// Trouble comes at the first fitting operation after so many.
    armed: Option<(u64, Trouble)>,
    /// Syncs say that all is well and do nothing.
    lies: bool,
    /// The next such write goes astray.
    astray: Option<Astray>,
    /// How often its power has failed.
    cuts: u64,
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
        let state = State { files, armed: None, lies: false, astray: None, cuts: 0, random };
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
        let mut state = lock(&self.state);
        (state.armed, state.astray) = (None, None);
    }

    /// Syncs lie from now on, until the power fails.
    pub fn lie(&self) {
        lock(&self.state).lies = true;
    }

    pub fn lies(&self) -> bool {
        lock(&self.state).lies
    }

    /// A sector of a log or of the superblock changes: a bit, all of it, or it is another's; or a
    /// write that belonged elsewhere has hit a sector or a page of it.
    /// Returns the change, if there was anything to change.
    pub fn rot(&self, random: &mut Random) -> Option<String> {
        let mut state = lock(&self.state);
        if state.lies {
            // It would make durable what a liar holds back: two faults, and no promise is left.
            return None;
        }
        let fixed = [FileName::OwnLog, FileName::RecvLog, FileName::Superblock];
        let name = random.pick(&fixed);
        let file = state.files.iter().find(|f| f.name == name)?;
        let is_used = |sector: &[u8]| sector.iter().any(|&byte| byte != 0);
        let how = random.below(4);
        let size = if how == 3 && random.once_in(2) { 4096 } else { SECTOR };
        let used: Vec<usize> = (0..)
            .step_by(size)
            .zip(file.volatile.bytes.chunks_exact(size))
            .filter(|(at, sector)| is_used(sector) && file.is_quiet(*at, size))
            .map(|(at, _)| at)
            .collect();
        if used.is_empty() {
            return None;
        }
        let (at, from) = (random.pick(&used), random.pick(&used));
        let mut now = file.volatile.bytes[at..at + size].to_vec();
        let bit = random.below(SECTOR * 8);
        match how {
            0 => now[bit / 8] ^= 1 << (bit % 8),
            1 => now.fill(0),
            2 => now.copy_from_slice(&file.volatile.bytes[from..from + size]),
            _ => {
                let other = random.pick(&fixed);
                let other = &state.files.iter().find(|f| f.name == other)?.volatile.bytes;
                let from = random.below(other.len() / size) * size;
                now.copy_from_slice(&other[from..from + size]);
            }
        }
        state.files.iter_mut().find(|f| f.name == name)?.spoil(at, &now);
        let how = ["has another bit", "is zeros", "is another's", "was hit by another's"][how];
        Some(format!("{size} bytes at {at} of {name} of {}: {how}", NAMES[self.side]))
    }

    /// The next such write goes astray.
    pub fn send_astray(&self, which: Astray, seed: u64) {
        let mut state = lock(&self.state);
        if !state.lies {
            state.astray = Some(which);
            state.random = Random::new(seed);
        }
    }

    /// A sector of a volume changes: a bit, all of it, or it is another's. Returns the change, if there
    /// was anything to change.
    pub fn rot_volume(&self, random: &mut Random) -> Option<String> {
        let mut state = lock(&self.state);
        if state.lies {
            return None;
        }
        let mut volumes: Vec<&mut File> =
            state.files.iter_mut().filter(|f| f.is_volume()).collect();
        if volumes.is_empty() {
            return None;
        }
        let at = random.below(volumes.len());
        let file = &mut *volumes[at];
        let sectors = file.volatile.bytes.len() / SECTOR;
        let (at, from) = (random.below(sectors) * SECTOR, random.below(sectors) * SECTOR);
        if !file.is_quiet(at, SECTOR) {
            return None;
        }
        let how = random.below(3);
        let mut now = file.volatile.bytes[at..at + SECTOR].to_vec();
        match how {
            0 => now[0] ^= 1,
            1 => now.fill(0),
            _ => now.copy_from_slice(&file.volatile.bytes[from..from + SECTOR]),
        }
        file.spoil(at, &now);
        let how = ["has another bit", "is zeros", "is another's"][how];
        Some(format!("the sector at {at} of {} of {} {how}", file.name, NAMES[self.side]))
    }

    /// Whether `call` says so of a rotten sector that reads would see: its file and offset.
    pub fn is_rotten(&self, mut call: impl FnMut(FileName, usize) -> bool) -> bool {
        let state = lock(&self.state);
        state.files.iter().any(|file| file.volatile.rotten.keys().any(|&at| call(file.name, at)))
    }

    /// Whether nothing is rotten in logs and superblock, nor going to be by what is on its way.
    pub fn is_sound(&self) -> bool {
        let state = lock(&self.state);
        let is_rotten = |f: &File| !f.volatile.rotten.is_empty() || !f.durable.rotten.is_empty();
        let astray = state.astray == Some(Astray::Log);
        !astray && !state.files.iter().any(|f| !f.is_volume() && is_rotten(f))
    }

    /// Whether a write has covered what is rotten in the cache only: a crash may bring it back.
    pub fn hides_rot(&self) -> bool {
        let is_hidden =
            |f: &File| f.durable.rotten.keys().any(|at| !f.volatile.rotten.contains_key(at));
        lock(&self.state).files.iter().any(|f| !f.is_volume() && is_hidden(f))
    }

    /// The result of `look` at the disk if nothing on it were rotten.
    pub fn if_sound<T>(&self, look: impl FnOnce() -> T) -> T {
        let swap = || lock(&self.state).files.iter_mut().for_each(|f| f.volatile.swap());
        swap();
        let found = look();
        swap();
        found
    }

    /// A process takes the disk into use.
    pub fn begin(self: &Arc<Disk>) -> Arc<Process> {
        self.disarm();
        Arc::new(self.process())
    }

    /// A process that looks at the disk beside the one that runs.
    pub fn process(self: &Arc<Disk>) -> Process {
        let (failed, ending) = Default::default();
        Process { disk: self.clone(), dead: Arc::default(), failed, ending }
    }

    /// The power fails; whether anything was lost that had been called durable.
    pub fn cut(&self, leaves: Leaves, random: &mut Random) -> bool {
        let mut state = lock(&self.state);
        let lied = std::mem::take(&mut state.lies);
        state.cuts += 1;
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
                        file.durable.put(at, sector);
                    }
                }
            }
            file.volatile.bytes.copy_from_slice(&file.durable.bytes);
            file.volatile.rotten.clone_from(&file.durable.rotten);
        }
        lied
    }

    /// The bytes that reads would see, past the process and all trouble; `None` if there is no such
    /// file.
    pub fn peek(&self, file: FileName, offset: usize, buf: &mut [u8]) -> Option<()> {
        let state = lock(&self.state);
        let file = state.files.iter().find(|f| f.name == file)?;
        buf.copy_from_slice(&file.volatile.bytes[offset..offset + buf.len()]);
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
    fn operate(
        &self,
        state: &mut State,
        file: FileName,
        fits: &[Trouble],
    ) -> io::Result<Option<Trouble>> {
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
            // The device can do without it.
            _ if matches!(file, FileName::Side { kind, .. } if kind != table_file::KIND) => {}
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
        let trouble = self.operate(state, name, &fits[..if sparse { 3 } else { 2 }])?;
        let file = &mut state.files[at];
        let (offset, mut bytes) = (offset as usize, bytes);
        if offset + bytes.len() > file.volatile.bytes.len() {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("{name} is shorter")));
        }
        let device = NAMES[self.disk.side];
        let length = bytes.len();
        let astray = match name {
            FileName::Superblock | FileName::Side { .. } => None,
            FileName::Segment { .. } => Some(Astray::Volume),
            FileName::OwnLog | FileName::RecvLog => Some(Astray::Log),
        };
        if astray.is_some() && state.astray == astray && trouble.is_none() {
            let room = (file.volatile.bytes.len() - length) / SECTOR + 1;
            let hit = state.random.below(room) * SECTOR;
            let apart = hit + length <= offset || offset + length <= hit;
            if apart && [hit, offset].iter().all(|&at| file.is_quiet(at, length)) {
                state.astray = None;
                file.spoil(hit, &bytes);
                file.volatile.miss(offset, &bytes);
                file.durable.miss(offset, &bytes);
                self.disk.tape.event(
                    Sort::Fault,
                    format_args!("{device} {what} {name} {length} at {hit} instead of {offset}"),
                );
                self.disk.tape.count("misdirected writes");
                return Ok(());
            }
        }
        if trouble.is_some() {
            let sectors = state.random.below(length / SECTOR + 1);
            bytes.truncate(sectors * SECTOR);
        }
        file.volatile.put(offset, &bytes);
        file.pending.push((offset, bytes));
        self.disk
            .tape
            .event(Sort::Disk, format_args!("{device} {what} {name} {length} at {offset}"));
        outcome(trouble)
    }
}

/// The outcome, for the process, of an operation in which `trouble` came.
fn outcome(trouble: Option<Trouble>) -> io::Result<()> {
    match trouble {
        None => Ok(()),
        Some(Trouble::Death) => Err(gone()),
        Some(Trouble::Full) => Err(io::Error::new(ErrorKind::StorageFull, "simulated")),
        Some(_) => Err(io::Error::other("a simulated failure")),
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
        let trouble =
            self.operate(state, file, &[Trouble::Death, Trouble::BadWrite, Trouble::Full])?;
        if trouble.is_none() || state.random.once_in(2) {
            let zeros = Bytes { bytes: vec![0; length as usize], ..Bytes::default() };
            let (volatile, durable) = (zeros.clone(), zeros);
            let pending = Vec::new();
            state.files.push(File { name: file, fill, volatile, durable, pending });
        }
        self.disk
            .tape
            .event(Sort::Disk, format_args!("{} makes {file} {length}", NAMES[self.disk.side]));
        outcome(trouble)
    }

    fn length(&self, file: FileName) -> io::Result<Option<u64>> {
        let state = lock(&self.disk.state);
        Ok(state.files.iter().find(|f| f.name == file).map(|f| f.volatile.bytes.len() as u64))
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.is_dead() {
            return Err(gone());
        }
        let state = lock(&self.disk.state);
        let file = &state.files[find(&state, file)?];
        let offset = offset as usize;
        let bytes = file.volatile.bytes.get(offset..offset + buf.len());
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
        let trouble = self.operate(state, file, &[Trouble::Death, Trouble::BadSync])?;
        let name = NAMES[self.disk.side];
        self.disk.tape.event(Sort::Disk, format_args!("{name} syncs {file}"));
        let (file, random) = (&mut state.files[at], &mut state.random);
        let covered = if state.lies { Vec::new() } else { std::mem::take(&mut file.pending) };
        for (offset, bytes) in covered {
            // A sync that fails has covered what it liked; what it has not is lost, and is still
            // read. One that the process dies in leaves the rest for a later one.
            if trouble.is_none() || random.once_in(2) {
                file.durable.put(offset, &bytes);
            } else if trouble == Some(Trouble::Death) {
                file.pending.push((offset, bytes));
            }
        }
        outcome(trouble)
    }

    /// The new length is durable at once.
    fn grow(&self, file: FileName, length: u64) -> io::Result<()> {
        must_be_side(file)?;
        let mut guard = lock(&self.disk.state);
        let state = &mut *guard;
        self.check_final(file);
        let at = find(state, file)?;
        let found = state.files[at].volatile.bytes.len() as u64;
        if found > length {
            return Err(would_shrink(file, length, found));
        }
        let trouble =
            self.operate(state, file, &[Trouble::Death, Trouble::BadWrite, Trouble::Full])?;
        if trouble.is_none() || state.random.once_in(2) {
            let File { volatile, durable, .. } = &mut state.files[at];
            for side in [volatile, durable] {
                side.bytes.resize(length as usize, 0);
            }
        }
        let name = NAMES[self.disk.side];
        self.disk.tape.event(Sort::Disk, format_args!("{name} grows {file} to {length}"));
        outcome(trouble)
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        must_be_side(file)?;
        let mut guard = lock(&self.disk.state);
        let state = &mut *guard;
        self.check_final(file);
        let at = find(state, file)?;
        let trouble = self.operate(state, file, &[Trouble::Death, Trouble::BadWrite])?;
        if trouble.is_none() || state.random.once_in(2) {
            state.files.remove(at);
        }
        self.disk.tape.event(Sort::Disk, format_args!("{} removes {file}", NAMES[self.disk.side]));
        outcome(trouble)
    }

    fn cache_identity(&self) -> Option<[u8; 32]> {
        let mut identity = [1; 32];
        identity[..8].copy_from_slice(&lock(&self.disk.state).cuts.to_le_bytes());
        Some(identity)
    }

    fn files(&self) -> io::Result<Vec<FileName>> {
        Ok(lock(&self.disk.state).files.iter().map(|f| f.name).collect())
    }

    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
        let length = self.length(file)?.ok_or(ErrorKind::NotFound)?;
        Ok((offset < length).then_some(offset..length))
    }

    fn reads_as_zeros(&self, file: FileName, range: Range<u64>) -> io::Result<bool> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.read(file, range.start, &mut bytes)?;
        Ok(bytes.iter().all(|&byte| byte == 0))
    }
}
