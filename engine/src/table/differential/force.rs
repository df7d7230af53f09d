//! D10: forced takeover, and the return of the device that did not answer.

use super::work::{Ordered, Work};
use super::{Consistent, Differential, Mode, Round};
use crate::table::bits::Bits;
use crate::weaken::{Clause, holds};

impl Differential {
    /// A forced takeover: a lineage of its own begins, in which this device is active from the tenure
    /// `epoch` on, and owed nothing. `put_back` are the blocks that were put back from the side file, to
    /// serve the last consistent image; `gives_up` says that own records of L are given up.
    ///
    /// Every block that may differ from the other device's has a bit.
    pub fn force(
        &mut self,
        epoch: u64,
        put_back: &Bits,
        gives_up: bool,
        ordered: &Ordered,
    ) -> Work {
        self.land();
        self.add_to_table(&ordered.unreflected);
        self.add_to_table(&ordered.unacknowledged);
        if holds(Clause::SideFileBits) {
            self.add_to_table(put_back);
        }
        (self.owed, self.owing) = (Bits::default(), false);
        self.generation += 1;
        let mut round = self.round.next();
        if holds(Clause::GenerationRound) {
            round = Round { generation: self.generation, counter: 0 };
        }
        self.begin(Mode::Collecting, round);
        self.last_active = epoch;
        self.cut_at(ordered.newest);
        self.consistent = Consistent::Yes;
        Work { sync: true, gives_up, leaves_order: true, store: true, ..Work::default() }
    }

    /// Whether the device must be fenced, durably, before anything else: its peer, of lineage `generation`,
    /// was forced while it was away (D10).
    pub fn returns_below(&self, generation: u64) -> bool {
        holds(Clause::FenceReturned) && self.generation < generation
    }
}
