//! The order of writes: what is written on one device appears on the other in the order of its
//! stamps, whatever the clocks of the hosts say and however writes overlap (S01–S03, S12, S29, S31
//! of the acceptance scenarios).

mod common;

use afterimage::internal::limits::{Durability, Settings};
use afterimage::internal::request::Request;
use afterimage::internal::unit::Block;
use common::{A, Action, B, Pair, Spec, Step::*, X, Y};
use std::io::IoSlice;
use std::sync::Barrier;

const HOUR: u64 = 3_600_000_000_000;

#[test]
fn s01_plain_copy() {
    for batched in [true, false] {
        let mut pair = Pair::new();
        pair.allowed[B] = vec![vec![], vec![(X, 1)], vec![(X, 1), (Y, 2)], vec![(X, 3), (Y, 2)]];
        for (block, value) in [(X, 1), (Y, 2), (X, 3)] {
            pair.write(A, block, value);
            if !batched {
                pair.steps(A, &[Commit, Ship]);
                pair.step(B, Receive);
            }
        }
        pair.settle();
        for at in [A, B] {
            assert_eq!(pair.blocks(at), [(X, 3), (Y, 2)]);
        }
        pair.drain();
    }
}

/// A fenced device's history is read as of a stamp, until N has gone beyond it.
#[test]
fn a_read_as_of_a_stamp_shows_nothing_newer() {
    let mut pair = Pair::new();
    let stamps = [(X, 1), (Y, 2), (X, 3)].map(|(block, value)| {
        pair.write(A, block, value);
        pair.steps(A, &[Commit, Ship]);
        pair.step(B, Receive);
        pair.devices[B].status().hi
    });
    let read = |pair: &Pair, cut| {
        let mut buffer = vec![0; 4096];
        let values = [X, Y].map(|number| {
            let block = Block { volume: 0, number };
            pair.devices[B].read_as_of(block, cut, &mut buffer).map(|()| u64::from(buffer[0]))
        });
        values.into_iter().collect::<Result<Vec<_>, _>>()
    };
    let history = [vec![1, 0], vec![1, 2], vec![3, 2]];
    for (cut, values) in stamps.iter().zip(&history) {
        assert_eq!(&read(&pair, *cut).unwrap(), values);
    }
    // The oldest two go to N.
    pair.devices[B].step_reflect_some(2).unwrap();
    let error = read(&pair, stamps[0]).unwrap_err();
    assert!(error.to_string().contains(&format!("records up to {}", stamps[1])), "{error}");
    for (cut, values) in stamps.iter().zip(&history).skip(1) {
        assert_eq!(&read(&pair, *cut).unwrap(), values);
    }
    // After an opening N may have had all of it.
    pair.reopen();
    assert!(read(&pair, stamps[1]).is_err());
    assert_eq!(read(&pair, stamps[2]).unwrap(), history[2]);
}

/// Two writes in flight at once, to one block: threads write to it, their hosts' times against the
/// order of arrival, and what the device returns then is what both normal volumes end with.
#[test]
fn s02_overlap_same_block() {
    let mut pair = Pair::new();
    for round in 0..200u64 {
        let start = Barrier::new(2);
        let write = |value: u64| {
            let session = pair.session(A).unwrap();
            let data = value.to_le_bytes().repeat(512);
            let time = 1_000_000 * (round + 1) - value; // the second has the lower time
            let slices = [IoSlice::new(&data)];
            let request = Request::write(0, X * 4096, &slices).at(time);
            start.wait();
            (session.submit(request).unwrap().wait().unwrap().stamp.unwrap(), value)
        };
        let (one, two) = (2 * round + 1, 2 * round + 2);
        let mut done = std::thread::scope(|s| {
            let other = s.spawn(|| write(two));
            [write(one), other.join().unwrap()]
        });
        done.sort();
        for (stamp, value) in done {
            pair.oracle.wrote(A, stamp, 0, &(0..8), value);
        }
        assert_eq!(pair.read(A, X).0, done[1].1);
        if round % 10 == 0 {
            pair.settle();
            assert_eq!(pair.blocks(A), [(X, done[1].1)]);
            assert_eq!(pair.blocks(B), [(X, done[1].1)]);
            pair.steps(A, &[Checkpoint]);
            pair.steps(B, &[Checkpoint]);
        }
    }
    pair.drain();
}

#[test]
fn s03_host_clock_back() {
    let mut pair = Pair::new();
    let one = pair.write_at(A, X, 1, Some(100));
    let two = pair.write_at(A, X, 2, Some(90));
    assert_eq!(one.time, 100);
    assert!(two > one);
    pair.drain();
    assert_eq!(pair.blocks(B), [(X, 2)]);
}

/// S05 with the second host's clock set differently: the same result.
fn write_over_pending(time_at_a: Option<u64>, time_at_b: Option<u64>) {
    let mut pair = Pair::new();
    pair.hold_ships(true);
    pair.write_at(A, X, 1, time_at_a);
    pair.write_at(A, Y, 2, time_at_a);
    pair.takeover(B).unwrap();
    pair.write_at(B, X, 9, time_at_b);
    assert_eq!(pair.read(B, X), (9, false));
    pair.drain();
    assert_eq!(pair.read(B, X), (9, false));
    for at in [A, B] {
        assert_eq!(pair.blocks(at), [(X, 9), (Y, 2)]);
    }
}

#[test]
fn s12_skew_behind() {
    write_over_pending(Some(100 * HOUR), Some(99 * HOUR));
    write_over_pending(Some(100 * HOUR), Some(0));
}

#[test]
fn s12b_equal_clocks() {
    write_over_pending(Some(1_000_000_000), Some(1_000_000_000));
    // Nor does the device's own clock, where the hosts say nothing.
    write_over_pending(None, None);
}

#[test]
fn garbage_for_a_time_is_ignored() {
    let mut pair = Pair::new();
    pair.clocks[A].set_wall(50);
    assert_eq!(pair.write_at(A, X, 1, Some(u64::MAX)).time, 50);
    assert_eq!(pair.write_at(A, X, 2, Some((1 << 62) + 1)).time, 51);
    assert_eq!(pair.write_at(A, X, 3, Some(1 << 62)).time, 1 << 62);
    assert_eq!(pair.write_at(A, X, 4, Some(7)).time, (1 << 62) + 1);
    pair.drain();
}

/// x pending at A, the host at B, and two writes of halves of x begun there: both wait for the
/// rest of the block from A, so that they are in flight together.
fn two_halves_in_flight(times: [u64; 2]) -> (Pair, [u64; 2]) {
    let mut pair = Pair::new();
    pair.hold_ships(true);
    pair.write(A, X, 5);
    pair.takeover(B).unwrap();
    let mut half = |sectors, value, time| {
        pair.submit_as(B, 0, Action::Write(sectors, value), Some(time), false, true)
    };
    let names = [half(0..4, 1, times[0]), half(4..8, 2, times[1])];
    assert!(names.iter().all(|&name| pair.is_pending(name)));
    pair.steps(A, &[Control, Control]);
    pair.steps(B, &[Control, Control]);
    (pair, names)
}

#[test]
fn s29_two_halves() {
    for times in [[200, 100], [100, 200], [100, 100]] {
        for order in [[0, 1], [1, 0]] {
            let (mut pair, names) = two_halves_in_flight(times);
            for k in order {
                assert!(pair.poll(names[k]), "inserted, or read again and inserted");
                pair.outcome(names[k]).unwrap().unwrap();
            }
            pair.drain();
            for at in [A, B] {
                assert_eq!(pair.image(at)[..8], [1, 1, 1, 1, 2, 2, 2, 2]);
            }
        }
    }
}

/// The same by threads, where nothing is remote.
#[test]
fn s29_two_halves_by_threads() {
    let mut pair = Pair::new();
    for round in 1..200u64 {
        let start = Barrier::new(2);
        let write = |half: u64| {
            let session = pair.session(A).unwrap();
            let data = round.to_le_bytes().repeat(256);
            let slices = [IoSlice::new(&data)];
            let time = 1000 * round - half;
            let request = Request::write(0, half * 2048, &slices).at(time);
            start.wait();
            (session.submit(request).unwrap().wait().unwrap().stamp.unwrap(), half)
        };
        let mut done = std::thread::scope(|s| {
            let other = s.spawn(|| write(1));
            [write(0), other.join().unwrap()]
        });
        done.sort();
        for (stamp, half) in done {
            pair.oracle.wrote(A, stamp, 0, &(4 * half..4 * half + 4), round);
        }
        assert_eq!(pair.read(A, X).0, round, "both halves are there");
        if round % 10 == 0 {
            pair.settle();
            pair.steps(A, &[Checkpoint]);
            pair.steps(B, &[Checkpoint]);
        }
    }
    pair.drain();
}

/// A read shows a write that has not completed; whatever is written after that read is newer than
/// what it showed. With strict durability a write that is published completes only with a commit.
/// (The engine seals a write when it is published, so it holds without the read, too; a read seals
/// again for the moment between the two, which no test from outside can stop at.)
#[test]
fn s31_read_seals() {
    let settings = Settings { durability: Durability::Strict, ..Settings::default() };
    let mut pair = Pair::with(Spec { settings, ..Spec::default() });
    let session = pair.session(A).unwrap();
    let submit = |block: u64, value: u64, time: u64| {
        let data = value.to_le_bytes().repeat(512);
        let slices = [IoSlice::new(&data)];
        session.submit(Request::write(0, block * 4096, &slices).at(time)).unwrap()
    };
    let mut x = submit(X, 1, 105);
    assert!(x.poll().is_none(), "published, not completed");
    let mut data = [0; 4096];
    session.read(0, X * 4096, &mut data).unwrap();
    assert_eq!(data[0], 1);
    let mut y = submit(Y, 2, 90);
    assert!(y.poll().is_none());
    // The takeover comes between; it makes both durable.
    pair.devices[B].begin_takeover().unwrap();
    pair.devices[A].step_control().unwrap();
    let stamps = [&mut x, &mut y].map(|t| t.poll().unwrap().unwrap().stamp.unwrap());
    assert_eq!(stamps.map(|s| s.time), [105, 106], "y comes after what was seen before it");
    pair.oracle.wrote(A, stamps[0], 0, &(0..8), 1);
    pair.oracle.wrote(A, stamps[1], 0, &(8..16), 2);
    pair.allowed[B] = vec![vec![], vec![(X, 1)], vec![(X, 1), (Y, 2)]];
    pair.drain();
    assert!(pair.devices[B].status().serving);
}
