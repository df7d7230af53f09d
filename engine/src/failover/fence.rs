//! Giving the host up: fence, grant, prototype (S803–S805 at the old device; R3, R4, R5).

use super::takeover::epochs_exhausted;
use super::{Failover, lost};
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::frame::{Frame, PROTOTYPE_ENTRIES_MAX};
use crate::limits::{Durability, EPOCH_JUMP_MAX};
use crate::link::Lane;
use crate::moment::Wait;
use crate::sync::lock;
use crate::table::prototype::newest_per_block;
use crate::unit::Position;
use crate::weaken::{Clause, holds};

impl Device {
    /// The peer asks for the tenure `epoch`.
    pub(super) fn receive_takeover(&self, epoch: u64, device: u64, nonce: u64) -> Result<()> {
        let _one = lock(&self.role);
        {
            let mut failover = self.in_time();
            if !failover.yields_to(device) {
                drop(failover);
                return self.send(Lane::Control, &Frame::Busy { nonce });
            }
        }
        let held = self.superblock.get().epoch;
        let next = held.checked_add(1).ok_or_else(|| self.halt(epochs_exhausted()))?;
        if epoch > next.saturating_add(EPOCH_JUMP_MAX) {
            let what = format!("the peer asks for tenure {epoch} where {next} would be the next");
            return Err(Error::new(Kind::Protocol, what));
        }
        let grant = if holds(Clause::GrantRises) { epoch.max(next) } else { epoch };
        let served = self.clk.epoch() != 0;
        let r = self.fence(grant)?;
        self.tell(&Event::Fenced { epoch: grant, served });
        self.send_prototype(nonce, grant, &r)
    }

    /// Fences this device under `grant` (R3): admission closed, admitted writes published and
    /// durable, `fenced` durable. Returns R, newest first, from which now, and not before, the
    /// prototype may be made (R4).
    fn fence(&self, grant: u64) -> Result<Vec<Position>> {
        let horizon = if holds(Clause::Fence) { self.close_admission() } else { 0 };
        match holds(Clause::LogSyncBeforePrototype) {
            true => self.lead_round(self.own.round_wanted(), false)?,
            false => drop(self.own.try_round(Durability::Never)?),
        }
        assert!(self.own.settled() >= horizon, "I13: an admitted write is unfinished");
        let synced = self.own.synced();
        if holds(Clause::FencedDurable) {
            self.store(|s| {
                s.fenced = true;
                s.epoch = grant;
                // What the prototype promises is never taken for a torn tail.
                s.own.durable = s.own.durable.max(synced);
            })?;
        }
        self.drop_debt();
        debug_assert!(self.clk.epoch() == 0 || !holds(Clause::Fence), "I3: fenced");
        // Waiting requests end here and go to the other device.
        self.bell.ring();
        let mut tables = lock(&self.tables);
        self.sequence(&mut tables);
        let mut wait = Wait::default();
        while !tables.sequencer.is_empty() {
            // Somebody is giving up a reservation that found the gate closed.
            wait.go_on("a fence waits for a reservation to be given up");
            self.sequence(&mut tables);
        }
        debug_assert!(self.debt().is_none(), "I3: a fenced device is owed nothing");
        tables.granted = grant;
        let r = tables.own.newest_first(tables.acked_index);
        let r = r.map(|(_, position)| position);
        #[cfg(feature = "weaken")]
        if !holds(Clause::NewestPerBlock) {
            return Ok(crate::table::prototype::oldest_per_block(&self.own.journal.queue, r));
        }
        Ok(r.collect())
    }

    /// Closes admission and waits for what was being admitted; everything below the position
    /// returned is settled, and nothing above it is admitted.
    pub(crate) fn close_admission(&self) -> Position {
        self.clk.close();
        let queue = &self.own.journal.queue;
        // Whoever reserves from here on finds the gate closed; wait for those before.
        let horizon = queue.horizon();
        let mut wait = Wait::default();
        for position in queue.freed()..horizon {
            while queue.settled(position).is_none() && position >= queue.freed() {
                wait.go_on("closing admission waits for a reservation");
            }
        }
        horizon
    }

    /// The location table is dropped with the tenure (R3).
    pub(crate) fn drop_debt(&self) {
        self.catching_up.store(false, crate::sync::Ordering::Release);
        *self.debt.write().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }

    /// Makes the prototype from `r`, newest first, and sends it piece by piece: the peer takes one
    /// in while the next is made.
    fn send_prototype(&self, nonce: u64, grant: u64, r: &[Position]) -> Result<()> {
        let queue = &self.own.journal.queue;
        let total = r.len() as u64;
        let is_newest = |p| queue.is_newest(p) || !holds(Clause::NewestPerBlock);
        let newest = newest_per_block(r.iter().copied(), is_newest);
        // Held: what frees records is acknowledgements, and they wait in this lane behind us.
        let mut entries = newest.map(|position| queue.record(position)).map(|r| (r.block, r.stamp));
        let mut first = 0;
        loop {
            let entries: Vec<_> = entries.by_ref().take(PROTOTYPE_ENTRIES_MAX).collect();
            let sent = entries.len();
            let piece = Frame::Prototype { nonce, grant, total, first, entries };
            self.send(Lane::Control, &piece)?;
            first += sent as u64;
            if sent < PROTOTYPE_ENTRIES_MAX {
                return Ok(());
            }
        }
    }
}

impl Failover {
    /// Crossing requests: the lower device id wins (R5), and whoever asked here is told.
    fn yields_to(&mut self, device: u64) -> bool {
        let crossing = self.request.is_some() && holds(Clause::CrossingRequests);
        if crossing && self.device < device {
            return false;
        }
        if !holds(Clause::CrossingRequests) {
            return true;
        }
        if self.request.take().is_some() {
            self.outcome = Some(Err(lost()));
        }
        true
    }
}
