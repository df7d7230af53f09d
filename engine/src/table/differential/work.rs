//! Knowledge of the ordered mode that the steps are given, and the work that they ask of their caller.

use super::{Mode, Round};
use crate::table::bits::{Bits, Blocks};
use crate::unit::{Block, Stamp};
use std::ops::Range;

/// The ordered mode's knowledge when bits are made of it. In modes p and s all of it but `newest` is empty,
/// in mode c `unreflected` and `owed` are.
#[derive(Clone, Debug, Default)]
pub struct Ordered {
    /// Blocks of R.
    pub unacknowledged: Bits,
    /// Blocks of L, if the device is catching up (`hi < need`): records that are not in N, and whose turn
    /// comes with the peer's. Else nothing: they make N newer, in order, and it stays a prefix.
    pub unreflected: Bits,
    /// Blocks that the peer owes data for which is newer than the own newest record; nothing if that is
    /// not known, since a restart lost the prototype (R13).
    pub owed: Option<Bits>,
    /// The newest own stamp.
    pub newest: Stamp,
}

/// The caller's work after a step, in this order, before it does anything else to these blocks.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// The own log is synced first (D11).
    pub sync: bool,
    /// Own records are given up, of L and of R: they are void, and kept for salvage (D10).
    pub gives_up: bool,
    /// R, pend and `need` are empty from now on, and all records of L may go to N, those of blocks that
    /// the peer owes, too (D1).
    pub leaves_order: bool,
    /// The highest stamp received from the peer counts as this one, if it is below; the received log is
    /// empty then (D3): the peer's first ship will name it as its predecessor.
    pub hi: Option<Stamp>,
    /// Every record of before, synced by now, is reflected and checkpointed: no replay goes over a copy
    /// (D3).
    pub checkpoint: bool,
    /// [`super::Durable`] and what is void are stored by one superblock write, the table with them.
    pub store: bool,
    /// [`super::Durable`] is stored, and the table stays as it was stored: with the records above `cut` it has
    /// every bit (D8).
    pub keeps_table: bool,
    /// Of [`super::Durable`] only `owing` and `consistent` are stored: the table may have bits whose
    /// records are not durable, and must not be ahead of them (D11).
    pub mark: bool,
    /// The message to the peer.
    pub send: Option<Message>,
}

/// A message. An end and a level travel behind the copies, in the data lane: they say that no copy of
/// their round follows. The others travel in the control lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// A round is opened, or opened again on a new connection.
    Open {
        /// Its round.
        round: Round,
        /// Its mode.
        mode: Mode,
        /// The lineage of the active device.
        generation: u64,
        /// In mode c, what the first ship names as its predecessor.
        cut: Stamp,
        /// The last announcement that the active device has heard in the round; 0 if none.
        told: u64,
    },
    /// The answer, with the runs of the table, in pieces ([`Piece`]).
    Opened(Opened),
    /// The peer may take over.
    Grant(Grant),
    /// Ordered mode again.
    End {
        /// The round that ends.
        round: Round,
        /// The lineage of the active device.
        generation: u64,
        /// The target is consistent once it has all up to this stamp.
        consistent_at: Stamp,
    },
    /// The target is in ordered mode.
    EndAck {
        /// The round that ended.
        round: Round,
    },
    /// The target has all.
    Level {
        /// The round that goes on.
        round: Round,
    },
}

/// The fenced device's answer to an open, beside its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opened {
    /// The round that was opened.
    pub round: Round,
    /// The stamp that the fenced device's first ship will name as its predecessor, once it is active.
    pub cut: Stamp,
    /// The last announcement that the fenced device has heard in the round; 0 if none.
    pub told: u64,
    /// Whether its N is a prefix.
    pub is_consistent: bool,
}

/// The answer to a takeover request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// A prototype, by the ordered mode's rules (R4, R5).
    Prototype {
        /// The round that both are in.
        round: Round,
    },
    /// The runs of the table beyond what was told, in pieces that the requester gathers.
    Table {
        /// The round that begins.
        round: Round,
        /// The lineage of the answerer.
        generation: u64,
        /// Whether the requester was active later than the answerer.
        later: bool,
        /// The last announcement: what those up to it told of is left out. 0 if nothing is.
        told: u64,
    },
}

/// Some of a table's runs, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// The addresses that it speaks of.
    pub range: Range<Block>,
    /// The blocks set there.
    pub blocks: Bits,
    /// Whether it is the last piece.
    pub is_last: bool,
}

/// The fate of a copy that was taken in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Work to be done before the acknowledgement.
    pub work: Work,
    /// Blocks of it that count as copied; the others were dropped, or an own write is newer.
    pub written: Vec<Blocks>,
}
