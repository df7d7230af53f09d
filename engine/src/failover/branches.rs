//! Two histories that have parted (D10): the part of a device's history that the other one may not have, for the
//! operator who chooses between them.

use crate::device::Device;
use crate::error::Result;
use crate::sync::lock;
use crate::unit::{Blocks, Mode, Stamp};

/// The part of a device's history that its peer may not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BranchSheet {
    /// The device.
    pub device: u64,
    /// Its lineage: number and unique id.
    pub lineage: (u64, u64),
    /// The highest tenure that it granted or held.
    pub epoch: u64,
    /// Its newest own record; zero: none.
    pub newest: Stamp,
    /// The blocks, in rising order.
    pub blocks: Vec<Blocks>,
    /// Their size, in bytes: whole blocks, though zeros have none.
    pub bytes: u64,
    /// The oldest of the writes that are still records in the log; `None` if none is.
    pub oldest: Option<Stamp>,
    /// Whether there are no others: if not, bits tell of them, and not when they were.
    pub has_all_records: bool,
}

impl BranchSheet {
    /// Wall time of the first write, in nanoseconds since 1970; `None` if there was none, or it is not known.
    pub fn first_at(&self) -> Option<u64> {
        self.oldest.filter(|_| self.has_all_records).map(|stamp| stamp.time)
    }

    /// Wall time of the last write, in nanoseconds since 1970; `None` if there was none.
    pub fn last_at(&self) -> Option<u64> {
        let is_written = !self.blocks.is_empty() && self.newest != Stamp::ZERO;
        is_written.then_some(self.newest.time)
    }
}

impl Device {
    /// The part of this device's history that its peer may not have: all of its branch, where two have parted
    /// ([`crate::Closed::resolve`]). It takes the longer the more blocks they are.
    ///
    /// # Errors
    /// [`crate::Kind::Halted`].
    pub fn branch(&self) -> Result<BranchSheet> {
        self.check_halted()?;
        let mut tables = lock(&self.tables);
        self.sequence(&mut tables);
        let (differing, has_all_records) = {
            let machine = self.peer.machine.read();
            // R is never freed before the peer has it.
            (machine.differing(&self.ordered(&tables)), machine.mode() == Mode::Ordered)
        };
        let (queue, acked) = (&self.own.journal.queue, tables.out.acked());
        let live = (queue.freed()..queue.tail()).filter(|&at| queue.settled(at) == Some(true));
        let oldest = live.map(|at| queue.record(at).stamp).filter(|&stamp| stamp > acked).min();
        let newest = tables.newest_own();
        drop(tables);
        let superblock = self.superblock.get();
        Ok(BranchSheet {
            device: superblock.device,
            lineage: superblock.lineage,
            epoch: superblock.epoch,
            newest,
            bytes: differing.blocks() * u64::from(superblock.block_size),
            blocks: differing.runs().collect(),
            oldest: oldest.filter(|_| !differing.is_empty()),
            has_all_records,
        })
    }
}
