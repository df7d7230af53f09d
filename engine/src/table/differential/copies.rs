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
        if !self.table.covers(blocks) {
            self.table.insert(blocks.clone());
            self.telling.add(blocks);
        }
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
    pub fn may_send(&self, side: Side) -> bool {
        let in_turn = match self.mode {
            Mode::Ordered => false,
            Mode::Collecting => side == Side::Fenced || !holds(Clause::CollectFirst),
            Mode::Sending | Mode::Copying => side == Side::Active,
        };
        in_turn && self.is_open()
    }

    /// The next blocks to send, at most `most` of a run, from `from` on in the order of addresses: those
    /// with a bit, and of which no copy is in flight. The caller sends what is durable here only (D11).
    ///
    /// It looks at no run before `from`, and passes by the blocks behind it that were written again while
    /// in flight, a run in flight at a time: a caller goes on from where the last blocks ended.
    pub fn next_to_send(&self, side: Side, mut from: Block, most: u64) -> Option<Blocks> {
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
            return Some(Blocks { numbers: from.number..end, ..run });
        }
    }

    /// These blocks are about to be read and sent: their bits are cleared first, so that a write that
    /// comes in between sets them again (D2). Returns the number of the last announcement, which goes with the
    /// copy: what is told of these blocks later is not in it.
    pub fn send(&mut self, blocks: &Blocks) -> u64 {
        if instead::clears(true) {
            self.table.remove(blocks);
            self.telling.remove(blocks);
        }
        self.flying.insert(blocks.clone());
        if self.stage == Stage::Said && holds(Clause::LevelAgain) {
            self.stage = Stage::Open;
        }
        self.telling.said
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
            self.telling.remove(blocks);
        }
        self.table.missing(blocks)
    }

    /// Of blocks whose checksums were sent, the peer has another content of these: they are sent again, as
    /// copies (section 6).
    pub fn differ(&mut self, round: Round, blocks: &Blocks) {
        if round == self.round {
            let back: Bits = self.flying.remove(blocks).into_iter().collect();
            if holds(Clause::DifferingSent) {
                self.add_to_table(&back);
            }
        }
    }

    /// The blocks of a copy that go to N; nothing, if the copy is of another round (D3). The active device
    /// takes what it is owed, the fenced one all of it (D5).
    ///
    /// A copy is taken in so: the lock under which N is written is taken, which reflection, checkpoints
    /// and other steps that let records go to N or give them up wait for; these blocks are looked up; if
    /// there are any, the work of [`Differential::marks_before`] is done; they are written; then comes
    /// [`Differential::arrive`]. An own write that takes a block out of P meanwhile is reflected later, over
    /// the copy.
    pub fn wants(&self, side: Side, round: Round, blocks: &Blocks) -> Option<Vec<Blocks>> {
        let is_old = holds(Clause::RoundCounts) && round != self.round;
        if is_old || self.mode == Mode::Ordered {
            return None;
        }
        Some(match side {
            Side::Fenced => vec![blocks.clone()],
            Side::Active => self.owed.within(blocks.range()).collect(),
        })
    }

    /// Some of a copy is about to be written to N: the work of before, which stores that N is no prefix
    /// (D6, D11).
    pub fn marks_before(&mut self, side: Side, round: Round) -> Work {
        let is_old = holds(Clause::RoundCounts) && round != self.round;
        let takes = match self.mode {
            Mode::Ordered => false,
            Mode::Collecting => side == Side::Fenced || !self.owed.is_empty(),
            Mode::Sending | Mode::Copying => side == Side::Fenced && holds(Clause::TargetMarked),
        };
        let mark = takes && !is_old && self.is_no_prefix();
        Work { mark, ..Work::default() }
    }

    /// The blocks of a copy that [`Differential::wants`] named are in N, durably before the
    /// acknowledgement; nothing, if the copy is of another round by now (D3). A block that this device has
    /// written itself meanwhile counts as dropped, though the copy is in N: the own write is durable
    /// before the acknowledgement (D5, D11). `said` is the number of the announcement that came with it.
    pub fn arrive(
        &mut self,
        side: Side,
        round: Round,
        said: u64,
        blocks: &Blocks,
    ) -> Option<Arrival> {
        let written = self.wants(side, round, blocks)?;
        let from = if side == Side::Fenced { &mut self.table } else { &mut self.owed };
        written.iter().for_each(|run| drop(from.remove(run)));
        if side == Side::Fenced {
            self.telling.remove(blocks);
        }
        self.told.arrived(blocks, said);
        let taken: u64 = written.iter().map(Blocks::count).sum();
        let sync = taken < blocks.count() && holds(Clause::DropSync);
        self.settle(side);
        Some(Arrival { work: Work { sync, ..Work::default() }, written })
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
