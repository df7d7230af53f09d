//! The line in memory keeps the link's contract: order in each lane, control before data, rate and
//! delay by the given clock, and nothing lost unnoticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::error::Kind;
use afterimage::internal::link::{Lane, Line, Link, MemoryLink, memory_link};
use proptest::prelude::*;

const MS: u64 = 1_000_000;

/// A clock that moves when told to.
#[derive(Default)]
struct ManualClock(AtomicU64);

impl ManualClock {
    fn set(&self, to: u64) {
        self.0.store(to, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> u64 {
        self.monotonic()
    }

    fn monotonic(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A clock that must not be asked.
struct NoClock;

impl Clock for NoClock {
    fn wall(&self) -> u64 {
        panic!("asked for the time")
    }

    fn monotonic(&self) -> u64 {
        panic!("asked for the time")
    }
}

fn manual(line: Line) -> (Arc<ManualClock>, MemoryLink, MemoryLink) {
    let clock = Arc::new(ManualClock::default());
    let (left, right) = memory_link(line, clock.clone());
    (clock, left, right)
}

fn got(link: &MemoryLink, lane: Lane) -> Option<Vec<u8>> {
    link.receive(lane).unwrap()
}

/// 1 byte a microsecond, so that 1,000 bytes take a millisecond.
const SLOW: Line = Line { rate: Some(1_000_000), delay_ns: 5 * MS };

#[test]
fn without_rate_and_delay_frames_arrive_at_once_and_no_clock_is_asked() {
    let (left, right) = memory_link(Line::default(), Arc::new(NoClock));
    for n in 0..100 {
        left.send(Lane::Data, vec![n]).unwrap();
        right.send(Lane::Control, vec![n, n]).unwrap();
    }
    assert_eq!((left.queued(Lane::Data), left.in_flight(Lane::Data)), (0, 100));
    for n in 0..100 {
        assert!(right.wait(Lane::Data, u64::MAX));
        assert_eq!(got(&right, Lane::Data), Some(vec![n]));
        assert_eq!(got(&left, Lane::Control), Some(vec![n, n]));
    }
    assert_eq!(got(&right, Lane::Data), None);
    assert_eq!(got(&right, Lane::Control), None);
    assert_eq!(left.in_flight(Lane::Data), 0);
}

#[test]
fn rate_and_delay() {
    let (clock, left, right) = manual(SLOW);
    left.send(Lane::Data, vec![1; 1000]).unwrap();
    left.send(Lane::Data, vec![2; 2000]).unwrap();
    assert_eq!(left.queued(Lane::Data), 3000);
    clock.set(MS - 1);
    assert_eq!(left.queued(Lane::Data), 3000);
    clock.set(MS);
    assert_eq!(left.queued(Lane::Data), 2000);
    clock.set(6 * MS - 1);
    assert_eq!(left.queued(Lane::Data), 0);
    assert_eq!(got(&right, Lane::Data), None);
    clock.set(6 * MS);
    assert_eq!(got(&right, Lane::Data).unwrap()[0], 1);
    clock.set(8 * MS - 1);
    assert_eq!(got(&right, Lane::Data), None);
    clock.set(8 * MS);
    assert_eq!(got(&right, Lane::Data).unwrap()[0], 2);
    // Idle time is not saved up.
    clock.set(100 * MS);
    left.send(Lane::Data, vec![3; 1000]).unwrap();
    clock.set(106 * MS - 1);
    assert_eq!(got(&right, Lane::Data), None);
    clock.set(106 * MS);
    assert_eq!(got(&right, Lane::Data).unwrap()[0], 3);
}

#[test]
fn control_overtakes_data_that_has_not_begun_to_leave() {
    let (clock, left, right) = manual(SLOW);
    for n in 1..4 {
        left.send(Lane::Data, vec![n; 1000]).unwrap();
    }
    clock.set(MS / 2);
    left.send(Lane::Control, vec![9; 500]).unwrap();
    // Data 1 leaves by 1 ms, control by 1.5, data 2 by 2.5, data 3 by 3.5; all 5 ms later there.
    for (time, lane, first) in [
        (6 * MS, Lane::Data, 1),
        (6 * MS + MS / 2, Lane::Control, 9),
        (7 * MS + MS / 2, Lane::Data, 2),
        (8 * MS + MS / 2, Lane::Data, 3),
    ] {
        clock.set(time - 1);
        assert_eq!(got(&right, lane), None, "too early at {time}");
        clock.set(time);
        assert_eq!(got(&right, lane).expect("arrived")[0], first);
    }
}

#[test]
fn control_frames_keep_their_order_and_the_other_direction_its_own_line() {
    let (clock, left, right) = manual(SLOW);
    for n in 0..10 {
        left.send(Lane::Control, vec![n; 100]).unwrap();
        right.send(Lane::Control, vec![n; 100]).unwrap();
    }
    clock.set(6 * MS);
    for n in 0..10 {
        assert_eq!(got(&right, Lane::Control).unwrap()[0], n);
        assert_eq!(got(&left, Lane::Control).unwrap()[0], n);
    }
}

#[test]
fn a_cut_loses_what_is_in_flight_and_says_so() {
    let (clock, left, right) = manual(SLOW);
    left.send(Lane::Data, vec![1; 1000]).unwrap();
    left.send(Lane::Data, vec![2; 1000]).unwrap();
    left.hold(Lane::Control, true);
    left.send(Lane::Control, vec![3]).unwrap();
    clock.set(6 * MS);
    right.cut();
    assert_eq!(left.send(Lane::Data, vec![4]).unwrap_err().kind(), Kind::NoPeer);
    assert_eq!(left.receive(Lane::Data).unwrap_err().kind(), Kind::NoPeer);
    assert_eq!((left.queued(Lane::Data), left.in_flight(Lane::Control)), (0, 0));
    // The frames that had arrived are handed over first.
    assert_eq!(got(&right, Lane::Data).unwrap()[0], 1);
    for _ in 0..3 {
        assert_eq!(right.receive(Lane::Data).unwrap_err().kind(), Kind::NoPeer);
    }
    left.hold(Lane::Control, false);
    left.restore();
    left.send(Lane::Data, vec![5]).unwrap();
    left.send(Lane::Control, vec![6]).unwrap();
    clock.set(100 * MS);
    assert_eq!(got(&right, Lane::Data), Some(vec![5]));
    // This lane has not been told yet.
    assert_eq!(right.receive(Lane::Control).unwrap_err().kind(), Kind::NoPeer);
    assert_eq!(got(&right, Lane::Control), Some(vec![6]));
}

#[test]
fn a_cut_that_was_restored_unnoticed_is_still_told_once() {
    let (left, right) = memory_link(Line::default(), Arc::new(NoClock));
    left.send(Lane::Data, vec![1]).unwrap();
    left.cut();
    left.cut();
    left.restore();
    left.send(Lane::Data, vec![2]).unwrap();
    assert_eq!(got(&right, Lane::Data), Some(vec![1]));
    assert!(right.wait(Lane::Data, 0));
    assert_eq!(right.receive(Lane::Data).unwrap_err().kind(), Kind::NoPeer);
    assert_eq!(got(&right, Lane::Data), Some(vec![2]));
}

#[test]
fn held_frames_wait_and_keep_their_order() {
    let (left, right) = memory_link(Line::default(), Arc::new(NoClock));
    left.send(Lane::Data, vec![1]).unwrap();
    left.hold(Lane::Data, true);
    left.send(Lane::Data, vec![2; 10]).unwrap();
    left.send(Lane::Data, vec![3; 20]).unwrap();
    left.send(Lane::Control, vec![9]).unwrap();
    assert_eq!((left.queued(Lane::Data), left.in_flight(Lane::Data)), (30, 3));
    assert_eq!(got(&right, Lane::Data), Some(vec![1]));
    assert_eq!(got(&right, Lane::Data), None);
    assert_eq!(got(&right, Lane::Control), Some(vec![9]));
    left.hold(Lane::Data, false);
    left.send(Lane::Data, vec![4]).unwrap();
    assert_eq!(left.queued(Lane::Data), 0);
    for n in 2..5 {
        assert_eq!(got(&right, Lane::Data).unwrap()[0], n);
    }
}

#[test]
fn waiting_ends_with_the_arrival_the_timeout_or_a_cut() {
    let line = Line { rate: None, delay_ns: 30 * MS };
    let (left, right) = memory_link(line, Arc::new(SystemClock::default()));
    let since = Instant::now();
    assert!(!right.wait(Lane::Data, 20 * MS));
    assert!(since.elapsed() >= Duration::from_millis(20));

    let since = Instant::now();
    left.send(Lane::Data, vec![1]).unwrap();
    assert!(right.wait(Lane::Data, 60_000 * MS));
    assert!(since.elapsed() >= Duration::from_millis(30));
    assert!(since.elapsed() < Duration::from_secs(30));
    assert_eq!(got(&right, Lane::Data), Some(vec![1]));

    // Sent, and cut, while the other end sleeps.
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            assert!(right.wait(Lane::Control, 60_000 * MS));
            assert_eq!(got(&right, Lane::Control), Some(vec![2]));
            assert!(right.wait(Lane::Control, 60_000 * MS));
            assert_eq!(right.receive(Lane::Control).unwrap_err().kind(), Kind::NoPeer);
            // Told: from here on there is nothing to be had, and no spinning either.
            assert!(!right.wait(Lane::Control, 20 * MS));
        });
        std::thread::sleep(Duration::from_millis(20));
        left.send(Lane::Control, vec![2]).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        left.cut();
        waiter.join().unwrap();
    });
}

#[test]
fn waiting_ends_even_if_the_clock_stands_still() {
    let (_clock, left, right) = manual(SLOW);
    left.send(Lane::Data, vec![1; 1000]).unwrap();
    left.send(Lane::Data, vec![2; 1000]).unwrap();
    assert!(!right.wait(Lane::Data, 20 * MS));
    assert!(!right.wait(Lane::Control, 5 * MS));
}

#[test]
fn waiting_for_data_that_control_pushes_back() {
    let line = Line { rate: Some(1_000_000), delay_ns: 0 };
    let (left, right) = memory_link(line, Arc::new(SystemClock::default()));
    std::thread::scope(|scope| {
        let since = Instant::now();
        left.send(Lane::Data, vec![1; 20_000]).unwrap();
        left.send(Lane::Data, vec![2; 20_000]).unwrap();
        left.send(Lane::Control, vec![3; 40_000]).unwrap();
        let waiter = scope.spawn(|| {
            for n in 1..3 {
                assert!(right.wait(Lane::Data, 60_000 * MS));
                assert_eq!(got(&right, Lane::Data).unwrap()[0], n);
            }
        });
        waiter.join().unwrap();
        assert!(since.elapsed() >= Duration::from_millis(80), "{:?}", since.elapsed());
        assert!(got(&right, Lane::Control).is_some());
    });
}

proptest! {
    /// However sending, receiving, holding and time mix, each lane delivers what was sent, once
    /// and in order, and `queued` comes down to nothing.
    #[test]
    fn each_lane_in_order(
        rate in prop_oneof![Just(None), (1u64..2_000_000).prop_map(Some)],
        delay_ns in prop_oneof![Just(0), 0..10 * MS],
        steps in prop::collection::vec((0u8..6, 0usize..3000), 1..200),
    ) {
        let (clock, left, right) = manual(Line { rate, delay_ns });
        let mut sent = [0u32; 2];
        let mut received = [0u32; 2];
        let mut time = 0;
        let receive = |lane: Lane, received: &mut [u32; 2]| {
            while let Some(frame) = got(&right, lane) {
                let number = u32::from_le_bytes(frame[..4].try_into().unwrap());
                assert_eq!(number, received[lane as usize]);
                received[lane as usize] += 1;
            }
        };
        for (step, size) in steps {
            let lane = if size % 2 == 0 { Lane::Data } else { Lane::Control };
            match step {
                0..=2 => {
                    let mut frame = sent[lane as usize].to_le_bytes().to_vec();
                    frame.resize(4 + size, 0);
                    left.send(lane, frame).unwrap();
                    sent[lane as usize] += 1;
                }
                3 => {
                    time += size as u64 * 1000;
                    clock.set(time);
                }
                4 => receive(lane, &mut received),
                _ => left.hold(lane, size % 4 < 2),
            }
            let in_flight = left.in_flight(lane) as u32;
            prop_assert_eq!(in_flight, sent[lane as usize] - received[lane as usize]);
        }
        for lane in [Lane::Data, Lane::Control] {
            left.hold(lane, false);
        }
        for hours in 1..400 {
            clock.set(time + hours * 3_600_000 * MS);
            receive(Lane::Data, &mut received);
            receive(Lane::Control, &mut received);
        }
        prop_assert_eq!(received, sent);
        prop_assert_eq!(left.queued(Lane::Data), 0);
    }
}
