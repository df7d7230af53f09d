//! Received log → link → R: cumulative acknowledgements, with credit (S1503–S1506, R9, R10).

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::frame::Frame;
use crate::journal::lock;
use crate::link::Lane;
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
        if why == Ack::Freed && lock(&self.failover).peer().is_none() {
            return Ok(());
        }
        // `hi` first: a record that arrives in between then counts against the credit twice.
        let hi = lock(&self.tables).hi;
        let credit = self.recv.journal.queue.free();
        match self.send(Lane::Control, &Frame::Ack { hi, credit, clk: self.clk_stamp() }) {
            // The next hello says the same.
            Err(error) if error.kind() == Kind::NoPeer => Ok(()),
            other => other,
        }
    }

    /// The peer has made everything up to `hi` durable and can take `credit` more records.
    pub(crate) fn receive_ack(&self, hi: Stamp, credit: u64) -> Result<()> {
        let queue = &self.own.journal.queue;
        let mut records = Vec::new();
        let held_back;
        {
            let mut tables = lock(&self.tables);
            if hi > tables.sent {
                let sent = tables.sent;
                return Err(Error::new(
                    Kind::Protocol,
                    format!("the peer acknowledges {hi}, but only {sent} was shipped"),
                ));
            }
            if hi < tables.acked {
                return Ok(()); // overtaken by a later one
            }
            let index = tables.own.after(hi);
            held_back = tables.shipped >= tables.allowed;
            for acked in tables.acked_index..index {
                let (_, position) = tables.own.get(acked).expect("unacknowledged entries are kept");
                records.push(queue.record(position));
            }
            tables.acked_index = index;
            tables.shipped = tables.shipped.max(index);
            tables.acked = tables.acked.max(hi);
            tables.allowed = tables.allowed.max(index + credit);
            tables.trim();
        }
        if !records.is_empty() {
            self.tell(&Event::Acknowledged { records: &records, at: self.clock.monotonic() });
        }
        if held_back {
            self.work.ring();
        }
        Ok(())
    }
}
