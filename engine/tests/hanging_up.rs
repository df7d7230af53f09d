//! A device that ends a connection ends its link: the peer learns it at its next receipt, and not by
//! waiting for somebody who is gone.
#![cfg(not(loom))]

mod common;

use afterimage::internal::error::{Error, Kind};
use afterimage::internal::event::Event;
use afterimage::internal::format::frame::FRAME_BYTES_MAX;
use afterimage::internal::link::{Lane, Line, Link, memory_link};
use afterimage::internal::storage::FileName;
use common::crash::CrashDisk;
use common::{A, B, Pair, Spec, Step::*, X};
use std::sync::{Arc, Mutex};

/// A pair whose A has just stopped in some way; B looks at each lane alone.
fn learns_at_once(mut pair: Pair, lane: Lane) {
    let step = if lane == Lane::Control { Control } else { Receive };
    assert!(pair.devices[B].status().connected, "it has not looked yet");
    pair.step(B, step);
    assert!(!pair.devices[B].status().connected, "it has looked at {lane:?}");
    assert!(!pair.devices[A].status().connected);
}

#[test]
fn a_halted_devices_peer_learns_it_at_once() {
    for lane in [Lane::Control, Lane::Data] {
        let disk = CrashDisk::new();
        let mut spec = Spec::default();
        spec.storages[A] = disk.clone();
        let mut pair = Pair::with(spec);
        pair.write(A, X, 1);
        disk.fail_sync_of(FileName::OwnLog);
        assert_eq!(pair.devices[A].step_commit().unwrap_err().kind(), Kind::Halted);
        learns_at_once(pair, lane);
    }
}

#[test]
fn a_closed_devices_peer_learns_it_at_once() {
    for lane in [Lane::Control, Lane::Data] {
        let pair = Pair::new();
        pair.devices[A].close().unwrap();
        learns_at_once(pair, lane);
    }
}

#[test]
fn a_peer_that_is_not_understood_learns_it_at_once() {
    for (frame, told) in [
        (vec![7; 99], "a frame: expected magic"),
        (vec![0; FRAME_BYTES_MAX + 1], "a frame of 2097153 bytes: at most 2097152 go"),
    ] {
        let mut pair = Pair::new();
        let why: Arc<Mutex<String>> = Arc::default();
        let told_to = why.clone();
        pair.devices[A].on_event(move |event| {
            if let Event::Disconnected { why, .. } = event {
                *told_to.lock().unwrap() = why.to_string();
            }
        });
        pair.ends[B].send(Lane::Control, frame).unwrap();
        pair.step(A, Control);
        assert!(why.lock().unwrap().contains(told), "{why:?}");
        learns_at_once(pair, Lane::Data);
    }
}

/// The old line is ended, and the new one, over which the same peer may have said hello already, is
/// not.
#[test]
fn a_line_that_is_given_up_for_a_new_one_is_ended() {
    let pair = Pair::new();
    let (end_a, end_b) = memory_link(Line::default(), pair.clocks[A].clone());
    let [old, new] = [pair.gates[B].clone(), Arc::new(common::gate::Gate::new(end_b))];
    pair.devices[A].connect(Arc::new(end_a)).unwrap();
    let down =
        |link: &dyn Link| link.receive(Lane::Data).is_err_and(|e: Error| e.kind() == Kind::NoPeer);
    assert!(down(&*old) && !down(&*new));
}
