//! The received log: what the peer shipped, durable before it is acknowledged (R6; S1502).

use super::scan::Found;
use super::{Journal, Tail, record_of};
use crate::error::{Error, Kind, Result};
use crate::format::Row;
use crate::format::batch::Log;
use crate::format::superblock::{LogState, Superblock};
use crate::limits::{Durability, Geometry};
use crate::queue::{Content, Record};
use crate::storage::Storage;
use crate::sync::lock;
use crate::unit::{Position, Stamp};
use std::sync::{Arc, Mutex};

/// The received log.
pub(crate) struct RecvLog {
    pub journal: Journal,
    tail: Mutex<Tail>,
}

/// A received record that is about to become durable: its row and its data.
pub(crate) struct Arrival<'a> {
    pub row: Row,
    pub data: &'a [u8],
}

impl RecvLog {
    /// An empty log that promises no place before [`RecvLog::adopt_batches`].
    ///
    /// # Errors
    /// [`Kind::Config`] if the operating system refuses the address space.
    pub fn new(
        superblock: &Superblock,
        geometry: &Geometry,
        opened: u64,
        batch_records_max: usize,
        storage: Arc<dyn Storage>,
    ) -> Result<RecvLog> {
        let journal =
            Journal::new(superblock, geometry, Log::Recv, opened, batch_records_max, storage)?;
        Ok(RecvLog { journal, tail: Mutex::new(Tail::new(&superblock.recv, geometry, opened)) })
    }

    fn refresh_limit(&self, tail: &Tail) {
        self.journal.refresh_limit(tail, self.journal.queue.tail(), Position::MAX);
    }

    /// Takes a record found in the log at opening back into the queue.
    pub fn adopt(&self, record: &Record) -> Option<Position> {
        self.journal.queue.receive(record)
    }

    /// Takes the batches found in the log at opening, each with the highest position that a record
    /// of it was adopted at. Only now places are promised: what was promised stays so.
    pub fn adopt_batches(&self, batches: &[Found], last: &[Position]) {
        let mut tail = lock(&self.tail);
        batches.iter().zip(last).for_each(|(found, &last)| tail.adopt(found, last));
        self.refresh_limit(&tail);
    }

    /// Makes every batch in the log durable, also where appending does not.
    pub fn sync(&self) -> Result<()> {
        self.journal.sync_all(&mut lock(&self.tail))
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
        let mut tail = lock(&self.tail);
        let mut previous = previous;
        let mut next = journal.queue.tail();
        let mut records = Vec::with_capacity(arrivals.len());
        for chunk in arrivals.chunks(journal.batch_rows) {
            let rows = chunk.iter().map(|a| a.row).collect();
            let with_data = chunk.iter().filter(|a| a.row.has_data);
            let blocks: Vec<&[u8]> = with_data.map(|a| a.data).collect();
            let last = next + chunk.len() as u64 - 1;
            let mut place = journal.write_batch(&mut tail, previous, rows, &blocks, last)?;
            for arrival in chunk {
                let row = &arrival.row;
                records.push(Record { position: next, ..record_of(row, place, received_at) });
                place += if row.has_data { size } else { 0 };
                next += 1;
            }
            previous = chunk.last().expect("chunks are not empty").row.stamp;
        }
        journal.sync(&mut tail, durability)?;
        for record in &records {
            let position = journal.queue.receive(record);
            assert_eq!(position, Some(record.position), "one receiver, within its credit");
        }
        self.refresh_limit(&tail);
        Ok(records)
    }

    /// The highest log sequence number known durable.
    pub fn synced(&self) -> u64 {
        lock(&self.tail).synced
    }

    /// Copies a record's data. `false`: it has been freed meanwhile.
    pub fn read(&self, record: &Record, buf: &mut [u8]) -> Result<bool> {
        if record.content == Content::Zero {
            buf.fill(0);
            return Ok(self.journal.queue.live(record.position).is_some());
        }
        self.journal.read_logged(record, buf)
    }

    /// The state that the superblock must have before positions below `freed` are given up.
    pub fn state_without(&self, freed: Position) -> LogState {
        lock(&self.tail).state_without(freed)
    }

    /// Gives up every position below `freed`; the superblock says so already (R9).
    pub fn free(&self, freed: Position) {
        let mut tail = lock(&self.tail);
        self.journal.free(&mut tail, freed);
        self.refresh_limit(&tail);
    }
}
