//! Hosts as real threads at both devices of a pair, the background's threads running, and takeovers
//! all the while: what every host saw is one history of each sector.
//!
//! The check ([`common::linearizable`]) trusts nothing but what hosts sent, got, and when: no
//! stamps, no clock of the engine. A write that was refused may have happened or not.

mod common;

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::error::Kind;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, memory_link};
use afterimage::internal::storage::Memory;
use afterimage::internal::threads::Threads;
use common::linearizable::{NEVER, Op, What, check, check_by_trying};
use common::random::Random;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SECTOR: usize = 512;
const BLOCK: u64 = 1024;
const SECTORS: u64 = 12;
const HOSTS: u64 = 3;
const TAKEOVERS: usize = 14;

/// The operations of one host: sector and operation.
type History = Vec<(u64, Op)>;

/// How often a host came by what makes the test worth anything.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    writes: u64,
    reads: u64,
    refused: u64,
}

fn host(device: &Arc<Device>, id: u64, began: Instant, stop: &AtomicBool) -> (History, Seen) {
    let mut random = Random::new(id);
    let (mut history, mut seen) = (Vec::new(), Seen::default());
    let now = || began.elapsed().as_nanos() as u64;
    let mut next = 0;
    while !stop.load(Relaxed) {
        let Ok(session) = device.session() else {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        };
        let length = random.within(1..5);
        let first = random.within(0..SECTORS - length + 1);
        let offset = first * SECTOR as u64;
        let mut buf = vec![0xee; length as usize * SECTOR];
        if random.once_in(2) {
            next += 1;
            let value = id << 40 | next;
            buf.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&value.to_le_bytes()));
            let called = now();
            let written = session.write(0, offset, &buf);
            let returned = match written {
                Ok(_) => now(),
                Err(error) => {
                    let kinds = [Kind::Fenced, Kind::NotReady];
                    assert!(kinds.contains(&error.kind()), "{error}");
                    seen.refused += 1;
                    NEVER
                }
            };
            seen.writes += 1;
            let op = Op { called, returned, what: What::Write(value) };
            history.extend((first..first + length).map(|sector| (sector, op)));
        } else {
            let called = now();
            let read = session.read(0, offset, &mut buf);
            let returned = now();
            if let Err(error) = read {
                let kinds = [Kind::Fenced, Kind::NotReady];
                assert!(kinds.contains(&error.kind()), "{error}");
                continue;
            }
            seen.reads += 1;
            for (sector, bytes) in (first..).zip(buf.chunks(SECTOR)) {
                assert!(bytes[8..] == bytes[..SECTOR - 8], "a torn sector: {bytes:?}");
                let value = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                history.push((sector, Op { called, returned, what: What::Read(value) }));
            }
        }
    }
    (history, seen)
}

#[test]
fn hosts_with_threads_see_one_history() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let open = |at: u64| {
        let volumes = vec![VolumeSpec { id: 0, bytes: SECTORS * SECTOR as u64 }];
        let mut geometry = Geometry::new(1, at, volumes);
        geometry.block_size = BLOCK as u32;
        geometry.journal_bytes = (128 * geometry.batch_bytes_max()).next_multiple_of(4096);
        let storage = Arc::new(Memory::new());
        Device::create(&*storage, &geometry, at == 1).unwrap();
        // Small steps, so that everything goes on at once.
        let settings = Settings {
            reflect_records_max: 16,
            reflect_interval_ns: 1_000_000,
            checkpoint_records: 32,
            // Each thread asks by sessions of its own.
            shared_volumes: (0..64).collect(),
            ..Settings::default()
        };
        Device::open(storage, clock.clone(), settings).unwrap()
    };
    let devices = [open(1), open(2)];
    let (a, b) = memory_link(Line::default(), clock.clone());
    let ends = [a.clone(), b.clone()];
    let threads = devices.each_ref().map(|device| Threads::start(device).unwrap());
    devices[0].connect(Arc::new(a)).unwrap();
    devices[1].connect(Arc::new(b)).unwrap();
    let (began, stop) = (Instant::now(), AtomicBool::new(false));
    let mut owed = 0;
    let (mut histories, mut seen) = (Vec::new(), Seen::default());
    std::thread::scope(|scope| {
        let hosts: Vec<_> = (1..=2 * HOSTS)
            .map(|id| {
                let (device, stop) = (&devices[id as usize % 2], &stop);
                scope.spawn(move || host(device, id, began, stop))
            })
            .collect();
        for n in 0..TAKEOVERS {
            // Ships are held back now and then, so that much is pending and read from the peer.
            let held = n % 3 > 0;
            ends.iter().for_each(|end| end.hold(Lane::Data, held));
            std::thread::sleep(Duration::from_millis(20));
            let takeover = devices[(n + 1) % 2].takeover();
            owed += takeover.map_or(0, |takeover| takeover.owed_blocks);
            std::thread::sleep(Duration::from_millis(20));
        }
        ends.iter().for_each(|end| end.hold(Lane::Data, false));
        stop.store(true, Relaxed);
        for host in hosts {
            let (history, its) = host.join().unwrap();
            histories.push(history);
            seen.writes += its.writes;
            seen.reads += its.reads;
            seen.refused += its.refused;
        }
    });
    drop(threads);
    println!("{seen:?}, {owed} blocks owed at takeovers");
    assert!(devices.iter().all(|device| device.status().halted.is_none()));
    assert!(owed > 0 && seen.writes > 100 && seen.reads > 100, "{seen:?}, {owed} owed");
    for sector in 0..SECTORS {
        let of_it = histories.iter().flatten().filter(|(of, _)| *of == sector);
        let history: Vec<Op> = of_it.map(|(_, op)| *op).collect();
        check(&history).unwrap_or_else(|why| panic!("sector {sector}: {why}"));
    }
}

fn op(what: What, called: u64, returned: u64) -> Op {
    Op { called, returned, what }
}

#[test]
fn good_and_bad_histories() {
    use What::{Read as R, Write as W};
    let good: [&[Op]; 6] = [
        &[],
        &[op(R(0), 1, 2), op(W(5), 3, 6), op(R(5), 4, 5), op(R(5), 7, 8)],
        // Concurrent with the write, before it or after it.
        &[op(W(5), 1, 10), op(R(0), 2, 9), op(R(5), 3, 4)],
        &[op(W(5), 1, 9), op(W(6), 2, 8), op(R(6), 10, 11)],
        // A failed write that happened late, and one that did not.
        &[op(W(5), 1, NEVER), op(R(0), 2, 3), op(W(6), 4, 5), op(R(5), 6, 7)],
        &[op(W(5), 1, NEVER), op(R(0), 2, 3)],
    ];
    let bad: [&[Op]; 7] = [
        &[op(R(5), 1, 2)],
        &[op(R(5), 1, 2), op(W(5), 3, 4)],
        // Old data after new.
        &[op(W(5), 1, 2), op(R(0), 3, 4)],
        &[op(W(5), 1, 10), op(R(5), 2, 3), op(R(0), 4, 5)],
        // Two readers disagree on the order.
        &[op(W(5), 1, 2), op(W(6), 3, 4), op(R(6), 5, 6), op(R(5), 7, 8)],
        // A write between two reads of another value is lost.
        &[op(W(5), 1, 2), op(R(5), 3, 4), op(W(6), 5, 6), op(R(5), 7, 8)],
        // A failed write comes and goes.
        &[op(W(5), 1, NEVER), op(R(5), 2, 3), op(R(0), 4, 5)],
    ];
    for history in good {
        assert_eq!((check(history), check_by_trying(history)), (Ok(()), true), "{history:?}");
    }
    for history in bad {
        assert!(check(history).is_err() && !check_by_trying(history), "{history:?}");
    }
}

/// Small random histories: the zones say the same as trying every order.
#[test]
fn zones_agree_with_trying() {
    let mut random = Random::new(3);
    let mut linearizable = 0;
    for _ in 0..20_000 {
        let count = random.within(1..7);
        let mut values = vec![0];
        let history: Vec<Op> = (0..count)
            .map(|n| {
                // Times apart from each other, so that there is an order of any two.
                let called = random.within(1..12) * 64 + 2 * n;
                let returned = called + random.within(0..6) * 64 + 1;
                if random.once_in(2) {
                    values.push(n + 1);
                    let returned = if random.once_in(5) { NEVER } else { returned };
                    op(What::Write(n + 1), called, returned)
                } else {
                    op(What::Read(random.pick(&values)), called, returned)
                }
            })
            .collect();
        let tried = check_by_trying(&history);
        assert_eq!(check(&history).is_ok(), tried, "{history:?}: {:?}", check(&history));
        linearizable += u32::from(tried);
    }
    assert!((2000..18_000).contains(&linearizable), "{linearizable} are one kind");
}
