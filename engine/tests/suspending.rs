//! A pair that suspends by itself, driven by its threads: a journal that fills is no standstill, and the pair
//! comes back to ordered mode without a command.
#![cfg(not(loom))]

mod common;

use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, MemoryLink, memory_link};
use afterimage::internal::storage::{FileName, Memory, Storage};
use afterimage::internal::threads::Threads;
use afterimage::{Device, Mode, Op, Request, Status};
use common::hooked::{Call, Hooked};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 16 << 10;

fn device(number: u64, clock: &Arc<dyn Clock>) -> (Arc<Device>, Threads) {
    device_with(number, clock, Settings { suspend_from_percent: 60, ..Settings::default() })
}

fn device_with(number: u64, clock: &Arc<dyn Clock>, settings: Settings) -> (Arc<Device>, Threads) {
    device_on(Arc::new(Memory::new()), number, clock, settings)
}

fn device_on(
    storage: Arc<dyn Storage>,
    number: u64,
    clock: &Arc<dyn Clock>,
    settings: Settings,
) -> (Arc<Device>, Threads) {
    let volumes = vec![VolumeSpec { id: 0, bytes: BLOCKS * BLOCK as u64 }];
    let mut geometry = Geometry::new(7, number, volumes);
    geometry.journal_bytes = 16 << 20;
    Device::create(&*storage, &geometry, number == 1).unwrap();
    let device = Device::open(storage, clock.clone(), settings).unwrap();
    let threads = Threads::start(&device).unwrap();
    (device, threads)
}

fn connect(devices: [&Arc<Device>; 2], clock: &Arc<dyn Clock>) -> [MemoryLink; 2] {
    let (a, b) = memory_link(Line::default(), clock.clone());
    let links = [a, b];
    for (device, link) in devices.into_iter().zip(&links) {
        device.connect(Arc::new(link.clone())).unwrap();
    }
    links
}

fn wait(device: &Arc<Device>, is_there: impl Fn(&Status) -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_there(&device.status()) {
        assert!(Instant::now() < until, "{:?}", device.status());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_ordered(status: &Status) -> bool {
    let bits = status.differential.table_blocks + status.differential.owed_blocks;
    let records = status.backlog_records + status.unreflected_records;
    status.mode == Mode::Ordered && status.differential.is_consistent && bits + records == 0
}

/// Writes four times what the journal holds, while the line is `down` or only takes nothing.
fn survives(down: bool) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let (a, a_threads) = device(1, &clock);
    let (b, b_threads) = device(2, &clock);
    let links = connect([&a, &b], &clock);
    wait(&a, |status| status.serving && status.connected);
    match down {
        true => links[0].cut(),
        false => links[0].hold(Lane::Data, true),
    }
    let session = a.session().unwrap();
    for block in 0..BLOCKS {
        let value = (block % 251 + 1) as u8;
        session.write(0, block * BLOCK as u64, &[value; BLOCK]).unwrap();
    }
    assert_ne!(a.status().mode, Mode::Ordered);
    match down {
        true => drop(connect([&a, &b], &clock)),
        false => links[0].hold(Lane::Data, false),
    }
    session.flush().unwrap();
    wait(&a, is_ordered);
    wait(&b, is_ordered);
    b.takeover().unwrap();
    let session = b.session().unwrap();
    let mut buffer = [0; BLOCK];
    for block in 0..BLOCKS {
        session.read(0, block * BLOCK as u64, &mut buffer).unwrap();
        let value = (block % 251 + 1) as u8;
        assert!(buffer.iter().all(|&byte| byte == value), "block {block}");
    }
    drop((a_threads, b_threads));
}

#[test]
fn writes_go_on_while_the_line_is_down() {
    survives(true);
}

#[test]
fn writes_go_on_while_the_line_takes_nothing() {
    survives(false);
}

/// The thread that ships sleeps until the outage has lasted long enough, with nothing to wake it.
#[test]
fn an_outage_that_lasts_suspends() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let settings = Settings { suspend_after_ns: 200_000_000, ..Settings::default() };
    let (a, _a_threads) = device_with(1, &clock, settings.clone());
    let (b, _b_threads) = device_with(2, &clock, settings);
    let links = connect([&a, &b], &clock);
    wait(&a, |status| status.serving && status.connected);
    links[0].cut();
    a.session().unwrap().write(0, 0, &[1; BLOCK]).unwrap();
    wait(&a, |status| status.mode == Mode::Collecting);
    drop(connect([&a, &b], &clock));
    wait(&a, is_ordered);
}

/// The journal is not as full as it is to be, and has no room for a large request.
#[test]
fn the_largest_request_waits_for_no_peer() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let (a, _a_threads) = device_with(1, &clock, Settings::default());
    let (b, _b_threads) = device_with(2, &clock, Settings::default());
    let links = connect([&a, &b], &clock);
    wait(&a, |status| status.serving && status.connected);
    links[0].hold(Lane::Data, true);
    let session = a.session().unwrap();
    let largest = vec![7; a.limits().request_bytes_max as usize];
    for block in 0.. {
        if a.status().own_fill_percent >= 80 {
            break;
        }
        session.write(0, block * BLOCK as u64, &[1; BLOCK]).unwrap();
    }
    assert_eq!(a.status().mode, Mode::Ordered);
    session.write(0, 0, &largest).unwrap();
    assert_ne!(a.status().mode, Mode::Ordered);
    links[0].hold(Lane::Data, false);
    wait(&a, is_ordered);
}

/// Blocks that lie in a hole of N are zeros, which travel as such without being read.
#[test]
fn a_hole_is_copied_without_a_read() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let settings = Settings { checkpoint_interval_ns: 50_000_000, ..Settings::default() };
    let disk = Arc::new(Hooked::default());
    let (a, _a_threads) = device_on(disk.clone(), 1, &clock, settings.clone());
    let (b, _b_threads) = device_with(2, &clock, settings);
    let links = connect([&a, &b], &clock);
    wait(&a, |status| status.serving && status.connected);
    let session = a.session().unwrap();
    session.write(0, 0, &[7; 4 * BLOCK]).unwrap();
    session.flush().unwrap();
    wait(&a, is_ordered);
    links[0].cut();
    let zeros = Request::new(0, 0, Op::WriteZeroes(4 * BLOCK as u64));
    session.submit(zeros).unwrap().wait().unwrap();
    session.flush().unwrap();
    a.suspend().unwrap();
    wait(&a, |status| status.unreflected_records == 0 && status.own_used_bytes == 0);
    disk.when(Call::Read, FileName::Segment { volume: 0, index: 0 }, || {});
    drop(connect([&a, &b], &clock));
    wait(&a, is_ordered);
    assert!(!disk.has_happened(), "it was read");
}
