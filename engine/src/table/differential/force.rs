//! D10: forced takeover, and the return of the device that did not answer.
//!
//! Own records of a device that returns are not given up: they go to N before a copy does (D3), and what the
//! peer lacks of them has a bit.

use super::work::{Ordered, Work};
use super::{Consistent, Differential, Mode, Round};
use crate::table::bits::Bits;
use crate::weaken::{Clause, holds};

/// A forced takeover.
#[derive(Clone, Copy, Debug)]
pub struct Force<'a> {
    /// The tenure from which on this device is active.
    pub epoch: u64,
    /// A lineage that the new one has come by, too: its number is above it.
    pub above: u64,
    /// Own records of L are given up.
    pub gives_up: bool,
    /// Blocks that the other device may lack though neither bits nor records say so: those that were put back
    /// from the side file, to serve the last consistent image; all, for a new peer.
    pub put_back: &'a Bits,
}

impl Differential {
    /// A forced takeover: a lineage of its own begins, in which this device is active and owed nothing.
    /// Every block that may differ from the other device's has a bit.
    pub fn force(&mut self, force: Force<'_>, ordered: &Ordered) -> Work {
        let Force { epoch, above, gives_up, put_back } = force;
        self.land();
        self.add_to_table(&ordered.unreflected);
        self.add_to_table(&ordered.unacknowledged);
        if holds(Clause::SideFileBits) {
            self.add_to_table(put_back);
        }
        (self.owed, self.owing) = (Bits::default(), false);
        self.generation = self.generation.max(above).saturating_add(1);
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

    /// The device, just fenced, knows that its peer was forced while it was away: what is in N is of another
    /// history, until the peer has sent what differs. This is to be stored.
    pub fn returned(&mut self) {
        self.consistent = Consistent::No;
    }

    /// One of the two has lost durable records (R10), so that no bits tell what differs: every one of `blocks`
    /// is copied.
    pub fn expect_all(&mut self, blocks: &Bits) -> Work {
        self.add_to_table(blocks);
        Work { store: true, ..Work::default() }
    }
}
