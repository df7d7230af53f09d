//! A generator of numbers that a seed determines (SplitMix64; Steele et al., OOPSLA 2014), or that
//! a fuzzer's bytes do.

use std::ops::Range;

pub struct Random {
    seed: u64,
    /// The rest of the bytes that are to be used instead.
    bytes: Option<Vec<u8>>,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { seed, bytes: None }
    }

    /// Chooses what `bytes` say, from the first on, and the first of everything after their end.
    pub fn scripted(bytes: &[u8]) -> Random {
        Random { seed: 0, bytes: Some(bytes.iter().rev().copied().collect()) }
    }

    /// Whether a script has come to its end.
    pub fn is_spent(&self) -> bool {
        self.bytes.as_ref().is_some_and(Vec::is_empty)
    }

    pub fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ self.seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn within(&mut self, range: Range<u64>) -> u64 {
        let span = range.end - range.start;
        let number = match &mut self.bytes {
            None => self.next(),
            // As few bytes as it takes.
            Some(bytes) => (0..(64 - span.leading_zeros()).div_ceil(8))
                .fold(0, |number, _| number << 8 | u64::from(bytes.pop().unwrap_or(0))),
        };
        range.start + number % span
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.within(0..n) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.within(0..from.len() as u64) as usize].clone()
    }
}
