//! One device: its machine, and the ordered mode around it.

use super::*;

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Dev {
    pub(super) m: Differential,
    /// N.
    pub(super) n: Image,
    /// Own records that are not in N: of ordered mode, or admitted while a copy is written there.
    pub(super) l: Vec<Written>,
    pub(super) r: Vec<Written>,
    pub(super) sent: usize,
    pub(super) hi: u8,
    pub(super) need: u8,
    pub(super) pend: Image,
    pub(super) fenced: bool,
    pub(super) dead: bool,
    /// The newest own record of each block that a restart replays.
    pub(super) own: Image,
    /// The table as it is stored.
    pub(super) stored: Bits,
    /// All else that is stored.
    pub(super) kept: Durable,
    pub(super) side: Option<Image>,
    /// The copy that is being written to N.
    pub(super) landing: Option<Landing>,
    /// All own records, and the highest that the peer has: what recovery makes R of.
    pub(super) wrote: Vec<Written>,
    pub(super) acked: u8,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Landing {
    pub(super) round: Round,
    pub(super) said: u64,
    pub(super) blocks: Blocks,
    /// Goes to N; nothing, once it is there.
    pub(super) writes: Vec<Written>,
}

impl Dev {
    pub(super) fn side(&self) -> Side {
        if self.fenced { Side::Fenced } else { Side::Active }
    }

    pub(super) fn newest(&self, block: usize) -> u8 {
        let of_l = self.l.iter().filter(|&&(_, b)| b == block).map(|&(w, _)| w);
        of_l.max().unwrap_or(self.n[block])
    }

    /// The copy that is being written to N is there.
    pub(super) fn put(&mut self) {
        for (w, block) in self.landing.iter_mut().flat_map(|landing| landing.writes.drain(..)) {
            self.n[block] = w;
        }
    }

    /// L goes to N, behind the copy that is being written there.
    pub(super) fn reflect_all(&mut self) {
        self.put();
        for (w, block) in std::mem::take(&mut self.l) {
            self.n[block] = w;
        }
    }

    /// It was opened while catching up, and does not know what the peer owes.
    pub(super) fn forgot(&self) -> bool {
        self.m.mode() == Mode::Ordered && self.hi < self.need && self.pend == [0; 3]
    }

    pub(super) fn is_away(&self, block: usize) -> bool {
        match self.m.mode() {
            Mode::Ordered => self.pend[block] > self.newest(block),
            _ => self.m.owed().contains(at(block)),
        }
    }

    pub(super) fn ordered(&self) -> Ordered {
        let of = |records: &[Written]| records.iter().map(|&(_, block)| one(block)).collect();
        let is_ordered = self.m.mode() == Mode::Ordered;
        let owed = (0..3).filter(|&b| is_ordered && self.is_away(b)).map(one).collect();
        Ordered {
            unacknowledged: of(&self.r),
            unreflected: if is_ordered { of(&self.l) } else { Bits::default() },
            owed: (!self.forgot()).then_some(owed),
            newest: stamp(self.wrote.last().map_or(0, |&(w, _)| w)),
        }
    }

    pub(super) fn is_consistent(&self) -> bool {
        self.m.consistent() == Consistent::Yes
    }

    /// The table as it would be stored now.
    pub(super) fn table(&self) -> Bits {
        self.m.durable_table(EVERY.start, usize::MAX).0.into_iter().collect()
    }

    /// A superblock write: all that it stores, and the runs of the table.
    pub(super) fn store(&mut self) {
        self.kept = self.m.durable();
        self.stored = self.table();
    }

    pub(super) fn checkpoint(&mut self) {
        self.put();
        for block in 0..3 {
            if !self.l.iter().any(|&(_, b)| b == block) {
                self.own[block] = 0;
            }
        }
        self.stored = self.table();
    }
}
