//! A pair of devices in one thread: every step is a call, time stands still unless it is moved,
//! and after each step the pair is held against the history of what its hosts wrote.
//!
//! A sector's content names its write: one small value, eight bytes long, over and over. Promises
//! checked all the time: at most one device serves; the normal volumes of each are what the
//! history was up to the newest stamp they show (a prefix of it); a read returns what its sectors
//! held at some time between its beginning and its end.

// Every test file uses its own part of this.
#![allow(dead_code, unused_imports)]

pub mod crash;
pub mod gate;
pub mod hooked;
pub mod hosts;
pub mod kept;
pub mod linearizable;
pub mod oracle;
pub mod random;
pub mod tape;
pub mod world;

use afterimage::Device;
use afterimage::internal::clock::Clock;
use afterimage::internal::error::Result;
use afterimage::internal::failover::Takeover;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, MemoryLink, memory_link};
use afterimage::internal::request::Session;
use afterimage::internal::storage::{FileName, Memory, Storage};
use gate::Gate;
use hosts::Pending;
pub use hosts::{Action, Outcome};
use oracle::{Image, Oracle, Replay};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The device that serves first.
pub const A: usize = 0;
/// Its peer.
pub const B: usize = 1;
/// Blocks, as the scenarios call them.
pub const X: u64 = 0;
pub const Y: u64 = 1;
pub const Z: u64 = 2;

const SECTOR: u64 = 512;
const SEGMENT_BYTES: u64 = 65_536;

/// A clock that moves when told to.
#[derive(Default)]
pub struct ManualClock {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl ManualClock {
    pub fn set_wall(&self, to: u64) {
        self.wall.store(to, SeqCst);
    }

    pub fn pass(&self, ns: u64) {
        self.monotonic.fetch_add(ns, SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> u64 {
        self.wall.load(SeqCst)
    }

    fn monotonic(&self) -> u64 {
        self.monotonic.load(SeqCst)
    }
}

/// The parts of a pair.
#[derive(Clone)]
pub struct Spec {
    pub block_size: u32,
    /// Sectors of each volume.
    pub volumes: Vec<u64>,
    /// Journals of each device, in units of the smallest possible.
    pub journals: [f64; 2],
    pub settings: Settings,
    /// Sessions supersede each other (R20): else every request is given by a session of its own.
    pub exclusive: bool,
    pub storages: [Arc<dyn Storage>; 2],
}

impl Default for Spec {
    fn default() -> Spec {
        Spec {
            block_size: 4096,
            volumes: vec![16 * 8],
            journals: [1.0; 2],
            settings: Settings::default(),
            exclusive: false,
            storages: [Arc::new(Memory::new()), Arc::new(Memory::new())],
        }
    }
}

/// One step of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Commit,
    Sequence,
    Ship,
    Receive,
    Control,
    /// One record.
    Reflect,
    /// As many as go at once.
    ReflectAll,
    Checkpoint,
}

pub struct Pair {
    pub spec: Spec,
    pub devices: [Arc<Device>; 2],
    pub clocks: [Arc<ManualClock>; 2],
    pub ends: [MemoryLink; 2],
    pub gates: [Arc<Gate>; 2],
    pub oracle: Oracle,
    /// All that the normal volumes of a device may hold, if a test says so.
    pub allowed: [Vec<Vec<(u64, u64)>>; 2],
    replays: [Replay; 2],
    pending: BTreeMap<u64, Pending>,
    outcomes: BTreeMap<u64, Result<Outcome>>,
    last: u64,
}

fn geometry(spec: &Spec, at: usize) -> Geometry {
    let specs = (0..).zip(&spec.volumes);
    let volumes = specs.map(|(id, sectors)| VolumeSpec { id, bytes: sectors * SECTOR }).collect();
    let mut geometry = Geometry::new(7, at as u64 + 1, volumes);
    geometry.block_size = spec.block_size;
    geometry.segment_bytes = SEGMENT_BYTES;
    let least = 4 * geometry.batch_bytes_max();
    geometry.journal_bytes = ((least as f64 * spec.journals[at]) as u64).next_multiple_of(4096);
    geometry
}

fn settings(spec: &Spec) -> Settings {
    let shared_volumes = if spec.exclusive { Vec::new() } else { (0..64).collect() };
    Settings { shared_volumes, ..spec.settings.clone() }
}

impl Pair {
    pub fn new() -> Pair {
        Pair::with(Spec::default())
    }

    pub fn with(spec: Spec) -> Pair {
        let clocks = [Arc::new(ManualClock::default()), Arc::new(ManualClock::default())];
        let open = |at: usize| {
            let storage = spec.storages[at].clone();
            Device::create(&*storage, &geometry(&spec, at), at == A).unwrap();
            Device::open(storage, clocks[at].clone(), settings(&spec)).unwrap()
        };
        let devices = [open(A), open(B)];
        let (end_a, end_b) = memory_link(Line::default(), clocks[A].clone());
        let oracle = Oracle::new(spec.volumes.clone(), u64::from(spec.block_size) / SECTOR);
        let mut pair = Pair {
            devices,
            clocks,
            gates: [&end_a, &end_b].map(|end| Arc::new(Gate::new(end.clone()))),
            ends: [end_a, end_b],
            allowed: [Vec::new(), Vec::new()],
            replays: [Replay::new(&oracle), Replay::new(&oracle)],
            oracle,
            pending: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            last: 0,
            spec,
        };
        pair.connect();
        pair
    }

    /// A new line in place of the present one, which nobody uses yet.
    pub fn lay_line(&mut self) {
        let (end_a, end_b) = memory_link(Line::default(), self.clocks[A].clone());
        self.gates = [&end_a, &end_b].map(|end| Arc::new(Gate::new(end.clone())));
        self.ends = [end_a, end_b];
    }

    /// Both say hello, over the present line, or a new one if a device has ended that.
    pub fn connect(&mut self) {
        if self.devices[A].connect(self.gates[A].clone()).is_err() {
            self.lay_line();
            self.devices[A].connect(self.gates[A].clone()).unwrap();
        }
        self.devices[B].connect(self.gates[B].clone()).unwrap();
        for at in [A, B, A, B] {
            self.step(at, Step::Control);
        }
        assert!(self.devices.iter().all(|d| d.status().connected));
    }

    /// Closes both devices cleanly, opens them again and connects them by a new line.
    pub fn reopen(&mut self) {
        self.reopen_apart();
        self.connect();
    }

    /// As [`Pair::reopen`], but on the new line they have not met.
    pub fn reopen_apart(&mut self) {
        assert!(self.pending.is_empty(), "a request outlives its device");
        for at in [A, B] {
            self.devices[at].close().unwrap();
            let (storage, clock) = (self.spec.storages[at].clone(), self.clocks[at].clone());
            self.devices[at] = Device::open(storage, clock, settings(&self.spec)).unwrap();
        }
        self.lay_line();
    }

    pub fn hold(&self, from: usize, lane: Lane, on: bool) {
        self.ends[from].hold(lane, on);
    }

    /// The link delays ships, but not control messages.
    pub fn hold_ships(&self, on: bool) {
        [A, B].into_iter().for_each(|from| self.hold(from, Lane::Data, on));
    }

    pub fn session(&self, at: usize) -> Result<Session> {
        self.devices[at].session()
    }

    /// Takes one step; whether anything moved.
    pub fn step(&mut self, at: usize, step: Step) -> bool {
        let device = &self.devices[at];
        let moved = match step {
            Step::Commit => device.step_commit().map(|_| false),
            Step::Sequence => {
                device.step_sequence();
                Ok(false)
            }
            Step::Ship => device.step_ship().map(|n| n > 0),
            Step::Receive => device.step_receive().map(|n| n > 0),
            Step::Control => device.step_control(),
            Step::Reflect => device.step_reflect_some(1).map(|n| n > 0),
            Step::ReflectAll => device.step_reflect().map(|n| n > 0),
            Step::Checkpoint => device.checkpoint_now().map(|()| false),
        };
        let moved = moved.unwrap_or_else(|e| panic!("{step:?} at {at}: {e}"));
        let went_on = self.sweep();
        let serving = self.devices.iter().filter(|d| d.status().serving).count();
        assert!(serving <= 1, "I3: both devices serve");
        if matches!(step, Step::Reflect | Step::ReflectAll | Step::Checkpoint) {
            self.check(at);
        }
        moved || went_on
    }

    pub fn steps(&mut self, at: usize, steps: &[Step]) {
        for &step in steps {
            self.step(at, step);
        }
    }

    /// Runs both devices until nothing moves any more.
    pub fn settle(&mut self) {
        use Step::*;
        for _ in 0..10_000 {
            let mut moved = false;
            for at in [A, B] {
                for step in [Commit, Control, Ship, Receive, Reflect] {
                    moved |= self.step(at, step);
                }
            }
            if !moved {
                return;
            }
        }
        panic!("the pair does not come to rest");
    }

    /// Lets everything go, and asserts that both devices then hold all that was written, and the
    /// same (I14), with nothing left in R or L.
    pub fn drain(&mut self) {
        for from in [A, B] {
            [Lane::Control, Lane::Data].into_iter().for_each(|lane| self.hold(from, lane, false));
        }
        // Freeing places takes a checkpoint, and what waited for a place moves on only then.
        for round in 0.. {
            assert!(round < 1000, "requests wait for ever");
            self.settle();
            for at in [A, B] {
                self.step(at, Step::Checkpoint);
            }
            let owes = |d: &Arc<Device>| {
                let s = d.status();
                s.backlog_records + s.unreflected_records > 0
            };
            let waits = self.pending.values().any(|p| !p.manual);
            if !waits && !self.devices.iter().any(owes) && !self.settle_once() {
                break;
            }
        }
        for at in [A, B] {
            let status = self.devices[at].status();
            assert!(status.hi >= status.need && status.owed_blocks == 0, "{status:?}");
        }
        let newest = self.oracle.image(self.oracle.records.len());
        assert_eq!(self.image(A), newest, "I14: A holds what was written");
        assert_eq!(self.image(B), newest, "I14: B holds what was written");
    }

    fn settle_once(&mut self) -> bool {
        [A, B].into_iter().any(|at| self.step(at, Step::Control) || self.step(at, Step::Receive))
    }

    /// Moves the host to `to` by steps of the control lane alone.
    pub fn takeover(&mut self, to: usize) -> Result<Takeover> {
        self.devices[to].begin_takeover()?;
        for _ in 0..1000 {
            if let Some(outcome) = self.devices[to].poll_takeover() {
                if outcome.is_ok() {
                    // The old device hears that the new one serves.
                    self.step(1 - to, Step::Control);
                }
                return outcome;
            }
            for at in [A, B] {
                self.step(at, Step::Control);
            }
        }
        panic!("no answer to the takeover request");
    }

    /// The content of the normal volumes of a device, read from its files.
    pub fn image(&self, at: usize) -> Image {
        let mut image = Vec::new();
        for (volume, &sectors) in (0..).zip(&self.spec.volumes) {
            let mut begin = 0;
            while begin < sectors * SECTOR {
                let length = SEGMENT_BYTES.min(sectors * SECTOR - begin);
                let mut bytes = vec![0; length as usize];
                let file = FileName::Segment { volume, index: (begin / SEGMENT_BYTES) as u32 };
                match self.spec.storages[at].length(file).unwrap() {
                    Some(_) => self.spec.storages[at].read(file, 0, &mut bytes).unwrap(),
                    None => bytes.fill(0),
                }
                image.append(&mut values_of(&bytes));
                begin += length;
            }
        }
        image
    }

    /// The same as pairs of block and value, of what is not zero; blocks are whole.
    pub fn blocks(&self, at: usize) -> Vec<(u64, u64)> {
        let size = self.spec.block_size as usize / SECTOR as usize;
        let image = self.image(at);
        let blocks = (0..).zip(image.chunks(size)).filter(|(_, values)| values[0] != 0);
        blocks
            .map(|(block, values)| {
                assert!(values.iter().all(|v| *v == values[0]), "block {block}: {values:?}");
                (block, values[0])
            })
            .collect()
    }

    /// Holds the normal volumes of a device against history; see the module.
    fn check(&mut self, at: usize) {
        let reflected = self.devices[at].status().reflected;
        self.replays[at].advance_to(&self.oracle, reflected);
        let (image, expected) = (self.image(at), &self.replays[at].image);
        assert!(
            image == *expected,
            "N of {at} is no prefix of history at {reflected}:\n{image:?}, not\n{expected:?}"
        );
        let allowed = &self.allowed[at];
        let blocks = || self.blocks(at);
        assert!(allowed.is_empty() || allowed.contains(&blocks()), "{at} holds {:?}", blocks());
    }
}

/// The value of every sector.
fn values_of(bytes: &[u8]) -> Vec<u64> {
    let value = |sector: &[u8]| {
        assert!(sector[8..] == sector[..sector.len() - 8], "a torn sector: {sector:?}");
        u64::from_le_bytes(sector[..8].try_into().unwrap())
    };
    bytes.chunks(SECTOR as usize).map(value).collect()
}

/// Bytes of this process: of its address space, and of it resident.
#[allow(dead_code)]
pub fn memory() -> [u64; 2] {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let mut pages = statm.split(' ').map(|pages| pages.parse::<u64>().unwrap());
    [(); 2].map(|()| pages.next().unwrap() * 4096)
}

#[allow(dead_code)]
pub fn resident() -> u64 {
    memory()[1]
}
