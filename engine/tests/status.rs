//! A device says where it stands while its disk hangs: the moment at which somebody wants to know.
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::internal::failover::Policy;
use afterimage::internal::storage::FileName;
use common::hooked::{Call, Hooked};
use common::{A, B, Pair, Spec, Step::*, X};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long the disk hangs, unless the test lets it go on before.
const HANGS: Duration = Duration::from_secs(10);

/// `step` comes to the sync of `file`, which hangs; meanwhile the device answers in no time.
fn answers_while(disk: &Hooked, file: FileName, device: &Arc<Device>, step: impl FnOnce() + Send) {
    let (hangs, comes) = mpsc::channel();
    let (go_on, gate) = mpsc::channel::<()>();
    disk.when(Call::Sync, file, move || {
        hangs.send(()).unwrap();
        let _ = gate.recv_timeout(HANGS);
    });
    thread::scope(|scope| {
        let step = scope.spawn(step);
        comes.recv_timeout(HANGS).expect("the step comes to its sync");
        let (tell, told) = mpsc::channel();
        let asked = device.clone();
        // The best of several: other programs use the processors too.
        let answer = move || {
            let began = Instant::now();
            asked.status();
            began.elapsed()
        };
        thread::spawn(move || tell.send((0..20).map(|_| answer()).min()));
        let took = told.recv_timeout(HANGS / 2).expect("the status waits for the disk").unwrap();
        assert!(!step.is_finished(), "{file} was to hang");
        go_on.send(()).unwrap();
        step.join().unwrap();
        assert!(took < Duration::from_millis(1), "the status took {took:?} while {file} hung");
    });
}

/// An operator who reads a backlog of 0 after a flush may switch the device off.
#[test]
fn a_flushed_write_counts_at_once() {
    let mut pair = Pair::with(Spec::default());
    pair.write(A, X, 1);
    assert_eq!(pair.devices[A].status().backlog_records, 0, "nothing is durable yet");
    pair.devices[A].session().unwrap().flush().unwrap();
    let status = pair.devices[A].status();
    assert_eq!((status.backlog_records, status.unreflected_records), (1, 1));
}

#[test]
fn the_status_does_not_wait_for_the_disk() {
    let disks = [Arc::new(Hooked::default()), Arc::new(Hooked::default())];
    let storages = [disks[A].clone() as _, disks[B].clone() as _];
    let mut pair = Pair::with(Spec { storages, ..Spec::default() });
    let [a, b] = pair.devices.clone();
    pair.write(A, X, 1);
    answers_while(&disks[A], FileName::OwnLog, &a, || assert!(a.step_commit().unwrap()));
    pair.steps(A, &[Ship]);
    answers_while(&disks[B], FileName::RecvLog, &b, || {
        assert_eq!(b.step_receive().unwrap(), 1);
    });
    pair.steps(A, &[Control, Reflect]);
    let segment = FileName::Segment { volume: 0, index: 0 };
    answers_while(&disks[A], segment, &a, || a.checkpoint_now().unwrap());
    let policy = Policy { prefer: true, ..Policy::default() };
    answers_while(&disks[A], FileName::Superblock, &a, || a.set_policy(policy).unwrap());
    assert!(a.policy().prefer);
    // The fence waits for the disk, and nobody for the fence.
    b.begin_takeover().unwrap();
    answers_while(&disks[A], FileName::Superblock, &a, || assert!(a.step_control().unwrap()));
    assert_eq!(a.status().own_used_bytes, 0);
    assert!(b.status().recv_used_bytes > 0);
    pair.drain();
}
