//! Checksums of the normal volume's blocks for an online comparison ([`super::compare`]), and the
//! answers to the peer that asks for them.
//!
//! # When a block may be compared
//! A block is **at rest** at a device, while it reads the block's bytes in N, if
//! - it is in ordered mode, and in the same round from before the reading to behind it, so that no copy
//!   comes,
//! - every record of it in either queue is in N,
//! - the peer has acknowledged every own record of it, and
//! - nothing of it has moved in either queue from before the reading to behind it.
//!
//! **Invariant**: two images of a block are compared only if it was at rest at the device that answers
//! while that read it, and at the one that asks from before its question to behind the answer.
//!
//! Both then hold the same records of the block, and N the newest of them:
//! - Own records of the asker: it published none from before the question to behind the answer, and the
//!   peer had acknowledged, and so received, all before. They are the ones that the answer is made with.
//! - Own records of the other: those that there were when it read the block were acknowledged, so they
//!   had arrived before the answer; as nothing has moved at the asker, before the question. The asker
//!   has no others, as a record is at its device first.
//! - N takes records in stamp order (R8, I7), and each passes through a queue first.
//!
//! The rule names neither tenure nor role, so a takeover in between changes nothing; nor does a debt,
//! whose records the debtor has not had acknowledged. A restart forgets a question, and its answer with
//! it.

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::format::data_checksum;
use crate::format::frame::{CHECKSUMS_FEATURE, Frame, SUMS_MAX, Seen, Sum, add};
use crate::link::Lane;
use crate::moment::{Moment, moment};
use crate::queue::Token;
use crate::sync::lock;
use crate::unit::{Block, Round};
use crate::weaken::{Clause, holds};

/// Most bytes that are read in one go: so long waits what goes first.
const SLICE_BYTES: u64 = if cfg!(feature = "simulate") { 4 << 10 } else { 256 << 10 };

/// Most segments that are looked at in one go.
const SEGMENTS_AT_ONCE: usize = 4096;

/// A block as it was seen, and what there was of it in the own and the received queue before.
pub(crate) struct Look {
    pub seen: Seen,
    tokens: [Token; 2],
    /// The round, if the device was in ordered mode.
    round: Option<Round>,
}

/// The peer's question, and how far its answer has come.
pub(crate) struct Asked {
    /// The peer's name for the connection.
    session: u64,
    id: u64,
    next: Block,
    left: u64,
    /// So many blocks may be absent, which is to be looked at before any is read.
    absent: u64,
    sums: Vec<Sum>,
}

impl Device {
    /// Looks at `count` blocks of N from `first` on; returns how many bytes of them were read, as
    /// those that are known to be zeros are not. A look holds as long as
    /// [`Device::is_unchanged`] says so.
    pub(crate) fn look(&self, first: Block, count: u64, looks: &mut Vec<Look>) -> u64 {
        let size = self.geometry.block_size as usize;
        let slice = self.blocks_in_slice();
        let mut buffer = vec![0; size];
        let mut bytes = 0;
        for at in (0..count).step_by(slice as usize) {
            let first = Block { number: first.number + at, ..first };
            let count = slice.min(count - at);
            let begin = looks.len();
            // Before any record is looked at: those below it are at the peer, whatever comes.
            let floor = lock(&self.tables).out.floor();
            let round = self.peer.machine.ordered_round();
            for number in first.number..first.number + count {
                let block = Block { number, ..first };
                let (own, own_token) = self.own.journal.queue.newest(block);
                let (received, recv_token) = self.peer.recv.journal.queue.newest(block);
                let is_acked = own.is_none_or(|record| record.stamp <= floor);
                let mut records = own.iter().chain(&received);
                let moves = round.is_none()
                    || !is_acked && holds(Clause::CompareAcknowledged)
                    || records.any(|r| !r.was_reflected) && holds(Clause::CompareReflected);
                let seen = if moves { Seen::Moving } else { Seen::Absent };
                looks.push(Look { seen, tokens: [own_token, recv_token], round });
            }
            moment(Moment::Comparing);
            // Behind the queues, as all that is read of N.
            let is_zero = self.volumes.read_as_zeros(first, count);
            buffer.fill(0);
            for (look, number) in looks[begin..].iter_mut().zip(first.number..) {
                if look.seen == Seen::Moving {
                    continue;
                }
                let block = Block { number, ..first };
                let read = if is_zero { Ok(()) } else { self.volumes.read(block, &mut buffer) };
                let within = self.volumes.bytes_within(block) as usize;
                bytes += if is_zero { 0 } else { within as u64 };
                // Nothing is written here: whatever the storage says concerns this block only.
                look.seen = read.map_or(Seen::Unreadable, |()| {
                    Seen::Checksum(data_checksum(&buffer[..within]))
                });
            }
        }
        bytes
    }

    /// Whether nothing of `block` has moved since before the look, and no mode has come or gone.
    pub(crate) fn is_unchanged(&self, block: Block, look: &Look) -> bool {
        let [own, recv] = look.tokens;
        let is_still = self.own.journal.queue.unchanged(block, own)
            && self.peer.recv.journal.queue.unchanged(block, recv);
        self.peer.machine.ordered_round() == look.round
            && (is_still || !holds(Clause::CompareUnchanged))
    }

    /// How many of the `most` blocks from `block` on, which are within the volume, lie in segments
    /// that were never made and have no live record: those of some segments at most.
    pub(crate) fn absent_blocks(&self, block: Block, most: u64) -> u64 {
        let size = u64::from(self.geometry.block_size);
        let mut left = most;
        let mut next = block;
        let mut ends = Vec::new();
        while left > 0 && ends.len() < SEGMENTS_AT_ONCE && !self.volumes.has_segment_of(next) {
            let blocks = (self.volumes.bytes_to_segment_end(next) / size).min(left);
            next.number += blocks;
            left -= blocks;
            ends.push(next.number - block.number);
        }
        let queues = [&self.own.journal.queue, &self.peer.recv.journal.queue];
        let is_free = |&blocks: &u64| !queues.iter().any(|queue| queue.may_have(block, blocks));
        // Each look goes through what the log does not have yet: as few as halving takes.
        let halves = std::iter::successors(Some(ends.len()), |&count| Some(count / 2));
        let halves = halves.take_while(|&count| count > 0);
        halves.map(|count| ends[count - 1]).find(is_free).unwrap_or(0)
    }

    fn blocks_in_slice(&self) -> u64 {
        (SLICE_BYTES / u64::from(self.geometry.block_size)).max(1)
    }

    /// Takes the peer's question for checksums. It gives up the one before, if that is not answered.
    pub(crate) fn receive_checksum_question(
        &self,
        session: u64,
        id: u64,
        (block, count): (Block, u32),
        absent: u64,
    ) -> Result<()> {
        self.check_checksums_agreed()?;
        let blocks = self.volumes.blocks(block.volume);
        let ends = block.number.checked_add(u64::from(count).max(absent));
        if count == 0 || count > SUMS_MAX || ends.is_none_or(|end| end > blocks) {
            let what = format!(
                "the peer asks for the checksums of {count} blocks from {block} on, and whether \
                 {absent} are absent: {SUMS_MAX} are the most, and the volume has {blocks}"
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        let (left, sums) = (count.into(), Vec::new());
        *lock(&self.peer.checked) = Some(Asked { session, id, next: block, left, absent, sums });
        Ok(())
    }

    fn check_checksums_agreed(&self) -> Result<()> {
        let peer = lock(&self.failover).connection.peer();
        match peer.is_some_and(|peer| peer.features & CHECKSUMS_FEATURE != 0) {
            true => Ok(()),
            false => {
                let what =
                    "a frame is of the online comparison (wire feature 8), which was not agreed";
                Err(Error::new(Kind::Protocol, what))
            }
        }
    }

    /// Reads some of the blocks whose checksums the peer asks for, or sends the answer, if the lane
    /// has room; whether there was anything of that.
    pub(crate) fn answer_checksums(&self) -> bool {
        // Only this step works on it: nothing else waits for a lock while blocks are read.
        let Some(mut asked) = lock(&self.peer.checked).take() else { return false };
        let standing = {
            let connection = &lock(&self.failover).connection;
            let asker = connection.peer().filter(|peer| peer.nonce == asked.session);
            asker.and(connection.standing())
        };
        // Without the connection, the peer asks again.
        let Some((_, link)) = standing else { return false };
        let reads = asked.left > 0;
        let absent = self.absent_blocks(asked.next, std::mem::take(&mut asked.absent));
        if absent > 0 {
            asked.left = 0;
            add(&mut asked.sums, Seen::Absent, u32::try_from(absent).unwrap_or(u32::MAX));
        } else if reads {
            let count = self.blocks_in_slice().min(asked.left);
            let mut looks = Vec::new();
            self.look(asked.next, count, &mut looks);
            for look in looks {
                let rests = self.is_unchanged(asked.next, &look);
                add(&mut asked.sums, if rests { look.seen } else { Seen::Moving }, 1);
                asked.next.number += 1;
            }
            asked.left -= count;
        } else if !self.is_full(&link) {
            // A connection that ends now takes the question with it.
            let reply = Frame::ChecksumReply { id: asked.id, sums: asked.sums };
            return self.send(Lane::Control, &reply).is_ok();
        }
        *lock(&self.peer.checked) = Some(asked);
        reads
    }

    /// Whether the peer waits for checksums.
    pub(crate) fn owes_checksums(&self) -> bool {
        lock(&self.peer.checked).is_some()
    }

    /// Takes the peer's answer to the question for checksums.
    pub(crate) fn receive_checksums(&self, id: u64, sums: Vec<Sum>) -> Result<()> {
        self.check_checksums_agreed()?;
        let taken = lock(&self.peer.comparing).take_reply(id, sums);
        self.wakes.compare.ring();
        taken.map_err(|what| Error::new(Kind::Protocol, what))
    }
}
