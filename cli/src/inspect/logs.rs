//! One log as it stands in its file: what opening the device would find, record by record.
//!
//! The rest from the first batch on that is torn and that nothing says was ever durable is dropped
//! and counted (R13): a power cut leaves such a tail, and it is no damage. A record that was
//! durable and is not there, or not what it was, is rot, and is named.

use super::finding::Finding;
use afterimage::internal::format::batch::Log;
use afterimage::internal::format::superblock::{LogState, Superblock};
use afterimage::internal::format::{PAGE, Row};
use afterimage::internal::journal::scan::{End, Verify, log_of, scan};
use afterimage::internal::storage::{FileName, Storage};
use afterimage::internal::unit::Stamp;
use std::collections::HashSet;

pub(crate) use afterimage::internal::journal::scan::log_name;

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

/// A log, as it was read.
#[derive(Clone, Debug)]
pub(crate) struct LogRead {
    /// Its file.
    pub(crate) file: FileName,
    /// Its state in the superblock.
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
    /// Records found behind the run that were never durable.
    pub(crate) dropped: u64,
    /// The faults.
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

/// Reads the log that `superblock`, which has been checked, describes: as opening the device does,
/// with the data of every record.
pub(crate) fn read(storage: &dyn Storage, superblock: &Superblock, log: Log) -> LogRead {
    let (file, state) = log_of(superblock, log);
    let mut read = LogRead {
        file,
        state: *state,
        entries: Vec::new(),
        batches: 0,
        bytes: 0,
        synced: state.durable,
        end_offset: state.tail_offset,
        end: End::Clean,
        dropped: 0,
        findings: Vec::new(),
    };
    let mut find = |what| read.findings.push(Finding { file: Some(file), what });
    match storage.length(file) {
        Ok(None) => find("is missing".into()),
        Ok(Some(length)) if length != state.bytes => {
            find(format!("has {length} bytes, should have {}", state.bytes));
        }
        // A file that cannot be asked for its length cannot be read either.
        Ok(_) | Err(_) => {}
    }
    let scan = match scan(storage, superblock, log, Verify::All, &mut |_| ()) {
        Ok(scan) => scan,
        Err(error) => {
            let what = format!("cannot be read: {error}");
            read.end = End::Torn(state.tail_offset, what.clone());
            read.findings.push(Finding { file: Some(file), what });
            return read;
        }
    };
    let bad: HashSet<u64> = scan.damages.iter().map(|damage| damage.sequence).collect();
    let size = u64::from(superblock.block_size);
    for batch in &scan.batches {
        let mut place = batch.offset + PAGE;
        for (sequence, row) in (batch.header.sequence..).zip(&batch.header.rows) {
            read.entries.push(Entry {
                log,
                sequence,
                row: *row,
                batch_offset: batch.offset,
                data_offset: row.has_data.then_some(place),
                intact: !bad.contains(&sequence),
            });
            place += if row.has_data { size } else { 0 };
        }
        read.batches += 1;
        read.bytes += batch.bytes;
    }
    let damages = scan.damages.into_iter();
    read.findings.extend(damages.map(|d| Finding { file: Some(file), what: d.what }));
    (read.synced, read.dropped) = (scan.synced, scan.cut);
    (read.end, read.end_offset) = (scan.end, scan.end_offset);
    read
}
