//! A storage device (30/40): one side of a pair for one consistency group.
//!
//! Everything here is reached through an `Arc`. Hosts act through a [`Session`]; the background
//! work is a handful of steps (`step_*`) that threads ([`crate::threads`]), a simulator or a
//! vendor's own loop call as they like. A step waits for storage, for a commit that is under way, and,
//! if it fences, for reservations in flight.

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::event::{DifferentialStatus, Event, Recovery, Status};
use crate::failover::Failover;
use crate::flow::Tables;
use crate::flow::image::Image;
use crate::flow::pace::percent;
use crate::format::superblock::Superblock;
use crate::host::Host;
use crate::journal::own::OwnLog;
use crate::limits::{Geometry, Limits, Settings};
use crate::listeners::Listeners;
use crate::peer::Peer;
use crate::queue::Clk;
use crate::request::Session;
use crate::storage::{Checked, Opened, Storage, Volumes};
use crate::superblock::{self, SuperblockFile};
use crate::sync::{AtomicBool, AtomicU64, lock};
use crate::table::differential::Consistent;
use crate::wake::{Key, Wakes};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// One storage device. See the module.
pub struct Device {
    pub(crate) geometry: Geometry,
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    /// Under everything below: after one failure it takes no change.
    pub(crate) storage: Arc<Checked>,
    pub(crate) own: OwnLog,
    pub(crate) volumes: Volumes,
    /// The last consistent image.
    pub(crate) image: Image,
    pub(crate) clk: Clk,
    pub(crate) tables: Mutex<Tables>,
    pub(crate) superblock: SuperblockFile,
    /// Whether `superblock` has it that records without data may be of many blocks (R19).
    pub(crate) extents: AtomicBool,
    /// The lock of every change of the device that serves: fence, takeover, resuming, close.
    pub(crate) role: Mutex<()>,
    pub(crate) recovery: Recovery,
    pub(crate) failover: Mutex<Failover>,
    pub(crate) peer: Peer,
    pub(crate) host: Host,
    /// One at a time in each of these steps; nobody else ever waits for them.
    pub(crate) reflecting: Mutex<Vec<u8>>,
    pub(crate) checkpointing: Mutex<u64>,
    /// Monotonic time of the last background commit.
    pub(crate) committed_at: AtomicU64,
    /// Monotonic time from which on a background reflection is due, however little waits.
    pub(crate) reflect_due_at: AtomicU64,
    pub(crate) halted: OnceLock<Error>,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) events: Listeners,
    /// Until it is closed, no other device is opened on its storage.
    pub(crate) opened: Mutex<Option<Opened>>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device {} of group {:x}", self.geometry.device, self.geometry.group)
    }
}

impl Drop for Device {
    /// Requests that still wait end.
    fn drop(&mut self) {
        let dropped = || Error::new(Kind::Halted, "the device was dropped without being closed");
        let error = self.check_halted().err().unwrap_or_else(dropped);
        self.wakes.waiters.wake_all();
        self.host.calls.take().into_iter().for_each(|woken| woken.end(&error));
        self.events.tell_waiting();
    }
}

impl Device {
    /// Makes a new device in `storage`. Of a new pair one is `active`: it serves first.
    ///
    /// # Errors
    /// [`Kind::Config`] for an impossible geometry, [`Kind::Storage`] if the storage refuses.
    pub fn create(storage: &dyn Storage, geometry: &Geometry, active: bool) -> Result<()> {
        superblock::create(storage, geometry, active)
    }

    /// Tells `listener` of every event from now on, beside those that are told already: within a step
    /// or a call that has to do with the pair ([`Device::connect`], [`Device::close`], …), never
    /// within a host's ([`Device::session`], [`Session`], [`crate::Ticket`]). Its captures
    /// live as long as the device: no [`Arc`] of it should be among them.
    pub fn on_event(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.events.add(Arc::new(listener));
    }

    /// Notes down what is told as soon as no lock is held.
    pub(crate) fn tell(&self, event: Event) {
        if !self.events.note(event) {
            self.host.calls.bell.ring();
        }
    }

    /// A host's way in (S810), bound to the present tenure (R14).
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::NotReady`] while a takeover is open, which this call may begin
    /// ([`Settings::takeover_at_first_request`]), [`Kind::NotProven`] after an opening until it may serve
    /// (R13), [`Kind::LostWrites`] until somebody has accepted a loss (R20), [`Kind::Halted`].
    pub fn session(self: &Arc<Self>) -> Result<Session> {
        self.check_halted()?;
        match self.clk.epoch() {
            0 => Err(self.refuse_host()),
            epoch => self.check_loss().map(|()| Session::new(self.clone(), epoch)),
        }
    }

    /// The recovery at this device's opening.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The limits that requests must keep to.
    pub fn limits(&self) -> Limits {
        let block = u64::from(self.geometry.block_size);
        // One block is lost to misalignment at most.
        let blocks = self.geometry.request_blocks_max().max(2) - 1;
        let request_bytes_max = blocks * block;
        let zeros = if self.has_extents() { u64::MAX } else { request_bytes_max };
        Limits {
            block_size: self.geometry.block_size,
            request_bytes_max,
            zero_bytes_max: self.settings.zero_bytes_max.min(zeros),
        }
    }

    /// The geometry the device was created with.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The clock it was opened with.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Where it stands now. Takes no lock that is held while the storage works: a disk that hangs
    /// does not keep this waiting.
    pub fn status(&self) -> Status {
        let superblock = self.superblock.get();
        let (connected, taken, lost, untrue) = {
            let failover = lock(&self.failover);
            (
                failover.connection.peer().is_some(),
                failover.role.taken(),
                failover.role.lost().cloned(),
                failover.role.untrue(),
            )
        };
        let next_rung_in_ns = self.next_rung_in();
        let mut tables = lock(&self.tables);
        // Records that became durable since the last step count, too.
        self.sequence(&mut tables);
        let (told_blocks, told) = {
            let debt = self.peer.owed.told();
            (debt.len(), debt.last())
        };
        let machine = self.peer.machine.read();
        let differential = DifferentialStatus {
            round: machine.round(),
            is_open: machine.is_open(),
            table_blocks: machine.table().blocks() + machine.flying().blocks(),
            flying_blocks: machine.flying().blocks(),
            copied_bytes: self.peer.copy_rate.sent_bytes(),
            owed_blocks: machine.owed().blocks(),
            is_consistent: machine.consistent() == Consistent::Yes,
            no_consistent_copy: machine.lacks_consistent_copy(self.side()),
            is_level: machine.is_level(),
        };
        let Tables { own, out, incoming, normal } = &*tables;
        let oldest = out.oldest(own);
        Status {
            device: self.geometry.device,
            mode: machine.mode(),
            differential,
            image: self.image.status(),
            salvage_full: self.peer.saving.full(),
            serving: self.clk.epoch() != 0,
            fenced_here: superblock.fenced_here,
            connected,
            awaits_taker: out.granted() != 0 && out.granted() != taken,
            lost,
            lost_writes: superblock.lost,
            untrue,
            epoch: superblock.epoch,
            last_active: superblock.last_active,
            hi: incoming.hi(),
            need: normal.need(),
            newest_own: tables.newest_own(),
            acked: out.acked(),
            reflected: normal.reflected(),
            backlog_records: tables.backlog(),
            backlog_bytes: out.backlog_data() * u64::from(self.geometry.block_size),
            acked_bytes: out.acked_data() * u64::from(self.geometry.block_size),
            oldest_written_at: oldest.map(|(_, p)| self.own.journal.queue.record(p).written_at),
            owed_blocks: differential.owed_blocks
                + if self.peer.owed.is_due() { told_blocks } else { 0 },
            told_blocks,
            told_bytes: told_blocks * u64::from(self.geometry.block_size),
            told,
            unreflected_records: tables.unreflected(),
            rung: self.rung(),
            own_fill_percent: percent(self.own.journal.fill()),
            own_full_in_ns: self.full_in(),
            next_rung_in_ns,
            own_free_places: self.own.journal.queue.free(),
            own_used_bytes: self.own.journal.used_bytes(),
            recv_free_places: self.peer.recv.journal.queue.free(),
            recv_used_bytes: self.peer.recv.journal.used_bytes(),
            shared_volumes: self.settings.shared_volumes.clone(),
            comparison: lock(&self.peer.comparing).report().cloned(),
            halted: self.halted.get().cloned(),
        }
    }

    /// For files that the device can do without.
    pub(crate) fn storage_apart(&self) -> &dyn Storage {
        self.storage.apart()
    }

    /// Stops the device for good, because of `cause`; returns what callers are told from now on.
    pub(crate) fn halt(&self, cause: Error) -> Error {
        let story = "the device has stopped for good: remove the cause, then open it again";
        let first = self.halted.set(cause.because(Kind::Halted, story)).is_ok();
        let error = self.halted.get().expect("just set").clone();
        self.clk.close();
        if first {
            self.tell(Event::Halted(error.clone()));
            self.hang_up(&error);
            // The halting thread may be at work on the told records: then they are told once more.
            let told = self.peer.owed.try_told().map(|debt| debt.kept());
            let bits = self.peer.machine.try_read().map(|machine| machine.keep_told());
            // After a failure nothing is written any more.
            if self.storage.failure().is_none() {
                self.keep_told(told.unwrap_or_default());
                self.keep_told_bits(bits.unwrap_or_default());
            }
        }
        self.wakes.waiters.wake_all();
        self.ring_all();
        error
    }

    /// Ends the connection, if there is one: the peer learns it at once.
    pub(crate) fn hang_up(&self, why: &Error) {
        if let Some(link) = self.peer_link() {
            self.disconnected(why, &link);
        }
    }

    /// Changes the superblock durably (order of persistence), or stops the device.
    ///
    /// # Errors
    /// [`Kind::Halted`] if it cannot be written.
    pub(crate) fn store(&self, change: impl FnOnce(&mut Superblock)) -> Result<()> {
        self.superblock.update(change).map_err(|e| self.halt(e))
    }

    /// Stops the device because a record cannot be read back from its log, in a host's call or in a
    /// step: nothing behind the record can be shipped or reflected any more, and further writes would
    /// be lost with it. A damaged log first says how far it was durable, or the next opening might take
    /// the damage for a torn tail.
    pub(crate) fn unreadable(&self, cause: Error) -> Error {
        if cause.kind() == Kind::Damaged && self.check_halted().is_ok() {
            let durable = [self.own.synced(), self.peer.recv.synced()];
            // A superblock that cannot be written is one more reason to stop.
            let _ = self.superblock.update(|s| {
                s.own.durable = s.own.durable.max(durable[0]);
                s.recv.durable = s.recv.durable.max(durable[1]);
            });
        }
        self.halt(cause)
    }

    /// Takes the lock of a step. The device may halt or be closed while the step waits for it, and
    /// the step does nothing then.
    pub(crate) fn begin_step<'a, T>(&self, one: &'a Mutex<T>) -> Result<MutexGuard<'a, T>> {
        self.check_halted()?;
        let guard = lock(one);
        self.check_halted()?;
        Ok(guard)
    }

    /// Whether the device goes on. A storage that has failed halts it, even if the failure was reported
    /// to another call.
    pub(crate) fn check_halted(&self) -> Result<()> {
        match (self.halted.get(), self.storage.failure()) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(first)) => Err(self.halt(first.clone())),
            (None, None) => Ok(()),
        }
    }

    /// Calls the callbacks of requests that were woken and have an outcome (S1010, S1607), and the
    /// handlers of sessions that were superseded ([`Session::on_hang_up`]), and wakes the tickets whose
    /// time is over. Returns how many it called, each under no lock of the engine. One that panics
    /// ends there: the process's panic hook reports it, and the device goes on.
    pub fn step_calls(&self) -> usize {
        let _telling = self.events.enter();
        let waiters = &self.wakes.waiters;
        if waiters.are_there() {
            waiters.wake(Key::Time(0)..=Key::Time(self.clock.monotonic()));
        }
        if self.check_halted().is_err() {
            // No session is superseded any more, and what they hold may hold their sessions.
            self.host.writers.drop_hang_ups();
        }
        // Those that are woken meanwhile have the next turn.
        self.host.calls.take().into_iter().map(|woken| usize::from(woken.try_finish(self))).sum()
    }

    /// Every background thread looks again.
    pub(crate) fn ring_all(&self) {
        self.wakes.ring_all();
        self.host.calls.bell.ring();
    }

    /// Requests that found no place may go on, as many as there are places.
    pub(crate) fn wake_for_places(&self) {
        if self.wakes.waiters.are_there() {
            self.wakes.waiters.wake_places(self.own.journal.queue.free());
        }
    }

    /// A waiter leaves the line for places, with or without the ones that it was woken for.
    pub(crate) fn give_up_places(&self, number: u64) {
        self.wakes.waiters.unclaim(number);
        self.wake_for_places();
    }

    /// Closes the device: no new requests; everything published becomes durable, what may be
    /// reflected is, and a checkpoint and a mark say that nothing is in doubt. Pending records
    /// stay and are shipped after the next opening. Steps that are under way are waited for, and
    /// later ones do nothing. Requests that are still waiting end, and their callbacks are called
    /// from here.
    ///
    /// # Errors
    /// [`Kind::Halted`] if the storage fails: the mark is not set then.
    pub fn close(&self) -> Result<()> {
        let _telling = self.events.enter();
        let closed = self.come_to_rest();
        self.step_calls();
        closed
    }

    fn come_to_rest(&self) -> Result<()> {
        // A step that came behind the mark would take in, and acknowledge, what the next opening
        // does not look for.
        let _control = self.begin_step(&self.peer.controlling)?;
        let _receive = lock(&self.peer.receiving);
        let _ship = lock(&self.peer.shipping);
        let _one = lock(&self.role);
        self.close_admission();
        self.lead_round(self.own.round_wanted(), false)?;
        while self.step_reflect()? > 0 {}
        // Sync even where commits did not: the next lines say that nothing is in doubt.
        self.own.sync().and_then(|()| self.peer.recv.sync()).map_err(|e| self.halt(e))?;
        self.checkpoint_now()?;
        let told = self.peer.owed.told().kept();
        self.keep_told(told);
        let bits = self.peer.machine.read().keep_told();
        self.keep_told_bits(bits);
        let _reflect = lock(&self.reflecting);
        let _checkpoint = self.begin_step(&self.checkpointing)?;
        let image_bytes = self.image.durable_bytes();
        self.store(|s| {
            s.clean = true;
            if s.image && image_bytes > 0 {
                s.history.image_bytes = image_bytes;
            }
        })?;
        // Nothing may follow the mark.
        let closed = Error::new(Kind::Halted, "the device is closed");
        self.hang_up(&closed);
        // A thread that has halted it meanwhile may still write: the storage comes free at the drop.
        if self.halted.set(closed).is_ok() {
            *lock(&self.opened) = None;
        }
        self.wakes.waiters.wake_all();
        self.ring_all();
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::format::superblock::VolumeSpec;
    use crate::storage::{FileName, Memory};
    use crate::sync::Ordering;

    /// A device of its own, on this disk.
    pub(crate) fn device(disk: &Arc<Memory>) -> Arc<Device> {
        let mut geometry = Geometry::new(7, 1, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
        geometry.journal_bytes = 16 << 20;
        Device::create(&**disk, &geometry, true).unwrap();
        Device::open(disk.clone(), Arc::new(SystemClock::default()), Settings::default()).unwrap()
    }

    /// A host's read has met damage, and its thread comes behind the close: the storage is another
    /// device's by then, and the mark must stand.
    #[test]
    fn nothing_follows_the_mark_of_a_close() {
        let disk = Arc::new(Memory::new());
        let closed = device(&disk);
        closed.close().unwrap();
        let clock = Arc::new(SystemClock::default());
        let next = Device::open(disk.clone(), clock, Settings::default()).unwrap();
        let before = superblock::load(&*disk).unwrap();
        let refused = closed.superblock.update(|s| s.own.durable += 1);
        assert_eq!(refused.unwrap_err().kind(), Kind::Halted);
        assert_eq!(superblock::load(&*disk).unwrap(), before);
        drop(next);
    }

    /// The program's own call finds that the device must halt, and no step comes.
    #[test]
    fn what_accept_loss_leads_to_is_told_at_its_end() {
        let device = device(&Arc::new(Memory::new()));
        let told = Arc::new(AtomicU64::new(0));
        let tell = told.clone();
        device.on_event(move |event| {
            assert!(matches!(event, Event::Halted(_)), "{event:?}");
            tell.fetch_add(1, Ordering::Relaxed);
        });
        let nowhere = FileName::Segment { volume: 3, index: 0 };
        let _ = device.storage.sync(nowhere);
        assert_eq!(device.accept_loss().unwrap_err().kind(), Kind::Halted);
        assert_eq!(told.load(Ordering::Relaxed), 1);
    }

    /// Some path of the engine forgets that the storage failed: the device halts all the same, writes
    /// nothing more, and says why, once.
    #[test]
    fn a_failure_that_is_forgotten_halts_the_device() {
        let device = device(&Arc::new(Memory::new()));
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        device.on_event(move |event| {
            if let Event::Halted(why) = event {
                lock(&tell).push(why.to_string());
            }
        });
        device.resume_alone().unwrap();
        let session = device.session().unwrap();
        session.write(0, 0, &[1; 4096]).unwrap();
        let nowhere = FileName::Segment { volume: 3, index: 0 };
        let _ = device.storage.sync(nowhere);
        for _ in 0..2 {
            assert_eq!(device.step_commit().unwrap_err().kind(), Kind::Halted);
            let refused = session.write(0, 0, &[2; 4096]).expect_err("the device has halted");
            assert_eq!(refused.kind(), Kind::Halted);
        }
        device.own.sync().expect_err("nothing is synced any more");
        let story = "the device has stopped for good: remove the cause, then open it again: syncing volumes/3.0: ";
        let told = lock(&told);
        assert!(told.len() == 1 && told[0].starts_with(story), "{told:?}");
    }
}
