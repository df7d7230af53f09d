//! Runs of blocks as programs read them.

use afterimage::internal::unit::Blocks;
use serde::Serialize;

/// Blocks of one volume, one behind the other.
#[derive(PartialEq, Serialize)]
pub struct Range {
    pub volume: u32,
    pub block: u64,
    pub blocks: u64,
}

impl From<&Blocks> for Range {
    fn from(run: &Blocks) -> Range {
        Range { volume: run.volume, block: run.numbers.start, blocks: run.count() }
    }
}

/// Blocks that the other device told of by bits.
#[derive(PartialEq, Serialize)]
pub struct Told {
    #[serde(flatten)]
    pub range: Range,
    /// Wall time of their newest announcement, in nanoseconds since 1970; nothing if it is not known.
    pub time_ns: Option<u64>,
}

impl From<&(Blocks, u64)> for Told {
    fn from((run, time): &(Blocks, u64)) -> Told {
        Told { range: run.into(), time_ns: Some(*time).filter(|&time| time > 0) }
    }
}
