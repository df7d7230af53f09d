//! One log as it stands in its file: the unbroken run of batches, each record's data checked.
//!
//! What follows the first record that is torn and that nothing says was ever durable is dropped
//! and counted (R13): a power cut leaves such a tail, and it is no damage. A record that was
//! durable and is not there, or not what it was, is rot, and is named.

use super::report::Finding;
use afterimage::format::batch::Log;
use afterimage::format::superblock::{LogState, Superblock};
use afterimage::format::{PAGE, Row, data_checksum};
use afterimage::journal::scan::{End, Found, Verify, scan};
use afterimage::storage::{FileName, Storage};
use afterimage::unit::Stamp;

/// A record in a log: a row of an unreflected table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Which log.
    pub(crate) log: Log,
    /// Its log sequence number.
    pub(crate) sequence: u64,
    /// The row.
    pub(crate) row: Row,
    /// Byte offset of its batch.
    pub(crate) batch_offset: u64,
    /// Byte offset of its data; `None` for zeros.
    pub(crate) data_offset: Option<u64>,
    /// Whether its data has its checksum.
    pub(crate) intact: bool,
}

impl Entry {
    /// `own:n` or `recv:n`.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", log_name(self.log), self.sequence)
    }
}

/// The word for a log in entries.
pub(crate) fn log_name(log: Log) -> &'static str {
    match log {
        Log::Own => "own",
        Log::Recv => "recv",
    }
}

/// What a log holds.
#[derive(Clone, Debug)]
pub(crate) struct LogRead {
    /// Its file.
    pub(crate) file: FileName,
    /// What the superblock says of it.
    pub(crate) state: LogState,
    /// The records, in log sequence order.
    pub(crate) entries: Vec<Entry>,
    /// Batches held.
    pub(crate) batches: u64,
    /// Bytes of these batches.
    pub(crate) bytes: u64,
    /// The highest log sequence number known durable when anything found here was written.
    pub(crate) synced: u64,
    /// Where the next batch would go, or would begin to be looked for.
    pub(crate) end_offset: u64,
    /// Why the walk ended.
    pub(crate) end: End,
    /// Records behind a torn one that were never durable.
    pub(crate) dropped: u64,
    /// What is wrong.
    pub(crate) findings: Vec<Finding>,
}

impl LogRead {
    /// The log sequence number that follows the records held.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.entries.last().map_or(self.state.tail_sequence, |e| e.sequence + 1)
    }

    /// The newest stamp held.
    pub(crate) fn newest(&self) -> Stamp {
        self.entries.iter().map(|e| e.row.stamp).max().unwrap_or(Stamp::ZERO)
    }
}

/// Reads the log that `superblock`, whose geometry has been checked, describes.
pub(crate) fn read(storage: &dyn Storage, superblock: &Superblock, log: Log) -> LogRead {
    let (file, state) = match log {
        Log::Own => (FileName::OwnLog, superblock.own),
        Log::Recv => (FileName::RecvLog, superblock.recv),
    };
    let mut batches = Vec::new();
    let mut findings = Vec::new();
    let mut find = |what| findings.push(Finding { file: Some(file), what });
    let end = match scan(storage, superblock, log, Verify::All, &mut |_| {}) {
        Ok(scan) => {
            batches = scan.batches;
            scan.damages.into_iter().for_each(|damage| find(damage.what));
            scan.end
        }
        Err(error) => {
            find(format!("cannot be read: {error}"));
            End::Torn(state.tail_offset, format!("cannot be read: {error}"))
        }
    };
    let synced = batches.iter().map(|b| b.header.synced).fold(state.durable, u64::max);
    let mut read = LogRead {
        file,
        state,
        entries: Vec::new(),
        batches: 0,
        bytes: 0,
        synced,
        end_offset: state.tail_offset,
        end,
        dropped: 0,
        findings: Vec::new(),
    };
    let mut torn = None;
    for batch in &batches {
        if torn.is_none() {
            torn = add_batch(storage, superblock, log, batch, &mut read, &mut find);
        } else {
            read.dropped += batch.header.rows.len() as u64;
        }
    }
    if let Some(torn) = torn {
        read.end = torn;
    }
    let last = read.next_sequence().saturating_sub(1);
    if last < synced {
        let from = last + 1;
        let why = match &read.end {
            End::Clean => "nothing stands there".into(),
            End::Torn(offset, reason) => format!("at {offset}: {reason}"),
        };
        find(format!("records {from} to {synced} were durable and are gone ({why})"));
    }
    if log == Log::Recv {
        check_chain(&batches, &mut find);
    }
    read.findings = findings;
    read
}

fn batches_end(batches: &[Found], tail: u64) -> u64 {
    batches.last().map_or(tail, |b| b.offset + b.bytes)
}

/// Takes a batch's records in; says where the run breaks if it does.
fn add_batch(
    storage: &dyn Storage,
    superblock: &Superblock,
    log: Log,
    batch: &Found,
    read: &mut LogRead,
    find: &mut impl FnMut(String),
) -> Option<End> {
    let mut block = vec![0; superblock.block_size as usize];
    let mut place = batch.offset + PAGE;
    let rows = &batch.header.rows;
    for (sequence, row) in (batch.header.sequence..).zip(rows) {
        let mut entry = Entry {
            log,
            sequence,
            row: *row,
            batch_offset: batch.offset,
            data_offset: row.has_data.then_some(place),
            intact: true,
        };
        if row.has_data {
            let wrong = match storage.read(read.file, place, &mut block) {
                Err(error) => Some(error.to_string()),
                Ok(()) if data_checksum(&block) == row.checksum => None,
                Ok(()) => {
                    let found = data_checksum(&block);
                    Some(format!("checksum is {found:016x}, not {:016x}", row.checksum))
                }
            };
            if let Some(wrong) = wrong {
                let story = format!("data of {} at {place}: {wrong}", entry.name());
                if sequence > read.synced {
                    read.dropped += batch.header.sequence + rows.len() as u64 - sequence;
                    return Some(End::Torn(place, story));
                }
                find(story);
                entry.intact = false;
            }
            place += block.len() as u64;
        }
        read.entries.push(entry);
    }
    read.batches += 1;
    read.bytes += batch.bytes;
    read.end_offset = batch.offset + batch.bytes;
    None
}

/// What was received is an unbroken chain (R13): each batch follows the one before.
fn check_chain(batches: &[Found], find: &mut impl FnMut(String)) {
    let mut newest = Stamp::ZERO;
    for batch in batches {
        let header = &batch.header;
        if newest != Stamp::ZERO && header.previous > newest {
            let (sequence, previous) = (header.sequence, header.previous);
            find(format!("recv:{sequence} follows stamp {previous}, but the newest is {newest}"));
        }
        for (sequence, row) in (header.sequence..).zip(&header.rows) {
            if row.stamp <= newest {
                find(format!("recv:{sequence} has stamp {}, after {newest}", row.stamp));
            }
            newest = newest.max(row.stamp);
        }
    }
}
