//! The lock-free, time-ordered queue behind the unreflected tables R and L.
//!
//! A ring of reserved positions in the manner of FASTER's hybrid log (Chandramouli et al., SIGMOD
//! 2018): a writer takes positions from the tail, fills their slots, links them into the hash
//! chains of their blocks and publishes them by one store. Nobody sorts on the way in; whoever
//! takes in stamp order drains to the tail and sorts there ([`Sequencer`]).
//!
//! # Rules
//! 1. **A position is the announcement** (R2). Taking it is a read-modify-write of `tail`; the
//!    sealed time is read after it. Sealing raises `clk`, then touches `tail` by a
//!    read-modify-write too ([`Queue::horizon`]): a reservation after that in the order of `tail`
//!    sees the raised clock and gets a later stamp, one before it lies below the horizon and is
//!    waited for. No fence and no sequentially consistent access is needed. The same argument
//!    holds for the gate that a fence closes.
//! 2. **One store publishes**: the state of a request's first slot speaks for all its records, in
//!    R and in L.
//! 3. **A chain is sorted by position**, youngest first, and the records of one block in it have
//!    rising stamps with rising positions. A writer that finds itself overtaken on a block gives
//!    its positions up as *void* and takes new ones; one that finds an older neighbour with a
//!    later host time counts it as seen and is stamped after it. So the first published record of
//!    a block in its chain is the newest.
//! 4. **Positions below `freed` are gone**, in every chain at once: a chain ends where a position
//!    below `freed` stands. Slots are reused only by positions below `limit`, which is raised
//!    after `freed`; so whoever reads fields and then finds its position not freed has read that
//!    position's fields.
//!
//! Between taking and settling a position there is no I/O, allocation, wait, callback or panic.
//! A stalled writer delays neither insertions nor reads, only takers.
//!
//! | atomic | writers | readers | ordering |
//! |---|---|---|---|
//! | `tail` | inserters, sealers (by adding 0) | all | AcqRel read-modify-write: rule 1 |
//! | `limit` | the journal | inserters | Release/Acquire: after `freed`, rule 4 |
//! | `freed` | the checkpoint | all | Release/Acquire: rule 4 |
//! | bucket, `prev` | inserters (CAS) | all | AcqRel/Acquire: a linked slot is filled |
//! | `state` | the slot's inserter | all | Release/Acquire: a settled slot is filled |
//! | other fields | the slot's inserter before linking | all | Release/Acquire: rule 4 |
//! | `place`, `marks` | commit, reflect | all | Release/Acquire: data is there before the mark |

mod clk;
mod order;

pub use clk::Clk;
pub use order::{Gather, Sequencer};

use crate::sync::{AtomicU64, Ordering::*};
use crate::unit::{Block, Position, Stamp};
use crossbeam_utils::CachePadded;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A whole block of data.
    Data,
    /// No data: the block reads as zeros (R17).
    Zero,
}

/// One record of a request to insert.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord {
    /// Checksum of the block's data, 0 for zeros.
    pub checksum: u64,
    /// Data or zeros.
    pub content: Content,
}

/// A host's write, ready for admission: consecutive blocks of one volume.
#[derive(Clone, Copy, Debug)]
pub struct NewWrite<'a> {
    /// The first block.
    pub block: Block,
    /// One record a block; at least one.
    pub records: &'a [NewRecord],
    /// The host's time, or the device's own (R1), at most [`Stamp::HOST_TIME_MAX`].
    pub time: u64,
    /// When the write was admitted, on the monotonic clock, for lag and latency.
    pub written_at: u64,
    /// For blocks that the host gave only in part: index of the record and the position of the
    /// block's newest record when the rest was read (0: none), R15.
    pub bases: [Option<(u32, Position)>; 2],
}

/// How an insertion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// Published in R and L, at consecutive positions from `first`, with consecutive sequences
    /// from `stamp`.
    Published {
        /// Position of the first record.
        first: Position,
        /// Stamp of the first record.
        stamp: Stamp,
    },
    /// No place (R9). Nothing happened.
    Full,
    /// The tenure is over (R3, R14). Nothing happened.
    Closed,
    /// The block of a partial write has changed since the rest was read (R15): read it again.
    Stale,
    /// Time has run out of numbers: the device must halt.
    Exhausted,
}

/// A record as the tables see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position in its queue.
    pub position: Position,
    /// Its place in history.
    pub stamp: Stamp,
    /// Where it belongs.
    pub block: Block,
    /// Data or zeros.
    pub content: Content,
    /// Checksum of its data.
    pub checksum: u64,
    /// Which record of its request, from 0.
    pub index: u32,
    /// How many records its request has.
    pub count: u32,
    /// When it was written, on the monotonic clock of this device.
    pub written_at: u64,
    /// Byte offset of its data in its log; [`NO_PLACE`] until it is there.
    pub place: u64,
    /// Whether it is in the normal volume.
    pub reflected: bool,
}

impl Record {
    /// Position of the first record of its request.
    pub fn first(&self) -> Position {
        self.position - u64::from(self.index)
    }
}

/// The place of a record whose data is not in the log yet.
pub const NO_PLACE: u64 = u64::MAX;

const MEMBER: u64 = 0;
const INSERTING: u64 = 1;
const PUBLISHED: u64 = 2;
const VOID: u64 = 3;

const REFLECTED: u64 = 1;
const DURABLE: u64 = 2;

/// A place in the ring. Every field has one writer at a time: see the table above.
#[derive(Debug)]
struct Slot {
    /// `position << 2 | tag`; the tag of a request's first slot speaks for the request.
    state: AtomicU64,
    /// The next older position of the bucket's chain, 0 at its end.
    prev: AtomicU64,
    number: AtomicU64,
    /// `volume << 32 | sequence`
    volume_sequence: AtomicU64,
    time: AtomicU64,
    epoch: AtomicU64,
    /// `index << 32 | count << 1 | is data`
    shape: AtomicU64,
    checksum: AtomicU64,
    written_at: AtomicU64,
    place: AtomicU64,
    marks: AtomicU64,
}

impl Slot {
    fn new() -> Slot {
        let zero = || AtomicU64::new(0);
        Slot {
            state: zero(),
            prev: zero(),
            number: zero(),
            volume_sequence: zero(),
            time: zero(),
            epoch: zero(),
            shape: zero(),
            checksum: zero(),
            written_at: zero(),
            place: zero(),
            marks: zero(),
        }
    }

    fn block(&self) -> Block {
        let volume = (self.volume_sequence.load(Acquire) >> 32) as u32;
        Block { volume, number: self.number.load(Acquire) }
    }

    fn index(&self) -> u64 {
        self.shape.load(Acquire) >> 32
    }
}

/// What travels with a request and must be in place before it is published: its data. Storing a
/// pointer is all that an implementation may do (R2).
pub trait Cargo {
    /// The request's first position is `first`.
    fn board(&self, first: Position);
    /// The request gave `first` up.
    fn leave(&self, first: Position);
}

impl Cargo for () {
    fn board(&self, _: Position) {}
    fn leave(&self, _: Position) {}
}

/// Why a record could not be linked.
enum Conflict {
    /// A younger position already holds this block.
    Overtaken,
    /// The block's newest record has this time, which is not below ours.
    Seen(u64),
    /// The block of a partial write has changed.
    Stale,
}

/// The queue. One holds the own records (R, and their share of L), another the received ones.
#[derive(Debug)]
pub struct Queue {
    slots: Box<[Slot]>,
    buckets: Box<[AtomicU64]>,
    salt: u64,
    tail: CachePadded<AtomicU64>,
    limit: CachePadded<AtomicU64>,
    freed: CachePadded<AtomicU64>,
}

impl Queue {
    /// A queue of at least `places` places whose positions start at `first`. `salt` keeps hosts
    /// from choosing blocks that share a chain.
    pub fn new(places: usize, first: Position, salt: u64) -> Queue {
        assert!(first > 0, "position 0 means none");
        let places = places.next_power_of_two();
        // Two buckets a place: a chain holds half a record on average.
        let buckets = 2 * places;
        let start = || CachePadded::new(AtomicU64::new(first));
        Queue {
            slots: (0..places).map(|_| Slot::new()).collect(),
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
            salt: salt | 1,
            tail: start(),
            limit: start(),
            freed: start(),
        }
    }

    /// How many places there are.
    pub fn places(&self) -> u64 {
        self.slots.len() as u64
    }

    /// The position that the next reservation gets.
    pub fn tail(&self) -> Position {
        self.tail.load(Acquire)
    }

    /// Positions below this are gone.
    pub fn freed(&self) -> Position {
        self.freed.load(Acquire)
    }

    /// How many more places may be taken.
    pub fn free(&self) -> u64 {
        self.limit.load(Acquire).saturating_sub(self.tail.load(Acquire))
    }

    /// The tail, as a sealer or fencer must read it (rule 1): every reservation below it is
    /// waited for, every one at or above it sees what was stored before this call.
    pub fn horizon(&self) -> Position {
        self.tail.fetch_add(0, AcqRel)
    }

    /// Frees every position below `freed`, then lets the tail rise to `limit`. One caller at a
    /// time; both only ever rise.
    pub fn release(&self, freed: Position, limit: Position) {
        debug_assert!(freed >= self.freed() && freed <= self.tail());
        self.freed.store(freed, Release);
        let ring = freed + self.places();
        self.limit.fetch_max(limit.min(ring), AcqRel);
    }

    /// Lets the tail rise to `limit` without freeing anything.
    pub fn raise_limit(&self, limit: Position) {
        self.limit.fetch_max(limit.min(self.freed() + self.places()), AcqRel);
    }

    /// Admits a host's write (R1, R2, R16; S1603–S1606 as one step): all its places or none,
    /// stamped under `epoch`, in R and L at once.
    pub fn insert(&self, clk: &Clk, epoch: u64, write: &NewWrite<'_>) -> Insert {
        self.insert_with(clk, epoch, write, &())
    }

    /// As [`Queue::insert`], with the request's data.
    pub fn insert_with(
        &self,
        clk: &Clk,
        epoch: u64,
        write: &NewWrite<'_>,
        cargo: &impl Cargo,
    ) -> Insert {
        let count = write.records.len() as u64;
        let mut hint = write.time;
        loop {
            let Some(first) = self.reserve(count) else { return Insert::Full };
            // Announced: nothing but stores and compare-and-swaps until it is settled.
            if clk.epoch() != epoch {
                self.settle_void(first, count);
                return Insert::Closed;
            }
            let Some(after_sealed) = clk.time().checked_add(1) else {
                self.settle_void(first, count);
                return Insert::Exhausted;
            };
            let stamp = Stamp {
                epoch,
                time: hint.max(after_sealed),
                // Consecutive within a request, unique among requests of one time.
                sequence: (first & 0x7fff_ffff) as u32,
            };
            self.fill(first, stamp, write);
            cargo.board(first);
            match self.link_all(first, stamp, write) {
                Ok(()) => {
                    self.slot(first).state.store(first << 2 | PUBLISHED, Release);
                    return Insert::Published { first, stamp };
                }
                Err(conflict) => {
                    cargo.leave(first);
                    self.slot(first).state.store(first << 2 | VOID, Release);
                    match conflict {
                        Conflict::Overtaken => {}
                        Conflict::Seen(time) => match time.checked_add(1) {
                            Some(after) => hint = hint.max(after),
                            None => return Insert::Exhausted,
                        },
                        Conflict::Stale => return Insert::Stale,
                    }
                }
            }
        }
    }

    /// Publishes a received record, which is durable at `place` (R6; S1502). One caller at a
    /// time, in stamp order. `None`: no place, the sender exceeded its credit.
    pub fn receive(&self, record: &Record) -> Option<Position> {
        let position = self.reserve(1)?;
        let write = NewWrite {
            block: record.block,
            records: &[NewRecord { checksum: record.checksum, content: record.content }],
            time: 0,
            written_at: record.written_at,
            bases: [None; 2],
        };
        self.fill(position, record.stamp, &write);
        let slot = self.slot(position);
        slot.place.store(record.place, Release);
        slot.marks.store(DURABLE, Release);
        // One producer with rising stamps: nothing can be in the way.
        let linked = self.link(position, record.stamp.time, None, true);
        debug_assert!(linked.is_ok());
        slot.state.store(position << 2 | PUBLISHED, Release);
        Some(position)
    }

    fn slot(&self, position: Position) -> &Slot {
        &self.slots[(position & (self.slots.len() as u64 - 1)) as usize]
    }

    fn bucket(&self, block: Block) -> &AtomicU64 {
        let key = block.number ^ (u64::from(block.volume) << 40) ^ self.salt;
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (hash ^ hash >> 32).wrapping_mul(self.salt ^ 0xd6e8_feb8_6659_fd93);
        &self.buckets[(hash >> 32) as usize & (self.buckets.len() - 1)]
    }

    fn reserve(&self, count: u64) -> Option<Position> {
        let mut tail = self.tail.load(Relaxed);
        loop {
            if tail + count > self.limit.load(Acquire) {
                return None;
            }
            match self.tail.compare_exchange_weak(tail, tail + count, AcqRel, Relaxed) {
                Ok(first) => return Some(first),
                Err(now) => tail = now,
            }
        }
    }

    fn settle_void(&self, first: Position, count: u64) {
        for index in 0..count {
            let slot = self.slot(first + index);
            slot.shape.store(index << 32 | count << 1, Release);
            let tag = if index == 0 { VOID } else { MEMBER };
            slot.state.store((first + index) << 2 | tag, Release);
        }
    }

    fn fill(&self, first: Position, stamp: Stamp, write: &NewWrite<'_>) {
        let count = write.records.len() as u64;
        for (index, record) in (0..).zip(write.records) {
            let slot = self.slot(first + index);
            slot.number.store(write.block.number + index, Release);
            let sequence = u64::from(stamp.sequence) + index;
            slot.volume_sequence.store(u64::from(write.block.volume) << 32 | sequence, Release);
            slot.time.store(stamp.time, Release);
            slot.epoch.store(stamp.epoch, Release);
            let data = u64::from(record.content == Content::Data);
            slot.shape.store(index << 32 | count << 1 | data, Release);
            slot.checksum.store(record.checksum, Release);
            slot.written_at.store(write.written_at, Release);
            slot.place.store(NO_PLACE, Release);
            slot.marks.store(0, Release);
            let tag = if index == 0 { INSERTING } else { MEMBER };
            slot.state.store((first + index) << 2 | tag, Release);
        }
    }

    fn link_all(
        &self,
        first: Position,
        stamp: Stamp,
        write: &NewWrite<'_>,
    ) -> Result<(), Conflict> {
        for index in 0..write.records.len() as u64 {
            let base = write.bases.iter().flatten().find(|b| u64::from(b.0) == index).map(|b| b.1);
            self.link(first + index, stamp.time, base, false)?;
        }
        Ok(())
    }

    /// Puts a filled slot into its block's chain, keeping rule 3. A stamp that is `given` was
    /// ordered by somebody else.
    fn link(
        &self,
        position: Position,
        time: u64,
        base: Option<Position>,
        given: bool,
    ) -> Result<(), Conflict> {
        let slot = self.slot(position);
        let block = slot.block();
        let bucket = self.bucket(block);
        loop {
            let mut link = bucket;
            let mut next = link.load(Acquire);
            // Younger positions cannot be freed while ours is unsettled: their slots are theirs.
            while next > position {
                let younger = self.slot(next);
                if younger.block() == block && !self.is_void(next) {
                    return Err(Conflict::Overtaken);
                }
                link = &younger.prev;
                next = link.load(Acquire);
            }
            let older = self.newest_from(next, block, |p| !self.is_void(p));
            if let Some(base) = base {
                let now = older.unwrap_or(0);
                // Nothing live is what was read, too, if what was read has been freed since.
                if now != base && !(now == 0 && base < self.freed()) {
                    return Err(Conflict::Stale);
                }
            }
            if let (Some(older), false) = (older, given) {
                let seen = self.slot(older).time.load(Acquire);
                let same_epoch = self.slot(older).epoch.load(Acquire) == slot.epoch.load(Acquire);
                // Read before it was freed, or else it does not matter any more.
                if older >= self.freed() && same_epoch && seen >= time {
                    return Err(Conflict::Seen(seen));
                }
            }
            slot.prev.store(next, Release);
            if link.compare_exchange(next, position, AcqRel, Relaxed).is_ok() {
                return Ok(());
            }
        }
    }

    /// The first record of `block` in the chain from `next` on that `takes` accepts.
    fn newest_from(
        &self,
        mut next: Position,
        block: Block,
        takes: impl Fn(Position) -> bool,
    ) -> Option<Position> {
        while next >= self.freed() && next != 0 {
            let slot = self.slot(next);
            let is_it = slot.block() == block && takes(next);
            let prev = slot.prev.load(Acquire);
            if next < self.freed() {
                return None; // freed while we read it, and all below it with it
            }
            if is_it {
                return Some(next);
            }
            next = prev;
        }
        None
    }

    fn is_void(&self, position: Position) -> bool {
        self.settled(position) == Some(false)
    }

    /// Whether `position` is settled, and then whether as published (`true`) or void.
    pub fn settled(&self, position: Position) -> Option<bool> {
        let slot = self.slot(position);
        let state = slot.state.load(Acquire);
        if state >> 2 != position {
            return None;
        }
        let state = match state & 3 {
            MEMBER => self.slot(position - slot.index()).state.load(Acquire),
            _ => state,
        };
        match state & 3 {
            PUBLISHED => Some(true),
            VOID => Some(false),
            _ => None,
        }
    }

    /// Which record of its request the one at the settled `position` is, from 0.
    pub fn index(&self, position: Position) -> u64 {
        self.slot(position).index()
    }

    /// The newest published record of `block`, with a token for [`Queue::unchanged`].
    pub fn newest(&self, block: Block) -> (Option<Record>, Token) {
        let freed = self.freed();
        let head = self.bucket(block).load(Acquire);
        let found = self.newest_from(head, block, |p| self.settled(p) == Some(true));
        let record = found.and_then(|position| self.live(position));
        (record, Token { head, freed, newest: record.map_or(0, |r| r.position) })
    }

    /// Whether nothing that a reader of `block` could see has moved since `token` was given.
    pub fn unchanged(&self, block: Block, token: Token) -> bool {
        self.newest(block).1 == token
    }

    /// The record at `position`, unless it has been freed.
    pub fn live(&self, position: Position) -> Option<Record> {
        let record = self.record(position);
        (position >= self.freed()).then_some(record)
    }

    /// The record at `position`, which the caller knows to be published and not freed.
    pub fn record(&self, position: Position) -> Record {
        let slot = self.slot(position);
        let shape = slot.shape.load(Acquire);
        let volume_sequence = slot.volume_sequence.load(Acquire);
        Record {
            position,
            stamp: Stamp {
                epoch: slot.epoch.load(Acquire),
                time: slot.time.load(Acquire),
                sequence: volume_sequence as u32,
            },
            block: slot.block(),
            content: if shape & 1 == 1 { Content::Data } else { Content::Zero },
            checksum: slot.checksum.load(Acquire),
            index: (shape >> 32) as u32,
            count: (shape as u32) >> 1,
            written_at: slot.written_at.load(Acquire),
            place: slot.place.load(Acquire),
            reflected: slot.marks.load(Acquire) & REFLECTED != 0,
        }
    }

    /// Says where in the log the data of `position` now is.
    pub fn set_place(&self, position: Position, place: u64) {
        self.slot(position).place.store(place, Release);
    }

    /// Marks the record at `position` durable in its log.
    pub fn set_durable(&self, position: Position) {
        self.slot(position).marks.fetch_or(DURABLE, AcqRel);
    }

    /// Whether the record at `position` is durable in its log.
    pub fn is_durable(&self, position: Position) -> bool {
        self.slot(position).marks.load(Acquire) & DURABLE != 0
    }

    /// Marks the record at `position` as being in the normal volume (S1502, invalidation in L).
    pub fn set_reflected(&self, position: Position) {
        self.slot(position).marks.fetch_or(REFLECTED, AcqRel);
    }
}

/// What a reader saw of a block's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    head: Position,
    freed: Position,
    /// The newest published record's position, 0 if there was none.
    pub newest: Position,
}

#[cfg(all(test, not(loom)))]
mod tests;
