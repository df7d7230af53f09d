//! The durable state of differential mode, and when it is stored: the machine and its table by one superblock write
//! (D8, D11), and the machine that an opening makes of them.

use super::differential::Machine;
use crate::device::Device;
use crate::error::Result;
use crate::format::superblock::Superblock;
use crate::sync::lock;
use crate::table::alike::Alike;
use crate::table::bits::Bits;
use crate::table::differential::{Consistent, Differential, Durable, Side};
use crate::unit::{Blocks, Extent, Mode, Stamp};
use crate::weaken::{Clause, holds};

impl Device {
    /// Stores the machine's state, and `also`, by one superblock write. The caller has the turn.
    ///
    /// The table is read piece by piece, and what changes meanwhile is stored of some blocks and not of others.
    /// That is as good as a moment's table: each rule is about one block, and no mode, round, or grant comes
    /// between. A bit that is stored was set once its record was durable, after the step whose state is
    /// stored with it; one that is not was cleared by its copy's acknowledgement, or its record is above the
    /// `cut` that was read before, is live, and implies it (D2, D8, D11).
    pub(crate) fn store_differential(&self, also: impl FnOnce(&mut Superblock)) -> Result<()> {
        // A store that failed has left the machine ahead of the superblock.
        self.check_halted()?;
        let hi = lock(&self.tables).incoming.hi();
        let (durable, is_met, has_changed) = {
            let machine = self.peer.machine.read();
            let changed = self.peer.machine.take_changed();
            (machine.durable(), machine.is_open(), changed)
        };
        let note = |s: &mut Superblock| {
            if is_met {
                // Bits that copies of this round have cleared are stored with it.
                s.history.met = durable.round;
            }
            self.note_durable(s, (&durable, hi), also);
        };
        if !has_changed {
            return self.store(note);
        }
        let stored = self.superblock.update_with_table(self.peer.machine.table(), note);
        stored.map_err(|e| self.halt(e))
    }

    /// As [`Device::store_differential`], but the table that is stored stays ([`Work::keeps_table`]).
    pub(super) fn store_without_table(&self, also: impl FnOnce(&mut Superblock)) -> Result<()> {
        self.check_halted()?;
        let hi = lock(&self.tables).incoming.hi();
        let durable = self.peer.machine.read().durable();
        self.store(|s| self.note_durable(s, (&durable, hi), also))
    }

    fn note_durable(
        &self,
        s: &mut Superblock,
        (durable, hi): (&Durable, Stamp),
        also: impl FnOnce(&mut Superblock),
    ) {
        durable.put(s);
        self.follow_lineage(s, durable.generation);
        if durable.mode != Mode::Ordered {
            // As `need` did, this tells an opening that received records are missing.
            if holds(Clause::HiWithoutNeed) && s.need > Stamp::ZERO {
                s.hi = s.hi.max(hi);
            }
            s.need = Stamp::ZERO;
        }
        self.note_marks(s);
        also(s);
    }

    /// The machine is of the peer's lineage now, if it was of one that the peer's has come by (D10).
    fn follow_lineage(&self, s: &mut Superblock, generation: u64) {
        if s.lineage.0 == generation {
            return;
        }
        let failover = lock(&self.failover);
        let (lineage, ancestors) = failover.connection.lineage();
        if lineage.0 == generation {
            let old = std::mem::replace(&mut s.lineage, *lineage);
            s.history.ancestors.clone_from(ancestors);
            s.history.add(old);
        }
    }

    /// N is about to be no prefix: the superblock says so first (D11).
    pub(crate) fn mark(&self) -> Result<()> {
        self.store(|s| self.note_marks(s))?;
        self.say_if_no_copy_is_consistent();
        Ok(())
    }

    /// Read as the superblock is written: no other update comes between.
    fn note_marks(&self, s: &mut Superblock) {
        let (owing, mut consistent) = self.peer.machine.read().durable_marks();
        if self.image.is_put_back() {
            // N goes back to a prefix before anything else is written to it: until then the image counts.
            consistent = Consistent::Yes;
        }
        Durable::put_marks(s, owing, consistent);
        self.image.note(s, consistent);
    }

    /// As [`Device::mark`], if a step or a host's write has asked for it; whether it has. The caller holds
    /// `reflecting`. An image that was chosen is back in N before that.
    pub(crate) fn mark_first(&self) -> Result<bool> {
        if self.image.is_put_back() {
            return Ok(false);
        }
        let is_due = self.peer.machine.take_unmarked();
        if is_due {
            self.begin_image()?;
            self.mark()?;
        }
        Ok(is_due)
    }
}

/// The machine as the superblock and `table`, which it names, have it, with the bits of own records that are
/// live and not of R (D8). Everything up to `hi` has been received.
pub(crate) fn restore(
    s: &Superblock,
    hi: Stamp,
    table: Vec<Blocks>,
    implied: impl Iterator<Item = Extent>,
) -> Machine {
    let mut durable = Durable::stored(s);
    if matches!(durable.consistent, Consistent::At(stamp) if stamp <= hi) {
        durable.consistent = Consistent::Yes;
    }
    let side = if s.fenced { Side::Fenced } else { Side::Active };
    let (table, implied) = (Bits::from_iter(table), implied.map(Blocks::from));
    let alike = Alike::from(&table);
    let mut differential = Differential::restore(durable, table, side, implied, s.whole());
    differential.received(s.hi);
    Machine::new(differential, s.fenced, alike)
}
