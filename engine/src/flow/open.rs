//! Opening: queues and tables are rebuilt from the logs' headers; tables are never read from disk.

use super::Tables;
use crate::error::{Error, Kind, Result};
use crate::format::PAGE;
use crate::format::Row;
use crate::format::batch::Log;
use crate::format::superblock::Superblock;
use crate::journal::own::OwnLog;
use crate::journal::recv::RecvLog;
use crate::journal::scan::{Found, walk};
use crate::queue::{Clk, Content, NO_PLACE, Record, Sequencer};
use crate::storage::Storage;
use crate::table::unreflected::Unreflected;
use crate::unit::Stamp;

/// Rebuilds the state of a device that was closed cleanly.
pub(crate) fn rebuild(
    superblock: &Superblock,
    own: &OwnLog,
    recv: &RecvLog,
    storage: &dyn Storage,
) -> Result<Tables> {
    let Superblock { hi, acked, need, fl, .. } = *superblock;
    let mut tables = Tables {
        sequencer: Sequencer::new(own.journal.queue.tail()),
        recv_next: recv.journal.queue.tail(),
        own: Unreflected::default(),
        recv: Unreflected::default(),
        shipped: 0,
        sent: acked,
        acked_index: 0,
        acked,
        allowed: 0,
        own_reflected: 0,
        recv_reflected: 0,
        reflected: fl,
        since_checkpoint: 0,
        hi,
        begun: 0,
        need,
        granted: if superblock.fenced { superblock.epoch } else { 0 },
    };
    let (batches, mut records) = read_log(superblock, Log::Own, storage)?;
    // A record that was long in being published is late in its log: positions follow stamps.
    records.sort_by_key(|(record, _)| record.stamp);
    let mut last = vec![0; batches.len()];
    own.journal.queue.raise_limit(own.journal.queue.tail() + records.len() as u64);
    for (record, batch) in &records {
        let position = own.adopt(record).ok_or_else(|| overfull(Log::Own))?;
        last[*batch] = position.max(last[*batch]);
    }
    for (found, last) in batches.iter().zip(last) {
        own.adopt_batch(found.offset, found.bytes, found.header.rows.len() as u64, last);
    }
    let (batches, records) = read_log(superblock, Log::Recv, storage)?;
    let mut last = vec![0; batches.len()];
    let mut previous = Stamp::ZERO;
    recv.journal.queue.raise_limit(recv.journal.queue.tail() + records.len() as u64);
    for (record, batch) in &records {
        if record.stamp <= previous {
            let what = format!("the received log has {} behind {previous}", record.stamp);
            return Err(Error::new(Kind::Damaged, what));
        }
        previous = record.stamp;
        last[*batch] = recv.adopt(record).ok_or_else(|| overfull(Log::Recv))?;
        tables.recv.push(record.stamp, last[*batch]);
    }
    for (found, last) in batches.iter().zip(last) {
        recv.adopt_batch(found.offset, found.bytes, found.header.rows.len() as u64, last);
    }
    tables.recv_next = recv.journal.queue.tail();
    let mut emitted = Vec::new();
    let queue = &own.journal.queue;
    tables.sequencer.take(queue, &Clk::new(), |_| true, &mut emitted);
    for (stamp, position) in emitted {
        tables.own.push(stamp, position);
        if stamp <= fl {
            queue.set_reflected(position);
        }
    }
    tables.acked_index = tables.own.after(acked);
    tables.shipped = tables.acked_index;
    tables.own_reflected = tables.own.after(fl);
    tables.recv_reflected = tables.recv.after(fl);
    for index in tables.recv.begin()..tables.recv_reflected {
        let (_, position) = tables.recv.get(index).expect("in range");
        recv.journal.queue.set_reflected(position);
    }
    tables.trim();
    Ok(tables)
}

/// A record and the index of its batch.
type InBatch = (Record, usize);

/// Reads a log's batches and records, each with its batch's index, and checks that the log holds
/// what the superblock says was durable.
fn read_log(
    superblock: &Superblock,
    log: Log,
    storage: &dyn Storage,
) -> Result<(Vec<Found>, Vec<InBatch>)> {
    let state = match log {
        Log::Own => superblock.own,
        Log::Recv => superblock.recv,
    };
    let mut durable = state.tail_sequence - 1;
    let (mut batches, mut rows) = (Vec::new(), Vec::new());
    let end = walk(storage, superblock, log, |found| {
        durable = found.header.sequence + found.header.rows.len() as u64 - 1;
        let batch = batches.len();
        let these = records(&found, superblock.block_size, superblock.fl);
        rows.extend(these.into_iter().map(|record| (record, batch)));
        batches.push(found);
    });
    let end = end.map_err(|e| Error::storage(format!("reading the {log:?} log"), e))?;
    if durable < state.durable {
        let expected = state.durable;
        return Err(Error::new(
            Kind::Damaged,
            format!(
                "the {log:?} log ends at sequence {durable} ({end:?}), but {expected} was durable; see `inspect`"
            ),
        ));
    }
    Ok((batches, rows))
}

fn overfull(log: Log) -> Error {
    Error::new(Kind::Damaged, format!("the {log:?} log holds more records than it has places"))
}

fn records(found: &Found, block_size: u32, fl: Stamp) -> Vec<Record> {
    let mut place = found.offset + PAGE;
    let mut record = |row: &Row| {
        let record = Record {
            position: 0,
            stamp: row.stamp,
            block: row.block,
            content: if row.has_data { Content::Data } else { Content::Zero },
            checksum: row.checksum,
            index: row.index,
            count: row.count,
            written_at: 0,
            place: if row.has_data { place } else { NO_PLACE },
            reflected: row.stamp <= fl,
        };
        place += if row.has_data { u64::from(block_size) } else { 0 };
        record
    };
    found.header.rows.iter().map(&mut record).collect()
}
