//! D8: what of the state is durable, and what a restarted device makes of it.

use super::{Consistent, Differential, Mode, Round, Side};
use crate::format::superblock::Superblock;
use crate::table::bits::{Bits, Blocks, joined};
use crate::unit::{Block, Stamp};
use crate::weaken::{Clause, holds};

/// The state that is stored in the superblock; with the table and the own records above `cut` it is all
/// that a restart needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Durable {
    /// The mode.
    pub mode: Mode,
    /// The round.
    pub round: Round,
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

impl Durable {
    /// The state that `superblock` has.
    pub fn stored(superblock: &Superblock) -> Durable {
        let Superblock { mode, round, owed, lineage, last_active, cut, consat, usable, .. } =
            *superblock;
        Durable {
            mode,
            round,
            owing: owed,
            generation: lineage.0,
            last_active,
            cut,
            consistent: match consat {
                _ if !usable => Consistent::No,
                Stamp::ZERO => Consistent::Yes,
                stamp => Consistent::At(stamp),
            },
        }
    }

    /// Puts it into `superblock`, but for the lineage, whose unique id it does not have.
    pub fn put(&self, superblock: &mut Superblock) {
        superblock.mode = self.mode;
        superblock.round = self.round;
        superblock.last_active = self.last_active;
        superblock.cut = self.cut;
        Durable::put_marks(superblock, self.owing, self.consistent);
    }

    /// Puts only [`Differential::durable_marks`] into `superblock`.
    pub fn put_marks(superblock: &mut Superblock, owing: bool, consistent: Consistent) {
        superblock.owed = owing;
        superblock.usable = consistent != Consistent::No;
        superblock.consat = match consistent {
            Consistent::At(stamp) => stamp,
            Consistent::Yes | Consistent::No => Stamp::ZERO,
        };
    }
}

impl Differential {
    /// The state that a superblock write stores now, beside the table.
    pub fn durable(&self) -> Durable {
        let (owing, consistent) = self.durable_marks();
        Durable {
            mode: self.mode,
            round: self.round,
            owing,
            generation: self.generation,
            last_active: self.last_active,
            cut: self.cut,
            consistent,
        }
    }

    /// A piece of the table as it is stored, the blocks in flight included, from `from` on: about `most`
    /// rising runs, and where the next piece begins, unless this is the last.
    pub fn durable_table(&self, from: Block, most: usize) -> (Vec<Blocks>, Option<Block>) {
        let end = Block { volume: u32::MAX, number: u64::MAX };
        let mut piece: Vec<Blocks> = self.table.within(from..end).take(most).collect();
        let next = piece.last().filter(|_| piece.len() == most).map(|run| run.range().end);
        piece.extend(self.flying.within(from..next.unwrap_or(end)));
        (joined(piece), next)
    }

    /// Of [`Differential::durable`] only whether the peer may owe something, and whether N is a prefix: that
    /// it owes nothing, and so N is one, is durable only after a sync (D11).
    pub fn durable_marks(&self) -> (bool, Consistent) {
        let consistent = if self.awaits_sync() { Consistent::No } else { self.consistent };
        (self.owing, consistent)
    }

    /// A device that is opened again (D8), with the `table` that was stored. `implied` are the blocks of own
    /// records that are above `cut` and not of R; `volumes` are all blocks. If the peer may owe something, it owes all that has no bit here,
    /// until it has said its table.
    pub fn restore(
        stored: Durable,
        mut table: Bits,
        side: Side,
        implied: impl IntoIterator<Item = Blocks>,
        volumes: impl IntoIterator<Item = Blocks>,
    ) -> Differential {
        let Durable { mode, round, owing, generation, last_active, cut, mut consistent } = stored;
        let implied: Bits = implied.into_iter().collect();
        let has_written = !implied.is_empty();
        table.add(&implied);
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
        if has_written && owing && holds(Clause::MarkFirst) {
            // They go to N, and what was owed does not (D5).
            consistent = Consistent::No;
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
        restored.tell_all();
        restored.settle(side);
        restored
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::format::superblock::VolumeSpec;
    use crate::limits::Geometry;
    use crate::storage::Memory;
    use crate::superblock::SuperblockFile;
    use crate::{superblock, table_file};
    use std::sync::Arc;

    #[test]
    fn pieces_make_the_table_with_what_is_in_flight() {
        let run = |volume, start, end| Blocks { volume, numbers: start..end };
        let table = [run(0, 3, 4), run(0, 9, 14), run(2, 0, 5), run(2, 8, 9)];
        let stored = Durable { mode: Mode::Sending, ..Durable::default() };
        let table = table.into_iter().collect();
        let mut machine = Differential::restore(stored, table, Side::Active, [], []);
        machine.send(&run(0, 10, 12));
        machine.send(&run(2, 8, 9));
        let _ = machine.wrote(&run(0, 11, 12));
        for most in 1..9 {
            let (mut all, mut next) = (Vec::new(), Some(Block { volume: 0, number: 0 }));
            while let Some(from) = next {
                let (piece, following) = machine.durable_table(from, most);
                assert!(piece.windows(2).all(|pair| pair[0].range().end < pair[1].first()));
                all.extend(piece);
                next = following;
            }
            let expected = [run(0, 3, 4), run(0, 9, 14), run(2, 0, 5), run(2, 8, 9)];
            assert_eq!(Bits::from_iter(all), expected.into_iter().collect(), "by {most}");
        }
    }

    #[test]
    fn what_is_put_is_stored() {
        let storage = Arc::new(Memory::new());
        let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 20 }];
        superblock::create(&*storage, &Geometry::new(7, 1, volumes), true).unwrap();
        let file = SuperblockFile::open(storage.clone()).unwrap();
        let stamp = |time| Stamp { epoch: 1, time, sequence: 3 };
        let table = |mode| match mode {
            Mode::Ordered => Bits::default(),
            _ => Bits::from_iter([Blocks { volume: 0, numbers: 3..9 }]),
        };
        for (counter, mode) in
            (0..).zip([Mode::Collecting, Mode::Sending, Mode::Copying, Mode::Ordered])
        {
            for consistent in [Consistent::Yes, Consistent::At(stamp(8)), Consistent::No] {
                let durable = Durable {
                    mode,
                    round: Round { generation: 1, counter },
                    owing: consistent == Consistent::No,
                    generation: 1,
                    last_active: counter & 1,
                    cut: stamp(counter),
                    consistent,
                };
                let change = |superblock: &mut Superblock| {
                    superblock.clean = false;
                    durable.put(superblock);
                };
                file.update_with_table(table(mode).runs(), change).unwrap();
                let superblock = superblock::load(&*storage).unwrap();
                let runs = table_file::read(&*storage, &superblock).unwrap();
                assert_eq!(Bits::from_iter(runs), table(mode));
                assert_eq!(Durable::stored(&superblock), durable);
            }
        }
    }
}
