//! A waiting thread and a waking one: whichever comes second sees the other, so that nobody sleeps
//! over what has happened.

use super::{Device, check};
use afterimage::internal::queue::Insert;
use afterimage::internal::wake::{Key, Mark, Waiters};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64 as Word, Ordering};
use loom::thread;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Wake, Waker};

/// Whether a waiter was woken: no part of the model.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

fn sleeper() -> (std::sync::Arc<Woken>, Waker) {
    let woken = std::sync::Arc::new(Woken::default());
    (woken.clone(), Waker::from(woken))
}

/// A commit ends while one request begins to wait for it and another gives up waiting.
#[test]
fn a_waiter_sees_the_end_or_is_woken() {
    check(|| {
        let waiters = Arc::new(Waiters::default());
        let done = Arc::new(Word::new(0));
        let leader = {
            let (waiters, done) = (waiters.clone(), done.clone());
            thread::spawn(move || {
                done.store(1, Ordering::Release);
                waiters.wake(Key::Round(0)..=Key::Round(1));
            })
        };
        let other = {
            let waiters = waiters.clone();
            thread::spawn(move || {
                waiters.enter(Key::Round(1), 2, 0, &sleeper().1);
                waiters.leave(Key::Round(1), 2);
            })
        };
        let (woken, waker) = sleeper();
        assert!(waiters.enter(Key::Round(1), 1, 0, &waker));
        let sees = done.load(Ordering::Acquire) == 1;
        leader.join().unwrap();
        other.join().unwrap();
        assert!(sees || woken.0.load(Relaxed), "it sleeps for ever");
    });
}

/// Places come free while a write that found none begins to wait for them.
#[test]
fn a_waiter_gets_its_place_or_is_woken() {
    check(|| {
        let device = Device::full(1);
        let waiters = Arc::new(Waiters::default());
        let owner = {
            let (device, waiters) = (device.clone(), waiters.clone());
            thread::spawn(move || {
                device.queue.raise_limit(2);
                if waiters.are_there() {
                    waiters.wake_places(device.queue.free());
                }
            })
        };
        let (woken, waker) = sleeper();
        assert!(waiters.enter(Key::Places, 1, 1, &waker));
        let is_full = matches!(device.write(1, 1, 10, None), Insert::Full);
        owner.join().unwrap();
        assert!(!is_full || woken.0.load(Relaxed), "it sleeps for ever");
    });
}

/// The background goes to sleep because the log is clean, while two hosts publish.
#[test]
fn the_background_sees_a_write_or_is_woken() {
    check(|| {
        let device = Device::new(8);
        let mark = Arc::new(Mark::default());
        let hosts = [1, 2].map(|number| {
            let (device, mark) = (device.clone(), mark.clone());
            thread::spawn(move || {
                device.write_one(number, 10);
                mark.is_passed(device.queue.tail())
            })
        });
        let clean = 1;
        mark.set(clean);
        let sleeps = device.queue.horizon() <= clean;
        let rings = hosts.map(|host| host.join().unwrap());
        assert!(!sleeps || rings.contains(&true), "it sleeps for ever");
    });
}

/// The background goes to sleep because nothing is committed that it has not seen, while a commit
/// ends.
#[test]
fn the_background_sees_a_commit_or_is_woken() {
    check(|| {
        let mark = Arc::new(Mark::default());
        let committed = Arc::new(Word::new(1));
        let leader = {
            let (mark, committed) = (mark.clone(), committed.clone());
            thread::spawn(move || {
                committed.store(2, Ordering::Release);
                mark.pass(2)
            })
        };
        mark.set(1);
        let sleeps = committed.load(Ordering::Acquire) <= 1;
        let rings = leader.join().unwrap();
        assert!(!sleeps || rings, "it sleeps for ever");
    });
}
