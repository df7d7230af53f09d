//! D3, D6: a round is opened by the active device, and the fenced one answers with its table.

use super::work::{Message, Opened, Ordered, Piece, Work};
use super::{Consistent, Differential, Mode, Round, Side, Stage};
use crate::table::bits::Bits;
use crate::unit::Stamp;
use crate::weaken::{Clause, holds, instead};

impl Differential {
    /// Whether the active device can open a round of `mode` now: the one it is in, on a new connection; or
    /// the first in which it sends, once the peer owes nothing (D6); or mode c instead of s.
    pub fn may_open(&self, mode: Mode) -> bool {
        match (self.mode, mode) {
            (Mode::Collecting, Mode::Collecting) => {
                self.stage == Stage::Closed && !self.owed.is_empty()
            }
            (Mode::Sending, Mode::Sending) | (Mode::Copying, Mode::Copying) => {
                self.stage == Stage::Closed
            }
            (Mode::Collecting, Mode::Sending | Mode::Copying) => self.owed.is_empty(),
            (Mode::Sending, Mode::Copying) => true,
            _ => false,
        }
    }

    /// The active device opens a round, or opens its round again; `newest` is the newest own stamp. Nothing
    /// happens if [`Differential::may_open`] says no.
    pub fn open(&mut self, mode: Mode, newest: Stamp) -> Option<Work> {
        if !self.may_open(mode) {
            return None;
        }
        // Of a group that is always in differential mode the first round is a new one, too: a peer that is
        // below it once it has been in it has lost what it had.
        let is_new = mode != self.mode || self.round == Round::default();
        let checkpoint = self.checkpoints_before(Side::Active, mode);
        let sync = (is_new || mode == Mode::Collecting) && holds(Clause::OpenSync);
        if is_new {
            self.land();
            self.begin(mode, self.round.next());
        }
        if is_new && mode == Mode::Copying {
            self.cut_at(newest);
        }
        self.stage = Stage::Asked;
        let (round, generation, cut) = (self.round, self.generation, self.cut);
        let told = self.told.heard;
        let send = Some(Message::Open { round, mode, generation, cut, told });
        Some(Work { sync, checkpoint, store: is_new, send, ..Work::default() })
    }

    /// The device that copies, or records of a new order, will come to has nothing left that a replay could
    /// put over them.
    fn checkpoints_before(&self, side: Side, mode: Mode) -> bool {
        let takes = match side {
            // In mode c the peer's first record will follow what is in N by then.
            Side::Active => matches!(mode, Mode::Collecting | Mode::Copying),
            Side::Fenced => mode != Mode::Collecting,
        };
        holds(Clause::CheckpointBeforeCopy) && takes
    }

    /// The fenced device hears that a round is opened, and follows (D1, D3); `generation` is the active
    /// device's, `cut` the first ship's predecessor, and `told` the last announcement that it has heard. Nothing happens if the round is below its own, or
    /// is its own in another mode, but for mode c after an end whose acknowledgement was lost.
    ///
    /// From now on what it has is not consistent, if the round is one in which the active device sends
    /// (D6). The table goes out in pieces, then [`Differential::said_opened`] is called.
    pub fn hear_open(
        &mut self,
        side: Side,
        (round, mode): (Round, Mode),
        generation: u64,
        (cut, told): (Stamp, u64),
        ordered: Ordered,
    ) -> Option<Work> {
        let is_again = mode == self.mode || self.mode == Mode::Ordered && mode == Mode::Copying;
        let is_no_round = mode == Mode::Ordered || round == self.round && !is_again;
        if round < self.round || is_no_round || side == Side::Active {
            return None;
        }
        self.land();
        // D10: a returned device's records are M.
        let returned = self.generation < generation;
        if returned || holds(Clause::PeerConverts) {
            self.add_to_table(&ordered.unacknowledged);
        }
        if returned {
            self.add_to_table(&ordered.unreflected);
        }
        self.generation = instead::lineage_at_open(self.generation, generation);
        self.begin(mode, round);
        self.tell_after(told);
        self.stage = Stage::Asked;
        self.owed = Bits::default();
        self.leave_order(&ordered.unreflected, ordered.newest);
        if mode != Mode::Collecting && holds(Clause::TargetMarked) {
            self.consistent = Consistent::No;
        }
        Some(Work {
            leaves_order: true,
            hi: (mode == Mode::Copying).then_some(cut),
            checkpoint: self.checkpoints_before(Side::Fenced, mode),
            store: true,
            send: Some(Message::Opened(Opened {
                round,
                cut: self.cut,
                told: self.told.heard,
                is_consistent: self.consistent == Consistent::Yes,
            })),
            ..Work::default()
        })
    }

    /// The table was said in whole: copies may follow.
    pub fn said_opened(&mut self) {
        self.stage = self.stage.max(Stage::Open);
    }

    /// The active device hears a piece of the table (D3): in mode p the peer owes no more than that; in the
    /// others the blocks that a returned device has changed are sent, too (D10). Nothing happens if the
    /// device does not wait for it.
    pub fn hear_opened(&mut self, side: Side, opened: Opened, piece: &Piece) -> Option<Work> {
        let Opened { round, cut, told, is_consistent } = opened;
        if round != self.round || side == Side::Fenced || self.stage != Stage::Asked {
            return None;
        }
        if self.mode == Mode::Collecting {
            self.owed.keep_within(piece.range.clone(), &piece.blocks);
        } else if holds(Clause::JoinTable) {
            self.add_to_table(&piece.blocks);
        }
        if piece.is_last {
            self.tell_after(told);
            self.stage = Stage::Open;
        }
        self.is_peer_inconsistent = !is_consistent;
        self.settle(side);
        let hi = (self.mode == Mode::Copying && holds(Clause::CutOfTarget)).then_some(cut);
        Some(Work { hi, ..Work::default() })
    }

    /// The connection has ended: copies in flight are sent again, and the round is opened again (D2, D3).
    pub fn hung_up(&mut self) {
        self.land();
        self.told.hung_up();
        if self.mode != Mode::Ordered && holds(Clause::OpenAgain) {
            self.stage = Stage::Closed;
        }
    }

    /// Whether ships, acknowledgements, questions and answers of `round` count (D3, D5).
    pub fn is_of(&self, round: Round) -> bool {
        round == self.round
    }
}
