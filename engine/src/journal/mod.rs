//! A log with its queue: the remote unreflected volume and table (own log, R), and the local ones
//! (received log, L).
//!
//! A record is published in the queue and written to the log in batches, one `pwritev` each, with
//! one `sync` a commit. The same type holds what both logs share; [`own`] adds host writes and
//! group commit, [`recv`] adds what arrives.

mod judge;
pub mod own;
#[cfg(not(loom))]
mod payload;
#[cfg(loom)]
pub mod payload; // for the models
pub mod recv;
pub mod ring;
pub mod scan;

use crate::error::{Error, Kind, Result};
use crate::format::batch::{Header, Identity, Log, batch_bytes};
use crate::format::superblock::{LogState, Superblock};
use crate::format::{PAGE, Row, data_checksum};
use crate::limits::{Durability, Geometry};
use crate::queue::{Content, NO_PLACE, Queue, Record};
use crate::storage::{FileName, Storage};
use crate::sync::{AtomicU64, Ordering::*, fence};
use crate::unit::{Position, Stamp};
use crate::weaken::{Clause, holds};
use ring::Ring;
use scan::Found;
use std::io::IoSlice;
use std::sync::Arc;

impl From<&Record> for Row {
    fn from(r: &Record) -> Self {
        Row {
            stamp: r.stamp,
            block: r.block,
            level: r.level,
            checksum: r.checksum,
            index: r.index,
            count: r.count,
            has_data: r.content == Content::Data,
        }
    }
}

/// The part that the two logs share.
pub(crate) struct Journal {
    pub queue: Queue,
    pub file: FileName,
    pub identity: Identity,
    /// The generation of the superblock at this opening of the device.
    pub opened: u64,
    pub storage: Arc<dyn Storage>,
    pub block_size: usize,
    batch_rows: usize,
    place_bytes: u64,
    unsynced_max: u64,
    /// Bytes held in the log, for the status, which takes no lock of the log. Relaxed: a figure.
    used: AtomicU64,
    /// The same, less a block for each position that the log's writer has collected: modulo 2^64, so
    /// that with a block for each position of the tail it is what is held and what is to come.
    /// Release/Acquire: the tail is read behind it.
    filled: AtomicU64,
    /// Most bytes that may be held.
    bytes_max: u64,
}

/// A journal's fill that leaves no room.
pub(crate) const FULL: u64 = 1_000_000_000;

/// The record of `row`, whose data, if it has any, stands at byte `place` of its log; `written_at` is on the
/// monotonic clock. Its position is the caller's to say.
pub(crate) fn record_of(row: &Row, place: u64, written_at: u64) -> Record {
    Record {
        position: 0,
        stamp: row.stamp,
        block: row.block,
        level: row.level,
        content: if row.has_data { Content::Data } else { Content::Zero },
        checksum: row.checksum,
        index: row.index,
        count: row.count,
        written_at,
        place: if row.has_data { place } else { NO_PLACE },
        was_reflected: false,
    }
}

impl Journal {
    fn new(
        superblock: &Superblock,
        geometry: &Geometry,
        log: Log,
        opened: u64,
        batch_records_max: usize,
        storage: Arc<dyn Storage>,
    ) -> Result<Self> {
        let (file, _) = scan::log_of(superblock, log);
        let salt = (superblock.group as u64) ^ superblock.device.rotate_left(32);
        let places = geometry.places() as usize;
        let refused = || {
            let (bytes, size) = (geometry.journal_bytes, geometry.block_size);
            let what = format!(
                "a journal of {bytes} bytes with blocks of {size} takes {} bytes of address space, and the \
                 operating system refuses them: raise its limit (`ulimit -v`, `vm.overcommit_memory`), \
                 or make devices with smaller journals",
                Queue::bytes(places)
            );
            Error::new(Kind::Config, what)
        };
        Ok(Journal {
            queue: Queue::new(places, 1, salt).ok_or_else(refused)?,
            file,
            identity: Identity::of(superblock, log),
            opened,
            storage,
            block_size: geometry.block_size as usize,
            batch_rows: geometry.batch_rows().min(batch_records_max).max(1),
            place_bytes: geometry.place_bytes(),
            unsynced_max: geometry.unsynced_bytes_max(),
            used: AtomicU64::new(0),
            filled: AtomicU64::new(0),
            bytes_max: geometry.journal_bytes - geometry.log_slack(),
        })
    }

    /// Copies a record's data from the log. `false`: it has been freed meanwhile; look again.
    pub fn read_logged(&self, record: &Record, buf: &mut [u8]) -> Result<bool> {
        debug_assert!(record.place != NO_PLACE);
        let read = self.storage.read(self.file, record.place, buf);
        // The read stays before the looks whether the record is gone.
        fence(Acquire);
        if record.position < self.queue.freed() {
            return Ok(false);
        }
        let place = record.place;
        let name = || format!("reading record {} at {} of {}", record.stamp, place, self.file);
        read.map_err(|e| Error::storage(name(), e))?;
        // The bytes are the record's if they have its checksum, whatever moved meanwhile.
        let found = data_checksum(buf);
        if found == record.checksum {
            return Ok(true);
        }
        if record.position < self.queue.freed() {
            return Ok(false);
        }
        Err(Error::new(
            Kind::Damaged,
            format!("{}: checksum is {found:016x}, not {:016x}", name(), record.checksum),
        ))
    }

    /// Writes one batch behind the last: `rows`, the first of which follows `previous`, with the
    /// blocks of those that have any. `last` is their highest queue position. Returns the byte
    /// offset of the first block.
    fn write_batch(
        &self,
        tail: &mut Tail,
        previous: Stamp,
        rows: Vec<Row>,
        blocks: &[&[u8]],
        last: Position,
    ) -> Result<u64> {
        let size = self.block_size as u64;
        let bytes = batch_bytes(blocks.len() as u64, size);
        if tail.unsynced + bytes > self.unsynced_max && tail.unsynced > 0 {
            self.sync_all(tail)?;
        }
        tail.unsynced += bytes;
        let (offset, sequence) = tail.ring.place(bytes, rows.len() as u64, last);
        let Journal { identity, opened, .. } = *self;
        let synced = tail.synced;
        let header = Header { identity, sequence, synced, offset, opened, previous, rows };
        let page = header.encode(size);
        let padding = bytes - PAGE - blocks.len() as u64 * size;
        let mut slices = Vec::with_capacity(blocks.len() + 2);
        slices.push(IoSlice::new(&page[..]));
        slices.extend(blocks.iter().map(|block| IoSlice::new(block)));
        slices.push(IoSlice::new(&ZEROS[..padding as usize]));
        let written = self.storage.write(self.file, offset, &slices);
        let name = || format!("writing a batch at {offset} of {}", self.file);
        written.map_err(|e| Error::storage(name(), e))?;
        Ok(offset + PAGE)
    }

    /// Makes every batch written so far durable.
    fn sync(&self, tail: &mut Tail, durability: Durability) -> Result<()> {
        let clause = match self.identity.log {
            Log::Own => Clause::FlushSync,
            Log::Recv => Clause::ReceiveSync,
        };
        if durability == Durability::Never || !holds(clause) {
            return Ok(());
        }
        self.sync_all(tail)
    }

    /// As [`Journal::sync`], whatever the durability.
    fn sync_all(&self, tail: &mut Tail) -> Result<()> {
        let synced = self.storage.sync(self.file);
        synced.map_err(|e| Error::storage(format!("syncing {}", self.file), e))?;
        tail.synced = tail.ring.next_sequence() - 1;
        tail.unsynced = 0;
        Ok(())
    }

    /// Lets the queue's tail rise, to `most` at most, as far as the log has room when every position
    /// above `collected`, which the log does not have yet, may need a batch of its own: never lower
    /// than before. Called after every change of the ring, and tells the status of it.
    fn refresh_limit(&self, tail: &Tail, collected: Position, most: Position) {
        let used = tail.ring.used_bytes();
        self.used.store(used, Relaxed);
        self.filled.store(used.wrapping_sub(collected * self.block_size as u64), Release);
        let room = collected + tail.ring.free_bytes() / self.place_bytes;
        self.queue.raise_limit(room.min(most));
    }

    /// Bytes of the log that are held.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// How full the journal is, in parts of [`FULL`]: its places or its bytes, whichever are fuller. A
    /// record that the log does not have yet counts as a block.
    pub fn fill(&self) -> u64 {
        let share = |part: u64, whole: u64| {
            let share = u128::from(part) * u128::from(FULL) / u128::from(whole);
            share.min(FULL.into()) as u64
        };
        let filled = self.filled.load(Acquire);
        let (freed, tail) = (self.queue.freed(), self.queue.tail());
        let bytes = filled.wrapping_add(tail * self.block_size as u64);
        share(tail - freed, self.queue.places()).max(share(bytes, self.bytes_max))
    }

    /// Gives up every position below `freed`; the superblock says so already (R9).
    fn free(&self, tail: &mut Tail, freed: Position) {
        // Readers must find the positions gone before their bytes can be written over.
        self.queue.release(freed, 0);
        // A storage need not order anything: a reader that sees newer bytes there must find them gone.
        fence(Release);
        tail.ring.free_below(freed);
    }
}

/// Where a log's next batch goes, and how much of it is durable.
pub(crate) struct Tail {
    ring: Ring,
    /// Highest log sequence number known durable.
    synced: u64,
    /// Bytes of the batches written since.
    unsynced: u64,
}

impl Tail {
    fn new(state: &LogState, geometry: &Geometry, opened: u64) -> Tail {
        let ring = Ring::new(state, geometry.log_slack(), opened);
        Tail { ring, synced: state.durable, unsynced: 0 }
    }

    /// Takes a batch found at opening; its records were adopted up to the position `last`.
    fn adopt(&mut self, found: &Found, last: Position) {
        let rows = found.header.rows.len() as u64;
        self.ring.adopt(found.offset, found.bytes, rows, found.header.opened, last);
    }

    /// The state that the superblock must have before positions below `freed` are given up.
    fn state_without(&self, freed: Position) -> LogState {
        self.ring.state_without(freed, self.synced)
    }
}

const ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];
