//! Checksums first (LADDER section 6): where both devices have a block, its data does not travel.
#![cfg(not(loom))]

mod common;

use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::error::Result;
use afterimage::internal::failover::Closed;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, Link, MemoryLink, memory_link};
use afterimage::internal::storage::{FileName, Fill, Memory, Storage};
use afterimage::internal::threads::Threads;
use afterimage::{Device, Mode, Status};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const BYTES: u64 = 16 << 20;
const SEGMENT: u64 = 1 << 20;

/// One end, which counts what it sends in the data lane.
struct Counted(MemoryLink, Arc<AtomicU64>);

impl Link for Counted {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> Result<()> {
        self.1.fetch_add(if lane == Lane::Data { frame.len() as u64 } else { 0 }, Relaxed);
        self.0.send(lane, frame)
    }

    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>> {
        self.0.receive(lane)
    }

    fn queued(&self, lane: Lane) -> u64 {
        self.0.queued(lane)
    }

    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool {
        self.0.wait(lane, timeout_ns)
    }

    fn close(&self) {
        self.0.close();
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::default())
}

fn settings() -> Settings {
    Settings { resume_order_after_ns: 0, ..Settings::default() }
}

fn made(number: u64, block_size: u32) -> Arc<Memory> {
    let disk = Arc::new(Memory::new());
    let volumes = vec![VolumeSpec { id: 0, bytes: BYTES }];
    let mut geometry = Geometry::new(7, number, volumes);
    (geometry.block_size, geometry.segment_bytes) = (block_size, SEGMENT);
    geometry.journal_bytes = (4 * geometry.batch_bytes_max()).next_multiple_of(4096).max(8 << 20);
    Device::create(&*disk, &geometry, number == 1).unwrap();
    disk
}

/// The volumes of `from`, carried to `to` by hand.
fn carry(from: &Memory, to: &Memory) {
    for file in from.files().unwrap() {
        let FileName::Segment { .. } = file else { continue };
        let length = from.length(file).unwrap().unwrap();
        let mut bytes = vec![0; length as usize];
        from.read(file, 0, &mut bytes).unwrap();
        to.create(file, length, Fill::Sparse).unwrap();
        to.write(file, 0, &[IoSlice::new(&bytes)]).unwrap();
    }
}

struct Open {
    device: Arc<Device>,
    _threads: Threads,
}

fn open(disk: &Arc<Memory>, clock: &Arc<dyn Clock>) -> Open {
    let device = Device::open(disk.clone(), clock.clone(), settings()).unwrap();
    let _threads = Threads::start(&device).unwrap();
    Open { device, _threads }
}

/// Connects the two, and counts what the first sends as data.
fn connect(a: &Open, b: &Open, clock: &Arc<dyn Clock>) -> Arc<AtomicU64> {
    try_connect(a, b, clock).unwrap()
}

/// The same; the threads of one that refuses the other may hang up at once.
fn try_connect(a: &Open, b: &Open, clock: &Arc<dyn Clock>) -> Result<Arc<AtomicU64>> {
    let (end_a, end_b) = memory_link(Line::default(), clock.clone());
    let sent = Arc::<AtomicU64>::default();
    a.device.connect(Arc::new(Counted(end_a, sent.clone())))?;
    b.device.connect(Arc::new(end_b))?;
    Ok(sent)
}

fn wait(open: &Open, what: &str, is_there: impl Fn(&Status) -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_there(&open.device.status()) {
        assert!(Instant::now() < until, "{what}: {:?}", open.device.status());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_ordered(status: &Status) -> bool {
    let bits = status.differential.table_blocks + status.differential.owed_blocks;
    let records = status.backlog_records + status.unreflected_records;
    status.mode == Mode::Ordered && status.differential.is_consistent && bits + records == 0
}

/// Data that no two sectors have in common.
fn content(at: u64, version: u64, bytes: &mut [u8]) {
    for (sector, bytes) in (at / 512..).zip(bytes.chunks_mut(512)) {
        bytes.fill((sector % 250) as u8 + 1);
        bytes[..8].copy_from_slice(&sector.to_le_bytes());
        bytes[8..16].copy_from_slice(&version.to_le_bytes());
    }
}

fn write(open: &Open, at: u64, bytes: u64, version: u64) {
    let mut data = vec![0; bytes as usize];
    content(at, version, &mut data);
    open.device.session().unwrap().write(0, at, &data).unwrap();
}

/// A device with data in its first `bytes` bytes, closed.
fn with_data(block_size: u32, bytes: u64) -> Arc<Memory> {
    let (disk, clock) = (made(1, block_size), clock());
    let a = open(&disk, &clock);
    // A peer that is lost later.
    let b = open(&made(2, block_size), &clock);
    connect(&a, &b, &clock);
    wait(&a, "serves", |status| status.serving && status.connected);
    for at in (0..bytes).step_by(1 << 16) {
        write(&a, at, 1 << 16, 1);
    }
    a.device.session().unwrap().flush().unwrap();
    wait(&a, "all is in the volumes", is_ordered);
    a.device.close().unwrap();
    drop(a);
    disk
}

fn forget(disk: &Arc<Memory>) {
    Closed::forget_peer(disk.clone(), clock(), settings()).unwrap();
}

/// Both have the same, and it is what hosts wrote last; `versions` says what that is of each MiB.
fn holds(b: &Open, bytes: u64, version: impl Fn(u64) -> u64) {
    b.device.takeover().unwrap();
    let session = b.device.session().unwrap();
    let (mut expected, mut found) = (vec![0; 4096], vec![0; 4096]);
    for at in (0..bytes).step_by(4096) {
        session.read(0, at, &mut found).unwrap();
        content(at, version(at), &mut expected);
        assert!(found == expected, "at {at}");
    }
}

/// A copy that was carried by hand, some of which is old, becomes the peer while hosts write.
fn carried(block_size: u32) {
    let data = with_data(block_size, BYTES / 2);
    let (old, clock) = (made(3, block_size), clock());
    carry(&data, &old);
    forget(&data);
    let a = open(&data, &clock);
    let b = open(&old, &clock);
    // Written after the copy was made: before the two meet, and while it is compared.
    write(&a, 3 << 20, 8192, 2);
    let sent = connect(&a, &b, &clock);
    wait(&a, "connects", |status| status.connected);
    write(&a, 5 << 20, 8192, 2);
    wait(&a, "has sent what differs", is_ordered);
    wait(&b, "has all", is_ordered);
    let sent = sent.load(Relaxed);
    println!("{sent} bytes sent");
    assert!(sent < BYTES / 2 / 20, "{sent} bytes for {} that were there", BYTES / 2);
    let is_new = |at: u64| [3, 5].iter().any(|mib| (mib << 20..(mib << 20) + 8192).contains(&at));
    holds(&b, BYTES / 2, |at| if is_new(at) { 2 } else { 1 });
}

#[test]
fn a_copy_carried_by_hand_is_compared() {
    carried(4096);
}

#[test]
fn checksums_of_the_smallest_blocks_are_small_too() {
    carried(512);
}

/// R10: the device has lost its logs and its superblock, and has its volumes still.
#[test]
fn a_device_that_lost_its_records_gets_few_bytes() {
    let (data, clock) = (with_data(4096, BYTES / 2), clock());
    let lost = made(2, 4096);
    carry(&data, &lost);
    let (a, b) = (open(&data, &clock), open(&lost, &clock));
    a.device.resume_alone().unwrap();
    write(&a, 1 << 20, 4096, 2);
    // The first meeting shows what was lost, perhaps before both are connected.
    let mut sent = try_connect(&a, &b, &clock).unwrap_or_default();
    let until = Instant::now() + Duration::from_secs(60);
    let is_there = |open: &Open| {
        let status = open.device.status();
        status.connected && is_ordered(&status)
    };
    while !is_there(&a) || !is_there(&b) {
        assert!(Instant::now() < until, "{:?}", a.device.status());
        if !b.device.status().connected {
            sent = try_connect(&a, &b, &clock).unwrap_or(sent);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = sent.load(Relaxed);
    println!("{sent} bytes sent");
    assert!(sent < BYTES / 2 / 20, "{sent} bytes for {} that were there", BYTES / 2);
    holds(&b, BYTES / 2, |at| if at == 1 << 20 { 2 } else { 1 });
}

/// A source that is closed in the middle of it goes on by checksums.
#[test]
fn checksums_go_on_after_a_restart() {
    let (data, old, clock) = (with_data(4096, BYTES / 2), made(3, 4096), clock());
    carry(&data, &old);
    forget(&data);
    let (a, b) = (open(&data, &clock), open(&old, &clock));
    // The checksums of all blocks take 1.6 s.
    a.device.set_copy_rate(20_000);
    let first = connect(&a, &b, &clock);
    let all = BYTES / 2 / 4096;
    let is_halfway = |status: &Status| (1..all / 2).contains(&status.differential.table_blocks);
    wait(&a, "is halfway", is_halfway);
    a.device.close().unwrap();
    drop(a);
    let a = open(&data, &clock);
    let sent = connect(&a, &b, &clock);
    wait(&a, "has sent what differs", |status| status.connected && is_ordered(status));
    wait(&b, "has all", is_ordered);
    let sent = first.load(Relaxed) + sent.load(Relaxed);
    assert!(sent < BYTES / 2 / 20, "{sent} bytes for {} that were there", BYTES / 2);
    holds(&b, BYTES / 2, |_| 1);
}

/// An empty device in the place of a lost one: little is spent on checksums where nothing is equal, and
/// segments that were never made are skipped.
#[test]
fn a_device_that_has_nothing_gets_all_of_it_once() {
    let (data, clock) = (with_data(4096, BYTES / 2), clock());
    forget(&data);
    let (a, b) = (open(&data, &clock), open(&made(3, 4096), &clock));
    let sent = connect(&a, &b, &clock);
    wait(&a, "has sent all", is_ordered);
    wait(&b, "has all", is_ordered);
    let sent = sent.load(Relaxed);
    println!("{sent} bytes sent");
    assert!(sent < BYTES / 2 * 102 / 100, "{sent} bytes for {}", BYTES / 2);
    holds(&b, BYTES / 2, |_| 1);
}
