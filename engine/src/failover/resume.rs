//! Beginning to serve under the epoch that is held already: after a restart, once somebody has
//! vouched for this device (R13). The decision is [`super::decide`]'s; here is what it needs and
//! what it leads to.

use super::decide::{Decision, Here, Occasion, decide};
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::journal::lock;
use crate::queue::Clk;
use crate::sync::Ordering;
use crate::unit::Stamp;
use crate::weaken::{Clause, holds};

/// What a device does by itself after a restart; durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// With both devices fenced, this one asks for the host.
    pub prefer: bool,
    /// It serves from its opening on without having heard from the peer, if it held the host and
    /// had caught up. Only where something else makes sure that this device is dead before the
    /// other is forced to take over: a cluster's fencing.
    pub resume_alone: bool,
}

impl Device {
    /// The operator's word that the other device does not serve and was not forced to (R13): this
    /// device, which held the host when it stopped, serves again without having heard from it.
    ///
    /// # Errors
    /// [`Kind::Fenced`] if the host had moved away, [`Kind::NotProven`] if records are missing that
    /// only the other device has, [`Kind::NotReady`] while a takeover is open here,
    /// [`Kind::Halted`]. Serving already is none.
    pub fn resume_alone(&self) -> Result<()> {
        self.check_halted()?;
        let _one = lock(&self.role);
        match decide(self.here(), Occasion::Operator) {
            Decision::Serve => self.resume(Stamp::ZERO),
            Decision::GoOn => return Ok(()),
            _ => return Err(self.not_serving()),
        }
        self.tell_resumed();
        Ok(())
    }

    /// What this device does by itself after a restart.
    pub fn policy(&self) -> Policy {
        let superblock = lock(&self.superblock);
        let superblock = superblock.get();
        Policy { prefer: superblock.prefer, resume_alone: superblock.resume_alone }
    }

    /// Changes what this device does by itself after a restart, durably; it counts from the next
    /// hello or opening on.
    ///
    /// # Errors
    /// [`Kind::Halted`] if the superblock cannot be written.
    pub fn set_policy(&self, policy: Policy) -> Result<()> {
        self.check_halted()?;
        let stored = lock(&self.superblock).update(|s| {
            s.prefer = policy.prefer;
            s.resume_alone = policy.resume_alone;
        });
        stored.map_err(|e| self.halt(e))
    }

    /// How this device stands, for a decision.
    pub(super) fn here(&self) -> Here {
        let caught_up = {
            let tables = lock(&self.tables);
            tables.hi >= tables.need || !holds(Clause::AskAgain)
        };
        let serving = self.clk.epoch() != 0;
        let asking = self.in_time().is_asking();
        let superblock = lock(&self.superblock);
        let superblock = superblock.get();
        Here {
            fenced: superblock.fenced,
            caught_up,
            serving,
            asking,
            prefer: superblock.prefer,
            resume_alone: superblock.resume_alone,
        }
    }

    /// At the opening: serves if it may do so alone.
    pub(crate) fn resume_at_opening(&self) {
        if decide(self.here(), Occasion::Opening) == Decision::Serve {
            self.resume(Stamp::ZERO);
        }
    }

    /// Opens the tenure that is held, with every stamp of it that anybody may have seen sealed;
    /// `heard` is the newest that the peer knows of.
    pub(super) fn resume(&self, heard: Stamp) {
        let epoch = lock(&self.superblock).get().epoch;
        let seen = {
            let tables = lock(&self.tables);
            let own = tables.newest_own();
            [own, tables.reflected, tables.acked, tables.hi, tables.need, heard]
        };
        let of_tenure = seen.iter().filter(|stamp| stamp.epoch == epoch);
        let newest = of_tenure.map(|stamp| stamp.time).max().unwrap_or(0);
        let newest = if holds(Clause::ClockRecovery) { newest } else { 0 };
        // It may have served before, and the tables not have what it took last.
        self.open_admission(|clk| clk.reopen(epoch, newest));
    }

    /// Tells that it serves what it held before.
    pub(super) fn tell_resumed(&self) {
        self.tell(&Event::Ready { epoch: self.clk.epoch(), owed_blocks: 0 });
        self.bell.ring();
    }

    /// Lets hosts in.
    pub(super) fn open_admission(&self, open: impl FnOnce(&Clk)) {
        self.has_served.store(true, Ordering::Release);
        open(&self.clk);
        // Whoever halts the device closes the gate after having said so.
        if self.check_halted().is_err() {
            self.clk.close();
        }
    }

    /// Why this device serves nobody. Called by host requests: it takes no lock of the flow.
    pub(crate) fn not_serving(&self) -> Error {
        if let Err(halted) = self.check_halted() {
            return halted;
        }
        if self.in_time().is_asking() {
            return Error::new(Kind::NotReady, "a takeover is under way here: try again soon");
        }
        let (fenced, behind) = {
            let superblock = lock(&self.superblock);
            let superblock = superblock.get();
            (superblock.fenced, superblock.hi < superblock.need)
        };
        // Who has served and does not any more is just being fenced.
        let (kind, what) = match fenced || self.has_served.load(Ordering::Acquire) {
            true => (Kind::Fenced, "this device is fenced: the host belongs at the other device"),
            false if behind => (
                Kind::NotProven,
                "the device was opened while records were missing that only the other device has: \
                 connect them, and it asks for the host by itself",
            ),
            false => (
                Kind::NotProven,
                "since it was opened the device has not heard that the other one is fenced: \
                 connect them, or resume it alone if the other surely does not serve",
            ),
        };
        Error::new(kind, what)
    }
}
