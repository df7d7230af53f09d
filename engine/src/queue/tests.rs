//! The queue against a slow, obvious oracle, step by step; with threads in [`threads`].

mod threads;

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

fn block(number: u64) -> Block {
    Block { volume: 7, number }
}

fn records(checksum: u64, count: u64) -> Vec<NewRecord> {
    (0..count)
        .map(|index| NewRecord {
            checksum: checksum + index,
            content: if index % 2 == 0 { Content::Data } else { Content::Zero },
            level: 0,
        })
        .collect()
}

/// Records without data of `count` blocks from `number` on, in as few extents as can be.
fn extents(number: u64, count: u64) -> Vec<NewRecord> {
    Extent::split(block(number), count, Extent::LEVEL_MAX)
        .map(|extent| NewRecord { checksum: 0, content: Content::Zero, level: extent.level })
        .collect()
}

/// Inserts as a device does: the time is sealed before the write is published (rule 5).
fn insert_sealed(queue: &Queue, clk: &Clk, write: &NewWrite<'_>) -> Insert {
    let seal = |_, stamp: Stamp| {
        clk.raise(stamp.time);
        true
    };
    queue.insert_with(clk, clk.epoch(), write, |_| (), || true, seal)
}

fn opened(places: usize, first: Position) -> (Queue, Clk) {
    let queue = Queue::new(places, first, 0x5eed).unwrap();
    queue.raise_limit(first + queue.places());
    let clk = Clk::new();
    clk.open(1, 0);
    (queue, clk)
}

fn write_one(queue: &Queue, clk: &Clk, number: u64, time: u64) -> Stamp {
    let records = records(0, 1);
    let write =
        NewWrite { block: block(number), records: &records, time, written_at: 0, bases: [None; 2] };
    match queue.insert(clk, clk.epoch(), &write) {
        Insert::Published { stamp, .. } => stamp,
        other => panic!("{other:?}"),
    }
}

fn take_all(taker: &mut Sequencer, queue: &Queue, clk: &Clk) -> Vec<(Stamp, Position)> {
    let mut out = Vec::new();
    taker.take(queue, clk, |_| true, &mut out);
    out
}

#[derive(Clone, Debug)]
enum Step {
    /// Zeros in extents of many blocks; only where every publication seals.
    Wide {
        number: u64,
        count: u64,
        time: u64,
    },
    Insert {
        number: u64,
        count: u64,
        time: u64,
    },
    /// Read a block's rest, for [`Step::Partial`].
    Read(u64),
    /// A partial write on what was read of this block.
    Partial {
        number: u64,
        before: u64,
        count: u64,
        time: u64,
    },
    Newest(u64),
    /// Whether anything is live of so many blocks.
    Zeros {
        number: u64,
        count: u64,
    },
    /// Take; only positions below the one that many in are ready.
    Take(u64),
    Gather,
    Release {
        request: usize,
        limit: u64,
    },
    /// Seal so far above the clock.
    Seal(u64),
    /// A write of a tenure that is over.
    Late,
    /// Fence, then take over again with the time set back.
    Tenure(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..6u64;
    prop_oneof![
        5 => (number.clone(), 1..9u64, 0..60u64)
            .prop_map(|(number, count, time)| Step::Wide { number, count, time }),
        8 => (number.clone(), 1..4u64, 0..60u64)
            .prop_map(|(number, count, time)| Step::Insert { number, count, time }),
        3 => number.clone().prop_map(Step::Read),
        3 => (number.clone(), 0..2u64, 1..3u64, 0..60u64).prop_map(
            |(number, before, count, time)| Step::Partial { number, before, count, time }
        ),
        4 => number.clone().prop_map(Step::Newest),
        3 => (number, prop_oneof![1..9u64, Just(1 << 20)])
            .prop_map(|(number, count)| Step::Zeros { number, count }),
        4 => prop_oneof![Just(u64::MAX), 0..12u64].prop_map(Step::Take),
        2 => Just(Step::Gather),
        4 => (0..8usize, 0..20u64).prop_map(|(request, limit)| Step::Release { request, limit }),
        1 => (0..9u64).prop_map(Step::Seal),
        1 => Just(Step::Late),
        1 => (0..30u64).prop_map(Step::Tenure),
    ]
}

/// Every request that ever took places, and what was done with it.
#[derive(Default)]
struct Oracle {
    /// First position, count, and the published records.
    requests: Vec<(Position, u64, Vec<Record>)>,
    emitted: Vec<Position>,
    gathered: usize,
    /// By block: the token, how many requests there were and how much was freed when it was given.
    reads: HashMap<u64, (Token, usize, Position)>,
}

impl Oracle {
    fn records(&self) -> impl Iterator<Item = &Record> {
        self.requests.iter().flat_map(|request| &request.2)
    }

    fn newest(&self, block: Block, freed: Position) -> Option<Record> {
        let live = self.records().filter(|r| r.position >= freed && r.extent().holds(block));
        live.max_by_key(|r| r.stamp).copied()
    }
}

struct Run {
    queue: Queue,
    clk: Clk,
    taker: Sequencer,
    gather: Gather,
    oracle: Oracle,
    limit: Position,
    /// Whether every publication seals.
    seals: bool,
}

impl Run {
    fn new(first: Position, seals: bool) -> Run {
        let (queue, clk) = opened(8, first);
        Run {
            limit: first + queue.places(),
            queue,
            clk,
            taker: Sequencer::new(first),
            gather: Gather::new(first),
            oracle: Oracle::default(),
            seals,
        }
    }

    fn insert(&mut self, number: u64, count: u64, time: u64, base: Option<(u32, Token)>) -> Insert {
        let records = records(self.queue.tail() * 10, count);
        self.insert_records(number, &records, time, base)
    }

    fn insert_records(
        &mut self,
        number: u64,
        records: &[NewRecord],
        time: u64,
        base: Option<(u32, Token)>,
    ) -> Insert {
        let count = records.len() as u64;
        let (tail, freed, sealed) = (self.queue.tail(), self.queue.freed(), self.clk.time());
        let epoch = self.clk.epoch();
        let written_at = tail + 1000;
        let write =
            NewWrite { block: block(number), records, time, written_at, bases: [base, None] };
        let inserted = match self.seals {
            true => insert_sealed(&self.queue, &self.clk, &write),
            false => self.queue.insert(&self.clk, epoch, &write),
        };
        match inserted {
            Insert::Published { first, stamp } => {
                assert_eq!(first, tail);
                assert!(tail + count <= self.limit);
                let blocks = write.extents().flat_map(|e| e.first.number..e.end());
                let seen = blocks
                    .filter_map(|number| self.oracle.newest(block(number), freed))
                    .filter(|seen| seen.stamp.epoch == epoch);
                let after = seen.map(|seen| seen.stamp.time).max().unwrap_or(0).max(sealed) + 1;
                assert_eq!((stamp.epoch, stamp.time), (epoch, after.max(time)));
                let rows = (0u32..).zip(records).zip(write.extents());
                let records = rows.map(|((index, record), extent)| Record {
                    position: first + u64::from(index),
                    stamp: Stamp { sequence: stamp.sequence + index, ..stamp },
                    block: extent.first,
                    level: extent.level,
                    content: record.content,
                    checksum: record.checksum,
                    index,
                    count: count as u32,
                    written_at,
                    place: NO_PLACE,
                    was_reflected: false,
                });
                self.oracle.requests.push((first, count, records.collect()));
            }
            Insert::Full => {
                assert!(tail + count > self.limit);
                assert_eq!(self.queue.tail(), tail);
            }
            // Only what cannot be foreseen costs places, and here everything can.
            Insert::Stale => assert_eq!(self.queue.tail(), tail),
            other => panic!("{other:?}"),
        }
        inserted
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Wide { number, count, time } if self.seals => {
                let zeros = extents(number, count);
                assert_ne!(self.insert_records(number, &zeros, time, None), Insert::Stale);
            }
            Step::Wide { .. } => {}
            Step::Insert { number, count, time } => {
                assert_ne!(self.insert(number, count, time, None), Insert::Stale);
            }
            Step::Read(number) => {
                let token = self.queue.newest(block(number)).1;
                let requests = self.oracle.requests.len();
                self.oracle.reads.insert(number, (token, requests, self.queue.freed()));
            }
            Step::Partial { number, before, count, time } => {
                let Some(&(token, requests, freed)) = self.oracle.reads.get(&number) else {
                    return;
                };
                let before = before.min(number);
                let base = Some((before as u32, token));
                let changed = self.oracle.requests[requests..]
                    .iter()
                    .any(|request| request.2.iter().any(|r| r.extent().holds(block(number))));
                match self.insert(number - before, before + count, time, base) {
                    Insert::Published { .. } => assert!(!changed, "a write was lost"),
                    Insert::Stale => assert!(changed || self.queue.freed() != freed),
                    _ => {}
                }
            }
            Step::Newest(number) => {
                let (found, token) = self.queue.newest(block(number));
                assert_eq!(found, self.oracle.newest(block(number), self.queue.freed()));
                assert_eq!(token.newest, found.map_or(0, |record| record.position));
                assert!(self.queue.unchanged(block(number), token));
            }
            Step::Zeros { number, count } => {
                let (tail, freed) = (self.queue.tail(), self.queue.freed());
                let may_have = self.queue.may_have(block(number), count);
                let mut blocks = (number..number + count.min(99)).map(block);
                let is_live = blocks.any(|block| self.oracle.newest(block, freed).is_some());
                assert!(may_have || !is_live, "a live record is missed");
                assert!(!may_have || freed < tail, "nothing is live at all");
                let epoch = self.clk.epoch();
                assert!(self.queue.admits(&self.clk, epoch, || true));
                assert!(!self.queue.admits(&self.clk, epoch - 1, || true));
                assert!(!self.queue.admits(&self.clk, epoch, || false));
                assert_eq!(self.queue.tail(), tail);
            }
            Step::Take(ready) => {
                let before = self.queue.freed().saturating_add(ready);
                let mut out = Vec::new();
                self.taker.take(&self.queue, &self.clk, |position| position < before, &mut out);
                let mut rest: Vec<_> = self
                    .oracle
                    .records()
                    .filter(|r| !self.oracle.emitted.contains(&r.position))
                    .map(|r| (r.stamp, r.position))
                    .collect();
                rest.sort();
                let takes = rest.iter().position(|r| r.1 >= before).unwrap_or(rest.len());
                assert_eq!(out, rest[..takes]);
                let (epoch, sealed) = (self.clk.epoch(), self.clk.time());
                assert!(out.iter().all(|(s, _)| s.epoch < epoch || s.time <= sealed));
                assert_eq!(self.taker.is_empty(), takes == rest.len());
                let first_held = rest[takes..].iter().map(|r| r.1).min();
                let start = first_held.map_or(self.queue.tail(), |position| {
                    self.oracle.records().find(|r| r.position == position).unwrap().first()
                });
                assert_eq!(self.taker.done(&self.queue), start);
                self.oracle.emitted.extend(out.iter().map(|taken| taken.1));
            }
            Step::Gather => {
                let mut out = Vec::new();
                self.gather.run(&self.queue, &mut out);
                let fresh = &self.oracle.requests[self.oracle.gathered..];
                let fresh: Vec<_> = fresh.iter().flat_map(|r| &r.2).map(|r| r.position).collect();
                assert_eq!(out, fresh);
                assert_eq!(self.gather.settled(), self.queue.tail());
                self.oracle.gathered = self.oracle.requests.len();
            }
            Step::Release { request, limit } => {
                let done = self.taker.done(&self.queue);
                let emitted = |r: &Record| self.oracle.emitted.contains(&r.position);
                assert!(self.oracle.records().filter(|r| r.position < done).all(emitted));
                let held = done.min(self.gather.settled());
                let starts = self.oracle.requests.iter().map(|request| request.0);
                let allowed: Vec<_> = starts
                    .chain([self.queue.tail()])
                    .filter(|&first| first >= self.queue.freed() && first <= held)
                    .collect();
                let Some(&freed) = allowed.get(request.min(allowed.len().saturating_sub(1))) else {
                    return;
                };
                self.queue.release(freed, freed + limit);
                self.limit = self.limit.max(freed + limit.min(self.queue.places()));
                assert_eq!(self.queue.free(), self.limit.saturating_sub(self.queue.tail()));
                assert_eq!(self.queue.live(freed.saturating_sub(1)), None);
            }
            Step::Seal(above) => self.clk.raise(self.clk.time() + above),
            Step::Late => {
                let tail = self.queue.tail();
                let records = records(0, 1);
                let (block, time) = (block(1), 100);
                let write =
                    NewWrite { block, records: &records, time, written_at: 0, bases: [None; 2] };
                match self.queue.insert(&self.clk, self.clk.epoch() - 1, &write) {
                    Insert::Closed => self.oracle.requests.push((tail, 1, Vec::new())),
                    other => assert_eq!((other, tail), (Insert::Full, self.limit)),
                }
            }
            Step::Tenure(time) => {
                let epoch = self.clk.epoch();
                self.clk.close();
                let horizon = self.queue.horizon();
                assert_eq!(horizon, self.queue.tail());
                // Stamps of the new tenure follow those of the old one whatever their times.
                self.clk.open(epoch + 1, time);
            }
        }
    }
}

fn config() -> ProptestConfig {
    let cases = if cfg!(miri) { 6 } else { 200 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn does_what_the_oracle_does(
        first in 1..20u64,
        seals in any::<bool>(),
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 60 } else { 300 }),
    ) {
        let mut run = Run::new(first, seals);
        for step in &steps {
            run.step(step);
        }
        run.step(&Step::Take(u64::MAX));
        (0..16).for_each(|number| run.step(&Step::Newest(number)));
    }

    #[test]
    fn receives_in_order(
        numbers in prop::collection::vec((0..5u64, 0..3u64, any::<bool>()), 1..80),
    ) {
        let (queue, clk) = opened(8, 3);
        let mut taker = Sequencer::new(3);
        let (mut newest, mut given, mut taken) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut stamp = Stamp { epoch: 4, time: 9, sequence: 0 };
        for (number, later, zero) in numbers {
            stamp.time += later;
            stamp.sequence += 1;
            let record = Record {
                position: 0,
                stamp,
                block: block(number),
                level: 0,
                content: if zero { Content::Zero } else { Content::Data },
                checksum: stamp.time,
                // Parts of requests are received apart.
                index: stamp.sequence % 3,
                count: 3,
                written_at: 5,
                place: 4096 * u64::from(stamp.sequence),
                was_reflected: false,
            };
            match queue.receive(&record) {
                Some(position) => {
                    let record = Record { position, ..record };
                    assert!(queue.is_durable(position));
                    assert_eq!(queue.newest(block(number)).0, Some(record));
                    newest.insert(number, position);
                    given.push((stamp, position));
                }
                None => {
                    assert_eq!(queue.free(), 0);
                    taker.take(&queue, &clk, |_| true, &mut taken);
                    assert_eq!(taken, given);
                    let freed = taker.done(&queue).min(queue.tail() - 3);
                    queue.release(freed, Position::MAX);
                    newest.retain(|_, position| *position >= freed);
                    for number in 0..5 {
                        let found = queue.newest(block(number)).0.map(|record| record.position);
                        assert_eq!(found, newest.get(&number).copied());
                    }
                }
            }
        }
    }
}

#[test]
fn a_base_that_came_and_went_is_stale() {
    let (queue, clk) = opened(4, 1);
    let mut taker = Sequencer::new(1);
    let (_, nothing) = queue.newest(block(1));
    write_one(&queue, &clk, 1, 10);
    let (_, token) = queue.newest(block(1));
    write_one(&queue, &clk, 1, 10);
    assert_eq!(take_all(&mut taker, &queue, &clk).len(), 2);
    queue.release(queue.tail(), Position::MAX);
    assert_eq!(queue.newest(block(1)).0, None);
    for base in [nothing, token] {
        let records = records(0, 1);
        let bases = [Some((0, base)), None];
        let write = NewWrite { block: block(1), records: &records, time: 0, written_at: 0, bases };
        assert_eq!(queue.insert(&clk, 1, &write), Insert::Stale);
        assert!(!queue.unchanged(block(1), base));
    }
}

#[test]
fn time_runs_out() {
    let (queue, clk) = opened(4, 1);
    clk.raise(u64::MAX - 1);
    assert_eq!(write_one(&queue, &clk, 1, 0).time, u64::MAX);
    let records = records(0, 1);
    for number in [1, 2] {
        let block = block(number);
        let write = NewWrite { block, records: &records, time: 0, written_at: 0, bases: [None; 2] };
        assert_eq!(queue.insert(&clk, 1, &write), Insert::Exhausted);
        clk.raise(u64::MAX);
    }
}

/// Takes places as an insertion does, and leaves them there.
fn stall(queue: &Queue, count: u64) -> Position {
    queue.reserve(count).expect("places")
}

#[test]
fn a_stalled_writer_holds_up_the_taker_only() {
    let (queue, clk) = opened(16, 1);
    let mut taker = Sequencer::new(1);
    let mut gather = Gather::new(1);
    let mut gathered = Vec::new();
    write_one(&queue, &clk, 1, 10);
    let stalled = stall(&queue, 2);
    let third = write_one(&queue, &clk, 1, 0);
    assert_eq!(queue.newest(block(1)).0.map(|record| record.stamp), Some(third));
    gather.run(&queue, &mut gathered);
    assert_eq!((&gathered[..], gather.settled()), (&[1, 4][..], 2));
    assert_eq!(take_all(&mut taker, &queue, &clk), []);
    assert_eq!(taker.done(&queue), 1);
    // The drained stamp is sealed, although it is not emitted.
    assert!(write_one(&queue, &clk, 2, 0) > third);
    queue.settle_void(stalled, 2);
    // There is a reservation in flight at every call, but never the same: that is no obstacle.
    let stalled = stall(&queue, 1);
    assert_eq!(take_all(&mut taker, &queue, &clk).len(), 2);
    queue.settle_void(stalled, 1);
    stall(&queue, 1);
    assert_eq!(take_all(&mut taker, &queue, &clk).len(), 1);
    gather.run(&queue, &mut gathered);
    assert_eq!((&gathered[..], gather.settled()), (&[1, 4, 5][..], 7));
}

#[test]
fn overtaken_and_seen() {
    let (queue, clk) = opened(16, 1);
    let records = records(0, 1);
    let write = |time| NewWrite {
        block: block(1),
        records: &records,
        time,
        written_at: 0,
        bases: [None; 2],
    };
    let overtaken = stall(&queue, 1);
    let above = write_one(&queue, &clk, 1, 50);
    let stamp = Stamp { epoch: 1, time: 40, sequence: 1 };
    queue.fill(overtaken, stamp, &write(40));
    assert!(matches!(queue.link_all(overtaken, stamp, &write(40)), Err(Conflict::Overtaken)));
    queue.slot(overtaken).state.store(overtaken << 2 | VOID, Release);
    let seen = stall(&queue, 1);
    queue.fill(seen, stamp, &write(40));
    assert!(matches!(queue.link_all(seen, stamp, &write(40)), Err(Conflict::Seen(50))));
    // The write is not void yet, so it is in the way of a partial write, which takes no places in vain.
    let (newest, token) = queue.newest(block(1));
    assert_eq!(newest.map(|record| record.stamp), Some(above));
    let partial = NewWrite { bases: [Some((0, token)), None], ..write(0) };
    let tail = queue.tail();
    assert_eq!(queue.insert(&clk, 1, &partial), Insert::Stale);
    assert_eq!(queue.tail(), tail);
    queue.slot(seen).state.store(seen << 2 | VOID, Release);
    assert!(matches!(queue.insert(&clk, 1, &partial), Insert::Published { .. }));
}
