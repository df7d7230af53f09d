//! D1: out of ordered mode, when R is full or the line is down too long.

use super::work::{Ordered, Work};
use super::{Consistent, Differential, Mode, Side};
use crate::table::bits::Bits;
use crate::unit::Stamp;
use crate::weaken::{Clause, holds};

impl Differential {
    /// The active device suspends, in ordered mode or in mode c, though it may be catching up (D1): what
    /// the peer owes becomes P, and the rest of R bits. Nothing happens while what the peer owes is not
    /// known, or in a mode that has no R.
    pub fn suspend(&mut self, ordered: Ordered) -> Option<Work> {
        if matches!(self.mode, Mode::Collecting | Mode::Sending) {
            return None;
        }
        if holds(Clause::PrototypeFirst) && ordered.owed.is_none() {
            return None;
        }
        self.land();
        self.add_to_table(&ordered.unacknowledged);
        let owed = ordered.owed.unwrap_or_default();
        if holds(Clause::TableNotOwed) {
            self.table.subtract(&owed);
        }
        if holds(Clause::PendOwed) {
            self.owed = owed;
        }
        self.begin(Mode::Collecting, self.round.next());
        self.leave_order(&ordered.unreflected, ordered.newest);
        self.settle(Side::Active);
        let sync = holds(Clause::SuspendSync);
        Some(Work { sync, leaves_order: true, store: true, ..Work::default() })
    }

    /// R has become bits, and records of L go to N with no heed to what the peer owes: N is no prefix
    /// (D1). A record of a block in P goes there, too: a read of the block asks the peer, and the record
    /// is checkpointed before a copy of the block comes (D3).
    pub(super) fn leave_order(&mut self, unreflected: &Bits, newest: Stamp) {
        if !unreflected.is_empty() {
            self.consistent = Consistent::No;
        }
        self.cut_at(newest);
    }
}
