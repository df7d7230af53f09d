//! D7, D9: a differential group rests level; another goes back to ordered mode.

use super::told::{Telling, Told};
use super::work::{Message, Work};
use super::{Consistent, Differential, Mode, Round, Side, Stage};
use crate::table::bits::Bits;
use crate::unit::Stamp;
use crate::weaken::{Clause, holds};

impl Differential {
    /// Whether the active device, in mode s, can say that the peer has all (D7).
    pub fn may_level(&self) -> bool {
        let has_sent = self.has_sent_all() || !holds(Clause::LevelWhenSent);
        self.mode == Mode::Sending && self.is_open() && self.stage != Stage::Said && has_sent
    }

    /// The active device says so, until it sends the next copy (D7). Nothing happens if
    /// [`Differential::may_level`] says no.
    pub fn level(&mut self) -> Option<Work> {
        if !self.may_level() {
            return None;
        }
        self.stage = Stage::Said;
        let send = Some(Message::Level { round: self.round });
        Some(Work { sync: holds(Clause::LevelWhenSent), send, ..Work::default() })
    }

    /// The target hears it: it is consistent until the next copy (D7).
    pub fn hear_level(&mut self, side: Side, round: Round) -> Option<Work> {
        if !self.is_of(round) || side == Side::Active || self.mode != Mode::Sending {
            return None;
        }
        self.consistent = Consistent::Yes;
        self.told.covered();
        Some(Work { store: true, ..Work::default() })
    }

    /// Whether the active device, in mode c, can go back to ordered mode (D9).
    pub fn may_end(&self) -> bool {
        self.mode == Mode::Copying
            && self.is_open()
            && self.stage != Stage::Said
            && self.has_sent_all()
    }

    /// The active device says so (D9); `newest` is the newest stamp in R, if any: what was copied may
    /// be of that time. Nothing happens if [`Differential::may_end`] says no.
    pub fn end(&mut self, newest: Option<Stamp>) -> Option<Work> {
        if !self.may_end() {
            return None;
        }
        self.stage = Stage::Said;
        let (round, generation) = (self.round, self.generation);
        let newest = newest.filter(|_| holds(Clause::ConsistentAt));
        let consistent_at = newest.unwrap_or(Stamp::ZERO);
        let send = Some(Message::End { round, generation, consistent_at });
        Some(Work { sync: holds(Clause::EndSync), send, ..Work::default() })
    }

    /// The target goes back to ordered mode, of the active device's lineage; it is consistent once `hi`, the
    /// highest stamp that it has received, is at `consistent_at` (D9). Nothing happens at a device that is
    /// not the target of a round of mode c; one that is ordered already says once more that it is.
    pub fn hear_end(
        &mut self,
        side: Side,
        round: Round,
        generation: u64,
        consistent_at: Stamp,
        hi: Stamp,
    ) -> Option<Work> {
        let is_target = matches!(self.mode, Mode::Copying | Mode::Ordered) && side == Side::Fenced;
        if !self.is_of(round) || !is_target {
            return None;
        }
        self.begin(Mode::Ordered, round);
        self.table = Bits::default();
        self.telling = Telling::default();
        self.told = Told::default();
        self.generation = self.generation.max(generation);
        self.consistent = Consistent::At(consistent_at);
        self.received(hi);
        Some(Work { store: true, send: Some(Message::EndAck { round }), ..Work::default() })
    }

    /// The active device hears that the target is in ordered mode, and goes there itself (D9). `cut` stays:
    /// R is what was written since mode c was opened.
    pub fn hear_end_ack(&mut self, side: Side, round: Round) -> Option<Work> {
        let is_source = self.mode == Mode::Copying && side == Side::Active;
        let has_ended = self.stage == Stage::Said && self.has_sent_all();
        if !self.is_of(round) || !is_source || !has_ended {
            return None;
        }
        self.begin(Mode::Ordered, round);
        Some(Work { store: true, ..Work::default() })
    }

    /// The highest stamp received from the peer is `hi`, and N has all up to it (D9).
    pub fn received(&mut self, hi: Stamp) {
        match self.consistent {
            Consistent::At(stamp) if self.mode == Mode::Ordered && stamp <= hi => {
                self.consistent = Consistent::Yes;
            }
            _ => {}
        }
    }
}
