//! A day at 1.05 times what the line carries: the rungs are taken a bounded number of times, and what the
//! peer lacks stays bounded (LADDER 6).
//!
//! Two real devices on memory, by a clock that moves when told to, two seconds at a time. Scaled down: blocks of
//! 512 bytes, a line of 4 blocks a second, and a journal that such a line carries in about a minute, as one of
//! 1 MiB/s carries 64 MiB.
#![cfg(not(loom))]

mod common;

use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Line, memory_link};
use afterimage::internal::storage::Memory;
use afterimage::{Device, Event, Mode, Request, Session};
use common::random::Random;
use common::{A, B, ManualClock};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const BLOCK: u64 = 512;
const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600;
/// Bytes of a second on the line.
const RATE: u64 = 4 * BLOCK;
/// A stay in differential mode has grown from a second to an hour after so many; then it is one an hour.
const DOUBLINGS: u64 = 12;
/// Seconds that pass at a time.
const TICK: u64 = 2;

struct Overload {
    devices: [Arc<Device>; 2],
    clock: Arc<ManualClock>,
    session: Session,
    random: Random,
    /// Hundredths of a block that are due to be written.
    due: u64,
    blocks: u64,
    suspensions: Arc<AtomicU64>,
    /// Most blocks at once that the peer lacked.
    lacked: u64,
}

impl Overload {
    /// Writes go to `blocks` blocks at random.
    fn new(blocks: u64, settings: Settings) -> Overload {
        let clock = Arc::new(ManualClock::default());
        let devices = [A, B].map(|at| {
            let volumes = vec![VolumeSpec { id: 0, bytes: blocks * BLOCK }];
            let mut geometry = Geometry::new(7, at as u64 + 1, volumes);
            geometry.block_size = BLOCK as u32;
            geometry.journal_bytes = 8 * geometry.batch_bytes_max();
            let storage = Arc::new(Memory::new());
            Device::create(&*storage, &geometry, at == A).unwrap();
            Device::open(storage, clock.clone(), settings.clone()).unwrap()
        });
        let (a, b) = memory_link(Line { rate: Some(RATE), delay_ns: 0 }, clock.clone());
        devices[A].connect(Arc::new(a)).unwrap();
        devices[B].connect(Arc::new(b)).unwrap();
        while !devices[A].status().serving {
            clock.pass(SECOND);
            devices.iter().for_each(|device| while device.step_control().unwrap() {});
        }
        let suspensions = Arc::new(AtomicU64::new(0));
        let count = suspensions.clone();
        devices[A].on_event(move |event| {
            if let Event::ModeChanged { mode: Mode::Collecting } = event {
                count.fetch_add(1, SeqCst);
            }
        });
        let session = devices[A].session().unwrap();
        let random = Random::new(7);
        Overload { devices, clock, session, random, due: 0, blocks, suspensions, lacked: 0 }
    }

    /// A tick, in which so many hundredths of a block are written a second.
    fn tick(&mut self, hundredths: u64) {
        self.clock.pass(TICK * SECOND);
        self.due += TICK * hundredths;
        while self.due >= 100 {
            self.due -= 100;
            let block = self.random.within(0..self.blocks);
            let value = self.random.within(1..256) as u8;
            let data = [value; BLOCK as usize];
            let data = [IoSlice::new(&data)];
            let request = Request::write(0, block * BLOCK, &data);
            let mut ticket = self.session.submit(request).unwrap();
            // No write waits for the peer, if at times for a commit.
            if ticket.poll().is_none() {
                self.devices[A].step_commit().unwrap();
                self.work();
                ticket.poll().expect("it waits for the peer").unwrap();
            }
        }
        self.work();
        let status = self.devices[A].status();
        let lacks = status.backlog_records + status.differential.table_blocks;
        self.lacked = self.lacked.max(lacks);
    }

    /// All background work that is to be done now.
    fn work(&self) {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for device in &self.devices {
                device.step_commit_due().unwrap();
                moved |= device.step_control().unwrap();
                moved |= device.step_receive().unwrap() > 0;
                moved |= device.step_ladder().unwrap();
                moved |= device.step_ship().unwrap() > 0;
                moved |= device.step_reflect_due().unwrap() > 0;
                moved |= device.step_checkpoint().unwrap();
            }
        }
    }
}

/// As small beside the line as the usual settings are beside one of 1 MiB a second.
fn settings() -> Settings {
    Settings {
        ship_bytes_max: 2 * BLOCK,
        link_queue_bytes_max: 2 * TICK * RATE,
        copy_bytes_max: 4 * TICK * RATE,
        ..Settings::default()
    }
}

/// Hundredths of a block that the line carries in a second, in order.
fn capacity() -> u64 {
    let mut pair = Overload::new(4096, Settings { suspend_from_percent: 0, ..settings() });
    let mut written = 0;
    for _ in 0..HOUR / TICK {
        // As much as the line has carried.
        let backlog = pair.devices[A].status().backlog_records;
        let hundredths = 100 * 60_u64.saturating_sub(backlog) / TICK;
        written += TICK * hundredths;
        pair.tick(hundredths);
    }
    written / HOUR
}

/// Hours at 1.05 times the line's capacity; returns the number of suspensions.
fn overload(hours: u64, blocks: u64, settings: Settings) -> u64 {
    let capacity = capacity();
    let mut pair = Overload::new(blocks, settings);
    let places = pair.devices[A].geometry().places();
    for _ in 0..hours * HOUR / TICK {
        pair.tick(capacity * 105 / 100);
    }
    let suspensions = pair.suspensions.load(SeqCst);
    println!(
        "{blocks} blocks, {hours} hours, {capacity} hundredths of a block a second: {suspensions} \
         suspensions, at most {} blocks lacking, journal of {places} places",
        pair.lacked
    );
    assert!(pair.lacked <= places + blocks, "{} blocks were lacking", pair.lacked);
    // The load ends: the pair is in order again by itself, and has the same.
    for _ in 0..2 * HOUR / TICK {
        pair.tick(0);
    }
    for device in &pair.devices {
        let status = device.status();
        let lacks = status.backlog_records + status.differential.table_blocks;
        assert!(status.mode == Mode::Ordered && lacks == 0, "{status:?}");
    }
    assert_eq!(pair.suspensions.load(SeqCst), suspensions);
    suspensions
}

/// Few blocks are rewritten again and again: bits for them are few, however much is written.
#[test]
fn a_day_of_rewriting_does_not_flap() {
    let hours = 24;
    let suspensions = overload(hours, 64, settings());
    assert!((2..=DOUBLINGS + hours).contains(&suspensions), "{suspensions} suspensions");
    // Without a stay in differential mode order is tried, and fails, all the time.
    let settings = Settings { resume_order_after_ns: 0, ..settings() };
    let flapping = overload(4, 64, settings);
    assert!(flapping > 8, "{flapping} suspensions");
}

/// Writes are scattered: bits become many, and order waits until there are few.
#[test]
fn scattered_writes_do_not_flap() {
    let hours = 8;
    let suspensions = overload(hours, 4096, settings());
    assert!((1..=DOUBLINGS + hours).contains(&suspensions), "{suspensions} suspensions");
}
