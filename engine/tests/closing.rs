//! A device that is closed while its steps run in other threads: what was acknowledged is there at
//! the next opening.
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::internal::error::{Kind, Result};
use afterimage::internal::storage::{FileName, SideKind};
use common::crash::CrashDisk;
use common::hooked::{Call, Hooked};
use common::{A, B, Pair, Spec, Step::*, X};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

type Step = fn(&Device) -> Result<()>;

/// Opens B again and connects it: it is refused if it has lost what it acknowledged.
fn reopen(pair: &mut Pair) {
    let (storage, clock) = (pair.spec.storages[B].clone(), pair.clocks[B].clone());
    pair.devices[B] = Device::open(storage, clock, pair.spec.settings.clone()).unwrap();
    pair.lay_line();
    pair.connect();
    pair.drain();
}

/// The peer's debt can be told once more: a file for it that cannot be kept leaves nothing in doubt.
#[test]
fn a_close_without_the_side_file_of_the_told_is_a_close() {
    let disk = CrashDisk::new();
    let mut spec = Spec::default();
    spec.storages[B] = disk.clone();
    let mut pair = Pair::with(spec);
    pair.hold_ships(true);
    pair.write(A, X, 1);
    pair.takeover(B).unwrap();
    disk.fail_sync_of(FileName::Side { kind: SideKind::new("told").unwrap(), number: 0 });
    pair.devices[B].close().unwrap();
    reopen(&mut pair);
    assert!(pair.devices[B].recovery().clean);
}

/// The thread that receives has found the device open, and is slow; the close waits for it.
#[test]
fn a_close_waits_for_what_is_being_received() {
    let mut pair = Pair::new();
    pair.write(A, X, 1);
    pair.steps(A, &[Commit, Ship]);
    let (at_link, comes) = mpsc::channel();
    let (go_on, stalled) = mpsc::channel::<()>();
    pair.gates[B].when_looked(move || {
        at_link.send(()).unwrap();
        let _ = stalled.recv_timeout(Duration::from_secs(10));
    });
    let b = pair.devices[B].clone();
    thread::scope(|scope| {
        let receives = scope.spawn(|| b.step_receive());
        comes.recv().unwrap();
        let closes = scope.spawn(|| b.close());
        // Time enough for a close that does not wait.
        for _ in 0..300 {
            if !closes.is_finished() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        go_on.send(()).unwrap();
        assert_eq!(receives.join().unwrap().unwrap(), 1);
        closes.join().unwrap().unwrap();
    });
    drop(b);
    pair.step(A, Control);
    assert_eq!(pair.devices[A].status().backlog_records, 0, "the record was acknowledged");
    reopen(&mut pair);
}

/// The threads have found the device open, and wait for the close to let them go on.
#[test]
fn a_step_that_waited_for_the_close_does_nothing() {
    let storage = Arc::new(Hooked::default());
    let mut spec = Spec::default();
    spec.storages[B] = storage.clone();
    let mut pair = Pair::with(spec);
    pair.write(A, X, 1);
    pair.steps(A, &[Commit, Ship]);
    let b = pair.devices[B].clone();
    let (tell, told) = mpsc::channel();
    let hooked = storage.clone();
    // The first sync of the superblock is the checkpoint's, the second the mark's.
    storage.when(Call::Sync, FileName::Superblock, move || {
        let steps: [(&str, Step); 6] = [
            ("receive", |b| b.step_receive().map(drop)),
            ("control", |b| b.step_control().map(drop)),
            ("ship", |b| b.step_ship().map(drop)),
            ("reflect", |b| b.step_reflect().map(drop)),
            ("checkpoint", |b| b.checkpoint_now()),
            ("policy", |b| b.set_policy(b.policy())),
        ];
        hooked.when(Call::Sync, FileName::Superblock, move || {
            for (name, step) in steps {
                let (b, tell) = (b.clone(), tell.clone());
                thread::spawn(move || tell.send((name, step(&b))).unwrap());
            }
            thread::sleep(Duration::from_millis(200));
        });
    });
    pair.devices[B].close().unwrap();
    let ended = told.iter().map(|(name, outcome)| {
        let kind = outcome.expect_err(name).kind();
        assert_eq!(kind, Kind::Halted, "{name}");
    });
    assert_eq!(ended.count(), 6);
    reopen(&mut pair);
}
