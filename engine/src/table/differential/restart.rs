//! D8: what of the state is durable, and what a restarted device makes of it.

use super::{Consistent, Differential, Mode, Round, Side};
use crate::table::bits::{Bits, Blocks};
use crate::unit::Stamp;
use crate::weaken::{Clause, holds};

/// The state that is stored; with the own records above `cut` it is all that a restart needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Durable {
    /// The mode.
    pub mode: Mode,
    /// The round.
    pub round: Round,
    /// The table, with the blocks in flight.
    pub table: Bits,
    /// Whether the peer may owe something.
    pub owing: bool,
    /// The lineage's number.
    pub generation: u64,
    /// The last tenure in which the device was active.
    pub last_active: u64,
    /// Own records up to it are not of R, and imply no bit.
    pub cut: Stamp,
    /// Whether N is a prefix.
    pub consistent: Consistent,
}

impl Differential {
    /// The state that a superblock write stores now: in size as the runs of the table.
    pub fn durable(&self) -> Durable {
        let mut table = self.table.clone();
        table.add(&self.flying);
        let (owing, consistent) = self.durable_marks();
        Durable {
            mode: self.mode,
            round: self.round,
            table,
            owing,
            generation: self.generation,
            last_active: self.last_active,
            cut: self.cut,
            consistent,
        }
    }

    /// Of [`Differential::durable`] only whether the peer may owe something, and whether N is a prefix: that
    /// it owes nothing, and so N is one, is durable only after a sync (D11).
    pub fn durable_marks(&self) -> (bool, Consistent) {
        let consistent = if self.awaits_sync() { Consistent::No } else { self.consistent };
        (self.owing, consistent)
    }

    /// A device that is opened again (D8). `implied` are the blocks of own records that are above `cut` and
    /// not of R; `volumes` are all blocks. If the peer may owe something, it owes all that has no bit here,
    /// until it has said its table.
    pub fn restore(
        stored: Durable,
        side: Side,
        implied: impl IntoIterator<Item = Blocks>,
        volumes: impl IntoIterator<Item = Blocks>,
    ) -> Differential {
        let Durable { mode, round, mut table, owing, generation, last_active, cut, consistent } =
            stored;
        implied.into_iter().for_each(|blocks| table.insert(blocks));
        let mut owed = Bits::default();
        let may_owe = owing || !holds(Clause::OwedBit);
        if side == Side::Active
            && mode == Mode::Collecting
            && may_owe
            && holds(Clause::OwedAtRestart)
        {
            owed = volumes.into_iter().collect();
            owed.subtract(&table);
        }
        let mut restored = Differential {
            mode,
            round,
            table,
            owed,
            owing,
            generation,
            last_active,
            cut,
            consistent,
            ..Differential::default()
        };
        restored.settle(side);
        restored
    }
}
