//! Faults that the simulator found, each made small: a run of its own never comes by the same way
//! twice.
#![cfg(not(loom))]

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::event::Event;
use afterimage::internal::limits::Settings;
use afterimage::internal::link::{Line, memory_link};
use afterimage::internal::request::Request;
use afterimage::internal::storage::FileName;
use common::crash::{Cut, damage};
use common::world::Act::{Flush, Write};
use common::world::World;
use common::{A, Action, B, ManualClock, Pair, Spec, Step::*, X};
use std::io::IoSlice;
use std::sync::{Arc, Mutex};

/// As soon as it has heard the peer's hello a device ships, and data may arrive before its own
/// hello does. The receiver dropped it as an unknown connection's, missed it, and gave the
/// connection up; and so on for ever where the data lane is the faster one.
#[test]
fn records_that_come_before_the_hello_wait_for_it() {
    let mut pair = Pair::new();
    pair.write(A, X, 1);
    pair.step(A, Commit);
    let (end_a, end_b) = memory_link(Line::default(), pair.clocks[A].clone());
    pair.devices[A].connect(Arc::new(end_a)).unwrap();
    pair.devices[B].connect(Arc::new(end_b)).unwrap();
    pair.steps(A, &[Control, Ship]);
    assert!(!pair.step(B, Receive), "B has not heard who ships");
    pair.write(A, X, 2);
    pair.steps(A, &[Commit, Ship]);
    pair.step(B, Control);
    assert!(pair.step(B, Receive));
    assert!(pair.devices.iter().all(|device| device.status().connected));
    assert_eq!(
        pair.devices[B].status().hi,
        pair.devices[A].status().hi.max(pair.oracle.records[1].stamp)
    );
    pair.drain();
}

/// A refused peer never became one, so nobody was told why there was no connection.
#[test]
fn a_refused_hello_is_told_of() {
    let spec = |block_size| Spec { block_size, ..Spec::default() };
    let pair = Pair::with(spec(4096));
    let other = Pair::with(spec(512));
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    pair.devices[A].on_event(move |event| {
        if let Event::Disconnected { why, .. } = event
            && why.kind() == Kind::Protocol
        {
            tell.lock().unwrap().push(why.to_string());
        }
    });
    let (end_a, end_b) = memory_link(Line::default(), Arc::new(ManualClock::default()));
    pair.devices[A].connect(Arc::new(end_a)).unwrap();
    other.devices[B].connect(Arc::new(end_b)).unwrap();
    assert!(pair.devices[A].step_control().unwrap());
    let told = told.lock().unwrap();
    assert!(
        told.len() == 1 && told[0].contains("block size is 4096 here and 512 there"),
        "{told:?}"
    );
}

/// At the opening the queue had taken in all records, and the ring only the first batch, when the
/// room was reckoned: hosts were let in far beyond it, and a batch was placed over a live one.
#[test]
fn a_reopened_journal_is_as_full_as_it_was() {
    let mut pair = Pair::with(Spec { block_size: 512, volumes: vec![64], ..Spec::default() });
    pair.hold_ships(true);
    for value in 1..9 {
        pair.write(A, X, value);
        pair.step(A, Commit);
    }
    for at in [A, B] {
        pair.devices[at].close().unwrap();
    }
    let free = |pair: &Pair| pair.devices[A].status().own_free_places;
    let before = free(&pair);
    let open = |pair: &mut Pair, at: usize| {
        let (disk, clock) = (pair.spec.storages[at].clone(), pair.clocks[at].clone());
        let settings = Settings { shared_volumes: (0..64).collect(), ..pair.spec.settings.clone() };
        pair.devices[at] = afterimage::Device::open(disk, clock, settings).unwrap();
    };
    [A, B].into_iter().for_each(|at| open(&mut pair, at));
    assert!(free(&pair) <= before, "{} places, {before} before", free(&pair));
    pair.connect();
    for n in 0..64 {
        pair.submit(A, 0, Action::Write(n..n + 1, 100 + n));
    }
    pair.step(A, Commit);
    pair.hold_ships(false);
    pair.drain();
}

/// A device that had been asked to wait while it served was let go on alone; the last stamps were
/// not in the tables yet, and what came next was older than what had been completed.
#[test]
fn who_goes_on_alone_does_not_fall_behind_its_own_stamps() {
    let mut world = World::new();
    world.crash(A, Cut::Kill);
    world.open(A).unwrap();
    // A asks, B grants, the answer is lost.
    let line = memory_link(Line::default(), world.clock.clone());
    world.device(A).connect(Arc::new(line.0)).unwrap();
    world.device(B).connect(Arc::new(line.1)).unwrap();
    world.device(A).begin_takeover().unwrap();
    while world.device(B).step_control().unwrap() {}
    // With the hello comes the version that the request is made in.
    assert!(world.device(A).step_control().unwrap());
    while world.device(B).step_control().unwrap() {}
    let time_out = |world: &World| {
        world.clock.pass(Settings::default().takeover_timeout_ns + 1);
        let outcome = world.device(A).poll_takeover().expect("an outcome");
        assert_eq!(outcome.unwrap_err().kind(), Kind::Timeout);
    };
    time_out(&world);
    let write = |world: &World, offset: u64, time: u64| {
        world.device(A).resume_alone().unwrap();
        let data = [IoSlice::new(&[7; 512])];
        let request = Request::write(0, offset, &data).at(time);
        world.device(A).session().unwrap().submit(request).unwrap().wait().unwrap().stamp.unwrap()
    };
    let first = write(&world, 0, 1_000_000_000);
    // It hears that a newer tenure was granted, and asks again; nobody answers.
    let line = memory_link(Line::default(), world.clock.clone());
    world.device(A).connect(Arc::new(line.0)).unwrap();
    world.device(B).connect(Arc::new(line.1)).unwrap();
    assert!(world.device(A).step_control().unwrap());
    assert!(!world.device(A).status().serving);
    time_out(&world);
    let second = write(&world, 512, 500);
    assert!(second > first, "{second} after {first}");
}

/// A device said hello while its received log was full, and made room before it had heard the
/// other's: nobody was told, and nothing was shipped any more.
#[test]
fn room_that_came_free_while_connecting_is_told_of() {
    let mut pair = Pair::with(Spec { block_size: 512, volumes: vec![64], ..Spec::default() });
    let mut value = 0;
    loop {
        for block in 0..8 {
            value += 1;
            pair.submit(A, 0, Action::Write(block..block + 1, value));
            pair.step(A, Commit);
        }
        pair.steps(A, &[Ship]);
        if !pair.step(B, Receive) {
            break;
        }
        pair.steps(A, &[Control, Reflect, Checkpoint]);
    }
    assert!(pair.devices[A].status().backlog_records > 0, "B's log is full");
    let (end_a, end_b) = memory_link(Line::default(), pair.clocks[A].clone());
    pair.devices[B].connect(Arc::new(end_b)).unwrap();
    pair.steps(B, &[ReflectAll, Checkpoint]);
    pair.devices[A].connect(Arc::new(end_a)).unwrap();
    pair.steps(A, &[Control]);
    pair.steps(B, &[Control]);
    pair.steps(A, &[Control]);
    assert!(pair.step(A, Ship), "there is room at B, and A knows");
    pair.drain();
}

/// A record that has rotted beneath a running device stopped it where it was shipped or reflected,
/// while a host that read it got an error and could write on. And the log's last batch, which
/// nothing on the disk called durable, passed for a torn tail at the next opening, although the
/// device had just said that it was damaged.
#[test]
fn rot_that_a_host_meets_stops_the_device_and_is_refused_afterwards() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A)]);
    let log = world.disks[A].bytes(FileName::OwnLog);
    let place = 512 * log.chunks(512).position(|sector| sector == [1; 512]).unwrap();
    world.disks[A].rot(FileName::OwnLog, place + 7, &[2]);
    let device = world.device(A).clone();
    let error = device.session().unwrap().read(0, 0, &mut [0; 512]).unwrap_err();
    assert_eq!(error.kind(), Kind::Halted, "{error}");
    assert!(error.to_string().contains(&format!("at {place} of own.log: checksum")), "{error}");
    assert_eq!(device.session().unwrap_err().kind(), Kind::Halted);
    world.crash(A, Cut::Synced);
    damage(&world.disks[A], &["own.log", "checksum"]);
}
