//! Taking the host over: ask, merge the prototype, serve (S800–S810; R5).

use super::decide::Wait;
use super::resume::waiting;
use super::{Failover, OpenRequest, lost};
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::frame::{Frame, PROTOTYPE_ENTRIES_MAX};
use crate::limits::EPOCH_JUMP_MAX;
use crate::link::Lane;
use crate::sync::{Ordering, lock};
use crate::table::prototype::Debt;
use crate::unit::{Block, Stamp};
use crate::weaken::{Clause, holds};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

/// A takeover that has ended well: the device serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// The new tenure.
    pub epoch: u64,
    /// Blocks whose newest data is still at the peer.
    pub owed_blocks: u64,
    /// When it was asked for, on this device's monotonic clock, in nanoseconds.
    pub requested_at: u64,
    /// When the device was ready to serve (S808), on the same clock, in nanoseconds.
    pub ready_at: u64,
}

/// Tenures are counted in 64 bits: reached only by a broken or hostile peer.
pub(super) fn epochs_exhausted() -> Error {
    Error::new(Kind::Halted, "tenures have run out of numbers: no later epoch exists")
}

impl Device {
    /// Asks the peer for the host (S803). The answer comes to [`Device::poll_takeover`]. Asking
    /// again while a request is open sends it again, as a new one.
    ///
    /// # Errors
    /// [`Kind::NoPeer`] without a connection, [`Kind::Invalid`] if this device serves already,
    /// [`Kind::Damaged`] if the peer has shown that it lost durable records, [`Kind::Halted`].
    pub fn begin_takeover(&self) -> Result<()> {
        let _one = self.begin_step(&self.role)?;
        if self.clk.epoch() != 0 {
            return Err(Error::new(Kind::Invalid, "this device serves already"));
        }
        if lock(&self.failover).lost.is_some() {
            return Err(waiting(Wait::Lost));
        }
        let sent = self.ask_for_host(self.clock.monotonic());
        if sent.is_err() {
            // Nobody has heard it: it must not stand in the way of the peer's.
            lock(&self.failover).request = None;
        }
        sent
    }

    /// Sends a takeover request, which replaces the open one if there is one.
    pub(super) fn ask_for_host(&self, requested_at: u64) -> Result<()> {
        let held = self.superblock.get().epoch;
        let epoch = held.checked_add(1).ok_or_else(|| self.halt(epochs_exhausted()))?;
        let nonce = self.nonce()?;
        let device = {
            let mut failover = lock(&self.failover);
            failover.request = Some(OpenRequest { nonce, requested_at, debt: Debt::default() });
            failover.outcome = None;
            failover.device
        };
        self.send(Lane::Control, &Frame::Takeover { epoch, device, nonce })
    }

    /// After a hello: an open request was lost with the old connection, or its answer was. With
    /// `anew` it asks even if there is none.
    pub(super) fn ask_at_hello(&self, anew: bool) -> Result<()> {
        let open = lock(&self.failover).request.as_ref().map(|r| r.requested_at);
        match open {
            Some(requested_at) if holds(Clause::AskAtHello) => self.ask_for_host(requested_at),
            None if anew => self.ask_for_host(self.clock.monotonic()),
            _ => Ok(()),
        }
    }

    /// The outcome of the takeover asked for (S808), once, when there is one. Never waits.
    ///
    /// # Errors
    /// [`Kind::Timeout`] if the peer has not answered within
    /// [`crate::limits::Settings::takeover_timeout_ns`], which closes the request;
    /// [`Kind::NotReady`] if the peer's own request won (R5); [`Kind::Halted`], every time.
    pub fn poll_takeover(&self) -> Option<Result<Takeover>> {
        if let Err(halted) = self.check_halted() {
            return Some(Err(halted));
        }
        self.in_time().outcome.take()
    }

    /// Where takeovers stand, without a request that the peer has left unanswered for too long:
    /// also one that this device made by itself, and nobody polls for.
    pub(super) fn in_time(&self) -> MutexGuard<'_, Failover> {
        let mut failover = lock(&self.failover);
        if let Some(request) = &failover.request {
            let waited = self.clock.monotonic().saturating_sub(request.requested_at);
            if waited > self.settings.takeover_timeout_ns {
                let ms = waited / 1_000_000;
                let what = format!("the peer has not answered the takeover request for {ms} ms");
                failover.request = None;
                failover.outcome = Some(Err(Error::new(Kind::Timeout, what)));
            }
        }
        failover
    }

    /// Takes the host over (S801–S808, R5), waiting until this device serves. Background steps must
    /// be running.
    ///
    /// # Errors
    /// As [`Device::begin_takeover`]; [`Kind::Timeout`] if the peer does not answer,
    /// [`Kind::NotReady`] if its own request won, or if another caller has withdrawn this one or
    /// was told its outcome.
    pub fn takeover(&self) -> Result<Takeover> {
        self.begin_takeover()?;
        loop {
            let heard = self.heard();
            {
                // Under this lock a request that has been answered has its outcome.
                let _one = lock(&self.role);
                if let Some(outcome) = self.poll_takeover() {
                    return outcome;
                }
                if !lock(&self.failover).is_asking() {
                    let what = "the takeover request has ended for another caller: see the status";
                    return Err(Error::new(Kind::NotReady, what));
                }
            }
            self.wait(heard, Duration::from_millis(20));
        }
    }

    pub(super) fn receive_busy(&self, nonce: u64) -> Result<()> {
        let mut failover = lock(&self.failover);
        if failover.request.as_ref().is_some_and(|r| r.nonce == nonce) {
            failover.request = None;
            failover.outcome = Some(Err(lost()));
            drop(failover);
            self.bell.ring();
        }
        Ok(())
    }

    pub(super) fn receive_prototype(
        &self,
        nonce: u64,
        grant: u64,
        total: u64,
        first: u64,
        entries: Vec<(Block, Stamp)>,
    ) -> Result<()> {
        // Until it serves: nobody may ask anew between the end of the request and the tenure.
        let _one = lock(&self.role);
        let epoch = self.superblock.get().epoch;
        if grant.saturating_sub(epoch) > EPOCH_JUMP_MAX {
            let what = format!("the peer grants tenure {grant} where {epoch} is held");
            return Err(Error::new(Kind::Protocol, what));
        }
        if let Some((block, stamp)) = entries.iter().find(|(_, stamp)| stamp.epoch >= grant) {
            let what = format!("the prototype of tenure {grant} names {stamp} for block {block}");
            return Err(Error::new(Kind::Protocol, what));
        }
        if let Some((block, _)) = entries.iter().find(|entry| !self.volumes.contains(entry.0)) {
            let what = format!("the prototype names block {block}, which no volume has");
            return Err(Error::new(Kind::Protocol, what));
        }
        let (debt, requested_at) = {
            let mut failover = lock(&self.failover);
            let asked = |r: &&mut OpenRequest| r.nonce == nonce || !holds(Clause::RequestNonce);
            let Some(request) = failover.request.as_mut().filter(asked) else {
                return Ok(());
            };
            let have = request.debt.entries();
            if grant <= epoch && holds(Clause::GrantRises) || first != have {
                return Err(Error::new(
                    Kind::Protocol,
                    format!(
                        "a prototype for tenure {grant} (held: {epoch}) goes on at entry {first} of {total}, {have} are here"
                    ),
                ));
            }
            let last = entries.len() < PROTOTYPE_ENTRIES_MAX;
            let extended = request.debt.extend(&entries, total);
            extended.map_err(|e| Error::new(Kind::Protocol, e))?;
            if !last {
                return Ok(());
            }
            let request = failover.request.take().expect("just looked at");
            (request.debt, request.requested_at)
        };
        self.serve_under(grant, debt, requested_at)
    }

    /// Merges the prototype and opens the tenure (R5): it does not wait for data, and costs as
    /// much as there are pending blocks. The caller holds `role`.
    fn serve_under(&self, grant: u64, debt: Debt, requested_at: u64) -> Result<()> {
        let hi = lock(&self.tables).hi;
        let filter = holds(Clause::PrototypeFilter);
        let debt = debt.merge(if filter { hi } else { Stamp::ZERO }, grant);
        // Also what has been received: should a disk lose it, this device must not serve again.
        let need = debt.need().max(hi);
        // In force before it is durable: no record that `whole` leaves out may go to N meanwhile.
        let whole = {
            let mut tables = lock(&self.tables);
            tables.raise_need(need);
            // A debt that an older tenure left does not belong to this `need` (I5).
            self.drop_debt();
            tables.whole
        };
        // Durable before the first command is served under it.
        if holds(Clause::TenureDurable) {
            self.store(|s| {
                s.epoch = grant;
                s.need = need;
                s.whole = whole;
                s.fenced = false;
            })?;
        }
        let debt = Arc::new(debt);
        let owed_blocks = {
            let mut tables = lock(&self.tables);
            tables.granted = 0;
            // What has arrived since `hi` was read is owed no more.
            if filter {
                debt.pay(tables.hi);
            }
            let catching_up = tables.hi < need;
            let is_paid = catching_up != debt.is_empty() || !filter;
            assert!(is_paid, "I5: hi >= need exactly if nothing is owed");
            let owed_blocks = debt.len();
            *self.debt.write().unwrap_or_else(PoisonError::into_inner) =
                catching_up.then_some(debt);
            self.catching_up.store(catching_up, Ordering::Release);
            owed_blocks
        };
        // Own stamps of this tenure are above every other by their epoch alone.
        if !holds(Clause::Fence) {
            self.clk.close();
        }
        self.open_admission(|clk| clk.open(grant, 0));
        let ready_at = self.clock.monotonic();
        let takeover = Takeover { epoch: grant, owed_blocks, requested_at, ready_at };
        lock(&self.failover).outcome = Some(Ok(takeover));
        self.tell(&Event::Ready { epoch: grant, owed_blocks });
        if owed_blocks == 0 {
            self.tell(&Event::CaughtUp);
        }
        self.bell.ring();
        Ok(())
    }
}
