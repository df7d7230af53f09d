//! A device that has nothing to do sleeps: how often its threads wake up, by the operating system's
//! count of voluntary context switches, and how long they run.
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Line, memory_link};
use afterimage::internal::storage::{FileName, Memory, Storage};
use afterimage::internal::threads::Threads;
use common::hooked::{Call, Hooked};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const MEASURED: Duration = Duration::from_secs(3);

fn device(number: u64, peer: u64, clock: &Arc<dyn Clock>) -> (Arc<Device>, Threads) {
    // Everything that is due is soon done.
    let settings = Settings {
        reflect_interval_ns: 10_000_000,
        checkpoint_interval_ns: 20_000_000,
        ..Settings::default()
    };
    device_with(Arc::new(Memory::new()), settings, number, peer, clock)
}

fn device_with(
    storage: Arc<dyn Storage>,
    settings: Settings,
    number: u64,
    peer: u64,
    clock: &Arc<dyn Clock>,
) -> (Arc<Device>, Threads) {
    let mut geometry = Geometry::new(7, number, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
    geometry.journal_bytes = 16 << 20;
    Device::create(&*storage, &geometry, number < peer).unwrap();
    let device = Device::open(storage, clock.clone(), settings).unwrap();
    let threads = Threads::start(&device).unwrap();
    (device, threads)
}

fn write_and_rest(device: &Arc<Device>) {
    let session = device.session().unwrap();
    for block in 0..64 {
        session.write(0, block * 4096, &[7; 4096]).unwrap();
    }
    session.flush().unwrap();
    // The last write is left to the background.
    session.write(0, 0, &[8; 4096]).unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while device.status().unreflected_records > 0 {
        assert!(std::time::Instant::now() < until, "{:?}", device.status());
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_secs(2));
}

fn read(task: &Path, name: &str) -> String {
    std::fs::read_to_string(task.join(name)).unwrap_or_default()
}

/// The running threads whose names begin so.
fn tasks(name: &str) -> Vec<PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    tasks.filter(|task| read(task, "comm").starts_with(name)).collect()
}

/// How often the threads of the device `number` have gone to sleep so far.
fn sleeps(number: u64) -> (usize, u64) {
    let tasks = tasks(&format!("{number}-"));
    let slept = tasks.iter().map(|task| {
        let status = read(task, "status");
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    });
    (tasks.len(), slept.sum())
}

/// How long the only thread of this name has run, in the system's ticks of 10 ms.
fn ticks(name: &str) -> u64 {
    let [task] = &tasks(name)[..] else { panic!("one thread is called {name}") };
    let stat = read(task, "stat");
    let (_, behind_name) = stat.rsplit_once(')').unwrap();
    behind_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn sleeps_while_idle(number: u64) -> u64 {
    let (threads, before) = sleeps(number);
    assert_eq!(threads, 6, "the threads of device {number}");
    std::thread::sleep(MEASURED);
    sleeps(number).1 - before
}

/// With no peer connected nothing is waited for but what is due, and nothing is due.
#[test]
fn a_device_without_a_peer_sleeps() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let (device, threads) = device(71, 72, &clock);
    device.resume_alone().unwrap();
    write_and_rest(&device);
    assert_eq!(device.next_deadline(), None, "{:?}", device.status());
    let woken = sleeps_while_idle(71);
    println!("woken {woken} times in {MEASURED:?}");
    assert!(woken <= 2, "woken {woken} times in {MEASURED:?}");
    threads.stop();
}

/// Fewer than ten a second in all threads of a device: the two that wait for frames cannot be
/// interrupted, and look up now and then.
#[test]
fn a_connected_pair_sleeps() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let (a, threads_a) = device(73, 74, &clock);
    let (b, threads_b) = device(74, 73, &clock);
    let (end_a, end_b) = memory_link(Line::default(), clock);
    a.connect(Arc::new(end_a)).unwrap();
    b.connect(Arc::new(end_b)).unwrap();
    while !a.status().serving {
        std::thread::sleep(Duration::from_millis(1));
    }
    write_and_rest(&a);
    assert_eq!(a.status().backlog_records, 0, "B has everything");
    for number in [73, 74] {
        let woken = sleeps_while_idle(number);
        println!("device {number} woken {woken} times in {MEASURED:?}");
        assert!(woken < 10 * MEASURED.as_secs(), "{number}: woken {woken} times in {MEASURED:?}");
    }
    threads_a.stop();
    threads_b.stop();
}

/// A host leads a commit on a disk that hangs, and others write more than is let wait for one.
#[test]
fn nobody_spins_while_a_host_leads_a_commit() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let hooked = Arc::new(Hooked::default());
    // Nothing is due by time, so that the host leads.
    let settings = Settings { commit_interval_ns: 60_000_000_000, ..Settings::default() };
    let (device, threads) = device_with(hooked.clone(), settings, 75, 76, &clock);
    device.resume_alone().unwrap();
    let session = device.session().unwrap();
    let (at_sync, comes) = mpsc::channel();
    let (go_on, hangs) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        session.write(0, 0, &[1; 4096]).unwrap();
        hooked.when(Call::Sync, FileName::OwnLog, move || {
            at_sync.send(()).unwrap();
            let _ = hangs.recv_timeout(Duration::from_secs(60));
        });
        let leads = scope.spawn(|| session.flush().unwrap());
        comes.recv().unwrap();
        for part in 0..80 {
            session.write(0, part % 16 * 65_536, &[2; 65_536]).unwrap();
        }
        let before = ticks("75-commit");
        std::thread::sleep(MEASURED);
        let ran = ticks("75-commit") - before;
        go_on.send(()).unwrap();
        leads.join().unwrap();
        println!("ran {ran} ticks in {MEASURED:?}");
        assert!(ran < 90, "the commit thread ran {ran} ticks in {MEASURED:?}");
    });
    threads.stop();
}
