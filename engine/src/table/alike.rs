//! Blocks with a bit that the peer may have all the same: of those a checksum travels first (LADDER section 6).
//! It is a guess, and volatile: a block that is in it wrongly costs a checksum, one that is not costs a copy.

use super::bits::{Bits, Blocks};

/// Most runs that are kept: 4 MiB or so.
const RUNS_MAX: usize = 65_536;

/// So many blocks are asked for at first, whatever comes of it.
const TRIED: u64 = 1024;

/// So many blocks are asked for before the oldest count half.
const RECENT: u64 = 8192;

/// Checksums go on while of so many at least one is equal; else of so many runs one goes by checksum.
const FAIR: u64 = 16;

/// The guess, and how good it was of late.
#[derive(Debug, Default)]
pub struct Alike {
    blocks: Bits,
    /// Blocks whose checksums were sent.
    asked: u64,
    /// Those of them that the peer did not have.
    differing: u64,
    /// Runs passed over since the last that went by checksum.
    passed: u64,
}

impl Alike {
    /// As after a restart: the peer may have `blocks`.
    pub fn from(blocks: &Bits) -> Alike {
        let mut alike = Alike::default();
        alike.expect(blocks);
        alike
    }

    /// The peer may have `blocks`.
    pub fn expect(&mut self, blocks: &Bits) {
        let room = RUNS_MAX.saturating_sub(self.blocks.run_count());
        self.blocks.add(&blocks.runs().take(room).collect());
    }

    /// The blocks.
    #[cfg(feature = "simulate")]
    pub fn blocks(&self) -> &Bits {
        &self.blocks
    }

    /// A host has written `blocks`: the peer has them no more.
    pub fn wrote(&mut self, blocks: &Blocks) {
        if !self.blocks.is_empty() && self.blocks.run_count() < RUNS_MAX {
            self.blocks.remove(blocks);
        }
    }

    /// Another round, or another connection: what was found before counts no more.
    pub fn begin(&mut self) {
        (self.asked, self.differing, self.passed) = (0, 0, 0);
    }

    /// Of `blocks`, which are about to be sent, those whose checksums go first. No block is taken twice.
    pub fn take(&mut self, blocks: &Blocks) -> Vec<Blocks> {
        if self.blocks.is_empty() {
            return Vec::new();
        }
        let taken = self.blocks.remove(blocks);
        let is_fair = self.asked < TRIED || self.differing * FAIR <= self.asked * (FAIR - 1);
        if taken.is_empty() || !is_fair && self.passed + 1 < FAIR {
            self.passed += u64::from(!taken.is_empty());
            return Vec::new();
        }
        self.passed = 0;
        self.asked += taken.iter().map(Blocks::count).sum::<u64>();
        if self.asked > RECENT {
            (self.asked, self.differing) = (self.asked / 2, self.differing / 2);
        }
        taken
    }

    /// The peer did not have so many blocks whose checksums it was sent.
    pub fn differ(&mut self, blocks: u64) {
        self.differing = (self.differing + blocks).min(self.asked);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn run(numbers: std::ops::Range<u64>) -> Blocks {
        Blocks { volume: 0, numbers }
    }

    /// Sends runs of 64 blocks from `from` on; returns how many of them went by checksum, of which
    /// `differ` of 64 blocks differ.
    fn by_checksum(alike: &mut Alike, from: u64, runs: u64, differ: u64) -> u64 {
        let sent = (0..runs).map(|n| {
            let taken = alike.take(&run((from + n) * 64..(from + n + 1) * 64));
            alike.differ(if taken.is_empty() { 0 } else { differ });
            taken.len() as u64
        });
        sent.sum()
    }

    #[test]
    fn checksums_stop_where_all_differ_and_come_back_where_all_is_equal() {
        let mut alike = Alike::default();
        alike.expect(&Bits::from_iter([run(0..1 << 20)]));
        // One of 16 is enough.
        assert_eq!(by_checksum(&mut alike, 0, 100, 60), 100);
        assert!(by_checksum(&mut alike, 100, 1600, 64) < 250);
        assert!(by_checksum(&mut alike, 2000, 200, 0) > 100);
        alike.begin();
        assert_eq!(alike.take(&run(0..64)), [], "taken before");
        assert_eq!(by_checksum(&mut alike, 4000, 10, 64), 10);
    }

    #[test]
    fn what_a_host_writes_is_not_alike() {
        let mut alike = Alike::default();
        alike.expect(&Bits::from_iter([run(0..8)]));
        alike.wrote(&run(2..3));
        assert_eq!(alike.take(&run(0..8)), [run(0..2), run(3..8)]);
    }

    /// Memory has a bound, however hosts write.
    #[test]
    fn few_runs_are_kept() {
        let mut alike = Alike::default();
        alike.expect(&Bits::from_iter([run(0..1 << 20)]));
        (0..1 << 19).for_each(|n| alike.wrote(&run(2 * n..2 * n + 1)));
        alike
            .expect(&(0..1 << 19).map(|n| run((2 << 20) + 2 * n..(2 << 20) + 2 * n + 1)).collect());
        assert_eq!(alike.blocks.run_count(), RUNS_MAX);
    }
}
