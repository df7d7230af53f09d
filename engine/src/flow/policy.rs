//! When a device leaves ordered mode by itself (LADDER 6): as its journal fills with what the peer lacks,
//! or after a time without the line. `rounds.rs` does it.

use super::pace::percent;
use crate::device::Device;
use crate::format::frame::LADDER_WIRE;
use crate::format::superblock::Features;
use crate::sync::lock;
use crate::unit::Mode;

impl Device {
    /// Whether the own journal is as full as it is to be at most in a mode with R, or a write waits for room
    /// in it.
    pub(crate) fn is_filled_to_suspend(&self) -> bool {
        let from = self.settings.suspend_from_percent;
        from > 0 && (percent(self.own.journal.fill()) >= from || self.is_short_of_places())
    }

    /// Whether a write waits for places, and the largest request would.
    fn is_short_of_places(&self) -> bool {
        let [reserve, _] = self.geometry.reserves();
        self.own.journal.queue.free() < reserve && self.wakes.waiters.wait_for_places()
    }

    /// Whether an outage is timed that goes on.
    pub(crate) fn is_outage_timed(&self) -> bool {
        self.settings.suspend_after_ns > 0 && lock(&self.failover).connection.parted_at().is_some()
    }

    /// When the outage will have lasted so long that the device suspends, on the monotonic clock. `None` if
    /// the line is up, or there is nothing that the peer lacks.
    pub(crate) fn suspend_deadline(&self) -> Option<u64> {
        let after = self.settings.suspend_after_ns;
        if after == 0 || !self.may_suspend() {
            return None;
        }
        let lacks = {
            let tables = lock(&self.tables);
            tables.backlog() > 0 && self.is_debt_known(&tables)
        };
        let parted_at = lock(&self.failover).connection.parted_at()?;
        lacks.then(|| parted_at.saturating_add(after))
    }

    /// Whether it is time to suspend: the journal is so full of R that hosts would wait, or the line has been
    /// down for too long.
    pub(crate) fn must_suspend(&self) -> bool {
        if self.suspend_deadline().is_some_and(|at| at <= self.clock.monotonic()) {
            return true;
        }
        // A checkpoint may free what is not of R.
        self.is_filled_to_suspend() && self.may_suspend() && {
            let queue = &self.own.journal.queue;
            lock(&self.tables).backlog() * 2 >= queue.tail() - queue.freed()
        }
    }

    fn may_suspend(&self) -> bool {
        let has_r = matches!(self.peer.machine.mode(), Mode::Ordered | Mode::Copying);
        has_r && self.clk.epoch() != 0 && self.knows_ladder()
    }

    /// Whether a peer was met that knows differential mode, as the superblock says, and the one that is
    /// connected now, or was last, knows it, too.
    pub(crate) fn knows_ladder(&self) -> bool {
        self.superblock.get().features.incompat & Features::DIFFERENTIAL != 0
            && lock(&self.failover).connection.last_wire() >= LADDER_WIRE
    }
}
