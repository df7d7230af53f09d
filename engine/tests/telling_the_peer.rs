//! The new active device tells the old one that it serves, and that hosts reach it when its driver
//! says so; what a line loses of that is said over the next.
#![cfg(not(loom))]

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::event::Event;
use common::{A, B, Pair, Step::*, X};
use std::sync::{Arc, Mutex};

/// The events that A tells of its peer.
fn told(pair: &Pair) -> impl Fn() -> Vec<(&'static str, u64)> + use<> {
    let all: Arc<Mutex<Vec<(&'static str, u64)>>> = Arc::default();
    let tell = all.clone();
    pair.devices[A].on_event(move |event| match event {
        Event::PeerServes { epoch } => tell.lock().unwrap().push(("serves", *epoch)),
        Event::PeerReachable { epoch } => tell.lock().unwrap().push(("reachable", *epoch)),
        _ => {}
    });
    move || std::mem::take(&mut all.lock().unwrap())
}

#[test]
fn the_old_device_hears_that_the_new_one_serves_and_is_reached() {
    let mut pair = Pair::new();
    let told = told(&pair);
    pair.write(A, X, 1);
    let epoch = pair.takeover(B).unwrap().epoch;
    pair.steps(A, &[Control]);
    assert_eq!(told(), [("serves", epoch)]);
    pair.devices[B].reachable().unwrap();
    pair.devices[B].reachable().unwrap();
    pair.steps(A, &[Control, Control]);
    assert_eq!(told(), [("reachable", epoch)]);
    assert_eq!(pair.devices[A].reachable().unwrap_err().kind(), Kind::Fenced);
    // Hosts go back and forth: each tenure is told of.
    pair.takeover(A).unwrap();
    let epoch = pair.takeover(B).unwrap().epoch;
    pair.steps(A, &[Control]);
    assert_eq!(told(), [("serves", epoch)], "hosts reach it no more until its driver says so");
}

/// The line is cut before A has heard anything, and A is new at the next one.
#[test]
fn what_a_line_loses_is_said_over_the_next() {
    let mut pair = Pair::new();
    let told = told(&pair);
    pair.write(A, X, 1);
    let epoch = pair.takeover(B).unwrap().epoch;
    told();
    pair.ends[A].cut();
    pair.devices[B].reachable().unwrap();
    for at in [A, B] {
        pair.steps(at, &[Control, Control, Receive]);
    }
    pair.lay_line();
    pair.connect();
    pair.settle();
    let said = told();
    assert_eq!(said.last(), Some(&("reachable", epoch)), "{said:?}");
    assert!(said.len() <= 2);
}
