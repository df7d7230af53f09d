//! Checksums of neighbouring blocks, in runs: what one device tells the other in an online
//! comparison.

use super::fields::{Fields, broken, put_u32, put_u64};
use crate::error::Result;

/// Most blocks that are asked for in one question.
pub(crate) const SUMS_MAX: u32 = 4096;

/// Bytes of a run on the wire.
pub(crate) const SUM_BYTES: usize = 16;

/// Neighbouring blocks of which the same is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// How many blocks: 1 at least.
    pub blocks: u32,
    /// The same of each.
    pub seen: Seen,
}

/// A block in a normal volume, as a device has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is not at rest: it may not be compared now.
    Moving,
    /// At rest; the checksum of its bytes up to the volume's end.
    Checksum(u64),
    /// It lies in a segment that was never made, and there is no live record of it.
    Absent,
    /// The storage cannot read it.
    Unreadable,
}

impl Sum {
    pub(super) fn put(&self, to: &mut Vec<u8>) {
        let (kind, checksum) = match self.seen {
            Seen::Moving => (0, 0),
            Seen::Checksum(checksum) => (1, checksum),
            Seen::Absent => (2, 0),
            Seen::Unreadable => (3, 0),
        };
        put_u32(to, self.blocks);
        put_u32(to, kind);
        put_u64(to, checksum);
    }

    pub(super) fn take(f: &mut Fields<'_>) -> Result<Sum> {
        let (blocks, kind, checksum) = (f.u32()?, f.u32()?, f.u64()?);
        let seen = match (kind, checksum) {
            (0, 0) => Seen::Moving,
            (1, checksum) => Seen::Checksum(checksum),
            (2, 0) => Seen::Absent,
            (3, 0) => Seen::Unreadable,
            (kind, _) => {
                let what =
                    format!("a run of checksums is of kind {kind}, with checksum {checksum:x}");
                return Err(broken(what));
            }
        };
        match blocks {
            0 => Err(broken("a run of checksums is of no block".into())),
            _ => Ok(Sum { blocks, seen }),
        }
    }
}

/// Adds what was seen of the next block to `sums`.
pub(crate) fn add(sums: &mut Vec<Sum>, seen: Seen, blocks: u32) {
    match sums.last_mut() {
        Some(last) if last.seen == seen => last.blocks += blocks,
        _ => sums.push(Sum { blocks, seen }),
    }
}
