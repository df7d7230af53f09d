//! The normal volumes of a running pair, compared by checksums while hosts go on.
#![cfg(not(loom))]

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::link::Lane;
use afterimage::internal::storage::FileName;
use afterimage::{Compare, CompareLimits, CompareReport, Comparison, Event, Threads};
use common::{A, B, Pair, Spec, Step, Step::*, X, Y, Z};
use std::io::IoSlice;
use std::sync::{Arc, Mutex};

const BLOCKS: u64 = 16;
const SECOND: u64 = 1_000_000_000;

fn begin(pair: &Pair, at: usize) -> Comparison {
    pair.devices[at].begin_compare(CompareLimits::default()).unwrap()
}

/// Steps of the comparison and of both control lanes until it waits for time, or is over.
fn go_on(pair: &mut Pair, comparison: &Comparison) -> Option<CompareReport> {
    for _ in 0..1000 {
        if let Compare::Done(report) = comparison.step().unwrap() {
            return Some(report);
        }
        [A, B].into_iter().for_each(|at| {
            pair.step(at, Control);
        });
    }
    None
}

/// To its end, with time passing.
fn finish(pair: &mut Pair, comparison: &Comparison) -> CompareReport {
    for _ in 0..100 {
        if let Some(report) = go_on(pair, comparison) {
            return report;
        }
        pair.clocks.iter().for_each(|clock| clock.pass(SECOND));
    }
    panic!("the comparison has no end");
}

fn compare(pair: &mut Pair, at: usize) -> CompareReport {
    let comparison = begin(pair, at);
    finish(pair, &comparison)
}

/// Equal, different, undecided and skipped blocks.
fn classes(report: &CompareReport) -> [u64; 4] {
    let CompareReport { equal, different, undecided, skipped, waiting, .. } = *report;
    assert_eq!(waiting, 0);
    assert_eq!(equal + different + undecided + skipped + report.unreadable, report.blocks);
    [equal, different, undecided, skipped]
}

/// A sector of block `block` in N of a device changes.
fn damage(pair: &Pair, at: usize, block: u64) {
    let file = FileName::Segment { volume: 0, index: 0 };
    let storage = &pair.spec.storages[at];
    storage.write(file, block * 4096, &[IoSlice::new(&[0x5a; 512])]).unwrap();
}

/// Both devices hold the three blocks, and nothing else.
fn settled() -> Pair {
    let mut pair = Pair::new();
    [X, Y, Z].into_iter().zip(1..).for_each(|(block, value)| {
        pair.write(A, block, value);
    });
    pair.settle();
    pair
}

#[test]
fn a_healthy_pair_is_equal() {
    let mut pair = settled();
    for at in [A, B] {
        assert_eq!(classes(&compare(&mut pair, at)), [BLOCKS, 0, 0, 0]);
    }
    // The records are freed now: nothing but N has the blocks.
    pair.drain();
    for at in [A, B] {
        assert_eq!(classes(&compare(&mut pair, at)), [BLOCKS, 0, 0, 0]);
    }
}

#[test]
fn what_was_never_written_is_skipped() {
    let mut pair = Pair::with(Spec { volumes: vec![16 * 8, 400 * 8], ..Spec::default() });
    pair.write(A, X, 1);
    pair.drain();
    let report = compare(&mut pair, B);
    assert_eq!(classes(&report), [BLOCKS, 0, 0, 400]);
    assert_eq!(report.read_bytes, BLOCKS * 4096);
}

/// Damage is told of at once, listed, and changes nothing.
#[test]
fn damage_in_either_volume_is_found() {
    for (at, harmed) in [(A, A), (A, B), (B, A), (B, B)] {
        let mut pair = settled();
        let told = Arc::new(Mutex::new(Vec::new()));
        let into = told.clone();
        pair.devices[at].on_event(move |event| match event {
            Event::Differs(range) => into.lock().unwrap().push((range.offset, range.bytes)),
            Event::Compared(report) => into.lock().unwrap().push((report.different, 0)),
            _ => {}
        });
        [1, 2, 9].into_iter().for_each(|block| damage(&pair, harmed, block));
        let report = compare(&mut pair, at);
        assert_eq!(classes(&report), [BLOCKS - 3, 3, 0, 0]);
        let ranges: Vec<_> = report.ranges.iter().map(|r| (r.offset, r.bytes)).collect();
        assert_eq!(ranges, [(4096, 8192), (9 * 4096, 4096)]);
        assert_eq!(*told.lock().unwrap(), [(4096, 4096), (3, 0)]);
        assert!(pair.devices.iter().all(|d| d.status().halted.is_none() && d.status().connected));
        assert_eq!(pair.devices[at].status().comparison, None);
    }
}

/// Wherever a record is on its way, its block is neither equal nor different, though what N has of
/// it differs.
#[test]
fn a_block_on_its_way_is_not_compared() {
    let ways: [(&str, &[(usize, Step)]); 5] = [
        ("not committed", &[]),
        ("not shipped", &[(A, Commit), (A, ReflectAll)]),
        ("not received", &[(A, Commit), (A, Ship), (A, ReflectAll)]),
        (
            "acknowledged and not reflected at B",
            &[(A, Commit), (A, Ship), (A, ReflectAll), (B, Receive), (A, Control)],
        ),
        (
            "acknowledged and not reflected at A",
            &[(A, Commit), (A, Ship), (B, Receive), (A, Control), (B, ReflectAll)],
        ),
    ];
    for (way, steps) in ways {
        for at in [A, B] {
            let mut pair = settled();
            pair.write(A, Y, 7);
            steps.iter().for_each(|&(at, step)| {
                pair.step(at, step);
            });
            let report = compare(&mut pair, at);
            assert_eq!(classes(&report), [BLOCKS - 1, 0, 1, 0], "{way}, at {at}");
            let comparison = begin(&pair, at);
            assert_eq!(go_on(&mut pair, &comparison), None);
            assert_eq!(pair.devices[at].status().comparison.unwrap().waiting, 1);
            pair.settle();
            assert_eq!(classes(&finish(&mut pair, &comparison)), [BLOCKS, 0, 0, 0], "{way}");
        }
    }
}

/// A write comes, and goes all its way, between the two readings.
#[test]
fn a_block_written_between_the_two_readings_is_looked_at_again() {
    for (at, frees) in [(A, false), (A, true), (B, false), (B, true)] {
        let mut pair = settled();
        pair.drain();
        let comparison = begin(&pair, at);
        // It has read its own.
        assert_eq!(comparison.step().unwrap(), Compare::Goes);
        pair.hold(at, Lane::Control, true);
        pair.write(A, Y, 7);
        pair.steps(A, &[Commit, Ship]);
        pair.steps(B, &[Receive, ReflectAll]);
        if at == B {
            pair.steps(A, &[Control, ReflectAll]);
            pair.hold(at, Lane::Control, false);
        } else {
            pair.hold(at, Lane::Control, false);
            pair.steps(A, &[Control, ReflectAll]);
        }
        if frees {
            [A, B].into_iter().for_each(|at| {
                pair.step(at, Checkpoint);
            });
        }
        let found = go_on(&mut pair, &comparison);
        let now = pair.devices[at].status().comparison.or(found).unwrap();
        assert_eq!(now.different, 0, "{at}, {frees}: {now:?}");
        pair.settle();
        assert_eq!(classes(&finish(&mut pair, &comparison)), [BLOCKS, 0, 0, 0]);
    }
}

/// The host moves in the middle, and nothing else happens to the comparison.
#[test]
fn a_comparison_goes_on_through_a_takeover() {
    let mut pair = settled();
    let comparison = begin(&pair, A);
    comparison.step().unwrap();
    pair.hold_ships(true);
    pair.write(A, X, 7);
    pair.steps(A, &[Commit, ReflectAll]);
    assert_eq!(pair.takeover(B).unwrap().owed_blocks, 1);
    pair.write(B, Y, 8);
    pair.steps(B, &[Commit, ReflectAll]);
    assert_eq!(go_on(&mut pair, &comparison), None);
    let now = pair.devices[A].status().comparison.unwrap();
    assert_eq!((now.equal, now.different, now.waiting), (BLOCKS - 2, 0, 2));
    pair.hold_ships(false);
    pair.settle();
    assert_eq!(classes(&finish(&mut pair, &comparison)), [BLOCKS, 0, 0, 0]);
}

/// The question is lost with the connection, and asked once more over the next.
#[test]
fn a_comparison_goes_on_after_a_reconnection() {
    let mut pair = settled();
    let comparison = begin(&pair, B);
    comparison.step().unwrap();
    pair.lay_line();
    pair.connect();
    assert_eq!(classes(&finish(&mut pair, &comparison)), [BLOCKS, 0, 0, 0]);
}

#[test]
fn a_comparison_keeps_to_its_rate_which_may_change() {
    let mut pair = Pair::with(Spec { volumes: vec![16 * 8; 4], ..Spec::default() });
    (0..4).for_each(|volume| {
        let host = pair.session(A).unwrap();
        host.write(volume, 0, &[7; 4096]).unwrap();
    });
    // They are of several volumes, which the oracle is not told of.
    pair.devices[A].step_commit().unwrap();
    for at in [A, B, A, B] {
        let device = &pair.devices[at];
        while device.step_control().unwrap() {}
        device.step_ship().unwrap();
        device.step_receive().unwrap();
        device.step_reflect().unwrap();
    }
    let limits = CompareLimits { bytes_per_second: 16 * 4096, ..CompareLimits::default() };
    let comparison = pair.devices[A].begin_compare(limits).unwrap();
    for volumes in 1..=2 {
        assert_eq!(go_on(&mut pair, &comparison), None);
        let now = pair.devices[A].status().comparison.unwrap();
        assert_eq!((now.equal, now.read_bytes), (volumes * BLOCKS, volumes * BLOCKS * 4096));
        pair.clocks[A].pass(SECOND);
    }
    comparison.limit(u64::MAX);
    assert_eq!(go_on(&mut pair, &comparison).unwrap().equal, 4 * BLOCKS);
}

#[test]
fn a_comparison_is_refused_that_cannot_be_made() {
    let pair = settled();
    let kind = |limits| pair.devices[A].begin_compare(limits).map(drop).unwrap_err().kind();
    let range =
        |volume, range| CompareLimits { range: Some((volume, range)), ..Default::default() };
    assert_eq!(kind(range(1, 0..512)), Kind::Invalid);
    assert_eq!(kind(range(0, 0..17 * 4096)), Kind::Invalid);
    assert_eq!(kind(range(0, 512..512)), Kind::Invalid);
    assert_eq!(kind(CompareLimits { looks: 0, ..Default::default() }), Kind::Config);
    assert_eq!(kind(CompareLimits { bytes_per_second: 0, ..Default::default() }), Kind::Config);
    let first = begin(&pair, A);
    assert_eq!(kind(CompareLimits::default()), Kind::Invalid, "one is under way");
    drop(first);
    drop(begin(&pair, A));
    pair.devices[B].close().unwrap();
    let _ = pair.devices[A].step_receive();
    assert_eq!(kind(CompareLimits::default()), Kind::NoPeer);
    pair.devices[A].close().unwrap();
    assert_eq!(kind(CompareLimits::default()), Kind::Halted);
}

/// A range is taken with the blocks that it begins and ends in.
#[test]
fn a_range_is_compared_alone() {
    let mut pair = settled();
    damage(&pair, B, 1);
    for (range, classes_of) in [(5000..5001, [0, 1, 0, 0]), (8192..20_000, [3, 0, 0, 0])] {
        let limits = CompareLimits { range: Some((0, range)), ..CompareLimits::default() };
        let comparison = pair.devices[A].begin_compare(limits).unwrap();
        assert_eq!(classes(&finish(&mut pair, &comparison)), classes_of);
    }
}

/// With the usual threads, while a host writes.
#[test]
fn threads_compare_while_a_host_writes() {
    use afterimage::internal::clock::SystemClock;
    use afterimage::{Device, Geometry, Line, Memory, Settings, VolumeSpec, memory_link};
    let clock: Arc<SystemClock> = Arc::default();
    let [a, b] = [1, 2].map(|id| {
        let storage = Arc::new(Memory::new());
        let volumes = vec![VolumeSpec { id: 0, bytes: 8 << 20 }];
        let mut geometry = Geometry::new(7, id, volumes);
        geometry.journal_bytes = 64 << 20;
        Device::create(&*storage, &geometry, id == 1).unwrap();
        let settings = Settings { reflect_interval_ns: 1_000_000, ..Settings::default() };
        Device::open(storage, clock.clone(), settings).unwrap()
    });
    let _threads = [&a, &b].map(|device| Threads::start(device).unwrap());
    let (end_a, end_b) = memory_link(Line::default(), clock);
    a.connect(Arc::new(end_a)).unwrap();
    b.connect(Arc::new(end_b)).unwrap();
    while !(a.status().connected && b.status().connected) {
        std::thread::yield_now();
    }
    let host = a.session().unwrap();
    host.write(0, 0, &vec![1; 1 << 20]).unwrap();
    let writes = || {
        (0..2000_u64).for_each(|k| {
            host.write(0, k % 300 * 4096, &[k as u8; 4096]).unwrap();
        })
    };
    let limits = CompareLimits { again_after_ns: 20_000_000, looks: 1000, ..Default::default() };
    let reports = std::thread::scope(|scope| {
        scope.spawn(writes);
        let runs = [&a, &b].map(|device| {
            let comparison = device.begin_compare(limits.clone()).unwrap();
            scope.spawn(move || comparison.run().unwrap())
        });
        runs.map(|run| run.join().unwrap())
    });
    for report in reports {
        let [equal, different, undecided, skipped] = classes(&report);
        assert_eq!((equal + skipped, different, undecided), (2048, 0, 0), "{report:?}");
        assert!(equal >= 300, "{report:?}");
    }
}
