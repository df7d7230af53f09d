//! The frames of the ladder (D3, D4, D7, D9): what the devices of a pair say to each other to leave
//! ordered mode, to copy, and to come back. From wire version 4 on.

use super::super::superblock::{mode_number, mode_of};
use super::super::table::{self, NUMBER_END, RUN_BYTES_MAX};
use super::fields::{Fields, broken, put_block, put_stamp, put_u32, put_u64};
use super::{FRAME_DATA_MAX, ROWS};
use crate::error::Result;
use crate::unit::{Block, Blocks, Mode, Round, Stamp};
use std::iter::Peekable;

/// The lowest wire version that has these frames, a round in each ship, and a requester's place on the
/// ladder in its takeover request. A pair that speaks an older one stays in ordered mode.
pub(crate) const LADDER_WIRE: u16 = 4;

/// Most runs of blocks in one frame: 1 MiB of them, however far they are apart.
pub const RUNS_MAX: usize = FRAME_DATA_MAX as usize / RUN_BYTES_MAX;

/// Most copies in one frame: 1 MiB of data in blocks of 512 bytes.
pub const COPIES_MAX: usize = ROWS;

/// Bytes of a copy without its data.
pub(super) const COPIED: usize = 32;

/// Rounds, lineages and announcements have numbers below this one.
const COUNT_END: u64 = 1 << 63;

const OPEN: u16 = 11;
const OPENED: u16 = 12;
const GRANT_TABLE: u16 = 13;
const COPY: u16 = 14;
const COPY_ACK: u16 = 17;
const END: u16 = 18;
const END_ACK: u16 = 19;
const LEVEL: u16 = 20;
const TOLD: u16 = 21;
const RETURNED: u16 = 23;
const SUMS: u16 = 24;
const DIFFERS: u16 = 25;

/// The place on the ladder of a device that asks for the host (D4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    /// Its mode.
    pub mode: Mode,
    /// Its round.
    pub round: Round,
    /// The last tenure in which it was active.
    pub last_active: u64,
    /// The number of its lineage.
    pub generation: u64,
    /// The last announcement of bits that it has heard in its round; 0 if none.
    pub told: u64,
}

/// Some of a table's runs. The pieces of a table speak of all addresses, one after the other.
///
/// The decoder has checked that the runs rise, that none touches another, and that they lie within the
/// piece. The receiver checks that the piece begins where the one before ended, the first at
/// [`TablePiece::FIRST`], that the last ends at [`TablePiece::END`], and what no volume has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePiece {
    /// The first address that it speaks of.
    pub from: Block,
    /// The address behind the last that it speaks of; above `from`.
    pub to: Block,
    /// The blocks set there, in rising order.
    pub runs: Vec<Blocks>,
    /// Whether it is the last piece.
    pub is_last: bool,
}

/// The copy of one block with data, or of neighbouring blocks of zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The first block.
    pub block: Block,
    /// How many blocks, at least 1; 1 with data.
    pub count: u64,
    /// Whether a block of data goes with it; if not, the blocks read as zeros.
    pub has_data: bool,
    /// Checksum of the data, 0 for zeros.
    pub checksum: u64,
}

impl Copied {
    /// The blocks.
    pub fn blocks(&self) -> Blocks {
        let Block { volume, number } = self.block;
        Blocks { volume, numbers: number..number + self.count }
    }
}

/// A frame of the ladder. [`Ladder::Copy`], [`Ladder::Sums`], [`Ladder::End`] and [`Ladder::Level`] travel in the
/// data lane: an end and a level say that no copy of their round follows. The others travel in the control lane.
///
/// The decoder has checked that the numbers of rounds, lineages and announcements are below 2^63 and those of blocks
/// below 2^53. The receiver checks everything else: the round, and that its volumes have the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ladder<'a> {
    /// A round is opened, or opened again on a new connection (D3).
    Open {
        /// Its round.
        round: Round,
        /// Its mode.
        mode: Mode,
        /// The number of the active device's lineage.
        generation: u64,
        /// In the copying mode, the stamp that the first ship names as its predecessor.
        cut: Stamp,
        /// The highest stamp that the sender knows of as sealed (R2).
        clk: Stamp,
        /// The last announcement of bits that the sender has heard in the round; 0 if none.
        told: u64,
    },
    /// The answer to an open: a piece of the fenced device's table (D3).
    Opened {
        /// The round that was opened.
        round: Round,
        /// The stamp that the fenced device's first ship will name as its predecessor, once it is active.
        cut: Stamp,
        /// The last announcement of bits that the sender has heard in the round; 0 if none.
        told: u64,
        /// Whether the sender's normal volumes are a state that the hosts' data had once.
        is_consistent: bool,
        /// The piece.
        piece: TablePiece,
    },
    /// The answer to a takeover request, unless both are in ordered mode and of one round: a piece of the
    /// answerer's table beyond what was told (D4).
    GrantTable {
        /// The request answered.
        nonce: u64,
        /// The tenure granted.
        grant: u64,
        /// The round that begins.
        round: Round,
        /// The number of the answerer's lineage.
        generation: u64,
        /// Whether the requester was active later than the answerer.
        later: bool,
        /// The last announcement of bits: what those up to it told of is left out. 0 if nothing is.
        told: u64,
        /// The piece.
        piece: TablePiece,
    },
    /// Before a takeover request of a device that returned after its peer was forced to take over: a piece
    /// of what differs there from the peer's history (D10).
    Returned {
        /// The request that follows.
        nonce: u64,
        /// The piece.
        piece: TablePiece,
    },
    /// Copies of blocks, with their data one after the other (D2, D5).
    ///
    /// The frame's checksum does not cover the data. The receiver checks that there is as much as the copies
    /// with data have, a block each, and that each block gives its copy's checksum.
    Copy {
        /// The round that they belong to.
        round: Round,
        /// The last announcement of bits when the blocks were read.
        said: u64,
        /// The copies, in the order of their data.
        copies: Vec<Copied>,
        /// The data of those that have any.
        data: &'a [u8],
    },
    /// Copies of blocks that the receiver may have: their checksums in place of their data. With the wire
    /// feature 16 only, as its answer.
    Sums {
        /// The round that they belong to.
        round: Round,
        /// The last announcement of bits when the blocks were read.
        said: u64,
        /// The blocks, in rising order, no run touching another.
        blocks: Vec<Blocks>,
        /// The XXH3-128 of each, in their order.
        sums: Vec<u128>,
    },
    /// Blocks whose checksums came, and whose content is another at the sender: they are to be copied. The
    /// others are acknowledged as copies are.
    Differs {
        /// The round that they belong to.
        round: Round,
        /// The blocks, in rising order, no run touching another.
        blocks: Vec<Blocks>,
    },
    /// Copies are durable at the sender, or not needed there (D2, D5).
    CopyAck {
        /// The round that they belong to.
        round: Round,
        /// Their blocks, in rising order, no run touching another.
        blocks: Vec<Blocks>,
    },
    /// Ordered mode again (D9).
    End {
        /// The round that ends.
        round: Round,
        /// The number of the active device's lineage.
        generation: u64,
        /// The target is consistent once it has all up to this stamp.
        consistent_at: Stamp,
    },
    /// The target is in ordered mode (D9).
    EndAck {
        /// The round that ended.
        round: Round,
    },
    /// The target has all (D7).
    Level {
        /// The round that goes on.
        round: Round,
    },
    /// An announcement: blocks that have a bit at the sender (section 6).
    Told {
        /// The round whose it is.
        round: Round,
        /// Its number: later ones have higher numbers, which are times in nanoseconds since 1970.
        number: u64,
        /// The blocks, in rising order, no run touching another.
        blocks: Vec<Blocks>,
    },
}

impl Ladder<'_> {
    /// Whether frames of this kind are of the ladder.
    pub(super) fn has(kind: u16) -> bool {
        matches!(kind, OPEN..=COPY | COPY_ACK..=TOLD | RETURNED..=DIFFERS)
    }

    /// Whether frames of this kind have copies or checksums of blocks.
    pub(super) fn brings_copies(kind: u16) -> bool {
        matches!(kind, COPY | SUMS)
    }

    /// The frame in a sentence, with its article.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Ladder::Open { .. } => "an open of a round",
            Ladder::Opened { .. } => "the answer to an open",
            Ladder::GrantTable { .. } => "a grant with a table",
            Ladder::Returned { .. } => "the table of a device that returned",
            Ladder::Copy { .. } => "copies of blocks",
            Ladder::Sums { .. } => "checksums of blocks",
            Ladder::Differs { .. } => "an answer to checksums of blocks",
            Ladder::CopyAck { .. } => "an acknowledgement of copies",
            Ladder::End { .. } => "the end of a round",
            Ladder::EndAck { .. } => "the acknowledgement of an end",
            Ladder::Level { .. } => "a level",
            Ladder::Told { .. } => "an announcement of bits",
        }
    }

    /// Appends the body; returns the kind, and the data that goes behind it.
    pub(super) fn put(&self, b: &mut Vec<u8>) -> (u16, &[u8]) {
        match self {
            Ladder::Open { round, mode, generation, cut, clk, told } => {
                put_round(b, *round);
                put_mode(b, *mode);
                put_u64(b, *generation);
                put_stamp(b, *cut);
                put_stamp(b, *clk);
                put_u64(b, *told);
                (OPEN, &[])
            }
            Ladder::Opened { round, cut, told, is_consistent, piece } => {
                put_round(b, *round);
                put_stamp(b, *cut);
                put_u64(b, *told);
                put_u32(b, u32::from(*is_consistent));
                piece.put(b);
                (OPENED, &[])
            }
            Ladder::GrantTable { nonce, grant, round, generation, later, told, piece } => {
                put_u64(b, *nonce);
                put_u64(b, *grant);
                put_round(b, *round);
                put_u64(b, *generation);
                put_u32(b, u32::from(*later));
                put_u64(b, *told);
                piece.put(b);
                (GRANT_TABLE, &[])
            }
            Ladder::Returned { nonce, piece } => {
                put_u64(b, *nonce);
                piece.put(b);
                (RETURNED, &[])
            }
            Ladder::Copy { round, said, copies, data } => {
                b.reserve(28 + copies.len() * COPIED + data.len());
                put_round(b, *round);
                put_u64(b, *said);
                put_u32(b, copies.len() as u32);
                for copied in copies {
                    put_block(b, copied.block);
                    put_u64(b, copied.count);
                    put_u32(b, u32::from(copied.has_data));
                    put_u64(b, copied.checksum);
                }
                (COPY, data)
            }
            Ladder::Sums { round, said, blocks, sums } => {
                put_round(b, *round);
                put_u64(b, *said);
                put_runs(b, blocks);
                sums.iter().for_each(|sum| b.extend_from_slice(&sum.to_le_bytes()));
                (SUMS, &[])
            }
            Ladder::Differs { round, blocks } => {
                put_round(b, *round);
                put_runs(b, blocks);
                (DIFFERS, &[])
            }
            Ladder::CopyAck { round, blocks } => {
                put_round(b, *round);
                put_runs(b, blocks);
                (COPY_ACK, &[])
            }
            Ladder::End { round, generation, consistent_at } => {
                put_round(b, *round);
                put_u64(b, *generation);
                put_stamp(b, *consistent_at);
                (END, &[])
            }
            Ladder::EndAck { round } => {
                put_round(b, *round);
                (END_ACK, &[])
            }
            Ladder::Level { round } => {
                put_round(b, *round);
                (LEVEL, &[])
            }
            Ladder::Told { round, number, blocks } => {
                put_round(b, *round);
                put_u64(b, *number);
                put_runs(b, blocks);
                (TOLD, &[])
            }
        }
    }

    /// Reads a body of a kind that is of the ladder; `data` is behind it.
    pub(super) fn take<'a>(kind: u16, f: &mut Fields<'_>, data: &'a [u8]) -> Result<Ladder<'a>> {
        Ok(match kind {
            OPEN => {
                let (round, mode, generation) = (take_round(f)?, take_mode(f)?, take_count(f)?);
                let (cut, clk, told) = (f.stamp()?, f.stamp()?, take_count(f)?);
                Ladder::Open { round, mode, generation, cut, clk, told }
            }
            OPENED => {
                let (round, cut, told) = (take_round(f)?, f.stamp()?, take_count(f)?);
                let (is_consistent, piece) = (f.u32()? != 0, TablePiece::take(f)?);
                Ladder::Opened { round, cut, told, is_consistent, piece }
            }
            GRANT_TABLE => {
                let (nonce, grant, round) = (f.u64()?, f.u64()?, take_round(f)?);
                let (generation, later, told) = (take_count(f)?, f.u32()? != 0, take_count(f)?);
                let piece = TablePiece::take(f)?;
                Ladder::GrantTable { nonce, grant, round, generation, later, told, piece }
            }
            RETURNED => Ladder::Returned { nonce: f.u64()?, piece: TablePiece::take(f)? },
            COPY => {
                let (round, said, count) = (take_round(f)?, take_count(f)?, f.count(COPIED)?);
                if count > COPIES_MAX {
                    return Err(broken(format!(
                        "a frame has {count} copies, more than the {COPIES_MAX} that one may have"
                    )));
                }
                let copies = (0..count).map(|_| Copied::take(f)).collect::<Result<_>>()?;
                Ladder::Copy { round, said, copies, data }
            }
            SUMS => {
                let (round, said, blocks) = (take_round(f)?, take_count(f)?, take_runs(f)?);
                Ladder::Sums { round, said, sums: take_sums(f, &blocks)?, blocks }
            }
            DIFFERS => Ladder::Differs { round: take_round(f)?, blocks: take_runs(f)? },
            COPY_ACK => Ladder::CopyAck { round: take_round(f)?, blocks: take_runs(f)? },
            END => {
                let (round, generation) = (take_round(f)?, take_count(f)?);
                Ladder::End { round, generation, consistent_at: f.stamp()? }
            }
            END_ACK => Ladder::EndAck { round: take_round(f)? },
            LEVEL => Ladder::Level { round: take_round(f)? },
            TOLD => {
                let (round, number, blocks) = (take_round(f)?, take_count(f)?, take_runs(f)?);
                Ladder::Told { round, number, blocks }
            }
            other => return Err(broken(format!("a frame of kind {other} is not of the ladder"))),
        })
    }
}

impl Requester {
    pub(super) fn put(&self, b: &mut Vec<u8>) {
        put_mode(b, self.mode);
        put_round(b, self.round);
        put_u64(b, self.last_active);
        put_u64(b, self.generation);
        put_u64(b, self.told);
    }

    pub(super) fn take(f: &mut Fields<'_>) -> Result<Requester> {
        let (mode, round) = (take_mode(f)?, take_round(f)?);
        let (last_active, generation, told) = (f.u64()?, take_count(f)?, take_count(f)?);
        Ok(Requester { mode, round, last_active, generation, told })
    }
}

impl TablePiece {
    /// Before every address.
    pub const FIRST: Block = Block { volume: 0, number: 0 };

    /// Behind every address.
    pub const END: Block = Block { volume: u32::MAX, number: u64::MAX };

    /// The piece that begins at `from`, with as many of `runs` as a frame takes. `runs` are what is left of
    /// the table from there on, in rising order. The next piece begins at [`TablePiece::to`].
    pub fn next(from: Block, runs: &mut Peekable<impl Iterator<Item = Blocks>>) -> TablePiece {
        let these: Vec<_> = runs.by_ref().take(RUNS_MAX).collect();
        let next = runs.peek().map(Blocks::first);
        TablePiece { from, to: next.unwrap_or(Self::END), runs: these, is_last: next.is_none() }
    }

    fn put(&self, b: &mut Vec<u8>) {
        put_block(b, self.from);
        put_block(b, self.to);
        put_u32(b, u32::from(self.is_last));
        put_runs(b, &self.runs);
    }

    fn take(f: &mut Fields<'_>) -> Result<TablePiece> {
        let (from, to, is_last) = (f.block()?, f.block()?, f.u32()? != 0);
        let runs = take_runs(f)?;
        let ends = runs.first().zip(runs.last());
        let is_within = ends.is_none_or(|(first, last)| {
            first.first() >= from && Block { volume: last.volume, number: last.numbers.end } <= to
        });
        match from < to && is_within {
            true => Ok(TablePiece { from, to, runs, is_last }),
            false => Err(broken(format!(
                "a piece of a table, from {from} to before {to}, has runs from {} on to before {}",
                ends.map_or(from, |(first, _)| first.first()),
                ends.map_or(to, |(_, last)| last.range().end),
            ))),
        }
    }
}

impl Copied {
    fn take(f: &mut Fields<'_>) -> Result<Copied> {
        let (block, count, has_data) = (f.block()?, f.u64()?, f.u32()?);
        let copied = Copied { block, count, has_data: has_data == 1, checksum: f.u64()? };
        let refused = match copied {
            _ if has_data > 1 => format!("content {has_data}: neither 0 (zeros) nor 1 (data)"),
            Copied { has_data: true, count, .. } if count != 1 => {
                format!("data and {count} blocks: with data it has 1")
            }
            Copied { has_data: false, checksum, .. } if checksum != 0 => {
                format!("zeros and checksum {checksum:016x}: without data it has 0")
            }
            _ if count == 0 => "no block".into(),
            _ if block.number.saturating_add(count) > NUMBER_END => {
                format!("{count} blocks, and a volume at most {NUMBER_END}")
            }
            _ => return Ok(copied),
        };
        Err(broken(format!("the copy of block {block} has {refused}")))
    }
}

fn put_runs(b: &mut Vec<u8>, runs: &[Blocks]) {
    put_u32(b, runs.len() as u32);
    table::put(b, &mut runs.iter().cloned().peekable(), usize::MAX);
}

fn take_runs(f: &mut Fields<'_>) -> Result<Vec<Blocks>> {
    let count = f.u32()?;
    if count as usize > RUNS_MAX {
        return Err(broken(format!(
            "a frame claims {count} runs of blocks, more than the {RUNS_MAX} that one may have"
        )));
    }
    table::take(&mut f.0, count.into()).map_err(|e| broken(format!("a frame's runs: {e}")))
}

/// A checksum of each of `blocks`.
fn take_sums(f: &mut Fields<'_>, blocks: &[Blocks]) -> Result<Vec<u128>> {
    let count: u128 = blocks.iter().map(|run| u128::from(run.count())).sum();
    if count > COPIES_MAX as u128 {
        return Err(broken(format!(
            "a frame has the checksums of {count} blocks, more than the {COPIES_MAX} that one may have"
        )));
    }
    let sums = f.take(count as usize * size_of::<u128>())?.as_chunks().0;
    Ok(sums.iter().map(|sum| u128::from_le_bytes(*sum)).collect())
}

pub(super) fn put_round(b: &mut Vec<u8>, round: Round) {
    put_u64(b, round.generation);
    put_u64(b, round.counter);
}

pub(super) fn take_round(f: &mut Fields<'_>) -> Result<Round> {
    Ok(Round { generation: take_count(f)?, counter: take_count(f)? })
}

/// A number of a lineage, of a round in it, or of an announcement: so low that the next one exists, too.
fn take_count(f: &mut Fields<'_>) -> Result<u64> {
    match f.u64()? {
        count if count < COUNT_END => Ok(count),
        count => Err(broken(format!(
            "a frame names round, lineage or announcement {count}, of 2^63 or more"
        ))),
    }
}

fn put_mode(b: &mut Vec<u8>, mode: Mode) {
    put_u32(b, mode_number(mode).into());
}

fn take_mode(f: &mut Fields<'_>) -> Result<Mode> {
    mode_of(f.u32()?).map_err(|e| broken(format!("a frame's {e}")))
}
