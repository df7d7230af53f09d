//! Hosts, readers and a taker on threads of their own: nothing is inverted, lost or repeated.

use super::*;
use crate::sync::AtomicBool;
use std::thread;

/// A generator for threads: each gets its own.
fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Blocks below this are written whole, the others by adding to what was read.
const WHOLE: u64 = 24;
const BLOCKS: u64 = 28;
const WRITERS: u64 = 3;
const WRITES: u64 = if cfg!(miri) { 60 } else { 20_000 };

/// One host: writes, partial writes, and completions. Returns the records that it published, and
/// its additions.
fn host(
    queue: &Queue,
    clk: &Clk,
    normal: &[AtomicU64],
    seed: u64,
) -> (Vec<(Stamp, Block)>, Vec<u64>) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let (mut published, mut added) = (Vec::new(), vec![0; BLOCKS as usize]);
    let mut completed = Stamp::ZERO;
    for write_number in 0..WRITES {
        let dice = xorshift(&mut random);
        let time = (write_number * 10 + 500 * seed).saturating_sub(dice >> 8 & 0x3ff);
        let adds = dice.is_multiple_of(4);
        let is_wide = dice % 16 == 1;
        let (number, count) = match (adds, is_wide) {
            (true, _) => (WHOLE + (dice >> 20) % (BLOCKS - WHOLE), 1),
            (_, true) => ((dice >> 20) % (WHOLE - 9), 2 + (dice >> 40) % 8),
            _ => ((dice >> 20) % (WHOLE - 4), 1 + (dice >> 40) % 4),
        };
        let stamp = loop {
            let (newest, token) = queue.newest(block(number));
            let value = match newest {
                Some(record) => record.checksum,
                None => normal[number as usize].load(Acquire),
            };
            if adds && newest.is_none() && !queue.unchanged(block(number), token) {
                continue;
            }
            let records = if is_wide { extents(number, count) } else { records(value + 1, count) };
            let bases = [adds.then_some((0, token)), None];
            let block = block(number);
            let write = NewWrite { block, records: &records, time, written_at: 0, bases };
            match insert_sealed(queue, clk, &write) {
                Insert::Published { stamp, .. } => {
                    for (sequence, extent) in (stamp.sequence..).zip(write.extents()) {
                        published.push((Stamp { sequence, ..stamp }, extent.first));
                    }
                    break stamp;
                }
                Insert::Full | Insert::Stale => thread::yield_now(),
                other => panic!("{other:?}"),
            }
        };
        assert!(stamp > completed, "{stamp} was issued after {completed} was completed");
        if adds {
            added[number as usize] += 1;
        }
        if dice & 0x1000 != 0 {
            completed = stamp;
        }
    }
    (published, added)
}

#[test]
fn threads_never_invert_lose_or_repeat() {
    let (queue, clk) = opened(if cfg!(miri) { 32 } else { 512 }, 1);
    let normal: Vec<_> = (0..BLOCKS).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    let (queue, clk, normal, stop) = (&queue, &clk, &normal[..], &stop);
    thread::scope(|scope| {
        let hosts: Vec<_> =
            (1..=WRITERS).map(|seed| scope.spawn(move || host(queue, clk, normal, seed))).collect();
        let reader = scope.spawn(move || {
            let mut last = vec![Stamp::ZERO; BLOCKS as usize];
            let mut random = 77;
            while !stop.load(Acquire) {
                let number = xorshift(&mut random) % BLOCKS;
                if let Some(record) = queue.newest(block(number)).0 {
                    assert!(record.extent().holds(block(number)));
                    assert!(record.stamp >= last[number as usize], "block {number} went back");
                    last[number as usize] = record.stamp;
                }
            }
        });
        let taker = scope.spawn(move || {
            let mut taker = Sequencer::new(1);
            let (mut batch, mut taken) = (Vec::new(), Vec::new());
            loop {
                let last_round = stop.load(Acquire);
                taker.take(queue, clk, |_| true, &mut batch);
                for (stamp, position) in batch.drain(..) {
                    let record = queue.live(position).expect("not freed before it is emitted");
                    assert_eq!(record.stamp, stamp);
                    for number in record.block.number..record.extent().end() {
                        normal[number as usize].store(record.checksum, Release);
                    }
                    taken.push((stamp, record.block));
                }
                queue.release(taker.done(queue), Position::MAX);
                if last_round {
                    assert!(taker.is_empty());
                    return taken;
                }
                thread::yield_now();
            }
        });
        let mut published = Vec::new();
        let mut added = vec![0; BLOCKS as usize];
        for host in hosts {
            let (stamps, its_added) = host.join().unwrap();
            published.extend(stamps);
            added.iter_mut().zip(its_added).for_each(|(all, its)| *all += its);
        }
        stop.store(true, Release);
        reader.join().unwrap();
        let taken = taker.join().unwrap();
        assert!(taken.windows(2).all(|pair| pair[0].0 < pair[1].0), "out of order");
        published.sort();
        assert!(taken == published, "lost or repeated");
        for number in WHOLE..BLOCKS {
            assert_eq!(normal[number as usize].load(Acquire), added[number as usize], "{number}");
        }
    });
}
