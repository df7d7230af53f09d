//! R → link: block numbers and stamps ahead of their data (R18), so that a takeover has little left
//! to hand over; and blocks with a bit, of which there are no records in R (LADDER 6).

use super::Tables;
use crate::device::Device;
use crate::error::Result;
use crate::format::frame::{Frame, Ladder};
use crate::limits::{ANNOUNCED_BYTES_MAX, ANNOUNCED_ENTRIES_MAX};
use crate::link::{Lane, Link};
use crate::queue::Queue;
use crate::sync::lock;
use crate::table::differential::Announcement;
use crate::table::unreflected::Index;
use crate::unit::{Extent, Stamp};
use std::sync::Arc;

/// The told records of one frame.
pub(crate) struct Told {
    /// The stamp told before the first of these, or one that the peer has received.
    pub previous: Stamp,
    pub entries: Vec<(Extent, Stamp)>,
}

impl Tables {
    /// The next own records before `end` to tell of, at most `most`; with `newest_only` those that
    /// no newer record of their block follows. An acknowledged record need not be told.
    pub fn next_told(&mut self, queue: &Queue, end: Index, most: usize, newest_only: bool) -> Told {
        let (mut index, previous) = self.out.next_to_tell();
        let left = end.saturating_sub(index);
        let mut entries = Vec::with_capacity(most.min(left as usize));
        // Of many writes of one block few are named: a frame is done after some of them, too.
        let stop = end.min(index + 8 * most as u64);
        while index < stop && entries.len() < most {
            let (stamp, position) = self.own.records().get(index).expect("R is kept");
            if !newest_only || queue.is_newest(position) {
                entries.push((queue.record(position).extent(), stamp));
            }
            index += 1;
        }
        self.out.tell(index, entries.last().map_or(previous, |entry: &(_, Stamp)| entry.1));
        Told { previous, entries }
    }
}

impl Device {
    /// Announces the next durable records (R18), in stamp order and none left out, if there are any
    /// and the control lane of `link` holds little. Returns whether there were.
    pub(crate) fn announce(&self, link: &Arc<dyn Link>) -> Result<bool> {
        if link.queued(Lane::Control) > ANNOUNCED_BYTES_MAX {
            return Ok(false);
        }
        let (link, frame) = {
            let mut tables = lock(&self.tables);
            // Under this lock, as with what is shipped.
            let announcing = {
                let failover = lock(&self.failover);
                let (role, connection) = (&failover.role, &failover.connection);
                let standing = connection.standing().filter(|_| !role.is_handing_over());
                standing.map(|standing| (connection.wire(), standing))
            };
            let Some((wire, (session, link))) = announcing.filter(|_| self.peer.machine.ships())
            else {
                return Ok(false);
            };
            self.sequence(&mut tables);
            let end = tables.out.tell_end(&tables.own);
            let most = self.settings.piece_entries_max.min(ANNOUNCED_ENTRIES_MAX);
            let queue = &self.own.journal.queue;
            let Told { previous, entries } = tables.next_told(queue, end, most, false);
            if entries.is_empty() {
                return Ok(false);
            }
            (link, Frame::Announce { previous, entries }.encode_in(wire, session))
        };
        if let Err(error) = link.send(Lane::Control, frame) {
            self.disconnected(&error, &link);
        }
        Ok(true)
    }

    /// Announces the next blocks with a bit (LADDER 6), if there are any and the control lane of `link` holds
    /// little. Returns whether there were. The caller holds the lock of the control lane: no connection comes
    /// meanwhile.
    pub(crate) fn announce_bits(&self, link: &Arc<dyn Link>) -> Result<bool> {
        let is_free = link.queued(Lane::Control) <= ANNOUNCED_BYTES_MAX;
        if !is_free || !self.peer.machine.read().may_tell() {
            return Ok(false);
        }
        let Some((wire, session, link)) = self.ladder_line() else { return Ok(false) };
        let now = self.clock.wall().min(Stamp::HOST_TIME_MAX);
        let most = self.settings.piece_entries_max.min(ANNOUNCED_ENTRIES_MAX);
        let told = self.peer.machine.write().tell(now, most);
        let Some(Announcement { round, number, blocks }) = told else { return Ok(false) };
        let frame = Frame::Ladder(Ladder::Told { round, number, blocks }).encode_in(wire, session);
        if let Err(error) = link.send(Lane::Control, frame) {
            self.disconnected(&error, &link);
        }
        Ok(true)
    }

    /// The peer announces blocks that have a bit there (LADDER 6).
    pub(crate) fn receive_told(&self, announcement: Announcement) -> Result<()> {
        self.check_blocks(&announcement.blocks)?;
        let most = self.settings.told_records_max;
        self.peer.machine.write().hear_told(&announcement, most);
        Ok(())
    }

    /// Whether the peer is to be told of anything yet.
    pub(crate) fn has_to_announce(&self) -> bool {
        if self.peer.machine.read().may_tell() {
            return true;
        }
        let tables = lock(&self.tables);
        self.peer.machine.ships() && tables.out.next_to_tell().0 < tables.out.tell_end(&tables.own)
    }

    /// The newest record of each extent in R: what is told must come to the same.
    #[cfg(feature = "simulate")]
    pub(crate) fn prototype(&self) -> Vec<(Extent, Stamp)> {
        let mut tables = lock(&self.tables);
        self.sequence(&mut tables);
        let queue = &self.own.journal.queue;
        let records = tables.own.records();
        let r = (tables.out.first()..records.end()).filter_map(|index| records.get(index));
        let newest = r.filter(|&(_, position)| queue.is_newest(position));
        newest.map(|(stamp, position)| (queue.record(position).extent(), stamp)).collect()
    }
}
