//! The queue under loom: every interleaving of a few short threads, and every value that an atomic
//! may return by C11, with at most two preemptions, in one model one (or `LOOM_MAX_PREEMPTIONS`, if more).
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p afterimage --release --test loom`.
//!
//! loom by itself skips most of these: see `sync::AtomicU64` for why, and for the remedy.
//!
//! The limits of loom: more preemptions than the bound; `compare_exchange_weak` never fails
//! spuriously; sequentially consistent accesses count as acquire and release only (the queue has
//! none); of each atomic only the last seven stores are remembered, so older stale values go
//! untested; loads do not return values that are stored later (load buffering). Slots are atomics
//! throughout, so there are no data races to find. Progress is not checked, only results.
#![cfg(loom)]

mod extents;
mod payload;
mod volume;
mod wake;

use afterimage::internal::queue::{
    Clk, Content, Gather, Insert, NewRecord, NewWrite, Queue, Record, Sequencer, Token,
};
use afterimage::internal::table::location::{Location, locate};
use afterimage::internal::table::prototype::Debt;
use afterimage::internal::unit::{Block, Extent, Position, Stamp};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool as Flag, AtomicU64 as Word, Ordering, fence as ordered};
use loom::thread;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const BOUND: usize = 2;

fn check(model: impl Fn() + Send + Sync + 'static) {
    check_within(BOUND, model);
}

fn check_within(bound: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.max(Some(bound));
    builder.max_branches = 100_000;
    builder.check(model);
}

struct Device {
    queue: Queue,
    clk: Clk,
}

impl Device {
    /// A ring of so many places from position 1 on, open under epoch 1.
    fn new(places: usize) -> Arc<Device> {
        let queue = Queue::new(places, 1, 0).unwrap();
        queue.raise_limit(1 + queue.places());
        let clk = Clk::new();
        clk.open(1, 0);
        Arc::new(Device { queue, clk })
    }

    /// A ring that gives no place out before its limit is raised.
    fn full(places: usize) -> Arc<Device> {
        let clk = Clk::new();
        clk.open(1, 0);
        Arc::new(Device { queue: Queue::new(places, 1, 0).unwrap(), clk })
    }

    /// A write of `count` blocks whose checksums are the host's time and the block's number.
    fn write(&self, number: u64, count: u64, time: u64, base: Option<Token>) -> Insert {
        let records: Vec<_> = (number..number + count)
            .map(|number| NewRecord {
                checksum: checksum(time, number),
                content: Content::Data,
                level: 0,
            })
            .collect();
        let bases = [base.map(|base| (0, base)), None];
        let write =
            NewWrite { block: block(number), records: &records, time, written_at: 0, bases };
        self.queue.insert(&self.clk, 1, &write)
    }

    /// A write of block 1 that asks `may` behind its reservation.
    fn write_if(&self, time: u64, may: impl Fn() -> bool) -> Insert {
        let records = [NewRecord { checksum: checksum(time, 1), content: Content::Data, level: 0 }];
        let write =
            NewWrite { block: block(1), records: &records, time, written_at: 0, bases: [None; 2] };
        self.queue.insert_with(&self.clk, 1, &write, |_| (), may, |_, _| true)
    }

    /// Zeros over the extent of `level` around block 1, or a write of it, its time sealed before it is
    /// published, as a device does.
    fn write_sealed(&self, level: u8, time: u64, base: Option<Token>) -> Insert {
        let content = if level > 0 { Content::Zero } else { Content::Data };
        let records = [NewRecord { checksum: checksum(time, 1), content, level }];
        let bases = [base.map(|base| (0, base)), None];
        let block = Extent::around(block(1), level).first;
        let write = NewWrite { block, records: &records, time, written_at: 0, bases };
        let seal = |_, stamp: Stamp| {
            self.clk.raise(stamp.time);
            true
        };
        self.queue.insert_with(&self.clk, 1, &write, |_| (), || true, seal)
    }

    fn write_one(&self, number: u64, time: u64) -> Stamp {
        match self.write(number, 1, time, None) {
            Insert::Published { stamp, .. } => stamp,
            other => panic!("{other:?}"),
        }
    }

    fn newest(&self, number: u64) -> Option<Record> {
        self.queue.newest(block(number)).0
    }

    fn take(&self, taker: &mut Sequencer, out: &mut Vec<(Stamp, Position)>) {
        taker.take(&self.queue, &self.clk, |_| true, out);
        assert!(out.is_sorted(), "{out:?}");
    }

    /// Checks the end: everything must have come out, once and in order, and the newest
    /// record of every block be the one with its highest stamp.
    fn finish(&self, mut taker: Sequencer, mut out: Vec<(Stamp, Position)>, writes: &[Stamp]) {
        self.take(&mut taker, &mut out);
        assert!(taker.is_empty());
        let mut writes = writes.to_vec();
        writes.sort();
        assert_eq!(out.iter().map(|taken| taken.0).collect::<Vec<_>>(), writes);
        for &(stamp, position) in &out {
            let record = self.queue.record(position);
            assert!(self.newest(record.block.number).unwrap().stamp >= stamp);
        }
    }
}

fn block(number: u64) -> Block {
    Block { volume: 1, number }
}

fn checksum(time: u64, number: u64) -> u64 {
    time << 8 | number
}

/// A block that shares its chain with block 1 in a ring of so few places.
fn neighbour(places: usize) -> u64 {
    static FOUND: [OnceLock<u64>; 9] = [const { OnceLock::new() }; 9];
    *FOUND[places].get_or_init(|| {
        let (send, receive) = std::sync::mpsc::channel();
        loom::model(move || {
            let shares = |number: &u64| {
                let device = Device::new(places);
                let (_, token) = device.queue.newest(block(1));
                device.write_one(*number, 1);
                !device.queue.unchanged(block(1), token)
            };
            send.send((2..).find(shares).unwrap()).unwrap();
        });
        receive.recv().unwrap()
    })
}

/// Two hosts write, the times against the order of arrival, while a third thread takes.
fn two_writers_and_a_taker(first: u64, second: u64) {
    check(move || {
        let device = Device::new(8);
        let writers = [(first, 20), (second, 10)].map(|(number, time)| {
            let device = device.clone();
            thread::spawn(move || device.write_one(number, time))
        });
        let (mut taker, mut out) = (Sequencer::new(1), Vec::new());
        device.take(&mut taker, &mut out);
        let stamps = writers.map(|writer| writer.join().unwrap());
        device.finish(taker, out, &stamps);
    });
}

#[test]
fn same_block() {
    two_writers_and_a_taker(1, 1);
}

#[test]
fn different_blocks() {
    two_writers_and_a_taker(1, neighbour(8));
}

/// A taker that has drained a late time, and a writer with an earlier one about to be stamped.
#[test]
fn sealing() {
    check(|| {
        let device = Device::new(8);
        let late = device.write_one(1, 20);
        let early = {
            let device = device.clone();
            thread::spawn(move || device.write_one(2, 10))
        };
        let (mut taker, mut out) = (Sequencer::new(1), Vec::new());
        device.take(&mut taker, &mut out);
        device.take(&mut taker, &mut out);
        let early = early.join().unwrap();
        device.finish(taker, out, &[late, early]);
    });
}

/// One writer links at the head of a chain while another links further down: of two records of a
/// block, the one with the higher position must have the higher stamp.
#[test]
fn head_and_middle() {
    let neighbour = neighbour(8);
    check(move || {
        let device = Device::new(8);
        let late = {
            let device = device.clone();
            thread::spawn(move || device.write_one(1, 50))
        };
        let between = device.write_one(neighbour, 5);
        let early = device.write_one(1, 10);
        let stamps = [late.join().unwrap(), between, early];
        assert_eq!(device.newest(1).unwrap().stamp, stamps[0].max(early));
        device.finish(Sequencer::new(1), Vec::new(), &stamps);
    });
}

/// A write that is issued after a read has returned another is stamped after that, since a write is
/// sealed before it can be seen.
#[test]
fn what_is_seen_is_sealed() {
    static SEEN: AtomicBool = AtomicBool::new(false);
    check(|| {
        let device = Device::new(8);
        let writer = {
            let device = device.clone();
            thread::spawn(move || match device.write_sealed(0, 100, None) {
                Insert::Published { stamp, .. } => stamp,
                other => panic!("{other:?}"),
            })
        };
        let reader = {
            let device = device.clone();
            thread::spawn(move || {
                let seen = device.newest(1)?;
                SEEN.store(true, Relaxed);
                assert_eq!(seen.checksum, checksum(100, 1));
                let stamp = device.write_one(2, 1);
                assert!(stamp > seen.stamp);
                Some(stamp)
            })
        };
        let (mut taker, mut out) = (Sequencer::new(1), Vec::new());
        device.take(&mut taker, &mut out);
        let mut stamps = vec![writer.join().unwrap()];
        stamps.extend(reader.join().unwrap());
        device.finish(taker, out, &stamps);
    });
    assert!(SEEN.load(Relaxed), "the model never came to the point");
}

/// Of two partial writes that have read the same, one must read again; and a full write never
/// comes between a partial one and what that has read.
fn partial_writes(other_is_partial: bool) {
    let neighbour = neighbour(8);
    check(move || {
        let device = Device::new(8);
        device.write_one(1, 1);
        let (_, token) = device.queue.newest(block(1));
        let base = other_is_partial.then_some(token);
        let other = {
            let device = device.clone();
            thread::spawn(move || device.write(1, 1, 9, base))
        };
        // A head for the chain, so that there is room in between.
        device.write_one(neighbour, 3);
        let half = device.write(1, 1, 5, Some(token));
        let published = [half, other.join().unwrap()].map(|insert| match insert {
            Insert::Published { first, stamp } => Some((first, stamp)),
            // Only for the one that is partial, and places may run out after conflicts.
            Insert::Stale | Insert::Full => None,
            other => panic!("{other:?}"),
        });
        if let [Some(half), Some(other)] = published {
            assert!(!other_is_partial, "one half is lost");
            assert!(half.0 < other.0 && half.1 < other.1, "a write between a half and its base");
        }
        let newest = published.into_iter().flatten().max().map_or(1, |newest| newest.0);
        assert_eq!(device.newest(1).unwrap().position, newest);
    });
}

#[test]
fn halves_of_a_block() {
    partial_writes(true);
}

#[test]
fn half_and_whole() {
    partial_writes(false);
}

/// The only place is freed and taken again under a reader's feet, by a record of the same chain.
#[test]
fn places_are_reused() {
    let neighbour = neighbour(1);
    check(move || {
        let device = Device::new(1);
        let before = device.write_one(1, 10);
        let (mut taker, mut out) = (Sequencer::new(1), Vec::new());
        device.take(&mut taker, &mut out);
        let reader = {
            let device = device.clone();
            thread::spawn(move || match device.newest(1) {
                Some(found) => assert_eq!((found.stamp, found.checksum), (before, checksum(10, 1))),
                None => assert!(device.queue.freed() > 1, "lost before it is freed"),
            })
        };
        let writer = {
            let device = device.clone();
            thread::spawn(move || device.write(neighbour, 1, 90, None))
        };
        device.queue.release(taker.done(&device.queue), 100);
        reader.join().unwrap();
        match writer.join().unwrap() {
            Insert::Published { stamp, .. } => {
                assert_eq!(device.newest(neighbour).unwrap().stamp, stamp);
            }
            full => assert_eq!(full, Insert::Full),
        }
    });
}

/// A partial write whose base is superseded, taken and freed while it is on its way.
#[test]
fn a_base_comes_and_goes() {
    check(|| {
        let device = Device::new(8);
        let (_, token) = device.queue.newest(block(1));
        let half = {
            let device = device.clone();
            thread::spawn(move || device.write(1, 1, 5, Some(token)))
        };
        let whole = device.write_one(1, 1);
        let (mut taker, mut out) = (Sequencer::new(1), Vec::new());
        device.take(&mut taker, &mut out);
        device.queue.release(taker.done(&device.queue), 100);
        if let Insert::Published { stamp, .. } = half.join().unwrap() {
            assert!(stamp < whole, "a write was lost");
        }
    });
}

/// A fence: what was admitted is in the drain up to the horizon, and nothing is admitted after.
#[test]
fn fence() {
    check(|| {
        let device = Device::new(8);
        let writers = [(1, 20), (2, 10)].map(|(number, time)| {
            let device = device.clone();
            thread::spawn(move || device.write(number, 1, time, None))
        });
        device.clk.close();
        let horizon = device.queue.horizon();
        let (mut gather, mut out) = (Gather::new(1), Vec::new());
        gather.run(&device.queue, &mut out);
        while gather.settled() < horizon {
            thread::yield_now();
            gather.run(&device.queue, &mut out);
        }
        out.sort();
        let admitted = writers.map(|writer| match writer.join().unwrap() {
            Insert::Published { first, .. } => Some(first),
            Insert::Closed => None,
            other => panic!("{other:?}"),
        });
        let mut admitted: Vec<_> = admitted.into_iter().flatten().collect();
        admitted.sort();
        assert_eq!(out, admitted);
        // Voids do not stay holes.
        gather.run(&device.queue, &mut out);
        assert_eq!((out, gather.settled()), (admitted, device.queue.tail()));
    });
}

/// A request of two blocks appears at once and as a whole, to readers, the log and the taker.
#[test]
fn one_publication() {
    check(|| {
        let device = Device::new(2);
        let writer = {
            let device = device.clone();
            thread::spawn(move || device.write(1, 2, 10, None))
        };
        let reader = {
            let device = device.clone();
            thread::spawn(move || {
                if device.newest(2).is_some() {
                    let (mut gather, mut out) = (Gather::new(1), Vec::new());
                    gather.run(&device.queue, &mut out);
                    assert_eq!(out, [1, 2]);
                    assert!(device.newest(1).is_some());
                }
            })
        };
        let (mut gather, mut gathered) = (Gather::new(1), Vec::new());
        gather.run(&device.queue, &mut gathered);
        assert!(gathered.is_empty() || gathered == [1, 2], "{gathered:?}");
        if !gathered.is_empty() {
            assert!(device.newest(1).is_some() && device.newest(2).is_some());
        }
        let (mut taker, mut taken) = (Sequencer::new(1), Vec::new());
        device.take(&mut taker, &mut taken);
        assert!(taken.len() != 1 && (gathered.is_empty() || taken.len() == 2));
        gather.run(&device.queue, &mut gathered);
        assert!(gathered.len() >= taken.len() && gathered.len() != 1);
        writer.join().unwrap();
        reader.join().unwrap();
    });
}

/// A takeover takes the host away and gives it back while two writes are on their way: what was
/// admitted is in the prototype with its newest stamp, and no write of the old tenure gets in
/// under the new one.
#[test]
fn takeover_and_admission() {
    check(|| {
        let device = Device::new(4);
        let writers = [20, 10].map(|time| {
            let device = device.clone();
            thread::spawn(move || device.write(1, 1, time, None))
        });
        // As `close_admission` and `fence` do it.
        device.clk.close();
        let horizon = device.queue.horizon();
        for position in 1..horizon {
            while device.queue.settled(position).is_none() {
                thread::yield_now();
            }
        }
        let (mut taker, mut out) = (Sequencer::new(1), Vec::new());
        device.take(&mut taker, &mut out);
        while !taker.is_empty() {
            thread::yield_now();
            device.take(&mut taker, &mut out);
        }
        let r = out.iter().map(|taken| taken.1);
        let prototype: Vec<_> = r.filter(|&position| device.queue.is_newest(position)).collect();
        // The host comes back, with nothing sealed that it could run into.
        device.clk.open(2, 0);
        let admitted: Vec<_> = writers
            .into_iter()
            .filter_map(|writer| match writer.join().unwrap() {
                Insert::Published { first, stamp } => Some((stamp, first)),
                Insert::Closed | Insert::Full => None,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(out.len(), admitted.len(), "admitted after the fence, or lost by it");
        assert!(admitted.iter().all(|write| out.contains(write)));
        let newest = admitted.iter().max().map(|write| write.1);
        assert_eq!(prototype, Vec::from_iter(newest));
    });
}

/// A host comes back on a new connection and repeats a write while the old one of it is about to be
/// admitted: admitted or not, it is not above the new one (R20).
#[test]
fn writer_and_admission() {
    check(|| {
        let device = Device::new(4);
        let writer = Arc::new(Word::new(1));
        let old = {
            let (device, writer) = (device.clone(), writer.clone());
            let may = move || writer.load(Ordering::Acquire) <= 1;
            thread::spawn(move || device.write_if(20, may))
        };
        // As `Device::claim` does it.
        writer.store(2, Ordering::Release);
        let new = device.write_if(10, || writer.load(Ordering::Acquire) <= 2);
        let Insert::Published { first, .. } = new else { panic!("{new:?}") };
        let repeated = device.newest(1).unwrap();
        match old.join().unwrap() {
            Insert::Published { first: late, .. } => assert!(late < first, "above the new one"),
            other => assert_eq!(other, Insert::Closed),
        }
        assert_eq!(device.newest(1).unwrap().stamp, repeated.stamp);
    });
}

/// A write has completed, which seals its time; one that is issued after that is later, however
/// early its host's clock, and a taker who sees both takes them in that order.
#[test]
fn completion_and_reservation() {
    check(|| {
        let device = Device::new(4);
        let complete = Arc::new(Flag::new(false));
        let first = {
            let (device, complete) = (device.clone(), complete.clone());
            thread::spawn(move || {
                let Insert::Published { stamp, .. } = device.write_sealed(0, 20, None) else {
                    panic!("there is room")
                };
                complete.store(true, Ordering::Release);
                stamp
            })
        };
        let second = {
            let device = device.clone();
            thread::spawn(move || {
                let after = complete.load(Ordering::Acquire);
                (after, device.write_one(2, 10))
            })
        };
        let (mut taker, mut out) = (Sequencer::new(1), Vec::new());
        device.take(&mut taker, &mut out);
        let (first, (after, second)) = (first.join().unwrap(), second.join().unwrap());
        assert!(!after || second > first, "issued after the completion and stamped before");
        device.finish(taker, out, &[first, second]);
    });
}
