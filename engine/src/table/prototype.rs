//! The prototype (S805, R4) and what becomes of it here: the peer's debt, `pend` (R5).
//!
//! A prototype names, for every extent in the sender's R, which mostly is a block (R19), its newest
//! stamp there, in rising stamp order. A record once named is told and stays told (R18): the debt grows at one end and is paid from
//! the other, through takeovers, fences and connections, and a prototype names only records behind
//! the last stamp told.

use crate::sync::{AtomicU64, Ordering};
use crate::unit::{Block, Extent, Stamp, regions};
use crate::weaken::{Clause, holds};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;
use std::collections::VecDeque;

/// So few entries are not worth a look at how many of them were replaced.
const ENTRIES_MIN: usize = 256;

/// So few entries are indexed in their order.
const BATCH_MIN: usize = if cfg!(test) { 64 } else { 4096 };

/// So many entries (32 MiB) are not left without an index.
const BATCH_MAX: usize = 1 << 20;

/// Parts of the index that are filled one after the other.
const PARTS: usize = 256;

/// Regions further apart share a number.
const REGIONS: usize = 4096;

const MIXER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where an entry's number has its extent's level.
const LEVEL_SHIFT: u32 = 58;

/// Mixes well and costs little: blocks come from a peer of this group.
fn short_hash(extent: Extent) -> u32 {
    let Extent { first, level } = extent;
    let number = first.number ^ u64::from(level) << LEVEL_SHIFT;
    let mixed = (u64::from(first.volume).rotate_left(40) ^ number).wrapping_mul(MIXER);
    ((mixed ^ mixed >> 32).wrapping_mul(MIXER) >> 32) as u32
}

/// Over all the bits that the index looks at.
fn spread(short_hash: u32) -> u64 {
    u64::from(short_hash).wrapping_mul(MIXER)
}

fn hash(extent: Extent) -> u64 {
    spread(short_hash(extent))
}

/// One record told. A takeover takes in a million of them, and the memory that it touches is most of
/// its time.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The number of the extent's first block, and above it the level.
    number: u64,
    time: u64,
    volume: u32,
    sequence: u32,
    /// Where [`Debt::tenures`] has the stamp's epoch.
    tenure: u32,
    /// Whether a newer entry names the extent.
    is_replaced: bool,
}

const _: () = assert!(size_of::<Entry>() == 32);

impl Entry {
    fn extent(&self) -> Extent {
        let number = self.number & ((1 << LEVEL_SHIFT) - 1);
        let first = Block { volume: self.volume, number };
        Extent { first, level: (self.number >> LEVEL_SHIFT) as u8 }
    }
}

/// The records that the peer owes: extent → newest stamp, those above `hi`.
#[derive(Debug, Default)]
pub struct Debt {
    /// Rising.
    entries: VecDeque<Entry>,
    /// The epochs that the entries' stamps have, rising.
    tenures: Vec<u64>,
    /// Number of the front entry, counted from the first there ever was.
    begin: u64,
    /// Number of each extent's newest entry, its low 32 bits.
    newest: HashTable<u32>,
    /// How many entries from the front are in that index; all of them, but between the pieces of a
    /// prototype.
    indexed: usize,
    /// The last stamp told when they were all.
    indexed_last: Stamp,
    /// Number of the first entry that has not been received. Written by the receiver, after the
    /// record that pays is published; read before the queues are (R7). Release/Acquire: a reader that
    /// finds a block paid for finds its record.
    paid: AtomicU64,
    /// How many blocks the entries from there on name, but for those that are replaced.
    blocks: AtomicU64,
    /// For each level of extents, the number behind its newest entry; for level 0, of them all but it.
    levels: [u64; Extent::LEVEL_MAX as usize + 1],
    /// For each region, the number behind its newest entry (R17); none before the first entry.
    regions: Vec<u64>,
    /// The last stamp told.
    last: Stamp,
    /// The same, when no piece of what was told was still to come: a prototype names the newest record of
    /// each extent, so that behind a piece of it there may be older ones that a later piece replaces.
    whole: Stamp,
    /// The last stamp of a piece behind which others are still to come.
    in_pieces: Option<Stamp>,
}

/// Counts anew, where no reader has the debt.
fn count(blocks: &AtomicU64, by: impl FnOnce(u64) -> u64) {
    blocks.store(by(blocks.load(Ordering::Relaxed)), Ordering::Relaxed);
}

impl Debt {
    /// Takes the next piece of what the peer tells (S807, R18), which follows `previous` in the
    /// peer's order. Entries told before, and those at or below `hi`, which have arrived, are ignored.
    ///
    /// # Errors
    /// The entry that is not in rising order, that follows neither the last one told nor what has
    /// arrived, or whose extent would be one of more than `most`. The entries before it have been taken.
    pub fn extend(
        &mut self,
        previous: Stamp,
        piece: &[(Extent, Stamp)],
        hi: Stamp,
        most: u64,
    ) -> Result<(), String> {
        let told = self.take(previous, piece, hi, most);
        self.index(most).and(told)?;
        self.in_pieces = self.in_pieces.filter(|&upto| upto > hi);
        if self.in_pieces.is_none() {
            self.whole = self.last;
        }
        Ok(())
    }

    /// No more pieces are to come behind the next one.
    pub fn end_pieces(&mut self) {
        self.in_pieces = None;
    }

    /// As [`Debt::extend`], where more pieces follow: what it takes is asked for only behind the
    /// last one.
    ///
    /// # Errors
    /// As [`Debt::extend`], perhaps only with a later piece.
    pub fn append(
        &mut self,
        previous: Stamp,
        piece: &[(Extent, Stamp)],
        hi: Stamp,
        most: u64,
    ) -> Result<(), String> {
        let told = self.take(previous, piece, hi, most);
        self.in_pieces = Some(self.last);
        told
    }

    fn take(
        &mut self,
        previous: Stamp,
        piece: &[(Extent, Stamp)],
        hi: Stamp,
        most: u64,
    ) -> Result<(), String> {
        self.sweep();
        let mut before = previous;
        for &(extent, stamp) in piece {
            if stamp <= before {
                return Err(format!(
                    "the peer tells of record {stamp} after {before}, which is not older"
                ));
            }
            let has_arrived = stamp <= hi && holds(Clause::PrototypeFilter);
            if stamp > self.last && !has_arrived {
                let last = self.last;
                // The piece names everything behind `before`: a gap begins above what is known.
                if before > last.max(hi) && holds(Clause::ToldChain) {
                    return Err(format!(
                        "the peer tells of record {stamp} as the one after {before}, but the last one \
                         told here is {last}"
                    ));
                }
                self.push(extent, stamp);
            }
            before = stamp;
        }
        if self.entries.len() - self.indexed < BATCH_MAX { Ok(()) } else { self.index(most) }
    }

    fn push(&mut self, extent: Extent, stamp: Stamp) {
        if self.tenures.last() != Some(&stamp.epoch) {
            self.tenures.push(stamp.epoch);
        }
        let most = self.entries.capacity();
        if self.entries.len() == most {
            // By an eighth: the entries come round to all of the room, however few they are.
            self.entries.reserve_exact(most / 8 + ENTRIES_MIN);
        }
        self.entries.push_back(Entry {
            number: extent.first.number | u64::from(extent.level) << LEVEL_SHIFT,
            time: stamp.time,
            volume: extent.first.volume,
            sequence: stamp.sequence,
            tenure: self.tenures.len() as u32 - 1,
            is_replaced: false,
        });
        self.last = stamp;
        count(&self.blocks, |blocks| blocks + extent.blocks());
        self.enter(extent, self.begin + self.entries.len() as u64);
    }

    /// An entry of `extent` stands before number `behind`.
    fn enter(&mut self, extent: Extent, behind: u64) {
        if extent.level > 0 {
            self.levels[usize::from(extent.level)] = behind;
            self.levels[0] = behind;
        }
        self.regions.resize(REGIONS, 0);
        for region in regions(extent.first, extent.blocks(), REGIONS) {
            self.regions[region] = behind;
        }
    }

    fn stamp(&self, entry: &Entry) -> Stamp {
        let epoch = self.tenures[entry.tenure as usize];
        Stamp { epoch, time: entry.time, sequence: entry.sequence }
    }

    /// Makes room for so many entries more, in one go.
    pub fn reserve(&mut self, entries: u64) {
        self.entries.reserve_exact(entries as usize);
        self.reserve_index(self.entries.len() - self.indexed + entries as usize);
    }

    fn reserve_index(&mut self, blocks: usize) {
        let (begin, told) = (self.begin as u32, &self.entries);
        let rehash = |n: &u32| hash(told[n.wrapping_sub(begin) as usize].extent());
        self.newest.reserve(blocks, rehash);
    }

    /// Brings the index up to the entries. Where they are many, it is filled part by part: an
    /// index of many blocks is larger than a processor's cache, a part of it is not.
    fn index(&mut self, most: u64) -> Result<(), String> {
        // Records that have arrived meanwhile are not looked for.
        let arrived = self.paid.load(Ordering::Relaxed) - self.begin;
        let first = self.indexed.max(arrived as usize);
        let fresh = self.entries.len().saturating_sub(first);
        if fresh < BATCH_MIN || (self.newest.len() + fresh) as u64 > most {
            for at in first..first + fresh {
                if !self.index_one(at, hash(self.entries[at].extent()), most) {
                    let refused = self.entries.drain(at..).map(|entry| entry.extent().blocks());
                    let refused: u64 = refused.sum();
                    count(&self.blocks, |blocks| blocks - refused);
                    self.last = match at > first {
                        true => self.stamp(&self.entries[at - 1]),
                        false => self.indexed_last,
                    };
                    self.indexed = at;
                    self.indexed_last = self.last;
                    return Err(format!(
                        "the peer tells of more than {most} extents of blocks, the most that it can owe"
                    ));
                }
            }
        } else {
            self.reserve_index(fresh);
            let places = (self.newest.capacity() * 8 / 7).next_power_of_two();
            let shift = places.trailing_zeros().saturating_sub(PARTS.trailing_zeros());
            let part = |hash: u32| (spread(hash) >> shift) as usize % PARTS;
            let hashes = || self.entries.range(first..).map(|entry| short_hash(entry.extent()));
            let mut next = [0; PARTS + 1];
            hashes().for_each(|hash| next[part(hash) + 1] += 1);
            for at in 1..PARTS {
                next[at] += next[at - 1];
            }
            // In each part in their order: the newest of a block comes last.
            let mut order = vec![(0, 0); fresh];
            for (at, hash) in (0u32..).zip(hashes()) {
                let place = &mut next[part(hash)];
                order[*place] = (at, hash);
                *place += 1;
            }
            for (at, hash) in order {
                self.index_one(first + at as usize, spread(hash), most);
            }
        }
        self.indexed = self.entries.len();
        self.indexed_last = self.last;
        Ok(())
    }

    /// Enters the entry at `at` into the index; whether its extent is not one too many.
    fn index_one(&mut self, at: usize, hash_of_extent: u64, most: u64) -> bool {
        let (begin, entries) = (self.begin as u32, &mut self.entries);
        let (this, number) = (at, begin.wrapping_add(at as u32));
        let at = |n: u32| n.wrapping_sub(begin) as usize;
        let extents = self.newest.len() as u64;
        // Looked at only where the hashes are alike: it is far away, too.
        let is_same = |&n: &u32| entries[at(n)].extent() == entries[this].extent();
        let rehash = |&n: &u32| hash(entries[at(n)].extent());
        match self.newest.entry(hash_of_extent, is_same, rehash) {
            Place::Occupied(mut newest) => {
                let replaced = &mut entries[at(*newest.get())];
                replaced.is_replaced = true;
                // Entries that have arrived were swept away before. No reader has the debt while it is indexed.
                count(&self.blocks, |blocks| blocks - replaced.extent().blocks());
                if holds(Clause::NewestPerBlock) {
                    *newest.get_mut() = number;
                }
            }
            Place::Vacant(_) if extents >= most => return false,
            Place::Vacant(place) => drop(place.insert(number)),
        }
        true
    }

    /// Forgets what has been received, and what newer entries have replaced when that is most: there
    /// are never many more entries than blocks.
    pub fn sweep(&mut self) {
        let paid = self.paid.load(Ordering::Relaxed);
        while self.begin < paid {
            let oldest = self.entries[0];
            if !oldest.is_replaced {
                let number = self.begin as u32;
                let hash = hash(oldest.extent());
                if let Ok(found) = self.newest.find_entry(hash, |&n| n == number) {
                    found.remove();
                }
            }
            self.entries.pop_front();
            self.begin += 1;
            self.indexed = self.indexed.saturating_sub(1);
        }
        if self.tenures.len() > 2 * self.entries.len() + ENTRIES_MIN {
            self.keep_tenures_used();
        }
        let is_indexed = self.indexed == self.entries.len();
        if is_indexed && self.entries.len() > 2 * self.newest.len() + ENTRIES_MIN {
            // Numbers are never used twice.
            self.begin += self.entries.len() as u64;
            self.paid.store(self.begin, Ordering::Relaxed);
            self.entries.retain(|entry| !entry.is_replaced);
            self.keep_tenures_used();
            self.newest.clear();
            self.levels = Default::default();
            self.regions.fill(0);
            for at in 0..self.entries.len() {
                self.enter(self.entries[at].extent(), self.begin + at as u64 + 1);
            }
            let (begin, told) = (self.begin as u32, &self.entries);
            let rehash = |n: &u32| hash(told[n.wrapping_sub(begin) as usize].extent());
            for (entry, number) in told.iter().zip(0u32..) {
                self.newest.insert_unique(hash(entry.extent()), begin.wrapping_add(number), rehash);
            }
            self.indexed = self.entries.len();
        }
    }

    /// Forgets epochs that no entry has any more.
    fn keep_tenures_used(&mut self) {
        let before = std::mem::take(&mut self.tenures);
        for entry in &mut self.entries {
            let epoch = before[entry.tenure as usize];
            if self.tenures.last() != Some(&epoch) {
                self.tenures.push(epoch);
            }
            entry.tenure = self.tenures.len() as u32 - 1;
        }
    }

    /// The newest stamp owed for `block`, if it has not arrived: of the extents that hold it (R19).
    pub fn owed(&self, block: Block) -> Option<Stamp> {
        let paid = self.paid.load(Ordering::Acquire);
        let mut owed = self.owed_for(block.into());
        if self.levels[0] > paid && holds(Clause::OwedAround) {
            let levels = (1..=Extent::LEVEL_MAX).filter(|&l| self.levels[usize::from(l)] > paid);
            owed = levels.map(|l| self.owed_for(Extent::around(block, l))).fold(owed, Ord::max);
        }
        owed
    }

    /// Whether any of the `blocks` blocks from `first` on may be owed (R17).
    pub fn may_owe(&self, first: Block, blocks: u64) -> bool {
        let paid = self.paid.load(Ordering::Acquire);
        let behind = |region| self.regions.get(region).copied().unwrap_or(0);
        regions(first, blocks, REGIONS).any(|region| behind(region) > paid)
    }

    /// The newest stamp owed for just this extent, if it has not arrived.
    pub fn owed_for(&self, extent: Extent) -> Option<Stamp> {
        let at = |n: u32| n.wrapping_sub(self.begin as u32) as usize;
        let &newest =
            self.newest.find(hash(extent), |&n| self.entries[at(n)].extent() == extent)?;
        let is_owed = self.begin + at(newest) as u64 >= self.paid.load(Ordering::Acquire);
        is_owed.then(|| self.stamp(&self.entries[at(newest)]))
    }

    /// Everything up to `hi` has arrived and is published.
    pub fn pay(&self, hi: Stamp) {
        let mut paid = self.paid.load(Ordering::Relaxed);
        let mut blocks = self.blocks.load(Ordering::Relaxed);
        while let Some(entry) = self.entries.get((paid - self.begin) as usize)
            && self.stamp(entry) <= hi
        {
            if !entry.is_replaced {
                blocks -= entry.extent().blocks();
            }
            paid += 1;
        }
        self.blocks.store(blocks, Ordering::Relaxed);
        self.paid.store(paid, Ordering::Release);
    }

    /// The last stamp told, whether it has arrived or not; zero before the first.
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// How many blocks are still owed; at most so many, between the pieces of a prototype, and where
    /// extents lie in one another.
    pub fn len(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last stamp told, of those up to which all is told.
    pub fn whole(&self) -> Stamp {
        if holds(Clause::ToldWhole) { self.whole } else { self.last }
    }

    /// The records owed up to the last stamp of which all is told, in rising order.
    pub fn kept(&self) -> Vec<(Extent, Stamp)> {
        let upto = self.whole();
        let is_part = upto < self.last;
        let arrived = self.paid.load(Ordering::Acquire) - self.begin;
        let left = self.entries.iter().skip(arrived as usize);
        // An entry that a later piece has replaced is the newest of those up to here.
        let left = left.filter(|entry| is_part || !entry.is_replaced);
        left.map(|entry| (entry.extent(), self.stamp(entry))).take_while(|e| e.1 <= upto).collect()
    }

    /// The extents owed, with their newest stamps, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = (Extent, Stamp)> + '_ {
        let arrived = self.paid.load(Ordering::Acquire) - self.begin;
        let left = self.entries.iter().skip(arrived as usize).filter(|e| !e.is_replaced);
        left.map(|entry| (entry.extent(), self.stamp(entry)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
