//! Giving the host up: fence, grant, prototype (S803–S805 at the old device; R3, R4, R5).

use super::decide::Wait as Waits;
use super::resume::waiting;
use super::role::Grant;
use super::takeover::epochs_exhausted;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::frame::{Frame, Requester};
use crate::limits::{Durability, EPOCH_JUMP_MAX};
use crate::link::Lane;
use crate::moment::Wait;
use crate::sync::lock;
use crate::unit::{Position, Stamp};
use crate::wake::Key;
use crate::weaken::{Clause, holds};
use std::sync::MutexGuard;

impl Device {
    /// The peer, which was told of records up to `told`, asks for the tenure `epoch`.
    pub(super) fn receive_takeover(
        &self,
        epoch: u64,
        device: u64,
        nonce: u64,
        told: Stamp,
        requester: Option<Requester>,
    ) -> Result<()> {
        let one = lock(&self.role);
        let yields = self.expire_and_lock().role.yields_to(device);
        if !yields {
            return self.send(Lane::Control, &Frame::Busy { nonce });
        }
        self.answer_request(&one, (epoch, nonce, told), requester)
    }

    /// Fences this device and begins the grant that answers the request `nonce` (R3, R4). The caller holds
    /// `role`, and asks for nothing itself.
    pub(super) fn answer_request(
        &self,
        _one: &MutexGuard<'_, ()>,
        (epoch, nonce, told): (u64, u64, Stamp),
        requester: Option<Requester>,
    ) -> Result<()> {
        self.wakes.waiters.wake(Key::Takeover..=Key::Takeover);
        let held = self.superblock.get().epoch;
        let next = held.checked_add(1).ok_or_else(|| self.halt(epochs_exhausted()))?;
        if epoch > next.saturating_add(EPOCH_JUMP_MAX) {
            let what = format!(
                "the peer asks for tenure {epoch}, but the next one after this device's is {next}"
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        let (granted, newest) = {
            let tables = lock(&self.tables);
            (tables.out.granted(), tables.out.told())
        };
        if told > newest {
            let what = format!(
                "the peer says that it was told of {told}, but the last record told here is {newest}"
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        // The peer never held it, or it would ask for more: it is as good as new (R4).
        let repeats = epoch <= granted && holds(Clause::GrantRises);
        let mut tenure = if repeats { granted } else { epoch };
        if !repeats && holds(Clause::GrantRises) {
            tenure = tenure.max(next);
        }
        if !repeats || !holds(Clause::RepeatedGrant) {
            let served = self.clk.epoch() != 0;
            self.fence(tenure)?;
            self.tell(Event::Fenced { epoch: tenure, served });
        }
        let what = self.grant(nonce, requester)?;
        lock(&self.failover).role.begin_grant(Grant { nonce, tenure, what });
        Ok(())
    }

    /// Fences this device under `grant` (R3): admission closed, admitted writes published and
    /// durable, `fenced` durable. R is complete now, and not before: the prototype may be made (R4).
    pub(super) fn fence(&self, grant: u64) -> Result<()> {
        let synced = self.stop_hosts()?;
        if holds(Clause::FencedDurable) {
            self.store(|s| {
                s.fenced = true;
                s.fenced_here = false;
                s.epoch = grant;
                // The records that the prototype promises are never taken for a torn tail.
                s.own.durable = s.own.durable.max(synced);
            })?;
        }
        self.peer.owed.end();
        debug_assert!(self.clk.epoch() == 0 || !holds(Clause::Fence), "I3: fenced");
        // Waiting requests end here and go to the other device.
        self.wakes.waiters.wake_all();
        let mut tables = lock(&self.tables);
        self.sequence(&mut tables);
        let mut wait = Wait::default();
        while !tables.own.is_complete() {
            // A writer is giving up a reservation that found the gate closed.
            wait.yield_now("a fence waits for a reservation to be given up");
            self.sequence(&mut tables);
        }
        tables.out.fence(grant);
        drop(tables);
        // Records that stood behind the last reservations may be shipped.
        self.wakes.ship.ring();
        Ok(())
    }

    /// Fences this device here, by an operator's word, and keeps its tenure: hosts are served nowhere. All that
    /// they were told is durable when this returns, and so is the fence; records are shipped on, and the other device
    /// may take the host over as ever. An open request of this device's own is withdrawn. [`Device::unfence`]
    /// undoes it here. Fenced here already is none of the errors.
    ///
    /// # Errors
    /// [`Kind::Fenced`] if the host is granted to the other device, or belongs there; [`Kind::Halted`].
    pub fn fence_here(&self) -> Result<()> {
        let _telling = self.events.enter();
        let _one = self.begin_step(&self.role)?;
        let held = self.superblock.get();
        if held.fenced {
            return Err(waiting(Waits::Fenced));
        }
        let withdraw = || {
            let role = &mut lock(&self.failover).role;
            role.withdraw();
            role.must_ask(false);
            role.doubt();
        };
        let served = self.clk.epoch() != 0;
        withdraw();
        self.wakes.waiters.wake(Key::Takeover..=Key::Takeover);
        let synced = self.stop_hosts()?;
        if !held.fenced_here && holds(Clause::FencedHereDurable) {
            self.store(|s| {
                s.fenced_here = true;
                s.own.durable = s.own.durable.max(synced);
            })?;
        }
        self.wakes.waiters.wake_all();
        if !held.fenced_here {
            self.tell(Event::FencedHere { epoch: held.epoch, served });
        }
        Ok(())
    }

    /// Closes admission and makes what was admitted durable; the last number that is.
    fn stop_hosts(&self) -> Result<u64> {
        let mut horizon = 0;
        if holds(Clause::Fence) {
            horizon = self.close_admission();
        }
        let mut durability = Durability::Never;
        if holds(Clause::LogSyncBeforePrototype) {
            durability = self.settings.durability;
        }
        let synced = self.own.wait_round(self.own.round_wanted(), durability, None);
        synced.map_err(|e| self.halt(e))?;
        assert!(self.own.settled() >= horizon, "I13: an admitted write is unfinished");
        Ok(self.own.synced())
    }

    /// Closes admission and waits for what was being admitted; everything below the position
    /// returned is settled, and nothing above it is admitted.
    pub(crate) fn close_admission(&self) -> Position {
        self.clk.close();
        self.wakes.waiters.wake(Key::Paced..=Key::Paced);
        let queue = &self.own.journal.queue;
        // A reservation from here on finds the gate closed; wait for those before.
        let horizon = queue.horizon();
        let mut wait = Wait::default();
        for position in queue.freed().max(self.own.settled())..horizon {
            while queue.settled(position).is_none() && position >= queue.freed() {
                wait.yield_now("closing admission waits for a reservation");
            }
        }
        horizon
    }
}
