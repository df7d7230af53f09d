//! A pair on disks that can die, with few blocks and a history: what its hosts were promised must
//! be there whenever it comes back.

use super::crash::{CrashDisk, Cut};
use super::{A, B, ManualClock};
use afterimage::Device;
use afterimage::internal::error::{Kind, Result};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, MemoryLink, memory_link};
use afterimage::internal::request::{Op, Request, Session};
use afterimage::internal::salvage;
use afterimage::internal::storage::{FileName, Storage};
use afterimage::internal::unit::Mode;
use std::sync::Arc;

pub const BLOCK: u64 = 512;
pub const BLOCKS: u64 = 8;

/// A value for every block.
pub type Image = [u8; BLOCKS as usize];

pub struct World {
    pub disks: [Arc<CrashDisk>; 2],
    pub devices: [Option<Arc<Device>>; 2],
    pub links: [MemoryLink; 2],
    pub clock: Arc<ManualClock>,
    /// Every write that completed, block and value, 0 for zeros.
    pub history: Vec<(u64, u8)>,
    /// How many of them were flushed, or are otherwise promised.
    pub promised: usize,
    /// An operator vouches: whoever held the host resumes alone.
    pub vouch: bool,
    pub settings: Settings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
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
    Suspend(usize),
    Close(usize),
}
use Act::*;

fn make(disk: &CrashDisk, id: u64, journals: u64, active: bool, differential: bool) {
    let volumes = vec![VolumeSpec { id: 0, bytes: BLOCKS * BLOCK }];
    let mut geometry = Geometry::new(7, id, volumes);
    geometry.block_size = BLOCK as u32;
    geometry.segment_bytes = 65_536;
    geometry.journal_bytes = journals * geometry.batch_bytes_max();
    geometry.differential = differential;
    Device::create(disk, &geometry, active).unwrap();
}

/// One of the steps that a background thread makes.
pub fn background_step(device: &Device, which: u64) {
    match which {
        0 => drop(device.step_ladder().unwrap()),
        1 => drop(device.step_ship().unwrap()),
        2 => drop(device.step_receive().unwrap()),
        3 => drop(device.step_control().unwrap()),
        4 => drop(device.step_reflect_some(1).unwrap()),
        _ => drop(device.step_checkpoint().unwrap()),
    }
}

impl World {
    pub fn new() -> World {
        // Time stands still.
        World::with(4, Settings { resume_order_after_ns: 0, ..Settings::default() })
    }

    /// `journals`: of each device, in units of its largest batch.
    pub fn with(journals: u64, settings: Settings) -> World {
        World::of(journals, settings, false)
    }

    /// A pair that is always in differential mode.
    pub fn differential() -> World {
        World::differential_with(Settings::default())
    }

    /// The same, with other settings.
    pub fn differential_with(settings: Settings) -> World {
        World::of(4, settings, true)
    }

    fn of(journals: u64, settings: Settings, differential: bool) -> World {
        let disks = [CrashDisk::new(), CrashDisk::new()];
        let clock = Arc::new(ManualClock::default());
        for (at, disk) in disks.iter().enumerate() {
            make(disk, at as u64 + 1, journals, at == A, differential);
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
            settings,
        };
        world.open(A).unwrap();
        world.open(B).unwrap();
        world.meet();
        world
    }

    /// An empty device with this id in the place of one, on a disk of its own.
    pub fn make_anew(&mut self, at: usize, id: u64) {
        let is_always = self.devices.iter().flatten().any(|d| d.geometry().differential);
        self.disks[at] = CrashDisk::new();
        make(&self.disks[at], id, 4, false, is_always);
    }

    /// All of them, which must go well.
    pub fn acts(&mut self, acts: &[Act]) {
        for &act in acts {
            self.act(act).unwrap_or_else(|e| panic!("{act:?}: {e}"));
        }
    }

    /// Holds what is shipped back, or lets it go.
    pub fn hold_ships(&self, on: bool) {
        self.links.iter().for_each(|link| link.hold(Lane::Data, on));
    }

    pub fn open(&mut self, at: usize) -> Result<()> {
        let (disk, clock) = (self.disks[at].clone(), self.clock.clone());
        let device = Device::open(disk, clock, self.settings.clone())?;
        if std::env::var("LADDER_LOUD").is_ok() {
            device.on_event(move |event| {
                if let afterimage::internal::event::Event::Disconnected { why, .. } = event {
                    println!("   {at} disconnected: {why}");
                }
            });
        }
        // The completed writes that a crash may take are known to the history here.
        let _ = device.accept_loss();
        self.devices[at] = Some(device);
        Ok(())
    }

    /// The other device is gone for now, and this one is forced to take over, and opened.
    pub fn try_force(
        &mut self,
        at: usize,
        image: afterimage::Image,
    ) -> Result<afterimage::LossSheet> {
        self.devices = [None, None];
        let (disk, clock) = (self.disks[at].clone(), self.clock.clone());
        let forced = afterimage::Forced { image, ..Default::default() };
        let sheet = Device::force(disk, clock, self.settings.clone(), forced)?;
        let (disk, clock) = (self.disks[at].clone(), self.clock.clone());
        self.devices[at] = Some(Device::open(disk, clock, self.settings.clone())?);
        self.promised = self.history.len();
        Ok(sheet)
    }

    /// As [`World::meet`], of two that may both serve.
    pub fn meet_apart(&mut self) {
        self.meet_briefly(4);
    }

    /// A new line between them, and so many steps of each.
    pub fn meet_briefly(&mut self, steps: u64) {
        let line = memory_link(Line::default(), self.clock.clone());
        self.links = [line.0, line.1];
        for at in [A, B] {
            let _ = self.device(at).connect(Arc::new(self.links[at].clone()));
        }
        for _ in 0..steps {
            for device in self.devices.iter().flatten() {
                device.step_control().unwrap();
            }
        }
    }

    /// A new line between them.
    pub fn meet(&mut self) {
        let line = memory_link(Line::default(), self.clock.clone());
        self.links = [line.0, line.1];
        for at in [A, B] {
            if let Some(device) = &self.devices[at] {
                let _ = device.connect(Arc::new(self.links[at].clone()));
            }
        }
        let _ = self.carry();
    }

    pub fn device(&self, at: usize) -> &Arc<Device> {
        self.devices[at].as_ref().expect("open")
    }

    pub fn carry(&self) -> Result<()> {
        let mut idle = 0;
        while idle < 2 {
            let mut moved = false;
            for device in self.devices.iter().flatten() {
                moved |= device.step_control()?;
                device.step_commit()?;
                moved |= device.step_ship()? > 0;
                moved |= device.step_receive()? > 0;
                moved |= self.climb(device)?;
            }
            let serving = self.devices.iter().flatten().filter(|d| d.status().serving).count();
            assert!(serving <= 1, "I3: both serve");
            idle = if moved { 0 } else { idle + 1 };
        }
        Ok(())
    }

    /// A step in the rounds of differential mode, which may wait for a checkpoint.
    pub fn climb(&self, device: &Device) -> Result<bool> {
        if device.status().mode == Mode::Ordered {
            return device.step_ladder();
        }
        while device.step_reflect()? > 0 {}
        device.step_checkpoint()?;
        device.step_ladder()
    }

    /// Whether the volume of a device is a state of the history.
    pub fn is_prefix(&self, at: usize) -> bool {
        let status = self.device(at).status();
        status.mode == Mode::Ordered && status.differential.is_consistent
    }

    pub fn reflect(&self, at: usize) -> Result<()> {
        while self.device(at).step_reflect()? > 0 {
            if !self.is_prefix(at) {
                continue;
            }
            // Whole steps leave a prefix of the history; which one, is told at the end.
            let image = self.volume(at);
            assert!(self.images().contains(&image), "{at}: {image:?} is no prefix");
        }
        Ok(())
    }

    fn wrote(&mut self, blocks: std::ops::Range<u64>, value: u8) {
        self.history.extend(blocks.map(|block| (block, value)));
    }

    pub fn act(&mut self, act: Act) -> Result<()> {
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
                let request = Request::new(0, offset, op);
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
                // Ships wait: the new device catches up later.
                self.hold_ships(true);
                let taken = self.takeover(at);
                self.hold_ships(false);
                taken?;
                self.promised = self.history.len();
            }
            Suspend(at) => self.device(at).suspend()?,
            Close(at) => {
                self.device(at).close()?;
                self.devices[at] = None;
                self.promised = self.history.len();
            }
        }
        Ok(())
    }

    pub fn takeover(&self, at: usize) -> Result<()> {
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

    pub fn images(&self) -> Vec<Image> {
        self.images_from(0)
    }

    /// The content of the volume's file.
    pub fn volume(&self, at: usize) -> Image {
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
    pub fn crash(&mut self, at: usize, cut: Cut) {
        self.devices[at] = None;
        self.disks[at] = self.disks[at].after(cut);
    }

    /// Opens whoever is not open, connects them, and finds who serves.
    pub fn rise(&mut self) -> Result<usize> {
        for at in [A, B] {
            if self.devices[at].is_none() {
                self.open(at)?;
            }
            if self.vouch
                && let Err(refused) = self.device(at).resume_alone()
            {
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
    pub fn alive(&self) -> Result<()> {
        for at in [A, B] {
            if let Some(halted) = self.device(at).status().halted {
                assert!(self.disks[at].is_dead(), "{at} halted: {halted}");
                return Err(halted);
            }
        }
        Ok(())
    }

    pub fn read_all(&self, session: &Session) -> Result<Image> {
        let mut bytes = vec![0; (BLOCKS * BLOCK) as usize];
        for (block, buf) in (0..).zip(bytes.chunks_mut(BLOCK as usize)) {
            let (offset, op) = (block * BLOCK, Op::Read(vec![0; BLOCK as usize]));
            let request = Request::new(0, offset, op);
            let mut ticket = session.submit(request)?;
            for round in 0.. {
                assert!(
                    round < 100,
                    "a read waits for ever: {:?}",
                    self.devices.each_ref().map(|d| d.as_ref().map(|d| d.status()))
                );
                if let Some(done) = ticket.poll() {
                    buf.copy_from_slice(&done?.buffer.expect("a read has its buffer"));
                    break;
                }
                for device in self.devices.iter().flatten() {
                    device.step_control()?;
                    self.climb(device)?;
                }
            }
        }
        Ok(self.image_of(&bytes))
    }

    /// A host at this device reads the newest of each block.
    pub fn reads(&self, at: usize) {
        let session = self.device(at).session().unwrap();
        assert_eq!(Some(&self.read_all(&session).unwrap()), self.images().last());
    }

    /// Everything goes as far as it can.
    pub fn goes_on(&mut self) {
        for _ in 0..3 {
            self.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
        }
    }

    /// Everything that was written is at both, in order again.
    pub fn rests(&mut self) {
        self.goes_on();
        let both = [A, B].map(|at| self.device(at).status());
        for (at, status) in both.iter().enumerate() {
            let left = status.differential.table_blocks + status.differential.owed_blocks;
            let is_whole = status.differential.is_consistent && left == 0;
            assert!(status.mode == Mode::Ordered && is_whole, "{at}: {both:?}");
            assert_eq!(Some(&self.volume(at)), self.images().last(), "{at}: {both:?}");
        }
    }

    /// Block and value of all that is in a device's salvage, in rising order.
    pub fn saved(&self, at: usize) -> Vec<(u64, u8)> {
        let disk = &*self.disks[at];
        let mut all = Vec::new();
        for file in salvage::list(disk).unwrap() {
            salvage::read(disk, file.number, |entry, data| {
                let value = data.first().copied().unwrap_or(0);
                all.extend((entry.block.number..).take(entry.count as usize).map(|n| (n, value)));
                Ok(())
            })
            .unwrap();
        }
        all.sort_unstable();
        all
    }

    /// The rest of the story: what the serving device returns is the history, but for an
    /// unflushed tail; the host goes on, moves to the other device and finds the same there; at
    /// rest both volumes are equal.
    pub fn finale(&mut self) -> Result<()> {
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
