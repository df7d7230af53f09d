//! Differential mode, the lower rung of the ladder: a device's differential administration table towards
//! one peer, and what moves it (rules D1–D11). No I/O: each step returns the [`Work`] that its caller has
//! to do, in the order of the fields.
//!
//! | file | rules |
//! |---|---|
//! | `enter.rs` | D1: out of ordered mode |
//! | `copies.rs` | D2, D5, D6: bits of host writes, copies sent, received, acknowledged |
//! | `rounds.rs` | D3: open and opened, the end of a connection |
//! | `takeover.rs` | D4: fence and grant, request and take |
//! | `rest.rs` | D7, D9: level, and back to ordered mode |
//! | `restart.rs` | D8: what is durable, and what is made of it |
//! | `force.rs` | D10: forced takeover, and the return of the other device |
//! | `told.rs` | section 6, told: bits announced ahead of a takeover |
//! | `work.rs` | nothing: what a step asks of its caller |
//!
//! D11 is the order in [`Work`]. `search.rs` drives these steps through every order of messages and
//! faults within small bounds.

mod copies;
mod enter;
mod force;
mod rest;
mod restart;
mod rounds;
#[cfg(all(test, not(loom)))]
mod search;
mod takeover;
mod told;
mod work;

use crate::table::announced::Announced;
use crate::table::bits::Bits;
use crate::unit::Stamp;
use crate::weaken::{Clause, holds};
use told::{Telling, Told};

pub use crate::unit::{Mode, Round};
pub use force::Force;
pub use restart::Durable;
pub use takeover::{Request, Taken};
pub use told::Announcement;
pub use work::{Arrival, Grant, Message, Opened, Ordered, Piece, Work};

/// How far a round has come. The end of a connection closes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Stage {
    /// The peer may not know of it.
    #[default]
    Closed,
    /// The active device has sent `open`; the fenced one has not said all of its `opened`.
    Asked,
    /// Both are in it.
    Open,
    /// `end` or `level` was sent.
    Said,
}

/// Whether hosts are served here, as the role says (`failover/role.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This device serves.
    Active,
    /// The other does.
    Fenced,
}

/// Whether N is a state that the hosts' data had once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistent {
    /// It is.
    #[default]
    Yes,
    /// It will be, in ordered mode, once all up to this stamp of the peer is here.
    At(Stamp),
    /// It is not, until the peer owes nothing, or has said an end or a level.
    No,
}

/// One device's differential state towards one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Differential {
    mode: Mode,
    round: Round,
    stage: Stage,
    /// T: blocks written here whose newest content may not be at the peer, but for `flying`.
    table: Bits,
    /// P: blocks that the peer owes; only at the active device.
    owed: Bits,
    /// Whether `owed` is, or may have been before the own log's last sync, not empty.
    owing: bool,
    /// Blocks sent and not acknowledged.
    flying: Bits,
    /// Number of the lineage that this device's content belongs to.
    generation: u64,
    /// The last tenure in which this device was active.
    last_active: u64,
    /// No own record up to it is of R, or implies a bit.
    cut: Stamp,
    consistent: Consistent,
    /// Whether the fenced peer has said in this round that it is not consistent.
    is_peer_inconsistent: bool,
    telling: Telling,
    told: Told,
}

impl Differential {
    /// How host writes reach the peer.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The round that ships and acknowledgements carry.
    pub fn round(&self) -> Round {
        self.round
    }

    /// The differential administration table, without the blocks in flight (T).
    pub fn table(&self) -> &Bits {
        &self.table
    }

    /// Blocks that the peer owes: a read asks it, and never N here (P).
    pub fn owed(&self) -> &Bits {
        &self.owed
    }

    /// Blocks sent and not acknowledged.
    pub fn flying(&self) -> &Bits {
        &self.flying
    }

    /// The lineage's number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Own records up to it are not of R, and imply no bit.
    pub fn cut(&self) -> Stamp {
        self.cut
    }

    /// Whether N is a prefix of the hosts' writes.
    pub fn consistent(&self) -> Consistent {
        self.consistent
    }

    /// Whether there is no consistent copy at either site: the active device's N is no prefix, and the fenced
    /// peer has said in this round that its own is none (LADDER 4). It takes two takeovers before the peer has
    /// sent what it owes, or a device that was catching up when its pair left ordered mode.
    pub fn lacks_consistent_copy(&self, side: Side) -> bool {
        side == Side::Active && self.is_peer_inconsistent && self.consistent != Consistent::Yes
    }

    /// Whether both devices are in the round, as this device knows: then questions about blocks in
    /// [`Differential::owed`] can be sent (D3).
    pub fn is_open(&self) -> bool {
        let least = if holds(Clause::OpenFirst) { Stage::Open } else { Stage::Asked };
        self.stage >= least
    }

    /// Whether the round is being opened: the fenced device has not said all of its table.
    pub fn is_asked(&self) -> bool {
        self.stage == Stage::Asked
    }

    /// Whether the peer has to be asked into the round: `open` is to be sent, or sent again on a new
    /// connection ([`Differential::open`]).
    pub fn is_closed(&self) -> bool {
        self.mode != Mode::Ordered && self.stage == Stage::Closed
    }

    /// Whether the group rests in mode s: `level` was said, and no copy was sent since.
    pub fn is_level(&self) -> bool {
        self.mode == Mode::Sending && self.stage == Stage::Said
    }

    /// Whether the peer owes nothing any more, and that is not stored: [`Differential::synced`] is next,
    /// once what was written and copied is durable (D11).
    pub fn awaits_sync(&self) -> bool {
        self.owing && self.owed.is_empty()
    }

    /// No block is to be sent, or on its way.
    fn has_sent_all(&self) -> bool {
        self.table.is_empty() && self.flying.is_empty()
    }

    /// Blocks that were in flight when a connection or a round ended are to be sent again (D2).
    fn land(&mut self) {
        let flying = std::mem::take(&mut self.flying);
        if holds(Clause::Refly) {
            self.add_to_table(&flying);
        }
    }

    /// These blocks get bits, of which the peer has not been told.
    fn add_to_table(&mut self, blocks: &Bits) {
        self.table.add(blocks);
        blocks.runs().for_each(|run| self.telling.add(&run));
    }

    /// A new mode, in a round of its own, which the peer does not know of, or in the same round. The table is
    /// what it is from then on.
    fn begin(&mut self, mode: Mode, round: Round) {
        if round != self.round {
            self.tell_anew(false);
            self.is_peer_inconsistent = false;
        }
        self.enter(mode, round);
    }

    fn enter(&mut self, mode: Mode, round: Round) {
        (self.mode, self.round, self.stage) = (mode, round, Stage::Closed);
    }

    /// Bits were taken away, or made of R: own records so far imply none, and are not of R.
    fn cut_at(&mut self, newest: Stamp) {
        if holds(Clause::TableCut) {
            self.cut = self.cut.max(newest);
        }
    }

    /// Every own record up to `newest` has its bit in what is stored now, or needs none: none of them
    /// implies one after a restart (D8). Returns the newest stamp of which that is so.
    pub fn stores_upto(&mut self, newest: Stamp) -> Stamp {
        self.cut_at(newest);
        self.cut
    }

    /// The active device is consistent once the peer owes it nothing (D6).
    fn settle(&mut self, side: Side) {
        let owes_nothing = self.owed.is_empty();
        self.owing |= !owes_nothing;
        if side == Side::Active && self.mode != Mode::Ordered && owes_nothing {
            self.consistent = Consistent::Yes;
            self.told.earlier = Announced::default();
        }
    }
}
