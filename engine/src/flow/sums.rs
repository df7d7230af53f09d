//! Checksums first (LADDER section 6): a block that the peer may have all the same goes as a copy without its
//! data, in the same order and under the same locks. Equal content in N counts as that copy; of other content
//! the block is sent again, as a copy.

use super::copy::Arrived;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::format::content_checksum;
use crate::format::frame::SUMS_FEATURE;
use crate::salvage::Incoming;
use crate::storage::Storage;
use crate::sync::lock;
use crate::table::bits::Bits;
use crate::unit::{Block, Blocks, Extent, Round};
use crate::weaken::{Clause, holds};
use std::io::IoSlice;

impl Device {
    /// Whether both programs know checksums in place of copies.
    pub(crate) fn agrees_on_sums(&self) -> bool {
        let peer = lock(&self.failover).connection.peer();
        peer.is_some_and(|peer| peer.features & SUMS_FEATURE != 0)
    }

    fn check_sums_agreed(&self) -> Result<()> {
        match self.agrees_on_sums() {
            true => Ok(()),
            false => {
                let what = "a frame is of checksums in place of copies (wire feature 16), which was not agreed";
                Err(Error::new(Kind::Protocol, what))
            }
        }
    }

    /// Checksums of blocks have come: those that N has are taken in as copies are, the others asked for. The
    /// caller holds `reflecting`, and sees to it that no mode comes or goes meanwhile.
    ///
    /// # Errors
    /// [`Kind::Protocol`] if they cannot be, [`Kind::Halted`].
    pub(crate) fn receive_sums(
        &self,
        arrived: &mut Arrived,
        (mut round, said): (Round, u64),
        blocks: &[Blocks],
        sums: &[u128],
    ) -> Result<()> {
        self.check_sums_agreed()?;
        self.check_blocks(blocks)?;
        let side = self.side();
        self.end_image()?;
        self.write_back_image()?;
        self.mark_first()?;
        if !holds(Clause::SumsOfRound) {
            round = self.peer.machine.read().round();
        }
        let mut sums = sums.iter();
        let mut buffer = vec![0; self.geometry.block_size as usize];
        for run in blocks {
            let Some(wanted) = self.peer.machine.read().wants(side, round, run) else {
                return Ok(());
            };
            let wanted = Bits::from_iter(wanted);
            let (mut equal, mut differing) = (Bits::default(), Bits::default());
            for (block, &sum) in run.each().zip(&mut sums) {
                if wanted.contains(block) {
                    let is_equal = self.has_content(block, sum, &mut buffer)?;
                    let of = if is_equal { &mut equal } else { &mut differing };
                    of.insert(Extent::from(block).into());
                }
            }
            // The peer has their content, too: a block that is not wanted has yet to be saved.
            let with = (&*self.storage as &dyn Storage, &self.volumes, self.clock.wall());
            let settled = equal.runs().map(|run| (run, Incoming::Same));
            self.peer.saving.before(with, settled)?;
            for settled in differing.missing(run).runs() {
                self.copy_arrived(arrived, (round, said), &settled)?;
            }
            arrived.ask_for(round, &differing);
        }
        Ok(())
    }

    /// Whether N has the content that `sum` is of, which then counts as written just now (D11).
    fn has_content(&self, block: Block, sum: u128, buffer: &mut [u8]) -> Result<bool> {
        // A block that cannot be read is copied.
        if self.volumes.read(block, buffer).is_err() || content_checksum(buffer) != sum {
            return Ok(false);
        }
        if !holds(Clause::EqualSync) {
            return Ok(true);
        }
        if self.recovery().clean && self.peer.machine.had_all() {
            self.volumes.count_as_written(block);
        } else {
            // After a failed sync it may be in a cache only: copies that an earlier process left are written
            // anew, even if one in between was closed cleanly.
            self.volumes.write(block, &[IoSlice::new(buffer)]).map_err(|e| self.halt(e))?;
        }
        Ok(true)
    }

    /// The peer has another content of these blocks than the checksums were of.
    pub(crate) fn receive_differing(&self, round: Round, blocks: &[Blocks]) -> Result<()> {
        self.check_sums_agreed()?;
        {
            let mut machine = self.peer.machine.write();
            let before = machine.flying().blocks();
            blocks.iter().for_each(|run| machine.differ(round, run));
            self.peer.machine.alike().differ(before - machine.flying().blocks());
            self.peer.machine.change(&machine);
        }
        self.wakes.ship.ring();
        Ok(())
    }
}
