//! Received log → link → R: cumulative acknowledgements, with credit (S1503–S1506, R9, R10).

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::frame::Frame;
use crate::link::Lane;
use crate::queue::Record;
use crate::sync::lock;
use crate::unit::Stamp;

/// Why an acknowledgement is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    /// Records have arrived.
    Received,
    /// Places of the received log came free.
    Freed,
}

impl Device {
    /// Tells the peer how far this device has received, and how much more it can take.
    pub(crate) fn acknowledge(&self, why: Ack) -> Result<()> {
        if why == Ack::Freed && lock(&self.failover).connection.peer().is_none() {
            return Ok(());
        }
        // `hi` first: a record that arrives in between then counts against the credit twice.
        let hi = lock(&self.tables).incoming.hi();
        let credit = self.credit();
        match self.send(Lane::Control, &Frame::Ack { hi, credit }) {
            // The next hello says the same.
            Err(error) if error.kind() == Kind::NoPeer => Ok(()),
            other => other,
        }
    }

    /// The peer has made everything up to `hi` durable and can take `credit` more records.
    pub(crate) fn receive_ack(&self, hi: Stamp, credit: u64) -> Result<()> {
        let held_back;
        let (records, is_empty) = {
            let mut tables = lock(&self.tables);
            if hi > tables.newest_own() {
                let newest = tables.newest_own();
                return Err(Error::new(
                    Kind::Protocol,
                    format!("the peer acknowledges {hi}, but {newest} is the newest record here"),
                ));
            }
            if hi < tables.out.acked() {
                return Ok(()); // overtaken by a later one
            }
            held_back = tables.out.is_held_back();
            let records = tables.acknowledge(&self.own.journal.queue, hi, credit);
            (records, tables.backlog() == 0)
        };
        if is_empty {
            lock(&self.peer.stay).kept_up(self.clock.monotonic());
        }
        self.tell_acknowledged(records);
        if held_back {
            self.wakes.ship.ring();
        }
        if self.own.journal.queue.free() < self.geometry.reserves()[0] {
            // A checkpoint may free the records that were acknowledged now.
            self.wakes.reflect.ring();
        }
        Ok(())
    }

    pub(crate) fn tell_acknowledged(&self, records: Vec<Record>) {
        if !records.is_empty() {
            let records = records.iter().map(|record| (record.stamp, record.written_at)).collect();
            self.tell(Event::Acknowledged { records, at: self.clock.monotonic() });
        }
    }
}
