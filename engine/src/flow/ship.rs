//! R → link: the oldest unsent first, in batches, within the peer's credit (S1500, R10).

use crate::device::Device;
use crate::error::Result;
use crate::format::Row;
use crate::format::frame::{ShipBuilder, Shipped};
use crate::link::{Lane, Link};
use crate::moment::{Moment, moment};
use crate::queue::{Content, Record};
use crate::sync::lock;
use crate::unit::Stamp;
use crate::weaken::{Clause, holds};
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
}

impl Device {
    /// Ships one batch if there is one to ship (S1500, R10); returns how many records it had.
    ///
    /// # Errors
    /// [`crate::error::Kind::Halted`] if a record cannot be read.
    pub fn step_ship(&self) -> Result<usize> {
        let _one = self.begin_step(&self.shipping)?;
        let full =
            |link: Arc<dyn Link>| link.queued(Lane::Data) > self.settings.link_queue_bytes_max;
        if self.peer_link().is_none_or(full) {
            return Ok(0);
        }
        let Some(batch) = self.next_batch() else { return Ok(0) };
        let Batch { wire, session, link, records, shipped, previous, granted } = batch;
        let size = self.geometry.block_size as usize;
        let has_data = |r: &&Record| r.content == Content::Data;
        let data_bytes = records.iter().filter(has_data).count() * size;
        let mut frame = ShipBuilder::new(wire, session, previous, granted, &shipped, data_bytes);
        for record in records.iter().filter(has_data) {
            if !self.own.read(record, frame.block(size)).map_err(|e| self.unreadable(e))? {
                // Freed, so acknowledged meanwhile: the peer was still taking it in from the last
                // connection when it said hello. What it lacks begins there.
                let mut tables = lock(&self.tables);
                let held = tables.acked >= record.stamp || !holds(Clause::HeldUntilAcknowledged);
                assert!(held, "I8: an unacknowledged record was freed");
                tables.shipped = tables.acked_index;
                tables.sent = tables.acked;
                self.wakes.ship.ring();
                return Ok(0);
            }
        }
        let count = records.len();
        moment(Moment::Shipping);
        match link.send(Lane::Data, frame.finish()) {
            Ok(()) => Ok(count),
            Err(error) => {
                self.disconnected(&error, &link);
                Ok(0)
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
            (failover.wire(), failover.connection()?)
        };
        self.sequence(&mut tables);
        let most = self.batch_records_max();
        let allowed = if holds(Clause::Credit) { tables.allowed } else { u64::MAX };
        let end = tables.own.end().min(allowed).min(tables.shipped + most);
        let last = tables.own.end();
        // Behind a fence R is complete: a late reservation only finds the gate closed and is given up.
        let more = tables.granted == 0 && !tables.sequencer.is_empty();
        let mut records = Vec::new();
        let mut shipped = Vec::new();
        for index in tables.shipped..end {
            let (stamp, position) = tables.own.get(index).expect("unsent entries are kept");
            let record = queue.record(position);
            debug_assert!(record.stamp == stamp || !holds(Clause::HeldUntilAcknowledged), "I8");
            debug_assert!(queue.is_durable(position) || !holds(Clause::ShipBound), "I8");
            // Only what is newer than the record itself counts (R10).
            let newest = queue.newest(record.block).0.map(|r| r.stamp);
            shipped.push(Shipped {
                row: Row::from(&record),
                remaining: newest.filter(|&newest| newest > stamp),
                total_remaining: more || index + 1 < last,
            });
            records.push(record);
        }
        let previous = tables.sent;
        tables.sent = records.last()?.stamp;
        tables.shipped = end;
        debug_assert!(tables.shipped <= allowed, "I9: within the receiver's credit");
        Some(Batch { wire, session, link, records, shipped, previous, granted: tables.granted })
    }
}
