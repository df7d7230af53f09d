//! How long things took, counted in powers of two: cheap enough for every request of a host.

use std::sync::atomic::{AtomicU64, Ordering};

/// The least bound is 2^13 ns, 8 µs.
const FIRST: u32 = 13;

/// The greatest one is 2^35 ns, 34 s.
const BOUNDS: usize = 23;

/// Counts of times, by their length.
#[derive(Debug, Default)]
pub struct Latency {
    /// Of each bound, those that it is the least one of; behind them, those above all.
    counts: [AtomicU64; BOUNDS + 1],
    sum_ns: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// In seconds: each bound, infinity last, and how many were no longer, but longer than the one before.
    pub buckets: Vec<(f64, u64)>,
    /// In seconds.
    pub sum: f64,
    /// All of them.
    pub count: u64,
}

impl Latency {
    /// One more, of so many nanoseconds.
    pub fn add(&self, ns: u64) {
        let power = u64::BITS - ns.saturating_sub(1).leading_zeros();
        let at = (power.saturating_sub(FIRST) as usize).min(BOUNDS);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// The counts now.
    pub fn read(&self) -> Reading {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let bounds = (FIRST..).map(|power| (1u64 << power) as f64 / 1e9).take(BOUNDS);
        let buckets: Vec<_> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Reading { buckets, sum: self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_below_its_least_bound() {
        let latency = Latency::default();
        let times = [0, 1, 8_192, 8_193, 1 << 35, (1 << 35) + 1, 1 << 60];
        times.iter().for_each(|&ns| latency.add(ns));
        let read = latency.read();
        let of = |bound: u64| {
            let bound = bound as f64 / 1e9;
            read.buckets.iter().find(|bucket| bucket.0 == bound).unwrap().1
        };
        assert_eq!((of(1 << 13), of(1 << 14), of(1 << 15), of(1 << 35)), (3, 1, 0, 1));
        assert_eq!((read.buckets.last(), read.count), (Some(&(f64::INFINITY, 2)), 7));
        assert_eq!(read.sum, times.iter().sum::<u64>() as f64 / 1e9);
    }
}
