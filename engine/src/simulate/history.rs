//! The history of a group, as an omniscient reader would keep it: every published record of both
//! devices in stamp order, and what each sector then held.

use super::Side;
use super::payload::Value;
use crate::unit::Stamp;
use std::ops::Range;

/// Most sectors of a block here.
pub(super) const SECTORS_MAX: usize = 8;

/// The sectors of a block.
pub(super) type Content = [Value; SECTORS_MAX];

/// A mark for each sector of a block.
pub(super) type Sectors = [bool; SECTORS_MAX];

/// A published record.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub stamp: Stamp,
    /// The device that took it.
    pub by: Side,
    /// The request, by its number.
    pub request: u32,
    /// The blocks of its extent, counted through the group.
    pub blocks: Range<usize>,
    /// When it was first completed or shown by a read.
    pub visible_at: Option<u64>,
    /// Whether its write was completed.
    pub completed: bool,
    /// Whether it was acknowledged as durable.
    pub promised: bool,
}

/// A block as a record has left it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    pub stamp: Stamp,
    pub content: Content,
    /// The sectors that its host wrote; the others it has from the version before.
    pub written: Sectors,
}

/// All records.
pub(super) struct History {
    /// In stamp order.
    records: Vec<Record>,
    /// By block, each in stamp order.
    blocks: Vec<Vec<Version>>,
    /// When each request was issued, by its number.
    pub issued: Vec<u64>,
    /// By device: its records up to here arrive by bits.
    by_bits: [Stamp; 2],
}

impl History {
    pub fn new(blocks: usize) -> History {
        History {
            records: Vec::new(),
            blocks: vec![Vec::new(); blocks],
            issued: vec![0],
            by_bits: [Stamp::ZERO; 2],
        }
    }

    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Puts a record into its place. `version` is what it leaves in each of its blocks.
    pub fn insert(&mut self, record: Record, version: Version) {
        let stamp = record.stamp;
        for block in record.blocks.clone() {
            let versions = &mut self.blocks[block];
            let at = versions.partition_point(|v| v.stamp < stamp);
            versions.insert(at, version);
        }
        let at = self.records.partition_point(|r| r.stamp < stamp);
        self.records.insert(at, record);
    }

    /// The versions of a block, oldest first.
    pub fn of(&self, block: usize) -> &[Version] {
        &self.blocks[block]
    }

    /// The newest stamp of a block.
    pub fn newest(&self, block: usize) -> Option<Stamp> {
        self.blocks[block].last().map(|v| v.stamp)
    }

    /// Whether a block has a version of that stamp.
    pub fn has(&self, block: usize, stamp: Stamp) -> bool {
        holds(&self.blocks[block], stamp)
    }

    /// The content of a block after everything up to `stamp`.
    pub fn content(&self, block: usize, upto: Stamp) -> Content {
        let versions = &self.blocks[block];
        let before = versions[..versions.partition_point(|v| v.stamp <= upto)].last();
        before.map_or([0; SECTORS_MAX], |v| v.content)
    }

    /// The version of a block after the one at `stamp`.
    pub fn next(&self, block: usize, stamp: Stamp) -> Option<&Version> {
        let versions = &self.blocks[block];
        versions.get(versions.partition_point(|v| v.stamp <= stamp))
    }

    fn at(&self, stamp: Stamp) -> Option<usize> {
        self.records.binary_search_by_key(&stamp, |r| r.stamp).ok()
    }

    pub fn find(&self, stamp: Stamp) -> Option<&Record> {
        self.at(stamp).map(|at| &self.records[at])
    }

    /// The same, to be noted on.
    pub fn find_mut(&mut self, stamp: Stamp) -> Option<&mut Record> {
        self.at(stamp).map(|at| &mut self.records[at])
    }

    /// The records after `stamp`, oldest first.
    pub fn after(&self, stamp: Stamp) -> &[Record] {
        &self.records[self.records.partition_point(|r| r.stamp <= stamp)..]
    }

    /// The first record of `by` after `stamp` that can still arrive as a record.
    pub fn next_of(&self, by: Side, stamp: Stamp) -> Option<&Record> {
        self.records_of(by, stamp).next()
    }

    /// Whether a record of `by` that has this stamp is one of those that were left to bits.
    pub fn is_left_to_bits(&self, by: Side, stamp: Stamp) -> bool {
        stamp <= self.by_bits[by]
    }

    /// The records of `by` after `stamp`, but for those that were left to bits.
    pub fn records_of(&self, by: Side, stamp: Stamp) -> impl Iterator<Item = &Record> {
        self.after(stamp.max(self.by_bits[by])).iter().filter(move |r| r.by == by)
    }

    /// Writes of `by` so far arrive by bits, if at all: its records were those of a history that is over, and
    /// only their content can stand in this one. Returns the newest of them.
    pub fn leave_to_bits(&mut self, by: Side) -> Stamp {
        let newest = self.records.iter().rfind(|r| r.by == by).map(|r| r.stamp);
        self.by_bits[by] = self.by_bits[by].max(newest.unwrap_or(Stamp::ZERO));
        self.by_bits[by]
    }

    /// The blocks hold `found` from now on, by records that `may` have brought it, given who took them: of each
    /// block what came later is lost. Returns the records of which nothing is left.
    pub fn rebase(&mut self, found: &[Content], may: impl Fn(Side, Stamp) -> bool) -> Vec<Record> {
        let by = |stamp: Stamp| {
            let at = self.records.binary_search_by_key(&stamp, |r| r.stamp);
            at.is_ok_and(|at| may(self.records[at].by, stamp))
        };
        for (versions, held) in self.blocks.iter_mut().zip(found) {
            let kept = versions.iter().rposition(|v| v.content == *held && by(v.stamp));
            match kept {
                Some(at) => versions.truncate(at + 1),
                None => {
                    versions.clear();
                    let written = [true; SECTORS_MAX];
                    versions.push(Version { stamp: Stamp::ZERO, content: *held, written });
                }
            }
        }
        let is_left = |record: &Record, blocks: &[Vec<Version>]| {
            record.blocks.clone().any(|block| holds(&blocks[block], record.stamp))
        };
        let (left, lost) =
            std::mem::take(&mut self.records).into_iter().partition(|r| is_left(r, &self.blocks));
        self.records = left;
        lost
    }

    /// Takes out what was lost.
    pub fn lose(&mut self, lost: &[Stamp]) {
        for &stamp in lost {
            let Some(at) = self.at(stamp) else { continue };
            for block in self.records.remove(at).blocks {
                self.blocks[block].retain(|v| v.stamp != stamp);
            }
        }
    }
}

fn holds(versions: &[Version], stamp: Stamp) -> bool {
    versions.binary_search_by_key(&stamp, |version| version.stamp).is_ok()
}

/// A content that follows history.
pub(super) struct Image {
    pub at: Stamp,
    pub blocks: Vec<Content>,
}

impl Image {
    pub fn new(blocks: usize) -> Image {
        Image { at: Stamp::ZERO, blocks: vec![[0; SECTORS_MAX]; blocks] }
    }

    /// Goes on to everything up to `stamp`; which blocks that concerned.
    pub fn advance_to(&mut self, history: &History, stamp: Stamp) -> Vec<usize> {
        let passed = history.after(self.at).iter().take_while(|r| r.stamp <= stamp);
        let mut touched: Vec<_> = passed.flat_map(|r| r.blocks.clone()).collect();
        touched.sort_unstable();
        touched.dedup();
        for &block in &touched {
            self.blocks[block] = history.content(block, stamp);
        }
        self.at = stamp;
        touched
    }

    /// The content at `stamp`, from the beginning.
    pub fn reset(&mut self, history: &History, stamp: Stamp) {
        self.at = stamp;
        for (block, content) in self.blocks.iter_mut().enumerate() {
            *content = history.content(block, stamp);
        }
    }
}
