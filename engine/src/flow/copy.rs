//! Copies (S900–S906): blocks with a bit go to the other device, behind the shipped records in the data
//! lane, and come back as acknowledgements (D2, D5, D6).
//!
//! A copy is written to N at once, and no reflection goes on meanwhile: an own write that takes a block out
//! of what the peer owes goes over the copy, never the other way round.

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::data_checksum;
use crate::format::frame::{Copied, FRAME_DATA_MAX, Frame, Ladder, RUNS_MAX};
use crate::link::{Lane, Link};
use crate::table::bits::Bits;
use crate::unit::{Block, Blocks, Round};
use std::io::IoSlice;
use std::sync::Arc;

/// The acknowledgements of one step.
#[derive(Default)]
pub(crate) struct Arrived {
    round: Round,
    blocks: Bits,
}

impl Arrived {
    /// How many blocks.
    pub fn blocks(&self) -> usize {
        self.blocks.blocks() as usize
    }
}

impl Device {
    /// Sends the next copies (S900), if there are any to send now and the window has room; returns how many
    /// blocks. The caller holds the lock of shipping.
    pub(crate) fn send_copies(&self) -> Result<usize> {
        let size = u64::from(self.geometry.block_size);
        let Some((wire, session, link)) = self.ladder_line() else { return Ok(0) };
        if link.queued(Lane::Data) > self.settings.link_queue_bytes_max {
            return Ok(0);
        }
        let side = self.side();
        let most = (self.settings.ship_bytes_max.min(FRAME_DATA_MAX) / size).max(1);
        let (round, said, runs) = {
            let mut machine = self.peer.machine.write();
            let window = (self.settings.copy_bytes_max / size).max(1);
            let mut left = most.min(window.saturating_sub(machine.flying().blocks()));
            let (mut runs, mut said) = (Vec::new(), 0);
            let first = Block { volume: 0, number: 0 };
            while left > 0
                && let Some(run) = machine.next_to_send(side, first, left)
            {
                // Before the blocks are read: a write that comes in between sets its bit again.
                said = machine.send(&run);
                left -= run.count();
                runs.push(run);
            }
            (machine.round(), said, runs)
        };
        if runs.is_empty() {
            return Ok(0);
        }
        let mut data = Vec::new();
        let mut copies: Vec<Copied> = Vec::new();
        for block in runs.iter().flat_map(Blocks::each) {
            let at = data.len();
            data.resize(at + size as usize, 0);
            self.fetch(block, &mut data[at..])?;
            if data[at..].iter().any(|&byte| byte != 0) {
                let checksum = data_checksum(&data[at..]);
                copies.push(Copied { block, count: 1, has_data: true, checksum });
                continue;
            }
            data.truncate(at);
            match copies.last_mut() {
                Some(last) if !last.has_data && last.blocks().range().end == block => {
                    last.count += 1;
                }
                _ => copies.push(Copied { block, count: 1, has_data: false, checksum: 0 }),
            }
        }
        // Only content that is durable here is copied (D11).
        self.sync_own()?;
        let blocks = runs.iter().map(Blocks::count).sum::<u64>() as usize;
        let frame = Frame::Ladder(Ladder::Copy { round, said, copies, data: &data });
        let frame = frame.encode_in(wire, session);
        if let Err(error) = link.send(Lane::Data, frame) {
            self.disconnected(&error, &link);
        }
        Ok(blocks)
    }

    /// Copies have come (S903): the blocks that are wanted are written to N. The caller sees to it that no
    /// mode comes or goes meanwhile.
    ///
    /// # Errors
    /// [`Kind::Protocol`] if they cannot be, [`Kind::Halted`].
    pub(crate) fn receive_copies(
        &self,
        arrived: &mut Arrived,
        (round, said): (Round, u64),
        copies: &[Copied],
        data: &[u8],
    ) -> Result<()> {
        self.check_copies(copies, data)?;
        let size = self.geometry.block_size as usize;
        let side = self.side();
        let _still = self.begin_step(&self.reflecting)?;
        let mut data = data.chunks_exact(size);
        let shared = &self.peer.machine;
        let mut buffer: Vec<&[u8]> = Vec::new();
        let mut runs = copies.iter().peekable();
        while let Some(copied) = runs.next() {
            let mut blocks = copied.blocks();
            buffer.clear();
            if copied.has_data {
                buffer.push(data.next().expect("it was checked"));
                while let Some(next) =
                    runs.next_if(|next| next.has_data && next.block == blocks.range().end)
                {
                    blocks.numbers.end += next.count;
                    buffer.push(data.next().expect("it was checked"));
                }
            }
            let Some(wanted) = shared.read().wants(side, round, &blocks) else { return Ok(()) };
            if !wanted.is_empty() && shared.write().marks_before(side, round).mark {
                self.mark()?;
            }
            for run in &wanted {
                self.write_copy(run, blocks.numbers.start, &buffer).map_err(|e| self.halt(e))?;
            }
            let (arrival, was_owed) = {
                let mut machine = shared.write();
                let was_owed = !machine.owed().is_empty();
                let arrival = machine.arrive(side, round, said, &blocks);
                shared.settle(&machine);
                (arrival, was_owed && machine.owed().is_empty())
            };
            if arrival.is_some_and(|arrival| arrival.work.sync) {
                self.sync_own()?;
            }
            if arrived.round != round {
                *arrived = Arrived { round, blocks: Bits::default() };
            }
            arrived.blocks.insert(blocks);
            if was_owed {
                // The next round may be opened.
                self.wakes.ship.ring();
                self.tell(Event::CaughtUp);
            }
        }
        Ok(())
    }

    /// Whether these are copies of blocks of this group, undamaged.
    fn check_copies(&self, copies: &[Copied], data: &[u8]) -> Result<()> {
        let broken = |what: String| Err(Error::new(Kind::Protocol, what));
        let size = self.geometry.block_size as usize;
        let with_data = copies.iter().filter(|copied| copied.has_data).count();
        if with_data * size != data.len() {
            return broken(format!(
                "the peer sends copies of {with_data} blocks with {} bytes of data, where blocks have {size}",
                data.len()
            ));
        }
        let mut data = data.chunks_exact(size);
        for copied in copies {
            let blocks = copied.blocks();
            if blocks.numbers.end > self.volumes.blocks(blocks.volume) {
                return broken(format!(
                    "the peer sends a copy of {} blocks from {} on, which no volume has",
                    copied.count, copied.block
                ));
            }
            let is_whole = !copied.has_data
                || data.next().is_some_and(|data| data_checksum(data) == copied.checksum);
            if !is_whole {
                return broken(format!(
                    "the copy of block {} was damaged on the line",
                    copied.block
                ));
            }
        }
        Ok(())
    }

    /// Writes the blocks of `run`, whose data stands in `data` from block `first` on, or zeros.
    fn write_copy(&self, run: &Blocks, first: u64, data: &[&[u8]]) -> Result<()> {
        let size = u64::from(self.geometry.block_size);
        let mut block = run.first();
        while block.number < run.numbers.end {
            let room = (self.volumes.bytes_to_segment_end(block) / size).max(1);
            let count = room.min(run.numbers.end - block.number);
            if data.is_empty() {
                self.volumes.zero(block, count)?;
            } else {
                let at = (block.number - first) as usize;
                let slices: Vec<_> =
                    data[at..at + count as usize].iter().map(|data| IoSlice::new(data)).collect();
                self.volumes.write(block, &slices)?;
            }
            block.number += count;
        }
        Ok(())
    }

    /// The copies that have arrived are made durable in N, and then acknowledged (S904, D11).
    ///
    /// In the connection in which it came: in a later one it would be taken for a later copy's.
    pub(crate) fn acknowledge_copies(
        &self,
        arrived: Arrived,
        line: Option<(u16, u64, Arc<dyn Link>)>,
    ) -> Result<()> {
        let Arrived { round, blocks } = arrived;
        if blocks.is_empty() {
            return Ok(());
        }
        self.volumes.sync().map_err(|e| self.halt(e))?;
        let runs: Vec<Blocks> = blocks.runs().collect();
        let Some((wire, session, link)) = line else { return Ok(()) };
        for blocks in runs.chunks(RUNS_MAX) {
            let frame = Ladder::CopyAck { round, blocks: blocks.to_vec() };
            let frame = Frame::Ladder(frame).encode_in(wire, session);
            if let Err(error) = link.send(Lane::Control, frame) {
                // They are sent again in the next connection.
                self.disconnected(&error, &link);
                break;
            }
        }
        Ok(())
    }

    /// The peer has these copies, durably (S905).
    pub(crate) fn receive_copy_ack(&self, round: Round, blocks: &[Blocks]) {
        {
            let mut machine = self.peer.machine.write();
            for blocks in blocks {
                machine.copied(round, blocks);
            }
        }
        self.wakes.ship.ring();
    }

    /// Whether there are copies that can be sent, once the line takes them.
    pub(crate) fn has_to_copy(&self) -> bool {
        let side = self.side();
        let first = Block { volume: 0, number: 0 };
        let machine = self.peer.machine.read();
        machine.next_to_send(side, first, 1).is_some()
    }
}
