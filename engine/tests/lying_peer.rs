//! A peer that says what is not so ends no device: what it says is dropped with its connection and
//! counted, or keeps a device from serving that cannot know better, until a hello agrees again.
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::internal::error::Kind;
use afterimage::internal::event::Event;
use afterimage::internal::format::Row;
use afterimage::internal::format::frame::{Frame, Hello, Shipped};
use afterimage::internal::link::{Lane, Line, Link, MemoryLink, memory_link};
use afterimage::internal::unit::{Block, Round, Stamp};
use common::{A, B, ManualClock, Pair, Step::*, X, Y};
use std::sync::{Arc, Mutex};

/// A stamp that the peer never had.
const NEVER: Stamp = Stamp { epoch: 9, time: 1, sequence: 0 };

/// Connects `device` to a line that nobody serves; what it says of itself, and the other end.
fn hello_of(device: &Device) -> (Hello, MemoryLink) {
    let (end, other) = memory_link(Line::default(), Arc::new(ManualClock::default()));
    device.connect(Arc::new(end)).unwrap();
    let bytes = other.receive(Lane::Control).unwrap().unwrap();
    match Frame::decode(&bytes).unwrap() {
        (_, Frame::Hello(hello)) => (hello, other),
        other => panic!("{other:?}"),
    }
}

/// `at` hears the hello of its peer, changed; the other end of the line that it came by, and the
/// peer's nonce.
fn hears(pair: &Pair, at: usize, change: impl Fn(&mut Hello)) -> (MemoryLink, u64) {
    let (mut hello, _) = hello_of(&pair.devices[1 - at]);
    let (_, line) = hello_of(&pair.devices[at]);
    change(&mut hello);
    // A hello whose clock is below what it knows is refused for that alone.
    hello.clk = hello.clk.max(hello.hi).max(hello.newest);
    let nonce = hello.nonce;
    line.send(Lane::Control, Frame::Hello(hello).encode(nonce)).unwrap();
    assert!(pair.devices[at].step_control().unwrap());
    (line, nonce)
}

/// `at` hears its peer's true hello and then a record of a tenure that nobody granted.
fn is_shipped_an_unknown_tenure(pair: &Pair, at: usize) {
    let (line, nonce) = hears(pair, at, |_| ());
    let device = &pair.devices[at];
    assert!(device.status().connected);
    let block = Block { volume: 0, number: Y };
    let (index, count, has_data) = (0, 1, false);
    let row = Row { stamp: NEVER, block, level: 0, checksum: 0, index, count, has_data };
    let record = Shipped { row, remaining: None, total_remaining: false };
    let previous = device.status().hi;
    let granted = if at == A { NEVER.epoch } else { 0 };
    let ship = Frame::Ship {
        round: Round::default(),
        previous,
        granted,
        records: vec![record],
        data: &[],
    };
    line.send(Lane::Data, ship.encode(nonce)).unwrap();
    assert_eq!(device.step_receive().unwrap(), 0);
}

/// `at` hears its peer's true hello and then, unasked, of a record of a tenure that nobody granted, or
/// of a time that nobody reaches.
fn is_told_unasked(pair: &Pair, at: usize, stamp: Stamp) {
    let (line, nonce) = hears(pair, at, |_| ());
    let entries = vec![(Block { volume: 0, number: Y }.into(), stamp)];
    let (grant, previous) = (NEVER.epoch + 1, Stamp::ZERO);
    let piece = Frame::Prototype { nonce: 77, grant, left: 1, is_last: false, previous, entries };
    line.send(Lane::Control, piece.encode(nonce)).unwrap();
    assert!(pair.devices[at].step_control().unwrap());
    assert!(!pair.devices[at].status().connected);
}

/// Had it been believed, the superblock would have come to name a tenure that no opening believes.
#[test]
fn a_record_of_no_tenure_is_not_taken_from_a_piece_that_nobody_asked_for() {
    let mut pair = Pair::new();
    pair.write(A, X, 1);
    pair.settle();
    is_told_unasked(&pair, B, NEVER);
    is_told_unasked(&pair, B, Stamp { epoch: 1, time: u64::MAX, sequence: 0 });
    settles(&mut pair, A);
    pair.takeover(B).unwrap();
    settles(&mut pair, B);
    pair.reopen();
    settles(&mut pair, B);
}

fn settles(pair: &mut Pair, serving: usize) {
    pair.connect();
    pair.settle();
    pair.write(serving, X, 7);
    pair.drain();
}

#[test]
fn a_device_that_serves_drops_and_counts_what_it_knows_to_be_untrue() {
    let mut pair = Pair::new();
    pair.write(A, X, 1);
    pair.settle();
    let device = pair.devices[A].clone();
    type Lie = fn(&Pair);
    let lies: [Lie; 3] = [
        |pair| drop(hears(pair, A, |hello| hello.hi = NEVER)),
        |pair| drop(hears(pair, A, |hello| hello.told = NEVER)),
        |pair| is_shipped_an_unknown_tenure(pair, A),
    ];
    for (count, lie) in (1..).zip(lies) {
        lie(&pair);
        let status = device.status();
        assert!(status.serving && status.halted.is_none() && status.lost.is_none(), "{status:?}");
        assert!(!status.connected);
        assert_eq!(status.untrue, count);
        settles(&mut pair, A);
    }
    // A device that has served and is fenced now knows as well what it granted.
    pair.takeover(B).unwrap();
    drop(hears(&pair, A, |hello| hello.epoch += 1));
    let status = device.status();
    assert!(!status.connected && status.halted.is_none() && status.lost.is_none(), "{status:?}");
    assert_eq!(status.untrue, 4);
    settles(&mut pair, B);
}

#[test]
fn a_device_that_has_not_served_stays_fenced_until_a_hello_agrees() {
    type Lie = fn(&Pair);
    let lies: [Lie; 4] = [
        |pair| drop(hears(pair, B, |hello| hello.hi = NEVER)),
        |pair| drop(hears(pair, B, |hello| hello.told = NEVER)),
        |pair| drop(hears(pair, B, |hello| hello.epoch += 1)),
        |pair| is_shipped_an_unknown_tenure(pair, B),
    ];
    for lie in lies {
        let mut pair = Pair::new();
        pair.write(A, X, 1);
        pair.settle();
        let device = pair.devices[B].clone();
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let tell = told.clone();
        device.on_event(move |event| {
            if let Event::LostRecords(why) = event {
                tell.lock().unwrap().push(why.to_string());
            }
        });
        lie(&pair);
        lie(&pair);
        let status = device.status();
        assert!(!status.connected && !status.serving && status.halted.is_none(), "{status:?}");
        assert_eq!(status.untrue, 0);
        let said = status.lost.expect("it says so").to_string();
        assert!(said.contains("lost durable records and must be resynchronised"), "{said}");
        let agrees = !said.contains("says");
        assert_eq!(told.lock().unwrap().len(), if agrees { 2 } else { 1 }, "once a state: {said}");
        for refused in [device.session().map(drop), device.resume_alone(), device.begin_takeover()]
        {
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), Kind::Damaged);
            assert!(refused.to_string().contains("must be resynchronised"), "{refused}");
        }
        settles(&mut pair, A);
        assert!(device.status().lost.is_none());
        pair.takeover(B).unwrap();
        settles(&mut pair, B);
    }
}

/// A host that is refused, and an operator, see whether the host has moved or is only granted.
#[test]
fn a_grant_that_is_not_taken_can_be_told_from_a_host_that_moved() {
    let mut pair = Pair::new();
    let told: Arc<Mutex<Vec<(u64, bool)>>> = Arc::default();
    let tell = told.clone();
    pair.devices[A].on_event(move |event| {
        if let Event::Fenced { epoch, served } = event {
            tell.lock().unwrap().push((*epoch, *served));
        }
    });
    let a = pair.devices[A].clone();
    assert!(!a.status().awaits_taker);
    // B asks twice and hears no answer.
    pair.hold(A, Lane::Control, true);
    for _ in 0..2 {
        pair.devices[B].begin_takeover().unwrap();
        while a.step_control().unwrap() {}
        assert!(a.status().awaits_taker);
    }
    let fences = told.lock().unwrap().clone();
    assert_eq!(fences.iter().map(|fence| fence.1).collect::<Vec<_>>(), [true], "one fence a grant");
    pair.hold(A, Lane::Control, false);
    pair.takeover(B).unwrap();
    pair.write(B, X, 1);
    pair.settle();
    assert!(!a.status().awaits_taker, "B has been heard to serve");
    pair.steps(A, &[Control]);
}
