//! Data on its way to the log: readable by anyone from publication until the log has it.
//!
//! The one unsafe idea here: a request's data is shared through [`crossbeam_epoch`], so that the
//! committer can take it away without waiting for a reader that is copying it.

use crate::queue::Cargo;
use crate::unit::Position;
use crossbeam_epoch::{self as epoch, Atomic, Guard, Owned, Shared};
use std::sync::atomic::Ordering;

/// One cell a place; a request's data is in the cell of its first position.
#[derive(Debug)]
pub struct Payloads {
    cells: Box<[Atomic<Box<[u8]>>]>,
}

impl Payloads {
    /// As many cells as the queue has places.
    pub fn new(places: u64) -> Payloads {
        Payloads { cells: (0..places).map(|_| Atomic::null()).collect() }
    }

    fn cell(&self, first: Position) -> &Atomic<Box<[u8]>> {
        &self.cells[(first & (self.cells.len() as u64 - 1)) as usize]
    }

    /// Takes `data` up for an insertion. It is freed with the boarding if it never boards.
    pub fn boarding(&self, data: Box<[u8]>) -> Boarding<'_> {
        Boarding { payloads: self, data: Owned::new(data).into_shared_raw(), aboard: false.into() }
    }

    /// The data of the request at `first`, unless the log has it already.
    pub fn get<'g>(&self, first: Position, guard: &'g Guard) -> Option<&'g [u8]> {
        let shared = self.cell(first).load(Ordering::Acquire, guard);
        // SAFETY: a non-null pointer in a cell comes from `Boarding` and is destroyed only by
        // `release`, which takes it out first and defers the destruction past every guard that
        // was alive then; `guard` was pinned before the load. Nobody writes to the data.
        unsafe { shared.as_ref() }.map(|data| &**data)
    }

    /// Takes the data of the request at `first` away; readers that hold it keep it.
    pub fn release(&self, first: Position, guard: &Guard) {
        let old = self.cell(first).swap(Shared::null(), Ordering::AcqRel, guard);
        if !old.is_null() {
            // SAFETY: `old` was the only pointer to it in any cell and is now in none (a void
            // insertion clears its cell before it takes another), so no new reader can reach it,
            // and this is the only place that destroys what is aboard.
            unsafe { guard.defer_destroy(old) };
        }
    }
}

impl Drop for Payloads {
    fn drop(&mut self) {
        let guard = epoch::pin();
        for cell in &self.cells {
            let old = cell.swap(Shared::null(), Ordering::AcqRel, &guard);
            if !old.is_null() {
                // SAFETY: as in `release`; `&mut self` says that no reader is left at all.
                unsafe { guard.defer_destroy(old) };
            }
        }
    }
}

/// Data about to be inserted: put into the cell of whatever position the insertion gets.
#[derive(Debug)]
pub struct Boarding<'a> {
    payloads: &'a Payloads,
    data: *mut Box<[u8]>,
    aboard: std::cell::Cell<bool>,
}

trait IntoSharedRaw {
    fn into_shared_raw(self) -> *mut Box<[u8]>;
}

impl IntoSharedRaw for Owned<Box<[u8]>> {
    fn into_shared_raw(self) -> *mut Box<[u8]> {
        Box::into_raw(self.into_box())
    }
}

impl Boarding<'_> {
    /// The data back, after an insertion that did not happen. `None` once it is published.
    pub fn take_back(self) -> Option<Box<[u8]>> {
        if self.aboard.get() {
            return None;
        }
        // SAFETY: not aboard, so no cell holds the pointer and no reader could ever have had it:
        // it is uniquely ours again. `forget` keeps `drop` from freeing it a second time.
        let data = unsafe { Box::from_raw(self.data) };
        std::mem::forget(self);
        Some(*data)
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
            drop(unsafe { Box::from_raw(self.data) });
        }
    }
}
