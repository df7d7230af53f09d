//! How long a background thread has nothing to do: until its bell rings, or the next moment at which
//! something is due.
//!
//! A thread looks at its bell, makes its steps, and rests if they found nothing. Where a bell would
//! ring for each request, it sets a mark first and looks once more ([`crate::wake`]).

use crate::device::Device;
use crate::moment::{Moment, moment};
use crate::sync::{Ordering, lock};
use crate::unit::Position;
use crate::wake::Mark;
use std::time::Duration;

/// Records that come within this time, in nanoseconds, are committed, shipped and acknowledged together.
pub(crate) const GATHER_NS: u64 = 1_000_000;

impl Device {
    /// When a step has something to do by the passing of time alone, on the monotonic clock in
    /// nanoseconds: a commit, a reflection, a checkpoint or a rung ([`Device::step_ladder`]) is due, or a ticket's
    /// time is over ([`Device::step_calls`]). `None`: not before something happens, a request or a frame.
    pub fn next_deadline(&self) -> Option<u64> {
        let deadlines = [
            self.commit_deadline(),
            self.reflect_deadline(),
            self.rung_deadline(),
            self.wakes.waiters.next_time(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// A suspension after an outage, or the way back to order.
    fn rung_deadline(&self) -> Option<u64> {
        let resumes = self.resume_deadline().filter(|_| self.connected_link().is_some());
        self.suspend_deadline().or(resumes)
    }

    fn commit_deadline(&self) -> Option<u64> {
        let is_clean = self.own.journal.queue.tail() == self.own.committed();
        let last = self.committed_at.load(Ordering::Relaxed);
        (!is_clean).then(|| last.saturating_add(self.settings.commit_interval_ns))
    }

    fn reflect_deadline(&self) -> Option<u64> {
        let (is_reflectable, since) = {
            let mut tables = lock(&self.tables);
            // Records that were committed since the last look may be reflected, too.
            self.sequence(&mut tables);
            (tables.is_reflectable(), tables.normal.since_checkpoint())
        };
        let reflect = self.reflect_due_at.load(Ordering::Relaxed);
        // While one is being made, none is due.
        let last = self.checkpointing.try_lock().ok().filter(|_| since > 0);
        let checkpoint = last.map(|at| at.saturating_add(self.settings.checkpoint_interval_ns));
        is_reflectable.then_some(reflect).into_iter().chain(checkpoint).min()
    }

    /// Time until `deadline`, but not so little that a thread would spin.
    fn left(&self, deadline: u64) -> Duration {
        Duration::from_nanos(deadline.saturating_sub(self.clock.monotonic()).max(GATHER_NS))
    }

    /// Until a commit is wanted or due, or the log, which was clean, is so no more: then `true`, and
    /// [`Device::gather_for_commit`] is next. `heard` is from before the last look.
    pub(crate) fn rest_from_commits(&self, heard: u64) -> bool {
        let is_clean = |committed| self.own.journal.queue.tail() == committed;
        let committed = self.own.committed();
        if is_clean(committed) {
            self.sleep_until_tail(committed, heard, None);
            return !is_clean(self.own.committed());
        }
        self.rest_until_due(heard);
        false
    }

    /// Until a commit is wanted or due; the first write after a pause does not stay alone.
    pub(crate) fn gather_for_commit(&self, heard: u64) {
        if !self.own.is_wanted() {
            self.rest_until_due(heard);
        }
    }

    fn rest_until_due(&self, heard: u64) {
        let most = (self.settings.commit_bytes / u64::from(self.geometry.block_size)).max(1);
        let due = self.commit_deadline().unwrap_or(0);
        self.sleep_until_tail(self.own.committed().saturating_add(most), heard, Some(due));
    }

    fn sleep_until_tail(&self, mark: Position, heard: u64, deadline: Option<u64>) {
        let timeout = deadline.map(|deadline| self.left(deadline));
        self.wakes.commit_at.set(mark);
        if self.own.journal.queue.horizon() <= mark {
            self.wakes.commit.wait(heard, timeout);
        } else if deadline.is_some() && self.own.unlogged() < self.settings.commit_bytes {
            // A commit is at work on what is behind the mark, or the log file has it: none is due.
            self.wakes.commit.wait(heard, Some(Duration::from_nanos(GATHER_NS)));
        }
        self.wakes.commit_at.set(Mark::NONE);
    }

    /// Until something may be shipped; `heard` and `committed` are from before the last look.
    pub(crate) fn rest_from_shipping(&self, heard: u64, committed: Position) {
        let is_connected = self.connected_link().is_some();
        let (has_to_ship, has_credit) = {
            let mut tables = lock(&self.tables);
            self.sequence(&mut tables);
            let has_credit = tables.out.is_by_bits() || !tables.out.is_held_back();
            (tables.has_to_ship(), has_credit)
        };
        // A lane that had no room, as a rule: a link does not tell when it has; or a round that
        // waits for a checkpoint, or for the last write before its end.
        let copies_at = self.copy_deadline().filter(|_| is_connected);
        let copies = copies_at.is_some_and(|at| at <= self.clock.monotonic());
        let waits = self.has_to_ask() || copies || self.peer.machine.awaits_step();
        let is_held_up = is_connected && (has_to_ship || waits);
        let timeout = match is_held_up {
            true => Some(Duration::from_nanos(GATHER_NS)),
            false => {
                let deadline = self.rung_deadline().into_iter().chain(copies_at).min();
                deadline.map(|deadline| self.left(deadline))
            }
        };
        // Otherwise nothing is shipped, however much is committed.
        let ships = has_credit && !is_held_up && is_connected;
        let mark = if ships { committed } else { Mark::NONE };
        self.wakes.ship_at.set(mark);
        if self.own.committed() <= mark {
            self.wakes.ship.wait(heard, timeout);
        }
        self.wakes.ship_at.set(Mark::NONE);
    }

    /// Whether the peer is owed answers, announcements, the rest of a prototype, or checksums, for which the
    /// control lane may have no room now: a link does not tell when it has.
    pub(crate) fn owes_control(&self) -> bool {
        let (is_handing_over, is_connected) = {
            let failover = lock(&self.failover);
            (failover.role.is_handing_over(), failover.connection.peer().is_some())
        };
        is_connected && (is_handing_over || self.has_to_announce())
            || lock(&self.peer.controlling).is_owed()
            || self.owes_checksums()
    }

    /// Until a callback was woken, or a ticket's time is over; `heard` is from before the last look.
    pub(crate) fn rest_from_calls(&self, heard: u64) {
        // To the moment, as the bound of pacing is: what is due is woken, so that no thread spins.
        let left = |time: u64| Duration::from_nanos(time.saturating_sub(self.clock.monotonic()));
        let timeout = self.wakes.waiters.next_time().map(left);
        self.host.calls.bell.wait(heard, timeout);
    }

    /// How far a reflecting thread sees the logs.
    pub(crate) fn logged(&self) -> [Position; 2] {
        [self.own.committed(), self.peer.recv.journal.queue.tail()]
    }

    /// Until a reflection or a checkpoint is due; `heard` and `seen` are from before the last look.
    pub(crate) fn rest_from_reflecting(&self, heard: u64, seen: [Position; 2]) {
        let (waiting, is_reflectable) = {
            let tables = lock(&self.tables);
            (tables.unreflected(), tables.is_reflectable())
        };
        moment(Moment::Resting);
        // Behind that look: a record that another thread takes into the tables in between has a time
        // here, and one that is seen there has, too.
        let timeout = self.reflect_deadline().map(|deadline| self.left(deadline));
        // As long as there is nothing to reflect, the first record counts; then, enough of them.
        let enough = if is_reflectable { self.reflect_enough().saturating_sub(waiting) } else { 0 };
        let reserves = self.geometry.reserves();
        let queues = [&self.own.journal.queue, &self.peer.recv.journal.queue];
        // It sleeps no longer than there is room.
        let room = |at: usize| queues[at].free().saturating_sub(reserves[at]);
        let marks = [0, 1].map(|at| seen[at].saturating_add(enough.min(room(at))));
        self.wakes.reflect_at.iter().zip(marks).for_each(|(mark, at)| mark.set(at));
        let is_passed = self.logged().iter().zip(marks).any(|(&now, mark)| now > mark);
        if !is_passed {
            self.wakes.reflect.wait(heard, timeout);
        }
        self.wakes.reflect_at.iter().for_each(|mark| mark.set(Mark::NONE));
    }
}

#[cfg(all(test, feature = "simulate", not(loom)))]
mod tests {
    use super::*;
    use crate::device::tests::device;
    use crate::moment::at_every_moment;
    use crate::storage::Memory;
    use std::sync::{Arc, mpsc};

    /// Another thread takes a record into the tables while the reflecting one decides how long it rests.
    #[test]
    fn a_record_that_another_thread_takes_is_reflected_in_time() {
        let device = device(&Arc::new(Memory::new()));
        device.resume_alone().unwrap();
        let (rested, rests) = mpsc::channel();
        let resting = std::thread::spawn({
            let device = device.clone();
            move || {
                let (heard, seen) = (device.wakes.reflect.heard(), device.logged());
                assert_eq!(device.step_reflect_due().unwrap(), 0);
                let beside = device.clone();
                at_every_moment(Some(Box::new(move |now| {
                    if now == Moment::Resting {
                        let session = beside.session().unwrap();
                        session.write(0, 0, &[7; 4096]).unwrap();
                        session.flush().unwrap();
                        assert_eq!(beside.status().unreflected_records, 1);
                    }
                })));
                device.rest_from_reflecting(heard, seen);
                at_every_moment(None);
                rested.send(()).unwrap();
            }
        });
        let ended = rests.recv_timeout(Duration::from_secs(10));
        device.wakes.reflect.ring();
        resting.join().unwrap();
        assert!(ended.is_ok(), "it rests though there is a record to reflect");
    }
}
