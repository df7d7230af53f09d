//! Cut or rot (R13): what is found in a log is the next batch or not, and is kept, cut or damage.
//! Pure functions; [`super::scan`] reads, asks them and does what they say.
//!
//! A batch is synced as a whole and the log in order, so what was never synced is a tail of whole
//! batches, and may be torn, missing, or there in part. A synced batch must be there.
//!
//! Is it the next batch? The first row that holds ([`Expected::judge`]):
//!
//! | what stands at the place | is |
//! |---|---|
//! | zeros | nothing |
//! | no header, or one that its checksum or a field refutes | torn |
//! | a header of another group, log, device or incarnation; of another offset; of an opening that has not been | nothing: a host's data, or an earlier life |
//! | another sequence number than the next | nothing: an earlier lap |
//! | an earlier opening than the batch before it | torn: it was cut off once |
//! | `synced` at or above its own sequence | torn |
//! | a stamp of a tenure above the superblock's, a block that no volume has; received log: stamps that do not rise | torn |
//! | own log: `previous` not zero; received log: not the stamp before it, or for the first batch above the superblock's hi | torn |
//! | a length beyond the log's end | torn |
//! | any other | the next batch |
//!
//! A host's data may be a copy of any log, so another log's header says nothing where data may have
//! stood before. The log's first page is the one place where none ever stands: every lap begins
//! there with a batch ([`Expected::is_anothers`]).
//!
//! The verdict on it? The first row that holds ([`judge`]); `synced` is the highest seen anywhere:
//!
//! | place | verdict |
//! |---|---|
//! | the first page, with a header of another group, log or device | damage: `Foreign`: this is another device's log |
//! | the first page, with anything else | keep |
//! | a next batch whose data has its checksums | keep |
//! | a next batch with wrong data, its last record at or below `synced` | damage: `Data` |
//! | a next batch with wrong data | cut from here on |
//! | no next batch, the next record at or below `synced` | damage: `Gone` |
//! | no next batch, received log: the newest stamp kept is below the superblock's hi, and that above fl | damage: `Acknowledged`: it was durable, and is not in the volumes |
//! | no next batch | cut: the records that follow were not promised to any host |

use super::scan::{Found, log_of};
use crate::format::batch::{Header, Identity, Log, batch_bytes};
use crate::format::superblock::Superblock;
use crate::unit::Stamp;
use crate::weaken::{Clause, holds};
use std::collections::HashMap;

/// A place of a log, by what was found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The log's first page.
    First {
        /// A header of another log stands there, whatever its incarnation.
        anothers: bool,
    },
    /// The next batch.
    Batch {
        /// Log sequence number of its last row.
        last: u64,
        /// Its data has its checksums, as far as it was looked at.
        whole: bool,
    },
    /// No batch that could be the next.
    End {
        /// Log sequence number of the next record.
        next: u64,
        /// Stamp of the last record before it; zero if none is held.
        newest: Stamp,
    },
}

/// The marks of a log before its places are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// Which log.
    pub log: Log,
    /// The highest log sequence number that anything found says was durable.
    pub synced: u64,
    /// The superblock's: highest stamp received.
    pub hi: Stamp,
    /// The superblock's: every record up to this is durable in the volumes.
    pub fl: Stamp,
}

/// The fate of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// The run ends before it.
    Cut,
    Damaged(Rot),
}

/// The part that has rotted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rot {
    /// The whole file: it is another device's log.
    Foreign,
    /// Data of records that were durable.
    Data,
    /// Records that were durable.
    Gone,
    /// Received records that were acknowledged.
    Acknowledged,
}

/// The verdict on `place`: the second table of this module.
pub(super) fn judge(place: Place, marks: Marks) -> Verdict {
    let Marks { log, synced, hi, fl } = marks;
    match place {
        Place::First { anothers: true } => Verdict::Damaged(Rot::Foreign),
        Place::First { .. } => Verdict::Keep,
        Place::Batch { whole: true, .. } => Verdict::Keep,
        Place::Batch { last, .. } if last <= synced && holds(Clause::Rot) => {
            Verdict::Damaged(Rot::Data)
        }
        Place::Batch { .. } => Verdict::Cut,
        Place::End { next, .. } if next <= synced && holds(Clause::Rot) => {
            Verdict::Damaged(Rot::Gone)
        }
        Place::End { newest, .. }
            if log == Log::Recv && newest < hi && hi > fl && holds(Clause::Rot) =>
        {
            Verdict::Damaged(Rot::Acknowledged)
        }
        Place::End { .. } => Verdict::Cut,
    }
}

/// The next batch that the run must have.
pub(super) struct Expected {
    identity: Identity,
    /// Log sequence number of its first row.
    pub sequence: u64,
    /// The opening that wrote the batch before it.
    pub opened: u64,
    /// The newest opening there was.
    newest_opening: u64,
    /// No sequence above this is looked for: after a clean close.
    pub last: u64,
    epoch: u64,
    /// Received log: the chain of previous stamps; `None` before its first batch.
    pub previous: Option<Stamp>,
    hi: Stamp,
    block_size: u64,
    /// Blocks of each volume.
    blocks: HashMap<u32, u64>,
}

impl Expected {
    pub fn new(superblock: &Superblock, log: Log) -> Expected {
        let (_, state) = log_of(superblock, log);
        let size = u64::from(superblock.block_size);
        let blocks = superblock.volumes.iter().map(|v| (v.id, v.bytes.div_ceil(size)));
        Expected {
            identity: Identity::of(superblock, log),
            sequence: state.tail_sequence,
            opened: state.opened,
            newest_opening: superblock.generation,
            last: state.durable,
            epoch: superblock.epoch,
            previous: None,
            hi: superblock.hi,
            block_size: size,
            blocks: blocks.collect(),
        }
    }

    /// Whether `header` is of this log and stands where it was written.
    pub fn is_ours(&self, header: &Header, offset: u64) -> bool {
        header.identity == self.identity
            && header.offset == offset
            && header.opened <= self.newest_opening
    }

    /// Whether `header` is one of another device, of another pair, or of this device's other log.
    /// An earlier incarnation of this log is none of these.
    pub fn is_anothers(&self, header: &Header) -> bool {
        Identity { incarnation: self.identity.incarnation, ..header.identity } != self.identity
    }

    /// The batch whose header was `found` at `offset`, with `room` bytes from there to the log's end,
    /// if it is the next; otherwise what is wrong with it, if it is anything but nothing or another
    /// batch: the first table of this module.
    pub fn judge(
        &self,
        found: Result<Option<Header>, String>,
        offset: u64,
        room: u64,
    ) -> Result<Found, Option<String>> {
        let header = match found.map_err(Some)? {
            Some(header) if self.is_ours(&header, offset) => header,
            _ => return Err(None),
        };
        if header.sequence != self.sequence {
            return Err(None);
        }
        if let Some(reason) = self.refuses(&header) {
            return Err(Some(reason));
        }
        let with_data = header.rows.iter().filter(|r| r.has_data).count() as u64;
        let bytes = batch_bytes(with_data, self.block_size);
        if bytes > room {
            return Err(Some("the batch runs past the log's end".into()));
        }
        Ok(Found { offset, bytes, header })
    }

    /// The reason why a batch of this log is not the next; `None`: it is.
    fn refuses(&self, header: &Header) -> Option<String> {
        let Header { sequence, opened, synced, previous, .. } = *header;
        if opened < self.opened && holds(Clause::Incarnation) {
            let newer = self.opened;
            return Some(format!("a batch of opening {opened} cannot follow one of {newer}"));
        }
        if synced >= sequence {
            return Some(format!("batch {sequence} says that {synced} was synced before it"));
        }
        let mut last = previous;
        for (number, row) in (sequence..).zip(&header.rows) {
            let (stamp, extent) = (row.stamp, row.extent());
            if stamp.epoch > self.epoch {
                let epoch = self.epoch;
                return Some(format!("record {number} has stamp {stamp}, the tenure is {epoch}"));
            }
            let blocks = self.blocks.get(&extent.first.volume);
            if blocks.is_none_or(|&blocks| !extent.ends_within(blocks)) {
                return Some(format!("record {number} is for block {extent}, which no volume has"));
            }
            if self.identity.log == Log::Recv && stamp <= last {
                return Some(format!("record {number} has stamp {stamp}, which follows {last}"));
            }
            last = stamp;
        }
        let follows = match self.identity.log {
            Log::Own => previous == Stamp::ZERO,
            Log::Recv => self.previous.map_or(previous <= self.hi, |last| previous == last),
        };
        let expected = self.previous.unwrap_or(self.hi);
        (!follows).then(|| format!("the batch follows stamp {previous}, expected was {expected}"))
    }

    pub fn accept(&mut self, header: &Header) {
        self.sequence += header.rows.len() as u64;
        self.opened = header.opened;
        self.previous = header.rows.last().map(|row| row.stamp);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::format::{PAGE, Row};
    use crate::unit::Block;

    fn stamp(time: u64) -> Stamp {
        Stamp { epoch: u64::from(time > 0), time, sequence: 0 }
    }

    #[test]
    fn the_first_row_that_holds_is_the_verdict() {
        type Row = (fn(Place, Marks) -> bool, Verdict);
        use Place::{Batch, End, First};
        let rows: [Row; 8] = [
            (|p, _| p == First { anothers: true }, Verdict::Damaged(Rot::Foreign)),
            (|p, _| p == First { anothers: false }, Verdict::Keep),
            (|p, _| matches!(p, Batch { whole: true, .. }), Verdict::Keep),
            (
                |p, m| matches!(p, Batch { last, .. } if m.synced >= last),
                Verdict::Damaged(Rot::Data),
            ),
            (|p, _| matches!(p, Batch { .. }), Verdict::Cut),
            (|p, m| matches!(p, End { next, .. } if m.synced >= next), Verdict::Damaged(Rot::Gone)),
            (
                |p, m| {
                    let behind = matches!(p, End { newest, .. } if m.hi > newest);
                    m.log == Log::Recv && behind && m.fl < m.hi
                },
                Verdict::Damaged(Rot::Acknowledged),
            ),
            (|p, _| matches!(p, End { .. }), Verdict::Cut),
        ];
        let mut hits = [0; 8];
        for n in 0..2 * 3 * 3 * 3 * 3u64 {
            let digit = |unit: u64, base: u64| n / unit % base;
            let log = [Log::Own, Log::Recv][digit(1, 2) as usize];
            let (synced, hi, fl) = (digit(2, 3), stamp(digit(6, 3)), stamp(digit(18, 3)));
            let marks = Marks { log, synced, hi, fl };
            let number = digit(54, 3);
            let batches = [true, false].map(|whole| Batch { last: number, whole });
            let ends = [0, 1, 2].map(|time| End { next: number, newest: stamp(time) });
            let firsts = [true, false].map(|anothers| First { anothers });
            for place in batches.into_iter().chain(ends).chain(firsts) {
                let row = rows.iter().position(|(holds, _)| holds(place, marks)).expect("a row");
                hits[row] += 1;
                assert_eq!(judge(place, marks), rows[row].1, "row {row}: {place:?}, {marks:?}");
            }
        }
        assert!(!hits.contains(&0), "rows that never hold: {hits:?}");
    }

    /// The bytes where batch 7 of opening 2 or later is looked for.
    #[derive(Clone, Copy, Debug)]
    struct Case {
        log: Log,
        /// 0: zeros, 1: no header, 2: a header.
        kind: u64,
        /// Group, log, device and incarnation: which of them is another's; 4: none.
        foreign: u64,
        offset: u64,
        opened: u64,
        sequence: u64,
        synced: u64,
        previous: u64,
        /// Times of its two rows.
        times: [u64; 2],
        /// The second row's.
        epoch: u64,
        /// The second row's: 0: the last of its volume, 1: behind it, 2: of no volume.
        block: u64,
        /// The time that the batch before it ends with; 0: there is none.
        before: u64,
        room: u64,
    }

    const OFFSET: u64 = 3 * PAGE;
    const BLOCK_SIZE: u64 = 512;

    impl Case {
        fn of(mut n: u64) -> Case {
            let mut below = |base: u64| {
                let digit = n % base;
                n /= base;
                digit
            };
            Case {
                log: [Log::Own, Log::Recv][below(2) as usize],
                kind: 2,
                foreign: 4,
                offset: OFFSET,
                opened: 1 + below(4),
                sequence: 6 + below(3),
                synced: 5 + below(3),
                previous: below(3),
                times: [1 + below(3), 1 + below(4)],
                epoch: 1 + below(2),
                block: below(3),
                before: below(2),
                room: 2 * PAGE - below(2),
            }
        }

        fn found(&self) -> Result<Option<Header>, String> {
            match self.kind {
                0 => return Ok(None),
                1 => return Err("no header".into()),
                _ => {}
            }
            let mut identity = Identity { group: 1, log: self.log, device: 2, incarnation: 3 };
            match self.foreign {
                0 => identity.group = 9,
                1 => identity.log = if self.log == Log::Own { Log::Recv } else { Log::Own },
                2 => identity.device = 9,
                3 => identity.incarnation = 9,
                _ => {}
            }
            let row = |stamp, volume, number| Row {
                stamp,
                block: Block { volume, number },
                level: 0,
                checksum: 0,
                index: 0,
                count: 1,
                has_data: true,
            };
            let (volume, number) = [(5, 3), (5, 4), (6, 0)][self.block as usize];
            let second = Stamp { epoch: self.epoch, ..stamp(self.times[1]) };
            Ok(Some(Header {
                identity,
                sequence: self.sequence,
                synced: self.synced,
                offset: self.offset,
                opened: self.opened,
                previous: stamp(self.previous),
                rows: vec![row(stamp(self.times[0]), 5, 0), row(second, volume, number)],
            }))
        }

        fn expected(&self) -> Expected {
            Expected {
                identity: Identity { group: 1, log: self.log, device: 2, incarnation: 3 },
                sequence: 7,
                opened: 2,
                newest_opening: 3,
                last: 0,
                epoch: 1,
                previous: (self.before > 0).then_some(stamp(self.before)),
                hi: stamp(1),
                block_size: BLOCK_SIZE,
                blocks: [(5, 4)].into(),
            }
        }

        fn judged(&self) -> Result<Found, Option<String>> {
            self.expected().judge(self.found(), OFFSET, self.room)
        }

        fn is_recv(&self) -> bool {
            self.log == Log::Recv
        }
    }

    #[test]
    fn the_first_row_that_holds_says_whether_it_is_the_next_batch() {
        type Row = (fn(&Case) -> bool, &'static str);
        const NEXT: &str = "the next batch";
        const NOTHING: &str = "nothing";
        let rows: [Row; 17] = [
            (|c| c.kind == 0, NOTHING),
            (|c| c.kind == 1, "no header"),
            (|c| c.foreign < 4, NOTHING),
            (|c| c.offset != OFFSET, NOTHING),
            (|c| c.opened > 3, NOTHING),
            (|c| c.sequence != 7, NOTHING),
            (|c| c.opened < 2, "a batch of opening 1 cannot follow one of 2"),
            (|c| c.synced >= 7, "batch 7 says that 7 was synced before it"),
            (|c| c.is_recv() && c.times[0] <= c.previous, "record 7 has stamp"),
            (|c| c.epoch == 2, "the tenure is 1"),
            (|c| c.block > 0, "which no volume has"),
            (|c| c.is_recv() && c.times[1] <= c.times[0], "record 8 has stamp"),
            (|c| !c.is_recv() && c.previous > 0, "the batch follows stamp"),
            (|c| c.is_recv() && c.before == 1 && c.previous != 1, "the batch follows stamp"),
            (|c| c.is_recv() && c.before == 0 && c.previous > 1, "the batch follows stamp"),
            (|c| c.room < 2 * PAGE, "runs past the log's end"),
            (|_| true, NEXT),
        ];
        let mut hits = [0; 17];
        let all = 0..2 * 4 * 3 * 3 * 3 * 12 * 2 * 3 * 2 * 2;
        let same = all.step_by(if cfg!(miri) { 997 } else { 1 }).map(Case::of);
        let others = |case: Case| {
            let kinds = [0, 1].map(|kind| Case { kind, ..case });
            let foreign = [0, 1, 2, 3].map(|foreign| Case { foreign, ..case });
            let moved = Case { offset: OFFSET + PAGE, ..case };
            kinds.into_iter().chain(foreign).chain([case, moved])
        };
        for case in same.flat_map(others) {
            let row = rows.iter().position(|(holds, _)| holds(&case)).expect("a row");
            hits[row] += 1;
            if let Ok(Some(header)) = case.found() {
                // An earlier incarnation's is not another device's.
                assert_eq!(case.expected().is_anothers(&header), case.foreign < 3, "{case:?}");
            }
            let said = match case.judged() {
                Ok(found) => {
                    assert_eq!((found.offset, found.bytes), (OFFSET, 2 * PAGE));
                    NEXT.to_string()
                }
                Err(None) => NOTHING.to_string(),
                Err(Some(reason)) => reason,
            };
            assert!(said.contains(rows[row].1), "row {row}: {said:?} of {case:?}");
        }
        assert!(!hits.contains(&0) || cfg!(miri), "rows that never hold: {hits:?}");
    }
}
