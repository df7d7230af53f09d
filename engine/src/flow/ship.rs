//! R → link: the oldest unsent first, in batches, within the peer's credit (S1500, R10).

use super::Tables;
use crate::device::Device;
use crate::error::Result;
use crate::format::Row;
use crate::format::frame::{ShipBuilder, Shipped};
use crate::link::{Lane, Link};
use crate::moment::{Moment, moment};
use crate::queue::{Content, Record};
use crate::sync::lock;
use crate::unit::{Round, Stamp};
use crate::weaken::{Clause, holds, instead};
use std::sync::Arc;

/// Records on their way into a frame.
struct Batch {
    wire: u16,
    session: u64,
    link: Arc<dyn Link>,
    records: Vec<Record>,
    shipped: Vec<Shipped>,
    /// The stamp shipped before the first.
    previous: Stamp,
    /// The tenure granted to the peer since when nothing newer can remain; 0 without a fence.
    granted: u64,
    round: Round,
}

impl Device {
    /// Ships one batch if there is one to ship (S1500, R10), behind the next copies (S900); returns how many
    /// records and blocks they had.
    ///
    /// # Errors
    /// [`crate::error::Kind::Halted`] if a record cannot be read.
    pub fn step_ship(&self) -> Result<usize> {
        let _telling = self.events.enter();
        let mut next_to_copy = self.begin_step(&self.peer.shipping)?;
        let full =
            |link: Arc<dyn Link>| link.queued(Lane::Data) > self.settings.link_queue_bytes_max;
        if self.peer_link().is_none_or(full) {
            return Ok(0);
        }
        let copied = self.send_copies(&mut next_to_copy)?;
        let Some(batch) = self.next_batch() else { return Ok(copied) };
        let Batch { wire, session, link, records, shipped, previous, granted, round } = batch;
        let size = self.geometry.block_size as usize;
        let has_data = |r: &&Record| r.content == Content::Data;
        let data_bytes = records.iter().filter(has_data).count() * size;
        let mut frame =
            ShipBuilder::new(wire, session, round, previous, granted, &shipped, data_bytes);
        for record in records.iter().filter(has_data) {
            if !self.own.read(record, frame.block(size)).map_err(|e| self.unreadable(e))? {
                // Freed, so acknowledged meanwhile: the peer was still taking it in from the last
                // connection when it said hello. The records that it lacks begin there.
                let mut tables = lock(&self.tables);
                let held =
                    tables.out.floor() >= record.stamp || !holds(Clause::HeldUntilAcknowledged);
                assert!(held, "I8: an unacknowledged record was freed");
                tables.out.ship_on();
                self.wakes.ship.ring();
                return Ok(copied);
            }
        }
        let count = records.len();
        moment(Moment::Shipping);
        match link.send(Lane::Data, frame.finish()) {
            Ok(()) => Ok(copied + count),
            Err(error) => {
                self.disconnected(&error, &link);
                Ok(copied)
            }
        }
    }

    /// Whether a batch of `records` was as large as batches get, so that there may be more.
    pub(crate) fn is_full_batch(&self, records: usize) -> bool {
        records as u64 >= self.batch_records_max()
    }

    fn batch_records_max(&self) -> u64 {
        (self.settings.ship_bytes_max / u64::from(self.geometry.block_size)).max(1)
    }

    /// Takes the oldest unsent records that credit and frame size allow, with what remains behind
    /// each of them.
    fn next_batch(&self) -> Option<Batch> {
        let queue = &self.own.journal.queue;
        let mut tables = lock(&self.tables);
        // Under this lock, as a hello resets the window under it before its session stands: what
        // is taken from a window goes out in the window's session, or is taken again.
        let (wire, (session, link)) = {
            let failover = lock(&self.failover);
            (failover.connection.wire(), failover.connection.standing()?)
        };
        self.sequence(&mut tables);
        if !self.peer.machine.ships() {
            return None;
        }
        let round = self.peer.machine.read().round();
        let Tables { own, out, .. } = &mut *tables;
        let window = out.next(own, self.batch_records_max());
        let (end, last) = (window.end, own.records().end());
        let granted = out.granted();
        // Behind a fence R is complete: a late reservation only finds the gate closed and is given up.
        let more = granted == 0 && !own.is_complete();
        let mut records = Vec::new();
        let mut shipped = Vec::new();
        for index in window {
            let (stamp, position) = own.records().get(index).expect("unsent entries are kept");
            let record = queue.record(position);
            debug_assert!(record.stamp == stamp || !holds(Clause::HeldUntilAcknowledged), "I8");
            debug_assert!(queue.is_durable(position) || !holds(Clause::ShipBound), "I8");
            // Only what is newer than the record itself counts (R10), and only of just its extent.
            let newest = instead::remaining(
                || queue.newest_of(record.extent()).map(|position| queue.stamp(position)),
                || queue.newest(record.block).0.map(|newest| newest.stamp),
            );
            shipped.push(Shipped {
                row: Row::from(&record),
                remaining: newest.filter(|&newest| newest > stamp),
                total_remaining: more || index + 1 < last,
            });
            records.push(record);
        }
        let previous = out.ship(end, records.last()?.stamp);
        Some(Batch { wire, session, link, records, shipped, previous, granted, round })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::format::superblock::VolumeSpec;
    use crate::limits::{Geometry, Settings};
    use crate::link::{Line, memory_link};
    use crate::queue::{Clk, Insert, NewRecord, NewWrite};
    use crate::storage::Memory;
    use crate::unit::Block;

    /// Two devices that have met.
    fn pair() -> [Arc<Device>; 2] {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let [a, b] = [1, 2].map(|id| {
            let storage = Arc::new(Memory::new());
            let mut geometry = Geometry::new(7, id, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
            geometry.journal_bytes = 16 << 20;
            Device::create(&*storage, &geometry, id == 1).unwrap();
            Device::open(storage, clock.clone(), Settings::default()).unwrap()
        });
        let (end_a, end_b) = memory_link(Line::default(), clock.clone());
        a.connect(Arc::new(end_a)).unwrap();
        b.connect(Arc::new(end_b)).unwrap();
        talk(&a, &b);
        [a, b]
    }

    /// Both take every frame of the control lane.
    fn talk(a: &Device, b: &Device) {
        for device in [a, b, a, b] {
            while device.step_control().unwrap() {}
        }
    }

    /// A host of the tenure that is over has places in the queue and has not looked at the gate
    /// while the last of R is shipped: the record says that nothing newer is left, as the prototype
    /// did, and the connection goes on.
    #[test]
    fn a_late_reservation_is_nothing_that_remains() {
        let [a, b] = pair();
        let control = || talk(&a, &b);
        a.session().unwrap().write(0, 0, &[1; 4096]).unwrap();
        b.begin_takeover().unwrap();
        control();
        assert_eq!(b.poll_takeover().unwrap().unwrap().owed_blocks, 1);
        // The gate stays open while the late host stands at it, and is closed when it looks.
        let late = Clk::new();
        late.open(1, 0);
        let records = [NewRecord { checksum: 0, content: Content::Zero, level: 0 }];
        let block = Block { volume: 0, number: 9 };
        let bases = [None; 2];
        let write = NewWrite { block, records: &records, time: 1, written_at: 0, bases };
        let outcome = a.own.journal.queue.insert_with(
            &late,
            1,
            &write,
            |_| (),
            || true,
            |_, _| {
                assert_eq!(a.step_ship().unwrap(), 1);
                assert_eq!(b.step_receive().unwrap(), 1, "the record is as it was promised");
                late.close();
                false
            },
        );
        assert!(matches!(outcome, Insert::Closed));
        assert!(b.status().connected && b.status().owed_blocks == 0);
    }

    /// A thread ships in a round that has just been opened, before the one that heard of it has begun shipping
    /// anew; and the acknowledgement comes before the next record.
    #[test]
    fn what_is_shipped_goes_on_behind_what_was_acknowledged() {
        let [a, b] = pair();
        let control = || talk(&a, &b);
        for block in 0..2 {
            a.session().unwrap().write(0, block * 4096, &[1; 4096]).unwrap();
            a.step_commit().unwrap();
            assert_eq!(a.step_ship().unwrap(), 1);
            lock(&a.tables).out.begin_shipping();
            assert_eq!(b.step_receive().unwrap(), 1);
            control();
        }
        assert!(b.status().connected && a.status().backlog_records == 0);
    }
}
