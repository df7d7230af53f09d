//! A branch of two histories that have parted, for people: which blocks it has, how much that is, and when they
//! were written.

use std::fmt;

use afterimage::BranchSheet;

use serde_json::{Value, json};

use super::recorded;
use crate::ranges::Range;
use crate::words::{bytes, count, moment, plural};

/// Most ranges of blocks that are listed; of the others it is said how many they are.
const RANGES_MAX: usize = 16;

/// Most ranges that a document lists.
const RANGES_DOCUMENTED_MAX: usize = 10_000;

/// The text.
pub(super) struct Shown<'a>(pub &'a BranchSheet);

/// The same as a document.
pub(super) fn document(branch: &BranchSheet) -> Value {
    let blocks = branch.blocks.iter().map(|run| run.count()).sum::<u64>();
    let ranges: Vec<Range> =
        branch.blocks.iter().take(RANGES_DOCUMENTED_MAX).map(Range::from).collect();
    json!({
        "device": branch.device,
        "lineage": branch.lineage.0,
        "lineage_id": format!("{:016x}", branch.lineage.1),
        "tenure": branch.epoch,
        "newest": branch.newest.to_string(),
        "blocks": blocks,
        "bytes": branch.bytes,
        "first_at_ns": branch.first_at(),
        "last_at_ns": branch.last_at(),
        "ranges": ranges,
        "cut": branch.blocks.len() > RANGES_DOCUMENTED_MAX,
    })
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let branch = self.0;
        let (BranchSheet { device, epoch, .. }, (number, id)) = (branch, branch.lineage);
        writeln!(f, "device {device}, lineage {number} ({id:016x}), tenure {epoch}")?;
        writeln!(f, "    its newest own record, now: {}", recorded(branch.newest))?;
        let blocks = branch.blocks.iter().map(|run| run.count()).sum();
        write!(f, "    the other one may not have: {}", plural(blocks, "block"))?;
        if blocks == 0 {
            return writeln!(f);
        }
        writeln!(
            f,
            " in {}, {}",
            plural(branch.blocks.len() as u64, "range"),
            bytes(branch.bytes)
        )?;
        match (branch.first_at(), branch.oldest) {
            (Some(first), _) => writeln!(f, "    first written: {}", moment(first))?,
            (None, Some(oldest)) => writeln!(
                f,
                "    first written: not known, as bits tell of it; the oldest record in the log is of {}",
                moment(oldest.time)
            )?,
            (None, None) => writeln!(f, "    first written: not known, as bits tell of it")?,
        }
        if let Some(last) = branch.last_at() {
            writeln!(f, "    last written: {}", moment(last))?;
        }
        for run in branch.blocks.iter().take(RANGES_MAX) {
            let (volume, first, last) = (run.volume, run.numbers.start, run.numbers.end - 1);
            writeln!(f, "      volume {volume}, blocks {first} to {last}")?;
        }
        let rest = &branch.blocks[RANGES_MAX.min(branch.blocks.len())..];
        if !rest.is_empty() {
            let blocks = rest.iter().map(|run| run.count()).sum();
            let ranges = count(rest.len() as u64);
            writeln!(f, "      and {ranges} more ranges, of {}", plural(blocks, "block"))?;
        }
        Ok(())
    }
}
