//! Takeovers beside the straight way: requests that cross, requests that nobody
//! hears, reads that are under way when the fence falls, a line that is cut at the wrong moment.

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::format::frame::Frame;
use afterimage::internal::limits::Settings;
use afterimage::internal::link::{Lane, Line, memory_link};
use afterimage::internal::storage::{FileName, Memory, Storage};
use common::crash::Cut;
use common::hooked::{Call, Hooked};
use common::world::World;
use common::{A, Action, B, Pair, Spec, Step::*, X, Y};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Both ask at once. The lower device id wins, and the other is told so.
#[test]
fn crossing_requests_have_one_winner_and_the_loser_is_told() {
    let mut pair = Pair::new();
    pair.write(A, X, 1);
    // So that A may ask, too: B asks, is granted, and the answer is on its way.
    pair.devices[B].begin_takeover().unwrap();
    pair.step(A, Control);
    pair.devices[A].begin_takeover().unwrap();
    // B asks again before it sees either; now the two cross.
    pair.devices[B].begin_takeover().unwrap();
    pair.settle();
    assert!(pair.devices[A].poll_takeover().unwrap().is_ok());
    let lost = pair.devices[B].poll_takeover().unwrap().unwrap_err();
    assert_eq!(lost.kind(), Kind::NotReady);
    assert_eq!(pair.refused(B, X), Kind::Fenced);
    pair.write(A, Y, 2);
    pair.drain();
    // It may ask again.
    pair.takeover(B).unwrap();
}

/// A request that could not even be sent is not open: the peer's own is not answered "busy".
#[test]
fn a_request_that_nobody_heard_is_not_open() {
    let mut pair = Pair::new();
    pair.takeover(B).unwrap();
    pair.ends[A].cut();
    assert_eq!(pair.devices[A].begin_takeover().unwrap_err().kind(), Kind::NoPeer);
    assert_eq!(pair.refused(A, X), Kind::Fenced, "not NotReady");
    for at in [A, B] {
        pair.steps(at, &[Control, Control, Receive, Receive]);
    }
    pair.ends[A].restore();
    pair.connect();
    pair.takeover(A).unwrap();
    pair.drain();
}

/// The line is cut with the request, with the answer, or before either is sent on: the request is
/// made again after the reconnect (S18 of the acceptance scenarios).
#[test]
fn s18_link_cut_takeover() {
    for answered in [false, true] {
        let mut pair = Pair::new();
        pair.hold_ships(true);
        pair.write(A, X, 1);
        let lane = if answered { A } else { B };
        pair.hold(lane, Lane::Control, true);
        pair.devices[B].begin_takeover().unwrap();
        pair.step(A, Control);
        assert_eq!(pair.devices[A].status().serving, !answered);
        pair.ends[A].cut();
        for at in [A, B] {
            pair.steps(at, &[Control, Control, Receive, Receive]);
            assert!(!pair.devices[at].status().connected);
        }
        pair.hold(lane, Lane::Control, false);
        pair.ends[A].restore();
        pair.connect();
        pair.settle();
        let takeover = pair.devices[B].poll_takeover().unwrap().unwrap();
        assert_eq!(takeover.owed_blocks, 1);
        assert_eq!(pair.refused(A, X), Kind::Fenced);
        assert_eq!(pair.read(B, X), (1, true));
        pair.drain();
    }
}

/// The line fails between a receipt and its acknowledgement, or when a checkpoint would grant
/// credit: the device goes on, and says the rest at the next hello.
#[test]
fn a_failure_while_acknowledging_is_survived() {
    for at_the_checkpoint in [false, true] {
        let mut pair = Pair::new();
        pair.write(A, X, 1);
        pair.steps(A, &[Commit, Ship]);
        if at_the_checkpoint {
            pair.steps(B, &[Receive, Reflect]);
        }
        pair.gates[B].broken.store(true, SeqCst);
        pair.steps(B, &[Receive, Reflect, Checkpoint]);
        assert!(!pair.devices[B].status().connected);
        assert_eq!(pair.blocks(B), [(X, 1)]);
        pair.gates[B].broken.store(false, SeqCst);
        pair.connect();
        assert_eq!(pair.devices[A].status().backlog_records, 0);
        pair.write(A, X, 2);
        pair.drain();
    }
}

/// A record that arrives again is acknowledged and otherwise ignored (R6), also when newer data has
/// been written over it since. (After a reconnect the hello says what has arrived, and nothing is
/// shipped again; so the line itself repeats it here.)
#[test]
fn a_record_that_arrives_twice_counts_once() {
    let mut pair = Pair::new();
    pair.gates[A].twice.store(true, SeqCst);
    pair.write(A, X, 1);
    pair.write(A, Y, 1);
    pair.steps(A, &[Commit, Ship]);
    pair.step(B, Receive);
    assert_eq!(pair.devices[B].status().unreflected_records, 2);
    pair.drain();
    pair.hold_ships(true);
    pair.write(A, X, 2);
    pair.takeover(B).unwrap();
    pair.steps(A, &[Commit, Ship]);
    pair.write(B, X, 3);
    pair.drain();
    assert_eq!(pair.blocks(A), [(X, 3), (Y, 1)]);
}

/// The line is cut with a record on its way: it is shipped again after the next hello.
#[test]
fn a_cut_line_ships_again() {
    let mut pair = Pair::new();
    pair.write(A, X, 1);
    pair.steps(A, &[Commit, Ship]);
    pair.ends[A].cut();
    for at in [A, B] {
        pair.steps(at, &[Control, Receive, Ship, Checkpoint]);
        assert!(!pair.devices[at].status().connected);
    }
    pair.write(A, Y, 2);
    pair.ends[A].restore();
    pair.connect();
    pair.drain();
}

/// B reads two blocks. While it reads the first from its normal volume, the fence falls; the other
/// block is pending at A, and with the fence B forgets that. It must not return what it has.
#[test]
fn a_read_across_the_fence_never_returns_old_data() {
    let hooked = Arc::new(Hooked::default());
    let storages: [Arc<dyn Storage>; 2] = [Arc::new(Memory::new()), hooked.clone()];
    let mut pair = Pair::with(Spec { storages, ..Spec::default() });
    pair.write(A, X, 7);
    pair.drain();
    pair.hold_ships(true);
    pair.write(A, Y, 1);
    pair.takeover(B).unwrap();
    pair.devices[A].begin_takeover().unwrap();
    let b = pair.devices[B].clone();
    let segment = FileName::Segment { volume: 0, index: 0 };
    hooked.when(Call::Read, segment, move || assert!(b.step_control().unwrap()));
    let read = pair.submit(B, 0, Action::Read(0..16));
    assert!(hooked.has_happened(), "the fence fell meanwhile");
    assert_eq!(pair.outcome(read).unwrap().unwrap_err().kind(), Kind::Fenced);
    pair.drain();
    pair.devices[A].poll_takeover().unwrap().unwrap();
    assert_eq!(pair.read(A, Y), (1, false));
}

/// Nobody answers: the asker is told in time, and its request is closed.
#[test]
fn an_unanswered_request_ends() {
    let settings = Settings { takeover_timeout_ns: 1000, ..Settings::default() };
    let mut pair = Pair::with(Spec { settings, ..Spec::default() });
    pair.hold(B, Lane::Control, true);
    pair.devices[B].begin_takeover().unwrap();
    assert!(pair.devices[B].poll_takeover().is_none());
    pair.clocks[B].pass(1001);
    let error = pair.devices[B].poll_takeover().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    // It arrives after all: A gives the host up, and nobody serves until somebody asks again.
    pair.drain();
    assert_eq!([pair.refused(A, X), pair.refused(B, X)], [Kind::Fenced; 2]);
    pair.takeover(A).unwrap();
    pair.write(A, X, 1);
    pair.drain();
}

/// A device that holds the host and is owed data asks anew at the hello. Its peer is slow, and nobody
/// polls: the answer to a request that has ended is not the last word.
#[test]
fn a_request_that_a_hello_made_is_repeated() {
    let mut pair = Pair::new();
    pair.hold_ships(true);
    pair.write(A, X, 1);
    pair.takeover(B).unwrap();
    pair.reopen_apart();
    pair.gates[A].keep(|frame| matches!(frame, Frame::Prototype { .. }));
    pair.hold_ships(true);
    pair.connect();
    pair.settle();
    pair.clocks[B].pass(pair.spec.settings.takeover_timeout_ns + 1);
    assert_eq!(pair.session(B).unwrap_err().kind(), Kind::NotProven);
    pair.gates[A].release();
    while pair.step(A, Control) || pair.step(B, Control) {}
    assert!(pair.devices[B].status().serving);
    assert_eq!(pair.read(B, X).0, 1);
    pair.drain();
}

/// A second caller's request replaces the first one's and cannot be sent: both are told.
#[test]
fn whoever_waits_for_a_withdrawn_request_is_told() {
    let pair = Pair::new();
    let (tell, told) = mpsc::channel();
    let b = pair.devices[B].clone();
    std::thread::spawn(move || tell.send(b.takeover().unwrap_err().kind()).unwrap());
    while pair.ends[B].in_flight(Lane::Control) == 0 {
        std::thread::yield_now();
    }
    pair.ends[B].cut();
    assert_eq!(pair.devices[B].begin_takeover().unwrap_err().kind(), Kind::NoPeer);
    let kind = told.recv_timeout(Duration::from_secs(60)).expect("it does not wait for ever");
    assert_eq!(kind, Kind::NotReady);
}

/// A device that hears of a newer tenure asks by itself. Its peer dies, nobody polls: the operator
/// can let it go on alone all the same.
#[test]
fn a_request_that_nobody_polls_ends() {
    let mut world = World::new();
    world.crash(A, Cut::Kill);
    world.open(A).unwrap();
    let meet = |world: &World| {
        let line = memory_link(Line::default(), world.clock.clone());
        world.device(A).connect(Arc::new(line.0)).unwrap();
        world.device(B).connect(Arc::new(line.1)).unwrap();
    };
    let time_out = |world: &World| world.clock.pass(Settings::default().takeover_timeout_ns + 1);
    meet(&world);
    // A asks, B grants, the answer is lost.
    world.device(A).begin_takeover().unwrap();
    while world.device(B).step_control().unwrap() {}
    // With the hello comes the version that the request is made in.
    assert!(world.device(A).step_control().unwrap());
    while world.device(B).step_control().unwrap() {}
    time_out(&world);
    world.device(A).resume_alone().unwrap();
    meet(&world);
    assert!(world.device(A).step_control().unwrap());
    assert_eq!(world.device(A).resume_alone().unwrap_err().kind(), Kind::NotReady, "it asks");
    time_out(&world);
    world.device(A).resume_alone().unwrap();
    assert!(world.device(A).status().serving);
}

/// A read that waits for the peer is bounded from its beginning, also if it is asked for again.
#[test]
fn a_reconnect_does_not_prolong_a_remote_read() {
    let mut pair = Pair::new();
    pair.hold_ships(true);
    pair.write(A, X, 1);
    pair.takeover(B).unwrap();
    pair.gates[A].keep(|frame| matches!(frame, Frame::ReadReply { .. }));
    let read = pair.begin_read(B, X);
    let timeout = pair.spec.settings.remote_read_timeout_ns;
    for _ in 0..2 {
        pair.settle();
        assert!(pair.is_pending(read));
        pair.clocks[B].pass(timeout / 2 + 1);
        pair.connect();
    }
    pair.settle();
    assert_eq!(pair.outcome(read).unwrap().unwrap_err().kind(), Kind::Timeout);
    pair.drain();
}
