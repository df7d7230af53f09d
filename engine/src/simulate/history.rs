//! The history of a group, as an omniscient reader would keep it: every published record of both
//! devices in stamp order, and what each sector then held.

use super::Side;
use super::payload::Value;
use crate::unit::Stamp;

/// Most sectors of a block here.
pub(super) const SECTORS_MAX: usize = 8;

/// The sectors of a block.
pub(super) type Content = [Value; SECTORS_MAX];

/// A published record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub stamp: Stamp,
    /// The device that took it.
    pub by: Side,
    /// The request, by its number.
    pub request: u32,
    /// The block, counted through the group.
    pub block: usize,
    pub content: Content,
    /// When it was first completed or shown by a read.
    pub visible_at: Option<u64>,
    /// Whether its write was completed.
    pub completed: bool,
    /// Whether it was acknowledged as durable.
    pub promised: bool,
}

/// All records.
pub(super) struct History {
    /// By block, each in stamp order.
    blocks: Vec<Vec<Record>>,
    /// All stamps in order.
    order: Vec<(Stamp, Side, usize)>,
    /// When each request was issued, by its number.
    pub issued: Vec<u64>,
}

impl History {
    pub fn new(blocks: usize) -> History {
        let order = Vec::new();
        History { blocks: vec![Vec::new(); blocks], order, issued: vec![0] }
    }

    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Puts a record into its place.
    pub fn insert(&mut self, record: Record) {
        let at = self.order.partition_point(|o| o.0 < record.stamp);
        self.order.insert(at, (record.stamp, record.by, record.block));
        let block = &mut self.blocks[record.block];
        let at = block.partition_point(|r| r.stamp < record.stamp);
        block.insert(at, record);
    }

    /// The records of a block, oldest first.
    pub fn of(&self, block: usize) -> &[Record] {
        &self.blocks[block]
    }

    /// The content of a block after everything up to `stamp`.
    pub fn content(&self, block: usize, upto: Stamp) -> Content {
        self.newest(block, upto).map_or([0; SECTORS_MAX], |r| r.content)
    }

    /// The newest record of a block up to `stamp`.
    pub fn newest(&self, block: usize, upto: Stamp) -> Option<&Record> {
        let records = &self.blocks[block];
        records[..records.partition_point(|r| r.stamp <= upto)].last()
    }

    pub fn find(&self, block: usize, stamp: Stamp) -> Option<&Record> {
        self.newest(block, stamp).filter(|r| r.stamp == stamp)
    }

    /// Whether any record has this stamp.
    pub fn has(&self, stamp: Stamp) -> bool {
        self.order.binary_search_by_key(&stamp, |o| o.0).is_ok()
    }

    /// Stamps with their blocks after `stamp`, oldest first.
    pub fn after(&self, stamp: Stamp) -> &[(Stamp, Side, usize)] {
        &self.order[self.order.partition_point(|o| o.0 <= stamp)..]
    }

    /// The first record of `by` after `stamp`.
    pub fn next_of(&self, by: Side, stamp: Stamp) -> Option<&Record> {
        let &(stamp, _, block) = self.after(stamp).iter().find(|o| o.1 == by)?;
        self.find(block, stamp)
    }

    /// The record was completed, or shown.
    pub fn show(&mut self, block: usize, stamp: Stamp, now: u64) {
        let records = &mut self.blocks[block];
        let at = records.partition_point(|r| r.stamp < stamp);
        if let Some(record) = records.get_mut(at).filter(|r| r.stamp == stamp) {
            record.visible_at.get_or_insert(now);
        }
    }

    /// Somebody was told that the write is completed.
    pub fn complete(&mut self, block: usize, stamp: Stamp) {
        let records = &mut self.blocks[block];
        if let Some(record) = records.iter_mut().rfind(|r| r.stamp == stamp) {
            record.completed = true;
        }
    }

    /// Somebody was told that the record is durable.
    pub fn promise(&mut self, block: usize, stamp: Stamp) {
        let records = &mut self.blocks[block];
        let at = records.partition_point(|r| r.stamp < stamp);
        if let Some(record) = records.get_mut(at).filter(|r| r.stamp == stamp) {
            record.promised = true;
        }
    }

    /// Takes out what was lost.
    pub fn lose(&mut self, lost: &[(Stamp, usize)]) {
        for &(stamp, block) in lost {
            self.order.retain(|o| o.0 != stamp);
            self.blocks[block].retain(|r| r.stamp != stamp);
        }
    }
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
        let mut touched = Vec::new();
        for &(_, _, block) in history.after(self.at).iter().take_while(|o| o.0 <= stamp) {
            if !touched.contains(&block) {
                self.blocks[block] = history.content(block, stamp);
                touched.push(block);
            }
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
