//! Data on its way to the log: readable by anyone from publication until the log has it.
//!
//! A request's data is in the cell of its first position. There are fewer cells than places: the
//! journal lets the queue's tail rise no further than by their number above the oldest position that
//! is neither void nor in the log. So a cell that comes round again holds nothing that the log has not.
//! It says whose data it holds: a position that finds another's finds its own in the log.
//!
//! A cell is a lock that no thread ever waits for, so that a stalled thread delays no other (R2):
//!
//! | thread | finds the cell locked by | and then |
//! |---|---|---|
//! | a host, about to publish | a reader that stalled since an earlier lap | gives its positions up, and takes the next ones |
//! | a reader | the commit or a later lap's host, once the record has a place in the log | looks at the record again |
//! | the commit, taking the data away | a reader that copies it | comes back at the next commit |
//!
//! Buffers are moved, never shared: out of a cell they go back to a pool, because fresh memory
//! costs more than the write that it is for. The kept buffers are bounded: those of the pool, those
//! that the log does not have yet, and one for each stalled reader. Cells are made when the tail first
//! comes near them, before places are taken.
#![forbid(unsafe_code)]

use crate::sync::RwLock;
use crate::unit::Position;
use crossbeam_queue::ArrayQueue;
use std::ops::Deref;
use std::sync::{OnceLock, TryLockError};

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

/// Cells that are made together (12 KiB).
const CHUNK: u64 = 256;

/// Data and the position whose it is; no data when the log has it.
#[derive(Debug)]
struct Cell {
    first: Position,
    data: Vec<u8>,
}

type Chunk = Box<[RwLock<Cell>]>;

/// The cells.
#[derive(Debug)]
pub struct Payloads {
    /// Cells of a chunk.
    each: u64,
    chunks: Box<[OnceLock<Chunk>]>,
    pool: Pool,
}

impl Payloads {
    /// So many cells at least, of which none is made.
    pub fn new(cells: u64) -> Payloads {
        let each = cells.clamp(1, CHUNK);
        let chunks = (0..cells.div_ceil(each)).map(|_| OnceLock::new()).collect();
        Payloads { each, chunks, pool: Pool::new() }
    }

    /// How many cells there are.
    pub fn cells(&self) -> u64 {
        self.each * self.chunks.len() as u64
    }

    fn chunk(&self, position: Position) -> &OnceLock<Chunk> {
        &self.chunks[(position / self.each) as usize % self.chunks.len()]
    }

    fn cell(&self, first: Position) -> Option<&RwLock<Cell>> {
        let chunk = self.chunk(first).get()?;
        Some(&chunk[(first % self.each) as usize])
    }

    /// Makes the cells of `next` and of as many positions behind it as are made together, if they are
    /// not there. The allocation is the only thing that takes time, and is done outside the lock.
    pub fn make(&self, next: Position) {
        for position in [next, next + self.each] {
            let chunk = self.chunk(position);
            if chunk.get().is_none() {
                let cell = |_| RwLock::new(Cell { first: 0, data: Vec::new() });
                let _ = chunk.set((0..self.each).map(cell).collect());
            }
        }
    }

    /// An empty buffer with room for `length` bytes.
    pub fn buffer(&self, length: usize) -> Vec<u8> {
        self.pool.take(length)
    }

    /// Takes back a buffer that is not needed any more.
    pub fn give(&self, buffer: Vec<u8>) {
        self.pool.give(buffer);
    }

    /// Puts `data` into the cell of `first`, which is about to be published, in exchange for what
    /// an earlier lap has left there. `false`: a reader is in the cell, or it is not made, and nothing
    /// has happened.
    pub fn board(&self, first: Position, data: &mut Vec<u8>) -> bool {
        let Some(mut cell) = self.cell(first).and_then(|cell| free(cell.try_write())) else {
            return false;
        };
        cell.first = first;
        std::mem::swap(&mut cell.data, data);
        true
    }

    /// The data of the request at `first`, which has been published, unless the log has it
    /// already.
    pub fn get(&self, first: Position) -> Option<impl Deref<Target = Vec<u8>> + '_> {
        let cell = free(self.cell(first)?.try_read())?;
        (cell.first == first && !cell.data.is_empty()).then_some(Data(cell))
    }

    /// Takes the data of the request at `first` away, which the log has; `false`: a reader is in the
    /// cell, and the caller comes back.
    pub fn release(&self, first: Position) -> bool {
        let Some(cell) = self.cell(first) else { return true };
        let Some(mut cell) = free(cell.try_write()) else { return false };
        if cell.first == first {
            let data = std::mem::take(&mut cell.data);
            drop(cell);
            self.pool.give(data);
        }
        true
    }
}

/// The data in a cell that is locked.
struct Data<G>(G);

impl<G: Deref<Target = Cell>> Deref for Data<G> {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0.data
    }
}

/// The value that a lock guards, unless it is held. Nothing in a cell is ever half changed, so a
/// panic of the thread that held it makes no difference.
fn free<T>(tried: Result<T, TryLockError<T>>) -> Option<T> {
    match tried {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Data of `length` bytes, all of them `value`, in a buffer of the pool.
    fn data(payloads: &Payloads, length: usize, value: u8) -> Vec<u8> {
        let mut data = payloads.buffer(length);
        data.resize(length, value);
        data
    }

    #[test]
    fn a_reader_keeps_what_it_reads_and_nobody_waits() {
        let payloads = Payloads::new(4);
        payloads.make(1);
        let mut first = data(&payloads, 512, 7);
        assert!(payloads.board(5, &mut first));
        assert!(first.is_empty());
        let seen = payloads.get(5).expect("aboard");
        assert!(!payloads.release(5), "released under a reader");
        let mut second = data(&payloads, 512, 8);
        assert!(!payloads.board(9, &mut second), "boarded under a reader");
        assert_eq!(second, [8; 512]);
        assert_eq!(*payloads.get(5).expect("aboard for every reader"), [7; 512]);
        assert_eq!(*seen, [7; 512]);
        drop(seen);
        assert!(payloads.release(5));
        assert!(payloads.get(5).is_none());
        assert!(payloads.board(9, &mut second));
        assert_eq!(*payloads.get(9).expect("aboard"), [8; 512]);
    }

    /// Uses that the engine has not: each buffer has one owner all the same.
    #[test]
    fn misuse_moves_buffers_and_frees_none_twice() {
        let payloads = Payloads::new(4);
        payloads.make(1);
        let mut buffer = data(&payloads, 512, 7);
        // The same data for two positions: the second gets what came out of the first.
        assert!(payloads.board(1, &mut buffer) && payloads.board(2, &mut buffer));
        assert!(payloads.get(2).is_none());
        // Out of a cell that is not released, by a later lap.
        assert!(payloads.board(5, &mut buffer));
        assert_eq!(buffer, [7; 512]);
        let address = buffer.as_ptr();
        payloads.give(buffer);
        for first in [1, 2, 1, 2] {
            assert!(payloads.release(first));
        }
        let again = [payloads.buffer(512), payloads.buffer(512)];
        assert_eq!(again.iter().filter(|buffer| buffer.as_ptr() == address).count(), 1);
    }

    /// A later position's data is in the cell of an earlier one's, and each finds its own or nothing.
    #[test]
    fn a_cell_says_whose_data_it_holds() {
        let payloads = Payloads::new(4);
        assert!(payloads.get(1).is_none() && payloads.release(1));
        assert!(!payloads.board(1, &mut vec![7]), "boarded where no cell was made");
        payloads.make(1);
        assert!(payloads.board(1, &mut vec![7]));
        assert!(payloads.get(5).is_none() && payloads.release(5));
        assert_eq!(*payloads.get(1).expect("aboard"), [7]);
        assert!(payloads.board(5, &mut vec![8]));
        assert!(payloads.get(1).is_none() && payloads.release(1));
        assert_eq!(*payloads.get(5).expect("aboard"), [8]);
    }

    #[test]
    fn cells_are_made_where_the_tail_comes() {
        let payloads = Payloads::new(4 * CHUNK);
        let made = || payloads.chunks.iter().filter(|chunk| chunk.get().is_some()).count();
        assert_eq!(made(), 0);
        payloads.make(3 * CHUNK - 1);
        assert_eq!(made(), 2);
        assert!(payloads.board(4 * CHUNK - 1, &mut vec![7]) && !payloads.board(5, &mut vec![7]));
        payloads.make(4 * CHUNK);
        assert_eq!(made(), 4);
    }

    #[test]
    fn buffers_are_used_again() {
        let payloads = Payloads::new(4);
        let buffer = payloads.buffer(4096);
        let address = buffer.as_ptr();
        payloads.give(buffer);
        let again = payloads.buffer(3000);
        assert_eq!(again.as_ptr(), address);
    }
}
