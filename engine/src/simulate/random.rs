//! Numbers that a seed determines (SplitMix64; Steele et al., OOPSLA 2014): written out here, so
//! that no library's next version changes what a seed means.

use std::ops::Range;

#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The numbers of the `index`-th of many things of one kind.
    pub fn of(seed: u64, kind: u64, index: u64) -> Random {
        let mut random = Random(seed ^ kind.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.0 = random.next() ^ index.wrapping_mul(0xa076_1d64_78bd_642f);
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.within(0..end as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.within(0..n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
