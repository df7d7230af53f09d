//! Received log → link → R: cumulative acknowledgements, with credit (S1503–S1506, R9, R10).

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::frame::Frame;
use crate::link::Lane;
use crate::queue::Record;
use crate::sync::lock;
use crate::unit::Stamp;

impl Device {
    /// Tells the peer how far this device has received, and how much more it can take. In a connection in
    /// which the peer has not said hello, the wire version is not known; it ships again from where this
    /// device's hello says.
    pub(crate) fn acknowledge(&self) {
        let (wire, standing) = {
            let connection = &lock(&self.failover).connection;
            (connection.wire(), connection.standing())
        };
        let Some((session, link)) = standing else { return };
        // `hi` first: a record that arrives in between then counts against the credit twice.
        let hi = lock(&self.tables).incoming.hi();
        let credit = self.credit();
        let frame = Frame::Ack { hi, credit }.encode_in(wire, session);
        // The next hello says the same.
        if let Err(error) = link.send(Lane::Control, frame) {
            self.disconnected(&error, &link);
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

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::clock::SystemClock;
    use crate::device::tests::device;
    use crate::link::{Lane, Line, Link, memory_link};
    use crate::storage::Memory;
    use std::sync::Arc;

    /// A thread that has received in the last connection acknowledges when the next has begun: the peer has
    /// not said yet which wire version it speaks.
    #[test]
    fn nothing_is_acknowledged_before_the_peers_hello() {
        let device = device(&Arc::new(Memory::new()));
        let (near, far) = memory_link(Line::default(), Arc::new(SystemClock::default()));
        device.connect(Arc::new(near)).unwrap();
        assert!(far.receive(Lane::Control).unwrap().is_some(), "the hello");
        device.acknowledge();
        assert_eq!(far.receive(Lane::Control).unwrap(), None);
    }
}
