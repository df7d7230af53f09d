//! A differential administration table as bytes: its runs of blocks in rising order, each as what it
//! differs in from the one before, so that most take three bytes.
//!
//! A run is numbers (`number.rs`): twice the distance of its first block from the end of the run before,
//! and one more if it lies in a later volume, where the distance is counted from block 0; then, if so,
//! how much higher that volume's number is; how many blocks follow the first.

use super::number;
use crate::unit::{Block, Blocks};
use std::iter::Peekable;

/// No volume has a block with this number or a higher one.
pub(crate) const NUMBER_END: u64 = 1 << 53;

/// Most bytes of a run.
pub(crate) const RUN_BYTES_MAX: usize = 3 * number::BYTES_MAX;

/// Appends `runs`, in rising order, until the next one may not fit into `room` bytes; returns how many.
pub(crate) fn put(
    to: &mut Vec<u8>,
    runs: &mut Peekable<impl Iterator<Item = Blocks>>,
    room: usize,
) -> u64 {
    let (begin, mut count) = (to.len(), 0);
    let mut before = Block { volume: 0, number: 0 };
    while to.len() - begin + RUN_BYTES_MAX <= room
        && let Some(run) = runs.next()
    {
        let volumes = run.volume - before.volume;
        let from = if volumes == 0 { before.number } else { 0 };
        number::put(to, (run.numbers.start - from) << 1 | u64::from(volumes > 0));
        if volumes > 0 {
            number::put(to, volumes.into());
        }
        number::put(to, run.count() - 1);
        before = Block { volume: run.volume, number: run.numbers.end };
        count += 1;
    }
    count
}

/// Reads `count` runs, in rising order and none next to another, off the front of `bytes`.
///
/// # Errors
/// A text that names what was found, if the bytes are no such runs.
pub(crate) fn take(bytes: &mut &[u8], count: u64) -> Result<Vec<Blocks>, String> {
    let mut runs = Vec::with_capacity(count.min(bytes.len() as u64 / 2) as usize);
    let mut before: Option<Block> = None;
    while (runs.len() as u64) < count {
        let first = number::take(bytes)?;
        let Block { mut volume, number: mut from } =
            before.unwrap_or(Block { volume: 0, number: 0 });
        if first & 1 == 1 {
            let higher = number::take_small(bytes, "step to a later volume")?;
            if higher == 0 {
                return Err("a run lies in a later volume, none higher".into());
            }
            let volumes = volume.checked_add(higher);
            volume =
                volumes.ok_or_else(|| format!("a run lies {higher} volumes above {volume}"))?;
            from = 0;
        } else if first == 0 && before.is_some() {
            return Err(format!("a run begins where the one before ends, at {volume}:{from}"));
        }
        let start = from.saturating_add(first >> 1);
        let end = start.saturating_add(number::take(bytes)?).saturating_add(1);
        if end > NUMBER_END {
            return Err(format!("a run ends with block {volume}:{}, which no volume has", end - 1));
        }
        runs.push(Blocks { volume, numbers: start..end });
        before = Some(Block { volume, number: end });
    }
    Ok(runs)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs in rising order, none next to another.
    fn some() -> impl Strategy<Value = Vec<Blocks>> {
        let blocks = (
            prop_oneof![0..3u32, any::<u32>()],
            prop_oneof![0..60u64, 0..NUMBER_END - 99],
            1..9u64,
        );
        let blocks = blocks
            .prop_map(|(volume, start, count)| Blocks { volume, numbers: start..start + count });
        prop::collection::vec(blocks, 0..30).prop_map(|mut runs| {
            runs.sort_by_key(Blocks::first);
            runs.dedup_by(|next, run| {
                next.volume == run.volume && next.numbers.start <= run.numbers.end
            });
            runs
        })
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken(table in some(), room in 40..200usize) {
            let mut runs = table.iter().cloned().peekable();
            let mut taken = Vec::new();
            while runs.peek().is_some() {
                let mut piece = Vec::new();
                let count = put(&mut piece, &mut runs, room);
                prop_assert!(count > 0 && piece.len() <= room);
                let mut rest = &piece[..];
                taken.extend(take(&mut rest, count).unwrap());
                prop_assert!(rest.is_empty());
                let (_, cut) = piece.split_last().unwrap();
                prop_assert!(take(&mut &piece[..cut.len()], count).is_err());
            }
            prop_assert_eq!(taken, table);
        }

        #[test]
        fn any_bytes_are_runs_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), count in 0..20u64) {
            if let Ok(runs) = take(&mut &bytes[..], count) {
                let rises = |pair: &[Blocks]| {
                    let end = Block { volume: pair[0].volume, number: pair[0].numbers.end };
                    end < pair[1].first()
                };
                prop_assert!(runs.windows(2).all(rises), "{:?}", runs);
                prop_assert!(runs.iter().all(|run| run.count() > 0));
            }
        }
    }

    #[test]
    fn what_was_not_put_is_refused() {
        let refused = |mut bytes: &[u8]| take(&mut bytes, 2).unwrap_err();
        assert!(refused(&[2, 0, 0, 0]).contains("a run begins where the one before ends, at 0:2"));
        assert!(refused(&[1, 0, 0]).contains("none higher"));
        assert!(
            refused(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 1, 1, 0]).contains("1 volumes above")
        );
        assert!(
            refused(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])
                .contains("which no volume has")
        );
        assert!(refused(&[0]).contains("early"));
    }
}
