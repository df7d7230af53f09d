//! Scenarios about what a device is told (R18), over a line in memory.

use crate::clock::{Clock, SystemClock};
use crate::device::Device;
use crate::event::Event;
use crate::failover::Image;
use crate::format::frame::Frame;
use crate::format::superblock::VolumeSpec;
use crate::limits::{Geometry, Settings};
use crate::link::{Lane, Line, Link, MemoryLink, memory_link};
use crate::storage::Memory;
use crate::sync::{AtomicU64, Ordering::SeqCst};
use std::collections::BTreeSet;
use std::sync::Arc;

/// More than a control lane holds.
const BLOCKS: u64 = 35_000;

struct Pair {
    devices: [Arc<Device>; 2],
    disks: [Arc<Memory>; 2],
    ends: [Arc<MemoryLink>; 2],
    fences: Arc<AtomicU64>,
}

impl Pair {
    /// A serves and owes every block of the volume; its data lane is held. Of so many records it may
    /// tell before they arrive.
    fn new(told_records_max: u64) -> Pair {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let disks = [1, 2].map(|_| Arc::new(Memory::default()));
        let devices = [1, 2].map(|id| {
            let storage = disks[id as usize - 1].clone();
            let volumes = vec![VolumeSpec { id: 0, bytes: BLOCKS * 512 }];
            let journal_bytes = 256 << 20;
            let geometry =
                Geometry { block_size: 512, journal_bytes, ..Geometry::new(1, id, volumes) };
            Device::create(&*storage, &geometry, id == 1).unwrap();
            let control_queue_bytes_max = 16 << 10;
            let settings =
                Settings { told_records_max, control_queue_bytes_max, ..Settings::default() };
            Device::open(storage, clock.clone(), settings).unwrap()
        });
        let fences = Arc::new(AtomicU64::new(0));
        let count = fences.clone();
        devices[0].on_event(move |event| {
            count.fetch_add(u64::from(matches!(event, Event::Fenced { .. })), SeqCst);
        });
        devices[0].resume_alone().unwrap();
        let host = devices[0].session().unwrap();
        // No two neighbours together: each is told of by itself.
        for n in 0..BLOCKS {
            host.write(0, n * 101 % BLOCKS * 512, &[5; 512]).unwrap();
            if n % 1000 == 0 {
                host.flush().unwrap();
            }
        }
        host.flush().unwrap();
        let (end, other) = memory_link(Line::default(), clock);
        let ends = [Arc::new(end), Arc::new(other)];
        ends[0].hold(Lane::Data, true);
        devices[0].connect(ends[0].clone()).unwrap();
        devices[1].connect(ends[1].clone()).unwrap();
        let pair = Pair { devices, disks, ends, fences };
        pair.settle();
        pair
    }

    fn settle(&self) {
        while self.devices.iter().any(|device| device.step_control().unwrap()) {}
        assert!(self.ends[0].queued(Lane::Control) <= 64 << 10, "the control lane is bounded");
    }

    fn is_connected(&self) -> bool {
        self.devices.iter().all(|device| device.status().connected)
    }

    /// Blocks owed at the takeover that has ended.
    fn owed_blocks(&self) -> u64 {
        let outcome = self.devices[1].poll_takeover().expect("it has ended");
        outcome.expect("B serves").owed_blocks
    }
}

/// Nothing leaves for a while, and the host is asked for three times.
pub fn s35_slow_hand_over() {
    let pair = Pair::new(0);
    pair.ends[0].hold(Lane::Control, true);
    for _ in 0..3 {
        pair.devices[1].begin_takeover().unwrap();
        pair.settle();
        assert!(pair.is_connected());
    }
    pair.ends[0].hold(Lane::Control, false);
    pair.settle();
    assert_eq!(pair.owed_blocks(), BLOCKS);
    assert_eq!(pair.fences.load(SeqCst), 1, "one request that changes something, one fence");
}

/// A line loses a piece without a word, which no line may do: nobody serves on what is left.
pub fn a_lost_piece_is_missed() {
    let pair = Pair::new(0);
    pair.devices[1].begin_takeover().unwrap();
    assert!(pair.devices[0].step_control().unwrap());
    let lost = pair.ends[1].receive(Lane::Control).unwrap().expect("a piece");
    assert!(matches!(Frame::decode(&lost), Ok((_, Frame::Prototype { is_last: false, .. }))));
    pair.settle();
    assert!(!pair.devices[1].status().serving && !pair.is_connected());
}

/// A prototype ends in the middle. Its pieces leave out records of blocks that a later piece names: a loss sheet does
/// not say that all that is lost, and not listed, is younger than the last record told.
pub fn a_piece_vouches_for_nothing_before_it() {
    let pair = Pair::new(0);
    let [a, b] = &pair.devices;
    let oldest = a.own.journal.queue.record(a.own.journal.queue.freed()).stamp.time;
    let host = a.session().unwrap();
    let written_again: Vec<u64> = (BLOCKS / 4..BLOCKS / 2).map(|n| n * 101 % BLOCKS).collect();
    for block in &written_again {
        host.write(0, block * 512, &[6; 512]).unwrap();
    }
    host.flush().unwrap();
    b.begin_takeover().unwrap();
    while b.status().told_blocks < BLOCKS / 2 {
        // A piece that waits in the lane is one behind which records are left out.
        pair.ends[0].hold(Lane::Control, true);
        while a.step_control().unwrap() {}
        pair.ends[0].hold(Lane::Control, false);
        while b.step_control().unwrap() {}
    }
    b.close().unwrap();
    let clock = a.clock().clone();
    let b = Device::open(pair.disks[1].clone(), clock, Settings::default()).unwrap();
    let sheet = b.loss_sheet(Image::Consistent).unwrap();
    let listed: BTreeSet<u64> = sheet.told.iter().map(|told| told.0.first.number).collect();
    let is_listed = written_again.iter().all(|block| listed.contains(block));
    let vouched = sheet.others_after.is_some_and(|after| after > oldest);
    assert!(is_listed || !vouched, "{:?}, and not {oldest}", sheet.others_after);
}

/// With everything told before, the host is there after one round trip, and the same is owed.
#[test]
fn what_is_told_need_not_be_handed_over() {
    let pair = Pair::new(1 << 20);
    assert_eq!(pair.devices[1].status().told_blocks, BLOCKS);
    pair.devices[1].begin_takeover().unwrap();
    assert!(pair.devices[0].step_control().unwrap());
    assert!(pair.devices[1].step_control().unwrap());
    assert_eq!(pair.owed_blocks(), BLOCKS);
}

/// A device keeps what it was told when the connection ends, and is told only the rest.
#[test]
fn what_is_told_is_kept() {
    let pair = Pair::new(10_000);
    let told = || pair.devices[1].status().told_blocks;
    assert_eq!(told(), 10_000, "no more than it says it keeps");
    pair.ends[0].cut();
    pair.settle();
    assert!(!pair.is_connected() && told() == 10_000);
}

#[test]
fn hold() {
    s35_slow_hand_over();
    a_lost_piece_is_missed();
    a_piece_vouches_for_nothing_before_it();
}
