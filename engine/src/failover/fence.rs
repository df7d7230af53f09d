//! Giving the host up: fence, grant, prototype (S803–S805 at the old device; R3, R4, R5).

use super::takeover::epochs_exhausted;
use super::{Failover, Grant, link_down, lost};
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::flow::announce::Told;
use crate::format::frame::Frame;
use crate::limits::{Durability, EPOCH_JUMP_MAX};
use crate::link::{Lane, Link};
use crate::moment::Wait;
use crate::sync::{Ordering, lock};
use crate::unit::{Position, Stamp};
use crate::weaken::{Clause, holds};
use std::sync::Arc;

impl Device {
    /// The peer, which was told of records up to `told`, asks for the tenure `epoch`.
    pub(super) fn receive_takeover(
        &self,
        epoch: u64,
        device: u64,
        nonce: u64,
        told: Stamp,
    ) -> Result<()> {
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
        let (granted, newest) = {
            let tables = lock(&self.tables);
            (tables.out.granted(), tables.out.told())
        };
        if told > newest {
            let what = format!("the peer says that it was told of {told}, {newest} was told last");
            return Err(Error::new(Kind::Protocol, what));
        }
        // The peer never held it, or it would ask for more: it is as good as new (R4).
        let repeats = epoch <= granted && holds(Clause::GrantRises);
        let tenure = match (repeats, holds(Clause::GrantRises)) {
            (true, _) => granted,
            (_, true) => epoch.max(next),
            (_, false) => epoch,
        };
        if !repeats || !holds(Clause::RepeatedGrant) {
            let served = self.clk.epoch() != 0;
            self.fence(tenure)?;
            self.tell(&Event::Fenced { epoch: tenure, served });
        }
        // What was told in this connection comes before the answer: it goes on from there.
        let tables = lock(&self.tables);
        let end = tables.own.records().end();
        lock(&self.failover).grant = Some(Grant { nonce, tenure, end });
        Ok(())
    }

    /// Fences this device under `grant` (R3): admission closed, admitted writes published and
    /// durable, `fenced` durable. R is complete now, and not before: the prototype may be made (R4).
    fn fence(&self, grant: u64) -> Result<()> {
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
        self.catching_up.store(false, Ordering::Release);
        debug_assert!(self.clk.epoch() == 0 || !holds(Clause::Fence), "I3: fenced");
        // Waiting requests end here and go to the other device.
        self.bell.ring();
        let mut tables = lock(&self.tables);
        self.sequence(&mut tables);
        let mut wait = Wait::default();
        while !tables.own.is_complete() {
            // Somebody is giving up a reservation that found the gate closed.
            wait.go_on("a fence waits for a reservation to be given up");
            self.sequence(&mut tables);
        }
        tables.out.fence(grant);
        Ok(())
    }

    /// Closes admission and waits for what was being admitted; everything below the position
    /// returned is settled, and nothing above it is admitted.
    pub(crate) fn close_admission(&self) -> Position {
        self.clk.close();
        let queue = &self.own.journal.queue;
        // Whoever reserves from here on finds the gate closed; wait for those before.
        let horizon = queue.horizon();
        let mut wait = Wait::default();
        for position in queue.freed().max(self.own.settled())..horizon {
            while queue.settled(position).is_none() && position >= queue.freed() {
                wait.go_on("closing admission waits for a reservation");
            }
        }
        horizon
    }

    /// Sends the next piece of the prototype (S805), if there is one and the control lane of `link`
    /// holds little. What is acknowledged before its piece is made need not be named. Returns
    /// whether anything was done.
    pub(super) fn hand_over(&self, link: &Arc<dyn Link>) -> Result<bool> {
        let is_full = || holds(Clause::HandOverPaced) && self.is_full(link);
        if lock(&self.failover).grant.is_none() || is_full() {
            return Ok(false);
        }
        let (link, piece) = {
            let mut tables = lock(&self.tables);
            let mut failover = lock(&self.failover);
            let open = failover.grant.zip(failover.connection());
            let Some((grant, (session, link))) = open else { return Ok(false) };
            let Grant { nonce, tenure, end } = grant;
            let left = end.saturating_sub(tables.out.next_to_tell().0);
            let most = self.settings.piece_entries_max;
            // Where the line is what takes time, only what the peer will keep of it; the look at each
            // block takes longer than a line without limit.
            let newest_only = holds(Clause::NewestPerBlock) && link.queued(Lane::Control) > 0;
            let queue = &self.own.journal.queue;
            let Told { previous, entries } = tables.next_told(queue, end, most, newest_only);
            let is_last = tables.out.next_to_tell().0 >= end;
            failover.grant.take_if(|_| is_last);
            let grant = tenure;
            let piece = Frame::Prototype { nonce, grant, left, is_last, previous, entries };
            (link, piece.encode_in(failover.wire(), session))
        };
        link.send(Lane::Control, piece).map_err(link_down)?;
        Ok(true)
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
