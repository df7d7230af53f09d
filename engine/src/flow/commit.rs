//! Own log: what was published becomes durable, by the host's own thread or in the background
//! (R2, R10).

use crate::device::Device;
use crate::error::Result;
use crate::sync::{Ordering, lock};
use crate::weaken::{Clause, holds};

impl Device {
    /// Waits for a commit, leading it if no other thread does.
    pub(crate) fn lead_round(&self, round: u64, linger: bool) -> Result<()> {
        self.check_halted()?;
        let linger = linger.then_some(&*self.clock);
        let done = self.own.wait_round(round, self.settings.durability, linger);
        self.survey();
        done.map_err(|e| self.halt(e))
    }

    /// Commits what is published, now (S1605; R2, R10), unless another thread is doing so. Returns
    /// whether it did, also if there was nothing to commit; a loop calls [`Device::step_commit_due`]
    /// instead.
    ///
    /// # Errors
    /// [`crate::error::Kind::Halted`] if the log fails: the device has stopped.
    pub fn step_commit(&self) -> Result<bool> {
        let _telling = self.events.enter();
        self.check_halted()?;
        self.committed_at.store(self.clock.monotonic(), Ordering::Relaxed);
        let done = self.own.try_round(self.settings.durability);
        self.survey();
        done.map_err(|e| self.halt(e))
    }

    /// Commits if it is due (S1605, R10): the interval is over, much is waiting, or a request waits.
    /// Returns whether it did.
    ///
    /// # Errors
    /// As [`Device::step_commit`].
    pub fn step_commit_due(&self) -> Result<bool> {
        let _telling = self.events.enter();
        let since =
            self.clock.monotonic().saturating_sub(self.committed_at.load(Ordering::Relaxed));
        let over = since >= self.settings.commit_interval_ns && holds(Clause::CommitInterval);
        let due = over || self.own.unlogged() >= self.settings.commit_bytes;
        // A request that waits for a round waits for its end, even if the round finds nothing to do.
        if !self.own.is_wanted() && (!due || self.own.is_clean()) {
            return Ok(false);
        }
        self.step_commit()
    }

    /// Moves what is durable and final from the queue into R (and its share of L).
    pub(crate) fn sequence(&self, tables: &mut super::Tables) {
        let queue = &self.own.journal.queue;
        let ready = |p| queue.is_durable(p) || !holds(Clause::ShipBound);
        let taken = tables.sequence(queue, &self.clk, ready);
        if tables.out.is_by_bits() {
            let extents = taken.iter().map(|&(_, position)| queue.record(position).extent());
            if self.peer.machine.wrote(extents) {
                // The next round may be opened.
                self.wakes.ship.ring();
            }
        }
    }

    /// Enters own records that are durable and final into L and R (S1604, S1606); returns how many
    /// the peer still lacks. Records published and not durable yet do not count.
    pub fn step_sequence(&self) -> u64 {
        let mut tables = lock(&self.tables);
        self.sequence(&mut tables);
        tables.backlog()
    }
}
