//! Data on its way to the log: readable by anyone from publication until the log has it.
//!
//! The one unsafe idea here: a request's data is shared through [`crossbeam_epoch`], so that the
//! committer can take it away without waiting for a reader that is copying it. Buffers go back to
//! a pool: fresh memory costs more here than the write it is for.

use crate::queue::Cargo;
use crate::sync::Ordering;
use crate::unit::Position;
use crossbeam_epoch::{self as epoch, Atomic, Guard, Owned, Shared};
use crossbeam_queue::ArrayQueue;
use std::cell::Cell;
use std::sync::Arc;

/// Buffers at rest, by the power of two that they can hold.
#[derive(Debug)]
struct Pool {
    classes: Vec<ArrayQueue<Vec<u8>>>,
}

/// The smallest class holds a sector, the largest 1 MiB; larger ones are not kept.
const CLASS_MIN_BITS: u32 = 9;
const CLASS_MAX_BITS: u32 = 20;
/// Bytes kept at most in each class: a few commits' worth.
const CLASS_BYTES: usize = 4 << 20;

impl Pool {
    fn new() -> Pool {
        let class = |bits: u32| ArrayQueue::new((CLASS_BYTES >> bits).clamp(4, 1024));
        Pool { classes: (CLASS_MIN_BITS..=CLASS_MAX_BITS).map(class).collect() }
    }

    fn class(length: usize) -> usize {
        let bits = length.next_power_of_two().trailing_zeros();
        bits.saturating_sub(CLASS_MIN_BITS) as usize
    }

    fn take(&self, length: usize) -> Vec<u8> {
        let class = Pool::class(length);
        let kept = self.classes.get(class).and_then(ArrayQueue::pop);
        kept.unwrap_or_else(|| Vec::with_capacity(length.next_power_of_two()))
    }

    fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let whole = buffer.capacity().is_power_of_two();
        if let Some(class) = self.classes.get(Pool::class(buffer.capacity()))
            && whole
        {
            // A full class lets the buffer go.
            let _ = class.push(buffer);
        }
    }
}

/// One cell a place; a request's data is in the cell of its first position.
#[derive(Debug)]
pub struct Payloads {
    cells: Box<[Atomic<Vec<u8>>]>,
    pool: Arc<Pool>,
}

impl Payloads {
    /// As many cells as the queue has places.
    pub fn new(places: u64) -> Payloads {
        let cells = (0..places).map(|_| Atomic::null()).collect();
        Payloads { cells, pool: Arc::new(Pool::new()) }
    }

    fn cell(&self, first: Position) -> &Atomic<Vec<u8>> {
        &self.cells[(first & (self.cells.len() as u64 - 1)) as usize]
    }

    /// An empty buffer with room for `length` bytes.
    pub fn buffer(&self, length: usize) -> Vec<u8> {
        self.pool.take(length)
    }

    /// Takes `data` up for an insertion. It goes back to the pool if it never boards.
    pub fn boarding(&self, data: Vec<u8>) -> Boarding<'_> {
        let data = Box::into_raw(Box::new(data));
        Boarding { payloads: self, data, aboard: Cell::new(false) }
    }

    /// The data of the request at `first`, which has been published, unless the log has it
    /// already. `is_live` says whether `first` has not been freed.
    pub fn get<'g>(
        &self,
        first: Position,
        guard: &'g Guard,
        is_live: impl FnOnce() -> bool,
    ) -> Option<&'g [u8]> {
        let shared = self.cell(first).load(Ordering::Acquire, guard);
        // A later lap's insertion may have boarded the cell and be about to take its data back;
        // its place was given out after `first` was freed, so this look, after the load, tells.
        if !is_live() {
            return None;
        }
        // SAFETY: the pointer is this lap's, and `first` is published, so it will not leave the
        // cell but by `release`, which takes it out and defers the reclamation past every guard
        // that was alive then; `guard` was pinned before the load. Nobody writes to the data.
        unsafe { shared.as_ref() }.map(|data| &**data)
    }

    /// Takes the data of the request at `first` away; readers that hold it keep it.
    pub fn release(&self, first: Position, guard: &Guard) {
        let old = self.cell(first).swap(Shared::null(), Ordering::AcqRel, guard);
        if !old.is_null() {
            let pool = self.pool.clone();
            // SAFETY: `old` was the only pointer to it in any cell and is now in none (a void
            // insertion clears its cell before it takes another), so no new reader can reach it,
            // and when the deferred call runs no old one is left. This is the only place that
            // reclaims what is aboard, so it is owned exactly once. The closure owns its pool.
            unsafe { guard.defer_unchecked(move || pool.give(*old.into_owned().into_box())) };
        }
    }
}

impl Drop for Payloads {
    fn drop(&mut self) {
        let guard = epoch::pin();
        (0..self.cells.len() as u64).for_each(|cell| self.release(cell, &guard));
    }
}

/// Data about to be inserted: put into the cell of whatever position the insertion gets.
#[derive(Debug)]
pub struct Boarding<'a> {
    payloads: &'a Payloads,
    data: *mut Vec<u8>,
    aboard: Cell<bool>,
}

impl Boarding<'_> {
    /// The data back, after an insertion that did not happen. `None` once it is published.
    pub fn take_back(self) -> Option<Vec<u8>> {
        (!self.aboard.replace(true)).then(|| {
            // SAFETY: it was not aboard, so no cell holds the pointer, and whoever may have
            // loaded it while it boarded a position that was given up does not follow it (`get`):
            // it is uniquely ours again. `aboard` now keeps `drop` away from it.
            *unsafe { Box::from_raw(self.data) }
        })
    }
}

impl Cargo for Boarding<'_> {
    fn board(&self, first: Position) {
        // SAFETY: the pointer came from a `Box` of the same type, and is owned by the cell from
        // here on until `leave` or `release` takes it out.
        let owned = unsafe { Owned::from_raw(self.data) };
        self.aboard.set(true);
        self.payloads.cell(first).store(owned, Ordering::Release);
    }

    fn leave(&self, first: Position) {
        self.payloads.cell(first).store(Shared::null(), Ordering::Release);
        self.aboard.set(false);
    }
}

impl Drop for Boarding<'_> {
    fn drop(&mut self) {
        if !self.aboard.get() {
            // SAFETY: as in `take_back`.
            self.payloads.pool.give(*unsafe { Box::from_raw(self.data) });
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_keeps_what_was_released() {
        let payloads = Payloads::new(4);
        let mut data = payloads.buffer(512);
        data.resize(512, 7);
        let boarding = payloads.boarding(data);
        boarding.board(5);
        assert_eq!(boarding.take_back(), None);
        let guard = epoch::pin();
        let seen = payloads.get(5, &guard, || true).expect("aboard");
        payloads.release(5, &epoch::pin());
        assert_eq!(payloads.get(5, &guard, || true), None);
        assert_eq!(seen, [7; 512]);
    }

    #[test]
    fn what_did_not_board_comes_back() {
        let payloads = Payloads::new(4);
        let boarding = payloads.boarding(vec![1, 2, 3]);
        boarding.board(1);
        boarding.leave(1);
        assert_eq!(payloads.get(1, &epoch::pin(), || true), None);
        assert_eq!(boarding.take_back(), Some(vec![1, 2, 3]));
    }

    #[test]
    fn buffers_are_used_again() {
        let payloads = Payloads::new(4);
        let buffer = payloads.buffer(4096);
        let address = buffer.as_ptr();
        drop(payloads.boarding(buffer));
        let again = payloads.buffer(3000);
        assert_eq!(again.as_ptr(), address);
    }
}
