//! `clk`, the highest sealed stamp (R2), and the gate that a fence closes (R3).
//!
//! While a device is active its own stamps all carry the tenure's epoch, so the sealed time alone
//! says what is sealed. Orderings are explained in [`super`].

use crate::sync::{AtomicU64, Ordering};
use crossbeam_utils::CachePadded;

/// The highest sealed time of the open tenure, and whether one is open.
#[derive(Debug)]
pub struct Clk {
    /// Highest sealed time, in nanoseconds. Written by each thread that seals, only ever raised.
    time: CachePadded<AtomicU64>,
    /// Epoch of the open tenure, 0 when closed. Written by takeover and fence only.
    open: CachePadded<AtomicU64>,
}

impl Default for Clk {
    fn default() -> Self {
        Clk::new()
    }
}

impl Clk {
    /// Nothing sealed, closed.
    pub fn new() -> Clk {
        Clk { time: CachePadded::new(AtomicU64::new(0)), open: CachePadded::new(AtomicU64::new(0)) }
    }

    /// Opens admission under `epoch`, which is above every epoch seen, with `time` sealed.
    pub fn open(&self, epoch: u64, time: u64) {
        self.time.store(time, Ordering::Relaxed);
        self.reopen(epoch, time);
    }

    /// Opens admission under `epoch`, which may have been open before, with `time` sealed and what
    /// was: a write of it may be about to raise the time.
    pub fn reopen(&self, epoch: u64, time: u64) {
        assert!(epoch > 0 && self.epoch() == 0, "one tenure at a time");
        self.raise(time);
        self.open.store(epoch, Ordering::Release);
    }

    /// Closes admission. The fence then touches the queue's tail, so that every later
    /// reservation sees the gate closed ([`super::Queue::horizon`]).
    pub fn close(&self) {
        self.open.store(0, Ordering::Release);
    }

    /// The open tenure's epoch, 0 when closed.
    pub fn epoch(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    /// The highest sealed time.
    pub fn time(&self) -> u64 {
        self.time.load(Ordering::Acquire)
    }

    /// Raises the sealed time to `time`, before the effect that seals can be seen.
    pub fn raise(&self, time: u64) {
        // Most seals find it raised already, and a load does not take the line from others.
        if self.time.load(Ordering::Acquire) < time {
            self.time.fetch_max(time, Ordering::AcqRel);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A write of the tenure raises the time between the look at it and the opening.
    #[test]
    fn reopening_does_not_lower_the_time() {
        let clk = Clk::new();
        clk.open(3, 50);
        clk.close();
        let seen = clk.time();
        clk.raise(100);
        clk.reopen(3, seen);
        assert_eq!((clk.epoch(), clk.time()), (3, 100));
        clk.close();
        clk.open(4, 0);
        assert_eq!((clk.epoch(), clk.time()), (4, 0));
    }
}
