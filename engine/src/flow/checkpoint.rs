//! Normal volumes durable → `fl` → places freed (order of persistence, step 3; R9).

use super::Tables;
use crate::device::Device;
use crate::error::Result;
use crate::event::Event;
use crate::format::superblock::{LogState, Superblock};
use crate::moment::{Moment, moment};
use crate::sync::lock;
use crate::table::differential::Consistent;
use crate::weaken::{Clause, holds};

impl Device {
    /// Makes a checkpoint if one is due (R9): enough was reflected, or enough time has passed, or a
    /// journal is getting full. Returns whether it did.
    ///
    /// # Errors
    /// [`crate::error::Kind::Halted`] if the storage fails.
    pub fn step_checkpoint(&self) -> Result<bool> {
        let _telling = self.events.enter();
        let since = lock(&self.tables).normal.since_checkpoint();
        let idle = self.clock.monotonic().saturating_sub(*lock(&self.checkpointing));
        let enough = since >= self.settings.checkpoint_records;
        let old = since > 0 && idle >= self.settings.checkpoint_interval_ns;
        let full = holds(Clause::CheckpointWhenFull) && self.is_getting_full();
        // A round is waiting for everything to be in N.
        let awaited = self.peer.machine.awaits_checkpoint() && self.is_behind_reflection();
        if !(enough || old || full || awaited) {
            return Ok(false);
        }
        self.checkpoint_now()?;
        Ok(true)
    }

    /// Makes a checkpoint now (S1506, R9): everything reflected becomes durable in the normal
    /// volumes, and the places of the records that are in N and at the peer are freed. While the last consistent
    /// image is on its way back and its side file cannot be written, none is made.
    ///
    /// # Errors
    /// [`crate::error::Kind::Halted`] if the storage fails.
    pub fn checkpoint_now(&self) -> Result<()> {
        let _telling = self.events.enter();
        let mut made_at = self.begin_step(&self.checkpointing)?;
        let (fl, hi, acked, floor) = {
            let mut tables = lock(&self.tables);
            let fl = tables.normal.checkpoint();
            (fl, tables.incoming.hi(), tables.out.acked(), tables.out.floor())
        };
        let over = self.image.take_over();
        moment(Moment::Checkpointing);
        if holds(Clause::CheckpointSync) {
            self.volumes.sync().map_err(|e| self.halt(e))?;
        }
        self.store_unsaved()?;
        // Replay brings back only what is above `fl`.
        if !self.image.note_over(self.storage_apart(), over) {
            *made_at = self.clock.monotonic();
            return Ok(());
        }
        let [own_freed, recv_freed] = self.freeable(fl, floor);
        let own = self.own.state_without(own_freed);
        let recv = self.peer.recv.state_without(recv_freed);
        // The bits of what is freed become durable with it (D11).
        let turn = self.peer.machine.turn();
        {
            let mut tables = lock(&self.tables);
            let newest = tables.newest_own();
            let Tables { own, out, .. } = &mut *tables;
            if out.is_by_bits() {
                out.follow(own, true, self.peer.machine.write().stores_upto(newest));
            }
        }
        let also = |s: &mut Superblock| {
            s.fl = s.fl.max(fl);
            s.hi = s.hi.max(hi);
            s.acked = s.acked.max(acked);
            // A fence may have said more meanwhile.
            s.own = LogState { durable: own.durable.max(s.own.durable), ..own };
            s.recv = LogState { durable: recv.durable.max(s.recv.durable), ..recv };
        };
        match holds(Clause::BitsWithPlaces) {
            true => self.store_differential(also)?,
            false => self.store(also)?,
        }
        drop(turn);
        moment(Moment::Checkpointed);
        // Only now: what is freed here is written over soon, and the superblock no longer needs it.
        let more_credit = self.free([own_freed, recv_freed]);
        *made_at = self.clock.monotonic();
        drop(made_at);
        self.wake_for_places();
        self.survey();
        // The journal may have room for order.
        self.wakes.ship.ring();
        self.tell(Event::Checkpoint { fl });
        if more_credit {
            self.acknowledge();
        }
        Ok(())
    }

    /// The side file of what is yet to be saved follows (D10). Nothing is, once N is a prefix of the history that
    /// is served and has all records.
    fn store_unsaved(&self) -> Result<()> {
        let is_over = {
            let mut tables = lock(&self.tables);
            self.sequence(&mut tables);
            let consistent = self.peer.machine.read().durable_marks().1;
            consistent == Consistent::Yes && !tables.is_reflectable() && !tables.is_behind()
        };
        let lineage = self.superblock.get().lineage;
        let stored = self.peer.saving.store(&*self.storage, lineage, is_over);
        stored.map_err(|e| self.halt(e))
    }
}
