//! S19: a device dies at any step that makes something durable – of host writes, flush, receive,
//! reflect, checkpoint, fence, takeover, close, opening – by a kill, or by a power cut that keeps
//! any part of what was not synced. Afterwards the pair goes on: everything flushed is there, at
//! most an unflushed tail of the history is gone, the volumes are prefixes of it, and at rest both
//! are the same.
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::error::{Kind, Result};
use afterimage::format::superblock::VolumeSpec;
use afterimage::limits::{Geometry, Settings};
use afterimage::link::{Lane, Line, MemoryLink, memory_link};
use afterimage::request::{Op, Request, Session};
use afterimage::storage::{FileName, Storage};
use common::crash::{CrashDisk, Cut};
use common::random::Random;
use common::{A, B, ManualClock};
use std::sync::Arc;

const BLOCK: u64 = 512;
const BLOCKS: u64 = 8;

/// A value for every block.
type Image = [u8; BLOCKS as usize];

struct World {
    disks: [Arc<CrashDisk>; 2],
    devices: [Option<Arc<Device>>; 2],
    links: [MemoryLink; 2],
    clock: Arc<ManualClock>,
    /// Every write that completed, block and value, 0 for zeros.
    history: Vec<(u64, u8)>,
    /// How many of them were flushed, or are otherwise promised.
    promised: usize,
    /// An operator vouches: whoever held the host resumes alone.
    vouch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Write(usize, u64, u8),
    /// Two blocks in one request.
    Write2(usize, u64, u8),
    Zero(usize, u64),
    Flush(usize),
    /// Ships, receives, acknowledges, in both directions.
    Carry,
    Reflect(usize),
    Checkpoint(usize),
    Takeover(usize),
    Close(usize),
}
use Act::*;

/// Both directions, with records pending at every takeover.
const SCRIPT: [Act; 35] = [
    Write(A, 0, 1),
    Write(A, 1, 2),
    Flush(A),
    Carry,
    Write2(A, 0, 3),
    Reflect(B),
    Write(A, 2, 4),
    Carry,
    Reflect(A),
    Checkpoint(A),
    Reflect(B),
    Checkpoint(B),
    Zero(A, 1),
    Write(A, 3, 5),
    Takeover(B),
    Write(B, 0, 6),
    Write2(B, 3, 7),
    Flush(B),
    Reflect(B),
    Carry,
    Write(B, 5, 8),
    Carry,
    Reflect(A),
    Reflect(B),
    Checkpoint(B),
    Checkpoint(A),
    Write(B, 6, 9),
    Takeover(A),
    Write(A, 6, 10),
    Carry,
    Write(A, 0, 11),
    Flush(A),
    Reflect(A),
    Close(A),
    Close(B),
];

impl World {
    fn new(prelude: u64) -> World {
        let disks = [CrashDisk::new(), CrashDisk::new()];
        let clock = Arc::new(ManualClock::default());
        for (at, disk) in disks.iter().enumerate() {
            let volumes = vec![VolumeSpec { id: 0, bytes: BLOCKS * BLOCK }];
            let mut geometry = Geometry::new(7, at as u64 + 1, volumes);
            geometry.block_size = BLOCK as u32;
            geometry.segment_bytes = 65_536;
            geometry.journal_bytes = 4 * geometry.batch_bytes_max();
            Device::create(&**disk, &geometry, at == A).unwrap();
        }
        let line = memory_link(Line::default(), clock.clone());
        let mut world = World {
            disks,
            devices: [None, None],
            links: [line.0, line.1],
            clock,
            history: Vec::new(),
            promised: 0,
            vouch: false,
        };
        world.open(A).unwrap();
        world.open(B).unwrap();
        world.meet();
        // So that logs wrap somewhere in the script.
        for n in 0..prelude {
            world.act(Write(A, n % BLOCKS, 200 + n as u8)).unwrap();
            let end = [Flush(A), Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)];
            end.into_iter().for_each(|act| world.act(act).unwrap());
        }
        world
    }

    fn open(&mut self, at: usize) -> Result<()> {
        let (disk, clock) = (self.disks[at].clone(), self.clock.clone());
        self.devices[at] = Some(Device::open(disk, clock, Settings::default())?);
        Ok(())
    }

    /// A new line between them.
    fn meet(&mut self) {
        let line = memory_link(Line::default(), self.clock.clone());
        self.links = [line.0, line.1];
        for at in [A, B] {
            if let Some(device) = &self.devices[at] {
                let _ = device.connect(Arc::new(self.links[at].clone()));
            }
        }
        let _ = self.carry();
    }

    fn device(&self, at: usize) -> &Arc<Device> {
        self.devices[at].as_ref().expect("open")
    }

    fn carry(&self) -> Result<()> {
        let mut idle = 0;
        while idle < 2 {
            let mut moved = false;
            for device in self.devices.iter().flatten() {
                moved |= device.step_control()?;
                device.step_commit()?;
                moved |= device.step_ship()? > 0;
                moved |= device.step_receive()? > 0;
            }
            let serving = self.devices.iter().flatten().filter(|d| d.status().serving).count();
            assert!(serving <= 1, "I3: both serve");
            idle = if moved { 0 } else { idle + 1 };
        }
        Ok(())
    }

    fn reflect(&self, at: usize) -> Result<()> {
        while self.device(at).step_reflect()? > 0 {
            // Whole steps leave a prefix of the history; which one, is told at the end.
            let image = self.volume(at);
            assert!(self.images().contains(&image), "{at}: {image:?} is no prefix");
        }
        Ok(())
    }

    fn wrote(&mut self, blocks: std::ops::Range<u64>, value: u8) {
        self.history.extend(blocks.map(|block| (block, value)));
    }

    fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Write(at, block, value) => {
                let data = [value; BLOCK as usize];
                self.device(at).session()?.write(0, block * BLOCK, &data)?;
                self.wrote(block..block + 1, value);
            }
            Write2(at, block, value) => {
                let data = [value; 2 * BLOCK as usize];
                self.device(at).session()?.write(0, block * BLOCK, &data)?;
                self.wrote(block..block + 2, value);
            }
            Zero(at, block) => {
                let op = Op::WriteZeroes(BLOCK);
                let offset = block * BLOCK;
                let request = Request { volume: 0, offset, op, fua: false, host_time: None };
                self.device(at).session()?.submit(request)?.wait()?;
                self.wrote(block..block + 1, 0);
            }
            Flush(at) => {
                let all = self.history.len();
                self.device(at).session()?.flush()?;
                self.promised = all;
            }
            Carry => self.carry()?,
            Reflect(at) => self.reflect(at)?,
            Checkpoint(at) => self.device(at).checkpoint_now()?,
            Takeover(at) => {
                // What is shipped waits: the new device catches up later.
                let hold = |on| self.links.iter().for_each(|l| l.hold(Lane::Data, on));
                hold(true);
                let taken = self.takeover(at);
                hold(false);
                taken?;
                self.promised = self.history.len();
            }
            Close(at) => {
                self.device(at).close()?;
                self.devices[at] = None;
                self.promised = self.history.len();
            }
        }
        Ok(())
    }

    fn takeover(&self, at: usize) -> Result<()> {
        self.device(at).begin_takeover()?;
        for _ in 0..100 {
            if let Some(outcome) = self.device(at).poll_takeover() {
                return outcome.map(|_| ());
            }
            for device in self.devices.iter().flatten() {
                device.step_control()?;
            }
        }
        panic!("no answer to the takeover request");
    }

    /// Every content that the volume may have had, from what was promised on.
    fn images_from(&self, from: usize) -> Vec<Image> {
        let image = |count: usize| {
            let mut image = [0; BLOCKS as usize];
            self.history[..count].iter().for_each(|&(b, v)| image[b as usize] = v);
            image
        };
        (from..=self.history.len()).map(image).collect()
    }

    fn images(&self) -> Vec<Image> {
        self.images_from(0)
    }

    /// What the volume's file holds.
    fn volume(&self, at: usize) -> Image {
        let mut bytes = vec![0; (BLOCKS * BLOCK) as usize];
        let file = FileName::Segment { volume: 0, index: 0 };
        if self.disks[at].length(file).unwrap().is_some() {
            self.disks[at].read(file, 0, &mut bytes).unwrap();
        }
        self.image_of(&bytes)
    }

    fn image_of(&self, bytes: &[u8]) -> Image {
        let mut image = [0; BLOCKS as usize];
        for (value, block) in image.iter_mut().zip(bytes.chunks(BLOCK as usize)) {
            assert!(block.iter().all(|byte| *byte == block[0]), "a torn block: {block:?}");
            *value = block[0];
        }
        image
    }

    /// The death of a device's disk, and of the device with it; it comes back after `cut`.
    fn crash(&mut self, at: usize, cut: Cut) {
        self.devices[at] = None;
        self.disks[at] = self.disks[at].after(cut);
    }

    /// Opens whoever is not open, connects them, and finds who serves.
    fn rise(&mut self) -> Result<usize> {
        for at in [A, B] {
            if self.devices[at].is_none() {
                self.open(at)?;
            }
            if self.vouch && let Err(refused) = self.device(at).resume_alone() {
                let kinds = [Kind::Fenced, Kind::NotProven, Kind::NotReady, Kind::Halted];
                assert!(kinds.contains(&refused.kind()), "{refused}");
            }
        }
        self.meet();
        self.alive()?;
        let serving = [A, B].into_iter().find(|&at| self.device(at).status().serving);
        match serving {
            Some(at) => Ok(at),
            None => {
                // Both fenced, and nobody prefers: somebody says so.
                self.takeover(B)?;
                Ok(B)
            }
        }
    }

    /// Nobody has halted, unless the disk below died.
    fn alive(&self) -> Result<()> {
        for at in [A, B] {
            if let Some(halted) = self.device(at).status().halted {
                assert!(self.disks[at].is_dead(), "{at} halted: {halted}");
                return Err(halted);
            }
        }
        Ok(())
    }

    fn read_all(&self, session: &Session) -> Result<Image> {
        let mut bytes = vec![0; (BLOCKS * BLOCK) as usize];
        for (block, buf) in (0..).zip(bytes.chunks_mut(BLOCK as usize)) {
            let (offset, op) = (block * BLOCK, Op::Read(vec![0; BLOCK as usize]));
            let request = Request { volume: 0, offset, op, fua: false, host_time: None };
            let mut ticket = session.submit(request)?;
            for round in 0.. {
                assert!(round < 100, "a read waits for ever");
                if let Some(done) = ticket.poll() {
                    buf.copy_from_slice(&done?.buffer.expect("a read has its buffer"));
                    break;
                }
                self.devices.iter().flatten().try_for_each(|d| d.step_control().map(|_| ()))?;
            }
        }
        Ok(self.image_of(&bytes))
    }

    /// The rest of the story: what the serving device returns is the history, but for an
    /// unflushed tail; the host goes on, moves to the other device and finds the same there; at
    /// rest both volumes are equal.
    fn finale(&mut self) -> Result<()> {
        let serving = self.rise()?;
        let session = self.device(serving).session()?;
        let image = self.read_all(&session)?;
        let candidates = self.images_from(self.promised);
        let kept = candidates.iter().rposition(|candidate| *candidate == image);
        let kept = kept.unwrap_or_else(|| {
            panic!("{image:?} of {serving} is none of {candidates:?}");
        });
        self.history.truncate(self.promised + kept);
        self.act(Write(serving, 7, 100))?;
        self.act(Write2(serving, 3, 101))?;
        self.act(Takeover(1 - serving))?;
        let session = self.device(1 - serving).session()?;
        assert_eq!(Some(&self.read_all(&session)?), self.images().last(), "after the takeover");
        self.act(Write(1 - serving, 2, 102))?;
        self.act(Flush(1 - serving))?;
        for _ in 0..3 {
            for act in [Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)] {
                self.act(act)?;
            }
        }
        self.alive()?;
        let newest = self.images().last().copied();
        assert_eq!((Some(self.volume(A)), Some(self.volume(B))), (newest, newest), "at rest");
        for device in self.devices.iter().flatten() {
            let status = device.status();
            assert_eq!(status.backlog_records + status.unreflected_records, 0);
        }
        Ok(())
    }
}

/// Runs the script with a disk that dies in its `call`th call; `None`: it does not come so far.
fn die_in_script(prelude: u64, victim: usize, call: u64) -> Option<World> {
    let mut world = World::new(prelude);
    let begun = world.disks[victim].calls();
    world.disks[victim].die_at(begun + call);
    for act in SCRIPT {
        let outcome = world.act(act);
        if world.disks[victim].is_dead() {
            // Whatever completed before the end counts, and what the act did not report does not.
            return Some(world);
        }
        outcome.unwrap_or_else(|e| panic!("{act:?}: {e}"));
    }
    None
}

#[test]
fn a_death_at_every_step_loses_nothing_that_was_promised() {
    let mut deaths = 0;
    for victim in [A, B] {
        for call in 0.. {
            let seed = call * 31 + victim as u64;
            let cuts =
                [Cut::Kill, Cut::Synced, Cut::All, Cut::Sectors(seed), Cut::Writes(seed + 1)];
            let mut ended = false;
            for (k, cut) in cuts.into_iter().enumerate() {
                let Some(mut world) = die_in_script(call % 19, victim, call) else {
                    ended = true;
                    break;
                };
                world.vouch = k % 2 == 1;
                world.crash(victim, cut);
                let outcome = world.finale();
                outcome.unwrap_or_else(|e| panic!("{victim} in call {call}, {cut:?}: {e}"));
                deaths += 1;
            }
            if ended {
                break;
            }
        }
    }
    assert!(deaths > 300, "only {deaths} deaths");
}

#[test]
fn both_devices_die_again_and_again() {
    let mut deaths = 0;
    for seed in 0..400u64 {
        let mut random = Random::new(seed);
        let victim = random.within(0..2) as usize;
        let call = random.within(0..60);
        let Some(mut world) = die_in_script(random.within(0..19), victim, call) else { continue };
        let any = |random: &mut Random| match random.within(0..5) {
            0 => Cut::Kill,
            1 => Cut::Synced,
            2 => Cut::All,
            3 => Cut::Sectors(random.next()),
            _ => Cut::Writes(random.next()),
        };
        world.crash(victim, any(&mut random));
        if random.once_in(2) {
            // A power cut at both sites.
            world.crash(1 - victim, any(&mut random));
        }
        for round in 0.. {
            world.vouch = random.once_in(3);
            let next = random.within(0..2) as usize;
            if round < 4 {
                world.disks[next].die_at(world.disks[next].calls() + random.within(0..25));
            } else {
                world.disks.iter().for_each(|disk| disk.die_at(u64::MAX));
            }
            let outcome = world.finale();
            deaths += 1;
            match outcome {
                Ok(()) => break,
                Err(_) if world.disks[next].is_dead() => world.crash(next, any(&mut random)),
                Err(error) => panic!("seed {seed}, round {round}: {error}"),
            }
        }
    }
    assert!(deaths > 800, "only {deaths} deaths");
}
