//! Clocks: skewed, coarse, equal, stepping back. Time moves when the run moves it.

use super::random::Random;
use crate::clock::Clock;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// When every run begins, in nanoseconds since 1970.
const BEGIN: u64 = 1_700_000_000_000_000_000;

#[derive(Debug)]
pub(super) struct SimClock {
    monotonic: AtomicU64,
    /// A signed number's bits.
    offset: AtomicU64,
    /// Wall time comes in steps of this.
    grain: u64,
    /// Where the next random number comes from, so that a run can be repeated.
    entropy: AtomicU64,
}

impl SimClock {
    /// The clock of the machine `side`.
    pub fn new(side: usize, offset: i64, grain: u64) -> SimClock {
        SimClock {
            monotonic: AtomicU64::new(0),
            offset: AtomicU64::new(offset as u64),
            grain,
            entropy: AtomicU64::new((side as u64) << 63),
        }
    }

    pub fn pass(&self, ns: u64) {
        self.monotonic.fetch_add(ns, Relaxed);
    }

    /// The wall clock is set forward or back.
    pub fn step(&self, ns: i64) {
        self.offset.fetch_add(ns as u64, Relaxed);
    }
}

impl Clock for SimClock {
    fn wall(&self) -> u64 {
        let now = BEGIN + self.monotonic.load(Relaxed);
        now.saturating_add_signed(self.offset.load(Relaxed) as i64) / self.grain * self.grain
    }

    fn monotonic(&self) -> u64 {
        self.monotonic.load(Relaxed)
    }

    fn entropy(&self) -> std::io::Result<u64> {
        Ok(Random::new(self.entropy.fetch_add(1, Relaxed)).next())
    }
}
