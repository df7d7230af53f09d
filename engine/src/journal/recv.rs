//! The received log: what the peer shipped, durable before it is acknowledged (R6; S1502).

use super::ring::Ring;
use super::{Journal, lock};
use crate::error::{Error, Kind, Result};
use crate::format::Row;
use crate::format::batch::{Header, Log, batch_bytes};
use crate::format::superblock::{LogState, Superblock};
use crate::limits::{Durability, Geometry};
use crate::queue::{Content, NO_PLACE, Record};
use crate::storage::Storage;
use crate::unit::{Position, Stamp};
use std::io::IoSlice;
use std::sync::{Arc, Mutex};

const ZEROS: [u8; 4096] = [0; 4096];

/// The received log.
pub(crate) struct RecvLog {
    pub journal: Journal,
    writer: Mutex<Writer>,
}

struct Writer {
    ring: Ring,
    synced: u64,
}

/// A received record that is about to become durable: its row and its data.
pub(crate) struct Arrival<'a> {
    pub row: Row,
    pub data: &'a [u8],
}

impl RecvLog {
    pub fn new(superblock: &Superblock, geometry: &Geometry, storage: Arc<dyn Storage>) -> RecvLog {
        let journal = Journal::new(superblock, geometry, Log::Recv, storage);
        let ring = Ring::new(&superblock.recv, geometry.log_slack());
        let writer = Mutex::new(Writer { ring, synced: superblock.recv.durable });
        let recv = RecvLog { journal, writer };
        recv.refresh_limit(&lock(&recv.writer));
        recv
    }

    fn refresh_limit(&self, w: &Writer) {
        let limit = self.journal.limit(self.journal.queue.tail(), &w.ring);
        self.journal.queue.raise_limit(limit);
    }

    /// Takes a record found in the log at opening back into the queue.
    pub fn adopt(&self, record: &Record) -> Option<Position> {
        self.journal.queue.receive(record)
    }

    /// Takes a batch found in the log at opening; its records were adopted up to `last`.
    pub fn adopt_batch(&self, offset: u64, bytes: u64, rows: u64, last: Position) {
        let mut w = lock(&self.writer);
        w.ring.adopt(offset, bytes, rows, last);
        self.refresh_limit(&w);
    }

    /// Makes `arrivals` durable, in their order, and publishes them; the first follows
    /// `previous`. One caller at a time.
    pub fn append(
        &self,
        previous: Stamp,
        arrivals: &[Arrival<'_>],
        received_at: u64,
        durability: Durability,
    ) -> Result<Vec<Record>> {
        let journal = &self.journal;
        let size = journal.block_size as u64;
        if arrivals.len() as u64 > journal.queue.free() {
            let (got, free) = (arrivals.len(), journal.queue.free());
            return Err(Error::new(
                Kind::Protocol,
                format!("I9: the peer shipped {got} records where it had credit for {free}"),
            ));
        }
        let mut w = lock(&self.writer);
        let mut previous = previous;
        let mut next = journal.queue.tail();
        let mut records = Vec::with_capacity(arrivals.len());
        for chunk in arrivals.chunks(journal.batch_rows) {
            let with_data = chunk.iter().filter(|a| a.row.has_data).count();
            let bytes = batch_bytes(with_data as u64, size);
            let rows = chunk.len() as u64;
            let (offset, sequence) = w.ring.place(bytes, rows, next + rows - 1);
            let header = Header {
                identity: journal.identity,
                sequence,
                synced: w.synced,
                previous,
                rows: chunk.iter().map(|a| a.row).collect(),
            };
            let page = header.encode(size);
            let mut slices = vec![IoSlice::new(&page[..])];
            slices.extend(chunk.iter().filter(|a| a.row.has_data).map(|a| IoSlice::new(a.data)));
            let padding = bytes - page.len() as u64 - with_data as u64 * size;
            slices.push(IoSlice::new(&ZEROS[..padding as usize]));
            journal.storage.write(journal.file, offset, &slices).map_err(|e| {
                Error::storage(format!("writing a batch at {offset} of {}", journal.file), e)
            })?;
            let mut place = offset + page.len() as u64;
            for arrival in chunk {
                let row = &arrival.row;
                records.push(Record {
                    position: next,
                    stamp: row.stamp,
                    block: row.block,
                    content: if row.has_data { Content::Data } else { Content::Zero },
                    checksum: row.checksum,
                    index: 0,
                    count: 1,
                    written_at: received_at,
                    place: if row.has_data { place } else { NO_PLACE },
                    reflected: false,
                });
                place += if row.has_data { size } else { 0 };
                next += 1;
            }
            previous = chunk.last().expect("chunks are not empty").row.stamp;
        }
        if durability != Durability::Never {
            let synced = journal.storage.sync(journal.file);
            synced.map_err(|e| Error::storage(format!("syncing {}", journal.file), e))?;
        }
        w.synced = w.ring.next_sequence() - 1;
        for record in &records {
            let position = journal.queue.receive(record);
            assert_eq!(position, Some(record.position), "one receiver, within its credit");
        }
        self.refresh_limit(&w);
        Ok(records)
    }

    /// Copies a record's data. `false`: it has been freed meanwhile.
    pub fn read(&self, record: &Record, buf: &mut [u8]) -> Result<bool> {
        if record.content == Content::Zero {
            buf.fill(0);
            return Ok(self.journal.queue.live(record.position).is_some());
        }
        self.journal.read_logged(record, buf)
    }

    /// What the superblock must say before positions below `freed` are given up.
    pub fn state_without(&self, freed: Position) -> LogState {
        let w = lock(&self.writer);
        LogState { durable: w.synced, ..self.journal.state_without(&w.ring, freed) }
    }

    /// Gives up every position below `freed`; the superblock says so already.
    pub fn free(&self, freed: Position) {
        let mut w = lock(&self.writer);
        self.journal.queue.release(freed, 0);
        w.ring.free_below(freed);
        self.refresh_limit(&w);
    }

    /// Bytes of the log that are held.
    pub fn used_bytes(&self) -> u64 {
        lock(&self.writer).ring.used_bytes()
    }
}
