//! The world of a seed: sizes, settings, clocks, which faults may come. It is small, so that requests
//! meet in the same blocks.

use super::action::Kind;
use super::payload::SECTOR;
use super::random::Random;
use crate::format::superblock::VolumeSpec;
use crate::limits::{Durability, Geometry, Settings};
use crate::unit::{Block, Extent};
use std::ops::Range;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const HOUR: i64 = 3_600_000_000_000;

/// The world of a seed.
pub(super) struct Plan {
    pub seed: u64,
    pub block_size: usize,
    /// Sectors of each volume.
    pub volumes: Vec<u64>,
    /// The size of each device's logs, in units of its largest batch.
    pub journals: [u64; 2],
    pub settings: [Settings; 2],
    /// Offset and grain of each clock.
    pub clocks: [(i64, u64); 2],
    /// Most requests under way at a device.
    pub depth: usize,
    /// Programs start that do not know records of many blocks (R19).
    pub old_programs: bool,
    /// The device whose normal volumes rot, if any do.
    pub rotting: usize,
    /// The actions that never happen in this run.
    pub never: Vec<Kind>,
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut random = Random::of(seed, 0, 0);
        let block_size = random.pick(&[512, 512, 1024, 1024, 2048, 4096]);
        let block = (block_size / SECTOR) as u64;
        let volume = |random: &mut Random| match random.within(0..8) {
            // Ends within a block.
            0 => random.within(1..6) * block + random.within(0..block).max(1),
            // More than a segment.
            1 if block_size <= 1024 => 130 * block,
            // Room for extents in one another.
            2 | 3 => random.within(16..40) * block,
            _ => random.within(1..9) * block,
        };
        let volumes = (0..random.within(1..4)).map(|_| volume(&mut random)).collect();
        let journals = [0; 2].map(|_| random.pick(&[4, 4, 5, 16]));
        let mut settings = Plan::settings(&mut random);
        for (side, settings) in settings.iter_mut().enumerate() {
            let random = &mut Random::of(seed, 7, side as u64);
            settings.waiting_bytes_max = random.pick(&[1, 4096, 64 << 20, 64 << 20]);
            settings.unlogged_records_max = random.pick(&[0, 4, 8192, 8192]);
            settings.pacing_max_ns = random.pick(&[0, 0, 20 * MS, SECOND]);
            settings.pacing_from_percent = random.pick(&[10, 50, 80]);
            settings.pacing_until_percent = settings.pacing_from_percent - random.pick(&[0, 5, 9]);
            settings.suspend_from_percent = random.pick(&[0, 0, 0, 50, 80]);
            settings.suspend_after_ns = random.pick(&[0, 0, 50 * MS, SECOND]);
            settings.copy_bytes_per_second = random.pick(&[0, 0, 0, 64 << 10]);
            settings.resume_order_after_ns = random.pick(&[0, 0, 50 * MS, SECOND]);
            settings.resume_order_after_max_ns = 4 * SECOND;
            settings.copy_bytes_max = random.pick(&[1, 4096, 4 << 20]);
            let random = &mut Random::of(seed, 11, side as u64);
            settings.image_bytes_max = random.pick(&[0, 12 << 10, 1 << 30, 1 << 30, 1 << 30]);
        }
        let clocks = match random.within(0..5) {
            0 => [(0, 1), (0, 1)],
            1 => [(0, SECOND), (0, SECOND)],
            2 => [(0, 1), (-HOUR, 1)],
            3 => [(HOUR, MS), (0, 10 * SECOND)],
            // They stand still.
            _ => [(0, u64::MAX / 32), (0, u64::MAX / 32)],
        };
        // Some things never happen in some runs, so that others come further.
        let rare = [
            Kind::AskBoth,
            Kind::Alone,
            Kind::Cut,
            Kind::StepClock,
            Kind::Close,
            Kind::Kill,
            Kind::PowerCut,
            Kind::Blackout,
            Kind::Policy,
            Kind::Repeat,
            Kind::Trouble,
            Kind::Late,
            Kind::Return,
            Kind::Zeroes,
            Kind::Discard,
            Kind::Checkpoint,
            Kind::Flush,
            Kind::Stall,
            Kind::Compare,
            Kind::Suspend,
        ];
        let mut never: Vec<Kind> = rare.into_iter().filter(|_| random.once_in(3)).collect();
        // Faults that end a run early happen in few runs.
        never
            .extend([Kind::Lie, Kind::Rot, Kind::Lose].into_iter().filter(|_| !random.once_in(10)));
        if !random.once_in(6) {
            never.push(Kind::RotVolume);
        }
        // Of rotten or forgetful disks nobody knows what a forced device has; and hosts are served with as
        // many devices as there are in most runs.
        let is_faithful = [Kind::Lie, Kind::Rot, Kind::Lose, Kind::RotVolume];
        if !is_faithful.iter().all(|kind| never.contains(kind)) || Random::of(seed, 9, 0).once_in(2)
        {
            never.push(Kind::LoseSite);
        }
        // The variants of a takeover leave the runs without them as they are.
        let variants = &mut Random::of(seed, 12, 0);
        never.extend([Kind::MoveByFiles, Kind::Offer].into_iter().filter(|_| variants.once_in(2)));
        for settings in &mut settings {
            settings.takeover_at_first_request = variants.once_in(6);
        }
        if !Random::of(seed, 13, 0).once_in(8) {
            never.extend([Kind::FenceHere, Kind::Unfence]);
        }
        let rotting = random.below(2);
        let old_programs = random.once_in(4);
        if old_programs {
            // An older program that starts while the line is down would not be understood.
            settings.iter_mut().for_each(|settings| settings.suspend_after_ns = 0);
        }
        if settings[0].durability == Durability::Never {
            never.extend([Kind::PowerCut, Kind::Blackout, Kind::Lie, Kind::Rot]);
        }
        let depth = random.pick(&[1, 2, 4, 8]);
        Plan {
            seed,
            block_size,
            volumes,
            journals,
            settings,
            clocks,
            depth,
            old_programs,
            rotting,
            never,
        }
    }

    /// Each device has its own; only never to sync is for both.
    fn settings(random: &mut Random) -> [Settings; 2] {
        let first = Plan::settings_of(random);
        let mut second = if random.once_in(2) { first.clone() } else { Plan::settings_of(random) };
        if [&first, &second].iter().any(|s| s.durability == Durability::Never) {
            second.durability = first.durability;
        }
        [first, second]
    }

    fn settings_of(random: &mut Random) -> Settings {
        let durability = random.pick(&[
            Durability::VolatileCache,
            Durability::VolatileCache,
            Durability::VolatileCache,
            Durability::VolatileCache,
            Durability::Strict,
            Durability::Strict,
            Durability::Written,
            Durability::Written,
            Durability::Written,
            Durability::Never,
        ]);
        let timeout = random.pick(&[50 * MS, SECOND, 30 * SECOND]);
        Settings {
            durability,
            commit_interval_ns: random.pick(&[0, 5 * MS, SECOND]),
            remote_read_timeout_ns: timeout,
            admit_timeout_ns: random.pick(&[50 * MS, SECOND, 30 * SECOND]),
            takeover_timeout_ns: timeout,
            ship_bytes_max: random.pick(&[1, 2048, 1 << 18]),
            link_queue_bytes_max: random.pick(&[0, 4096, 1 << 20]),
            control_queue_bytes_max: random.pick(&[0, 2048, 1 << 17]),
            reflect_records_max: random.pick(&[1, 3, 16, 16_384]),
            reflect_interval_ns: random.pick(&[0, 10 * MS, 200 * MS]),
            checkpoint_records: random.pick(&[1, 8, 32_768]),
            checkpoint_interval_ns: random.pick(&[MS, SECOND, 30 * SECOND]),
            commit_bytes: random.pick(&[1, 4096, 4 << 20]),
            batch_records_max: random.pick(&[1, 2, 3, 62]),
            told_records_max: random.pick(&[0, 3, 1 << 20, 1 << 20]),
            piece_entries_max: random.pick(&[1, 2, 3, 512]),
            // All that there are.
            shared_volumes: if random.once_in(6) { (0..4).collect() } else { Vec::new() },
            ..Settings::default()
        }
    }

    /// Nothing is ever synced: processes die, and the power never fails.
    pub fn never_synced(&self) -> bool {
        self.settings[0].durability == Durability::Never
    }

    /// Blocks of a volume.
    fn blocks_in(&self, volume: usize) -> u64 {
        self.volumes[volume].div_ceil(self.block_sectors())
    }

    /// Blocks of the group.
    pub fn blocks(&self) -> usize {
        (0..self.volumes.len()).map(|v| self.blocks_in(v) as usize).sum()
    }

    /// A block's number in the group.
    pub fn index(&self, block: Block) -> usize {
        let before: u64 = (0..block.volume as usize).map(|v| self.blocks_in(v)).sum();
        (before + block.number) as usize
    }

    /// The group's numbers of an extent's blocks.
    pub fn blocks_of(&self, extent: Extent) -> Range<usize> {
        let first = self.index(extent.first);
        first..first + extent.blocks() as usize
    }

    /// The block with this number in the group.
    pub fn block(&self, index: usize) -> Block {
        let (mut volume, mut number) = (0, index as u64);
        while number >= self.blocks_in(volume) {
            number -= self.blocks_in(volume);
            volume += 1;
        }
        Block { volume: volume as u32, number }
    }

    /// The group's number of a block's first sector.
    pub fn place(&self, block: usize) -> usize {
        block * self.block_sectors() as usize
    }

    pub fn block_sectors(&self) -> u64 {
        (self.block_size / SECTOR) as u64
    }

    pub fn geometry(&self, side: usize) -> Geometry {
        let specs = (0..).zip(&self.volumes);
        let specs = specs.map(|(id, n)| VolumeSpec { id, bytes: n * SECTOR as u64 }).collect();
        let mut geometry = Geometry::new(7, side as u64 + 1, specs);
        geometry.block_size = self.block_size as u32;
        geometry.segment_bytes = 65_536;
        let quarters = self.journals[side] * geometry.batch_bytes_max();
        geometry.journal_bytes = quarters.next_multiple_of(4096);
        geometry
    }
}
