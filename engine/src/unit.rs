//! The words of the domain as types: a block's address, a write's stamp, a position in a queue.
//!
//! Index, count, length, address and time never share a type where they could be mixed up.

use std::fmt;

/// The unit that traces, partial writes and addresses on the host's side are aligned to, in bytes.
pub const SECTOR: u64 = 512;

/// A block's address in a consistency group: the volume and the block's number in it, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// The volume, as configured; volumes need not be numbered without gaps.
    pub volume: u32,
    /// The block's number in its volume, from 0.
    pub number: u64,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.volume, self.number)
    }
}

/// When a write takes its place in history (R1): compared by epoch, then time, then sequence.
///
/// Unique within a group, and never zero for a real record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// The tenure under which the write was admitted.
    pub epoch: u64,
    /// Nanoseconds since 1970, by the host's clock where that does not contradict what was seen.
    pub time: u64,
    /// Tells apart the records of one request, and requests of one time.
    pub sequence: u32,
}

impl Stamp {
    /// Before every real stamp.
    pub const ZERO: Stamp = Stamp { epoch: 0, time: 0, sequence: 0 };

    /// After every real stamp.
    pub const MAX: Stamp = Stamp { epoch: u64::MAX, time: u64::MAX, sequence: u32::MAX };

    /// Host times above this, in nanoseconds, are no times but garbage, and ignored (R1).
    pub const HOST_TIME_MAX: u64 = 1 << 62;

    /// No stamp has a later time, in nanoseconds: from the latest host time on, each counts on by
    /// one.
    pub const TIME_MAX: u64 = 1 << 63;
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.time, self.sequence)
    }
}

/// A place taken in a journal's queue, counted from 1 and never used twice.
///
/// Position 0 means "none".
pub type Position = u64;
