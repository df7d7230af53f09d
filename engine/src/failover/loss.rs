//! Completed writes that may be lost (R20): the mark in the superblock, which keeps hosts away until
//! an operator has accepted the loss ([`Device::accept_loss`]).
//!
//! An opening sets the mark ([`may_have_lost`]). The active device's counts: each hello carries it, and
//! a fenced device copies it before it can ask for the host, so that a grant need not carry it; the
//! fenced device clears its copy when the active one has cleared the mark.

use super::decide::Wait;
use super::resume::waiting;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::format::frame::{Frame, Hello};
use crate::format::superblock::{Lost, Superblock};
use crate::limits::Durability;
use crate::link::Lane;
use crate::sync::lock;
use crate::unit::Stamp;
use crate::weaken::{Clause, holds};

/// Whether the opening of a device with this superblock, on a storage whose cache has this identity,
/// may lack writes that hosts were told had completed. A fenced device lacks none: it was synced
/// before it was fenced, here or for its peer.
pub(crate) fn may_have_lost(superblock: &Superblock, cache_identity: [u8; 32]) -> bool {
    let Superblock { clean, fenced, fenced_here, weakest, .. } = *superblock;
    let is_same = superblock.cache_identity == cache_identity || !holds(Clause::CacheIdentity);
    let is_kept = match Durability::from_number(weakest) {
        Some(Durability::Strict) => true,
        Some(Durability::Written) => is_same && cache_identity != [0; 32],
        _ => false,
    };
    !clean && !fenced && !fenced_here && !is_kept && holds(Clause::LostMark)
}

/// The mark of such an opening at the wall time `found`, which drops `first` before all others, if it
/// is known. A record that is in the volumes or at the peer was final before the next write of its
/// tenure was stamped, so no lost write is older.
pub(crate) fn mark(superblock: &Superblock, first: Option<Stamp>, found: u64) -> Lost {
    let kept = superblock.fl.max(superblock.acked);
    let is_of_tenure = kept.epoch == superblock.epoch || !holds(Clause::LostSince);
    let since = if is_of_tenure { kept.time } else { 0 };
    Lost { first: first.unwrap_or_default(), since, found }
}

impl Device {
    /// From now on writes may complete under this device's durability: the superblock says so before
    /// the first of them does. The caller holds `role`, or is opening.
    pub(super) fn note_durability(&self) -> Result<()> {
        let number = self.settings.durability.number();
        if self.superblock.get().weakest < number {
            self.store(|s| s.weakest = number)?;
        }
        Ok(())
    }

    /// Refuses hosts while the mark stands.
    pub(crate) fn check_loss(&self) -> Result<()> {
        match self.superblock.get().lost {
            Some(lost) if holds(Clause::LostRefused) => Err(lost_writes(lost)),
            _ => Ok(()),
        }
    }

    /// Accepts the loss of writes that hosts had been told were completed, and that no flush covered
    /// ([`crate::event::Status::lost_writes`]). From now on hosts are served again: here and, once the
    /// peer has heard of it, there. To be called at the device that holds the host, even before it
    /// serves. Without a loss it does nothing.
    ///
    /// # Errors
    /// [`Kind::Fenced`] at the other device, [`Kind::Halted`].
    pub fn accept_loss(&self) -> Result<()> {
        let _telling = self.events.enter();
        let _one = self.begin_step(&self.role)?;
        let superblock = self.superblock.get();
        if superblock.lost.is_none() {
            return Ok(());
        }
        if superblock.fenced {
            return Err(waiting(Wait::Fenced));
        }
        self.store(|s| s.lost = None)?;
        let session = lock(&self.failover).connection.standing().map(|(session, _)| session);
        if let Some(session) = session {
            // If it does not arrive, the next connection's does.
            let _ = self.send(Lane::Control, &Frame::Hello(self.hello(session)));
        }
        self.wakes.waiters.wake_all();
        Ok(())
    }

    /// Takes the mark over from the peer's hello, durably. The caller holds `role`.
    pub(super) fn take_mark(&self, hello: &Hello) -> Result<()> {
        let here = self.superblock.get();
        let mark = match (here.fenced, hello.fenced) {
            // The active device's own.
            (false, _) => here.lost,
            (true, false) => hello.lost,
            // One of them was the last to serve.
            (true, true) => here.lost.or(hello.lost),
        };
        if mark != here.lost && holds(Clause::LostTravels) {
            self.store(|s| s.lost = mark)?;
        }
        Ok(())
    }
}

fn lost_writes(lost: Lost) -> Error {
    let Lost { first, since, found } = lost;
    let since = if since > 0 { format!(", none stamped before {since}") } else { String::new() };
    let known = first != Stamp::ZERO;
    let first = if known { format!(", the first is {first}") } else { String::new() };
    Error::new(
        Kind::LostWrites,
        format!(
            "writes that hosts were told had completed may be lost (found at {found} ns since \
             1970{since}{first}): check the volumes, then accept the loss (`Device::accept_loss`, \
             or `afterimage accept-loss` while the device is closed); until then no host is served"
        ),
    )
}
