//! D2, D5, D6: bits of host writes, and the copies of the blocks that have one.

use super::work::{Arrival, Work};
use super::{Consistent, Differential, Mode, Round, Side, Stage};
use crate::table::bits::{Bits, Blocks};
use crate::unit::Block;
use crate::weaken::{Clause, holds, instead};

impl Differential {
    /// A host's write is final (D5). In modes p and s its blocks get bits, and the peer's copies of them
    /// are worth nothing; in the other modes R has it. The work is done before N has the write.
    pub fn wrote(&mut self, blocks: &Blocks) -> Work {
        if matches!(self.mode, Mode::Ordered | Mode::Copying) {
            return Work::default();
        }
        self.table.insert(blocks.clone());
        if holds(Clause::OwnWriteOver) {
            self.owed.remove(blocks);
        }
        let mark = !self.owed.is_empty() && self.is_no_prefix();
        self.settle(Side::Active);
        Work { mark, ..Work::default() }
    }

    /// N is about to be no prefix; whether that has to be stored first.
    fn is_no_prefix(&mut self) -> bool {
        let was = std::mem::replace(&mut self.consistent, Consistent::No);
        was != Consistent::No && holds(Clause::MarkFirst)
    }

    /// Whether copies are sent from here: from the fenced device in mode p, from the active one in modes
    /// s and c, once both are in the round (D3, D6).
    fn may_send(&self, side: Side) -> bool {
        let in_turn = match self.mode {
            Mode::Ordered => false,
            Mode::Collecting => side == Side::Fenced || !holds(Clause::CollectFirst),
            Mode::Sending | Mode::Copying => side == Side::Active,
        };
        in_turn && self.is_open()
    }

    /// The next blocks to send, at most `most` of a run, from `from` on in the order of addresses: those
    /// with a bit, of which no copy is in flight, and whose newest content `is_durable` here (D11).
    pub fn next_to_send(
        &self,
        side: Side,
        mut from: Block,
        most: u64,
        is_durable: impl Fn(Block) -> bool,
    ) -> Option<Blocks> {
        let is_durable = |block| is_durable(block) || !holds(Clause::CopyDurable);
        if !self.may_send(side) {
            return None;
        }
        loop {
            let run = self.table.next_from(from)?;
            from = run.first();
            let mut end = run.numbers.end.min(from.number.saturating_add(most));
            match self.flying.next_from(from).filter(|flying| flying.volume == run.volume) {
                Some(flying) if flying.numbers.start == from.number => {
                    from.number = flying.numbers.end;
                    continue;
                }
                Some(flying) => end = end.min(flying.numbers.start),
                None => {}
            }
            let ready = |&number: &u64| is_durable(Block { number, ..from });
            match (from.number..end).take_while(ready).count() as u64 {
                0 => from.number += 1,
                ready => return Some(Blocks { numbers: from.number..from.number + ready, ..run }),
            }
        }
    }

    /// These blocks are about to be read and sent: their bits are cleared first, so that a write that
    /// comes in between sets them again (D2).
    pub fn send(&mut self, blocks: &Blocks) {
        if instead::clears(true) {
            self.table.remove(blocks);
        }
        self.flying.insert(blocks.clone());
        if self.stage == Stage::Said && holds(Clause::LevelAgain) {
            self.stage = Stage::Open;
        }
    }

    /// The peer has copies of `blocks`, durably (D2). Returns those that need no bit any more in what is
    /// stored: a block that was written again meanwhile keeps its bit.
    pub fn copied(&mut self, round: Round, blocks: &Blocks) -> Bits {
        if holds(Clause::RoundCounts) && round != self.round {
            return Bits::default();
        }
        self.flying.remove(blocks);
        if instead::clears(false) {
            self.table.remove(blocks);
        }
        self.table.missing(blocks)
    }

    /// A copy arrives; nothing, if it is of another round (D3). The active device takes what it is owed, and
    /// drops what it has written itself meanwhile, which is durable before the acknowledgement says so
    /// (D5, D11); the fenced one takes all of it.
    pub fn arrive(&mut self, side: Side, round: Round, blocks: &Blocks) -> Option<Arrival> {
        let is_old = holds(Clause::RoundCounts) && round != self.round;
        if is_old || self.mode == Mode::Ordered {
            return None;
        }
        let mut arrival = Arrival::default();
        if side == Side::Fenced {
            self.table.remove(blocks);
            arrival.written.push(blocks.clone());
        } else {
            arrival.written = self.owed.remove(blocks);
            let taken: u64 = arrival.written.iter().map(Blocks::count).sum();
            arrival.work.sync = taken < blocks.count() && holds(Clause::DropSync);
        }
        let marks = self.mode == Mode::Collecting || holds(Clause::TargetMarked);
        if !arrival.written.is_empty() && marks {
            arrival.work.mark = self.is_no_prefix();
        }
        self.settle(side);
        Some(arrival)
    }

    /// The own log is durable up to what was written when the last block left P, and every copy that was
    /// taken is. If nothing is owed, that is stored now: after a restart the device is owed nothing, and
    /// consistent (D11).
    pub fn synced(&mut self) -> Work {
        let mark = self.owing && self.owed.is_empty();
        self.owing = !self.owed.is_empty();
        Work { mark, ..Work::default() }
    }
}
