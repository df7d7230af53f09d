//! Takeovers: the host moves while data is still on its way, in one direction or in both, and
//! nobody ever sees an old value, at either device (S04–S11, S13, S14, S26, S30 of the acceptance
//! scenarios).

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::format::frame::Frame;
use afterimage::internal::limits::Settings;
use afterimage::internal::link::Lane;
use afterimage::internal::table::location::Location;
use afterimage::internal::unit::{Block, Stamp};
use common::{A, Action, B, Pair, Spec, Step::*, X, Y, Z};

/// Ships held; A x=1, y=2; the host moves to B.
fn pending_at_a() -> Pair {
    let mut pair = Pair::new();
    pair.hold_ships(true);
    pair.write(A, X, 1);
    pair.write(A, Y, 2);
    let takeover = pair.takeover(B).unwrap();
    assert_eq!(takeover.owed_blocks, 2);
    pair
}

fn location(pair: &Pair, at: usize, block: u64) -> Location {
    pair.devices[at].location(Block { volume: 0, number: block })
}

#[test]
fn s04_takeover_pending() {
    let mut pair = pending_at_a();
    let status = pair.devices[B].status();
    assert!(status.serving && status.hi == Stamp::ZERO, "ready, and no data has arrived");
    assert_eq!(pair.read(B, X), (1, true));
    assert_eq!(pair.read(B, Z), (0, false));
    pair.drain();
    assert_eq!(pair.read(B, X), (1, false));
}

#[test]
fn s05_write_over_pending() {
    let mut pair = pending_at_a();
    pair.write(B, X, 9);
    assert_eq!(pair.read(B, X), (9, false));
    pair.hold_ships(false);
    // One record at a time, reading after each step.
    for _ in 0..20 {
        for at in [A, B] {
            for step in [Commit, Control, Ship, Receive, Reflect] {
                pair.step(at, step);
                assert_eq!(pair.read(B, X), (9, false));
            }
        }
    }
    pair.drain();
    for at in [A, B] {
        assert_eq!(pair.blocks(at), [(X, 9), (Y, 2)]);
    }
}

/// A is gone for ever before x and y have arrived. There is no forced takeover here yet (R11);
/// what it would find is a consistent image, and z=7 kept apart, to be given up and reported.
#[test]
fn s06_order_image() {
    let mut pair = pending_at_a();
    pair.write(B, Z, 7);
    pair.allowed[B] = vec![vec![]];
    for step in [Commit, Control, Ship, Receive, ReflectAll, Checkpoint, ReflectAll] {
        pair.step(B, step);
    }
    assert_eq!(pair.blocks(B), []);
    assert_eq!(pair.devices[B].status().unreflected_records, 1);
    assert_eq!(pair.read(B, Z), (7, false), "served from its entry, not from the volume");
}

#[test]
fn s07_stale_minus2() {
    let mut pair = Pair::new();
    pair.write(A, X, 1);
    pair.steps(A, &[Commit, Ship]);
    // B's request is on its way before the record arrives, and the acknowledgement is behind it.
    pair.devices[B].begin_takeover().unwrap();
    pair.steps(B, &[Receive, Reflect]);
    assert_eq!(pair.blocks(B), [(X, 1)]);
    pair.step(A, Control); // the request: the prototype names x
    assert_eq!(pair.devices[A].status().acked, Stamp::ZERO);
    pair.step(B, Control);
    let takeover = pair.devices[B].poll_takeover().unwrap().unwrap();
    assert_eq!(takeover.owed_blocks, 0, "what has arrived is not owed");
    assert_eq!(location(&pair, B, X), Location::Normal);
    assert_eq!(pair.read(B, X), (1, false));
    pair.step(A, Control); // the acknowledgement
    pair.write(B, X, 2);
    pair.steps(B, &[Commit, Reflect]);
    assert_eq!(pair.blocks(B), [(X, 2)], "nothing in its way to the normal volume");
    pair.drain();
}

#[test]
fn s08_remote_read_race() {
    let mut pair = pending_at_a();
    pair.gates[B].keep(|frame| matches!(frame, Frame::ReadRequest { .. }));
    let read = pair.begin_read(B, X);
    assert_eq!(pair.gates[B].held(), 1);
    // Before A sees the question: the ship of x, its reflection, and the acknowledgement.
    pair.hold_ships(false);
    pair.settle();
    pair.steps(A, &[ReflectAll, Checkpoint]);
    assert_eq!(pair.devices[A].status().backlog_records, 0);
    assert!(pair.is_pending(read));
    pair.gates[B].release();
    pair.settle();
    let outcome = pair.outcome(read).unwrap().unwrap();
    assert_eq!(outcome.values, [1; 8]);
    assert_eq!(outcome.remote_blocks, 0, "not pending there any more: found here");
    pair.drain();
}

#[test]
fn s09_both_pending_read() {
    for not_pending_any_more in [true, false] {
        let mut pair = Pair::new();
        pair.hold_ships(true);
        pair.write(A, X, 1);
        pair.takeover(B).unwrap();
        pair.write(B, X, 2);
        pair.takeover(A).unwrap();
        pair.gates[A].keep(|frame| matches!(frame, Frame::ReadRequest { .. }));
        let read = pair.begin_read(A, X);
        assert!(pair.is_pending(read));
        if not_pending_any_more {
            pair.hold(B, Lane::Data, false);
            pair.settle();
            assert_eq!(pair.devices[B].status().backlog_records, 0);
        }
        pair.gates[A].release();
        pair.settle();
        assert_eq!(pair.outcome(read).unwrap().unwrap().values, [2; 8]);
        pair.drain();
        assert_eq!(pair.blocks(B), [(X, 2)]);
    }
}

/// A has the command in hand, but has not admitted it, when the host moves: a session opened
/// before, a write that waits for the peer, one that waits for a place.
#[test]
fn s10_late_host_write() {
    let mut pair = Pair::new();
    let late = pair.session(A).unwrap();
    pair.takeover(B).unwrap();
    let refused =
        |s: &afterimage::internal::request::Session| s.write(0, 0, &[1; 4096]).unwrap_err().kind();
    assert_eq!(refused(&late), Kind::Fenced);
    pair.write(B, X, 2);
    // Its tenure is over for ever, also when A serves again (R14).
    pair.takeover(A).unwrap();
    assert_eq!(refused(&late), Kind::Fenced);
    let mut buffer = [0; 4096];
    assert_eq!(late.read(0, 0, &mut buffer).unwrap_err().kind(), Kind::Fenced);
    pair.drain();
    for at in [A, B] {
        assert_eq!(pair.blocks(at), [(X, 2)]);
    }
}

#[test]
fn s10_late_waiting_writes_and_reads() {
    let mut pair = pending_at_a();
    let half = pair.submit(B, 0, Action::Write(0..4, 8));
    let read = pair.submit(B, 0, Action::Read(0..8));
    pair.hold(B, Lane::Control, true); // neither question reaches A
    let waiting: Vec<u64> = loop {
        let name = pair.submit(B, 0, Action::Write(16..24, 7));
        if pair.is_pending(name) {
            break vec![half, read, name];
        }
    };
    // A asks for the host back; B's answer is held, but B is fenced at once.
    pair.devices[A].begin_takeover().unwrap();
    pair.step(B, Control);
    for name in waiting {
        assert_eq!(pair.outcome(name).unwrap().unwrap_err().kind(), Kind::Fenced);
    }
    assert_eq!(pair.refused(B, X), Kind::Fenced, "the old device");
    assert_eq!(pair.refused(A, X), Kind::NotReady, "the new one");
    pair.drain();
    pair.devices[A].poll_takeover().unwrap().unwrap();
    assert_eq!(pair.read(A, X), (1, false));
}

/// A whole-block write never looks at the location: its record goes one way, whatever is pending
/// (R8). A partial write does, and pauses here between that and its insertion.
#[test]
fn s11_path_race() {
    let mut pair = pending_at_a();
    let half = pair.submit_as(B, 0, Action::Write(0..4, 9), None, false, true);
    assert!(pair.is_pending(half), "found at A, asked for");
    pair.hold_ships(false);
    pair.settle(); // the last ship, and the answer to the question
    assert!(pair.devices[B].status().hi >= pair.devices[B].status().need);
    assert!(pair.poll(half));
    pair.outcome(half).unwrap().unwrap();
    pair.drain();
    for at in [A, B] {
        assert_eq!(pair.image(at)[..8], [9, 9, 9, 9, 1, 1, 1, 1]);
    }
}

#[test]
fn s11_path_race_whole_block() {
    for before_the_last_ship in [true, false] {
        let mut pair = pending_at_a();
        if before_the_last_ship {
            pair.write(B, X, 9);
        }
        pair.hold_ships(false);
        pair.steps(A, &[Commit, Ship]);
        pair.step(B, Receive);
        if !before_the_last_ship {
            pair.write(B, X, 9);
        }
        pair.drain();
        assert_eq!(pair.blocks(B), [(X, 9), (Y, 2)]);
    }
}

/// A ship of A, which is fenced, says what remained of a block then; by the time it arrives,
/// A has had another tenure and owes something newer.
#[test]
fn s13_repeated_failover() {
    let mut pair = Pair::new();
    pair.hold_ships(true);
    let ship = |pair: &mut Pair| {
        for at in [A, B] {
            pair.steps(at, &[Commit, Ship]);
        }
    };
    pair.write(A, X, 1);
    pair.takeover(B).unwrap();
    ship(&mut pair);
    pair.write(B, X, 2);
    pair.write(B, Y, 2);
    assert_eq!(pair.read(B, X).0, 2);
    ship(&mut pair);
    pair.takeover(A).unwrap();
    ship(&mut pair);
    assert_eq!((pair.read(A, X), pair.read(A, Y)), ((2, true), (2, true)));
    pair.write(A, X, 3);
    pair.takeover(B).unwrap();
    ship(&mut pair);
    pair.write(B, Y, 4);
    pair.write(B, Z, 4);
    assert_eq!([X, Y, Z].map(|b| pair.read(B, b).0), [3, 4, 4]);
    pair.hold_ships(false);
    pair.settle();
    assert!(pair.devices[B].status().connected, "nothing was taken for a mistake of the peer's");
    assert_eq!([X, Y, Z].map(|b| pair.read(B, b)), [(3, false), (4, false), (4, false)]);
    pair.drain();
    for at in [A, B] {
        assert_eq!(pair.blocks(at), [(X, 3), (Y, 4), (Z, 4)]);
    }
}

#[test]
fn s14_proto_newest() {
    // A record a frame.
    let settings = Settings { ship_bytes_max: 1, ..Settings::default() };
    let mut pair = Pair::with(Spec { settings, ..Spec::default() });
    pair.write(A, X, 1);
    pair.write(A, X, 2);
    pair.steps(A, &[Commit, Ship]);
    pair.steps(B, &[Receive, ReflectAll]);
    pair.steps(A, &[Control, ReflectAll, Checkpoint]); // the first entry is free again
    pair.write(A, X, 3);
    pair.step(A, Commit);
    let takeover = pair.takeover(B).unwrap();
    assert_eq!(takeover.owed_blocks, 1);
    assert_eq!(pair.read(B, X), (3, true), "the newest of the block's two entries");
    pair.step(A, Ship);
    pair.step(B, Receive);
    assert_eq!(location(&pair, B, X), Location::Remote, "2 is here, 3 is still there");
    let four = pair.write(B, X, 4);
    pair.step(A, Ship);
    pair.step(B, Receive);
    assert!(matches!(location(&pair, B, X), Location::Own(r) if r.stamp == four));
    pair.drain();
    for at in [A, B] {
        assert_eq!(pair.blocks(at), [(X, 4)]);
    }
}

#[test]
fn s26_failback_without_writes() {
    let mut pair = Pair::new();
    pair.hold_ships(true);
    pair.write(A, X, 1);
    pair.takeover(B).unwrap();
    pair.write(B, Y, 2);
    pair.takeover(A).unwrap();
    pair.drain();
    assert_eq!(pair.devices[B].status().unreflected_records, 0, "though B is fenced");
    assert_eq!(pair.blocks(B), [(X, 1), (Y, 2)]);
}

/// Half of a block is written at B while A owes the block; between the answer to B's question and
/// the insertion, A's ship and then a write of the whole block arrive.
#[test]
fn s30_half_write_of_remote_block() {
    for half in [0..4u64, 4..8] {
        let mut pair = pending_at_a();
        let name = pair.submit_as(B, 0, Action::Write(half.clone(), 5), None, false, true);
        pair.steps(A, &[Control]);
        pair.steps(B, &[Control]); // the answer is here: x=1
        pair.hold(A, Lane::Data, false);
        pair.steps(A, &[Commit, Ship]);
        pair.step(B, Receive);
        pair.write(B, X, 9);
        assert!(pair.poll(name));
        pair.outcome(name).unwrap().unwrap();
        pair.drain();
        for at in [A, B] {
            for sector in 0..8 {
                let expected = if half.contains(&sector) { 5 } else { 9 };
                assert_eq!(pair.image(at)[sector as usize], expected);
            }
        }
    }
}
