//! A log with its queue: the remote unreflected volume and table (own log, R), and the local ones
//! (received log, L).
//!
//! A record is published in the queue and written to the log in batches, one `pwritev` each, with
//! one `sync` a commit. The same type holds what both logs share; [`own`] adds host writes and
//! group commit, [`recv`] adds what arrives.

pub mod own;
#[allow(unsafe_code)]
pub mod payload;
pub mod recv;
pub mod ring;
pub mod scan;

use crate::error::{Error, Kind, Result};
use crate::format::batch::{Identity, Log, ROWS_MAX};
use crate::format::superblock::{LogState, Superblock};
use crate::format::{Row, data_checksum};
use crate::limits::Geometry;
use crate::queue::{Content, NO_PLACE, Queue, Record};
use crate::storage::{FileName, Storage};
use crate::unit::Position;
use ring::Ring;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. A panic elsewhere while it was held has halted nothing that this state could
/// not survive: every user of it checks its own invariants.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<&Record> for Row {
    fn from(r: &Record) -> Self {
        Row {
            stamp: r.stamp,
            block: r.block,
            checksum: r.checksum,
            index: r.index,
            count: r.count,
            has_data: r.content == Content::Data,
        }
    }
}

/// What the two logs share.
pub(crate) struct Journal {
    pub queue: Queue,
    pub file: FileName,
    pub identity: Identity,
    pub storage: Arc<dyn Storage>,
    pub block_size: usize,
    batch_rows: usize,
    place_bytes: u64,
}

impl Journal {
    fn new(
        superblock: &Superblock,
        geometry: &Geometry,
        log: Log,
        storage: Arc<dyn Storage>,
    ) -> Self {
        let (file, state) = match log {
            Log::Own => (FileName::OwnLog, &superblock.own),
            Log::Recv => (FileName::RecvLog, &superblock.recv),
        };
        let salt = (superblock.group as u64) ^ superblock.device.rotate_left(32);
        Journal {
            queue: Queue::new(geometry.places() as usize, 1, salt),
            file,
            identity: Identity { log, device: superblock.device, incarnation: state.incarnation },
            storage,
            block_size: geometry.block_size as usize,
            batch_rows: geometry.batch_rows().min(ROWS_MAX),
            place_bytes: geometry.place_bytes(),
        }
    }

    /// Copies a record's data from the log. `false`: it has been freed meanwhile; look again.
    pub fn read_logged(&self, record: &Record, buf: &mut [u8]) -> Result<bool> {
        debug_assert!(record.place != NO_PLACE);
        let read = self.storage.read(self.file, record.place, buf);
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

    /// How far the tail may rise when every position not in the log yet may need a batch of its
    /// own: never lower than before.
    fn limit(&self, collected: Position, ring: &Ring) -> Position {
        collected + ring.free_bytes() / self.place_bytes
    }

    /// The tail that the superblock must name before positions below `freed` are given up.
    fn state_without(&self, ring: &Ring, freed: Position) -> LogState {
        ring.state_without(freed, ring.next_sequence() - 1)
    }
}
