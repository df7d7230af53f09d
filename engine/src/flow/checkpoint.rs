//! Normal volumes durable → `fl` → places freed (order of persistence, step 3; R9).

use super::acknowledge::Ack;
use crate::device::Device;
use crate::error::Result;
use crate::event::Event;
use crate::format::superblock::LogState;
use crate::moment::{Moment, moment};
use crate::sync::lock;
use crate::unit::{Position, Stamp};
use crate::weaken::{Clause, holds};

impl Device {
    /// Makes a checkpoint if one is due (R9): enough was reflected, or enough time has passed, or a
    /// journal is getting full. Returns whether it did.
    ///
    /// # Errors
    /// [`crate::error::Kind::Halted`] if the storage fails.
    pub fn step_checkpoint(&self) -> Result<bool> {
        let since = lock(&self.tables).normal.since_checkpoint();
        let idle = self.clock.monotonic().saturating_sub(*lock(&self.checkpointing));
        let enough = since >= self.settings.checkpoint_records;
        let old = since > 0 && idle >= self.settings.checkpoint_interval_ns;
        let full = holds(Clause::CheckpointWhenFull) && self.is_getting_full();
        if !(enough || old || full) {
            return Ok(false);
        }
        self.checkpoint_now()?;
        Ok(true)
    }

    /// Less than a quarter of a journal's places is free, and a checkpoint would free some.
    fn is_getting_full(&self) -> bool {
        let reserve = self.geometry.request_blocks_max();
        let (own, recv) = (&self.own.journal.queue, &self.recv.journal.queue);
        if recv.free() >= reserve && own.free() >= reserve {
            return false;
        }
        let (reflected, floor) = {
            let tables = lock(&self.tables);
            (tables.normal.reflected(), tables.out.floor())
        };
        if recv.free() < reserve && recv.freed() < recv.tail() {
            let oldest = recv.freed();
            if recv.settled(oldest).is_some() && recv.record(oldest).stamp <= reflected {
                return true;
            }
        }
        own.free() < reserve && {
            // Another checkpoint may free meanwhile.
            let freeable = self.own_freeable(reflected.min(floor)).saturating_sub(own.freed());
            freeable >= (own.tail() - own.freed()) / 4
        }
    }

    /// Makes a checkpoint now (S1506, R9): everything reflected becomes durable in the normal
    /// volumes, and the places of the records that nobody needs any more are freed.
    ///
    /// # Errors
    /// [`crate::error::Kind::Halted`] if the storage fails.
    pub fn checkpoint_now(&self) -> Result<()> {
        let mut made_at = self.begin_step(&self.checkpointing)?;
        let (fl, hi, acked, floor) = {
            let mut tables = lock(&self.tables);
            let fl = tables.normal.checkpoint();
            (fl, tables.incoming.hi(), tables.out.acked(), tables.out.floor())
        };
        moment(Moment::Checkpointing);
        if holds(Clause::CheckpointSync) {
            self.volumes.sync().map_err(|e| self.halt(e))?;
        }
        let mut held_above = fl;
        if holds(Clause::HeldUntilAcknowledged) {
            held_above = held_above.min(floor);
        }
        let own_freed = self.own_freeable(held_above);
        let recv_freed = self.recv_freeable(fl);
        let own = self.own.state_without(own_freed);
        let recv = self.recv.state_without(recv_freed);
        self.store(|s| {
            s.fl = s.fl.max(fl);
            s.hi = s.hi.max(hi);
            s.acked = s.acked.max(acked);
            // A fence may have said more meanwhile.
            s.own = LogState { durable: own.durable.max(s.own.durable), ..own };
            s.recv = LogState { durable: recv.durable.max(s.recv.durable), ..recv };
        })?;
        moment(Moment::Checkpointed);
        // Only now: what is freed here is written over soon, and the superblock no longer needs it.
        self.own.free(own_freed);
        let more_credit = recv_freed > self.recv.journal.queue.freed();
        self.recv.free(recv_freed);
        *made_at = self.clock.monotonic();
        drop(made_at);
        self.tell(&Event::Checkpoint { fl });
        self.bell.ring();
        if more_credit {
            self.acknowledge(Ack::Freed)?;
        }
        Ok(())
    }

    /// The position before which every own record is at or below `upto`: whole requests only, and
    /// never what the log's writer or the sequencer has yet to look at.
    fn own_freeable(&self, upto: Stamp) -> Position {
        let queue = &self.own.journal.queue;
        let sequenced = lock(&self.tables).own.settled();
        let bound = self.own.settled().min(sequenced);
        let mut position = queue.freed();
        while position < bound {
            let (_, count) = queue.group(position);
            let done = match queue.settled(position) {
                Some(false) => true,
                Some(true) => queue.record(position + count - 1).stamp <= upto,
                None => false,
            };
            if !done || position + count > bound {
                break;
            }
            position += count;
        }
        position
    }

    /// The position before which every received record is at or below `upto`. The records say so:
    /// the table may have dropped newer ones, which went to the volumes meanwhile.
    fn recv_freeable(&self, upto: Stamp) -> Position {
        let queue = &self.recv.journal.queue;
        let end = lock(&self.tables).incoming.next();
        let kept = |&position: &Position| queue.record(position).stamp > upto;
        (queue.freed()..end).find(kept).unwrap_or(end)
    }
}
