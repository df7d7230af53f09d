//! A device that ends a connection ends its link: the peer learns it at its next receipt, and not by
//! waiting for somebody who is gone.
#![cfg(not(loom))]

mod common;

use afterimage::internal::error::{Error, Kind};
use afterimage::internal::event::Event;
use afterimage::internal::format::frame::FRAME_BYTES_MAX;
use afterimage::internal::link::{Lane, Line, Link, memory_link};
use afterimage::internal::storage::FileName;
use afterimage::internal::threads::Threads;
use common::crash::CrashDisk;
use common::{A, B, Pair, Spec, Step::*, X};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

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
        (
            vec![0; FRAME_BYTES_MAX + 1],
            "a frame has 2097153 bytes, more than the 2097152 that one may have",
        ),
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

/// Threads that are stopped do not wait for a frame to its time-out: the stop ends the link. This one
/// waits for a minute, whatever it is told.
#[test]
fn stopped_threads_wait_for_no_frame() {
    #[derive(Default)]
    struct Slow {
        is_closed: Mutex<bool>,
        changed: Condvar,
        waits: Mutex<u32>,
    }
    const MINUTE: Duration = Duration::from_secs(60);
    impl Link for Slow {
        fn send(&self, _: Lane, _: Vec<u8>) -> Result<(), Error> {
            Ok(())
        }
        fn receive(&self, _: Lane) -> Result<Option<Vec<u8>>, Error> {
            match *self.is_closed.lock().unwrap() {
                true => Err(Error::new(Kind::NoPeer, "closed")),
                false => Ok(None),
            }
        }
        fn queued(&self, _: Lane) -> u64 {
            0
        }
        fn wait(&self, _: Lane, _: u64) -> bool {
            *self.waits.lock().unwrap() += 1;
            let closed = self.is_closed.lock().unwrap();
            *self.changed.wait_timeout_while(closed, MINUTE, |closed| !*closed).unwrap().0
        }
        fn close(&self) {
            *self.is_closed.lock().unwrap() = true;
            self.changed.notify_all();
        }
    }
    let pair = Pair::new();
    let link = Arc::new(Slow::default());
    pair.devices[A].connect(link.clone()).unwrap();
    let threads = Threads::start(&pair.devices[A]).unwrap();
    let began = Instant::now();
    while *link.waits.lock().unwrap() == 0 {
        assert!(began.elapsed() < MINUTE, "nobody waits for a frame");
        std::thread::yield_now();
    }
    threads.stop();
    assert!(began.elapsed() < MINUTE, "the stop has waited for a frame");
}
