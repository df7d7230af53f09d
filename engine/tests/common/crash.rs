//! A disk that keeps the storage's contract to the letter and no more: what was not synced may be
//! lost in a power cut, sector by sector, and the whole can die at any call.

use super::ManualClock;
use super::random::Random;
use afterimage::Device;
use afterimage::internal::error::{Error, Kind};
use afterimage::internal::limits::Settings;
use afterimage::internal::storage::{FileName, Fill, Storage};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;

/// The rest of a disk when its device is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The process was killed: everything written is there, and as little synced as before.
    Kill,
    /// The power went: only what was synced is there.
    Synced,
    /// The power went, but everything had reached the medium.
    All,
    /// The power went: of what was not synced any sectors, by this seed.
    Sectors(u64),
    /// The power went: of what was not synced any whole writes, by this seed.
    Writes(u64),
    /// The power went: of what was not synced all but the write with this number, from 0.
    Without(usize),
}

struct Write {
    /// Counts the calls: the sectors of one write have the same.
    call: u64,
    sector: usize,
    bytes: [u8; SECTOR],
}

#[derive(Default)]
struct File {
    /// The bytes that a read returns.
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Write>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<FileName, File>,
    calls: u64,
    dies_at: Option<u64>,
    fails_sync_of: Option<FileName>,
    dead: bool,
}

type SyncHook = Arc<dyn Fn(FileName) + Send + Sync>;

#[derive(Default)]
pub struct CrashDisk {
    state: Mutex<State>,
    before_sync: Mutex<Option<SyncHook>>,
}

impl CrashDisk {
    pub fn new() -> Arc<CrashDisk> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Calls so far that change something or make it durable.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// From now on `hook` is called before each sync, with the file.
    #[allow(dead_code)]
    pub fn before_sync(&self, hook: impl Fn(FileName) + Send + Sync + 'static) {
        *self.before_sync.lock().unwrap() = Some(Arc::new(hook));
    }

    /// The disk dies in that call, counted as [`CrashDisk::calls`] does: a write gets as far as a
    /// cut lets it, a sync or a creation does nothing, and all later calls fail.
    pub fn die_at(&self, call: u64) {
        self.state().dies_at = Some(call);
    }

    /// The next sync of `file` fails and makes nothing durable: what it should have covered is read
    /// as before, and no later sync covers it unless it is written again.
    pub fn fail_sync_of(&self, file: FileName) {
        self.state().fails_sync_of = Some(file);
    }

    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The disk as it is found after `cut`.
    pub fn after(&self, cut: Cut) -> Arc<CrashDisk> {
        let mut state = self.state();
        let files = std::mem::take(&mut state.files).into_iter();
        let mut random = match cut {
            Cut::Sectors(seed) | Cut::Writes(seed) => Random::new(seed),
            _ => Random::new(0),
        };
        let mut number = 0;
        let files = files.map(|(name, file)| {
            if cut == Cut::Kill {
                return (name, file);
            }
            let mut durable = file.durable;
            let mut last = None;
            let mut survives = false;
            for write in file.unsynced {
                if last != Some(write.call) {
                    survives = match cut {
                        Cut::Writes(_) => random.once_in(2),
                        Cut::Without(lost) => number != lost,
                        _ => cut == Cut::All,
                    };
                    number += 1;
                    last = Some(write.call);
                }
                if matches!(cut, Cut::Sectors(_)) {
                    survives = random.once_in(2);
                }
                if survives {
                    durable[write.sector * SECTOR..][..SECTOR].copy_from_slice(&write.bytes);
                }
            }
            (name, File { seen: durable.clone(), durable, unsynced: Vec::new() })
        });
        let files = files.collect();
        Arc::new(CrashDisk {
            state: Mutex::new(State { files, ..State::default() }),
            before_sync: Mutex::default(),
        })
    }

    /// A disk with the same content, all of it durable.
    pub fn copy(&self) -> Arc<CrashDisk> {
        let state = self.state();
        let copied = state.files.iter().map(|(name, file)| {
            let durable = file.seen.clone();
            (*name, File { seen: durable.clone(), durable, unsynced: Vec::new() })
        });
        let files = copied.collect();
        Arc::new(CrashDisk {
            state: Mutex::new(State { files, ..State::default() }),
            before_sync: Mutex::default(),
        })
    }

    /// All of a file.
    pub fn bytes(&self, name: FileName) -> Vec<u8> {
        self.state().files[&name].seen.clone()
    }

    /// Changes bytes behind everybody's back.
    pub fn rot(&self, name: FileName, offset: usize, bytes: &[u8]) {
        let mut state = self.state();
        let file = state.files.get_mut(&name).expect("a file");
        file.seen[offset..offset + bytes.len()].copy_from_slice(bytes);
        file.durable[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Cuts a file short behind everybody's back.
    pub fn shorten(&self, name: FileName, length: usize) {
        let mut state = self.state();
        let file = state.files.get_mut(&name).expect("a file");
        file.seen.truncate(length);
        file.durable.truncate(length);
    }

    /// Counts a call; says whether it is the one in which the disk dies.
    fn call(state: &mut State) -> io::Result<bool> {
        if state.dead {
            return Err(dead());
        }
        state.dead = state.dies_at == Some(state.calls);
        state.calls += 1;
        Ok(state.dead)
    }

    fn change(&self, name: FileName, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let dies = CrashDisk::call(&mut state)?;
        let call = state.calls;
        let file = state.files.get_mut(&name).ok_or(io::ErrorKind::NotFound)?;
        let begin = offset as usize;
        let end = begin + bytes.len();
        assert!(end <= file.seen.len(), "no write extends a file");
        file.seen[begin..end].copy_from_slice(bytes);
        for sector in begin / SECTOR..end.div_ceil(SECTOR) {
            let bytes = file.seen[sector * SECTOR..][..SECTOR].try_into().expect("a sector");
            file.unsynced.push(Write { call, sector, bytes });
        }
        if dies { Err(dead()) } else { Ok(()) }
    }
}

fn dead() -> io::Error {
    io::Error::other("the disk is dead")
}

impl Storage for CrashDisk {
    fn create(&self, file: FileName, length: u64, _: Fill) -> io::Result<()> {
        let mut state = self.state();
        if CrashDisk::call(&mut state)? {
            return Err(dead());
        }
        if state.files.contains_key(&file) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let seen = vec![0; length as usize];
        state.files.insert(file, File { durable: seen.clone(), seen, unsynced: Vec::new() });
        Ok(())
    }

    fn length(&self, file: FileName) -> io::Result<Option<u64>> {
        Ok(self.state().files.get(&file).map(|f| f.seen.len() as u64))
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if state.dead {
            return Err(dead());
        }
        let file = state.files.get(&file).ok_or(io::ErrorKind::NotFound)?;
        let from = file.seen.get(offset as usize..offset as usize + buf.len());
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, file: FileName, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        self.change(file, offset, &bytes)
    }

    fn zero(&self, file: FileName, offset: u64, length: u64) -> io::Result<()> {
        self.change(file, offset, &vec![0; length as usize])
    }

    fn sync(&self, file: FileName) -> io::Result<()> {
        let hook = self.before_sync.lock().unwrap().clone();
        hook.into_iter().for_each(|hook| hook(file));
        let mut state = self.state();
        if CrashDisk::call(&mut state)? {
            return Err(dead());
        }
        let fails = state.fails_sync_of == Some(file);
        state.fails_sync_of.take_if(|_| fails);
        let file = state.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
        let unsynced = std::mem::take(&mut file.unsynced);
        if fails {
            return Err(io::Error::other("a failed sync"));
        }
        for write in unsynced {
            file.durable[write.sector * SECTOR..][..SECTOR].copy_from_slice(&write.bytes);
        }
        Ok(())
    }

    /// The new length is durable at once.
    fn grow(&self, file: FileName, length: u64) -> io::Result<()> {
        let mut state = self.state();
        if CrashDisk::call(&mut state)? {
            return Err(dead());
        }
        let file = state.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
        file.seen.resize(length as usize, 0);
        file.durable.resize(length as usize, 0);
        Ok(())
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        let mut state = self.state();
        if CrashDisk::call(&mut state)? {
            return Err(dead());
        }
        state.files.remove(&file).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn files(&self) -> io::Result<Vec<FileName>> {
        Ok(self.state().files.keys().copied().collect())
    }

    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
        let length = self.length(file)?.ok_or(io::ErrorKind::NotFound)?;
        Ok((offset < length).then_some(offset..length))
    }
}

/// Opens `disk` as a device of its own.
pub fn open(disk: &Arc<CrashDisk>) -> Result<Arc<Device>, Error> {
    Device::open(disk.clone(), Arc::new(ManualClock::default()), Settings::default())
}

/// Opening `disk` is refused with these words, and changes nothing.
pub fn damage(disk: &Arc<CrashDisk>, words: &[&str]) {
    let before = [FileName::Superblock, FileName::OwnLog, FileName::RecvLog].map(|f| disk.bytes(f));
    let error = open(disk).expect_err("damaged");
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    let story = error.to_string();
    for word in words.iter().chain(&["afterimage inspect"]) {
        assert!(story.contains(word), "{word:?} is not in: {story}");
    }
    let after = [FileName::Superblock, FileName::OwnLog, FileName::RecvLog].map(|f| disk.bytes(f));
    assert!(before == after, "what is refused is not changed");
}
