//! The decision to serve after an opening and at a hello (R13), between devices; the table itself
//! is tested beside it (`failover/decide.rs`).
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::internal::error::{Error, Kind};
use afterimage::internal::event::Event;
use afterimage::internal::failover::Policy;
use afterimage::internal::limits::Settings;
use afterimage::internal::link::{Lane, Line, memory_link};
use afterimage::internal::storage::FileName;
use common::crash::{CrashDisk, Cut};
use common::world::Act::*;
use common::world::World;
use common::{A, B, ManualClock};
use std::sync::{Arc, Mutex};

/// Opens `disk` as a device of its own.
fn open(disk: &Arc<CrashDisk>) -> Result<Arc<Device>, Error> {
    Device::open(disk.clone(), Arc::new(ManualClock::default()), Settings::default())
}

#[test]
fn a_new_device_serves_once_somebody_vouches() {
    let world = World::new();
    let [a, b] = [A, B].map(|at| world.disks[at].after(Cut::Synced));
    let device = open(&a).unwrap();
    // Whatever a crash has taken is not what this is about.
    device.accept_loss().unwrap();
    assert!(!device.status().serving);
    let refused = device.session().unwrap_err();
    assert_eq!(refused.kind(), Kind::NotProven);
    assert!(
        refused.kind().is_retryable() && refused.to_string().contains("`Device::resume_alone`"),
        "{refused}"
    );
    device.resume_alone().unwrap();
    device.resume_alone().unwrap();
    assert!(device.status().serving && device.session().is_ok());
    let other = open(&b).unwrap();
    assert_eq!(other.resume_alone().unwrap_err().kind(), Kind::Fenced);
    assert_eq!(other.session().unwrap_err().kind(), Kind::Fenced);
    // The setting survives, and does as the operator did.
    assert_eq!(device.policy(), Policy { prefer: true, resume_alone: false });
    device.set_policy(Policy { prefer: true, resume_alone: true }).unwrap();
    drop(device);
    let device = open(&a.after(Cut::Synced)).unwrap();
    assert!(device.status().serving);
    assert!(device.policy().resume_alone);
}

#[test]
fn of_two_fenced_devices_the_preferred_one_asks() {
    for prefers in [Some(A), Some(B), None] {
        let mut world = World::new();
        world.acts(&[Write(A, 0, 1)]);
        for at in [A, B] {
            let policy = Policy { prefer: prefers == Some(at), resume_alone: false };
            world.device(at).set_policy(policy).unwrap();
        }
        // B dies before it has the answer.
        world.device(B).begin_takeover().unwrap();
        while world.device(A).step_control().unwrap() {}
        world.crash(A, Cut::Synced);
        world.crash(B, Cut::Synced);
        world.open(A).unwrap();
        world.open(B).unwrap();
        world.meet();
        let serving = [A, B].into_iter().find(|&at| world.device(at).status().serving);
        assert_eq!(serving, prefers);
        world.promised = world.history.len();
        world.finale().unwrap();
    }
}

/// A comes back on `old`, an earlier state of its disk, and both say hello.
fn meet_again(world: &mut World, old: Arc<CrashDisk>) -> (Arc<Device>, Arc<Device>) {
    world.crash(A, Cut::Kill);
    world.disks[A] = old;
    world.open(A).unwrap();
    let line = memory_link(Line::default(), world.clock.clone());
    let (a, b) = (world.device(A).clone(), world.device(B).clone());
    a.connect(Arc::new(line.0)).unwrap();
    b.connect(Arc::new(line.1)).unwrap();
    (a, b)
}

/// A backup of a device that went on: the other one finds out, and both say so.
#[test]
fn a_device_that_lost_durable_records_serves_nobody() {
    let mut world = World::new();
    let old = world.disks[A].copy();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry]);
    let (a, b) = meet_again(&mut world, old);
    assert!(a.step_control().unwrap());
    let status = a.status();
    assert!(!status.serving && !status.connected && status.halted.is_none(), "{status:?}");
    let lost = status.lost.unwrap().to_string();
    assert!(lost.contains("must be resynchronised"), "{lost}");
    assert_eq!(a.session().unwrap_err().kind(), Kind::Damaged);
    assert_eq!(a.resume_alone().unwrap_err().kind(), Kind::Damaged);
    assert!(b.step_control().unwrap());
    assert!(!b.status().connected && b.status().halted.is_none(), "B refuses, and goes on");
}

/// An old backup of a device that had promised more in a prototype: nothing it ships could ever
/// pay that, so the other one must say so, and not wait for ever.
#[test]
fn a_peer_that_lost_what_it_promised_is_refused() {
    let mut world = World::new();
    world.acts(&[Takeover(B)]);
    let old = world.disks[A].copy();
    world.acts(&[Takeover(A)]);
    world.hold_ships(true);
    world.acts(&[Write(A, 0, 1), Takeover(B)]);
    // B is fenced again, and its answer does not arrive.
    world.device(A).begin_takeover().unwrap();
    while world.device(B).step_control().unwrap() {}
    world.crash(A, Cut::Kill);
    world.disks[A] = old;
    world.open(A).unwrap();
    let told = Arc::new(Mutex::new(String::new()));
    let tell = told.clone();
    world.device(B).on_event(move |event| {
        if let Event::Disconnected { why, .. } = event {
            *tell.lock().unwrap() += &why.to_string();
        }
    });
    world.meet();
    let told = told.lock().unwrap();
    assert!(told.contains("the peer has lost durable records"), "{told}");
    assert!(!world.device(A).status().serving && !world.device(B).status().connected);
}

/// A record that arrived before a takeover and then rotted in the last batch looks like a torn
/// tail. The peer has it no more: the superblock of the takeover knows that it was here.
#[test]
fn a_device_that_lost_what_it_had_received_serves_nobody() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Carry, Takeover(B), Carry]);
    world.crash(B, Cut::Synced);
    world.disks[B].rot(FileName::RecvLog, 4096, &[9; 64]);
    let refused = world.open(B).unwrap_err();
    assert_eq!(refused.kind(), Kind::Damaged);
    assert!(refused.to_string().contains("recv.log: the log ends with stamp 0.0.0"), "{refused}");
}

/// An old backup of a device that had granted a tenure which it does not know of.
#[test]
fn who_does_not_know_what_it_granted_serves_nobody() {
    let mut world = World::new();
    world.acts(&[Takeover(B)]);
    let old = world.disks[A].copy();
    world.acts(&[Takeover(A), Takeover(B)]);
    let (a, b) = meet_again(&mut world, old);
    assert!(a.step_control().unwrap());
    let lost = a.status().lost.unwrap().to_string();
    assert!(lost.contains("lost durable records"), "{lost}");
    assert!(b.step_control().unwrap());
    assert!(!b.status().connected && b.status().halted.is_none(), "B refuses, and goes on");
}

#[test]
fn two_unfenced_devices_both_stop() {
    let mut world = World::new();
    let old = world.disks[A].copy();
    world.acts(&[Takeover(B)]);
    world.crash(A, Cut::Kill);
    world.disks[A] = old;
    world.open(A).unwrap();
    let line = memory_link(Line::default(), world.clock.clone());
    world.device(A).connect(Arc::new(line.0)).unwrap();
    world.device(B).connect(Arc::new(line.1)).unwrap();
    for at in [A, B] {
        let halted = world.device(at).step_control().unwrap_err();
        assert!(halted.to_string().contains("both devices of the pair are unfenced"), "{halted}");
    }
}

/// The answer to a request was lost, and the asker holds an older tenure: it asks again, even if
/// it was told to resume alone meanwhile.
#[test]
fn who_hears_of_a_higher_tenure_asks_again() {
    let mut world = World::new();
    world.hold_ships(true);
    world.acts(&[Write(A, 0, 1)]);
    world.device(B).begin_takeover().unwrap();
    world.carry().unwrap();
    world.crash(B, Cut::Kill);
    world.open(B).unwrap();
    // B asks, A grants; what A owes arrives, the answer does not.
    let line = memory_link(Line::default(), world.clock.clone());
    world.links = [line.0, line.1];
    let links = world.links.clone();
    for at in [A, B] {
        world.device(at).connect(Arc::new(links[at].clone())).unwrap();
    }
    while world.device(B).step_control().unwrap() {}
    links[A].hold(Lane::Control, true);
    while world.device(A).step_control().unwrap() {}
    while world.device(A).step_ship().unwrap() > 0 {}
    assert_eq!(world.device(B).step_receive().unwrap(), 1);
    let epochs = [A, B].map(|at| world.device(at).status().epoch);
    assert!(epochs[A] > epochs[B]);
    world.crash(B, Cut::Kill);
    world.open(B).unwrap();
    world.device(B).resume_alone().unwrap();
    world.meet();
    let status = world.device(B).status();
    // It never held what was granted: it is granted the same again.
    assert!(status.serving && status.epoch == epochs[A], "{status:?}");
    world.promised = world.history.len();
    world.finale().unwrap();
}

/// The reason that a host is given is the one by which an operator is served: what was missing at
/// the opening has arrived since, and only the request's answer has not.
#[test]
fn the_reason_for_waiting_follows_what_has_arrived() {
    let mut world = World::new();
    world.hold_ships(true);
    world.acts(&[Write(A, 0, 1), Takeover(B)]);
    world.crash(B, Cut::Kill);
    world.open(B).unwrap();
    let said = |b: &Arc<Device>| b.session().unwrap_err().to_string();
    let b = world.device(B).clone();
    assert!(said(&b).contains("records or blocks were missing"), "{}", said(&b));
    assert_eq!(said(&b), b.resume_alone().unwrap_err().to_string());
    let line = memory_link(Line::default(), world.clock.clone());
    world.links = [line.0, line.1];
    for at in [A, B] {
        world.device(at).connect(Arc::new(world.links[at].clone())).unwrap();
    }
    while b.step_control().unwrap() {}
    world.links[A].hold(Lane::Control, true);
    while world.device(A).step_control().unwrap() {}
    while world.device(A).step_ship().unwrap() > 0 {}
    assert_eq!(said(&b), b.resume_alone().unwrap_err().to_string());
    assert_eq!(b.session().unwrap_err().kind(), Kind::NotReady);
    assert_eq!(b.step_receive().unwrap(), 1);
    world.clock.pass(Settings::default().takeover_timeout_ns + 1);
    assert_eq!(b.poll_takeover().unwrap().unwrap_err().kind(), Kind::Timeout);
    assert!(said(&b).contains("was not forced to take over"), "{}", said(&b));
    b.resume_alone().unwrap();
}
