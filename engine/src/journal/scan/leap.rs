//! A weakened build's reading of a log, which it does not cut at its first gap
//! ([`Clause::SequenceCut`], [`Clause::Chain`]): it goes on behind the gap, which the rules forbid.

use super::{Expected, Found, Header, Log, Reader, Run, Stamp, Superblock, log_of};
use crate::weaken::{Clause, holds};
use std::io;

/// With the log's clause off: leaves torn batches out and takes what stands behind each gap.
pub(super) fn over_gaps(
    reader: &Reader<'_>,
    expected: &mut Expected,
    superblock: &Superblock,
    log: Log,
    batches: &mut Vec<Found>,
) -> io::Result<()> {
    let clause = match log {
        Log::Own => Clause::SequenceCut,
        Log::Recv => Clause::Chain,
    };
    if holds(clause) {
        return Ok(());
    }
    while reader.leap(expected, superblock, batches)? {}
    let durable = log_of(superblock, log).1.durable;
    let mut data = Vec::new();
    let mut k = 0;
    while let Some(batch) = batches.get(k) {
        let is_torn = batch.end() - 1 > durable
            && !reader.bad_data(batch, Stamp::ZERO, &mut data)?.is_empty();
        if is_torn {
            batches.remove(k);
        } else {
            k += 1;
        }
    }
    Ok(())
}

impl Reader<'_> {
    fn leap(
        &self,
        expected: &mut Expected,
        superblock: &Superblock,
        batches: &mut Vec<Found>,
    ) -> io::Result<bool> {
        let mut next: Option<Header> = None;
        let all = Run { tail: 0, end: 0, wrapped: false };
        self.beyond(expected, all, u64::MAX, &mut |_| {}, |header| {
            let further = header.sequence > expected.sequence && header.opened >= expected.opened;
            if further && next.as_ref().is_none_or(|n| header.sequence < n.sequence) {
                next = Some(header.clone());
            }
            further
        })?;
        let Some(next) = next else { return Ok(false) };
        expected.sequence = next.sequence;
        expected.previous = (next.previous != Stamp::ZERO).then_some(next.previous);
        let before = batches.len();
        self.walk(expected, next.offset, superblock.clean, batches)?;
        Ok(batches.len() > before)
    }
}
