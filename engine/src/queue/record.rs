//! Records as they go into the queue and come out of it.

use crate::unit::{Block, Extent, Position, Stamp};

/// The content of a record.
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
    /// The level of its extent (R19); 0 with data.
    pub level: u8,
}

/// A host's write, ready for admission: consecutive blocks of one volume.
#[derive(Clone, Copy, Debug)]
pub struct NewWrite<'a> {
    /// The first block.
    pub block: Block,
    /// One record an extent, which follow one another without a gap; at least one.
    pub records: &'a [NewRecord],
    /// The host's time, or the device's own (R1), at most [`Stamp::HOST_TIME_MAX`].
    pub time: u64,
    /// When the write was admitted, on the monotonic clock, for lag and latency.
    pub written_at: u64,
    /// For blocks that the host gave only in part: index of the record, and the token that
    /// [`super::Queue::newest`] gave before the rest was read (R15).
    pub bases: [Option<(u32, Token)>; 2],
}

impl NewWrite<'_> {
    /// The extents of its records, in their order.
    pub(super) fn extents(&self) -> impl Iterator<Item = Extent> {
        let mut number = self.block.number;
        self.records.iter().map(move |record| {
            let first = Block { number, ..self.block };
            let extent = Extent { first, level: record.level };
            number = extent.end();
            extent
        })
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> u64 {
        self.records.iter().map(|record| 1 << record.level).sum()
    }

    /// Whether one of its records has an extent of many blocks.
    pub(super) fn is_wide(&self) -> bool {
        self.records.iter().any(|record| record.level > 0)
    }

    pub(super) fn base(&self, index: u64) -> Option<Token> {
        self.bases.iter().flatten().find(|base| u64::from(base.0) == index).map(|base| base.1)
    }
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
    /// Where it belongs: the first block of its extent.
    pub block: Block,
    /// The level of its extent (R19).
    pub level: u8,
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
    /// Whether it was in the normal volume when this was read from the queue.
    pub was_reflected: bool,
}

impl Record {
    /// The blocks that it covers.
    pub fn extent(&self) -> Extent {
        Extent { first: self.block, level: self.level }
    }

    /// Position of the first record of its request, if they were published together.
    pub fn first(&self) -> Position {
        self.position - u64::from(self.index)
    }
}

/// The place of a record whose data is not in the log yet.
pub const NO_PLACE: u64 = u64::MAX;

/// A block's chain as a reader saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub(super) head: Position,
    pub(super) freed: Position,
    /// The newest published record's position, 0 if there was none.
    pub newest: Position,
}
