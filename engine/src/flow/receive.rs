//! Link → received log: once, in order, durable before it is acknowledged (S1501–S1504, R6).

use super::copy::Arrived;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::data_checksum;
use crate::format::frame::{Frame, Ladder, Shipped};
use crate::journal::recv::Arrival;
use crate::limits::EPOCH_JUMP_MAX;
use crate::link::Lane;
use crate::moment::{Moment, moment};
use crate::sync::lock;
use crate::unit::Stamp;
use crate::wake::Key;
use crate::weaken::{Clause, holds};

/// Most bytes taken from the link in one step: one sync for all of them.
const RECEIVE_BYTES_MAX: usize = 4 << 20;

impl Device {
    /// Takes what has arrived in the data lane (S1501–S1503, S903, R6); returns how many new records
    /// and copied blocks that were.
    ///
    /// # Errors
    /// [`Kind::Halted`] if the log fails. A frame that the peer must not send ends the connection, not
    /// the device.
    pub fn step_receive(&self) -> Result<usize> {
        let _telling = self.events.enter();
        let _one = self.begin_step(&self.peer.receiving)?;
        let Some(link) = self.peer_link() else { return Ok(0) };
        if lock(&self.failover).connection.awaits_hello() {
            // The peer may have begun to ship: what it ships is told from what is left of an
            // earlier connection by its hello, which comes in the other lane.
            return Ok(0);
        }
        let mut frames = Vec::new();
        let mut bytes = 0;
        while bytes < RECEIVE_BYTES_MAX {
            match link.receive(Lane::Data) {
                Ok(Some(frame)) => {
                    bytes += frame.len();
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => {
                    lock(&self.failover).connection.went_down(&link, Lane::Data);
                    self.disconnected(&error, &link);
                    break;
                }
            }
        }
        let mut count = 0;
        // Looked for once, however many parts the frames are taken in.
        let copies_end = frames.iter().rposition(|frame| Frame::brings_copies(frame));
        let all = frames.len();
        let mut frames = &frames[..];
        while !frames.is_empty() {
            let brings_copies = copies_end.is_some_and(|last| all - frames.len() <= last);
            match self.receive_frames(&mut frames, brings_copies) {
                Err(error) if error.kind() == Kind::Protocol => {
                    self.disconnected(&error, &link);
                    return Ok(0);
                }
                other => count += other?,
            }
        }
        Ok(count)
    }

    /// Takes `frames`, which bring copies or do not, up to the first that speaks of all before it, and that one, away and
    /// in.
    fn receive_frames(&self, frames: &mut &[Vec<u8>], brings_copies: bool) -> Result<usize> {
        if brings_copies {
            self.save_before_frames(frames)?;
        }
        // A takeover waits for this batch, and for one sync of the received log, at most: for no reflection.
        let reflecting = brings_copies.then(|| self.begin_step(&self.reflecting)).transpose()?;
        if brings_copies {
            self.write_back_image()?;
        }
        let landing = self.peer.machine.landing();
        let (hi, mut last_session, mine) = {
            let tables = lock(&self.tables);
            (tables.incoming.hi(), tables.incoming.last_session(), tables.newest_own().epoch)
        };
        let mut newest = hi;
        let mut arrivals = Vec::new();
        let mut copies = Arrived::default();
        let line = self.ladder_line();
        let mut ends = None;
        while let Some((frame, rest)) = frames.split_first() {
            *frames = rest;
            let (session, decoded) = Frame::decode(frame)?;
            match lock(&self.failover).connection.peer() {
                Some(peer) if peer.nonce == session => peer.check_version(frame)?,
                _ => continue, // of an earlier connection
            }
            let (mut last, granted, records, mut data) = match decoded {
                Frame::Ship { previous, granted, round, records, data } => {
                    if !self.peer.machine.takes(round) && holds(Clause::RoundCounts) {
                        continue; // of another round (D3)
                    }
                    (previous, granted, records, data)
                }
                Frame::Ladder(Ladder::Copy { round, said, copies: sent, data }) => {
                    self.receive_copies(&mut copies, (round, said), &sent, data)?;
                    continue;
                }
                Frame::Ladder(Ladder::Sums { round, said, blocks, sums }) => {
                    self.receive_sums(&mut copies, (round, said), &blocks, &sums)?;
                    continue;
                }
                // All before it is durable first.
                Frame::Ladder(end @ (Ladder::End { .. } | Ladder::Level { .. })) => {
                    ends = Some(end);
                    break;
                }
                _ => {
                    let what =
                        "a control frame came in the data lane: does the link mix its lanes?";
                    return Err(Error::new(Kind::Protocol, what));
                }
            };
            if granted == 0 {
                self.taken(records.last().map_or(0, |shipped| shipped.row.stamp.epoch));
            }
            // A frame from before an earlier takeover speaks of an earlier prototype.
            let is_promised =
                granted != 0 && granted == self.clk.epoch() && self.peer.owed.is_due();
            for shipped in records {
                let stamp = shipped.row.stamp;
                // A new record follows the one that came last; first after a hello, the peer may begin
                // with what is here already (R6).
                let first = last_session != session && last <= newest;
                let gap = stamp > newest && last != newest && !first;
                if stamp <= last || gap && holds(Clause::ShipChain) {
                    let what = format!(
                        "the peer ships record {stamp} as the one after {last}, but the last one \
                         received here is {newest}"
                    );
                    return Err(Error::new(Kind::Protocol, what));
                }
                last_session = if stamp > newest { session } else { last_session };
                last = stamp;
                if stamp > newest && stamp.epoch == mine {
                    let what = format!(
                        "the peer ships record {stamp} of a tenure that this device held itself (I2)"
                    );
                    return Err(Error::new(Kind::Protocol, what));
                }
                newest =
                    self.take_shipped(&shipped, is_promised, newest, &mut data, &mut arrivals)?;
            }
            if !data.is_empty() {
                let what = format!(
                    "a shipped frame has {} bytes of data behind that of its last record",
                    data.len()
                );
                return Err(Error::new(Kind::Protocol, what));
            }
        }
        drop(reflecting);
        if newest.epoch > self.clk.epoch().max(lock(&self.tables).out.granted()) {
            self.check_tenure_known(newest)?;
        }
        let count = arrivals.len() + copies.blocks();
        if !arrivals.is_empty() {
            let now = self.clock.monotonic();
            let appended = self.peer.recv.append(hi, &arrivals, now, self.settings.durability);
            let records = appended.map_err(|e| match e.kind() {
                Kind::Protocol => e,
                _ => self.halt(e),
            })?;
            debug_assert!(records.last().map(|r| r.stamp) == Some(newest), "I8: hi is durable");
            moment(Moment::Received);
            let caught_up = {
                let mut tables = lock(&self.tables);
                let arrived = records.iter().map(|record| (record.stamp, record.position));
                tables.incoming.arrived(last_session, arrived);
                self.peer.machine.received(newest);
                // Published first, then no longer owed: a reader asks in the other order.
                self.peer.owed.pay(newest, tables.is_behind())
            };
            if self.wakes.reflect_at[1].pass(self.peer.recv.journal.queue.tail()) {
                self.wakes.reflect.ring();
            }
            if caught_up {
                self.tell(Event::CaughtUp);
                // Nothing is owed any more: each read that waits for an answer looks again.
                self.wakes.waiters.wake(Key::Reply(0)..=Key::Reply(u64::MAX));
            }
        }
        drop(landing);
        self.acknowledge_copies(copies, line)?;
        self.acknowledge();
        match ends {
            Some(Ladder::End { round, generation, consistent_at }) => {
                self.receive_end(round, generation, consistent_at)?;
            }
            Some(Ladder::Level { round }) => self.receive_level(round)?,
            _ => {}
        }
        Ok(count)
    }

    /// Every tenure of the peer's was granted here; which of the two has it wrong is told as at a
    /// hello (`failover/decide.rs`).
    pub(crate) fn check_tenure_known(&self, newest: Stamp) -> Result<()> {
        let held = self.superblock.get().epoch;
        if newest.epoch <= held {
            return Ok(());
        }
        let what =
            format!("the peer has record {newest}, but the newest tenure known here is {held}");
        if newest.epoch - held > EPOCH_JUMP_MAX {
            return Err(Error::new(Kind::Protocol, what));
        }
        let served = lock(&self.failover).role.served();
        Err(if served { self.untrue(&what) } else { self.lost_here(&what) })
    }

    /// Checks one shipped record and takes it if it is new; `is_promised`: this tenure's
    /// prototype speaks of it. Returns the newest stamp received.
    fn take_shipped<'a>(
        &self,
        shipped: &Shipped,
        is_promised: bool,
        newest: Stamp,
        data: &mut &'a [u8],
        arrivals: &mut Vec<Arrival<'a>>,
    ) -> Result<Stamp> {
        let broken = |what: String| Err(Error::new(Kind::Protocol, what));
        let row = shipped.row;
        let size = if row.has_data { self.geometry.block_size as usize } else { 0 };
        let Some((block_data, rest)) = data.split_at_checked(size) else {
            return broken(format!(
                "record {} is shipped with less data than its block has",
                row.stamp
            ));
        };
        *data = rest;
        if row.stamp <= newest && holds(Clause::ReceiveOnce) {
            return Ok(newest); // a duplicate: acknowledged, otherwise ignored
        }
        if row.level > 0 && !self.has_extents() {
            return broken(format!(
                "record {} is of many blocks (wire feature 2), which was not agreed",
                row.stamp
            ));
        }
        if !self.volumes.contains(row.extent()) {
            return broken(format!(
                "record {} is for block {}, which no volume has",
                row.stamp,
                row.extent()
            ));
        }
        if row.has_data && data_checksum(block_data) != row.checksum {
            return broken(format!(
                "record {} was damaged on the line: its data does not give its checksum",
                row.stamp
            ));
        }
        if row.stamp.time > Stamp::TIME_MAX {
            return broken(format!(
                "the peer ships record {}, whose time is above {} ns",
                row.stamp,
                Stamp::TIME_MAX
            ));
        }
        if row.stamp.epoch == self.clk.epoch() {
            return broken(format!(
                "the peer ships record {} of the tenure under which this device serves (I2)",
                row.stamp
            ));
        }
        // The records that a fenced sender says remain are those of its prototype.
        if is_promised {
            let (promised, last) = {
                let debt = self.peer.owed.told();
                (debt.owed_for(row.extent()), debt.last())
            };
            let said = shipped.remaining.unwrap_or(row.stamp);
            if promised != Some(said) && promised.is_none_or(|p| p > newest) {
                let promised = promised.map_or("none".into(), |stamp| stamp.to_string());
                return broken(format!(
                    "record {} says that the newest record of extent {} is {said}; the prototype said \
                     {promised}",
                    row.stamp,
                    row.extent()
                ));
            }
            // The flag speaks of the prototype, too: whether it has a newer record.
            if shipped.total_remaining != (row.stamp < last) {
                let says = if shipped.total_remaining { "more follow" } else { "it is the last" };
                return broken(format!(
                    "record {} says that {says}, but the prototype ends with {last}",
                    row.stamp
                ));
            }
        }
        arrivals.push(Arrival { row, data: block_data });
        Ok(row.stamp)
    }
}
