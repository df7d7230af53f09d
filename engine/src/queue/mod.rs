//! The lock-free, time-ordered queue behind the unreflected tables R and L.
//!
//! A ring of reserved positions in the manner of FASTER's hybrid log (Chandramouli et al., SIGMOD
//! 2018): a writer takes positions from the tail, fills their slots, links them into the hash
//! chains of their blocks and publishes them by one store. Writers sort nothing; a taker in stamp
//! order drains to the tail and sorts there ([`Sequencer`]).
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
//!    rising stamps with rising positions. So the first published record of a block in its chain
//!    is the newest. A writer links first and looks afterwards: overtaken on a block, it gives its
//!    positions up as *void* and takes new ones; above a record with a later time, it counts that
//!    as seen, and is void and stamped after it. Two writers of a block cannot miss each other:
//!    linking at the head of a chain is a read-modify-write of the bucket, linking further down is
//!    followed by one, and whichever of the two comes second sees the other's link (as in rule 1).
//! 4. **Positions below `freed` are gone**, in every chain at once: a chain ends where a position
//!    below `freed` stands. Slots are reused only by positions below `limit`, which is raised
//!    after `freed`; so a reader of fields that then finds its position not freed has read that
//!    position's fields. Only settled positions are freed, and only whole requests, because a
//!    record looks up its state in the slot of its request's first.
//!
//! 5. **Overlapping records stand in the order of their stamps**, whatever their extents (R19), though
//!    records of different extents stand in different chains. A look for a block goes through the
//!    chains of all extents that hold it (`extent.rs`): those of a level at which nothing is live cost
//!    nothing. A wide request, which has an extent of many blocks, cannot look into the chain of
//!    each block. It looks at the requests in flight instead, and at those published since the last
//!    look, and compares; one that has taken its positions and not filled them yet makes it give up, as
//!    stale. Requests that take their positions behind its look at `tail`, a read-modify-write, find it
//!    in its chains, which it is linked to before. Records published before are older, because a
//!    write's time is sealed before it is published.
//!
//! 6. **A request without a record is a reservation of no places** (R17). It looks whether anything is
//!    live of its blocks, then at the volume, then touches `tail` by a read-modify-write and looks at the
//!    gate (rule 1): a fence behind that finds all it looked at done. It looks one by one at the requests
//!    that the log does not have yet, and for the others at a counter for each region, which the commit
//!    raises for what it takes before it says so. A record that was published before the look is found
//!    there, is below the counter, or is below `freed` and in the volume. A zero record that is reflected
//!    and not yet checkpointed is live: where nothing is live, the volume's zeros are durable.
//!
//! Between taking and settling a position there is no I/O, allocation, wait, callback or panic.
//! A stalled writer delays neither insertions nor reads while `limit` lets the tail rise, only takers
//! and, since R15 leaves no choice, partial writes of the very block that it is writing: these are
//! [`Insert::Stale`] until it has settled, and take no places in vain. Wide requests are so until it has
//! filled its positions, and look at those published above it: at most at what the log does not have yet.
//!
//! | atomic | writers | readers | ordering |
//! |---|---|---|---|
//! | `tail` | inserters, sealers (by adding 0) | all | AcqRel read-modify-write: rule 1 |
//! | `limit` | the journal | inserters | Release/Acquire: after `freed`, rule 4 |
//! | `freed` | the checkpoint | all | Release/Acquire: rule 4 |
//! | `recent` | the commit, or the receiver | requests without a record | Release/Acquire: rule 6 |
//! | bucket | inserters (CAS, adding 0) | all | AcqRel/Acquire: a linked slot is filled; rule 3 |
//! | `prev` | the slot's inserter before linking, then inserters (CAS) | all | AcqRel/Acquire: a linked slot is filled |
//! | `state` | the slot's inserter | all | Release/Acquire: a settled slot is filled; with a request's first slot all of them are |
//! | other fields | the slot's inserter before linking | all | Release/Acquire: rule 4 |
//! | `place` with its marks | commit, reflect | all | Release/Acquire: data is there before the mark |
//! | `Clk::time` | sealers (max); a takeover, before it opens the tenure | inserters, sealers | AcqRel/Acquire: rule 1 |
//! | `Clk::open` | takeover and fence | all | Release/Acquire: a tenure's time and debt are set before it opens; rule 1 for its end |

mod chain;
mod clk;
mod extent;
mod order;
mod recent;
mod record;
mod slot;

pub use clk::Clk;
pub use order::{Gather, Sequencer};
pub use record::{Content, Insert, NO_PLACE, NewRecord, NewWrite, Record, Token};

use crate::moment::{Moment, moment};
use crate::sync::{AtomicU64, Ordering::*, fence, zeros};
use crate::unit::{Block, Extent, Position, Stamp};
use crate::weaken::{Clause, holds, instead};
use chain::Conflict;
use crossbeam_utils::CachePadded;
use extent::{Levels, Span};
use recent::Recent;
use slot::{ALONE, DURABLE, INSERTING, MARKS, MEMBER, PUBLISHED, REFLECTED, Slot, VOID};

/// The queue. One holds the own records (R, and their share of L), another the received ones.
#[derive(Debug)]
pub struct Queue {
    slots: Box<[Slot]>,
    buckets: Box<[AtomicU64]>,
    salt: u64,
    tail: CachePadded<AtomicU64>,
    limit: CachePadded<AtomicU64>,
    freed: CachePadded<AtomicU64>,
    levels: CachePadded<Levels>,
    recent: Recent,
}

impl Queue {
    /// A queue of at least `places` places whose positions start at `first`. `salt` keeps hosts
    /// from choosing blocks that share a chain. `None`: the operating system refuses the address space
    /// ([`Queue::bytes`]).
    pub fn new(places: usize, first: Position, salt: u64) -> Option<Queue> {
        assert!(first > 0, "position 0 means none");
        let places = places.next_power_of_two();
        let start = || CachePadded::new(AtomicU64::new(first));
        Some(Queue {
            slots: zeros(places)?,
            // One bucket a place: a chain holds one record at most on average.
            buckets: zeros(places)?,
            salt: salt | 1,
            tail: start(),
            limit: start(),
            freed: start(),
            levels: CachePadded::new(Levels::new(first)?),
            recent: Recent::new(first)?,
        })
    }

    /// Bytes of address space of a queue of at least `places` places.
    pub fn bytes(places: usize) -> u64 {
        (places.next_power_of_two() * (size_of::<Slot>() + size_of::<AtomicU64>())) as u64
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
    /// time; both only ever rise. `freed` is where a request begins, or the tail, and everything
    /// below it is settled (rule 4).
    pub fn release(&self, freed: Position, limit: Position) {
        debug_assert!(freed >= self.freed() && freed <= self.tail());
        debug_assert!((self.freed()..freed).all(|position| self.settled(position).is_some()));
        debug_assert!(self.slot(freed).state.load(Acquire) != freed << 2 | MEMBER);
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
        self.insert_with(clk, epoch, write, |_| (), || true, |_, _| true)
    }

    /// As [`Queue::insert`], with three calls to the caller:
    /// - `ready`, each time before places are taken, with the position of the next one: what has to be
    ///   allocated is allocated there.
    /// - `may`, once they are taken: whether the request may be admitted (R20). Only loads are allowed
    ///   there.
    /// - `board`, right before the request is published: it puts the request's data where readers of
    ///   its first position look for it, and seals its time (rule 5). A move under a lock that is not
    ///   waited for is all that it may do besides (R2). `false`: a stalled reader is in the way, or
    ///   others were so fast that nothing is ready there, and the request takes other places.
    pub fn insert_with(
        &self,
        clk: &Clk,
        epoch: u64,
        write: &NewWrite<'_>,
        ready: impl Fn(Position),
        may: impl Fn() -> bool,
        mut board: impl FnMut(Position, Stamp) -> bool,
    ) -> Insert {
        let count = write.records.len() as u64;
        let is_wide = write.is_wide();
        let mut hint = write.time;
        loop {
            // Most conflicts are foreseen here, before they cost places; rule 3 decides below.
            match self.foresee(epoch, hint, write) {
                Ok(()) => {}
                Err(Conflict::Seen(time)) => match time.checked_add(1) {
                    Some(after) => hint = after,
                    None => return Insert::Exhausted,
                },
                Err(Conflict::Overtaken) => unreachable!("nothing is younger than no position"),
                Err(Conflict::Stale) => return Insert::Stale,
            }
            let floor = if is_wide { self.settled_floor() } else { 0 };
            if is_wide && !(floor..self.tail()).all(|position| self.is_filled(position)) {
                return Insert::Stale;
            }
            ready(self.tail());
            let Some(first) = self.reserve(count) else { return Insert::Full };
            // Announced: nothing but stores and compare-and-swaps until it is settled.
            if clk.epoch() != epoch || !may() {
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
            moment(Moment::Reserved);
            self.fill(first, stamp, write);
            let mut looked = self.link_all(first, stamp, write);
            if is_wide && looked.is_ok() && holds(Clause::WideLook) {
                looked = self.look_at_others(floor, first, stamp, write);
                if let Err(Conflict::Seen(time)) = looked {
                    hint = time.saturating_add(1);
                }
                moment(Moment::Linked);
            }
            let stays = looked.is_ok() && board(first, stamp);
            let tag = if stays { PUBLISHED } else { VOID };
            self.slot(first).state.store(first << 2 | tag, Release);
            if stays {
                return Insert::Published { first, stamp };
            }
            if is_wide && matches!(looked, Err(Conflict::Stale)) {
                return Insert::Stale;
            }
        }
    }

    /// Publishes a received record, or an own one at opening, which is durable at `place` (R6;
    /// S1502), by itself: it keeps which record of its request it is (R16). One caller at a time,
    /// in stamp order. `None`: no place, the sender exceeded its credit.
    pub fn receive(&self, record: &Record) -> Option<Position> {
        let position = self.reserve(1)?;
        let write = NewWrite {
            block: record.block,
            records: &[NewRecord {
                checksum: record.checksum,
                content: record.content,
                level: record.level,
            }],
            time: 0,
            written_at: record.written_at,
            bases: [None; 2],
        };
        self.fill(position, record.stamp, &write);
        let slot = self.slot(position);
        let data = u64::from(record.content == Content::Data);
        let (index, count) = (u64::from(record.index), u64::from(record.count));
        slot.shape.store(ALONE | index << 32 | count << 1 | data, Release);
        slot.place.store(record.place & !MARKS | DURABLE, Release);
        // One producer with rising stamps: nothing can be in the way.
        self.levels.raise(record.extent(), position);
        self.link(position, self.bucket(record.extent()));
        slot.state.store(position << 2 | PUBLISHED, Release);
        self.note(&[position], position + 1);
        Some(position)
    }

    fn slot(&self, position: Position) -> &Slot {
        &self.slots[(position & (self.slots.len() as u64 - 1)) as usize]
    }

    fn reserve(&self, count: u64) -> Option<Position> {
        let mut tail = self.tail.load(Relaxed);
        loop {
            if tail + count > self.limit.load(Acquire) && holds(Clause::PlacesBeforeReservation) {
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

    #[inline(always)]
    fn fill(&self, first: Position, stamp: Stamp, write: &NewWrite<'_>) {
        let count = write.records.len() as u64;
        let has_parts = write.bases.iter().any(Option::is_some);
        for ((index, record), extent) in (0..).zip(write.records).zip(write.extents()) {
            let slot = self.slot(first + index);
            slot.span.store(Span::of(extent, has_parts).0, Release);
            let mut sequence = u64::from(stamp.sequence);
            if holds(Clause::RequestStamps) {
                sequence += index;
            }
            slot.volume_sequence.store(u64::from(write.block.volume) << 32 | sequence, Release);
            slot.time.store(stamp.time, Release);
            slot.epoch.store(stamp.epoch, Release);
            let data = u64::from(record.content == Content::Data);
            slot.shape.store(index << 32 | count << 1 | data, Release);
            slot.checksum.store(record.checksum, Release);
            slot.written_at.store(write.written_at, Release);
            slot.place.store(NO_PLACE & !MARKS, Release);
            if index > 0 {
                slot.state.store((first + index) << 2 | MEMBER, Release);
            }
        }
        // Behind all of the request's extents and times: rule 5.
        self.slot(first).state.store(first << 2 | INSERTING, Release);
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
            // Wrapping, because the index is another request's if `position` was freed meanwhile.
            MEMBER => instead::state_of_request(PUBLISHED, || {
                let first = position.wrapping_sub(slot.group().0);
                let of_first = self.slot(first).state.load(Acquire);
                // The first slot is the last to be filled: until then it has an older request's state.
                if of_first >> 2 < first { INSERTING } else { of_first }
            }),
            _ => state,
        };
        match state & 3 {
            PUBLISHED => Some(true),
            VOID => Some(false),
            _ => None,
        }
    }

    /// Which of the records that were published together the one at the settled `position` is, from
    /// 0, and how many they are: a whole request, unless it was received.
    pub fn group(&self, position: Position) -> (u64, u64) {
        self.slot(position).group()
    }

    /// Position of the first of those that were published together with the settled `position`.
    pub fn first(&self, position: Position) -> Position {
        position - self.group(position).0
    }

    /// Whether the record at the settled `position` carries data, not zeros.
    pub fn has_data(&self, position: Position) -> bool {
        self.slot(position).shape.load(Acquire) & 1 == 1
    }

    /// The newest published record that covers `block`, with a token for [`Queue::unchanged`].
    pub fn newest(&self, block: Block) -> (Option<Record>, Token) {
        let freed = self.freed();
        let extent = Extent::from(block);
        let head = self.bucket(extent).load(Acquire);
        let found = self.newest_around(head, extent, |p| self.settled(p) == Some(true));
        let record = found.and_then(|position| self.live(position));
        (record, Token { head, freed, newest: record.map_or(0, |r| r.position) })
    }

    /// The newest published record that covers `block` and is not above `cut`.
    pub fn newest_upto(&self, block: Block, cut: Stamp) -> Option<Record> {
        let extent = Extent::from(block);
        let head = self.bucket(extent).load(Acquire);
        let is_within = |p| self.settled(p) == Some(true) && self.stamp(p) <= cut;
        let found = self.newest_around(head, extent, is_within);
        found.and_then(|position| self.live(position))
    }

    /// Whether nothing that a reader of `block` could see has moved since `token` was given.
    pub fn unchanged(&self, block: Block, token: Token) -> bool {
        // The reads since then stay before this look.
        fence(Acquire);
        // `freed` once more, behind the look: freed in the middle of it, a record that came and
        // was reflected since would be missed, and the rest be as it was.
        self.newest(block).1 == token && self.freed() == token.freed
    }

    /// The record at `position`, unless it has been freed.
    pub fn live(&self, position: Position) -> Option<Record> {
        let record = self.record(position);
        (position >= self.freed()).then_some(record)
    }

    /// The record at `position`, which the caller knows to be published and not freed.
    pub fn record(&self, position: Position) -> Record {
        self.slot(position).record(position)
    }

    /// The stamp of the record at `position`, as [`Queue::record`] has it.
    pub fn stamp(&self, position: Position) -> Stamp {
        self.slot(position).stamp()
    }

    /// Says where in the log the data of `position` now is, once.
    pub fn set_place(&self, position: Position, place: u64) {
        debug_assert!(place & MARKS == 0, "{place} is no multiple of 512");
        // All of its bits are set until then, but for the marks, which stay.
        self.slot(position).place.fetch_and(place | MARKS, AcqRel);
    }

    /// Marks the record at `position` durable in its log.
    pub fn set_durable(&self, position: Position) {
        self.slot(position).place.fetch_or(DURABLE, AcqRel);
    }

    /// Whether the record at `position` is durable in its log.
    pub fn is_durable(&self, position: Position) -> bool {
        self.slot(position).place.load(Acquire) & DURABLE != 0
    }

    /// Marks the record at `position` as being in the normal volume (S1502, invalidation in L).
    pub fn set_reflected(&self, position: Position) {
        self.slot(position).place.fetch_or(REFLECTED, AcqRel);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
