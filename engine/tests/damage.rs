//! Rot: one bit or one sector of a device's superblock or logs is not what it was. Opening refuses,
//! by name, or goes on by the rules; then the pair is brought together and every block is read. No
//! read may be wrong, and no durable write may be lost without a word.
//!
//! `DAMAGES=10000` does so many, `DAMAGE_SEED=n` repeats one.
//!
//! One loss no format of a log can tell from a power cut: rot in the last batch, of which nothing
//! that was written later says that it had been durable. It is counted, and nothing else may be.
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::internal::error::{Error, Kind};
use afterimage::internal::event::Event;
use afterimage::internal::format::batch::Log;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::journal::scan::{Found, Verify, scan};
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, MemoryLink, memory_link};
use afterimage::internal::storage::FileName;
use afterimage::internal::superblock;
use common::random::Random;
use common::tape::{Contents, Disk, Survival, Tape};
use common::{A, B, ManualClock};
use std::ops::Range;
use std::sync::{Arc, Mutex};

const BLOCK: u64 = 512;
const BLOCKS: u64 = 48;

/// The blocks written, in order; every write is durable for `durable` of them.
#[derive(Clone, Default)]
struct History {
    blocks: Vec<u64>,
    durable: usize,
}

impl History {
    /// The content of every block after so many writes: the number of its last one.
    fn state(&self, writes: usize) -> Vec<u64> {
        let mut state = vec![0; BLOCKS as usize];
        for (number, &block) in (1..).zip(&self.blocks[..writes]) {
            state[block as usize] = number;
        }
        state
    }
}

struct Pair {
    devices: [Arc<Device>; 2],
    disks: [Arc<Disk>; 2],
    ends: [MemoryLink; 2],
    lost: Arc<Mutex<Option<Error>>>,
}

/// Opens one device.
fn open(disk: &Arc<Disk>) -> Result<Arc<Device>, Error> {
    let device = Device::open(disk.clone(), Arc::new(ManualClock::default()), Settings::default())?;
    // The completed writes that a cut takes are known to the history here.
    let _ = device.accept_loss();
    Ok(device)
}

impl Pair {
    fn of(devices: [Arc<Device>; 2], disks: [Arc<Disk>; 2]) -> Pair {
        let (a, b) = memory_link(Line::default(), Arc::new(ManualClock::default()));
        let pair = Pair { devices, disks, ends: [a, b], lost: Arc::default() };
        for (device, end) in pair.devices.iter().zip(&pair.ends) {
            let lost = pair.lost.clone();
            device.on_event(move |event| {
                if let Event::Disconnected { why, .. } | Event::Halted(why) = event {
                    lost.lock().unwrap().get_or_insert_with(|| (*why).clone());
                }
            });
            device.connect(Arc::new(end.clone())).unwrap();
        }
        pair
    }

    /// Everything, until nothing moves.
    fn settle(&self) -> Result<(), Error> {
        for _ in 0..10_000 {
            let mut moved = false;
            for device in &self.devices {
                moved |= device.step_control()?;
                device.step_commit()?;
                moved |= device.step_ship()? > 0;
                moved |= device.step_receive()? > 0;
                moved |= device.step_reflect()? > 0;
            }
            if let Some(why) = self.lost.lock().unwrap().take() {
                return Err(why);
            }
            if !moved {
                return Ok(());
            }
        }
        panic!("the pair does not come to rest");
    }

    fn write(&self, at: usize, count: u64, random: &mut Random, history: &mut History) {
        let session = self.devices[at].session().unwrap();
        for _ in 0..count {
            let block = random.within(0..BLOCKS);
            history.blocks.push(block);
            let value = history.blocks.len() as u64;
            let data = value.to_le_bytes().repeat(BLOCK as usize / 8);
            session.write(0, block * BLOCK, &data).unwrap();
            if random.once_in(4) {
                self.devices[at].step_commit().unwrap();
            }
        }
    }

    fn flush(&self, at: usize, history: &mut History) {
        self.devices[at].session().unwrap().flush().unwrap();
        history.durable = history.blocks.len();
    }

    fn take_over(&self, to: usize) {
        self.devices[to].begin_takeover().unwrap();
        for _ in 0..100 {
            for device in &self.devices {
                device.step_control().unwrap();
            }
        }
        self.devices[to].poll_takeover().unwrap().unwrap();
    }

    /// The content of every block, read as a host reads it.
    fn read(&self) -> Vec<u64> {
        if self.devices.iter().all(|device| device.session().is_err()) {
            self.take_over(A);
        }
        let session = self.devices.iter().find_map(|device| device.session().ok()).unwrap();
        let block = |number: u64| {
            let mut data = [0; BLOCK as usize];
            session.read(0, number * BLOCK, &mut data).unwrap();
            let value = u64::from_le_bytes(data[..8].try_into().unwrap());
            assert!(data.chunks(8).all(|c| c == value.to_le_bytes()), "block {number} is torn");
            value
        };
        (0..BLOCKS).map(block).collect()
    }
}

/// A pair that has stopped.
struct Stopped {
    name: &'static str,
    disks: [Contents; 2],
    history: History,
}

/// Pairs in all the states that matter: records pending both ways, one device active and one
/// fenced, closed, killed, and cut off in the middle of a commit.
fn stopped(random: &mut Random) -> Vec<Stopped> {
    let mut all = Vec::new();
    for name in ["closed", "killed", "cut", "killed before a takeover"] {
        let tape = Arc::new(Tape::default());
        let disks = [A, B].map(|at| Disk::new(&tape, at, Contents::default()));
        let devices = [A, B].map(|at| {
            let volumes = vec![VolumeSpec { id: 0, bytes: BLOCKS * BLOCK }];
            let mut geometry = Geometry::new(7, at as u64 + 1, volumes);
            geometry.block_size = BLOCK as u32;
            geometry.journal_bytes = 640 << 10;
            geometry.segment_bytes = 65_536;
            Device::create(&*disks[at], &geometry, at == A).unwrap();
            open(&disks[at]).unwrap()
        });
        let pair = Pair::of(devices, disks);
        pair.settle().unwrap();
        let mut history = History::default();
        pair.write(A, 60, random, &mut history);
        pair.flush(A, &mut history);
        pair.settle().unwrap();
        pair.devices.iter().for_each(|device| device.checkpoint_now().unwrap());
        pair.write(A, 20, random, &mut history);
        pair.settle().unwrap();
        pair.ends[A].hold(Lane::Data, true);
        pair.write(A, 25, random, &mut history);
        pair.flush(A, &mut history);
        let mut host = A;
        if name != "killed before a takeover" {
            pair.devices[A].step_ship().unwrap();
            pair.take_over(B);
            host = B;
            pair.write(B, 20, random, &mut history);
            pair.flush(B, &mut history);
            pair.settle().unwrap();
            pair.write(B, 10, random, &mut history);
            pair.flush(B, &mut history);
        }
        let disks = match name {
            "closed" => {
                pair.devices.iter().for_each(|device| device.close().unwrap());
                pair.disks.each_ref().map(|disk| disk.contents())
            }
            "cut" => {
                let session = pair.devices[host].session().unwrap();
                for block in 0..9 {
                    history.blocks.push(block);
                    let value = history.blocks.len() as u64;
                    let data = value.to_le_bytes().repeat(BLOCK as usize / 8);
                    session.write(0, block * BLOCK, &data).unwrap();
                }
                let before = tape.len();
                session.flush().unwrap();
                tape.cut(Default::default(), |cutter| {
                    cutter.advance_to(before + 1);
                    assert!(cutter.pending(host) > 0, "in the middle of a commit");
                    [A, B].map(|at| cutter.cut(at, Survival::Sectors, random))
                })
            }
            _ => pair.disks.each_ref().map(|disk| disk.contents()),
        };
        all.push(Stopped { name, disks, history });
    }
    all
}

/// Where the last batch of a log is.
fn last_batch(contents: &Contents, log: Log) -> Range<u64> {
    let disk = Disk::new(&Arc::default(), A, contents.clone());
    let superblock = superblock::load(&*disk).unwrap();
    let scan = scan(&*disk, &superblock, log, Verify::Live, &mut |_| {}).unwrap();
    scan.batches.last().map_or(0..0, |last| last.offset..last.offset + last.bytes)
}

/// Whether `text` names what stood at `offset`: of a log a record of the batch there or a byte of
/// it, of the superblock its copy or table.
fn names(contents: &Contents, file: FileName, offset: u64, text: &str) -> bool {
    let log = match file {
        FileName::OwnLog => Log::Own,
        FileName::RecvLog => Log::Recv,
        _ => return text.contains("copies") || text.contains("copy") || text.contains("table"),
    };
    let disk = Disk::new(&Arc::default(), A, contents.clone());
    let superblock = superblock::load(&*disk).unwrap();
    let scan = scan(&*disk, &superblock, log, Verify::Live, &mut |_| {}).unwrap();
    let holds = |batch: &&Found| (batch.offset..batch.offset + batch.bytes).contains(&offset);
    let Some(batch) = scan.batches.iter().find(holds) else { return false };
    let records = batch.header.sequence..batch.end();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let numbers = words.filter_map(|word| word.parse::<u64>().ok());
    let bytes = batch.offset..batch.offset + batch.bytes;
    numbers.into_iter().any(|n| records.contains(&n) || n > 0 && bytes.contains(&n))
}

const FILES: [FileName; 3] = [FileName::Superblock, FileName::OwnLog, FileName::RecvLog];

/// Where something was changed, and how.
struct Damage {
    at: usize,
    file: FileName,
    offset: u64,
    how: &'static str,
}

/// Damages one of the two disks.
fn damage(disks: &mut [Contents; 2], random: &mut Random) -> Damage {
    loop {
        if let Some(damage) = try_to_damage(disks, random) {
            return damage;
        }
    }
}

/// `None` if the bytes are what they were.
fn try_to_damage(disks: &mut [Contents; 2], random: &mut Random) -> Option<Damage> {
    let at = random.within(0..2) as usize;
    let file = random.pick(&FILES);
    let disk = &mut disks[at];
    let sectors = disk.length(file).unwrap() / 512;
    let read = |disk: &Contents, sector: u64| {
        let mut bytes = [0; 512];
        disk.read(file, sector * 512, &mut bytes).unwrap();
        bytes
    };
    let mut sector = random.within(0..sectors);
    for _ in 0..200 {
        // Mostly where something is.
        if read(disk, sector) != [0; 512] || random.once_in(100) {
            break;
        }
        sector = random.within(0..sectors);
    }
    let before = read(disk, sector);
    let mut bytes = before;
    let how = random.pick(&["bit", "bit", "zeros", "random", "copy"]);
    match how {
        "bit" => bytes[random.within(0..512) as usize] ^= 1 << random.within(0..8),
        "zeros" => bytes.fill(0),
        "random" => bytes.iter_mut().for_each(|byte| *byte = random.next() as u8),
        _ => bytes = read(disk, random.within(0..sectors)),
    }
    disk.write(file, sector * 512, &bytes).unwrap();
    (bytes != before).then_some(Damage { at, file, offset: sector * 512, how })
}

/// The outcome of a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// The device was not opened.
    Refused,
    /// The devices were not connected: one has noticed that the other has lost something.
    Noticed,
    /// Everything durable is there.
    Kept,
    /// Something at the end of the last batch's log is not, which looks like a power cut.
    Cut,
}

fn one(stopped: &Stopped, seed: u64) -> Came {
    let mut random = Random::new(seed);
    let mut disks = stopped.disks.clone();
    let Damage { at, file, offset, how } = damage(&mut disks, &mut random);
    let state = stopped.name;
    let story = format!("DAMAGE_SEED={seed}, {state}: {how} at {offset} of {file} of {at}");
    let tape = Arc::new(Tape::default());
    let disks = [A, B].map(|at| Disk::new(&tape, at, disks[at].clone()));
    let mut devices = Vec::new();
    for (k, disk) in disks.iter().enumerate() {
        match open(disk) {
            Ok(device) => devices.push(device),
            Err(error) => {
                assert_eq!(k, at, "{story}: the sound one is refused: {error}");
                let text = error.to_string();
                assert_eq!(error.kind(), Kind::Damaged, "{story}: {error}");
                assert!(text.contains(&file.to_string()), "{story}: no file in '{text}'");
                assert!(text.contains("afterimage inspect"), "{story}: no way on in '{text}'");
                let is_named = names(&stopped.disks[at], file, offset, &text);
                assert!(is_named, "{story}: not the place that was damaged in '{text}'");
                return Came::Refused;
            }
        }
    }
    let devices: [Arc<Device>; 2] = devices.try_into().expect("two");
    let pair = Pair::of(devices, disks);
    if let Err(error) = pair.settle() {
        assert!(error.to_string().contains("lost durable records"), "{story}: {error}");
        return Came::Noticed;
    }
    let found = pair.read();
    pair.devices.iter().for_each(|device| device.close().unwrap());
    let [a, b] = pair.disks.each_ref().map(|disk| disk.contents());
    assert!(a.same_volumes(&b), "{story}: the devices differ");
    let history = &stopped.history;
    let kept = (0..=history.blocks.len()).rev().find(|&n| history.state(n) == found);
    let Some(kept) = kept else { panic!("{story}: {found:?} was never true") };
    if kept >= history.durable {
        return Came::Kept;
    }
    let log = if file == FileName::OwnLog { Log::Own } else { Log::Recv };
    let durable = history.durable;
    assert!(
        file != FileName::Superblock && last_batch(&stopped.disks[at], log).contains(&offset),
        "{story}: {kept} writes of {durable} are left, and nobody says a word"
    );
    assert_ne!(state, "closed", "{story}: a closed device knows where its logs end");
    Came::Cut
}

#[test]
fn rot_is_refused_or_does_no_harm() {
    let number = |name: &str| std::env::var(name).ok().and_then(|word| word.parse().ok());
    let stopped = stopped(&mut Random::new(1));
    for pair in &stopped {
        // The pair as it is: nothing is lost, so what is lost below is lost to damage.
        let disks = [A, B].map(|at| Disk::new(&Arc::default(), at, pair.disks[at].clone()));
        let sound = Pair::of(disks.each_ref().map(|disk| open(disk).unwrap()), disks);
        sound.settle().unwrap();
        let found = sound.read();
        let history = &pair.history;
        let kept = (history.durable..=history.blocks.len()).any(|n| history.state(n) == found);
        assert!(kept, "{}", pair.name);
    }
    let seeds = match number("DAMAGE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DAMAGES").unwrap_or(800),
    };
    let rounds = seeds.end - seeds.start;
    let mut came = Vec::new();
    for seed in seeds {
        let pair = &stopped[(seed % stopped.len() as u64) as usize];
        let outcome = std::panic::catch_unwind(|| one(pair, seed));
        came.push(outcome.unwrap_or_else(|_| panic!("DAMAGE_SEED={seed}, {}", pair.name)));
    }
    let count = |which| came.iter().filter(|&&outcome| outcome == which).count();
    let [refused, noticed, kept, cut] =
        [Came::Refused, Came::Noticed, Came::Kept, Came::Cut].map(count);
    eprintln!(
        "{rounds} damages: {refused} refused, {noticed} noticed by the other device, {kept} did no \
         harm, {cut} like a power cut in the last batch"
    );
    assert!(rounds < 100 || refused > 0 && kept > 0, "hardly anything was tried");
}
