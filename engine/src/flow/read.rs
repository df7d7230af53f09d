//! Host read: by location (S1000–S1010, R7), fetching from the peer what it still owes.

use super::admission::Pass;
use super::remote::{RemoteRead, Reply};
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::moment::{Moment, Wait, moment};
use crate::queue::Token;
use crate::request::{Awaited, Completion};
use crate::sync::lock;
use crate::table::location::{Location, locate};
use crate::unit::{Block, Stamp};
use crate::weaken::{Clause, holds};
use std::collections::VecDeque;

/// Where a block's newest data was found.
pub(crate) enum Fetched {
    /// Here, and copied; this is what there was of the block in the own queue.
    Here(Token),
    /// At the other device; this is what there is of the block in the own queue.
    Away(Token),
}

impl Device {
    /// Refuses commands of any tenure but the open one (R3, R14).
    pub(crate) fn check_tenure(&self, epoch: u64) -> Result<()> {
        match self.clk.epoch() {
            now if now == epoch => Ok(()),
            0 => Err(self.not_serving()),
            now if holds(Clause::Tenure) => {
                let what = format!(
                    "the session is of tenure {epoch}, which is over: tenure {now} is open; open a \
                     new session"
                );
                Err(Error::new(Kind::Fenced, what))
            }
            _ => Ok(()),
        }
    }

    /// Where the newest data of `block` is, while this device serves: for tests, which hold it
    /// against the table kept by the seed's rules (I6).
    #[doc(hidden)]
    pub fn location(&self, block: Block) -> Location {
        let owed = self.owed(block);
        let newest_own = self.own.journal.queue.newest(block).0;
        locate(newest_own, self.peer.recv.journal.queue.newest(block).0, owed)
    }

    /// The newest stamp that the peer owes for `block`, while this device serves; of what bits tell of, one
    /// that is older than every write of the tenure and newer than all others (D5).
    fn owed(&self, block: Block) -> Option<Stamp> {
        let by_bits = || {
            let stamp = || Stamp { epoch: self.superblock.get().epoch, time: 0, sequence: 0 };
            self.peer.machine.is_owed(block).then(stamp)
        };
        self.peer.owed.of(block).or_else(by_bits)
    }

    /// Where the newest data of `block` is, with what there is of it in the own queue and the received
    /// one. Never waits. The debt is read before the queues: what it no longer names is already published
    /// there. Records that leave them meanwhile do so behind marks in stamp order, and those are looked at
    /// once more.
    pub(crate) fn find(&self, block: Block) -> (Location, Token, Token) {
        let (own, recv) = (&self.own.journal.queue, &self.peer.recv.journal.queue);
        let mut wait = Wait::default();
        loop {
            let owed = self.owed(block);
            moment(Moment::Looking);
            let (newest_own, own_token) = own.newest(block);
            moment(Moment::Looking);
            let (newest_recv, recv_token) = recv.newest(block);
            let location = locate(newest_own, newest_recv, owed);
            // A newer record may have been reflected and freed before its queue was looked at: then
            // this one is reflected too, and what was owed has come.
            let missed = match &location {
                Location::Own(record) => own.live(record.position).is_none_or(|r| r.was_reflected),
                Location::Remote => self.owed(block) != owed,
                Location::Received(_) | Location::Normal => false,
            };
            if !missed {
                return (location, own_token, recv_token);
            }
            wait.yield_now("a read finds its block moved");
        }
    }

    /// Copies the newest data of `block` if it is here (R7). Never waits.
    ///
    /// # Errors
    /// [`Kind::Halted`] if a record cannot be read back ([`Device::unreadable`]); [`Kind::Storage`]
    /// if a volume cannot be read, which concerns this block only.
    pub(crate) fn fetch(&self, block: Block, buf: &mut [u8]) -> Result<Fetched> {
        let (own, recv) = (&self.own.journal.queue, &self.peer.recv.journal.queue);
        let mut wait = Wait::default();
        loop {
            let (location, own_token, recv_token) = self.find(block);
            moment(Moment::Located);
            let copied = match location {
                Location::Remote => return Ok(Fetched::Away(own_token)),
                Location::Own(record) => {
                    self.own.read(&record, buf).map_err(|e| self.unreadable(e))?
                }
                Location::Received(record) => {
                    self.peer.recv.read(&record, buf).map_err(|e| self.unreadable(e))?
                }
                Location::Normal => {
                    self.volumes.read(block, buf)?;
                    // Whatever is written to N for this block passes through the queues first:
                    // if nothing moved there, nothing was torn.
                    own.unchanged(block, own_token) && recv.unchanged(block, recv_token)
                }
            };
            if copied {
                return Ok(Fetched::Here(own_token));
            }
            wait.yield_now("a read finds its block moved");
        }
    }
}

impl Device {
    /// Copies what `block` held here at the stamp `cut`: the newest record that is not above it, or
    /// else N, which must not have gone beyond it; reflection stands still meanwhile. A fenced device's
    /// history can be read so, but for what its peer has not shipped yet.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if N may hold records above `cut`; as [`Device::fetch`].
    #[doc(hidden)]
    pub fn read_as_of(&self, block: Block, cut: Stamp, buf: &mut [u8]) -> Result<()> {
        let _still = self.begin_step(&self.reflecting)?;
        let reach = lock(&self.tables).normal.reach();
        if reach > cut {
            let what = format!(
                "block {block} cannot be read as of {cut}: its volume has records up to {reach} already"
            );
            return Err(Error::new(Kind::Invalid, what));
        }
        let mut wait = Wait::default();
        loop {
            let own = self.own.journal.queue.newest_upto(block, cut);
            let received = self.peer.recv.journal.queue.newest_upto(block, cut);
            let copied = match locate(own, received, None) {
                Location::Own(record) => self.own.read(&record, buf),
                Location::Received(record) => self.peer.recv.read(&record, buf),
                Location::Normal | Location::Remote => {
                    return self.volumes.read(block, buf);
                }
            };
            if copied.map_err(|e| self.unreadable(e))? {
                return Ok(());
            }
            // A checkpoint has freed it: it is in N.
            wait.yield_now("a read as of a stamp finds its block moved");
        }
    }
}

/// A host's read under way.
#[derive(Debug)]
pub(crate) struct ReadState {
    volume: u32,
    offset: u64,
    buffer: Vec<u8>,
    /// The first block that has not been looked at.
    next: u64,
    end: u64,
    remote: VecDeque<RemoteRead>,
    scratch: Vec<u8>,
}

impl ReadState {
    pub fn new(device: &Device, volume: u32, offset: u64, buffer: Vec<u8>) -> ReadState {
        let size = u64::from(device.geometry.block_size);
        ReadState {
            volume,
            offset,
            next: offset / size,
            end: (offset + buffer.len() as u64).div_ceil(size),
            buffer,
            remote: VecDeque::new(),
            scratch: Vec::new(),
        }
    }

    /// Goes as far as it can; `true` when done, with the buffer in `completion`.
    pub fn advance(
        &mut self,
        device: &Device,
        pass: &Pass,
        completion: &mut Completion,
    ) -> Result<bool> {
        let outcome = self.try_fetch(device, pass, completion);
        if !matches!(outcome, Ok(false)) {
            self.abandon(device);
        }
        outcome
    }

    /// The read waits for the answer to its last question, since answers come in the order of the
    /// questions, until the first question's time is over.
    pub fn awaited(&self, device: &Device) -> Awaited {
        let last = self.remote.iter().max_by_key(|read| read.number());
        let first = self.remote.iter().min_by_key(|read| read.asked_at());
        let (last, first) = last.zip(first).expect("it waits for an answer");
        Awaited { until: device.awaited(first).until, ..device.awaited(last) }
    }

    /// Gives up the answers that it still waits for.
    pub fn abandon(&mut self, device: &Device) {
        self.remote.drain(..).for_each(|read| device.forget(&read));
    }

    fn try_fetch(
        &mut self,
        device: &Device,
        pass: &Pass,
        completion: &mut Completion,
    ) -> Result<bool> {
        let epoch = pass.epoch;
        while self.next < self.end {
            let block = Block { volume: self.volume, number: self.next };
            self.block(device, epoch, block, None)?;
            self.next += 1;
        }
        // Each by itself: those that an error leaves are given up ([`ReadState::abandon`]).
        for _ in 0..self.remote.len() {
            // A read waiting for the peer ends with its tenure (R3) and its session (R20).
            if holds(Clause::ReadTenure) {
                device.check_pass(pass)?;
            }
            let Some(read) = self.remote.pop_front() else { break };
            match device.answer(&read)? {
                None => self.remote.push_back(read),
                Some(Reply::NotPending) => {
                    if holds(Clause::LookAgain) {
                        self.block(device, epoch, read.block, Some(&read))?;
                    }
                }
                Some(Reply::Data(data)) => {
                    completion.remote_blocks += 1;
                    self.copy(device, read.block, &data);
                }
            }
        }
        if self.remote.is_empty() {
            completion.buffer = Some(std::mem::take(&mut self.buffer));
            return Ok(true);
        }
        device.ask_now();
        Ok(false)
    }

    fn block(
        &mut self,
        device: &Device,
        epoch: u64,
        block: Block,
        again: Option<&RemoteRead>,
    ) -> Result<()> {
        let size = device.geometry.block_size as usize;
        let begins = block.number * size as u64;
        let whole =
            begins >= self.offset && begins + size as u64 <= self.offset + self.buffer.len() as u64;
        let fetched = if whole {
            let at = (begins - self.offset) as usize;
            device.fetch(block, &mut self.buffer[at..at + size])?
        } else {
            self.scratch.resize(size, 0);
            device.fetch(block, &mut self.scratch)?
        };
        // A fence drops the debt: what was found without it may be old (R3).
        device.check_tenure(epoch)?;
        match fetched {
            Fetched::Away(base) => self.remote.push_back(device.ask(block, base, epoch, again)),
            Fetched::Here(_) if !whole => {
                let scratch = std::mem::take(&mut self.scratch);
                self.copy(device, block, &scratch);
                self.scratch = scratch;
            }
            Fetched::Here(_) => {}
        }
        Ok(())
    }

    /// Copies what the host wants of a block's data.
    fn copy(&mut self, device: &Device, block: Block, data: &[u8]) {
        let begins = block.number * u64::from(device.geometry.block_size);
        let from = self.offset.max(begins);
        let to = (self.offset + self.buffer.len() as u64).min(begins + data.len() as u64);
        let (into, out) = ((from - self.offset) as usize, (from - begins) as usize);
        let length = (to - from) as usize;
        self.buffer[into..into + length].copy_from_slice(&data[out..out + length]);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::device::tests::device;
    use crate::storage::Memory;
    use std::sync::Arc;

    /// The device would otherwise keep the answers to an ended read as long as it is open.
    #[test]
    fn a_read_that_fails_gives_up_all_that_it_awaits() {
        let device = device(&Arc::new(Memory::new()));
        let mut read = ReadState::new(&device, 0, 0, vec![0; 4 * 4096]);
        read.next = read.end;
        let token = device.own.journal.queue.newest(Block { volume: 0, number: 0 }).1;
        for number in 0..4 {
            read.remote.push_back(device.ask(Block { volume: 0, number }, token, 1, None));
        }
        assert_eq!(device.blocks_awaited(), 4);
        read.advance(&device, &device.host.writers.pass(2), &mut Completion::default())
            .unwrap_err();
        assert_eq!(device.blocks_awaited(), 0);
    }
}
